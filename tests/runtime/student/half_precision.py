"""A student in float16 on the processor, for tests: stands in for a GPU, which DeepSpeed asks for.

`python -m tests.runtime.student.half_precision FOLDER` trains the model in FOLDER a few times and prints what came of
each: losses, gradient norms, attempts at steps, the loss scale at the end, and the sum of all weights.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import torch
from deepspeed.accelerator import get_accelerator

from distill_runtime.contract.sections import Objective, Optimizer, Training
from distill_runtime.errors import RunError
from distill_runtime.signals.head_source import describe_head
from distill_runtime.student import engine as engines
from distill_runtime.student.distributed import deepspeed_settings, start_processes
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.model import DTYPES, build_model, read_config
from distill_runtime.student.module import DistilledStudent
from tests.fixtures.models import tiny_tokenizer

STEPS = 6
TARGETS = 24
ADAM = Optimizer(learning_rate=0.005, max_gradient_norm=1.0)
SGD = Optimizer(kind="sgd", learning_rate=0.2, max_gradient_norm=0)


def make_engine(folder: Path, precision: Any, stage: Any, optimizer: Optimizer) -> StudentEngine:
    training = Training(zero_stage=stage, precision=precision, optimizer=optimizer, packing=False)
    settings = deepspeed_settings(training, precision, 1)
    config = read_config(folder, tied=False, trust_remote_code=False)
    model = build_model(folder, config, training, dtype=DTYPES[precision], settings=settings, trust_remote_code=False)
    objective = Objective(distillation_weight=0, cross_entropy_weight=1)
    head = describe_head(folder, len(tiny_tokenizer()))
    return StudentEngine(DistilledStudent(model, head=head, objective=objective), optimizer, settings)


def run(
    folder: Path, precision: Any, stage: int, optimizer: Optimizer, scales: dict[int, float], poisoned: int = 0
) -> dict[str, Any]:
    """Trains; before step N the loss scale is set to `scales[N]`, and in step `poisoned` the loss is not a number."""
    engine = make_engine(folder, precision, stage, optimizer)
    attempts = 0
    losses: list[float] = []
    norms: list[float] = []

    def forward(number: int, part: int) -> Any:
        nonlocal attempts
        attempts += part == 0
        # The same text in each step: its loss falls, so a step that is lost or taken twice shows.
        generator = torch.Generator().manual_seed(part)
        ids = torch.randint(4, 300, (2, TARGETS // 2 + 1), generator=generator)
        index = torch.cat([torch.arange(TARGETS // 2) + row * ids.shape[1] for row in (0, 1)])
        return engine(
            "objective",
            {"input_ids": ids},
            state_index=index,
            targets=ids[:, 1:].flatten(),
            teacher=None,
            scale=float("nan") if number == poisoned else 0.5 / TARGETS,
        )

    try:
        for number in range(1, STEPS + 1):
            if number in scales:
                engine.set_loss_scale(scales[number])
            parts = [lambda n=number, p=part: forward(n, p) for part in (0, 1)]
            sums, norm = engine.step(parts, optimizer.learning_rate, number)
            losses.append(float(sums[0]))
            norms.append(norm)
    except RunError as error:
        return {"error": str(error), "reason": error.reason, "attempts": attempts}
    weights = sum(float(t.double().abs().sum()) for _, kind, t in engine.tensors() if kind == engines.WEIGHT)
    return {"losses": losses, "norms": norms, "attempts": attempts, "scale": engine.loss_scale, "weights": weights}


def main() -> None:
    folder = Path(sys.argv[1])
    get_accelerator().is_fp16_supported = lambda: True  # type: ignore[method-assign]
    logging.disable(logging.WARNING)
    start_processes(0)
    found: dict[str, Any] = {"float32": run(folder, "float32", 1, ADAM, {})}
    for stage in (1, 2, 3):
        found[f"calm-{stage}"] = run(folder, "float16", stage, ADAM, {1: 256.0})
        found[f"overflow-{stage}"] = run(folder, "float16", stage, ADAM, {1: 2.0**40, 4: 2.0**36})
        found[f"hopeless-{stage}"] = run(folder, "float16", stage, ADAM, {}, poisoned=3)
        found[f"bfloat16-{stage}"] = run(folder, "bfloat16", stage, ADAM, {})
        # Plain SGD without clipping: a step with half a gradient would show, which Adam hides.
        found[f"sgd-{stage}"] = run(folder, "float16", stage, SGD, {1: 256.0})
        engines.LOSS_SCALE_STEPS = 2
        found[f"growing-{stage}"] = run(folder, "float16", stage, SGD, {1: 256.0})
        engines.LOSS_SCALE_STEPS = 1000
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
