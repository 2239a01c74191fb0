"""Training a transformer: our loop against the Trainer of sentence-transformers on the same work.

Both train the same weights (XLM-R's architecture, made weights, no dropout) on the same texts, all
different, with the same loss: questions of 16 tokens, passages of 152. The peer runs at its best:
fused AdamW, bfloat16, loader workers, nothing logged or saved, teacher vectors in a tensor. Where
`datasets` is not installed its Trainer cannot run, and its model, collator and loss run in a bare
loop, which is faster than the Trainer; the output says which. Ours is the loop of a run, with the
vocabulary of the texts alone. The peer's profile is printed.

    python bench/transformer_training.py --device cuda --job transfer,256,15,4 \
        --job transfer,16,60,3 --job contrastive,256,15,3.5 --job triplet,256,15,3.5 --row rows.json
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch.nn import functional

from clrelkt.encoders import load_encoder
from clrelkt.encoders.ragged import to_device
from clrelkt.encoders.transformer import TransformerEncoder, TransformerNetwork
from clrelkt.objectives import TransferWeights, transfer_loss, triplet_loss
from clrelkt.training.bank import TextBank
from clrelkt.training.device import choose_device, matrix_precision
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.process_group import ProcessGroup
from clrelkt.training.recipe import DevSettings, Optimisation, Stage, Transfer
from harness import DisagreementError
from kernel_times import show_kernels
from made_transformer import SHAPES, MadeTexts, Shape, made_words, save_made_model
from rows import Row, write_rows

Work = Literal["transfer", "contrastive", "triplet"]

QUESTION, PASSAGE = 16, 152
WEIGHTS = TransferWeights(question=1.0, document=1.0, document_question=1.0, scale=1000.0)
MARGIN, TEMPERATURE, RATE = 0.24, 0.05, 2e-5
WARM_UP = 8
ENDLESS = 10**9


@dataclass(frozen=True)
class Job:
    """What is trained: ``columns`` are texts by column; ``teacher`` vectors for transfer."""

    work: Work
    batch: int
    steps: int
    device: torch.device
    low: bool
    columns: tuple[list[str], ...]
    teacher: tuple[torch.Tensor, ...]

    def loss(self, vectors: tuple[torch.Tensor, ...], rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch; ``vectors`` (batch, dimension) are unit vectors."""
        if self.work == "transfer":
            return transfer_loss(
                teacher_question=self.teacher[0][rows],
                teacher_document=self.teacher[1][rows],
                student_question=vectors[0],
                student_document=vectors[1],
                weights=WEIGHTS,
            ).total
        if self.work == "contrastive":
            scores = vectors[0] @ vectors[1].T / TEMPERATURE
            return functional.cross_entropy(scores, torch.arange(len(rows), device=rows.device))
        return triplet_loss(*vectors, margin=MARGIN) / len(rows)

    @property
    def tokens(self) -> int:
        """Tokens of an example, on average."""
        return QUESTION + PASSAGE * (len(self.columns) - 1)


class Clock:
    """Tells when a step ended; the device is waited for at the first and the last that count."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._done = 0
        self._began = 0.0
        self.seconds = 0.0

    def tick(self) -> None:
        """Count a step."""
        self._done += 1
        if self._done == WARM_UP:
            self._wait()
            self._began = time.perf_counter()
        if self._done == WARM_UP + self._job.steps:
            self._wait()
            self.seconds = time.perf_counter() - self._began

    def _wait(self) -> None:
        if self._job.device.type == "cuda":
            torch.cuda.synchronize()


class Method:
    """The stage's method: examples are (a row of the bank for each column, number of the pair)."""

    def __init__(self, job: Job, bank: TextBank) -> None:
        self.notes: dict[str, int] = {}
        self._job = job
        self.encoded_columns = len(job.columns)
        rows = [
            bank.rows(texts, "question" if number == 0 else "passage")
            for number, texts in enumerate(job.columns)
        ]
        self._examples = np.stack([*rows, np.arange(len(rows[0]))], axis=1)

    def examples(self, epoch: int, encoder: Any) -> np.ndarray:
        """Return all examples."""
        return self._examples

    def texts(self, examples: np.ndarray) -> np.ndarray:
        """Return the rows of the bank."""
        return examples[:, : self.encoded_columns]

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        """Return the loss of a batch."""
        rows = to_device(torch.from_numpy(examples[:, -1].copy()), vectors.device)
        return self._job.loss(vectors.unbind(1), rows)


