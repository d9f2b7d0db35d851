"""The report as a page: one file, readable without a network and without scripts, on a phone and on paper."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from distill_runtime.contract.report import CurvePoint, Report, Scores
from distill_runtime.evaluation import formatting
from distill_runtime.evaluation.assembly import main_metric
from distill_runtime.evaluation.charts import Chart, Series, draw

Measure = Callable[[Scores], float | None]


@dataclass(frozen=True)
class Row:
    """A row of the table of scores."""

    name: str
    note: str
    teacher: str
    before: str
    after: str
    change: str
    verdict: str
    """`better`, `worse` or `same`; empty where it can't be told."""
    closed: float | None
    """Part of the way from the student before to the teacher that was covered; 1 is the teacher."""


@dataclass(frozen=True)
class Bar:
    """A model's score in a picture of a task."""

    label: str
    style: str
    width: float
    text: str


@dataclass(frozen=True)
class TaskPicture:
    """A task's main metric for the three models."""

    name: str
    metric: str
    examples: int
    bars: list[Bar]


def model_name(uri: str) -> str:
    """The last part of a model's URI, without its revision: `hf://Qwen/Qwen3-32B@abc` is Qwen3-32B."""
    return uri.rstrip("/").rpartition("/")[2].partition("@")[0]


def size_ratio(report: Report) -> float | None:
    """The student's weights as a part of the teacher's."""
    teacher, student = report.teacher.parameters, report.student_after.parameters
    return student / teacher if teacher and student else None


def kept(report: Report) -> float | None:
    """The mean over tasks of what the student's main metric is of the teacher's; tasks where the teacher has 0 don't
    count."""
    parts: list[float] = []
    for name, teacher in report.teacher.tasks.items():
        of_teacher, of_student = main_metric(teacher), main_metric(report.student_after.tasks.get(name))
        if of_teacher and of_student is not None:
            parts.append(of_student / of_teacher)
    return sum(parts) / len(parts) if parts else None


def headline(report: Report) -> str:
    """The result in a sentence or two."""
    ratio, part, agreement = size_ratio(report), kept(report), report.student_after.top1_agreement
    at_size = f" at {formatting.percent(ratio, 0)} of its size" if ratio is not None else ""
    if part is not None:
        tasks = len(report.teacher.tasks)
        what = "the teacher's score" if tasks == 1 else f"the teacher's scores on {tasks} tasks"
        first = f"The student reaches {formatting.percent(part, 0)} of {what}{at_size}."
    elif agreement is not None:
        share = formatting.percent(agreement, 0)
        first = f"The student's first choice is the teacher's for {share} of held-out tokens{at_size}."
    else:
        first = f"The student was trained for {formatting.count(report.steps)} steps{at_size}."
    before, after = report.student_before.kl_to_teacher, report.student_after.kl_to_teacher
    if before is None or after is None:
        return first
    verb = "fell" if after < before else "rose" if after > before else "stayed"
    way = (
        f"from {formatting.number(before)} to {formatting.number(after)}"
        if verb != "stayed"
        else f"at {formatting.number(after)}"
    )
    return f"{first} Its divergence from the teacher on held-out data {verb} {way} nats per token."


def score_rows(report: Report) -> list[Row]:
    """The table of scores: held-out metrics, then each task's."""
    rows = [
        _row(report, "KL to the teacher", "nats per held-out token, lower is better", lambda s: s.kl_to_teacher, -1),
        _row(report, "Top-1 agreement", "same first choice as the teacher", lambda s: s.top1_agreement, 1, share=True),
        _row(report, "Perplexity", "on held-out text, lower is better", lambda s: s.perplexity, -1),
        _row(
            report,
            "Calibration error",
            "on held-out tokens, lower is better",
            lambda s: s.expected_calibration_error,
            -1,
            share=True,
        ),
    ]
    for name in task_names(report):
        known = next(s.tasks[name] for s in _subjects(report) if name in s.tasks)
        if known.kind == "classification":
            per = (
                ""
                if known.normalisation == "none"
                else f", labels compared per {known.normalisation.removesuffix('s')}"
            )
            metrics = [
                ("accuracy", f"accuracy{per}", 1),
                ("macro_f1", "macro F1", 1),
                ("expected_calibration_error", "calibration error, lower is better", -1),
            ]
        else:
            metrics = [("token_f1", "token F1", 1), ("exact_match", "exact match", 1)]
        for field, label, better in metrics:
            rows.append(_row(report, name, label, _task_measure(name, field), better, share=True))
    return rows


def task_names(report: Report) -> list[str]:
    """All tasks that any of the three models was scored on, in the order of the job."""
    return list(dict.fromkeys(name for scores in _subjects(report) for name in scores.tasks))


def _subjects(report: Report) -> tuple[Scores, Scores, Scores]:
    return report.teacher, report.student_before, report.student_after


