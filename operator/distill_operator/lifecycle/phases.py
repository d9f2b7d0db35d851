"""From one working phase to the next."""

from distill_operator.api.status import DistillJobStatus, Phase, ProgressStatus
from distill_operator.lifecycle.case import Case, Step, is_at_rest, is_left, with_attempt, working
from distill_operator.lifecycle.ends import fail
from distill_operator.lifecycle.wanted import announced_teachers, both_finished, teacher_work

NO_TEACHER = "NoTeacher"


def next_phase(status: DistillJobStatus) -> Phase:
    """The phase in which the work that is left is done."""
    if status.prepared is None:
        return "Preparing"
    return "Evaluating" if both_finished(status) else "Distilling"


def enter_next_phase(case: Case, status: DistillJobStatus) -> DistillJobStatus:
    """Lets the current attempt go on in the phase of the work that is left. Its pods are waited for from now on."""
    phase = next_phase(status)
    entered = with_attempt(status, waiting_since=case.now)
    if phase == "Distilling":
        entered = with_attempt(entered, teachers=announced_teachers(status, case.spec))
    if phase == "Evaluating":
        entered = entered.model_copy(update={"teacher": status.teacher.model_copy(update={"finished": True})})
    return entered.model_copy(update={"phase": phase, "progress": forgotten(status.progress)})


def forgotten(progress: ProgressStatus) -> ProgressStatus:
    """The progress without what it says of pods: others come."""
    return progress.model_copy(
        update={"mark": "", "last_change_time": None, "stage": "", "eta": None, "tokens_per_second": None}
    )


def distilled(case: Case, status: DistillJobStatus) -> Step:
    """The evaluation begins once both halves have finished and hold nothing any more."""
    if working(status) is None or status.phase != "Distilling" or not both_finished(status):
        return Step(status)
    let_go = not case.wanted.teachers and not case.wanted.students
    halves = (*case.pods("teacher"), *case.pods("student"))
    gone = not any(map(is_left, halves))
    at_rest = is_at_rest(case.observed.teacher) and is_at_rest(case.observed.student)
    return Step(enter_next_phase(case, status) if let_go and gone and at_rest else status)


def no_teacher(case: Case, status: DistillJobStatus) -> Step:
    """Fails a job that needs its teacher and allows it no replica."""
    work = teacher_work(status)
    if working(status) is None or status.phase != "Distilling" or work is None or case.spec.teacher.replicas > 0:
        return Step(status)
    what = "signals" if work == "signals" else "its scores"
    message = f"spec.teacher.replicas: is 0, but the teacher must run ({what} are missing); set it to 1 or more."
    return Step(fail(case, status, NO_TEACHER, message))
