"""How a batch Job's pods (prepare, evaluate) end. The Job tries again by itself, as often as its backoff limit says."""

from typing import Literal

from distill_operator.api.status import DistillJobStatus
from distill_operator.lifecycle.case import Case, is_over, working
from distill_operator.lifecycle.ends import end_attempt, fail
from distill_operator.lifecycle.observed import Pod, Workload
from distill_operator.lifecycle.outcomes import DISRUPTED, Verdict, told, verdicts
from distill_runtime.contract.outcome import ExitCode

OUTCOME_LOST = "OutcomeLost"


def batch_job_failed(
    case: Case, status: DistillJobStatus, role: Literal["prepare", "evaluate"], workload: Workload | None
) -> DistillJobStatus:
    """Ends the job where its batch Job has failed, and the attempt where the Job's result was lost."""
    pods = case.pods(role)
    if working(status) is None or workload is None or workload.deleting:
        return status
    if any(not pod.gone and not is_over(pod) for pod in pods):
        # The Job's end was seen before its pod's: the pod says why.
        return status
    if workload.failed:
        reason, message = _why(pods, workload)
        return fail(case, status, reason, message)
    if workload.complete:
        silent = next((one for one in verdicts(pods) if _is_silent(one.pod)), None)
        if silent is not None:
            return fail(case, status, silent.reason, silent.message)
        message = f"Job {workload.name} is complete, but its pod is gone and nobody heard what it found."
        return end_attempt(case, status, OUTCOME_LOST, message, count="failed")
    return status


def _is_silent(pod: Pod) -> bool:
    """Whether its container ended well and said nothing: it isn't ours."""
    return pod.outcome is None and (pod.exit_code == ExitCode.FINISHED or pod.phase == "Succeeded")


def _why(pods: tuple[Pod, ...], workload: Workload) -> tuple[str, str]:
    newest = max((one for one in verdicts(pods) if one.reason != DISRUPTED), key=_made, default=None)
    if newest is None:
        return workload.failed, f"Job {workload.name} failed: {workload.failed_message or workload.failed}"
    return newest.reason, told(newest.pod, newest.message)


def _made(one: Verdict) -> tuple[object, str]:
    return one.pod.created, one.pod.name
