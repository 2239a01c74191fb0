"""All benchmarks, each in a process of its own, and one table of their ratios."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import Report, add_options, print_reports

NAMES = ("dense_mining", "transfer_step", "compact_vocabulary", "encoding")
# numpy's matrix library reads its number of threads when it is loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    threads = str(arguments.threads)
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json"]
    command += ["--threads", threads, "--device", arguments.device]
    command += ["--quick"] if arguments.quick else []
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, threads)
    print(f"{name} …", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"error: {name} failed")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    arguments = parser.parse_args()
    records = [run(name, arguments) for name in NAMES]
    if arguments.json:
        print(json.dumps(records))
    else:
        print_reports([Report.from_json(record) for record in records])


if __name__ == "__main__":
    main()
