"""Nothing is computed twice for the same inputs."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

from tests.fixtures.models import save_tiny_model, tiny_tokenizer
from tests.runtime.end_to_end.local_job import LocalJob, wait_until


def test_a_second_run_and_another_student_start_no_teacher(job: LocalJob) -> None:
    job.run().expect(0)
    assert "loading the teacher" in job.logs("teacher")
    first = job.report()

    again = job.run().expect(0)
    assert "not started" in again.output
    assert job.report() == first

    others = {
        "seed": {"training": {"seed": 5}},
        "batch": {"training": {"globalBatch": 4, "packing": True}},
        "student": {"student": {"initialise": {"fromTeacher": {"every": None, "layers": [0, 3]}}}},
    }
    for name, changes in others.items():
        other = job.changed(changes, name=name)
        other.run().expect(0)
        assert other.logs("teacher") == "", f"{name}: a teacher ran"
        assert other.report().training_digest != first.training_digest
        assert other.report().teacher == first.teacher


def test_another_teacher_dtype_or_template_starts_a_teacher(finished_job: LocalJob, tmp_path: Path) -> None:
    template = tiny_tokenizer().chat_template
    assert isinstance(template, str)
    folder = save_tiny_model(tmp_path / "other", seed=2, layers=4, head_dim=32)
    others: dict[str, dict[str, Any]] = {
        "weights": {"teacher": {"model": f"file://{folder}"}},
        "dtype": {"teacher": {"dtype": "bfloat16"}},
        "template": {"data": {"chatTemplate": "{{ bos_token }}" + template}},
    }
    for what, changes in others.items():
        other = finished_job.changed(changes, name=what)
        running = other.start()
        wait_until(f"a teacher for other {what}", partial(loads_a_teacher, other), running)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=120)


def loads_a_teacher(job: LocalJob) -> bool:
    """Whether the job has found that its teacher has something to do."""
    return "loading the teacher" in job.logs("teacher")
