"""The queue's promises, for any order of additions, failures and ends of passes."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_operator.cluster.objects import JobKey
from distill_operator.cluster.queue import KeyedQueue

KEYS = [JobKey("n", name) for name in "abc"]
WORKERS = 3


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario in an event loop whose clock jumps over all waiting."""

    class Loop(asyncio.SelectorEventLoop):
        passed = 0.0

        def time(self) -> float:
            return self.passed

        def _run_once(self) -> None:
            loop: Any = super()
            timers = [timer for timer in cast("Any", self)._scheduled if not timer.cancelled()]
            if timers and not cast("Any", self)._ready:
                self.passed = max(self.passed, min(timer.when() for timer in timers))
            loop._run_once()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())


async def working(queue: KeyedQueue, work: Callable[[JobKey], Awaitable[None]], seconds: float) -> None:
    """Lets workers work for some time of the loop."""
    workers = [asyncio.create_task(queue.work(work)) for _ in range(WORKERS)]
    await asyncio.sleep(seconds)
    for worker in workers:
        worker.cancel()
    for ended in await asyncio.gather(*workers, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError), ended


STEPS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["add", "add_after", "retry"]), st.floats(0, 20)), max_size=30
)


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, durations=st.lists(st.floats(0.01, 5), min_size=1, max_size=7))
def test_no_key_is_in_work_twice_and_none_is_forgotten(
    steps: list[tuple[JobKey, str, float]], durations: list[float]
) -> None:
    async def scenario() -> None:
        queue, loop = KeyedQueue(), asyncio.get_running_loop()
        begun: list[tuple[JobKey, float]] = []
        due: list[tuple[JobKey, float]] = []
        busy: set[JobKey] = set()

        async def work(key: JobKey) -> None:
            assert key not in busy
            busy.add(key)
            begun.append((key, loop.time()))
            await asyncio.sleep(durations[len(begun) % len(durations)])
            busy.remove(key)

        async def user() -> None:
            for key, step, seconds in steps:
                await asyncio.sleep(seconds / 4)
                asked = loop.time()
                match step:
                    case "add":
                        queue.add(key)
                    case "add_after":
                        queue.add_after(key, seconds)
                    case _:
                        queue.retry(key, at_least=seconds)
                due.append((key, asked))

        await asyncio.gather(user(), working(queue, work, 1000))
        for key, asked in due:
            # A pass that began after it was asked for has seen what there was to see.
            assert any(other == key and when >= asked for other, when in begun), (key, asked, begun)
        assert queue.depth == 0

    run(scenario)


def test_many_additions_are_one_pass() -> None:
    async def scenario() -> None:
        queue, passes = KeyedQueue(), list[JobKey]()

        async def work(key: JobKey) -> None:
            passes.append(key)

        for _ in range(100):
            queue.add(KEYS[0])
        await working(queue, work, 1)
        assert passes == [KEYS[0]]

    run(scenario)


def test_what_is_added_during_a_pass_gets_one_more() -> None:
    async def scenario() -> None:
        queue, passes = KeyedQueue(), list[JobKey]()

        async def work(key: JobKey) -> None:
            passes.append(key)
            if len(passes) == 1:
                queue.add(key)
                queue.add(key)
            await asyncio.sleep(1)

        queue.add(KEYS[0])
        await working(queue, work, 10)
        assert passes == [KEYS[0]] * 2

    run(scenario)


def test_failures_wait_ever_longer_up_to_a_bound_and_a_success_ends_that() -> None:
    async def scenario() -> None:
        queue = KeyedQueue()
        pauses = [queue.retry(KEYS[0]) for _ in range(40)]
        assert pauses[0] < 1
        assert all(pauses[number + 4] > pauses[number] for number in range(2))
        assert max(pauses) <= 15
        assert queue.retry(KEYS[1]) < 1
        queue.succeeded(KEYS[0])
        assert queue.retry(KEYS[0]) < 1

    run(scenario)


def test_a_pause_that_the_server_asked_for_is_kept() -> None:
    async def scenario() -> None:
        queue, loop, passes = KeyedQueue(), asyncio.get_running_loop(), list[float]()

        async def work(_: JobKey) -> None:
            passes.append(loop.time())

        assert queue.retry(KEYS[0], at_least=60) == 60
        await working(queue, work, 100)
        assert passes == [pytest.approx(60)]

    run(scenario)


def test_the_first_of_two_times_counts() -> None:
    async def scenario() -> None:
        queue, loop, passes = KeyedQueue(), asyncio.get_running_loop(), list[float]()

        async def work(_: JobKey) -> None:
            passes.append(loop.time())

        queue.add_after(KEYS[0], 30)
        queue.add_after(KEYS[0], 10)
        queue.add_after(KEYS[0], 20)
        await working(queue, work, 100)
        assert passes == [pytest.approx(10)]

    run(scenario)


def test_age_and_depth_say_how_far_behind_it_is() -> None:
    async def scenario() -> None:
        queue = KeyedQueue()
        assert (queue.depth, queue.oldest_seconds, queue.in_work_seconds) == (0, 0, 0)
        queue.add(KEYS[0])
        await asyncio.sleep(5)
        queue.add(KEYS[1])
        assert (queue.depth, queue.oldest_seconds) == (2, pytest.approx(5))

        async def work(_: JobKey) -> None:
            await asyncio.sleep(7)
            assert queue.in_work_seconds == pytest.approx(7)
            assert queue.longest_in_work in KEYS

        await working(queue, work, 8)

    run(scenario)
