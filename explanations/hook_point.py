"""Where in a text encoder the states are that it pools."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backbones import PaddedTexts, TextEncoder


@torch.inference_mode()
def hook_point_that_is_pooled(encoder: TextEncoder, texts: PaddedTexts) -> str:
    """The hook point whose states are the encoder's last ones, in words.

    Args:
        encoder: built.
        texts: some that it can read.
    """
    backbone = encoder.plain_backbone()
    given = {"input_ids": texts.tokens, "attention_mask": texts.real.long()}
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor):
            seen[name] = first

    hooks = [module.register_forward_hook(partial(keep, name)) for name, module in backbone.named_modules() if name]
    last = backbone(**given).last_hidden_state
    for hook in hooks:
        hook.remove()
    same = [name for name, state in seen.items() if state.shape == last.shape and torch.equal(state, last)]
    # the shallowest is what people name: a layer, not the norm within it
    return min(same, key=lambda name: name.count("."), default="the states behind its last layer")
