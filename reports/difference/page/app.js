// The page put together.

// what changed most comes first, where there is any of it
let chosenGroup = NAMES.indexOf(["born", "rotated", "died"].find((name) => found.groups[NAMES.indexOf(name)].count) ?? "shared");

function showGroup(at) {
  const hadFocus = document.activeElement?.name === "group";
  chosenGroup = at;
  fill(byId("latents"), latentList(at, showGroup));
  if (hadFocus) byId("latents").querySelector("input:checked").focus();
}

function goToGroup(at) {
  showGroup(at);
  byId("latents").scrollIntoView({ block: "start" });
  byId("latents").querySelector("input:checked").focus({ preventScroll: true });
}

function goToLatent(place) {
  showGroup(found.live.group[place]);
  const entry = byId(`latent-${found.live.latent[place]}`);
  if (!entry) return;
  entry.open = true;
  entry.scrollIntoView({ block: "center" });
  entry.querySelector("summary").focus({ preventScroll: true });
}

function notes() {
  const [own, turned] = [percent(found.ownAbove), decimal(found.rotatedBelow)];
  return [
    ["The crosscoder", `It reads the last states of both models on the same tokens and says both with the same ${wholeNumbers.format(found.latents)} latents, each with a decoder row for either model. ${wholeNumbers.format(liveCount)} of them fired on the ${wholeNumbers.format(found.rows)} tokens that were looked at; it misses ${percent(found.fvu, 1)} of the variance.`],
    ["The groups", `born: more than ${own} of the two decoder norms is the fine-tuned model's; died: the base's. Of the others, rotated: the cosine of the two rows is below ${turned}; shared: the rest. Norms and cosines are on the scale of each model's own activations. The bounds are settings, and nothing falls apart at them: look at the dots.`],
    ["What the gain hangs on", "A fine-tuned embedding is the base's plus what changed of each group, of the mean and of what no latent explains, exactly. One change is taken back at a time. Ranks are not linear: shares need not sum to 100%, and what two groups do together is lost with either, and there with neither alone."],
    ["Unexplained", "The change of what the crosscoder misses. If much of the gain hangs on it, latents do not tell this story: train longer, with more latents or a larger k."],
    ["Born may be an artefact", "A penalty or a small k can shrink one model's row to nothing although that model has the feature, or tell one feature by two latents, one a model (Minder et al. 2025, arXiv 2504.02922). BatchTopK does so far less than L1, not never. “base has” measures it: how much of the direction is in the base's error when the latent fires, by least squares. Near 0% it is new, near 100% the base has it too."],
    ["Labels and examples", "A label names typical tokens by a rule, or else, behind “near”, words that stand close by. Examples are where a latent fires most in texts that the embedder was trained on; a latent is more than its strongest places."],
  ].map(([title, text]) => element("div", {}, element("h3", { text: title }), element("p", { text })));
}

startTheme();
byId("said").textContent = found.said;
fill(byId("groups"), groupCards(goToGroup));
fill(byId("gain"), gainFigure());
fill(byId("map"), scatterFigure(goToLatent));
showGroup(chosenGroup);
fill(byId("notes"), notes());
