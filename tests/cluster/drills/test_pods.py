"""Pods are deleted by hand."""

from tests.cluster.drills.drill import STREAMING, Drills


def test_delete_teacher(drills: Drills) -> None:
    """Another one takes its place; the students stay."""
    job = drills.job("delete-teacher").start(STREAMING)
    job.wait_for_step(12)
    students = job.uids("student")
    job.strike()
    job.delete_pod(job.pod("teacher"))
    drills.finish(job)
    assert job.uids_ever("student") == students, "students were made anew"


def test_delete_student(drills: Drills) -> None:
    """The other worker saves too, and the next attempt repeats nothing."""
    job = drills.job("delete-student", taught=True).start()
    job.wait_for_step(12)
    job.strike()
    job.delete_pod(job.pod("student", 1))
    drills.finish(job, disrupted=1)


def test_delete_all(drills: Drills) -> None:
    """All pods at once."""
    job = drills.job("delete-all").start(STREAMING)
    job.wait_for_step(12)
    job.strike()
    for pod in job.pods():
        job.delete_pod(pod)
    drills.finish(job, disrupted=1)
