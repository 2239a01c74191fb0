"""One run in several processes of this machine, started by torch's elastic launcher."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from clrelkt.errors import ClrelktError, LostProcessError, TrainingError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

__all__ = ["end_process", "launch", "told_to_launcher"]

_LAUNCHED = "CLRELKT_LAUNCHED"
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run ``clrelkt ARGUMENTS`` in so many processes; when one ends badly all are stopped.

    Raises:
        TrainingError: one of them failed; its message is that of the one that failed first.
    """
    environment = {_LAUNCHED: "1"}
    if "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    with tempfile.TemporaryDirectory() as logs, _changed(environment):
        _launch(arguments, processes, Path(logs))


def _launch(arguments: Sequence[str], processes: int, logs: Path) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"clrelkt-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
    )
    command = ["-u", "-m", "clrelkt", *arguments]
    try:
        with _quiet():
            elastic_launch(settings, sys.executable)(*command)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: _order(item[1]))
        raise TrainingError(f"process {rank} of {processes}: {_said(failure)}") from error


@contextmanager
def told_to_launcher() -> Iterator[None]:
    """Leave an error of the block to ``launch``, which shows one for all processes.

    Where the process was not started by it, nothing happens.
    """
    if not os.environ.get(_LAUNCHED):
        yield
        return
    _die_with_launcher()
    try:
        yield
    except ClrelktError as error:
        told = {
            "message": str(error),
            "extraInfo": {"timestamp": int(time.time()), "lost": _is_lost(error)},
        }
        Path(os.environ[_ERROR_FILE]).write_text(json.dumps({"message": told}), encoding="utf-8")
        # On the ordinary way out its connections close before it is gone: another process could
        # miss it and end first, and the launcher would show what that one says.
        end_process(1)


def end_process(status: int = 0) -> NoReturn:
    """End a process of several at once.

    On the ordinary way out the threads of torch's process groups are torn down with the rest, and
    now and then one of them aborts the process: the launcher would then call the run a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _is_lost(error: ClrelktError) -> bool:
    return isinstance(error, LostProcessError)


def _die_with_launcher() -> None:
    """End when the launcher is killed: no one is left to stop this process."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _order(failure: ProcessFailure) -> tuple[bool, int]:
    """Sort what failed by itself before what only missed another process, the first one first."""
    told = failure.error_file_data.get("message")
    lost = isinstance(told, dict) and bool(told.get("extraInfo", {}).get("lost"))
    return lost or failure.exitcode == -signal.SIGTERM, failure.timestamp


def _said(failure: ProcessFailure) -> str:
    told = failure.error_file_data.get("message")
    if isinstance(told, dict):
        return str(told["message"])
    if failure.exitcode < 0:
        what = f"was ended by {failure.signal_name()}"
    else:
        what = f"ended with exit status {failure.exitcode}"
    return f"it {what}, and the others were stopped. Go on with --resume"


@contextmanager
def _changed(environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the launcher from telling the same in its own words, with a traceback."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
