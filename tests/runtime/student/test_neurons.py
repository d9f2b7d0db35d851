"""The neurons that a feed-forward block can do without are found by what they do to its output, and taken out whole."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from distill_runtime.contract.sections import ActiveNeurons, InfluentialLayers, Initialise
from distill_runtime.errors import UserError
from distill_runtime.student.influence import choose_layers
from distill_runtime.student.initialise import make_initial_student
from distill_runtime.student.layers import layer_stack
from distill_runtime.student.neurons import (
    KeptNeurons,
    choose_neurons,
    find_block,
    find_blocks,
    most_important,
    neuron_importance,
)
from tests.fixtures.models import save_tiny_model
from tests.runtime.student.test_influence import sequences

WIDTH, LAYERS, DEAD = 128, 4, 40
FAMILIES = ("llama", "qwen3", "gemma3_text", "olmo2", "phi", "gpt_neox", "nemotron")
"""With and without a gate, biases, norms behind the block."""


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits(folder: Path) -> torch.Tensor:
    return load(folder)(torch.from_numpy(sequences(40)[0]).long()[None]).logits


def kill(folder: Path, count: int) -> dict[int, set[int]]:
    """Takes all that they add from other neurons of each layer, by a random choice; says which are left."""
    weights = load_file(folder / "model.safetensors")
    random = np.random.default_rng(1)
    left: dict[int, set[int]] = {}
    for name, weight in weights.items():
        found = re.search(r"layers\.(\d+)\.mlp\.(down_proj|fc2|dense_4h_to_h)\.weight$", name)
        if found:
            dead = random.permutation(weight.shape[1])[:count]
            weight[:, torch.from_numpy(dead)] = 0
            left[int(found[1])] = set(range(weight.shape[1])) - set(dead.tolist())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return left


def choose(folder: Path, keep: int, layers: list[int]) -> KeptNeurons:
    wanted = ActiveNeurons(keep=keep)
    blocks = find_blocks(wanted, folder)
    kept = {layer: blocks[layer] for layer in layers}
    return choose_neurons(wanted, load(folder), kept, sequences(30, 40))


def narrow(teacher: Path, target: Path, keep: int, **layers: Any) -> Path:
    kept = layers.get("layers", list(range(LAYERS)))
    wanted = Initialise.model_validate({"fromTeacher": {**layers, "neurons": {"keep": keep}}})
    make_initial_student(wanted, teacher, target, neurons=choose(teacher, keep, kept))
    return target


@pytest.mark.parametrize("family", FAMILIES)
def test_the_importance_of_a_neuron_is_the_squared_error_of_the_block_without_it(tmp_path: Path, family: str) -> None:
    model = load(save_tiny_model(tmp_path, family, layers=2))
    stack, texts = layer_stack(model, model.config), sequences(9, 31)
    blocks = {layer: find_block(stack[layer], WIDTH, family) for layer in (0, 1)}
    found = neuron_importance(model, blocks, texts)
    outer = stack[1].get_submodule(blocks[1].outer)
    seen: list[torch.Tensor] = []
    hook = outer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0][0]))
    with torch.no_grad():
        for ids in texts:
            model(torch.from_numpy(ids).long()[None])
        hook.remove()
        activations = torch.cat(seen)
        for neuron in (0, 17, WIDTH - 1):
            without = activations.clone()
            without[:, neuron] = 0
            error = (outer(activations).double() - outer(without).double()).square().sum()
            assert float(found[1][neuron]) == pytest.approx(float(error), rel=1e-3)
    assert not outer._forward_pre_hooks


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_its_idle_neurons_is_the_same_model(tmp_path: Path, family: str) -> None:
    teacher = save_tiny_model(tmp_path / "teacher", family)
    left = kill(teacher, DEAD)
    kept = choose(teacher, WIDTH - DEAD, list(range(LAYERS)))
    assert {layer: set(numbers.tolist()) for layer, numbers in kept.numbers.items()} == left
    student = narrow(teacher, tmp_path / "student", WIDTH - DEAD)
    assert load(student).config.intermediate_size == WIDTH - DEAD
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-4, rtol=1e-4)
    narrower = narrow(teacher, tmp_path / "narrower", WIDTH - DEAD - 1)
    assert (logits(narrower) - logits(teacher)).abs().max() > 1e-3


def test_fewer_layers_and_narrower_ones_go_together(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    kill(teacher, DEAD)
    depth = tmp_path / "depth"
    make_initial_student(Initialise.model_validate({"fromTeacher": {"layers": [1, 3]}}), teacher, depth)
    both = narrow(teacher, tmp_path / "both", WIDTH - DEAD, layers=[1, 3])
    config = load(both).config
    assert (config.num_hidden_layers, config.intermediate_size) == (2, WIDTH - DEAD)
    torch.testing.assert_close(logits(both), logits(depth), atol=1e-4, rtol=1e-4)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.data())
def test_no_neuron_that_goes_is_more_important_than_one_that_stays(
    importance: list[float], data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, len(importance)))
    kept = most_important(torch.tensor(importance, dtype=torch.float64), keep).tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == keep
    gone = [value for neuron, value in enumerate(importance) if neuron not in kept]
    assert max(gone, default=-1) <= min(importance[neuron] for neuron in kept)


@pytest.mark.parametrize(
    ("family", "options"),
    [("gpt2", {"n_layer": 4, "n_head": 4, "n_embd": 64}), ("phi3", {})],
    ids=["transposed", "gate and up in one"],
)
def test_blocks_that_cannot_be_told_apart_are_refused_before_the_teacher_is_run(
    tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    folder = save_tiny_model(tmp_path, family, **options)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"can't be told apart.*leave neurons out") as caught:
        find_blocks(ActiveNeurons(keep=64), folder)
    assert caught.value.reason == "UnknownNeurons"


def test_more_neurons_than_there_are_are_refused_before_the_teacher_is_run(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / "model.safetensors").unlink()
    sentence = "neurons.keep: 129 neurons are to be kept of layers that have 128: keep fewer."
    with pytest.raises(UserError, match=re.escape(sentence)):
        find_blocks(ActiveNeurons(keep=129), folder)


def test_a_teacher_whose_states_are_not_finite_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][5] = 1e38
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="are not finite on the training data"):
        choose(folder, 64, [0, 1, 2, 3])
    with pytest.raises(UserError, match="are not finite on the training data"):
        choose_layers(InfluentialLayers(keep=2), load(folder), sequences(30))
