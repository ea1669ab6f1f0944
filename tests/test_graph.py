"""Tests of gan.training.graph: the fast step has the inputs and results of the plain step.

On a CPU the operations that a CUDA graph would replay run eagerly. If the plain step uses fused optimizers and batched
normalization as the graph does, both run the same operations and states are equal bit for bit; otherwise they differ by
rounding. The learning rate of EXACT is a power of two, exact in float32, because the graph reads it as float32.
"""

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from commands import done
from stepping import discriminator_step, generator_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gan import build
from gan.config import Config
from gan.config.loading import override_config
from gan.errors import ConfigError
from gan.normalization import NORMALIZATIONS
from gan.training import graph
from gan.training.graph import FastStep, choose_step, obstacle
from gan.training.state import undone
from gan.training.trainer import Trainer

EXACT = ("train.learning_rate=0.000244140625", "train.lr_decay=none")
Smoke = Callable[..., Config]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def make_plain(config: Config, *, alike: bool, device: str = "cpu") -> Trainer:
    """Trainer with the plain step; `alike` fuses optimizers and batches normalization as the fast step does."""
    state = build.build_state(config, device)
    if alike:
        for group in (*state.g_optimizer.param_groups, *state.d_optimizer.param_groups):
            group["fused"] = True
    batches = build.build_batches(config, build.load_images(config, "train"), device)
    loss, z_dim = build.build_loss(config), config.generator.z_dim
    return Trainer(state, batches, loss, config.train, z_dim=z_dim, batched=alike)


def make_fast(config: Config, *, device: str = "cpu", captured: bool = False) -> FastStep:
    plain = make_plain(config, alike=False, device=device)
    return fast_from(plain, captured=captured)


def fast_from(plain: Trainer, **options: bool) -> FastStep:
    return FastStep(plain.iteration, **{"captured": False, **options})


def tensors(state: Any, place: str = "") -> dict[str, Tensor]:
    """Every tensor of a state dict by its place."""
    if isinstance(state, Tensor):
        return {place: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {name: value for key, inner in items for name, value in tensors(inner, f"{place}.{key}").items()}


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = tensors(one.state_dict()), tensors(other.state_dict())
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


def assert_close(one: Any, other: Any, *, rtol: float, atol: float) -> None:
    ours, theirs = tensors(one.state_dict()), tensors(other.state_dict())
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=rtol, atol=atol, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize(
    ("normalization", "conditional"),
    [
        *(("srn", "true"), ("srn", "false"), ("sn", "false"), ("bssn", "true")),
        *(("none", "false"), ("ortho", "true"), ("wgan_gp", "true")),
    ],
)
def test_twenty_steps_equal_the_plain_ones_bit_for_bit(smoke: Smoke, normalization: str, conditional: str) -> None:
    """Compares weights, singular vectors, running statistics, averages, optimizers and log totals."""
    config = smoke(
        f"discriminator.normalization={normalization}", f"conditional={conditional}", "train.ema_decay=0.9", *EXACT
    )
    plain, fast = make_plain(config, alike=True), make_fast(config)
    for _ in range(20):
        plain.train_step()
        fast.train_step()
    assert fast.state.step == plain.state.step == 20
    assert_same(fast.state, plain.state)


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.precision=bf16",),
        ("train.precision=tf32",),
        ("train.flip=true", "train.dequantize=false"),
        ("train.flip=true", "train.precision=bf16", "conditional=true", "train.ema_decay=0.5"),
        ("discriminator.penalty=orthogonal", "discriminator.normalization=sn"),
        ("train.loss=wasserstein", "discriminator.normalization=ssn"),
        ("discriminator.penalty=gradient", "discriminator.normalization=ortho"),
        ("discriminator.penalty=gradient", "discriminator.relative_to=initial", "train.precision=bf16"),
        ("discriminator.penalty=r1", "discriminator.normalization=sn", "conditional=true", "train.labels=data"),
        ("discriminator.normalization=bsn", "train.loss=non_saturating"),
        ("train.d_steps=1", "train.generator_batch_factor=1", "train.d_adam_beta1=0.5", "train.d_adam_beta2=0"),
        ("train.first=discriminator", "train.ema_decay=0.9"),
        ("train.augment=color,translation,cutout", "discriminator.penalty=lecam", "train.flip=true"),
        ("train.augment=translation", "discriminator.penalty=r1", "conditional=true", "train.precision=bf16"),
        ("generator.name=sndcgan_bn", "discriminator.name=sndcgan"),
        ("train.batch_size=170", "generator.channels=2", "discriminator.channels=4"),  # 340 of 600 images per step
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_every_setting_equals_the_plain_step(smoke: Smoke, overrides: tuple[str, ...]) -> None:
    config = smoke(*overrides, *EXACT)
    plain, fast = make_plain(config, alike=True), make_fast(config)
    for _ in range(4):
        plain.train_step()
        fast.train_step()
    assert_same(fast.state, plain.state)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("normalization", "conditional", "compiled"),
    [
        *((name, "true", False) for name in NORMALIZATIONS),
        *(("srn", "false", False), ("srn", "true", True), ("wgan_gp", "false", True)),
    ],
)
def test_losses_and_gradients_equal_the_default_plain_step(
    smoke: Smoke, monkeypatch: pytest.MonkeyPatch, normalization: str, conditional: str, compiled: bool
) -> None:
    """Weights are normalized one by one, so summation orders differ: 1e-5 of the network's largest gradient.

    Tolerances are not per tensor, because a bias before a batch norm has a gradient of rounding errors only. Compiled
    networks are traced and differentiated ahead of time, without machine code, which would take a minute.
    """
    config = smoke(f"discriminator.normalization={normalization}", f"conditional={conditional}")
    plain = make_plain(config, alike=False)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    fast = fast_from(make_plain(config, alike=False), compiled=compiled)
    for network in (plain.state.generator, plain.state.discriminator):
        network.train()
    for name, step in (("generator", generator_step), ("discriminator", discriminator_step)):
        fast.state.load_state_dict(copy.deepcopy(plain.state.state_dict()))
        expected, got = step(plain, 0), step(fast, 0)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        gradients = [
            [parameter.grad for parameter in getattr(stepped.state, name).parameters()] for stepped in (plain, fast)
        ]
        largest = max(float(gradient.abs().max()) for gradient in gradients[0])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5 * largest)


