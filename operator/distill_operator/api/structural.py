"""A pydantic model as a structural schema: the part of OpenAPI that a CustomResourceDefinition may use.

Differences that are bridged: references are written out, null is no type (a field may be left out), a default sits at
each field (an object has `{}` where something in it has one), a union of text and list has no type but the bounds of
both, and the members of a union of objects become one object with rules for what belongs to which.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import BaseModel

from distill_operator.api.rules import ALTERNATIVES, EXACTLY_ONE, LIST_KEYS, LIST_SETS, RULES, Rule, key_rule

Schema = dict[str, Any]

VALIDATIONS = "x-kubernetes-validations"
_KEPT = (
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-int-or-string",
)
"""Keywords that mean the same on both sides."""


class NotStructural(Exception):
    """A type that the API server can't check. The message names it."""


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The schema of a model, with the rules of all models in it. Without `defaults` for what is only reported.

    Raises
    ------
    NotStructural
        A type in it has no structural form.
    """
    schema = model.model_json_schema(by_alias=True)
    return _Converter(schema.get("$defs", {}), defaults=defaults).convert(schema)


class _Converter:
    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, schema: Schema) -> Schema:
        """One schema, with all that is in it."""
        plain = self._resolved(schema)
        choices = [choice for choice in plain.get("anyOf", []) if choice.get("type") != "null"]
        if "oneOf" in plain:
            converted = self._merged(plain["oneOf"], plain["discriminator"]["propertyName"])
        elif len(choices) == 1:
            converted = self.convert(choices[0])
        elif choices:
            converted = self._text_or_list(choices)
        elif "properties" in plain:
            converted = self._object(plain)
        else:
            converted = self._value(plain)
        return self._described(plain, converted)

    def _resolved(self, schema: Schema) -> Schema:
        """With the definition that it refers to; what stands beside the reference wins."""
        if "$ref" not in schema:
            return schema
        definition = self._definitions[str(schema["$ref"]).rsplit("/", 1)[-1]]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return {**definition, **beside, "description": _both(beside.get("description"), definition.get("description"))}

    def _described(self, plain: Schema, converted: Schema) -> Schema:
        description = _both(plain.get("description"), converted.pop("description", None))
        result = {**({"description": description} if description else {}), **converted}
        if self._defaults and "default" in plain:
            default = _default(plain["default"], converted)
            return result if default is None else {**result, "default": default}
        return result

    def _object(self, plain: Schema) -> Schema:
        name = str(plain["title"])
        properties = {field: self.convert(schema) for field, schema in cast("Schema", plain["properties"]).items()}
        for field, schema in properties.items():
            if (name, field) in LIST_KEYS:
                schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": LIST_KEYS[name, field]}
            elif (name, field) in LIST_SETS:
                schema |= {"x-kubernetes-list-type": "set"}
        return {
            "type": "object",
            **({"required": plain["required"]} if plain.get("required") else {}),
            "properties": properties,
            **({"anyOf": ALTERNATIVES[name]} if name in ALTERNATIVES else {}),
            **({"oneOf": [{"required": [field]} for field in EXACTLY_ONE[name]]} if name in EXACTLY_ONE else {}),
            **_validations(RULES.get(name, ())),
        }

    def _value(self, plain: Schema) -> Schema:
        converted = {key: plain[key] for key in _KEPT if key in plain}
        if "const" in plain:
            converted["enum"] = [plain["const"]]
        if converted.get("x-kubernetes-int-or-string"):
            del converted["type"]
        for bound in ("minimum", "maximum"):
            exclusive = f"exclusive{bound.capitalize()}"
            if exclusive in plain:
                converted |= {bound: plain[exclusive], exclusive: True}
        if plain.get("type") == "array":
            converted["items"] = self.convert(_items(plain))
        if plain.get("type") == "object":
            converted |= self._mapping(plain)
        if "type" not in converted and "x-kubernetes-int-or-string" not in converted:
            raise NotStructural(f"{plain.get('title', 'a field')}: no type in {json.dumps(plain)[:200]}")
        return converted

    def _mapping(self, plain: Schema) -> Schema:
        """Keys can't be given a pattern: a rule checks them."""
        patterns = cast("Schema", plain.get("patternProperties", {}))
        values = next(iter(patterns.values()), plain.get("additionalProperties"))
        if not isinstance(values, dict):
            raise NotStructural(f"{plain.get('title', 'a mapping')}: its values have no type")
        rules = [key_rule(pattern, int(plain["propertyNames"]["maxLength"])) for pattern in patterns]
        return {"additionalProperties": self.convert(cast("Schema", values)), **_validations(rules)}

    def _text_or_list(self, choices: list[Schema]) -> Schema:
        """Bounds of text are not asked of lists and those of lists not of text; bounds that nothing can meet keep
        other types out."""
        converted = {choice["type"]: choice for choice in map(self.convert, choices)}
        if set(converted) != {"string", "array"}:
            raise NotStructural(f"a union of {' and '.join(converted)}: only of text and list there is a form")
        text, many = ({k: v for k, v in converted[kind].items() if k != "type"} for kind in ("string", "array"))
        return {
            "x-kubernetes-preserve-unknown-fields": True,
            **text,
            **many,
            "minimum": 1,
            "maximum": 0,
            "minProperties": 1,
            "maxProperties": 0,
            "not": {"enum": [True, False]},
        }

    def _merged(self, members: list[Schema], discriminator: str) -> Schema:
        """One object for all members: what all have, then what only some have, with a rule for each.

        Fields that only some have get no default here, since it would be refused with the others; the reader of the
        object has it, and the description says it.
        """
        definitions = [self._resolved(member) for member in members]
        kinds = [str(member["properties"][discriminator]["const"]) for member in definitions]
        everywhere = set[str].intersection(*(set(member["properties"]) for member in definitions))
        properties: Schema = {}
        rules: list[Rule] = []
        for kind, member in zip(kinds, definitions, strict=True):
            for field, schema in cast("Schema", member["properties"]).items():
                if field in everywhere:
                    properties.setdefault(field, self.convert(schema))
                    continue
                properties[field] = _only_for(kind, self.convert(schema))
                rules.append(
                    Rule(f"self.{discriminator} == '{kind}' || !has(self.{field})", f"{field} is for {kind} only")
                )
        descriptions = [str(member["description"]) for member in definitions]
        properties[discriminator] = {"description": "What is asked.", "type": "string", "enum": kinds}
        return {
            "description": " ".join(f"{kind}: {text}" for kind, text in zip(kinds, descriptions, strict=True)),
            "type": "object",
            "required": definitions[0]["required"],
            "properties": properties,
            **_validations(rules),
        }


