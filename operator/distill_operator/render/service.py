"""Headless Services: names for the students' pods, and what metrics scrapers find both halves by."""

from distill_operator.api import DistillJob
from distill_operator.constants import MASTER_PORT, PROGRESS_PORT, PROGRESS_PORT_NAME
from distill_operator.render.manifest import Manifest, child_manifest, selector
from distill_operator.render.student import RENDEZVOUS_PORT_NAME


def teacher_service(job: DistillJob, attempt: int) -> Manifest:
    """The teacher replicas."""
    return {
        **child_manifest("teacherService", job, attempt, role="teacher"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(job, "teacher"),
            "ports": [_port(PROGRESS_PORT_NAME, PROGRESS_PORT)],
        },
    }


def student_service(job: DistillJob, attempt: int) -> Manifest:
    """The student workers. They find each other by name before they are ready: none is until all are there."""
    return {
        **child_manifest("studentService", job, attempt, role="student"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(job, "student"),
            "ports": [_port(PROGRESS_PORT_NAME, PROGRESS_PORT), _port(RENDEZVOUS_PORT_NAME, MASTER_PORT)],
        },
    }


def _port(name: str, number: int) -> Manifest:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
