"""Kill a training run at random moments, resume it, and compare it with one that ran through.

    python bench/kill_resume.py --kills 20

The run trains the real encoder on a part of the bundled corpus, through all three stages, with a
checkpoint at every step. A kill is SIGKILL to the process, at a moment that the seed draws from the
length of the run that ran through: while it loads, mines, trains, measures, or writes. Log, results
and every tensor of every encoder are compared bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

DEV = {"times_per_epoch": 2, "patience": 9}
LANGUAGES, DOCUMENTS = ("en", "de"), 6
RECIPE: dict[str, Any] = {
    "name": "kill-resume",
    "encoder": "muse",
    "evaluation": {"pool": "passage"},
    "stages": [
        {
            "name": "warm-up",
            "method": {"kind": "warm-up", "margin": 0.24, "bm25_epochs": 1},
            "optimisation": {"epochs": 2, "batch": 16, "learning_rate": 2e-5},
            "dev": DEV,
        },
        {
            "name": "teacher",
            "start": "warm-up",
            "method": {
                "kind": "teacher",
                "negatives": {"hard": 1, "semi_hard": 1, "granularity": "passage"},
            },
            "optimisation": {"epochs": 2, "batch": 16, "learning_rate": 3e-5},
            "dev": DEV,
        },
        {
            "name": "student",
            "start": "teacher",
            "method": {
                "kind": "transfer",
                "granularity": "passage",
                "weights": {"question": 0.1, "document": 1.0, "document_question": 0.1},
            },
            "optimisation": {"epochs": 2, "batch": 16, "learning_rate": 5e-4},
            "dev": DEV | {"keep": "best-or-start"},
        },
    ],
}


class Runner:
    """Starts runs of one recipe file, in processes of ``threads`` threads."""

    def __init__(self, recipe: Path, threads: int) -> None:
        self._recipe = recipe
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads)}

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """Start or resume the run in ``folder``."""
        command = [sys.executable, "-m", "clrelkt", "train", str(self._recipe), "--resume"]
        command += ["--output", str(folder), "--save-form", "delta", "--device", "cpu"]
        command += ["--checkpoint-seconds", "0"]
        return subprocess.Popen(
            command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, folder: Path) -> float:
        """Let the run in ``folder`` come to its end; return the seconds that it took."""
        began = time.monotonic()
        process = self.start(folder)
        _, said = process.communicate()
        if process.returncode:
            sys.exit(f"the run failed: {said.strip()[-2000:]}")
        return time.monotonic() - began

    def kill(self, folder: Path, seconds: float) -> bool:
        """Start the run and kill it so much later; return whether it was at work still."""
        process = self.start(folder)
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        if process.returncode:
            sys.exit(f"the run failed: {said.strip()[-2000:]}")
        return False


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of everything in a complete run that must not differ."""
    files = [folder / "log.jsonl", folder / "results.json"]
    files += sorted((folder / "encoders").rglob("*.safetensors"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def where(folder: Path) -> str:
    """Say where a killed run stood when it wrote its last checkpoint."""
    if (folder / "results.json").exists():
        return "at its very end"
    try:
        position = json.loads((folder / "checkpoint.json").read_text())["position"]
    except FileNotFoundError:
        return "before its first checkpoint"
    return f"after checkpoint {position['step']} of stage {position['stage'] + 1}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="how many kills in all")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the runs here [default: a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        outcome = kill_and_compare(options, options.folder or Path(temporary))
    print(json.dumps(outcome))
    sys.exit(0 if outcome["same"] == outcome["runs"] else 1)


def write_corpus(folder: Path) -> None:
    """Write the first documents of the bundled corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    bundled = resources.files("clrelkt.corpora") / "bundled"
    for language in LANGUAGES:
        name = f"bundled.{language}.json"
        whole = json.loads((bundled / name).read_text(encoding="utf-8"))
        part = whole | {"data": whole["data"][:DOCUMENTS]}
        (folder / name).write_text(json.dumps(part), encoding="utf-8")


def kill_and_compare(options: argparse.Namespace, folder: Path) -> dict[str, int]:
    write_corpus(folder / "corpus")
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(RECIPE | {"corpus": str(folder / "corpus")}), encoding="utf-8")
    runner = Runner(recipe, options.threads)
    seconds = runner.finish(folder / "through")
    expected = digests(folder / "through")
    print(
        f"the run that ran through took {seconds:.0f} s; {len(expected)} files are compared",
        flush=True,
    )
    rng = random.Random(options.seed)
    kills = runs = same = 0
    while kills < options.kills:
        run = folder / f"killed-{runs}"
        while kills < options.kills and not (run / "results.json").exists():
            if not runner.kill(run, rng.uniform(0, seconds)):
                break
            kills += 1
            print(f"kill {kills}: {where(run)}", flush=True)
        if not (run / "results.json").exists():
            runner.finish(run)
        found = digests(run)
        differing = sorted(name for name in expected if found.get(name) != expected[name])
        runs += 1
        same += not differing
        print(f"run {runs}: {'the same bits' if not differing else f'differs in {differing}'}")
    return {"kills": kills, "runs": runs, "same": same, "threads": options.threads}


if __name__ == "__main__":
    main()
