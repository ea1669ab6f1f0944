"""Tests of empirical Lipschitz constants and Jacobian norms: closed forms, mean value theorem, traces, the metric."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import random_tensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tensors import seeded
from settings_with import settings_with
from torch import Tensor, nn

from evaluation import Context, EvaluationError, Report, Settings, empirical_lipschitz, evaluate, jacobian_norms
from evaluation.images.checks import to_critic
from evaluation.metrics.lipschitz import pair_ratios, samples_interact
from evaluation.statistics.pairs import pairs_across, pairs_within
from evaluation.statistics.percentiles import summarize

SHAPE = (3, 8, 8)
points = partial(random_tensors.points, dtype=torch.float32)


def small_critic() -> nn.Module:
    """Smooth critic, so that finite differences and segments are meaningful."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Conv2d(8, 8, 3, 2), nn.SiLU(), nn.Flatten(), nn.Linear(32, 1)
        )
    )


class Linear(nn.Module):
    """Critic f(x) = w . x + b."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.flatten() + 3


class MinibatchStddev(nn.Module):
    """Adds the images' mean standard deviation over the batch, in any mode, as progressive GANs do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        spread = (images.var(0, correction=0) + 1e-8).sqrt().mean()
        return self.inner(images).squeeze(1) * (1 + spread)


class Projection(nn.Module):
    """Critic f(x, y) = e[y] . x."""

    def __init__(self, num_classes: int, shape: tuple[int, ...] = SHAPE) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, int(np.prod(shape)))
        generator = torch.Generator().manual_seed(9)
        self.embedding.weight.data.normal_(generator=generator).mul_(torch.arange(1.0, num_classes + 1)[:, None])
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        self.seen.append(labels)
        return (images.flatten(1) * self.embedding(labels)).sum(1)


def test_a_linear_critic_is_bounded_by_its_norm_and_reaches_it_along_its_weight():
    weight = points(1, 1)
    norm = float(weight.norm())
    x = points(50, 2)
    ratios = empirical_lipschitz(Linear(weight), x, points(50, 3))
    assert ratios.shape == (50,)
    assert (ratios <= norm * (1 + 1e-5)).all()
    assert ratios.max() < norm / 2  # random directions are far from w in 192 dimensions
    along = empirical_lipschitz(Linear(weight), x, x + weight * torch.linspace(0.1, 2, 50)[:, None, None, None])
    assert along == pytest.approx(np.full(50, norm), rel=1e-5)  # float32 logits of size 10
    across = points(50, 4)
    across = across - weight * (across * weight).sum((1, 2, 3), keepdim=True) / norm**2
    assert empirical_lipschitz(Linear(weight), x, x + across).max() < 1e-5 * norm
    assert jacobian_norms(Linear(weight), x).numpy() == pytest.approx(np.full(50, norm), rel=1e-6)


def test_ratios_are_those_of_the_formula():
    critic, x, y = small_critic().double(), points(7, 1).double(), points(7, 2).double()
    found = pair_ratios(critic, x, y, batch_size=3)
    for row in range(7):
        difference = float((critic(x[row, None]) - critic(y[row, None])).detach().abs())
        distance = float(np.sqrt(((x[row] - y[row]).numpy() ** 2).sum()))
        assert found.difference[row].item() == pytest.approx(difference, rel=1e-12)
        assert found.distance[row].item() == pytest.approx(distance, rel=1e-12)
        assert found.ratio[row].item() == pytest.approx(difference / distance, rel=1e-12)


def test_jacobians_agree_with_finite_differences():
    critic, x = small_critic().double(), points(3, 1, (3, 8, 8)).double()
    step = 1e-5
    for row, norm in enumerate(jacobian_norms(critic, x)):
        steps = torch.eye(192, dtype=torch.float64).view(192, *SHAPE) * step
        slopes = (critic(x[row] + steps) - critic(x[row] - steps)).flatten() / (2 * step)
        assert norm.item() == pytest.approx(float(slopes.detach().norm()), rel=1e-7)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_ratio_is_at_most_the_largest_jacobian_norm_on_the_segment(seed: int):
    critic, x, y = small_critic().double(), points(1, seed).double(), points(1, seed + 20_000).double()
    segment = torch.lerp(x, y, torch.linspace(0, 1, 200, dtype=torch.float64).view(-1, 1, 1, 1))
    norms = jacobian_norms(critic, segment)
    # 1e-3: the maximum lies between two of 200 points of a smooth function.
    assert float(empirical_lipschitz(critic, x, y)) <= float(norms.max()) * (1 + 1e-3)


