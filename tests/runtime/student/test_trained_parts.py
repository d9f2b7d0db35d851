"""What is trained in part (an adapter, a model with frozen weights) is saved, resumed and exported like the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.sections import Schedule
from distill_runtime.data.order import Order
from distill_runtime.data.plan import Plan
from distill_runtime.student.schedule import learning_rate
from tests.runtime.student.scenario import InventedTeacher, Launch, Scenario, launch, make_scenario

TOLERANCE = 2e-5
"""Relative tolerance of losses in float32 over six steps of Adam with another number of workers."""
LORA: dict[str, Any] = {"kind": "lora", "rank": 4, "alpha": 8, "seed": 3}
DORA: dict[str, Any] = {"kind": "dora", "rank": 4, "rankStabilised": True, "targetModules": ["q_proj", "down_proj"]}
FROZEN = ["embeddings", "outputHead", "model.layers.0.mlp.*"]
WHOLE: dict[str, dict[str, Any]] = {"lora": {"adapter": LORA}, "dora": {"adapter": DORA}, "frozen": {"freeze": FROZEN}}
"""What is trained, by name."""
RUNS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "lora-zero0": ("lora", (0, 0, 0)),
    "lora-zero1": ("lora", (1, 1, 1)),
    "lora-zero2": ("lora", (2, 2, 2)),
    "lora-zero3": ("lora", (3, 3, 3)),
    "lora-changing": ("lora", (3, 0, 2)),
    "dora-zero1": ("dora", (1, 1, 1)),
    "dora-zero3": ("dora", (3, 3, 3)),
    "dora-changing": ("dora", (2, 3, 0)),
    "frozen-zero1": ("frozen", (1, 1, 1)),
    "frozen-zero3": ("frozen", (3, 3, 3)),
    "frozen-changing": ("frozen", (2, 3, 0)),
}
"""What is trained, and the ZeRO stages of the three attempts, with 2, 1 and 2 workers."""


def training(stage: int) -> dict[str, Any]:
    return {
        "steps": 6,
        "zeroStage": stage,
        "packing": stage == 2,
        "gradientCheckpointing": stage == 1,
        "optimizer": {"kind": "adamw", "learningRate": 0.003, "weightDecay": 0.1},
        "schedule": {"kind": "linear", "warmupSteps": 2, "minimumRatio": 0.1},
    }


def student(scenario: Scenario, trained: dict[str, Any]) -> dict[str, Any]:
    return {"model": f"file://{scenario.student}", "gpusPerWorker": 0, **trained}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    # The layers' weights are above ZeRO-3's threshold for keeping them whole, so that they are really divided.
    return make_scenario(tmp_path_factory.mktemp("parts"), vocabulary=801, hidden=256)


@pytest.fixture(scope="module")
def launches(scenario: Scenario) -> list[Launch]:
    """Attempt 1 is stopped in step 3, attempt 2 in step 5, attempt 3 ends; beside it undisturbed runs."""
    done: list[Launch] = []
    for attempt, (world, fetch) in enumerate(((2, 3), (1, 3), (2, 0)), start=1):
        configs: list[Path] = []
        for name, (trained, stages) in RUNS.items():
            parts = student(scenario, WHOLE[trained])
            configs.append(
                scenario.config(name, attempt=attempt, student=parts, training=training(stages[attempt - 1]))
            )
        for name, trained in WHOLE.items() if attempt == 2 else ():
            configs.append(scenario.config(name, student=student(scenario, trained), training=training(0)))
        faults = {f"{name}-{attempt}": {"kind": "sigterm", "fetch": fetch, "rank": world - 1} for name in RUNS}
        done.append(launch(world, configs, scenario.root / f"state{attempt}", faults))
        assert done[-1].code == 0, done[-1].log[-4000:]
    return done


def exported(scenario: Scenario, name: str) -> Path:
    return scenario.root / "store/trainings" / scenario.training_digest(name) / "model"


@pytest.mark.parametrize("name", list(RUNS))
def test_two_then_one_then_two_workers_equal_an_undisturbed_run(
    scenario: Scenario, launches: list[Launch], name: str
) -> None:
    for attempt in (1, 2):
        outcome = launches[attempt - 1].outcomes()[f"{name}-{attempt}"]
        assert outcome.get("code") == ExitCode.CHECKPOINTED, outcome
    assert "facts" in launches[2].outcomes()[f"{name}-3"], launches[2].outcomes()
    undisturbed = RUNS[name][0]
    wanted = scenario.losses(undisturbed)
    assert wanted[0] != pytest.approx(wanted[-1], rel=0.01), "the steps must change the loss for this to say anything"
    assert scenario.losses(name) == pytest.approx(wanted, rel=TOLERANCE)
    assert scenario.norms(name) == pytest.approx(scenario.norms(undisturbed), rel=20 * TOLERANCE)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_checkpoints_hold_the_adapter_alone(scenario: Scenario, launches: list[Launch], name: str) -> None:
    labels = scenario.weights(name).keys()
    assert labels
    assert all("lora_" in label for label in labels)
    assert any("lora_magnitude_vector" in label for label in labels) == (name == "dora")


def test_checkpoints_hold_no_frozen_weight_and_no_state_of_one(scenario: Scenario, launches: list[Launch]) -> None:
    labels = scenario.weights("frozen-zero3").keys()
    assert labels == scenario.weights("frozen").keys()
    for label in labels:
        assert not any(part in label for part in ("embed_tokens", "lm_head", "layers.0.mlp")), label
    assert "model.layers.1.mlp.up_proj.weight:exp_avg" in labels


@pytest.mark.parametrize("name", ["frozen", "frozen-zero3"])
def test_frozen_weights_are_exported_as_they_were_and_the_others_are_not(
    scenario: Scenario, launches: list[Launch], name: str
) -> None:
    before = load_file(scenario.student / "model.safetensors")
    after = load_file(exported(scenario, name) / "model.safetensors")
    assert before.keys() == after.keys()
    same = {label for label in before if torch.equal(before[label], after[label])}
    mlp = {f"model.layers.0.mlp.{part}_proj.weight" for part in ("up", "gate", "down")}
    assert same == {"model.embed_tokens.weight", "lm_head.weight", *mlp}


@pytest.mark.parametrize("name", ["lora-zero3", "dora-zero3"])
def test_the_adapter_beside_the_merged_model_gives_the_same_model(
    scenario: Scenario, launches: list[Launch], name: str
) -> None:
    ids = torch.arange(4, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(scenario.student, dtype=torch.float32)
    with torch.no_grad():
        untrained = base(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(exported(scenario, name), dtype=torch.float32)(ids).logits
        beside = PeftModel.from_pretrained(base, str(exported(scenario, name) / "adapter"))(ids).logits
    assert (merged - untrained).abs().max() > 1e-3, "the adapter must have learned something"
    torch.testing.assert_close(beside, merged, atol=1e-4, rtol=1e-4)
    found = load_file(exported(scenario, name) / "adapter/adapter_model.safetensors")
    stored = scenario.weights(name)
    for label, tensor in found.items():
        end = "" if label.endswith("lora_magnitude_vector") else ".weight"
        trained = f"{label.removeprefix('base_model.model.').removesuffix('.weight')}.default{end or '.weight'}:weight"
        assert torch.equal(stored[trained], tensor), label


def test_the_adapter_says_which_model_it_belongs_to(scenario: Scenario, launches: list[Launch]) -> None:
    config = json.loads((exported(scenario, "lora") / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"file://{scenario.student}"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_losses_equal_a_plain_loop_over_pefts_own_model(scenario: Scenario) -> None:
    sgd = {**training(0), "steps": 3, "optimizer": {"kind": "sgd", "learningRate": 0.5, "maxGradientNorm": 0}}
    config = scenario.config("plain", student=student(scenario, WHOLE["lora"]), training=sgd)
    done = launch(1, [config], scenario.root / "plain")
    assert done.code == 0, done.log[-4000:]
    plan = Plan(scenario.store, scenario.train)
    teacher = InventedTeacher({"train": plan}, scenario.vocabulary)
    torch.manual_seed(LORA["seed"])
    base = AutoModelForCausalLM.from_pretrained(scenario.student, dtype=torch.float32)
    torch.manual_seed(LORA["seed"])
    model: Any = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    order = Order(plan.shard_sizes, seed=0, window_shards=16, global_batch=5, steps=3)
    losses: list[float] = []
    for step in range(3):
        numbers = order.step(step).tolist()
        total = torch.zeros(())
        for number, states in zip(numbers, teacher.fetch("train", numbers), strict=True):
            sequence = plan.sequence(number)
            ids = torch.from_numpy(sequence.ids).long()
            log_q = torch.log_softmax(model(ids[None]).logits[0, sequence.signal_positions, : scenario.vocabulary], -1)
            log_p = torch.log_softmax(teacher.head().logits(states), -1)
            cross_entropy = torch.nn.functional.nll_loss(log_q, ids[sequence.targets], reduction="sum")
            total = total + (log_p.exp() * (log_p - log_q)).sum() + 0.5 * cross_entropy
        loss = total / int(plan.target_counts[numbers].sum())
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        rate = learning_rate(step, 3, Schedule(kind="linear", warmup_steps=2, minimum_ratio=0.1), 0.5)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
    assert losses[0] != pytest.approx(losses[-1], rel=0.001)
    assert scenario.losses("plain") == pytest.approx(losses, rel=2e-6)
