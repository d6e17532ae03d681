// All latents on a plane: decoder rows that point in nearly the same direction lie near each other.

const MARGIN = 20;
const MOST_NAMED = 600;
let mapScale = null;

function showMap() {
  const host = byId("map");
  if (!host.firstChild) {
    const canvas = element("canvas", { role: "img", "aria-label": `Map of ${counted(latentCount, "latent")} by their decoder rows` });
    const tip = element("p", { class: "tip", role: "status", hidden: true });
    const note = element("p", { class: "muted lead", text: "Decoder rows that point in nearly the same direction lie near each other, as far as a plane allows. Large dots fire often; dead latents are left out. Choose one to open it." });
    fill(host, note, element("div", { class: "map-frame" }, canvas, tip));
    canvas.addEventListener("pointermove", (event) => point(event, canvas, tip));
    canvas.addEventListener("pointerleave", () => (tip.hidden = true));
    canvas.addEventListener("click", (event) => {
      const latent = nearestTo(event, canvas);
      if (latent !== null) location.hash = latentLink(latent);
    });
    new ResizeObserver(() => drawMap(canvas)).observe(canvas);
  }
  drawMap(host.querySelector("canvas"));
}

function drawMap(canvas) {
  const box = canvas.getBoundingClientRect();
  if (!box.width) return;
  const dots = devicePixelRatio || 1;
  canvas.width = Math.round(box.width * dots);
  canvas.height = Math.round(box.height * dots);
  const alive = index.counts.map((_, latent) => latent).filter((latent) => !isDead(latent));
  const across = alive.map((latent) => index.places[2 * latent]);
  const up = alive.map((latent) => index.places[2 * latent + 1]);
  const low = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
  const [left, bottom] = [low(across), low(up)];
  // each side by itself: distances on such a map mean little beyond the nearest
  const scaleX = (box.width - 2 * MARGIN) / (high(across) - left || 1);
  const scaleY = (box.height - 2 * MARGIN) / (high(up) - bottom || 1);
  const place = (latent) => [MARGIN + scaleX * (index.places[2 * latent] - left), MARGIN + scaleY * (index.places[2 * latent + 1] - bottom)];
  mapScale = { alive, place };
  const pen = canvas.getContext("2d");
  pen.scale(dots, dots);
  pen.fillStyle = getComputedStyle(canvas).color;
  const rarest = Math.log(2);
  const commonest = Math.log(2 + high(alive.map((latent) => index.counts[latent])));
  for (const latent of alive) {
    const [x, y] = mapScale.place(latent);
    const often = (Math.log(2 + index.counts[latent]) - rarest) / (commonest - rarest || 1);
    pen.globalAlpha = 0.18 + 0.7 * often ** 2;
    pen.beginPath();
    pen.arc(x, y, 1.6 + 2.4 * often ** 2, 0, 2 * Math.PI);
    pen.fill();
  }
  pen.globalAlpha = 1;
  writeLabels(pen, alive, box);
  canvas.dataset.drawn = alive.length; // says that it is there
}

/** Names some latents, the clearest first, wherever there is room. */
function writeLabels(pen, alive, box) {
  const style = getComputedStyle(document.body);
  pen.font = `500 11px ${style.fontFamily}`;
  pen.textBaseline = "middle";
  const isWord = (latent) => /^[a-z]{3}/i.test(index.labels[latent]) && !isDense(latent);
  const named = alive.filter(isWord).sort((a, b) => index.explained[b] - index.explained[a] || a - b);
  const taken = [];
  for (const latent of named.slice(0, MOST_NAMED)) {
    const text = index.labels[latent].split(" · ")[0];
    const [x, y] = mapScale.place(latent);
    const own = { left: x + 3, right: x + 9 + pen.measureText(text).width, top: y - 9, bottom: y + 9 };
    const free = taken.every((other) => own.left > other.right + 8 || own.right < other.left - 8 || own.top > other.bottom || own.bottom < other.top);
    if (!free || own.right > box.width) continue;
    taken.push(own);
    pen.strokeStyle = getComputedStyle(pen.canvas.parentElement).backgroundColor;
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    pen.strokeText(text, x + 6, y);
    pen.fillStyle = style.color;
    pen.fillText(text, x + 6, y);
  }
}

function nearestTo(event, canvas) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let [best, distance] = [null, 18 ** 2];
  for (const latent of mapScale?.alive ?? []) {
    const [a, b] = mapScale.place(latent);
    const apart = (a - x) ** 2 + (b - y) ** 2;
    if (apart < distance) [best, distance] = [latent, apart];
  }
  return best;
}

function point(event, canvas, tip) {
  const latent = nearestTo(event, canvas);
  tip.hidden = latent === null;
  canvas.classList.toggle("on-latent", latent !== null);
  if (latent === null) return;
  fill(tip, element("b", { text: labelOf(latent) }), ` ${latent} · ${percent(densityOf(latent))}`);
  const [x, y] = mapScale.place(latent);
  const width = canvas.getBoundingClientRect().width;
  withVariable(tip, "left", `${Math.max(4, Math.min(x + 12, width - tip.offsetWidth - 4))}px`);
  withVariable(tip, "top", `${Math.max(4, y - 34)}px`);
}
