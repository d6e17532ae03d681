"""Which way a model's attention looks, and how to turn it."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from run_store import UserError

SAME = 1e-4
"""Relative change of a hidden state that rounding may make."""


def set_direction(backbone: PreTrainedModel, is_causal: bool | None) -> None:
    """Turns every attention that can be turned; None leaves all as they are.

    The mask is made from the configuration, whose `is_causal` must be set before the model is made; where no mask is
    needed each attention module asks itself.
    """
    if is_causal is None:
        return
    for module in backbone.modules():
        if isinstance(getattr(module, "is_causal", None), bool):
            module.is_causal = is_causal  # type: ignore[assignment]


@torch.no_grad()
def attends_forwards_only(backbone: PreTrainedModel, model: str) -> bool:
    """Whether a token is the same whatever comes after it: seen in what the model does, with padding and without.

    Raises:
        UserError: it is causal with padding and not without, or the other way round.
    """
    device, attention = next(backbone.parameters()).device, backbone.config._attn_implementation
    if device.type == "cpu" and str(attention).startswith("flash"):
        # It runs on a GPU alone, and the model is not there yet; the flags that it reads are the same.
        backbone.set_attn_implementation("sdpa")
    tokens = torch.tensor([[0, 1, 2], [0, 1, 3]], device=device)
    real = torch.ones_like(tokens)
    padded = torch.nn.functional.pad(tokens, (0, 1)), torch.nn.functional.pad(real, (0, 1))
    seen = []
    for input_ids, mask in ((tokens, None), padded):
        first, second = backbone(input_ids=input_ids, attention_mask=mask).last_hidden_state[:, 0].float()
        seen.append(bool((first - second).norm() <= SAME * first.norm()))
    if backbone.config._attn_implementation != attention:
        backbone.set_attn_implementation(attention)
    if seen[0] != seen[1]:
        raise UserError(
            f"model {model!r} looks another way where texts are padded than where they are not: set is_causal to null"
        )
    return seen[0]
