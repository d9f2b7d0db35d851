"""PID 1 of every container: `python -m distill_runtime.supervisor prepare|teacher|student|evaluate`.

It starts the role's processes, passes SIGTERM on, reaps what they leave behind, and turns how they ended into one exit
code and one termination message. It imports no engine, so that it is small and always answers.

- SIGTERM, SIGINT or the death of `DISTILL_PARENT` ask the role to save its work (once); after `DISTILL_GRACE_SECONDS`,
  or at a second SIGTERM or SIGINT, it is killed.
- No process of the role outlives it, in whatever session it hid.
- The last word is `outcome.json` in the state folder. The role's processes leave theirs there too; the ranks of a
  student may use `outcome-<rank>.json`. A user's error from any of them wins.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from pydantic import ValidationError

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import (
    CRASHED,
    GRACE_EXCEEDED,
    KILLED,
    OUTCOME_FILE,
    PROGRESS_FILE,
    SILENT,
    TERMINATED,
    ExitCode,
    Outcome,
)
from distill_runtime.contract.run import Role
from distill_runtime.errors import UserError
from distill_runtime.logs import configure_logging
from distill_runtime.process import read_run_config
from distill_runtime.progress import state_folder, write_atomically

GRACE_SECONDS = 60.0
"""Grace without `DISTILL_GRACE_SECONDS`."""
RANKS_SHARE_OF_GRACE = 0.9
"""torchrun kills its ranks after this part of the grace; the rest is for its own end."""
SECONDS_FOR_KILLED = 10.0
"""How long killed processes may take to vanish; a process in the kernel (a dead disk) may never."""
STARTED_FILE = "started"
"""Marker in the state folder: the attempt that was started here."""

_ASK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HEARD = {signal.SIGCHLD, *_ASK}
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

log = logging.getLogger(__name__)


def commands(role: Role, place: Mapping[str, str]) -> list[list[str]]:
    """What is run for this role, one after the other, each only if the one before ended well."""
    python = [sys.executable, "-m"]
    if role == "prepare":
        return [[*python, "distill_runtime.prepare"]]
    if role == "teacher":
        evaluation = [*python, "distill_runtime.evaluation", "--subject", "teacher"]
        scores = place.get(environment.EVALUATE_TEACHER) == "yes"
        return [[*python, "distill_runtime.teacher"], *([evaluation] if scores else [])]
    if role == "evaluate":
        return [[*python, "distill_runtime.evaluation", "--subject", "students"]]
    return [
        [
            *python,
            "torch.distributed.run",
            f"--nnodes={place.get(environment.NODES, '1')}",
            f"--node-rank={place.get(environment.NODE_RANK, '0')}",
            f"--nproc-per-node={place.get(environment.PROCESSES, '1')}",
            f"--master-addr={place.get(environment.MASTER_ADDRESS, '127.0.0.1')}",
            f"--master-port={place.get(environment.MASTER_PORT, '29400')}",
            "--max-restarts=0",
            "-m",
            "distill_runtime.student",
        ]
    ]


@dataclass(frozen=True)
class Ending:
    """How one command ended."""

    code: int
    """Its exit code; a signal's number below zero."""
    asked: bool
    """It was asked to end."""
    overdue: bool
    """It did not within its grace: this process killed it, or torchrun its ranks."""


def conclude(role: Role, attempt: int, ending: Ending, spoken: Sequence[tuple[str, Outcome]]) -> Outcome:
    """The container's last word, from how its command ended and what its processes left, the oldest first.

    A user's error wins over a retry, a retry over a checkpoint. A retry that knows what is missing wins over others,
    and one with a reason over a crash, since the loss of one rank makes the others crash. Finished is the word of rank
    0 alone.
    """
    words = [word for _, word in spoken]
    for code in (ExitCode.USER_ERROR, ExitCode.RETRY):
        errors = [word for word in words if word.code is code]
        if errors:
            return min(errors, key=lambda word: (word.needs is None, word.reason == CRASHED))
    finished = [word for name, word in spoken if word.code is ExitCode.FINISHED and _is_rank_0(name)]
    if finished:
        return finished[-1]
    checkpointed = [word for word in words if word.code is ExitCode.CHECKPOINTED]
    if checkpointed:
        return checkpointed[-1]
    code, reason, message = _without_a_word(role, ending)
    return Outcome(role=role, code=code, reason=reason, message=message, attempt=attempt)


