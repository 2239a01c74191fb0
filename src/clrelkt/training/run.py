"""A run: every stage of a recipe with one seed, in one folder that holds all there is to know.

- ``run.json``: recipe, seed, corpus and who translated its questions, encoder and, where it is a
  folder, what that says of it, versions, hardware;
- ``log.jsonl``: one line an evaluation on dev, with the losses since the one before;
- ``encoders/STAGE``: the encoder that each stage kept;
- ``portrait.json`` and ``portrait.safetensors``: what pictures of the run are made of, such as
  the vectors of some texts before and after;
- ``results.json``: zero-shot, BM25 and every stage on the test questions;
- ``timings.json``: seconds that each stage took;
- ``checkpoint*`` and ``kept/`` while the run is under way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch

from clrelkt.corpora import Corpus, Splits, load_corpus, take_split
from clrelkt.encoders import Encoder, SaveForm, TrainableEncoder, load_encoder
from clrelkt.encoders.description import chosen_form
from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.muse.weights import weights_digest
from clrelkt.encoders.tensors import read_tensors, write_tensors
from clrelkt.errors import EncoderError, SettingsError, StorageError, TrainingError
from clrelkt.evaluation import Results, RetrievalEvaluator, evaluate_bm25
from clrelkt.evaluation.encoding import remembered
from clrelkt.files import atomic_file, storage_errors, write_json, write_text
from clrelkt.progress import stage_bar
from clrelkt.text import IcuWords
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.checkpoint import (
    Checkpoint,
    clear_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from clrelkt.training.device import matrix_precision
from clrelkt.training.environment import describe_environment
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.measurements import measure
from clrelkt.training.methods import load_teacher, prepare
from clrelkt.training.portrait import portray, portrayed_encoders, write_portrait
from clrelkt.training.process_group import ProcessGroup, process_group
from clrelkt.training.provenance import count_translated, describe_encoder
from clrelkt.training.recipe import BASELINE, ZERO_SHOT, Recipe, Stage, Transfer
from clrelkt.training.shared_encoder import SharedEncoder
from clrelkt.training.stage_method import Material
from clrelkt.training.supplies import load_supplies

__all__ = [
    "BASELINE",
    "ZERO_SHOT",
    "Run",
    "RunSettings",
    "check_run",
    "read_run",
    "read_run_results",
    "train",
]

FORMAT = 1

E = TypeVar("E", bound=TrainableEncoder)

Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Numbers by measurement, stage and name."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is carried out; none of it changes what a recipe means.

    ``seed`` decides every random choice of training, ``split_seed`` which questions are dev and
    test: runs that differ in ``seed`` alone are tested on the same questions. ``save_form`` is how
    encoders are written: where it is None as a delta if they can be, else whole. With ``dev_only``
    no test question is looked at: the run ends with the recipe's measurements on dev.
    ``chunk_tokens`` is how many tokens a process encodes with gradients at once: a batch of more is
    encoded twice, in pieces, with the same result (None: as many as the memory holds).
    """

    output: Path
    seed: int = 0
    split_seed: int = 0
    resume: bool = False
    device: str | None = None
    save_form: SaveForm | None = None
    checkpoint_seconds: float = 60.0
    progress: bool = True
    dev_only: bool = False
    chunk_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.chunk_tokens is not None and self.chunk_tokens < 1:
            raise SettingsError(f"chunk_tokens {self.chunk_tokens}: it must be at least 1")
        if min(self.seed, self.split_seed, self.checkpoint_seconds) < 0:
            raise SettingsError(
                f"seed {self.seed}, split_seed {self.split_seed}, checkpoint_seconds "
                f"{self.checkpoint_seconds}: none may be negative"
            )


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the last stage's encoder, and results by stage.

    ``measured`` holds the recipe's measurements by name, encoder and value.
    """

    folder: Path
    encoder: TrainableEncoder
    results: Mapping[str, Results]
    recipe: Recipe
    measured: Measured


def train(recipe: Recipe, settings: RunSettings, corpus: Corpus | None = None) -> Run:
    """Carry out a recipe. ``corpus`` takes the place of the one that the recipe names.

    Where torchrun has started several processes they carry it out together, and each returns the
    run.

    Raises:
        TrainingError: nothing to train on, a loss that is not a number, or a run that cannot be
            resumed.
        StorageError: the folder holds a run already and ``resume`` is off, or cannot be written.
        DataError: the corpus has no training, dev or test questions.
        UnknownNameError: the corpus has no training or dev questions in a language of a stage.
        SettingsError: no such device, or encoders cannot be saved in the form that is asked for.
    """
    with process_group(settings.device) as group:
        return _train(recipe, settings, corpus, group)


def _train(
    recipe: Recipe, settings: RunSettings, corpus: Corpus | None, group: ProcessGroup
) -> Run:
    base = load_encoder(recipe.encoder).to(group.device)
    settings = dataclasses.replace(settings, save_form=chosen_form(base, settings.save_form))
    return _Runner(recipe, settings, corpus or load_corpus(recipe.corpus), base, group).run()


def read_run(folder: Path) -> dict[str, Any]:
    """Return what ``run.json`` says of a run that is under way or complete.

    Raises:
        TrainingError: it is not there, cannot be read, or is of a newer format.
    """
    path = folder / "run.json"
    record = _read_json(path)
    _check_format(record, path)
    if not isinstance(record.get("corpus"), dict):
        raise TrainingError(f"{path} describes no run")
    return record


def check_run(folder: Path, recipe: Recipe, settings: RunSettings) -> None:
    """Refuse a run of another recipe, seed or split seed.

    Raises:
        TrainingError: it is one, or cannot be read; the message names the first difference.
    """
    was = read_run(folder)
    now = {
        "recipe": recipe.to_json(),
        "seed": settings.seed,
        "split_seed": settings.split_seed,
    }
    for key, value in now.items():
        difference = _difference(was.get(key), value, key)
        if difference is not None:
            raise TrainingError(
                f"{folder}: the run that is there is another one: {difference}. Name another "
                "folder with -o, or remove that one"
            )


def _difference(was: Any, now: Any, name: str) -> str | None:
    """Say where two plain values differ first; None where they are equal."""
    if isinstance(was, dict) and isinstance(now, dict):
        pairs = [
            (was.get(key), now.get(key), f"{name}.{key}") for key in dict.fromkeys([*now, *was])
        ]
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = [
            (*both, f"{name}[{place}]") for place, both in enumerate(zip(was, now, strict=True))
        ]
    else:
        return None if was == now else f"{name} is {_shown(was)} there and {_shown(now)} here"
    found = (_difference(*pair) for pair in pairs)
    return next((difference for difference in found if difference is not None), None)


def _shown(value: Any) -> str:
    return "not given" if value is None else f"{value!r:.80}"


def read_run_results(folder: Path) -> tuple[dict[str, Results], Measured]:
    """Return the test results of a complete run by stage, and what else was measured.

    Raises:
        TrainingError: the run is not complete, or its results cannot be read.
    """
    path = folder / "results.json"
    record = _read_json(path)
    if not isinstance(record.get("results"), dict):
        raise TrainingError(f"{path} holds no results of a run")
    results = {name: Results.from_json(result) for name, result in record["results"].items()}
    return results, record.get("measured", {})


class _Runner(Generic[E]):
    def __init__(
        self,
        recipe: Recipe,
        settings: RunSettings,
        corpus: Corpus,
        base: E,
        group: ProcessGroup,
    ) -> None:
        self._group = group
        self._budget = TokenBudget(settings.chunk_tokens, self._say)
        self._recipe = recipe
        self._settings = settings
        self._folder = Path(settings.output)
        self._base = base
        self._device = base.device
        self._corpus = _in_recipe_languages(corpus, recipe)
        self._splits = _splits(self._corpus, recipe, settings.split_seed)
        for stage in recipe.stages:  # What is missing or does not fit shall stop no run half-way.
            languages = self._languages(stage)
            self._splits.train.in_languages(languages)
            self._splits.dev.in_languages(languages)
            if isinstance(stage.method, Transfer) and stage.method.teacher is not None:
                load_teacher(stage.method.teacher, base)
        self._supplies = {
            stage.name: load_supplies(stage.method, self._splits.train, self._languages(stage))
            for stage in recipe.stages
        }

    def run(self) -> Run:
        # Only the first process writes; the others wait wherever they read what it has written.
        first = self._group.first
        with (
            _locked(self._folder) if first else contextlib.nullcontext(),
            matrix_precision(self._device),
        ):
            if first:
                self._begin()
            self._group.wait()
            clock = _Clock(self._folder / "timings.json", writes=first)
            for number, stage in enumerate(self._recipe.stages):
                if not self._kept_path(stage).exists():
                    with clock.measure(stage.name) as write_clock:
                        self._train_stage(number, stage, write_clock)
            results, measured = self._evaluate_all(clock)
            last = self._recipe.stages[-1]
            encoder = self._stage_encoder(last).renamed(str(self._encoder_path(last)))
            self._group.wait()
            if first:
                self._tidy_up()
        return Run(self._folder, encoder, results, self._recipe, measured)

    def _begin(self) -> None:
        corpus: dict[str, Any] = {"name": self._corpus.name, "sha256": self._fingerprint()}
        translated = count_translated(self._corpus)
        if translated:
            corpus["translated_by"] = translated
        described = {
            "format": FORMAT,
            "recipe": self._recipe.to_json(),
            "seed": self._settings.seed,
            "split_seed": self._settings.split_seed,
            "corpus": corpus,
            "weights": self._base.weights,
            "weights_sha256": weights_digest(dict(self._base.named_parameters())),
            "device": self._device.type,
            "threads": torch.get_num_threads(),
            "processes": self._group.size,
        }
        path = self._folder / "run.json"
        if not path.exists():
            _remove_unfinished(self._folder)
            encoder = describe_encoder(self._recipe.encoder)
            described |= {"encoder": encoder} if encoder else {}
            write_json(path, described | {"environment": describe_environment()})
            return
        if not self._settings.resume:
            raise StorageError(
                f"{self._folder} holds a run already: go on with --resume, or name another folder "
                "with -o"
            )
        _check_same(_read_json(path), described, path)
        _remove_unfinished(self._folder)
        if (self._folder / "results.json").exists():
            self._tidy_up()
            raise TrainingError(f"the run in {self._folder} is complete; nothing is left to resume")

    def _say(self, what: str) -> None:
        own = f"process {self._group.rank}: " if self._group.size > 1 else ""
        print(f"{own}{what}", file=sys.stderr)

    def _fingerprint(self) -> str:
        """Return a digest of all that training and evaluation see."""
        digest = _corpus_digest(self._corpus)
        for supplies in self._supplies.values():
            for texts in (supplies.question_texts, supplies.passage_texts):
                for text in texts:
                    digest.update(repr(text).encode())
        return digest.hexdigest()

    def _tidy_up(self) -> None:
        """Remove what only an unfinished run needs."""
        clear_checkpoints(self._folder)
        shutil.rmtree(self._folder / "kept", ignore_errors=True)

    def _languages(self, stage: Stage) -> tuple[str, ...]:
        return self._recipe.stage_languages(stage, _foreign(self._corpus))

    def _kept_path(self, stage: Stage) -> Path:
        return self._folder / "kept" / f"{stage.name}.safetensors"

    def _encoder_path(self, stage: Stage) -> Path:
        return self._folder / "encoders" / stage.name

    @cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        questions, candidates = texts_of((self._splits.train, self._splits.dev))
        for supplies in self._supplies.values():
            questions += supplies.question_texts
            candidates += supplies.passage_texts
        return list(dict.fromkeys(questions)), list(dict.fromkeys(candidates))

    @cached_property
    def _vocabulary(self) -> torch.Tensor:
        """The token ids that the run's texts use."""
        token_ids: torch.Tensor = torch.unique(TextBank.token_ids(self._base, *self._texts))
        return token_ids

    def _compact(self, start: str | None) -> E:
        """Return the encoder that a stage starts from, with the run's vocabulary alone."""
        compacted = self._base.compact(self._vocabulary).to(self._device)
        if start is not None:
            _load_tensors(self._kept_path(self._recipe.stage(start)), compacted)
        return compacted

    def _train_stage(self, number: int, stage: Stage, write_clock: Callable[[], None]) -> None:
        found = read_checkpoint(self._folder)
        checkpoint = found if found is not None and found.position.stage == number else None
        log = _Log(self._folder / "log.jsonl", writes=self._group.first)
        log.keep_stages(self._recipe, number, checkpoint)
        log.lines = self._group.same(log.lines)
        start, encoder = self._compact(stage.start), self._compact(stage.start)
        bank = TextBank(*self._texts, encoder, self._group)
        languages = self._languages(stage)
        material = Material(
            corpus=self._splits.train,
            questions=self._splits.train.in_languages(languages).questions,
            bank=bank,
            start=start,
            seed=self._settings.seed,
            stage=number,
            supplies=self._supplies[stage.name],
        )
        method = prepare(stage.method, material)
        log.note(stage, method.notes, started=checkpoint is None)
        evaluator = RetrievalEvaluator(
            self._splits.dev, self._recipe.evaluation, split="dev", languages=languages
        )

        def save(checkpoint: Checkpoint) -> None:
            write_checkpoint(self._folder, checkpoint)
            write_clock()

        seconds = self._settings.checkpoint_seconds if self._group.first else math.inf
        with stage_bar(stage.name, shown=self._settings.progress and self._group.first) as tick:
            around = Surroundings(
                number=number,
                seed=self._settings.seed,
                log=log.append,
                save=save,
                tick=tick,
                checkpoint_seconds=seconds,
                log_lines=log.lines,
                group=self._group,
                budget=self._budget,
            )
            best = train_stage(stage, encoder, method, bank, evaluator, around, checkpoint)
        if self._group.first:
            self._save_stage(stage, encoder, best)
        self._group.wait()

    def _save_stage(self, stage: Stage, encoder: E, best: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                parameter.copy_(best[name])
        whole = self._base.write_back(encoder)
        form = chosen_form(whole, self._settings.save_form)
        whole.save(self._encoder_path(stage), form=form)
        with atomic_file(self._kept_path(stage)) as temporary:
            write_tensors(temporary, {name: tensor.cpu() for name, tensor in best.items()})

    def _stage_encoder(self, stage: Stage) -> E:
        encoder = self._base.write_back(self._compact(stage.name))
        # Relative to the run folder, so that results do not depend on where it lies.
        return encoder.renamed(str(self._encoder_path(stage).relative_to(self._folder)))

    def _evaluate_all(self, clock: _Clock) -> tuple[dict[str, Results], Measured]:
        with clock.measure("test"):
            encoders: dict[str, E] = {ZERO_SHOT: self._base}
            encoders |= {stage.name: self._stage_encoder(stage) for stage in self._recipe.stages}
            shared = {name: self._shared(encoder) for name, encoder in encoders.items()}
            results = self._test(shared)
            measured = {
                wanted.name: measure(
                    wanted, shared, self._recipe, self._corpus, self._settings.split_seed
                )
                for wanted in self._recipe.measurements or ()
                if wanted.split == "dev" or not self._settings.dev_only
            }
        record = {
            "format": FORMAT,
            "seed": self._settings.seed,
            "split_seed": self._settings.split_seed,
            "results": {name: result.to_json(with_ranks=True) for name, result in results.items()},
        }
        if measured:
            record["measured"] = measured
        if self._group.first:
            write_json(self._folder / "results.json", record)
        return results, measured

    def _shared(self, encoder: E) -> Encoder:
        return encoder if self._group.size == 1 else SharedEncoder(encoder, self._group)

    def _test(self, encoders: Mapping[str, Encoder]) -> dict[str, Results]:
        """Test the encoders, where test questions may be looked at, and portray them."""
        split: Literal["dev", "test"] = "dev" if self._settings.dev_only else "test"
        asked = self._splits.dev if self._settings.dev_only else self._splits.test
        evaluator = RetrievalEvaluator(asked, self._recipe.evaluation, split=split)
        portrayed = portrayed_encoders(self._recipe)
        encode = {
            name: remembered(encoder.encode) if name in portrayed else encoder.encode
            for name, encoder in encoders.items()
            if name in portrayed or not self._settings.dev_only
        }
        results = {name: evaluator(encoders[name], encode[name]) for name in encode}
        own = {name: encode[name] for name in portrayed}
        languages = {stage.name: self._languages(stage) for stage in self._recipe.stages}
        portrait = portray(evaluator, results, own, languages)
        if self._group.first:
            write_portrait(self._folder, portrait)
        if self._settings.dev_only:
            return {}
        if not _has_translations(asked):
            return results
        bm25 = evaluate_bm25(
            asked, self._recipe.evaluation, IcuWords(), split="test", known=self._base.languages
        )
        return {BASELINE: bm25} | results


def _foreign(corpus: Corpus) -> tuple[str, ...]:
    return tuple(code for code in corpus.languages if code != corpus.document_language)


def _in_recipe_languages(corpus: Corpus, recipe: Recipe) -> Corpus:
    if recipe.languages is None:
        return corpus
    own = corpus.document_language
    kept = (own, *recipe.languages) if own in corpus.languages else recipe.languages
    return corpus.in_languages(dict.fromkeys(kept))


def _splits(corpus: Corpus, recipe: Recipe, seed: int) -> Splits:
    return Splits(
        train=take_split(corpus, "train", seed=seed, by=recipe.split_by),
        dev=take_split(corpus, "dev", seed=seed, by=recipe.split_by),
        test=take_split(corpus, "test", seed=seed, by=recipe.split_by),
    )


def _has_translations(corpus: Corpus) -> bool:
    own = corpus.document_language
    return any(corpus.translation(question, own) is not None for question in corpus.questions)


def _corpus_digest(corpus: Corpus) -> hashlib._Hash:
    digest = hashlib.sha256()
    for question in corpus.questions:
        seen = (question.id, question.language, question.text, question.parallel_id)
        digest.update(repr((*seen, question.document_id, question.passage_id)).encode())
    for document in corpus.documents:
        passages = tuple((passage.id, passage.text) for passage in document.passages)
        digest.update(repr((document.id, passages)).encode())
    digest.update(repr(sorted(corpus.pools.items())).encode())
    return digest


def _load_tensors(path: Path, encoder: TrainableEncoder) -> None:
    try:
        tensors = read_tensors(path)
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                parameter.copy_(tensors[name])
    except (EncoderError, KeyError, RuntimeError) as error:
        raise TrainingError(
            f"{path}: what an earlier stage kept cannot be read ({error}); start the run anew in "
            "another folder"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise TrainingError(f"{path} describes no run")
    return record


def _check_format(record: Mapping[str, Any], path: Path) -> None:
    if isinstance(record.get("format"), int) and record["format"] > FORMAT:
        raise TrainingError(
            f"{path}: format {record['format']}, but this clrelkt reads up to {FORMAT}; "
            "install a newer clrelkt"
        )


def _check_same(was: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    _check_format(was, path)
    # Threads and device change rounding only; they are the user's to choose.
    for key in ("recipe", "seed", "split_seed", "corpus", "weights", "weights_sha256"):
        if was.get(key) != now[key]:
            raise TrainingError(
                f"{path}: the run that is there has another {key}; resume it with the same one, "
                "or name another folder with -o"
            )


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed process had begun to write; ``atomic_file`` names it so."""
    files = ("run.json", "log.jsonl", "timings.json", "results.json", "checkpoint", "portrait")
    for pattern in (*(f".{name}*.*" for name in files), "kept/.*.*", "encoders/.*.*"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another process is training in {folder}") from error
        yield
    finally:
        lock.close()


@dataclass
class _Log:
    """The run's log, one JSON object a line."""

    path: Path
    writes: bool = True
    lines: int = field(default=0, init=False)

    def keep_stages(self, recipe: Recipe, number: int, checkpoint: Checkpoint | None) -> None:
        """Drop what a killed process wrote after the point that the run goes on from."""
        if not self.writes:
            return
        whole = self._whole_lines()
        if checkpoint is None:
            done = {stage.name for stage in recipe.stages[:number]}
            kept = [line for line in whole if self._stage_of(line) in done]
        else:
            kept = whole[: checkpoint.position.log_lines]
            if len(kept) < checkpoint.position.log_lines:
                raise TrainingError(
                    f"{self.path} has {len(kept)} lines, but the checkpoint beside it was written "
                    f"after {checkpoint.position.log_lines}; start the run anew in another folder"
                )
        write_text(self.path, "".join(f"{line}\n" for line in kept))
        self.lines = len(kept)

    def _whole_lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with storage_errors(self.path):
            return self.path.read_text(encoding="utf-8").split("\n")[:-1]

    def _stage_of(self, line: str) -> str:
        try:
            return str(json.loads(line)["stage"])
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{self.path}: {line[:60]!r} is no line of a run's log") from error

    def append(self, record: Mapping[str, Any]) -> int:
        if self.writes:
            with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self.lines += 1
        return self.lines

    def note(self, stage: Stage, notes: Mapping[str, int], *, started: bool) -> None:
        """Record how many questions yield no example, once a stage."""
        if started and any(notes.values()):
            self.append({"stage": stage.name, "left_out": dict(notes)})


class _Clock:
    """Seconds by stage; a stage that was resumed adds up, back to its last checkpoint."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self._path = path
        self._writes = writes
        self._seconds: dict[str, float] = _read_json(path) if path.exists() else {}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[Callable[[], None]]:
        """Count the seconds of the block; ``write`` what it yields puts them on disk so far."""
        start = time.monotonic() - self._seconds.get(name, 0.0)

        def write() -> None:
            self._seconds[name] = round(time.monotonic() - start, 2)
            if self._writes:
                write_json(self._path, self._seconds)

        yield write
        write()
