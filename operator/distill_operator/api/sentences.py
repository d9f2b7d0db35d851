"""Each validation error as one sentence: the field as the user wrote it, what it must be, what was found."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_origin

from pydantic import BaseModel, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from distill_operator.api.fields import Json, Place, constraints, field_names, is_model, locate, without_metadata
from distill_operator.api.names import (
    AbsolutePath,
    DataKey,
    LabelKey,
    LabelValue,
    ObjectName,
    RelativePath,
    VariableName,
    VolumeName,
)
from distill_operator.api.quantities import PATTERN

LONGEST_VALUE = 80
"""Characters of a wrong value that are shown."""


def pattern_of(text: Any) -> str:
    """The pattern of a constrained text type."""
    return next(str(item.pattern) for item in constraints(text) if isinstance(item, StringConstraints))


PATTERNS = {
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$": (
        "must have only lower-case letters, digits and '-', with a letter or digit at both ends"
    ),
    r"^[a-z]([a-z0-9-]*[a-z0-9])?$": (
        "must have only lower-case letters, digits and '-', begin with a letter and end with a letter or digit"
    ),
    r"^[A-Za-z0-9][A-Za-z0-9_.:+-]*$": (
        "must have only letters, digits, '_', '.', ':', '+' and '-', and begin with a letter or digit"
    ),
    r"^https?://[^\s]+$": "must begin with http:// or https:// and have no spaces",
    pattern_of(LabelKey): (
        "must be a name of at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends; a DNS "
        "name and '/' may stand before it"
    ),
    pattern_of(LabelValue): (
        "must have only letters, digits, '-', '_' and '.', with a letter or digit at both ends, or be empty"
    ),
    pattern_of(ObjectName): (
        "must have only lower-case letters, digits, '-' and '.', with a letter or digit at both ends"
    ),
    pattern_of(VolumeName): "must have only lower-case letters, digits and '-', with a letter or digit at both ends",
    pattern_of(VariableName): "must have only letters, digits and '_', and not begin with a digit",
    pattern_of(DataKey): "must have only letters, digits, '-', '_' and '.'",
    pattern_of(AbsolutePath): "must be a path from the root without ':', '.' and '..', and without '/' at its end",
    pattern_of(RelativePath): "must be a path that doesn't begin or end with '/', without '.' and '..'",
    PATTERN: "must be a quantity such as 500m, 8 or 64Gi",
}
"""What each pattern of the schema means. Patterns of URIs are read from their list of schemes."""

_SCHEMES = re.compile(r"^\^\(([a-z0-9|]+)\)://\[\^\\s\]\+\$$")


def messages(error: ValidationError, root: type[BaseModel], document: Json) -> list[str]:
    """All errors as `path: sentence`, in the order of the schema, each once."""
    found: dict[str, None] = {}
    for details in error.errors(include_url=False):
        place = locate(root, document, details["loc"])
        if not place.foreign:
            found[_message(place, details)] = None
    return list(found)


def pattern_sentence(pattern: str) -> str | None:
    """What a value must look like; None for a pattern that has no words yet."""
    schemes = _SCHEMES.match(pattern)
    if schemes is None:
        return PATTERNS.get(pattern)
    return f"must be a URI that begins with {_one_of(f'{name}://' for name in schemes[1].split('|'))}, without spaces"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    by_folded = {re.sub(r"[^a-z0-9]", "", candidate.lower()): candidate for candidate in known}
    folded = re.sub(r"[^a-z0-9]", "", name.lower())
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.7)
    return by_folded[close[0]] if close else None


def show(value: Json) -> str:
    """A value as it stands in YAML's flow style, cut where it is long."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _message(place: Place, details: ErrorDetails) -> str:
    context = details.get("ctx") or {}
    kind, value = details["type"], details["input"]
    path = place.path
    if place.mismatch:
        return _join(path, f"must be {_one_of(_noun(member) for member in place.mismatch)}, got {show(value)}")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        path = f"{path}.{str(context['discriminator']).strip(chr(39))}"
        if kind == "union_tag_not_found":
            return _join(path, "is required" if isinstance(value, Mapping) else f"must be a mapping, got {show(value)}")
        return _join(path, f"must be {_or(str(context['expected_tags']))}, got {show(context['tag'])}")
    if kind == "extra_forbidden":
        return _join(path, _unknown_field(place))
    words = _SENTENCES.get(kind)
    sentence = words(context, value) if words else f"{details['msg']}, got {show(value)}"
    return _join(path, f"a key {sentence}" if place.of_key else sentence)