def test_a_spectrally_normalized_network_is_1_lipschitz():
    layers = [nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)]
    critic = seeded(lambda: nn.Sequential(nn.Flatten(), *layers))
    for layer in critic:
        if isinstance(layer, nn.Linear):
            layer.weight.data /= torch.linalg.matrix_norm(layer.weight.data, 2)
    ratios = empirical_lipschitz(critic, points(300, 1), points(300, 2))
    assert 0 < ratios.max() <= 1
    assert jacobian_norms(critic, points(300, 3)).max() <= 1 + 1e-6
    near = points(300, 1)
    assert empirical_lipschitz(critic, near, near + 0.01 * points(300, 4)).max() <= 1 + 1e-3  # cancellation in float32


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_scales_of_critic_and_images_act_as_they_should(factor: float):
    critic, x, y = small_critic().double(), points(9, 1).double(), points(9, 2).double()
    ratios, norms = empirical_lipschitz(critic, x, y), jacobian_norms(critic, x)
    torch.testing.assert_close(empirical_lipschitz(lambda images: factor * critic(images), x, y), factor * ratios)
    torch.testing.assert_close(jacobian_norms(lambda images: factor * critic(images), x), factor * norms)
    scaled = empirical_lipschitz(lambda images: critic(images / factor), factor * x, factor * y)
    torch.testing.assert_close(scaled, ratios / factor)
    torch.testing.assert_close(jacobian_norms(lambda images: critic(images / factor), factor * x), norms / factor)


def test_order_sides_and_batches_do_not_matter():
    critic, x, y = small_critic(), points(23, 1), points(23, 2)
    ratios, norms = empirical_lipschitz(critic, x, y), jacobian_norms(critic, x)
    near = {"rtol": 2e-4, "atol": 1e-7}  # small differences of float32 logits
    torch.testing.assert_close(empirical_lipschitz(critic, y, x), ratios, **near)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(empirical_lipschitz(critic, x[order], y[order]), ratios[order], **near)
    torch.testing.assert_close(jacobian_norms(critic, x[order]), norms[order])
    for batch_size in (1, 5, 23):
        torch.testing.assert_close(empirical_lipschitz(critic, x, y, batch_size=batch_size), ratios, **near)
        torch.testing.assert_close(jacobian_norms(critic, x, batch_size=batch_size), norms)


def test_a_pair_of_equal_images_has_no_ratio():
    x, y = points(4, 1), points(4, 2)
    y[2] = x[2]
    found = pair_ratios(small_critic(), x, y)
    assert found.ratio.isnan().tolist() == [False, False, True, False]
    assert found.distance[2] == 0


def test_both_images_of_a_pair_are_seen_with_its_label():
    critic = Projection(3)
    labels = torch.tensor([0, 2, 1, 2, 0])
    x, direction = points(5, 1), critic.embedding.weight.detach()[labels].view(5, *SHAPE)
    norms = direction.flatten(1).norm(dim=1)
    torch.testing.assert_close(empirical_lipschitz(critic, x, x + direction / 8, labels), norms, rtol=1e-4, atol=0)
    torch.testing.assert_close(jacobian_norms(critic, x, labels, batch_size=2), norms)
    assert all(seen is not None for seen in critic.seen)


