"""The graph that autograd recorded, as it is read from its live nodes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, eq=False)
class GraphNode:
    """A node of the graph, and the bytes of the storages that it saves.

    Attributes:
        node: the live object, the same that `grad_fn` and `next_functions` give.
        name: its class, without the ending `Backward0` unless that would be ambiguous.
        depth: edges on the longest way from a root.
        children: where its gradients go; a node that gets two of them is there twice.
        leaf: the name (if it has one) and the shape of the tensor to whose `.grad` it
            adds; nothing for other nodes.
        saved: bytes that neither a leaf owns nor a node closer to the leaves saves, so
            that their sum over the graph counts every storage once.
        shared: bytes that a node closer to the leaves saves as well.
        known: bytes of leaves, and of other tensors that were given a name.
        freed: whether its saved tensors have been freed.
    """

    node: Node
    name: str
    depth: int
    children: tuple[Node, ...]
    leaf: tuple[str, ...]
    saved: int
    shared: int
    known: int
    freed: bool

    @property
    def parts(self) -> tuple[int, int, int]:
        """All bytes that the node refers to: saved, shared and known."""
        return self.saved, self.shared, self.known


def graph_of(
    *roots: Tensor | Node, names: Mapping[str, Tensor] | None = None
) -> list[GraphNode]:
    """Walk a graph; a node stands before those that it sends gradients to.

    Args:
        roots: tensors or nodes to start from.
        names: names of leaves, such as `dict(model.named_parameters())`, and of other
            tensors that live anyway, such as buffers.
    """
    order = _parents_first([r if isinstance(r, Node) else _node_of(r) for r in roots])
    depth = dict.fromkeys(order, 0)
    for node in order:
        for child in _children(node):
            depth[child] = max(depth[child], depth[node] + 1)
    order.sort(key=depth.__getitem__)
    named = dict(names or {})
    titles = {id(tensor): name for name, tensor in named.items()}
    leaves = {node: node.variable for node in order if hasattr(node, "variable")}
    known = {_storage_of(tensor) for tensor in (*named.values(), *leaves.values())}
    short = {node: re.sub(r"Backward\d+$", "", type(node).__name__) for node in order}
    alike = Counter(name for name, _ in {(short[n], type(n)) for n in order})
    taken: set[int] = set()
    graph: list[GraphNode] = []
    for node in reversed(order):
        tensors, freed = _saved_by(node)
        sizes = {_storage_of(t): t.untyped_storage().nbytes() for t in tensors}
        own = sizes.keys() - known - taken
        parts = (own, sizes.keys() & taken, sizes.keys() & known)
        saved, shared, others = (sum(sizes[key] for key in part) for part in parts)
        taken |= own
        name = short[node] if alike[short[node]] == 1 else type(node).__name__
        leaf: tuple[str, ...] = ()
        if node in leaves:
            shape = str(tuple(leaves[node].shape))
            leaf = tuple(filter(None, (titles.get(id(leaves[node])), shape)))
        children = tuple(_children(node))
        facts = (saved, shared, others, freed)
        graph.append(GraphNode(node, name, depth[node], children, leaf, *facts))
    return graph[::-1]


def _node_of(tensor: Tensor) -> Node:
    node: Node = get_gradient_edge(tensor).node
    return node


def _children(node: Node) -> list[Node]:
    return [child for child, _ in node.next_functions if child is not None]


def _parents_first(roots: Sequence[Node]) -> list[Node]:
    """All nodes, each before its children; no recursion, because graphs are deep."""
    done: dict[Node, None] = {}
    stack = [(root, False) for root in roots]
    while stack:
        node, below_done = stack.pop()
        if below_done:
            done[node] = None
        elif node not in done:
            stack.append((node, True))
            stack.extend((child, False) for child in _children(node))
    return list(done)[::-1]


def _storage_of(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _saved_by(node: Node) -> tuple[list[Tensor], bool]:
    """The tensors that a node has saved, and whether they have been freed."""
    names = [n for n in dir(node) if n.startswith("_saved_") or n == "saved_tensors"]
    found: list[object] = []
    freed = False
    for name in names:
        try:
            found.append(getattr(node, name))
        except RuntimeError as error:
            freed |= "already been freed" in str(error)
            if "inplace operation" in str(error):  # it is there, at another version
                raw = getattr(node, f"_raw_{name.removeprefix('_')}")
                found += [r.data for r in (raw if isinstance(raw, tuple) else [raw])]
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)], freed
