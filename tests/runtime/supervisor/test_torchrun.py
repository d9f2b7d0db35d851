"""Ranks under the real torchrun: they get the whole grace to save, and nobody kills them before."""

import signal
import subprocess

import pytest

from distill_runtime.contract import environment
from distill_runtime.supervisor.commands import commands
from tests.runtime.supervisor.container import SAY, Container, free_port, wait_for

TORCHRUN_SECONDS = 120.0
"""torchrun imports torch first."""
RANK = """
from distill_runtime.process import write_stacks_when_asked
write_stacks_when_asked()
rank = os.environ["LOCAL_RANK"]
def save(*_):
    here(f"asked-{rank}")
    time.sleep(float(sys.argv[1]))
    say(143, "Checkpointed", f"outcome-{rank}.json")
    os._exit(143)
signal.signal(signal.SIGTERM, save)
def trains():
    here(f"here-{rank}")
    while True:
        time.sleep(0.05)
trains()
"""


def start_ranks(container: Container, *, saving: float, grace: float) -> "subprocess.Popen[str]":
    """Two ranks that take so many seconds to save."""
    program = container.folder / "rank.py"
    program.write_text(SAY + RANK)
    place = {environment.PROCESSES: "2", environment.MASTER_PORT: str(free_port())}
    (torchrun,) = commands("student", place)
    assert torchrun[-2:] == ["-m", "distill_runtime.student"]
    process = container.start_commands(
        [[*torchrun[1:-2], str(program), str(saving)]], **{environment.GRACE_SECONDS: str(grace)}
    )
    for rank in "01":
        path = container.state / f"here-{rank}"
        wait_for(path.exists, f"rank {rank}", TORCHRUN_SECONDS)
    return process


@pytest.mark.parametrize(
    ("saving", "grace"),
    [
        pytest.param(5.5, 6.5, id="most of the grace"),
        pytest.param(32.0, 45.0, id="more than torchrun's own 30 s"),
    ],
)
def test_ranks_have_the_whole_grace(container: Container, saving: float, grace: float) -> None:
    process = start_ranks(container, saving=saving, grace=grace)
    process.send_signal(signal.SIGTERM)
    outcome = container.end_of(process, TORCHRUN_SECONDS)
    assert (outcome.code, outcome.reason) == (143, "Checkpointed")
    assert {path.name for path in container.state.glob("outcome-*.json")} == {"outcome-0.json", "outcome-1.json"}


def test_ranks_that_take_longer_are_killed_and_leave_their_stacks(container: Container) -> None:
    process = start_ranks(container, saving=120.0, grace=2.0)
    process.send_signal(signal.SIGTERM)
    outcome, log = container.end_and_log_of(process, TORCHRUN_SECONDS)
    assert (outcome.code, outcome.reason) == (75, "GraceExceeded")
    assert log.count("in trains") == 2
