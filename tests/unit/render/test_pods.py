"""What the pods of each role are given."""

from typing import Any

import pytest
import yaml

from distill_operator.api import DistillJob, load_job
from distill_operator.api.local import map_uris
from distill_operator.configuration import OperatorConfiguration
from distill_operator.render import Manifest, render_attempt
from distill_runtime.contract import environment
from distill_runtime.contract.run import Role
from distill_runtime.locations import local_path
from tests.unit.render.golden import HERE, configuration_of, job_named

ROLES: list[Role] = ["prepare", "teacher", "student", "evaluate"]
OWN_LAST_WORD_SECONDS = 15
"""What a supervisor needs beside its grace."""


def job_with(**spec: Any) -> DistillJob:
    """The minimal job with other sections."""
    document = yaml.safe_load((HERE / "manifests/minimal.yaml").read_text())
    document["spec"] |= spec
    return load_job(yaml.safe_dump(document), "job.yaml")


def pod_of(role: Role, job: DistillJob, configuration: OperatorConfiguration | None = None) -> Manifest:
    return render_attempt(job, configuration or OperatorConfiguration(), 1).children[role]["spec"]["template"]["spec"]


def container_of(role: Role, job: DistillJob) -> Manifest:
    (container,) = pod_of(role, job)["containers"]
    return container


def variables_of(role: Role, job: DistillJob) -> dict[str, Any]:
    variables = container_of(role, job)["env"]
    names = [variable["name"] for variable in variables]
    assert len(set(names)) == len(names)
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in variables}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["minimal", "everything"])
def test_whatever_is_written_goes_to_a_sized_volume(role: Role, name: str) -> None:
    pod = pod_of(role, job_named(name), configuration_of(name))
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for volume in volumes.values():
        assert "hostPath" not in volume
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
    writable = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    paths = [mount["mountPath"] for mount in writable]
    for variable in ("HOME", environment.STATE_DIR, environment.CACHE_DIR, "HF_HOME", "VLLM_CACHE_ROOT", "TMPDIR"):
        folder = variables_of(role, job_named(name)).get(variable, "/tmp")
        assert any(f"{folder}/".startswith(f"{path}/") for path in paths), variable


@pytest.mark.parametrize("role", ROLES)
def test_a_pod_has_no_api_token_and_no_service_variables(role: Role) -> None:
    pod = pod_of(role, job_named("minimal"))
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("role", ROLES)
def test_a_pod_gets_its_grace_and_time_for_the_last_word(role: Role) -> None:
    job = job_with(policy={"checkpointGraceSeconds": 77})
    assert variables_of(role, job)[environment.GRACE_SECONDS] == "77"
    assert pod_of(role, job)["terminationGracePeriodSeconds"] >= 77 + OWN_LAST_WORD_SECONDS


@pytest.mark.parametrize("role", ROLES)
def test_a_pod_leaves_a_lost_node_as_the_policy_says(role: Role) -> None:
    tolerations = pod_of(role, job_with(policy={"nodeLostSeconds": 7}))["tolerations"]
    lost = {one["key"]: one["tolerationSeconds"] for one in tolerations if one["key"].startswith("node.kubernetes.io/")}
    assert lost == {"node.kubernetes.io/not-ready": 7, "node.kubernetes.io/unreachable": 7}


