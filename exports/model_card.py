"""The README.md beside exported weights: what they are, what they were trained on, and how they measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from exports.formats import FormatName
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
    head = {"library_name": LIBRARY[format], "tags": ["sparse-autoencoder", "interpretability"]}
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
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {type(autoencoder).__name__} on {what['read']}\n",
        _table(what),
        f"{PLAIN if format == 'safetensors' else FOLDED}\n",
        f"```\n{loading}\n```\n",
        "## Data\n",
        _table(_data(provenance)),
        "## Metrics\n",
        _table({name: f"{value:.6g}" for name, value in sorted(provenance.metrics.items())}),
        *_run(provenance),
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


def _run(provenance: Provenance) -> Iterable[str]:
    record = provenance.record
    if record is None:
        return
    git = record.git
    yield "## Training\n"
    yield _table(
        {
            "run": f"{record.name}, {record.id}",
            "ended": record.ended,
            "steps": f"{record.progress.step:,}",
            "code": f"{git.get('commit') or 'no commit'}{' with changes' if git.get('dirty') else ''}",
            "spec": record.spec_fingerprint,
            "exec": record.exec_fingerprint,
            **{name: record.packages[name] for name in ("torch", "lightning") if name in record.packages},
        }
    )
    yield f"```yaml\n{yaml.safe_dump(record.spec, sort_keys=False, allow_unicode=True)}```\n"


def _table(rows: Mapping[str, Any]) -> str:
    known = {name: value for name, value in rows.items() if value not in (None, "", {}, [])}
    if not known:
        return "Not known.\n"
    lines = [f"| {name} | {_cell(value)} |" for name, value in known.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines, ""])


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
