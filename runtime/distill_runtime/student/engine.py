"""DeepSpeed's engine as the trainer sees it: one step, and whole weights and optimizer states in and out.

All that depends on how a ZeRO stage keeps its tensors is here.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import nn

from distill_runtime.contract.sections import Optimizer
from distill_runtime.errors import RetryError
from distill_runtime.student.module import STUDENT_PREFIX, DistilledStudent, Sums
from distill_runtime.student.optimizer import make_optimizer, optimizer_states, parameter_groups

WEIGHT = "weight"
"""Name of the weight itself among the tensors of a parameter; the others are the optimizer's."""
OVERFLOW_RETRIES = 32
"""Times that the loss scale may be halved for one step (float16)."""
LOSS_SCALE_STEPS = 1000
"""The loss scale is doubled behind every so manyth step (float16). DeepSpeed 0.19 would do it inside a step, between
taking the gradients' norm and dividing them by the scale, and so halve that step's gradients."""


class StudentEngine:
    """The wrapped module and its optimizer. Every method but `set_learning_rate` is called by all ranks together."""

    def __init__(self, module: DistilledStudent, spec: Optimizer, settings: dict[str, Any]) -> None:
        groups = parameter_groups(module.named_parameters(), spec.weight_decay)
        self._engine: Any
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=make_optimizer(groups, spec), config=settings)
        if self._engine.fp16_enabled():
            # At the lowest scale DeepSpeed would end the process with an exception of its own.
            self._engine.optimizer.loss_scaler.raise_error_at_min_scale = False
        self._stage: int = settings["zero_optimization"]["stage"]
        self._clip: float = settings["gradient_clipping"]
        kept = optimizer_states(spec)
        self.states = kept.tensors
        """Names of the optimizer's tensors."""
        self._scalars = kept.scalars
        self._named: dict[str, nn.Parameter] = {
            name.removeprefix(STUDENT_PREFIX): parameter
            for name, parameter in self._engine.module.named_parameters()
            if parameter.requires_grad
        }

    @property
    def names(self) -> list[str]:
        """The model's own names of all trained parameters; a tied one occurs once."""
        return list(self._named)

    def numel(self, name: str) -> int:
        """Number of elements of a parameter."""
        parameter = cast(Any, self._named[name])
        return int(getattr(parameter, "ds_numel", parameter.numel()))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The wrapped module's forward pass."""
        return self._engine(*arguments, **named)

    def evaluating(self, on: bool) -> None:
        """Switches the module between evaluation and training."""
        self._engine.train(not on)

    def step(self, micro_steps: list[Callable[[], Sums]], rate: float, number: int) -> tuple[torch.Tensor, float]:
        """One optimizer step over these forward passes: sums [loss, divergence, cross entropy] of this rank, and the
        norm of the gradients before clipping (the same on all ranks).

        Raises
        ------
        RetryError
            The loss or a gradient is not finite; the weights of this process are of no use any more.
        """
        self.set_learning_rate(rate)
        sums, norm = self._try_step(micro_steps)
        for _ in range(OVERFLOW_RETRIES):
            # In float16 an overflow makes DeepSpeed skip the step and lower the scale: take the same step again.
            if not self._overflowed:
                break
            sums, norm = self._try_step(micro_steps)
        if self._overflowed or not math.isfinite(norm):
            raise RetryError(
                f"step {number}: the gradient is not finite (norm {norm}): lower training.optimizer.learningRate or "
                "use another training.precision if it happens again.",
                reason="NotFinite",
            )
        if number % LOSS_SCALE_STEPS == 0:
            self.set_loss_scale(2 * self.loss_scale)
        return sums, norm

    @property
    def _overflowed(self) -> bool:
        """Did the last try overflow (float16)? Then nothing has changed but the loss scale."""
        return bool(self._engine.fp16_enabled() and self._engine.optimizer.overflow)

    def _try_step(self, micro_steps: list[Callable[[], Sums]]) -> tuple[torch.Tensor, float]:
        sums = self._accumulate(micro_steps)
        if self._stage > 0:
            self._engine.step()
            return sums, float(self._engine.get_global_grad_norm())
        norm = self._plain_norm()
        if math.isfinite(norm):
            self._engine.step()
        return sums, norm

    def _accumulate(self, micro_steps: list[Callable[[], Sums]]) -> torch.Tensor:
        total = torch.zeros(3, dtype=torch.float64)
        for number, forward in enumerate(micro_steps, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(micro_steps))
            loss, divergence, cross_entropy = forward()
            self._engine.backward(loss)
            total += torch.stack([loss.detach(), divergence, cross_entropy]).to("cpu", torch.float64)
        return total

    def _plain_norm(self) -> float:
        """Stage 0 clips without saying the norm; its gradients are whole on every rank."""
        gradients = [p.grad for p in self._named.values() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def set_learning_rate(self, rate: float) -> None:
        """Sets the learning rate of all groups."""
        for group in self._inner.param_groups:
            group["lr"] = rate

    @property
    def _inner(self) -> torch.optim.Optimizer:
        return self._engine.optimizer if self._stage == 0 else self._engine.optimizer.optimizer

    @property
    def loss_scale(self) -> float:
        """The dynamic loss scale (float16), else 1."""
        return float(self._engine.optimizer.loss_scaler.cur_scale) if self._engine.fp16_enabled() else 1.0

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """Every parameter's name, `weight` or the state's name, and the whole float32 tensor, one at a time.

        The optimizer must have made a step, or `make_states` must have been called.
        """
        self._link()
        for name, parameter in self._named.items():
            yield name, WEIGHT, self._whole(parameter, WEIGHT)
            for state in self.states:
                yield name, state, self._whole(parameter, state)

    def _whole(self, parameter: nn.Parameter, kind: str) -> torch.Tensor:
        if self._stage == 0:
            found = parameter.data if kind == WEIGHT else self._inner.state[parameter][kind]
        elif kind == WEIGHT:
            found = safe_get_full_fp32_param(parameter)
        else:
            found = safe_get_full_optimizer_state(parameter, kind)
        assert isinstance(found, torch.Tensor)
        return found.detach()

    def set_tensor(self, name: str, kind: str, value: torch.Tensor) -> None:
        """Sets the whole float32 tensor of a parameter. The weight that the forward pass reads follows.

        `make_states` must have been called before a state is set.
        """
        parameter = self._named[name]
        if self._stage == 0:
            (parameter.data if kind == WEIGHT else self._inner.state[parameter][kind]).copy_(value)
        elif self._stage == 3:
            self._set_part(parameter, kind, value)
        elif kind == WEIGHT:
            safe_set_full_fp32_param(parameter, value)
            # DeepSpeed sets the master copy alone; the forward pass would go on with the old weight.
            parameter.data.copy_(value)
        else:
            safe_set_full_optimizer_state(parameter, value, kind)

    def _set_part(self, parameter: Any, kind: str, value: torch.Tensor) -> None:
        """Sets this rank's part in ZeRO-3; `safe_set_full_*` fails where the ranks don't divide the elements."""
        size = parameter.ds_tensor.numel()
        rank = torch.distributed.get_rank(parameter.ds_process_group)
        padded = torch.nn.functional.pad(
            value.flatten(), (0, size * (rank + 1) - min(value.numel(), size * (rank + 1)))
        )
        part = padded[size * rank : size * (rank + 1)]
        if kind != WEIGHT:
            safe_set_local_optimizer_state(parameter, part, kind)
            return
        safe_set_local_fp32_param(parameter, part)
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if torch.distributed.get_rank() == 0:
                parameter.data.copy_(value)

    def scalars(self) -> dict[str, float]:
        """The optimizer's numbers that are the same for all weights; none before its first step."""
        state = self._inner.state.get(self._flat_parameters()[0], {})
        return {name: float(state[name]) for name in self._scalars if name in state}

    def make_states(self, scalars: Mapping[str, float]) -> None:
        """Makes the optimizer's states as its first step would: zeros, which `set_tensor` fills, and these numbers."""
        for flat in self._flat_parameters():
            state = self._inner.state[flat]
            for name in self._scalars:
                state[name] = torch.tensor(scalars[name], dtype=torch.float32)
            for name in self.states:
                state[name] = torch.zeros_like(flat)
        self._link()

    def set_loss_scale(self, scale: float) -> None:
        """Sets the dynamic loss scale (float16); else nothing happens."""
        if self._engine.fp16_enabled():
            self._engine.optimizer.loss_scaler.cur_scale = scale

    def _flat_parameters(self) -> list[torch.Tensor]:
        """The tensors that the optimizer steps: DeepSpeed's flat float32 partitions, or the parameters."""
        if self._stage == 0:
            return [cast(torch.Tensor, p) for p in self._named.values()]
        optimizer = self._engine.optimizer
        for attribute in (
            "single_partition_of_fp32_groups",
            "fp32_partitioned_groups_flat",
            "fp32_groups_flat_partition",
        ):
            if hasattr(optimizer, attribute):
                return list(getattr(optimizer, attribute))
        raise AssertionError(f"{type(optimizer).__name__} keeps its float32 weights in an unknown place")

    def _link(self) -> None:
        """In stages 1 and 2 DeepSpeed 0.19 links the states after the first group's first step, so those of the later
        group are never found: once more, for all."""
        if self._stage in (1, 2) and self.states:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def replica_digest(self) -> int | None:
        """A checksum of the weights that the forward pass reads, which must be the same on all ranks; None where each
        rank has a part of its own (ZeRO-3)."""
        if self._stage == 3:
            return None
        # Sums of bit patterns with a wrapping factor: exact, whatever the order of addition.
        total = 0
        for index, parameter in enumerate(self._named.values(), start=1):
            total = (total * 31 + index * bit_sum(parameter.data)) % 2**48
        return total


def bit_sum(tensor: torch.Tensor) -> int:
    """Sum of a tensor's bit patterns as integers, modulo 2⁴⁸: changes with any bit, not with the order of addition."""
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return int(tensor.contiguous().view(width).sum(dtype=torch.int64)) % 2**48
