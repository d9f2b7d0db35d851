"""Replicas that make results together, against a real store: in threads, and as processes that die."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distill_runtime.errors import RetryError
from distill_runtime.evaluation.sharing import SharedResults
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.transport.patience import Pace

KEYS = [f"evaluations/{number}.json" for number in range(4)]
QUICK = Pace(poll_seconds=0.05)
DIES = """
import sys, time
from pathlib import Path
from distill_runtime.evaluation.sharing import SharedResults
from distill_runtime.store.directory import DirectoryStore
folder = Path(sys.argv[1])
shared = SharedResults(DirectoryStore(folder / "store"), uid="u", attempt=1, replica="dies", lease_seconds=1.0)
def make():
    (folder / "claimed").touch()
    time.sleep(120)
shared.make({sys.argv[2]: make}, lambda: None)
"""


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def replica(store: DirectoryStore, name: str, *, lease_seconds: float = 30.0, attempt: int = 1) -> SharedResults:
    return SharedResults(store, uid="u", attempt=attempt, replica=name, lease_seconds=lease_seconds, pace=QUICK)


def nothing() -> None:
    pass


def leave_a_dead_claim(folder: Path) -> None:
    """A replica of attempt 1 claims the first result and is killed."""
    process = subprocess.Popen([sys.executable, "-c", DIES, str(folder), KEYS[0]])
    try:
        give_up = time.monotonic() + 60
        while not (folder / "claimed").exists():
            assert time.monotonic() < give_up
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("replicas", [2, 3])
def test_each_result_is_made_once_and_everyone_ends_when_all_are_stored(store: DirectoryStore, replicas: int) -> None:
    made: Counter[str] = Counter()
    at_work: set[str] = set()
    lock = threading.Lock()

    def maker(key: str) -> Callable[[], None]:
        def make() -> None:
            with lock:
                assert key not in at_work, "two at once"
                at_work.add(key)
                made[key] += 1
            time.sleep(0.3)
            store.put(key, b"{}")
            at_work.discard(key)

        return make

    def run(name: str) -> set[str]:
        own = replica(store, name).make({key: maker(key) for key in KEYS}, nothing)
        assert all(store.exists(key) for key in KEYS)
        return own

    with ThreadPoolExecutor(replicas) as pool:
        shares = list(pool.map(run, [f"t{number}" for number in range(replicas)]))
    assert made == Counter(KEYS)
    assert sorted(key for share in shares for key in share) == KEYS
    assert [info.key for info in store.list("evaluations/")] == KEYS, "no claim stays"


def test_what_is_there_is_not_made_again(store: DirectoryStore) -> None:
    store.put(KEYS[0], b"{}")
    made = replica(store, "t0").make({KEYS[0]: lambda: pytest.fail("made again")}, nothing)
    assert made == set()


def test_a_replica_that_finds_all_taken_says_that_it_waits(store: DirectoryStore) -> None:
    begun, go_on, waits = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(30)
        store.put(KEYS[0], b"{}")

    def told() -> None:
        waits.set()
        go_on.set()

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(replica(store, "t0").make, {KEYS[0]: slow}, nothing)
        assert begun.wait(30)
        assert replica(store, "t1").make({KEYS[0]: lambda: pytest.fail("two at once")}, told) == set()
        assert first.result(30) == {KEYS[0]}
    assert waits.is_set()


def test_a_maker_that_fails_gives_its_claim_up_at_once(store: DirectoryStore) -> None:
    def fails() -> None:
        raise RetryError("the engine died.")

    with pytest.raises(RetryError, match="the engine died"):
        replica(store, "t0", lease_seconds=3600).make({KEYS[0]: fails}, nothing)
    made = replica(store, "t1").make({KEYS[0]: lambda: store.put(KEYS[0], b"{}")}, lambda: pytest.fail("waits"))
    assert made == {KEYS[0]}


def test_a_claim_is_renewed_for_as_long_as_its_result_takes(store: DirectoryStore) -> None:
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(3.0)
        store.put(KEYS[0], b"{}")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(replica(store, "t0", lease_seconds=1.0).make, {KEYS[0]: slow}, nothing)
        assert begun.wait(30)
        other = replica(store, "t1", lease_seconds=1.0)
        assert other.make({KEYS[0]: lambda: pytest.fail("taken over from a living one")}, nothing) == set()
        assert first.result(30) == {KEYS[0]}


def test_what_a_dead_replica_held_is_taken_over_after_its_lease(store: DirectoryStore, tmp_path: Path) -> None:
    leave_a_dead_claim(tmp_path)
    begun = time.monotonic()
    made = replica(store, "t1", lease_seconds=1.0).make({KEYS[0]: lambda: store.put(KEYS[0], b"{}")}, nothing)
    assert made == {KEYS[0]}
    assert time.monotonic() - begun >= 1.0


def test_a_claim_of_an_older_attempt_holds_nobody_up(store: DirectoryStore, tmp_path: Path) -> None:
    leave_a_dead_claim(tmp_path)
    newer = replica(store, "t1", lease_seconds=3600, attempt=2)
    assert newer.make({KEYS[0]: lambda: store.put(KEYS[0], b"{}")}, nothing) == {KEYS[0]}
