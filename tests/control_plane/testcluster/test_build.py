import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.testcluster.build import build
from tests.testcluster.commands import run
from tests.testcluster.errors import TestClusterError
from tests.testcluster.owned import REPOSITORY
from tests.testcluster.programs import MODULES, PAUSE, kubernetes


def go_is_missing() -> str:
    """What is said where the chosen Kubernetes is to be built without Go."""
    lines = (MODULES / kubernetes().module / "go.mod").read_text().splitlines()
    version = next(line for line in lines if line.startswith("go ")).removeprefix("go ")
    return f"`go` is not on the PATH: install Go {version} or later from https://go.dev/dl/."


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder without programs; Go's own cache stays where it is."""
    monkeypatch.setenv("GOCACHE", run("go", "env", "GOCACHE").strip())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def path_without_go(folder: Path) -> str:
    """A PATH with all programs of the usual folders but Go."""
    folder.mkdir()
    for place in ("/usr/bin", "/bin"):
        for program in Path(place).iterdir():
            link = folder / program.name
            if program.name != "go" and not link.exists():
                link.symlink_to(program)
    return str(folder)


@pytest.mark.usefixtures("empty_cache")
def test_a_program_is_built_once() -> None:
    lines: list[str] = []
    build([PAUSE], lines.append)
    assert os.access(PAUSE.path, os.X_OK)
    assert lines[0].startswith("Building pause")
    assert "1 min the first time" in lines[0]
    before = PAUSE.path.stat().st_mtime_ns
    build([PAUSE], lines.append)
    assert PAUSE.path.stat().st_mtime_ns == before
    assert len(lines) == 2


@pytest.mark.usefixtures("empty_cache")
def test_a_program_that_is_missing_or_from_other_sources_is_built_again() -> None:
    lines: list[str] = []
    build([PAUSE], lines.append)
    stamp = PAUSE.folder / ".pause.json"
    stamp.write_text(stamp.read_text().replace(PAUSE.digest(), "0"))
    build([PAUSE], lines.append)
    PAUSE.path.unlink()
    build([PAUSE], lines.append)
    assert len([line for line in lines if line.startswith("Built")]) == 3


@pytest.mark.usefixtures("empty_cache")
def test_two_builds_at_once_build_once() -> None:
    lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(build, [PAUSE], lines.append) for _ in range(2)]:
            done.result()
    assert len([line for line in lines if line.startswith("Built")]) == 1


def test_without_go_and_without_programs_one_sentence_says_what_to_install(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path_without_go(empty_cache / "bin"))
    with pytest.raises(TestClusterError) as raised:
        build([kubernetes()])
    assert str(raised.value).startswith("The test cluster needs kube, which must be built first, and ")
    assert str(raised.value).endswith(go_is_missing())


def test_programs_that_are_there_need_no_go(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build([PAUSE])
    monkeypatch.setenv("PATH", path_without_go(empty_cache / "bin"))
    assert shutil.which("go") is None
    build([PAUSE])


def test_a_build_that_fails_says_why_and_leaves_no_program(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = empty_cache / "modules" / PAUSE.module
    (module / "pause").mkdir(parents=True)
    (module / "go.mod").write_text("module distill-operator.io/broken\n\ngo 1.26.0\n")
    (module / "pause" / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    monkeypatch.setattr("tests.testcluster.programs.MODULES", module.parent)
    monkeypatch.setattr("tests.testcluster.build.MODULES", module.parent)
    with pytest.raises(TestClusterError, match=r"(?s)pause does not build\..*undefined: undefined"):
        build([PAUSE])
    assert not PAUSE.path.exists()
    assert list(PAUSE.folder.iterdir()) == []


def test_tests_without_go_fail_and_are_not_skipped(empty_cache: Path) -> None:
    chosen = "tests/control_plane/testcluster/test_fixtures.py::test_what_is_created_can_be_read"
    environment = {**os.environ, "PATH": path_without_go(empty_cache / "bin")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", chosen],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
    assert go_is_missing() in ended.stdout
    assert "skipped" not in ended.stdout
