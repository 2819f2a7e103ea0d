"""Whisper's log-mel spectrogram, computed in batches on the model's device.

The values equal those of `transformers.WhisperFeatureExtractor` (Radford et al. 2022, section 2.2),
which computes one clip at a time in numpy.
"""

from functools import lru_cache

import librosa
import torch
from torch import Tensor

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.devices import to_device

N_FFT = 400  # samples: 25 ms Hann window
HOP = 160  # samples: 10 ms per mel frame
DYNAMIC_RANGE = 8.0  # log10 units: values are floored at 80 dB below the window's maximum


@lru_cache
def mel_filters(n_mels: int, device: torch.device) -> Tensor:
    """Return the Slaney-style mel filter bank, (n_mels, N_FFT // 2 + 1), float32."""
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=n_mels)
    return to_device(torch.from_numpy(filters), device)


def log_mel(waveforms: Tensor, n_mels: int) -> Tensor:
    """Compute log-mel spectrograms of waveforms of equal length.

    Each spectrogram is floored relative to its own maximum, so a clip's features do not depend on
    the rest of the batch.

    Args:
        waveforms: (batch, samples) at 16 kHz, samples a multiple of `HOP`.
        n_mels: number of mel bins.

    Returns:
        (batch, n_mels, samples / HOP) float32.
    """
    # No autocast: a power spectrum in half precision over- and underflows.
    with torch.autocast(waveforms.device.type, enabled=False):
        waveforms = waveforms.float()
        hann = torch.hann_window(N_FFT, device=waveforms.device)
        stft = torch.stft(waveforms, N_FFT, HOP, window=hann, return_complex=True)
        power = stft[..., :-1].abs().square()
        mel = mel_filters(n_mels, waveforms.device) @ power
        log = mel.clamp(min=1e-10).log10()
        floor = log.amax(dim=(1, 2), keepdim=True) - DYNAMIC_RANGE
        return (torch.maximum(log, floor) + 4.0) / 4.0
