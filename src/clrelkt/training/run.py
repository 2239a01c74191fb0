"""A run: every stage of a recipe with one seed, in one folder that holds all there is to know.

- ``run.json``: recipe, seed, corpus, encoder, versions, hardware;
- ``log.jsonl``: one line an evaluation on dev;
- ``encoders/STAGE``: the encoder that each stage kept;
- ``results.json``: zero-shot, BM25 and every stage on the test questions;
- ``timings.json``: seconds that each stage took;
- ``checkpoint*`` and ``kept/`` while the run is under way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from clrelkt.corpora import Corpus, Splits, load_corpus, split_corpus
from clrelkt.encoders import SaveForm, TrainableEncoder, load_encoder
from clrelkt.errors import SettingsError, StorageError, TrainingError
from clrelkt.evaluation import Results, RetrievalEvaluator, evaluate, evaluate_bm25
from clrelkt.files import atomic_file, storage_errors, write_json
from clrelkt.progress import stage_bar
from clrelkt.text import IcuWords
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.checkpoint import (
    Checkpoint,
    clear_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from clrelkt.training.device import choose_device, matrix_precision
from clrelkt.training.environment import describe_environment
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.methods import Material, prepare
from clrelkt.training.recipe import Recipe, Stage

__all__ = ["BASELINE", "ZERO_SHOT", "Run", "RunSettings", "read_run_results", "train"]

FORMAT = 1
ZERO_SHOT = "zero-shot"
BASELINE = "bm25"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is carried out; none of it changes what a recipe means.

    ``seed`` decides every random choice of training, ``split_seed`` which questions are dev and
    test: runs that differ in ``seed`` alone are tested on the same questions. ``save_form`` is how
    encoders are written.
    """

    output: Path
    seed: int = 0
    split_seed: int = 0
    resume: bool = False
    device: str | None = None
    save_form: SaveForm = "delta"
    checkpoint_seconds: float = 60.0
    progress: bool = True


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the last stage's encoder, and results by stage."""

    folder: Path
    encoder: TrainableEncoder
    results: Mapping[str, Results]
    recipe: Recipe


def train(recipe: Recipe, settings: RunSettings, corpus: Corpus | None = None) -> Run:
    """Carry out a recipe. ``corpus`` takes the place of the one that the recipe names.

    Raises:
        TrainingError: nothing to train on, a loss that is not a number, or a run that cannot be
            resumed.
        StorageError: the folder is there already and ``resume`` is off, or cannot be written.
        SettingsError: no such device.
    """
    return _Runner(recipe, settings, corpus or load_corpus(recipe.corpus)).run()


def read_run_results(folder: Path) -> dict[str, Results]:
    """Return the test results of a complete run, by stage.

    Raises:
        TrainingError: the run is not complete, or its results cannot be read.
    """
    path = folder / "results.json"
    record = _read_json(path)
    if not isinstance(record.get("results"), dict):
        raise TrainingError(f"{path} holds no results of a run")
    return {name: Results.from_json(result) for name, result in record["results"].items()}


