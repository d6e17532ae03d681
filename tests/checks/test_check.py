"""The verb, from the command line on."""

import json

import pytest
import yaml

from cli.main import main

PATIENT = [f"--limits.{name}=1000000" for name in ("load_seconds", "convergence_seconds", "single_ms", "gradient_ms")]


@pytest.fixture
def check(tiny, triplets, tmp_path, capsys):
    """check(*arguments, model) → exit code, stdout and stderr."""

    def carry_out(*arguments, model=tiny):
        encoder = {"class_path": "TextEncoder", "init_args": {"model": str(model), "linear_layers": "torch"}}
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}}
        learner = {"encoder": encoder, "loss": {"class_path": "InfoNCE"}, "optimizer": optimizer}
        source = {"class_path": "TripletFiles", "init_args": {"files": str(triplets)}}
        config = {
            "run": {"name": "tiny"},
            "model": {"class_path": "ContrastiveEmbedding", "init_args": learner},
            "data": {"class_path": "TripletDataModule", "init_args": {"source": source}},
            "trainer": {"max_epochs": 1, "callbacks": [{"class_path": "EmbeddingSummary"}]},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        code = main(["check", "--config", str(path), "--device=cpu", *PATIENT, *arguments])
        return code, *capsys.readouterr()

    return carry_out


def test_all_parts_pass(check):
    code, out, _ = check()
    assert code == 0, out
    assert out.splitlines()[-1] == "4 of 4 parts passed"


@pytest.mark.slow
def test_json_alone_is_on_stdout(check):
    code, out, _ = check("--json")
    found = json.loads(out)
    assert code == 0
    assert found["passed"]
    assert [part["part"] for part in found["parts"]] == ["loading", "quality", "convergence", "latency"]
    for part in found["parts"]:
        assert part["figures"]
        assert part["ran"]


def test_only_what_is_named_is_carried_out(check):
    code, out, _ = check("--only", "quality", "loading", "--json")
    assert code == 0
    assert [part["part"] for part in json.loads(out)["parts"]] == ["loading", "quality"]


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("part", "setting", "limit", "figure"),
    [
        ("loading", "load_seconds", "1e-9", "load is"),
        ("loading", "min_tensors", "104", "tensors is 103, less than limits.min_tensors 104"),
        ("convergence", "loss_fall", "1.0", "share the loss fell by is"),
        ("convergence", "convergence_seconds", "1e-9", "training is"),
        ("latency", "single_ms", "1e-9", "single text, mean is"),
        ("latency", "gradient_ms", "1e-9", "step on 8 triplets, mean is"),
        ("latency", "texts_per_second", "1e12", "throughput, 40 texts is"),
    ],
)
def test_beyond_a_limit_it_fails_and_says_by_what(check, part, setting, limit, figure):
    code, out, _ = check("--only", part, f"--limits.{setting}={limit}")
    assert code == 1
    failure = next(line for line in out.splitlines() if line.startswith("  ! "))
    assert figure in failure
    assert f"limits.{setting} {float(limit):g}" in failure


def test_a_loss_of_zero_at_the_start_fails(check):
    # by such a margin the guide takes every negative for a false one
    code, out, _ = check("--only=convergence", "--model.loss.guide_margin=2")
    assert code == 1
    assert "the loss is 0 before training and cannot fall" in out


@pytest.mark.parametrize("damage", ["absent", "no weights", "cut short", "no tokenizer"])
def test_a_model_that_cannot_be_loaded_fails_every_part(check, tiny, tmp_path, damage):
    broken = tmp_path / "broken"
    if damage != "absent":
        broken.mkdir()
        for file in tiny.iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
    if damage == "no weights":
        (broken / "model.safetensors").unlink()
    if damage == "cut short":
        (broken / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:-100])
    if damage == "no tokenizer":
        (broken / "tokenizer.json").unlink()
    code, out, _ = check("--json", model=broken)
    parts = json.loads(out)["parts"]
    assert code == 1
    assert [part["ran"] for part in parts] == [True, False, False, False]
    assert not any(part["passed"] for part in parts)
    [sentence] = parts[0]["failures"]
    assert str(broken) in sentence
    assert all(part["failures"] == [f"not run: {sentence}"] for part in parts[1:])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "speed"], "only"),
        (["--limits.single_m=50"], "there is no setting limits.single_m: the nearest are single_ms"),
        (["--limits.single_ms=-1"], "limits.single_ms"),
        (["--only=quality", "--only", "loading"], "only is given twice"),
        (["--only=[]"], "only"),
        (["--onyl=quality"], "there is no setting onyl: the nearest are only"),
        (["--model.encoder.modle=x"], "model.encoder.modle"),
        (["--model.optimizer.lr=0"], "must be above 0"),
        (["--data.source.files=nothing.jsonl"], "nothing.jsonl"),
    ],
)
def test_mistakes_in_settings_are_one_sentence(check, arguments, sentence):
    code, out, err = check(*arguments)
    assert code == 2
    assert not out
    error = err.splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error


def test_a_config_of_another_model_is_refused(capsys):
    assert main(["check", "--config", "configs/sae.yaml"]) == 2
    assert "check is for embedding models, and the config has SparseAutoencoding" in capsys.readouterr().err


def test_without_a_config_one_is_asked_for(capsys):
    assert main(["check", "--json"]) == 2
    assert "--config configs/embedder.yaml" in capsys.readouterr().err


def test_a_config_may_hold_limits_and_must_name_a_part(check, tmp_path):
    path = tmp_path / "more.yaml"
    path.write_text("limits: {min_tensors: 104}\nonly: [loading]\n")
    code, out, _ = check("--config", str(path))
    assert code == 1
    assert "limits.min_tensors 104" in out
    path.write_text("only: []\n")
    code, _, err = check("--config", str(path))
    assert code == 2
    assert "only is empty" in err


@pytest.mark.slow
def test_the_real_model_passes(capsys):
    config = ["check", "--config", "configs/embedder.yaml", "--model.encoder", "minilm", "--device=cpu", "--json"]
    assert main([*config, *PATIENT]) == 0
    assert len(json.loads(capsys.readouterr().out)["parts"]) == 4
