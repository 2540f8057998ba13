"""Rules on the course of the loss.

The loss of a single batch says little, so the rules compare means: over a validation pass, over the training
steps between two validation passes, over ``num_steps`` training steps. This is our interpretation of "mean
loss" and "step" on AWS's page.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from debugger.rules.base import (
    DebuggerRule,
    Finding,
    Parameter,
    boolean,
    count,
    names,
    number,
    patterns,
    positive,
)

TRAIN, EVAL = "TRAIN", "EVAL"
FEWEST_TRAINING_VALUES = 3
"""A training mean includes older values until it has this many."""
NEW_PASS = 4
"""A gap of this many times the usual one between saved validation steps starts a new pass."""


def mode_name(text: str) -> str:
    """A mode as smdebug names it. Raises ValueError for anything else."""
    mode = text.strip().upper().removeprefix("MODES.").removeprefix("MODE.")
    if mode not in ("TRAIN", "EVAL", "PREDICT", "GLOBAL"):
        raise ValueError(text)
    return mode


@dataclass
class Pass:
    """Consecutive saved steps of one mode."""

    mode: str
    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def mean(self) -> float:
        """Mean loss of the pass."""
        return float(np.mean(self.values))

    def continues(self, mode: str, step: int) -> bool:
        """Whether a saved step belongs to this pass."""
        if mode != self.mode:
            return False
        if mode == TRAIN or len(self.steps) < 2:
            return True
        return bool(step - self.steps[-1] <= NEW_PASS * min(np.diff(self.steps)))


class LossRule(DebuggerRule):
    """A rule on the losses: the tensors that tensor_regex selects, or the collection ``losses``."""

    WANTS = "the loss (collection 'losses') at training and at validation steps"

    def loss(self, step: int) -> float | None:
        """Mean of the scalar losses saved at a step."""
        if self.parameters.get("tensor_regex") or self.parameters.get("collection_names"):
            chosen = self.selected(step)
        else:
            chosen = []
        if self.parameters.get("use_losses_collection", not chosen):
            chosen = sorted({*chosen, *self.reader.in_collection("losses", step)})
        values = [self.reader.value(name, step) for name in chosen]
        scalars = [float(one.reshape(-1)[0]) for one in values if one is not None and one.size == 1]
        return float(np.mean(scalars)) if scalars else None


class PassRule(LossRule):
    """A rule that compares a complete validation pass with the training before it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._current: Pass | None = None
        self._training: list[float] = []
        self._since = 0

    def judge(self, step: int) -> Finding | None:
        """Add the step's loss to its pass; evaluate if that ends a validation pass."""
        mode, loss = self.reader.mode(step), self.loss(step)
        if mode not in (TRAIN, EVAL) or loss is None:
            return None
        finding = None
        if self._current is None or not self._current.continues(mode, step):
            finding = self.finish()
            self._current = Pass(mode)
        self._current.steps.append(step)
        self._current.values.append(loss)
        if mode == TRAIN:
            self._training.append(loss)
            self._since += 1
        return finding

    def finish(self) -> Finding | None:
        """Evaluate a validation pass that no step follows."""
        ended, self._current = self._current, None
        if ended is None or ended.mode != EVAL or not self._training:
            return None
        values = self._training[-max(self._since, FEWEST_TRAINING_VALUES) :]
        self._since = 0
        self.judged += 1
        return self.compare(float(np.mean(values)), ended)

    def compare(self, training: float, validation: Pass) -> Finding | None:
        """Compare a training mean with the validation pass that followed it."""
        raise NotImplementedError


