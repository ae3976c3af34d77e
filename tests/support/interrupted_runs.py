"""Training that is cut off in the middle."""

import pytest

from van.train import run
from van.train.module import TrainingModule


class CutError(Exception):
    """The power failure of these tests."""


def cut_off(monkeypatch, recipe, *, at_step):
    """Run until `at_step` steps are done, then fail as a killed process would."""
    step = TrainingModule.training_step

    def failing(self, batch, batch_idx):
        if self.global_step == at_step:
            raise CutError
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", failing)
    with pytest.raises(CutError):
        run(recipe)
    monkeypatch.undo()
