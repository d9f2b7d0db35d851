"""Writing what a pass concluded."""

from distill_operator.api import DistillJob
from distill_operator.api.status import DistillJobStatus
from distill_operator.cluster.client import Client
from distill_operator.cluster.objects import Object
from distill_operator.cluster.resources import DISTILL_JOBS


async def write_status(client: Client, document: Object, job: DistillJob, status: DistillJobStatus) -> Object:
    """Stores the status of a job that was read as `document`, unless it is stored already.

    Returns the object as it is now.

    Raises
    ------
    ClusterError
        Of status `CONFLICT`: somebody wrote since it was read, so the pass must begin again.
    """
    if job.status is not None and job.status.dump() == status.dump():
        return document
    return await client.replace(DISTILL_JOBS, {**document, "status": status.dump()}, "status")
