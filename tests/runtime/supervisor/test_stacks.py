"""A hang leaves the stacks of the role's processes in the log."""

import signal
import time

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import Progress
from distill_runtime.supervisor.running import TURN_SECONDS
from distill_runtime.supervisor.stacks import StandstillWatch
from tests.runtime.supervisor.container import SAY, Container

RANK = """
from distill_runtime.process import write_stacks_when_asked
write_stacks_when_asked()
"""
HANGS = """
signal.signal(signal.SIGTERM, lambda *_: None)
def hangs_in_a_collective():
    here(sys.argv[1]); time.sleep(120)
hangs_in_a_collective()
"""
SAVES_SLOWLY = """
def save(*_):
    say(143, "Checkpointed"); os._exit(143)
signal.signal(signal.SIGTERM, save)
def waits_for_the_store():
    here(); time.sleep(120)
waits_for_the_store()
"""


def test_ranks_that_must_be_killed_leave_their_stacks(container: Container) -> None:
    rank = SAY + RANK + HANGS
    spawn = (
        f"rank = {rank!r}\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "ranks = [subprocess.Popen([sys.executable, '-c', rank, name]) for name in 'ab']\n"
        "time.sleep(120)"
    )
    process = container.start(spawn, **{environment.GRACE_SECONDS: "0.5"})
    for name in "ab":
        container.wait_for_role(name)
    process.send_signal(signal.SIGTERM)
    outcome, log = container.end_and_log_of(process)
    assert outcome.reason == "GraceExceeded"
    assert log.count("in hangs_in_a_collective") == 2


def test_a_role_that_stood_still_leaves_its_stacks_before_it_saves(container: Container) -> None:
    container.standstill = 0.5
    process = container.start(RANK + 'report("train", done=3)\n' + SAVES_SLOWLY)
    container.wait_for_role()
    time.sleep(TURN_SECONDS + 1.0)
    process.send_signal(signal.SIGTERM)
    outcome, log = container.end_and_log_of(process)
    assert outcome.reason == "Checkpointed"
    assert "stood still" in log
    assert "in waits_for_the_store" in log


def test_a_role_that_gets_on_leaves_no_stacks(container: Container) -> None:
    process = container.start(RANK + 'report("train", done=3)\n' + SAVES_SLOWLY)
    container.wait_for_role()
    process.send_signal(signal.SIGTERM)
    outcome, log = container.end_and_log_of(process)
    assert outcome.reason == "Checkpointed"
    assert "in waits_for_the_store" not in log


def test_a_process_that_cannot_write_its_stacks_is_not_killed_by_the_question(container: Container) -> None:
    container.standstill = 0.5
    process = container.start('report("train", done=3)\n' + SAVES_SLOWLY)
    container.wait_for_role()
    time.sleep(TURN_SECONDS + 1.0)
    process.send_signal(signal.SIGTERM)
    assert container.end_of(process).reason == "Checkpointed"


def test_a_standstill_is_counted_from_the_last_report_that_differed() -> None:
    now = [0.0]
    watch = StandstillWatch(clock=lambda: now[0])
    now[0] = 100.0
    watch.look(None)
    assert watch.still_for() == 0.0, "what never reported doesn't stand still"
    watch.look(Progress(role="student", stage="train", done=1, time=1.0))
    now[0] = 130.0
    watch.look(Progress(role="student", stage="train", done=1, time=2.0))
    assert watch.still_for() == 30.0
    watch.look(Progress(role="student", stage="train", done=2, time=3.0))
    assert watch.still_for() == 0.0
