"""Hyperparameters on both sides of the wall: the plan's limits are those that the script checks."""

from classifier.arguments import HYPERPARAMETERS as THAT_DETERMINE_THE_MODEL
from classifier.arguments import LIMITS, TRAINABLE
from classifier.model import architectures
from retraining.config.architectures import ARCHITECTURES
from retraining.config.hyperparameters import HYPERPARAMETERS, Choice, Numeric

# Set by the plan itself: the form's architecture, and what Debugger's mode asks for.
SET_BY_THE_PLAN = {"arch", "debugger-sampling-ms", "debugger-profile-steps"}


def test_the_plan_knows_the_names_of_the_script() -> None:
    names = {name.replace("_", "-") for name in THAT_DETERMINE_THE_MODEL} | LIMITS.keys()
    assert HYPERPARAMETERS.keys() == names - SET_BY_THE_PLAN


def test_the_plan_knows_the_limits_of_the_script() -> None:
    for name, limits in HYPERPARAMETERS.items():
        if isinstance(limits, Numeric):
            there = LIMITS[name]
            assert (limits.low, limits.high) == (there.low, there.high), name
            assert (limits.exclusive_low, limits.integer) == (there.exclusive, there.whole), name


def test_the_plan_knows_the_choices_of_the_script() -> None:
    choices = {name: limits.words for name, limits in HYPERPARAMETERS.items() if isinstance(limits, Choice)}
    assert choices == {"trainable": TRAINABLE}


def test_the_form_knows_the_architectures() -> None:
    assert list(ARCHITECTURES) == architectures()
