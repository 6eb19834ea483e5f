# %% [markdown] lang="pl"
# # Operacje w miejscu i licznik wersji
#
# Operacja w miejscu (*in-place operation*) wpisuje wynik do pamięci swojego wejścia.
# Autograd śledzi takie zapisy licznikiem, ale licznik nie widzi wszystkich. Po tej lekcji
# powiesz, czy zapis skończy się wyjątkiem, poprawnym gradientem, czy wynikiem po cichu
# zepsutym, i ile bajtów naprawdę oszczędza.
#
# ## Blok, który miał niczego nie zmieniać
#
# Blok rezydualny dodaje do wejścia wynik gałęzi. Gdy wagi gałęzi są zerowe, blok powinien
# zwrócić dokładnie swoje wejście. Ktoś wpisał do gałęzi `inplace=True`, żeby oszczędzić pamięć.

# %% [markdown] lang="en"
# # In-place operations and the version counter
#
# An in-place operation writes its result into the memory of its input. Autograd watches
# such writes with a counter, and the counter does not see everything. After this lesson
# you can tell whether a write ends in an exception, in a correct gradient or in a silently
# broken result, and how many bytes it really saves.
#
# ## The block that was meant to change nothing
#
# A residual block adds the output of a branch to its input. If the weights of the branch
# are zero, the block should return exactly its input. Somebody put `inplace=True` into the branch to save memory.

# %% fold=true
import copy
import hashlib
import math
import random
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor, nn
from torch.nn import functional as F

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, ORANGE, PURPLE, RED, show_figure
from snippets.memory import MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)


# %%
class Block(nn.Module):
    """Return h + linear(relu(h)), with zero weights in the linear layer."""

    def __init__(self, width: int, inplace: bool) -> None:
        super().__init__()
        linear = nn.Linear(width, width)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.branch = nn.Sequential(nn.ReLU(inplace=inplace), linear)

    def forward(self, h: Tensor) -> Tensor:  # (batch, width) -> (batch, width)
        result: Tensor = h + self.branch(h)
        return result


stem = nn.Linear(32, 32)
x_in = torch.randn(1000, 32)
changed: dict[bool, float] = {}
for inplace in (False, True):
    h_out = Block(32, inplace)(stem(x_in))
    h_out.sum().backward()
    changed[inplace] = 100 * (h_out != stem(x_in)).float().mean().item()
changed_plain = changed[False]
changed_in_place = changed[True]
print(f"{changed_plain=:.1f} {changed_in_place=:.1f}")
assert changed_plain == 0
assert 45 < changed_in_place < 55

# %% [markdown] lang="pl"
# Zwykły blok nie zmienił ani jednej liczby, a blok z `inplace=True` zmienił
# {{ changed_in_place:.0f }}% liczb. Wyjątku nie było, nawet w przejściu wstecz. Pytanie lekcji:
# **który zapis w miejscu autograd zauważy, który popsuje wynik po cichu i co w zamian
# zyskujesz?**
#
# ## Zapis po fakcie
#
# Zacznijmy od najmniejszego programu: policzmy z `h` dwa wyniki, a dopiero potem zmieńmy `h`.

# %% [markdown] lang="en"
# The plain block changed not a single number, and the block with `inplace=True` changed
# {{ changed_in_place:.0f }}% of the numbers. Nothing raised an exception, not even the
# backward pass. The question of this lesson: **which in-place write does autograd notice,
# which one silently breaks the result, and what do you gain in return?**
#
# ## A write after the fact
#
# Let's start with the smallest program: compute two results from `h`, and only then change `h`.

# %% [markdown] lang="pl" predict="write-after"
# ```python
# w = torch.tensor(2.0, requires_grad=True)
# h = w + 1
# a, b = h**2, h.exp()
# h.mul_(10)
# ```
#
# Które wywołanie zgłosi wyjątek: `a.backward()` czy `b.backward()`?
#
# - [ ] Oba
#
#   Autograd sprawdza tylko te tensory, które operacja zapamiętała, a `exp` nie zapamiętała
#   `h`.
#
# - [x] Tylko `a.backward()`
#
#   Pochodna $h^2$ to $2h$, więc potęga zapamiętała wejście. Pochodna $e^h$ to $e^h$, więc
#   `exp` zapamiętała wynik, którego nikt nie zmienił: gradient wyszedł
#   {{ exp_gradient:.3f }}, czyli taki jak bez zapisu.
#
# - [ ] Żadne: autograd zachował wartości z przejścia w przód
#
#   Potęga zapamiętała tensor `h`, nie kopię jego wartości, a zapis zmienił właśnie ten tensor.

# %% [markdown] lang="en" predict="write-after"
# ```python
# w = torch.tensor(2.0, requires_grad=True)
# h = w + 1
# a, b = h**2, h.exp()
# h.mul_(10)
# ```
#
# Which call raises: `a.backward()` or `b.backward()`?
#
# - [ ] Both
#
#   Autograd checks only the tensors that an operation saved, and `exp` did not save `h`.
#
# - [x] Only `a.backward()`
#
#   The derivative of $h^2$ is $2h$, so the power saved its input. The derivative of $e^h$
#   is $e^h$, so `exp` saved its result, which nobody changed: the gradient came out as
#   {{ exp_gradient:.3f }}, the same as without the write.
#
# - [ ] Neither: autograd kept the values of the forward pass
#
#   The power saved the tensor `h`, not a copy of its values, and the write changed that very
#   tensor.

# %%
w = torch.tensor(2.0, requires_grad=True)
h = w + 1
a, b = h**2, h.exp()
h.mul_(10)
b.backward()
assert w.grad is not None
exp_gradient = w.grad.item()
assert math.isclose(exp_gradient, math.exp(3), rel_tol=1e-6)
print(f"{exp_gradient=:.3f}")

# %% raises="RuntimeError: one of the variables needed for gradient computation has been modified by an inplace operation: [torch.FloatTensor []], which is output 0 of Mul, is at version 1; expected version 0 instead."
a.backward()

# %% [markdown] lang="pl"
# Nazwa `Mul` wskazuje zapis `mul_`, bo samo `h` powstało z dodawania. A skąd wzięły się
# wersje 1 i 0?
#
# ## Czyj to licznik
#
# Tensor ma **licznik wersji** (*version counter*), widoczny jako `_version`. Zapis w miejscu
# zwiększa go o jeden. **Uchwytami** (*handles*) nazwijmy tensory i tablice o wspólnym
# magazynie danych (*storage*). Które z nich mają wspólny licznik, a które tylko pamięć?

# %% [markdown] lang="en"
# The name `Mul` points at the write `mul_`, as `h` itself came from an addition. And where
# did versions 1 and 0 come from?
#
# ## Who shares the counter
#
# A tensor has a **version counter**, visible as `_version`. An in-place write increments it
# by one. We call tensors and arrays over one storage **handles**. Which of them share the
# counter, and which share only the memory?

# %%
x = torch.zeros(4)
handles = {
    "x": x,
    "x[:2]": x[:2],
    "x.detach()": x.detach(),
    "x.data": x.data,
}
x.add_(1)
versions = {name: handle._version for name, handle in handles.items()}
print(versions)
assert versions == {"x": 1, "x[:2]": 1, "x.detach()": 1, "x.data": 0}
assert all(handle[0] == 1 for handle in handles.values())  # one memory


# %% fold=true
def draw_handles(owners: Mapping[str, Tensor]) -> None:
    """Draw which handles lead to which counter; all lead to one storage."""
    fig, ax = plt.subplots(figsize=(7.2, 2.5))
    start = owners["x"].data_ptr()
    assert owners["x"].numpy().ctypes.data == start
    names = [*owners, "x.numpy()"]
    boxes = {1: (3.0, BLUE), 0: (1.0, ORANGE)}  # version: height and colour
    for row, name in enumerate(names):
        at = len(names) - 1 - row
        ax.text(
            5.0, at, name, family="monospace", ha="center", va="center", fontsize=10
        )
        if name in owners:
            assert owners[name].data_ptr() == start
            height, colour = boxes[owners[name]._version]
            ax.plot([6.1, 7.9], [at, height], color=colour)
        ax.plot([3.1, 3.9], [2.0, at], color=GRAY, lw=1.2, ls=":")
    for version, (height, colour) in boxes.items():
        box = FancyBboxPatch((7.9, height - 0.4), 2.3, 0.8, fc="none", ec=colour, lw=2)
        box.set_boxstyle("round", pad=0.05)
        ax.add_patch(box)
        label = f"version {version}"
        ax.text(9.05, height, label, color=colour, ha="center", va="center")
    for cell, value in enumerate(owners["x"].tolist()):
        ax.add_patch(Rectangle((0.7 * cell, 1.6), 0.7, 0.8, fc="none", ec=GRAY))
        ax.text(
            0.35 + 0.7 * cell, 2.0, f"{value:g}", ha="center", va="center", fontsize=9
        )
    ax.text(1.4, 2.75, "one storage", color=GRAY, ha="center")
    ax.set(xlim=(-0.1, 10.4), ylim=(-0.6, 4.6))
    ax.axis("off")
    show_figure(
        fig,
        alt_pl="Pośrodku pięć uchwytów, po lewej jeden magazyn, z którego korzystają "
        "wszystkie. Od x, x[:2] i x.detach() biegną linie do wspólnego licznika z wersją 1, od "
        "x.data do osobnego z wersją 0, a od x.numpy() do żadnego.",
        alt_en="In the middle five handles, on the left the one storage that all use. Lines "
        "lead from x, x[:2] and x.detach() to a shared counter at version 1, from x.data to "
        "one of its own at version 0, and from x.numpy() to none.",
        pl={
            "one storage": "jeden magazyn",
            "version 1": "wersja 1",
            "version 0": "wersja 0",
        },
        same=set(names),
    )


