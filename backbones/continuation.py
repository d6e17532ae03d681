"""How a causal language model goes on, as it is and with other vectors at its hook points.

Shapes: b contexts of one length, n tokens that are read at once, k tokens of these that give rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from backbones.extractor import Extractor
from backbones.hook_points import run_through
from backbones.refusals import readable_positions
from datamodules.text import TokenBatch
from run_store import UserError

Replace = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""From what passes at every hook point, float32 [k, d] on the CPU, to what is to pass at some of them, [k, d]."""


class _Instead(NamedTuple):
    """What passes in the place of something else."""

    kept: Tensor
    """bool [b, n], with k that are true."""
    vectors: Mapping[str, Tensor]
    """[k, d] by hook point."""


class GreedyContinuation:
    """Goes on with contexts by the likeliest token each time. Keys and values are kept from token to token, so that
    each is computed once.

    What is replaced in the contexts are the tokens that the extractor gives rows of, as in `SplicedModel`, and all
    tokens that come behind them.

    Args:
        extractor: The model, its precision, its hook points and its filters; here one more copy of the model is loaded
            with its language head, at the first use.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor.copied(language_head=True)

    @torch.inference_mode()
    def __call__(self, batch: TokenBatch, count: int, replace: Replace | None = None) -> Tensor:
        """The next tokens, int64 [b, count] on the CPU; fewer where the model has no more positions.

        Args:
            batch: Contexts without padding, on the CPU.
            count: How many tokens are to follow.
            replace: What passes instead; None leaves the model as it is.

        Raises:
            UserError: the model cannot be loaded, keeps no keys and values, or the contexts do not fit it.
        """
        positions = readable_positions(self._extractor.load())
        if positions is not None:
            count = min(count, positions - batch.tokens.shape[1])
        tokens, caches, following = batch.tokens, (DynamicCache(), DynamicCache()), list[Tensor]()
        for place in range(max(0, count)):
            instead = None
            if replace is not None:
                states = self._states(tokens, caches[1])
                kept = self._kept(states, batch, first=place == 0)
                instead = _Instead(kept, replace(_rows(states, kept)))
            logits = self._logits(tokens, caches[0], instead)
            tokens = logits[:, -1].argmax(dim=-1, keepdim=True).cpu()
            following.append(tokens)
        return torch.cat(following, dim=1) if following else batch.tokens[:, :0]

    def _kept(self, states: Mapping[str, Tensor], batch: TokenBatch, first: bool) -> Tensor:
        """bool [b, n]."""
        if first:
            return self._extractor.kept_tokens(states, batch).cpu()
        return torch.ones(next(iter(states.values())).shape[:2], dtype=torch.bool)

    def _states(self, tokens: Tensor, cache: DynamicCache) -> dict[str, Tensor]:
        """What passes at the hook points when nothing is replaced. The model is read to its end: a forward that stops
        at the last hook point might not have reached the layer by which a cache counts its tokens.
        """
        states: dict[str, Tensor] = {}

        def keep(name: str, passing: Tensor) -> None:
            # A copy, because what runs next may work in place.
            states[name] = passing.clone()

        with self._extractor.arithmetic():
            run_through(self._extractor.load(), self._extractor.points, keep, self._inputs(tokens, cache))
        return states

    def _logits(self, tokens: Tensor, cache: DynamicCache, instead: _Instead | None) -> Tensor:
        """[b, n, vocabulary]."""

        def splice(name: str, passing: Tensor) -> Tensor:
            assert instead is not None
            spliced = passing.clone()
            spliced[instead.kept.to(passing.device)] = instead.vectors[name].to(passing)
            return spliced

        points = {name: self._extractor.points[name] for name in instead.vectors} if instead else {}
        with self._extractor.arithmetic():
            output = run_through(self._extractor.load(), points, splice, self._inputs(tokens, cache))
        if getattr(output, "past_key_values", None) is not cache:
            raise UserError(
                f"model {self._extractor.model!r} keeps no keys and values to go on from: set continuation_tokens to 0"
            )
        logits: Tensor = output.logits
        return logits

    def _inputs(self, tokens: Tensor, cache: DynamicCache) -> dict[str, Any]:
        return {**self._extractor.inputs(tokens), "past_key_values": cache, "use_cache": True}


def _rows(states: Mapping[str, Tensor], kept: Tensor) -> dict[str, Tensor]:
    return {name: state[kept.to(state.device)].to("cpu", torch.float32) for name, state in states.items()}
