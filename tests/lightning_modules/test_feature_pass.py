import pytest
import torch

from datamodules.shards import ActivationStore
from features import Keeping
from lightning_modules.autoencoders import Crosscoder, DatasetScale, ReLU, TopK
from lightning_modules.feature_pass import feature_pass
from lightning_modules.metrics import ReconstructionScores
from lightning_modules.trainee import Trainee

SMALL = Keeping(strongest=3, sampled=3, reach=4, sampled_entries=10**6)


def member_on(store, autoencoder, names=("layer",)):
    member = Trainee(autoencoder)
    member.configure(dict.fromkeys(names, 16), {name: DatasetScale() for name in names})
    member.start_from_data(store.read(torch.arange(500), names))
    return member.eval()


@pytest.mark.parametrize("autoencoder", [TopK(24, 3), ReLU(24, 0.1)])
def test_a_pass_sees_every_row_once_as_the_model_does(store, autoencoder):
    opened = ActivationStore(store)
    member = member_on(opened, autoencoder)
    ranges = torch.tensor([[0, 150], [300, 301], [1000, 1370]])
    passed = feature_pass(member, opened, ["layer"], ranges, SMALL, batch_rows=64)
    rows = torch.cat([torch.arange(start, stop) for start, stop in ranges.tolist()])
    (x,) = opened.read(rows)
    with torch.no_grad():
        codes, (reconstruction,) = member(x)
    assert passed.features.rows == len(rows)
    assert torch.equal(passed.features.counts, codes.firing_counts())
    metric = ReconstructionScores(16)
    metric.update(x, reconstruction, reconstruction)
    assert passed.scores["fvu"] == pytest.approx(float(metric.compute()["fvu"]), rel=1e-4)


def test_it_does_not_matter_how_rows_are_cut(store):
    opened = ActivationStore(store)
    member = member_on(opened, TopK(24, 3))
    ranges = torch.tensor([[20, 400]])
    one, other = (feature_pass(member, opened, ["layer"], ranges, SMALL, rows).features for rows in (1000, 37))
    for mine, theirs in ((one.strongest, other.strongest), (one.sampled, other.sampled)):
        assert torch.equal(mine.rows, theirs.rows)
        torch.testing.assert_close(mine.around, theirs.around, equal_nan=True, rtol=1e-2, atol=1e-3)


def test_several_hook_points_are_read(write_store, tmp_path):
    opened = ActivationStore(write_store(tmp_path / "two", ("a", "b")))
    member = member_on(opened, TopK(24, 3, wiring=Crosscoder()), ("a", "b"))
    told = []
    passed = feature_pass(
        member, opened, ["a", "b"], torch.tensor([[0, 100]]), SMALL, 60, lambda *done: told.append(done)
    )
    assert passed.features.counts.sum() == 300
    assert told == [(60, 100), (100, 100)]
