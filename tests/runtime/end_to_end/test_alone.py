"""What starts no teacher: plain fine-tuning, and a plan."""

import os
import subprocess
import sys
from pathlib import Path

from tests.runtime.end_to_end.local_job import LocalJob

FINE_TUNED = {"objective": {"distillationWeight": 0, "crossEntropyWeight": 1}}


def test_plain_fine_tuning_starts_no_teacher_and_may_be_compared_with_it_later(job: LocalJob) -> None:
    alone = job.changed({**FINE_TUNED, "evaluation": {"samples": {"count": 1, "maxNewTokens": 4}}}, name="alone")
    ended = alone.run().expect(0)
    assert "Teacher: not started" in ended.output
    assert alone.logs("teacher") == ""
    report = alone.report()
    after = report.student_after
    assert (after.kl_to_teacher, after.top1_agreement) == (None, None)
    assert after.perplexity is not None
    assert report.student_before.perplexity is not None
    assert after.perplexity < report.student_before.perplexity
    assert report.teacher.perplexity is None
    assert report.teacher.tasks == {}
    assert [sample.teacher for sample in report.samples] == [None]
    assert "signals" not in os.listdir(job.store)

    compared = alone.changed({"evaluation": {"compareWithTeacher": True}}, name="compared")
    compared.run().expect(0)
    assert "loading the teacher" in compared.logs("teacher")
    scores = compared.report()
    assert scores.training_digest == report.training_digest, "the training is the same one"
    assert scores.student_after.perplexity == after.perplexity
    assert scores.student_after.kl_to_teacher is not None
    assert scores.teacher.perplexity is not None


def test_a_plan_says_what_the_job_needs_and_starts_nothing_but_prepare(job: LocalJob, tmp_path: Path) -> None:
    automatic = job.changed({"signal": {"kind": "auto", "bandwidth": 1e12}}, name="planned")
    command = [sys.executable, "-m", "distill_operator.cli", "plan", str(automatic.write()), "--gpu-memory", "80Gi"]
    done = subprocess.run(
        [*command, "--folder", str(automatic.run_folder)],
        env={**os.environ, "DISTILL_CACHE_DIR": str(tmp_path / "cache"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("hidden", "topk", "sampled", "chosen", "optimizer", "on processors", "Signal: hidden: the most exact"):
        assert said in done.stdout
    assert automatic.logs("teacher") == automatic.logs("student") == ""
    wrong = subprocess.run([*command[:-1], "lots"], capture_output=True, text=True, timeout=600, check=False)
    assert wrong.returncode == 65
    assert "--gpu-memory lots: is no amount of memory; write 80Gi" in wrong.stderr
