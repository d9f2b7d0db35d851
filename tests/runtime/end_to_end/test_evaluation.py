"""All that an evaluation can be asked for, by a DistillJob through the command line, without a network."""

import json
from pathlib import Path

import pytest

from tests.runtime.end_to_end.local_job import LocalJob, rows, write_rows
from tests.runtime.evaluation.definitions import write_definitions


@pytest.fixture
def evaluated(job: LocalJob, tmp_path: Path) -> LocalJob:
    labels = [{"prompt": row["prompt"], "label": ("two days", "no")[number % 2]} for number, row in enumerate(rows(4))]
    write_definitions(tmp_path / "definitions")
    asked = {
        "tasks": [
            {
                "kind": "classification",
                "name": "topic",
                "data": f"file://{write_rows(tmp_path / 'topic.jsonl', labels)}",
                "normalisation": "tokens",
            }
        ],
        "samples": {"count": 3, "maxNewTokens": 6, "engine": "transformers"},
        # A path from the manifest's folder.
        "harness": {"tasks": [{"task": "capitals_choice", "limit": 4}], "include": "file://definitions"},
    }
    job.environment = {"HF_HUB_OFFLINE": "1"}
    return job.changed({"evaluation": asked, "training": {"steps": 2}}, name="evaluated")


def test_calibration_normalised_labels_samples_and_public_tasks_are_in_the_report_and_the_last_lines(
    evaluated: LocalJob,
) -> None:
    ended = evaluated.run().expect(0)
    report = evaluated.report()
    for scores in (report.teacher, report.student_before, report.student_after):
        assert 0 <= (scores.expected_calibration_error or -1) <= 1
        assert scores.tasks["topic"].normalisation == "tokens"
        assert 0 <= (scores.tasks["topic"].expected_calibration_error or -1) <= 1
    assert len(report.samples) == 3
    assert "What is the capital of France? (0)" in report.samples[0].prompt
    assert report.samples[0].reference == "The capital of France is Paris."
    for scores in (report.student_before, report.student_after):
        assert scores.harness["capitals_choice"].documents == 4
    page = (evaluated.run_folder / "report.html").read_text()
    for heading in ("Samples", "lm-evaluation-harness", "Calibration error"):
        assert heading in page
    for row in ("calibration error", "topic: accuracy", "capitals_choice: acc_norm"):
        assert row in ended.output

    second = evaluated.changed({"training": {"seed": 3}}, name="second")
    second.run().expect(0)
    # The teacher's answers, and the untrained student's scores, are those of the first job.
    assert [one.teacher for one in second.report().samples] == [one.teacher for one in report.samples]
    assert second.report().student_before == report.student_before
    assert json.loads((second.run_folder / "report.json").read_text())["samples"][0]["reference"]


def test_a_public_task_without_a_network_ends_the_job_at_its_start_with_one_sentence(evaluated: LocalJob) -> None:
    ended = evaluated.changed(
        {"evaluation": {"harness": {"tasks": [{"task": "arc_easy"}], "include": None}}}, name="public"
    ).run()
    ended.expect(65)
    assert "the data of task arc_easy can't be loaded" in ended.output
    assert "Traceback" not in ended.output
