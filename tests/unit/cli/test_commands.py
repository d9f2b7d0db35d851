"""`distillctl` as a user calls it, where no job is run."""

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from distill_operator.cli.app import app
from tests.unit.api.manifest import SMALLEST, changed


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def manifest(folder: Path, document: Any) -> str:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_validate_tells_every_error_and_ends_65(tmp_path: Path) -> None:
    document = changed("spec.training", {"globalBatch": 0, "packin": True})
    document["spec"]["teacher"]["gpus"] = "two"
    path = manifest(tmp_path, document)
    result = call("validate", path)
    assert result.exit_code == 65
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f'{path}: spec.teacher.gpus: must be a whole number, got "two"',
        f"{path}: spec.training.globalBatch: must be at least 1, got 0",
        f"{path}: spec.training.packin: is not a known field; did you mean packing?",
        "3 errors.",
    ]


def test_run_refuses_the_same_way_and_leaves_nothing_behind(tmp_path: Path) -> None:
    result = call("run", manifest(tmp_path, changed("spec.data", {})), "--folder", str(tmp_path / "run"))
    assert result.exit_code == 65
    assert "spec.data: give exactly one of train and sources" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_valid_job_is_said_to_be_valid(tmp_path: Path) -> None:
    result = call("validate", manifest(tmp_path, SMALLEST))
    assert result.exit_code == 0
    assert "DistillJob default/job is valid" in result.stdout


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_manifest_that_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    result = call(command, str(tmp_path / "absent.yaml"))
    assert result.exit_code == 65
    assert result.stderr == f"{tmp_path}/absent.yaml can't be read: No such file or directory\n"


def test_a_manifest_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    assert "it is not UTF-8 text" in call("validate", str(tmp_path / "job.yaml")).stderr


def test_run_refuses_volumes_of_a_cluster(tmp_path: Path) -> None:
    result = call("run", manifest(tmp_path, changed("spec.teacher.model", "pvc://models/big")))
    assert result.exit_code == 65
    assert "spec.teacher.model: pvc://models/big is a volume of a cluster" in result.stderr


def test_run_refuses_a_suspended_job(tmp_path: Path) -> None:
    result = call("run", manifest(tmp_path, changed("spec.suspend", True)))
    assert result.exit_code == 65
    assert "spec.suspend: is true" in result.stderr


def test_too_few_gpus_are_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = call("run", manifest(tmp_path, SMALLEST), "--folder", str(tmp_path / "run"))
    assert result.exit_code == 65
    assert "this job needs 2 GPUs" in result.stderr
    assert list((tmp_path / "run" / "logs").iterdir()) == []


def test_version_is_the_distributions() -> None:
    assert call("version").stdout.strip() == importlib.metadata.version("distill-operator")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_explains_with_an_example(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 0
    assert "distillctl run" in result.stdout
