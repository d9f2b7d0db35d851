import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from distill_runtime.contract.sections import Objective
from distill_runtime.losses import fused_linear, vocabulary
from distill_runtime.losses.fused_linear import fused_linear_objective
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.teacher_rows import HiddenRows
from tests.unit.losses.heads import Sides, random_sides

OPTIONS: dict[str, list[Any]] = {
    "temperature": [1.0, 2.5],
    "weights": [(1.0, 0.0), (0.7, 0.4), (0.0, 1.0)],
    "chunk_tokens": [None, 1, 3],
    "softcap": [None, 2.0],
    "scale": [1.0, 0.3],
    "bias": [False, True],
    "padding": [0, 4],
    "frozen_head": [False, True],
}
GRID = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]


def make_objective(temperature: float = 1.0, weights: tuple[float, float] = (1.0, 0.0)) -> Objective:
    return Objective(temperature=temperature, distillation_weight=weights[0], cross_entropy_weight=weights[1])


def gradients(total: torch.Tensor, sides: Sides) -> list[torch.Tensor]:
    found = torch.autograd.grad(total, sides.trained, allow_unused=True)
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(sides.trained, found, strict=True)
    ]


def assert_equal_to_the_plain_formula(
    sides: Sides, objective: Objective, *, chunk_tokens: int | None = None, rtol: float, atol: float
) -> None:
    sums, plain = sides.fused(objective, chunk_tokens=chunk_tokens), sides.plain(objective)
    torch.testing.assert_close(sums.total.double(), plain, rtol=rtol, atol=atol)
    # A factor before the backward pass, as the trainer has one.
    for made, wanted, tensor in zip(
        gradients(3.5 * sums.total, sides), gradients(3.5 * plain, sides), sides.trained, strict=True
    ):
        assert made.dtype == tensor.dtype
        torch.testing.assert_close(made.double(), wanted.double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_equal_the_plain_formula_for_every_combination_of_options(dtype: torch.dtype) -> None:
    tolerance = 1e-10 if dtype == torch.float64 else 3e-5
    for options in GRID:
        options = dict(options)
        objective = make_objective(options.pop("temperature"), options.pop("weights"))
        chunk_tokens = options.pop("chunk_tokens")
        sides = random_sides(**options, dtype=dtype, teacher_dtype=dtype)
        try:
            assert_equal_to_the_plain_formula(
                sides, objective, chunk_tokens=chunk_tokens, rtol=tolerance, atol=tolerance
            )
        except AssertionError as error:
            raise AssertionError(f"{objective!r} chunk_tokens={chunk_tokens} {options}: {error}") from error


@pytest.mark.parametrize("objective", [make_objective(1.0, (1.0, 0.5)), make_objective(2.5, (0.7, 0.4))])
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    sides = random_sides(
        tokens=4, vocabulary=6, scale=0.8, softcap=3.0, bias=True, padding=2, dtype=torch.float64,
        teacher_dtype=torch.float64,
    )  # fmt: skip

    def total(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return fused_linear_objective(
            hidden, weight, sides.teacher, sides.targets,
            student_head=sides.student_head, student_bias=bias, objective=objective, chunk_tokens=3,
        ).total  # fmt: skip

    assert torch.autograd.gradcheck(total, sides.trained)


def test_parts_are_the_unweighted_sums_and_the_total_is_their_weighted_sum() -> None:
    sides = random_sides()
    only_kl, only_ce = sides.plain(make_objective(2.5)), sides.plain(make_objective(2.5, (0.0, 1.0)))
    sums = sides.fused(make_objective(2.5, (0.7, 0.4)))
    torch.testing.assert_close(sums.divergence.double(), only_kl.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.cross_entropy.double(), only_ce.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.total.detach(), 0.7 * sums.divergence + 0.4 * sums.cross_entropy)
    assert sums.total.dtype == torch.float32
    assert not sums.divergence.requires_grad
    assert not sums.cross_entropy.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_cross_entropy_without_weight_is_reported_only_when_asked_for(temperature: float) -> None:
    sides = random_sides()
    asked, unasked = (sides.fused(make_objective(temperature), report=report) for report in (True, False))
    wanted = sides.plain(make_objective(1.0, (0.0, 1.0))).detach()
    torch.testing.assert_close(asked.cross_entropy.double(), wanted, rtol=1e-5, atol=1e-5)
    assert unasked.cross_entropy.isnan()
    for made, other in zip(gradients(asked.total, sides), gradients(unasked.total, sides), strict=True):
        assert torch.equal(made, other)


def test_without_a_weight_on_the_divergence_no_teacher_is_needed() -> None:
    sides = random_sides()
    sums = fused_linear_objective(
        sides.student_hidden, sides.student_weight, None, sides.targets,
        student_head=sides.student_head, objective=make_objective(weights=(0.0, 1.0)),
    )  # fmt: skip
    assert sums.divergence.isnan()
    torch.testing.assert_close(sums.total, sums.cross_entropy)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 8), size=st.floats(0.01, 8))
