"""helm for one test, on a control plane of its own: a definition belongs to the whole cluster."""

from pathlib import Path

import pytest

from tests.control_plane.chart.installation import Helm
from tests.testcluster.control_plane import ControlPlane


@pytest.fixture
def helm_here(helm: Path, fresh_control_plane: ControlPlane, tmp_path: Path) -> Helm:
    return Helm(helm, fresh_control_plane, tmp_path / "helm")
