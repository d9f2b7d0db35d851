"""Scores of a model over plans: its states before each target, or those that are stored of the teacher, and its head.

Both are asked for batch by batch, and logits are made chunk by chunk (`losses.metrics`): memory does not grow with the
data. Perplexity, KL and agreement are told over the real vocabulary.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from distill_runtime.data.examples import TaskExamples
from distill_runtime.data.plan import Plan
from distill_runtime.errors import RetryError, UserError
from distill_runtime.evaluation.calibration import calibration_bins
from distill_runtime.evaluation.results import HeldOut, LabelScores
from distill_runtime.losses.metrics import MetricSums, linear_log_probabilities, linear_metrics
from distill_runtime.prepared import ResolvedPrecision
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.head_source import read_head
from distill_runtime.transport.interface import PlanName, SignalSource

BATCH_TOKENS = {"cuda": 16384, "cpu": 4096}
"""Tokens of one forward pass, padding included, by device."""
HEAD_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Greatest mean KL, in nats, between a model's own logits and those of its states under the head in its files."""

log = logging.getLogger(__name__)

Told = Callable[[int], None]
"""Is told how many sequences are done."""


class States(ABC):
    """A model's states before each target of a plan's sequences, and the head that makes logits of them."""

    head: OutputHead

    @abstractmethod
    def announce(self, name: PlanName, batches: list[list[int]]) -> None:
        """Says what will be read."""

    @abstractmethod
    def read(self, name: PlanName, plan: Plan, numbers: list[int]) -> torch.Tensor:
        """States of all targets of these sequences, one sequence after the other. [targets, hidden_size]"""


class TeacherStates(States):
    """The teacher's states, from its signals."""

    def __init__(self, source: SignalSource, device: torch.device) -> None:
        self._source = source
        self._device = device
        self.head = source.head().on(device)

    def announce(self, name: PlanName, batches: list[list[int]]) -> None:
        """Lets the transport bring along what will be read."""
        for batch in batches:
            self._source.announce(name, batch)

    def read(self, name: PlanName, plan: Plan, numbers: list[int]) -> torch.Tensor:
        """See `States`; raises what `SignalSource.fetch` does."""
        states = torch.cat(self._source.fetch(name, numbers))
        if len(states) != int(plan.target_counts[numbers].sum()):
            raise RetryError(f"the teacher's signals have {len(states)} rows for the sequences {numbers} of {name}.")
        return states.to(self._device)


