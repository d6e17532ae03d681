from types import SimpleNamespace

import pytest
import torch

from datamodules.shards import ActivationStore, StoreWriter
from reports.dashboard.rows import chosen_ranges, open_store
from run_store import UserError

DATA = {"seed": 0, "validation_share": 0.2, "test_share": 0.1}


def run_of(store, **data):
    """What is asked of a run's record."""
    lineage = SimpleNamespace(store=None if store is None else str(store))
    return SimpleNamespace(folder="runs/sae/v1", lineage=lineage, spec={"data": {"init_args": data}})


def test_the_store_is_the_runs_or_the_one_that_is_named(store, tmp_path):
    assert open_store(run_of(store), None, {"layer": 16}).folder == store
    assert open_store(run_of(tmp_path / "gone"), str(store), {"layer": 16}).folder == store
    assert open_store(None, str(store), {"layer": 16}).folder == store


@pytest.mark.parametrize(
    ("record", "shapes", "sentence"),
    [
        (None, {}, "name an activation store by --store"),
        (run_of(None), {}, r"runs/sae/v1 kept no activations: extract some .* and name that store by --store"),
        (run_of("nowhere/at/all"), {}, "nowhere/at/all is not there: name the folder"),
    ],
)
def test_a_run_without_a_store_is_one_sentence(record, shapes, sentence):
    with pytest.raises(UserError, match=sentence):
        open_store(record, None, shapes)


def test_a_store_of_other_activations_or_of_no_text_is_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"reads layer of width 8, and .* has layer of width 16"):
        open_store(run_of(store), None, {"layer": 8})
    with StoreWriter(tmp_path / "numbers", {"layer": 2}, "float32") as writer:
        numbers = torch.arange(3)
        writer.append({"layer": torch.zeros(3, 2)}, numbers, torch.zeros(3, dtype=torch.int64), numbers)
        writer.finish({}, ["one"])
    with pytest.raises(UserError, match="does not say what text"):
        open_store(None, str(tmp_path / "numbers"), {"layer": 2})


def test_parts_are_those_that_the_training_held_out(store):
    opened = ActivationStore(store)
    record = run_of(store, **DATA)
    parts = [chosen_ranges(opened, record, part, None).tolist() for part in ("train", "validation", "test")]
    together = sorted(one for part in parts for one in part)
    assert together == chosen_ranges(opened, record, "all", None).tolist() == opened.document_ranges().tolist()
    with pytest.raises(UserError, match="not known which documents are for validation"):
        chosen_ranges(opened, None, "validation", None)
    with pytest.raises(UserError, match="has no rows of test documents"):
        chosen_ranges(opened, run_of(store, **{**DATA, "test_share": 0.0}), "test", None)
