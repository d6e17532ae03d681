from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from run_store.fingerprints import (
    Execution,
    IdentityFlags,
    canonical,
    execution_of,
    fingerprint,
    spec_of,
    with_overrides,
)

CHECKOUT = Path(__file__).resolve().parents[2]

# A small alphabet: what is like another value is more telling than what is strange, which has a test of its own.
TEXTS = st.text("ab1.", max_size=3)
LEAVES: st.SearchStrategy[Any] = st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
MAPPINGS = st.dictionaries(TEXTS, VALUES, max_size=4)


class Colour(Enum):
    RED = 1


def config() -> dict[str, Any]:
    """A resolved config as `--print_config` shows one, made anew for each edit."""
    return {
        "seed_everything": 0,
        "trainer": {
            "accelerator": "auto",
            "strategy": "auto",
            "devices": 1,
            "num_nodes": 1,
            "precision": None,
            "logger": {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "runs"}},
            "callbacks": [
                {"class_path": "callbacks.TrainingProgress", "init_args": {"refresh_rate": 10}},
                {"class_path": "callbacks.SaveCheckpoints", "init_args": {"every_n_steps": 200}},
            ],
            "max_epochs": 3,
            "max_steps": -1,
            "limit_train_batches": None,
            "limit_val_batches": None,
            "val_check_interval": None,
            "log_every_n_steps": 20,
            "accumulate_grad_batches": 1,
            "gradient_clip_val": 1.0,
            "gradient_clip_algorithm": None,
            "deterministic": None,
            "benchmark": None,
            "enable_progress_bar": None,
            "default_root_dir": None,
        },
        "model": {
            "class_path": "lightning_modules.sparse_autoencoding.SparseAutoencoding",
            "init_args": {
                "autoencoder": {"class_path": "TopK", "init_args": {"d_sae": 3072, "k": 32, "k_aux": None}},
                "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003, "betas": [0.9, 0.999]}},
            },
        },
        "data": {
            "class_path": "datamodules.activations.ActivationDataModule",
            "init_args": {"store": "stores/minilm", "batch_size": 2048, "seed": 0, "verify": True},
        },
    }


def edited(name: str, value: Any) -> dict[str, Any]:
    changed = config()
    *outer, last = name.split(".")
    inner = changed
    for part in outer:
        inner = inner[part]
    inner[last] = value
    return changed


CODE = {"commit": "c0ffee", "diff_sha256": None}


# One value, one text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, frozenset({2, 3, 1})),
        ({"a": None}, {}),
        (PurePosixPath("stores/x"), "stores/x"),
        (PureWindowsPath("stores\\x"), "stores/x"),
        (Colour.RED, "RED"),
    ],
)
def test_what_a_config_cannot_tell_apart_has_one_text(one: object, other: object) -> None:
    assert canonical(one) == canonical(other)


def test_what_a_config_can_tell_apart_has_texts_of_its_own() -> None:
    values = [None, 0, 0.0, -0.0, False, "0", "", [], {}, [0], [[0]], [None], {"0": 0}, {0: 0}, {"0": "0"}, [0, 0]]
    values += [1, 1.0, True, "true", "1", {"a": [1]}, {"a": {"1": 1}}, "é", "e\u0301", "\ud800", "null", float("inf")]
    texts = [canonical(value) for value in values]
    assert len(set(texts)) == len(values)
    assert all(text.isascii() for text in texts)


def test_what_no_config_can_hold_is_a_bug() -> None:
    with pytest.raises(TypeError, match=r"a fingerprint is of plain values, and .* is a object"):
        fingerprint({"a": [object()]})


@given(content=MAPPINGS, data=st.data())
def test_the_order_of_keys_does_not_matter(content: dict[str, Any], data: st.DataObject) -> None:
    shuffled = {key: content[key] for key in data.draw(st.permutations(list(content)))}
    assert fingerprint(shuffled) == fingerprint(content)


def normal(value: object) -> object:
    """A value such that == tells apart what a config does: 1, 1.0 and True are equal to Python."""
    if isinstance(value, dict):
        return {"map": {key: normal(entry) for key, entry in value.items()}}
    return [normal(entry) for entry in value] if isinstance(value, list) else (type(value).__name__, repr(value))


@given(one=VALUES, other=VALUES)
def test_different_values_have_different_texts(one: object, other: object) -> None:
    assert (canonical(one) == canonical(other)) == (normal(one) == normal(other))


def paths_into(value: Any) -> list[list[Any]]:
    """The way to every leaf."""
    if isinstance(value, dict) and value:
        return [[key, *rest] for key, entry in value.items() for rest in paths_into(entry)]
    if isinstance(value, list) and value:
        return [[index, *rest] for index, entry in enumerate(value) for rest in paths_into(entry)]
    return [[]]


