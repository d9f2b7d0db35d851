"""The canary: before a replica takes work it must agree with itself and with the first replica.

A short text is scored alone and inside a batch of sequences of several lengths. Engines have been seen to mix up rows
of a batch without any error, and replicas to load other weights than their peers: both show here, before a signal is
written. What is compared are output distributions, since states of equal size may differ where the head doesn't look.
"""

import logging
import math
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from distill_runtime import layout
from distill_runtime.digests import digest_of
from distill_runtime.errors import RetryError
from distill_runtime.prepared import Prepared, ResolvedPrecision
from distill_runtime.signals.head import OutputHead
from distill_runtime.store.base import ObjectStore
from distill_runtime.teacher.engine import TeacherEngine

KL_BOUND: dict[ResolvedPrecision, float] = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""Greatest KL of any position, in nats, between two answers to the canary.

Measured with a 135M model on a processor: alone against batched 2e-11 in float32, 3e-3 in bfloat16, 3e-4 in float16;
one engine against the other 1e-10 in float32, 1e-2 in bfloat16. Other shapes and other GPUs round differently, so the
16-bit bounds leave a factor of ten and more. A row taken for its neighbour costs whole nats."""
LIKELIHOOD_BOUND: dict[ResolvedPrecision, float] = {"float32": 1e-2, "bfloat16": 0.2, "float16": 0.1}
"""Greatest difference in nats of the canary's mean log-likelihood between two replicas: shows a head that differs.
Measured as above: 2e-6 in float32, 0.05 in bfloat16."""
WORSE_THAN_GUESSING = 3.0
"""Nats by which the canary's mean negative log-likelihood may exceed that of guessing uniformly, log(vocabulary).

A trained model stays far below log(vocabulary), a model with random weights (as in tests) a little above it. A head
that belongs to another model, or misses a scale, puts its mass on wrong tokens: 18 nats with permuted rows, 52 with
logits 16 times too large, where guessing costs 10.8 and the right head 4.1."""
LONGEST_NEIGHBOUR = 512
"""Tokens of the longest sequence beside the canary."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CanaryFigures:
    """What was measured; all in nats."""

    batched: float
    """Greatest KL of a position, alone against inside a batch."""
    likelihood: float
    """Mean negative log-likelihood of the text."""
    stored: float
    """Greatest KL of a position against the first replica's answer; 0 for the first one."""


def canary_key(prepared: Prepared) -> str:
    """Where the first replica's answer is: by teacher, precision and text."""
    text = digest_of(prepared.teacher_canary)[:16]
    return f"{layout.head_key(prepared.teacher.digest)}/canary-{prepared.teacher_dtype}-{text}.safetensors"


def check_canary(
    engine: TeacherEngine, head: OutputHead, prepared: Prepared, store: ObjectStore, *, replica: str, longest: int
) -> CanaryFigures:
    """Scores the canary and stores the answer, or compares it with the stored one.

    `longest` is the number of tokens that the engine takes at most.

    Raises
    ------
    RetryError
        With the reason CanaryFailed: this replica's states can't be trusted. The sentence names it and the figures.
    """
    canary, dtype = prepared.teacher_canary, prepared.teacher_dtype
    if len(canary) < 2 or not all(0 <= token < prepared.vocabulary for token in canary):
        raise RetryError(
            f"the canary is no text of two or more tokens below {prepared.vocabulary}: run prepare again.",
            reason="NotPrepared",
        )
    alone, batched = _score(engine, canary, longest, replica)
    key = canary_key(prepared)
    mine = _likelihood(head, alone, canary)
    _check_likelihood(mine, head.description.vocabulary, replica)
    within = worst_divergence(head, alone, batched)
    if within > KL_BOUND[dtype]:
        raise _refused(
            replica,
            f"its states inside a batch differ from those alone by {within:.2g} nats (KL), "
            f"allowed are {KL_BOUND[dtype]:.2g} in {dtype}",
        )
    answer = save({"hidden_states": alone.contiguous(), "log_likelihood": torch.tensor([-mine], dtype=torch.float64)})
    if store.put_if_absent(key, answer):
        return CanaryFigures(batched=within, likelihood=mine, stored=0.0)
    against = _compare_with_stored(head, alone, mine, store, key, dtype, replica)
    return CanaryFigures(batched=within, likelihood=mine, stored=against)


