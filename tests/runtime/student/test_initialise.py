import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_runtime.contract.sections import Initialise
from distill_runtime.errors import UserError
from distill_runtime.student.initialise import make_initial_student
from tests.fixtures.models import save_tiny_model, tiny_config, tiny_tokenizer

SLIDING = "sliding_attention"
FULL = "full_attention"
GEMMA: dict[str, Any] = {"layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL, SLIDING], "sliding_window": 8}


def from_layers(*layers: int) -> Initialise:
    return Initialise.model_validate({"fromTeacher": {"layers": list(layers)}})


def every(step: int) -> Initialise:
    return Initialise.model_validate({"fromTeacher": {"every": step}})


def random_weights(config: Path, seed: int = 0) -> Initialise:
    return Initialise.model_validate({"fromConfig": {"config": f"file://{config}", "seed": seed}})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def load(folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    model, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.eval()


def reduced(folder: Path, kept: tuple[int, ...]) -> Any:
    """The teacher, with the other layers taken out in memory: an independent way to the same student."""
    teacher = load(folder)
    stack = teacher.model.layers
    teacher.model.layers = torch.nn.ModuleList(stack[layer] for layer in kept)
    for place, layer in enumerate(kept):
        stack[layer].self_attn.layer_idx = place
    teacher.config.num_hidden_layers = len(kept)
    if getattr(teacher.config, "layer_types", None):
        teacher.config.layer_types = [teacher.config.layer_types[layer] for layer in kept]
    return teacher


@pytest.mark.parametrize(
    ("family", "options", "kept"),
    [
        ("llama", {}, (0, 2, 3)),
        ("llama", {"tie_word_embeddings": True}, (1, 3)),
        ("qwen3", {}, (0, 3)),
        ("gemma3_text", {"layers": 6, "tie_word_embeddings": True, **GEMMA}, (1, 2, 5)),
        ("gemma2", {"layers": 6, "final_logit_softcapping": 3.0}, (0, 3)),
        ("smollm3", {"no_rope_layers": [1, 1, 0, 1]}, (1, 2, 3)),
    ],
)
def test_the_student_computes_what_the_teachers_layers_compute(
    tmp_path: Path, family: str, options: dict[str, Any], kept: tuple[int, ...]
) -> None:
    teacher = save_tiny_model(tmp_path / "teacher", family, **options)
    make_initial_student(from_layers(*kept), teacher, tmp_path / "student")
    student, wanted = load(tmp_path / "student"), reduced(teacher, kept)
    ids = torch.arange(4, 28)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            student(input_ids=ids, use_cache=False).logits, wanted(input_ids=ids, use_cache=False).logits
        )
    assert student.config.num_hidden_layers == len(kept)


def test_layers_are_the_teachers_bit_by_bit_in_its_precision(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    weights = load_file(teacher / "model.safetensors")
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}, teacher / "model.safetensors")
    make_initial_student(from_layers(1, 3), teacher, tmp_path / "student")
    old, new = (load_file(folder / "model.safetensors") for folder in (teacher, tmp_path / "student"))
    for name, tensor in new.items():
        source = name.replace("layers.1.", "layers.3.").replace("layers.0.", "layers.1.")
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, old[source]), name
    assert {name for name in new if ".layers." not in name} == {name for name in old if ".layers." not in name}
    assert {int(found[1]) for name in new if (found := re.search(r"layers\.(\d+)\.", name))} == {0, 1}


