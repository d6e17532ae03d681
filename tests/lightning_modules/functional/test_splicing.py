import math

import pytest
import torch

from lightning_modules.functional import next_token_sums, share_recovered


def naive_sums(logits, clean, tokens, counted):
    """One token after the other, in Python's floats."""
    cross_entropy = divergence = predicted = 0.0
    for context in range(tokens.shape[0]):
        for place in range(1, tokens.shape[1]):
            if not counted[context, place]:
                continue
            q = probabilities(logits[context, place - 1])
            p = probabilities(clean[context, place - 1])
            cross_entropy -= math.log(q[int(tokens[context, place])])
            divergence += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
            predicted += 1
    return cross_entropy, divergence, predicted


def probabilities(logits):
    exponentials = [math.exp(value) for value in logits.tolist()]
    return [value / sum(exponentials) for value in exponentials]


def test_cross_entropy_and_divergence_are_those_of_a_loop():
    logits, clean = 3 * torch.randn(4, 6, 11), 3 * torch.randn(4, 6, 11)
    tokens, counted = torch.randint(0, 11, (4, 6)), torch.rand(4, 6) < 0.6
    counted[2] = False  # a context of special tokens
    sums = next_token_sums(logits, clean, tokens, counted)
    expected = naive_sums(logits.double(), clean.double(), tokens, counted)
    assert [float(value) for value in sums] == pytest.approx(expected, rel=1e-5)


def test_predictions_do_not_diverge_from_themselves():
    logits = torch.randn(2, 5, 7)
    sums = next_token_sums(logits, logits, torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool))
    assert float(sums.divergence) == 0
    assert int(sums.tokens) == 2 * 4


@pytest.mark.parametrize(("spliced", "share"), [(2.0, 1.0), (6.0, 0.0), (3.0, 0.75), (7.0, -0.25)])
def test_the_share_recovered_is_1_for_the_clean_loss_and_0_for_the_ablated_one(spliced, share):
    assert float(share_recovered(*map(torch.tensor, (2.0, spliced, 6.0)))) == share
