"""mUSE with padding, in plain PyTorch: the peer of the ragged network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["PaddedMuse"]

_WINDOWS = ((2, 0), (3, 1), (5, 2))
_WIDTH = 256
_EPSILON = 1e-12


class PaddedMuse(nn.Module):
    """Token ids, shape (texts, longest), and lengths, shape (texts,), to unit vectors.

    The parameters have the names and shapes of ``MuseNetwork``. The last linear layer is applied
    to the sum over the tokens, as there.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor.detach().clone()))

    def forward(self, token_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return unit vectors, shape (texts, 512)."""
        get = self.get_parameter
        places = torch.arange(token_ids.shape[1], device=lengths.device)
        embedded = functional.embedding(token_ids, get("embedding"))
        mask = (places < lengths.unsqueeze(1)).unsqueeze(2).to(embedded.dtype)
        parts = [embedded]
        projected = embedded @ get("projection") + get("projection_bias")
        for index, (size, left) in enumerate(_WINDOWS):
            own = slice(index * _WIDTH, (index + 1) * _WIDTH)
            gain, bias = get("branch_gain")[own], get("branch_bias")[own]
            branch = functional.layer_norm(projected[..., own], (_WIDTH,), gain, bias, _EPSILON)
            branch = branch * mask
            for layer in (1, 2):
                convolved = self._convolve(branch, layer, size, left, own)
                branch = (torch.relu(convolved) + branch) * mask
            parts.append(branch)
        joined = torch.cat(parts, dim=2)
        tokens = functional.layer_norm(
            joined, joined.shape[2:], get("token_gain"), get("token_bias"), _EPSILON
        )
        count = lengths.unsqueeze(1).to(embedded.dtype)
        summed = (tokens * mask).sum(1) @ get("token_linear") + count * get("token_linear_bias")
        return self._text_layers(summed / count.sqrt())

    def _convolve(
        self, branch: torch.Tensor, layer: int, size: int, left: int, own: slice
    ) -> torch.Tensor:
        kernel = self.get_parameter(f"convolution_{layer}_window_{size}").permute(2, 1, 0)
        bias = self.get_parameter(f"convolution_bias_{layer}")[own]
        padded = functional.pad(branch.transpose(1, 2), (left, size - 1 - left))
        return functional.conv1d(padded, kernel, bias).transpose(1, 2)

    def _text_layers(self, text: torch.Tensor) -> torch.Tensor:
        get = self.get_parameter
        first = torch.relu(text @ get("hidden_0"))
        second = torch.relu(text @ get("shortcut_1") + first @ get("hidden_1"))
        third = torch.relu(second @ get("hidden_2"))
        return functional.normalize(
            torch.tanh(second @ get("shortcut_3") + third @ get("hidden_3")), dim=1
        )

    def encode(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the vectors of texts, each a row of token ids, padded to the longest."""
        lengths = torch.tensor([len(text) for text in texts], device=texts[0].device)
        vectors: torch.Tensor = self(nn.utils.rnn.pad_sequence(list(texts), True), lengths)
        return vectors
