"""What is written, read without a browser."""

import json
import re

import pytest

from reports.dashboard import write_site
from reports.dashboard.drawing import curve_chart, density_chart
from reports.training_curves import Curve
from run_store import UserError
from tests.reports.dashboard.subjects import HOSTILE, LATENTS, store_of_text, subject_of


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    subject = subject_of(store_of_text(folder / "store", HOSTILE), spoken=True)
    size = write_site(subject, folder / "out")
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    assert size == sum(path.stat().st_size for path in files)
    return folder / "out"


def received(path):
    (content,) = re.findall(r"\Areceive\([^,]+,(.*)\)\n\Z", path.read_text(), re.DOTALL)
    return json.loads(content)


def test_the_first_screen_needs_no_script(site):
    page = (site / "index.html").read_text()
    before = page[: page.index("<script")]
    assert "0.1250" in before
    assert "0.2500 on held-out documents" in before
    assert before.count('class="latent-card"') >= 2
    assert before.count('<svg class="plot"') == 3
    assert "http" not in re.sub(r"Content-Security-Policy|http://www\.w3\.org/2000/svg|http-equiv", "", page)


def test_text_from_data_is_escaped_wherever_it_stands(site):
    for path in site.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "<script>window.hacked" not in text
            assert "<img src=x" not in text
            assert "\u2028" not in text or path.name == "index.html"
    page = (site / "index.html").read_text()
    assert page.count("<script") == page.count("</script>") == 2


def test_files_hold_what_is_told_of_each_latent(site):
    told = received(site / "data" / "latents-0000.js")
    assert len(told["latents"]) == LATENTS
    cat = told["latents"][1]
    (tokens, share, _lift), *_ = cat["patterns"]["token"]
    assert ([told["texts"][token] for token in tokens], share) == ([" cat"], 1)
    assert cat["partners"][0] == [9, 1]
    assert [told["texts"][token] for token, _ in cat["promoted"]] == [" the", " cat", " sat"]
    assert told["latents"][10]["strongest"] == []
    assert received(site / "data" / "tokens.js")["cat"] == [1, 100]


def test_an_older_dashboard_is_replaced_and_nothing_else(site, tmp_path):
    subject = subject_of(store_of_text(tmp_path / "store"))
    stale = site / "data" / "latents-0007.js"
    stale.write_text("old")
    write_site(subject, site)
    assert not stale.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than a dashboard"):
        write_site(subject, tmp_path / "other")


def test_charts_of_nothing_and_of_one_value_are_drawn():
    assert density_chart([], -1) == ""
    assert density_chart([0.0], -1).count("<rect") == 1
    assert curve_chart([], "words") == ""
    assert "NaN" not in curve_chart([Curve("a", (5,), (0.0,))], "words")
    assert 'aria-label="&lt;b&gt;"' in curve_chart([Curve("a", (5, 6), (1.0, 1.0))], "<b>")
