"""Methods of PyTorch's classes, read from its files, because importing it takes seconds."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

from blackbelt import code_facts

# Where prose and code leave out the class, names are looked up in this order.
TENSOR = "torch.Tensor"
FUNCTION = "torch.autograd.Function"
CONTEXT = "torch.autograd.function.FunctionCtx"
_CLASSES = {
    TENSOR: ("_tensor.py:Tensor",),
    FUNCTION: ("autograd/function.py:Function", "autograd/function.py:_SingleLevelFunction"),
    "torch.nn.Module": ("nn/modules/module.py:Module",),
    "torch.optim.Optimizer": ("optim/optimizer.py:Optimizer",),
    CONTEXT: ("autograd/function.py:FunctionCtx",),
    "torch.nn.parallel.DistributedDataParallel": (
        "nn/parallel/distributed.py:DistributedDataParallel",
    ),
    "torch.utils.data.DistributedSampler": ("utils/data/distributed.py:DistributedSampler",),
    "torch.utils.data.DataLoader": ("utils/data/dataloader.py:DataLoader",),
    "torch.amp.GradScaler": ("amp/grad_scaler.py:GradScaler",),
    "torch.optim.lr_scheduler.LRScheduler": ("optim/lr_scheduler.py:LRScheduler",),
}
# Variables that tell which class is meant by a name that several have.
_HINTS = {
    "model": "torch.nn.Module",
    "module": "torch.nn.Module",
    "net": "torch.nn.Module",
    "layer": "torch.nn.Module",
    "opt": "torch.optim.Optimizer",
    "optimizer": "torch.optim.Optimizer",
    "ctx": CONTEXT,
    "scaler": "torch.amp.GradScaler",
    "scheduler": "torch.optim.lr_scheduler.LRScheduler",
}
_MEMBER = re.compile(r"^    (?:def (\w+)\(|(\w+): )", re.M)


def owner(member: str, variable: str = "") -> str:
    """The class that has this method or attribute, or nothing.

    Args:
        member: such as `view`.
        variable: what stands before it, such as `x` or `model`.
    """
    having = [name for name, found in members().items() if member in found]
    hinted = _HINTS.get(variable, "")
    return hinted if hinted in having else next(iter(having), "")


@cache
def members() -> dict[str, frozenset[str]]:
    """Names of each class; without torch, nothing."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent
    found = {
        name: {member for place in places for member in _of_class(folder, place)}
        for name, places in _CLASSES.items()
    }
    found[TENSOR] |= _of_stub(folder / "_C" / "__init__.pyi")
    return {name: frozenset(n for n in names if n[0] != "_") for name, names in found.items()}


def _of_class(folder: Path, place: str) -> set[str]:
    file, _, name = place.partition(":")
    if not (folder / file).is_file():  # another version of torch
        return set()
    tree = ast.parse((folder / file).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            methods = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
            return methods | set(code_facts.assigned(ast.Module(node.body, [])))
    return set()


def _of_stub(file: Path) -> set[str]:
    """The part of a tensor that is written in C++. Parsing the whole file would take a second."""
    text = file.read_text(encoding="utf-8")
    start = text.index("\nclass TensorBase")
    end = text.find("\nclass ", start + 1)
    return {function or attribute for function, attribute in _MEMBER.findall(text[start:end])}
