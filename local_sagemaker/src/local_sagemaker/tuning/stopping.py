"""Early stopping of running trials: SageMaker's median rule and Hyperband.

For both, a trial is the list of its objective metric's values, one for each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Protocol

import optuna
from optuna.pruners import HyperbandPruner

from local_sagemaker.tuning.studies import new_study

Reports = Sequence[float]


def worse_than_median(reports: Reports, earlier: Sequence[Reports], *, maximize: bool) -> bool:
    """TrainingJobEarlyStoppingType Auto, as in the developer guide's page "Stop Training Jobs Early".

    The newest report is compared with the median of the earlier trials' running averages up to the same
    epoch. Trials that ended before that epoch do not count; if there are no others, the result is False.
    """
    epoch = len(reports)
    if not reports:
        return False
    averages = [fmean(run[:epoch]) for run in earlier if len(run) >= epoch]
    averages = [average for average in averages if not math.isnan(average)]
    if not averages:
        return False
    if math.isnan(reports[-1]):
        return True
    return reports[-1] < median(averages) if maximize else reports[-1] > median(averages)


class StoppingRule(Protocol):
    """Follows the trials of one tuning job, which are numbered from 1."""

    def follow(self, number: int, reports: Reports) -> bool:
        """Whether to stop a running trial, from all its reports so far."""
        ...

    def finished(self, number: int, reports: Reports) -> None:
        """Learn from all reports of a trial that has ended or was stopped."""
        ...


class NeverStop:
    """TrainingJobEarlyStoppingType Off."""

    def follow(self, number: int, reports: Reports) -> bool:  # noqa: ARG002
        return False

    def finished(self, number: int, reports: Reports) -> None:
        """Learn nothing."""


class MedianRule:
    """TrainingJobEarlyStoppingType Auto: `worse_than_median` at every epoch, compared with ended trials.

    Of a trial that ran on while the runtime was down, only the newest report counts.
    """

    def __init__(self, *, maximize: bool) -> None:
        self._maximize = maximize
        self._ended: dict[int, Reports] = {}
        self._judged: dict[int, int] = {}

    def follow(self, number: int, reports: Reports) -> bool:
        judged = self._judged.get(number, max(len(reports) - 1, 0))
        self._judged[number] = len(reports)
        earlier = list(self._ended.values())
        return any(
            worse_than_median(reports[:epoch], earlier, maximize=self._maximize)
            for epoch in range(judged + 1, len(reports) + 1)
        )

    def finished(self, number: int, reports: Reports) -> None:
        self._ended[number] = reports


class Hyperband:
    """optuna's asynchronous successive halving in brackets; the resource is reports of the objective metric.

    A trial's bracket depends only on the tuning job's name and the trial's number, so that after a restart
    the same reports give the same decisions.
    """

    def __init__(self, name: str, *, maximize: bool, min_resource: int, max_resource: int) -> None:
        self._max_resource = max_resource
        self._study = new_study(
            name=name,
            maximize=maximize,
            pruner=HyperbandPruner(min_resource=min_resource, max_resource=max_resource),
        )
        self._trials: list[optuna.Trial] = []
        self._judged: dict[int, int] = {}

    def follow(self, number: int, reports: Reports) -> bool:
        judged = self._judged.get(number, 0)
        self._judged[number] = len(reports)
        verdicts = [
            self._stops(number, epoch, reports[epoch - 1]) for epoch in range(judged + 1, len(reports) + 1)
        ]
        return any(verdicts)

    def finished(self, number: int, reports: Reports) -> None:
        self.follow(number, reports)

    def _stops(self, number: int, epoch: int, value: float) -> bool:
        """Whether to stop after one report.

        AWS stops a job that reaches MaxResource. Here it may report once more, as scripts do for their final
        model, so that a job which ends there by itself can still write its model.
        """
        while len(self._trials) < number:
            self._trials.append(self._study.ask())
        if math.isnan(value):
            return True
        if epoch >= self._max_resource:
            return epoch > self._max_resource + 1
        trial = self._trials[number - 1]
        trial.report(value, epoch)
        return trial.should_prune()
