"""The page of an explained ranking: what is in it, and that no text of it is markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from reports.explanation import lines_of, page_of
from tests.reports.explained import HOSTILE, explained


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_texts_are_no_markup_and_nothing_is_fetched():
    page = page_of(*explained())
    assert "<script>alert" not in page
    elements = _Elements()
    elements.feed(page)
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not any(
        "src" in attributes or ("href" in attributes and attributes["href"] != "#documents")
        for _, attributes in elements.found
    )
    assert "default-src 'none'" in page


def test_lines_hold_nothing_that_a_terminal_obeys():
    explanation, difference = explained()
    lines = list(lines_of(explanation, difference, 100))
    text = "\n".join(lines)
    assert lines[1].startswith("model:")
    assert "\x1b" not in text
    assert HOSTILE.split("\x1b")[0][:20] in text
    assert "clamp: 7 near alert to 0 in the query" in text
    assert "all other latents" in text


def test_nothing_in_common_is_told_too():
    explanation, _ = explained(shared=False)
    text = "\n".join(lines_of(explanation, None, 80))
    assert "latents of both" not in text
    assert "why" not in text


def test_a_query_that_is_longer_than_the_model_reads_is_told():
    explanation, _ = explained()
    cut = replace(explanation, read=replace(explanation.read, truncated=True))
    assert list(lines_of(cut, None, 80))[1] == "(cut where the model stops reading)"
