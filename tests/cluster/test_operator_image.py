"""The operator's image of the Dockerfile, in a pod as the level `restricted` and a read-only root let it be."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from distill_operator.__main__ import WRONG_CONFIGURATION
from distill_runtime.contract.outcome import ExitCode
from tests.testcluster.dockerfile import REPOSITORY, ImageArchive
from tests.testcluster.kubectl import Kubectl

LARGEST_MEGABYTES = 350
"""Uncompressed: 130 of the base image, 115 of the Kubernetes client. torch would add a gigabyte."""
END_SECONDS = 60
MANIFEST_FOLDER = "/manifest"
LOOK_AROUND = """
import importlib.util, json, os, pathlib, shutil

def refusal(path):
    try:
        pathlib.Path(path).write_text("")
    except OSError as error:
        return error.strerror

print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "distillctl": shutil.which("distillctl"),
    "found": [name for name in ("torch", "vllm", "deepspeed", "transformers") if importlib.util.find_spec(name)],
    "writing": {path: refusal(path) for path in ("/written", "/opt/venv/written", "/tmp/written")},
}))
"""


def pod(image: str, command: Sequence[str] | None) -> dict[str, Any]:
    """A pod that runs a command, or the image's own, as the image's user, with manifests and an empty /tmp."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        **({"command": command} if command else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "manifest", "mountPath": MANIFEST_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "manifest", "configMap": {"name": "manifest"}}, {"name": "scratch", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "main"}, "spec": spec}


def run_to_end(kubectl: Kubectl, namespace: str, image: str, command: Sequence[str] | None = None) -> tuple[int, str]:
    """Exit code and output of such a pod."""
    kubectl.create(pod(image, command), "-n", namespace)
    ended = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
    kubectl("wait", "pod/main", ended, f"--timeout={END_SECONDS}s", "-n", namespace)
    status = kubectl.json("get", "pod", "main", "-n", namespace)["status"]
    code = status["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    return code, kubectl("logs", "main", "-n", namespace)


@pytest.fixture
def with_manifest(kubectl: Kubectl, namespace: str) -> str:
    """A namespace with a ConfigMap of two manifests, of which one is wrong."""
    example = (REPOSITORY / "examples" / "distilljob-cluster.yaml").read_text()
    wrong = "apiVersion: distill-operator.io/v1alpha1\nkind: DistillJob\nmetadata: {name: wrong}\nspec: {teacher: {}}\n"
    data = {"job.yaml": example, "wrong.yaml": wrong}
    kubectl.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "manifest"}, "data": data}, "-n", namespace
    )
    return namespace


def test_it_runs_as_another_user_than_root_on_a_read_only_root_without_engines(
    kubectl: Kubectl, with_manifest: str, operator_image_on_nodes: str
) -> None:
    code, output = run_to_end(kubectl, with_manifest, operator_image_on_nodes, ["python", "-c", LOOK_AROUND])
    assert code == 0, output
    read_only = "Read-only file system"
    assert json.loads(output) == {
        "user": [65532, 65532],
        "distillctl": "/opt/venv/bin/distillctl",
        "found": [],
        "writing": {"/written": read_only, "/opt/venv/written": read_only, "/tmp/written": None},
    }


@pytest.mark.parametrize(
    ("manifest", "code", "said"),
    [("job.yaml", ExitCode.FINISHED, " is valid."), ("wrong.yaml", ExitCode.USER_ERROR, "spec.teacher.model")],
)
def test_distillctl_checks_a_manifest(
    kubectl: Kubectl, with_manifest: str, operator_image_on_nodes: str, manifest: str, code: int, said: str
) -> None:
    command = ["distillctl", "validate", f"{MANIFEST_FOLDER}/{manifest}"]
    ended, output = run_to_end(kubectl, with_manifest, operator_image_on_nodes, command)
    assert ended == code, output
    assert said in output


def test_its_entrypoint_is_the_operator(kubectl: Kubectl, with_manifest: str, operator_image_on_nodes: str) -> None:
    code, output = run_to_end(kubectl, with_manifest, operator_image_on_nodes)
    assert code == WRONG_CONFIGURATION
    assert "/etc/distill-operator/configuration.yaml" in output


def test_it_is_small(operator_image: ImageArchive) -> None:
    assert operator_image.path.stat().st_size < LARGEST_MEGABYTES * 10**6
