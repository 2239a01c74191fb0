"""Kill an update of an index at random moments, and look at what is left.

    python bench/index_kills.py --kills 20

An index of documents in version 0 is updated to version 1, 2, 3 and so on, each time by a process
of its own that is killed (SIGKILL) at a moment that the seed draws from the length of a whole
update. Then a reader opens the index: every document must be there, all of them in the old version
or all in the new one, and a search must answer from the same. The update is then run again, and
must go on to its end. A reader that was opened before must still see the version that it has
opened, all of it, while the update runs and after the kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.errors import ClrelktError
from clrelkt.search import Index, IndexDocument, IndexSettings

SETTINGS = IndexSettings(precision="int8", segment_rows=16)
QUESTION = "Wie viele Brücken hat die Stadt?"


class LostError(ClrelktError):
    """Something was lost, or two states were mixed."""


def documents(version: int, count: int) -> Iterator[IndexDocument]:
    for number in range(count):
        text = f"City {number} has {number + version} bridges. This is version {version} of it."
        yield IndexDocument(f"city-{number}", text, language="en", metadata={"version": version})


def update(folder: Path, encoder: MuseEncoder, version: int, count: int) -> None:
    with Index.open(folder, encoder) as index:
        source = f"version {version}"
        index.replace(documents(version, count), source=source, checkpoint_seconds=0)


def start_update(folder: Path, encoder: MuseEncoder, version: int, count: int) -> int:
    """Run an update in another process, and return its id."""
    child = os.fork()
    if child == 0:
        try:
            update(folder, encoder, version, count)
        except BaseException as error:
            print(f"error: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def seen_version(index: Index, count: int) -> int:
    """Return the one version that an index has of all documents."""
    found = list(index.documents())
    versions = {document.metadata["version"] for document in found}
    hits = index.search(QUESTION, k=count)
    versions |= {hit.metadata["version"] for hit in hits}
    ids = {document.id for document in found}
    if len(versions) != 1 or len(found) != count or len(ids) != count or len(hits) != count:
        raise LostError(
            f"{len(ids)} documents and {len(hits)} hits of {count}, versions {sorted(versions)}"
        )
    return int(versions.pop())


def run_kills(
    folder: Path, encoder: MuseEncoder, kills: int, count: int, seed: int
) -> Counter[str]:
    rng = random.Random(seed)
    Index.build(encoder, documents(0, count), folder, settings=SETTINGS).close()
    began = time.monotonic()
    os.waitpid(start_update(folder, encoder, 1, count), 0)
    length = time.monotonic() - began
    outcomes: Counter[str] = Counter()
    for version in range(2, kills + 2):
        reader = Index.open(folder, encoder)
        child = start_update(folder, encoder, version, count)
        deadline = time.monotonic() + rng.uniform(0, 1.1 * length)
        while time.monotonic() < deadline:
            if seen_version(reader, count) != version - 1:
                raise LostError("a reader saw an update before it was refreshed")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with Index.open(folder, encoder) as index:
            after = seen_version(index, count)
        if after not in (version - 1, version) or seen_version(reader, count) != version - 1:
            raise LostError(f"version {after} after a killed update to {version}")
        outcomes["new" if after == version else "old"] += 1
        reader.close()
        resumed = start_update(folder, encoder, version, count)
        if os.waitpid(resumed, 0)[1] != 0:
            raise LostError(f"the update to {version} could not go on")
        with Index.open(folder, encoder) as index:
            if seen_version(index, count) != version:
                raise LostError(f"the update to {version} did not come to its end")
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--documents", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # A process with one thread can be forked.
    torch.set_num_threads(1)
    encoder = load_encoder("muse")
    assert isinstance(encoder, MuseEncoder)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "index"
        try:
            outcomes = run_kills(
                place, encoder, arguments.kills, arguments.documents, arguments.seed
            )
        except ClrelktError as error:
            sys.exit(f"error: {error}")
    print(json.dumps({"kills": arguments.kills, "lost": 0, "after the kill": dict(outcomes)}))


if __name__ == "__main__":
    main()
