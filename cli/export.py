"""`python main.py export`: a trained model as files that other libraries load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cli.light_verbs import carry_out
from run_store import UserError


def export(
    *,
    run: str,
    format: Literal["saelens", "sparsify", "safetensors", "sentence-transformers", "onnx"],
    output: str,
    member: str | None = None,
    checkpoint: str = "last",
    metric: str | None = None,
    direction: Literal["min", "max"] | None = None,
    folder: str = "runs",
    push_to_hub: str | None = None,
    private: bool = False,
    revision: str | None = None,
) -> None:
    """Writes a trained autoencoder or text encoder as files that other libraries load, with a model card, and puts them
    on the Hugging Face hub if that is asked for.

    Args:
        run: The run (folder, id or name), the folder of a checkpoint, or what `import` has made.
        format: Of an autoencoder, saelens and sparsify are those libraries' own, with normalisation folded into the
            weights, and safetensors is ours and holds every variant. Of a text encoder, sentence-transformers or onnx.
        output: Folder to make; of a whole sweep it gets a folder a member.
        member: Of a sweep, the one to write; by default all of them.
        checkpoint: Of a run: last, best, or the folder of one.
        metric: What the best checkpoint is chosen by, of a member its own; by default val/fvu of an autoencoder and
            val/ndcg@10 of a text encoder.
        direction: Whether its lowest or highest value is the best; by default as the default metric wants it.
        folder: The folder of all runs.
        push_to_hub: OWNER/NAME of the repository that the folder becomes, made if it is not there; the token is what
            `hf auth login` has left, or HF_TOKEN.
        private: Makes a new repository private.
        revision: Branch of the repository; by default the main one.
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from exports import HubRepository, find_trained, kind_of, write_sweep_card

    if push_to_hub is None and (private or revision):
        raise UserError(f"{'private' if private else 'revision'} is about a repository: name it by push_to_hub")
    found = find_trained(run, folder)
    kind = kind_of(found)
    kind.check_format(format)
    members = [member] if member else kind.members(found)
    is_sweep = member is None and members != [None]
    repository = None if push_to_hub is None else HubRepository(push_to_hub, private, revision)
    if repository is not None:
        repository.check()
        if is_sweep:
            _refuse_filled(Path(output))
    written = {}
    for name in members:
        best_by = (metric or kind.metric, direction or kind.direction)
        trained = find_trained(run, folder, checkpoint, *best_by, name)
        place = Path(output, name) if is_sweep and name else Path(output)
        loading = kind.export(trained, place, format).strip().replace("\n", "\n  ")
        what = trained.checkpoint.path if name is None else f"{name} of {trained.checkpoint.path}"
        print(f"exported {what} to {place}; load it by\n  {loading}")
        written[name or ""] = trained
    if repository is not None:
        if is_sweep:
            write_sweep_card(Path(output), format, written)
        print(f"pushed to {repository.push(Path(output), f'Export as {format}')}")


def _refuse_filled(folder: Path) -> None:
    """All that is in the folder is pushed, so nothing else may be."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"output: there is something in {folder}, and all of it would be pushed: choose another folder")


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `export`.

    Raises:
        UserError: a setting is unknown or impossible, the run is not complete, or the format cannot hold its model.
    """
    return carry_out(export, "export", arguments[1:])
