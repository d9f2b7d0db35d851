from pathlib import Path

import pytest

from tests.fixtures.models import save_tiny_model
from tests.runtime.end_to_end.local_job import LocalJob, small_job


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
