"""What a machine has left, from files as Linux writes them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimates.machine import (
    PeakWatch,
    disk_of,
    existing,
    held_by,
    memory_available,
    parse_slurm_time,
    slurm_seconds,
)


@pytest.fixture
def system(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  16000 kB\nMemAvailable:   8000 kB\nHugePages_Total:  0\n")
    return tmp_path


def write_group(folder, limit, used, idle):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {idle}\n")


def test_without_a_container_the_machine_says(system):
    assert memory_available(system) == (8000 * 1024, "this machine")


def test_the_tightest_group_above_a_process_decides_and_its_idle_pages_are_free(system):
    (system / "proc/self/cgroup").write_text("0::/job/step\n")
    groups = system / "sys/fs/cgroup"
    write_group(groups / "job", 4_000_000, 3_000_000, 500_000)
    write_group(groups / "job/step", "max", 1, 0)
    assert memory_available(system) == (1_500_000, "the container's limit of 0.004 GB")


def test_version_1_and_no_limit_of_it(system):
    (system / "proc/self/cgroup").write_text("5:cpu:/a\n4:memory:/a\n")
    folder = system / "sys/fs/cgroup/memory/a"
    folder.mkdir(parents=True)
    (folder / "memory.usage_in_bytes").write_text("1000")
    (folder / "memory.stat").write_text("total_inactive_file 400\n")
    (folder / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert memory_available(system).of == "this machine"
    (folder / "memory.limit_in_bytes").write_text("2000")
    assert memory_available(system).bytes == 1400


def test_a_group_that_is_full_has_nothing_left(system):
    write_group(system / "sys/fs/cgroup", 1000, 5000, 0)
    assert memory_available(system).bytes == 0


def test_nobody_knows(tmp_path):
    assert memory_available(tmp_path) is None


def test_memory_that_is_held_leaves_mapped_files_out(system):
    status = system / "proc/self/status"
    status.write_text("Name:\tx\nVmRSS:\t 900 kB\nRssAnon:\t 100 kB\nRssFile:\t 790 kB\nRssShmem:\t 10 kB\n")
    assert held_by(system=system) == 110 * 1024
    assert held_by() > 2**20
    assert held_by(2**22 + 1) == 0, "a process that has gone"


def test_a_peak_is_seen_and_forgotten():
    watch = PeakWatch()
    before = watch.restart()
    block = bytearray(64 * 2**20)
    held = len(block)
    assert watch.restart() >= before + held // 2
    del block
    watch.close()


def test_disks_of_folders_that_are_not_there_yet(tmp_path):
    assert existing(tmp_path / "a" / "b") == tmp_path
    number, free = disk_of(tmp_path / "a")
    assert number == os.stat(tmp_path).st_dev
    assert free > 0


@given(st.integers(0, 20), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_times_of_slurm(days, hours, minutes, seconds):
    text = f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"
    assert parse_slurm_time(text) == ((24 * days + hours) * 60 + minutes) * 60 + seconds
    assert parse_slurm_time(f"{minutes}:{seconds:02d}") == 60 * minutes + seconds


@pytest.mark.parametrize("text", ["UNLIMITED", "", "INVALID", "1-", "a-1:2:3", "1:2:3:4"])
def test_what_is_no_time_of_slurm(text):
    assert parse_slurm_time(text) is None


def test_the_end_of_a_job_of_slurm():
    assert slurm_seconds({}) is None
    assert slurm_seconds({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "0"}) == 0.0
