import os
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.testcluster import packages
from tests.testcluster.errors import TestClusterError


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Plays a Debian machine on which some packages aren't installed."""
    monkeypatch.setattr(os, "geteuid", lambda: packages.ROOT_USER)

    def lack(*missing: str) -> None:
        def asked(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(command, 0, "" if command[-1] in missing else "installed")

        monkeypatch.setattr(subprocess, "run", asked)

    return lack


@pytest.mark.parametrize("check", [packages.check_installed, packages.check_image_builder_installed])
def test_missing_packages_are_named(lacking: Callable[..., None], check: Callable[[], None]) -> None:
    lacking()
    check()
    lacking("runc", "util-linux")
    with pytest.raises(TestClusterError, match="install them with `apt-get install runc util-linux`"):
        check()


@pytest.mark.parametrize("check", [packages.check_installed, packages.check_image_builder_installed])
def test_another_user_than_root_is_refused(monkeypatch: pytest.MonkeyPatch, check: Callable[[], None]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TestClusterError, match="need"):
        check()
