"""S3Store against plain boto3 on a real S3 server on this machine, in one run.

    python benchmarks/store_throughput.py [--large-count N] [--small-count N] [--rounds N]

Both send the same bytes to the same server, in turns, so that what else the machine does weighs on both. Prints MiB/s
for objects of 64 MiB and requests a second for objects of 64 KiB, each as the median over the rounds, and the ratio
S3Store / boto3 (1.00: as fast; above: faster).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boto3.session import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distill_runtime.contract.sections import Storage
from distill_runtime.store.open import open_store
from tests.fixtures.s3 import S3Server

MIB = 2**20
LARGE_BYTES = 64 * MIB
SMALL_BYTES = 64 * 1024


@dataclass
class Contender:
    """One way to write and read an object."""

    name: str
    put: Callable[[str, bytes], Any]
    get: Callable[[str], bytes]


def contenders(server: S3Server) -> list[Contender]:
    bucket = server.bucket()
    store = open_store(Storage(uri=f"s3://{bucket}/store"))
    client: Any = Session().client("s3")

    def plain_get(key: str) -> bytes:
        return client.get_object(Bucket=bucket, Key=f"plain/{key}")["Body"].read()

    def plain_put(key: str, data: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"plain/{key}", Body=data)

    return [Contender("S3Store", store.put, store.get), Contender("boto3", plain_put, plain_get)]


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(ways: list[Contender], size: int, count: int, rounds: int) -> dict[tuple[str, str], float]:
    """Seconds for `count` writes and for `count` reads of objects of `size` bytes, by (name, operation)."""
    data = os.urandom(size)
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for way in ways if turn % 2 else ways[::-1]:
            keys = [f"{size}/{turn}/{number}" for number in range(count)]

            def write(way: Contender = way, keys: list[str] = keys) -> None:
                for key in keys:
                    way.put(key, data)

            def read(way: Contender = way, keys: list[str] = keys) -> None:
                for key in keys:
                    assert len(way.get(key)) == size

            for operation, work in (("put", write), ("get", read)):
                taken = seconds(work)
                if turn:  # The first round opens connections and volumes.
                    times.setdefault((way.name, operation), []).append(taken)
    return {what: statistics.median(taken) for what, taken in times.items()}


def report(label: str, unit: str, amount: float, times: dict[tuple[str, str], float]) -> None:
    for operation in ("put", "get"):
        store, plain = (amount / times[name, operation] for name in ("S3Store", "boto3"))
        print(
            f"{label:>7} {operation}: S3Store {store:8.1f} {unit:<10} boto3 {plain:8.1f} {unit:<10} "
            f"ratio {store / plain:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large-count", type=int, default=2, help="objects of 64 MiB in one round (2)")
    parser.add_argument("--small-count", type=int, default=200, help="objects of 64 KiB in one round (200)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count, after one that doesn't (3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = S3Server(Path(folder))
        server.start()
        try:
            os.environ.update(server.environment())
            ways = contenders(server)
            times = measure(ways, LARGE_BYTES, options.large_count, options.rounds)
            report("64 MiB", "MiB/s", options.large_count * LARGE_BYTES / MIB, times)
            times = measure(ways, SMALL_BYTES, options.small_count, options.rounds)
            report("64 KiB", "requests/s", options.small_count, times)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
