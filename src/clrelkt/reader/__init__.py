"""Readers: models that point at the words of a passage that answer a question."""

from __future__ import annotations

from clrelkt.reader.contexts import ReadingTask, gold_tasks, retrieved_tasks, training_pairs
from clrelkt.reader.evaluation import Prediction, ReaderResults, ReaderScores, evaluate_reader
from clrelkt.reader.metrics import Normalisation, exact_match, f1_score
from clrelkt.reader.model import (
    Reader,
    ReaderSettings,
    Reading,
    load_for_training,
    load_reader,
)
from clrelkt.reader.spans import AnswerSpan
from clrelkt.reader.training import ReaderTraining, TrainingSettings, train_reader
from clrelkt.reader.windows import WindowSettings

__all__ = [
    "AnswerSpan",
    "Normalisation",
    "Prediction",
    "Reader",
    "ReaderResults",
    "ReaderScores",
    "ReaderSettings",
    "ReaderTraining",
    "Reading",
    "ReadingTask",
    "TrainingSettings",
    "WindowSettings",
    "evaluate_reader",
    "exact_match",
    "f1_score",
    "gold_tasks",
    "load_for_training",
    "load_reader",
    "retrieved_tasks",
    "train_reader",
    "training_pairs",
]
