"""What helm makes of the chart, with both of its major versions."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.chart.renderings import (
    CHART,
    CRD,
    DEPLOY,
    GOLDEN,
    ROOT,
    VALUES,
    deploy_files,
    golden_text,
    render,
    template,
)


@pytest.mark.parametrize("name", VALUES)
def test_renderings_are_those_that_are_kept(helm: Path, name: str) -> None:
    assert golden_text(render(helm, name)) == (GOLDEN / f"{name}.yaml").read_text(), (
        "run `python -m tests.unit.chart.renderings` and read the difference"
    )


def test_the_plain_manifests_are_the_default_rendering(helm: Path) -> None:
    kept = {file: (DEPLOY / file).read_text() for file in ("operator.yaml", "configuration.yaml")}
    assert deploy_files(render(helm, "default")) == kept, "run `python -m tests.unit.chart.renderings`"


@pytest.mark.parametrize(("name", "policy"), [("default", "keep"), ("namespaces", None), ("everything", "keep")])
def test_the_definition_is_that_of_the_plain_manifest(helm: Path, name: str, policy: str | None) -> None:
    (found,) = (manifest for manifest in render(helm, name) if manifest["kind"] == CRD)
    expected = yaml.safe_load((ROOT / "crds" / "distill-operator.io_distilljobs.yaml").read_text())
    assert found["spec"] == expected["spec"]
    assert found["metadata"]["name"] == expected["metadata"]["name"]
    assert found["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == policy


def test_the_definition_may_be_left_out(helm: Path) -> None:
    assert not [manifest for manifest in template(helm, "--set", "crd.install=false") if manifest["kind"] == CRD]


@pytest.mark.parametrize(
    "values", [path for path in VALUES.values() if path] + [CHART / "values.yaml"], ids=lambda it: it.stem
)
def test_the_chart_passes_the_strict_lint(helm: Path, values: Path) -> None:
    ended = subprocess.run(
        [str(helm), "lint", "--strict", str(CHART), "--values", str(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 2}, "replica"),
        ({"pods": {"teacher": {"memroy": "8Gi"}}}, "memroy"),
        ({"pods": {"student": {"memory": "lots"}}}, "memory"),
        ({"metrics": {"enabled": True}}, "enabled"),
        ({"image": {"digest": "1234"}}, "digest"),
        ({"maxRunningJobs": 0}, "maxRunningJobs"),
        ({"log": {"level": "loud"}}, "level"),
        ({"replicas": 2, "leaderElection": {"enabled": False}}, "more than one needs leaderElection.enabled: true"),
        (
            {"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}},
            "needs metrics.service.enabled: true",
        ),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_wrong_values_are_refused_by_name(helm: Path, tmp_path: Path, values: dict[str, object], words: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=words):
        template(helm, "--values", str(file))


def test_older_kubernetes_is_refused(helm: Path) -> None:
    with pytest.raises(ValueError, match=r"incompatible with Kubernetes v1\.33"):
        template(helm, "--kube-version", "1.33.4")


def test_builds_of_vendors_are_accepted(helm: Path) -> None:
    assert template(helm, "--kube-version", "v1.34.1-gke.1000")


@pytest.mark.parametrize(
    ("release", "namespace", "names"),
    [
        (
            "distill-operator",
            "distill-operator",
            {"distill-operator", "distill-operator-edit", "distill-operator-view"},
        ),
        ("ml", "team", {"team-ml-distill-operator", "team-ml-distill-operator-edit", "team-ml-distill-operator-view"}),
    ],
)
def test_releases_do_not_meet_in_what_belongs_to_the_cluster(
    helm: Path, release: str, namespace: str, names: set[str]
) -> None:
    rendered = template(helm, release=release, namespace=namespace)
    found = {manifest["metadata"]["name"] for manifest in rendered if manifest["kind"] == "ClusterRole"}
    assert found == names
