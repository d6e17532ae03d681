"""Where a process stands among those that were started together, by torchrun, a cluster's manager or by hand."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from run_store import UserError

STARTERS = {TorchElasticEnvironment: "torchrun", LSFEnvironment: "jsrun", SLURMEnvironment: "srun"}
ALL_THERE_ARE = (None, "auto", -1, "-1")


@dataclass(frozen=True)
class Place:
    """This process among those that decide together, and where they meet.

    Attributes:
        rank, world_size: of the processes; of the nodes where Lightning starts the other processes of each.
        address, port: of the first one.
        restart: how often they have been started again.
        starter: the program that has started all of them; None where a person starts one a node.
        per_node: how many a node; None where the starter does not say.
    """

    rank: int
    world_size: int
    address: str
    port: int
    restart: str = "0"
    starter: str | None = None
    per_node: int | None = None

    @property
    def nodes(self) -> int:
        """How many machines there are, as far as is known."""
        if self.starter is None:
            return self.world_size
        return max(1, self.world_size // self.per_node) if self.per_node else 1


def place_of(trainer: MutableMapping[str, Any]) -> Place | None:
    """The place of this process; None in one that has been started alone, or by Lightning. It may still start others.

    Args:
        trainer: settings of the Trainer. Numbers of devices and nodes that are left to be found out are filled in.

    Raises:
        UserError: they contradict what has been started.
    """
    for kind, starter in STARTERS.items():
        if kind.detect():
            there = kind()
            environment = os.environ
            restart = environment.get("TORCHELASTIC_RESTART_COUNT") or environment.get("SLURM_RESTART_COUNT") or "0"
            per_node = environment.get("LOCAL_WORLD_SIZE" if starter == "torchrun" else "SLURM_NTASKS_PER_NODE")
            place = Place(
                there.global_rank(),
                there.world_size(),
                there.main_address,
                there.main_port,
                restart,
                starter,
                int(per_node) if per_node and per_node.isdigit() else None,
            )
            _settle(trainer, place)
            return place
    return _place_of_a_node(trainer)


def is_second_on_its_machine() -> bool:
    """Whether a starter has started another process on this machine before this one."""
    return (os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0") != "0"


def _settle(trainer: MutableMapping[str, Any], place: Place) -> None:
    if place.per_node is None:
        return
    if trainer.get("devices") in ALL_THERE_ARE:
        trainer["devices"] = place.per_node
    if trainer.get("num_nodes") in (None, 1):
        trainer["num_nodes"] = place.nodes
    for name, asked, started in (
        ("devices", _count(trainer["devices"]), place.per_node),
        ("num_nodes", trainer["num_nodes"], place.nodes),
    ):
        if asked != started:
            what = "processes a node" if name == "devices" else "nodes"
            raise UserError(
                f"trainer.{name} is {asked}, and {place.starter} has started {started} {what}: set --trainer.{name} "
                f"{started}, or start {asked}"
            )


def _count(devices: Any) -> int:
    """How many devices a setting names: 2, "2", "0,1" and [0, 1] are two."""
    if isinstance(devices, str):
        devices = [part for part in devices.split(",") if part.strip()] if "," in devices else int(devices)
    return len(devices) if isinstance(devices, list | tuple) else int(devices)


def _place_of_a_node(trainer: MutableMapping[str, Any]) -> Place | None:
    nodes = int(trainer.get("num_nodes") or 1)
    if nodes == 1 or "LOCAL_RANK" in os.environ:
        return None
    missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(
            f"trainer.num_nodes is {nodes}, and {missing[0]} is not set: start one process a node with NODE_RANK (0 to "
            f"{nodes - 1}), MASTER_ADDR and MASTER_PORT (of node 0), or use torchrun or srun"
        )
    rank, port = os.environ["NODE_RANK"], os.environ["MASTER_PORT"]
    if not (rank.isdigit() and int(rank) < nodes):
        raise UserError(f"NODE_RANK is {rank}, and trainer.num_nodes is {nodes}: it goes from 0 to {nodes - 1}")
    if not port.isdigit():
        raise UserError(f"MASTER_PORT is {port}: it must be a number")
    return Place(int(rank), nodes, os.environ["MASTER_ADDR"], int(port))
