"""Trains any autoencoder on activations."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Self

from datamodules.shards import ActivationBatch
from lightning_modules.activation_source import ActivationSource
from lightning_modules.autoencoders import Autoencoder, DatasetScale, LossTerm, Normalization
from lightning_modules.checkpoint_files import as_one_file
from lightning_modules.evaluation import Evaluation
from lightning_modules.functional import Codes, geometric_median
from lightning_modules.hyperparameters import keep_plain
from lightning_modules.memory_guard import Batch, MemoryGuard, Step, memory_told
from lightning_modules.non_finite import (
    NonFiniteWatch,
    Place,
    Policy,
    bad_rows,
    parameters_of,
    stored_badly,
    with_bad_gradient_if_bad,
)
from lightning_modules.optimizer_settings import check_optimizer
from lightning_modules.schedules import WarmupDecay, steps_of
from lightning_modules.sides import HookPointPair, Pair, agreed_shapes
from run_store import UserError

DEAD_AFTER_TOKENS = 10_000_000
DEAD_AFTER_SHARE_OF_RUN = 1 / 8
LOOK_BESIDE_A_SCALER_EVERY_N_STEPS = 50


class SparseAutoencoding(LightningModule):
    """LightningModule around an autoencoder: loss, schedules, dead-latent counters and metrics.

    Weights are built in `configure_model` for the width that the datamodule reports. Normalisation, b_dec and the mean
    that FVU is measured against are estimated once, on a fixed sample of the training split, before the first step;
    they are buffers and parameters, so a resumed run does not look again.

    Args:
        autoencoder: the variant with its settings.
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
        shapes: names and widths of the hook points; asked of the data by default, saved with the checkpoint.
    """

    tokens_since_fired: Tensor
    tokens_seen: Tensor
    started: Tensor
    counters = ("tokens_since_fired", "tokens_seen")
    """Buffers that say what this training has seen: one that starts from another's weights begins them at zero."""

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
        shapes: dict[str, PositiveInt] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        keep_plain(self)
        self.autoencoder = autoencoder
        self.autoencoder.reconstruction_unit = reconstruction_unit
        self.one_normalization = DatasetScale() if normalization is None else normalization
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.sparsity_warmup = sparsity_warmup
        self.dead_after_tokens = dead_after_tokens
        self.center = center
        self.sample_rows = sample_rows
        self.memory = MemoryGuard(rows_at_once)
        self.non_finite = NonFiniteWatch(non_finite, most_non_finite_in_a_row)
        self._may_step = True
        self._fired_in_step: Tensor | int = 0
        self._rows_in_step = 0
        self.shapes = shapes

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
        self.autoencoder.check_settings()
        if data is not None:
            self.autoencoder.wiring.sides(data.hook_point_names())
        check_optimizer(self.make_optimizer)
        if self.memory.rows_at_once and not self.autoencoder.rows_are_independent:
            raise UserError(
                f"model.rows_at_once is {self.memory.rows_at_once}, and {type(self.autoencoder).__name__} selects over "
                "the whole batch, which cannot be cut: leave it out and lower data.batch_size"
            )

    def configure_model(self) -> None:
        """Builds weights and metrics, once.

        Raises:
            UserError: the widths are unknown, differ from what the data has, or do not suit the wiring.
        """
        shapes = agreed_shapes(None if self._trainer is None else self.data.shapes, self.shapes)
        if hasattr(self, "tokens_since_fired"):
            return
        self.shapes = self.hparams["shapes"] = shapes
        self.pair = HookPointPair(self.one_normalization, self.autoencoder.wiring, shapes)
        self.autoencoder.build(self.pair.inputs, self.pair.outputs)
        self.evaluation = Evaluation(self.pair.outputs, self.pair.reconstructed_names, self.autoencoder.d_sae)
        self.register_buffer("tokens_since_fired", torch.zeros(self.autoencoder.d_sae, dtype=torch.int64))
        self.register_buffer("tokens_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def on_fit_start(self) -> None:
        """Estimates the start values, unless a checkpoint has brought them.

        Raises:
            UserError: the sample has a value that is not finite, or two settings exclude each other.
        """
        if self._scaler is not None and self.non_finite.policy != "stop":
            raise UserError(
                f"model.non_finite is {self.non_finite.policy}, and trainer.precision {self.trainer.precision} leaves "
                "steps out by its own rule: set trainer.precision to bf16-mixed or model.non_finite to stop"
            )
        self.memory.start()
        self.non_finite.start()
        self._run_length = run_length = int(self.trainer.estimated_stepping_batches)
        self._sparsity_warmup_steps = steps_of(self.sparsity_warmup, run_length)
        self._dead_after = self.dead_after_tokens or self._default_dead_window(run_length)
        if not self.started:
            self._start_from_data()

    def _default_dead_window(self, run_length: int) -> int:
        tokens = run_length * self.trainer.accumulate_grad_batches * self.data.batch_size
        return min(DEAD_AFTER_TOKENS, max(1, int(tokens * DEAD_AFTER_SHARE_OF_RUN)))

    @torch.no_grad()
    def _start_from_data(self) -> None:
        sample = self.data.sample(self.sample_rows)
        activations = [part.to(self.device) for part in sample.activations]
        for part in activations:
            for row in bad_rows(part)[:1]:
                raise stored_badly(self.data.describe_row(int(sample.rows[row])))
        self.pair.fit(activations)
        x, y, _ = self.pair(activations)
        middle = geometric_median if self.center == "geometric_median" else partial(torch.mean, dim=0)
        self.autoencoder.start_from_data(middle(y), y.mean(dim=0), None if x is y else middle(x))
        self.started.fill_(True)

    # ---- training

    def training_step(self, batch: ActivationBatch, batch_idx: int) -> Tensor:
        pair: Pair = self.pair(batch.activations)
        parts = Batch.of(self.autoencoder, pair.x, self.dead_latents(), self._total, pair.y)
        step = self.memory.step(parts, self._loss_scale)
        self.non_finite.see(step.loss, batch)
        self._count_tokens(step.firing_counts, pair.x.shape[0])
        self._log_step(step, pair.x.shape[0])
        return with_bad_gradient_if_bad(step.loss)

    def _total(self, terms: dict[str, LossTerm]) -> Tensor:
        weighted = [term.value * term.weight * (self._warmed if term.warms_up else 1) for term in terms.values()]
        return torch.stack(weighted).sum()

    @property
    def _warmed(self) -> float:
        """The share of the sparsity warm-up that is done with this step."""
        return min(1.0, (self.global_step + 1) / max(1, self._sparsity_warmup_steps))

    def _count_tokens(self, firing_counts: Tensor, rows: int) -> None:
        """Adds this batch, on every rank, to the counters: they count tokens, so accumulation and world size do not
        change what dead means.
        """
        if self.trainer.world_size > 1:
            firing_counts = torch.as_tensor(self.all_gather(firing_counts)).sum(dim=0)
            rows *= self.trainer.world_size
        self.tokens_seen += rows
        self.tokens_since_fired += rows
        self.tokens_since_fired[firing_counts > 0] = 0
        self._fired_in_step = self._fired_in_step + firing_counts.sum()
        self._rows_in_step += rows

    def dead_latents(self) -> Tensor | None:
        """[n] numbers of the latents that have not fired for `dead_after_tokens`; None when there are none."""
        dead = torch.nonzero(self.tokens_since_fired > self._dead_after).flatten()
        return dead if dead.numel() else None

    def _log_step(self, step: Step, rows: int) -> None:
        dead = (self.tokens_since_fired > self._dead_after).float().mean()
        self.log("train/loss", step.loss.detach())
        for name, value in step.terms.items():
            self.log(f"train/loss_{name}", value)
        for name, value in self.autoencoder.gauges().items():
            self.log(f"train/{name}", value)
        self.log("train/fvu", step.fvu, prog_bar=True)
        self.log("train/l0", step.firing_counts.sum() / rows, prog_bar=True)
        self.log("train/dead", dead, prog_bar=True)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        if self.memory.rows_at_once is not None:
            self.log("train/rows_at_once", float(self.memory.rows_at_once))
        if self.non_finite.left_out:
            self.log("train/steps_left_out", float(self.non_finite.left_out))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.autoencoder.before_optimizer_step()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradient, and takes it away from a step that must not be made."""
        parameters = parameters_of(optimizer)
        if self._scaler is None and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            norm = torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)
        else:
            norm = self._norm_without_clipping(parameters)
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        place = Place(
            self.global_step,
            self.global_rank,
            self.trainer.world_size,
            self.data.describe_row,
            lambda: self.trainer.log_dir,
        )
        self._may_step = self.non_finite.allows(norm, place, optimizer)
        if not self._may_step:
            for parameter in parameters:
                parameter.grad = None  # no optimiser touches a parameter without one, nor what it knows of it

    def _norm_without_clipping(self, parameters: list[Tensor]) -> Tensor:
        if self._scaler is None:
            return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # a gradient that is not finite is all in a GradScaler's day's work; a loss is not, and is looked at at times
        if self.global_step % LOOK_BESIDE_A_SCALER_EVERY_N_STEPS:
            return torch.zeros(())
        return self.non_finite.sum_of_losses()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then restores the decoder's unit norm. Lightning calls it only for a real step, never for an
        accumulated batch.
        """
        with memory_told("the optimiser made its step"):
            super().optimizer_step(*args, **kwargs)
        if self._may_step:
            self.autoencoder.after_optimizer_step()
            l0 = torch.as_tensor(self._fired_in_step, device=self.device) / max(1, self._rows_in_step)
            self.autoencoder.observe(l0, min(1.0, (self.global_step + 1) / self._run_length), self._warmed)
        self._fired_in_step, self._rows_in_step = 0, 0

    def on_train_end(self) -> None:
        self.non_finite.look_back()

    @property
    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _loss_scale(self) -> float:
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.make_optimizer(self.autoencoder.parameters())
        scheduler = self.make_lr_scheduler(optimizer)
        if isinstance(scheduler, WarmupDecay):
            scheduler.set_run_length(int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}  # type: ignore[typeddict-item]

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to save weights that are not finite, so that the last checkpoint on disk is always a good one."""
        if not all(parameter.isfinite().all() for parameter in self.autoencoder.parameters()):
            raise UserError(
                f"weights are not finite at step {self.global_step}: "
                "resume from the last checkpoint with a lower learning rate"
            )
        checkpoint["memory"] = self.memory.state_dict()
        checkpoint["non_finite"] = self.non_finite.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "memory" in checkpoint:  # a model's weights come alone
            self.memory.load_state_dict(checkpoint["memory"])
            self.non_finite.load_state_dict(checkpoint["non_finite"])

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """As Lightning's, and from a checkpoint folder, of which only weights and hyper-parameters are read.

        Raises:
            UserError: the checkpoint is damaged.
        """
        file = as_one_file(checkpoint_path)
        return super().load_from_checkpoint(file, map_location, hparams_file, strict, weights_only, **kwargs)

    # ---- evaluation

    def forward(self, *activations: Tensor) -> tuple[Codes, tuple[Tensor, ...]]:
        """Codes, and the reconstruction of every hook point that is reconstructed, on the scale of the activations.

        Args:
            *activations: [b, d] a hook point, in the order of `shapes`.
        """
        pair: Pair = self.pair(activations)
        codes, reconstruction = self.autoencoder(pair.x)
        return codes, pair.undo(reconstruction)

    def validation_step(self, batch: ActivationBatch, batch_idx: int) -> dict[str, Any]:
        """Updates the metrics; codes and rows go on to the callbacks."""
        with memory_told("a batch was measured"):
            pair: Pair = self.pair(batch.activations)
            codes, reconstruction = self.autoencoder(pair.x)
            targets = [batch.activations[place] for place in self.pair.sides.reconstructed]
            ablated = pair.undo(self.autoencoder.without_latents(pair.x))
            self.evaluation.update(codes, targets, pair.undo(reconstruction), ablated)
        return {"codes": codes, "rows": batch.rows}

    def test_step(self, batch: ActivationBatch, batch_idx: int) -> dict[str, Any]:
        """As `validation_step`."""
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _log_evaluation(self, stage: str) -> None:
        self.firing_density = self.evaluation.density()
        gauges = self.autoencoder.wiring.gauges(self.autoencoder.W_dec, self.pair.reconstructed_names)
        scores = self.evaluation.scores() | gauges
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})
        self.evaluation.reset()
