"""The supervisor's pure half: what is run for a role, and whose word counts at its end."""

import itertools
import signal
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import ExitCode, Outcome
from distill_runtime.supervisor.commands import commands
from distill_runtime.supervisor.conclusion import Ending, conclude

CRASH = Ending(1, asked=False, overdue=False)


def word(code: ExitCode, reason: str = "R", **fields: Any) -> Outcome:
    return Outcome(role="student", code=code, reason=reason, message=f"{code.name} {reason}", **fields)


FINISHED = word(ExitCode.FINISHED)
USER = word(ExitCode.USER_ERROR)
RETRY = word(ExitCode.RETRY)
CRASHED = word(ExitCode.RETRY, "Crashed")
NEEDS = word(ExitCode.RETRY, needs="signals")
SAVED = word(ExitCode.CHECKPOINTED)
RANKING = [USER, NEEDS, RETRY, CRASHED, SAVED]


@pytest.mark.parametrize(("stronger", "weaker"), list(itertools.combinations(RANKING, 2)))
@pytest.mark.parametrize("first", [True, False])
def test_the_stronger_word_wins_whoever_spoke_last(stronger: Outcome, weaker: Outcome, first: bool) -> None:
    spoken = [("outcome-0.json", stronger), ("outcome-1.json", weaker)]
    assert conclude("student", 1, CRASH, spoken if first else spoken[::-1]) == stronger


@given(st.permutations(RANKING), st.integers(1, 5))
def test_any_users_error_wins_in_any_order(words: list[Outcome], ranks: int) -> None:
    spoken = [(f"outcome-{rank}.json", one) for rank, one in enumerate([*words[:ranks], USER])]
    assert conclude("student", 1, CRASH, spoken).code is ExitCode.USER_ERROR


def test_finished_is_rank_0s_word_alone() -> None:
    ended = Ending(0, asked=False, overdue=False)
    assert conclude("student", 1, ended, [("outcome-0.json", FINISHED)]) == FINISHED
    assert conclude("prepare", 1, ended, [("outcome.json", FINISHED)]) == FINISHED
    assert conclude("student", 1, ended, [("outcome-1.json", FINISHED)]).code is ExitCode.RETRY
    assert conclude("student", 1, CRASH, [("outcome-0.json", FINISHED), ("outcome-1.json", RETRY)]) == RETRY


@pytest.mark.parametrize(
    ("ending", "code", "reason"),
    [
        (Ending(0, asked=False, overdue=False), ExitCode.RETRY, "NoOutcome"),
        (Ending(1, asked=False, overdue=False), ExitCode.RETRY, "NoOutcome"),
        (Ending(65, asked=False, overdue=False), ExitCode.USER_ERROR, "NoOutcome"),
        (Ending(-signal.SIGKILL, asked=False, overdue=False), ExitCode.RETRY, "Killed"),
        (Ending(-signal.SIGTERM, asked=False, overdue=False), ExitCode.RETRY, "Killed"),
        (Ending(-signal.SIGSEGV, asked=False, overdue=False), ExitCode.RETRY, "Crashed"),
        (Ending(-signal.SIGTERM, asked=True, overdue=False), ExitCode.CHECKPOINTED, "Terminated"),
        (Ending(1, asked=True, overdue=False), ExitCode.CHECKPOINTED, "Terminated"),
        (Ending(-signal.SIGKILL, asked=True, overdue=False), ExitCode.RETRY, "Killed"),
        (Ending(-signal.SIGKILL, asked=True, overdue=True), ExitCode.RETRY, "GraceExceeded"),
    ],
)
def test_without_a_word_the_way_of_the_end_speaks(ending: Ending, code: ExitCode, reason: str) -> None:
    outcome = conclude("teacher", 4, ending, [])
    assert (outcome.code, outcome.reason, outcome.attempt) == (code, reason, 4)


def test_each_role_runs_its_module() -> None:
    assert commands("prepare", {}) == [[sys.executable, "-m", "distill_runtime.prepare"]]
    assert commands("evaluate", {}) == [[sys.executable, "-m", "distill_runtime.evaluation", "--subject", "students"]]
    teacher = [sys.executable, "-m", "distill_runtime.teacher"]
    assert commands("teacher", {}) == [teacher]
    assert commands("teacher", {environment.EVALUATE_TEACHER: "yes"}) == [
        teacher,
        [sys.executable, "-m", "distill_runtime.evaluation", "--subject", "teacher"],
    ]


def test_the_student_runs_under_torchrun_with_its_place_and_without_restarts() -> None:
    place = {
        environment.NODES: "2",
        environment.NODE_RANK: "1",
        environment.PROCESSES: "4",
        environment.MASTER_ADDRESS: "student-0",
        environment.MASTER_PORT: "1234",
    }
    (command,) = commands("student", place)
    assert command[1:3] == ["-m", "torch.distributed.run"]
    assert {*command[3:9]} == {
        "--nnodes=2",
        "--node-rank=1",
        "--nproc-per-node=4",
        "--master-addr=student-0",
        "--master-port=1234",
        "--max-restarts=0",
    }
    assert command[9:] == ["-m", "distill_runtime.student"]
