"""The gate: which model goes live, and the sentence that explains the decision."""

from __future__ import annotations

from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.aws.s3 import write_json
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Gate
from retraining.errors import CandidateError
from retraining.evaluation.gate import decide, gate, table
from retraining.formatting import signed
from retraining.runs.results import Decision

from tests.dags.airflow_home import BUCKET
from tests.plugins.evaluations import NO_RULES, evaluation_document

DOGS = {"a.Akita": 6, "b.Boxer": 6, "c.Collie": 6}


def better(**right: int) -> dict[str, int]:
    """The champion's correct predictions, except for classes that are given by their first letter."""
    return {name: right.get(name[0], count) for name, count in DOGS.items()}


def decided(document: Any, debugger: Any = NO_RULES, **settings: Any) -> Decision:
    return decide(Gate(**settings), document, debugger)


def failed(decision: Decision) -> list[str]:
    return [check["name"] for check in decision["checks"] if not check["passed"]]


@pytest.mark.parametrize(
    ("wanted", "bound", "approved"),
    [
        (0.0, 0.01, True),
        (0.0, 0.0, False),
        (0.0, -0.01, False),
        (0.02, 0.02, False),
        (0.02, 0.02 + 1e-12, False),
        (0.02, 0.0201, True),
        (-0.05, -0.04, True),
        (-0.05, 0.0, True),
        (-0.05, -0.05, False),
    ],
)
def test_the_lower_bound_of_the_gain_must_exceed_what_is_required(
    wanted: float, bound: float, approved: bool
) -> None:
    document = evaluation_document(better(a=9), DOGS, lower_bound=bound)
    decision = decided(document, min_improvement=wanted)
    assert decision["approved"] is approved
    assert failed(decision) == ([] if approved else ["improvement"])


def test_an_equal_model_stays_out_unless_equal_is_enough() -> None:
    same = evaluation_document(DOGS, DOGS)
    assert decided(same)["approved"] is False
    assert decided(same, min_improvement=-0.01)["approved"] is True
    perfect = dict.fromkeys(DOGS, 10)
    assert decided(evaluation_document(perfect, perfect))["approved"] is False


@pytest.mark.parametrize(("accuracy", "approved"), [(0.6, True), (0.5, True), (0.61, False)])
def test_a_first_model_must_reach_the_least_accuracy(accuracy: float, approved: bool) -> None:
    decision = decided(evaluation_document(DOGS), min_accuracy=accuracy)
    assert decision["approved"] is approved
    assert decision["champion"] is False
    assert [check["name"] for check in decision["checks"]] == ["accuracy", "debugger_rules"]
    assert decision["figures"]["champion"] is None
    assert decision["figures"]["improvement"] is None
    assert f"accuracy 0.600 without a champion ({accuracy:.3f} is required)" in decision["sentence"]


@pytest.mark.parametrize(("lost", "allowed", "approved"), [(4, 0.2, True), (3, 0.2, False), (3, 0.3, True)])
def test_no_class_may_lose_more_recall_than_allowed(lost: int, allowed: float, approved: bool) -> None:
    document = evaluation_document(better(a=10, b=10, c=lost), DOGS)
    decision = decided(document, max_class_regression=allowed)
    assert decision["approved"] is approved
    assert failed(decision) == ([] if approved else ["class_regression"])


def test_the_class_that_blocks_is_named_with_its_images() -> None:
    decision = decided(evaluation_document(better(a=10, b=10, c=2), DOGS))
    assert decision["sentence"] == (
        "The challenger stays out: c.Collie falls from recall 0.60 to 0.20 (\u22120.40; from 6 to 2 of 10 "
        "images): more than the 0.20 that a class may lose. It has accuracy 0.733 "
        "against the champion's 0.600 (+0.133; at least +0.133 with 95 % confidence, more than +0.000 is "
        "required)."
    )
    worst = decision["figures"]["weakest_classes"][0]
    assert (worst["class"], worst["support"]) == ("c.Collie", 10)
    assert worst["difference"] == pytest.approx(-0.4)


