// What was recorded. The index is small and read at once; the records of a moment are read when it is shown.
//
// A series is one run, or one member of a run that is a sweep. Its moments are in the order of steps. A place is a
// moment of a series: { series, moment }, both counted from 0.

const index = JSON.parse(document.getElementById("index").textContent);
const MOST_MOMENTS_IN_MEMORY = 24;
const recentMoments = new Map();
const haystacks = new WeakMap();

function seriesAt(place) {
  return index.series[place.series];
}

function momentAt(place) {
  return seriesAt(place).moments[place.moment];
}

function recordsAt(place) {
  const id = `moment-${place.series}-${place.moment}`;
  const records = recentMoments.get(id) ?? JSON.parse(document.getElementById(id)?.textContent ?? "[]");
  recentMoments.delete(id); // and to the end, as the newest
  recentMoments.set(id, records);
  if (recentMoments.size > MOST_MOMENTS_IN_MEMORY) recentMoments.delete(recentMoments.keys().next().value);
  return records;
}

/** The place in another series that is closest in time: its moment of the same step, or the last one before it. */
function placeInSeries(series, from) {
  const { moments } = index.series[series];
  const step = momentAt(from)?.step ?? Infinity;
  const later = moments.findIndex((moment) => moment.step > step);
  return { series, moment: Math.max(0, later < 0 ? moments.length - 1 : later - 1) };
}

function lastPlace(series) {
  return { series, moment: Math.max(0, index.series[series].moments.length - 1) };
}

function scoreNames(records) {
  return [...new Set(records.flatMap((record) => Object.keys(record.scores)))];
}

function scoreOf(record, name) {
  return record.scores[name] ?? NaN; // what is no number is null in JSON
}

function matches(record, query) {
  if (!haystacks.has(record)) {
    const texts = [record.prompt, record.truth ?? "", ...textsIn(record.prediction)];
    haystacks.set(record, texts.join("\n").toLowerCase());
  }
  return haystacks.get(record).includes(query.toLowerCase());
}

/** All strings in a value, but not what its fields are called. */
function textsIn(value) {
  if (typeof value === "string") return [value];
  return value && typeof value === "object" ? Object.values(value).flatMap(textsIn) : [];
}

/** Records of two moments, paired by prompt, since another run may number its samples otherwise. Either may be null. */
function paired(before, after) {
  const waiting = new Map();
  for (const record of after) waiting.set(record.prompt, [...(waiting.get(record.prompt) ?? []), record]);
  const pairs = before.map((record) => [record, waiting.get(record.prompt)?.shift() ?? null]);
  return [...pairs, ...[...waiting.values()].flat().map((record) => [null, record])];
}