class Overfit(PassRule):
    """Fires if (mean validation loss - mean training loss) / mean training loss exceeds ``ratio_threshold``
    in ``patience`` consecutive comparisons from ``start_step`` on.

    Our interpretation: one comparison per validation pass. The first does not count, because a model that has
    seen every image once cannot have memorised them.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "tensor_regex": Parameter(patterns, None),
        "start_step": Parameter(lambda text: int(float(text)), 0),
        "patience": Parameter(count, 1),
        "ratio_threshold": Parameter(positive, 0.1),
    }
    _exceeded = 0
    _highest = -np.inf

    def compare(self, training: float, validation: Pass) -> Finding | None:
        """Count comparisons above the threshold."""
        step = validation.steps[-1]
        if self.judged == 1 or step < self.parameters["start_step"]:
            return None
        ratio = (validation.mean() - training) / max(abs(training), 1e-12)
        threshold = self.parameters["ratio_threshold"]
        if ratio > self._highest:
            self._highest = ratio
            self.closest = f"Largest ratio: {number(ratio)} at step {step}, threshold {threshold:g}."
        self._exceeded = self._exceeded + 1 if ratio > threshold else 0
        if self._exceeded < self.parameters["patience"]:
            return None
        return Finding(
            step,
            f"the validation loss {number(validation.mean())} exceeds the training loss "
            f"{number(training)} by {number(ratio)} times the latter at step {step}, above the threshold "
            f"{threshold:g}.",
            "train fewer epochs or keep the best epoch, add augmentation, weight-decay or "
            "label-smoothing, train fewer layers, or collect more images",
        )


class Overtraining(PassRule):
    """Fires if the training loss has not improved by ``delta`` for ``patience_train`` steps, or the
    validation loss for ``patience_validation`` steps.

    Our interpretation: a step is one validation pass with the training before it. A training loss that has
    never improved is not overtraining; LossNotDecreasing reports it.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "patience_train": Parameter(count, 5),
        "patience_validation": Parameter(count, 10),
        "delta": Parameter(positive, 0.01),
    }

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._best = {TRAIN: np.inf, EVAL: np.inf}
        self._best_step = {TRAIN: 0, EVAL: 0}
        self._waited = {TRAIN: 0, EVAL: 0}
        self._improved = False

    def compare(self, training: float, validation: Pass) -> Finding | None:
        """Count comparisons without an improvement."""
        step = validation.steps[-1]
        current = {TRAIN: training, EVAL: validation.mean()}
        for mode, loss in current.items():
            if loss < self._best[mode] - self.parameters["delta"]:
                self._improved = self._improved or (mode == TRAIN and np.isfinite(self._best[mode]))
                self._best[mode], self._best_step[mode], self._waited[mode] = loss, step, 0
            else:
                self._waited[mode] += 1
        self.closest = (
            f"Comparisons without improvement: {self._waited[TRAIN]} in training (patience "
            f"{self.parameters['patience_train']}), {self._waited[EVAL]} in validation (patience "
            f"{self.parameters['patience_validation']})."
        )
        if not self._improved:
            return None
        for mode, name in ((EVAL, "validation"), (TRAIN, "training")):
            patience = self.parameters["patience_validation" if mode == EVAL else "patience_train"]
            if self._waited[mode] >= patience:
                return Finding(
                    step,
                    f"the {name} loss has not improved by {self.parameters['delta']:g} in "
                    f"{self._waited[mode]} comparisons (patience {patience}): best "
                    f"{number(self._best[mode])} at step {self._best_step[mode]}, now "
                    f"{number(current[mode])} at step {step}.",
                    f"stop at the epoch around step {self._best_step[mode]} or lower epochs; keep the "
                    "best epoch's model",
                )
        return None