@given(content=MAPPINGS, leaf=LEAVES, data=st.data())
def test_a_small_edit_changes_the_fingerprint(content: dict[str, Any], leaf: object, data: st.DataObject) -> None:
    changed: Any = {"config": copy.deepcopy(content)}
    *way, last = data.draw(st.sampled_from(paths_into(changed)))
    inner = changed
    for step in way:
        inner = inner[step]
    assume(normal(inner[last]) != normal(leaf))
    inner[last] = leaf
    assert fingerprint(changed) != fingerprint({"config": content})


def test_the_same_in_every_process_whatever_its_hash_seed() -> None:
    code = (
        "from run_store.fingerprints import fingerprint; "
        "print(fingerprint({'b': {'x', 'y', 'z', 'w'}, 'a': 0.1, 'c': [True, None, 'é']}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(found) == 1


def test_the_fingerprint_of_a_known_value_stays() -> None:
    # Runs on disk are found by it: a change here orphans every one of them.
    assert canonical({"b": [1, 1.0, True, None], "a": "é"}) == r'{"a":"\u00e9","b":[1,1.0,true,null]}'
    assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


# Overrides


def test_null_overrides_keep_defaults() -> None:
    defaults = {"lr": 0.1, "data": {"path": "a", "rows": 5}, "clip": None}
    assert with_overrides(defaults, {"lr": None, "data": {"rows": None, "path": "b"}, "clip": 1.0}) == {
        "lr": 0.1,
        "data": {"path": "b", "rows": 5},
        "clip": 1.0,
    }
    assert defaults["data"] == {"path": "a", "rows": 5}


@given(defaults=MAPPINGS, data=st.data())
def test_nulls_never_change_a_fingerprint(defaults: dict[str, Any], data: st.DataObject) -> None:
    nulls = dict.fromkeys(data.draw(st.sets(st.sampled_from([*defaults, "another"]))))
    assert fingerprint(with_overrides(defaults, nulls)) == fingerprint(defaults)


# What is trained


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed_everything", 1),
        ("model.class_path", "other.SparseAutoencoding"),
        ("model.init_args.autoencoder.init_args.k", 33),
        ("model.init_args.optimizer.init_args.lr", 0.0031),
        ("model.init_args.optimizer.init_args.betas", [0.9, 0.998]),
        ("data.init_args.batch_size", 2049),
        ("data.init_args.store", "stores/other"),
        ("trainer.max_epochs", 4),
        ("trainer.max_steps", 100),
        ("trainer.limit_train_batches", 0.5),
        ("trainer.gradient_clip_val", None),
        ("trainer.gradient_clip_algorithm", "value"),
        ("trainer.accumulate_grad_batches", 2),
        ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {}}]),
    ],
)
def test_whatever_decides_the_weights_makes_another_spec(name: str, value: object) -> None:
    assert spec_of(edited(name, value)).fingerprint != spec_of(config()).fingerprint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trainer.logger", None),
        ("trainer.callbacks", None),
        ("trainer.callbacks", {"class_path": "callbacks.RunSummary"}),
        ("trainer.log_every_n_steps", 1),
        ("trainer.enable_progress_bar", False),
        ("trainer.default_root_dir", "elsewhere"),
        ("trainer.limit_val_batches", 3),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.devices", 2),
        ("trainer.accumulate_grad_batches", None),
        ("trainer.limit_train_batches", 1.0),
        ("trainer.gradient_clip_algorithm", "norm"),
        ("resume", "runs/sae/version_0"),
    ],
)
def test_whatever_only_watches_or_says_the_default_does_not(name: str, value: object) -> None:
    assert spec_of(edited(name, value)).fingerprint == spec_of(config()).fingerprint


