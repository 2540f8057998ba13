"""optuna studies in memory, without optuna's log line for each study."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection


def new_study(*, maximize: bool, name: str | None = None, pruner: BasePruner | None = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
    return optuna.create_study(study_name=name, direction=direction, pruner=pruner)
