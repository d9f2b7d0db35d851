"""The teacher's distribution over the whole vocabulary, a chunk of targets at a time: [T, V] never exists.

Legend of shapes: T targets, C targets of a chunk, H the teacher's hidden size, V the real vocabulary.
"""

from collections.abc import Iterator

import torch

from distill_runtime.losses.vocabulary import (
    Head,
    chunk_length,
    computing_dtype,
    finish_logits_,
    log_softmax_into,
    product_into,
    slices,
)
from distill_runtime.signals.head import OutputHead


class LogitsNotFinite(Exception):
    """Of a finite state the head made logits that are not."""

    def __init__(self, target: int) -> None:
        super().__init__(f"the logits of target {target} are not finite")
        self.target = target
        """Place among the states that were given."""


def log_probability_chunks(states: torch.Tensor, head: OutputHead, temperature: float) -> Iterator[torch.Tensor]:
    """log softmax(logits / temperature) of neighbouring targets, [C, V] each, in float32 (float64 for float64 states).

    A chunk is overwritten by the next one. Where the cuts are depends on T, V and the device alone, so that a sequence
    that is encoded by itself gives the same bytes whatever is encoded beside it.

    Parameters
    ----------
    states
        [T, H], on the device of the head.

    Raises
    ------
    LogitsNotFinite
        They have no distribution.
    """
    side = Head.of_teacher(head)
    dtype = computing_dtype(states)
    length = chunk_length(len(states), side.vocabulary, dtype, states.device, None)
    buffers = [torch.empty(length, side.vocabulary, dtype=dtype, device=states.device) for _ in range(2)]
    for at in slices(len(states), length):
        logits_cv, log_cv = (buffer[: at.stop - at.start] for buffer in buffers)
        product_into(logits_cv, states[at], side.weight_vh)
        finish_logits_(logits_cv, side)
        log_softmax_into(log_cv, logits_cv.div_(temperature))
        # One logit that is infinite or no number makes a whole row no numbers.
        bad = log_cv[:, 0].isnan()
        if bool(bad.any()):
            raise LogitsNotFinite(at.start + int(bad.nonzero()[0]))
        yield log_cv
