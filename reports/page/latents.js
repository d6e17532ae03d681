// Predictions of a sparse autoencoder: which latents fire on a text, how well it is reconstructed, how a model goes on.

const MOST_CHIPS = 14;

const latents = {
  reads({ tokens }) {
    const isLatent = (latent) => Array.isArray(latent) && typeof latent[1] === "number";
    const isToken = (token) =>
      typeof token?.text === "string" && Array.isArray(token.latents) && token.latents.every(isLatent);
    return Array.isArray(tokens) && tokens.every(isToken);
  },

  summary(record) {
    const strongest = strongestLatents(record).slice(0, 3);
    if (!strongest.length) return [element("span", { class: "muted", text: "no latent fires" })];
    return [
      element(
        "span",
        { class: "chips" },
        strongest.map(([latent, most]) => element("span", { class: "chip" }, chipText(latent, most))),
      ),
    ];
  },

  detail(record) {
    const { continuation } = record.prediction;
    return [
      shades(strongestLatents(record)),
      shadedTokens(record),
      continuation
        ? textsSideBySide(
            ["Continuation", "Continuation through the autoencoder"],
            continuation.original ?? "",
            continuation.spliced ?? "",
          )
        : null,
    ];
  },

  differs(before, after) {
    const firing = ({ prediction }) =>
      prediction.tokens.map((token) => token.latents.map(([latent]) => latent).join(" ")).join();
    const spliced = ({ prediction }) => prediction.continuation?.spliced;
    return firing(before) !== firing(after) || spliced(before) !== spliced(after);
  },

  comparison(before, after, sameModel) {
    const [a, b] = [new Map(strongestLatents(before)), new Map(strongestLatents(after))];
    const [gone, appeared] = [[...a].filter(([latent]) => !b.has(latent)), [...b].filter(([latent]) => !a.has(latent))];
    const changed = [...b].filter(
      ([latent, most]) => a.has(latent) && Math.abs(most - a.get(latent)) > 0.1 * a.get(latent),
    );
    const spliced = [before, after].map(({ prediction }) => prediction.continuation?.spliced);
    return [
      shades([...new Map([...a, ...b])].sort((one, other) => other[1] - one[1])),
      shadedTokens(after, before),
      sameModel
        ? null
        : element("p", { class: "muted", text: "Latents of different models share their numbers by chance alone." }),
      latentList("Only in A", gone),
      latentList("Only in B", appeared),
      latentList("Stronger or weaker in B", changed, a),
      spliced.every((text) => text !== undefined)
        ? textsSideBySide(["Continuation through A", "Continuation through B"], ...spliced)
        : null,
    ];
  },
};

/** [latent, its strongest value in the text], strongest first. */
function strongestLatents({ prediction }) {
  const most = new Map();
  for (const token of prediction.tokens) {
    for (const [latent, value] of token.latents) most.set(latent, Math.max(value, most.get(latent) ?? -Infinity));
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
    {
      type: "button",
      class: "chip",
      "data-shade": latent,
      "aria-pressed": pressed,
      "aria-label": `Latent ${latent}, ${value.toFixed(2)}`,
      click: press,
    },
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

function latentList(title, found, before = null) {
  if (!found.length) return null;
  const shown = found.slice(0, MOST_CHIPS).map(([latent, most]) => {
    const made = chip(latent, most);
    if (before) made.lastChild.textContent = `${before.get(latent).toFixed(2)} → ${most.toFixed(2)}`;
    return made;
  });
  const more =
    found.length > shown.length
      ? element("span", { class: "muted", text: `and ${found.length - shown.length} more` })
      : null;
  return element(
    "div",
    { class: "latent-list" },
    element("h4", { text: title }),
    element("div", { class: "chips" }, shown, more),
  );
}
