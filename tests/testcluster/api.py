"""Reading from the API server as the admin, without a client library: for waiting until a cluster is up."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from tests.testcluster.credentials import ADMIN, AUTHORITY, pki_folder
from tests.testcluster.state import ClusterState

REQUEST_SECONDS = 5.0


class AdminApi:
    """GET requests with all rights."""

    def __init__(self, root: Path, state: ClusterState) -> None:
        self._endpoints = state.endpoints
        self._context = ssl.create_default_context(cafile=str(pki_folder(root) / f"{AUTHORITY}.crt"))
        self._context.load_cert_chain(pki_folder(root) / f"{ADMIN}.crt", pki_folder(root) / f"{ADMIN}.key")

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        return self._get("/readyz")[0] == http.HTTPStatus.OK

    def read(self, path: str) -> dict[str, Any] | None:
        """The object at a path; None while there is none, or nobody answers."""
        status, body = self._get(path)
        return json.loads(body) if status == http.HTTPStatus.OK else None

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            self._endpoints.address, self._endpoints.port, context=self._context, timeout=REQUEST_SECONDS
        )
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()
