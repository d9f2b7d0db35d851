"""The order of the rules, and what they come to."""

from collections.abc import Iterable
from datetime import datetime

from distill_operator.api import DistillJob
from distill_operator.api.status import DistillJobStatus
from distill_operator.configuration import OperatorConfiguration
from distill_operator.lifecycle.admission import admission
from distill_operator.lifecycle.attempts import attempts
from distill_operator.lifecycle.case import Case, Rule
from distill_operator.lifecycle.conditions import conditions
from distill_operator.lifecycle.deadlines import active_deadline
from distill_operator.lifecycle.decision import Decision
from distill_operator.lifecycle.edits import edits, rendered
from distill_operator.lifecycle.evaluating import evaluating
from distill_operator.lifecycle.events import events
from distill_operator.lifecycle.halves import halves
from distill_operator.lifecycle.lost_nodes import pods_on_lost_nodes
from distill_operator.lifecycle.observed import Observed
from distill_operator.lifecycle.phases import distilled, no_teacher
from distill_operator.lifecycle.preparing import preparing
from distill_operator.lifecycle.progress import progressing
from distill_operator.lifecycle.reasons import reasons
from distill_operator.lifecycle.retention import retention
from distill_operator.lifecycle.stall import stall
from distill_operator.lifecycle.startup import startup
from distill_operator.lifecycle.students import students_finished, students_lost
from distill_operator.lifecycle.suspension import suspension
from distill_operator.lifecycle.teachers import replaceable, teachers_finished, teachers_lost
from distill_operator.lifecycle.user_errors import user_errors
from distill_operator.lifecycle.wanted import wanted

RULES: tuple[Rule, ...] = (
    # What pods have said, the best known cause of an end first.
    user_errors,
    preparing,
    teachers_finished,
    students_finished,
    evaluating,
    # What the user wants otherwise.
    suspension,
    edits,
    rendered,
    # What was lost.
    students_lost,
    teachers_lost,
    # What takes too long.
    active_deadline,
    startup,
    progressing,
    stall,
    # What comes next.
    distilled,
    attempts,
    admission,
    no_teacher,
    # What is told.
    halves,
    reasons,
    conditions,
)
"""Each reads what the ones before have concluded. The first end of an attempt or of a job stands."""


def decide(job: DistillJob, observed: Observed, now: datetime, configuration: OperatorConfiguration) -> Decision:
    """What to do with a job: its next status, and the children by the stored one."""
    case = Case.of(job, observed, now, configuration)
    if job.spec.managed_by is not None or job.metadata.deletion_timestamp is not None:
        return Decision(children=case.wanted, status=case.stored)
    status, times = case.stored, list[datetime | None]()
    for rule in RULES:
        step = rule(case, status)
        status = step.status
        times.append(step.again)
    status = as_stored(status)
    lost, next_lost = pods_on_lost_nodes(case)
    delete, kept_until = retention(case, status)
    return Decision(
        children=case.wanted,
        status=status,
        events=events(case, status),
        remove_now=lost,
        replace=replaceable(case),
        delete_job=delete,
        again_after=_soonest([*times, next_lost, kept_until], now),
        children_changed=wanted(status, job.spec) != case.wanted,
    )


def as_stored(status: DistillJobStatus) -> DistillJobStatus:
    """The status as it will be read again, so that an unchanged one compares equal."""
    return DistillJobStatus.model_validate(status.dump(), by_alias=True, by_name=False)


def _soonest(times: Iterable[datetime | None], now: datetime) -> float | None:
    seconds = [(time - now).total_seconds() for time in times if time is not None]
    return max(0.0, min(seconds)) if seconds else None
