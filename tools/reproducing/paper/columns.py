"""Columns of tables and figures: metric, report key or measure of each value."""

from functools import partial
from typing import NamedTuple

from reproducing.measured import Measure, steadiness, unevenness
from reproducing.training import (
    bound_at,
    distance_from_lecun,
    drift_of_variance,
    fall,
    largest_gradient,
    rank_at,
    smallest_at_end,
    smallest_at_start,
)


class Column(NamedTuple):
    """One value of a model.

    metric: metric to evaluate; "" if the training log has the value.
    key: regular expression of its key in a report.
    better: "higher" or "lower"; "" for neither.
    measure: computes the value in place of a report.
    """

    metric: str
    key: str
    better: str = ""
    measure: Measure | None = None


REAL_FAKE, FAKE_FAKE, REAL_REAL, AT_FAKE, NEAR_FAKE, AT_REAL, NEAR_REAL = (
    f"95th percentile, {name}"
    for name in (
        *("real and generated", "generated", "real", "at generated images", "near generated images"),
        *("at real images", "near real images"),
    )
)
UNEVENNESS, UNEVENNESS_NEAR = (f"abs(log({where} real / {where} generated))" for where in ("at", "near"))
STEADINESS = "spread around a line, last half"
LARGEST = "log10 of the largest gradient"
START, END = (f"log10 of the smallest layer's gradient, {when}" for when in ("start", "last quarter"))
FALL = "its fall, orders of magnitude"
DISTANCE, DRIFT = "distance from LeCun's variance, start", "drift of the variance"
BOUND_START, BOUND_END = (f"layers that the bound lowers, {when}" for when in ("start", "end"))
RANK_START, RANK_END = (f"stable rank, % of the original, {when}" for when in ("start", "end"))
RATIO, SEGMENT = "largest ratio", "largest Jacobian norm on segments"
OBEYED = "share of pairs below their segment's norm"
MATRICES, OPERATORS = (f"product of the norms of {what}" for what in ("matrices", "operators"))
EXAMPLE_PRODUCT, EXAMPLE_JACOBIAN, EXAMPLE_RATIO = (
    "product of the layers' norms",
    "norm of the Jacobian",
    "largest ratio of pairs",
)

COLUMNS = {
    "IS": Column("is", r"is(/.*)?", "higher"),
    "FID": Column("fid", r"fid(/.*)?", "lower"),
    "Intra-FID": Column("intra_fid", r"intra_fid(/.*)?", "lower"),
    "GAN-test": Column("gan_test", r"gan_test(/.*)?", "higher"),
    "ND": Column("nd", r"nd(_short)?/srn2020/softplus_fake", "higher"),
    REAL_FAKE: Column("elhist", r"elhist/real_fake/p95"),
    FAKE_FAKE: Column("elhist", r"elhist/fake_fake/p95"),
    REAL_REAL: Column("elhist", r"elhist/real_real/p95"),
    AT_FAKE: Column("elhist", r"jacobian/fake/p95"),
    NEAR_FAKE: Column("elhist", r"jacobian/fake_near/p95"),
    AT_REAL: Column("elhist", r"jacobian/real/p95"),
    NEAR_REAL: Column("elhist", r"jacobian/real_near/p95"),
    UNEVENNESS: Column("elhist", "unevenness", measure=unevenness),
    UNEVENNESS_NEAR: Column("elhist", "unevenness_near", measure=partial(unevenness, where="_near")),
    STEADINESS: Column("", "steadiness", measure=steadiness),
    LARGEST: Column("", "largest_gradient", measure=largest_gradient),
    START: Column("", "smallest_at_start", measure=smallest_at_start),
    END: Column("", "smallest_at_end", measure=smallest_at_end),
    FALL: Column("", "fall", measure=fall),
    DISTANCE: Column("", "distance_from_lecun", measure=distance_from_lecun),
    DRIFT: Column("", "drift_of_variance", measure=drift_of_variance),
    BOUND_START: Column("", "bound_at_start", measure=bound_at(0)),
    BOUND_END: Column("", "bound_at_end", measure=bound_at(-1)),
    RANK_START: Column("", "rank_at_start", measure=rank_at(0)),
    RANK_END: Column("", "rank_at_end", measure=rank_at(-1)),
    RATIO: Column("bounds", r"bounds/ratio"),
    SEGMENT: Column("bounds", r"bounds/segment"),
    OBEYED: Column("bounds", r"bounds/obeyed"),
    MATRICES: Column("bounds", r"bounds/matrices"),
    OPERATORS: Column("bounds", r"bounds/operators"),
    EXAMPLE_PRODUCT: Column("", r"example/product"),
    EXAMPLE_JACOBIAN: Column("", r"example/jacobian"),
    EXAMPLE_RATIO: Column("", r"example/ratio"),
    "training accuracy, %": Column("", r"training/accuracy", "lower"),  # shown for random labels only
    "training error, %": Column("", r"training/error", "higher"),  # shown for random labels only
    "test accuracy, %": Column("", r"test/accuracy", "higher"),
    "test error, %": Column("", r"test/error", "lower"),
    "generalization error, %": Column("", r"generalization/error", "lower"),
    "log Jac-Norm": Column("complexity", r"complexity/jac_norm/p90", "lower"),
    "log Spec-L1": Column("complexity", r"complexity/spec_l1/p90", "lower"),
    "log Spec-Fro": Column("complexity", r"complexity/spec_fro/p90", "lower"),
    "noise sensitivity, maximum": Column("noise", r"noise/max", "lower"),
    "noise sensitivity, mean": Column("noise", r"noise/mean", "lower"),
}
