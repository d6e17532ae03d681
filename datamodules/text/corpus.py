"""What a corpus is: named documents in a fixed order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple


class Document(NamedTuple):
    """A piece of text and the name by which it is found again; names are unique within a corpus."""

    name: str
    text: str


class Corpus(ABC):
    """Documents in an order that is the same at every call, so that a store of activations can be made again."""

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Yields the documents one by one."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings that decide what `documents` yields, as plain JSON values."""
