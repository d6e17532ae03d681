"""Small autoencoders of the final states of a BERT of two layers, as a training might leave them."""

from __future__ import annotations

import torch

from exports import export_model
from lightning_modules.autoencoders import DatasetScale, TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding

PACKAGE = "lightning_modules.autoencoders"


def autoencoder_of(width: int, hook_point: str = "encoder.layer.1", d_sae: int = 24, k: int = 3) -> SparseAutoencoding:
    """Random unit directions, with a scale and a bias that none of the arithmetic may forget."""
    generator = torch.Generator().manual_seed(1)
    model = SparseAutoencoding(TopK(d_sae, k), normalization=DatasetScale(), shapes={hook_point: width})
    model.configure_model()
    with torch.no_grad():
        directions = torch.nn.functional.normalize(torch.randn(d_sae, width, generator=generator), dim=1)
        model.autoencoder.W_dec.copy_(directions)
        model.autoencoder.W_enc.copy_(directions if model.autoencoder.W_enc.shape[0] == d_sae else directions.T)
        model.autoencoder.b_dec.normal_(std=0.3, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("factor"):
                buffer.fill_(0.7)
    model.hparams["autoencoder"] = {"class_path": f"{PACKAGE}.TopK", "init_args": {"d_sae": d_sae, "k": k}}
    model.hparams["normalization"] = {"class_path": f"{PACKAGE}.DatasetScale", "init_args": {}}
    return model.eval()


def exported(folder, width: int, **settings) -> str:
    """The same as a folder of `export --format safetensors`."""
    export_model(autoencoder_of(width, **settings), folder, "safetensors")
    return str(folder)
