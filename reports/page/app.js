// What is shown, and what a person does to change it. The address keeps it, so that a view can be gone back to.

const byId = (id) => document.getElementById(id);
const search = byId("search");
const changedOnly = byId("changed-only").querySelector("input");
const shown = { view: "moment", place: null, sides: null };

const picker = makePicker("Run and moment", (place) => go({ place }));
const sidePickers = ["A", "B"].map((letter, side) =>
  makePicker(letter, (place) => go({ sides: shown.sides.with(side, place) })),
);
const swap = element("button", {
  type: "button",
  class: "round swap",
  "aria-label": "Swap A and B",
  text: "⇄",
  click: () => go({ sides: shown.sides.toReversed() }),
});

function go(changes) {
  Object.assign(shown, changes);
  render();
  history.replaceState(null, "", `#${new URLSearchParams(addressOf(shown))}`);
}

function render() {
  const focused = document.activeElement.getAttribute("aria-controls"); // a sample, whose row is about to be made anew
  const isMoment = shown.view === "moment";
  byId("changed-only").hidden = isMoment;
  document.querySelector(`input[name="view"][value="${shown.view}"]`).checked = true;
  document.body.dataset.view = shown.view;
  const wanted = isMoment ? [picker.element] : [sidePickers[0].element, swap, sidePickers[1].element];
  // only when the view is another: a slider that is being moved must stay in the page
  if (byId("places").firstChild !== wanted[0]) fill(byId("places"), wanted);
  (isMoment ? renderMoment : renderComparison)();
  highlight();
  if (focused) document.querySelector(`[aria-controls="${CSS.escape(focused)}"]`)?.focus();
}

function renderMoment() {
  const { place } = shown;
  picker.show(place);
  const hasMoment = Boolean(momentAt(place));
  fill(byId("scores"), hasMoment ? scoreCards(place, (moment) => go({ place: { ...place, moment } })) : []);
  const all = recordsAt(place);
  const found = all.filter((record) => matches(record, search.value));
  tellFound(found.length, all.length);
  if (!hasMoment) fill(byId("list"), empty("This run has no predictions yet."));
  else if (!found.length) fill(byId("list"), nothingFound());
  else fill(byId("list"), sampleTable(found, render));
}

function renderComparison() {
  const { sides } = shown;
  sides.forEach((place, side) => sidePickers[side].show(place));
  fill(byId("scores"), comparedScores(...sides));
  const [before, after] = sides.map(recordsAt);
  const all = paired(before, after);
  const kept = all.filter((pair) => pair.some((record) => record && matches(record, search.value)));
  const found = changedOnly.checked ? kept.filter(differs) : kept;
  tellFound(found.length, all.length, all.filter(differs).length);
  if (!all.length) fill(byId("list"), empty("Neither of these runs has predictions yet."));
  else if (!kept.length) fill(byId("list"), nothingFound());
  else if (!found.length) fill(byId("list"), empty("Nothing has changed between these two moments."));
  else fill(byId("list"), all.some((pair) => pair[0] && pair[1]) ? [] : nothingShared(), comparison(found, sides));
}

function tellFound(found, all, changed = null) {
  const some =
    search.value || found < all ? `${wholeNumbers.format(found)} of ${counted(all, "sample")}` : counted(all, "sample");
  byId("found").textContent = changed === null ? some : `${some}, ${changed || "none"} changed`;
}

function nothingFound() {
  const clear = element("button", {
    type: "button",
    class: "plain",
    text: "Clear the search",
    click: () => clearSearch(),
  });
  return empty(`No sample here contains “${search.value}”. `, clear);
}

function nothingShared() {
  return empty("These two moments share no sample: none of their prompts is the same.");
}

function clearSearch() {
  search.value = "";
  render();
  search.focus();
}

/** Marks what was searched for, by ranges: no element is made for it. */
function highlight() {
  if (!("highlights" in CSS)) return;
  CSS.highlights.delete("found");
  const query = search.value.toLowerCase();
  if (!query) return;
  const ranges = [];
  const texts = document.createTreeWalker(byId("list"), NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    if (!node.parentElement.closest(".text")) continue;
    const text = node.data.toLowerCase();
    if (text.length !== node.data.length) continue; // a letter whose small form is longer: places would not agree
    for (let at = text.indexOf(query); at >= 0; at = text.indexOf(query, at + query.length)) {
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, at + query.length);
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

// The address

function addressOf({ view, place, sides }) {
  const step = (where) => momentAt(where)?.step ?? "";
  const written = (where) => `${index.runs[seriesAt(where).run].id}/${seriesAt(where).member}/${step(where)}`;
  return view === "moment" ? { at: written(place) } : { a: written(sides[0]), b: written(sides[1]) };
}

/** The place that an address names, or null: a page that was made anew may no longer have it. */
function placeOf(text) {
  const [, id, member, step] = /^(.*?)\/(.*)\/(\d*)$/s.exec(text ?? "") ?? [];
  const series = index.series.findIndex((one) => index.runs[one.run].id === id && one.member === member);
  const moment = index.series[series]?.moments.findIndex((one) => one.step === Number(step)) ?? -1;
  return moment < 0 ? null : { series, moment };
}

function firstView() {
  const address = new URLSearchParams(location.hash.slice(1));
  const recorded = index.series.findIndex((series) => series.moments.length);
  const newest = lastPlace(Math.max(0, recorded));
  const sides = [placeOf(address.get("a")), placeOf(address.get("b"))];
  const view = sides.every(Boolean) ? "compare" : "moment";
  return { view, place: placeOf(address.get("at")) ?? newest, sides: sides.every(Boolean) ? sides : null };
}

// What a person does

function listen() {
  byId("views").addEventListener("change", ({ target }) => {
    // first the whole way of the series that was looked at
    const { series } = shown.place;
    const whole = [{ series, moment: 0 }, lastPlace(series)];
    go({ view: target.value, sides: shown.sides ?? whole });
  });
  search.addEventListener("input", render);
  changedOnly.addEventListener("change", render);
  byId("whole-texts").addEventListener("change", ({ target }) =>
    document.body.classList.toggle("whole-texts", target.checked),
  );
  document.addEventListener("keydown", shortcuts);
}

function shortcuts(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const hasArrowsOfItsOwn = event.target.closest("input, select, .strip");
  if (event.key === "Escape" && search.value) clearSearch();
  else if (event.key === "/" && !event.target.matches("[type=search]")) {
    search.focus();
    event.preventDefault();
  } else if (
    !hasArrowsOfItsOwn &&
    !event.defaultPrevented &&
    shown.view === "moment" &&
    ["ArrowLeft", "ArrowRight"].includes(event.key)
  ) {
    picker.move(event.key === "ArrowLeft" ? -1 : 1);
  }
}

function start() {
  const moments = index.series.flatMap((series) => series.moments);
  const records = moments.reduce((sum, moment) => sum + moment.samples, 0);
  byId("contents").textContent =
    `${counted(index.runs.length, "run")}, ${counted(records, "record")}, written ${index.written}`;
  if (!index.series.length) {
    fill(
      byId("list"),
      empty(
        "No predictions have been recorded yet: they appear here once a training with SamplePredictions has shown its first.",
      ),
    );
    document.body.dataset.view = "nothing";
    return;
  }
  Object.assign(shown, firstView());
  const first = recordsAt(shown.place)[0];
  if (first) openSamples.add(first.sample);
  render();
  listen();
}

startTheme();
start();
