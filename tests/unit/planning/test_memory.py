"""Estimates of memory, against what models really have and keep."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from distill_runtime.contract.plan import MemoryPart
from distill_runtime.contract.sections import Student, Training
from distill_runtime.planning.memory import Shape, student_memory, teacher_memory
from distill_runtime.planning.shapes import read_shape
from tests.fixtures.models import save_tiny_model

QWEN3_4B = Shape(
    parameters=4_022_468_096,
    trained=4_022_468_096,
    layers=36,
    hidden=2560,
    intermediate=9728,
    heads=32,
    key_value_heads=8,
    head_size=128,
    vocabulary=151_936,
)


def student(shape: Shape, stage: Any, processes: int, **more: Any) -> dict[str, int]:
    training = Training(zero_stage=stage, **more)
    parts = student_memory(
        shape, training, "bfloat16", processes=processes, gpus=True, optimizer_states=2, tokens=4096, teacher_head=0
    )
    return by_name(parts)


def by_name(parts: list[MemoryPart]) -> dict[str, int]:
    return {part.name.partition(" ")[0]: part.bytes for part in parts}


@pytest.mark.parametrize(
    ("stage", "divided"),
    [(1, {"optimizer"}), (2, {"optimizer", "gradients"}), (3, {"optimizer", "gradients", "weights"})],
)
def test_zero_divides_what_its_stage_says(stage: int, divided: set[str]) -> None:
    weights = QWEN3_4B.parameters
    whole = {"weights": 2 * weights, "gradients": 4 * weights, "optimizer": 12 * weights}
    found = student(QWEN3_4B, stage, 8)
    gathered = 2 * QWEN3_4B.vocabulary * QWEN3_4B.hidden if stage == 3 else 0
    for name, size in whole.items():
        expected = -(-size // 8) if name in divided else size
        assert found[name] == expected + (gathered if name == "weights" else 0)


@given(stage=st.sampled_from([1, 2, 3]), processes=st.integers(1, 512))
def test_more_processes_never_need_more_memory_each(stage: int, processes: int) -> None:
    assert sum(student(QWEN3_4B, stage, processes + 1).values()) <= sum(student(QWEN3_4B, stage, processes).values())


def test_gradient_checkpointing_and_tensor_parallel_teachers_take_less() -> None:
    assert student(QWEN3_4B, 2, 8, gradient_checkpointing=True)["activations"] < (
        student(QWEN3_4B, 2, 8)["activations"] / 5
    )
    alone, four = (by_name(teacher_memory(QWEN3_4B, "bfloat16", gpus=gpus, batch_tokens=8192)) for gpus in (1, 4))
    assert alone["weights"] == 4 * four["weights"] == 2 * QWEN3_4B.parameters
    assert alone["keys"] == 2 * 36 * 8 * 128 * 2 * 8192


def test_a_shape_is_that_of_the_models_own_weights(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", layers=3)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    shape = read_shape(folder, student=Student(model="file:///x"))
    assert shape.parameters == shape.trained == sum(p.numel() for p in model.parameters())
    assert (shape.layers, shape.hidden, shape.heads, shape.key_value_heads, shape.head_size) == (3, 64, 4, 2, 16)
    adapted = Student.model_validate({"model": "file:///x", "adapter": {"kind": "lora", "rank": 2}})
    lora = read_shape(folder, student=adapted)
    assert 0 < lora.trained < shape.parameters / 10
    assert lora.parameters == shape.parameters + lora.trained
    assert read_shape(folder).trained == 0


def test_activations_are_about_those_that_a_backward_pass_keeps(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", layers=4, hidden=128)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).train()
    shape = read_shape(folder, student=Student(model="file:///x"))
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = 256
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = model.base_model(torch.arange(tokens)[None] % 300, use_cache=False).last_hidden_state
        states.sum().backward()
    estimate = 4 * tokens * shape.layers * shape.activations
    assert 0.6 < estimate / sum(kept.values()) < 1.6
