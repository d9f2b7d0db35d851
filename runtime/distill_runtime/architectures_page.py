"""The page of proven models, written from the lists: `python -m distill_runtime.architectures_page FILE`."""

import sys
from pathlib import Path

from distill_runtime.signals.head_source import UNDERSTOOD_HEADS, HeadRule
from distill_runtime.student.architectures import EXPERTS, REFUSED, STUDENT_PROVEN, UNPACKED
from distill_runtime.teacher.architectures import TRANSFORMERS_PROVEN, VLLM_PROVEN

HEADER = """# Models

Which architectures a teacher and a student may have: the name is in `architectures` of a model's `config.json`. This
page is written from the lists in the code by `make generate`; don't edit it.

Each mark is held by a test with a small random model of that architecture: a teacher's states, from that engine, times
the output head that is read from the checkpoint are the model's own logits; a student's loss and the gradient of each
of its weights are those of its own logits. Other architectures are refused by prepare, before a GPU is asked for: a
softcap or a scale that is overlooked would teach a wrong distribution without any error.

`teacher.engine: transformers` reads what vLLM isn't proven for.

| architecture | teacher on vLLM | teacher on transformers | student | head |
| --- | --- | --- | --- | --- |
"""

FOOTER = """
A mixture of experts is a teacher, but no student yet: the balance loss of its router isn't part of the objective.
*Without packing*: layers of that student read on from one packed sequence into the next; set `training.packing: false`.
"""


def _head(rule: HeadRule) -> str:
    fields = [field for field in (rule.multiplier, rule.divisor, rule.softcap) if field is not None]
    return ", ".join([*(f"`{field}`" for field in fields), *(["bias"] if rule.bias else [])])


def page() -> str:
    """The whole page, in Markdown."""
    rows: list[str] = []
    for name, rule in sorted(UNDERSTOOD_HEADS.items()):
        teacher = ("yes" if name in proven else "" for proven in (VLLM_PROVEN, TRANSFORMERS_PROVEN))
        student = "" if name not in STUDENT_PROVEN else "without packing" if name in UNPACKED else "yes"
        label = f"{name} (mixture of experts)" if REFUSED.get(name) == EXPERTS else name
        rows.append(f"| {' | '.join((label, *teacher, student, _head(rule)))} |\n")
    return HEADER + "".join(rows) + FOOTER


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
