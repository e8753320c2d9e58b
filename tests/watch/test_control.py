"""Control limits: against scipy, against chance, and against faults."""

import numpy as np
import pytest
from scipy import stats

from sami_jax.watch.control import FALSE_ALARMS, HORIZONS, Control, Reference, against, holm, references
from sami_jax.watch.tally import ALL, PRINCIPLE, Cell, Tally

RATES = {"refusal": 0.02, "well_formed": 0.97, "echo": 0.005, f"{PRINCIPLE}a": 0.9, f"{PRINCIPLE}b": 0.8}


def tally(values) -> Tally:
    values = np.asarray(values, float)
    return Tally(len(values), float(values.sum()), float((values**2).sum()))


def window(rng, size=200, slices=("s", "t"), shift=None, alike=0.0):
    """A window of answers; `shift`: cell -> another rate, or a summand of the length."""
    shift, found = shift or {}, {}
    for measure, rate in RATES.items():
        parts = {}
        for slice in slices:
            p = shift.get(Cell(measure, slice), shift.get(Cell(measure, ALL), rate))
            if alike:
                size_of_beta = 1 / alike - 1
                p = rng.beta(p * size_of_beta, (1 - p) * size_of_beta)
            parts[slice] = rng.random(size // len(slices)) < p
        found |= {Cell(measure, slice): tally(part) for slice, part in parts.items()}
        found[Cell(measure, ALL)] = tally(np.concatenate(list(parts.values())))
    lengths = {slice: rng.normal(5 + shift.get(Cell("length", ALL), 0), 0.5, size // len(slices)) for slice in slices}
    found |= {Cell("length", slice): tally(each) for slice, each in lengths.items()}
    found[Cell("length", ALL)] = tally(np.concatenate(list(lengths.values())))
    return found


def ready(rng, windows=30, **options) -> Control:
    control = Control(windows)
    for _ in range(windows):
        assert control.take(window(rng, **options)) == []
    assert control.ready and control.slices and set(control.slices) == {"s", "t"}
    return control


def until_noticed(control, rng, cell, most=20, **options) -> int:
    for number in range(1, most + 1):
        if any(found.cell == cell for found in control.take(window(rng, **options))):
            return number
    return most + 1


def test_one_window_of_reference_is_a_beta_binomial():
    """Without windows that could differ, the share's limit is the textbook's."""
    reference = Reference(Cell("refusal", ALL), tally([1] * 20 + [0] * 980))
    exact = stats.betabinom(100, 20.5, 980.5)
    now = tally([1] * 9 + [0] * 91)
    assert reference.p_value(now) == pytest.approx(2 * exact.sf(8), rel=0.01)
    few = Reference(Cell("well_formed", ALL), tally([1] * 90 + [0] * 10))
    assert few.p_value(tally([1] * 12 + [0] * 8)) == pytest.approx(stats.betabinom(20, 90.5, 10.5).cdf(12), rel=0.02)


def test_the_length_is_set_against_hahns_limits():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 0.5, 400)
    reference = Reference(Cell("length", ALL), tally(values))
    now = tally(rng.normal(5.2, 0.5, 100))
    t = (now.mean - values.mean()) / (values.std() * np.sqrt(1 / 100 + 1 / 400))
    assert reference.p_value(now) == pytest.approx(2 * stats.t(399).sf(t), rel=0.02)
    assert reference.p_value(tally(np.full(99, 9.0))) == 1.0  # so few are not normal


def test_a_dispersion_that_is_an_estimate_is_students_t():
    """The same quantile, of t in place of the normal; limits are where their own p-values are the chance."""
    for measure, mean in (("refusal", 0.1), ("length", 5.0)):
        whole = tally(mean + 0.3 * np.array([-1.0, 1.0] * 5_000)) if measure == "length" else tally([1] + [0] * 9)
        whole = Tally(10_000, whole.total, whole.squares) if measure == "length" else Tally(10_000, 1_000.0, 1_000.0)
        known, told = (Reference(Cell(measure, ALL), whole, 50, 2.0, df) for df in (np.inf, 20))
        now = Tally(200, 200 * mean * 1.02, 200 * mean * mean * 1.1) if measure == "length" else Tally(200, 45.0, 45.0)
        p = known.p_value(now)
        assert 1e-7 < p < 1e-3
        assert told.p_value(now) == pytest.approx(2 * stats.t(20).sf(stats.norm.isf(p / 2)), rel=0.02)
        _, high = told.limits(200, 1e-3)
        beyond = Tally(200, 200 * (high + 0.005), 0.0)
        assert told.p_value(beyond) < 1e-3 < told.p_value(Tally(200, 200 * (high - 0.005), 0.0))


def lasting(rng, windows: int, kept: float, each: float = 0.02):
    """Windows whose share of refusals wanders: an autoregressive process, whose deviation from window to window is `each`."""
    found, far = [], 0.0
    for _ in range(windows):
        far = kept * far + rng.normal(0, each * np.sqrt(1 - kept**2))
        refused = float(rng.binomial(2_000, 0.3 + far))
        found.append({Cell("refusal", ALL): Tally(2_000, refused, refused)})
    return found


def test_windows_that_are_alike_for_a_while_have_wider_limits_together():
    """As wide as the variance of a mean of an autoregressive process is; none where windows are independent."""
    cell, rng = Cell("refusal", ALL), np.random.default_rng(0)
    for kept, within in ((0.0, 0.4), (0.6, 0.3)):
        told = [references(lasting(rng, 100, kept), [cell])[cell].persistence for _ in range(30)]
        noise = 0.3 * 0.7 / 2_000 / 0.02**2  # of a window's answers, in variances of what wanders
        for place, horizon in enumerate(HORIZONS):
            lags = np.arange(1, horizon)
            exact = 1 + 2 * np.sum((1 - lags / horizon) * kept**lags) / (1 + noise)
            assert np.mean([each[place] for each in told]) == pytest.approx(exact, rel=within), (kept, horizon)


def test_only_what_goes_wrong_counts():
    better = tally([1] * 100)
    reference = Reference(Cell("well_formed", ALL), tally([1] * 700 + [0] * 300))
    assert reference.p_value(better) > 0.5
    assert Reference(Cell("refusal", ALL), tally([1] * 700 + [0] * 300)).p_value(better) < 1e-6


def test_nothing_and_all_alike_have_limits():
    for values in ([0] * 50, [1] * 50, [0.5] * 50):
        for measure in ("well_formed", "refusal", "length"):
            reference = Reference(Cell(measure, ALL), tally(values), 3)
            low, high = reference.limits(50, 1e-6)
            assert low <= high and reference.p_value(Tally()) == 1.0
            assert reference.p_value(tally(values)) > 0.01


def test_holm_is_over_all_that_is_tested():
    assert holm([FALSE_ALARMS / 2, 0.5]) == [True, False]
    assert holm([FALSE_ALARMS / 2, 0.5, 0.6]) == [False] * 3
    assert holm([FALSE_ALARMS / 4, FALSE_ALARMS / 2.5, 0.6]) == [True, True, False]


@pytest.mark.parametrize("alike", [0.0, 0.02], ids=["by chance alone", "windows that differ"])
def test_sound_windows_raise_no_alarm(alike):
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(3):
        control = ready(rng, alike=alike)
        alarms += sum(bool(control.take(window(rng, alike=alike))) for _ in range(120))
    assert alarms == 0


@pytest.mark.parametrize(
    ("cell", "value", "most"),
    [
        (Cell(f"{PRINCIPLE}a", ALL), 0.75, 3),
        pytest.param(Cell("refusal", "s"), 0.08, 9, marks=pytest.mark.slow),
        pytest.param(Cell("length", ALL), np.log(4 / 3), 1, marks=pytest.mark.slow),
        pytest.param(Cell("well_formed", ALL), 0.9, 5, marks=pytest.mark.slow),
    ],
)
def test_a_change_is_noticed_soon(cell, value, most):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        control = ready(rng)
        for _ in range(16):
            control.take(window(rng))
        assert until_noticed(control, rng, cell, shift={cell: value}) <= most


@pytest.mark.slow
def test_an_alarm_is_told_once_and_since_when():
    rng = np.random.default_rng(0)
    control, cell = ready(rng), Cell("length", ALL)
    told = [[one for one in control.take(window(rng, shift={cell: 0.4})) if one.cell == cell] for _ in range(6)]
    assert [len(each) for each in told] == [1, 0, 0, 0, 0, 0] and told[0][0].horizon == 1
    assert cell in control.standing
    sound = 0
    while cell in control.standing and sound < 40:
        control.take(window(rng))
        sound += 1
    assert cell not in control.standing


def test_slices_are_those_that_are_frequent_and_not_all():
    rng, control = np.random.default_rng(0), Control(12)
    for _ in range(12):
        found = window(rng)
        control.take(
            found | {Cell("length", "model=m"): found[Cell("length", ALL)], Cell("length", "rare"): tally([5.0])}
        )
    assert control.slices and set(control.slices) == {"s", "t"} == {cell.slice for cell in control.references} - {ALL}


def test_first_windows_are_held_against_the_evaluation():
    rng = np.random.default_rng(0)
    cell = Cell("following", ALL)
    measured = {cell: tally(rng.random(128) < 0.9)}
    low, alike = {cell: tally(rng.random(3000) < 0.6)}, {cell: tally(rng.random(3000) < 0.9)}
    assert [one.cell for one in against(measured, low, [cell])] == [cell]
    assert against(measured, alike, [cell]) == [] == against({}, low, [cell])
