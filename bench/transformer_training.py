"""Training a transformer: our loop against the Trainer of sentence-transformers on the same work.

Both train the same weights (XLM-R's architecture, made weights, no dropout) on the same texts, all
different, with the same loss: questions of 16 tokens, passages of 152. With ``--pairs xquad`` texts
are made, too, but as long as XQuAD's, each as often as it is there: questions in eleven languages
with the English passages that answer them, 240 for all, and any other passages as negatives. Ours
then encodes a text once that comes several times in a batch. The peer runs at its best:
fused AdamW, bfloat16, loader workers, nothing logged or saved, teacher vectors in a tensor. Where
`datasets` is not installed its Trainer cannot run, and its model, collator and loss run in a bare
loop, which is faster than the Trainer (`--peer loop` asks for it); the output says which. Ours is
the loop of a run, with the vocabulary of the texts alone. The peer's profile is printed. A round of
a few steps of both sides goes before those that count: a process loads its kernels in it.

The peer pads its texts, as it does out of the box. With `--peer-attention unpadded` it computes
them unpadded, as it does where the package flash-attn is installed; the kernel is PyTorch's own
FlashAttention 2 (`torch_flash.py`; CUDA and bfloat16).

    python bench/transformer_training.py --device cuda --job transfer,256,15,4 \
        --job transfer,16,60,3 --job contrastive,256,15,3.5 --job triplet,256,15,3.5 --row rows.json
    python bench/transformer_training.py --device cuda --peer-attention unpadded \
        --job transfer,256,15,1.3 --row unpadded.json
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch.nn import functional

from clrelkt.corpora import load_corpus
from clrelkt.encoders import TextKind, load_encoder
from clrelkt.encoders.ragged import to_device
from clrelkt.encoders.transformer.encoder import TransformerEncoder, TransformerNetwork
from clrelkt.objectives import TransferWeights, transfer_loss, triplet_loss
from clrelkt.training.bank import TextBank
from clrelkt.training.device import choose_device, matrix_precision
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.process_group import ProcessGroup
from clrelkt.training.recipe import DevSettings, Optimisation, Stage, Transfer
from harness import DisagreementError
from kernel_times import show_kernels
from made_transformer import (
    MAX_LENGTH,
    SHAPES,
    MadeTexts,
    Shape,
    made_words,
    save_made_model,
)
from rows import Row, write_rows
from torch_flash import IMPLEMENTATION, TorchFlash

Work = Literal["transfer", "contrastive", "triplet"]

QUESTION, PASSAGE = 16, 152
WEIGHTS = TransferWeights(question=1.0, document=1.0, document_question=1.0, scale=1000.0)
MARGIN, TEMPERATURE, RATE = 0.24, 0.05, 2e-5
WARM_UP, GPU_WARM_UP = 8, 24
FEW = 3
MEASURED_BATCHES = 4
ENDLESS = 10**9
# The most that losses may differ by (relatively), and vectors by (as a share of their spread). In
# bfloat16 with XLM-R-base's shape losses were seen to differ by up to .003 and vectors by .024;
# wrong positions bring vectors to .65, attention across texts to 1.4. On a GPU float32 products may
# keep 11 bits, two or three more than bfloat16.
DIFFERENCES = (2e-3, 2e-2)
LOW_DIFFERENCES = (2e-2, 1e-1)


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
    tokens: float
    """Tokens of an example that are different texts' of its batch, on average."""

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
    def warm_up(self) -> int:
        """Steps before the clock."""
        return warm_up(self.device)


def warm_up(device: torch.device) -> int:
    """Return the steps before the clock; on a GPU batches are recorded by their size."""
    return GPU_WARM_UP if device.type == "cuda" else WARM_UP


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
        if self._done == self._job.warm_up:
            self._wait()
            self._began = time.perf_counter()
        if self._done == self._job.warm_up + self._job.steps:
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
    questions, passages = (
        list(dict.fromkeys(text for own in columns for text in own))
        for columns in (job.columns[:1], job.columns[1:])
    )
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


@dataclass(frozen=True)
class Peer:
    """How sentence-transformers runs; ``flash`` are the kernels of unpadded attention, if it is."""

    trainer: bool
    workers: int
    flash: TorchFlash | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        way = "Trainer" if self.trainer else "bare loop"
        if self.flash is not None:
            version = torch.__version__.split("+")[0]
            way += f", unpadded attention by FlashAttention 2 of PyTorch {version}"
        return f"sentence-transformers ({way})"


