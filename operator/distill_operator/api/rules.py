"""What the API server checks beyond types and bounds, mostly as rules in CEL, Kubernetes' expression language.

Each validator of the models that looks at more than one field has its twin here, with the same sentence, so that
`kubectl apply` refuses what `distillctl validate` refuses. Rules sit on the smallest object that shows them all they
need: on an update the API server leaves unchanged objects alone, so a rule that comes with a later version doesn't keep
the status of older jobs from being written. At the root are only rules that compare with the old object.
"""

from dataclasses import dataclass
from typing import Any

from distill_operator.api import affinity, pods, volumes
from distill_operator.api.fields import field_names
from distill_operator.api.job import JobName, JobSpec
from distill_operator.api.sentences import pattern_of, pattern_sentence
from distill_runtime.contract.run import SAMPLED_NEEDS
from distill_runtime.contract.sections import (
    ADAPTER_FREEZES,
    DRAWN_DIVERGENCES,
    NO_ADAPTER_DROPOUT,
    OFFLOAD_OF_STATES,
    OFFLOAD_OF_WEIGHTS,
    ONE_CHOICE_OF_LAYERS,
    OPTIMIZER_ARGUMENTS,
    TORCH_IS_A_KIND,
    Student,
    Teacher,
    wrong_optimizer,
)

Json = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One rule of an object."""

    rule: str
    """The expression that must be true; `self` is the object."""
    message: str
    """The sentence that a user reads when it isn't."""
    message_expression: str = ""
    """An expression that gives the sentence, where it holds a value."""
    field: str = ""
    """The field that is wrong: `.name`. Empty: the object as a whole."""
    forbidden: bool = False
    """The change isn't allowed; else the value is wrong."""
    on_create_only: bool = False
    """Not asked again when the object changes."""

    def manifest(self) -> Json:
        """As an entry of `x-kubernetes-validations`."""
        return {
            "rule": f"oldSelf.hasValue() || {self.rule}" if self.on_create_only else self.rule,
            "message": self.message,
            **({"messageExpression": self.message_expression} if self.message_expression else {}),
            **({"fieldPath": self.field} if self.field else {}),
            **({"reason": "FieldValueForbidden"} if self.forbidden else {}),
            **({"optionalOldSelf": True} if self.on_create_only else {}),
        }


def _count(*fields: str) -> str:
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(given, given).size()"


def _own_folders() -> str:
    listed = ", ".join(f"'{folder}'" for folder in volumes.OWN_FOLDERS)
    inside = "(self.mountPath + '/').startsWith(folder + '/')"
    return f"![{listed}].exists(folder, {inside} || folder.startsWith(self.mountPath + '/'))"


def _not_more(one: str, other: str) -> str:
    """Also true where one of the two isn't given or is no quantity, which is told by itself."""
    amounts = [f"string(self.{name})" for name in (one, other)]
    known = " || ".join([f"!has(self.{one}) || !has(self.{other})", *(f"!isQuantity({amount})" for amount in amounts)])
    return f"{known} || !quantity({amounts[0]}).isGreaterThan(quantity({amounts[1]}))"


def _not_given(key: str) -> str:
    """A key of DeepSpeed's `zero_optimization`."""
    zero = "self.deepspeed.zero_optimization"
    return f"!has(self.deepspeed) || !has({zero}) || !has({zero}.{key})"


_VALUES_FOR_SET = "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0"
_NO_VALUES = "!has(self.values) || self.values.size() == 0"
_OWN_RESOURCES = " || ".join(f"'{name}' in self.extraResources" for name in pods.OWN_RESOURCES)

