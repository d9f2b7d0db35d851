"""The table at the end."""

import io

from rich.console import Console

from distill_operator.cli.results import score_rows, score_table
from distill_runtime.contract.report import Report, Scores, TaskScores


def scores(kl: float | None, accuracy: float | None) -> Scores:
    task = TaskScores(kind="classification", examples=10, accuracy=accuracy)
    return Scores(
        model="file:///m",
        digest="d",
        kl_to_teacher=kl,
        perplexity=12.3456,
        expected_calibration_error=0.0625,
        parameters=1234567,
        tasks={"desks": task},
    )


REPORT = Report(
    namespace="default",
    name="job",
    teacher=scores(0.0, 0.9),
    student_before=scores(2.5, 0.25),
    student_after=scores(0.75, None),
    data_digest="d",
    training_digest="t",
    objective="forward KL",
    steps=3,
    exported_step=3,
)


def test_rows_have_teacher_before_and_after_and_leave_out_what_nobody_has() -> None:
    assert score_rows(REPORT) == [
        ("parameters", "1,234,567", "1,234,567", "1,234,567"),
        ("KL to the teacher (nats)", "0", "2.5", "0.75"),
        ("perplexity", "12.35", "12.35", "12.35"),
        ("calibration error", "6.2%", "6.2%", "6.2%"),
        ("desks: accuracy", "90.0%", "25.0%", "–"),
    ]


def test_the_table_names_job_and_objective() -> None:
    text = io.StringIO()
    Console(file=text, width=120).print(score_table(REPORT))
    assert "job: forward KL" in text.getvalue()
    assert "student after" in text.getvalue()
