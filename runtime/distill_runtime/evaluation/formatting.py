"""Numbers as a reader wants them. What is missing, or not finite, is a dash."""

import math

MISSING = "–"
MINUS = "\u2212"
_LARGE = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def number(value: float | None, digits: int = 3) -> str:
    """About `digits` significant digits, without an exponent from 0.0001 to a million: `1,234`, `0.873`, `2.1e-05`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        text = f"{value:.{digits - 1}e}"
    else:
        text = f"{value:,.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
    return text.replace("-", MINUS, 1) if value < 0 else text


def percent(value: float | None, digits: int = 1) -> str:
    """A part of one as `87.3%`."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.{digits}f}%".replace("-", MINUS)


def signed(value: float | None, *, as_percent: bool = False) -> str:
    """A difference with its sign: `+0.12`, or in percentage points `+3.1 pp`."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{100 * abs(value):.1f} pp" if as_percent else number(abs(value))
    sign = "+" if value > 0 else MINUS if value < 0 else "±"
    return sign + text


def count(value: float | None) -> str:
    """A whole number with separators: `12,345`."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def large(value: float | None) -> str:
    """A number of weights: `134.5M`."""
    if value is None or not math.isfinite(value):
        return MISSING
    for unit, letter in _LARGE:
        if value >= unit:
            scaled = value / unit
            return f"{scaled:.{0 if scaled >= 1000 else 1 if scaled >= 10 else 2}f}{letter}"
    return count(value)


def size(value: float | None) -> str:
    """Bytes as `3.4 GiB`."""
    if value is None or not math.isfinite(value):
        return MISSING
    place = 0
    while value >= 1024 and place < len(_BYTES) - 1:
        value, place = value / 1024, place + 1
    return f"{value:.0f} B" if place == 0 else f"{value:.1f} {_BYTES[place]}"


def duration(seconds: float | None) -> str:
    """Seconds as `2 h 05 min`, `12 min 30 s` or `4.2 s`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def visible(text: str) -> str:
    """Text of a model as it can be shown: control characters, which HTML has no place for, as their pictures."""
    return text.translate(_PICTURES)


def words(name: str) -> str:
    """A camelCase name as words: `rowsRead` is `Rows read`."""
    text = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name.replace("_", " "))
    text = text.strip()
    return text[:1].upper() + text[1:]


def any_value(name: str, value: str | float) -> str:
    """A value of a free list: byte counts by their name, numbers with separators, text as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if name.lower().endswith("bytes"):
        return size(value)
    return count(value) if float(value).is_integer() else f"{value:.4g}".replace("-", MINUS, 1 if value < 0 else 0)
