"""What the operator's client asks for, as the note of its package says."""

import re
from collections.abc import Iterable

from distill_operator import cluster
from tests.unit.chart.renderings import Manifest

Grant = tuple[str, str]
"""A verb, and the resource as `group/resource/subresource`; the core group is empty."""

_ROW = re.compile(r"^\| (?P<group>[a-z(][^|]*?) \| (?P<resources>[^|]+?) \| (?P<verbs>[^|]+?) \|$", re.MULTILINE)


def documented_grants() -> list[Manifest]:
    """The table of rights, as rules of a role."""
    rows = [row.groupdict() for row in _ROW.finditer(cluster.__doc__ or "") if row["group"] != "group"]
    return [
        {
            "apiGroups": ["" if row["group"] == "(core)" else row["group"]],
            "resources": row["resources"].split(", in ")[0].split(", "),
            "verbs": row["verbs"].split(", "),
        }
        for row in rows
    ]


def grants(rules: Iterable[Manifest]) -> set[Grant]:
    """All that rules of roles allow."""
    return {
        (verb, f"{group}/{resource}")
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