def test_every_keeps_the_first_of_each_group(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher", layers=7)
    make_initial_student(every(3), teacher, tmp_path / "student")
    old, new = (load_file(folder / "model.safetensors") for folder in (teacher, tmp_path / "student"))
    for place, layer in enumerate((0, 3, 6)):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(new[name.format(place)], old[name.format(layer)])
    assert json.loads((tmp_path / "student/config.json").read_text())["num_hidden_layers"] == 3


def test_settings_of_layers_are_cut_with_them(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher", "gemma3_text", layers=6, **GEMMA)
    make_initial_student(from_layers(2, 3), teacher, tmp_path / "student")
    assert json.loads((tmp_path / "student/config.json").read_text())["layer_types"] == [FULL, SLIDING]


def test_a_pattern_by_number_becomes_a_list_of_the_kept_layers(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher", "gemma3_text", layers=6, **GEMMA)
    document = json.loads((teacher / "config.json").read_text())
    del document["layer_types"]
    document["sliding_window_pattern"] = 3  # as older checkpoints say it: layers 2 and 5 are full
    (teacher / "config.json").write_text(json.dumps(document))
    make_initial_student(from_layers(1, 2, 5), teacher, tmp_path / "student")
    assert load(tmp_path / "student").config.layer_types == [SLIDING, FULL, FULL]


def test_a_sharded_teacher_gives_the_same_student(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    load(teacher).save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    tiny_tokenizer().save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    for source in ("teacher", "sharded"):
        make_initial_student(from_layers(0, 2), tmp_path / source, tmp_path / f"of-{source}")
    one, other = (load_file(tmp_path / f"of-{source}/model.safetensors") for source in ("teacher", "sharded"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_making_it_twice_gives_equal_bytes_that_everybody_can_read(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    (teacher / "generation_config.json").write_text('{"temperature": 0.5}')
    config = tmp_path / "config"
    tiny_config(vocabulary=len(tiny_tokenizer()), layers=2, hidden=32).save_pretrained(config)
    for initialise in (from_layers(0, 2), random_weights(config)):
        folders = [tmp_path / f"{name}-{initialise.from_config is None}" for name in "ab"]
        for folder in folders:
            make_initial_student(initialise, teacher, folder)
            assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())
        assert files(folders[0]) == files(folders[1])
        assert (folders[0] / "generation_config.json").read_text() == '{"temperature": 0.5}'
        tokenizer, wanted = (AutoTokenizer.from_pretrained(folder) for folder in (folders[0], teacher))
        assert tokenizer.get_vocab() == wanted.get_vocab()
        assert tokenizer.chat_template == wanted.chat_template


@pytest.mark.parametrize("tied", [False, True])
def test_random_weights_are_a_function_of_the_seed(tmp_path: Path, tied: bool) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    config = tmp_path / "small.json"
    made = tiny_config(vocabulary=512, layers=2, hidden=32, tie_word_embeddings=tied, architectures=None)
    config.write_text(json.dumps(made.to_dict()))
    for name, seed in (("a", 1), ("b", 2)):
        before = torch.random.get_rng_state()
        make_initial_student(random_weights(config, seed), teacher, tmp_path / name)
        assert torch.equal(torch.random.get_rng_state(), before), "the caller's random state must not move"
    one, other = (load(tmp_path / name) for name in "ab")
    assert not torch.equal(one.model.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight)
    assert (one.lm_head.weight is one.model.embed_tokens.weight) == tied
    assert ("lm_head.weight" in load_file(tmp_path / "a/model.safetensors")) == (not tied)
    assert one.config.vocab_size == 512
    assert json.loads((tmp_path / "a/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_what_cannot_be_made_is_refused_in_one_sentence(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    config = tmp_path / "config"
    tiny_config(vocabulary=50).save_pretrained(config)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    wanted = [
        (
            from_layers(0, 4),
            "spec.student.initialise.fromTeacher.layers: 4 is not a layer of the teacher, which has 4 (0 to 3).",
        ),
        (random_weights(config), "fromConfig.config: vocab_size is 50, but the teacher's tokenizer has"),
        (random_weights(broken), "broken.json can't be read as JSON"),
        (random_weights(tmp_path / "nothing.json"), "nothing.json can't be read as JSON"),
    ]
    for number, (initialise, sentence) in enumerate(wanted):
        with pytest.raises(UserError, match=re.escape(sentence)):
            make_initial_student(initialise, teacher, tmp_path / f"student{number}")


def test_names_that_do_not_tell_layers_apart_are_refused(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    weights = load_file(teacher / "model.safetensors")
    renamed = {name.replace("model.layers.", "decoder.blocks."): tensor for name, tensor in weights.items()}
    save_file(renamed, teacher / "model.safetensors")
    with pytest.raises(UserError, match="the layers of llama can't be told apart by the names of its weights"):
        make_initial_student(from_layers(0), teacher, tmp_path / "student")


def test_layers_that_would_change_with_their_number_are_refused(tmp_path: Path) -> None:
    # Every second layer is a mixture of experts: layer 1 would become layer 0, which is none.
    teacher = save_tiny_model(
        tmp_path / "teacher", "qwen3_moe", decoder_sparse_step=2, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"layer 1 of qwen3_moe would not be the same as layer 0 of the student"):
        make_initial_student(from_layers(1, 3), teacher, tmp_path / "student")


def test_a_quantised_teacher_has_no_layers_to_give(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "teacher")
    document = json.loads((teacher / "config.json").read_text())
    document["quantization_config"] = {"quant_method": "fp8"}
    (teacher / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="quantised"):
        make_initial_student(from_layers(0), teacher, tmp_path / "student")


def test_a_student_without_any_attention_is_refused(tmp_path: Path) -> None:
    """Such a model can be trained, but nobody could generate with it."""
    kinds = ["linear_attention", "linear_attention", "linear_attention", FULL]
    teacher = save_tiny_model(tmp_path / "teacher", "qwen3_5_text", layer_types=kinds)
    for number, initialise in enumerate((every(2), from_layers(0, 1))):
        with pytest.raises(UserError, match=r"with attention \(full_attention\) none is left"):
            make_initial_student(initialise, teacher, tmp_path / f"without{number}")
    make_initial_student(from_layers(0, 3), teacher, tmp_path / "with")
    assert load(tmp_path / "with").generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2).shape == (1, 5)


def test_layers_that_transformers_refuses_are_told_in_one_sentence(tmp_path: Path) -> None:
    per_layer: dict[str, Any] = {"vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 16}
    teacher = save_tiny_model(tmp_path / "teacher", "gemma4_text", tie_word_embeddings=True, **per_layer)
    with pytest.raises(UserError, match="transformers refuses a gemma4_text with these layers"):
        make_initial_student(from_layers(0, 3), teacher, tmp_path / "student")
