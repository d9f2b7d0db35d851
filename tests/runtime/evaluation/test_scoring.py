"""Scores equal what transformers' own logits give, one sequence at a time, in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchmetrics.functional.classification import multiclass_calibration_error

from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.plan import Plan, write_plan
from distill_runtime.errors import RetryError, UserError
from distill_runtime.evaluation import scoring
from distill_runtime.evaluation.calibration import expected_calibration_error
from distill_runtime.evaluation.labels import choose_labels
from distill_runtime.evaluation.scoring import (
    ModelStates,
    TeacherStates,
    load_model,
    plan_batches,
    score_held_out,
    score_labels,
    sequence_log_probabilities,
)
from distill_runtime.losses.metrics import CALIBRATION_BINS
from distill_runtime.prepared import PlanReference
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.transport.objectstore_source import ObjectStoreSource
from tests.fixtures.models import save_tiny_model
from tests.runtime.evaluation.tiny_job import LABELS, TinyJob, target_log_probabilities

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Nats, float32: padded batches and single sequences differ by the order of their sums."""


def load(job: TinyJob, folder: Path) -> ModelStates:
    return load_model(
        folder, name="the model", dtype="float32", vocabulary=job.prepared.vocabulary, canary=[5, 6, 7], device=CPU
    )


@pytest.fixture(scope="module")
def teacher(job: TinyJob):
    source = ObjectStoreSource(
        job.store, job.config, job.prepared, cache=job.folder / "signals", teachers=0, publishes=False
    )
    yield TeacherStates(source, CPU)
    source.close()


@pytest.fixture(scope="module")
def student(job: TinyJob) -> ModelStates:
    return load(job, job.trained)


def plan_of(job: TinyJob, reference: PlanReference | None) -> Plan:
    assert reference is not None
    return Plan(job.store, reference)


def examples_of(job: TinyJob) -> TaskExamples:
    return TaskExamples.model_validate_json(job.store.get(job.prepared.tasks[0].examples_key))


@pytest.mark.parametrize("tokens", [30, 4096])
def test_held_out_scores_equal_the_plain_computation_through_logits(
    job: TinyJob, teacher: TeacherStates, student: ModelStates, tokens: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(scoring.BATCH_TOKENS, "cpu", tokens)
    told: list[int] = []
    found = score_held_out(plan_of(job, job.prepared.evaluation), teacher, student, name="student", told=told.append)
    p, q = (job.log_probabilities(model, job.held_out) for model in (job.teacher, job.trained))
    targets = torch.cat(target_log_probabilities(q, job.held_out))
    p, q = torch.cat(p), torch.cat(q)
    assert found.targets == len(p) == sum(int(s.target_mask.sum()) for s in job.held_out)
    assert found.kl_to_teacher == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=TOLERANCE)
    assert found.top1_agreement == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
    assert found.cross_entropy == pytest.approx(-float(targets.mean()), abs=TOLERANCE)
    confidence, top = q.exp().max(-1)
    wanted = multiclass_calibration_error(
        q.exp(), torch.cat([torch.from_numpy(s.ids[s.targets].astype(np.int64)) for s in job.held_out]),
        num_classes=q.shape[1], n_bins=CALIBRATION_BINS,
    )  # fmt: skip
    assert expected_calibration_error(found.calibration) == pytest.approx(float(wanted), abs=TOLERANCE)
    assert sum(found.calibration.predictions) == len(top)
    assert sum(found.calibration.confidence) == pytest.approx(float(confidence.sum()), rel=TOLERANCE)
    assert told[-1] == 11
    assert told == sorted(told)


