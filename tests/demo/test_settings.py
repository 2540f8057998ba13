"""What make's variables choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.settings import (
    Choice,
    DemoError,
    check_params,
    last_choice,
    read_choice,
    read_settings,
    write_choice,
)


def test_ports_and_folder_come_from_the_environment(tmp_path: Path) -> None:
    settings = read_settings({"LOCAL_DIR": str(tmp_path), "AIRFLOW_PORT": "0", "SAGEMAKER_PORT": "4700"})
    assert (settings.local, settings.airflow_port, settings.sagemaker_port) == (tmp_path, 0, 4700)


@pytest.mark.parametrize("text", ["eighty", "-1", "65536"])
def test_a_bad_port_is_named_with_its_variable(text: str) -> None:
    with pytest.raises(DemoError, match=f"AIRFLOW_PORT={text}"):
        read_settings({"AIRFLOW_PORT": text})


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=f"DATA={tmp_path}/absent"):
        read_choice({"DATA": f"{tmp_path}/absent"})


@pytest.mark.parametrize("text", ["max_jobs=4", "[4]"])
def test_params_that_are_no_json_object_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(DemoError, match=r"for example PARAMS="):
        read_choice({"PARAMS": text})


def test_a_parameter_that_the_form_does_not_have_is_named_with_its_nearest() -> None:
    with pytest.raises(DemoError, match=r"no parameter 'max_job'; did you mean 'max_jobs'\?"):
        check_params({"max_job": 4}, ["arch", "max_jobs"])
    with pytest.raises(DemoError, match="no parameter 'x'; there are arch, max_jobs"):
        check_params({"x": 4}, ["arch", "max_jobs"])
    check_params({"arch": "resnet18"}, ["arch", "max_jobs"])
    check_params({"arch": "resnet18"}, [])


def test_the_last_choice_is_kept_but_for_what_is_given_now(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.touch()
    chosen = Choice(tmp_path, weights, "squeezenet1_0", {"max_jobs": 3, "image_size": 96}, "birds")
    write_choice(tmp_path / "choice.json", chosen)

    again = read_choice({"PARAMS": '{"max_jobs": 5}'}, last_choice(tmp_path / "choice.json"))

    assert again == Choice(tmp_path, weights, "squeezenet1_0", {"max_jobs": 5, "image_size": 96}, "birds")


def test_without_an_earlier_choice_the_defaults_hold(tmp_path: Path) -> None:
    assert last_choice(tmp_path / "choice.json") == Choice()
