"""Copies a run to another place while it trains, on a thread of its own."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from threading import Condition, Thread

from callbacks.backup_target import BackupTarget
from remote_files import shown
from run_store.checkpoints import MANIFEST, StoredCheckpoint, list_checkpoints
from run_store.layout import CHECKPOINTS_NAME, METADATA_NAME
from run_store.record import read_record

RECORD = ("*.json", "*.jsonl", "*.yaml")
"""Which files in a run's folder are its record."""


class Mirror:
    """Copies finished checkpoints, newest first, and the run's record to URL/NAME/spec-…_exec-…/vN.

    Nothing here raises: what goes wrong is tried again with growing pauses, told once, and counted. A checkpoint that
    was there and that retention has removed goes there too, once a newer one stands there whole.

    Args:
        run: the run's folder.
        url: see `BackupTarget`.
        tries: of one round of copies.
        pause: seconds after the first failed try; doubled after each.
    """

    def __init__(self, run: Path, url: str, tries: int = 4, pause: float = 1.0) -> None:
        self.run = run
        self.url = url
        self.tries = tries
        self.pause = pause
        self.failures = 0
        """Rounds that were given up."""
        self.problem = ""
        """Why the last try failed; empty when it did not."""
        self._target: BackupTarget | None = None
        self._copied: dict[str, bytes] = {}
        self._copied_record: dict[str, bytes] = {}
        self._changed = Condition()
        self._wanted = self._closing = False
        # a daemon, so that a copy that hangs does not keep the process alive
        self._thread = Thread(target=self._work, name="backup", daemon=True)

    def offer(self) -> None:
        """There may be something new. Returns at once."""
        with self._changed:
            self._wanted = True
            self._changed.notify()
        if self._thread.ident is None:
            self._thread.start()

    def finish(self, patience: float) -> None:
        """Copies what is left, for so many seconds at most, and says when that was not enough. A second call, after
        Ctrl-C in the first, does nothing.
        """
        if self._closing:
            return
        with self._changed:
            self._closing = True
        self.offer()
        self._thread.join(patience)
        missing = self.missing()
        if not missing:
            return
        why = self.problem or f"{patience:.0f} s were not enough"
        times = f", {self.failures} rounds of copies failed" if self.failures else ""
        _warn(
            f"the backup in {shown(self.url)} lacks {', '.join(missing)} ({why}{times}): copy {self.run} there by hand"
        )

    def missing(self) -> list[str]:
        """Names of what is not there as it is here."""
        lacking = [checkpoint.path.name for checkpoint in self._checkpoints() if not self._is_copied(checkpoint.path)]
        record = [path.name for path in self._record() if self._copied_record.get(path.name) != path.read_bytes()]
        return lacking + record

    def _work(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                self._wanted, is_last = False, self._closing
            self._round()

    def _round(self) -> None:
        for number in range(self.tries):
            try:
                self._copy()
            except Exception as error:  # whatever a file system raises
                self.problem = " ".join(f"{type(error).__name__}: {error}".split())
            else:
                self.problem = ""
                return
            if number + 1 < self.tries:
                time.sleep(self.pause * 2**number)
        self.failures += 1
        if self.failures == 1:
            _warn(f"nothing could be copied to {shown(self.url)} ({self.problem}): the training goes on without")

    def _copy(self) -> None:
        target = self._target = self._target or opened(self.run, self.url)
        checkpoints = self._checkpoints()
        for checkpoint in reversed(checkpoints):
            if not self._is_copied(checkpoint.path):
                self._copy_checkpoint(target, checkpoint.path)
        for path in self._record():
            if (content := path.read_bytes()) != self._copied_record.get(path.name):
                target.put(content, path.name)
                self._copied_record[path.name] = content
        if checkpoints and self._is_copied(checkpoints[-1].path):
            for name in self._copied.keys() - {checkpoint.path.name for checkpoint in checkpoints}:
                target.remove_checkpoint(name)
                del self._copied[name]

    def _copy_checkpoint(self, target: BackupTarget, checkpoint: Path) -> None:
        try:
            self._copied[checkpoint.name] = target.put_checkpoint(checkpoint)
        except Exception:
            if checkpoint.is_dir():
                raise
            target.remove_checkpoint(checkpoint.name)  # retention has taken it meanwhile

    def _is_copied(self, checkpoint: Path) -> bool:
        try:
            return self._copied.get(checkpoint.name) == (checkpoint / MANIFEST).read_bytes()
        except FileNotFoundError:
            return True

    def _checkpoints(self) -> list[StoredCheckpoint]:
        return list_checkpoints(self.run / CHECKPOINTS_NAME)

    def _record(self) -> list[Path]:
        """The record that calls a run complete comes last, when all else is there."""
        found = {path for pattern in RECORD for path in self.run.glob(pattern)}
        return sorted(found, key=lambda path: (path.name == METADATA_NAME, path.name))


def opened(run: Path, url: str) -> BackupTarget:
    """The run's folder at the URL. On another machine another run may have had the same name and number: then it is one
    with the run's id behind.
    """
    inside = "/".join(run.parts[-3:])
    target, own = BackupTarget(url, inside), read_record(run).id
    if (there := target.read(METADATA_NAME)) is None or _id_in(there) in (own, None):
        return target
    return BackupTarget(url, f"{inside}-{own[:8]}")


def _id_in(record: bytes) -> str | None:
    try:
        return str(json.loads(record)["id"])
    except (ValueError, KeyError, TypeError):
        return None


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)
