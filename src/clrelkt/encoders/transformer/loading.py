"""Reading transformers: folders of sentence-transformers and of Hugging Face, adapters, hub names.

A folder of sentence-transformers has a ``modules.json`` that lists a Transformer, a Pooling and
perhaps Dense and Normalize modules; a plain one has a ``config.json`` and gets mean pooling. An
adapter of peft (``adapter_config.json``) is merged into the weights of its base.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clrelkt.encoders.description import DESCRIPTION_FILE, read_description
from clrelkt.encoders.identity import EncoderIdentity
from clrelkt.encoders.tensors import read_tensors
from clrelkt.encoders.transformer.encoder import (
    Prompts,
    TransformerEncoder,
    TransformerNetwork,
    Unit,
)
from clrelkt.encoders.transformer.options import TransformerOptions
from clrelkt.encoders.transformer.pooling import PoolingMode, check_modes
from clrelkt.encoders.transformer.tokenizer import TransformerTokenizer
from clrelkt.errors import EncoderError, MissingExtraError, SettingsError, UnknownNameError
from clrelkt.progress import quiet_transformers

__all__ = ["fetch_from_hub", "is_hub_name", "is_model_folder", "load_transformer"]

_CONFIG = "config.json"
_ADAPTER = "adapter_config.json"
_MODULES = "modules.json"
_PROMPTS = "config_sentence_transformers.json"
_LIMITS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_camembert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_mpnet_config.json",
)
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
_HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_NOT_FROM_HUB = ("onnx/*", "openvino/*", "*training_args*")
_PASSAGE_PROMPTS = ("document", "passage", "corpus")
_QUESTION_PROMPTS = ("query", "question")
_NO_LIMIT = 10**6
_DEFAULT_LENGTH = 512
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LEGACY_POOLING: Mapping[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    f"torch.nn.modules.{module}.{kind.__name__}": kind
    for module, kinds in (
        ("activation", (nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Tanh)),
        ("linear", (nn.Identity,)),
    )
    for kind in kinds
}


def is_model_folder(folder: Path) -> bool:
    """Whether a folder looks like a model of Hugging Face or sentence-transformers."""
    return any((folder / name).is_file() for name in (_CONFIG, _MODULES, _ADAPTER))


def is_hub_name(name: str) -> bool:
    """Whether a name could be that of a model on the hub."""
    return bool(_HUB_NAME.fullmatch(name))


def fetch_from_hub(name: str, options: TransformerOptions | None = None) -> Path:
    """Return the folder of a model on the hub, fetching what is not here yet.

    Pickled weights (.bin) are fetched only where there are no others, and Python files only where
    ``options`` trust them.

    Raises:
        UnknownNameError: it cannot be fetched.
        MissingExtraError: the library that fetches is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "transformers") from error
    options = options or TransformerOptions()
    wanted = [*_HUB_FILES, *(["*.py"] if options.trust_remote_code else [])]

    def fetched(*more: str) -> Path:
        found = huggingface_hub.snapshot_download(
            name,
            revision=options.revision,
            allow_patterns=[*wanted, *more],
            ignore_patterns=list(_NOT_FROM_HUB),
        )
        return Path(found)

    try:
        with quiet_transformers():
            folder = fetched()
            return folder if any(folder.rglob("*.safetensors")) else fetched("*.bin")
    except Exception as error:  # The network fails in many ways, each with an error of its own.
        said = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise UnknownNameError(
            f"no encoder {name!r}: it is no folder here, and the model hub did not give it out "
            f"({type(error).__name__}: {said.strip()[:200]}). Check the name and the connection, "
            "or name a folder that holds the model"
        ) from error


def load_transformer(
    folder: Path, options: TransformerOptions | None = None, *, name: str | None = None
) -> TransformerEncoder:
    """Read a transformer encoder from a folder. ``name`` is what tables call it.

    Raises:
        EncoderError: the folder lacks weights or a tokenizer, or holds what is not supported.
        SettingsError: an option that does not fit the model.
        MissingExtraError: transformers, or peft for an adapter, is not installed.
    """
    options = options or TransformerOptions()
    layout = _ModuleFolders.of(folder)
    model, source = _load_model(layout.transformer, options.trust_remote_code)
    limit = _max_length(layout.transformer, model.config, source, options)
    source.model_max_length = limit
    if _json(layout.transformer, _LIMITS).get("do_lower_case"):
        _lower_case(source)
    pooling = options.pooling or layout.pooling
    network = TransformerNetwork(model, check_modes(pooling), layout.projections)
    _check_pooled(network, folder)
    if options.dimension is not None:
        added = _projection(network.dimension, options.dimension)
        network = TransformerNetwork(
            network.model, network.pooling, [*layout.projections, added], network.unused
        )
    return TransformerEncoder(
        network,
        TransformerTokenizer.of(source, limit),
        _identity(folder, layout.transformer, model.config, options, name),
        _prompts(folder, options, layout.include_prompt),
    )


