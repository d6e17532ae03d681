// What the page is about, and how groups are called.

const found = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const MEANING = {
  shared: "both models have it, written in nearly the same direction",
  rotated: "both models have it, but fine-tuning turned its direction",
  born: "the fine-tuned model's own",
  died: "the base model's own",
  bias: "what every text has in common",
  error: "what no latent explains",
};
const CALLED = { bias: "the mean", error: "unexplained" };
const NAMES = found.groups.map((group) => group.name);
const placeOf = new Map(found.live.latent.map((latent, place) => [latent, place]));
const liveCount = found.live.latent.length;

function called(name) {
  return CALLED[name] ?? name;
}

function percent(share, digits = 0) {
  if (share === null || !Number.isFinite(share)) return "–";
  const least = 10 ** -digits / 100;
  if (share > 0 && share < least) return `<${(100 * least).toFixed(digits)}%`;
  return `${(100 * share).toFixed(digits)}%`.replace("-", "−");
}

function decimal(value, digits = 2) {
  return value === null ? "–" : value.toFixed(digits).replace("-", "−");
}

function labelOf(place) {
  return found.live.label[place] || "no label";
}

/** What is known of a living latent, by its place among them. */
function about(place) {
  const live = found.live;
  return {
    latent: live.latent[place],
    group: NAMES[live.group[place]],
    relative: live.relative[place],
    cosine: live.cosine[place],
    density: live.density[place],
    has: live.has[place],
    moved: live.moved[place],
  };
}
