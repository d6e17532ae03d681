"""The autoencoder that a verb asks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from run_store import UserError

if TYPE_CHECKING:
    from exports import Trained
    from lightning_modules.sparse_autoencoding import SparseAutoencoding


def trained_autoencoder(
    run: str, folder: str, checkpoint: str, member: str | None, wanted: str
) -> tuple[Trained, SparseAutoencoding]:
    """A checkpoint and its autoencoder, in evaluation; of a sweep a single member.

    Args:
        run: the run (folder, id or name), the folder of a checkpoint, or what `import` has made.
        folder: the folder of all runs.
        checkpoint: of a run: last, best by its own val/fvu, or the folder of one.
        member: of a sweep, the one that is meant.
        wanted: what to name where a text encoder was trained, in words.

    Raises:
        UserError: there is none, its run is not complete, it is a text encoder, or one of several that were not told
            apart.
    """
    from exports import find_trained, holds_encoder, load_trained, members_of

    # what the best is chosen by is a member's own
    found = find_trained(run, folder, checkpoint if checkpoint != "best" else "last")
    if holds_encoder(found):
        raise UserError(f"{run} trained a text encoder: {wanted}")
    names = members_of(found)
    if member is None and len(names) > 1:
        raise UserError(f"{run} trained several autoencoders: name one by --member, of {', '.join(map(str, names))}")
    trained = find_trained(run, folder, checkpoint, "val/fvu", "min", member or names[0])
    return trained, load_trained(trained)
