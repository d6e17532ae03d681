"""A small store of text, and an autoencoder whose latents are known: of the first eight each fires on the token of its
number, latent 9 fires on all, and the others are dead.
"""

from pathlib import Path

import torch

from datamodules.shards import ActivationStore, StoreWriter
from features import BatchRows, Facts, FeatureCollector, Keeping
from lightning_modules.functional import DenseCodes
from reports.dashboard import SpokenFor, Subject
from reports.training_curves import Curve
from tests.reports.predictions import HOSTILE

NAMED = [" the", " cat", " sat", "ting", ".", "\n", HOSTILE, " </script>"]
TEXTS = [*NAMED, *(f" w{number}" for number in range(40))]
LATENTS = 12
ROWS = 6000


def store_of_text(folder: Path, name: str = "story") -> ActivationStore:
    """Documents of 40 tokens each, of which every 66th is a token of each latent's."""
    generator = torch.Generator().manual_seed(3)
    shares = torch.cat([torch.full((8,), 0.015), torch.full((40,), 0.022)])
    tokens = torch.multinomial(shares, ROWS, replacement=True, generator=generator)
    documents, positions = torch.arange(ROWS) // 40, torch.arange(ROWS) % 40
    with StoreWriter(folder, {"layer": 4}, "float32") as writer:
        writer.append({"layer": torch.zeros(ROWS, 4)}, tokens, documents, positions)
        writer.finish({"text": {"tokenizer": "none"}}, [f"{name}-{at}" for at in range(ROWS // 40)])
    return ActivationStore(folder)


def values_of(tokens: torch.Tensor) -> torch.Tensor:
    """[rows, LATENTS]."""
    values = torch.zeros(len(tokens), LATENTS)
    named = (tokens < len(NAMED)).nonzero().flatten()
    values[named, tokens[named]] = 1 + named % 7 / 7
    values[:, 9] = 0.25
    return values


def subject_of(store: ActivationStore, spoken: bool = False, **settings: object) -> Subject:
    rows = torch.arange(store.rows)
    source = store.provenance(rows)
    collector = FeatureCollector(LATENTS, Keeping(strongest=12, sampled=12, reach=5, sampled_entries=10**6))
    collector.update(
        DenseCodes(values_of(source.tokens.long())),
        BatchRows.whole(rows, source.documents.long(), source.tokens.long()),
    )
    W_dec = torch.randn(LATENTS, 4, generator=torch.Generator().manual_seed(1))
    tokens, scores = torch.arange(3).repeat(LATENTS, 1), torch.tensor([3.0, 2.0, 1.0]).repeat(LATENTS, 1)
    return Subject(
        **{
            "name": "tiny",
            "about": {"Autoencoder": "TopK", "Text": HOSTILE},
            "scores": {"fvu": 0.125, "val/fvu": 0.25},
            "facts": Facts.of(collector.features(), W_dec),
            "text_of": TEXTS.__getitem__,
            "texts_of": lambda ids: [TEXTS[token] for token in ids],
            "store": store,
            "curves": [Curve("train/fvu", (1, 2, 3), (0.5, 0.25, 0.125)), Curve("train/dead", (1, 3), (0.0, 0.5))],
            "spoken_for": SpokenFor(tokens, scores, tokens, -scores) if spoken else "There is no unembedding.",
            **settings,
        }
    )
