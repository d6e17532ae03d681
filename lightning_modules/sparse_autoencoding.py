"""Trains any autoencoder on activations, or several on the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, distributed
from torch.optim import Optimizer

from datamodules.shards import ActivationBatch
from lightning_modules.activation_source import ActivationSource
from lightning_modules.autoencoders import Autoencoder, DatasetScale, Normalization
from lightning_modules.folder_checkpoints import LoadsFolders
from lightning_modules.functional import Codes
from lightning_modules.hyperparameters import keep_plain
from lightning_modules.latent_predictions import LatentPredictor
from lightning_modules.members import Figures, Member, mean_over_ranks, telling, under_names
from lightning_modules.memory_guard import Step, memory_told
from lightning_modules.non_finite import (
    NonFiniteWatch,
    Place,
    Policy,
    bad_rows,
    stored_badly,
    with_bad_gradient_if_bad,
)
from lightning_modules.optimizer_settings import check_optimizer, clip_gradients, refuse_beside_a_scaler, scheduled
from lightning_modules.predictions import AnswerSettings, Sample
from lightning_modules.schedules import WarmupDecay
from lightning_modules.sharding import average_gradients, latents_mesh, sharing_batch, start_alike
from lightning_modules.sides import agreed_shapes
from lightning_modules.sweep import Members
from lightning_modules.trainee import Trainee
from run_store import UserError

DEAD_AFTER_TOKENS = 10_000_000
DEAD_AFTER_SHARE_OF_RUN = 1 / 8
LOOK_BESIDE_A_SCALER_EVERY_N_STEPS = 50


class SparseAutoencoding(LoadsFolders):
    """LightningModule around an autoencoder, or around several that read the same batches: loss, schedules,
    dead-latent counters and metrics.

    Weights are built in `configure_model` for the width that the datamodule reports. Normalisation, b_dec and the mean
    that FVU is measured against are estimated once, on a fixed sample of the training split, before the first step;
    they are buffers and parameters, so a resumed run does not look again.

    The members of a sweep share each batch, as it is read, moved and normalised once, the optimiser, its schedule and
    one backward. All else each has for itself: weights, learning rate, clipping, dead latents, what is done about
    memory that runs out and about steps that are not finite; so each becomes what it would become alone. Its metrics
    stand under NAME/train/… and NAME/val/…, and under train/… and val/… the means over the members.

    Args:
        autoencoder: the variant with its settings; of a sweep, of the members that name none.
        optimizer: makes the optimiser from the parameters.
        lr_scheduler: makes the schedule from the optimiser; it is stepped once an optimiser step.
        normalization: how activations are scaled first; `DatasetScale` by default.
        sparsity_warmup: sparsity coefficients rise linearly from 0 over this share of the run (below 1) or number of
            optimiser steps.
        dead_after_tokens: a latent that has not fired for this many tokens counts as dead; by default 10 million or an
            eighth of the run, whichever is less.
        center: what b_dec starts from.
        sample_rows: rows of the sample that all start values are estimated on.
        non_finite: what is done about a step whose loss or gradient is not finite: stop the run, skip the step, or roll
            back to the weights of the last multiple of 100 steps. Which rows it was made of stands in
            RUN_FOLDER/non_finite. A GPU waits at every step for skip and roll_back, not for stop.
        most_non_finite_in_a_row: more steps than this left out one after another stop the run.
        rows_at_once: rows of a batch that are computed at once from the start; by default the whole batch, until memory
            runs out. The gradient is the same.
        reconstruction_unit: what squared errors are divided by in the loss: the variance (fvu), so that coefficients
            mean the same on every input scale, or the number of rows (mse), which some papers' are meant for.
        members: the autoencoders of a sweep by name, each with what it does not share with the model; one alone, as the
            model has it, by default.
        shapes: names and widths of the hook points; asked of the data by default, saved with the checkpoint.
    """

    paced_in = "tokens"
    shown_behind_the_bar = ("train/fvu", "train/l0", "train/dead")

    def __init__(
        self,
        autoencoder: Autoencoder,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=3e-3, fused=True),
        lr_scheduler: LRSchedulerCallable = lambda optimizer: WarmupDecay(optimizer),
        normalization: Normalization | None = None,
        sparsity_warmup: NonNegativeFloat = 0.2,
        dead_after_tokens: PositiveInt | None = None,
        center: Literal["mean", "geometric_median"] = "mean",
        sample_rows: PositiveInt = 65536,
        non_finite: Policy = "stop",
        most_non_finite_in_a_row: PositiveInt = 10,
        rows_at_once: PositiveInt | None = None,
        reconstruction_unit: Literal["fvu", "mse"] = "fvu",
        members: dict[str, Member] | None = None,
        shapes: dict[str, PositiveInt] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        keep_plain(self)
        # a function, so that it is no part of the model
        self.make_normalization = partial(copy.deepcopy, DatasetScale() if normalization is None else normalization)
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.dead_after_tokens = dead_after_tokens
        self.sample_rows = sample_rows
        self.shapes = shapes
        self.non_finite = non_finite
        self.members = Members(
            members,
            autoencoder,
            lambda own, hook_points: Trainee(
                own, hook_points, sparsity_warmup, center, rows_at_once, reconstruction_unit
            ),
        )
        self.watches = {name: NonFiniteWatch(non_finite, most_non_finite_in_a_row) for name in self.members}
        self._may_step = dict.fromkeys(self.members, True)

    @property
    def only(self) -> Trainee:
        """The member of a model that has one."""
        return self.members.sole

    @property
    def autoencoder(self) -> Autoencoder:
        """That of `only`."""
        return self.only.autoencoder

    @property
    def data(self) -> ActivationSource:
        """The datamodule of the Trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    # ---- weights and their start

    def check_settings(self, data: ActivationSource | None = None) -> None:
        """Refuses impossible settings before any data is touched.

        Args:
            data: the datamodule, where it is known.

        Raises:
            UserError: naming the setting.
        """
        self.members.check(None if data is None else data.hook_point_names())
        check_optimizer(self.make_optimizer, self.make_lr_scheduler)

    def check_sharing(self, ranks: int) -> None:
        """As that of the members."""
        self.members.check_sharing(ranks)

    def configure_model(self) -> None:
        """Builds weights and metrics, once.

        Raises:
            UserError: the widths are unknown, differ from what the data has, or do not suit the wiring, or the members
                have names that they cannot have.
        """
        self.members.check(None)
        shapes = agreed_shapes(None if self._trainer is None else self.data.shapes, self.shapes)
        if not self.members.configured:
            self.shapes = self.hparams["shapes"] = shapes
            self.members.configure(shapes, self.make_normalization, latents_mesh(self.device_mesh))
            start_alike(self.parameters(), self.device_mesh)

    def on_fit_start(self) -> None:
        """Estimates the start values, unless a checkpoint has brought them.

        Raises:
            UserError: the sample has a value that is not finite, or two settings exclude each other.
        """
        if self._scaler is not None:
            refuse_beside_a_scaler(self.trainer.precision, self.non_finite, len(self.members))
        self._run_length = run_length = int(self.trainer.estimated_stepping_batches)
        dead_after = self.dead_after_tokens or self._default_dead_window(run_length)
        for name, member in self.members.by_name.items():
            member.begin(run_length, dead_after)
            self.watches[name].start()
        if not all(member.started for member in self.members.by_name.values()):
            self._start_from_data()

    def _default_dead_window(self, run_length: int) -> int:
        tokens = run_length * self.trainer.accumulate_grad_batches * self.data.batch_size
        return min(DEAD_AFTER_TOKENS, max(1, int(tokens * DEAD_AFTER_SHARE_OF_RUN)))

    def _start_from_data(self) -> None:
        sample = self.data.sample(self.sample_rows)
        activations = [part.to(self.device) for part in sample.activations]
        for part in activations:
            for row in bad_rows(part)[:1]:
                raise stored_badly(self.data.describe_row(int(sample.rows[row])))
        for member in self.members.by_name.values():
            member.start_from_data(activations)

    # ---- training

    def pace_of(self, batch: ActivationBatch) -> int:
        """Tokens of a batch."""
        return len(batch.rows)

    def training_step(self, batch: ActivationBatch, batch_idx: int) -> Tensor:
        steps = self.members.step(batch.activations, self.global_step, self._loss_scale)
        for name, step in steps.items():
            self.watches[name].see(step.loss, batch)
        rows = len(batch.rows)
        self._count_tokens(steps, rows)
        if self._figures_are_due:
            self._log_steps(steps, rows)
        return torch.stack([with_bad_gradient_if_bad(step.loss) for step in steps.values()]).sum()

    @property
    def _figures_are_due(self) -> bool:
        """Whether anybody will see them: loggers are given every n-th step's, and handing Lightning those of the others
        would cost some percent of a step. Checkpoints and summaries have those of the first and the last step too.
        """
        step, every = self.global_step + 1, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return step in (1, self._run_length) or (every > 0 and step % every == 0)

    def _count_tokens(self, steps: Mapping[str, Step], rows: int) -> None:
        """Adds this batch, on every rank, to the counters."""
        counts = [step.firing_counts for step in steps.values()]
        sharing, group = sharing_batch(self.device_mesh, self.trainer.world_size)
        if sharing > 1:
            over_ranks = torch.cat(counts).int()  # half the bytes, and enough for the rows of a step
            distributed.all_reduce(over_ranks, group=group)
            counts = list(torch.split(over_ranks, [len(own) for own in counts]))
        for member, own in zip(self.members.by_name.values(), counts, strict=True):
            member.count(own, rows * sharing)

    def _log_steps(self, steps: Mapping[str, Step], rows: int) -> None:
        groups = self.trainer.optimizers[0].param_groups
        figures: dict[str, Figures] = {}
        for (name, member), group in zip(self.members.by_name.items(), groups, strict=True):
            own = {**member.figures(steps[name], rows), "lr": group["lr"]}
            if self.watches[name].left_out:
                own["steps_left_out"] = float(self.watches[name].left_out)
            figures[self.members.prefix(name)] = own
        self.log_figures("train", mean_over_ranks(figures))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        average_gradients(self.parameters(), self.device_mesh)
        members = self.members.by_name.items()
        self.members.each({name: member.autoencoder.before_optimizer_step for name, member in members})

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips each member's gradient by itself, and takes it away from a step that must not be made."""
        by_norm = self._scaler is None and gradient_clip_algorithm in (None, "norm")
        if self._scaler is None:
            largest, members = gradient_clip_val if by_norm else None, self.members.by_name.items()
            norms = self.members.each({name: partial(member.clip, largest) for name, member in members})
        else:
            norms = {name: self._loss_of(name) for name in self.members}
        if not by_norm:
            clip_gradients(self.trainer, optimizer, gradient_clip_val, gradient_clip_algorithm)
        for name, member in self.members.by_name.items():
            watch, parameters = self.watches[name], list(member.autoencoder.parameters())
            self._may_step[name] = watch.allows(norms[name], self._place(name), optimizer, parameters)
            if not self._may_step[name]:
                member.drop_gradient()

    def _loss_of(self, name: str) -> Tensor:
        # a gradient that is not finite is all in a GradScaler's day's work; a loss is not, and is looked at at times
        if self.global_step % LOOK_BESIDE_A_SCALER_EVERY_N_STEPS:
            return torch.zeros(())
        return self.watches[name].sum_of_losses()

    def _place(self, name: str) -> Place:
        trainer, folder = self.trainer, lambda: self.trainer.log_dir
        ranks = self.global_rank, trainer.world_size
        return Place(self.global_step, *ranks, self.data.describe_row, folder, self.members.prefix(name))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then restores the decoders' unit norm. Lightning calls it only for a real step, never for an
        accumulated batch.
        """
        steps_done = self.global_step
        with memory_told("the optimiser made its step"):
            super().optimizer_step(*args, **kwargs)
        members = self.members.by_name.items()
        self.members.each(
            {name: partial(member.after_optimizer_step, steps_done, self._may_step[name]) for name, member in members}
        )

    def on_train_end(self) -> None:
        for watch in self.watches.values():
            watch.look_back()

    @property
    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _loss_scale(self) -> float:
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        groups = []
        for name, member in self.members.by_name.items():
            lr = self.members.settings[name].lr
            groups.append(
                {"params": list(member.autoencoder.parameters()), **({} if lr is None else {"lr": float(lr)})}
            )
        optimizer = self.make_optimizer(groups)
        return scheduled(optimizer, self.make_lr_scheduler, lambda: int(self.trainer.estimated_stepping_batches))

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to save weights that are not finite, so that the last checkpoint on disk is always a good one."""
        for prefix, member in self.members.prefixed():
            with telling(prefix):
                if not member.is_finite():
                    raise UserError(
                        f"weights are not finite at step {self.global_step}: "
                        "resume from the last checkpoint with a lower learning rate"
                    )
        checkpoint["memory"] = {name: member.memory.state_dict() for name, member in self.members.by_name.items()}
        checkpoint["non_finite"] = {name: watch.state_dict() for name, watch in self.watches.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises:
        UserError: it is of other members.
        """
        super().on_load_checkpoint(checkpoint)
        if "memory" in checkpoint:  # a model's weights come alone
            self.members.refuse_others(checkpoint["memory"])
            for name, member in self.members.by_name.items():
                member.memory.load_state_dict(checkpoint["memory"][name])
                parameters = list(member.autoencoder.parameters())
                self.watches[name].load_state_dict(checkpoint["non_finite"][name], parameters)

    # ---- evaluation

    def forward(self, *activations: Tensor) -> tuple[Codes, tuple[Tensor, ...]]:
        """As that of `only`."""
        return self.only(*activations)  # type: ignore[no-any-return]

    def validation_step(self, batch: ActivationBatch, batch_idx: int) -> dict[str, Any]:
        """Updates the metrics; each member's codes, by prefix, and the rows go on to the callbacks."""
        with memory_told("a batch was measured"):
            codes = self.members.each(
                {
                    name: partial(member.evaluate, pair, batch.activations)
                    for name, member, pair in self.members.pairs(batch.activations)
                }
            )
        return {"codes": {self.members.prefix(name): own for name, own in codes.items()}, "rows": batch.rows}

    def test_step(self, batch: ActivationBatch, batch_idx: int) -> dict[str, Any]:
        """As `validation_step`."""
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _log_evaluation(self, stage: str) -> None:
        self.log_figures(stage, {prefix: member.scores() for prefix, member in self.members.prefixed()})

    def predictor(
        self, samples: Sequence[Sample] | None, count: int, seed: int, settings: AnswerSettings
    ) -> LatentPredictor:
        """What tells the latents of texts; see `lightning_modules.predictions.Predicts`."""
        precision = self.trainer.precision_plugin
        return LatentPredictor(self.members.prefixed, self.data, precision, samples, count, seed, settings)

    def log_figures(self, stage: str, figures: Mapping[str, Figures]) -> None:
        """Logs scalars of the members, by prefix, as PREFIX/stage/name and their means as stage/name."""
        staged = {prefix: {f"{stage}/{name}": value for name, value in own.items()} for prefix, own in figures.items()}
        named = under_names(staged)
        shown = {name: named.pop(name) for name in self.shown_behind_the_bar if name in named}
        self.log_dict(shown, prog_bar=True)
        self.log_dict(named)
