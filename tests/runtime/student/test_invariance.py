"""The result doesn't depend on how the work is divided, and it is the one of a plain loop."""

import itertools
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from distill_runtime.contract.sections import DivergenceKind, Objective
from distill_runtime.data.order import Order
from distill_runtime.data.plan import Plan
from distill_runtime.losses.reference import objective_total
from distill_runtime.student.batches import assemble, divide, own_sequences
from distill_runtime.student.grouping import Limits
from distill_runtime.student.trainer import packing_efficiency
from tests.runtime.student.plain_loop import LOSS, PlainTraining, assert_trained_like, plain_training
from tests.runtime.student.scenario import MAX_LENGTH, Scenario, launch, make_scenario

ADAM = 1e-4
"""Relative tolerance with Adam, which divides rounding errors by small second moments."""

SGD = {"kind": "sgd", "learningRate": 0.5, "maxGradientNorm": 0}
ADAMW = {"kind": "adamw", "learningRate": 0.01, "weightDecay": 0.1, "maxGradientNorm": 1.0}
WAYS: dict[str, dict[str, Any]] = {
    f"zero{stage}-micro{micro}{'-packed' if packed else ''}": {
        "zeroStage": stage,
        "microBatch": micro,
        "packing": packed,
        "gradientCheckpointing": stage == 2 and packed,
    }
    for stage, micro, packed in (
        (0, 2, False),
        (0, 1, True),
        (1, 1, False),
        (2, 1, True),
        (2, 2, False),
        (3, 2, True),
        (3, 1, False),
    )
}
WAYS |= {
    "zero2-tokens": {"zeroStage": 2, "microBatchTokens": 64, "packing": False},
    "zero1-tokens-packed": {"zeroStage": 1, "microBatchTokens": 80, "packing": True},
}
ADAM_WAYS: dict[str, dict[str, Any]] = {
    f"adam-zero{stage}": {"zeroStage": stage, "packing": stage > 1} for stage in (0, 1, 2, 3)
}
TIED_STAGES = (0, 3)
MIXED: dict[str, Any] = {
    "divergences": [
        {"kind": kind, "weight": weight, "beta": 0.3, "alpha": 0.2}
        for kind, weight in zip(get_args(DivergenceKind), itertools.count(1), strict=False)
    ],
    "temperature": 2,
    "distillationWeight": 0.05,
    "crossEntropyWeight": 0.5,
}
"""Every divergence at once."""
MIXED_WAYS: dict[str, dict[str, Any]] = {
    f"mixed-zero{stage}": {"zeroStage": stage, "packing": stage == 3, "microBatch": 2} for stage in (0, 3)
}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    # A vocabulary above ZeRO-3's threshold for keeping weights whole, so that head and embedding are really divided.
    return make_scenario(tmp_path_factory.mktemp("invariance"), vocabulary=3200)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    root = tmp_path_factory.mktemp("tied")
    return make_scenario(root, lengths=[9, 4, 17], vocabulary=3200, tie_word_embeddings=True)


@pytest.fixture(scope="module", params=[1, 2])
def world(request: pytest.FixtureRequest, scenario: Scenario, tied: Scenario) -> int:
    """Everything is run once with each number of workers."""
    world: int = request.param
    configs: list[Path] = []
    for way, training in WAYS.items():
        configs.append(scenario.config(f"{way}-world{world}", training={**training, "optimizer": SGD}))
    for way, training in ADAM_WAYS.items():
        configs.append(scenario.config(f"{way}-world{world}", training={**training, "optimizer": ADAMW}))
    for way, training in MIXED_WAYS.items():
        mixed = {**training, "optimizer": SGD}
        configs.append(scenario.config(f"{way}-world{world}", training=mixed, objective=MIXED))
    for stage in TIED_STAGES:
        few = {"zeroStage": stage, "globalBatch": 1, "steps": 3, "optimizer": SGD}
        configs.append(tied.config(f"tied{stage}-world{world}", training=few))
    done = launch(world, configs, scenario.root / f"state{world}")
    assert done.code == 0, done.log[-4000:]
    assert all("facts" in outcome for outcome in done.outcomes().values()), done.outcomes()
    return world


