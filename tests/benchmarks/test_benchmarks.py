"""benchmarks/: both sides do the same work, and reports match measurements; no timing is tested."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__, baseline, cases, clips, flops, harness, profiles
from benchmarks import ours as our_side
from benchmarks import setting as setting_module
from benchmarks.clips import Clips
from benchmarks.harness import Result, Side, Turn
from benchmarks.setting import Setting, Sizes
from hearback.engine.ensemble.stacking import fit_probability_weights, mean_log_loss
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.whisper.encoder import N_POSITIONS, EncoderConfig, WhisperEncoder
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.augment import Augmentation
from hearback.reading.models.scorers import JoinedScorer
from hearback.reading.window_batches import Batch
from tests.conftest import TINY
from train_model2ds import RECIPE

CPU = torch.device("cpu")
N_CLIPS = 7
SIZES = Sizes(
    n_train=N_CLIPS,
    n_shares=2,
    n_infer=N_CLIPS,
    n_load=N_CLIPS,
    n_both_padded=3,
    n_gpu=N_CLIPS,
    n_rows=500,
    n_weights=3,
)
SMALL = EncoderConfig(
    d_model=64, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=192, num_mel_bins=80
)
FIELDS = {"ratio", "low", "high", "ours", "baseline", "unit"}


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the measurement of the machine's peak rate."""
    monkeypatch.setattr(flops, "PRODUCT_SIZE", {"cpu": 64, "cuda": 64})
    monkeypatch.setattr(setting_module, "PRODUCT_SECONDS", 0.0)
    monkeypatch.setattr(cases, "SEARCH_SECONDS", 0.0)


@pytest.fixture
def setting(make_corpus: Callable[..., Path], backbone: Path, tmp_path: Path) -> Setting:
    folder = make_corpus(n_train=12, n_test=0)
    return Setting(
        data=folder / "data",
        tts_data=folder / "tts_data",
        store=folder / "store",
        backbone=backbone,
        work=tmp_path / "work",
        n_rounds=2,
        clock="cpu",
        precision="float32",
        sizes=SIZES,
    )


@pytest.fixture
def some(setting: Setting) -> Clips:
    return clips.load(setting.data, setting.tts_data, setting.store, N_CLIPS)


