"""A job's figures from those of a few steps, and every reason to refuse it."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimates import Extraction, Limits, Measured, Schedule, Streaming, forecast, refusals
from estimates.checkpoints import Retention
from estimates.refusal import Disk
from estimates.words import as_plain, as_text, duration
from run_store.retention import RetentionRules

SCHEDULE = Schedule(
    train_batches=100,
    validation_batches=20,
    max_epochs=3,
    validate_every_batches=100,
    log_every_steps=10,
    save_every_steps=None,
    samples="epoch",
)
MEASURED = Measured(
    start=5.0,
    warm_up=1.0,
    batch=0.1,
    batches=40,
    warm_batches=5,
    paced=2048,
    paced_in="tokens",
    validation=0.5,
    validation_batch=0.05,
    validation_batches=16,
    epoch=0.25,
    save=2.0,
    moment=1.5,
    finish=3.0,
    checkpoint_bytes=1000,
    record_bytes=100,
    log_step_bytes=10,
    log_epoch_bytes=50,
    log_once_bytes=7,
    moment_bytes=30,
    host_bytes=10**9,
)
STORE = Extraction("stores/x", 10_000, 1000, 2.0, 7000, 2000, 1000.0, 3500.0, 4.0, True, 50, 900)


def amounts(parts):
    return {part.name: part.amount for part in parts}


def test_times_are_counts_times_what_one_took():
    found = forecast(SCHEDULE, MEASURED)
    assert amounts(found.times) == pytest.approx(
        {
            "start": 5.0,
            "training steps": 300 * 0.1 + 1.0,
            "validations": 3 * (0.5 + 20 * 0.05),
            "ends of epochs": 3 * 0.25,
            "saves": 3 * 2.0,
            "predictions": 3 * 1.5,
            "end": 3.0,
        }
    )
    assert found.seconds == pytest.approx(sum(part.amount for part in found.times))
    assert found.training == pytest.approx(found.seconds - 8.0)
    assert found.rate == pytest.approx(300 * 2048 / 31)


def test_every_second_look_for_dead_latents_finds_some_and_the_sample_is_no_longer_than_an_epoch():
    schedule = replace(SCHEDULE, resample_at=(0.2, 0.5))
    for sample, batches in ((32.0, 32), (500.0, 100)):
        found = forecast(schedule, replace(MEASURED, sample=sample))
        assert amounts(found.times)["dead latents"] == pytest.approx(2 / 2 * batches * 0.05)


def test_a_store_is_read_written_and_hashed():
    found = forecast(SCHEDULE, MEASURED, extractions=[STORE])
    # the model, the tokens, the bytes that are not there, and a second look at all of them
    assert amounts(found.times)["extraction of stores/x"] == pytest.approx(4 + 10_000 * 0.002 + 5000 / 1000 + 2.0)
    assert amounts(found.stores) == {"stores/x": 5000}


def test_files_are_checkpoints_logs_and_records():
    retention = Retention(RetentionRules(1), deletes=True)
    found = forecast(SCHEDULE, MEASURED, retention)
    files = amounts(found.files)
    assert files["checkpoints"] == 1000
    assert files["curves and pictures"] == 7 + 30 * 10 + 3 * 50
    assert files["predictions of samples"] == 90
    assert found.most_files == pytest.approx(sum(files.values()) + 1000)
    assert forecast(SCHEDULE, MEASURED).most_files == pytest.approx(sum(files.values()) + 2000)


def test_the_host_needs_the_larger_of_extraction_and_training():
    big = replace(STORE, peak_bytes=2 * 10**9, buffers=10)
    assert forecast(SCHEDULE, MEASURED, extractions=[big]).host.amount == 2 * 10**9 + 10
    stream = Streaming(1000, 10, 1e3, 5e2, pool_bytes=500, calibrated_pool_bytes=200)
    assert forecast(SCHEDULE, replace(MEASURED, ranks=2), streaming=stream).host.amount == 10**9 + 3 * 300 * 2


def test_a_filled_store_is_read_by_later_passes():
    stream = Streaming(500, 10, 1e4, 1e4, pass_rows=1000, fills=True, fill="stores/f", fill_bytes=90, fill_there=40)
    filled = forecast(SCHEDULE, MEASURED, streaming=stream)
    assert amounts(filled.stores) == {"stores/f": 50}
    # steps cost half where nothing is read beside them
    assert amounts(filled.times)["training steps"] < amounts(forecast(SCHEDULE, MEASURED).times)["training steps"]


@given(st.integers(0, 300))
def test_what_is_done_is_not_foreseen_again(done):
    rest = forecast(SCHEDULE, replace(MEASURED, start_step=done))
    assert rest.counts.steps == 300 - done
    assert rest.seconds <= forecast(SCHEDULE, MEASURED).seconds + 1e-9
    assert rest.training >= 0
    as_text(rest)


@given(
    st.builds(Schedule, train_batches=st.integers(1, 50), max_epochs=st.integers(1, 4)),
    st.floats(0, 10),
    st.floats(0, 10),
)
def test_slower_parts_make_a_slower_whole(schedule, batch, more):
    one, other = (forecast(schedule, replace(MEASURED, batch=seconds)) for seconds in (batch, batch + more))
    assert one.seconds <= other.seconds + 1e-9


# ---- refusals

FOUND = forecast(SCHEDULE, MEASURED, Retention(RetentionRules(1), deletes=True), [STORE])
ROOMY = Limits(
    disks={"runs": Disk(1, 10**9), "stores/x": Disk(1, 10**9)},
    memory=2 * 10**9,
    seconds=1000.0,
    training_seconds=1000.0,
)


def test_what_fits_is_not_refused():
    assert refusals(FOUND, ROOMY) == []
    assert refusals(FOUND, Limits()) == []


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"disks": {"runs": Disk(1, 6000), "stores/x": Disk(1, 6000)}}, r"disk of stores/x and runs has 6 kB free"),
        ({"disks": {"runs": Disk(1, 10**9), "stores/x": Disk(2, 4999)}}, r"disk of stores/x has 5 kB free .* 5 kB"),
        ({"disks": {"runs": Disk(1, 500), "stores/x": Disk(2, 5000)}}, r"disk of runs has 500 bytes free"),
        (
            {"memory": 10**8, "memory_of": "the container's limit of 0.1 GB"},
            r"1 GB .* limit of 0\.1 GB has 100 MB",
        ),
        ({"seconds": 60.0}, r"the job needs 1 min 26 s and SLURM leaves it 1 min 00 s"),
        ({"training_seconds": 30.0}, r"the training needs 46\.8 s and trainer\.max_time is 30\.0 s"),
    ],
)
def test_each_reason_is_a_sentence_with_its_numbers(limits, told):
    (sentence,) = refusals(FOUND, replace(ROOMY, **limits))
    assert re.search(told, sentence), sentence


def test_an_accelerator_that_is_too_small_is_refused():
    found = forecast(SCHEDULE, replace(MEASURED, device="a GPU", device_bytes=9 * 10**9, rows_at_once=64))
    (sentence,) = refusals(found, replace(ROOMY, device=8 * 10**9))
    assert "a rank needs 9 GB of memory on its accelerator, which has 8 GB left" in sentence
    assert "cut to 64 rows" in as_text(found)


def test_the_table_and_the_json_say_the_same():
    plain = json.loads(json.dumps(as_plain(FOUND, refusals(FOUND, replace(ROOMY, seconds=1.0)))))
    assert plain["fits"] is False
    assert plain["seconds"] == pytest.approx(FOUND.seconds)
    assert plain["disk_bytes"] == round(FOUND.bytes)
    text = as_text(FOUND)
    assert {part["name"] for part in plain["times"]} <= {line.strip().split("  ")[0] for line in text.splitlines()}
    assert "300 of 300 optimiser steps" in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.23, "4.2 s"), (150, "2 min 30 s"), (3599.9, "60 min 00 s"), (3900, "1 h 05 min")]
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_nothing_of_it_needs_torch():
    code = (
        "import estimates, estimates.machine, cli.preflight, sys; assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
