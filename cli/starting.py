"""How a training begins: its identity, the decision what to do, and the claim on its folder; before any model is built
and any weights or activations are read.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.environments import environment_of
from cli.run_settings import RunSettings
from cli.sources import FoundSource, find_source, weights_sha256
from run_store import UserError, atomic_file, sweep_temporaries
from run_store.checkpoints import sweep_leftovers
from run_store.code_state import CodeState, code_state
from run_store.environment import environment_snapshot, hardware, package_versions
from run_store.fingerprints import Execution, Spec, execution_of, spec_of
from run_store.layout import CHECKPOINTS_NAME, METADATA_NAME, identity_folder, variant_folders
from run_store.listing import resolve_run
from run_store.locks import RunLock, deciding, is_held
from run_store.modes import Decision, OnDisk, Request, decide
from run_store.pausing import withdraw_pause
from run_store.record import Lineage, RunRecord, create_record, read_record
from run_store.survey import survey_run, survey_variants
from run_store.variants import claim_variant


@dataclass(frozen=True)
class Identity:
    """What is trained, how, and by which code."""

    spec: Spec
    execution: Execution
    code: CodeState

    def folder(self, settings: RunSettings) -> Path:
        """Of all variants."""
        return identity_folder(settings.folder, settings.name, self.spec.fingerprint, self.execution.fingerprint)


@dataclass(frozen=True)
class Asked:
    """One start, as the command line asks for it.

    Attributes:
        config: resolved, as plain values.
        settings: those under `run`.
        contents: see `spec_of`.
        resume: names the run to go on with, whatever the mode.
    """

    config: Mapping[str, Any]
    settings: RunSettings
    contents: Mapping[str, str | None]
    resume: str | None = None

    def began_as(self, checkpoint: Path | None) -> str | None:
        """What stands for the weights of a checkpoint that are taken."""
        sha256, member = weights_sha256(checkpoint), self.settings.member
        return sha256 if sha256 is None or member is None else f"{sha256} of {member}"

    def identity(self, initial_weights: str | None) -> Identity:
        """Of a run that begins with these weights."""
        code = code_state()
        spec = spec_of(self.config, self.contents, initial_weights)
        return Identity(spec, execution_of(self.config, code.identity(), self.settings.identity), code)


@dataclass
class Start:
    """A run that this process has claimed and locked.

    Attributes:
        folder: of the run.
        checkpoint: to go on from; None to begin.
        weights: the checkpoint whose weights a run that begins takes; None for freshly drawn ones.
        is_new: whether this process has made the folder.
        record: once the attempt has begun.
    """

    folder: Path
    identity: Identity
    lock: RunLock
    checkpoint: Path | None = None
    weights: Path | None = None
    is_new: bool = False
    record: RunRecord | None = None

    def begin(self, asked: Asked, config_text: str) -> RunRecord:
        """Stores what is known of the run, and its settings as config.<attempt>.yaml."""
        is_known = (self.folder / METADATA_NAME).exists()
        record = read_record(self.folder) if is_known else self._new_record(asked)
        withdraw_pause(self.folder)
        sweep_temporaries(self.folder)  # of killed attempts; nobody else writes here while the lock is ours
        attempt = record.begin_attempt(self.checkpoint)
        with atomic_file(self.folder / f"config.{attempt.number}.yaml") as temporary:
            temporary.write_text(config_text, encoding="utf-8")
        self.record = record
        return record

    def abandon(self) -> None:
        """Leaves no trace of a run that was refused before it could begin."""
        if self.is_new and self.record is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _new_record(self, asked: Asked) -> RunRecord:
        return create_record(
            self.folder,
            asked.settings.name,
            self.identity.spec,
            self.identity.execution,
            model=_short_name(asked.config["model"]),
            dataset=_data_name(asked.config["data"]),
            lineage=_lineage(self.weights),
            git=asdict(self.identity.code),
            packages=package_versions(),
            hardware=hardware(),
            environment={"name": environment_of(asked.settings.environment), **environment_snapshot()},
        )


def start(asked: Asked) -> Start | None:
    """Decides what a `fit` does, prints it with its reason as one line, and claims the run.

    Returns:
        None when there is nothing to do.

    Raises:
        UserError: the start is refused, and why.
    """
    if asked.resume is not None:
        return _resume_named(asked, resolve_run(asked.settings.folder, asked.resume).folder)
    settings = asked.settings
    source = find_source(settings)
    identity = asked.identity(asked.began_as(source.checkpoint))
    folder = identity.folder(settings)
    with deciding(folder):
        decision = _decision(asked, folder, source)
        if decision.action != "start_new":
            return _carried_out(decision, identity)
        began_as = asked.began_as(decision.checkpoint)
        if began_as == identity.spec.initial_weights:
            return _started(decision, identity, folder)
    # it continues a run that began from scratch, and must not be taken for one that did
    identity = asked.identity(began_as)
    with deciding(identity.folder(settings)):
        return _started(decision, identity, identity.folder(settings))


def foreseen(asked: Asked) -> Decision:
    """What `start` would decide, without a claim, a lock or a trace.

    Raises:
        UserError: the start would be refused, and why.
    """
    if asked.resume is not None:
        folder = resolve_run(asked.settings.folder, asked.resume).folder
        if (folder / METADATA_NAME).exists():
            record = read_record(folder)
            _refuse_other_settings(record, asked.identity(record.spec.get("initial_weights")))
        decision = decide(Request(), OnDisk((survey_run(folder),)))
    else:
        source = find_source(asked.settings)
        folder = asked.identity(asked.began_as(source.checkpoint)).folder(asked.settings)
        decision = _found(asked, folder, source)
    if decision.action == "refuse":
        raise UserError(decision.reason)
    return decision


def _decision(asked: Asked, folder: Path, source: FoundSource) -> Decision:
    for variant in variant_folders(folder):
        _sweep(variant)
    return _found(asked, folder, source)


def _found(asked: Asked, folder: Path, source: FoundSource) -> Decision:
    settings = asked.settings
    path = None if settings.path is None else Path(settings.path)
    request = Request(settings.mode, settings.source, path, settings.validate_source)
    return decide(request, OnDisk(survey_variants(folder), source.run, source.best, source.path))


def _resume_named(asked: Asked, folder: Path) -> Start | None:
    """Goes on with a run that was named, once its settings turn out to be the same."""
    identity = asked.identity(None)
    with deciding(folder.parent):
        _sweep(folder)
        if (folder / METADATA_NAME).exists():
            record = read_record(folder)
            identity = asked.identity(record.spec.get("initial_weights"))
            _refuse_other_settings(record, identity)
        return _carried_out(decide(Request(), OnDisk((survey_run(folder),))), identity)


def _refuse_other_settings(record: RunRecord, identity: Identity) -> None:
    if record.spec_fingerprint != identity.spec.fingerprint:
        there, here = _flat(record.spec), _flat(asdict(identity.spec))
        differing = sorted(name for name in there | here if there.get(name) != here.get(name))
        both = "; ".join(f"{name} is {there.get(name)!r} there and {here.get(name)!r} here" for name in differing[:5])
        raise UserError(
            f"the run {record.folder} was made with other settings ({both}): set them back, or start another run with "
            f"its weights by --run.source run --run.path {record.folder}"
        )
    if record.exec_fingerprint != identity.execution.fingerprint:
        print(
            f"warning: {record.folder} was begun by other code or on other devices: its weights may differ from those "
            "of an uninterrupted run",
            file=sys.stderr,
        )


def _carried_out(decision: Decision, identity: Identity) -> Start | None:
    if decision.action == "refuse" or decision.folder is None:
        raise UserError(decision.reason)
    if decision.action == "skip":
        _tell(decision)
        return None
    lock = RunLock(decision.folder)
    _tell(decision)
    known = decision.folder / METADATA_NAME
    parent = read_record(decision.folder).lineage.parent_checkpoint if known.exists() else None
    weights = Path(parent) if parent is not None and decision.checkpoint is None else None
    return Start(decision.folder, identity, lock, decision.checkpoint, weights)


def _started(decision: Decision, identity: Identity, identity_folder: Path) -> Start:
    folder = claim_variant(identity_folder)
    lock = RunLock(folder)
    _tell(decision, f" in {folder}")
    return Start(folder, identity, lock, weights=decision.checkpoint, is_new=True)


def _tell(decision: Decision, where: str = "") -> None:
    if decision.warning:
        print(f"warning: {decision.warning}", file=sys.stderr, flush=True)
    print(f"{decision.reason}{where}", flush=True)


def _sweep(folder: Path) -> None:
    """What a kill inside a save has left, which may be the newest checkpoint, moved aside."""
    checkpoints = folder / CHECKPOINTS_NAME
    if any(path.suffix in (".partial", ".replaced", ".trash") for path in checkpoints.glob("*")) and not is_held(
        folder
    ):
        with RunLock(folder):
            sweep_leftovers(checkpoints)


def _lineage(weights: Path | None) -> Lineage:
    if weights is None:
        return Lineage()
    run = weights.parent.parent
    parent = read_record(run).id if (run / METADATA_NAME).exists() else None
    return Lineage(parent_run=parent, parent_checkpoint=str(weights))


def _short_name(model: Mapping[str, Any]) -> str:
    """The variant, or those of the members with how many have each."""
    settings = model.get("init_args", {})
    members = (settings.get("members") or {"": {}}).values()
    chosen = [member.get("autoencoder") or settings.get("autoencoder") or model for member in members]
    counts = Counter(str(inner["class_path"]).rpartition(".")[2] for inner in chosen)
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())


def _data_name(data: Mapping[str, Any]) -> str:
    store = data.get("init_args", {}).get("store")
    return Path(store).name if store else str(data["class_path"]).rpartition(".")[2]


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        return {} if settings is None else {prefix.removesuffix("."): settings}
    return {name: value for key, inner in settings.items() for name, value in _flat(inner, f"{prefix}{key}.").items()}
