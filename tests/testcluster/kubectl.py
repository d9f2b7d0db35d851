"""kubectl as tests use it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.testcluster.commands import run
from tests.testcluster.processes import ROOT_VARIABLE

Manifest = str | Mapping[str, Any] | list[Mapping[str, Any]]
"""YAML text, one object, or several."""


class Kubectl:
    """Runs kubectl as one user. What it caches is in the cluster's folder, not in the home folder."""

    def __init__(self, program: Path, kubeconfig: Path, root: Path) -> None:
        self._program = program
        self._root = root
        self.kubeconfig = kubeconfig

    def __call__(self, *arguments: str, input_text: str | None = None) -> str:
        """Runs kubectl and returns what it wrote; an error carries its message."""
        return run(*self.command(*arguments), input_text=input_text, environment=self.environment)

    def command(self, *arguments: str) -> list[str]:
        """The command line, for what doesn't end at once; it needs `environment`."""
        return [str(self._program), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """What kubectl is told by its environment."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self._root / "kubectl-cache"),
            ROOT_VARIABLE: str(self._root),
        }

    def json(self, *arguments: str, input_text: str | None = None) -> Any:
        """The same with `-o json`, read."""
        return json.loads(self(*arguments, "-o", "json", input_text=input_text))

    def apply(self, manifest: Manifest, *arguments: str) -> str:
        """`kubectl apply` of objects, with further arguments such as `-n`, a namespace or `--server-side`."""
        return self("apply", "-f", "-", *arguments, input_text=_text(manifest))

    def create(self, manifest: Manifest, *arguments: str) -> str:
        """`kubectl create` of objects."""
        return self("create", "-f", "-", *arguments, input_text=_text(manifest))


def _text(manifest: Manifest) -> str:
    if isinstance(manifest, str):
        return manifest
    if isinstance(manifest, list):
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifest})
    return json.dumps(manifest)