def sentence_transformer(
    folder: Path, device: torch.device, flash: TorchFlash | None = None
) -> Any:
    """Return the model; with ``flash``, which must be registered, its texts are not padded."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    if flash is None:
        transformer = Transformer(str(folder))
    else:
        asked = {"attn_implementation": IMPLEMENTATION}
        transformer = Transformer(str(folder), model_kwargs=asked, unpad_inputs=True)
        if not transformer.can_flatten_inputs:
            raise DisagreementError("sentence-transformers does not unpad this model's texts")
    width = transformer.get_embedding_dimension()
    modules = [transformer, Pooling(width, "mean"), Normalize()]
    return SentenceTransformer(modules=modules, device=str(device))


def has_trainer() -> bool:
    try:
        import datasets  # noqa: F401
    except ImportError:
        return False
    return True


def features_on(device: torch.device, features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the peer's features on the device; lengths of unpadded texts are plain numbers."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in features.items()
    }


def peer(job: Job, folder: Path, how: Peer, *, profiled: bool = False) -> float:
    """Return the seconds of the steps that count.

    Raises:
        DisagreementError: attention that was to be unpadded was not.
    """
    model = sentence_transformer(folder, job.device, how.flash)
    clock = Clock(job)
    run = _trainer if how.trainer else _bare_loop
    if how.flash is not None:
        how.flash.forget()
    if profiled:
        _profile(lambda: run(job, model, clock, how.workers), job.device)
    else:
        run(job, model, clock, how.workers)
    if how.flash is not None:
        encodings = (job.warm_up + job.steps) * len(job.columns)
        expected = encodings * model[0].config.num_hidden_layers
        print(f"peer computed with {how.flash.report(expected)}")
    return clock.seconds


def _profile(work: Callable[[], None], device: torch.device) -> None:
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as found:
        work()
    by = "self_device_time_total" if cuda else "self_cpu_time_total"
    print("the peer's profile:")
    print(found.key_averages().table(sort_by=by, row_limit=12, max_name_column_width=50))


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
    rows = len(job.columns[0])
    columns: dict[str, Any] = dict(zip(names, job.columns, strict=True))
    if job.work == "transfer":
        columns["label"] = list(range(rows))
    table = InMemoryTable.from_pydict(columns)
    data = datasets.Dataset(table, fingerprint=f"made-{job.work}-{rows}")
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=job.batch,
            max_steps=job.warm_up + job.steps,
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
    loader: Any = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=job.batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=collated,
        pin_memory=job.device.type == "cuda",
    )
    for features, labels in loader:
        moved = [features_on(job.device, own) for own in features]
        with torch.autocast(job.device.type, torch.bfloat16, enabled=job.low):
            value = loss(moved, labels.to(job.device, non_blocking=True))
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        clock.tick()


def check_same(
    job: Job, encoder: TransformerEncoder, folder: Path, flash: TorchFlash | None = None
) -> tuple[float, float]:
    """Return the relative differences of the losses and of the vectors of the first pairs.

    What vectors differ by is divided by what the texts' vectors differ from their mean: made
    weights bring all texts near to each other, and the loss of a transfer that has not begun is
    nearly the same with any vectors. In float32, but in bfloat16 where the peer has ``flash``,
    whose kernels take 16 bits only.

    Raises:
        DisagreementError: one is too large.
    """
    count = min(8, job.batch)
    rows = torch.arange(count, device=job.device)
    kinds: tuple[TextKind, ...] = ("question", "passage", "passage")
    low = flash is not None
    with torch.no_grad(), torch.autocast(job.device.type, torch.bfloat16, enabled=low):
        vectors = [
            encoder(encoder.tokenize(own[:count], kind).to(job.device)).float()
            for own, kind in zip(job.columns, kinds, strict=False)
        ]
        found = float(job.loss(tuple(vectors), rows))
        model = sentence_transformer(folder, job.device, flash).eval()
        features = [features_on(job.device, model.preprocess(own[:count])) for own in job.columns]
        theirs = [model(dict(own))["sentence_embedding"].float() for own in features]
        expected = float(peer_loss(model, job)(features, rows))
    # A loss may be nearly nothing.
    loss = abs(found - expected) / max(abs(expected), 1e-2)
    apart = max(
        float((one - other).norm() / (other - other.mean(0)).norm())
        for one, other in zip(vectors, theirs, strict=True)
    )
    most = LOW_DIFFERENCES if low else DIFFERENCES
    if loss > most[0]:
        raise DisagreementError(f"our loss is {found}, the peer's {expected}")
    if apart > most[1]:
        raise DisagreementError(f"our vectors and the peer's differ by {apart:.1e} of their spread")
    return loss, apart


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


def made_columns(work: Work, count: int, words: list[str]) -> tuple[list[str], ...]:
    """Return the columns of ``count`` examples of texts that are all different."""
    texts = MadeTexts(words)
    lengths = (QUESTION, PASSAGE, PASSAGE)[: 3 if work == "triplet" else 2]
    return tuple(texts.draw(count, length) for length in lengths)


def xquad_columns(work: Work, count: int, words: list[str]) -> tuple[list[str], ...]:
    """Return the same with texts as long as XQuAD's, each where it stands there.

    Lengths are counted by mUSE's tokenizer, whose pieces are much like XLM-R's.
    """
    corpus = load_corpus("xquad")
    asked = [question for question in corpus.questions if question.language != "en"]
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(asked)) for _ in range(-(-count // len(asked)))])
    chosen = [asked[number] for number in order[:count]]
    golds = [corpus.passage_by_id[question.passage_id or ""].text for question in chosen]
    columns = [[question.text for question in chosen], golds]
    if work == "triplet":
        others = sorted({passage.text for passage in corpus.passage_by_id.values()})
        drawn = [others[number] for number in rng.integers(0, len(others), count)]
        place = {text: number for number, text in enumerate(others)}
        # A gold passage drawn as its own negative gives way to the next one.
        columns.append(
            [
                others[place[own] - 1] if own == gold else own
                for own, gold in zip(drawn, golds, strict=True)
            ]
        )
    distinct = list(dict.fromkeys(text for column in columns for text in column))
    lengths = load_encoder("muse").tokenize(distinct).lengths.numpy()
    made = MadeTexts(words).of(lengths.clip(max=MAX_LENGTH - 2))
    stands_for = dict(zip(distinct, made, strict=True))
    return tuple([stands_for[text] for text in column] for column in columns)


def tokens_to_encode(
    columns: tuple[list[str], ...], batch: int, encoder: TransformerEncoder
) -> float:
    """Return how many tokens an example has that are different texts' of its batch, on average."""
    few = min(len(columns[0]) // batch, MEASURED_BATCHES)
    texts = [
        text
        for start in range(0, few * batch, batch)
        for text in {text for column in columns for text in column[start : start + batch]}
    ]
    return encoder.tokenize(texts).tokens / (few * batch)


def made_job(
    asked: Task, arguments: argparse.Namespace, shape: Shape, encoder: TransformerEncoder
) -> Job:
    count = asked.batch * (warm_up(encoder.device) + asked.steps)
    make = xquad_columns if arguments.pairs == "xquad" else made_columns
    columns = make(asked.work, count, made_words(arguments.rows))
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
        tokens_to_encode(columns, asked.batch, encoder),
    )


