"""`python main.py import`: a published autoencoder as a start for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.light_verbs import carry_out


def import_(source: str, *, output: str) -> None:
    """Makes a checkpoint of a published autoencoder, to be measured or trained on.

    Args:
        source: Folder in the format of SAELens, of sparsify, or of export --format safetensors.
        output: Folder to make, such as imported/NAME.
    """
    # imported here: help must not pay for torch
    from cli.quiet import quiet

    quiet()
    from exports import import_autoencoder

    model = import_autoencoder(Path(source), Path(output))
    shapes = ", ".join(f"{name} [{width}]" for name, width in (model.shapes or {}).items())
    autoencoder = model.autoencoder
    print(f"imported {source} as {type(autoencoder).__name__} with {autoencoder.d_sae:,} latents on {shapes}")
    print(f"measure it:  python main.py validate --config configs/sae.yaml --config {output}/config.yaml")
    print(f"train on:    python main.py fit --config configs/sae.yaml --config {output}/config.yaml")


def run(arguments: Sequence[str]) -> int:
    """Carries it out; `arguments` start with `import`.

    Raises:
        UserError: a setting is unknown, or the folder cannot be imported.
    """
    return carry_out(import_, "import", arguments[1:])
