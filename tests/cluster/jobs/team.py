"""A team of a cluster: a namespace of its own, and jobs in it."""

import json
from collections.abc import Mapping
from typing import Any

from distill_runtime.contract.facts import TeacherFacts
from distill_runtime.contract.outcome import Outcome
from distill_runtime.contract.report import Report
from distill_runtime.contract.run import Role
from tests.cluster.platform import BUCKET, SECRET, Platform
from tests.fixtures.api_server import ApiServer, Object
from tests.fixtures.api_watch import Change, World
from tests.fixtures.watched_job import WatchedJob, merged

JOB_SECONDS = 600.0
"""A job alone takes a minute; several at once, on two busy cores, take their time."""
TEACHER = f"s3://{BUCKET}/models/teacher"
TRAIN = f"s3://{BUCKET}/data/train.jsonl"
HELD_OUT = f"s3://{BUCKET}/data/heldout.jsonl"
TRAIN_ROWS, HELD_OUT_ROWS, QUESTIONS = 96, 12, 3
WORKERS = 2
SHARD_SEQUENCES = 4
SPEC: Object = {
    "teacher": {"model": TEACHER, "gpus": 0},
    "student": {"initialise": {"fromTeacher": {"every": 2}}, "gpusPerWorker": 0, "workers": WORKERS},
    "data": {"train": TRAIN, "evaluation": HELD_OUT, "maxLength": 256},
    "signal": {"shardSequences": SHARD_SEQUENCES},
    "training": {
        "steps": 24,
        "globalBatch": 8,
        "microBatch": 2,
        "precision": "float32",
        "zeroStage": 2,
        "checkpointEverySteps": 8,
        "evaluateEverySteps": 12,
    },
}
"""A job whose model is tiny."""
ASKED: Object = {
    "evaluation": {
        "tasks": [
            {
                "kind": "questionAnswering",
                "name": "answers",
                "data": f"s3://{BUCKET}/data/questions.jsonl",
                "maxNewTokens": 8,
            }
        ]
    }
}
"""Changes after which the models answer questions: of the teacher, only a pod of it can."""
BOTH_HALVES_LONG: Object = {
    # A teacher that may be no further ahead has work as long as the student has.
    "signal": {"mode": "streaming", "watermarkBytes": 200_000},
    "training": {"steps": 200, "checkpointEverySteps": 40, "evaluateEverySteps": 100},
}
"""Changes after which teacher and student run side by side for about a minute."""


class TeamJob(WatchedJob):
    """A job of a team."""

    phase_seconds = JOB_SECONDS

    def __init__(self, platform: Platform, api: ApiServer, world: World, namespace: str, name: str) -> None:
        super().__init__(api, world, namespace, name)
        self._platform = platform

    def start(self, store: str, *changes: Mapping[str, Any]) -> "TeamJob":
        """Makes it, with changes to the usual spec. What it makes is kept below `store` in the bucket."""
        storage = {
            "uri": f"s3://{BUCKET}/{store}",
            "secretName": SECRET,
            "endpoint": self._platform.store.endpoint,
        }
        spec = merged(SPEC, {"storage": storage})
        for change in changes:
            spec = merged(spec, change)
        return self.create_with(spec)

    def wait_for_both_halves(self) -> None:
        """Waits until its teacher and all its students run and are ready."""
        self.wait_for_phase("Distilling")
        self.wait("both halves", lambda: self._ready("teacher") and self._ready("student"))

    def _ready(self, half: str) -> bool:
        assert self.phase == "Distilling", self.status
        status = self.status[half]
        return status.get("ready", 0) == status["desired"] > 0

    def pod_changes(self, role: Role) -> list[Change]:
        """All that happened to its pods of a role, in order."""
        known = self.pods_ever(role)
        return [
            change for change in self._world.changes("pods", self.namespace) if change.item["metadata"]["uid"] in known
        ]

    def report(self) -> Report:
        """The report in the store."""
        page = self.status["output"]["report"]
        return Report.model_validate_json(self._platform.download(f"{page.removesuffix('.html')}.json"))

    def teachers_words(self) -> list[TeacherFacts]:
        """What each teacher pod said at its end that had finished."""
        outcomes = [outcome for pod in self.pods_ever("teacher").values() for outcome in _last_words(pod)]
        return [TeacherFacts.read(outcome.facts) for outcome in outcomes if outcome.code == 0]


def _last_words(pod: Object) -> list[Outcome]:
    """A pod's last word; of a container that repeats it, the one is as good as the other."""
    states = [
        state for status in pod["status"]["containerStatuses"] for state in (status["state"], status["lastState"])
    ]
    said = [state["terminated"]["message"] for state in states if state.get("terminated", {}).get("message")]
    return [Outcome.model_validate(json.loads(message)) for message in said[:1]]


class Team:
    """A namespace with its jobs."""

    def __init__(self, platform: Platform, api: ApiServer, world: World, namespace: str) -> None:
        self.platform = platform
        self.api = api
        self.namespace = namespace
        self._world = world

    def job(self, name: str) -> TeamJob:
        """A job of this name, that may not be there yet."""
        return TeamJob(self.platform, self.api, self._world, self.namespace, name)
