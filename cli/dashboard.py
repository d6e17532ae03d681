"""`python main.py dashboard`: what an autoencoder has learnt, as a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import PositiveInt

from cli.light_verbs import carry_out
from cli.terminal import progress

if TYPE_CHECKING:
    from torch import Tensor

    from datamodules.shards import ActivationStore
    from exports import Trained
    from lightning_modules.sparse_autoencoding import SparseAutoencoding
    from reports.dashboard import SpokenFor, Subject

FOLDER = "dashboard"


def dashboard(
    *,
    run: str,
    out: str | None = None,
    checkpoint: str = "last",
    member: str | None = None,
    store: str | None = None,
    rows: Literal["all", "train", "validation", "test"] = "all",
    tokens: PositiveInt | None = 1_000_000,
    contexts: PositiveInt = 12,
    sampled: PositiveInt = 8,
    unembedding: bool = True,
    neuronpedia: str | None = None,
    folder: str = "runs",
) -> None:
    """Writes a page that shows every latent of a trained autoencoder: a folder of files to open in a browser.

    Args:
        run: The run (folder, id or name), the folder of a checkpoint, or what `import` has made.
        out: Folder for the page, by default RUN_FOLDER/dashboard; of a whole sweep each member gets a folder in it.
        checkpoint: Of a run: last, best, or the folder of one.
        member: Of a sweep, the one to show; by default all of them.
        store: Activation store to read; by default the one that the run was trained on.
        rows: Documents to read: all, or those of one split.
        tokens: At most so many rows, of documents that are drawn; null reads all.
        contexts: Texts shown of each latent from where it fires most.
        sampled: Texts shown of each latent from its whole range.
        unembedding: Load the model for the tokens that latents speak for, where it predicts tokens.
        neuronpedia: Folder for the same latents as Neuronpedia takes them in; by default they are not written.
        folder: The folder of all runs.
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from exports import find_trained, holds_encoder, load_trained, members_of
    from reports.dashboard import refuse_other_content, write_site
    from reports.neuronpedia import Filed, layer_of, write_neuronpedia
    from run_store import UserError

    found = find_trained(run, folder, checkpoint if checkpoint != "best" else "last")
    if holds_encoder(found):
        raise UserError(f"{run} trained a text encoder, which has no latents to show")
    for name in [member] if member else members_of(found):
        trained = find_trained(run, folder, checkpoint, "val/fvu", "min", name)
        place = Path(out) if out else trained.checkpoint.path.parent.parent / FOLDER
        if not member and name is not None:
            place = place / name
        refuse_other_content(place)
        model = load_trained(trained)
        if neuronpedia is not None:
            layer_of(model.only.pair.read_names[0])  # before the pass, which takes its time
        subject = _subject(trained, model, store, rows, tokens, (contexts, sampled), unembedding)
        size = write_site(subject, place, progress("writing"))
        print(f"wrote {size / 1e6:.1f} MB; open {place / 'index.html'} in a browser")
        if neuronpedia is not None:
            filed = Filed.of(subject, model.only.pair.read_names[0])
            W_dec = model.autoencoder.W_dec.detach()
            batches = write_neuronpedia(subject, W_dec, filed, Path(neuronpedia), progress("writing for Neuronpedia"))
            print(f"wrote {batches} for Neuronpedia")


def _subject(
    trained: Trained,
    model: SparseAutoencoding,
    store: str | None,
    rows: Literal["all", "train", "validation", "test"],
    tokens: int | None,
    shown: tuple[int, int],
    unembedding: bool,
) -> Subject:
    import torch

    from backbones import load_tokenizer
    from datamodules.token_pieces import TokenPieces
    from features import Facts
    from lightning_modules.feature_pass import feature_pass
    from reports.dashboard import Subject, curve_names
    from reports.dashboard.rows import chosen_ranges, open_store
    from reports.training_curves import read_curves

    shapes = dict(model.only.shapes)
    opened = open_store(trained.record, store, shapes)
    ranges = chosen_ranges(opened, trained.record, rows, tokens)
    if torch.cuda.is_available():
        model.cuda()
    passed = feature_pass(model.only, opened, list(shapes), ranges, on_progress=progress("reading rows"))
    model.cpu()
    text = opened.manifest.source["text"]
    pieces = TokenPieces(load_tokenizer(text["tokenizer"], text.get("revision")))
    run = trained.checkpoint.path.parent.parent
    prefix = f"{trained.member}/" if trained.member else ""
    name = trained.record.name if trained.record else run.name
    return Subject(
        name=f"{name} {trained.member or ''}".strip(),
        about=_about(trained, model, opened, ranges, passed.features.rows, rows),
        scores={**passed.scores, **trained.metrics},
        facts=Facts.of(passed.features, model.autoencoder.W_dec.detach()),
        text_of=pieces.of,
        texts_of=pieces.of_all,
        store=opened,
        curves=read_curves(run, curve_names(), prefix),
        spoken_for=_spoken_for(model, opened) if unembedding else "The unembedding was not asked for.",
        strongest=shown[0],
        sampled=shown[1],
    )


def _about(
    trained: Trained, model: SparseAutoencoding, store: ActivationStore, ranges: Tensor, rows: int, part: str
) -> dict[str, str]:
    source = store.manifest.source
    pair, wiring = model.only.pair, type(model.autoencoder.wiring).__name__
    read, reconstructed = ", ".join(pair.read_names), ", ".join(pair.reconstructed_names)
    corpus = source["text"].get("corpus", {})
    about = {
        "Autoencoder": f"{type(model.autoencoder).__name__}, {model.autoencoder.d_sae:,} latents"
        + ("" if read == reconstructed else f", {wiring}"),
        "Reads": read,
        "Reconstructs": "" if read == reconstructed else reconstructed,
        "Model": str(source.get("extractor", {}).get("model", "")),
        "Text": str(corpus.get("name") or corpus.get("class") or ""),
        "This page": f"{rows:,} tokens of {len(ranges):,} documents" + ("" if part == "all" else f" ({part})"),
        "Checkpoint": f"step {trained.checkpoint.step:,}",
    }
    return {name: words for name, words in about.items() if words}


def _spoken_for(model: SparseAutoencoding, store: ActivationStore) -> SpokenFor | str:
    """What each latent's decoder row says to the vocabulary, or why nothing."""
    from backbones import Unembedding
    from reports.dashboard import SpokenFor

    extractor: dict[str, Any] = store.manifest.source.get("extractor", {})
    name = extractor.get("model")
    if not isinstance(name, str):
        return "The store names no single model, so there is no unembedding."
    found = Unembedding.of(name, extractor.get("revision"), extractor.get("remote_code_of"))
    if found is None:
        return "This model was saved without a head that predicts tokens."
    widths = list(model.only.pair.outputs)
    direction = model.autoencoder.W_dec.detach()[:, sum(widths[:-1]) :]
    if direction.shape[1] != found.weights.shape[1]:
        return (
            f"What is reconstructed has width {direction.shape[1]} and the unembedding reads {found.weights.shape[1]}."
        )
    promoted, promoted_scores, suppressed, suppressed_scores = found.strongest(direction, 10)
    return SpokenFor(promoted, promoted_scores, suppressed, suppressed_scores)


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `dashboard`.

    Raises:
        UserError: a setting is unknown or impossible, the run is not complete, or its rows cannot be read.
    """
    return carry_out(dashboard, "dashboard", arguments[1:])
