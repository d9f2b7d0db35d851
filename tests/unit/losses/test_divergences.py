"""Every divergence, of every kind of signal that defines it, against its plain formula."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.contract.sections import Divergence, DivergenceKind, Objective
from distill_runtime.losses import reference
from distill_runtime.losses.fused_linear import fused_linear_objective
from distill_runtime.signals.head import OutputHead
from distill_runtime.signals.teacher_rows import SampledRows, TeacherRows, TopKRows
from tests.unit.losses.heads import Sides, random_sides
from tests.unit.losses.rows import sampled_rows, top_k_rows

KINDS: tuple[DivergenceKind, ...] = get_args(DivergenceKind)
ZERO_AT_EQUALITY = [kind for kind in KINDS if kind != "teacherTop1"]
F_DIVERGENCES = [kind for kind in ZERO_AT_EQUALITY if kind != "adaptiveKL"]
VOCABULARY = 11
Rows = Callable[[torch.Tensor, float], torch.Tensor | TopKRows | SampledRows]
"""From the teacher's logits and a temperature to what the student gets of it."""


def drawn(logits: torch.Tensor, temperature: float) -> SampledRows:
    return sampled_rows(logits, 7, temperature, generator=torch.Generator().manual_seed(1))


SIGNALS: dict[str, Rows] = {
    "hidden": lambda logits, temperature: logits,
    "top-1": lambda logits, temperature: top_k_rows(logits, 1, temperature),
    "top-4": lambda logits, temperature: top_k_rows(logits, 4, temperature),
    "top-all": lambda logits, temperature: top_k_rows(logits, VOCABULARY, temperature),
    "sampled": drawn,
}


def objective_of(*terms: Divergence, **settings: Any) -> Objective:
    return Objective(divergences=list(terms), **settings)


