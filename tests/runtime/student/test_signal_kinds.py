"""The student learns from each kind of signal, whatever the number of workers."""

from pathlib import Path
from typing import Any

import pytest

from tests.runtime.student.scenario import Scenario, launch, make_scenario

LOSS = 2e-6
"""Relative tolerance of losses in float32: sums in another order."""
ALL_IDS = 2e-5
"""The same between hidden states and all ids with their log-probabilities, which are rounded to float32 on the way."""
EMPTY = {"globalBatch": 1, "steps": 3, "zeroStage": 3}
"""One sequence a step: with two workers each step has an empty micro-batch on one of them."""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return make_scenario(tmp_path_factory.mktemp("kinds"))


def kinds_of(scenario: Scenario) -> dict[str, dict[str, Any]]:
    return {
        "hidden": {"dtype": "float32"},
        "all-ids": {"kind": "topk", "k": scenario.vocabulary, "dtype": "float32"},
        "topk": {"kind": "topk", "k": 7},
        "sampled": {"kind": "sampled", "samples": 9},
    }


@pytest.fixture(scope="module", params=[1, 2])
def world(request: pytest.FixtureRequest, scenario: Scenario) -> int:
    """Every kind is run once with each number of workers."""
    number: int = request.param
    configs: list[Path] = []
    for kind, signal in kinds_of(scenario).items():
        for way, training in {"whole": {"evaluateEverySteps": 2, "packing": True}, "empty": EMPTY}.items():
            configs.append(
                scenario.config(
                    f"{kind}-{way}-{number}",
                    signal=signal,
                    training=training,
                    objective={"crossEntropyWeight": 0.5, "temperature": 2.0},
                )
            )
    ended = launch(number, configs, scenario.root / f"state-{number}")
    assert ended.code == 0, ended.log
    for rank in range(number):
        assert all("facts" in outcome for outcome in ended.outcomes(rank).values()), ended.outcomes(rank)
    return number


@pytest.mark.parametrize("kind", ["hidden", "all-ids", "topk", "sampled"])
@pytest.mark.parametrize("way", ["whole", "empty"])
def test_losses_of_every_kind_do_not_depend_on_the_number_of_workers(
    scenario: Scenario, world: int, kind: str, way: str
) -> None:
    losses = scenario.losses(f"{kind}-{way}-{world}")
    assert len(losses) == (4 if way == "whole" else 3)
    if world == 2:
        assert losses == pytest.approx(scenario.losses(f"{kind}-{way}-1"), rel=LOSS)


def test_a_top_k_of_all_ids_is_the_whole_distribution(scenario: Scenario, world: int) -> None:
    for way in ("whole", "empty"):
        hidden = scenario.losses(f"hidden-{way}-{world}")
        assert scenario.losses(f"all-ids-{way}-{world}") == pytest.approx(hidden, rel=ALL_IDS)
        assert scenario.losses(f"topk-{way}-{world}") != pytest.approx(hidden, rel=1e-3)


def test_the_held_out_loss_before_training_is_the_same_for_every_kind(scenario: Scenario, world: int) -> None:
    """It is read from hidden states, whatever the training reads."""
    first = {
        kind: next(point.held_out_loss for point in scenario.curves(f"{kind}-whole-{world}") if point.held_out_loss)
        for kind in kinds_of(scenario)
    }
    assert list(first.values()) == pytest.approx([first["hidden"]] * len(first), rel=LOSS)
