"""The container's metrics in Prometheus' text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from distill_runtime.contract.outcome import Progress
from distill_runtime.supervisor.vitals import Vitals

CONTENT_TYPE = CONTENT_TYPE_LATEST

_GAUGES = {
    "tokens_per_second": "Tokens a second over the last report.",
    "loss": "The training loss of the last step.",
    "held_out_loss": "The last held-out loss.",
    "wait_fraction": "Part of the time that the student waited for signals.",
    "packing_efficiency": "Part of the tokens of the student's rows that is no padding.",
}


def exposition(vitals: Vitals) -> bytes:
    """All metrics of the container as they are now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ContainerCollector(vitals))
    return generate_latest(registry)


class _ContainerCollector(Collector):
    """Makes the metrics of one container when they are asked for: what isn't known is left out."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        role = self._vitals.role
        yield _gauge("role_up", "1 while processes of the role run.", {"role": role}, float(self._vitals.up))
        progress = self._vitals.progress()
        if progress is not None:
            yield from _of_progress(progress)


def _of_progress(progress: Progress) -> Iterator[Metric]:
    role = {"role": progress.role}
    yield _gauge("stage", "1 for the stage that the role is in.", {**role, "stage": progress.stage}, 1.0)
    counted = {**role, "unit": progress.unit}
    yield _gauge("progress_done", "Units done in this stage: steps, shards, rows.", counted, progress.done)
    if progress.total is not None:
        yield _gauge("progress_total", "Units of this stage in all.", counted, progress.total)
    if progress.time:
        yield _gauge("progress_time_seconds", "When the role last reported, since the epoch.", role, progress.time)
    for name, about in _GAUGES.items():
        value = getattr(progress, name)
        if value is not None:
            yield _gauge(name, about, role, value)


def _gauge(name: str, about: str, labels: dict[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(f"distill_{name}", about, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
