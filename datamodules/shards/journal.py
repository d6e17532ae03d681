"""What an unfinished extraction knows of itself, so that it can go on after it was killed.

Beside the shards of an unfinished store lies `unfinished-1of1.json`, or one such file for every process that writes:
the settings, and for each finished shard how far into the text it reaches. It is written anew, whole or not at all,
after every shard, and removed once the manifest is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from datamodules.shards.format import Shard, StoredFile, count, parse_file, parse_shard, typed
from run_store import UserError, json_text

FORMAT = "fulgurite-unfinished"
VERSION = 1


@dataclass(frozen=True)
class Mark:
    """A finished shard and the place in the text at which it ends."""

    shard: Shard
    window: int
    """Number of the window that the shard's last row comes from."""
    rows: int
    """How many of that window's rows are on disk, from its first."""
    whole: bool
    """Whether these are all of them."""
    text: str
    """Fingerprint of the text up to the end of that window."""
    counts: dict[str, int]
    """What the filters did up to the first window whose rows are not all on disk."""

    @property
    def next_window(self) -> int:
        """The first window whose rows are not all on disk."""
        return self.window + self.whole


@dataclass(frozen=True)
class Completion:
    """What is known when a process is through with its windows."""

    documents: StoredFile | None
    """The names of all documents; only the process that reads the end of the text knows them."""
    fingerprint: str
    """Of the whole text, likewise."""
    counts: dict[str, int]
    """What the filters did."""
    lost: dict[str, int]
    """What the text lost on its way into the windows."""


@dataclass(frozen=True)
class Journal:
    """How far one process has come."""

    settings: dict[str, Any]
    """Everything that decides the bytes, as JSON."""
    marks: tuple[Mark, ...] = field(default=())
    completion: Completion | None = None

    @property
    def shards(self) -> list[Shard]:
        return [mark.shard for mark in self.marks]

    @property
    def files(self) -> list[StoredFile]:
        """All files that it vouches for."""
        files = [file for shard in self.shards for file in shard.files]
        return [*files, self.completion.documents] if self.completion and self.completion.documents else files

    def sound(self, is_sound: Callable[[StoredFile], bool]) -> Journal:
        """The journal up to the first file that is missing or not as it was written."""
        good = 0
        while good < len(self.marks) and all(map(is_sound, self.marks[good].shard.files)):
            good += 1
        if good < len(self.marks):
            return replace(self, marks=self.marks[:good], completion=None)
        documents = self.completion and self.completion.documents
        return replace(self, completion=None) if documents and not is_sound(documents) else self


def journal_name(rank: int = 0, processes: int = 1) -> str:
    """File name of the journal of one process."""
    return f"unfinished-{rank + 1}of{processes}.json"


def is_journal(name: str) -> bool:
    """Whether a file is called as the journal of some process."""
    return re.fullmatch(r"unfinished-\d+of\d+\.json", name) is not None


def journal_text(journal: Journal) -> bytes:
    """What the file of a journal holds."""
    return json_text({"format": FORMAT, "version": VERSION, **asdict(journal)}).encode()


def parse_journal(text: bytes, name: str, hook_points: Collection[str] | None = None) -> Journal:
    """The journal, validated; the files that it names are not looked at.

    Args:
        text: the content of the file.
        name: of the file with its place, for messages.
        hook_points: that its shards must have; None takes them from each shard.

    Raises:
        UserError: it is malformed, or of another version.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"it is not of format {FORMAT} version {VERSION}")
        marks = tuple(_mark(entry, hook_points) for entry in typed(content["marks"], list))
        completion = content["completion"]
        return Journal(typed(content["settings"], dict), marks, None if completion is None else _completion(completion))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{name} is damaged ({error!r}): delete the folder {name.rpartition('/')[0]} and extract the store from "
            "the start"
        ) from error


def _mark(entry: dict[str, Any], hook_points: Collection[str] | None) -> Mark:
    return Mark(
        parse_shard(entry["shard"], entry["shard"]["activations"] if hook_points is None else hook_points),
        count(entry["window"], 0),
        count(entry["rows"], 0),
        typed(entry["whole"], bool),
        typed(entry["text"], str),
        _counts(entry["counts"]),
    )


def _completion(entry: dict[str, Any]) -> Completion:
    documents = None if entry["documents"] is None else parse_file(entry["documents"])
    return Completion(documents, typed(entry["fingerprint"], str), _counts(entry["counts"]), _counts(entry["lost"]))


def _counts(entry: Any) -> dict[str, int]:
    return {typed(name, str): count(value, 0) for name, value in typed(entry, dict).items()}
