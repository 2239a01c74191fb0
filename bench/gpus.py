"""The same training stage on one GPU and on several: how much faster, and the same losses.

    python bench/gpus.py --gpus 2 --row gpus-2.json
    python bench/gpus.py --gpus 2 --encoder FOLDER --pairs 2048 --batch 256

The stage is the transfer stage of the XQuAD recipe on pairs of a question and a passage made of
XQuAD's words: each pair has texts of its own, ``--question-words`` and ``--passage-words`` long, so
that there is as much to encode as there are pairs. The runs are one behind the other, each in
processes of its own, and go through the training loop itself. Measured is from the end of step
``--warm`` to the end of the last. With ``--device cpu`` the processes share the CPU (gloo).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clrelkt.corpora import load_corpus
from clrelkt.corpora.model import Corpus, Document, Passage, Question
from clrelkt.encoders import load_encoder
from clrelkt.encoders.memory import TokenBudget
from clrelkt.errors import ClrelktError
from clrelkt.evaluation import RetrievalEvaluator
from clrelkt.training import load_recipe
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.device import matrix_precision
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.methods import prepare
from clrelkt.training.process_group import ProcessGroup, process_group
from clrelkt.training.recipe import DevSettings, Optimisation, Stage, Transfer
from clrelkt.training.stage_method import Material
from harness import DisagreementError
from rows import Row, write_rows

TARGETS = {2: 1.9, 4: 3.6}
LOOSEST = 0.02


def made_corpus(arguments: argparse.Namespace) -> Corpus:
    """Return pairs of a passage and a question in German, with an English version, at random."""
    words = np.array(
        " ".join(p.text for p in load_corpus(arguments.words).passage_by_id.values()).split()
    )
    rng = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(words[rng.integers(0, len(words), length)])

    questions, documents = [], []
    for number in range(arguments.pairs):
        place = f"p{number}"
        passage = Passage(place, place, text(arguments.passage_words))
        documents.append(Document(place, place, (passage,)))
        for language in ("en", "de"):
            asked = text(arguments.question_words)
            questions.append(
                Question(f"{language}{number}", language, asked, place, place, (), f"q{number}")
            )
    return Corpus("made", tuple(questions), tuple(documents))


def stage_of(arguments: argparse.Namespace) -> Stage:
    stage = load_recipe("xquad").stage("student")
    assert isinstance(stage.method, Transfer)
    optimisation = Optimisation(
        epochs=arguments.epochs,
        learning_rate=1e-5,
        batch=arguments.batch,
        precision=arguments.precision,
    )
    return replace(
        stage,
        start=None,
        method=replace(stage.method, granularity="passage"),
        optimisation=optimisation,
        dev=DevSettings(patience=9, every_steps=10**9),
    )


@dataclass
class Watch:
    """When steps end: the clock is read once all that the GPU had to do is done."""

    warm: int
    began: float = 0.0
    ended: float = 0.0

    def __call__(self, step: int, steps: int, best: float | None) -> None:
        """Take note of a step's end."""
        if step in (self.warm, steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            moment = time.perf_counter()
            self.began, self.ended = (moment, 0.0) if step == self.warm else (self.began, moment)


def work(arguments: argparse.Namespace) -> None:
    """Train, in one of the processes; the first one writes what it measured."""
    with process_group(arguments.device) as group, matrix_precision(group.device):
        found = train(arguments, group)
        if group.first:
            arguments.worker.write_text(json.dumps(found), encoding="utf-8")


def train(arguments: argparse.Namespace, group: ProcessGroup) -> dict[str, Any]:
    corpus = made_corpus(arguments)
    base = load_encoder(arguments.encoder).to(group.device)
    texts = texts_of((corpus,))
    token_ids = TextBank.token_ids(base, *texts)
    start, encoder = (base.compact(token_ids).to(group.device) for _ in range(2))
    bank = TextBank(*texts, encoder, group)
    stage = stage_of(arguments)
    questions = corpus.in_languages(["de"]).questions
    material = Material(corpus, questions, bank, start, seed=0, stage=0)
    log: list[dict[str, Any]] = []
    watch = Watch(arguments.warm)

    def note(record: dict[str, Any]) -> int:
        log.append(record)
        return len(log)

    few = corpus.with_questions(questions[:64])
    evaluator = RetrievalEvaluator(few, stage_evaluation(), split="train", languages=["de"])
    around = Surroundings(
        number=0,
        seed=0,
        log=note,
        save=lambda checkpoint: None,
        tick=watch,
        checkpoint_seconds=float("inf"),
        group=group,
        budget=TokenBudget(arguments.chunk_tokens),
    )
    method = prepare(stage.method, material)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    train_stage(stage, encoder, method, bank, evaluator, around)
    steps = -(-len(questions) // arguments.batch) * arguments.epochs
    pairs = len(questions) * arguments.epochs - arguments.warm * arguments.batch
    return {
        "pairs_per_second": pairs / (watch.ended - watch.began),
        "losses": log[-1]["losses"],
        "loss": log[-1]["loss"],
        "steps": steps,
        "tokens": int(bank.lengths.sum()),
        "peak_memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


def stage_evaluation() -> Any:
    return replace(load_recipe("xquad").evaluation, pool="passage")


def run(processes: int) -> dict[str, Any]:
    """Start this program again in so many processes, and return what the first one wrote."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), *sys.argv, "--worker", str(file)]
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        environment = {"OMP_NUM_THREADS": threads} | dict(os.environ)
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode or not file.exists():
            sys.exit(f"error: the run in {processes} processes failed")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def compare(arguments: argparse.Namespace) -> None:
    rounds = [(run(arguments.gpus), run(1)) for _ in range(arguments.rounds)]
    several, alone = rounds[0]
    pairs = zip(several["losses"], alone["losses"], strict=True)
    difference = max(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs)
    if difference > LOOSEST:
        raise DisagreementError(
            f"a loss differs by {difference:.1e} between {arguments.gpus} processes and one; "
            f"expected at most {LOOSEST}: {several['losses']}, {alone['losses']}"
        )
    ratios = [many["pairs_per_second"] / one["pairs_per_second"] for many, one in rounds]
    rates = [
        statistics.median(found["pairs_per_second"] for found in side)
        for side in zip(*rounds, strict=True)
    ]
    kind = "GPUs" if arguments.device != "cpu" else "processes on the CPU"
    row = Row(
        work=f"{arguments.gpus} {kind}, transfer stage of {Path(arguments.encoder).name}, batch "
        f"{arguments.batch}, {several['tokens'] // arguments.pairs} tokens a pair, "
        f"{arguments.precision}",
        against="1 GPU" if arguments.device != "cpu" else "1 process",
        target=TARGETS.get(arguments.gpus, arguments.gpus * 0.9),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        ours=rates[0],
        theirs=rates[1],
        unit="pairs/s",
        peak_memory=several["peak_memory"],
    )
    print(f"{row.work}: {row.ours:,.0f} pairs/s against {row.theirs:,.0f}")
    print(f"ratio {row.ratio:.2f} ({row.spread[0]:.2f} to {row.spread[1]:.2f}), of {row.target}")
    print(f"largest difference of a loss: {difference:.1e}; peak memory {row.peak_memory}")
    print(f"losses: {several['losses']} against {alone['losses']}")
    if arguments.row:
        write_rows(arguments.row, [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="cpu or cuda [default: cuda where there is one]")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--encoder", default="muse", help="name or folder")
    parser.add_argument("--words", default="xquad", help="corpus whose words texts are made of")
    parser.add_argument("--pairs", type=int, default=32_768)
    parser.add_argument("--batch", type=int, default=4_096)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--warm", type=int, default=8, help="steps before the clock starts")
    parser.add_argument("--question-words", type=int, default=12)
    parser.add_argument("--passage-words", type=int, default=110)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--chunk-tokens", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--row", type=Path, metavar="FILE", help="write the result as one row")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        (work if arguments.worker else compare)(arguments)
    except ClrelktError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
