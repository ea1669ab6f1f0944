"""Tests of tools/benchmark.py: every command runs and reports its variants; no times are compared."""

import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from commands import call_tool, refused
from torch.autograd import DeviceType

from gan.errors import ConfigError

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Module of tools/benchmark.py; the number of threads is restored afterwards."""
    monkeypatch.syspath_prepend(str(TOOLS))
    threads = torch.get_num_threads()
    yield importlib.import_module("benchmark")
    torch.set_num_threads(threads)


@pytest.fixture
def measure(benchmark: ModuleType, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs a command and returns its record, which must agree with the printed table."""

    def call(*arguments: str) -> dict[str, Any]:
        file = tmp_path / "record.json"
        done = CliRunner().invoke(benchmark.main, [*arguments, "--json", str(file)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        record = json.loads(file.read_text())
        for group, rows in record.items():
            if isinstance(rows, dict) and arguments[0] != "all":
                assert f"| {group} | " in done.output
                assert all(f"| {name} | " in done.output for name in rows)
        return record

    return call


def test_train_measures_every_variant(measure: Callable[..., dict[str, Any]]) -> None:
    record = measure("train", "--size=small", "--normalization=none,srn", "--repeats=2", "--no-memory", "--no-peer")
    rows = record["iteration"]
    assert list(rows) == ["none fp32", "none bf16", "srn fp32", "srn bf16"]
    assert rows["none fp32"]["ratio"] == 1
    for row in rows.values():
        assert row["share_of_floor"] > 0
        assert row["images_per_s"] == pytest.approx(5 * 4 / row["median_ms"] * 1000, rel=0.01)
        assert row["minutes_for_50,000_iterations"] == pytest.approx(50_000 * row["median_ms"] / 60_000, abs=0.06)
    assert record["step of srn bf16"] == "plain step: train.fast is off"


def test_train_goes_through_the_choice_of_the_step(measure: Callable[..., dict[str, Any]]) -> None:
    record = measure(
        *("train", "--size=small", "--normalization=wgan_gp", "--precision=tf32", "--repeats=2"),
        *("--no-memory", "--no-peer", "--set=train.fast=on"),
    )
    assert record["step of wgan_gp tf32"] == "plain step: a CUDA graph needs a CUDA device, this is cpu"
    assert list(record["iteration"]) == ["wgan_gp tf32"]


def test_classify_measures_every_variant_beside_the_usual_loop(measure: Callable[..., dict[str, Any]]) -> None:
    small = ("--set=classifier.depth=8", "--set=classifier.channels=4", "--repeats=2")
    record = measure("classify", *small, "--normalization=none,srn", "--precision=fp32")
    assert list(record["update"]) == ["the usual loop fp32", "none fp32", "srn fp32"]
    assert record["update"]["the usual loop fp32"]["ratio"] == 1
    assert list(measure("classify", *small, "--normalization=sn", "--no-peer")["update"]) == ["sn fp32", "sn bf16"]


def test_an_iteration_is_counted_without_timing(benchmark: ModuleType, measure: Callable[..., dict[str, Any]]) -> None:
    """A GPU adds nodes of a graph and synchronisations. By hand: a 3x3 convolution with bias, its two gradients."""
    counting = sys.modules["benchmarks.counting"]
    images, conv = torch.zeros(2, 3, 4, 4), torch.nn.Conv2d(3, 5, 3, padding=1)
    inputs, outputs, weight, bias = 4 * 2 * 3 * 16, 4 * 2 * 5 * 16, 4 * 5 * 3 * 9, 4 * 5
    assert counting.count_traffic(lambda: conv(images)) == (1, inputs + weight + bias + 3 * outputs)
    gradient = torch.ones(2, 5, 4, 4)
    backward = counting.count_traffic(partial(torch.autograd.backward, conv(images), gradient))
    assert backward == (1, 2 * outputs + inputs + 2 * weight + bias)
    record = measure("launches", "--device=cpu", "--size=small", "--normalization=none,srn")
    rows = record["iteration"]
    assert rows["srn"]["operations"] > rows["none"]["operations"] > 500
    assert rows["srn"]["GB"] > rows["none"]["GB"] > 0
    compiled = call_tool("benchmark", "launches", "--size=small", "--set=train.fast=compile")
    refused(compiled, "train.fast: got compile, expected off, auto or on with --device cpu")


def test_a_gpu_is_measured_with_both_steps(benchmark: ModuleType) -> None:
    """With --set train.fast only the chosen step is timed. Arithmetic is always counted on the plain step."""
    training, sizes = sys.modules["benchmarks.training"], sys.modules["benchmarks.sizes"]

    def fast(*overrides: str) -> dict[str, list[str]]:
        makers = training._makers(sizes.SIZES["small"], ["sn"], ["fp32", "bf16"], [], overrides, "cuda")
        for maker in makers.values():
            assert maker.plain.args[1][-1] == "train.fast=off"
        return {name: [place for place in maker.make.args[1] if "fast" in place] for name, maker in makers.items()}

    assert fast() == {
        "sn fp32": ["train.fast=off"],
        "sn fp32, fast": ["train.fast=on"],
        "sn bf16": ["train.fast=off"],
        "sn bf16, fast": ["train.fast=on"],
    }
    assert fast("train.fast=auto") == {"sn fp32": ["train.fast=auto"], "sn bf16": ["train.fast=auto"]}


def test_a_variant_whose_capture_fails_is_left_out_by_name(
    measure: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sys.modules["benchmarks.sizes"]
    chosen = sizes.choose_step

    def choose(trainer: Any) -> Any:
        if trainer.settings.precision == "bf16":
            raise ConfigError("no graph")
        return chosen(trainer)

    monkeypatch.setattr(sizes, "choose_step", choose)
    record = measure("train", "--size=small", "--normalization=sn", "--repeats=2", "--no-memory", "--no-peer")
    assert list(record["iteration"]) == ["sn fp32"]
    assert record["left out: sn bf16"] == "no graph"


def test_several_calls_between_two_readings_of_the_clock(benchmark: ModuleType) -> None:
    timing, called = sys.modules["benchmarks.timing"], []
    seconds = timing.interleave({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2, "cpu", 1, 3)
    assert "".join(called) == "aaabbb" * 3
    assert [len(values) for values in seconds.values()] == [2, 2]
    rows = {"a": {"median_ms": 120.0}}
    timing.add_whole_run(rows, 1_000, calls=2)
    assert rows["a"]["minutes_for_1,000_iterations"] == 1.0


def test_the_arithmetic_of_an_iteration_is_counted(benchmark: ModuleType) -> None:
    """By hand, the full recipe with its rewrites has 1,184 billion multiplications; here at 1/64 of the width."""
    counting, sizes = sys.modules["benchmarks.counting"], sys.modules["benchmarks.sizes"]
    size = sizes.Size(2, 32, 16)
    counted = counting.count_flops(sizes.make_trainer(sizes.configure(size), "cpu").train_step)
    by_hand = 2 * 1184e9 / (64 // 2) / 8**2
    assert counted == pytest.approx(by_hand, rel=0.1), "RGB layers and the latent's do not shrink with the square"


def test_techniques_change_the_time_alone(benchmark: ModuleType) -> None:
    """Three iterations with each technique give the losses of three without, up to float32 rounding."""
    training, sizes = sys.modules["benchmarks.training"], sys.modules["benchmarks.sizes"]
    config = sizes.configure(sizes.SIZES["small"], ["discriminator.normalization=srn", "train.d_steps=2"])

    def totals(technique: str | None) -> torch.Tensor:
        made = []

        def make() -> Any:
            made.append(sizes.make_trainer(config, "cpu"))
            return made[-1]

        iterate = make().train_step if technique is None else training.TECHNIQUES[technique](make)
        for _ in range(3):
            iterate()
        return made[-1].state.totals  # type: ignore[no-any-return]

    expected = totals(None)
    for technique in training.TECHNIQUES:
        if technique != "compiled":  # takes minutes; tested with the normalizations
            torch.testing.assert_close(totals(technique), expected, rtol=1e-3, atol=1e-4, msg=technique)


def test_peak_memory_is_that_of_a_process_of_its_own(benchmark: ModuleType) -> None:
    """The memory of this process, 300 MB here, is not included."""
    training, sizes = sys.modules["benchmarks.training"], sys.modules["benchmarks.sizes"]
    held = torch.ones(75_000_000)
    make = partial(training._ours, sizes.SIZES["small"], [], "cpu")
    assert 0 < training._in_a_process(make, "cpu", 1) < held.nbytes


def test_mimicry_has_our_networks_and_sees_as_many_images(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    mimicry, sizes = sys.modules["benchmarks.mimicry"], sys.modules["benchmarks.sizes"]
    if not mimicry.mimicry_found():
        pytest.skip("torch-mimicry is not installed")
    size = sizes.SIZES["small"]
    config = sizes.configure(size)
    iterate = mimicry.mimicry_iteration(size, config.train, "cpu")
    from torch_mimicry.nets.sngan import SNGANDiscriminator32, SNGANGenerator32

    seen = []
    forward = SNGANDiscriminator32.forward
    monkeypatch.setattr(
        SNGANDiscriminator32, "forward", lambda self, x: (seen.append(tuple(x.shape)), forward(self, x))[1]
    )
    iterate()
    assert seen == [(4, 3, 32, 32)] * 10 + [(8, 3, 32, 32)]
    state = sizes.make_trainer(config, "cpu").state

    def count(network: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(SNGANGenerator32(ngf=size.generator)) == count(state.generator)
    assert count(SNGANDiscriminator32(ndf=size.discriminator)) == count(state.discriminator) + 1, "a bias at the end"


def test_normalize_compares_with_torch(measure: Callable[..., dict[str, Any]]) -> None:
    record = measure("normalize", "--repeats=3", "--size=small")
    assert list(record["forward"]) == ["torch", "sn", "srn", "bsn", "sn_batched", "srn_batched"]
    for rows in (record["forward"], record["forward and backward"]):
        assert rows["srn_batched"]["operations"] < rows["torch"]["operations"] / 2
    assert record["forward"]["srn_batched"]["operations"] <= 40, "the goal that it is batched for"
    assert list(record["discriminator step, small"]) == ["none", "sn", "srn", "sn_conv"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_normalize_measures_compiled_forms(measure: Callable[..., dict[str, Any]]) -> None:
    rows = measure("normalize", "--repeats=3", "--size=small", "--compiled")["forward"]
    eager = ["torch", "sn", "srn", "bsn", "sn_batched", "srn_batched"]
    assert list(rows) == [*eager, *(f"{name}_compiled" for name in eager)]
    assert [name for name in rows if "operations" in rows[name]] == eager


def test_operations_are_counted_as_a_gpu_would_launch_them(benchmark: ModuleType) -> None:
    """Expected counts are by hand: views, allocations and reading a number are free, in autograd too."""
    count_launches = sys.modules["benchmarks.counting"].count_launches
    x = torch.ones(4, 6, requires_grad=True)

    def views() -> None:
        torch.empty(3).resize_(2)
        torch.empty_like(x).view(6, 4).t()[1:].unsqueeze(0).expand(2, -1, -1).detach().unbind()

    def work() -> None:
        y = x.t() @ x  # a product
        z = torch.cat([y, y]).contiguous().exp_()  # a concatenation, no copy, one in place
        z.sum().item()  # a sum
        y.t().contiguous()  # a copy

    def backward() -> None:
        torch.autograd.grad(x * 2, x, torch.ones_like(x))  # two products and a fill

    counts = [count_launches(run, "cpu") for run in (views, work, backward)]
    assert counts == [{"operations": 0}, {"operations": 5}, {"operations": 3}]


def test_named_ranges_on_a_gpu_are_no_kernels(benchmark: ModuleType) -> None:
    """The profiler lists a range such as a phase on the host and, over its kernels, on the device."""
    rows = [(DeviceType.CPU, False), (DeviceType.CPU, True), (DeviceType.CUDA, False), (DeviceType.CUDA, True)]
    events = [SimpleNamespace(device_type=device, is_user_annotation=named) for device, named in rows]
    assert sys.modules["benchmarks.counting"].kernels_among(events) == 1


@pytest.mark.slow
def test_evaluate_measures_features_values_and_critics(
    benchmark: ModuleType, measure: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of Inception's size run once each, torch-fidelity's not at all."""

    def once(variants: dict[str, Callable[[], Any]], **_: Any) -> dict[str, list[float]]:
        for name, run in variants.items():
            if name.startswith("ours"):
                run()
        return {name: [1.0, 1.0] for name in variants}

    monkeypatch.setattr("benchmarks.evaluation.interleave", once)
    record = measure("evaluate", "--images=20", "--no-peer", "--repeats=2", "--dimensions=32")
    assert list(record["Inception features"]) == ["torch-fidelity", "ours"]
    assert record["Inception features"]["ours"]["images_per_s"] == 20
    assert list(record["fid,is end to end"]) == ["torch-fidelity", "ours"]
    assert list(record["Fréchet distance"]) == ["torch-fidelity", "ours", "ours, cached"]


@pytest.mark.slow
def test_the_critics_of_neural_divergence_step(benchmark: ModuleType) -> None:
    evaluation = sys.modules["benchmarks.evaluation"]
    rows = evaluation._critic_steps(1, 2, "cpu")
    assert list(rows) == ["srn2020, 1 steps", "gulrajani2019, 1 steps"]
    for row in rows.values():
        assert row["minutes_for_100,000_iterations"] == pytest.approx(row["median_ms"] * 100_000 / 60_000, abs=0.06)


def test_data_reads_each_form_of_a_data_set(measure: Callable[..., dict[str, Any]]) -> None:
    rows = measure("data", "--images=50", "--batch-size=8", "--batches=3", "--repeats=2")["reading"]
    assert len(rows) == 4
    assert all(row["batches_per_s"] > 0 for row in rows.values())


@pytest.mark.slow
def test_scale_covers_sizes_threads_and_processes(
    benchmark: ModuleType, measure: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand in for processes, which would take longer to start than to run."""
    scale = sys.modules["benchmarks.scale"]
    monkeypatch.setattr(scale, "ProcessPoolExecutor", lambda count, mp_context: ThreadPoolExecutor(count))
    monkeypatch.setattr(scale.multiprocessing, "get_context", lambda how: Threads())
    record = measure("scale", "--size=small", "--repeats=2", "--processes=2", "--set=train.d_steps=1")
    assert list(record["batch size"]) == ["2", "4", "8"]
    assert list(record["width, generator/discriminator"]) == ["4/4", "8/8", "16/16"]
    assert list(record["image size"]) == ["32", "64"]
    assert "1" in record["threads"]
    assert list(record["processes"]) == ["1", "2"]
    together = record["processes"]["2"]
    assert together["images_per_s"] == pytest.approx(2 * 4 / together["median_ms"] * 1000, rel=0.01)


class Threads:
    """Stand-in for the parts of multiprocessing's context that the benchmark uses."""

    @contextmanager
    def Manager(self) -> Iterator[ModuleType]:
        yield threading


def test_all_is_a_list_of_commands_a_person_could_type(benchmark: ModuleType) -> None:
    for command, settings in benchmark.ALL.values():
        arguments = [part for key, value in settings.items() for part in benchmark._as_arguments(command, key, value)]
        context = command.make_context("any", arguments)
        assert all(context.params[key] is not None for key in settings)


def test_all_collects_the_records(measure: Callable[..., dict[str, Any]], benchmark: ModuleType) -> None:
    settings = {"images": 50, "batches": 2, "repeats": 2}
    benchmark.ALL["data"] = (benchmark.measure_data, settings)
    assert list(measure("all", "--only=data")["data"]["reading"])


def test_unknown_names_are_refused_by_name(benchmark: ModuleType) -> None:
    done = CliRunner().invoke(benchmark.main, ["train", "--normalization=srm"])
    assert done.exit_code == 2
    assert "got 'srm', expected names out of: none, sn" in done.output.replace("\n", " ")
