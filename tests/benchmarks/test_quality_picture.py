"""The picture of FVU against L0."""

import re

from benchmarks.quality_picture import draw

CURVES = {
    "synthetic": {"topk": [{"l0": 8.0, "fvu": 0.3}, {"l0": 16.0, "fvu": 0.1}], "relu": [{"l0": 9.0, "fvu": 0.5}]},
    "real": {"topk": [{"l0": 8.0, "fvu": 0.4}], "relu": [{"l0": 9.0, "fvu": 0.6}]},
}


def test_a_panel_is_drawn_for_each_data_set_and_a_line_for_each_variant(tmp_path):
    draw(CURVES, tmp_path / "quality.svg")
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", (tmp_path / "quality.svg").read_text())
    assert [text for text in texts if text in ("topk", "relu")] == ["relu", "topk"]
    assert texts.count("L0") == texts.count("FVU") == 2


def test_the_same_scores_give_the_same_bytes(tmp_path):
    for name in ("first.svg", "second.svg"):
        draw(CURVES, tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_a_single_data_set_is_drawn_alone(tmp_path):
    draw({"real": CURVES["real"]}, tmp_path / "quality.svg")
    assert (tmp_path / "quality.svg").read_text().count(">FVU<") == 1
