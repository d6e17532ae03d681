// Why one document and not another: the difference of two cosines, latent by latent.

const MOST = 14;

function versusOf(first, second) {
  const parts = new Map();
  for (const [one, way] of [[first, 1], [second, -1]]) {
    for (const part of one.parts) {
      const kept = parts.get(part.latent) ?? { diagonal: 0, cross: 0 };
      kept.diagonal += way * part.diagonal;
      kept.cross += way * part.cross;
      parts.set(part.latent, kept);
    }
  }
  const rows = [...parts].map(([latent, part]) => ({ latent, ...part, whole: part.diagonal + part.cross }));
  rows.sort((a, b) => Math.abs(b.whole) - Math.abs(a.whole));
  const others = rows.slice(MOST).reduce((sum, row) => sum + row.whole, first.others - second.others);
  return { rows: rows.slice(0, MOST), others };
}

function picked(name, number_, other, show) {
  const select = element("select", { "aria-label": name, change: (event) => show(Number(event.target.value)) },
    told.documents.map((one) => element("option", {
      value: one.number, selected: one.number === number_, disabled: one.number === other,
      text: `${one.rank}. #${one.number} ${one.given.replace(/\s+/g, " ").slice(0, 60)}`,
    })));
  return element("label", { class: "picked" }, element("span", { class: "muted", text: name }), select);
}

function showVersus(first, second) {
  const host = document.getElementById("versus");
  const one = told.documents.find((each) => each.number === first);
  const other = told.documents.find((each) => each.number === second);
  const { rows, others } = versusOf(one, other);
  const total = one.cosine - other.cosine;
  const lines = [
    ...rows.map((row) => ({ ...row, name: latentButton(row.latent) })),
    { name: "All other latents", whole: others },
    { name: "Bias", whole: one.bias - other.bias },
    { name: "Error", whole: one.error - other.error },
  ];
  const scale = largest(lines.map((line) => line.whole));
  const texts = [one, other].map((each, place) =>
    element("div", {}, element("h3", { text: place ? "and not this one" : "this one" }), tokenText(each.text, `Document ${each.number}, compared`)));
  fill(host,
    element("div", { class: "card" },
      element("div", { class: "chosen-two" },
        picked("Why", first, second, (number_) => showVersus(number_, second)),
        picked("and not", second, first, (number_) => showVersus(first, number_))),
      element("p", { class: "verdict", role: "status" },
        `The first has cosine ${number(one.cosine)}, the second ${number(other.cosine)}: a difference of `,
        element("b", { text: term(total) }), ", which is exactly this sum:"),
      element("div", { class: "columns" }, texts),
      element("table", { class: "difference" },
        element("thead", {}, element("tr", {},
          ["Latent", "Speaks for the second", "Speaks for the first", "Together", "Same latent", "Pairs"].map((words) =>
            element("th", { scope: "col", text: words })))),
        element("tbody", {}, lines.map((line) => element("tr", {},
          element("th", { scope: "row" }, line.name),
          element("td", { class: "left" }, line.whole < 0 ? meter(line.whole, scale) : null),
          element("td", { class: "right" }, line.whole > 0 ? meter(line.whole, scale) : null),
          element("td", { class: "amount", text: term(line.whole) }),
          element("td", { class: "detail", text: line.diagonal === undefined ? "" : term(line.diagonal) }),
          element("td", { class: "detail", text: line.cross === undefined ? "" : term(line.cross) })))),
        element("tfoot", {}, element("tr", {}, element("th", { scope: "row", text: "Difference" }), element("td"), element("td"),
          element("td", { class: "amount", text: term(total) }), element("td"), element("td"))))));
  for (const button of host.querySelectorAll("[data-latent]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.latent) === chosen));
  }
}
