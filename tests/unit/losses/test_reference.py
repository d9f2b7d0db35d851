import math

import pytest
import torch

from distill_runtime.contract.sections import Objective
from distill_runtime.losses import reference
from distill_runtime.signals.head import HeadDescription, OutputHead


def test_divergence_of_two_coins_is_what_one_counts_by_hand() -> None:
    student = torch.tensor([[0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float64)  # 3/4, 1/4; 1/2, 1/2
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert reference.forward_kl(student, teacher).item() == pytest.approx(wanted, abs=1e-12)


def test_temperature_divides_both_sides_and_its_square_multiplies_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    wanted = 9 * reference.forward_kl(student / 3, teacher / 3)
    torch.testing.assert_close(reference.forward_kl(student, teacher, 3.0), wanted)
    # Hinton et al.: at high temperature, half the squared difference of the centred logits over the vocabulary.
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    torch.testing.assert_close(
        reference.forward_kl(student, teacher, 1e4), centred.square().sum() / (2 * 9), rtol=1e-3, atol=0
    )


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
