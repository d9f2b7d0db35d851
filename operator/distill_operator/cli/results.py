"""The end of a run on the terminal: the table of scores, and where everything is."""

from collections.abc import Callable

from rich.table import Table

from distill_runtime.contract.report import Report, Scores, TaskScores

TASK_METRICS: list[tuple[str, Callable[[TaskScores], float | None]]] = [
    ("accuracy", lambda scores: scores.accuracy),
    ("macro F1", lambda scores: scores.macro_f1),
    ("calibration error", lambda scores: scores.expected_calibration_error),
    ("exact match", lambda scores: scores.exact_match),
    ("token F1", lambda scores: scores.token_f1),
]

Row = tuple[str, str, str, str]


def score_rows(report: Report) -> list[Row]:
    """Metric, teacher, student before, student after: rows that nobody has a number for are left out."""
    models = (report.teacher, report.student_before, report.student_after)
    rows = [
        _row("parameters", models, lambda scores: scores.parameters, _count),
        _row("KL to the teacher (nats)", models, lambda scores: scores.kl_to_teacher, _four),
        _row("top-1 agreement", models, lambda scores: scores.top1_agreement, _percent),
        _row("perplexity", models, lambda scores: scores.perplexity, _four),
        _row("calibration error", models, lambda scores: scores.expected_calibration_error, _percent),
    ]
    for task in report.teacher.tasks | report.student_after.tasks:
        rows += [_task_row(task, metric, read, models) for metric, read in TASK_METRICS]
    return [row for row in rows if any(cell != "–" for cell in row[1:])]


def score_table(report: Report) -> Table:
    """The scores of teacher and student as a table."""
    table = Table(title=f"{report.name}: {report.objective}", title_justify="left")
    table.add_column("")
    for heading in ("teacher", "student before", "student after"):
        table.add_column(heading, justify="right")
    for row in score_rows(report):
        table.add_row(*row)
    return table


def _row(
    name: str,
    models: tuple[Scores, Scores, Scores],
    read: Callable[[Scores], float | None],
    show: Callable[[float], str],
) -> Row:
    teacher, before, after = (_cell(read(scores), show) for scores in models)
    return name, teacher, before, after


def _task_row(
    task: str, metric: str, read: Callable[[TaskScores], float | None], models: tuple[Scores, Scores, Scores]
) -> Row:
    def of(scores: Scores) -> float | None:
        return read(scores.tasks[task]) if task in scores.tasks else None

    return _row(f"{task}: {metric}", models, of, _percent)


def _cell(value: float | None, show: Callable[[float], str]) -> str:
    return "–" if value is None else show(value)


def _four(value: float) -> str:
    return f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
