"""What autoencoders make of a few texts: the strongest latents of each token, what is missed, and how a language model
goes on with the reconstruction in its place.

Shapes: n tokens of a text, d width of a hook point, s latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from datamodules.shards import TextRows
from lightning_modules.predictions import Answer, AnswerSettings, Sample, drawn
from lightning_modules.trainee import Trainee
from run_store import UserError

SHOWN_TOKENS = 12
"""The tokens that are missed most, in a table."""

Replace = Callable[[tuple[Tensor, ...]], Mapping[str, Tensor]]


class ReadsTexts(Protocol):
    """What gives the activations of short texts; `datamodules.text_samples.TextSamples` says more."""

    def pieces(self, length: int) -> int:
        """How many texts of so many tokens the validation set has."""

    def stored(self, piece: int, length: int) -> TextRows:
        """One of them."""

    def read(self, texts: Sequence[str], length: int) -> list[TextRows]:
        """Others, read by the model."""

    @property
    def goes_on(self) -> bool:
        """Whether the model is known and predicts the next token."""

    def continued(self, texts: Sequence[TextRows], count: int, replace: Replace | None = None) -> list[str]:
        """How it goes on with them, with what `replace` makes of [k, d] activations in their place."""


@runtime_checkable
class HasTexts(Protocol):
    """A datamodule whose activations are those of text."""

    def text_samples(self) -> ReadsTexts:
        """What reads it."""


class Precision(Protocol):
    """The part of the Trainer's precision plugin that a forward outside of a step needs."""

    def forward_context(self) -> AbstractContextManager[Any]:
        """Around a forward."""

    def convert_input(self, data: Any) -> Any:
        """Tensors in the precision of the weights."""


class Told(NamedTuple):
    """What an autoencoder makes of a text."""

    errors: Tensor
    """[n] Σ‖y − ŷ‖² / Σ‖y − mean‖² of each token, sums over the hook points that are reconstructed."""
    fvu: float
    """The same of all tokens."""
    latents: list[list[tuple[int, float]]]
    """Of each token number and value, the strongest first."""
    l0: float
    """Latents of a token that fire, on average."""


