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


def test_damaged_signal(drills: Drills) -> None:
    """A byte of a signal flips after the teacher has gone: it is noticed, and the teacher comes back for it."""
    job = drills.job("damaged-signal").start()
    job.wait("that the teacher's work is done", lambda: job.status.get("signal", {}).get("complete"))
    job.wait("that the teacher is gone", lambda: job.replicas("teacher") == 0)
    damaged = flip_a_byte(drills, job.prefix)
    job.strike()
    # What a pod has read is in its cache: only a new one reads again.
    job.delete_pod(job.pod("student", 0))
    drills.finish(job, disrupted=1, failed=1)
    assert len(job.uids_ever("teacher")) == 2
    assert job.ending("SignalsMissing")["needsSignals"]
    _, _, place = damaged.partition("/signals/")
    assert place.split("/")[1] in job.ending("SignalsMissing")["message"], damaged


def flip_a_byte(drills: Drills, prefix: str) -> str:
    """Flips a byte in the middle of the signal that the teacher made last, as it is read last; returns its key."""
    client = drills.platform.store.client()
    listing = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/signals/")["Contents"]
    signals = [entry for entry in listing if entry["Key"].endswith(".safetensors")]
    key = max(signals, key=lambda entry: entry["LastModified"])["Key"]
    body = bytearray(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    body[len(body) // 2] ^= 1
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(body))
    return key


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
