"""How every role begins and ends: reads the run configuration, runs, says how it went."""

import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import CRASHED, OUTCOME_FILE, ExitCode, Fact, Outcome
from distill_runtime.contract.run import Role, RunConfig
from distill_runtime.errors import RetryError, RunError, UserError
from distill_runtime.logs import configure_logging
from distill_runtime.progress import state_folder, write_atomically

Facts = Mapping[str, Fact]
"""What a role reports beside its end; `contract.facts` has those of each role."""

STACKS_SIGNAL = signal.SIGUSR1
"""A role's process that gets this signal writes the stacks of all its threads to its log and goes on."""

log = logging.getLogger(__name__)


def read_run_config() -> RunConfig:
    """The run configuration that the environment names.

    Raises
    ------
    UserError
        It is missing, or not valid.
    """
    path = os.environ.get(environment.RUN_CONFIG)
    if path is None:
        raise UserError(f"{environment.RUN_CONFIG} is not set: give it the path of the run configuration.")
    try:
        return RunConfig.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): it must hold the run configuration.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {field}: {first['msg']}.") from error


def replica_name() -> str:
    """Name of this teacher replica, unique within the attempt: the environment's, or the machine's."""
    return os.environ.get(environment.REPLICA) or socket.gethostname()


def write_outcome(outcome: Outcome) -> None:
    """Leaves the outcome in the state folder, where the supervisor finds it.

    Each process that torchrun started on a node has a file of its own: the supervisor weighs them, so that a user's
    error on one rank is not lost behind the crash that it causes on another.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    name = OUTCOME_FILE if local_rank is None else f"outcome-{local_rank}.json"
    write_atomically(state_folder() / name, outcome.termination_message())


def write_stacks_when_asked() -> None:
    """From here on `STACKS_SIGNAL` shows what this process does, also where its interpreter hangs."""
    faulthandler.register(STACKS_SIGNAL, file=sys.stderr, all_threads=True)


def run_role(role: Role, work: Callable[[RunConfig], Facts]) -> None:
    """Runs `work`, leaves its outcome in the state folder, and ends the process with its exit code."""
    configure_logging(role)
    write_stacks_when_asked()
    attempt = 1
    try:
        config = read_run_config()
        attempt = config.attempt
        facts = work(config)
    except RunError as error:
        needs = error.needs if isinstance(error, RetryError) else None
        outcome = Outcome(
            role=role, code=error.code, reason=error.reason, message=str(error), attempt=attempt, needs=needs
        )
        (log.info if error.code is ExitCode.CHECKPOINTED else log.error)("%s", error)
        write_outcome(outcome)
    except Exception as error:  # The last line of defence: a fault of ours must leave a word and a retry, not silence.
        log.exception("%s failed", role)
        message = f"{role} failed with {type(error).__name__}: {error}"
        outcome = Outcome(role=role, code=ExitCode.RETRY, reason=CRASHED, message=message, attempt=attempt)
        write_outcome(outcome)
    else:
        message = f"{role} finished."
        outcome = Outcome(
            role=role, code=ExitCode.FINISHED, reason="Finished", message=message, attempt=attempt, facts=dict(facts)
        )
        write_outcome(outcome)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Engines leave threads and child processes behind that would hold the interpreter's own end up.
    os._exit(outcome.code)
