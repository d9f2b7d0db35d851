"""A small distillation on disk: tiny student, ragged plan, an invented teacher; run by `driver` under torchrun."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_runtime import layout
from distill_runtime.contract import environment
from distill_runtime.contract.report import CurvePoint
from distill_runtime.contract.run import RunConfig
from distill_runtime.data.plan import Plan, write_plan
from distill_runtime.data.sequence import Sequence
from distill_runtime.digests import digest_of
from distill_runtime.prepared import ModelPin, PlanReference, Prepared, StoredSignal
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.row_format import RowFormat, training_row
from distill_runtime.signals.rows import encode_rows
from distill_runtime.store.directory import DirectoryStore
from distill_runtime.student.checkpoints import Position, read_manifest, read_tensors
from distill_runtime.student.curves import read_curves
from distill_runtime.student.fence import FenceState
from distill_runtime.transport.interface import SignalSource
from tests.fixtures.models import save_tiny_model, tiny_tokenizer
from tests.fixtures.signals import hidden_signal

TEACHER_HIDDEN = 24
MAX_LENGTH = 40
DRIVER = Path(__file__).with_name("driver.py")


class InventedTeacher(SignalSource):
    """States that depend on the plan and the sequence alone, as a real teacher's would."""

    def __init__(self, plans: dict[str, Plan], vocabulary: int, rows: dict[str, RowFormat] | None = None) -> None:
        self.waited_seconds = 0.0
        self.durable: list[int] = []
        self._plans = plans
        self._rows = rows or {}
        weight = torch.randn(vocabulary, TEACHER_HIDDEN, generator=torch.Generator().manual_seed(1)) * 0.5
        description = HeadDescription(hidden_size=TEACHER_HIDDEN, padded_vocabulary=vocabulary, vocabulary=vocabulary)
        self._head = OutputHead(description=description, weight=weight)

    def head(self) -> OutputHead:
        return self._head

    def announce(self, plan: str, sequences: Many[int]) -> None:
        assert all(0 <= number < len(self._plans[plan]) for number in sequences)

    def fetch(self, plan: str, sequences: Many[int]) -> list[torch.Tensor]:
        return [self._stored(plan, number) for number in sequences]

    def _stored(self, plan: str, number: int) -> torch.Tensor:
        states = self._states(plan, number)
        row = self._rows.get(plan)
        return states if row is None else encode_rows(self._plans[plan].sequence(number), states, row, self._head)

    def _states(self, plan: str, number: int) -> torch.Tensor:
        seed = number * 2 + (plan == "evaluation")
        count = int(self._plans[plan].target_counts[number])
        return torch.randn(count, TEACHER_HIDDEN, generator=torch.Generator().manual_seed(seed))

    def checkpointed(self, step: int) -> None:
        self.durable.append(step)

    def close(self) -> None:
        pass


