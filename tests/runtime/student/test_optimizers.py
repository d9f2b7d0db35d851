"""Every optimizer and every way to spread it goes on with another number of workers as if nothing had happened."""

from pathlib import Path
from typing import Any

import pytest

from distill_runtime.contract.outcome import ExitCode
from tests.runtime.student.scenario import Launch, Scenario, launch, make_scenario

TOLERANCE = 5e-5
"""Relative tolerance of losses in float32 over six steps with another number of workers."""
OPTIMIZERS: dict[str, tuple[float, dict[str, Any]]] = {
    "Adadelta": (3.0, {"rho": 0.8}),
    "Adam": (0.003, {"amsgrad": True, "betas": [0.8, 0.9]}),
    "AdamW": (0.003, {}),
    "Adamax": (0.003, {"eps": 1e-6}),
    "NAdam": (0.003, {"momentum_decay": 0.1, "decoupled_weight_decay": True}),
    "RAdam": (0.01, {"betas": [0.5, 0.6]}),
    "RMSprop": (0.001, {"momentum": 0.5, "centered": True, "eps": 1e-4}),
    "SGD": (0.05, {"momentum": 0.9, "nesterov": True}),
}
"""Learning rate and arguments."""
STAGES: dict[str, tuple[int, int]] = {
    "Adadelta": (2, 3),
    "Adam": (1, 0),
    "AdamW": (3, 1),
    "Adamax": (3, 0),
    "NAdam": (2, 1),
    "RAdam": (0, 3),
    "RMSprop": (3, 2),
    "SGD": (1, 2),
}
"""ZeRO stage with 2 workers, and then with 1."""
SPREAD: dict[str, tuple[int, dict[str, Any]]] = {
    "offloaded-states-zero2": (2, {"offload_optimizer": {"device": "cpu"}}),
    "offloaded-zero3": (3, {"offload_optimizer": {}, "offload_param": {}, "stage3_param_persistence_threshold": 0}),
    "small-buckets-zero2": (2, {"reduce_bucket_size": 5000, "allgather_bucket_size": 3000, "overlap_comm": True}),
    "small-groups-zero3": (3, {"sub_group_size": 10000, "stage3_param_persistence_threshold": 0}),
}
"""ZeRO stage and more of DeepSpeed's configuration."""


def training(stage: int, name: str, zero: dict[str, Any] | None = None) -> dict[str, Any]:
    rate, arguments = OPTIMIZERS[name]
    return {
        "steps": 6,
        "zeroStage": stage,
        "optimizer": {
            "kind": "torch",
            "torch": {"name": name, "arguments": arguments},
            "learningRate": rate,
            "weightDecay": 0.1,
        },
        "deepspeed": {"zero_optimization": zero or {}},
    }


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return make_scenario(tmp_path_factory.mktemp("optimizers"), vocabulary=801)


@pytest.fixture(scope="module")
def launches(scenario: Scenario) -> list[Launch]:
    """Attempt 1 is stopped in step 4, attempt 2 ends; beside it undisturbed runs in stage 0."""
    done: list[Launch] = []
    for attempt, world in ((1, 2), (2, 1)):
        configs: list[Path] = []
        for name, stages in STAGES.items():
            configs.append(scenario.config(name, attempt=attempt, training=training(stages[attempt - 1], name)))
            if attempt == 2:
                configs.append(scenario.config(f"{name}-undisturbed", training=training(0, name)))
        for name, (stage, zero) in SPREAD.items():
            configs.append(scenario.config(name, attempt=attempt, training=training(stage, "AdamW", zero)))
        faults = {f"{name}-1": {"kind": "sigterm", "fetch": 4, "rank": 1} for name in (*STAGES, *SPREAD)}
        done.append(launch(world, configs, scenario.root / f"state{attempt}", faults))
        assert done[-1].code == 0, done[-1].log[-4000:]
    return done


@pytest.mark.parametrize("name", [*STAGES, *SPREAD])
def test_two_workers_and_then_one_equal_an_undisturbed_run(
    scenario: Scenario, launches: list[Launch], name: str
) -> None:
    first, second = (launches[n].outcomes()[f"{name}-{n + 1}"] for n in (0, 1))
    assert first.get("code") == ExitCode.CHECKPOINTED, first
    assert "facts" in second, second
    undisturbed = f"{name if name in STAGES else 'AdamW'}-undisturbed"
    wanted = scenario.losses(undisturbed)
    assert wanted[0] != pytest.approx(wanted[-1], rel=0.01), "the steps must change the loss for this to say anything"
    assert scenario.losses(name) == pytest.approx(wanted, rel=TOLERANCE)
    assert scenario.norms(name) == pytest.approx(scenario.norms(undisturbed), rel=20 * TOLERANCE)
    assert scenario.weights(name).keys() == scenario.weights(undisturbed).keys()
