"""Neuronpedia's files: their schema, their figures against naive ones, and the library that defines them."""

from __future__ import annotations

import importlib.util
import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from datamodules.shards import ActivationStore, StoreWriter
from features import Facts, FeatureCollector, Keeping
from reports.dashboard import SpokenFor, Subject
from reports.neuronpedia import Filed, share_between, write_neuronpedia
from run_store import UserError
from tests.conftest import missing
from tests.features.streams import Stream

NUMBER, NUMBERS, TEXTS = (int, float), [(int, float)], [str]
# names and kinds as SAEDashboard 0.8.0's NeuronpediaDashboardBatch, …Feature and …Activation take them
ACTIVATION = {
    "bin_min": NUMBER,
    "bin_max": NUMBER,
    "bin_contains": NUMBER,
    "tokens": TEXTS,
    "values": NUMBERS,
    "qualifying_token_index": int,
}
FEATURE = {
    "feature_index": int,
    "neuron_alignment_indices": [int],
    "neuron_alignment_values": NUMBERS,
    "neuron_alignment_l1": NUMBERS,
    "correlated_neurons_indices": [int],
    "correlated_neurons_l1": NUMBERS,
    "correlated_neurons_pearson": NUMBERS,
    "correlated_features_indices": [int],
    "correlated_features_l1": NUMBERS,
    "correlated_features_pearson": NUMBERS,
    "neg_str": TEXTS,
    "neg_values": NUMBERS,
    "pos_str": TEXTS,
    "pos_values": NUMBERS,
    "frac_nonzero": NUMBER,
    "freq_hist_data_bar_values": NUMBERS,
    "freq_hist_data_bar_heights": NUMBERS,
    "logits_hist_data_bar_heights": NUMBERS,
    "logits_hist_data_bar_values": NUMBERS,
    "n_prompts_total": int,
    "n_tokens_in_prompt": int,
    "dataset": str,
    "decoder_weights_dist": NUMBERS,
    "activations": [ACTIVATION],
    "vector": NUMBERS,
}
BATCH = {"model_id": str, "layer": int, "sae_set": str, "sae_id_suffix": (str, type(None)), "features": [FEATURE]}
SETTINGS = {
    "sae_set": str,
    "sae_path": str,
    "outputs_dir": str,
    "huggingface_dataset_path": str,
    "n_prompts_total": int,
    "n_tokens_in_prompt": int,
    "n_features_at_a_time": int,
    "n_quantiles": int,
    "top_acts_group_size": int,
    "quantile_group_size": int,
    "model_id": str,
    "layer": int,
}
D_SAE, D, ROWS, REACH = 150, 6, 400, 3


def check(value, schema, where="batch"):
    """As a JSON schema without additional properties would."""
    if isinstance(schema, dict):
        assert set(value) == set(schema), where
        for name, inner in schema.items():
            check(value[name], inner, f"{where}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        for item in value:
            check(item, schema[0], f"{where}[]")
    else:
        assert isinstance(value, schema), where
        assert not isinstance(value, bool), where
        assert not isinstance(value, float) or math.isfinite(value), where


@pytest.fixture(scope="module")
def stream():
    return Stream.drawn(ROWS, D_SAE, seed=3, levels=9)


@pytest.fixture(scope="module")
def subject(stream, tmp_path_factory):
    """Latents of a drawn stream, whose rows are a store's; 0 is dead."""
    folder = tmp_path_factory.mktemp("neuronpedia") / "store"
    with StoreWriter(folder, {"encoder.layer.2": D}) as writer:
        writer.append({"encoder.layer.2": torch.zeros(ROWS, D)}, stream.tokens, stream.documents, torch.arange(ROWS))
        text = {"tokenizer": "any", "context_length": 32, "corpus": {"class": "Drawn"}}
        source = {"text": text, "extractor": {"model": "owner/model"}}
        writer.finish(source, [f"document {i}" for i in range(int(stream.documents.max()) + 1)])
    keeping = Keeping(strongest=32, sampled=32, reach=REACH)
    collector = FeatureCollector(D_SAE, keeping)
    for codes, rows in stream.batches(64, keeping.neighbours):
        collector.update(codes, rows)
    torch.manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D), dim=1)
    scores = torch.tensor([[math.inf, math.nan]]).expand(D_SAE, 2)
    tokens = torch.tensor([[1, 2]]).expand(D_SAE, 2)
    about = Subject(
        name="My run / k3",
        about={},
        scores={},
        facts=Facts.of(collector.features(), W_dec, 3),
        text_of=str,
        texts_of=lambda ids: [f" {token}" for token in ids],
        store=ActivationStore(folder),
        spoken_for=SpokenFor(tokens, scores, tokens, -scores),
    )
    return about, W_dec


