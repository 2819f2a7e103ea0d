"""Whisper's log-mel spectrogram, computed in batches on the device that the model is on.

The numbers equal `transformers.WhisperFeatureExtractor`'s (Radford et al. 2022, section 2.2), which
works in numpy, one clip after the other.
"""

from functools import lru_cache

import librosa
import torch
from torch import Tensor

from hearback.engine.audio.decode import SAMPLE_RATE

N_FFT = 400  # samples: a 25 ms Hann window
HOP = 160  # samples: 10 ms a mel frame
DYNAMIC_RANGE = 8.0  # in log10 units: what is 80 dB below the window's maximum is floored


@lru_cache
def mel_filters(n_mels: int, device: torch.device) -> Tensor:
    """Return the Slaney-style mel filter bank, (n_mels, N_FFT // 2 + 1), float32."""
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=n_mels)
    return torch.from_numpy(filters).to(device)


def log_mel(waveforms: Tensor, n_mels: int) -> Tensor:
    """Compute log-mel spectrograms of equally long waveforms.

    `waveforms` is (batch, samples) at 16 kHz with samples a multiple of `HOP`; the result is
    (batch, n_mels, samples / HOP), float32. Each spectrogram is floored against its own maximum, so
    a clip's features do not depend on the others in the batch.
    """
    # Mixed precision must not reach the FFT: a half-precision power spectrum over- and underflows.
    with torch.autocast(waveforms.device.type, enabled=False):
        waveforms = waveforms.float()
        hann = torch.hann_window(N_FFT, device=waveforms.device)
        stft = torch.stft(waveforms, N_FFT, HOP, window=hann, return_complex=True)
        power = stft[..., :-1].abs().square()
        mel = mel_filters(n_mels, waveforms.device) @ power
        log = mel.clamp(min=1e-10).log10()
        floor = log.amax(dim=(1, 2), keepdim=True) - DYNAMIC_RANGE
        return (torch.maximum(log, floor) + 4.0) / 4.0
