// The page of one latent.

const KINDS = {
  token: "It fires on",
  before: "Right after",
  after: "Right before",
  ending: "At the end of",
  beginning: "At the start of",
};
const MOST_PATTERNS = 8;
const LEAST_SHARE = 0.02;

const latentLink = (latent) => `#/latent/${latent}`;

async function showLatent(number) {
  const host = byId("latent");
  host.setAttribute("aria-busy", "true");
  let told;
  try {
    told = await readLatent(number);
  } catch (error) {
    fill(host, empty(error.message));
    return;
  }
  if (routeOf(location.hash).latent !== number) return; // another was asked for meanwhile
  host.removeAttribute("aria-busy");
  const { latent, file } = told;
  const strongest = latent.strongest.map((context) => contextOf(file, context));
  const sampled = latent.sampled.map((context) => contextOf(file, context));
  const largest = index.largest[number];
  fill(
    host,
    latentHead(number),
    element(
      "div",
      { class: "latent-body" },
      element(
        "div",
        { class: "texts" },
        isDead(number) ? empty("This latent fired on no token of the pass.") : null,
        contextList("Where it fires most", "", strongest, largest),
        sampledList(sampled, largest),
      ),
      element(
        "aside",
        { "aria-label": "Figures" },
        panel("How strong it is", histogram(latent.histogram, latent.width)),
        patternPanels(latent, file),
        spokenPanels(latent, file),
        relatives("Fires together with", "share of its firings", latent.partners, percent),
        relatives("Nearest decoder rows", "cosine", latent.neighbours, (cosine) => cosine.toFixed(2)),
      ),
    ),
  );
}

function latentHead(number) {
  const step = (by, name, text) => {
    const next = number + by;
    const there = next >= 0 && next < latentCount;
    return there
      ? element("a", { class: "round step", href: latentLink(next), "aria-label": name, text })
      : element("span", { class: "round step off", "aria-hidden": "true", text });
  };
  const facts = [
    `on ${percent(densityOf(number))} of the tokens`,
    isDead(number) ? null : `mean ${short(index.means[number])}`,
    isDead(number) ? null : `largest ${short(index.largest[number])}`,
    isDense(number) ? "dense" : null,
  ];
  const explained = index.labels[number]
    ? element("span", {
        class: "badge",
        title: "Made by a rule from the tokens that it fires on; nobody has checked it",
        text: `automatic label, ${percent(index.explained[number])} explained`,
      })
    : null;
  return element(
    "header",
    { class: "latent-head" },
    element(
      "div",
      {},
      element("h2", { class: index.labels[number] ? "" : "muted", tabindex: -1, id: "latent-title", text: labelOf(number) }),
      element("p", { class: "muted" }, element("b", { text: `Latent ${number}` }), " · ", facts.filter(Boolean).join(" · "), " ", explained),
    ),
    element("nav", { "aria-label": "Other latents" }, step(-1, "Latent before", "‹"), step(1, "Next latent", "›")),
  );
}

function panel(title, ...content) {
  return element("section", { class: "panel", "aria-label": title }, element("h3", { text: title }), content);
}

function bar(share) {
  const made = element("span", { class: "bar", "aria-hidden": "true" });
  return withVariable(made, "--share", Math.max(0, Math.min(1, share)));
}

function patternPanels(latent, file) {
  return Object.entries(KINDS).map(([kind, title]) => {
    // the most typical ones, the most frequent of these first
    const patterns = latent.patterns[kind]
      .slice(0, MOST_PATTERNS)
      .filter(([, share]) => share >= LEAST_SHARE)
      .sort((a, b) => b[1] - a[1]);
    if (!patterns.length) return null;
    const rows = patterns.map(([texts, share, lift]) => {
      const words = texts.map((at) => file.texts[at]);
      const shown = words.length > 1 ? seen(words[0]).trimStart() + seen(words[1]) : seen(words[0]).trim();
      return element(
        "li",
        { title: `${percent(share)} of its activation, ${short(lift)} times as often as anywhere` },
        element("a", { class: "text", href: `#/latents?${new URLSearchParams({ q: words.join("").trim() || words.join("") })}`, text: shown }),
        bar(share),
        element("span", { class: "muted", text: percent(share) }),
      );
    });
    return panel(title, element("ol", { class: "bars" }, rows));
  });
}

function spokenPanels(latent, file) {
  if (index.unembedding) return panel("Tokens it speaks for", element("p", { class: "muted", text: index.unembedding }));
  return [
    ["promoted", "Speaks for"],
    ["suppressed", "Speaks against"],
  ].map(([side, title]) =>
    panel(
      title,
      element(
        "p",
        { class: "chips" },
        latent[side].map(([text, score]) => element("span", { class: "chip text", title: short(score), text: seen(file.texts[text]) })),
      ),
    ),
  );
}

function relatives(title, unit, pairs, format) {
  if (!pairs.length) return null;
  const rows = pairs.map(([latent, figure]) =>
    element(
      "li",
      {},
      element("a", { href: latentLink(latent) }, element("span", { class: "number muted", text: latent }), element("span", { class: "name text", text: labelOf(latent) })),
      element("span", { class: "muted", text: format(figure) }),
    ),
  );
  return panel(title, element("ol", { class: "relatives", title: unit }, rows));
}
