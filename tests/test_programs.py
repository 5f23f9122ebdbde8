"""Random programs over every operation: they add up, and pairing, chunks, neighbours and layout make no difference.

``pytest tests/test_programs.py --hypothesis-profile=thorough`` tries many more of them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from checks import additivity_gap, as_list, run
from hypothesis import given, settings
from hypothesis import strategies as st
from program_table import DECISIONS, FAMILIES, OPERATIONS, Operation
from programs import SHAPES, Program, write
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer
from deepshap_ext.capture import mode
from deepshap_ext.rules.linear import LINEAR
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

pytestmark = pytest.mark.filterwarnings("ignore:index_reduce\\(\\) is in beta")
TOLERANCE = 1e-9
#: Not in the table: conversions that round or leave the device, reductions that need a tensor without a batch, deprecated spellings,
#: attention under a compiler's operator, sparse factors, packed sequences, which are samples by steps, and products of groups of rows,
#: which torch has in single precision only; what exported graphs have in the place of a function; and what has no dimension for a batch.
ELSEWHERE = frozenset(
    """
    asarray bfloat16 cfloat cuda deepcopy float half diag diagflat dist dot pdist
    chain_matmul cholesky frobenius_norm triangular_solve flex_attention _sparse_mm _sparse_addmm _grouped_mm
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    _safe_softmax _fused_rms_norm native_channel_shuffle pad_sequence combinations cartesian_prod vander linalg_vander
    _pack_padded_sequence _pad_packed_sequence
    """.split()
)


@st.composite
def programs(draw: Any, longest: int = 8) -> Program:
    operations = st.sampled_from(sorted(FAMILIES)).flatmap(lambda name: st.sampled_from(FAMILIES[name]))
    steps = draw(st.lists(st.tuples(operations, st.integers(0, 2**24 - 1)), min_size=1, max_size=longest))
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    return write(steps, shapes, draw(st.integers(0, 999)), draw(st.integers(0, 99)))


def _examples(number: int) -> Any:
    """As many examples for a test, of the hundred of the profile that is loaded."""
    return settings(max_examples=max(1, number * settings().max_examples // 100))


def _options(program: Program, shapley: bool) -> dict[str, Any]:
    # Fractional pooling has no Shapley values.
    return {
        "additivity_tolerance": TOLERANCE,
        "rules": "shapley" if shapley and "fractional" not in program.source else "deeplift",
    }


def _explain(program: Program, samples: int, baselines: int, shapley: bool = False) -> list[Tensor]:
    model, x, r = program.model(), program.inputs(samples, 1), program.inputs(baselines, 2)
    found = DeepExplainer(model, r, **_options(program, shapley)).attribute(x)
    values = as_list(found.values)
    assert all(value.isfinite().all() for value in values)
    outputs, expected = run(model, x), run(model, r)
    rounding = 1e-14 * max(float(outputs.abs().max()), float(expected.abs().max()))
    difference = float((outputs - expected.mean(0)).abs().max())
    assert additivity_gap(values, outputs, expected) * difference <= TOLERANCE * difference + rounding
    return values


def _recording(names: set[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        names.add(name)
        return function(*args, **kwargs)

    return recorded


@pytest.fixture(scope="module")
def alone() -> tuple[dict[Operation, str], set[str]]:
    """What is wrong with programs of one operation, and the names of the rules and of the linear operations that they ran."""
    problems: dict[Operation, str] = {}
    names: set[str] = set()

    def seen(function: Any) -> Any:
        called = plain(function)
        if called.name in LINEAR:
            names.add(called.name)
        return called

    with pytest.MonkeyPatch.context() as patch:
        plain = mode.operation
        patch.setattr(mode, "operation", seen)
        for table in (RULES, DECOMPOSITIONS):
            for name, function in table.items():
                patch.setitem(table, name, _recording(names, name, function))
        for number, operation in enumerate(OPERATIONS):
            shapes = [SHAPES[number % len(SHAPES)], SHAPES[number // 3 % len(SHAPES)]]
            program = None
            try:
                program = write([(operation, number)], shapes, number, 0)
                _explain(program, 2, 3)
            except Exception as error:
                problems[operation] = f"{type(error).__name__}: {error}\n{program}"
    return problems, names


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_operation_alone(family: str, alone: tuple[dict[Operation, str], set[str]]) -> None:
    problems, _ = alone
    assert [problems[operation] for operation in FAMILIES[family] if operation in problems] == []


@pytest.mark.slow
def test_the_table_has_every_rule_and_linear_operation(alone: tuple[dict[Operation, str], set[str]]) -> None:
    _, names = alone
    everything = RULES.keys() | DECOMPOSITIONS.keys() | LINEAR
    assert sorted(everything - names - ELSEWHERE) == []
    assert sorted(ELSEWHERE - everything) == []


ROWS = st.integers(1, 3)


@pytest.mark.slow
@_examples(100)
@given(programs(), ROWS, ROWS, st.booleans())
def test_random_programs_add_up(program: Program, samples: int, baselines: int, shapley: bool) -> None:
    _explain(program, samples, baselines, shapley)


@pytest.mark.slow
@_examples(40)
@given(programs(), ROWS, ROWS, st.integers(1, 20_000), st.booleans())
def test_how_a_program_is_explained_makes_no_difference(
    program: Program, samples: int, baselines: int, max_memory: int, shapley: bool
) -> None:
    model, x, r = program.model(), program.inputs(samples, 1), program.inputs(baselines, 2)
    options = _options(program, shapley)
    explainer = DeepExplainer(model, r, **options)
    grid = explainer.attribute(x).values
    own = [tensor.expand(samples, *tensor.shape) for tensor in r]
    last = [tensor[-1:] for tensor in x]
    others = [torch.cat([tensor * 0.9 + 0.1, tensor]) for tensor in x]
    pairs = [
        [
            DeepExplainer(model, [t[j : j + 1] for t in r], **options)
            .attribute([t[i : i + 1] for t in x], pairing="aligned")
            .values
            for j in range(baselines)
        ]
        for i in range(samples)
    ]
    by_hand = tuple(
        torch.cat([torch.stack([pairs[i][j][k] for j in range(baselines)]).mean(0) for i in range(samples)])
        for k in range(len(x))
    )
    first = [value.flatten(tensor.dim())[..., 0] for value, tensor in zip(grid, x, strict=True)]
    for title, found, expected in (
        ("one output", explainer.attribute(x, (0,) * explainer.expected_value.ndim).values, first),
        ("aligned", explainer.attribute(x, pairing="aligned").values, grid),
        ("own baselines", explainer.attribute(x, baselines=own).values, grid),
        ("chunks", DeepExplainer(model, r, max_memory=max_memory, **options).attribute(x).values, grid),
        ("one row", explainer.attribute(last).values, [value[-1:] for value in grid]),
        ("neighbours", [value[samples:] for value in explainer.attribute(others).values], grid),
        ("pair by pair", by_hand, grid),
    ):
        _assert_same(title, found, expected, 1e-12)


def _assert_same(title: str, found: Any, expected: Any, tolerance: float) -> None:
    scale = max(float(value.abs().max()) for value in expected)
    for one, other in zip(found, expected, strict=True):
        far = float((one - other).abs().max())
        assert far <= tolerance * scale, f"{title}: {far / max(scale, 1e-300):.3g} of the largest value apart"


@_examples(20)
@given(programs(), ROWS)
def test_the_input_itself_as_the_baseline_gives_zero(program: Program, seed: int) -> None:
    x = program.inputs(1, seed)
    assert not any(value.any() for value in DeepExplainer(program.model(), x).attribute(x).values)


def _mixed(output: Tensor) -> Tensor:
    """A weighted sum of each row's outputs."""
    flat = output.reshape(len(output), -1)
    return flat @ torch.arange(1, 1 + flat.shape[1]).to(flat)


