"""An autoencoder that is being trained: what it keeps beside its weights, and what it makes of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar

import torch
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor, nn

from lightning_modules.autoencoders import Autoencoder, LossTerm, Normalization
from lightning_modules.evaluation import Evaluation
from lightning_modules.functional import Codes, Deferred, deferred, gathered, geometric_median, local
from lightning_modules.functional.sharded import mean_over_latents
from lightning_modules.members import Figures, refuse_unknown_hook_points
from lightning_modules.memory_guard import Batch, MemoryGuard, Step
from lightning_modules.schedules import steps_of
from lightning_modules.sides import HookPointPair, Pair
from run_store import UserError

T = TypeVar("T")
ROWS_OF_A_SAMPLE = 4096
"""That are normalised at once."""


class Trainee(nn.Module):
    """One autoencoder with its hook points, metrics, counters and schedule of sparsity. It knows nothing of a Trainer,
    of loggers or of optimisers, and nothing of others that read the same batches.

    Args:
        autoencoder: the variant with its settings.
        hook_points: names of those of the data that it sees, in its order; all by default.
        sparsity_warmup: share of the run, or steps, over which sparsity coefficients rise from 0.
        center: what b_dec starts from.
        rows_at_once: rows of a batch that are computed at once from the start; None begins with whole batches.
        reconstruction_unit: what squared errors are divided by in the loss.
    """

    tokens_since_fired: Tensor
    """[s] int64."""
    tokens_seen: Tensor
    """Scalar int64."""
    started: Tensor
    """Scalar bool: whether the start values have been estimated."""
    counters = ("tokens_since_fired", "tokens_seen")
    """Buffers that say what this training has seen: one that starts from another's weights begins them at zero."""

    density: Tensor | None = None
    """[s] share of the rows of the last validation or test on which each latent fired; None before."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        hook_points: Sequence[str] | None = None,
        sparsity_warmup: NonNegativeFloat = 0.2,
        center: Literal["mean", "geometric_median"] = "mean",
        rows_at_once: int | None = None,
        reconstruction_unit: Literal["fvu", "mse"] = "fvu",
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.autoencoder.reconstruction_unit = reconstruction_unit
        self.hook_points = hook_points
        self.sparsity_warmup = sparsity_warmup
        self.center = center
        self.memory = MemoryGuard(rows_at_once)
        self._fired_in_step: Tensor | int = 0
        self._rows_in_step = 0

    # ---- weights and their start

    def check_settings(self, available: Sequence[str] | None = None) -> None:
        """Refuses impossible settings before any data is touched.

        Args:
            available: the data's hook points, where they are known.

        Raises:
            UserError: naming the setting.
        """
        self.autoencoder.check_settings()
        if available is not None:
            self.autoencoder.wiring.sides(self._seen_of(available))
        if self.memory.rows_at_once and not self.autoencoder.rows_are_independent:
            raise UserError(
                f"model.rows_at_once is {self.memory.rows_at_once}, and {type(self.autoencoder).__name__} selects over "
                "the whole batch, which cannot be cut: leave it out and lower data.batch_size"
            )

    def configure(self, shapes: Mapping[str, int], normalizations: Mapping[str, Normalization]) -> None:
        """Builds weights and metrics.

        Args:
            shapes: names and widths of the data's hook points.
            normalizations: of each of them; they are shared by all that read it.

        Raises:
            UserError: the hook points do not suit the wiring, or the data lacks one.
        """
        names = list(shapes)
        self.shapes = {name: shapes[name] for name in self._seen_of(names)}
        self.places = tuple(names.index(name) for name in self.shapes)
        self.pair = HookPointPair(normalizations, self.autoencoder.wiring, self.shapes)
        self.autoencoder.build(self.pair.inputs, self.pair.outputs)
        self.evaluation = Evaluation(self.pair.outputs, self.pair.reconstructed_names, self.autoencoder.d_sae)
        self.register_buffer("tokens_since_fired", torch.zeros(self.autoencoder.d_sae, dtype=torch.int64))
        self.register_buffer("tokens_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def _seen_of(self, available: Sequence[str]) -> Sequence[str]:
        if self.hook_points is None:
            return available
        refuse_unknown_hook_points(self.hook_points, available)
        return self.hook_points

    def begin(self, run_length: int, dead_after: int) -> None:
        """To be called before the first step of a training, or the first after a pause.

        Args:
            run_length: optimiser steps of the whole run.
            dead_after: a latent that has not fired for this many tokens counts as dead.
        """
        self.memory.start()
        self.run_length = run_length
        self.dead_after = dead_after
        self.warmup_steps = steps_of(self.sparsity_warmup, run_length)

    @torch.no_grad()
    def start_from_data(self, activations: Sequence[Tensor]) -> None:
        """Estimates the start values.

        Args:
            activations: a sample [n, d] of each of the data's hook points.
        """
        activations = self.seen(activations)
        self.pair.fit(activations)
        mean_of_x, mean_of_y = self._means(activations)
        center_of_x, center_of_y = mean_of_x, mean_of_y
        if self.center == "geometric_median":
            x, y, _ = self.pair(activations)
            center_of_y = geometric_median(y)
            center_of_x = center_of_y if x is y else geometric_median(x)
        self.autoencoder.start_from_data(center_of_y, mean_of_y, center_of_x)
        self.started.fill_(True)

    def _means(self, activations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Of x [d_in] and y [d_out]; a sample is normalised in parts, since it is far larger than a batch."""
        sums: list[Tensor | float] = [0.0, 0.0]
        for part in zip(*(torch.split(rows, ROWS_OF_A_SAMPLE) for rows in activations), strict=True):
            x, y, _ = self.pair(part)
            sums = [sums[0] + x.sum(dim=0), sums[1] + y.sum(dim=0)]
        mean_of_x, mean_of_y = (torch.as_tensor(added) / len(activations[0]) for added in sums)
        return mean_of_x, mean_of_y

    # ---- training

    def seen(self, of_each: Sequence[T]) -> list[T]:
        """Of what there is one of for each of the data's hook points, such as activations, that of those it sees."""
        return [of_each[place] for place in self.places]

    def step(self, pair: Pair, steps_done: int, loss_scale: Callable[[], float] = lambda: 1.0) -> Step:
        """Loss, terms and counts of a batch; the loss has one node, for one backward: see `forward_step`."""
        step, loss = self.forward_step(pair, steps_done, loss_scale)
        return step._replace(loss=deferred(*loss))

    def forward_step(
        self, pair: Pair, steps_done: int, loss_scale: Callable[[], float] = lambda: 1.0
    ) -> tuple[Step, Deferred]:
        """Loss, terms and counts of a batch, none of which has a graph, and how to come to the loss's gradient.

        Args:
            pair: the batch.
            steps_done: optimiser steps before this one.
            loss_scale: what the loss is multiplied by before backward; asked only where memory has run out.

        Raises:
            UserError: memory ran out and cannot be made do with.
        """
        weighed = partial(total, warmed=self.warmed(steps_done))
        batch = Batch.of(self.autoencoder, pair.x, self.dead_latents(), weighed, pair.y)
        return self.memory.forward(batch, loss_scale)

    def warmed(self, steps_done: int) -> float:
        """The share of the sparsity warm-up that is done with the next step."""
        return min(1.0, (steps_done + 1) / max(1, self.warmup_steps))

    def count(self, firing_counts: Tensor, rows: int) -> None:
        """Adds a batch to the counters: they count tokens, so accumulation and world size do not change what dead
        means.

        Args:
            firing_counts: [s] over all ranks.
            rows: over all ranks.
        """
        self.tokens_seen += rows
        self.tokens_since_fired += rows
        self.tokens_since_fired[firing_counts > 0] = 0
        self._fired_in_step = self._fired_in_step + firing_counts.sum()
        self._rows_in_step += rows

    def dead_latents(self) -> Tensor | None:
        """[n] numbers of the latents that have not fired for `dead_after` tokens; None when there are none."""
        dead = torch.nonzero(self.tokens_since_fired > self.dead_after).flatten()
        return dead if dead.numel() else None

    def figures(self, step: Step, rows: int) -> Figures:
        """What is worth a curve of a step of so many rows. To be asked on every rank."""
        figures: Figures = {
            "loss": step.loss.detach(),
            "fvu": step.fvu,
            "l0": step.firing_counts.sum() / rows,
            "dead": (self.tokens_since_fired > self.dead_after).float().mean(),
            **{f"loss_{name}": value for name, value in step.terms.items()},
            **self.autoencoder.gauges(),
        }
        if (rows_at_once := self.memory.agreed()) is not None:
            figures["rows_at_once"] = float(rows_at_once)
        return figures

    def clip(self, largest: float | None) -> Tensor:
        """The gradient's norm, scalar; where it is above `largest` the gradient is shortened to that."""
        if largest:
            return gathered(torch.nn.utils.clip_grad_norm_(self.autoencoder.parameters(), largest))
        gradients = [parameter.grad for parameter in self.autoencoder.parameters() if parameter.grad is not None]
        return gathered(torch.nn.utils.get_total_norm(gradients))

    def drop_gradient(self) -> None:
        """Takes the gradient away: no optimiser touches a parameter without one, nor what it knows of it."""
        for parameter in self.autoencoder.parameters():
            parameter.grad = None

    def after_optimizer_step(self, steps_done: int, made: bool) -> None:
        """To be called after each optimiser step, `made` or left out; `steps_done` counts those before it."""
        if made:
            self.autoencoder.after_optimizer_step()
            l0 = torch.as_tensor(self._fired_in_step, device=self.tokens_seen.device) / max(1, self._rows_in_step)
            self.autoencoder.observe(l0, min(1.0, (steps_done + 1) / self.run_length), self.warmed(steps_done))
        self._fired_in_step, self._rows_in_step = 0, 0

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return all(bool(parameter.isfinite().all()) for parameter in self.autoencoder.parameters())

    # ---- evaluation

    def forward(self, *activations: Tensor) -> tuple[Codes, tuple[Tensor, ...]]:
        """Codes, and the reconstruction of every hook point that is reconstructed, on the scale of the activations.

        Args:
            *activations: [b, d] of each hook point that it sees, in the order of `shapes`.
        """
        return self.reconstructed(self.pair(activations))

    def reconstructed(self, pair: Pair) -> tuple[Codes, tuple[Tensor, ...]]:
        """As `forward`."""
        codes, reconstruction = self.autoencoder(pair.x)
        return codes, pair.undo(reconstruction)

    def evaluate(self, pair: Pair, activations: Sequence[Tensor]) -> Codes:
        """Updates the metrics with a batch and returns its codes.

        Args:
            pair: the batch.
            activations: [b, d] of each of the data's hook points.
        """
        codes, reconstructions = self.reconstructed(pair)
        seen = self.seen(activations)
        targets = [seen[place] for place in self.pair.sides.reconstructed]
        ablated = pair.undo(self.autoencoder.without_latents(pair.x))
        self.evaluation.update(codes, targets, reconstructions, ablated)
        return codes

    def scores(self) -> Figures:
        """Scalars over the rows since the last time; the metrics begin anew."""
        self.density = self.evaluation.density()
        W_dec = self.autoencoder.W_dec
        gauges = self.autoencoder.wiring.gauges(local(W_dec.detach()), self.pair.reconstructed_names)
        means = {name: mean_over_latents(gauge[None], W_dec) for name, gauge in gauges.items()}
        scores: Figures = {**self.evaluation.scores(), **means}
        self.evaluation.reset()
        return scores


def total(terms: Mapping[str, LossTerm], warmed: float) -> Tensor:
    """The weighted sum of loss terms, scalar; those that warm up count for the share `warmed`."""
    weighted = [term.value * term.weight * (warmed if term.warms_up else 1) for term in terms.values()]
    return torch.stack(weighted).sum()
