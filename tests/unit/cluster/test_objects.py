"""What is read of objects, and what isn't kept."""

import pytest

from distill_operator.cluster.errors import ClusterError
from distill_operator.cluster.objects import job_keys, pruned, revision_of, scaled_by_others
from distill_operator.cluster.resources import (
    CHILDREN,
    DEPLOYMENTS,
    DISTILL_JOBS,
    PODS,
    SERVICES,
    child_resource,
)
from distill_operator.constants import DIGEST_ANNOTATION
from distill_operator.render.names import CHILDREN as CHILD_NAMES
from distill_operator.render.names import name_of
from tests.unit.cluster.objects import Object, child, pod


def scale_entry(manager: str, subresource: str = "scale", field: str = "f:replicas") -> Object:
    return {"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": {"f:spec": {field: {}}}}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (scale_entry("kube-controller-manager"), True),
        (scale_entry("keda-operator"), True),
        (scale_entry("kubectl"), False),
        (scale_entry("kubectl-scale"), False),
        (scale_entry("distill-operator"), False),
        (scale_entry("kube-controller-manager", subresource="status"), False),
        (scale_entry("kube-controller-manager", field="f:paused"), False),
    ],
)
def test_only_an_autoscaler_owns_replicas(entry: Object, expected: bool) -> None:
    item = child("j-teacher", metadata={"managedFields": [entry]}, spec={"replicas": 4})
    assert scaled_by_others(item) is expected
    assert scaled_by_others(pruned(DEPLOYMENTS, item)) is expected


def test_what_is_large_and_not_read_is_not_kept() -> None:
    item = pod(annotations={"big/one": "x" * 1000, DIGEST_ANNOTATION: "d"}, managedFields=[{"manager": "kubelet"}])
    item["spec"]["containers"] = [{"image": "x"}]
    kept = pruned(PODS, item)
    assert kept["metadata"]["annotations"] == {DIGEST_ANNOTATION: "d"}
    assert "managedFields" not in kept["metadata"]
    assert kept["spec"] == {"nodeName": "node-1"}


def test_a_revision_follows_the_spec_where_the_kind_counts_it() -> None:
    item = child("j-teacher", version=1)
    touched = child("j-teacher", version=2)
    edited = child("j-teacher", version=3, metadata={"generation": 2})
    assert revision_of(item) == revision_of(touched) != revision_of(edited)
    for one in (item, touched):
        del one["metadata"]["generation"]
    assert revision_of(item) != revision_of(touched)


def test_a_pod_belongs_to_the_job_of_its_label_alone() -> None:
    assert [str(key) for key in job_keys(pod())] == ["n/j"]


def test_every_child_that_can_be_rendered_is_of_a_known_kind() -> None:
    names = [name_of(kind, "j", 1) for kind in CHILD_NAMES]
    assert {child_resource(name.api_version, name.kind) for name in names} == set(CHILDREN)


def test_a_kind_of_another_version_of_the_operator_is_named() -> None:
    with pytest.raises(ValueError, match="v2 Gadget is not a kind of child"):
        child_resource("v2", "Gadget")


def test_paths() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert SERVICES.path("n", "s") == "/api/v1/namespaces/n/services/s"
    path = "/apis/distill-operator.io/v1alpha1/namespaces/n/distilljobs/j/status"
    assert DISTILL_JOBS.path("n", "j", "status") == path


@pytest.mark.parametrize(
    ("status", "refused", "expired"),
    [(422, True, False), (403, True, False), (409, False, False), (0, False, False), (410, False, True)],
)
def test_an_error_says_whether_asking_again_helps(status: int, refused: bool, expired: bool) -> None:
    error = ClusterError("apply x", "no", status=status)
    assert (error.refused, error.expired) == (refused, expired)
    assert str(error) == "apply x: no"
