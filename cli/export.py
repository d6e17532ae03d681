"""`python main.py export`: a trained autoencoder as files that other libraries load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cli.light_verbs import carry_out


def export(
    *,
    run: str,
    format: Literal["saelens", "sparsify", "safetensors"],
    output: str,
    member: str | None = None,
    checkpoint: str = "last",
    metric: str = "val/fvu",
    direction: Literal["min", "max"] = "min",
    folder: str = "runs",
) -> None:
    """Writes a trained autoencoder as files that other libraries load, with a model card.

    Args:
        run: The run (folder, id or name), the folder of a checkpoint, or what `import` has made.
        format: saelens and sparsify are those libraries' own, with normalisation folded into the weights; safetensors
            is ours and holds every variant.
        output: Folder to make; of a whole sweep it gets a folder a member.
        member: Of a sweep, the one to write; by default all of them.
        checkpoint: Of a run: last, best, or the folder of one.
        metric: What the best checkpoint is chosen by; of a member its own.
        direction: Whether its lowest or highest value is the best.
        folder: The folder of all runs.
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from exports import export_model, find_trained, load_trained, members_of

    names = [member] if member else members_of(find_trained(run, folder))
    for name in names:
        trained = find_trained(run, folder, checkpoint, metric, direction, name)
        place = Path(output) if member or name is None else Path(output, name)
        loading = export_model(load_trained(trained), place, format, trained)
        what = trained.checkpoint.path if name is None else f"{name} of {trained.checkpoint.path}"
        print(f"exported {what} to {place}; load it by\n  {loading}")


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `export`.

    Raises:
        UserError: a setting is unknown or impossible, the run is not complete, or the format cannot hold its model.
    """
    return carry_out(export, "export", arguments[1:])
