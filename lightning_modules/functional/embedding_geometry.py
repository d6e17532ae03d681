"""How embeddings lie on the unit sphere.

Shapes: n embeddings of different texts, b pairs of texts that belong together, d width. Norms do not count: all rows
are scaled to unit length first.
"""

from __future__ import annotations

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor

from lightning_modules.functional.score_spaces import unit_rows

PAIRS_AT_ONCE = 2**22
"""Pairs whose distances are held at once: 16 MB in float32."""


def alignment(anchors: Tensor, positives: Tensor, alpha: PositiveFloat = 2.0) -> Tensor:
    """[b] float64: ‖a − p‖^α of each pair of rows of [b, d]; its mean is the alignment of Wang & Isola 2020 (arXiv
    2005.10242), 0 at best. With α = 2 it is 2 − 2·cosine.
    """
    distances = torch.linalg.vector_norm(unit_rows(anchors) - unit_rows(positives), dim=1)
    return torch.pow(distances.double(), alpha)


def uniformity(embeddings: Tensor, t: PositiveFloat = 2.0) -> Tensor:
    """log of the mean over all pairs i < j of exp(−t ‖xᵢ − xⱼ‖²) (Wang & Isola 2020, arXiv 2005.10242), a float64
    scalar: 0 where all embeddings are one, about −2t where they fill a sphere of many dimensions; nan with less than
    two embeddings [n, d].
    """
    x, n = unit_rows(embeddings), len(embeddings)
    step = max(1, PAIRS_AT_ONCE // max(1, n))
    logs = []
    for start in range(0, n, step):
        rows = x[start : start + step]
        squares = (2 - 2 * (rows @ x[start:].T)).clamp_(min=0)
        later = torch.ones_like(squares, dtype=torch.bool).triu_(1)
        logs.append((-t * squares).masked_fill_(~later, -torch.inf).double().flatten().logsumexp(0))
    if n < 2:
        return torch.full((), torch.nan, dtype=torch.float64, device=x.device)
    return torch.stack(logs).logsumexp(0) - torch.tensor(n * (n - 1) / 2, dtype=torch.float64, device=x.device).log()


def mean_pairwise_cosine(embeddings: Tensor) -> Tensor:
    """Mean cosine of two different rows of [n, d], a float64 scalar; nan with less than two.

    From the sum of all rows: Σ_{i≠j} xᵢ·xⱼ = ‖Σ xᵢ‖² − Σ ‖xᵢ‖².
    """
    x, n = unit_rows(embeddings).double(), len(embeddings)
    return (x.sum(dim=0).square().sum() - x.square().sum()) / (n * (n - 1) if n > 1 else torch.nan)


def effective_rank(embeddings: Tensor) -> Tensor:
    """exp of the entropy of the singular values of [n, d], divided by their sum (Roy & Vetterli 2007), a float64
    scalar from 1 to min(n, d); nan without embeddings.

    As in RankMe (Garrido et al. 2023, arXiv 2210.02885) the mean is not taken out, so that embeddings that all point
    one way have rank 1. Rows are scaled to unit length, since retrieval sees nothing else. Singular values come from
    the smaller Gram matrix, in float64: min(n, d)³ work.
    """
    x = unit_rows(embeddings).double()
    if not len(x):
        return x.new_full((), torch.nan)
    gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    entropy: Tensor = torch.special.entr(singular / singular.sum()).sum()
    return entropy.exp()