def measured(work: Callable[[], float], device: torch.device) -> tuple[float, int | None]:
    """Return the seconds of a side and the peak of its memory, in bytes; None: not known here."""
    gc.collect()
    if device.type != "cuda":
        before = resident_memory("VmRSS")
        forget_peak()
        seconds = work()
        peak = resident_memory("VmHWM")
        return seconds, None if before is None or peak is None else peak - before
    torch.cuda.empty_cache()
    allocated = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = work()
    return seconds, torch.cuda.max_memory_allocated() - allocated


def resident_memory(kind: str) -> int | None:
    """Return the bytes of this process in the memory, by Linux: now (VmRSS), at most (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:")]
    return found[0] if found else None


def forget_peak() -> None:
    """Let Linux count the most memory anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


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
    parser.add_argument(
        "--pairs",
        choices=["made", "xquad"],
        default="made",
        help="made: all texts different; xquad: as long and as often as in XQuAD",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument(
        "--peer",
        choices=["trainer", "loop"],
        help="run the peer in its Trainer (the default where datasets is installed) or a bare loop",
    )
    parser.add_argument(
        "--peer-attention",
        choices=["padded", "unpadded"],
        default="padded",
        help="unpadded: by PyTorch's FlashAttention 2, on CUDA in bfloat16",
    )
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
    try:
        how = asked_peer(arguments, device)
    except ValueError as error:
        parser.error(str(error))
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(matrix_precision(device))
        if how.flash is not None:
            stack.enter_context(how.flash.registered())
        folder = save_made_model(Path(scratch) / "model", shape, arguments.rows)
        encoder = load_encoder(folder).to(device)
        assert isinstance(encoder, TransformerEncoder)
        print(f"the peer is {how.name}")
        rows = []
        for asked in arguments.job or [task("transfer,256,15,4")]:
            job = made_job(asked, arguments, shape, encoder)
            try:
                sides = compare(job, encoder, folder, how, arguments)
            except DisagreementError as error:
                sys.exit(f"error: {error}")
            if not sides:
                continue
            rows.append(report(arguments, job, asked.target, shape, how, sides))
            # A job that fails must not take with it what was measured before.
            if arguments.row:
                write_rows(arguments.row, rows)


def asked_peer(arguments: argparse.Namespace, device: torch.device) -> Peer:
    """Return how the peer is to run.

    Raises:
        ValueError: it cannot run so here.
    """
    trainer = arguments.peer == "trainer" or (arguments.peer is None and has_trainer())
    if trainer and not has_trainer():
        raise ValueError("--peer trainer needs datasets: pip install 'clrelkt[bench]'")
    if arguments.peer_attention == "padded":
        return Peer(trainer, arguments.workers)
    if device.type != "cuda" or arguments.precision != "bfloat16":
        raise ValueError(
            "--peer-attention unpadded needs --device cuda and --precision bfloat16, which the "
            f"flash kernels compute in; here are {device.type} and {arguments.precision}"
        )
    from torch.nn.attention.varlen import varlen_attn

    return Peer(trainer, arguments.workers, TorchFlash(cast("Any", varlen_attn)))


def shortened(job: Job, steps: int) -> Job:
    """Return the first steps of a job."""
    count = job.batch * (job.warm_up + steps)
    return replace(
        job,
        steps=steps,
        columns=tuple(own[:count] for own in job.columns),
        teacher=tuple(own[:count] for own in job.teacher),
    )


def compare(
    job: Job, encoder: TransformerEncoder, folder: Path, how: Peer, arguments: argparse.Namespace
) -> list[Any]:
    """Return seconds and peak memory of both sides, round by round.

    Raises:
        DisagreementError: the sides do not compute the same.
    """
    loss, vectors = check_same(job, encoder, folder, how.flash)
    print(
        f"{job.work}, batch {job.batch}: before training losses differ by {loss:.1e}, vectors by "
        f"{vectors:.1e} of their spread"
    )
    few = shortened(job, FEW)
    if not arguments.no_profile:
        peer(few, folder, how, profiled=True)
    if arguments.profile_ours:
        ours(job, encoder)
        show_kernels(lambda: ours(job, encoder), job.warm_up + job.steps)
    if arguments.rounds:
        # A process loads kernels of new shapes the first time that they are met.
        print(f"a round of {job.warm_up + FEW} steps that does not count")
        ours(few, encoder)
        peer(few, folder, how)
    sides = []
    for number in range(arguments.rounds):
        one = measured(lambda: ours(job, encoder), job.device)
        other = measured(lambda: peer(job, folder, how), job.device)
        sides.append((one, other))
        pairs = job.batch * job.steps
        print(f"round {number}: ours {pairs / one[0]:,.0f}/s, peer {pairs / other[0]:,.0f}/s")
    return sides


def report(
    arguments: argparse.Namespace,
    job: Job,
    target: float,
    shape: Shape,
    how: Peer,
    sides: list[Any],
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
    work = f"{job.work}, {arguments.shape} shape, {arguments.precision}, batch {job.batch}"
    if arguments.pairs == "xquad":
        work += ", XQuAD's pairs"
    return Row(
        work=work if how.flash is None else f"{work}, the peer unpadded",
        against=how.name,
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
