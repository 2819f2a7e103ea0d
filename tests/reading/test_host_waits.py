"""Every family's inner loops, on a device that refuses to mix and counts the host's waits.

The table is in docs/results/performance.md.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hearback.engine.phones import layout
from hearback.engine.training.callbacks import Callback
from hearback.engine.training.stall_detector import Step
from hearback.engine.training.trainer import Trainer
from hearback.engine.whisper.shared_layers import digest_stages
from hearback.reading.inference.batch_plan import plan_batches
from hearback.reading.inference.model_group import ModelGroup
from hearback.reading.inference.predict import score_with_words
from hearback.reading.models.backbones import PhoneBackbone
from hearback.reading.models.base import WhisperScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.scoring.decoder_evidence import EvidenceCollector
from tests.conftest import CONFIG
from tests.reading.families import ALL_FAMILIES, make_trainer
from tests.reading.quick_recipes import QUICK_GOP, QUICK_SEG
from tests.reading.random_models import make_model
from tests.strict_device import STRICT, StrictDevice, Wait
from train_model2ds import RECIPE as VECTORS
from train_model3mapd import RECIPE as JOINED
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS
from train_modeltoklow import RECIPE as LOW

pytestmark = pytest.mark.usefixtures("letters_as_sounds")
STEP = "engine/training/trainer.py read"
SCORES = "reading/inference/model_group.py _score"
PATHS = "reading/models/alignment_head.py __init__"
EVIDENCE = "reading/scoring/decoder_evidence.py compute_evidence"
TIMES = "reading/models/word_times.py word_times"
N_STEPS = 2

# Where products are computed in float32 although the precision is float16.
FLOAT32 = {
    "engine/audio/log_mel.py log_mel",
    "engine/whisper/heads.py forward",  # a linear layer on features
    "engine/whisper/heads.py cosine",
    "reading/models/alignment_head.py __init__",  # costs
    "reading/models/alignment_head.py forward",
    "engine/training/optimization.py step",  # gradients of these
}


@pytest.fixture
def device() -> Iterator[StrictDevice]:
    with StrictDevice() as strict:
        yield strict


class EnoughStepsError(Exception):
    """The steps of the test are done."""


class WaitsOfSteps(Callback):
    """Records the waits of each step, from its predecessor's end to its own."""

    def __init__(self, waits: list[Wait]) -> None:
        self.waits, self.of_steps = waits, list[list[Wait]]()

    def on_step(self, trainer: Trainer, step: Step) -> None:
        """Record; end the training after `N_STEPS`."""
        self.of_steps.append(self.waits.copy())
        self.waits.clear()
        if len(self.of_steps) == N_STEPS:
            raise EnoughStepsError


@pytest.mark.slow
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_step_of_training_waits_once(
    options: TrainingOptions, phones: Path, device: StrictDevice, family: str
) -> None:
    check_steps(replace(options, device=str(STRICT), precision="float16"), phones, device, family)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["joined", "aligned", "tokens"])
def test_a_step_in_parts_waits_once(
    options: TrainingOptions, phones: Path, device: StrictDevice, family: str
) -> None:
    options = replace(options, device=str(STRICT), precision="float16", micro_batch=2)  # of 4
    options = replace(options, gradient_checkpointing=True)
    check_steps(options, phones, device, family, n_parts=2)


def check_steps(
    options: TrainingOptions, phones: Path, device: StrictDevice, family: str, n_parts: int = 1
) -> None:
    """Each step waits for its results; aligned parts wait for their paths, too."""
    trainer = make_trainer(ALL_FAMILIES[family], options, phones)
    n_examples, batches = next(trainer.task.epoch_batches(trainer.model, range(1)))
    device.products.clear()
    with device.inner_loop() as waits, pytest.raises(EnoughStepsError):
        recorder = WaitsOfSteps(waits)
        trainer.callbacks = [recorder]
        trainer.train_epoch(n_examples, batches)
    expected = Counter({STEP: 1, **({PATHS: n_parts} if family == "aligned" else {})})
    for of_step in recorder.of_steps:
        assert Counter(wait.place for wait in of_step) == expected
    check_precision(device, family)
    with torch.no_grad(), device.inner_loop() as waits:
        trainer.task.evaluate(trainer.eval_model.eval())
    check_scores(waits, {PATHS} if family == "aligned" else set())


def check_precision(device: StrictDevice, family: str) -> None:
    """All products are in float16, but those of `FLOAT32` and all of phone and segment scorers."""
    others = {place for place, dtype in device.products if dtype != torch.float16}
    assert torch.float64 not in {dtype for _, dtype in device.products}
    if family in ("phones", "segments"):
        assert len(others) == len(device.products)
    else:
        assert others <= FLOAT32


def check_scores(waits: list[Wait], others: set[str], n_batches: int | None = None) -> None:
    """Each batch has a wait for its scores, and one in each place of `others`."""
    counts = Counter(wait.place for wait in waits)
    n_batches = n_batches or counts[SCORES]
    assert n_batches and counts == dict.fromkeys({SCORES, *others}, n_batches)


# Recipe, number of models, whether words get times, and where batches wait but for the scores.
ENSEMBLES: dict[str, tuple[Recipe, int, bool, set[str]]] = {
    "joined": (JOINED, 2, False, set()),
    "vectors": (replace(VECTORS, pair="speech classifier"), 2, False, set()),
    "aligned": (ALIGNED, 1, False, {PATHS}),
    "tokens": (TOKENS, 2, False, {EVIDENCE}),
    "tokens with times": (TOKENS, 2, True, {EVIDENCE, TIMES}),
    "updates of tokens": (LOW, 2, False, {EVIDENCE}),
    "phones": (QUICK_GOP, 2, False, set()),
    "segments": (QUICK_SEG, 2, False, set()),
}
# Models of which all folds hear the same: their frozen parts have equal weights.
HEARING_THE_SAME = (LOW, QUICK_SEG)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_a_batch_of_an_ensemble_waits_for_its_scores(
    make_source: Callable[[int], PairSource],
    tokenizer: Path,
    phones: Path,
    device: StrictDevice,
    name: str,
) -> None:
    recipe, n_models, with_times, others = ENSEMBLES[name]
    config: Mapping[str, Any] = CONFIG
    texts = tokenizer
    if recipe.pair in ("phones", "segments"):
        sizes = PhoneBackbone(phones).config()
        config = sizes if recipe.pair == "phones" else {**CONFIG, "recogniser": sizes}
        texts = phones / layout.PRONUNCIATIONS
    source, rows = make_source(6), np.arange(6)
    planned = plan_batches(source, rows, recipe, 128.0)
    collector = EvidenceCollector(score_with_words(6), with_times=with_times)
    group = ModelGroup(STRICT, torch.float32)
    for seed in range(n_models):
        hears_the_same = recipe in HEARING_THE_SAME
        model = make_model(recipe, texts, 0 if hears_the_same else seed, config)
        stages = digest_stages(model.encoder) if isinstance(model, WhisperScorer) else []
        # What is heard with equal frozen weights is computed together.
        group.add(model, stages, "same" if hears_the_same else "")
    with device.inner_loop() as waits:
        batches = list(group.run(source, rows, planned, collector))
    assert len(batches) == len(planned) and all(len(b.values) == n_models for b in batches)
    check_scores(waits, others, n_batches=len(planned))
