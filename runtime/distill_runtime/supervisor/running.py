"""Runs the commands of one role to their end, as the only one who talks to its processes."""

import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import KILLED, OUTCOME_FILE, PROGRESS_FILE, ExitCode, Fact, Outcome
from distill_runtime.contract.run import Role
from distill_runtime.progress import write_atomically
from distill_runtime.supervisor import processes
from distill_runtime.supervisor.conclusion import Ending, conclude, without_a_word
from distill_runtime.supervisor.processes import ASKING, HEARD, descendants
from distill_runtime.supervisor.stacks import StandstillWatch, write_stacks
from distill_runtime.supervisor.vitals import Vitals

STANDSTILL_SECONDS = 300.0
"""A role whose progress stood still for so long when it is asked to end is asked for its stacks first."""
SECONDS_FOR_KILLED = 10.0
"""How long killed processes may take to vanish; a process in the kernel (a dead disk) may never."""
TURN_SECONDS = 1.0
"""The loop turns at least so often."""
TORCHRUN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""What torchrun gives its ranks between its own SIGTERM and their SIGKILL; 30 seconds without it."""
TORCHRUN_SLACK_SECONDS = 60
"""torchrun gets so much more than the grace: the ranks have all of it, and it is the supervisor that kills them."""

log = logging.getLogger(__name__)


class Supervisor:
    """Runs the commands of one role to their end.

    It blocks and waits for signals, and becomes the parent of orphans: use it in a process of its own.
    """

    def __init__(
        self,
        role_commands: Sequence[Sequence[str]],
        folder: Path,
        vitals: Vitals,
        *,
        attempt: int = 1,
        grace: float = 60.0,
        standstill: float = STANDSTILL_SECONDS,
    ) -> None:
        self._role: Role = vitals.role
        self._commands = role_commands
        self._folder = folder
        self._vitals = vitals
        self._attempt = attempt
        self._grace = grace
        self._standstill = standstill
        self._watch = StandstillWatch()
        self._asked = False
        self._kill_now = False

    def run(self) -> Outcome:
        """Runs all commands, leaves the last word in the state folder and returns it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        processes.adopt_orphans()
        self._follow_parent()
        outcome = self._run_commands()
        write_atomically(self._folder / OUTCOME_FILE, outcome.termination_message())
        return outcome

    def last_word(self) -> Outcome:
        """The word of an earlier start of this container; one that was killed left none, and gets one."""
        last = dict(self._spoken()).get(OUTCOME_FILE)
        if last is None:
            message = f"{self._role} was restarted in place after it was killed: possibly out of memory."
            last = Outcome(role=self._role, code=ExitCode.RETRY, reason=KILLED, message=message, attempt=self._attempt)
            write_atomically(self._folder / OUTCOME_FILE, last.termination_message())
        return last

    def wait_to_be_removed(self) -> None:
        """Does nothing until it is asked to end."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        while not self._asked:
            self._listen(None)

    def _run_commands(self) -> Outcome:
        facts: dict[str, Fact] = {}
        outcome: Outcome | None = None
        for command in self._commands:
            self._forget()
            ending = self._run_one(command)
            outcome = conclude(self._role, self._attempt, ending, self._spoken())
            facts.update(outcome.facts)
            if outcome.code is not ExitCode.FINISHED:
                break
            if self._asked and command is not self._commands[-1]:
                outcome = without_a_word(self._role, self._attempt, Ending(0, asked=True, overdue=False))
                break
        assert outcome is not None, "a role has commands"
        return outcome.model_copy(update={"facts": facts})

    def _run_one(self, command: Sequence[str]) -> Ending:
        """Runs one command until it and all that it started have ended."""
        ranks_timeout = str(int(self._grace) + TORCHRUN_SLACK_SECONDS)
        child = processes.start(command, {TORCHRUN_TIMEOUT: ranks_timeout, **os.environ})
        self._vitals.role_is_up()
        due: float | None = None
        killed = False
        while (status := processes.reap(child.pid)) is None:
            if self._asked and due is None:
                due = time.monotonic() + self._grace
                self._ask(child.pid)
            if due is not None and not killed and (self._kill_now or time.monotonic() >= due):
                killed = True
                self._kill()
            self._listen(None if due is None or killed else due - time.monotonic())
        child.returncode = os.waitstatus_to_exitcode(status)  # It was reaped here, not by `child`.
        self._end_leftovers()
        self._vitals.role_is_down()
        return Ending(child.returncode, asked=due is not None, overdue=killed)

    def _ask(self, pid: int) -> None:
        """Asks the command to end; where nothing has moved for long, its stacks first say why."""
        self._watch.look(self._vitals.progress())
        still = self._watch.still_for()
        if still >= self._standstill:
            write_stacks(f"{self._role} is asked to end and its progress stood still for {still:.0f} s")
        processes.send([pid], signal.SIGTERM)

    def _kill(self) -> None:
        """Kills the command and all that it started; where its grace is over, its stacks first say why."""
        if not self._kill_now:
            why = f"{self._role} did not end within its grace of {self._grace:g} s"
            write_stacks(why)
            log.error("%s: killing it", why)
        processes.send(descendants(os.getpid()), signal.SIGKILL)

    def _listen(self, seconds: float | None) -> None:
        """Waits for a signal, at most this long, and lets the loop turn."""
        most = TURN_SECONDS if seconds is None else min(TURN_SECONDS, max(0.0, seconds))
        heard = signal.sigtimedwait(HEARD, most)
        self._vitals.turned()
        self._watch.look(self._vitals.progress())
        if heard is None or heard.si_signo not in ASKING:
            return
        # The parent's death (SIGHUP) may follow its SIGTERM: only a repeated SIGTERM or SIGINT means "now".
        self._kill_now = self._kill_now or (self._asked and heard.si_signo != signal.SIGHUP)
        self._asked = True

    def _end_leftovers(self) -> None:
        """Kills what the command left behind; orphans have become children of this process."""
        give_up = time.monotonic() + SECONDS_FOR_KILLED
        while left := descendants(os.getpid()):
            if time.monotonic() >= give_up:
                log.error("processes that can't be killed: %s", left)
                return
            processes.send(left, signal.SIGKILL)
            processes.reap(0)
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
            processes.reap(0)

    def _spoken(self) -> list[tuple[str, Outcome]]:
        """What the role's processes left, by the file's name, the oldest first."""
        spoken: list[tuple[str, Outcome]] = []
        for path in sorted(self._folder.glob("outcome*.json"), key=lambda path: path.stat().st_mtime_ns):
            try:
                spoken.append((path.name, Outcome.model_validate_json(path.read_bytes())))
            except ValidationError as error:
                log.error("%s is not an outcome: %s", path, error)
        return spoken

    def _forget(self) -> None:
        """Removes what an earlier start left: it must not be taken for this one's."""
        for path in [*self._folder.glob("outcome*.json"), self._folder / PROGRESS_FILE]:
            path.unlink(missing_ok=True)

    def _follow_parent(self) -> None:
        parent = os.environ.get(environment.PARENT)
        if parent is None:
            return
        processes.hear_of_parents_death()
        if os.getppid() != int(parent):  # It died before this was set.
            self._asked = True
