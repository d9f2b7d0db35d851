"""Frozen parts of a model: which they are, that they cost no gradient, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from distill_runtime.contract.sections import Objective, Student
from distill_runtime.errors import UserError
from distill_runtime.signals.head_source import describe_head
from distill_runtime.student.module import DistilledStudent
from distill_runtime.student.trained import check_trained, freeze
from tests.fixtures.models import save_tiny_model, tiny_tokenizer


def model(folder: Path, **options: Any) -> tuple[Path, PreTrainedModel]:
    path = save_tiny_model(folder / "model", layers=2, **options)
    return path, AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def frozen(of: PreTrainedModel) -> set[str]:
    return {name for name, parameter in of.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (["embeddings"], {"model.embed_tokens.weight"}),
        (["outputHead"], {"lm_head.weight"}),
        (["model.layers.[0-1].self_attn.q_proj.*"], {f"model.layers.{n}.self_attn.q_proj.weight" for n in (0, 1)}),
        (["model.norm.weight", "lm_head.*"], {"model.norm.weight", "lm_head.weight"}),
    ],
)
def test_parts_are_frozen_by_name_and_by_pattern(tmp_path: Path, parts: list[str], wanted: set[str]) -> None:
    _, student = model(tmp_path)
    freeze(student, parts)
    assert frozen(student) == wanted


@pytest.mark.parametrize("parts", [["embeddings"], ["outputHead"], ["model.embed_tokens.*"], ["lm_head.weight"]])
def test_half_of_a_tied_tensor_cannot_be_frozen(tmp_path: Path, parts: list[str]) -> None:
    folder, student = model(tmp_path, tie_word_embeddings=True)
    with pytest.raises(
        UserError, match=r"are one tensor in this student, .* freeze both \(embeddings and outputHead\) or neither"
    ):
        freeze(student, parts)
    spec = Student(model="file:///x", freeze=parts)
    with pytest.raises(UserError, match="are one tensor in this student"):
        check_trained(folder, spec, vocabulary=len(tiny_tokenizer()), trust_remote_code=False)


def test_a_tied_tensor_is_frozen_as_a_whole(tmp_path: Path) -> None:
    folder, student = model(tmp_path, tie_word_embeddings=True)
    freeze(student, ["embeddings", "outputHead"])
    assert frozen(student) == {"model.embed_tokens.weight"}
    spec = Student(model="file:///x", freeze=["embeddings", "outputHead"])
    check_trained(folder, spec, vocabulary=len(tiny_tokenizer()), trust_remote_code=False)


def test_a_frozen_weight_gets_no_gradient_and_the_others_get_the_same(tmp_path: Path) -> None:
    folder, student = model(tmp_path)
    _, whole = model(tmp_path)
    freeze(student, ["embeddings", "outputHead", "model.layers.0.*"])
    head = describe_head(folder, len(tiny_tokenizer()))
    objective = Objective(distillation_weight=0, cross_entropy_weight=1)
    for trained in (student, whole):
        module = DistilledStudent(trained, head=head, objective=objective)
        index = torch.arange(5)
        sums: Any = module(
            "objective",
            {"input_ids": torch.arange(10, 20)[None]},
            state_index=index,
            targets=index + 11,
            teacher=None,
            scale=0.2,
        )
        sums[0].backward()
    gradients = dict(whole.named_parameters())
    assert len(frozen(student)) > 5
    for name, parameter in student.named_parameters():
        if name in frozen(student):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            ["model.layer.*"],
            "no weight of the student matches model.layer.*: its weights are called model.embed_tokens",
        ),
        (["*"], "all weights of the student are frozen: nothing is left to train"),
    ],
)
def test_what_cannot_be_frozen_is_refused(tmp_path: Path, parts: list[str], sentence: str) -> None:
    _, student = model(tmp_path)
    with pytest.raises(UserError, match=re.escape(sentence)):
        freeze(student, parts)
