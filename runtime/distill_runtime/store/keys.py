"""Which keys are allowed: what every store can hold, and nothing that leads out of its folder."""

import re

KEY_BYTES = 900
"""Longest key: S3 takes 1024 bytes, of which the store's own prefix needs some."""
NAME_BYTES = 200
"""Longest name between two slashes: file systems take 255 bytes, of which a temporary name needs some."""
RESERVED = ".distill"
"""First name that stores keep for themselves."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def check_key(key: str) -> str:
    """The key itself.

    Raises
    ------
    ValueError
        It is empty, too long, begins or ends with a slash, has an empty name, `.`, `..`, a backslash or control
        characters in it, or begins with the stores' own name. Keys are made by this project: it's our fault.
    """
    names = key.split("/")
    if any(name in ("", ".", "..") for name in names):
        raise ValueError(f"key {key!r}: no name in it may be empty, . or ..")
    if _CONTROL.search(key):
        raise ValueError(f"key {key!r}: no backslashes and control characters")
    if names[0] == RESERVED:
        raise ValueError(f"key {key!r}: {RESERVED} is the store's own")
    try:
        encoded = [name.encode() for name in names]
    except UnicodeEncodeError:
        raise ValueError(f"key {key!r}: not Unicode text") from None
    if sum(map(len, encoded)) + len(names) - 1 > KEY_BYTES or max(map(len, encoded)) > NAME_BYTES:
        raise ValueError(f"key {key!r}: longer than {KEY_BYTES} bytes, or a name in it than {NAME_BYTES}")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself: the beginning of an allowed key, cut anywhere; empty for all keys.

    Raises
    ------
    ValueError
        No allowed key begins so.
    """
    folder, _, name = prefix.rpartition("/")
    if folder:
        check_key(folder)
    elif prefix.startswith("/"):
        raise ValueError(f"prefix {prefix!r} begins with a slash")
    if name not in ("", ".", ".."):
        check_key(f"x{name}")
    return prefix
