// The histogram of a latent's activation.

const PLOT = { width: 320, height: 96, bottom: 16 };

function histogram(counts, width) {
  if (!counts.length) return empty("This latent has not fired.");
  const most = Math.max(...counts);
  const { width: across, height, bottom } = PLOT;
  const step = across / counts.length;
  // by the logarithm: of most latents nearly all firings are weak, and the strong ones could not be seen
  const tall = (count) => (count ? ((height - bottom - 4) * Math.log1p(count)) / Math.log1p(most) : 0);
  const bars = counts.map((count, at) =>
    count
      ? drawing(
          "rect",
          { x: (at * step).toFixed(2), width: Math.max(0.5, step - 0.8).toFixed(2), y: (height - bottom - tall(count)).toFixed(2), height: tall(count).toFixed(2) },
          drawing("title", { text: `${wholeNumbers.format(count)} firings from ${short(at * width)} to ${short((at + 1) * width)}` }),
        )
      : null,
  );
  const end = counts.length * width;
  const ticks = [0, end / 2, end].map((value, at) =>
    drawing("text", { class: "tick-across", x: (at * across) / 2, y: height - 3, "text-anchor": ["start", "middle", "end"][at], text: short(value) }),
  );
  const words = `Histogram of ${wholeNumbers.format(counts.reduce((a, b) => a + b, 0))} firings by how strong they are, up to ${short(end)}; heights are logarithms`;
  return drawing("svg", { class: "plot small", role: "img", "aria-label": words, viewBox: `0 0 ${across} ${height}` }, bars, ticks);
}
