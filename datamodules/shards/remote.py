"""Reading an activation store at a URL, through a cache of bounded size."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from datamodules.shards.cache import Content, FileCache, Outcome, Pin
from datamodules.shards.fetching import PART_BYTES, Fetcher
from datamodules.shards.files import opened
from datamodules.shards.format import MANIFEST_NAME, StoredFile, parse_manifest
from datamodules.shards.mapped_rows import MappedRows
from datamodules.shards.mapping import map_tensors
from datamodules.shards.read_ahead import ReadAhead
from datamodules.shards.row_store import PROVENANCE, RowStore, joined, parsed_names, ranges_of
from remote_files import Retries
from run_store import UserError
from run_store.checkpoints import in_words
from run_store.retention import parse_size

_GROUPS = 2
"""That a cache must hold: the one that is read, and the one after it."""
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


class _View(NamedTuple):
    """Some shards of a hook point, or of the provenance, as they lie in the cache."""

    shards: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    """The row at which each begins among them."""
    columns: dict[str, MappedRows]


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
        content = (retries or Retries())(lambda: folder.read(MANIFEST_NAME), folder.url_of(MANIFEST_NAME))
        if content is None:
            raise UserError(f"there is no {MANIFEST_NAME} in the store {folder.url}: check data.store")
        super().__init__(url, parse_manifest(content, url))
        self.cache = cache.opened()
        self.connections = int(cache.connections)
        self._counts_name = f"{hashlib.sha256(content).hexdigest()}.counts"
        names = self.manifest.documents
        self.document_names = parsed_names(self.fetcher.read(names), folder.url_of(names.name))
        self.ahead: ReadAhead | None = None
        self._files = {_content(file): file for shard in self.manifest.shards for file in shard.files}
        self._pins: dict[str, Pin] = {}
        self._views: dict[str, _View] = {}

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
        pin = self._pinned(content, self._count_documents)
        try:
            counts = np.load(pin.path, allow_pickle=False)
        finally:
            pin.close()
        return ranges_of(counts)

    def close(self) -> None:
        """Ends the threads that fetch, and lets go of what is in the cache."""
        self.fetcher.stopping.set()
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None
        self._keep(frozenset())
        self.fetcher.stopping.clear()

    def _mapped(self, source: str, rows: Tensor) -> tuple[Mapping[str, MappedRows], Tensor]:
        numbers = rows.numpy()
        counts = np.diff(np.searchsorted(numbers, self._starts))
        shards = np.flatnonzero(counts)
        if not len(shards):
            shards, counts = np.zeros(1, dtype=np.int64), np.zeros(self.shard_rows.shape, dtype=np.int64)
        view = self._views.get(source)
        if view is None or not np.isin(shards, view.shards).all():
            view = self._views[source] = self._open(source, shards)
        here = np.searchsorted(view.shards, shards)
        shifts = np.repeat(view.firsts[here] - self._starts[shards], counts[shards])
        return view.columns, torch.from_numpy(numbers + shifts)

    def _open(self, source: str, shards: npt.NDArray[np.int64]) -> _View:
        """Maps shards, beside those that are mapped and still of use."""
        now = self.ahead.plan.now if self.ahead is not None else frozenset[str]()
        before = self._views.pop(source, None)
        if before is not None:
            useful = [shard for shard in before.shards if self._file(source, int(shard)).sha256 in now]
            shards = np.union1d(shards, np.array(useful, dtype=np.int64))
            del before  # and with it the maps of those that are let go
        files = [self._file(source, int(shard)) for shard in shards]
        self._keep(now | {file.sha256 for file in files})
        parts = []
        for shard, file in zip(shards, files, strict=True):
            if file.sha256 not in self._pins:
                self._pins[file.sha256] = self._pinned(_content(file), partial(self.fetcher.fetch, file))
            parts.append(map_tensors(self._pins[file.sha256].path, self._expected(source, int(shard))))
        firsts = np.cumsum([0, *self.shard_rows[shards]])[:-1]
        return _View(shards, firsts, joined(parts))

    def _keep(self, needed: frozenset[str]) -> None:
        """Lets go of all files but some."""
        for source, view in list(self._views.items()):
            if any(self._file(source, int(shard)).sha256 not in needed for shard in view.shards):
                del self._views[source]
        for sha256 in self._pins.keys() - needed:
            self._pins.pop(sha256).close()

    def _pinned(self, content: Content, fetch: Callable[[Path], None]) -> Pin:
        """A file that stays until it is let go, fetched if need be."""
        waited = 0.0
        while True:
            pin = self.cache.pin(content)
            if pin is not None:
                return pin
            uses = self.ahead.plan.uses if self.ahead is not None else {}
            outcome = self.cache.add(content, fetch, uses)
            if outcome is Outcome.BUSY:
                self.cache.wait_for(content)
            elif outcome is Outcome.FULL:
                if waited >= _LONGEST_WAIT:
                    raise UserError(
                        f"the cache {self.cache.folder} is full of files that other processes read: raise "
                        "data.cache.size or set data.cache.folder to one of its own"
                    )
                time.sleep(_LOOK)
                waited += _LOOK

    def _add(self, content: Content, uses: dict[str, int], soon: int) -> Outcome:
        return self.cache.add(content, partial(self.fetcher.fetch, self._files[content]), uses, soon)

    def _file(self, source: str, shard: int) -> StoredFile:
        return self.manifest.shards[shard].file(source)

    def _count_documents(self, into: Path) -> None:
        """Counts the rows of every document, shard by shard."""

        def counted(number: int) -> npt.NDArray[np.int64]:
            file = self._file(PROVENANCE, number)
            pin = self._pinned(_content(file), partial(self.fetcher.fetch, file))
            try:
                documents = map_tensors(pin.path, self._expected(PROVENANCE, number))["documents"].numpy()
                # documents of a shard stand together: only those between its first and last are counted
                first = int(documents[0])
                return np.concatenate([[first], np.bincount(documents - first)])
            finally:
                pin.close()

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
