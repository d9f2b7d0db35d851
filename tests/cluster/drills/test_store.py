"""The store and the network fail."""

import time

from tests.cluster.drills.drill import STREAMING, Drills
from tests.cluster.platform import BUCKET

OUTAGE_SECONDS = 30


def test_store_gone(drills: Drills) -> None:
    """The store is away for a while, with its data: whoever needs it waits."""
    job = drills.job("store-gone").start(STREAMING)
    job.wait_for_step(12)
    job.strike()
    drills.platform.store.stop()
    time.sleep(OUTAGE_SECONDS)
    drills.platform.store.start()
    drills.finish(job)


def test_damaged_signals(drills: Drills) -> None:
    """A byte of each signal flips after the teacher has gone: it is noticed, and the teacher comes back for them."""
    job = drills.job("damaged-signals").start()
    job.wait("that the teacher's work is done", lambda: job.status.get("signal", {}).get("complete"))
    job.wait("that the teacher is gone", lambda: job.replicas("teacher") == 0)
    assert flip_signals(drills, job.prefix) > 0
    job.strike()
    # What a pod has read is in its cache: only a new one reads again.
    job.delete_pod(job.pod("student", 0))
    drills.finish(job, disrupted=1, failed=1)
    assert len(job.uids_ever("teacher")) == 2
    assert "SignalsMissing" in job.reasons()


def flip_signals(drills: Drills, prefix: str) -> int:
    """Flips a byte in the middle of each signal; returns how many there were."""
    client = drills.platform.store.client()
    listing = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/signals/")["Contents"]
    parts = [entry["Key"] for entry in listing if entry["Key"].endswith(".safetensors")]
    for key in parts:
        body = bytearray(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        body[len(body) // 2] ^= 1
        client.put_object(Bucket=BUCKET, Key=key, Body=bytes(body))
    return len(parts)


def test_network_cut(drills: Drills) -> None:
    """No packet passes between the pools for half a minute: they meet in the store alone."""
    teacher, student = (drills.platform.cluster.node(f"node-{pool}") for pool in ("teacher", "student"))
    job = drills.job("network-cut").start(STREAMING)
    job.wait_for_step(12)
    pods = job.uids()
    job.strike()
    teacher.cut(student)
    student.cut(teacher)
    try:
        time.sleep(OUTAGE_SECONDS)
    finally:
        teacher.mend(student)
        student.mend(teacher)
    drills.finish(job)
    assert job.uids_ever("student") | job.uids_ever("teacher") <= pods
