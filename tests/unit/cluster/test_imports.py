"""What the operator's process loads: it must start in a moment and stay small."""

import subprocess
import sys
from pathlib import Path

import distill_operator

PROGRAM = """
import sys
import distill_operator.__main__
print([name for name in sys.modules if name.startswith("kubernetes.aio.client.models.")])
print([name for name in sys.modules if name.startswith("kubernetes.aio.client.api.")])
"""


def test_no_typed_model_of_the_client_is_loaded() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    assert printed.stdout.splitlines() == ["[]", "[]"]


def test_one_file_knows_kopf() -> None:
    package = Path(distill_operator.__file__).parent
    knowing = {path.name for path in package.rglob("*.py") if "import kopf" in path.read_text()}
    assert knowing == {"handlers.py"}
