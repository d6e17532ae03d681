import pytest

from callbacks.prediction_run import prediction_run
from run_store import UserError
from run_store.fingerprints import Execution, Spec
from run_store.record import create_record


@pytest.fixture
def folder(tmp_path):
    """Of a run as the command line makes one."""
    folder = tmp_path / "runs" / "sae" / "spec-00000000_exec-00000000" / "v1"
    folder.mkdir(parents=True)
    return folder


def test_a_run_of_the_command_line_is_known_by_its_record(folder, tmp_path):
    record = create_record(folder, "sae", Spec({}, {}, {}, 0), Execution({}, "32-true", {}, {}))
    run = prediction_run(str(folder), None)
    assert run.path == tmp_path / "runs" / "predictions.sqlite"
    assert (run.entry.run_id, run.entry.name) == (record.id, "sae")
    assert run.entry.folder == "sae/spec-00000000_exec-00000000/v1"
    assert run.has_record


def test_a_trainer_as_a_library_has_a_store_and_a_run_of_its_own(tmp_path):
    log_dir = tmp_path / "lightning_logs" / "version_3"
    run, other = (prediction_run(str(tmp_path), str(log_dir)) for _ in range(2))
    assert run.path == tmp_path / "predictions.sqlite"
    assert (run.entry.name, run.entry.folder) == ("version_3", "lightning_logs/version_3")
    assert run.entry.run_id != other.entry.run_id
    assert prediction_run(str(tmp_path), str(log_dir), run.entry.run_id).entry.run_id == run.entry.run_id
    assert not run.has_record
    assert prediction_run(str(tmp_path), None).entry.name == tmp_path.name


@pytest.mark.parametrize(("job", "user"), [("j1", "u1"), ("", ""), (None, None)])
def test_ids_of_job_and_user_come_from_the_environment(monkeypatch, tmp_path, job, user):
    for name, value in {"JOB_ID": job, "JOB_USER_ID": user}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    entry = prediction_run(str(tmp_path), None).entry
    assert (entry.job_id, entry.user_id) == (job or None, user or None)


def test_a_damaged_record_is_one_sentence(folder):
    (folder / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        prediction_run(str(folder), None)
