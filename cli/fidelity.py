"""`python main.py fidelity`: how much of an embedding model's retrieval is in the latents of its token states."""

from __future__ import annotations

import json as serial
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from cli.extractors import extractor_of
from cli.light_verbs import carry_out
from cli.trained_autoencoders import trained_autoencoder
from cli.triplet_configs import triplets_of
from run_store import UserError

if TYPE_CHECKING:
    from datamodules.contrastive_triplets import TripletDataModule
    from explanations import StateReader
    from exports import Trained
    from lightning_modules.sparse_autoencoding import SparseAutoencoding

COLUMNS = {
    "index": "index",
    "ndcg@10": "NDCG@10",
    "recall@10": "recall@10",
    "recall@100": "recall@100",
    "of_the_exact_10": "of the exact 10",
    "bytes_per_document": "bytes a text",
    "seconds_per_query": "µs a query",
}


def fidelity(
    *,
    run: str,
    triplets: str,
    split: Literal["validation", "test"] = "test",
    latents: list[PositiveInt] | None = None,
    weighting: list[Literal["norm", "idf"]] | None = None,
    max_length: PositiveInt | None = None,
    checkpoint: str = "last",
    member: str | None = None,
    cache: str | None = None,
    json: bool = False,
    folder: str = "runs",
) -> None:
    """Measures how much of an embedding model's retrieval is in the latents of its token states.

    Two tables: retrieval with reconstructions in the place of the states that are pooled, and by an index of the
    latents alone beside an index of the embeddings.

    Args:
        run: The run (folder, id or name) of an autoencoder of the model's final token states, or a checkpoint of it.
        triplets: Config of the triplets, such as configs/triplets/standard_library.yaml.
        split: Whose anchors look for their positives among whose documents.
        latents: Of each text the sparse indices keep so many; by default 16, 32, 64 and 128, and one keeps all.
        weighting: What a latent that two texts share counts: norm, its decoder row's squared norm, which is its part of
            the embeddings' product; idf, that times the squared logarithm of how rare it is; by default both.
        max_length: Tokens of a text; by default what the model says of itself.
        checkpoint: Of a run: last, best, or the folder of one.
        member: Of a sweep, the autoencoder that is meant.
        cache: Folder of the tokenised triplets; by default what the config says.
        json: Print JSON in place of the tables.
        folder: The folder of all runs.
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from explanations import PooledReader, Retrieved, compare_indices
    from explanations import fidelity as measured
    from lightning_modules.functional import Relevance
    from reports.page_parts import finite

    wanted = "name the run of an autoencoder of its final token states"
    reader = _reader(*trained_autoencoder(run, folder, checkpoint, member, wanted), max_length)
    data = _triplets(triplets, reader, cache)
    table, task = data.table(split), data.retrieval(split)
    pooled = PooledReader(reader)
    queries, documents = (pooled.read(table.texts(ids)) for ids in (task.queries, task.documents))
    asked, found = task.relevant.unbind(dim=1)
    relevance = Relevance(asked, found, found.new_ones(len(found)))
    retrieved = Retrieved(queries, documents, relevance, _own(task.queries, task.documents))
    W_dec = reader.trainee.autoencoder.W_dec.detach()
    figures = {
        "queries": len(task.queries),
        "documents": len(task.documents),
        "fvu": pooled.fvu,
        **measured(retrieved, pooled.mean_state),
        "indices": compare_indices(
            retrieved, W_dec, [*(latents or (16, 32, 64, 128)), None], weighting or ["norm", "idf"]
        ),
    }
    print(serial.dumps(finite(figures), allow_nan=False) if json else as_text(figures))


def as_text(figures: Mapping[str, Any]) -> str:
    """The tables."""
    change = figures["ndcg@10_change"]
    lines = [
        f"{figures['queries']:,} queries, {figures['documents']:,} documents",
        f"FVU of the token states            {figures['fvu']:.4f}",
        f"cosine of embeddings               {figures['embedding_cosine']:.4f}",
    ]
    for way in ("original", "reconstructed", "mean_ablated"):
        lines.append(f"{f'NDCG@10, {way}'.replace('_', ' '):<35}{figures[way]['ndcg@10']:.4f}")
    lines += [
        f"change, with its 95% interval      {change['mean']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})",
        f"NDCG@10 recovered                  {figures['ndcg@10_recovered']:.1%}",
        "",
    ]
    rows = [list(COLUMNS.values())]
    for index in figures["indices"]:
        rows.append([_cell(name, index[name]) if name in index else "" for name in COLUMNS])
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    for first, *others in rows:
        cells = "  ".join(f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        lines.append(f"{first:<{widths[0]}}  {cells}".rstrip())
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if name == "seconds_per_query":
        return f"{value * 1e6:.0f}"
    return f"{value:.0f}" if name == "bytes_per_document" else f"{value:.4f}"


def _reader(trained: Trained, model: SparseAutoencoding, max_length: int | None) -> StateReader:
    from explanations import StateReader, open_reader, single_state

    described = extractor_of(trained)
    if not described:
        raise UserError(
            f"{trained.checkpoint.path} does not say which model its activations are of: name a run that fit has made "
            "with data.extractor set"
        )
    (encoder,) = open_reader(single_state(model), described, max_length).encoders.values()
    encoder.build()
    encoder.eval()
    return StateReader(encoder, model)


def _triplets(config: str, reader: StateReader, cache: str | None) -> TripletDataModule:
    data = triplets_of(config, cache)
    data.mining, data.tokenisations = None, reader.encoder.tokenisations()
    data.prepare_data()
    data.setup()
    return data


def _own(queries: Any, documents: Any) -> Any:
    """[e, 2] places of a query and of the document that is the same text."""
    import torch

    own = torch.isin(queries, documents).nonzero().flatten()
    return torch.stack([own, torch.searchsorted(documents, queries[own])], dim=1)


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `fidelity`.

    Raises:
        UserError: a setting is unknown or impossible, the run is not complete, or its autoencoder is not of the states
            that a model pools.
    """
    return carry_out(fidelity, "fidelity", arguments[1:])
