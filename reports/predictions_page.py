"""The recorded predictions as one page of HTML that needs nothing else: no network, no server, no other file.

The page's parts lie in `page/`. Records go in as JSON, which no browser runs; the page's own style and script are the
only ones that its policy allows, by their hashes, and its policy forbids to make elements from text.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from statistics import fmean
from string import Template
from typing import Any

from reports.page_parts import as_json, parts, policy, when
from run_store import UserError, atomic_file
from run_store.predictions import Prediction, PredictionStore, RunEntry

ROOM = "reports.page"
STYLES = ("base.css", "frame.css", "samples.css", "predictions.css", "compare.css", "phone.css")
# In the order in which they are run: a constant must stand before what is run with it.
SCRIPTS = (
    "dom.js", "records.js", "diff.js", "charts.js", "picker.js", "retrieval.js", "tokens.js", "latents.js",
    "kinds.js", "samples.js", "compare.js", "theme.js", "app.js",
)  # fmt: skip


def write_page(store: PredictionStore, path: str | os.PathLike[str], runs: Sequence[str] | None = None) -> None:
    """Writes a page to read the predictions of runs on, move through their moments and compare any two.

    Args:
        store: what is read.
        path: of the page; an older one is replaced.
        runs: ids of the runs to show; all of the store by default.

    Raises:
        UserError: the store holds no such run, or the page cannot be written there.
    """
    with store.at_one_moment():
        page = page_of(*_read(store, runs))
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _read(store: PredictionStore, runs: Sequence[str] | None) -> tuple[list[RunEntry], Iterator[Prediction]]:
    """The runs, newest first, and their predictions one by one."""
    entries = store.runs()
    if runs is not None:
        if unknown := sorted(set(runs) - {entry.run_id for entry in entries}):
            raise UserError(
                f"no predictions of run {unknown[0]} are stored: `predictions list` shows the runs there are"
            )
        entries = [entry for entry in entries if entry.run_id in runs]
    return entries, chain.from_iterable(store.each(run=entry.run_id) for entry in entries)


def page_of(entries: Sequence[RunEntry], predictions: Iterable[Prediction]) -> str:
    """The whole page: an index of runs and moments, and every moment's records in an element of their own, which is
    read when it is shown.
    """
    series: dict[tuple[str, str], dict[int, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    for prediction in predictions:
        series[prediction.run_id, prediction.member][prediction.step].append(prediction)
    for run in {entry.run_id for entry in entries} - {run for run, _ in series}:
        series[run, ""] = defaultdict(list)  # a run is shown even before its first prediction

    numbers = {entry.run_id: number for number, entry in enumerate(entries)}
    ordered = sorted(series.items(), key=lambda item: (numbers[item[0][0]], item[0][1]))
    index = {
        "written": when(),
        "runs": [{"id": entry.run_id, "name": entry.name, "folder": entry.folder} for entry in entries],
        "series": [
            {"run": numbers[run], "member": member, "moments": [_summary(moments[step]) for step in sorted(moments)]}
            for (run, member), moments in ordered
        ],
    }
    elements = [
        f'<script type="application/json" id="moment-{place}-{at}">{as_json(_records(moments[step]))}</script>'
        for place, (_, moments) in enumerate(ordered)
        for at, step in enumerate(sorted(moments))
    ]
    style, script = parts(ROOM, STYLES), parts(ROOM, SCRIPTS)
    return Template(parts(ROOM, ["page.html"])).substitute(
        policy=policy(style, script), style=style, script=script, index=as_json(index), moments="\n".join(elements)
    )


def _summary(moment: Sequence[Prediction]) -> dict[str, Any]:
    """What is known of a moment before its records are read. Scores are means of what is finite."""
    values: dict[str, list[float]] = defaultdict(list)
    for prediction in moment:
        for name, score in prediction.scores.items():
            if math.isfinite(score):
                values[name].append(score)
    return {
        "epoch": moment[0].epoch,
        "step": moment[0].step,
        "samples": len(moment),
        "scores": {name: fmean(scores) for name, scores in values.items()},
    }


def _records(moment: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [
        {"sample": prediction.sample_index, "prompt": prediction.prompt}
        | ({} if prediction.ground_truth is None else {"truth": prediction.ground_truth})
        | {"prediction": dict(prediction.prediction), "scores": dict(prediction.scores)}
        for prediction in sorted(moment, key=lambda prediction: prediction.sample_index)
    ]
