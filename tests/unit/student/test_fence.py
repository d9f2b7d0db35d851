from pathlib import Path

import pytest

from distill_runtime.contract.report import CurvePoint
from distill_runtime.errors import RetryError
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.student.curves import merge, read_curves, write_segment
from distill_runtime.student.fence import CheckpointEntry, Fence

ENTRY = CheckpointEntry(step=3, manifest="m", sha256="0" * 64)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def test_a_newer_attempt_takes_the_fence_with_its_checkpoints_and_the_older_one_is_refused(
    store: DirectoryStore,
) -> None:
    first = Fence.take(store, "t", uid="job", attempt=1)
    first.update([ENTRY], None)
    second = Fence.take(store, "t", uid="job", attempt=2)
    assert second.state.checkpoints == [ENTRY]
    with pytest.raises(RetryError, match=r"attempt 1 was replaced by attempt 2") as refused:
        first.update([], None)
    assert refused.value.reason == "Fenced"
    with pytest.raises(RetryError, match=r"attempt 1 was replaced"):
        first.check()
    assert Fence.take(store, "t", uid="job", attempt=2).state.checkpoints == [ENTRY]


def test_an_older_attempt_can_not_take_the_fence(store: DirectoryStore) -> None:
    Fence.take(store, "t", uid="job", attempt=2)
    with pytest.raises(RetryError, match=r"attempt 1 was replaced by attempt 2"):
        Fence.take(store, "t", uid="job", attempt=1)


def test_a_job_made_again_takes_the_fence_with_its_first_attempt_and_goes_on(store: DirectoryStore) -> None:
    earlier = Fence.take(store, "t", uid="deleted", attempt=7)
    earlier.update([ENTRY], None)
    fence = Fence.take(store, "t", uid="made-again", attempt=1)
    assert fence.state.checkpoints == [ENTRY]
    assert fence.state.generation > earlier.state.generation
    with pytest.raises(RetryError) as refused:
        earlier.check()
    assert refused.value.reason == "Fenced"


def test_of_two_processes_of_one_attempt_the_later_holds_the_fence(store: DirectoryStore) -> None:
    first = Fence.take(store, "t", uid="job", attempt=1)
    second = Fence.take(store, "t", uid="job", attempt=1)
    with pytest.raises(RetryError) as refused:
        first.check()
    assert refused.value.reason == "Fenced"
    second.check()


def test_the_holder_may_write_again_and_again(store: DirectoryStore) -> None:
    fence = Fence.take(store, "t", uid="job", attempt=1)
    for _ in range(3):
        fence.check()
        fence.update([ENTRY], ENTRY)
    assert Fence.take(store, "t", uid="job", attempt=1).state.best == ENTRY


def test_a_repeated_step_has_one_point_that_of_the_newest_attempt(store: DirectoryStore) -> None:
    write_segment(store, "t", [CurvePoint(step=0, held_out_loss=9.0), *_points(1, 4, 1.0)], generation=1)
    write_segment(store, "t", _points(5, 6, 1.0), generation=1)
    write_segment(store, "t", [*_points(5, 8, 2.0), CurvePoint(step=8, held_out_loss=7.0)], generation=2)
    found = read_curves(store, "t")
    assert [(p.step, p.loss, p.held_out_loss) for p in found] == [
        (0, None, 9.0),
        *((step, 1.0, None) for step in (1, 2, 3, 4)),
        *((step, 2.0, None) for step in (5, 6, 7, 8)),
        (8, None, 7.0),
    ]


def test_an_interval_without_a_point_writes_nothing(store: DirectoryStore) -> None:
    write_segment(store, "t", [], generation=1)
    assert read_curves(store, "t") == []
    assert merge([]) == []


def _points(first: int, last: int, loss: float) -> list[CurvePoint]:
    return [CurvePoint(step=step, loss=loss) for step in range(first, last + 1)]
