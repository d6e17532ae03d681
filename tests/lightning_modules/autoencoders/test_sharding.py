"""An autoencoder whose latents are spread over processes, against the same one in a single process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.autoencoders import (
    AbsTopK,
    Autoencoder,
    Crosscoder,
    CrossLayerTranscoder,
    Gated,
    HierarchicalTopK,
    JumpReLU,
    MatryoshkaBatchTopK,
    NoNormalization,
    Normalization,
    ReLU,
    Skip,
    TopK,
    Transcoder,
    refuse_unshardable,
)
from lightning_modules.autoencoders.wiring import random_unit_rows
from lightning_modules.functional.sharded import gathered, held_of, local
from lightning_modules.memory_guard import Batch, MemoryGuard
from lightning_modules.trainee import Trainee
from run_store import UserError

D_SAE, WIDTH, ROWS = 24, 10, 16

VARIANTS: dict[str, Callable[[], Autoencoder]] = {
    "topk": lambda: TopK(D_SAE, 4),
    "k_wider_than_a_shard": lambda: TopK(D_SAE, 15, k_aux=8),
    "multi_topk": lambda: TopK(D_SAE, 4, multi_topk_coefficient=0.125),
    "in_parts": lambda: TopK(D_SAE, 4),
    "screened": lambda: TopK(D_SAE, 4, screening=True),
    "abs_topk": lambda: AbsTopK(D_SAE, 4),
    "transcoder": lambda: TopK(D_SAE, 4, wiring=Transcoder(skip=True)),
    "crosscoder": lambda: TopK(D_SAE, 4, wiring=Crosscoder()),
    "skip": lambda: TopK(D_SAE, 4, wiring=Skip(0.25, affine=True)),
}


def mesh_of(data_parallel: int, tensor_parallel: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    names = ("data_parallel", "tensor_parallel")
    return init_device_mesh("cpu", (data_parallel, tensor_parallel), mesh_dim_names=names)


def trainee(name: str, mesh: Any = None) -> Trainee:
    """In float64, with start values from data and dead latents that lie unevenly over any shards."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    autoencoder = VARIANTS[name]()
    if mesh is not None:
        refuse_unshardable(autoencoder, mesh.size())
        autoencoder.mesh = mesh
    hook_points = 2 if name in ("transcoder", "crosscoder") else 1
    shapes = {f"h{place}": WIDTH for place in range(hook_points)}
    normalizations: dict[str, Normalization] = {point: NoNormalization() for point in shapes}
    made = Trainee(autoencoder, rows_at_once=5 if name == "in_parts" else None)
    made.configure(shapes, normalizations)
    made.start_from_data(activations(hook_points, 200, seed=1))
    made.begin(100, 10)
    with torch.no_grad():
        # where rows of W_dec are 0 at first, and biases too, hardly anything would be compared
        for parameter in autoencoder.latent_parameters().values():
            noise = 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
            local(parameter).add_(noise[held_rows(parameter)])
    autoencoder.after_optimizer_step()
    made.tokens_since_fired[torch.tensor([0, 1, 2, 3, 5, 13])] = 1000
    return made.train()


def held_rows(parameter: Tensor) -> Tensor:
    every = torch.arange(len(parameter))
    return every[held_of(every, parameter).which]


def activations(hook_points: int, rows: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64) + 0.5 for _ in range(hook_points)]


def one_step(member: Trainee, batches: list[list[Tensor]]) -> dict[str, Tensor]:
    """All that a step and an evaluation after it come to, whole."""
    autoencoder = member.autoencoder
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-2, fused=True)
    step = member.step(member.pair(batches[0]), 50)
    step.loss.backward()
    seen = {"loss": step.loss.detach(), "fvu": step.fvu, "fired": step.firing_counts}
    seen |= {f"term {name}": value for name, value in step.terms.items()}
    seen |= gradients("grad", autoencoder)
    autoencoder.before_optimizer_step()
    seen["norm"] = member.clip(0.01)
    optimizer.step()
    member.count(step.firing_counts, len(batches[0][0]))
    member.after_optimizer_step(50, True)
    seen |= gradients("clipped", autoencoder)
    dead = torch.tensor([1, 20, 23])
    autoencoder.revive(dead, torch.eye(3, autoencoder.d_in), torch.eye(3, autoencoder.d_out))
    seen |= {name: gathered(value) for name, value in member.state_dict().items()}
    member.eval()
    with torch.no_grad():
        codes = member.evaluate(member.pair(batches[1]), batches[1])
    seen |= {f"val {name}": gathered(torch.as_tensor(value)) for name, value in member.scores().items()}
    return seen | {"codes": codes.dense(), "columns": codes.columns(torch.tensor([3, 22])), "density": member.density}


