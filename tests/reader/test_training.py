"""Training a reader: it learns, goes on after a stop, and refuses what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.reader.conftest import start_training, toy_settings

from clrelkt.corpora.model import Corpus
from clrelkt.errors import SettingsError, StorageError, TrainingError
from clrelkt.reader import Reader, evaluate_reader, gold_tasks, training_pairs
from clrelkt.reader import training as reader_training
from clrelkt.reader.training import TrainingSettings
from clrelkt.training.checkpoint import write_checkpoint


def test_it_learns_the_toy_corpus(trained: Reader, toy_corpus: Corpus) -> None:
    results = evaluate_reader(trained, gold_tasks(toy_corpus), answer_language="en", context="gold")
    assert results.mean.exact_match > 0.9
    assert results.mean.f1 >= results.mean.exact_match


def test_the_record_says_how(trained_folder: Path) -> None:
    record = json.loads((trained_folder / "reader.json").read_text("utf-8"))
    assert record["complete"] is True
    assert record["settings"]["epochs"] == 80
    assert record["seed"] == 3
    assert record["environment"]["packages"]["torch"] == torch.__version__
    lines = [
        json.loads(line) for line in (trained_folder / "log.jsonl").read_text("utf-8").splitlines()
    ]
    assert [line["epoch"] for line in lines] == list(range(80))
    assert lines[-1]["loss"] < lines[0]["loss"] / 4


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_stopped_training_goes_on_to_the_same_bits(
    stop_after: int,
    base_model: Path,
    toy_corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = toy_settings(epochs=2)  # Three steps an epoch.
    start_training(base_model, toy_corpus, tmp_path / "whole", settings)
    written = 0

    def write_and_stop(*arguments: Any) -> None:
        nonlocal written
        write_checkpoint(*arguments)
        written += 1
        if written == stop_after:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(reader_training, "write_checkpoint", write_and_stop)
        with pytest.raises(StoppedError):
            start_training(base_model, toy_corpus, tmp_path / "cut", settings, checkpoint_seconds=0)
    start_training(base_model, toy_corpus, tmp_path / "cut", settings, resume=True)
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    cut = load_file(tmp_path / "cut" / "model.safetensors")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    logs = [(tmp_path / name / "log.jsonl").read_text("utf-8") for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_training_is_not_written_over(
    base_model: Path, toy_corpus: Corpus, trained_folder: Path
) -> None:
    with pytest.raises(StorageError, match="--resume"):
        start_training(base_model, toy_corpus, trained_folder, toy_settings())
    with pytest.raises(TrainingError, match="complete"):
        start_training(base_model, toy_corpus, trained_folder, toy_settings(), resume=True)


def test_another_folder_is_not_written_into(
    base_model: Path, toy_corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(StorageError, match="not empty"):
        start_training(base_model, toy_corpus, tmp_path, toy_settings())


def test_another_training_is_not_gone_on_with(
    base_model: Path, toy_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(reader_training, "write_checkpoint", stop)
        with pytest.raises(StoppedError):
            start_training(
                base_model, toy_corpus, tmp_path / "r", toy_settings(), checkpoint_seconds=0
            )
    other = toy_settings(learning_rate=1e-3)
    with pytest.raises(TrainingError, match="settings"):
        start_training(base_model, toy_corpus, tmp_path / "r", other, resume=True)


def test_a_rate_that_diverges_is_told(base_model: Path, toy_corpus: Corpus, tmp_path: Path) -> None:
    wild = toy_settings(learning_rate=1e30, epochs=3)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        start_training(base_model, toy_corpus, tmp_path / "r", wild)


def test_pairs_hold_answers_where_they_stand(toy_corpus: Corpus) -> None:
    pairs = training_pairs(toy_corpus)
    assert len(pairs) == len(toy_corpus.questions)
    for _, context, answer in pairs:
        assert answer is not None
        assert answer.start is not None
        assert context.startswith(answer.text, answer.start)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"learning_rate": 0.0}, {"clip": 0.0}])
def test_settings_that_cannot_be_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        TrainingSettings(**changes)  # type: ignore[arg-type]