@dataclass(frozen=True)
class _ModuleFolders:
    """What ``modules.json`` tells: the transformer's folder, the pooling and what follows it."""

    transformer: Path
    pooling: tuple[str, ...]
    include_prompt: bool
    projections: tuple[nn.Module, ...]

    @classmethod
    def of(cls, folder: Path) -> _ModuleFolders:
        if not (folder / _MODULES).is_file():
            return cls(folder, ("mean",), True, ())
        modules = _modules(folder)
        kinds = [kind for kind, _ in modules]
        if kinds[:2] != ["Transformer", "Pooling"]:
            raise EncoderError(
                f"{folder / _MODULES} lists {', '.join(kinds)}: a Transformer and a Pooling were "
                "expected first. Other modules are not supported"
            )
        pooling, include_prompt = _pooling(modules[1][1])
        projections: list[nn.Module] = []
        for kind, place in modules[2:]:
            if kind == "Dense":
                projections.append(_dense(place))
            elif kind == "Normalize":
                projections.append(Unit())
            else:
                raise EncoderError(
                    f"{folder / _MODULES} lists a {kind}: beside Transformer and Pooling only "
                    "Dense and Normalize are supported"
                )
        while projections and isinstance(projections[-1], Unit):
            projections.pop()  # Vectors are made unit vectors in any case.
        return cls(modules[0][1], pooling, include_prompt, tuple(projections))


def _modules(folder: Path) -> list[tuple[str, Path]]:
    path = folder / _MODULES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        modules = [(str(module["type"]), folder / str(module["path"])) for module in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{path}: no list of modules ({error!r})") from error
    for type_, place in modules:
        if not type_.startswith("sentence_transformers."):
            raise EncoderError(
                f"{path}: the module {type_} is code from elsewhere, which is not run"
            )
        if not place.resolve().is_relative_to(folder.resolve()):
            raise EncoderError(f"{path}: {place} lies outside the folder")
    return [(type_.rsplit(".", 1)[1], place) for type_, place in modules]


def _pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    config = _json(folder, (_CONFIG,))
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)] or ["mean"]
    try:
        checked = check_modes([modes] if isinstance(modes, str) else modes)
    except (SettingsError, TypeError) as error:
        raise EncoderError(f"{folder / _CONFIG}: {error}") from error
    return checked, bool(config.get("include_prompt", True))


def _dense(folder: Path) -> nn.Module:
    config = _json(folder, (_CONFIG,))
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        raise EncoderError(
            f"{folder / _CONFIG}: activation {activation!r}, residual "
            f"{config.get('use_residual', False)}: no residual and one of "
            f"{', '.join(kind.__name__ for kind in _ACTIVATIONS.values())} expected"
        )
    tensors = _dense_tensors(folder)
    try:
        linear = nn.Linear(config["in_features"], config["out_features"], config.get("bias", True))
        linear.load_state_dict(
            {name.removeprefix("linear."): tensor.float() for name, tensor in tensors.items()}
        )
    except (KeyError, TypeError, RuntimeError) as error:
        raise EncoderError(
            f"{folder}: the Dense layer does not fit its config ({error})"
        ) from error
    return nn.Sequential(linear, _ACTIVATIONS[activation]())


