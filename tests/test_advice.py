"""Advice in error messages works: a broken command, its message, and the command that follows the advice."""

import importlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from commands import COMMANDS, done, refused
from PIL import Image

from evaluation.__main__ import main as evaluation

TRAIN = "gan-train --config smoke --device cpu --run {t}/run --set train.steps=1 --set data.root={s}"
OWN = f"{TRAIN} --set data.name=folder --set data.root="
EVAL = f"{TRAIN} --set train.eval_every=1 --set eval.num_real=60 --set eval.num_fid=40 --set"
DRY = "gan-train --config smoke --device cpu --dry-run --set"
CLASSIFIER = "gan-train-classifier --config classifier_smoke --device cpu --run {t}/run --set train.epochs=0"
ALONE = "evaluation --no-cache --num-real all --num-fid all --num-is all --splits 2"
PAIR = f"{ALONE} --generated {{flat}} --reference {{flat}} --extractor pixels"
CLASSES = f"{ALONE} --generated {{classes}} --reference {{classes}} --extractor pixels"
GAN_EVAL = "gan-eval --device cpu --out {t}/out --run {trained}"
FOLDER = "gan-eval --device cpu --out {t}/out --generated {flat} --config smoke --set data.root={s}"


class Advice(NamedTuple):
    """A command that is refused, a part of the message, and commands that follow it; later ones end with success."""

    broken: str
    says: str
    followed: str