class LossNotDecreasing(LossRule):
    """Fires if the loss does not fall by ``diff_percent`` over ``num_steps`` steps.

    Our interpretation: the mean loss of the last ``num_steps`` steps is compared with the lowest such mean
    before; if losses are saved ``num_steps`` or more apart, that is the single value of AWS's page. Because
    batches differ, a rise counts immediately only if the noise (the spread of the loss around its trend) is
    within ``increase_threshold_percent``. Otherwise each mean covers at least five saved values, and the rule
    fires if three comparisons in a row show no fall and the three windows together are not below the values
    before them, or if the whole course of six comparisons (three when training has ended) shows no fall.
    "Below" means by more than one standard error of the difference of the means. A loss that is not finite
    fires immediately. Mode GLOBAL means training losses if the run distinguishes modes.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "collection_names": Parameter(names, None),
        "tensor_regex": Parameter(patterns, None),
        "use_losses_collection": Parameter(boolean, default=True),
        "num_steps": Parameter(count, 10),
        "diff_percent": Parameter(positive, 0.1),
        "increase_threshold_percent": Parameter(positive, 5.0),
        "mode": Parameter(mode_name, "GLOBAL"),
    }
    WANTS = "the loss (collection 'losses') at training steps that lie num_steps apart"
    NEEDED = 1
    NOISY_COMPARISONS, NOISY_VALUES = 3, 5
    """For a noisy loss: comparisons without a fall before the rule fires, and values in each mean."""
    ADVICE = (
        "if it never fell, try lr ten times higher and check that the images have the right labels; if it "
        "rose or jumps, try lr ten times lower"
    )
    COURSE_COMPARISONS, COURSE_COMPARISONS_AT_END = 6, 3

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._anchor: int | None = None
        self._window = 0
        self._best = np.inf
        self._best_step = 0
        self._failed = 0

    def judge(self, step: int) -> Finding | None:
        """Every ``num_steps`` steps, compare the window that ends here with the best one before it."""
        mode, loss = self.reader.mode(step), self.loss(step)
        wanted = (TRAIN, "GLOBAL") if self.parameters["mode"] == "GLOBAL" else (self.parameters["mode"],)
        if mode not in wanted or loss is None:
            return None
        if not np.isfinite(loss):
            self.judged += 1
            return Finding(
                step, f"the loss is {loss} at step {step}.", "lower lr by a factor of ten, clip gradients"
            )
        self._steps.append(step)
        self._losses.append(loss)
        at = self.reader.mode_step(step)
        if self._anchor is None:
            self._anchor = at
        if at - self._anchor < self.parameters["num_steps"] or not self._window_is_full():
            return None
        self._anchor = at
        if np.isfinite(self._best):
            return self._compare()
        earlier = max(1, len(self._losses) - 1)
        self._best, self._best_step = float(np.mean(self._losses[:earlier])), self._steps[earlier - 1]
        self._window = earlier
        return self._compare() if earlier == 1 else None

    def _window_is_full(self) -> bool:
        return not self._noisy() or len(self._losses) - self._window >= self.NOISY_VALUES

    def finish(self) -> Finding | None:
        """Evaluate a run that is too short for a second full window by the values it has."""
        if self.judged == 0 and np.isfinite(self._best) and self._window < len(self._steps):
            return self._compare()
        return self._course() if self.judged >= self.COURSE_COMPARISONS_AT_END else None

    def insufficient_data(self) -> str:
        """Explains how many losses are missing."""
        if self._losses:
            return (
                f"{len(self._losses)} losses were saved, too few to compare means "
                f"{self.parameters['num_steps']} steps apart: train longer or save the loss more often."
            )
        return super().insufficient_data()

    def _compare(self) -> Finding | None:
        """Compare the mean of the values since the last comparison with the best mean so far."""
        step = self._steps[-1]
        current = float(np.mean(self._losses[self._window :]))
        self._window = len(self._steps)
        before, before_step = self._best, self._best_step
        self.judged += 1
        fall = 100.0 * (before - current) / max(abs(before), 1e-12)
        if fall >= self.parameters["diff_percent"]:
            self._best, self._best_step, self._failed = current, step, 0
        else:
            self._failed += 1
        self.closest = (
            f"Last: {number(current)} up to step {step} against {number(before)} up to step "
            f"{before_step}, a fall of {number(fall)} % (threshold {self.parameters['diff_percent']:g} "
            "%)."
        )
        noisy = self._noisy()
        if self._failed < (self.NOISY_COMPARISONS if noisy else 1) or (noisy and self._fell_recently()):
            return self._course() if self.judged >= self.COURSE_COMPARISONS else None
        change = f"fell by only {number(fall)} %" if fall >= 0 else f"rose by {number(-fall)} %"
        return Finding(
            step,
            f"the loss {change} from {number(before)} (up to step {before_step}) to {number(current)} (up "
            f"to step {step}); it should fall by {self.parameters['diff_percent']:g} % every "
            f"{self.parameters['num_steps']} steps, and failed to {self._failed} times in a row.",
            self.ADVICE,
        )

    def _fell_recently(self) -> bool:
        """Whether the last windows without a fall, taken together, are below as many values before them."""
        number_of_values = self.NOISY_COMPARISONS * self.NOISY_VALUES
        later = self._losses[-number_of_values:]
        earlier = self._losses[:-number_of_values][-number_of_values:]
        return _fall(earlier, later) > 1.0

    def _course(self) -> Finding | None:
        """Compare the first and the second half of all losses so far."""
        half = len(self._losses) // 2
        earlier, later = self._losses[:half], self._losses[half:]
        if half < 2 or _fall(earlier, later) > 1.0:
            return None
        step = self._steps[-1]
        return Finding(
            step,
            f"the loss does not fall: its mean is {number(float(np.mean(earlier)))} up to step "
            f"{self._steps[half - 1]} and {number(float(np.mean(later)))} from there to step {step}, a "
            f"difference that chance explains; it should fall by {self.parameters['diff_percent']:g} % "
            f"every {self.parameters['num_steps']} steps.",
            self.ADVICE,
        )

    def _noisy(self) -> bool:
        return bool(self._noise() > self.parameters["increase_threshold_percent"])

    def _noise(self) -> float:
        """Spread of the loss around its trend in per cent of the mean; infinite for fewer than three values.

        Second differences cancel the trend, and their standard deviation is sqrt(6) times that of the noise.
        It is estimated robustly from the median absolute value (times 1.4826 for a normal distribution).
        """
        losses = np.array(self._losses[-50:])
        if len(losses) < 3:
            return float("inf")
        spread = 1.4826 * float(np.median(np.abs(np.diff(losses, 2)))) / np.sqrt(6.0)
        return float(100.0 * spread / max(float(np.mean(np.abs(losses))), 1e-12))


def _fall(earlier: list[float], later: list[float]) -> float:
    """The fall of the mean in standard errors of the difference; infinite for fewer than two values each."""
    if min(len(earlier), len(later)) < 2:
        return float("inf")
    error = np.sqrt(np.var(earlier, ddof=1) / len(earlier) + np.var(later, ddof=1) / len(later))
    return float((np.mean(earlier) - np.mean(later)) / max(float(error), 1e-12))