def _dense_tensors(folder: Path) -> dict[str, torch.Tensor]:
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if safe.is_file() or not pickled.is_file():
        return read_tensors(safe)
    try:
        return dict(torch.load(pickled, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises errors of many kinds for a damaged file.
        raise EncoderError(f"{pickled}: tensors cannot be read ({error!r:.200})") from error


def _load_model(folder: Path, trust: bool) -> tuple[Any, Any]:
    """Return the model of a folder, in float32, and its tokenizer."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "transformers") from error
    adapter = (folder / _ADAPTER).is_file()
    if not adapter and not (folder / _CONFIG).is_file():
        raise EncoderError(f"{folder} is no encoder: it has no {_CONFIG}")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise EncoderError(
            f"{folder} has no tokenizer (none of {', '.join(_TOKENIZER_FILES[:4])}, ...). Save the "
            "tokenizer that belongs to the model beside it: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    _check_trust(folder, trust)
    try:
        with quiet_transformers():
            model = _adapted(folder, trust) if adapter else _plain(folder, trust)
            source = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=trust
            )
    except (EncoderError, MissingExtraError):
        raise
    except Exception as error:  # Of a damaged folder the library raises errors of any kind.
        reason = " ".join(str(error).split())
        raise EncoderError(
            f"{folder} is no encoder that can be loaded ({type(error).__name__}: {reason[:300]})"
        ) from error
    _check_config(folder, model.config)
    return model, source


def _plain(folder: Path | str, trust: bool, *, local: bool = True) -> Any:
    """Load a model; weights of the old form (.bin) are unpickled as tensors alone."""
    import transformers

    model, report = transformers.AutoModel.from_pretrained(
        str(folder),
        local_files_only=local,
        trust_remote_code=trust,
        dtype=torch.float32,
        weights_only=True,
        output_loading_info=True,
    )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise EncoderError(
            f"{folder}: the weights lack {len(missing)} tensors of a {type(model).__name__}, "
            f"{missing[0]} among them"
        )
    return model


def _adapted(folder: Path, trust: bool) -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "lora") from error
    base = peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise EncoderError(f"{folder / _ADAPTER} does not name the model that it adapts")
    near = folder / base
    place = near if near.is_dir() else Path(base)
    whole = _plain(place if place.is_dir() else fetch_from_hub(base), trust)
    adapted: Any = peft.PeftModel.from_pretrained(whole, str(folder))
    return adapted.merge_and_unload()


def _check_trust(folder: Path, trust: bool) -> None:
    config = _json(folder, (_CONFIG,)) if (folder / _CONFIG).is_file() else {}
    if trust or not config.get("auto_map"):
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        raise EncoderError(
            f"{folder} brings code of its own (auto_map in {_CONFIG}), which is not run unasked. "
            "If you trust its author: load_encoder(..., TransformerOptions(trust_remote_code=True))"
        )


def _check_config(folder: Path, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise EncoderError(
            f"{folder} holds a {config.model_type}, an encoder with a decoder; encoders alone are "
            "supported"
        )
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise EncoderError(f"{folder} holds a {config.model_type}, which is no text encoder")


def _max_length(folder: Path, config: Any, source: Any, options: TransformerOptions) -> int:
    """Return how many tokens the model reads at once."""
    positions = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
    if config.model_type in ("camembert", "mpnet", "roberta", "xlm-roberta"):
        padding = 1 if config.model_type == "mpnet" else config.pad_token_id
        positions -= padding + 1
    wanted = options.max_length
    if wanted is not None and wanted > positions:
        raise SettingsError(f"max_length {wanted}: {folder} has {positions} places for tokens")
    own = _json(folder, _LIMITS).get("max_seq_length")
    tokenizer = source.model_max_length if source.model_max_length < _NO_LIMIT else None
    given = wanted or own or tokenizer or (positions if positions < _NO_LIMIT else _DEFAULT_LENGTH)
    return min(int(given), positions)


def _lower_case(source: Any) -> None:
    from tokenizers.normalizers import Lowercase, Sequence

    backend = getattr(source, "backend_tokenizer", None)
    if backend is not None:
        old = backend.normalizer
        backend.normalizer = Lowercase() if old is None else Sequence([Lowercase(), old])


def _check_pooled(network: TransformerNetwork, folder: Path) -> None:
    width = int(network.model.config.hidden_size) * len(network.pooling)
    for projection in network.projections:
        if isinstance(projection, nn.Sequential):
            expected = int(projection[0].in_features)  # type: ignore[arg-type]
            if width != expected:
                raise EncoderError(
                    f"{folder}: a Dense layer takes {expected} numbers, but gets {width} (pooling "
                    f"{', '.join(network.pooling)})"
                )
            width = int(projection[0].out_features)  # type: ignore[arg-type]


def _projection(width: int, dimension: int) -> nn.Module:
    """Return a linear layer that keeps angles as well as a random one can; always the same."""
    linear = nn.Linear(width, dimension, bias=False)
    generator = torch.Generator().manual_seed(0)
    nn.init.orthogonal_(linear.weight, generator=generator)
    return nn.Sequential(linear, nn.Identity())


def _prompts(folder: Path, options: TransformerOptions, include: bool) -> Prompts:
    config = _json(folder, (_PROMPTS,))
    named = config.get("prompts") or {}
    default = named.get(config.get("default_prompt_name") or "", "")
    prompts = Prompts(
        _first(options.question_prompt, named, _QUESTION_PROMPTS, default),
        _first(options.passage_prompt, named, _PASSAGE_PROMPTS, default),
    )
    if not include and prompts != Prompts():
        raise EncoderError(
            f"{folder}: its pooling leaves the prompt out (include_prompt false), which is not "
            "supported"
        )
    return prompts


def _first(given: str | None, named: Mapping[str, str], keys: Sequence[str], default: str) -> str:
    if given is not None:
        return given
    # sentence-transformers writes empty prompts beside the one that was meant.
    return next((named[key] for key in keys if named.get(key)), default)


def _identity(
    folder: Path,
    transformer: Path,
    config: Any,
    options: TransformerOptions,
    name: str | None,
) -> EncoderIdentity:
    languages = frozenset(options.languages or ())
    own = str(name or folder)
    if (folder / DESCRIPTION_FILE).is_file():
        description = read_description(folder)
        languages = languages or frozenset(description["languages"])
        return EncoderIdentity(own, description["base"], description["weights"], languages)
    label = f"{config.model_type}, sha256 {_weights_digest(transformer)}"
    return EncoderIdentity(own, name or folder.name, label, languages)


def _weights_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    for path in sorted(files):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _json(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the object in the first of the files that is there; an empty one if none is."""
    for name in names:
        path = folder / name
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise EncoderError(f"{path} cannot be read ({error})") from error
            if not isinstance(found, dict):
                raise EncoderError(f"{path}: an object expected, got {type(found).__name__}")
            return found
    return {}
