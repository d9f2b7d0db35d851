import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.contract.report import CurvePoint, Report, Sample, Scores, SourceReport, TaskScores
from distill_runtime.evaluation import formatting
from distill_runtime.evaluation.report import curve_charts, headline, kept, model_name, render, score_rows, size_ratio
from tests.fixtures.reports import sample_report

VOID = {"meta", "br", "hr", "img", "input", "link", "rect", "path"}
SAID = Sample(prompt="p", reference="r", teacher="t", student_before="b", student_after="a")
HOSTILE = '<script>alert("x")</script>&{{ 7 * 7 }}'


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects what could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID or tag == "rect":
            self.open.append(tag)
        self.references += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "srcset", "data", "action"}]
        self.references += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_tells_of_each_source() -> None:
    counts = {"rows": 20, "tokens": 400, "targets": 90, "dropped_rows": 1, "truncated_rows": 2, "bad_rows": 3}
    source = SourceReport(uri="s3://corp/a", weight=2.5, sequences=14, epoch_sequences=35, **counts)
    text = " ".join(Page(render(sample_report(sources=[source, source]))).text)
    for words in ("Source 1", "Source 2", "s3://corp/a", "2.5", "35"):
        assert words in text


def empty_scores(**changes: Any) -> Scores:
    return Scores(model="file:///m", digest="d", **changes)


def bare_report(**changes: Any) -> Report:
    values: dict[str, Any] = {
        "namespace": "default",
        "name": "bare",
        "teacher": empty_scores(),
        "student_before": empty_scores(),
        "student_after": empty_scores(),
        "data_digest": "a",
        "training_digest": "b",
        "objective": "KL(teacher || student)",
        "steps": 8,
        "exported_step": 8,
    }
    return Report(**{**values, **changes})


@pytest.mark.parametrize(
    "report", [sample_report(), sample_report(steps=2), bare_report()], ids=["full", "short", "bare"]
)
def test_the_page_is_well_formed_and_needs_nothing_from_outside(report: Report):
    text = render(report)
    page = Page(text)
    assert page.open == []
    assert page.references == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:", text)


def test_everything_from_the_job_is_escaped():
    report = sample_report(
        name=HOSTILE,
        namespace=HOSTILE,
        objective=HOSTILE,
        data={HOSTILE: HOSTILE},
        training={HOSTILE: 1},
        model=f"s3://bucket/{HOSTILE}",
        samples=[
            Sample(
                prompt=HOSTILE,
                reference=f"</p>{HOSTILE}",
                teacher=HOSTILE,
                student_before=f"<!--{HOSTILE}",
                student_after=f"</style>{HOSTILE}]]>",
            )
        ],
        teacher=empty_scores(tasks={HOSTILE: TaskScores(kind="classification", examples=1, accuracy=1.0)}),
    )
    text = render(report)
    assert "<script" not in text
    page = Page(text)
    assert page.open == []
    assert '<script>alert("x")</script>&{{ 7 * 7 }}' in "".join(page.text)


@given(st.lists(st.text(max_size=40), min_size=5, max_size=5))
@settings(max_examples=40, deadline=None)
def test_whatever_a_model_says_is_shown_as_text_and_changes_nothing_of_the_page(texts: list[str]):
    prompt, reference, teacher, before, after = texts
    sample = Sample(prompt=prompt, reference=reference, teacher=teacher, student_before=before, student_after=after)
    text = render(bare_report(samples=[sample]))
    page = Page(text)
    assert page.open == []
    assert page.tags == Page(render(bare_report(samples=[SAID]))).tags or "" in texts
    shown = "".join(page.text)
    for said in texts:
        assert formatting.visible(said) in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)


def test_the_samples_are_side_by_side_in_page_and_document():
    report = sample_report()
    text = "".join(Page(render(report)).text)
    (sample,) = report.samples
    for said in (sample.prompt, sample.reference, sample.teacher, sample.student_before, sample.student_after):
        assert said in text
    assert json.loads(report.model_dump_json(by_alias=True))["samples"][0]["studentBefore"] == "the the the"
    assert "Samples" not in "".join(Page(render(bare_report())).text)


def test_an_empty_answer_says_that_it_is_empty():
    page = "".join(Page(render(bare_report(samples=[SAID.model_copy(update={"student_before": ""})]))).text)
    assert page.count("(empty)") == 1


def test_missing_scores_are_dashes_and_never_none_or_nan():
    text = "".join(Page(render(bare_report(curves=[CurvePoint(step=1, loss=math.nan)]))).text)
    assert formatting.MISSING in text
    assert not re.search(r"\b(None|nan|inf)\b", text)


