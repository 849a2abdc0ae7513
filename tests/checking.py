"""What jaxtyping's import hook wraps every function of the package in, under pytest.

It is beartype, which knows no more of a NamedTuple than its class, made to hold the fields against their annotations
too: in one call an axis has one size, whether it is an array's or that of a field.
"""

from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from beartype.vale import Is

# An int where a float is asked for is right, says PEP 484 and with it pyright.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Any) -> Any:
    """The function with its arguments checked."""
    function.__annotations__ = {name: _with_fields(hint) for name, hint in function.__annotations__.items()}
    return _check(function)


def _with_fields(hint: Any) -> Any:
    """The same type, with the fields of the NamedTuples in it."""
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return _with_fields_of(hint)
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return tuple[tuple(_with_fields(part) for part in parts)]
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, (_with_fields(part) for part in parts))
    return hint


@cache
def _with_fields_of(kind: Any) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    # T+1 says something about T, not the other way round: it can only be checked after T.
    names = sorted(hints, key=lambda name: "+" in str(hints[name]))
    return Annotated[
        kind, Is[lambda value: all(is_bearable(getattr(value, name), _with_fields(hints[name])) for name in names)]
    ]
