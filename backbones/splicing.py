"""Reading a model to its end with other vectors at its hook points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backbones.extractor import Extractor
from backbones.hook_points import Visit, run_through
from datamodules.text import TokenBatch
from run_store import UserError


class CleanPass(NamedTuple):
    """A batch of contexts as the model reads it."""

    rows: dict[str, Tensor]
    """What passed at each hook point of the extractor at the kept tokens, float32 [n, d], in the order of the contexts
    and of the tokens in them, on the device of the extractor."""
    kept: Tensor
    """The tokens that the extractor gives rows of, bool [batch, length]."""
    output: Tensor
    """Logits [batch, length, vocabulary] or last hidden states [batch, length, d]."""


class SplicedModel:
    """A model that is read to its end, as it is or with other vectors at its hook points.

    What is replaced are the tokens that the extractor gives rows of, because an autoencoder has learnt no others: what
    passes at special tokens, outliers and whatever else is left out stays as it is.

    Args:
        extractor: The model, its precision, its hook points and its filters. It keeps its own model, or none: here one
            more is loaded at the first reading.
        language_head: Whether the output is the logits of the model's language head, or its last hidden states.
    """

    def __init__(self, extractor: Extractor, language_head: bool) -> None:
        self._extractor = extractor.copied(language_head)
        self._language_head = language_head

    @torch.inference_mode()
    def read(self, batch: TokenBatch) -> CleanPass:
        """Reads a batch, on the CPU, as it is.

        Raises:
            UserError: the model cannot be loaded or gives no such output, the batch does not fit it, or an activation
                is NaN or infinite.
        """
        states: dict[str, Tensor] = {}

        def keep(name: str, passing: Tensor) -> None:
            # A copy, because what runs next may work in place.
            states[name] = passing.clone()

        output = self._run(batch, list(self._extractor.points), keep)
        kept = self._extractor.kept_tokens(states, batch)
        rows = {name: state[kept.to(state.device)].to(kept.device, torch.float32) for name, state in states.items()}
        return CleanPass(rows, kept, output)

    @torch.inference_mode()
    def splice(self, batch: TokenBatch, kept: Tensor, replacements: Mapping[str, Tensor]) -> Tensor:
        """Reads a batch with other vectors at some hook points.

        Args:
            batch: On the CPU.
            kept: bool [batch, length], the n tokens whose vectors are replaced.
            replacements: By hook point what passes there instead: [n, d], or [d] for all of them alike.

        Returns:
            The output, as in `CleanPass`.
        """

        def replace(name: str, passing: Tensor) -> Tensor:
            spliced, where = passing.clone(), kept.to(passing.device)
            spliced[where] = replacements[name].to(passing)
            return spliced

        return self._run(batch, list(replacements), replace)

    def _run(self, batch: TokenBatch, names: Sequence[str], visit: Visit) -> Tensor:
        extractor, points = self._extractor, self._extractor.points
        inputs = extractor.inputs(batch.tokens, batch.lengths)
        with extractor.arithmetic():
            returned = run_through(extractor.load(), {name: points[name] for name in names}, visit, inputs)
        output = getattr(returned, "logits" if self._language_head else "last_hidden_state", None)
        if not isinstance(output, Tensor):
            what = "logits" if self._language_head else "last hidden states"
            raise UserError(
                f"model {extractor.model!r} returns no {what}: set the callback's `measure` to what the model gives"
            )
        return output
