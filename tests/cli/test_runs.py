"""`python main.py runs` around a real run: list, show, pause, resume, delete, clean. The rest is in run_verbs/."""

import json
import shutil
import subprocess
import sys

import pytest

from cli import main
from run_store.locks import RunLock
from run_store.pausing import PAUSE_NAME
from run_store.predictions import PredictionStore, entry_of, store_path_of
from run_store.record import read_record
from tests.cli.jobs import ROOT, Job, differing, wait_for
from tests.run_store.predictions.records import prediction


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0].runs, tmp_path / "runs")
    return Job(finished[0].store, tmp_path / "runs")


def runs(job, verb, *more):
    return main(["runs", verb, *more, "--folder", str(job.runs)])


def set_record(run, **changes):
    content = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps({**content, **changes}))


def test_list_and_show_tell_what_the_record_says(finished, capsys):
    job, _ = finished
    assert runs(job, "list") == 0
    printed = capsys.readouterr().out
    assert job.record.id[:8] in printed
    assert "complete" in printed
    assert runs(job, "list", "--status", "failed", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"total": 0, "runs": [], "damaged": []}
    assert runs(job, "list", "--model", "TopK", "--dataset", "store", "--name", "sae", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["step"] == job.steps
    assert runs(job, "show", "sae") == 0
    printed = capsys.readouterr().out
    assert "val/fvu" in printed
    assert job.record.spec_fingerprint in printed
    assert runs(job, "show", job.record.id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "complete"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lst"], "no verb runs 'lst': the nearest are list"),
        (["list", "--statsu", "x"], "no setting statsu: the nearest are status"),
        (["list", "--status", "done"], "status cannot be 'done': choose one of pending, initialising, running,"),
        (["show"], "RUN is missing"),
        (["show", "nothing"], "there is no run nothing in runs"),
        (["clean", "--delete", "ture"], "delete cannot be 'ture'"),
    ],
)
def test_a_mistake_is_one_line(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["runs", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_verbs_do_not_pay_for_torch():
    code = (
        "import sys\nfrom cli import main\n"
        "try:\n    main(['runs', 'list', '--help'])\nexcept SystemExit:\n    pass\n"
        "for verb in (['list'], ['best'], ['compare', 'a'], ['watch', '--once'], ['verify'], ['reindex']):\n"
        "    main(['runs', *verb, '--folder', 'no such folder'])\n"
        "assert not {'torch', 'lightning'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_pause_without_a_process_says_so(copy, capsys):
    assert runs(copy, "pause", "sae") == 2
    assert "no process is working on" in capsys.readouterr().err


def test_delete_takes_the_whole_run_and_refuses_one_at_work(copy, capsys):
    with RunLock(copy.run):
        assert runs(copy, "delete", "sae", "--yes") == 2
    folder = copy.run
    assert runs(copy, "delete", "sae", "--yes") == 0
    assert not folder.exists()


def predict(run):
    """One prediction of the run in a folder."""
    with PredictionStore(store_path_of(run)) as store:
        record = read_record(run)
        store.register(entry_of(record))
        store.write([prediction(run_id=record.id)])


def test_delete_takes_the_predictions_of_the_run_and_no_others(copy, capsys):
    folder = copy.run
    other = folder.with_name("v2")
    shutil.copytree(folder, other)
    set_record(other, id="other", status="failed", created="2022-01-01T00:00:00+00:00", ended=None)
    predict(folder)  # one more than the training has made
    predict(other)
    with PredictionStore(store_path_of(folder), read_only=True) as store:
        count = store.count(run=read_record(folder).id)
    assert runs(copy, "delete", str(folder), "--yes") == 0
    assert capsys.readouterr().out == f"deleted {folder} and its {count} predictions\n"
    assert count > 1
    with PredictionStore(store_path_of(other), read_only=True) as store:
        assert [run.run_id for run in store.runs()] == ["other"]
    shutil.copytree(other, other.with_name("v3"))
    set_record(other.with_name("v3"), id="newest", created="2023-01-01T00:00:00+00:00")
    assert runs(copy, "clean", "--delete") == 0
    assert capsys.readouterr().out == f"deleted {other} (failed) and its 1 predictions\n"


def test_a_run_goes_though_its_predictions_cannot(copy, capsys):
    folder = copy.run
    store_path_of(folder).write_bytes(b"no database" * 1000)
    assert runs(copy, "delete", "sae", "--yes") == 0
    assert not folder.exists()
    assert "; its predictions stay, since " in capsys.readouterr().out


def test_clean_only_tells_until_it_is_told_to_delete(copy, capsys):
    identity = copy.run.parent
    for number in (2, 3):
        shutil.copytree(identity / "v1", identity / f"v{number}")
        set_record(identity / f"v{number}", status="failed", created=f"202{number}-01-01T00:00:00+00:00", ended=None)
    assert runs(copy, "clean") == 0
    assert "would delete" in capsys.readouterr().out
    assert len(copy.folders()) == 3
    assert runs(copy, "clean", "--delete", "true") == 0
    assert [folder.name for folder in copy.folders()] == ["v1"]


@pytest.mark.slow
def test_a_paused_run_is_resumed_by_its_name_and_ends_bit_identical(job, finished, fork_server, capsys):
    started = fork_server.start(job.arguments("--trainer.max_epochs", "4"))
    wait_for(lambda: len(job.saved()) >= 2, started)
    assert runs(job, "pause", "sae") == 0
    assert "is paused" in capsys.readouterr().out
    assert started.wait() == 0, started.output
    assert not (job.run / PAUSE_NAME).exists()
    assert job.record.status == "paused"
    assert runs(job, "delete", "sae", "--yes") == 2, "somebody waits for it"
    resumed = fork_server.start(["runs", "resume", "sae", "--folder", str(job.runs)])
    assert resumed.wait() == 0, resumed.output
    straight = Job(job.store, job.runs.with_name("straight"))
    assert fork_server.start(straight.arguments("--trainer.max_epochs", "4")).wait() == 0
    assert differing(job.run, straight.run) == []
