"""Makes a job's children what a decision wants, and touches nothing where they are."""

import logging
from dataclasses import dataclass, field
from typing import NamedTuple

from distill_operator.api import DistillJob
from distill_operator.cluster.apply import ChildWriter
from distill_operator.cluster.client import Client
from distill_operator.cluster.errors import ClusterError
from distill_operator.cluster.objects import (
    JobKey,
    ObjectKey,
    annotations_of,
    controller_of,
    is_deleting,
    name_of,
)
from distill_operator.cluster.resources import CHILDREN, CONFIG_MAPS, child_resource
from distill_operator.cluster.store import Store
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import DIGEST_ANNOTATION
from distill_operator.lifecycle.decision import Children
from distill_operator.lifecycle.observed import Foreign
from distill_operator.render import (
    Manifest,
    Rendered,
    UnreadableConfigMap,
    config_map,
    read_config_map,
    render_attempt,
    select,
)
from distill_operator.render.names import name_of as child_name

logger = logging.getLogger(__name__)


@dataclass
class Settled:
    """What stood in the way of a job's children."""

    foreign: list[Foreign] = field(default_factory=list[Foreign])
    """Objects with a child's name that aren't the job's."""
    refused: str = ""
    """Why a child can't be made: one sentence."""
    rendered_anew: bool = False
    """The record of an attempt that runs was removed, and something else came out when it was made again."""

    @property
    def reported(self) -> tuple[object, ...]:
        """To tell whether there is something new to say."""
        return (tuple(self.foreign), self.refused, self.rendered_anew)


class _Planned(NamedTuple):
    """What is compared with a live child. Manifests are large; they are read again when one is to be applied."""

    key: ObjectKey
    digest: str
    labels: dict[str, str]


class _Plan(NamedTuple):
    uid: str
    wanted: Children
    record: str
    """Digest of the ConfigMap that it was made from."""
    children: tuple[_Planned, ...]


