"""The page of predictions: what is in it, and that no text of it can be run."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from reports.predictions_page import SCRIPTS, STYLES, page_of, write_page
from run_store import UserError
from run_store.predictions import Prediction, PredictionStore
from tests.reports.predictions import ENTRIES, HOSTILE, PREDICTIONS, entry, retrieved


class Elements(HTMLParser):
    """What a parser of HTML makes of a page: its elements with attributes, and the text in each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.is_inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.append("")
        self.is_inside = True

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.texts[-1] += data

    def scripts(self) -> dict[str, str]:
        """Id → text; the page's own script has the id "own"."""
        pairs = zip(self.found, self.texts, strict=True)
        return {attributes.get("id") or "own": text for (tag, attributes), text in pairs if tag == "script"}

    def records(self, name: str) -> Any:
        return json.loads(self.scripts()[name])


def test_runs_members_and_moments_stand_in_order_with_their_mean_scores():
    index = Elements(page_of(ENTRIES, reversed(PREDICTIONS))).records("index")
    assert [run["name"] for run in index["runs"]] == ["sweep", "embedder", "just-started"]
    series = [(one["run"], one["member"], [moment["step"] for moment in one["moments"]]) for one in index["series"]]
    assert series == [(0, "k32", [0, 5]), (0, "k64", [0]), (1, "", [0, 10, 20]), (2, "", [])]
    assert index["series"][2]["moments"][1] == {
        "epoch": 1, "step": 10, "samples": 2, "scores": {"rank": 2.5, "margin": 0.25},
    }  # fmt: skip


def test_a_moments_records_are_whole_and_ground_truth_is_absent_where_there_is_none():
    elements = Elements(page_of(ENTRIES, reversed(PREDICTIONS)))
    first, second = elements.records("moment-2-1")
    assert (first["sample"], first["prompt"], first["truth"]) == (0, "prompt 0", "c")
    assert first["prediction"] == PREDICTIONS[2].prediction
    assert second["scores"] == {"rank": 3, "margin": 0.25}
    assert "truth" not in elements.records("moment-0-0")[0]


def test_numbers_that_are_not_finite_are_null_and_left_out_of_means():
    def scored(sample: int, score: float) -> Prediction:
        return Prediction("r1", "", 0, 0, sample, "p", None, {"kind": "new", "x": [math.inf, (1,)]}, {"fvu": score})

    elements = Elements(page_of([entry("r1")], [scored(0, math.nan), scored(1, 0.5), scored(2, 0.25)]))
    assert elements.records("index")["series"][0]["moments"][0]["scores"] == {"fvu": 0.375}
    first = elements.records("moment-0-0")[0]
    assert (first["scores"], first["prediction"]["x"]) == ({"fvu": None}, [None, [1]])


def test_texts_from_data_stay_texts():
    lone_surrogate = "\ud800"
    hostile = retrieved("r1", 0, 0, f"{HOSTILE.replace(' ', '_')} c", prompt=HOSTILE + lone_surrogate)
    page = page_of([entry("r1", HOSTILE)], [hostile])
    page.encode()  # as it is written
    elements = Elements(page)
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert set(elements.scripts()) == {"index", "moment-0-0", "own"}
    assert elements.records("index")["runs"][0]["name"] == HOSTILE
    assert elements.records("moment-0-0")[0]["prompt"] == HOSTILE + lone_surrogate
    assert "\u2028" not in page


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else():
    page = page_of(ENTRIES, PREDICTIONS)
    elements = Elements(page)
    (policy,) = (at["content"] for _, at in elements.found if at.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    for kind, text in (("style", style[1]), ("script", elements.scripts()["own"])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_nothing_is_fetched_and_no_markup_is_made_from_text():
    elements = Elements(page_of(ENTRIES, PREDICTIONS))
    assert {at[name] for _, at in elements.found for name in ("src", "href") if name in at} == {"#samples"}
    own = "".join((files("reports") / "page" / name).read_text(encoding="utf-8") for name in (*SCRIPTS, *STYLES))
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"):
        assert forbidden not in own.replace("http://www.w3.org/2000/svg", ""), forbidden


def test_every_part_is_used_and_short():
    parts = {part.name: part.read_text(encoding="utf-8") for part in (files("reports") / "page").iterdir()}
    assert set(parts) == {"page.html", *STYLES, *SCRIPTS}
    assert max(len(text.splitlines()) for text in parts.values()) < 400


def test_a_page_is_written_from_a_store_for_all_runs_or_for_some(tmp_path):
    with PredictionStore(tmp_path / "predictions.sqlite") as store:
        for one in ENTRIES:
            store.register(one)
        store.write(PREDICTIONS)
        path = tmp_path / "report.html"
        write_page(store, path)
        assert len(Elements(path.read_text()).records("index")["series"]) == 4
        write_page(store, path, runs=["r1"])
        elements = Elements(path.read_text())
        assert [run["id"] for run in elements.records("index")["runs"]] == ["r1"]
        assert len(elements.records("moment-0-2")) == 2
        with pytest.raises(UserError, match="no predictions of run r9"):
            write_page(store, path, runs=["r1", "r9"])
        assert [file.name for file in tmp_path.glob("*.html*")] == ["report.html"]
