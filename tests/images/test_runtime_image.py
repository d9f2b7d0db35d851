"""The runtime's image of the Dockerfile, for processors: `make image-check` builds it and runs a whole job in it."""

import json
import os
from pathlib import Path

import pytest

from distill_operator.api.load import job_of
from distill_operator.render.pod import USER
from distill_operator.render.volumes import STATE_FOLDER
from distill_runtime.contract.facts import PrepareFacts
from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.report import Report
from tests.fixtures.kubernetes import report_in
from tests.fixtures.models import save_tiny_model
from tests.images.runtime_pods import RuntimePods
from tests.runtime.end_to_end.local_job import small_job
from tests.testcluster.dockerfile import build_image
from tests.testcluster.podman import podman

# The first build installs 6 GiB of packages.
pytestmark = pytest.mark.timeout(7200)


@pytest.fixture(scope="session")
def image(pytestconfig: pytest.Config) -> str:
    """The image's name; podman has it."""
    return build_image("runtime-cpu", report_in(pytestconfig))


@pytest.fixture
def pods(image: str, tmp_path: Path) -> RuntimePods:
    """The pods of a small job whose teacher runs on vLLM."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    teacher = save_tiny_model(inputs / "tiny-teacher", seed=1, layers=4, head_dim=32)
    small = small_job(inputs, teacher).changed({"teacher": {"engine": "vllm"}, "signal": {"mode": "offline"}})
    store = small.store
    store.mkdir()
    for path in (inputs, *inputs.rglob("*")):
        os.chown(path, USER, USER)
    metadata = {"name": "small", "namespace": "images", "uid": "00000000-0000-0000-0000-000000000000"}
    document = {"apiVersion": "distill-operator.io/v1alpha1", "kind": "DistillJob", "metadata": metadata}
    job = job_of({**document, "spec": small.spec}, "the small job")
    return RuntimePods(image, job, inputs, store, tmp_path / "volumes")


def test_the_image_starts_what_pods_start_as_the_user_of_pods(image: str, pods: RuntimePods) -> None:
    (inspected,) = json.loads(podman("image", "inspect", image))
    assert [*inspected["Config"]["Entrypoint"], "teacher"] == pods.container("teacher")["command"]
    assert inspected["Config"]["User"] == f"{USER}:{USER}"


def test_a_whole_job_runs_in_it(pods: RuntimePods) -> None:
    prepared = PrepareFacts.read(pods.run("prepare").facts)
    assert prepared.signal_shards_missing == prepared.signal_shards > 0
    for role in ("teacher", "student", "evaluate"):
        assert pods.run(role).code is ExitCode.FINISHED

    report = Report.model_validate_json((pods.volume("evaluate", STATE_FOLDER) / "report.json").read_bytes())
    assert report.teacher.kl_to_teacher == pytest.approx(0, abs=1e-6)
    losses = [point.loss for point in report.curves if point.loss is not None]
    assert len(losses) == prepared.total_steps
    assert losses[-1] < losses[0]
    assert report.student_after.kl_to_teacher is not None
    written = [path for path in pods.store.rglob("*") if path.is_file()]
    assert [path for path in written if path.name == "model.safetensors"]
    assert {path.stat().st_uid for path in written} == {USER}
