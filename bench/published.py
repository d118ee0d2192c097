"""Published figures of a preset's cases, and what runs each of them today.

A preset holds them as data, `[source]` and `[[published]]`. Absolute times of two machines are no
comparison, so that figures are read in pairs, each over the same baseline of its own source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

from backends.api import MODES, Case, Mode
from bench import strict
from bench.axes import CASE_AXES
from bench.errors import choose
from bench.sweep import Sweep

#: "steady" is a call, or a training step; "setup" is the time to the first result.
Quantity = Literal["steady", "setup"]

Unit = Literal["s", "ms", "us", "us a sample"]

#: What tells the cases of a preset apart; the source's device is not this host's.
SELECTORS = tuple(axis for axis in CASE_AXES if axis != "device")

_SOURCE = ("name", "title", "url", "year", "hardware", "software", "differs")
_PUBLISHED = ("name", "implementation", "descends", "note", "figures")
_FIGURE = ("mode", "quantity", "value", "unit", *SELECTORS)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number as published: of a case of the preset, in a mode. Of parts it is their sum.

    What it was rounded from is within `rounding` of it: half of its last digit, parts added up.
    """

    case: Case
    mode: Mode
    quantity: Quantity
    value: float
    rounding: float
    unit: Unit

    @property
    def least(self) -> float:
        """The least that it may have been rounded from."""
        return self.value - self.rounding

    @property
    def most(self) -> float:
        """The most that it may have been rounded from."""
        return self.value + self.rounding


@dataclass(frozen=True, kw_only=True)
class Published:
    """An implementation under the name that it was published by.

    `implementation` runs it today, or what `descends` from it does; None where nothing does, and
    the `note` says why. Its name is unique in a source.
    """

    name: str
    implementation: str | None
    descends: bool
    note: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two figures of one source, and whose they are: `a` over `b`, the baseline.

    They are of the same case and quantity. Either the implementations differ, or the modes do.
    """

    a: Published
    b: Published
    over: Figure
    under: Figure

    @property
    def ratio(self) -> float:
        """The published ratio."""
        return self.over.value / self.under.value

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that the ratio may be of figures that were rounded."""
        return self.over.least / self.under.most, self.over.most / self.under.least

    @property
    def across_modes(self) -> bool:
        """Whether it is one implementation in two modes."""
        return self.over.mode != self.under.mode


@dataclass(frozen=True, kw_only=True)
class Source:
    """Source of published figures, how its measurement differs, and the figures themselves.

    Each is held against the same figure of the implementation `baseline`, or, where the source has
    no two that can be compared, against its own implementation's in the mode `baseline_mode`.
    """

    name: str
    title: str
    url: str
    year: int
    hardware: str
    software: str
    differs: tuple[str, ...]
    published: tuple[Published, ...]
    baseline: str | None
    baseline_mode: Mode | None

    def pairs(self) -> list[Pair]:
        """Every figure but the baseline's over the baseline's, in the order of the file."""
        return list(self._pairs())

    def _pairs(self) -> Iterator[Pair]:
        named = {entry.name: entry for entry in self.published}
        for a in self.published:
            b = a if self.baseline is None else named[self.baseline]
            for over in a.figures:
                mode = self.baseline_mode or over.mode
                if (a.name, over.mode) != (b.name, mode):
                    _check_two(a, b)
                    yield Pair(a=a, b=b, over=over, under=_counterpart(a, over, b, mode))


def _check_two(a: Published, b: Published) -> None:
    if a.name != b.name and a.implementation == b.implementation:
        raise ValueError(
            f"published {a.name}: implementation {a.implementation!r}: is the baseline's, must be "
            "another"
        )


def _of(figure: Figure) -> tuple[Case, Mode, Quantity]:
    """Subject of a figure."""
    return figure.case, figure.mode, figure.quantity


def _counterpart(a: Published, over: Figure, b: Published, mode: Mode) -> Figure:
    for figure in b.figures:
        if _of(figure) == (over.case, mode, over.quantity):
            if figure.unit != over.unit:
                raise ValueError(
                    f"published {a.name}: unit {over.unit!r} of {over.mode} {over.quantity}: must "
                    f"be the baseline's, {figure.unit!r}"
                )
            return figure
    raise ValueError(
        f"published {a.name}: {over.mode} {over.quantity} {over.value:g} has no baseline; {b.name} "
        f"must have a figure of {mode} {over.quantity} of the same case"
    )


def read(data: Mapping[str, Any], sweep: Sweep) -> Source | None:
    """The figures in a preset's file; None where it has none.

    Raises `ValueError` or `UsageError` for what is not of the form, with the value and what is
    allowed; for an implementation, mode or case that the preset does not measure; and for a figure
    without the baseline's.
    """
    if "source" not in data and "published" not in data:
        return None
    given = _table(data.get("source"), "[source]", (*_SOURCE, "baseline", "baseline_mode"), _SOURCE)
    listed = strict.listed(data.get("published"), "[[published]]")
    published = tuple(_published(entry, sweep) for entry in listed)
    names = [entry.name for entry in published]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"published {name}: is there {names.count(name)} times")
    texts = {
        key: strict.name(given[key], f"[source], {key}")
        for key in ("name", "title", "url", "hardware", "software")
    }
    differs = strict.listed(given["differs"], "[source], differs")
    baseline, mode = _baseline(given, published)
    source = Source(
        name=texts["name"],
        title=texts["title"],
        url=texts["url"],
        year=strict.whole(given["year"], "[source], year", least=1),
        hardware=texts["hardware"],
        software=texts["software"],
        differs=tuple(strict.name(text, "[source], differs") for text in differs),
        published=published,
        baseline=baseline,
        baseline_mode=mode,
    )
    source.pairs()
    return source


