"""Exact counts on the CPU: bytes of live tensors and of saved ones, calls of operators.

Bytes are of storages: a view is free, two tensors over one storage count once.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class MemoryMeter(TorchDispatchMode):
    """Count the bytes of storages that operations inside the block create.

    Attributes:
        live: bytes that were created inside the block and are still referenced.
        peak: the largest value that `live` has had.

    Scratch memory that a kernel frees before it returns is not seen.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.live = 0
        self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run the operation and count what it has allocated."""
        kwargs = kwargs or {}
        inputs = [*_storages((args, kwargs))]  # kept, so that no identity is recycled
        known = {storage._cdata for storage in inputs}
        outputs: object = func(*args, **kwargs)
        for storage in _storages(outputs):
            if storage._cdata not in known | self._counted:
                self._count(storage)
        return outputs

    def _count(self, storage: torch.UntypedStorage) -> None:
        self._counted.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, identity: int, nbytes: int) -> None:
        self._counted.remove(identity)
        self.live -= nbytes


class CallCounter(TorchDispatchMode):
    """Count the operators that run inside the block, by name.

    Attributes:
        names: how many times each ATen operator was called, such as `sigmoid`.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run the operation and count it."""
        # aten.sigmoid.default is the overload `default` of the operator `sigmoid`.
        self.names[str(func).split(".")[1]] += 1
        output: object = func(*args, **(kwargs or {}))
        return output


@dataclass
class SavedBytes:
    """What the operations inside a `saved_bytes` block have saved for backward."""

    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes of the distinct storages; saved parameters are among them."""
        return sum(storage.nbytes() for storage in self.storages.values())


@contextmanager
def saved_bytes() -> Iterator[SavedBytes]:
    """Meter the tensors that autograd saves inside the block."""
    saved = SavedBytes()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved.storages[storage._cdata] = storage
        # Detached, because the node would own its own output and never be freed.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def _storages(tree: object) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_iter(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