draw_handles(handles)

# %% [markdown] lang="pl"
# Linie ciągłe prowadzą do liczników, kropkowane do pamięci. Widok (*view*) i wynik `detach`
# korzystają z licznika oryginału, atrybut `data` dostał własny, a tablica NumPy nie ma
# żadnego. Zapisy przez dwa ostatnie uchwyty powinny więc zmienić liczby i nie zostawić
# śladu na liczniku `x`.

# %% [markdown] lang="en"
# Solid lines lead to counters, dotted ones to memory. A view and the result of `detach` use
# the counter of the original, the attribute `data` got one of its own, and a NumPy array
# has none. So writes through the last two handles should change the numbers and leave no
# trace on the counter of `x`.

# %%
array = x.numpy()
array[:] = 5
handles["x.data"].mul_(2)
assert x.tolist() == [10.0] * 4  # both writes arrived
assert x._version == 1  # and neither was counted
x[0] = 0
torch.add(x, 1, out=x)
x = x + 1  # a new tensor with a counter of its own
assert (handles["x"]._version, x._version) == (3, 0)

# %% [markdown] lang="pl"
# Oba zapisy zmieniły cztery liczby, a licznik ani drgnął. Przypisanie `x[0] = 0` i zapis
# przez argument `out` już policzył, a instrukcja `x = x + 1` utworzyła nowy tensor z nowym
# licznikiem.
#
# ## Co operacja zapamiętuje
#
# Licznik jest sprawdzany tylko tam, gdzie tensor był potrzebny do gradientu. Operacja
# przechowuje w swoim węźle grafu **zapamiętane tensory** (*saved tensors*) razem z ich
# wersją. Atrybuty `_saved_self` i `_saved_result` mówią, co to było: wejście czy wynik.

# %% [markdown] lang="en"
# Both writes changed the four numbers, and the counter stood still. It did count the
# assignment `x[0] = 0` and the argument `out`, and `x = x + 1` made a new tensor with a new
# counter.
#
# ## What an operation saves
#
# The counter is checked only where the tensor was needed for the gradient. An operation
# stores **saved tensors** in its node of the graph, together with their version. The
# attributes `_saved_self` and `_saved_result` tell what it was: the input or the result.

# %%
Number = Callable[[Tensor], Tensor]
OPERATIONS: dict[str, Number] = {
    "h * 3": lambda h: h * 3,
    "h ** 2": lambda h: h**2,
    "h.sin()": torch.sin,
    "h.exp()": torch.exp,
    "h.sigmoid()": torch.sigmoid,
}


def saves(operation: Number) -> str:
    """Tell whether an operation saves its input, its result or neither of them."""
    node = operation(torch.ones(1, requires_grad=True) * 1).grad_fn
    kinds = {"_saved_self": "input", "_saved_result": "result"}
    held = [
        kinds[name] for name in kinds if isinstance(getattr(node, name, None), Tensor)
    ]
    return held[0] if held else "neither"


saved_by = {name: saves(operation) for name, operation in OPERATIONS.items()}
print(saved_by)
assert list(saved_by.values()) == ["neither", "input", "input", "result", "result"]

# %% [markdown] lang="pl"
# Teraz pełna tabela: pięć operacji i sześć zapisów. Zapis następuje zawsze po policzeniu
# `y`, a potem nikt już zmienionego tensora nie czyta, więc prawdziwy gradient to ten bez
# zapisu. Pomijamy `y.mul_(10)`: taki zapis trafia do grafu i zmienia samą funkcję.

# %% [markdown] lang="en"
# Now the whole table: five operations and six writes. The write always comes after `y` has
# been computed, and nobody reads the changed tensor afterwards, so the true gradient is the
# one without the write. We leave out `y.mul_(10)`: recorded in the graph, it changes the
# function itself.

# %%
Write = Callable[[Tensor, Tensor], object]
WRITES: dict[str, Write] = {
    "h.mul_(10)": lambda h, y: h.mul_(10),
    "h.detach().mul_(10)": lambda h, y: h.detach().mul_(10),
    "h.data.mul_(10)": lambda h, y: h.data.mul_(10),
    "h.detach().numpy()[:] *= 10": lambda h, y: h.detach().numpy().__imul__(10),
    "y.detach().mul_(10)": lambda h, y: y.detach().mul_(10),
    "y.data.mul_(10)": lambda h, y: y.data.mul_(10),
}


def gradient(operation: Number, write: Write) -> float | str:
    """Write after the forward pass; return dy/dw at w = 2, or the message of the error."""
    w = torch.tensor([2.0], requires_grad=True)
    h = w * 1  # a tensor that may be written to; a leaf may not
    y = operation(h)
    write(h, y)
    try:
        return torch.autograd.grad(y, w, torch.ones_like(y))[0].item()
    except RuntimeError as error:
        return str(error)


def outcome(operation: Number, write: Write) -> str:
    truth = gradient(operation, lambda h, y: None)
    got = gradient(operation, write)
    if isinstance(got, str):
        assert "has been modified by an inplace operation" in got
        return "error"
    assert isinstance(truth, float)
    return "right" if math.isclose(got, truth, rel_tol=1e-6) else "wrong"


table = [[outcome(f, write) for write in WRITES.values()] for f in OPERATIONS.values()]
untouched = ["right"] * 4
tracked = ["error", "error", "wrong", "wrong"]
assert table == [
    [*untouched, "right", "right"],  # saves neither
    [*tracked, "right", "right"],  # saves its input
    [*tracked, "right", "right"],
    [*untouched, "error", "wrong"],  # saves its result
    [*untouched, "error", "wrong"],
]
wrong_square = gradient(OPERATIONS["h ** 2"], WRITES["h.data.mul_(10)"])
right_square = gradient(OPERATIONS["h ** 2"], lambda h, y: None)
print(f"{right_square=} {wrong_square=}")
assert (right_square, wrong_square) == (4, 40)
assert gradient(OPERATIONS["h * 3"], lambda h, y: y.mul_(10)) == 30  # of 30 * h

# %% fold=true
looks = {"right": (GREEN, "✓"), "error": (BLUE, "!"), "wrong": (RED, "✗")}
fig, ax = plt.subplots(figsize=(7.2, 3.2))
for i, cells in enumerate(table):
    for j, cell in enumerate(cells):
        colour, sign = looks[cell]
        at = (j + 0.05, len(table) - 1 - i + 0.05)
        ax.add_patch(Rectangle(at, 0.9, 0.9, fc=colour, alpha=0.25, ec=colour, lw=1.5))
        ax.text(
            j + 0.5, len(table) - i - 0.5, f"{sign} {cell}", ha="center", va="center"
        )
ax.set(xlim=(0, len(WRITES)), ylim=(0, len(table)))
ax.set_xticks(
    [j + 0.5 for j in range(len(WRITES))], list(WRITES), rotation=25, ha="right"
)
labels = [f"{name}\nsaves: {saved_by[name]}" for name in OPERATIONS]
ax.set_yticks([len(table) - i - 0.5 for i in range(len(table))], labels)
ax.tick_params(length=0, labelsize=9)
ax.spines[:].set_visible(False)
polish_saved = {"input": "wejście", "result": "wynik", "neither": "żadne z nich"}
show_figure(
    fig,
    alt_pl="Tabela: pięć operacji w wierszach, sześć zapisów w kolumnach. Wyjątek pojawia "
    "się tylko tam, gdzie zapis przez mul_ lub detach trafia w zapamiętany tensor. Zapisy "
    "przez data i NumPy w tych samych miejscach dają zły gradient bez wyjątku.",
    alt_en="A table with five operations as rows and six writes as columns. An error "
    "appears only where a write through mul_ or detach hits the saved tensor. Writes "
    "through data and NumPy in the same places give a wrong gradient without an error.",
    pl={
        "✓ right": "✓ dobrze",
        "! error": "! wyjątek",
        "✗ wrong": "✗ źle",
        **{
            label: f"{name}\nzapamiętuje: {polish_saved[saved_by[name]]}"
            for name, label in zip(OPERATIONS, labels, strict=True)
        },
    },
    same=set(WRITES),
)

