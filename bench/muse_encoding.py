"""Encoding with mUSE, tokenising included, against the tokeniser alone on all cores.

    python bench/muse_encoding.py --device cuda --row muse-encoding.json

Half of the texts are questions, half passages of XQuAD, in all its languages and repeated until
there are ``--texts``. Nothing is remembered between texts, so a repetition costs as much as another
text. What the tokeniser alone takes is the least that encoding can take.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from pathlib import Path

import torch

from clrelkt.cores import cores
from clrelkt.corpora import load_corpus
from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.encoders.devices import MultiDeviceEncoder
from clrelkt.errors import ClrelktError
from clrelkt.training.device import choose_device, matrix_precision
from harness import timed
from limits import peak_memory
from rows import Row, write_rows

TARGET = 0.8


def read_texts(corpus_name: str, count: int) -> list[str]:
    """Return questions and passages in turn."""
    corpus = load_corpus(corpus_name)
    questions = itertools.cycle(question.text for question in corpus.questions)
    passages = itertools.cycle(passage.text for passage in corpus.passage_by_id.values())
    pairs = zip(questions, passages, strict=False)
    return [text for pair in itertools.islice(pairs, count // 2) for text in pair]


def measure(arguments: argparse.Namespace) -> None:
    device = choose_device(arguments.device)
    texts = read_texts(
        "bundled" if arguments.quick else "xquad", 400 if arguments.quick else arguments.texts
    )
    encoder = load_encoder("muse")
    assert isinstance(encoder, MuseEncoder)
    tokens = encoder.tokenize(texts).tokens
    devices = [torch.device(device.type, n) for n in range(arguments.gpus)]
    encodes = (
        encoder.to(device) if arguments.gpus == 1 else MultiDeviceEncoder(encoder, devices)
    ).encode
    rounds = []
    low = torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16)
    with low, matrix_precision(device):
        encodes(texts)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        for _ in range(arguments.rounds):
            alone = timed(lambda: encoder.tokenizer.arrays(texts))
            rounds.append((timed(lambda: encodes(texts)), alone))
    ratios = [alone / whole for whole, alone in rounds]
    whole, alone = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    row = Row(
        work=f"mUSE encoding, {len(texts)} texts, {tokens / len(texts):.0f} tokens in the mean, "
        f"tokenising included{f', {arguments.gpus} GPUs' if arguments.gpus > 1 else ''}"
        f"{', bfloat16' if arguments.bfloat16 else ''}",
        against=f"the tokeniser alone on {cores()} cores",
        target=TARGET,
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        ours=tokens / whole,
        theirs=tokens / alone,
        unit="tokens/s",
        peak_memory=peak_memory(str(device)),
    )
    print(f"{len(texts)} texts, {tokens} tokens")
    print(f"encoding: {len(texts) / whole:,.0f} texts/s, {row.ours:,.0f} tokens/s")
    print(f"tokeniser alone: {len(texts) / alone:,.0f} texts/s, {row.theirs:,.0f} tokens/s")
    print(f"ratio {row.ratio:.3f} ({row.spread[0]:.3f} to {row.spread[1]:.3f}), target {TARGET}")
    if row.peak_memory is not None:
        print(f"peak memory {row.peak_memory / 2**30:.1f} GiB")
    if arguments.row:
        write_rows(arguments.row, [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="cpu or cuda [default: cuda where there is one]")
    parser.add_argument("--gpus", type=int, default=1, help="encode on so many of them")
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16")
    parser.add_argument("--quick", action="store_true", help="smoke run on the bundled corpus")
    parser.add_argument("--row", type=Path, metavar="FILE", help="write the result as one row")
    arguments = parser.parse_args()
    try:
        measure(arguments)
    except ClrelktError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
