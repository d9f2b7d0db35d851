"""The page of all fields, written from the types: `python -m distill_operator.api.reference FILE`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from distill_operator.api.job import API_VERSION, KIND, JobSpec
from distill_operator.api.rules import CHANGEABLE, RULES
from distill_operator.api.status import DistillJobStatus

Schema = dict[str, Any]


def _changeable(section: str, model: str) -> str:
    return ", ".join(f"`{section}.{name}`" for name in sorted(CHANGEABLE[model]))


HEADER = f"""# {KIND}

`apiVersion: {API_VERSION}`. This page is written from the types by `make generate`; don't edit it.
`kubectl explain dj.spec` says the same.

Fields without a default are required. A field that is marked *or nothing* may be left out. A *quantity* is an amount as
Kubernetes writes it: `8`, `500m`, `64Gi`.

Once the job has started (`status.startTime`), these may still change: `spec.policy`, `spec.suspend`,
{_changeable("spec.teacher", "Teacher")} and {_changeable("spec.student", "Student")}.
`spec.pods` may change while the job is suspended. The API server refuses other changes, since they would make another
job.
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


@dataclass
class _Section:
    """One table: an object, and the paths at which it may stand."""

    schema: Schema
    paths: list[str] = field(default_factory=list[str])


def reference() -> str:
    """The whole page, in Markdown."""
    parts = [HEADER]
    for path, model in (("spec", JobSpec), ("status", DistillJobStatus)):
        schema = model.model_json_schema(by_alias=True)
        definitions: dict[str, Schema] = schema.get("$defs", {})
        for section in _sections(path, schema, definitions):
            parts += _table(section, definitions)
    return "\n".join(parts).rstrip() + "\n"


def _sections(path: str, schema: Schema, definitions: dict[str, Schema]) -> list[_Section]:
    """All objects in an object, each once, in the order in which they are met."""
    found: dict[str, _Section] = {}

    def visit(path: str, schema: Schema) -> None:
        title = str(schema["title"])
        if title in found:
            found[title].paths.append(path)
            return
        found[title] = _Section(schema, [path])
        for name, inner in cast(dict[str, Schema], schema["properties"]).items():
            for target in _objects(inner, definitions):
                visit(_inner_path(path, name, inner, target), target)

    visit(path, schema)
    return list(found.values())


def _table(section: _Section, definitions: dict[str, Schema]) -> Iterator[str]:
    first, *others = section.paths
    yield f"## {first}\n"
    if others:
        yield f"The same: {', '.join(f'`{path}`' for path in others)}.\n"
    yield f"{_text(section.schema)}\n"
    rules = [f"- {_of_field(rule.field)}{rule.message}" for rule in RULES.get(str(section.schema["title"]), ())]
    yield from [*rules, ""] if rules else []
    yield "| field | type | default | what |"
    yield "| --- | --- | --- | --- |"
    required = cast(list[str], section.schema.get("required", []))
    for name, inner in cast(dict[str, Schema], section.schema["properties"]).items():
        default = "" if name in required else _default(inner)
        # pydantic leaves a field's description out where it is that of the object.
        text = _text(inner) or " ".join(_text(target) for target in _objects(inner, definitions))
        yield f"| `{name}` | {_type(inner, definitions)} | {default} | {text} |"
    yield ""


def _of_field(path: str) -> str:
    return f"`{path.removeprefix('.')}` " if path else ""


def _inner_path(path: str, name: str, field: Schema, target: Schema) -> str:
    kind = target["properties"].get("kind", {}).get("const")
    return f"{path}.{name}[] of kind {kind}" if "oneOf" in field.get("items", {}) else f"{path}.{name}"


def _objects(field: Schema, definitions: dict[str, Schema]) -> Iterator[Schema]:
    """The objects that a field may hold."""
    if "$ref" in field:
        target = definitions[str(field["$ref"]).rsplit("/", 1)[-1]]
        if "properties" in target:
            yield target
    for key in ("anyOf", "oneOf", "allOf"):
        for choice in cast(list[Schema], field.get(key, [])):
            yield from _objects(choice, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(field.get(key), dict):
            yield from _objects(field[key], definitions)


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
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = {"null": "nothing"}.get(str(field.get("type")), str(field.get("type", "any")))
    if kind == "array":
        items = field.get("items") or field.get("prefixItems", [{}])[0]
        kind = f"list of {_type(items, definitions)}"
    if kind == "object":
        kind = f"map of {_type(_values(field), definitions)}"
    bounds = [text.format(field[key]).replace("|", "\\|") for key, text in BOUNDS.items() if key in field]
    return ", ".join([kind, *bounds])


def _values(mapping: Schema) -> Schema:
    patterns = cast(dict[str, Schema], mapping.get("patternProperties", {}))
    return next(iter(patterns.values()), cast(Schema, mapping.get("additionalProperties", {})))


def _default(field: Schema) -> str:
    default = field.get("default")
    if default is None:
        return ""
    if isinstance(default, dict):
        return "see below" if default else "`{}`"
    return f"`{json.dumps(default)}`"


def _text(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
