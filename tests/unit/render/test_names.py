"""Names and labels are legal for every job that the API server takes."""

import re

from hypothesis import given
from hypothesis import strategies as st

from distill_operator.api.job import Metadata
from distill_operator.configuration import OperatorConfiguration
from distill_operator.lifecycle.decision import Children
from distill_operator.render import child_names, render_attempt, select
from tests.unit.render.golden import job_named

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""DNS-1035: the strictest of the kinds, a Service's."""
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
JOB_NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
ATTEMPTS = st.integers(1, 99_999)
HASH_OF_REVISION = 11
"""What a StatefulSet's controller adds to its name in a label of its pods: `-` and ten characters."""
ORDINAL = 5
"""`-1023`"""


@given(JOB_NAMES, ATTEMPTS)
def test_names_and_labels_are_legal(job_name: str, attempt: int) -> None:
    job = job_named("minimal")
    job = job.model_copy(update={"metadata": Metadata(name=job_name, namespace="n", uid="u")})
    rendered = render_attempt(job, OperatorConfiguration(), attempt)
    wanted = Children(attempt, running=True, prepare=True, evaluate=True, teachers=2, students=1)
    for manifest in select(rendered, wanted):
        name, kind = manifest["metadata"]["name"], manifest["kind"]
        assert DNS_LABEL.fullmatch(name)
        assert len(name) <= 63 - (max(HASH_OF_REVISION, ORDINAL) if kind == "StatefulSet" else 0)
        template = manifest["spec"].get("template", {"metadata": {"labels": {}}})
        for value in [*manifest["metadata"]["labels"].values(), *template["metadata"]["labels"].values()]:
            assert LABEL_VALUE.fullmatch(value)
            assert len(value) <= 63


@given(st.sets(JOB_NAMES, min_size=2, max_size=2), ATTEMPTS, ATTEMPTS)
def test_two_jobs_never_share_a_child(job_names: set[str], first: int, second: int) -> None:
    one, other = job_names
    assert not set(child_names(one, first)) & set(child_names(other, second))


def test_a_jobs_name_that_looks_like_anothers_child_is_no_trouble() -> None:
    names = [name for job in ("a", "a-1", "a-teacher", "a-prepare") for name in child_names(job, 1)]
    assert len(set(names)) == len(names)
