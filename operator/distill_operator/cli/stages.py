"""What runs side by side, and in which order: a pure function of what `prepare` found and of the job."""

from dataclasses import dataclass

from pydantic import ValidationError

from distill_operator.cli.refusal import Refusal
from distill_runtime.contract.facts import PrepareFacts
from distill_runtime.contract.outcome import ExitCode, Outcome
from distill_runtime.contract.run import Work


@dataclass(frozen=True)
class Stage:
    """Containers that run side by side."""

    teachers: int = 0
    """Teacher replicas."""
    evaluate_teacher: bool = False
    """The first of them scores the teacher itself too."""
    students: bool = False
    """All student workers."""
    evaluate: bool = False
    """The evaluation of the student, and the report."""


def facts_of(outcome: Outcome) -> PrepareFacts:
    """What `prepare` found.

    Raises
    ------
    Refusal
        It left no such facts: another version of the runtime.
    """
    try:
        return PrepareFacts.read(outcome.facts)
    except ValidationError as error:
        fields = ", ".join(str(details["loc"][0]) for details in error.errors())
        message = f"prepare did not say {fields}: distillctl and the runtime are of different versions"
        raise Refusal(ExitCode.RETRY, message) from error


def stages(facts: PrepareFacts, work: Work, *, signals_needed: bool = False) -> list[Stage]:
    """The stages behind `prepare`. `signals_needed`: a student of this run found that signals are missing after all.

    Raises
    ------
    Refusal
        The teacher must run, but the job allows it no replica.
    """
    training = not facts.training_finished
    missing = facts.signal_shards_missing > 0 or signals_needed or (work.signal.mode == "streaming" and training)
    scores = facts.teacher_evaluations_missing > 0
    if (missing or scores) and work.teacher.replicas == 0:
        what = "signals" if missing else "its scores"
        raise Refusal(
            ExitCode.USER_ERROR,
            f"spec.teacher.replicas: is 0, but the teacher must run ({what} are missing); set it to 1 or more",
        )
    # Scores alone are the first replica's work; the others would start for nothing.
    teachers = work.teacher.replicas if missing else int(scores)
    if work.signal.mode == "offline":
        halves = [Stage(teachers=teachers, evaluate_teacher=scores), Stage(students=training)]
    else:
        halves = [Stage(teachers=teachers, evaluate_teacher=scores, students=training)]
    return [*(half for half in halves if half.teachers or half.students), Stage(evaluate=True)]
