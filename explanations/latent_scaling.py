"""Whether a latent that a crosscoder gives to one model is foreign to the other: latent scaling, after Minder et al.
2025, "Overcoming Sparsity Artifacts in Crosscoders to Interpret Chat-Tuning" (arXiv 2504.02922).

Shapes: s latents, d width, b rows of a batch, E latents that fired in it.

A sparsity penalty can shrink a decoder row of one model to nothing although the model has what the latent stands for:
then the row's direction d_i is left in that model's error whenever the latent fires. The least-squares factor

    β_i = argmin_β Σ_x ‖ε(x) + f_i(x) W_i − β f_i(x) d_i‖²,    ε = the model's state − its reconstruction

says how much of d_i the model has, with all other latents as they are: 0 nothing, 1 as much as the other model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.shards import ActivationStore
from datamodules.shards.row_ranges import RowRanges
from explanations.latent_groups import TwoDecoders
from lightning_modules.feature_pass import batches
from lightning_modules.trainee import Trainee

BATCH_ROWS = 1024


@torch.inference_mode()
def weaker_has(
    member: Trainee, decoders: TwoDecoders, store: ActivationStore, hook_points: Sequence[str], ranges: Tensor
) -> Tensor:
    """β [s] float64 of the model whose row is the shorter one, for the direction of the longer one; nan where a latent
    never fires.

    Args:
        member: the crosscoder, in evaluation.
        decoders: its rows, of which the first are of the first hook point.
        store: where the rows of activations are.
        hook_points: names of the activations of a batch, in the order that the member's model has them.
        ranges: int64 [n, 2] which rows are read, as `feature_pass` has them.
    """
    base, tuned = (W.float() for W in decoders)
    is_tuned = torch.linalg.vector_norm(tuned, dim=1) >= torch.linalg.vector_norm(base, dim=1)
    longer = tuned.where(is_tuned.unsqueeze(1), base)
    squares = longer.square().sum(dim=1).double()
    own = (longer * base.where(is_tuned.unsqueeze(1), tuned)).sum(dim=1).double()  # d_i · W_i
    fits, energies = torch.zeros_like(squares), torch.zeros_like(squares)
    for batch in batches(store, hook_points, RowRanges(ranges), 0, BATCH_ROWS):
        activations = [part.to(member.tokens_seen.device) for part in batch.activations]
        seen = member.seen(activations)
        codes, reconstructions = member.reconstructed(member.pair(seen))
        errors = [
            (seen[place].float() - reconstruction).cpu()
            for place, reconstruction in zip(member.pair.sides.reconstructed, reconstructions, strict=True)
        ]
        rows, latents, values = (column.cpu() for column in codes.fired())
        of_base, of_tuned = ((error[rows] * longer[latents]).sum(dim=1) for error in errors)
        along = of_base.where(is_tuned[latents], of_tuned).double()
        energies.index_add_(0, latents, values.double().square())
        fits.index_add_(0, latents, values.double() * along + values.double().square() * own[latents])
    return fits / (energies * squares)
