"""A store, wherever it lies."""

from __future__ import annotations

import os

from datamodules.shards.files import Place
from datamodules.shards.reader import ActivationStore
from datamodules.shards.remote import RemoteStore, ShardCache
from datamodules.shards.row_store import RowStore
from remote_files import is_url


def open_store(place: Place, verify: bool = True, cache: ShardCache | None = None) -> RowStore:
    """The store at a path, mapped where it lies, or at a URL, through a cache.

    Args:
        place: of the store.
        verify: compare the sha256 of the files in a folder; what is fetched is always compared.
        cache: where files of a URL are kept; the default one by default.

    Raises:
        UserError: there is no store, it is damaged, or it cannot be reached.
    """
    if is_url(place):
        return RemoteStore(os.fspath(place), cache or ShardCache())
    return ActivationStore(place, verify)
