"""The end of a command, in one sentence."""

from distill_runtime.contract.outcome import ExitCode


class Refusal(Exception):
    """Why a run can't start or go on. `code` is the command's exit code."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
