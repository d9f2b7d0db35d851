"""Errors that end a role, each with the exit code and the sentence that the user reads.

Every other exception is a fault of this project: it leaves a traceback in the log and exit code 75.
"""

from typing import Literal

from distill_runtime.contract.outcome import ExitCode


class RunError(Exception):
    """A role ends, and says why in one sentence: what was wrong, where, what to do."""

    code: ExitCode = ExitCode.RETRY
    reason: str = "Failed"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class UserError(RunError):
    """The user's data, spec or credentials are wrong; a retry would end the same."""

    code = ExitCode.USER_ERROR
    reason = "UserError"


class RetryError(RunError):
    """A peer, the node or the store failed; another attempt may do it."""

    reason = "Retry"

    def __init__(self, message: str, *, reason: str | None = None, needs: Literal["signals"] | None = None) -> None:
        super().__init__(message, reason=reason)
        self.needs: Literal["signals"] | None = needs


class Checkpointed(RunError):
    """Ended by SIGTERM at a step boundary; everything is saved."""

    code = ExitCode.CHECKPOINTED
    reason = "Checkpointed"
