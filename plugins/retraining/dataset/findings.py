"""What a check of the dataset found: problems, which stop the run, and warnings, which do not.

A problem would make training or its metrics worthless and certainly needs a fix: a damaged file; the same
content in two classes, one of which must be wrong; more images of valid/ or test/ in another split than the
pipeline file allows, because accuracy would then measure memorisation. Near duplicates in two classes are
only a warning: two animals in one image, or two images of a series, may well have different labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retraining.config.sections import Dataset
from retraining.dataset.duplicates import Duplicates, Group, is_flat
from retraining.dataset.images import InspectedImage
from retraining.dataset.listing import SPLITS, DatasetImage, Listing
from retraining.dataset.reader import image_reader

_HELD_OUT = ("valid", "test")
_NAMED = 3  # images of a group that a line names


@dataclass(frozen=True)
class Problem:
    """Something that stops the run: what it is and its fix, and the offending files, one per line."""

    summary: str
    offenders: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """`conflicts` have the same content in two classes, `doubtful` are near duplicates in two classes.

    `leaking` are the groups, exact or near, with images in more than one split; `leaked` counts their
    images in valid/ and test/. `repeated` are the groups within one split and class.
    """

    damaged: list[tuple[DatasetImage, str]]
    flat: list[DatasetImage]
    tiny: list[DatasetImage]
    conflicts: list[Group]
    doubtful: list[Group]
    leaking: list[Group]
    leaked: Counter[str]
    repeated: list[Group]
    complete: bool


def findings_of(inspected: Sequence[InspectedImage], duplicates: Duplicates) -> Findings:
    """Classify what inspecting and comparing the images found; `inspected` includes damaged files."""
    groups = [*duplicates.exact, *duplicates.near]
    leaking = [group for group in groups if len(group.splits) > 1]
    leaked = {image for group in leaking for image in group.images if image.split in _HELD_OUT}
    return Findings(
        damaged=[(image, facts.problem) for image, facts in inspected if facts.problem],
        flat=[image for image, facts in inspected if not facts.problem and is_flat(facts)],
        tiny=[
            image
            for image, facts in inspected
            if not facts.problem and min(facts.width, facts.height) < image_reader().MIN_SIDE
        ],
        conflicts=[group for group in duplicates.exact if len(group.labels) > 1],
        doubtful=[group for group in duplicates.near if len(group.labels) > 1],
        leaking=leaking,
        leaked=Counter(image.split for image in leaked),
        repeated=[group for group in groups if len(group.splits) == 1 and len(group.labels) == 1],
        complete=duplicates.complete,
    )


def problems_of(findings: Findings, counts: dict[str, Counter[str]], limits: Dataset) -> list[Problem]:
    """Everything that stops the run."""
    problems = []
    if not may_be_left_out(findings, counts, limits):
        total = len(findings.damaged) + sum(count.total() for count in counts.values())
        problems.append(
            Problem(
                f"Files that cannot be read ({len(findings.damaged)} of {total}, more than "
                f"dataset.max_damaged_share, {limits.max_damaged_share:.2%}, allows); replace or delete them",
                tuple(f"{image.path}: {problem}" for image, problem in findings.damaged),
            )
        )
    if findings.conflicts:
        problems.append(
            Problem(
                f"Images in more than one class ({len(findings.conflicts)}); delete the wrong copies",
                tuple(_named(group) for group in findings.conflicts),
            )
        )
    for split, share in _leaked_shares(findings, counts):
        if share > limits.max_leaked_share:
            problems.append(_leak(findings, split, share, limits))
    return problems


def may_be_left_out(findings: Findings, counts: dict[str, Counter[str]], limits: Dataset) -> bool:
    """Whether so few images are damaged that the run may do without them. `counts` are of the others."""
    damaged = len(findings.damaged)
    total = damaged + sum(count.total() for count in counts.values())
    return damaged <= limits.max_damaged_share * total


def warnings_of(
    findings: Findings, counts: dict[str, Counter[str]], listing: Listing, limits: Dataset
) -> list[str]:
    """What a person should know: one sentence for each kind of finding."""
    return [
        *(_about_damage(findings) if may_be_left_out(findings, counts, limits) else ()),
        *_about_files(findings, listing),
        *_about_duplicates(findings),
        *(
            f"Images of {split}/ that are also in another split: {findings.leaked[split]} ({share:.2%}), "
            f"within the limit of {limits.max_leaked_share:.2%}."
            for split, share in _leaked_shares(findings, counts)
            if share <= limits.max_leaked_share
        ),
        *_about_balance(counts, limits),
    ]


def _leaked_shares(findings: Findings, counts: dict[str, Counter[str]]) -> Iterator[tuple[str, float]]:
    """The splits that share images with another split, and the share of their images."""
    for split in _HELD_OUT:
        if findings.leaked[split]:
            yield split, findings.leaked[split] / counts[split].total()


def _leak(findings: Findings, split: str, share: float, limits: Dataset) -> Problem:
    groups = [group for group in findings.leaking if split in group.splits]
    return Problem(
        f"Images of {split}/ that are also in another split ({findings.leaked[split]}, or {share:.2%}; "
        f"dataset.max_leaked_share is {limits.max_leaked_share:.2%}); delete them from one of the splits",
        tuple(f"{_named(group)}: {group.kind}" for group in groups),
    )


def _about_damage(findings: Findings) -> Iterator[str]:
    if findings.damaged:
        image, problem = findings.damaged[0]
        yield (
            f"Files that cannot be read and are left out of training and evaluation: "
            f"{len(findings.damaged)}, such as {image.path}, which {problem}; replace or delete them."
        )


def _about_files(findings: Findings, listing: Listing) -> Iterator[str]:
    if listing.ignored:
        number, example = len(listing.ignored), listing.ignored[0]
        yield f"Files beside the images that are none, and are ignored: {number}, such as {example}."
    if listing.unused:
        number, example = len(listing.unused), listing.unused[0]
        yield f"Files outside <split>/<class>/, which are not used: {number}, such as {example}."
    if findings.tiny:
        number, example = len(findings.tiny), findings.tiny[0].path
        yield f"Images of a few pixels only: {number}, such as {example}; the endpoint would refuse them."
    if findings.flat:
        number, example = len(findings.flat), findings.flat[0].path
        yield f"Images of a single shade: {number}, such as {example}; replace or delete them."


def _about_duplicates(findings: Findings) -> Iterator[str]:
    for exact in (True, False):
        groups = [group for group in findings.repeated if group.exact is exact]
        if groups:
            number = sum(len(group.images) for group in groups)
            yield (
                f"Images that are in a class and split more than once ({groups[0].kind}): {number}, "
                f"such as {_named(groups[0])}; they weigh more than others."
            )
    if findings.doubtful:
        yield (
            f"Groups of near duplicates in more than one class: {len(findings.doubtful)}, such as "
            f"{_named(findings.doubtful[0])}; check their labels."
        )
    if not findings.complete:
        yield (
            "Too many images look alike to compare them all, so the search for near duplicates is "
            "incomplete; all exact copies are found."
        )


def _about_balance(counts: dict[str, Counter[str]], limits: Dataset) -> Iterator[str]:
    for split in SPLITS:
        ranked = counts[split].most_common()
        (most, many), (fewest, few) = ranked[0], ranked[-1]
        if many > limits.max_class_ratio * few:
            yield (
                f"{split}/: {most} has {many} images and {fewest} {few}, a ratio of {many / few:.1f} "
                f"(dataset.max_class_ratio {limits.max_class_ratio:g}); the model will favour the former."
            )


def offending_groups(findings: Findings) -> list[tuple[str, Group]]:
    """Every group once, with what is wrong with it, the most serious first."""
    once: dict[Group, str] = {}
    for title, groups in (
        ("Same content in two classes", findings.conflicts),
        ("In more than one split", findings.leaking),
        ("Near duplicates in two classes", findings.doubtful),
        ("Repeated within a class", findings.repeated),
    ):
        for group in groups:
            once.setdefault(group, title)
    return [(title, group) for group, title in once.items()]


def _named(group: Group) -> str:
    """The paths of the first images, and how many more there are."""
    named = " = ".join(image.path for image in group.images[:_NAMED])
    more = len(group.images) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
