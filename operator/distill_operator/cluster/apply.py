"""The only writer of children: makes, changes and removes them, if they are the job's."""

from distill_operator.cluster.client import Client
from distill_operator.cluster.errors import ClusterError
from distill_operator.cluster.objects import (
    JobKey,
    Object,
    ObjectKey,
    annotations_of,
    controller_of,
    is_deleting,
    labels_of,
    metadata_of,
    name_of,
    namespace_of,
    revision_of,
    scaled_by_others,
    uid_of,
)
from distill_operator.cluster.observe import pods_there, pods_wanted
from distill_operator.cluster.resources import DEPLOYMENTS, STATEFUL_SETS, Resource, child_resource
from distill_operator.cluster.store import Store
from distill_operator.constants import DIGEST_ANNOTATION
from distill_operator.lifecycle.observed import Foreign
from distill_operator.render import Manifest

UNPROCESSABLE = 422


class ChildWriter:
    """Writes children, and remembers in which state it left them."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client = client
        self._store = store
        self._left: dict[JobKey, dict[str, str]] = {}
        """By job and uid of a child: its revision after our last write."""

    def differs(self, key: JobKey, live: Object | None, labels: dict[str, str], digest: str) -> bool:
        """Whether a child must be applied: it isn't there, it isn't what we applied, or somebody changed it since."""
        if live is None:
            return True
        if is_deleting(live):
            # It is made again when it is gone.
            return False
        return (
            annotations_of(live).get(DIGEST_ANNOTATION) != digest
            or not labels.items() <= labels_of(live).items()
            or self._left.get(key, {}).get(uid_of(live)) != revision_of(live)
        )

    async def apply(self, key: JobKey, manifest: Manifest) -> Foreign | None:
        """Makes a child or takes it back to its manifest.

        Returns the object of that name which isn't the job's, if there is one: then nothing was done.

        Raises
        ------
        ClusterError
            The API server failed or refused.
        """
        resource = child_resource(manifest["apiVersion"], manifest["kind"])
        name = name_of(manifest)
        live = self._store.get(ObjectKey(resource, key.namespace, name))
        if live is None or _may_be_scaled(resource, manifest):
            live = await self._client.get(resource, key.namespace, name)
        if live is None:
            self._wrote(key, resource, await self._client.apply(resource, manifest, force=False))
            return None
        if controller_of(live).get("uid") != controller_of(manifest)["uid"]:
            return Foreign(resource.kind, name, is_deleting(live))
        if not is_deleting(live):
            await self._change(key, resource, manifest, live)
        return None

    async def create(self, key: JobKey, resource: Resource, manifest: Manifest) -> Object:
        """Makes a child that never changes.

        Raises
        ------
        ClusterError
            One is there already (status `CONFLICT`), or the API server failed or refused.
        """
        made = await self._client.create(resource, key.namespace, manifest)
        self._wrote(key, resource, made)
        return made

    async def remove(self, resource: Resource, item: Object) -> None:
        """Removes a child, and in the background what it made."""
        if not is_deleting(item):
            await self._client.delete(resource, namespace_of(item), name_of(item), uid=uid_of(item))

    def forget(self, key: JobKey) -> None:
        """The job is gone, or has no children any more."""
        self._left.pop(key, None)

    async def _change(self, key: JobKey, resource: Resource, manifest: Manifest, live: Object) -> None:
        request = {**manifest, "metadata": {**manifest["metadata"], "uid": uid_of(live)}}
        if _autoscaler_decides(resource, manifest, live):
            request["spec"] = {name: value for name, value in manifest["spec"].items() if name != "replicas"}
        elif _may_be_scaled(resource, manifest):
            # An autoscaler that scales it in this moment must win: then this is a conflict, and tried again.
            request["metadata"]["resourceVersion"] = metadata_of(live)["resourceVersion"]
        try:
            self._wrote(key, resource, await self._client.apply(resource, request, force=True))
        except ClusterError as error:
            if error.status != UNPROCESSABLE or not _is_idle(resource, live):
                raise
            # A field that can't be changed in place differs, such as a claim template: it is made again without pods.
            await self.remove(resource, live)

    def _wrote(self, key: JobKey, resource: Resource, item: Object) -> None:
        self._store.wrote(resource, item)
        self._left.setdefault(key, {})[uid_of(item)] = revision_of(item)


def _autoscaler_decides(resource: Resource, manifest: Manifest, live: Object) -> bool:
    """Whether the number of teachers is an autoscaler's: only while there are to be any, and there are."""
    return _may_be_scaled(resource, manifest) and pods_wanted(resource, live) > 0 and scaled_by_others(live)


def _may_be_scaled(resource: Resource, manifest: Manifest) -> bool:
    """Whether an autoscaler may decide how many pods there are, of which the store may not have heard yet."""
    return resource == DEPLOYMENTS and manifest["spec"].get("replicas", 0) > 0


def _is_idle(resource: Resource, live: Object) -> bool:
    if resource not in (DEPLOYMENTS, STATEFUL_SETS):
        return False
    observed = live.get("status", {}).get("observedGeneration", 0) >= metadata_of(live).get("generation", 1)
    return observed and pods_wanted(resource, live) == 0 and pods_there(resource, live) == 0
