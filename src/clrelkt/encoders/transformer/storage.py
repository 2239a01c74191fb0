"""Saving transformers in the form of sentence-transformers.

The folder opens with plain ``SentenceTransformer(folder)`` and gives the same vectors there. The
``clrelkt.json`` beside its files tells of languages and of the weights that training began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from clrelkt.encoders.description import DESCRIPTION_FILE, check_folder, check_form
from clrelkt.encoders.protocol import SaveForm
from clrelkt.encoders.tensors import write_tensors
from clrelkt.encoders.transformer.encoder import TransformerEncoder, Unit
from clrelkt.encoders.transformer.pooling import PoolingMode
from clrelkt.errors import EncoderError, StorageError
from clrelkt.files import atomic_folder, write_json
from clrelkt.progress import quiet_transformers

__all__ = ["save_transformer"]

_FORMAT = 1
# Names that every version of sentence-transformers knows.
_TYPE = "sentence_transformers.models."
_SAVED_POOLING: Mapping[PoolingMode, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def save_transformer(
    encoder: TransformerEncoder,
    folder: Path,
    form: SaveForm = "whole",
    *,
    records: Mapping[str, Any] | None = None,
) -> None:
    """Write ``encoder`` to ``folder``, all of it or nothing; an encoder that is there is replaced.

    ``records`` are JSON values to be written beside it, by file name.

    Raises:
        EncoderError: it is to be a delta, or its vocabulary is compact.
        StorageError: it could not be written, or ``folder`` holds something else.
    """
    check_form(encoder, form)
    if encoder.tokenizer.rows is not None:
        raise EncoderError("an encoder with a compact vocabulary is not saved: write it back first")
    check_folder(folder)
    with atomic_folder(folder) as target:
        _write_model(encoder, target)
        _write_modules(encoder, target)
        write_json(target / "config_sentence_transformers.json", _prompts(encoder))
        write_json(target / DESCRIPTION_FILE, _description(encoder))
        for name, record in (records or {}).items():
            write_json(target / name, record)


def _write_model(encoder: TransformerEncoder, target: Path) -> None:
    from safetensors import SafetensorError

    network = encoder.network
    model = network.model
    tensors = {**model.state_dict(), **network.unused}
    try:
        with quiet_transformers():
            model.save_pretrained(str(target), state_dict=tensors)
            encoder.tokenizer.source.save_pretrained(str(target))
    except SafetensorError as error:
        # safetensors wraps the system's refusal, so that it is no OSError.
        raise StorageError(
            f"{target}: {error}. Free some space or name a folder that can be written"
        ) from error


def _write_modules(encoder: TransformerEncoder, target: Path) -> None:
    network = encoder.network
    width = int(network.model.config.hidden_size)
    limits = {"max_seq_length": encoder.tokenizer.max_length, "do_lower_case": False}
    write_json(target / "sentence_bert_config.json", limits)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write_config(target / "1_Pooling", _pooling(network.pooling, width))
    for projection in (*network.projections, Unit()):
        number = len(modules)
        if isinstance(projection, Unit):
            modules.append(("Normalize", f"{number}_Normalize"))
            (target / modules[-1][1]).mkdir()
        else:
            assert isinstance(projection, nn.Sequential)
            modules.append(("Dense", f"{number}_Dense"))
            _write_dense(target / modules[-1][1], projection)
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": _TYPE + kind}
        for number, (kind, path) in enumerate(modules)
    ]
    write_json(target / "modules.json", listed)


def _pooling(modes: tuple[PoolingMode, ...], width: int) -> dict[str, Any]:
    if len(modes) > 1:  # The older form does not tell in which order vectors are joined.
        return {"embedding_dimension": width, "pooling_mode": list(modes), "include_prompt": True}
    switches = {key: mode in modes for mode, key in _SAVED_POOLING.items()}
    return {"word_embedding_dimension": width, **switches, "include_prompt": True}


def _write_dense(folder: Path, projection: nn.Sequential) -> None:
    linear, activation = projection[0], projection[1]
    assert isinstance(linear, nn.Linear)
    kind = type(activation)
    config = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": f"{kind.__module__}.{kind.__name__}",
    }
    _write_config(folder, config)
    tensors = {f"linear.{name}": value for name, value in linear.state_dict().items()}
    write_tensors(
        folder / "model.safetensors",
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
    )


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir()
    write_json(folder / "config.json", dict(config))


def _prompts(encoder: TransformerEncoder) -> dict[str, Any]:
    passage = encoder.prompts.passage
    # Different versions and users look for a passage's prompt under different names.
    prompts = {"query": encoder.prompts.question, "document": passage, "passage": passage}
    return {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}


def _description(encoder: TransformerEncoder) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "kind": "transformer",
        "form": "whole",
        "base": encoder.identity.base,
        "weights": encoder.weights,
        "languages": sorted(encoder.languages),
        "dimension": encoder.dimension,
    }
