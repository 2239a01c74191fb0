"""mUSE for sentence-transformers, in one file that needs nothing of clrelkt.

This file lies in the folder of an exported encoder, so that
``SentenceTransformer(folder, trust_remote_code=True)`` opens it on a machine without clrelkt. The
network is written as plainly as it can be; clrelkt's own is several times faster in training.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules.input_module import InputModule
from torch.nn import functional

__all__ = ["MuseSentenceEncoder"]

_BRANCHES = ((2, 0), (3, 1), (5, 2))
_WIDTH = 256
_EPSILON = 1e-12


class MuseSentenceEncoder(InputModule):
    """Google's multilingual Universal Sentence Encoder: texts to unit vectors of 512 numbers."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], pieces: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for name, tensor in tensors.items():
            self.register_parameter(name, torch.nn.Parameter(tensor.float()))
        self._pieces = pieces
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        """The SentencePiece model."""
        return self._processor

    @property
    def max_seq_length(self) -> None:
        """No limit."""
        return None

    def preprocess(  # type: ignore[override]
        self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Turn texts into token ids, shape (texts, longest), and a mask of the same shape."""
        texts = [(prompt or "") + text for text in inputs]
        ids = self._processor.encode(texts, add_bos=True, add_eos=True)
        lengths = torch.tensor([len(text) for text in ids])
        padded = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int64)
        mask = torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
        padded[mask] = torch.tensor([token for text in ids for token in text])
        return {"input_ids": padded, "attention_mask": mask.long()}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add ``sentence_embedding``, shape (texts, 512)."""
        mask = features["attention_mask"].unsqueeze(2)
        embedded = functional.embedding(features["input_ids"], self.get_parameter("embedding"))
        branches = [self._branch(index, embedded, mask) for index in range(len(_BRANCHES))]
        tokens = torch.cat([embedded, *branches], 2)
        tokens = self._layer_norm(tokens, "token", slice(None))
        tokens = tokens @ self.get_parameter("token_linear")
        tokens = tokens + self.get_parameter("token_linear_bias")
        text = (tokens * mask).sum(1) / mask.sum(1).sqrt()
        return features | {"sentence_embedding": self._residual_layers(text)}

    def _branch(self, index: int, embedded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        size, left = _BRANCHES[index]
        own = slice(index * _WIDTH, (index + 1) * _WIDTH)
        found = embedded @ self.get_parameter("projection")[:, own]
        found = found + self.get_parameter("projection_bias")[own]
        found = self._layer_norm(found, "branch", own) * mask
        for layer in (1, 2):
            kernel = self.get_parameter(f"convolution_{layer}_window_{size}")
            bias = self.get_parameter(f"convolution_bias_{layer}")[own]
            padded = functional.pad(found.transpose(1, 2), (left, size - 1 - left))
            convolved = functional.conv1d(padded, kernel.permute(2, 1, 0), bias)
            found = (torch.relu(convolved.transpose(1, 2)) + found) * mask
        return found

    def _layer_norm(self, values: torch.Tensor, name: str, own: slice) -> torch.Tensor:
        gain = self.get_parameter(f"{name}_gain")[own]
        bias = self.get_parameter(f"{name}_bias")[own]
        return functional.layer_norm(values, gain.shape, gain, bias, _EPSILON)

    def _residual_layers(self, text: torch.Tensor) -> torch.Tensor:
        get = self.get_parameter
        first = torch.relu(text @ get("hidden_0"))
        second = torch.relu(text @ get("shortcut_1") + first @ get("hidden_1"))
        third = torch.relu(second @ get("hidden_2"))
        fourth = torch.tanh(second @ get("shortcut_3") + third @ get("hidden_3"))
        return functional.normalize(fourth, dim=1)

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return int(self.get_parameter("hidden_3").shape[1])

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the tensors, the SentencePiece model and this file."""
        folder = Path(output_path)
        tensors = {name: tensor.detach().cpu() for name, tensor in self.named_parameters()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "sentencepiece.model").write_bytes(self._pieces)
        target = folder / "muse_module.py"
        if not target.exists():
            shutil.copyfile(__file__, target)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> Self:
        """Read what ``save`` wrote, from a folder or from a model hub."""
        known = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        where = {name: kwargs[name] for name in known if name in kwargs}
        paths = [
            cls.load_file_path(model_name_or_path, name, **where)
            for name in ("model.safetensors", "sentencepiece.model")
        ]
        if None in paths:
            raise FileNotFoundError(f"{model_name_or_path}: tensors or SentencePiece model missing")
        tensors, pieces = (Path(str(path)) for path in paths)
        return cls(load_file(tensors), pieces.read_bytes())
