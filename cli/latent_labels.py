"""Labels of a run's latents, made once from its activation store and kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run_store import UserError, write_json

if TYPE_CHECKING:
    from explanations import TextLatents
    from exports import Trained
    from lightning_modules.sparse_autoencoding import SparseAutoencoding

KEPT_IN = "latent_labels"
TOKENS = 200_000
"""That are read for labels: some ten seconds of two cores."""
RULE = 1
"""Counted up when labels would be others."""


def labels_of(
    trained: Trained,
    model: SparseAutoencoding,
    store: str | None,
    texts: list[TextLatents],
    text_of: Callable[[int], str],
    on_progress: Callable[[int, int], None],
) -> tuple[list[str], str]:
    """A label for each latent, empty where it gets none; and what they are made from, in words.

    They are kept in RUN_FOLDER/latent_labels for each checkpoint. Where there is no store they are made of the texts at
    hand.

    Args:
        trained: the checkpoint.
        model: its autoencoder, in evaluation.
        store: folder of a store that a person names.
        texts: what was read, for where there is no store.
        text_of: the text of a token id, with the space before it.
        on_progress: told the rows that are done and those that there are.

    Raises:
        UserError: the store that was named cannot be read.
    """
    from explanations import labels_from_store, labels_from_texts
    from reports.dashboard.rows import chosen_ranges, open_store

    shapes = dict(model.only.shapes)
    try:
        opened = open_store(trained.record, store, shapes)
    except UserError as error:
        if store is not None:
            raise
        return labels_from_texts(texts, text_of), f"these texts alone ({error})"
    made_of = {
        "checkpoint": trained.checkpoint.path.name,
        "member": trained.member,
        "store": str(opened.folder),
        "rows": opened.rows,
        "tokens": TOKENS,
        "rule": RULE,
    }
    run = trained.checkpoint.path.parent.parent
    kept = run / KEPT_IN / f"{'-'.join(filter(None, [trained.checkpoint.path.name, trained.member]))}.json"
    words = f"{min(TOKENS, opened.rows):,} tokens of {opened.folder}"
    known = _read(kept)
    if known.get("made_of") == made_of:
        return list(known["labels"]), words
    ranges = chosen_ranges(opened, trained.record, "all", TOKENS)
    labels = labels_from_store(model.only, opened, ranges, text_of, on_progress)
    try:
        kept.parent.mkdir(exist_ok=True)
        write_json(kept, {"made_of": made_of, "labels": labels})
    except (OSError, UserError):
        pass  # a run that may only be read is explained all the same
    return labels, words


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
