"""Last words of containers, as parts of a pod's status; and jobs that have come so far."""

from typing import Any

from distill_runtime.contract.facts import EvaluateFacts, PrepareFacts, StudentFacts, SubjectFacts, TeacherFacts
from distill_runtime.contract.outcome import CRASHED, ExitCode, Fact, Outcome
from distill_runtime.contract.run import Role
from tests.unit.lifecycle.played_cluster import PlayedCluster

Word = dict[str, Any]


def said(
    role: Role,
    code: ExitCode,
    reason: str,
    message: str = "why it ended",
    *,
    needs: Any = None,
    facts: dict[str, Fact] | None = None,
) -> Word:
    """A termination message and its exit code."""
    outcome = Outcome(role=role, code=code, reason=reason, message=message, needs=needs, facts=facts or {})
    return {"outcome": outcome, "exit_code": int(code)}


def prepared(*, missing: int = 4, scores: int = 1, trained: bool = False) -> Word:
    """`prepare` finished."""
    facts = PrepareFacts(
        signal_shards=4,
        signal_shards_missing=missing,
        teacher_evaluations_missing=scores,
        training_finished=trained,
        total_steps=1000,
        sequences=256,
        targets=9000,
        signal_bytes=1 << 20,
    )
    return said("prepare", ExitCode.FINISHED, "Finished", facts=facts.flat())


def taught() -> Word:
    """A teacher replica found all work done."""
    return said("teacher", ExitCode.FINISHED, "Finished", facts=TeacherFacts(shards=4, shards_done=4).flat())


def trained(steps: int = 1000) -> Word:
    """The student finished."""
    facts = StudentFacts(steps=steps, exported_step=steps, final_loss=0.5, held_out_loss=0.6)
    return said("student", ExitCode.FINISHED, "Finished", facts=facts.flat())


def evaluated() -> Word:
    """The evaluation finished."""
    facts = EvaluateFacts(
        model="s3://bucket/model",
        report="s3://bucket/report.html",
        steps=1000,
        exported_step=1000,
        teacher=SubjectFacts(perplexity=3.0),
        student_after=SubjectFacts(perplexity=4.0, kl=0.25, top1=0.75, tasks={"desks": {"accuracy": 0.5}}),
    )
    return said("evaluate", ExitCode.FINISHED, "Finished", facts=facts.flat())


def refused(role: Role, message: str = "train.jsonl, line 3: no prompt") -> Word:
    """Exit code 65."""
    return said(role, ExitCode.USER_ERROR, "BadRow", message)


def retry(
    role: Role, reason: str = "StoreUnreachable", message: str = "the store is gone", *, needs: Any = None
) -> Word:
    """Exit code 75."""
    return said(role, ExitCode.RETRY, reason, message, needs=needs)


def crashed(role: Role) -> Word:
    """A traceback."""
    return retry(role, CRASHED, f"{role} failed with RuntimeError")


def checkpointed(role: Role) -> Word:
    """Exit code 143."""
    return said(role, ExitCode.CHECKPOINTED, "Checkpointed")


OUT_OF_MEMORY: Word = {"exit_code": 137, "out_of_memory": True}


def distilling(**spec: Any) -> PlayedCluster:
    """A job whose halves run: two students, one teacher unless the spec says otherwise."""
    cluster = PlayedCluster({"student": {"workers": 2}, **spec})
    cluster.settle()
    cluster.end("prepare", **prepared())
    cluster.settle()
    assert cluster.status.phase == "Distilling"
    return cluster


def evaluating(**spec: Any) -> PlayedCluster:
    """A job whose student is scored."""
    cluster = distilling(**spec)
    cluster.end("teacher", **taught())
    cluster.end("student-0", **trained())
    cluster.settle()
    assert cluster.status.phase == "Evaluating"
    return cluster


def succeeded(**spec: Any) -> PlayedCluster:
    """A job that went well."""
    cluster = evaluating(**spec)
    cluster.end("evaluate", **evaluated())
    cluster.settle()
    assert cluster.status.phase == "Succeeded"
    return cluster
