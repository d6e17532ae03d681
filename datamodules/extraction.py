"""From text to a store, by one process or several, through any number of interruptions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from types import TracebackType

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tqdm.auto import tqdm

from backbones import CapturedRows, RowExtractor
from datamodules.processes import ALONE, Processes
from datamodules.shards import SHARD_BYTES, Manifest, Rank, is_store, read_manifest
from datamodules.shards.format import DOCUMENTS_NAME, MANIFEST_NAME, HookPoint, Shard, StoredFile, manifest_json
from datamodules.shards.journal import (
    Completion,
    Journal,
    Mark,
    is_journal,
    journal_name,
    journal_text,
    parse_journal,
)
from datamodules.shards.shard_writer import ShardWriter
from datamodules.shards.writer import refuse_finished
from datamodules.shards.writing import OWNER_NAME, writing_place
from datamodules.source import FINGERPRINT, describe_settings, refuse_other_settings, refuse_other_store
from datamodules.text_contexts import TextContexts
from run_store import UserError, json_text

_PROVENANCE_BYTES = 12


class Extraction:
    """A store in the making, which takes rows window by window and goes on where a killed one stopped.

    After every shard a journal is written that says how far into the text the shards reach. Opening the folder again
    with the same settings checks the finished shards, drops what the kill has left beside them, and asks for the text
    from `next_window` on. The same window gives the same bits, so the store ends byte for byte as if nothing had
    happened. Leaving the `with` block without `finish` keeps all whole shards.

    Several processes each write the shards of a contiguous share of the windows; rank 0 makes one manifest of their
    journals. Their number is among the settings: it decides where shards are cut.

    Args:
        extractor: what the rows are read with.
        text: what the windows come from; the instance whose `windows` is iterated.
        folder: of the store, or any URL that fsspec can write to.
        shard_bytes: upper bound of one hook point's data in a shard.
        processes: those that write the store together.

    Raises:
        UserError: the processes do not share the folder, it cannot be reached, or it holds a store, an unfinished one
            of other settings, or other files, or another program writes there.
    """

    def __init__(
        self,
        extractor: RowExtractor,
        text: TextContexts,
        folder: str | os.PathLike[str],
        shard_bytes: int = SHARD_BYTES,
        processes: Processes = ALONE,
    ) -> None:
        self._folder = folder
        self.place = writing_place(folder)
        self._extractor, self._text, self._processes = extractor, text, processes
        self._settings = describe_settings(extractor, text)
        self._extra = {"shard_bytes": int(shard_bytes), "processes": processes.count}
        self._hook_points = {name: HookPoint(d, extractor.store_dtype) for name, d in extractor.shapes().items()}
        self._name = journal_name(processes.rank, processes.count)
        try:
            self._claim_together()
            self._journal = self._read_journal()
            self.first_window, self.stop_window = self._share()
            self._warn_of_a_small_disk()
            part = f"{processes.rank + 1}of{processes.count}-" if processes.count > 1 else ""
            self._writer = ShardWriter(
                self.place.workshop, self._hook_points, shard_bytes, part, self._journal.shards, self._record
            )
        except BaseException:
            self.place.release()
            raise
        self._is_open = True
        self._expected = self.next_window
        self._window = (self._expected, 0, 0)  # number, the writer's row at which it begins, rows
        self._counted = asdict(extractor.counts)
        self._counts = dict(self._journal.marks[-1].counts) if self._journal.marks else dict.fromkeys(self._counted, 0)
        self._appended = False
        self._incomplete = [journal_name(rank, processes.count) for rank in range(processes.count)]

    @property
    def next_window(self) -> int:
        """The first window whose rows are not all on disk."""
        if self._journal.completion and self.stop_window is not None:
            return self.stop_window
        return self._journal.marks[-1].next_window if self._journal.marks else self.first_window

    def append(self, window: int, rows: CapturedRows) -> None:
        """Takes all rows of a window; those that are on disk already, or were taken before, are passed over.

        Args:
            window: its number; windows come in ascending order without gaps, from `next_window` on or earlier.
            rows: from `RowExtractor.read_window`.

        Raises:
            UserError: a value is NaN or infinite, the disk is full, or the text is not what it was before a kill.
        """
        if window < self._expected:
            return
        if window > self._expected:
            raise ValueError(f"window {window} was given where window {self._expected} is next")
        stored = self._stored_rows(window)
        if not self._appended:
            self._refuse_changed_text()
        self._appended = True
        self._window = (window, self._writer.rows - stored, len(rows.tokens))
        rest = {name: values[stored:] for name, values in rows.activations.items()}
        self._writer.append(rest, rows.tokens[stored:], rows.documents[stored:], rows.positions[stored:])
        self._expected, self._counts = window + 1, self._counts_now()

    def finish(self) -> Manifest:
        """Writes the last shard and, once all processes are through, the manifest.

        Raises:
            UserError: there are no rows, the disk is full, or the text is not what it was before a kill.
        """
        if self._journal.completion is None:
            self._complete()
        every = self.place.seconds_between_looks
        if self._processes.rank == 0:
            self._processes.wait_for(self._all_complete, every)
            manifest = self._merge()
        else:
            self._processes.wait_for(lambda: self.place.read(MANIFEST_NAME) is not None, every)
            manifest = read_manifest(self._folder)
        self.close()
        return manifest

    def close(self) -> None:
        """Lets others write there. Whole shards stay."""
        if self._is_open:
            self._is_open = False
            with suppress(UserError):  # what could not be kept is made again
                self.place.settle()
            self._writer.remove_unfinished()
            self.place.release()

    def __enter__(self) -> Extraction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _claim_together(self) -> None:
        self._word = ""
        self._processes.first(self._claim)
        word, problem = self._processes.broadcast(self._word), None
        if self._processes.rank:
            try:
                self.place.join(word)
            except UserError as error:
                problem = str(error)
        # all or none: who waits for one that is gone waits for ever
        if problem := next(filter(None, self._processes.gather(problem)), None):
            raise UserError(problem)

    def _claim(self) -> None:
        self.place.claim()
        journals = [name for name in self.place.names() if is_journal(name)]
        if is_store(self._folder):
            for name in journals:  # of an extraction that was killed when all was done
                self.place.remove(name)
            refuse_other_store(self._folder, self._extractor, self._text)
            refuse_finished(self._folder)
        keep = set(journals)
        for name in journals:
            journal = self._journal_of(name)
            refuse_other_settings(self.place.name, journal.settings, {**self._settings, **self._extra})
            keep |= {file.name for file in journal.files}
        self.place.sweep(keep)
        if self._processes.count > 1:
            self._word = self.place.share()

    def _journal_of(self, name: str, hook_points: Collection[str] | None = None) -> Journal:
        text = self.place.read(name)
        return parse_journal(b"" if text is None else text, f"{self.place.name}/{name}", hook_points)

    def _write_journal(self, journal: Journal) -> None:
        self.place.write(self._name, journal_text(journal))

    def _read_journal(self) -> Journal:
        """This process's journal, as far as its files are sound; what lies beyond is removed."""
        if self.place.read(self._name) is None:
            return Journal({**self._settings, **self._extra})
        journal = self._journal_of(self._name, self._hook_points)
        sound = journal.sound(self.place.is_sound)
        if sound is not journal:
            rank_zero_warn(
                f"files of shard {len(sound.marks)} or a later one of {self.place.name} are missing or damaged: they "
                "are made again"
            )
            self._write_journal(sound)
            for file in set(journal.files) - set(sound.files):
                self.place.remove(file.name)
        if sound.marks:
            rows = sum(shard.rows for shard in sound.shards)
            rank_zero_info(f"Going on with the activation store {self.place.name}: {rows:,} rows are on disk.")
        return sound

    def _share(self) -> tuple[int, int | None]:
        if self._processes.count == 1:
            return 0, None  # to the end of the text, so that nobody need count its windows
        return Rank(self._processes.rank, self._processes.count).share(0, self._text.count_windows())

    def _warn_of_a_small_disk(self) -> None:
        tokens = self._text.total_tokens
        if tokens is None and self._processes.count > 1:
            tokens = self._text.count_windows() * self._text.contexts_a_window * self._text.context_length
        if tokens is None or self._processes.rank:
            return
        free = self.place.free_bytes()
        if free is None:
            return
        needed = tokens * (_PROVENANCE_BYTES + sum(point.row_bytes for point in self._hook_points.values()))
        there = sum(path.stat().st_size for path in self.place.workshop.iterdir() if path.is_file())
        if needed - there > free:
            rank_zero_warn(
                f"the activation store {self.place.name} needs up to {(needed - there) / 1e9:.2f} GB more and its disk "
                f"has {free / 1e9:.2f} GB free: free some space there, lower max_tokens or choose another folder"
            )

    def _stored_rows(self, window: int) -> int:
        """How many of a window's rows are on disk before any of it was appended."""
        if self._appended or not self._journal.marks:
            return 0
        mark = self._journal.marks[-1]
        return mark.rows if mark.window == window else 0

    def _refuse_changed_text(self) -> None:
        for mark in self._journal.marks[-1:]:
            try:
                same = self._text.fingerprint(mark.window) == mark.text
            except IndexError:
                same = False  # it has become shorter
            if not same:
                raise UserError(
                    f"the text has changed since the extraction into {self.place.name} was interrupted: put it back as "
                    "it was, or delete the folder and start from the beginning"
                )

    def _counts_now(self) -> dict[str, int]:
        """What the filters did from the first window on, before a kill too."""
        now = asdict(self._extractor.counts)
        counts = {name: self._counts.get(name, 0) + value - self._counted[name] for name, value in now.items()}
        self._counted = now
        return counts

    def _record(self, shard: Shard) -> None:
        window, start, rows = self._window
        stored = self._writer.rows_on_disk - start
        counts, whole = self._counts, stored == rows
        if whole and self._expected == window:  # the window is being appended
            counts = self._counts = self._counts_now()
        mark = Mark(shard, window, stored, whole, self._text.fingerprint(window), counts)
        self._journal = replace(self._journal, marks=(*self._journal.marks, mark))
        self.place.keep(shard.files, partial(self._write_journal, self._journal))

    def _complete(self) -> None:
        last = self._processes.rank == self._processes.count - 1
        if not self._appended:
            if last:
                for _ in self._text.windows(start=self._expected):
                    raise ValueError(f"window {self._expected} and later ones are missing")
            if last:
                self._refuse_changed_text()
        self._writer.flush()
        self.place.settle()
        documents = self._write_names() if last else None
        fingerprint = self._text.fingerprint() if last else ""
        completion = Completion(documents, fingerprint, self._counts, asdict(self._text.counts) if last else {})
        self._journal = replace(self._journal, completion=completion)
        self._write_journal(self._journal)

    def _write_names(self) -> StoredFile:
        names = self._text.document_names()
        if self._writer.last_document >= len(names):
            raise ValueError(f"document number {self._writer.last_document} has no name among {len(names)}")
        content = json_text(names).encode()
        self.place.write(DOCUMENTS_NAME, content)
        return StoredFile(DOCUMENTS_NAME, len(content), hashlib.sha256(content).hexdigest())

    def _all_complete(self) -> bool:
        # each is looked at until it is complete, and then no more
        while self._incomplete:
            name = self._incomplete[0]
            if self.place.read(name) is None or self._journal_of(name).completion is None:
                return False
            self._incomplete.pop(0)
        return True

    def _merge(self) -> Manifest:
        names = [journal_name(rank, self._processes.count) for rank in range(self._processes.count)]
        journals = [self._journal_of(name, self._hook_points) for name in names]
        shards = tuple(shard for journal in journals for shard in journal.shards)
        completions = [journal.completion for journal in journals if journal.completion is not None]
        documents = completions[-1].documents
        if not shards or documents is None:
            for name in [*names, DOCUMENTS_NAME, OWNER_NAME]:
                self.place.remove(name)
            raise UserError(f"no activations to store in {self.place.name}: the text gave no rows after filtering")
        source = {**self._settings, FINGERPRINT: completions[-1].fingerprint}
        manifest = Manifest(source, self._hook_points, shards, documents)
        self.place.write(MANIFEST_NAME, json_text(manifest_json(manifest)).encode())
        for name in [*names, OWNER_NAME]:
            self.place.remove(name)
        rank_zero_info(f"Extracted the activation store {self.place.name}: {_told(manifest.rows, completions)}.")
        return manifest


