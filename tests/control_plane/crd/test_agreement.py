"""The API server and `load_job` are of one mind about every field."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from distill_operator.api import InvalidJob, JobSpec
from distill_operator.api.load import job_of
from distill_operator.api.structural import structural_schema
from tests.control_plane.crd.conftest import Jobs
from tests.unit.api.manifest import SMALLEST
from tests.unit.api.mistakes import TASK

Step = str | Literal[0]
Path = tuple[Step, ...]

VALUES: list[Any] = [
    None,
    *("", "x", "A b", "file://x", "s3://a b", "5", "8Gi", "/x", "/tmp", "hybrid", "In", "Exists", "x" * 300),
    *(0, -1, 1, 2, 3, 7, 99, 101, 2**31, 2**33, 0.5, 1.5),
    *([], ["x"], ["file://a"], [1], [1, 0], [{}], {}, {"a": "b"}, {"a b": "c"}, {"a": 1}),
]
"""A bit of everything. Not `true`: to Python it is 1, so `zeroStage: true` would be taken by one of the two."""
API_SERVER = settings(max_examples=200, deadline=None)


def fields(schema: dict[str, Any], path: Path) -> Iterator[Path]:
    """Paths of all fields in a schema; of lists the first entry, of maps a key."""
    for name, field in schema.get("properties", {}).items():
        yield (*path, name)
        yield from fields(field, (*path, name))
    if "properties" in schema.get("items", {}):
        yield from fields(schema["items"], (*path, 0))
    if "additionalProperties" in schema:
        yield (*path, "key")


FIELDS = [path for path in fields(structural_schema(JobSpec), ("spec",)) if path[1:2] != ("pods",) or "teacher" in path]


def with_field(path: Path, value: Any) -> dict[str, Any]:
    """The smallest job with one field set, and what it needs to be reached."""
    document = copy.deepcopy(SMALLEST)
    if "tasks" in path:
        document["spec"]["evaluation"] = {"tasks": [dict(TASK)]}
    if "initialise" in path:
        document["spec"]["student"] = {"initialise": {}}
    place: Any = document
    for step, following in pairwise(path):
        if isinstance(step, str) and not isinstance(place.get(step), dict | list):
            place[step] = [{}] if following == 0 else {}
        place = place[step]
    place[path[-1]] = value
    return document


def assert_of_one_mind(document: dict[str, Any], checked: Jobs) -> None:
    try:
        job_of(document, "job")
        errors = []
    except InvalidJob as error:
        errors = error.errors
    refusal = checked.check(document)
    assert bool(errors) == (refusal is not None), (errors, refusal)


def some(**fields: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields, each with any of its values."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in fields.items()})


KEY = [{"name": "n", "key": "k"}]
AMOUNTS = ["0", 1, "500m", "1500m", "1.5", "1Ki", "1k", "2Gi", "3e3"]
REQUIREMENT = some(key=["a"], operator=["In", "Exists", "Gt"], values=[[], ["1"], ["1", "2"]])
PODS = st.one_of(
    some(cpu=AMOUNTS, cpuLimit=AMOUNTS, memory=AMOUNTS, sharedMemory=AMOUNTS),
    st.builds(
        lambda name, amount: {"extraResources": {name: amount}},
        st.sampled_from(["cpu", "memory", "ephemeral-storage", "a/b", "hugepages-2Mi"]),
        st.sampled_from(AMOUNTS),
    ),
    st.builds(
        lambda entry: {"tolerations": [entry]},
        some(key=["a", ""], operator=["Exists", "Equal"], value=["", "b"], effect=["NoExecute"], tolerationSeconds=[3]),
    ),
    st.builds(
        lambda entries: {"environment": entries},
        st.lists(some(name=["A", "DISTILL_A"], value=["", "b"], secret=KEY, configMap=KEY), max_size=2),
    ),
    st.builds(
        lambda entries: {"volumes": entries},
        st.lists(
            some(
                name=["a", "b", "distill-a"],
                mountPath=["/a", "/tmp", "/tmp/a", "/tmpa", "/etc", "/etc/distill", "/mnt", "/a/.b", "/a/.", "/"],
                subPath=["a", "../a", "a/b", "..a"],
                claim=["c"],
                secret=["s"],
                configMap=["m"],
                emptyDir=["1Gi"],
                image=["i"],
            ),
            max_size=2,
        ),
    ),
    st.builds(
        lambda cache: {"modelCache": cache}, some(claim=["c"], perPod=["1Gi"], emptyDir=["1Gi"], storageClass=["s"])
    ),
    st.builds(
        lambda entry: {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [entry]}}},
        st.builds(
            lambda weight, requirement: {"weight": weight, "preference": {"matchExpressions": [requirement]}},
            st.sampled_from([0, 1, 100, 101]),
            REQUIREMENT,
        ),
    ),
    st.builds(
        lambda entries: {"topologySpread": entries},
        st.lists(some(topologyKey=["a", "b"], whenUnsatisfiable=["DoNotSchedule"]), max_size=2),
    ),
)
SPEC = some(
    student=[
        {"model": "hf://a/b"},
        {"model": "hf://a/b", "gpusPerWorker": 0},
        {"initialise": {"fromTeacher": {"layers": [0, 3, 5]}}},
        {"initialise": {"fromTeacher": {"layers": [0, 5, 3]}}},
        {"initialise": {"fromTeacher": {"layers": [0], "every": 2}}},
        {"initialise": {"fromTeacher": {"byInfluence": {"keep": 4}}}},
        {"initialise": {"fromTeacher": {"byInfluence": {"keep": 4}, "layers": [0]}}},
        {"initialise": {"fromTeacher": {"neurons": {"keep": 4}}}},
        {"initialise": {"fromTeacher": {"neurons": {"keep": 4}, "every": 2}}},
        {"initialise": {"fromConfig": {"config": "file://a"}}},
        {"model": "hf://a/b", "adapter": {"kind": "lora", "rank": 8}},
        {"model": "hf://a/b", "adapter": {"dropout": 0.1}},
        {"model": "hf://a/b", "adapter": {}, "freeze": []},
        {"model": "hf://a/b", "adapter": {}, "freeze": ["embeddings"]},
        {"model": "hf://a/b", "freeze": ["embeddings"]},
    ],
    training=[
        {"precision": "float16"},
        {"precision": "bfloat16", "zeroStage": 0},
        {"precision": "float32", "zeroStage": 0},
        {"steps": 1},
        {"steps": 1, "epochs": 2},
        {"stopAfterWorseEvaluations": 1},
        {"optimizer": {"kind": "torch", "torch": {"name": "SGD", "arguments": {"momentum": 0.9}}}},
        {"optimizer": {"kind": "torch", "torch": {"name": "Adam", "arguments": {"momentum": 0.9}}}},
        {"optimizer": {"kind": "torch"}},
        {"deepspeed": {"zero_optimization": {"offload_optimizer": {}}}},
        {"zeroStage": 0, "deepspeed": {"zero_optimization": {"offload_optimizer": {}}}},
        {"deepspeed": {"zero_optimization": {"offload_param": {}}}},
    ],
    signal=[
        {"kind": "topk"},
        {"kind": "auto"},
        {"kind": "auto", "dtype": "float32"},
        {"kind": "auto", "dtype": "float16"},
        {"kind": "topk", "dtype": "float16", "k": 8},
        {"kind": "topk", "dtype": "bfloat16"},
        {"kind": "sampled", "dtype": "float32"},
        {"kind": "sampled", "dtype": "bfloat16"},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
    ],
    data=[
        {"train": "file://a"},
        {"train": ["file://a"], "evaluation": "file://b"},
        {"sources": [{"uri": "file://a"}, {"uri": "s3://a/b", "weight": 0.5}], "evaluation": "file://b"},
        {"train": "file://a", "sources": [{"uri": "file://a"}]},
        {"evaluation": "file://b"},
    ],
    output=[{"select": "best"}, {"select": "last"}],
    objective=[
        {"distillationWeight": 0},
        {"distillationWeight": 0, "crossEntropyWeight": 1},
        {"divergences": [{"kind": "reverseKL"}]},
        {"divergences": [{"kind": "forwardKL", "weight": 2}]},
    ],
    evaluation=[{"samples": {"count": 2}}, {"samples": {"count": 0}}],
)


@API_SERVER
@given(path=st.sampled_from(FIELDS), value=st.sampled_from(VALUES))
def test_any_value_of_any_field_is_taken_by_both_or_by_neither(path: Path, value: Any, checked: Jobs) -> None:
    assert_of_one_mind(with_field(path, value), checked)


@API_SERVER
@given(pods=PODS)
def test_fields_of_pods_that_depend_on_each_other_are_taken_by_both_or_by_neither(
    pods: dict[str, Any], checked: Jobs
) -> None:
    assert_of_one_mind(with_field(("spec", "pods", "student"), pods), checked)


@API_SERVER
@given(spec=SPEC)
def test_sections_that_depend_on_each_other_are_taken_by_both_or_neither(spec: dict[str, Any], checked: Jobs) -> None:
    document = copy.deepcopy(SMALLEST)
    document["spec"] |= spec
    assert_of_one_mind(document, checked)
