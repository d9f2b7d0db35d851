import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testcluster import podman
from tests.testcluster.base_image import BASE_IMAGE
from tests.testcluster.dockerfile import CERTIFICATES, REPOSITORY, build_command, context_files, image_digest
from tests.testcluster.errors import TestClusterError
from tests.testcluster.image_layers import named_in

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
IGNORE = "*\n!pyproject.toml\n!operator\n**/__pycache__\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a file of each kind."""
    files = {
        "Dockerfile": "FROM scratch AS base\nFROM base AS operator\n",
        ".dockerignore": IGNORE,
        "pyproject.toml": "[project]",
        "README.md": "not copied",
        "operator/distill_operator/code.py": "one = 1",
        "operator/distill_operator/__pycache__/code.pyc": "compiled",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "_storage_driver", lambda: podman.OVERLAY)


def test_a_build_reads_what_dockerignore_lets_in(repository: Path) -> None:
    assert [str(file.relative_to(repository)) for file in context_files(repository)] == [
        ".dockerignore",
        "Dockerfile",
        "operator/distill_operator/code.py",
        "pyproject.toml",
    ]


def test_this_projects_dockerignore_has_only_lines_that_are_understood() -> None:
    first, *others = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert first == "*"
    assert [line for line in others if not re.fullmatch(r"![\w.]+|\*\*/\w+", line)] == []


def test_everything_that_this_projects_dockerfile_copies_is_in_the_digest() -> None:
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    read = {file.relative_to(REPOSITORY).parts[0] for file in context_files()}
    assert copied
    assert copied <= read


def test_this_projects_dockerfile_begins_with_the_base_image_that_is_made_here() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert {source for source, _ in stages} - {name for _, name in stages} == {BASE_IMAGE}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "operator/distill_operator/code.py").write_text("one = 2"), id="content"),
        pytest.param(lambda root: (root / "operator/distill_operator/code.py").chmod(0o755), id="mode"),
        pytest.param(lambda root: (root / "operator/new.py").write_text(""), id="new file"),
        pytest.param(lambda root: (root / "pyproject.toml").unlink(), id="lost file"),
        pytest.param(lambda root: (root / ".dockerignore").write_text(f"{IGNORE}!README.md\n"), id="context"),
        pytest.param(lambda root: (root / "Dockerfile").write_text("FROM other AS operator\n"), id="recipe"),
    ],
)
def test_a_change_of_what_goes_in_makes_another_image(repository: Path, change: Callable[[Path], object]) -> None:
    before = image_digest("operator", repository)
    change(repository)
    assert image_digest("operator", repository) != before


def test_what_does_not_go_in_makes_no_other_image(repository: Path) -> None:
    before = image_digest("operator", repository)
    (repository / "README.md").write_text("changed")
    (repository / "operator/distill_operator/__pycache__/code.pyc").write_text("compiled anew")
    (repository / "operator/distill_operator/code.py").touch()
    assert image_digest("operator", repository) == before


def test_another_base_image_makes_another_image(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image_digest("operator", repository)
    monkeypatch.setattr("tests.testcluster.base_image.PACKAGES", ("python3",))
    assert image_digest("operator", repository) != before


def test_targets_have_images_of_their_own(repository: Path) -> None:
    assert image_digest("operator", repository) != image_digest("base", repository)


def test_an_unknown_target_is_refused(repository: Path) -> None:
    with pytest.raises(TestClusterError, match=r"no target runtime; there are base, operator\."):
        image_digest("runtime", repository)


@pytest.mark.usefixtures("overlay")
@pytest.mark.parametrize("certificates", [True, False])
def test_a_build_pulls_nothing_and_leaves_nothing_of_this_machine(
    repository: Path, monkeypatch: pytest.MonkeyPatch, certificates: bool
) -> None:
    monkeypatch.setattr(
        "tests.testcluster.dockerfile.CERTIFICATES", CERTIFICATES if certificates else repository / "no"
    )
    command = build_command("operator", "localhost/operator:1", repository)
    build = command[command.index("build") :]
    assert "--pull=never" in build
    assert build[-5:] == ["--target", "operator", "--tag", "localhost/operator:1", str(repository)]
    assert (f"{CERTIFICATES}:{CERTIFICATES}:ro" in build) == certificates
    assert not {argument.partition("=")[0] for argument in build} & {"--env", "--build-arg", "--secret"}


@pytest.mark.usefixtures("overlay")
def test_podman_keeps_everything_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = podman.podman_command("images")
    for option in ("--root", "--runroot", "--tmpdir"):
        assert Path(command[command.index(option) + 1]).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("granted", "given"), [(20_000, 20_000), (1_000_000, 65_536), (resource.RLIM_INFINITY, 65_536)]
)
def test_containers_get_no_more_than_this_machine_grants(
    monkeypatch: pytest.MonkeyPatch, granted: int, given: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (granted, granted))
    assert f"nofile={given}:{given}" in podman.limits()


def test_layers_are_read_from_what_a_build_prints() -> None:
    log = """[1/2] STEP 1/2: FROM docker.io/library/python:3.11-slim-bookworm AS base
--> Using cache 92b3639a56d49f7dd4219d4693efded88937de762b64437bed659ebaa3271cbc
--> 92b3639a56d
[2/2] STEP 1/1: RUN echo "--> 0123456789a"
--> 0123456789a no layer
--> 32de1f55703
Successfully tagged localhost/operator:1
32de1f55703e4ee7fdd3b6db4cf1b5fe8f2c3a7f6a2b1d0c9e8f7a6b5c4d3e2f
"""
    assert named_in(log) == ["92b3639a56d", "32de1f55703"]
