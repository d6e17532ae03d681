"""The README.md beside exported weights: what they are, what they were trained on, and how they measure."""

from __future__ import annotations

from typing import Any

from exports.formats import FormatName
from exports.markdown import front_matter, run_section, table
from exports.provenance import Provenance
from lightning_modules.sparse_autoencoding import SparseAutoencoding

LIBRARY: dict[FormatName, str] = {"saelens": "saelens", "sparsify": "sparsify", "safetensors": "fulgurite"}
FOLDED = (
    "Weights take raw activations: normalisation and centring are folded into them. Latents are told on the scale of "
    "the activations, not on that of training."
)
PLAIN = "Weights are as they were trained; normalisation stands beside them as tensors of its own."


def model_card(model: SparseAutoencoding, format: FormatName, loading: str, provenance: Provenance) -> str:
    """Markdown with the head that model hubs read.

    Args:
        model: built and trained.
        format: of the files.
        loading: what loads them.
        provenance: what is known of their origin.
    """
    autoencoder = model.autoencoder
    head: dict[str, Any] = {"library_name": LIBRARY[format], "tags": ["sparse-autoencoder", "interpretability"]}
    if provenance.model_name and ":" not in provenance.model_name:
        head["base_model"] = provenance.model_name
    widths = [f"{name} [{width}]" for name, width in (model.shapes or {}).items()]
    what = {
        "variant": type(autoencoder).__name__,
        "wiring": type(autoencoder.wiring).__name__,
        "latents": f"{autoencoder.d_sae:,}",
        "read": ", ".join(widths[place] for place in model.only.pair.sides.read),
        "reconstructed": ", ".join(widths[place] for place in model.only.pair.sides.reconstructed),
    }
    parts = [
        front_matter(head),
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


def _data(provenance: Provenance) -> dict[str, Any]:
    return {
        "model": provenance.model_name,
        "text": provenance.dataset,
        **{f"extractor.{name}": value for name, value in provenance.extractor.items() if name != "model"},
        **{f"text.{name}": value for name, value in provenance.text.items()},
        "sha256 of the activations": provenance.store_sha256,
    }