class ModelStates(States):
    """A model's states, from its forward pass."""

    def __init__(self, model: Any, head: OutputHead, device: torch.device) -> None:
        self.model = model
        self.head = head
        self._device = device

    @property
    def parameters(self) -> int:
        """Number of weights; tied ones count once."""
        return int(self.model.num_parameters())

    def announce(self, name: PlanName, batches: list[list[int]]) -> None:
        """Nothing is brought along."""

    @torch.inference_mode()
    def read(self, name: PlanName, plan: Plan, numbers: list[int]) -> torch.Tensor:
        """See `States`."""
        sequences = [plan.sequence(number) for number in numbers]
        width = max(sequence.length for sequence in sequences)
        ids = torch.zeros(len(sequences), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        places: list[torch.Tensor] = []
        for row, sequence in enumerate(sequences):
            ids[row, : sequence.length] = torch.from_numpy(sequence.ids.astype(np.int64))
            mask[row, : sequence.length] = 1
            places.append(torch.from_numpy(sequence.signal_positions + row * width))
        # Padding is on the right, where causal attention never looks from a real token.
        states = self.model.base_model(
            input_ids=ids.to(self._device), attention_mask=mask.to(self._device), use_cache=False
        ).last_hidden_state
        return states.flatten(0, 1)[torch.cat(places).to(self._device)]


def scoring_device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    folder: Path,
    *,
    name: str,
    dtype: ResolvedPrecision,
    vocabulary: int,
    canary: list[int],
    device: torch.device,
    trust_remote_code: bool = False,
) -> ModelStates:
    """A model from its folder, checked: all weights are there, and a short text has finite logits that are those of its
    states under the head in its files. `name` is what messages call it.

    Raises
    ------
    UserError
        It can't be loaded, or the check fails.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"transformers can't load {name} in {folder}: {error}", reason="BadModel") from error
    model, found = loaded
    absent = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    if absent:
        raise UserError(f"{name} in {folder} lacks {len(absent)} weights, {absent[0]} first.", reason="BadModel")
    weights = getattr(torch, dtype)
    states = ModelStates(model.to(device).eval(), read_head(folder, vocabulary, weights).on(device), device)
    _check_model(states, name, canary, HEAD_TOLERANCE[dtype])
    return states


@torch.inference_mode()
def _check_model(loaded: ModelStates, name: str, canary: list[int], tolerance: float) -> None:
    ids = torch.tensor([canary], device=loaded.head.weight.device)
    states = loaded.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    logits = loaded.model(input_ids=ids, use_cache=False).logits[0, :, : len(loaded.head.weight)]
    own = torch.log_softmax(logits.float(), -1)
    if not torch.isfinite(own).all():
        raise UserError(
            f"{name} gives results that are not finite: its training diverged. Lower "
            "training.optimizer.learningRate, or choose a wider training.precision.",
            reason="NotFinite",
        )
    ours = torch.log_softmax(loaded.head.logits(states), -1)
    divergence = float((own.exp() * (own - ours)).sum(-1).mean())
    if not divergence <= tolerance:
        raise UserError(
            f"{name}: its output head is not the one in its files (KL {divergence:.2g} nats between their logits, at "
            f"most {tolerance:g} is allowed): this architecture can't be scored.",
            reason="HeadUnknown",
        )


def plan_batches(plan: Plan, tokens: int) -> list[list[int]]:
    """All sequences, shard by shard; in a shard those of like length together, at most `tokens` tokens with padding
    (one sequence alone may have more)."""
    batches: list[list[int]] = []
    for shard, size in enumerate(plan.shard_sizes):
        first = plan.first_sequence(shard)
        width = 0
        start = len(batches)
        for number in sorted(range(first, first + size), key=lambda n: -int(plan.lengths[n])):
            if len(batches) > start and (len(batches[-1]) + 1) * width <= tokens:
                batches[-1].append(number)
            else:
                batches.append([number])
                width = int(plan.lengths[number])
    return batches


def _targets(plan: Plan, numbers: list[int], device: torch.device) -> torch.Tensor:
    sequences = [plan.sequence(number) for number in numbers]
    ids = np.concatenate([sequence.ids[sequence.targets] for sequence in sequences])
    return torch.from_numpy(ids.astype(np.int64)).to(device)


def score_held_out(
    plan: Plan, teacher: States | None, model: States, *, name: str, told: Told = lambda done: None
) -> HeldOut:
    """KL to the teacher, agreement, cross entropy and calibration of a model, or of the teacher itself, over all
    targets of the evaluation plan. Without a teacher neither KL nor agreement.

    Raises
    ------
    UserError
        The model's results are not finite.
    """
    device = model.head.weight.device
    batches = plan_batches(plan, BATCH_TOKENS[device.type])
    if teacher is not None:
        teacher.announce("evaluation", batches)
    sums: MetricSums | None = None
    done = 0
    for batch in batches:
        of_model = model.read("evaluation", plan, batch)
        # Without a teacher a model is compared with itself, and that is not told.
        other = model if teacher is None else teacher
        part = linear_metrics(
            of_model,
            model.head.weight,
            of_model if other is model else other.read("evaluation", plan, batch),
            other.head,
            _targets(plan, batch, device),
            student_head=model.head.description,
            student_bias=model.head.bias,
        )
        sums = part if sums is None else sums + part
        done += len(batch)
        told(done)
    assert sums is not None, "a plan has at least one sequence"
    kl, cross_entropy, targets = float(sums.kl), float(sums.cross_entropy), float(sums.targets)
    if not math.isfinite(kl) or not math.isfinite(cross_entropy):
        raise UserError(f"{name} gives results that are not finite on data.evaluation.", reason="NotFinite")
    return HeldOut(
        targets=round(targets),
        # Rounding may leave a mean below 0 where both distributions are the same.
        kl_to_teacher=None if teacher is None else max(0.0, kl / targets),
        top1_agreement=None if teacher is None else float(sums.agreements) / targets,
        cross_entropy=cross_entropy / targets,
        calibration=calibration_bins(sums.calibration),
    )


def sequence_log_probabilities(
    plan: Plan, name: PlanName, model: States, *, told: Told = lambda done: None
) -> NDArray[np.float64]:
    """The log-probability of all targets of each sequence together. [sequences]"""
    device = model.head.weight.device
    batches = plan_batches(plan, BATCH_TOKENS[device.type])
    model.announce(name, batches)
    result = np.empty(len(plan), dtype=np.float64)
    done = 0
    for batch in batches:
        values = linear_log_probabilities(
            model.read(name, plan, batch),
            model.head.weight,
            model.head.description,
            _targets(plan, batch, device),
            model.head.bias,
        )
        rest = iter(values.double().tolist())
        for number in batch:
            result[number] = math.fsum(islice(rest, int(plan.target_counts[number])))
        done += len(batch)
        told(done)
    return result


def score_labels(
    plan: Plan, examples: TaskExamples, model: States, *, name: str, told: Told = lambda done: None
) -> LabelScores:
    """The log-probability of each label, its tokens and end of turn together, behind the prompt of each example.

    Raises
    ------
    UserError
        The model's results are not finite.
    """
    labels = examples.labels
    if len(plan) != len(examples.prompts) * len(labels):
        raise RetryError(
            f"task {examples.name} has {len(plan)} sequences for {len(examples.prompts)} examples and {len(labels)} "
            "labels: run prepare again.",
            reason="NotPrepared",
        )
    scores = sequence_log_probabilities(plan, f"task-{examples.name}", model, told=told)
    if not np.isfinite(scores).all():
        raise UserError(f"{name} gives results that are not finite on task {examples.name}.", reason="NotFinite")
    return LabelScores(log_probabilities=scores.reshape(len(examples.prompts), len(labels)).tolist())