RULES: dict[str, tuple[Rule, ...]] = {
    "TeacherLayers": (
        Rule(
            f"{_count('layers', 'every', 'byInfluence')} == 1 "
            f"|| ({_count('layers', 'every', 'byInfluence')} == 0 && has(self.neurons))",
            ONE_CHOICE_OF_LAYERS,
        ),
        Rule("!has(self.layers) || self.layers.isSorted()", "layers must rise and name each layer once"),
    ),
    "Initialise": (
        Rule("has(self.fromTeacher) != has(self.fromConfig)", "give exactly one of fromTeacher and fromConfig"),
    ),
    "Signal": (
        Rule(
            "!has(self.dtype) || self.dtype in ['auto', 'float32'] "
            "|| (self.dtype == 'bfloat16' ? self.kind == 'hidden' : self.kind in ['topk', 'sampled'])",
            "dtype bfloat16 is for kind hidden, float16 for topk and sampled: leave it out",
        ),
    ),
    "Adapter": (Rule("self.dropout == 0.0", NO_ADAPTER_DROPOUT),),
    "Student": (
        Rule("has(self.model) != has(self.initialise)", "give exactly one of model and initialise"),
        Rule("!has(self.adapter) || !has(self.freeze) || self.freeze.size() == 0", ADAPTER_FREEZES),
    ),
    "Objective": (
        Rule(
            "!has(self.distillationWeight) || self.distillationWeight > 0.0 || self.crossEntropyWeight > 0.0",
            "distillationWeight and crossEntropyWeight are both 0: nothing would be learned",
        ),
    ),
    "TorchOptimizer": tuple(
        Rule(
            f"!has(self.arguments) || !has(self.arguments.{argument}) || self.name in {list(optimizers)}",
            wrong_optimizer(argument),
        )
        for argument, optimizers in OPTIMIZER_ARGUMENTS.items()
    ),
    "Optimizer": (Rule("!has(self.kind) || (self.kind == 'torch') == has(self.torch)", TORCH_IS_A_KIND),),
    "Training": (
        Rule("!has(self.steps) || !has(self.epochs)", "give at most one of steps and epochs"),
        Rule(f"{_not_given('offload_optimizer')} || self.zeroStage > 0", OFFLOAD_OF_STATES),
        Rule(f"{_not_given('offload_param')} || self.zeroStage == 3", OFFLOAD_OF_WEIGHTS),
    ),
    "JobSpec": (
        Rule(
            "self.training.precision != 'float16' || self.student.gpusPerWorker > 0",
            "training.precision float16 needs GPUs; use float32 or bfloat16 on processors",
        ),
        Rule(
            "!(self.training.precision in ['bfloat16', 'float16']) || self.training.zeroStage > 0",
            "training.precision needs training.zeroStage 1 or more",
            message_expression="'training.precision ' + self.training.precision "
            "+ ' needs training.zeroStage 1 or more'",
        ),
        Rule(
            f"self.signal.kind != 'sampled' || self.objective.divergences.all(term, term.kind in "
            f"{list(DRAWN_DIVERGENCES)})",
            SAMPLED_NEEDS,
        ),
    ),
    "Toleration": (
        Rule("self.operator != 'Exists' || !has(self.value) || self.value == ''", pods.VALUE_IS_NOT_READ),
        Rule("self.operator == 'Exists' || has(self.key)", pods.KEY_OR_EXISTS),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            pods.SECONDS_OF_NO_EXECUTE,
        ),
    ),
    "EnvironmentVariable": (
        Rule(f"{_count('value', 'secret', 'configMap')} == 1", pods.ONE_VALUE),
        Rule(f"!self.name.startsWith('{pods.OWN_VARIABLES}')", pods.NOT_OWN_VARIABLE, field=".name"),
    ),
    "Volume": (
        Rule(f"{_count('claim', 'secret', 'configMap', 'emptyDir', 'image')} == 1", volumes.ONE_SOURCE),
        Rule(f"!self.name.startsWith('{volumes.OWN_PREFIX}')", volumes.NOT_OWN_VOLUME, field=".name"),
        Rule(_own_folders(), volumes.NOT_OWN_FOLDER, field=".mountPath"),
    ),
    "ModelCache": (
        Rule(f"{_count('claim', 'perPod', 'emptyDir')} <= 1", volumes.ONE_CACHE),
        Rule("!has(self.storageClass) || has(self.perPod)", volumes.CLASS_OF_CLAIMS),
    ),
    "Pods": (
        Rule(f"!has(self.extraResources) || !({_OWN_RESOURCES})", pods.RESOURCES_WITH_FIELDS),
        Rule(
            "!has(self.extraResources) || self.extraResources.all(name, !isQuantity(string(self.extraResources[name])) "
            "|| quantity(string(self.extraResources[name])).isInteger())",
            pods.WHOLE_RESOURCES,
        ),
        Rule(_not_more("cpu", "cpuLimit"), pods.CPU_IN_LIMIT),
        Rule(_not_more("sharedMemory", "memory"), pods.SHARED_MEMORY_IN_MEMORY),
        Rule(
            "!has(self.volumes) || self.volumes.all(one, self.volumes.exists_one(other, "
            "other.mountPath == one.mountPath))",
            pods.MOUNTS_DIFFER,
        ),
    ),
    "NodeRequirement": (
        Rule(
            f"{_VALUES_FOR_SET} : self.operator in ['Gt', 'Lt'] ? has(self.values) && self.values.size() == 1 : "
            f"{_NO_VALUES}",
            affinity.VALUES_FOR_NODE,
        ),
    ),
    "LabelRequirement": (Rule(f"{_VALUES_FOR_SET} : {_NO_VALUES}", affinity.VALUES_FOR_SET),),
}
"""By the name of the model."""

