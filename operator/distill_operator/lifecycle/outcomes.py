"""What a pod's end means, and which of several ends counts.

A container's own word (termination message, exit code, the kernel's kill) comes first. Where a pod was taken away
(evicted, preempted, deleted, its node lost), a word that says no more than that it was killed counts as that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from distill_operator.lifecycle.observed import Pod
from distill_runtime.contract.outcome import CRASHED, GRACE_EXCEEDED, KILLED, SILENT, ExitCode

DISRUPTED = "Disrupted"
OUT_OF_MEMORY = "OutOfMemory"
OUT_OF_DISK = "OutOfDisk"
WORKER_LOST = "WorkerLost"

Kind = Literal["userError", "finished", "needsSignals", "retry", "crash", "disruption"]

PRIORITY: tuple[Kind, ...] = ("userError", "finished", "needsSignals", "retry", "disruption", "crash")
"""Over the pods of an attempt. A crash comes last, since the loss of one worker makes the others crash: a retry with a
reason, or a pod that was taken away, says more about why."""

SAYS_LITTLE = frozenset({CRASHED, KILLED, SILENT, GRACE_EXCEEDED})
"""Reasons of outcomes that only say that a process was lost."""
TAKEN_AWAY = frozenset({"Evicted", "Preempting", "NodeShutdown", "Shutdown", "Terminated", "NodeLost"})
"""Reasons that the kubelet gives to pods that it ended for the node's sake."""
OWN_LIMITS = (
    "exceeds the limit",
    "exceeded its local ephemeral storage limit",
    "exceeds the total limit of containers",
)
"""What the kubelet says of pods that it evicts for what they themselves wrote: the next one would do so too."""
LOWER = {"student": " or lower spec.training.microBatch", "teacher": " or lower spec.teacher.maxBatchTokens"}
"""What else helps a role whose memory ran out."""


@dataclass(frozen=True)
class Verdict:
    """What one pod's end means."""

    pod: Pod
    kind: Kind
    reason: str
    message: str
    """One sentence that names the pod."""


def verdict(pod: Pod) -> Verdict | None:
    """What this pod's end means; None while it is well."""
    word = _own_word(pod)
    if word is not None and word.kind != "crash" and word.kind != "disruption":
        return word
    if _filled_its_disk(pod):
        more = f"raise spec.pods.{pod.role}.ephemeralStorage or the size of that volume"
        return Verdict(pod, "retry", OUT_OF_DISK, f"{told(pod, pod.message).rstrip(' .')}; {more}.")
    return Verdict(pod, "disruption", DISRUPTED, _why_taken(pod)) if is_taken_away(pod) else word


def verdicts(pods: Iterable[Pod]) -> list[Verdict]:
    """Of all pods that have ended, those that count first before the others, in the order of their names."""
    found = [one for one in map(verdict, sorted(pods, key=lambda pod: (pod.name, pod.uid))) if one is not None]
    return sorted(found, key=lambda one: PRIORITY.index(one.kind))


def is_taken_away(pod: Pod) -> bool:
    """Whether something from outside ends this pod, or has."""
    return bool(pod.disrupted) or pod.deleting_since is not None or pod.gone or pod.reason in TAKEN_AWAY


def _filled_its_disk(pod: Pod) -> bool:
    return pod.reason == "Evicted" and any(words in pod.message for words in OWN_LIMITS)


def _own_word(pod: Pod) -> Verdict | None:
    outcome = pod.outcome
    if outcome is not None and outcome.code is ExitCode.USER_ERROR:
        return Verdict(pod, "userError", outcome.reason, told(pod, outcome.message))
    if outcome is not None and outcome.code is ExitCode.FINISHED:
        return Verdict(pod, "finished", outcome.reason, told(pod, outcome.message))
    if outcome is not None and outcome.code is ExitCode.RETRY and outcome.needs is not None:
        return Verdict(pod, "needsSignals", outcome.reason, told(pod, outcome.message))
    if pod.out_of_memory:
        more = f"raise spec.pods.{pod.role}.memory{LOWER.get(pod.role, '')}"
        return Verdict(pod, "retry", OUT_OF_MEMORY, f"{pod.name} was killed because it ran out of memory; {more}.")
    if outcome is not None and outcome.code is ExitCode.RETRY:
        kind: Kind = "crash" if outcome.reason in SAYS_LITTLE else "retry"
        return Verdict(pod, kind, outcome.reason, told(pod, outcome.message))
    if outcome is not None:
        return Verdict(pod, "disruption", DISRUPTED, told(pod, outcome.message))
    return _wordless(pod)


def _wordless(pod: Pod) -> Verdict | None:
    """What an exit code alone says, or a pod's end without one."""
    match pod.exit_code:
        case None:
            return _never_ran(pod)
        case ExitCode.USER_ERROR:
            message = f"{pod.name} ended with exit code 65 and without a word; its log says why."
            return Verdict(pod, "userError", SILENT, message)
        case ExitCode.CHECKPOINTED:
            return Verdict(pod, "disruption", DISRUPTED, f"{pod.name} was ended by SIGTERM.")
        case ExitCode.FINISHED:
            message = (
                f"{pod.name} ended with exit code 0 and did not say what came of it: is its image a runtime image of "
                "this version?"
            )
            return Verdict(pod, "crash", SILENT, message)
        case code:
            message = f"{pod.name} ended with exit code {code} and without a word; its log may say why."
            return Verdict(pod, "crash", CRASHED, message)


def _never_ran(pod: Pod) -> Verdict | None:
    """A pod that failed before a container of it ended: the kubelet refused it, or its node is gone."""
    if pod.phase in ("Failed", "Succeeded"):
        return Verdict(
            pod,
            "crash",
            pod.reason or WORKER_LOST,
            told(pod, pod.message or f"the pod ended ({pod.phase}) and nobody heard how."),
        )
    return None


def _why_taken(pod: Pod) -> str:
    where = f" from node {pod.node}" if pod.node else ""
    if pod.disrupted:
        return f"{pod.name} was taken{where} ({pod.disrupted})."
    if pod.reason in TAKEN_AWAY:
        return told(pod, pod.message) if pod.message else f"{pod.name} was taken{where} ({pod.reason})."
    return f"{pod.name} was deleted{where}."


def told(pod: Pod, message: str) -> str:
    """A message that names the pod."""
    return message if pod.name in message else f"{pod.name}: {message}"
