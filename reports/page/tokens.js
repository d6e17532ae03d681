// A text's tokens, marked by how strongly a latent fires there or by how much of the token the reconstruction misses.

const ERROR = "error";
const SPECIAL_TOKEN = /^(\[[A-Z]+\]|<[^<>\s]+>)$/;
const tokenOf = new WeakMap(); // of every token's element
let shadedBy = ERROR; // for all texts of the page at once, so that a latent can be followed from one to the next

/** The tokens of one or of two records on one scale. Of two, the second's tokens are marked where their strongest latent
 * is another than in the first. */
function shadedTokens(record, earlier = null) {
  const made = earlier
    ? element(
        "div",
        { class: "sides shaded" },
        element("div", {}, strip(earlier)),
        element("div", {}, strip(record, earlier)),
      )
    : element("div", { class: "shaded" }, strip(record));
  paint(made);
  return made;
}

/** The tokens one after the other. One stop of the Tab key; arrows move from token to token. */
function strip(record, earlier = null) {
  const { tokens } = record.prediction;
  if (!tokens.length) return empty("This record has no tokens.");
  const about = element("div", { class: "about", "aria-live": "polite" });
  const strongestBefore = (earlier?.prediction.tokens ?? []).map(strongestLatent);
  const laid = laidInto(record.prompt, tokens) ?? inARow(tokens);
  const spans = tokens.map((token, at) => {
    const made = element("span", {
      class: "token",
      tabindex: at ? -1 : 0,
      text: laid.texts[at].replaceAll("\n", "↵\n"),
      focus: () => tellToken(about, token),
      click: () => made.focus(),
    });
    made.classList.toggle("changed", Boolean(earlier) && strongestBefore[at] !== strongestLatent(token));
    tokenOf.set(made, token);
    return made;
  });
  const made = element(
    "div",
    { class: "strip text", role: "group", "aria-label": "Tokens", keydown: (event) => moveBetweenTokens(event, spans) },
    spans.map((span, at) => [laid.gaps[at], span]),
    element("span", { class: "muted", text: laid.rest }),
  );
  return [made, about];
}

function strongestLatent(token) {
  return token.latents[0]?.[0];
}

/** What each token is of the prompt, what stands between them and after the last. Null where tokens are not parts of the
 * prompt: a tokenizer may rewrite it. */
function laidInto(prompt, tokens) {
  const [texts, gaps] = [[], []];
  let end = 0;
  for (const { text } of tokens) {
    const space = /^\s*/.exec(prompt.slice(end))[0].length;
    const [start, length] = startOf(prompt, text, [end, end + space]);
    if (start === undefined && !SPECIAL_TOKEN.test(text)) return null;
    gaps.push(start === undefined ? "" : prompt.slice(end, start));
    texts.push(start === undefined ? text : prompt.slice(start, start + length));
    end = start === undefined ? end : start + length;
  }
  return { texts, gaps, rest: prompt.slice(end) };
}

/** Where the first of some places is at which the prompt goes on with the token, in whatever case, and how long it is. */
function startOf(prompt, text, places) {
  for (const piece of [text, text.replace(/^##(?=.)/, "")]) {
    const isHere = (place) => prompt.slice(place, place + piece.length).toLowerCase() === piece.toLowerCase();
    const start = places.find(isHere);
    if (start !== undefined) return [start, piece.length];
  }
  return [];
}

/** As they are, apart unless they hold their own spaces. */
function inARow(tokens) {
  const texts = tokens.map((token) => token.text);
  const between = texts.some((text) => /\s/.test(text)) ? "" : " ";
  return { texts, gaps: texts.map((_, at) => (at ? between : "")), rest: "" };
}

function moveBetweenTokens(event, spans) {
  const next = spans[spans.indexOf(event.target) + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? NaN)];
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  event.preventDefault();
}

/** What is known of one token, under its text. */
function tellToken(about, token) {
  const error = Number.isFinite(token.error) ? `error ${token.error.toFixed(3)}` : "";
  fill(
    about,
    element("span", { class: "text quoted", text: token.text.replaceAll("\n", "↵") }),
    element("span", { class: "muted", text: error }),
    element(
      "span",
      { class: "chips" },
      token.latents.map(([latent, value]) => chip(latent, value)),
    ),
  );
}

// Shading

function shadeBy(shade) {
  shadedBy = shade;
  for (const made of document.querySelectorAll(".shaded")) paint(made);
  for (const made of document.querySelectorAll("[data-shade]")) {
    made.setAttribute("aria-pressed", String(made.dataset.shade === String(shade)));
  }
}

function paint(made) {
  const spans = [...made.querySelectorAll(".token")];
  const strengths = spans.map((span) => strengthOf(tokenOf.get(span)));
  const strongest = strengths.reduce((most, strength) => Math.max(most, strength), 0);
  made.classList.toggle("by-error", shadedBy === ERROR);
  spans.forEach((span, at) =>
    withVariable(span, "--strength", strongest > 0 ? (strengths[at] / strongest).toFixed(3) : 0),
  );
}

function strengthOf(token) {
  if (shadedBy === ERROR) return Math.max(0, token.error ?? 0);
  const found = token.latents.find(([latent]) => latent === shadedBy);
  return found ? Math.max(0, found[1]) : 0;
}