def test_the_learning_rates_are_the_plain_steps_in_float32(smoke: Smoke) -> None:
    config = smoke("train.steps=7", "train.d_learning_rate=3e-4")
    plain, fast = make_plain(config, alike=True), make_fast(config)
    for _ in range(5):
        plain.train_step()
        fast.train_step()
        rates, fast_rates = (
            [
                group["lr"]
                for optimizer in (one.state.g_optimizer, one.state.d_optimizer)
                for group in optimizer.param_groups
            ]
            for one in (plain, fast)
        )
        assert fast_rates == rates
        assert rates[1] == pytest.approx(1.5 * rates[0])
        assert [float(rate) for rate in fast.rates] == pytest.approx(rates, rel=2**-24)
    assert_close(fast.state, plain.state, rtol=1e-4, atol=1e-5)


def reload(state: Any) -> Any:
    """State after writing and reading a checkpoint."""
    content = io.BytesIO()
    torch.save(state.state_dict(), content)
    content.seek(0)
    return torch.load(content, weights_only=True)


@pytest.mark.parametrize("order", ["fast, plain", "plain, fast", "fast, fast"])
def test_runs_resume_across_both_steps(smoke: Smoke, order: str) -> None:
    """Three steps of one kind and, after a checkpoint, three of the other equal six plain steps bit for bit."""
    config = smoke("train.ema_decay=0.9", "conditional=true", *EXACT)
    whole = make_plain(config, alike=True)
    for _ in range(6):
        whole.train_step()
    state = make_plain(config, alike=True).state
    for kind in order.split(", "):
        trainer = make_plain(config, alike=True)
        trainer.state.load_state_dict(reload(state))
        train_step = fast_from(trainer).train_step if kind == "fast" else trainer.train_step
        for _ in range(3):
            train_step()
        state = trainer.state
    assert_same(state, whole.state)


