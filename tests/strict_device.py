"""A device without hardware that refuses what a GPU refuses, and counts what a GPU waits for.

Its tensors hold ordinary CPU data, so results equal the CPU's bit by bit, but they are on another
device, "cpu:1". Operations that mix both devices raise, as on a GPU. Host waits, where the program
stops until the device has computed everything before, are recorded with the place in our code that
caused them: reading a number, copying to the host, an operation whose result has a shape that only
the device knows, and a copy to the device that does not say `non_blocking`. Matrix products are
recorded with their data type.

    with StrictDevice() as device:
        model.to(STRICT)
        with device.inner_loop() as waits:  # raises at a wait that is not in `devices.to_host`
            ...
        print(waits, device.products)

"cpu:1" needs no backend: torch's autograd, autocast and gradient scaler treat it as a CPU, from 2.4
on. (On PyTorch's `PrivateUse1`, a Python-only backend exists since 2.10, without autocast.)
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from hearback.engine import devices
from hearback.engine.project import ROOT

STRICT = torch.device("cpu", 1)
_HOST = torch.device("cpu")
_PACKAGE = str(ROOT / "hearback")
# Operations whose result the host must read to go on, or to know a shape.
_READS = {"_local_scalar_dense": "number", "equal": "comparison", "bincount": "shape"}
_READS |= dict.fromkeys(("nonzero", "masked_select", "_unique2", "unique_dim"), "shape")
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}
_ATTENTION = "_scaled_dot_product"


class MixedDevicesError(AssertionError):
    """An operation met tensors of both devices."""


class HostWaitError(AssertionError):
    """The host waits where this was refused."""


@dataclass(frozen=True)
class Wait:
    """A wait of the host.

    Attributes:
        kind: why it waits.
        place: the innermost function of the package that caused it, without `devices`.
        is_meant: it is a wait of `devices.to_host`, the one place for waits of inner loops.
    """

    kind: str
    place: str
    is_meant: bool = False


class DeviceTensor(Tensor):
    """A tensor on the strict device; `held` is its data, an ordinary tensor."""

    held: Tensor

    @staticmethod
    def __new__(cls: type["DeviceTensor"], held: Tensor) -> "DeviceTensor":
        """Wrap ordinary data."""
        # A view of a parameter is no inference tensor, even in inference mode.
        with torch.inference_mode(held.is_inference()):
            tensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=STRICT,
                requires_grad=held.requires_grad,
            )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse to compute: only a `StrictDevice` does."""
        raise RuntimeError(f"{func}: a tensor of the strict device, outside of its context")

    def tolist(self) -> Any:
        """Read all numbers."""
        return self.cpu().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as a GPU's tensor does."""
        raise MixedDevicesError("numpy() of a tensor on a device: copy it to the host first")

    __array__ = numpy

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeviceTensor":
        """Copy the data."""
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True  # type: ignore[attr-defined]
        memo[id(self)] = copy
        return copy  # type: ignore[return-value]


