"""Tests of gan.runs.logger: log files and printed lines."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

from gan.normalization import LayerSpectrum
from gan.runs.logger import Logger

SCALARS = {"d_loss": 1.0, "g_loss": -0.5, "real_logit": 0.25, "fake_logit": -2.0, "learning_rate": 1e-4}
LAYER = LayerSpectrum("head", 2.0, 3.0, 1.5, True, 1.0, 1.5)


def logger(run: Path, first_step: int = 0) -> Logger:
    return Logger(run, steps=10, images_per_step=4, first_step=first_step)


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logger(tmp_path)
    log.start(0)
    log.line(5, SCALARS, [LAYER])
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("step 5/10  D +1.000  G -0.500  D(x) +0.250  D(G(z)) -2.000")
    assert "images/s" in line
    assert line.endswith("left")


def test_a_progress_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = logger(tmp_path)
    log.start(0)
    log.line(5, SCALARS, [LAYER])
    log.advance(5)
    log.say("a remark")
    log.close()
    shown = terminal.getvalue()
    assert "5/10" in shown
    assert "50%" in shown
    assert "a remark" in shown


def test_a_resumed_run_drops_what_comes_again(tmp_path: Path) -> None:
    log = logger(tmp_path)
    for step in (2, 4, 6):
        log.line(step, SCALARS, [LAYER])
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "d_lo')
    logger(tmp_path, first_step=4).close()
    assert steps(tmp_path) == [2, 4]


def test_pauses_do_not_count_as_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 steps of 4 images take 2 seconds of training and 98 of other work."""
    clock = [0.0]
    monkeypatch.setattr("gan.runs.logger.time.perf_counter", lambda: clock[0])
    log = logger(tmp_path)
    log.start(0)
    with log.pause():
        clock[0] += 98
    clock[0] += 2
    log.line(5, SCALARS, [LAYER])
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["images_per_second"] == pytest.approx(10)


def test_a_grid_is_a_png(tmp_path: Path) -> None:
    from PIL import Image

    log = logger(tmp_path)
    pixels = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    log.grid(3, pixels)
    log.close()
    with Image.open(tmp_path / "samples" / "step-00000003.png") as image:
        assert image.size == (7, 5)
        assert image.getpixel((6, 4)) == tuple(pixels[:, 4, 6].tolist())
