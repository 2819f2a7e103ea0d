"""Where a turn's time goes: Python's profiler, its functions gathered under a few names.

Both sides are profiled alike and neither knows of it. The profiler slows Python down, not what
Python calls: take the shares as good to a few per cent.
"""

import contextlib
import cProfile
import io
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType

import librosa
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as PublicEncoder

from benchmarks import baseline
from hearback.engine.audio.log_mel import log_mel
from hearback.engine.audio.store import Store
from hearback.engine.whisper.encoder import EncoderLayer, WhisperEncoder
from hearback.reading.augment import Augmentation
from hearback.reading.references import References
from hearback.reading.window_batches import collate

# No function of a name is called by another one of the table, but for augmentation, whose effects
# are listed besides.
STAGES: Mapping[str, tuple[Callable, ...]] = {
    "reading": (Store.get, References.waveform, librosa.load),
    "augmentation": (Augmentation.apply, baseline.augment),
    "features": (log_mel, WhisperFeatureExtractor.__call__),
    "batches": (collate, torch.utils.data.default_collate),
    # Inference calls the parts of ours one by one.
    "encoder forward": (WhisperEncoder.stem, EncoderLayer.forward, PublicEncoder.forward),
    "backward": (torch.Tensor.backward,),
    "optimiser": (
        torch.optim.AdamW.step,
        torch.nn.utils.clip_grad_norm_,
        torch.optim.Optimizer.zero_grad,
    ),
}
EFFECTS: Mapping[str, tuple[Callable, ...]] = {  # of the baseline; ours are one computation
    "pitch": (librosa.effects.pitch_shift,),
    "stretch": (librosa.effects.time_stretch,),
    "envelope": (baseline.warp_envelope,),
}


def describe(run: Callable[[], float]) -> str:
    """Run once, in silence, and return the shares in words: "12 % reading, 60 % …"."""
    shares = measure(run, {**STAGES, **EFFECTS})
    stages = {name: share for name, share in shares.items() if name in STAGES}
    stages["the rest"] = 1 - sum(stages.values())
    words = [_words(stages)]
    if effects := {name: share for name, share in shares.items() if name in EFFECTS}:
        words.append(f"of augmentation: {_words(effects)}")
    return "; ".join(words)


def measure(
    run: Callable[[], float], stages: Mapping[str, tuple[Callable, ...]]
) -> dict[str, float]:
    """Run once and return the share of the time that was spent in functions, by stage, if any."""
    profiler = cProfile.Profile()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        profiler.runcall(run)
    entries = profiler.getstats()
    whole = max(entry.totaltime for entry in entries)
    seconds: dict[str, float] = {}
    codes = {code: name for name, several in stages.items() for code in map(_code, several)}
    for entry in entries:
        if name := codes.get(entry.code):
            seconds[name] = seconds.get(name, 0.0) + entry.totaltime
    return {name: seconds[name] / whole for name in stages if seconds.get(name)}


def _words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in shares.items())


def _code(function: Callable) -> CodeType | str:
    """Return what the profiler knows a function by."""
    while hasattr(function, "__wrapped__"):  # the wrapper's code is shared by all that it wraps
        function = function.__wrapped__
    return function.__code__ if isinstance(function, FunctionType) else repr(function)
