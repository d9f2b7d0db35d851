from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch

from distill_runtime.data.sequence import Sequence
from distill_runtime.errors import RetryError, UserError
from distill_runtime.student.distributed import Ranks
from distill_runtime.student.engine import StudentEngine, bit_sum
from distill_runtime.student.self_checks import assert_resumed, check_packing, greatest_difference

RANKS = Ranks(rank=0, world=1, device=torch.device("cpu"))
Body = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
TABLE = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))


class FakeEngine:
    """A body that is a plain function of ids and positions."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def evaluating(self, on: bool) -> None:
        pass

    def __call__(self, ask: str, inputs: dict[str, Any]) -> torch.Tensor:
        assert ask == "states"
        return self._body(inputs["input_ids"], inputs.get("position_ids"))


def running_mean(ids: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """Sees every token before it in the row, whatever the positions say: as a recurrent model does."""
    count = torch.arange(1, ids.shape[1] + 1)[None, :, None]
    return TABLE[ids].cumsum(1) / count


def segment_mean(ids: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """Begins anew where positions restart."""
    if positions is None:
        positions = torch.arange(ids.shape[1])[None].expand_as(ids)
    total = TABLE[ids].cumsum(1)
    start = torch.arange(ids.shape[1])[None] - positions
    before = torch.nn.functional.pad(total, (0, 0, 1, 0))
    return (total - before.gather(1, start[:, :, None].expand_as(total))) / (positions[:, :, None] + 1)


def sequences() -> list[Sequence]:
    random = np.random.default_rng(0)
    return [
        Sequence(ids=random.integers(0, 100, n).astype(np.int32), target_mask=np.arange(n) > 0) for n in (60, 20, 9)
    ]


def check(body: Body) -> None:
    check_packing(cast(StudentEngine, FakeEngine(body)), sequences(), RANKS, "float32", varlen=False)


def test_a_model_whose_segments_see_each_other_is_refused() -> None:
    with pytest.raises(UserError, match=r"training\.packing: .* set training\.packing to false"):
        check(running_mean)


def test_a_model_that_restarts_with_the_positions_may_be_packed() -> None:
    check(segment_mean)


def test_a_few_large_values_with_their_rounding_are_no_crossing() -> None:
    wanted = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    wanted[:, 7] = 40.0
    rounded = wanted.clone()
    rounded[:, 7] *= 1 + 2**-8  # As bfloat16 rounds.
    assert (rounded - wanted).abs().max() > 0.1
    assert greatest_difference(rounded, wanted) < 0.01
    crossed = wanted.clone()
    crossed[3] = wanted[4]
    assert greatest_difference(crossed, wanted) > 0.1


def test_states_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match=r"training\.packing"):
        check(lambda ids, positions: segment_mean(ids, positions) * float("nan"))


def test_a_resume_with_another_answer_is_refused() -> None:
    assert_resumed(2.0, 2.0001, 7, "float32")
    for found in (2.01, float("nan")):
        with pytest.raises(RetryError, match="step 7") as refused:
            assert_resumed(2.0, found, 7, "float32")
        assert refused.value.reason == "ResumeMismatch"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_checksum_of_a_tensor_changes_with_one_bit_alone(dtype: torch.dtype) -> None:
    tensor = torch.randn(33, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    other = tensor.clone()
    assert bit_sum(tensor) == bit_sum(other)
    other.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])[7, 3] ^= 1
    assert bit_sum(tensor) != bit_sum(other)
