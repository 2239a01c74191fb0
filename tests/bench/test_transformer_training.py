"""The benchmark of a transformer's training: its peer with unpadded attention, and its pairs.

PyTorch's kernel needs a GPU; here attention of one text after the other stands in its place, and
everything around it is that of sentence-transformers and transformers.
"""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("sentence_transformers")
    import sentence_transformers  # noqa: F401

from clrelkt.encoders import load_encoder
from clrelkt.encoders.transformer.encoder import TransformerEncoder

BENCH = Path(__file__).parents[2] / "bench"

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("sentence_transformers", "transformers", "accelerate", "datasets", "torch")
]


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The module of the benchmark, which finds its neighbours on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import transformer_training

        yield transformer_training
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").parent == BENCH:
                patch.delitem(sys.modules, name)


@pytest.fixture(scope="module")
def folder(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = bench.SHAPES["tiny"]
    made: Path = bench.save_made_model(tmp_path_factory.mktemp("tiny"), shape, 2000)
    return made


def job_of(bench: Any, folder: Path, work: str) -> tuple[Any, TransformerEncoder]:
    encoder = load_encoder(folder)
    assert isinstance(encoder, TransformerEncoder)
    options = Namespace(rows=2000, precision="float32", pairs="made")
    return bench.made_job(
        bench.Task(work, 4, 2, 1), options, bench.SHAPES["tiny"], encoder
    ), encoder


def text_by_text(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    first: torch.Tensor,
    first_keys: torch.Tensor,
    longest: int,
    longest_keys: int,
) -> torch.Tensor:
    """Compute what ``varlen_attn`` is documented to compute."""
    sizes = first.diff().tolist()
    assert torch.equal(first, first_keys)
    assert first.dtype == torch.int32
    assert max(sizes) == longest == longest_keys
    assert sum(sizes) == len(query)
    found = [
        functional.scaled_dot_product_attention(*(part.transpose(0, 1) for part in own))
        for own in zip(query.split(sizes), key.split(sizes), value.split(sizes), strict=True)
    ]
    return torch.cat([own.transpose(0, 1) for own in found])


@pytest.mark.parametrize("work", ["transfer", "contrastive", "triplet"])
def test_loss_and_gradients_are_those_of_the_padded_peer(
    bench: Any, folder: Path, work: str
) -> None:
    job, _ = job_of(bench, folder, work)
    rows = torch.arange(4)
    flash = bench.TorchFlash(text_by_text)

    def computed(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features = [dict(model.preprocess(own[:4])) for own in job.columns]
        assert all(("attention_mask" in own) == (model[0].unpad_inputs is None) for own in features)
        loss = bench.peer_loss(model, job)(features, rows)
        loss.backward()
        named = model.named_parameters()
        return loss, {name: own.grad for name, own in named if own.grad is not None}

    expected, gradients = computed(bench.sentence_transformer(folder, job.device))
    with flash.registered():
        found, own_gradients = computed(bench.sentence_transformer(folder, job.device, flash))
    assert flash.calls == 2 * len(job.columns)
    assert flash.texts == 4 * flash.calls
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert own_gradients.keys() == gradients.keys()
    assert len(gradients) > 30
    for name, gradient in gradients.items():
        most = float(gradient.abs().max())
        torch.testing.assert_close(
            own_gradients[name], gradient, rtol=1e-3, atol=2e-3 * most + 1e-7, msg=name
        )


@pytest.mark.parametrize("trainer", [False, True])
def test_training_takes_the_unpadded_way_alone(
    bench: Any, folder: Path, trainer: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if trainer:
        pytest.importorskip("datasets")
    job, _ = job_of(bench, folder, "transfer")
    flash = bench.TorchFlash(text_by_text)
    with flash.registered():
        seconds = bench.peer(job, folder, bench.Peer(trainer, workers=0, flash=flash))
    assert seconds > 0
    calls = 2 * 2 * (job.warm_up + job.steps)
    assert f"unpadded attention in float32: {calls} calls" in capsys.readouterr().out


def test_the_check_sees_wrong_positions(
    bench: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers.sentence_transformer.modules import Transformer

    job, encoder = job_of(bench, folder, "transfer")
    flash = bench.TorchFlash(text_by_text)
    with flash.registered():
        loss, vectors = bench.check_same(job, encoder, folder, flash)
        assert flash.dtypes == {torch.bfloat16}
        assert loss < 1e-2
        assert vectors < 0.05
        # XLM-R counts positions from 2.
        monkeypatch.setattr(Transformer, "_infer_flatten_position_offset", lambda self: 0)
        with pytest.raises(bench.DisagreementError, match="vectors"):
            bench.check_same(job, encoder, folder, flash)


def test_padded_texts_and_other_attention_are_refused(bench: Any, folder: Path) -> None:
    job, _ = job_of(bench, folder, "transfer")
    flash = bench.TorchFlash(text_by_text)
    with flash.registered():
        model = bench.sentence_transformer(folder, job.device, flash)
        model[0].unpad_inputs = False
        features = model.preprocess([job.columns[0][0], job.columns[1][0]])
        with pytest.raises(ValueError, match="padded"):
            model(features)
    flash.forget()
    with pytest.raises(bench.DisagreementError, match="0 calls of its kernel, not 2"):
        flash.report(2)
    some = torch.ones(3, 2, 4)
    cuts = torch.tensor([0, 3], dtype=torch.int32)
    for asked in ({"causal": True}, {"dropout_p": 0.1}, {"softmax_scale": 1.0}, {"softcap": 2.0}):
        with pytest.raises(ValueError, match="passed on"):
            flash.varlen(some, some, some, cuts, cuts, 3, 3, **asked)


def test_afterwards_transformers_is_as_before(bench: Any, folder: Path) -> None:
    from transformers import modeling_flash_attention_utils as utils

    before = (utils._lazy_imports, dict(utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2]))
    flash = bench.TorchFlash(text_by_text)
    with flash.registered():
        assert utils._lazy_imports is not before[0]
    assert before == (utils._lazy_imports, utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2])
    with pytest.raises(ImportError, match="FlashAttention2"):
        bench.sentence_transformer(folder, torch.device("cpu"), flash)


def test_pairs_of_xquad_stand_as_often_as_there(
    bench: Any, folder: Path, data_folder: Path
) -> None:
    words = bench.made_words(2000)
    anchors, golds, negatives = bench.xquad_columns("triplet", 2000, words)
    assert len(anchors) == len(golds) == len(negatives) == 2000
    assert all(gold != negative for gold, negative in zip(golds, negatives, strict=True))
    assert len(set(anchors)) > 1900
    assert len({*golds, *negatives}) == 240
    encoder = load_encoder(folder)
    columns = anchors, golds, negatives
    computed = bench.tokens_to_encode(columns, 250, encoder)
    each = encoder.tokenize([text for column in columns for text in column[:1000]]).tokens / 1000
    # Of 500 passages in a batch some 210 are different.
    assert 0.35 < computed / each < 0.6
