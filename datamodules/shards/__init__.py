from datamodules.shards.batches import ActivationBatch, EvaluationLoader, TrainingLoader, read_batch
from datamodules.shards.cursor import ALONE, CursorLoader, Rank
from datamodules.shards.format import Manifest, is_store, manifest_sha256, read_manifest
from datamodules.shards.grouped import GroupedShuffle
from datamodules.shards.opening import open_store
from datamodules.shards.reader import ActivationStore
from datamodules.shards.remote import RemoteStore, ShardCache
from datamodules.shards.row_store import Provenance, RowStore
from datamodules.shards.shard_writer import SHARD_BYTES
from datamodules.shards.shuffle import BlockShuffle
from datamodules.shards.splits import Split, split_of, split_ranges
from datamodules.shards.text_rows import TextRows
from datamodules.shards.writer import StoreWriter

__all__ = [
    "ALONE",
    "SHARD_BYTES",
    "ActivationBatch",
    "ActivationStore",
    "BlockShuffle",
    "CursorLoader",
    "EvaluationLoader",
    "GroupedShuffle",
    "Manifest",
    "Provenance",
    "Rank",
    "RemoteStore",
    "RowStore",
    "ShardCache",
    "Split",
    "StoreWriter",
    "TextRows",
    "TrainingLoader",
    "is_store",
    "manifest_sha256",
    "open_store",
    "read_batch",
    "read_manifest",
    "split_of",
    "split_ranges",
]