LIST_KEYS: dict[tuple[str, str], list[str]] = {
    ("Evaluation", "tasks"): ["name"],
    ("Harness", "tasks"): ["task"],
    ("Pods", "environment"): ["name"],
    ("Pods", "volumes"): ["name"],
    ("Pods", "topologySpread"): ["topologyKey", "whenUnsatisfiable"],
    ("DistillJobStatus", "conditions"): ["type"],
}
"""Lists whose entries are told apart by these fields, by model and field: the API server refuses duplicates, and each
entry of a server-side apply has an owner of its own."""

LIST_SETS = {("TeacherLayers", "layers")}
"""Lists of which each entry may be there once. In CEL this would take more time than the API server gives."""

ALTERNATIVES: dict[str, list[Json]] = {
    "JobSpec": [
        {
            "properties": {
                "data": {"required": ["evaluation"]},
                "output": {"properties": {"select": {"minLength": 0}}},
                "training": {"properties": {"stopAfterWorseEvaluations": {"minimum": 0}}},
                "evaluation": {"properties": {"samples": {"properties": {"count": {"minimum": 0}}}}},
            }
        },
        {
            "properties": {
                "output": {"properties": {"select": {"enum": ["last"]}}},
                "training": {"properties": {"stopAfterWorseEvaluations": {"maximum": 0}}},
                "evaluation": {"properties": {"samples": {"properties": {"count": {"maximum": 0}}}}},
            }
        },
    ],
}
"""Schemas of which one must be met, by the name of the model: CEL doesn't see `data.evaluation`, whose type is open.
The API server tells what is wrong with the one that fits best, so the first one also says what always holds."""

EXACTLY_ONE: dict[str, list[str]] = {"Data": ["train", "sources"]}
"""Fields of which exactly one must be given, by the name of the model, where CEL doesn't see one of them: the type of
`data.train` is open."""

CHANGEABLE = {
    "Teacher": {"replicas", "gpus", "maxBatchTokens"},
    "Student": {"workers"},
    "JobSpec": {"teacher", "student", "policy", "suspend", "pods"},
}
"""What may change once the job has started; of teacher and student the rest may not, pods only while suspended."""
_STARTED = "has(oldSelf.status) && has(oldSelf.status.startTime)"


def key_rule(pattern: str, max_length: int) -> Rule:
    """What the keys of a mapping look like."""
    return Rule(
        f"self.all(key, key.size() <= {max_length} && key.matches(r'{pattern}'))",
        f"a key {pattern_sentence(pattern)}",
    )


def root_rules() -> list[Rule]:
    """What compares with the old object, and the name, which is seen at the root only."""
    return [
        Rule(
            f"self.metadata.name.matches(r'{pattern_of(JobName)}')",
            pattern_sentence(pattern_of(JobName)) or "",
            field=".metadata.name",
            on_create_only=True,
        ),
        Rule(
            "self.metadata.name.size() <= 40",
            "must have at most 40 characters",
            field=".metadata.name",
            on_create_only=True,
        ),
        *(
            _fixed(f"spec.{section}.{name}")
            for section, model in (("teacher", Teacher), ("student", Student))
            for name in field_names(model)
            if name not in CHANGEABLE[model.__name__]
        ),
        *(_fixed(f"spec.{name}") for name in field_names(JobSpec) if name not in CHANGEABLE["JobSpec"]),
        _fixed_while_running("spec.pods"),
    ]


def _same(path: str) -> str:
    new, old = f"self.{path}", f"oldSelf.{path}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


def _fixed(path: str) -> Rule:
    return Rule(
        f"!({_STARTED}) || ({_same(path)})",
        "can't change once the job has started; make a new job",
        field=f".{path}",
        forbidden=True,
    )


def _fixed_while_running(path: str) -> Rule:
    return Rule(
        f"!({_STARTED}) || self.spec.suspend || oldSelf.spec.suspend || ({_same(path)})",
        "can't change while the job runs; set spec.suspend to true first, or with it",
        field=f".{path}",
        forbidden=True,
    )
