"""Kill it, corrupt it, starve it: it says what happened, and running again ends as an undisturbed run would."""

import json
import re
from typing import Any

import pytest
from safetensors.numpy import load

from distill_runtime.contract.outcome import ExitCode
from tests.runtime.student.scenario import Launch, Scenario, launch, make_scenario

TOLERANCE = 2e-5
"""Relative tolerance of losses in float32 after a resume."""
TRAINING: dict[str, Any] = {
    "steps": 8,
    "zeroStage": 2,
    "packing": True,
    "optimizer": {"kind": "adamw", "learningRate": 0.003},
    "checkpointEverySteps": 2,
}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return make_scenario(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def launched(scenario: Scenario) -> Launch:
    """Runs that end by themselves, in one launch of two workers."""
    fast = {**TRAINING, "optimizer": {"kind": "sgd", "learningRate": 40.0, "maxGradientNorm": 0}}
    overshooting = {**fast, "evaluateEverySteps": 1, "stopAfterWorseEvaluations": 2, "steps": 12}
    configs = [
        scenario.config("undisturbed", training=TRAINING),
        scenario.config("undisturbed", training=TRAINING),
        scenario.config("fenced", training=TRAINING),
        scenario.config("starved", training=TRAINING),
        scenario.config("poisoned", training=TRAINING),
        scenario.config("best", training=overshooting, output={"select": "best"}),
        scenario.config("data-only", training=TRAINING, objective={"distillationWeight": 0, "crossEntropyWeight": 1}),
    ]
    faults = {
        "fenced-1": {"kind": "fence", "fetch": 4},
        "starved-1": {"kind": "missing", "fetch": 4, "rank": 1},
        "poisoned-1": {"kind": "nan", "fetch": 4, "rank": 1},
    }
    done = launch(2, configs, scenario.root / "state", faults)
    assert done.code == 0, done.log[-4000:]
    return done


def test_an_older_attempt_finds_the_fence_taken_and_ends(launched: Launch) -> None:
    for rank in (0, 1):
        outcome = launched.outcomes(rank)["fenced-1"]
        assert outcome["reason"] == "Fenced"
        assert "attempt 1 was replaced by attempt 2" in outcome["error"]


def test_a_missing_signal_on_one_rank_is_the_word_of_all(launched: Launch) -> None:
    for rank in (0, 1):
        outcome = launched.outcomes(rank)["starved-1"]
        assert outcome["needs"] == "signals"
        assert outcome["error"] == "nobody makes shard 3 any more."


def test_numbers_that_are_not_finite_end_the_run_and_are_never_saved(scenario: Scenario, launched: Launch) -> None:
    outcome = launched.outcomes()["poisoned-1"]
    assert outcome["reason"] == "NotFinite"
    assert outcome["error"].startswith("step 4: ")
    assert [point.step for point in scenario.curves("poisoned")][-1] == 2


def test_a_finished_training_is_not_repeated(scenario: Scenario, launched: Launch) -> None:
    assert "the training is finished already: 8 steps" in launched.log
    facts = launched.outcomes()["undisturbed-1"]["facts"]
    assert facts["steps"] == 8
    assert facts["finalLoss"] == scenario.losses("undisturbed")[-1]


def test_the_best_weights_are_exported_and_worse_ones_end_the_training(scenario: Scenario, launched: Launch) -> None:
    facts = launched.outcomes()["best-1"]["facts"]
    held_out = {p.step: p.held_out_loss for p in scenario.curves("best") if p.held_out_loss is not None and p.step > 0}
    best = min(held_out, key=lambda step: held_out[step])
    assert facts["exportedStep"] == best
    assert facts["heldOutLoss"] == held_out[best]
    assert facts["steps"] == best + 2, "two worse evaluations"
    digest = scenario.training_digest("best")
    fence = json.loads(scenario.store.get(f"trainings/{digest}/fence.json"))
    manifest = json.loads(scenario.store.get(fence["best"]["manifest"]))
    exported = load(scenario.store.get(f"trainings/{digest}/model/model.safetensors"))
    stored = {k: v for part in manifest["parts"] for k, v in load(scenario.store.get(part["key"])).items()}
    assert exported
    for name, weight in exported.items():
        assert (stored[f"{name}:weight"] == weight).all(), name


def test_cross_entropy_alone_needs_no_teacher(scenario: Scenario, launched: Launch) -> None:
    assert "facts" in launched.outcomes()["data-only-1"], launched.outcomes()["data-only-1"]
    points = [point for point in scenario.curves("data-only") if point.loss is not None]
    assert all(point.divergence is None for point in points)
    assert points[0].loss == pytest.approx(points[0].cross_entropy, rel=1e-6)


def test_sigterm_of_one_worker_saves_and_ends_all_with_143(scenario: Scenario) -> None:
    config = scenario.config("stopped", training={**TRAINING, "checkpointEverySteps": 100})
    state = scenario.root / "stopped"
    done = launch(2, [config], state, {"stopped-1": {"kind": "sigterm", "fetch": 4, "rank": 1}})
    outcome = json.loads((state / "outcome-0.json").read_text())
    assert outcome["code"] == ExitCode.CHECKPOINTED, done.log[-3000:]
    assert set(re.findall(r"exitcode\s*:\s*(-?\d+)", done.log)) == {"143"}
    assert [point.step for point in scenario.curves("stopped") if point.loss is not None] == [1, 2, 3]


def test_a_killed_worker_and_a_corrupt_checkpoint_change_nothing_in_the_end(
    scenario: Scenario, launched: Launch
) -> None:
    first = scenario.config("killed", training=TRAINING)
    done = launch(2, [first], scenario.root / "killed-1", {"killed-1": {"kind": "sigkill", "fetch": 8, "rank": 1}})
    assert done.code != 0
    assert "Signal 9 (SIGKILL)" in done.log
    digest = scenario.training_digest("killed")
    fence = json.loads(scenario.store.get(f"trainings/{digest}/fence.json"))
    # That of step 6 counts if its upload had ended when the worker was killed; that of step 4 had to end before it.
    before, newest = (entry["step"] for entry in fence["checkpoints"])
    assert (before, newest) in ((2, 4), (4, 6))
    manifest = json.loads(scenario.store.get(fence["checkpoints"][-1]["manifest"]))
    key = manifest["parts"][0]["key"]
    data = bytearray(scenario.store.get(key))
    data[len(data) // 2] ^= 1
    scenario.store.put(key, bytes(data))

    again = scenario.config("killed", attempt=2, training=TRAINING)
    done = launch(2, [again], scenario.root / "killed-2")
    assert done.code == 0, done.log[-3000:]
    assert re.search(rf"checkpoint of step {newest} is damaged .*{re.escape(key)}", done.log)
    assert f"resumed behind step {before} of 8" in done.log
    assert scenario.losses("killed") == pytest.approx(scenario.losses("undisturbed"), rel=TOLERANCE)
