"""A container without a pod: a supervisor as a real process, whose role is a small program."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import Outcome
from distill_runtime.contract.run import RunConfig, Work
from distill_runtime.contract.sections import Data, Storage, Student, Teacher

SECONDS = 30.0
"""Longest wait for anything here on a busy machine."""

SUPERVISE = """
import sys, json
from distill_runtime.supervisor.entry import main
role, standstill, commands = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
commands = [[sys.executable, *command] for command in commands]
sys.exit(main([role], lambda role, place: commands, standstill=standstill))
"""
SAY = """
import os, sys, json, signal, time, subprocess, pathlib
folder = pathlib.Path(os.environ["DISTILL_STATE_DIR"])
def say(code, reason, name="outcome.json", **more):
    word = {"role": "student", "code": code, "reason": reason, "message": f"{reason}.", **more}
    (folder / name).write_text(json.dumps(word))
def here(name="here"):
    (folder / name).write_text(str(os.getpid()))
def report(stage, role="student", **more):
    part = folder / ".progress"
    part.write_text(json.dumps({"role": role, "stage": stage, "time": time.time(), **more}))
    part.replace(folder / "progress.json")
"""
SLEEP = "here(); time.sleep(120)"
SAVES = """
def save(*_):
    with (folder / "signals").open("a") as file:
        file.write("TERM\\n")
    time.sleep(0.3)
    say(143, "Checkpointed")
    os._exit(143)
signal.signal(signal.SIGTERM, save)
here()
while True:
    time.sleep(0.05)
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


def wait_for(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@dataclass
class Container:
    """A state folder and the supervisors that ran in it."""

    folder: Path
    role: str = "student"
    standstill: float = 300.0
    port: int = field(default_factory=free_port)
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        work = Work(
            teacher=Teacher(model="hf://a/b"),
            student=Student(model="hf://a/c"),
            data=Data(train="file:///d.jsonl"),
            storage=Storage(uri="file:///s"),
        )
        config = RunConfig(namespace="n", name="job", uid="u", attempt=2, work=work)
        (self.folder / "config.json").write_text(config.model_dump_json(by_alias=True))

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def termination_log(self) -> Path:
        return self.folder / "termination-log"

    def environ(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            environment.RUN_CONFIG: str(self.folder / "config.json"),
            environment.STATE_DIR: str(self.state),
            environment.TERMINATION_LOG: str(self.termination_log),
            environment.PROGRESS_PORT: str(self.port),
            **more,
        }

    def start(self, *programs: str, **more: str) -> "subprocess.Popen[str]":
        return self.start_commands([["-c", SAY + program] for program in programs], **more)

    def start_commands(self, commands: list[list[str]], **more: str) -> "subprocess.Popen[str]":
        """Starts a supervisor whose role runs these commands, each without the interpreter's name."""
        command = [sys.executable, "-c", SUPERVISE, self.role, str(self.standstill), json.dumps(commands)]
        process = subprocess.Popen(
            command, env=self.environ(**more), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.started.append(process)
        return process

    def run(self, *programs: str, **more: str) -> Outcome:
        return self.end_of(self.start(*programs, **more))

    def end_of(self, process: "subprocess.Popen[str]", seconds: float = SECONDS) -> Outcome:
        """How it ended: exit code, last word and termination message say the same."""
        return self.end_and_log_of(process, seconds)[0]

    def end_and_log_of(self, process: "subprocess.Popen[str]", seconds: float = SECONDS) -> tuple[Outcome, str]:
        _, log = process.communicate(timeout=seconds)
        outcome = Outcome.model_validate_json((self.state / "outcome.json").read_bytes())
        assert process.returncode == outcome.code, log
        assert self.termination_log.read_text() == outcome.termination_message()
        return outcome, log

    def wait_for_role(self, name: str = "here") -> int:
        """Waits until the role says where it is; gives its process id."""
        path = self.state / name
        wait_for(lambda: path.exists() and path.read_text() != "", f"{name} of the role")
        return int(path.read_text())

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        """Status and body of a GET; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{host}:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, ""

    def wait_for_answer(self, path: str, status: int) -> Any:
        """Waits until the container answers so; gives the body."""
        wait_for(lambda: self.get(path)[0] == status, f"{path} {status}")
        return self.get(path)[1]

    def close(self) -> None:
        """Leaves nothing running: a supervisor that is asked twice kills all that its role has started."""
        for process in self.started:
            while process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=0.5)