@_examples(20)
@given(programs(), st.floats(0.1, 10))
def test_values_are_linear_in_the_outputs(program: Program, scale: float) -> None:
    model, x, r = program.model(), program.inputs(2, 1), program.inputs(2, 2)
    values = DeepExplainer(model, r, additivity_tolerance=TOLERANCE).attribute(x).values
    mixed = DeepExplainer(model, r, output=lambda y: scale * _mixed(y) + 3, additivity_tolerance=TOLERANCE).attribute(x)
    for tensor, one, found in zip(x, values, mixed.values, strict=True):
        expected = scale * _mixed(one.flatten(tensor.dim()).flatten(0, -2)).view_as(tensor)
        _assert_same("outputs mixed", [found.view_as(tensor)], [expected], 1e-10)


def _derivative(model: nn.Module, inputs: list[Tensor], position: int) -> Tensor:
    """Of the mixed outputs with respect to one input of one row, by central differences: autograd refuses some writes in place."""
    features = inputs[position].numel()
    step = 1e-6 * torch.eye(features, dtype=torch.float64).view(-1, *inputs[position].shape[1:])

    def mixed(step: Tensor) -> Tensor:
        rows = [tensor.repeat(features, *[1] * (tensor.dim() - 1)) for tensor in inputs]
        rows[position] += step
        return _mixed(model(*rows))

    with torch.no_grad():
        return ((mixed(step) - mixed(-step)) / 2e-6).view_as(inputs[position])


