"""Reading texts with embedding models and an autoencoder on the states that they pool.

Shapes: n texts, t tokens, c texts of a chunk, l tokens of the longest of these, s = d_sae latents, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from backbones import Chunk, Extractor, JointExtractor, RowExtractor, TextEncoder, load_tokenizer
from backbones.chunks import cut
from datamodules.triplets import TokenisedTexts, Tokeniser
from explanations.hook_point import hook_point_that_is_pooled
from explanations.pooled_latents import added_up
from explanations.text_latents import TextLatents, decoded
from lightning_modules.autoencoders import Wiring
from lightning_modules.functional import Fired, pooling_weights
from lightning_modules.trainee import Trainee
from run_store import UserError

TOKENS_AT_ONCE = 2048
ROUNDING = 0.02
"""Distance of unit vectors below which two readings of a text are the same: bfloat16 makes them differ by 0.01, and the
layer before the last one by far more."""


class _Read(NamedTuple):
    """One hook point's part of the tokens of a chunk, float64."""

    weights: Tensor
    """[t]."""
    codes: Fired
    """`rows` counts the t tokens, or the c texts where no token is kept."""
    bias: Tensor
    """[c, d] pooled."""
    error: Tensor
    """[c, d] pooled."""


class LatentReader:
    """Says which latents are in texts, for one or several embedding models whose last states an autoencoder reads: one
    for an autoencoder of one hook point, both sides for a crosscoder between two models.

    Every token that is pooled counts, special ones too, whatever the autoencoder was trained on.

    Args:
        member: the autoencoder, in evaluation.
        extractor: gives the states of its hook points. A copy of it reads, in float32.
        encoders: by hook point, the model that pools the states there; all that are to be told of. The last one says
            how texts are tokenised, for all of them.
    """

    def __init__(self, member: Trainee, extractor: RowExtractor, encoders: Mapping[str, TextEncoder]) -> None:
        self.member = member
        self.encoders = dict(encoders)
        self._extractor = _in_float32(extractor)
        self._checked = False

    @property
    def hook_points(self) -> list[str]:
        """Those that are told of; of a base and a fine-tuned model the fine-tuned one is last."""
        return list(self.encoders)

    def directions(self, hook_point: str) -> Tensor:
        """W [s, d] float64: decoder rows of a hook point as they stand in the weights. Codes are told on the scale that
        makes them right for activations as they are (`TextLatents`)."""
        return self._W[hook_point]

    def load(self) -> None:
        """Loads models and tokenizer; the first reading does it otherwise.

        Raises:
            UserError: the autoencoder's reconstruction is no sum over latents, a hook point is not one that it
                reconstructs, a model pools by maxima, or cannot be loaded.
        """
        pair, autoencoder = self.member.pair, self.member.autoencoder
        wiring = type(autoencoder.wiring)
        if wiring.decode is not Wiring.decode:
            raise UserError(f"{wiring.__name__} decodes latents in its own way, which cannot be taken apart here")
        columns = torch.split(autoencoder.W_dec.detach().cpu().double(), list(pair.outputs), dim=1)
        blocks = dict(zip(pair.reconstructed_names, columns, strict=True))
        self._W: dict[str, Tensor] = {}
        for name, encoder in self.encoders.items():
            if name not in blocks:
                raise UserError(
                    f"the autoencoder reconstructs {', '.join(blocks)} and not {name!r}: choose one of these"
                )
            if encoder.pooling == "max":
                raise UserError(
                    f"model {encoder.model!r} pools by the maximum in each dimension, which is no sum over tokens, and "
                    "latents cannot be told apart in it: choose a model with another pooling"
                )
            self._W[name] = blocks[name].contiguous()
        (how,) = self._last.tokenisations()
        self._tokeniser = Tokeniser(how, sha256="", load=lambda: load_tokenizer(how.tokenizer, how.revision))
        self._extractor.load()

    @torch.no_grad()
    def read(self, texts: Sequence[str], prompt: str = "", by_token: bool = True) -> dict[str, TextLatents]:
        """What is in the texts, by hook point.

        Args:
            texts: n of them.
            prompt: what the model wants in front of each; its tokens count as the text's.
            by_token: whether what fires on each token is kept; else only what that pools to, which of many texts is far
                less.

        Raises:
            UserError: as `load`, a text has no tokens, or a hook point is not where its model pools.
        """
        if not hasattr(self, "_tokeniser"):
            self.load()
        pieces = self._tokeniser([prompt + text for text in texts])
        if bare := [text for text, piece in zip(texts, pieces, strict=True) if not len(piece.ids)]:
            raise UserError(
                f"the tokenizer of {self._last.model!r} makes no tokens of the text {bare[0][:80]!r}: take it out"
            )
        tokens = torch.cat([torch.from_numpy(piece.ids) for piece in pieces]).long()
        lengths = torch.tensor([len(piece.ids) for piece in pieces], dtype=torch.int64)
        truncated = torch.tensor([piece.is_truncated for piece in pieces])
        tokenised = TokenisedTexts(tokens, lengths)
        chunks = cut([tokenised], [TOKENS_AT_ONCE])
        parts = [self._read_chunk(chunk, by_token) for chunk in chunks]
        return {
            name: self._joined(name, tokenised, truncated, chunks, [part[name] for part in parts], by_token)
            for name in self.encoders
        }

    def _read_chunk(self, chunk: Chunk, by_token: bool) -> dict[str, _Read]:
        (padded,) = chunk.texts
        real = padded.real
        states = self._extractor.states(padded.tokens, real.sum(dim=1))
        # states are made in inference mode, and copies of them may be reckoned with
        states = {name: state.float().cpu().clone() for name, state in states.items()}
        if not self._checked:
            self._check_pooling(chunk, states)
            self._checked = True
        rows = [states[name][real] for name in self.member.shapes]
        device = self.member.tokens_seen.device
        pair = self.member.pair([part.to(device) for part in rows])
        codes = self.member.autoencoder.encode(pair.x)
        fired = Fired(*(column.cpu() for column in codes.fired()))
        biases = pair.undo(self.member.autoencoder.without_latents(pair.x))
        names = self.member.pair.reconstructed_names
        read = {}
        for name, encoder in self.encoders.items():
            place = names.index(name)
            weights = pooling_weights(real, encoder.pooling)[real]
            scale = pair.reconstructed[place].scale.double().cpu().expand(len(weights), 1).squeeze(1)
            values = fired.values.double() / scale[fired.rows]
            text = real.nonzero()[:, 0]
            pooled, bias = (
                torch.zeros(len(real), part.shape[1], dtype=torch.float64).index_add_(
                    0, text, part.double().cpu() * weights.unsqueeze(1)
                )
                for part in (states[name][real], biases[place])
            )
            # codes are pooled first, so that what is decoded are c vectors
            weighed = Fired(text[fired.rows], fired.latents, values * weights[fired.rows])
            error = pooled - bias - decoded(weighed, len(real), self._W[name])
            kept = Fired(fired.rows, fired.latents, values) if by_token else added_up(weighed, len(self._W[name]))
            read[name] = _Read(weights, kept, bias, error)
        return read

    def _joined(
        self,
        name: str,
        texts: TokenisedTexts,
        truncated: Tensor,
        chunks: Sequence[Chunk],
        parts: Sequence[_Read],
        by_token: bool,
    ) -> TextLatents:
        """The chunks' parts in the order of the texts."""
        tokens, lengths = texts
        starts = lengths.cumsum(0) - lengths
        weights = torch.zeros(len(tokens), dtype=torch.float64)
        bias, error = (torch.zeros(len(lengths), self._W[name].shape[1], dtype=torch.float64) for _ in range(2))
        rows = []
        for chunk, part in zip(chunks, parts, strict=True):
            real = chunk.texts[0].real
            text, within = real.nonzero().unbind(1)
            numbers = starts[chunk.places][text] + within
            weights[numbers] = part.weights
            bias[chunk.places], error[chunk.places] = part.bias, part.error
            rows.append((numbers if by_token else chunk.places)[part.codes.rows])
        order = torch.cat(rows).sort(stable=True)
        latents, values = (
            torch.cat([getattr(part.codes, column) for part in parts])[order.indices]
            for column in ("latents", "values")
        )
        codes = Fired(order.values, latents.long(), values)
        of_tokens, of_texts = (codes, None) if by_token else (Fired(*(column[:0] for column in codes)), codes)
        return TextLatents(self._W[name], tokens, lengths, truncated, weights, of_tokens, bias, error, of_texts)

    def _check_pooling(self, chunk: Chunk, states: Mapping[str, Tensor]) -> None:
        """Raises:
        UserError: what is pooled of the states of a hook point is no embedding of its model.
        """
        (padded,) = chunk.texts
        for name, encoder in self.encoders.items():
            encoder.build()
            encoder.eval()
            weights = pooling_weights(padded.real, encoder.pooling).float().unsqueeze(2)
            # what stands on padding may be infinite
            ours = (states[name].masked_fill(~padded.real.unsqueeze(2), 0) * weights).sum(dim=1)
            theirs = encoder.encode_padded(padded).cpu()
            apart = torch.linalg.vector_norm(normalize(ours, dim=1) - normalize(theirs, dim=1), dim=1).max()
            if not float(apart) < ROUNDING:
                raise UserError(
                    f"hook point {name!r} is not where model {encoder.model!r} pools its embeddings from: train the "
                    f"autoencoder on {hook_point_that_is_pooled(encoder, padded)}"
                )

    @property
    def _last(self) -> TextEncoder:
        return list(self.encoders.values())[-1]


def _in_float32(extractor: RowExtractor) -> RowExtractor:
    """A copy that reads in full precision."""
    other = extractor.copied()
    each = list(other.extractors.values()) if isinstance(other, JointExtractor) else [other]
    for one in each:
        if isinstance(one, Extractor):
            one.precision = "float32"
    return other
