"""Latents that were killed in a known way, and losses whose reach is known."""

import json

import pytest
import torch

from lightning_modules.autoencoders import AbsTopK, BatchTopK, Gated, JumpReLU, MatchingPursuit, ReLU, TopK
from lightning_modules.diagnosis import Diagnosis, find_causes

D, S, ROWS = 6, 12, 200
DEAD = [1, 3, 4, 8]


def built(autoencoder):
    torch.manual_seed(0)
    autoencoder.build(D)
    with torch.no_grad():
        autoencoder.b_dec.normal_(std=0.1)
    return autoencoder.eval()


def rows():
    return torch.randn(ROWS, D, generator=torch.Generator().manual_seed(1))


def lower_the_bias(autoencoder):
    autoencoder.b_enc[DEAD] = -1e4


def shorten_the_encoder(autoencoder):
    autoencoder.W_enc[DEAD] *= 1e-4
    autoencoder.b_enc[DEAD] = -1.0


def raise_the_threshold(autoencoder):
    autoencoder.threshold[DEAD] = 1e4


def lower_the_magnitude(autoencoder):
    autoencoder.b_mag[DEAD] = -1e4


def let_others_win(autoencoder):
    """They are above 0, but others are so on every row and far higher."""
    living = [latent for latent in range(S) if latent not in DEAD]
    autoencoder.b_enc[living] = 100.0


@pytest.mark.parametrize(
    ("make", "killed", "cause"),
    [
        (lambda: TopK(S, 3), lower_the_bias, "bias"),
        (lambda: TopK(S, 3), shorten_the_encoder, "norm"),
        (lambda: TopK(S, 3), let_others_win, "selection"),
        (lambda: AbsTopK(S, 3), let_others_win, "selection"),
        (lambda: ReLU(S), lower_the_bias, "bias"),
        (lambda: ReLU(S), shorten_the_encoder, "norm"),
        (lambda: JumpReLU(S), lower_the_bias, "bias"),
        (lambda: JumpReLU(S), raise_the_threshold, "threshold"),
        (lambda: Gated(S), lower_the_bias, "bias"),
        (lambda: Gated(S), lower_the_magnitude, "threshold"),
        (lambda: BatchTopK(S, 3), lower_the_bias, "bias"),
    ],
)
def test_latents_died_of_what_they_were_killed_with(make, killed, cause):
    autoencoder, x = built(make()), rows()
    with torch.no_grad():
        killed(autoencoder)
        assert not autoencoder(x)[0].firing_counts()[DEAD].any()
    assert find_causes(autoencoder, x, torch.tensor(DEAD), 64) == {cause: DEAD}


def test_a_direction_that_no_row_has_is_told_from_a_low_bias():
    autoencoder, x = built(ReLU(S)), rows()
    with torch.no_grad():
        x[:, 0] = x[:, 0].abs() + 1
        autoencoder.b_dec.zero_()
        autoencoder.W_enc[DEAD] = -torch.eye(D)[0]
    assert find_causes(autoencoder, x, torch.tensor(DEAD), 64) == {"direction": DEAD}


def test_a_threshold_over_the_batch_is_one():
    autoencoder, x = built(BatchTopK(S, 3)), rows()
    with torch.no_grad():
        autoencoder.b_enc += 100
        autoencoder.b_enc[DEAD] = 10
        autoencoder.selection.threshold.fill_(50)
    assert find_causes(autoencoder, x, torch.tensor(DEAD), 64) == {"threshold": DEAD}


def test_a_variant_without_a_bias_is_diagnosed_too():
    autoencoder, x = built(MatchingPursuit(S, 3)), rows()
    with torch.no_grad():
        autoencoder.W_dec[DEAD] = 0
    assert find_causes(autoencoder, x, torch.tensor(DEAD), 64) == {"norm": DEAD}


def test_every_latent_gets_one_cause_and_one_that_fires_is_no_riddle():
    autoencoder, x = built(JumpReLU(S)), rows()
    with torch.no_grad():
        autoencoder.b_enc[1] = -1e4
        autoencoder.W_enc[3] = 0
        autoencoder.threshold[4] = 1e4
    found = find_causes(autoencoder, x, torch.tensor(DEAD), 64)
    assert found == {"norm": [3], "bias": [1], "threshold": [4], "rare": [8]}


def test_the_reach_of_each_term_is_told_by_latents():
    autoencoder, x = built(TopK(S, 3, aux_k_coefficient=1.0)), rows()
    with torch.no_grad():
        let_others_win(autoencoder)
    reach = Diagnosis.of(autoencoder, x, x, torch.tensor(DEAD), 64).reach
    assert reach == {
        "reconstruction": {"W_enc": "living", "b_enc": "living", "W_dec": "living", "b_dec": "all"},
        "aux_k": {"W_enc": "dead", "b_enc": "dead", "W_dec": "dead", "b_dec": "all"},
    }


def test_a_bias_that_is_too_low_shows_as_a_loss_that_reaches_nothing():
    autoencoder, x = built(TopK(S, 3, aux_k_coefficient=1.0)), rows()
    with torch.no_grad():
        lower_the_bias(autoencoder)
    reach = Diagnosis.of(autoencoder, x, x, torch.tensor(DEAD), 64).reach
    assert set(reach["aux_k"].values()) == {"none"}


def test_thresholds_and_dead_latents_of_a_jump():
    autoencoder, x = built(JumpReLU(S, pre_act_coefficient=1.0, bandwidth=0.5)), rows()
    with torch.no_grad():
        lower_the_bias(autoencoder)
    reach = Diagnosis.of(autoencoder, x, x, torch.tensor(DEAD), 64).reach
    assert reach["l0"] == {"W_enc": "none", "b_enc": "none", "W_dec": "none", "b_dec": "none", "threshold": "living"}
    assert reach["pre_act"]["threshold"] == reach["pre_act"]["W_enc"] == "dead"


def test_the_autoencoder_is_left_as_it_was():
    autoencoder, x = built(BatchTopK(S, 3)).train(), rows()
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    Diagnosis.of(autoencoder, x, x, torch.tensor(DEAD), 64)
    assert autoencoder.training
    assert all(torch.equal(value, before[name]) for name, value in autoencoder.state_dict().items())
    assert all(parameter.grad is None for parameter in autoencoder.parameters())


def test_words_and_json_say_the_same():
    autoencoder, x = built(TopK(S, 3)), rows()
    with torch.no_grad():
        lower_the_bias(autoencoder)
    diagnosis = Diagnosis.of(autoencoder, x, x, torch.tensor(DEAD), 64)
    plain = json.loads(json.dumps(diagnosis.plain()))
    assert plain == {"rows": ROWS, "dead": 4, "causes": {"bias": DEAD}, "reach": diagnosis.reach}
    assert diagnosis.in_words().splitlines() == [
        "why 4 latents are dead, on 200 rows of the training split:",
        "  bias            4  would be above 0 on some row without the bias",
        "which latents' weights each loss term reaches:",
        "                  W_enc   W_dec   b_enc   b_dec",
        "  reconstruction  living  living  living  all",
        "  aux_k           –       –       –       –",
    ]


def test_without_dead_latents_there_is_no_cause():
    autoencoder, x = built(TopK(S, 3)), rows()
    diagnosis = Diagnosis.of(autoencoder, x, x, torch.tensor([], dtype=torch.int64), 64)
    assert diagnosis.causes == {}
    assert set(diagnosis.reach["reconstruction"].values()) == {"all"}
