"""Train three stages in float64 and write losses and weights: a program for torchrun, or alone.

python exact_stages.py CORPUS ENCODER OUTPUT [CHUNK_TOKENS]
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

from clrelkt.corpora import load_corpus, split_corpus
from clrelkt.encoders import load_encoder
from clrelkt.encoders.memory import TokenBudget
from clrelkt.encoders.tensors import write_tensors
from clrelkt.evaluation import EvaluationSettings, RetrievalEvaluator
from clrelkt.mining import DenseMining
from clrelkt.training import gradients
from clrelkt.training.bank import TextBank, texts_of
from clrelkt.training.launch import end_process
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.methods import prepare
from clrelkt.training.process_group import ProcessGroup, process_group
from clrelkt.training.recipe import Contrastive, DevSettings, Optimisation, Stage, Teacher, WarmUp
from clrelkt.training.stage_method import Material
from clrelkt.training.supplies import load_supplies

STEPS = Optimisation(epochs=1, batch=6, learning_rate=1e-4, token_dropout=0.2, average=0.9)
DEV = DevSettings(patience=9, times_per_epoch=1)
STAGES = (
    Stage("warm-up", WarmUp(margin=0.24), STEPS, DEV),
    Stage("teacher", Teacher(DenseMining(hard=2, semi_hard=2, granularity="passage")), STEPS, DEV),
    Stage("contrastive", Contrastive(english=0.3, directions="both", anchor=1.0), STEPS, DEV),
)
LANGUAGES = ["de", "ru"]


def main(corpus_folder: str, encoder_folder: str, output: Path, chunk_tokens: int | None) -> None:
    # Gradients of a tiny encoder are to set out in several buckets, too.
    gradients._BUCKET_NUMBERS = 1000
    with process_group("cpu") as group:
        for number, stage in enumerate(STAGES):
            run_stage(number, stage, corpus_folder, encoder_folder, output, chunk_tokens, group)


def run_stage(
    number: int,
    stage: Stage,
    corpus_folder: str,
    encoder_folder: str,
    output: Path,
    chunk_tokens: int | None,
    group: ProcessGroup,
) -> None:
    corpus = split_corpus(load_corpus(corpus_folder)).train
    encoder = load_encoder(encoder_folder).double()
    bank = TextBank(*texts_of([corpus]), encoder, group)
    questions = corpus.in_languages(LANGUAGES).questions
    supplies = load_supplies(stage.method, corpus, LANGUAGES)
    start = copy.deepcopy(encoder)
    material = Material(corpus, questions, bank, start, 0, number, supplies)
    log = []

    def note(record: dict[str, object]) -> int:
        log.append(record)
        return len(log)

    around = Surroundings(
        number=number,
        seed=0,
        log=note,
        save=lambda checkpoint: None,
        tick=lambda *values: None,
        group=group,
        budget=TokenBudget(chunk_tokens),
    )
    evaluator = RetrievalEvaluator(
        corpus, EvaluationSettings(pool="passage"), split="train", languages=LANGUAGES
    )
    train_stage(stage, encoder, prepare(stage.method, material), bank, evaluator, around)
    if group.first:
        output.mkdir(exist_ok=True)
        (output / f"{stage.name}.json").write_text(json.dumps(log))
        tensors = {name: p.detach() for name, p in encoder.named_parameters()}
        write_tensors(output / f"{stage.name}.safetensors", tensors)


if __name__ == "__main__":
    tokens = int(sys.argv[4]) if len(sys.argv) > 4 else None
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), tokens)
    end_process()
