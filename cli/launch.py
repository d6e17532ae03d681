"""One decision for all processes of a launch."""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

HANDED_DOWN = "FULGURITE_START"
_KEY = "fulgurite/start/{}"
# the deciding process may have checkpoints of many gigabytes to hash
_PATIENCE = timedelta(minutes=30)
_FAREWELL = 300.0

# The server of a launch lives as long as its process: the process group finds it at the same port.
_servers: list[TCPStore] = []

Plan = dict[str, Any]


class DecidedElsewhere(Exception):  # noqa: N818  (the error is told elsewhere)
    """The process that decides for this one has failed, and says so itself."""


@dataclass(frozen=True)
class Place:
    """This process among those that were started together, and where they meet."""

    rank: int
    world_size: int
    address: str
    port: int
    restart: str


def decided_together(decide: Callable[[], Plan]) -> Plan:
    """What the first process of a launch decides, in every one of them.

    Processes that Lightning starts itself find the plan in their environment; those of torchrun and of a cluster's
    manager get it from the first one, through the store at which their process group will meet. No file is left behind
    that a later launch could take for its own.

    Args:
        decide: called in the first process alone; the plan is plain JSON.

    Raises:
        DecidedElsewhere: in all other processes, when `decide` has failed in the first.
    """
    if (plan := _handed_down()) is not None:
        return plan
    place = _place()
    if place is None or place.world_size == 1:
        plan = decide()
        os.environ[HANDED_DOWN] = json.dumps({"pid": os.getpid(), "plan": plan})
        return plan
    return _through_store(decide, place)


@atexit.register
def _leave_group() -> None:
    """Lightning leaves NCCL's groups alone; gloo's threads abort a process now and then that ends among them."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def forget() -> None:
    """Ends the handing down: what this process starts from now on decides for itself."""
    os.environ.pop(HANDED_DOWN, None)


def _handed_down() -> Plan | None:
    text = os.environ.get(HANDED_DOWN)
    if text is None or "LOCAL_RANK" not in os.environ:
        return None
    content = json.loads(text)
    # a process of another launch may have inherited the variable
    return content["plan"] if content["pid"] == os.getppid() else None


def _place() -> Place | None:
    """None in a process that has been started alone; it may still start others."""
    for kind in (TorchElasticEnvironment, LSFEnvironment, SLURMEnvironment):
        if kind.detect():
            there = kind()
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT") or os.environ.get("SLURM_RESTART_COUNT") or "0"
            return Place(there.global_rank(), there.world_size(), there.main_address, there.main_port, restart)
    return None


def _through_store(decide: Callable[[], Plan], place: Place) -> Plan:
    # torchrun's agent has a server at this port already
    is_server = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    # shared with the process group, which opens it once more
    store = TCPStore(
        place.address,
        place.port,
        place.world_size,
        is_server,
        timeout=_PATIENCE,
        wait_for_workers=False,
        multi_tenant=True,
    )
    _servers.append(store)
    key = _KEY.format(place.restart)
    if place.rank:
        content = json.loads(store.get(key))
        store.add(f"{key}/read", 1)
        if content is None:
            raise DecidedElsewhere
        return dict(content)
    plan: Plan | None = None
    try:
        plan = decide()
    finally:
        store.set(key, json.dumps(plan))
        if plan is None or "skip" in plan:
            _wait_for_readers(store, key, place.world_size - 1)
    return plan


def _wait_for_readers(store: TCPStore, key: str, readers: int) -> None:
    """The server ends with this process, and the others may not have come to it yet."""
    end = time.monotonic() + _FAREWELL
    while store.add(f"{key}/read", 0) < readers and time.monotonic() < end:
        time.sleep(0.05)
