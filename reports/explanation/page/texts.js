// Texts token by token, and the latent that is marked in all of them.

let chosen = null;
const shownTexts = [];

/** A text; `whole` leaves none of it out. */
function tokenText(text, name) {
  const host = element("p", { class: "text tokens", "aria-label": name });
  shownTexts.push([host, text]);
  markIn(host, text);
  return host;
}

function markIn(host, text) {
  const fires = new Map(chosen === null ? [] : (text.fires[chosen] ?? []));
  const strongest = largest([...fires.values()]);
  const pieces = text.tokens.map((token, place) => {
    if (place === 0) token = token.trimStart();
    const isEnd = /^\s*(\[(CLS|SEP|PAD|UNK|MASK)\]|<\/?s>|<\|.*\|>)\s*$/.test(token);
    if (!fires.has(place)) return isEnd ? element("span", { class: "end", text: token }) : token;
    const value = fires.get(place);
    const mark = element("mark", { text: token, title: `latent ${chosen}: ${number(value)}`, class: isEnd ? "end" : null });
    return withVariable(mark, "--strength", Math.abs(value) / strongest);
  });
  fill(host, ...pieces, text.truncated ? element("span", { class: "muted", text: " … cut where the model stops reading" }) : null);
}

function choose(latent) {
  chosen = chosen === latent ? null : latent;
  for (const [host, text] of shownTexts) markIn(host, text);
  for (const button of document.querySelectorAll("[data-latent]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.latent) === chosen));
  }
  const status = document.getElementById("marked");
  if (chosen === null) {
    fill(status, "Choose a latent to see where it fires.");
  } else {
    const label = labelOf(chosen);
    fill(
      status,
      "Marked: ",
      element("b", { text: label || "no label" }),
      element("span", { class: "muted", text: ` latent ${chosen}, on ${counted((told.read.fires[chosen] ?? []).length, "token")} of the query` }),
    );
  }
}
