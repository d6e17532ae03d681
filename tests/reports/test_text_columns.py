from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reports.text_columns import cells, cut, filled, table, visible, wrapped


def test_wide_characters_take_two_cells() -> None:
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"
    assert filled("日", 4) == "日  "


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert visible("a\x1b[2J\r\n\tb\u202e") == r"a\x1b[2J ⏎ b\u202e"


@given(st.text(), st.integers(2, 12))
def test_wrapping_loses_nothing_but_spaces(text: str, width: int) -> None:
    text = visible(text)
    lines = wrapped(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(cells(line) <= width for line in lines)


def test_wrapping_breaks_at_spaces() -> None:
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("onetwothree", 4) == ["onet", "woth", "ree"]
    assert wrapped("", 4) == [""]


def test_the_last_columns_share_what_is_left() -> None:
    rows = [["1", "a" * 50, "short"], ["10", "b", "c" * 50]]
    lines = list(table(["step", "prompt", "text"], rows, 50, elastic=2))
    assert lines == [
        f"step  {'prompt':<21}  text",
        f"1     {'a' * 20}…  short",
        f"10    {'b':<21}  {'c' * 20}…",
    ]
    assert list(table(["step"], [], 50)) == ["step"]
