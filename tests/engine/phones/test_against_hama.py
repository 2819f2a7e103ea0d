"""The pretrained models compute what the package `hama` computes with its own library."""

import functools
import platform
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hama import G2PModel, _engine
from hama.asr import ASRModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hearback.engine.phones import pretrained
from hearback.engine.phones.ctc import PhoneCTC
from hearback.engine.phones.weights import load_ctc, load_tokenizer
from hearback.reading.corpora import sample
from hearback.reading.corpora.sample_items import make_items

pytestmark = pytest.mark.slow

WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
# The network gets its spectrograms in float16, and the library adds up their float32 sums in
# another order: about one value of ten thousand, which lies between two of float16, is rounded up
# here and down there. Log-probabilities then differ by some 1e-3, mostly those of -20 or less.
ROUNDED = 0.02
# Of a piece of 0.25 s without such a value; most have none.
SAME = 1e-4


@pytest.fixture(scope="module", autouse=True)
def library_is_there() -> None:
    if not _engine.available():
        pytest.fail(
            f"the package hama has no library for {platform.system()} on {platform.machine()}: run "
            "these tests on Linux or macOS, or leave them out with --deselect"
        )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.download(tmp_path_factory.mktemp("assets"), log=lambda _: None)


@pytest.fixture(scope="module")
def model(directory: Path) -> PhoneCTC:
    return load_ctc(directory)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Tensor]:
    """Clips of the embedded sample, of all four tasks."""
    folder = tmp_path_factory.mktemp("sample")
    table = sample.build(folder, n_train=10, n_test=2, n_speakers=4)
    assert table["task"].nunique() == 4
    waveforms = [soundfile.read(folder / name, dtype="float32")[0] for name in table["filename"]]
    return [torch.from_numpy(waveform) for waveform in waveforms]


package_model = functools.cache(ASRModel)


def package_log_probs(waveform: Tensor) -> Tensor:
    """Return the log-probabilities of the package for one clip, (frames, 191)."""
    feeds = {"waveform": waveform.numpy()}
    return torch.from_numpy(package_model().session.run(["log_probs"], feeds)[0][0])


def log_probs_of(model: PhoneCTC, waveform: Tensor) -> Tensor:
    with torch.inference_mode():
        log_probs, n_frames = model(waveform[None], torch.tensor([len(waveform)]))
    assert n_frames.tolist() == [log_probs.shape[1]]
    return log_probs[0]


def test_the_vocabularies_are_the_same(directory: Path) -> None:
    package, ours = package_model(), load_tokenizer(directory).vocabulary
    assert list(ours.phones) == package.decoder_tokens
    assert ours.blank == package.blank_id
    assert list(ours.letters) == package.vocab.encoder


def test_log_probabilities_of_recordings_are_those_of_the_package(
    model: PhoneCTC, recordings: list[Tensor]
) -> None:
    n_samples = torch.tensor([len(waveform) for waveform in recordings])
    assert len(set(n_samples.tolist())) > 6
    with torch.inference_mode():
        batch, n_frames = model(pad_sequence(recordings, batch_first=True), n_samples)
    for waveform, padded, n in zip(recordings, batch, n_frames, strict=True):
        expected, alone = package_log_probs(waveform), log_probs_of(model, waveform)
        for found in (alone, padded[:n]):
            assert found.shape == expected.shape
            difference = (found - expected).abs()
            assert difference.max() < ROUNDED
            assert difference.median() < SAME
            assert torch.equal(found.argmax(-1), expected.argmax(-1))


def test_log_probabilities_of_short_pieces_are_the_same(
    model: PhoneCTC, recordings: list[Tensor]
) -> None:
    differences = [
        (log_probs_of(model, piece) - package_log_probs(piece)).abs().max().item()
        for waveform in recordings
        for piece in waveform[2000:].split(4000)[:4]
    ]
    assert len(differences) > 30
    assert np.quantile(differences, 0.6) < SAME
    assert max(differences) < ROUNDED


# A clip of 200 samples or fewer cannot be reflected at its end: the library reads beyond it.
@pytest.mark.parametrize("n_samples", [201, 319, 320, 321, 479, 480, 481, 640, 799, 479_999])
def test_clips_of_any_length_have_the_frames_of_the_package(
    model: PhoneCTC, n_samples: int
) -> None:
    noise = torch.randn(n_samples, generator=torch.Generator().manual_seed(n_samples)) / 10
    expected, found = package_log_probs(noise), log_probs_of(model, noise)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < ROUNDED


def test_phones_of_words_are_those_of_the_package(directory: Path) -> None:
    # Shorter than the package's 128 letters, which would be padding: much faster.
    package = G2PModel(max_input_len=16)
    texts = [item.text for item in make_items(np.random.default_rng(0))]
    words = sorted({*WORDS, *(word for text in texts for word in text.split())})
    assert len(words) > 430
    assert max(map(len, words)) <= 16
    found = load_tokenizer(directory).g2p.phones_of(words)
    for word in words:
        expected = package.predict(word)
        assert found[word] == tuple(aligned.phoneme for aligned in expected.alignments), word


def test_a_word_is_padded_as_in_the_package(directory: Path) -> None:
    words, package = load_tokenizer(directory).g2p, G2PModel()
    for word in ("cat", "it's", "supercalifragilisticexpialidocious", "각", "東京"):
        expected = tuple(aligned.phoneme for aligned in package.predict(word).alignments)
        assert words.phones(word) == expected
