"""Processes and DeepSpeed: the group, the engine's settings, what ranks tell each other at a step's edges."""

import datetime
import logging
import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist

from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.sections import Training
from distill_runtime.errors import RetryError, RunError, UserError
from distill_runtime.prepared import ResolvedPrecision

TIMEOUT = datetime.timedelta(minutes=30)
"""Longest wait in one collective: above the longest wait for a teacher that still works."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranks:
    """The place of this process among all."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Is this the rank that speaks for all?"""
        return self.rank == 0


def start_processes(gpus_per_worker: int) -> Ranks:
    """Joins the group that torchrun made: NCCL on GPUs, gloo on processors."""
    # DeepSpeed calls collectives under their old names, at every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    on_cpu = gpus_per_worker == 0
    if on_cpu:
        # DeepSpeed would compile its shared-memory all-reduce at first use; gloo does the work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        device = torch.device("cpu")
    else:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", timeout=TIMEOUT, verbose=False)
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size(), device=device)


def deepspeed_settings(training: Training, precision: ResolvedPrecision, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration.

    The trainer sets the accumulation boundary itself, so accumulation is 1 here; the loss brings its own scale.
    Clipping is always said (0: never). Gradients are accumulated and reduced in float32: their sum must not depend on
    how the work is divided.
    """
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": 1,
        "train_batch_size": training.micro_batch * world,
        "gradient_clipping": training.optimizer.max_gradient_norm,
        "zero_optimization": {
            "stage": training.zero_stage,
            **training.deepspeed.zero_optimization.model_dump(exclude_none=True),
        },
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": precision == "bfloat16"},
        # A step that overflowed is taken again, so a second one at the same scale would overflow as surely; and the
        # scale is raised by `StudentEngine`.
        "fp16": {"enabled": precision == "float16", "hysteresis": 1, "loss_scale_window": 2**31},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "steps_per_print": 2**31,
    }


class StopAsked(BaseException):
    """SIGTERM came while this process waited. No handler of errors on the way may take it for one."""


class StopRequest:
    """SIGTERM, remembered until the end of the step; a wait that may be long is broken off."""

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False
        signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._waiting:
            self._waiting = False
            raise StopAsked

    def unless_asked(self, wait: Callable[[], T]) -> T | None:
        """The result of a wait; None if SIGTERM came before or in it."""
        try:
            return self._interruptible(wait)
        except StopAsked:
            return None

    def _interruptible(self, wait: Callable[[], T]) -> T | None:
        try:
            self._waiting = True
            return None if self.asked else wait()
        finally:
            self._waiting = False


def gather_numbers(numbers: list[float], ranks: Ranks) -> torch.Tensor:
    """Numbers of all ranks, float64 [world, numbers], on the CPU."""
    own = torch.tensor(numbers, dtype=torch.float64, device=ranks.device)
    everyone = [torch.empty_like(own) for _ in range(ranks.world)]
    dist.all_gather(everyone, own)
    return torch.stack(everyone).cpu()


def agree(work: Callable[[], T], ranks: Ranks) -> T:
    """The result of work that may fail on some ranks; if it does on one, all end with that rank's word, and none waits.

    Raises
    ------
    RunError
        The first failed rank's.
    """
    return agree_telling(work, ranks, list)[0]


def wait_together(wait: Callable[[], T], ranks: Ranks, stop: StopRequest) -> T | None:
    """The result of a wait that may be long or fail on some ranks; None on all ranks if SIGTERM came on one.

    Raises
    ------
    RunError
        The first failed rank's.
    """
    result, told = agree_telling(lambda: stop.unless_asked(wait), ranks, lambda: [float(stop.asked)])
    return None if told.any() else result


def agree_telling(work: Callable[[], T], ranks: Ranks, tell: Callable[[], list[float]]) -> tuple[T, torch.Tensor]:
    """As `agree`; also returns what `tell` says behind the work on all ranks [world, numbers].

    Raises
    ------
    RunError
        The first failed rank's.
    """
    error: RunError | None = None
    result: T | None = None
    try:
        result = work()
    except RunError as raised:
        error = raised
    told = gather_numbers([float(error is not None), *tell()], ranks)
    if told[:, 0].any():
        words: list[tuple[int, str, str, Any] | None] = [None] * ranks.world
        own = None if error is None else (int(error.code), error.reason, str(error), getattr(error, "needs", None))
        dist.all_gather_object(words, own)
        raise _error_of(next(word for word in words if word is not None)) from error
    return result, told[:, 1:]  # type: ignore[return-value]


def _error_of(word: tuple[int, str, str, Any]) -> RunError:
    code, reason, message, needs = word
    if code == ExitCode.USER_ERROR:
        return UserError(message, reason=reason)
    return RetryError(message, reason=reason, needs=needs)


def first_rank_does(work: Callable[[], T], ranks: Ranks) -> T:
    """Work of rank 0 whose (small, picklable) result all ranks get; its failure ends all."""
    box: list[Any] = [agree(lambda: work() if ranks.first else None, ranks)]
    dist.broadcast_object_list(box, src=0)
    return box[0]