def ours(job: Job, encoder: TransformerEncoder) -> float:
    """Return the seconds of the steps that count."""
    questions, passages = job.columns[0], [text for own in job.columns[1:] for text in own]
    compact = encoder.compact(TextBank.token_ids(encoder, questions, passages)).to(job.device)
    bank = TextBank(questions, passages, compact)
    method = Method(job, bank)
    clock = Clock(job)
    stage = Stage(
        "bench",
        Transfer(WEIGHTS),
        Optimisation(
            epochs=1,
            batch=job.batch,
            learning_rate=RATE,
            precision="bfloat16" if job.low else "float32",
        ),
        DevSettings(patience=ENDLESS, every_steps=ENDLESS),
    )
    nothing = SimpleNamespace(mean=SimpleNamespace(hit_rate_at_1=0.0), languages={})
    around = Surroundings(
        number=0,
        seed=0,
        log=lambda record: 0,
        save=lambda checkpoint: None,
        tick=lambda done, total, best: clock.tick(),
        checkpoint_seconds=ENDLESS,
        group=ProcessGroup(device=compact.device),
    )
    used = set[str]()
    compact.network.register_forward_pre_hook(lambda network, _: used.add(way(network)))
    train_stage(stage, compact, method, bank, lambda encoder, encode: nothing, around)  # type: ignore[arg-type]
    print(f"ours computed with {' and '.join(sorted(used))}")
    return clock.seconds


def way(network: TransformerNetwork) -> str:
    """Return how the network computes at this moment: its attention and its numbers."""
    kind = network.embedding.device.type
    low = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if low else network.compute_dtype
    attention = "unpadded" if network.needs_no_order(network.embedding.device) else "grouped"
    return f"{attention} attention in {str(dtype).removeprefix('torch.')} on {kind}"


class PeerLoss(torch.nn.Module):
    """The same loss in the form of sentence-transformers; a label is the pair's number."""

    def __init__(self, model: Any, job: Job) -> None:
        super().__init__()
        self.model = model
        self._job = job

    def forward(self, features: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch."""
        vectors = tuple(self.model(dict(own))["sentence_embedding"].float() for own in features)
        return self._job.loss(vectors, labels.view(-1))


def peer_loss(model: Any, job: Job) -> torch.nn.Module:
    """Return the library's own loss where it has one."""
    from sentence_transformers.sentence_transformer import losses

    if job.work == "contrastive":
        return losses.MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    if job.work == "triplet":
        cosine = losses.TripletDistanceMetric.COSINE
        return losses.TripletLoss(model, distance_metric=cosine, triplet_margin=MARGIN)
    return PeerLoss(model, job)


def sentence_transformer(folder: Path, device: torch.device) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder))
    width = transformer.get_embedding_dimension()
    modules = [transformer, Pooling(width, "mean"), Normalize()]
    return SentenceTransformer(modules=modules, device=str(device))


def has_trainer() -> bool:
    try:
        import datasets  # noqa: F401
    except ImportError:
        return False
    return True


def peer(job: Job, folder: Path, *, workers: int, profiled: bool = False) -> float:
    """Return the seconds of the steps that count."""
    model = sentence_transformer(folder, job.device)
    clock = Clock(job)
    run = _trainer if has_trainer() else _bare_loop
    if not profiled:
        run(job, model, clock, workers)
        return clock.seconds
    from torch.profiler import ProfilerActivity, profile

    cuda = job.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as found:
        run(job, model, clock, workers)
    by = "self_device_time_total" if cuda else "self_cpu_time_total"
    print("the peer's profile:")
    print(found.key_averages().table(sort_by=by, row_limit=12, max_name_column_width=50))
    return clock.seconds


