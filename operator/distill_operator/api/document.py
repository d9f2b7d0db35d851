"""YAML as plain data, read as Kubernetes' tools read it, with the line of what is wrong.

Differences from PyYAML's own loader: a key that occurs twice is refused, `1e-4` is a number, dates stay text, and
`12:30` is no number.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode


class InvalidDocument(Exception):
    """Text that isn't YAML, or not of the kind that is read here. The message names the line."""


class _Loader(yaml.SafeLoader):
    """Safe, strict about keys, with the scalars of Kubernetes' manifests."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own way

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                problem = f"{key.value} was given before, in line {lines[key.value]}"
                raise ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = line
        return super().construct_mapping(node, deep=deep)


def _scalar(tag: str, pattern: str, first: str) -> None:
    # PyYAML's stubs have no parameter types here.
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))  # pyright: ignore[reportUnknownMemberType]


_scalar("bool", r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO")
_scalar("int", r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$", "-+0123456789")
_scalar("float", r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$", "-+.0123456789")
_scalar("null", r"^(?:~|null|Null|NULL|)$", "~nN\0")
_scalar("merge", r"^(?:<<)$", "<")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])  # pyright: ignore[reportUnknownMemberType]


def read_documents(text: str) -> list[Any]:
    """All YAML documents in `text`, empty ones left out.

    Raises
    ------
    InvalidDocument
        It isn't YAML, a key occurs twice, a tag is unknown, or an alias contains itself.
    """
    documents: list[Any] = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            _refuse_loops(node, ())
            documents.append(loader.construct_document(node))  # pyright: ignore[reportUnknownMemberType]
    except yaml.YAMLError as error:
        raise InvalidDocument(_sentence(error)) from error
    return [document for document in documents if document is not None]


def _refuse_loops(node: Node | None, above: tuple[Node, ...]) -> None:
    if node is None or isinstance(node, ScalarNode):
        return
    if any(node is ancestor for ancestor in above):
        raise ConstructorError(None, None, "an alias contains itself", node.start_mark)
    inside = (*above, node)
    if isinstance(node, SequenceNode):
        for item in node.value:
            _refuse_loops(item, inside)
    elif isinstance(node, MappingNode):
        for _, item in node.value:
            _refuse_loops(item, inside)


def _sentence(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
    return " ".join(str(error).split())
