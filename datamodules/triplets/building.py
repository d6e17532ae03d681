"""Examples into a table of numbers: each different text is tokenised once, when it is first met.

Texts that become the same tokens are one text: their embeddings are equal, so one must never be the negative of the
other. That happens to texts that differ in case only, and to long ones that begin alike.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.triplets.source import Example
from datamodules.triplets.table_files import GrowingArray, path_of, write_array, write_manifest
from datamodules.triplets.tokeniser import Column, TokenisedText, Tokeniser
from run_store import UserError

# The tokenizer works on many texts at once on all cores; what it holds is bounded by these.
TEXTS_A_CALL = 2048
CHARACTERS_A_CALL = 2_000_000
# Numbered texts fit the half of an int64, so that pairs of them are int64 too.
MOST_TEXTS = 1 << 31

Ids = npt.NDArray[np.int64]


@dataclass
class TripletCounts:
    """What was met while examples were read."""

    examples: int = 0
    """That are left."""
    texts: int = 0
    """Different ones that were tokenised."""
    bad_rows: int = 0
    """Left out because they could not be used."""
    duplicates: int = 0
    """Left out because the same texts and scores came before."""
    same_tokens: int = 0
    """Left out because anchor and positive become the same tokens."""
    dropped_negatives: int = 0
    """Taken from examples because they become the same tokens as the anchor or as one of its positives."""


class TableBuilder:
    """Writes a table into a folder.

    Args:
        folder: An empty one.
        tokenisers: One for each encoder.
    """

    def __init__(self, folder: Path, tokenisers: Sequence[Tokeniser]) -> None:
        self.counts = TripletCounts()
        self._folder = folder
        self._examples = _Examples()
        self._texts = _Texts(folder, tokenisers)
        self._rows = set[bytes]()

    def add(self, examples: Iterable[Example]) -> None:
        """Adds examples but for duplicates.

        Raises:
            UserError: a text has no tokens, or there are too many texts.
        """
        for example in examples:
            anchor = self._texts.number(example.anchor, "anchor", example.place)
            positive = self._texts.number(example.positive, "positive", example.place)
            negatives = [self._texts.number(text, "negative", example.place) for text in example.negatives]
            row = _digest(repr((anchor, positive, negatives, example.score)))
            if row in self._rows:
                self.counts.duplicates += 1
                continue
            self._rows.add(row)
            self._examples.add(example, anchor, positive, negatives)

    def finish(self, facts: dict[str, Any]) -> None:
        """Writes what is not written yet; `facts` go into the manifest.

        Raises:
            UserError: no example is left.
        """
        ids, dtypes = self._texts.finish()
        arrays = self._examples.finish(ids, self.counts)
        self.counts.texts = self._texts.count
        if not self.counts.examples:
            raise UserError(
                "no example is left: in each, anchor and positive become the same tokens, so raise the encoder's "
                "max_length or choose other columns"
            )
        for name, (values, dtype) in arrays.items():
            write_array(path_of(self._folder, name), values, dtype)
            dtypes[name] = dtype
        scores = self._examples.kind_of_score
        write_manifest(self._folder, dtypes, {**facts, "counts": asdict(self.counts), "scores": scores})


class _Texts:
    """Gives each different text a number when it is met, and each different row of tokens an id."""

    def __init__(self, folder: Path, tokenisers: Sequence[Tokeniser]) -> None:
        self.count = 0
        self._tokenisers = tokenisers
        self._prompts = {
            column: [tokeniser.prompt(column) for tokeniser in tokenisers]
            for column in ("anchor", "positive", "negative")
        }
        self._numbers: dict[bytes, int] = {}
        self._ids = array("q")  # by number
        self._id_of: dict[bytes, int] = {}  # by digest of the tokens
        self._waiting = list[tuple[list[str], str]]()  # texts with their prompts, and the place
        self._characters = 0
        self._dtypes = dict[str, str]()
        self._files = dict[str, GrowingArray]()
        for index in range(len(tokenisers)):
            for name, dtype in ((f"tokens-{index}", "i4"), (f"offsets-{index}", "i8"), (f"truncated-{index}", "u1")):
                self._dtypes[name] = dtype
                self._files[name] = GrowingArray(path_of(folder, name), dtype)
            self._files[f"offsets-{index}"].append([0])

    def number(self, text: str, column: Column, place: str) -> int:
        prompted = [prompt + text for prompt in self._prompts[column]]
        key = _digest(*prompted)
        number = self._numbers.setdefault(key, len(self._numbers))
        if number == len(self._ids) + len(self._waiting):
            self._waiting.append((prompted, place))
            self._characters += sum(map(len, prompted))
            if len(self._waiting) >= TEXTS_A_CALL or self._characters >= CHARACTERS_A_CALL:
                self._tokenise()
        return number

    def finish(self) -> tuple[Ids, dict[str, str]]:
        """The id of every number, and the types of what was written."""
        self._tokenise()
        for file in self._files.values():
            file.close()
        return np.array(self._ids, dtype=np.int64), self._dtypes

    def _tokenise(self) -> None:
        waiting, self._waiting, self._characters = self._waiting, [], 0
        if not waiting:
            return
        columns = [
            tokeniser([prompted[index] for prompted, _ in waiting]) for index, tokeniser in enumerate(self._tokenisers)
        ]
        for (_, place), text in zip(waiting, zip(*columns, strict=True), strict=True):
            self._ids.append(self._id(text, place))

    def _id(self, text: tuple[TokenisedText, ...], place: str) -> int:
        key = hashlib.blake2b(digest_size=16)
        for part in text:
            if not len(part.ids):
                raise UserError(f"{place} holds a text of which the tokenizer makes no tokens: take the row out")
            key.update(len(part.ids).to_bytes(8, "little") + part.ids.tobytes())
        known = self._id_of.setdefault(key.digest(), self.count)
        if known < self.count:
            return known
        if self.count >= MOST_TEXTS:
            raise UserError(f"there are more than {MOST_TEXTS:,} different texts: train on a part of them")
        self.count += 1
        for index, part in enumerate(text):
            tokens = self._files[f"tokens-{index}"]
            tokens.append(part.ids)
            self._files[f"offsets-{index}"].append([tokens.count])
            self._files[f"truncated-{index}"].append([part.is_truncated])
        return known


class _Examples:
    """Numbers of texts by example."""

    def __init__(self) -> None:
        self.kind_of_score: str | None = None
        self._anchors, self._positives, self._negatives = array("q"), array("q"), array("q")
        self._negative_counts, self._groups = array("q"), array("Q")
        self._scores, self._negative_scores = array("d"), array("d")
        self._places = list[bytes]()

    def add(self, example: Example, anchor: int, positive: int, negatives: Sequence[int]) -> None:
        self._anchors.append(anchor)
        self._positives.append(positive)
        self._negatives.extend(negatives)
        self._negative_counts.append(len(negatives))
        self._groups.append(group_of(example))
        self._places.append(example.place.encode("utf-8", "backslashreplace"))
        if isinstance(example.score, tuple):
            self.kind_of_score = "teacher"
            self._scores.append(example.score[0])
            self._negative_scores.extend(example.score[1:])
        elif example.score is not None:
            self.kind_of_score = "pair"
            self._scores.append(example.score)

    def finish(self, ids: Ids, counts: TripletCounts) -> dict[str, tuple[Any, str]]:
        """Values and type of every array, without what tokens show to be the same text."""
        anchors, positives, negatives = (ids[np.array(a)] for a in (self._anchors, self._positives, self._negatives))
        owners = np.repeat(np.arange(len(anchors)), self._negative_counts)
        keep = anchors != positives
        is_other = ~np.isin(_pairs(anchors[owners], negatives), _pairs(anchors, positives))
        is_other &= negatives != anchors[owners]
        counts.same_tokens = int((~keep).sum())
        counts.dropped_negatives = int((keep[owners] & ~is_other).sum())
        counts.examples = int(keep.sum())
        keep_negatives = keep[owners] & is_other
        negative_counts = np.bincount(owners[keep_negatives], minlength=len(anchors))[keep]
        places = [place for place, kept in zip(self._places, keep, strict=True) if kept]
        arrays: dict[str, tuple[Any, str]] = {
            "anchors": (anchors[keep], "i8"),
            "positives": (positives[keep], "i8"),
            "negatives": (negatives[keep_negatives], "i8"),
            "negative_offsets": (_offsets(negative_counts), "i8"),
            "groups": (np.array(self._groups, dtype=np.uint64)[keep], "u8"),
            "places": (np.frombuffer(b"".join(places), dtype=np.uint8), "u1"),
            "place_offsets": (_offsets([len(place) for place in places]), "i8"),
        }
        if self.kind_of_score is not None:
            arrays["scores"] = np.array(self._scores)[keep], "f8"
        if self.kind_of_score == "teacher":
            arrays["negative_scores"] = np.array(self._negative_scores)[keep_negatives], "f8"
        return arrays


def _pairs(first: Ids, second: Ids) -> Ids:
    """One number for each pair of ids."""
    return first * MOST_TEXTS + second


def _offsets(counts: Any) -> Ids:
    """Where each of some parts begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def group_of(example: Example) -> int:
    """What stands for the group that an example is held out with, or for its anchor where it has none: 64 bits."""
    group = f"anchor {example.anchor}" if example.group is None else f"group {example.group}"
    return int.from_bytes(_digest(group)[:8], "little")


def _digest(*texts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
