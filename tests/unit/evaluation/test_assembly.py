from typing import get_args

import pytest

from distill_runtime.contract.facts import MOST_FACTS
from distill_runtime.contract.report import TaskScores
from distill_runtime.contract.sections import Divergence, DivergenceKind, Objective
from distill_runtime.evaluation.assembly import assemble, facts_of, objective_in_words
from tests.fixtures.evaluations import evaluation_config, evaluation_prepared
from tests.fixtures.reports import sample_curves, sample_report


def test_the_objective_is_told_in_words():
    assert objective_in_words(Objective()) == "KL(teacher || student)"
    mixed = Objective(distillation_weight=0.9, cross_entropy_weight=0.1, temperature=2)
    assert (
        objective_in_words(mixed) == "0.9 × KL(teacher || student) at temperature 2 + 0.1 × cross entropy on the data"
    )
    assert objective_in_words(Objective(distillation_weight=0, cross_entropy_weight=1)) == "cross entropy on the data"
    several = Objective(
        divergences=[Divergence(kind="jensenShannon", beta=0.3), Divergence(kind="totalVariation", weight=0.5)],
        distillation_weight=0.5,
        temperature=2,
        temperature_factor="none",
    )
    assert objective_in_words(several) == (
        "0.5 × Jensen–Shannon divergence (β = 0.3) at temperature 2, without T² "
        "+ 0.25 × total variation at temperature 2, without T²"
    )


@pytest.mark.parametrize("kind", get_args(DivergenceKind))
def test_every_divergence_has_words(kind: DivergenceKind):
    words = objective_in_words(Objective(divergences=[Divergence(kind=kind)]))
    assert words
    assert "{" not in words


def test_the_report_says_how_many_bytes_all_signals_take():
    sample = sample_report()
    report = assemble(
        evaluation_config(),
        evaluation_prepared(),
        teacher=sample.teacher,
        before=sample.student_before,
        after=sample.student_after,
        samples=sample.samples,
        curves=sample_curves(4),
        steps=4,
        exported_step=2,
        model="file:///model",
        packing_efficiency=0.98765,
    )
    assert report.training["packingEfficiency"] == 0.9877
    # Training, held-out and classification plans: 20 targets each, 64 values of 4 bytes.
    assert report.signal["bytes"] == 3 * 20 * 64 * 4
    assert (report.steps, report.exported_step) == (4, 2)
    assert report.samples == sample.samples


def test_facts_have_the_places_of_the_results_and_both_scores_of_each_task():
    facts = facts_of(sample_report(), page="file:///store/report.html")
    assert facts["model"] == "file:///runs/store/trainings/9f3/model"
    assert facts["report"] == "file:///store/report.html"
    assert (facts["studentAfterKl"], facts["teacherPerplexity"]) == (0.92, 8.21)
    assert (facts["teacherEce"], facts["studentAfterEce"]) == (0.031, 0.118)
    assert "teacherKl" not in facts
    assert (facts["desks.teacher.accuracy"], facts["desks.teacher.macroF1"]) == (0.87, 0.8352)
    assert (facts["capitals.studentAfter.exactMatch"], facts["capitals.studentAfter.tokenF1"]) == (0.632, 0.711)


def test_of_very_many_tasks_the_last_ones_are_only_in_the_report():
    scores = TaskScores(kind="classification", examples=3, accuracy=0.5, macro_f1=0.25)
    tasks = {f"task-{number}": scores for number in range(32)}
    sample = sample_report()
    subjects = {name: getattr(sample, name) for name in ("teacher", "student_before", "student_after")}
    report = sample.model_copy(
        update={name: subject.model_copy(update={"tasks": tasks}) for name, subject in subjects.items()}
    )
    facts = facts_of(report, page="file:///report.html")
    assert len(facts) <= MOST_FACTS
    told = {name.partition(".")[0] for name in facts if name.startswith("task-")}
    assert told == {f"task-{number}" for number in range(len(told))}
    assert len(told) >= 7
    assert facts["tasksLeftOut"] == 32 - len(told)
