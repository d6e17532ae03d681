// Elements and numbers. Whatever comes from data enters the page here: as text, or as a label's value.

function element(name, properties = {}, ...children) {
  return furnished(document.createElement(name), properties, children);
}

function drawing(name, properties = {}, ...children) {
  return furnished(document.createElementNS("http://www.w3.org/2000/svg", name), properties, children);
}

/** Functions listen to the event of their key; `text` is text; null, undefined and false leave an attribute out. */
function furnished(made, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (key === "text") made.textContent = value;
    else if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element whose CSS variable holds a number; attributes named `style` are forbidden by the page's policy. */
function withVariable(made, name, value) {
  made.style.setProperty(name, value);
  return made;
}

function empty(sentence, ...more) {
  return element("p", { class: "empty" }, sentence, ...more);
}

function fill(host, ...children) {
  host.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined));
}

const wholeNumbers = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

function counted(number, noun) {
  return `${wholeNumbers.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** How to write a score's numbers, so that their digits stand under each other. */
function numberFormat(name, values) {
  const finite = values.filter(Number.isFinite);
  const largest = Math.max(0, ...finite.map(Math.abs));
  const isCount = finite.every(Number.isInteger) && (name === "rank" || largest > 1);
  const digits = isCount ? 0 : largest >= 1000 ? 0 : largest >= 100 ? 1 : largest >= 10 ? 2 : 3;
  const tiny = largest > 0 && largest < 0.001;
  const format = new Intl.NumberFormat("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return (value) => {
    if (!Number.isFinite(value)) return "–";
    return (tiny ? value.toExponential(1) : format.format(value)).replace("-", "−");
  };
}

function signed(text) {
  return /^[−–]/.test(text) || !/[1-9]/.test(text) ? text : `+${text}`;
}

const ABBREVIATIONS = { fvu: "FVU", l0: "L0" };

function scoreLabel(name) {
  const words = name.replaceAll("_", " ");
  return Object.hasOwn(ABBREVIATIONS, name) ? ABBREVIATIONS[name] : words.charAt(0).toUpperCase() + words.slice(1);
}

// Which way is better, for the scores that have one: L0 has none.
const BETTER = { rank: -1, reciprocal_rank: 1, margin: 1, fvu: -1, max_error: -1 };

/** "better", "worse" or "" for a change of a score. */
function verdict(name, change) {
  const direction = Object.hasOwn(BETTER, name) ? Math.sign(change) * BETTER[name] : 0;
  return direction > 0 ? "better" : direction < 0 ? "worse" : "";
}

function momentLabel(moment) {
  return `Epoch ${wholeNumbers.format(moment.epoch)} · step ${wholeNumbers.format(moment.step)}`;
}
