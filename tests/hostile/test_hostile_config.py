"""Tests of hostile configurations: each is read as written, or quickly refused with a one-line error."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gan import build
from gan.config import Config, load_config, validate
from gan.config.loading import override_config
from gan.config.reading import MAX_FILE_BYTES
from gan.errors import ConfigError, UserError
from gan.measuring.checks import check_evaluation


def places(settings: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (place, default) of every setting."""
    for name, field in settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from places(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.default


PLACES = dict(places())
TRAPS = [
    *("0x10", "010", "1_000", "1:30", "1e3", "1000.0", "0b1", "0o7", "٣", "1٣.0", "+5", "-0", "1.", ".5", "1e400"),
    *("no", "on", "y", "true", "True", "TRUE", "~", "null", "", "=", "<<", "2020-01-01", "-.inf", ".nan", "12e03"),
    *("!!int '3'", "!!bool yes", "!!binary aGk=", "&a 3", "*a", "[]", "{}", "{a: 1}", "[1, [2]]", "'3'", "- 1", "!x"),
    *('"\\0"', "0.1e"),
]
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([5e-324, 1e308, -0.0, 1 - 1e-16]),
)
NAMES = ["srn", "none", "shapes", "folder", "pixels", "classifier", "fid,is", "fid", "linear", "wasserstein"]
ODD = ["../../x", "/", "a/b", "..", "a\x00b", "\ud800", "x" * 5000, "a\nb", "\x1b[31m", "\u2028", "\x85", "日本", "<b>"]
WORDS = st.one_of(st.text(max_size=30), st.sampled_from(ODD), st.sampled_from(TRAPS), st.sampled_from(NAMES))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


def refusal(error: UserError) -> str:
    """Text of a refusal: one line of at most 1,500 characters."""
    text = str(error)
    assert len(text.splitlines()) == 1, text
    assert len(text) < 1500, text
    return text


def taken(load: Callable[[], Config]) -> Config | None:
    """Loaded configuration, or None if it is refused with a one-line error."""
    try:
        return load()
    except ConfigError as error:
        refusal(error)
        return None


def check_whole(config: Config, folder: Path) -> None:
    """Asserts that an accepted configuration survives writing and reading, and that its names are known or refused."""
    file = folder / "again.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(file)
    assert again == config
    assert again.identity() == config.identity()
    assert validate(config.model_dump(), "dump") == config
    try:
        build.check_names(config)
        check_evaluation(config)
    except UserError as error:
        refusal(error)


def value_at(config: Config, place: str) -> Any:
    for name in place.split("."):
        config = getattr(config, name)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@given(st.sampled_from(list(PLACES)), VALUES)
def test_any_value_of_any_setting_is_taken_as_it_is_or_refused(folder: Path, place: str, value: Any) -> None:
    content = value
    for name in reversed(place.split(".")):
        content = {name: content}
    config = taken(lambda: validate({"name": "x", **content}, "mapping"))
    if config is not None:
        found = value_at(config, place)
        assert found == value
        assert type(found) is type(value) or (type(found), type(value)) in ((float, int), (int, float)), (found, value)
        check_whole(config, folder)


@given(st.sampled_from(list(PLACES)), VALUES)
def test_files_hold_what_they_say_or_are_refused(folder: Path, place: str, value: Any) -> None:
    """Files are written by PyYAML in any style, with tags and aliases, and read as the commands do."""
    content = value
    for name in reversed(place.split(".")):
        content = {name: content}
    file = folder / "fuzzed.yaml"
    try:
        file.write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8")
    except UnicodeEncodeError:
        return
    config = taken(lambda: load_config(file))
    if config is not None:
        found = value_at(config, place)
        assert found == value or isinstance(value, dict), (found, value)
        check_whole(config, folder)


@given(st.sampled_from(list(PLACES)), st.one_of(st.text(max_size=60), NUMBERS.map(str)))
def test_overrides_are_read_as_written_or_refused(folder: Path, place: str, text: str) -> None:
    config = taken(lambda: load_config("smoke", [f"{place}={text}"]))
    if config is not None:
        check_reading(place, text, value_at(config, place))
        check_whole(config, folder)


def test_every_setting_withstands_every_trap() -> None:
    for place, text in itertools.product(PLACES, TRAPS):
        try:
            config = override_config(Config(), [f"{place}={text}"], "defaults")
        except ConfigError as error:
            refusal(error)
        else:
            check_reading(place, text, value_at(config, place))


