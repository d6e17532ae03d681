"""`python main.py export`: a trained model as files that other libraries load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cli.light_verbs import carry_out


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
) -> None:
    """Writes a trained autoencoder or text encoder as files that other libraries load, with a model card.

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
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from exports import find_trained, kind_of

    found = find_trained(run, folder)
    kind = kind_of(found)
    kind.check_format(format)
    for name in [member] if member else kind.members(found):
        best_by = (metric or kind.metric, direction or kind.direction)
        trained = find_trained(run, folder, checkpoint, *best_by, name)
        place = Path(output) if member or name is None else Path(output, name)
        loading = kind.export(trained, place, format).strip().replace("\n", "\n  ")
        what = trained.checkpoint.path if name is None else f"{name} of {trained.checkpoint.path}"
        print(f"exported {what} to {place}; load it by\n  {loading}")


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `export`.

    Raises:
        UserError: a setting is unknown or impossible, the run is not complete, or the format cannot hold its model.
    """
    return carry_out(export, "export", arguments[1:])