def mixed_objective(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return objective_total(student, teacher, targets, Objective.model_validate(MIXED))


@pytest.fixture(scope="module")
def plain(scenario: Scenario) -> PlainTraining:
    return plain_training(scenario, steps=4, batch=5, peak=0.5)


@pytest.mark.parametrize("way", list(WAYS))
def test_losses_gradients_and_weights_equal_a_plain_loop_however_the_work_is_divided(
    scenario: Scenario, world: int, plain: PlainTraining, way: str
) -> None:
    assert plain.losses[0] != pytest.approx(plain.losses[-1], rel=0.01), (
        "the steps must change the loss for this to say anything"
    )
    assert_trained_like(plain, scenario, f"{way}-world{world}")


@pytest.fixture(scope="module")
def plain_mixture(scenario: Scenario) -> PlainTraining:
    return plain_training(scenario, steps=4, batch=5, peak=0.5, total_of=mixed_objective)


@pytest.mark.parametrize("way", list(MIXED_WAYS))
def test_all_divergences_together_train_as_their_plain_formulas_do(
    scenario: Scenario, world: int, plain_mixture: PlainTraining, way: str
) -> None:
    assert_trained_like(plain_mixture, scenario, f"{way}-world{world}")


@pytest.mark.parametrize("way", list(WAYS))
def test_the_packing_efficiency_is_real_tokens_by_tokens_of_rows(scenario: Scenario, world: int, way: str) -> None:
    plan = Plan(scenario.store, scenario.train)
    order = Order(plan.shard_sizes, seed=0, window_shards=16, global_batch=5, steps=4)
    limits = Limits(rows=WAYS[way].get("microBatch"), tokens=WAYS[way].get("microBatchTokens"))
    row_tokens = MAX_LENGTH if WAYS[way]["packing"] else None
    read = 0
    for step in range(4):
        numbers = order.step(step).tolist()
        for batches in divide(numbers, plan.lengths, world=world, limits=limits, row_tokens=row_tokens):
            found = {number: plan.sequence(number) for number in own_sequences(batches)}
            read += sum(assemble(batch, found, packed=True).input_ids.size for batch in batches)
    position = scenario.position(f"{way}-world{world}")
    assert position.tokens == int(plan.lengths[np.concatenate([order.step(step) for step in range(4)])].sum())
    assert position.row_tokens == read
    assert 0 < (packing_efficiency(position) or 0) <= 1


@pytest.mark.parametrize("way", list(ADAM_WAYS))
def test_adam_with_clipping_gives_the_same_losses_and_states(scenario: Scenario, world: int, way: str) -> None:
    reference, name = f"adam-zero0-world{world}", f"{way}-world{world}"
    assert scenario.losses(name) == pytest.approx(scenario.losses(reference), rel=ADAM)
    assert scenario.norms(name) == pytest.approx(scenario.norms(reference), rel=ADAM)
    assert max(scenario.norms(name)) > 1.0, "clipping must have happened for this to say anything"
    wanted, found = scenario.weights(reference), scenario.weights(name)
    assert wanted.keys() == found.keys()
    for label in wanted:
        if label.endswith(":exp_avg"):
            torch.testing.assert_close(found[label], wanted[label], atol=1e-6, rtol=0.01)


@pytest.mark.parametrize("stage", TIED_STAGES)
def test_one_row_on_two_ranks_with_a_tied_head_neither_hangs_nor_changes_the_result(
    tied: Scenario, world: int, stage: int
) -> None:
    """With a batch of one sequence the second rank has no target in any step."""
    plain = plain_training(tied, steps=3, batch=1, peak=0.5)
    assert tied.losses(f"tied{stage}-world{world}") == pytest.approx(plain.losses, rel=LOSS)
    assert tied.norms(f"tied{stage}-world{world}") == pytest.approx(plain.norms, rel=5 * LOSS)


def test_cross_entropy_is_that_of_transformers_for_the_same_rows(scenario: Scenario, world: int) -> None:
    plan = Plan(scenario.store, scenario.train)
    order = Order(plan.shard_sizes, seed=0, window_shards=16, global_batch=5, steps=4)
    sequences = [plan.sequence(number) for number in order.step(0).tolist()]
    model = AutoModelForCausalLM.from_pretrained(scenario.student, dtype=torch.float32)
    length = max(sequence.length for sequence in sequences)
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, sequence in enumerate(sequences):
        ids[row, : sequence.length] = torch.from_numpy(sequence.ids).long()
        targets = torch.from_numpy(sequence.targets)
        labels[row, targets] = ids[row, targets]
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels, num_items_in_batch=int((labels != -100).sum()))
    # Transformers counts the padding of the vocabulary; what it adds to the denominator is taken out here.
    logits = output.logits[:, :-1][labels[:, 1:] != -100].float()
    surplus = (logits.logsumexp(-1) - logits[:, : scenario.vocabulary].logsumexp(-1)).mean()
    first = scenario.curves(f"zero0-micro2-world{world}")
    found = next(point.cross_entropy for point in first if point.step == 1)
    assert found == pytest.approx(float(output.loss - surplus), rel=LOSS)


def test_held_out_losses_are_the_same_for_every_division(scenario: Scenario, world: int) -> None:
    found = {
        way: [p.held_out_loss for p in scenario.curves(f"{way}-world{world}") if p.held_out_loss is not None]
        for way in WAYS
    }
    reference = found["zero0-micro2"]
    assert len(reference) == 2
    for losses in found.values():
        assert losses == pytest.approx(reference, rel=LOSS)