def check_reading(place: str, text: str, found: Any) -> None:
    """Asserts that decimal numbers and booleans are read as written."""
    written = text.split(" #")[0].strip().removeprefix("&a ").removeprefix("- ")
    if isinstance(found, bool):
        assert written.lower() == str(found).lower()
    elif isinstance(found, int | float):
        assert math.isclose(found, float(written)), (place, text, found)
        assert isinstance(found, float) or (written.lstrip("+-").isdecimal() and "_" not in written), (place, text)
        assert not written.lstrip("+-").startswith("0") or isinstance(found, float) or found == 0, (place, text)


@given(st.lists(st.tuples(st.sampled_from(list(PLACES)), st.integers(1, 4096)), min_size=1, max_size=8))
def test_several_settings_at_once_keep_the_promises(folder: Path, changes: list[tuple[str, int]]) -> None:
    config = taken(lambda: load_config("smoke", [f"{place}={value}" for place, value in changes]))
    if config is not None:
        check_whole(config, folder)


NETWORKS = [place for place in PLACES if place.split(".")[0] in ("generator", "discriminator", "conditional")]
TINY = ("data.name=shapes", "generator.channels=4", "discriminator.channels=4", "generator.z_dim=4")
FACTORS = st.one_of(
    st.integers(1, 12), st.floats(0, 1e6), st.floats(0, 1), st.sampled_from([1e-320, 1e-45, 1e6, 0.999999, 1e-12])
)


@settings(max_examples=25)
@given(
    st.sampled_from(NETWORKS),
    FACTORS,
    st.sampled_from(["none", "sn", "srn", "ssn", "bsn", "bssn", "sn_gamma", "wgan_gp", "ortho"]),
    st.sampled_from(["skip", "error", "floor"]),
)
def test_what_is_accepted_can_be_built(place: str, value: float, normalization: str, infeasible: str) -> None:
    """Builds networks, optimizers and losses at tiny sizes, as with --dry-run, or fails with a one-line error."""
    changes = [f"discriminator.normalization={normalization}", f"discriminator.infeasible={infeasible}"]
    try:
        config = load_config("smoke", [*TINY, *changes, f"{place}={value!r}"])
        state = build.build_state(config)
        build.build_loss(config)
    except UserError as error:
        refusal(error)
        return
    with torch.no_grad():
        logits = state.discriminator(torch.zeros(2, 3, 32, 32), torch.zeros(2).long() if state.num_classes else None)
    assert logits.shape == (2,)


@pytest.mark.parametrize(
    "override",
    [
        *("generator.channels=1000000000", "discriminator.channels=4097", "generator.z_dim=1000000000000"),
        *("train.batch_size=2000000000", "train.d_steps=1000000000", "discriminator.n_power_iterations=1000000000"),
        *("train.generator_batch_factor=1000000", "eval.num_fid=1000000000", "eval.is_splits=1000000000"),
        *("eval.kid_subsets=1000000000", "eval.lipschitz.pairs=1000000000", "eval.nd.pool=1000000000"),
        *("eval.nd.num_critics=1000000", "eval.batch_size=1000000", "discriminator.scale=1e300", "train.steps=1e30"),
    ],
)
def test_absurd_sizes_are_refused_by_their_bound(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        load_config("smoke", [override])


@pytest.mark.parametrize("text", ["0x10", "010", "1_000", "1:30", "1e3", "1000.0", "true", "'30'", "!!int 0x10", "٣"])
def test_only_decimal_digits_are_a_whole_number(text: str) -> None:
    """YAML 1.1 reads 010 as 8, 1:30 as 90 and 0x10 as 16, which would change the length of a run."""
    with pytest.raises(ConfigError, match=r"train\.steps"):
        load_config("smoke", [f"train.steps={text}"])


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "..", ".", "a\\b", "a\nb", "\x1b[31mred", "x" * 101, "\u2028"]
)
def test_a_name_stays_inside_the_folder_of_runs(name: str) -> None:
    with pytest.raises(ConfigError, match="name without slashes"):
        validate({"name": name}, "x")


@pytest.mark.parametrize("value", ["a\x00b", "a\nb", "\x1b[31m", "\ud800", "x" * 5000, "\x85", "\u2028"])
def test_paths_and_titles_are_one_line_of_text(value: str) -> None:
    for place in ("root", "title"):
        with pytest.raises(ConfigError, match="one line of at most 4096"):
            validate({"data": {place: value}}, "x")


