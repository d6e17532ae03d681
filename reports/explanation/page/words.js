// Numbers and names as they are written everywhere on the page.

const told = JSON.parse(document.getElementById("told").textContent);

const KINDS = [
  ["diagonal", "Same latent"],
  ["cross", "Pairs"],
  ["bias", "Bias"],
  ["error", "Error"],
];

const threeDigits = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const shares = new Intl.NumberFormat("en-GB", { style: "percent", maximumFractionDigits: 0 });

function number(value) {
  return threeDigits.format(value).replace("-", "−");
}

function term(value) {
  return signed(number(value));
}

function share(value) {
  return shares.format(value).replace("-", "−");
}

function labelOf(latent) {
  return told.labels[latent] || "";
}

/** A button that marks where a latent fires; a `short` one has its number only where it has no label. */
function latentButton(latent, amount, scale, short = false) {
  const label = labelOf(latent);
  const button = element(
    "button",
    { type: "button", class: "latent", "data-latent": latent, title: `latent ${latent}`, "aria-pressed": "false", click: () => choose(latent) },
    element("span", { class: "name" }, label || element("i", { text: "no label" })),
    short && label ? null : element("span", { class: "number muted", text: ` ${latent}` }),
    amount === undefined ? null : meter(amount, scale),
    amount === undefined ? null : element("span", { class: "amount", text: term(amount) }),
  );
  return button;
}

/** A short bar for a term, as long as its share of the largest. */
function meter(value, scale) {
  const made = element("span", { class: `meter${value < 0 ? " is-less" : ""}`, "aria-hidden": "true" }, element("span"));
  return withVariable(made, "--length", scale > 0 ? Math.min(1, Math.abs(value) / scale) : 0);
}

function largest(values) {
  return Math.max(0, ...values.map(Math.abs));
}
