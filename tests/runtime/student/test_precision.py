"""Training in 16 bits: an overflow of float16 loses nothing, and the master weights are float32."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.contract.outcome import ExitCode
from tests.fixtures.models import save_tiny_model
from tests.runtime.student.scenario import Scenario, launch, make_scenario

HALF = 0.01
"""Relative tolerance of losses in 16 bits against float32."""
SAME = 1e-3
"""Relative tolerance of losses in float16 with another loss scale: a power of two changes only what underflows."""
STAGES = (1, 2, 3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = save_tiny_model(tmp_path_factory.mktemp("half") / "model", layers=2, hidden=32)
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.student.half_precision", str(folder)],
        env={**os.environ, **one, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", ["calm", "bfloat16"])
def test_16_bits_train_like_float32(runs: dict[str, dict[str, Any]], precision: str, stage: int) -> None:
    wanted, found = runs["float32"], runs[f"{precision}-{stage}"]
    assert wanted["losses"][0] != pytest.approx(wanted["losses"][-1], rel=0.05)
    assert found["losses"] == pytest.approx(wanted["losses"], rel=HALF)
    assert found["norms"] == pytest.approx(wanted["norms"], rel=10 * HALF)


@pytest.mark.parametrize("stage", STAGES)
def test_an_overflow_repeats_the_step_and_loses_nothing(runs: dict[str, dict[str, Any]], stage: int) -> None:
    calm, found = runs[f"calm-{stage}"], runs[f"overflow-{stage}"]
    assert calm["attempts"] == len(calm["losses"])
    assert found["attempts"] > calm["attempts"] + 10, "the overflows must have happened for this to say anything"
    falls = [after / before for before, after in zip(calm["losses"], calm["losses"][1:], strict=False)]
    assert max(falls) < 1 - 10 * SAME, "each step must lower the loss for this to say anything"
    assert found["losses"] == pytest.approx(calm["losses"], rel=SAME)
    assert found["norms"] == pytest.approx(calm["norms"], rel=10 * SAME)
    assert found["weights"] == pytest.approx(calm["weights"], rel=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_that_no_scale_makes_finite_ends_the_run_in_one_sentence(
    runs: dict[str, dict[str, Any]], stage: int
) -> None:
    found = runs[f"hopeless-{stage}"]
    assert found["reason"] == "NotFinite"
    assert found["error"].startswith("step 3: the gradient is not finite")


@pytest.mark.parametrize("stage", STAGES)
def test_the_step_after_which_the_scale_grows_is_a_step_like_any_other(
    runs: dict[str, dict[str, Any]], stage: int
) -> None:
    """DeepSpeed by itself would divide that step's gradients by the scale of the next one."""
    wanted, found = runs[f"sgd-{stage}"], runs[f"growing-{stage}"]
    assert wanted["scale"] == 256
    assert found["scale"] == 256 * 2**3
    assert found["losses"] == pytest.approx(wanted["losses"], rel=SAME)
    assert found["norms"] == pytest.approx(wanted["norms"], rel=10 * SAME)


def training(stage: int) -> dict[str, Any]:
    optimizer = {"kind": "adamw", "learningRate": 0.003, "weightDecay": 0.1}
    return {"steps": 6, "zeroStage": stage, "precision": "bfloat16", "optimizer": optimizer}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return make_scenario(tmp_path_factory.mktemp("bfloat16"), vocabulary=3201)


def test_bfloat16_goes_on_from_its_float32_weights_with_other_workers(scenario: Scenario) -> None:
    for attempt, world in ((1, 2), (2, 1)):
        configs = [scenario.config(f"zero{s}", attempt=attempt, training=training(s)) for s in STAGES]
        if attempt == 2:
            configs.append(scenario.config("undisturbed", training=training(2)))
        faults = {f"zero{s}-1": {"kind": "sigterm", "fetch": 4, "rank": 1} for s in STAGES}
        done = launch(world, configs, scenario.root / f"state{attempt}", faults)
        assert done.code == 0, done.log[-4000:]
        for stage in STAGES:
            outcome = done.outcomes()[f"zero{stage}-{attempt}"]
            assert (outcome.get("code") == ExitCode.CHECKPOINTED) if attempt == 1 else ("facts" in outcome), outcome
    wanted = scenario.losses("undisturbed")
    assert wanted[0] != pytest.approx(wanted[-1], rel=0.05)
    for stage in STAGES:
        assert scenario.losses(f"zero{stage}") == pytest.approx(wanted, rel=HALF)
        rounded = [t for t in scenario.weights(f"zero{stage}").values() if t.bfloat16().float().equal(t)]
        assert len(rounded) < len(scenario.weights(f"zero{stage}")) / 2, "weights are saved in float32"
