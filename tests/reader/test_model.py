"""A trained reader finds answers; what is no reader is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.reader.conftest import WINDOWS, context_of
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from clrelkt.errors import SettingsError, UnknownNameError
from clrelkt.reader import Reader, ReaderSettings, WindowSettings, load_reader
from clrelkt.reader.windows import cut_windows

FILLER = "There , day by day . " * 12


def test_it_points_at_the_answer(trained: Reader) -> None:
    context = context_of("Flo", 1)
    reading = trained.read("Where does Flo live ?", [context])[0]
    assert reading.answer is not None
    assert reading.answer.text == "Oslo"
    assert context[reading.answer.start : reading.answer.end] == "Oslo"
    assert 0.5 < reading.answer.probability <= 1
    assert len(reading.spans) == trained.settings.n_best


def test_a_long_context_is_read_in_windows(trained: Reader) -> None:
    question, context = "Where does Ada live ?", FILLER + context_of("Ada", 2)
    encoded = trained.tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=40,
        stride=6,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert len(encoded["input_ids"]) > 2
    best = (-np.inf, 0, 0)
    for number, ids in enumerate(encoded["input_ids"]):
        with torch.inference_mode():
            output = trained.model(
                input_ids=torch.tensor([ids]),
                token_type_ids=torch.tensor([encoded["token_type_ids"][number]]),
            )
        starts, ends = output.start_logits[0].tolist(), output.end_logits[0].tolist()
        offsets = encoded["offset_mapping"][number]
        inside = [t for t, side in enumerate(encoded.sequence_ids(number)) if side == 1]
        spans = [(i, j) for i in inside for j in inside if i <= j < i + 30]
        best = max(best, *((starts[i] + ends[j], offsets[i][0], offsets[j][1]) for i, j in spans))
    answer = trained.read(question, [context])[0].answer
    assert answer is not None
    assert (answer.start, answer.end) == best[1:]
    assert answer.score == pytest.approx(best[0], abs=1e-4)


def test_windows_hold_every_token_and_share_the_stride(trained: Reader) -> None:
    context = FILLER.strip()
    windows = cut_windows(trained.tokenizer, [("Where ?", context)], WINDOWS)
    covered: list[tuple[int, int]] = []
    for window in windows:
        inside = [window.offsets[token] for token in range(*window.context_tokens)]
        if covered:
            assert inside[: WINDOWS.stride] == covered[-WINDOWS.stride :]
            inside = inside[WINDOWS.stride :]
        covered += inside
    assert [context[start:end] for start, end in covered] == context.replace(",", " ,").split()


def test_the_batch_changes_nothing(trained: Reader) -> None:
    pairs = [
        ("Where does Ada live ?", context_of("Ada", 2)),
        ("What does Bo make ?", FILLER + context_of("Bo", 1)),
        ("Where ?", "Oslo"),
    ]
    alone = [trained.read_pairs([pair])[0] for pair in pairs]
    together = trained.read_pairs(pairs)
    for one, other in zip(alone, together, strict=True):
        assert [span.text for span in one.spans] == [span.text for span in other.spans]
        assert [span.score for span in one.spans] == pytest.approx(
            [span.score for span in other.spans], abs=1e-4
        )


def test_no_answer_where_none_scores_enough_more(trained: Reader, trained_folder: Path) -> None:
    reading = trained.read("Where does Flo live ?", [context_of("Flo", 1)])[0]
    assert reading.answer is not None
    margin = reading.null_score - reading.answer.score
    for threshold, answered in ((margin + 0.01, True), (margin - 0.01, False)):
        settings = ReaderSettings(windows=WINDOWS, no_answer_threshold=threshold)
        other = Reader("toy", trained.tokenizer, trained.model, settings)
        found = other.read("Where does Flo live ?", [context_of("Flo", 1)])[0]
        assert (found.answer is not None) is answered


def test_the_folder_is_an_ordinary_one_of_hugging_face(trained_folder: Path) -> None:
    assert (trained_folder / "model.safetensors").exists()
    assert not list(trained_folder.glob("*.bin"))
    assert not list(trained_folder.glob("checkpoint*"))
    AutoTokenizer.from_pretrained(trained_folder)
    model = AutoModelForQuestionAnswering.from_pretrained(trained_folder)
    assert model.config.architectures == ["BertForQuestionAnswering"]


def test_a_long_question_is_cut(trained: Reader) -> None:
    assert len(trained.read("Where does Ada live ? " * 200, ["Ada lives in Rome ."])) == 1


def test_empty_texts_have_no_answer(trained: Reader) -> None:
    readings = trained.read_pairs([("", "Ada"), ("Where ?", ""), ("Where ?", "  ")])
    assert [reading.answer is None for reading in readings] == [False, True, True]
    assert trained.read_pairs([]) == []


def test_windows_fit_the_model(trained: Reader) -> None:
    wide = Reader("toy", trained.tokenizer, trained.model, ReaderSettings())
    assert wide.settings.windows.max_length == 64
    assert wide.read("Where ?", [FILLER * 5])[0].answer is not None


def test_a_model_without_a_trained_head_is_refused(base_model: Path) -> None:
    with pytest.raises(SettingsError, match="clrelkt reader train"):
        load_reader(str(base_model))


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="neither a folder"):
        load_reader(str(tmp_path))


def test_code_that_a_model_brings_is_not_run(trained_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(trained_folder, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["model_type"] = "homemade"
    config["auto_map"] = {
        "AutoConfig": "homemade.Settings",
        "AutoModelForQuestionAnswering": "homemade.Model",
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    mark = tmp_path / "was-run"
    (folder / "homemade.py").write_text(f"open({str(mark)!r}, 'w')", "utf-8")
    with pytest.raises(UnknownNameError):
        load_reader(str(folder))
    assert not mark.exists()


def test_pickled_weights_are_refused(trained_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(trained_folder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnknownNameError, match="safetensors"):
        load_reader(str(folder))


@pytest.mark.parametrize(
    "changes", [{"stride": -1}, {"max_length": 0}, {"max_question_tokens": 0}, {"stride": 400}]
)
def test_windows_that_cannot_be_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="stride"):
        replace(WindowSettings(), **changes)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        ReaderSettings(n_best=0)
