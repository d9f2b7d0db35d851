"""A cluster as a platform team runs it: the operator from its chart, a store, and namespaces in which jobs can run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fixtures.s3 import S3Server, start_server
from tests.testcluster.cluster import Cluster
from tests.testcluster.commands import run
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.network import Network
from tests.testcluster.node import GPU_RESOURCE
from tests.testcluster.programs import HELM_4
from tests.testcluster.runtime_environment import RUNTIME_IMAGE, claims, pod_volumes, write_runtime_image

CHART = Path(__file__).parents[2] / "charts" / "distill-operator"
RELEASE = "distill-operator"
"""Name of the release and of its namespace."""
SECRET = "s3-credentials"
BUCKET = "distill"
"""Where jobs keep what they make."""
INSTALL_SECONDS = 120


class Platform:
    """Such a cluster that is up."""

    def __init__(self, cluster: Cluster, store: S3Server, packages: Path, operator_image: str) -> None:
        self.cluster = cluster
        self.store = store
        self.kubectl: Kubectl = cluster.control_plane.kubectl()
        self._packages = packages
        self._operator_image = operator_image
        self._values = cluster.root / "values.json"

    def install_operator(self, changes: Mapping[str, Any] | None = None) -> None:
        """Installs the chart, or upgrades it, with changes to the values, and waits until the operator is ready."""
        self._values.write_text(json.dumps({**self.values(), **(changes or {})}))
        run(
            str(HELM_4.path),
            *("upgrade", "--install", RELEASE, str(CHART), "--namespace", RELEASE, "--create-namespace"),
            *("--values", str(self._values), "--wait", f"--timeout={INSTALL_SECONDS}s"),
            environment={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.cluster.root),
                "KUBECONFIG": str(self.cluster.control_plane.kubeconfig),
            },
        )

    def values(self) -> dict[str, Any]:
        """The chart's values: the images, and what the pods of each role get."""
        repository, _, tag = self._operator_image.rpartition(":")
        runtime, _, runtime_tag = RUNTIME_IMAGE.rpartition(":")
        return {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "runtimeImage": {"repository": runtime, "tag": runtime_tag, "pullPolicy": "Never"},
            "progressSeconds": 1,
            # Drills drain and lose the students' node.
            "nodeSelector": {"pool": "teacher"},
            "pods": {
                "prepare": self._pods("student"),
                "teacher": self._pods("teacher", gpus=1),
                "student": self._pods("student", gpus=1),
                "evaluate": self._pods("student"),
            },
        }

    def _pods(self, pool: str, gpus: int = 0) -> dict[str, Any]:
        """Pods of a pool. Its GPUs are no real ones: jobs say `gpus: 0`, and the devices are asked for here."""
        return {
            "nodeSelector": {"pool": pool},
            "volumes": pod_volumes(self._packages),
            "extraResources": {GPU_RESOURCE: str(gpus)} if gpus else {},
        }

    def make_namespace(self, name: str, *, secret: str = SECRET) -> str:
        """A namespace whose pods must be `restricted`, with the claims of the runtime and the store's credentials."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl.create([namespace])
        self.kubectl.create([*claims(self._packages, name), self._secret(secret, name)])
        return name

    def _secret(self, name: str, namespace: str) -> dict[str, Any]:
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        known = self.store.environment()
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {key: known[key] for key in keys},
        }

    def remove_namespace(self, name: str) -> None:
        """Removes it with its volumes; nobody waits for it."""
        self.kubectl("delete", "namespace", name, "--wait=false")
        volumes = [claim["metadata"]["name"] for claim in claims(self._packages, name) if "capacity" in claim["spec"]]
        self.kubectl("delete", "persistentvolume", *volumes, "--wait=false")

    def serve_store(self, namespace: str, service: str, port: int) -> None:
        """Gives the store a name and a port of the cluster: `http://SERVICE.NAMESPACE.svc:PORT`."""
        host, _, own_port = self.store.endpoint.removeprefix("http://").partition(":")
        ports = {"name": "s3", "protocol": "TCP"}
        self.kubectl.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        self.kubectl.create(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": service, "namespace": namespace},
                    "spec": {"ports": [{**ports, "port": port}]},
                },
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": service,
                        "namespace": namespace,
                        "labels": {"kubernetes.io/service-name": service},
                    },
                    "addressType": "IPv4",
                    "ports": [{**ports, "port": int(own_port)}],
                    "endpoints": [{"addresses": [host]}],
                },
            ]
        )

    def upload(self, files: Mapping[str, Path | bytes], prefix: str) -> str:
        """Puts files, or the files of folders, into the store, and returns the URI of the prefix."""
        client = self.store.client()
        for name, content in files.items():
            for key, data in _objects(name, content):
                client.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=data)
        return f"s3://{BUCKET}/{prefix}"

    def download(self, uri: str) -> bytes:
        """The object with this URI."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return self.store.client().get_object(Bucket=bucket, Key=key)["Body"].read()


def _objects(name: str, content: Path | bytes) -> Iterator[tuple[str, bytes]]:
    if isinstance(content, bytes):
        yield name, content
    elif content.is_dir():
        for path in sorted(content.rglob("*")):
            if path.is_file():
                yield f"{name}/{path.relative_to(content)}", path.read_bytes()
    else:
        yield name, content.read_bytes()


@contextmanager
def platform(
    cluster: Cluster,
    operator_image: Path,
    operator_tag: str,
    packages: Path,
    changes: Mapping[str, Any] | None = None,
) -> Iterator[Platform]:
    """Makes a platform of a cluster that is up: images, store, operator, with changes to the chart's values.

    It goes when the cluster is taken down.
    """
    archives: Sequence[Path] = (operator_image, write_runtime_image(cluster.root / "images" / "runtime.tar"))
    for node in cluster.nodes.values():
        node.load_images(archives)
    assert cluster.state.network is not None, "a platform needs a cluster with nodes"
    store = start_server(cluster.root / "store", Network(cluster.state.network).host)
    try:
        store.client().create_bucket(Bucket=BUCKET)
        made = Platform(cluster, store, packages, operator_tag)
        made.install_operator(changes)
        yield made
    finally:
        store.stop()
