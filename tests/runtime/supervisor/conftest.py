from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.supervisor.container import Container


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    container.close()
