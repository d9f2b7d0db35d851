"""Packed rows of real architectures: each segment is read as if it were alone, or the model is refused."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from distill_runtime.contract.sections import Objective
from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import UserError
from distill_runtime.signals.head import HeadDescription
from distill_runtime.student.batches import assemble
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.module import DistilledStudent
from distill_runtime.student.reader import model_inputs
from distill_runtime.student.self_checks import check_packing
from tests.fixtures.models import tiny_config
from tests.runtime.student.one_process import CPU, RANKS, OneProcess

VOCABULARY = 300
LENGTHS = (31, 17, 24)
DIFFERENCE = 1e-4
"""Greatest difference of logits whose root mean square is near 1: rounding of other shapes. Crossing gives about 1."""
GEMMA = {"sliding_window": 8, "query_pre_attn_scalar": 16}
PACKABLE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 8},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
}
"""Families whose attention stays in its segment; windows shorter than a segment, so that both kinds of layers tell."""
CROSSING: dict[str, dict[str, Any]] = {"opt": {}, "bloom": {"n_layer": 2, "n_head": 4}, "mamba": {}, "bamba": {}}
"""Absolute positions, ALiBi, recurrence, and a hybrid of recurrence and attention."""


def student(family: str, attention: str, **options: Any) -> DistilledStudent:
    """A student of four random layers whose states are far from uniform."""
    torch.manual_seed(0)
    config = tiny_config(family, vocabulary=VOCABULARY, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(4.0)
    head = HeadDescription(hidden_size=64, padded_vocabulary=VOCABULARY, vocabulary=VOCABULARY)
    return DistilledStudent(model.eval(), head=head, objective=Objective())


def segments() -> dict[int, Sequence]:
    random = np.random.default_rng(0)
    return {
        number: Sequence(ids=random.integers(4, VOCABULARY, n).astype(np.int32), target_mask=np.arange(n) > 0)
        for number, n in enumerate(LENGTHS)
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", PACKABLE)
@torch.no_grad()
def test_the_models_own_logits_of_a_packed_segment_are_those_of_the_segment_alone(family: str, attention: str) -> None:
    module, found = student(family, attention, **PACKABLE[family]), segments()
    alone = [
        module("logits", model_inputs(assemble(((number,),), found, packed=False), CPU, varlen=False))[0]
        for number in found
    ]
    # Two rows of other segments in another order, the second one padded.
    arrays = assemble(((0, 1, 2), (1, 0)), found, packed=True)
    packed = module("logits", model_inputs(arrays, CPU, varlen=False))
    for row, order in enumerate(((0, 1, 2), (1, 0))):
        wanted = torch.cat([alone[number] for number in order])
        torch.testing.assert_close(packed[row, : len(wanted)], wanted, atol=DIFFERENCE, rtol=0)
    check_packing(cast(StudentEngine, OneProcess(module)), list(found.values()), RANKS, "float32", varlen=False)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", PACKABLE)
@torch.no_grad()
def test_no_token_of_a_segment_changes_the_logits_of_another(family: str, attention: str) -> None:
    module, found = student(family, attention, **PACKABLE[family]), segments()
    other = {**found, 0: Sequence(ids=found[0].ids[::-1].copy(), target_mask=found[0].target_mask)}
    one, two = (
        module("logits", model_inputs(assemble(((0, 1, 2),), of, packed=True), CPU, varlen=False))[0]
        for of in (found, other)
    )
    assert (one[: LENGTHS[0]] - two[: LENGTHS[0]]).abs().max() > 0.1
    assert torch.equal(one[LENGTHS[0] :], two[LENGTHS[0] :])


@pytest.mark.parametrize("family", CROSSING)
def test_a_model_that_reads_across_segments_is_refused_with_what_to_do(family: str) -> None:
    module = student(family, "eager", **CROSSING[family])
    with pytest.raises(UserError, match=r"training\.packing: .* set training\.packing to false") as refused:
        check_packing(
            cast(StudentEngine, OneProcess(module)), list(segments().values()), RANKS, "float32", varlen=False
        )
    assert refused.value.reason == "PackingCrosses"


def test_flash_attention_is_told_the_ends_of_all_segments_of_all_rows() -> None:
    inputs = model_inputs(assemble(((0, 1, 2), (1, 0)), segments(), packed=True), CPU, varlen=True)
    # Row 0: 31, 17 and 24; row 1: 17, 31 and 24 of padding, a segment of its own.
    ends = [0, 31, 48, 72, 89, 120, 144]
    for name in ("cu_seq_lens_q", "cu_seq_lens_k"):
        starts = inputs[name]
        assert isinstance(starts, torch.Tensor)
        assert (starts.tolist(), starts.dtype) == (ends, torch.int32)
    assert inputs["max_length_q"] == inputs["max_length_k"] == 31
    assert "attention_mask" not in inputs
