"""The flag --plan: what it refuses, and what it leaves out."""

from pathlib import Path

import pytest

from hearback.engine import locks
from hearback.engine.errors import HearbackError
from hearback.engine.plan.command import check_pretrained, writing_nothing
from tests.engine.toy_competition import RECIPES, ToyOptions
from tests.engine.toy_data import write_toy_data


class Pretrained(ToyOptions):
    """Options whose recipes start from a model of the hub."""

    def pretrained_models(self, recipe: object) -> frozenset[tuple[str, Path]]:
        return frozenset({("openai/whisper-none", self.assets), ("mine", self.assets)})


def test_missing_backbones_are_named_with_their_commands_and_not_downloaded(
    tmp_path: Path,
) -> None:
    options = Pretrained(**vars(write_toy_data(tmp_path, n_folds=2)))
    with pytest.raises(HearbackError) as error:
        check_pretrained(options, [RECIPES["small"]])
    first, second = str(error.value).splitlines()
    assert "mine" in first
    assert "--plan downloads nothing" in second
    assert "pretrained openai/whisper-none --assets" in second
    assert not options.assets.exists()


def test_nothing_is_written_while_planning(tmp_path: Path) -> None:
    with (
        writing_nothing(),
        pytest.raises(HearbackError, match="--plan writes nothing"),
        locks.write_lock(tmp_path / "store" / ".lock", "choose another folder"),
    ):
        pass
    assert not (tmp_path / "store").exists()
    with locks.write_lock(tmp_path / "store" / ".lock", "choose another folder"):
        assert not locks.are_refused()
