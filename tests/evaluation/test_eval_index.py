"""Tests of gan-eval --index: a page of finished, running and damaged runs, opened in a browser."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from commands import call, done, refused
from headless import HOSTILE, Browser, Parts
from PIL import Image

from evaluation.runtime import files

NAME = HOSTILE.replace("/", "") + "#?%: é"


@pytest.fixture
def runs(copied: Callable[..., Path], tmp_path: Path) -> Path:
    """Folder with a finished run, one that began, a damaged one and a folder of one with a hostile name."""
    finished = copied("runs/finished", "train.steps=2")
    done(call("gan-eval", "--run", finished, "--metrics", "fid", "--device", "cpu"))
    folder = tmp_path / "runs"
    began = shutil.copytree(finished, folder / "more" / NAME)
    for place in ("checkpoints", "reports"):
        shutil.rmtree(began / place)
    with (began / "metrics.jsonl").open("a") as log:
        log.write('{"step": 1, "alarm": "spectral_norm", "begins": true, "text": "large"}\n')
        log.write('{"step": 2, "alarm": "spectral_norm", "begins": false, "text": ""}\n')
        log.write('{"step": 2, "alarm": "no_gradient", "begins": true, "text": "the generator is still"}\n')
        log.write('{"step": 3, "d_lo')  # half a line
    config = (began / "config.yaml").read_text()
    (began / "config.yaml").write_text(config.replace("learning_rate: 0.0002", "learning_rate: 0.0001"))
    damaged = shutil.copytree(finished, folder / "damaged")
    for file in (damaged / "run.json", damaged / "config.yaml", *damaged.glob("reports/*/report.json")):
        file.write_text("{")
    for file in (*damaged.glob("checkpoints/*.pt"), damaged / "samples" / "step-00000002.png"):
        file.write_bytes(file.read_bytes()[:99])
    (folder / "notes.txt").write_text("no run")
    (folder / "empty").mkdir()
    return folder


def test_values_links_and_reasons(runs: Path) -> None:
    result = done(call("gan-eval", "--index", runs))
    assert "index of 3 runs" in result.output
    assert f"more/{NAME}: alarm no_gradient since step 2: the generator is still" in result.output
    assert "damaged: step-00000002.pt is damaged; gan-train --resume --skip-damaged" in result.output
    page = Parts((runs / "index.html").read_text())
    report = json.loads((runs / "finished/reports/00000002/report.json").read_text())["values"]["fid/pixels"]
    for part in (
        *("FID (pixels)", f"{report['value']:.4g}", report["hash"][:8], f"{report['count']:,} images"),
        *("GAN, step 2 of 2", "500 real images", "Features and logits: pixels", "samples, step-00000002"),
        *("alarm: no_gradient", "train.learning_rate 0.0001", "alarm spectral_norm, until step 2, at step 1: large"),
        *("no checkpoint, so it", "run.json is missing or damaged", "its configuration cannot be read"),
        *("got a damaged report", "samples/step-00000002.png: cannot be read", "samples, step-00000000"),
    ):
        assert part in page.text, part
    links = [unquote(address) for address in page.addresses if not address.startswith(("data:", "#"))]
    expected = ["finished/", "finished/reports/00000002/report.html", "finished/samples/step-00000002.png", "damaged/"]
    assert {*expected, f"more/{NAME}/"} <= set(links)
    assert all((runs / link).exists() for link in links)
    assert page.tags.count("section") == 3
    assert page.tags.count("svg") == page.tags.count("figure") == 6


def test_names_are_escaped_and_the_page_can_be_elsewhere(runs: Path, tmp_path: Path) -> None:
    done(call("gan-eval", "--index", runs, "--out", tmp_path / "pages" / "here"))
    text = (tmp_path / "pages" / "here" / "index.html").read_text()
    page = Parts(text)
    assert f"more/{NAME}" in page.text
    assert "<script" not in text
    assert not page.handlers
    links = [unquote(address) for address in page.addresses if not address.startswith(("data:", "#"))]
    assert f"../../runs/more/{NAME}/" in links
    assert all((tmp_path / "pages" / "here" / link).exists() for link in links)
    assert not (runs / "index.html").exists()


def test_values_of_other_protocols_have_columns_of_their_own(runs: Path) -> None:
    other = shutil.copytree(runs / "finished", runs / "other")
    shutil.rmtree(other / "reports")
    done(call("gan-eval", "--run", other, "--metrics=fid", "--device=cpu", "--set=eval.num_fid=30"))
    done(call("gan-eval", "--index", runs))
    page = Parts((runs / "index.html").read_text())
    reports = (next(run.glob("reports/*/report.json")) for run in (runs / "finished", other))
    hashes = [json.loads(report.read_text())["values"]["fid/pixels"]["hash"][:8] for report in reports]
    head = page.text[: page.text.index("damaged")]
    assert all(f"protocol {digest}" in head for digest in hashes)
    assert head.count("FID (pixels)") == 2


def test_hundreds_of_runs_are_a_page_of_some_megabytes(runs: Path) -> None:
    for number in range(200):
        run = shutil.copytree(runs / "finished", runs / "many" / f"run-{number:03}", symlinks=True)
        (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("seed: 0", f"seed: {number}"))
    assert "index of 203 runs" in done(call("gan-eval", "--index", runs)).output
    assert (runs / "index.html").stat().st_size < 203 * 80_000


def test_a_single_run_of_a_classifier(small_shapes: Path, tmp_path: Path) -> None:
    run, small = (
        tmp_path / "one",
        ["train.epochs=1", "train.milestones=[]", "data.num_train=100", "classifier.channels=4"],
    )
    sets = [f"--set={setting}" for setting in (*small, f"data.root={small_shapes}")]
    done(call("gan-train-classifier", "--config", "classifier_smoke", "--run", run, "--device", "cpu", *sets))
    done(call("gan-eval", "--index", run))
    page = Parts((run / "index.html").read_text())
    assert "classifier, epoch 1 of 1, step" in page.text
    assert "./" in page.addresses


def test_it_is_replaced_whole(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / "index.html").write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "write_text", full)
        refused(call("gan-eval", "--index", runs), "cannot be written (No space left on device)")
    assert (runs / "index.html").read_text() == "before"
    done(call("gan-eval", "--index", runs))
    assert sorted(path.name for path in runs.iterdir()) == [
        "damaged",
        "empty",
        "finished",
        "index.html",
        "more",
        "notes.txt",
    ]


def test_wrong_folders_and_options_are_refused(runs: Path, tmp_path: Path) -> None:
    refused(call("gan-eval", "--index", tmp_path / "none"), "no such folder; give one that holds runs")
    refused(call("gan-eval", "--index", runs / "empty"), "holds no run", "gan-train --run")
    refused(call("gan-eval", "--index", runs, "--metrics", "fid"), "measures nothing; leave out --metrics")
    refused(call("gan-eval", "--index", runs, "--out", runs / "notes.txt"), "choose another folder")


SHOWN = """({
  images: [...document.images].map((one) => [one.naturalWidth, one.getBoundingClientRect().width]),
  links: [...document.links].map((one) => one.href),
  names: [...document.querySelectorAll('h2')].map((one) => one.innerText),
  overflow: document.body.scrollWidth,
  orders: [...document.querySelectorAll('.overview input')].map((one) => {
    one.click();
    const above = (row) => row.getBoundingClientRect().top;
    const rows = [...document.querySelectorAll('.overview tbody tr')].sort((a, b) => above(a) - above(b));
    return one.parentElement.innerText.trim() + ': ' + rows.map((row) => row.innerText.slice(0, 2));
  }),
})"""


def test_a_browser_shows_it_after_the_folder_was_copied(runs: Path, tmp_path: Path, browser: Browser) -> None:
    with Image.open(runs / "finished/samples/step-00000002.png") as grid:
        grid.resize((2000, 1000)).save(runs / "finished/samples/step-00000002.png")
    done(call("gan-eval", "--index", runs))
    copy = shutil.copytree(runs, tmp_path / "copy")
    shutil.rmtree(runs)
    address = (copy / "index.html").as_uri()
    visit = browser.visit(address, SHOWN)
    assert not visit.messages
    assert [request for request in visit.requests if not request.startswith("data:")] == [address]
    assert visit.answer["names"] == ["damaged", "finished", f"more/{NAME}"]
    # Rows of the damaged, the finished and the hostile run, whose learning rates are unknown, 2e-4 and 1e-4.
    orders = dict(order.split(": ") for order in visit.answer["orders"])
    assert orders["run"] == "da,fi,mo"
    assert orders["train.learning_rate"] == "mo,fi,da"
    assert orders["FID (pixels)"] == "fi,da,mo"
    assert len(visit.answer["images"]) == 3
    assert all(natural > 0 and width > 0 for natural, width in visit.answer["images"])
    assert 320 in [natural for natural, _ in visit.answer["images"]]
    assert visit.answer["overflow"] <= 1200
    assert all(link.startswith(copy.as_uri() + "/") for link in visit.answer["links"])
    assert all(Path(unquote(urlsplit(link).path)).exists() for link in visit.answer["links"])
    report = next(link for link in visit.answer["links"] if link.endswith("report.html"))
    assert "FID" in browser.visit(report, "document.body.innerText").answer