class StrictDevice(TorchDispatchMode):
    """The context in which the strict device computes.

    Attributes:
        waits: the waits of the host so far.
        products: the number of matrix products so far, by place and data type.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.products: Counter[tuple[str, torch.dtype]] = Counter()
        self._in_loop = False

    def __enter__(self) -> Self:
        """Start to compute."""
        self._original = torch._has_compatible_shallow_copy_type
        torch._has_compatible_shallow_copy_type = _holds_the_same
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stop to compute."""
        super().__exit__(*exception)
        torch._has_compatible_shallow_copy_type = self._original

    @contextmanager
    def inner_loop(self) -> Iterator[list[Wait]]:
        """Yield a list that gets the waits inside; raise HostWaitError at one that is not meant."""
        before, self.waits, self._in_loop = self.waits, [], True
        try:
            yield self.waits
        finally:
            self.waits, self._in_loop = before, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation on the data of its tensors; wrap the result."""
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        if not ours and STRICT not in (x for x in leaves if isinstance(x, torch.device)):
            return func(*args, **kwargs)
        if _is_composite(func):  # in inference mode these come whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name = func._schema.name.removeprefix("aten::")
        if name in ("_to_copy", "copy_"):
            return self._copy(func, name, args, kwargs)
        self._check_devices(func, name, tensors, len(ours))
        self._record(func, name, args, kwargs, ours)
        return _run(func, args, kwargs, wrap=True)

    def _copy(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        source = args[1] if name == "copy_" else args[0]
        is_from = isinstance(source, DeviceTensor)
        target = args[0].device if name == "copy_" else kwargs.get("device")
        is_to = is_from if target is None else target == STRICT
        blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if is_from != is_to and blocks:
            self._wait("copy to the device" if is_to else "copy to the host")
        return _run(func, args, kwargs, wrap=is_to)

    def _check_devices(self, func: Any, name: str, tensors: list[Tensor], n_ours: int) -> None:
        others = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
        if not others or not n_ours:
            if others and not n_ours and name not in ("lift_fresh",):
                raise MixedDevicesError(
                    f"{func} on the device, of a tensor on the host: {_place()}"
                )
            return
        if name in _INDEXING and isinstance(tensors[0], DeviceTensor):
            self._wait("copy of an index to the device")
        elif torch.Tag.pointwise not in func.tags or any(tensor.ndim for tensor in others):
            shapes = [tuple(tensor.shape) for tensor in others]
            raise MixedDevicesError(f"{func} meets tensors of the host, {shapes}: {_place()}")

    def _record(self, func: Any, name: str, args: Any, kwargs: Any, ours: Sequence[Tensor]) -> None:
        if kind := _READS.get(name):
            self._wait(kind)
        elif name in _INDEXING:
            masks = [each for each in tree_leaves(args[1]) if isinstance(each, DeviceTensor)]
            if any(mask.dtype in (torch.bool, torch.uint8) for mask in masks):
                self._wait("shape")
        elif name == "repeat_interleave" and kwargs.get("output_size") is None:
            self._wait("shape")
        elif name in _PRODUCTS or name.startswith(_ATTENTION):
            first = next(tensor for tensor in ours if tensor.is_floating_point())
            self.products[_place(), first.dtype] += 1

    def _wait(self, kind: str) -> None:
        wait = Wait(kind, _place(), is_meant=_is_within_to_host())
        if self._in_loop and not wait.is_meant:
            raise HostWaitError(f"the host waits for a {kind} in {wait.place}")
        self.waits.append(wait)


def _run(func: Any, args: Any, kwargs: Any, *, wrap: bool) -> Any:
    """Run an operation on the tensors' data; results that are an argument stay that argument."""
    wrappers = {
        id(leaf.held): leaf
        for leaf in tree_leaves((args, kwargs))
        if isinstance(leaf, DeviceTensor)
    }
    args, kwargs = tree_map_only(DeviceTensor, lambda tensor: tensor.held, (args, kwargs))
    args, kwargs = tree_map_only(
        torch.device, lambda device: _HOST if device == STRICT else device, (args, kwargs)
    )
    result = func(*args, **kwargs)
    if not wrap:
        return result

    def rewrap(tensor: Tensor) -> Tensor:
        wrapper = wrappers.get(id(tensor))
        return DeviceTensor(tensor) if wrapper is None else wrapper

    return tree_map_only(Tensor, rewrap, result)


def _holds_the_same(input: Tensor, from_: Tensor) -> bool:  # noqa: A002  (torch's name)
    """Return whether a module that is moved may keep a parameter's object: nothing has changed."""
    if not isinstance(input, DeviceTensor) or not isinstance(from_, DeviceTensor):
        return type(input) is type(from_)
    return input.held.data_ptr() == from_.held.data_ptr() and input.dtype == from_.dtype


def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)


def _frames() -> Iterator[FrameType]:
    """Yield the package's frames of the stack, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            yield frame
        frame = frame.f_back


def _place() -> str:
    """Return the innermost function of the package in the stack: "folder/file.py function"."""
    for frame in _frames():
        if frame.f_code.co_filename != devices.__file__:
            path = Path(frame.f_code.co_filename).relative_to(_PACKAGE)
            return f"{path.as_posix()} {frame.f_code.co_name}"
    return "outside of the package"


def _is_within_to_host() -> bool:
    return any(frame.f_code is devices.to_host.__code__ for frame in _frames())
