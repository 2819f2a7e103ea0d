"""How much of a long recording is read."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hearback.engine.audio.decode import SAMPLE_RATE, decode


@pytest.fixture
def minute(tmp_path: Path) -> Path:
    path = tmp_path / "minute.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 60 * SAMPLE_RATE), SAMPLE_RATE)
    return path


def test_the_first_30_s_are_read(minute: Path) -> None:
    recording = decode(minute)
    assert len(recording.waveform) == 30 * SAMPLE_RATE
    assert recording.notes == ("60 s long, only the first 30 s are kept",)


@pytest.mark.parametrize(("kept_seconds", "seconds"), [(600.0, 60), (45.0, 45)])
def test_as_much_is_read_as_is_asked_for(minute: Path, kept_seconds: float, seconds: int) -> None:
    recording = decode(minute, kept_seconds=kept_seconds)
    assert len(recording.waveform) == seconds * SAMPLE_RATE
    notes = () if seconds == 60 else ("60 s long, only the first 45 s are kept",)
    assert recording.notes == notes
    np.testing.assert_array_equal(recording.waveform[: 30 * SAMPLE_RATE], decode(minute).waveform)
