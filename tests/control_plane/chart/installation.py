"""helm against a control plane, and what the tests of the chart install with it."""

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.testcluster.commands import run
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.processes import ROOT_VARIABLE
from tests.testcluster.waiting import wait_until
from tests.unit.chart.renderings import CHART, CRD, RELEASE, template

NAMESPACE = RELEASE
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
"""The operator's service account, as a user."""
CRD_NAME = "distilljobs.distill-operator.io"
JOB: dict[str, Any] = {
    "apiVersion": "distill-operator.io/v1alpha1",
    "kind": "DistillJob",
    "metadata": {"name": "qwen3-4b"},
    "spec": {
        "teacher": {"model": "hf://Qwen/Qwen3-32B"},
        "student": {"model": "hf://Qwen/Qwen3-4B"},
        "data": {"train": "s3://corp/train.jsonl"},
        "storage": {"uri": "s3://distill", "secretName": "s3-credentials"},
        "policy": {"stallTimeoutSeconds": 1234},
    },
}


class Request(NamedTuple):
    """Something that a user may do or not."""

    verb: str
    resource: str
    """As `group/resource/subresource`; the core group is empty."""
    namespace: str = ""
    name: str = ""

    def attributes(self) -> dict[str, str]:
        """The same for a SubjectAccessReview."""
        group, _, rest = self.resource.partition("/")
        plural, _, subresource = rest.partition("/")
        given = {"verb": self.verb, "group": group, "resource": plural, "subresource": subresource}
        return {**given, "namespace": self.namespace, "name": self.name}


class Helm:
    """Runs helm as the admin. What it keeps beside the cluster is in a folder of the test."""

    def __init__(self, program: Path, control_plane: ControlPlane, home: Path) -> None:
        self.program = program
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(control_plane.kubeconfig),
            ROOT_VARIABLE: str(control_plane.root),
            **{f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")},
        }

    def __call__(self, *arguments: str) -> str:
        """Runs helm and returns what it wrote; an error carries its message."""
        return run(str(self.program), *arguments, environment=self._environment)


def make_restricted_namespace(kubectl: Kubectl, name: str) -> None:
    """A namespace whose pods must be `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def older_chart(helm: Path, folder: Path) -> Path:
    """The chart as an earlier version would have been: its definition doesn't know `spec.policy`."""
    chart = folder / "older" / CHART.name
    shutil.copytree(CHART, chart)
    (definition,) = (manifest for manifest in template(helm) if manifest["kind"] == CRD)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["policy"]
    # Rules name the fields that they are about.
    schema.pop("x-kubernetes-validations")
    schema["properties"]["spec"].pop("x-kubernetes-validations", None)
    text = yaml.safe_dump(definition, sort_keys=False).replace("{{", '{{ "{{" }}')
    (chart / "templates" / "crd.yaml").write_text(text)
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(about.replace("version: 0.1.0", "version: 0.0.9", 1))
    return chart


def bind(kubectl: Kubectl, user: str, role: str, namespace: str) -> None:
    """Gives a user one of Kubernetes' own roles in a namespace."""
    kubectl(
        "create", "rolebinding", f"{user}-{role}", f"--clusterrole={role}", f"--user={user}", f"--namespace={namespace}"
    )


def allowed(kubectl: Kubectl, user: str, requests: Sequence[Request]) -> list[bool]:
    """Whether a user may do each of several things."""
    reviews: list[Mapping[str, Any]] = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups_of(user), "resourceAttributes": request.attributes()},
        }
        for request in requests
    ]
    answers = kubectl.create(reviews, "-o", 'jsonpath={.status.allowed}{"\\n"}').split()
    return [{"true": True, "false": False}[answer] for answer in answers]


def may(kubectl: Kubectl, user: str, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
    """Whether a user may do one thing."""
    (answer,) = allowed(kubectl, user, [Request(verb, resource, namespace, name)])
    return answer


def wait_until_allowed(kubectl: Kubectl, user: str, requests: Sequence[Request]) -> None:
    """Waits until a user may do all of this: the API server hears of new roles a moment later."""
    wait_until(f"the rights of {user}", lambda: all(allowed(kubectl, user, requests)))


def groups_of(user: str) -> list[str]:
    """The groups that the API server gives to a user."""
    if not user.startswith("system:serviceaccount:"):
        return ["system:authenticated"]
    namespace = user.split(":")[2]
    return ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"]


def wait_for_pods_of_operator(kubectl: Kubectl, namespace: str = NAMESPACE) -> list[Any]:
    """The operator's pods, once the ReplicaSet was allowed to make them; no node runs them here."""

    def pods() -> list[Any]:
        return kubectl.json(
            "get", "pods", f"--namespace={namespace}", "--selector=app.kubernetes.io/name=distill-operator"
        )["items"]

    return wait_until("the operator's pods", pods)


def token_kubeconfig(control_plane: ControlPlane, account: str, namespace: str) -> Path:
    """A kubeconfig with the token of a service account."""
    token = control_plane.kubectl()("create", "token", account, f"--namespace={namespace}").strip()
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = control_plane.root / f"token-{secrets.token_hex(4)}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