class _Runner:
    def __init__(self, recipe: Recipe, settings: RunSettings, corpus: Corpus) -> None:
        self._recipe = recipe
        self._settings = settings
        self._folder = Path(settings.output)
        self._device = choose_device(settings.device)
        self._corpus = _in_recipe_languages(corpus, recipe)
        self._splits = split_corpus(
            self._corpus, by=recipe.split_by, seed=settings.split_seed
        )
        self._base = load_encoder(recipe.encoder).to(self._device)

    def run(self) -> Run:
        with _locked(self._folder), matrix_precision(self._device):
            self._begin()
            clock = _Clock(self._folder / "timings.json")
            for number, stage in enumerate(self._recipe.stages):
                if not self._kept_path(stage).exists():
                    with clock.measure(stage.name):
                        self._train_stage(number, stage)
            results = self._evaluate_all(clock)
            encoder = self._stage_encoder(self._recipe.stages[-1])
            clear_checkpoints(self._folder)
            shutil.rmtree(self._folder / "kept", ignore_errors=True)
        return Run(self._folder, encoder, results, self._recipe)

    def _begin(self) -> None:
        described = {
            "format": FORMAT,
            "recipe": self._recipe.to_json(),
            "seed": self._settings.seed,
            "split_seed": self._settings.split_seed,
            "corpus": {"name": self._corpus.name, "sha256": _fingerprint(self._corpus)},
            "weights": self._base.weights,
            "device": self._device.type,
            "threads": torch.get_num_threads(),
        }
        path = self._folder / "run.json"
        if not path.exists():
            write_json(path, described | {"environment": describe_environment()})
            return
        if not self._settings.resume:
            raise StorageError(
                f"{self._folder} holds a run already: go on with --resume, or name another folder "
                "with -o"
            )
        _check_same(_read_json(path), described, path)
        if (self._folder / "results.json").exists():
            raise TrainingError(f"the run in {self._folder} is complete; nothing is left to resume")

    def _kept_path(self, stage: Stage) -> Path:
        return self._folder / "kept" / f"{stage.name}.safetensors"

    def _encoder_path(self, stage: Stage) -> Path:
        return self._folder / "encoders" / stage.name

    def _texts(self) -> tuple[list[str], list[str]]:
        return texts_of((self._splits.train, self._splits.dev))

    def _compact(self, start: str | None) -> TrainableEncoder:
        """Return the encoder that a stage starts from, with the run's vocabulary alone."""
        questions, candidates = self._texts()
        token_ids = TextBank.token_ids(self._base, questions, candidates)
        compacted: TrainableEncoder = self._base.compact(token_ids).to(self._device)
        if start is not None:
            _load_tensors(self._kept_path(self._recipe.stage(start)), compacted)
        return compacted

    def _train_stage(self, number: int, stage: Stage) -> None:
        found = read_checkpoint(self._folder)
        checkpoint = found if found is not None and found.position.stage == number else None
        log = _Log(self._folder / "log.jsonl")
        log.keep_stages(self._recipe, number, checkpoint)
        start, encoder = self._compact(stage.start), self._compact(stage.start)
        bank = TextBank(*self._texts(), encoder)
        languages = self._recipe.stage_languages(stage, _foreign(self._corpus))
        material = Material(
            corpus=self._splits.train,
            questions=self._splits.train.in_languages(languages).questions,
            bank=bank,
            start=start,
            seed=self._settings.seed,
            stage=number,
        )
        method = prepare(stage.method, material)
        log.note(stage, method.notes, started=checkpoint is None)
        evaluator = RetrievalEvaluator(
            self._splits.dev, self._recipe.evaluation, split="dev", languages=languages
        )
        with stage_bar(stage.name, shown=self._settings.progress) as tick:
            around = Surroundings(
                number=number,
                seed=self._settings.seed,
                log=log.append,
                save=lambda checkpoint: write_checkpoint(self._folder, checkpoint),
                tick=tick,
                checkpoint_seconds=self._settings.checkpoint_seconds,
                log_lines=log.lines,
            )
            best = train_stage(stage, encoder, method, bank, evaluator, around, checkpoint)
        self._save_stage(stage, encoder, best)

    def _save_stage(
        self, stage: Stage, encoder: TrainableEncoder, best: Mapping[str, torch.Tensor]
    ) -> None:
        from safetensors.torch import save_file

        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                parameter.copy_(best[name])
        whole = self._base.write_back(encoder)
        whole.save(self._encoder_path(stage), form=self._settings.save_form)
        with atomic_file(self._kept_path(stage)) as temporary:
            save_file({name: tensor.cpu() for name, tensor in best.items()}, str(temporary))

    def _stage_encoder(self, stage: Stage) -> TrainableEncoder:
        encoder = self._base.write_back(self._compact(stage.name))
        return encoder.renamed(str(self._encoder_path(stage)))

    def _evaluate_all(self, clock: _Clock) -> dict[str, Results]:
        test = self._splits.test
        settings = self._recipe.evaluation
        with clock.measure("test"):
            results = {
                BASELINE: evaluate_bm25(
                    test, settings, IcuWords(), split="test", known=self._base.languages
                ),
                ZERO_SHOT: evaluate(self._base, test, settings, split="test"),
            }
            for stage in self._recipe.stages:
                encoder = self._stage_encoder(stage)
                results[stage.name] = evaluate(encoder, test, settings, split="test")
        write_json(
            self._folder / "results.json",
            {
                "format": FORMAT,
                "seed": self._settings.seed,
                "split_seed": self._settings.split_seed,
                "results": {name: result.to_json() for name, result in results.items()},
            },
        )
        return results


def _foreign(corpus: Corpus) -> tuple[str, ...]:
    return tuple(code for code in corpus.languages if code != corpus.document_language)


def _in_recipe_languages(corpus: Corpus, recipe: Recipe) -> Corpus:
    if recipe.languages is None:
        return corpus
    own = corpus.document_language
    wanted = dict.fromkeys((own, *recipe.languages) if own in corpus.languages else recipe.languages)
    return corpus.in_languages(wanted)


def _fingerprint(corpus: Corpus) -> str:
    digest = hashlib.sha256()
    for question in corpus.questions:
        digest.update(f"{question.id}\t{question.text}\t{question.passage_id}\n".encode())
    for document in corpus.documents:
        digest.update(f"{document.id}\t{document.text}\n".encode())
    return digest.hexdigest()


def _load_tensors(path: Path, encoder: TrainableEncoder) -> None:
    from safetensors.torch import load_file

    tensors = load_file(str(path))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(tensors[name])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise TrainingError(f"{path} describes no run")
    return record


def _check_same(was: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    if isinstance(was.get("format"), int) and was["format"] > FORMAT:
        raise TrainingError(
            f"{path}: format {was['format']}, but this clrelkt reads up to {FORMAT}; "
            "install a newer clrelkt"
        )
    # Threads and device change rounding only; they are the user's to choose.
    for key in ("recipe", "seed", "split_seed", "corpus", "weights"):
        if was.get(key) != now[key]:
            raise TrainingError(
                f"{path}: the run that is there has another {key}; resume it with the same one, "
                "or name another folder with -o"
            )


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
    lines: int = field(default=0, init=False)

    def keep_stages(self, recipe: Recipe, number: int, checkpoint: Checkpoint | None) -> None:
        """Drop what a killed process wrote after the point that the run goes on from."""
        done = {stage.name for stage in recipe.stages[:number]}
        kept = []
        if self.path.exists():
            records = self.path.read_text(encoding="utf-8").splitlines()
            whole = [line for line in records if line.endswith("}")]
            if checkpoint is not None:
                kept = whole[: checkpoint.position.log_lines]
            else:
                kept = [line for line in whole if json.loads(line)["stage"] in done]
        with atomic_file(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self.lines = len(kept)

    def append(self, record: Mapping[str, Any]) -> int:
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.lines += 1
        return self.lines

    def note(self, stage: Stage, notes: Mapping[str, int], *, started: bool) -> None:
        """Record how many questions yield no example, once a stage."""
        if started and any(notes.values()):
            self.append({"stage": stage.name, "left_out": dict(notes)})


class _Clock:
    """Seconds by stage; a stage that was resumed adds up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = _read_json(path) if path.exists() else {}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        spent = self._seconds.get(name, 0.0) + time.monotonic() - start
        self._seconds[name] = round(spent, 2)
        write_json(self._path, self._seconds)