def _trainer(job: Job, model: Any, clock: Clock, workers: int) -> None:
    import datasets
    from datasets.table import InMemoryTable
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from transformers import TrainerCallback

    class Tick(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    names = ("anchor", "positive", "negative")[: len(job.columns)]
    columns: dict[str, Any] = dict(zip(names, job.columns, strict=True))
    if job.work == "transfer":
        columns["label"] = list(range(len(job.columns[0])))
    data = datasets.Dataset(InMemoryTable.from_pydict(columns), fingerprint=f"made-{job.work}")
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=job.batch,
            max_steps=WARM_UP + job.steps,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            bf16=job.low,
            use_cpu=job.device.type == "cpu",
            dataloader_num_workers=workers,
            dataloader_pin_memory=job.device.type == "cuda",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=peer_loss(model, job),
            callbacks=[Tick()],
        )
        trainer.train()


def _bare_loop(job: Job, model: Any, clock: Clock, workers: int) -> None:
    from torch.utils.data import DataLoader

    def collated(rows: list[int]) -> Any:
        features = [model.preprocess([own[row] for row in rows]) for own in job.columns]
        return features, torch.tensor(rows)

    model.train()
    loss = peer_loss(model, job)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    rows = list(range(len(job.columns[0])))
    loader = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=job.batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=collated,
        pin_memory=job.device.type == "cuda",
    )
    for features, labels in loader:
        moved = [
            {
                name: value.to(job.device, non_blocking=True)
                for name, value in own.items()
                if isinstance(value, torch.Tensor)
            }
            for own in features
        ]
        with torch.autocast(job.device.type, torch.bfloat16, enabled=job.low):
            value = loss(moved, labels.to(job.device, non_blocking=True))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        clock.tick()


def check_same(job: Job, encoder: TransformerEncoder, folder: Path) -> float:
    """Return the relative difference of the losses of the first pairs, in float32.

    Raises:
        DisagreementError: it is too large.
    """
    count = min(8, job.batch)
    rows = torch.arange(count, device=job.device)
    kinds = ("question", "passage", "passage")
    with torch.no_grad():
        vectors = [
            encoder(encoder.tokenize(own[:count], kind).to(job.device))
            for own, kind in zip(job.columns, kinds, strict=False)
        ]
        found = float(job.loss(tuple(vectors), rows))
        model = sentence_transformer(folder, job.device).eval()
        features = [model.preprocess(own[:count]) for own in job.columns]
        moved = [
            {name: v.to(job.device) for name, v in own.items() if isinstance(v, torch.Tensor)}
            for own in features
        ]
        expected = float(peer_loss(model, job)(moved, rows))
    # A transfer that has not begun has no loss: what is compared are vectors then.
    difference = abs(found - expected) / max(abs(expected), 1e-2)
    if difference > 2e-3:
        raise DisagreementError(f"our loss is {found}, the peer's {expected}")
    return difference


@dataclass(frozen=True)
class Task:
    """What is compared, over so many steps, and the ratio that is asked for."""

    work: Work
    batch: int
    steps: int
    target: float


def task(text: str) -> Task:
    """Read a task: ``transfer,256,15,4``."""
    work, batch, steps, target = text.split(",")
    if work not in get_args(Work):
        raise argparse.ArgumentTypeError(f"{work}: one of {', '.join(get_args(Work))} expected")
    return Task(cast("Work", work), int(batch), int(steps), float(target))


def made_job(
    asked: Task, arguments: argparse.Namespace, shape: Shape, encoder: TransformerEncoder
) -> Job:
    texts = MadeTexts(made_words(arguments.rows))
    count = asked.batch * (WARM_UP + asked.steps)
    lengths = (QUESTION, PASSAGE, PASSAGE)[: 3 if asked.work == "triplet" else 2]
    columns = tuple(texts.draw(count, length) for length in lengths)
    device = encoder.device
    teacher: tuple[torch.Tensor, ...] = ()
    if asked.work == "transfer":
        # The teacher's vectors are no part of either side's work; any unit vectors will do.
        generator = torch.Generator(device).manual_seed(0)
        drawn = torch.randn(2, count, shape.width, generator=generator, device=device)
        teacher = tuple(functional.normalize(drawn, dim=-1))
    return Job(
        asked.work,
        asked.batch,
        asked.steps,
        device,
        arguments.precision == "bfloat16",
        columns,
        teacher,
    )


