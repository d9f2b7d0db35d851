"""A hundred steps by states, by a top-k of all ids, and by full logits in plain PyTorch are the same training."""

import pytest

from tests.runtime.student.plain_loop import PlainTraining, assert_trained_like, plain_training
from tests.runtime.student.scenario import Scenario, launch, make_scenario

STEPS = 100
RATE = 0.1
LOSS = 2e-5
"""Relative tolerance of losses: a hundred steps carry rounding errors on."""
WEIGHTS = 2e-5
SIGNALS = {"hidden": {"dtype": "float32"}, "all-ids": {"kind": "topk", "dtype": "float32"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Each kind by two workers, in packed micro-batches."""
    scenario = make_scenario(tmp_path_factory.mktemp("hundred"))
    training = {
        "steps": STEPS,
        "packing": True,
        "zeroStage": 2,
        "optimizer": {"kind": "sgd", "learningRate": RATE, "maxGradientNorm": 0},
    }
    configs = [
        scenario.config(name, signal={**signal, "k": scenario.vocabulary}, training=training)
        for name, signal in SIGNALS.items()
    ]
    ended = launch(2, configs, scenario.root / "state")
    assert ended.code == 0, ended.log[-4000:]
    assert all("facts" in outcome for outcome in ended.outcomes().values()), ended.outcomes()
    return scenario


@pytest.fixture(scope="module")
def plain(trained: Scenario) -> PlainTraining:
    return plain_training(trained, steps=STEPS, batch=5, peak=RATE)


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_hundred_steps_give_the_losses_and_weights_of_full_logits_in_plain_pytorch(
    trained: Scenario, plain: PlainTraining, signal: str
) -> None:
    assert len(trained.losses(signal)) == STEPS
    assert plain.losses[-1] < 0.8 * plain.losses[0], "the steps must change the loss for this to say anything"
    assert_trained_like(plain, trained, signal, losses=LOSS, weights=WEIGHTS)
