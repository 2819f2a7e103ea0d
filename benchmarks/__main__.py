"""Benchmarks: the speed of every step against the standard stack, in alternation.

    python -m benchmarks
    python -m benchmarks --only load_cpu weights_cpu --profile
    python -m benchmarks --data data --tts_data tts_data --store store

train_cpu    training, with augmentation                      clips/s
infer_cpu    inference with an ensemble of three models       clips/s
load_cpu     reading, augmentation and features, on one core  clips/s
weights_cpu  fitting the weights of ten models                searches/s
train_gpu    like train_cpu, with a random whisper-medium     clips/s
infer_gpu    like infer_cpu, with random whisper-mediums      clips/s

The baseline is the standard stack (benchmarks/baseline.py). Each result is the ratio of the median
rates, with the lowest and highest ratio of a round. Without --data, the CPU benchmarks use the
embedded sample in bench/, which they write if it is missing. Those on a GPU use noise with the
lengths of speechocean762's recordings; without a CUDA device they are skipped.
"""

import argparse
from pathlib import Path

import torch

from benchmarks import cases, clips
from benchmarks.cases import BENCHMARKS
from benchmarks.harness import CLOCKS, Result, machine, save_results
from benchmarks.setting import QUICK, Outcome, Setting, Sizes
from hearback.engine import cli
from hearback.engine.machine import TRAINING_PRECISIONS, count_processors
from hearback.engine.whisper import pretrained

RESULTS = clips.ROOT / "benchmarks" / "results.json"


def main() -> None:
    """Run the benchmarks and print their results."""
    arguments = parse()
    setting = make_setting(arguments)
    results: dict[str, Result] = {}
    print(f"{machine()}; {setting.n_threads} threads", flush=True)
    for name in arguments.only:
        if reason := cases.why_skipped(name):
            print(f"\n{name}: {reason}", flush=True)
            continue
        outcome = cases.run(name, setting)
        results[name] = outcome.result
        print(f"\n{describe(name, outcome)}", flush=True)
    if arguments.results is None and arguments.quick:
        print("\nresults of --quick are not saved without --results PATH")
        return
    path = arguments.results or RESULTS
    save_results(results, path)
    print(f"\nwrote {path}: {', '.join(results) or 'nothing new'}")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m benchmarks"
    add = parser.add_argument
    names = tuple(BENCHMARKS)
    add("--only", nargs="+", choices=names, default=list(names), help="default: all")
    add("--data", type=Path, help="folder of the tables and recordings (default: the sample's)")
    add("--tts_data", type=Path, help="folder of the reference speech (default: the sample's)")
    add("--store", type=Path, help="folder of the decoded recordings (default: the sample's)")
    add(
        "--work", type=Path, default=Path("bench"), help="folder for the sample and temporary files"
    )
    add(
        "--backbone", default="whisper-tiny.en", help="of the CPU benchmarks: a name or a directory"
    )
    add("--assets", type=Path, default=Path("assets"), help="folder of the backbones")
    add("--rounds", type=int, default=5, help="timed turns per side")
    add("--clips", type=int, help="clips per turn (default: depends on the benchmark)")
    add("--threads", type=int, default=count_processors(), help="number of threads of both sides")
    add("--precision", choices=TRAINING_PRECISIONS, default="auto", help="of our matrix products")
    add(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="cpu counts processor seconds, for a shared machine",
    )
    add("--profile", action="store_true", help="also print where the time goes (CPU only)")
    add("--quick", action="store_true", help="a dozen clips and two rounds, as a smoke test")
    add("--results", type=Path, help=f"output file (default: {RESULTS.relative_to(clips.ROOT)})")
    arguments = parser.parse_args()
    folders = [getattr(arguments, name) for name in clips.FOLDERS]
    if any(folders) and not all(folders):
        parser.error("--data, --tts_data and --store must be given together")
    if min(arguments.rounds, arguments.threads, arguments.clips or 1) < 1:
        parser.error("--rounds, --threads and --clips: at least 1")
    return arguments


def make_setting(arguments: argparse.Namespace) -> Setting:
    """Return the setting of the command line; write the sample if it is needed and missing."""
    folders = {name: getattr(arguments, name) for name in clips.FOLDERS}
    on_cpu = any(name.endswith("_cpu") and name != "weights_cpu" for name in arguments.only)
    if arguments.data is None:
        folders = {name: arguments.work / name for name in clips.FOLDERS}
        if on_cpu:
            clips.make_sample(arguments.work)
    backbone = Path(arguments.backbone)
    if on_cpu:
        backbone = pretrained.resolve(arguments.backbone, arguments.assets)
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.clips is not None:
        sizes = sizes.with_clips(arguments.clips)
    return Setting(
        **folders,
        backbone=backbone,
        work=arguments.work,
        n_rounds=min(arguments.rounds, 2) if arguments.quick else arguments.rounds,
        n_threads=arguments.threads,
        clock=arguments.clock,
        precision=arguments.precision,
        profile=arguments.profile,
        sizes=sizes,
    )


def describe(name: str, outcome: Outcome) -> str:
    """Return a benchmark's result and its details, one per line."""
    result = outcome.result
    head = (
        f"{name}: {result.ratio:.2f} × ({result.low:.2f} to {result.high:.2f})   "
        f"ours {result.ours:.4g}, baseline {result.baseline:.4g} {result.unit}"
    )
    return "\n".join([head, *(f"  {line}" for line in outcome.lines)])


if __name__ == "__main__":
    torch.manual_seed(clips.SEED)
    cli.run(main)
