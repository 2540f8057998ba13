"""Putting a run's input into the local SageMaker's S3."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import services
from demo.aws import Aws
from demo.settings import ROLE, DemoError, Settings
from demo.upload import (
    Synced,
    create_bucket_and_role,
    dataset_files,
    put_dataset,
    put_weights,
    stored,
)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A running local SageMaker that requires signatures, with the bucket and the role."""
    local = tmp_path_factory.mktemp("local")
    (local / "envs").symlink_to(Path(sys.prefix).parent)
    settings = Settings(local, sagemaker_port=0, require_signatures=True)
    services.start(settings, {services.SAGEMAKER})
    try:
        url = services.wait_until_ready(settings, "sagemaker").url
        clients = Aws(url, settings.credentials)
        create_bucket_and_role(clients)
        yield clients
    finally:
        services.stop(settings)


PREFIX = "datasets/dog_breed"


def ignore(_done: int, _total: int) -> None:
    pass


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for split in ("train", "valid", "test"):
        for name in ("001.A", "002.B"):
            image = tmp_path / "data" / split / name / "image.jpg"
            image.parent.mkdir(parents=True)
            image.write_text(f"{split} {name}")
    return tmp_path / "data"


def test_bucket_and_role_can_be_created_twice(aws: Aws) -> None:
    create_bucket_and_role(aws)
    assert aws.bucket == "sagemaker-us-east-1-123456789012"
    assert aws.iam.get_role(RoleName=ROLE)["Role"]["Arn"].endswith(f"/{ROLE}")


def test_only_what_changed_is_put_and_what_is_gone_is_removed(aws: Aws, dataset: Path) -> None:
    seen: list[tuple[int, int]] = []
    put_dataset(aws, dataset, PREFIX, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert put_dataset(aws, dataset, PREFIX, ignore) == Synced(uploaded=0, present=6, removed=0)

    (dataset / "test" / "001.A" / "image.jpg").write_text("TEST 001.A")
    (dataset / "train" / "002.B" / "image.jpg").unlink()

    assert put_dataset(aws, dataset, PREFIX, ignore) == Synced(uploaded=1, present=4, removed=1)
    assert sorted(stored(aws, f"{PREFIX}/train/")) == ["001.A/image.jpg"]


def test_what_is_removed_is_said_first_with_its_place(aws: Aws, dataset: Path) -> None:
    said: list[str] = []
    put_dataset(aws, dataset, "datasets/birds", ignore, said.append)
    assert said == []
    for file in dataset.glob("*/002.B/*"):
        file.unlink()
    put_dataset(aws, dataset, "datasets/birds", ignore, said.append)
    [line] = said
    assert f"removing 3 of 6 objects below s3://{aws.bucket}/datasets/birds/: test/002.B/image.jpg" in line


def test_nothing_is_put_and_nothing_removed_for_a_folder_without_images(aws: Aws, dataset: Path) -> None:
    put_dataset(aws, dataset, "datasets/kept", ignore)
    for file in dataset.glob("*/*/*"):
        file.unlink()
    with pytest.raises(DemoError, match="has no image: nothing is put"):
        put_dataset(aws, dataset, "datasets/kept", ignore)
    assert len(stored(aws, "datasets/kept/")) == 6


def test_linked_class_folders_are_followed(aws: Aws, dataset: Path, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (dataset / split / "002.B").rename(tmp_path / f"{split}-b")
        (dataset / split / "002.B").symlink_to(tmp_path / f"{split}-b")
        (tmp_path / f"{split}-b" / "around").symlink_to(dataset / split)
    assert sorted(dataset_files(dataset)) == sorted(
        f"{split}/{name}/image.jpg" for split in ("train", "valid", "test") for name in ("001.A", "002.B")
    )


def test_hidden_files_and_other_folders_stay_behind(aws: Aws, dataset: Path) -> None:
    (dataset / ".complete.json").touch()
    (dataset / "train" / "001.A" / ".DS_Store").touch()
    (dataset / "notes").mkdir()
    put_dataset(aws, dataset, PREFIX, ignore)
    assert len(stored(aws, f"{PREFIX}/")) == 6


def test_a_folder_without_the_splits_is_no_data_set(aws: Aws, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DemoError, match=r"has no folder valid, test"):
        put_dataset(aws, tmp_path, PREFIX, ignore)


def test_weights_are_the_only_object_of_their_prefix_and_go_when_there_are_none(
    aws: Aws, tmp_path: Path
) -> None:
    for name in ("first.pth", "second.pth"):
        (tmp_path / name).write_text(name)
        put_weights(aws, tmp_path / name, "resnet50", ignore)
        assert list(stored(aws, "pretrained/resnet50/")) == [name]
    put_weights(aws, None, "resnet50", ignore)
    assert not stored(aws, "pretrained/resnet50/")


def test_weights_that_are_a_folder_are_refused(aws: Aws, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="is no file"):
        put_weights(aws, tmp_path, "resnet50", ignore)
