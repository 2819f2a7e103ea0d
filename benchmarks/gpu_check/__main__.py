"""What only a GPU can show, in eight minutes at most, without a network.

    make gpu-check
    make gpu-check DEVICE=strict SMALL=1     # without a GPU: the test device that refuses to mix

Sections: `inputs` writes what the others need; `scores` compares each family's scores and a
training step with the CPU's, in three precisions; `fold` trains a fold of modeltok; `resume` kills
a training and resumes it; `two` trains two folds at once; `speed` measures each family at its true
size, in training and inference, beside the competition's way, with memory and the share of the
GPU's peak rate.

Writes gpu_check.md and gpu_check.json. The exit status is 1 if a check failed or a section's time
was up. A section that fails does not stop the others. What is missing (the device, weights,
packages) is reported before the first one, all at once, and nothing is run.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check import report
from benchmarks.gpu_check.missing import find_missing, report_of
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.sections import LIMIT_SECONDS, SECTIONS, run_all
from benchmarks.gpu_check.setting import PHONES, SMALL, TINY, Setting, Sizes
from hearback.engine import cli
from hearback.engine.launch.processes import ROOT

NAMES = [section.name for section in SECTIONS]


def main() -> int:
    """Run the check; return 1 if anything failed."""
    arguments = parse()
    setting = make_setting(arguments)
    if arguments.run_here:
        return run_here(arguments, setting)
    sections = [section for section in SECTIONS if section.name in arguments.only]
    if missing := find_missing(setting, sections):
        print(report_of(missing), file=sys.stderr)
        return 1
    from benchmarks.harness import machine  # noqa: PLC0415  (it needs what may be missing)

    setting.work.mkdir(parents=True, exist_ok=True)
    described = about(machine(), setting)
    print(f"{described['machine']}; device {setting.device}", flush=True)
    results = []
    for result in run_all(sections, flags_of(arguments), setting.work, arguments.seconds):
        results.append(result)
        print(f"{result.section.title}: {result.outcome}, {result.seconds:.0f} s", flush=True)
        for check in result.record.checks:
            if not check.passed:
                print(f"  FAILED {check.name}: {check.measured}; required: {check.required}")
    paths = report.write(arguments.out, described, results)
    print(paths[0].read_text(encoding="utf-8"))
    print("wrote", *paths)
    return 0 if report.passed(results) else 1


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m benchmarks.gpu_check"
    add = parser.add_argument
    add("--device", default="cuda", help="cuda, cuda:1, cpu, or strict (tests/strict_device.py)")
    add("--small", action="store_true", help="tiny backbones and few clips")
    add("--only", nargs="+", choices=NAMES, default=NAMES, help="sections (default: all)")
    add(
        "--weights",
        nargs="+",
        type=Path,
        default=[ROOT / "gpu" / "weights", ROOT / "assets"],
        help=f"folders that may hold {TINY}/ and {PHONES}/ (default: gpu/weights, then assets)",
    )
    add("--work", type=Path, default=ROOT / "gpu" / "work", help="folder for temporary files")
    add("--out", type=Path, default=ROOT / "gpu", help="folder of the tables")
    add("--seconds", type=float, default=LIMIT_SECONDS, help="for all sections together")
    add("--run_here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_setting(arguments: argparse.Namespace) -> Setting:
    """Return the setting of the command line."""
    return Setting(
        device=arguments.device,
        small=arguments.small,
        weights=tuple(path.absolute() for path in arguments.weights),
        work=arguments.work.absolute() / ("small" if arguments.small else "true"),
        sizes=SMALL if arguments.small else Sizes(),
    )


def flags_of(arguments: argparse.Namespace) -> list[str]:
    """Return the flags for the sections' processes."""
    return [
        *("--device", arguments.device, "--work", str(arguments.work.absolute())),
        *("--weights", *(str(path.absolute()) for path in arguments.weights)),
        *(("--small",) if arguments.small else ()),
    ]


def run_here(arguments: argparse.Namespace, setting: Setting) -> int:
    """Run one section in this process; its record is written to the work folder."""
    (section,) = (section for section in SECTIONS if section.name in arguments.only)
    setting.work.mkdir(parents=True, exist_ok=True)
    record = Record(
        setting.work / f"{section.name}.json", ends=time.monotonic() + arguments.seconds
    )
    if setting.is_gpu and setting.torch_device.index is not None:
        torch.cuda.set_device(setting.torch_device)  # the clocks wait for the current one
    section.load()(setting, record)
    record.finish()
    return 0


def about(machine: str, setting: Setting) -> dict[str, Any]:
    """Return what the run was made with, by name."""
    return {
        "machine": machine,
        "device": setting.device,
        "size": "small: tiny backbones, few clips" if setting.small else "true",
        "weights of the small corpus' models": TINY if setting.is_pretrained else "random",
        "command": " ".join(["python -m benchmarks.gpu_check", *sys.argv[1:]]),
    }


if __name__ == "__main__":
    cli.run(main)
