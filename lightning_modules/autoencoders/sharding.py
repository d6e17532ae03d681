"""An autoencoder's parameters, spread over ranks that hold some of its latents each: see `functional.sharded`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import nn

from lightning_modules.functional import placed, placed_like
from run_store import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Shardable(Protocol):
    """What is asked of an autoencoder, or of its wiring."""

    shardable: ClassVar[bool]


class Variant(Shardable, Protocol):
    """What is asked of an autoencoder."""

    d_sae: int

    @property
    def wiring(self) -> Shardable:
        """Its wiring."""
        ...


def refuse_unshardable(autoencoder: Variant, ranks: int) -> None:
    """Refuses latents that cannot be spread over so many ranks; one has no others to ask.

    Raises:
        UserError: the variant or its wiring cannot be spread, or the ranks cannot have as many latents each.
    """
    if ranks == 1:
        return
    for part in (autoencoder, autoencoder.wiring):
        if not part.shardable:
            raise UserError(
                f"trainer.strategy spreads the latents over {ranks} ranks and {type(part).__name__} needs all of them "
                "at once: set tensor_parallel_size of trainer.strategy to 1, or take another, such as TopK"
            )
    if autoencoder.d_sae % ranks:
        raise UserError(
            f"d_sae is {autoencoder.d_sae} and trainer.strategy spreads the latents over {ranks} ranks: make it a "
            "multiple of their number"
        )


def latents_held(mesh: DeviceMesh | None, d_sae: int) -> range:
    """Those whose weights are in this process, of a mesh of one dimension; all without one."""
    if mesh is None:
        return range(d_sae)
    count, rank = d_sae // mesh.size(), mesh.get_local_rank()
    return range(rank * count, (rank + 1) * count)


def place_parameters(module: nn.Module, by_rows: Iterable[nn.Parameter], mesh: DeviceMesh) -> None:
    """Makes DTensors of all parameters. Of those `by_rows` this process has made its rows, of the others all; what is
    loaded into them later may be whole.
    """
    cut = {id(parameter) for parameter in by_rows}
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            whole = placed(parameter.detach(), mesh, id(parameter) in cut)
            part.register_parameter(name, nn.Parameter(whole, parameter.requires_grad))
    module.register_load_state_dict_pre_hook(_place_loaded)  # type: ignore[no-untyped-call]


def _place_loaded(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, parameter in module.named_parameters():
        if (value := state_dict.get(prefix + name)) is not None:
            state_dict[prefix + name] = placed_like(value, parameter)