def _items(plain: Schema) -> Schema:
    """The schema of a list's items; those of a tuple must be alike."""
    if "prefixItems" not in plain:
        return cast("Schema", plain["items"])
    first, *others = cast("list[Schema]", plain["prefixItems"])
    if any(other != first for other in others):
        raise NotStructural("a tuple of different types")
    return first


def _only_for(kind: str, schema: Schema) -> Schema:
    default = schema.pop("default", None)
    said = "" if default is None else f" Default: {json.dumps(default)}."
    return {**schema, "description": f"{schema['description']} For {kind} only.{said}"}


def _default(default: Any, converted: Schema) -> Any:
    """The default to write, or None for none: an object's is made of those of its fields, empty ones say nothing."""
    if default is not None and "properties" in converted:
        fields = cast("Schema", converted["properties"])
        return {} if any("default" in field for field in fields.values()) else None
    return None if default in ([], {}, None) else default


def _validations(rules: Iterable[Rule]) -> Schema:
    manifests = [rule.manifest() for rule in rules]
    return {VALIDATIONS: manifests} if manifests else {}


def _both(field: str | None, of_type: str | None) -> str:
    """A field's description, and that of its type where it says something else."""
    texts = [" ".join(text.split()) for text in (field, of_type) if text]
    if len(texts) == 2 and texts[1].startswith(texts[0].rstrip(".")):
        return texts[1]
    return " ".join(texts)