YAML_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghi")
)
FILES = {
    "a billion laughs": (YAML_BOMB.encode(), "aliases"),
    "merged keys": (b"train: &a {steps: 1}\neval:\n  <<: *a\n", "aliases"),
    "a hundred thousand brackets": (b"train: " + b"[" * 90_000, "YAML"),
    "deep blocks": (b"\n".join(b" " * i + b"a:" for i in range(300)), "unknown setting"),
    "very deep blocks": (b"train: " + b"{a: " * 20_000, "YAML"),
    "tabs": (b"train:\n\tsteps: 3\n", "YAML"),
    "binary": (bytes(range(256)), "cannot be read"),
    "zeros": (bytes(10), "YAML"),
    "UTF-16": ("train: {steps: 3}\n".encode("utf-16"), "cannot be read"),
    "two documents": (b"train: {}\n--- \neval: {}\n", "YAML"),
    "a key twice": (b"train: {steps: 1, steps: 2}\n", "twice"),
    "code": (b"!!python/object/apply:os.system ['true']\n", "tags"),
    "code under another tag": (b"%TAG ! tag:yaml.org,2002:python/\n--- !name:os.system x\n", "tags"),
    "a very large file": (b"# nothing\n" * 100_000, "larger than"),
    "many keys": (b"{" + b", ".join(b"k%d: 1" % i for i in range(5000)) + b"}", "unknown setting"),
    "an endless number": (b"train: {steps: " + b"9" * 50_000 + b"}", "YAML"),
    "base: itself": (b"base: file.yaml\n", "based on itself"),
    "base: itself, by another path": (b"base: ./../{folder}/file.yaml\n", "based on itself"),
    "base: nothing": (b"base: ''\n", "no such file"),
    "base: a folder": (b"base: .\n", "no such file"),
    "base: the folder above": (b"base: ..\n", "no such file"),
    "base: a name too long": (b"base: " + b"x" * 5000, "no such file"),
    "base: no configuration": (b"base: /dev/zero\n", "no such file"),
    "base: a zero byte": (b'base: "a\\0b"\n', "no such file"),
    "base: a list of nothing": (b"base: [a, b]\n", "no such file"),
    "base: a list of lists": (b"base: [[a], b]\n", "name of a file"),
    "base: a section": (b"base: {a: b}\n", "name of a file"),
    "base: many": (b"base: [" + b"smoke, " * 1000 + b"]\n", "more than 100 files"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_file_is_refused(case: str, tmp_path: Path) -> None:
    content, part = FILES[case]
    assert len(content) <= MAX_FILE_BYTES or case == "a very large file"
    file = tmp_path / "file.yaml"
    file.write_bytes(content.replace(b"{folder}", tmp_path.name.encode()))
    with pytest.raises(ConfigError, match=part) as error:
        load_config(file)
    refusal(error.value)


def test_bases_in_a_ring_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("base: [smoke, two.yaml]\n")
    (tmp_path / "two.yaml").write_text("base: one.yaml\n")
    with pytest.raises(ConfigError, match=r"based on itself \(one.yaml -> two.yaml -> one.yaml\)") as error:
        load_config(tmp_path / "one.yaml")
    refusal(error.value)


def test_bases_that_multiply_are_refused(tmp_path: Path) -> None:
    """Twenty files with the next one as base twice each would load a million files."""
    for number in range(20):
        (tmp_path / f"{number}.yaml").write_text(f"base: [{number + 1}.yaml, {number + 1}.yaml]\n")
    (tmp_path / "20.yaml").write_text("")
    with pytest.raises(ConfigError, match="more than 100 files") as error:
        load_config(tmp_path / "0.yaml")
    refusal(error.value)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0b", "x" * 5000, "~", "configs", "\udcff"])
def test_a_name_of_no_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no such variant") as error:
        load_config("smoke", variants=[name])
    refusal(error.value)
    with pytest.raises(ConfigError, match="no such file"):
        load_config(name)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(folder: Path, content: bytes) -> None:
    file = folder / "bytes.yaml"
    file.write_bytes(content)
    config = taken(lambda: load_config(file))
    if config is not None:
        check_whole(config, folder)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet="{}[]:,-?&*!|>'\"%@`#\n\t \\abtrainsep0123456789.", max_size=80))
def test_no_punctuation_breaks_the_parser(folder: Path, text: str) -> None:
    file = folder / "text.yaml"
    file.write_text(text, encoding="utf-8")
    config = taken(lambda: load_config(file))
    if config is not None:
        check_whole(config, folder)


def test_a_place_of_many_names_is_refused() -> None:
    place = "train.steps" + ".a" * 3000
    with pytest.raises(ConfigError, match="at most 3 names"):
        load_config("smoke", [f"{place}=1", f"{place}=1"])
