"""Several GPUs against one: training, encoding and dense mining, in one run.

    python bench/gpus.py --gpus 2 --row gpus-2.json
    python bench/gpus.py --gpus 2 --encoder muse --work contrastive --parts training

Training is the loop of a run, a process a GPU, on pairs of a question of 16 tokens and a passage of
152, all different: on one GPU with a batch of ``--batch`` pairs, on all with the same batch in all
(``same batch``) and with the same batch on each (``same a GPU``). Beside that stands what one GPU
does with a batch of its share alone: where this is slower a pair, no exchange is to blame. All
processes start once; the others wait on the host while the first one works alone. Steps are timed
after an epoch that warms up, from a barrier to a barrier. Losses of the same batches must agree.

Encoding is an encoder with a copy on each GPU in one process (``MultiDeviceEncoder``) against one
copy; the part ``processes`` is the same with a process a GPU. Dense mining deals chunks of
questions to all GPUs, and must find the same. A part that fails is named, and the rest goes on;
rows are written as they come. With ``--device cpu --shape tiny`` two processes or threads share the
CPU: a check, no measurement.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from clrelkt.corpora import load_corpus
from clrelkt.encoders import TrainableEncoder, load_encoder
from clrelkt.encoders.devices import MultiDeviceEncoder
from clrelkt.encoders.transformer import layer_passes
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.encoders.triton_kernels import on_device
from clrelkt.errors import ClrelktError
from clrelkt.files import write_json
from clrelkt.mining import DenseMining, LargeMiner
from clrelkt.mining.chunks import ChunkFolder, Work
from clrelkt.mining.large import full_precision
from clrelkt.training import gradients
from clrelkt.training.bank import TextBank
from clrelkt.training.device import choose_devices, matrix_precision
from clrelkt.training.launch import end_process
from clrelkt.training.loop import Surroundings, train_stage
from clrelkt.training.process_group import ProcessGroup, process_group
from clrelkt.training.recipe import DevSettings, Optimisation, Precision, Stage, Transfer
from harness import DisagreementError
from kernel_times import gpu_gaps, gpu_shares
from made_transformer import SHAPES, MadeTexts, made_words, save_made_model
from rows import Row, write_rows
from transformer_training import PASSAGE, QUESTION, RATE, WEIGHTS, Job, Method

TARGETS = {2: 1.9, 4: 3.6}
PARTS = ("training", "processes", "encoding", "mining")
STEPS_AN_EPOCH = 24
PART_SECONDS = 15.0
GAPS = 6
ENDLESS = 10**9
LOOSEST = {"bfloat16": 2e-2, "float32": 2e-3}
LOOSEST_WEIGHTS = 0.1
"""Losses of a few steps hardly tell whether gradients were added up: weights do."""

NEAREST = DenseMining(hard=1, semi_hard=1, margin=0.24, choose="nearest")


@dataclass(frozen=True)
class Clock:
    """How long everything has taken so far."""

    seconds: float
    started: float = field(default_factory=time.time)

    @property
    def left(self) -> float:
        """Seconds that there are still."""
        return self.seconds - (time.time() - self.started)

    def say(self, text: str) -> None:
        """Print a line with the time."""
        print(f"{time.time() - self.started:6.1f} s  {text}", flush=True)


# ---------------------------------------------------------------- what is worked on


def words_of(arguments: argparse.Namespace) -> list[str]:
    if arguments.encoder is None:
        return made_words(arguments.rows)
    corpus = load_corpus("bundled")
    texts = " ".join(passage.text for passage in corpus.passage_by_id.values())
    return list(dict.fromkeys(texts.split()))


def encoder_of(arguments: argparse.Namespace) -> TrainableEncoder:
    return load_encoder(arguments.encoder or arguments.model)


def computing_low(encoder: Any, low: bool) -> Any:
    """Return a context in which ``encoder`` encodes in 16 bits, if ``low``, as is quickest."""
    if isinstance(encoder, TransformerEncoder):
        encoder.compute_dtype = torch.bfloat16 if low else torch.float32
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16) if low else nullcontext()


def texts_to_encode(arguments: argparse.Namespace, count: int) -> list[str]:
    made = MadeTexts(words_of(arguments), seed=7)
    texts = made.draw(count // 2, QUESTION) + made.draw(count // 2, PASSAGE)
    return [texts[place] for place in np.random.default_rng(1).permutation(len(texts))]


def wait_for(devices: list[torch.device]) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def forget_peak(devices: list[torch.device]) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)


def peak_memory(devices: list[torch.device]) -> int | None:
    """Return the most bytes of tensors on one of the devices; None on a CPU."""
    found = [torch.cuda.max_memory_allocated(own) for own in devices if own.type == "cuda"]
    return max(found, default=None)


def timed(work: Callable[[], object], devices: list[torch.device]) -> float:
    wait_for(devices)
    start = time.perf_counter()
    work()
    wait_for(devices)
    return time.perf_counter() - start


# ---------------------------------------------------------------- training, in each process


@dataclass
class Watch:
    """When the steps that count begin and end: all processes are there, and their GPUs done."""

    warm: int
    group: ProcessGroup
    profiler: profile | None = None
    began: float = 0.0
    seconds: float = 0.0

    def __call__(self, step: int, steps: int, best: float | None) -> None:
        """Take note of a step's end."""
        if step not in (self.warm, steps):
            return
        self.group.wait()
        wait_for([self.group.device])
        moment = time.perf_counter()
        if step == self.warm:
            if self.profiler is not None:
                self.profiler.start()
            self.began = time.perf_counter()
        if step == steps:
            self.seconds = moment - self.began
            if self.profiler is not None:
                self.profiler.stop()