class ChildrenOfJobs:
    """The children of all jobs."""

    def __init__(self, client: Client, store: Store, configuration: OperatorConfiguration) -> None:
        self._client = client
        self._store = store
        self._configuration = configuration
        self._writer = ChildWriter(client, store)
        self._plans: dict[JobKey, _Plan] = {}

    async def settle(self, key: JobKey, job: DistillJob, wanted: Children) -> Settled:
        """Removes what isn't wanted, makes what is missing, and takes back what was changed.

        Raises
        ------
        ClusterError
            The API server failed: the rest is left for the next pass.
        """
        settled = Settled()
        if wanted.attempt is None:
            self._plans.pop(key, None)
            await self._remove_all_but(set(), key, job)
            return settled
        config = ObjectKey(CONFIG_MAPS, key.namespace, child_name("configMap", key.name, wanted.attempt).name)
        try:
            plan, rendered = self._known_plan(key, job, wanted, config), None
            if plan is None:
                rendered = await self._rendered(key, job, config, wanted.attempt, settled)
                if rendered is None:
                    return settled
                plan = self._plans[key] = _plan(job, wanted, rendered)
            if _is_another_render(job, plan):
                # The attempt ends for it, by the next pass's decision; until then its pods go on as they are.
                settled.rendered_anew = True
                return settled
            await self._remove_all_but({config, *(planned.key for planned in plan.children)}, key, job)
            await self._apply_differing(key, plan, rendered, config, settled)
        except UnreadableConfigMap as error:
            settled.refused = str(error)
        return settled

    def forget(self, key: JobKey) -> None:
        """The job is gone."""
        self._plans.pop(key, None)
        self._writer.forget(key)

    async def _remove_all_but(self, kept: set[ObjectKey], key: JobKey, job: DistillJob) -> None:
        for resource, item in self._store.of_job(key, CHILDREN):
            own = controller_of(item).get("uid") == job.metadata.uid
            if own and ObjectKey(resource, key.namespace, name_of(item)) not in kept and not is_deleting(item):
                logger.info("removing %s %s", resource, name_of(item))
                await self._writer.remove(resource, item)

    def _known_plan(self, key: JobKey, job: DistillJob, wanted: Children, config: ObjectKey) -> _Plan | None:
        """The plan of an earlier pass, if it wanted the same and the attempt's ConfigMap is still there."""
        plan, record = self._plans.get(key), self._store.get(config)
        if plan is None or record is None or controller_of(record).get("uid") != job.metadata.uid:
            return None
        digest = annotations_of(record).get(DIGEST_ANNOTATION)
        return plan if (plan.uid, plan.wanted, plan.record) == (job.metadata.uid, wanted, digest) else None

    async def _apply_differing(
        self, key: JobKey, plan: _Plan, rendered: Rendered | None, config: ObjectKey, settled: Settled
    ) -> None:
        differing = {planned.key for planned in plan.children if self._differs(key, planned)}
        if not differing:
            return
        if rendered is None:
            record = await self._client.get(CONFIG_MAPS, key.namespace, config.name)
            if record is None:
                # Removed this moment: the news of it brings the next pass.
                return
            rendered = read_config_map(record)
        for manifest in select(rendered, plan.wanted):
            if _planned(manifest).key in differing:
                await self._apply(key, manifest, settled)

    def _differs(self, key: JobKey, planned: _Planned) -> bool:
        return self._writer.differs(key, self._store.get(planned.key), planned.labels, planned.digest)

    async def _apply(self, key: JobKey, manifest: Manifest, settled: Settled) -> None:
        try:
            logger.info("applying %s %s", manifest["kind"], name_of(manifest))
            foreign = await self._writer.apply(key, manifest)
        except ClusterError as error:
            if not error.refused:
                raise
            settled.refused = f"{manifest['kind']} {name_of(manifest)} was refused: {error.said}"
            logger.warning("%s", settled.refused)
            return
        if foreign is not None:
            settled.foreign.append(foreign)

    async def _rendered(
        self, key: JobKey, job: DistillJob, config: ObjectKey, attempt: int, settled: Settled
    ) -> Rendered | None:
        """What was rendered when the attempt began; it begins now if there is no record of it."""
        found = await self._client.get(CONFIG_MAPS, key.namespace, config.name)
        if found is None:
            return await self._begin(key, job, attempt, settled)
        if controller_of(found).get("uid") != job.metadata.uid:
            settled.foreign.append(Foreign(CONFIG_MAPS.kind, config.name, is_deleting(found)))
            return None
        self._store.wrote(CONFIG_MAPS, found)
        return None if is_deleting(found) else read_config_map(found)

    async def _begin(self, key: JobKey, job: DistillJob, attempt: int, settled: Settled) -> Rendered | None:
        rendered = render_attempt(job, self._configuration, attempt)
        manifest = config_map(job, rendered, attempt)
        try:
            await self._writer.create(key, CONFIG_MAPS, manifest)
        except ClusterError as error:
            if not error.refused:
                raise
            settled.refused = f"ConfigMap {name_of(manifest)} was refused: {error.said}"
            return None
        logger.info("attempt %d rendered, digest %s", attempt, rendered.digest[:12])
        return rendered


def _is_another_render(job: DistillJob, plan: _Plan) -> bool:
    status = job.status
    if status is None or status.ended or status.attempt is None or status.attempt.ending is not None:
        return False
    return status.attempt.number == plan.wanted.attempt and status.attempt.digest not in (None, plan.record)


def _plan(job: DistillJob, wanted: Children, rendered: Rendered) -> _Plan:
    children = tuple(_planned(manifest) for manifest in select(rendered, wanted))
    return _Plan(job.metadata.uid or "", wanted, rendered.digest, children)


def _planned(manifest: Manifest) -> _Planned:
    metadata = manifest["metadata"]
    resource = child_resource(manifest["apiVersion"], manifest["kind"])
    key = ObjectKey(resource, metadata["namespace"], metadata["name"])
    return _Planned(key, metadata["annotations"][DIGEST_ANNOTATION], metadata["labels"])
