"""The shares of a turn's time by stage, with Python's profiler.

The profiler slows down Python code but not native code, so the shares have errors of a few per
cent.
"""

import cProfile
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType

import librosa
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as PublicEncoder

from benchmarks import baseline
from benchmarks.harness import silence
from hearback.engine.audio.log_mel import log_mel
from hearback.engine.audio.store import Store
from hearback.engine.whisper.encoder import EncoderLayer, WhisperEncoder
from hearback.reading.augment import Augmentation
from hearback.reading.references import References
from hearback.reading.window_batches import collate

# The functions do not call each other, except that augmentation calls the effects listed below.
STAGES: Mapping[str, tuple[Callable, ...]] = {
    "reading": (Store.get, References.waveform, librosa.load),
    "augmentation": (Augmentation.apply, baseline.augment),
    "features": (log_mel, WhisperFeatureExtractor.__call__),
    "batches": (collate, torch.utils.data.default_collate),
    # Our inference calls the encoder's parts separately.
    "encoder forward": (WhisperEncoder.stem, EncoderLayer.forward, PublicEncoder.forward),
    "backward": (torch.Tensor.backward,),
    "optimiser": (
        torch.optim.AdamW.step,
        torch.nn.utils.clip_grad_norm_,
        torch.optim.Optimizer.zero_grad,
    ),
}
EFFECTS: Mapping[str, tuple[Callable, ...]] = {  # of the baseline; ours are computed together
    "pitch": (librosa.effects.pitch_shift,),
    "stretch": (librosa.effects.time_stretch,),
    "envelope": (baseline.warp_envelope,),
}


def describe(run: Callable[[], float]) -> str:
    """Run once, without output, and return the shares as text: "12% reading, 60% …"."""
    shares = measure_shares(run, {**STAGES, **EFFECTS})
    stages = {name: share for name, share in shares.items() if name in STAGES}
    stages["the rest"] = 1 - sum(stages.values())
    words = [_words(stages)]
    if effects := {name: share for name, share in shares.items() if name in EFFECTS}:
        words.append(f"of augmentation: {_words(effects)}")
    return "; ".join(words)


def measure_shares(
    run: Callable[[], float], stages: Mapping[str, tuple[Callable, ...]]
) -> dict[str, float]:
    """Run once and return the share of the time in each stage that was called."""
    profiler = cProfile.Profile()
    with silence():
        profiler.runcall(run)
    entries = profiler.getstats()
    total = max(entry.totaltime for entry in entries)
    seconds: dict[str, float] = {}
    codes = {code: name for name, functions in stages.items() for code in map(_code, functions)}
    for entry in entries:
        if name := codes.get(entry.code):
            seconds[name] = seconds.get(name, 0.0) + entry.totaltime
    return {name: seconds[name] / total for name in stages if seconds.get(name)}


def _words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in shares.items())


def _code(function: Callable) -> CodeType | str:
    """Return the profiler's key of a function."""
    while hasattr(function, "__wrapped__"):  # several functions may share a wrapper's code
        function = function.__wrapped__
    return function.__code__ if isinstance(function, FunctionType) else repr(function)
