"""95 % confidence intervals. SciPy, which takes up to a second to import, is imported on first use."""

from statistics import NormalDist

NORMAL_95 = NormalDist().inv_cdf(0.975)  # half width in standard errors


def normal_interval(mean: float, standard_error: float) -> tuple[float, float]:
    """Returns the interval of a normally distributed estimate."""
    return mean - NORMAL_95 * standard_error, mean + NORMAL_95 * standard_error


def student_interval(mean: float, standard_error: float, degrees: int) -> tuple[float, float]:
    """Returns the interval by Student's t with `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, 0.975)) * standard_error
    return mean - half, mean + half


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Returns the score interval of a proportion among `count` independent images. Wilson 1927."""
    from scipy.stats import binomtest

    low, high = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(low), float(high)
