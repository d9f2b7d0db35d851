"""The programs of a test cluster: what they are made from and where they are kept."""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.testcluster.errors import TestClusterError

MODULES = Path(__file__).parent / "go"
KUBERNETES_VARIABLE = "TESTCLUSTER_KUBERNETES"
"""Chooses the Kubernetes release by its minor version, as in `1.34`."""
KUBERNETES_MODULES = {"1.37": "kube", "1.34": "kube-1.34"}
"""The folder of each release: the newest and the oldest that is supported."""
NEWEST_KUBERNETES = "1.37"
FEATURE_GATES: dict[str, dict[str, bool]] = {"1.34": {"ImageVolume": True}}
"""What jobs may use and a release has off by default: the first release that has it on is said in the docs."""
KUBERNETES_LINKS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "etcd",
)
"""The names under which the program `kube` is the program of that name."""


@dataclass(frozen=True)
class Program:
    """A program that is built from one of the modules in `go/`."""

    name: str
    module: str
    """Folder of the module."""
    package: str
    """What is built, as `go build` takes it."""
    pinned: str | None
    """The requirement in the module's go.mod that says which version this is; None for a program of our own."""
    minutes: int
    """How long a build takes without anything in Go's cache, on two cores."""
    version_variables: tuple[str, ...] = ()
    """Go variables that get the version."""
    kubernetes_version_packages: tuple[str, ...] = ()
    """Go packages that get the version as Kubernetes' programs have it."""

    @cached_property
    def version(self) -> str:
        """The version that go.mod pins."""
        if self.pinned is None:
            return "of this repository"
        text = (MODULES / self.module / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(self.pinned)} (v\S+)", text, re.MULTILINE)
        if found is None:
            raise TestClusterError(f"{MODULES / self.module / 'go.mod'} pins no version of {self.pinned}.")
        return found[1]

    @property
    def folder(self) -> Path:
        """Where the program is kept: Kubernetes by version, so that there can be several; the rest together."""
        return cache_folder() / "kube" / (self.version if self.kubernetes_version_packages else "tools")

    @property
    def path(self) -> Path:
        """The program's file."""
        return self.folder / self.name

    def linker_flags(self) -> str:
        """No debug information, and the version where it belongs."""
        flags = ["-s", "-w", *(f"-X {variable}={self.version}" for variable in self.version_variables)]
        for package in self.kubernetes_version_packages:
            major, minor, _ = self.version.removeprefix("v").split(".", 2)
            flags += [
                f"-X {package}.gitVersion={self.version}",
                f"-X {package}.gitMajor={major}",
                f"-X {package}.gitMinor={minor}",
                f"-X {package}.gitTreeState=clean",
            ]
        return " ".join(flags)

    def digest(self) -> str:
        """Identifies everything that the build reads, but for the compiler."""
        digest = hashlib.sha256(f"{self.package} {self.linker_flags()}".encode())
        for source in sorted((MODULES / self.module).rglob("*")):
            if source.suffix in (".go", ".mod", ".sum"):
                digest.update(source.read_bytes())
        return digest.hexdigest()


def cache_folder() -> Path:
    """The project's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distill-operator"


def kubernetes() -> Program:
    """The program that is all of Kubernetes and etcd, of the release that `TESTCLUSTER_KUBERNETES` names."""
    minor = os.environ.get(KUBERNETES_VARIABLE) or NEWEST_KUBERNETES
    if minor not in KUBERNETES_MODULES:
        known = ", ".join(KUBERNETES_MODULES)
        raise TestClusterError(f"{KUBERNETES_VARIABLE} is {minor}, which doesn't build here: choose one of {known}.")
    return Program(
        name="kube",
        module=KUBERNETES_MODULES[minor],
        package=".",
        pinned="k8s.io/kubernetes",
        minutes=10,
        kubernetes_version_packages=("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
    )


PAUSE = Program("pause", "tools", "./pause", None, 1)
COREDNS = Program("coredns", "tools", "./coredns", "github.com/coredns/coredns", 1)
HELM_4 = Program(
    "helm",
    "tools",
    "helm.sh/helm/v4/cmd/helm",
    "helm.sh/helm/v4",
    3,
    version_variables=("helm.sh/helm/v4/internal/version.version",),
)
HELM_3 = Program(
    "helm3",
    "helm3",
    "helm.sh/helm/v3/cmd/helm",
    "helm.sh/helm/v3",
    3,
    version_variables=("helm.sh/helm/v3/internal/version.version",),
)
KUBE_ROUTER = Program(
    "kube-router",
    "kube-router",
    "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
    "github.com/cloudnativelabs/kube-router/v2",
    3,
)
KWOK = Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", "sigs.k8s.io/kwok", 3)


def feature_gates(version: str) -> dict[str, bool]:
    """The gates to set where the servers are of this version, such as `v1.34.4`."""
    return FEATURE_GATES.get(version.removeprefix("v").rpartition(".")[0], {})


def all_programs() -> dict[str, Program]:
    """Every program that can be built, by name."""
    return {program.name: program for program in (kubernetes(), PAUSE, COREDNS, HELM_4, HELM_3, KUBE_ROUTER, KWOK)}
