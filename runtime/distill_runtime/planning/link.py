"""How fast the store is, from here."""

import os
import time
import uuid

from distill_runtime.store.base import ObjectStore

PROBE_BYTES = 8 * 2**20


def measure_bandwidth(store: ObjectStore) -> float:
    """Bytes a second of one object of 8 MiB, written and read again by one process; it is removed."""
    key = f"probe/bandwidth-{uuid.uuid4().hex}"
    data = os.urandom(PROBE_BYTES)
    began = time.monotonic()
    try:
        store.put(key, data)
        store.get(key)
        seconds = time.monotonic() - began
    finally:
        store.delete(key)
    return 2 * PROBE_BYTES / max(seconds, 1e-6)
