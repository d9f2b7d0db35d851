import math
from typing import get_args

import pytest
import torch

from distill_runtime.contract.sections import Divergence, DivergenceKind, Objective
from distill_runtime.losses import reference
from distill_runtime.signals.head import HeadDescription, OutputHead

HALF = math.log(0.5)
BY_HAND = {
    # The teacher's coin has heads in 3 of 4 throws, the student's in 1 of 2.
    "forwardKL": 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5),
    "reverseKL": 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25),
    # With a beta of 0.2 the mixture has heads in 0.2 · 3/4 + 0.8 · 1/2 = 0.55 of the throws.
    "jensenShannon": 0.2 * (0.75 * math.log(0.75 / 0.55) + 0.25 * math.log(0.25 / 0.45))
    + 0.8 * (0.5 * math.log(0.5 / 0.55) + 0.5 * math.log(0.5 / 0.45)),
    "skewedForwardKL": 0.75 * math.log(0.75 / 0.55) + 0.25 * math.log(0.25 / 0.45),
    # 0.8 · 3/4 + 0.2 · 1/2 = 0.7
    "skewedReverseKL": 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3),
    # The head is the one side of 3/4, with half of the difference.
    "adaptiveKL": 0.5 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    + 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)),
    "totalVariation": 0.25,
    "teacherTop1": -HALF,
}


@pytest.mark.parametrize("kind", get_args(DivergenceKind))
def test_divergences_of_two_coins_are_what_one_counts_by_hand(kind: DivergenceKind) -> None:
    log_p, log_q = torch.tensor([[0.75, 0.25]]).double().log(), torch.tensor([[0.5, 0.5]]).double().log()
    term = Divergence(kind=kind, beta=0.2, alpha=0.2)
    assert reference.divergence(term, log_p, log_q).item() == pytest.approx(BY_HAND[kind], abs=1e-12)


def test_temperature_divides_both_sides_and_its_square_multiplies_the_divergence_unless_told_otherwise() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    at_3 = reference.forward_kl(torch.log_softmax(teacher / 3, -1), torch.log_softmax(student / 3, -1)).sum()
    torch.testing.assert_close(reference.distillation(student, teacher, Objective(temperature=3.0)), 9 * at_3)
    plain = Objective(temperature=3.0, temperature_factor="none")
    torch.testing.assert_close(reference.distillation(student, teacher, plain), at_3)
    # Hinton et al.: at high temperature, half the squared difference of the centred logits over the vocabulary.
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    # The greatest that the spec allows.
    hot = reference.distillation(student, teacher, Objective(temperature=100))
    torch.testing.assert_close(hot, centred.square().sum() / (2 * 9), rtol=2e-2, atol=0)


def test_cross_entropy_is_torchs_own_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 9, generator=generator), torch.randint(0, 9, (6,), generator=generator)
    wanted = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(reference.cross_entropy(logits, targets), wanted)


def test_logits_are_those_of_the_published_head() -> None:
    generator = torch.Generator().manual_seed(0)
    description = HeadDescription(hidden_size=5, padded_vocabulary=12, vocabulary=9, scale=0.5, softcap=2.0, bias=True)
    hidden, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((4, 5), (12, 5), (12,)))
    wanted = OutputHead(description, weight[:9], bias[:9]).logits(hidden)
    torch.testing.assert_close(reference.logits_of(hidden, weight, description, bias), wanted)


def test_a_weighted_divergence_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match="distillationWeight"):
        reference.objective_total(torch.zeros(1, 2), None, torch.zeros(1, dtype=torch.int64), Objective())