def test_many_lost_classes_are_counted() -> None:
    names = [f"{letter}.Dog" for letter in "abcdef"]
    document = evaluation_document(dict.fromkeys(names, 1), dict.fromkeys(names, 9))
    text = next(c["text"] for c in decided(document)["checks"] if c["name"] == "class_regression")
    assert "a.Dog" in text
    assert "d.Dog" not in text
    assert "and 3 more" in text


def test_a_class_without_images_neither_blocks_nor_helps() -> None:
    shown = {"a.Akita": 10, "b.Boxer": 10, "c.Collie": 0}
    document = evaluation_document(better(a=10, c=0), better(c=0), images=shown)
    decision = decided(document)
    assert decision["approved"] is True
    assert [row["class"] for row in decision["figures"]["weakest_classes"]] == ["b.Boxer", "a.Akita"]


def test_a_class_that_only_the_challenger_knows_cannot_regress() -> None:
    decision = decided(evaluation_document({**DOGS, "d.Dingo": 0}, DOGS, lower_bound=0.1))
    assert decision["approved"] is True


def test_a_challenger_that_lacks_classes_goes_live_only_by_a_person() -> None:
    shown = {"a.Akita": 10, "b.Boxer": 10, "c.Collie": 10, "d.Dingo": 0}
    document = evaluation_document(better(a=10), {**DOGS, "d.Dingo": 0}, images=shown, lower_bound=0.1)
    decision = decided(document)
    assert decision["ask"] == "it lacks a class of the champion (d.Dingo)"
    assert decision["sentence"].startswith(
        "The challenger goes live only if a person approves, because it lacks a class of the champion "
        "(d.Dingo): accuracy "
    )
    assert decided(document, allow_lost_classes=True)["ask"] is None
    worse = evaluation_document(better(a=1), {**DOGS, "d.Dingo": 0}, images=shown)
    assert decided(worse)["ask"] is None  # nobody is asked about what stays out


def test_accuracies_on_classes_that_one_model_cannot_know_are_told_apart() -> None:
    decision = decided(evaluation_document({**better(a=8), "d.Dingo": 4}, DOGS, lower_bound=0.1))
    assert (
        "the champion cannot know 10 of the 40 test images (d.Dingo), and on the others it is 0.667 "
        "against 0.600"
    ) in decision["sentence"]
    assert decision["ask"] is None

    fish = {"g.Guppy": 8, "h.Haddock": 6}
    shown = {**dict.fromkeys(DOGS, 0), **dict.fromkeys(fish, 10)}
    strangers = evaluation_document(fish, dict.fromkeys(DOGS, 0), images=shown)
    decision = decided(strangers)
    assert "against the champion" not in decision["sentence"]
    assert (
        "accuracy 0.700 on classes of which the champion knows none (0.000 is required)"
        in decision["sentence"]
    )
    assert decision["ask"] == "it lacks 3 classes of the champion (a.Akita, b.Boxer, c.Collie)"
    assert decided(strangers, min_accuracy=0.8)["approved"] is False


@pytest.mark.parametrize(("images", "approved"), [(10, False), (0, True)])
def test_a_class_may_be_forgotten_only_where_the_dataset_dropped_it(images: int, approved: bool) -> None:
    shown = {"a.Akita": 10, "b.Boxer": 10, "c.Collie": 10, "d.Dingo": images}
    document = evaluation_document(better(a=10), {**DOGS, "d.Dingo": 0}, images=shown, lower_bound=0.1)
    decision = decided(document)
    assert decision["approved"] is approved
    assert failed(decision) == ([] if approved else ["known_classes"])
    check = next(c for c in decision["checks"] if c["name"] == "known_classes")
    assert ("the dataset dropped" if approved else "does not know d.Dingo") in check["text"]


