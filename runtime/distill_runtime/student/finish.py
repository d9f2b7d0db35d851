"""The end of a training: the chosen weights as a Hugging Face folder in the store, and the note that it is finished.

trainings/<training>/model/…          the exported model
trainings/<training>/finished.json    written last
"""

import logging
import shutil
from pathlib import Path

import torch

from distill_runtime import layout
from distill_runtime.artifacts import store_folder
from distill_runtime.contract.facts import StudentFacts
from distill_runtime.contract.run import RunConfig
from distill_runtime.errors import RetryError
from distill_runtime.precision import checkpoint_dtype
from distill_runtime.prepared import Prepared, Record
from distill_runtime.process import Facts
from distill_runtime.store.base import ObjectCorrupt, ObjectMissing, ObjectStore
from distill_runtime.student.checkpoints import CheckpointManifest, Position, read_manifest, read_tensors
from distill_runtime.student.engine import WEIGHT
from distill_runtime.student.export import check_export, export_model
from distill_runtime.student.fence import CheckpointEntry, Fence
from distill_runtime.student.model_card import model_card
from distill_runtime.student.trainer import packing_efficiency, wait_fraction
from distill_runtime.student.whole_model import whole_weights

EXPORTED = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of an initial student that the export keeps; every other becomes float32."""

log = logging.getLogger(__name__)


class Finished(Record):
    """What a finished training came to."""

    steps: int
    """Optimizer steps that were made."""
    exported_step: int
    """The step whose weights were exported."""
    final_loss: float | None
    held_out_loss: float | None
    """Of the exported weights."""
    wait_fraction: float
    packing_efficiency: float | None = None
    """Part of the tokens of all rows that was no padding."""
    tokens_per_second: float
    model: str
    """Key of the exported folder."""
    model_digest: str

    @property
    def facts(self) -> Facts:
        """For the outcome."""
        facts = StudentFacts(
            steps=self.steps,
            exported_step=self.exported_step,
            final_loss=self.final_loss,
            held_out_loss=self.held_out_loss,
            wait_fraction=round(self.wait_fraction, 4),
            packing_efficiency=None if self.packing_efficiency is None else round(self.packing_efficiency, 4),
            tokens_per_second=round(self.tokens_per_second, 1),
        )
        return facts.flat()


def finished_key(training_digest: str) -> str:
    """Key of the note."""
    return f"{layout.training_key(training_digest)}/finished.json"


def read_finished(store: ObjectStore, training_digest: str) -> Finished | None:
    """The note of a finished training; None while it isn't."""
    try:
        return Finished.model_validate_json(store.get(finished_key(training_digest)))
    except ObjectMissing:
        return None


def finish(
    store: ObjectStore,
    config: RunConfig,
    prepared: Prepared,
    fence: Fence,
    position: Position,
    *,
    student_folder: Path,
    scratch: Path,
) -> Finished:
    """Exports the chosen weights from their checkpoint, tensor by tensor, and says that the training is finished.

    The exported model is what a checkpoint and the initial student hold, so it needs no other rank. Its precision is
    the initial student's: 16 bits stay 16 bits, everything else is float32.

    Raises
    ------
    RetryError
        Another attempt has taken the fence, or the checkpoint can't be read any more.
    """
    entry = fence.state.best if config.work.output.select == "best" else fence.state.checkpoints[-1]
    assert entry is not None, "the last held-out loss is the best one if no other is"
    manifest = _manifest(store, entry)
    key = f"{layout.training_key(prepared.training_digest)}/model"
    folder = scratch / "model"
    shutil.rmtree(folder, ignore_errors=True)
    trained = ((name, tensor) for name, kind, tensor in read_tensors(store, manifest) if kind == WEIGHT)
    weights = whole_weights(trained, config, prepared, store, student_folder=student_folder, target=folder)
    trusted = config.work.student.trust_remote_code
    digests = export_model(
        folder,
        weights,
        student_folder,
        dtype=EXPORTED.get(checkpoint_dtype(student_folder) or "", torch.float32),
        card=model_card(
            config,
            prepared,
            steps=position.step,
            exported_step=manifest.position.step,
            held_out_loss=manifest.position.held_out_loss,
        ),
        trust_remote_code=trusted,
    )
    check_export(folder, digests, trust_remote_code=trusted)
    fence.check()
    digest = store_folder(store, key, folder)
    shutil.rmtree(folder)
    finished = Finished(
        steps=position.step,
        exported_step=manifest.position.step,
        final_loss=position.loss,
        held_out_loss=manifest.position.held_out_loss,
        wait_fraction=wait_fraction(position),
        packing_efficiency=packing_efficiency(position),
        tokens_per_second=position.tokens / position.seconds if position.seconds else 0.0,
        model=key,
        model_digest=digest,
    )
    fence.check()
    store.put(finished_key(prepared.training_digest), finished.model_dump_json().encode())
    log.info("step %d is exported to %s/%s", finished.exported_step, store.uri, key)
    return finished


def _manifest(store: ObjectStore, entry: CheckpointEntry) -> CheckpointManifest:
    try:
        return read_manifest(store, entry)
    except (ObjectMissing, ObjectCorrupt) as error:
        raise RetryError(
            f"the checkpoint of step {entry.step} can't be exported ({error}).", reason="CheckpointLost"
        ) from error
