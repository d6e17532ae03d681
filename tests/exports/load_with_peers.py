"""Run in an environment that has the rival libraries: load_with_peers.py saelens|sparsify FOLDER.

FOLDER has a folder for each exported autoencoder, and inputs.safetensors with its rows under its name. What the real
library makes of them goes to outputs.safetensors: NAME.output and NAME.latents.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def with_saelens(folder, x):
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder)
    return sae(x), sae.encode(x)


def with_sparsify(folder, x):
    from sparsify import SparseCoder

    coder = SparseCoder.load_from_disk(folder)
    result = coder(x)
    latents = torch.zeros(len(x), coder.num_latents)
    return result.sae_out, latents.scatter(1, result.latent_indices, result.latent_acts)


if __name__ == "__main__":
    library, folder = sys.argv[1], Path(sys.argv[2])
    load = {"saelens": with_saelens, "sparsify": with_sparsify}[library]
    found = {}
    with torch.no_grad():
        for name, x in load_file(folder / "inputs.safetensors").items():
            found[f"{name}.output"], found[f"{name}.latents"] = load(folder / name, x)
    save_file({name: value.contiguous() for name, value in found.items()}, folder / "outputs.safetensors")
