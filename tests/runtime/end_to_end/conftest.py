from pathlib import Path

import pytest

from tests.fixtures.models import save_tiny_model
from tests.runtime.end_to_end.local_job import LocalJob, rows, write_rows


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random teacher of four layers whose heads vLLM runs on the processor."""
    return save_tiny_model(tmp_path_factory.mktemp("teacher") / "tiny-teacher", seed=1, layers=4, head_dim=32)


@pytest.fixture
def job(tmp_path: Path, tiny_teacher: Path) -> LocalJob:
    """A job that nobody has run yet, with a store of its own."""
    return small_job(tmp_path, tiny_teacher)


@pytest.fixture(scope="session")
def finished_job(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> LocalJob:
    """The same job, run to its end once for all tests that compare with it. Its store is only added to."""
    finished = small_job(tmp_path_factory.mktemp("finished"), tiny_teacher)
    finished.run().expect(0)
    return finished


def small_job(tmp_path: Path, tiny_teacher: Path) -> LocalJob:
    """A job that takes seconds: 26 training rows, 7 held-out rows, 8 steps, plain SGD, float32."""
    train = write_rows(tmp_path / "train.jsonl", rows(26))
    held_out = write_rows(tmp_path / "heldout.jsonl", rows(7))
    spec = {
        "teacher": {"model": f"file://{tiny_teacher}", "gpus": 0, "engine": "transformers", "dtype": "float32"},
        "student": {"initialise": {"fromTeacher": {"every": 2}}, "gpusPerWorker": 0},
        "data": {"train": f"file://{train}", "evaluation": f"file://{held_out}", "maxLength": 192},
        "storage": {"uri": f"file://{tmp_path}/store"},
        "signal": {"dtype": "float32", "shardSequences": 4},
        "objective": {"crossEntropyWeight": 0.5},
        "training": {
            "steps": 8,
            "globalBatch": 6,
            "microBatch": 2,
            "packing": False,
            "precision": "float32",
            "zeroStage": 0,
            "optimizer": {"kind": "sgd", "learningRate": 0.05, "maxGradientNorm": 0},
            "schedule": {"kind": "linear", "warmupSteps": 2},
            "checkpointEverySteps": 3,
            "evaluateEverySteps": 4,
        },
    }
    return LocalJob(tmp_path, spec)
