"""Some steps of a job in a process of its own, of which nothing stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from estimates.machine import Available, held_by
from run_store import UserError
from run_store.checkpoints import in_words

ROOT = Path(__file__).parents[1]
SECONDS_BETWEEN_LOOKS = 0.1
REFUSED = 2


def tried(arguments: Sequence[str], available: Available | None) -> dict[str, Any] | None:
    """What `cli.calibrating` has found; None in a process that is not the first of its launch, which tells.

    Args:
        arguments: the command line of `fit`.
        available: memory that can be had, for the message where there was too little.

    Raises:
        UserError: as `fit` would, or memory ran out.
        RuntimeError: it failed otherwise; what it said has been printed.
    """
    with tempfile.TemporaryDirectory(prefix="fulgurite-preflight-") as name:
        folder = Path(name)
        handlers = {number: signal.signal(number, _stopped) for number in (signal.SIGTERM, signal.SIGHUP)}
        print("trying some steps of the job; nothing of it is kept", file=sys.stderr, flush=True)
        try:
            code, held = _waited_for(_started(folder, arguments))
            ended = time.time()
        finally:
            _sweep(folder)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        log = (folder / "log").read_text(encoding="utf-8", errors="replace")
        _refuse_failed(code, held, log, available)
        result = folder / "result.json"
        if not result.exists():
            return None
        found: dict[str, Any] = json.loads(result.read_bytes())
        if "measured" in found:
            found["measured"]["finish"] = max(0.0, ended - found["train_ended"])
        return found


def _started(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "FULGURITE_STARTED": str(time.time()), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cli.calibrating", str(folder), *arguments]
    with (folder / "log").open("wb") as log:
        # a group of its own, so that Ctrl-C comes here alone, and then ends all of its processes
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=os.setpgrp
        )


def _waited_for(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The exit code, and the most memory that was seen in it."""
    held = 0
    try:
        while process.poll() is None:
            held = max(held, held_by(process.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        # the ranks that it may have started are in its group, too
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, held


def _sweep(folder: Path) -> None:
    note = folder / "scratch"
    if note.exists():
        shutil.rmtree(note.read_text(encoding="utf-8"), ignore_errors=True)


def _stopped(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _refuse_failed(code: int, held: int, log: str, available: Available | None) -> None:
    if code == 0:
        return
    told = [line.removeprefix("error: ") for line in log.splitlines() if line.startswith("error: ")]
    if told:
        raise UserError(told[-1])
    if code == REFUSED:  # another process of the launch says why
        raise SystemExit(code)
    if code == -signal.SIGKILL:
        has = "" if available is None else f", and {available.of} had {in_words(available.bytes)} left"
        raise UserError(
            f"the system ended the trial when it held {in_words(held)} of memory{has}: lower data.batch_size or d_sae, "
            "or give it more memory"
        )
    print(log, file=sys.stderr)
    raise RuntimeError(f"the trial of the job ended with the exit code {code}; what it said stands above")
