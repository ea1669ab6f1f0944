"""Columns of tables and bar charts: the metric and the report key of each value."""

from typing import NamedTuple


class Column(NamedTuple):
    """One value of a model.

    metric: metric to evaluate; "" if the training log has the value.
    key: regular expression of its key in a report.
    better: "higher" or "lower".
    """

    metric: str
    key: str
    better: str


COLUMNS = {
    "IS": Column("is", r"is(/.*)?", "higher"),
    "FID": Column("fid", r"fid(/.*)?", "lower"),
    "Intra-FID": Column("intra_fid", r"intra_fid(/.*)?", "lower"),
    "ND": Column("nd", r"nd(_short)?/srn2020/softplus_fake", "higher"),
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
