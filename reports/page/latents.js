// Predictions of a sparse autoencoder: a text's tokens, marked by how strongly a latent fires there or by how much of
// the token the reconstruction misses.

const MOST_CHIPS = 14;
const ERROR = "error";
const tokenOf = new WeakMap(); // of every token's element
let shadedBy = ERROR; // for all texts of the page at once, so that a latent can be followed from one to the next

const latents = {
  summary(record) {
    const strongest = strongestLatents(record).slice(0, 3);
    if (!strongest.length) return [element("span", { class: "muted", text: "no latent fires" })];
    return [element("span", { class: "chips" }, strongest.map(([latent, most]) => element("span", { class: "chip" }, chipText(latent, most))))];
  },

  detail(record) {
    const { continuation } = record.prediction;
    return [
      shades(strongestLatents(record)),
      strip(record),
      continuation
        ? textsSideBySide(["Continuation", "Continuation through the autoencoder"], continuation.original ?? "", continuation.spliced ?? "")
        : null,
    ];
  },

  differs(before, after) {
    const strongest = ({ prediction }) => (prediction.tokens ?? []).map((token) => token.latents?.[0]?.[0] ?? "").join();
    const spliced = ({ prediction }) => prediction.continuation?.spliced;
    return strongest(before) !== strongest(after) || spliced(before) !== spliced(after);
  },

  comparison(before, after, sameModel) {
    const [a, b] = [new Map(strongestLatents(before)), new Map(strongestLatents(after))];
    const [gone, appeared] = [[...a].filter(([latent]) => !b.has(latent)), [...b].filter(([latent]) => !a.has(latent))];
    const changed = [...b].filter(([latent, most]) => a.has(latent) && Math.abs(most - a.get(latent)) > 0.1 * a.get(latent));
    const spliced = [before, after].map(({ prediction }) => prediction.continuation?.spliced);
    return [
      shades([...new Map([...a, ...b])].sort((one, other) => other[1] - one[1]), false),
      element("div", { class: "sides" }, element("div", {}, strip(before)), element("div", {}, strip(after, before))),
      sameModel ? null : element("p", { class: "muted", text: "Latents of different models share their numbers by chance alone." }),
      latentList("Only in A", gone),
      latentList("Only in B", appeared),
      latentList("Stronger or weaker in B", changed, a),
      spliced.every((text) => text !== undefined) ? textsSideBySide(["Continuation through A", "Continuation through B"], ...spliced) : null,
    ];
  },
};

/** [latent, its strongest value in the text], strongest first. */
function strongestLatents({ prediction }) {
  const most = new Map();
  for (const token of prediction.tokens ?? []) {
    for (const [latent, value] of token.latents ?? []) most.set(latent, Math.max(value, most.get(latent) ?? -Infinity));
  }
  return [...most].sort((one, other) => other[1] - one[1]);
}

function chipText(latent, value) {
  return [element("b", { text: latent }), element("span", { text: value.toFixed(value >= 10 ? 1 : 2) })];
}

/** A button that shades every text by one latent; pressed once more, by the error again. */
function chip(latent, value) {
  const pressed = String(shadedBy === latent);
  const press = () => shadeBy(shadedBy === latent ? ERROR : latent);
  return element(
    "button",
    { type: "button", class: "chip", "data-shade": latent, "aria-pressed": pressed, "aria-label": `Latent ${latent}, ${value.toFixed(2)}`, click: press },
    chipText(latent, value),
  );
}

function shades(strongest) {
  const error = element("button", {
    type: "button",
    class: "chip",
    "data-shade": ERROR,
    "aria-pressed": String(shadedBy === ERROR),
    text: "Reconstruction error",
    click: () => shadeBy(ERROR),
  });
  const some = strongest.slice(0, MOST_CHIPS).map(([latent, most]) => chip(latent, most));
  return element("div", { class: "chips", role: "group", "aria-label": "Shade the tokens by" }, error, some);
}

function shadeBy(shade) {
  shadedBy = shade;
  for (const made of document.querySelectorAll(".strip")) paint(made);
  for (const made of document.querySelectorAll("[data-shade]")) made.setAttribute("aria-pressed", String(made.dataset.shade === String(shade)));
}

/** The tokens one after the other. One stop of the Tab key; arrows move from token to token. */
function strip(record, earlier = null) {
  const { tokens = [] } = record.prediction;
  if (!tokens.length) return empty("This record has no tokens.");
  const isWordPiece = tokens.every((token) => !/\s/.test(token.text));
  const strongestBefore = (earlier?.prediction.tokens ?? []).map((token) => token.latents?.[0]?.[0]);
  const about = element("div", { class: "about", "aria-live": "polite" });
  const spans = tokens.map((token, at) => {
    const glued = isWordPiece && /^##./.test(token.text);
    const changed = earlier && strongestBefore[at] !== token.latents?.[0]?.[0];
    const made = element("span", {
      class: `token${glued ? " glued" : ""}${changed ? " changed" : ""}`,
      tabindex: at ? -1 : 0,
      text: (glued ? token.text.slice(2) : token.text).replaceAll("\n", "↵\n"),
      focus: () => tell(about, token),
      click: () => made.focus(),
    });
    tokenOf.set(made, token);
    return made;
  });
  const keys = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = spans[spans.indexOf(event.target) + by];
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    event.preventDefault();
  };
  const made = element("div", { class: `strip text${isWordPiece ? " pieces" : ""}`, role: "group", "aria-label": "Tokens", keydown: keys }, spans);
  paint(made);
  return [made, about];
}

function paint(made) {
  const spans = [...made.children];
  const strengths = spans.map((span) => strengthOf(tokenOf.get(span)));
  const strongest = Math.max(...strengths);
  made.classList.toggle("by-error", shadedBy === ERROR);
  spans.forEach((span, at) => withVariable(span, "--strength", strongest > 0 ? (strengths[at] / strongest).toFixed(3) : 0));
}

function strengthOf(token) {
  if (shadedBy === ERROR) return Math.max(0, token.error ?? 0);
  const found = (token.latents ?? []).find(([latent]) => latent === shadedBy);
  return found ? Math.max(0, found[1]) : 0;
}

/** What is known of one token, under its text. */
function tell(about, token) {
  const error = Number.isFinite(token.error) ? `error ${token.error.toFixed(3)}` : "";
  fill(
    about,
    element("span", { class: "text quoted", text: token.text.replaceAll("\n", "↵") }),
    element("span", { class: "muted", text: error }),
    element("span", { class: "chips" }, (token.latents ?? []).map(([latent, value]) => chip(latent, value))),
  );
}

function latentList(title, found, before = null) {
  if (!found.length) return null;
  const shown = found.slice(0, MOST_CHIPS).map(([latent, most]) => {
    const made = chip(latent, most);
    if (before) made.lastChild.textContent = `${before.get(latent).toFixed(2)} → ${most.toFixed(2)}`;
    return made;
  });
  const more = found.length > shown.length ? element("span", { class: "muted", text: `and ${found.length - shown.length} more` }) : null;
  return element("div", { class: "latent-list" }, element("h4", { text: title }), element("div", { class: "chips" }, shown, more));
}
