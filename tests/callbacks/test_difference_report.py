"""The report at the end of a crosscoder's training."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks import DifferenceReport
from explanations import GROUPS
from lightning_modules.autoencoders import BatchTopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from tests.callbacks.small_models import trainer
from tests.distributed.ranks import ddp, on_ranks
from tests.explanations.diffing import SIDES, activations, both_models, crosscoder, triplets
from tests.lightning_modules.test_sharding import latent_parallel


def fit(folder, data, model, *callbacks, **settings):
    torch.manual_seed(0)
    made = trainer(folder, *callbacks, limit_train_batches=1.0, max_epochs=2, **settings)
    made.fit(model, data)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder and data of two models."""
    folder = tmp_path_factory.mktemp("diff")
    return folder, activations(folder, both_models(folder))


def shown(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])


def test_it_writes_the_page_prints_the_table_and_keeps_the_figures(made, tmp_path, capsys):
    folder, data = made
    logger = TensorBoardLogger(str(tmp_path), "run", "v1")
    report = DifferenceReport(triplets(folder), rotated_below=0.0)
    told = fit(tmp_path, data, crosscoder(), report, logger=logger)
    page = tmp_path / "run" / "v1" / "difference.html"
    assert "what fine-tuning changed: base → tuned" in (printed := capsys.readouterr().out)
    assert f"open {page} in a browser" in printed
    assert "held-out queries (test) among" in printed
    content = shown(page)
    assert content["sides"] == list(SIDES)
    live = len(content["live"]["latent"])
    assert [group["name"] for group in content["groups"]] == list(GROUPS)
    assert sum(group["count"] for group in content["groups"]) == live > 0
    shares = [float(told.callback_metrics[f"diff/{name}"]) for name in GROUPS]
    assert sum(shares) == pytest.approx(1)
    assert all(f"diff/{name}" in (found := told.callback_metrics) for name in ("ndcg@10_base", "ndcg@10_tuned")), found
    example = next(latent for group in content["shown"] for latent in group)["contexts"][0]
    assert example["document"].startswith("example/")
    assert len(example["texts"]) == len(example["values"])


@pytest.mark.slow
def test_nothing_about_the_training_changes(made, tmp_path):
    folder, data = made
    alone, watched = crosscoder(), crosscoder()
    fit(tmp_path, data, alone)
    fit(tmp_path, data, watched, DifferenceReport(triplets(folder)))
    assert (tmp_path / "difference.html").is_file()
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert watched.training == alone.training


@pytest.mark.slow
def test_of_several_ranks_the_first_one_reports(made, tmp_path):
    folder, data = made
    data.prepare_data()

    def reported(rank):
        fit(tmp_path, data, crosscoder(), DifferenceReport(triplets(folder)), strategy=ddp(), devices=2)
        return (tmp_path / "difference.html").is_file()

    assert True in on_ranks(reported, timeout=60)


@pytest.mark.slow
def test_of_ranks_that_share_the_latents_none_waits_for_the_others(made, tmp_path):
    folder, data = made
    data.prepare_data()

    def warned(rank):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(tmp_path, data, crosscoder(), DifferenceReport(triplets(folder)), **latent_parallel(1, 2))
        return [str(one.message) for one in caught if "difference.html" in str(one.message)]

    told, _ = on_ranks(warned, timeout=60)
    assert "LatentParallel has them in parts" in told[0]


def test_whatever_fails_is_one_sentence_and_the_training_is_complete(made, tmp_path, capsys):
    _, data = made
    data.hook_points = [SIDES[1]]
    try:
        with pytest.warns(UserWarning, match=r"difference.html was not written \(the autoencoder reconstructs tuned/"):
            fit(tmp_path, data, SparseAutoencoding(BatchTopK(16, k=2)), DifferenceReport())
    finally:
        data.hook_points = None
    assert not (tmp_path / "difference.html").exists()


@pytest.mark.slow
def test_a_model_that_pools_by_maxima_is_told_and_how_to_make_it_again(tmp_path):
    data = activations(tmp_path, both_models(tmp_path, tuned_pooling="max"))
    with pytest.warns(UserWarning, match="pools by the maximum") as caught:
        fit(tmp_path, data, crosscoder(), DifferenceReport(triplets(tmp_path)))
    assert any(f": make it by python main.py diff --run {tmp_path}" in str(one.message) for one in caught)


def test_without_triplets_only_the_latents_are_told(made, tmp_path, capsys):
    _, data = made
    told = fit(tmp_path, data, crosscoder(), DifferenceReport())
    assert "No triplets were named" in capsys.readouterr().out
    assert shown(tmp_path / "difference.html")["gain"] is None
    assert not any("ndcg" in name for name in told.callback_metrics)


def test_bounds_that_make_no_sense_are_refused_before_training():
    with pytest.raises(UserError, match="own_above of callback DifferenceReport is"):
        DifferenceReport(own_above=0.4).check_settings()


def test_a_trial_of_the_training_makes_none(made, tmp_path):
    _, data = made
    fit(tmp_path, data, crosscoder(), DifferenceReport(), fast_dev_run=True)
    assert not (tmp_path / "difference.html").exists()
