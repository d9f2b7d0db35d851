import glob
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_runtime.data.patterns import is_pattern, literal_folder, literal_prefix, matcher

NAME = st.text("ab.[", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=3).map("/".join), max_size=8)
PATTERN_NAME = st.one_of(st.text("ab.[*?", min_size=1, max_size=3), st.just("**")).filter(
    lambda name: name not in (".", "..")
)
PATTERNS = st.lists(PATTERN_NAME, min_size=1, max_size=4).map("/".join)


def make_files(root: Path, paths: list[str]) -> list[str]:
    made: list[str] = []
    for path in paths:
        target = root / path
        blocked = target.is_dir() or any((root / parent).is_file() for parent in Path(path).parents)
        if not blocked:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            made.append(path)
    return made


@settings(max_examples=300, deadline=None)
@given(PATHS, PATTERNS)
def test_patterns_choose_the_files_that_a_shell_would_choose(paths: list[str], pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = make_files(Path(folder), paths)
        found = glob.glob(pattern.replace("[", "[[]"), root_dir=folder, recursive=True)
        wanted = {path for path in found if os.path.isfile(f"{folder}/{path}")}
    whole = matcher(pattern)
    assert {path for path in made if whole.fullmatch(path)} == wanted


@given(PATTERNS, PATHS)
def test_whatever_matches_begins_with_the_literal_prefix_and_lies_in_the_literal_folder(
    pattern: str, paths: list[str]
) -> None:
    for path in paths:
        if matcher(pattern).fullmatch(path):
            assert path.startswith(literal_prefix(pattern))
            assert path.startswith(literal_folder(pattern))


@given(st.text(st.characters(blacklist_characters="*?"), min_size=1))
def test_a_path_without_wildcards_matches_itself_alone(path: str) -> None:
    assert not is_pattern(path)
    assert matcher(path).fullmatch(path)
    assert not matcher(path).fullmatch(path + "x")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a/**/b.jsonl", "a/b.jsonl", True),
        ("a/**/b.jsonl", "a/x/y/b.jsonl", True),
        ("a/**", "a/x/y", True),
        ("a/*", "a/x/y", False),
        ("part-?.csv", "part-1.csv", True),
        ("part-?.csv", "part-10.csv", False),
        ("*.jsonl", ".hidden.jsonl", False),
        ("a[1].csv", "a[1].csv", True),
        ("a[1].csv", "a1.csv", False),
    ],
)
def test_wildcards_mean_what_the_documentation_says(pattern: str, path: str, matches: bool) -> None:
    assert bool(matcher(pattern).fullmatch(path)) is matches
