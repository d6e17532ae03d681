import torch

from lightning_modules.autoencoders import ReLU


def built():
    torch.manual_seed(0)
    model = ReLU(24, l1_coefficient=0.3)
    model.build(6)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
    return model.double()


def test_codes_reconstruction_and_losses_equal_their_formulae():
    model, x = built(), torch.randn(10, 6, dtype=torch.float64)
    result = model.training_pass(x)
    codes = ((x - model.b_dec) @ model.W_enc.T + model.b_enc).clamp_min(0)
    reconstruction = codes @ model.W_dec + model.b_dec
    torch.testing.assert_close(result.codes.dense(), codes)
    torch.testing.assert_close(result.reconstruction, reconstruction)
    penalty = sum(codes[r, i] * model.W_dec[i].norm() for r in range(10) for i in range(24)) / 10
    torch.testing.assert_close(result.terms["l1"].value, penalty)
    fvu = (x - reconstruction).square().sum() / (x - model.mean).square().sum()
    torch.testing.assert_close(result.terms["reconstruction"].value, fvu)


def test_the_penalty_warms_up_and_the_reconstruction_does_not():
    terms = built().training_pass(torch.randn(4, 6, dtype=torch.float64)).terms
    assert (terms["l1"].weight, terms["l1"].warms_up) == (0.3, True)
    assert not terms["reconstruction"].warms_up


def test_every_term_reaches_the_parameters_it_should():
    model, x = built(), torch.randn(64, 6, dtype=torch.float64)
    terms = model.training_pass(x).terms
    for name, parameters in {
        "reconstruction": ["W_enc", "b_enc", "W_dec", "b_dec"],
        "l1": ["W_enc", "b_enc", "b_dec"],
    }.items():
        gradients = torch.autograd.grad(
            terms[name].value, [model.get_parameter(p) for p in parameters], retain_graph=True
        )
        assert all(gradient.any() for gradient in gradients), name
