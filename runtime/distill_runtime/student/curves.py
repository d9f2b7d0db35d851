"""The curves of a training in the store: one object for each interval between checkpoints.

trainings/<training>/curves/<first step>-<last step>-<generation>.json
"""

import re
from collections.abc import Iterable

from pydantic import Field

from distill_runtime import layout
from distill_runtime.contract.report import CurvePoint
from distill_runtime.contract.sections import Section
from distill_runtime.store.base import ObjectStore

_NAME = re.compile(r"/(\d+)-(\d+)-(\d+)\.json$")


class CurveSegment(Section):
    """Points of the steps between two checkpoints."""

    points: list[CurvePoint] = Field(default=[])


def segment_key(training_digest: str, first: int, last: int, generation: int) -> str:
    """Key of the points of steps first to last, as one generation of the fence saw them."""
    return f"{layout.training_key(training_digest)}/curves/{first:08d}-{last:08d}-{generation:04d}.json"


def write_segment(store: ObjectStore, training_digest: str, points: list[CurvePoint], generation: int) -> None:
    """Writes the points since the last checkpoint; nothing where there are none."""
    if points:
        steps = [point.step for point in points]
        data = CurveSegment(points=points).model_dump_json(by_alias=True, exclude_none=True).encode()
        store.put(segment_key(training_digest, min(steps), max(steps), generation), data)


def read_curves(store: ObjectStore, training_digest: str) -> list[CurvePoint]:
    """All points of a training by step; a held-out point comes after the point of its step.

    A step that was repeated after a resume has the point of the newest generation.
    """
    keys = [info.key for info in store.list(f"{layout.training_key(training_digest)}/curves/")]
    found = [(match, key) for key in keys if (match := _NAME.search(key))]
    segments = [
        CurveSegment.model_validate_json(store.get(key)).points
        for _, key in sorted(found, key=lambda item: (int(item[0][3]), int(item[0][2]), int(item[0][1])))
    ]
    return merge(segments)


def merge(segments: Iterable[list[CurvePoint]]) -> list[CurvePoint]:
    """Points by step, each once; of two for the same step the later segment's."""
    points = {(p.step, p.held_out_loss is not None): p for segment in segments for p in segment}
    return [points[key] for key in sorted(points)]
