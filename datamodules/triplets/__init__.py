"""Texts to be told apart: reading, checking, tokenising once, mining negatives, batches."""

from datamodules.triplets.batch import Tokenisation, TokenisedTexts, TripletBatch
from datamodules.triplets.code_search import CodeSearchTriplets
from datamodules.triplets.columns import TripletColumns
from datamodules.triplets.loaders import OrderedTriplets, TripletLoader
from datamodules.triplets.mining import HardNegatives
from datamodules.triplets.report import TripletReport, report_of
from datamodules.triplets.source import Example, TripletSource
from datamodules.triplets.table import RetrievalTask, TripletTable
from datamodules.triplets.token_cache import prepare_table
from datamodules.triplets.tokeniser import Tokeniser
from datamodules.triplets.triplet_dataset import TripletDataset
from datamodules.triplets.triplet_files import TripletFiles

__all__ = [
    "CodeSearchTriplets",
    "Example",
    "HardNegatives",
    "OrderedTriplets",
    "RetrievalTask",
    "Tokenisation",
    "TokenisedTexts",
    "Tokeniser",
    "TripletBatch",
    "TripletColumns",
    "TripletDataset",
    "TripletFiles",
    "TripletLoader",
    "TripletReport",
    "TripletSource",
    "TripletTable",
    "prepare_table",
    "report_of",
]
