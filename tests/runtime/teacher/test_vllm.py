"""vLLM's states times the head read from the checkpoint are the model's own logits, for every architecture on the list.

All engines run one after the other in this process: each takes two to three seconds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_runtime.errors import RetryError, UserError
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.head_source import read_head
from distill_runtime.teacher.architectures import TRANSFORMERS_PROVEN, VLLM_PROVEN, check_engine
from distill_runtime.teacher.vllm_engine import VllmEngine, cache_bytes, checked_states
from tests.fixtures.families import VOCABULARY, reference_logits, save_family, save_nested, some_sequences
from tests.fixtures.models import save_tiny_model

ATOL = 5e-4
"""Float32, logits of up to 15: vLLM's kernels add in another order than transformers'."""
KL_ATOL = 2e-6
"""Nats of any position; arithmetic in float32 alone makes 5e-7."""


@contextmanager
def _engine(folder: Path, *, longest: int = 64, max_batch_tokens: int = 64) -> Iterator[VllmEngine]:
    engine = VllmEngine(folder, dtype="float32", gpus=0, max_batch_tokens=max_batch_tokens, longest=longest)
    try:
        yield engine
    finally:
        engine.close()


def _worst_kl(head: OutputHead, states: torch.Tensor, logits: torch.Tensor) -> float:
    p, q = torch.log_softmax(logits.double(), -1), torch.log_softmax(head.logits(states).double(), -1)
    return float((p.exp() * (p - q)).sum(-1).max())


@pytest.mark.parametrize("architecture", sorted(VLLM_PROVEN))
def test_vllms_states_times_head_are_the_models_own_logits(architecture: str, tmp_path: Path) -> None:
    save_family(tmp_path, architecture)
    sequences = some_sequences()
    wanted = reference_logits(tmp_path, sequences)
    head = read_head(tmp_path, VOCABULARY)
    with _engine(tmp_path) as engine:  # 160 tokens in steps of 64: several steps, each of several sequences.
        answers = engine.hidden_states(sequences)
    assert len(answers) == len(sequences)
    for states, logits in zip(answers, wanted, strict=True):
        torch.testing.assert_close(head.logits(states), logits, atol=ATOL, rtol=1e-4)
        assert _worst_kl(head, states, logits) < KL_ATOL


def test_alone_batched_and_shuffled_give_the_same_states(tmp_path: Path) -> None:
    save_family(tmp_path, "Qwen3ForCausalLM")
    sequences = [*some_sequences(0), *some_sequences(1), *some_sequences(2)]
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(0)).tolist()
    with _engine(tmp_path, max_batch_tokens=256) as engine:
        together = engine.hidden_states(sequences)
        shuffled = engine.hidden_states([sequences[number] for number in order])
        again = engine.hidden_states(sequences)
        alone = [engine.hidden_states([ids])[0] for ids in sequences]
    for place, number in enumerate(order):
        for other in (together[number], shuffled[place], again[number]):
            torch.testing.assert_close(other, alone[number], atol=5e-5, rtol=0)


def test_a_sequence_longer_than_a_step_is_read_as_a_whole(tmp_path: Path) -> None:
    save_family(tmp_path, "LlamaForCausalLM")
    sequences = some_sequences(lengths=(200, 3, 150))
    head = read_head(tmp_path, VOCABULARY)
    with _engine(tmp_path, longest=200, max_batch_tokens=64) as engine:
        answers = engine.hidden_states(sequences)
    for states, logits in zip(answers, reference_logits(tmp_path, sequences), strict=True):
        assert _worst_kl(head, states, logits) < KL_ATOL


def test_a_real_model_gives_transformers_distributions(smollm2_folder: Path) -> None:
    text = [1, 4093, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2]
    sequences = [text, text[3:], text[:7] * 6]
    head = read_head(smollm2_folder, 49152)
    with _engine(smollm2_folder, max_batch_tokens=128) as engine:
        answers = engine.hidden_states(sequences)
    for states, logits in zip(answers, reference_logits(smollm2_folder, sequences, 49152), strict=True):
        p, q = torch.log_softmax(logits.double(), -1), torch.log_softmax(head.logits(states).double(), -1)
        assert float((p.exp() * (p - q)).sum(-1).mean()) < 1e-6
        assert torch.equal(p.argmax(-1), q.argmax(-1))


def test_a_sequence_beyond_the_models_positions_is_refused_before_loading(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, layers=2)
    with pytest.raises(UserError, match=r"vLLM can't run the teacher.*max_model_len"), _engine(tmp_path, longest=4096):
        pass


def test_gpus_that_this_build_cannot_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set teacher\.gpus to 0") as caught:
        VllmEngine(tmp_path, dtype="float32", gpus=1, max_batch_tokens=64, longest=64)
    assert caught.value.reason == "NoGpu"


@dataclass
class _Pooled:
    data: Any


@dataclass
class _Answer:
    prompt_token_ids: list[int]
    outputs: _Pooled = field(default_factory=lambda: _Pooled(torch.zeros(3, 4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answers: answers.pop(), "answered 1 sequences of 2"),
        (lambda answers: answers.reverse(), "sequence 0 with the ids of another"),
        (lambda answers: setattr(answers[1].outputs, "data", torch.zeros(2, 4)), r"shape \(2, 4\), wanted \(3, 4\)"),
        (lambda answers: setattr(answers[1].outputs, "data", torch.zeros(3, 8)), r"shape \(3, 8\), wanted \(3, 4\)"),
        (lambda answers: setattr(answers[0].outputs, "data", None), "shape NoneType"),
    ],
)
def test_an_answer_to_another_question_is_refused(change: Callable[[list[_Answer]], Any], message: str) -> None:
    asked = [[1, 2, 3], [4, 5, 6]]
    answers = [_Answer(list(ids)) for ids in asked]
    assert len(checked_states(asked, answers, 4)) == 2
    change(answers)
    with pytest.raises(RetryError, match=message) as caught:
        checked_states(asked, answers, 4)
    assert caught.value.reason == "WrongAnswer"


def test_states_do_not_share_storage_with_the_engine() -> None:
    step = torch.arange(24.0).reshape(6, 4)
    states = checked_states([[1, 2, 3]], [_Answer([1, 2, 3], _Pooled(step[:3]))], 4)[0]
    step.zero_()
    assert states[2, 3] == 11


def test_the_cache_holds_one_step_and_little_more(tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(save_family(tmp_path, "LlamaForCausalLM"))
    per_token = 2 * 2 * 2 * 32 * 4
    small, large = (cache_bytes(config, tokens=tokens, dtype=torch.float32) for tokens in (64, 65536))
    assert small >= 64 * per_token
    assert 65536 * per_token <= large <= 2 * 65536 * per_token


def test_engines_are_refused_where_they_are_not_proven(tmp_path: Path) -> None:
    assert VLLM_PROVEN < TRANSFORMERS_PROVEN
    save_nested(tmp_path / "nested", "Gemma3ForConditionalGeneration")
    with pytest.raises(UserError, match=r"set teacher\.engine to transformers"):
        check_engine("vllm", tmp_path / "nested")
    check_engine("transformers", tmp_path / "nested")
    plain = save_tiny_model(tmp_path / "plain")
    check_engine("vllm", plain)
    (plain / "modules.json").write_text("[]")
    with pytest.raises(UserError, match="sentence embedding"):
        check_engine("vllm", plain)
    config = plain / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "MiMoForCausalLM"))
    for engine in ("vllm", "transformers"):
        with pytest.raises(UserError, match="MiMoForCausalLM is not among"):
            check_engine(engine, plain)
