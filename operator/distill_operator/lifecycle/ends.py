"""How attempts and jobs end: the only places that store an outcome, and none of them changes one that is stored."""

import hashlib
from datetime import timedelta
from typing import Literal

from distill_operator.api.status import AttemptCounts, DistillJobStatus, Ending
from distill_operator.lifecycle.case import Case, seconds, with_attempt
from distill_operator.lifecycle.observed import Pod

FIRST_DELAY_SECONDS = 10
"""Pause behind the first failed attempt; it doubles with each one."""
LONGEST_DELAY_SECONDS = 360
LONGEST_MESSAGE = 4000
"""A little less than a status takes."""
LONGEST_REASON = 64

Count = Literal["failed", "disrupted", "suspended"]
"""Among which attempts one counts; only failed ones count against the backoff limit."""


def end_attempt(
    case: Case,
    status: DistillJobStatus,
    reason: str,
    message: str,
    *,
    count: Count,
    pod: Pod | None = None,
    needs_signals: bool = False,
    apart: bool = False,
) -> DistillJobStatus:
    """Ends the current attempt, and the job where that was one failure too many. The first ending stands.

    `apart`: what ended it may have ended other jobs at the same moment, and they would meet again and again.
    """
    attempt = status.attempt
    if attempt is None or attempt.ending is not None or status.ended:
        return status
    counts = status.attempts.model_copy(update={count: getattr(status.attempts, count) + 1})
    counted = count == "failed"
    ending = Ending(
        reason=fitting(reason, LONGEST_REASON),
        message=fitting(message),
        time=case.now,
        counted=counted,
        needs_signals=needs_signals,
        pod=pod.name if pod else None,
        retry_time=case.now + retry_delay(case, counts, apart=apart) if counted else None,
    )
    student = status.student
    if pod is not None and pod.role == "student":
        student = student.model_copy(update={"restarts": student.restarts + 1})
    ended = with_attempt(status, ending=ending, waiting_since=None).model_copy(
        update={"attempts": counts, "student": student}
    )
    limit = case.policy.backoff_limit
    if not counted or counts.failed <= limit:
        return ended
    tried = "" if limit == 0 else f" (the last of {counts.failed} failures; spec.policy.backoffLimit is {limit})"
    return fail(case, ended, reason, f"{fitting(message).rstrip('.')}{tried}.")


def retry_delay(case: Case, counts: AttemptCounts, *, apart: bool) -> timedelta:
    """How long the next attempt waits: longer after each failure, at most six minutes.

    `apart`: up to half less, by a number that is another one for each job and each failure.
    """
    doublings = min(max(0, counts.failed - 1), 10)
    longest = min(FIRST_DELAY_SECONDS * 2**doublings, LONGEST_DELAY_SECONDS)
    if not apart:
        return seconds(longest)
    draw = hashlib.sha256(f"{case.job.metadata.uid}/{counts.failed}".encode()).digest()
    return seconds(longest - int.from_bytes(draw[:4]) * longest // 2**33)


def fail(case: Case, status: DistillJobStatus, reason: str, message: str) -> DistillJobStatus:
    """Ends the job for good."""
    if status.ended:
        return status
    changes = {
        "phase": "Failed",
        "completion_time": case.now,
        "reason": fitting(reason, LONGEST_REASON),
        "message": fitting(message),
    }
    return status.model_copy(update=changes)


def succeed(case: Case, status: DistillJobStatus, message: str) -> DistillJobStatus:
    """Ends the job well."""
    if status.ended:
        return status
    changes = {"phase": "Succeeded", "completion_time": case.now, "reason": "Succeeded", "message": fitting(message)}
    return status.model_copy(update=changes)


def fitting(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """The text, cut where it is longer than a field takes."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