@pytest.mark.parametrize(
    ("role", "gpus", "shared_memory"),
    [("prepare", None, "1Gi"), ("teacher", "4", "32Gi"), ("student", "8", "64Gi"), ("evaluate", "1", "8Gi")],
)
def test_each_role_asks_for_its_gpus_and_shared_memory(role: Role, gpus: str | None, shared_memory: str) -> None:
    teacher, student = {"model": "hf://a/b", "gpus": 4}, {"model": "hf://a/c", "gpusPerWorker": 8}
    job = job_with(teacher=teacher, student=student)
    limits = container_of(role, job).get("resources", {}).get("limits", {})
    assert limits.get("nvidia.com/gpu") == gpus
    (volume,) = [volume for volume in pod_of(role, job)["volumes"] if volume["name"] == "distill-shm"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": shared_memory}


@pytest.mark.parametrize("role", ROLES)
def test_a_job_on_processors_asks_for_no_gpu_and_sees_none(role: Role) -> None:
    job = job_with(
        teacher={"model": "hf://a/b", "gpus": 0},
        student={"model": "hf://a/c", "gpusPerWorker": 0},
        pods={name: {"cpu": "4"} for name in ROLES},
    )
    assert container_of(role, job)["resources"] == {"requests": {"cpu": "4"}}
    variables = variables_of(role, job)
    assert variables["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert variables["OMP_NUM_THREADS"]["resourceFieldRef"]["resource"] == "requests.cpu"


def test_memory_is_a_limit_and_processor_cores_need_not_be() -> None:
    job = job_with(pods={"prepare": {"cpu": "500m", "cpuLimit": "2", "memory": "4Gi", "ephemeralStorage": "9Gi"}})
    amounts = {"memory": "4Gi", "ephemeral-storage": "9Gi"}
    assert container_of("prepare", job)["resources"] == {
        "requests": {"cpu": "500m", **amounts},
        "limits": {"cpu": "2", **amounts},
    }


@pytest.mark.parametrize(("seconds", "failures"), [(10, 1), (11, 2), (3600, 360), (86400, 8640)])
def test_a_model_may_load_for_as_long_as_its_budget(seconds: int, failures: int) -> None:
    job = job_with(pods={"teacher": {"startupSeconds": seconds}})
    probe = container_of("teacher", job)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= seconds
    assert probe["failureThreshold"] == failures


def test_a_teacher_is_ready_with_its_model_and_a_student_with_its_process() -> None:
    assert container_of("teacher", job_named("minimal"))["readinessProbe"]["httpGet"]["path"] == "/startup"
    assert container_of("student", job_named("minimal"))["readinessProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("role", ["prepare", "evaluate"])
def test_a_batch_job_ends_at_once_on_a_users_error_and_forgives_disruptions(role: Role) -> None:
    job = job_with(policy={"backoffLimit": 2})
    spec = render_attempt(job, OperatorConfiguration(), 1).children[role]["spec"]
    assert spec["backoffLimit"] == 2
    assert "ttlSecondsAfterFinished" not in spec
    first, second = spec["podFailurePolicy"]["rules"]
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [65])
    assert (second["action"], second["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_each_student_worker_learns_its_number_from_its_pod() -> None:
    variables = variables_of("student", job_with(student={"model": "hf://a/c", "workers": 3, "gpusPerWorker": 2}))
    rank = variables[environment.NODE_RANK]["fieldRef"]["fieldPath"]
    assert rank == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert (variables[environment.NODES], variables[environment.PROCESSES]) == ("3", "2")
    assert variables[environment.MASTER_ADDRESS] == "qwen3-4b-student-0.qwen3-4b-student"


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_container_that_starts_again_in_its_pod_does_no_work(role: Role) -> None:
    assert variables_of(role, job_named("minimal"))[environment.RESTART_IN_PLACE] == "refuse"


def test_every_teacher_replica_has_a_name_of_its_own_and_may_score_the_teacher() -> None:
    variables = variables_of("teacher", job_named("minimal"))
    assert variables[environment.REPLICA] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert variables[environment.EVALUATE_TEACHER] == "yes"


@pytest.mark.parametrize(
    ("interface", "nccl", "gloo"),
    [(None, None, None), ("eth0", "eth0", "eth0"), ("=eth0", "=eth0", "eth0"), ("^lo,docker0", "^lo,docker0", None)],
)
def test_nccl_and_gloo_each_get_the_interface_in_their_own_notation(
    interface: str | None, nccl: str | None, gloo: str | None
) -> None:
    variables = variables_of("student", job_with(pods={"student": {"networkInterface": interface}}))
    assert variables.get("NCCL_SOCKET_IFNAME") == nccl
    assert variables.get("GLOO_SOCKET_IFNAME") == gloo


def test_a_users_variable_replaces_a_default_but_never_the_jobs_place() -> None:
    own = [{"name": "HF_HOME", "value": "/elsewhere"}, {"name": "PATH_OF", "value": "$(HF_HOME)/x"}]
    job = job_with(pods={"teacher": {"environment": own}})
    assert variables_of("teacher", job)["HF_HOME"] == "/elsewhere"
    names = [variable["name"] for variable in container_of("teacher", job)["env"]]
    assert names.index("HF_HOME") < names.index("PATH_OF")
    assert names.index("PATH_OF") < names.index(environment.RUN_CONFIG)


def test_credentials_of_the_store_come_from_its_secret() -> None:
    job = job_with(storage={"uri": "s3://distill", "secretName": "s3"})
    for role in ROLES:
        variables = variables_of(role, job)
        assert variables["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}}
        assert variables["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"].get("optional") is None
        assert variables["AWS_SESSION_TOKEN"]["secretKeyRef"]["optional"] is True
    assert "AWS_ACCESS_KEY_ID" not in variables_of("student", job_named("minimal"))


@pytest.mark.parametrize(
    ("role", "claims"),
    [
        ("prepare", ["benchmarks", "models", "tasks", "texts"]),
        ("teacher", ["models"]),
        ("student", ["models"]),
        ("evaluate", ["models"]),
    ],
)
def test_each_role_mounts_the_claims_that_it_reads_where_the_runtime_looks(role: Role, claims: list[str]) -> None:
    pod = pod_of(role, job_named("everything"))
    named = {
        volume["name"]: volume["persistentVolumeClaim"]
        for volume in pod["volumes"]
        if volume["name"].startswith("distill-claim-")
    }
    assert list(named.values()) == [{"claimName": claim, "readOnly": True} for claim in claims]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    for volume, claim in named.items():
        assert mounts[volume]["mountPath"] == str(local_path(f"pvc://{claim['claimName']}"))


def test_prepare_mounts_the_claim_of_every_uri_of_the_job() -> None:
    claims: set[str] = set()

    def collect(uri: str, _: str) -> str:
        if uri.startswith("pvc://"):
            claims.add(uri.removeprefix("pvc://").partition("/")[0])
        return uri

    job = job_with(
        teacher={"model": "pvc://a/x"},
        student={"initialise": {"fromConfig": {"config": "pvc://b/config.json"}}},
        data={"train": ["pvc://c/1", "pvc://d/2"], "evaluation": "pvc://e/3"},
        evaluation={"tasks": [{"kind": "classification", "name": "t", "data": "pvc://f/4"}]},
    )
    map_uris(job.spec.work(), collect, "spec")
    mounted = {mount["mountPath"] for mount in container_of("prepare", job)["volumeMounts"]}
    assert claims == {"a", "b", "c", "d", "e", "f"}
    assert {f"/mnt/claims/{claim}" for claim in claims} <= mounted


@pytest.mark.parametrize(
    ("cache", "source", "kernels"),
    [
        (None, {"emptyDir": {"sizeLimit": "100Gi"}}, "/cache/kernels"),
        ({"emptyDir": "9Gi"}, {"emptyDir": {"sizeLimit": "9Gi"}}, "/cache/kernels"),
        ({"claim": "shared"}, {"persistentVolumeClaim": {"claimName": "shared"}}, "/tmp/kernels"),
    ],
)
def test_the_model_cache_is_where_the_job_says(cache: Any, source: Manifest, kernels: str) -> None:
    job = job_with(pods={"teacher": {"modelCache": cache}})
    (volume,) = [volume for volume in pod_of("teacher", job)["volumes"] if volume["name"] == "distill-cache"]
    assert volume == {"name": "distill-cache", **source}
    assert variables_of("teacher", job)["TRITON_CACHE_DIR"].startswith(kernels)


def test_a_cache_of_each_pod_goes_with_the_pod_where_it_has_no_fixed_name() -> None:
    job = job_with(pods={"teacher": {"modelCache": {"perPod": "50Gi"}}})
    (volume,) = [volume for volume in pod_of("teacher", job)["volumes"] if volume["name"] == "distill-cache"]
    assert volume["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"] == "50Gi"


def test_our_labels_win_and_users_may_allow_disruption() -> None:
    spec = render_attempt(job_named("everything"), configuration_of("everything"), 3).children
    teacher = spec["teacher"]["spec"]["template"]["metadata"]
    assert teacher["labels"]["distill-operator.io/role"] == "teacher"
    assert (teacher["labels"]["team"], teacher["labels"]["billing"]) == ("research", "teachers")
    student = spec["student"]["spec"]["template"]["metadata"]["annotations"]
    assert student["karpenter.sh/do-not-disrupt"] == "true"
    assert student["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"


def test_the_teachers_deadline_is_a_number_that_kubernetes_can_hold() -> None:
    job = job_with(policy={"startupDeadlineSeconds": 2**31 - 1})
    spec = render_attempt(job, OperatorConfiguration(), 1).children["teacher"]["spec"]
    assert spec["progressDeadlineSeconds"] == 2**31 - 1
