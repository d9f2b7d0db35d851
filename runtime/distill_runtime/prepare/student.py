"""The student before training: a pretrained model where it is, or one that is made once and stored."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from distill_runtime import layout
from distill_runtime.artifacts import store_folder, stored_digest
from distill_runtime.contract.run import Work
from distill_runtime.contract.sections import TeacherLayers
from distill_runtime.models import resolve_model
from distill_runtime.prepare.addresses import initial_student_digest
from distill_runtime.prepare.inputs import Inputs
from distill_runtime.prepared import ModelPin, PlanReference
from distill_runtime.store.base import ObjectStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from distill_runtime.student.neurons import KeptNeurons


def initial_student(
    store: ObjectStore, work: Work, inputs: Inputs, train: PlanReference, *, cache: Path, vocabulary: int
) -> ModelPin:
    """Makes the student that `student.initialise` describes, unless it is in the store.

    The address covers what made it; the pin's digest covers the files, as for every model.

    Raises
    ------
    UserError
        It can't be made of this teacher or configuration, or its output head isn't understood or is smaller than the
        vocabulary.
    """
    from distill_runtime.student.architectures import check_student

    key = layout.model_key(initial_student_digest(work, inputs, train))
    uri = f"store://{key}"
    if stored_digest(store, key) is None:
        digest = _make(store, key, work, inputs, train, cache=cache, vocabulary=vocabulary)
    else:
        found = resolve_model(uri, work.storage, cache=cache, store=store)
        check_student(found.folder, packing=work.training.packing)
        digest = found.pin.digest
    return ModelPin(uri=uri, digest=digest)


def check_parts(student: ModelPin, store: ObjectStore, work: Work, *, cache: Path, vocabulary: int) -> None:
    """Makes sure, before a GPU is asked for, that the student has the parts that the spec wants to be trained.

    Raises
    ------
    UserError
        It doesn't; the sentence says which it has.
    """
    if work.student.adapter is None and not work.student.freeze:
        return
    from distill_runtime.student.trained import check_trained

    folder = resolve_model(student.uri, work.storage, cache=cache, store=store).folder
    trusted = work.student.trust_remote_code
    check_trained(folder, work.student, vocabulary=vocabulary, trust_remote_code=trusted)


def _make(
    store: ObjectStore, key: str, work: Work, inputs: Inputs, train: PlanReference, *, cache: Path, vocabulary: int
) -> str:
    """Makes and stores the student. Returns the digest that a pin has."""
    from distill_runtime.signals.head_source import describe_head
    from distill_runtime.student.architectures import check_student
    from distill_runtime.student.initialise import make_initial_student

    initialise = work.student.initialise
    assert initialise is not None
    neurons = None
    if initialise.from_config is not None:
        assert inputs.student_config is not None
        here = initialise.from_config.model_copy(update={"config": f"file://{inputs.student_config.folder.resolve()}"})
        initialise = initialise.model_copy(update={"from_config": here})
    elif initialise.from_teacher is not None:
        layers, neurons = _measured(initialise.from_teacher, store, work, inputs, train)
        initialise = initialise.model_copy(update={"from_teacher": layers})
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="initial-student-") as temporary:
        target = Path(temporary).resolve() / "model"
        make_initial_student(
            initialise,
            inputs.teacher.folder,
            target,
            neurons=neurons,
            trust_remote_code=work.student.trust_remote_code,
        )
        check_student(target, packing=work.training.packing)
        describe_head(target, vocabulary)
        digest = resolve_model(f"file://{target}", work.storage, cache=cache).pin.digest
        store_folder(store, key, target)
        return digest


def _measured(
    wanted: TeacherLayers, store: ObjectStore, work: Work, inputs: Inputs, train: PlanReference
) -> "tuple[TeacherLayers, KeptNeurons | None]":
    """What is to be kept of the teacher, after its layers and neurons were measured over the training data."""
    if wanted.by_influence is None and wanted.neurons is None:
        return wanted, None
    from distill_runtime.data.plan import Plan
    from distill_runtime.precision import checkpoint_dtype, resolve_precision
    from distill_runtime.student.influence import check_layers, choose_layers, spread
    from distill_runtime.student.layers import kept_layers
    from distill_runtime.student.measuring import load_measured
    from distill_runtime.student.model import DTYPES
    from distill_runtime.student.neurons import choose_neurons, find_blocks

    plan = Plan(store, train)
    folder, trusted = inputs.teacher.folder, work.teacher.trust_remote_code
    dtype = DTYPES[resolve_precision("auto", checkpoint_dtype=checkpoint_dtype(folder), gpus=0)]

    def sequences(count: int) -> "list[NDArray[np.int32]]":
        return [plan.sequence(number).ids for number in spread(len(plan), count)]

    influence, neurons = wanted.by_influence, wanted.neurons
    # What the configuration says comes before the weights are read.
    blocks = {} if neurons is None else find_blocks(neurons, folder, trust_remote_code=trusted)
    if influence is not None:
        check_layers(influence, folder, trust_remote_code=trusted)
    elif neurons is not None:
        kept_layers(wanted, len(blocks))
    model = load_measured(folder, dtype=dtype, trust_remote_code=trusted)
    if influence is not None:
        layers = choose_layers(influence, model, sequences(influence.sequences))
        wanted = TeacherLayers(layers=list(layers), neurons=neurons)
    if neurons is None:
        return wanted, None
    kept = {layer: blocks[layer] for layer in kept_layers(wanted, len(blocks))}
    return wanted, choose_neurons(neurons, model, kept, sequences(neurons.sequences))