def test_a_critic_may_want_labels_it_is_not_given():
    def critic(images: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is None
        return images.flatten(1).sum(1)

    assert jacobian_norms(critic, points(2, 1)) == pytest.approx([192**0.5] * 2)
    assert jacobian_norms(lambda images, labels=None: critic(images, labels), points(2, 1)).shape == (2,)


def test_images_that_interact_are_shown_alone():
    inner = small_critic()
    x, y = points(6, 1), points(6, 2)
    critic = MinibatchStddev(inner)
    assert samples_interact(critic, x)
    assert not samples_interact(inner, x)
    # Alone, the spread is sqrt(1e-8).
    torch.testing.assert_close(jacobian_norms(critic, x), jacobian_norms(inner, x) * (1 + 1e-4))
    expected = empirical_lipschitz(inner, x, y) * (1 + 1e-4)
    torch.testing.assert_close(empirical_lipschitz(critic, x, y), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("alike", [False, True])
def test_interaction_is_found_by_values_and_by_gradients(alike: bool):
    x = points(1, 1).expand(5, *SHAPE) if alike else points(5, 1)
    weight = points(1, 2)

    def detached(images: Tensor) -> Tensor:
        return Linear(weight)(images - images.detach().mean(0))

    def by_gradient(images: Tensor) -> Tensor:
        batch = images.flatten(1).sum() - images.detach().flatten(1).sum()  # 0, with a slope
        return Linear(weight)(images) + batch

    batchnorm = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 1)).train()
    assert samples_interact(detached, x)
    assert samples_interact(by_gradient, x)
    assert samples_interact(lambda images: batchnorm(images), x)
    assert not samples_interact(batchnorm, x)  # a module is put into eval mode


def test_a_module_is_asked_in_eval_mode_and_left_as_found():
    critic = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(144, 1),
    )
    critic.train()
    critic[1].eval()
    critic[4].weight.requires_grad_(False)
    critic[0].bias.grad = torch.ones(4)
    evaluated = copy.deepcopy(critic).eval()
    state = {name: tensor.clone() for name, tensor in critic.state_dict().items()}
    modes, random = [module.training for module in critic.modules()], torch.get_rng_state()
    x, y = points(40, 1).requires_grad_(), points(40, 2)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        ratios, norms = empirical_lipschitz(critic, x, y, batch_size=7), jacobian_norms(critic, x)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(ratios, empirical_lipschitz(evaluated, x, y, batch_size=7), rtol=0, atol=0)
    torch.testing.assert_close(norms, jacobian_norms(evaluated, x), rtol=0, atol=0)
    assert [module.training for module in critic.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in critic.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(critic[0].bias.grad, torch.ones(4))
    assert all(parameter.grad is None for parameter in critic.parameters() if parameter is not critic[0].bias)
    assert [p.requires_grad for p in critic.parameters()] == [p.requires_grad for p in evaluated.parameters()]
    assert x.grad is None
    assert not ratios.requires_grad
    assert not norms.requires_grad


def test_modes_are_restored_after_an_error():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).train()
    with pytest.raises(EvaluationError, match=r"got \(2, 5\) for 2 images"):
        jacobian_norms(critic, points(3, 1))
    assert all(module.training for module in critic.modules())


@pytest.mark.parametrize(
    ("critic", "x", "message"),
    [
        (small_critic(), torch.zeros(2, *SHAPE, dtype=torch.uint8), "got uint8, expected float32"),
        (small_critic(), np.zeros((2, *SHAPE)), "got ndarray"),
        (small_critic(), points(0, 1), r"got shape \(0, 3, 8, 8\)"),
        (small_critic(), torch.full((2, *SHAPE), torch.nan), "images: got values that are not finite"),
        (lambda images: images.sum(), points(2, 1), r"got \(\) for 2 images"),
        (lambda images: images.mean(1), points(2, 1), "one logit for each"),
        (lambda images: (images, images), points(2, 1), "got tuple"),
        (lambda images: images.flatten(1).sum(1) / 0, points(2, 1), "logits that are not finite"),
        (lambda images: nn.functional.dropout(images.flatten(1)).sum(1), points(2, 1), "got different logits"),
    ],
)
def test_what_cannot_be_measured_is_refused(critic, x, message: str):
    for function in (jacobian_norms, lambda critic, x: empirical_lipschitz(critic, x, x)):
        with pytest.raises(EvaluationError, match=message):
            function(critic, x)


