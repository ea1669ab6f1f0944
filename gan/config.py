"""Typed, strict, frozen settings; YAML files with one level of `base:`; overrides from the command line.

The defaults are CIFAR-10 with the SN-GAN ResNet: Miyato et al. 2018 as coded by its authors. A configuration file says
what differs. This module imports no torch.
"""

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gan.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent
INSTALLED = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""Where the configurations of this project lie: in an installed package, and in a checkout."""

MAX_FILE_BYTES = 100_000
"""Of a configuration file, thirty times the longest there is: YAML is slow to read."""
MAX_DEPTH = 3
"""Names in the place of a setting, as in eval.nd.steps."""
MAX_MISTAKES = 5
"""That one message lists."""


def _text(most: int, forbidden: str, expected: str) -> Callable[[str], str]:
    """A check of a text: at most so many characters, none of them forbidden, a control character or half of one."""

    def check(text: str) -> str:
        odd = any(letter in forbidden or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
        if odd or len(text) > most or text in (".", ".."):
            raise ValueError(f"{expected} of at most {most} characters")
        return text

    return check


Probability = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Interval = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
# Absurd sizes are refused here, in words, not by the machine's memory after minutes.
Width = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[int, Field(ge=1, le=2**16)]
Few = Annotated[int, Field(ge=1, le=1000)]
Images = Annotated[int, Field(ge=0, le=10**7)]
Draws = Annotated[int, Field(ge=1, le=10**7)]
Text = Annotated[str, AfterValidator(_text(4096, "", "one line"))]
Name = Annotated[str, AfterValidator(_text(100, "/\\", "a name without slashes"))]


def _without_effect(default: Any, description: str) -> Any:
    """A setting that does not change the result: intervals, paths, names. It is left out of the identity."""
    return Field(default=default, description=description, json_schema_extra={"identity": False})


def _setting(default: Any, description: str) -> Any:
    return Field(default=default, description=description)


def _later_setting(default: Any, description: str) -> Any:
    """A setting that earlier versions did not have. At its default, which is what they did, it is left out of the
    identity, so that their runs keep theirs."""
    return Field(default=default, description=description, json_schema_extra={"identity": "unless default"})


RENAMED = {("train", "keep_checkpoints"): "keep_last"}
"""Settings by the names that earlier versions gave them, and what they are called now."""


class Settings(BaseModel):
    """Strict, frozen, no unknown names, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataSettings(Settings):
    """Which images, and how they become square and small. See docs/data.md."""

    name: Name = _setting("cifar10", "a key of gan.data.DATASETS")
    root: Text = _without_effect("data", "folder or archive that holds the data set")
    title: Text = _without_effect("", "name printed in reports; empty: the name")
    image_size: Literal[32, 64] = _setting(32, "pixels per side in the networks")
    crop: Interval = _setting(0, "pixels per side of the centre crop; 0: the largest centred square")
    resize: Literal["none", "box", "bilinear", "bicubic", "lanczos"] = _setting(
        "none", "filter; none: refuse other sizes"
    )
    download: bool = _without_effect(True, "fetch the data set where the source can")


class GeneratorSettings(Settings):
    """The generator's architecture."""

    name: Name = _setting("resnet", "a key of gan.models.GENERATORS")
    channels: Width = _setting(256, "width at full resolution")
    z_dim: Size = _setting(128, "size of the latent vector")


class DiscriminatorSettings(Settings):
    """The discriminator's architecture, and how its weights are normalized. See docs/normalizations.md."""

    name: Name = _setting("resnet", "a key of gan.models.DISCRIMINATORS")
    channels: Width = _setting(128, "width at full resolution")
    normalization: Name = _setting("sn", "a key of gan.normalization.NORMALIZATIONS")
    c: Annotated[float, Field(gt=0, le=1)] = _setting(0.7, "srn: stable rank at most c * min(rows, columns)")
    n_power_iterations: Few = _setting(1, "per discriminator step")
    infeasible: Literal["skip", "error", "floor"] = _later_setting(
        "skip", "srn where c * min(rows, columns) <= 1: sn only, refuse, or never less than 1.5"
    )
    scale: Annotated[float, Field(gt=0, le=1e6)] = _later_setting(1.0, "ssn, bssn: factor of every normalized weight")
    penalty: Name = _later_setting("none", "a key of gan.normalization.PENALTIES, besides the normalization's own")
    gp_coefficient: Factor = _later_setting(10.0, "wgan_gp, gradient: of the gradient penalty")
    r1_coefficient: Factor = _later_setting(10.0, "r1: twice the squared gradient's factor")
    ortho_coefficient: Factor = _later_setting(
        1e-3, "ortho, orthogonal: of the orthonormal regularization; the paper's is not stated: sweep it"
    )


