from callbacks.markdown import escaped
from callbacks.prediction_text import CHARACTERS, prediction_text
from lightning_modules.predictions import Answer, Sample


def answer(index, **shown):
    return Answer(Sample(index, "p"), {}, {}, shown)


def test_one_line_stands_behind_its_head_and_several_below():
    text = prediction_text([answer(3, a=["x"], b=["1", "2"]), answer(4, a=[], c=["z"])])
    assert text.split("\n\n") == ["### sample 3", "**a** x", "**b**", "- 1\n- 2", "### sample 4", "**c** z"]


def test_no_text_leaves_its_line():
    hostile = "<script>alert(1)</script> | [a](javascript:x) `b` *c*\r\n# d\u2028e\ud800 https://f.g"
    _, line = prediction_text([answer(0, **{"he**ad": [hostile]})]).split("\n\n")
    body = line.removeprefix("**he&#42;&#42;ad** ")
    assert body != line
    assert not set("<>|[]()`*#/:") & set(body.replace("&#", ""))
    assert "⏎" in body
    assert body.isprintable()
    body.encode()


def test_long_lines_are_cut():
    assert prediction_text([answer(0, a=["x" * 1000])]).endswith("**a** " + "x" * (CHARACTERS - 1) + "…")


def test_plain_text_stays_as_it_is():
    assert escaped("gives number 3, déjà 数") == "gives number 3, déjà 数"