def test_pairs_and_labels_must_fit():
    with pytest.raises(EvaluationError, match="expected one shape"):
        empirical_lipschitz(small_critic(), points(3, 1), points(2, 2))
    with pytest.raises(EvaluationError, match=r"critic's labels: got int64 \(2,\)"):
        jacobian_norms(small_critic(), points(3, 1), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    "critic", [lambda images: Linear(points(1, 1))(images.detach()), torch.no_grad()(Linear(points(1, 1)))]
)
def test_a_critic_that_cannot_be_differentiated_has_ratios_but_no_jacobian(critic):
    assert empirical_lipschitz(critic, points(3, 1), points(3, 2)).isfinite().all()
    with pytest.raises(EvaluationError, match="without a gradient"):
        jacobian_norms(critic, points(3, 1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pairs_repeat_no_image_before_all_have_come():
    rows = [torch.arange(10), torch.arange(10, 13)]
    classes = torch.tensor([0, 1] * 5)
    pairs = pairs_within(rows, classes, generator())
    assert pairs[classes == 0].unique().tolist() == list(range(10))  # 5 pairs of 10 images
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert pairs[classes == 1].unique().tolist() == [10, 11, 12]
    assert ((pairs >= 10) == (classes == 1)[:, None]).all()
    across = pairs_across(rows, [torch.arange(4), torch.arange(4, 9)], classes, generator())
    assert across[classes == 1, 1].sort().values.tolist() == [4, 5, 6, 7, 8]
    assert across[classes == 0, 1].bincount().tolist() in ([1, 1, 1, 2], [1, 1, 2, 1], [1, 2, 1, 1], [2, 1, 1, 1])
    assert not torch.equal(pairs, pairs_within(rows, classes, generator(1)))
    assert torch.equal(pairs, pairs_within(rows, classes, generator()))


def test_every_pair_is_as_likely_as_any_other():
    rows, classes = [torch.arange(4)], torch.zeros(6000, dtype=torch.int64)
    pairs = pairs_within(rows, classes, generator())
    counts = (4 * pairs[:, 0] + pairs[:, 1]).bincount(minlength=16).view(4, 4)
    assert counts.diagonal().sum() == 0
    # 12 ordered pairs, 500 each; 5 standard deviations.
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 500).abs().max() < 5 * 500**0.5


def test_statistics_are_numpys_and_intervals_those_of_theory():
    values = np.random.default_rng(0).exponential(size=2000)
    found = summarize(values)
    assert list(found) == ["p50", "p90", "p95", "p99", "mean", "max"]
    assert found["p95"].value == np.percentile(values, 95)
    assert found["max"] == (values.max(), None)
    assert found["mean"].value == pytest.approx(values.mean())
    for name, statistic in found.items():
        if statistic.interval is not None:
            low, high = statistic.interval
            assert low < statistic.value < high, name
    # The mean's standard error is std / sqrt(n); that of a quantile q is sqrt(q (1 - q) / n) / density.
    low, high = found["mean"].interval
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 2000**0.5, rel=0.1)
    low, high = found["p95"].interval
    assert high - low == pytest.approx(2 * 1.96 * (0.95 * 0.05 / 2000) ** 0.5 / 0.05, rel=0.3)
    assert summarize(values[::-1]) == found
    assert summarize(values, seed=1)["p95"].interval != found["p95"].interval


FEW = Settings(lipschitz={"pairs": 20, "noise": 0.25})


@pytest.fixture
def context(drawn_context) -> Context:
    return drawn_context(
        generated=(60, 1),
        reference=(80, 2),
        test=(44, 3),
        critic=Linear(points(1, 7, (3, 32, 32))),
        settings=FEW,
        protocol={"quantizer": "round"},
    )


def entries(context: Context) -> dict[str, dict]:
    return evaluate(["elhist"], context).protocol["values"]


KINDS = {"elhist": ["real_fake", "real_real", "fake_fake", "test_fake"], "jacobian": ["real", "fake", "test"]}


def test_the_metric_measures_each_kind(context: Context):
    report = evaluate(["elhist"], context)
    ratios = {f"elhist/{kind}" for kind in KINDS["elhist"]}
    norms = {f"jacobian/{kind}{place}" for kind in KINDS["jacobian"] for place in ("", "_near")}
    assert set(report.values) == {f"{kind}/p95" for kind in ratios | norms}
    norm = float(context.critic.weight.detach().norm())
    for kind in norms:
        assert report.arrays[f"{kind}/norm"] == pytest.approx(np.full(20, norm), rel=1e-5)
        assert report.values[f"{kind}/p95"] == pytest.approx(norm, rel=1e-5)
    for kind in ratios:
        arrays = {name: report.arrays[f"{kind}/{name}"] for name in ("ratio", "distance", "difference")}
        assert arrays["ratio"] == pytest.approx(arrays["difference"] / arrays["distance"], rel=1e-6)
        assert arrays["ratio"].max() <= norm
        entry = report.protocol["values"][f"{kind}/p95"]
        assert report.values[f"{kind}/p95"] == pytest.approx(np.percentile(arrays["ratio"], 95), rel=1e-6)
        assert entry["interval"][0] <= report.values[f"{kind}/p95"] <= entry["interval"][1]
        assert (entry["count"], entry["better"], entry["record"]["equal_pairs"]) == (20, "", 0)
        assert entry["record"]["distinct_images"] == [20, 20]
        assert entry["record"]["one_at_a_time"] is False
        assert set(entry["record"]["statistics"]) == {"p50", "p90", "p95", "p99", "mean", "max"}
    assert not any("class" in name for name in report.arrays)


