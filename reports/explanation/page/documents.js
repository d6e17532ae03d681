// The ranking: a stacked bar a document, its latents and its pairs.

/** Bars share one scale, so that their lengths may be compared: from the lowest sum of losses to the highest of gains. */
function barScale() {
  const sums = told.documents.map((one) => {
    const values = KINDS.map(([kind]) => one[kind]);
    return [values.filter((value) => value < 0).reduce((sum, value) => sum + value, 0),
      values.filter((value) => value > 0).reduce((sum, value) => sum + value, 0)];
  });
  const least = Math.min(0, ...sums.map(([below]) => below));
  const most = Math.max(1e-9, ...sums.map(([, above]) => above));
  return { least, whole: most - least };
}

function stackedBar(one, scale) {
  const bar = element("div", { class: "stack", role: "img", "aria-label": inWords(one) });
  let above = 0;
  let below = 0;
  for (const [kind, words] of KINDS) {
    const value = one[kind];
    const start = value >= 0 ? above : below + value;
    if (value >= 0) above += value;
    else below += value;
    const piece = element("span", { class: `piece is-${kind}${value < 0 ? " is-less" : ""}`, title: `${words} ${term(value)}` });
    withVariable(piece, "--from", (start - scale.least) / scale.whole);
    bar.append(withVariable(piece, "--size", Math.abs(value) / scale.whole));
  }
  bar.append(withVariable(element("span", { class: "zero" }), "--from", -scale.least / scale.whole));
  bar.append(withVariable(element("span", { class: "sum" }), "--from", (one.cosine - scale.least) / scale.whole));
  return bar;
}

function inWords(one) {
  return `Cosine ${number(one.cosine)}: ${KINDS.map(([kind, words]) => `${words.toLowerCase()} ${term(one[kind])}`).join(", ")}`;
}

function kindKey(one) {
  return element(
    "ul",
    { class: "key" },
    KINDS.map(([kind, words]) =>
      element(
        "li",
        { class: `is-${kind}` },
        element("span", { class: "muted", text: words }),
        ` ${term(one[kind])}`,
        one.cosine > 0 ? element("span", { class: "muted", text: ` ${share(one[kind] / one.cosine)}` }) : null,
      ),
    ),
  );
}

function moved(one, other, words) {
  if (other === null) return null;
  const [rank, cosine] = other;
  const places = rank - one.rank;
  const arrow = places > 0 ? `↑${places}` : places < 0 ? `↓${-places}` : "=";
  const way = places > 0 ? " better" : places < 0 ? " worse" : "";
  return element("p", { class: "moved muted" }, element("span", { class: `change${way}`, text: arrow }),
    ` ${words} ${number(cosine)}, rank ${rank}`);
}

function documentCard(one, scale) {
  const terms = one.shared.map((part) => part.diagonal);
  const heading = element("h2", { class: "heading" },
    element("span", { class: "rank", text: String(one.rank) }),
    element("b", { class: "cosine", text: number(one.cosine) }),
    element("span", { class: "source muted", text: `#${one.number} · ${one.source}` }),
  );
  const shared = one.shared.length
    ? element("ul", { class: "latents" }, one.shared.map((part) => element("li", {}, latentButton(part.latent, part.diagonal, largest(terms)))))
    : element("p", { class: "muted", text: "No latent fires in both." });
  const pairTerms = one.pairs.map((pair) => pair.term);
  const pairs = one.pairs.map((pair) =>
    element("li", { class: "pair-row" },
      latentButton(pair.query, undefined, 0, true), element("span", { class: "times muted", text: "×" }), latentButton(pair.document, undefined, 0, true),
      meter(pair.term, largest(pairTerms)), element("span", { class: "amount", text: term(pair.term) })),
  );
  return element("article", { class: "card document" },
    element("header", {}, heading,
      moved(one, one.before, "without the clamp:"),
      moved(one, one.base, `${(told.base_side ?? "").split("/")[0]}:`)),
    stackedBar(one, scale),
    kindKey(one),
    tokenText(one.text, `Document ${one.number}`),
    element("div", { class: "columns" },
      element("section", { "aria-label": "Latents of both" }, element("h3", { text: "Same latent in both" }), shared),
      element("section", { "aria-label": "Pairs" }, element("h3", { text: "Pairs: of the query × of the document" }),
        element("ul", { class: "latents pairs" }, pairs))),
  );
}

function restOf() {
  if (!told.rest.length) return null;
  return element("details", { class: "card" },
    element("summary", { text: `${counted(told.rest.length, "document")} further down` }),
    element("ol", { class: "rest" }, told.rest.map((one) =>
      element("li", {}, element("span", { class: "muted", text: `${one.rank}` }), ` ${number(one.cosine)} `,
        element("span", { class: "muted", text: `#${one.number} · ${one.source}` })))));
}