class Noted(Method):
    """The stage's method with the first pairs alone, which keeps the loss of every step."""

    def __init__(self, job: Job, bank: TextBank, pairs: int) -> None:
        super().__init__(job, bank)
        self._examples = self._examples[:pairs]
        self.losses: list[torch.Tensor] = []

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        """Return the loss of a batch."""
        value = super().loss(vectors, examples)
        self.losses.append(value.detach())
        return value


@dataclass(frozen=True)
class Trainer:
    """Trains the same encoder from the same start again and again."""

    job: Job
    base: TrainableEncoder
    token_ids: torch.Tensor
    bank: TextBank

    @classmethod
    def made(cls, arguments: argparse.Namespace, group: ProcessGroup) -> Trainer:
        """Make an encoder, pairs and a teacher's vectors, the same in each process."""
        pairs = arguments.batch * STEPS_AN_EPOCH * group.size
        made = MadeTexts(words_of(arguments))
        columns = (made.draw(pairs, QUESTION), made.draw(pairs, PASSAGE))
        base = encoder_of(arguments)
        torch.manual_seed(0)
        drawn = torch.randn(2, pairs, base.dimension).to(group.device)
        teacher = tuple(torch.nn.functional.normalize(drawn, dim=2).unbind(0))
        tokens = float(QUESTION + PASSAGE)
        job = Job(arguments.work, arguments.batch, 0, group.device, True, columns, teacher, tokens)
        token_ids = TextBank.token_ids(base, *columns)
        return cls(job, base, token_ids, TextBank(*columns, base.compact(token_ids), group))

    def start(self) -> TrainableEncoder:
        """Return the encoder that every training begins with."""
        return self.base.compact(self.token_ids)

    def __call__(
        self,
        group: ProcessGroup,
        batch: int,
        epochs: int,
        precision: Precision = "bfloat16",
        trained: Callable[[TrainableEncoder], None] = lambda encoder: None,
        profiler: profile | None = None,
    ) -> dict[str, Any]:
        """Train an epoch to warm up and ``epochs`` that count, which the profiler sees.

        Of a single epoch the second half counts. ``trained`` is given the result.
        """
        encoder = self.start().to(group.device)
        method = Noted(self.job, self.bank, batch * STEPS_AN_EPOCH)
        warm = STEPS_AN_EPOCH if epochs else STEPS_AN_EPOCH // 2
        steps = STEPS_AN_EPOCH * (1 + epochs) - warm
        watch = Watch(warm, group, profiler)
        optimisation = Optimisation(
            epochs=1 + epochs, batch=batch, learning_rate=RATE, precision=precision
        )
        never = DevSettings(patience=ENDLESS, every_steps=ENDLESS)
        around = Surroundings(
            number=0,
            seed=0,
            log=lambda record: 0,
            save=lambda checkpoint: None,
            tick=watch,
            checkpoint_seconds=ENDLESS,
            group=group,
        )
        nothing = SimpleNamespace(mean=SimpleNamespace(hit_rate_at_1=0.0), languages={})
        forget_peak([group.device])
        train_stage(
            Stage("bench", Transfer(WEIGHTS), optimisation, never),
            encoder,
            method,
            self.bank,
            lambda encoder, encode: nothing,  # type: ignore[arg-type]
            around,
        )
        trained(encoder)
        return {
            "seconds_a_step": watch.seconds / steps,
            "pairs_per_second": steps * batch / watch.seconds,
            "losses": torch.stack(method.losses).tolist(),
            "numbers": sum(parameter.numel() for _, parameter in encoder.named_parameters()),
            "peak_memory": peak_memory([group.device]),
        }


