"""The run configuration of one attempt."""

from distill_operator.api import DistillJob
from distill_runtime.contract.run import RunConfig


def run_config(job: DistillJob, *, uid: str, attempt: int) -> RunConfig:
    """What the containers of this attempt read. `uid` tells jobs apart that were made again under one name."""
    return RunConfig(
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        uid=uid,
        attempt=attempt,
        work=job.spec.work(),
    )
