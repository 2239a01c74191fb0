"""Extractive question answering with any model of Hugging Face that has such a head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clrelkt.errors import ClrelktError, MissingExtraError, SettingsError, UnknownNameError
from clrelkt.progress import progress_bar, quiet_transformers
from clrelkt.reader.spans import AnswerSpan, WindowScores, answer_spans, best_null_score
from clrelkt.reader.windows import Window, WindowSettings, cut_windows

__all__ = ["Reader", "ReaderSettings", "Reading", "load_for_training", "load_reader", "padded"]


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How answers are looked for.

    ``n_best`` spans are kept of a context, of at most ``max_answer_tokens`` tokens each. There is
    no answer where "no answer" scores more than ``no_answer_threshold`` above the best span (None:
    there always is one). ``batch`` windows go through the model at once.
    """

    windows: WindowSettings = field(default_factory=WindowSettings)
    n_best: int = 5
    max_answer_tokens: int = 30
    no_answer_threshold: float | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        if min(self.n_best, self.max_answer_tokens, self.batch) < 1:
            raise SettingsError(
                f"n_best {self.n_best}, max_answer_tokens {self.max_answer_tokens}, batch "
                f"{self.batch}: at least 1 each"
            )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader found in one context.

    ``spans`` are the best first, none where the context has no answer; ``null_score`` is the score
    of "no answer", on the scale of a span's.
    """

    spans: tuple[AnswerSpan, ...]
    null_score: float

    @property
    def answer(self) -> AnswerSpan | None:
        """The best span."""
        return self.spans[0] if self.spans else None


class Reader:
    """A question-answering model and its tokenizer."""

    def __init__(
        self, name: str, tokenizer: Any, model: Any, settings: ReaderSettings | None = None
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.model = model
        settings = settings or ReaderSettings()
        self.settings = replace(settings, windows=_fitting(name, tokenizer, settings.windows))

    def to(self, device: torch.device | str) -> Reader:
        """Move the model to ``device``."""
        self.model.to(device)
        return self

    def read(self, question: str, contexts: Sequence[str]) -> list[Reading]:
        """Look for the answer to ``question`` in each of ``contexts``."""
        return self.read_pairs([(question, context) for context in contexts])

    def read_pairs(
        self, pairs: Sequence[tuple[str, str]], *, progress: bool = False
    ) -> list[Reading]:
        """Look for an answer in each pair of question and context, in order."""
        windows = cut_windows(self.tokenizer, pairs, self.settings.windows)
        by_pair: list[list[WindowScores]] = [[] for _ in pairs]
        for scores in self._score(windows, progress):
            by_pair[scores.window.pair].append(scores)
        return [
            self._reading(context, scores)
            for (_, context), scores in zip(pairs, by_pair, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write model (safetensors) and tokenizer to ``folder`` as Hugging Face does."""
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def _reading(self, context: str, scores: list[WindowScores]) -> Reading:
        null = best_null_score(scores)
        spans = answer_spans(
            context,
            sorted(scores, key=lambda found: found.window.offsets[found.window.context_tokens[0]]),
            n_best=self.settings.n_best,
            max_tokens=self.settings.max_answer_tokens,
        )
        threshold = self.settings.no_answer_threshold
        if threshold is not None and spans and null - spans[0].score > threshold:
            spans = []
        return Reading(tuple(spans), null)

    @torch.inference_mode()
    def _score(self, windows: Sequence[Window], progress: bool) -> Iterator[WindowScores]:
        self.model.eval()
        # Windows of like length together: little is padded.
        order = sorted(range(len(windows)), key=lambda number: -len(windows[number]))
        size = self.settings.batch
        bar = progress_bar("reading", total=len(windows), unit="windows", shown=progress)
        with bar as advance:
            for at in range(0, len(order), size):
                batch = [windows[number] for number in order[at : at + size]]
                output = self.model(**padded(self.tokenizer, batch, self.model.device))
                starts, ends = (_numpy(output.start_logits), _numpy(output.end_logits))
                for row, window in enumerate(batch):
                    length = len(window)
                    yield WindowScores(window, starts[row, :length], ends[row, :length])
                advance(len(batch))


def _numpy(logits: torch.Tensor) -> np.ndarray:
    return logits.float().cpu().numpy()


def padded(
    tokenizer: Any, windows: Sequence[Window], device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Return the model's inputs for some windows, each of shape (windows, longest).

    Windows are filled up at their ends: the places that a window knows stay where they are.
    """
    longest = max(len(window) for window in windows)
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": 0, "attention_mask": 0}
    rows: dict[str, torch.Tensor] = {}
    for name in windows[0].inputs:
        table = torch.full((len(windows), longest), fill.get(name, 0), dtype=torch.long)
        for row, window in enumerate(windows):
            table[row, : len(window)] = torch.tensor(window.inputs[name])
        rows[name] = table.to(device)
    return rows


def load_reader(
    name: str, settings: ReaderSettings | None = None, *, device: torch.device | str = "cpu"
) -> Reader:
    """Open a model with a trained question-answering head: a folder, or a name on the model hub.

    Weights are read from safetensors alone, and no code that a model brings is run.

    Raises:
        MissingExtraError: transformers is not installed.
        UnknownNameError: there is no such model, or it cannot be opened.
        SettingsError: its head has not been trained, or its tokenizer is not a fast one.
    """
    tokenizer, model, missing = _load(name)
    if missing:
        raise SettingsError(
            f"model {name!r} has no trained question-answering head ({', '.join(missing[:3])} "
            "missing); train one with: clrelkt reader train"
        )
    return Reader(name, tokenizer, model.to(device).eval(), settings)


def load_for_training(
    name: str, settings: ReaderSettings, *, seed: int, device: torch.device | str = "cpu"
) -> Reader:
    """Open a model to train; a head that it does not have yet starts at random, by ``seed``.

    Raises:
        MissingExtraError: transformers is not installed.
        UnknownNameError: there is no such model, or it cannot be opened.
        SettingsError: its tokenizer is not a fast one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, model, _ = _load(name)
    return Reader(name, tokenizer, model.to(device), settings)


def _load(name: str) -> tuple[Any, Any, list[str]]:
    try:
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("transformers", "reader") from error
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model, info = AutoModelForQuestionAnswering.from_pretrained(
                name,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except ClrelktError:
        raise
    except Exception as error:  # Of a damaged checkpoint the library raises errors of any kind.
        reason = " ".join(str(error).split())
        raise UnknownNameError(
            f"no reader {name!r}: neither a folder that holds a model for question answering "
            "(config.json, model.safetensors, tokenizer.json) nor a name that the model hub gave "
            f"out ({type(error).__name__}: {reason[:200]})"
        ) from error
    if not tokenizer.is_fast:
        raise SettingsError(
            f"reader {name!r}: its tokenizer does not tell where tokens stand in a text; a fast "
            "one (tokenizer.json) is needed"
        )
    return tokenizer, model, sorted(info["missing_keys"])


def _fitting(name: str, tokenizer: Any, settings: WindowSettings) -> WindowSettings:
    """Keep windows within what the model can take."""
    longest = int(tokenizer.model_max_length)
    if longest >= settings.max_length:
        return settings
    try:
        return replace(
            settings,
            max_length=longest,
            stride=min(settings.stride, longest // 3),
            max_question_tokens=min(settings.max_question_tokens, longest // 3),
        )
    except SettingsError as error:
        raise SettingsError(f"reader {name!r} takes {longest} tokens at most: {error}") from error
