"""Models and jobs for the tests of `prepare`."""

from pathlib import Path

import pytest

from distill_runtime.contract import environment
from tests.fixtures.models import save_tiny_model
from tests.runtime.prepare.preparing import Job
from tests.unit.data.files import write_json_lines

ROWS = [{"prompt": f"is it {number}?", "completion": "four. " * (1 + number % 4)} for number in range(20)]
HELD_OUT = [{"prompt": f"was it {number}?", "completion": "the fox."} for number in range(6)]
LABELLED = [
    {"prompt": "where is my card?", "label": "card"},
    {"prompt": "how long does it take?", "label": "transfer"},
    {"prompt": "the card again?", "label": "card"},
]
QUESTIONS = [{"prompt": "two and two?", "completion": ["four", "4"]}]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `teacher` and a smaller `student` of the same family."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model(folder / "teacher", vocabulary=400)
    save_tiny_model(folder / "student", layers=2, seed=1)
    return folder


@pytest.fixture
def job(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A small job that is right in everything, with held-out data and two tasks."""
    monkeypatch.setenv(environment.STATE_DIR, str(tmp_path / "state"))
    monkeypatch.setenv(environment.CACHE_DIR, str(tmp_path / "cache"))
    tasks = [
        {"kind": "classification", "name": "intents", "data": write_json_lines(tmp_path / "labelled.jsonl", LABELLED)},
        {"kind": "questionAnswering", "name": "questions", "data": write_json_lines(tmp_path / "qa.jsonl", QUESTIONS)},
    ]
    return Job(
        tmp_path,
        {
            "teacher": {"model": f"file://{models}/teacher", "gpus": 0, "dtype": "float32"},
            "student": {"model": f"file://{models}/student", "gpusPerWorker": 0},
            "data": {
                "train": write_json_lines(tmp_path / "train.jsonl", ROWS),
                "evaluation": write_json_lines(tmp_path / "held_out.jsonl", HELD_OUT),
                "maxLength": 128,
            },
            "storage": {"uri": f"file://{tmp_path}/store"},
            "signal": {"shardSequences": 4},
            "training": {"precision": "float32", "globalBatch": 8},
            "evaluation": {"tasks": tasks},
        },
    )
