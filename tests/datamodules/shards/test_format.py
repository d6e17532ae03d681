import json

import pytest

from datamodules.shards import ActivationStore, is_store, read_manifest
from datamodules.shards.format import activations_name
from run_store import UserError


def change(store, edit):
    """Rewrites a store's manifest."""
    path = store / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_a_manifest_says_what_was_written(store, rows):
    manifest = read_manifest(store)
    assert manifest.source == {"model": "none"}
    assert {name: (point.d, point.dtype) for name, point in manifest.hook_points.items()} == {
        "layer.0": (6, "bfloat16"),
        "block/1": (4, "bfloat16"),
    }
    assert [shard.rows for shard in manifest.shards] == [13, 13, 13, 13, 11]
    assert manifest.rows == len(rows.tokens) == 63


def test_the_manifest_names_every_other_file(store):
    manifest = read_manifest(store)
    assert {file.name for file in manifest.files} == {path.name for path in store.iterdir()} - {"manifest.json"}


def test_a_folder_without_a_manifest_is_not_a_store(store):
    (store / "manifest.json").unlink()
    assert not is_store(store)
    with pytest.raises(UserError, match=r"store is no activation store, since it has no manifest\.json"):
        ActivationStore(store)


def test_a_missing_folder_is_not_a_store(tmp_path):
    with pytest.raises(UserError, match="nowhere is no activation store"):
        ActivationStore(tmp_path / "nowhere")


def test_another_version_is_refused(store):
    change(store, lambda content: content.update(version=2))
    with pytest.raises(UserError, match=r"manifest\.json is of format version 2 and this release reads version 1"):
        read_manifest(store)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda content: content.update(format="other"), '"format" is not "fulgurite-activations"'),
        (lambda content: content.pop("shards"), "'shards' is missing"),
        (lambda content: content.update(shards=[]), "no hook points or no shards"),
        (lambda content: content.update(source=None), "None stands where a JSON dict should"),
        (lambda content: content["shards"].append("shard"), "'shard' stands where a JSON dict should"),
        (lambda content: content["shards"][0].update(rows=-1), "-1 is no positive number"),
        (lambda content: content["shards"][0].update(rows=True), "True is no positive number"),
        (
            lambda content: content["shards"][0]["activations"].pop("layer.0"),
            "a shard's hook points are not the store's",
        ),
        (lambda content: content["hook_points"]["layer.0"].update(dtype="int4"), "dtype 'int4' is none of float32"),
        (lambda content: content["hook_points"]["layer.0"].pop("d"), "'d' is missing"),
        (
            lambda content: content["documents"].update(name="../names.json"),
            r"'\.\./names\.json' is not a file beside it",
        ),
        (lambda content: content["documents"].update(sha256=7), "7 stands where a JSON str should"),
    ],
)
def test_a_malformed_manifest_is_told_by_name_and_fault(store, edit, problem):
    change(store, edit)
    with pytest.raises(UserError, match=rf"manifest\.json is damaged \(.*{problem}"):
        ActivationStore(store)


def test_a_manifest_cut_short_is_told(store):
    path = store / "manifest.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=r"manifest\.json is damaged \(not JSON"):
        ActivationStore(store)


def test_no_two_hook_points_share_a_file_and_none_leaves_the_folder():
    names = ["a.b", "a/b", "a-b", "a%2Fb", "../b", "a b"]
    files = [activations_name(0, name) for name in names]
    assert len(set(files)) == len(names)
    assert not any("/" in file for file in files)
