"""Asking pods how far they are: real HTTP, and no harm by what they answer."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from distill_operator.cluster.objects import JobKey
from distill_operator.cluster.progress import ProgressPoller
from distill_operator.cluster.resources import PODS
from distill_operator.cluster.store import Store
from distill_runtime.contract.outcome import Progress
from tests.unit.cluster.objects import Object, pod

KEY = JobKey("n", "j")
Answer = Callable[[], Awaitable[web.StreamResponse]]


def training(step: int) -> Progress:
    return Progress(role="student", stage="train", done=step, total=10)


def polled(answer: Answer, pods: list[Object], seconds: float = 0.5) -> tuple[dict[str, Progress], list[JobKey], int]:
    """Answers by pod name, whom it told, and how often it asked."""

    async def scenario() -> tuple[dict[str, Progress], list[JobKey], int]:
        asked = 0

        async def serve(_: web.Request) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            return await answer()

        application = web.Application()
        application.router.add_get("/progress", serve)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        store = Store(changed=lambda _: None, departed=lambda _, __: None)
        for item in pods:
            store.heard(PODS, item)
        told: list[JobKey] = []
        poller = ProgressPoller(store, port=runner.addresses[0][1], seconds=0.1, changed=told.append)
        task = asyncio.create_task(poller.run())
        await asyncio.sleep(seconds)
        alive = not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()
        assert alive
        return dict(poller.of(pods)), told, asked

    return asyncio.run(scenario())


def running(name: str = "j-student-0", **options: Object | str) -> Object:
    return pod(name, status={"podIP": "127.0.0.1"}, **options)  # type: ignore[arg-type]


def test_an_answer_is_kept_and_told_once_while_it_stays_the_same() -> None:
    async def answer() -> web.Response:
        return web.Response(text=training(3).model_dump_json(by_alias=True))

    answers, told, asked = polled(answer, [running()])
    assert answers == {"j-student-0": training(3)}
    assert told == [KEY]
    assert asked > 1


def test_news_are_told() -> None:
    steps = iter(range(100))

    async def answer() -> web.Response:
        return web.Response(text=training(next(steps)).model_dump_json(by_alias=True))

    _, told, asked = polled(answer, [running()])
    assert len(told) == asked > 1


def test_what_is_no_progress_is_not_known() -> None:
    async def nothing() -> web.Response:
        return web.Response(status=204)

    async def broken() -> web.Response:
        return web.Response(text="<html>")

    async def failing() -> web.Response:
        return web.Response(status=500, text="{}")

    for answer in (nothing, broken, failing):
        answers, told, asked = polled(answer, [running()], 0.3)
        assert (answers, told) == ({}, [])
        assert asked


def test_nobody_is_asked_who_cannot_know() -> None:
    async def answer() -> web.Response:
        return web.Response(text=training(3).model_dump_json(by_alias=True))

    silent = [
        running("j-student-1"),
        running("j-student-0", deletionTimestamp="2026-11-25T10:09:00Z"),
        pod("j-teacher-x", role="teacher", status={"phase": "Pending", "podIP": "127.0.0.1"}),
        pod("j-teacher-y", role="teacher"),
    ]
    assert polled(answer, silent, 0.3)[2] == 0


def test_a_silent_pod_holds_up_no_other() -> None:
    async def answer() -> web.Response:
        return web.Response(text=training(3).model_dump_json(by_alias=True))

    # A port that nobody serves, on another address of this machine.
    unreachable = pod("j-teacher-x", role="teacher", status={"podIP": "127.0.0.9"})
    answers, _, _ = polled(answer, [unreachable, running()])
    assert list(answers) == ["j-student-0"]
