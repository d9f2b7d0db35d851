"""Rows to sequences for the tests of templates and targets."""

from typing import Any

import numpy as np

from distill_runtime.data.chat import TextEncoder
from distill_runtime.data.sequence import Sequence
from distill_runtime.data.spans import RowError


def chat(*turns: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turn, behind a system turn if there is one."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    return [{"role": "system", "content": system}, *messages] if system else messages


def encode(encoder: TextEncoder, values: dict[str, Any]) -> Sequence:
    (result,) = encoder.encode([encoder.render_row(values)])
    assert isinstance(result, Sequence), result
    return result


def refusal(encoder: TextEncoder, values: dict[str, Any]) -> str:
    """Why the row is refused."""
    try:
        (result,) = encoder.encode([encoder.render_row(values)])
    except RowError as error:
        return str(error)
    assert isinstance(result, RowError)
    return str(result)


def target_texts(encoder: TextEncoder, sequence: Sequence) -> list[str]:
    """The text of each unbroken stretch of targets."""
    stretches = np.split(sequence.targets, np.flatnonzero(np.diff(sequence.targets) > 1) + 1)
    return [
        str(encoder.tokenizer.decode(sequence.ids[places], clean_up_tokenization_spaces=False)) for places in stretches
    ]
