"""Samples: prompts of held-out sequences, and how the data answers them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.sequence import Sequence

SAMPLES_VERSION = 1
"""Part of the address of samples: raised when the same held-out data would give others."""
SAMPLES = "samples"
"""What the samples are called where tasks have a name."""
PLAIN_TEXT_PROMPT_TOKENS = 64
"""Longest prompt that is cut from plain text."""


def split_sequence(sequence: Sequence) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The prompt of a sequence and the answer that the data gives.

    The prompt is all before the first target: of a chat with several turns, all before the first answer. The answer is
    that run of targets. Of plain text, where every token but the first is a target, the prompt is the first half, at
    most `PLAIN_TEXT_PROMPT_TOKENS` tokens.

    Returns
    -------
    tuple
        [prompt tokens], [answer tokens]; neither is empty
    """
    if sequence.target_mask[1:].all():
        start, end = max(1, min(PLAIN_TEXT_PROMPT_TOKENS, sequence.length // 2)), sequence.length
    else:
        start = int(sequence.targets[0])
        gaps = np.flatnonzero(~sequence.target_mask[start:])
        end = start + int(gaps[0]) if len(gaps) else sequence.length
    return sequence.ids[:start], sequence.ids[start:end]


def sample_examples(sequences: Iterable[Sequence], encoder: TextEncoder, *, max_new_tokens: int) -> TaskExamples:
    """The samples of these held-out sequences."""
    pairs = [split_sequence(sequence) for sequence in sequences]
    decode = encoder.tokenizer.decode
    return TaskExamples(
        name=SAMPLES,
        kind="samples",
        labels=[],
        prompts=[str(decode(prompt.tolist())) for prompt, _ in pairs],
        prompt_ids=[prompt.tolist() for prompt, _ in pairs],
        answers=[[str(decode(answer.tolist(), skip_special_tokens=True)).strip()] for _, answer in pairs],
        stop_token_ids=encoder.stop_token_ids(),
        max_new_tokens=max_new_tokens,
    )