def test_validation_counts_once_a_callback_acts_upon_it() -> None:
    stopping = [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/fvu"}}]
    before = edited("trainer.callbacks", stopping)
    after = copy.deepcopy(before)
    after["trainer"]["limit_val_batches"] = 3
    assert spec_of(before).fingerprint != spec_of(after).fingerprint


def test_resampling_belongs_to_the_training_and_validation_does_not() -> None:
    resampling = edited("trainer.callbacks", [{"class_path": "callbacks.DeadNeuronResampling"}])
    validating_less = copy.deepcopy(resampling)
    validating_less["trainer"]["limit_val_batches"] = 3
    assert spec_of(config()).fingerprint != spec_of(resampling).fingerprint == spec_of(validating_less).fingerprint


def test_our_own_callbacks_that_act_are_named_by_the_caller() -> None:
    watching = edited("trainer.callbacks", [{"class_path": "callbacks.Resampling", "init_args": {"every": 10}}])
    acting = spec_of(watching, training_callbacks={"Resampling"})
    assert spec_of(watching).fingerprint == spec_of(config()).fingerprint != acting.fingerprint


def test_data_stands_by_its_content_not_by_its_place() -> None:
    moved = edited("data.init_args.store", "elsewhere/minilm")
    here, there = (spec_of(each, {"data.init_args.store": "5ca1ab1e"}) for each in (config(), moved))
    other = spec_of(moved, {"data.init_args.store": "deadbeef"})
    assert here.fingerprint == there.fingerprint != other.fingerprint
    assert config()["data"]["init_args"]["store"] == "stores/minilm"


def test_a_setting_that_does_not_touch_the_result_is_left_out() -> None:
    quick = edited("data.init_args.verify", False)
    neutral = {"data.init_args.verify": None}
    assert spec_of(quick, neutral).fingerprint == spec_of(config(), neutral).fingerprint


def test_a_content_for_a_setting_that_is_not_there_is_a_bug() -> None:
    with pytest.raises(KeyError, match="stores"):
        spec_of(config(), {"data.init_args.stores": "5ca1ab1e"})


def test_other_first_weights_make_another_spec() -> None:
    scratch, one, other = (spec_of(config(), initial_weights=sha) for sha in (None, "5ca1ab1e", "deadbeef"))
    assert len({scratch.fingerprint, one.fingerprint, other.fingerprint}) == 3


def test_the_settings_survive_the_saved_config() -> None:
    reread = yaml.safe_load(yaml.safe_dump(config()))
    assert spec_of(reread).fingerprint == spec_of(config()).fingerprint
    assert execution_of(reread, CODE).fingerprint == execution_of(config(), CODE).fingerprint


# How it is run


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trainer.precision", "bf16-mixed"),
        ("trainer.deterministic", True),
        ("trainer.deterministic", "warn"),
        ("trainer.benchmark", True),
        ("trainer.strategy", "ddp"),
        ("trainer.accelerator", "cpu"),
        ("trainer.devices", 2),
        ("trainer.num_nodes", 2),
    ],
)
def test_whatever_decides_the_bits_makes_another_execution(name: str, value: object) -> None:
    assert execution_of(edited(name, value), CODE).fingerprint != execution_of(config(), CODE).fingerprint
    assert spec_of(edited(name, value)).fingerprint == spec_of(config()).fingerprint


@pytest.mark.parametrize("devices", [1, "1", [0], [3], "3,", " 3, "])
def test_the_number_of_devices_counts_not_their_names(devices: object) -> None:
    assert execution_of(edited("trainer.devices", devices), CODE) == execution_of(config(), CODE)


@pytest.mark.parametrize(("devices", "expected"), [("auto", "auto"), (-1, -1), ("-1", -1), ("0,1", 2), (None, "auto")])
def test_devices_in_every_spelling(devices: object, expected: object) -> None:
    assert execution_of(edited("trainer.devices", devices), CODE).parallelism["devices"] == expected


@pytest.mark.parametrize(("one", "other"), [(None, "32-true"), ("32", "32-true"), (16, "16-mixed")])
def test_a_precision_has_one_identity_in_every_spelling(one: object, other: object) -> None:
    executions = {execution_of(edited("trainer.precision", each), CODE).fingerprint for each in (one, other)}
    assert len(executions) == 1


def test_other_code_makes_another_execution() -> None:
    dirty = {**CODE, "diff_sha256": "5ca1ab1e"}
    assert execution_of(config(), dirty).fingerprint != execution_of(config(), CODE).fingerprint


EXECUTION = execution_of(config(), CODE)
FLAGS = [flag.name for flag in fields(IdentityFlags)]


def toggled(execution: Execution, flag: str) -> Execution:
    return replace(execution, flags=replace(execution.flags, **{flag: not getattr(execution.flags, flag)}))


@given(flips=st.lists(st.sampled_from(FLAGS), max_size=6), flag=st.sampled_from(FLAGS))
def test_toggling_a_flag_changes_the_fingerprint_and_toggling_it_back_gives_it_back(
    flips: list[str], flag: str
) -> None:
    execution = EXECUTION
    for flip in flips:
        execution = toggled(execution, flip)
    once = toggled(execution, flag)
    assert once.fingerprint != execution.fingerprint
    assert toggled(once, flag).fingerprint == execution.fingerprint


@pytest.mark.parametrize("flag", FLAGS)
def test_a_part_whose_flag_is_off_makes_no_difference(flag: str) -> None:
    others: dict[str, Any] = {
        "code": {"commit": "another"},
        "precision": "bf16-mixed",
        "determinism": {"deterministic": True, "benchmark": False},
        "parallelism": {"devices": 8},
    }
    other = replace(EXECUTION, **{flag: others[flag]})
    assert other.fingerprint != EXECUTION.fingerprint
    assert toggled(other, flag).fingerprint == toggled(EXECUTION, flag).fingerprint
