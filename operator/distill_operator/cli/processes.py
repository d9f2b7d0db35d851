"""Containers as processes that start together and end together."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from distill_runtime.contract.outcome import KILLED, OUTCOME_FILE, PROGRESS_FILE, SILENT, ExitCode, Outcome, Progress
from distill_runtime.contract.run import Role

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_KILL = 15.0
"""What a supervisor gets to kill its role before it is killed itself."""
SAME_INTERRUPT_SECONDS = 1.0
"""Signals closer than this are one interrupt: wrappers pass the terminal's Ctrl-C on once more."""
MARGIN_SECONDS = 5.0
"""A supervisor ends this much after its role's grace at the latest."""


@dataclass(frozen=True)
class Launch:
    """A process to start."""

    role: Role
    name: str
    command: list[str]
    environment: dict[str, str]
    """The whole environment."""
    log: Path
    """Its output is appended here."""
    state: Path
    """Its state folder."""


@dataclass(frozen=True)
class Ended:
    """A container that has ended."""

    launch: Launch
    outcome: Outcome
    before_all_were_asked: bool
    """It ended by itself, not because another one had failed."""
    log_start: int
    """Where in the log this process began."""


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP of this process, counted instead of obeyed, while the context lasts."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self.first: int | None = None
        self._last = 0.0

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._heard) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.first is None or now - self._last >= SAME_INTERRUPT_SECONDS:
            self.count += 1
        self._last = now
        self.first = self.first or number


class _Running:
    def __init__(self, launch: Launch, keep_open: Sequence[int]) -> None:
        self.launch = launch
        with launch.log.open("ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                launch.command,
                env=launch.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C on the terminal is for distillctl alone, which passes it on.
                pass_fds=keep_open,
            )

    def progress(self) -> Progress | None:
        """What it reports now; None before its first word."""
        try:
            return Progress.model_validate_json((self.launch.state / PROGRESS_FILE).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def outcome(self) -> Outcome:
        """Its last word, or what its exit code says."""
        launch, code = self.launch, self.process.returncode
        try:
            return Outcome.model_validate_json((launch.state / OUTCOME_FILE).read_bytes())
        except (FileNotFoundError, ValidationError):
            killed = code < 0
            how = f"was ended by {signal.Signals(-code).name}" if killed else f"ended with exit code {code}"
            message = f"{launch.name} {how} without a word."
            return Outcome(role=launch.role, code=ExitCode.RETRY, reason=KILLED if killed else SILENT, message=message)


def run_together(
    launches: Sequence[Launch],
    interrupts: Interrupts,
    *,
    grace: float,
    show: Callable[[Launch, Progress], None] = lambda launch, progress: None,
    told: Callable[[Ended], None] = lambda ended: None,
    keep_open: Sequence[int] = (),
) -> list[Ended]:
    """Runs all to their end, and returns how each ended, the first first.

    When one fails, or the user interrupts, all are asked to end (SIGTERM) and get `grace` seconds; a second interrupt
    kills them at once.
    """
    running: list[_Running] = []
    ended: list[Ended] = []
    asked_at: float | None = None
    try:
        for launch in launches:
            running.append(_Running(launch, keep_open))
        while running:
            _show(running, show)
            _collect(running, ended, asked_at is None, told)
            failed = any(one.outcome.code is not ExitCode.FINISHED for one in ended)
            if asked_at is None and (failed or interrupts.count):
                asked_at = time.monotonic()
                _signal(running, signal.SIGTERM)
            if asked_at is not None and (interrupts.count > 1 or time.monotonic() > asked_at + grace + MARGIN_SECONDS):
                break
            time.sleep(SECONDS_BETWEEN_LOOKS if running else 0)
    finally:
        _kill(running)
    _collect(running, ended, asked_at is None, told)
    return ended


def _collect(running: list[_Running], ended: list[Ended], alone: bool, told: Callable[[Ended], None]) -> None:
    for one in [one for one in running if one.process.poll() is not None]:
        running.remove(one)
        ended.append(Ended(one.launch, one.outcome(), alone, one.log_start))
        told(ended[-1])


def _show(running: Sequence[_Running], show: Callable[[Launch, Progress], None]) -> None:
    for one in running:
        one.process.poll()  # First, so that the last report of one that has ended is shown too.
        progress = one.progress()
        if progress is not None:
            show(one.launch, progress)


def _signal(running: Sequence[_Running], number: signal.Signals) -> None:
    for one in running:
        if one.process.poll() is None:
            one.process.send_signal(number)


def _kill(running: Sequence[_Running]) -> None:
    """Ends what still runs, now. A supervisor that is asked again kills its role; one that doesn't is killed."""
    give_up = time.monotonic() + SECONDS_TO_KILL
    while time.monotonic() < give_up and any(one.process.poll() is None for one in running):
        _signal(running, signal.SIGTERM)
        for one in running:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(1.0)
    for one in running:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def last_lines(path: Path, start: int, count: int) -> list[str]:
    """The last lines of a log behind byte `start`."""
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(start, size - 65536))
        return log.read().decode(errors="replace").splitlines()[-count:]
