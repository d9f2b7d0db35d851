"""A DistillJob on this machine, run through the command line as a user would."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distill_runtime.contract.report import CurvePoint, Report

RUN_SECONDS = 600
"""Longer than any run here takes on two busy cores."""

QUESTIONS = [
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How long does a transfer take?", "Two days, as a rule."),
    ("Why was I charged twice?", "We reserve the sum first; only one charge stays."),
    ("What is two and two?", "Four."),
    ("Where is my card?", "It is on its way and will be there within five working days, wherever you live."),
    ("Is the answer always so short?", "No."),
    ("Who asks so many questions about the weather in Paris?", "The lazy dog does, and the fox answers."),
]


def rows(count: int) -> list[dict[str, str]]:
    """So many different prompt and completion rows of unequal lengths."""
    return [
        {"prompt": f"{prompt} ({number})", "completion": completion * (1 + number % 3)}
        for number in range(count)
        for prompt, completion in [QUESTIONS[number % len(QUESTIONS)]]
    ]


def write_rows(path: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    """Writes JSON Lines."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section; None removes a field."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


@dataclass
class Ended:
    """How a run ended."""

    code: int
    output: str

    def expect(self, code: int) -> "Ended":
        """Fails with all that was printed unless the run ended so."""
        assert self.code == code, f"exit code {self.code}, wanted {code}:\n{self.output}"
        return self


@dataclass
class LocalJob:
    """A manifest, its run folder and its store."""

    folder: Path
    spec: dict[str, Any]
    name: str = "job"
    environment: dict[str, str] = field(default_factory=dict)

    def changed(self, changes: dict[str, Any], name: str | None = None) -> "LocalJob":
        """The same job with other fields, in the same store."""
        return LocalJob(self.folder, merge(self.spec, changes), name or self.name, self.environment)

    @property
    def run_folder(self) -> Path:
        """Where the command line keeps this run."""
        return self.folder / "runs" / self.name

    @property
    def store(self) -> Path:
        """The directory store."""
        return self.folder / "store"

    def write(self) -> Path:
        """Writes the manifest."""
        manifest = {
            "apiVersion": "distill-operator.io/v1alpha1",
            "kind": "DistillJob",
            "metadata": {"name": self.name},
            "spec": self.spec,
        }
        path = self.folder / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump(manifest))
        return path

    def start(self) -> "subprocess.Popen[str]":
        """Starts `distillctl run`; its output goes to a pipe."""
        command = [sys.executable, "-m", "distill_operator.cli", "run", str(self.write())]
        return subprocess.Popen(
            [*command, "--folder", str(self.run_folder)],
            env={**os.environ, "DISTILL_CACHE_DIR": str(self.folder / "cache"), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self) -> Ended:
        """Runs to the end."""
        process = self.start()
        try:
            output, _ = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f"the run did not end within {RUN_SECONDS} s:\n{output}") from None
        return Ended(process.returncode, output)

    def report(self) -> Report:
        """The report of a finished run."""
        return Report.model_validate_json((self.run_folder / "report.json").read_bytes())

    def losses(self) -> list[float]:
        """The training loss of each step, every step once."""
        points = [point for point in self.report().curves if point.loss is not None]
        assert [point.step for point in points] == list(range(1, len(points) + 1))
        return [float(point.loss) for point in points if point.loss is not None]

    def points(self) -> list[CurvePoint]:
        """All points of the curves."""
        return self.report().curves

    def forget_training(self) -> None:
        """Removes trainings from the store; plans, signals and scores stay."""
        shutil.rmtree(self.store / "trainings", ignore_errors=True)

    def logs(self, container: str) -> str:
        """All that a container logged, over all attempts; empty where it never ran."""
        return "".join(path.read_text() for path in sorted(self.run_folder.glob(f"**/{container}*.log")))


def small_job(tmp_path: Path, tiny_teacher: Path) -> LocalJob:
    """A job that takes seconds: 26 training rows, 7 held-out rows, 8 steps, plain SGD, float32."""
    train = write_rows(tmp_path / "train.jsonl", rows(26))
    held_out = write_rows(tmp_path / "heldout.jsonl", rows(7))
    spec = {
        "teacher": {"model": f"file://{tiny_teacher}", "gpus": 0, "engine": "transformers", "dtype": "float32"},
        "student": {"initialise": {"fromTeacher": {"every": 2}}, "gpusPerWorker": 0},
        "data": {"train": f"file://{train}", "evaluation": f"file://{held_out}", "maxLength": 192},
        "storage": {"uri": f"file://{tmp_path}/store"},
        "signal": {"dtype": "float32", "shardSequences": 4},
        "objective": {"crossEntropyWeight": 0.5},
        "training": {
            "steps": 8,
            "globalBatch": 6,
            "microBatch": 2,
            "packing": False,
            "precision": "float32",
            "zeroStage": 0,
            "optimizer": {"kind": "sgd", "learningRate": 0.05, "maxGradientNorm": 0},
            "schedule": {"kind": "linear", "warmupSteps": 2},
            "checkpointEverySteps": 3,
            "evaluateEverySteps": 4,
        },
    }
    return LocalJob(tmp_path, spec)


def wait_until(
    what: str, condition: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 120
) -> None:
    """Waits for something that a running job does."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the run ended before {what}:\n{process.communicate()[0]}")
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


def processes_of(process: "subprocess.Popen[str]", needle: str) -> list[int]:
    """Ids of the living descendants of a run whose command line has `needle`."""
    found: list[int] = []
    for pid in descendants(process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if needle in command:
            found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    """All living children of a process and theirs."""
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return found
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += [int(child), *descendants(int(child))]
    return found