def extract_to_store(
    extractor: RowExtractor, text: TextContexts, folder: str | os.PathLike[str], shard_bytes: int = SHARD_BYTES
) -> Manifest:
    """Runs the whole text through the model into a store, with a progress bar that counts tokens.

    Args:
        extractor: the model, its hook points and filters.
        text: the contexts to read.
        folder: of the store, or a URL; it must not exist yet, or is an unfinished one of the same settings.
        shard_bytes: upper bound of one hook point's data in a shard.

    Raises:
        UserError: the model or the text cannot be read, an activation is not finite, the folder cannot take the store,
            or the disk is full. Then there is no store, and a later call goes on from the last whole shard.
    """
    with Extraction(extractor, text, folder, shard_bytes) as extraction:
        first = extraction.next_window
        skipped = first * text.contexts_a_window * text.context_length if text.packed else 0
        with tqdm(
            total=text.total_tokens, initial=skipped, unit=" tokens", unit_scale=True, desc="Extracting activations"
        ) as bar:
            for window in text.windows(first):
                extraction.append(window.number, extractor.read_window(window, bar.update))
        return extraction.finish()


def _told(rows: int, completions: list[Completion]) -> str:
    """Rows and what was left out, for a person."""
    left_out = {
        name: number
        for name in completions[0].counts
        if name != "kept" and (number := sum(completion.counts[name] for completion in completions))
    }
    parts = [f"{rows:,} rows", _listed("left out", left_out), _listed("of the text", completions[-1].lost)]
    return "; ".join(filter(None, parts))


def _listed(heading: str, numbers: Mapping[str, int]) -> str:
    said = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items() if number)
    return f"{heading}: {said}" if said else ""
