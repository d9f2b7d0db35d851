"""What is shown while a job runs."""

import io

from rich.console import Console

from distill_operator.cli.display import BarDisplay, LineDisplay, details, display_for, duration
from distill_runtime.contract.outcome import ExitCode, Outcome, Progress


def step(done: int, stage: str = "train", **fields: float | str) -> Progress:
    return Progress.model_validate({"role": "student", "stage": stage, "done": done, "total": 100, **fields})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(reports: list[tuple[float, Progress]]) -> list[str]:
    text, clock = io.StringIO(), Clock()
    display = LineDisplay(Console(file=text, width=40), clock)
    for at, progress in reports:
        clock.now = at
        display.progress("student-0", progress)
    return text.getvalue().splitlines()


def test_without_a_terminal_a_stage_begins_with_a_line() -> None:
    printed = lines([(0, step(0, "load")), (1, step(0)), (2, step(1)), (3, step(0, "export"))])
    assert printed == ["student-0: load 0/100 steps", "student-0: train 0/100 steps", "student-0: export 0/100 steps"]


def test_a_fast_stage_prints_at_every_tenth_but_not_faster_than_five_seconds() -> None:
    printed = lines([(second, step(second * 2)) for second in range(51)])
    assert len(printed) == 11
    assert printed[1] == "student-0: train 10/100 steps · 0:45 left"
    rushed = lines([(second / 10, step(min(100, second * 2))) for second in range(51)])
    assert len(rushed) == 2


def test_a_slow_stage_prints_every_half_minute() -> None:
    assert len(lines([(second, step(1)) for second in range(301)])) == 11


def test_a_stage_without_a_total_tells_how_long_it_goes_on() -> None:
    load = Progress(role="student", stage="load")
    assert lines([(0, load), (20, load), (45, load)]) == ["student-0: load", "student-0: load for 0:45"]


def test_a_line_has_rate_loss_and_waiting_and_is_not_broken() -> None:
    (line,) = lines(
        [(0, step(3, tokensPerSecond=1234.5, loss=0.12345, heldOutLoss=2, waitFraction=0.125, message="[a]"))]
    )
    assert line == (
        "student-0: train 3/100 steps · 1,234 tokens/s · loss 0.1235 · held-out 2 · waiting for teacher 12% · [a]"
    )


def test_details_leave_out_what_is_not_known() -> None:
    assert details(step(1)) == ""
    assert details(step(1, waitFraction=0.001, reused=0, packingEfficiency=0.999)) == ""


def test_details_tell_the_padding_where_there_is_some() -> None:
    assert details(step(1, loss=0.5, packingEfficiency=0.875)) == "loss 0.5 · padding 12%"


def test_durations_are_clock_like() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 245, 3845)] == ["0:00", "1:00", "4:05", "1:04:05"]


def test_a_terminal_gets_a_bar_for_each_stage() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160)
    display = display_for(console)
    assert isinstance(display, BarDisplay)
    with display:
        display.progress("student-0", step(0, "load"))
        display.progress("student-0", step(40, loss=0.5))
        display.say("a word [b]")
        outcome = Outcome(role="student", code=ExitCode.FINISHED, reason="Finished", message="done")
        display.ended("student-0", outcome)
    shown = text.getvalue()
    assert "load" in shown
    assert "40/100" in shown
    assert "loss 0.5" in shown
    assert "a word [b]" in shown


def test_a_file_gets_lines() -> None:
    assert isinstance(display_for(Console(file=io.StringIO())), LineDisplay)
