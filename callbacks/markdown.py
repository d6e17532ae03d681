"""Texts of data as TensorBoard may show them."""

from __future__ import annotations

import re

MARKUP = frozenset("<>&\"'\\`*_{}[]()#+-.!|~:/@")
_LINE_END = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def escaped(text: str) -> str:
    """Text as it is, in a cell of a Markdown table: every character with a meaning in HTML or Markdown becomes an
    entity, line ends show as ⏎, and what is no character of UTF-8 as ?.
    """
    line = _LINE_END.sub("⏎", text).encode("utf-8", "replace").decode("utf-8")
    return "".join(f"&#{ord(character)};" if character in MARKUP else character for character in line)
