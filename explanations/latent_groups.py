"""Which latents of a crosscoder between two models both have, and which one of them has alone.

Shapes: s = d_sae latents, d width of either model's states.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from jsonargparse.typing import OpenUnitInterval
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lightning_modules.trainee import Trainee
from run_store import UserError

Group = Literal["shared", "rotated", "born", "died"]
GROUPS: tuple[Group, ...] = get_args(Group)


class TwoDecoders(NamedTuple):
    """The decoder rows of both models in the activations' own scale, so that f W + b is a state of the model."""

    base: Tensor
    """[s, d]."""
    tuned: Tensor
    """[s, d]."""


class LatentGroups(NamedTuple):
    """What each of s latents is by its two decoder rows."""

    relative_norms: Tensor
    """[s] ‖W_tuned‖ / (‖W_base‖ + ‖W_tuned‖): 0 of the base alone, ½ of both alike, 1 of the fine-tuned model alone."""
    cosines: Tensor
    """[s] of the two rows; 0 where one of them is 0."""
    numbers: Tensor
    """int64 [s] place of its group in GROUPS."""


def group_latents(decoders: TwoDecoders, own_above: OpenUnitInterval, rotated_below: float) -> LatentGroups:
    """born and died: one model has more than `own_above` of the norms, the fine-tuned one or the base. Of the others
    rotated: the cosine of the rows is below `rotated_below`. The rest is shared.

    Args:
        decoders: rows of both models.
        own_above: at least ½.
        rotated_below: −1 to 1.
    """
    base, tuned = (torch.linalg.vector_norm(W.double(), dim=1) for W in decoders)
    whole = (base + tuned).clamp_min(torch.finfo(torch.float64).tiny)
    relative = tuned / whole
    cosines = cosine_similarity(decoders.base.double(), decoders.tuned.double(), dim=1, eps=1e-30)
    numbers = torch.zeros(len(relative), dtype=torch.int64)
    numbers[cosines < rotated_below] = GROUPS.index("rotated")
    numbers[relative > own_above] = GROUPS.index("born")
    numbers[base / whole > own_above] = GROUPS.index("died")
    return LatentGroups(relative, cosines, numbers)


@torch.no_grad()
def two_decoders(member: Trainee) -> TwoDecoders:
    """Those of a crosscoder between two models, the base first, as the data's hook points stand.

    Raises:
        UserError: it reconstructs another number of hook points, their widths differ, or a normalisation scales every
            row by itself, so that there is no one scale.
    """
    pair = member.pair
    names = ", ".join(pair.reconstructed_names)
    if len(pair.outputs) != 2 or pair.outputs[0] != pair.outputs[1]:
        raise UserError(
            f"the autoencoder reconstructs {names}, and what fine-tuning changed is told of two hook points of one "
            "width, of the base and of the fine-tuned model: train one by configs/diff.yaml"
        )
    W_dec = member.autoencoder.W_dec.detach().cpu().double()
    rows = []
    for place, block in zip(pair.sides.reconstructed, torch.split(W_dec, list(pair.outputs), dim=1), strict=True):
        factor = pair.normalizations[place].common_factor()  # type: ignore[operator]
        if factor is None:
            raise UserError(
                "model.normalization scales every row by itself, so the decoder rows of two models have no common "
                "scale: set it to DatasetScale"
            )
        rows.append(block / factor.double().cpu())
    return TwoDecoders(*rows)