# %% [markdown] lang="pl"
# Cała tabela wynika z dwóch pytań. Czy zapis trafił w tensor, który operacja zapamiętała?
# Jeśli nie, gradient jest poprawny. Czy zapis było widać na liczniku? Jeśli tak, dostajesz
# wyjątek, a jeśli nie, gradient policzony ze zmienionej liczby: dla `h ** 2` i zapisu przez
# `data` wyszło {{ wrong_square:.0f }} zamiast {{ right_square:.0f }}.
#
# W źródłach PyTorcha wersję zapisuje i porównuje klasa `SavedVariable` (plik
# `saved_variable.cpp`), a o tym, co operacja zapamiętuje, decyduje jej wzór w pliku
# `derivatives.yaml`.
#
# Blok z początku lekcji odpada na wcześniejszym pytaniu: **czy przejście w przód przeczyta
# jeszcze zmieniony tensor?** Przeczyta go dodawanie.

# %% [markdown] lang="en"
# The whole table follows from two questions. Did the write hit a tensor that the operation
# saved? If not, the gradient is right. Was the write visible on the counter? If so, you get
# an exception; if not, a gradient computed from the changed number: for `h ** 2` and the
# write through `data` it came out as {{ wrong_square:.0f }} instead of
# {{ right_square:.0f }}.
#
# In PyTorch's source the class `SavedVariable` stores and compares the version (in
# `saved_variable.cpp`), and what an operation saves is decided by its formula in
# `derivatives.yaml`.
#
# The block from the beginning fails at an earlier question: **will the forward pass still
# read the changed tensor?** The addition will.

# %%
h = stem(x_in)
linear_node, plain_version, negative = h.grad_fn, h._version, h < 0
F.relu_(h)
relu_node: Any = h.grad_fn
print(relu_node.name(), plain_version, "->", h._version)
assert (plain_version, h._version) == (0, 1)  # counted
assert not hasattr(linear_node, "_saved_result")
assert relu_node._saved_result.data_ptr() == h.data_ptr()  # saved, at version 1


def stem_gradient(result: Tensor) -> Tensor:
    return torch.autograd.grad(result.sum(), stem.weight)[0]


broken = Block(32, True)(stem(x_in))
assert torch.equal(broken, F.relu(stem(x_in)))
assert changed_in_place == 100 * negative.float().mean().item()
got = stem_gradient(broken)
assert torch.allclose(got, stem_gradient(F.relu(stem(x_in))))
assert not torch.allclose(got, stem_gradient(stem(x_in)))

# %% [markdown] lang="pl"
# Operacja `relu_` zwiększyła licznik z 0 do 1, ale tensora w wersji 0 nikt nie zapamiętał:
# warstwa `Linear` swojego wyniku nie potrzebuje. Pierwsza zapamiętała go sama `relu_`, już w
# wersji 1, więc sprawdzenie w przejściu wstecz niczego nie zgłasza. Blok zwrócił `relu(h)`
# zamiast `h`: wyzerował liczby ujemne, czyli {{ changed_in_place:.0f }}%. Gradient jest
# poprawny, ale dla `relu(h)`.
#
# ## Licznik wersji od zera
#
# Zbudujmy ten mechanizm dla jednej liczby: pamięć, licznik, uchwyt i operacje, które
# zapamiętują wejście, wynik albo żadne z nich.

# %% [markdown] lang="en"
# The operation `relu_` incremented the counter from 0 to 1, but nobody had saved the tensor
# at version 0: the `Linear` layer does not need its result. The first to save it was `relu_`
# itself, already at version 1, so the check in the backward pass reports nothing. The block
# returned `relu(h)` instead of `h`: it zeroed the negative numbers,
# {{ changed_in_place:.0f }}% of all. The gradient is correct, but for `relu(h)`.
#
# ## The version counter from scratch
#
# Let's build this mechanism for a single number: memory, a counter, a handle, and
# operations that save their input, their result or neither.


# %%
@dataclass
class Version:
    count: int = 0


@dataclass(frozen=True)
class Handle:
    """A number in memory: `cell` is its storage, of one element."""

    cell: list[float]
    version: Version = field(default_factory=Version)

    def detach(self) -> "Handle":
        return Handle(self.cell, self.version)

    @property
    def data(self) -> "Handle":
        return Handle(self.cell)  # the same memory, a counter of its own

    def mul_(self, factor: float) -> None:
        self.cell[0] *= factor
        self.version.count += 1


@dataclass(frozen=True)
class Operation:
    forward: Callable[[float], float]
    slope: Callable[[float], float]  # a function of what was saved
    saves: Literal["input", "result", "neither"]


MINI = {
    "h * 3": Operation(lambda h: 3 * h, lambda _: 3.0, "neither"),
    "h ** 2": Operation(lambda h: h * h, lambda h: 2 * h, "input"),
    "h.sin()": Operation(math.sin, math.cos, "input"),
    "h.exp()": Operation(math.exp, lambda y: y, "result"),
    "h.sigmoid()": Operation(
        lambda h: 1 / (1 + math.exp(-h)), lambda y: y * (1 - y), "result"
    ),
}


@dataclass(frozen=True)
class Node:
    operation: Operation
    saved: Handle
    saved_version: int

    @classmethod
    def record(cls, operation: Operation, h: Handle, y: Handle) -> "Node":
        saved = y if operation.saves == "result" else h
        return cls(operation, saved, saved.version.count)

    def slope(self) -> float:
        now, then = self.saved.version.count, self.saved_version
        if self.operation.saves != "neither" and now != then:
            raise RuntimeError(f"is at version {now}; expected version {then} instead")
        return self.operation.slope(self.saved.cell[0])


# %% [markdown] lang="pl"
# Wzorcem jest PyTorch. Losowy program to łańcuch trzech operacji, po którym następują
# najwyżej dwa zapisy do wejścia albo do wyników pośrednich. Porównujemy gradient, a przy
# wyjątku obie wersje z komunikatu.

# %% [markdown] lang="en"
# PyTorch is the oracle. A random program is a chain of three operations, followed by at
# most two writes to the input or to intermediate results. We compare the gradient or, if
# there is an exception, both versions from its message.


# %% fold=true
@dataclass(frozen=True)
class Program:
    start: float
    chain: tuple[str, ...]
    writes: tuple[tuple[int, str, float], ...]  # which value, through what, factor


def random_program(rng: random.Random) -> Program:
    chain = tuple(rng.choice(list(MINI)) for _ in range(3))
    writes = tuple(
        (
            rng.randrange(3),
            rng.choice(("mul_", "detach", "data")),
            rng.choice((0.5, 1.0, 2.0)),
        )
        for _ in range(rng.randint(0, 2))
    )
    return Program(rng.uniform(0.1, 1.0), chain, writes)


def mini(program: Program) -> float | str:
    values, nodes = [Handle([program.start])], []
    for name in program.chain:
        values.append(Handle([MINI[name].forward(values[-1].cell[0])]))
        nodes.append(Node.record(MINI[name], values[-2], values[-1]))
    for index, way, factor in program.writes:
        h = values[index]
        {"mul_": h, "detach": h.detach(), "data": h.data}[way].mul_(factor)
    try:
        return math.prod(node.slope() for node in reversed(nodes))
    except RuntimeError as error:
        return str(error)


def oracle(program: Program) -> float | str:
    w = torch.tensor(program.start, dtype=torch.float64, requires_grad=True)
    values = [w * 1]
    for name in program.chain:
        values.append(OPERATIONS[name](values[-1]))
    result = values[-1]
    for index, way, factor in program.writes:
        h = values[index]
        {"mul_": h, "detach": h.detach(), "data": h.data}[way].mul_(factor)
    try:
        return torch.autograd.grad(result, w)[0].item()
    except RuntimeError as error:
        return str(error)


# %%
tried = 1000
rng = random.Random(0)
programs = [random_program(rng) for _ in range(tried)]
agreed = raised = 0
for program in programs:
    ours, theirs = mini(program), oracle(program)
    if isinstance(ours, str):
        raised += 1
        agreed += isinstance(theirs, str) and ours in theirs
    else:
        agreed += isinstance(theirs, float) and math.isclose(ours, theirs, rel_tol=1e-9)
