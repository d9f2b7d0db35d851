"""Expected calibration error, from sums that can be stored."""

import math

import torch

from distill_runtime.evaluation.results import CalibrationBins


def calibration_bins(sums: torch.Tensor) -> CalibrationBins:
    """What `losses.metrics.calibration_sums` gives, as it is stored.

    Parameters
    ----------
    sums
        Number, Σ confidence and Σ correct. [3, bins]
    """
    predictions, confidence, correct = sums.tolist()
    return CalibrationBins(
        predictions=[round(number) for number in predictions],
        confidence=confidence,
        correct=[round(number) for number in correct],
    )


def expected_calibration_error(bins: CalibrationBins) -> float | None:
    """Σ over bins of (predictions in the bin / all) · |part of them that is right − their mean confidence|.

    Equation 3 of Guo et al. 2017, arXiv:1706.04599. From 0 to 1, lower is better; None without predictions.
    """
    predictions = sum(bins.predictions)
    if predictions == 0:
        return None
    pairs = zip(bins.correct, bins.confidence, strict=True)
    return math.fsum(abs(correct - confidence) for correct, confidence in pairs) / predictions