def _task_measure(name: str, field: str) -> Measure:
    return lambda scores: getattr(scores.tasks[name], field) if name in scores.tasks else None


def _row(report: Report, name: str, note: str, measure: Measure, better: int, *, share: bool = False) -> Row:
    teacher, before, after = map(measure, _subjects(report))
    shown = formatting.percent if share else formatting.number
    change = after - before if after is not None and before is not None else None
    closed = None
    if change is not None and teacher is not None and before is not None and teacher != before:
        closed = change / (teacher - before)
    verdict = ""
    if change is not None and math.isfinite(change):
        verdict = "same" if change == 0 else "better" if change * better > 0 else "worse"
    return Row(
        name=name,
        note=note,
        teacher=shown(teacher),
        before=shown(before),
        after=shown(after),
        change=formatting.signed(change, as_percent=share),
        verdict=verdict,
        closed=closed if closed is not None and math.isfinite(closed) else None,
    )


def task_pictures(report: Report) -> list[TaskPicture]:
    """The main metric of each task, as bars."""
    pictures: list[TaskPicture] = []
    for name in task_names(report):
        scores = [s.tasks.get(name) for s in _subjects(report)]
        known = next(s for s in scores if s is not None)
        values = [main_metric(s) for s in scores]
        pictures.append(
            TaskPicture(
                name=name,
                metric="accuracy" if known.kind == "classification" else "token F1",
                examples=known.examples,
                bars=[
                    Bar(label, style, round(100 * (value or 0), 2), formatting.percent(value))
                    for label, style, value in zip(
                        ("Teacher", "Student before", "Student after"),
                        ("teacher", "before", "after"),
                        values,
                        strict=True,
                    )
                ],
            )
        )
    return pictures


def curve_charts(curves: list[CurvePoint]) -> list[Chart]:
    """The charts that the curves have points for."""
    charts = [
        draw(
            "Loss",
            "the objective, per target",
            [
                Series("training", "one", _points(curves, lambda p: p.loss), smooth=True),
                Series("held out", "two", _points(curves, lambda p: p.held_out_loss), marks=True),
            ],
        ),
        draw(
            "Parts of the objective",
            "unweighted, nats per target",
            [
                Series("divergence", "one", _points(curves, lambda p: p.divergence), smooth=True),
                Series("divergence, held out", "two", _points(curves, lambda p: p.held_out_divergence), marks=True),
                Series("cross entropy", "three", _points(curves, lambda p: p.cross_entropy), smooth=True),
                Series(
                    "cross entropy, held out", "four", _points(curves, lambda p: p.held_out_cross_entropy), marks=True
                ),
            ],
        ),
        draw("Learning rate", "", [Series("learning rate", "one", _points(curves, lambda p: p.learning_rate))]),
        draw(
            "Gradient norm",
            "before clipping",
            [Series("norm", "one", _points(curves, lambda p: p.gradient_norm), smooth=True)],
        ),
        draw(
            "Time of a step",
            "seconds",
            [
                Series("whole step", "one", _points(curves, lambda p: p.seconds), smooth=True),
                Series("waiting for the teacher", "two", _points(curves, lambda p: p.waited_seconds), smooth=True),
            ],
            may_be_logarithmic=False,
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _points(curves: list[CurvePoint], value: Callable[[CurvePoint], float | None]) -> list[tuple[float, float]]:
    points = [(float(point.step), found) for point in curves if (found := value(point)) is not None]
    assert all(a <= b for (a, _), (b, _) in pairwise(points)), "curves are in the order of steps"
    return points


def training_times(curves: list[CurvePoint]) -> tuple[float | None, float | None]:
    """Seconds of all steps, and the part of them that went by waiting for the teacher."""
    whole = sum(point.seconds for point in curves if point.seconds is not None)
    waited = sum(point.waited_seconds for point in curves if point.waited_seconds is not None)
    return (whole, waited / whole) if whole > 0 else (None, None)


def render(report: Report) -> str:
    """The report as one HTML page."""
    seconds, waited = training_times(report.curves)
    return _template().render(
        report=report,
        headline=headline(report),
        teacher_name=model_name(report.teacher.model),
        ratio=size_ratio(report),
        kept=kept(report),
        rows=score_rows(report),
        pictures=task_pictures(report),
        charts=curve_charts(report.curves),
        seconds=seconds,
        waited=waited,
        model_path=report.model.removeprefix("file://") if report.model.startswith("file://") else None,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("distill_runtime.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formatting.number,
        percent=formatting.percent,
        count=formatting.count,
        large=formatting.large,
        duration=formatting.duration,
        visible=formatting.visible,
        words=formatting.words,
    )
    environment.globals["any_value"] = formatting.any_value
    return environment.get_template("report.html.j2")
