"""Patterns of file names: `*` and `?` inside a name, `**` for any number of folders. Nothing else is special."""

import re

WILDCARD = re.compile(r"[*?]")
_VISIBLE = r"(?!\.)"
_FOLDER = rf"(?:{_VISIBLE}[^/]+/)*"


def is_pattern(path: str) -> bool:
    """Does the path stand for several files?"""
    return WILDCARD.search(path) is not None


def literal_prefix(pattern: str) -> str:
    """What every match begins with: the pattern up to its first wildcard."""
    return WILDCARD.split(pattern, maxsplit=1)[0]


def literal_folder(pattern: str) -> str:
    """The folder that holds every match, with a slash at its end; empty for the top."""
    return literal_prefix(pattern).rpartition("/")[0] + "/" * ("/" in literal_prefix(pattern))


def matcher(pattern: str) -> re.Pattern[str]:
    """Matches whole paths. As in a shell, a wildcard doesn't match a dot at the beginning of a name."""
    names = pattern.split("/")
    parts: list[str] = []
    for place, name in enumerate(names):
        last = place == len(names) - 1
        if name != "**":
            parts.append(_name(name) + "/" * (not last))
        else:
            parts.append(_FOLDER + (rf"{_VISIBLE}[^/]+" if last else ""))
    return re.compile("".join(parts), re.DOTALL)


def _name(name: str) -> str:
    """One name between slashes."""
    visible = _VISIBLE if name[:1] in ("*", "?") else ""
    wild = {"*": "[^/]*", "?": "[^/]"}
    return visible + "".join(wild.get(letter) or re.escape(letter) for letter in name)
