"""Amounts mean what they mean to Kubernetes."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_operator.api.quantities import amount

SUFFIXES = ["m", "", "k", "Ki", "M", "Mi", "G", "Gi", "T", "Ti", "P", "Pi"]


@pytest.mark.parametrize(
    ("quantity", "wanted"),
    [
        ("8", "8"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("2.", "2"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("64Gi", str(64 * 2**30)),
        ("1.5Gi", str(3 * 2**29)),
        ("3P", "3000000000000000"),
        ("12e6", "12000000"),
        ("1E3", "1000"),
        ("0", "0"),
    ],
)
def test_an_amount_is_what_kubernetes_takes_it_for(quantity: str, wanted: str) -> None:
    assert amount(quantity) == Decimal(wanted)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.2.3", "5 Gi", "1KB", "1gi", "e3", "."])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity: write it as 500m, 8 or 64Gi"):
        amount(text)


@given(st.integers(min_value=1, max_value=10**6), st.sampled_from(range(len(SUFFIXES) - 1)))
def test_a_larger_suffix_is_more(number: int, position: int) -> None:
    assert amount(f"{number}{SUFFIXES[position]}") < amount(f"{number}{SUFFIXES[position + 1]}")
