"""A stand-in for CuPy: the functions that CuPy has and no others, over arrays in main memory.

Under it, code that would fail on a GPU fails here:

* a function that is not in the lists below is an `AttributeError`;
* an array mixed with NumPy's, in an operator, a function or an index, is a `TypeError`, and so is
  turning one into NumPy's other than by `.get()`;
* a reduction gives an array of no axes, never a NumPy scalar; flags cannot be set.

Sources: CuPy's reference, "Comparison table" and "Differences between CuPy and NumPy".
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np


def _words(text: str) -> list[str]:
    return text.split()


FUNCTIONS = _words("""
abs add all allclose any arange argmax argmin argsort array_split ascontiguousarray broadcast_to
ceil clip concatenate copysign cos count_nonzero cumsum diff divide einsum empty empty_like equal
exp expand_dims expm1 eye flatnonzero flip floor full full_like isfinite isinf isnan left_shift log
log1p logical_and logical_not logical_or matmul max maximum mean min minimum mod moveaxis multiply
negative nonzero ones ones_like outer power prod repeat reshape right_shift roll rint sign sin sort
split sqrt square squeeze stack subtract sum swapaxes take take_along_axis tanh tensordot tile
transpose tril triu unique where zeros zeros_like
""")
UFUNCS_WITH_AT = ("add", "subtract", "maximum", "minimum")  # the only ones whose `.at` CuPy has
CONSTANTS = _words("""
bool_ dtype e finfo float16 float32 float64 iinfo inf int8 int16 int32 int64 nan newaxis pi
result_type uint8 uint16 uint32 uint64
""")
METHODS = _words("""
all any argmax argmin argsort astype clip copy cumsum dot max mean min nonzero prod ravel repeat
reshape squeeze std sum swapaxes take transpose trace var view
""")
OPERATORS = _words("""
add sub mul truediv floordiv mod pow matmul and or xor lshift rshift
""")
COMPARISONS = ["lt", "le", "gt", "ge", "eq", "ne"]


class Flags:
    """What CuPy tells of an array's memory; nothing can be set."""

    __slots__ = ("_flags",)

    def __init__(self, flags: Any) -> None:
        self._flags = flags

    c_contiguous = property(lambda self: self._flags.c_contiguous)
    f_contiguous = property(lambda self: self._flags.f_contiguous)
    owndata = property(lambda self: self._flags.owndata)


class ndarray:
    """An array on the device that is not there; `_host` is what a real one would hold."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, host: np.ndarray) -> None:
        self._host = np.asarray(host)

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: Flags(self._host.flags))
    T = property(lambda self: ndarray(self._host.T))

    def get(self) -> np.ndarray:
        return self._host.copy()

    def set(self, host: np.ndarray) -> None:
        self._host[...] = host

    def item(self) -> Any:
        return self._host.item()

    def tolist(self) -> Any:
        return self._host.tolist()

    def fill(self, value: Any) -> None:
        self._host.fill(_unwrap(value))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array is not allowed; use .get()")

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __iter__(self) -> Any:
        return (ndarray(part) for part in self._host)

    def __getitem__(self, index: Any) -> ndarray:
        return ndarray(self._host[_unwrap(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[_unwrap(index)] = _unwrap(value)

    def __neg__(self) -> ndarray:
        return ndarray(-self._host)

    def __invert__(self) -> ndarray:
        return ndarray(~self._host)

    def __abs__(self) -> ndarray:
        return ndarray(abs(self._host))

    def __repr__(self) -> str:
        return f"stand-in {self._host!r}"


ndarray.__module__ = "cupy"


def _unwrap(value: Any) -> Any:
    """What NumPy may see of an argument: never an array that was NumPy's already."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("a NumPy array where a CuPy array is needed")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(part) for part in value)
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_wrap(part) for part in value)
    return value


def _through(function: Callable) -> Callable:
    def call(*arguments: Any, **named: Any) -> Any:
        out = named.get("out")
        named = {name: _unwrap(value) for name, value in named.items()}
        result = function(*map(_unwrap, arguments), **named)
        return _wrap(result) if out is None else out

    return call


def _from_host(function: Callable) -> Callable:
    """`array` and `asarray`, which copy NumPy's arrays to the device."""

    def call(values: Any, dtype: Any = None, copy: bool | None = None) -> ndarray:
        if isinstance(values, ndarray):
            return ndarray(function(values._host, dtype=dtype))
        return ndarray(np.array(values, dtype=dtype))

    return call


def _operator(name: str) -> Callable:
    def call(self: ndarray, other: Any) -> Any:
        return _wrap(getattr(self._host, name)(_unwrap(other)))

    return call


def _in_place(name: str) -> Callable:
    def call(self: ndarray, other: Any) -> ndarray:
        if name == "__imatmul__":
            return NotImplemented
        getattr(self._host, name)(_unwrap(other))
        return self

    return call


for _name in OPERATORS:
    for _form in (f"__{_name}__", f"__r{_name}__"):
        setattr(ndarray, _form, _operator(_form))
    setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in COMPARISONS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in METHODS:
    setattr(ndarray, _name, _through(getattr(np.ndarray, _name)))


def make() -> types.ModuleType:
    """The module, to be put into `sys.modules["cupy"]`."""
    cupy = types.ModuleType("cupy", "A stand-in for CuPy in main memory.")
    cupy.ndarray = ndarray
    for name in FUNCTIONS:
        function = _through(getattr(np, name))
        if name in UFUNCS_WITH_AT:
            function.at = _through(getattr(np, name).at)
        setattr(cupy, name, function)
    for name in CONSTANTS:
        setattr(cupy, name, getattr(np, name))
    cupy.array, cupy.asarray = _from_host(np.array), _from_host(np.asarray)
    return cupy
