"""Cross-layer transcoders against loops over the layers."""

import pytest
import torch

from lightning_modules.autoencoders import BatchTopK, CrossLayerTranscoder, Gated, JumpReLU, ReLU, TopK
from run_store import UserError

LAYERS, D_IN, D_OUT, PER_LAYER, ROWS = 3, 4, 5, 6, 20
S = LAYERS * PER_LAYER


def made(make=ReLU, **settings):
    torch.manual_seed(0)
    model = make(S, **settings, wiring=CrossLayerTranscoder())
    model.build([D_IN] * LAYERS, [D_OUT] * LAYERS)
    return model.double()


def built(make=ReLU, **settings):
    """With all weights random, but for the blocks that are 0."""
    model = made(make, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.7)
        for layer in range(LAYERS):
            model.W_dec[layer * PER_LAYER :, : layer * D_OUT] = 0
        model.mean.normal_()
        model.wiring.center.normal_()
    return model


def rows():
    x = torch.randn(ROWS, LAYERS * D_IN, dtype=torch.float64)
    return x, torch.randn(ROWS, LAYERS * D_OUT, dtype=torch.float64)


def of_layer(latents_or_rows, layer, width):
    return latents_or_rows[..., layer * width : (layer + 1) * width]


def naive_pre_activations(model, x):
    z = torch.zeros(len(x), S, dtype=torch.float64)
    for layer in range(LAYERS):
        own = of_layer(x, layer, D_IN) - of_layer(model.wiring.center, layer, D_IN)
        for i in range(layer * PER_LAYER, (layer + 1) * PER_LAYER):
            for row in range(len(x)):
                z[row, i] = model.W_enc[i] @ own[row] + model.b_enc[i]
    return z


def naive_reconstruction(model, f):
    parts = []
    for layer in range(LAYERS):
        y = of_layer(model.b_dec, layer, D_OUT).expand(len(f), -1)
        for earlier in range(layer + 1):
            writers = slice(earlier * PER_LAYER, (earlier + 1) * PER_LAYER)
            y = y + f[:, writers] @ of_layer(model.W_dec[writers], layer, D_OUT)
        parts.append(y)
    return torch.cat(parts, dim=1)


def test_relu_equals_its_formula():
    model, (x, y) = built(), rows()
    f = naive_pre_activations(model, x).relu()
    result = model.training_pass(x, y=y)
    torch.testing.assert_close(result.codes.dense(), f)
    torch.testing.assert_close(result.reconstruction, naive_reconstruction(model, f))
    error = (y - naive_reconstruction(model, f)).square().sum() / (y - model.mean).square().sum()
    torch.testing.assert_close(result.terms["reconstruction"].value, error)
    penalty = sum(f[r, i] * model.W_dec[i].norm() for r in range(ROWS) for i in range(S)) / ROWS
    torch.testing.assert_close(result.terms["l1"].value, penalty)


def test_jump_relu_with_tanh_and_dead_latents_equals_its_formula():
    dead = torch.tensor([1, 7, 17])
    model, (x, y) = built(JumpReLU, penalty="tanh", pre_act_coefficient=0.1), rows()
    model.threshold.data.abs_()
    z = naive_pre_activations(model, x)
    f = z * (z > model.threshold)
    result = model.training_pass(x, dead, y=y)
    torch.testing.assert_close(result.reconstruction, naive_reconstruction(model, f))
    expected = torch.tanh(4 * f * model.W_dec.norm(dim=1)).sum() / ROWS
    torch.testing.assert_close(result.terms["tanh"].value, expected)
    missed = ((model.threshold - z).relu() * model.W_dec.norm(dim=1))[:, dead].sum() / ROWS
    torch.testing.assert_close(result.terms["pre_act"].value, missed)


def test_gated_equals_its_formula():
    model, (x, y) = built(Gated), rows()
    gate = naive_pre_activations(model, x)
    magnitude = ((gate - model.b_enc) * model.r_mag.exp() + model.b_mag).relu()
    result = model.training_pass(x, y=y)
    torch.testing.assert_close(result.reconstruction, naive_reconstruction(model, magnitude * (gate > 0)))
    error = (y - naive_reconstruction(model, gate.relu())).square().sum() / (y - model.mean).square().sum()
    torch.testing.assert_close(result.terms["gate"].value, error)


