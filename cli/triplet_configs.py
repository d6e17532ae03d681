"""Triplets by a file of settings, for verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from run_store import UserError

if TYPE_CHECKING:
    from datamodules.contrastive_triplets import TripletDataModule


def triplets_of(config: str, cache: str | None = None) -> TripletDataModule:
    """The datamodule that a file such as configs/triplets/standard_library.yaml describes.

    Args:
        config: the file.
        cache: folder of tokenised triplets in the place of the file's own.

    Raises:
        UserError: it cannot be read, or its settings are none of a TripletDataModule.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    from cli.messages import one_line  # which makes the names of classes known without their packages, too
    from datamodules.contrastive_triplets import TripletDataModule

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(TripletDataModule, "data")
    try:
        parsed = parser.parse_args([f"--data={config}", *([] if cache is None else [f"--data.cache={cache}"])])
        data: TripletDataModule = parser.instantiate(parsed).data
    except ArgumentError as error:
        raise UserError(
            f"triplets {config}: {one_line(error, [config])}: mend the file, or name one such as "
            "configs/triplets/standard_library.yaml"
        ) from error
    return data
