"""Prose that is on every machine: Python's language reference."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

from jsonargparse.typing import PositiveInt

from datamodules.text.corpus import Corpus, Document
from run_store import UserError


class LanguageReference(Corpus):
    """The paragraphs of the texts that `help("if")` and the like show, which come with Python: English prose, mixed
    with some code, each named by its topic and place.

    The order is pseudo-random and fixed (by the hash of the text), so that any prefix is a fair sample of the whole.
    What stands in several topics is there once.

    Args:
        min_words: Shorter paragraphs are left out, headings and lines of grammar among them.
    """

    def __init__(self, min_words: PositiveInt = 20) -> None:
        self.min_words = min_words

    def documents(self) -> Iterator[Document]:
        """Yields the paragraphs.

        Raises:
            UserError: this Python comes without the texts of its help.
        """
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise UserError(
                "this Python comes without pydoc_data, the texts of help(): choose another corpus"
            ) from error
        found: dict[str, str] = {}
        for topic in sorted(topics):
            for place, paragraph in enumerate(topics[topic].split("\n\n")):
                if len(paragraph.split()) >= self.min_words:
                    found.setdefault(" ".join(paragraph.split()), f"{topic}:{place}")
        for text in sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest()):
            yield Document(found[text], text)

    def describe(self) -> dict[str, Any]:
        """Settings, and the version of Python, whose reference changes with it."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return {"class": type(self).__name__, "python": python, "min_words": self.min_words}
