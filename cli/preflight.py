"""`fit … --preflight`: what a job will take, and whether it fits, without running it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.trial import tried
from estimates import Extraction, Forecast, Limits, Measured, Schedule, Streaming, forecast, refusals
from estimates.checkpoints import Retention
from estimates.machine import Available, disk_of, memory_available, slurm_seconds
from estimates.refusal import Disk
from estimates.words import as_plain, as_text
from remote_files import is_url
from run_store import UserError, atomic_file
from run_store.checkpoints import StoredCheckpoint
from run_store.retention import RetentionRules

ASKED = "--preflight"
JSON = "--json"


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
    found = tried(arguments, available)
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
    # what lies at a URL is on no disk of this machine
    folders = [found["runs"], *(part.name for part in foreseen.stores if not is_url(part.name))]
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
