"""Groups of latents by their two decoder rows."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explanations.latent_groups import GROUPS, TwoDecoders, group_latents, two_decoders
from lightning_modules.autoencoders import BatchTopK, Crosscoder, LayerNormalization, Transcoder
from run_store import UserError
from tests.explanations.readers import D, autoencoding


def rows(*pairs):
    """Base and tuned rows in a plane, each as (length, angle in degrees)."""
    made = [[(r * math.cos(math.radians(a)), r * math.sin(math.radians(a))) for r, a in side] for side in pairs]
    return TwoDecoders(*(torch.tensor(side, dtype=torch.float64) for side in made))


def named(groups):
    return [GROUPS[number] for number in groups.numbers.tolist()]


def test_each_group_by_an_example():
    base = [(1.0, 0), (1.0, 0), (0.1, 0), (3.0, 0), (1.0, 0), (0.0, 0), (0.0, 0)]
    tuned = [(1.0, 10), (1.2, 80), (2.0, 80), (0.5, 0), (1.0, 180), (1.0, 30), (0.0, 0)]
    found = group_latents(rows(base, tuned), 0.7, 0.7)
    assert named(found)[:6] == ["shared", "rotated", "born", "died", "rotated", "born"]
    assert found.relative_norms[2].item() == pytest.approx(2.0 / 2.1)
    assert found.cosines[4].item() == pytest.approx(-1)
    assert found.cosines[5:].tolist() == [0, 0], "a row of zeros has no direction"


@given(st.lists(st.tuples(*[st.floats(0, 10), st.floats(0, 360)] * 2), min_size=1, max_size=8))
def test_to_exchange_the_models_exchanges_born_and_died(latents):
    base, tuned = [each[:2] for each in latents], [each[2:] for each in latents]
    one = group_latents(rows(base, tuned), 0.7, 0.6)
    other = group_latents(rows(tuned, base), 0.7, 0.6)
    exchanged = {"born": "died", "died": "born"}
    for here, there, (b, _, t, _) in zip(named(one), named(other), latents, strict=True):
        if b + t > 1e-6:
            assert there == exchanged.get(here, here)
    assert ((one.relative_norms >= 0) & (one.relative_norms <= 1)).all()


def test_rows_are_those_of_the_activations_own_scale():
    model = autoencoding(BatchTopK(d_sae=12, k=3, wiring=Crosscoder()), ("base/a", "tuned/a"))
    member = model.only
    found = two_decoders(member)
    activations = [torch.randn(5, D) + shift for shift in (0.0, 1.0)]
    codes, reconstructions = member.reconstructed(member.pair(activations))
    pair = member.pair(activations)
    without = pair.undo(member.autoencoder.without_latents(pair.x))
    for W, whole, bias in zip(found, reconstructions, without, strict=True):
        torch.testing.assert_close(codes.dense().double() @ W, (whole - bias).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("autoencoder", "points", "normalization", "message"),
    [
        (BatchTopK(8, 2, wiring=Crosscoder()), ("a", "b", "c"), None, "told of two hook points of one width"),
        (BatchTopK(8, 2), ("a",), None, "told of two hook points of one width"),
        (BatchTopK(8, 2, wiring=Transcoder()), ("a", "b"), None, "told of two hook points of one width"),
        (BatchTopK(8, 2, wiring=Crosscoder()), ("a", "b"), LayerNormalization(), "set it to DatasetScale"),
    ],
)
def test_what_is_no_crosscoder_of_two_is_refused(autoencoder, points, normalization, message):
    with pytest.raises(UserError, match=message):
        two_decoders(autoencoding(autoencoder, points, normalization).only)
