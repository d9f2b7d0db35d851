"""A namespace with DistillJobs."""

from dataclasses import dataclass
from typing import Any

from tests.control_plane.jobs.job import Job
from tests.fixtures.api_server import ApiServer
from tests.fixtures.api_watch import World
from tests.fixtures.kubelet import Kubelet
from tests.fixtures.pod_acts import Play, runs


@dataclass(frozen=True)
class Place:
    """A namespace, and what jobs in it need."""

    api: ApiServer
    world: World
    kubelet: Kubelet
    namespace: str

    def job(self, name: str) -> Job:
        """A job of this name; it needn't be there yet."""
        return Job(self.api, self.world, self.kubelet, self.namespace, name)

    def running(self, name: str, **spec: Any) -> Job:
        """A job whose halves both run, one teacher and two students, and which has no other pods any more."""
        job = self.job(name).create(spec, Play(teacher=runs, student=runs))
        job.wait_for_running("student", 2)
        job.wait_for_running("teacher", 1)
        job.wait("that the pod that prepared is removed", lambda: not job.pods("prepare"))
        return job