def test_the_critic_sees_pixels_in_its_own_range(context: Context):
    seen = []

    def critic(images: Tensor, labels: Tensor | None = None) -> Tensor:
        seen.append(images.detach())
        return images.flatten(1).sum(1)

    settings = settings_with(FEW, lipschitz__noise=0)
    report = evaluate(["elhist"], replace(context, critic=critic, test=None, test_labels=None, settings=settings))
    assert min(map(torch.min, seen)) >= -1
    images = to_critic(torch.cat([context.generated[:40], context.reference]))
    known = {image.numpy().tobytes() for image in torch.cat([images, -images])}  # one is negated to probe
    assert {image.numpy().tobytes() for batch in seen for image in batch} <= known
    assert not any("near" in key for key in report.values)


def test_a_conditional_critic_sees_pairs_of_one_class(context: Context):
    critic = Projection(2, (3, 32, 32))
    report = evaluate(["elhist"], replace(context, critic=critic, critic_is_conditional=True))
    classes = report.arrays["elhist/real_fake/class"]
    assert 3 <= classes.sum() <= 17  # both classes; 1e-3 that 20 fair coins fall outside
    norms = critic.embedding.weight.detach().norm(dim=1).numpy()[report.arrays["jacobian/fake/class"]]
    assert report.arrays["jacobian/fake/norm"] == pytest.approx(norms, rel=1e-5)
    fields = report.protocol["values"]["elhist/real_fake/p95"]["fields"]
    assert (fields["pairing"], fields["num_classes"], fields["conditional"]) == ("matched", 2, True)


def test_matched_pairs_share_their_class(context: Context):
    """Images of class 1 are 0 and of class 2 are 255, so that unmatched pairs would be far apart."""
    labels = torch.arange(60) % 3
    flat = (labels * 100).to(torch.uint8)[:, None, None, None] + torch.randint(0, 9, (60, 3, 8, 8), dtype=torch.uint8)
    sets = {"generated": flat, "reference": flat.flip(0), "test": flat.roll(1, 0)}
    classes = {"generated_labels": labels, "reference_labels": labels.flip(0), "test_labels": labels.roll(1, 0)}
    conditional = Context(**sets, **classes, critic=Projection(3), critic_is_conditional=True, settings=FEW)
    report = evaluate(["elhist"], conditional)
    for kind in KINDS["elhist"]:
        assert report.arrays[f"elhist/{kind}/distance"].max() < 9 / 128 * 192**0.5
    unconditional = replace(conditional, critic=Linear(points(1, 1)), critic_is_conditional=False)
    assert evaluate(["elhist"], unconditional).arrays["elhist/real_fake/distance"].max() > 80 / 128 * 192**0.5


def test_points_near_images_are_a_normal_step_away(context: Context):
    """The gradient of |x|^2 / 2 is x, and |x + n|^2 is |x|^2 + 2 x.n + |n|^2."""
    report = evaluate(["elhist"], replace(context, critic=lambda images: images.square().flatten(1).sum(1) / 2))
    at, near = (report.arrays[f"jacobian/{kind}/norm"] for kind in ("real", "real_near"))
    known = to_critic(context.reference).flatten(1).norm(dim=1)
    assert np.abs(at[:, None] - known.numpy()).min(axis=1) == pytest.approx(np.zeros(20), abs=1e-4)
    step = 0.25 * 3072**0.5  # |n|, within 5 / sqrt(2 * 3072) of itself
    assert (near**2 - at**2) / step**2 == pytest.approx(
        np.ones(20), abs=0.07 + 5 * 2 * 0.25 * float(at.max()) / step**2
    )
    assert (near != at).all()