def worst_divergence(head: OutputHead, first: torch.Tensor, second: torch.Tensor) -> float:
    """The greatest KL(first || second) of a position through the head, in nats; states are [positions, hidden_size]."""
    p, q = (torch.log_softmax(head.logits(states).double(), dim=-1) for states in (first, second))
    return float((p.exp() * (p - q)).sum(-1).max())


def neighbours(canary: list[int], longest: int) -> list[list[int]]:
    """Sequences of several lengths made of the canary's ids, none of them equal to it."""
    many = canary * math.ceil(LONGEST_NEIGHBOUR / len(canary))
    wanted = [canary[::-1] + canary, canary[: len(canary) // 2], many, canary[:1], canary[1:] + canary[:1]]
    cut = [ids[: min(longest, LONGEST_NEIGHBOUR)] for ids in wanted]
    return [ids for ids in cut if ids and ids != canary]


def _score(engine: TeacherEngine, canary: list[int], longest: int, replica: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The canary's states alone, and inside a batch."""
    alone = engine.hidden_states([canary])[0]
    others = neighbours(canary, longest)
    place = len(others) // 2
    batched = engine.hidden_states([*others[:place], canary, *others[place:]])[place]
    for states, where in ((alone, "alone"), (batched, "inside a batch")):
        if states.shape[0] != len(canary):
            raise _refused(replica, f"it answered {len(canary)} tokens with {states.shape[0]} states {where}")
        if not torch.isfinite(states).all():
            raise _refused(replica, f"its states {where} are not finite")
    return alone, batched


def _likelihood(head: OutputHead, states: torch.Tensor, canary: list[int]) -> float:
    """Mean negative log-likelihood of the canary's tokens behind the first."""
    return float(torch.nn.functional.cross_entropy(head.logits(states[:-1]), torch.tensor(canary[1:])))


def _check_likelihood(value: float, vocabulary: int, replica: str) -> None:
    allowed = math.log(vocabulary) + WORSE_THAN_GUESSING
    if not value <= allowed:
        raise _refused(
            replica,
            f"the text costs {value:.2f} nats a token under the teacher's output head, guessing costs "
            f"{math.log(vocabulary):.2f}: states and head don't belong together",
        )


def _compare_with_stored(
    head: OutputHead,
    alone: torch.Tensor,
    mine: float,
    store: ObjectStore,
    key: str,
    dtype: ResolvedPrecision,
    replica: str,
) -> float:
    where = f"{store.uri}/{key}"
    try:
        stored = load(store.get(key))
        states, likelihood = stored["hidden_states"], -float(stored["log_likelihood"][0])
    except (SafetensorError, KeyError, IndexError) as error:
        raise RetryError(f"{where} can't be read ({error}): delete it.", reason="CanaryCorrupt") from error
    if states.shape != alone.shape:
        raise _refused(
            replica, f"its states have the shape {tuple(alone.shape)}, those in {where} {tuple(states.shape)}"
        )
    against = worst_divergence(head, states, alone)
    if not against <= KL_BOUND[dtype]:
        raise _refused(
            replica,
            f"its answer differs from the first replica's by {against:.2g} nats (KL), allowed are "
            f"{KL_BOUND[dtype]:.2g} in {dtype}; if the first one was wrong, delete {where}",
        )
    if not abs(mine - likelihood) <= LIKELIHOOD_BOUND[dtype]:
        raise _refused(
            replica,
            f"the text costs {mine:.4f} nats a token under its output head and {likelihood:.4f} under the first "
            f"replica's; if the first one was wrong, delete {where}",
        )
    return against


def _refused(replica: str, why: str) -> RetryError:
    return RetryError(f"teacher replica {replica} failed the canary: {why}.", reason="CanaryFailed")
