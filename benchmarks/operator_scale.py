"""How the operator does with many jobs, on a real control plane on this machine.

    python benchmarks/operator_scale.py [--jobs N] [--rest SECONDS]

Prints, in one run:
- time from the start of the operator's process until it is ready, and its memory (RSS) then;
- time from `kubectl apply` of one job until its prepare Job is there: the median of ten jobs, one after the other;
- the same for N jobs applied at once (p50, p99), the operator's CPU time meanwhile, and its memory when they run;
- requests to the API server a minute while N jobs run and nothing happens;
- time until a child that somebody deleted is there again: the median over ten of these jobs.

Everything shares this machine's cores: API server, controllers, scheduler, the played kubelets and the operator.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distill_runtime.contract.run import Role
from tests.control_plane.jobs.installation import grant_rights, install_definition
from tests.control_plane.jobs.job import Job
from tests.control_plane.jobs.place import Place
from tests.fixtures.api_server import path_of
from tests.fixtures.api_watch import World
from tests.fixtures.kubelet import Kubelet
from tests.fixtures.operator import OperatorProcess
from tests.fixtures.played_nodes import PlayedNodes
from tests.fixtures.pod_acts import Play, does_nothing, prepared, progresses, runs
from tests.fixtures.progress_server import ProgressServer
from tests.fixtures.watched_job import RESOURCES
from tests.testcluster.control_plane import ControlPlane
from tests.testcluster.owned import owned_cluster

NAMESPACE = "scale"
SINGLES = 10
SETTLE_SECONDS = 900.0
CALM_SECONDS = 20.0


@dataclass(frozen=True)
class Bench:
    """What is measured, and with what."""

    place: Place
    operator: OperatorProcess


@contextmanager
def bench(control_plane: ControlPlane, folder: Path) -> Iterator[tuple[Bench, float]]:
    """A control plane with nodes, kubelets and an operator, and the seconds until that was ready."""
    api = install_definition(control_plane)
    api.create(path_of("namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    progress, nodes = ProgressServer(), PlayedNodes(api)
    progress.start()
    nodes.start()
    nodes.add("played-teacher", {"pool": "teacher"})
    nodes.add("played-student", {"pool": "student"})
    kubelet = Kubelet(api, nodes, progress)
    kubelet.start()
    settings = {"progressPort": progress.port, "metricsPort": 0, "probePort": 0}
    kubeconfig = grant_rights(control_plane)
    with World(api, RESOURCES) as world:
        began = time.monotonic()
        operator = OperatorProcess.start(folder, kubeconfig, settings)
        ready = time.monotonic() - began
        try:
            yield Bench(Place(api, world, kubelet, NAMESPACE), operator), ready
        finally:
            operator.stop()
            kubelet.stop()
            progress.stop()


def until_children(place: Place, jobs: Sequence[Job], play: Play) -> list[float]:
    """Creates jobs at once and returns, for each, the seconds until its prepare Job was there."""

    def create(job: Job) -> float:
        began = time.monotonic()
        job.create(play=play)
        return began

    with ThreadPoolExecutor(16) as pool:
        began = dict(zip((job.name for job in jobs), pool.map(create, jobs), strict=True))
    for job in jobs:
        job.wait("its prepare Job", lambda job=job: job.child("jobs", "prepare-1"), SETTLE_SECONDS)
    seen = {
        change.item["metadata"]["name"].removesuffix("-prepare-1"): change.time
        for change in reversed(place.world.changes("jobs", NAMESPACE))
        if change.kind == "ADDED"
    }
    return [seen[name] - start for name, start in began.items()]


def wait_until_running(jobs: Sequence[Job]) -> None:
    """Waits until both halves of all jobs run."""
    halves: list[tuple[Role, int]] = [("student", 2), ("teacher", 1)]
    for job in jobs:
        for role, count in halves:

            def there(job: Job = job, role: Role = role, count: int = count) -> bool:
                running = [pod for pod in job.pods(role) if pod["status"].get("phase") == "Running"]
                return len(running) == count

            job.wait(f"its {role}", there, SETTLE_SECONDS)


def until_repaired(place: Place, job: Job) -> float:
    """Deletes a Service of a job and returns the seconds until there is another one."""
    before = job.child("services", "student")
    assert before is not None
    began = time.monotonic()
    place.api.delete(path_of("services", NAMESPACE, before["metadata"]["name"]))

    def another() -> bool:
        child = job.child("services", "student")
        return child is not None and child["metadata"]["uid"] != before["metadata"]["uid"]

    job.wait("another Service", another)
    return time.monotonic() - began


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent are."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Memory of a process that is resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has ended")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="jobs at once (default: 200)")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds at rest (default: 60)")
    arguments = parser.parse_args()
    with (
        owned_cluster() as cluster,
        tempfile.TemporaryDirectory() as folder,
        bench(cluster.control_plane, Path(folder)) as (bed, ready),
    ):
        place, operator = bed.place, bed.operator
        print(f"ready after                        {ready:8.2f} s")
        print(f"memory when idle                   {rss_mib(operator.pid):8.0f} MiB")
        single = [until_children(place, [place.job(f"one-{n}")], Play(prepare=does_nothing))[0] for n in range(SINGLES)]
        print(f"one job: apply to children         {statistics.median(single):8.3f} s (median of {SINGLES})")
        jobs = [place.job(f"many-{number}") for number in range(arguments.jobs)]
        # Their pods begin when all are there, so that only what is measured is done meanwhile.
        cpu = cpu_seconds(operator.pid)
        many = until_children(place, jobs, Play(prepare=does_nothing))
        cpu = cpu_seconds(operator.pid) - cpu
        print(f"{len(jobs)} jobs: apply to children, p50     {percentile(many, 50):8.3f} s")
        print(f"{len(jobs)} jobs: apply to children, p99     {percentile(many, 99):8.3f} s")
        print(f"{len(jobs)} jobs: CPU time of the operator   {cpu:8.1f} s")
        for job in jobs:
            job.change(prepare=prepared(), teacher=runs, student=progresses(1, 1000))
        wait_until_running(jobs)
        time.sleep(CALM_SECONDS)
        print(f"memory with {len(jobs)} running jobs      {rss_mib(operator.pid):8.0f} MiB")
        before, began = operator.api_calls(), time.monotonic()
        time.sleep(arguments.rest)
        after, minutes = operator.api_calls(), (time.monotonic() - began) / 60
        for verb in sorted(after.keys() | before.keys()):
            made = after.get(verb, 0) - before.get(verb, 0)
            print(f"at rest: {verb:<8} a minute          {made / minutes:8.1f}")
        repaired = [until_repaired(place, job) for job in jobs[:SINGLES]]
        print(f"a deleted child is back after      {statistics.median(repaired):8.3f} s (median of {len(repaired)})")


if __name__ == "__main__":
    main()
