"""The page of all fields, written from the types: `python -m distill_operator.api.reference FILE`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from distill_operator.api.job import API_VERSION, KIND, JobSpec

Schema = dict[str, Any]

HEADER = f"""# {KIND}

`apiVersion: {API_VERSION}`. This page is written from the types by `make generate`; don't edit it.

Fields without a default are required. A field that is marked *or nothing* may be left out.
"""

BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "`{}`",
}


def reference() -> str:
    """The whole page, in Markdown."""
    schema = JobSpec.model_json_schema(by_alias=True)
    definitions: dict[str, Schema] = schema.get("$defs", {})
    parts = [HEADER, *_section("spec", schema, definitions)]
    return "\n".join(parts).rstrip() + "\n"


def _section(path: str, schema: Schema, definitions: dict[str, Schema]) -> Iterator[str]:
    """The table of one object, and behind it those of the objects in it."""
    yield f"## {path}\n"
    yield f"{_text(schema)}\n"
    yield "| field | type | default | what |"
    yield "| --- | --- | --- | --- |"
    inner: list[tuple[str, Schema]] = []
    required = cast(list[str], schema.get("required", []))
    for name, field in cast(dict[str, Schema], schema["properties"]).items():
        default = "" if name in required else _default(field)
        targets = list(_objects(field, definitions))
        # pydantic leaves a field's description out where it is that of the object.
        text = _text(field) or " ".join(_text(target) for target in targets)
        yield f"| `{name}` | {_type(field, definitions)} | {default} | {text} |"
        inner += [(_inner_path(path, name, target), target) for target in targets]
    yield ""
    for inner_path, target in inner:
        yield from _section(inner_path, target, definitions)


def _inner_path(path: str, name: str, target: Schema) -> str:
    kind = target["properties"].get("kind", {}).get("const")
    return f"{path}.{name}" if kind is None else f"{path}.{name}[] of kind {kind}"


def _objects(field: Schema, definitions: dict[str, Schema]) -> Iterator[Schema]:
    """The objects that a field may hold."""
    if "$ref" in field:
        target = definitions[str(field["$ref"]).rsplit("/", 1)[-1]]
        if "properties" in target:
            yield target
    for key in ("anyOf", "oneOf", "allOf"):
        for choice in cast(list[Schema], field.get(key, [])):
            yield from _objects(choice, definitions)
    if isinstance(field.get("items"), dict):
        yield from _objects(field["items"], definitions)


def _type(field: Schema, definitions: dict[str, Schema]) -> str:
    if "$ref" in field:
        target = definitions[str(field["$ref"]).rsplit("/", 1)[-1]]
        return "object" if "properties" in target else _type(target, definitions)
    for key in ("anyOf", "oneOf"):
        if key in field:
            choices = [_type(choice, definitions) for choice in cast(list[Schema], field[key])]
            return " or ".join(dict.fromkeys(choices))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in cast(list[object], field["enum"]))
    kind = {"null": "nothing"}.get(str(field.get("type")), str(field.get("type", "any")))
    if kind == "array":
        items = field.get("items") or field.get("prefixItems", [{}])[0]
        kind = f"list of {_type(items, definitions)}"
    bounds = [text.format(field[key]).replace("|", "\\|") for key, text in BOUNDS.items() if key in field]
    return ", ".join([kind, *bounds])


def _default(field: Schema) -> str:
    default = field.get("default")
    if default is None:
        return ""
    return "see below" if isinstance(default, dict) else f"`{json.dumps(default)}`"


def _text(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
