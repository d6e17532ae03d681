"""The autoencoders that are trained on the same batches, by name."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from lightning_modules.autoencoders import Autoencoder, Normalization, refuse_unshardable
from lightning_modules.functional import deferred, deferred_together, side_by_side
from lightning_modules.members import Member, telling
from lightning_modules.memory_guard import Step
from lightning_modules.sides import Pair
from lightning_modules.trainee import Trainee
from run_store import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")
ONLY = "only"
"""What the autoencoder of a training without members is called in its checkpoints."""
RESERVED = frozenset({"train", "val", "test", ONLY})
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Members(nn.ModuleDict):
    """One trainee a name. Where there are no members to choose from it holds the model's autoencoder alone, under a
    name that nobody sees: a sweep of one.

    What is wrong with the names is kept until `check`, since nobody would read it here.

    Args:
        settings: of each member; None where there are none.
        autoencoder: of those that name none.
        trainee: makes one of an autoencoder and the names of the hook points that it sees.
    """

    def __init__(
        self,
        settings: Mapping[str, Member] | None,
        autoencoder: Autoencoder,
        trainee: Callable[[Autoencoder, Sequence[str] | None], Trainee],
    ) -> None:
        super().__init__()
        self.problem = None if settings is None else self._problem_of(settings)
        self.is_sweep = settings is not None and self.problem is None
        self.settings = {ONLY: Member()} if settings is None or self.problem else dict(settings)
        for name, member in self.settings.items():
            own = copy.deepcopy(member.autoencoder or autoencoder) if self.is_sweep else autoencoder
            self[name] = trainee(own, member.hook_points)
        self._seconds = dict.fromkeys(self.settings, 0.0)
        """That the forward of each took the last time."""

    def _problem_of(self, names: Mapping[str, Member]) -> str | None:
        """A sentence that says what to do; a name becomes part of metrics, folders and the names of weights."""
        if not names:
            return "model.members is empty: name at least one member, or leave it out"
        lower = [name.lower() for name in names]
        for name in names:
            if not NAME.fullmatch(name):
                return (
                    f"model.members has a member called {name!r}: a name is made of letters, digits, - and _ and "
                    "begins with a letter or a digit"
                )
            # an attribute of a module cannot name another module in it
            if name.lower() in RESERVED or hasattr(self, name):
                return f"model.members has a member called {name}, which means something else: choose another name"
            if lower.count(name.lower()) > 1:
                return f"model.members has {name} twice but for its case, and both would go to one folder: rename one"
        return None

    # ---- who there is

    @property
    def by_name(self) -> dict[str, Trainee]:
        """All of them."""
        return cast("dict[str, Trainee]", dict(self.items()))

    def prefixed(self) -> Iterator[tuple[str, Trainee]]:
        """Each with what the names of its figures begin with (`prefix`)."""
        for name, member in self.by_name.items():
            yield self.prefix(name), member

    def prefix(self, name: str) -> str:
        """The member's name and a slash; nothing where there are no members to choose from."""
        return f"{name}/" if self.is_sweep else ""

    def chosen(self, name: str | None = None) -> str:
        """The member's name; without one that of the only one.

        Raises:
            UserError: there is none of that name, or without a name there are several.
        """
        if name is None and len(self) == 1:
            return str(next(iter(self)))
        if name is not None and name in self and self.is_sweep:
            return name
        there = f"the model has the members {', '.join(self)}" if self.is_sweep else "the model has no members"
        raise UserError(f"{there}: {'name one of them' if name is None else f'there is no {name}'}")

    @property
    def sole(self) -> Trainee:
        """The one that there is.

        Raises:
            UserError: there are several.
        """
        return self.by_name[self.chosen()]

    # ---- what is done with all of them

    def check(self, available: Sequence[str] | None) -> None:
        """Refuses impossible settings before any data is touched.

        Args:
            available: the data's hook points, where they are known.

        Raises:
            UserError: naming member and setting.
        """
        if self.problem is not None:
            raise UserError(self.problem)
        for prefix, member in self.prefixed():
            with telling(prefix):
                member.check_settings(available)

    def refuse_others(self, names: Collection[str]) -> None:
        """Makes sure that a checkpoint is of the same members.

        Args:
            names: of those in the checkpoint.

        Raises:
            UserError: they are others.
        """
        if set(names) != set(self):
            there, here = ("no members" if ONLY in of else f"the members {', '.join(of)}" for of in (names, self))
            raise UserError(f"the checkpoint has {there} and the model {here}: use the settings that it was made with")

    @property
    def configured(self) -> bool:
        """Whether there are weights."""
        return all(hasattr(member, "pair") for member in self.by_name.values())

    def check_sharing(self, ranks: int) -> None:
        """Refuses to spread the latents of each over so many ranks, where that cannot be.

        Raises:
            UserError: naming the member and what cannot be spread.
        """
        for prefix, member in self.prefixed():
            with telling(prefix):
                refuse_unshardable(member.autoencoder, ranks)

    def configure(
        self,
        shapes: Mapping[str, int],
        make_normalization: Callable[[], Normalization],
        mesh: DeviceMesh | None = None,
    ) -> None:
        """Builds weights and metrics. All draw the same random numbers, those that a training of their own would draw,
        but for members with a seed.

        Args:
            shapes: names and widths of the data's hook points.
            make_normalization: called for each hook point; all that see it share what it gives.
            mesh: of the ranks that share the latents.

        Raises:
            UserError: naming the member whose hook points do not suit it.
        """
        normalizations = {name: make_normalization() for name in shapes}
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        for name, member in self.by_name.items():
            with telling(self.prefix(name)), torch.random.fork_rng(devices):
                if (seed := self.settings[name].seed) is not None:
                    torch.manual_seed(seed)
                member.autoencoder.mesh = mesh
                member.configure(shapes, normalizations)

    def start_from(self, weights: Mapping[str, Tensor], member: str | None = None) -> None:
        """Takes weights and start values from another training, and begins the counters at zero.

        Args:
            weights: state_dict of its model.
            member: of whose weights there all start; by default each starts from the one of its own name, or from the
                only one that there is.

        Raises:
            UserError: there is no such member.
            RuntimeError: the weights are of other sizes.
        """
        theirs: dict[str, dict[str, Tensor]] = {}
        for key, value in weights.items():
            _, name, own = key.split(".", 2)
            theirs.setdefault(name, {})[own] = value
        for name, target in self.by_name.items():
            source = member or (ONLY if ONLY in theirs else name)
            if source not in theirs:
                raise UserError(
                    f"the weights to start from are those of the members {', '.join(theirs)}: name one of them in "
                    "run.member"
                )
            target.load_state_dict(theirs[source])
            for counter in target.counters:
                target.get_buffer(counter).zero_()

    def each(self, work: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """What is done with some of them, by name: side by side where they meet nobody on the way, on a CPU and in one
        process. The ranks of several would wait for different members, and a GPU is busy with one.

        Raises:
            UserError: of the first that raised one, naming the member.
        """
        told = [partial(self._told, name, piece) for name, piece in work.items()]
        results = side_by_side(told) if self._meet_nobody else [piece() for piece in told]
        return dict(zip(work, results, strict=True))

    @property
    def _meet_nobody(self) -> bool:
        alone = not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1
        return alone and all(parameter.device.type == "cpu" for parameter in self.parameters())

    def _told(self, name: str, piece: Callable[[], T]) -> T:
        with telling(self.prefix(name)):
            return piece()

    def step(self, activations: Sequence[Tensor], steps_done: int, loss_scale: Callable[[], float]) -> dict[str, Step]:
        """A step of each, by name: see `Trainee.step`; the losses are for one backward together.

        Args:
            activations: [b, d] of each of the data's hook points.
            steps_done: optimiser steps before this one.
            loss_scale: what the losses are multiplied by before backward.

        Raises:
            UserError: memory ran out and cannot be made do with, naming the member.
        """
        work = {
            name: partial(self._timed, name, partial(member.forward_step, pair, steps_done, loss_scale))
            for name, member, pair in self.pairs(activations)
        }
        if self._meet_nobody:  # the longest first, so that no thread is left with it at the end
            work = {name: work[name] for name in sorted(work, key=self._seconds.__getitem__, reverse=True)}
        made = self.each(work)
        unfinished = [loss for _, loss in made.values()]
        # with a node each, DDP exchanges one's gradient while the next one's is made
        losses = deferred_together(unfinished) if self._meet_nobody else [deferred(*loss) for loss in unfinished]
        finished = dict(zip(made, losses, strict=True))
        return {name: made[name][0]._replace(loss=finished[name]) for name in self.by_name}

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        began = perf_counter()
        done = work()
        self._seconds[name] = perf_counter() - began
        return done

    def pairs(self, activations: Sequence[Tensor]) -> Iterator[tuple[str, Trainee, Pair]]:
        """Each by name with what it reads and reconstructs of a batch; those that see the same share it.

        Args:
            activations: [b, d] of each of the data's hook points.
        """
        made: dict[tuple[tuple[str, ...], ...], Pair] = {}
        for name, member in self.by_name.items():
            sees = member.pair.read_names, member.pair.reconstructed_names
            if sees not in made:
                made[sees] = member.pair(member.seen(activations))
            yield name, member, made[sees]
