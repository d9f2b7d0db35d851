"""The layers that a model can do without are found by what they do to its states."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from distill_runtime.contract.sections import InfluentialLayers
from distill_runtime.errors import UserError
from distill_runtime.student.influence import block_influences, check_layers, choose_layers, influential_layers, spread
from tests.fixtures.models import save_tiny_model


def sequences(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(4, 300, length).astype(np.int32) for length in lengths]


def weaken(folder: Path, layers: dict[int, float]) -> None:
    """Scales what these layers add to their states."""
    weights = load_file(folder / "model.safetensors")
    for layer, factor in layers.items():
        for name in (f"model.layers.{layer}.self_attn.o_proj.weight", f"model.layers.{layer}.mlp.down_proj.weight"):
            weights[name] = weights[name] * factor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_influence_is_one_minus_the_mean_cosine_of_the_states_around_a_layer(tmp_path: Path, family: str) -> None:
    options: dict[str, Any] = {"n_layer": 4, "n_head": 4, "n_embd": 64} if family == "gpt2" else {}
    folder = save_tiny_model(tmp_path / "model", family, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = sequences(9, 31, 2)
    cosines: list[list[torch.Tensor]] = [[] for _ in range(4)]
    for ids in texts:
        with torch.no_grad():
            states = model(torch.from_numpy(ids).long()[None], output_hidden_states=True, use_cache=False).hidden_states
        # Transformers norms the last state: the last layer can't be told from here.
        for layer in range(3):
            before, behind = states[layer][0].double(), states[layer + 1][0].double()
            cosines[layer].append((before * behind).sum(-1) / before.norm(dim=-1) / behind.norm(dim=-1))
    found = block_influences(model, texts)
    assert len(found) == 4
    for layer in range(3):
        assert found[layer] == pytest.approx(1 - float(torch.cat(cosines[layer]).mean()), abs=1e-6)
    assert not model.base_model._forward_hooks


def test_a_layer_that_does_nothing_has_no_influence_and_is_the_first_to_go(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", layers=5)
    weaken(folder, {1: 0.0, 3: 0.05})
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    influences = block_influences(model, sequences(20, 30))
    assert influences[1] == pytest.approx(0, abs=1e-6)
    for keep, kept in ((4, (0, 2, 3, 4)), (3, (0, 2, 4)), (5, (0, 1, 2, 3, 4))):
        wanted = InfluentialLayers(keep=keep)
        assert choose_layers(wanted, model, sequences(20, 30)) == kept


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.data())
def test_no_layer_that_goes_has_more_influence_than_one_that_stays(
    influences: list[float], data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, len(influences)))
    kept = influential_layers(influences, keep)
    assert list(kept) == sorted(set(kept))
    assert len(kept) == keep
    gone = [influence for layer, influence in enumerate(influences) if layer not in kept]
    assert max(gone, default=-1) <= min(influences[layer] for layer in kept)


@given(st.integers(1, 10_000), st.integers(1, 500))
def test_the_sequences_are_different_ones_spread_over_all(count: int, wanted: int) -> None:
    numbers = spread(count, wanted)
    assert len(numbers) == min(count, wanted)
    assert numbers[0] == 0
    assert numbers[-1] < count
    gaps = {after - before for before, after in pairwise(numbers)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


def test_what_cannot_be_kept_is_refused_before_the_teacher_is_run(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    sentence = "byInfluence.keep: 5 layers are to be kept of a teacher that has 4: keep fewer."
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_layers(InfluentialLayers(keep=5), folder)
    document = json.loads((folder / "config.json").read_text())
    document["quantization_config"] = {"quant_method": "fp8"}
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="quantised"):
        check_layers(InfluentialLayers(keep=2), folder)
