"""Processes die or hang in pods that stay."""

import signal

import pytest

from tests.cluster.drills.drill import STREAMING, Drills
from tests.cluster.drills.pod_processes import STUDENT, SUPERVISOR, TEACHER, processes_of, send
from tests.testcluster.waiting import wait_until

RANK_SECONDS = 10
"""The container runtime kills what is left of a container without any grace."""


def test_kill_teacher(drills: Drills) -> None:
    """kill -9 of the teacher's engine: another teacher takes its place, the student waits for it and goes on."""
    job = drills.job("kill-teacher").start(STREAMING)
    job.wait_for_step(12)
    student = job.uids("student")
    job.strike()
    send(job.pod("teacher")["metadata"]["uid"], TEACHER, signal.SIGKILL)
    drills.finish(job)
    assert job.uids_ever("student") == student, "students were made anew"
    assert len(job.uids_ever("teacher")) == 2
    assert "TeacherReplaced" in job.reasons()


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_student(drills: Drills, rank: int) -> None:
    """kill -9 of a rank: the next attempt goes on from the last checkpoint."""
    job = drills.job(f"kill-student-{rank}", taught=True).start()
    job.wait_for_step(12)
    job.strike()
    send(job.pod("student", rank)["metadata"]["uid"], STUDENT, signal.SIGKILL)
    drills.finish(job, failed=1)
    assert job.steps_repeated() <= 5 + 2, "more than since the last checkpoint"


def test_kill_supervisor(drills: Drills) -> None:
    """kill -9 of a container's first process: nothing of it stays, and the restarted container does no work."""
    job = drills.job("kill-supervisor", taught=True).start()
    job.wait_for_step(12)
    uid = job.pod("student", 1)["metadata"]["uid"]
    job.strike()
    send(uid, SUPERVISOR, signal.SIGKILL)
    wait_until("the end of its rank", lambda: not processes_of(uid, STUDENT), RANK_SECONDS)
    drills.finish(job, failed=1)


def test_stop_student(drills: Drills) -> None:
    """A rank hangs: the job ends the attempt as stalled, with the stacks in the logs, and goes on."""
    job = drills.job("stop-student", taught=True).start()
    job.wait_for_step(12)
    job.strike()
    send(job.pod("student", 1)["metadata"]["uid"], STUDENT, signal.SIGSTOP)
    drills.finish(job, failed=1)
    assert job.ending()["reason"] == "Stalled"
    assert any("Thread 0x" in line.message or 'File "' in line.message for line in job.student_lines())


def test_stop_teacher(drills: Drills) -> None:
    """A teacher hangs: nobody gets on, and the next attempt has another one."""
    job = drills.job("stop-teacher").start(STREAMING)
    job.wait_for_step(12)
    job.strike()
    send(job.pod("teacher")["metadata"]["uid"], TEACHER, signal.SIGSTOP)
    drills.finish(job, failed=1)
    assert job.ending()["reason"] == "Stalled"
