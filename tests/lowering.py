"""What a lowered program holds, read from its StableHLO: calls of foreign functions, numbers, and large products."""

import math
import re
from typing import NamedTuple

import jax

CALLS = {
    "cuda": {"cusolver_syevd_ffi"},
    "tpu": {"Eigh", "Qr", "ProductOfElementaryHouseholderReflectors"},
}
"""Foreign functions that the platform's own JAX brings along: those for eigenvectors, which CMA-ES asks for. No other
may be called: JAX lowers any name for any platform, and it is first missed where the program is to run."""
MARKS = {"AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
"""What is called so is no call of a function: XLA itself knows it, everywhere. It is memory that nothing was written to
yet, or says where an array lies."""
LARGE = 1 / 50
"""Of a program's largest product. Those above it are made in the narrow type where one was asked for."""

_CALL = re.compile(r'(?:custom_call|ffi_call)\b[^"@]*[@"]"?([\w.$]+)')
_TENSOR = r"tensor<((?:\d+x)*)(\w+)>"
_PRODUCT = re.compile(rf"stablehlo\.(dot_general|convolution)\b(.*) : \({_TENSOR}, {_TENSOR}\) -> {_TENSOR}")
_PRECISION = re.compile(r"precision\w* = \[([^\]]*)\]")


class Product(NamedTuple):
    """kind: dot_general or convolution. operands, result: types. work: about its multiplications. precision: asked."""

    kind: str
    operands: tuple[str, str]
    result: str
    work: float
    precision: tuple[str, ...]


def lowered(traced: jax.stages.Traced, platform: str) -> str:
    """The StableHLO of a traced function."""
    return traced.lower(lowering_platforms=(platform,)).as_text()


def require_portable(text: str, platform: str) -> None:
    """See that a program can run there, and without the host.

    Raises:
      AssertionError: it calls what the platform does not have, or holds numbers of 64 bits.
    """
    foreign = set(_CALL.findall(text)) - CALLS[platform] - MARKS
    assert not foreign, f"calls that {platform} does not have: {sorted(foreign)}"
    assert not re.search(r"tensor<(?:\d+x)*(?:f64|complex<f64>)>", text), "it holds float64"
    assert "infeed" not in text and "outfeed" not in text and "stablehlo.send" not in text, "it asks the host"


def products(text: str) -> list[Product]:
    """All products of a program."""
    found = []
    for kind, attributes, *types in _PRODUCT.findall(text):
        sizes = [math.prod(int(side) for side in shape.split("x") if side) for shape in types[::2]]
        precision = tuple(re.findall(r"DEFAULT|HIGHEST|HIGH", "".join(_PRECISION.findall(attributes))))
        # [m, k] times [k, n]: the root of (m k) (k n) (m n) is m k n. Of a convolution it is about that.
        found.append(Product(kind, (types[1], types[3]), types[5], math.sqrt(math.prod(sizes)), precision))
    assert len(found) == len(re.findall(r"stablehlo\.(?:dot_general|convolution|dot)\b", text)), "not all were read"
    return found


def require_products(text: str, types: dict[str, str]) -> None:
    """See that products multiply these types and add up in float32.

    Args:
      types: of operands, by kind. There must be large products of these kinds and no others; small ones may be float32
        whatever is said here.

    Raises:
      AssertionError: one is of another type, or its sums are rounded as they are stored.
    """
    every = products(text)
    least = LARGE * max((each.work for each in every), default=0.0)
    found = {each.kind for each in every if each.work > least}
    assert found == set(types), f"kinds of large products: {sorted(found)}"
    for each in every:
        allowed = {types.get(each.kind, "f32"), *(["f32"] if each.work <= least else [])}
        assert each.operands[0] == each.operands[1] in allowed, f"multiplies {each.operands}, not {allowed}: {each}"
        assert each.result == "f32", f"rounds its sums to {each.result}: {each}"