def test_the_headline_tells_what_is_kept_at_which_size():
    assert headline(sample_report()) == (
        "The student reaches 91% of the teacher's scores on 2 tasks at 47% of its size. "
        "Its divergence from the teacher on held-out data fell from 3.31 to 0.920 nats per token."
    )


def test_the_headline_does_not_praise_a_student_that_got_worse():
    report = bare_report(student_before=empty_scores(kl_to_teacher=0.5), student_after=empty_scores(kl_to_teacher=2.0))
    assert headline(report) == (
        "The student was trained for 8 steps. "
        "Its divergence from the teacher on held-out data rose from 0.500 to 2.00 nats per token."
    )
    assert {row.verdict for row in score_rows(report) if row.verdict} == {"worse"}


def test_what_is_kept_leaves_out_tasks_that_the_teacher_cannot_do():
    def tasks(first: float, second: float) -> dict[str, TaskScores]:
        return {
            "one": TaskScores(kind="classification", examples=1, accuracy=first),
            "two": TaskScores(kind="questionAnswering", examples=1, token_f1=second, exact_match=0.0),
        }

    report = bare_report(teacher=empty_scores(tasks=tasks(0.8, 0.0)), student_after=empty_scores(tasks=tasks(0.4, 0.9)))
    assert kept(report) == 0.5
    assert kept(bare_report()) is None
    assert size_ratio(bare_report()) is None


def test_the_gap_closed_is_counted_from_the_student_before_to_the_teacher():
    rows = {(row.name, row.note): row for row in score_rows(sample_report())}
    accuracy = rows["desks", "accuracy"]
    assert (accuracy.teacher, accuracy.before, accuracy.after) == ("87.0%", "22.0%", "79.0%")
    assert accuracy.change == "+57.0 pp"
    assert accuracy.closed == pytest.approx(57 / 65)
    kl = rows["KL to the teacher", "nats per held-out token, lower is better"]
    assert (kl.change, kl.verdict) == (f"{formatting.MINUS}2.39", "better")
    assert kl.closed == pytest.approx((3.31 - 0.92) / 3.31)
    calibration = rows["Calibration error", "on held-out tokens, lower is better"]
    assert (calibration.after, calibration.verdict) == ("11.8%", "better")
    assert rows["desks", "calibration error, lower is better"].verdict == "better"


def test_how_labels_were_compared_is_told():
    score = TaskScores(kind="classification", examples=1, accuracy=1.0, normalisation="bytes")
    report = bare_report(student_after=empty_scores(tasks={"desks": score}))
    assert "accuracy, labels compared per byte" in {row.note for row in score_rows(report)}


def test_curves_without_points_have_no_chart_and_long_ones_stay_small():
    assert curve_charts([]) == []
    curves = [CurvePoint(step=step, loss=1 / step) for step in range(1, 20_001)]
    (loss,) = curve_charts(curves)
    assert loss.title == "Loss"
    assert loss.logarithmic
    assert loss.lines[0].path.count("L") < 300
    assert len(loss.bands) <= 60


def test_all_places_of_a_chart_are_inside_the_plot():
    for chart in curve_charts(sample_report().curves):
        for line in chart.lines:
            places = [float(number) for number in re.findall(r"-?\d+\.?\d*", line.path)]
            assert all(-0.01 <= place <= 100.01 for place in places), (chart.title, line.label)
        assert all(0 <= tick.place <= 100 for tick in [*chart.x_ticks, *chart.y_ticks])


def test_the_page_is_the_report_whatever_the_route(tmp_path: Any):
    report = sample_report()
    read = Report.model_validate(json.loads(report.model_dump_json(by_alias=True)))
    assert render(read) == render(report)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (0, "0"), (0.92, "0.920"), (3.306, "3.31"), (1234.5, "1,234"), (2.1e-5, "2.10e-05")],
)
def test_numbers_have_about_three_digits(value: float | None, text: str):
    assert formatting.number(value) == text


def test_sizes_times_and_names_read_well():
    assert formatting.large(134_515_008) == "134.5M"
    assert formatting.large(32_760_000_000) == "32.8B"
    assert formatting.size(46_209_024) == "44.1 MiB"
    assert [formatting.duration(s) for s in (4.21, 59.97, 450, 7504)] == [
        "4.2 s",
        "1 min 00 s",
        "7 min 30 s",
        "2 h 05 min",
    ]
    assert formatting.words("evaluationBadRows") == "Evaluation bad rows"
    assert formatting.any_value("learningRate", 1e-4) == "0.0001"
    assert formatting.any_value("signalBytes", 2048) == "2.0 KiB"
    assert model_name("hf://Qwen/Qwen3-32B@abc123") == "Qwen3-32B"
