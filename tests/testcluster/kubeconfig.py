"""Kubeconfig files."""

import base64
import json
from pathlib import Path

from tests.testcluster.pki import KeyPair, write_private

CONTEXT = "distill-testcluster"
"""Name of the context and of the cluster in every file."""


def write_kubeconfig(path: Path, *, server: str, authority: bytes, user: str, credentials: KeyPair) -> None:
    """Writes the kubeconfig of a user that a client certificate names."""

    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [
            {"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": encoded(authority)}}
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(credentials.certificate),
                    "client-key-data": encoded(credentials.key),
                },
            }
        ],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, json.dumps(config, indent=1).encode())
