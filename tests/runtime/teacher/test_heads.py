"""The head read from a checkpoint, on the states of transformers' body, gives the model's own logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill_runtime.errors import UserError
from distill_runtime.signals.head_source import UNDERSTOOD_HEADS, describe_head, read_head
from distill_runtime.teacher.transformers_engine import TransformersEngine
from tests.fixtures.families import (
    FAMILIES,
    NESTED,
    VOCABULARY,
    load_reference,
    reference_logits,
    save_family,
    save_nested,
    some_sequences,
)
from tests.fixtures.models import save_tiny_model, tiny_tokenizer

ATOL = 2e-4
"""Float32, logits of up to 15: sums of 64 to 128 products in another order."""


def _states(folder: Path, sequences: list[list[int]], max_batch_tokens: int = 64) -> list[torch.Tensor]:
    engine = TransformersEngine(folder, dtype="float32", gpus=0, max_batch_tokens=max_batch_tokens)
    try:
        return engine.hidden_states(sequences)
    finally:
        engine.close()


def _assert_own_logits(folder: Path, vocabulary: int = VOCABULARY) -> None:
    sequences = some_sequences()
    head = read_head(folder, vocabulary)
    wanted = reference_logits(folder, sequences, vocabulary)
    for states, logits in zip(_states(folder, sequences), wanted, strict=True):
        torch.testing.assert_close(head.logits(states), logits, atol=ATOL, rtol=1e-4)


def _edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_every_understood_head_has_a_tiny_model_here() -> None:
    assert set(UNDERSTOOD_HEADS) == {*FAMILIES, *NESTED}


def test_no_rule_has_both_a_scale_and_a_softcap_whose_order_would_matter() -> None:
    for rule in UNDERSTOOD_HEADS.values():
        assert rule.softcap is None or (rule.multiplier is None and rule.divisor is None)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_states_times_head_are_the_models_own_logits(architecture: str, tmp_path: Path) -> None:
    _assert_own_logits(save_family(tmp_path, architecture))


@pytest.mark.parametrize("architecture", NESTED)
@pytest.mark.parametrize("tied", [True, False])
def test_states_times_head_are_the_models_own_logits_with_a_nested_text_model(
    architecture: str, tied: bool, tmp_path: Path
) -> None:
    save_nested(tmp_path, architecture, tie_word_embeddings=tied)
    _assert_own_logits(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "overrides", "wanted"),
    [
        ("Gemma2ForCausalLM", {"final_logit_softcapping": 1.5}, {"softcap": 1.5, "scale": 1.0}),
        ("Gemma2ForCausalLM", {"final_logit_softcapping": None}, {"softcap": None}),
        ("CohereForCausalLM", {"logit_scale": 0.25}, {"scale": 0.25, "softcap": None}),
        ("GraniteForCausalLM", {"logits_scaling": 4.0}, {"scale": 0.25}),
        ("PhiForCausalLM", {}, {"bias": True}),
        ("LlamaForCausalLM", {"tie_word_embeddings": True}, {"tied": True, "bias": False}),
        ("LlamaForCausalLM", {"tie_word_embeddings": False}, {"tied": False}),
        ("LlamaForCausalLM", {"vocabulary": 448}, {"padded_vocabulary": 448, "vocabulary": VOCABULARY}),
    ],
)
def test_softcap_scale_bias_tying_and_padding_are_described_and_applied(
    architecture: str, overrides: dict[str, Any], wanted: dict[str, Any], tmp_path: Path
) -> None:
    save_family(tmp_path, architecture, **overrides)
    description = describe_head(tmp_path, VOCABULARY)
    assert {name: getattr(description, name) for name in wanted} == wanted
    head = read_head(tmp_path, VOCABULARY)
    assert head.weight.shape == (VOCABULARY, description.hidden_size)
    _assert_own_logits(tmp_path)


def test_a_bias_that_is_not_zero_is_added(tmp_path: Path) -> None:
    save_family(tmp_path, "PhiForCausalLM")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.bias"] = torch.randn(len(tensors["lm_head.bias"]))
    save_file(tensors, path, metadata={"format": "pt"})
    _assert_own_logits(tmp_path)


def test_a_head_is_read_from_the_shard_that_holds_it(tmp_path: Path) -> None:
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    save_tiny_model(whole)
    load_reference(whole).save_pretrained(sharded, max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    torch.testing.assert_close(read_head(sharded, VOCABULARY).weight, read_head(whole, VOCABULARY).weight)


def test_a_tying_flag_that_the_weights_contradict_is_read_as_transformers_does(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, tie_word_embeddings=False)
    _edit_config(tmp_path, tie_word_embeddings=True)
    assert not describe_head(tmp_path, VOCABULARY).tied
    _assert_own_logits(tmp_path)


def test_a_head_comes_in_the_precision_asked_for(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    assert read_head(tmp_path, VOCABULARY).weight.dtype == torch.float32
    assert read_head(tmp_path, VOCABULARY, torch.bfloat16).weight.dtype == torch.bfloat16


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    _edit_config(tmp_path, architectures=["MiniCPMForCausalLM"])
    with pytest.raises(UserError, match="MiniCPMForCausalLM is not understood") as caught:
        describe_head(tmp_path, VOCABULARY)
    assert caught.value.reason == "HeadUnknown"


@pytest.mark.parametrize(
    ("field", "value"), [("final_logit_softcapping", 30.0), ("logit_scale", 0.1), ("logits_scaling", 8.0)]
)
def test_a_transform_that_the_architecture_does_not_apply_is_refused(field: str, value: float, tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    _edit_config(tmp_path, **{field: value})
    with pytest.raises(UserError, match=f"sets {field} to") as caught:
        describe_head(tmp_path, VOCABULARY)
    assert caught.value.reason == "HeadUnknown"


def test_a_softcap_inside_a_wrapper_that_ignores_it_is_refused(tmp_path: Path) -> None:
    save_nested(tmp_path, "Gemma3ForConditionalGeneration", final_logit_softcapping=2.0)
    with pytest.raises(UserError, match="final_logit_softcapping"):
        describe_head(tmp_path, VOCABULARY)


def test_a_vocabulary_larger_than_the_head_is_refused_with_both_sizes(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    rows = len(tiny_tokenizer())
    with pytest.raises(UserError, match=f"has {rows + 1} ids, but the output head has only {rows} rows") as caught:
        describe_head(tmp_path, rows + 1)
    assert caught.value.reason == "VocabularyMismatch"


def _change_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("lm_head.weight"), "holds no lm_head.weight"),
        (lambda t: t.update({"lm_head.bias": torch.zeros(3)}), "has no bias"),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"][:-1].clone()}), "has the shape"),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"].to(torch.int8)}), "quantised output head"),
        (lambda t: t["lm_head.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_a_checkpoint_whose_head_does_not_fit_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    _change_tensors(tmp_path, change)
    with pytest.raises(UserError, match=message):
        read_head(tmp_path, VOCABULARY)


def test_a_folder_without_safetensors_or_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json can't be read"):
        describe_head(tmp_path, VOCABULARY)
    save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="convert the model's weights to safetensors"):
        describe_head(tmp_path, VOCABULARY)


def test_an_incomplete_file_is_refused_by_name(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors can't be read"):
        describe_head(tmp_path, VOCABULARY)


def test_alone_batched_and_shuffled_give_the_same_states(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    sequences = some_sequences()
    engine = TransformersEngine(tmp_path, dtype="float32", gpus=0, max_batch_tokens=128)
    together = engine.hidden_states(sequences)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = engine.hidden_states([sequences[n] for n in order])
    for place, number in enumerate(order):
        alone = engine.hidden_states([sequences[number]])[0]
        torch.testing.assert_close(together[number], alone, atol=5e-5, rtol=0)
        torch.testing.assert_close(shuffled[place], alone, atol=5e-5, rtol=0)


def test_a_checkpoint_without_all_of_the_body_is_refused(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    _change_tensors(tmp_path, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"lacks 1 of the teacher's tensors.*layers\.1\.mlp\.up_proj"):
        TransformersEngine(tmp_path, dtype="float32", gpus=0, max_batch_tokens=64)