def test_a_rule_that_could_not_tell_is_named_and_blocks_nothing() -> None:
    rule = {"rule": "Overfit", "verdict": "unknown"}
    decision = decided(evaluation_document(better(a=10), DOGS), {**NO_RULES, "rules": [rule]})
    [check] = [check for check in decision["checks"] if check["name"] == "debugger_rules"]
    assert check["passed"]
    assert check["text"].endswith("could not tell: Overfit")


def test_debugger_rules_block() -> None:
    decision = decided(evaluation_document(better(a=10), DOGS), {**NO_RULES, "blocking": ["Overfit"]})
    assert decision["approved"] is False
    assert "stays out: Debugger rules with the policy fail found something: Overfit" in decision["sentence"]


@pytest.mark.parametrize(
    ("right", "bound", "sentence"),
    [
        (
            {"a": 9},
            0.021,
            "The challenger goes live: accuracy 0.700 against the champion's 0.600 (+0.100; at least +0.021 "
            "with 95 % confidence, more than +0.000 is required).",
        ),
        (
            {"a": 5},
            -0.051,
            "The challenger stays out: accuracy 0.567 against the champion's 0.600 (\u22120.033; at least "
            "\u22120.051 with 95 % confidence, more than +0.000 is required).",
        ),
    ],
)
def test_the_sentence_has_the_numbers(right: dict[str, int], bound: float, sentence: str) -> None:
    assert decided(evaluation_document(better(**right), DOGS, lower_bound=bound))["sentence"] == sentence


def test_all_reasons_are_in_the_sentence() -> None:
    document = evaluation_document(better(c=1), DOGS, lower_bound=-0.3)
    sentence = decided(document, {**NO_RULES, "blocking": ["Overfit"]})["sentence"]
    for part in ("accuracy 0.433", "c.Collie falls from recall 0.60 to 0.10", "Overfit"):
        assert part in sentence


def test_other_confidences_are_named_as_they_are() -> None:
    document = evaluation_document(better(a=9), DOGS, confidence=0.999)
    assert "with 99.9 % confidence" in decided(document)["sentence"]


def test_the_table_shows_every_check() -> None:
    decision = decided(evaluation_document(better(c=1), DOGS, lower_bound=-0.3))
    text = table(decision["checks"])
    for check in decision["checks"]:
        assert check["name"] in text
    assert text.count("NO") == 2


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "+0.000"), (-0.0, "+0.000"), (-0.0001, "+0.000"), (-0.05, "\u22120.050")]
)
def test_differences_have_a_sign(value: float, text: str) -> None:
    assert signed(value) == text


def evaluated(output: str) -> Any:
    """As much of the evaluation's result as the gate reads."""
    return {"output": output}


def test_the_task_reads_the_evaluation_from_s3(pipeline: Pipeline, aws: Aws) -> None:
    output = f"s3://{BUCKET}/gate/evaluation"
    write_json(aws.s3, f"{output}/evaluation.json", evaluation_document(better(a=9), DOGS))
    decision = gate(pipeline, evaluated(output), NO_RULES, aws)
    assert decision["approved"] is True
    assert decision["evaluation"] == f"{output}/evaluation.json"
    assert decision["charts"][0] == f"{output}/confusion_matrix.png"


def test_a_missing_or_unknown_evaluation_is_named(pipeline: Pipeline, aws: Aws) -> None:
    evaluation = evaluated(f"s3://{BUCKET}/gate/unknown")
    with pytest.raises(CandidateError, match=r"gate/unknown/evaluation\.json is missing"):
        gate(pipeline, evaluation, NO_RULES, aws)
    write_json(aws.s3, f"{evaluation['output']}/evaluation.json", {"format_version": 99})
    with pytest.raises(CandidateError, match="of another format"):
        gate(pipeline, evaluation, NO_RULES, aws)
