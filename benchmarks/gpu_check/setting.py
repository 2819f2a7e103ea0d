"""What a section of the check is given: device, folders and sizes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from hearback.engine.errors import HearbackError
from hearback.engine.launch.processes import ROOT

STRICT = "strict"  # the test device of tests/strict_device.py
TINY, PHONES = "whisper-tiny.en", "hama-phones"  # what the folder of weights may hold


@dataclass(frozen=True)
class Sizes:
    """Numbers of clips, and how often they are scored and trained on."""

    n_train: int = 96  # of the small corpus
    n_speakers: int = 12
    n_noise: int = 384  # clips whose speed is measured
    n_scored: int = 24  # clips whose scores are compared
    n_epochs: int = 2  # of a fold
    n_rounds: int = 2  # timed, after one or two that are not


SMALL = Sizes(n_train=36, n_speakers=6, n_noise=8, n_scored=6, n_epochs=1, n_rounds=1)


@dataclass(frozen=True)
class Setting:
    """The options of the command line.

    Attributes:
        device: "cuda", "cuda:1", "cpu", …, or `STRICT`.
        small: tiny backbones and few clips, for a machine without a GPU.
        weights: folders that may hold `TINY` and `PHONES`; the first that has one is taken.
        work: folder for everything that the check writes.
        sizes: numbers of clips.
    """

    device: str
    small: bool
    weights: tuple[Path, ...]
    work: Path
    sizes: Sizes

    @property
    def torch_device(self) -> torch.device:
        """The device; call it within `on_device`."""
        return torch.device("cpu", 1) if self.device == STRICT else torch.device(self.device)

    @property
    def is_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.torch_device.type == "cuda"

    def on_device(self) -> AbstractContextManager[object]:
        """Return the context in which the device computes."""
        if self.device != STRICT:
            return nullcontext()
        from tests.strict_device import StrictDevice  # noqa: PLC0415  (for a check only)

        return StrictDevice()

    def find_weights(self, name: str) -> Path | None:
        """Return the directory of some pretrained weights, or None if no folder holds them."""
        return next((folder / name for folder in self.weights if (folder / name).is_dir()), None)

    @property
    def data(self) -> Path:
        """Folder of the small corpus."""
        return self.work / "data"

    @property
    def tts_data(self) -> Path:
        """Folder of the small corpus' reference speech."""
        return self.work / "tts_data"

    @property
    def store(self) -> Path:
        """Folder of the small corpus' decoded recordings."""
        return self.work / "store"

    @property
    def noise(self) -> Path:
        """Folder of the clips of noise, with data, tts_data and store."""
        return self.work / "noise"

    @property
    def assets(self) -> Path:
        """Folder of the backbones."""
        return self.work / "assets"

    @property
    def is_pretrained(self) -> bool:
        """Whether the small corpus' models have pretrained weights; random ones otherwise."""
        return not self.small and self.find_weights(TINY) is not None

    @property
    def backbone(self) -> Path:
        """The backbone of the small corpus' models."""
        return self.assets / (TINY if self.is_pretrained else "random")


def check_device(device: str) -> None:
    """Raise HearbackError for a device that this machine does not have."""
    if device == STRICT:
        if not (ROOT / "tests" / "strict_device.py").is_file():
            raise HearbackError("--device strict needs tests/strict_device.py of the repository")
        return
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise HearbackError(
            f"--device {device}: this machine has no GPU that torch can use. Without one: "
            "make gpu-check DEVICE=strict SMALL=1"
        )
