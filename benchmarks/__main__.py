"""How fast every step is, against what people use: the two side by side, in turn.

    python -m benchmarks
    python -m benchmarks --only load_cpu weights_cpu --profile
    python -m benchmarks --data data --tts_data tts_data --store store

train_cpu    training, with augmentation                      clips/s
infer_cpu    a three-model ensemble's scores, from the files  clips/s
load_cpu     reading, augmentation and features, on one core  clips/s
weights_cpu  the search of ten models' weights                searches/s
train_gpu    as on the CPU, in whisper-medium's shape: weights at random, noise for speech, as long
infer_gpu    as speechocean762's; left out where there is no CUDA device

The baseline is the standard stack (benchmarks/baseline.py). A ratio is that of the median rates,
its spread the lowest and the highest of any one round. Without --data, the embedded sample is made,
or taken, in bench/.
"""

import argparse
from pathlib import Path

import torch

from benchmarks import cases, clips
from benchmarks.cases import BENCHMARKS, Outcome, Setting, Sizes
from benchmarks.harness import CLOCKS, Result, keep_results, machine
from hearback.engine import cli
from hearback.engine.devices import TRAINING_PRECISIONS, count_processors
from hearback.engine.whisper import pretrained

RESULTS = clips.ROOT / "benchmarks" / "results.json"


def main() -> None:
    """Parse, run and print."""
    arguments = parse()
    setting = setting_of(arguments)
    results: dict[str, Result] = {}
    print(f"{machine()}; {setting.n_threads} threads", flush=True)
    for name in arguments.only:
        if reason := cases.why_not(name):
            print(f"\n{name}: {reason}", flush=True)
            continue
        outcome = cases.run(name, setting)
        results[name] = outcome.result
        print(f"\n{describe(name, outcome)}", flush=True)
    if arguments.results is None and arguments.quick:
        print("\nnot written: --quick is for trying out (with --results PATH they are)")
        return
    path = arguments.results or RESULTS
    keep_results(results, path)
    print(f"\nwrote {path}: {', '.join(results) or 'nothing new'}")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m benchmarks"
    add = parser.add_argument
    names = tuple(BENCHMARKS)
    add("--only", nargs="+", choices=names, default=list(names), help="only these")
    add("--data", type=Path, help="folder of the tables and recordings (default: the sample's)")
    add("--tts_data", type=Path, help="folder of the reference speech (default: the sample's)")
    add("--store", type=Path, help="folder of the decoded recordings (default: the sample's)")
    add("--work", type=Path, default=Path("bench"), help="folder for the sample and what comes up")
    add("--backbone", default="whisper-tiny.en", help="of the CPU's models: a name or a directory")
    add("--assets", type=Path, default=Path("assets"), help="folder of the backbones")
    add("--rounds", type=int, default=5, help="timed turns of each side")
    add("--clips", type=int, help="so many in every turn (default: by benchmark)")
    add("--threads", type=int, default=count_processors(), help="of both sides alike")
    add(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default="auto",
        help="of our matrix products, as in training",
    )
    add(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="cpu counts processor seconds, for a machine that others use at the same time",
    )
    add("--profile", action="store_true", help="also show where the time goes, on a CPU")
    add("--quick", action="store_true", help="a dozen clips, two rounds: to see that it runs")
    add("--results", type=Path, help=f"to write (default: {RESULTS.relative_to(clips.ROOT)})")
    arguments = parser.parse_args()
    own = [getattr(arguments, name) for name in clips.FOLDERS]
    if any(own) and not all(own):
        parser.error("--data, --tts_data and --store go together")
    if min(arguments.rounds, arguments.threads, arguments.clips or 1) < 1:
        parser.error("--rounds, --threads and --clips: at least 1")
    return arguments


def setting_of(arguments: argparse.Namespace) -> Setting:
    """Return what the command line says, the sample made where it is wanted and not there."""
    folders = {name: getattr(arguments, name) for name in clips.FOLDERS}
    on_cpu = any(name.endswith("_cpu") and name != "weights_cpu" for name in arguments.only)
    if arguments.data is None:
        folders = {name: arguments.work / name for name in clips.FOLDERS}
        if on_cpu:
            clips.make_sample(arguments.work)
    backbone = Path(arguments.backbone)
    if on_cpu:
        backbone = pretrained.resolve(arguments.backbone, arguments.assets)
    sizes = cases.QUICK if arguments.quick else Sizes()
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
    """Return a benchmark's result and what is to be said of it, a line each."""
    result = outcome.result
    head = (
        f"{name}: {result.ratio:.2f} × ({result.low:.2f} to {result.high:.2f})   "
        f"ours {result.ours:.4g}, baseline {result.baseline:.4g} {result.unit}"
    )
    return "\n".join([head, *(f"  {line}" for line in outcome.lines)])


if __name__ == "__main__":
    torch.manual_seed(clips.SEED)
    cli.run(main)
