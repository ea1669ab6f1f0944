"""Tests of code of a user's own: the examples of docs/extending.md as written, and refusals with a way out."""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from commands import call, done, refused

from evaluation import METRICS
from evaluation.generalization import MEASURES
from evaluation.settings.schema import READ_BY_OWN
from gan.build import REGISTRIES
from gan.config import Config
from gan.config.imported import IMPORTED
from gan.data import AUGMENTATIONS
from gan.measuring.exported import load_exported
from gan.measuring.importing import import_own
from gan.runs.checkpoint import read_checkpoint

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
LOSS = """
from gan.losses import LOSSES
LOSSES["mine"] = LOSSES["hinge"]
"""
OWN = ("--import=loss.py",)
SAMPLES = {"gan-sample": ("--out=more",)}
SMALL = ("--set=train.steps=2", "--set=train.checkpoint_every=1", "--device=cpu")


@pytest.fixture
def fresh() -> Iterator[Callable[[], None]]:
    """Forgets all imports at the end of a test, and when called: what another process would begin with."""
    tables: list[Any] = [*REGISTRIES.values(), METRICS, AUGMENTATIONS, MEASURES]
    before = [dict(table) for table in tables]

    def forget() -> None:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        IMPORTED.clear()
        READ_BY_OWN.clear()

    yield forget
    forget()


@pytest.fixture
def new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Callable[[], None]) -> Callable[..., Result]:
    """Calls a command in `tmp_path` without what earlier commands imported."""
    monkeypatch.chdir(tmp_path)

    def calls(command: str, *arguments: object) -> Result:
        fresh()
        return call(command, *arguments)

    return calls


@pytest.fixture
def run(new_process: Callable[..., Result], small_shapes: Path) -> Path:
    """A run that has done one of two steps, with a loss of loss.py."""
    Path("loss.py").write_text(LOSS)
    settings = (f"--set=data.root={small_shapes}", "--set=train.loss=mine")
    stopped = new_process("gan-train", "--config=smoke", "--run=run", *OWN, "--stop-after=1", *settings, *SMALL)
    assert "--run run --import loss.py --resume" in done(stopped).output
    return Path("run")


def test_the_examples_of_the_page_train_and_are_measured(new_process: Callable[..., Result]) -> None:
    own = PAGE.read_text().partition("## A part of this repository")[0]
    for code in re.findall(r"```(?:python|yaml)\n(.*?)```", own, re.DOTALL):
        Path(re.match(r"# (\w+\.\w+)", code)[1]).write_text(code)  # type: ignore[index]
    lines = [line for block in re.findall(r"\n\n```\n(.*?)```", own, re.DOTALL) for line in block.splitlines()]
    training, measuring = (shlex.split(line) for line in lines)
    done(new_process(*training, *SMALL, "--set=train.batch_size=4"))
    result = done(new_process(*measuring, "--device=cpu", "--set=eval.num_fid=20", "--set=eval.num_real=50"))
    assert "Mean colour" in result.output
    record = json.loads(Path("runs/mine/run.json").read_text())["imports"]
    assert [each["names"] for each in record] == [
        {"generator.name": "plain"},
        {"discriminator.normalization": "soft"},
        {"train.loss": "least_squares"},
        {"discriminator.penalty": "r2"},
        {"data.name": "stripes"},
    ]
    report = json.loads(next(Path("runs/mine/reports").glob("*/report.json")).read_text())
    assert (
        report["values"]["mean_colour"]["fields"]["code"]
        == hashlib.sha256(Path("my_metric.py").read_bytes()).hexdigest()
    )


def test_a_run_continues_bit_for_bit_with_its_import(new_process: Callable[..., Result], run: Path) -> None:
    shutil.copytree(run, "straight")
    for path in ("run", "straight"):
        done(new_process("gan-train", f"--run={path}", "--resume", "--device=cpu", *OWN))
    digest = hashlib.sha256(LOSS.encode()).hexdigest()
    expected = [{"source": "loss.py", "sha256": digest, "names": {"train.loss": "mine"}}]
    assert read_checkpoint(run).imports == expected == json.loads((run / "run.json").read_text())["imports"]
    assert (run / "imports" / f"loss-{digest[:8]}.py").read_text() == LOSS


NEEDED = "train.loss: 'mine' is from loss.py; add --import loss.py"


