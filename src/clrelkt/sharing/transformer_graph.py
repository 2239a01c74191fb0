"""Transformers as ONNX graphs: padded token ids to unit vectors, by PyTorch's own exporter."""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clrelkt.encoders.description import DESCRIPTION_FILE
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.encoders.transformer.pooling import PoolingMode
from clrelkt.errors import EncoderError, MissingExtraError, StorageError
from clrelkt.files import atomic_folder, write_json, write_text
from clrelkt.progress import quiet_transformers
from clrelkt.sharing.onnx_encoder import GRAPH_FILE
from clrelkt.sharing.transformer_onnx import KIND, TOKENIZER_FILE, TransformerOnnxEncoder

if TYPE_CHECKING:
    import onnx

__all__ = ["GraphForm", "padded_pooling", "write_transformer_onnx"]

GraphForm = Literal["float32", "int8"]

_DATA_FILE = f"{GRAPH_FILE}.data"
_CARD_FILE = "README.md"
_OPSET = 18
_ONE_FILE_BYTES = 3 * 2**29
"""Protocol buffers end at 2 GiB; the weights of larger graphs lie in a file beside it."""

_LEAST_COSINE = 0.9999
_PROBES = ("a", "The river rose after nine days of rain. " * 3, "Wo liegt der Fluss?")
"""Texts of several lengths: a graph that has frozen the length of its example fails on them."""

_CARD = """\
## ONNX

{weights} ({family}), exported by clrelkt to ONNX, {precision}: `{graph}` has {megabytes:,.1f} MB.
Token ids go in, unit vectors of {dimension} numbers come out; pooling ({pooling}) and normalisation
are inside the graph. Texts are padded on the right. Languages: {languages}.

This needs `numpy`, `onnxruntime` and `tokenizers` alone:

```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({max_length})
tokenizer.enable_padding()
session = onnxruntime.InferenceSession("{graph}")
prompts = {prompts}


def encode(texts, kind="passage"):
    rows = tokenizer.encode_batch([prompts[kind] + text for text in texts])
    ids = np.array([row.ids for row in rows], dtype=np.int64)
    mask = np.array([row.attention_mask for row in rows], dtype=np.int64)
    return session.run(None, {{"input_ids": ids, "attention_mask": mask}})[0]
```

clrelkt opens the folder, too, and reads texts of more than {max_length} tokens in several passages:

```python
from pathlib import Path

from clrelkt.sharing import TransformerOnnxEncoder

encoder = TransformerOnnxEncoder.open(Path("."))
```
"""


def write_transformer_onnx(
    encoder: TransformerEncoder, folder: Path, form: GraphForm, *, card: str | None = None
) -> None:
    """Write ``encoder`` as a graph with its tokenizer to ``folder``, all of it or nothing.

    The graph's inputs are ``input_ids`` and ``attention_mask``, both int64, shape (texts, tokens),
    padded on the right; its output is ``vectors``, float32, shape (texts, dimension). It is
    PyTorch's trace of the model; before it is kept, it has to give the model's own vectors.
    ``card``, Markdown, stands before what is said of the export.

    Raises:
        EncoderError: the model or its tokenizer cannot be exported, or the graph is another model.
        MissingExtraError: onnx or onnxruntime is not installed.
        StorageError: it could not be written.
    """
    _check(encoder)
    with atomic_folder(folder) as target:
        _refuse_too_little_room(encoder, target)
        _write_tokenizer(encoder, target)
        write_json(target / DESCRIPTION_FILE, _description(encoder, form))
        _write_traced(encoder, target)
        _compare(encoder, target)
        if form == "int8":
            _quantise(target)
        sized = _description(encoder, form) | {"graph_bytes": _graph_bytes(target)}
        write_json(target / DESCRIPTION_FILE, sized)
        own = _card(encoder, target, form)
        write_text(target / _CARD_FILE, own if card is None else f"{card.rstrip()}\n\n{own}")


def padded_pooling(
    states: torch.Tensor, mask: torch.Tensor, modes: Sequence[PoolingMode]
) -> torch.Tensor:
    """Return what ``pool_states`` does for padded states, shape (texts, modes * width).

    ``states`` has shape (texts, tokens, width), ``mask`` (texts, tokens); padding is on the right.
    """
    return torch.cat([_pooled(states, mask, mode) for mode in modes], dim=1)


def _pooled(states: torch.Tensor, mask: torch.Tensor, mode: PoolingMode) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(states.dtype)
    if mode == "cls":
        return states[:, 0]
    if mode == "lasttoken":
        last = (mask.sum(1) - 1).clamp(min=0).view(-1, 1, 1)
        return states.gather(1, last.expand(-1, 1, states.shape[2])).squeeze(1)
    if mode == "max":
        return states.masked_fill(weights == 0, float("-inf")).amax(1)
    if mode == "weightedmean":
        weights = weights * weights.cumsum(1)
    total = weights.sum(1)
    if mode == "mean_sqrt_len_tokens":
        total = total.sqrt()
    return (states * weights).sum(1) / total


class _Graph(nn.Module):
    """The network in the padded form that is traced."""

    def __init__(self, encoder: TransformerEncoder) -> None:
        super().__init__()
        network = encoder.network
        if encoder.device.type != "cpu":
            network = copy.deepcopy(network).cpu()
        self.model = network.model
        self.projections = network.projections
        self.pooling = network.pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # From embeddings, places are counted alike in every family, whatever the ids are.
        embedded = self.model.get_input_embeddings()(input_ids)
        states = self.model(inputs_embeds=embedded, attention_mask=attention_mask).last_hidden_state
        pooled = padded_pooling(states, attention_mask, self.pooling)
        for projection in self.projections:
            pooled = projection(pooled)
        return functional.normalize(pooled, dim=1)


