"""What the documents say can be done: manifests are valid, commands exist, links lead somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from distill_operator.api import load_job

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = {
    "distillctl": {"plan", "run", "validate"},
    "helm": {"install", "uninstall", "upgrade"},
    "kubectl": {"apply", "create", "delete", "describe", "explain", "get", "logs", "patch", "port-forward", "wait"},
}
"""The commands that pages may show; those of docs/install.md are run by tests/control_plane/chart."""
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def blocks(language: str) -> list[tuple[str, str]]:
    """All code blocks of a language, each with its page."""
    return [
        (page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for found, text in BLOCK.findall(page.read_text())
        if found == language
    ]


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_a_manifest_in_the_documents_is_valid(page: str, text: str) -> None:
    if "kind: DistillJob" in text:
        load_job(text, page)
        return
    minimal = yaml.safe_load(next(text for _, text in blocks("yaml") if "kind: DistillJob" in text))
    minimal["spec"] |= yaml.safe_load(text)
    load_job(yaml.safe_dump(minimal), page)


def test_the_examples_are_valid() -> None:
    manifests = sorted((ROOT / "examples").glob("*.yaml"))
    assert manifests
    for manifest in manifests:
        load_job(manifest.read_text(), manifest.name)


@pytest.mark.parametrize(("page", "text"), blocks("console"))
def test_a_command_in_the_documents_exists(page: str, text: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [line.removeprefix("$ ").split("#")[0].split() for line in text.splitlines() if line.startswith("$ ")]
    assert commands, page
    for command in commands:
        if command[0] == "make":
            assert command[1] in targets, (page, command)
        else:
            assert command[1] in COMMANDS.get(command[0], ()), (page, command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(re.sub(r"`[^`]*`", "", page.read_text())):
        assert (page.parent / target).exists(), target
