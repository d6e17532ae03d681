"""Dead latents, started anew (Bricken et al. 2023, "Towards Monosemanticity", appendix on neuron resampling)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from datamodules.shards import ActivationBatch
from lightning_modules.functional import held_of, local
from lightning_modules.schedules import steps_of
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from lightning_modules.trainee import Trainee
from run_store import UserError

ROWS_AT_ONCE = 512
"""That are looked at, whatever the number of ranks: how many rows are multiplied together may change the last bit of a
loss, and that a draw."""


class DeadNeuronResampling(Callback):
    """At chosen optimiser steps, starts every latent anew that counts as dead.

    Each gets a row of its own among those that are reconstructed badly, drawn with p ∝ loss², where a row's loss is its
    squared error ‖y − ŷ‖². The latent is pointed at it (`Autoencoder.revive`), the optimiser's moments of its weights
    become 0, and it has a whole window (`model.dead_after_tokens`) before it can count as dead again. Nothing else
    changes, and where nothing is dead nothing is done.

    The rows are a fixed sample of the training split and the draw is a function of `seed` and the step, so a resumed
    run does the same, and so does any number of ranks, and each member of a sweep whatever the others are. What a run
    logs as `train/resampled` is how many were started anew. A `model.non_finite` of roll_back that goes back to weights
    from before takes the dead latents back with them, until the next of the chosen steps.

    Args:
        at: when; below 1 a share of the run, else an optimiser step. Latents need the steps after the last of them to
            learn in, so none should lie where the learning rate decays. Two that are closer than the window of dead
            latents find nothing that the first has revived.
        rows: rows of the sample; at least as many as there are latents are worth having.
        seed: decides the draw.
    """

    def __init__(
        self,
        at: tuple[PositiveFloat, ...] = (0.2, 0.35, 0.5, 0.65),
        rows: PositiveInt = 65536,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.at = at
        self.rows = rows
        self.seed = seed
        self._steps: frozenset[int] = frozenset()
        self._step_before_batch = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolves the steps.

        Raises:
            UserError: one lies behind the end of the run.
        """
        run_length = int(trainer.estimated_stepping_batches)
        for when in self.at:
            if when >= run_length:
                raise UserError(
                    f"callback DeadNeuronResampling has {when:g} in at, and the run has {run_length} optimiser steps: "
                    "name steps before its end, or shares of it below 1"
                )
        self._steps = frozenset(max(1, steps_of(when, run_length)) for when in self.at)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._step_before_batch = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """After a chosen step; the batches that are accumulated for the next one find it already made."""
        if trainer.global_step in self._steps and trainer.global_step > self._step_before_batch:
            for prefix, member in pl_module.members.prefixed():
                dead = member.dead_latents()
                if dead is not None:
                    revived = self._resample(trainer, pl_module, member, dead)
                    self._tell(trainer, prefix, revived, len(dead))

    @torch.no_grad()
    def _resample(self, trainer: Trainer, module: SparseAutoencoding, member: Trainee, dead: Tensor) -> int:
        """Returns how many were started anew."""
        sample = module.data.sample(self.rows)
        losses = torch.cat([error.square().sum(dim=1) for _, error in _misses(trainer, module, member, sample)])
        generator = torch.Generator().manual_seed(self.seed * 2**32 + trainer.global_step)
        # the last bit of a loss, which may depend on the machine, can decide a draw; so rank 0 decides it for all
        drawn = trainer.strategy.broadcast(draw(losses, len(dead), generator))
        latents = dead[: len(drawn)]
        if len(latents):
            chosen = ActivationBatch(tuple(part[drawn] for part in sample.activations), sample.rows[drawn])
            x, error = (torch.cat(parts) for parts in zip(*_misses(trainer, module, member, chosen), strict=True))
            member.autoencoder.revive(latents, x, error)
            for optimizer in trainer.optimizers:
                forget(optimizer, member.autoencoder.latent_parameters().values(), latents)
            member.tokens_since_fired[latents] = 0
        return len(latents)

    @staticmethod
    def _tell(trainer: Trainer, prefix: str, revived: int, dead: int) -> None:
        for logger in trainer.loggers:
            # Lightning files what it logs of a step under the number of steps before it
            logger.log_metrics({f"{prefix}train/resampled": float(revived)}, trainer.global_step - 1)
        if trainer.is_global_zero:
            left = "" if revived == dead else f" of {dead}; the sample has no row that is reconstructed badly for more"
            whose = f" of {member}" if (member := prefix.removesuffix("/")) else ""
            print(f"step {trainer.global_step:,}: {revived} dead latents{whose} started anew{left}", flush=True)


def _misses(
    trainer: Trainer, module: SparseAutoencoding, member: Trainee, batch: ActivationBatch
) -> Iterator[tuple[Tensor, Tensor]]:
    """x and y − ŷ of a batch, as many rows at a time as a training step has, as an evaluation would compute them."""
    autoencoder, precision = member.autoencoder, trainer.precision_plugin
    was_training = autoencoder.training
    # no state may move, and ranks that select over a common batch must not wait for one another here
    autoencoder.eval()
    size = min(ROWS_AT_ONCE, module.data.batch_size, member.memory.rows_at_once or ROWS_AT_ONCE)
    try:
        for parts in zip(*(torch.split(part, size) for part in member.seen(batch.activations)), strict=True):
            with precision.forward_context():
                pair = member.pair(precision.convert_input([part.to(module.device) for part in parts]))
                reconstruction = autoencoder(pair.x)[1]
            yield pair.x, pair.y - reconstruction
    finally:
        autoencoder.train(was_training)


def draw(losses: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of distinct rows on the CPU, row r with p ∝ losses[r]²: `count` of them, or as many as have a loss.

    Args:
        losses: [rows] ≥ 0; those that are not finite are not drawn.
        count: how many to draw.
        generator: on the CPU.
    """
    weights = losses.double().cpu().nan_to_num(0, posinf=0)
    weights = (weights / weights.max().clamp_min(torch.finfo(torch.float64).tiny)).square()
    count = min(count, int((weights > 0).sum()))
    return torch.multinomial(weights, count, generator=generator) if count else torch.empty(0, dtype=torch.int64)


def forget(optimizer: Optimizer, parameters: Iterable[Tensor], latents: Tensor) -> None:
    """Sets what an optimiser remembers of some latents to 0: their rows in every tensor of its state that has one row a
    latent.
    """
    for parameter in parameters:
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.dim() and len(value) == len(parameter):
                local(value)[held_of(latents, value).rows] = 0
