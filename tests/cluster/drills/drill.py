"""One drill: a job on the cluster, what is done to it, and what must hold afterwards."""

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from distill_runtime.contract.report import Report
from distill_runtime.contract.run import Role
from tests.cluster.drills.pod_logs import Line, PodLogs
from tests.cluster.platform import BUCKET, SECRET, Platform
from tests.fixtures.api_server import ApiServer, Object, path_of
from tests.fixtures.api_watch import World
from tests.fixtures.watched_job import CHILDREN, WatchedJob, merged

STEPS = 40
GLOBAL_BATCH = 8
CHECKPOINT_STEPS = 5
STEP = re.compile(r"step (\d+) of \d+: loss")
TOLERANCE = 1e-4
"""Relative, of every step's loss: signals that are computed anew are rounded to bfloat16, and another number of workers
sums in another order."""
SPEC: Object = {
    "teacher": {"model": f"s3://{BUCKET}/models/teacher", "gpus": 0},
    "student": {"initialise": {"fromTeacher": {"every": 2}}, "gpusPerWorker": 0, "workers": 2},
    "data": {
        "train": f"s3://{BUCKET}/data/train.jsonl",
        "evaluation": f"s3://{BUCKET}/data/heldout.jsonl",
        "maxLength": 256,
    },
    "signal": {"leaseSeconds": 10, "shardSequences": 8},
    "training": {
        "steps": STEPS,
        "globalBatch": GLOBAL_BATCH,
        "microBatch": 2,
        "precision": "float32",
        "zeroStage": 2,
        "checkpointEverySteps": CHECKPOINT_STEPS,
        "evaluateEverySteps": 20,
        "shuffleWindowShards": 2,
    },
    "policy": {
        "checkpointGraceSeconds": 20,
        "nodeLostSeconds": 5,
        "stallTimeoutSeconds": 45,
        "startupDeadlineSeconds": 240,
    },
}
STREAMING: Object = {"signal": {"mode": "streaming", "watermarkBytes": 100_000}}
"""The teacher is at work as long as the student: it may be only a few shards ahead."""
SHARED = ("plans/", "models/", "heads/", "signals/", "evaluations/")
"""What a second job with the same teacher and data finds in the store."""
LEFT = ("pods", "services", "jobs", "deployments", "statefulsets", "poddisruptionbudgets", "networkpolicies")
"""Nothing of these stays when a job has ended."""


@dataclass
class Row:
    """A line of the table at the end."""

    name: str
    ended: str
    failed: int
    disrupted: int
    suspended: int
    repeated: int
    """Steps that were trained more than once."""
    difference: float | None
    """Largest relative difference of a step's loss from the undisturbed run's."""
    recovery: float | None = None
    """Seconds that training stood still, or repeated steps, after the fault."""
    seconds: float = 0.0


