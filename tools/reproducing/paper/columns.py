"""Columns of tables and figures: metric, report key or measure of each value."""

from functools import partial
from typing import NamedTuple

from reproducing.measured import Measure, steadiness, unevenness


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
