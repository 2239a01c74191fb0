"""Training a reader: windows with the places of their answers, AdamW, a falling learning rate.

A run is the folder of the model to be: ``reader.json`` (settings, seed, versions, what dev said),
``log.jsonl`` (one line an epoch), ``checkpoint*`` while the run is under way, and at its end the
model and its tokenizer as Hugging Face writes them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clrelkt.corpora.model import Answer
from clrelkt.errors import SettingsError, StorageError, TrainingError
from clrelkt.files import storage_errors, write_json
from clrelkt.progress import stage_bar
from clrelkt.reader.evaluation import ReaderResults
from clrelkt.reader.model import Reader, padded
from clrelkt.reader.windows import Window, WindowSettings, cut_windows
from clrelkt.training.checkpoint import (
    Checkpoint,
    Position,
    clear_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from clrelkt.training.environment import describe_environment

__all__ = ["RECORD_FILE", "ReaderTraining", "TrainingSettings", "train_reader"]

RECORD_FILE = "reader.json"
"""What a trained reader's folder says of its training."""

_FORMAT = 1
_MOMENTS = ("exp_avg", "exp_avg_sq")

TrainingPair = tuple[str, str, Answer | None]
"""Question, context, and the answer with its place in the context (None: there is none)."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a reader is trained; the defaults are the paper's (2 epochs, 3e-5, 384, 128).

    The learning rate falls in a straight line to 0; ``batch`` counts windows.
    """

    epochs: int = 2
    learning_rate: float = 3e-5
    batch: int = 16
    weight_decay: float = 0.0
    clip: float = 1.0
    windows: WindowSettings = field(default_factory=WindowSettings)

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or not self.learning_rate > 0 or not self.clip > 0:
            raise SettingsError(
                f"epochs {self.epochs}, batch {self.batch}, learning_rate {self.learning_rate}, "
                f"clip {self.clip}: at least 1, 1 and above 0 expected"
            )


@dataclass(frozen=True)
class ReaderTraining:
    """Where a reader is trained and what with.

    ``described`` says where questions and model are from; a run that is resumed must be described
    alike. ``dev`` measures the reader after each epoch.
    """

    folder: Path
    described: Mapping[str, Any]
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    seed: int = 0
    resume: bool = False
    checkpoint_seconds: float = 60.0
    progress: bool = False
    dev: Callable[[Reader], ReaderResults] | None = None


def train_reader(
    reader: Reader, pairs: Sequence[TrainingPair], training: ReaderTraining
) -> ReaderResults | None:
    """Train ``reader`` in place, write it to its folder, and return what dev said at the end.

    A run that was stopped goes on to the same model, on a CPU with the same number of threads to
    the same bits.

    Raises:
        TrainingError: no pair with an answer, a loss that is not a number, or no way to resume.
        StorageError: the folder holds a run already and ``resume`` is off, or cannot be written.
    """
    return _ReaderRun(reader, pairs, training).run()