def _is_rank_0(name: str) -> bool:
    return name in (OUTCOME_FILE, "outcome-0.json")


def _without_a_word(role: Role, ending: Ending) -> tuple[ExitCode, str, str]:
    if ending.overdue:
        return (
            ExitCode.RETRY,
            GRACE_EXCEEDED,
            f"{role} was asked to end, was not done within its grace, and was killed.",
        )
    if ending.code == -signal.SIGKILL:
        return ExitCode.RETRY, KILLED, f"{role} was killed (SIGKILL): possibly out of memory."
    if ending.code < 0 and ending.code != -signal.SIGTERM:
        return ExitCode.RETRY, CRASHED, f"{role} died of {signal.Signals(-ending.code).name}; its log may say why."
    if ending.asked:
        return ExitCode.CHECKPOINTED, TERMINATED, f"{role} was ended by SIGTERM before it had anything to save."
    if ending.code == -signal.SIGTERM:
        return ExitCode.RETRY, KILLED, f"{role} was ended by somebody else's SIGTERM."
    if ending.code == ExitCode.USER_ERROR:
        return ExitCode.USER_ERROR, SILENT, f"{role} ended with exit code {ending.code}; its log says why."
    hint = "one of its processes may have been killed (possibly out of memory); " if role == "student" else ""
    message = f"{role} ended with exit code {ending.code} and without a word: {hint}its log may say why."
    return ExitCode.RETRY, SILENT, message


