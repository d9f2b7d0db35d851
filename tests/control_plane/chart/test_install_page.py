"""The commands of docs/install.md, run in their order on a real API server."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.testcluster.control_plane import ControlPlane
from tests.unit.chart.renderings import RELEASE, ROOT, template

PAGE = (ROOT / "docs" / "install.md").read_text()
VALUES = re.findall(r"^```yaml values\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
KUSTOMIZATION = re.findall(r"^```yaml kustomization\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def checkout(folder: Path, values: str) -> Path:
    """A folder that has what the commands read, so that nothing is written into the repository."""
    for name in ("charts", "crds", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "values.yaml").write_text(values)
    return folder


def environment(helm: Path, control_plane: ControlPlane, folder: Path) -> dict[str, str]:
    """Both programs under the names that the page has, and the cluster."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "helm").symlink_to(helm)
    (programs / "kubectl").symlink_to(control_plane.state.programs / "kubectl")
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECONFIG": str(control_plane.kubeconfig),
        "HOME": str(folder),
        "KUBECACHEDIR": str(folder / "kubectl-cache"),
    }


def test_the_commands_of_the_page_work_in_their_order(
    helm: Path, fresh_control_plane: ControlPlane, tmp_path: Path
) -> None:
    variables = environment(helm, fresh_control_plane, tmp_path)
    folder = checkout(tmp_path, VALUES[0])
    assert {command.split()[0] for command in COMMANDS} == {"helm", "kubectl"}
    for command in COMMANDS:
        ended = subprocess.run(
            command.split(), cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=300
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_the_values_of_the_page_are_accepted(helm: Path, tmp_path: Path, values: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(values)
    assert template(helm, "--values", str(file))


def test_the_kustomization_of_the_page_changes_image_and_configuration(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    for name in ("crds", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)
    mine = tmp_path / "mine"
    mine.mkdir()
    (text,) = KUSTOMIZATION
    (mine / "kustomization.yaml").write_text(text)
    (mine / "configuration.yaml").write_text("runtimeImage: registry.example.com/ml/runtime:1\n")
    built = list(yaml.safe_load_all(control_plane.kubectl()("kustomize", str(mine))))
    (deployment,) = (it for it in built if it["kind"] == "Deployment")
    (config_map,) = (it for it in built if it["kind"] == "ConfigMap")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == f"registry.example.com/ml/{RELEASE}/operator:0.1.0"
    assert pod["volumes"][0]["configMap"]["name"] == config_map["metadata"]["name"]
    assert "registry.example.com" in config_map["data"]["configuration.yaml"]