class _ReaderRun:
    def __init__(
        self, reader: Reader, pairs: Sequence[TrainingPair], training: ReaderTraining
    ) -> None:
        if not any(answer for _, _, answer in pairs):
            raise TrainingError("no question with an answer to train on")
        self._reader = reader
        self._training = training
        self._settings = training.settings
        self._windows = cut_windows(
            reader.tokenizer, [pair[:2] for pair in pairs], reader.settings.windows
        )
        self._places = [_place(window, pairs[window.pair][2]) for window in self._windows]
        self._parameters = dict(reader.model.named_parameters())
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(),
            lr=self._settings.learning_rate,
            weight_decay=self._settings.weight_decay,
        )
        self._position = Position(0)
        self._loss = 0.0
        self._dev: ReaderResults | None = None
        self._saved_at = time.monotonic()

    @property
    def _steps_an_epoch(self) -> int:
        return math.ceil(len(self._windows) / self._settings.batch)

    def run(self) -> ReaderResults | None:
        folder = self._training.folder
        self._begin()
        devices = [self._reader.model.device] if self._reader.model.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            stage_bar("reader", shown=self._training.progress) as tick,
        ):
            while self._position.epoch < self._settings.epochs:
                self._run_epoch(tick)
        with storage_errors(folder):
            self._reader.save(folder)
        self._write_record(complete=True)
        clear_checkpoints(folder)
        return self._dev

    def _begin(self) -> None:
        folder = self._training.folder
        path = folder / RECORD_FILE
        if not path.exists():
            if folder.exists() and any(folder.iterdir()):
                raise StorageError(f"{folder} is not empty and holds no reader's training")
            self._write_record(complete=False)
            return
        if not self._training.resume:
            raise StorageError(
                f"{folder} holds a reader's training already: go on with --resume, or name another "
                "folder with -o"
            )
        self._check_same(path)
        checkpoint = read_checkpoint(folder)
        if checkpoint is not None:
            self._restore(checkpoint)

    def _check_same(self, path: Path) -> None:
        try:
            was = json.loads(path.read_text(encoding="utf-8"))
            format_, complete = int(was["format"]), bool(was["complete"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} cannot be read ({error}); start anew elsewhere") from error
        if format_ > _FORMAT:
            raise TrainingError(f"{path} is of format {format_}; this version reads {_FORMAT}")
        if complete:
            raise TrainingError(f"the training in {path.parent} is complete; nothing is left to do")
        now = json.loads(json.dumps(self._description()))
        for key, value in now.items():
            if was.get(key) != value:
                raise TrainingError(
                    f"{path.parent}: the training there is another one: {key} is "
                    f"{was.get(key)!r:.80} there and {value!r:.80} here; name another folder"
                )

    def _description(self) -> dict[str, Any]:
        return {
            **self._training.described,
            "settings": asdict(self._settings),
            "seed": self._training.seed,
            "windows": len(self._windows),
        }

    def _write_record(self, *, complete: bool) -> None:
        record = {"format": _FORMAT, "complete": complete, **self._description()}
        record["environment"] = describe_environment()
        if self._dev is not None:
            record["dev"] = self._dev.to_json()
        write_json(self._training.folder / RECORD_FILE, record)

    def _run_epoch(self, tick: Callable[[int, int, float | None], None]) -> None:
        epoch, steps = self._position.epoch, self._steps_an_epoch
        for number, rows in enumerate(self._batches(epoch)):
            if number < self._position.batch:
                continue
            self._step(rows)
            self._position = Position(0, epoch, number + 1, self._position.step + 1)
            best = None if self._dev is None else self._dev.mean.f1
            tick(self._position.step, steps * self._settings.epochs, best)
            if time.monotonic() - self._saved_at >= self._training.checkpoint_seconds:
                write_checkpoint(self._training.folder, self._checkpoint())
                self._saved_at = time.monotonic()
        self._finish_epoch(epoch, steps)

    def _finish_epoch(self, epoch: int, steps: int) -> None:
        if self._training.dev is not None:
            self._dev = self._training.dev(self._reader)
        line: dict[str, Any] = {"epoch": epoch, "step": self._position.step}
        line["loss"] = self._loss / steps
        if self._dev is not None:
            line["dev"] = self._dev.to_json()
        self._log(epoch, line)
        self._loss = 0.0
        self._position = Position(0, epoch + 1, 0, self._position.step)

    def _log(self, epoch: int, line: Mapping[str, Any]) -> None:
        """Put the epoch's line behind those before it, once even where the epoch is run again."""
        path = self._training.folder / "log.jsonl"
        with storage_errors(path):
            kept = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            kept = [*kept[:epoch], json.dumps(line, ensure_ascii=False)]
            path.write_text("\n".join(kept) + "\n", encoding="utf-8")

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        generator = np.random.default_rng((self._training.seed, epoch))
        order = generator.permutation(len(self._windows))
        for at in range(0, len(order), self._settings.batch):
            yield order[at : at + self._settings.batch]

    def _step(self, rows: np.ndarray) -> None:
        device = self._reader.model.device
        # By step, not once: a run that is resumed drops out what it would have without the stop.
        key = (self._training.seed, self._position.step, 1)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        places = torch.tensor([self._places[row] for row in rows], device=device)
        inputs = padded(self._reader.tokenizer, [self._windows[row] for row in rows], device)
        self._reader.model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = self._reader.model(
                **inputs, start_positions=places[:, 0], end_positions=places[:, 1]
            )
        value = float(output.loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"step {self._position.step}: the loss is {value}; lower the learning rate "
                f"({self._settings.learning_rate:g})"
            )
        self._optimiser.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.clip)
        total = self._steps_an_epoch * self._settings.epochs
        for group in self._optimiser.param_groups:
            group["lr"] = self._settings.learning_rate * (1 - self._position.step / total)
        self._optimiser.step()
        self._loss += value

    def _checkpoint(self) -> Checkpoint:
        tensors = {name: p.detach().cpu().contiguous() for name, p in self._parameters.items()}
        for name, parameter in self._parameters.items():
            state = self._optimiser.state.get(parameter)
            if state:  # What the loss does not depend on has no gradient, and so no state.
                tensors |= {f"{moment}/{name}": state[moment].cpu() for moment in _MOMENTS}
                tensors[f"step/{name}"] = state["step"].cpu().reshape(1)
        return Checkpoint(self._position, {"loss": self._loss}, tensors)

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors = checkpoint.tensors
        self._position = checkpoint.position
        self._loss = float(checkpoint.progress["loss"])
        for name, parameter in self._parameters.items():
            with torch.no_grad():
                parameter.copy_(tensors[name])
            if f"step/{name}" in tensors:
                state = {m: tensors[f"{m}/{name}"].to(parameter.device) for m in _MOMENTS}
                state["step"] = tensors[f"step/{name}"].reshape(())
                self._optimiser.state[parameter] = state


def _place(window: Window, answer: Answer | None) -> tuple[int, int]:
    if answer is None or answer.start is None:
        return window.null_place, window.null_place
    return window.place(answer.start, answer.start + len(answer.text))
