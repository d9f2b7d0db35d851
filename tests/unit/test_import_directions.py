"""Who may import whom. The operator's image has no engine; the runtime knows nothing of the operator."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATOR = sorted((ROOT / "operator").rglob("*.py"))
RUNTIME = sorted((ROOT / "runtime").rglob("*.py"))
HEAVY = ("torch", "vllm", "transformers", "deepspeed", "boto3", "numpy", "kubernetes", "kopf")
IMPORT_SECONDS = 3.0
"""Of processor time, so that a busy machine doesn't matter. A quarter of it is usual; torch alone takes more."""


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_there_are_files_on_both_sides() -> None:
    assert OPERATOR
    assert RUNTIME


@pytest.mark.parametrize("path", OPERATOR, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_operator_imports_nothing_of_the_runtime_but_the_contract(path: Path) -> None:
    foreign = {
        name
        for name in imported(path)
        if inside(name, "distill_runtime") and not inside(name, "distill_runtime.contract")
    }
    assert foreign == set()


@pytest.mark.parametrize("path", RUNTIME, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_runtime_imports_nothing_of_the_operator(path: Path) -> None:
    assert {name for name in imported(path) if inside(name, "distill_operator")} == set()


@pytest.mark.parametrize(
    "module", ["distill_operator.cli", "distill_runtime.contract", "distill_runtime.supervisor.entry"]
)
def test_importing_it_loads_no_engine_and_is_quick(module: str) -> None:
    program = (
        "import sys, time; begun = time.process_time(); "
        f"import {module}; "
        "print(time.process_time() - begun); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    seconds, loaded = printed.stdout.splitlines()
    assert loaded == "[]"
    assert float(seconds) < IMPORT_SECONDS
