"""Whether embeddings still tell texts apart."""

from __future__ import annotations


def collapse_sentence(
    mean_cosine: float | None,
    effective_rank: float | None,
    mean_cosine_limit: float | None,
    effective_rank_limit: float | None,
) -> str | None:
    """One sentence that says how embeddings have collapsed and what to do; None where they have not.

    Args:
        mean_cosine: of two different texts; None or nan where it is not known.
        effective_rank: of the embeddings, as `effective_rank()` gives it.
        mean_cosine_limit: from which on they have collapsed; None to leave it out.
        effective_rank_limit: up to which they have.
    """
    signs = []
    if mean_cosine is not None and mean_cosine_limit is not None and mean_cosine >= mean_cosine_limit:
        signs.append(f"two different texts have a mean cosine of {mean_cosine:.4f} (limit {mean_cosine_limit:g})")
    if effective_rank is not None and effective_rank_limit is not None and effective_rank <= effective_rank_limit:
        signs.append(f"the effective rank is {effective_rank:.2f} (limit {effective_rank_limit:g})")
    if not signs:
        return None
    return (
        f"the embeddings have collapsed: {' and '.join(signs)}; go back to a checkpoint from before and lower the "
        "learning rate, make the batch larger or take another loss"
    )
