"""Memory of tensors, counted as they come and go: the same on every machine and device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(function: Callable[[], object], present: Iterable[Tensor] = ()) -> int:
    """Most bytes of tensors that are alive at one moment of a call.

    What an operator uses inside, and what an allocator wastes, is not seen. Torch's own
    ``MemTracker`` does not take a module that is called several times, as a step does.

    Args:
        function: The call.
        present: What is there before and counts, such as weights; best drawn one by one, as a list
            of them would keep alive what the call lets go.
    """
    counter = _LiveBytes()
    counter.note(present)
    with counter:
        function()
    return counter.peak


class _LiveBytes(TorchDispatchMode):
    """Follows the storage of every tensor that an operator returns, until nothing holds it."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def note(self, tensors: Iterable[object]) -> None:
        """Count the storage of tensors, unless it is counted already."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self._known:
                    self._known.add(id(storage))
                    self._now += storage.nbytes()
                    self.peak = max(self.peak, self._now)
                    weakref.finalize(storage, self._forget, id(storage), storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **kwargs or {})
        self.note(tree_leaves(returned))
        return returned
