"""Checks before training: packed rows equal their segments, the objective the model's own loss, a resume its save."""

from typing import cast

import numpy as np
import torch

from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import RetryError, UserError
from distill_runtime.prepared import ResolvedPrecision
from distill_runtime.signals.head import HeadDescription
from distill_runtime.student.batches import Arrays, assemble
from distill_runtime.student.distributed import Ranks
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.reader import Reader, model_inputs

TOKENS = 48
"""Tokens of each segment at most: enough to see attention cross, too few to cost anything."""
TOLERANCE: dict[ResolvedPrecision, float] = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Greatest difference of a token's state, in units of its length; also of losses, in nats or as a part. Attention that
crosses differs by about 1, bfloat16 by 0.015 in a model of 30 layers."""


def canary_sequences(sequences: list[Sequence]) -> list[Sequence]:
    """Three short segments of unequal lengths, cut from sequences of the plan (repeated where there are fewer)."""
    segments: list[Sequence] = []
    for number in range(3):
        ids = sequences[number % len(sequences)].ids[: TOKENS - 7 * number]
        mask = np.arange(len(ids)) > 0
        segments.append(Sequence(ids=ids, target_mask=mask))
    return segments


def check_packing(
    engine: StudentEngine, sequences: list[Sequence], ranks: Ranks, precision: ResolvedPrecision, *, varlen: bool
) -> None:
    """Compares the states of two packed rows with those of their segments alone; all ranks together.

    Raises
    ------
    UserError
        They differ: the model's attention (or recurrence) crosses the segments of a row.
    """
    segments = dict(enumerate(canary_sequences(sequences)))
    packed = _states(engine, assemble(((0, 1, 2), (1, 0)), segments, packed=True), ranks, varlen=varlen)
    alone = [
        _states(engine, assemble(((number,),), segments, packed=False), ranks, varlen=False)[0, : segment.length]
        for number, segment in segments.items()
    ]
    wanted = [torch.cat([alone[0], alone[1], alone[2]]), torch.cat([alone[1], alone[0]])]
    worst = max(greatest_difference(packed[row, : len(w)], w) for row, w in enumerate(wanted))
    if not worst <= TOLERANCE[precision]:
        raise UserError(
            f"training.packing: packed sequences see each other in this student (states differ by {worst:.2g} of their "
            "size): set training.packing to false.",
            reason="PackingCrosses",
        )


def greatest_difference(states: torch.Tensor, wanted: torch.Tensor) -> float:
    """The greatest difference of a row, in units of its length: of [tokens, hidden size] and what they should be.

    Not of an element: trained models have a few with many times the size of the others, and so many times the rounding.
    """
    return float(((states - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


def probe_loss(
    engine: StudentEngine,
    reader: Reader,
    sequence: Sequence,
    head: HeadDescription,
    ranks: Ranks,
    precision: ResolvedPrecision,
) -> float:
    """Mean cross entropy of the student's own logits on one short sequence; all ranks together.

    Raises
    ------
    UserError
        The objective's cross entropy differs from it: it would train something else than this model.
    """
    arrays = assemble(((0,),), {0: canary_sequences([sequence])[0]}, packed=False)
    inputs = model_inputs(arrays, ranks.device, varlen=False)
    targets = torch.from_numpy(arrays.targets).to(ranks.device)
    index = torch.from_numpy(arrays.state_index).to(ranks.device)
    teacher = reader.stand_in(len(targets))
    engine.evaluating(True)
    with torch.no_grad():
        logits = cast(torch.Tensor, engine("logits", inputs))[0, :, : head.vocabulary].float()
        sums = engine("objective", inputs, state_index=index, targets=targets, teacher=teacher, scale=1.0)
    engine.evaluating(False)
    own = float(torch.nn.functional.cross_entropy(logits[index], targets))
    fused = float(sums[2]) / len(targets)
    if not abs(own - fused) <= TOLERANCE[precision] * max(1.0, abs(own)):
        raise UserError(
            f"student: the loss of its own logits is {own:.4f}, that of its states and output head {fused:.4f}: this "
            "architecture is not supported.",
            reason="UnsupportedStudent",
        )
    return own


def assert_resumed(saved: float, found: float, step: int, precision: ResolvedPrecision) -> None:
    """Checks that the student answers after a resume as it did when it was saved.

    Raises
    ------
    RetryError
        It doesn't.
    """
    if not abs(saved - found) <= TOLERANCE[precision] * max(1.0, abs(saved)):
        raise RetryError(
            f"the checkpoint of step {step} was not restored: the probe's loss is {found:.4f}, it was {saved:.4f}.",
            reason="ResumeMismatch",
        )


def _states(engine: StudentEngine, arrays: Arrays, ranks: Ranks, *, varlen: bool) -> torch.Tensor:
    engine.evaluating(True)
    with torch.no_grad():
        states = cast(torch.Tensor, engine("states", model_inputs(arrays, ranks.device, varlen=varlen))).float()
    engine.evaluating(False)
    return states
