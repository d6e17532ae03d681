from datamodules.shards.batches import ActivationBatch, EvaluationLoader, TrainingLoader, read_batch
from datamodules.shards.cursor import ALONE, CursorLoader, Rank
from datamodules.shards.format import Manifest, is_store, read_manifest
from datamodules.shards.reader import ActivationStore, Provenance
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
    "Manifest",
    "Provenance",
    "Rank",
    "Split",
    "StoreWriter",
    "TextRows",
    "TrainingLoader",
    "is_store",
    "read_batch",
    "read_manifest",
    "split_of",
    "split_ranges",
]
