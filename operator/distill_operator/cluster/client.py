"""One connection to the API server: requests and watches on plain data, with time-outs, counted, errors of one type.

The client library gives the configuration (a pod's service account or a kubeconfig), TLS and tokens. Its typed API
classes are left aside: they cost 100 MiB and seconds, and every kind that is touched here is known.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import aiohttp
from kubernetes.aio import config as cluster_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException

from distill_operator.cluster.errors import CONFLICT, CONNECTION, NOT_FOUND, SILENT, ClusterError
from distill_operator.cluster.objects import Object
from distill_operator.cluster.resources import Resource
from distill_operator.constants import FIELD_MANAGER
from distill_operator.metrics import API_CALLS

REQUEST_SECONDS = 30.0
"""Longest time that a request may take."""
CONNECT_SECONDS = 10.0
"""Longest time until a connection is there."""
PAGE = 500
"""Objects of one answer to a list."""

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

Query = Mapping[str, str | int]


class NoCluster(Exception):
    """There is no API server to talk to: neither a pod's service account nor a kubeconfig."""


class Connection(NamedTuple):
    """What another client needs to talk to the same API server as the same user."""

    server: str
    authority: str | None
    """Path of the certificate authority."""
    certificate: str | None
    key: str | None
    authorization: str | None
    """Scheme and token."""
    verify: bool


class ObjectList(NamedTuple):
    """An answer to a list."""

    items: list[Object]
    version: str
    """Where a watch goes on."""