def _baseline(
    given: Mapping[str, Any], published: Sequence[Published]
) -> tuple[str | None, Mode | None]:
    """Baseline of the figures: exactly one of an implementation and a mode."""
    if ("baseline" in given) == ("baseline_mode" in given):
        raise ValueError("[source]: must have one of baseline, baseline_mode")
    if "baseline_mode" in given:
        mode = strict.word(given["baseline_mode"], "[source], baseline_mode", MODES)
        return None, mode  # type: ignore[return-value]
    name = strict.name(given["baseline"], "[source], baseline")
    running = [entry.name for entry in published if entry.implementation is not None]
    return choose("baseline of [source]", name, running), None


def _published(data: object, sweep: Sweep) -> Published:
    given = _table(data, "[[published]]", _PUBLISHED, ("name", "figures"))
    name = strict.name(given["name"], "[[published]], name")
    what = f"published {name}"
    note = "" if "note" not in given else strict.name(given["note"], f"{what}, note")
    descends = given.get("descends", False)
    if type(descends) is not bool:
        raise strict.refused(f"{what}, descends", descends, "true or false")
    implementation = None
    if "implementation" in given:
        chosen = [entry.name for entry in sweep.implementations()]
        implementation = strict.name(given["implementation"], f"{what}, implementation")
        choose(f"implementation of {what}", implementation, chosen)
    if not note and (descends or implementation is None):
        raise ValueError(f"{what}: lacks a note on what runs it today")
    if descends and implementation is None:
        raise ValueError(f"{what}: descends is true, and there is no implementation")
    figures = tuple(
        _figure(entry, f"{what}, figure", sweep)
        for entry in strict.listed(given["figures"], f"{what}, figures")
    )
    if not figures:
        raise ValueError(f"{what}: has no figures")
    for figure in figures:
        same = [f for f in figures if _of(f) == _of(figure)]
        if len(same) > 1:
            raise ValueError(
                f"{what}: has {len(same)} figures of {figure.mode} {figure.quantity} of one case"
            )
    return Published(
        name=name,
        implementation=implementation,
        descends=descends,
        note=note,
        figures=figures,
    )


def _figure(data: object, what: str, sweep: Sweep) -> Figure:
    given = _table(data, what, _FIGURE, ("mode", "quantity", "value", "unit"))
    quantity = strict.word(given["quantity"], f"{what}, quantity", get_args(Quantity))
    if quantity == "setup" and not sweep.sampling.cold_blocks:
        raise ValueError(f"{what}: quantity 'setup' needs cold_blocks of 1 or more")
    value, rounding = _value(given["value"], f"{what}, value")
    return Figure(
        case=_case({key: given[key] for key in SELECTORS if key in given}, what, sweep),
        mode=strict.word(given["mode"], f"{what}, mode", sweep.modes()),  # type: ignore[arg-type]
        quantity=quantity,  # type: ignore[arg-type]
        value=value,
        rounding=rounding,
        unit=strict.word(given["unit"], f"{what}, unit", get_args(Unit)),  # type: ignore[arg-type]
    )


def _case(where: Mapping[str, object], what: str, sweep: Sweep) -> Case:
    """The one case of the sweep that has these values."""
    cases = sweep.cases()
    # By repr: true is no 1, and neither is 1.0.
    wanted = {key: repr(value) for key, value in where.items()}
    found = [c for c in cases if all(repr(getattr(c, k)) == v for k, v in wanted.items())]
    if len(found) != 1:
        said = ", ".join(f"{key}={value!r}" for key, value in where.items()) or "no selector"
        raise ValueError(
            f"{what}: {said} selects {len(found)} of the preset's {len(cases)} cases, must be 1"
        )
    return found[0]


def _value(value: object, what: str) -> tuple[float, float]:
    """A number, or the parts that add up to it, and how far off rounding may have put it."""
    given = strict.numbers(value if type(value) is list else [value], what)
    parts, halves = [float(part) for part in given], [_half_of_last_digit(n) for n in given]
    if not parts or not all(part > 0 for part in parts) or not math.isfinite(sum(parts)):
        raise strict.refused(what, value, "finite and above 0, or a list of such parts")
    rounding = sum(halves)
    # A last digit of 1 alone is the worst: 0.5 of it, but for how floats add up.
    return sum(parts), min(rounding, sum(parts) / 2)


def _half_of_last_digit(number: float) -> float:
    """Of 47: 0.5; of 1.3: 0.05. Zeros at the end of a decimal are not told apart from none."""
    exponent = Decimal(repr(number)).as_tuple().exponent
    return 0.5 * 10.0**exponent if isinstance(exponent, int) else math.nan


def _table(
    data: object, what: str, allowed: Sequence[str], needed: Sequence[str]
) -> Mapping[str, Any]:
    given = strict.mapping(data, what)
    for key in given:
        choose(f"key in {what}", key, allowed)
    for key in needed:
        if key not in given:
            raise ValueError(f"{what} lacks {key}")
    return given
