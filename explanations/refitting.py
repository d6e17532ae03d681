"""Pooled codes that say more of an embedding with fewer latents.

An encoder decides token by token and shrinks what it finds, and what it misses of a token it misses of all of a text.
So the strongest latents of a text are kept and their pooled codes fitted anew to its embedding: inference-time
optimisation (Smith 2024, "Replacing SAE Encoders with Inference-Time Optimisation"), with the encoder's choice and
signs of latents. They must be far fewer than the embedding has dimensions: as many would fit anything.

Shapes: n texts, m kept latents of a text, d width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from explanations.text_latents import TextLatents, decoded
from lightning_modules.functional import Fired

STEPS = 200


def refitted(texts: TextLatents, most: int) -> TextLatents:
    """The same texts with at most `most` latents each: those of the strongest terms g_i ‖W_i‖, with the codes of the
    encoder's sign that leave the least error. The parts still make up the embeddings exactly.
    """
    x = texts.pooled
    norms = torch.linalg.vector_norm(texts.W, dim=1)
    rows, latents, values = [], [], []
    counts = torch.bincount(texts.codes.rows, minlength=len(texts.lengths)).tolist()
    of_each = (torch.split(column, counts) for column in (texts.codes.latents, texts.codes.values))
    for text, (found, codes) in enumerate(zip(*of_each, strict=True)):
        kept = (codes * norms[found]).abs().topk(min(most, len(codes))).indices.sort().values
        found, codes = found[kept], codes[kept]
        signs = codes.sign()
        fitted = signs * non_negative(signs[:, None] * texts.W[found], x[text] - texts.bias[text], codes.abs())
        fires = fitted != 0
        rows.append(torch.full((int(fires.sum()),), text))
        latents.append(found[fires])
        values.append(fitted[fires])
    codes_of_all = Fired(torch.cat(rows), torch.cat(latents), torch.cat(values))
    error = x - texts.bias - decoded(codes_of_all, len(texts.lengths), texts.W)
    return replace(texts, error=error, pooled_codes=codes_of_all)


def non_negative(W: Tensor, target: Tensor, start: Tensor) -> Tensor:
    """g ≥ 0 [m] with a small ‖target − g W‖, by accelerated projected gradient (Beck & Teboulle 2009).

    Args:
        W: [m, d].
        target: [d].
        start: [m] ≥ 0.
    """
    if not len(start):
        return start
    gram, wanted = W @ W.T, W @ target
    step = 1 / gram.abs().sum(dim=1).max().clamp_min(1e-30)  # no longer than 1 / the largest eigenvalue
    best, ahead, momentum = start, start, 1.0
    for _ in range(STEPS):
        new = (ahead - step * (gram @ ahead - wanted)).clamp_min(0)
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / faster * (new - best)
        best, momentum = new, faster
    return best