print(f"{agreed=} of {tried}, {raised=}")
assert agreed == tried
assert 100 < raised < 900
assert isinstance(gradient(OPERATIONS["h ** 2"], lambda h, y: h.mul_(1)), str)

# %% [markdown] lang="pl"
# Wyniki zgadzają się w {{ agreed }} programach na {{ tried }}. Wyjątków, z tymi samymi
# numerami wersji, było {{ raised }}. Licznik nie wie, czy wartość naprawdę się zmieniła: dla
# `h ** 2` nawet zapis `h.mul_(1)` kończy się wyjątkiem.
#
# ## Ile bajtów oszczędza `inplace=True`
#
# Flaga ma oszczędzać pamięć. Oszczędza? W klasie `MemoryMeter` atrybut `live` to bajty
# tensorów żywych w tej chwili, a `peak` to największa dotąd wartość `live`. Sieć to osiem
# warstw `Linear` o szerokości 256, każda z `ReLU` na wyjściu, a partia (*batch*) ma 512
# wierszy: jedna aktywacja zajmuje {{ activation_bytes }} B.

# %% [markdown] lang="en"
# The results agree on {{ agreed }} of {{ tried }} programs. There were {{ raised }}
# exceptions, with the same version numbers. The counter does not know whether the value
# really changed: for `h ** 2` even the write `h.mul_(1)` ends in an exception.
#
# ## How many bytes `inplace=True` saves
#
# The flag is meant to save memory. Does it? In the class `MemoryMeter` the attribute `live`
# is the bytes of tensors that are alive now, and `peak` is the highest value of `live` so
# far. The network has eight `Linear` layers of width 256, each with `ReLU` on its output,
# and the batch has 512 rows: one activation takes {{ activation_bytes }} B.

# %% [markdown] lang="pl" predict="inplace-bytes"
# O ile niższy będzie szczyt pamięci w całym kroku treningu (przejście w przód i wstecz)
# z `inplace=True`?
#
# - [ ] Prawie o połowę: `ReLU` nie tworzy drugiego tensora
#
#   Drugi tensor powstaje, ale pierwszy zaraz znika: `ReLU` zapamiętuje wynik, a wyniku
#   warstwy `Linear` nikt nie zapamiętał. Po przejściu w przód obie sieci trzymają
#   {{ live_plain }} B.
#
# - [ ] O jedną aktywację
#
#   Tak jest w samym przejściu w przód: {{ forward_plain }} B wobec {{ forward_in_place }} B.
#   Szczyt całego kroku wypada jednak w przejściu wstecz.
#
# - [x] O zero: będzie taki sam
#
#   Szczyt kroku to {{ step_plain }} B w obu sieciach: osiem zapamiętanych aktywacji, dwie
#   robocze i gradienty parametrów ostatniej warstwy `Linear`. Wypada na początku przejścia
#   wstecz.

# %% [markdown] lang="en" predict="inplace-bytes"
# How much lower is the memory peak of a whole training step (forward and backward) with
# `inplace=True`?
#
# - [ ] Almost by half: `ReLU` does not make a second tensor
#
#   The second tensor is made, but the first one disappears at once: `ReLU` saves its
#   result, and nobody saved the result of the `Linear` layer. After the forward pass both
#   networks hold {{ live_plain }} B.
#
# - [ ] By one activation
#
#   That is so in the forward pass alone: {{ forward_plain }} B against
#   {{ forward_in_place }} B. The peak of the whole step, however, falls in the backward pass.
#
# - [x] By zero: it will be the same
#
#   The peak of the step is {{ step_plain }} B in both networks: eight saved activations, two
#   temporary ones, and the gradients of the last `Linear` layer's parameters. It falls at the
#   start of the backward pass.


# %% fold=true
@dataclass(frozen=True)
class Bytes:
    live: int  # after the forward pass
    forward: int  # peak of the forward pass
    step: int  # peak of forward and backward


def training_bytes(net: nn.Module, x: Tensor, keep: bool) -> Bytes:
    with MemoryMeter() as meter:
        y = net(x)
        live, forward = meter.live, meter.peak
        y.sum().backward(retain_graph=keep)
    return Bytes(live, forward, meter.peak)


def stack(make: Callable[[], nn.Module], *, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(256, 256)]
        layers += [nn.BatchNorm1d(256)] if norm else []
        layers += [make()]
    return nn.Sequential(*layers)


def both(
    make: Callable[[bool], nn.Module], *, keep: bool = False
) -> tuple[Bytes, Bytes]:
    """Measure the network without and with `inplace=True`."""
    plain, in_place = (
        training_bytes(make(flag), batch, keep) for flag in (False, True)
    )
    return plain, in_place


# %%
batch = torch.randn(512, 256)
activation_bytes = batch.nbytes
plain, in_place = both(lambda flag: stack(lambda: nn.ReLU(flag)))
live_plain, forward_plain, step_plain = plain.live, plain.forward, plain.step
forward_in_place = in_place.forward
print(plain, in_place, sep="\n")
assert (plain.live, plain.step) == (in_place.live, in_place.step)
assert plain.live == 8 * activation_bytes  # the eight results of relu
assert plain.step > plain.forward
layer_bytes = 4 * (256 * 256 + 256)  # gradient of one layer; 8 more: loss and its own
assert plain.step == 10 * activation_bytes + layer_bytes + 8
assert plain.forward - in_place.forward == activation_bytes

normed, normed_in_place = both(lambda flag: stack(lambda: nn.ReLU(flag), norm=True))
print(f"{normed.step=} {normed_in_place.step=}")
assert (normed.live, normed.step) == (normed_in_place.live, normed_in_place.step)
block, block_in_place = both(
    lambda flag: nn.Sequential(nn.Linear(256, 256), Block(256, flag))
)
print(f"{block.step=} {block_in_place.step=}")
assert (block.live, block.step) == (block_in_place.live, block_in_place.step)

# %% [markdown] lang="pl"
# Z `BatchNorm1d` między warstwami szczyty kroku też są równe. W bloku rezydualnym z początku
# lekcji flaga zmieniła {{ changed_in_place:.0f }}% liczb i nie obniżyła szczytu kroku ani o
# bajt.
#
# Czy flaga nigdy nie pomaga? Mechanizm podpowiada, gdzie szukać: tam, gdzie wersja w miejscu
# zapamiętuje **co innego** niż zwykła.

# %% [markdown] lang="en"
# With `BatchNorm1d` between the layers the peaks of the step are equal, too. In the residual
# block from the beginning the flag changed {{ changed_in_place:.0f }}% of the numbers and did
# not lower the step's peak by a single byte.
#
# Does the flag never help? The mechanism suggests where to look: where the in-place variant
# saves something **different** from the plain one.

# %%
leaky_saves = saves(F.leaky_relu), saves(F.leaky_relu_)
relu_saves = saves(F.relu), saves(F.relu_)
make_leaky = lambda flag: stack(lambda: nn.LeakyReLU(0.01, flag))  # noqa: E731
leaky, leaky_in_place = both(make_leaky)
leaky_saving = 100 * (1 - leaky_in_place.step / leaky.step)
print(f"{relu_saves=} {leaky_saves=}", leaky, leaky_in_place, sep="\n")
assert relu_saves == ("result", "result")
assert leaky_saves == ("input", "result")
assert leaky.live == 2 * leaky_in_place.live == 16 * activation_bytes
assert 30 < leaky_saving < 50
assert leaky.step - leaky_in_place.step == 7 * activation_bytes
whole, whole_in_place = both(make_leaky, keep=True)  # nothing is freed on the way
assert whole.step - whole_in_place.step == 8 * activation_bytes

# %% fold=true
groups = {
    "ReLU: forward": (forward_plain, forward_in_place),
    "ReLU: whole step": (step_plain, in_place.step),
    "LeakyReLU: whole step": (leaky.step, leaky_in_place.step),
}
fig, ax = plt.subplots(figsize=(7.2, 2.4))
for place, pair in enumerate(groups.values()):
    for offset, value, colour in zip((0.19, -0.19), pair, (GRAY, PURPLE), strict=True):
        level, length = -place + offset, value / activation_bytes
        ax.barh(level, length, height=0.34, color=colour)
        ax.text(length + 0.15, level, f"{length:.1f}", va="center")
