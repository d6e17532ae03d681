"""Why latents are dead, and what of the loss could wake them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_modules.autoencoders import Autoencoder
from run_store import UserError

Cause = Literal["norm", "bias", "direction", "threshold", "selection", "rare"]
CAUSES: dict[Cause, str] = {
    "norm": "the encoder row is next to nothing",
    "bias": "would be above 0 on some row without the bias",
    "direction": "at or below 0 on every row, bias or not",
    "threshold": "above 0 on some row, never above the threshold",
    "selection": "above 0 on some row, never among the largest",
    "rare": "fires on the sample after all",
}
"""What each cause means. A latent has the first that holds, `rare` before all others."""

NEXT_TO_NOTHING = 0.01
"""Share of the living encoder rows' mean norm below which a row counts as having none."""

Reach = Literal["all", "living", "dead", "none"]
"""Which latents' rows of a parameter a loss term has a gradient for: those of both kinds, of one, or of neither."""


class Diagnosis(NamedTuple):
    """What is told of dead latents."""

    rows: int
    """Rows of the sample that the causes were found on."""
    causes: dict[Cause, list[int]]
    """Numbers of the dead latents by cause."""
    reach: dict[str, dict[str, Reach]]
    """By loss term and parameter. A parameter that does not have a row a latent is reached whole or not at all."""

    @classmethod
    def of(cls, autoencoder: Autoencoder, x: Tensor, y: Tensor, dead: Tensor, rows_at_once: int) -> Diagnosis:
        """Of a trained autoencoder, which is left as it was.

        Args:
            autoencoder: the variant.
            x: [b, d_in] a sample.
            y: [b, d_out] what is reconstructed of it.
            dead: [n] numbers of the dead latents.
            rows_at_once: rows that are computed at once; the loss terms are asked about so many, too.
        """
        was_training = autoencoder.training
        # no state may move, and ranks that select over a common batch must not wait for one another here
        autoencoder.eval()
        try:
            causes = find_causes(autoencoder, x, dead, rows_at_once) if len(dead) else {}
            reach = find_reach(autoencoder, x[:rows_at_once], y[:rows_at_once], dead)
        finally:
            autoencoder.train(was_training)
        return cls(len(x), causes, reach)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        dead = sum(len(latents) for latents in self.causes.values())
        return {"rows": self.rows, "dead": dead, "causes": self.causes, "reach": self.reach}

    def in_words(self) -> str:
        """Two small tables as text."""
        dead = sum(len(latents) for latents in self.causes.values())
        lines = [f"why {dead:,} latents are dead, on {self.rows:,} rows of the training split:"]
        lines += [
            f"  {cause:<9}  {len(self.causes[cause]):>6,}  {CAUSES[cause]}" for cause in CAUSES if cause in self.causes
        ]
        names = list(next(iter(self.reach.values())))
        width = max(len(term) for term in self.reach)
        lines += ["which latents' weights each loss term reaches:", _row("", names, names, width)]
        lines += [
            _row(term, ["–" if kind == "none" else kind for kind in reached.values()], names, width)
            for term, reached in self.reach.items()
        ]
        return "\n".join(lines)


def _row(term: str, cells: list[str], names: list[str], width: int) -> str:
    columns = (f"{cell:<{max(len(name), len('living'))}}" for cell, name in zip(cells, names, strict=True))
    return f"  {term:<{width}}  {'  '.join(columns)}".rstrip()


@torch.no_grad()
def find_causes(autoencoder: Autoencoder, x: Tensor, dead: Tensor, rows_at_once: int) -> dict[Cause, list[int]]:
    """Numbers of the dead latents by cause, those that some have, in the order of CAUSES.

    Args:
        autoencoder: in evaluation.
        x: [b, d_in].
        dead: [n], n ≥ 1.
        rows_at_once: rows that are computed at once.
    """
    unbiased, highest, fires = _looked_at(autoencoder, x, dead, rows_at_once)
    norms = torch.linalg.vector_norm(autoencoder.W_enc, dim=1)
    living = torch.ones_like(norms, dtype=torch.bool).index_fill_(0, dead, False)
    usual = norms[living].mean() if living.any() else norms.mean()
    positive = highest > 0
    competing = _latents_compete(autoencoder)
    holds: list[tuple[Cause, Tensor]] = [
        ("rare", fires),
        ("norm", norms[dead] <= NEXT_TO_NOTHING * usual),
        ("bias", ~positive & (unbiased > 0)),
        ("direction", ~positive),
        ("selection" if competing else "threshold", positive),
    ]
    left, found = torch.ones_like(fires), dict[Cause, list[int]]()
    for cause, which in holds:
        found[cause] = dead[left & which].tolist()
        left &= ~which
    return {cause: found[cause] for cause in CAUSES if found.get(cause)}


def _looked_at(autoencoder: Autoencoder, x: Tensor, dead: Tensor, rows_at_once: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the dead latents [n]: the largest pre-activation without and with the bias, and whether they fire."""
    W_enc, wiring = autoencoder.W_enc, autoencoder.wiring
    # a variant may have no bias
    zeros = W_enc.new_zeros(autoencoder.d_sae)
    bias = zeros if autoencoder.b_enc is None else autoencoder.b_enc
    centering = wiring.encoder_bias(W_enc, zeros, autoencoder.b_dec)
    parts = []
    for rows in torch.split(x, rows_at_once):
        z = wiring.project(rows, W_enc, centering, dead)
        both = z, z + bias[dead]
        unbiased, biased = (part.abs() if autoencoder.signed else part for part in both)
        fires = autoencoder.encode(rows).columns(dead) != 0
        parts.append((unbiased.amax(dim=0), biased.amax(dim=0), fires.any(dim=0)))
    unbiased, biased, fires = (torch.stack(column) for column in zip(*parts, strict=True))
    return unbiased.amax(dim=0), biased.amax(dim=0), fires.any(dim=0)


def _latents_compete(autoencoder: Autoencoder) -> bool:
    try:
        return autoencoder.inference().latents_compete
    except UserError:  # a variant that no file format knows does not say
        return False


def find_reach(autoencoder: Autoencoder, x: Tensor, y: Tensor, dead: Tensor) -> dict[str, dict[str, Reach]]:
    """Which parameters each loss term has a gradient for that is not 0, by autograd on one batch.

    Args:
        autoencoder: in evaluation.
        x: [b, d_in].
        y: [b, d_out].
        dead: [n] numbers of the dead latents.
    """
    names, parameters = zip(*autoencoder.named_parameters(), strict=True)
    with_rows = {id(parameter) for parameter in autoencoder.latent_parameters().values()}
    with torch.enable_grad():
        terms = autoencoder.training_pass(x, dead if len(dead) else None, None, y).terms
    found = dict[str, dict[str, Reach]]()
    for term, (value, *_) in terms.items():
        gradients: Sequence[Tensor | None] = [None] * len(parameters)
        if value.requires_grad:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        found[term] = {
            name: _reached(gradient, dead if id(parameter) in with_rows else None)
            for name, parameter, gradient in zip(names, parameters, gradients, strict=True)
        }
    return found


def _reached(gradient: Tensor | None, dead: Tensor | None) -> Reach:
    """Of a gradient with one row a latent, or of any where `dead` is None."""
    if gradient is None or not gradient.any():
        return "none"
    if dead is None or not len(dead):
        return "all"
    rows = gradient.flatten(1).any(dim=1) if gradient.dim() > 1 else gradient != 0
    of_dead = bool(rows[dead].any())
    of_living = bool(rows.index_fill(0, dead, False).any())
    return "all" if of_dead and of_living else "dead" if of_dead else "living"
