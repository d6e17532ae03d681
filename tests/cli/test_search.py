"""`python main.py search`: from a job and a space to an exported model, and what stands in the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml

from cli import main
from cli.criteria import bounds, weights
from cli.search import split
from run_store import UserError
from run_store.checkpoints import newest_valid
from run_store.completion import completion_of
from run_store.environment import detect_environment
from run_store.record import read_record
from run_store.selection import Bounds
from search.children import Resolver

ROOT = Path(__file__).parents[2]
JOB = {
    "run": {"name": "tiny", "identity": {"code": False}},
    "model": {
        "class_path": "SparseAutoencoding",
        "init_args": {
            "autoencoder": {"class_path": "TopK", "init_args": {"d_sae": 32, "k": 3}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}},
        },
    },
    "data": {
        "class_path": "SyntheticActivations",
        "init_args": {
            "features": {"d": 16, "count": 24, "mean_l0": 3.0},
            "batch_size": 64,
            "train_rows": 1280,
            "validation_rows": 256,
        },
    },
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": [{"class_path": "SaveCheckpoints"}],
    },
}
SHORTER = {"data": {"init_args": {"train_rows": 640}}}


@pytest.fixture
def typed(tmp_path):
    """typed(space, *more) → the command line behind `python main.py`."""
    job = {**JOB, "run": {**JOB["run"], "folder": str(tmp_path / "runs")}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    (tmp_path / "shorter.yaml").write_text(yaml.safe_dump(SHORTER))

    def line(space, *more):
        (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
        return ["search", "--config", str(tmp_path / "job.yaml"), "--space", str(tmp_path / "space.yaml"), *more]

    return line


def test_what_is_for_fit_is_told_from_what_is_for_search():
    for_fit = [["--config", "a.yaml"], ["--data.batch_size=3"], ["--model.lr", "-1"], ["--run.name", "x"]]
    for_search = [["--space", "s.yaml"], ["--metric", "a", "b=2"], ["--json"], ["--nonsense", "y"]]
    mixed = [part for pair in zip(for_fit, for_search, strict=True) for part in pair]
    assert split([*chain(*mixed)]) == ([*chain(*for_fit)], [*chain(*for_search)])


def test_metrics_have_weights_and_bounds():
    assert weights(["val/fvu", "val/l0=0.01"]) == {"val/fvu": 1.0, "val/l0": 0.01}
    assert bounds(["a=1"], ["a=2", "b=3"]) == {"a": Bounds(1, 2), "b": Bounds(None, 3)}
    for mistake in (["a", "a=2"], ["a=x"], ["a=nan"], []):
        with pytest.raises(UserError, match="metric"):
            weights(mistake)
    with pytest.raises(UserError, match="at_most is 'a': write NAME=NUMBER"):
        bounds([], ["a"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "space is missing: python main.py search --space VALUE"),
        (["--space", "none.yaml"], "there is no file none.yaml"),
        (["--spaec", "s.yaml", "--space", "none.yaml"], "there is no setting spaec: the nearest are space"),
        (["--space", "none.yaml", "--trials", "0"], "trials must be of type PositiveInt, not '0'"),
        (["--space", "none.yaml", "--final", "bset"], "final cannot be 'bset'"),
        (["--space", "none.yaml", "--metric", "a=b"], "metric is 'a=b'"),
    ],
)
def test_a_mistake_is_one_line(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["search", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_the_parent_does_not_pay_for_torch():
    code = (
        "import sys\nfrom cli import main\nmain(['search', '--space', 'none.yaml'])\n"
        "assert 'search.searching' in sys.modules\nassert not {'torch', 'lightning'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_what_fit_would_refuse_is_refused_before_anything_is_trained(typed, tmp_path, capfd):
    mistakes = [
        ({"model.autoencoder.kk": [1]}, "model.autoencoder.kk, which the job does not have: the nearest are model."),
        ({"model.autoencoder.k": [3, 0]}, "error: trial 2-k0: model.autoencoder.k must be a PositiveInt"),
        ({"trainer.log_every_n_steps": [1, 2]}, "trials 1-log_every_n_steps1 and 2-log_every_n_steps2 are the same"),
    ]
    for space, sentence in mistakes:
        assert main(typed(space)) == 2
        assert sentence in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/*/spec-*"))


@pytest.mark.slow
def test_the_whole_chain(typed, tmp_path, capsys):
    # the environment is detected, curves go to a tracker, and what is finished is copied elsewhere
    backup = tmp_path / "backup"
    backup.mkdir()
    # searched in one pass on half of the data, selected by two metrics, trained from the best one's weights, exported
    space = {"model.autoencoder.k": [2, 4], "model.optimizer.lr": [0.001, 0.01], "seed": [1]}
    line = typed(space, "--trial_config", str(tmp_path / "shorter.yaml"), "--members_at_once", "3")
    line += ["--metric", "val/fvu", "val/l0=0.001", "--final", "best", "--json"]
    line += ["--export", "saelens", "--output", str(tmp_path / "exported")]
    line += ["--config", str(ROOT / "configs" / "tracking" / "csv.yaml"), "--run.backup", backup.as_uri()]
    assert main(line) == 0
    summary = json.loads(capsys.readouterr().out)
    folder = tmp_path / "runs" / "tiny-search"

    assert [trial["status"] for trial in summary["trials"]] == ["complete"] * 4
    sweeps = {trial["run"] for trial in summary["trials"]}
    assert len(sweeps) == 2, "two passes of two members each"
    best = min(summary["trials"], key=lambda t: t["metrics"]["val/fvu"] + 0.001 * t["metrics"]["val/l0"])
    assert summary["best"] == best["name"]
    names = sorted(path.name for path in (folder / "selections").iterdir())
    assert names[:2] == ["index.json", "latest.json"]
    assert names[2].startswith("selection-")
    assert json.loads((folder / "selections" / "latest.json").read_text())["selection"]["best"] == best["name"]
    assert json.loads((folder / "search.json").read_text()) == summary

    final = Path(summary["final"]["run"])
    record = read_record(final)
    assert final.parents[1].name == "tiny"
    assert completion_of(final).complete
    assert (record.progress.step, read_record(best["run"]).progress.step) == (20, 10)
    assert record.lineage.parent_run == read_record(best["run"]).id
    assert record.spec["initial_weights"].endswith(f"of {best['name']}")
    settings = record.spec["model"]["init_args"]
    assert settings["autoencoder"]["init_args"]["k"] == best["settings"]["model.autoencoder.k"]
    assert settings["optimizer"]["init_args"]["lr"] == best["settings"]["model.optimizer.lr"]
    assert record.environment["name"] == detect_environment()
    assert "val/fvu" in (final / "csv" / "1" / "metrics.csv").read_text().splitlines()[0]
    copied = backup / final.relative_to(tmp_path / "runs")
    assert read_record(copied).id == record.id
    assert newest_valid(copied / "checkpoints").checkpoint.path.name == "step-00000020"
    assert {"metrics.json", "metadata.json", "config.1.yaml", "checkpoints"} <= {path.name for path in final.iterdir()}
    assert json.loads((tmp_path / "exported" / "cfg.json").read_text())["k"] == best["settings"]["model.autoencoder.k"]

    # once more: everything is there, and nothing is trained, selected or exported again
    assert main(line) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == summary
    assert "trained already" in again.err
    assert "exported already" in again.err
    assert sorted(path.name for path in (folder / "selections").iterdir()) == names
    runs = [path.parent for path in tmp_path.glob("runs/*/*/v*/metadata.json")]
    assert len(runs) == 3
    assert all(len(read_record(run).attempts) == 1 for run in runs)


@pytest.mark.slow
def test_a_stopped_search_goes_on_and_a_failed_trial_is_not_its_end(typed, tmp_path, capsys):
    space = {"data.batch_size": [64, 4096, 128]}  # 4096 rows are more than there are
    line = typed(space, "--sampler", "grid")
    process = subprocess.Popen([sys.executable, "main.py", *line], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for text in process.stdout:
        if text.startswith("trial 3 of 3"):
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    (first,) = tmp_path.glob("runs/tiny-search/spec-*/v*/metrics.json")
    before = first.stat().st_mtime_ns

    assert main([*line, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [trial["status"] for trial in summary["trials"]] == ["complete", "failed", "complete"]
    assert "batch" in summary["trials"][1]["verdict"]
    assert first.stat().st_mtime_ns == before
    assert len(read_record(first.parent).attempts) == 1
    best = next(trial for trial in summary["trials"] if trial["name"] == summary["best"])
    # trained from scratch on the same data it would be the same to the bit
    assert summary["final"] == {"run": best["run"], "member": None}


@pytest.mark.slow
def test_optuna_chooses_the_trials_and_what_it_chose_is_kept(typed, tmp_path, capsys):
    space = {"model.autoencoder": ["topk", "relu"], "model.autoencoder.d_sae": [32], "model.optimizer.lr": [0.01]}
    line = typed(space, "--sampler", "optuna", "--final", "none", "--json")
    assert main([*line, "--trials", "1"]) == 0
    first = json.loads(capsys.readouterr().out)["trials"]
    assert main([*line, "--trials", "2"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["trials"][0]["run"] == first[0]["run"]
    assert len(summary["trials"]) == 2
    assert list(tmp_path.glob("runs/tiny-search/study-*.sqlite"))
    assert summary["final"]["run"] in {trial["run"] for trial in summary["trials"]}


@pytest.mark.slow
def test_the_resolver_answers_as_fit_would_and_starts_again_when_asked(typed):
    of_fit, _ = split(typed({})[1:])
    with Resolver() as resolver:
        plain = resolver(of_fit)
        assert plain.config["model"]["init_args"]["autoencoder"]["init_args"]["k"] == 3
        with pytest.raises(UserError, match="there is no setting"):
            resolver([*of_fit, "--trainer.max_epcohs=1"])
        resolver.close()
        named = resolver([*of_fit, "--run.name=other"])
        assert (named.identity, named.folder.parent.name) == (plain.identity, "other")
