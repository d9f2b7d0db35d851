from typing import Any

import yaml

from distill_runtime.contract.run import RunConfig
from distill_runtime.prepared import ModelPin, PlanReference, Prepared
from distill_runtime.student.model_card import model_card
from tests.fixtures.reports import sample_scores
from tests.fixtures.signals import hidden_signal


def run_config(student: dict[str, Any], teacher: str = "hf://org/teacher@abc") -> RunConfig:
    return RunConfig.model_validate(
        {
            "namespace": "default",
            "name": "small-one",
            "uid": "1",
            "attempt": 1,
            "work": {
                "teacher": {"model": teacher},
                "student": student,
                "data": {"train": "file:///data/train.jsonl"},
                "storage": {"uri": "file:///store"},
                "objective": {"temperature": 2, "distillationWeight": 0.9, "crossEntropyWeight": 0.1},
            },
        }
    )


def prepared(teacher: str = "hf://org/teacher@abc", student: str = "store://models/s") -> Prepared:
    plan = PlanReference(
        key="plans/p", data_digest="d" * 64, shards=2, sequences=1234, tokens=90_000, targets=45_678
    )  # fmt: skip
    return Prepared(
        fingerprint="f" * 64,
        train=plan,
        evaluation=None,
        tasks=[],
        teacher=ModelPin(uri=teacher, digest="a" * 64),
        teacher_dtype="bfloat16",
        student=ModelPin(uri=student, digest="b" * 64),
        training_precision="float32",
        vocabulary=400,
        train_signal=hidden_signal("c" * 64, 64),
        held_out_signal=hidden_signal("c" * 64, 64),
        teacher_canary=[1, 2],
        total_steps=200,
        training_digest="e" * 64,
        report={},
    )


LAYERS: dict[str, Any] = {"initialise": {"fromTeacher": {"layers": [0, 4]}}}


def test_the_card_says_how_layers_were_chosen() -> None:
    chosen = {"initialise": {"fromTeacher": {"byInfluence": {"keep": 4, "sequences": 64}}}}
    card = model_card(run_config(chosen), prepared(), steps=200, exported_step=150)
    assert "| the 4 layers of most influence (measured over 64 sequences) of the teacher |" in card


def test_the_card_says_how_wide_the_layers_are() -> None:
    chosen = {"initialise": {"fromTeacher": {"neurons": {"keep": 768, "sequences": 64}}}}
    card = model_card(run_config(chosen), prepared(), steps=200, exported_step=150)
    wanted = "all layers of the teacher, each with its 768 feed-forward neurons of most importance"
    assert f"| {wanted} (measured over 64 sequences) |" in card


def test_the_card_of_an_adapter_says_what_was_trained_and_where_the_adapter_is() -> None:
    adapter = {"kind": "dora", "rank": 8, "targetModules": ["q_proj"]}
    config = run_config({"model": "hf://org/student", "adapter": adapter})
    card = model_card(config, prepared(), steps=200, exported_step=150)
    assert "| trained | a DoRA adapter of rank 8, alpha 32 in q_proj |" in card
    assert "By itself it lies in `adapter`" in card
    assert "`adapter`" not in model_card(run_config(LAYERS), prepared(), steps=200, exported_step=150)


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_card_names_teacher_data_objective_and_steps() -> None:
    card = model_card(run_config(LAYERS), prepared(), steps=200, exported_step=150, held_out_loss=0.51234)
    assert "`hf://org/teacher@abc` (digest `aaaaaaaaaaaaaaaa`), run in bfloat16" in card
    assert "1,234 sequences, 45,678 targets, digest `" + "d" * 64 in card
    assert "0.9 × KL(teacher || student) at temperature 2 + 0.1 × cross entropy on the data" in card
    assert "200 of 200; these are the weights of step 150" in card
    assert "| student before training | layers 0, 4 of the teacher |" in card
    assert "0.5123 nats per target" in card


def test_the_base_model_is_the_one_whose_weights_training_began_with() -> None:
    copied = model_card(run_config(LAYERS), prepared(), steps=1, exported_step=1)
    assert front_matter(copied)["base_model"] == "org/teacher"
    pretrained = model_card(
        run_config({"model": "hf://org/small@main"}), prepared(student="hf://org/small@1f2e"), steps=1, exported_step=1
    )
    assert front_matter(pretrained)["base_model"] == "org/small"
    random = run_config({"initialise": {"fromConfig": {"config": "file:///c", "seed": 3}}})
    assert "base_model" not in front_matter(model_card(random, prepared(), steps=1, exported_step=1))


def test_a_model_that_the_hub_does_not_have_is_no_base_model_of_the_front_matter() -> None:
    teacher = "file:///models/teacher"
    card = model_card(run_config(LAYERS, teacher), prepared(teacher), steps=1, exported_step=1)
    head = front_matter(card)
    assert "base_model" not in head
    assert head["library_name"] == "transformers"
    assert "distillation" in head["tags"]
    assert teacher in card


def test_results_are_a_table_of_the_three_models() -> None:
    card = model_card(
        run_config(LAYERS),
        prepared(),
        steps=1,
        exported_step=1,
        scores={
            "teacher": sample_scores("t", 0.0, 1.0, 8.21, 1, 0.87),
            "studentBefore": sample_scores("b", 3.31, 0.21, 212.4, 1, 0.22),
            "studentAfter": sample_scores("a", 0.92, 0.63, 14.9, 1, 0.79),
        },
    )
    assert "| | teacher | student before | student after |" in card
    assert "| KL to the teacher (nats per target) | 0.0000 | 3.3100 | 0.9200 |" in card
    assert "| desks: accuracy | 0.8700 | 0.2200 | 0.7900 |" in card
