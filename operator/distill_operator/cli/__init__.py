"""`distillctl`: a DistillJob on this machine.

- `app`: the commands. `runner`: one run, attempt by attempt and stage by stage.
- `stages`: which containers run side by side and in which order (pure). `placement`: which cores and GPUs each gets.
- `processes`: containers as processes that start and end together. `folder`: the files of a run.
- `display`, `results`: what is shown while it runs, and at the end.

What a container is comes from `distill_operator.render`, as in a cluster; only its place is decided here.
"""

from distill_operator.cli.app import main

__all__ = ["main"]
