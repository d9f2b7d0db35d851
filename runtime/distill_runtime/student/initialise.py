"""The student before training, where it isn't a pretrained model: layers of the teacher, or random weights.

Made once, as a Hugging Face folder; made again from the same, it has the same bytes. `prepare.addresses` names it by
what goes in: raise the version there when the same inputs would give another student.
"""

import logging
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from distill_runtime.contract.sections import Initialise, RandomWeights, TeacherLayers
from distill_runtime.errors import UserError
from distill_runtime.locations import local_path
from distill_runtime.models import CONFIG
from distill_runtime.student import layers
from distill_runtime.student.folder import ShardWriter, copy_companions, read_json, weight_files, write_json
from distill_runtime.student.neurons import KeptNeurons, narrow_configuration

log = logging.getLogger(__name__)


def make_initial_student(
    initialise: Initialise,
    teacher_folder: Path,
    target: Path,
    *,
    neurons: KeptNeurons | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Writes the student before training to `target`, a folder that is new or empty.

    Layers of the teacher are copied tensor by tensor, in the checkpoint's precision: no more than one file of the
    result is in memory. Random weights are made whole in memory.

    Parameters
    ----------
    initialise
        For `fromConfig` its `config` is on this machine already (`file://`), a file or the folder of `config.json`.
        For `fromTeacher` the layers are named: what `byInfluence` chose is in `layers`.
    teacher_folder
        The teacher's Hugging Face folder. Tokenizer, chat template and generation settings come from it.
    neurons
        What `fromTeacher.neurons` chose, of the layers that are kept; None where it isn't given.

    Raises
    ------
    UserError
        The teacher doesn't have such layers, its family isn't understood, or the configuration doesn't fit.
    ValueError
        `target` isn't empty.
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ValueError(f"{target} is not empty")
    if initialise.from_teacher is not None:
        _copy_layers(initialise.from_teacher, neurons, teacher_folder, target, trust_remote_code)
        copy_companions(teacher_folder, target)
        return
    assert initialise.from_config is not None
    _make_random(initialise.from_config, teacher_folder, target, trust_remote_code)
    copy_companions(teacher_folder, target)


def _copy_layers(
    wanted: TeacherLayers, neurons: KeptNeurons | None, teacher_folder: Path, target: Path, trust_remote_code: bool
) -> None:
    teacher = AutoConfig.from_pretrained(teacher_folder, trust_remote_code=trust_remote_code)
    layers.check_not_quantised(teacher)
    count = layers.layer_count(teacher)
    kept = layers.kept_layers(wanted, count)
    student = layers.cut_configuration(teacher, kept)
    layers.check_layers_alike(teacher, student, kept, trust_remote_code=trust_remote_code)
    files = weight_files(teacher_folder)
    names = layers.layer_names(_tensor_names(files), count, kept, teacher.model_type)
    with ShardWriter(target) as writer:
        for path in files:
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    if (renamed := names.renamed(name)) is not None:
                        writer.add(renamed, _narrowed(neurons, names.place(name), file.get_tensor(name)))
    if neurons is not None:
        narrow_configuration(student, neurons.keep)
    _write_configuration(student, target)
    log.info("the student has layers %s of the teacher's %d", ", ".join(map(str, kept)), count)


def _narrowed(neurons: KeptNeurons | None, place: tuple[int, str] | None, tensor: torch.Tensor) -> torch.Tensor:
    if neurons is None or place is None:
        return tensor
    layer, inside = place
    return neurons.cut(layer, inside, tensor)


def _tensor_names(files: list[Path]) -> list[str]:
    names: list[str] = []
    for path in files:
        with safe_open(path, framework="pt") as file:
            names += file.keys()
    return names


def _make_random(wanted: RandomWeights, teacher_folder: Path, target: Path, trust_remote_code: bool) -> None:
    config = _read_configuration(local_path(wanted.config), trust_remote_code)
    words = len(AutoTokenizer.from_pretrained(teacher_folder, trust_remote_code=trust_remote_code))
    vocabulary = config.get_text_config().vocab_size
    if vocabulary < words:
        raise UserError(
            f"spec.student.initialise.fromConfig.config: vocab_size is {vocabulary}, but the teacher's tokenizer has "
            f"{words} tokens: set vocab_size to {words} or more.",
            reason="VocabularyTooSmall",
        )
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    buffers = model.state_dict().keys() - dict(model.named_parameters(remove_duplicate=False)).keys()
    with ShardWriter(target) as writer:
        # Tied weights are one parameter, and appear once; so transformers expects them.
        for name, parameter in model.named_parameters():
            writer.add(name, parameter)
        for name in sorted(buffers):
            writer.add(name, model.state_dict()[name])
    _write_configuration(config, target)


def _read_configuration(path: Path, trust_remote_code: bool) -> PreTrainedConfig:
    file = path / CONFIG if path.is_dir() else path
    field = "spec.student.initialise.fromConfig.config"
    try:
        document = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{field}: {file} can't be read as JSON ({error}).", reason="BadConfiguration") from error
    if "model_type" not in document:
        raise UserError(
            f"{field}: {file} has no model_type: give a config.json of transformers.", reason="BadConfiguration"
        )
    try:
        return AutoConfig.from_pretrained(
            file.parent if file.name == CONFIG else file, trust_remote_code=trust_remote_code
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"{field}: transformers refuses {file}: {error}", reason="BadConfiguration") from error


def _write_configuration(config: PreTrainedConfig, target: Path) -> None:
    config.save_pretrained(target)
    write_json(target / CONFIG, read_json(target / CONFIG))