def numbers_of(encoder: TrainableEncoder) -> torch.Tensor:
    """Return all parameters in a row, on the host."""
    return torch.cat([p.detach().flatten().float().cpu() for _, p in encoder.named_parameters()])


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Together:
    """The processes, which wait for each other at a file while the first one works alone.

    A barrier of the group would keep the other GPUs busy.
    """

    group: ProcessGroup
    folder: Path
    clock: Clock
    times: Iterator[int] = field(default_factory=itertools.count)

    def alone(self, work: Callable[[ProcessGroup], Any]) -> Any:
        """Return what ``work`` gives in the first process, a JSON value."""
        file = self.folder / f"alone-{next(self.times)}.json"
        if self.group.first:
            write_json(file, work(ProcessGroup(device=self.group.device)))
        while not file.exists():
            time.sleep(0.005)
        free()
        return json.loads(file.read_text("utf-8"))

    def all(self, work: Callable[[ProcessGroup], Any]) -> Any:
        """Return what ``work`` gives in each process."""
        self.group.wait()
        found = work(self.group)
        free()
        return found

    def say(self, text: str) -> None:
        """Print a line, once."""
        if self.group.first:
            self.clock.say(text)


def worker(arguments: argparse.Namespace) -> None:
    """Measure in one of the processes; the first one writes what was found, as it is found."""
    clock = Clock(arguments.seconds, arguments.started)
    with process_group(arguments.device) as group, matrix_precision(group.device):
        group.wait()
        together = Together(group, arguments.worker.parent, clock)
        together.say(f"{group.size} processes are there")
        found: dict[str, Any] = {}

        def keep(name: str, value: Any) -> None:
            found[name] = value
            if group.first:
                write_json(arguments.worker, found)

        if "training" in arguments.parts:
            measure_training(arguments, together, keep)
        if "processes" in arguments.parts:
            measure_processes(arguments, together, keep)