class TrainSettings(Settings):
    """The recipe, and how often a run reports and saves. Steps are generator updates."""

    steps: Interval = _setting(50_000, "generator updates; 0: the networks as they are initialized")
    batch_size: Size = _setting(64, "real images per discriminator step, in all processes together; as many fakes")
    generator_batch_factor: Few = _setting(2, "fakes per generator step, in units of batch_size")
    d_steps: Few = _setting(5, "discriminator steps per generator step")
    loss: Name = _setting("hinge", "a key of gan.losses.LOSSES")
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = _setting(2e-4, "of both networks")
    lr_decay_start: Interval = _setting(0, "step at which the linear decay to 0 begins")
    lr_decay: Literal["linear", "none"] = _setting("linear", "to 0 at the last step, or constant")
    adam_beta1: Probability = _setting(0.0, "of both networks")
    adam_beta2: Probability = _setting(0.9, "of both networks")
    dequantize: bool = _setting(True, "add U[0, 1/128) to real images")
    flip: bool = _setting(False, "flip half of the real images")
    ema_decay: Probability = _setting(0.0, "of the averaged generator; 0: none is kept")
    precision: Literal["fp32", "tf32", "bf16"] = _setting(
        "fp32", "tf32: convolutions on a GPU; bf16: autocast of the networks' forward passes"
    )
    seed: Seed = _setting(0, "of everything random")
    fast: Literal["auto", "on", "off"] = _without_effect(  # as a device's, its rounding is no part of the experiment
        "off", "whole iterations as CUDA graphs; auto: where that works; on: refuse to go on where a capture fails"
    )
    log_every: Count = _without_effect(100, "steps between lines in metrics.jsonl and TensorBoard")
    sample_every: Interval = _without_effect(1000, "steps between sample grids; 0: at the start and the end")
    checkpoint_every: Interval = _without_effect(1000, "steps between checkpoints; 0: at the end")
    keep_last: Count = _without_effect(2, "newest checkpoints that stay on disk")
    keep_every: Interval = _without_effect(0, "checkpoints whose step is a multiple of it stay for good; 0: none")
    eval_every: Interval = _without_effect(0, "steps between evaluations with eval.metrics; 0: none")
    keep_best: Text = _without_effect(
        "", "a metric, such as fid: its best checkpoint stays as checkpoints/best-<step>.pt"
    )
    on_alarm: Literal["log", "stop"] = _without_effect("log", "what follows signs of a collapse; see gan/health.py")
    retries: Interval = _without_effect(
        0, "after a divergence, go back to the last good checkpoint and on with other random numbers, so often at most"
    )


class NeuralDivergenceSettings(Settings):
    """The critics of Neural Divergence. See docs/metrics.md."""

    preset: Name = _setting("srn2020", "protocol of the critics; unless given, it sets the numbers below")
    steps: Count | None = _setting(None, "critic updates")
    num_samples: Annotated[int, Field(ge=1, le=10**9)] | None = _setting(
        None, "generated images that the final value averages over"
    )
    num_critics: Few | None = _setting(None, "independent critics; mean and standard deviation are reported")
    holdout: Annotated[float, Field(ge=0, lt=1)] = _setting(0.0, "share of the test images that critics do not see")
    pool: Draws | None = _setting(None, "train critics on so many generated images, made once; null: on fresh ones")


class LipschitzSettings(Settings):
    """Empirical Lipschitz constants of the discriminator. See docs/metrics.md."""

    pairs: Draws = _setting(2_000, "pairs of each kind, and images at which Jacobian norms are taken")
    noise: Factor = _setting(0.1, "standard deviation around the images; 0: at them only")