ADVICE: dict[str, Advice] = {
    # size of the data
    "28x28": Advice(
        f"{OWN}{{mnist}}", "set data.resize to one of box, bilinear", f"{OWN}{{mnist}} --set data.resize=box"
    ),
    "28x28, border": Advice(f"{OWN}{{mnist}}", "or to pad, which adds", f"{OWN}{{mnist}} --set data.resize=pad"),
    "64x64": Advice(f"{OWN}{{large}}", "set data.image_size=64, or", f"{OWN}{{large}} --set data.image_size=64"),
    "64x64, resized": Advice(
        f"{OWN}{{large}}", "data.resize to one of box", f"{OWN}{{large}} --set data.resize=lanczos"
    ),
    "crop": Advice(f"{OWN}{{flat}} --set data.crop=40", "data.crop=40; lower it", f"{OWN}{{flat}} --set data.crop=32"),
    "drawn data": Advice(
        f"{TRAIN} --set data.root=drawn --set data.crop=8",
        "set data.crop=0 and data.resize=none",
        f"{DRY} data.crop=0 --set data.resize=none",
    ),
    "packed 64x64": Advice(
        f"{OWN}{{packed64}} --set data.resize=box",
        "set data.image_size=64, or",
        f"{OWN}{{packed64}} --set data.resize=box --set data.image_size=64",
    ),
    "packed 16x16": Advice(
        f"{OWN}{{packed16}}",
        "data.image_size is 32; pack the data again with data.image_size=32",
        f"prepare_dataset --root {{flat}} --out {{t}}/again --image-size 32 && {OWN}{{t}}/again",
    ),
    "packed, other name": Advice(
        f"{TRAIN} --set data.name=cifar10", "set data.name=shapes, or", f"{TRAIN} --set data.name=shapes"
    ),
    "packed, other resize": Advice(
        f"{TRAIN} --set data.resize=box", "set data.resize=none, or", f"{TRAIN} --set data.resize=none"
    ),
    # classes
    "one class": Advice(
        f"{OWN}{{flat}} --set conditional=true", "set conditional: false,", f"{OWN}{{flat}} --set conditional=false"
    ),
    "one class, sorted": Advice(
        f"{OWN}{{flat}} --set conditional=true",
        "sort the images into folders",
        f"{OWN}{{classes}} --set conditional=true",
    ),
    "classifier, one class": Advice(
        f"{CLASSIFIER} --set data.num_train=0 --set data.name=folder --set data.root={{flat}}",
        "sort the images into folders by class",
        f"{CLASSIFIER} --set data.num_train=0 --set data.name=folder --set data.root={{classes}}",
    ),
    "classifier, few images": Advice(
        f"{CLASSIFIER} --set data.root={{s}} --set data.num_train=900",
        "choose fewer, or 0 for all",
        f"{CLASSIFIER} --set data.root={{s}} --set data.num_train=100",
    ),
    "classifier, depth": Advice(
        f"{CLASSIFIER} --set classifier.depth=9", "such as 20,", f"{CLASSIFIER} --set classifier.depth=20 --dry-run"
    ),
    "classifier, nesterov": Advice(
        f"{CLASSIFIER} --set train.nesterov=true --set train.momentum=0.0",
        "momentum above 0 with nesterov=true",
        f"{CLASSIFIER} --set train.nesterov=true --set train.momentum=0.1 --print-config",
    ),
    # networks and losses
    "widths": Advice(f"{DRY} generator.widths=[1]", "such as [1, 1, 1, 1]", f"{DRY} 'generator.widths=[1, 1, 1, 1]'"),
    "penalty twice": Advice(
        f"{DRY} discriminator.normalization=wgan_gp --set discriminator.penalty=gradient",
        "expected none or another penalty",
        f"{DRY} discriminator.normalization=wgan_gp --set discriminator.penalty=r1",
    ),
    "infeasible": Advice(
        f"{DRY} discriminator.infeasible=error", 'or infeasible="skip"', f"{DRY} discriminator.infeasible=skip"
    ),
    "infeasible, floor": Advice(
        f"{DRY} discriminator.infeasible=error", '"skip" or "floor"', f"{DRY} discriminator.infeasible=floor"
    ),
    "infeasible, larger": Advice(
        f"{DRY} discriminator.infeasible=error",
        "use c=1, or",
        f"{DRY} discriminator.infeasible=error --set discriminator.c=1",
    ),
    "name": Advice(f"{DRY} generator.name=resnt", "did you mean 'resnet'?", f"{DRY} generator.name=resnet"),
    "setting": Advice(f"{DRY} train.keep_lst=3", "did you mean 'keep_last'?", f"{DRY} train.keep_last=3"),
    "nothing": Advice(
        f"{DRY} train.keep_best=", "expected a valid string ('' for an empty one)", f"{DRY} \"train.keep_best=''\""
    ),
    # the best checkpoint
    "best, no evaluation": Advice(
        f"{DRY} train.keep_best=fid", "set train.eval_every", f"{DRY} train.keep_best=fid --set train.eval_every=5"
    ),
    "best, other metric": Advice(
        f"{DRY} train.keep_best=kid --set train.eval_every=5",
        "expected one of fid",
        f"{DRY} train.keep_best=fid --set train.eval_every=5",
    ),
    "best, several extractors": Advice(
        f"{EVAL} train.keep_best=fid --set eval.extractor=pixels,resnet",
        "such as fid/pixels",
        f"{EVAL} train.keep_best=fid/pixels --set eval.extractor=pixels,resnet",
    ),
    "best, the other extractor": Advice(
        f"{EVAL} train.keep_best=fid/inception --set eval.extractor=pixels,resnet",
        "expected one of the values that can be ranked: fid/pixels, fid/resnet20-",
        f"{EVAL} train.keep_best=fid/resnet --set eval.extractor=pixels,resnet",
    ),
    "best of none": Advice(
        f"{GAN_EVAL} --best",
        "train with train.keep_best and train.eval_every",
        f"{EVAL} train.keep_best=fid && gan-eval --run {{t}}/run --best --device cpu",
    ),
    # numbers of images
    "few real images": Advice(f"{EVAL} eval.num_real=5000", "or lower eval.num_real", f"{EVAL} eval.num_real=50"),
    "kid": Advice(
        f"{EVAL} eval.metrics=kid",
        "or lower eval.kid_subset_size",
        f"{EVAL} eval.metrics=kid --set eval.kid_subset_size=9",
    ),
    "prdc": Advice(
        f"{EVAL} eval.metrics=prdc --set eval.num_fid=4",
        "or lower eval.pr_neighbours and eval.dc_neighbours",
        f"{EVAL} eval.metrics=prdc --set eval.num_fid=4 --set eval.pr_neighbours=1 --set eval.dc_neighbours=2",
    ),
    "one image": Advice(f"{EVAL} eval.num_fid=1", "raise eval.num_fid, which is 1", f"{EVAL} eval.num_fid=2"),
    "line": Advice(
        f"{EVAL} eval.metrics=fid_infinity --set eval.num_fid=20",
        "or raise eval.num_fid",
        f"{EVAL} eval.metrics=fid_infinity --set eval.num_fid=30",
    ),
    "no image": Advice(f"{EVAL} eval.num_fid=0", "expected a positive number", f"{EVAL} eval.num_fid=9"),
    "pairs": Advice(
        f"{EVAL} eval.metrics=elhist",
        "or lower eval.lipschitz.pairs",
        f"{EVAL} eval.metrics=elhist --set eval.lipschitz.pairs=9",
    ),
    "pairs of a class": Advice(
        f"{EVAL} conditional=true --set eval.metrics=elhist --set eval.lipschitz.pairs=12 --set eval.labels=uniform",
        "raise eval.lipschitz.pairs, set eval.labels=balanced, or leave",
        f"{EVAL} conditional=true --set eval.metrics=elhist --set eval.lipschitz.pairs=12 --set eval.labels=balanced",
    ),
    "splits": Advice(f"{DRY} eval.is_splits=900", "at most num_is = 200", f"{DRY} eval.is_splits=200"),
    # metrics of classes
    "no classes": Advice(
        f"{EVAL} eval.metrics=intra_fid",
        "or train with conditional=true",
        f"{EVAL} eval.metrics=intra_fid --set conditional=true --set eval.num_intra=4",
    ),
    "no classes, left out": Advice(
        f"{EVAL} eval.metrics=fid,intra_fid", "leave the metric out", f"{EVAL} eval.metrics=fid"
    ),
    "uniform labels": Advice(
        f"{DRY} conditional=true --set eval.metrics=intra_fid --set train.eval_every=1 --set eval.labels=uniform",
        "set eval.labels=balanced",
        f"{DRY} conditional=true --set eval.metrics=intra_fid --set train.eval_every=1 --set eval.labels=balanced",
    ),
    "one image per class": Advice(
        f"{EVAL} conditional=true --set eval.metrics=intra_fid --set eval.num_intra=1",
        "got eval.num_intra=1 generated images per class, expected at least 2; raise it",
        f"{EVAL} conditional=true --set eval.metrics=intra_fid --set eval.num_intra=2",
    ),
    # extractors
    "no logits": Advice(
        f"{EVAL} eval.metrics=is",
        "choose inception, resnet or classifier",
        f"{EVAL} eval.metrics=is --set eval.extractor=resnet",
    ),
    "extractor for 32x32": Advice(
        f"{OWN}{{large}} --set data.image_size=64 --set train.eval_every=1 --set eval.extractor=resnet"
        " --set eval.num_real=9 --set eval.num_fid=9",
        "choose another extractor, such as inception, classifier or pixels",
        f"{OWN}{{large}} --set data.image_size=64 --set train.eval_every=1 --set eval.extractor=pixels"
        " --set eval.num_real=9 --set eval.num_fid=9",
    ),
    "statistics of another extractor": Advice(
        f"{EVAL} eval.reference_statistics={{statistics}}",
        "give statistics that were computed with it",
        f"{EVAL} eval.reference_statistics={{statistics192}}",
    ),
    # runs
    "held, resumed": Advice(
        f"{TRAIN} --run {{copied}}", "continue it with --resume", "gan-train --device cpu --run {copied} --resume"
    ),
    "held, elsewhere": Advice(f"{TRAIN} --run {{copied}}", "choose another --run", f"{TRAIN} --run {{t}}/other"),
    "skip damaged": Advice(f"{TRAIN} --skip-damaged", "needs --resume", f"{TRAIN} --skip-damaged --resume"),
    "damaged": Advice(
        "gan-train --device cpu --run {damaged} --resume",
        "with gan-train --run {damaged} --resume --skip-damaged",
        "gan-train --device cpu --run {damaged} --resume --skip-damaged",
    ),
    "no configuration": Advice("gan-train --run {t} --resume", "start one with --config", f"{TRAIN} --run {{t}}/new"),
    "variant alone": Advice(
        "gan-train --with srn50 --print-config", "needs --config", f"{TRAIN} --with srn50 --print-config"
    ),
    "old name": Advice(
        "gan-train --config cifar10_jpeg_srn70 --print-config",
        "is now --config cifar10_srn70 --with jpeg",
        "gan-train --config cifar10_srn70 --with jpeg --print-config",
    ),
    "mistyped name": Advice(
        "gan-train --config smok --print-config",
        "did you mean 'smoke.yaml'?",
        "gan-train --config smoke.yaml --print-config",
    ),
    "other settings": Advice(
        "gan-train --device cpu --run {copied} --resume --set train.batch_size=4",
        "leave out --config, --with and --set, or",
        "gan-train --device cpu --run {copied} --resume",
    ),
    "other device": Advice(f"{TRAIN} --device cuda:99", "expected auto, cpu, cuda or cuda:N", f"{TRAIN} --device cpu"),
    "option without a name": Advice(
        "gan-train smoke", "such as --config NAME", "gan-train --config smoke --print-config"
    ),
    # gan-eval and gan-sample
    "folder without protocol": Advice(
        "gan-eval --generated {flat}", "needs --config", f"{FOLDER} --set eval.num_fid=0"
    ),
    "two sources": Advice(
        "gan-eval --run {trained} --checkpoint {trained}", "give only one of them", f"{GAN_EVAL} --set eval.num_real=90"
    ),
    "settings of training": Advice(
        f"{GAN_EVAL} --set train.batch_size=4", "change only eval.*", f"{GAN_EVAL} --set eval.num_real=90"
    ),
    "few generated images": Advice(FOLDER, "give more, or lower eval.num_fid", f"{FOLDER} --set eval.num_fid=30"),
    "pool of a folder": Advice(
        f"{FOLDER} --metrics nd --set eval.nd.pool=9", "leave it out", f"{FOLDER} --metrics nd --set eval.nd.steps=1"
    ),
    "holdout": Advice(
        f"{GAN_EVAL} --metrics nd --set eval.nd.holdout=0.0001",
        "nd.holdout: got 0.0001 of 300 test images, expected 0, or a fraction",
        f"{GAN_EVAL} --metrics nd --set eval.nd.steps=1 --set eval.nd.holdout=0.5",
    ),
    "one report": Advice(
        "gan-eval --compare {report}",
        "expected at least two",
        "gan-eval --compare {report} {report2} --skip-mixed --out {t}/out",
    ),
    "mixed reports": Advice(
        "gan-eval --compare {report} {report2}",
        "leave mixed values out with --skip-mixed",
        "gan-eval --compare {report} {report2} --skip-mixed --out {t}/out",
    ),
    "no report": Advice(
        "gan-eval --compare {trained} {report}",
        "measure it with gan-eval --run {trained}",
        f"{GAN_EVAL} --set eval.num_real=90 && gan-eval --compare {{t}}/out {{report}} --skip-mixed --out {{t}}/both",
    ),
    "unconditional": Advice(
        "gan-sample --run {trained} --class 1 --out {t}/out",
        "leave the option out",
        "gan-sample --run {trained} --num 4 --out {t}/out",
    ),
    "occupied folder": Advice(
        "gan-sample --run {trained} --num 4 --out {flat}",
        "choose a new or an empty one",
        "gan-sample --run {trained} --num 4 --out {t}/new",
    ),
    "samples in a file": Advice(
        "gan-sample --run {trained} --num 4 --out {t}/new.npz",
        "add --format npz for one file",
        "gan-sample --run {trained} --num 4 --out {t}/new.npz --format npz",
    ),
    "seeds and a number": Advice(
        "gan-sample --run {trained} --seeds 0-3 --num 4 --out {t}/new",
        "leave out --num and --seed",
        "gan-sample --run {trained} --seeds 0-3 --out {t}/new",
    ),
    "sweep of lists": Advice(
        "gan-train --config smoke --dry-run --device cpu --sweep 'generator.widths=[2,1,1,1],2,2,2,1]'",
        "a list in brackets",
        "gan-train --config smoke --dry-run --device cpu --sweep 'generator.widths=[2,1,1,1],[2,2,2,1]'",
    ),
    "sweep and --set": Advice(
        f"{DRY} train.d_steps=1 --sweep train.d_steps=1,2",
        "leave one of them out",
        f"{DRY} train.steps=1 --sweep train.d_steps=1,2",
    ),
    "demo and a run": Advice(
        "gan-sample --demo --run {trained}", "--demo: does not go with", "gan-sample --demo --num 10 --out {t}/new"
    ),
    # python -m evaluation
    "no reference": Advice(
        f"{ALONE} --generated {{flat}} --extractor pixels --metrics fid",
        "add them with --reference",
        f"{PAIR} --metrics fid",
    ),
    "no test images": Advice(
        f"{PAIR} --metrics nd --nd-steps 1",
        "add them with --test",
        f"{PAIR} --metrics nd --nd-steps 1 --test {{flat}}",
    ),
    "few images": Advice(
        f"{PAIR} --metrics fid --num-fid 900", "or lower num_fid", f"{PAIR} --metrics fid --set num_fid=9"
    ),
    "few images on both sides": Advice(
        f"{PAIR} --metrics fid --num-fid 900 --num-real 900",
        "or lower num_fid and num_real",
        f"{PAIR} --metrics fid --set num_fid=9 --set num_real=9",
    ),
    "mistyped data set": Advice(
        "gan-eval --generated {flat} --reference shpes --metrics fid --set eval.extractor=pixels",
        "did you mean the data set shapes?",
        "gan-eval --generated {flat} --reference shapes --metrics fid --set eval.extractor=pixels",
    ),
    "few images per class": Advice(
        f"{CLASSES} --metrics intra_fid --set num_intra=90",
        "or lower num_intra",
        f"{CLASSES} --metrics intra_fid --set num_intra=9",
    ),
    "unlabelled": Advice(
        f"{PAIR} --metrics intra_fid --set num_intra=9",
        "sort them into one sub-folder per class, or",
        f"{CLASSES} --metrics intra_fid --set num_intra=9",
    ),
    "unlabelled classifier": Advice(
        f"{ALONE} --generated {{flat}} --reference {{flat}} --metrics fid --extractor classifier",
        "or choose another extractor",
        f"{PAIR} --metrics fid",
    ),
    "discriminator": Advice(f"{PAIR} --metrics fid,elhist", "leave the metric out", f"{PAIR} --metrics fid"),
    "many splits": Advice(
        f"{PAIR} --extractor resnet --metrics is --splits 99",
        "or lower is_splits",
        f"{PAIR} --extractor resnet --metrics is --set is_splits=3",
    ),
    "metric in capitals": Advice(f"{PAIR} --metrics FID", "did you mean fid?", f"{PAIR} --metrics fid"),
    "mistyped metric": Advice(f"{PAIR} --metrics fdi", "did you mean fid?", f"{PAIR} --metrics fid"),
    "graphics card": Advice(f"{PAIR} --metrics fid --device cuda:99", "use cpu", f"{PAIR} --metrics fid --device cpu"),
    "sizes": Advice(
        f"{ALONE} --generated {{flat}} --reference {{large}} --extractor pixels --metrics fid",
        "",
        f"{ALONE} --generated {{flat}} --reference {{large}} --extractor pixels --metrics fid --set image_size=32"
        " --set resize=box",
    ),
    # tools
    "nowhere to pack": Advice(
        "prepare_dataset --root {flat}", "name the folder to write", "prepare_dataset --root {flat} --out {t}/new"
    ),
    "packed already": Advice(
        "prepare_dataset --root {flat} --out {packed16}",
        "replace it with --overwrite",
        "prepare_dataset --root {flat} --out {packed16} --overwrite",
    ),
    "nothing to reproduce": Advice("reproduce", "--table: 1, 2", "reproduce --table 2 --dry-run"),
    "exported before": Advice(
        "gan-export --run {trained} --out {trained} --origin drawn",
        "choose a new or an empty one",
        "gan-export --run {trained} --out {t}/exported --origin drawn",
    ),
}


