from distill_runtime.contract.report import TaskScores
from distill_runtime.contract.sections import Objective
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


def test_the_report_says_how_many_bytes_all_signals_take():
    sample = sample_report()
    report = assemble(
        evaluation_config(),
        evaluation_prepared(),
        teacher=sample.teacher,
        before=sample.student_before,
        after=sample.student_after,
        curves=sample_curves(4),
        steps=4,
        exported_step=2,
        model="file:///model",
    )
    # Training, held-out and classification plans: 20 targets each, 64 values of 4 bytes.
    assert report.signal["bytes"] == 3 * 20 * 64 * 4
    assert "hiddenSize" not in report.data
    assert (report.steps, report.exported_step) == (4, 2)


def test_facts_are_flat_and_few_even_with_32_tasks():
    tasks = {f"task-{number}": TaskScores(kind="classification", examples=3, accuracy=0.5) for number in range(32)}
    sample = sample_report()
    report = sample.model_copy(update={"teacher": sample.teacher.model_copy(update={"tasks": tasks})})
    facts = facts_of(report)
    assert len(facts) <= 60
    assert facts["studentAfterKl"] == 0.92
    assert facts["teacherPerplexity"] == 8.21
    assert facts["task-0.teacher"] == 0.5
    assert facts["task-0.studentAfter"] is None
    assert all(value is None or isinstance(value, str | int | float) for value in facts.values())
