"""Addresses of signals: what names them, and where each shard of a job's plans has its folder.

signals/<signal>/<shard>/…                      shared by all jobs, kept; where training data has a compact kind, the
                                                hidden states of held-out data and tasks have a digest of their own
signals/<signal>/uses/<job uid>.json            who used them and when, for whoever clears up
trainings/<training>/signals/<signal>/<shard>/… signals of a streaming job's training data, deleted behind the student

`<shard>` is the digest of the shard's sequences alone (`PlanShard.digest`).
"""

import re
import time

from distill_runtime import layout
from distill_runtime.contract.run import RunConfig
from distill_runtime.digests import digest_of
from distill_runtime.prepared import PlanReference, Prepared, Record, StoredSignal
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.store.base import ObjectStore

EXTRACTION_VERSION = 1
"""Part of every signal's digest: raised when the same teacher and sequence would give another signal."""
TRAIN = "train"
"""Name of the plan that is trained on."""
EVALUATION = "evaluation"
"""Name of the held-out plan."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class SignalUse(Record):
    """Who uses the signals of one teacher and spec; written once a run."""

    namespace: str
    name: str
    uid: str
    attempt: int
    time: float
    """Seconds since the epoch."""


def stored_signal(teacher_digest: str, teacher_dtype: str, row: RowFormat) -> StoredSignal:
    """A signal by what names it: the teacher's files, the precision of its forward pass, what a row says and how, and
    the version of the extraction. Nothing else of the training, and neither the mode nor the size of the shards."""
    digest = digest_of(
        {
            "extraction": EXTRACTION_VERSION,
            "teacher": teacher_digest,
            "teacher_dtype": teacher_dtype,
            "row": row.model_dump(),
        }
    )
    return StoredSignal(digest=digest, row=row)


def task_plan(task: str) -> str:
    """Name of a task's plan."""
    return f"task-{task}"


def plan_references(prepared: Prepared) -> dict[str, PlanReference]:
    """The job's plans that need signals, by name, in the order of need: held-out data, training data, tasks."""
    plans: dict[str, PlanReference] = {}
    # The held-out loss of training reads them too.
    if prepared.evaluation is not None and (prepared.learns_from_teacher or prepared.compares_with_teacher):
        plans[EVALUATION] = prepared.evaluation
    if prepared.learns_from_teacher:
        plans[TRAIN] = prepared.train
    for task in prepared.tasks if prepared.compares_with_teacher else []:
        if task.plan is not None:
            plans[task_plan(task.name)] = task.plan
    return plans


def signal_of(prepared: Prepared, plan: str) -> StoredSignal:
    """What is stored about the targets of a plan: only the training data may have a compact kind."""
    return prepared.train_signal if plan == TRAIN else prepared.held_out_signal


def student_reads_states(prepared: Prepared) -> bool:
    """Does a student that learns from the teacher read hidden states, and so need the teacher's head: of the training
    data, or of held-out data for its losses?"""
    return prepared.train_signal.row.kind == "hidden" or prepared.evaluation is not None


def signal_bytes(prepared: Prepared) -> int:
    """Bytes of all signals of a job, as far as plans don't share sequences."""
    return sum(
        reference.targets * signal_of(prepared, plan).row.row_bytes
        for plan, reference in plan_references(prepared).items()
    )


def signal_root(config: RunConfig, prepared: Prepared, plan: str) -> str:
    """Where the folders of a plan's shards are. A streaming job's training signals are its training's own, so that
    deleting them hurts no other job."""
    shared = layout.signal_key(signal_of(prepared, plan).digest)
    if plan == TRAIN and config.work.signal.mode == "streaming":
        return f"{layout.training_key(prepared.training_digest)}/{shared}"
    return shared


def shard_folder(root: str, shard_digest: str) -> str:
    """Where the objects of one shard are."""
    return f"{root}/{shard_digest}"


def folder_of(root: str, key: str) -> str | None:
    """The shard's folder that a key below `root` belongs to; None for keys of other things."""
    name, slash, _ = key.removeprefix(f"{root}/").partition("/")
    return f"{root}/{name}" if slash and _DIGEST.fullmatch(name) else None


def record_use(store: ObjectStore, config: RunConfig, prepared: Prepared) -> None:
    """Notes that this job uses the teacher's signals, now."""
    use = SignalUse(
        namespace=config.namespace, name=config.name, uid=config.uid, attempt=config.attempt, time=time.time()
    )
    for digest in {prepared.train_signal.digest, prepared.held_out_signal.digest}:
        store.put(f"{layout.signal_key(digest)}/uses/{config.uid}.json", use.model_dump_json().encode())