class EvalSettings(Settings):
    """The protocol of evaluation. See docs/metrics.md."""

    metrics: Text = _without_effect("fid,is", "evaluated every train.eval_every, separated by commas")
    extractor: Text = _setting("inception", "keys of evaluation.EXTRACTORS, separated by commas")
    inception_weights: Text = _without_effect("", "file; empty: $INCEPTION_WEIGHTS, then torch-fidelity's download")
    clip_weights: Text = _without_effect("", "file; empty: $CLIP_WEIGHTS, then torch hub's folder")
    protocol: Name = _setting("srn2020", "a key of evaluation.PROTOCOLS; unless given, it sets the five below")
    reference: Literal["train", "test"] | None = _setting(None, "the split that generated images are compared with")
    reference_statistics: Text = _setting("", "FID: an .npz file of mu and sigma, in place of reference images")
    num_real: Images | None = _setting(None, "FID, KID, precision, recall: reference images; 0: all")
    num_fid: Images | None = _setting(None, "FID, KID, precision, recall: generated images")
    num_is: Images | None = _setting(None, "IS: generated images")
    is_splits: Draws | None = _setting(None, "IS: mean and deviation over so many parts")
    num_intra: Images = _setting(5_000, "metrics by class: generated images of each class")
    kid_subsets: Draws = _setting(100, "KID: mean and deviation over so many draws")
    kid_subset_size: Draws = _setting(1_000, "KID: images of each draw")
    floor: bool = _setting(True, "FID: measure it between two draws of the reference, too")
    ema: bool = _setting(True, "use the averaged generator where one is kept")
    quantizer: Literal["round", "truncate"] = _setting("round", "of generated images, to 8 bits")
    labels: Literal["balanced", "uniform"] = _setting("balanced", "of conditional samples: equal counts, or drawn")
    bn_mode: Literal["eval", "standing"] = _setting(
        "eval", "batch norm of the generator: running or standing statistics"
    )
    truncation: Factor = _setting(
        0.0, "latents are normal within so many standard deviations, component by component; 0: without bounds"
    )
    batch_size: Size = _without_effect(100, "images per forward pass")
    cache: bool = _without_effect(True, "keep features of real images on disk for the next time")
    seed: Seed = _setting(0, "of latents, labels, subsets and critics")
    nd: NeuralDivergenceSettings = NeuralDivergenceSettings()
    lipschitz: LipschitzSettings = LipschitzSettings()


