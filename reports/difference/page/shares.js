// The groups as cards, and what of the gain hangs on each, as bars.

function groupCards(onChoose) {
  return found.groups.map((group, at) =>
    element(
      "button",
      { type: "button", class: `card group ${group.name}`, click: () => onChoose(at) },
      element("span", { class: "name" }, element("i", { class: "dot" }), group.name),
      element("span", { class: "figure" }, element("b", { text: percent(group.count / liveCount) })),
      element("span", { class: "muted", text: `${counted(group.count, "latent")}: ${MEANING[group.name]}` }),
    ),
  );
}

/** Shares from −¼ to 1¼ at least and −1 to 2 at most, as places between 0 and 100%. */
function scaleOf(parts) {
  const values = parts.flatMap((part) => [...part.share, part.alone]).filter((value) => value !== null);
  const [low, high] = [Math.max(-1, Math.min(-0.1, ...values)), Math.min(2, Math.max(1.1, ...values))];
  return (share) => `${(100 * (Math.min(high, Math.max(low, share)) - low)) / (high - low)}%`;
}

function spanOf(made, at, from, to) {
  const [left, right] = [at(Math.min(from, to)), at(Math.max(from, to))];
  withVariable(made, "--left", left);
  return withVariable(made, "--width", `calc(${right} - ${left})`);
}

function bar(part, at) {
  const [share, low, high] = part.share;
  const words = `${called(part.name)}: ${percent(share)} of the gain is lost without it, 95% interval ${percent(low)} to ${percent(high)}; ${percent(part.alone)} is there with it alone`;
  const mark = withVariable(element("span", { class: "alone" }), "--left", at(part.alone));
  return element(
    "div",
    { class: `bar-row ${part.name}`, role: "img", "aria-label": words },
    element("span", { class: "bar-name" }, element("i", { class: "dot" }), called(part.name)),
    element(
      "span",
      { class: "track" },
      [0, 0.5, 1].map((line) => withVariable(element("span", { class: "line" }), "--left", at(line))),
      spanOf(element("span", { class: "fill" }), at, 0, share),
      spanOf(element("span", { class: "whisker" }), at, low ?? share, high ?? share),
      mark,
    ),
    element("span", { class: "bar-value", text: percent(share) }),
  );
}

function gainFigure() {
  const title = element("h2", { class: "heading", text: "What the gain in retrieval hangs on" });
  if (!found.gain) return [title, element("p", { class: "muted", text: "There is no gain to share out." })];
  const at = scaleOf(found.gain.parts);
  return [
    title,
    element("p", {
      class: "muted lead",
      text: "Each change is taken back alone, in the embeddings of all queries and documents, and NDCG@10 is measured again.",
    }),
    found.gain.parts.map((part) => bar(part, at)),
    element(
      "div",
      { class: "bar-row scale", "aria-hidden": "true" },
      element("span"),
      element(
        "span",
        { class: "track" },
        [0, 0.5, 1].map((line) =>
          withVariable(element("span", { class: "tick", text: percent(line) }), "--left", at(line)),
        ),
      ),
      element("span"),
    ),
    element(
      "p",
      { class: "key muted" },
      element("span", {}, element("i", { class: "key-bar" }), "of the gain is lost without this change"),
      element("span", {}, element("i", { class: "key-whisker" }), "95% interval over queries"),
      element("span", {}, element("i", { class: "key-alone" }), "of the gain is there with this change alone"),
    ),
  ];
}
