"""Amounts as Kubernetes writes them: `500m`, `8`, `64Gi`."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

PATTERN = r"^([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)([eE][0-9]{1,2}|m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$"
"""A quantity that is not negative."""

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTP", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTP", start=1)},
}


def _text_of_whole_number(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    StringConstraints(pattern=PATTERN, max_length=32),
    BeforeValidator(_text_of_whole_number),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "minimum": 0}),
]
"""An amount. A whole number needs no quotes, as in a pod."""


def amount(quantity: str) -> Decimal:
    """How much a `Quantity` is.

    Raises
    ------
    ValueError
        It isn't one.
    """
    found = re.fullmatch(PATTERN, quantity)
    if found is None:
        raise ValueError(f"{quantity} is not a quantity: write it as 500m, 8 or 64Gi")
    number, suffix = found[1], found[2] or ""
    if suffix in _FACTORS:
        return Decimal(number) * _FACTORS[suffix]
    return Decimal(f"{number}{suffix}")
