"""Each part by itself, on a tiny model."""

import copy
import hashlib

import pytest
import torch

from backbones import ConcatenatedEncoder, TextEncoder
from checks import Limits, check_convergence, check_latency, check_loading, check_quality
from checks.few_triplets import FirstExamples, few_triplets
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletFiles
from lightning_modules.losses import InfoNCE
from run_store import UserError

PATIENT = Limits(load_seconds=1e6, convergence_seconds=1e6, single_ms=1e6, gradient_ms=1e6)


def figures(verdict):
    return {figure.name: figure.value for figure in verdict.figures}


@pytest.fixture
def batch_of(triplets, tmp_path):
    """batch_of(encoder, count) → a batch of the first so many triplets."""

    def make(encoder, count=5):
        source = TripletFiles(str(triplets))
        data = TripletDataModule(source, cache=str(tmp_path / "cache"), prompts={"anchor": "red "})
        return few_triplets(FirstExamples(source, count), data, encoder.tokenisations(), count)

    return make


def test_loading_says_what_each_model_is(tiny):
    encoder = ConcatenatedEncoder([TextEncoder(str(tiny)), TextEncoder(str(tiny), normalize=False)])
    verdict = check_loading(encoder, PATIENT)
    assert verdict.passed
    assert len(verdict.figures) == 12
    found = figures(verdict)
    parameters = list(encoder.parts[0].parameters())
    assert found[f"{tiny}, tensors"] == len(parameters) == 103
    assert found[f"{tiny}, size"] == pytest.approx(sum(p.numel() * 4 for p in parameters) / 1e6)
    assert found[f"{tiny}, dtype"] == "float32"
    assert found[f"{tiny}, sha256"] == hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()


def test_loading_names_a_model_that_is_not_there_and_measures_the_others(tiny, tmp_path):
    encoder = ConcatenatedEncoder([TextEncoder(str(tmp_path / "nowhere")), TextEncoder(str(tiny))])
    verdict = check_loading(encoder, PATIENT)
    assert not verdict.passed
    assert "nowhere" in verdict.failures[0]
    assert f"{tiny}, tensors" in figures(verdict)


def test_loading_sees_what_is_wrong_with_all_models_together(tiny):
    verdict = check_loading(ConcatenatedEncoder([TextEncoder(str(tiny))], weights=[1.0, 2.0]), PATIENT)
    assert "weights has 2 numbers" in verdict.failures[0]


def test_loading_sees_weights_that_are_not_finite(make_encoder):
    encoder = make_encoder()
    with torch.no_grad():
        next(encoder.parameters())[0, 0] = torch.nan
    verdict = check_loading(encoder, PATIENT)
    assert "tensors all finite is 102" in verdict.failures[0]


@pytest.mark.parametrize("normalize", [True, False])
def test_quality_of_a_model_that_tells_words_apart(make_encoder, normalize):
    verdict = check_quality(make_encoder(normalize=normalize), PATIENT)
    assert verdict.passed, verdict.failures
    assert figures(verdict)["dimension"] == 16
    assert ("norm, furthest from 1" in figures(verdict)) == normalize


def test_quality_of_models_side_by_side(tiny):
    encoder = ConcatenatedEncoder([TextEncoder(str(tiny)), TextEncoder(str(tiny), pooling="max")])
    encoder.build()
    verdict = check_quality(encoder, PATIENT)
    assert verdict.passed, verdict.failures
    assert figures(verdict)["dimension"] == 32


def test_convergence_trains_a_copy(make_encoder, batch_of, loss, make_optimizer):
    encoder = make_encoder()
    before = copy.deepcopy(encoder.state_dict())
    verdict = check_convergence(encoder, loss, make_optimizer, batch_of(encoder), PATIENT)
    assert verdict.passed, verdict.failures
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_convergence_gives_a_guide_to_a_loss_that_wants_one(make_encoder, batch_of, make_optimizer):
    encoder = make_encoder()
    batch = batch_of(encoder)
    first = [
        figures(check_convergence(encoder, loss, make_optimizer, batch, PATIENT))["loss before training"]
        for loss in (InfoNCE(), InfoNCE(guide_margin=-2.0), InfoNCE(guide_margin=2.0))
    ]
    assert first[0] == first[1] > 0  # no cosine is that much higher than the pair's
    assert first[2] == 0  # every one is that much higher


def test_convergence_of_what_cannot_learn(make_encoder, batch_of, loss):
    encoder = make_encoder()

    def standing(parameters):
        return torch.optim.SGD(parameters, lr=1e-30)

    verdict = check_convergence(encoder, loss, standing, batch_of(encoder), PATIENT)
    assert "did not fall in epoch 1" in verdict.failures[0]


def test_latency_measures_and_leaves_the_model_alone(make_encoder, batch_of, loss, make_optimizer):
    encoder = make_encoder()
    before = copy.deepcopy(encoder.state_dict())
    verdict = check_latency(encoder, loss, make_optimizer, batch_of(encoder, 8), PATIENT)
    assert verdict.passed
    found = figures(verdict)
    assert found["single text, min"] <= found["single text, mean"] <= found["single text, max"]
    assert found["throughput, 40 texts"] > 0
    assert "step on 8 triplets, mean" in found
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_few_triplets_have_prompts_and_leave_no_cache(make_encoder, batch_of, tmp_path):
    encoder = make_encoder()
    batch = batch_of(encoder, 5)
    assert len(batch.examples) == 5
    texts = batch.texts[0]
    first = texts.lengths.cumsum(0) - texts.lengths
    assert len({int(texts.tokens[first[place]]) for place in batch.anchors}) == 1  # the prompt, a word
    assert len({int(texts.tokens[first[place]]) for place in [*batch.anchors, *batch.positives]}) == 2
    assert not (tmp_path / "cache").exists()


def test_too_few_triplets_are_refused(triplets):
    with pytest.raises(UserError, match="has 8 examples and the check needs 9"):
        FirstExamples(TripletFiles(str(triplets)), 9)
