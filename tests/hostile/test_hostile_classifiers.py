"""Tests of hostile classifier configurations: each is read as written, or refused with a one-line error."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_hostile_config import TRAPS, VALUES, places, refusal

from gan import build_classifier
from gan.config.classifier import ClassifierConfig, load_classifier_config, validate_classifier
from gan.config.loading import override_config
from gan.errors import ConfigError, UserError

PLACES = dict(places(ClassifierConfig))


def check_whole(config: ClassifierConfig, folder: Path) -> None:
    """Asserts that an accepted configuration survives writing and reading, and that its names are known or refused."""
    file = folder / "again.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert load_classifier_config(file) == config
    assert load_classifier_config(file).identity() == config.identity()
    assert validate_classifier(config.model_dump(), "dump") == config
    try:
        build_classifier.check_classifier_names(config)
    except UserError as error:
        refusal(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def test_every_setting_withstands_every_trap(folder: Path) -> None:
    for place, text in itertools.product(PLACES, TRAPS):
        try:
            config = override_config(ClassifierConfig(), [f"{place}={text}"], "defaults")
        except ConfigError as error:
            refusal(error)
        else:
            check_whole(config, folder)


@given(st.sampled_from(list(PLACES)), VALUES)
def test_any_value_of_any_setting_is_taken_as_it_is_or_refused(folder: Path, place: str, value: Any) -> None:
    content = value
    for name in reversed(place.split(".")):
        content = {name: content}
    try:
        config = validate_classifier({"name": "x", **content}, "mapping")
    except ConfigError as error:
        refusal(error)
        return
    found: Any = config
    for name in place.split("."):
        found = getattr(found, name)
    assert found == (tuple(value) if isinstance(value, list) else value)
    check_whole(config, folder)


@pytest.mark.parametrize(
    "override",
    [
        *("train.milestones=[0]", "train.milestones=[1, 1]", "train.milestones=[1.5]", "train.milestones={}"),
        *("train.epochs=-1", "train.epochs=1000001", "data.num_train=-1", "classifier.depth=0", "classifier.c=0"),
        *("train.weight_decay=2", "train.momentum=1", "train.factor=0", "train.stop_accuracy=-0.1", "data.seed=-1"),
        f"train.milestones={list(range(1, 102))}",
    ],
)
def test_what_makes_no_sense_is_refused(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override_config(ClassifierConfig(), [override], "defaults")
    refusal(caught.value)