@settings(max_examples=40, deadline=None)
def test_divergence_is_never_negative(seed: int, temperature: float, size: float) -> None:
    sides = random_sides(seed=seed, size=size)
    # Rounding may take a divergence of 0 below it, by no more than this.
    assert sides.fused(make_objective(temperature)).divergence.item() >= -1e-5 * temperature**2


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 8), softcap=st.sampled_from([None, 4.0]))
@settings(max_examples=25, deadline=None)
def test_divergence_and_gradient_are_zero_where_student_equals_teacher(
    seed: int, temperature: float, softcap: float | None
) -> None:
    sides = random_sides(seed=seed, softcap=softcap)
    sides.teacher_hidden = sides.student_hidden.detach()
    sides.teacher_head = OutputHead(sides.student_head, sides.student_weight.detach())
    sums = sides.fused(make_objective(temperature))
    assert sums.divergence.item() == 0.0
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients(sums.total, sides))


@given(seed=st.integers(0, 10_000), shift=st.floats(-1000, 1000))
@settings(max_examples=25, deadline=None)
def test_a_constant_added_to_all_logits_of_one_side_changes_nothing(seed: int, shift: float) -> None:
    sides = random_sides(seed=seed, bias=True)
    before = sides.fused(make_objective(2.0, (1.0, 0.5)))
    assert sides.student_bias is not None
    sides.student_bias = (sides.student_bias.detach() + shift).requires_grad_()
    after = sides.fused(make_objective(2.0, (1.0, 0.5)))
    # float32 keeps about 6e-5 of a logit of 1000, in each of 7 targets.
    torch.testing.assert_close(after.total, before.total, rtol=1e-4, atol=5e-3)


