import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.engine.training.task import FoldRun
from hearback.engine.whisper.encoder import WhisperEncoder
from hearback.engine.whisper.low_rank import LowRankLinear
from hearback.reading import encoded, training
from hearback.reading.augment import Augmentation
from hearback.reading.inference import model_group
from hearback.reading.inference.batch_plan import batch_seconds, plan_batches
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.model_group import load_model_groups
from hearback.reading.inference.predict import collect
from hearback.reading.joined_clips import draw_fixed
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.training import ReadingTask
from hearback.reading.window_batches import Batch, pad_waveforms, window_samples
from tests.reading.quick_recipes import QUICK_LOW

pytestmark = pytest.mark.usefixtures("letters_as_sounds")
JOINED = replace(QUICK_LOW, joined_clips=0.5)


def make_task(options: TrainingOptions, fold: int = 0, recipe: Recipe = QUICK_LOW) -> ReadingTask:
    run = FoldRun(options.adapt(recipe), fold, options, options.load_data())
    return ReadingTask(run)


def count_encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of clips of every batch that an encoder encodes."""
    counts: list[int] = []
    forward = WhisperEncoder.forward

    def counted(self: WhisperEncoder, log_mel: torch.Tensor) -> torch.Tensor:
        counts.append(len(log_mel))
        return forward(self, log_mel)

    monkeypatch.setattr(WhisperEncoder, "forward", counted)
    return counts


def test_a_version_holds_what_the_encoder_gives(options: TrainingOptions) -> None:
    task = make_task(options)
    model = task.build_model()
    rows = [0, 5, 7]

    def frames(model: Any, batch: Batch) -> torch.Tensor:
        return model.encode(batch).mean(1)

    expected, actual = (
        collect(model, source, rows, frames, device=torch.device("cpu"), dtype=torch.float32)
        for source in (task.data.source, task.source)
    )
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert task.source.encoded is not None
    first, second = (task.source.encoded.get(5, version).frames for version in (1, 2))
    assert first.shape != second.shape or not np.allclose(first, second)


def test_folds_encode_each_recording_once(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_encodings(monkeypatch)
    data = options.load_data()
    for fold in (0, 1):
        training.train_fold(QUICK_LOW, fold, options, data)
    assert sum(counts) == len(data.filenames) * (1 + QUICK_LOW.n_augmented)


def test_a_stopped_build_goes_on_with_the_next_version(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = encoded._build

    def fail(encoder: Any, waveforms: Any, path: Path, **rest: Any) -> None:
        if path.stem.endswith("_1"):
            raise KeyboardInterrupt
        build(encoder, waveforms, path, **rest)

    monkeypatch.setattr(encoded, "_build", fail)
    with pytest.raises(KeyboardInterrupt):
        make_task(options).build_model()
    monkeypatch.setattr(encoded, "_build", build)
    counts = count_encodings(monkeypatch)
    task = make_task(options)
    task.build_model()
    assert sum(counts) == len(task.data.filenames) * QUICK_LOW.n_augmented


def test_joined_clips_are_encoded_as_one_recording(options: TrainingOptions) -> None:
    recipe = replace(JOINED, augment_learner=Augmentation(gain=1.0, gain_low=0.5, gain_high=0.5))
    task = make_task(options, recipe=recipe)
    model, joined = task.build_model(), draw_fixed(recipe, task.data)
    assert isinstance(model, TokenScorer) and task.source.encoded is not None
    assert len(joined) == 18
    for clips in joined[:3]:
        waveform = 0.5 * clips.waveform(task.data.source.learner)
        window = pad_waveforms([waveform], window_samples(len(waveform), "trimmed", 0.64))
        expected = model.encoder(log_mel(window, 80))[0].detach()
        for version in (1, 2):
            encoding = task.source.encoded.get(clips, version)
            np.testing.assert_allclose(encoding.frames, expected, atol=1e-2)
            assert encoding.n_frames == -(-len(waveform) // 320)


def test_joined_clips_are_encoded_once_and_nothing_else_again(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_task(options).build_model()
    before = {path: path.read_bytes() for path in options.store.glob("encoded/*/*")}
    counts = count_encodings(monkeypatch)
    for fold in (0, 1):
        make_task(options, fold, JOINED).build_model()
    assert sum(counts) == 18 * JOINED.n_augmented
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(options.store.glob("encoded/*"))) == 2
    more = make_task(options, recipe=replace(JOINED, joined_clips=1.0))
    more.build_model()
    assert sum(counts) == (18 + 36) * JOINED.n_augmented


def test_a_stopped_build_of_joined_clips_goes_on(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_task(options, recipe=JOINED).build_model()
    joined = min(options.store.glob("encoded/*"), key=lambda folder: len(list(folder.iterdir())))
    assert not (joined / "version_0.json").exists()  # only augmented versions
    (joined / "version_2.json").unlink()
    counts = count_encodings(monkeypatch)
    make_task(options, recipe=JOINED).build_model()
    assert sum(counts) == 18


def test_a_damaged_file_is_an_error(options: TrainingOptions) -> None:
    make_task(options).build_model()
    (path,) = options.store.glob("encoded/*/version_1.f16")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HearbackError, match=r"version_1\.f16.*delete"):
        make_task(options).build_model()


def test_a_fold_holds_its_updates_and_its_head(options: TrainingOptions) -> None:
    metadata = training.train_fold(QUICK_LOW, 0, options, options.load_data())
    files = FoldFiles(options.assets, QUICK_LOW.name, 0)
    own = load_file(files.weights)
    assert {name.rpartition(".")[2] for name in own if name.startswith("decoder.")} == {
        "up",
        "down",
    }
    assert not [name for name in own if name.startswith("encoder.")]
    for part in ("encoder", "decoder"):
        assert (options.assets / metadata[part]["file"]).exists()


def test_another_backbone_is_refused(options: TrainingOptions) -> None:
    metadata = training.train_fold(QUICK_LOW, 0, options, options.load_data())
    path = options.assets / metadata["decoder"]["file"]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(HearbackError, match=r"not the file that modeltoklow_0\.json"):
        training.load.load_scorer(FoldFiles(options.assets, QUICK_LOW.name, 0), metadata)
    path.unlink()
    with pytest.raises(HearbackError, match="missing"):
        training.load.load_scorer(FoldFiles(options.assets, QUICK_LOW.name, 0), metadata)


def test_folds_are_decoded_together(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = options.load_data()
    for fold in (0, 1, 2):
        training.train_fold(QUICK_LOW, fold, options, data)
    scores = score_folds(options, data.source)
    joint = model_group.decode_jointly
    calls: list[int] = []

    def recorded(models: Any, batch: Batch) -> Any:
        calls.append(len(models))
        return joint(models, batch)

    monkeypatch.setattr(model_group, "decode_jointly", recorded)
    assert np.array_equal(score_folds(options, data.source), scores)
    assert set(calls) == {3}
    monkeypatch.setattr(model_group, "joint_key", lambda *_: "")
    alone = score_folds(options, data.source)
    np.testing.assert_allclose(scores, alone, atol=1e-4)
    assert np.ptp(alone, axis=0).min() > 1e-3  # the folds differ


def score_folds(options: TrainingOptions, source: PairSource) -> np.ndarray:
    """Return the three folds' scores, (folds, rows), of one pass over the recordings."""
    cpu, float32 = torch.device("cpu"), torch.float32
    folds = []
    for number in range(3):
        files = FoldFiles(options.assets, QUICK_LOW.name, number)
        folds.append(EnsembleFold(0, files, read_fold_metadata(files)))
    rows = np.arange(len(source))
    plan = plan_batches(source, rows, folds[0].recipe, batch_seconds(cpu))
    scores = np.empty((3, len(source)))
    for group, _ in load_model_groups(folds, cpu, float32, 1e9):
        for batch in group.run(source, rows, plan, lambda model, batch: model(batch).sigmoid()):
            for number, values in batch.values.items():
                scores[number, batch.indices] = values
    return scores


def test_a_share_of_the_decoder_has_updates_the_upper_layers(options: TrainingOptions) -> None:
    recipe = options.adapt(replace(QUICK_LOW, adapted_share=0.5))
    model = ReadingTask(FoldRun(recipe, 0, options, options.load_data())).build_model()
    assert isinstance(model, TokenScorer)
    adapted = {
        name.split(".")[1]
        for name, module in model.decoder.named_modules()
        if isinstance(module, LowRankLinear)
    }
    assert adapted == {"1"}  # of two
    trained = [name for name, each in model.decoder.named_parameters() if each.requires_grad]
    assert trained and all(name.endswith((".up", ".down")) for name in trained)


def test_processes_that_load_examples_map_the_files_themselves(options: TrainingOptions) -> None:
    task = ReadingTask(FoldRun(options.adapt(QUICK_LOW), 0, options, options.load_data()))
    task.build_model()
    encoded = task.source.encoded
    assert encoded is not None
    pickled = pickle.dumps(encoded)
    assert len(pickled) < 2000  # paths
    copied, row = pickle.loads(pickled), 3
    assert np.array_equal(copied.get(row, 1).frames, encoded.get(row, 1).frames)
