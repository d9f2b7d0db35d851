"""The end of the evaluation: scores, places, and the end of the job."""

from distill_operator.api.status import DistillJobStatus, EvaluationStatus, OutputStatus, SubjectScores
from distill_operator.lifecycle.batch_jobs import batch_job_failed
from distill_operator.lifecycle.case import Case, Step, working
from distill_operator.lifecycle.ends import end_attempt, fitting, succeed
from distill_operator.lifecycle.finishing import finished_pod, take_facts
from distill_operator.lifecycle.outcomes import verdicts
from distill_operator.lifecycle.progress import finite, steps_done
from distill_runtime.contract.facts import EvaluateFacts, SubjectFacts
from distill_runtime.contract.outcome import Outcome

LONGEST_URI = 2048
MOST_TASKS = 32


def evaluating(case: Case, status: DistillJobStatus) -> Step:
    """Ends the job with its scores, or the attempt where signals are missing after all."""
    if status.ended or not status.student.finished:
        return Step(status)
    pods = case.pods("evaluate")
    finished = finished_pod(pods)
    if finished is not None:
        return Step(take_facts(case, status, finished, _evaluated))
    missing = next((one for one in verdicts(pods) if one.kind == "needsSignals"), None)
    if missing is not None and working(status) is not None:
        ended = end_attempt(
            case, status, missing.reason, missing.message, count="failed", pod=missing.pod, needs_signals=True
        )
        return Step(ended)
    return Step(batch_job_failed(case, status, "evaluate", case.observed.evaluate))


def _evaluated(case: Case, status: DistillJobStatus, outcome: Outcome) -> DistillJobStatus:
    facts = EvaluateFacts.read(outcome.facts)
    progress = status.progress
    if facts.steps > progress.step:
        progress = progress.model_copy(update=steps_done(facts.steps, progress.total_steps, finished=True))
    done = status.model_copy(
        update={
            "progress": progress,
            "evaluation": EvaluationStatus(
                teacher=_scores(facts.teacher),
                student_before=_scores(facts.student_before),
                student_after=_scores(facts.student_after),
            ),
            "output": OutputStatus(model=fitting(facts.model, LONGEST_URI), report=fitting(facts.report, LONGEST_URI)),
        }
    )
    return succeed(case, done, f"The distilled model is at {facts.model}, the report at {facts.report}.")


def _scores(facts: SubjectFacts) -> SubjectScores:
    tasks = {
        task: {metric: value for metric, value in scores.items() if finite(value) is not None}
        for task, scores in list(facts.tasks.items())[:MOST_TASKS]
    }
    return SubjectScores(
        kl_to_teacher=finite(facts.kl),
        top1_agreement=finite(facts.top1),
        perplexity=finite(facts.perplexity),
        expected_calibration_error=finite(facts.ece),
        parameters=facts.parameters,
        tasks=tasks,
    )
