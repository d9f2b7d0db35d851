"""A job with everything that data may ask for, from rows to the report."""

import json
import math
from typing import Any

import pytest

from tests.fixtures.templates import TOOLS
from tests.runtime.end_to_end.local_job import LocalJob, rows, write_rows

LOSS_TOLERANCE = 2e-5
"""Relative, float32: as in test_invariance."""
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {}}}


def calls(count: int) -> list[dict[str, Any]]:
    """Chats of two answers, the first of which calls a tool, each with a document for the teacher alone."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"What time is it ({number})?"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "clock", "arguments": "{}"}}]},
                {"role": "tool", "content": f"{number} past four"},
                {"role": "assistant", "content": f"It is {number} past four."},
            ],
            "tools": [CLOCK],
            "document": f"It is {number} past four, and the dog is lazy." * (number % 3),
        }
        for number in range(count)
    ]


@pytest.fixture
def told(job: LocalJob) -> LocalJob:
    """A job whose teacher is told more, of two sources with weights; one of their rows can't be used."""
    folder = job.folder
    chats = write_rows(folder / "chats.jsonl", rows(10))
    bad: dict[str, Any] = {"messages": [], "tools": [CLOCK]}
    tools = write_rows(folder / "tools.jsonl", [*calls(8), bad])
    return job.changed(
        {
            "data": {
                "train": None,
                "sources": [{"uri": f"file://{chats}", "weight": 2}, {"uri": f"file://{tools}", "weight": 0.5}],
                "chatTemplate": TOOLS,
                "targets": "lastAssistantTurn",
                "systemPrompt": "be lazy.",
                "teacherPrompt": "the answer is in paris.",
                "columns": {"teacherContext": "document"},
                "teacherMaxLength": 384,
                "maxLength": 320,
                "maxBadRows": 1,
            },
            "training": {"steps": None, "epochs": 2, "packing": True, "microBatchTokens": 640},
        }
    )


def test_a_job_with_everything_that_data_may_ask_for(told: LocalJob) -> None:
    told.run().expect(0)
    report = told.report()
    first, second = report.sources
    assert (first.rows, first.sequences, first.epoch_sequences, first.bad_rows) == (10, 10, 20, 0)
    assert (second.rows, second.sequences, second.epoch_sequences, second.bad_rows) == (9, 8, 4, 1)
    assert report.data["badRows"] == 1
    assert "tools.jsonl:9: messages is empty" in told.logs("prepare")
    assert report.steps == 8  # 24 sequences an epoch, 6 a step.
    assert 0.5 < float(report.training["packingEfficiency"]) <= 1
    assert "Source 2" in (told.run_folder / "report.html").read_text()
    # The student is not told what the teacher is: there is something to learn, and it learns.
    before, after = report.student_before.kl_to_teacher, report.student_after.kl_to_teacher
    assert before is not None
    assert after is not None
    assert 0 < after < before
    losses = told.losses()
    assert all(math.isfinite(loss) for loss in losses)

    told.forget_training()
    alone = {"student": {"workers": 2}, "training": {"packing": False, "microBatchTokens": 500, "zeroStage": 2}}
    other = told.changed(alone)
    other.run().expect(0)
    assert other.losses() == pytest.approx(losses, rel=LOSS_TOLERANCE)
    assert other.report().data == report.data
    assert json.loads((told.run_folder / "report.json").read_text())["sources"][1]["epochSequences"] == 4

    # The teacher's scores and signals are there: with other weights no teacher is started.
    sources = [{**source, "weight": 1} for source in told.spec["data"]["sources"]]
    evenly = told.changed({"data": {"sources": sources}}, name="evenly")
    evenly.run().expect(0)
    assert evenly.logs("teacher") == ""
    assert [source.epoch_sequences for source in evenly.report().sources] == [10, 8]
