"""A training in plain PyTorch, sequence by sequence, with full logits: what the trainer must equal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from distill_runtime.contract.sections import Schedule
from distill_runtime.data.order import Order
from distill_runtime.data.plan import Plan
from distill_runtime.student.schedule import learning_rate
from tests.runtime.student.scenario import InventedTeacher, Scenario

LOSS = 2e-6
"""Relative tolerance of losses and gradient norms in float32: sums in another order."""
WEIGHTS = 2e-6
"""Absolute tolerance of weights after the last step with SGD."""

Total = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of the student's and the teacher's logits [targets, vocabulary] and the targets."""


def kl_and_cross_entropy(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    log_q, log_p = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    divergence = (log_p.exp() * (log_p - log_q)).sum()
    return divergence + 0.5 * torch.nn.functional.nll_loss(log_q, targets, reduction="sum")


@dataclass(frozen=True)
class PlainTraining:
    """What came of it."""

    losses: list[float]
    norms: list[float]
    """Of the gradients, one for each step."""
    model: Any


def plain_training(
    scenario: Scenario, steps: int, batch: int, peak: float, total_of: Total = kl_and_cross_entropy
) -> PlainTraining:
    """Steps of SGD by a loop that reads sequence by sequence and knows nothing of the trainer."""
    plan = Plan(scenario.store, scenario.train)
    teacher = InventedTeacher({"train": plan}, scenario.vocabulary)
    model = AutoModelForCausalLM.from_pretrained(scenario.student, dtype=torch.float32)
    order = Order(plan.shard_sizes, seed=0, window_shards=16, global_batch=batch, steps=steps)
    losses: list[float] = []
    norms: list[float] = []
    for step in range(steps):
        numbers = order.step(step).tolist()
        total = torch.zeros(())
        for number, states in zip(numbers, teacher.fetch("train", numbers), strict=True):
            sequence = plan.sequence(number)
            ids = torch.from_numpy(sequence.ids).long()
            logits = model(ids[None]).logits[0, sequence.signal_positions, : scenario.vocabulary]
            total = total + total_of(logits, teacher.head().logits(states), ids[sequence.targets])
        loss = total / int(plan.target_counts[numbers].sum())
        model.zero_grad()
        loss.backward()
        parameters = [p for p in model.parameters() if p.grad is not None]
        losses.append(loss.item())
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])))
        rate = learning_rate(step, steps, Schedule(warmup_steps=1), peak)
        with torch.no_grad():
            for parameter in parameters:
                assert parameter.grad is not None
                parameter -= rate * parameter.grad
    return PlainTraining(losses, norms, model)


def assert_trained_like(
    plain: PlainTraining, scenario: Scenario, name: str, *, losses: float = LOSS, weights: float = WEIGHTS
) -> None:
    """Losses, gradient norms (within these relative tolerances) and last weights (absolute) are those of the loop."""
    assert scenario.losses(name) == pytest.approx(plain.losses, rel=losses)
    assert scenario.norms(name) == pytest.approx(plain.norms, rel=5 * losses)
    found = scenario.weights(name)
    for parameter, weight in plain.model.named_parameters():
        torch.testing.assert_close(found[f"{parameter}:weight"], weight.detach(), atol=weights, rtol=1e-4)
