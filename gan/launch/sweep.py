"""Sweeps: the product of the values of several settings, as overrides and names of runs. Imports no torch."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from gan.config.reading import parse_yaml, split_items
from gan.errors import ConfigError

MOST_RUNS = 10_000
MOST_LETTERS = 80  # of a value in the name of a folder, which has at most 255 bytes on most systems


class Variation(NamedTuple):
    """A run among several: the end of its folder's name, and its overrides "section.name=value"."""

    name: str
    overrides: tuple[str, ...]


def variations(sweeps: Sequence[str], seeds: Sequence[int] = ()) -> list[Variation]:
    """Returns every combination of the values of the sweeps and of the seeds, the last one varying fastest.

    A run is named by its values, as in "learning_rate=1e-4-d_steps=5-seed0".

    Args:
        sweeps: values of settings in the form "section.name=value,value", see `split_items`.
        seeds: values of train.seed; if empty, the setting is not varied.

    Raises:
        ConfigError: another form, a setting or a value that is given twice, or more than MOST_RUNS combinations.
    """
    swept = [_read(sweep) for sweep in sweeps]
    places = [place for place, _ in swept] + ["train.seed"] * bool(seeds)
    for place in places:
        if places.count(place) > 1:
            beside = " or --seeds" if seeds and place == "train.seed" else ""
            raise ConfigError(f"--sweep {place}: is given twice; give all values in one --sweep{beside}")
    factors = [
        [Variation(_name(place, value, places), (f"{place}={value}",)) for value in values] for place, values in swept
    ]
    factors += [[Variation(f"seed{seed}", (f"train.seed={seed}",)) for seed in seeds]] * bool(seeds)
    runs = 1
    for factor in factors:
        runs *= len(factor)
    if runs > MOST_RUNS:
        raise ConfigError(
            f"--sweep, --seeds: got {runs:,} combinations, expected at most {MOST_RUNS:,}; give fewer values"
        )
    return [
        Variation("-".join(part.name for part in parts), tuple(itertools.chain(*(part.overrides for part in parts))))
        for parts in itertools.product(*factors)
    ]


def _read(sweep: str) -> tuple[str, list[str]]:
    """Returns the setting and the texts of its values."""
    place, equals, text = sweep.partition("=")
    place = place.strip()
    where = f"--sweep {sweep[:100]}"
    if not equals or not place:
        raise ConfigError(f"{where}: expected section.name=value,value, such as train.d_steps=1,5")
    texts = split_items(text, where)
    if not texts:
        raise ConfigError(f"{where}: got no values, expected some, separated by commas")
    values = [parse_yaml(value, where) for value in texts]
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise ConfigError(f"{where}: got {twice[0]!r} twice, expected different values")
    return place, texts


def _name(place: str, value: str, places: Sequence[str]) -> str:
    """Returns a name such as "d_steps=5": the last part of the setting, all of it if another one ends alike."""
    last = place.rpartition(".")[2]
    alike = sum(other.rpartition(".")[2] == last for other in places)
    plain = re.sub(r"[^\w.+-]+", "_", value).strip("_.")[:MOST_LETTERS]
    return f"{place if alike > 1 else last}={plain or 'empty'}"


__all__ = ["Variation", "variations"]
