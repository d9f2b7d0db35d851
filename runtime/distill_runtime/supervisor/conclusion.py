"""The container's last word: whose word counts, and what is said where nobody spoke. Pure."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from distill_runtime.contract.outcome import (
    CRASHED,
    GRACE_EXCEEDED,
    KILLED,
    OUTCOME_FILE,
    SILENT,
    TERMINATED,
    ExitCode,
    Outcome,
)
from distill_runtime.contract.run import Role


@dataclass(frozen=True)
class Ending:
    """How one command ended."""

    code: int
    """Its exit code; a signal's number below zero."""
    asked: bool
    """It was asked to end."""
    overdue: bool
    """It did not within its grace, and was killed."""


def conclude(role: Role, attempt: int, ending: Ending, spoken: Sequence[tuple[str, Outcome]]) -> Outcome:
    """The container's last word, from how its command ended and what its processes left, the oldest first.

    A user's error wins over a retry, a retry over a checkpoint. A retry that knows what is missing wins over others,
    and one with a reason over a crash, since the loss of one rank makes the others crash. Finished is the word of rank
    0 alone.
    """
    words = [word for _, word in spoken]
    for code in (ExitCode.USER_ERROR, ExitCode.RETRY):
        errors = [word for word in words if word.code is code]
        if errors:
            return min(errors, key=lambda word: (word.needs is None, word.reason == CRASHED))
    finished = [word for name, word in spoken if word.code is ExitCode.FINISHED and _is_rank_0(name)]
    if finished:
        return finished[-1]
    checkpointed = [word for word in words if word.code is ExitCode.CHECKPOINTED]
    if checkpointed:
        return checkpointed[-1]
    return without_a_word(role, attempt, ending)


def _is_rank_0(name: str) -> bool:
    return name in (OUTCOME_FILE, "outcome-0.json")


def without_a_word(role: Role, attempt: int, ending: Ending) -> Outcome:
    """What is said of a command that said nothing itself."""
    code, reason, message = _judged(role, ending)
    return Outcome(role=role, code=code, reason=reason, message=message, attempt=attempt)


def _judged(role: Role, ending: Ending) -> tuple[ExitCode, str, str]:
    if ending.overdue:
        return (
            ExitCode.RETRY,
            GRACE_EXCEEDED,
            f"{role} was asked to end, was not done within its grace, and was killed.",
        )
    if ending.code == -signal.SIGKILL:
        return ExitCode.RETRY, KILLED, f"{role} was killed (SIGKILL): possibly out of memory."
    if ending.code < 0 and ending.code != -signal.SIGTERM:
        return ExitCode.RETRY, CRASHED, f"{role} died of {signal.Signals(-ending.code).name}; its log may say why."
    if ending.asked:
        return ExitCode.CHECKPOINTED, TERMINATED, f"{role} was ended by SIGTERM before it had anything to save."
    if ending.code == -signal.SIGTERM:
        return ExitCode.RETRY, KILLED, f"{role} was ended by somebody else's SIGTERM."
    if ending.code == ExitCode.USER_ERROR:
        return ExitCode.USER_ERROR, SILENT, f"{role} ended with exit code {ending.code}; its log says why."
    hint = "one of its processes may have been killed (possibly out of memory); " if role == "student" else ""
    message = f"{role} ended with exit code {ending.code} and without a word: {hint}its log may say why."
    return ExitCode.RETRY, SILENT, message