def _check(encoder: TransformerEncoder) -> None:
    for package in ("onnx", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx") from error
    if encoder.tokenizer.rows is not None:
        raise EncoderError("an encoder with a compact vocabulary is not saved: write it back first")
    if getattr(encoder.tokenizer.source, "backend_tokenizer", None) is None:
        raise EncoderError(
            f"{encoder.name}: its tokenizer has no tokenizer.json, without which it cannot run "
            "outside Python; export it to sentence-transformers"
        )


def _refuse_too_little_room(encoder: TransformerEncoder, target: Path) -> None:
    # The trace and the graph made from it lie beside each other for a while.
    needed = 2 * sum(value.numel() * value.element_size() for value in encoder.parameters())
    free = shutil.disk_usage(target).free
    if free < needed:
        raise StorageError(
            f"{target.parent}: {needed / 1e6:,.0f} MB are needed while exporting, and "
            f"{free / 1e6:,.0f} MB are free. Free some space or name another folder"
        )


def _write_tokenizer(encoder: TransformerEncoder, target: Path) -> None:
    with quiet_transformers():
        encoder.tokenizer.source.save_pretrained(str(target))
    if not (target / TOKENIZER_FILE).is_file():
        raise EncoderError(f"{encoder.name}: its tokenizer was saved without {TOKENIZER_FILE}")


def _write_traced(encoder: TransformerEncoder, target: Path) -> None:
    import onnx

    ids = encoder.tokenizer.batch([_PROBES[0], _PROBES[2]])
    rows = nn.utils.rnn.pad_sequence(
        list(torch.split(ids.token_ids, ids.host_lengths.tolist())), batch_first=True
    )
    mask = (torch.arange(rows.shape[1]) < ids.lengths.unsqueeze(1)).long()
    axes = {0: "texts", 1: "tokens"}
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        traced = Path(scratch) / GRAPH_FILE
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    _Graph(encoder).eval(),
                    (rows, mask),
                    str(traced),
                    dynamo=False,  # The other exporter cannot leave every family's length open.
                    opset_version=_OPSET,
                    input_names=["input_ids", "attention_mask"],
                    output_names=["vectors"],
                    dynamic_axes={
                        "input_ids": axes,
                        "attention_mask": axes,
                        "vectors": {0: "texts"},
                    },
                )
        except OSError:
            raise
        except Exception as error:  # The exporter and the models raise errors of any kind.
            reason = str(error).strip().split("\n")[0]
            raise EncoderError(
                f"{encoder.name}: a model of the family {_family(encoder)} cannot be exported to "
                f"ONNX ({type(error).__name__}: {reason}); export it to sentence-transformers"
            ) from error
        _save(onnx.load(str(traced)), target)


def _save(graph: onnx.ModelProto, target: Path) -> None:
    import onnx

    beside = graph.ByteSize() > _ONE_FILE_BYTES
    onnx.save_model(
        graph, str(target / GRAPH_FILE), save_as_external_data=beside, location=_DATA_FILE
    )


def _compare(encoder: TransformerEncoder, target: Path) -> None:
    found = TransformerOnnxEncoder.open(target).encode(_PROBES).astype(np.float64)
    least = float((found * encoder.encode(_PROBES)).sum(1).min())
    if not least >= _LEAST_COSINE:
        raise EncoderError(
            f"{encoder.name}: the exported graph does not compute what the model does (least "
            f"cosine {least:.4f}, at least {_LEAST_COSINE} expected): a model of the family "
            f"{_family(encoder)} cannot be exported to ONNX; export it to sentence-transformers"
        )


def _quantise(target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph, data = target / GRAPH_FILE, target / _DATA_FILE
    with tempfile.TemporaryDirectory(dir=target) as scratch, _no_advice():
        small = Path(scratch) / GRAPH_FILE
        quantize_dynamic(
            str(graph),
            str(small),
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=data.is_file(),
        )
        data.unlink(missing_ok=True)
        for file in Path(scratch).iterdir():
            file.replace(target / file.name)


@contextmanager
def _no_advice() -> Iterator[None]:
    """Keep onnxruntime's advice on preparing graphs, given to the root logger, off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _description(encoder: TransformerEncoder, form: GraphForm) -> dict[str, object]:
    return {
        "format": 1,
        "kind": KIND,
        "form": form,
        "family": _family(encoder),
        "base": encoder.identity.base,
        "weights": encoder.weights,
        "languages": sorted(encoder.languages),
        "dimension": encoder.dimension,
        "pooling": list(encoder.network.pooling),
        "prompts": {"question": encoder.prompts.question, "passage": encoder.prompts.passage},
        "max_length": encoder.tokenizer.max_length,
    }


def _graph_bytes(target: Path) -> int:
    files = (target / GRAPH_FILE, target / _DATA_FILE)
    return sum(path.stat().st_size for path in files if path.is_file())


def _card(encoder: TransformerEncoder, target: Path, form: GraphForm) -> str:
    return _CARD.format(
        weights=encoder.weights,
        family=_family(encoder),
        precision="weights in 8 bits" if form == "int8" else "float32",
        graph=GRAPH_FILE,
        megabytes=_graph_bytes(target) / 1e6,
        dimension=encoder.dimension,
        pooling=", ".join(encoder.network.pooling),
        languages=" ".join(sorted(encoder.languages)) or "not known",
        max_length=encoder.tokenizer.max_length,
        prompts=repr({"question": encoder.prompts.question, "passage": encoder.prompts.passage}),
    )


def _family(encoder: TransformerEncoder) -> str:
    return str(encoder.network.model.config.model_type)
