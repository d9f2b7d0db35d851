"""What is shown while a job runs: bars on a terminal, a line now and then elsewhere. Logs go to files, never here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from distill_runtime.contract.outcome import ExitCode, Outcome, Progress

LINES_OF_A_STAGE = 10
"""Where there is no terminal, a line is printed each time such a part more is done."""
SECONDS_BETWEEN_LINES = 30.0
"""… or this much time has passed."""
LEAST_SECONDS_BETWEEN_LINES = 5.0
"""Within a stage, lines come no faster."""


class Display(Protocol):
    """What a run shows."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, text: str) -> None:
        """Tells something once."""
        ...

    def progress(self, container: str, progress: Progress) -> None:
        """Shows what a container is doing."""
        ...

    def ended(self, container: str, outcome: Outcome) -> None:
        """Shows that a container has ended."""
        ...


def display_for(console: Console) -> Display:
    """Bars on a terminal, lines elsewhere."""
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


def details(progress: Progress) -> str:
    """Rate, losses and waiting, where known."""
    parts: list[str] = []
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    if progress.held_out_loss is not None:
        parts.append(f"held-out {progress.held_out_loss:.4g}")
    if progress.wait_fraction is not None and progress.wait_fraction >= 0.005:
        parts.append(f"waiting for teacher {progress.wait_fraction:.0%}")
    if progress.packing_efficiency is not None and progress.packing_efficiency < 0.995:
        parts.append(f"padding {1 - progress.packing_efficiency:.0%}")
    if progress.reused:
        parts.append(f"{progress.reused} reused")
    if progress.message:
        parts.append(progress.message)
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """`4:05`, or `1:04:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _fixed(min_width: int | None = None) -> Column:
    """A column as wide as its content: only the details behind it give way on a narrow terminal."""
    return Column(no_wrap=True, min_width=min_width)


class BarDisplay:
    """A bar for each stage of each container."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.fields[container]:<10} {task.description:<10}", markup=False, table_column=_fixed()),
            BarColumn(bar_width=20, table_column=_fixed(min_width=20)),
            MofNCompleteColumn(table_column=_fixed()),
            TextColumn("{task.fields[unit]}", markup=False, table_column=_fixed()),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=_fixed(min_width=5)),
            TextColumn(
                "{task.fields[details]}",
                markup=False,
                style="dim",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=console,
            expand=True,
            refresh_per_second=4,
        )
        self._current: dict[str, tuple[str, TaskID]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Prints above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def progress(self, container: str, progress: Progress) -> None:
        """Moves the container's bar, or begins one for its next stage."""
        stage, task = self._current.get(container, (None, None))
        if task is None or stage != progress.stage:
            self._stop(container)
            task = self._bars.add_task(
                progress.stage, total=progress.total, container=container, unit=progress.unit, details=""
            )
            self._current[container] = (progress.stage, task)
        self._bars.update(
            task, completed=progress.done, total=progress.total, unit=progress.unit, details=details(progress)
        )

    def ended(self, container: str, outcome: Outcome) -> None:
        """Stops the container's clock."""
        self._stop(container)
        self._current.pop(container, None)

    def _stop(self, container: str) -> None:
        if container in self._current:
            self._bars.stop_task(self._current[container][1])


@dataclass
class _Line:
    stage: str
    begun: float
    first: int
    shown: float
    """When the last line was printed."""
    parts: int
    """How much was done then."""


class LineDisplay:
    """A line at each stage, and while it goes on at every tenth or every half minute."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lines: dict[str, _Line] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Prints one line, however long."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, container: str, progress: Progress) -> None:
        """Prints a line if it is time for one."""
        now, line = self._clock(), self._lines.get(container)
        parts = progress.done * LINES_OF_A_STAGE // progress.total if progress.total else 0
        if line is None or line.stage != progress.stage:
            line = _Line(progress.stage, now, progress.done, now, parts)
            self._lines[container] = line
        else:
            since = now - line.shown
            more = parts > line.parts and since >= LEAST_SECONDS_BETWEEN_LINES
            if not more and since < SECONDS_BETWEEN_LINES:
                return
            line.shown, line.parts = now, parts
        self.say(f"{container}: {progress.stage} {self._counts(progress, line, now)}".rstrip())

    def ended(self, container: str, outcome: Outcome) -> None:
        """Prints how it ended."""
        self._lines.pop(container, None)
        self.say(f"{container}: {'finished' if outcome.code is ExitCode.FINISHED else outcome.message}")

    def _counts(self, progress: Progress, line: _Line, now: float) -> str:
        parts: list[str] = []
        if progress.total:
            parts.append(f"{progress.done}/{progress.total} {progress.unit}")
            new = progress.done - line.first
            if new > 0 and progress.done < progress.total:
                left = (now - line.begun) / new * (progress.total - progress.done)
                parts.append(f"{duration(left)} left")
        elif progress.done:
            parts.append(f"{progress.done} {progress.unit}")
        if not progress.total and now > line.begun:
            parts.append(f"for {duration(now - line.begun)}")
        return " · ".join([*parts, *filter(None, [details(progress)])])