ax.set_yticks([0, -1, -2], list(groups))
ax.set(xlabel="peak, in activations", xlim=(0, 20))
ax.text(19.8, -0.1, "inplace=False", color=GRAY, family="monospace", ha="right")
ax.text(19.8, -0.5, "inplace=True", color=PURPLE, family="monospace", ha="right")
show_figure(
    fig,
    alt_pl="Trzy pary słupków ze szczytem pamięci. W przejściu w przód z ReLU słupek z "
    "inplace=True jest krótszy o jedną aktywację, w całym kroku oba są równe. Z LeakyReLU "
    "jest w całym kroku krótszy o prawie połowę.",
    alt_en="Three pairs of bars with the memory peak. In the forward pass with ReLU the bar "
    "with inplace=True is shorter by one activation, in the whole step both are equal. With "
    "LeakyReLU it is shorter by almost half in the whole step.",
    pl={
        "ReLU: forward": "ReLU: w przód",
        "ReLU: whole step": "ReLU: cały krok",
        "LeakyReLU: whole step": "LeakyReLU: cały krok",
        "peak, in activations": "szczyt, w aktywacjach",
    },
    same={"inplace=False", "inplace=True"},
)

# %% [markdown] lang="pl"
# Na wykresie flaga skraca słupek `ReLU` o jedną aktywację w przejściu w przód i o zero w całym
# kroku, a słupek `LeakyReLU` o {{ leaky_saving:.0f }}%. Funkcja `leaky_relu` zapamiętuje
# wejście, więc obok wyniku żyje drugi tensor. Jej wersja w miejscu nadpisała wejście, więc
# zapamiętuje wynik. Po przejściu w przód oszczędza osiem aktywacji, a w szczycie siedem, bo
# przejście wstecz zwalnia po drodze zapamiętane tensory: z `retain_graph=True` też jest osiem.
#
# ## Co się psuje i jak to zauważyć
#
# Liści grafu (*leaf tensors*), które wymagają gradientu, autograd broni od razu, bez czekania
# na przejście wstecz: po zapisie odnotowanym w grafie parametr przestałby być liściem.

# %% [markdown] lang="en"
# In the chart the flag shortens the `ReLU` bar by one activation in the forward pass and by
# zero in the whole step, and the `LeakyReLU` bar by {{ leaky_saving:.0f }}%. The function
# `leaky_relu` saves its input, so a second tensor lives beside the result. Its in-place
# variant has overwritten the input, so it saves the result. That spares eight activations after
# the forward pass and seven at the peak, because the backward pass frees saved tensors on the
# way: with `retain_graph=True` it is eight, too.
#
# ## What breaks and how to notice
#
# Autograd protects leaf tensors that require a gradient at once, without waiting for the
# backward pass: after a recorded write a parameter would no longer be a leaf.

# %% raises="RuntimeError: a leaf Variable that requires grad is being used in an in-place operation."
weight = torch.ones(3, requires_grad=True)
with torch.no_grad():
    weight -= 0.1  # like a plain optimizer step: not recorded, but counted
assert (weight.is_leaf, weight._version) == (True, 1)
weight -= 0.1

# %% [markdown] lang="pl"
# Krok `SGD` między przejściem w przód a przejściem wstecz licznik wykryje, jeśli przejście w
# przód zapamiętało wagę, jak w wyrażeniu `w**2`. Natomiast `SGD(fused=True)` zmienia wagi, a
# licznika nie zwiększa (CPU, PyTorch {{ torch_version }}).

# %% [markdown] lang="en"
# A step of `SGD` between the forward and the backward pass is caught by the counter if the
# forward pass saved the weight, as in the expression `w**2`. But `SGD(fused=True)` changes
# the weights and does not increment the counter (CPU, PyTorch {{ torch_version }}).


# %%
def step_too_early(*, fused: bool) -> float | str:
    """Step before backward: the gradient of the sum of squares at 2, or the error."""
    w = torch.full((1,), 2.0, requires_grad=True)
    loss = (w**2).sum()
    w.grad = torch.ones(1)
    torch.optim.SGD([w], lr=1.0, fused=fused).step()  # w is 1 now
    assert w.item() == 1 and w._version == (0 if fused else 1)
    try:
        return torch.autograd.grad(loss, w)[0].item()
    except RuntimeError as error:
        return str(error)


caught_step = step_too_early(fused=False)
fused_gradient = step_too_early(fused=True)
print(f"{fused_gradient=}")
assert isinstance(caught_step, str) and "is at version 1" in caught_step
assert fused_gradient == 2.0  # true: 4
torch_version = torch.__version__.split("+")[0]

# %% [markdown] lang="pl"
# Gradient wyniósł {{ fused_gradient:.0f }} zamiast 4, bez wyjątku.
#
# Poza grafem zapisów nie pilnuje nikt. Zbiór danych, który normalizuje próbkę w miejscu, zmienia
# własną pamięć podręczną. W następnej epoce normalizuje liczby już znormalizowane. A
# słownik `state_dict()` nie jest kopią wag, tylko zbiorem uchwytów do nich.

# %% [markdown] lang="en"
# The gradient came out as {{ fused_gradient:.0f }} instead of 4, with no exception.
#
# Outside the graph nobody watches writes. A data set that normalises a sample in place changes
# its own cache. In the next epoch it normalises numbers that are normalised already. And
# the dictionary `state_dict()` is not a copy of the weights but a set of handles to them.


# %%
@dataclass(frozen=True)
class Cached:
    rows: Tensor  # (samples, features)

    def __getitem__(self, index: int) -> Tensor:
        x = self.rows[index]  # a view
        x -= 5
        x /= 3
        return x


dataset = Cached(5 + 3 * torch.randn(1000, 8))
epoch_means = []
for _ in range(3):
    epoch = torch.stack([dataset[i] for i in range(1000)])
    epoch_means.append(epoch.mean().item())
first_mean, second_mean, third_mean = epoch_means
print([round(mean, 2) for mean in epoch_means])
assert abs(first_mean) < 0.1
assert math.isclose(second_mean, (first_mean - 5) / 3, abs_tol=1e-4)
assert third_mean < -2

model = nn.Linear(2, 2)
best, kept = model.state_dict(), copy.deepcopy(model.state_dict())
with torch.no_grad():
    model.weight.add_(1)
assert torch.equal(best["weight"], model.weight)  # "the best weights" moved along
assert torch.equal(kept["weight"] + 1, model.weight)

# %% [markdown] lang="pl"
# Średnie z kolejnych epok to {{ first_mean:.2f }}; {{ second_mean:.2f }} i
# {{ third_mean:.2f }}. Pierwszą pomyłkę naprawisz w brązowym ćwiczeniu, a przed drugą chroni
# `copy.deepcopy`.
#
# Strażnik (*guard*), którego możesz wkleić do swojego kodu, porównuje tensory podane każdemu
# modułowi przed wywołaniem i po nim. Używa kopii, więc zobaczy także zapis przez NumPy.
# Modułów, które same deklarują `inplace=True`, nie sprawdza, bo w łańcuchu `Linear`,
# `ReLU(inplace=True)` nikt więcej tego tensora nie czyta. Alarm wywołuje dopiero moduł, który
# ma je w środku i zmienił **swoje** wejście.

# %% [markdown] lang="en"
# The means of consecutive epochs are {{ first_mean:.2f }}, {{ second_mean:.2f }} and
# {{ third_mean:.2f }}. You will repair the first mistake in the brown exercise;
# `copy.deepcopy` protects from the second.
#
# A guard that you can paste into your code compares the tensors given to every module before
# and after the call. It uses copies, so it also sees a write through NumPy. It skips modules
# that declare `inplace=True` themselves, because in the chain `Linear`, `ReLU(inplace=True)`
# nobody else reads that tensor. The alarm comes from the module that contains them and has
# changed **its own** input.


# %%
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def inputs_untouched(model: nn.Module) -> Iterator[None]:
    """Raise if a module changes a tensor that it was given. For one batch: it copies."""
    before: list[list[Tensor]] = []

    def tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        return [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before.append([a.detach().clone() for a in tensors(args, kwargs)])

    def leave(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: object
    ) -> None:
        for old, new in zip(before.pop(), tensors(args, kwargs), strict=True):
            if not torch.allclose(old, new.detach(), rtol=0, atol=0, equal_nan=True):
                raise RuntimeError(f"{names[module]} changed its input in place")

    names = {module: name or "model" for name, module in model.named_modules()}
    hooks = []
    for module in names:
        if not getattr(module, "inplace", False):
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# %%
def alarm(model: nn.Module) -> str:
    try:
        with inputs_untouched(model):
            model(torch.randn(4, 32))
    except RuntimeError as error:
        return str(error)
    return "no alarm"


class Sneaky(nn.Module):
    """Write through something that no counter sees."""

    def forward(self, h: Tensor) -> Tensor:
        np.abs(h.detach().numpy(), out=h.detach().numpy())
        return h + 1


alarms = [alarm(nn.Sequential(stem, layer)) for layer in (Block(32, True), Sneaky())]
print(*alarms, sep="\n")
assert alarms == [f"{name} changed its input in place" for name in ("1.branch", "1")]
for silent in (Block(32, False), nn.ReLU(inplace=True)):
    assert alarm(nn.Sequential(stem, silent)) == "no alarm"

# %% [markdown] lang="pl"
# Strażnik ma trzy martwe pola: zapis do tensora, który metoda `forward` utworzyła sama, zapis
# po przejściu w przód i tensory podane w listach lub słownikach. Bywa też nadgorliwy: zgłosi
# `Sequential`, który zaczyna się od `ReLU(inplace=True)`, choćby nikt więcej nie czytał jego
# wejścia.

# %% [markdown] lang="en"
# The guard has three blind spots: a write to a tensor that `forward` made itself, a write
# after the forward pass, and tensors passed in lists or dictionaries. It can also be
# overzealous: it reports a `Sequential` that starts with `ReLU(inplace=True)`, even if nobody
# else reads its input.


# %% fold=true
class Unseen(nn.Module):
    def forward(self, x: Tensor, hidden: tuple[object, ...] = ()) -> Tensor:
        h: Tensor = stem(x)
        for group in hidden:  # a list and a dictionary
            group[0].zero_()  # type: ignore[index]
        return h + F.relu_(h)  # h was made in this very method


given, listed, keyed = torch.ones(4, 32), torch.ones(1), torch.ones(1)
with inputs_untouched(unseen := Unseen()):  # no alarm
    unseen(given, ([listed], {0: keyed}))
    given.zero_()
assert not (given.any() or listed.any() or keyed.any())
harmless = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(32, 32))
assert alarm(nn.Sequential(stem, harmless)) == "1 changed its input in place"