def picture(folder: Path, count: int, side: int, *classes: str) -> Path:
    random = np.random.default_rng(side)
    for index in range(count):
        place = folder / classes[index % len(classes)] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(place / f"{index}.png")
    return folder


def run(text: str, places: dict[str, Any]) -> Result:
    """Runs commands separated by &&, in this process."""
    for part in text.format(**places).split(" && "):
        name, *arguments = shlex.split(part)
        main: click.Command = {**COMMANDS, "evaluation": evaluation}.get(name) or importlib.import_module(name).main
        result = CliRunner().invoke(main, arguments, prog_name=name)
        if result.exit_code:
            break
    return result


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, small_shapes: Path, trained: Callable[..., Path]
) -> dict[str, Path]:
    """Data, runs and reports that no command changes."""
    t = tmp_path_factory.mktemp("advice")
    statistics = {size: t / f"{size}.npz" for size in (7, 192)}
    for size, file in statistics.items():
        np.savez(file, mu=np.zeros(size), sigma=np.eye(size))
    places = {
        "s": small_shapes,
        "trained": trained("train.steps=1"),
        "mnist": picture(t / "mnist", 12, 28),
        "flat": picture(t / "flat", 40, 32),
        "large": picture(t / "large", 12, 64),
        "classes": picture(t / "classes", 40, 32, "cat", "dog"),
        "statistics": statistics[7],
        "statistics192": statistics[192],
    }
    for number, count in (("", 90), ("2", 80)):
        places[f"report{number}"] = t / f"report{number}"
        command = (
            f"gan-eval --device cpu --run {{trained}} --set eval.num_real={count} --out {places[f'report{number}']}"
        )
        done(run(command, places))
    return places


