"""What made pods and is gone: whose it was is remembered, since its pods outlive it by their grace."""

from collections.abc import Mapping

from distill_operator.cluster.objects import Object, controller_of, uid_of

MOST = 4096
"""Makers that are remembered, the newest ones. Their pods are gone within minutes."""


class Makers:
    """StatefulSets, batch Jobs and Deployments that were removed."""

    def __init__(self) -> None:
        self._jobs: dict[str, str] = {}

    def remember(self, maker: Object) -> None:
        """This one is gone."""
        self._jobs[uid_of(maker)] = controller_of(maker).get("uid", "")
        while len(self._jobs) > MOST:
            self._jobs.pop(next(iter(self._jobs)))

    @property
    def gone(self) -> Mapping[str, str]:
        """By their uid: the uid of their job."""
        return self._jobs