# %% [markdown] lang="pl"
# Gdy zapis z zewnątrz jest zamierzony, na przykład we własnym jądrze obliczeniowym (*kernel*), możesz
# go zgłosić: `torch.autograd.graph.increment_version` zwiększa licznik. Cichy zapis przez
# NumPy kończy się wtedy wyjątkiem.

# %% [markdown] lang="en"
# If a write from outside is intended, for example in a kernel of your own, you can announce
# it: `torch.autograd.graph.increment_version` increments the counter. The silent write
# through NumPy then ends in an exception.


# %%
def announced(h: Tensor, _: Tensor) -> None:
    h.detach().numpy().__imul__(10)
    torch.autograd.graph.increment_version(h)


message = gradient(OPERATIONS["h ** 2"], announced)
assert isinstance(message, str)
assert "is at version 1; expected version 0" in message
no_data = torch.zeros(4, device="meta")
assert no_data.add_(1)._version == 1

# %% [markdown] lang="pl"
# Licznik należy do opisu tensora, nie do jego danych: ma go nawet tensor z urządzenia `meta`,
# które danych nie przechowuje. Wszystkie przebiegi na tej stronie pochodzą z CPU.
#
# ## Co już umiesz
#
# - Powiesz, czy operacja zapamiętuje wejście, wynik, czy nic, i przewidzisz skutek zapisu.
# - Rozpoznasz zapisy, których licznik nie widzi (`data`, NumPy, `SGD(fused=True)`), i takie,
#   które policzył, zanim ktokolwiek tensor zapamiętał: `relu_` przed dodawaniem.
# - Nie włączysz `inplace=True` tam, gdzie grozi błędem, a nie oszczędza ani bajta.
#
# Wcześniej: [indeksowanie zaawansowane](04_advanced_indexing.py), czyli zapisy z
# powtórzonym indeksem. Dalej: [einops](06_einops.py). Dokumentacja:
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html). Źródła:
# [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp),
# [`derivatives.yaml`](https://github.com/pytorch/pytorch/blob/v2.15.0/tools/autograd/derivatives.yaml).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# The counter belongs to the description of a tensor, not to its data: even a tensor on the
# `meta` device, which stores no data, has one. All runs on this page come from a CPU.
#
# ## Now you can
#
# - Tell whether an operation saves its input, its result or nothing, and predict what a
#   write does.
# - Recognise the writes that the counter does not see (`data`, NumPy, `SGD(fused=True)`), and
#   those that it counted before anybody saved the tensor: `relu_` before an addition.
# - Leave `inplace=True` off where it risks a bug and does not save a byte.
#
# Before this: [advanced indexing](04_advanced_indexing.py), on writes with repeated
# indices. Next: [einops](06_einops.py). Documentation:
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html). Source:
# [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp),
# [`derivatives.yaml`](https://github.com/pytorch/pytorch/blob/v2.15.0/tools/autograd/derivatives.yaml).
#
# ## Belts: test yourself


# %% [markdown] lang="pl" exercise="predict-outcomes" role="prompt" belt="white" minutes=8
# ### Biały: przewidź wynik zapisu
#
# Dla każdej pary operacji i zapisu wpisz `"right"` (gradient poprawny), `"error"` (wyjątek)
# albo `"wrong"` (zły gradient bez wyjątku). Jak w tabeli, zapis następuje po policzeniu `y`, a
# `h` jest dodatnie.

# %% [markdown] lang="en" exercise="predict-outcomes" role="prompt" belt="white" minutes=8
# ### White: predict what a write does
#
# For each pair of an operation and a write enter `"right"` (a correct gradient), `"error"` (an
# exception) or `"wrong"` (a wrong gradient without an exception). As in the table, the write
# comes after `y` has been computed, and `h` is positive.

# %% exercise="predict-outcomes" role="starter"
answers = {
    ("h + 3", "h.data.mul_(10)"): "",
    ("h * h", "h.mul_(10)"): "",
    ("h * h", "h.data.mul_(10)"): "",
    ("h.log()", "h.detach().mul_(10)"): "",
    ("h.tanh()", "h.mul_(10)"): "",
    ("h.tanh()", "y.data.mul_(10)"): "",
    ("h.sqrt()", "y.detach().mul_(10)"): "",
    ("h.relu()", "y.data.mul_(10)"): "",
}  # your answers

# %% exercise="predict-outcomes" role="check"
asked: dict[str, Number] = {
    "h + 3": lambda h: h + 3,
    "h * h": lambda h: h * h,
    "h.log()": torch.log,
    "h.tanh()": torch.tanh,
    "h.sqrt()": torch.sqrt,
    "h.relu()": torch.relu,
}
pairs_asked = [
    ("h + 3", "h.data.mul_(10)"),
    ("h * h", "h.mul_(10)"),
    ("h * h", "h.data.mul_(10)"),
    ("h.log()", "h.detach().mul_(10)"),
    ("h.tanh()", "h.mul_(10)"),
    ("h.tanh()", "y.data.mul_(10)"),
    ("h.sqrt()", "y.detach().mul_(10)"),
    ("h.relu()", "y.data.mul_(10)"),
]
assert list(answers) == pairs_asked, say(
    pl="odpowiedz na osiem podanych pytań", en="answer the eight questions given"
)
for (name, written), answer in answers.items():
    correct = outcome(asked[name], WRITES[written])
    held = saves(asked[name])
    held_pl = {"neither": "żadne z nich", "input": "wejście", "result": "wynik"}[held]
    assert str(answer) == correct, say(
        pl=f"{name}, potem {written}: „{answer}” się nie zgadza; {name} zapamiętuje: "
        f"{held_pl}; czy licznik widzi zapis i czy gradient się od niego zmieni?",
        en=f"{name}, then {written}: “{answer}” does not hold; {name} saves: {held}; does "
        "the counter see the write, and does the gradient change with it?",
    )

# %% [markdown] lang="pl" exercise="predict-outcomes" role="hint"
# Napisz wzór na pochodną i zobacz, czy łatwiej go policzyć z wejścia, czy z wyniku.
# Pochodna $\sqrt{h}$ to $1/(2\sqrt{h})$.

# %% [markdown] lang="en" exercise="predict-outcomes" role="hint"
# Write down the derivative and see whether it is easier to compute from the input or from
# the result. The derivative of $\sqrt{h}$ is $1/(2\sqrt{h})$.

# %% [markdown] lang="pl" exercise="predict-outcomes" role="hint"
# Gradient `relu` zależy tylko od znaku zapamiętanej liczby.

# %% [markdown] lang="en" exercise="predict-outcomes" role="hint"
# The gradient of `relu` depends only on the sign of the saved number.

# %% exercise="predict-outcomes" role="wrong" says="h.tanh(), then h.mul_(10)"
answers = {  # "every operation saves its input"
    ("h + 3", "h.data.mul_(10)"): "right",
    ("h * h", "h.mul_(10)"): "error",
    ("h * h", "h.data.mul_(10)"): "wrong",
    ("h.log()", "h.detach().mul_(10)"): "error",
    ("h.tanh()", "h.mul_(10)"): "error",
    ("h.tanh()", "y.data.mul_(10)"): "right",
    ("h.sqrt()", "y.detach().mul_(10)"): "right",
    ("h.relu()", "y.data.mul_(10)"): "right",
}

