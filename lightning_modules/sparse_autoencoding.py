"""Trains any autoencoder on activations."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from datamodules.shards import ActivationBatch
from lightning_modules.autoencoders import Autoencoder, DatasetScale, Normalization, TrainingPass
from lightning_modules.functional import Codes, geometric_median
from lightning_modules.hyperparameters import keep_plain
from lightning_modules.metrics import FiringDensity, FractionOfVarianceUnexplained, summarize_density
from lightning_modules.schedules import WarmupDecay, steps_of
from run_store import UserError

DEAD_AFTER_TOKENS = 10_000_000
DEAD_AFTER_SHARE_OF_RUN = 1 / 8
LOOK_EVERY_N_STEPS = 50


class ActivationSource(Protocol):
    """What a SparseAutoencoding asks of the datamodule beside its loaders."""

    batch_size: int
    """Rows of a batch, over all ranks."""

    @property
    def shapes(self) -> dict[str, int]:
        """Width d of each hook point of a batch."""
        ...

    def sample(self, rows: int) -> ActivationBatch:
        """Always the same rows of the training split."""
        ...

    def describe_row(self, row: int) -> str:
        """Where a row comes from, in words."""
        ...


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
        d_in: width of the activations; asked of the data by default, saved with the checkpoint.
    """

    tokens_since_fired: Tensor
    tokens_seen: Tensor
    started: Tensor

    def __init__(
        self,
        autoencoder: Autoencoder,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=3e-3, fused=True),
        lr_scheduler: LRSchedulerCallable = lambda optimizer: WarmupDecay(optimizer),
        normalization: Normalization | None = None,
        sparsity_warmup: NonNegativeFloat = 0.05,
        dead_after_tokens: PositiveInt | None = None,
        center: Literal["mean", "geometric_median"] = "mean",
        sample_rows: PositiveInt = 65536,
        d_in: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        keep_plain(self)
        self.autoencoder = autoencoder
        self.normalization = DatasetScale() if normalization is None else normalization
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.sparsity_warmup = sparsity_warmup
        self.dead_after_tokens = dead_after_tokens
        self.center = center
        self.sample_rows = sample_rows
        self.d_in = d_in

    @property
    def data(self) -> ActivationSource:
        """The datamodule of the Trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    # ---- weights and their start

    def check_settings(self) -> None:
        """Refuses impossible settings before any data is touched.

        Raises:
            UserError: naming the setting.
        """
        self.autoencoder.check_settings()

    def configure_model(self) -> None:
        """Builds weights and metrics, once.

        Raises:
            UserError: the width is unknown, or differs from what the data has.
        """
        d_in = self._resolve_width()
        if hasattr(self, "tokens_since_fired"):
            return
        self.d_in = self.hparams["d_in"] = d_in
        self.autoencoder.build(d_in)
        self.register_buffer("tokens_since_fired", torch.zeros(self.autoencoder.d_sae, dtype=torch.int64))
        self.register_buffer("tokens_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.fvu = FractionOfVarianceUnexplained(d_in)
        self.firing = FiringDensity(self.autoencoder.d_sae)

    def _resolve_width(self) -> int:
        shapes: dict[str, int] = {} if self._trainer is None else self.data.shapes
        if len(shapes) > 1:
            raise UserError(
                f"SparseAutoencoding reads one hook point and the data gives {len(shapes)}: "
                f"name one of {', '.join(shapes)} in data.hook_points"
            )
        found = next(iter(shapes.values()), None)
        if found is None and self.d_in is None:
            raise UserError("model.d_in is unknown: give it, or load a checkpoint that a training has saved")
        if None not in (found, self.d_in) and found != self.d_in:
            raise UserError(
                f"the autoencoder's weights are for d_in = {self.d_in} "
                f"and the data's {next(iter(shapes))} has {found}: "
                "use the data that the checkpoint was trained on, or leave model.d_in out"
            )
        return found or self.d_in  # type: ignore[return-value]

    def on_fit_start(self) -> None:
        """Estimates the start values, unless a checkpoint has brought them."""
        run_length = int(self.trainer.estimated_stepping_batches)
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
        x = sample.activations[0].to(self.device)
        self._stop_on_bad_rows(ActivationBatch((x,), sample.rows))
        self.normalization.fit(x)
        x = self.normalization(x).x
        mean = x.mean(dim=0)
        self.autoencoder.start_from_data(mean if self.center == "mean" else geometric_median(x), mean)
        self.started.fill_(True)

    # ---- training

    def training_step(self, batch: ActivationBatch, batch_idx: int) -> Tensor:
        x = self.normalization(batch.activations[0]).x
        result = self.autoencoder.training_pass(x, self.dead_latents())
        loss = self._total(result)
        self._stop_if_not_finite(loss, batch)
        firing_counts = result.codes.firing_counts()
        self._count_tokens(firing_counts, x.shape[0])
        self._log_step(result, loss, firing_counts.sum() / x.shape[0])
        return loss

    def _total(self, result: TrainingPass) -> Tensor:
        warmup = min(1.0, (self.global_step + 1) / max(1, self._sparsity_warmup_steps))
        weighted = [term.value * term.weight * (warmup if term.warms_up else 1) for term in result.terms.values()]
        return torch.stack(weighted).sum()

    def _count_tokens(self, firing_counts: Tensor, rows: int) -> None:
        """Adds this batch, on every rank, to the counters: they count tokens, so accumulation and world size do not
        change what dead means.
        """
        fired = firing_counts > 0
        if self.trainer.world_size > 1:
            fired = torch.as_tensor(self.all_gather(fired)).any(dim=0)
            rows *= self.trainer.world_size
        self.tokens_seen += rows
        self.tokens_since_fired += rows
        self.tokens_since_fired[fired] = 0

    def dead_latents(self) -> Tensor | None:
        """[n] numbers of the latents that have not fired for `dead_after_tokens`; None when there are none."""
        dead = torch.nonzero(self.tokens_since_fired > self._dead_after).flatten()
        return dead if dead.numel() else None

    def _log_step(self, result: TrainingPass, loss: Tensor, l0: Tensor) -> None:
        dead = (self.tokens_since_fired > self._dead_after).float().mean()
        self.log("train/loss", loss)
        for name, term in result.terms.items():
            self.log(f"train/loss_{name}", term.value)
        self.log("train/fvu", result.terms["reconstruction"].value, prog_bar=True)
        self.log("train/l0", l0, prog_bar=True)
        self.log("train/dead", dead, prog_bar=True)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.autoencoder.before_optimizer_step()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then restores the decoder's unit norm. Lightning calls it only for a real step, never for an
        accumulated batch.
        """
        super().optimizer_step(*args, **kwargs)
        self.autoencoder.after_optimizer_step()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.make_optimizer(self.autoencoder.parameters())
        scheduler = self.make_lr_scheduler(optimizer)
        if isinstance(scheduler, WarmupDecay):
            scheduler.set_run_length(int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}  # type: ignore[typeddict-item]

    # ---- what must not go unnoticed

    def _stop_if_not_finite(self, loss: Tensor, batch: ActivationBatch) -> None:
        """Looks at every step on a CPU, where looking is free; elsewhere at logging steps, because looking waits for
        the device.
        """
        if loss.device.type != "cpu" and self.global_step % LOOK_EVERY_N_STEPS:
            return
        if not torch.isfinite(loss):
            self._stop_on_bad_rows(batch)
            raise UserError(f"the loss became {loss.item()} at step {self.global_step}: lower the learning rate")

    def _stop_on_bad_rows(self, batch: ActivationBatch) -> None:
        bad = (~batch.activations[0].isfinite().all(dim=1)).nonzero().flatten()
        if bad.numel():
            row = int(batch.rows[bad[0]])
            raise UserError(
                f"{self.data.describe_row(row)} holds a value that is not finite: remove the store and extract it again"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to save weights that are not finite, so that the last checkpoint on disk is always a good one."""
        if not all(parameter.isfinite().all() for parameter in self.autoencoder.parameters()):
            raise UserError(
                f"weights are not finite at step {self.global_step}: "
                "resume from the last checkpoint with a lower learning rate"
            )

    # ---- evaluation

    def forward(self, activations: Tensor) -> tuple[Codes, Tensor]:
        """Codes and reconstruction of activations [b, d], the reconstruction on the scale of the input."""
        normalized = self.normalization(activations)
        codes, reconstruction = self.autoencoder(normalized.x)
        return codes, normalized.undo(reconstruction)

    def validation_step(self, batch: ActivationBatch, batch_idx: int) -> dict[str, Any]:
        """Updates the metrics; codes and rows go on to the callbacks."""
        activations = batch.activations[0]
        codes, reconstruction = self(activations)
        self.fvu.update(activations, reconstruction)
        self.firing.update(codes)
        return {"codes": codes, "rows": batch.rows}

    def test_step(self, batch: ActivationBatch, batch_idx: int) -> dict[str, Any]:
        """As `validation_step`."""
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _log_evaluation(self, stage: str) -> None:
        fvu, self.firing_density = self.fvu.compute(), self.firing.compute()
        scores = {"fvu": fvu, "explained_variance": 1 - fvu, **summarize_density(self.firing_density)}
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})
        self.fvu.reset()
        self.firing.reset()
