"""Running a program to its end."""

import subprocess
from collections.abc import Mapping, Sequence

from tests.testcluster.errors import TestClusterError


def run(*command: str, input_text: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Runs a program and returns what it wrote to its standard output; an error carries what it wrote to the other."""
    ended = subprocess.run(
        command, input=input_text, env=environment, capture_output=True, text=True, check=False, errors="replace"
    )
    if ended.returncode:
        raise TestClusterError(failure(command, ended))
    return ended.stdout


def failure(command: Sequence[str], ended: subprocess.CompletedProcess[str]) -> str:
    """What to say about a program that ended badly."""
    said = (ended.stderr or ended.stdout or "").strip()
    return f"`{' '.join(command)}` ended with exit code {ended.returncode}: {said}"
