// One moment: a table with a row for each sample, which opens to the whole prediction.

const PAGE_OF_ROWS = 100;
const openSamples = new Set(); // stay open when another moment is shown: so one sample is watched through time
const sorting = { by: null, ascending: true };

function sampleTable(records, rerender) {
  const names = scoreNames(records);
  const formats = names.map((name) =>
    numberFormat(
      name,
      records.map((record) => scoreOf(record, name)),
    ),
  );
  const hasTruth = records.some((record) => record.truth !== undefined);
  const columns = 3 + hasTruth + names.length;
  const head = element(
    "tr",
    { role: "row" },
    sortable("Sample", null, rerender, "number"),
    ["Prompt", ...(hasTruth ? ["Ground truth"] : []), "Prediction"].map((text) =>
      element("th", { role: "columnheader", scope: "col", text }),
    ),
    names.map((name) => sortable(scoreLabel(name), name, rerender, "number")),
  );
  const body = element("tbody", { role: "rowgroup" });
  const more = element("button", { type: "button", class: "plain more" });
  let shown = 0;
  const showMore = () => {
    const next = sorted(records).slice(shown, shown + PAGE_OF_ROWS);
    body.append(...next.flatMap((record) => sampleRows(record, names, formats, hasTruth, columns)));
    shown += next.length;
    more.hidden = shown >= records.length;
    more.textContent = `Show ${Math.min(PAGE_OF_ROWS, records.length - shown)} more`;
  };
  more.addEventListener("click", showMore);
  showMore();
  const table = element(
    "table",
    { role: "table", class: hasTruth ? "with-truth" : "", keydown: moveBetweenRows },
    element("caption", { class: "unseen", text: "Samples at the moment chosen" }),
    element("thead", { role: "rowgroup" }, head),
    body,
  );
  return [table, more];
}

function sortable(label, by, rerender, kind) {
  const isSorted = sorting.by === by;
  const sort = () => {
    [sorting.by, sorting.ascending] = [by, isSorted ? !sorting.ascending : true];
    rerender();
    document.querySelector(`th[data-by="${CSS.escape(by ?? "")}"] button`)?.focus(); // its table was made anew
  };
  return element(
    "th",
    {
      role: "columnheader",
      scope: "col",
      class: kind,
      "data-by": by ?? "",
      "aria-sort": isSorted ? (sorting.ascending ? "ascending" : "descending") : "none",
    },
    element("button", { type: "button", class: "plain", text: label, click: sort }),
  );
}

function sorted(records) {
  const { by, ascending } = sorting;
  const value = (record) => (by === null ? record.sample : scoreOf(record, by));
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // without a number: last
    return (a - b) * (ascending ? 1 : -1) || one.sample - other.sample;
  };
  return [...records].sort(compare);
}

/** The row of a sample and the one that opens under it, which is filled when it is opened first. */
function sampleRows(record, names, formats, hasTruth, columns) {
  const id = `sample-${record.sample}`;
  const kind = kindOf(record);
  const panel = element("td", { role: "cell", colspan: columns });
  const opened = element("tr", { role: "row", class: "opened", id, hidden: true }, panel);
  const button = element("button", {
    type: "button",
    class: "plain toggle",
    "aria-controls": id,
    "aria-label": `Sample ${record.sample}`,
  });
  const open = (isOpen) => {
    if (isOpen && !panel.hasChildNodes()) fill(panel, wholeSample(record, kind));
    opened.hidden = !isOpen;
    button.setAttribute("aria-expanded", String(isOpen));
    row.classList.toggle("is-open", isOpen);
    openSamples[isOpen ? "add" : "delete"](record.sample);
  };
  const toggle = ({ target }) => {
    if (target !== button && String(getSelection())) return; // a person marks text to copy it
    open(opened.hidden);
    highlight();
  };
  const cell = (className, label, ...children) =>
    element("td", { role: "cell", class: className, "data-label": label }, children);
  const row = element(
    "tr",
    { role: "row", class: "sample", click: toggle },
    cell("number", "Sample", element("span", { class: "index" }, button, wholeNumbers.format(record.sample))),
    cell("prompt", "Prompt", element("span", { class: "text clip", text: record.prompt })),
    hasTruth ? cell("ground", "Ground truth", element("span", { class: "text clip", text: record.truth ?? "" })) : null,
    cell("prediction", "Prediction", element("div", { class: "summary" }, kind.summary(record))),
    names.map((name, at) => cell("number value", scoreLabel(name), formats[at](scoreOf(record, name)))),
  );
  open(openSamples.has(record.sample));
  return [row, opened];
}

function wholeSample(record, kind) {
  const isMarked = kind === latents; // its tokens are the prompt
  const given = (title, text) => [element("h3", { text: title }), element("p", { class: "text block", text })];
  return element(
    "div",
    { class: "whole" },
    element(
      "div",
      { class: "given" },
      isMarked ? null : given("Prompt", record.prompt),
      record.truth === undefined ? null : given("Ground truth", record.truth),
    ),
    element("div", { class: "told" }, element("h3", { text: isMarked ? "Tokens" : "Prediction" }), kind.detail(record)),
  );
}

function moveBetweenRows(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!by || !event.target.matches(".toggle")) return;
  const toggles = [...event.currentTarget.querySelectorAll(".toggle")];
  toggles[toggles.indexOf(event.target) + by]?.focus();
  event.preventDefault();
}
