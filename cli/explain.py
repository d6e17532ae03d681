"""`python main.py explain`: why documents rank as they do for a query, told in latents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from cli.document_files import GivenDocument, read_documents, text_fault
from cli.extractors import extractor_of
from cli.light_verbs import carry_out
from cli.terminal import progress
from cli.trained_autoencoders import trained_autoencoder
from run_store import UserError

if TYPE_CHECKING:
    from explanations import Difference, Explanation
    from exports import Trained
    from lightning_modules.sparse_autoencoding import SparseAutoencoding


WANTED = "train an autoencoder on the states behind its last layer, and name that run"


def explain(
    *,
    run: str,
    query: str,
    documents: list[str] | None = None,
    document: list[str] | None = None,
    triplets: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    side: str | None = None,
    top: PositiveInt = 5,
    show: PositiveInt = 10,
    clamp: list[str] | None = None,
    versus: list[PositiveInt] | None = None,
    refit: NonNegativeInt = 128,
    json: bool = False,
    out: str | None = None,
    query_prompt: str = "",
    document_prompt: str = "",
    max_length: PositiveInt | None = None,
    checkpoint: str = "last",
    member: str | None = None,
    store: str | None = None,
    folder: str = "runs",
) -> None:
    """Ranks documents by their cosine with a query and takes each cosine apart: latents that both texts have, pairs of
    different latents, and an exact residual. The autoencoder must be trained on the token states that the embedding
    model pools, those behind its last layer.

    Args:
        run: The run (folder, id or name), the folder of a checkpoint, or what `import` has made.
        query: The text that is looked for.
        documents: Files of documents: text files with one a line, or JSONL files with one under text, document or
            positive in each row.
        document: A document by itself; may be given several times.
        triplets: Config of triplets, such as configs/triplets/standard_library.yaml: their documents.
        split: Of the triplets, the part whose documents are ranked.
        side: Of a crosscoder between two models, whose ranking is explained, such as base or tuned; by default the
            last one's, beside which the first one's cosine and rank are shown.
        top: Latents and pairs that are told of each document.
        show: Documents that are explained, from the first rank.
        clamp: LATENT=VALUE sets the pooled code of a latent in the query, 0 switches it off; may be several.
        versus: Numbers of two documents, as the ranking shows them behind #: why the first and not the second.
        refit: Latents that are kept of each text, the strongest, and fitted anew to its embedding: fewer say more. 0
            keeps all, with the encoder's codes. Stay well below the width of the embeddings.
        json: Print all of it as JSON.
        out: File for the same as a page of HTML.
        query_prompt: What the model wants in front of a query.
        document_prompt: What it wants in front of a document.
        max_length: Tokens of a text; by default what is saved with the model.
        checkpoint: Of a run: last, best, or the folder of one.
        member: Of a sweep, the one to explain by.
        store: Activation store for labels; by default the one that the run was trained on.
        folder: The folder of all runs.
    """
    given = read_documents(documents or [], document or [], triplets, split)
    clamps = _clamps(clamp or [])
    _check_versus(versus, len(given))
    if fault := text_fault(query):
        raise UserError(f"query {fault}: say what is looked for")
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    trained, model = trained_autoencoder(run, folder, checkpoint, member, WANTED)
    prompts = (query_prompt, document_prompt)
    explanation, difference = _explained(
        trained, model, query, given, side, store, prompts, max_length, clamps, versus, (top, show, refit)
    )
    if out is not None:
        from reports.explanation import write_page

        write_page(explanation, difference, Path(out))
    if json:
        print(_as_json(explanation, difference))
    else:
        from cli.terminal import width
        from reports.explanation import lines_of

        print("\n".join(lines_of(explanation, difference, width())))
        if out is not None:
            print(f"\nopen {out} in a browser")


def _explained(
    trained: Trained,
    model: SparseAutoencoding,
    query: str,
    given: Sequence[GivenDocument],
    side: str | None,
    store: str | None,
    prompts: tuple[str, str],
    max_length: int | None,
    clamps: Mapping[int, float],
    versus: Sequence[int] | None,
    counts: tuple[int, int, int],
) -> tuple[Explanation, Difference | None]:
    from backbones import load_tokenizer
    from cli.latent_labels import labels_of
    from datamodules.token_pieces import TokenPieces
    from explanations import ExplainedRanking, difference, open_reader, refitted, side_named, told

    top, show, most = counts
    reader = open_reader(model.only, extractor_of(trained, store), max_length)
    hook_point = side_named(reader, side)
    read_query = reader.read([query], prompts[0])
    read_documents = reader.read([document.text for document in given], prompts[1])
    reads = read_query[hook_point], read_documents[hook_point]
    split = (refitted(reads[0], most), refitted(reads[1], most)) if most else reads
    ranking = ExplainedRanking(*split, clamps)
    encoder = reader.encoders[hook_point]
    pieces = TokenPieces(load_tokenizer(encoder.model, encoder.revision))
    other = next((name for name in reader.hook_points if name != hook_point), None)
    base = None
    if other is not None:
        of_base = ExplainedRanking(read_query[other], read_documents[other])
        base = (other, of_base.terms.cosine.tolist())
    compared = [number - 1 for number in versus or ()]
    explanation = told(
        query,
        reads,
        given,
        ranking,
        pieces.of_all,
        side=hook_point,
        clamps=clamps,
        base=base,
        top=top,
        shown=[*ranking.order[:show], *compared],
    )
    between = difference(ranking, compared[0], compared[1], max(12, top)) if compared else None
    labels, from_words = labels_of(trained, model, store, list(reads), pieces.of, progress("labelling latents"))
    told_of = {*explanation.labels, *(latent for latent, _, _ in (between.parts if between else ()))}
    return replace(
        explanation,
        labels={latent: labels[latent] for latent in sorted(told_of)},
        about={
            "Model": encoder.model,
            "Hook point": hook_point,
            "Autoencoder": f"{type(model.autoencoder).__name__}, {model.autoencoder.d_sae:,} latents",
            "Codes": f"{most} strongest latents of each text, fitted anew" if most else "as the encoder gives them",
            "Run": trained.record.name if trained.record else str(trained.checkpoint.path),
            "Labels": f"by rule, from {from_words}",
        },
    ), between


def _clamps(given: Sequence[str]) -> dict[int, float]:
    clamps = {}
    for each in given:
        latent, _, value = each.partition("=")
        try:
            clamps[int(latent)] = float(value)
            if not math.isfinite(clamps[int(latent)]):
                raise ValueError(value)
        except ValueError:
            raise UserError(f"clamp: {each!r} is not LATENT=VALUE, such as 12=0") from None
    return clamps


def _check_versus(numbers: Sequence[int] | None, count: int) -> None:
    if numbers is None:
        return
    if len(numbers) != 2 or numbers[0] == numbers[1]:
        raise UserError("versus: name two different documents, by their numbers behind # in the ranking")
    if beyond := [number for number in numbers if number > count]:
        raise UserError(f"versus: there is no document {beyond[0]}: they go from 1 to {count}")


def _as_json(explanation: Explanation, difference: Difference | None) -> str:
    from reports.page_parts import finite

    told = {**asdict(explanation), "versus": None if difference is None else asdict(difference)}
    return json.dumps(finite(told), ensure_ascii=False, allow_nan=False)


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `explain`.

    Raises:
        UserError: a setting is unknown or impossible, a file has no documents, the run is not complete, or its
            autoencoder does not read where an embedding model pools.
    """
    return carry_out(explain, "explain", arguments[1:])
