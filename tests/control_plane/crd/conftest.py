"""The definition on the API server, and DistillJobs in a namespace."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.control_plane.jobs.installation import install_definition
from tests.fixtures.api_server import ApiError, ApiServer, path_of
from tests.testcluster.control_plane import ControlPlane

Object = dict[str, Any]


def in_newest_words(refusal: str) -> str:
    """What the newest API server would say: that of 1.34 puts the value's type before the sentence of a rule."""
    return refusal.replace('Invalid value: "object": ', "Invalid value: ")


@dataclass(frozen=True)
class Jobs:
    """The DistillJobs of one namespace."""

    api: ApiServer
    namespace: str

    def create(self, document: Object, **query: str) -> Object:
        """As `kubectl create` does it: unknown fields are refused."""
        return self.api.request("POST", self.path(), document, fieldValidation="Strict", **query)

    def check(self, document: Object) -> str | None:
        """Why the API server refuses the job; None if it would take it."""
        try:
            self.create(document, dryRun="All")
        except ApiError as error:
            return in_newest_words(error.message)
        return None

    def edit(self, name: str, **spec: Any) -> str | None:
        """Changes fields of the spec; why the API server refuses that, or None."""
        try:
            self.api.patch(self.path(name), {"spec": spec})
        except ApiError as error:
            return in_newest_words(error.message)
        return None

    def report(self, name: str, status: Object) -> Object:
        """Writes the whole status, as the operator does: with the version that was read."""
        job = self.get(name)
        return self.api.request("PUT", self.path(name, "status"), {**job, "status": status})

    def start(self, name: str) -> None:
        """Makes it a job that has started."""
        self.report(name, {"phase": "Preparing", "startTime": "2026-01-01T00:00:00Z"})

    def get(self, name: str) -> Object:
        """The job as the API server has it."""
        return self.api.request("GET", self.path(name))

    def path(self, name: str | None = None, subresource: str = "") -> str:
        """The path of the jobs, or of one."""
        return path_of("distilljobs", self.namespace, name, subresource)


@pytest.fixture(scope="package")
def api(control_plane: ControlPlane) -> ApiServer:
    """The API server, which has the definition: that of this folder, whatever other tests put there."""
    return install_definition(control_plane)


@pytest.fixture
def jobs(api: ApiServer, namespace: str) -> Jobs:
    """DistillJobs in a namespace of the test's own."""
    return Jobs(api, namespace)


@pytest.fixture(scope="package")
def checked(api: ApiServer) -> Jobs:
    """Only for checks, which store nothing: a namespace for each would take longer than the test."""
    return Jobs(api, "default")
