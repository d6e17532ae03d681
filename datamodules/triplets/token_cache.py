"""Tables of tokenised triplets that are made once and found again.

CACHE/triplets-0123456789abcdef/    one for every source, content of it, and way of tokenising
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from lightning.pytorch.utilities import rank_zero_info

from datamodules.text.bad_rows import BadRows
from datamodules.triplets.building import TableBuilder
from datamodules.triplets.source import TripletSource
from datamodules.triplets.table_files import VERSION, damage_of
from datamodules.triplets.tokeniser import Tokeniser
from run_store import UserError, atomic_folder
from run_store.fingerprints import fingerprint
from run_store.locks import deciding

_PREFIX = "triplets-"


def prepare_table(cache: Path, source: TripletSource, tokenisers: Sequence[Tokeniser]) -> Path:
    """The folder of a source's table, which is made when it is missing or damaged.

    Processes that want to make tables in one cache wait for each other; what a killed one left is removed.

    Raises:
        UserError: a row of the source is bad and those are refused, or the cache cannot be written.
    """
    facts = {
        "source": source.describe(),
        "content": source.fingerprint(),
        "tokenisers": [tokeniser.describe() for tokeniser in tokenisers],
        "tokenizers": tokenizers.__version__,
    }
    folder = cache / f"{_PREFIX}{fingerprint([VERSION, facts])[:16]}"
    with deciding(cache):
        for leftover in cache.glob(f"{_PREFIX}*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        if folder.exists():
            damage = damage_of(folder)
            if damage is None:
                return folder
            rank_zero_info(f"{damage.file} {damage.fault}: the triplets are tokenised again.")
            _remove(folder)
        bad = BadRows(source.bad_rows, of="triplets")
        with atomic_folder(folder) as partial:
            builder = TableBuilder(partial, tokenisers)
            try:
                builder.add(source.examples(bad))
            finally:
                bad.tell()
            builder.counts.bad_rows = bad.count
            builder.finish(facts)
    return folder


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)  # whoever has it mapped keeps what he has
    except OSError as error:
        raise UserError(f"{folder} is damaged and cannot be removed ({error.strerror}): remove it by hand") from error
