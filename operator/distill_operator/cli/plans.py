"""What a job will need, as tables on the terminal."""

from rich.table import Table

from distill_runtime.contract.plan import JobPlan, KindPlan, MemoryPlan, SignalPlan

USABLE = 0.9
"""Part of a GPU's memory that can be counted on."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def plan_tables(plan: JobPlan, gpu_memory: int | None) -> list[Table]:
    """The tables: signals, and the memory of both roles. `gpu_memory`: bytes of a GPU, to say whether a role fits."""
    return [signal_table(plan.signal), memory_table(plan.memory, gpu_memory)]


def signal_table(signal: SignalPlan) -> Table:
    """One line a kind."""
    measured = "measured" if signal.bandwidth_measured else "given"
    rate = f"{size(signal.bandwidth)}/s ({measured})"
    title = f"Signals of {signal.targets:,} targets, read {signal.epochs:.3g} times, at {rate}"
    table = Table(title=title, title_justify="left")
    for heading in ("kind", "bytes a target", "in all", "moves in", ""):
        table.add_column(heading, justify="left" if heading in ("kind", "") else "right")
    for kind in signal.kinds:
        table.add_row(*_kind_row(kind, chosen=kind.kind == signal.kind))
    return table


def _kind_row(kind: KindPlan, *, chosen: bool) -> list[str]:
    note = "chosen" if chosen else kind.refused
    return [kind.kind, f"{kind.row_bytes:,}", size(kind.total_bytes), duration(kind.seconds), note]


def memory_table(roles: list[MemoryPlan], gpu_memory: int | None) -> Table:
    """The parts of each role's process, and their sum."""
    table = Table(title="Memory of one process (estimated)", title_justify="left")
    for heading in ("role", "part", "memory", ""):
        table.add_column(heading, justify="right" if heading == "memory" else "left")
    for role in roles:
        name = f"{role.role} × {role.processes}, {role.parameters:,} weights"
        for number, part in enumerate(role.parts):
            table.add_row(name if number == 0 else "", part.name, size(part.bytes), "")
        table.add_row("", "together", size(role.total), fits(role, gpu_memory), end_section=True)
    return table


def fits(role: MemoryPlan, gpu_memory: int | None) -> str:
    """Whether a role's process fits a GPU, where that can be said."""
    if not role.gpus:
        return "on processors"
    if gpu_memory is None:
        return "--gpu-memory says whether it fits"
    return "fits" if role.total <= USABLE * gpu_memory else f"does not fit {size(gpu_memory)}"


def size(value: float) -> str:
    """Bytes for people."""
    for unit in UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} {UNITS[-1]}"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    return f"{minutes:.3g} min" if minutes < 120 else f"{minutes / 60:.3g} h"
