"""`runs pause` and `runs resume`."""

from __future__ import annotations

import time

from jsonargparse.typing import NonNegativeInt

from cli.run_verbs.settings import ROOT
from run_store import UserError
from run_store.layout import newest_config
from run_store.listing import status_now
from run_store.locks import is_held
from run_store.pausing import request_pause, withdraw_pause
from run_store.record import read_record
from run_store.registry import find_run

_POLL = 0.1


def pause(run: str, folder: str = ROOT, wait: NonNegativeInt = 600) -> None:
    """Asks a running run to save and stop.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
        wait: Seconds to wait until it has stopped; 0 only asks.
    """
    found = find_run(folder, run)
    if not is_held(found.folder):
        raise UserError(f"no process is working on the run {found.folder}, which is {found.status}: nothing to pause")
    request_pause(found.folder)
    end = time.monotonic() + wait
    while is_held(found.folder) and time.monotonic() < end:
        time.sleep(_POLL)
    if is_held(found.folder):
        print(f"asked {found.folder} to pause; it stops after its step")
        return
    withdraw_pause(found.folder)  # it may have come to its end before it looked
    print(f"{found.folder} is {status_now(read_record(found.folder))}")


def resume(run: str, folder: str = ROOT) -> int:
    """Goes on with a run, with the settings of its last attempt.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
    """
    found = find_run(folder, run)
    config = newest_config(found.folder)
    if config is None:
        raise UserError(
            f"the run {found.folder} has no config.1.yaml: resume it with the config that it was begun with"
        )
    # imported here: the other verbs must not pay for torch
    from cli.lightning_cli import run as fit

    return fit(["fit", "--config", str(config), "--resume", str(found.folder)])