def ragged_sequences(lengths: Many[int], seed: int, vocabulary: int) -> list[tuple[int, Sequence]]:
    """Sequences with a random part of their tokens as targets, at least one each."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, Sequence]] = []
    for row, length in enumerate(lengths):
        mask = random.random(length) < 0.5
        mask[0], mask[-1] = False, True
        rows.append((row, Sequence(ids=random.integers(4, vocabulary, length).astype(np.int32), target_mask=mask)))
    return rows


@dataclass(frozen=True)
class Scenario:
    """Where a scenario is, and what all its runs have in common."""

    root: Path
    student: Path
    train: PlanReference
    evaluation: PlanReference
    vocabulary: int

    @property
    def store(self) -> DirectoryStore:
        return DirectoryStore(self.root / "store")

    def config(self, name: str, *, attempt: int = 1, **work: Any) -> Path:
        """Writes the run configuration and prepared.json of a run. `training` and the other sections as in the spec."""
        training = {
            "steps": 4,
            "globalBatch": 5,
            "microBatch": 2,
            "packing": False,
            "precision": "float32",
            "zeroStage": 0,
            "optimizer": {"kind": "sgd", "learningRate": 0.05, "maxGradientNorm": 0},
            "schedule": {"kind": "cosine", "warmupSteps": 1},
            "checkpointEverySteps": 100,
            "evaluateEverySteps": 0,
            **work.pop("training", {}),
        }
        config = RunConfig.model_validate(
            {
                "namespace": "test",
                "name": name,
                "uid": name,
                "attempt": attempt,
                "work": {
                    "teacher": {"model": "file:///nowhere", "gpus": 0},
                    "student": {"model": f"file://{self.student}", "gpusPerWorker": 0},
                    "data": {"train": "file:///none", "evaluation": "file:///none", "maxLength": MAX_LENGTH},
                    "storage": {"uri": f"file://{self.root / 'store'}"},
                    "objective": {"crossEntropyWeight": 0.5},
                    "signal": {"dtype": "float32"},
                    "training": training,
                    **work,
                },
            }
        )
        prepared = Prepared(
            fingerprint=name,
            train=self.train,
            evaluation=self.evaluation,
            tasks=[],
            teacher=ModelPin(uri="file:///nowhere", digest="0"),
            teacher_dtype="float32",
            student=ModelPin(uri=f"file://{self.student}", digest="1"),
            training_precision=config.work.training.precision,  # type: ignore[arg-type]
            vocabulary=self.vocabulary,
            train_signal=StoredSignal(
                digest="2",
                row=training_row(config.work, hidden_size=TEACHER_HIDDEN, vocabulary=self.vocabulary),
            ),
            held_out_signal=hidden_signal("2", TEACHER_HIDDEN),
            teacher_canary=[4, 5],
            total_steps=config.work.training.steps or 1,
            training_digest=self.training_digest(name),
            report={},
        )
        self.store.put(layout.prepared_key(config), prepared.model_dump_json().encode())
        path = self.root / f"{name}-{attempt}.json"
        path.write_text(config.model_dump_json(by_alias=True))
        return path

    @staticmethod
    def training_digest(name: str) -> str:
        return digest_of(name)[:16]

    def curves(self, name: str) -> list[CurvePoint]:
        return read_curves(self.store, self.training_digest(name))

    def position(self, name: str) -> Position:
        """Where a run stood at its last checkpoint."""
        state = FenceState.model_validate_json(self.store.get(f"trainings/{self.training_digest(name)}/fence.json"))
        return read_manifest(self.store, state.checkpoints[-1]).position

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Float32 weights and optimizer states of the last checkpoint, by `parameter:kind`."""
        state = FenceState.model_validate_json(self.store.get(f"trainings/{self.training_digest(name)}/fence.json"))
        manifest = read_manifest(self.store, state.checkpoints[-1])
        return {f"{n}:{kind}": tensor for n, kind, tensor in read_tensors(self.store, manifest)}

    def losses(self, name: str) -> list[float]:
        return [point.loss for point in self.curves(name) if point.loss is not None]

    def norms(self, name: str) -> list[float]:
        return [point.gradient_norm for point in self.curves(name) if point.gradient_norm is not None]


def make_scenario(root: Path, *, lengths: Many[int] | None = None, **model: Any) -> Scenario:
    """A student of two layers and plans of 14 and 5 ragged sequences."""
    tokenizer = tiny_tokenizer()
    options = {"layers": 2, "hidden": 32, "vocabulary": len(tokenizer) + 8, **model}
    student = save_tiny_model(root / "student", tokenizer=tokenizer, **options)
    store = DirectoryStore(root / "store")
    vocabulary = len(tokenizer)
    train = ragged_sequences(lengths or [5, 33, 12, 7, 28, 40, 3, 19, 9, 24, 2, 15, 31, 6], 0, vocabulary)
    held_out = ragged_sequences([8, 21, 5, 13, 30], 1, vocabulary)
    return Scenario(
        root=root,
        student=student,
        train=write_plan(store, "plans/train", train, shard_sequences=4),
        evaluation=write_plan(store, "plans/evaluation", held_out, shard_sequences=4),
        vocabulary=vocabulary,
    )


Faults = dict[str, dict[str, Any]]
"""Faults by the name of the run and its attempt, see `driver`."""


def torchrun_command(world: int, configs: Many[Path], faults: Faults) -> list[str]:
    """Runs the driver on these configurations, one after the other, in one launch."""
    order = json.dumps({"configs": [str(path) for path in configs], "faults": faults})
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)),
        *(str(DRIVER), order),
    ]


def torchrun_environment(state: Path) -> dict[str, str]:
    """The environment of a launch."""
    state.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).parents[3]
    return {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        environment.STATE_DIR: str(state),
        environment.CACHE_DIR: str(state / "cache"),
    }


@dataclass(frozen=True)
class Launch:
    """How a launch ended."""

    code: int
    log: str
    state: Path

    def outcomes(self, rank: int = 0) -> dict[str, Any]:
        """What came of each of several runs, as a rank saw it."""
        return json.loads((self.state / f"outcomes-{rank}.json").read_text())


def launch(world: int, configs: Many[Path], state: Path, faults: Faults | None = None) -> Launch:
    """Runs to the end; asserts nothing."""
    done = subprocess.run(
        torchrun_command(world, configs, faults or {}),
        env=torchrun_environment(state),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    return Launch(done.returncode, done.stdout, state)