class DrilledJob(WatchedJob):
    """A job that something is done to."""

    phase_seconds = 240.0

    def __init__(
        self, platform: Platform, api: ApiServer, world: World, logs: PodLogs, namespace: str, name: str
    ) -> None:
        super().__init__(api, world, namespace, name)
        self.platform = platform
        self.logs = logs
        self.prefix = f"drills/{namespace}"
        self.fault: datetime | None = None
        self._began = time.monotonic()

    def start(self, spec: Mapping[str, Any] | None = None) -> "DrilledJob":
        """Makes it, with changes to the usual spec."""
        storage = {
            "uri": f"s3://{BUCKET}/{self.prefix}",
            "secretName": SECRET,
            "endpoint": self.platform.store.endpoint,
        }
        return self.create_with(merged({**SPEC, "storage": storage}, spec or {}))

    def adopt_signals(self, other: "DrilledJob") -> None:
        """Finds in its store what the teacher said to another job."""
        client = self.platform.store.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{other.prefix}/")
        for key in (entry["Key"] for page in pages for entry in page.get("Contents", [])):
            rest = key.removeprefix(f"{other.prefix}/")
            if rest.startswith(SHARED):
                client.copy_object(Bucket=BUCKET, Key=f"{self.prefix}/{rest}", CopySource=f"{BUCKET}/{key}")

    # Waiting and looking.

    def wait_for_step(self, step: int) -> None:
        """Waits until this step was trained."""
        self.wait(f"step {step}", lambda: self._is_at(step))

    def _is_at(self, step: int) -> bool:
        assert self.phase not in ("Failed", "Succeeded"), self._describe()
        return self.status.get("progress", {}).get("step", 0) >= step and self.phase == "Distilling"

    def pod(self, role: Role, index: int = 0) -> Object:
        """A living pod of a role; students by their rank."""
        living = [pod for pod in self.pods(role) if "deletionTimestamp" not in pod["metadata"]]
        if role == "student":
            return next(pod for pod in living if pod["metadata"]["name"].endswith(f"-{index}"))
        return living[index]

    def uids_ever(self, role: Role) -> set[str]:
        """Identities of all pods of a role that there ever were."""
        return set(self.pods_ever(role))

    def everything(self) -> list[Object]:
        """All its children."""
        return [child for resource in CHILDREN for child in self.children(resource)]

    def ending(self, reason: str = "") -> Object:
        """How the first attempt that ended by itself ended, or the first that ended for this reason."""
        endings = (status.get("attempt", {}).get("ending") for status in self.statuses())
        return next(ending for ending in endings if ending and reason in ("", ending["reason"]))

    def delete_pod(self, pod: Object) -> None:
        """Deletes a pod, as kubectl does."""
        self._api.delete(path_of("pods", self.namespace, pod["metadata"]["name"]))

    def execute(self, pod: Object, *command: str) -> subprocess.Popen[bytes]:
        """Starts a command in a pod."""
        return subprocess.Popen(
            self.platform.kubectl.command("exec", pod["metadata"]["name"], "-n", self.namespace, "--", *command),
            env=self.platform.kubectl.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def strike(self) -> None:
        """Notes that the fault happens now."""
        self.fault = datetime.now(UTC)

    def student_lines(self) -> list[Line]:
        """What rank 0 of the students logged, over all attempts."""
        return self.logs.lines(self.namespace, f"{self.name}-student-0")

    def steps_trained(self) -> list[tuple[datetime, int]]:
        """Each time that a step was trained, and which."""
        found = [(line.time, STEP.search(line.message)) for line in self.student_lines()]
        return [(moment, int(match[1])) for moment, match in found if match]

    def steps_repeated(self) -> int:
        """How often a step was trained that had been trained before."""
        counts = Counter(step for _, step in self.steps_trained())
        return sum(count - 1 for count in counts.values())

    def report(self) -> Report:
        """The report in the store."""
        _, _, key = self.status["output"]["report"].removeprefix("s3://").partition("/")
        body = self.platform.store.client().get_object(Bucket=BUCKET, Key=key.replace(".html", ".json"))["Body"]
        return Report.model_validate_json(body.read())

    def losses(self) -> list[float]:
        """The loss of each step; each step is there once."""
        points = [point for point in self.report().curves if point.loss is not None]
        assert [point.step for point in points] == list(range(1, len(points) + 1)), "every step counted once"
        return [point.loss for point in points if point.loss is not None]

    # What must hold.

    def recovery(self) -> float | None:
        """Seconds that the fault cost: the longest wait for a step that hadn't been trained before it."""
        if self.fault is None:
            return None
        first: dict[int, datetime] = {}
        for moment, step in self.steps_trained():
            first.setdefault(step, moment)
        moments = sorted(first.values())
        waits = [(later - max(earlier, self.fault)) for earlier, later in pairwise(moments) if later > self.fault]
        return max(waits, default=timedelta()).total_seconds()

    def check_nothing_left(self) -> None:
        """The ended job holds nothing, and no object in its store is half-written."""
        self.wait("that nothing is left", lambda: not any(self.children(resource) for resource in LEFT), 60)
        claims = self._api.items(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims")
        assert [claim["metadata"]["name"] for claim in claims if self.name in claim["metadata"]["name"]] == []
        client = self.platform.store.client()
        uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Uploads", [])
        assert [upload["Key"] for upload in uploads] == [], "uploads that were begun and never ended"

    def row(self, losses: list[float] | None, undisturbed: list[float]) -> Row:
        """Its line of the table."""
        attempts = self.status.get("attempts", {})
        difference = None
        if losses is not None:
            difference = max(abs(one / other - 1) for one, other in zip(losses, undisturbed, strict=True))
        return Row(
            name=self.name,
            ended=self.phase or "Deleted",
            failed=attempts.get("failed", 0),
            disrupted=attempts.get("disrupted", 0),
            suspended=attempts.get("suspended", 0),
            repeated=self.steps_repeated(),
            difference=difference,
            recovery=self.recovery(),
            seconds=time.monotonic() - self._began,
        )


@dataclass
class Drills:
    """What the drills of a session share."""

    platform: Platform
    api: ApiServer
    world: World
    logs: PodLogs
    rows: list[Row] = field(default_factory=list[Row])
    undisturbed: DrilledJob | None = None

    def job(self, name: str, *, taught: bool = False) -> DrilledJob:
        """A job in a namespace of its own. `taught`: all that the teacher would say is in its store."""
        namespace = self.platform.make_namespace(f"drill-{name}")
        job = DrilledJob(self.platform, self.api, self.world, self.logs, namespace, name)
        if taught:
            job.adopt_signals(self.reference())
        return job

    def reference(self) -> DrilledJob:
        """The job that nothing was done to."""
        if self.undisturbed is None:
            job = self.job("undisturbed").start()
            job.wait_for_phase("Succeeded")
            self.undisturbed = job
            self.rows.append(job.row(job.losses(), job.losses()))
        return self.undisturbed

    def finish(self, job: DrilledJob, *, failed: int = 0, disrupted: int = 0, suspended: int = 0) -> None:
        """Waits for the good end of a job, and checks everything that must hold then.

        `failed`, `disrupted`, `suspended`: how its attempts must have been counted.
        """
        undisturbed = self.reference().losses()
        job.wait_for_phase("Succeeded")
        losses = job.losses()
        self.rows.append(job.row(losses, undisturbed))
        assert losses == pytest.approx(undisturbed, rel=TOLERANCE)
        counted = job.status["attempts"]
        found = {name: counted.get(name, 0) for name in ("failed", "disrupted", "suspended")}
        assert found == {"failed": failed, "disrupted": disrupted, "suspended": suspended}, job.reasons()
        job.check_attempts_apart()
        job.check_nothing_left()
        self.remove(job)

    def remove(self, job: DrilledJob) -> None:
        """Removes a job and its namespace."""
        job.delete()
        self.platform.remove_namespace(job.namespace)

    def nodes_free(self) -> None:
        """All nodes take pods again."""
        for node in self.platform.cluster.nodes:
            self.api.patch(path_of("nodes", name=node), {"spec": {"unschedulable": None}})


def table(rows: list[Row]) -> str:
    """All drills, for people."""
    header = ["drill", "ended", "failed", "disrupted", "suspended", "recovery s", "repeated", "loss diff", "whole s"]
    lines = [
        [
            row.name,
            row.ended,
            *map(str, (row.failed, row.disrupted, row.suspended)),
            "–" if row.recovery is None else f"{row.recovery:.1f}",
            str(row.repeated),
            "–" if row.difference is None else f"{row.difference:.1e}",
            f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *lines]
    )


def as_json(rows: list[Row]) -> str:
    """The same for programs."""
    return json.dumps([vars(row) for row in rows], indent=1)
