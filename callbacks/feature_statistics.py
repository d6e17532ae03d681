"""What the latents fire on, in TensorBoard: a firing-density histogram and a page of snippets."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from callbacks.markdown import escaped
from lightning_modules.functional import Codes
from lightning_modules.metrics import DENSE_ABOVE, log_density

CANDIDATES = 4
"""Places kept for each one shown, so that there is a choice of documents."""


class FeatureStatistics(Callback):
    """After each validation: the histogram of log10 firing densities, and for some latents the places where they fire
    most, the token marked; of a sweep for each member. Of latents with a sign the places of either sign stand in one
    table, by magnitude.

    The latents are drawn once from `seed`, so that a page can be compared with the one before. Dead ones are left out;
    dense ones, which as a rule mean nothing, stand apart.

    Args:
        latents: how many are watched.
        snippets: places shown for each.
        context: tokens shown on either side of the marked one.
        seed: draws the latents.
    """

    def __init__(
        self, latents: PositiveInt = 48, snippets: PositiveInt = 6, context: PositiveInt = 12, seed: int = 0
    ) -> None:
        self.latents = latents
        self.snippets = snippets
        self.context = context
        self.seed = seed

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._places = {
            prefix: StrongestPlaces(self._watched(member.autoencoder.d_sae), self.snippets, self.context)
            for prefix, member in pl_module.members.prefixed()
        }

    def _watched(self, d_sae: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(d_sae, generator=generator)[: self.latents].sort().values

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Keeps the strongest places of each watched latent."""
        for prefix, codes in outputs["codes"].items():
            self._places[prefix].update(codes, outputs["rows"])

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        for prefix, member in pl_module.members.prefixed():
            density = member.density.cpu()
            page = self._places[prefix].page(trainer.datamodule, density)  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    self._write(logger, prefix, page, density, trainer.global_step)

    @staticmethod
    def _write(logger: TensorBoardLogger, prefix: str, page: str, density: Tensor, step: int) -> None:
        logger.experiment.add_text(f"{prefix}latents", page, step)
        if bool((density > 0).any()):
            logger.experiment.add_histogram(f"{prefix}firing density (log10)", log_density(density), step)


class StrongestPlaces:
    """Where some latents fire most.

    Args:
        watched: [n] numbers of the latents.
        snippets: places shown of each.
        context: tokens shown on either side of a place.
    """

    def __init__(self, watched: Tensor, snippets: int, context: int) -> None:
        self.watched = watched
        self.snippets = snippets
        self.context = context
        self.values = torch.zeros(len(watched), CANDIDATES * snippets)
        self.rows = torch.full((len(watched), CANDIDATES * snippets), -1)

    def update(self, codes: Codes, rows: Tensor) -> None:
        """Takes in a batch; rows [b] are numbers in the store."""
        columns = codes.columns(self.watched.to(rows.device)).T.cpu().float()
        values = torch.cat([self.values, columns], dim=1)
        rows = torch.cat([self.rows, rows.cpu().expand(len(columns), -1)], dim=1)
        best = values.abs().topk(self.values.shape[1], dim=1).indices
        self.values, self.rows = values.gather(1, best), rows.gather(1, best)

    def page(self, data: Any, density: Tensor) -> str:
        """The page of snippets as Markdown; density [d_sae]."""
        tokenizer = data.tokenizer()
        alive = [i for i, latent in enumerate(self.watched) if self.values[i, 0] != 0 and density[latent] > 0]
        alive.sort(key=lambda i: -abs(float(self.values[i, 0])))
        dense = density > DENSE_ABOVE
        sections = {
            "Latents, strongest first": [i for i in alive if not dense[self.watched[i]]],
            f"Dense latents, on over {DENSE_ABOVE:.0%} of the tokens": [i for i in alive if dense[self.watched[i]]],
        }
        return "\n\n".join(
            "\n\n".join([f"## {title}", *(self._table(i, data, tokenizer, density) for i in members)])
            for title, members in sections.items()
            if members
        )

    def _table(self, i: int, data: Any, tokenizer: Any, density: Tensor) -> str:
        latent = int(self.watched[i])
        lines = [
            f"### latent {latent}, on {density[latent]:.3%} of the tokens",
            "",
            "| f | where |",
            "| --- | --- |",
        ]
        for value, row in self.varied(i, data):
            tokens, position = data.snippet(row, self.context, self.context)
            lines.append(f"| {value:.1f} | {marked_snippet(tokenizer, tokens, position)} |")
        return "\n".join(lines)

    def varied(self, i: int, data: Any) -> list[tuple[float, int]]:
        """The strongest places as (value, row), one a document first: a text that repeats itself would fill the
        table.
        """
        fired = self.values[i] != 0
        values, rows = self.values[i][fired].tolist(), self.rows[i][fired]
        documents = data.store.provenance(rows).documents.tolist()
        repeated = [documents.index(document) != place for place, document in enumerate(documents)]
        order = sorted(range(len(values)), key=lambda place: (repeated[place], -abs(values[place])))
        return [(values[place], int(rows[place])) for place in order[: self.snippets]]


def marked_snippet(tokenizer: Any, tokens: list[int], position: int) -> str:
    """The text of some token ids with the one at `position` in bold, safe inside a Markdown table.

    The token's text is what decoding one token more adds, which holds for word pieces and byte pairs alike.
    """
    before, upto, whole = (tokenizer.decode(tokens[:n]) for n in (position, position + 1, len(tokens)))
    if not (upto.startswith(before) and whole.startswith(upto)):
        # a character split over several tokens: the pieces decoded apart are the best that can be shown
        before, upto, whole = _decode_apart(tokenizer, tokens, position)
    token = upto[len(before) :]
    space = " " if token != token.lstrip() else ""
    return f"{escaped(before)}{space}**{escaped(token.strip()) or '␣'}**{escaped(whole[len(upto) :])}"


def _decode_apart(tokenizer: Any, tokens: list[int], position: int) -> tuple[str, str, str]:
    pieces = [
        tokenizer.decode(part) for part in (tokens[:position], tokens[position : position + 1], tokens[position + 1 :])
    ]
    return pieces[0], pieces[0] + pieces[1], "".join(pieces)
