"""`auto` precision on every kind of machine."""

from pathlib import Path

import pytest

from distill_runtime.precision import checkpoint_dtype, processor_flags, resolve_precision

AMX, AVX, OLD = {"avx2", "amx_bf16"}, {"avx512f", "avx512_bf16"}, {"avx2", "fma"}


@pytest.mark.parametrize(
    ("requested", "checkpoint", "gpus", "flags", "resolved"),
    [
        ("auto", "bfloat16", 1, OLD, "bfloat16"),
        ("auto", "float16", 8, OLD, "float16"),
        ("auto", "float32", 1, OLD, "float32"),
        ("auto", "float8_e4m3fn", 1, OLD, "bfloat16"),
        ("auto", None, 1, OLD, "bfloat16"),
        ("auto", "bfloat16", 0, OLD, "float32"),
        ("auto", "float16", 0, OLD, "float32"),
        ("auto", "float16", 0, AMX, "bfloat16"),
        ("auto", "float32", 0, AVX, "bfloat16"),
        ("auto", "bfloat16", 0, {"asimd", "bf16"}, "bfloat16"),
        ("auto", "bfloat16", 0, set(), "float32"),
        ("float32", "bfloat16", 1, AMX, "float32"),
        ("bfloat16", "float32", 0, OLD, "bfloat16"),
        ("float16", "float32", 1, OLD, "float16"),
    ],
)
def test_precision(requested, checkpoint, gpus, flags, resolved) -> None:
    assert resolve_precision(requested, checkpoint_dtype=checkpoint, gpus=gpus, flags=flags) == resolved


def test_the_processors_flags_are_read(tmp_path: Path) -> None:
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text("processor\t: 0\nmodel name\t: X\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\n")
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert processor_flags(x86) == {"fpu", "avx2", "avx512_bf16"}
    assert processor_flags(arm) == {"fp", "asimd", "bf16"}
    assert processor_flags(tmp_path / "missing") == frozenset()


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ('{"torch_dtype": "bfloat16"}', "bfloat16"),
        ('{"dtype": "torch.float16"}', "float16"),
        ('{"text_config": {"dtype": "bfloat16"}}', "bfloat16"),
        ("{}", None),
    ],
)
def test_the_checkpoints_precision_is_read(tmp_path: Path, config: str, dtype: str | None) -> None:
    (tmp_path / "config.json").write_text(config)
    assert checkpoint_dtype(tmp_path) == dtype
