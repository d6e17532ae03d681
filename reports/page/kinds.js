// How each kind of prediction is shown: in a row, opened, and beside another. What is of no known kind is shown as JSON.

const plain = {
  summary({ prediction }) {
    return [
      element("span", {
        class: "text clip",
        text: typeof prediction === "string" ? prediction : JSON.stringify(prediction),
      }),
    ];
  },
  detail({ prediction }) {
    return [element("p", { class: "text block", text: asLines(prediction) })];
  },
  differs(before, after) {
    return asLines(before.prediction) !== asLines(after.prediction);
  },
  comparison(before, after) {
    return [textsSideBySide(["A", "B"], asLines(before.prediction), asLines(after.prediction))];
  },
};

const KINDS = new Map(Object.entries({ retrieval, latents }));

function kindOf({ prediction }) {
  const kind = KINDS.get(prediction?.kind);
  return kind?.reads(prediction) ? kind : plain; // another release may mean something else by it
}

function asLines(prediction) {
  return JSON.stringify(prediction, null, 2);
}