def gradients(what: str, autoencoder: Autoencoder) -> dict[str, Tensor]:
    named = autoencoder.named_parameters()
    return {f"{what} {name}": gathered(own.grad).clone() for name, own in named if own.grad is not None}


def compare(name: str, mesh: Any) -> dict[str, Tensor]:
    """The largest difference of each thing that was seen."""
    hook_points = 2 if name in ("transcoder", "crosscoder") else 1
    batches = [activations(hook_points, ROWS, seed) for seed in (3, 4)]
    alone, shard = one_step(trainee(name), batches), one_step(trainee(name, mesh), batches)
    assert alone.keys() == shard.keys()
    return {key: (alone[key].double() - shard[key].double()).abs().max() for key in alone}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_step_and_an_evaluation_are_those_of_one_process(on_ranks: Callable[..., list[Any]], ranks: int) -> None:
    def work(rank: int) -> dict[str, dict[str, Tensor]]:
        mesh = mesh_of(1, ranks)["tensor_parallel"]
        return {name: compare(name, mesh) for name in VARIANTS}

    for differences in on_ranks(work, ranks):
        for name, of_one in differences.items():
            assert {"grad W_enc", "grad b_dec", "term reconstruction", "norm"} <= of_one.keys()
            assert {key: value for key, value in of_one.items() if value > 1e-10} == {}, name


def test_memory_that_runs_out_on_one_of_the_ranks_ends_the_run() -> None:
    autoencoder = TopK(D_SAE, 4)
    autoencoder.build(WIDTH)
    autoencoder.mesh = object()  # type: ignore[assignment]  # others, who would wait
    (x,) = activations(1, ROWS, seed=1)

    def attempt(size: int) -> None:
        raise MemoryError

    with pytest.raises(UserError, match=r"memory ran out on 16 rows, and ranks that share the latents cannot cut"):
        MemoryGuard().within_memory(Batch.of(autoencoder, x, None, torch.Tensor), None, attempt)


def test_a_part_of_random_rows_is_that_of_all_of_them() -> None:
    for rows, width in ((9001, 3), (4096 * 3 + 5, 2), (24, 10), (7, 1)):
        torch.manual_seed(0)
        every = random_unit_rows(rows, width)
        following = torch.randn(3)
        for held in (range(0, rows // 2), range(rows // 2, rows), range(rows // 3, rows // 3 + 1)):
            torch.manual_seed(0)
            assert torch.equal(random_unit_rows(rows, width, held), every[held.start : held.stop])
            assert torch.equal(torch.randn(3), following)


@pytest.mark.parametrize("variant", [JumpReLU, ReLU, Gated, HierarchicalTopK, MatryoshkaBatchTopK])
def test_what_needs_all_latents_at_once_refuses(variant: type[Autoencoder]) -> None:
    with pytest.raises(UserError, match=f"over 2 ranks and {variant.__name__} needs all of them"):
        refuse_unshardable(variant(24), 2)
    with pytest.raises(UserError, match="CrossLayerTranscoder needs all of them"):
        refuse_unshardable(TopK(24, 4, wiring=CrossLayerTranscoder()), 2)


def test_ranks_must_be_able_to_have_as_many_latents_each() -> None:
    with pytest.raises(UserError, match=r"d_sae is 25 and .* over 2 ranks: make it a multiple"):
        refuse_unshardable(TopK(25, 4), 2)
