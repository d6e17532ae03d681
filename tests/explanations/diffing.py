"""A crosscoder between two tiny embedding models, with the triplets that one of them may have been trained on."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from backbones import Extractor, JointExtractor
from datamodules.activations import ActivationDataModule
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.text_contexts import TextContexts
from datamodules.triplet_texts import TripletTexts
from datamodules.triplets import TripletColumns, TripletFiles
from lightning_modules.autoencoders import BatchTopK, Crosscoder
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from tests.explanations.readers import LAST, save_embedder

VERBS, NOUNS = ("open", "read", "write", "close", "sort", "split"), ("file", "path", "list", "item", "key", "text")
SIDES = (f"base/{LAST}", f"tuned/{LAST}")


def triplets(folder: Path) -> TripletDataModule:
    """36 examples, of which about half are held out for the test."""
    rows = [
        {"anchor": f"{verb} {noun}", "positive": f"{verb} the {noun} of a number", "negative": [f"{noun} and value"]}
        for verb, noun in product(VERBS, NOUNS)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = TripletFiles(str(path), TripletColumns())
    return TripletDataModule(source, validation_share=0.1, test_share=0.5, cache=str(folder / "cache"))


def both_models(folder: Path, tuned_pooling: str = "mean") -> dict[str, str]:
    """Folders of the base and of another model with the same words."""
    for name in ("base", "tuned"):
        (folder / name).mkdir()
    return {
        "base": save_embedder(folder / "base"),
        "tuned": save_embedder(folder / "tuned", seed=1, pooling=tuned_pooling),
    }


def activations(folder: Path, models: dict[str, str]) -> ActivationDataModule:
    """States of both on the texts of all triplets, special tokens too."""
    extractors = {
        name: Extractor(model, [LAST], "float32", "float32", None, "cpu", keep_special_tokens=True)
        for name, model in models.items()
    }
    text = TextContexts(TripletTexts(triplets(folder)), models["base"], 16, packed=False, batch_size=8)
    shares = {"validation_share": 0.2, "test_share": 0.0, "verify": False}
    return ActivationDataModule(
        str(folder / "store"), 32, extractor=JointExtractor(extractors), text=text, block_rows=1, **shares
    )


def crosscoder(**settings: object) -> SparseAutoencoding:
    """One of few latents."""
    return SparseAutoencoding(BatchTopK(d_sae=24, k=4, wiring=Crosscoder()), **settings)
