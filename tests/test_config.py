"""Tests of gan.config: strict types, and errors that name the place and the expected value."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gan.config import Config, available_configs, load_config
from gan.config.classifier import available_classifier_configs
from gan.config.files import catalogue, find_config, find_variant
from gan.config.loading import differences, override_config
from gan.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_are_the_sn_gan_recipe() -> None:
    """Values are those of Miyato et al. 2018's configuration file for CIFAR-10."""
    config = Config()
    train = config.train
    assert (config.data.name, config.data.image_size, config.conditional) == ("cifar10", 32, False)
    assert (config.generator.channels, config.discriminator.channels, config.generator.z_dim) == (256, 128, 128)
    assert (train.steps, train.batch_size, train.generator_batch_factor, train.d_steps) == (50_000, 64, 2, 5)
    assert (train.learning_rate, train.adam_beta1, train.adam_beta2) == (2e-4, 0.0, 0.9)
    assert (train.loss, train.lr_decay, train.lr_decay_start) == ("hinge", "linear", 0)
    assert (train.dequantize, train.flip, train.ema_decay) == (True, False, 0.0)


def test_every_installed_configuration_loads() -> None:
    names = available_configs()
    assert {"cifar10_sn.yaml", "cifar10_srn70.yaml", "cifar10_cond_srn70.yaml", "celeba_sn.yaml", "smoke.yaml"} <= {
        *names
    }
    assert len({load_config(name).identity() for name in names}) == len(names), "two configurations are the same"


def test_a_configuration_says_what_differs_from_its_base(tmp_path: Path) -> None:
    write(tmp_path, "first.yaml", "train: {steps: 7, batch_size: 3}\nconditional: true\n")
    path = write(tmp_path, "second.yaml", "base: first.yaml\ntrain: {batch_size: 5}\n")
    config = load_config(path)
    assert (config.train.steps, config.train.batch_size, config.conditional) == (7, 5, True)
    assert config.name == "second"


def test_a_base_may_be_an_installed_configuration_and_have_a_base(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "mine.yaml", "base: cifar10_srn70\ndiscriminator: {channels: 64}\n"))
    assert (config.discriminator.c, config.discriminator.normalization, config.discriminator.channels) == (
        *(0.7, "srn"),
        64,
    )


def test_several_bases_apply_in_order_and_the_files_own_settings_last(tmp_path: Path) -> None:
    write(tmp_path, "first.yaml", "train: {steps: 1, batch_size: 1, d_steps: 1}\n")
    write(tmp_path, "second.yaml", "train: {batch_size: 2, d_steps: 2}\n")
    path = write(tmp_path, "mine.yaml", "base: [first, second.yaml]\ntrain: {d_steps: 3}\n")
    train = load_config(path).train
    assert (train.steps, train.batch_size, train.d_steps) == (1, 2, 3)


def test_variants_apply_in_order_between_the_file_and_the_overrides(tmp_path: Path) -> None:
    write(tmp_path, "common.yaml", "train: {d_steps: 7}\n")
    first = write(tmp_path, "first.yaml", "base: common.yaml\ntrain: {steps: 1, batch_size: 1, seed: 1}\n")
    second = write(tmp_path, "second.yaml", "train: {batch_size: 2, seed: 2}\n")
    config = load_config("cifar10_srn70", ["train.seed=3"], variants=[first, second])
    train = config.train
    assert (train.d_steps, train.steps, train.batch_size, train.seed) == (7, 1, 2, 3)
    assert config.discriminator.c == 0.7


def test_a_variant_is_found_by_name_here_and_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("cifar10_sn", variants=["jpeg"]).data.title == "CIFAR-10 (JPEG)"
    (tmp_path / "configs" / "variants" / "gan").mkdir(parents=True)
    write(tmp_path / "configs" / "variants" / "gan", "jpeg.yaml", "data: {title: mine}\n")
    assert load_config("cifar10_sn", variants=["jpeg"]).data.title == "mine"


def test_the_default_name_shows_the_variants(tmp_path: Path) -> None:
    assert load_config("cifar10_srn50", variants=["jpeg", "small"]).name == "cifar10_srn50-jpeg-small"
    assert load_config("cifar10_srn50", ["name=mine"], variants=["jpeg"]).name == "mine"
    named = write(tmp_path, "file.yaml", "name: given\n")
    assert load_config(named, variants=["jpeg"]).name == "given-jpeg"


