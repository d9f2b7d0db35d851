"""The pods of each role: defaults of the operator's configuration, with the job's own on top.

Scalars, `affinity` and `modelCache`: the job's value replaces the default. Lists and maps: both are kept, and where two
entries have the same key (an environment variable's name, a label) the job's wins. `evaluate` stands on `student`.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from distill_operator.api import DistillJob
from distill_operator.api.pods import EnvironmentVariable, Pods, Toleration, TopologySpread
from distill_operator.api.volumes import Volume
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import DEFAULT_STARTUP_SECONDS
from distill_runtime.contract.run import Role

DEFAULT_ACCELERATOR = "nvidia.com/gpu"
"""Name of the GPU resource where neither job nor configuration has one."""


def _environment_key(variable: EnvironmentVariable) -> Hashable:
    return variable.name


def _volume_key(volume: Volume) -> Hashable:
    return volume.name


def _spread_key(spread: TopologySpread) -> Hashable:
    return spread.topology_key, spread.when_unsatisfiable


def _toleration_key(toleration: Toleration) -> Hashable:
    return toleration.model_dump_json()


def _value(value: str) -> Hashable:
    return value


LISTS: dict[str, Callable[[Any], Hashable]] = {
    "tolerations": _toleration_key,
    "topology_spread": _spread_key,
    "environment": _environment_key,
    "volumes": _volume_key,
    "image_pull_secrets": _value,
}
"""Lists of `Pods`, with what tells their entries apart. No two entries of a result have the same key."""
MAPS = ("node_selector", "extra_resources", "labels", "annotations")
"""Maps of `Pods` that are added to."""


def role_pods(job: DistillJob, configuration: OperatorConfiguration) -> dict[Role, Pods]:
    """What each role's pods are given, complete with image, pull policy, GPU resource and startup budget."""
    own, defaults = job.spec.pods, configuration.pods
    least = Pods(
        image=configuration.runtime_image,
        image_pull_policy=configuration.runtime_image_pull_policy,
        accelerator=DEFAULT_ACCELERATOR,
        startup_seconds=DEFAULT_STARTUP_SECONDS,
    )
    student = merge_pods(merge_pods(least, defaults.student), own.student)
    return {
        "prepare": merge_pods(merge_pods(least, defaults.prepare), own.prepare),
        "teacher": merge_pods(merge_pods(least, defaults.teacher), own.teacher),
        "student": student,
        "evaluate": merge_pods(merge_pods(student, defaults.evaluate), own.evaluate),
    }


def merge_pods(defaults: Pods, own: Pods) -> Pods:
    """`own` on top of `defaults`. The two may not fit together: `refusal` says so."""
    return defaults.model_copy(
        update={name: _merged(name, getattr(defaults, name), getattr(own, name)) for name in Pods.model_fields}
    )


def _merged(name: str, default: Any, own: Any) -> Any:
    if name in MAPS:
        return {**default, **own}
    if name in LISTS:
        return _joined(default, own, LISTS[name])
    return default if own is None else own


def _joined(default: Sequence[Any], own: Sequence[Any], key: Callable[[Any], Hashable]) -> list[Any]:
    """Entries in the order given, each key once, at the place of its last entry."""
    entries: dict[Hashable, Any] = {}
    for entry in [*default, *own]:
        entries.pop(key(entry), None)
        entries[key(entry)] = entry
    return list(entries.values())
