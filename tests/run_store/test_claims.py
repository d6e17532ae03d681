from run_store.checkpoints import checkpoint_path
from run_store.claims import needed_by_runs
from run_store.record import Lineage


def test_an_unfinished_run_keeps_the_checkpoint_that_it_starts_from(new_run):
    parent = new_run()
    checkpoint = checkpoint_path(parent.folder / "checkpoints", 100)
    checkpoint.mkdir(parents=True)
    assert needed_by_runs(parent.folder) == set()
    child = new_run(k=64, lineage=Lineage(parent.id, str(checkpoint)))
    assert needed_by_runs(parent.folder) == {checkpoint}
    assert needed_by_runs(child.folder) == set()
    child.begin_attempt()
    child.move_to("running")
    assert needed_by_runs(parent.folder) == {checkpoint}
    child.move_to("complete")
    assert needed_by_runs(parent.folder) == set()


def test_a_folder_that_is_no_run_of_ours_has_no_claims_on_it(tmp_path):
    assert needed_by_runs(tmp_path / "lightning_logs" / "version_0") == set()
