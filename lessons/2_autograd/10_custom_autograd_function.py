# %% [markdown] lang="pl"
# # Własna funkcja autograd: kontrakt, nie sztuczka
#
# Masz własny `backward`: program działa bez wyjątku, a strata spada. Co silnik autograd już w nim
# sprawdził, a co musisz sprawdzić ty?

# %% [markdown] lang="en"
# # Custom autograd functions: a contract, not a trick
#
# You have your own `backward`: the program raises nothing and the loss falls. What has the
# autograd engine already checked in it, and what do you have to check yourself?

# %%
import gc
import itertools
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor
from torch._library.custom_ops import CustomOpDef
from torch.autograd import Function, gradcheck, gradgradcheck
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import custom_op, opcheck
from torch.nn.functional import silu

from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, ORANGE, RED, show_figure
from snippets.memory import MemoryMeter, saved_bytes

torch.set_num_threads(1)
# PyTorch's own first use of forward mode in a process warns about torch.jit.script.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

# %% [markdown] lang="pl"
# ## Strata spada, gradient kłamie
#
# Funkcja SiLU to $x\,\sigma(x)$. Pochodna iloczynu ma dwa składniki, a metoda `backward` zwraca tylko
# pierwszy. Klasa `Context` opisuje, co metody dostają jako `ctx`.

# %% [markdown] lang="en"
# ## The loss falls, the gradient lies
#
# SiLU is $x\,\sigma(x)$. The derivative of a product has two terms, and this `backward` returns only
# the first. The class `Context` describes what the methods receive as `ctx`.


# %%
class Context(Protocol):
    @property
    def saved_tensors(self) -> tuple[Tensor, ...]: ...
    def save_for_backward(self, *tensors: Tensor) -> None: ...
    def save_for_forward(self, *tensors: Tensor) -> None: ...


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


def train(act: Callable[[Tensor], Tensor], steps: int, lr: float = 0.1) -> list[float]:
    """Fit sin(2x) with a network of two hidden layers; return the losses."""
    generator = torch.Generator().manual_seed(1)
    x = torch.linspace(-2, 2, 128)[:, None]  # (batch, 1)
    weights = [
        (torch.randn(a, b, generator=generator) / a**0.5).requires_grad_()
        for a, b in itertools.pairwise((1, 32, 32, 1))
    ]
    losses: list[float] = []
    for _ in range(steps):
        h = act(act(x @ weights[0]) @ weights[1])
        loss = (h @ weights[2] - torch.sin(2 * x)).square().mean()
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= lr * gradient
        losses.append(loss.item())
    return losses


steps = 500
hasty = train(HastySilu.apply, steps)
hasty_fall = hasty[0] / hasty[-1]
print(f"{hasty[0]:.4f} -> {hasty[-1]:.4f}")
assert hasty_fall > 50

# %% [markdown] lang="pl"
# Przez {{ steps }} kroków strata zmalała {{ hasty_fall:.0f }}×. Z takim wynikiem zmiana przejdzie każdy przegląd kodu.

# %% [markdown] lang="en"
# In {{ steps }} steps the loss fell {{ hasty_fall:.0f }}×. A change with this result passes any code review.

# %% [markdown] lang="pl"
# ## Który `backward` silnik odrzuci?
#
# Weźmy `x * w`, gdzie `x` ma kształt `(4, 3)`, a `w` kształt `(3,)`. Metodę `backward` można zepsuć na wiele
# sposobów: zły wzór, średnia zamiast sumy, zły kształt, za mało gradientów.
#
# <details><summary>Wybierz, zanim uruchomisz</summary>
#
# - **A.** Silnik zna `forward`, więc odrzuci każdy `backward`, który daje złe liczby.
# - **B.** Liczb nie sprawdza, ale gradient musi mieć dokładnie kształt swojego wejścia.
# - **C.** Sprawdza tylko, ile jest gradientów i czy kształt każdego da się sprowadzić do kształtu wejścia.
#
# </details>

# %% [markdown] lang="en"
# ## Which `backward` does the engine reject?
#
# Take `x * w`, where `x` has the shape `(4, 3)` and `w` the shape `(3,)`. There are many ways to break its
# `backward`: a wrong formula, a mean instead of a sum, a wrong shape, too few gradients.
#
# <details><summary>Choose before you run</summary>
#
# - **A.** The engine knows `forward`, so it rejects every `backward` that gives wrong numbers.
# - **B.** It does not check numbers, but a gradient must have exactly the shape of its input.
# - **C.** It checks only how many gradients there are, and that each can be reduced to its input's shape.
#
# </details>

