import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distill_runtime.contract.sections import Objective
from distill_runtime.losses import reference
from distill_runtime.losses.metrics import (
    CALIBRATION_BINS,
    MetricSums,
    calibration_sums,
    linear_log_probabilities,
    linear_metrics,
)
from distill_runtime.signals.head import OutputHead
from tests.unit.losses.heads import Sides, random_sides


def metrics(sides: Sides, chunk_tokens: int | None = None) -> MetricSums:
    return linear_metrics(
        sides.student_hidden, sides.student_weight, sides.teacher_hidden, sides.teacher_head, sides.targets,
        student_head=sides.student_head, student_bias=sides.student_bias, chunk_tokens=chunk_tokens,
    )  # fmt: skip


@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(0, 12),
    chunk_tokens=st.sampled_from([None, 1, 5]),
    softcap=st.sampled_from([None, 3.0]),
    bias=st.booleans(),
    padding=st.sampled_from([0, 3]),
)
@settings(max_examples=40, deadline=None)
def test_metrics_equal_those_of_full_logits(
    seed: int, tokens: int, chunk_tokens: int | None, softcap: float | None, bias: bool, padding: int
) -> None:
    sides = random_sides(seed=seed, tokens=tokens, softcap=softcap, bias=bias, padding=padding)
    student, teacher = sides.logits()
    found = metrics(sides, chunk_tokens)
    wanted = torch.stack([
        reference.distillation(student, teacher, Objective()),
        reference.cross_entropy(student, sides.targets),
        reference.cross_entropy(teacher, sides.targets),
        (student.argmax(-1) == teacher.argmax(-1)).sum().double(),
        torch.tensor(float(tokens), dtype=torch.float64),
    ])  # fmt: skip
    torch.testing.assert_close(found.stacked()[:5], wanted.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(MetricSums.unstacked(found.stacked()).calibration, found.calibration)


@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(0, 40),
    chunk_tokens=st.sampled_from([None, 1, 5]),
    softcap=st.sampled_from([None, 3.0]),
    padding=st.sampled_from([0, 3]),
    size=st.sampled_from([0.2, 1.0, 4.0]),
)
@settings(max_examples=60, deadline=None)
def test_calibration_sums_are_those_of_full_probabilities_bin_by_bin(
    seed: int, tokens: int, chunk_tokens: int | None, softcap: float | None, padding: int, size: float
) -> None:
    sides = random_sides(seed=seed, tokens=tokens, softcap=softcap, padding=padding, size=size)
    logits, _ = sides.logits()
    confidence, top = torch.softmax(logits.detach(), -1).max(-1)
    edges = torch.arange(1, CALIBRATION_BINS, dtype=torch.float64) / CALIBRATION_BINS
    # In float32 what lies on an edge may fall on either side.
    assume(tokens == 0 or float((confidence[:, None] - edges).abs().min()) > 1e-5)
    wanted = torch.zeros(3, CALIBRATION_BINS, dtype=torch.float64)
    for value, token, target in zip(confidence.tolist(), top.tolist(), sides.targets.tolist(), strict=True):
        place = next(n for n in range(CALIBRATION_BINS) if n / CALIBRATION_BINS < value <= (n + 1) / CALIBRATION_BINS)
        wanted[:, place] += torch.tensor([1.0, value, float(token == target)], dtype=torch.float64)
    torch.testing.assert_close(metrics(sides, chunk_tokens).calibration, wanted, rtol=1e-5, atol=1e-5)


def test_a_prediction_on_an_edge_belongs_to_the_bin_below_and_certainty_to_the_last() -> None:
    sums = calibration_sums(torch.tensor([1 / 3, 1.0, 0.0], dtype=torch.float64), torch.tensor([True, True, False]))
    assert sums[0].tolist() == [1, 0, 0, 0, 1, *[0] * 9, 1]
    assert sums[2].tolist() == [0, 0, 0, 0, 1, *[0] * 9, 1]


def test_metrics_of_the_teacher_itself_are_no_divergence_and_full_agreement() -> None:
    sides = random_sides()
    sides.teacher_hidden = sides.student_hidden.detach()
    sides.teacher_head = OutputHead(sides.student_head, sides.student_weight.detach())
    found = metrics(sides)
    assert found.kl.item() == 0.0
    assert found.agreements.item() == found.targets.item() == 7
    assert found.cross_entropy.item() == found.teacher_cross_entropy.item()


def test_sums_of_two_parts_are_the_sums_of_the_whole() -> None:
    sides = random_sides()
    parts = [
        Sides(**{
            **vars(sides),
            "student_hidden": sides.student_hidden[at],
            "teacher_hidden": sides.teacher_hidden[at],
            "targets": sides.targets[at],
        })
        for at in (slice(0, 3), slice(3, 7))
    ]  # fmt: skip
    together = metrics(parts[0]) + metrics(parts[1])
    torch.testing.assert_close(together.stacked(), metrics(sides).stacked(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk_tokens", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_equal_those_of_full_logits(chunk_tokens: int | None, dtype: torch.dtype) -> None:
    sides = random_sides(softcap=3.0, bias=True, padding=2, scale=0.5, dtype=dtype)
    found = linear_log_probabilities(
        sides.student_hidden, sides.student_weight, sides.student_head, sides.targets, sides.student_bias,
        chunk_tokens=chunk_tokens,
    )  # fmt: skip
    student, _ = sides.logits()
    wanted = torch.log_softmax(student, -1).gather(1, sides.targets[:, None])[:, 0]
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), wanted.detach(), rtol=1e-5, atol=1e-5)


def test_metrics_refuse_what_does_not_fit() -> None:
    sides = random_sides()
    with pytest.raises(ValueError, match="7 states of the student, 6 of the teacher, 7 targets"):
        metrics(Sides(**{**vars(sides), "teacher_hidden": sides.teacher_hidden[1:]}))
    with pytest.raises(ValueError, match="vocabulary is 12"):
        metrics(Sides(**{**vars(sides), "teacher_head": random_sides(vocabulary=12).teacher_head}))
