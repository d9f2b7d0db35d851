import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from distill_runtime.evaluation.calibration import calibration_bins, expected_calibration_error
from distill_runtime.losses.metrics import CALIBRATION_BINS, calibration_sums

PREDICTIONS = st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=1, max_size=60)


def error_of(predictions: list[tuple[float, bool]]) -> float | None:
    confidence, correct = zip(*predictions, strict=True)
    sums = calibration_sums(torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct))
    return expected_calibration_error(calibration_bins(sums))


@given(PREDICTIONS)
def test_the_error_is_that_of_the_paper_computed_plainly(predictions: list[tuple[float, bool]]) -> None:
    assume(all(abs(c * CALIBRATION_BINS - round(c * CALIBRATION_BINS)) > 1e-9 for c, _ in predictions))
    wanted = 0.0
    for number in range(CALIBRATION_BINS):
        low, high = number / CALIBRATION_BINS, (number + 1) / CALIBRATION_BINS
        inside = [(confidence, right) for confidence, right in predictions if low < confidence <= high]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(value for value, _ in inside) / len(inside)
            wanted += len(inside) / len(predictions) * abs(accuracy - confidence)
    assert error_of(predictions) == pytest.approx(wanted, abs=1e-12)


@given(PREDICTIONS)
def test_the_error_is_torchmetrics_own(predictions: list[tuple[float, bool]]) -> None:
    assume(all(abs(c * CALIBRATION_BINS - round(c * CALIBRATION_BINS)) > 1e-5 for c, _ in predictions))
    confidence, correct = zip(*predictions, strict=True)
    # Of a binary outcome torchmetrics takes the given probability for the confidence, and the class for its accuracy.
    wanted = binary_calibration_error(
        torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct).int(), n_bins=CALIBRATION_BINS, norm="l1"
    )
    assert error_of(predictions) == pytest.approx(float(wanted), abs=1e-6)


@given(PREDICTIONS)
def test_sums_of_parts_and_another_order_give_the_same_error(
    predictions: list[tuple[float, bool]],
) -> None:
    half = len(predictions) // 2
    parts = [predictions[:half], predictions[half:]]
    sums = torch.zeros(3, CALIBRATION_BINS, dtype=torch.float64)
    for part in parts:
        sums += calibration_sums(
            torch.tensor([confidence for confidence, _ in part], dtype=torch.float64),
            torch.tensor([right for _, right in part], dtype=torch.bool),
        )
    assert expected_calibration_error(calibration_bins(sums)) == pytest.approx(error_of(predictions), abs=1e-12)
    assert error_of(predictions[::-1]) == pytest.approx(error_of(predictions), abs=1e-12)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    assert error_of([(0.75, True)] * 3 + [(0.75, False)]) == pytest.approx(0)
    assert error_of([(1.0, False)] * 2) == 1.0


def test_no_predictions_have_no_error() -> None:
    assert expected_calibration_error(calibration_bins(torch.zeros(3, CALIBRATION_BINS))) is None