# %%
Rule = Callable[[Tensor, Tensor, Tensor], tuple[Tensor | None, ...]]
RETURNS = (  # what backward returns for the incoming gradient g
    "g * w, (g * x).sum(0)",
    "g * w, g * x",
    "g * w, (g * x).sum(0), None",
    "g * w, (g * x).sum(0).double()",
    "g * w, (g * x).mean(0)",
    "g * x, (g * w).sum(0)",
    "g * w, None",
    "g * w,",
    "g * w, (g * x).sum(1)",
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


torch.manual_seed(0)
x43 = torch.randn(4, 3, requires_grad=True)
w3 = torch.randn(3, requires_grad=True)
truth = torch.autograd.grad((x43 * w3).sum(), (x43, w3))


def verdict(returns: str) -> str:
    y = scale_by(returns).apply(x43, w3)
    try:
        got = torch.autograd.grad(y.sum(), (x43, w3), allow_unused=True)
    except RuntimeError as error:
        return str(error)
    pairs = zip(got, truth, strict=True)
    right = all(g is not None and torch.allclose(g, t) for g, t in pairs)
    return "right" if right else "wrong"


verdicts = {returns: verdict(returns) for returns in RETURNS}
accepted = {
    "right": say(pl="przyjęty, dobry", en="accepted, right"),
    "wrong": say(pl="przyjęty, ZŁY", en="accepted, WRONG"),
}
for returns, result in verdicts.items():
    print(f"{returns:32} {accepted.get(result, result)}")
assert list(verdicts.values()) == ["right"] * 4 + ["wrong"] * 3 + [
    "function ScaleBackward returned an incorrect number of gradients "
    "(expected 2, got 1)",
    "Function ScaleBackward returned an invalid gradient at index 1 "
    "- got [4] but expected shape compatible with [3]",
]

# %% [markdown] lang="pl"
# Prawdziwa jest odpowiedź C.
#
# - **A** przegrywa z wierszami 5–7: średnia, zamienione wejścia i `None` przechodzą bez słowa. Silnik nie liczy
#   `forward` drugi raz, więc nie ma z czym porównać liczb.
# - **B** przegrywa z wierszem 2: gradient o kształcie `(4, 3)` trafia do `w` o kształcie `(3,)`, bo silnik
#   sumuje to, co rozgłaszanie (broadcasting) powieliło. Tak samo rzutuje `float64` na typ wejścia i pomija
#   nadmiarowy `None` na końcu.
#
# Dlatego wolno pominąć sumę, ale nie wolno się w niej pomylić: wynik `mean(0)` ma już dobry kształt.
# Liczbę i kształty sprawdza funkcja `validate_outputs`
# w pliku [engine.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp).
#
# Ile kosztuje brakujący składnik z pierwszego programu?

# %% [markdown] lang="en"
# The answer is C.
#
# - **A** loses to rows 5–7: the mean, the swapped inputs and `None` pass without a word. The engine does not
#   compute `forward` again, so it has nothing to compare the numbers with.
# - **B** loses to row 2: a gradient of the shape `(4, 3)` reaches `w` of the shape `(3,)`, because the engine
#   sums what broadcasting repeated. In the same way it casts `float64` to the input's type and ignores
#   an extra `None` at the end.
#
# So you may leave the sum out, but you may not get it wrong: the result of `mean(0)` already has a good shape.
# Count and shapes are checked by the function `validate_outputs`
# in [engine.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp).
#
# What does the missing term of the first program cost?

# %%
right = train(silu, steps)
hasty_penalty = hasty[-1] / right[-1]

point = torch.tensor(-2.0, requires_grad=True)
(hasty_slope,) = torch.autograd.grad(HastySilu.apply(point), point)
(true_slope,) = torch.autograd.grad(silu(point), point)
hasty_at_minus_2, true_at_minus_2 = hasty_slope.item(), true_slope.item()

print(f"{right[-1]:.4f}, {hasty_penalty:.1f}x")
assert hasty_penalty > 2
assert hasty_at_minus_2 > 0 > true_at_minus_2

# %% [markdown] lang="pl"
# Z poprawną pochodną ta sama sieć kończy ze stratą {{ hasty_penalty:.1f }}× mniejszą. W punkcie −2 pochodna
# wynosi {{ true_at_minus_2:.3f }}, a nasza {{ hasty_at_minus_2:.3f }}: zły jest nawet znak. To cicha awaria
# (silent failure), bo przybliżony kierunek wystarcza, żeby strata spadała.

# %% [markdown] lang="en"
# With the correct derivative the same network ends with a loss {{ hasty_penalty:.1f }}× smaller. At −2 the
# derivative is {{ true_at_minus_2:.3f }} and ours is {{ hasty_at_minus_2:.3f }}: even the sign is wrong. This
# is a silent failure, because a roughly right direction is enough to make the loss fall.

# %% [markdown] lang="pl"
# ## Jedna strzałka decyduje o wycieku
#
# Pochodna funkcji tanh to $1 - y^2$, więc `backward` potrzebuje wyniku `y`. Można go oddać metodzie
# `save_for_backward` albo przypiąć do `ctx` jako atrybut. Obie wersje liczą ten sam gradient.

# %% [markdown] lang="en"
# ## One arrow decides about a leak
#
# The derivative of tanh is $1 - y^2$, so `backward` needs the result `y`. You can hand it to
# `save_for_backward`, or pin it to `ctx` as an attribute. Both versions compute the same gradient.


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


class PinnedTanh(Tanh):
    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.y = output  # type: ignore[attr-defined]  # mypy is right to object

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        y: Tensor = ctx.y  # type: ignore[attr-defined]
        return grad * (1 - y * y)


x1000 = torch.ones(1000, requires_grad=True)
y_saved, y_pinned = Tanh.apply(x1000), PinnedTanh.apply(x1000)
(saved_gradient,) = torch.autograd.grad(y_saved.sum(), x1000, retain_graph=True)
(pinned_gradient,) = torch.autograd.grad(y_pinned.sum(), x1000, retain_graph=True)
assert torch.equal(saved_gradient, pinned_gradient)

(unpacked,) = y_saved.grad_fn.saved_tensors
assert unpacked is not y_saved  # another tensor...
assert unpacked.data_ptr() == y_saved.data_ptr()  # ...over the same storage
assert y_pinned.grad_fn.y is y_pinned  # the very object


# %% fold=true
def draw_references(ax: Axes, y: Tensor, title: str) -> None:
    """Draw which of the four objects hold which, as read from the objects."""
    node: Any = y.grad_fn
    kept = node.saved_tensors
    held = {
        ("y", "node", "grad_fn", GRAY): True,
        ("y", "storage", "", GRAY): True,
        ("node", "leaf", "", GRAY): node.next_functions[0][0].variable is x1000,
        ("node", "storage", "SavedVariable", GREEN): bool(kept)
        and kept[0].data_ptr() == y.data_ptr(),
        ("node", "y", "ctx.y", RED): any(v is y for v in vars(node).values()),
    }
    places = {
        "y": (0.1, 0.72, "output y", BLUE),
        "node": (0.76, 0.72, f"{node.name()}\n= ctx", ORANGE),
        "storage": (0.1, 0.12, f"{y.untyped_storage().nbytes()} B", GREEN),
        "leaf": (0.76, 0.12, "AccumulateGrad(x)", GRAY),
    }
    boxes = {}
    for name, (across, up, text, color) in places.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": "none", "edgecolor": color}
        label = ax.text(across, up, text, ha="center", va="center", bbox=box)
        boxes[name] = label.get_bbox_patch()
    ax.set(xlim=(-0.08, 1.08), ylim=(0, 1.05), title=title)
    ax.axis("off")
    ax.figure.canvas.draw()  # the boxes get their sizes
    for start, end, label_text, color in (link for link, yes in held.items() if yes):
        (x0, y0), (x1, y1) = places[start][:2], places[end][:2]
        back = (start, end) == ("node", "y")
        style = {
            "arrowstyle": "-|>",
            "color": color,
            "lw": 2,
            "patchA": boxes[start],
            "patchB": boxes[end],
            "shrinkA": 2,
            "shrinkB": 2,
            "connectionstyle": f"arc3,rad={0.55 if back else 0}",
        }
        ax.annotate("", (x1, y1), (x0, y0), arrowprops=style)
        lift = 0.26 if back else -0.13 if y0 == y1 else -0.12
        side = "center" if y0 == y1 else "left"
        middle = (x0 + x1) / 2 - (0.03 if y0 == y1 else 0.0)
        ax.text(middle, (y0 + y1) / 2 + lift, label_text, ha=side, fontsize=9)


fig, (left, right_ax) = plt.subplots(1, 2, figsize=(7.2, 2.9))
draw_references(left, y_saved, "save_for_backward(y)")
draw_references(right_ax, y_pinned, "ctx.y = y")
show_figure(
    fig,
    alt_pl="Dwa grafy referencji. Po lewej węzeł trzyma magazyn wyniku i strzałki nie "
    "tworzą pętli. Po prawej czerwona strzałka prowadzi z węzła do wyniku i zamyka pętlę.",
    alt_en="Two graphs of references. On the left the node holds the storage of the result "
    "and the arrows form no loop. On the right a red arrow leads from the node to the "
    "result and closes a loop.",
    pl={"output y": "wynik y"},
    same=(
        "save_for_backward(y)",
        "ctx.y = y",
        "grad_fn",
        "ctx.y",
        "SavedVariable",
        "AccumulateGrad(x)",
        "TanhBackward\n= ctx",
        "PinnedTanhBackward\n= ctx",
    ),
)

# %% [markdown] lang="pl"
# Po lewej węzeł trzyma tylko magazyn danych (storage) wyniku; po prawej czerwona strzałka zamyka pętlę
# wynik → węzeł → wynik. Liczniki referencji takiej pętli nie zwolnią: pamięć czeka na odśmiecacz
# Pythona (garbage collector).

# %% [markdown] lang="en"
# On the left the node holds only the storage of the result; on the right the red arrow closes a loop
# result → node → result. Reference counts never free such a loop: the memory waits for Python's
# garbage collector.

# %% [markdown] lang="pl"
# ## Co robi `apply`
#
# Metoda `apply` wykonuje `forward` i `setup_context` z wyłączonym zapisem operacji, a potem dołącza do wyniku jeden
# węzeł grafu obliczeniowego (computational graph). Obiekt `ctx` to ten sam węzeł, który widzisz jako `grad_fn`.

# %% [markdown] lang="en"
# ## What `apply` does
#
# `apply` runs `forward` and `setup_context` with recording switched off, and then attaches one node of the
# computational graph to the result. The object `ctx` is the very node that you see as `grad_fn`.

# %%
trace: list[tuple[str, bool]] = []
contexts: list[Context] = []


class Traced(Tanh):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        trace.append(("forward", torch.is_grad_enabled()))
        return Tanh.forward(x)

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        trace.append(("setup_context", torch.is_grad_enabled()))
        contexts.append(ctx)
        Tanh.setup_context(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        trace.append(("backward", torch.is_grad_enabled()))
        contexts.append(ctx)
        return Tanh.backward(ctx, grad)


y = Traced.apply(x1000)
torch.autograd.grad(y.sum(), x1000, retain_graph=True)
torch.autograd.grad(y.sum(), x1000, create_graph=True)
for step in trace:
    print(*step)
assert [on for _, on in trace] == [False, False, False, True]
assert all(ctx is y.grad_fn for ctx in contexts)
contexts.clear()

# %% [markdown] lang="pl"
# Z `create_graph=True` operacje metody `backward` same trafiają do grafu: z nich powstaje druga pochodna. Wrócimy
# do tego. Węzeł tworzy funkcja `THPFunction_apply`
# w pliku [python_function.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/python_function.cpp).
#
# Tensor oddany metodzie `save_for_backward` staje się obiektem `SavedVariable`: pamięta licznik wersji, a po
# przejściu wstecz (backward pass) zostaje zwolniony. Sprawdźmy na częstym błędzie: ktoś przelicza wynik na
# procenty do raportu, a operacja w miejscu (in-place operation) zmienia wspólny magazyn.

# %% [markdown] lang="en"
# With `create_graph=True` the operations of `backward` are recorded too: the second derivative grows from them.
# We shall come back to this. The node is made by `THPFunction_apply`
# in [python_function.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/python_function.cpp).
#
# A tensor handed to `save_for_backward` becomes a `SavedVariable`: it remembers the version counter, and it is
# released after the backward pass. Let us test it on a common mistake: someone turns the result into per cent
# for a report, and the in-place operation changes the shared storage.


# %% raises="RuntimeError: has been modified by an inplace operation"
def log_then_backward(fn: type[Function]) -> Tensor:
    x = torch.ones(1, requires_grad=True)
    y = fn.apply(x)
    percent = y.detach()
    percent *= 100
    y.sum().backward(retain_graph=True)
    assert x.grad is not None
    return x.grad


log_then_backward(Tanh)

# %%
corrupted = log_then_backward(PinnedTanh).item()
intended = 1 - torch.ones(1).tanh().square().item()
print(f"{corrupted:.1f}, {intended:.2f}")
assert corrupted < -5000 and 0.41 < intended < 0.43

twice = torch.ones(1, requires_grad=True)
y = PinnedTanh.apply(twice).sum()
y.backward()
y.backward()  # no error: there is nothing that the engine could have freed
assert twice.grad is not None and abs(twice.grad.item() - 2 * intended) < 1e-6

# %% raises="RuntimeError: Trying to backward through the graph a second time"
y = Tanh.apply(x1000).sum()
y.backward()
y.backward()

# %% [markdown] lang="pl"
# Atrybut omija oba zabezpieczenia: gradient wynosi {{ corrupted:.0f }} zamiast {{ intended:.2f }}, a drugie
# przejście po cichu go podwaja. Oba komunikaty zgłasza metoda `SavedVariable::unpack`
# w pliku [saved_variable.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp).

# %% [markdown] lang="en"
# The attribute bypasses both safeguards: the gradient is {{ corrupted:.0f }} instead of {{ intended:.2f }}, and
# a second pass silently doubles it. Both messages come from `SavedVariable::unpack`
# in [saved_variable.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp).

# %% [markdown] lang="pl"
# ## Zbuduj własną taśmę
#
# Węzeł, trzy metody i pętla, która bierze węzły od najpóźniejszego. Ten silnik uruchamia klasy z góry bez
# żadnej zmiany: dostają nasz `Node` zamiast `ctx`.

# %% [markdown] lang="en"
# ## Build your own tape
#
# A node, three methods, and a loop that takes nodes from the latest one. This engine runs the classes above
# without any change: they receive our `Node` instead of `ctx`.

# %%
clock = itertools.count()


@dataclass(eq=False)
class Var:
    data: Tensor
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
    node, data = Node(rule, inputs), tuple(var.data for var in inputs)
    with torch.no_grad():
        output: Tensor = rule.forward(*data)
        rule.setup_context(node, data, output)
    return Var(output, node)


def validate(grads: tuple[Tensor | None, ...], inputs: tuple[Var, ...]) -> None:
    expected, got = len(inputs), len(grads)
    if got < expected or any(grad is not None for grad in grads[expected:]):
        raise RuntimeError(f"{got} gradients for {expected} inputs")
    for grad, var in zip(grads, inputs, strict=False):
        if grad is not None:
            var.data.expand(grad.shape)  # raises: the shape is not compatible


def backward(root: Var) -> None:
    root.grad = torch.ones_like(root.data)
    ready = {root.node: root} if root.node else {}
    while ready:
        node = max(ready, key=lambda node: node.number)
        result = node.rule.backward(node, ready.pop(node).grad)
        grads = result if isinstance(result, tuple) else (result,)
        validate(grads, node.inputs)
        node.saved = None
        for grad, var in zip(grads, node.inputs, strict=False):
            if grad is not None:
                grad = grad.sum_to_size(var.data.shape).to(var.data.dtype)
                var.grad = grad if var.grad is None else var.grad + grad
                if var.node is not None:
                    ready[var.node] = var


# %% [markdown] lang="pl"
# Wyrocznią jest torch: losowe wyrażenia liczymy naszą taśmą i zwykłymi operacjami PyTorcha, a werdykty o dziewięciu
# wersjach `backward` muszą się zgodzić. Na koniec te same dwa błędy: zmiana w miejscu i drugie przejście.

# %% [markdown] lang="en"
# The oracle is torch: we compute random expressions with our tape and with PyTorch's ordinary operations, and
# the verdicts on the nine versions of `backward` have to agree. Last come the same two errors: a change in place
# and a second pass.

# %%
Scale = scale_by("g * w, g * x")  # leaves the sum to the engine
expressions = 200
for seed in range(expressions):
    pick = random.Random(seed)
    torch.manual_seed(seed)
    leaves = [torch.randn(s).double().requires_grad_() for s in ((4, 3), (3,), (1,))]
    ours, theirs = [Var(leaf.detach()) for leaf in leaves], [*leaves]
    for _ in range(8):
        i, j = pick.randrange(len(ours)), pick.randrange(len(ours))
        if pick.random() < 0.5:
            ours.append(apply(Tanh, ours[i]))
            theirs.append(theirs[i].tanh())
        else:
            # Scale stands for x * w with any shapes that broadcast.
            ours.append(apply(Scale, ours[i], ours[j]))
            theirs.append(theirs[i] * theirs[j])
    backward(ours[-1])
    for var, gradient in zip(
        ours,
        torch.autograd.grad(theirs[-1].sum(), leaves, allow_unused=True),
        strict=False,
    ):
        assert (var.grad is None) == (gradient is None)
        assert var.grad is None or torch.allclose(var.grad, gradient, rtol=1e-9)


def complaint(check: Callable[[], object]) -> str:
    """The first line of the exception that the check raises, else an empty string."""
    try:
        check()
    except Exception as error:
        return str(error).splitlines()[0]
    return ""


def our_verdict(returns: str) -> str:
    x, w = Var(x43.detach()), Var(w3.detach())
    if complaint(lambda: backward(apply(scale_by(returns), x, w))):
        return "rejected"
    pairs = zip((x.grad, w.grad), truth, strict=True)
    right = all(g is not None and torch.allclose(g, t) for g, t in pairs)
    return "right" if right else "wrong"


for returns, result in verdicts.items():
    expected = result if result in accepted else "rejected"
    assert our_verdict(returns) == expected

y_var = apply(Tanh, Var(torch.ones(3)))
y_var.data *= 100
assert "modified by an inplace operation" in complaint(partial(backward, y_var))
y_var = apply(Tanh, Var(torch.ones(3)))
backward(y_var)
assert "a second time" in complaint(partial(backward, y_var))

# %% [markdown] lang="pl"
# {{ expressions }} wyrażeń daje te same gradienty. Zauważ, czego w kodzie nie ma: żaden wiersz nie porównuje
# `forward` z `backward`.

# %% [markdown] lang="en"
# {{ expressions }} expressions give the same gradients. Notice what the code does not have: no line compares
# `forward` with `backward`.

# %% [markdown] lang="pl"
# ## Ile bajtów czeka na `backward`
#
# Model kosztu: pamięć grafu to rozmiary zapamiętanych tensorów (saved tensors), każdy liczony raz. Dla 1000 × 1000 liczb
# `float32` jeden tensor to 4 MB. Złożenie `x * x.sigmoid()` zapamiętuje `x` i $\sigma(x)$, czyli 8 MB. Własna
# funkcja może zapamiętać samo `x` i policzyć $\sigma(x)$ ponownie, czyli 4 MB: bajty wymieniamy na pracę.

# %% [markdown] lang="en"
# ## How many bytes wait for `backward`
#
# The cost model: the memory of a graph is the sizes of its saved tensors, each counted once. For 1000 × 1000 numbers of
# `float32` one tensor is 4 MB. The composition `x * x.sigmoid()` saves `x` and $\sigma(x)$, so 8 MB. A custom
# function can save `x` alone and compute $\sigma(x)$ again, so 4 MB: we trade bytes for work.


# %%
def silu_slope(x: Tensor) -> Tensor:
    s = x.sigmoid()
    return s + x * s * (1 - s)


class Silu(HastySilu):
    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * silu_slope(x)

    @staticmethod
    def jvp(ctx: Context, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * silu_slope(x)


def bytes_saved(fn: Callable[[Tensor], Tensor], x: Tensor) -> int:
    with saved_bytes() as saved:
        fn(x)
    return saved.total


million = torch.randn(1000, 1000, requires_grad=True)
composed_bytes = bytes_saved(lambda x: x * x.sigmoid(), million)
custom_bytes = bytes_saved(Silu.apply, million)
builtin_bytes = bytes_saved(silu, million)
pinned_bytes = bytes_saved(PinnedTanh.apply, million)
print(composed_bytes, custom_bytes, builtin_bytes, pinned_bytes)
assert composed_bytes == 8_000_000 and custom_bytes == builtin_bytes == 4_000_000
assert pinned_bytes == 0

# %% [markdown] lang="pl"
# Przewidywanie trafia co do bajta: {{ composed_bytes }} B, {{ custom_bytes }} B, a wbudowana funkcja `silu`
# też {{ builtin_bytes }} B. Ostatnia liczba to 0, bo atrybutu na `ctx` nie widzą hooki zapamiętanych
# tensorów: nie policzą go i nie przeniosą do innej pamięci. A żyje dłużej niż reszta:

# %% [markdown] lang="en"
# The prediction is exact to the byte: {{ composed_bytes }} B, {{ custom_bytes }} B, and the built-in `silu`
# also {{ builtin_bytes }} B. The last number is 0, because the hooks of saved tensors do not see an attribute
# on `ctx`: they neither count it nor offload it. And it outlives the rest:


# %%
def bytes_left(fn: type[Function], calls: int) -> tuple[int, int]:
    """Bytes alive after calls whose results are dropped: before and after gc."""
    gc.collect()
    gc.disable()
    with MemoryMeter() as meter:
        for _ in range(calls):
            fn.apply(x1000)
    before = meter.live
    gc.enable()
    gc.collect()
    return before, meter.live


calls = 10
saved_left = bytes_left(Tanh, calls)
pinned_left = bytes_left(PinnedTanh, calls)
leaked_bytes = pinned_left[0]
print(saved_left, pinned_left)
assert saved_left == (0, 0)
assert pinned_left == (calls * 4000, 0)

# %% [markdown] lang="pl"
# Po {{ calls }} wywołaniach, których wyniki od razu wyrzucamy, zostaje {{ leaked_bytes }} B, dopóki nie zadziała
# odśmiecacz. Ten liczy obiekty, nie bajty: mały węzeł z dużym tensorem go nie obudzi. Na GPU wygląda to jak
# pamięć rosnąca bez powodu (tu niezmierzone: pomiary robimy na CPU).

# %% [markdown] lang="en"
# After {{ calls }} calls whose results we drop at once, {{ leaked_bytes }} B stay until the collector runs. It
# counts objects, not bytes: a small node with a large tensor does not wake it. On a GPU this looks like memory
# that grows for no reason (not measured here: our measurements are on the CPU).

# %% [markdown] lang="pl"
# ## Zielony `gradcheck`, zła druga pochodna
#
# Liczb silnik nie sprawdza, ale robi to `gradcheck`: porównuje `backward` z ilorazami różnicowymi funkcji
# `forward`. Uruchamiaj go w `float64`: w `float32` iloraz różnicowy jest zbyt niedokładny,
# więc odpada nawet poprawna klasa `Silu`, a PyTorch ostrzega. Błąd z pierwszej sekcji wykrywa od razu.

# %% [markdown] lang="en"
# ## Green `gradcheck`, wrong second derivative
#
# The engine does not check numbers, but `gradcheck` does: it compares `backward` with finite differences of
# `forward`. Run it in `float64`: in `float32` a finite difference is too inaccurate, so even the
# correct class `Silu` fails, and PyTorch warns. The mistake of the first section is found at once.


# %% warns="UserWarning: is not a double precision floating point" raises="GradcheckError: Jacobian mismatch for output 0 with respect to input 0"
x64 = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
assert gradcheck(Silu.apply, x64)
x32 = x64.detach().float().requires_grad_()
assert complaint(partial(gradcheck, Silu.apply, x32))  # correct, and rejected
gradcheck(HastySilu.apply, x64)

# %% [markdown] lang="pl"
# Teraz odwrotnie: `gradcheck` przechodzi, a błąd i tak jest. Stary styl z `ctx` w metodzie `forward` kusi, żeby zapamiętać
# gotowe $\sigma(x)$ i nie liczyć go ponownie.

# %% [markdown] lang="en"
# Now the other way round: `gradcheck` passes and there is a mistake. The old style, with `ctx` in `forward`,
# tempts you to save the ready $\sigma(x)$ instead of computing it again.


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


def derivatives(fn: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative of an elementwise function."""
    (first,) = torch.autograd.grad(fn(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


half = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
cached_second = derivatives(CachedSilu.apply, half)[1].item()
true_second = derivatives(silu, half)[1].item()
print(complaint(lambda: gradgradcheck(CachedSilu.apply, x64)))
assert gradcheck(CachedSilu.apply, x64)
assert complaint(lambda: gradgradcheck(CachedSilu.apply, x64))
assert derivatives(Silu.apply, half)[1].item() == true_second

# %% fold=true
grid = torch.linspace(-5, 5, 201, dtype=torch.float64, requires_grad=True)
exact, cached = derivatives(silu, grid), derivatives(CachedSilu.apply, grid)
fig, panels = plt.subplots(1, 2, figsize=(7.2, 2.7))
for ax, order, good, bad in zip(
    panels, ("first", "second"), exact, cached, strict=True
):
    ax.plot(grid.detach(), good, color=GRAY, lw=5, alpha=0.6, label="true")
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
# Po lewej czerwona linia leży na szarej, po prawej już nie. W punkcie 0,5 druga pochodna wychodzi
# {{ cached_second:.4f }} zamiast {{ true_second:.4f }}, bez żadnego komunikatu. Powód: $\sigma(x)$ powstało przy
# wyłączonym zapisie, więc dla drugiej pochodnej jest stałą. Zepsuje się wszystko, co różniczkuje gradient:
# kara za gradient, hesjan, metauczenie.
#
# Lekarstwa są dwa. Klasa `Silu` zapamiętuje tylko wejście i liczy resztę w `backward`. Jeśli drugiej pochodnej
# nie potrzebujesz, zabroń jej dekoratorem `once_differentiable`. Ma on jednak lukę, którą pokazuje komórka
# poniżej: metoda `penalty().backward()` zgłasza błąd, ale `torch.autograd.grad` z sumy kary i `10 * half` omija
# węzeł z błędem i zwraca samo 10. Pewniejsze jest pierwsze lekarstwo.

# %% [markdown] lang="en"
# On the left the red line lies on the grey one; on the right it does not. At 0.5 the second derivative comes
# out as {{ cached_second:.4f }} instead of {{ true_second:.4f }}, without any message. The reason: $\sigma(x)$
# was made while recording was off, so to the second derivative it is a constant. It breaks everything that
# differentiates a gradient: gradient penalties, Hessians, meta-learning.
#
# There are two cures. The class `Silu` saves only the input and computes the rest in `backward`. If you do not
# need a second derivative, forbid it with the decorator `once_differentiable`. It has a gap, though, which the
# cell below shows: `penalty().backward()` raises, but `torch.autograd.grad` of the penalty plus `10 * half`
# bypasses the node with the error and returns just 10. The first cure is safer.


# %% raises="RuntimeError: trying to differentiate twice a function that was marked with @once_differentiable"
class OnceSilu(CachedSilu):
    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        return CachedSilu.backward(ctx, grad)


def penalty() -> Tensor:
    y = OnceSilu.apply(half).square()
    (slope,) = torch.autograd.grad(y, half, create_graph=True)
    return slope


(total,) = torch.autograd.grad(penalty() + 10 * half, half)
assert total == 10  # the second derivative is missing, and nobody says so
penalty().backward()

# %% [markdown] lang="pl"
# ### `vmap` i tryb postępowy
#
# Transformacje `torch.func` wymagają osobnej metody `setup_context`. Dla `vmap` wystarcza
# `generate_vmap_rule = True`, o ile metody składają się z operacji PyTorcha. Tryb postępowy (forward mode)
# używa metody `jvp`, której nikt nie porównuje z `backward`.

# %% [markdown] lang="en"
# ### `vmap` and forward mode
#
# The transforms of `torch.func` need a separate `setup_context`. For `vmap`,
# `generate_vmap_rule = True` is enough as long as the methods are made of PyTorch operations. Forward mode
# uses the method `jvp`, which nobody compares with `backward`.


# %%
class SloppySilu(Silu):
    @staticmethod
    def jvp(ctx: Context, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * x.sigmoid()


per_sample = torch.func.vmap(torch.func.grad(Silu.apply))
points, ones = x64.detach(), torch.ones_like(x64)
assert torch.allclose(per_sample(points), silu_slope(points))

demands = [
    complaint(lambda: torch.func.grad(CachedSilu.apply)(half.detach())),
    complaint(lambda: torch.func.vmap(HastySilu.apply)(points)),
    complaint(lambda: torch.func.jvp(HastySilu.apply, (points,), (ones,))),
]
print(*demands, sep="\n\n")
assert "must override the setup_context staticmethod" in demands[0]
assert "generate_vmap_rule=True" in demands[1]
assert "You must implement the jvp function" in demands[2]

tangent = torch.func.jvp(SloppySilu.apply, (points,), (ones,))[1]
assert not torch.allclose(tangent, silu_slope(points))  # silently wrong
assert gradcheck(SloppySilu.apply, x64)  # and green
assert complaint(lambda: gradcheck(SloppySilu.apply, x64, check_forward_ad=True))
assert gradcheck(Silu.apply, x64, check_forward_ad=True)

# %% [markdown] lang="pl"
# Brak metody kończy się wyjątkiem. Zły wzór w `jvp` jest cichy: `gradcheck` zagląda tam dopiero z `check_forward_ad=True`.
#
# ### Jądro spoza PyTorcha: `torch.library.custom_op`
#
# `Function` opisuje pochodną. Jeśli ciało funkcji to obce jądro (C++, Triton, tu NumPy), kompilator i eksport muszą
# jeszcze wiedzieć, jaki kształt ma wynik i co zostało zmienione w miejscu. Do tego służy `custom_op`, dziś zalecana
# droga (stan na torch 2.15).

# %% [markdown] lang="en"
# A missing method ends in an exception. A wrong formula in `jvp` is silent: `gradcheck` looks there only with
# `check_forward_ad=True`.
#
# ### A kernel from outside PyTorch: `torch.library.custom_op`
#
# `Function` describes a derivative. If the body is a foreign kernel (C++, Triton, here NumPy), a compiler and
# an exporter also have to know the shape of the result and what was changed in place. That is what `custom_op`
# is for, today's recommended road (as of torch 2.15).


# %%
def numpy_silu(x: Tensor) -> Tensor:
    array = x.numpy()
    return torch.from_numpy(array / (1 + np.exp(-array)))


def make_op(name: str, slope: Callable[[Tensor], Tensor]) -> CustomOpDef:
    op = custom_op(f"blackbelt::{name}", numpy_silu, mutates_args=())

    def setup(ctx: Context, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * slope(x)

    op.register_fake(torch.empty_like)
    op.register_autograd(backward, setup_context=setup)
    return op


class NumpySilu(Silu):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return numpy_silu(x)


silu_op = make_op("silu", silu_slope)
graph = make_fx(silu_op, tracing_mode="fake")(points).graph
calls_in_graph = [
    str(node.target) for node in graph.nodes if node.op == "call_function"
]
assert calls_in_graph == ["blackbelt.silu.default"]
print(*calls_in_graph)
opaque = complaint(lambda: make_fx(NumpySilu.apply, tracing_mode="fake")(points))
print(opaque)
assert ".numpy() is not supported for tensor subclasses" in opaque

# %% [markdown] lang="pl"
# Śledzenie na tensorach bez danych widzi operator jako jeden węzeł; na klasie `Function` z tym samym kodem
# kończy się błędem. Tę umowę sprawdza `opcheck`: schemat, rejestrację pochodnej, kształty, śledzenie. Co przepuści?

# %% [markdown] lang="en"
# Tracing on tensors without data sees the operator as one node; on a `Function` with the same body it
# fails. This agreement is checked by `opcheck`: schema, registration of the derivative, shapes, tracing. What
# does it let through?

# %%
hasty_op = make_op("hasty_silu", torch.sigmoid)
report = opcheck(hasty_op, (x64,))
for test, status in report.items():
    print(f"{test:28} {status}")
assert len(report) == 4 and set(report.values()) == {"SUCCESS"}
assert complaint(lambda: gradcheck(hasty_op, x64))
assert gradcheck(silu_op, x64) and gradgradcheck(silu_op, x64)


@custom_op("blackbelt::scale_in_place", mutates_args=())  # a lie
def scale_in_place(x: Tensor) -> Tensor:
    x.mul_(2)
    return x.clone()


mutation = complaint(
    lambda: opcheck(scale_in_place, (torch.ones(3),), test_utils="test_schema")
)
print(mutation)
assert "Argument x is not defined as mutable but was mutated" in mutation

lost = torch.func.jvp(silu_op, (points,), (ones,))[1]
refused = complaint(lambda: torch.func.grad(silu_op)(half.detach()))
print(lost)
assert lost.eq(0).all()
assert "must override the setup_context staticmethod" in refused

# %% [markdown] lang="pl"
# `opcheck` daje cztery razy `SUCCESS` operatorowi ze złą pochodną, a łapie ukrytą zmianę argumentu: pilnuje
# umowy z kompilatorem, nie liczb. Liczby wciąż należą do `gradcheck`. Druga niespodzianka: w torch 2.15
# transformacja `torch.func.jvp` zwraca dla operatora same zera, bez wyjątku, a `torch.func.grad` odmawia. Do
# transformacji `torch.func` zostaje więc `Function`, a do obcych jąder i kompilacji – `custom_op`.
#
# ### Strażnik do wklejenia
#
# Żadne pojedyncze sprawdzenie nie wystarcza, dlatego strażnik łączy je wszystkie.

# %% [markdown] lang="en"
# `opcheck` says `SUCCESS` four times to an operator with a wrong derivative, and catches the hidden change of an
# argument: it guards the agreement with the compiler, not numbers. Numbers still belong to `gradcheck`. The
# second surprise: in torch 2.15 `torch.func.jvp` returns only zeros for the operator, with no exception, while
# `torch.func.grad` refuses. So `Function` is for the transforms of `torch.func`, and `custom_op` for foreign
# kernels and compilation.
#
# ### A guard to paste
#
# No single check is enough, so the guard joins them all.


# %%
def assert_contract(
    fn: Callable[..., Tensor],
    *inputs: Tensor,
    twice: bool = True,
    forward_ad: bool = True,
) -> None:
    """Refuse a custom function that breaks what the engine does not verify."""
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    on_ctx = getattr(fn(*doubles).grad_fn, "__dict__", {}).items()
    pinned = [name for name, value in on_ctx if isinstance(value, Tensor)]
    assert not pinned, f"tensors on ctx: {pinned}"
    gradcheck(fn, doubles, check_batched_grad=True, check_forward_ad=forward_ad)
    if twice:
        gradgradcheck(fn, doubles)


suspects: dict[str, Callable[[Tensor], Tensor]] = {
    "Silu": Silu.apply,
    "HastySilu": HastySilu.apply,
    "PinnedTanh": PinnedTanh.apply,
    "CachedSilu": CachedSilu.apply,
    "SloppySilu": SloppySilu.apply,
    "silu_op": silu_op,
    "hasty_op": hasty_op,
}


print("gradcheck  guard(forward_ad=False)  guard")
passed: dict[str, tuple[bool, bool, bool]] = {}
for name, fn in suspects.items():
    passed[name] = (
        not complaint(partial(gradcheck, fn, x64)),
        not complaint(partial(assert_contract, fn, points, forward_ad=False)),
        not complaint(partial(assert_contract, fn, points)),
    )
    plain, backward_only, full = ("+" if ok else "-" for ok in passed[name])
    print(f"{plain:^9}  {backward_only:^23}  {full:^5}  {name}")
assert [name for name, (plain, _, _) in passed.items() if not plain] == [
    "HastySilu",
    "hasty_op",
]
assert [name for name, (_, reverse, _) in passed.items() if reverse] == [
    "Silu",
    "SloppySilu",
    "silu_op",
]
assert [name for name, (_, _, full) in passed.items() if full] == ["Silu"]

# %% [markdown] lang="pl"
# Sam `gradcheck` odrzuca dwie z sześciu złych wersji, pełny strażnik wszystkie sześć. `silu_op` odpada tylko
# w trybie postępowym: jeśli go nie używasz, ustaw `forward_ad=False`.
#
# > [!WARNING]
# > `gradcheck` zakłada, że w badanych punktach pochodna istnieje. Nie wybieraj zera dla `relu` ani połówek dla
# > `round`.
#
# Na GPU (tu niezmierzone) kontrakt jest ten sam: silnik, kontekst i strażnik nie zależą od urządzenia.

# %% [markdown] lang="en"
# `gradcheck` alone rejects two of the six bad versions, the full guard all six. `silu_op` fails only in forward
# mode: if you do not use it, set `forward_ad=False`.
#
# > [!WARNING]
# > `gradcheck` assumes that the derivative exists at the tested points. Do not choose zero for `relu` or halves
# > for `round`.
#
# On a GPU (not measured here) the contract is the same: the engine, the context and the guard do not depend on
# the device.

# %% [markdown] lang="pl"
# ## Pasy
#
# Teraz umiesz powiedzieć, co silnik sprawdził w twoim `backward` (liczbę i kształt), wybrać, co zapamiętać
# i gdzie, oraz udowodnić resztę strażnikiem.
#
# - Poprzednia lekcja: 09 „Kto śledzi gradient: detach, no_grad, inference_mode”. Następna: 11 „Jakobian i hesjan
#   (najlepiej bez macierzy)”. O wspólnym magazynie, który zepsuł nam wynik:
#   [lekcja 01](../1_tensors/01_storage_vs_view.py).
# - Dokumentacja: [Extending PyTorch](https://docs.pytorch.org/docs/2.15/notes/extending.html),
#   [Extending torch.func](https://docs.pytorch.org/docs/2.15/notes/extending.func.html),
#   [Gradcheck mechanics](https://docs.pytorch.org/docs/2.15/notes/gradcheck.html),
#   [torch.library](https://docs.pytorch.org/docs/2.15/library.html).

# %% [markdown] lang="en"
# ## Belts
#
# Now you can say what the engine has checked in your `backward` (count and shape), choose what to save and
# where, and prove the rest with a guard.
#
# - Previous lesson: 09 "Who tracks the gradient: detach, no_grad, inference_mode". Next: 11 "Jacobians and
#   Hessians (preferably without the matrix)". On the shared storage that corrupted our result:
#   [lesson 01](../1_tensors/01_storage_vs_view.py).
# - Documentation: [Extending PyTorch](https://docs.pytorch.org/docs/2.15/notes/extending.html),
#   [Extending torch.func](https://docs.pytorch.org/docs/2.15/notes/extending.func.html),
#   [Gradcheck mechanics](https://docs.pytorch.org/docs/2.15/notes/gradcheck.html),
#   [torch.library](https://docs.pytorch.org/docs/2.15/library.html).

# %% [markdown] lang="pl" exercise="straight-through" role="prompt" belt="white" minutes=5
# ### Gradient przez zaokrąglenie
#
# Wagi trójwartościowe to `x.clamp(-1, 1).round()`. Prawdziwa pochodna jest prawie wszędzie zerem, więc sieć by się nie
# uczyła. Napisz `backward`, który oszukuje celowo (straight-through): w przedziale [−1, 1] przepuszcza gradient bez
# zmian, poza nim zwraca zero. Tu `gradcheck` nie może przejść, i to jest w porządku.

# %% [markdown] lang="en" exercise="straight-through" role="prompt" belt="white" minutes=5
# ### A gradient through rounding
#
# Ternary weights are `x.clamp(-1, 1).round()`. The true derivative is zero almost everywhere, so a network would not
# learn. Write a `backward` that cheats on purpose (straight-through): inside [−1, 1] it passes the gradient
# unchanged, outside it returns zero. Here `gradcheck` cannot pass, and that is fine.


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
weights = torch.tensor([-2.0, -1.0, -0.4, 0.3, 1.0, 3.0], requires_grad=True)
incoming = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
(passed_on,) = torch.autograd.grad(Ternary.apply(weights), weights, incoming)
inside, outside = passed_on[1:5].tolist(), passed_on[[0, 5]].tolist()
assert inside == [2, 3, 4, 5], say(
    pl=f"w przedziale [-1, 1] gradient ma przejść bez zmian, a jest {inside}",
    en=f"inside [-1, 1] the gradient has to pass unchanged, but got {inside}",
)
assert outside == [0, 0], say(
    pl=f"poza przedziałem [-1, 1] gradient ma być zerem, a jest {outside}",
    en=f"outside [-1, 1] the gradient has to be zero, but got {outside}",
)

assert complaint(partial(gradcheck, Ternary.apply, x64)), say(
    pl="gradcheck przechodzi, więc gradient nie oszukuje",
    en="gradcheck passes, so the gradient does not cheat",
)

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


# %% exercise="straight-through" role="wrong" says="but got [1.0, 1.0, 1.0, 1.0]"
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
# Zapisane jako złożenie, `silu(a) * b` zapamiętuje trzy tensory: 12 MB dla 1000 × 1000 liczb. Napisz `SwiGlu`,
# która zapamiętuje dwa (8 MB), ma poprawne gradienty obu wejść i niczego nie przypina do `ctx`.

# %% [markdown] lang="en" exercise="swiglu" role="prompt" belt="brown" minutes=15
# ### SwiGLU for two tensors
#
# Written as a composition, `silu(a) * b` saves three tensors: 12 MB for 1000 × 1000 numbers. Write `SwiGlu`
# that saves two (8 MB), has correct gradients of both inputs, and pins nothing to `ctx`.


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
gates = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in "ab"]
mismatch = complaint(lambda: gradcheck(SwiGlu.apply, gates))
assert not mismatch, say(
    pl=f"gradcheck widzi zły gradient: {mismatch}",
    en=f"gradcheck sees a wrong gradient: {mismatch}",
)
on_ctx = list(vars(SwiGlu.apply(*gates).grad_fn))
assert not on_ctx, say(
    pl=f"na ctx wiszą atrybuty: {on_ctx}", en=f"ctx carries attributes: {on_ctx}"
)
bigs = [torch.randn(1000, 1000, requires_grad=True) for _ in "ab"]
with saved_bytes() as composition:
    silu(bigs[0]) * bigs[1]
assert composition.total == 12_000_000
with saved_bytes() as meter:
    SwiGlu.apply(*bigs)
assert meter.total == 8_000_000, say(
    pl=f"zapamiętane bajty: {meter.total}, a ma być 8000000",
    en=f"saved bytes: {meter.total}, and there should be 8000000",
)

# %% [markdown] lang="pl" exercise="swiglu" role="hint"
# Z samych `a` i `b` da się policzyć wszystko: gradient względem `a` zawiera `silu_slope(a)`, względem `b` zawiera
# `silu(a)`.

# %% [markdown] lang="en" exercise="swiglu" role="hint"
# Everything can be computed from `a` and `b` alone: the gradient of `a` contains `silu_slope(a)`, that of `b`
# contains `silu(a)`.


# %% exercise="swiglu" role="wrong" says="saved bytes: 12000000"
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


# %% exercise="swiglu" role="wrong" says="ctx carries attributes: ['inputs']"
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
        # silu(a) is computed again: cheap work instead of 4 MB that wait.
        return grad * b * silu_slope(a), grad * silu(a)


# %% [markdown] lang="pl" exercise="full-contract" role="prompt" belt="black" minutes=25
# ### Pełny kontrakt
#
# Napisz $f(x) = x\,e^x$ jako `XExp`, która przechodzi wszystkie próby: strażnika `assert_contract`, złożenie `vmap` z `grad`
# i hesjan z `torch.func`. Na przekątnej hesjanu ma stać $e^x (2 + x)$.

# %% [markdown] lang="en" exercise="full-contract" role="prompt" belt="black" minutes=25
# ### The full contract
#
# Write $f(x) = x\,e^x$ as `XExp` that passes everything: the guard `assert_contract`, `vmap` composed with `grad`,
# and the Hessian of `torch.func`. The diagonal of the Hessian has to be $e^x (2 + x)$.


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
tested = torch.linspace(-1, 1, 5, dtype=torch.float64)
trial = tested.clone().requires_grad_()
stages: dict[str, Callable[[], object]] = {
    "backward": lambda: gradcheck(XExp.apply, trial),
    "backward(backward)": lambda: gradgradcheck(XExp.apply, trial),
    "jvp": lambda: gradcheck(XExp.apply, trial, check_forward_ad=True),
    "vmap(grad)": lambda: torch.func.vmap(torch.func.grad(XExp.apply))(tested),
    "assert_contract": lambda: assert_contract(XExp.apply, tested),
}
for stage, attempt in stages.items():
    problem = complaint(attempt)
    assert not problem, say(
        pl=f"etap {stage}: {problem}", en=f"stage {stage}: {problem}"
    )
hessian = torch.func.hessian(lambda x: XExp.apply(x).sum())(tested)
assert torch.allclose(hessian, torch.diag(tested.exp() * (2 + tested))), say(
    pl=f"przekątna hesjanu: {hessian.diag().tolist()}",
    en=f"the diagonal of the Hessian: {hessian.diag().tolist()}",
)

# %% [markdown] lang="pl" exercise="full-contract" role="hint"
# Pochodna to $e^x (1 + x)$. Co zapamiętać, żeby `backward` dało się zróżniczkować jeszcze raz?

# %% [markdown] lang="en" exercise="full-contract" role="hint"
# The derivative is $e^x (1 + x)$. What should be saved so that `backward` can be differentiated once more?

# %% [markdown] lang="pl" exercise="full-contract" role="hint"
# Tryb postępowy czyta to, co oddano metodzie `save_for_forward`. Dla `vmap` potrzebny jest atrybut klasy.

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