def measure_training(
    arguments: argparse.Namespace, together: Together, keep: Callable[[str, Any], None]
) -> None:
    group, batch = together.group, arguments.batch
    trainer = Trainer.made(arguments, group)
    together.say(f"{len(trainer.bank):,} texts, {trainer.bank.lengths.mean():.0f} tokens each")
    # Kernels are compiled and tried out, on each GPU.
    first = together.all(lambda group: trainer(replace(group, rank=0, size=1), batch, 0))
    step = together.alone(lambda _: first["seconds_a_step"])
    epochs = max(1, round(arguments.seconds * arguments.share / (step * STEPS_AN_EPOCH)))
    together.say(f"a step takes {step * 1e3:.1f} ms alone; {epochs} epochs of {STEPS_AN_EPOCH}")

    def run(name: str, batch: int, alone: bool, epochs: int = epochs, **how: Any) -> dict[str, Any]:
        where = together.alone if alone else together.all
        found: dict[str, Any] = where(lambda group: trainer(group, batch, epochs, **how))
        keep(name, found | {"batch": batch})
        together.say(
            f"{name}: batch {batch}, {found['pairs_per_second']:,.0f} pairs/s, "
            f"{found['seconds_a_step'] * 1e3:.1f} ms a step, "
            f"{(found['peak_memory'] or 0) / 2**30:.1f} GiB"
        )
        return found

    def is_time(runs: int) -> bool:
        """Whether the first process has time for so many more runs; all hear the same."""
        found = bool(group.same(together.clock.left - after(arguments) > runs * longest))
        if not found:
            together.say("the rest of training is left out for want of time")
        return found

    def profiled() -> None:
        """Say what each GPU does while all train, and how long each one takes by itself."""
        own = together.all(lambda group: trainer(replace(group, rank=0, size=1), batch, 1))
        seen = profile(activities=[ProfilerActivity.CUDA])
        found = together.all(lambda group: trainer(group, batch * group.size, 1, profiler=seen))
        shares = gpu_shares(seen)
        together.clock.say(
            f"GPU {group.rank}: {own['seconds_a_step'] * 1e3:.1f} ms a step while each trains by "
            f"itself; together {found['seconds_a_step'] * 1e3:.1f}: computing "
            f"{shares.computing / STEPS_AN_EPOCH:.1f}, exchanging "
            f"{shares.exchanging / STEPS_AN_EPOCH:.1f}, both {shares.both / STEPS_AN_EPOCH:.1f}, "
            f"neither {shares.neither / STEPS_AN_EPOCH:.1f}"
        )
        for milliseconds, times, name in gpu_gaps(seen)[:GAPS]:
            together.clock.say(
                f"GPU {group.rank}: idle for {milliseconds / STEPS_AN_EPOCH:.2f} ms a step, "
                f"{times / STEPS_AN_EPOCH:.1f} times, {name}"
            )

    def one_round(number: int) -> None:
        run(f"alone/{number}", batch, alone=True)
        run(f"same batch/{number}", batch, alone=False)
        run(f"same a GPU/{number}", batch * group.size, alone=False)

    began = time.time()
    one_round(0)
    longest = (time.time() - began) / 2
    if not is_time(2):
        return
    weights = [numbers_of(trainer.start())] if group.first else []
    again = partial(
        run,
        batch=batch,
        epochs=0,
        precision="float32",
        trained=lambda encoder: weights.append(numbers_of(encoder)) if group.first else None,
    )
    again("float32 alone", alone=True)
    again("float32 together", alone=False)
    if group.first:
        start, alone, several = weights
        keep("weights", float((alone - several).norm() / (alone - start).norm()))
    if arguments.profile and group.device.type == "cuda" and is_time(2):
        profiled()
    if not is_time(1):
        return
    run("a share alone", batch // group.size, alone=True, epochs=1)
    for number in range(1, arguments.rounds):
        if not is_time(3):
            return
        one_round(number)
    before = gradients._BUCKET_NUMBERS
    for numbers in arguments.buckets:
        if not is_time(1):
            return
        gradients._BUCKET_NUMBERS = numbers
        run(f"buckets of {numbers}", batch * group.size, alone=False)
    gradients._BUCKET_NUMBERS = before
    for layers in arguments.layers:
        if not is_time(2):
            return
        layer_passes._AT_ONCE = layers
        run(f"{layers} layers at once, alone", batch, alone=True)
        run(f"{layers} layers at once, together", batch * group.size, alone=False)


def after(arguments: argparse.Namespace) -> float:
    """Return the seconds that what comes after training may take."""
    return 5.0 + PART_SECONDS * len({"encoding", "mining"} & {*arguments.parts})


def measure_processes(
    arguments: argparse.Namespace, together: Together, keep: Callable[[str, Any], None]
) -> None:
    """Measure encoding with a process a GPU, each with its share of the texts."""
    group = together.group
    encoder = encoder_of(arguments).to(group.device)
    texts = texts_to_encode(arguments, arguments.texts // 2)
    with computing_low(encoder, group.device.type == "cuda"):
        # All words are met before the clock starts.
        encoder.encode(texts)
        alone = together.alone(lambda own: timed(lambda: encoder.encode(texts), [own.device]))

        def shared(group: ProcessGroup) -> float:
            def work() -> None:
                encoder.encode(texts[group.rank :: group.size])
                group.wait()

            return timed(work, [group.device])

        several = together.all(shared)
    keep("processes", {"alone": alone, "together": several, "texts": len(texts)})
    together.say(
        f"encoding, a process a GPU: {len(texts) / several:,.0f} texts/s against "
        f"{len(texts) / alone:,.0f}, ratio {alone / several:.2f}"
    )


# ---------------------------------------------------------------- encoding and mining, in one


@dataclass(frozen=True)
class Bench:
    """What is known so far."""

    arguments: argparse.Namespace
    devices: list[torch.device]
    clock: Clock
    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def alone(self) -> str:
        """What one device is called."""
        return "1 GPU" if self.devices[0].type == "cuda" else "1 on the CPU"

    @property
    def several(self) -> str:
        """What all are called."""
        kind = "GPUs" if self.devices[0].type == "cuda" else "on the CPU"
        return f"{len(self.devices)} {kind}"

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Name a part that fails, and let the rest go on."""
        try:
            yield
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            self.failed.append(name)
            self.clock.say(f"{name} FAILED: {type(error).__name__}: {str(error)[:300]}")

    def add(
        self,
        work: str,
        rates: list[tuple[float, float]],
        unit: str,
        *,
        against: str = "",
        memory: int | None = None,
    ) -> None:
        """Add a row; ``rates`` are those of all devices and of one, a pair a round."""
        ratios = [many / one for many, one in rates]
        many, one = (statistics.median(side) for side in zip(*rates, strict=True))
        row = Row(
            work=f"{self.several}, {work}",
            against=f"{self.alone}{against}",
            target=TARGETS.get(len(self.devices), len(self.devices) * 0.9),
            ratio=statistics.median(ratios),
            spread=(min(ratios), max(ratios)),
            ours=many,
            theirs=one,
            unit=unit,
            peak_memory=memory,
        )
        self.rows.append(row)
        reached = "reached" if row.ratio >= row.target else "missed"
        self.clock.say(
            f"RATIO {row.ratio:.2f} ({row.spread[0]:.2f} to {row.spread[1]:.2f}), {row.target} "
            f"{reached}: {row.work}, {many:,.0f} {unit} against {one:,.0f}"
        )
        if self.arguments.row:
            write_rows(self.arguments.row, self.rows)


def start_workers(bench: Bench, file: Path) -> subprocess.Popen[bytes]:
    count = len(bench.devices)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), *sys.argv, "--worker", str(file)]
    command += ["--started", str(bench.clock.started)]
    if bench.arguments.model:
        command += ["--model", str(bench.arguments.model)]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    return subprocess.Popen(command, env={"OMP_NUM_THREADS": threads} | dict(os.environ))


def finish_workers(bench: Bench, workers: subprocess.Popen[bytes], file: Path) -> dict[str, Any]:
    """Return what was found, even where the processes failed or took too long."""
    # They watch the clock themselves; a run that does not end must not take what comes after it.
    patience = max(5.0, bench.clock.left - after(bench.arguments) + 5.0)
    with bench.part("the run in several processes"):
        try:
            status = workers.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            workers.terminate()
            workers.wait()
            raise
        if status:
            raise ChildProcessError(f"exit status {status}")
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def report_training(bench: Bench, found: dict[str, Any]) -> None:
    arguments, count = bench.arguments, len(bench.devices)
    name = arguments.encoder or f"{arguments.shape} shape"
    work = f"{arguments.work} of {Path(name).name}, {QUESTION} + {PASSAGE} tokens, bfloat16"
    alone = found["alone/0"]
    check_agreement(bench, found)
    for key, batch in (("same batch", "in all"), ("same a GPU", "a GPU")):
        rates = [
            (own["pairs_per_second"], found[f"alone/{number}"]["pairs_per_second"])
            for number in range(arguments.rounds)
            if (own := found.get(f"{key}/{number}")) is not None
        ]
        if rates:
            bench.add(
                f"{work}, batch {arguments.batch} {batch}",
                rates,
                "pairs/s",
                against=f", batch {arguments.batch}",
                memory=found[f"{key}/0"]["peak_memory"],
            )
    if "a share alone" in found:
        share, many = found["a share alone"], found["same batch/0"]
        most = count * share["pairs_per_second"] / alone["pairs_per_second"]
        waits = many["seconds_a_step"] - share["seconds_a_step"]
        bench.clock.say(
            f"batch {share['batch']} alone {share['seconds_a_step'] * 1e3:.1f} ms a step: without "
            f"any exchange the ratio at the same batch would be {most:.2f}; exchange and waiting "
            f"take {waits * 1e3:.1f} ms of {many['seconds_a_step'] * 1e3:.1f}; gradients are "
            f"{alone['numbers'] * 4 / 1e6:,.0f} MB"
        )
    for key in (key for key in found if key.startswith("buckets of ")):
        ratio = found[key]["pairs_per_second"] / alone["pairs_per_second"]
        bench.clock.say(f"{key} numbers: ratio {ratio:.2f} with the same batch on each GPU")


def check_agreement(bench: Bench, found: dict[str, Any]) -> None:
    """Say how far one and several processes are apart.

    Raises:
        DisagreementError: it is further than rounding explains.
    """
    far = []
    for precision, one, many in (
        ("bfloat16", "alone/0", "same batch/0"),
        ("float32", "float32 alone", "float32 together"),
    ):
        if many in found:
            # Later ones differ by what training has made of the rounding of the first.
            pairs = list(zip(found[one]["losses"], found[many]["losses"], strict=True))[:16]
            apart = [abs(a - b) / max(abs(a), 1e-9) for a, b in pairs]
            far.append(
                (f"losses of {len(pairs)} steps in {precision}", max(apart), LOOSEST[precision])
            )
    if "weights" in found:
        steps = len(found["float32 alone"]["losses"])
        what = f"weights after {steps} steps in float32, as a share of the way that they went"
        far.append((what, found["weights"], LOOSEST_WEIGHTS))
    for what, apart_, allowed in far:
        bench.clock.say(
            f"one process and several: {what}: {apart_:.1e} apart (allowed {allowed:g})"
        )
    wrong = [what for what, apart_, allowed in far if not apart_ <= allowed]
    if wrong:
        raise DisagreementError(f"one process and several do not agree in {'; '.join(wrong)}")


def measure_encoding(bench: Bench, encoder: TrainableEncoder, texts: list[str]) -> None:
    with computing_low(encoder, bench.devices[0].type == "cuda"):
        several = MultiDeviceEncoder(encoder, bench.devices)
        alone = several.copies[0]
        # All words, which the copies share, are met before the clock starts.
        for own in several.copies:
            own.encode(texts)
        bench.clock.say(f"encoding {len(texts):,} texts")
        forget_peak(bench.devices)
        vectors: list[np.ndarray] = []
        rates: list[tuple[float, float]] = []
        seconds = [0.0, 0.0]
        others = PART_SECONDS if "mining" in bench.arguments.parts else 3
        while not rates or (len(rates) < 3 and bench.clock.left > others + sum(seconds)):
            seconds = [
                timed(lambda own=own: vectors.append(own.encode(texts)), bench.devices)  # type: ignore[misc]
                for own in (several, alone)
            ]
            rates.append((len(texts) / seconds[0], len(texts) / seconds[1]))
        cosines = (vectors[0] * vectors[1]).sum(axis=1)
        bench.clock.say(f"least cosine of the vectors of both ways: {cosines.min():.5f}")
        if cosines.min() < 0.99:
            raise ArithmeticError("the vectors differ")
        name = bench.arguments.encoder or f"{bench.arguments.shape} shape"
        bench.add(
            f"encoding with {Path(name).name}, {QUESTION} or {PASSAGE} tokens, tokenising included",
            rates,
            "texts/s",
            memory=peak_memory(bench.devices),
        )
        start = time.perf_counter()
        encoder.tokenize(texts)
        seconds_ = time.perf_counter() - start
        bench.clock.say(f"the tokeniser alone: {len(texts) / seconds_:,.0f} texts/s")
    free()


def measure_mining(bench: Bench, folder: Path) -> None:
    arguments, devices = bench.arguments, bench.devices
    count, dimension, chunk = arguments.candidates, 512, arguments.chunk
    questions = chunk * arguments.chunks
    generator = torch.Generator(devices[0]).manual_seed(0)
    drawn = partial(torch.randn, device=devices[0], generator=generator)
    unit = partial(torch.nn.functional.normalize, dim=1)
    passages = unit(drawn(count, dimension))
    gold = torch.randint(0, count, (questions,), device=devices[0], generator=generator)
    # Cosines of .1 to .7 between a question and its answer.
    cosine = 0.1 + 0.6 * torch.rand(questions, 1, device=devices[0], generator=generator)
    asked = unit(drawn(questions, dimension)).mul_((1 - cosine**2).sqrt())
    asked = unit(asked.addcmul_(passages[gold], cosine))
    on_host = [tensor.cpu().numpy() for tensor in (asked, passages, gold)]
    del passages, gold, cosine, asked
    free()
    bench.clock.say(f"{questions:,} questions and {count:,} passages are made")
    numbers = np.arange(count)

    def chunk_on(device: torch.device) -> Callable[[slice], np.ndarray]:
        with on_device(device):
            miner = LargeMiner(on_host[1], numbers, numbers, NEAREST, 0, device=device)

        def mine(rows: slice) -> np.ndarray:
            with on_device(device):
                return miner.mine(on_host[0][rows], on_host[2][rows], first=rows.start).numpy()

        return mine

    miners: list[Callable[[slice], np.ndarray]] = []
    forget_peak(devices)
    with full_precision(), ThreadPoolExecutor(len(devices)) as pool:
        seconds = timed(lambda: miners.extend(pool.map(chunk_on, devices)), devices)
        bench.clock.say(f"passages are on all {len(devices)} after {seconds:.1f} s")
        for mine in miners:
            mine(slice(0, chunk))
        rates: list[tuple[float, float]] = []
        seconds_: list[float] = []
        while not rates or (len(rates) < 3 and bench.clock.left > 1 + sum(seconds_)):
            found, seconds_ = [], []
            for name, chosen in (("several", miners), ("alone", miners[:1])):
                own = ChunkFolder(folder / f"{name}-{len(rates)}", {}, resume=False)
                work = Work("mining", questions, chunk)
                run = partial(own.compute_side_by_side, work, chosen, lambda done: None)
                seconds_.append(timed(run, devices))
                found.append(own.gathered(work))
            many, one = found
            if not np.array_equal(many, one):
                raise ArithmeticError("several devices found other negatives than one")
            rates.append((questions / seconds_[0], questions / seconds_[1]))
        bench.clock.say(f"several found what one did, {(found[0] >= 0).mean():.2f} of the places")
    bench.add(
        f"dense mining {questions:,} x {count:,} x {dimension}, chunks of {chunk:,}",
        rates,
        "questions/s",
        memory=peak_memory(devices),
    )


def compare(arguments: argparse.Namespace) -> None:
    clock = Clock(arguments.seconds)
    devices = choose_devices(arguments.device, arguments.gpus)
    bench = Bench(arguments, devices, clock)
    with tempfile.TemporaryDirectory() as scratch, matrix_precision(devices[0]):
        if arguments.encoder is None and arguments.parts != ["mining"]:
            model = Path(scratch) / "model"
            arguments.model = save_made_model(model, SHAPES[arguments.shape], arguments.rows)
            clock.say(f"{arguments.shape} shape with {arguments.rows:,} rows is made")
        found: dict[str, Any] = {}
        in_processes = {"training", "processes"} & set(arguments.parts)
        file = Path(scratch) / "found.json"
        workers = start_workers(bench, file) if in_processes else None
        if "encoding" in arguments.parts:
            # Made ready while the processes are at work on the GPUs.
            encoder = encoder_of(arguments)
            texts = texts_to_encode(arguments, arguments.texts)
        if workers is not None:
            found = finish_workers(bench, workers, file)
        if "alone/0" in found:
            with bench.part("training"):
                report_training(bench, found)
        if "encoding" in arguments.parts:
            with bench.part("encoding"):
                measure_encoding(bench, encoder, texts)
        if "mining" in arguments.parts:
            with bench.part("mining"):
                measure_mining(bench, Path(scratch))
    clock.say("done")
    if bench.failed:
        sys.exit(f"error: failed: {', '.join(bench.failed)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="cpu or cuda [default: cuda where there is one]")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=[part for part in PARTS if part != "processes"],
        help="[default: all but processes, which is encoding with a process a GPU]",
    )
    parser.add_argument("--encoder", help="name or folder [default: made weights of --shape]")
    parser.add_argument("--shape", choices=list(SHAPES), default="xlm-r-base")
    parser.add_argument("--rows", type=int, default=64_000, help="of the made vocabulary")
    parser.add_argument("--work", choices=["transfer", "contrastive"], default="transfer")
    parser.add_argument("--batch", type=int, default=256, help="pairs, a multiple of --gpus")
    parser.add_argument("--seconds", type=float, default=75.0, help="for everything")
    parser.add_argument(
        "--share", type=float, default=0.035, help="of these for a training on one GPU"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of training")
    parser.add_argument(
        "--buckets", type=int, nargs="*", default=[], help="try gradient buckets of these sizes too"
    )
    parser.add_argument(
        "--layers", type=int, nargs="*", default=[], help="try so many layers as one function too"
    )
    parser.add_argument(
        "--profile", action="store_true", help="say what each GPU does in a step of all"
    )
    parser.add_argument("--texts", type=int, default=40_000, help="to encode")
    parser.add_argument("--candidates", type=int, default=1_000_000, help="to mine among")
    parser.add_argument(
        "--chunk", type=int, default=65_536, help="questions that are mined at once"
    )
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--row", type=Path, metavar="FILE", help="write the results as rows")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        # What fails is shown with its traceback; the launcher then ends the other processes.
        worker(arguments)
        end_process()
    try:
        compare(arguments)
    except ClrelktError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