def run_program(
    monkeypatch: pytest.MonkeyPatch, setting: Setting, results: Path, *flags: str
) -> dict[str, Any]:
    folders = {"data": setting.data, "tts_data": setting.tts_data, "store": setting.store}
    given = {**folders, "backbone": setting.backbone, "work": setting.work, "results": results}
    command = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    command += ["--quick", "--clips", str(N_CLIPS), "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *command, "--clock", "cpu", *flags])
    monkeypatch.setattr(__main__, "QUICK", SIZES)
    __main__.main()
    return json.loads(results.read_text())


@pytest.mark.slow
def test_every_cpu_benchmark_writes_its_result_and_gpu_ones_are_skipped(
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    results = run_program(monkeypatch, setting, tmp_path / "results.json", "--profile")
    assert set(results) == {"train_cpu", "infer_cpu", "load_cpu", "weights_cpu"}
    for result in results.values():
        assert set(result) == FIELDS
        assert 0 < result["low"] <= result["ratio"] <= result["high"]
        assert result["ratio"] == pytest.approx(result["ours"] / result["baseline"])
    assert results["weights_cpu"]["unit"] == "searches/s"
    assert results["load_cpu"]["unit"] == "clips/CPU s per core"
    printed = capsys.readouterr().out
    for name in ("train_gpu", "infer_gpu"):
        assert f"{name}: skipped: no CUDA device" in printed
    assert printed.count("of matrix products (float32)") >= 2  # the baselines'
    assert "backward" in printed  # of the profiles
    assert not list(setting.work.iterdir())  # temporary files are removed


def test_results_of_other_benchmarks_are_kept(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    harness.save_results({name: result_of(9.0) for name in ("weights_cpu", "infer_gpu")}, path)
    results = run_program(monkeypatch, setting, path, "--only", "weights_cpu")
    assert set(results) == {"weights_cpu", "infer_gpu"}
    assert results["infer_gpu"]["ratio"] == 9.0
    assert results["weights_cpu"]["ratio"] != 9.0


def result_of(ratio: float) -> Result:
    return Result(ratio, ratio, ratio, ratio, 1.0, "clips/s")


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_file_with_other_content_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(HearbackError, match=r"results\.json"):
        harness.save_results({"load_cpu": result_of(2.0)}, path)
    assert path.read_text() == content


def test_quick_results_are_not_saved(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "RESULTS", clips.ROOT / "benchmarks" / "nowhere.json")
    monkeypatch.setattr(__main__, "QUICK", SIZES)
    command = ["--only", "weights_cpu", "--quick", "--threads", "1", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *command])
    __main__.main()
    assert not __main__.RESULTS.exists()


def test_turns_alternate() -> None:
    order: list[str] = []

    def take(name: str) -> float:
        order.append(name)
        return 1.0

    turns = harness.take_turns([Side(n, partial(take, n)) for n in "abc"], 3, ticking())
    assert "".join(order) == "abc" + "cba" + "abc"
    assert [len(of_side) for of_side in turns] == [3, 3, 3]


def ticking() -> harness.Clock:
    """A clock that advances by a second with every call."""
    seconds = iter(range(10_000))
    return lambda: float(next(seconds))


def test_a_short_turn_is_repeated() -> None:
    side = Side("short", lambda: 2.0, least_seconds=5.0, flops_per_unit=10.0)
    turn = harness.take_turn(side, ticking())
    assert turn == Turn(amount=10.0, flops=100.0, seconds=5.0)
    assert turn.rate == 2.0


def test_the_ratio_of_medians_and_its_spread() -> None:
    def turns(*seconds: float) -> list[Turn]:
        return [Turn(12.0, 0.0, each) for each in seconds]

    result = harness.compare(turns(1, 2, 4), turns(12, 6, 6), "clips/s")
    assert result == Result(3.0, 1.5, 12.0, ours=6.0, baseline=2.0, unit="clips/s")


def test_the_fastest_side_is_chosen() -> None:
    amounts = {"a": 1.0, "b": 3.0, "c": 2.0}
    sides = {name: Side(name, partial(amounts.__getitem__, name)) for name in amounts}
    assert harness.fastest(sides, ticking()) == "b"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("n_frames", [100, N_POSITIONS])
def test_the_flops_of_our_encoder_match_torch(n_frames: int, training: bool) -> None:
    expected = flops.encoder_flops(SMALL, n_frames, training=training)
    measured = flops_by_torch(WhisperEncoder(SMALL), n_frames, training)
    assert 2 * expected == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("training", [False, True])
def test_the_flops_of_the_baselines_encoder_match_torch(training: bool) -> None:
    expected = flops.encoder_flops(SMALL, N_POSITIONS, training=training)
    encoder = baseline.Comparison(SMALL.as_dict(), dropout=0.0).encoder
    measured = flops_by_torch(encoder, N_POSITIONS, training)
    assert 2 * expected == pytest.approx(measured, rel=0.02)


def flops_by_torch(encoder: nn.Module, n_frames: int, training: bool) -> int:
    """Return torch's count for two clips, with math attention: it does not count fused kernels."""
    log_mel = torch.randn(2, 80, 2 * n_frames)
    # Positions are frozen in ours.
    encoder.get_submodule("embed_positions").requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter, torch.set_grad_enabled(training):
        frames = encoder(log_mel)
        frames = frames if isinstance(frames, torch.Tensor) else frames.last_hidden_state
        if training:
            frames.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_recomputation_is_not_counted(checkpointing: bool) -> None:
    encoder = baseline.Comparison(SMALL.as_dict(), dropout=0.0).encoder.train()
    if checkpointing:
        encoder.gradient_checkpointing_enable()
    with flops.counted() as counter:
        encoder(torch.randn(3, 80, 1600)).last_hidden_state.sum().backward()
        with torch.inference_mode():
            encoder(torch.randn(1, 80, 1600))
    expected = 3 * flops.encoder_flops(SMALL, 800, training=True) + flops.encoder_flops(SMALL, 800)
    assert counter == flops.Counter(expected, 4)


@pytest.mark.slow
def test_both_sides_train_on_the_same_clips(
    setting: Setting, some: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, step = JoinedScorer.training_step, baseline.Training._step
    rows: dict[str, list[int]] = {"ours": [], "baseline": []}

    def our_learn(self: JoinedScorer, batch: Batch) -> Any:
        rows["ours"] += batch.rows.tolist()
        return learn(self, batch)

    def baseline_step(self: baseline.Training, batch: Any) -> float:
        rows["baseline"] += batch["row"].tolist()
        return step(self, batch)

    monkeypatch.setattr(JoinedScorer, "training_step", our_learn)
    monkeypatch.setattr(baseline.Training, "_step", baseline_step)
    outcome = cases.compare_training(setting, some, RECIPE, setting.backbone, CPU)
    assert outcome.result.ratio > 0
    # A warm-up turn and two rounds; the baseline's turns are halves.
    assert sorted(rows["ours"]) == sorted(3 * list(range(N_CLIPS)))
    assert sorted(rows["baseline"][:N_CLIPS]) == list(range(N_CLIPS))
    assert len(rows["baseline"]) in (N_CLIPS + N_CLIPS // 2, N_CLIPS + N_CLIPS // 2 + 1)


def test_shares_cover_all_clips_in_a_new_order_every_epoch() -> None:
    shares = baseline.Shares(n_clips=50, n_shares=3, seed=0)
    first, second = ([row for _ in range(3) for row in shares] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != sorted(second)


def test_the_baseline_learns(some: Clips, backbone: Path) -> None:
    training = baseline.Training(
        some,
        replace(RECIPE, learning_rate=1e-2, dropout=0.0, augment_learner=Augmentation()),
        read_config(backbone),
        read_tensors(backbone, "encoder"),
        device=CPU,
        n_workers=0,
    )
    batch = torch.utils.data.default_collate([training.loader.dataset[n] for n in range(N_CLIPS)])
    losses = [training._step(batch) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


def test_the_sides_scores_agree_if_both_pad(setting: Setting, some: Clips) -> None:
    scores = {}
    for window in ("fixed", "trimmed"):
        recipe = replace(RECIPE, window=window)
        assets = setting.work / window
        config = our_side.save_ensemble(assets, recipe, setting.backbone, some)
        scores[window] = our_side.predict_ours(config, some, assets, CPU, torch.float32)
    files = {FoldFiles(assets, model.name, 0).weights: model.weight for model in config.models}
    public = read_config(setting.backbone)
    theirs = baseline.predict(some, files, public, batch_size=3, device=CPU, n_workers=0)
    np.testing.assert_allclose(scores["fixed"], theirs, atol=1e-5)
    assert np.ptp(theirs) > 1e-4
    assert len(scores["trimmed"]) == len(some)
    np.testing.assert_allclose(scores["trimmed"], theirs, atol=0.05)


def test_the_ensembles_models_share_no_weights(setting: Setting, some: Clips) -> None:
    from safetensors.torch import load_file

    config = our_side.save_ensemble(setting.work, RECIPE, setting.backbone, some)
    assert sum(model.weight for model in config.models) == pytest.approx(1)
    first, second, third = (
        load_file(FoldFiles(setting.work, model.name, 0).weights) for model in config.models
    )
    for name, tensor in first.items():
        if name.endswith(("proj.weight", "fc1.weight", "conv1.weight", "classifier.weight")):
            assert not torch.equal(tensor, second[name]), name
            assert not torch.equal(second[name], third[name]), name


def test_both_sides_load_every_clip(some: Clips) -> None:
    ours = our_side.Loading(some, RECIPE, TINY.num_mel_bins).run()
    assert sorted(ours) == sorted(baseline.features_of(some, RECIPE, TINY.num_mel_bins))
    assert sorted(ours) == list(range(N_CLIPS))
    our_side.counting(N_CLIPS, lambda: ours)()
    with pytest.raises(HearbackError, match="loaded 6 rows instead of all 7"):
        our_side.counting(N_CLIPS, lambda: ours[:-1])()


@pytest.mark.parametrize("effect", ["pitch", "stretch", "noise", "gain", "envelope"])
def test_the_baselines_augmentation_applies_each_effect(effect: str) -> None:
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal(8000)).astype(np.float32)
    assert np.array_equal(baseline.augment(waveform, Augmentation(), rng), waveform)
    certain: dict[str, Any] = {effect: 1.0}
    changed = baseline.augment(waveform, Augmentation(**certain), rng)
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    if effect == "stretch":
        assert len(changed) != len(waveform)
    else:
        n_samples = min(len(changed), len(waveform))
        assert not np.allclose(changed[:n_samples], waveform[:n_samples], atol=1e-3)


def test_simulated_predictions_have_the_competitions_log_losses() -> None:
    predictions, labels = cases.simulate_predictions(10, 38_095)
    assert predictions.shape == (10, 38_095)
    alone = [mean_log_loss(labels, of_model) for of_model in predictions]
    assert np.mean(alone) == pytest.approx(0.24, abs=0.01)
    assert mean_log_loss(labels, predictions.mean(axis=0)) == pytest.approx(0.20, abs=0.01)
    assert labels.mean() == pytest.approx(0.467, abs=0.01)


def test_our_weights_are_no_worse_than_the_grids() -> None:
    predictions, labels = cases.simulate_predictions(4, 1000)
    useless = np.full(1000, 0.5)
    predictions = np.stack([*predictions, useless])
    weights = baseline.search_weights(predictions, labels)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights[-1] < 0.05
    of_grid = mean_log_loss(labels, weights @ predictions)
    assert of_grid < mean_log_loss(labels, predictions.mean(axis=0))
    ours = mean_log_loss(labels, fit_probability_weights(predictions, labels) @ predictions)
    assert ours <= of_grid + cases.NOT_WORSE


def test_weights_that_are_worse_than_the_grids_are_an_error(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worst(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.eye(len(predictions))[-1]

    monkeypatch.setattr(cases.stacking, "fit_probability_weights", worst)
    with pytest.raises(HearbackError, match="worse than the grid"):
        cases.weights_cpu(setting)


@pytest.fixture
def of_noise(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """A setting whose whisper-medium is tiny."""
    monkeypatch.setattr(cases, "MEDIUM", TINY.as_dict())
    yield setting


@pytest.mark.slow
def test_noise_has_the_lengths_of_speech(of_noise: Setting, tmp_path: Path) -> None:
    sizes = replace(SIZES, n_gpu=60)
    made, folder = cases.medium_inputs(replace(of_noise, sizes=sizes))
    assert len(made) == 60
    assert made.pair_seconds.mean() == pytest.approx(6.5, abs=1)
    assert made.pair_seconds.max() <= 16
    assert read_config(folder)["d_model"] == TINY.d_model
    positions = read_tensors(folder, "encoder")["embed_positions.weight"]
    assert positions.shape == (1500, TINY.d_model)


@pytest.mark.slow
@pytest.mark.parametrize("compare", [cases.compare_training, cases.compare_inference])
def test_the_gpu_benchmarks_run_on_a_cpu(of_noise: Setting, compare: Callable[..., Any]) -> None:
    made, folder = cases.medium_inputs(of_noise)
    outcome = compare(replace(of_noise, n_rounds=1), made, cases.MEDIUM_RECIPE, folder, CPU)
    assert outcome.result.ratio > 0


@pytest.mark.slow
def test_the_baseline_can_load_in_other_processes(setting: Setting, some: Clips) -> None:
    outcome = cases.compare_training(
        replace(setting, clock="wall", n_rounds=1), some, RECIPE, setting.backbone, CPU
    )
    assert any("loading processes, best of" in line for line in outcome.lines)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["train_gpu", "infer_gpu"])
def test_a_gpus_benchmarks_run(of_noise: Setting, name: str) -> None:
    outcome = cases.run(name, replace(of_noise, clock="wall", precision="auto"))
    assert outcome.result.ratio > 0
    assert any("of matrix products (float16)" in line for line in outcome.lines)


def test_a_profile_has_the_shares_of_called_stages() -> None:
    def long() -> float:
        return sum(np.sqrt(n) for n in range(20_000))

    def short() -> float:
        return sum(np.sqrt(n) for n in range(200))

    def both() -> float:
        return long() + short()

    shares = profiles.measure_shares(both, {"long": (long,), "short": (short,), "none": (print,)})
    assert set(shares) == {"long", "short"}
    assert shares["short"] < shares["long"] < 1


def test_there_must_be_enough_clips(setting: Setting) -> None:
    with pytest.raises(HearbackError, match="12 clips; a benchmark needs 13"):
        clips.load(setting.data, setting.tts_data, setting.store, 13)


def test_an_incomplete_set_of_folders_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--data", "data"])
    with pytest.raises(SystemExit) as stopped:
        __main__.main()
    assert stopped.value.code == 2
    assert "must be given together" in capsys.readouterr().err
