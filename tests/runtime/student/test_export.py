import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_runtime.errors import RetryError
from distill_runtime.student.export import Probe, check_export, export_model, probe_logits
from tests.fixtures.models import save_tiny_model

IDS = [5, 9, 30, 31, 8, 77]


def trained(folder: Path) -> Any:
    """A model whose weights aren't its folder's any more."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("shard_bytes", [10**9, 50_000])
def test_what_is_loaded_again_is_what_was_trained(tmp_path: Path, tied: bool, family: str, shard_bytes: int) -> None:
    source = save_tiny_model(tmp_path / "source", family, tie_word_embeddings=tied)
    (source / "generation_config.json").write_text('{"max_new_tokens": 7, "do_sample": false}')
    model, target = trained(source), tmp_path / "export"
    digests = export_model(
        target, model.named_parameters(), source, dtype=torch.float32, card="# card\n", shard_bytes=shard_bytes
    )
    check_export(target, digests, probe=Probe(IDS, probe_logits(model, IDS), tolerance=1e-4))
    assert (shard_bytes == 10**9) == (target / "model.safetensors").exists()
    assert not list(target.glob(".*"))
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in target.iterdir())
    assert (target / "README.md").read_text() == "# card\n"
    assert AutoTokenizer.from_pretrained(target).chat_template == AutoTokenizer.from_pretrained(source).chat_template
    again: Any = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    answer = again.generate(torch.tensor([IDS]), pad_token_id=3)
    assert 1 <= answer.shape[1] - len(IDS) <= 7, "the generation settings come along"


def test_shards_stay_below_their_limit_and_the_index_names_every_weight(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "source")
    model, target = trained(source), tmp_path / "export"
    export_model(target, model.named_parameters(), source, dtype=torch.float32, card="", shard_bytes=120_000)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == dict(model.named_parameters()).keys()
    assert index["metadata"]["total_size"] == sum(4 * parameter.numel() for parameter in model.parameters())
    for name in set(index["weight_map"].values()):
        assert sum(tensor.numel() * 4 for tensor in load_file(target / name).values()) <= 120_000
    assert len(set(index["weight_map"].values())) > 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_exported_in_the_precision_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    source = save_tiny_model(tmp_path / "source")
    model, target = trained(source), tmp_path / "export"
    digests = export_model(target, model.named_parameters(), source, dtype=dtype, card="")
    check_export(target, digests)
    assert json.loads((target / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert {tensor.dtype for tensor in load_file(target / "model.safetensors").values()} == {dtype}


def test_a_head_that_came_apart_from_its_embedding_is_written_and_said(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "source", tie_word_embeddings=True)
    model, target = trained(source), tmp_path / "export"
    weights = dict(model.named_parameters(remove_duplicate=False))
    head = weights["lm_head.weight"].detach() + 1
    digests = export_model(target, {**weights, "lm_head.weight": head}.items(), source, dtype=torch.float32, card="")
    check_export(target, digests)
    again: Any = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    assert torch.equal(again.lm_head.weight, head)
    assert torch.equal(again.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_a_tied_head_that_is_given_twice_is_written_once(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "source", tie_word_embeddings=True)
    model, target = trained(source), tmp_path / "export"
    weights = reversed(list(model.named_parameters(remove_duplicate=False)))
    digests = export_model(target, weights, source, dtype=torch.float32, card="")
    check_export(target, digests)
    assert "lm_head.weight" not in load_file(target / "model.safetensors")


def test_a_changed_weight_is_named(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "source")
    model, target = trained(source), tmp_path / "export"
    digests = export_model(target, model.named_parameters(), source, dtype=torch.float32, card="")
    weights = load_file(target / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RetryError, match=r"1 weights are not those that were trained, among them model\.norm\.weight"):
        check_export(target, digests)


def test_a_lost_weight_is_named(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "source")
    model, target = trained(source), tmp_path / "export"
    digests = export_model(target, model.named_parameters(), source, dtype=torch.float32, card="")
    weights = load_file(target / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RetryError, match=r"missing keys: .*layers\.2\.mlp\.up_proj"):
        check_export(target, digests)


def test_other_logits_than_the_trained_models_are_refused(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "source")
    model, target = trained(source), tmp_path / "export"
    digests = export_model(target, model.named_parameters(), source, dtype=torch.float32, card="")
    with pytest.raises(RetryError, match="its logits differ by"):
        check_export(target, digests, probe=Probe(IDS, probe_logits(model, IDS[::-1])))


def test_weights_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "source")
    weights = dict(trained(source).named_parameters())
    wrong: list[tuple[str, dict[str, torch.Tensor]]] = [
        ("1 weights are missing", {name: w for name, w in weights.items() if name != "model.norm.weight"}),
        ("is not a weight of the model", {**weights, "model.extra": torch.zeros(1)}),
        ("has shape", {**weights, "model.norm.weight": torch.zeros(3)}),
    ]
    for number, (sentence, given) in enumerate(wrong):
        with pytest.raises(ValueError, match=sentence):
            export_model(tmp_path / str(number), given.items(), source, dtype=torch.float32, card="")
