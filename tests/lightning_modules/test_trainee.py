"""An autoencoder in training, without a Trainer."""

import pytest
import torch

from lightning_modules.autoencoders import DatasetScale, LossTerm, ReLU, TopK
from lightning_modules.trainee import Trainee, total


@pytest.fixture
def rows():
    """[512, 12] sums of two of 20 directions."""
    atoms = torch.nn.functional.normalize(torch.randn(20, 12), dim=1)
    return sum(atoms[torch.randint(20, (512,))] for _ in range(2)) + 1


def trainee(autoencoder, run_length=100, dead_after=10**6, **settings):
    made = Trainee(autoencoder, **settings)
    made.configure({"a": 12}, {"a": DatasetScale()})
    made.begin(run_length, dead_after)
    return made


def test_it_learns_in_a_loop_of_ones_own(rows):
    learner = trainee(TopK(40, 2), run_length=200)
    learner.start_from_data([rows])
    optimizer = torch.optim.Adam(learner.autoencoder.parameters(), lr=1e-2)
    losses = []
    for number in range(200):
        step = learner.step(learner.pair([rows]), number)
        optimizer.zero_grad()
        step.loss.backward()
        learner.count(step.firing_counts, len(rows))
        norm = learner.clip(0.01)
        optimizer.step()
        learner.after_optimizer_step(number, made=True)
        losses.append(float(step.loss))
    assert losses[-1] < 0.4 * losses[0]
    assert int(learner.tokens_seen) == 200 * 512
    assert float(norm) > 0
    torch.testing.assert_close(learner.autoencoder.W_dec.norm(dim=1), torch.ones(40))
    codes, (reconstruction,) = learner(rows)
    assert codes.dense().count_nonzero(dim=1).max() <= 2
    assert (reconstruction - rows).norm() < (rows - rows.mean(dim=0)).norm()


def test_the_norm_is_that_before_clipping_and_the_gradient_is_that_long_afterwards(rows):
    learner = trainee(ReLU(40))
    learner.start_from_data([rows])
    learner.step(learner.pair([rows]), 0).loss.backward()

    def length():
        gradients = [parameter.grad for parameter in learner.autoencoder.parameters()]
        return torch.cat([gradient.flatten() for gradient in gradients]).norm()

    before = length()
    torch.testing.assert_close(learner.clip(None), before)
    torch.testing.assert_close(learner.clip(float(before) / 10), before)
    torch.testing.assert_close(length(), before / 10, rtol=1e-4, atol=0)
    learner.drop_gradient()
    assert all(parameter.grad is None for parameter in learner.autoencoder.parameters())


def test_latents_are_dead_after_tokens_without_firing():
    learner = trainee(TopK(4, 2), dead_after=100)
    counts = torch.tensor([3, 0, 1, 0])
    learner.count(counts, 100)
    assert learner.dead_latents() is None
    learner.count(counts.flip(0), 50)
    assert learner.tokens_since_fired.tolist() == [50, 0, 50, 0]
    learner.count(torch.tensor([1, 0, 0, 0]), 101)
    assert learner.dead_latents().tolist() == [1, 2, 3]


def test_sparsity_warms_up_over_its_share_of_the_run():
    learner = trainee(ReLU(4), run_length=50, sparsity_warmup=0.2)
    assert [learner.warmed(steps) for steps in (0, 4, 9, 30)] == [0.1, 0.5, 1.0, 1.0]
    terms = {"a": LossTerm(torch.tensor(2.0), 3.0), "b": LossTerm(torch.tensor(5.0), 0.1, warms_up=True)}
    assert float(total(terms, 0.5)) == pytest.approx(6.25)


def test_of_what_there_is_for_each_hook_point_it_sees_its_own_in_its_own_order():
    learner = Trainee(TopK(4, 2), hook_points=["c"])
    learner.configure({"a": 3, "b": 5, "c": 7}, {name: DatasetScale() for name in "abc"})
    assert learner.seen("xyz") == ["z"]
    assert learner.shapes == {"c": 7}
    assert learner.autoencoder.d_in == 7
