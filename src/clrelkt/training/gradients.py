"""Loss and gradients of a batch, in pieces that fit into memory, over all processes.

The loss is a function of the texts' vectors alone. So vectors are made first, by every process for
its share of the texts, and exchanged; each process computes the loss of the whole batch and the
gradient of every vector; and the share's own gradients flow back into the encoder. Where the share
is too large for the memory, its vectors are made without gradients, piece by piece, and once the
gradients of the vectors are known each piece is encoded again with gradients (gradient caching, Gao
et al. 2021, https://aclanthology.org/2021.repl4nlp-1.31/). All of this is exact: one process or
four, in one piece or in ten, the loss and its gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional

from clrelkt.encoders import RaggedBatch, TrainableEncoder
from clrelkt.encoders.memory import TokenBudget
from clrelkt.errors import TrainingError
from clrelkt.training.process_group import ProcessGroup
from clrelkt.training.recipe import Precision
from clrelkt.training.stage_method import StageMethod

__all__ = ["BatchGradients", "SharedBatch"]

_BUCKET_NUMBERS = 33_554_432


@dataclass(frozen=True)
class SharedBatch:
    """A batch of examples, and this process's share of its texts.

    ``texts`` are the share's, on the device, and ``lengths`` (share,) their tokens. ``counts``
    (processes,) says how many texts each process has. ``places`` has the shape of the method's
    ``texts`` and says where each stands when all shares lie one behind the other.
    """

    examples: np.ndarray
    texts: RaggedBatch
    lengths: Sequence[int]
    counts: Sequence[int]
    places: torch.Tensor

    def piece(self, run: slice) -> RaggedBatch:
        """Return a run of the share's texts."""
        if run == slice(0, len(self.lengths)):
            return self.texts
        start = sum(self.lengths[: run.start])
        tokens = slice(start, start + sum(self.lengths[run]))
        return RaggedBatch(
            self.texts.token_ids[tokens], self.texts.lengths[run], self.texts.host_lengths[run]
        )


class BatchGradients:
    """Computes a batch's loss and leaves its gradients with the encoder's parameters."""

    def __init__(
        self,
        encoder: TrainableEncoder,
        method: StageMethod,
        *,
        group: ProcessGroup,
        budget: TokenBudget,
        precision: Precision = "float32",
    ) -> None:
        """Prepare for batches of ``encoder``, which lies on the group's device.

        Raises:
            TrainingError: it lies on a device of another kind.
        """
        if encoder.device.type != group.device.type:
            raise TrainingError(
                f"the encoder lies on {encoder.device}, but the process group computes on "
                f"{group.device}: make the group with ProcessGroup(device=encoder.device)"
            )
        self._encoder = encoder
        self._method = method
        self._group = group
        self._budget = budget
        self._low = precision == "bfloat16"
        self._parameters = [p for _, p in encoder.named_parameters() if p.requires_grad]
        self._sum = _GradientSum(self._parameters, group)
        self._in_one_piece: torch.Tensor | None = None

    def __call__(self, batch: SharedBatch) -> torch.Tensor:
        """Return the loss, a scalar without gradients; what gradients there were are gone.

        Raises:
            EncoderError: not even a single text fits into memory.
            LostProcessError: another process has ended.
        """
        loss = self.start(batch)
        self.finish()
        return loss

    def start(self, batch: SharedBatch) -> torch.Tensor:
        """Do what a call does, but leave the last gradients on their way between the processes.

        ``finish`` must follow. Raises what the call does.
        """
        self._forget()
        self._sum.start()
        own = self._share_vectors(batch)
        vectors = self._group.gather(own, batch.counts).requires_grad_()
        loss = self._method.loss(functional.embedding(batch.places, vectors), batch.examples)
        loss.backward()  # type: ignore[no-untyped-call]
        first = sum(batch.counts[: self._group.rank])
        assert vectors.grad is not None
        self._backward(batch, vectors.grad[first : first + len(own)])
        return loss.detach()

    def finish(self, take: Callable[[], object] | None = None) -> None:
        """Wait for gradients that are on their way.

        ``take`` is called when those of some parameters are there, and again for the rest. Each
        time no other parameter has one, and those that were there are gone.

        Raises:
            LostProcessError: another process has ended.
        """
        if take is None:
            self._sum.finish()
            return
        for _ in self._sum.arrivals():
            take()
            self._forget()

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _vectors(self, texts: RaggedBatch) -> torch.Tensor:
        with torch.autocast(self._encoder.device.type, torch.bfloat16, enabled=self._low):
            vectors = self._encoder(texts)
        # The loss is computed as precisely as the parameters are kept.
        return vectors.to(self._parameters[0].dtype)

    def _share_vectors(self, batch: SharedBatch) -> torch.Tensor:
        """Return the share's vectors, detached, and keep their graph where one piece will do."""
        while True:
            runs = self._budget.cut(batch.lengths)
            try:
                if len(runs) == 1:
                    self._in_one_piece = self._vectors(batch.texts)
                    return self._in_one_piece.detach()
                with torch.no_grad():
                    parts = [self._vectors(batch.piece(run)) for run in runs]
                return torch.cat(parts) if parts else self._no_vectors()
            except torch.OutOfMemoryError:
                self._in_one_piece = None
            self._budget.halve(batch.lengths)

    def _no_vectors(self) -> torch.Tensor:
        like = self._parameters[0]
        return like.new_empty(0, self._encoder.dimension)

    def _backward(self, batch: SharedBatch, gradient: torch.Tensor) -> None:
        """Let the gradient of the share's vectors flow into the parameters."""
        whole, self._in_one_piece = self._in_one_piece, None
        if whole is not None:
            try:
                self._sum.open()
                whole.backward(gradient)  # type: ignore[no-untyped-call]
                return
            except torch.OutOfMemoryError:
                del whole
            self._start_again(batch)
        while True:
            runs = self._budget.cut(batch.lengths)
            try:
                for run in runs:
                    if run is runs[-1]:
                        self._sum.open()
                    self._vectors(batch.piece(run)).backward(gradient[run])  # type: ignore[no-untyped-call]
                return
            except torch.OutOfMemoryError:
                pass
            self._start_again(batch)

    def _start_again(self, batch: SharedBatch) -> None:
        self._sum.close()
        self._forget()
        self._budget.halve(batch.lengths)


