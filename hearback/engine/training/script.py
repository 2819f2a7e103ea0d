"""The command line of a script that trains one fold of a recipe."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hearback.engine import cli
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe

PLAN_HELP = (
    "train nothing: measure for about half a minute, and print what the training will take (hours, "
    "memory, disk)"
)

if TYPE_CHECKING:
    from hearback.engine.training.command import MakeTask


def main(
    load_task: "Callable[[], MakeTask]",
    options_type: type[FoldOptions],
    recipe: FoldRecipe,
    program: Sequence[str],
    show_plan: Callable[[FoldRecipe, int, FoldOptions], None] | None = None,
) -> None:
    """Run a training script: parse the command line and train its fold.

    `load_task` returns the competition's task; it is called after the parser, because tasks import
    torch, which takes seconds that --help saves. `program` is the script's command line after
    `python`, for the metadata's `retrain_command`. `show_plan` is called instead of a training with
    --plan, and gets recipe, fold and options.
    """

    def train() -> None:
        parser = cli.parser(sys.modules["__main__"].__doc__)
        parser.add_argument("--fold", type=int, required=True, help="the fold to hold out")
        parser.add_argument(
            "--attempt", type=int, default=1, help="2, 3, …: train with other random numbers"
        )
        if show_plan is not None:
            parser.add_argument("--plan", action="store_true", help=PLAN_HELP)
        options_type.declare(parser)
        arguments = parser.parse_args()
        options = options_type.gather(arguments)
        options.refuse_unused(recipe)
        if show_plan is not None and arguments.plan:
            show_plan(recipe, arguments.fold, options)
            return
        from hearback.engine.training.command import train_fold  # noqa: PLC0415  (imports torch)

        adapted = [options.adapt(recipe)]
        options.resolve_pretrained(adapted)  # before anything is decoded
        metadata = train_fold(
            load_task(),
            recipe,
            arguments.fold,
            options,
            options.load_data(adapted),
            attempt=arguments.attempt,
            program=program,
        )
        print(
            f"{metadata['model']} fold {arguments.fold}: log loss {metadata['log_loss']:.4f} "
            f"(base rate {metadata['base_rate_log_loss']:.4f}), epoch {metadata['best_epoch']} of "
            f"{metadata['epochs'][-1]['epoch']}, {metadata['seconds']:.0f} s"
        )

    cli.run(train)
