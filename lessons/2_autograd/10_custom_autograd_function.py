# %% [markdown] lang="pl"
# # Własna funkcja autogradu: kontrakt, nie sztuczka
#
# Masz własny `backward`: program nie zgłasza wyjątku, a strata spada. Co silnik autogradu już w nim
# sprawdził, a co musisz sprawdzić ty?

# %% [markdown] lang="en"
# # Custom autograd functions: a contract, not a trick
#
# You wrote your own `backward`: nothing raises and the loss falls. What has the autograd engine already
# checked in it, and what do you have to check yourself?

# %% fold=true
import gc
import itertools
import random
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.text import Text
from torch import Tensor
from torch.autograd import Function, gradcheck, gradgradcheck
from torch.autograd.function import once_differentiable
from torch.library import custom_op, opcheck
from torch.nn.functional import cosine_similarity, silu

from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, ORANGE, RED, show_figure
from snippets.memory import CallCounter, MemoryMeter, saved_bytes

torch.set_num_threads(1)
# PyTorch's own first use of forward mode in a process warns about torch.jit.script.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


class Context(Protocol):
    """What the methods of a `Function` use of the object `ctx`."""

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...
    def save_for_backward(self, *tensors: Tensor) -> None: ...
    def save_for_forward(self, *tensors: Tensor) -> None: ...


Activation = Callable[[Tensor], Tensor]


def complaint(check: Callable[[], object]) -> str:
    """The first line of the exception that `check` raises, or an empty string."""
    try:
        check()
    except Exception as error:
        return str(error).splitlines()[0].rstrip(",")
    return ""


def train(act: Activation, steps: int) -> tuple[list[float], float]:
    """Fit sin(2x); return losses and the lowest cosine of a gradient with the true one."""
    torch.manual_seed(1)
    x = torch.linspace(-2, 2, 128)[:, None]  # (batch, 1)
    sizes = itertools.pairwise((1, 32, 32, 1))
    weights = [(torch.randn(a, b) / a**0.5).requires_grad_() for a, b in sizes]

    def loss_of(act: Activation) -> Tensor:
        h = act(act(x @ weights[0]) @ weights[1])
        error: Tensor = h @ weights[2] - torch.sin(2 * x)
        return error.square().mean()

    losses, lowest = [], 1.0
    for _ in range(steps):
        loss = loss_of(act)
        ours = torch.autograd.grad(loss, weights)
        true = torch.autograd.grad(loss_of(silu), weights)
        flat = [torch.cat([g.flatten() for g in grads]) for grads in (ours, true)]
        lowest = min(lowest, cosine_similarity(flat[0], flat[1], dim=0).item())
        losses.append(loss.item())
        with torch.no_grad():
            for weight, gradient in zip(weights, ours, strict=True):
                weight -= 0.1 * gradient
    return losses, lowest


# %% [markdown] lang="pl"
# ## Obie straty spadają
#
# Ta sama mała sieć uczy się dwa razy funkcji $\sin 2x$: raz z naszą wersją SiLU, $x\,\sigma(x)$, raz z funkcją
# `silu` z PyTorcha. Metoda `apply` wywołuje `forward`, a potem `setup_context`, która zapisuje w obiekcie `ctx`
# to, czego będzie potrzebować `backward`. Funkcja `train` zwraca straty i najmniejszy kosinus kąta między naszym
# gradientem a prawdziwym.

# %% [markdown] lang="en"
# ## Both losses fall
#
# The same small network learns $\sin 2x$ twice: with our own SiLU, $x\,\sigma(x)$, and with PyTorch's `silu`. The
# method `apply` calls `forward`, then `setup_context`, which stores in the object `ctx` what `backward` will need.
# The function `train` returns the losses and the lowest cosine between our gradient and the true one.


