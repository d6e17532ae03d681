"""What was gathered of latents as the files that Neuronpedia takes in.

The format is that of SAEDashboard (0.8.0): a folder with run_settings.json, skipped_indexes.json and batch-0.json,
batch-1.json… of some latents each. Numbers have three digits behind the point; there is no NaN and no infinity in them.

Shapes: s latents, d_out width of the reconstruction.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from features import Features
from reports.dashboard.contexts import Context, Shown, contexts
from reports.dashboard.subject import SpokenFor, Subject
from run_store import UserError, atomic_folder, write_json

LATENTS_A_BATCH = 128
INTERVALS = 5
"""Of equal width, from 0 to a latent's largest value."""
STRONGEST = 20
AN_INTERVAL = 5
"""Places shown of each."""
NEURONS = 3
"""Of the reconstruction that a latent writes to most."""
DIGITS = 3
_REPLACED = {math.inf: 9999.0, -math.inf: -9999.0}


@dataclass(frozen=True)
class Filed:
    """What Neuronpedia files an autoencoder by.

    Attributes:
        model: its name of the model.
        layer: number of the layer.
        sae_set: its name of the autoencoders of this kind, one a layer.
        hook_point: what is read.
        dataset: what the text was.
        context_length: tokens of a context.
    """

    model: str
    layer: int
    sae_set: str
    hook_point: str
    dataset: str
    context_length: int

    @classmethod
    def of(cls, subject: Subject, hook_point: str) -> Filed:
        """By what the store says of its rows. Names are made of letters that stand in an address.

        Raises:
            UserError: the hook point has no number of a layer.
        """
        source = subject.store.manifest.source
        text, corpus = source["text"], source["text"].get("corpus", {})
        model = re.split(r"[/:]", str(source.get("extractor", {}).get("model", "unknown")).rstrip("/"))[-1]
        return cls(
            model=model,
            layer=layer_of(hook_point),
            sae_set=re.sub(r"[^A-Za-z0-9.]+", "-", subject.name).strip("-").lower() or "fulgurite",
            hook_point=hook_point,
            dataset=str(corpus.get("name") or corpus.get("class") or ""),
            context_length=int(text.get("context_length") or 0),
        )

    def folder_name(self, d_sae: int) -> str:
        """Of the folder that holds the batches."""
        return f"{self.model}_{self.sae_set}_{self.hook_point}_{d_sae}".replace(":", ".")

    def prompts(self, rows: int) -> int:
        """In how many contexts so many tokens are."""
        return -(-rows // max(1, self.context_length))


def layer_of(hook_point: str) -> int:
    """The number of the layer in a hook point's name.

    Raises:
        UserError: there is none.
    """
    layer = re.search(r"(?<![^.:])\d+(?![^.:])", hook_point)
    if layer is None:
        raise UserError(f"neuronpedia: it files autoencoders by the number of a layer, and {hook_point} has none")
    return int(layer[0])


def write_neuronpedia(
    subject: Subject,
    W_dec: Tensor,
    filed: Filed,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, all: None,
) -> Path:
    """Writes all latents, a file at a time, into a new folder in `folder`, which appears whole or not at all.

    Not measured, and therefore empty: neurons and latents whose values are correlated, and histograms of logits.

    Args:
        subject: the latents.
        W_dec: [s, d_out].
        filed: what they are filed by.
        folder: where.
        on_progress: told the batches that are done and those that there are.

    Returns:
        The folder of the batches.

    Raises:
        UserError: there is something in that folder, or it cannot be written.
    """
    d_sae = len(subject.facts.features.counts)
    place = folder / filed.folder_name(d_sae)
    batches = -(-d_sae // LATENTS_A_BATCH)
    with atomic_folder(place) as partial:
        write_json(partial / "run_settings.json", _settings(subject, filed, place.name))
        skipped = {"model_id": filed.model, "layer": str(filed.layer), "sae_set": filed.sae_set}
        write_json(partial / "skipped_indexes.json", {**skipped, "log_sparsity": 0, "skipped_indexes": []})
        for number in range(batches):
            # in one line: indented, most of it would be blanks
            text = json.dumps(batch_of(subject, W_dec, filed, number), ensure_ascii=False, allow_nan=False)
            (partial / f"batch-{number}.json").write_text(text, encoding="utf-8")
            on_progress(number + 1, batches)
    return place


def batch_of(subject: Subject, W_dec: Tensor, filed: Filed, number: int) -> dict[str, Any]:
    """The content of one file."""
    features = subject.facts.features
    first = number * LATENTS_A_BATCH
    latents = range(first, min(first + LATENTS_A_BATCH, len(features.counts)))
    every = features.sampled.rows.shape[1]
    shown = contexts(subject.store, features, latents, STRONGEST, every)
    return {
        "model_id": filed.model,
        "layer": filed.layer,
        "sae_set": filed.sae_set,
        "sae_id_suffix": None,
        "features": [
            _feature(subject, W_dec[latent], filed, latent, of_one)
            for latent, of_one in zip(latents, shown, strict=True)
        ],
    }


def _settings(subject: Subject, filed: Filed, name: str) -> dict[str, Any]:
    return {
        "sae_set": filed.sae_set,
        "sae_path": filed.hook_point,
        "outputs_dir": name,
        "huggingface_dataset_path": filed.dataset,
        "n_prompts_total": filed.prompts(subject.facts.features.rows),
        "n_tokens_in_prompt": filed.context_length,
        "n_features_at_a_time": LATENTS_A_BATCH,
        "n_quantiles": INTERVALS,
        "top_acts_group_size": STRONGEST,
        "quantile_group_size": AN_INTERVAL,
        "model_id": filed.model,
        "layer": filed.layer,
    }


def _feature(subject: Subject, direction: Tensor, filed: Filed, latent: int, shown: Shown) -> dict[str, Any]:
    features = subject.facts.features
    values, heights = _bars(features, latent)
    return {
        "feature_index": latent,
        **_neurons(direction),
        **{
            f"correlated_{what}_{figure}": []
            for what in ("neurons", "features")
            for figure in ("indices", "l1", "pearson")
        },
        **_tokens(subject, latent),
        "frac_nonzero": round(float(features.density[latent]), 5),
        "freq_hist_data_bar_values": values,
        "freq_hist_data_bar_heights": heights,
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "n_prompts_total": filed.prompts(features.rows),
        "n_tokens_in_prompt": filed.context_length,
        "dataset": filed.dataset,
        "decoder_weights_dist": [],
        "activations": _activations(subject, latent, shown),
        "vector": [],
    }


def _neurons(direction: Tensor) -> dict[str, list[float]]:
    strongest = direction.float().topk(min(NEURONS, len(direction)))
    share = strongest.values.abs() / direction.float().abs().sum().clamp_min(torch.finfo(torch.float32).tiny)
    return {
        "neuron_alignment_indices": strongest.indices.tolist(),
        "neuron_alignment_values": _rounded(strongest.values.tolist()),
        "neuron_alignment_l1": _rounded(share.tolist()),
    }


def _tokens(subject: Subject, latent: int) -> Mapping[str, list[Any]]:
    """For and against, in what the latent says to the vocabulary."""
    spoken = subject.spoken_for
    if not isinstance(spoken, SpokenFor):
        return {"neg_str": [], "neg_values": [], "pos_str": [], "pos_values": []}
    return {
        "neg_str": [subject.text_of(token) for token in spoken.suppressed[latent].tolist()],
        "neg_values": _rounded(spoken.suppressed_scores[latent].tolist()),
        "pos_str": [subject.text_of(token) for token in spoken.promoted[latent].tolist()],
        "pos_values": _rounded(spoken.promoted_scores[latent].tolist()),
    }


def _bars(features: Features, latent: int) -> tuple[list[float], list[int]]:
    """Middles of the bins in use, and how many values are in each."""
    histogram = features.histogram[latent]
    used = int(histogram.nonzero().max()) + 1 if bool(histogram.any()) else 0
    width = float(features.bin_widths[latent])
    return _rounded([(place + 0.5) * width for place in range(used)], 5), histogram[:used].tolist()


def _activations(subject: Subject, latent: int, shown: Shown) -> list[dict[str, Any]]:
    """The places where it fires most, then some of each interval of its range, the highest first."""
    largest = float(subject.facts.features.largest[latent])
    found = [_activation(subject, place, -1, largest, -1) for place in shown.strongest]
    for number in reversed(range(INTERVALS)):
        low, high = (largest * edge / INTERVALS for edge in (number, number + 1))
        # values around a place are kept in half precision, which may lie above the largest
        end = math.inf if number == INTERVALS - 1 else high
        inside = [place for place in shown.sampled if low < abs(place.values[place.marked]) <= end]
        share = share_between(subject.facts.features, latent, low, high)
        found += [_activation(subject, place, low, high, share) for place in inside[:AN_INTERVAL]]
    return found


def share_between(features: Features, latent: int, low: float, high: float) -> float:
    """Share of all rows on which a latent's magnitude is from `low` to `high`, rows where it is 0 among them if `low`
    is; within a bin of its histogram as if values were evenly spread.
    """
    width = float(features.bin_widths[latent])
    counts = features.histogram[latent].double()
    starts = torch.arange(len(counts), dtype=torch.float64) * width
    inside = ((high - starts).clamp(0, width) - (low - starts).clamp(0, width)) / (width or 1.0)
    silent = features.rows - int(features.counts[latent]) if low == 0 else 0
    return (float((counts * inside).sum()) + silent) / max(1, features.rows)


def _activation(subject: Subject, place: Context, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "bin_min": _rounded_one(low),
        "bin_max": _rounded_one(high),
        "bin_contains": _rounded_one(share, 5),
        "tokens": subject.texts_of(place.tokens),
        "values": _rounded(place.values),
        "qualifying_token_index": place.marked,
    }


def _rounded(values: list[float], digits: int = DIGITS) -> list[float]:
    return [_rounded_one(value, digits) for value in values]


def _rounded_one(value: float, digits: int = DIGITS) -> float:
    return 0.0 if math.isnan(value) else round(_REPLACED.get(value, value), digits)
