"""Tests that the 134 configuration names of earlier versions still exist in some form, with the same settings."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from gan.config import Config, available_configs, load_config
from gan.config.classifier import ClassifierConfig, available_classifier_configs, load_classifier_config
from gan.config.loading import Experiment, leaves
from gan.errors import ConfigError

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "configs.json").read_text())
"""By old name, the settings that differed from the defaults, written by the code that had all 134 files."""
SUCCEEDED = {"cifar10_jpeg_small": "--config cifar10_compact --with jpeg"}
"""Recipes that no longer exist."""

ROOT = Path(__file__).resolve().parent.parent


def load(*arguments: Any, **more: Any) -> Experiment:
    classifier = str(arguments[0]).startswith("classifier")
    return load_classifier_config(*arguments, **more) if classifier else load_config(*arguments, **more)


def by_form(form: str) -> Experiment:
    """Configuration given by "--config NAME --with VARIANT --set SETTING ..."."""
    option, name, *rest = shlex.split(form)
    assert option == "--config"
    assert set(rest[::2]) <= {"--with", "--set"}
    given = {key: [value for found, value in zip(rest[::2], rest[1::2], strict=True) if found == key] for key in rest}
    return load(name, given.get("--set", ()), given.get("--with", ()))


def changed(config: Experiment) -> dict[str, Any]:
    """Settings other than the name that differ from the defaults, in JSON types."""
    defaults = {place: value for place, _, value in leaves(type(config)())}
    found = {place: value for place, _, value in leaves(config) if value != defaults[place] and place != "name"}
    return dict(json.loads(json.dumps(found)))


def of_the_paper(name: str) -> dict[str, Any]:
    """Settings in which a configuration differs from its former self: those that its paper has."""
    if name == "cifar10_sndcgan_sn":  # code of Lin et al.
        networks = {"generator.name": "sndcgan_bn", "discriminator.initialization": "truncated_normal"}
        return {"train.dequantize": False, "train.first": "discriminator", **networks}
    return {"train.adam_beta2": 0.999} if name.startswith(("cifar", "celeba")) else {}


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in SUCCEEDED])
def test_an_old_name_is_a_configuration_or_says_its_new_form(name: str) -> None:
    installed = {each.removesuffix(".yaml") for each in [*available_configs(), *available_classifier_configs()]}
    if name in installed:
        config, expected = load(name), GOLDEN[name] | of_the_paper(name)
    else:
        with pytest.raises(ConfigError) as error:
            load(f"{name}.yaml")
        form, _, adam = str(error.value).removeprefix(f"{name}.yaml: is now ").partition("; ")
        kept = {"train.dequantize": False} if "sndcgan" in name else {}
        config, expected = by_form(form), GOLDEN[name] | kept
        assert adam.endswith("the SRN paper's, 0.999") == form.endswith("--set train.adam_beta2=0.9")
    if name.startswith("celeba"):
        expected["eval.nd.split"] = "train"  # footnote 13
    if "sndcgan" in name:
        expected["train.gradients_every"] = 500  # the record that the claims of the paper rest on
    assert changed(config) == expected


def test_a_removed_recipe_names_its_successor() -> None:
    for name, successor in SUCCEEDED.items():
        with pytest.raises(ConfigError, match=f"{name}: no longer exists; its successor is {successor}$"):
            load(name)
        by_form(successor)


def test_golden_holds_all_names() -> None:
    assert len(GOLDEN) == 134
    assert {type(load(name)) for name in ("smoke", "classifier_smoke")} == {Config, ClassifierConfig}


def test_an_old_name_as_a_base_says_its_new_form(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: cifar10_jpeg_srn50.yaml\n")
    with pytest.raises(ConfigError, match=r"base: cifar10_jpeg_srn50.yaml: is now \[.*\] with .*; without") as error:
        load(file)
    base, _, setting = str(error.value).partition("is now ")[2].partition("; ")[0].partition(" with train.")
    file.write_text(f"base: {base}\ntrain: {{{setting.replace('=', ': ')}}}\n")
    assert changed(load(file)) == GOLDEN["cifar10_jpeg_srn50"]


def test_the_name_of_a_run_is_answered_with_its_variants() -> None:
    with pytest.raises(ConfigError, match=r"is now --config cifar10_sn --with srn30 --with jpeg$"):
        load_config("cifar10_sn-srn30-jpeg")


def test_configurations_are_few() -> None:
    assert len(list((ROOT / "configs").rglob("*.yaml"))) <= 58, "52, and variants for the claims of the BSSN paper"


@pytest.mark.parametrize("name", ["celeba_jpeg_sn", "cifar10_jpeg", "classifier_cifar10_small", "srn50"])
def test_names_that_never_were_have_no_new_form(name: str) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(name)
