"""The same job gives the same losses however it is run."""

from typing import Any

import pytest

from tests.runtime.end_to_end.local_job import LocalJob

LOSS_TOLERANCE = 2e-5
"""Relative, float32: sums of a few hundred targets in another order, over eight steps of SGD."""
GRADIENT_TOLERANCE = 2e-4
"""Relative, float32: norms of gradients before clipping."""

WAYS: dict[str, dict[str, Any]] = {
    "two workers": {"student": {"workers": 2}},
    "micro-batch 1, packed": {"training": {"microBatch": 1, "packing": True}},
    "ZeRO 1": {"training": {"zeroStage": 1}},
    "ZeRO 2, two workers, packed": {"student": {"workers": 2}, "training": {"zeroStage": 2, "packing": True}},
    "ZeRO 3, two workers, gradient checkpointing": {
        "student": {"workers": 2},
        "training": {"zeroStage": 3, "gradientCheckpointing": True},
    },
}


def test_losses_and_gradients_do_not_depend_on_how_the_job_runs(job: LocalJob) -> None:
    job.run().expect(0)
    losses = job.losses()
    norms = [point.gradient_norm for point in job.points() if point.loss is not None]
    held_out = [point.held_out_loss for point in job.points() if point.held_out_loss is not None]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    for way, changes in WAYS.items():
        job.forget_training()
        other = job.changed(changes)
        other.run().expect(0)
        assert other.losses() == pytest.approx(losses, rel=LOSS_TOLERANCE), way
        other_norms = [point.gradient_norm for point in other.points() if point.loss is not None]
        assert other_norms == pytest.approx(norms, rel=GRADIENT_TOLERANCE), way
        other_held_out = [point.held_out_loss for point in other.points() if point.held_out_loss is not None]
        assert other_held_out == pytest.approx(held_out, rel=LOSS_TOLERANCE), way
        assert other.logs("teacher") == job.logs("teacher"), f"{way}: the teacher ran again"
