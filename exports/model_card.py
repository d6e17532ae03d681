"""The README.md beside exported weights: what they are, what they were trained on, and how they measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exports.formats import FormatName
from exports.hub_names import hub_name
from exports.markdown import columns, front_matter, run_section, table
from exports.provenance import Provenance
from lightning_modules.sparse_autoencoding import SparseAutoencoding

LIBRARY: dict[FormatName, str] = {"saelens": "saelens", "sparsify": "sparsify", "safetensors": "fulgurite"}
FOLDED = (
    "Weights take raw activations: normalisation and centring are folded into them. Latents are told on the scale of "
    "the activations, not on that of training."
)
PLAIN = "Weights are as they were trained; normalisation stands beside them as tensors of its own."

IN_A_TABLE = ("val/fvu", "val/l0")


def model_card(model: SparseAutoencoding, format: FormatName, loading: str, provenance: Provenance) -> str:
    """Markdown with the head that model hubs read.

    Args:
        model: built and trained.
        format: of the files.
        loading: what loads them.
        provenance: what is known of their origin.
    """
    autoencoder = model.autoencoder
    widths = [f"{name} [{width}]" for name, width in (model.shapes or {}).items()]
    what = {
        "variant": type(autoencoder).__name__,
        "wiring": type(autoencoder.wiring).__name__,
        "latents": f"{autoencoder.d_sae:,}",
        "read": ", ".join(widths[place] for place in model.only.pair.sides.read),
        "reconstructed": ", ".join(widths[place] for place in model.only.pair.sides.reconstructed),
    }
    parts = [
        front_matter(_head(format, provenance)),
        f"# {type(autoencoder).__name__} on {what['read']}\n",
        table(what),
        f"{PLAIN if format == 'safetensors' else FOLDED}\n",
        f"```\n{loading}\n```\n",
        "## Data\n",
        table(_data(provenance)),
        "## Metrics\n",
        table({name: f"{value:.6g}" for name, value in sorted(provenance.metrics.items())}),
        *run_section(provenance.record),
    ]
    return "\n".join(parts)


def sweep_card(format: FormatName, members: Mapping[str, Provenance]) -> str:
    """The card of a folder that holds the models of a sweep, each in a folder by its name with a card of its own."""
    measured = {name: of_one.metrics for name, of_one in members.items()}
    shown = [metric for metric in IN_A_TABLE if any(metric in metrics for metrics in measured.values())]
    rows = [
        (f"[{name}]({name}/README.md)", *(f"{metrics[metric]:.6g}" if metric in metrics else "" for metric in shown))
        for name, metrics in measured.items()
    ]
    parts = [
        front_matter(_head(format, *members.values())),
        f"# {len(members)} sparse autoencoders, trained on the same batches\n",
        columns(("folder", *shown), rows),
    ]
    return "\n".join(parts)


def _head(format: FormatName, *models: Provenance) -> dict[str, Any]:
    """What hubs file models by. All of them have the same data."""
    provenance = models[0]
    return {
        "library_name": LIBRARY[format],
        "tags": ["sparse-autoencoder", "interpretability", "fulgurite"],
        "base_model": hub_name(provenance.model_name),
        "datasets": [provenance.hub_dataset] if provenance.hub_dataset else [],
    }


def _data(provenance: Provenance) -> dict[str, Any]:
    return {
        "model": provenance.model_name,
        "text": provenance.dataset,
        **{f"extractor.{name}": value for name, value in provenance.extractor.items() if name != "model"},
        **{f"text.{name}": value for name, value in provenance.text.items()},
        "sha256 of the activations": provenance.store_sha256,
    }