# %% exercise="predict-outcomes" role="wrong" says="h * h, then h.data.mul_(10)"
answers = {  # "data is the safe way to write"
    ("h + 3", "h.data.mul_(10)"): "right",
    ("h * h", "h.mul_(10)"): "error",
    ("h * h", "h.data.mul_(10)"): "right",
    ("h.log()", "h.detach().mul_(10)"): "right",
    ("h.tanh()", "h.mul_(10)"): "right",
    ("h.tanh()", "y.data.mul_(10)"): "right",
    ("h.sqrt()", "y.detach().mul_(10)"): "right",
    ("h.relu()", "y.data.mul_(10)"): "right",
}

# %% exercise="predict-outcomes" role="wrong" says="h.log(), then h.detach().mul_(10)"
answers = {  # "detach cuts the counter off, too"
    ("h + 3", "h.data.mul_(10)"): "right",
    ("h * h", "h.mul_(10)"): "error",
    ("h * h", "h.data.mul_(10)"): "wrong",
    ("h.log()", "h.detach().mul_(10)"): "wrong",
    ("h.tanh()", "h.mul_(10)"): "right",
    ("h.tanh()", "y.data.mul_(10)"): "wrong",
    ("h.sqrt()", "y.detach().mul_(10)"): "wrong",
    ("h.relu()", "y.data.mul_(10)"): "right",
}

# %% exercise="predict-outcomes" role="solution"
answers = {
    ("h + 3", "h.data.mul_(10)"): "right",  # nothing is saved
    ("h * h", "h.mul_(10)"): "error",  # the input is saved, the counter sees it
    ("h * h", "h.data.mul_(10)"): "wrong",  # saved, and not seen
    ("h.log()", "h.detach().mul_(10)"): "error",  # detach shares the counter
    ("h.tanh()", "h.mul_(10)"): "right",  # 1 - y ** 2: the result is saved
    ("h.tanh()", "y.data.mul_(10)"): "wrong",
    ("h.sqrt()", "y.detach().mul_(10)"): "error",
    ("h.relu()", "y.data.mul_(10)"): "right",  # y is hit, but its sign stays
}

# %% [markdown] lang="pl" exercise="repair-writes" role="prompt" belt="brown" minutes=15
# ### Brązowy: napraw tyle, ile trzeba
#
# Popraw blok i zbiór danych. Blok ma dodawać wynik gałęzi do **niezmienionego** wejścia bez
# kopiowania go, ale `inplace=True` tam, gdzie nikomu nie szkodzi, ma zostać. Zbiór danych ma w
# każdej epoce zwracać te same próbki, nie zmieniać tensora `rows` ani nie kopiować go w całości.

# %% [markdown] lang="en" exercise="repair-writes" role="prompt" belt="brown" minutes=15
# ### Brown: repair as much as needed
#
# Repair the block and the data set. The block must add the output of the branch to the
# **unchanged** input without copying it, but `inplace=True` has to stay where it harms
# nobody. The data set must return the same samples in every epoch, must not change the tensor
# `rows` and must not copy all of it.


# %% exercise="repair-writes" role="starter"
class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
        )

    def forward(self, h: Tensor) -> Tensor:
        result: Tensor = h + self.branch(h)
        return result  # your code


@dataclass(frozen=True)
class Rows:
    rows: Tensor  # (samples, features)

    def __getitem__(self, index: int) -> Tensor:
        x = self.rows[index]
        x -= 5
        x /= 3
        return x  # your code


# %% exercise="repair-writes" role="check"
torch.manual_seed(1)
originals = 5 + 3 * torch.randn(20, 8)
rows = Rows(originals.clone())
for epoch_number in (1, 2):
    samples = torch.stack([rows[i] for i in range(20)])
    assert torch.allclose(samples, (originals - 5) / 3, atol=1e-6), say(
        pl=f"epoka {epoch_number}: próbki nie są znormalizowane raz, tylko wielokrotnie",
        en=f"epoch {epoch_number}: the samples are not normalised once but repeatedly",
    )
    assert torch.equal(rows.rows, originals), say(
        pl=f"epoka {epoch_number}: odczyt próbki zmienił rows",
        en=f"epoch {epoch_number}: reading a sample changed rows",
    )
copied = originals.clone()
with MemoryMeter() as meter:
    Rows(copied)[0]
assert meter.peak <= 3 * originals[0].nbytes, say(
    pl=f"jedna próbka kosztowała {meter.peak} B: kopiujesz wszystkie wiersze",
    en=f"one sample cost {meter.peak} B: you copy all rows",
)

residual = Residual(8)
first, second = (m for m in residual.modules() if isinstance(m, nn.Linear))
h_given = torch.randn(6, 8)
expected_out = h_given + second(torch.relu(first(torch.relu(h_given))))
passed = h_given.clone()
got_out = residual(passed)
assert torch.equal(passed, h_given), say(
    pl="blok zmienił tensor, który dostał",
    en="the block changed the tensor it was given",
)
assert torch.allclose(got_out, expected_out, atol=1e-6), say(
    pl="wynik bloku to nie wejście plus gałąź z relu przed każdą warstwą",
    en="the block's result is not the input plus the branch with relu before each layer",
)
got_out.sum().backward()
assert all(p.grad is not None for p in residual.parameters()), say(
    pl="gradient nie dociera do wag gałęzi",
    en="no gradient reaches the branch's weights",
)
with MemoryMeter() as meter, torch.no_grad():
    residual(h_given)
assert meter.peak <= 2 * h_given.nbytes, say(
    pl="blok robi kopię, która jest niepotrzebna, gdy wyłączysz właściwą flagę",
    en="the block makes a copy that is not needed once the right flag is off",
)
flags = [m.inplace for m in residual.modules() if isinstance(m, nn.ReLU)]
assert flags == [False, True], say(
    pl=f"flagi inplace to {flags}: wyłącz tę, która szkodzi, zostaw tę, która nie szkodzi",
    en=f"the inplace flags are {flags}: switch off the one that harms, keep the other",
)

# %% [markdown] lang="pl" exercise="repair-writes" role="hint"
# Kto jeszcze potrzebuje tensora, do którego pisze pierwsza `ReLU`? A druga?

# %% [markdown] lang="en" exercise="repair-writes" role="hint"
# Who else needs the tensor that the first `ReLU` writes to? And the second one?

# %% [markdown] lang="pl" exercise="repair-writes" role="hint"
# Wynik odejmowania `x - 5` to nowy tensor: nikt inny go nie ma, więc dalej możesz pisać do
# niego w miejscu.

# %% [markdown] lang="en" exercise="repair-writes" role="hint"
# The result of the subtraction `x - 5` is a new tensor: nobody else has it, so from there on
# you may write to it in place.


# %% exercise="repair-writes" role="wrong" says="reading a sample changed rows"
@dataclass(frozen=True)
class Rows:
    rows: Tensor

    def __getitem__(self, index: int) -> Tensor:
        x = self.rows[index].detach()  # cuts the graph, shares the memory
        x -= 5
        x /= 3
        return x


# %% exercise="repair-writes" role="wrong" says="you copy all rows"
@dataclass(frozen=True)
class Rows:
    rows: Tensor

    def __getitem__(self, index: int) -> Tensor:
        x = self.rows.clone()[index]  # safe, and pays for everything each time
        x -= 5
        x /= 3
        return x


# %% exercise="repair-writes" role="wrong" says="flags are [False, False]"
class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(  # "inplace is always bad"
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
        )

    def forward(self, h: Tensor) -> Tensor:
        result: Tensor = h + self.branch(h)
        return result


@dataclass(frozen=True)
class Rows:
    rows: Tensor

    def __getitem__(self, index: int) -> Tensor:
        return (self.rows[index] - 5) / 3


# %% exercise="repair-writes" role="wrong" says="the block changed the tensor it was given"
class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(  # the harmless flag is off, the harmful one is on
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
        )

    def forward(self, h: Tensor) -> Tensor:
        result: Tensor = h + self.branch(h)
        return result


@dataclass(frozen=True)
class Rows:
    rows: Tensor

    def __getitem__(self, index: int) -> Tensor:
        return (self.rows[index] - 5) / 3


# %% exercise="repair-writes" role="solution"
class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),  # its input is needed once more, for the sum
            nn.Linear(width, width),
            nn.ReLU(inplace=True),  # nobody else has its input
            nn.Linear(width, width),
        )

    def forward(self, h: Tensor) -> Tensor:
        result: Tensor = h + self.branch(h)
        return result


@dataclass(frozen=True)
class Rows:
    rows: Tensor

    def __getitem__(self, index: int) -> Tensor:
        x = self.rows[index] - 5  # a new tensor of one row
        x /= 3
        return x


