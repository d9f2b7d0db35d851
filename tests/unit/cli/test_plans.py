"""What `distillctl plan` prints."""

import pytest
from rich.console import Console

from distill_operator.cli.plans import duration, fits, plan_tables, size
from distill_runtime.contract.plan import JobPlan, KindPlan, MemoryPart, MemoryPlan, SignalPlan


def plan() -> JobPlan:
    kinds = [
        KindPlan(kind="hidden", row_bytes=5120, total_bytes=5120 * 1000, seconds=3),
        KindPlan(kind="sampled", row_bytes=256, total_bytes=256_000, seconds=0.1, refused="reverse KL"),
    ]
    signal = SignalPlan(
        kind="hidden",
        why="it is.",
        kinds=kinds,
        targets=1000,
        epochs=2.5,
        reuses=0,
        bandwidth=2**20,
        bandwidth_measured=True,
        training_seconds=60,
    )
    return JobPlan(signal=signal, memory=[role(gpus=True), role(gpus=False)])


def role(*, gpus: bool) -> MemoryPlan:
    parts = [MemoryPart(name="weights", bytes=60 * 2**30), MemoryPart(name="activations", bytes=20 * 2**30)]
    return MemoryPlan(role="student", processes=4, gpus=gpus, parameters=4_000_000, parts=parts)


def test_the_tables_have_every_kind_and_part() -> None:
    console = Console(width=160, record=True)
    for table in plan_tables(plan(), 141 * 2**30):
        console.print(table)
    text = console.export_text()
    for said in ("hidden", "5,120", "chosen", "reverse KL", "1 MiB/s (measured)", "2.5 times"):
        assert said in text
    for said in ("student × 4, 4,000,000 weights", "60 GiB", "80 GiB", "fits", "on processors"):
        assert said in text


@pytest.mark.parametrize(("memory", "said"), [(None, "--gpu-memory"), (80, "does not fit 80 GiB"), (96, "fits")])
def test_a_role_fits_where_a_tenth_is_left(memory: int | None, said: str) -> None:
    assert fits(role(gpus=True), None if memory is None else memory * 2**30).startswith(said)


def test_amounts_are_for_people() -> None:
    assert [size(n) for n in (12, 2048, 3.5 * 2**30)] == ["12 B", "2 KiB", "3.5 GiB"]
    assert [duration(s) for s in (0.5, 90, 600, 3 * 3600)] == ["0.5 s", "90 s", "10 min", "3 h"]
