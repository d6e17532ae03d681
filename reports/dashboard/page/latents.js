// The list of latents: searched, filtered and sorted.

const PAGE = 60;
const SHOW = {
  all: ["All", () => true],
  clear: ["Labelled", (latent) => Boolean(index.labels[latent])],
  dense: ["Dense", isDense],
  dead: ["Dead", isDead],
};
const SORT = {
  found: ["Best match", null],
  number: ["Number", (latent) => latent],
  density: ["Most frequent", (latent) => -index.counts[latent]],
  rare: ["Least frequent", (latent) => (isDead(latent) ? Infinity : index.counts[latent])],
  largest: ["Largest activation", (latent) => -index.largest[latent]],
  explained: ["Clearest label", (latent) => -index.explained[latent]],
};

let searchNumber = 0; // of the newest search: what an older one still finds is thrown away

async function showLatents({ q = "", show = "all", sort = q ? "found" : "number", where = "labels" }) {
  const mine = (searchNumber += 1);
  const asked = { q, show, sort, where };
  if (byId("search").value !== q && document.activeElement !== byId("search")) byId("search").value = q;
  const state = element("p", { class: "muted", role: "status" });
  const list = element("ol", { class: "latent-list-rows" });
  const head = element(
    "p",
    { class: "latent-row list-head muted", "aria-hidden": "true" },
    ["Latent", "Automatic label", where === "contexts" && q ? "Found in" : "Typical tokens", "Tokens", "Largest"].map((text) => element("span", { text })),
  );
  const more = element("button", { type: "button", class: "plain more", text: "Show more", hidden: true });
  const tools = element("div", { class: "tools" }, picks(asked), q ? places(asked) : null, sorts(asked), state);
  fill(byId("latents"), tools, head, list, more);
  const shown = { found: [], made: 0 };
  const draw = (found, note = "") => {
    if (mine !== searchNumber) return false;
    shown.found = ordered(found.filter(({ latent }) => SHOW[show]?.[1](latent) ?? true), sort);
    list.replaceChildren();
    shown.made = 0;
    state.textContent = `${counted(shown.found.length, "latent")}${note}`;
    makeMore();
    head.hidden = !shown.found.length;
    if (!shown.found.length && !note) fill(list, nothing(asked));
    return true;
  };
  const makeMore = () => {
    const next = shown.found.slice(shown.made, shown.made + PAGE);
    list.append(...next.map(latentRow));
    shown.made += next.length;
    if (where === "contexts") markFound(list, q);
    more.hidden = shown.made >= shown.found.length;
  };
  more.addEventListener("click", makeMore);
  try {
    if (!q) draw(Array.from({ length: latentCount }, (_, latent) => ({ latent })));
    else if (where === "token") draw(await firingOn(q));
    else if (where === "contexts") await drawContexts(q, draw);
    else draw(foundInIndex(q) ?? []);
  } catch (error) {
    if (mine === searchNumber) state.textContent = error.message;
  }
}

async function drawContexts(query, draw) {
  const found = [];
  await inContexts(query, (added, read) => {
    found.push(...added);
    const done = read === index.files;
    // not after every file: most of the time would go into making rows anew
    return done || read % 8 === 0 ? draw(found, done ? "" : `, ${read} of ${index.files} files read`) : true;
  });
}

function ordered(found, sort) {
  const by = SORT[sort]?.[1];
  return by ? [...found].sort((a, b) => by(a.latent) - by(b.latent) || a.latent - b.latent) : found;
}

/** Marks what was searched for in contexts, by ranges: no element is made for it. */
function markFound(host, query) {
  if (!("highlights" in CSS)) return;
  const words = query.trim().toLowerCase();
  const ranges = [];
  for (const line of host.querySelectorAll(".found-in")) {
    const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    const nodes = [];
    for (let node = texts.nextNode(); node; node = texts.nextNode()) nodes.push(node);
    const whole = nodes.map((node) => node.data).join("").toLowerCase();
    const start = whole.indexOf(words);
    if (start < 0) continue;
    const range = document.createRange();
    let at = 0;
    for (const node of nodes) {
      const next = at + node.length;
      if (start >= at && start < next) range.setStart(node, start - at);
      if (start + words.length > at && start + words.length <= next) range.setEnd(node, start + words.length - at);
      at = next;
    }
    ranges.push(range);
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

function nothing({ q, where }) {
  if (!q) return empty("There is no such latent.");
  const elsewhere = where === "contexts" ? null : element("a", { href: listAddress({ q, where: "contexts" }), text: "Look in the contexts" });
  return empty(`No latent is found by “${q}” here. `, elsewhere);
}

function listAddress(asked) {
  const kept = Object.entries(asked).filter(([name, value]) => value && !(name === "show" && value === "all"));
  return `#/latents${kept.length ? `?${new URLSearchParams(kept)}` : ""}`;
}

// Choices are links, so that the way back goes through them

function choice(name, current, choices, addressOf) {
  return element(
    "nav",
    { class: "switch small", "aria-label": name },
    choices.map(([key, text]) =>
      element("a", { href: addressOf(key), "aria-current": key === current ? "true" : null, text }),
    ),
  );
}

function picks(asked) {
  const choices = Object.entries(SHOW).map(([key, [text]]) => [key, text]);
  return choice("Which latents", asked.show, choices, (show) => listAddress({ ...asked, show }));
}

function places(asked) {
  const choices = [
    ["labels", "Labels and tokens"],
    ["token", "Fires on this token"],
    ["contexts", "Contexts"],
  ];
  return choice("Where to search", asked.where, choices, (where) => listAddress({ ...asked, where }));
}

function sorts(asked) {
  const options = Object.entries(SORT).filter(([key]) => key !== "found" || asked.q);
  const made = element(
    "select",
    { "aria-label": "Order", change: () => (location.hash = listAddress({ ...asked, sort: made.value })) },
    options.map(([key, [text]]) => element("option", { value: key, text, selected: key === asked.sort })),
  );
  return made;
}

function latentRow({ latent, why, context }) {
  const tokens = typicalOf(latent).map((text) => element("span", { class: "chip text", text: seen(text).trim() || seen(text) }));
  return element(
    "li",
    {},
    element(
      "a",
      { class: "latent-row", href: latentLink(latent) },
      element("span", { class: "number muted", text: latent }),
      element("span", { class: `name${index.labels[latent] ? "" : " muted"}`, text: labelOf(latent) }),
      context
        ? element("span", { class: "text found-in" }, shaded(context, index.largest[latent]))
        : element("span", { class: "chips" }, tokens),
      element("span", { class: "muted measure", text: percent(densityOf(latent)), title: "of the tokens" }),
      element("span", { class: "muted measure", text: isDead(latent) ? "–" : short(index.largest[latent]), title: "largest activation" }),
      why ? element("span", { class: "why muted", text: why }) : null,
    ),
  );
}