# %% [markdown] lang="pl" exercise="content-guard" role="prompt" belt="black" minutes=25
# ### Czarny: strażnik, którego trudniej obejść
#
# Licznik nie widzi zapisów przez `data` i NumPy. Napisz menedżer kontekstu `watched`, który
# przez `torch.autograd.graph.saved_tensors_hooks` (`pack` działa przy zapamiętaniu, `unpack`
# w przejściu wstecz) sprawdza **zawartość** zapamiętanych tensorów `float32`: jeśli przed
# przejściem wstecz choć jeden się zmieni, ma zgłosić `RuntimeError`. Hooki zastępują
# sprawdzanie wersji, więc zwykły `mul_` też musisz wykryć. Nie trzymaj kopii tensorów i nie
# przedłużaj życia grafu.

# %% [markdown] lang="en" exercise="content-guard" role="prompt" belt="black" minutes=25
# ### Black: a guard that is harder to bypass
#
# The counter does not see writes through `data` and NumPy. Write a context manager
# `watched` that uses `torch.autograd.graph.saved_tensors_hooks` (`pack` runs when a tensor
# is saved, `unpack` in the backward pass) to check the **content** of saved `float32`
# tensors: if even one changes before the backward pass, it must raise `RuntimeError`. Hooks
# replace the check of versions, so you have to detect a plain `mul_`, too. Do not keep copies
# of tensors, and do not make the graph live longer.


# %% exercise="content-guard" role="starter"
@contextmanager
def watched() -> Iterator[None]:
    def pack(tensor: Tensor) -> object:
        return tensor.detach()  # your code

    def unpack(packed: object) -> Tensor:
        assert isinstance(packed, Tensor)
        return packed  # your code

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


# %% exercise="content-guard" role="check"
def reverse_rows(h: Tensor, _: Tensor) -> None:
    h.data[:] = h.data.flip(0).clone()


def guarded(operation: Number, write: Write, *, on: bool = True) -> Tensor | None:
    """Return the gradient, or None if the guard stopped the backward pass."""
    torch.manual_seed(0)
    w = torch.rand(3, 4, requires_grad=True)
    with watched() if on else nullcontext():
        h = w * 1
        y = operation(h)
    write(h, y)
    try:
        return torch.autograd.grad(y.sum(), w)[0]
    except RuntimeError:
        return None


mixed: Number = lambda h: (h.t() @ h).exp()  # noqa: E731
nothing: Write = lambda h, y: None  # noqa: E731
for name, operation in {**OPERATIONS, "(h.t() @ h).exp()": mixed}.items():
    with_guard = guarded(operation, nothing)
    assert with_guard is not None, say(
        pl=f"{name}: alarm, choć nikt niczego nie zapisał",
        en=f"{name}: an alarm, although nobody wrote anything",
    )
    without_guard = guarded(operation, nothing, on=False)
    assert without_guard is not None and torch.equal(with_guard, without_guard), say(
        pl=f"{name}: strażnik zmienił gradient",
        en=f"{name}: the guard changed the gradient",
    )
for name, written in (
    ("h ** 2", "h.data.mul_(10)"),
    ("h ** 2", "h.mul_(10)"),
    ("h.exp()", "y.data.mul_(10)"),
):
    assert guarded(OPERATIONS[name], WRITES[written]) is None, say(
        pl=f"{name}, potem {written}: zmiana przeszła niezauważona",
        en=f"{name}, then {written}: the change went unnoticed",
    )
assert guarded(mixed, WRITES["h.detach().numpy()[:] *= 10"]) is None, say(
    pl="zapis przez NumPy przeszedł niezauważony",
    en="a write through NumPy went unnoticed",
)
assert guarded(OPERATIONS["h.sin()"], reverse_rows) is None, say(
    pl="te same liczby w innej kolejności przeszły niezauważone",
    en="the same numbers in another order went unnoticed",
)
last_one: Write = lambda h, y: h.data[-1, -1].mul_(10)  # noqa: E731
assert guarded(OPERATIONS["h.sin()"], last_one) is None, say(
    pl="zmiana jednej liczby przeszła niezauważona",
    en="a change of one number went unnoticed",
)
assert guarded(OPERATIONS["h.exp()"], WRITES["h.data.mul_(10)"]) is not None, say(
    pl="alarm, choć zapis ominął zapamiętany tensor",
    en="an alarm, although the write missed the saved tensor",
)
w_leaf = torch.randn(100, 100, requires_grad=True)
tracemalloc.start()
with MemoryMeter() as meter, watched():
    y_kept = (w_leaf * 1).sin().exp()
    while_kept = meter.live + tracemalloc.get_traced_memory()[0]
    del y_kept
    after = meter.live
tracemalloc.stop()
times = while_kept / w_leaf.nbytes
assert times <= 3.5, say(
    pl=f"pamięć grafu to {times:.1f} rozmiaru tensora zamiast 2: masz kopie tensorów",
    en=f"the graph keeps {times:.1f} tensors instead of 2: you hold copies of tensors",
)
assert after == 0, say(
    pl=f"po usunięciu wyniku zostało {after} B: graf trzyma sam siebie",
    en=f"{after} B were left after the result was deleted: the graph keeps itself alive",
)

# %% [markdown] lang="pl" exercise="content-guard" role="hint"
# Z funkcji `pack` zwróć krotkę: tensor po `detach` i skrót jego bajtów, na przykład
# `hashlib.sha256`. Bajty dostaniesz z tablicy NumPy metodą `tobytes`.

# %% [markdown] lang="en" exercise="content-guard" role="hint"
# Return a tuple from `pack`: the tensor after `detach` and a digest of its bytes, for
# example `hashlib.sha256`. The method `tobytes` of a NumPy array gives you the bytes.

# %% [markdown] lang="pl" exercise="content-guard" role="hint"
# Hook, który zwraca sam tensor, tworzy pętlę: węzeł trzyma swój wynik, a wynik węzeł.

# %% [markdown] lang="en" exercise="content-guard" role="hint"
# A hook that returns the tensor itself makes a cycle: the node holds its result, and the
# result holds the node.


# %% exercise="content-guard" role="wrong" says="h ** 2, then h.data.mul_(10): the change"
@contextmanager
def watched() -> Iterator[None]:
    # The same counter that autograd has: data gets past it.
    def pack(tensor: Tensor) -> tuple[Tensor, int]:
        return tensor.detach(), tensor._version

    def unpack(packed: tuple[Tensor, int]) -> Tensor:
        tensor, version = packed
        if tensor._version != version:
            raise RuntimeError("a saved tensor has changed")
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


# %% exercise="content-guard" role="wrong" says="the same numbers in another order"
@contextmanager
def watched() -> Iterator[None]:
    # A sum does not depend on the order.
    def pack(tensor: Tensor) -> tuple[Tensor, float]:
        return tensor.detach(), math.fsum(tensor.detach().flatten().tolist())

    def unpack(packed: tuple[Tensor, float]) -> Tensor:
        tensor, total = packed
        if math.fsum(tensor.flatten().tolist()) != total:
            raise RuntimeError("a saved tensor has changed")
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


# %% exercise="content-guard" role="wrong" says="you hold copies of tensors"
@contextmanager
def watched() -> Iterator[None]:
    # Right, at twice the memory.
    def pack(tensor: Tensor) -> tuple[Tensor, Tensor]:
        return tensor.detach(), tensor.detach().clone()

    def unpack(packed: tuple[Tensor, Tensor]) -> Tensor:
        tensor, copied = packed
        if not torch.equal(tensor, copied):
            raise RuntimeError("a saved tensor has changed")
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


# %% exercise="content-guard" role="wrong" says="the graph keeps itself alive"
@contextmanager
def watched() -> Iterator[None]:
    # exp saves its result, which owns the node of exp, which owns the result.
    def pack(tensor: Tensor) -> tuple[Tensor, int]:
        return tensor, hash(tensor.detach().numpy().tobytes())

    def unpack(packed: tuple[Tensor, int]) -> Tensor:
        tensor, digest = packed
        if hash(tensor.detach().numpy().tobytes()) != digest:
            raise RuntimeError("a saved tensor has changed")
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


# %% exercise="content-guard" role="solution"
@contextmanager
def watched() -> Iterator[None]:
    def digest(tensor: Tensor) -> bytes:
        # tobytes() reads in logical order, so a transposed tensor is no exception.
        return hashlib.sha256(tensor.detach().cpu().numpy().tobytes()).digest()

    def pack(tensor: Tensor) -> tuple[Tensor, bytes]:
        return tensor.detach(), digest(tensor)

    def unpack(packed: tuple[Tensor, bytes]) -> Tensor:
        tensor, before = packed
        if digest(tensor) != before:
            raise RuntimeError("a saved tensor has changed since the forward pass")
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
