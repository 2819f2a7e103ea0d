"""The recogniser of phones, with small random weights."""

import pytest
import torch
from torch import Tensor

from hearback.engine.devices import mixed_precision
from hearback.engine.phones.ctc import (
    HOP,
    SAMPLES_PER_FRAME,
    PhoneCTC,
    PhoneCTCConfig,
    count_frames,
)
from hearback.engine.phones.hama import convert_ctc
from tests.engine.phones import packages

CONFIG = PhoneCTCConfig(
    n_tokens=len(packages.PHONES) + 2,
    n_mels=packages.N_MELS,
    width=packages.WIDTH,
    n_blocks=packages.N_BLOCKS,
    ffn_width=packages.FFN_WIDTH,
    kernel=packages.KERNEL,
)
LENGTHS = [0, 1, 159, 160, 200, 201, 319, 320, 4000, 4001, 7039]


def make_model(dropout: float = 0.0) -> PhoneCTC:
    arrays = packages.ctc_arrays()
    state = convert_ctc({name: torch.from_numpy(array) for name, array in arrays.items()})
    model = PhoneCTC(PhoneCTCConfig.from_config({**CONFIG.as_dict(), "dropout": dropout}))
    model.load_state_dict(state)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> PhoneCTC:
    return make_model()


def clip(n_samples: int) -> Tensor:
    return torch.randn(n_samples, generator=torch.Generator().manual_seed(n_samples)) / 10


def alone(model: PhoneCTC, waveform: Tensor) -> Tensor:
    with torch.inference_mode():
        log_probs, n_frames = model(waveform[None], torch.tensor([len(waveform)]))
    assert n_frames.tolist() == [log_probs.shape[1]]
    return log_probs[0]


def test_a_clip_gets_the_same_alone_and_in_a_padded_batch(model: PhoneCTC) -> None:
    clips = [clip(n_samples) for n_samples in LENGTHS]
    # What is behind a clip's end must not matter, not even if it is no number.
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=torch.nan)
    with torch.inference_mode():
        log_probs, n_frames = model(batch, torch.tensor(LENGTHS))
    assert log_probs.dtype == torch.float32
    assert torch.equal(n_frames, count_frames(torch.tensor(LENGTHS)))
    for waveform, row, n in zip(clips, log_probs, n_frames, strict=True):
        own = alone(model, waveform)
        assert own.shape == (n, CONFIG.n_tokens)
        assert own.isfinite().all()
        torch.testing.assert_close(row[:n], own, atol=1e-5, rtol=0)


def test_a_frame_is_20_ms() -> None:
    seconds = torch.tensor([0, 1, 10])
    assert (count_frames(seconds * 16_000) == torch.tensor([1, 51, 501])).all()
    assert SAMPLES_PER_FRAME == 2 * HOP == 320


def test_log_probabilities_sum_to_one_and_are_projected_hidden_states(model: PhoneCTC) -> None:
    waveform, n_samples = clip(5000)[None], torch.tensor([5000])
    with torch.inference_mode():
        hidden, n_frames = model.encode(waveform, n_samples)
        log_probs, _ = model(waveform, n_samples)
        assert torch.equal(model.project(hidden), log_probs)
    assert hidden.shape == (1, int(n_frames), CONFIG.width)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, int(n_frames)))


def test_the_spectrogram_of_silence_is_its_floor_and_zero_behind_the_end(model: PhoneCTC) -> None:
    mel, n_mel_frames = model.log_mel(torch.zeros(2, 1600), torch.tensor([1600, 480]))
    assert n_mel_frames.tolist() == [11, 4]
    floor = torch.tensor(1e-10).log().half().float()
    assert (mel[0] == floor).all()
    assert (mel[1, :4] == floor).all()
    assert (mel[1, 4:] == 0).all()


def test_a_tone_is_in_the_bin_of_its_frequency() -> None:
    model = make_model()
    model.mel_filters.copy_(torch.eye(201)[:, [25, 50, 100, 150, 190, 200]])
    tone = torch.sin(2 * torch.pi * 2000 * torch.arange(8000) / 16_000)  # bins of 40 Hz
    mel, _ = model.log_mel(tone[None], torch.tensor([8000]))
    inner = mel[0, 2:-2]
    assert (inner.argmax(-1) == 1).all()
    # The square of half the sum of a Hann window of 400 samples.
    torch.testing.assert_close(
        inner[:, 1], torch.full((47,), 100.0).square().log(), atol=0.01, rtol=0
    )


def test_half_precision_is_near_and_float32_at_the_end(model: PhoneCTC) -> None:
    waveform, n_samples = clip(6000)[None], torch.tensor([6000])
    device = torch.device("cpu")
    with torch.inference_mode(), mixed_precision(device, torch.bfloat16):
        log_probs, _ = model(waveform, n_samples)
        mel, _ = model.log_mel(waveform, n_samples)
    assert log_probs.dtype == torch.float32
    assert torch.equal(mel, model.log_mel(waveform, n_samples)[0])
    torch.testing.assert_close(log_probs[0], alone(model, waveform[0]), atol=0.3, rtol=0)


def ctc_loss(model: PhoneCTC) -> Tensor:
    waveforms, n_samples = torch.stack([clip(4000), clip(4000)]), torch.tensor([4000, 2500])
    log_probs, n_frames = model(waveforms, n_samples)
    targets = torch.tensor([[4, 5, 6], [7, 4, 0]])
    blank = CONFIG.n_tokens - 1
    return torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), targets, n_frames, torch.tensor([3, 2]), blank=blank
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_weights_but_the_filters_are_trained(dtype: torch.dtype) -> None:
    model = make_model(dropout=0.1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        torch.manual_seed(0)
        with mixed_precision(torch.device("cpu"), dtype):
            loss = ctc_loss(model)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.count_nonzero() > 0, name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not any(parameter is model.mel_filters for parameter in model.parameters())
    assert "mel_filters" in model.state_dict()


def test_dropout_is_of_training_only() -> None:
    model = make_model(dropout=0.5)
    waveform, n_samples = clip(3000)[None], torch.tensor([3000])
    torch.testing.assert_close(model(waveform, n_samples)[0][0], alone(make_model(), waveform[0]))
    model.train()
    assert not torch.equal(model(waveform, n_samples)[0], model(waveform, n_samples)[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n_heads": 3}, "width 8 is no multiple of n_heads 3"),
        ({"n_heads": 0}, "no multiple of n_heads 0"),
        ({"kernel": 4}, "kernel is 4, not odd"),
        ({"width": 8.5}, "width is '8.5'"),
        ({"n_blocks": True}, "n_blocks is 'True'"),
        ({"dropout": "0.1"}, "dropout is '0.1'"),
        ({"layers": 3}, "unknown layers"),
    ],
)
def test_invalid_sizes_are_errors(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PhoneCTCConfig.from_config({**CONFIG.as_dict(), **change})
    assert PhoneCTCConfig.from_config(CONFIG.as_dict()) == CONFIG
