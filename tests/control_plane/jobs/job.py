"""A DistillJob as a test of the control plane drives it: its pods are played."""

from collections.abc import Mapping
from typing import Any

from tests.fixtures.api_server import ApiServer, Object
from tests.fixtures.api_watch import World
from tests.fixtures.kubelet import Kubelet
from tests.fixtures.pod_acts import Play
from tests.fixtures.watched_job import PHASE_SECONDS, WatchedJob, merged

SPEC: Object = {
    "teacher": {"model": "hf://big/model"},
    "student": {"model": "hf://small/model", "workers": 2},
    "data": {"train": "s3://bucket/*.jsonl", "evaluation": "s3://bucket/heldout.jsonl"},
    "storage": {"uri": "s3://bucket"},
    "policy": {"checkpointGraceSeconds": 5},
}


class Job(WatchedJob):
    """One DistillJob whose pods are played."""

    def __init__(self, api: ApiServer, world: World, kubelet: Kubelet, namespace: str, name: str) -> None:
        super().__init__(api, world, namespace, name)
        self._kubelet = kubelet

    def create(self, spec: Mapping[str, Any] | None = None, play: Play | None = None) -> "Job":
        """Makes it, with changes to the usual spec; its pods follow the play."""
        self._kubelet.play(self.namespace, self.name, play or Play())
        return self.create_with(merged(SPEC, spec or {}))

    def change(self, **scripts: Any) -> None:
        """Changes what its pods do."""
        self._kubelet.change(self.namespace, self.name, **scripts)

    def finish(self, seconds: float = 2 * PHASE_SECONDS) -> "Job":
        """Lets it come to its good end."""
        self.change(**vars(Play()))
        self.wait_for_phase("Succeeded", seconds)
        self.check_attempts_apart()
        return self
