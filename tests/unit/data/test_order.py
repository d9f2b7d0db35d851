"""The order of training: a pure function of seed and step."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.data.order import Order, Share, total_steps

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@st.composite
def orders(draw: st.DrawFn) -> tuple[dict[str, Any], Order]:
    how: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {
                "shard_sizes": SIZES,
                "seed": st.integers(0, 2**31 - 1),
                "window_shards": st.integers(1, 5),
                "global_batch": st.integers(1, 12),
                "epochs": st.sampled_from([1.0, 2.0, 3.0]),
            }
        )
    )
    return how, Order(**how)


@given(orders())
@settings(deadline=None)
def test_every_sequence_comes_once_in_each_epoch(made: tuple[dict[str, Any], Order]) -> None:
    how, order = made
    stream = np.concatenate([order.step(step) for step in range(order.total_steps)])
    assert len(stream) == order.sequences * how["epochs"]
    for epoch in range(int(how["epochs"])):
        part = stream[epoch * order.sequences : (epoch + 1) * order.sequences]
        assert sorted(part.tolist()) == list(range(order.sequences))


@given(orders(), st.data())
@settings(deadline=None)
def test_a_step_is_the_same_whatever_was_asked_before(made: tuple[dict[str, Any], Order], data: st.DataObject) -> None:
    how, order = made
    steps = data.draw(st.lists(st.integers(0, order.total_steps - 1), min_size=1, max_size=6))
    for step in steps:
        assert order.step(step).tolist() == Order(**how).step(step).tolist()


@given(orders())
@settings(deadline=None)
def test_all_steps_but_the_last_are_full(made: tuple[dict[str, Any], Order]) -> None:
    how, order = made
    sizes = [len(order.step(step)) for step in range(order.total_steps)]
    assert all(size == how["global_batch"] for size in sizes[:-1])
    assert 1 <= sizes[-1] <= how["global_batch"]


@given(orders())
@settings(deadline=None)
def test_an_epoch_reads_whole_windows_of_shards_one_after_the_other(made: tuple[dict[str, Any], Order]) -> None:
    how, order = made
    stream = np.concatenate([order.step(step) for step in range(order.total_steps)])[: order.sequences]
    starts = np.cumsum([0, *how["shard_sizes"]])
    shards = (np.searchsorted(starts, stream, side="right") - 1).tolist()
    while shards:
        window: list[int] = []
        for shard in shards:
            if shard not in window:
                window.append(shard)
            if len(window) == how["window_shards"]:
                break
        size = sum(how["shard_sizes"][shard] for shard in window)
        assert set(shards[:size]) == set(window)
        shards = shards[size:]


@given(orders())
@settings(deadline=None)
def test_shards_of_a_step_are_those_of_its_sequences(made: tuple[dict[str, Any], Order]) -> None:
    how, order = made
    starts = np.cumsum([0, *how["shard_sizes"]])
    for step in range(min(order.total_steps, 5)):
        wanted = {int(np.searchsorted(starts, n, side="right")) - 1 for n in order.step(step)}
        assert set(order.shards_of_step(step)) == wanted
    assert sorted(order.shards_by_first_use()) == list(range(len(how["shard_sizes"])))


def test_epochs_and_seeds_have_different_orders() -> None:
    how: dict[str, Any] = {"shard_sizes": [8] * 8, "window_shards": 4, "global_batch": 64, "epochs": 2.0}
    one, two = Order(seed=1, **how), Order(seed=2, **how)
    assert one.step(0).tolist() != one.step(1).tolist()
    assert one.step(0).tolist() != two.step(0).tolist()


def test_the_order_of_a_known_seed_never_changes() -> None:
    # A run that goes on after an upgrade must see the order that it began with: if this fails, numpy's or our
    # permutation has changed, and the training's digest must tell the two apart.
    order = Order([2, 3, 2], seed=7, window_shards=2, global_batch=7, epochs=2)
    assert [order.step(step).tolist() for step in range(2)] == [[0, 5, 6, 1, 2, 4, 3], [0, 6, 5, 1, 4, 3, 2]]


def test_steps_win_over_epochs_and_may_repeat_the_data() -> None:
    order = Order([3], seed=0, window_shards=1, global_batch=5, steps=4)
    assert order.total_steps == 4
    assert [len(order.step(step)) for step in range(4)] == [5, 5, 5, 5]


def test_part_of_an_epoch_is_at_least_one_step() -> None:
    assert total_steps(10, global_batch=4, steps=None, epochs=0.5) == 2
    assert total_steps(10, global_batch=4, steps=None, epochs=0.001) == 1
    assert total_steps(10, global_batch=4, steps=None, epochs=None) == 3


WEIGHTS = st.one_of(st.sampled_from([0.5, 1.0, 2.0, 2.3, 0.1]), st.integers(1, 400).map(lambda n: n / 100))


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[list[Share], dict[str, Any]]:
    """Sources of a few sequences each, in shards that don't end where sources do."""
    shares = [Share(draw(st.integers(1, 30)), draw(WEIGHTS)) for _ in range(draw(st.integers(1, 4)))]
    total = sum(share.sequences for share in shares)
    size = draw(st.integers(1, 9))
    how: dict[str, Any] = {
        "shard_sizes": [min(size, total - at) for at in range(0, total, size)],
        "seed": draw(st.integers(0, 2**31 - 1)),
        "window_shards": draw(st.integers(1, 5)),
        "global_batch": draw(st.integers(1, 12)),
    }
    return shares, how