def test_a_checkpoint_does_not_tell_which_step_made_it(smoke: Smoke) -> None:
    """Saved optimizer settings are the configuration's: numbers, no tensors, and no fused flag."""
    config = smoke()
    plain, fast = make_plain(config, alike=False), make_fast(config)
    plain.train_step()
    fast.train_step()
    for name in ("g_optimizer", "d_optimizer"):
        ours, theirs = (getattr(one.state, name).state_dict() for one in (fast, plain))
        assert ours["param_groups"] == theirs["param_groups"]
        assert type(ours["param_groups"][0]["lr"]) is float
        for entry, other in zip(ours["state"].values(), theirs["state"].values(), strict=True):
            assert {key: value.shape for key, value in entry.items()} == {
                key: value.shape for key, value in other.items()
            }
            assert entry["step"].dtype == other["step"].dtype


class Casts(TorchDispatchMode):
    """Records the addresses of all tensors that are cast in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ == "_to_copy":
            self.addresses.append(args[0].data_ptr())
        return function(*args, **(kwargs or {}))


def test_the_generator_is_cast_once_for_all_fakes_and_its_batches_counted_once(smoke: Smoke) -> None:
    """Each weight is cast twice: for the generator update, and for the fakes of all discriminator updates."""
    fast = make_fast(smoke("train.precision=bf16", "train.d_steps=3"))
    with Casts() as casts:
        fast.iterate()
    biases = [value for name, value in fast.state.generator.named_parameters() if name.endswith("conv2.bias")]
    assert len(biases) == 3
    assert [casts.addresses.count(bias.data_ptr()) for bias in biases] == [2, 2, 2]
    counts = [value for name, value in fast.state.generator.named_buffers() if name.endswith("num_batches_tracked")]
    assert [int(count) for count in counts] == [1 + 3] * 7


def test_inputs_and_state_keep_their_addresses(smoke: Smoke) -> None:
    """A graph reads and writes the addresses of its capture."""
    fast = make_fast(smoke("train.ema_decay=0.9", "conditional=true", "train.flip=true"))

    def addresses() -> list[int]:
        return [tensor.data_ptr() for tensor in (*fast.rates, *fast.inputs.tensors(), *fast.state.tensors())]

    before = addresses()
    for _ in range(3):
        fast.train_step()
    assert addresses() == before


def test_a_state_loaded_under_a_graph_is_refused(smoke: Smoke) -> None:
    fast = make_fast(smoke())
    fast.state.load_state_dict(copy.deepcopy(fast.state.state_dict()))
    with pytest.raises(AssertionError, match="make a new FastStep"):
        fast.train_step()


class StandIns:
    """CPU stand-ins for torch.cuda: captured operations run, are undone, and run again at each replay.

    A failure is that of torch: the operation's error, a second one as the capture ends, and `stream` stays the graph's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, failure: str = "") -> None:
        self.fast: FastStep | None = None
        self.failure = failure
        monkeypatch.setattr(FastStep, "iterate", self.noting(FastStep.iterate))
        self.stream = "own"
        stream = SimpleNamespace(wait_stream=lambda other: None)
        replayed = SimpleNamespace(replay=lambda: self.fast.iterate())
        for name, value in {
            "CUDAGraph": lambda: replayed,
            "Stream": lambda: stream,
            "current_stream": lambda: stream,
            "stream": self.on,
            "device": lambda device: nullcontext(),
            "graph": self.capture,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def noting(self, iterate: Callable[[FastStep], None]) -> Callable[[FastStep], None]:
        def noted(fast: FastStep) -> None:
            self.fast = fast
            iterate(fast)

        return noted

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def capture(self, captured: Any, stream: Any) -> Iterator[None]:
        before, self.stream = self.stream, stream
        with undone(list(self.fast.state.tensors())):
            yield
        if self.failure:
            try:
                raise RuntimeError(self.failure)
            finally:
                raise RuntimeError("previous error during capture\nCompile with")
        self.stream = before


def test_obstacles_have_names(smoke: Smoke) -> None:
    def named(*overrides: str, device: str = "cuda:0", resident: bool = True) -> str:
        config = smoke("train.fast=auto", *overrides)
        trainer = make_plain(config, alike=False)
        trainer.device = torch.device(device)
        trainer.batches.resident = resident
        return obstacle(trainer)

    assert named() == ""
    assert named("discriminator.penalty=orthogonal") == named("discriminator.normalization=ortho") == ""
    assert named("train.fast=off") == "train.fast is off"
    assert named(device="cpu") == "a CUDA graph needs a CUDA device, this is cpu"
    assert named(resident=False) == "the images do not fit on the device"
    assert named("discriminator.normalization=wgan_gp", "discriminator.penalty=r1") == ""


@pytest.mark.parametrize(
    "overrides", [("train.ema_decay=0.9",), ("discriminator.normalization=wgan_gp", "discriminator.penalty=r1")]
)
def test_an_iteration_is_captured_whole(
    smoke: Smoke, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    """A capture and replays with stand-ins give the plain step's state; second derivatives are captured too."""
    StandIns(monkeypatch)
    monkeypatch.setattr(graph, "obstacle", lambda trainer: "")
    config = smoke(*overrides, *EXACT)
    plain, trainer = make_plain(config, alike=True), make_plain(config, alike=False)
    choice = choose_step(trainer)
    assert choice.name == "fast step: one CUDA graph per iteration"
    for _ in range(2):
        plain.train_step()
        choice.train_step()
    assert_same(trainer.state, plain.state)


def test_a_failed_capture_falls_back_or_is_one_sentence(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is unchanged, and the plain step continues from it."""
    cuda = StandIns(monkeypatch, failure="operation not permitted when stream is capturing\nand more")
    monkeypatch.setattr(graph, "obstacle", lambda trainer: "")
    config = smoke("train.ema_decay=0.9")
    trainer, untouched = make_plain(config, alike=False), make_plain(config, alike=False)
    choice = choose_step(trainer)
    causes = "previous error during capture, caused by: operation not permitted when stream is capturing"
    assert choice.name == f"plain step: the capture failed ({causes})"
    assert cuda.stream == "own"
    for _ in range(2):
        choice.train_step()
        untouched.train_step()
    assert_same(trainer.state, untouched.state)
    with pytest.raises(ConfigError, match=r"train\.fast: got on, but the capture failed .*; use auto or off to"):
        choose_step(make_plain(override_config(config, ["train.fast=on"], "test"), alike=False))


@pytest.mark.parametrize("works", [True, False])
def test_compiled_networks_are_captured_or_the_step_says_why_not(
    smoke: Smoke, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    def no_compiler(*arguments: Any) -> None:
        raise RuntimeError("no compiler found\nset CXX")

    StandIns(monkeypatch)
    monkeypatch.setattr(graph, "obstacle", lambda trainer: "")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager" if works else no_compiler))
    trainer = make_plain(smoke("train.fast=compile", "conditional=true"), alike=False)
    choice = choose_step(trainer)
    assert choice.name.startswith("fast step: one CUDA graph per iteration, ")
    assert choice.name.endswith(", networks compiled" if works else "no compiler found)")
    choice.train_step()
    trainer.check_finite()
    assert type(trainer.state.generator).__name__ == "ResNetGenerator"


def test_the_choice_is_recorded_and_printed_if_asked_for(train: Callable[..., Result], tmp_path: Any) -> None:
    name = "plain step: a CUDA graph needs a CUDA device, this is cpu"
    result = done(train("run", "--set=train.steps=2", "--set=train.fast=on", "--stop-after", "1"))
    assert name in result.output
    assert name in (tmp_path / "run" / "run.json").read_text()
    result = train("run", "--set=train.steps=2", "--set=train.fast=off", "--resume")
    assert result.exit_code == 0, "the way a step is computed is no part of the experiment"
    assert "plain step" not in result.output
    assert "plain step: train.fast is off" in (tmp_path / "run" / "run.json").read_text()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_replayed_graph_equals_its_operations_one_by_one(smoke: Smoke, normalization: str, precision: str) -> None:
    """Compares means of losses and logits to 2e-3, and counts exactly, with the plain step as well.

    cuDNN may change the order of summation at each call, and Adam's first steps turn a gradient's sign into a whole
    step.
    """
    config = smoke(
        f"discriminator.normalization={normalization}",
        f"train.precision={precision}",
        "conditional=true",
        "train.ema_decay=0.9",
        "train.flip=true",
    )
    plain = make_plain(config, alike=True, device="cuda")
    one_by_one, replayed = make_fast(config, device="cuda"), make_fast(config, device="cuda", captured=True)
    for _ in range(5):
        for stepped in (plain, one_by_one, replayed):
            stepped.train_step()
    expected = plain.state.totals.tolist()
    for fast in (one_by_one, replayed):
        assert fast.state.totals.tolist() == pytest.approx(expected, rel=2e-3, abs=1e-2)
        for ours, theirs in zip(fast.state.generator.buffers(), plain.state.generator.buffers(), strict=True):
            if ours.dtype == torch.int64:
                assert torch.equal(ours, theirs)
        counts = [{float(entry["step"]) for entry in fast.state.d_optimizer.state.values()}]
        assert counts == [{5.0 * config.train.d_steps}]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_capture_leaves_the_state_as_it_was(smoke: Smoke, steps_before: int) -> None:
    trainer = make_plain(smoke("train.ema_decay=0.9"), alike=False, device="cuda")
    for _ in range(steps_before):
        trainer.train_step()
    before = copy.deepcopy(trainer.state.state_dict())
    fast_from(trainer, captured=True)
    after = tensors(trainer.state.state_dict())
    assert all(torch.equal(value.cpu(), after[name].cpu()) for name, value in tensors(before).items())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_waits_for_the_device_between_two_lines_of_the_log(smoke: Smoke) -> None:
    """Covers the end of an epoch; no step may allocate more memory than the one before."""
    fast = make_fast(smoke("train.flip=true", "conditional=true"), device="cuda", captured=True)
    fast.train_step()
    torch.cuda.synchronize()
    allocated = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(60):
            fast.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_allocated() <= allocated + 2**16, "two epochs' orders"


@pytest.mark.gpu
@needs_gpu
def test_a_checkpoint_of_a_graph_continues_on_a_cpu(smoke: Smoke) -> None:
    config = smoke("conditional=true")
    fast = make_fast(config, device="cuda", captured=True)
    for _ in range(3):
        fast.train_step()
    plain = make_plain(config, alike=False)
    content = io.BytesIO()
    torch.save(fast.state.state_dict(), content)
    content.seek(0)
    plain.state.load_state_dict(torch.load(content, map_location="cpu", weights_only=True))
    plain.train_step()
    plain.check_finite()
    assert plain.state.step == 4


@pytest.mark.gpu
@needs_gpu
def test_after_a_failed_capture_adam_counts_on_the_host_again(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """With counts on the device, each plain step would wait for every one of them."""

    def fail(self: FastStep, stream: torch.cuda.Stream) -> None:
        self.iterate()
        raise RuntimeError("no graphs here")

    monkeypatch.setattr(FastStep, "_warm_up", fail)
    trainer = make_plain(smoke("train.fast=auto"), alike=False, device="cuda")
    assert choose_step(trainer).name == "plain step: the capture failed (no graphs here)"
    entries = trainer.state.d_optimizer.state.values()
    assert {(entry["step"].device.type, float(entry["step"])) for entry in entries} == {("cpu", 0.0)}


@pytest.mark.gpu
@needs_gpu
def test_a_failed_capture_names_its_cause_and_leaves_its_stream(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's error at the end of an interrupted capture is not the one of the operation that a graph cannot hold."""
    iterate, stream = FastStep.iterate, torch.cuda.current_stream()

    def wait(self: FastStep) -> None:
        iterate(self)
        torch.cuda.synchronize()

    monkeypatch.setattr(FastStep, "iterate", wait)
    choice = choose_step(make_plain(smoke("train.fast=auto"), alike=False, device="cuda"))
    assert choice.name.startswith("plain step: the capture failed (")
    assert "operation not permitted when stream is capturing" in choice.name
    assert torch.cuda.current_stream() == stream
    assert torch.rand(3, device="cuda").isfinite().all(), "torch's own generator is not left in the capture"
    choice.train_step()


@pytest.mark.gpu
@needs_gpu
def test_the_generators_residual_stream_stays_bfloat16(smoke: Smoke) -> None:
    """torch's autocast makes nearest upsampling float32 on a GPU, and so everything that is added to it."""
    fast = make_fast(smoke("train.precision=bf16"), device="cuda")
    seen: list[tuple[torch.dtype, bool]] = []

    def look(block: Any, inputs: Any, output: Tensor) -> None:
        seen.append((output.dtype, output.is_contiguous(memory_format=torch.channels_last)))

    for block in (*fast.state.generator.blocks, *fast.state.discriminator.blocks):
        block.register_forward_hook(look)
    fast.iterate()
    assert set(seen) == {(torch.bfloat16, True)}