@_examples(30)
@given(programs())
@pytest.mark.filterwarnings("ignore:the attributions do not add up")  # nothing much to add up to so close
def test_close_to_a_baseline_multipliers_are_the_gradient(program: Program) -> None:
    model, r = program.model(), program.inputs(1, 2)
    x = [tensor + 1e-7 * direction for tensor, direction in zip(r, program.inputs(1, 3), strict=True)]
    values = DeepExplainer(model, r, output=_mixed).attribute(x, check_additivity=False).values
    found = [value.view_as(one) / (one - other) for value, one, other in zip(values, x, r, strict=True)]
    expected = [_derivative(model, r, position) for position in range(len(r))]
    _assert_same("gradient", found, expected, 1e-4)


@_examples(20)
@given(programs(4))
def test_single_precision_is_near_double(program: Program) -> None:
    x, r = program.inputs(2, 1), program.inputs(2, 2)
    single, double = (
        DeepExplainer(program.model(dtype), [t.to(dtype) for t in r], additivity_tolerance=1e-3)
        .attribute([t.to(dtype) for t in x])
        .values
        for dtype in (torch.float32, torch.float64)
    )
    assert all(value.dtype == torch.float32 for value in single)
    _assert_same("float32", [value.double() for value in single], double, 1e-3)


@st.composite
def deciding_programs(draw: Any) -> Program:
    """A program with a decision by its values in it."""
    code = st.integers(0, 2**24 - 1)
    decision = draw(st.tuples(st.sampled_from(DECISIONS), code))
    before, after = (draw(st.lists(st.tuples(st.sampled_from(OPERATIONS), code), max_size=3)) for _ in range(2))
    return write([*before, decision, *after], [(2, 3), (3,)], draw(st.integers(0, 999)), 0)


@_examples(30)
@given(deciding_programs(), ROWS, ROWS)
def test_decisions_are_exact_or_reported(program: Program, samples: int, baselines: int) -> None:
    try:
        _explain(program, samples, baselines)
    except AdditivityError as error:
        assert "takes different decisions" in str(error)


@_examples(20)
@given(deciding_programs())
def test_decisions_that_agree_are_exact(program: Program) -> None:
    model, r = program.model(), program.inputs(1, 2)
    x = [tensor + 1e-6 * direction for tensor, direction in zip(r, program.inputs(1, 3), strict=True)]
    DeepExplainer(model, r, additivity_tolerance=1e-6).attribute(x)


def _program(shape: tuple[int, ...], *lines: str) -> Program:
    body = "".join(f"\n        {line}" for line in ("B = len(x)", *lines))
    return Program(f"class Program(nn.Module):\n    def forward(self, x):{body}", [shape])


#: Programs that once failed.
FOUND = {
    "written into a maximum": _program((2, 3), "v = x.amax(1)", "v.relu_()", "return v + x[:, 0]"),
    "written into a part of a pooling": _program(
        (2, 3), "v = F.max_pool1d(x, 2, 1)", "v[:, 0] = v[:, 1].tanh()", "return v.flatten(1)"
    ),
    "written into what gather read": _program(
        (3,),
        "v = x.gather(1, torch.tensor([[2, 0]]).expand(B, 2))",
        "x.mul_(x.sin())",
        "return x.sum(1) * v[:, 0] + v[:, 1]",
    ),
    "written into what was pooled": _program(
        (2, 3), "v = F.avg_pool1d(x, 2, 1)", "x.exp_()", "return (v * x[..., :2]).sum(2)"
    ),
    "a negative view of complex numbers": _program((3,), "return torch.complex(x, -x * x).conj().resolve_conj().imag"),
    "positions that are thrown away": _program((2, 3), "return F.max_pool1d_with_indices(x, 2, 1)[0].flatten(1)"),
}


@pytest.mark.parametrize("name", FOUND)
def test_programs_that_once_failed(name: str) -> None:
    _explain(FOUND[name], 3, 3)


def test_a_feature_that_all_baselines_share_does_not_hide_the_batch() -> None:
    """What is made of the second feature is the same for all of them: where its batch lies shows only once it changes."""
    program = _program(
        (2,), "both = torch.cat([x, 2 * x])", "return both[:, 1].tanh().view(2, -1).sum(0) + x[:, 0].sin()"
    )
    (x,), (r,) = program.inputs(3, 1), program.inputs(4, 2)
    r[:, 1] = 0.3
    values = DeepExplainer(program.model(), r).attribute(x).values
    expected = (x[:, 1].tanh() + (2 * x[:, 1]).tanh()) - (r[0, 1].tanh() + (2 * r[0, 1]).tanh())
    _assert_same("second feature", [values[:, 1, 0]], [expected], 1e-12)