class Config(Settings):
    """Everything a run depends on."""

    name: Name = _without_effect("", "of the experiment; empty: the file's name")
    conditional: bool = _setting(False, "class-conditional batch normalization and projection discriminator")
    data: DataSettings = DataSettings()
    generator: GeneratorSettings = GeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()

    def identity(self) -> str:
        """SHA-256 (16 hex digits) over the settings of training that change the result."""
        settings = dict(training_settings(self))
        for place, field, value in _leaves(self):
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("identity") == "unless default" and value == field.default:
                del settings[place]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        return yaml.dump(self.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def training_settings(config: Config) -> Iterator[tuple[str, Any]]:
    """(place, value) of every setting that changes what training produces; evaluation is not among them."""
    for place, field, value in _leaves(config):
        extra = field.json_schema_extra
        if not place.startswith("eval.") and not (isinstance(extra, dict) and extra.get("identity") is False):
            yield place, value


def differences(ours: Config, theirs: Config) -> list[str]:
    """Settings of training in which two configurations differ, as "place: ours, theirs"."""
    other = dict(training_settings(theirs))
    return [
        f"{place}: {value!r}, {other[place]!r}" for place, value in training_settings(ours) if other[place] != value
    ]


def _leaves(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


class _Loader(yaml.SafeLoader):
    """YAML as people read it: 2e-4 is a number, 010 and 1:30 are none, only true and false are booleans.

    No key twice, no aliases, no tags.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not allowed")
        if event.tag is not None:
            raise yaml.YAMLError(f"line {line}: tags (!name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a name is expected before the colon")
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `_Loader` would read as something else."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _parse_yaml(text: str, place: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: not readable as YAML: {_short(' '.join(str(error).split()), 300)}") from None


def _short(text: str, most: int = 80) -> str:
    """A text on one line of a message: control characters written out, the end left off."""
    shown = repr(text)[1:-1]
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def find_config(path_or_name: str | Path) -> Path:
    """A path as given, then ./configs, then the configurations that come with the package; ".yaml" may be left out.

    Raises:
        ConfigError: found nowhere; with the nearest name there is.
    """
    given = Path(path_or_name)
    named = given if given.suffix in (".yaml", ".yml") else given.parent / f"{given.name}.yaml"
    if _is_file(given):
        return given
    for folder in (Path(), Path("configs"), *INSTALLED):
        if _is_file(folder / named):
            return folder / named
    names = available_configs()
    raise ConfigError(f"configuration '{_short(str(path_or_name))}': no such file{nearest(named.name, names)}")


def _is_file(path: Path) -> bool:
    """Whether it is a file that can be looked at; a name too long for one is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def available_configs() -> list[str]:
    """Names of the configurations in ./configs and in the package."""
    return sorted({path.name for folder in (Path("configs"), *INSTALLED) for path in folder.glob("*.yaml")})


def nearest(name: str, valid: Iterable[str]) -> str:
    """ "; did you mean ...?" with the closest of the valid names, or nothing."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, which no configuration is")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    content = _parse_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got {type(content).__name__}, expected settings as 'name: value'")
    return _with_new_names(content, str(path))


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _with_new_names(content: dict[str, Any], place: str) -> dict[str, Any]:
    """Settings under the names they have now.

    Raises:
        ConfigError: one is given under its old name and its new one.
    """
    for (section, old), new in RENAMED.items():
        settings = content.get(section)
        if not isinstance(settings, dict) or old not in settings:
            continue
        if new in settings:
            raise ConfigError(f"{place}: {section}.{old} is the old name of {section}.{new}: give one of them")
        renamed = {new if name == old else name: value for name, value in settings.items()}
        content = {**content, section: renamed}
    return content


def _apply_override(content: dict[str, Any], override: str) -> dict[str, Any]:
    place, equals, text = override.partition("=")
    keys = place.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set '{_short(override)}': expected section.name=value, such as train.steps=200")
    if len(keys) > MAX_DEPTH:
        raise ConfigError(f"--set {_short(override)}: unknown setting, expected at most {MAX_DEPTH} names")
    value = _parse_yaml(text, f"--set {_short(override)}")
    changes: Any = value
    for key in reversed(keys):
        changes = {key: changes}
    return _merge(content, _with_new_names(changes, f"--set {override}"))


def _place(source: str, overrides: Sequence[str]) -> str:
    return " with ".join([source, *(f"--set {_short(override)}" for override in overrides)])


def validate(content: dict[str, Any], place: str) -> Config:
    """Settings from a mapping of plain values.

    Raises:
        ConfigError: the first few mistakes: where, what was got, what was expected, the nearest valid name.
    """
    try:
        return Config.model_validate(_with_new_names(content, place))
    except ValidationError as error:
        mistakes = error.errors()
        lines = [_explain(mistake) for mistake in mistakes[:MAX_MISTAKES]]
        lines += [f"{len(mistakes) - MAX_MISTAKES} more mistakes"] if len(mistakes) > MAX_MISTAKES else []
        raise ConfigError(f"{place}: " + "; ".join(lines)) from None


def _explain(mistake: Any) -> str:
    path = [str(part) for part in mistake["loc"]]
    where = _short(".".join(path))
    if mistake["type"] == "extra_forbidden":
        return f"{where}: unknown setting{_nearest_setting(path)}"
    got = mistake["input"]
    expected = mistake["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = expected.replace("a valid dictionary or instance of ", "a section ")
    shown = repr(got) if isinstance(got, int | float | str | None) and len(repr(got)) < 80 else type(got).__name__
    hint = nearest(got, re.findall(r"'(\w+)'", expected)) if isinstance(got, str) else ""
    return f"{where}: got {shown}, expected {expected}{hint}"


def _nearest_setting(path: list[str]) -> str:
    section: Any = Config
    for part in path[:-1]:
        section = section.model_fields[part].annotation
    valid = list(section.model_fields)
    close = nearest(path[-1], valid)
    everywhere = [place for place, _, _ in _leaves(Config()) if place.rsplit(".", 1)[-1] == path[-1]]
    if everywhere:
        return f"; did you mean {everywhere[0]!r}?"
    return close or f", expected one of {', '.join(valid)}"


def load_config(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration file, what it is based on, and overrides of the form "section.name=value".

    `base:` names another file, in the same folder or found as `find_config` does; a base has no base of its own.

    Raises:
        ConfigError: see `find_config` and `validate`.
    """
    path = find_config(path_or_name)
    content = _read_mapping(path)
    base_name = content.pop("base", None)
    if base_name is not None:
        if not isinstance(base_name, str):
            raise ConfigError(f"{path}: base: got {base_name!r}, expected the name of a file")
        beside = path.parent / base_name
        base = _read_mapping(beside if _is_file(beside) else find_config(base_name))
        if "base" in base:
            raise ConfigError(f"{path}: base {base_name} has a base itself: one level is allowed")
        content = _merge(base, content)
    content.setdefault("name", path.stem)
    for override in overrides:
        content = _apply_override(content, override)
    return validate(content, _place(str(path), overrides))


def override_config(config: Config, overrides: Sequence[str], place: str) -> Config:
    """A configuration with overrides of the form "section.name=value" applied."""
    content = config.model_dump()
    for override in overrides:
        content = _apply_override(content, override)
    return validate(content, _place(place, overrides))
