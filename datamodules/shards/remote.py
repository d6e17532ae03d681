"""Reading an activation store at a URL, through a cache of bounded size."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from datamodules.shards.cache import Content, FileCache, Outcome
from datamodules.shards.encodings import StoredColumns
from datamodules.shards.fetching import PART_BYTES, Fetcher
from datamodules.shards.file_rows import FilePart, FileRows
from datamodules.shards.files import opened
from datamodules.shards.format import StoredFile, manifest_text, parse_manifest
from datamodules.shards.mapping import offsets_in
from datamodules.shards.read_ahead import ReadAhead
from datamodules.shards.row_store import PROVENANCE, RowStore, parsed_names, ranges_of
from remote_files import Retries
from run_store import UserError
from run_store.checkpoints import in_words
from run_store.retention import parse_size

_GROUPS = 2
"""That a cache must hold: the one that is read, and the one after it."""
_NOW = -1
"""How soon what is waited for is read: before all that is planned."""
_LONGEST_WAIT = 60.0
_LOOK = 0.1


@dataclass(frozen=True)
class ShardCache:
    """Where shards of a store at a URL are kept on their way to the training.

    Args:
        folder: On a disk of this machine, shared by its processes and by other runs; null takes fulgurite/shards in the
            user's folder of caches.
        size: What it may take there, such as 50GB.
        connections: Files that each process fetches at once.
    """

    folder: str | None = None
    size: str | int = "50GB"
    connections: PositiveInt = 4

    def opened(self) -> FileCache:
        """The cache.

        Raises:
            UserError: the size is none, or the folder cannot be written to.
        """
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fulgurite", "shards")
        return FileCache(default if self.folder is None else Path(self.folder), parse_size(self.size))


class RemoteStore(RowStore):
    """A store at a URL. Its shards are fetched when they are asked for, or before (`at`), and compared with their
    sha256; what is read of them is what a local copy gives.

    Args:
        url: any that fsspec knows.
        cache: where shards are kept.
        retries: of each part that is fetched.
        part_bytes: asked for at a time.

    Raises:
        UserError: there is no store, or it cannot be reached.
    """

    def __init__(
        self, url: str, cache: ShardCache, retries: Retries | None = None, part_bytes: int = PART_BYTES
    ) -> None:
        folder = opened(url)
        self.fetcher = Fetcher(folder, retries, part_bytes)
        content = manifest_text(url, retries)
        super().__init__(url, parse_manifest(content, url))
        self.cache = cache.opened()
        self.connections = int(cache.connections)
        self._counts_name = f"{hashlib.sha256(content).hexdigest()}.counts"
        names = self.manifest.documents
        self.document_names = parsed_names(self.fetcher.read(names), folder.url_of(names.name))
        self.ahead: ReadAhead | None = None
        self._files = {_content(file): file for shard in self.manifest.shards for file in shard.files}
        self._offsets: dict[str, dict[str, int]] = {}  # by sha256, where the tensors of a file begin

    def read_ahead(self, hook_points: Sequence[str]) -> ReadAhead:
        """Lets orders of rows be told, of which these hook points will be read."""
        if self.ahead is None:
            shards = self.manifest.shards
            self.ahead = ReadAhead(
                self.cache,
                lambda shard: [_content(shards[shard].activations[name]) for name in hook_points],
                self._add,
                self.connections,
                self._counts_name,
            )
        return self.ahead

    def refuse_small_cache(self, mixed_shards: int | None, hook_points: Sequence[str]) -> None:
        """Makes sure that the cache holds what is read at a time, and what is read next.

        Args:
            mixed_shards: shards in a group; None for all.
            hook_points: that are read.

        Raises:
            UserError: it does not.
        """
        files = [sum(shard.activations[name].bytes for name in hook_points) for shard in self.manifest.shards]
        files.sort(reverse=True)
        aside = len(_as_file(self._no_counts())) + max(shard.provenance.bytes for shard in self.manifest.shards)
        room = self.cache.size - aside
        needed = sum(files if mixed_shards is None else files[: _GROUPS * mixed_shards])
        if needed <= room:
            return
        mixed = "all shards" if mixed_shards is None else f"twice {mixed_shards} shards"
        fitting = int(np.searchsorted(np.cumsum(files), room, side="right")) // _GROUPS
        lower = f"set data.mixed_shards to at most {fitting}, or raise" if fitting else "raise"
        raise UserError(
            f"data.cache.size {in_words(self.cache.size)} does not hold what is mixed of {self.place} and what comes "
            f"next ({mixed}, {in_words(needed + aside)}): {lower} data.cache.size"
        )

    def document_ranges(self) -> Tensor:
        """As the base; counted once from all shards, whose provenance is fetched for that, and kept in the cache."""
        content = Content(self._counts_name, len(_as_file(self._no_counts())))
        with self._held({content: self._count_documents}) as (handle,), os.fdopen(os.dup(handle), "rb") as file:
            return ranges_of(np.load(file, allow_pickle=False))

    def close(self) -> None:
        """Ends the threads that fetch, and lets go of what is in the cache."""
        self.fetcher.stopping.set()
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None
        self.fetcher.stopping.clear()

    @contextmanager
    def _opened(self, sources: Sequence[str], rows: Tensor) -> Iterator[tuple[Sequence[StoredColumns], Tensor]]:
        numbers = rows.numpy()
        counts = np.diff(np.searchsorted(numbers, self._starts))
        shards = np.flatnonzero(counts)
        # from a row's number in the store to its place among the shards that are open
        shifts = np.cumsum([0, *self.shard_rows[shards]])[:-1] - self._starts[shards]
        places = torch.from_numpy(numbers + np.repeat(shifts, counts[shards]))
        files = [self._file(source, int(shard)) for source in sources for shard in shards]
        with self._held({_content(file): partial(self.fetcher.fetch, file) for file in files}) as handles:
            by_content = dict(zip(dict.fromkeys(file.sha256 for file in files), handles, strict=True))
            yield [self._columns(source, shards, by_content) for source in sources], places

    def _columns(self, source: str, shards: npt.NDArray[np.int64], handles: Mapping[str, int]) -> StoredColumns:
        parts: dict[str, list[FilePart]] = {key: [] for key in self._expected(source, 0)}
        for shard in shards.tolist():
            sha256 = self._file(source, shard).sha256
            for key, offset in self._offsets_of(source, shard).items():
                parts[key].append(FilePart(handles[sha256], offset, int(self.shard_rows[shard])))
        layout = self._expected(source, 0)
        return {key: FileRows(parts[key], dtype, shape[1:]) for key, (dtype, shape) in layout.items()}

    def _offsets_of(self, source: str, shard: int) -> dict[str, int]:
        """To be asked for while the file is held."""
        sha256 = self._file(source, shard).sha256
        if sha256 not in self._offsets:
            self._offsets[sha256] = offsets_in(self.cache.folder / sha256, self._expected(source, shard))
        return self._offsets[sha256]

    @contextmanager
    def _held(self, wanted: Mapping[Content, Callable[[Path], None]]) -> Iterator[list[int]]:
        """Handles of files, fetched if need be, which stay in the cache while the block lasts.

        Nothing is held while something is waited for, so that processes cannot wait for each other.
        """
        needed = sum(content.bytes for content in wanted)
        if needed > self.cache.size:
            raise UserError(
                f"{in_words(needed)} of shards are read at once and data.cache.size is {in_words(self.cache.size)}: "
                "raise it, or lower data.batch_size"
            )
        end = None
        while True:
            with self.cache.opened(wanted.keys()) as handles:
                if handles is not None:
                    yield handles
                    return
            uses = self.ahead.plan.uses if self.ahead is not None else {}
            uses = uses | {content.sha256: _NOW for content in wanted}
            for content, fetch in wanted.items():
                outcome = self.cache.add(content, fetch, uses, _NOW)
                if outcome is Outcome.BUSY:
                    self.cache.wait_for(content)
                elif outcome is Outcome.FULL:
                    end = end or time.monotonic() + _LONGEST_WAIT
                    if time.monotonic() > end:
                        raise UserError(
                            f"the cache {self.cache.folder} is full of files that other processes read: raise "
                            "data.cache.size or set data.cache.folder to one of its own"
                        )
                    time.sleep(_LOOK)
                    break

    def _add(self, content: Content, uses: dict[str, int], soon: int, wanted: Callable[[], bool]) -> Outcome:
        return self.cache.add(content, partial(self.fetcher.fetch, self._files[content]), uses, soon, wanted)

    def _file(self, source: str, shard: int) -> StoredFile:
        return self.manifest.shards[shard].file(source)

    def _count_documents(self, into: Path) -> None:
        """Counts the rows of every document, shard by shard."""

        def counted(number: int) -> npt.NDArray[np.int64]:
            rows = torch.arange(int(self._starts[number]), int(self._starts[number + 1]))
            with self._opened([PROVENANCE], rows) as ([columns], places):
                documents = columns["documents"].gather(places).numpy()
            # documents of a shard stand together: only those between its first and last are counted
            return np.concatenate([documents[:1], np.bincount(documents - documents[0])])

        counts = self._no_counts()
        with ThreadPoolExecutor(self.connections) as pool:
            for first, *rows in pool.map(counted, range(len(self.manifest.shards))):
                counts[first : first + len(rows)] += rows
        into.write_bytes(_as_file(counts))

    def _no_counts(self) -> npt.NDArray[np.int64]:
        return np.zeros(len(self.document_names), dtype=np.int64)


def _content(file: StoredFile) -> Content:
    return Content(file.sha256, file.bytes)


def _as_file(counts: npt.NDArray[np.int64]) -> bytes:
    file = io.BytesIO()
    np.save(file, counts, allow_pickle=False)
    return file.getvalue()