# %%
class HastySilu(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.sigmoid()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.sigmoid()


steps = 500
hasty, lowest_cosine = train(HastySilu.apply, steps)
right = train(silu, steps)[0]
hasty_gap = hasty[-1] / right[-1]
print(f"HastySilu: {hasty[0]:.5f} -> {hasty[-1]:.5f}")
print(f"silu:      {right[0]:.5f} -> {right[-1]:.5f}")
print(f"{hasty_gap = :.1f}")
assert hasty[0] > 50 * hasty[-1] and hasty_gap > 2

# %% [markdown] lang="pl"
# Po {{ steps }} krokach nasza strata jest {{ hasty_gap:.1f }}× większa niż z funkcją `silu` (dla tego ziarna). Pochodna
# iloczynu ma dwa składniki, a nasz `backward` zwraca tylko pierwszy:

# %% [markdown] lang="en"
# After {{ steps }} steps our loss is {{ hasty_gap:.1f }} times the loss with `silu` (for this seed). The
# derivative of a product has two terms, and our `backward` returns only the first:

# %%
point = torch.tensor(-2.0, requires_grad=True)
(hasty_slope,) = torch.autograd.grad(HastySilu.apply(point), point)
(true_slope,) = torch.autograd.grad(silu(point), point)
print(f"{hasty_slope = :.3f}, {true_slope = :.3f}, {lowest_cosine = :.2f}")
assert abs(hasty_slope - 0.119) < 1e-3 and abs(true_slope + 0.091) < 1e-3
assert 0.3 < lowest_cosine < 0.5 and lowest_cosine >= round(lowest_cosine, 2)

# %% [markdown] lang="pl"
# W punkcie −2 metoda `backward` zwraca {{ hasty_slope:.3f }} zamiast {{ true_slope:.3f }}: zły jest nawet znak. To cicha
# awaria (silent failure). Strata i tak spada, bo nasz gradient wciąż częściowo zgadza się co do kierunku
# z prawdziwym: kosinus w każdym kroku wynosi co najmniej {{ lowest_cosine:.2f }}.

# %% [markdown] lang="en"
# At −2 the method `backward` returns {{ hasty_slope:.3f }} instead of {{ true_slope:.3f }}: even the sign is wrong. This is
# a silent failure. The loss falls all the same, because our gradient still points partly along the true one:
# the cosine is at least {{ lowest_cosine:.2f }} at every step.

# %% [markdown] lang="pl"
# ## Który `backward` silnik odrzuci?
#
# Weźmy `x * w`, gdzie `x` ma kształt `(4, 3)`, a `w` kształt `(3,)`. Poniżej jest dwanaście wersji tego, co zwraca
# `backward`: gradient dla `x`, potem gradient dla `w`; `g` to gradient, który metoda dostała.

# %% [markdown] lang="en"
# ## Which `backward` does the engine reject?
#
# Take `x * w`, where `x` has shape `(4, 3)` and `w` has shape `(3,)`. Below are twelve versions of what `backward`
# returns: the gradient of `x`, then the gradient of `w`; `g` is the gradient that it has received.

# %% [markdown] lang="pl" predict="what-is-rejected"
# Jak silnik sprawdza to, co zwraca `backward`?
#
# - [ ] Zna `forward`, więc odrzuci każdy `backward`, który daje błędne liczby.
#
#   Obalają to wiersze 5–7: średnia, zamienione wejścia i `None` przechodzą. Silnik nie liczy `forward` drugi raz,
#   więc nie ma z czym porównać liczb. `None` znaczy „brak gradientu”: metoda `backward` tensora zostawi wtedy
#   `w.grad` puste, a `torch.autograd.grad` zaprotestuje, jeśli nie podasz `allow_unused=True`.
#
# - [ ] Liczb nie sprawdza, ale gradient musi mieć dokładnie taki kształt jak wejście.
#
#   Obala to wiersz 2: gradient o kształcie `(4, 3)` trafia do `w` o kształcie `(3,)`, bo silnik sumuje to, co
#   powieliło rozgłaszanie (broadcasting). Rzutuje też `float64` na typ wejścia i pomija nadmiarowy `None`, ale
#   nadmiarowego gradientu nie przyjmie.
#
# - [x] Patrzy tylko na formę: czy zgadza się liczba gradientów i czy typ, urządzenie i kształt każdego da się
#   dopasować do wejścia.
#
#   W wierszach 8–12 nie zgadza się liczba gradientów, kształt, urządzenie albo typ: gradientu zespolonego dla
#   rzeczywistego wejścia silnik nie przyjmie.

# %% [markdown] lang="en" predict="what-is-rejected"
# How does the engine check what `backward` returns?
#
# - [ ] It knows `forward`, so it rejects every `backward` that gives wrong numbers.
#
#   Rows 5–7 rule this out: the mean, the swapped inputs and `None` pass. The engine does not compute `forward`
#   again, so it has nothing to compare the numbers with. `None` means "no gradient": a tensor's method `backward`
#   then leaves `w.grad` empty, and `torch.autograd.grad` objects unless you pass `allow_unused=True`.
#
# - [ ] It does not check numbers, but a gradient must have exactly the shape of its input.
#
#   Row 2 rules this out: a gradient of shape `(4, 3)` reaches `w` of shape `(3,)`, because the engine sums
#   what broadcasting repeated. It also casts `float64` to the input's type and ignores an extra `None`, but
#   rejects an extra gradient.
#
# - [x] It looks only at the form: the number of gradients, and whether the type, device and shape of each can be
#   fitted to its input.
#
#   In rows 8–12 the number of gradients, the shape, the device or the type does not fit: the engine takes no
#   complex gradient for a real input.

# %%
Rule = Callable[[Tensor, Tensor, Tensor], tuple[Tensor | None, ...]]
RETURNS = (
    "g * w, (g * x).sum(0)",
    "g * w, g * x",
    "g * w, (g * x).sum(0), None",
    "g * w, (g * x).sum(0).double()",
    "g * w, (g * x).mean(0)",
    "g * x, (g * w).sum(0)",
    "g * w, None",
    "g * w,",
    "g * w, (g * x).sum(0), g",
    "g * w, (g * x).sum(1)",
    "g * w, (g * x).sum(0).to('meta')",
    "g * w, (g * x).sum(0) * 1j",
)


def scale_by(returns: str) -> type[Function]:
    rule: Rule = eval(f"lambda g, x, w: ({returns})")

    class Scale(Function):
        @staticmethod
        def forward(x: Tensor, w: Tensor) -> Tensor:
            return x * w

        @staticmethod
        def setup_context(
            ctx: Context, inputs: tuple[Tensor, ...], output: Tensor
        ) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
            return rule(grad, *ctx.saved_tensors)

    return Scale


# %% fold=true
torch.manual_seed(0)
x43 = torch.randn(4, 3, requires_grad=True)
w3 = torch.randn(3, requires_grad=True)
truth = torch.autograd.grad((x43 * w3).sum(), (x43, w3))


def compare(got: tuple[Tensor | None, ...]) -> str:
    pairs = zip(got, truth, strict=True)
    right = all(g is not None and torch.allclose(g, t) for g, t in pairs)
    return "right" if right else "wrong"


def verdict(returns: str) -> str:
    y = scale_by(returns).apply(x43, w3).sum()
    try:
        return compare(torch.autograd.grad(y, (x43, w3), allow_unused=True))
    except RuntimeError as error:
        return str(error)


accepted = {
    "right": say(pl="przyjęty, poprawny", en="accepted, right"),
    "wrong": say(pl="przyjęty, BŁĘDNY", en="accepted, WRONG"),
}
verdicts = [verdict(returns) for returns in RETURNS]
for row, (returns, result) in enumerate(zip(RETURNS, verdicts, strict=True), start=1):
    refusal = "\n" + textwrap.indent(textwrap.fill(result.split("  (")[0], 76), "  ")
    print(f"{row:2}  {returns:34}", accepted.get(result, refusal))

WORDS = ["right"] * 4 + ["wrong"] * 3 + ["2, got 1", "2, got 3"]
WORDS += ["[4]", "device cpu", "isFloatingType"]
assert all(word in result for word, result in zip(WORDS, verdicts, strict=True))
lost = scale_by("g * w, None").apply(x43, w3).sum()
assert "allow_unused" in complaint(partial(torch.autograd.grad, lost, w3))
scale_by("g * w, None").apply(x43, w3).sum().backward()
assert w3.grad is None and x43.grad is not None


# %% [markdown] lang="pl"
# Redukcję wolno pominąć (wiersz 2), ale błędna redukcja o pasującym kształcie przejdzie niezauważona (wiersz 5).

# %% [markdown] lang="en"
# You may omit the reduction (row 2), but a wrong reduction of a fitting shape goes unnoticed (row 5).

# %% [markdown] lang="pl"
# ## Jedna referencja trzyma wynik w pamięci
#
# Pochodna funkcji tanh to $1 - y^2$, więc `backward` potrzebuje wyniku `y`. Można go przekazać metodzie
# `save_for_backward` albo zapisać jako atrybut `ctx`. Obie wersje liczą ten sam gradient.

# %% [markdown] lang="en"
# ## One reference keeps the result in memory
#
# The derivative of tanh is $1 - y^2$, so `backward` needs the result `y`. You can hand it to
# `save_for_backward`, or store it as an attribute of `ctx`. Both versions compute the same gradient.


# %%
class Tanh(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.tanh()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y)


class AttrTanh(Tanh):
    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.y = output  # type: ignore[attr-defined]  # mypy is right to object

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        y: Tensor = ctx.y  # type: ignore[attr-defined]
        return grad * (1 - y * y)


x1000 = torch.ones(1000, requires_grad=True)
y_saved, y_attr = Tanh.apply(x1000), AttrTanh.apply(x1000)
(saved_gradient,) = torch.autograd.grad(y_saved.sum(), x1000, retain_graph=True)
(attr_gradient,) = torch.autograd.grad(y_attr.sum(), x1000, retain_graph=True)
assert torch.equal(saved_gradient, attr_gradient)

(kept,) = y_saved.grad_fn._raw_saved_tensors  # a SavedVariable
(unpacked,) = y_saved.grad_fn.saved_tensors
assert kept.data.data_ptr() == y_saved.data_ptr()  # the storage of the result...
assert kept.data.grad_fn is None  # ...without its node,
assert unpacked.grad_fn is y_saved.grad_fn  # which comes back when it is read
assert unpacked is not y_saved and y_attr.grad_fn.y is y_attr


# %% fold=true
def draw_references(ax: Axes, y: Tensor, title: str) -> None:
    """Draw which of the four objects hold which, as read from the objects."""
    node: Any = y.grad_fn
    leaf = node.next_functions[0][0]
    saved = [t.data.data_ptr() for t in node._raw_saved_tensors]
    attribute = any(o is y for o in gc.get_referents(vars(node)))
    storage = y.untyped_storage()
    places = {
        "y": (0.1, 0.72, "output y", BLUE),
        "node": (0.76, 0.72, f"{node.name()}\n= ctx", ORANGE),
        "storage": (0.1, 0.12, f"storage\n{storage.nbytes()} B", GREEN),
        "leaf": (0.76, 0.12, f"{leaf.name().split('::')[-1]}(x)", GRAY),
    }
    links = [  # from, to, name and its place, colour, does it exist?
        ("y", "node", "grad_fn", 0.23, 0.59, GRAY, y.grad_fn is not None),
        ("y", "storage", "", 0, 0, GRAY, y.data_ptr() == storage.data_ptr()),
        ("node", "leaf", "", 0, 0, GRAY, leaf.variable is x1000),
        ("node", "storage", "SavedVariable", 0.43, 0.3, GREEN, y.data_ptr() in saved),
        ("node", "y", "ctx.y", 0.35, 0.98, RED, attribute),
    ]
    boxes = {}
    for name, (across, up, text, color) in places.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": "none", "edgecolor": color}
        label = ax.text(across, up, text, ha="center", va="center", bbox=box)
        boxes[name] = label.get_bbox_patch()
    ax.set(xlim=(-0.08, 1.08), ylim=(0, 1.05), title=title)
    ax.axis("off")
    ax.figure.canvas.draw()  # the boxes get their sizes
    for start, end, name, across, up, color, exists in links:
        if exists:
            bend = 0.55 if name == "ctx.y" else 0
            style = {"arrowstyle": "-|>", "color": color, "lw": 2, "shrinkA": 2}
            style |= {"patchA": boxes[start], "patchB": boxes[end], "shrinkB": 2}
            style |= {"connectionstyle": f"arc3,rad={bend}"}
            ax.annotate("", places[end][:2], places[start][:2], arrowprops=style)
            ax.text(across, up, name, fontsize=9)


fig, (left, right_ax) = plt.subplots(1, 2, figsize=(7.2, 2.9))
draw_references(left, y_saved, "save_for_backward(y)")
draw_references(right_ax, y_attr, "ctx.y = y")
show_figure(
    fig,
    alt_pl="Dwa grafy referencji. Po lewej strzałka SavedVariable prowadzi z węzła do "
    "magazynu wyniku i pętli nie ma. Po prawej strzałka ctx.y prowadzi z węzła do wyniku "
    "i zamyka pętlę.",
    alt_en="Two graphs of references. On the left the arrow SavedVariable leads from the "
    "node to the result's storage, and there is no loop. On the right the arrow ctx.y "
    "leads from the node to the result and closes a loop.",
    pl={"output y": "wynik y", "storage\n4000 B": "magazyn\n4000 B"},
    same={t.get_text() for t in fig.findobj(Text)} - {"output y", "storage\n4000 B"},
)

# %% [markdown] lang="pl"
# Po prawej strzałka `ctx.y` zamyka pętlę wynik → węzeł → wynik. Liczniki referencji takiej pętli nie zwolnią:
# pamięć czeka na odśmiecacz Pythona (garbage collector). Po lewej węzeł trzyma z wyniku tylko magazyn danych
# (storage): `SavedVariable`, czyli opakowanie zapamiętanego tensora (saved tensor), przechowuje `y` bez `grad_fn` i dołącza
# węzeł dopiero przy odczycie. `AccumulateGrad` to węzeł, który dodaje gradient do `x.grad`.

# %% [markdown] lang="en"
# On the right the arrow `ctx.y` closes a loop result → node → result. Reference counts never free such a loop:
# the memory waits for Python's garbage collector. On the left the node holds only the result's storage:
# `SavedVariable`, the wrapper of a saved tensor, keeps `y` without `grad_fn` and attaches the node only when it
# is read. `AccumulateGrad` is the node that adds the gradient to `x.grad`.

# %% [markdown] lang="pl"
# ## Co robi `apply`
#
# Metoda `apply` wykonuje `forward` i `setup_context` z wyłączonym zapisem operacji w grafie obliczeniowym
# (computational graph), jak pod `no_grad`. Jeśli poza nimi zapis jest włączony, a któreś wejście wymaga gradientu, dołącza do
# różniczkowalnego wyniku jeden węzeł: ten sam obiekt, który w klasie nazywa się `ctx`, a z zewnątrz `grad_fn`. Sprawdźmy, czy zapis jest włączony
# w `forward`, w `setup_context`, w zwykłym wywołaniu metody `backward` i w wywołaniu z `create_graph=True`:

# %% [markdown] lang="en"
# ## What `apply` does
#
# `apply` runs `forward` and `setup_context` with recording in the computational graph switched off, as under
# `no_grad`. If recording is on outside them and an input requires a gradient, it attaches one node to
# a differentiable result: the object that the class calls
# `ctx` and the outside calls `grad_fn`. Let us log whether recording is on in `forward`, in `setup_context`, in an
# ordinary `backward`, and in `backward` with `create_graph=True`:

# %%
recording: list[bool] = []


class Traced(Tanh):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        recording.append(torch.is_grad_enabled())
        return x.tanh()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        recording.append(torch.is_grad_enabled())
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        recording.append(torch.is_grad_enabled())
        return Tanh.backward(ctx, grad)


y = Traced.apply(x1000).sum()
torch.autograd.grad(y, x1000, retain_graph=True)
torch.autograd.grad(y, x1000, create_graph=True)
print(recording)
assert recording == [False, False, False, True]
assert Tanh.apply(torch.ones(3)).grad_fn is None
with torch.no_grad():
    assert Tanh.apply(x1000).grad_fn is None


# %% [markdown] lang="pl"
# W ostatnim przypadku operacje metody `backward` same trafiają do grafu: z nich powstaje druga pochodna.
#
# Tensor przekazany metodzie `save_for_backward` metoda `apply` opakowuje w `SavedVariable`, który zapisuje numer
# jego wersji. Po przejściu wstecz (backward pass) opakowanie zostaje opróżnione, chyba że podasz `retain_graph=True` albo `create_graph=True`
# ([lekcja 12](12_retain_graph.py)). Łatwo o taki błąd: ktoś odłącza wynik od grafu i przelicza go na procenty do
# raportu. Metoda `detach` zostawia wspólny magazyn, więc operacja w miejscu (in-place operation) zmienia także sam wynik i podnosi wspólny licznik wersji
# (version counter).

# %% [markdown] lang="en"
# In the last case the operations of `backward` are recorded too: the second derivative grows from them.
#
# `apply` wraps a tensor handed to `save_for_backward` in `SavedVariable`, which records the tensor's version.
# After the backward pass the wrapper is emptied, unless you pass `retain_graph=True` or `create_graph=True` ([lesson 12](12_retain_graph.py)).
# An easy mistake: someone detaches the result and turns it into percentages for a report. The method `detach` shares
# the storage, so the in-place operation changes the result as well and raises the shared version counter.


# %% raises="RuntimeError: has been modified by an inplace operation"
def report_then_backward(fn: type[Function]) -> Tensor:
    x = torch.ones(1, requires_grad=True)
    y = fn.apply(x)
    percent = y.detach()
    percent *= 100
    assert y._version == 1
    (gradient,) = torch.autograd.grad(y, x)
    return gradient


report_then_backward(Tanh)

# %%
corrupted = report_then_backward(AttrTanh).item()
intended = 1 - torch.ones(1).tanh().square().item()
print(f"{corrupted = :.1f}, {intended = :.2f}")
assert corrupted < -5000 and 0.41 < intended < 0.43

one = torch.ones(1, requires_grad=True)
y = Tanh.apply(one)
y.detach().numpy()[:] *= 100  # a change that raises no version
(unseen,) = torch.autograd.grad(y, one)
assert y._version == 0 and unseen.item() == corrupted


# %% fold=true
for tanh in (Tanh, AttrTanh):
    loss = tanh.apply(x1000).sum()
    loss.backward()
    second_pass = complaint(loss.backward)
    print(f"{tanh.__name__}: {second_pass.split(' (')[0] or 'OK'}")
    assert ("a second time" in second_pass) == (tanh is Tanh)

# %% [markdown] lang="pl"
# Atrybut omija oba zabezpieczenia: gradient wynosi {{ corrupted:.0f }} zamiast {{ intended:.2f }}, a drugie
# przejście nie zgłasza wyjątku. Silnik porównuje zresztą tylko numer wersji: zmiany przez NumPy nie zauważy nawet
# w klasie `Tanh`.
#
# W źródłach: `THPFunction_apply` tworzy węzeł, `PyNode::apply` sprawdza liczbę gradientów,
# a `unpack_saved_variables` wykrywa drugie przejście (plik `python_function.cpp`); `validate_outputs` sprawdza typ,
# urządzenie i kształt (`engine.cpp`), a wersję – `SavedVariable::unpack` (`saved_variable.cpp`).

# %% [markdown] lang="en"
# The attribute bypasses both safeguards: the gradient is {{ corrupted:.0f }} instead of {{ intended:.2f }}, and
# a second pass raises no error. And the engine compares only the number of the version: a change through NumPy
# escapes it even in the class `Tanh`.
#
# In the source: `THPFunction_apply` makes the node, `PyNode::apply` counts gradients, and
# `unpack_saved_variables` catches a second pass (in `python_function.cpp`); `validate_outputs` checks type, device and
# shape (`engine.cpp`), and `SavedVariable::unpack` the version (`saved_variable.cpp`).

# %% [markdown] lang="pl"
# ## Zbuduj własną taśmę
#
# Taśma (tape) to węzły i pętla, która przetwarza je od najnowszego. Węzły, które korzystają z wyniku innego węzła,
# są od niego nowsze, więc przekażą mu wszystkie gradienty, zanim przyjdzie jego kolej. PyTorch, jak silnik
# z [lekcji 08](08_computational_graph.py#an-engine-from-scratch), liczy, na ile gradientów węzeł jeszcze czeka. Numer
# `sequence_nr`, który tu naśladujemy, porządkuje u niego tylko węzły gotowe: `AccumulateGrad` ma numer najwyższy
# z możliwych, a i tak czeka na wszystkie gradienty. Klasy zdefiniowane wyżej działają tu bez zmian: zamiast `ctx`
# dostają nasz `Node`.

# %% [markdown] lang="en"
# ## Build your own tape
#
# A tape is nodes and a loop that processes them newest first. Nodes that use another node's result are newer than
# it, so they hand it all their gradients before its turn comes. PyTorch, like the engine
# of [lesson 08](08_computational_graph.py#an-engine-from-scratch), counts how many gradients a node still awaits. There
# the number `sequence_nr`, which we imitate, only orders the nodes that are ready: `AccumulateGrad` has the highest
# number possible, and still waits for all its gradients. The classes defined above run here unchanged:
# instead of `ctx` they receive our `Node`.

# %%
clock = itertools.count()


@dataclass(eq=False)
class Var:
    value: Tensor
    node: "Node | None" = None
    grad: Tensor | None = None


class Node:
    def __init__(self, rule: type[Function], inputs: tuple[Var, ...]) -> None:
        self.rule, self.inputs, self.number = rule, inputs, next(clock)
        self.saved: list[tuple[Tensor, int]] | None = []

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved = [(t, t._version) for t in tensors]

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        if self.saved is None:
            raise RuntimeError("Trying to backward through the graph a second time")
        if any(t._version != version for t, version in self.saved):
            raise RuntimeError("modified by an inplace operation")
        return tuple(t for t, _ in self.saved)


def apply(rule: type[Function], *inputs: Var) -> Var:
    node, data = Node(rule, inputs), tuple(var.value for var in inputs)
    with torch.no_grad():
        output: Tensor = rule.forward(*data)
        rule.setup_context(node, data, output)
    return Var(output, node)


def validate(grads: tuple[Tensor | None, ...], inputs: tuple[Var, ...]) -> None:
    expected, got = len(inputs), len(grads)
    if got < expected or any(grad is not None for grad in grads[expected:]):
        raise RuntimeError(f"gradients: expected {expected}, got {got}")
    for grad, var in zip(grads, inputs, strict=False):
        if grad is not None and grad.device != var.value.device:
            raise RuntimeError(f"expected device {var.value.device}")
        if grad is not None and grad.is_complex() and not var.value.is_complex():
            raise RuntimeError("isFloatingType: a complex gradient of a real input")


def backward(root: Var) -> None:
    root.grad = torch.ones_like(root.value)
    ready = {root.node: root} if root.node else {}
    while ready:
        node = max(ready, key=lambda node: node.number)
        result = node.rule.backward(node, ready.pop(node).grad)
        grads = result if isinstance(result, tuple) else (result,)
        validate(grads, node.inputs)
        node.saved = None
        for grad, var in zip(grads, node.inputs, strict=False):
            if grad is not None:
                # sum_to_size refuses a shape that does not fit.
                grad = grad.sum_to_size(var.value.shape).to(var.value.dtype)
                var.grad = grad if var.grad is None else var.grad + grad
                if var.node is not None:
                    ready[var.node] = var


# %% [markdown] lang="pl"
# Wzorcem jest PyTorch: losowe wyrażenia liczymy naszą taśmą i jego zwykłymi operacjami.

# %% [markdown] lang="en"
# The oracle is PyTorch: we compute random expressions with our tape and with its ordinary operations.

# %% fold=true
Scale = scale_by("g * w, g * x")  # x * w for any shapes; the engine reduces
expressions = 200
for seed in range(expressions):
    pick = random.Random(seed)
    torch.manual_seed(seed)
    leaves = [torch.randn(s).double().requires_grad_() for s in ((4, 3), (3,), (1,))]
    # Start at version 1: only changes after saving count.
    ours = [Var(leaf.detach().clone().mul_(1)) for leaf in leaves]
    theirs = [*leaves]
    for _ in range(8):
        i, j = pick.randrange(len(ours)), pick.randrange(len(ours))
        if pick.random() < 0.5:
            ours.append(apply(Tanh, ours[i]))
            theirs.append(theirs[i].tanh())
        else:
            ours.append(apply(Scale, ours[i], ours[j]))
            theirs.append(theirs[i] * theirs[j])
    backward(ours[-1])
    wanted = torch.autograd.grad(theirs[-1].sum(), leaves, allow_unused=True)
    for var, gradient in zip(ours, wanted, strict=False):
        assert (var.grad is None) == (gradient is None)
        assert var.grad is None or torch.allclose(var.grad, gradient, rtol=1e-9)
print(f"{expressions = }")

newer: Any = y_attr.grad_fn
assert newer._sequence_nr() > y_saved.grad_fn._sequence_nr()
twice_used = torch.ones(1, requires_grad=True)
both = twice_used.exp() * twice_used.sin()
first: Any = both.grad_fn
assert first.next_functions[0][0].next_functions[0][0]._sequence_nr() == 2**64 - 1
accumulated: list[Tensor] = []
twice_used.register_post_accumulate_grad_hook(accumulated.append)
both.backward()
assert len(accumulated) == 1  # the node waited for both gradients

# %% [markdown] lang="pl"
# Dla {{ expressions }} wyrażeń oba silniki dają te same gradienty. Teraz werdykty dla dwunastu wersji i oba wyjątki:

# %% [markdown] lang="en"
# For {{ expressions }} expressions both engines give the same gradients. Now the verdicts on the twelve versions, and
# both exceptions:


# %% fold=true
def our_verdict(returns: str) -> str:
    x, w = Var(x43.detach()), Var(w3.detach())
    refusal = complaint(partial(backward, apply(scale_by(returns), x, w)))
    return refusal or compare((x.grad, w.grad))


our_verdicts = [our_verdict(returns) for returns in RETURNS]
print(*(result.split(" (")[0] for result in our_verdicts), sep="\n")
assert all(word in result for word, result in zip(WORDS, our_verdicts, strict=True))

y_var = apply(Tanh, Var(torch.ones(3)))
y_var.value *= 100
assert "modified by an inplace operation" in complaint(partial(backward, y_var))
y_var = apply(Tanh, Var(torch.ones(3)))
backward(y_var)
assert "a second time" in complaint(partial(backward, y_var))

# %% [markdown] lang="pl"
# Werdykty są te same, a żaden wiersz kodu nie porównuje `backward` z `forward`.

# %% [markdown] lang="en"
# The verdicts are the same, and no line of the code compares `backward` with `forward`.

# %% [markdown] lang="pl"
# ## Ile bajtów czeka na `backward`
#
# Model kosztu: suma rozmiarów magazynów, które zapamiętały metoda `save_for_backward` i operacje wbudowane; każdy
# magazyn liczymy raz. Tensor `float32` o kształcie 1000 × 1000 zajmuje 4 MB. Wyrażenie
# `x * x.sigmoid()` zapamiętuje `x` i $\sigma(x)$: 8 MB. Własna funkcja może zapamiętać samo `x`: 4 MB, ale
# wtedy $\sigma(x)$ liczy dwa razy.

# %% [markdown] lang="en"
# ## How many bytes wait for `backward`
#
# The cost model: the sizes of the storages saved by `save_for_backward` and by built-in operations, each counted
# once. A 1000 × 1000 `float32` tensor takes 4 MB. The
# expression `x * x.sigmoid()` saves `x` and $\sigma(x)$: 8 MB. A custom function can save `x` alone: 4 MB, but
# then it computes $\sigma(x)$ twice.


# %%
def silu_slope(x: Tensor) -> Tensor:
    s = x.sigmoid()
    return s + x * s * (1 - s)


class Silu(HastySilu):
    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)  # what jvp, the forward-mode rule, will see

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * silu_slope(x)

    @staticmethod
    def jvp(ctx: Context, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * silu_slope(x)


# %% fold=true
def cost(fn: Activation, x: Tensor) -> tuple[int, int]:
    """Bytes saved for backward, and calls of sigmoid in both passes."""
    with saved_bytes() as saved, CallCounter() as calls:
        fn(x).sum().backward()
    return saved.total, calls.names["sigmoid"]


million = torch.randn(1000, 1000, requires_grad=True)
composed_bytes, composed_calls = cost(lambda x: x * x.sigmoid(), million)
custom_bytes, custom_calls = cost(Silu.apply, million)
builtin_bytes, builtin_calls = cost(silu, million)
attr_bytes = cost(AttrTanh.apply, million)[0]
print(f"x * x.sigmoid()  {composed_bytes} B, sigmoid: {composed_calls}")
print(f"Silu             {custom_bytes} B, sigmoid: {custom_calls}")
print(f"silu             {builtin_bytes} B, sigmoid: {builtin_calls}")
print(f"AttrTanh         {attr_bytes} B")
assert composed_bytes == 8_000_000 and custom_bytes == builtin_bytes == 4_000_000
assert (composed_calls, custom_calls, builtin_calls) == (1, 2, 0)
assert attr_bytes == 0

# %% [markdown] lang="pl"
# Przewidywanie zgadza się co do bajta: {{ composed_bytes }} B i jedno wywołanie `sigmoid`, {{ custom_bytes }} B
# i dwa wywołania. Wbudowana funkcja `silu` też zapamiętuje {{ builtin_bytes }} B ($\sigma(x)$ liczy we własnym
# jądrze obliczeniowym (kernel), dlatego licznik pokazuje 0), więc klasa `Silu` nic na niej nie oszczędza: własna funkcja opłaca się tam,
# gdzie PyTorch nie ma gotowej. Dla `AttrTanh` wychodzi 0, bo `saved_bytes` liczy przez hooki zapamiętanych tensorów, a te nie
# widzą atrybutów obiektu `ctx`. Pętla zatrzymuje też wynik, którego nikt już nie używa. `MemoryMeter` liczy bajty magazynów
# utworzonych w bloku `with` i wciąż żywych, tu przed wywołaniem `gc.collect()` i po nim:

# %% [markdown] lang="en"
# The prediction is exact to the byte: {{ composed_bytes }} B and one call of `sigmoid`, {{ custom_bytes }} B and
# two calls. The built-in `silu` also saves {{ builtin_bytes }} B (it computes $\sigma(x)$ inside its own kernel, so
# the counter shows 0), so the class `Silu` saves nothing over it: a custom function pays off where PyTorch has no
# built-in one. For `AttrTanh` the number is 0, because `saved_bytes` counts through saved-tensor hooks, and these
# do not see attributes of `ctx`. The loop also keeps a result that nobody uses any more. `MemoryMeter` counts
# the bytes of storages created inside the `with` block and still alive, here before and after `gc.collect()`:


# %% fold=true
def bytes_left(fn: Activation, calls: int) -> tuple[int, int]:
    """Bytes alive after calls whose results are dropped: before and after gc."""
    gc.collect()
    runs = [generation["collections"] for generation in gc.get_stats()]
    with MemoryMeter() as meter:
        for _ in range(calls):
            fn(million)
    before = meter.live
    # The collector is on, but has not run.
    assert runs == [generation["collections"] for generation in gc.get_stats()]
    gc.collect()
    return before, meter.live


calls = 10
assert gc.isenabled()
saved_left = bytes_left(Tanh.apply, calls)
attr_left = bytes_left(AttrTanh.apply, calls)
stuck = bytes_left(lambda x: AttrTanh.apply(x).mul_(2), 1)[1]
leaked_bytes = attr_left[0]
print(f"{saved_left = }\n{attr_left = }\n{stuck = }, {gc.get_threshold() = }")
assert saved_left == (0, 0) and calls < gc.get_threshold()[0]
assert attr_left == (calls * 4_000_000, 0) and stuck == 4_000_000

# %% [markdown] lang="pl"
# Wyniki {{ calls }} wywołań od razu porzucamy, a w pamięci zostaje {{ leaked_bytes }} B, choć odśmiecacz jest włączony.
# Liczy on nowe obiekty, nie bajty, a {{ calls }} małych węzłów z dużymi tensorami nie sięga jego progu. Dopiero
# przebieg odśmiecacza (`gc.collect()`) zwalnia wszystko. A po operacji w miejscu na wyniku, takiej jak `mul_`, także to nie pomaga: do pętli
# wchodzi węzeł z C++, przez który odśmiecacz nie widzi, i {{ stuck }} B zostaje: to trwały wyciek pamięci.

# %% [markdown] lang="en"
# We drop the results of {{ calls }} calls at once, yet {{ leaked_bytes }} B stay in memory although the collector is on.
# It counts new objects, not bytes, and {{ calls }} small nodes with large tensors do not reach its threshold. Only
# a run of the collector (`gc.collect()`) frees everything. And after an in-place operation on the result, such as `mul_`, not even that helps:
# a C++ node enters the loop, the collector cannot see through it, and {{ stuck }} B stay: a lasting memory leak.

# %% [markdown] lang="pl"
# ## Zielony `gradcheck`, błędna druga pochodna
#
# Liczby sprawdza `gradcheck`: porównuje `backward` z ilorazami różnicowymi funkcji `forward`. Uruchamiaj go
# w `float64`: w `float32` domyślny krok `eps=1e-6` jest za mały, więc odpada nawet poprawna klasa `Silu`, a PyTorch
# ostrzega. Błąd z pierwszego programu wychodzi od razu.

# %% [markdown] lang="en"
# ## Green `gradcheck`, wrong second derivative
#
# Numbers are checked by `gradcheck`: it compares `backward` with finite differences of `forward`. Run it in
# `float64`: in `float32` the default step `eps=1e-6` is too small, so even the correct class `Silu` fails, and
# PyTorch warns. The mistake of the first program is found at once.


# %% warns="UserWarning: is not a double precision floating point" raises="GradcheckError: Jacobian mismatch for output 0 with respect to input 0"
points = torch.tensor([-2.0, 0.5, 1.5], dtype=torch.float64)
x64 = points.clone().requires_grad_()
assert gradcheck(Silu.apply, x64)
x32 = points.float().requires_grad_()
assert complaint(partial(gradcheck, Silu.apply, x32))  # correct, and rejected
assert gradcheck(Silu.apply, x32, eps=1e-2, atol=1e-3)
gradcheck(HastySilu.apply, x64)

# %% [markdown] lang="pl"
# Macierz `numerical` to jakobian (Jacobian) z ilorazów różnicowych, `analytical` – z naszego `backward`. W lewych
# górnych rogach stoi para liczb z początku lekcji.
#
# Teraz odwrotnie: `gradcheck` przechodzi, a druga pochodna jest błędna. Stary styl, z `ctx` w metodzie `forward`,
# kusi, żeby zapamiętać policzone już $\sigma(x)$.

# %% [markdown] lang="en"
# The matrix `numerical` is the Jacobian from finite differences, `analytical` the one from our `backward`. In their
# top left corners stands the pair of numbers from the start of the lesson.
#
# Now the reverse: `gradcheck` passes, yet the second derivative is wrong. The old style, with `ctx` in
# `forward`, tempts you to save the already computed $\sigma(x)$.


# %%
class CachedSilu(Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        s = x.sigmoid()  # recording is off: a constant, as far as autograd knows
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        x, s = ctx.saved_tensors
        return grad * (s + x * s * (1 - s))


def derivatives(fn: Activation, x: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative of an elementwise function."""
    (first,) = torch.autograd.grad(fn(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


half = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
cached_second = derivatives(CachedSilu.apply, half)[1].item()
true_second = derivatives(silu, half)[1].item()
print(f"{cached_second = :.4f}, {true_second = :.4f}")
assert abs(cached_second - 0.2350) < 1e-4 and abs(true_second - 0.4412) < 1e-4
s = half.sigmoid()
assert abs(cached_second - (s * (1 - s)).item()) < 1e-12  # as if s were a constant
assert abs(derivatives(Silu.apply, half)[1].item() - true_second) < 1e-12
assert gradcheck(CachedSilu.apply, x64)
assert "mismatch" in complaint(lambda: gradgradcheck(CachedSilu.apply, x64))

# %% fold=true
grid = torch.linspace(-5, 5, 201, dtype=torch.float64, requires_grad=True)
exact, cached = derivatives(silu, grid), derivatives(CachedSilu.apply, grid)
fig, panels = plt.subplots(1, 2, figsize=(7.2, 2.7))
for ax, order, true, bad in zip(
    panels, ("first", "second"), exact, cached, strict=True
):
    ax.plot(grid.detach(), true, color=GRAY, lw=5, alpha=0.6, label="true")
    ax.plot(grid.detach(), bad, color=RED, lw=1.8, label="CachedSilu")
    ax.set(xlabel="x", title=f"{order} derivative")
panels[1].legend()
show_figure(
    fig,
    alt_pl="Dwa wykresy. Pierwsza pochodna klasy CachedSilu leży na prawdziwej. Druga "
    "odbiega od prawdziwej prawie wszędzie i w zerze sięga połowy jej wysokości.",
    alt_en="Two plots. The first derivative of CachedSilu lies on the true one. The second "
    "departs from the true one almost everywhere, and reaches half of its height at zero.",
    pl={
        "true": "prawdziwa",
        "first derivative": "pierwsza pochodna",
        "second derivative": "druga pochodna",
    },
    same=("CachedSilu",),
)
assert torch.allclose(exact[0], cached[0])
assert torch.allclose(cached[1][100], exact[1][100] / 2)
assert (exact[1] - cached[1]).abs().max() > 0.2

# %% [markdown] lang="pl"
# Po lewej linia `CachedSilu` pokrywa się z szarą, prawdziwą; po prawej już nie. W punkcie 0,5 druga pochodna
# wynosi {{ cached_second:.4f }} zamiast {{ true_second:.4f }}, bez żadnego komunikatu. Powód: $\sigma(x)$
# powstało przy wyłączonym zapisie, więc dla drugiej pochodnej jest stałą. Psuje się wszystko, co różniczkuje
# gradient: kara gradientowa, hesjan (Hessian), metauczenie.
#
# Najprostsze lekarstwo to klasa `Silu`: zapamiętuje tylko wejście, a resztę liczy w `backward`. Jeśli drugiej
# pochodnej nie potrzebujesz, możesz oznaczyć `backward` dekoratorem `once_differentiable`, jak w klasie `OnceSilu`.
# Niech `slope` będzie pochodną wyrażenia `OnceSilu.apply(half).square()`, policzoną
# z `create_graph=True`.

# %% [markdown] lang="en"
# On the left the line of `CachedSilu` lies on the grey, true one; on the right it does not. At 0.5 the second
# derivative is {{ cached_second:.4f }} instead of {{ true_second:.4f }}, without any message. The reason:
# $\sigma(x)$ was made while recording was off, so to the second derivative it is a constant. This breaks
# everything that differentiates a gradient: gradient penalties, Hessians, meta-learning.
#
# The simplest cure is the class `Silu`: it saves only the input and computes the rest in `backward`. If you do
# not need a second derivative, you can mark `backward` with the decorator `once_differentiable`, as in the class
# `OnceSilu`. Let `slope` be the derivative of `OnceSilu.apply(half).square()`,
# computed with `create_graph=True`.

# %% [markdown] lang="pl" predict="differentiate-twice"
# Co da `torch.autograd.grad(slope + 10 * half, half)`?
#
# - [ ] Wyjątek
#
#   Węzeł, który zgłasza błąd, istnieje, ale `torch.autograd.grad` uruchamia tylko węzły na drodze do podanego
#   wejścia. Krawędź tego węzła prowadzi do zastępczego tensora, nie do `half`.
#
# - [x] 10
#
#   Wkład pochodnej `slope` przepada po cichu: do `half` prowadzi tylko droga przez `10 * half`. Wyjątek zgłasza
#   dopiero `total.backward()`, które uruchamia wszystkie węzły.
#
# - [ ] Poprawną wartość, {{ full_answer:.2f }}
#
#   Dekorator wykonuje `backward` z wyłączonym zapisem, więc w grafie nie ma z czego policzyć drugiej pochodnej.

# %% [markdown] lang="en" predict="differentiate-twice"
# What does `torch.autograd.grad(slope + 10 * half, half)` give?
#
# - [ ] An exception
#
#   The node that raises the error exists, but `torch.autograd.grad` runs only nodes on a path to the wanted
#   input. The edge of this node leads to a stand-in tensor, not to `half`.
#
# - [x] 10
#
#   The contribution of `slope` is lost silently: the only path to `half` leads through `10 * half`. It is
#   `total.backward()`, which runs every node, that raises.
#
# - [ ] The right value, {{ full_answer:.2f }}
#
#   The decorator runs `backward` with recording switched off, so the graph has nothing to compute a second
#   derivative from.


# %%
class OnceSilu(CachedSilu):
    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        return CachedSilu.backward(ctx, grad)


(plain,) = torch.autograd.grad(OnceSilu.apply(half), half, create_graph=True)
assert not plain.requires_grad  # without square(): a constant, and no error node
(plain + 10 * half).backward()
assert half.grad == 10
y = OnceSilu.apply(half).square()
(slope,) = torch.autograd.grad(y, half, create_graph=True)
total = slope + 10 * half
(answer,) = torch.autograd.grad(total, half, retain_graph=True)
full_answer = derivatives(lambda x: silu(x).square(), half)[1].item() + 10
print(f"{answer = :.2f}, {full_answer = :.2f}")
assert answer == 10 and full_answer > 10.5
error_node: Any = slope.grad_fn
assert error_node.name().endswith("Error")
assert error_node.next_functions[0][0].variable is not half

# %% raises="RuntimeError: trying to differentiate twice a function that was marked with @once_differentiable"
total.backward()

# %% [markdown] lang="pl"
# To nie zakaz. Węzeł z błędem powstaje tylko wtedy, gdy gradient przekazany metodzie `backward` sam wymaga gradientu;
# dlatego podnosimy do kwadratu. Bez `square` pochodna jest stałą i nawet `backward` po cichu daje 10.

# %% [markdown] lang="en"
# This is no ban. The node with the error appears only if the gradient that `backward` receives requires a gradient
# itself; that is why we square. Without `square` the derivative is a constant, and even `backward` silently gives 10.

# %% [markdown] lang="pl"
# ### `vmap` i tryb postępowy
#
# Transformacje z modułu `torch.func` wymagają osobnej metody `setup_context`. Jedna z nich, `vmap`, stosuje do całej
# partii (batch) funkcję napisaną dla jednej próbki; wystarczy jej `generate_vmap_rule = True`, o ile metody nie
# zmieniają wejść w miejscu i składają się z operacji, które `vmap` obsługuje (bez `.item()`, bez rozgałęzień zależnych
# od wartości). Tryb postępowy
# (forward mode, [lekcja 14](14_forward_mode_ad.py)) niesie pochodną razem z wartościami: metoda `jvp` dostaje
# pochodną wejścia (styczną) i zwraca pochodną wyniku. Domyślnie `gradcheck` jej nie sprawdza.

# %% [markdown] lang="en"
# ### `vmap` and forward mode
#
# The transforms of the module `torch.func` need a separate `setup_context`. One of them, `vmap`, runs a function
# written for one sample on a whole batch; `generate_vmap_rule = True` is enough for it as long as the methods change no
# input in place and consist of operations that `vmap` supports (no `.item()`, no branching on values). Forward mode
# ([lesson 14](14_forward_mode_ad.py)) carries the derivative along with the values: the method `jvp` receives the
# derivative of the input (the tangent) and returns that of the result. By default `gradcheck` does not test it.


# %%
class SloppySilu(Silu):
    @staticmethod
    def jvp(ctx: Context, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * x.sigmoid()


ones = torch.ones_like(points)
per_sample = torch.func.vmap(torch.func.grad(Silu.apply))
assert torch.allclose(per_sample(points), silu_slope(points))

demands = [
    complaint(lambda: torch.func.grad(CachedSilu.apply)(half.detach())),
    complaint(lambda: torch.func.vmap(HastySilu.apply)(points)),
    complaint(lambda: torch.func.jvp(HastySilu.apply, (points,), (ones,))),
]
print(*(textwrap.fill(demand, 80) for demand in demands), sep="\n\n")
assert "must override the setup_context staticmethod" in demands[0]
assert "generate_vmap_rule=True" in demands[1]
assert "You must implement the jvp function" in demands[2]

tangent = torch.func.jvp(SloppySilu.apply, (points,), (ones,))[1]
assert not torch.allclose(tangent, silu_slope(points))  # silently wrong
assert gradcheck(SloppySilu.apply, x64)  # and green
assert complaint(lambda: gradcheck(SloppySilu.apply, x64, check_forward_ad=True))
assert gradcheck(Silu.apply, x64, check_forward_ad=True)

# %% [markdown] lang="pl"
# Brak metody kończy się wyjątkiem. Błędny wzór w metodzie `jvp` przechodzi po cichu: `gradcheck` zauważa go dopiero
# z `check_forward_ad=True`.
#
# ### Jądro spoza PyTorcha
#
# Gdy funkcja wywołuje jądro obliczeniowe spoza PyTorcha (tu zastępuje je NumPy), zalecaną drogą jest
# `custom_op` (stan na torch 2.15). Nadaje funkcji schemat (schema): typy argumentów i listę tych, które funkcja zmienia
# w miejscu. `register_fake` podaje kształt wyniku bez uruchamiania jądra. Potrzebuje tego kompilator, bo pracuje na
# obiektach `FakeTensor`, tensorach bez danych. Całość sprawdza `opcheck`. Czy znajdzie błędny wzór z klasy `HastySilu`?

# %% [markdown] lang="en"
# A missing method ends in an exception. A wrong formula in `jvp` is silent: `gradcheck` notices it only with
# `check_forward_ad=True`.
#
# ### A kernel from outside PyTorch
#
# When a function calls a kernel from outside PyTorch (here NumPy stands for it), the recommended route is
# `custom_op` (as of torch 2.15). It gives the function a schema: the types of the arguments and the list of those
# it changes in place. `register_fake` gives the output's shape without running the kernel. A compiler needs this,
# because it works on objects called `FakeTensor`, tensors without data. All this is checked by `opcheck`. Will it find
# the wrong formula of `HastySilu`?


# %%
@custom_op("blackbelt::numpy_silu", mutates_args=())
def numpy_silu(x: Tensor) -> Tensor:
    array = x.numpy()
    return torch.from_numpy(np.asarray(array / (1 + np.exp(-array))))


numpy_silu.register_fake(torch.empty_like)
numpy_silu.register_autograd(HastySilu.backward, setup_context=HastySilu.setup_context)
report = opcheck(numpy_silu, (x64,))
for test, status in report.items():
    print(f"{test:28} {status}")
assert len(report) == 4 and set(report.values()) == {"SUCCESS"}
assert complaint(lambda: gradcheck(numpy_silu, x64))

# %% [markdown] lang="pl"
# `opcheck` zwraca cztery razy `SUCCESS`: sprawdzanie liczb to nadal zadanie funkcji `gradcheck`.
#
# ### Strażnik do wklejenia
#
# Strażnik (guard) łączy sprawdzanie pochodnych z szukaniem tensorów w atrybutach `ctx`, także w krotkach i słownikach.
# Sprawdza też, czy wynik znika razem z ostatnią referencją: zauważy pętlę także przez domknięcie (closure).
# Argument `check_batched_grad=True` uruchamia metodę `backward` także wewnątrz transformacji `vmap`.

# %% [markdown] lang="en"
# `opcheck` reports `SUCCESS` four times: checking values is still the job of `gradcheck`.
#
# ### A guard to paste
#
# The guard joins the checks of derivatives and a search for tensors in the attributes of `ctx`, inside tuples and
# dictionaries too. It also checks that the result goes with its last reference, so it sees a loop through a closure. The argument `check_batched_grad=True` runs `backward` under `vmap` as well.


# %%
import weakref
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck


def tensors_in(value: object) -> list[Tensor]:
    """The tensors in a value and in the containers it consists of."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, (list, tuple, set)):
        return [tensor for part in value for tensor in tensors_in(part)]
    return [value] if isinstance(value, Tensor) else []


def tensors_on_ctx(output: Tensor) -> list[str]:
    attributes = getattr(output.grad_fn, "__dict__", {})
    return [name for name, value in attributes.items() if tensors_in(value)]


def assert_contract(
    fn: Callable[..., Tensor],
    *inputs: Tensor,
    twice: bool = True,
    forward_ad: bool = False,
    batched: bool = True,
    nondet_tol: float = 0.0,
) -> None:
    """Refuse a custom function that breaks what the engine does not verify."""
    doubles = [x.detach().double().clone().requires_grad_() for x in inputs]
    output = fn(*doubles)
    torch.autograd.grad(output, doubles, torch.ones_like(output), allow_unused=True)
    on_ctx, result = tensors_on_ctx(output), weakref.ref(output)
    assert not on_ctx, f"tensors on ctx: {on_ctx}"
    del output
    assert result() is None, "the result outlives its last reference"
    run = partial(gradcheck, fn, doubles, nondet_tol=nondet_tol)
    run(check_batched_grad=batched, check_forward_ad=forward_ad)
    if twice:
        gradgradcheck(fn, doubles, nondet_tol=nondet_tol)


# %% fold=true
class ClosureTanh(Tanh):
    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.read = lambda: output  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        y: Tensor = ctx.read()  # type: ignore[attr-defined]
        return grad * (1 - y * y)


suspects: dict[str, tuple[Activation, bool]] = {  # with or without jvp
    "Silu": (Silu.apply, True),
    "Tanh": (Tanh.apply, False),
    "HastySilu": (HastySilu.apply, False),
    "AttrTanh": (AttrTanh.apply, False),
    "ClosureTanh": (ClosureTanh.apply, False),
    "CachedSilu": (CachedSilu.apply, False),
    "SloppySilu": (SloppySilu.apply, True),
    "numpy_silu": (numpy_silu, False),
}
alone, guarded = {}, {}
for name, (fn, has_jvp) in suspects.items():
    alone[name] = complaint(partial(gradcheck, fn, x64))
    guarded[name] = complaint(partial(assert_contract, fn, points, forward_ad=has_jvp))
    print(f"{name:11}  gradcheck: {alone[name].split(' for output')[0] or 'OK'}")
    label = say(pl="strażnik: ", en="guard:    ")
    print(f"{'':11}  {label} {guarded[name].split(' for output')[0] or 'OK'}")
assert [name for name in suspects if alone[name]] == ["HastySilu", "numpy_silu"]
assert [name for name in suspects if not guarded[name]] == ["Silu", "Tanh"]

# %% fold=true
assert_contract(OnceSilu.apply, points, twice=False)
assert complaint(partial(assert_contract, OnceSilu.apply, points))
branching = scale_by("g * w if g.any() else g * w, (g * x).sum(0)")  # right, no vmap
refusal = complaint(partial(assert_contract, branching.apply, x43, w3))
assert refusal.startswith("While computing batched gradients"), refusal
assert_contract(branching.apply, x43, w3, batched=False)
assert_contract(lambda x: AttrTanh.apply(x) * 1, points)  # not the last node
constant: Any = Silu.apply(x64)
constant.grad_fn.scale = torch.tensor(1.0)
assert tensors_on_ctx(constant) == ["scale"]
assert_contract(HastySilu.apply, torch.full((3,), -20.0))  # wrong, but too small to see
assert_contract(scale_by("g * w, (g * x).mean(0)").apply, x43[:1], w3)  # a batch of one
zero, one_half = torch.zeros_like(x64), torch.full_like(x64, 0.5)
assert complaint(lambda: gradcheck(torch.relu, zero.requires_grad_()))
assert complaint(lambda: gradcheck(torch.round, one_half.requires_grad_()))

# %% [markdown] lang="pl"
# Sam `gradcheck` odrzuca dwie z sześciu błędnych wersji, strażnik – wszystkie sześć, a dwie poprawne przepuszcza.
#
# Granice strażnika:
#
# - Bada tylko podane punkty i kształty: nie odróżni średniej od sumy, gdy partia ma jedną próbkę, ani nie zauważy błędu
#   pochodnej bliskiej zeru (`HastySilu` w −20).
# - Przyjmuje rzeczywiste wejścia (zamienia je na `float64`; inne argumenty ustal wyrażeniem lambda) i funkcję, która ma
#   jeden wynik i nie zmienia wejść.
# - Zagląda tylko do `ctx` ostatniego węzła, a poza kontenerami zauważy tylko wynik. Odrzuci też stały tensor w atrybucie.
# - Tryb postępowy sprawdza dopiero z `forward_ad=True`. Dla metody `backward`, której `vmap` nie obsługuje, podaj
#   `batched=False`, a dla oznaczonej `once_differentiable` – `twice=False`.
#
# > [!WARNING]
# > `gradcheck` zakłada, że w badanych punktach pochodna istnieje. Nie wybieraj zera dla `relu` ani 0,5 dla
# > `round`: odrzuci nawet funkcje PyTorcha.
#
# Na GPU (tego tu nie zmierzono) kontrakt jest ten sam. Jądra niedeterministyczne wymagają `nondet_tol`, a operator
# z NumPy działa tylko na CPU.

# %% [markdown] lang="en"
# `gradcheck` alone rejects two of the six faulty versions, the guard all six, and lets the two correct ones pass.
#
# The guard's limits:
#
# - It tests only the points and shapes you give: it cannot tell a mean from a sum if the batch has one sample, nor see
#   an error of a derivative close to zero (`HastySilu` at −20).
# - It takes real inputs (turned into `float64`; bind other arguments with a lambda) and a function with one output that
#   does not change its inputs.
# - It looks only at the `ctx` of the last node, and outside containers notices the result alone. It also refuses
#   a constant tensor in an attribute.
# - It checks forward mode only with `forward_ad=True`. For a method `backward` that `vmap` does not support pass
#   `batched=False`, and for one marked `once_differentiable` pass `twice=False`.
#
# > [!WARNING]
# > `gradcheck` assumes that the derivative exists at the tested points. Do not choose zero for `relu` or
# > half-integers such as 0.5 for `round`: it rejects even PyTorch's functions.
#
# On a GPU (not measured here) the contract is the same. Nondeterministic kernels need `nondet_tol`, and the
# NumPy operator works on the CPU only.

# %% [markdown] lang="pl"
# ## Co już umiesz
#
# - Powiesz, co silnik sprawdził w twoim `backward`: liczbę gradientów, ich typ, urządzenie i kształt, wersje tensorów
#   z `save_for_backward`, ale domyślnie nigdy wartości gradientów.
# - Wybierzesz, co zapamiętać i gdzie, żeby pamięć nie czekała na odśmiecacz, a druga pochodna była poprawna.
# - Resztę kontraktu sprawdzisz strażnikiem.
#
# Poprzednia lekcja: [kto śledzi gradient](09_requires_grad_mechanics.py). Następna:
# [jakobian i hesjan](11_jacobian_and_hessian.py). O wspólnym magazynie, który zepsuł nam wynik:
# [lekcja 01](../1_tensors/01_storage_vs_view.py).
#
# - Dokumentacja: [Extending PyTorch](https://docs.pytorch.org/docs/2.15/notes/extending.html),
#   [Extending torch.func](https://docs.pytorch.org/docs/2.15/notes/extending.func.html),
#   [Gradcheck mechanics](https://docs.pytorch.org/docs/2.15/notes/gradcheck.html),
#   [torch.library](https://docs.pytorch.org/docs/2.15/library.html).
# - Źródła: [`python_function.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/python_function.cpp),
#   [`engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp),
#   [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# ## Now you can
#
# - Say what the engine has checked in your `backward`: the number of gradients, their type, device and shape, the
#   versions of tensors from `save_for_backward`, but by default never the values of gradients.
# - Choose what to save and where, so that memory does not wait for the collector and second derivatives are right.
# - Test the rest of the contract with a guard.
#
# Previous lesson: [who tracks the gradient](09_requires_grad_mechanics.py). Next:
# [Jacobians and Hessians](11_jacobian_and_hessian.py). On the shared storage that corrupted our result:
# [lesson 01](../1_tensors/01_storage_vs_view.py).
#
# - Documentation: [Extending PyTorch](https://docs.pytorch.org/docs/2.15/notes/extending.html),
#   [Extending torch.func](https://docs.pytorch.org/docs/2.15/notes/extending.func.html),
#   [Gradcheck mechanics](https://docs.pytorch.org/docs/2.15/notes/gradcheck.html),
#   [torch.library](https://docs.pytorch.org/docs/2.15/library.html).
# - Source: [`python_function.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/python_function.cpp),
#   [`engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp),
#   [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp).
#
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="straight-through" role="prompt" belt="white" minutes=5
# ### Gradient przez zaokrąglenie
#
# Wagi trójwartościowe to `x.clamp(-1, 1).round()`. Prawdziwa pochodna jest prawie wszędzie równa zeru, więc sieć
# by się nie uczyła. Napisz metodę `backward`, która celowo oszukuje (straight-through): w przedziale [−1, 1] przepuszcza
# gradient bez zmian, poza nim zwraca zero. Wewnątrz przedziału `gradcheck` musi zgłosić błąd i tak ma być.

# %% [markdown] lang="en" exercise="straight-through" role="prompt" belt="white" minutes=5
# ### A gradient through rounding
#
# Ternary weights are `x.clamp(-1, 1).round()`. The true derivative is zero almost everywhere, so a network would
# not learn. Write a `backward` that cheats on purpose (straight-through): inside [−1, 1] it passes the gradient
# unchanged, outside it returns zero. At points inside, `gradcheck` has to complain, and that is fine.


# %% exercise="straight-through" role="starter"
class Ternary(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(-1, 1).round()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)  # your code


# %% exercise="straight-through" role="check"
edges = torch.tensor([0.3, -2, 1.0000001, -0.4, 1, -1.01, 3, -1, 1.9, -0.7, 0.95])
incoming = torch.arange(2.0, 2.0 + len(edges))
for shuffled in (edges, edges.flip(0)):
    weights = shuffled.clone().requires_grad_()
    rounded = Ternary.apply(weights)
    assert torch.equal(rounded, shuffled.clamp(-1, 1).round()), say(
        pl=f"forward ma zwracać -1, 0 albo 1, a zwraca {rounded.tolist()}",
        en=f"forward has to return -1, 0 or 1, but returns {rounded.tolist()}",
    )
    received = incoming.clone()
    (passed_on,) = torch.autograd.grad(rounded, weights, received)
    assert torch.equal(received, incoming), say(
        pl="backward zmienia w miejscu gradient, który dostał",
        en="backward changes in place the gradient that it has received",
    )
    inside = shuffled.abs() <= 1
    assert not torch.equal(passed_on, inside.float()), say(
        pl="zwracasz maskę zamiast iloczynu maski i grad",
        en="you return the mask, not the product of the mask and grad",
    )
    assert torch.equal(passed_on[inside], incoming[inside]), say(
        pl=f"w [-1, 1] gradient ma przejść bez zmian, a jest {passed_on[inside].tolist()}",
        en=f"inside [-1, 1] the gradient has to pass unchanged, got {passed_on[inside].tolist()}",
    )
    assert not passed_on[~inside].any(), say(
        pl=f"poza [-1, 1] gradient ma być zerem, a jest {passed_on[~inside].tolist()}",
        en=f"outside [-1, 1] the gradient has to be zero, got {passed_on[~inside].tolist()}",
    )
inner = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
assert "mismatch" in complaint(partial(gradcheck, Ternary.apply, inner)), say(
    pl="gradcheck nie widzi różnicy, a ma ją widzieć",
    en="gradcheck sees no difference, but has to",
)

# %% [markdown] lang="pl" exercise="straight-through" role="hint"
# Który tensor mówi, czy punkt leży w przedziale? Jest zapamiętany, więc odczytaj go w `backward`.

# %% [markdown] lang="en" exercise="straight-through" role="hint"
# Which tensor says whether a point lies inside? It is saved, so read it in `backward`.

# %% [markdown] lang="pl" exercise="straight-through" role="hint"
# Warunek `x.abs() <= 1` daje maskę. Co trzeba z nią zrobić, żeby zachować to, co przyszło w `grad`?

# %% [markdown] lang="en" exercise="straight-through" role="hint"
# The condition `x.abs() <= 1` gives a mask. What has to be done with it to keep what came in `grad`?


# %% exercise="straight-through" role="wrong" says="outside [-1, 1] the gradient has to be zero"
class Ternary(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(-1, 1).round()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        return grad


# %% exercise="straight-through" role="wrong" says="not the product of the mask and grad"
class Ternary(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(-1, 1).round()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (x.abs() <= 1).to(grad.dtype)


# %% exercise="straight-through" role="solution"
class Ternary(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(-1, 1).round()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # backward returns a vector-Jacobian product: the mask multiplies grad.
        return grad * (x.abs() <= 1)


# %% [markdown] lang="pl" exercise="swiglu" role="prompt" belt="brown" minutes=15
# ### SwiGLU za dwa tensory
#
# Wyrażenie `silu(a) * b` zapamiętuje trzy tensory: 12 MB, gdy `a` i `b` mają kształt 1000 × 1000. Napisz klasę
# `SwiGlu`, która zapamiętuje dwa (8 MB), ma poprawne pierwsze i drugie pochodne i nie trzyma tensorów w atrybutach `ctx`.

# %% [markdown] lang="en" exercise="swiglu" role="prompt" belt="brown" minutes=15
# ### SwiGLU for two tensors
#
# The expression `silu(a) * b` saves three tensors: 12 MB when `a` and `b` are 1000 × 1000. Write a class
# `SwiGlu` that saves two (8 MB), has correct first and second derivatives, and keeps no tensors in attributes of `ctx`.


# %% exercise="swiglu" role="starter"
class SwiGlu(Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return silu(a) * b

    @staticmethod
    def setup_context(
        ctx: Context, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None: ...  # your code

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad  # your code


# %% exercise="swiglu" role="check"
torch.manual_seed(0)
gates = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in "ab"]
assert issubclass(SwiGlu, Function), say(
    pl="SwiGlu ma być klasą pochodną Function", en="SwiGlu has to be a Function"
)
gated = SwiGlu.apply(*gates)
assert isinstance(gated.grad_fn, vars(SwiGlu)["_backward_cls"]), say(
    pl="wynik powstał poza klasą SwiGlu", en="the result was made outside SwiGlu"
)
assert torch.allclose(gated, silu(gates[0]) * gates[1]), say(
    pl="forward nie zwraca silu(a) * b", en="forward does not return silu(a) * b"
)
on_ctx = tensors_on_ctx(gated)
assert not on_ctx, say(
    pl=f"ctx ma tensory w atrybutach: {on_ctx}", en=f"ctx carries tensors: {on_ctx}"
)
first_order = complaint(partial(gradcheck, SwiGlu.apply, gates))
assert not first_order, say(
    pl=f"gradcheck widzi błędny gradient – {first_order}",
    en=f"gradcheck sees a wrong gradient – {first_order}",
)
second_order = complaint(partial(gradgradcheck, SwiGlu.apply, gates))
assert not second_order, say(
    pl=f"gradgradcheck widzi błędną drugą pochodną – {second_order}; czy zapamiętano coś, "
    "co policzono przy wyłączonym zapisie?",
    en=f"gradgradcheck sees a wrong second derivative – {second_order}; is something saved "
    "that was computed while recording was off?",
)
for i in range(2):
    stale = [gate.detach().clone().requires_grad_() for gate in gates]
    gated = SwiGlu.apply(*stale)
    stale[i].detach().mul_(2)
    refused = complaint(partial(torch.autograd.grad, gated.sum(), stale))
    assert "modified by an inplace operation" in refused, say(
        pl="backward czyta wejście z pominięciem save_for_backward",
        en="backward reads an input that bypassed save_for_backward",
    )
bigs = [torch.randn(1000, 1000, requires_grad=True) for _ in "ab"]
with saved_bytes() as composition:
    silu(bigs[0]) * bigs[1]
assert composition.total == 12_000_000
with saved_bytes() as saved_pair:
    SwiGlu.apply(*bigs)
assert saved_pair.total == 8_000_000, say(
    pl=f"zapamiętane bajty: {saved_pair.total}, a ma być 8000000",
    en=f"saved bytes: {saved_pair.total}, expected 8000000",
)
with MemoryMeter() as alive:
    gated = SwiGlu.apply(*bigs)
beside = alive.live - gated.nbytes
del gated
assert beside == 0 == alive.live, say(
    pl=f"poza wynikiem zostaje nowych bajtów: {beside}, a po jego usunięciu: {alive.live}; "
    f"ma być 0 i 0",
    en=f"{beside} new bytes live beside the result, {alive.live} after it; expected 0 and 0",
)

# %% [markdown] lang="pl" exercise="swiglu" role="hint"
# Które dwa tensory wystarczą, żeby policzyć oba gradienty? Żaden z nich nie musi być nowy.

# %% [markdown] lang="en" exercise="swiglu" role="hint"
# Which two tensors are enough to compute both gradients? Neither has to be new.

# %% [markdown] lang="pl" exercise="swiglu" role="hint"
# Gradient względem `a` zawiera `b * silu_slope(a)`, względem `b` zawiera `silu(a)`.

# %% [markdown] lang="en" exercise="swiglu" role="hint"
# The gradient of `a` contains `b * silu_slope(a)`, that of `b` contains `silu(a)`.


# %% exercise="swiglu" role="wrong" says="gradgradcheck sees a wrong second derivative"
class SwiGlu(Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return silu(a) * b

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, silu(inputs[0]))

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b, gate = ctx.saved_tensors
        return grad * b * silu_slope(a), grad * gate


# %% exercise="swiglu" role="wrong" says="ctx carries tensors: ['inputs']"
class SwiGlu(Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return silu(a) * b

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.inputs = inputs

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.inputs
        return grad * b * silu_slope(a), grad * silu(a)


# %% exercise="swiglu" role="solution"
class SwiGlu(Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return silu(a) * b

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        # silu(a) is computed again, so 4 MB less wait for backward.
        return grad * b * silu_slope(a), grad * silu(a)


# %% [markdown] lang="pl" exercise="full-contract" role="prompt" belt="black" minutes=25
# ### Pełny kontrakt
#
# Napisz $f(x) = x\,e^x$ jako klasę `XExp`, która przechodzi wszystkie próby: strażnika `assert_contract`
# z `forward_ad=True`, złożenie `vmap` z `grad` i hesjan z `torch.func`. Na przekątnej hesjanu ma być $e^x (2 + x)$.

# %% [markdown] lang="en" exercise="full-contract" role="prompt" belt="black" minutes=25
# ### The full contract
#
# Write $f(x) = x\,e^x$ as a class `XExp` that passes everything: the guard `assert_contract` with
# `forward_ad=True`, `vmap` composed with `grad`, and the Hessian of `torch.func`. Its diagonal has to be
# $e^x (2 + x)$.


# %% exercise="full-contract" role="starter"
class XExp(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.exp()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.exp()  # your code


# %% exercise="full-contract" role="check"
tested = torch.linspace(-3, 3, 7, dtype=torch.float64)
trial = tested.clone().requires_grad_()


def must_equal(got: Tensor, wanted: Tensor) -> None:
    if not torch.allclose(got, wanted):
        raise ValueError(f"{got.tolist()} instead of {wanted.tolist()}")


assert issubclass(XExp, Function), say(
    pl="XExp ma być klasą pochodną Function", en="XExp has to be a Function"
)
assert isinstance(XExp.apply(trial).grad_fn, vars(XExp)["_backward_cls"]), say(
    pl="wynik powstał poza klasą XExp", en="the result was made outside XExp"
)
slopes = torch.func.vmap(torch.func.grad(lambda x: XExp.apply(x)))
hessian = torch.func.hessian(lambda x: XExp.apply(x).sum())
stages: dict[str, Callable[[], object]] = {
    "forward": lambda: must_equal(XExp.apply(tested), tested * tested.exp()),
    "backward": lambda: gradcheck(XExp.apply, trial),
    "backward(backward)": lambda: gradgradcheck(XExp.apply, trial),
    "jvp": lambda: gradcheck(XExp.apply, trial, check_forward_ad=True),
    "vmap(grad)": lambda: must_equal(slopes(tested), tested.exp() * (1 + tested)),
    "hessian": lambda: must_equal(
        hessian(tested), torch.diag(tested.exp() * (2 + tested))
    ),
    "assert_contract": lambda: assert_contract(XExp.apply, tested, forward_ad=True),
}
hints = {
    "backward(backward)": (
        "; czy zapamiętano coś, co policzono przy wyłączonym zapisie?",
        "; is something saved that was computed while recording was off?",
    )
}
for stage, attempt in stages.items():
    problem = complaint(attempt)
    hint_pl, hint_en = hints.get(stage, ("", ""))
    assert not problem, say(
        pl=f"próba {stage} – {problem}{hint_pl}",
        en=f"stage {stage} – {problem}{hint_en}",
    )

# %% [markdown] lang="pl" exercise="full-contract" role="hint"
# Pochodna to $e^x (1 + x)$. Co zapamiętać, żeby `backward` dało się zróżniczkować jeszcze raz?

# %% [markdown] lang="en" exercise="full-contract" role="hint"
# The derivative is $e^x (1 + x)$. What should be saved so that `backward` can be differentiated once more?

# %% [markdown] lang="pl" exercise="full-contract" role="hint"
# Tryb postępowy czyta to, co przekazano metodzie `save_for_forward`. Dla `vmap` potrzebny jest atrybut klasy.

# %% [markdown] lang="en" exercise="full-contract" role="hint"
# Forward mode reads what was handed to `save_for_forward`. For `vmap` you need an attribute of the class.


# %% exercise="full-contract" role="wrong" says="stage backward(backward)"
class XExp(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.exp()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        saved = (*inputs, inputs[0].exp())
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        x, e = ctx.saved_tensors
        return grad * e * (1 + x)

    @staticmethod
    def jvp(ctx: Context, tangent: Tensor) -> Tensor:
        x, e = ctx.saved_tensors
        return tangent * e * (1 + x)


# %% exercise="full-contract" role="wrong" says="stage vmap(grad)"
class XExp(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.exp()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.exp() * (1 + x)

    @staticmethod
    def jvp(ctx: Context, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * x.exp() * (1 + x)


# %% exercise="full-contract" role="solution"
class XExp(Function):
    # Every method below is made of PyTorch operations, so vmap can derive its own rule.
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.exp()

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Only the input: an intermediate would be a constant to the second derivative.
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * x.exp() * (1 + x)

    @staticmethod
    def jvp(ctx: Context, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * x.exp() * (1 + x)
