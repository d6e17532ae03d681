"""Whether embeddings have the right width and norm, and put like code near to like.

Shapes: s snippets, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from backbones.encoder import Encoder
from checks.limits import Limits
from checks.snippets import ALIKE, SNIPPETS, Reader, device_of
from checks.verdict import Figure, Verdict


@torch.no_grad()
def check_quality(encoder: Encoder, limits: Limits) -> Verdict:
    """Embeds the snippets with a built encoder."""
    encoder.eval()
    vectors = encoder.encode(Reader(encoder)(list(SNIPPETS.values()), device_of(encoder))).cpu().double()
    return verdict_on(vectors, encoder.width, encoder.normalizes, limits)


def verdict_on(vectors: Tensor, width: int, normalizes: bool, limits: Limits) -> Verdict:
    """What is to be said of the embeddings of the snippets.

    Where the encoder normalises, cosines are the plain products that an index would compute.

    Args:
        vectors: [s, d] float64, in the order of the snippets.
        width: What d should be.
        normalizes: Whether norms should be 1.
        limits: What the figures may be.
    """
    unit = vectors if normalizes else normalize(vectors, dim=1)
    cosines = unit @ unit.T
    pairs = torch.ones_like(cosines, dtype=torch.bool).triu(1)
    alike = torch.zeros_like(pairs)
    alike[tuple(torch.tensor(ALIKE).T)] = True
    like, unlike = float(cosines[alike].min()), float(cosines[pairs & ~alike].max())
    # the product of two vectors whose norms are as far from 1 as they may be
    bound = (1 + limits.norm_error) ** 2
    figures = [Figure("dimension", vectors.shape[1], at_most=width, at_least=width, setting="the encoder's width")]
    if normalizes:
        error = float((vectors.norm(dim=1) - 1).abs().max())
        figures.append(Figure("norm, furthest from 1", error, at_most=limits.norm_error, setting="limits.norm_error"))
    figures += [
        Figure("cosine, lowest", float(cosines[pairs].min()), at_least=-bound),
        Figure("cosine, highest", float(cosines[pairs].max()), at_most=bound),
        Figure("cosine of like snippets, lowest", like),
        Figure("cosine of unlike snippets, highest", unlike),
    ]
    figures += [Figure(f"cosines of {name}", tuple(row)) for name, row in zip(SNIPPETS, cosines.tolist(), strict=True)]
    failures = [] if like > unlike else [f"like snippets (cosine {like:.3f}) are no nearer than unlike ({unlike:.3f})"]
    return Verdict.of("quality", figures, failures)
