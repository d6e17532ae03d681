from callbacks.markdown import escaped
from callbacks.prediction_table import CHARACTERS, prediction_table
from lightning_modules.predictions import Answer, Sample


def answer(index, **shown):
    return Answer(Sample(index, "p"), {}, {}, shown)


def test_a_column_that_an_answer_lacks_is_empty():
    table = prediction_table([answer(3, a=["x"], b=["1", "2"]), answer(4, a=[], c=["z"])])
    assert table.splitlines() == [
        "| sample | a | b | c |",
        "| --- | --- | --- | --- |",
        "| 3 | x | 1<br>2 |  |",
        "| 4 |  |  | z |",
    ]


def test_no_text_leaves_its_cell():
    hostile = "<script>alert(1)</script> | [a](javascript:x) `b` *c*\r\n# d\u2028e\ud800 https://f.g"
    line = prediction_table([answer(0, **{"he|ad": [hostile]})]).splitlines()[2]
    body = line.removeprefix("| 0 | ").removesuffix(" |")
    assert not set("<>|[]()`*#/:") & set(body.replace("&#", ""))
    assert "⏎" in body
    assert body.isprintable()
    body.encode()


def test_long_lines_are_cut():
    (cell,) = prediction_table([answer(0, a=["x" * 1000])]).splitlines()[2].split(" | ")[1:]
    assert cell == "x" * (CHARACTERS - 1) + "… |"


def test_plain_text_stays_as_it_is():
    assert escaped("gives number 3, déjà 数") == "gives number 3, déjà 数"
