"""A student of every architecture on the list learns what its own logits say, through the fused objective."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from distill_runtime.contract.sections import Objective, Training
from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import UserError
from distill_runtime.losses.reference import objective_total
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.head_source import describe_head
from distill_runtime.signals.teacher_rows import HiddenRows
from distill_runtime.student.architectures import EXPERTS, REFUSED, STUDENT_PROVEN, UNPACKED, check_student
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.export import check_export, export_model
from distill_runtime.student.model import assert_head_fits, build_model, fill, folder_weights, read_config
from distill_runtime.student.module import DistilledStudent
from distill_runtime.student.self_checks import check_packing
from tests.fixtures.families import FAMILIES, NESTED, VOCABULARY, save_family, save_nested, some_sequences
from tests.fixtures.models import tiny_config, tiny_tokenizer
from tests.runtime.student.one_process import RANKS, OneProcess

LOSS = 1e-5
"""Relative tolerance of float32 sums in another order."""
GRADIENT = 2e-4
"""Tolerance of a parameter's gradient, relative to the largest one of its elements."""
TEACHER_WIDTH = 24
PADDING = 68
"""Rows of the students' heads that stand for no id."""
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
def test_loss_and_gradients_are_those_of_the_models_own_logits(architecture: str, tmp_path: Path) -> None:
    save_family(tmp_path, architecture, vocabulary=VOCABULARY + PADDING)
    assert_learns_by_its_own_logits(tmp_path)


@pytest.mark.parametrize("architecture", sorted(STUDENT_PROVEN & set(NESTED)))
def test_loss_and_gradients_are_those_of_the_models_own_logits_with_a_nested_text_model(
    architecture: str, tmp_path: Path
) -> None:
    assert_learns_by_its_own_logits(save_nested(tmp_path, architecture))


@pytest.mark.parametrize("architecture", sorted(name for name, why in REFUSED.items() if why == EXPERTS))
def test_loss_and_gradients_are_those_of_the_logits_of_a_mixture_of_experts_too(
    architecture: str, tmp_path: Path
) -> None:
    """Its router alone keeps it from being a student."""
    save_family(tmp_path, architecture, vocabulary=VOCABULARY + PADDING)
    assert_learns_by_its_own_logits(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM", "GemmaForCausalLM"])
def test_loss_and_gradients_are_those_of_the_models_own_logits_however_the_head_is_tied(
    architecture: str, tied: bool, tmp_path: Path
) -> None:
    save_family(tmp_path, architecture, tie_word_embeddings=tied)
    assert_learns_by_its_own_logits(tmp_path)


@pytest.mark.parametrize("architecture", sorted(STUDENT_PROVEN))
@torch.no_grad()
def test_what_is_exported_and_what_zero_3_reads_is_the_whole_model(architecture: str, tmp_path: Path) -> None:
    """Of parameters alone: a part of the model that is a buffer would be lost."""
    folder = save_any(tmp_path / "initial", architecture)
    module = build(folder).student
    ids = torch.tensor(some_sequences(lengths=(20,)))
    wanted = module(input_ids=ids, use_cache=False).logits

    exported = tmp_path / "exported"
    weights = ((name, parameter) for name, parameter in module.named_parameters())
    check_export(exported, export_model(exported, weights, folder, dtype=torch.float32, card="# A model\n"))
    loaded = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    assert torch.equal(loaded(input_ids=ids, use_cache=False).logits, wanted)

    with no_init_weights():
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
    empty.tie_weights()
    fill(empty, folder_weights(folder, empty))
    assert torch.equal(empty(input_ids=ids, use_cache=False).logits, wanted)


@pytest.mark.parametrize("architecture", sorted(STUDENT_PROVEN))
def test_a_student_whose_layers_read_on_into_the_next_sequence_is_known_to(architecture: str, tmp_path: Path) -> None:
    folder = save_any(tmp_path, architecture)
    random = np.random.default_rng(0)
    sequences = [
        Sequence(ids=random.integers(4, VOCABULARY, n).astype(np.int32), target_mask=np.arange(n) > 0)
        for n in (31, 17, 24)
    ]
    engine = cast(StudentEngine, OneProcess(build(folder)))
    check = partial(check_packing, engine, sequences, RANKS, "float32", varlen=False)
    if architecture in UNPACKED:
        for refuse in (check, partial(check_student, folder, packing=True)):
            with pytest.raises(UserError, match=r"training\.packing: .* set training\.packing to false") as caught:
                refuse()
            assert caught.value.reason == "PackingCrosses"
    else:
        check()
        check_student(folder, packing=True)


def save_any(folder: Path, architecture: str) -> Path:
    if architecture not in NESTED:
        return save_family(folder, architecture)
    tiny_tokenizer().save_pretrained(folder)
    return save_nested(folder, architecture)


@pytest.mark.parametrize("architecture", sorted(REFUSED))
def test_other_architectures_are_refused_in_one_sentence(architecture: str, tmp_path: Path) -> None:
    save_any(tmp_path, architecture)
    with pytest.raises(UserError, match=rf"student: {architecture} .*: choose another student, one of") as caught:
        check_student(tmp_path, packing=False)
    assert caught.value.reason == "UnsupportedStudent"
    assert architecture not in str(caught.value).partition("one of")[2]


@pytest.mark.parametrize("architecture", sorted(STUDENT_PROVEN - set(NESTED)))
def test_no_student_is_a_mixture_of_experts_by_a_field_of_its_configuration(architecture: str) -> None:
    family, own = FAMILIES[architecture]
    config = tiny_config(family, vocabulary=VOCABULARY, layers=2, hidden=128, **own)
    assert [name for name in vars(config) if "expert" in name and not name.startswith("_")] == []
