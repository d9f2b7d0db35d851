"""Who acts: the replica that holds the Lease. Its silence is timed by our own clock: clocks of machines differ."""

import asyncio
import logging
import random
import socket
import uuid
from datetime import UTC, datetime

from distill_operator.cluster.client import Client
from distill_operator.cluster.errors import CONFLICT, ClusterError
from distill_operator.cluster.objects import Object, part_of
from distill_operator.cluster.resources import LEASES
from distill_operator.configuration import LeaderElection

logger = logging.getLogger(__name__)

RENEW_PART = 2 / 3
"""Part of the lease's time after which a leader that could not renew gives up: before others take over."""


class LeaseLost(Exception):
    """This replica must not act any more."""


class Lease:
    """This replica's part in the election."""

    def __init__(self, client: Client, election: LeaderElection) -> None:
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._client = client
        self._election = election
        self._held: Object | None = None
        """The Lease as we wrote it last; None while it isn't ours."""
        self._seen: tuple[str, float] | None = None
        """The version of another's Lease, and when we first saw it."""

    async def acquire(self) -> None:
        """Waits until the Lease is ours. The API server's failures only make it take longer."""
        logger.info("waiting for Lease %s as %s", self._election.name, self.identity)
        while not await self._try():
            await asyncio.sleep(self._election.renew_seconds * random.uniform(0.8, 1.2))
        logger.info("leading as %s", self.identity)

    async def hold(self) -> None:
        """Renews the Lease for ever.

        Raises
        ------
        LeaseLost
            Another one has it, or it could not be renewed in time.
        """
        give_up = self._election.lease_seconds * RENEW_PART
        renewed = self._now()
        while True:
            await asyncio.sleep(self._election.renew_seconds)
            try:
                async with asyncio.timeout_at(renewed + give_up):
                    await self._renew()
            except TimeoutError as error:
                raise LeaseLost(f"Lease {self._election.name} could not be renewed for {give_up:.0f} s") from error
            renewed = self._now()

    async def release(self) -> None:
        """Lets others take over at once, if the Lease is ours."""
        if self._held is None:
            return
        held, self._held = self._held, None
        held["spec"].update(holderIdentity="", leaseDurationSeconds=1, renewTime=_now())
        try:
            await self._client.replace(LEASES, held)
        except ClusterError as error:
            logger.warning("the Lease was not released; others wait until it ends: %s", error)

    async def _try(self) -> bool:
        election = self._election
        try:
            found = await self._client.get(LEASES, election.namespace, election.name)
            if found is None:
                self._held = await self._client.create(LEASES, election.namespace, self._new())
                return True
            if not self._is_free(found):
                return False
            self._held = await self._client.replace(LEASES, self._taken(found))
        except ClusterError as error:
            if error.status != CONFLICT:
                logger.warning("Lease %s: %s", election.name, error)
            return False
        return True

    async def _renew(self) -> None:
        """Renews once, however long the API server takes."""
        assert self._held is not None
        while True:
            self._held["spec"]["renewTime"] = _now()
            try:
                self._held = await self._client.replace(LEASES, self._held)
                return
            except ClusterError as error:
                logger.warning("the Lease was not renewed: %s", error)
                if error.status == CONFLICT:
                    await self._look_whose()
            await asyncio.sleep(min(1.0, self._election.renew_seconds))

    async def _look_whose(self) -> None:
        """Somebody wrote the Lease: a person who added a label, another leader, or we without an answer."""
        try:
            found = await self._client.get(LEASES, self._election.namespace, self._election.name)
        except ClusterError as error:
            logger.warning("Lease %s: %s", self._election.name, error)
            return
        holder = found["spec"].get("holderIdentity") if found else None
        if found is None or holder != self.identity:
            self._held = None
            raise LeaseLost(f"Lease {self._election.name} is {holder or 'nobody'}'s")
        self._held = found

    def _is_free(self, found: Object) -> bool:
        spec = part_of(found, "spec")
        if not spec.get("holderIdentity"):
            return True
        version, now = found["metadata"]["resourceVersion"], self._now()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
            return False
        return now - self._seen[1] >= spec.get("leaseDurationSeconds", self._election.lease_seconds)

    def _new(self) -> Object:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._election.name, "namespace": self._election.namespace},
            "spec": self._spec(0),
        }

    def _taken(self, found: Object) -> Object:
        transitions = part_of(found, "spec").get("leaseTransitions", 0)
        return {**found, "spec": self._spec(transitions + 1)}

    def _spec(self, transitions: int) -> Object:
        now = _now()
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._election.lease_seconds)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
