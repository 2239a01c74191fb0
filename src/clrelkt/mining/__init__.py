"""Negatives: texts that look like an answer and are none."""

from __future__ import annotations

from clrelkt.mining.bm25 import BM25Hit, BM25Index, BM25Miner, BM25Mining, mine_bm25
from clrelkt.mining.dense import (
    Barriers,
    DenseMiner,
    DenseMining,
    DenseNegatives,
    Distance,
    mine_dense,
    mine_with_encoder,
)
from clrelkt.mining.large import LargeMiner
from clrelkt.mining.triplets import CandidateSet, Granularity, Triplets

__all__ = [
    "BM25Hit",
    "BM25Index",
    "BM25Miner",
    "BM25Mining",
    "Barriers",
    "CandidateSet",
    "DenseMiner",
    "DenseMining",
    "DenseNegatives",
    "Distance",
    "Granularity",
    "LargeMiner",
    "Triplets",
    "mine_bm25",
    "mine_dense",
    "mine_with_encoder",
]
