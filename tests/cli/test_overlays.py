"""Overlays by name."""

import pytest

from cli import main
from cli.overlays import CONFIGS, with_overlays


def overlay(name: str) -> str:
    return str(CONFIGS / "autoencoder" / f"{name}.yaml")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("topk", overlay("topk")),
        ("TOPK", overlay("topk")),
        ("Relu", overlay("relu")),
        ("jumprelu", overlay("jump_relu")),
        ("matryoshka-batch-topk", overlay("matryoshka_batch_topk")),
        ("Transcoder", overlay("transcoder")),
        ("skip", overlay("skip")),
        # the class itself keeps the settings that both have
        ("TopK", "TopK"),
        ("ReLU", "ReLU"),
        ("nonsense", "nonsense"),
        ("configs/autoencoder/topk.yaml", "configs/autoencoder/topk.yaml"),
    ],
)
def test_a_variant_is_found_whatever_the_case_of_its_name(typed: str, meant: str) -> None:
    for setting in ("--model.autoencoder", "--model.init_args.autoencoder"):
        assert with_overlays(["fit", setting, typed]) == ["fit", setting, meant]
        assert with_overlays([f"{setting}={typed}"]) == [f"{setting}={meant}"]


def test_other_settings_have_theirs_and_values_are_left_alone() -> None:
    assert with_overlays(["--data.extractor", "GPT2"]) == ["--data.extractor", str(CONFIGS / "extractor" / "gpt2.yaml")]
    assert with_overlays(["--run.environment", "kaggle"]) == ["--run.environment", "kaggle"]
    same = ["fit", "--config", "topk", "--run.name", "relu", "--autoencoder", "topk", "topk", "--model.autoencoder"]
    assert with_overlays(same) == same


def test_every_overlay_of_an_autoencoder_is_found_by_its_own_name() -> None:
    for file in (CONFIGS / "autoencoder").glob("*.yaml"):
        assert with_overlays(["--model.autoencoder", file.stem]) == ["--model.autoencoder", str(file)]


def test_a_name_that_nothing_has_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--config", str(CONFIGS / "sae.yaml"), "--model.autoencoder", "transcodr"]) == 2
    assert "there is no class transcodr: the nearest are" in capsys.readouterr().err
