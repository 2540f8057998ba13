"""What a user can do wrong: every error names the input and the fix, as it becomes the FailureReason.

The classes derive from ValueError for AWS's training toolkit too: it reports the part of stderr that starts
at the first line with the name of a built-in exception in it.
"""


class InputValueError(ValueError):
    """Something the user supplied cannot be used; the base of the errors below."""


class HyperparameterValueError(InputValueError):
    """A hyperparameter is missing, unknown or out of range."""


class DatasetValueError(InputValueError):
    """A channel, a class folder or a picture cannot be used."""


class PictureValueError(InputValueError):
    """One picture cannot be decoded; the text is the reason, without the name of its source."""


class ModelValueError(InputValueError):
    """The architecture, its weights or the image size do not go together."""


class DivergenceValueError(InputValueError):
    """The loss became infinite or not a number."""


class CheckpointValueError(InputValueError):
    """The checkpoint folder does not hold a checkpoint of this job."""
