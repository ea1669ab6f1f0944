"""Tests that settings without effect are left out of identities and differences, but never refused."""

import inspect
import json
from pathlib import Path

import pytest

from evaluation.settings.schema import has_effect
from gan import build_classifier
from gan.config import Config, load_config, validate
from gan.config.classifier import ClassifierConfig, ClassifierSettings, load_classifier_config
from gan.config.gan import DiscriminatorSettings
from gan.config.loading import differences, override_config
from gan.models.classifiers import CLASSIFIERS
from gan.normalization import NORMALIZATIONS, PENALTIES
from gan.runs.finding import identity_of, newest_run

ARCHITECTURE = {"name", "channels", "normalization", "penalty"}
KNOWN = {
    "smoke": "74bd7d7d0d6d3bc8",
    "quickstart": "946861ea18887740",
    "cifar10_sn": "cdbc7223c560026c",
    "cifar10_srn70": "d0819ca44891a461",
    "cifar10_wgan_gp": "2df921253593a1d9",
    "cifar10_compact": "a70b0baaa2a5bd7e",
    "cifar10_sndcgan_plain_sn": "0ba64c1235ad2290",  # cifar10_sndcgan_sn then
    "celeba_sn": "d9249066bd6eb786",
    "classifier_smoke": "961aeca02a83b943",
    "classifier_cifar100_resnet": "628c2b9404362fa8",
}
"""Identities in version 0.2.0 (commit fcfdf3c). A later setting must leave them as they are, or runs cannot resume."""


@pytest.mark.parametrize("name", KNOWN)
def test_later_settings_leave_the_identities_of_earlier_runs(name: str) -> None:
    load = load_classifier_config if name.startswith("classifier") else load_config
    assert load(name).identity() == KNOWN[name]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_settings_of_normalizations_and_penalties_have_an_effect_where_they_are_read(
    normalization: str, penalty: str
) -> None:
    chosen = NORMALIZATIONS[normalization]
    section = DiscriminatorSettings(normalization=normalization, penalty=penalty, relative_to="initial")
    coefficients = {PENALTIES[name].coefficient for name in (chosen.penalty, penalty)} - {""}
    found = {name for name in DiscriminatorSettings.model_fields if has_effect(section, name)}
    assert found - ARCHITECTURE == {*chosen.settings} | coefficients


@pytest.mark.parametrize("normalization", build_classifier.classifier_registries()["classifier.normalization"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_settings_of_classifiers_have_an_effect_where_they_are_read(name: str, normalization: str) -> None:
    section = ClassifierSettings(name=name, normalization=normalization, relative_to="initial")
    sizes = {size for size in build_classifier.SIZES if size in inspect.signature(CLASSIFIERS[name]).parameters}
    chosen = NORMALIZATIONS[normalization]
    coefficients = {PENALTIES[chosen.penalty].coefficient} - {""}
    found = {field for field in ClassifierSettings.model_fields if has_effect(section, field)}
    assert found == {"name", "normalization", *sizes, *chosen.settings} | coefficients


@pytest.mark.parametrize(
    ("base", "without", "effect"),
    [
        (["discriminator.normalization=sn"], "discriminator.c=0.3", ["discriminator.normalization=srn"]),
        ([], "discriminator.r1_coefficient=3.0", ["discriminator.penalty=r1"]),
        ([], "discriminator.lecam_coefficient=3.0", ["discriminator.penalty=lecam"]),
        ([], "train.augment=null", None),
        ([], "discriminator.ortho_coefficient=3.0", ["discriminator.penalty=orthogonal"]),
        (["train.lr_decay=none"], "train.lr_decay_start=7", ["train.lr_decay=linear"]),
        (["discriminator.normalization=srn"], "discriminator.relative_to=size", None),
        ([], "discriminator.relative_to=initial", ["discriminator.normalization=srn"]),
        ([], "discriminator.pooling=sum", None),
        ([], "discriminator.initialization_std=0.1", ["discriminator.initialization=normal"]),
        (["generator.initialization=lecun"], "generator.initialization_std=0.1", ["generator.initialization=normal"]),
        ([], "train.labels=uniform", None),
        ([], "train.first=generator", None),
        ([], "eval.labels=data", None),
        ([], "name=other", None),
        ([], "eval.num_fid=7", None),
    ],
)
def test_a_setting_counts_only_where_it_has_an_effect(base: list[str], without: str, effect: list[str] | None) -> None:
    config = override_config(Config(), base, "test")
    changed = override_config(config, [without], "test")
    assert changed.identity() == config.identity()
    assert differences(changed, config) == []
    if effect is not None:
        with_effect = [override_config(one, effect, "test") for one in (config, changed)]
        assert with_effect[0].identity() != with_effect[1].identity()
        assert len(differences(*with_effect)) == 1


@pytest.mark.parametrize(
    ("without", "effect"),
    [
        ("data.seed=3", "data.labels=random"),
        ("data.seed=3", "data.num_train=100"),
        ("classifier.growth=3", "classifier.name=densenet"),
    ],
)
def test_a_classifiers_setting_counts_only_where_it_has_an_effect(without: str, effect: str) -> None:
    config = ClassifierConfig()
    changed = override_config(config, [without], "test")
    assert changed.identity() == config.identity()
    pair = [override_config(one, [effect], "test") for one in (config, changed)]
    assert pair[0].identity() != pair[1].identity()


def test_sizes_of_another_architecture_are_ignored() -> None:
    config = override_config(ClassifierConfig(), ["classifier.name=alexnet", "classifier.depth=20"], "test")
    build_classifier.check_classifier_names(config)


@pytest.mark.parametrize(
    ("name", "value", "default"), [("labels", "data", "uniform"), ("first", "discriminator", "generator")]
)
def test_a_later_setting_counts_unless_it_has_its_default(name: str, value: str, default: str) -> None:
    other = Config(train={name: value})
    assert other.identity() != Config().identity()
    assert differences(other, Config()) == [f"train.{name}: {value!r}, {default!r}"]


def test_differences_name_every_setting_that_counts_in_either_configuration() -> None:
    sn = load_config("cifar10_sn", ["discriminator.c=0.5"])
    srn = load_config("cifar10_sn", ["discriminator.normalization=srn"])
    assert differences(sn, srn) == ["discriminator.normalization: 'sn', 'srn'", "discriminator.c: 0.5, 0.7"]


def test_the_newest_run_is_found_by_its_stored_settings(tmp_path: Path) -> None:
    """run.json of earlier versions holds an identity computed by another rule."""
    config = load_config("smoke")
    for name, one in (("same", config), ("other", override_config(config, ["train.seed=1"], "test"))):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "step-00000001.pt").write_bytes(b"")
        (tmp_path / name / "config.yaml").write_text(one.to_yaml())
        (tmp_path / name / "run.json").write_text(json.dumps({"kind": "gan", "identity": "0" * 16}))
    assert newest_run(tmp_path, identity=config.identity()) == tmp_path / "same"
    assert identity_of(tmp_path / "same") == validate(config.model_dump(), "test").identity()
    (tmp_path / "same" / "config.yaml").write_text("train: [")
    assert identity_of(tmp_path / "same") == ""
