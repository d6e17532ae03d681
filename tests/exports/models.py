"""Built models with weights that no part of the arithmetic could get wrong unseen: nothing is 0, 1 or normalised."""

from __future__ import annotations

import torch
from torch import nn

from lightning_modules.autoencoders import (
    AbsTopK,
    Autoencoder,
    BatchTopK,
    DatasetScale,
    Gated,
    HierarchicalTopK,
    JumpReLU,
    MatchingPursuit,
    MatryoshkaBatchTopK,
    Normalization,
    PAnneal,
    ReLU,
    TopK,
    Wiring,
)
from lightning_modules.sparse_autoencoding import SparseAutoencoding

D, S = 6, 20
SETTINGS = {
    ReLU: {},
    PAnneal: {},
    Gated: {},
    JumpReLU: {},
    TopK: {"k": 4},
    AbsTopK: {"k": 4},
    BatchTopK: {"k": 4},
    MatryoshkaBatchTopK: {"k": 4},
    HierarchicalTopK: {"k": 4},
    MatchingPursuit: {"k": 4},
}
"""What makes each variant small."""


def model_of(
    variant: type[Autoencoder],
    wiring: Wiring | None = None,
    normalization: Normalization | None = None,
    widths: tuple[int, ...] = (D,),
    **settings: object,
) -> SparseAutoencoding:
    """A model as a training might leave it."""
    chosen = {**SETTINGS[variant], **settings}
    autoencoder = variant(S, wiring=wiring, **chosen)
    shapes = {f"layer.{number}": width for number, width in enumerate(widths)}
    normalization = DatasetScale() if normalization is None else normalization
    model = SparseAutoencoding(autoencoder, normalization=normalization, shapes=shapes)
    model.configure_model()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    for name, buffer in model.named_buffers():
        if name.endswith(("threshold", "factor", "center")):
            buffer.uniform_(0.3, 0.9)
    with torch.no_grad():
        if isinstance(variant, type) and issubclass(variant, JumpReLU):
            autoencoder.threshold.abs_()
        autoencoder.after_optimizer_step()
    # as the command line would have set them, so that the model knows how it was made
    named = {"class_path": f"lightning_modules.autoencoders.{variant.__name__}", "init_args": {"d_sae": S, **chosen}}
    if wiring is not None:
        kept = {"Skip": ("scale", "affine"), "Transcoder": ()}.get(type(wiring).__name__, ())
        inner = {name: getattr(wiring, name) for name in kept}
        if type(wiring).__name__ == "Transcoder":
            inner = {"skip": wiring.affine}
        path = f"lightning_modules.autoencoders.{type(wiring).__name__}"
        named["init_args"]["wiring"] = {"class_path": path, "init_args": inner}
    model.hparams["autoencoder"] = named
    path = f"lightning_modules.autoencoders.{type(normalization).__name__}"
    model.hparams["normalization"] = {"class_path": path, "init_args": {}}
    return model.eval()


def rows(count: int = 64, width: int = D) -> torch.Tensor:
    """[count, width] activations that are far from mean 0 and unit norm."""
    return torch.randn(count, width) * 3 + torch.linspace(-2, 2, width)


def ours(model: SparseAutoencoding, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [b, s] and ŷ [b, d_out] of a model that reconstructs one hook point."""
    with torch.no_grad():
        codes, (y,) = model(x, *(torch.zeros(len(x), width) for width in list(model.shapes.values())[1:]))
    return codes.dense(), y
