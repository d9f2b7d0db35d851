"""The example that the README runs, with the real teacher, cut to a few steps."""

from pathlib import Path
from typing import Any

import yaml

from tests.runtime.end_to_end.local_job import LocalJob, merge

EXAMPLES = Path(__file__).parents[3] / "examples"


def absolute(value: Any) -> Any:
    """Paths that count from the example's folder, made absolute, since the test's manifest lies elsewhere."""
    if isinstance(value, dict):
        return {key: absolute(item) for key, item in value.items()}
    if isinstance(value, list):
        return [absolute(item) for item in value]
    if isinstance(value, str) and value.startswith("file://") and not value.startswith("file:///"):
        return f"file://{EXAMPLES}/{value.removeprefix('file://')}"
    return value


def test_the_quick_start_distils_smollm2(tmp_path: Path, smollm2_folder: Path) -> None:
    spec = absolute(yaml.safe_load((EXAMPLES / "quickstart.yaml").read_text())["spec"])
    few_rows = tmp_path / "train.jsonl"
    lines = (EXAMPLES / "quickstart" / "train.jsonl").read_text().splitlines(keepends=True)
    few_rows.write_text("".join(lines[:32]))
    changes = {
        "teacher": {"model": f"file://{smollm2_folder}"},
        "data": {"train": f"file://{few_rows}"},
        "storage": {"uri": f"file://{tmp_path}/store"},
        "training": {"epochs": None, "steps": 6, "globalBatch": 8},
    }
    spec = merge(spec, changes)
    spec["evaluation"]["tasks"][0]["limit"] = 4
    job = LocalJob(tmp_path, spec, name="quickstart")
    job.run().expect(0)
    report = job.report()
    before, after = report.student_before.kl_to_teacher, report.student_after.kl_to_teacher
    assert before is not None
    assert after is not None
    assert after < before
    assert (report.student_after.parameters or 0) < 0.6 * (report.teacher.parameters or 0)
    assert report.teacher.perplexity is not None
    assert report.student_before.perplexity is not None
    assert report.teacher.perplexity < report.student_before.perplexity