def test_the_teachers_scores_from_its_signals_equal_those_of_the_teacher_itself(job: TinyJob, teacher: TeacherStates):
    plan = plan_of(job, job.prepared.evaluation)
    from_signals = score_held_out(plan, teacher, teacher, name="teacher")
    itself = score_held_out(plan, teacher, load(job, job.teacher), name="teacher")
    assert from_signals.cross_entropy == pytest.approx(itself.cross_entropy, abs=TOLERANCE)
    assert from_signals.kl_to_teacher == 0
    assert itself.kl_to_teacher == pytest.approx(0, abs=1e-6)
    assert from_signals.top1_agreement == itself.top1_agreement == 1
    desks, examples = plan_of(job, job.prepared.tasks[0].plan), examples_of(job)
    assert score_labels(desks, examples, teacher, name="t") == score_labels(
        desks, examples, load(job, job.teacher), name="t"
    )


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_label_scores_equal_log_probabilities_summed_by_hand(
    job: TinyJob, teacher: TeacherStates, student: ModelStates, which: str
):
    states = teacher if which == "teacher" else student
    folder = job.teacher if which == "teacher" else job.trained
    plan = plan_of(job, job.prepared.tasks[0].plan)
    by_hand = [
        float(values.sum())
        for values in target_log_probabilities(job.log_probabilities(folder, job.labels), job.labels)
    ]
    found = sequence_log_probabilities(plan, "task-desks", states)
    np.testing.assert_allclose(found, by_hand, atol=20 * TOLERANCE)
    scores = score_labels(plan, examples_of(job), states, name=which)
    assert scores.log_probabilities == found.reshape(4, 3).tolist()
    best = [LABELS[int(np.argmax(by_hand[3 * example : 3 * example + 3]))] for example in range(4)]
    assert choose_labels(examples_of(job), scores).texts == best


def test_of_equally_likely_labels_the_first_wins(tmp_path: Path, job: TinyJob, student: ModelStates):
    store = DirectoryStore(tmp_path)
    twins = [job.labels[0]] * 4
    plan = Plan(store, write_plan(store, "plans/twins", enumerate(twins), shard_sequences=8))
    examples = examples_of(job).model_copy(
        update={"labels": ["second of the alphabet", "a"], "prompts": ["x", "y"], "prompt_ids": [[1], [1]]}
    )
    scores = score_labels(plan, examples, student, name="student")
    assert choose_labels(examples, scores).texts == ["second of the alphabet"] * 2


def test_a_plan_of_other_labels_is_refused(job: TinyJob, student: ModelStates):
    plan = plan_of(job, job.prepared.evaluation)
    with pytest.raises(RetryError, match="11 sequences for 4 examples and 3 labels"):
        score_labels(plan, examples_of(job), student, name="student")


def test_batches_hold_each_sequence_once_within_the_tokens(job: TinyJob):
    plan = plan_of(job, job.prepared.evaluation)
    batches = plan_batches(plan, 64)
    assert sorted(number for batch in batches for number in batch) == list(range(11))
    assert all(len(batch) * max(int(plan.lengths[n]) for n in batch) <= 64 for batch in batches)
    assert all(len({plan.shard_of(number)[0] for number in batch}) == 1 for batch in batches)
    assert [len(batch) for batch in plan_batches(plan, 1)] == [1] * 11


def test_a_student_with_weights_that_are_not_finite_is_named(tmp_path: Path, job: TinyJob):
    folder = save_tiny_model(tmp_path / "broken", seed=4, layers=1)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="the model gives results that are not finite: its training diverged"):
        load(job, folder)


def test_a_student_without_all_its_weights_is_refused(tmp_path: Path, job: TinyJob):
    folder = save_tiny_model(tmp_path / "partial", seed=4, layers=1)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights, model\.layers\.0\.mlp\.up_proj\.weight first"):
        load(job, folder)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("gemma2", {"final_logit_softcapping": 5.0}),
        ("cohere", {"logit_scale": 0.25, "tie_word_embeddings": True}),
        ("gpt2", {"n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 512, "tie_word_embeddings": True}),
    ],
)
def test_softcap_scale_and_tying_of_a_students_head_count(
    tmp_path: Path, job: TinyJob, family: str, overrides: dict[str, Any]
):
    folder = save_tiny_model(tmp_path / family, family, seed=6, layers=1, **overrides)
    plan = plan_of(job, job.prepared.tasks[0].plan)
    found = sequence_log_probabilities(plan, "task-desks", load(job, folder))
    values = target_log_probabilities(job.log_probabilities(folder, job.labels), job.labels)
    np.testing.assert_allclose(found, [float(v.sum()) for v in values], atol=20 * TOLERANCE)
