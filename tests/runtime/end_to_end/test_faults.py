"""Whatever dies, running again ends with the losses of an undisturbed run."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from tests.runtime.end_to_end.local_job import LocalJob, descendants, processes_of, wait_until

TOLERANCE = 1e-5
"""Relative, float32: the same sums in the same order, but for what another rank did."""


def shards(job: LocalJob) -> list[Path]:
    """Parts of signals that are in the store."""
    return sorted(job.store.glob("signals/**/*.safetensors"))


def saved_step(job: LocalJob) -> int:
    """The step of the newest checkpoint that counts; 0 without one."""
    for fence in job.store.glob("trainings/*/fence.json"):
        entries = json.loads(fence.read_text())["checkpoints"]
        return max((int(entry["step"]) for entry in entries), default=0)
    return 0


LONG = {"training": {"steps": 60, "checkpointEverySteps": 1, "evaluateEverySteps": 20}}
"""Long enough to be hit in the middle."""


@pytest.fixture
def job(job: LocalJob) -> LocalJob:
    """A job that can be hit in the middle."""
    return job.changed(LONG)


@pytest.fixture(scope="module")
def undisturbed(finished_job: LocalJob) -> list[float]:
    """The losses of the job when nothing happens to it."""
    other = finished_job.changed(LONG, name="undisturbed")
    other.run().expect(0)
    return other.losses()


def test_kill_the_teacher_a_student_worker_and_the_whole_run(job: LocalJob, undisturbed: list[float]) -> None:
    job = job.changed({"student": {"workers": 2}})

    running = job.start()
    wait_until("the first signals", lambda: len(shards(job)) >= 2, running)
    for pid in processes_of(running, "-m distill_runtime.teacher"):
        os.kill(pid, signal.SIGKILL)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 75, output
    assert "teacher" in output
    assert "killed" in output.lower()

    running = job.start()
    wait_until("a checkpoint", lambda: saved_step(job) >= 2, running)
    os.kill(random.choice(processes_of(running, "-u -m distill_runtime.student")), signal.SIGKILL)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 75, output
    assert "student" in output

    before = saved_step(job)
    running = job.start()
    wait_until("another checkpoint", lambda: saved_step(job) > before, running)
    pids = [running.pid, *descendants(running.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    running.communicate(timeout=60)

    job.run().expect(0)
    assert job.losses() == pytest.approx(undisturbed, rel=TOLERANCE)


def test_ctrl_c_keeps_a_checkpoint_and_the_next_run_goes_on_from_it(job: LocalJob, undisturbed: list[float]) -> None:
    job = job.changed({"training": {"checkpointEverySteps": 1000}})
    running = job.start()
    wait_until("training", lambda: "step 3 of" in job.logs("student"), running)
    os.kill(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=120)
    assert running.returncode in (130, 143), output
    assert "again" in output
    assert 3 <= saved_step(job) < 60
    job.run().expect(0)
    assert "resumed behind step" in job.logs("student")
    assert job.losses() == pytest.approx(undisturbed, rel=TOLERANCE)


def damage(part: Path, kind: str) -> None:
    """Spoils an object in the store, as a disk or a person would."""
    data = bytearray(part.read_bytes())
    match kind:
        case "flipped byte":
            data[len(data) // 2] ^= 1
            part.write_bytes(data)
        case "truncated":
            part.write_bytes(data[: len(data) // 2])
        case _:
            part.unlink()


def test_a_bad_signal_is_named_and_recomputed(job: LocalJob) -> None:
    job = job.changed({"training": {"steps": 8}})
    job.run().expect(0)
    losses = job.losses()
    for number, kind in enumerate(("flipped byte", "truncated", "missing")):
        job.forget_training()
        bad = shards(job)[-1 - number]
        damage(bad, kind)
        # With the node's cache of the run before, the bad object wouldn't be read.
        job.environment = {"DISTILL_CACHE_DIR": str(job.folder / f"cache-{number}")}
        job.run().expect(0)
        # What is missing prepare sees already, and starts a teacher; what is damaged the student finds.
        assert bad.name in job.logs("student") or kind == "missing"
        assert job.losses() == pytest.approx(losses, rel=TOLERANCE), kind