@pytest.fixture(scope="module")
def written(subject, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    about, W_dec = subject
    place = write_neuronpedia(about, W_dec, Filed.of(about, "encoder.layer.2"), folder)
    return place, [json.loads(path.read_text()) for path in sorted(place.glob("batch-*.json"))]


def test_files_and_names(written):
    place, batches = written
    assert place.name == "model_my-run-k3_encoder.layer.2_150"
    assert sorted(path.name for path in place.iterdir()) == [
        "batch-0.json",
        "batch-1.json",
        "run_settings.json",
        "skipped_indexes.json",
    ]
    assert [batch["features"][0]["feature_index"] for batch in batches] == [0, 128]
    check(json.loads((place / "run_settings.json").read_text()), SETTINGS)
    skipped = json.loads((place / "skipped_indexes.json").read_text())
    assert skipped == {
        "model_id": "model",
        "layer": "2",
        "sae_set": "my-run-k3",
        "log_sparsity": 0,
        "skipped_indexes": [],
    }


def test_batches_are_as_the_schema_wants_them(written):
    for batch in written[1]:
        check(batch, BATCH)
    assert sum(len(batch["features"]) for batch in written[1]) == D_SAE


def test_figures_are_those_of_a_naive_count(written, stream, subject):
    for feature in (feature for batch in written[1] for feature in batch["features"]):
        values = stream.dense[:, feature["feature_index"]]
        assert feature["frac_nonzero"] == pytest.approx(float((values > 0).float().mean()), abs=1e-5)
        assert sum(feature["freq_hist_data_bar_heights"]) == int((values > 0).sum())
        assert feature["n_prompts_total"] == 13
        row = subject[1][feature["feature_index"]]
        order = sorted(range(D), key=lambda i: -float(row[i]))[:3]
        assert feature["neuron_alignment_indices"] == order
        assert feature["neuron_alignment_l1"] == pytest.approx(
            [float(row[i].abs() / row.abs().sum()) for i in order], abs=1e-3
        )
        assert feature["pos_values"] == [9999.0, 0.0]
        assert feature["neg_values"] == [-9999.0, 0.0]
        assert feature["pos_str"] == ["1", "2"]


def test_contexts_stand_in_their_intervals(written, stream):
    for feature in (feature for batch in written[1] for feature in batch["features"]):
        values = stream.dense[:, feature["feature_index"]]
        largest = float(values.max())
        top = [place for place in feature["activations"] if place["bin_min"] == -1]
        assert bool(top) == (largest > 0)
        for place in feature["activations"]:
            marked = place["qualifying_token_index"]
            assert len(place["tokens"]) == len(place["values"]) <= 2 * REACH + 1
            if place["bin_min"] == -1:
                assert (place["bin_max"], place["bin_contains"]) == (pytest.approx(largest, abs=1e-3), -1)
            else:
                assert place["bin_min"] - 2e-3 <= place["values"][marked] <= place["bin_max"] + 2e-3
                assert 0 <= place["bin_contains"] <= 1
    dead = written[1][0]["features"][0]
    assert dead["activations"] == dead["freq_hist_data_bar_values"] == []


def test_shares_of_intervals_add_up(subject):
    features = subject[0].facts.features
    for latent in (0, 1, 7, 149):
        largest = float(features.largest[latent])
        edges = [largest * edge / 5 for edge in range(6)]
        shares = [share_between(features, latent, *pair) for pair in pairwise(edges)]
        last = share_between(features, latent, edges[-1], largest + 2 * float(features.bin_widths[latent]))
        whole = shares[0] if largest == 0 else sum(shares) + last
        assert whole == pytest.approx(1.0, abs=1e-6)


def test_a_hook_point_without_a_layer_and_a_folder_with_something_in_it_are_refused(subject, tmp_path):
    about, W_dec = subject
    with pytest.raises(UserError, match="files autoencoders by the number of a layer, and embeddings has none"):
        Filed.of(about, "embeddings")
    assert Filed.of(about, "transformer.h.11:input").layer == 11
    filed = Filed.of(about, "transformer.h.11:input")
    (tmp_path / filed.folder_name(D_SAE)).mkdir()
    (tmp_path / filed.folder_name(D_SAE) / "mine").touch()
    with pytest.raises(UserError, match="there is something in"):
        write_neuronpedia(about, W_dec, filed, tmp_path)


@pytest.mark.peers
def test_the_library_that_defines_the_format_reads_it_and_says_the_same(written):
    # found, not imported: its module of these classes needs numpy alone, and its package transformer_lens and more
    spec = importlib.util.find_spec("sae_dashboard")
    if spec is None:
        missing("needs sae-dashboard: pip install --no-deps 'sae-dashboard>=0.8,<0.9'")
    room = Path(spec.submodule_search_locations[0]) / "neuronpedia"
    theirs = loaded(room / "neuronpedia_dashboard.py")
    for batch in written[1]:
        assert theirs.NeuronpediaDashboardBatch(**batch).to_dict() == batch
    settings = json.loads((written[0] / "run_settings.json").read_text())
    known = loaded(room / "neuronpedia_runner_config.py").NeuronpediaRunnerConfig(**settings)
    assert known.model_id == "model"


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
