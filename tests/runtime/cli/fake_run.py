"""A run whose containers are small programs: `python -m tests.runtime.cli.fake_run FOLDER`.

FOLDER/programs.json has a program for each container, FOLDER/spec.json what differs from the smallest job.
"""

import json
import sys
from pathlib import Path

from rich.console import Console

from distill_operator.api import DistillJob
from distill_operator.cli.display import display_for
from distill_operator.cli.folder import RunFolder
from distill_operator.cli.placement import Machine
from distill_operator.cli.refusal import Refusal
from distill_operator.cli.runner import LocalRun
from distill_operator.render import Container

SAY = """
import os, sys, json, signal, time, subprocess, pathlib
folder = pathlib.Path(os.environ["DISTILL_STATE_DIR"])
role = folder.name.split("-")[0]
attempt = json.loads(pathlib.Path(os.environ["DISTILL_RUN_CONFIG"]).read_text())["attempt"]
def say(code, reason="R", **more):
    word = {"role": role, "code": code, "reason": reason, "message": f"{folder.name} says {reason}.", **more}
    (folder / "outcome.json").write_text(json.dumps(word))
def save(*_):
    say(143, "Checkpointed")
    os._exit(143)
def sleep():
    signal.signal(signal.SIGTERM, save)
    (folder / "here").write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)
print(f"{folder.name} of attempt {attempt} begins", flush=True)
"""
SUPERVISE = """
import sys
from distill_runtime.supervisor.entry import main
sys.exit(main([sys.argv[1]], lambda role, place: [[sys.executable, "-c", sys.argv[2]]]))
"""


def main(folder: Path) -> int:
    programs = json.loads((folder / "programs.json").read_text())
    document = json.loads((folder / "spec.json").read_text())

    def command_of(container: Container) -> list[str]:
        program = SAY + programs[container.name]
        if programs.get("supervised"):
            return [sys.executable, "-c", SUPERVISE, container.role, program]
        return [sys.executable, "-c", program]

    console = Console()
    run = LocalRun(
        job=DistillJob.model_validate(document),
        folder=RunFolder(folder / "run"),
        machine=Machine(cores=4),
        display=display_for(console),
        console=console,
        grace=float(programs.get("grace", 30)),
        command_of=command_of,
    )
    try:
        return run.run()
    except Refusal as refusal:
        console.print(str(refusal), soft_wrap=True)
        return refusal.code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
