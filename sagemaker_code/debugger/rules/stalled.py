"""Rule on elapsed time: does the job still save tensors?"""

from typing import ClassVar

from debugger.rules.base import DebuggerRule, Finding, Parameter, boolean, number, positive


class StalledTrainingRule(DebuggerRule):
    """Fires if no new step is saved for ``threshold`` seconds while the job runs.

    ``stop_training_on_fire`` requests that the job be stopped. Our interpretation: before the first step, the
    time since the start of the evaluation counts.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "threshold": Parameter(positive, 1800.0),
        "stop_training_on_fire": Parameter(boolean, default=False),
    }
    WANTS = "any saved tensor"
    NEEDED = 1
    _last: int | None = None
    _longest = 0.0

    def judge(self, step: int) -> Finding | None:
        """Remember the step."""
        self.judged += 1
        self._last = step
        return None

    def idle(self, seconds: float) -> Finding | None:
        """Compare the wait with the threshold."""
        threshold = self.parameters["threshold"]
        if seconds > self._longest:
            self._longest = seconds
            self.closest = f"Longest wait for a step: {number(seconds)} s, threshold {threshold:g} s."
        if seconds <= threshold:
            return None
        since = "the start of the evaluation" if self._last is None else f"step {self._last}"
        return Finding(
            self._last or 0,
            f"no tensor has been saved for {seconds:.0f} s since {since}, longer than the threshold "
            f"{threshold:g} s.",
            "check the job's log and CPU use: common causes are a data loader that waits for its workers and "
            "a full disk; if steps are merely slow, save more often or raise the threshold",
        )
