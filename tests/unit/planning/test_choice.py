"""Which kind of signal `auto` chooses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.contract.plan import KindPlan, StoredKind
from distill_runtime.planning.choice import choose_kind, moving_seconds, training_seconds

SIZES: dict[StoredKind, int] = {"hidden": 5120, "topk": 386, "sampled": 256}
"""Bytes of a target of a teacher with 2,560 hidden values and 151,936 ids."""
TARGETS = 10**9


def kinds(bandwidth: float, *, epochs: float = 2, reuses: int = 0, refused: tuple[str, ...] = ()) -> list[KindPlan]:
    return [
        KindPlan(
            kind=kind,
            row_bytes=size,
            total_bytes=TARGETS * size,
            seconds=moving_seconds(TARGETS * size, epochs=epochs, reuses=reuses, bandwidth=bandwidth),
            refused="why not" if kind in refused else "",
        )
        for kind, size in SIZES.items()
    ]


def training(parameters: int = 4 * 10**9, epochs: float = 2) -> float:
    return training_seconds(parameters=parameters, tokens=2 * TARGETS, epochs=epochs, processes=8, gpus=True)


def test_times_are_what_one_counts_by_hand() -> None:
    assert moving_seconds(1000, epochs=2, reuses=0, bandwidth=100) == 30
    assert moving_seconds(1000, epochs=2, reuses=1, bandwidth=100) == 25
    assert training_seconds(parameters=10, tokens=7, epochs=2, processes=3, gpus=True) == pytest.approx(840 / 1.2e15)
    assert training_seconds(parameters=10, tokens=7, epochs=2, processes=3, gpus=False) == pytest.approx(840 / 3e11)


@pytest.mark.parametrize(
    ("bandwidth", "chosen"), [(1e10, "hidden"), (1e9, "topk"), (3e8, "topk"), (1.2e8, "sampled"), (1e6, "sampled")]
)
def test_the_slower_the_link_the_smaller_the_kind(bandwidth: float, chosen: str) -> None:
    kind, why = choose_kind(kinds(bandwidth), training())
    assert kind == chosen
    assert why.startswith("the smallest kind" if bandwidth == 1e6 else "the most exact kind")


def test_other_jobs_that_read_them_may_tip_the_scale() -> None:
    assert choose_kind(kinds(1.6e8, epochs=1, reuses=0), training(epochs=1))[0] == "sampled"
    assert choose_kind(kinds(1.6e8, epochs=1, reuses=9), training(epochs=1))[0] == "topk"


@given(
    bandwidth=st.floats(1e3, 1e13),
    faster=st.floats(1, 1e3),
    parameters=st.integers(10**6, 10**12),
    refused=st.sets(st.sampled_from(["hidden", "topk", "sampled"]), max_size=2),
)
def test_what_is_refused_is_never_chosen_and_a_faster_link_gives_no_less_exact_kind(
    bandwidth: float, faster: float, parameters: int, refused: set[str]
) -> None:
    order = list(SIZES)
    least = training(parameters)
    slow, _ = choose_kind(kinds(bandwidth, refused=tuple(refused)), least)
    fast, _ = choose_kind(kinds(bandwidth * faster, refused=tuple(refused)), least)
    assert slow not in refused
    assert order.index(fast) <= order.index(slow)
