"""Generated answers of a model to the prompts of a question answering task, or samples, greedily, by a process of their
own.

An engine that has ended gives all its memory back only with its process, and a pooling engine can't generate: so each
model's answers are made by a child (`generate_answers`), which is asked by a file and answers into a file.
"""

import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from distill_runtime.contract.outcome import ExitCode
from distill_runtime.errors import RetryError, UserError
from distill_runtime.prepared import ResolvedPrecision

CHILD = "distill_runtime.evaluation.generate_answers"
"""The module that the child runs."""
SECONDS_BETWEEN_LOOKS = 0.5
"""How often the child's progress is looked at."""

log = logging.getLogger(__name__)


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GenerationRequest(_Message):
    """What a child is asked."""

    model: str
    """Folder of the model and its tokenizer."""
    field: str
    """What of the spec this is for, for messages: `evaluation.tasks[capitals]`."""
    engine: Literal["vllm", "transformers"]
    dtype: ResolvedPrecision
    gpus: int
    """GPUs of the engine. 0: the processor."""
    trust_remote_code: bool
    prompts: list[list[int]]
    """Ids of each prompt, generation prompt included."""
    stop_token_ids: list[int]
    """Ids that end an answer; they are no part of it."""
    max_new_tokens: int
    batch_tokens: int
    """Tokens, prompts and answers together, that are held at a time."""


class GeneratedAnswer(_Message):
    """One line of the child's file."""

    example: int
    text: str


class GenerationFailure(_Message):
    """Why a child ended, where it is the user's to mend."""

    reason: str
    message: str


def generate_answers(request: GenerationRequest, *, progress: Callable[[int], None] = lambda done: None) -> list[str]:
    """The answer to each prompt, special tokens and surrounding space removed.

    `progress` is told how many answers there are.

    Raises
    ------
    UserError
        A prompt doesn't fit the model, or the engine doesn't support it.
    RetryError
        The child ended otherwise, or left answers out.
    """
    if not request.prompts:
        return []
    with tempfile.TemporaryDirectory(prefix="distill-answers-") as folder:
        asked, answers, failure = (Path(folder) / name for name in ("request.json", "answers.jsonl", "failure.json"))
        asked.write_text(request.model_dump_json())
        answers.touch()
        code = _run_child([str(asked), str(answers), str(failure)], answers, progress)
        if failure.exists():
            said = GenerationFailure.model_validate_json(failure.read_bytes())
            raise UserError(said.message, reason=said.reason)
        if code != ExitCode.FINISHED:
            raise RetryError(
                f"the {request.engine} engine that answers the questions of {request.field} ended with code "
                f"{code}; its log is above.",
                reason="GenerationFailed",
            )
        return _read_answers(answers, request)


def _run_child(arguments: list[str], answers: Path, progress: Callable[[int], None]) -> int:
    # The child ends when its standard input does: nothing that kills this process leaves an engine behind.
    child = subprocess.Popen([sys.executable, "-m", CHILD, *arguments], stdin=subprocess.PIPE)
    try:
        while True:
            try:
                return child.wait(timeout=SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                with answers.open("rb") as file:
                    progress(sum(1 for _ in file))
    finally:
        assert child.stdin is not None
        child.stdin.close()
        if child.poll() is None:
            child.kill()
            child.wait()


def end_with_parent() -> None:
    """For the child: from here on it ends when its parent does, however that ends."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(ExitCode.RETRY)

    threading.Thread(target=watch, daemon=True).start()


def _read_answers(path: Path, request: GenerationRequest) -> list[str]:
    texts: dict[int, str] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                answer = GeneratedAnswer.model_validate_json(line)
                texts[answer.example] = answer.text
    except ValidationError as error:
        raise RetryError(
            f"the answers of the {request.engine} engine for {request.field} can't be read.",
            reason="GenerationFailed",
        ) from error
    if sorted(texts) != list(range(len(request.prompts))):
        raise RetryError(
            f"the {request.engine} engine gave {len(texts)} answers to the {len(request.prompts)} questions of "
            f"{request.field}.",
            reason="GenerationFailed",
        )
    return [texts[example] for example in range(len(request.prompts))]