@pytest.mark.parametrize(
    "command", ["gan-train --run run --resume", "gan-eval --run run", "gan-sample --run run --num 4 --out samples"]
)
def test_a_missing_import_is_named_and_a_changed_one_has_a_way_out(
    new_process: Callable[..., Result], run: Path, command: str
) -> None:
    arguments = [*shlex.split(command), "--device=cpu"]
    refused(new_process(*arguments), NEEDED)
    copy = next((run / "imports").glob("loss-*.py"))
    Path("loss.py").rename("moved.py")
    refused(new_process(*arguments), f"add --import {copy}")
    Path("loss.py").write_text(f"{LOSS}# changed\n")
    result = new_process(*arguments, *OWN)
    way_out = f"the file as it was in training: --import {copy}"
    if "resume" in command:
        refused(result, way_out, "a run resumes only with the code that it began with")
    else:
        assert way_out in done(result).output
    assert "SHA-256" not in done(new_process(*arguments, f"--import={copy}", *SAMPLES.get(arguments[0], ()))).output


REFUSED = {
    "no file": (None, ["No such file", "expected a Python file"]),
    "nothing": ("a = 1\n", ["registers nothing; expected a line such as", "docs/extending.md"]),
    "broken": ("a = 1\nb = c\n", ["--import my.py, line 2: NameError: name 'c' is not defined"]),
    "no Python": ("a b\n", ["--import my.py, line 1: SyntaxError"]),
    "another file": (
        "import other_file\n",
        ["No module named 'other_file'", "put code of several files into a package"],
    ),
    "exists": (
        "from gan.models import GENERATORS\nGENERATORS['resnet'] = GENERATORS['sndcgan']\n",
        ["generator.name: 'resnet' exists already", "under a name of your own"],
    ),
    "ends": ("import sys\nsys.exit(3)\n", ["--import my.py, line 2: SystemExit: 3", 'below if __name__ == "__main__"']),
    "relative": ("from .part import x\n", ["line 1: ImportError", "put code of several files into a package"]),
    "no word": (
        "from gan.losses import LOSSES\nLOSSES['null'] = LOSSES['hinge']\n",
        ["train.loss: 'null': YAML reads it as None"],
    ),
    "no class": (
        "from gan.models import GENERATORS\nGENERATORS['mine'] = 3\n",
        ["generator.name: 'mine': got a int, expected a class or function that builds it"],
    ),
    "no loss": (
        "from gan.losses import LOSSES\nLOSSES['mine'] = max\n",
        ["train.loss: 'mine': got a builtin_function_or_method, expected a Loss"],
    ),
    "two names": (
        "from gan.losses import LOSSES\nLOSSES['a,b'] = LOSSES['hinge']\n",
        ["'a,b': expected a name without commas"],
    ),
    "own setting": (
        "from gan.normalization import *\nNORMALIZATIONS['mine'] = Normalization(spectral_norm, ('power',))\n",
        ["settings: got 'power', expected settings of discriminator that exist"],
    ),
    "own coefficient": (
        "from gan.normalization import *\nPENALTIES['mine'] = PenaltyChoice(max, 'mine')\n",
        ["coefficient: got 'mine', expected one of", "r1_coefficient"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_and_leaves_nothing(
    new_process: Callable[..., Result], case: str
) -> None:
    code, parts = REFUSED[case]
    if code is not None:
        Path("my.py").write_text(code)
    before = [dict(table) for table in (*REGISTRIES.values(), METRICS)]
    refused(new_process("gan-train", "--list", "--import=my.py"), *parts)
    assert [dict(table) for table in (*REGISTRIES.values(), METRICS)] == before
    assert not IMPORTED


def test_unknown_names_say_that_one_of_the_users_own_is_imported(new_process: Callable[..., Result]) -> None:
    for setting in ("train.loss=mine", "eval.metrics=mine"):
        result = new_process("gan-train", "--config=smoke", "--dry-run", f"--set={setting}")
        refused(result, "got 'mine', expected one of", "a name of your own needs --import FILE")


def test_a_module_is_imported_by_its_name(new_process: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own_package").mkdir()
    Path("own_package/__init__.py").write_text("from own_package import part\n")
    Path("own_package/part.py").write_text(LOSS)
    refused(new_process("gan-train", "--list", "--import=own_package2"), "no such module", "PYTHONPATH")
    Path("own_file.py").touch()
    refused(new_process("gan-train", "--list", "--import=own_file"), "expected a file: --import own_file.py")
    refused(new_process("gan-train", "--list", "--import=./own_package"), "gan-train --import own_package")
    Path("own_package/second.py").write_text(LOSS.replace("mine", "second"))
    monkeypatch.syspath_prepend(".")
    # The package that a part is in is executed with it, and its names are recorded.
    assert "wasserstein, mine, second" in done(new_process("gan-train", "--list", "--import=own_package.second")).output
    assert IMPORTED[0].names == {"train.loss": ("mine", "second")}


def test_exported_networks_come_with_their_code(new_process: Callable[..., Result], small_shapes: Path) -> None:
    examples = re.findall(r"```python\n(# (\w+\.py).*?)```", PAGE.read_text(), re.DOTALL)
    codes = {name: code for code, name in examples if name in ("my_generator.py", "my_data.py")}
    for name, code in codes.items():
        Path(name).write_text(code)
    own = [f"--import={name}" for name in codes]
    settings = ("--set=generator.name=plain", "--set=data.name=stripes", "--set=train.batch_size=4", *SMALL)
    done(new_process("gan-train", "--config=smoke", "--run=run", *settings, *own))
    done(new_process("gan-export", "--run=run", "--origin=drawn", "--out=exported", *own))
    copy = next(Path("exported/imports").iterdir())
    assert copy.read_text() == codes["my_generator.py"]
    assert f"FOLDER/{copy.relative_to('exported')}" in Path("exported/README.md").read_text()
    Path("my_generator.py").unlink()
    sampling = ("gan-sample", "--checkpoint=exported/generator.safetensors", "--num=4")
    refused(new_process(*sampling), "generator.name: 'plain' is from my_generator.py", f"add --import {copy}")
    done(new_process(*sampling, f"--import={copy}", "--out=samples"))
    assert load_exported("exported").config.data.name == "stripes"


def test_augmentations_and_measures_are_added(new_process: Callable[..., Result], small_shapes: Path) -> None:
    code = "from gan.data import AUGMENTATIONS\nAUGMENTATIONS['mine'] = AUGMENTATIONS['color']\n"
    Path("my.py").write_text(f"{code}AUGMENTATIONS['second'] = AUGMENTATIONS['cutout']\n")
    settings = (f"--set=data.root={small_shapes}", "--set=train.augment=mine,color,second", *SMALL)
    done(new_process("gan-train", "--config=smoke", "--run=run", "--import=my.py", "--stop-after=1", *settings))
    assert read_checkpoint(Path("run")).imports[0]["names"] == {"train.augment": "mine,second"}
    result = new_process("gan-train", "--run=run", "--resume", "--device=cpu")
    refused(result, "train.augment: 'mine' is from my.py, train.augment: 'second' is from my.py; add --import my.py")
    done(new_process("gan-train", "--run=run", "--resume", "--device=cpu", "--import=my.py"))

    Path("my.py").write_text(
        "from evaluation.generalization import MEASURES\nMEASURES['mine'] = MEASURES['accuracy']._replace()\n"
    )
    small = ("data.num_train=100", "train.epochs=1", "train.milestones=[]", "classifier.channels=4")
    sets = [f"--set={setting}" for setting in (*small, "eval.metrics=mine", f"data.root={small_shapes}")]
    done(new_process("gan-train-classifier", "--config=classifier_smoke", "--run=clf", "--import=my.py", *sets))
    refused(new_process("gan-eval-classifier", "--run=clf"), "eval.metrics: 'mine' is from my.py; add --import my.py")
    done(new_process("gan-eval-classifier", "--run=clf", "--import=my.py"))
    report = json.loads(next(Path("clf/reports").glob("*/report.json")).read_text())
    digest = hashlib.sha256(Path("my.py").read_bytes()).hexdigest()
    assert report["values"]["accuracy"]["fields"]["code"] == digest


def test_settings_that_a_users_entries_read_are_part_of_the_identity(
    new_process: Callable[..., Result], smoke: Callable[..., Config]
) -> None:
    code = "from gan.normalization import *\nPENALTIES['mine'] = PenaltyChoice(max, 'r1_coefficient')\n"
    Path("my.py").write_text(f"{code}NORMALIZATIONS['mine'] = Normalization(spectral_norm, ('scale',))\n")
    import_own(["my.py", "my.py"])

    def differ(name: str, setting: str) -> bool:
        return smoke(name, setting).identity() != smoke(name).identity()

    assert differ("discriminator.penalty=mine", "discriminator.r1_coefficient=3")
    assert not differ("discriminator.penalty=mine", "discriminator.gp_coefficient=3")
    assert differ("discriminator.normalization=mine", "discriminator.scale=3")
    assert not differ("discriminator.normalization=mine", "discriminator.c=0.3")


def test_several_runs_pass_the_import_on(new_process: Callable[..., Result], small_shapes: Path) -> None:
    Path("loss.py").write_text(LOSS)
    settings = (f"--set=data.root={small_shapes}", "--set=train.loss=mine", "--set=train.steps=1", "--device=cpu")
    result = new_process("gan-train", "--config=smoke", "--seeds=0,1", "--run=runs", *OWN, *settings)
    assert "2 of 2 runs succeeded" in done(result).output