def test_a_latent_reads_its_own_layer_and_writes_to_it_and_later_ones():
    model, (x, _) = built(), rows()
    f, y = (part.dense() if hasattr(part, "dense") else part for part in model(x))
    changed = x.clone()
    changed[:, D_IN : 2 * D_IN] += 1
    f_changed, y_changed = (part.dense() if hasattr(part, "dense") else part for part in model(changed))
    differs = (f != f_changed).any(dim=0)
    assert differs[PER_LAYER : 2 * PER_LAYER].any()
    assert not differs[:PER_LAYER].any()
    assert not differs[2 * PER_LAYER :].any()
    assert [bool((y != y_changed)[:, i * D_OUT : (i + 1) * D_OUT].any()) for i in range(LAYERS)] == [False, True, True]


def test_blocks_that_would_write_to_earlier_layers_stay_zero_through_training():
    model, (x, y) = made(), rows()
    model.start_from_data(y.mean(dim=0), y.mean(dim=0), x.mean(dim=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        result = model.training_pass(x, y=y)
        (result.terms["reconstruction"].value + 0.01 * result.terms["l1"].value).backward()
        optimizer.step()
        model.after_optimizer_step()
    assert result.fvu < 0.8
    for reader in range(LAYERS):
        for layer in range(LAYERS):
            block = of_layer(model.W_dec[reader * PER_LAYER : (reader + 1) * PER_LAYER], layer, D_OUT)
            assert bool(block.any()) == (reader <= layer)


def test_gradcheck():
    model, (x, y) = built(), rows()
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]

    def loss(*parameters):
        _, reconstruction = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x[:4],))
        return (reconstruction - y[:4]).square().sum()

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, parameters)


def test_latents_started_anew_read_towards_the_row_of_their_own_layer():
    model, (x, y) = built(), rows()
    latents = torch.tensor([0, 7, 8, 17])
    model.revive(latents, x[:4], y[:4])
    for place, latent in enumerate(latents.tolist()):
        layer = latent // PER_LAYER
        own = of_layer(x[place] - model.wiring.center, layer, D_IN)
        torch.testing.assert_close(torch.nn.functional.cosine_similarity(model.W_enc[latent], own, dim=0).item(), 1.0)
    assert not model.W_dec[latents].any()
    assert model.W_dec[1].any()


@pytest.mark.parametrize("make", [TopK, BatchTopK])
def test_variants_that_multiply_all_of_x_with_all_of_w_enc_are_refused(make):
    sentence = f"{make.__name__} cannot be wired as CrossLayerTranscoder: take JumpReLU"
    with pytest.raises(UserError, match=sentence):
        make(S, 4, wiring=CrossLayerTranscoder()).check_settings()


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b", "c"]])
def test_an_odd_number_of_hook_points_is_refused(names):
    with pytest.raises(UserError, match=rf"an output for every input, and the data gives {len(names)} hook points"):
        CrossLayerTranscoder().sides(names)


def test_inputs_and_outputs_are_the_halves_in_order():
    sides = CrossLayerTranscoder().sides(["x1", "x2", "y1", "y2"])
    assert sides == ((0, 1), (2, 3))


@pytest.mark.parametrize(("inputs", "outputs"), [((4, 3), (4, 4)), ((4, 4), (4, 5))])
def test_unequal_widths_are_refused(inputs, outputs):
    with pytest.raises(UserError, match=r"inputs of one width and outputs of one width"):
        ReLU(4, wiring=CrossLayerTranscoder()).build(inputs, outputs)


def test_latents_that_cannot_be_split_evenly_are_refused():
    with pytest.raises(UserError, match=r"d_sae is 19 and the data has 3 layers.*multiple of 3"):
        ReLU(19, wiring=CrossLayerTranscoder()).build([4] * 3, [4] * 3)