class LatentPredictor:
    """Tells what the members of a sweep, or one autoencoder, make of fixed texts.

    Texts of the validation set come from the store with their activations, so that no model need be loaded for them;
    those of a file are read once. Only a causal language model is asked again, for how it goes on.

    Args:
        members: by prefix, as `Members.prefixed` gives them.
        data: the datamodule.
        precision: of the Trainer.
        samples: the texts; None takes `count` of the validation set.
        count: how many.
        seed: draws them.
        settings: how much is told.

    Raises:
        UserError: the activations are not those of a text, nothing is held out, or texts are to be read and it is not
            known by which model.
    """

    def __init__(
        self,
        members: Callable[[], Iterator[tuple[str, Trainee]]],
        data: object,
        precision: Precision,
        samples: Sequence[Sample] | None,
        count: int,
        seed: int,
        settings: AnswerSettings,
    ) -> None:
        if not isinstance(data, HasTexts):
            raise UserError(f"the activations of {type(data).__name__} are not those of a text that could be read")
        self._members = members
        self._precision = precision
        self._settings = settings
        self._reader = reader = data.text_samples()
        if samples is None:
            self._texts = self._of_the_validation_set(count, seed)
            samples = [Sample(index, text.text) for index, text in enumerate(self._texts)]
        else:
            self._texts = reader.read([sample.prompt for sample in samples], settings.text_tokens)
        self._samples = samples
        self._originals: list[str] | None = None

    def _of_the_validation_set(self, count: int, seed: int) -> list[TextRows]:
        # documents may all be short
        length = self._settings.text_tokens
        while length > 1 and not self._reader.pieces(length):
            length //= 2
        pieces = self._reader.pieces(length)
        if not pieces:
            raise UserError("no document is held out for validation: raise data.validation_share, or give samples")
        return [self._reader.stored(piece, length) for piece in drawn(pieces, count, seed)]

    def answers(self) -> list[Answer]:
        return [answer for prefix, member in self._members() for answer in self._of(prefix.removesuffix("/"), member)]

    def _of(self, name: str, member: Trainee) -> Iterator[Answer]:
        spliced = self._spliced(member)
        for place, (sample, text) in enumerate(zip(self._samples, self._texts, strict=True)):
            told = self._told(member, text)
            prediction: dict[str, Any] = {"kind": "latents", "tokens": _tokens(text, told)}
            if spliced is not None and self._originals is not None:
                prediction["continuation"] = {"original": self._originals[place], "spliced": spliced[place]}
            worst = float(told.errors.max()) if len(told.errors) else math.nan
            scores = {"fvu": told.fvu, "l0": told.l0, "max_error": worst}
            yield Answer(sample, prediction, scores, _shown(sample, text, told, prediction), name)

    def _told(self, member: Trainee, text: TextRows) -> Told:
        if not text.tokens:
            return Told(torch.empty(0), math.nan, [], math.nan)
        activations = [part.to(member.tokens_seen.device) for part in text.activations]
        with self._precision.forward_context():
            pair = member.pair(member.seen(self._precision.convert_input(activations)))
            codes, reconstructions = member.reconstructed(pair)
            means = pair.undo(member.autoencoder.mean.expand(len(pair.y), -1))
        seen = member.seen(activations)
        targets = [seen[place].float() for place in member.pair.sides.reconstructed]
        missed = sum(_squares(y - part.float()) for y, part in zip(targets, reconstructions, strict=True))
        spread = sum(_squares(y - part.float()) for y, part in zip(targets, means, strict=True))
        missed, spread = torch.as_tensor(missed), torch.as_tensor(spread)
        dense = codes.dense().float()
        strongest = dense.abs().topk(min(self._settings.top_k, dense.shape[1]), dim=1).indices.cpu()
        dense = dense.cpu()
        return Told(
            (missed / spread.clamp_min(1e-12)).cpu(),
            float(missed.sum() / spread.sum().clamp_min(1e-12)),
            [
                [(latent, float(row[latent])) for latent in latents.tolist() if row[latent] != 0]
                for row, latents in zip(dense, strongest, strict=True)
            ],
            float((dense != 0).sum(dim=1).float().mean()),
        )

    def _spliced(self, member: Trainee) -> list[str] | None:
        count = self._settings.continuation_tokens
        if not count or not self._reader.goes_on:
            return None
        if self._originals is None:
            self._originals = self._reader.continued(self._texts, count)

        def replace(activations: tuple[Tensor, ...]) -> dict[str, Tensor]:
            own = [part.to(member.tokens_seen.device) for part in activations]
            with self._precision.forward_context():
                reconstructions = member(*self._precision.convert_input(own))[1]
            return dict(zip(member.pair.reconstructed_names, reconstructions, strict=True))

        return self._reader.continued(self._texts, count, replace)


def _squares(rows: Tensor) -> Tensor:
    """[n] of rows [n, d]."""
    return rows.square().sum(dim=1)


def _tokens(text: TextRows, told: Told) -> list[dict[str, Any]]:
    return [
        {"text": token, "error": error, "latents": [list(latent) for latent in latents]}
        for token, error, latents in zip(text.tokens, told.errors.tolist(), told.latents, strict=True)
    ]


def _shown(sample: Sample, text: TextRows, told: Told, prediction: Mapping[str, Any]) -> dict[str, list[str]]:
    worst = told.errors.argsort(descending=True)[:SHOWN_TOKENS].tolist()
    lines = []
    for place in sorted(worst):
        latents = ", ".join(f"{latent}: {value:.2f}" for latent, value in told.latents[place])
        lines.append(f"{text.tokens[place].strip() or '␣'} ({told.errors[place]:.3f}) {latents}")
    shown = {"text": [sample.prompt], "FVU": [f"{told.fvu:.4f}"], "L0": [f"{told.l0:.1f}"], "missed most": lines}
    if "continuation" in prediction:
        shown["goes on"] = [prediction["continuation"]["original"]]
        shown["with the reconstruction"] = [prediction["continuation"]["spliced"]]
    return shown
