import pytest

from cli.places import place_of
from run_store import UserError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "8",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "6",
    "SLURM_NTASKS_PER_NODE": "3",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[3-4]",
    "SLURM_RESTART_COUNT": "1",
}
NODE = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in {*TORCHRUN, *SLURM, *NODE, "SLURM_JOB_NAME"}:
        # Lightning sets some of them; what was missing is missing again afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def started(monkeypatch):
    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_a_process_alone_has_no_place_and_its_settings_stay():
    trainer = {"devices": "auto", "num_nodes": 1}
    assert place_of(trainer) is None
    assert trainer == {"devices": "auto", "num_nodes": 1}


@pytest.mark.parametrize("devices", ["auto", -1, "-1", 4, "4", [0, 1, 2, 3], "0,1,2,3"])
def test_torchrun_says_how_many_there_are(started, devices):
    started(TORCHRUN)
    trainer = {"devices": devices, "num_nodes": 1}
    place = place_of(trainer)
    assert (place.rank, place.world_size, place.address, place.port) == (5, 8, "10.0.0.1", 29500)
    assert (place.restart, place.per_node, place.nodes) == ("2", 4, 2)
    assert trainer["num_nodes"] == 2
    assert trainer["devices"] == (4 if devices in ("auto", -1, "-1") else devices)


def test_slurm_says_how_many_there_are(started):
    started(SLURM)
    trainer = {"devices": "auto", "num_nodes": 2}
    place = place_of(trainer)
    assert (place.rank, place.world_size, place.address, place.port) == (4, 6, "node3", 19711)
    assert (place.restart, place.nodes) == ("1", 2)
    assert trainer == {"devices": 3, "num_nodes": 2}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"devices": 1, "num_nodes": 1}, r"trainer\.devices is 1, and torchrun has started 4 processes a node: set "),
        ({"devices": "auto", "num_nodes": 3}, r"trainer\.num_nodes is 3, and torchrun has started 2 nodes"),
    ],
)
def test_settings_that_contradict_the_starter_are_refused(started, settings, sentence):
    started(TORCHRUN)
    with pytest.raises(UserError, match=sentence):
        place_of(settings)


def test_first_processes_of_nodes_decide_together(started):
    started(NODE)
    place = place_of({"devices": 4, "num_nodes": 3})
    assert (place.rank, place.world_size, place.nodes, place.starter) == (1, 3, 3, None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"NODE_RANK": None},
            r"num_nodes is 2, and NODE_RANK is not set: start one process a node with NODE_RANK \(0 to",
        ),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"NODE_RANK": "2"}, r"NODE_RANK is 2, and trainer\.num_nodes is 2: it goes from 0 to 1"),
        ({"NODE_RANK": "one"}, "NODE_RANK is one"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is http: it must be a number"),
    ],
)
def test_nodes_without_what_they_need_are_refused(started, change, sentence):
    started({name: value for name, value in {**NODE, **change}.items() if value is not None})
    with pytest.raises(UserError, match=sentence):
        place_of({"devices": 1, "num_nodes": 2})


def test_a_process_that_lightning_has_started_on_a_node_does_not_decide(started):
    started({**NODE, "LOCAL_RANK": "1"})
    assert place_of({"devices": 2, "num_nodes": 2}) is None
