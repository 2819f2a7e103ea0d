from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hearback.engine.training.backbone_files import read_unchanged, share_unchanged

POSITIONS = "embed_positions.weight"


def make_encoder() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "conv1.weight": random(8, 4),
        "layers.0.fc1.weight": random(8, 8),
        POSITIONS: random(9, 4),
    }


def fold_weights(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a fold's weights: the model has 5 of 9 positions and a head."""
    weights = {f"encoder.{name}": tensor.half() for name, tensor in encoder.items()}
    weights[f"encoder.{POSITIONS}"] = weights[f"encoder.{POSITIONS}"][:5]
    return weights | {"head.weight": torch.ones(3).half()}


def test_a_fold_keeps_what_differs(tmp_path: Path) -> None:
    encoder = make_encoder()
    weights = fold_weights(encoder)
    weights["encoder.layers.0.fc1.weight"] += 1
    own, entries = share_unchanged(weights, {"encoder": encoder}, tmp_path)
    assert own.keys() == {"encoder.layers.0.fc1.weight", "head.weight"}
    path = tmp_path / entries["encoder"]["file"]
    assert load_file(path).keys() == encoder.keys()
    restored = own | read_unchanged({"encoder": path}, own, weights)
    assert restored.keys() == weights.keys()
    assert all(torch.equal(restored[name], weights[name]) for name in weights)


def test_a_part_that_changed_is_kept_whole(tmp_path: Path) -> None:
    encoder = make_encoder()
    changed = {name: tensor + (name != POSITIONS) for name, tensor in encoder.items()}
    encoder["conv1.weight"] = torch.zeros(40, 8)
    changed["conv1.weight"] = torch.ones(40, 8)
    weights = fold_weights(changed)
    own, entries = share_unchanged(weights, {"encoder": encoder}, tmp_path)
    assert own.keys() == weights.keys()
    assert not entries
    assert not list(tmp_path.iterdir())


def test_folds_of_one_backbone_share_its_file(tmp_path: Path) -> None:
    encoder = make_encoder()
    _, first = share_unchanged(fold_weights(encoder), {"encoder": encoder}, tmp_path)
    reordered = {name: encoder[name].double() for name in reversed(encoder)}
    _, second = share_unchanged(fold_weights(encoder), {"encoder": reordered}, tmp_path)
    assert first == second
    assert len(list(tmp_path.iterdir())) == 1