def both(sides: Sides, objective: Objective, rows: Rows, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The total by the fused form and by the plain one."""
    student, teacher = sides.logits()
    signal = rows(teacher.detach(), objective.temperature)
    given: TeacherRows = sides.teacher if isinstance(signal, torch.Tensor) else signal
    fused = fused_linear_objective(
        sides.student_hidden,
        sides.student_weight,
        given,
        sides.targets,
        student_head=sides.student_head,
        student_bias=sides.student_bias,
        objective=objective,
        **settings,
    )
    return fused.total, reference.objective_total(student, signal, sides.targets, objective)


def assert_equal(sides: Sides, objective: Objective, rows: Rows, tolerance: float, **settings: Any) -> None:
    """Loss and gradients of both forms."""
    fused, plain = both(sides, objective, rows, **settings)
    torch.testing.assert_close(fused.double(), plain, rtol=tolerance, atol=tolerance)
    for made, wanted in zip(
        torch.autograd.grad(fused, sides.trained), torch.autograd.grad(plain, sides.trained), strict=True
    ):
        torch.testing.assert_close(made.double(), wanted.double(), rtol=tolerance, atol=tolerance)


HEADS: list[dict[str, Any]] = [
    {},
    {"softcap": 2.0, "scale": 0.3, "bias": True, "padding": 4},
    {"frozen_head": True, "padding": 2},
]
GRID = list(itertools.product([1.0, 2.5], ["squared", "none"], [(1.0, 0.0), (0.7, 0.4)], [None, 3], HEADS))


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_equal_those_of_the_plain_formula(
    kind: DivergenceKind, signal: str, dtype: torch.dtype
) -> None:
    if signal == "sampled" and kind != "forwardKL":
        with pytest.raises(ValueError, match=f"sampled rows define the forward KL alone, not {kind}"):
            both(random_sides(), objective_of(Divergence(kind=kind)), SIGNALS[signal])
        return
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    term = Divergence(kind=kind, beta=0.3, alpha=0.2, head_mass=0.6, weight=1.7)
    # Single precision takes the same way: a part of the grid tells it.
    for temperature, factor, (distillation, cross_entropy), chunk_tokens, head in (
        GRID if dtype == torch.float64 else GRID[::7]
    ):
        objective = objective_of(
            term,
            temperature=temperature,
            temperature_factor=factor,
            distillation_weight=distillation,
            cross_entropy_weight=cross_entropy,
        )
        sides = random_sides(vocabulary=VOCABULARY, dtype=dtype, teacher_dtype=dtype, **head)
        try:
            assert_equal(sides, objective, SIGNALS[signal], tolerance, chunk_tokens=chunk_tokens)
        except AssertionError as error:
            raise AssertionError(f"{objective!r} chunk_tokens={chunk_tokens} {head}: {error}") from error


@pytest.mark.parametrize("signal", ["hidden", "top-4", "top-all"])
@pytest.mark.parametrize(("one", "other"), itertools.combinations(KINDS, 2))
def test_weighted_sums_of_divergences_equal_those_of_the_plain_formulas(
    one: DivergenceKind, other: DivergenceKind, signal: str
) -> None:
    terms = [Divergence(kind=one, weight=0.3), Divergence(kind=other, weight=2.0)]
    sides = random_sides(vocabulary=VOCABULARY, dtype=torch.float64, teacher_dtype=torch.float64)
    objective = objective_of(*terms, temperature=1.5, cross_entropy_weight=0.5)
    assert_equal(sides, objective, SIGNALS[signal], 1e-9)
    alone = [both(sides, objective_of(term, temperature=1.5), SIGNALS[signal])[0] for term in terms]
    together = both(sides, objective_of(*terms, temperature=1.5), SIGNALS[signal])[0]
    torch.testing.assert_close(together, alone[0] + alone[1])


@given(kind=st.sampled_from(ZERO_AT_EQUALITY), seed=st.integers(0, 10_000), temperature=st.floats(0.5, 8))
def test_no_divergence_is_negative(kind: DivergenceKind, seed: int, temperature: float) -> None:
    sides = random_sides(seed=seed, size=3.0)
    for rows in (SIGNALS["hidden"], SIGNALS["top-4"]):
        total, _ = both(sides, objective_of(Divergence(kind=kind), temperature=temperature), rows)
        assert total.item() >= -1e-5 * temperature**2


@given(kind=st.sampled_from(ZERO_AT_EQUALITY), seed=st.integers(0, 10_000), temperature=st.floats(0.5, 8))
def test_divergence_and_gradient_are_zero_where_student_equals_teacher(
    kind: DivergenceKind, seed: int, temperature: float
) -> None:
    sides = random_sides(seed=seed, dtype=torch.float64)
    student, _ = sides.logits()
    objective = objective_of(Divergence(kind=kind), temperature=temperature)
    # A hair beside it the total variation has a gradient already.
    for k in (3, VOCABULARY) if kind != "totalVariation" else ():
        rows: Rows = lambda _, t, k=k: top_k_rows(student.detach(), k, t)  # noqa: E731
        total, _ = both(sides, objective, rows)
        assert total.item() == pytest.approx(0, abs=1e-9)
        assert all(gradient.abs().max() < 1e-6 for gradient in torch.autograd.grad(total, sides.trained))
    sides.teacher_hidden, sides.teacher_head = sides.student_hidden.detach(), sides.as_teacher_head()
    total, _ = both(sides, objective, SIGNALS["hidden"])
    assert total.item() == pytest.approx(0, abs=1e-9)
    assert all(gradient.abs().max() < 1e-6 for gradient in torch.autograd.grad(total, sides.trained))


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000), shift=st.floats(-1000, 1000))
def test_a_constant_added_to_all_logits_of_a_row_changes_nothing(kind: DivergenceKind, seed: int, shift: float) -> None:
    sides = random_sides(seed=seed, bias=True, dtype=torch.float64, teacher_dtype=torch.float64)
    objective = objective_of(Divergence(kind=kind), temperature=2.0)
    before, _ = both(sides, objective, SIGNALS["hidden"])
    assert sides.student_bias is not None
    sides.student_bias = (sides.student_bias.detach() + shift).requires_grad_()
    after, _ = both(sides, objective, SIGNALS["hidden"])
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-8)


def random_log_probabilities(seed: int, size: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (size * torch.randn(5, VOCABULARY, generator=generator, dtype=torch.float64) for _ in range(2))
    return torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)


@given(seed=st.integers(0, 10_000))
def test_jensen_shannon_tends_to_the_forward_and_to_the_reverse_kl(seed: int) -> None:
    # The error grows with the greatest ratio of both sides, and with what is left of sixteen digits.
    log_p, log_q = random_log_probabilities(seed, size=1.0)
    near_0, near_1 = (reference.jensen_shannon(log_p, log_q, beta) for beta in (1e-8, 1 - 1e-8))
    torch.testing.assert_close(near_0 / 1e-8, reference.forward_kl(log_p, log_q), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(near_1 / 1e-8, reference.reverse_kl(log_p, log_q), rtol=1e-3, atol=1e-4)


@given(seed=st.integers(0, 10_000))
def test_skewed_divergences_tend_to_what_is_skewed(seed: int) -> None:
    log_p, log_q = random_log_probabilities(seed, size=1.0)
    for skewed, plain in (
        (reference.skewed_forward_kl, reference.forward_kl),
        (reference.skewed_reverse_kl, reference.reverse_kl),
    ):
        torch.testing.assert_close(skewed(log_p, log_q, 1e-7), plain(log_p, log_q), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(skewed(log_p, log_q, 0.0), plain(log_p, log_q))


@given(seed=st.integers(0, 10_000), size=st.floats(0.1, 50), share=st.floats(0.05, 0.95))
def test_bounded_divergences_keep_their_bounds(seed: int, size: float, share: float) -> None:
    log_p, log_q = random_log_probabilities(seed, size)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert reference.jensen_shannon(log_p, log_q, share).max() <= entropy + 1e-9
    assert reference.skewed_forward_kl(log_p, log_q, share).max() <= -math.log(share) + 1e-9
    assert reference.skewed_reverse_kl(log_p, log_q, share).max() <= -math.log(share) + 1e-9
    assert reference.total_variation(log_p, log_q).max() <= 1 + 1e-9


@given(kind=st.sampled_from(F_DIVERGENCES), seed=st.integers(0, 10_000), temperature=st.floats(0.5, 4))
def test_top_k_is_a_lower_bound_that_grows_with_k_and_is_whole_at_all_ids(
    kind: DivergenceKind, seed: int, temperature: float
) -> None:
    sides = random_sides(seed=seed, dtype=torch.float64, teacher_dtype=torch.float64, size=2.0)
    objective = objective_of(Divergence(kind=kind), temperature=temperature)
    whole, _ = both(sides, objective, SIGNALS["hidden"])
    cut = [
        both(sides, objective, lambda logits, t, k=k: top_k_rows(logits, k, t))[0].item()
        for k in (1, 2, 4, 8, VOCABULARY)
    ]
    assert all(one <= other + 1e-9 for one, other in itertools.pairwise(cut))
    assert cut[-1] == pytest.approx(whole.item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signal", ["hidden", "top-4", "top-all"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_huge_logits_give_finite_gradients_and_the_loss_of_the_plain_formula(
    kind: DivergenceKind, signal: str, temperature: float
) -> None:
    sides = random_sides(size=1e4, vocabulary=VOCABULARY, dtype=torch.float64, teacher_dtype=torch.float64)
    objective = objective_of(Divergence(kind=kind), temperature=temperature, cross_entropy_weight=1.0)
    # Slopes of 1e4 times states of 1e4, in sixteen digits.
    assert_equal(sides, objective, SIGNALS[signal], 1e-6)
    single = random_sides(size=1e4, vocabulary=VOCABULARY)
    total, plain = both(single, objective, SIGNALS[signal])
    torch.testing.assert_close(total.double(), plain, rtol=1e-4, atol=1e-2)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(total, single.trained))


@pytest.mark.parametrize("signal", ["hidden", "top-4", "sampled"])
@pytest.mark.parametrize("tokens", [0, 1])
def test_no_target_and_a_single_one_are_what_they_say(signal: str, tokens: int) -> None:
    sides = random_sides(tokens=tokens, dtype=torch.float64, teacher_dtype=torch.float64)
    objective = objective_of(Divergence(kind="forwardKL"), temperature=2.0, cross_entropy_weight=0.5)
    if tokens:
        assert_equal(sides, objective, SIGNALS[signal], 1e-9)
        return
    empty = TopKRows(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4), torch.zeros(0))
    rows: dict[str, TeacherRows] = {
        "hidden": sides.teacher,
        "top-4": empty,
        "sampled": SampledRows(empty.ids, empty.log_probabilities),
    }
    total = fused_linear_objective(
        sides.student_hidden, sides.student_weight, rows[signal], sides.targets,
        student_head=sides.student_head, objective=objective,
    ).total  # fmt: skip
    assert total.item() == 0.0
    assert not any(gradient.any() for gradient in torch.autograd.grad(total, sides.trained))


def renormalised_top_k(logits: torch.Tensor, k: int) -> TopKRows:
    """What others do: the tail is forgotten, and the rest divided by its sum."""
    rows = top_k_rows(logits, k)
    return TopKRows(rows.ids, torch.log_softmax(rows.log_probabilities, -1), torch.full_like(rows.log_tail, -torch.inf))


def test_the_gradient_of_sampled_rows_is_unbiased_and_that_of_a_renormalised_top_k_is_not() -> None:
    sides = random_sides(tokens=6, vocabulary=50, dtype=torch.float64, teacher_dtype=torch.float64)
    objective = objective_of(Divergence(kind="forwardKL"))

    def gradient(rows: Rows) -> torch.Tensor:
        return torch.autograd.grad(both(sides, objective, rows)[0], [sides.student_hidden])[0]

    whole = gradient(SIGNALS["hidden"])
    generator = torch.Generator().manual_seed(0)
    draws = 8
    found = torch.stack(
        [gradient(lambda logits, t: sampled_rows(logits, draws, t, generator=generator)) for _ in range(1500)]
    )
    # As many standard errors as leave one false alarm in millions of elements.
    bound = 5.5 * found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - whole).abs() <= bound).all()
    biased = gradient(lambda logits, t: renormalised_top_k(logits, draws))
    assert ((biased - whole).abs() > bound).any(), "the bound must catch what is biased"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signal", ["hidden", "top-4", "top-all", "sampled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpus_agree_with_the_processor(kind: DivergenceKind, signal: str, dtype: torch.dtype) -> None:
    if signal == "sampled" and kind != "forwardKL":
        return
    sides = random_sides(
        tokens=64, vocabulary=VOCABULARY, width=32, teacher_width=16, dtype=dtype, teacher_dtype=dtype, padding=5
    )
    objective = objective_of(Divergence(kind=kind), temperature=2.0, cross_entropy_weight=0.5)
    rows = SIGNALS[signal](sides.logits()[1].detach(), objective.temperature)
    here = both(sides, objective, lambda *_: rows)[0]
    wanted = torch.autograd.grad(here, sides.trained)
    moved = on_gpu(sides)
    there = both(moved, objective, lambda *_: rows_on_gpu(rows))[0]
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)
    # In bfloat16 a GPU rounds the gradient of the logits too: of small elements little is left.
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    for made, expected in zip(torch.autograd.grad(there, moved.trained), wanted, strict=True):
        assert (made.cpu() - expected).float().norm() <= tolerance * expected.float().norm()


def on_gpu(sides: Sides) -> Sides:
    head = OutputHead(sides.teacher_head.description, sides.teacher_head.weight.cuda())
    return dataclasses.replace(
        sides,
        student_hidden=sides.student_hidden.detach().cuda().requires_grad_(),
        student_weight=sides.student_weight.detach().cuda().requires_grad_(),
        teacher_hidden=sides.teacher_hidden.cuda(),
        teacher_head=head,
        targets=sides.targets.cuda(),
    )


def rows_on_gpu(rows: torch.Tensor | TopKRows | SampledRows) -> torch.Tensor | TopKRows | SampledRows:
    if isinstance(rows, torch.Tensor):
        return rows.cuda()
    return type(rows)(*(part.cuda() for part in vars(rows).values()))
