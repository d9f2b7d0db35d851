from pathlib import Path

import pytest

from tests.runtime.evaluation.tiny_job import TinyJob


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TinyJob:
    return TinyJob.made_in(tmp_path_factory.mktemp("job"))


@pytest.fixture
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("DISTILL_STATE_DIR", str(folder))
    return folder