@pytest.mark.parametrize(
    ("config", "variants", "overrides", "shown"),
    [
        ("shapes_srn70", [], [], "shapes"),
        ("shapes_srn70", [], ["data.name=folder", "data.root=some/cats"], "cats"),
        ("shapes_srn70", [], ["data.name=upright_shapes"], "upright_shapes"),
        ("shapes_srn70", [], ["data.title=Mine", "data.name=folder", "data.root=cats"], "Mine"),
        ("shapes_srn70", [], ["data.name=shapes"], "shapes"),
        ("cifar10_sn", ["jpeg"], [], "CIFAR-10 (JPEG)"),
        ("cifar10_sn", ["jpeg"], ["data.root=images.zip"], "images.zip"),
        ("cifar10_sn", ["jpeg"], ["data.root=data/cifar10-jpeg"], "CIFAR-10 (JPEG)"),
        ("cifar10_sn", ["jpeg"], ["data.image_size=64"], "CIFAR-10 (JPEG)"),
        ("shapes_srn70", ["own"], [], "dogs"),
        ("derived", [], [], "dogs"),
        ("two_bases", [], [], "dogs"),
    ],
)
def test_a_title_stays_only_with_the_data_it_names(
    config: str,
    variants: list[str],
    overrides: list[str],
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "variants" / "gan").mkdir(parents=True)
    dogs = "data: {name: folder, root: dogs/}\n"
    write(tmp_path / "configs" / "variants" / "gan", "own.yaml", dogs)
    write(tmp_path, "derived.yaml", f"base: shapes_srn70\n{dogs}")
    write(tmp_path, "two_bases.yaml", "base: [shapes_srn70, variants/gan/own]\n")
    loaded = load_config(config, overrides, variants)
    assert loaded.data.shown == shown
    assert override_config(loaded, ["data.name=folder", "data.root=birds"], "test").data.shown == "birds"
    titled = override_config(loaded, ["data.title=other"], "test")
    assert titled.identity() == loaded.identity()


def test_a_variant_that_does_not_fit_is_refused_by_its_setting(tmp_path: Path) -> None:
    classifiers = find_variant("classifier", "sn")
    with pytest.raises(ConfigError, match=r"sn\.yaml.*section classifier.*gan-train-classifier"):
        load_config("cifar10_sn", variants=[classifiers])
    unknown = write(tmp_path, "unknown.yaml", "train: {stepps: 1}\n")
    with pytest.raises(ConfigError, match=r"--with .*unknown\.yaml: train\.stepps: unknown setting.*'steps'"):
        load_config("cifar10_sn", variants=[unknown])


def test_an_unknown_variant_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="--with jpg: no such variant; did you mean 'jpeg'"):
        load_config("cifar10_sn", variants=["jpg"])
    with pytest.raises(ConfigError, match="--with xyz: no such variant, expected a file or one of bsn, bssn"):
        load_config("cifar10_sn", variants=["xyz"])


def test_the_catalogue_describes_every_configuration_and_variant() -> None:
    for kind, names in (("gan", available_configs()), ("classifier", available_classifier_configs())):
        text = catalogue(kind)
        variants = [path.stem for path in (ROOT / "configs" / "variants" / kind).glob("*.yaml")]
        for name in [*(name.removesuffix(".yaml") for name in names), *variants]:
            assert re.search(rf"^  {name} +\S", text, re.MULTILINE), name
        assert "others" not in text


def test_overrides_come_last() -> None:
    config = load_config("cifar10_srn70", ["discriminator.c=0.5", "train.steps=3", "train.steps=4"])
    assert (config.discriminator.c, config.discriminator.normalization, config.train.steps) == (0.5, "srn", 4)


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "0.0002", "2.e-4", "+2e-4", ".0002"])
def test_numbers_are_numbers(text: str) -> None:
    """YAML 1.1 reads 2e-4 as a string."""
    assert load_config("cifar10_sn", [f"train.learning_rate={text}"]).train.learning_rate == 2e-4


@pytest.mark.parametrize("text", ["no", "off", "none", "on", "y", "null_"])
def test_words_are_words(text: str) -> None:
    """YAML 1.1 reads no, off and on as booleans."""
    assert load_config("cifar10_sn", [f"discriminator.normalization={text}"]).discriminator.normalization == text


