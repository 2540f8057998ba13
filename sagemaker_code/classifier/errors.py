"""Errors in what the user supplied: each message names the input and the fix, and becomes the FailureReason.

All derive from ValueError, and their names end in "ValueError", because AWS's training toolkit reports the
part of stderr that starts at the first line containing the name of a built-in exception.
"""


class InputValueError(ValueError):
    """An input cannot be used; the base of the errors below."""


class HyperparameterValueError(InputValueError):
    """A hyperparameter is missing, unknown or out of range."""


class DatasetValueError(InputValueError):
    """A channel, a class folder or an image cannot be used."""


class ModelValueError(InputValueError):
    """Architecture, weights and image size do not fit together."""


class DivergenceValueError(InputValueError):
    """The loss became infinite or NaN."""


class CheckpointValueError(InputValueError):
    """The checkpoint folder holds no usable checkpoint of this job."""
