"""Dense mining of up to a million questions against a million passages, against the hardware.

The limit is the rate of the device's own bfloat16 matrix product, measured in the same run: mining
cannot be faster than all its scores are multiplied. On a GPU a screen is first checked against the
plain one; with --tune other screens and cuts are tried before. A variant that fails is named, and
the rest goes on. What was measured so far is in the file of --output at every moment.

    python bench/dense_mining_scale.py --output dense.json --row row.json

Where the time goes, by phase and by kernel, for 131,072 questions against a million passages, and
how it grows with the passages:

    python bench/dense_mining_scale.py --profile
    python bench/dense_mining_scale.py --growth
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from clrelkt.files import write_json
from clrelkt.mining import DenseMining, LargeMiner, large
from clrelkt.mining.large import memory_needed
from clrelkt.mining.screening import Limits, PlainScreen, Screen, low_precision
from clrelkt.mining.selection import Selection
from kernel_times import show_kernels
from phases import Phases
from rows import Row, write_rows

DIMENSION = 512
ROWS = 131_072
NEAREST = DenseMining(hard=1, semi_hard=1, margin=0.24, choose="nearest")
RANDOM = replace(NEAREST, choose="random")
FILTERED = replace(NEAREST, hard=4, semi_hard=4, false_negative_ratio=1.05)
PHASES = (
    "__init__",
    "mine",
    "_rows",
    "_compare_all",
    "_screen_segment",
    "_limits",
    "_allowed",
    "_exact_scores",
    "_weigh",
    "_weigh_lists",
    "_load",
)


@dataclass(slots=True)
class Bench:
    """What is known so far, where it is kept, and how long there is still."""

    device: torch.device
    output: Path | None
    seconds: float
    started: float = field(default_factory=time.perf_counter)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds that the run may still take."""
        return self.seconds - (time.perf_counter() - self.started)

    def note(self, kind: str, **found: Any) -> None:
        """Keep a finding, print it, and write all of them."""
        self.record.setdefault(kind, []).append(found)
        print(
            f"{time.perf_counter() - self.started:6.1f} s  {kind}: {json.dumps(found)}", flush=True
        )
        if self.output:
            write_json(self.output, self.record)

    def attempt(self, kind: str, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Note what ``work`` finds, or that and why it failed; an empty result where it did."""
        if self.left < 5:
            self.note(kind, name=name, skipped="no time left")
            return {}
        try:
            found = work()
        except Exception as error:  # one variant's failure must not end the others
            self.note(kind, name=name, failed=f"{type(error).__name__}: {str(error)[:400]}")
            return {}
        self.note(kind, name=name, **found)
        return found

    def timed(self, work: Callable[[], object]) -> float:
        """Return the seconds that ``work`` takes, the device's own work included."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True, slots=True)
class Data:
    """Random passages, and questions at cosines of .1 to .7 from their answers."""

    questions: torch.Tensor
    passages: torch.Tensor
    gold: torch.Tensor
    document: torch.Tensor

    @classmethod
    def made(cls, asked: int, count: int, device: torch.device, shared: float = 0.0) -> Data:
        """Make vectors; with ``shared`` all lie around one direction, as many encoders' do."""
        generator = torch.Generator(device).manual_seed(0)
        passages = torch.empty((count, DIMENSION), device=device)
        questions = torch.empty((asked, DIMENSION), device=device)
        centre = torch.nn.functional.normalize(
            torch.randn(DIMENSION, generator=generator, device=device), dim=0
        )
        gold = torch.randint(0, count, (asked,), generator=generator, device=device)
        for part in _parts(count):
            drawn = torch.randn(passages[part].shape, generator=generator, device=device)
            drawn = torch.nn.functional.normalize(drawn, dim=1) + shared * centre
            passages[part] = torch.nn.functional.normalize(drawn, dim=1)
        for part in _parts(asked):
            drawn = torch.randn(questions[part].shape, generator=generator, device=device)
            drawn = torch.nn.functional.normalize(drawn, dim=1) + shared * centre
            drawn = torch.nn.functional.normalize(drawn, dim=1)
            near = torch.rand((len(drawn), 1), generator=generator, device=device) * 0.6 + 0.1
            mixed = near * passages[gold[part]] + (1 - near**2).sqrt() * drawn
            questions[part] = torch.nn.functional.normalize(mixed, dim=1)
        return cls(questions, passages, gold, torch.arange(count, device=device) // 4)

    def mine(self, settings: DenseMining, screen: Any, rows: int = ROWS) -> torch.Tensor:
        """Mine all questions; what is timed, candidates' preparation included."""
        miner = LargeMiner(
            self.passages,
            self.document,
            torch.arange(len(self.passages), device=self.passages.device),
            settings,
            0,
            device=self.passages.device,
            screen=screen,
            memory=2**62,
        )
        parts = [
            miner.mine(self.questions[part], self.gold[part], first=part.start)
            for part in _parts(len(self.questions), rows)
        ]
        return torch.cat(parts)


def _parts(count: int, size: int = 2**18) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def ceiling(bench: Bench, kind: torch.dtype, size: int) -> dict[str, Any]:
    """Measure the rate of a square matrix product, and of mining's own shape."""
    rates = {}
    for name, inner in ((f"{size}^3", size), (f"{size} x {size} x {DIMENSION}", DIMENSION)):
        left, right = (torch.randn((size, inner), device=bench.device).to(kind) for _ in range(2))
        out = torch.empty((size, size), dtype=kind, device=bench.device)
        torch.mm(left, right.T, out=out)
        times = [bench.timed(lambda: torch.mm(left, right.T, out=out)) for _ in range(10)]  # noqa: B023
        rates[name] = 2 * size * size * inner / min(times)
    return {"flops": max(rates.values()), "by_shape": rates}


def two_pass_screens() -> dict[str, Screen]:
    """Return the screens that use the device's own matrix product, by name."""
    from clrelkt.mining.kernels import TwoPassScreen

    shapes = ((8_192, 16_384), (16_384, 16_384), (4_096, 4_096))
    return {f"two-pass {tall}x{wide}": TwoPassScreen(tall, wide) for tall, wide in shapes}


def fused_screens() -> dict[str, Screen]:
    """Return the fused screen with several cuts, by name; the riskier ones last."""
    from clrelkt.mining.kernels import FUSED, Blocks, FusedScreen

    cuts = {
        "128x256, chained, group 16": FUSED,
        "128x256, 8 warps, 4 stages": Blocks(),
        "128x128, 4 warps, two a processor": Blocks(columns=128, warps=4, per_processor=2),
        "128x128, 8 warps, two a processor": Blocks(columns=128, per_processor=2),
        "128x256, 8 warps, 3 stages": Blocks(stages=3),
        "128x256, one a block": Blocks(per_processor=0),
        "256x128, 8 warps": Blocks(rows=256, columns=128),
        "128x256, not flattened": Blocks(flatten=False),
        "128x128, 4 warps, two a processor, not flattened": Blocks(
            columns=128, warps=4, per_processor=2, flatten=False
        ),
        "128x128, 4 warps, one a block": Blocks(columns=128, warps=4, per_processor=0),
        "128x256, depth 128, 2 stages": Blocks(depth=128, stages=2),
        "128x256, group 16": Blocks(group=16),
        "64x256, 4 warps, two a processor": Blocks(rows=64, warps=4, per_processor=2),
        "128x256, chained": Blocks(chained=True),
        "128x256, chained, group 32": Blocks(chained=True, group=32),
        "128x256, chained, 3 stages": Blocks(chained=True, stages=3),
        "256x128, chained": Blocks(chained=True, rows=256, columns=128),
        "128x128, 4 warps, 3 stages, two a processor": Blocks(
            columns=128, warps=4, stages=3, per_processor=2
        ),
        "128x128, 4 warps, 3 stages, chained, two a processor": Blocks(
            chained=True, columns=128, warps=4, stages=3, per_processor=2
        ),
        "128x256, pointers": Blocks(tma=False, flatten=False),
        "128x256, warps specialised": Blocks(specialise=True, flatten=False),
    }
    return {f"fused {name}": FusedScreen(cut) for name, cut in cuts.items()}


def tuned(bench: Bench, every: dict[str, Screen], tall: int, wide: int) -> dict[str, Screen]:
    """Time each screen on one segment and return those that work, the fastest first."""
    from clrelkt.mining.kernels import Lists

    data = Data.made(tall, wide, bench.device)
    ours, theirs = (low_precision(side).vectors for side in (data.questions, data.passages))
    # About 32 of the candidates pass in a row, as in mining.
    score = torch.quantile(
        (ours[:1024] @ theirs[:8192].T).float().flatten()[: 2**23], 1 - 32 / wide
    )
    low = torch.full((tall,), float(score), device=bench.device)
    limits = Limits(low, None, low - 0.02, low - 0.019)
    rates: dict[str, float] = {}
    for name, screen in every.items():

        def work(screen: Any = screen) -> dict[str, Any]:
            lists = Lists.empty(tall, 256, bench.device)
            first = bench.timed(lambda: screen.run(ours, theirs, limits, None, lists))
            passed = int(lists.count.sum())
            times = [
                bench.timed(lambda: screen.run(ours, theirs, limits, None, lists)) for _ in range(3)
            ]
            rate = 2 * tall * wide * DIMENSION / min(times)
            return {"flops": rate, "seconds": times, "first_seconds": first, "words": passed}

        found = bench.attempt("screen", name, work)
        if found:
            rates[name] = found["flops"]
    return {name: every[name] for name in sorted(rates, key=lambda name: -rates[name])}


def verify(bench: Bench, tried: dict[str, Screen], asked: int, count: int) -> dict[str, Screen]:
    """Return the screens that choose what the plain one chooses."""
    right = dict(tried)
    for shared in (0.0, 1.0):
        data = Data.made(asked, count, bench.device, shared)
        for label, settings in (("nearest", NEAREST), ("random", RANDOM), ("filtered", FILTERED)):
            plain = PlainScreen(2**26)
            expected = data.mine(settings, plain)
            for name in list(right):

                def work(
                    name: str = name,
                    settings: DenseMining = settings,
                    data: Data = data,
                    expected: torch.Tensor = expected,
                ) -> dict[str, Any]:
                    mined = data.mine(settings, right[name], rows=asked // 3 + 1)
                    same = torch.equal(mined, expected)
                    return {"same": same, "pairs": int((mined >= 0).sum())}

                found = bench.attempt("check", f"{name}, {label}, shared {shared:g}", work)
                if not found.get("same"):
                    del right[name]
    return right


def measure(
    bench: Bench,
    name: str,
    screen: Any,
    settings: DenseMining,
    data: Data,
    peak: float,
    rounds: int,
) -> dict[str, Any]:
    """Mine all questions a few times; return seconds, share of the peak rate and memory."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
        before = torch.cuda.memory_allocated(bench.device)
    times = [bench.timed(lambda: data.mine(settings, screen)) for _ in range(rounds)]
    work = 2.0 * len(data.questions) * len(data.passages) * DIMENSION
    found = {
        "screen": name,
        "settings": asdict(settings),
        "questions": len(data.questions),
        "passages": len(data.passages),
        "seconds": times,
        "share_of_ceiling": [work / seconds / peak for seconds in times],
        "memory_stated": memory_needed(ROWS, len(data.passages), DIMENSION, bench.device),
    }
    if bench.device.type == "cuda":
        found["memory_peak"] = torch.cuda.max_memory_allocated(bench.device)
        found["memory_of_vectors"] = before
    return found


def mine_sizes(
    bench: Bench, right: dict[str, Screen], sizes: list[int], peak: float, rounds: int
) -> list[dict[str, Any]]:
    """Measure the fastest of the screens at every size; return the runs at the largest."""
    largest: list[dict[str, Any]] = []
    for name, screen in list(right.items())[:1]:
        for size in sizes:
            data = Data.made(size, size, bench.device)
            for label, settings in (
                ("nearest", NEAREST),
                ("random", RANDOM),
                ("4 + 4, filtered", FILTERED),
            ):
                found = bench.attempt(
                    "mining",
                    f"{name}, {label}",
                    partial(
                        measure,
                        bench,
                        name,
                        screen,
                        settings,
                        data,
                        peak,
                        rounds if settings is NEAREST else 1,
                    ),
                )
                if found and size == sizes[-1] and settings is NEAREST:
                    largest.append(found)
            del data
    return largest


def run(
    bench: Bench, sizes: list[int], rounds: int, *, tune: bool
) -> tuple[list[dict[str, Any]], float]:
    """Measure everything; return the runs at the largest size, and the ceiling in FLOP/s.

    With ``tune`` screens of all kinds and cuts are tried and the fastest are taken. A kernel that
    writes where it must not ends what the process can do on its GPU, so that the screen with the
    smaller kernel is measured to the end before the other is tried.
    """
    gpu = bench.device.type == "cuda"
    kinds = (torch.bfloat16, torch.float16) if gpu else (torch.float32,)
    rates = [
        bench.attempt("ceiling", str(kind), partial(ceiling, bench, kind, 8_192 if gpu else 1_024))
        for kind in kinds
    ]
    peak = rates[0]["flops"]
    if not gpu:
        return mine_sizes(bench, {"plain": PlainScreen()}, sizes, peak, rounds), peak
    largest = []
    checked: dict[str, Screen] = {}
    for family in (two_pass_screens(), fused_screens()) if tune else (fused_screens(),):
        found = tuned(bench, family, 65_536, 262_144) if tune else family
        fastest = dict(list(found.items())[: 2 if tune else 1])
        right = verify(bench, fastest, 20_000, 60_000)
        largest += mine_sizes(bench, right, sizes, peak, rounds)
        checked |= right
    if largest and bench.left > 25 and torch.cuda.mem_get_info()[0] > 60e9:
        best = min(largest, key=lambda found: statistics.median(found["seconds"]))["screen"]
        torch.cuda.empty_cache()
        data = Data.made(100_000, 10_000_000, bench.device)
        bench.attempt(
            "mining",
            f"{best}, nearest",
            partial(measure, bench, best, checked[best], NEAREST, data, peak, 1),
        )
    return largest, peak


def compare_cuts(bench: Bench, screen: Any, data: Data) -> None:
    """Try other numbers of pairs at once, and other first and following segments."""
    from clrelkt.mining import weighing
    from clrelkt.mining.weighing import Tiles

    before = weighing.TILES, large._FIRST, large._GROWTH
    tried = [before]
    tried += [(Tiles(*tile), *before[1:]) for tile in ((4, 1), (8, 1), (8, 4), (16, 4))]
    tried += [(before[0], *cut) for cut in ((512, 3), (512, 8), (2_048, 4), (2_048, 8))]
    for weighing.TILES, large._FIRST, large._GROWTH in tried:

        def work() -> dict[str, Any]:
            data.mine(NEAREST, screen)
            return {"seconds": [bench.timed(lambda: data.mine(NEAREST, screen)) for _ in range(2)]}

        name = f"{weighing.TILES}, first {large._FIRST}, growth {large._GROWTH}"
        bench.attempt("cut", name, work)
    weighing.TILES, large._FIRST, large._GROWTH = before


def compare_screens(bench: Bench, asked: int, count: int) -> None:
    """Try the fused screens worth it on one segment, then those that are right on all of mining."""
    every = {
        name: screen
        for name, screen in fused_screens().items()
        if "chained" in name or "3 stages" in name or name == next(iter(fused_screens()))
    }
    ranked = tuned(bench, every, 65_536, 262_144)
    best = dict([*list(ranked.items())[:3], *([next(iter(every.items()))] if ranked else [])])
    right = verify(bench, best, 10_000, 30_000)
    data = Data.made(asked, count, bench.device)
    for label, settings in (
        ("nearest", NEAREST),
        ("random", RANDOM),
        ("4 + 4, filtered", FILTERED),
    ):
        for name, screen in right.items():

            def work(settings: DenseMining = settings, screen: Any = screen) -> dict[str, Any]:
                data.mine(settings, screen)
                times = [bench.timed(lambda: data.mine(settings, screen)) for _ in range(3)]
                return {"seconds": times, "flops": 2.0 * asked * count * DIMENSION / min(times)}

            bench.attempt("mining", f"{name}, {label}", work)


def show_profile(bench: Bench, screen: Any, asked: int, count: int) -> None:
    """Print where the time of mining goes: by phase with the GPU awaited, then by kernel."""
    data = Data.made(asked, count, bench.device)
    for label, settings in (("nearest", NEAREST), ("4 + 4, filtered", FILTERED)):

        def work(settings: DenseMining = settings) -> dict[str, Any]:
            data.mine(settings, screen)
            free = [bench.timed(lambda: data.mine(settings, screen)) for _ in range(3)]
            with Phases(bench.wait) as phases:
                phases.watch(LargeMiner, PHASES)
                phases.watch(type(screen), ("run",))
                phases.watch(Selection, ("offer", "offer_pairs"))
                awaited = bench.timed(lambda: data.mine(settings, screen))
            phases.show()
            rate = 2.0 * asked * count * DIMENSION / min(free)
            return {"seconds": free, "phase_by_phase": awaited, "flops": rate}

        bench.attempt("profile", label, work)
    show_kernels(lambda: data.mine(NEAREST, screen), 1)
    if bench.device.type == "cuda":
        compare_cuts(bench, screen, data)


def show_growth(bench: Bench, screen: Any, asked: int, counts: list[int], peak: float) -> None:
    """Print seconds, share of the ceiling and memory for more and more passages."""
    for count in counts:
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()

        def work(count: int = count) -> dict[str, Any]:
            data = Data.made(asked, count, bench.device)
            data.mine(NEAREST, screen)
            return measure(bench, "", screen, NEAREST, data, peak, 3 if count < 10**7 else 1)

        bench.attempt("growth", f"{count:,} passages", work)


def alone(bench: Bench, profile: bool, growth: bool, sizes: list[int] | None) -> None:
    """Do what is asked for with the screen that is taken by default; print it."""
    gpu = bench.device.type == "cuda"
    screen: Screen = PlainScreen()
    if gpu:
        from clrelkt.mining.kernels import FusedScreen

        screen = FusedScreen()
    asked = ROWS if gpu else 512
    counts = sizes or ([10**power for power in range(3, 8)] if gpu else [1_000, 10_000])
    if profile:
        show_profile(bench, screen, asked, counts[-1] if sizes else min(counts[-1], 10**6))
    if growth:
        kind = torch.bfloat16 if gpu else torch.float32
        peak = bench.attempt(
            "ceiling", str(kind), partial(ceiling, bench, kind, 8_192 if gpu else 1_024)
        )
        show_growth(bench, screen, asked, counts, peak["flops"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", help="questions and passages of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=140.0, help="skip what comes after these")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--tune", action="store_true", help="look for the fastest screen first")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument("--screens", action="store_true", help="compare the newer fused screens")
    parser.add_argument("--growth", action="store_true", help="show how time grows with passages")
    parser.add_argument("--output", type=Path, help="write everything that was measured here")
    parser.add_argument(
        "--row", type=Path, metavar="FILE", help="write the row of the largest size"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(torch.device(arguments.device), arguments.output, arguments.seconds)
    gpu = bench.device.type == "cuda"
    bench.note(
        "device", name=torch.cuda.get_device_name() if gpu else "CPU", torch=torch.__version__
    )
    if arguments.screens:
        compare_screens(bench, ROWS, 10**6)
    if arguments.profile or arguments.growth:
        alone(bench, arguments.profile, arguments.growth, arguments.sizes)
    if arguments.screens or arguments.profile or arguments.growth:
        return
    sizes = arguments.sizes or ([10_000, 100_000, 1_000_000] if gpu else [2_000, 10_000])
    largest, peak = run(bench, sizes, arguments.rounds, tune=arguments.tune)
    if not largest:
        sys.exit("error: nothing was measured at the largest size")
    best = min(largest, key=lambda found: statistics.median(found["seconds"]))
    shares = best["share_of_ceiling"]
    shape = f"{best['questions']:,} x {best['passages']:,} x {DIMENSION}"
    row = Row(
        f"dense mining {shape}, {best['screen']}",
        f"measured matrix ceiling of {peak / 1e12:.4g} TFLOP/s",
        0.25,
        statistics.median(shares),
        (min(shares), max(shares)),
        statistics.median(best["seconds"]),
        2.0 * best["questions"] * best["passages"] * DIMENSION / peak,
        "s",
        best.get("memory_peak"),
    )
    print(json.dumps(asdict(row)))
    if arguments.row:
        write_rows(arguments.row, [row])


if __name__ == "__main__":
    main()
