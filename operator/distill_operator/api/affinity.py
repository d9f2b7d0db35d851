"""Affinity as a pod has it. Kubernetes' own names and meanings, so that what works in a pod works here.

It is there four times in the definition of the resource, and by far the largest part of it: so labels have bounds here,
but no patterns. What they must look like is the API server's to say when it gets the pods.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from distill_runtime.contract.sections import Section

VALUES_FOR_SET = "In and NotIn need values, Exists and DoesNotExist have none"
"""What each operator of a set takes."""
VALUES_FOR_NODE = f"{VALUES_FOR_SET}, Gt and Lt have one"
"""What each operator takes that compares a node's label."""
_Name = Annotated[str, StringConstraints(min_length=1, max_length=317)]
_Value = Annotated[str, StringConstraints(max_length=253)]
_SomeValues = Annotated[list[_Value], Field(max_length=128)]


class NodeRequirement(Section):
    """One comparison of a node's label or field."""

    key: _Name
    """The label or field."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How it is compared."""
    values: _SomeValues = Field(default=[])
    """What it is compared with."""

    @model_validator(mode="after")
    def _as_many_values_as_the_operator_takes(self) -> Self:
        match self.operator:
            case "In" | "NotIn":
                fits = len(self.values) > 0
            case "Exists" | "DoesNotExist":
                fits = not self.values
            case "Gt" | "Lt":
                fits = len(self.values) == 1
        if not fits:
            raise ValueError(VALUES_FOR_NODE)
        return self


class LabelRequirement(Section):
    """One comparison of a label."""

    key: _Name
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: _SomeValues = Field(default=[])
    """What it is compared with."""

    @model_validator(mode="after")
    def _as_many_values_as_the_operator_takes(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError(VALUES_FOR_SET)
        return self


class NodeTerm(Section):
    """Comparisons that must all be true."""

    match_expressions: list[NodeRequirement] = Field(default=[], max_length=16)
    """Comparisons of labels."""
    match_fields: list[NodeRequirement] = Field(default=[], max_length=4)
    """Comparisons of fields."""


class RequiredNodes(Section):
    """Nodes that may be used."""

    node_selector_terms: list[NodeTerm] = Field(min_length=1, max_length=16)
    """One of them must be true."""


class PreferredNodes(Section):
    """Nodes that are preferred."""

    weight: int = Field(ge=1, le=100)
    """How much."""
    preference: NodeTerm
    """Which."""


class NodeAffinity(Section):
    """Which nodes may be used or are preferred."""

    required_during_scheduling_ignored_during_execution: RequiredNodes | None = None
    """Nodes that may be used."""
    preferred_during_scheduling_ignored_during_execution: list[PreferredNodes] = Field(default=[], max_length=16)
    """Nodes that are preferred."""


class LabelSelector(Section):
    """Labels that must all be there."""

    match_labels: dict[str, _Value] = Field(default={}, max_length=16)
    """Labels with these values."""
    match_expressions: list[LabelRequirement] = Field(default=[], max_length=16)
    """Comparisons of labels."""


class PodTerm(Section):
    """Pods to be near to, or away from."""

    topology_key: _Name
    """The node label within whose value pods are near."""
    label_selector: LabelSelector | None = None
    """Which pods."""
    namespaces: list[_Name] = Field(default=[], max_length=32)
    """In these namespaces. Unset: the job's."""
    namespace_selector: LabelSelector | None = None
    """And in namespaces with these labels."""
    match_label_keys: list[_Name] = Field(default=[], max_length=8)
    """Only pods with the same value of these labels."""
    mismatch_label_keys: list[_Name] = Field(default=[], max_length=8)
    """Only pods with another value of these labels."""


class PreferredPods(Section):
    """Pods that it is preferred to be near to, or away from."""

    weight: int = Field(ge=1, le=100)
    """How much."""
    pod_affinity_term: PodTerm
    """Which."""


class PodAffinity(Section):
    """Which pods to be near to, or away from."""

    required_during_scheduling_ignored_during_execution: list[PodTerm] = Field(default=[], max_length=8)
    """Always."""
    preferred_during_scheduling_ignored_during_execution: list[PreferredPods] = Field(default=[], max_length=8)
    """Where possible."""


class Affinity(Section):
    """Where pods are placed in relation to nodes and other pods."""

    node_affinity: NodeAffinity | None = None
    """In relation to nodes."""
    pod_affinity: PodAffinity | None = None
    """Near to other pods."""
    pod_anti_affinity: PodAffinity | None = None
    """Away from other pods."""
