"""The learning rate: a pure function of the step and of the job's total steps, so that no resume can shift it."""

import math

from distill_runtime.contract.sections import Schedule


def learning_rate(step: int, total_steps: int, schedule: Schedule, peak: float) -> float:
    """The learning rate with which step `step` (from 0) of `total_steps` is taken.

    With w warm-up steps the first w steps rise linearly: step s has peak · (s + 1) / (w + 1), and step w the peak.
    Then, with t = (s - w) / (total - w) and the floor m = minimumRatio: cosine is m + (1 - m) · (1 + cos πt) / 2,
    linear m + (1 - m) · (1 - t), constant 1, each times the peak. So no step has a learning rate of 0: the floor would
    be reached by the step after the last.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / (schedule.warmup_steps + 1)
    if schedule.kind == "constant":
        return peak
    part = min(1.0, (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps))
    shape = (1 + math.cos(math.pi * part)) / 2 if schedule.kind == "cosine" else 1 - part
    return peak * (schedule.minimum_ratio + (1 - schedule.minimum_ratio) * shape)
