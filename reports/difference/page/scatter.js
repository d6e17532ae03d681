// Every living latent by whose it is (across) and how far its direction turned (up).

const SCATTER = { height: 380, left: 36, right: 12, top: 14, bottom: 44 };
const NEAR = 16; // pixels from a pointer to a dot

function scatterFigure(onChoose) {
  const frame = element("div", { class: "scatter-frame" });
  const tip = element("p", { class: "tip", hidden: true });
  new ResizeObserver(() => drawScatter(frame, tip, onChoose)).observe(frame);
  return [
    element("h2", { class: "heading", text: "Where the latents stand" }),
    element("p", {
      class: "muted lead",
      text: "A dot is a latent. Across: how its decoder norm is shared out. Up: how alike its two directions are.",
    }),
    frame,
    tip,
  ];
}

function placesIn(width) {
  const { height, left, right, top, bottom } = SCATTER;
  // more latents than a call takes arguments
  const lowest = found.live.cosine.reduce((least, cosine) => Math.min(least, cosine), -0.1);
  return {
    x: (relative) => left + (width - left - right) * relative,
    y: (cosine) => top + ((height - top - bottom) * (1 - cosine)) / (1 - lowest),
    lowest,
  };
}

function drawScatter(frame, tip, onChoose) {
  const width = Math.round(frame.clientWidth);
  if (!width || Number(frame.dataset.width) === width) return;
  frame.dataset.width = width;
  const { x, y, lowest } = placesIn(width);
  const { height, bottom, top } = SCATTER;
  const [own, other] = [found.ownAbove, 1 - found.ownAbove];
  const floor = height - bottom;
  const line = (x1, y1, x2, y2, name) => drawing("path", { class: name, d: `M${x1} ${y1}L${x2} ${y2}` });
  const words = (px, py, text, name, anchor = "middle") =>
    drawing("text", { x: px, y: py, class: name, "text-anchor": anchor, text });
  // few before many, so that the many do not cover them
  const order = [...found.live.latent.keys()].sort(
    (a, b) => found.groups[found.live.group[b]].count - found.groups[found.live.group[a]].count || a - b,
  );
  const dots = order.map((place) =>
    drawing("circle", {
      class: `dot-of ${NAMES[found.live.group[place]]}`,
      cx: x(found.live.relative[place]).toFixed(1),
      cy: y(found.live.cosine[place]).toFixed(1),
      r: (1.6 + 2.6 * Math.sqrt(Math.min(1, found.live.density[place] * 20))).toFixed(1),
    }),
  );
  const drawn = drawing(
    "svg",
    { class: "scatter", width, height, role: "img", "aria-label": scatterInWords() },
    [1, 0.5, 0].map((value) => [
      line(x(0), y(value), x(1), y(value), "grid"),
      words(x(0) - 6, y(value) + 4, decimal(value, 1), "tick-word", "end"),
    ]),
    line(x(other), top, x(other), floor, "border"),
    line(x(own), top, x(own), floor, "border"),
    found.rotatedBelow > lowest ? line(x(other), y(found.rotatedBelow), x(own), y(found.rotatedBelow), "border") : null,
    dots,
    words(x(other / 2), floor - 8, "died", "region died"),
    words(x((1 + own) / 2), floor - 8, "born", "region born"),
    words(x(0.5), floor - 8, "rotated", "region rotated"),
    words(x(other) + 6, top + 12, "shared", "region shared", "start"),
    words(x(0), floor + 18, "base alone", "tick-word", "start"),
    words(x(0.5), floor + 18, "both alike", "tick-word"),
    words(x(1), floor + 18, "fine-tuned alone", "tick-word", "end"),
    words(x(0.5), floor + 36, "share of the decoder norm that is the fine-tuned model's", "axis-word"),
  );
  const nearest = (event) => {
    const box = drawn.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [null, NEAR ** 2];
    for (let place = 0; place < liveCount; place += 1) {
      const apart = (x(found.live.relative[place]) - px) ** 2 + (y(found.live.cosine[place]) - py) ** 2;
      if (apart < distance) [best, distance] = [place, apart];
    }
    return best;
  };
  drawn.addEventListener("pointermove", (event) => {
    const place = nearest(event);
    tip.hidden = place === null;
    drawn.classList.toggle("on-latent", place !== null);
    if (place === null) return;
    const { latent, group, relative, cosine } = about(place);
    fill(tip, element("b", { text: labelOf(place) }), ` ${latent} · ${group} · ${percent(relative)} fine-tuned · cosine ${decimal(cosine)}`);
    const across = x(relative) + frame.offsetLeft;
    withVariable(tip, "left", `${Math.max(4, Math.min(across + 12, frame.offsetLeft + width - tip.offsetWidth - 4))}px`);
    withVariable(tip, "top", `${y(cosine) + frame.offsetTop - 36}px`);
  });
  drawn.addEventListener("pointerleave", () => (tip.hidden = true));
  drawn.addEventListener("click", (event) => {
    const place = nearest(event);
    if (place !== null) onChoose(place);
  });
  fill(frame, drawn);
}

function scatterInWords() {
  const parts = found.groups.map((group) => `${group.count} ${group.name}`);
  return `${counted(liveCount, "latent")} by relative decoder norm and cosine of the two decoder rows: ${parts.join(", ")}`;
}
