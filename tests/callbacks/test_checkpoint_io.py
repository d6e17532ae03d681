import pickle

import pytest
import torch

from callbacks import AtomicCheckpointIO
from run_store import UserError


def test_saves_and_loads_and_leaves_nothing_beside_the_file(tmp_path):
    path = tmp_path / "deep" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.arange(3), "step": 4}, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["step"] == 4
    assert torch.equal(loaded["weights"], torch.arange(3))
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_keeps_the_old_checkpoint(small_disk):
    path = small_disk / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(UserError, match=r"no space left.*last\.ckpt"):
        AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(100_000)}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in small_disk.iterdir()] == ["last.ckpt"]


def test_a_truncated_checkpoint_is_one_sentence(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = tmp_path / "last.ckpt"
    path.write_bytes(pickle.dumps({"weights": Attack()}))
    with pytest.raises(UserError, match="damaged or not one of ours"):
        AtomicCheckpointIO().load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*gone\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "gone.ckpt")
