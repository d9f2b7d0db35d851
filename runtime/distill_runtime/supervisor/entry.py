"""A container from its start to its end, as the environment says."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import OUTCOME_FILE, ExitCode, Outcome
from distill_runtime.contract.run import Role
from distill_runtime.errors import RetryError, RunError
from distill_runtime.logs import configure_logging
from distill_runtime.process import read_run_config
from distill_runtime.progress import state_folder, write_atomically
from distill_runtime.supervisor.commands import commands
from distill_runtime.supervisor.running import STANDSTILL_SECONDS, Supervisor
from distill_runtime.supervisor.vitals import Vitals

GRACE_SECONDS = 60.0
"""Grace without `DISTILL_GRACE_SECONDS`."""
STARTED_FILE = "started"
"""Marker in the state folder: the attempt that was started here."""

CommandsOf = Callable[[Role, Mapping[str, str]], list[list[str]]]

log = logging.getLogger(__name__)


def supervise(role: Role, commands_of: CommandsOf = commands, *, standstill: float = STANDSTILL_SECONDS) -> Outcome:
    """Runs a role as the environment says; the last word is left in the state folder and in the termination log."""
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        attempt = read_run_config().attempt
        vitals = Vitals(role, folder)
        _serve(vitals)
    except RunError as error:
        outcome = Outcome(role=role, code=error.code, reason=error.reason, message=str(error))
        write_atomically(folder / OUTCOME_FILE, outcome.termination_message())
        leave_termination_message(outcome)
        return outcome
    grace = float(os.environ.get(environment.GRACE_SECONDS, GRACE_SECONDS))
    supervisor = Supervisor(
        commands_of(role, os.environ), folder, vitals, attempt=attempt, grace=grace, standstill=standstill
    )
    refuses = os.environ.get(environment.RESTART_IN_PLACE) == "refuse"
    if started_before(folder, attempt) and refuses:
        return _repeat(supervisor, vitals)
    outcome = supervisor.run()
    leave_termination_message(outcome)
    return outcome


def _repeat(supervisor: Supervisor, vitals: Vitals) -> Outcome:
    """A container that was started before does no work: it repeats its last word and waits to be removed."""
    last = supervisor.last_word()
    leave_termination_message(last)
    log.warning("Restarted in place: no work is done. Last word: %s", last.message)
    vitals.ended(last.message)
    supervisor.wait_to_be_removed()
    return last


def _serve(vitals: Vitals) -> None:
    """Answers over HTTP where a port is given.

    Raises
    ------
    RetryError
        The port can't be had: without its answers the container would be taken for dead.
    """
    port = os.environ.get(environment.PROGRESS_PORT)
    if not port:
        return
    # On one machine nobody asks, and nothing of this is imported.
    from distill_runtime.supervisor.serving import ProgressServer

    try:
        ProgressServer(vitals, int(port))
    except OSError as error:
        raise RetryError(
            f"port {port} for progress can't be had ({error.strerror}): another process of the pod holds it.",
            reason="PortTaken",
        ) from error


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


def main(
    arguments: Sequence[str], commands_of: CommandsOf = commands, *, standstill: float = STANDSTILL_SECONDS
) -> int:
    """Runs the role that the command line names; returns the exit code."""
    if len(arguments) != 1 or arguments[0] not in get_args(Role):
        sys.stderr.write(f"usage: python -m distill_runtime.supervisor {'|'.join(get_args(Role))}\n")
        return 64
    configure_logging(arguments[0])
    outcome = supervise(cast(Role, arguments[0]), commands_of, standstill=standstill)
    level = logging.INFO if outcome.code in (ExitCode.FINISHED, ExitCode.CHECKPOINTED) else logging.ERROR
    log.log(level, "%s: %s", outcome.reason, outcome.message)
    return outcome.code
