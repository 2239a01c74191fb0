"""Encoders on disk.

A folder holds ``clrelkt.json`` (format version, kind, form, base, weights, languages), the tensors
as safetensors, the SentencePiece model, and the two files that let sentence-transformers open it.

- *whole*: every tensor, in float32 or (format 3) in float16; needs nothing else.
- *delta*: only what differs from the published encoder that it started from: the changed rows of
  the embedding table and the changed matrices, in float32 (exact) or float16 (half the size, values
  rounded to 11 bits), in files of at most 15 MiB that ``clrelkt.json`` lists. With new pieces
  (format 2) the table has more rows, and the SentencePiece model is there too. The forms *int8*,
  *int6* and *int4* (format 3) keep the difference from the base in as many bits a number, with a
  scale for each row of the table; matrices always have 8, with a scale for each of their outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from clrelkt.encoders.description import (
    DESCRIPTION_FILE,
    check_folder,
    read_description,
)
from clrelkt.encoders.identity import EncoderIdentity
from clrelkt.encoders.muse.encoder import MuseEncoder, MuseNetwork
from clrelkt.encoders.muse.weights import weights_digest
from clrelkt.encoders.protocol import SaveForm
from clrelkt.encoders.published import PUBLISHED, load_published
from clrelkt.encoders.quantised import Quantised, quantise_columns, quantise_rows
from clrelkt.encoders.tensors import read_tensors, write_tensors
from clrelkt.encoders.tokenizer import SentencePieceTokenizer
from clrelkt.errors import EncoderError
from clrelkt.files import atomic_folder, write_json

__all__ = [
    "load_muse",
    "save_muse",
    "write_muse_files",
    "write_sentence_transformers_files",
]

SHARD_BYTES = 15 * 2**20
"""No file of a delta is larger."""

_PLAIN_FORMAT = 1
_GROWN_FORMAT = 2
_SMALL_FORMAT = 3
"""What is written says the lowest format that has it, so that older versions read it too."""

_ROW_BITS: Mapping[SaveForm, int] = MappingProxyType(
    {"delta-int8": 8, "delta-int6": 6, "delta-int4": 4}
)
_MATRIX_BITS = 8

_HEADER_BYTES = 16 * 2**10
_WHOLE_FILE = "model.safetensors"
_SENTENCEPIECE_FILE = "sentencepiece.model"
_TABLE = "embedding"
_MODULE = "clrelkt.encoders.sentence_transformers.MuseModule"


def save_muse(
    encoder: MuseEncoder,
    folder: Path,
    form: SaveForm = "whole",
    *,
    records: Mapping[str, Any] | None = None,
) -> None:
    """Write ``encoder`` to ``folder``, all of it or nothing; an encoder that is there is replaced.

    ``records`` are JSON values to be written beside it, by file name.

    Raises:
        EncoderError: a delta of an encoder whose base is not known, or values that float16 cannot
            hold.
        StorageError: it could not be written, or ``folder`` holds something else.
    """
    if not _is_whole(form):
        _check_base(encoder.identity.base)
    check_folder(folder)
    with atomic_folder(folder) as target:
        write_muse_files(encoder, target, form)
        write_sentence_transformers_files(target)
        for name, record in (records or {}).items():
            write_json(target / name, record)


def write_muse_files(encoder: MuseEncoder, target: Path, form: SaveForm) -> None:
    """Write what ``load_muse`` reads into an existing folder."""
    if encoder.tokenizer.rows is not None:
        raise EncoderError("an encoder with a compact vocabulary is not saved: write it back first")
    tensors = {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in encoder.network.named_parameters()
    }
    description = _description(encoder, form)
    if _is_whole(form):
        if form == "whole-float16":
            tensors = {name: tensor.half() for name, tensor in tensors.items()}
            _refuse_infinite(tensors, form)
        write_tensors(target / _WHOLE_FILE, tensors)
        (target / _SENTENCEPIECE_FILE).write_bytes(encoder.tokenizer.model)
    else:
        description |= _write_delta(target, encoder, tensors, form)
    write_json(target / DESCRIPTION_FILE, description)


def load_muse(folder: Path) -> MuseEncoder:
    """Read an encoder that ``save_muse`` wrote.

    Raises:
        EncoderError: the folder is no encoder, of a newer format, or its base is another one.
    """
    description = read_description(folder)
    if description["kind"] != "muse":
        raise EncoderError(f"{folder} holds a {description['kind']}, not mUSE")
    identity = EncoderIdentity(
        name=str(folder),
        base=description["base"],
        weights=description["weights"],
        languages=frozenset(description["languages"]),
    )
    if _is_whole(description["form"]):
        stored = read_tensors(folder / _WHOLE_FILE)
        network = _network({name: tensor.float() for name, tensor in stored.items()}, folder)
        return MuseEncoder(network, _read_tokenizer(folder, network), identity)
    if description["base"] not in PUBLISHED:
        raise EncoderError(
            f"{folder} is a delta of {description['base']!r}; known are {', '.join(PUBLISHED)}"
        )
    base = load_published(description["base"])
    network = _network(_apply_delta(folder, base, description), folder)
    tokenizer = base.tokenizer
    if "sentencepiece_sha256" in description:
        tokenizer = _read_tokenizer(folder, network)
        if _digest(tokenizer.model) != description["sentencepiece_sha256"]:
            raise EncoderError(
                f"{folder / _SENTENCEPIECE_FILE} is damaged, or of another encoder: its checksum "
                f"is not the one in {DESCRIPTION_FILE}"
            )
    return MuseEncoder(network, tokenizer, identity)


def _description(encoder: MuseEncoder, form: SaveForm) -> dict[str, Any]:
    return {
        "format": _SMALL_FORMAT if form in _ROW_BITS or form == "whole-float16" else _PLAIN_FORMAT,
        "kind": "muse",
        "form": form,
        "base": encoder.identity.base,
        "weights": encoder.weights,
        "languages": sorted(encoder.languages),
        "dimension": encoder.dimension,
    }


def _network(tensors: Mapping[str, torch.Tensor], folder: Path) -> MuseNetwork:
    try:
        return MuseNetwork(tensors)
    except EncoderError as error:
        raise EncoderError(f"{folder}: {error}") from error


def _read_tokenizer(folder: Path, network: MuseNetwork) -> SentencePieceTokenizer:
    path = folder / _SENTENCEPIECE_FILE
    try:
        tokenizer = SentencePieceTokenizer(path.read_bytes())
    except (OSError, EncoderError) as error:
        raise EncoderError(f"{path}: cannot be read ({error})") from error
    if tokenizer.pieces > network.embedding.shape[0]:
        raise EncoderError(
            f"{path} has {tokenizer.pieces} pieces, the embedding table only "
            f"{network.embedding.shape[0]} rows"
        )
    return tokenizer


def _write_delta(
    target: Path, encoder: MuseEncoder, tensors: Mapping[str, torch.Tensor], form: SaveForm
) -> dict[str, Any]:
    base_name = encoder.identity.base
    _check_base(base_name)
    published = load_published(base_name)
    base = {name: tensor.detach() for name, tensor in published.network.named_parameters()}
    shared = base[_TABLE].shape[0]
    if tensors[_TABLE].shape[0] < shared:
        raise EncoderError(
            f"the vocabulary has {tensors[_TABLE].shape[0]} rows, its base {shared}: save it whole"
        )
    grown: dict[str, Any] = {}
    if encoder.tokenizer.model != published.tokenizer.model:
        (target / _SENTENCEPIECE_FILE).write_bytes(encoder.tokenizer.model)
        grown = {
            "format": max(_GROWN_FORMAT, _description(encoder, form)["format"]),
            "rows": tensors[_TABLE].shape[0],
            "sentencepiece_sha256": _digest(encoder.tokenizer.model),
        }
    added = tensors[_TABLE].shape[0] - shared
    was = functional.pad(base[_TABLE], (0, 0, 0, added), value=float("nan"))  # Equal to nothing.
    changed = (tensors[_TABLE] != was).any(1).nonzero().squeeze(1)
    others = [
        name for name in tensors if name != _TABLE and not torch.equal(tensors[name], base[name])
    ]
    pieces = {f"{_TABLE}.rows": changed.to(torch.int32)}
    if form in _ROW_BITS:
        rows = tensors[_TABLE][changed] - was[changed].nan_to_num(0.0)
        pieces |= _small_rows(rows, _ROW_BITS[form])
        for name in others:
            pieces |= _small_matrix(name, tensors[name] - base[name])
    else:
        dtype = torch.float16 if form == "delta-float16" else torch.float32
        pieces |= _shards(f"{_TABLE}.values", tensors[_TABLE][changed].to(dtype))
        pieces |= {name: tensors[name].to(dtype) for name in others}
    _refuse_infinite(pieces, form)
    files = []
    for index, tensors_of_file in enumerate(_packed(pieces)):
        files.append(f"delta-{index:05d}.safetensors")
        write_tensors(target / files[-1], tensors_of_file)
    return {"base_sha256": weights_digest(base), "files": files} | grown


def _shards(name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cut a matrix into runs of rows that a file has room for."""
    per_file = (SHARD_BYTES - _HEADER_BYTES) // (values.shape[1] * values.element_size())
    parts = torch.split(values, per_file)
    return {f"{name}.{index}": part.contiguous() for index, part in enumerate(parts)}