@pytest.fixture
def places(
    shared: dict[str, Path], tmp_path: Path, copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Path]:
    """All places that a command names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "tools"))
    return {**shared, "t": tmp_path}


def prepare(name: str, places: dict[str, Path], copied: Callable[..., Path]) -> dict[str, Path]:
    """Adds the places that a case changes."""
    text, found = " ".join(ADVICE[name]), dict(places)
    for side in (16, 64):
        if f"{{packed{side}}}" in text:
            found[f"packed{side}"] = places["t"] / f"packed{side}"
            options = f"--image-size {side} --resize box"
            done(run(f"prepare_dataset --root {{flat}} --out {{packed{side}}} {options}", found))
    for kind in ("copied", "damaged"):
        if f"{{{kind}}}" in text:
            found[kind] = copied(kind, "train.steps=1")
    if "damaged" in found:
        checkpoint = max((found["damaged"] / "checkpoints").iterdir())
        checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    return found


CHEAP = ("--dry-run", "--print-config", f"{ALONE} --generated", "prepare_dataset --root {flat} --out")
"""Parts of commands that take less than a second."""
MARKED = [
    pytest.param(name, marks=() if any(part in advice.followed for part in CHEAP) else pytest.mark.slow)
    for name, advice in ADVICE.items()
]


@pytest.mark.parametrize("name", ADVICE)
def test_advice_is_given_and_nothing_is_left(name: str, places: dict[str, Path], copied: Callable[..., Path]) -> None:
    advice, found = ADVICE[name], prepare(name, places, copied)
    refused(run(advice.broken, found), advice.says.format(**found))
    assert not (found["t"] / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", MARKED)
def test_advice_works(name: str, places: dict[str, Path], copied: Callable[..., Path]) -> None:
    done(run(ADVICE[name].followed, prepare(name, places, copied)))
