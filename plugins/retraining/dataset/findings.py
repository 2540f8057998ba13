"""What a check of the data set found out, as errors, which stop the run, and warnings, which do not.

An error is what makes training or its figures worthless and can be put right for certain: a damaged file; the
same content under two classes, of which one is wrong; more pictures of valid/ or test/ in another split than
the pipeline file allows, by which accuracy would measure memory. Near duplicates under two classes are a
warning: two animals in one picture, or two pictures of a series, may well have different labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from retraining.config.sections import Dataset
from retraining.dataset.duplicates import Duplicates, Group, Seen, is_flat, shortened
from retraining.dataset.listing import SPLITS, Picture

_HELD_OUT = ("valid", "test")
_EXAMPLE = 3  # pictures of a group that a line names


@dataclass(frozen=True)
class Problem:
    """Something that stops the run: what it is with the fix, and the offenders, one a line."""

    summary: str
    offenders: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """`conflicts` have one content under two classes, `doubtful` are near duplicates under two classes.

    `leaking` are the groups, exact or near, with pictures in more than one split; `leaked` counts those of
    their pictures that are in valid/ or test/. `repeated` are the groups within one split and class.
    """

    damaged: list[tuple[Picture, str]]
    flat: list[Picture]
    conflicts: list[Group]
    doubtful: list[Group]
    leaking: list[Group]
    leaked: Counter[str]
    repeated: list[Group]
    complete: bool


def findings_of(seen: Sequence[Seen], duplicates: Duplicates) -> Findings:
    """Sort out what reading the pictures and comparing them found; `seen` has the damaged ones, too."""
    groups = [*duplicates.exact, *duplicates.near]
    leaking = [group for group in groups if len(group.splits) > 1]
    leaked = {picture for group in leaking for picture in group.pictures if picture.split in _HELD_OUT}
    return Findings(
        damaged=[(picture, look.problem) for picture, look in seen if look.problem],
        flat=[picture for picture, look in seen if not look.problem and is_flat(look)],
        conflicts=[group for group in duplicates.exact if len(group.labels) > 1],
        doubtful=[group for group in duplicates.near if len(group.labels) > 1],
        leaking=leaking,
        leaked=Counter(picture.split for picture in leaked),
        repeated=[group for group in groups if len(group.splits) == 1 and len(group.labels) == 1],
        complete=duplicates.complete,
    )


def problems_of(findings: Findings, counts: dict[str, Counter[str]], limits: Dataset) -> list[Problem]:
    """What stops the run."""
    problems = []
    if findings.damaged:
        problems.append(
            Problem(
                f"Files that cannot be read ({len(findings.damaged)}); replace or delete them",
                tuple(f"{picture.path}: {wrong}" for picture, wrong in findings.damaged),
            )
        )
    if findings.conflicts:
        problems.append(
            Problem(
                f"Pictures in more than one class ({len(findings.conflicts)}); delete the wrong copies",
                tuple(shortened(group.pictures, _EXAMPLE) for group in findings.conflicts),
            )
        )
    for split, share in _leaked_shares(findings, counts):
        if share > limits.max_leaked_share:
            problems.append(_leak(findings, split, share, limits))
    return problems


def warnings_of(
    findings: Findings, counts: dict[str, Counter[str]], unused: Sequence[str], limits: Dataset
) -> list[str]:
    """What a person should know, one sentence each however many pictures it is about."""
    return [
        *_about_files(findings, unused),
        *_about_duplicates(findings),
        *(
            f"Pictures of {split}/ that are also in another split: {findings.leaked[split]} ({share:.2%}), "
            f"within the limit of {limits.max_leaked_share:.2%}."
            for split, share in _leaked_shares(findings, counts)
            if share <= limits.max_leaked_share
        ),
        *_about_balance(counts, limits),
    ]


def _leaked_shares(findings: Findings, counts: dict[str, Counter[str]]) -> Iterator[tuple[str, float]]:
    """The splits that have pictures of another split, with their share of the split's pictures."""
    for split in _HELD_OUT:
        if findings.leaked[split]:
            yield split, findings.leaked[split] / counts[split].total()


def _leak(findings: Findings, split: str, share: float, limits: Dataset) -> Problem:
    groups = [group for group in findings.leaking if split in group.splits]
    return Problem(
        f"Pictures of {split}/ that are also in another split ({findings.leaked[split]}, which are "
        f"{share:.2%}; dataset.max_leaked_share is {limits.max_leaked_share:.2%}); delete them from one of "
        "the splits",
        tuple(f"{shortened(group.pictures, _EXAMPLE)}: {group.kind}" for group in groups),
    )


def _about_files(findings: Findings, unused: Sequence[str]) -> Iterator[str]:
    if unused:
        number, example = len(unused), unused[0]
        yield f"Files that are not at <split>/<class>/<file> and not used: {number}, such as {example}."
    if findings.flat:
        number, example = len(findings.flat), findings.flat[0].path
        yield f"Pictures of nothing but one shade: {number}, such as {example}; replace or delete them."


def _about_duplicates(findings: Findings) -> Iterator[str]:
    for exact in (True, False):
        groups = [group for group in findings.repeated if group.exact is exact]
        if groups:
            number, example = sum(len(group.pictures) for group in groups), groups[0].pictures
            yield (
                f"Pictures that are in a class and split more than once ({groups[0].kind}): {number}, "
                f"such as {shortened(example, _EXAMPLE)}; they count more than others."
            )
    if findings.doubtful:
        number, example = len(findings.doubtful), findings.doubtful[0].pictures
        yield (
            f"Groups of near duplicates in more than one class: {number}, such as "
            f"{shortened(example, _EXAMPLE)}; look whether a label is wrong."
        )
    if not findings.complete:
        yield (
            "More pictures look alike than can be compared with each other, so the search for near "
            "duplicates is incomplete; exact copies are all found."
        )


def _about_balance(counts: dict[str, Counter[str]], limits: Dataset) -> Iterator[str]:
    for split in SPLITS:
        ranked = counts[split].most_common()
        (most, many), (fewest, few) = ranked[0], ranked[-1]
        if many > limits.max_class_ratio * few:
            yield (
                f"{split}/: {most} has {many} pictures and {fewest} {few}, a ratio of {many / few:.1f} "
                f"(dataset.max_class_ratio {limits.max_class_ratio:g}); the model will favour the former."
            )


def offending_groups(findings: Findings) -> list[tuple[str, Group]]:
    """Every group once, the worst first, with what is wrong with it."""
    named = chain(
        (("Same content in two classes", group) for group in findings.conflicts),
        (("In more than one split", group) for group in findings.leaking),
        (("Near duplicates in two classes", group) for group in findings.doubtful),
        (("Repeated within a class", group) for group in findings.repeated),
    )
    once: dict[tuple[bool, tuple[Picture, ...]], tuple[str, Group]] = {}
    for title, group in named:
        once.setdefault((group.exact, group.pictures), (title, group))
    return list(once.values())
