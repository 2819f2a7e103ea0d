"""What the check needs and this machine lacks, found before any section starts."""

import importlib.util
from collections.abc import Sequence

from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.sections import INPUTS, Section
from benchmarks.gpu_check.setting import PHONES, Setting, check_device
from hearback.engine.errors import HearbackError
from hearback.engine.phones.layout import command

# By imported name: what a GPU machine's own Python must have beside torch, and what
# `make gpu-files` brings (requirements/gpu.txt).
MACHINE_MODULES = (
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "safetensors",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "onnxruntime",
    "numba",
    "filelock",
    "jinja2",
    "tensorboard",
    "tqdm",
)
WHEEL_MODULES = (
    "librosa",
    "soundfile",
    "soxr",
    "pyworld",
    "ftfy",
    "wcwidth",
    "num2words",
    "rapidfuzz",
    "hibari",
)


def find_missing(setting: Setting, sections: Sequence[Section]) -> list[str]:
    """Return a sentence with its cure for each thing that the sections need and is not there."""
    missing = []
    try:
        check_device(setting.device)
    except HearbackError as error:
        missing.append(str(error))
    if modules := _not_installed(MACHINE_MODULES):
        missing.append(f"no package {', '.join(modules)}: install it in this Python")
    folders = ", ".join(map(str, setting.weights))
    bring = "make gpu-files, where there is a network, and bring the folder gpu/"
    if modules := _not_installed(WHEEL_MODULES):
        missing.append(f"no package {', '.join(modules)}: {bring}")
    for name in dict.fromkeys(name for section in sections for name in section.weights):
        if setting.find_weights(name) is None:
            own = (
                f"{command(setting.weights[0])}, or " if name == PHONES and setting.weights else ""
            )
            missing.append(f"{name} is in no folder of weights ({folders}): {own}{bring}")
    if INPUTS not in sections and not _has_inputs(setting):
        missing.append(f"{setting.work} has not all inputs: run with --only {INPUTS.name} first")
    return missing


def report_of(missing: Sequence[str]) -> str:
    """Return the report of what is missing, a line each."""
    return "\n".join(["Nothing was run, for want of:", *(f"- {each}" for each in missing)])


def _not_installed(modules: Sequence[str]) -> list[str]:
    """Return those of some modules that this Python cannot import; none is imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _has_inputs(setting: Setting) -> bool:
    """Return whether the section of inputs has written all of them, in an earlier run."""
    return Record.load(setting.work / f"{INPUTS.name}.json").passed
