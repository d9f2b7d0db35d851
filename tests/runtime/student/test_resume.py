"""A training that was stopped goes on as if nothing had happened, with other workers and another ZeRO stage too."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_runtime.contract.outcome import ExitCode
from tests.runtime.student.scenario import Launch, Scenario, launch, make_scenario

TOLERANCE = 2e-5
"""Relative tolerance of losses in float32 over six steps of Adam with another number of workers."""
STAGES: dict[str, tuple[int, int, int]] = {
    "zero0": (0, 0, 0),
    "zero1": (1, 1, 1),
    "zero2": (2, 2, 2),
    "zero3": (3, 3, 3),
    "changing": (3, 0, 3),
}
"""ZeRO stage of the three attempts, with 2, 1 and 2 workers."""


def training(stage: int) -> dict[str, Any]:
    return {
        "steps": 6,
        "zeroStage": stage,
        "packing": stage == 2,
        "optimizer": {"kind": "adamw", "learningRate": 0.003, "weightDecay": 0.1},
        "schedule": {"kind": "linear", "warmupSteps": 2, "minimumRatio": 0.1},
        "evaluateEverySteps": 3,
        "checkpointEverySteps": 100,
    }


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    # An odd vocabulary: ZeRO-3 can't divide its tensors evenly.
    return make_scenario(tmp_path_factory.mktemp("resume"), vocabulary=3201)


@pytest.fixture(scope="module")
def launches(scenario: Scenario) -> list[Launch]:
    """Attempt 1 is stopped in step 3, attempt 2 in step 5, attempt 3 ends; beside it an undisturbed run."""
    done: list[Launch] = []
    for attempt, (world, fetch) in enumerate(((2, 3), (1, 3), (2, 0)), start=1):
        configs: list[Path] = []
        for name, stages in STAGES.items():
            configs.append(scenario.config(name, attempt=attempt, training=training(stages[attempt - 1])))
        if attempt == 1:
            configs.append(scenario.config("undisturbed", training=training(2)))
        faults = {f"{name}-{attempt}": {"kind": "sigterm", "fetch": fetch, "rank": world - 1} for name in STAGES}
        done.append(launch(world, configs, scenario.root / f"state{attempt}", faults))
        assert done[-1].code == 0, done[-1].log[-4000:]
    return done


@pytest.mark.parametrize("name", list(STAGES))
def test_two_then_one_then_two_workers_equal_an_undisturbed_run(
    scenario: Scenario, launches: list[Launch], name: str
) -> None:
    for attempt, rank in ((1, 0), (1, 1), (2, 0)):
        outcome = launches[attempt - 1].outcomes(rank)[f"{name}-{attempt}"]
        assert outcome.get("code") == ExitCode.CHECKPOINTED, outcome
    assert "facts" in launches[2].outcomes()[f"{name}-3"], launches[2].outcomes()
    found, wanted = scenario.curves(name), scenario.curves("undisturbed")
    assert [p.step for p in found] == [p.step for p in wanted], "every point once"
    assert scenario.losses(name) == pytest.approx(scenario.losses("undisturbed"), rel=TOLERANCE)
    assert scenario.norms(name) == pytest.approx(scenario.norms("undisturbed"), rel=20 * TOLERANCE)
    assert [p.learning_rate for p in found] == [p.learning_rate for p in wanted]
    held_out = [p.held_out_loss for p in found if p.held_out_loss is not None]
    assert held_out == pytest.approx([p.held_out_loss for p in wanted if p.held_out_loss is not None], rel=TOLERANCE)


def test_the_second_group_of_the_optimizer_is_restored_too(scenario: Scenario, launches: list[Launch]) -> None:
    wanted = scenario.weights("undisturbed")
    norm = next(label for label in wanted if "layernorm" in label and label.endswith(":exp_avg_sq"))
    assert wanted[norm].abs().max() > 0
    for name in STAGES:
        torch.testing.assert_close(scenario.weights(name)[norm], wanted[norm], rtol=1e-3, atol=1e-9)


def test_a_resumed_run_says_from_where(launches: list[Launch]) -> None:
    assert "resumed behind step 2 of 6" in launches[1].log
    assert "resumed behind step 4 of 6" in launches[2].log


def test_only_the_newest_checkpoints_stay(scenario: Scenario, launches: list[Launch]) -> None:
    prefix = f"trainings/{scenario.training_digest('zero2')}/checkpoints/"
    steps = {info.key.removeprefix(prefix).split("/")[0] for info in scenario.store.list(prefix)}
    assert steps == {"step-00000004", "step-00000006"}


def test_the_finished_training_leaves_a_note(scenario: Scenario, launches: list[Launch]) -> None:
    note = json.loads(scenario.store.get(f"trainings/{scenario.training_digest('zero2')}/finished.json"))
    assert note["steps"] == 6
    assert note["exported_step"] == 6
    assert note["final_loss"] == scenario.losses("zero2")[-1]