WRONG = {
    "train.step=3": ["train.step", "unknown", "steps"],
    "steps=3": ["steps", "train.steps"],
    "lr=3": ["lr", "expected one of"],
    "train.steps=many": ["train.steps", "'many'", "integer"],
    "train.steps=1.5": ["train.steps", "1.5", "integer"],
    "train.steps=true": ["train.steps", "True", "integer"],
    "train.steps=-1": ["train.steps", "-1", "greater than or equal to 0"],
    "train.learning_rate=-1": ["train.learning_rate", "-1", "greater than 0"],
    "train.learning_rate=.nan": ["train.learning_rate", "nan", "finite"],
    "train.ema_decay=1": ["train.ema_decay", "less than 1"],
    "discriminator.c=0": ["discriminator.c", "greater than 0"],
    "discriminator.c=1.5": ["discriminator.c", "less than or equal to 1"],
    "data.image_size=96": ["data.image_size", "96", "32, 48, 64, 128 or 256"],
    "data.resize=bicubik": ["data.resize", "did you mean 'bicubic'"],
    "conditional=yes": ["conditional", "'yes'", "boolean"],
    "train=3": ["train", "3", "section"],
    "data.name=null": ["data.name", "None", "string"],
    "train.steps": ["--set", "section.name=value"],
    "=3": ["--set", "section.name=value"],
    "train.steps=[1": ["--set", "YAML"],
    "train.steps=[*a]": ["--set", "alias"],
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_setting_says_where_what_and_what_else(override: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("cifar10_sn", [override])
    for part in WRONG[override]:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train: {steps: 1}\ntrain: {steps: 2}\n", "twice"),
        ("- a\n- b\n", "settings"),
        ("train: &a {steps: 1}\neval: *a\n", "alias"),
        ("train: [\n", "YAML"),
        ("base: 3\n", "base"),
        ("base: [cifar10_sn, 3]\n", "list of names"),
        ("base: nowhere.yaml\n", "wrong.yaml: base: .*nowhere.yaml"),
        ("1: 2\n", "1"),
        ("!!python/object/apply:os.system ['true']\n", "YAML"),
        ("{a: b}: 3\n", "YAML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_config(write(tmp_path, "wrong.yaml", text))


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'cifar10_srn70\.yaml'"):
        find_config("cifar10_srn7")


def test_a_path_comes_before_configs_here_before_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    installed = find_config("cifar10_srn70")
    assert installed.is_absolute()
    (tmp_path / "configs").mkdir()
    write(tmp_path / "configs", "cifar10_srn70.yaml", "")
    assert find_config("cifar10_srn70.yaml") == Path("configs/cifar10_srn70.yaml")
    write(tmp_path, "cifar10_srn70.yaml", "")
    assert find_config("cifar10_srn70.yaml") == Path("cifar10_srn70.yaml")


def test_a_dumped_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config("celeba_sn", ["train.learning_rate=1e-5", "data.root='1e3'"])
    assert load_config(write(tmp_path, "config.yaml", config.to_yaml())) == config
    assert yaml.safe_load(config.to_yaml())["data"]["root"] == "1e3"


def test_the_identity_changes_with_what_changes_the_result_and_with_nothing_else() -> None:
    config = load_config("cifar10_sn")
    same = [
        "name=x",
        "train.log_every=7",
        "train.fast=auto",
        "train.eval_every=1",
        "data.root=elsewhere",
        "eval.num_fid=10",
        "data.title=x",
    ]
    other = ["train.seed=1", "train.steps=1", "discriminator.channels=5", "data.name=cifar100", "train.precision=bf16"]
    for override in same:
        assert override_config(config, [override], "test").identity() == config.identity(), override
    identities = {override_config(config, [override], "test").identity() for override in other}
    assert len(identities | {config.identity()}) == len(other) + 1


def test_differences_name_the_setting_and_both_values() -> None:
    ours, theirs = load_config("cifar10_sn"), load_config("cifar10_sn", ["train.seed=3", "train.log_every=1"])
    assert differences(ours, theirs) == ["train.seed: 0, 3"]


def test_the_module_imports_no_torch() -> None:
    code = "import sys, gan.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
