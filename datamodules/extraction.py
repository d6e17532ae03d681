"""From text to a store: what `fit` does when its store is missing."""

from __future__ import annotations

import os
from typing import Any

from tqdm.auto import tqdm

from backbones import Extractor
from datamodules.shards import SHARD_BYTES, Manifest, StoreWriter
from datamodules.text_contexts import TextContexts

FINGERPRINT = "corpus_fingerprint"


def describe_settings(extractor: Extractor, text: TextContexts) -> dict[str, Any]:
    """Every setting that decides what is in a store, known before anything is extracted; plain JSON."""
    return {"extractor": extractor.describe(), "text": text.describe()}


def describe_source(extractor: Extractor, text: TextContexts) -> dict[str, Any]:
    """What a manifest says of its rows' source, known once the text is exhausted; plain JSON."""
    return {**describe_settings(extractor, text), FINGERPRINT: text.fingerprint()}


def extract_to_store(
    extractor: Extractor, text: TextContexts, folder: str | os.PathLike[str], shard_bytes: int = SHARD_BYTES
) -> Manifest:
    """Runs the whole text through the model into a store, with a progress bar that counts tokens.

    Args:
        extractor: the model, its hook points and filters.
        text: the contexts to read.
        folder: of the store, which must not exist yet.
        shard_bytes: upper bound of one hook point's data in a shard.

    Raises:
        UserError: the model or the text cannot be read, an activation is not finite, the folder cannot take the store,
            or the disk is full. Then there is no store.
    """
    with (
        StoreWriter(folder, extractor.shapes(), extractor.store_dtype, shard_bytes) as writer,
        tqdm(total=text.total_tokens, unit=" tokens", unit_scale=True, desc="Extracting activations") as bar,
    ):
        for batch in text.batches():
            writer.append(*extractor(batch))
            bar.update(batch.tokens.numel())
        return writer.finish(describe_source(extractor, text), text.document_names())
