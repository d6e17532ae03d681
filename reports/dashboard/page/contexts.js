// Texts with their tokens shaded by what a latent is on each.

const LEVELS = 9;

function levelOf(value, largest) {
  return largest > 0 ? Math.round((LEVELS * Math.abs(value)) / largest) : 0;
}

/** Tokens in a row; `largest` is the value of the strongest shade. */
function shaded(context, largest, whole = true) {
  const first = whole ? 0 : Math.max(0, context.marked - 8);
  const last = whole ? context.texts.length : Math.min(context.texts.length, context.marked + 6);
  return context.texts.slice(first, last).map((text, offset) => {
    const at = first + offset;
    const value = context.values[at];
    if (!value && at !== context.marked) return at === first ? text.trimStart() : text;
    const inner = text.replace(/^ +/, "");
    // the space before a token is no part of its shade
    return [
      at === first ? "" : text.slice(0, text.length - inner.length),
      element("span", {
        class: `token h${levelOf(value, largest)}${at === context.marked ? " marked" : ""}`,
        title: short(value),
        text: inner.trim() ? inner : seen(text),
      }),
    ];
  });
}

function contextLine(context, largest) {
  const where = `${context.document}, token ${wholeNumbers.format(context.position)}`;
  return element(
    "li",
    { class: "context" },
    element("span", { class: "value", text: short(context.values[context.marked]) }),
    element("p", { class: "text" }, shaded(context, largest)),
    element("p", { class: "where muted", text: where }),
  );
}

function contextList(title, note, contexts, largest) {
  if (!contexts.length) return null;
  return element(
    "section",
    { class: "contexts", "aria-label": title },
    element("h2", { class: "heading", text: title }),
    note ? element("p", { class: "muted lead", text: note }) : null,
    element(
      "ol",
      {},
      contexts.map((context) => contextLine(context, largest)),
    ),
  );
}

/** Those from its whole range, with how strong each is among the firings. */
function sampledList(contexts, largest) {
  const made = contextList("From its whole range", "Firings drawn at random, the strongest first.", contexts, largest);
  made?.querySelectorAll(".value").forEach((value, at) => {
    value.append(element("span", { class: "weaker", text: `over ${Math.floor(100 * contexts[at].weaker)}%` }));
  });
  return made;
}
