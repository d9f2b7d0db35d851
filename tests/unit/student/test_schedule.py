from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_runtime.contract.sections import Schedule
from distill_runtime.student.schedule import learning_rate


@pytest.mark.parametrize(
    ("spec", "rates"),
    [
        ({"kind": "constant"}, [1, 1, 1, 1]),
        ({"kind": "constant", "warmup_steps": 3}, [0.25, 0.5, 0.75, 1]),
        ({"kind": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"kind": "linear", "minimum_ratio": 0.2}, [1, 0.8, 0.6, 0.4]),
        ({"kind": "linear", "warmup_steps": 2}, [1 / 3, 2 / 3, 1, 0.5]),
        ({"kind": "cosine"}, [1, 0.8535533905932737, 0.5, 0.14644660940672627]),
        ({"kind": "cosine", "minimum_ratio": 0.5}, [1, 0.9267766952966369, 0.75, 0.5732233047033631]),
        ({"kind": "cosine", "warmup_steps": 9}, [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_the_rates_of_four_steps_are_those_counted_by_hand(spec: dict[str, Any], rates: list[float]) -> None:
    found = [learning_rate(step, 4, Schedule(**spec), 1.0) for step in range(4)]
    assert found == pytest.approx(rates)


@given(
    kind=st.sampled_from(["cosine", "linear", "constant"]),
    warmup=st.integers(0, 50),
    total=st.integers(1, 200),
    floor=st.floats(0, 1),
    peak=st.floats(1e-8, 1),
)
def test_every_step_has_a_rate_that_rises_to_the_peak_and_then_never_again(
    kind: Any, warmup: int, total: int, floor: float, peak: float
) -> None:
    schedule = Schedule(kind=kind, warmup_steps=warmup, minimum_ratio=floor)
    rates = [learning_rate(step, total, schedule, peak) for step in range(total)]
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
