"""tools/quickstart.sh on a small configuration, with an environment that is installed already; its page of results."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from click.testing import Result
from commands import call, call_tool, done, refused

ROOT = Path(__file__).resolve().parent.parent
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, small_shapes: Path) -> Start:
    """Starts the script on configuration smoke in `tmp_path / run`, in a process group of its own."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in (("gan-train", "train"), ("gan-eval", "evaluate"), ("gan-sample", "sample")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gan.{module} "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "venv" / "installed-by-quickstart").touch()
    environment = {**os.environ, "VENV": str(tmp_path / "venv"), "RUN": str(tmp_path / "run"), "CONFIG": "smoke"}
    environment["PYTHONPATH"] = str(ROOT)

    def run(*arguments: str) -> "subprocess.Popen[str]":
        command = ["bash", str(ROOT / "tools" / "quickstart.sh"), f"--set=data.root={small_shapes}", *arguments]
        streams: dict[str, IO[str] | int] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **streams)  # type: ignore[call-overload, no-any-return]

    return run


def ended(process: "subprocess.Popen[str]", status: int = 0) -> list[str]:
    """Waits for the end; returns the lines of the output."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode == status, output
    return output.splitlines()


def test_it_ends_with_three_lines_and_does_nothing_twice(start: Start, tmp_path: Path) -> None:
    first = ended(start("--set=train.steps=4"))
    run = tmp_path / "run"
    picture, report = run / "samples" / "final.png", run / "reports" / "00000004" / "report.html"
    following = f"{tmp_path}/venv/bin/gan-sample --run {run} --interpolate 10"
    ending = [f"picture  {picture}", f"report   {report}", f"next     {following}"]
    assert first[-4:] == ["", *ending]
    assert picture.is_file()
    assert report.is_file()
    assert [line[:5] for line in first if line.startswith("[")] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    second = ended(start("--set=train.steps=4"))
    for number, part in enumerate(("installed already", "trained already", "evaluated already", "drawn already"), 1):
        assert any(line.startswith(f"[{number}/4] {part}") for line in second), second
    assert any("all 4 steps are done" in line for line in second), second
    assert second[-3:] == ending
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    other = "\n".join(ended(start("--set=train.steps=4", "--set=train.seed=5"), status=2))
    assert "trained with other settings" in other
    assert other.endswith("to train in another folder: RUN=runs/another bash tools/quickstart.sh smoke")


def test_a_wrong_setting_is_answered_without_talk_of_folders(start: Start) -> None:
    lines = ended(start("--set=train.stepz=4"), status=2)
    assert "did you mean" in lines[-1], lines
    assert "another folder" not in lines[-1]


@pytest.mark.slow
def test_after_ctrl_c_it_continues(start: Start) -> None:
    process = start("--set=train.steps=60")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 5/60"):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to the script and to gan-train
            break
    assert ended(process, status=130)[-1] == "stopped; the same command continues from here"
    lines = ended(start("--set=train.steps=60"))
    assert any(line.startswith("continuing at step ") for line in lines), lines
    assert lines[-1].startswith("next     ")


@pytest.fixture
def finished(copied: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A run of configuration smoke with report and picture, as the script leaves it."""

    def make(name: str, *settings: str) -> Path:
        run = copied(name, "conditional=true", "train.steps=2", *settings)
        done(call("gan-eval", "--run", run, "--metrics", "fid,prdc", "--device", "cpu"))
        done(call("gan-sample", "--run", run, "--num", 80, "--grid-only", "--out", run / "samples" / "final"))
        return run

    return make


def make_page(*arguments: object) -> Result:
    return call_tool("quickstart_page", *arguments)


def test_the_page_shows_every_seed(finished: Callable[..., Path], tmp_path: Path) -> None:
    runs, out = [finished("one"), finished("two", "train.seed=1")], tmp_path / "page"
    done(make_page(*runs, "--out", out))
    text = (out / "README.md").read_text()
    header, _, first, second, mean = (line for line in text.splitlines() if line.startswith("|"))
    assert header == "| seed | FID (pixels) ↓ | precision (pixels) ↑ | recall (pixels) ↑ | minutes |"
    cells = [line.strip("| ").split(" | ") for line in (first, second, mean)]
    assert [row[0] for row in cells] == ["0", "1", "mean ± deviation"]
    fids = [float(row[1]) for row in cells[:2]]
    low, high = sorted(fids)
    assert low <= float(cells[2][1].split(" ± ")[0]) <= high
    assert "200 generated images against 500 training images, by extractor pixels" in text
    (real,) = re.findall(
        r"Real test images in place of generated ones, as many or all there are: precision ([\d.]+), recall ([\d.]+)\.",
        text,
    )
    assert all(0.8 < float(value) <= 1 for value in real)
    assert "for seed in 0 1; do" in text
    assert "--set train.steps=2" in text  # unlike the configuration
    assert "--set conditional=true" in text
    for run, seed in zip(runs, (0, 1), strict=True):
        assert (out / f"seed-{seed}.png").read_bytes() == (run / "samples" / "final.png").read_bytes()
        assert f"(seed-{seed}.png)" in text
    assert {path.name for path in out.iterdir()} >= {"report.html", "report.json", "config.yaml"}


def test_what_the_page_refuses(finished: Callable[..., Path], tmp_path: Path) -> None:
    run, out = finished("one"), tmp_path / "page"
    refused(make_page(run, run, "--out", out), "the same seed twice")
    other = finished("other", "train.seed=1", "train.batch_size=4")
    refused(make_page(run, other, "--out", out), "differ in more than the seed: train.batch_size: 4, 8")
    second = finished("second", "train.seed=1")
    done(call("gan-eval", "--run", second, "--metrics", "fid", "--set=eval.num_fid=50", "--device", "cpu"))
    refused(make_page(run, second, "--out", out), "fid was measured by different protocols")
    (run / "samples" / "final.png").unlink()
    refused(make_page(run, "--out", out), "no samples/final.png; finish the run by RUN=")
    assert not out.exists()
