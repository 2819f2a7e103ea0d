"""The classifiers: sizes, shapes, freezing and training."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hearback.engine.errors import HearbackError
from hearback.engine.whisper.encoder import WhisperEncoder
from hearback.songs.models.classifiers import Cnn4, SongModel, WhisperClassifier, build
from hearback.songs.tables import N_CLASSES
from tests.toy import ENCODER as TINY

TORCHVISION_RESNET34 = 21_797_672  # of three channels and 1,000 classes, about the paper's 21.8 M
CONFIG = TINY.as_dict()
SHAPES = {"resnet34": (99, 40), "cnn4": (130, 128), "whisper": (48_000,)}
STEMS = ("7x7 stride 2", "3x3 stride 1")


def make_recipe(architecture: str, **changes: Any) -> Any:
    fields = {"stem": STEMS[0], "dropout": 0.2, "frozen_share": 0.0, **changes}
    return SimpleNamespace(name=architecture, architecture=architecture, **fields)


def make(architecture: str, **changes: Any) -> SongModel:
    torch.manual_seed(0)
    return build(make_recipe(architecture, **changes), CONFIG)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def a_batch(architecture: str, n: int = 3) -> Tensor:
    return torch.randn(n, *SHAPES[architecture], generator=torch.Generator().manual_seed(1))


def test_the_resnet_has_the_papers_number_of_parameters() -> None:
    one_channel = -2 * 64 * 7 * 7
    four_classes = -(512 * 1000 + 1000) + (512 * N_CLASSES + N_CLASSES)
    assert size(make("resnet34")) == TORCHVISION_RESNET34 + one_channel + four_classes
    assert size(make("resnet34")) == 21_280_452  # the 21.3 million of the published system


def test_the_small_stem_replaces_the_first_convolution_only() -> None:
    small, large = (make("resnet34", stem=stem) for stem in reversed(STEMS))
    assert size(large) - size(small) == 64 * (7 * 7 - 3 * 3)
    differing = [
        name
        for (name, one), other in zip(small.named_parameters(), large.parameters(), strict=True)
        if one.shape != other.shape
    ]
    assert len(differing) == 1
    first = small.get_parameter(differing[0])
    assert first.shape == (64, 1, 3, 3)
    assert first.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.15)  # He's


def test_the_small_stem_has_twice_the_resolution() -> None:
    widths = []
    for stem in STEMS:
        model = make("resnet34", stem=stem).eval()
        stem_module: Any = model.network
        with torch.no_grad():
            widths.append(tuple(stem_module.embedder(torch.zeros(1, 1, 64, 32)).shape[2:]))
    assert widths == [(16, 8), (32, 16)]  # the max-pooling after it stays


def test_the_cnn_has_four_convolutions() -> None:
    model = make("cnn4")
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 4
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    normalisations = 2 * (32 + 64 + 128 + 256)
    assert size(model) == convolutions + normalisations + 256 * 4 + 4 == 389_348


@pytest.mark.parametrize("architecture", SHAPES)
def test_logits_are_float32_under_autocast_and_reproducible(
    architecture: str,
) -> None:
    outputs = []
    for _ in range(2):
        model = make(architecture)
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(model(a_batch(architecture)))
    assert outputs[0].shape == (3, N_CLASSES)
    assert outputs[0].dtype == torch.float32
    assert torch.isfinite(outputs[0]).all()
    assert torch.equal(*outputs)


@pytest.mark.parametrize("architecture", SHAPES)
def test_logits_do_not_depend_on_the_batch(architecture: str) -> None:
    model = make(architecture)
    features = a_batch(architecture)
    with torch.no_grad():
        model(features)  # the running statistics of a training
        model.eval()
        alone = torch.cat([model(row[None]) for row in features])
        torch.testing.assert_close(model(features), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", SHAPES)
def test_every_parameter_has_a_gradient(architecture: str) -> None:
    model = make(architecture, dropout=0.0)
    model(a_batch(architecture)).logsumexp(1).sum().backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert still == []


@pytest.mark.parametrize("architecture", SHAPES)
def test_dropout_is_active_in_training_only(architecture: str) -> None:
    model = make(architecture, dropout=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    features = a_batch(architecture)
    assert not torch.equal(model(features), model(features))
    model.eval()
    assert torch.equal(model(features), model(features))


@pytest.mark.parametrize("architecture", ["resnet34", "cnn4"])
def test_inputs_are_normalised_by_the_training_data_not_per_snippet(
    architecture: str,
) -> None:
    features = a_batch(architecture)
    with torch.no_grad():
        as_is, in_db = (make(architecture, dropout=0.0)(x) for x in (features, 20 * features - 40))
        torch.testing.assert_close(as_is, in_db, rtol=1e-3, atol=1e-3)
        model = make(architecture).eval()
        assert not torch.allclose(model(features), model(features + 1), atol=1e-3)


def test_spectrogram_models_have_no_backbone() -> None:
    for architecture in ("resnet34", "cnn4"):
        model = make(architecture)
        model.load_pretrained({})
        assert model.backbone_parameters() == []
        assert model.backbone_config() == {}
        with pytest.raises(HearbackError, match="encoder"):
            model.load_pretrained({"encoder": {}})


def test_whisper_loads_its_encoder_and_freezes_a_share() -> None:
    torch.manual_seed(5)
    pretrained = WhisperEncoder(TINY).state_dict()
    model = make("whisper", frozen_share=0.5)
    assert isinstance(model, WhisperClassifier)
    model.load_pretrained({"encoder": pretrained})
    assert all(
        torch.equal(tensor, pretrained[name]) for name, tensor in model.encoder.state_dict().items()
    )
    frozen = {name for name, p in model.encoder.named_parameters() if not p.requires_grad}
    n_frozen = round(0.5 * TINY.encoder_layers)
    of_layers = {name.split(".")[1] for name in frozen if name.startswith("layers.")}
    assert of_layers == {str(layer) for layer in range(n_frozen)}
    backbone = set(map(id, model.backbone_parameters()))
    rest = [name for name, p in model.named_parameters() if id(p) not in backbone]
    assert all(
        name.removeprefix("encoder.") in frozen or name.startswith(("pooler.", "classifier."))
        for name in rest
    )
    assert any(name.startswith("classifier.") for name in rest)
    assert model.backbone_config() == CONFIG


def test_whisper_without_config_or_weights_is_refused() -> None:
    with pytest.raises(HearbackError, match=r"config\.json"):
        build(make_recipe("whisper"))
    with pytest.raises(HearbackError, match="encoder"):
        make("whisper").load_pretrained({})


def test_the_cnn_can_be_trained() -> None:
    torch.manual_seed(0)
    labels = torch.arange(32) % N_CLASSES
    features = torch.randn(32, 16, 32)
    for row, label in enumerate(labels):
        features[row, :, 8 * label : 8 * label + 8] += 2
    model = Cnn4(make_recipe("cnn4", dropout=0.0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.2
