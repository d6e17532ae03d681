"""Dictionaries that are wider than one device: a strategy whose ranks share the latents, and what a module does for it.

Of data_parallel_size × tensor_parallel_size ranks, those of a group of tensor_parallel_size that follow one another
read the same rows and hold different latents; the groups read different rows and hold the same latents. Lightning's own
strategy makes the two-dimensional mesh and leaves the rest to the module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, distributed
from torch.optim import Optimizer

from lightning_modules.functional import local, placed_like
from lightning_modules.sharded_files import Part
from run_store import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

DATA, LATENTS = "data_parallel", "tensor_parallel"
"""The dimensions of Lightning's mesh."""


@runtime_checkable
class ReadsRows(Protocol):
    """A CheckpointIO that can save and load what is cut by latents."""

    part: Part
    """Whose rows a load reads."""


@runtime_checkable
class SharesLatents(Protocol):
    """A module that does its part for LatentParallel."""

    def check_sharing(self, ranks: int) -> None:
        """Raises:
        UserError: the latents cannot be shared among so many ranks.
        """
        ...


class LatentParallel(ModelParallelStrategy):
    """Ranks that share the latents of a dictionary (tensor_parallel_size), and groups of them that share the rows of a
    batch (data_parallel_size), whose gradients are averaged once an optimiser step. With a tensor_parallel_size of 1 it
    is data parallelism with whole weights, as ddp is.

    Checkpoints go through the Trainer's `AtomicCheckpointIO`, like those of any other strategy, and can be resumed on
    another number of ranks and exported.

    Args:
        data_parallel_size: groups that read different rows; by default one a node.
        tensor_parallel_size: ranks that share the latents; by default all of a node.
        process_group_backend: nccl or gloo; by default what the device wants.
        timeout: how long a rank waits for the others.
    """

    def __init__(
        self,
        data_parallel_size: PositiveInt | Literal["auto"] = "auto",
        tensor_parallel_size: PositiveInt | Literal["auto"] = "auto",
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        super().__init__(data_parallel_size, tensor_parallel_size, True, process_group_backend, timeout)

    def setup_environment(self) -> None:
        """Connects the processes.

        Raises:
            UserError: there are not as many as the sizes say, or the model cannot be shared among them.
        """
        groups = self.num_nodes if self._data_parallel_size == "auto" else int(self._data_parallel_size)
        ranks = self.num_processes if self._tensor_parallel_size == "auto" else int(self._tensor_parallel_size)
        if groups * ranks != self.num_nodes * self.num_processes:
            raise UserError(
                f"trainer.strategy has {groups} groups of {ranks} ranks and trainer.devices and trainer.num_nodes give "
                f"{self.num_nodes * self.num_processes} processes: make data_parallel_size times tensor_parallel_size "
                "their number"
            )
        # before any process waits for another
        if not isinstance(self.lightning_module, SharesLatents):
            raise UserError(
                f"trainer.strategy is LatentParallel and {type(self.lightning_module).__name__} has no latents to "
                "share: set it to ddp"
            )
        self.lightning_module.check_sharing(ranks)
        super().setup_environment()

    # ---- checkpoints: as of any other strategy, not in Lightning's format for this one

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        return Strategy.optimizer_state(self, optimizer)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = [
            state_placed(optimizer, state)
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        Strategy.load_optimizer_state_dict(self, {"optimizer_states": states})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """On every rank, of which each writes its latents.

        Raises:
            UserError: it cannot be saved.
        """
        if self.device_mesh[LATENTS].size() > 1:
            self._io()
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Of what is cut by latents this rank's, whatever number of ranks has saved it.

        Raises:
            UserError: it is missing or damaged, or so many ranks cannot share the latents.
        """
        latents = self.device_mesh[LATENTS]
        self._io().part = Part(latents.get_local_rank(), latents.size())
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def _io(self) -> ReadsRows:
        if not isinstance(self.checkpoint_io, ReadsRows):
            raise UserError("LatentParallel writes checkpoints through AtomicCheckpointIO: give trainer.plugins one")
        return self.checkpoint_io


def latents_mesh(mesh: DeviceMesh | None) -> DeviceMesh | None:
    """Of the ranks that share this one's rows, of Lightning's mesh; None where this one has all latents."""
    return None if mesh is None or mesh[LATENTS].size() == 1 else mesh[LATENTS]


def sharing_batch(mesh: DeviceMesh | None, world_size: int) -> tuple[int, Any]:
    """How many ranks have different rows of a batch and the same latents, and their group; without a mesh all ranks,
    whose group is None.
    """
    return (world_size, None) if mesh is None else (mesh[DATA].size(), mesh[DATA].get_group())


def average_gradients(parameters: Iterable[Tensor], mesh: DeviceMesh | None) -> None:
    """Over the groups that read different rows; without a mesh the strategy does so."""
    if mesh is None or (groups := mesh[DATA].size()) == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = local(parameter.grad)
            distributed.all_reduce(gradient, group=mesh[DATA].get_group())
            gradient.div_(groups)


@torch.no_grad()
def start_alike(parameters: Iterable[Tensor], mesh: DeviceMesh | None) -> None:
    """Gives all groups the weights of the first; without a mesh the strategy does so."""
    if mesh is None or mesh[DATA].size() == 1:
        return
    group = mesh[DATA].get_group()
    first = distributed.get_global_rank(group, 0)
    for parameter in parameters:
        own = local(parameter)
        value = own.to(mesh.device_type)
        distributed.broadcast(value, first, group=group)
        own.copy_(value)


def state_placed(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state, each tensor of a parameter's shape held as the parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    placed = {
        number: {
            name: placed_like(value, parameters[number]) if isinstance(value, Tensor) and value.dim() else value
            for name, value in own.items()
        }
        for number, own in state["state"].items()
    }
    return {**state, "state": placed}
