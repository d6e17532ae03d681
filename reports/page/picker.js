// Choosing a place: the run, its member, and the moment on a slider.

/** { element, show(place), move(by) }. onChange is given the new place whenever a person chooses another. */
function makePicker(title, onChange) {
  let place;
  const choose = (changed) => onChange({ ...place, ...changed });
  const runs = [...new Set(index.series.map((series) => series.run))];
  const run = element("select", {
    "aria-label": "Run",
    change: () => choose(placeInSeries(membersOf(Number(run.value))[0], place)),
  });
  fill(
    run,
    runs.map((number) => element("option", { value: number, text: runLabel(number) })),
  );
  const member = element("select", {
    "aria-label": "Member",
    change: () => choose(placeInSeries(Number(member.value), place)),
  });
  const slider = element("input", {
    type: "range",
    min: 0,
    step: 1,
    "aria-label": "Moment",
    input: () => choose({ moment: Number(slider.value) }),
  });
  const label = element("span", { class: "now-label", "aria-live": "polite" });
  const move = (by) => {
    const moment = Math.min(Math.max(place.moment + by, 0), seriesAt(place).moments.length - 1);
    if (moment !== place.moment && moment >= 0) choose({ moment });
  };
  const stepper = (text, name, by) =>
    element("button", { type: "button", class: "round", "aria-label": name, text, click: () => move(by) });
  const [back, on] = [stepper("‹", "Moment before", -1), stepper("›", "Next moment", 1)];
  const ends = element("p", { class: "ends muted", "aria-hidden": "true" });

  function show(shown) {
    place = shown;
    const { run: number, moments } = seriesAt(place);
    run.value = number;
    const members = membersOf(number);
    fill(
      member,
      members.map((at) => element("option", { value: at, text: index.series[at].member || "whole run" })),
    );
    member.value = place.series;
    member.hidden = members.length < 2;
    slider.max = Math.max(0, moments.length - 1);
    slider.value = place.moment;
    slider.disabled = moments.length < 2;
    withVariable(slider, "--done", moments.length > 1 ? place.moment / (moments.length - 1) : 0);
    const moment = momentAt(place);
    label.textContent = moment ? momentLabel(moment) : "No predictions yet";
    slider.setAttribute("aria-valuetext", label.textContent);
    back.disabled = place.moment <= 0;
    on.disabled = place.moment >= moments.length - 1;
    const shownEnds = moments.length > 1 ? [moments[0], moments.at(-1)] : [];
    fill(
      ends,
      shownEnds.map((end) => element("span", { text: `step ${wholeNumbers.format(end.step)}` })),
    );
  }

  const made = element(
    "fieldset",
    { class: "picker" },
    element("legend", { class: title.length > 1 ? "unseen" : "letter", text: title }),
    element("div", { class: "choices" }, run, member),
    element("div", { class: "moment" }, label, back, on),
    element("div", { class: "slide" }, slider, ends),
  );
  return { element: made, show, move };
}

function membersOf(run) {
  return [...index.series.keys()].filter((at) => index.series[at].run === run);
}

/** The run's name, and, where several runs have it, what tells them apart. */
function runLabel(number) {
  const { name, folder, id } = index.runs[number];
  const namesakes = index.runs.filter((run) => run.name === name);
  if (namesakes.length < 2) return name || id;
  const folders = new Set(namesakes.map((run) => run.folder));
  return folder && folders.size === namesakes.length ? folder : `${name} ${id}`;
}
