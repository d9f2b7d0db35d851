"""A student of every architecture on the list learns what its own logits say, through the fused objective."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill_runtime.contract.sections import Objective, Training
from distill_runtime.errors import UserError
from distill_runtime.losses.reference import objective_total
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.head_source import describe_head
from distill_runtime.signals.teacher_rows import HiddenRows
from distill_runtime.student.architectures import STUDENT_PROVEN, check_student
from distill_runtime.student.model import assert_head_fits, build_model, read_config
from distill_runtime.student.module import DistilledStudent
from tests.fixtures.families import FAMILIES, NESTED, VOCABULARY, save_family, save_nested, some_sequences

LOSS = 1e-5
"""Relative tolerance of float32 sums in another order."""
GRADIENT = 2e-4
"""Tolerance of a parameter's gradient, relative to the largest one of its elements."""
TEACHER_WIDTH = 24
OBJECTIVE = Objective(temperature=2.0, cross_entropy_weight=0.5)


def build(folder: Path) -> DistilledStudent:
    head = describe_head(folder, VOCABULARY)
    model = build_model(
        folder,
        read_config(folder, tied=head.tied, trust_remote_code=False),
        Training(zero_stage=0),
        dtype=torch.float32,
        settings={},
        trust_remote_code=False,
    )
    assert_head_fits(model, head)
    return DistilledStudent(model, head=head, objective=OBJECTIVE)


def teacher_of(targets: int) -> HiddenRows:
    """Another architecture's states and head, narrower than the student's, with a softcap and a scale."""
    generator = torch.Generator().manual_seed(5)
    description = HeadDescription(
        hidden_size=TEACHER_WIDTH, padded_vocabulary=VOCABULARY, vocabulary=VOCABULARY, scale=0.5, softcap=3.0
    )
    weight = torch.randn(VOCABULARY, TEACHER_WIDTH, generator=generator)
    return HiddenRows(torch.randn(targets, TEACHER_WIDTH, generator=generator), OutputHead(description, weight))


def gradients(module: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_learns_by_its_own_logits(folder: Path) -> None:
    check_student(folder)
    module = build(folder)
    ids = torch.tensor(some_sequences(lengths=(12, 12, 12)))
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    # The states at 3 to 9 of each row, in its flat order, predict the ids at 4 to 10.
    index = torch.cat([torch.arange(3, 10) + 12 * row for row in range(3)])
    targets = ids.flatten()[index + 1]
    teacher = teacher_of(len(targets))

    total, _, _ = module("objective", inputs, state_index=index, targets=targets, teacher=teacher, scale=1.0)
    fused = gradients(module, total)
    logits = module("logits", inputs).flatten(0, 1)[index, :VOCABULARY]
    plain_total = objective_total(logits, teacher.head.logits(teacher.states), targets, OBJECTIVE)
    plain = gradients(module, plain_total)

    assert total.item() == pytest.approx(plain_total.item(), rel=LOSS)
    assert fused.keys() == plain.keys()
    for name, wanted in plain.items():
        bound = GRADIENT * float(wanted.abs().max()) + 1e-9
        torch.testing.assert_close(fused[name], wanted, atol=bound, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("architecture", sorted(STUDENT_PROVEN - set(NESTED)))
@pytest.mark.parametrize("padding", [0, 64])
def test_loss_and_gradients_are_those_of_the_models_own_logits(architecture: str, padding: int, tmp_path: Path) -> None:
    save_family(tmp_path, architecture, vocabulary=VOCABULARY + 4 + padding)
    assert_learns_by_its_own_logits(tmp_path)


@pytest.mark.parametrize("architecture", sorted(STUDENT_PROVEN & set(NESTED)))
def test_loss_and_gradients_are_those_of_the_models_own_logits_with_a_nested_text_model(
    architecture: str, tmp_path: Path
) -> None:
    assert_learns_by_its_own_logits(save_nested(tmp_path, architecture))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM", "GemmaForCausalLM"])
def test_loss_and_gradients_are_those_of_the_models_own_logits_however_the_head_is_tied(
    architecture: str, tied: bool, tmp_path: Path
) -> None:
    save_family(tmp_path, architecture, tie_word_embeddings=tied)
    assert_learns_by_its_own_logits(tmp_path)


EXPERTS = sorted(
    name for name, (_, own) in FAMILIES.items() if own.keys() & {"num_experts", "num_local_experts", "n_routed_experts"}
)


@pytest.mark.parametrize("architecture", EXPERTS)
def test_a_mixture_of_experts_is_refused_in_one_sentence(architecture: str, tmp_path: Path) -> None:
    save_family(tmp_path, architecture)
    with pytest.raises(
        UserError, match=rf"student: {architecture} is a mixture of experts.*choose a dense one,"
    ) as caught:
        check_student(tmp_path)
    assert caught.value.reason == "UnsupportedStudent"
    assert architecture not in str(caught.value).partition("dense one")[2]


def test_a_model_that_is_no_language_model_alone_is_refused_in_one_sentence(tmp_path: Path) -> None:
    save_nested(tmp_path, "LlavaForConditionalGeneration")
    with pytest.raises(UserError, match="student: LlavaForConditionalGeneration is not among the architectures"):
        check_student(tmp_path)
