"""Which kind of signal a job should store: pure, from sizes, link and length of the training.

The kinds are tried from the most exact to the smallest: hidden, topk, sampled. The first one wins whose signals move in
a quarter of the time that the training takes at least:

    targets · row bytes · (epochs + 1 / (1 + reuses)) / bandwidth  ≤  ¼ · 6 · parameters · tokens · epochs / FLOPS

The signals are written once for all jobs that read them (1 / (1 + reuses)) and read once an epoch. A training step
takes 6 operations a weight and token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Where none is small enough,
the smallest one wins.
"""

from collections.abc import Sequence

from distill_runtime.contract.plan import KindPlan, SignalPlan, StoredKind

MOST_OF_TRAINING = 0.25
"""Part of the training's time that its signals may take to move: reading ahead hides it."""
GPU_FLOPS, PROCESSOR_FLOPS = 4e14, 1e11
"""Operations a second of one process of the student: what a fast GPU reaches in 16 bit, and a few cores in 32."""


def training_seconds(*, parameters: int, tokens: int, epochs: float, processes: int, gpus: bool) -> float:
    """The shortest time that the training could take.

    Parameters
    ----------
    tokens
        Of one epoch.
    processes
        Of the student.
    gpus
        Whether each has one.
    """
    return 6 * parameters * tokens * epochs / (processes * (GPU_FLOPS if gpus else PROCESSOR_FLOPS))


def moving_seconds(total_bytes: int, *, epochs: float, reuses: int, bandwidth: float) -> float:
    """Time that signals of so many bytes take to move, with `bandwidth` in bytes a second."""
    return total_bytes * (epochs + 1 / (1 + reuses)) / bandwidth


def choose_kind(kinds: Sequence[KindPlan], least_seconds: float) -> tuple[StoredKind, str]:
    """The kind, and why, in a sentence.

    Parameters
    ----------
    kinds
        From the most exact to the smallest; at least one isn't refused.
    least_seconds
        The shortest time that the training could take.
    """
    possible = [kind for kind in kinds if not kind.refused]
    limit = MOST_OF_TRAINING * least_seconds
    for kind in possible:
        if kind.seconds <= limit:
            return kind.kind, (
                f"the most exact kind that moves in a quarter of the training's time: {_seconds(kind.seconds)} of "
                f"{_seconds(least_seconds)} or more."
            )
    smallest = min(possible, key=lambda kind: kind.total_bytes)
    return smallest.kind, (
        f"the smallest kind: it moves in {_seconds(smallest.seconds)}, and none moves in a quarter of the training's "
        f"time, which may be no more than {_seconds(least_seconds)}."
    )


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def signal_plan(
    kinds: Sequence[KindPlan],
    *,
    wanted: StoredKind | None,
    targets: int,
    epochs: float,
    reuses: int,
    bandwidth: float,
    bandwidth_measured: bool,
    least_seconds: float,
) -> SignalPlan:
    """The whole of it. `wanted`: the kind that the job names; None lets the formula choose."""
    kind, why = (wanted, "signal.kind names it.") if wanted is not None else choose_kind(kinds, least_seconds)
    return SignalPlan(
        kind=kind,
        why=why,
        kinds=list(kinds),
        targets=targets,
        epochs=epochs,
        reuses=reuses,
        bandwidth=bandwidth,
        bandwidth_measured=bandwidth_measured,
        training_seconds=least_seconds,
    )
