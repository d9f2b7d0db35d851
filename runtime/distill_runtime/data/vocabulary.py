"""The tokenizers of teacher and student: loaded, and compared as maps from ids to tokens."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from distill_runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBES = (
    "The quick brown fox  jumps\n\n over\tthe lazy dog.",
    "I'm, they've; 3.14159 + 2,718 = 1234567890?",
    "def f(x):\n    return x ** 2  # naïve café — “quotes” …",
    "Ａｂｃ ﬁne e\u0301 日本語 한국어 العربية 🙂👩‍👩‍👧",
    " leading and trailing ",
)
"""Texts on which tokenizers with one vocabulary but other rules for splitting or normalising differ."""


def load_tokenizer(folder: Path, *, uri: str, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    """The tokenizer in a model's folder. `uri` is what the user calls the model.

    Raises
    ------
    UserError
        There is none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if (folder / file).exists():
                json.loads((folder / file).read_text())
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{uri}: its tokenizer can't be loaded: {first}", reason="TokenizerUnsupported") from error


def vocabulary_size(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The greatest token id plus one: rows of a model's head at and above it are padding."""
    return max(tokenizer.get_vocab().values()) + 1


def compare_vocabularies(teacher: "PreTrainedTokenizerBase", student: "PreTrainedTokenizerBase") -> int:
    """The size of the vocabulary that both have.

    Raises
    ------
    UserError
        An id stands for different tokens, or the same text becomes different ids; the sentence names the first.
    """
    end = "; distillation between different tokenizers is not supported yet: choose a student of the teacher's family."
    teacher_tokens = {number: token for token, number in teacher.get_vocab().items()}
    student_tokens = {number: token for token, number in student.get_vocab().items()}
    if teacher_tokens != student_tokens:
        numbers = sorted(teacher_tokens.keys() | student_tokens.keys())
        first = next(n for n in numbers if teacher_tokens.get(n) != student_tokens.get(n))
        raise UserError(
            f"teacher and student have different vocabularies: token {first} is {_named(teacher_tokens.get(first))} "
            f"for the teacher and {_named(student_tokens.get(first))} for the student{end}",
            reason="VocabulariesDiffer",
        )
    specials = sorted({*_special_texts(teacher), *_special_texts(student)})
    for probe in (*PROBES, *(f"a {text} b{text}c" for text in specials)):
        ids = [tokenizer(probe, add_special_tokens=False)["input_ids"] for tokenizer in (teacher, student)]
        if ids[0] != ids[1]:
            raise UserError(
                f"teacher and student have the same vocabulary but split text differently: {probe!r} becomes "
                f"{ids[0]} for the teacher and {ids[1]} for the student{end}",
                reason="VocabulariesDiffer",
            )
    return vocabulary_size(teacher)


def _named(token: str | None) -> str:
    return "nothing" if token is None else repr(token)


def _special_texts(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values()]
