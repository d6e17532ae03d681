// Two moments side by side: a card for each sample that either has.

const PAGE_OF_PAIRS = 50;

function comparison(pairs, places) {
  const sameModel = places[0].series === places[1].series;
  const list = element("div", { class: "pairs" });
  const more = element("button", { type: "button", class: "plain more" });
  let shown = 0;
  const showMore = () => {
    const next = pairs.slice(shown, shown + PAGE_OF_PAIRS);
    list.append(
      ...next.map(([before, after]) => (before && after ? bothCard(before, after, sameModel) : oneCard(before, after))),
    );
    shown += next.length;
    more.hidden = shown >= pairs.length;
    more.textContent = `Show ${Math.min(PAGE_OF_PAIRS, pairs.length - shown)} more`;
  };
  more.addEventListener("click", () => {
    showMore();
    highlight();
  });
  showMore();
  return [list, more];
}

function differs([before, after]) {
  if (!before || !after) return true;
  const kind = kindOf(before);
  return kind === kindOf(after) ? kind.differs(before, after) : plain.differs(before, after);
}

function bothCard(before, after, sameModel) {
  const kind = kindOf(before) === kindOf(after) ? kindOf(before) : plain;
  const scores = scoreNames([before, after]).map((name) =>
    element(
      "div",
      {},
      element("dt", { text: scoreLabel(name) }),
      element("dd", {}, scoreChange(name, before.scores[name], after.scores[name])),
    ),
  );
  const isChanged = differs([before, after]);
  return element(
    "article",
    {
      class: `pair${isChanged ? "" : " same"}`,
      "aria-label": `Sample ${after.sample}${isChanged ? "" : ", unchanged"}`,
    },
    pairHead(after, element("dl", { class: "pair-scores" }, scores)),
    kind.comparison(before, after, sameModel),
    isChanged ? null : element("p", { class: "muted", text: "Nothing has changed." }),
  );
}

function oneCard(before, after) {
  const [record, side] = before ? [before, "A"] : [after, "B"];
  return element(
    "article",
    { class: "pair", "aria-label": `Sample ${record.sample}, only in ${side}` },
    pairHead(record, element("p", { class: "muted", text: `Only in ${side}.` })),
    kindOf(record).detail(record),
  );
}

function pairHead(record, beside) {
  return element(
    "header",
    {},
    element(
      "div",
      { class: "given" },
      element("h3", {}, "Sample ", wholeNumbers.format(record.sample)),
      kindOf(record) === latents ? null : element("p", { class: "text clip", text: record.prompt }),
    ),
    beside,
  );
}