class Client:
    """Requests as one user."""

    def __init__(self, configuration: Configuration) -> None:
        # Watches hold connections; a limit would let them starve requests.
        configuration.connection_pool_maxsize = 0
        self._configuration = configuration
        self._api = ApiClient(configuration)
        self._api.user_agent = FIELD_MANAGER

    @classmethod
    async def connect(cls) -> Self:
        """As the kubeconfig of `KUBECONFIG` says, else as the pod's service account, else as the default kubeconfig.

        Raises
        ------
        NoCluster
            There is none of them, or it can't be used.
        """
        configuration = Configuration()
        load = cast("Any", cluster_config)
        try:
            if "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
                load.load_incluster_config(client_configuration=configuration)
            else:
                file = os.environ.get("KUBECONFIG") or None
                await load.load_kube_config(file, client_configuration=configuration, persist_config=False)
        except (ConfigException, OSError) as error:
            raise NoCluster(
                f"No cluster to work on: {error}. Run in a pod with a service account, or set KUBECONFIG."
            ) from error
        return cls(configuration)

    async def close(self) -> None:
        """Ends all connections."""
        await self._api.close()

    async def connection(self) -> Connection:
        """Where and as whom it connects."""
        settings = cast("Any", self._configuration)
        return Connection(
            server=settings.host,
            authority=settings.ssl_ca_cert or None,
            certificate=settings.cert_file or None,
            key=settings.key_file or None,
            authorization=await settings.get_api_key_with_prefix("BearerToken", alias="authorization"),
            verify=settings.verify_ssl,
        )

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """An object as it is now; None where there is none."""
        try:
            return await self._request("GET", resource, resource.path(namespace, name))
        except ClusterError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        metadata_only: bool = False,
    ) -> ObjectList:
        """All objects of a kind, as they are now."""
        query: dict[str, str | int] = {"limit": PAGE, **_selectors(labels, fields)}
        items: list[Object] = []
        while True:
            accept = METADATA_LIST if metadata_only else JSON
            page = await self._request("GET", resource, resource.path(namespace), query, accept=accept, verb="list")
            items.extend(page.get("items") or [])
            token = page["metadata"].get("continue")
            if not token:
                return ObjectList(items, page["metadata"]["resourceVersion"])
            query["continue"] = token

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        version: str,
        seconds: int,
        silence_seconds: float,
        labels: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[Object]:
        """Events since `version`, bookmarks among them, for `seconds` or until nothing came for `silence_seconds`.

        Raises
        ------
        ClusterError
            The connection broke, was silent for too long, or the history is gone (`expired`).
        """
        query: dict[str, str | int] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": seconds,
            **_selectors(labels, None),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        request = f"watch {resource}"
        try:
            response = await self._send(
                "GET",
                resource,
                resource.path(namespace),
                query,
                accept=METADATA if metadata_only else JSON,
                verb="watch",
                timeout=timeout,
            )
            async with response:
                async for line in _lines(response.content):
                    event: Object = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(request, event["object"], event["object"].get("code", CONNECTION))
                    yield event
        except TimeoutError as error:
            raise ClusterError(request, "nothing was heard", status=CONNECTION, reason=SILENT) from error
        except aiohttp.ClientError as error:
            raise ClusterError(request, _words(error), status=CONNECTION) from error

    async def create(self, resource: Resource, namespace: str, manifest: Object) -> Object:
        """Makes an object; one that is there already is an error of status `CONFLICT`."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("POST", resource, resource.path(namespace), query, body=manifest, verb="create")

    async def apply(self, resource: Resource, manifest: Object, *, force: bool) -> Object:
        """Server-side apply as our field manager."""
        metadata = manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        path = resource.path(metadata["namespace"], metadata["name"])
        return await self._request("PATCH", resource, path, query, body=manifest, content=APPLY, verb="apply")

    async def replace(self, resource: Resource, item: Object, subresource: str | None = None) -> Object:
        """Replaces an object, or its status, as it was read: a newer one is an error of status `CONFLICT`."""
        metadata = item["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PUT", resource, path, query, body=item, verb="update")

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str, grace_seconds: int | None = None
    ) -> None:
        """Deletes the object of this uid, and in the background what it owns. One that is gone already is fine."""
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
            **({} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}),
        }
        try:
            await self._request("DELETE", resource, resource.path(namespace, name), body=options, verb="delete")
        except ClusterError as error:
            # A conflict says that the name is another object's by now.
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    async def read(self, path: str) -> Object:
        """A document of the API server itself, such as discovery."""
        return await self._request("GET", None, path)

    async def _request(
        self,
        method: str,
        resource: Resource | None,
        path: str,
        query: Query | None = None,
        *,
        body: Object | None = None,
        content: str = JSON,
        accept: str = JSON,
        verb: str = "get",
    ) -> Object:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        request = f"{verb} {path}"
        try:
            response = await self._send(
                method, resource, path, query, body=body, content=content, accept=accept, verb=verb, timeout=timeout
            )
            async with response:
                return json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
            raise ClusterError(request, _words(error), status=CONNECTION) from error

    async def _send(
        self,
        method: str,
        resource: Resource | None,
        path: str,
        query: Query | None,
        *,
        verb: str,
        timeout: aiohttp.ClientTimeout,
        accept: str,
        body: Object | None = None,
        content: str = JSON,
    ) -> aiohttp.ClientResponse:
        """Sends a request and returns the answer, whose body isn't read, if it is a good one."""
        api = cast("Any", self._api)
        request: Sequence[Any] = await api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": accept, "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
        )
        plural = resource.plural if resource else "discovery"
        try:
            answer = await api.call_api(*request, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            API_CALLS.labels(verb, plural, "none").inc()
            raise ClusterError(f"{verb} {path}", _words(error), status=CONNECTION) from error
        API_CALLS.labels(verb, plural, str(answer.status)).inc()
        response: aiohttp.ClientResponse = answer.response
        if response.status >= 400:
            raise await _refusal(f"{verb} {path}", response)
        return response


def _selectors(labels: str | None, fields: str | None) -> dict[str, str]:
    return {
        **({"labelSelector": labels} if labels else {}),
        **({"fieldSelector": fields} if fields else {}),
    }


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: objects may be larger than what a stream reader takes for a line."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


async def _refusal(request: str, response: aiohttp.ClientResponse) -> ClusterError:
    async with response:
        text = await response.text(errors="replace")
    try:
        status: Any = json.loads(text)
    except json.JSONDecodeError:
        status = None
    if not isinstance(status, dict):
        status = {"message": text.strip() or response.reason}
    after = response.headers.get("Retry-After", "")
    return _error(request, cast("Object", status), response.status, float(after) if after.isdecimal() else None)


def _error(request: str, status: Mapping[str, Any], code: int, retry_after: float | None = None) -> ClusterError:
    message = str(status.get("message") or status.get("reason") or f"status {code}")
    return ClusterError(request, message, status=code, reason=status.get("reason") or "", retry_after=retry_after)


def _words(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError) and not str(error):
        return "no answer in time"
    return str(error) or type(error).__name__
