"""Logits of a chunk of tokens, and softmax over them, in buffers that are given: the parts of everything chunked.

Legend of shapes: C tokens of a chunk, R rows of a block inside it, V the real vocabulary, H a hidden size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from distill_runtime.signals.head import HeadDescription, OutputHead

PROCESSOR_CHUNK_BYTES = 96 * 2**20
"""What the two [C, V] buffers of a chunk may take on a processor: 256 tokens of a vocabulary of 49,152."""
GPU_CHUNK_BYTES = 512 * 2**20
"""The same on a GPU, where larger products pay; as much again is spare."""
SMALLEST_CHUNK, LARGEST_CHUNK = 64, 8192
"""Tokens: below, products starve; above, nothing is gained."""
CACHED_ELEMENTS = 2**20
"""Logits per thread that are worked on together: few enough for a processor's cache, enough for threads to meet seldom
(each meeting costs a time slice where other programs want the cores)."""
WEIGHT_BLOCK = 4096
"""Rows of a head that a processor multiplies at once: faster than all of them, and what a head in another precision
costs in memory while it is converted."""


@dataclass(frozen=True)
class Head:
    """An output head, cut to the real vocabulary, as chunks use it."""

    weight_vh: torch.Tensor
    bias_v: torch.Tensor | None
    scale: float
    softcap: float | None

    @staticmethod
    def of(weight: torch.Tensor, description: HeadDescription, bias: torch.Tensor | None) -> "Head":
        """The head with this weight [V or more, H] and bias [V or more]; padding is cut off.

        Raises
        ------
        ValueError
            Weight or bias don't fit the description.
        """
        vocabulary = description.vocabulary
        if weight.shape[0] < vocabulary or weight.ndim != 2:
            raise ValueError(f"the head's weight has shape {list(weight.shape)}, its vocabulary is {vocabulary}")
        if description.bias != (bias is not None):
            raise ValueError(
                f"the head's description says bias: {description.bias}, the bias given is {bias is not None}"
            )
        return Head(
            weight_vh=weight.detach()[:vocabulary],
            bias_v=None if bias is None else bias.detach()[:vocabulary],
            scale=description.scale,
            softcap=description.softcap,
        )

    @staticmethod
    def of_teacher(head: OutputHead) -> "Head":
        """A published head."""
        return Head.of(head.weight, head.description, head.bias)

    @property
    def vocabulary(self) -> int:
        """V"""
        return self.weight_vh.shape[0]


def computing_dtype(hidden: torch.Tensor) -> torch.dtype:
    """What sums and exponentials are made in: float32, or float64 for float64 states."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def chunk_length(tokens: int, vocabulary: int, dtype: torch.dtype, device: torch.device, wanted: int | None) -> int:
    """Tokens of a chunk: `wanted`, or as many as `PROCESSOR_CHUNK_BYTES` or `GPU_CHUNK_BYTES` have room for; then
    levelled, so that the last chunk is not a small one. At least 1.

    Raises
    ------
    ValueError
        `wanted` is below 1.
    """
    if wanted is None:
        budget = PROCESSOR_CHUNK_BYTES if device.type == "cpu" else GPU_CHUNK_BYTES
        wanted = budget // (2 * vocabulary * dtype.itemsize)
        wanted = min(max(wanted, SMALLEST_CHUNK), LARGEST_CHUNK)
    if wanted < 1:
        raise ValueError(f"a chunk has at least 1 token, not {wanted}")
    chunks = max(1, -(-tokens // wanted))
    return max(1, -(-tokens // chunks))


def block_rows(chunk: int, vocabulary: int, device: torch.device) -> int:
    """Rows whose logits are worked on together: what a processor's cache holds, all of them on other devices."""
    if device.type != "cpu":
        return chunk
    return min(chunk, max(1, CACHED_ELEMENTS * torch.get_num_threads() // vocabulary))


def slices(total: int, length: int) -> Iterator[slice]:
    """Neighbouring slices of `length`, the last one shorter."""
    return (slice(start, min(start + length, total)) for start in range(0, total, length))


def _multiplies_mixed(hidden: torch.Tensor, weight: torch.Tensor) -> bool:
    """Does the device multiply these in bfloat16 and add in float32?"""
    return hidden.is_cuda and hidden.dtype == weight.dtype == torch.bfloat16


def product_into(logits_cv: torch.Tensor, hidden_ch: torch.Tensor, weight_vh: torch.Tensor) -> None:
    """logits = hidden · weightᵀ, added up in the logits' precision whatever that of the inputs."""
    if _multiplies_mixed(hidden_ch, weight_vh):
        torch.ops.aten.mm.dtype_out(hidden_ch, weight_vh.T, logits_cv.dtype, out=logits_cv)
        return
    hidden_ch = hidden_ch.to(logits_cv.dtype)
    for rows in slices(weight_vh.shape[0], WEIGHT_BLOCK if hidden_ch.device.type == "cpu" else weight_vh.shape[0]):
        torch.mm(hidden_ch, weight_vh[rows].to(logits_cv.dtype).T, out=logits_cv[:, rows])


def hidden_gradient_into(gradient_ch: torch.Tensor, logit_gradient_cv: torch.Tensor, weight_vh: torch.Tensor) -> None:
    """gradient = logit gradient · weight, added up in the gradient's precision."""
    if logit_gradient_cv.is_cuda and weight_vh.dtype == torch.bfloat16:
        rounded = logit_gradient_cv.to(torch.bfloat16)
        torch.ops.aten.mm.dtype_out(rounded, weight_vh, gradient_ch.dtype, out=gradient_ch)
        return
    if weight_vh.dtype == gradient_ch.dtype:
        torch.mm(logit_gradient_cv, weight_vh, out=gradient_ch)
        return
    gradient_ch.zero_()
    for rows in slices(weight_vh.shape[0], WEIGHT_BLOCK):
        gradient_ch.addmm_(logit_gradient_cv[:, rows], weight_vh[rows].to(gradient_ch.dtype))


def add_weight_gradient(gradient_vh: torch.Tensor, logit_gradient_cv: torch.Tensor, hidden_ch: torch.Tensor) -> None:
    """gradient += logit gradientᵀ · hidden, added up in the gradient's precision."""
    if logit_gradient_cv.is_cuda and hidden_ch.dtype == torch.bfloat16:
        rounded = logit_gradient_cv.to(torch.bfloat16)
        torch.ops.aten.addmm.dtype_out(gradient_vh, rounded.T, hidden_ch, gradient_vh.dtype, out=gradient_vh)
        return
    gradient_vh.addmm_(logit_gradient_cv.T, hidden_ch.to(gradient_vh.dtype))


def finish_logits_(product_rv: torch.Tensor, head: Head) -> None:
    """Makes logits of a product in place: bias, scale, softcap, in this order."""
    if head.bias_v is not None:
        product_rv.add_(head.bias_v)
    if head.scale != 1.0:
        product_rv.mul_(head.scale)
    if head.softcap is not None:
        product_rv.div_(head.softcap).tanh_().mul_(head.softcap)


def log_softmax_into(result_rv: torch.Tensor, logits_rv: torch.Tensor) -> None:
    """result = log softmax(logits); not in place."""
    torch.log_softmax(logits_rv, -1, out=result_rv)


def chosen(log_probabilities_rv: torch.Tensor, targets_r: torch.Tensor) -> torch.Tensor:
    """[R]: the log-probability of each row's target."""
    return log_probabilities_rv.gather(1, targets_r[:, None])[:, 0]
