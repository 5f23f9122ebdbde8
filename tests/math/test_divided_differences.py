"""Every divided difference of csrc/math against mpmath at adversarial pairs, and its conventions where no number decides."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from reference.divided_differences import ORACLES, adversarial_pairs, divided_difference, error_in_ulp

from deepshap_ext import _C

INF, NAN = math.inf, math.nan
DTYPES = [np.float64, np.float32]
FUNCTIONS = _C.elementwise_functions()
# One case a function and set of parameters. A function without an oracle is a case too: it fails in test_every_function_has_an_oracle.
CASES = [(name, parameters) for name in FUNCTIONS if name in ORACLES for parameters in ORACLES[name].parameters]


def difference(name, x, r, parameters, dtype=np.float64):
    return _C.divided_difference(name, np.asarray(x, dtype), np.asarray(r, dtype), list(parameters))


def bar(name, dtype):
    return 4.0 if dtype == np.float64 else ORACLES[name].float32_bar


def each_case(function):
    function = pytest.mark.parametrize(
        ("name", "parameters"), CASES, ids=lambda v: v if isinstance(v, str) else repr(v)
    )(function)
    return pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)(function)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_an_oracle(name):
    assert name in ORACLES, (
        f"{name} is in DEEPSHAP_ELEMENTWISE but has no oracle in tests/reference/divided_differences.py"
    )
    assert {len(p) for p in ORACLES[name].parameters} == {FUNCTIONS[name]}


def test_every_oracle_has_a_function():
    assert set(ORACLES) == set(FUNCTIONS)


@each_case
def test_every_pair_is_within_its_bar_of_ulps(name, parameters, dtype):
    count = max(80, 400 // len(ORACLES[name].parameters))
    pairs = adversarial_pairs(name, parameters, dtype, count)
    assert len(pairs) > count // 5
    computed = difference(name, pairs[:, 0], pairs[:, 1], parameters, dtype)
    for (x, r), m in zip(pairs.tolist(), computed.tolist(), strict=True):
        exact, size = divided_difference(name, x, r, parameters, dtype)
        error = error_in_ulp(m, exact, size, dtype)
        assert error <= bar(name, dtype), (
            f"{name}{parameters}[{x!r}, {r!r}] = {m!r}, not {mpmath.nstr(exact, 20)}: {error} ulp"
        )


@each_case
def test_symmetry_is_bitwise(name, parameters, dtype):
    pairs = adversarial_pairs(name, parameters, dtype, 2000)
    one, other = (difference(name, pairs[:, i], pairs[:, 1 - i], parameters, dtype) for i in (0, 1))
    np.testing.assert_array_equal(one, other)


@each_case
def test_nan_goes_through(name, parameters, dtype):
    sides = [0.0, 1.0, -1.0, 40.0, -1e30, INF, -INF, NAN]
    pairs = np.array([(NAN, v) for v in sides] + [(v, NAN) for v in sides], dtype)
    constant = name == "pow" and parameters in ((0.0,), (1.0,))
    assert np.isnan(difference(name, pairs[:, 0], pairs[:, 1], parameters, dtype)).all() or constant


@each_case
def test_infinite_sides_have_their_limits(name, parameters, dtype):
    # f[x, r] -> f'(inf) as x -> inf; at (inf, -inf) the limit of f[t, -t].
    left, right = ORACLES[name].limits(*(float(dtype(p)) for p in parameters))
    finite = [v for v in (0.5, 3.0, -2.0, 1e5) if ORACLES[name].domain(v, *parameters)]
    cases = [((INF, v), right) for v in [*finite, INF]] + [((-INF, v), left) for v in [*finite, -INF]]
    if left is not None and right is not None and not math.isinf(left) and not math.isinf(right):
        cases.append(((INF, -INF), (left + right) / 2))
    for (x, r), expected in cases:
        if expected is not None:
            expected = dtype(expected)
            assert difference(name, [x], [r], parameters, dtype)[0] == expected, (x, r)
            assert difference(name, [r], [x], parameters, dtype)[0] == expected, (r, x)


@pytest.mark.parametrize(
    ("name", "parameters", "x", "slope"),
    [
        ("relu", (), 0.0, 0.0),
        ("relu", (), -0.0, 0.0),
        ("leaky_relu", (0.3,), 0.0, 0.3),
        ("elu", (0.5, 1.0, 1.0), 0.0, 0.5),
        ("hardtanh", (-1.0, 1.0), 1.0, 0.0),
        ("hardtanh", (-1.0, 1.0), -1.0, 0.0),
        ("clamp", (-1.0, 1.0), 1.0, 1.0),
        ("clamp", (-1.0, 1.0), -1.0, 1.0),
        ("abs", (), 0.0, 0.0),
        ("sqrt", (), 0.0, 0.0),  # not torch's infinity: it multiplies a difference of zero
        ("softplus", (1.0, 20.0), 20.5, 1.0),
    ],
)
def test_slope_at_kinks(name, parameters, x, slope):
    assert difference(name, [x], [x], parameters)[0] == slope


@pytest.mark.parametrize(
    ("name", "parameters", "pairs", "slope"),
    [
        ("relu", (), [(1e-300, 1e300), (0.1, 0.3)], 1.0),
        ("leaky_relu", (0.1,), [(-1e300, -1e-300), (-0.1, -0.3)], 0.1),
        ("hardtanh", (-1.0, 1.0), [(-1.0, 1.0), (0.1, 0.30000000000000004)], 1.0),
        ("clamp", (-INF, INF), [(-1e300, 1e300), (0.1, 0.3)], 1.0),
        ("abs", (), [(-0.1, -0.3), (-1e-320, -1e300)], -1.0),
        ("softplus", (1.0, 20.0), [(21.0, 1e300)], 1.0),
        ("pow", (1.0,), [(0.1, 0.3), (-1e300, 1e300)], 1.0),
    ],
)
def test_linear_pieces_are_exact(name, parameters, pairs, slope):
    x, r = np.array(pairs).T
    np.testing.assert_array_equal(difference(name, x, r, parameters), slope)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_selu_is_elu_with_its_constants(dtype):
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    m = difference("elu", [-1.0], [2.0], (alpha, scale, 1.0), dtype)[0]
    expected = (scale * 2 - scale * alpha * math.expm1(-1)) / 3
    assert m == pytest.approx(expected, rel=1e-15 if dtype == np.float64 else 3e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_shapes_and_strides_of_the_arguments_do_not_matter(dtype):
    x = np.linspace(-2, 2, 24, dtype=dtype).reshape(2, 3, 4)
    r = np.zeros((4, 3, 2), dtype).T
    m = _C.divided_difference("square", x, r)
    assert m.shape == x.shape and m.dtype == dtype
    np.testing.assert_array_equal(m, x)
    np.testing.assert_array_equal(_C.divided_difference("square", x[:, ::2], r[:, ::2]), x[:, ::2])
    assert _C.divided_difference("square", x[:0], r[:0]).shape == (0, 3, 4)
    assert _C.divided_difference("square", np.array(3, dtype), np.array(4, dtype)).shape == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no_such", np.ones(2), np.ones(2)), r"divided_difference: name must be one of relu, .*, got 'no_such'"),
        (("elu", np.ones(2), np.ones(2), [1.0]), r"divided_difference: parameters of elu must number 3, got 1"),
        (("exp", np.ones(2), np.ones(3)), r"divided_difference: .* same shape, got \(2,\) and \(3,\)"),
        (("exp", np.ones(2), np.ones(2, np.float32)), r"divided_difference: .* same dtype, got float64 and float32"),
        (("exp", np.ones(2, int), np.ones(2, int)), r"divided_difference: .* float32 or float64, got int64"),
    ],
)
def test_errors_name_the_contract(arguments, message):
    with pytest.raises(ValueError, match=message):
        _C.divided_difference(*arguments)


def test_build_info_has_what_was_compiled():
    info = _C.build_info()
    assert set(info) >= {"cuda_architectures", "cuda_version", "torch_target", "compiler"}
    assert info["cuda_version"] is None or info["cuda_architectures"]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_midpoint_is_correctly_rounded(dtype):
    info = np.finfo(dtype)
    s, big = float(info.smallest_subnormal), float(info.max)
    values = [0.0, s, 3 * s, 5 * s, float(info.tiny), 1.0, 1.0 + float(info.eps), 1 / 3, 1e10, big / 2, big]
    values += [-v for v in values]
    a, b = (np.array(side, dtype) for side in zip(*itertools.product(values, values), strict=True))
    m = _C.midpoint(a, b)
    for x, r, computed in zip(a.tolist(), b.tolist(), m.tolist(), strict=True):
        with mpmath.workprec(2400):
            exact = (mpf(x) + mpf(r)) / 2
        assert error_in_ulp(computed, exact, exact, dtype) <= 0.5, (x, r)
    infinite = _C.midpoint(np.array([INF, -INF, INF], dtype), np.array([1, -INF, INF], dtype))
    np.testing.assert_array_equal(infinite, [INF, -INF, INF])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_log_mean_exp(dtype):
    rng = np.random.default_rng(0)
    u = -np.abs(rng.normal(size=600) * 10.0 ** rng.integers(-8, 3, size=600)).astype(dtype)
    step = (10.0 ** rng.uniform(-14, 3, size=600)).astype(dtype)
    w = np.where(rng.random(600) < 0.2, u, np.minimum(u - step, u * (1 + step))).astype(dtype)
    m = _C.log_mean_exp(u, w)
    np.testing.assert_array_equal(m, _C.log_mean_exp(w, u))
    for x, r, computed in zip(u.tolist(), w.tolist(), m.tolist(), strict=True):
        with mpmath.workprec(500):
            exact = mpmath.exp(x) if x == r else (mpmath.exp(x) - mpmath.exp(r)) / (mpf(x) - mpf(r))
        assert error_in_ulp(computed, exact, exact, dtype) <= bar("exp", dtype), (x, r)
    special = np.array(
        [(-INF, -INF, 0), (-1, -INF, 0), (-INF, 0, 0), (0, 0, 1), (NAN, -1, NAN), (-INF, NAN, NAN)], dtype
    )
    np.testing.assert_array_equal(_C.log_mean_exp(special[:, 0], special[:, 1]), special[:, 2])