def _small_rows(rows: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    quantised = quantise_rows(rows, bits)
    return _shards(f"{_TABLE}.values", quantised.codes) | {f"{_TABLE}.scales": quantised.scales}


def _small_matrix(name: str, difference: torch.Tensor) -> dict[str, torch.Tensor]:
    if difference.dim() == 1:
        return {name: difference}
    quantised = quantise_columns(difference, _MATRIX_BITS)
    return {name: quantised.codes, f"{name}.scales": quantised.scales}


def _refuse_infinite(pieces: Mapping[str, torch.Tensor], form: SaveForm) -> None:
    for name, tensor in pieces.items():
        if not torch.isfinite(tensor).all():
            raise EncoderError(f"{name} holds values that {form} cannot hold: save it whole")


def _is_whole(form: str) -> bool:
    return form.startswith("whole")


def _check_base(base: str) -> None:
    if base not in PUBLISHED:
        raise EncoderError(
            f"a delta needs a published base ({', '.join(PUBLISHED)}); this encoder's base is "
            f"{base!r}. Save it whole"
        )


def _packed(pieces: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    file: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in pieces.items():
        if file and size + tensor.nbytes > SHARD_BYTES - _HEADER_BYTES:
            yield file
            file, size = {}, 0
        file[name] = tensor
        size += tensor.nbytes
    yield file


def _apply_delta(
    folder: Path, base: MuseEncoder, description: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    tensors = {name: parameter.detach() for name, parameter in base.network.named_parameters()}
    if not isinstance(description.get("files"), list):
        raise EncoderError(f"{folder}: {DESCRIPTION_FILE} does not list the delta's files")
    if description.get("base_sha256") != weights_digest(tensors):
        raise EncoderError(
            f"{folder} is a delta of other {description['base']!r} weights than the ones installed "
            f"here ({base.weights})"
        )
    stored: dict[str, torch.Tensor] = {}
    for name in description["files"]:
        stored |= read_tensors(folder / name)
    rows = stored.pop(f"{_TABLE}.rows", None)
    parts = sorted(
        (name for name in stored if name.startswith(f"{_TABLE}.values.")),
        key=lambda name: int(name.rsplit(".", 1)[1]),
    )
    if rows is None or not parts:
        raise EncoderError(f"{folder}: the delta's changed rows are missing")
    table = _lengthened(tensors[_TABLE], rows, folder, description)
    values = torch.cat([stored.pop(name) for name in parts])
    bits = _ROW_BITS.get(description["form"])
    try:
        if bits is None:
            table[rows.long()] = values.float()
        else:
            scales = stored.pop(f"{_TABLE}.scales")
            shape = (len(rows), table.shape[1])
            table[rows.long()] += Quantised(values, scales, bits, shape, by_row=True).restored()
            stored = _restored_matrices(stored, tensors)
    except (IndexError, KeyError, RuntimeError, EncoderError) as error:
        raise EncoderError(f"{folder}: the changed rows do not fit their base ({error})") from error
    return tensors | {name: value.float() for name, value in stored.items()} | {_TABLE: table}


def _restored_matrices(
    stored: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Add the differences to the base; a name without a base stays, to be refused as unknown."""
    found = {}
    for name, value in stored.items():
        if name.endswith(".scales"):
            continue
        was, scales = base.get(name), stored.get(f"{name}.scales")
        if was is None or scales is None:
            found[name] = value if was is None else was + value
        else:
            quantised = Quantised(value, scales, _MATRIX_BITS, tuple(was.shape), by_row=False)
            found[name] = was + quantised.restored()
    return found


def _lengthened(
    table: torch.Tensor, stored: torch.Tensor, folder: Path, description: Mapping[str, Any]
) -> torch.Tensor:
    """Return a copy of the base's table, with room for the rows that ``stored`` adds."""
    shared = table.shape[0]
    rows = description.get("rows", shared)
    added = torch.arange(shared, rows) if isinstance(rows, int) and rows >= shared else None
    if added is None or not torch.equal(stored[stored >= shared].long(), added):
        raise EncoderError(
            f"{folder}: the changed rows do not fit: {DESCRIPTION_FILE} tells of {rows} in all, of "
            f"which its base has {shared}, but others are stored"
        )
    return torch.cat([table, table.new_zeros(len(added), table.shape[1])])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_sentence_transformers_files(target: Path, module: str = _MODULE) -> None:
    """Write what sentence-transformers opens a folder by; ``module`` is a class of its or ours."""
    write_json(target / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": module}])
    write_json(
        target / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
