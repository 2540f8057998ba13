"""Names and ARNs of the registry's resources: requests may use either."""

from __future__ import annotations

GROUP_KIND = "model-package-group"
PACKAGE_KIND = "model-package"


def name_of(name_or_arn: str) -> str:
    """The name in the store: `pets` of a group, `pets/3` of a version, given as such or as an ARN."""
    return name_or_arn.rpartition(":")[2].partition("/")[2] if ":" in name_or_arn else name_or_arn
