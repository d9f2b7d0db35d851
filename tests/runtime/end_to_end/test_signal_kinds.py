"""A whole job with each kind of signal."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.models import tiny_tokenizer
from tests.runtime.end_to_end.local_job import LocalJob

TOLERANCE = 1e-4
"""Relative: log-probabilities of all ids in float32 against the states, carried on by SGD for eight steps."""


def kind_of(job: LocalJob, kind: str, **signal: Any) -> LocalJob:
    """The job with another kind of signal."""
    return job.changed({"signal": {"kind": kind, **signal}}, name=kind)


def test_a_top_k_of_all_ids_gives_the_losses_of_hidden_states(finished_job: LocalJob) -> None:
    whole = kind_of(finished_job, "topk", k=len(tiny_tokenizer()))
    whole.run().expect(0)
    assert whole.losses() == pytest.approx(finished_job.losses(), rel=TOLERANCE)
    assert whole.report().student_after.kl_to_teacher == pytest.approx(
        finished_job.report().student_after.kl_to_teacher, rel=TOLERANCE
    )
    assert whole.report().teacher == finished_job.report().teacher, "scores of the teacher are found in the store"


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_a_compact_kind_trains_and_is_judged_by_the_same_scores(finished_job: LocalJob, kind: str) -> None:
    compact = kind_of(finished_job, kind, k=16, samples=48)
    compact.run().expect(0)
    report, wanted = compact.report(), finished_job.report()
    assert report.teacher == wanted.teacher
    assert report.student_before == wanted.student_before
    before, after = report.student_before.kl_to_teacher, report.student_after.kl_to_teacher
    assert before is not None
    assert after is not None
    assert after < before
    targets = int(report.data["targets"]), int(report.data["evaluationTargets"])
    per_target = {"topk": 16 * (2 + 4) + 4, "sampled": 48 * 2}[kind]
    assert report.signal["kind"] == kind
    assert report.signal["bytesPerTarget"] == per_target
    held_out = int(report.signal["heldOutBytesPerTarget"])
    assert report.signal["bytes"] == targets[0] * per_target + targets[1] * held_out


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_streaming_gives_the_same_losses_and_drops_what_is_behind(job: LocalJob, kind: str) -> None:
    signal = {"k": 16, "samples": 48, "dtype": None}
    kept = kind_of(job, kind, **signal)
    kept.run().expect(0)
    streamed = kept.changed(
        {
            "storage": {"uri": f"file://{job.folder}/streamed"},
            "signal": {"mode": "streaming", "watermarkBytes": 2_000},
            "training": {"checkpointEverySteps": 2},
        },
        name=f"{kind}-streamed",
    )
    streamed.run().expect(0)
    assert streamed.losses() == pytest.approx(kept.losses(), rel=1e-5)
    assert parts(job.folder / "streamed" / "trainings") == 0
    assert parts(job.folder / "streamed" / "signals") == 2, "held-out signals are shared, and stay"


def parts(folder: Path) -> int:
    """Stored parts of signals below a folder."""
    return len(list(folder.rglob("parts/*.safetensors")))


def test_a_k_above_the_vocabulary_is_refused_before_a_teacher_starts(job: LocalJob) -> None:
    size = len(tiny_tokenizer())
    ended = kind_of(job, "topk", k=size + 1).run().expect(65)
    assert f"signal.k is {size + 1}, but the vocabulary has {size} ids" in ended.output
    assert job.logs("teacher") == ""
