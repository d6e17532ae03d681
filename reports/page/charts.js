// The small chart of a mean score over moments.

const CHART = { width: 200, height: 44, margin: 4 };

/** x and y of every moment that has the score, and the moment's number. x goes by steps. */
function chartPoints(moments, name) {
  const known = moments.map((moment, at) => ({ at, step: moment.step, value: moment.scores[name] ?? NaN }));
  const points = known.filter((point) => Number.isFinite(point.value));
  const [first, last] = [moments[0].step, moments.at(-1).step];
  const values = points.map((point) => point.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const { width, height, margin } = CHART;
  return points.map(({ at, step, value }) => ({
    at,
    value,
    x: margin + (width - 2 * margin) * (last > first ? (step - first) / (last - first) : 0.5),
    y: height - margin - (height - 2 * margin) * (high > low ? (value - low) / (high - low) : 0.5),
  }));
}

function scoreChart(moments, name, current, onChoose) {
  const points = chartPoints(moments, name);
  const line = points.map(({ x, y }, at) => `${at ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");
  const area = points.length > 1 ? `${line}L${points.at(-1).x} ${CHART.height}L${points[0].x} ${CHART.height}Z` : "";
  const here = points.find((point) => point.at === current);
  const chosen = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * CHART.width;
    const distance = (point) => Math.abs(point.x - x);
    onChoose(points.reduce((best, point) => (distance(point) < distance(best) ? point : best)).at);
  };
  return drawing(
    "svg",
    {
      class: "chart",
      role: "img",
      "aria-label": chartInWords(name, points),
      viewBox: `0 0 ${CHART.width} ${CHART.height}`,
      preserveAspectRatio: "none",
      click: points.length ? chosen : null,
    },
    drawing("path", { class: "area", d: area }),
    drawing("path", { class: "line", d: line }),
    here ? drawing("path", { class: "now", d: `M${here.x} 0V${CHART.height}` }) : null,
    // lines of no length, whose round ends stay round however the chart is stretched
    here ? drawing("path", { class: "dot", d: `M${here.x} ${here.y}h0` }) : null,
  );
}

function chartInWords(name, points) {
  if (!points.length) return `${scoreLabel(name)}: no moment has this score`;
  const format = numberFormat(
    name,
    points.map((point) => point.value),
  );
  const span = `from ${format(points[0].value)} to ${format(points.at(-1).value)}`;
  return `Mean ${scoreLabel(name)} over ${counted(points.length, "moment")}: ${span}`;
}

/** A card for each score: its mean at this moment, how far it has come since the first, and its chart. */
function scoreCards(place, onChoose) {
  const { moments } = seriesAt(place);
  const names = [...new Set(moments.flatMap((moment) => Object.keys(moment.scores)))];
  return names.map((name) => {
    const values = moments.map((moment) => moment.scores[name] ?? NaN);
    const format = numberFormat(name, values);
    const change = values[place.moment] - values[0];
    const since = element("span", { class: "since", text: " since the first" });
    return element(
      "div",
      { class: "card" },
      element("h2", { text: scoreLabel(name) }),
      element(
        "p",
        { class: "figure" },
        element("b", { text: format(values[place.moment]) }),
        place.moment && Number.isFinite(change)
          ? element("span", { class: `change ${verdict(name, change)}` }, signed(format(change)), since)
          : null,
      ),
      scoreChart(moments, name, place.moment, onChoose),
    );
  });
}

/** A card for each score of two moments: both means and the change. */
function comparedScores(before, after) {
  const [a, b] = [momentAt(before)?.scores ?? {}, momentAt(after)?.scores ?? {}];
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].map((name) =>
    element("div", { class: "card" }, element("h2", { text: scoreLabel(name) }), scoreChange(name, a[name], b[name])),
  );
}

function scoreChange(name, before, after) {
  const [a, b] = [before ?? NaN, after ?? NaN];
  const format = numberFormat(name, [a, b]);
  return element(
    "p",
    { class: "figure" },
    element("span", { text: format(a) }),
    element("span", { class: "arrow", "aria-label": "to", text: "→" }),
    element("b", { text: format(b) }),
    Number.isFinite(b - a)
      ? element("span", { class: `change ${verdict(name, b - a)}`, text: signed(format(b - a)) })
      : null,
  );
}
