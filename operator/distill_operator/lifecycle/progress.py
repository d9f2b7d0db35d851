"""How far the pods are. Written so seldom that it wakes nobody for nothing; the same answers write nothing."""

import hashlib
import json
import math
from datetime import datetime

from distill_operator.api.status import DistillJobStatus, ProgressStatus, SignalStatus
from distill_operator.lifecycle.case import Case, Step, seconds, working
from distill_operator.lifecycle.observed import Pod
from distill_runtime.contract.outcome import Progress
from distill_runtime.contract.run import Role

SHOWN: dict[str, tuple[Role, ...]] = {
    "Preparing": ("prepare",),
    "Distilling": ("student", "teacher"),
    "Evaluating": ("evaluate",),
}
"""Whose stage a phase shows: the first of them that answers."""
LONGEST_ETA_SECONDS = 10 * 365 * 86400.0


def progressing(case: Case, status: DistillJobStatus) -> Step:
    """Notes how far the pods are, and when one of them last got on."""
    if working(status) is None or not case.same_attempt(status) or status.phase != case.stored.phase:
        return Step(status)
    mark = mark_of(case)
    before = status.progress
    if mark in ("", before.mark):
        return Step(status)
    if before.mark and before.last_change_time is not None:
        due = before.last_change_time + seconds(math.ceil(case.configuration.progress_seconds))
        if case.now < due:
            return Step(status, due)
    progress = _shown(case, status).model_copy(update={"mark": mark, "last_change_time": case.now})
    return Step(status.model_copy(update={"progress": progress, "signal": _signal(case, status)}))


def mark_of(case: Case) -> str:
    """Digest of how far all pods are and which teachers have their model loaded; empty while nobody answers."""
    answers = _answers(case)
    if not answers:
        return ""
    said = sorted((pod.name, answer.stage, answer.done) for pod, answer in answers)
    loaded = sorted(pod.name for pod in case.living("teacher") if pod.ready)
    return hashlib.sha256(json.dumps([said, loaded]).encode()).hexdigest()[:16]


def answer_of(case: Case, roles: tuple[Role, ...]) -> tuple[Pod, Progress] | None:
    """What the first pod of the first of these roles says that answers."""
    for role in roles:
        for pod, answer in sorted(_answers(case), key=lambda one: one[0].name):
            if pod.role == role and pod.ordinal in (None, 0):
                return pod, answer
    return None


def _answers(case: Case) -> list[tuple[Pod, Progress]]:
    """Answers of the attempt's own pods: an older pod may have had the same name."""
    known = case.observed.progress
    return [
        (pod, known[pod.name])
        for role in ("prepare", "teacher", "student", "evaluate")
        for pod in case.living(role)
        if pod.name in known
    ]


def _shown(case: Case, status: DistillJobStatus) -> ProgressStatus:
    before = status.progress
    if status.phase == "Distilling" and status.student.finished:
        return before
    shown = answer_of(case, SHOWN.get(status.phase, ()))
    if shown is None:
        return before
    pod, answer = shown
    staged = before.model_copy(update={"stage": answer.stage})
    if pod.role != "student" or answer.stage != "train":
        return staged
    total = answer.total or before.total_steps
    return staged.model_copy(
        update={
            **steps_done(answer.done, total),
            "tokens_per_second": finite(answer.tokens_per_second),
            "loss": finite(answer.loss),
            "held_out_loss": finite(answer.held_out_loss),
            "wait_fraction": finite(answer.wait_fraction),
            "eta": _eta(case, before, answer.done, total),
        }
    )


def _eta(case: Case, before: ProgressStatus, step: int, total: int) -> datetime | None:
    """When training ends if it goes on as lately; each new estimate moves the last one by a third."""
    last = before.last_change_time
    if last is None or before.stage != "train" or step <= before.step or case.now <= last:
        return before.eta
    left = (total - step) * (case.now - last).total_seconds() / (step - before.step)
    if not 0 <= left <= LONGEST_ETA_SECONDS:
        return None
    new = case.now + seconds(left)
    estimate = new if before.eta is None else before.eta + (new - before.eta) / 3
    return estimate.replace(microsecond=0)


def _signal(case: Case, status: DistillJobStatus) -> SignalStatus:
    signal = status.signal
    if case.spec.signal.mode == "streaming" or signal.complete:
        return signal
    done = [answer.done for pod, answer in _answers(case) if pod.role == "teacher" and answer.stage == "signals"]
    return signal.model_copy(update={"shards_done": min(signal.shards, max([signal.shards_done, *done]))})


def steps_done(step: int, total: int, *, finished: bool = False) -> dict[str, object]:
    """The fields of a progress that tell of steps. A training that ended early is done all the same."""
    percent = 100 if finished else _percent_of(step, total)
    return {
        "step": step,
        "total_steps": total,
        "percent": percent,
        "text": f"{step}/{total}" if total > 0 else "",
        "percent_text": f"{percent}%" if total > 0 else "",
    }


def _percent_of(step: int, total: int) -> int:
    return max(0, min(100, 100 * step // total)) if total > 0 else 0


def finite(value: float | None) -> float | None:
    """The number; None where there is none that JSON can hold."""
    return value if value is not None and math.isfinite(value) else None
