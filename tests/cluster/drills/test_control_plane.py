"""Those who look after the job go away."""

import time
from typing import Any

from tests.cluster.drills.drill import STEPS, STREAMING, Drills
from tests.cluster.platform import RELEASE

MINUTE = 60.0


def scale_operator(drills: Drills, replicas: int) -> None:
    """Stops the operator, or starts it."""
    kubectl = drills.platform.kubectl
    kubectl("scale", f"deployment/{RELEASE}", f"--replicas={replicas}", "-n", RELEASE)
    if replicas == 0:
        kubectl("wait", "pod", "--all", "--for=delete", "-n", RELEASE, "--timeout=60s")
    else:
        kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", RELEASE, "--timeout=120s")


def test_operator_gone_for_a_minute(drills: Drills) -> None:
    """The pods need no operator."""
    job = drills.job("operator-gone").start(STREAMING)
    job.wait_for_step(5)
    job.strike()
    scale_operator(drills, 0)
    time.sleep(MINUTE)
    scale_operator(drills, 1)
    drills.finish(job)


def test_operator_gone_at_the_end(drills: Drills) -> None:
    """The student finishes while nobody looks: its containers keep their last word until somebody does."""
    job = drills.job("operator-at-the-end", taught=True).start()
    job.wait_for_step(STEPS - 15)
    job.strike()
    scale_operator(drills, 0)
    student = job.pod("student")
    job.wait("the student's end", lambda: restarted(job.pod("student")), 120)
    assert job.pod("student")["metadata"]["uid"] == student["metadata"]["uid"]
    scale_operator(drills, 1)
    drills.finish(job)


def restarted(pod: dict[str, Any]) -> bool:
    return any(status["restartCount"] > 0 for status in pod["status"].get("containerStatuses", []))


def test_operator_upgrade(drills: Drills) -> None:
    """Another version with other defaults restarts no pod."""
    job = drills.job("operator-upgrade").start(STREAMING)
    job.wait_for_step(8)
    pods = job.uids()
    job.strike()
    values = drills.platform.values()
    values["pods"]["student"]["environment"] = [{"name": "ANOTHER_DEFAULT", "value": "1"}]
    drills.platform.install_operator({"pods": values["pods"], "podLabels": {"upgraded": "yes"}})
    drills.finish(job)
    assert job.uids_ever("student") | job.uids_ever("teacher") <= pods
    drills.platform.install_operator()


def test_api_server_gone(drills: Drills) -> None:
    """Nothing of a job needs the API server while it trains."""
    job = drills.job("api-server-gone").start(STREAMING)
    job.wait_for_step(8)
    pods = job.uids()
    job.strike()
    control_plane = drills.platform.cluster.control_plane
    control_plane.stop("kube-apiserver")
    time.sleep(MINUTE / 2)
    control_plane.start("kube-apiserver")
    drills.finish(job)
    assert job.uids_ever("student") | job.uids_ever("teacher") <= pods
