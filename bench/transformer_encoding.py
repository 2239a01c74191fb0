"""Encoding with a transformer, tokenising included, against ``SentenceTransformer.encode``.

Half the texts are questions of 16 tokens, half passages of 152, all different, with XLM-R-base's
shape, made weights and a vocabulary of 250,000 rows. The peer runs in bfloat16 with the best of
several batch sizes, which is looked for in the same run; its profile is printed.

    python bench/transformer_encoding.py --device cuda --row row.json
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clrelkt.encoders import load_encoder
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.encoders.transformer.tokenizer import TransformerTokenizer
from clrelkt.training.device import choose_device, matrix_precision
from harness import timed
from made_transformer import SHAPES, MadeTexts, made_words, save_made_model
from rows import Row, write_rows
from transformer_training import PASSAGE, QUESTION, measured, sentence_transformer, way

LEAST_COSINE = 0.99


def peer_of(folder: Path, device: torch.device, low: bool) -> Any:
    """Return the peer; in 16 bits its parameters are, as is quickest."""
    model = sentence_transformer(folder, device)
    return model.bfloat16() if low else model


def encode_peer(model: Any, texts: list[str], batch: int) -> np.ndarray:
    found = model.encode(texts, batch_size=batch, show_progress_bar=False, convert_to_tensor=True)
    vectors: np.ndarray = found.float().cpu().numpy()
    return vectors


def best_batch(model: Any, texts: list[str], sizes: list[int]) -> int:
    """Return the batch size that encodes fastest; sizes that do not fit are left out."""
    rates: dict[int, float] = {}
    for size in sizes:
        try:
            seconds = timed(lambda: encode_peer(model, texts, size))  # noqa: B023
        except torch.OutOfMemoryError:
            continue
        rates[size] = len(texts) / seconds
        print(f"the peer at batch {size}: {rates[size]:,.0f} texts/s")
    return max(rates, key=lambda size: rates[size])


def print_profile(model: Any, texts: list[str], batch: int, device: torch.device) -> None:
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as found:
        encode_peer(model, texts, batch)
    by = "self_device_time_total" if cuda else "self_cpu_time_total"
    print("the peer's profile:")
    print(found.key_averages().table(sort_by=by, row_limit=10, max_name_column_width=50))


@dataclass(frozen=True, slots=True)
class Tokenising:
    """Texts a second of tokenizers alone: Hugging Face's, ours at its first sight of them, again.

    Hugging Face's works on all cores, ours on one where it knows the words.
    """

    backend: float
    first: float
    again: float

    @classmethod
    def measured(cls, tokenizer: TransformerTokenizer, texts: list[str]) -> Tokenising:
        """Measure with a copy of ``tokenizer``: it has met no words."""
        other = copy.deepcopy(tokenizer)
        for _ in range(2):
            # Code for known words is compiled, once a process, when enough texts have come.
            other.batch(texts)
        tokenizer = copy.deepcopy(tokenizer)
        backend = tokenizer.source.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        ours, theirs = [], []
        for _ in range(3):
            ours.append(timed(lambda: tokenizer.batch(texts)))
            theirs.append(timed(lambda: [one.ids for one in backend.encode_batch_fast(texts)]))
        rates = [len(texts) / one for one in (min(theirs), ours[0], min(ours[1:]))]
        return cls(*rates)

    def __str__(self) -> str:
        return (
            f"ours {self.again:,.0f} texts/s, {self.first:,.0f} at first sight, Hugging Face's "
            f"{self.backend:,.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="xlm-r-base")
    parser.add_argument("--rows", type=int, default=250_002, help="of the vocabulary")
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--batches", default="256,512,1024,2048", help="sizes that the peer tries")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--device")
    parser.add_argument("--target", type=float, default=3.0)
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--row", type=Path, help="write the table's row to this JSON file")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    device = choose_device(arguments.device)
    low = arguments.precision == "bfloat16"
    with tempfile.TemporaryDirectory() as scratch, matrix_precision(device):
        shape = SHAPES[arguments.shape]
        folder = save_made_model(Path(scratch) / "model", shape, arguments.rows)
        made = MadeTexts(made_words(arguments.rows))
        half = arguments.texts // 2
        texts = made.draw(half, QUESTION) + made.draw(half, PASSAGE)
        texts = [texts[place] for place in np.random.default_rng(1).permutation(len(texts))]
        encoder = load_encoder(folder).to(device)
        assert isinstance(encoder, TransformerEncoder)
        encoder.compute_dtype = torch.bfloat16 if low else torch.float32
        model = peer_of(folder, device, low)
        few = texts[: max(256, len(texts) // 16)]
        cosines = (encoder.encode(few) * encode_peer(model, few, 256)).sum(1)
        if cosines.min() < LEAST_COSINE:
            sys.exit(f"error: a cosine of {cosines.min():.4f} between the two sides' vectors")
        print(f"least cosine of the two sides' vectors: {cosines.min():.5f}")
        print(f"ours computes with {way(encoder.network)}")
        batch = best_batch(model, few, [int(size) for size in arguments.batches.split(",")])
        if not arguments.no_profile:
            print_profile(model, few, batch, device)
        tokens = encoder.tokenize(few).tokens / len(few)
        alone = Tokenising.measured(encoder.tokenizer, texts[:20_000])
        sides = []
        for number in range(arguments.rounds):
            one = measured(lambda: timed(lambda: encoder.encode(texts)), device)
            other = measured(lambda: timed(lambda: encode_peer(model, texts, batch)), device)
            sides.append((one, other))
            rates = [len(texts) / side[0] for side in (one, other)]
            print(f"round {number}: ours {rates[0]:,.0f}/s, peer {rates[1]:,.0f}/s")
    ratios = [other[0] / one[0] for one, other in sides]
    best = [statistics.median(len(texts) / side[n][0] for side in sides) for n in (0, 1)]
    memory = [max(side[n][1] or 0 for side in sides) for n in (0, 1)]
    rate = best[0] * tokens * shape.layer_parameters * 2
    print(
        f"encoding, {arguments.shape}, {tokens:.0f} tokens a text: ours {best[0]:,.0f} texts/s, "
        f"peer {best[1]:,.0f} (batch {batch}): ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}), target {arguments.target:g}; ours "
        f"{rate / 1e12:.1f} TFLOP/s in the layers' matrices; the tokenizer alone {alone}; "
        f"memory {memory[0] / 2**30:.1f} and {memory[1] / 2**30:.1f} GiB"
    )
    if arguments.row:
        row = Row(
            work=f"encoding, {arguments.shape} shape, {arguments.precision}, {tokens:.0f} tokens",
            against=f"SentenceTransformer.encode, batch {batch}",
            target=arguments.target,
            ratio=statistics.median(ratios),
            spread=(min(ratios), max(ratios)),
            ours=best[0],
            theirs=best[1],
            unit="texts/s",
            peak_memory=memory[0] or None,
        )
        write_rows(arguments.row, [row])


if __name__ == "__main__":
    main()
