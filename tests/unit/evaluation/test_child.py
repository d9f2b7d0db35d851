"""Promise: what a child did is told, however short it lived."""

from pathlib import Path

from distill_runtime.evaluation.child import run_child


def test_a_child_that_ends_at_once_is_looked_at_after_its_end(tmp_path: Path):
    module = tmp_path / "short_lived.py"
    module.write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('done')\nsys.exit(7)\n")
    written = tmp_path / "progress"
    seen: list[str] = []
    code = run_child(
        "short_lived",
        [str(written)],
        lambda: seen.append(written.read_text() if written.exists() else ""),
        environment={"PYTHONPATH": str(tmp_path)},
    )
    assert (code, seen[-1]) == (7, "done")
