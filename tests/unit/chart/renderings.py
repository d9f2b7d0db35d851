"""What the chart renders, kept as files. `python -m tests.unit.chart.renderings` writes them anew; read the difference.

- `golden/`: all objects but the CRD, for each file of `values/` and for the defaults.
- `deploy/`: the defaults once more, for `kubectl apply -k deploy`.
"""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.testcluster.build import build
from tests.testcluster.programs import HELM_4

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "distill-operator"
DEPLOY = ROOT / "deploy"
HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
VALUES = {"default": None, "everything": HERE / "values/everything.yaml", "namespaces": HERE / "values/namespaces.yaml"}
"""The renderings, and the values of each."""
RELEASE = "distill-operator"
"""Name of the release and of its namespace."""
CRD = "CustomResourceDefinition"
HELM_LABELS = ("app.kubernetes.io/managed-by", "helm.sh/chart")
CHECKSUM = "checksum/configuration"
GENERATED = "# Written from the chart by `python -m tests.unit.chart.renderings`; don't edit it.\n"

Manifest = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such: the configuration is read by people who compare versions."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _dump(manifests: list[Manifest]) -> str:
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120)


def template(helm: Path, *arguments: str, release: str = RELEASE, namespace: str = RELEASE) -> list[Manifest]:
    """All objects that `helm template` gives for arguments."""
    command = [str(helm), "template", release, str(CHART), "--namespace", namespace, "--kube-version", "1.34.0"]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ValueError(ended.stderr)
    found = [manifest for manifest in yaml.safe_load_all(ended.stdout) if manifest]
    return sorted(found, key=lambda it: (it["kind"], it["metadata"].get("namespace", ""), it["metadata"]["name"]))


def render(helm: Path, name: str) -> list[Manifest]:
    """All objects of one rendering."""
    values = VALUES[name]
    return template(helm, *(["--values", str(values)] if values else []))


def golden_text(manifests: list[Manifest]) -> str:
    """The file of a rendering. The CRD has a file and tests of its own."""
    return _dump([it for it in manifests if it["kind"] != CRD])


def configuration(manifests: list[Manifest]) -> str:
    """The operator's configuration file in a rendering."""
    (found,) = (it for it in manifests if it["kind"] == "ConfigMap")
    return found["data"]["configuration.yaml"]


def deploy_files(manifests: list[Manifest]) -> dict[str, str]:
    """The files that `deploy/kustomization.yaml` puts together, from the default rendering.

    The CRD comes from `crds/`, and the ConfigMap is made by kustomize, whose name for it changes with its content: that
    stands for the chart's checksum.
    """
    objects = [it for it in manifests if it["kind"] not in (CRD, "ConfigMap")]
    for manifest in objects:
        for label in HELM_LABELS:
            manifest["metadata"]["labels"].pop(label)
        if manifest["kind"] == "Deployment":
            manifest["spec"]["template"]["metadata"]["annotations"].pop(CHECKSUM)
    return {
        "operator.yaml": GENERATED + _dump(objects),
        "configuration.yaml": GENERATED + configuration(manifests),
    }


def main() -> None:
    build([HELM_4], print)
    GOLDEN.mkdir(exist_ok=True)
    for name in VALUES:
        (GOLDEN / f"{name}.yaml").write_text(golden_text(render(HELM_4.path, name)))
    for file, text in deploy_files(render(HELM_4.path, "default")).items():
        (DEPLOY / file).write_text(text)


if __name__ == "__main__":
    main()
