"""Where a value belongs: a walk along a pydantic error's location, through the schema and the document at once.

pydantic names the members of a union in its locations (`constrained-str`, `list[constrained-str]`, a discriminator's
tag). A user knows only the names that he wrote. The schema tells the two apart, whatever the user's keys are called.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Json: TypeAlias = Any
"""Plain data: mappings, lists, strings, numbers, booleans, None."""

_ABSENT: Json = object()
_KEY = "[key]"
"""What pydantic puts behind the key of a mapping when the key is wrong, not the value."""


@dataclass(frozen=True)
class Place:
    """Where an error's location leads."""

    path: str
    """As the user wrote it: `spec.evaluation.tasks[0].labels`."""
    annotation: Any
    """The type of the place; None where the schema knows no such place."""
    parent: type[BaseModel] | None
    """The model that the last name was looked up in."""
    mismatch: tuple[Any, ...] = ()
    """Members of the union that the value is none of: then the union's error is the one to tell."""
    foreign: bool = False
    """The error is about a member of a union that the value was never meant to be."""
    of_key: bool = False
    """The error is about a key of the mapping at the path."""


def field_names(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the names that users write."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def is_model(annotation: Any) -> bool:
    """Whether this is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union without None; of another type, the type alone."""
    annotation = without_metadata(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for member in get_args(annotation) if member is not type(None))
    return (annotation,)


def without_metadata(annotation: Any) -> Any:
    """The type inside `Annotated`."""
    while get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    return annotation


def discriminator_of(annotation: Any) -> str | None:
    """The field that tells the members of this union apart."""
    if get_origin(annotation) is not Annotated:
        return None
    for item in get_args(annotation)[1:]:
        if isinstance(item, FieldInfo) and isinstance(item.discriminator, str):
            return item.discriminator
    return None


def member_for(annotation: Any, value: Json) -> Any:
    """The member of a union that this value is meant to be; None where it is none of them."""
    choices = members(annotation)
    if len(choices) == 1:
        return choices[0]
    discriminator = discriminator_of(annotation)
    if discriminator is not None:
        tag = cast("Mapping[str, Json]", value).get(discriminator) if isinstance(value, Mapping) else None
        return next((choice for choice in choices if tag in _tags(choice, discriminator)), None)
    return next((choice for choice in choices if _fits(choice, value)), None)


def _tags(model: type[BaseModel], discriminator: str) -> tuple[Any, ...]:
    annotation = model.model_fields[discriminator].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _fits(annotation: Any, value: Json) -> bool:
    bare = without_metadata(annotation)
    if isinstance(value, Mapping):
        return is_model(bare) or get_origin(bare) is dict
    if isinstance(value, list):
        return get_origin(bare) in (list, tuple)
    return isinstance(bare, type) and isinstance(value, bare)


def _label_names(label: str, annotation: Any) -> bool:
    """Whether pydantic's label of a union member means this type."""
    bare = without_metadata(annotation)
    is_list = label.startswith(("list[", "tuple["))
    return is_list == (get_origin(bare) in (list, tuple))


def locate(root: type[BaseModel], document: Json, location: Sequence[str | int]) -> Place:
    """Follows an error's location from the root of the schema and of the document."""
    annotation: Any = root
    value, parent = document, None
    path = ""
    steps = list(location)
    while steps:
        choices = members(annotation)
        if len(choices) > 1:
            step = steps.pop(0)
            chosen = member_for(annotation, value)
            if chosen is None:
                return Place(path, annotation, parent, mismatch=choices)
            if discriminator_of(annotation) is None and not _label_names(str(step), chosen):
                return Place(path, annotation, parent, foreign=True)
            annotation = chosen
            continue
        step, bare = steps.pop(0), without_metadata(next(iter(choices)))
        if get_origin(bare) is dict and steps == [_KEY]:
            return Place(path, get_args(bare)[0], parent, of_key=True)
        path += f"[{step}]" if isinstance(step, int) else f"{'.' if path else ''}{step}"
        value = _child(value, step)
        annotation, parent = _step(bare, step), bare if is_model(bare) else None
        if annotation is None:
            break
    return Place(path, annotation, parent)


def _child(value: Json, step: str | int) -> Json:
    if isinstance(value, Mapping):
        return cast("Mapping[str | int, Json]", value).get(step, _ABSENT)
    if isinstance(value, list) and isinstance(step, int):
        items = cast("list[Json]", value)
        return items[step] if step < len(items) else _ABSENT
    return _ABSENT


def _step(annotation: Any, step: str | int) -> Any:
    if is_model(annotation):
        field = field_names(annotation).get(str(step))
        return None if field is None else field_type(field)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list:
        return arguments[0]
    if origin is tuple and isinstance(step, int) and step < len(arguments):
        return arguments[step]
    if origin is dict:
        return arguments[1]
    return None


def field_type(field: FieldInfo) -> Any:
    """A field's type with what pydantic took out of its `Annotated` put back."""
    metadata: list[Any] = [*field.metadata]
    if isinstance(field.discriminator, str):
        metadata.append(field)
    annotation: Any = field.annotation
    for item in metadata:
        annotation = Annotated[annotation, item]
    return annotation


def constraints(annotation: Any) -> Iterator[Any]:
    """All that is said about a type and about the types inside it."""
    if get_origin(annotation) is Annotated:
        yield from get_args(annotation)[1:]
        annotation = without_metadata(annotation)
    for argument in get_args(annotation):
        yield from constraints(argument)


def without_nulls(annotation: Any, value: Json) -> Json:
    """The document without known fields that are null: as an API server does, null stands for "not given"."""
    bare = without_metadata(member_for(annotation, value))
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Json]", value)
        if get_origin(bare) is dict:
            return {key: item for key, item in mapping.items() if item is not None}
        if not is_model(bare):
            return mapping
        known = field_names(bare)
        droppable = {name for member in members(annotation) if is_model(member) for name in field_names(member)}
        return {
            key: without_nulls(field_type(known[key]), item) if key in known else item
            for key, item in mapping.items()
            if item is not None or key not in droppable
        }
    if isinstance(value, list) and get_origin(bare) is list:
        items = cast("list[Json]", value)
        return [without_nulls(get_args(bare)[0], item) for item in items]
    return cast("Json", value)
