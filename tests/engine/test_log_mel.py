"""The log-mel spectrogram equals that of Transformers."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from hearback.engine.audio.log_mel import SAMPLE_RATE, log_mel


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_equals_the_feature_extractor_of_transformers(n_mels: int) -> None:
    rng = np.random.default_rng(0)
    clip = (rng.normal(0, 0.1, 5 * SAMPLE_RATE) * np.hanning(5 * SAMPLE_RATE)).astype(np.float32)
    extractor = WhisperFeatureExtractor(feature_size=n_mels, chunk_length=16)
    theirs = extractor(clip, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_features"]
    padded = torch.zeros(1, 16 * SAMPLE_RATE)
    padded[0, : len(clip)] = torch.from_numpy(clip)
    ours = log_mel(padded, n_mels)
    assert ours.shape == theirs.shape == (1, n_mels, 1600)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_a_clip_s_features_do_not_depend_on_its_batch() -> None:
    quiet, loud = torch.randn(2, 6400) * torch.tensor([[0.001], [1.0]])
    together = log_mel(torch.stack([quiet, loud]), 80)
    torch.testing.assert_close(together[0], log_mel(quiet[None], 80)[0], atol=1e-5, rtol=0)


def test_silence_is_finite() -> None:
    assert torch.isfinite(log_mel(torch.zeros(1, 3200), 80)).all()


def test_log_mel_stays_in_float32_under_autocast() -> None:
    waveform = torch.randn(1, 3200) * 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = log_mel(waveform, 80)
    torch.testing.assert_close(half, log_mel(waveform, 80), atol=0, rtol=0)