class Supervisor:
    """Runs the commands of one role to their end, as the only one who talks to its processes.

    It blocks and waits for signals, and becomes the parent of orphans: use it in a process of its own.
    """

    def __init__(
        self, role: Role, role_commands: Sequence[Sequence[str]], folder: Path, *, attempt: int = 1, grace: float = 60.0
    ) -> None:
        self._role: Role = role
        self._commands = role_commands
        self._folder = folder
        self._attempt = attempt
        self._grace = grace
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._asked = False
        self._kill_now = False

    def run(self) -> Outcome:
        """Runs all commands, leaves the last word in the state folder and returns it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        self._set_process_option(_PR_SET_CHILD_SUBREAPER, 1)
        self._follow_parent()
        self._folder.mkdir(parents=True, exist_ok=True)
        outcome = self._run_commands()
        write_atomically(self._folder / OUTCOME_FILE, outcome.termination_message())
        return outcome

    def repeat(self) -> Outcome:
        """A container that was started before does no work: it waits for SIGTERM and repeats the last word."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        last = dict(self._spoken()).get(OUTCOME_FILE)
        if last is None:
            message = f"{self._role} was restarted in place after it was killed: possibly out of memory."
            last = Outcome(role=self._role, code=ExitCode.RETRY, reason=KILLED, message=message, attempt=self._attempt)
            write_atomically(self._folder / OUTCOME_FILE, last.termination_message())
        leave_termination_message(last)
        log.warning("Restarted in place: no work is done. Last word: %s", last.message)
        signal.sigwait(_ASK)
        return last

    def _run_commands(self) -> Outcome:
        facts: dict[str, str | int | float | bool | None] = {}
        outcome: Outcome | None = None
        for command in self._commands:
            self._forget()
            ending = self._run_one(command)
            outcome = conclude(self._role, self._attempt, ending, self._spoken())
            facts.update(outcome.facts)
            if outcome.code is not ExitCode.FINISHED:
                break
            if self._asked and command is not self._commands[-1]:
                code, reason, message = _without_a_word(self._role, Ending(0, asked=True, overdue=False))
                outcome = outcome.model_copy(update={"code": code, "reason": reason, "message": message})
                break
        assert outcome is not None, "a role has commands"
        return outcome.model_copy(update={"facts": facts})

    def _run_one(self, command: Sequence[str]) -> Ending:
        """Runs one command in a session of its own until it and all that it started have ended."""
        ranks_timeout = str(max(1, int(self._grace * RANKS_SHARE_OF_GRACE)))
        child = subprocess.Popen(
            command,
            env={"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": ranks_timeout, **os.environ},
            start_new_session=True,
            preexec_fn=self._in_child,  # This process has one thread, so it is safe.
        )
        asked_at: float | None = None
        killed = False
        while (status := self._reap(child.pid)) is None:
            if self._asked and asked_at is None:
                asked_at = time.monotonic()
                os.kill(child.pid, signal.SIGTERM)
            due = asked_at is not None and (self._kill_now or time.monotonic() >= asked_at + self._grace)
            if due and not killed:
                log.error("%s did not end within its grace of %g s: killing it", self._role, self._grace)
                killed = True
                self._kill_all()
            left = None if asked_at is None or killed else asked_at + self._grace - time.monotonic()
            self._listen(left)
        child.returncode = os.waitstatus_to_exitcode(status)  # It was reaped here, not by `child`.
        late = asked_at is not None and time.monotonic() - asked_at >= self._grace * RANKS_SHARE_OF_GRACE
        self._end_leftovers()
        return Ending(child.returncode, asked=asked_at is not None, overdue=killed or (late and child.returncode != 0))

    def _in_child(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    def _listen(self, seconds: float | None) -> None:
        """Waits for a signal, at most this long."""
        heard = signal.sigtimedwait(_HEARD, max(0.0, seconds)) if seconds is not None else signal.sigwaitinfo(_HEARD)
        if heard is None or heard.si_signo == signal.SIGCHLD:
            return
        # The parent's death (SIGHUP) may follow its SIGTERM: only a repeated SIGTERM or SIGINT means "now".
        self._kill_now = self._kill_now or (self._asked and heard.si_signo != signal.SIGHUP)
        self._asked = True

    def _reap(self, wanted: int) -> int | None:
        """Takes the end of all children that have ended; the wait status of the wanted one, once it has."""
        found: int | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if pid == wanted:
                found = status

    def _kill_all(self) -> None:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _end_leftovers(self) -> None:
        """Kills what the command left behind; orphans have become children of this process."""
        give_up = time.monotonic() + SECONDS_FOR_KILLED
        while left := descendants(os.getpid()):
            if time.monotonic() >= give_up:
                log.error("processes that can't be killed: %s", left)
                return
            self._kill_all()
            self._reap(0)
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
            self._reap(0)

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
        self._set_process_option(_PR_SET_PDEATHSIG, int(signal.SIGHUP))
        if os.getppid() != int(parent):  # It died before this was set.
            self._asked = True

    def _set_process_option(self, option: int, value: int) -> None:
        if self._libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def descendants(pid: int) -> list[int]:
    """All processes below this one that have not been reaped."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def leave_termination_message(outcome: Outcome) -> None:
    """Writes the message where the kubelet reads it. The file is a mount: it is written, never replaced."""
    path = os.environ.get(environment.TERMINATION_LOG)
    if path is not None:
        Path(path).write_text(outcome.termination_message())


def started_before(folder: Path, attempt: int) -> bool:
    """Whether this attempt was started in this state folder before; from now on it was."""
    marker = folder / STARTED_FILE
    before = marker.exists() and marker.read_text() == str(attempt)
    write_atomically(marker, str(attempt))
    return before


def supervise(role: Role) -> Outcome:
    """Runs a role as the environment says; the last word is left in the state folder and in the termination log."""
    folder = state_folder()
    try:
        attempt = read_run_config().attempt
    except UserError as error:
        outcome = Outcome(role=role, code=error.code, reason=error.reason, message=str(error))
        write_atomically(folder / OUTCOME_FILE, outcome.termination_message())
        leave_termination_message(outcome)
        return outcome
    grace = float(os.environ.get(environment.GRACE_SECONDS, GRACE_SECONDS))
    supervisor = Supervisor(role, commands(role, os.environ), folder, attempt=attempt, grace=grace)
    refuses = os.environ.get(environment.RESTART_IN_PLACE) == "refuse"
    if started_before(folder, attempt) and refuses:
        return supervisor.repeat()
    outcome = supervisor.run()
    leave_termination_message(outcome)
    return outcome


def main(arguments: Sequence[str]) -> int:
    """Runs the role that the command line names."""
    if len(arguments) != 1 or arguments[0] not in get_args(Role):
        sys.stderr.write(f"usage: python -m distill_runtime.supervisor {'|'.join(get_args(Role))}\n")
        return 64
    configure_logging(arguments[0])
    outcome = supervise(cast(Role, arguments[0]))
    level = logging.INFO if outcome.code in (ExitCode.FINISHED, ExitCode.CHECKPOINTED) else logging.ERROR
    log.log(level, "%s: %s", outcome.reason, outcome.message)
    return outcome.code


if __name__ == "__main__":
    # A SIGTERM before the role runs must not end this process without a word.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    sys.exit(main(sys.argv[1:]))
