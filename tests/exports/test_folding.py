"""A folded model against the model itself, in float64, with the map written out naively."""

import pytest
import torch

from exports import fold
from exports.folding import Folded
from lightning_modules.autoencoders import (
    Crosscoder,
    DatasetScale,
    Gate,
    JumpReLU,
    LargestMagnitudes,
    LargestValues,
    LayerNormalization,
    MatchingPursuit,
    NoNormalization,
    Pursuit,
    Rectifier,
    ReLU,
    Skip,
    Thresholds,
    TopK,
    Transcoder,
)
from run_store import UserError
from tests.exports.models import SETTINGS, D, model_of, rows


def rectified(activation, z):
    return z.relu()


def largest(activation, z):
    kept = torch.zeros_like(z)
    for row, values in enumerate(z.relu()):
        for latent in sorted(range(len(values)), key=lambda i: -values[i])[: activation.k]:
            kept[row, latent] = values[latent]
    return kept


def largest_magnitudes(activation, z):
    kept = torch.zeros_like(z)
    for row, values in enumerate(z):
        for latent in sorted(range(len(values)), key=lambda i: -abs(values[i]))[: activation.k]:
            kept[row, latent] = values[latent]
    return kept


def thresholded(activation, z):
    return torch.where(z > activation.threshold, z, torch.zeros_like(z))


def gated(activation, z):
    return torch.where(z > 0, (z * activation.r_mag.exp() + activation.offset).relu(), torch.zeros_like(z))


NAIVE = {
    Rectifier: rectified,
    LargestValues: largest,
    LargestMagnitudes: largest_magnitudes,
    Thresholds: thresholded,
    Gate: gated,
}


def pursued(folded: Folded, x):
    latents = torch.zeros(len(x), len(folded.W_dec), dtype=x.dtype)
    for row in range(len(x)):
        left = x[row] - folded.b_dec
        for _ in range(folded.activation.steps):
            values = folded.W_dec @ left
            best = int(values.argmax())
            if values[best] <= 0:
                break
            latents[row, best] += values[best]
            left = left - values[best] * folded.W_dec[best]
            if left.norm() < folded.activation.residual_threshold:
                break
    return latents


def told(folded: Folded, x):
    """Latents and ŷ as the docstring of Folded has them."""
    if folded.per_row:
        mean, std = x.mean(dim=1, keepdim=True), (x.var(dim=1, keepdim=True, correction=0) + 1e-5).sqrt()
        x = (x - mean) / std
    if isinstance(folded.activation, Pursuit):
        latents = pursued(folded, x)
    else:
        latents = NAIVE[type(folded.activation)](folded.activation, x @ folded.W_enc.T + folded.bias)
    y = latents @ folded.W_dec + folded.b_dec
    if folded.W_skip is not None:
        y = y + x @ folded.W_skip
    return latents, y * std + mean if folded.per_row else y


def check(model, x, *others):
    """ŷ and which latents fire are those of the model."""
    model.double()
    with torch.no_grad():
        codes, (expected,) = model(x.double(), *(other.double() for other in others))
        folded = fold(model)
        latents, y = told(folded, x.double())
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(latents != 0, codes.dense() != 0)
    assert (latents != 0).any()
    return folded


@pytest.mark.parametrize("normalization", [DatasetScale, NoNormalization, LayerNormalization])
@pytest.mark.parametrize("variant", SETTINGS)
def test_the_folded_map_is_the_model(variant, normalization):
    folded = check(model_of(variant, normalization=normalization()), rows())
    torch.testing.assert_close(folded.W_dec.norm(dim=1), torch.ones(len(folded.W_dec), dtype=torch.float64))


def test_a_tied_encoder_is_folded():
    check(model_of(ReLU, tied=True), rows())


def test_pursuit_stops_at_a_residual_of_the_same_length_in_raw_units():
    folded = check(model_of(MatchingPursuit, residual_threshold=1.5), rows())
    assert folded.activation.residual_threshold != 1.5


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("variant", [ReLU, JumpReLU, TopK])
def test_a_transcoder_of_two_widths_and_scales_is_folded(variant, skip):
    model = model_of(variant, Transcoder(skip), widths=(D, 9))
    model.only.pair.normalizations[1].factor.fill_(2.5)
    folded = check(model, rows(), rows(width=9))
    assert folded.hook_points == ("layer.0", "layer.1")
    assert (folded.W_skip is not None) == skip


@pytest.mark.parametrize("affine", [False, True])
def test_a_skip_is_folded(affine):
    folded = check(model_of(TopK, Skip(0.3, affine)), rows())
    assert not folded.transcodes
    assert folded.W_skip.shape == (D, D)


def test_several_hook_points_are_refused_by_name():
    model = model_of(ReLU, Crosscoder(), widths=(D, D))
    with pytest.raises(UserError, match=r"Crosscoder reads 2 hook points and reconstructs 2, .* --format safetensors"):
        fold(model)


def test_a_transcoder_that_normalises_rows_is_refused():
    model = model_of(ReLU, Transcoder(), LayerNormalization(), widths=(D, D))
    with pytest.raises(UserError, match="a Transcoder with LayerNormalization"):
        fold(model)


@pytest.mark.parametrize("variant", [ReLU, JumpReLU])
def test_rows_of_any_length_are_brought_to_unit_norm_exactly(variant):
    folded = fold(model_of(variant).double())
    longer = Folded(**{**vars(folded), "W_dec": folded.W_dec * torch.rand(len(folded.W_dec), 1).double() * 5})
    x = rows().double()
    unit = longer.with_unit_rows()
    torch.testing.assert_close(unit.W_dec.norm(dim=1), torch.ones(len(unit.W_dec), dtype=torch.float64))
    expected, y = told(longer, x)
    latents, same = told(unit, x)
    torch.testing.assert_close(same, y)
    assert torch.equal(latents != 0, expected != 0)


def test_latents_that_compete_are_scaled_alike_or_not_at_all():
    folded = fold(model_of(TopK).double())
    x = rows().double()
    alike = Folded(**{**vars(folded), "W_dec": folded.W_dec * 4})
    torch.testing.assert_close(told(alike.with_unit_rows(), x)[1], told(alike, x)[1])
    lengths = torch.linspace(0.5, 2, len(folded.W_dec)).double()[:, None]
    with pytest.raises(UserError, match=r"TopK keeps the k largest latents, .* norms from 0\.5 to 2"):
        Folded(**{**vars(folded), "W_dec": folded.W_dec * lengths}).with_unit_rows()


def test_rows_that_a_last_step_has_left_off_unit_norm_stay_where_latents_compete():
    folded = fold(model_of(TopK).double())
    lengths = torch.linspace(0.97, 1.03, len(folded.W_dec)).double()[:, None]
    off = Folded(**{**vars(folded), "W_dec": folded.W_dec * lengths})
    x = rows().double()
    for mine, theirs in zip(told(off.with_unit_rows(), x), told(off, x), strict=True):
        assert torch.equal(mine, theirs)


def test_a_row_of_zeros_stays():
    folded = fold(model_of(ReLU).double())
    folded.W_dec[3] = 0
    folded.W_dec[4] *= 2
    unit = folded.with_unit_rows()
    assert not unit.W_dec[3].any()
    assert unit.W_enc.isfinite().all()
