"""Nothing optional stops a command: no home, no cache, no git, a poor locale, closed streams."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from commands import COMMANDS, TOOLS, call, load_tool, refused

from evaluation.__main__ import main as evaluate_folders
from gan.data import ImageData, load_images
from gan.data.image_data import expanded
from gan.data.pixels import save_png
from gan.errors import DataError

RUN = """
import os, pwd, runpy, sys, tempfile
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
tempfile.tempdir = os.environ.get("ONLY_TEMPORARY_FOLDER")
sys.argv = {arguments}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
KEPT = ("PYTHONPATH", "OMP_NUM_THREADS", "TORCH_HOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "COVERAGE_PROCESS_START")
POOR = {"PATH": "", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
NOWHERE = {"HOME": "{file}", "MPLCONFIGDIR": "/proc/none", "ONLY_TEMPORARY_FOLDER": "/proc/none"}
ENVIRONMENTS: dict[str, Mapping[str, str]] = {
    "no home": {},
    "a home that is a file": {"HOME": "{file}"},
    "a home that does not exist": {"HOME": "/nonexistent/home"},
    "an empty home": {"HOME": ""},
    "a cache folder that cannot be made": {"HOME": "{tmp}", "XDG_CACHE_HOME": "/proc/cache"},
    "a relative cache folder": {"HOME": "{tmp}", "XDG_CACHE_HOME": "cache"},
    "an empty cache folder": {"HOME": "{tmp}", "XDG_CACHE_HOME": ""},
    "no git and a poor locale": {"HOME": "{tmp}", **POOR},
    "everything": {**POOR, "HOME": "{file}", "XDG_CACHE_HOME": "/proc/cache", "TMPDIR": "/nonexistent"},
}
NAMES = [*(pytest.param(name, marks=pytest.mark.slow) for name in ENVIRONMENTS if name != "everything"), "everything"]


@pytest.fixture
def classes(tmp_path: Path, small_shapes_images: ImageData) -> Path:
    """Folder of images of two classes with names that ASCII lacks."""
    root = tmp_path / "images"
    for index in range(24):
        image, label = small_shapes_images.images[index], ("größe", "日本")[index % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        save_png(image, root / label / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def small_shapes_images() -> ImageData:
    return load_images("shapes", root="", split="test", image_size=32, crop=0, resize="none", download=False)


def ended(
    tmp_path: Path, environment: Mapping[str, str], arguments: list[str], closed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a module as a foreign user with only these variables, and with closed streams such as ">&- 2>&-"."""
    (tmp_path / "file").touch()
    places = {"{file}": str(tmp_path / "file"), "{tmp}": str(tmp_path)}
    given = {name: places.get(value, value) for name, value in environment.items()}
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    code = RUN.format(arguments=arguments)
    command = ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    (tmp_path / "work").mkdir(exist_ok=True)
    return subprocess.run(
        command, env=kept | given, cwd=tmp_path / "work", capture_output=True, text=True, timeout=300, errors="replace"
    )


def evaluation(folder: Path) -> list[str]:
    all_images = [f"--num-{name}=all" for name in ("real", "fid", "is")]
    return [
        *("evaluation", f"--generated={folder}", f"--reference={folder}", "--metrics=fid,is,intra_fid", "--splits=2"),
        *("--extractor=classifier", *all_images, "--set=num_intra=12"),
    ]


def training(folder: Path, run: Path) -> list[str]:
    settings = ["data.name=folder", f"data.root={folder}", "eval.num_real=24", "eval.num_fid=16", "train.steps=1"]
    settings += ["train.eval_every=1", "eval.extractor=classifier"]
    return ["gan.train", "--config=smoke", f"--run={run}", *(f"--set={setting}" for setting in settings)]


@pytest.mark.parametrize("name", NAMES)
def test_no_environment_stops_an_evaluation(name: str, classes: Path, tmp_path: Path) -> None:
    result = ended(tmp_path, ENVIRONMENTS[name], evaluation(classes))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "fid/classifier" in result.stdout
    assert not list((tmp_path / "work").iterdir())  # no cache in the working folder


@pytest.mark.parametrize("writable", [True, False])
def test_plots_are_optional(writable: bool, classes: Path, tmp_path: Path) -> None:
    """Without any folder for its cache, Matplotlib cannot be imported; in a temporary one it would say so at length."""
    report = tmp_path / "work" / "report"
    given = ["evaluation", f"--generated={classes}", f"--reference={classes}", "--extractor=pixels", "--metrics=fid"]
    given.append(f"--out={report}")
    environment = {"HOME": "{file}", **({"MPLCONFIGDIR": "/proc/none"} if writable else NOWHERE)}
    result = ended(tmp_path, environment, given)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "atplotlib" in line]
    assert [line.partition(": ")[0] for line in lines] == ([] if writable else ["no plots"])
    assert "report.html" in {file.name for file in report.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_no_environment_stops_a_training(name: str, classes: Path, tmp_path: Path) -> None:
    result = ended(tmp_path, ENVIRONMENTS[name], training(classes, tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "run" / "reports" / "00000001" / "report.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", ">/dev/full 2>/dev/full"])
def test_closed_streams_stop_nothing(closed: str, classes: Path, tmp_path: Path) -> None:
    ended(tmp_path, {"HOME": str(tmp_path)}, training(classes, tmp_path / "run"), closed)
    assert (tmp_path / "run" / "reports" / "00000001" / "report.json").is_file()


def empty_places() -> list[tuple[click.Command, list[str]]]:
    """Each command and tool, with each option that takes a value, or an argument, empty as by an unset variable."""
    benchmark = load_tool("benchmark").main
    tools = [load_tool(path.stem).main for path in TOOLS.glob("*.py") if path.stem != "benchmark"]
    commands = [*COMMANDS.values(), evaluate_folders, *tools, *benchmark.commands.values()]
    return [
        (command, given)
        for command in commands
        for parameter in command.params
        for name in (parameter.opts if isinstance(parameter, click.Option) and not parameter.is_flag else [""])
        for given in ([name, ""], [f"{name}="])
        if name or isinstance(parameter, click.Argument)
    ]


def test_no_option_takes_an_empty_path_for_the_current_folder() -> None:
    places = empty_places()
    assert len({id(command) for command, _ in places}) > 15
    for command, given in places:
        if given == ["="]:
            continue
        refused(CliRunner().invoke(command, given), f"{given[0].removesuffix('=') or 'arguments'}: got an empty value")


@pytest.mark.parametrize("name", ["folder", "cifar10", "celeba"])
def test_no_data_set_takes_an_empty_root_for_the_current_folder(name: str, tmp_path: Path) -> None:
    arguments = ["--config=smoke", f"--set=data.name={name}", "--set=data.root=''", f"--run={tmp_path / 'run'}"]
    refused(call("gan-train", *arguments), "data.root: got an empty path")


@pytest.mark.parametrize("user", ["~nobody-at-all", "~"])
def test_an_unknown_home_in_a_path_is_one_sentence(
    user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Callable[..., object]
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("uid not found")))
    with pytest.raises(DataError, match=re.escape(f"--out: {user}/x: no home folder is known for {user}; write")):
        expanded(f"{user}/x", "--out")
    for name in ("folder", "cifar10", "celeba", "shapes"):
        arguments = [
            "--config=smoke",
            f"--set=data.name={name}",
            f"--set=data.root={user}/x",
            f"--run={tmp_path / 'run'}",
        ]
        refused(call("gan-train", *arguments), f"data.root: {user}/x: no home folder is known for {user}")
