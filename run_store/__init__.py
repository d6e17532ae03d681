from run_store.atomic import (
    atomic_file,
    atomic_folder,
    flush_to_disk,
    json_text,
    sha256_of,
    sweep_temporaries,
    write_json,
)
from run_store.errors import UserError, nearest
from run_store.splits import Split, split_of

__all__ = [
    "Split",
    "UserError",
    "atomic_file",
    "atomic_folder",
    "flush_to_disk",
    "json_text",
    "nearest",
    "sha256_of",
    "split_of",
    "sweep_temporaries",
    "write_json",
]
