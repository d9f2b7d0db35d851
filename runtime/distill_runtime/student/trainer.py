"""The loop: steps, held-out losses, checkpoints, and what is said of them."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from distill_runtime.contract.report import CurvePoint
from distill_runtime.contract.run import Work
from distill_runtime.data.order import Order
from distill_runtime.data.plan import Plan
from distill_runtime.errors import Checkpointed, RetryError
from distill_runtime.progress import ProgressReporter
from distill_runtime.student.checkpoints import Checkpointer, Position
from distill_runtime.student.distributed import Ranks, StopRequest, agree_telling, gather_numbers
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.held_out import HeldOut
from distill_runtime.student.reader import Loaded, Reader
from distill_runtime.student.schedule import learning_rate
from distill_runtime.transport.interface import SignalSource

PREFETCH_STEPS = 4
"""Steps ahead whose sequences are announced to the source."""

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """One training, from where it stands to its end. All ranks run the same."""

    work: Work
    plan: Plan
    order: Order
    total_steps: int
    engine: StudentEngine
    reader: Reader
    held_out: HeldOut | None
    source: SignalSource | None
    checkpointer: Checkpointer
    ranks: Ranks
    stop: StopRequest
    progress: ProgressReporter | None
    probe: Callable[[], float]
    """The loss of the probe with the weights as they are."""
    position: Position = field(default_factory=Position)
    _points: list[CurvePoint] = field(default_factory=list)

    def run(self) -> Position:
        """Trains to the end; the last checkpoint is durable then.

        Raises
        ------
        Checkpointed
            SIGTERM came on some rank; everything is saved.
        RetryError, UserError
            Signals, the store, numbers or another attempt stand in the way.
        """
        for step in range(self.position.step, min(self.position.step + PREFETCH_STEPS, self.total_steps)):
            self.reader.announce(self.order.step(step).tolist())
        best = self._evaluation_due and self._evaluate()
        self._save_if(best, best=best)
        while not self._ended:
            self._one_step()
        best = False
        if self.position.evaluated_step < self.position.step:
            best = self._evaluate()
        self._save_if(best or self.checkpointer.saved_step != self.position.step, best=best)
        self._durable(self.checkpointer.finish())
        if self.source is not None and self.ranks.first:
            self.source.training_finished(self.position.step)
        return self.position

    @property
    def _ended(self) -> bool:
        limit = self.work.training.stop_after_worse_evaluations
        early = limit > 0 and self.position.worse_evaluations >= limit
        return early or self.position.step >= self.total_steps

    @property
    def _evaluation_due(self) -> bool:
        step, every = self.position.step, self.work.training.evaluate_every_steps
        return self.position.evaluated_step < step and (step == 0 or (every > 0 and step % every == 0))

    def _one_step(self) -> None:
        began, waited = time.monotonic(), self._waited
        sequences = self.order.step(self.position.step).tolist()
        if self.source is not None and self.ranks.first:
            self.source.position(self.position.step)
        loaded, told = agree_telling(
            lambda: self.stop.unless_asked(lambda: self.reader.load(sequences)),
            self.ranks,
            lambda: [float(self.stop.asked), float(self.checkpointer.uploading)],
        )
        if told[:, 0].any() or loaded is None:
            self._leave()
        if self.checkpointer.in_flight and not told[:, 1].any():
            self._durable(self.checkpointer.finish())
        self._train(sequences, loaded, began, waited)
        done = self.position.step
        if done + PREFETCH_STEPS <= self.total_steps:
            self.reader.announce(self.order.step(done + PREFETCH_STEPS - 1).tolist())
        best = self._evaluation_due and self._evaluate()
        self._save_if(best or done % self.work.training.checkpoint_every_steps == 0, best=best)

    def _train(self, sequences: list[int], loaded: list[Loaded], began: float, waited: float) -> None:
        """One optimizer step. A rank's loss is world · its sum / targets of the whole batch: DeepSpeed averages over
        ranks, so the gradient is that of the mean over all targets, however they are divided."""
        number = self.position.step + 1
        targets = int(self.plan.target_counts[sequences].sum())
        rate = learning_rate(
            number - 1, self.total_steps, self.work.training.schedule, self.work.training.optimizer.learning_rate
        )
        scale = self.ranks.world / max(1, targets)
        micro_steps = [self.reader.forward(self.engine, batch, scale) for batch in loaded]
        sums, norm = self.engine.step(micro_steps, rate, number)
        seconds = time.monotonic() - began
        read = sum(batch.arrays.input_ids.size for batch in loaded)
        told = gather_numbers([*sums.tolist(), self._waited - waited, float(read)], self.ranks)
        loss = float(told[:, 0].sum()) / self.ranks.world
        if not math.isfinite(loss):
            raise RetryError(
                f"step {number}: the loss is not finite ({loss}): lower training.optimizer.learningRate or use another "
                "training.precision if it happens again.",
                reason="NotFinite",
            )
        point = CurvePoint(
            step=number,
            loss=loss,
            divergence=_known(float(told[:, 1].sum()) / max(1, targets)),
            cross_entropy=_known(float(told[:, 2].sum()) / max(1, targets)),
            learning_rate=rate,
            gradient_norm=norm,
            targets=targets,
            seconds=seconds,
            waited_seconds=min(seconds, float(told[:, 3].max())),
        )
        self._note(point, int(self.plan.lengths[sequences].sum()), row_tokens=int(told[:, 4].sum()))

    def _note(self, point: CurvePoint, tokens: int, *, row_tokens: int) -> None:
        seconds, waited = point.seconds or 0.0, point.waited_seconds or 0.0
        before = self.position
        self.position = before.model_copy(
            update={
                "step": point.step,
                "loss": point.loss,
                "seconds": before.seconds + seconds,
                "waited_seconds": before.waited_seconds + waited,
                "tokens": before.tokens + tokens,
                "row_tokens": before.row_tokens + row_tokens,
            }
        )
        if not self.ranks.first:
            return
        self._points.append(point)
        self._report(tokens_per_second=tokens / max(seconds, 1e-9))
        log.info("step %d of %d: loss %.4f", point.step, self.total_steps, point.loss)

    def _report(self, **more: float) -> None:
        if self.progress is not None:
            self.progress.update(
                stage="train",
                done=self.position.step,
                total=self.total_steps,
                unit="steps",
                loss=self.position.loss,
                held_out_loss=self.position.held_out_loss,
                wait_fraction=wait_fraction(self.position),
                packing_efficiency=packing_efficiency(self.position),
                **more,
            )

    def _evaluate(self) -> bool:
        """Takes the held-out loss; says whether these weights are to be kept as the best.

        The untrained student is no candidate: `best` chooses among trained ones.
        """
        before = self.position
        if self.held_out is None:
            self.position = before.model_copy(update={"evaluated_step": before.step})
            return False
        found = self.held_out.loss(self.engine, self.stop)
        if found is None:
            self._leave()
        if not math.isfinite(found.loss):
            raise RetryError(f"step {before.step}: the held-out loss is not finite ({found.loss}).", reason="NotFinite")
        candidate = before.step > 0
        better = candidate and (before.best_loss is None or found.loss < before.best_loss)
        changes: dict[str, float | int | None] = {"evaluated_step": before.step, "held_out_loss": found.loss}
        if better:
            changes |= {"best_loss": found.loss, "best_step": before.step, "worse_evaluations": 0}
        elif candidate:
            changes["worse_evaluations"] = before.worse_evaluations + 1
        self.position = before.model_copy(update=changes)
        if self.ranks.first:
            log.info("step %d: held-out loss %.4f", before.step, found.loss)
            self._points.append(
                CurvePoint(
                    step=before.step,
                    held_out_loss=found.loss,
                    held_out_divergence=_known(found.divergence),
                    held_out_cross_entropy=_known(found.cross_entropy),
                )
            )
            self._report()
        return better and self.work.output.select == "best"

    def _save_if(self, due: bool, *, best: bool) -> None:
        if not due:
            return
        points, self._points = self._points, []
        self._durable(
            self.checkpointer.save(self.engine, self.position, probe_loss=self.probe(), points=points, best=best)
        )

    def _durable(self, step: int | None) -> None:
        """Tells the source what it may drop."""
        if step is not None and self.ranks.first and self.source is not None:
            self.source.checkpointed(step)

    def _leave(self) -> NoReturn:
        """Saves and ends, on all ranks.

        Raises
        ------
        Checkpointed
            Always.
        """
        self._save_if(self.checkpointer.saved_step != self.position.step, best=False)
        self._durable(self.checkpointer.finish())
        raise Checkpointed(f"stopped by SIGTERM behind step {self.position.step} of {self.total_steps}; it is saved.")

    @property
    def _waited(self) -> float:
        return 0.0 if self.source is None else self.source.waited_seconds


def wait_fraction(position: Position) -> float:
    """Part of the steps' wall time that went by waiting for the teacher."""
    return min(1.0, position.waited_seconds / position.seconds) if position.seconds > 0 else 0.0


def packing_efficiency(position: Position) -> float | None:
    """Part of the tokens of all rows that is no padding; None before the first step."""
    return position.tokens / position.row_tokens if position.row_tokens else None


def _known(value: float) -> float | None:
    """NaN stands for what wasn't computed."""
    return None if math.isnan(value) else value
