// The latents of a group with the texts on which they fire most.

function latentList(chosen, onChoose) {
  const group = found.groups[chosen];
  const shown = found.shown[chosen];
  const ordered = found.gain || found.groups.some((each) => each.moved) ? "those first that move embeddings most" : "those first that fire most";
  const count = shown.length < group.count ? `${shown.length} of ${wholeNumbers.format(group.count)}` : counted(group.count, "latent");
  return [
    element(
      "div",
      { class: "list-head" },
      element("h2", { class: "heading", text: "Latents" }),
      element(
        "fieldset",
        { class: "switch" },
        element("legend", { class: "unseen", text: "Group" }),
        NAMES.map((name, at) =>
          element(
            "label",
            {},
            element("input", { type: "radio", name: "group", value: name, checked: at === chosen, change: () => onChoose(at) }),
            element("span", {}, element("i", { class: `dot ${name}` }), name),
          ),
        ),
      ),
    ),
    element("p", { class: "muted lead", role: "status", text: `${count}, ${group.name}: ${MEANING[group.name]}; ${ordered}. Open one for the texts on which it fires most.` }),
    shown.length ? element("div", { class: "latent-list" }, shown.map(latentEntry)) : empty(`No latent is ${group.name}.`),
  ];
}

function latentEntry({ latent, contexts }) {
  const place = placeOf.get(latent);
  const { group, relative, cosine, density, has, moved } = about(place);
  const split = withVariable(
    element("span", { class: "norms", role: "img", "aria-label": `${percent(relative)} of its decoder norm is the fine-tuned model's` }),
    "--tuned",
    percent(1 - relative, 1),
  );
  const measures = [
    ["cosine", decimal(cosine), "of its direction in the base and in the fine-tuned model"],
    ["fires on", percent(density, density < 0.01 ? 2 : 1), "of the tokens that were read"],
    ["of the movement", percent(moved, 1), "that all latents together make embeddings go from one model to the other"],
    [`${relative < 0.5 ? "tuned" : "base"} has`, percent(has), "of the other model's direction when it fires (latent scaling): 0% nothing, 100% as much"],
  ];
  const largest = Math.max(...contexts.flatMap((context) => context.values.map(Math.abs)), 0);
  return element(
    "details",
    { class: `latent ${group}`, id: `latent-${latent}` },
    element(
      "summary",
      {},
      element("span", { class: "latent-name" }, element("b", { class: found.live.label[place] ? "" : "muted", text: labelOf(place) }), element("span", { class: "muted number", text: latent })),
      split,
      element(
        "span",
        { class: "measures" },
        measures.map(([name, value, title]) =>
          element("span", { class: "measure", title: `${value} ${title}` }, element("span", { class: "muted", text: name }), value),
        ),
      ),
      contexts.length ? element("span", { class: "text snippet" }, shadedTokens(contexts[0], largest, false)) : null,
    ),
    element(
      "ol",
      { class: "contexts" },
      contexts.map((context) =>
        element(
          "li",
          {},
          element("p", { class: "text" }, shadedTokens(context, largest, true)),
          element("p", { class: "where muted", text: context.document }),
        ),
      ),
    ),
  );
}

/** Tokens in a row, shaded by what the latent is on each. */
function shadedTokens(context, largest, whole) {
  const first = whole ? 0 : Math.max(0, context.marked - 8);
  const last = whole ? context.texts.length : Math.min(context.texts.length, context.marked + 8);
  return context.texts.slice(first, last).map((text, offset) => {
    const at = first + offset;
    const value = context.values[at];
    if (!value && at !== context.marked) return text;
    const inner = text.trimStart();
    const made = element("span", { class: at === context.marked ? "token marked" : "token", text: inner || "␣" });
    withVariable(made, "--level", `${Math.round(12 + (78 * Math.abs(value)) / (largest || 1))}%`);
    return [text.slice(0, text.length - inner.length), made];
  });
}