class _GradientSum:
    """Adds up gradients over the processes, bucket by bucket while the backward pass goes on.

    A bucket is a copy of some parameters' gradients. It sets out once they are final, but never
    before the bucket ahead of it, so that all processes send in the same order. What has set out
    stays right when the backward pass is done again: it was final.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], group: ProcessGroup) -> None:
        self._group = group
        self._buckets: list[_Bucket] = []
        self._sent: list[dist.Work | None] = []
        self._open = False
        if group.size == 1:
            return
        # The last layers' gradients are there first.
        for parameter in reversed(parameters):
            if not self._buckets or self._buckets[-1].full(parameter):
                self._buckets.append(_Bucket())
            self._buckets[-1].add(parameter)
            arrived = self._arrived(self._buckets[-1])
            parameter.register_post_accumulate_grad_hook(arrived)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Begin with a batch."""
        self._sent = []
        self.close()

    def open(self) -> None:
        """From now on a gradient that arrives is final."""
        self._open = True

    def close(self) -> None:
        """From now on it is not."""
        self._open = False
        for bucket in self._buckets:
            bucket.here = 0

    def finish(self) -> None:
        """Send the rest, and put the sums in the place of the parameters' gradients."""
        self._hand_back(self._coming())

    def arrivals(self) -> Iterator[None]:
        """Do what ``finish`` does in parts: the last two buckets are parts of their own.

        They set out when the backward pass is all but done, and the last is the largest where it is
        a vocabulary: what is done with the others need not wait for them. A part's gradients must
        be taken before the next part.
        """
        coming = self._coming()
        for bucket, _ in coming:
            bucket.forget()
        cuts = [max(0, len(coming) - late) for late in (2, 1, 0)]
        for start, end in pairwise(sorted({0, *cuts})):
            self._hand_back(coming[start:end])
            yield
        if not coming:
            yield

    def _coming(self) -> list[tuple[_Bucket, dist.Work | None]]:
        while len(self._sent) < len(self._buckets):
            self._send()
        sent, self._sent = self._sent, []
        return list(zip(self._buckets, sent, strict=True))

    def _hand_back(self, coming: Sequence[tuple[_Bucket, dist.Work | None]]) -> None:
        for bucket, work in coming:
            self._group.finish(work)
            bucket.hand_back()

    def _arrived(self, bucket: _Bucket) -> Callable[[torch.Tensor], None]:
        def hook(parameter: torch.Tensor) -> None:
            if not self._open:
                return
            bucket.here += 1
            while len(self._sent) < len(self._buckets) and self._buckets[len(self._sent)].whole:
                self._send()

        return hook

    def _send(self) -> None:
        flat = self._buckets[len(self._sent)].pack()
        self._sent.append(self._group.start_adding_up(flat))


class _Bucket:
    """Some parameters, and a flat copy of their gradients; a single one's is no copy."""

    def __init__(self) -> None:
        self.here = 0
        self._parameters: list[torch.nn.Parameter] = []
        self._copy: tuple[torch.Tensor, list[torch.Tensor]] | None = None
        self._parts: list[torch.Tensor] = []

    @property
    def whole(self) -> bool:
        """Whether every gradient is final."""
        return self.here >= len(self._parameters)

    def full(self, parameter: torch.nn.Parameter) -> bool:
        """Tell whether ``parameter`` belongs into another bucket."""
        numbers = sum(own.numel() for own in self._parameters)
        other = parameter.dtype != self._parameters[0].dtype
        return other or numbers + parameter.numel() > _BUCKET_NUMBERS

    def add(self, parameter: torch.nn.Parameter) -> None:
        self._parameters.append(parameter)

    def pack(self) -> torch.Tensor:
        """Return all gradients in a row, zeros where a parameter has none."""
        gradients = [own.grad for own in self._parameters]
        first = gradients[0]
        if len(gradients) == 1 and first is not None and first.is_contiguous():
            # A vocabulary's, most often: large, and the last to set out.
            self._parts = [first]
            return first.view(-1)
        self._copy = self._copy or self._room()
        flat, self._parts = self._copy
        owners = zip(self._parts, gradients, strict=True)
        there = [(part, own) for part, own in owners if own is not None]
        if len(there) < len(self._parts):
            flat.zero_()
        if there:
            # A kernel for all of them: one for each would take longer to start than to run.
            parts, own = zip(*there, strict=True)
            torch._foreach_copy_(parts, own)
        return flat

    def _room(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        sizes = [own.numel() for own in self._parameters]
        flat = self._parameters[0].detach().new_empty(sum(sizes))
        runs = zip(torch.split(flat, sizes), self._parameters, strict=True)
        return flat, [run.view_as(own) for run, own in runs]

    def forget(self) -> None:
        """Take the parameters' gradients away."""
        for parameter in self._parameters:
            parameter.grad = None

    def hand_back(self) -> None:
        """Give the parameters what has become of the gradients."""
        for parameter, part in zip(self._parameters, self._parts, strict=True):
            parameter.grad = part
        self._parts = []
