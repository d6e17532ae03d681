"""Mistakes on the command line and in config files: one line that names the setting or the file, exit code 2, no
traceback.
"""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import docstring_parser
import pytest

from cli import main
from cli.main import VERBS
from cli.run_settings import RunSettings

ROOT = Path(__file__).parents[2]
SAE = ["fit", "--config", "configs/sae.yaml"]

MISTAKES = {
    "misspelt verb": (["fti"], r"no verb 'fti'.*fit"),
    "no config": (["fit"], r"model and data must be set: name a config"),
    "missing config": (["fit", "--config", "configs/sea.yaml"], r"no file .*configs/sea\.yaml"),
    "unknown setting": ([*SAE, "--foo", "3"], r"no setting foo: the nearest are"),
    "abbreviated setting": ([*SAE, "--trainer.max_epoch", "3"], r"no setting trainer\.max_epoch.*max_epochs"),
    "wrong type": ([*SAE, "--trainer.max_epochs", "three"], r"trainer\.max_epochs must be of type int, not 'three'"),
    "unknown nested setting": (
        [*SAE, "--model.autoencoder.kk", "5"],
        r"no setting model\.autoencoder\.kk: TopK has k,",
    ),
    "unknown class": ([*SAE, "--model.autoencoder.class_path", "TopKK"], r"model\.autoencoder.*no class TopKK.*TopK"),
    "negative size": ([*SAE, "--data.batch_size", "-4"], r"data\.batch_size must be a PositiveInt: -4"),
    "impossible k": ([*SAE, "--model.autoencoder.k", "5000"], r"k is 5000 and d_sae is 3072"),
    "impossible mode": ([*SAE, "--run.mode", "new"], r"run\.mode must be one of reuse_if_exists, .*, not 'new'"),
    "unknown run setting": ([*SAE, "--run.nam", "x"], r"no setting run\.nam: the nearest are name"),
    "impossible name": ([*SAE, "--run.name", "a/b"], r"run\.name 'a/b' cannot name a folder"),
    "no source": ([*SAE, "--run.source", "run"], r"there is no run \(none was named\).*set --run\.path"),
    "no run to resume": ([*SAE, "--resume", "runs/none"], r"there is no run runs/none in runs: give its folder"),
    "crosscoder with one hook point": (
        [*SAE, "--model.autoencoder", "configs/autoencoder/crosscoder.yaml", "--data.store", "stores/none"],
        r"crosscoder.*the data gives 1",
    ),
    "transcoder with one hook point": (
        [*SAE, "--model.autoencoder", "configs/autoencoder/transcoder.yaml", "--data.store", "stores/none"],
        r"transcoder.*the data gives 1.*set data\.hook_points to two names",
    ),
    "hook point that nothing reads": (
        [*SAE, "--data.store", "stores/none", "--data.hook_points", "[encoder.layer.1]"],
        r"no hook point 'encoder\.layer\.1': the nearest are encoder\.layer\.2",
    ),
    "k of 0": ([*SAE, "--model.autoencoder.k", "0"], r"model\.autoencoder.*k must be a PositiveInt: 0|k.*0"),
    "target above the dictionary": (
        [*SAE, "--model.autoencoder", "configs/autoencoder/jump_relu.yaml", "--model.autoencoder.target_l0", "5000"],
        r"target_l0 is 5000.* and d_sae is 3072",
    ),
    "prefixes that end early": (
        [
            *SAE,
            "--model.autoencoder",
            "configs/autoencoder/matryoshka_batch_topk.yaml",
            "--model.autoencoder.prefixes",
            "[0.1, 0.5]",
        ],
        r"prefixes",
    ),
    "missing store": (
        [*SAE, "--data.store", "nowhere", "--data.text", "null"],
        r"no activation store in nowhere: set data\.store",
    ),
}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(name, capsys):
    arguments, expected = MISTAKES[name]
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1

    assert re.search(expected, lines[0]), lines[0]


FILE_MISTAKES = {
    "not YAML": ("model: [1, 2", r"mistake\.yaml cannot be read as YAML"),
    "null model": ("{model: null, data: null}", r"model and data must be set"),
    "misspelt section": ("trainr: {max_epochs: 2}", r"no setting trainr.*trainer"),
    "misspelt trainer setting": ("trainer: {max_epoch: 2}", r"no setting trainer\.max_epoch.*max_epochs"),
    "misspelt init_args": (
        "data: {class_path: ActivationDataModule, init_args: {store: x, batch_sizes: 4}}",
        r"no setting data\.batch_sizes: ActivationDataModule has batch_size",
    ),
    "missing overlay": (
        "model: {class_path: SparseAutoencoding, init_args: {autoencoder: autoencoder/topkk.yaml}}",
        r"model\.autoencoder: there is no file autoencoder/topkk\.yaml",
    ),
    "misspelt callback": ("trainer: {callbacks: [{class_path: RunSumary}]}", r"no class RunSumary.*RunSummary"),
    "out of range": (
        "model: {class_path: SparseAutoencoding, init_args: {autoencoder: {class_path: TopK, init_args: {d_sae: -1}}}}",
        r"model\.autoencoder\.d_sae must be a PositiveInt: -1",
    ),
}


@pytest.mark.parametrize("name", FILE_MISTAKES)
def test_a_mistake_in_a_file_is_one_line_and_exit_code_2(name, capsys, tmp_path):
    text, expected = FILE_MISTAKES[name]
    path = tmp_path / "mistake.yaml"
    path.write_text(text)
    assert main(["fit", "--config", str(path)]) == 2

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(expected, error), error


@pytest.mark.parametrize("arguments", [["--help"], ["runs", "list"]])
def test_a_reader_that_stops_reading_is_no_traceback(arguments, tmp_path):
    process = subprocess.Popen(
        [sys.executable, ROOT / "main.py", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_the_list_of_verbs_has_a_column_of_names(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [verb for verb in VERBS if f"  {verb}  " not in out] == []


def test_every_setting_of_a_run_says_what_it_means():
    described = {parameter.arg_name for parameter in docstring_parser.parse(RunSettings.__doc__).params}
    assert described == {setting.name for setting in fields(RunSettings)}