@given(seed=st.integers(0, 1000), tokens=st.integers(1, 20), chunk_tokens=st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_result_does_not_depend_on_the_chunk_size(seed: int, tokens: int, chunk_tokens: int) -> None:
    sides = random_sides(seed=seed, tokens=tokens)
    whole, parts = (sides.fused(make_objective(2.0, (1.0, 0.5)), chunk_tokens=n) for n in (None, chunk_tokens))
    torch.testing.assert_close(parts.total, whole.total, rtol=1e-5, atol=1e-5)
    for made, wanted in zip(gradients(parts.total, sides), gradients(whole.total, sides), strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_result_does_not_depend_on_the_rows_worked_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = random_sides(tokens=9, softcap=3.0)
    whole = sides.fused(make_objective(2.0, (1.0, 0.5)))
    monkeypatch.setattr(vocabulary, "CACHED_ELEMENTS", 1)  # blocks of one row
    monkeypatch.setattr(vocabulary, "WEIGHT_BLOCK", 4)
    rows = sides.fused(make_objective(2.0, (1.0, 0.5)))
    torch.testing.assert_close(rows.total, whole.total, rtol=1e-5, atol=1e-5)
    for made, wanted in zip(gradients(rows.total, sides), gradients(whole.total, sides), strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_no_targets_give_a_sum_of_zero_with_gradients_of_zero() -> None:
    sides = random_sides(tokens=0, bias=True, padding=2)
    sums = sides.fused(make_objective(2.0, (1.0, 0.5)))
    assert sums.total.item() == sums.divergence.item() == sums.cross_entropy.item() == 0.0
    for gradient, tensor in zip(torch.autograd.grad(sums.total, sides.trained), sides.trained, strict=True):
        assert gradient.shape == tensor.shape
        assert not gradient.any()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_give_finite_losses_and_gradients(temperature: float, size: float) -> None:
    sides = random_sides(size=size, vocabulary=50)
    sums = sides.fused(make_objective(temperature, (1.0, 1.0)))
    assert sums.total.isfinite()
    assert sums.divergence.item() >= 0
    assert all(gradient.isfinite().all() for gradient in gradients(sums.total, sides))
    torch.testing.assert_close(
        sums.total.double(), sides.plain(make_objective(temperature, (1.0, 1.0))), rtol=1e-5, atol=0
    )


def test_padding_gets_no_probability_and_no_gradient() -> None:
    sides = random_sides(padding=5, bias=True)
    before = sides.fused(make_objective(weights=(1.0, 1.0)))
    with torch.no_grad():
        sides.student_weight[11:] = 1e6
    after = sides.fused(make_objective(weights=(1.0, 1.0)))
    assert torch.equal(before.total, after.total)
    _, weight, bias = gradients(after.total, sides)
    assert not weight[11:].any()
    assert not bias[11:].any()
    assert weight[:11].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_inputs_are_added_up_in_float32(dtype: torch.dtype) -> None:
    sides = random_sides(tokens=64, vocabulary=301, width=32, dtype=dtype, teacher_dtype=torch.bfloat16, size=0.3)
    objective = make_objective(1.0, (1.0, 0.5))
    sums, plain = sides.fused(objective, chunk_tokens=10), sides.plain(objective)
    # The inputs are exact in float64: what is left is float32's rounding of the loss and the gradients' own format.
    torch.testing.assert_close(sums.total.double(), plain, rtol=1e-5, atol=0)
    epsilon = torch.finfo(dtype).eps
    for made, wanted in zip(gradients(sums.total, sides), gradients(plain, sides), strict=True):
        assert made.dtype == dtype
        torch.testing.assert_close(made.double(), wanted.double(), rtol=epsilon, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("teacher_dtype", [torch.float32, torch.bfloat16])
def test_sides_may_differ_in_width_and_precision(dtype: torch.dtype, teacher_dtype: torch.dtype) -> None:
    sides = random_sides(width=8, teacher_width=13, dtype=dtype, teacher_dtype=teacher_dtype)
    assert_equal_to_the_plain_formula(
        sides, make_objective(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-4
    )


def test_states_of_a_teacher_may_come_in_another_precision_than_its_head() -> None:
    sides = random_sides()
    sides.teacher_hidden = sides.teacher_hidden.to(torch.bfloat16)
    assert_equal_to_the_plain_formula(sides, make_objective(), rtol=1e-4, atol=1e-5)


def test_autocast_changes_nothing() -> None:
    sides = random_sides()
    outside = sides.fused(make_objective(weights=(1.0, 0.5)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sides.fused(make_objective(weights=(1.0, 0.5)))
        made = gradients(inside.total, sides)
    assert torch.equal(inside.total, outside.total)
    assert all(torch.equal(a, b) for a, b in zip(made, gradients(outside.total, sides), strict=True))


def test_backward_reads_no_weight() -> None:
    sides = random_sides()
    wanted = gradients(sides.plain(make_objective()), sides)
    total = sides.fused(make_objective()).total
    sides.student_weight.data = torch.full_like(sides.student_weight, torch.nan)  # as ZeRO-3 takes it away
    for made, expected in zip(gradients(total, sides), wanted, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_two_calls_add_up() -> None:
    sides = random_sides()
    (2 * sides.fused(make_objective()).total).backward()
    (3 * sides.fused(make_objective()).total).backward()
    wanted = gradients(5 * sides.plain(make_objective()), sides)
    for tensor, expected in zip(sides.trained, wanted, strict=True):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, expected, rtol=1e-4, atol=1e-5)


class Sizes(TorchDispatchMode):
    """Notes the number of elements of every tensor that an operation yields, and of those allocated for weights."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[int] = []
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements.append(tensor.numel())
                self.shapes.append(tuple(tensor.shape))
        return result


def test_no_tensor_of_tokens_times_vocabulary_is_made() -> None:
    tokens, words = 120, 200
    sides = random_sides(tokens=tokens, vocabulary=words, width=4, teacher_width=4, softcap=5.0, bias=True, scale=0.5)
    with Sizes() as spy:
        sides.fused(make_objective(2.0, (1.0, 0.5)), chunk_tokens=16).total.backward()
    assert max(spy.elements) <= 16 * words
    with Sizes() as spy:
        sides.plain(make_objective())
    assert max(spy.elements) >= tokens * words, "the spy must see what the plain formula makes"


def test_without_gradients_no_gradient_is_allocated() -> None:
    sides = random_sides(tokens=6, vocabulary=40, width=5)
    weight, hidden = tuple(sides.student_weight.shape), tuple(sides.student_hidden.shape)
    with torch.no_grad(), Sizes() as spy:
        sums = sides.fused(make_objective())
    assert not sums.total.requires_grad
    made = [shape for shape in spy.shapes if shape in (weight, hidden)]
    recorded = Sizes()
    with recorded:
        sides.fused(make_objective())
    assert len(made) < len([shape for shape in recorded.shapes if shape in (weight, hidden)])
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(fused_linear, "hidden_gradient_into", lambda *_: calls.append("hidden"))
        patch.setattr(fused_linear, "add_weight_gradient", lambda *_: calls.append("weight"))
        sides.fused(make_objective())
    assert calls == []


def test_a_frozen_head_gets_no_gradient_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = random_sides(frozen_head=True)
    calls: list[str] = []
    monkeypatch.setattr(fused_linear, "add_weight_gradient", lambda *_: calls.append("weight"))
    sides.fused(make_objective()).total.backward()
    assert calls == []
    assert sides.student_weight.grad is None
    assert sides.student_hidden.grad is not None


def test_what_does_not_fit_is_refused() -> None:
    sides = random_sides()
    other = random_sides(vocabulary=12)
    with pytest.raises(ValueError, match="the teacher's vocabulary is 12, the student's 11"):
        Sides(**{**vars(sides), "teacher_head": other.teacher_head}).fused(make_objective())
    with pytest.raises(ValueError, match="needs the teacher's rows"):
        fused_linear_objective(
            sides.student_hidden, sides.student_weight, None, sides.targets,
            student_head=sides.student_head, objective=make_objective(),
        )  # fmt: skip
    with pytest.raises(ValueError, match="6 rows of the teacher for 7 states of the student"):
        Sides(**{**vars(sides), "teacher_hidden": sides.teacher_hidden[1:]}).fused(make_objective())
    description = HeadDescription(hidden_size=5, padded_vocabulary=11, vocabulary=11, bias=True)
    with pytest.raises(ValueError, match="description says bias: True"):
        Sides(**{**vars(sides), "student_head": description}).fused(make_objective())
    with pytest.raises(ValueError, match="int64"):
        Sides(**{**vars(sides), "targets": sides.targets.int()}).fused(make_objective())
    with pytest.raises(ValueError, match="at least 1 token"):
        sides.fused(make_objective(), chunk_tokens=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpus_agree_with_the_processor(dtype: torch.dtype) -> None:
    sides = random_sides(tokens=64, vocabulary=304, width=32, teacher_width=16, dtype=dtype, teacher_dtype=dtype)
    objective = make_objective(2.0, (1.0, 0.5))
    wanted = sides.fused(objective)
    moved = fused_linear_objective(
        sides.student_hidden.cuda(), sides.student_weight.cuda(), HiddenRows(sides.teacher_hidden.cuda(),
        OutputHead(sides.teacher_head.description, sides.teacher_head.weight.cuda())), sides.targets.cuda(),
        student_head=sides.student_head, objective=objective,
    )  # fmt: skip
    torch.testing.assert_close(moved.total.cpu(), wanted.total, rtol=1e-4, atol=1e-4)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    for made, expected in zip(gradients(moved.total, sides), gradients(wanted.total, sides), strict=True):
        torch.testing.assert_close(made, expected, rtol=tolerance, atol=tolerance)