def measured(work: Callable[[], float], device: torch.device) -> tuple[float, int | None]:
    """Return the seconds of a side and the peak of its memory, in bytes."""
    gc.collect()
    if device.type != "cuda":
        return work(), None
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = work()
    return seconds, torch.cuda.max_memory_allocated() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--job",
        type=task,
        action="append",
        help="WORK,BATCH,STEPS,TARGET; several are done one after the other",
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="xlm-r-base")
    parser.add_argument("--rows", type=int, default=250_002, help="of the vocabulary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--workers", type=int, default=4, help="of the peer's loader")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--device")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--profile-ours", action="store_true", help="print our kernels' times too")
    parser.add_argument("--row", type=Path, help="write the table's rows to this JSON file")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    device = choose_device(arguments.device)
    shape = SHAPES[arguments.shape]
    with tempfile.TemporaryDirectory() as scratch, matrix_precision(device):
        folder = save_made_model(Path(scratch) / "model", shape, arguments.rows)
        encoder = load_encoder(folder).to(device)
        assert isinstance(encoder, TransformerEncoder)
        print("the peer is", "its Trainer" if has_trainer() else "a bare loop: no datasets here")
        rows = []
        for asked in arguments.job or [task("transfer,256,15,4")]:
            job = made_job(asked, arguments, shape, encoder)
            sides = compare(job, encoder, folder, arguments)
            rows.append(report(arguments, job, asked.target, shape, sides))
            # A job that fails must not take with it what was measured before.
            if arguments.row:
                write_rows(arguments.row, rows)


def compare(
    job: Job, encoder: TransformerEncoder, folder: Path, arguments: argparse.Namespace
) -> list[Any]:
    """Return seconds and peak memory of both sides, round by round."""
    try:
        difference = check_same(job, encoder, folder)
    except DisagreementError as error:
        sys.exit(f"error: {error}")
    print(f"{job.work}, batch {job.batch}: losses differ by {difference:.1e} before training")
    if not arguments.no_profile:
        few = replace(job, steps=3)
        peer(few, folder, workers=arguments.workers, profiled=True)
    if arguments.profile_ours:
        ours(job, encoder)
        show_kernels(lambda: ours(job, encoder), WARM_UP + job.steps)
    sides = []
    for number in range(arguments.rounds):
        one = measured(lambda: ours(job, encoder), job.device)
        other = measured(lambda: peer(job, folder, workers=arguments.workers), job.device)
        sides.append((one, other))
        pairs = job.batch * job.steps
        print(f"round {number}: ours {pairs / one[0]:,.0f}/s, peer {pairs / other[0]:,.0f}/s")
    return sides


def report(
    arguments: argparse.Namespace, job: Job, target: float, shape: Shape, sides: list[Any]
) -> Row:
    """Print what was found, and return the row."""
    examples = job.batch * job.steps
    ratios = [other[0] / one[0] for one, other in sides]
    best = [statistics.median(examples / side[n][0] for side in sides) for n in (0, 1)]
    memory = [max(side[n][1] or 0 for side in sides) for n in (0, 1)]
    rate = best[0] * job.tokens * shape.layer_parameters * 6
    unit = "triplets/s" if job.work == "triplet" else "pairs/s"
    print(
        f"{job.work}, {arguments.shape}, batch {job.batch}: ours {best[0]:,.0f} {unit}, peer "
        f"{best[1]:,.0f}: ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}), target {target:g}; ours {rate / 1e12:.1f} TFLOP/s in the "
        f"layers' matrices; memory {memory[0] / 2**30:.1f} and {memory[1] / 2**30:.1f} GiB"
    )
    return Row(
        work=f"{job.work}, {arguments.shape} shape, {arguments.precision}, batch {job.batch}",
        against=f"sentence-transformers ({'Trainer' if has_trainer() else 'bare loop'})",
        target=target,
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        ours=best[0],
        theirs=best[1],
        unit=unit,
        peak_memory=memory[0] or None,
    )


if __name__ == "__main__":
    main()