def stream(order: Order) -> np.ndarray:
    return np.concatenate([order.step(step) for step in range(order.total_steps)])


def times(numbers: np.ndarray, shares: list[Share]) -> list[list[int]]:
    """How often each sequence of each share occurs."""
    counts = np.bincount(numbers, minlength=sum(share.sequences for share in shares)).tolist()
    starts = np.cumsum([0, *(share.sequences for share in shares)])
    return [counts[start:end] for start, end in itertools.pairwise(starts)]


@given(mixtures(), st.integers(1, 4))
@settings(deadline=None)
def test_an_epoch_reads_each_source_as_often_as_its_weight_says(
    mixture: tuple[list[Share], dict[str, Any]], epochs: int
) -> None:
    shares, how = mixture
    if sum(share.epoch_sequences for share in shares) == 0:
        return
    order = Order(**how, epochs=float(epochs), shares=shares)
    read = stream(order)
    assert len(read) == order.sequences * epochs
    for epoch in range(epochs):
        part = read[epoch * order.sequences : (epoch + 1) * order.sequences]
        for share, counts in zip(shares, times(part, shares), strict=True):
            assert sum(counts) == share.epoch_sequences
            assert abs(sum(counts) - share.weight * share.sequences) <= 0.5 + 1e-9
            assert set(counts) <= {int(share.weight), int(share.weight) + 1}
    for counts in times(read, shares):
        assert max(counts) - min(counts) <= 1


@given(mixtures())
@settings(deadline=None)
def test_weights_of_one_are_the_order_without_weights(mixture: tuple[list[Share], dict[str, Any]]) -> None:
    shares, how = mixture
    plain = Order(**how, epochs=2.0)
    weighted = Order(**how, epochs=2.0, shares=[Share(share.sequences, 1.0) for share in shares])
    assert stream(plain).tolist() == stream(weighted).tolist()


@given(mixtures())
@settings(deadline=None)
def test_a_weighted_epoch_reads_shards_in_windows(mixture: tuple[list[Share], dict[str, Any]]) -> None:
    shares, how = mixture
    if sum(share.epoch_sequences for share in shares) == 0:
        return
    order = Order(**{**how, "window_shards": 1, "global_batch": 1}, epochs=1.0, shares=shares)
    shards = [order.shards_of_step(step)[0] for step in range(order.total_steps)]
    visits = 1 + sum(one != other for one, other in itertools.pairwise(shards))
    # A shard is read as a whole, as often as its most frequent sequence.
    counts = np.bincount(stream(order), minlength=sum(how["shard_sizes"]))
    assert visits <= sum(int(part.max()) for part in np.split(counts, np.cumsum(how["shard_sizes"])[:-1]))


def test_weights_are_taken_as_they_are_written() -> None:
    assert [Share(10, weight).epoch_sequences for weight in (0.1, 0.3, 1.0, 1.1, 2.35)] == [1, 3, 10, 11, 24]
    assert [Share(3, weight).epoch_sequences for weight in (0.1, 0.5, 1.5)] == [0, 2, 5]


def test_the_weighted_order_of_a_known_seed_never_changes() -> None:
    order = Order([2, 3, 2], seed=7, window_shards=2, global_batch=8, epochs=2, shares=[Share(3, 2.0), Share(4, 0.5)])
    assert [order.step(step).tolist() for step in range(2)] == [[5, 1, 0, 2, 3, 2, 1, 0], [0, 1, 0, 1, 4, 2, 6, 2]]
