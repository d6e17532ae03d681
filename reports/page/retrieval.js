// Predictions of an embedding model: what it retrieves for an anchor, best first.

const ROW_HEIGHT = 56; // of a text in a comparison, in CSS pixels; page.css has it too

const retrieval = {
  reads({ retrieved }) {
    const isText = (item) => typeof item?.text === "string" && typeof (item.score ?? 0) === "number";
    return Array.isArray(retrieved) && retrieved.every(isText);
  },

  summary({ prediction }) {
    const [best] = prediction.retrieved;
    if (!best) return [element("span", { class: "muted", text: "nothing retrieved" })];
    return [best.relevant ? truthMark() : null, element("span", { class: "text clip", text: best.text })];
  },

  detail(record) {
    const { retrieved } = record.prediction;
    const strongest = Math.max(...retrieved.map((item) => item.score), 0);
    const items = retrieved.map((item, at) => rankedText(item, at + 1, item.score / strongest));
    return [
      element("ol", { class: "ranking" }, items, missedTruth(record)),
      element("p", { class: "muted", text: rankInWords(record) }),
    ];
  },

  differs(before, after) {
    const texts = (record) => record.prediction.retrieved.map((item) => item.text);
    return before.prediction.rank !== after.prediction.rank || texts(before).join("\0") !== texts(after).join("\0");
  },

  comparison(before, after) {
    const [a, b] = [before.prediction.retrieved, after.prediction.retrieved];
    const [toB, toA] = [placesIn(b, a), placesIn(a, b)];
    const list = (items, label, moves) =>
      element(
        "ol",
        { class: "ranking moved", "aria-label": label },
        items.map((item, at) => movedText(item, at, moves[at])),
      );
    const inA = toB.map((there, at) => (there < 0 ? ["gone", "gone"] : movement(at - there)));
    const inB = toA.map((there, at) => (there < 0 ? ["new", "new"] : movement(there - at)));
    return [
      element(
        "div",
        { class: "moves" },
        list(a, "Retrieved in A", inA),
        moveLines(a, toB, b.length),
        list(b, "Retrieved in B", inB),
      ),
    ];
  },
};

function truthMark() {
  return element("span", {
    class: "truth",
    title: "the true positive",
    role: "img",
    "aria-label": "true positive",
    text: "✓",
  });
}

function rankedText(item, rank, share) {
  const score = element("span", {
    class: "score",
    text: Number.isFinite(item.score) ? item.score.toFixed(3).replace("-", "−") : "",
  });
  return element(
    "li",
    { class: item.relevant ? "relevant" : "", value: rank },
    element("span", { class: "rank", text: wholeNumbers.format(rank) }),
    element(
      "div",
      { class: "body" },
      item.relevant ? truthMark() : null,
      element("span", { class: "text clip", text: item.text }),
    ),
    score,
    withVariable(
      element("span", { class: "bar", "aria-hidden": "true" }),
      "--share",
      Math.min(Math.max(share || 0, 0), 1),
    ),
  );
}

/** The true positive below the others, at its own rank, when it is not among them. */
function missedTruth({ truth, prediction }) {
  const { retrieved, rank } = prediction;
  if (!rank || truth === undefined || retrieved.some((item) => item.relevant)) return null;
  return [
    element("li", { class: "gap", "aria-hidden": "true", text: "⋯" }),
    rankedText({ text: truth, relevant: true }, rank, 0),
  ];
}

function rankInWords({ prediction }) {
  const { rank, of, margin } = prediction;
  if (!rank) return "There is no ground truth to rank.";
  const among = of ? ` among ${wholeNumbers.format(of)} texts` : "";
  const by = Number.isFinite(margin) ? `, with a margin of ${margin.toFixed(3).replace("-", "−")}` : "";
  return `The true positive stands at rank ${wholeNumbers.format(rank)}${among}${by}.`;
}

/** For every item of `items` its place among `others`, by text, or -1. A text that stands there twice counts twice. */
function placesIn(others, items) {
  const taken = new Set();
  return items.map((item) => {
    const there = others.findIndex((other, at) => !taken.has(at) && other.text === item.text);
    if (there >= 0) taken.add(there);
    return there;
  });
}

/** What is written beside a text that climbed by that many ranks, and its class. */
function movement(up) {
  if (!up) return ["", "stays"];
  return up > 0 ? [`▲ ${up}`, "up"] : [`▼ ${-up}`, "down"];
}

function movedText(item, at, [text, kind]) {
  const made = rankedText(item, at + 1, 0);
  made.classList.add(kind);
  made
    .querySelector(".score")
    .replaceChildren(element("span", { class: "move", text }), element("span", { text: item.score?.toFixed(3) ?? "" }));
  return made;
}

/** Lines between the two lists that join the places of the same text. */
function moveLines(items, places, otherLength) {
  const middle = (at) => (at + 0.5) * ROW_HEIGHT;
  const height = Math.max(items.length, otherLength) * ROW_HEIGHT;
  const lines = places.map((there, at) => {
    if (there < 0) return null;
    const kind = items[at].relevant ? "relevant" : movement(at - there)[1];
    return drawing("path", {
      class: kind,
      d: `M0 ${middle(at)}C24 ${middle(at)} 24 ${middle(there)} 48 ${middle(there)}`,
    });
  });
  return drawing(
    "svg",
    { class: "lines", "aria-hidden": "true", viewBox: `0 0 48 ${height}`, width: 48, height },
    lines,
  );
}
