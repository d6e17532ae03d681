"""Texts to be told apart: reading, checking, tokenising once, mining negatives, batches."""

from datamodules.triplets.batch import Tokenisation, TokenisedTexts, TripletBatch

__all__ = ["Tokenisation", "TokenisedTexts", "TripletBatch"]