def test_a_collapsed_generator_has_pairs_without_ratio(context: Context, tmp_path: Path):
    report = evaluate(["elhist"], replace(context, generated=context.generated[:1].repeat(60, 1, 1, 1)))
    entry = report.protocol["values"]["elhist/fake_fake/p95"]
    assert np.isnan(report.values["elhist/fake_fake/p95"])
    assert (entry["count"], entry["interval"], entry["record"]["equal_pairs"]) == (0, None, 20)
    assert "pairs are of equal images" in report.table()
    assert np.isfinite(report.values["elhist/real_fake/p95"])
    again = Report.load(report.save(tmp_path))
    assert np.isnan(again.values["elhist/fake_fake/p95"])
    assert np.isnan(again.arrays["elhist/fake_fake/ratio"]).all()


def test_results_do_not_depend_on_batches_or_on_more_generated_images(context: Context):
    one = evaluate(["elhist"], context)
    fewer = replace(context, generated=context.generated[:40], generated_labels=None)
    other = evaluate(["elhist"], replace(fewer, settings=settings_with(FEW, batch_size=7)))
    assert other.values == pytest.approx(one.values, rel=1e-4)
    hashes = [[entry["hash"] for entry in report.protocol["values"].values()] for report in (one, other)]
    assert hashes[0] == hashes[1]


def test_test_images_take_part_where_there_are_enough(context: Context):
    for change in ({"test": context.test[:39], "test_labels": None}, {"test": None, "test_labels": None}):
        assert not any("test" in key for key in entries(replace(context, **change)))
    unlabelled = replace(context, test_labels=None)
    assert any("test" in key for key in entries(unlabelled))
    conditional = replace(unlabelled, critic=Projection(2, (3, 32, 32)), critic_is_conditional=True)
    assert not any("test" in key for key in entries(conditional))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"settings": settings_with(FEW, seed=1)}, "all"),
        ({"settings": settings_with(FEW, lipschitz__pairs=19)}, "all"),
        ({"settings": settings_with(FEW, lipschitz__noise=0.5)}, "near"),
        ({"settings": settings_with(FEW, batch_size=3, num_real=7, num_fid=7)}, ""),
        ({"protocol": {"quantizer": "truncate"}}, "fake"),
        ({"critic": Linear(points(1, 8, (3, 32, 32)))}, ""),
        ({"reference": torch.zeros(80, 3, 32, 32, dtype=torch.uint8)}, "real"),
        ({"test": torch.zeros(44, 3, 32, 32, dtype=torch.uint8)}, "test"),
        ({"generated": torch.zeros(60, 3, 32, 32, dtype=torch.uint8)}, ""),
    ],
)
def test_hashes_change_with_what_decides_the_value(context: Context, change: dict, changed: str):
    before, after = entries(context), entries(replace(context, **change))
    different = {key for key in before if before[key]["hash"] != after[key]["hash"]}
    assert different == {key for key in before if changed == "all" or (changed and changed in key)}


def test_labels_are_part_of_a_conditional_protocol(context: Context):
    conditional = replace(context, critic=Projection(2, (3, 32, 32)), critic_is_conditional=True)
    before, after = entries(conditional), entries(replace(conditional, reference_labels=1 - context.reference_labels))
    assert {key for key in before if before[key]["hash"] != after[key]["hash"]} == {k for k in before if "real" in k}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"critic": None}, "metric elhist: got no critic"),
        ({"settings": settings_with(FEW, lipschitz__pairs=31)}, "metric elhist: got 60 generated images, expected 62"),
        ({"reference": None, "reference_labels": None}, "metric elhist: got no reference images"),
        (
            {"generated_labels": None, "critic_is_conditional": True},
            "metric elhist: got generated images without label",
        ),
        (
            {"generated_labels": torch.zeros(60, dtype=torch.int64), "critic_is_conditional": True},
            "generated images: got 0 of class 1 among 40",
        ),
    ],
)
def test_a_context_that_lacks_something_is_refused(context: Context, change: dict, message: str):
    with pytest.raises(EvaluationError, match=message):
        evaluate(["elhist"], replace(context, **change))
