"""`fit … --preflight`: what a job will take, and whether it fits, without running it."""

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

from estimates import Extraction, Forecast, Limits, Measured, Schedule, Streaming, forecast, refusals
from estimates.checkpoints import Retention
from estimates.machine import Available, disk_of, held_by, memory_available, slurm_seconds
from estimates.refusal import Disk
from estimates.words import as_plain, as_text
from run_store import UserError, atomic_file
from run_store.checkpoints import StoredCheckpoint, in_words
from run_store.retention import RetentionRules

ASKED = "--preflight"
JSON = "--json"
ROOT = Path(__file__).parents[1]
SECONDS_BETWEEN_LOOKS = 0.1


def run(arguments: Sequence[str]) -> int:
    """Tries some steps of a `fit` in a process of its own, foresees the whole of it and prints that.

    Args:
        arguments: the command line of `fit` with --preflight, and --json FILE or --json - where it is wanted as JSON.

    Returns:
        The exit code: 0 if the job fits.

    Raises:
        UserError: the job cannot be done, and why; or it could not be tried.
    """
    arguments, target = _without_ours(arguments)
    available = memory_available()
    found = _calibrated(arguments, available)
    if found is None:  # another rank tells
        return 0
    if "nothing" in found:
        _tell({"fits": True, "nothing": found["nothing"]}, f"nothing would be run: {found['nothing']}", target)
        return 0
    foreseen = _foreseen(found)
    refused = refusals(foreseen, _limits(found, foreseen, available))
    _tell(as_plain(foreseen, refused), f"{found['reason']}\n{as_text(foreseen)}", target)
    if refused:
        raise UserError("; ".join(refused))
    return 0


def _without_ours(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """The command line of `fit`, and where the JSON goes.

    Raises:
        UserError: --json has no value.
    """
    rest, target = [argument for argument in arguments if argument != ASKED], None
    for place, argument in enumerate(rest):
        option, equals, value = argument.partition("=")
        if option == JSON:
            value = value if equals else next(iter(rest[place + 1 :]), "")
            if not value:
                raise UserError("--json needs a file, or - to print it")
            del rest[place : place + (1 if equals else 2)]
            return rest, value
    return rest, target


def _calibrated(arguments: Sequence[str], available: Available | None) -> dict[str, Any] | None:
    """What `cli.calibrating` has found in a process of its own, which leaves nothing behind; None if it is not the one
    that tells.

    Raises:
        UserError: as `fit` would, or memory ran out.
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
    if code == -signal.SIGKILL:
        has = "" if available is None else f", and {available.of} had {in_words(available.bytes)} left"
        raise UserError(
            f"the system ended the trial when it held {in_words(held)} of memory{has}: lower data.batch_size or d_sae, "
            "or give it more memory"
        )
    print(log, file=sys.stderr)
    raise RuntimeError(f"the trial of the job ended with the exit code {code}; what it said stands above")


def _foreseen(found: dict[str, Any]) -> Forecast:
    measured, rehearsal = found["measured"], found["rehearsal"]
    alone, beside = measured.pop("read_alone", 0.0), measured.pop("read_beside", 0.0)
    first = measured.pop("first_batch")
    streaming = None
    if known := rehearsal["streaming"]:
        share = known.pop("train_share")
        ranks = measured["ranks"]
        rows = int(measured["paced"] / ranks)
        if known["pass_rows"] is not None:  # which the ranks share, while each has pools of its own
            known["pass_rows"] /= ranks
        streaming = Streaming(batch_rows=rows, read_alone=alone * share, read_beside=beside * share, **known)
    elif found["schedule"]["mine_every_epochs"] is not None:
        measured["mining"], measured["warm_up"] = first, max(0.0, measured["warm_up"] - first)
    measured["metrics"] = tuple(measured["metrics"])
    kept = found["retention"]
    retention = None if kept is None else Retention(RetentionRules(**kept["rules"]), kept["deletes"])
    extractions = [Extraction(**one) for one in rehearsal["extractions"]]
    present = [
        StoredCheckpoint(Path(f"present-{one['sequence']}"), files={}, **{**one, "time": one["time"] - time.time()})
        for one in found["present"]
    ]
    return forecast(Schedule(**found["schedule"]), Measured(**measured), retention, extractions, streaming, present)


def _limits(found: dict[str, Any], foreseen: Forecast, available: Available | None) -> Limits:
    folders = [found["runs"], *(part.name for part in foreseen.stores)]
    return Limits(
        disks={folder: Disk(*disk_of(folder)) for folder in folders},
        runs=found["runs"],
        memory=None if available is None else available.bytes,
        memory_of="this machine" if available is None else available.of,
        device=found.get("device_total"),
        seconds=slurm_seconds(),
        training_seconds=found["max_time"],
    )


def _tell(plain: dict[str, Any], text: str, target: str | None) -> None:
    if target == "-":
        print(json.dumps(plain, indent=1))
        return
    print(text)
    if target is not None:
        with atomic_file(Path(target)) as temporary:
            temporary.write_text(json.dumps(plain, indent=1), encoding="utf-8")
