from lightning_modules.functional.batch_topk import linear_above, linear_batch_topk
from lightning_modules.functional.bootstrap import BootstrapInterval, paired_bootstrap, paired_ratio
from lightning_modules.functional.codes import BatchCodes, Codes, DenseCodes, Fired, SparseCodes
from lightning_modules.functional.collapse import collapse_sentence
from lightning_modules.functional.deferred import Deferred, deferred, deferred_together
from lightning_modules.functional.embedding_geometry import alignment, effective_rank, mean_pairwise_cosine, uniformity
from lightning_modules.functional.encoding import linear_topk, reconstructed_by
from lightning_modules.functional.forgetting import Drift, LatentLevels, drift_between, most_changed, row_cosines
from lightning_modules.functional.gathering import gather_equal, gather_rows, ranks, sum_over_ranks
from lightning_modules.functional.gradient_cache import CachedLoss, cached_loss
from lightning_modules.functional.nested import nested_squared_error
from lightning_modules.functional.overlap import LatentSets
from lightning_modules.functional.pooling import Pooling, pooled, pooling_weights
from lightning_modules.functional.prefixes import prefix_errors
from lightning_modules.functional.pursuit import matching_pursuit, merge_repeats
from lightning_modules.functional.quantised import Binary, Int8, Int8Scale
from lightning_modules.functional.ranking import masked_row_means, order_loss
from lightning_modules.functional.reconstruction import (
    Missed,
    Spread,
    fraction_of_variance_unexplained,
    geometric_median,
    missed,
    squared_error,
    sum_of_squares,
)
from lightning_modules.functional.recovery import Matching, best_matching, max_cosines
from lightning_modules.functional.retrieval import (
    Relevance,
    RelevantRanks,
    average_precision,
    ndcg,
    recall,
    reciprocal_rank,
    relevant_ranks,
    retrieval_scores,
)
from lightning_modules.functional.schedules import trapezoid
from lightning_modules.functional.score_spaces import BlockScores, Cosine, ScoreSpace, refuse_non_finite, unit_rows
from lightning_modules.functional.sharded import (
    gathered,
    held_of,
    is_sharded,
    local,
    placed,
    placed_like,
    whole_gradient,
)
from lightning_modules.functional.side_by_side import side_by_side
from lightning_modules.functional.similarities import first_occurrences, occurring_with, unit, widened
from lightning_modules.functional.similarity_terms import (
    CrossPairs,
    LatentTerms,
    SimilarityTerms,
    SplitVectors,
    latent_terms,
    similarity_terms,
    strongest_pairs,
)
from lightning_modules.functional.sparse import sparse_decode
from lightning_modules.functional.splicing import NextTokenSums, next_token_sums, share_recovered
from lightning_modules.functional.triplets import TripletCosines, triplet_cosines

__all__ = [
    "BatchCodes",
    "Binary",
    "BlockScores",
    "BootstrapInterval",
    "CachedLoss",
    "Codes",
    "Cosine",
    "CrossPairs",
    "Deferred",
    "DenseCodes",
    "Drift",
    "Fired",
    "Int8",
    "Int8Scale",
    "LatentLevels",
    "LatentSets",
    "LatentTerms",
    "Matching",
    "Missed",
    "NextTokenSums",
    "Pooling",
    "Relevance",
    "RelevantRanks",
    "ScoreSpace",
    "SimilarityTerms",
    "SparseCodes",
    "SplitVectors",
    "Spread",
    "TripletCosines",
    "alignment",
    "average_precision",
    "best_matching",
    "cached_loss",
    "collapse_sentence",
    "deferred",
    "deferred_together",
    "drift_between",
    "effective_rank",
    "first_occurrences",
    "fraction_of_variance_unexplained",
    "gather_equal",
    "gather_rows",
    "gathered",
    "geometric_median",
    "held_of",
    "is_sharded",
    "latent_terms",
    "linear_above",
    "linear_batch_topk",
    "linear_topk",
    "local",
    "masked_row_means",
    "matching_pursuit",
    "max_cosines",
    "mean_pairwise_cosine",
    "merge_repeats",
    "missed",
    "most_changed",
    "ndcg",
    "nested_squared_error",
    "next_token_sums",
    "occurring_with",
    "order_loss",
    "paired_bootstrap",
    "paired_ratio",
    "placed",
    "placed_like",
    "pooled",
    "pooling_weights",
    "prefix_errors",
    "ranks",
    "recall",
    "reciprocal_rank",
    "reconstructed_by",
    "refuse_non_finite",
    "relevant_ranks",
    "retrieval_scores",
    "row_cosines",
    "share_recovered",
    "side_by_side",
    "similarity_terms",
    "sparse_decode",
    "squared_error",
    "strongest_pairs",
    "sum_of_squares",
    "sum_over_ranks",
    "trapezoid",
    "triplet_cosines",
    "uniformity",
    "unit",
    "unit_rows",
    "whole_gradient",
    "widened",
]