def _join(path: str, sentence: str) -> str:
    return f"{path}: {sentence}" if path else sentence


def _unknown_field(place: Place) -> str:
    name = place.path.rpartition(".")[2]
    guess = nearest(name, field_names(place.parent)) if place.parent is not None else None
    return "is not a known field" + (f"; did you mean {guess}?" if guess else "")


def _noun(annotation: Any) -> str:
    bare = without_metadata(annotation)
    if get_origin(bare) in (list, tuple):
        return "a list"
    if is_model(bare) or get_origin(bare) is dict:
        return "a mapping"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(bare, str(bare))


def _one_of(choices: Iterable[str]) -> str:
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def _or(listing: str) -> str:
    return _one_of(listing.split(", "))


def _pattern(context: Mapping[str, Any], value: Json) -> str:
    pattern = str(context["pattern"])
    return f"{pattern_sentence(pattern) or f'must match {pattern}'}, got {show(value)}"


def _text(_: Mapping[str, Any], value: Json) -> str:
    quotes = "; put it in quotes" if isinstance(value, bool | int | float) else ""
    return f"must be text, got {show(value)}{quotes}"


def _wants(wanted: str) -> Callable[[Mapping[str, Any], Json], str]:
    def sentence(context: Mapping[str, Any], value: Json) -> str:
        return f"must be {wanted.format_map(_Numbers(context))}, got {show(value)}"

    return sentence


def _length(wanted: str, unit: str, key: str) -> Callable[[Mapping[str, Any], Json], str]:
    def sentence(context: Mapping[str, Any], value: Json) -> str:
        bound = int(context[key])
        many = unit if bound == 1 else {"entry": "entries"}.get(unit, f"{unit}s")
        return f"must have {wanted} {bound} {many}, got {len(value)}" + (f": {show(value)}" if value else "")

    return sentence


class _Numbers(dict[str, Any]):
    """Bounds without a needless `.0`."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return f"{value:.15g}" if isinstance(value, float) else value


_SENTENCES: dict[str, Callable[[Mapping[str, Any], Json], str]] = {
    "missing": lambda context, value: "is required",
    "value_error": lambda context, value: str(context["error"]),
    "greater_than": _wants("greater than {gt}"),
    "greater_than_equal": _wants("at least {ge}"),
    "less_than": _wants("less than {lt}"),
    "less_than_equal": _wants("at most {le}"),
    "int_type": _wants("a whole number"),
    "int_parsing_size": _wants("a whole number of fewer digits"),
    "float_type": _wants("a number"),
    "finite_number": _wants("a finite number"),
    "bool_type": _wants("true or false"),
    "string_type": _text,
    "list_type": _wants("a list"),
    "tuple_type": _wants("a list"),
    "dict_type": _wants("a mapping"),
    "model_type": _wants("a mapping"),
    "model_attributes_type": _wants("a mapping"),
    "literal_error": _wants("{expected}"),
    "string_pattern_mismatch": _pattern,
    "string_too_short": _length("at least", "character", "min_length"),
    "string_too_long": _length("at most", "character", "max_length"),
    "too_short": _length("at least", "entry", "min_length"),
    "too_long": _length("at most", "entry", "max_length"),
}
