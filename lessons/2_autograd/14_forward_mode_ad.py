# %% [markdown] lang="pl"
# # Różniczkowanie w trybie postępowym: liczby dualne w PyTorchu
#
# Pochodną można liczyć razem z wartością, w jednym przejściu w przód i bez grafu. Po tej lekcji
# powiesz, co wędruje razem z wartością, gdzie po cichu ginie część pochodnej i kiedy takie liczenie
# jest tańsze niż `backward`.
#
# ## Czy zwiększyć współczynnik uczenia?
#
# Pętla robi dwadzieścia kroków spadku gradientowego, a przycinanie gradientów nie pozwala, żeby
# norma gradientu przekroczyła 1. Jak strata po ostatnim kroku zależy od współczynnika uczenia?
# Funkcja `torch.func.jvp` dostaje punkt i kierunek, a zwraca wartość i pochodną w tym kierunku:
# **iloczyn jakobianu i wektora** (*Jacobian-vector product*, JVP). Obok liczymy iloraz różnicowy.

# %% [markdown] lang="en"
# # Forward-mode differentiation: dual numbers in PyTorch
#
# A derivative can be computed together with the value, in one forward pass and without a graph.
# After this lesson you can tell what travels along with the value, where a part of the derivative
# is silently lost, and when this is cheaper than `backward`.
#
# ## Should the learning rate go up?
#
# A loop takes twenty steps of gradient descent, and gradient clipping keeps the norm of the
# gradient from exceeding 1. How does the loss after the last step depend on the learning rate? The
# function `torch.func.jvp` takes a point and a direction, and returns the value and the derivative
# along that direction: a **Jacobian-vector product** (JVP). Beside it we compute a difference
# quotient.

# %% fold=true
import math
import operator
import random
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Patch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, ORANGE, RED, show_figure
from snippets.memory import CallCounter, MemoryMeter, saved_bytes

torch.set_num_threads(1)
# PyTorch's own first use of forward mode in a process warns about torch.jit.script.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

torch.manual_seed(1)
x = torch.randn(64, 8, dtype=torch.float64)  # (samples, features)
y = x @ torch.randn(8, dtype=torch.float64)
y += 0.1 * torch.randn(64, dtype=torch.float64)
rate = torch.tensor(0.6, dtype=torch.float64)
one = torch.ones_like(rate)


# %%
def final_loss(rate: Tensor) -> Tensor:
    w = x.new_zeros(8)
    for _ in range(20):
        gradient = 2 * x.T @ (x @ w - y) / len(x)
        norm = gradient.norm().item()
        w = w - rate * gradient / max(norm, 1.0)
    return (x @ w - y).square().mean()


slope = jvp(final_loss, (rate,), (one,))[1].item()
h = 1e-6
quotient = ((final_loss(rate + h) - final_loss(rate - h)) / (2 * h)).item()
print(f"{slope=:.1f} {quotient=:.1f}")
assert slope > 15 and quotient < -10
assert final_loss(rate + 0.001) < final_loss(rate)  # a larger rate is better

# %% [markdown] lang="pl"
# Według `jvp` pochodna wynosi {{ slope:.1f }}, więc większy współczynnik szkodzi. Iloraz różnicowy
# daje {{ quotient:.1f }}, więc większy współczynnik pomaga, co potwierdza ostatnia asercja. Wyjątku
# nie było. Pytanie lekcji: **dlaczego `jvp` po cichu podał pochodną o złym znaku?** Potem policzymy,
# kiedy w ogóle jest tańszy niż `backward`.
#
# ## Wartość i styczna
#
# **Liczba dualna** (*dual number*) to wartość razem ze **styczną** (*tangent*), czyli pochodną w
# wybranym kierunku. Każda operacja liczy obie naraz: na tym polega **tryb postępowy** (*forward
# mode*). Moduł `torch.autograd.forward_ad` pokazuje to z bliska. Styczne istnieją tylko wewnątrz
# otwartego **poziomu** (*level*), czyli bloku `with forward_ad.dual_level():`.

# %% [markdown] lang="en"
# According to `jvp` the derivative is {{ slope:.1f }}, so a larger rate does harm. The difference
# quotient gives {{ quotient:.1f }}, so a larger rate helps, which the last assertion confirms.
# Nothing raised an exception. The question of this lesson: **why did `jvp` silently give a
# derivative of the wrong sign?** Then we count when it is cheaper than `backward` at all.
#
# ## A value and its tangent
#
# A **dual number** is a value together with its **tangent**, the derivative along a chosen
# direction. Each operation computes both at once: this is **forward mode**. The module
# `torch.autograd.forward_ad` shows it from close up. Tangents exist only inside an open **level**,
# the block of `with forward_ad.dual_level():`.

# %%
with forward_ad.dual_level():
    three = forward_ad.make_dual(torch.tensor(3.0), torch.tensor(1.0))
    cube = three**3
    print(cube, forward_ad.unpack_dual(cube).tangent, cube.grad_fn)
    assert forward_ad.unpack_dual(cube).tangent == 27  # 3 * 3**2
    assert cube.grad_fn is None and not cube.requires_grad
    assert forward_ad.unpack_dual(torch.tensor(3.0)).tangent is None
print(cube, forward_ad.unpack_dual(cube).tangent)
assert forward_ad.unpack_dual(cube).tangent is None  # the level is closed

# %% [markdown] lang="pl"
# Styczna pojawiła się przy wyniku od razu, a grafu nie ma: `grad_fn` to `None`. Tensor bez stycznej
# ma w jej miejscu `None`, co dla kolejnych operacji znaczy zero. Po zamknięciu poziomu styczne
# znikają.

# %% [markdown] lang="en"
# The tangent came with the result at once, and there is no graph: `grad_fn` is `None`. A tensor
# without a tangent has `None` in its place, which to the operations that follow means zero. When
# the level closes, tangents vanish.

# %% [markdown] lang="pl" predict="who-keeps-it"
# Tensor `x` ma styczną. Po której z tych operacji wynik też ją ma?
#
# - [ ] `x.detach()`
#
#   Nie ma tu grafu do odcięcia, ale `detach` odcina także styczną: zostaje `None`.
#
# - [ ] `torch.tensor(x.item())`
#
#   Metoda `item` zwraca zwykłą liczbę Pythona, a na niej nie ma gdzie zapisać stycznej.
#
# - [x] `x.clone()` wewnątrz `torch.no_grad()`
#
#   Menedżer kontekstu `no_grad` wyłącza zapis grafu, a tryb postępowy grafu nie potrzebuje i ma osobny
#   przełącznik, którego `no_grad` nie rusza.
#
# - [ ] `x.clone()` wewnątrz `torch.inference_mode()`
#
#   Ten menedżer wyłącza oba przełączniki, więc styczna przepada.

# %% [markdown] lang="en" predict="who-keeps-it"
# The tensor `x` has a tangent. After which of these operations does the result have one, too?
#
# - [ ] `x.detach()`
#
#   There is no graph to cut here, but `detach` cuts the tangent as well: `None` remains.
#
# - [ ] `torch.tensor(x.item())`
#
#   The method `item` returns a plain Python number, which has no place for a tangent.
#
# - [x] `x.clone()` inside `torch.no_grad()`
#
#   The context manager `no_grad` switches off the recording of the graph; forward mode needs no graph
#   and has a switch of its own, which `no_grad` leaves alone.
#
# - [ ] `x.clone()` inside `torch.inference_mode()`
#
#   This manager switches off both, so the tangent is lost.


# %% fold=true
Way = Callable[[Tensor], Tensor]


def inside(mode: type[torch.no_grad | torch.inference_mode]) -> Way:
    def way(x: Tensor) -> Tensor:
        with mode():
            return x.clone()

    return way


def called(x: Tensor) -> Tensor:
    layer = nn.Linear(1, 1, bias=False)
    weights = {"weight": x.reshape(1, 1)}
    result: Tensor = functional_call(layer, weights, (torch.ones(1, 1),))
    return result.squeeze()


def refusal(run: Callable[[], object]) -> str:
    """The message of the exception that run() raises, or an empty string."""
    try:
        run()
    except (NotImplementedError, RuntimeError) as error:
        return str(error)
    return ""


def shown(answer: Callable[[], Tensor | None]) -> str:
    if refusal(answer):
        return "RuntimeError"
    result = answer()
    return "None" if result is None else f"{result.item():g}"


def answers_of(way: Way) -> list[str]:
    """The derivative of way(x ** 3) at 3: the tangent, by jvp, strict jvp and reverse."""
    at, ahead = torch.tensor(3.0), torch.tensor(1.0)

    def tangent() -> Tensor | None:
        with forward_ad.dual_level():
            result: Tensor | None = forward_ad.unpack_dual(
                way(forward_ad.make_dual(at, ahead) ** 3)
            ).tangent
            return result

    def by_jvp(strict: bool = False) -> Tensor:
        slope: Tensor = jvp(lambda x: way(x**3), (at,), (ahead,), strict=strict)[1]
        return slope

    def reverse() -> Tensor:
        leaf = at.clone().requires_grad_()
        return torch.autograd.grad(way(leaf**3), leaf)[0]

    answers = (tangent, by_jvp, partial(by_jvp, strict=True), reverse)
    return [shown(answer) for answer in answers]


# %%
ways: dict[str, Way] = {
    "x": lambda x: x,
    "functional_call": called,
    "no_grad": inside(torch.no_grad),
    "x.round()": torch.round,
    "x.detach()": torch.detach,
    "x.item()": lambda x: torch.tensor(x.item()),
    "x.long()": lambda x: x.long().float(),
    "nn.Parameter(x)": nn.Parameter,
    "inference_mode": inside(torch.inference_mode),
    "x.numpy()": lambda x: torch.from_numpy(x.numpy()),
}
outcomes = {name: answers_of(way) for name, way in ways.items()}
print(f"{'':17}{'.tangent':10}{'jvp':14}{'strict=True':14}autograd.grad")
for name, (tangent, by_jvp, strict, reverse) in outcomes.items():
    print(f"{name:17}{tangent:10}{by_jvp:14}{strict:14}{reverse}")
error = "RuntimeError"
assert list(outcomes.values()) == [
    *[["27", "27", "27", "27"]] * 2,
    ["27", "27", "27", error],
    ["0", "0", "0", "0"],
    *[["None", "0", error, error]] * 5,
    ["None", error, error, error],
]
for mode, switches in ((torch.no_grad, (0, 1)), (torch.inference_mode, (0, 0))):
    with mode():  # the graph's switch, and the one of forward mode
        assert (torch.is_grad_enabled(), forward_ad._is_fwd_grad_enabled()) == switches

# %%
point = ((torch.tensor(3.0),), (torch.tensor(1.0),))
lost = refusal(lambda: jvp(torch.detach, *point, strict=True))
wrapped = refusal(lambda: jvp(ways["x.numpy()"], *point))
print(textwrap.fill(lost, 88), wrapped, sep="\n")
assert "The output of f is independent of the inputs" in lost
assert wrapped == "Cannot access data pointer of Tensor that doesn't have storage"
origin = torch.tensor(3.0, requires_grad=True)
nn.Parameter(origin**3).backward()  # silent: the parameter is a leaf of its own
assert origin.grad is None
assert "Can't call numpy()" in refusal(lambda: ways["x.numpy()"](origin**3))

# %% [markdown] lang="pl"
# Prawdziwa pochodna to 27; dla `round`, a poza liczbami całkowitymi i dla `long`, 0. W sześciu
# ostatnich wierszach styczna ginie. W **trybie wstecznym** (*reverse mode*) funkcja
# `torch.autograd.grad` zgłasza tam wyjątek, bo w grafie nie ma drogi od wyniku do `x` (przy NumPy
# odmawia już sama konwersja). Metoda `backward` wywołana na parametrze milczy, a `origin.grad` to
# nadal `None`.
#
# Funkcja `jvp` otwiera poziom, opakowuje argumenty w liczby dualne, a w wyniku zamienia `None` na
# zera. Dlatego w pięciu wierszach podaje zero, którego nie odróżnisz od prawdziwego zera funkcji
# `round`; poza wierszem z `long` jest ono błędne. Z `strict=True` zgłasza wtedy wyjątek. Szósty
# wiersz zgłasza go zawsze: opakowany tensor nie ma danych, które mógłby oddać tablicy NumPy.
#
# Dwa wiersze przydadzą się w pracy z modułami. Parametr utworzony z liczby dualnej nie ma stycznej,
# a `functional_call` podstawia tensor w miejsce parametru i zachowuje jego styczną.
#
# ## Gdzie pętla gubi styczną
#
# Winny jest wiersz z `norm`: metoda `item` odrzuca styczną, więc `jvp` traktuje normę gradientu jak
# stałą.

# %% [markdown] lang="en"
# The true derivative is 27; for `round` and, away from integers, for `long` it is 0. In the last
# six rows the tangent is lost. In **reverse mode** the function `torch.autograd.grad` raises an
# exception there, because the graph has no path from the result to `x` (with NumPy the conversion
# itself refuses). The method `backward` called on the parameter is silent, and `origin.grad` is
# still `None`.
#
# The function `jvp` opens a level, wraps the arguments as dual numbers, and replaces a `None` in
# the result by zeros. That is why in five rows it reports a zero that cannot be told from the true
# zero of `round`; except in the row of `long`, it is wrong. With `strict=True` it then raises an
# exception. The sixth row always raises one: a wrapped tensor has no data to hand to a NumPy array.
#
# Two rows matter when you work with modules. A parameter made from a dual number has no tangent;
# `functional_call` puts a tensor in the place of the parameter and keeps its tangent.
#
# ## Where the loop loses the tangent
#
# The culprit is the line with `norm`: the method `item` drops the tangent, so `jvp` treats the norm
# of the gradient as a constant.


# %%
def repaired_loss(rate: Tensor, steps: int = 20) -> Tensor:
    w = x.new_zeros(8)
    for _ in range(steps):
        gradient = 2 * x.T @ (x @ w - y) / len(x)
        norm = gradient.norm()  # a tensor: its tangent stays
        w = w - rate * gradient / norm.clamp(min=1)
    return (x @ w - y).square().mean()


repaired_slope = jvp(repaired_loss, (rate,), (one,))[1].item()
print(f"{repaired_slope=:.1f} {quotient=:.1f}")
assert math.isclose(repaired_slope, quotient, rel_tol=1e-6)
assert torch.allclose(repaired_loss(rate), final_loss(rate), rtol=1e-9)
leaf = rate.clone().requires_grad_()
reverse_slope = torch.autograd.grad(final_loss(leaf), leaf)[0].item()
print(f"{reverse_slope=:.1f} {slope=:.1f}")
assert math.isclose(reverse_slope, slope, rel_tol=1e-6)
assert jvp(final_loss, (rate,), (one,), strict=True)[1].item() == slope


# %% fold=true
def second_step(leak: bool) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Values and tangents in the second step of the loop."""
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(rate, one)
        w = x.new_zeros(8)
        for _ in range(2):
            old, gradient = w, 2 * x.T @ (x @ w - y) / len(x)
            norm = gradient.norm()
            norm = norm.new_tensor(norm.item()) if leak else norm
            w = w - dual * gradient / norm.clamp(min=1)
        parts = {"w": old, "gradient": gradient, "norm": norm, "next w": w}
        return {name: forward_ad.unpack_dual(part)[:2] for name, part in parts.items()}


leaking, whole = second_step(leak=True), second_step(leak=False)
fig, panels = plt.subplots(2, 4, figsize=(7.2, 2.9), width_ratios=(3, 3, 1.2, 3))
for column, name in enumerate(whole):
    value, repaired = whole[name]
    cut = leaking[name][1]
    assert repaired is not None
    places = range(value.numel())
    top, below = panels[:, column]
    top.bar(places, value.reshape(-1).tolist(), color=BLUE)
    if cut is None:
        below.text(0, 0, "None", color=RED, ha="center", va="bottom")
    else:
        below.bar(places, cut.tolist(), color=RED)
    outline = repaired.reshape(-1).tolist()
    below.bar(places, outline, fill=False, edgecolor=GREEN, lw=1.5)
    top.set_title(name)
    for ax in (top, below):
        ax.axhline(0, color=GRAY, lw=1)
        ax.set(xlim=(-0.7, len(places) - 0.3), xticks=[], yticks=[])
        ax.margins(y=0.15)
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color(GRAY)
        if name == "norm":
            high = max(map(abs, ax.get_ylim()))
            ax.set_ylim(-high, high)
for ax, label in zip(panels[:, 0], ("value", "tangent"), strict=True):
    ax.set_ylabel(label, rotation=0, ha="right", va="center")
keys = [Patch(color=RED), Patch(fill=False, edgecolor=GREEN, lw=1.5)]
fig.legend(keys, ["with item()", "repaired"], loc="outside lower center", ncols=2)
show_figure(
    fig,
    alt_pl="Siatka wykresów dla drugiego kroku pętli: w kolumnach w, gradient, norm i następne "
    "w, w wierszach wartości i styczne. Przy w i gradiencie styczne z item() i po naprawie są "
    "takie same, przy norm styczna z item() to None, a przy następnym w słupki z item() "
    "różnią się od obrysów po naprawie.",
    alt_en="A grid of charts for the second step of the loop: w, gradient, norm and the next w "
    "as columns, values and tangents as rows. For w and the gradient the tangents with item() "
    "and the repaired ones are the same, for norm the tangent with item() is None, and for the "
    "next w the bars with item() differ from the repaired outlines.",
    pl={
        "value": "wartość",
        "tangent": "styczna",
        "next w": "następne w",
        "with item()": "z item()",
        "repaired": "po naprawie",
    },
    same={"gradient", "norm", "None"},
)
for name in ("w", "gradient"):
    before, after = leaking[name][1], whole[name][1]
    assert before is not None and after is not None and torch.equal(before, after)
assert leaking["norm"][1] is None and whole["norm"][1] is not None
assert torch.allclose(leaking["next w"][0], whole["next w"][0])
wrong_next, true_next = leaking["next w"][1], whole["next w"][1]
assert wrong_next is not None and true_next is not None
assert (wrong_next - true_next).norm() > 0.1 * true_next.norm()

# %% [markdown] lang="pl"
# Tak wygląda drugi krok pętli; słupki to kolejne liczby tensora, a zielony obrys to styczna po
# naprawie. Przy `w` i gradiencie obrys pokrywa się ze słupkami. Z `item()` styczna `norm` znika,
# więc przy następnym `w` słupki są inne niż obrys. Wartości są jednakowe, więc po samej stracie
# wycieku nie poznasz. Z tensorem zamiast liczby `jvp` daje {{ repaired_slope:.1f }}, tyle co
# iloraz. Współczynnik uczenia trzeba więc zwiększyć.
#
# Taki częściowy wyciek jest cichy w obu trybach. Tryb wsteczny daje dla `final_loss` też
# {{ reverse_slope:.1f }}, bo jakaś droga od wyniku do `rate` została. Milczy i `strict=True`, bo
# wynik ma styczną, tylko złą.
#
# W źródłach PyTorcha styczną przechowuje klasa `ForwardGrad` (plik `forward_grad.h`), wzory na
# styczne to wiersze `result:` pliku `derivatives.yaml`, a zera zamiast `None` wpisuje funkcja
# `safe_unpack_dual` (plik `eager_transforms.py`).
#
# ## Liczby dualne od zera
#
# Napiszmy kilka takich wzorów. Styczna `None` to zero: nie trzeba jej ani mnożyć, ani dodawać.

# %% [markdown] lang="en"
# This is the second step of the loop; bars are the numbers of a tensor, and the green outline is
# the repaired tangent. For `w` and the gradient the outline coincides with the bars. With `item()`
# the tangent of `norm` vanishes, so for the next `w` the bars differ from the outline. The values
# are the same, so the loss alone does not show the leak. With a tensor in place of the number `jvp`
# gives {{ repaired_slope:.1f }}, the same as the quotient. So the learning rate should go up.
#
# Such a partial leak is silent in both modes. For `final_loss` reverse mode gives
# {{ reverse_slope:.1f }}, too, because some path from the result to `rate` remains. `strict=True`
# is silent as well, because the result has a tangent, only a wrong one.
#
# In PyTorch's source the tangent is kept by the class `ForwardGrad` (file `forward_grad.h`), the
# formulas of tangents are the lines `result:` of `derivatives.yaml`, and zeros in place of `None`
# come from the function `safe_unpack_dual` (file `eager_transforms.py`).
#
# ## Dual numbers from scratch
#
# Let's write a few such formulas. A tangent of `None` is zero: it needs neither multiplying nor
# adding.


# %%
def total(*terms: Tensor | None) -> Tensor | None:
    """Add the terms that there are; None stands for zero."""
    present = [term for term in terms if term is not None]
    return sum(present[1:], present[0]) if present else None


@dataclass(frozen=True)
class Dual:
    value: Tensor
    tangent: Tensor | None = None

    def push(self, rule: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Apply a linear rule to the tangent, if there is one."""
        return None if self.tangent is None else rule(self.tangent)

    def __add__(self, other: "Dual") -> "Dual":
        return Dual(self.value + other.value, total(self.tangent, other.tangent))

    def __mul__(self, other: "Dual") -> "Dual":
        left = self.push(lambda t: t * other.value)
        right = other.push(lambda t: self.value * t)
        return Dual(self.value * other.value, total(left, right))

    def __matmul__(self, other: "Dual") -> "Dual":
        left = self.push(lambda t: t @ other.value)
        right = other.push(lambda t: self.value @ t)
        return Dual(self.value @ other.value, total(left, right))

    def sin(self) -> "Dual":
        return Dual(self.value.sin(), self.push(lambda t: t * self.value.cos()))


# %% [markdown] lang="pl"
# Wzorcem jest `jvp`: losujemy wyrażenia z trzech macierzy, z których pierwsza jest stałą. Na koniec
# liczymy mnożenia macierzy w `X @ W`, gdy `W` jest stałą.

# %% [markdown] lang="en"
# The oracle is `jvp`: we draw random expressions of three matrices, the first of which is a
# constant. At the end we count the matrix multiplications in `X @ W` when `W` is a constant.

# %%
BINARY = (operator.add, operator.mul, operator.matmul)


def evaluate(plan: list[tuple[int, int, int]], *leaves: Any) -> Any:
    """Run a plan on tensors or on dual numbers; each row makes one more value."""
    values = [*leaves]
    for kind, i, j in plan:
        values.append(
            values[i].sin() if kind == 3 else BINARY[kind](values[i], values[j])
        )
    return values[-1]


expressions = 200
for seed in range(expressions):
    pick = random.Random(seed)
    plan = [
        (pick.randrange(4), pick.randrange(i), pick.randrange(i)) for i in (3, 4, 5, 6)
    ]
    torch.manual_seed(seed)
    a, b, c, va, vb = torch.randn(5, 3, 3, dtype=torch.float64)
    value, tangent_there = jvp(partial(evaluate, plan, c), (a, b), (va, vb))[:2]
    ours = evaluate(plan, Dual(c), Dual(a, va), Dual(b, vb))
    tangent_here = torch.zeros(3, 3) if ours.tangent is None else ours.tangent
    assert torch.equal(ours.value, value)
    assert torch.allclose(tangent_here.double(), tangent_there, rtol=1e-9)

X, V, W = torch.randn(32, 64), torch.randn(32, 64), torch.randn(64, 16)
with CallCounter() as calls:
    Dual(X, V) @ Dual(W)
our_products = calls.names["mm"]
print(f"{expressions=} {our_products=}")
assert our_products == 2

# %% [markdown] lang="pl"
# Dla {{ expressions }} wyrażeń styczne są te same. Iloczyn z macierzą stałą kosztuje u nas
# {{ our_products }} mnożenia.
#
# ## Ile kosztuje jedno przejście

# %% [markdown] lang="en"
# For {{ expressions }} expressions the tangents agree. A product with a constant matrix costs us
# {{ our_products }} multiplications.
#
# ## What one pass costs

# %% [markdown] lang="pl" predict="products"
# Ile mnożeń macierzy wykona PyTorch w `jvp(lambda a: a @ W, (X,), (V,))`?
#
# - [ ] Jedno: wartość i styczna mieszczą się w jednym mnożeniu
#
#   Można by skleić `X` i `V` w jedną macierz, ale wzór dla operacji `mm` tego nie robi.
#
# - [ ] Dwa: `X @ W` i `V @ W`
#
#   Tyle wystarcza i tyle robi nasza klasa, bo pomija brakującą styczną macierzy `W`.
#
# - [x] Trzy: te dwa i `X` razy macierz zer
#
#   Wzór ma dwa składniki: `V @ W` i `X` razy styczna macierzy `W`. W miejsce brakującej
#   stycznej PyTorch wstawia zera i liczy oba.

# %% [markdown] lang="en" predict="products"
# How many matrix multiplications does PyTorch run in `jvp(lambda a: a @ W, (X,), (V,))`?
#
# - [ ] One: the value and the tangent share one multiplication
#
#   `X` and `V` could be joined in one matrix, but the formula of the operation `mm` does not do so.
#
# - [ ] Two: `X @ W` and `V @ W`
#
#   That many are enough, and our class runs that many, because it skips the missing tangent of `W`.
#
# - [x] Three: these two, and `X` times a matrix of zeros
#
#   The formula has two terms: `V @ W`, and `X` times the tangent of `W`. PyTorch puts zeros in
#   place of the missing tangent and computes both.


# %% fold=true
class Log(TorchDispatchMode):
    """Log the name, the arguments and the result of every operator."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.calls: list[tuple[str, Sequence[Any], Any]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result: object = func(*args, **(kwargs or {}))
        self.calls.append((str(func).split(".")[1], args, result))
        return result


def right_factor(matrix: Tensor) -> str:
    if torch.equal(matrix, W):
        return "W"
    return "something else" if matrix.any() else "0"


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    result: int = counter.get_total_flops()
    return result


class Meter(MemoryMeter):
    """A meter that skips zero tensors: they report bytes, but have no data."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if func is torch.ops.aten._efficientzerotensor.default:
            return func(*args, **(kwargs or {}))
        return MemoryMeter.__torch_dispatch__(self, func, types, args, kwargs)


def peak(run: Callable[[], object]) -> int:
    with Meter() as meter:
        run()
    highest: int = meter.peak
    return highest


# %%
with Log() as log:
    jvp(lambda a: a @ W, (X,), (V,))
operators = [name for name, _, _ in log.calls]
factors = [args[1] for name, args, _ in log.calls if name == "mm"]
products = {right_factor(factor): factor.stride() for factor in factors}
zero_tensors = operators.count("_efficientzerotensor")
print(f"{len(factors)=} {products=} {zero_tensors=}")
assert len(factors) == 3 and zero_tensors == operators.count("zeros") == 1
assert products == {"W": W.stride(), "0": (0, 0)}
empty = next(made for name, _, made in log.calls if name == "_efficientzerotensor")
assert empty.shape == W.shape and empty.data_ptr() == 0  # no data

# %% [markdown] lang="pl"
# W miejsce brakującej stycznej wchodzi tensor bez danych (`_efficientzerotensor`), a funkcja
# `zeroTensorFallback` (plik `ZeroTensorFallback.cpp`) zamienia go przed mnożeniem w jedno zero o
# krokach 0, czytane jak cała macierz. W pamięci zajmuje to tyle co jedna liczba, ale mnożenie
# wykonuje się w całości; opisuje to zgłoszenie 69687, stan na PyTorch 2.15.
#
# Policzmy teraz operacje zmiennoprzecinkowe (FLOP) sieci z dwiema warstwami. Licznik widzi w niej
# tylko mnożenia macierzy, a `tanh` pomija.

# %% [markdown] lang="en"
# A tensor without data (`_efficientzerotensor`) takes the place of the missing tangent, and the
# function `zeroTensorFallback` (file `ZeroTensorFallback.cpp`) turns it before the multiplication
# into a single zero with strides 0, read as a whole matrix. It takes the memory of one number, but
# the multiplication is run in full; issue 69687 describes it, as of PyTorch 2.15.
#
# Now let's count the floating-point operations (FLOPs) of a network with two layers. In it the
# counter sees only the matrix multiplications, and skips `tanh`.

# %%
net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
x_leaf = X.clone().requires_grad_()
forward_flops = flops(lambda: net(X))
by_weights = flops(lambda: net(X).sum().backward()) / forward_flops
net.requires_grad_(False)
by_input = flops(lambda: net(x_leaf).sum().backward()) / forward_flops
one_jvp = flops(lambda: jvp(net, (X,), (V,))) / forward_flops


def with_weights(weights: dict[str, Tensor]) -> Tensor:
    result: Tensor = functional_call(net, weights, (X,))
    return result


weights_now = dict(net.named_parameters())
ways_to_go = {name: torch.randn_like(weight) for name, weight in weights_now.items()}
jvp_weights = flops(lambda: jvp(with_weights, (weights_now,), (ways_to_go,)))
jvp_by_weights = jvp_weights / forward_flops
print(f"{one_jvp=} {jvp_by_weights=} {by_input=} {by_weights=}")
assert one_jvp == jvp_by_weights == 3.0
assert (by_input, by_weights) == (2.0, 2.5)
assert flops(lambda: X.tanh()) == 0

# %% [markdown] lang="pl"
# Jednostką jest jedno przejście w przód. Wywołanie `jvp` kosztuje {{ one_jvp:.0f }}, czy kierunek
# dotyczy wejścia, czy wag, i daje pochodną **w jednym kierunku**, za to wszystkich wyjść. Przejście
# w przód i wstecz kosztuje {{ by_input:.0f }} (gradient wejścia) albo {{ by_weights:.1f }}
# (gradient wag: gradient wejścia pierwszej warstwy jest zbędny) i daje pochodne **po wszystkich**
# wejściach, ale jednego wyjścia. Cały jakobian po wejściu o $n$ składowych, przy $m$ wyjściach i
# stałych macierzach, powinien więc kosztować $n + 2$ w trybie postępowym (`jacfwd`: wartość, zera i
# $n$ stycznych), a $m + 1$ we wstecznym (`jacrev`: wartość i $m$ przejść wstecz).

# %% [markdown] lang="en"
# The unit is one forward pass. A call of `jvp` costs {{ one_jvp:.0f }}, whether the direction is
# one of the input or of the weights, and gives the derivative **along one direction**, though of
# all outputs. A forward and backward pass costs {{ by_input:.0f }} (gradient of the input) or
# {{ by_weights:.1f }} (gradient of the weights: that of the first layer's input is not needed) and
# gives derivatives **with respect to all** inputs, but of one output. So a whole Jacobian with
# respect to an input of $n$ components, with $m$ outputs and constant matrices, should cost $n + 2$
# in forward mode (`jacfwd`: the value, the zeros and $n$ tangents), and $m + 1$ in reverse mode
# (`jacrev`: the value and $m$ backward passes).


# %%
def network(first: Tensor, second: Tensor, v: Tensor) -> Tensor:  # (n,) -> (m,)
    return ((v[None] @ first).tanh() @ second)[0]


jacobian_flops: dict[int, tuple[int, int]] = {}
for n in (1, 4, 16, 32, 64, 256, 1024):
    m, at = 1024 // n, torch.randn(n)
    f = partial(network, torch.randn(n, 32), torch.randn(32, m))
    jacobian_flops[n] = flops(partial(jacfwd(f), at)), flops(partial(jacrev(f), at))
    unit = flops(partial(f, at))
    ahead, back = jacobian_flops[n]
    print(f"{n=:4} {m=:4} jacfwd={ahead:9} jacrev={back:9}")
    assert jacobian_flops[n] == ((n + 2) * unit, (m + 1) * unit)
narrow_forward, narrow_reverse = jacobian_flops[4]

# %% [markdown] lang="pl"
# Dla tej sieci model zgadza się co do jednej operacji. A pamięć? Wróćmy do pętli: ma jedno wejście
# i jedno wyjście, ale wiele kroków.

# %% [markdown] lang="en"
# For this network the model is exact to a single operation. And memory? Back to the loop: it has
# one input and one output, but many steps.


# %%
def slope_ahead(steps: int) -> Tensor:
    slope: Tensor = jvp(lambda r: repaired_loss(r, steps), (rate,), (one,))[1]
    return slope


def slope_back(steps: int) -> Tensor:
    leaf = rate.clone().requires_grad_()
    return torch.autograd.grad(repaired_loss(leaf, steps), leaf)[0]


lengths = (10, 40, 160)
plain_peak = peak(lambda: repaired_loss(rate))
ahead_peaks = [peak(partial(slope_ahead, steps)) for steps in lengths]
back_peaks = [peak(partial(slope_back, steps)) for steps in lengths]
ahead_peak, first_back, last_back = ahead_peaks[0], back_peaks[0], back_peaks[-1]
print(f"{plain_peak=} {ahead_peaks=} {back_peaks=}")
assert ahead_peaks == [ahead_peak] * 3 and plain_peak < ahead_peak < 2 * plain_peak
assert 15 < last_back / first_back < 17
assert all(torch.allclose(slope_ahead(k), slope_back(k)) for k in lengths)
with saved_bytes() as saved:
    slope_ahead(40)
assert saved.total == 0
constant_bytes = (2 * x.T).nbytes  # a constant: it has no tangent
assert ahead_peak - constant_bytes > 3 * (plain_peak - constant_bytes)
with CallCounter() as ahead_calls:
    slope_ahead(20)
with CallCounter() as back_calls:
    slope_back(20)
mv_ahead, mv_back = ahead_calls.names["mv"], back_calls.names["mv"]
all_ahead, all_back = sum(ahead_calls.names.values()), sum(back_calls.names.values())
print(f"{mv_ahead=} {mv_back=} {all_ahead=} {all_back=}")
assert 1.4 < mv_ahead / mv_back < 1.6 and all_ahead > 2 * all_back

# %% fold=true
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9))
kib = 1024
left.plot(lengths, [p / kib for p in back_peaks], "o-", color=ORANGE)
left.plot(lengths, [p / kib for p in ahead_peaks], "o-", color=BLUE)
left.set(xlabel="steps of the loop", title="peak memory, KiB", ylim=(-20, 720))
left.text(75, back_peaks[-1] / kib * 0.55, "reverse", color=ORANGE, ha="right")
left.text(120, ahead_peaks[-1] / kib + 25, "forward", color=BLUE, ha="center")
sizes = [*jacobian_flops]
right.plot(sizes, [b for _, b in jacobian_flops.values()], "o-", color=ORANGE)
right.plot(sizes, [a for a, _ in jacobian_flops.values()], "o-", color=BLUE)
right.set(xscale="log", yscale="log", title="FLOPs of a Jacobian with 1024 entries")
right.set_xlabel("inputs")
right.set_xticks([1, 32, 1024], ["1", "32", "1024"])
right.set_yticks([1e5, 1e6, 1e7], ["100 000", "1 000 000", "10 000 000"])
right.minorticks_off()
right.text(2.6, 2e7, "reverse", color=ORANGE)
right.text(360, 2e7, "forward", color=BLUE, ha="right")
show_figure(
    fig,
    alt_pl="Dwa wykresy. Po lewej szczyt pamięci: w trybie wstecznym rośnie "
    "liniowo z liczbą kroków, w postępowym jest stały. Po prawej koszt jakobianu o "
    "1024 elementach: tryb postępowy jest tańszy przy kilku wejściach, wsteczny przy kilku "
    "wyjściach, a przy 32 wejściach i 32 wyjściach koszty są niemal równe.",
    alt_en="Two charts. On the left the memory peak: in reverse mode it grows linearly with "
    "the number of steps, in forward mode it is constant. On the right the cost of a Jacobian "
    "with 1024 entries: forward mode is cheaper with few inputs, reverse mode with few "
    "outputs, and with 32 inputs and 32 outputs the costs are nearly equal.",
    pl={
        "steps of the loop": "kroki pętli",
        "peak memory, KiB": "szczyt pamięci, KiB",
        "reverse": "wsteczny",
        "forward": "postępowy",
        "FLOPs of a Jacobian with 1024 entries": "FLOP jakobianu o 1024 elementach",
        "inputs": "wejścia",
    },
)

# %% [markdown] lang="pl"
# Po lewej szczyt pamięci `jvp` się nie zmienia: {{ ahead_peak }} B przy 10, 40 i 160 krokach, a
# sama pętla potrzebuje {{ plain_peak }} B. Szczyt się nie podwaja, bo {{ constant_bytes }} B
# zajmuje stała `2 * x.T`, która nie ma stycznej; reszta rośnie ponad trzykrotnie. Tryb wsteczny
# zapamiętuje każdy krok, więc szczyt rośnie z {{ first_back }} B do {{ last_back }} B. Po prawej
# przy 32 wejściach i 32 wyjściach koszty są niemal równe (34 i 33 przejścia w przód); przy czterech
# wejściach i 256 wyjściach tryb postępowy kosztuje {{ narrow_forward }} FLOP, a wsteczny
# {{ narrow_reverse }}.
#
# Współczynnik uczenia to jedno wejście, a strata jedno wyjście, więc w obliczeniach tańszy
# jest tryb wsteczny: przy 20 krokach {{ mv_back }} iloczynów macierzy i wektora wobec {{ mv_ahead }},
# a wszystkich operatorów {{ all_back }} wobec {{ all_ahead }}. W długiej pętli `jvp` wygrywa tylko w
# pamięci.
#
# A trening, w którym wejściem są wszystkie wagi? Jeden `jvp` w losowym kierunku $v$ daje
# przybliżenie $(g \cdot v)\,v$ gradientu $g$, tzw. **gradient w przód** (*forward gradient*). Gdy
# składowe $v$ są niezależne i mają standardowy rozkład normalny, kosinus kąta między nimi to
# średnio $\sqrt{2 / (\pi n)}$ dla dużej liczby wag $n$: taki rozkład ma wtedy $g \cdot v / |g|$, a
# $|v| \approx \sqrt{n}$.

# %% [markdown] lang="en"
# On the left the memory peak of `jvp` stays constant: {{ ahead_peak }} B with 10, 40 and 160 steps,
# while the loop alone needs {{ plain_peak }} B. The peak does not double, because
# {{ constant_bytes }} B of it is the constant `2 * x.T`, which has no tangent; the rest more than triples. Reverse
# mode saves every step, so its peak grows from {{ first_back }} B to {{ last_back }} B. On the
# right, with 32 inputs and 32 outputs the costs are nearly equal (34 and 33 forward passes); with
# four inputs and 256 outputs forward mode costs {{ narrow_forward }} FLOPs, and reverse mode
# {{ narrow_reverse }}.
#
# The learning rate is one input and the loss one output, so in computation reverse mode is
# cheaper: with 20 steps {{ mv_back }} matrix-vector products against {{ mv_ahead }}, and
# {{ all_back }} operators in all against {{ all_ahead }}. In a long loop `jvp` wins only in memory.
#
# And training, in which all weights are inputs? One `jvp` along a random direction $v$ gives an
# estimate $(g \cdot v)\,v$ of the gradient $g$, the so-called **forward gradient**. When the
# components of $v$ are independent standard normals, the cosine between the two is on average
# $\sqrt{2 / (\pi n)}$ for a large number $n$ of weights: $g \cdot v / |g|$ then has that
# distribution, and $|v| \approx \sqrt{n}$.


# %%
def squares(features: Tensor, weights: Tensor) -> Tensor:
    return (features @ weights).square().mean()


def slope_along(f: Callable[[Tensor], Tensor], at: Tensor, v: Tensor) -> Tensor:
    slope: Tensor = jvp(f, (at,), (v,))[1]
    return slope


cosines: dict[int, float] = {}
for n in (10, 100, 1000, 10_000):
    weights, directions = torch.randn(n), torch.randn(200, n)
    f = partial(squares, torch.randn(16, n))
    true = grad(f)(weights)
    slopes = vmap(partial(slope_along, f, weights))(directions)
    cosine = F.cosine_similarity(slopes[:, None] * directions, true[None])
    cosines[n] = mean = cosine.mean().item()
    expected = math.sqrt(2 / (math.pi * n))
    print(f"{n=:6} {mean=:.4f} {expected=:.4f}")
    assert 0.8 < cosines[n] / expected < 1.2
cosine_thousand = cosines[1000]

# %% [markdown] lang="pl"
# Przy 1000 wag kosinus wynosi {{ cosine_thousand:.3f }}: przybliżenie jest niemal prostopadłe do
# gradientu. W policzonej wyżej sieci `jvp` po wagach kosztuje przy tym {{ jvp_by_weights:.0f }}, a
# przejście w przód i wstecz, które daje gradient dokładnie, {{ by_weights:.1f }}.
#
# ## Co się psuje i jak to zauważyć
#
# Poziomów `dual_level` nie da się zagnieździć. Drugą pochodną policzysz, zagnieżdżając `jvp`.

# %% [markdown] lang="en"
# With 1000 weights the cosine is {{ cosine_thousand:.3f }}: the estimate is almost perpendicular to
# the gradient. Moreover, in the network counted above `jvp` along the weights costs
# {{ jvp_by_weights:.0f }}, and a forward and backward pass, which gives the exact gradient,
# {{ by_weights:.1f }}.
#
# ## What breaks and how to notice
#
# The levels of `dual_level` cannot be nested. For a second derivative nest `jvp` instead.


# %% raises="RuntimeError: Nested forward mode AD is not supported at the moment"
def cubed(x: Tensor) -> Tensor:
    print(x)
    assert "lvl=2" in repr(x) and "lvl=1" in repr(x)
    return x**3


def first_derivative(x: Tensor) -> Tensor:
    slope: Tensor = jvp(cubed, (x,), (torch.ones_like(x),))[1]
    return slope


second_derivative = jvp(first_derivative, (torch.tensor(3.0),), (torch.tensor(1.0),))[1]
assert second_derivative == 18  # 6 * 3
with forward_ad.dual_level(), forward_ad.dual_level():
    pass

# %% [markdown] lang="pl"
# Każdy `jvp` nadaje opakowaniu własny numer (`lvl`), więc styczne się nie mieszają.
#
# Wyjątek zgłaszają też różniczkowalne operatory samego PyTorcha bez wzoru `result:`, a pod `jvp`
# także moduły, które zmieniają w miejscu własny tensor. Operator z `torch.library.custom_op` gubi
# styczną po cichu.

# %% [markdown] lang="en"
# Each `jvp` gives its wrapper a number of its own (`lvl`), so the tangents do not mix.
#
# PyTorch's own differentiable operators without a formula `result:` raise an exception, too, and
# so do, under `jvp`, modules that change their own tensor in place. An operator made with
# `torch.library.custom_op` loses the tangent silently.

# %% fold=true
image = torch.randn(2, 4, 6, 6, dtype=torch.float64)
sequence = torch.randn(2, 3, 8, dtype=torch.float64)
normalise = nn.BatchNorm2d(4)
attention = lambda a: F.scaled_dot_product_attention(a, a, a)  # noqa: E731


def verdict(layer: Callable[[Tensor], Any], at: Tensor) -> str:
    """The exception of jvp, or OK if jvp agrees with a difference quotient."""
    if isinstance(layer, nn.Module):
        layer.double()
    f: Callable[[Tensor], Tensor] = lambda a: tree_leaves(layer(a))[0]  # noqa: E731
    v = torch.randn_like(at)
    message = refusal(lambda: jvp(f, (at,), (v,)))
    if message:
        return message.split(". ")[0].split("\n")[0]
    slope, quotient = jvp(f, (at,), (v,))[1], (f(at + h * v) - f(at - h * v)) / (2 * h)
    return "OK" if torch.allclose(slope, quotient, rtol=1e-5, atol=1e-7) else "wrong"


@torch.library.custom_op("lesson::triple", mutates_args=())
def triple(x: Tensor) -> Tensor:
    return 3 * x


triple.register_autograd(lambda _, gradient: 3 * gradient)


verdicts = {
    "Conv2d": verdict(nn.Conv2d(4, 4, 3), image),
    "GroupNorm": verdict(nn.GroupNorm(2, 4), image),
    "GRU": verdict(nn.GRU(8, 8), sequence),
    "cdist": verdict(lambda a: torch.cdist(a, a), sequence),
    "BatchNorm2d": verdict(normalise, image),
    "BatchNorm2d, eval": verdict(normalise.eval(), image),
    "attention": verdict(attention, sequence),
    "custom_op": verdict(triple, sequence),
}
with sdpa_kernel(SDPBackend.MATH):
    verdicts["attention, MATH"] = verdict(attention, sequence)
for name, result in verdicts.items():
    print(textwrap.fill(f"{name:18} {result}", 88, subsequent_indent=" " * 19))
works = [name for name, result in verdicts.items() if result == "OK"]
assert works == ["Conv2d", "GroupNorm", "GRU", "BatchNorm2d, eval", "attention, MATH"]
assert "_cdist_forward that does not support it" in verdicts["cdist"]
assert verdicts["custom_op"] == "wrong"
assert torch.autograd.grad(triple(leaf), leaf)[0] == 3  # reverse mode has its formula
assert "mutate a captured Tensor" in verdicts["BatchNorm2d"]
assert "flash_attention_for_cpu" in verdicts["attention"]

# %% [markdown] lang="pl"
# Funkcja `scaled_dot_product_attention` działa po wybraniu wariantu `SDPBackend.MATH`, a
# `BatchNorm2d` po przejściu w tryb `eval`. Wszystkie przebiegi pochodzą z CPU. GPU ma inne jądra
# obliczeniowe (*kernels*), więc i lista operacji bez wzoru może być inna; tego tu nie zmierzono.
#
# Zostaje cicha awaria (*silent failure*): zgubiona styczna. Strażnik (*guard*), którego możesz
# wkleić, porównuje `jvp` z ilorazem różnicowym w tym samym punkcie i kierunku. Wymaga `float64`:
# najpierw wywołaj `.double()` na modelu i na danych.

# %% [markdown] lang="en"
# The function `scaled_dot_product_attention` works once the variant `SDPBackend.MATH` is chosen,
# and `BatchNorm2d` in `eval` mode. All runs come from a CPU. A GPU has other kernels, so the list of
# operations without a formula may differ there; that is not measured here.
#
# What remains is the silent failure: a lost tangent. A guard that you can paste compares `jvp` with
# a difference quotient at the same point and along the same direction. It needs `float64`: call
# `.double()` on the model and on the data first.

# %%
from collections.abc import Callable

import torch
from torch import Tensor


def checked_jvp(
    f: Callable[..., Tensor],
    primals: tuple[Tensor, ...],
    tangents: tuple[Tensor, ...],
    h: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Return what torch.func.jvp returns, or raise if a difference quotient objects."""
    if any(p.dtype != torch.float64 for p in (*primals, *tangents)):
        raise TypeError("a difference quotient needs float64")
    value, tangent = torch.func.jvp(f, primals, tangents)[:2]
    pairs = list(zip(primals, tangents, strict=True))
    ahead = f(*(p + h * t for p, t in pairs)).detach()
    behind = f(*(p - h * t for p, t in pairs)).detach()
    noise = 1e-7 * max(ahead.abs().max().item(), behind.abs().max().item())
    torch.testing.assert_close(
        tangent, (ahead - behind) / (2 * h), rtol=1e-4, atol=noise
    )
    return value, tangent


# %% fold=true
def alarm(f: Callable[[Tensor], Tensor], at: Tensor = rate) -> str:
    try:
        checked_jvp(f, (at,), (torch.ones_like(at),))
    except (AssertionError, TypeError) as error:
        return type(error).__name__
    return "no alarm"


def through(way: Way) -> Callable[[Tensor], Tensor]:
    """A function that loses, or keeps, a part of its derivative."""
    return lambda r: r * way(r**3)


def looped(steps: int, rate: Tensor) -> Tensor:
    """Reverse mode inside: the second parameter has lost the tangent of the first step."""
    w = x.new_zeros(8)
    for _ in range(steps):
        w = nn.Parameter(w)
        (gradient,) = torch.autograd.grad((x @ w - y).square().mean(), w)
        w = w - rate * gradient
    return (x @ w - y).square().mean()


names = ("x.detach()", "x.item()", "nn.Parameter(x)", "inference_mode")
leaks = {name: through(ways[name]) for name in names}
sound = {name: through(ways[name]) for name in ("x", "no_grad")}
heard = {name: alarm(f) for name, f in {**leaks, **sound}.items()}
heard |= {"final_loss": alarm(final_loss), "repaired_loss": alarm(repaired_loss)}
heard |= {f"looped, {k}": alarm(partial(looped, k)) for k in (1, 2)}
for name, answer in heard.items():
    print(f"{name:17}{answer}")
silent = [name for name, answer in heard.items() if answer == "no alarm"]
assert silent == [*sound, "repaired_loss", "looped, 1"]
assert alarm(lambda r: 1e-9 * final_loss(r)) == "AssertionError"  # tiny is no excuse
assert alarm(lambda r: torch.stack([r, r.detach() ** 2])) == "AssertionError"
assert alarm(repaired_loss, rate.float()) == "TypeError"

clipped = lambda r: r / max(r.item(), 1.0)  # noqa: E731
assert (alarm(clipped, 2 * one), alarm(clipped, one / 2)) == (
    "AssertionError",
    "no alarm",
)
assert alarm(lambda r: 1 + 1e-8 * r.detach()) == "no alarm"
kept: list[float] = []


def frozen(r: Tensor) -> Tensor:
    if not kept:
        kept.append((r**2).item())  # a number from the first call
    return r * kept[0]


assert alarm(frozen) == "no alarm"
assert alarm(lambda r: 1e6 * r + 50 * r.detach()) == "no alarm"
assert alarm(torch.relu, 0 * one) == "AssertionError"
assert alarm(lambda r: F.dropout(r.repeat(100))) == "AssertionError"

# %% [markdown] lang="pl"
# Strażnik wykrył każdy wyciek ze swojego wydruku, a milczał tam, gdzie pochodna jest pełna. Działa
# także, gdy funkcja sama wywołuje `torch.autograd.grad` (`looped`). Sprawdza jeden punkt i jeden
# kierunek: wycieku, który tam niczego nie zmienia (nieczynne przycinanie), nie zobaczy, podobnie
# jak liczby zapamiętanej w pierwszym wywołaniu i błędu znikomego wobec wartości funkcji ($10^{-8}$
# przy 1) albo mniejszego niż $10^{-4}$ pochodnej. Fałszywy alarm wywołają punkt bez pochodnej
# (`relu` w zerze), losowość (`dropout`), stan zmieniany między wywołaniami, wartość nieskończona
# oraz krok `h` zbyt duży dla długiej stycznej lub bliskiej osobliwości. Argumenty i wynik muszą być
# niepustymi tensorami: słownika wag ani krotki wyników nie przyjmie. Kosztuje dwa dodatkowe
# przejścia w przód, więc uruchom go raz, przed właściwymi obliczeniami.
#
# ## Co już umiesz
#
# - Powiesz, która operacja zachowuje styczną, a która ją gubi, i czym tryb postępowy różni się tu od wstecznego.
# - Przewidzisz koszt `jvp` w mnożeniach macierzy, a tryb wybierzesz na podstawie liczby wejść i wyjść oraz pamięci.
# - Sprawdzisz pochodną strażnikiem, zanim jej zaufasz.
#
# Wcześniej: lekcja 13 „Akumulacja gradientów: kiedy 16 × 8 to nie 128”. Jak napisać metodę `jvp`
# własnej operacji, pokazuje [lekcja 10](10_custom_autograd_function.py), a co zrobić z jakobianem i
# hesjanem, [lekcja 11](11_jacobian_and_hessian.py). Dalej: lekcja 15 „Strumień czy indeks? Dataset
# i IterableDataset od środka”. Gradient w przód pochodzi z pracy
# [Gradients without Backpropagation](https://arxiv.org/abs/2202.08587). Dokumentacja:
# [torch.func.jvp](https://docs.pytorch.org/docs/stable/generated/torch.func.jvp.html),
# [forward_ad](https://docs.pytorch.org/docs/stable/generated/torch.autograd.forward_ad.dual_level.html).
# Źródła:
# [`forward_grad.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/forward_grad.h),
# [`derivatives.yaml`](https://github.com/pytorch/pytorch/blob/v2.15.0/tools/autograd/derivatives.yaml),
# [`eager_transforms.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/_functorch/eager_transforms.py),
# [`ZeroTensorFallback.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ZeroTensorFallback.cpp);
# [zgłoszenie 69687](https://github.com/pytorch/pytorch/issues/69687).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# The guard caught every leak in its own printout, and stayed silent where the derivative is whole.
# It also works when the function itself calls `torch.autograd.grad` (`looped`). It checks one point
# and one direction: a leak that changes nothing there (clipping that is not active) it does not
# see, nor a number kept from the first call, nor an error that is tiny beside the value of the
# function ($10^{-8}$ beside 1) or below $10^{-4}$ of the derivative. A false alarm comes from a
# point without a derivative (`relu` at zero), randomness (`dropout`), state that changes between
# calls, an infinite value, and a step `h` too large for a long tangent or a nearby singularity.
# Arguments and result must be tensors that are not empty: it takes no dictionary of weights and no
# tuple of results. It costs two more forward passes, so run it once, before the real computation.
#
# ## Now you can
#
# - Tell which operation keeps a tangent and which loses it, and how forward mode differs from reverse mode in this.
# - Predict the cost of `jvp` in matrix multiplications, and choose a mode by the number of inputs and outputs, and by memory.
# - Check a derivative with a guard before you trust it.
#
# Before this: lesson 13 "Gradient accumulation: when 16 × 8 is not 128".
# [Lesson 10](10_custom_autograd_function.py) shows how to write the method `jvp` of an operation of
# your own, and [lesson 11](11_jacobian_and_hessian.py) what to do with a Jacobian and a Hessian.
# Next: lesson 15 "Stream or index? Dataset and IterableDataset from the inside". The forward
# gradient comes from the paper
# [Gradients without Backpropagation](https://arxiv.org/abs/2202.08587). Documentation:
# [torch.func.jvp](https://docs.pytorch.org/docs/stable/generated/torch.func.jvp.html),
# [forward_ad](https://docs.pytorch.org/docs/stable/generated/torch.autograd.forward_ad.dual_level.html).
# Source:
# [`forward_grad.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/forward_grad.h),
# [`derivatives.yaml`](https://github.com/pytorch/pytorch/blob/v2.15.0/tools/autograd/derivatives.yaml),
# [`eager_transforms.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/_functorch/eager_transforms.py),
# [`ZeroTensorFallback.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ZeroTensorFallback.cpp);
# [issue 69687](https://github.com/pytorch/pytorch/issues/69687).
#
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="more-duals" role="prompt" belt="white" minutes=8
# ### Biały: dzielenie i funkcja wykładnicza
#
# Dopisz do liczb dualnych dwa wzory. Funkcja `divide` dzieli element przez element, funkcja
# `exponential` liczy $e^a$. Styczna `None` nadal znaczy zero i może się zdarzyć w każdym
# argumencie. Nie wywołuj trybu postępowego PyTorcha.

# %% [markdown] lang="en" exercise="more-duals" role="prompt" belt="white" minutes=8
# ### White: division and the exponential
#
# Write two more formulas for dual numbers. The function `divide` divides element by element, the
# function `exponential` computes $e^a$. A tangent of `None` still means zero, and may occur in
# any argument. Do not call PyTorch's forward mode.


# %% exercise="more-duals" role="starter"
def divide(a: Dual, b: Dual) -> Dual:
    return Dual(a.value / b.value)  # your code


def exponential(a: Dual) -> Dual:
    return Dual(a.value.exp())  # your code


# %% exercise="more-duals" role="check"
def no_forward_mode(*_: object, **__: object) -> None:
    raise AssertionError(
        say(
            pl="wywołujesz tryb postępowy PyTorcha zamiast napisać wzór",
            en="you call PyTorch's forward mode instead of writing the formula",
        )
    )


def must_match(
    name: str, case: tuple[str, str], got: Dual, value: Tensor, tangent: Tensor
) -> None:
    assert torch.allclose(got.value, value, rtol=1e-12), say(
        pl=f"{name}: zła wartość", en=f"{name}: the value is wrong"
    )
    ours = torch.zeros_like(value) if got.tangent is None else got.tangent
    assert torch.allclose(ours, tangent, rtol=1e-12, atol=1e-14), say(
        pl=f"{name} ({case[0]}): styczna {ours.tolist()} zamiast {tangent.tolist()}",
        en=f"{name} ({case[1]}): the tangent is {ours.tolist()} instead of {tangent.tolist()}",
    )


drawn = torch.Generator().manual_seed(1)
CASES = {
    ("styczne mają a i b", "a and b have tangents"): (1, 1),
    ("styczną ma tylko a", "only a has a tangent"): (1, 0),
    ("styczną ma tylko b", "only b has a tangent"): (0, 1),
    ("stycznej nie ma ani a, ani b", "neither a nor b has a tangent"): (0, 0),
}
for case, (a_has, b_has) in CASES.items():
    top, below, ta, tb = torch.randn(4, 3, dtype=torch.float64, generator=drawn)
    below = below.sign() * (0.5 + below.abs())
    ta, tb = ta * a_has, tb * b_has
    ratio = jvp(torch.div, (top, below), (ta, tb))
    power = jvp(torch.exp, (top,), (ta,))
    first_dual = Dual(top, ta if a_has else None)
    second_dual = Dual(below, tb if b_has else None)
    with patch("torch._functorch.predispatch._make_dual", no_forward_mode):
        got_ratio, got_power = divide(first_dual, second_dual), exponential(first_dual)
    must_match("divide", case, got_ratio, *ratio)
    must_match("exponential", case, got_power, *power)

# %% [markdown] lang="pl" exercise="more-duals" role="hint"
# Pochodna ilorazu $a / b$ względem $a$ to $1 / b$, a względem $b$ to $-a / b^2$.

# %% [markdown] lang="en" exercise="more-duals" role="hint"
# The derivative of $a / b$ with respect to $a$ is $1 / b$, and with respect to $b$ it is
# $-a / b^2$.

# %% [markdown] lang="pl" exercise="more-duals" role="hint"
# Metoda `push` stosuje regułę do stycznej albo zwraca `None`, a funkcja `total` dodaje to, co
# zostało.

# %% [markdown] lang="en" exercise="more-duals" role="hint"
# The method `push` applies a rule to the tangent or returns `None`; the function `total` adds what
# is left.


# %% exercise="more-duals" role="wrong" says="divide (a and b have tangents): the tangent is"
def divide(a: Dual, b: Dual) -> Dual:
    # The denominator is no constant.
    return Dual(a.value / b.value, a.push(lambda t: t / b.value))


def exponential(a: Dual) -> Dual:
    result = a.value.exp()
    return Dual(result, a.push(lambda t: t * result))


# %% exercise="more-duals" role="wrong" says="exponential (a and b have tangents): the tangent is"
def divide(a: Dual, b: Dual) -> Dual:
    left = a.push(lambda t: t / b.value)
    right = b.push(lambda t: -a.value * t / b.value**2)
    return Dual(a.value / b.value, total(left, right))


def exponential(a: Dual) -> Dual:
    result = a.value.exp()
    return Dual(result, result)  # the derivative, but not along the tangent


# %% exercise="more-duals" role="wrong" says="you call PyTorch's forward mode"
def divide(a: Dual, b: Dual) -> Dual:
    zeros = torch.zeros_like(a.value)
    pushed = tuple(zeros if d.tangent is None else d.tangent for d in (a, b))
    return Dual(*jvp(torch.div, (a.value, b.value), pushed))


def exponential(a: Dual) -> Dual:
    tangent = torch.zeros_like(a.value) if a.tangent is None else a.tangent
    return Dual(*jvp(torch.exp, (a.value,), (tangent,)))


# %% exercise="more-duals" role="solution"
def divide(a: Dual, b: Dual) -> Dual:
    left = a.push(lambda t: t / b.value)
    right = b.push(lambda t: -a.value * t / b.value**2)
    return Dual(a.value / b.value, total(left, right))


def exponential(a: Dual) -> Dual:
    result = a.value.exp()
    # The derivative times the tangent: how e**a changes along the direction.
    return Dual(result, a.push(lambda t: t * result))


# %% [markdown] lang="pl" exercise="mend-the-loop" role="prompt" belt="brown" minutes=15
# ### Brązowy: uszczelnij pętlę
#
# Funkcja `tuned_loss` robi pięć kroków o długości `rate` i zwraca stratę. Wartość liczy dobrze, ale
# styczna nie dociera do wyniku. Popraw funkcję tak, żeby `jvp` po `rate` dawało pełną pochodną, a
# wartość się nie zmieniła.

# %% [markdown] lang="en" exercise="mend-the-loop" role="prompt" belt="brown" minutes=15
# ### Brown: seal the loop
#
# The function `tuned_loss` takes five steps of length `rate` and returns the loss. Its value is
# right, but the tangent does not reach the result. Fix it so that `jvp` gives the whole derivative
# with respect to `rate`, and the value stays the same.


# %% exercise="mend-the-loop" role="starter"
def tuned_loss(rate: Tensor, start: Tensor, x: Tensor, y: Tensor) -> Tensor:
    w = start
    for _ in range(5):
        w = nn.Parameter(w)
        loss = (x @ w - y).square().mean()
        (gradient,) = torch.autograd.grad(loss, w)
        w = w - rate * gradient / gradient.norm().item()
    with torch.inference_mode():
        return (x @ w - y).square().mean()  # your code


# %% exercise="mend-the-loop" role="check"
def reference(
    rate: Tensor, start: Tensor, x: Tensor, y: Tensor, cut: str = ""
) -> Tensor:
    w = start
    for _ in range(5):
        w = w.detach() if cut == "w" else w
        gradient = 2 * x.T @ (x @ w - y) / len(x)
        norm = gradient.norm().detach() if cut == "norm" else gradient.norm()
        w = w - rate * gradient / norm
    return (x @ w - y).square().mean()


def along_rate(
    loss: Callable[..., Tensor], at: Tensor, *data: Tensor | str
) -> tuple[Tensor, Tensor]:
    value, slope = jvp(lambda r: loss(r, *data), (at,), (one,))[:2]
    return value, slope


drawn = torch.Generator().manual_seed(2)
for samples, features in ((30, 4), (12, 3), (50, 6)):
    xs = torch.randn(samples, features, dtype=torch.float64, generator=drawn)
    ys = torch.randn(samples, dtype=torch.float64, generator=drawn)
    begin = 3 * torch.randn(features, dtype=torch.float64, generator=drawn)
    at = 0.2 + 0.3 * torch.rand((), dtype=torch.float64, generator=drawn)
    plain_value = tuned_loss(at, begin, xs, ys)
    value, got_slope = along_rate(tuned_loss, at, begin, xs, ys)
    slopes_of = {
        cut: along_rate(reference, at, begin, xs, ys, cut)[1]
        for cut in ("", "w", "norm")
    }
    wanted_value = reference(at, begin, xs, ys)
    assert torch.allclose(plain_value, wanted_value) and torch.allclose(
        value, wanted_value
    ), say(
        pl=f"strata to {value.item():.4f} zamiast {wanted_value.item():.4f}",
        en=f"the loss is {value.item():.4f} instead of {wanted_value.item():.4f}",
    )
    assert got_slope != 0, say(
        pl="pochodna to 0: styczna w ogóle nie dociera do wyniku",
        en="the derivative is 0: the tangent does not reach the result at all",
    )
    assert not torch.allclose(got_slope, slopes_of["w"]), say(
        pl="pochodna uwzględnia tylko ostatni krok: coś odcina styczną w na początku kroku",
        en="the derivative is that of the last step alone: something cuts off the tangent of w",
    )
    assert not torch.allclose(got_slope, slopes_of["norm"]), say(
        pl="pochodna jest taka, jakby norma gradientu była stałą",
        en="the derivative is as if the norm of the gradient were a constant",
    )
    assert torch.allclose(got_slope, slopes_of[""], rtol=1e-11, atol=0), say(
        pl=f"pochodna to {got_slope.item():.4f} zamiast {slopes_of[''].item():.4f}",
        en=f"the derivative is {got_slope.item():.4f} instead of {slopes_of[''].item():.4f}",
    )

# %% [markdown] lang="pl" exercise="mend-the-loop" role="hint"
# Są trzy wycieki, a każdy ma swój wiersz w tabeli z tej lekcji.

# %% [markdown] lang="en" exercise="mend-the-loop" role="hint"
# There are three leaks, and each of them has a row in this lesson's table.

# %% [markdown] lang="pl" exercise="mend-the-loop" role="hint"
# Gradient bez parametru policzy `torch.func.grad`; tryb postępowy przejdzie także przez nią.

# %% [markdown] lang="en" exercise="mend-the-loop" role="hint"
# `torch.func.grad` computes the gradient without a parameter; forward mode passes through it, too.


# %% exercise="mend-the-loop" role="wrong" says="the tangent does not reach the result at all"
def tuned_loss(rate: Tensor, start: Tensor, x: Tensor, y: Tensor) -> Tensor:
    def loss(w: Tensor) -> Tensor:
        return (x @ w - y).square().mean()

    w = start
    for _ in range(5):
        gradient = grad(loss)(w)
        w = w - rate * gradient / gradient.norm()
    with torch.inference_mode():  # switches forward mode off as well
        return loss(w)


# %% exercise="mend-the-loop" role="wrong" says="that of the last step alone"
def tuned_loss(rate: Tensor, start: Tensor, x: Tensor, y: Tensor) -> Tensor:
    w = start
    for _ in range(5):
        w = nn.Parameter(w)  # a parameter has no tangent
        loss = (x @ w - y).square().mean()
        (gradient,) = torch.autograd.grad(loss, w)
        w = w - rate * gradient / gradient.norm()
    return (x @ w - y).square().mean()


# %% exercise="mend-the-loop" role="wrong" says="as if the norm of the gradient were a constant"
def tuned_loss(rate: Tensor, start: Tensor, x: Tensor, y: Tensor) -> Tensor:
    def loss(w: Tensor) -> Tensor:
        return (x @ w - y).square().mean()

    w = start
    for _ in range(5):
        gradient = grad(loss)(w)
        w = w - rate * gradient / gradient.norm().item()  # a plain number
    return loss(w)


# %% exercise="mend-the-loop" role="solution"
def tuned_loss(rate: Tensor, start: Tensor, x: Tensor, y: Tensor) -> Tensor:
    def loss(w: Tensor) -> Tensor:
        return (x @ w - y).square().mean()

    w = start
    for _ in range(5):
        gradient = grad(loss)(w)  # no parameter, so w keeps its tangent
        w = w - rate * gradient / gradient.norm()  # a tensor, not a number
    return loss(w)  # where inference_mode was, no_grad would do no harm


# %% [markdown] lang="pl" exercise="find-the-leak" role="prompt" belt="black" minutes=25
# ### Czarny: który wiersz gubi styczną?
#
# Strażnik mówi, że styczna zginęła, a nie mówi gdzie. Metodę `__torch_function__` tej klasy PyTorch
# wywołuje przy większości funkcji użytych wewnątrz `with TangentWatch():` (nie przy `nn.Parameter`).
# Niech zgłasza `RuntimeError`
# z nazwą `resolve_name(func)`, gdy któryś argument ma styczną, a wśród wyników jest `float` albo
# tensor zmiennoprzecinkowy bez stycznej. Wyniki logiczne i całkowite to nie wyciek. Taka
# reguła oskarży też `torch.zeros_like`, a wewnątrz `inference_mode` nie zadziała.

# %% [markdown] lang="en" exercise="find-the-leak" role="prompt" belt="black" minutes=25
# ### Black: which line loses the tangent?
#
# The guard says that a tangent was lost, but not where. PyTorch calls the method
# `__torch_function__` of this class for most functions used inside `with TangentWatch():` (not for
# `nn.Parameter`). Let it raise `RuntimeError` with the name `resolve_name(func)` when an argument
# has a tangent and among the results is a `float` or a floating-point tensor without one. Boolean
# and integer results are no leak. Such a rule also accuses `torch.zeros_like`, and does not work
# inside `inference_mode`.


# %% exercise="find-the-leak" role="starter"
class TangentWatch(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result: object = func(*args, **(kwargs or {}))
        return result  # your code


# %% exercise="find-the-leak" role="check"
def watched(f: Callable[[Tensor], Any]) -> str:
    """The message of the watch at the cubes of 1, 2, 3, or an empty string."""

    def run(r: Tensor) -> Tensor:
        with TangentWatch():
            f(r**3)
        return r

    at = torch.tensor([1.0, 2.0, 3.0])
    try:
        jvp(run, (at,), (torch.ones_like(at),))
    except RuntimeError as error:
        return str(error)
    return ""


constant = torch.ones(3)
harmless: dict[str, Callable[[Tensor], Any]] = {
    "r * 2": lambda r: r * 2,
    "r > 0": lambda r: r * 2 if bool((r > 0).all()) else r,
    "r[r.argmax()]": lambda r: r[r.argmax()] * r.shape[0],
    "r.norm()": lambda r: r / r.norm().clamp(min=1),
    "no_grad": inside(torch.no_grad),
    "constant.detach()": lambda r: r * constant.detach(),
    "constant.sum().item()": lambda r: r * constant.sum().item(),
}


def scaled(r: Any) -> Tensor:
    return torch.add(constant, constant, alpha=r[0])


harmful: dict[str, Callable[[Tensor], Any]] = {
    "torch.Tensor.detach": lambda r: r.detach(),
    "torch.Tensor.item": lambda r: r / max(r.norm().item(), 1.0),
    "torch.Tensor.__float__": lambda r: float(r.sum()),
    "torch.Tensor.tolist": lambda r: r.reshape(3, 1).tolist(),
    "torch.Tensor.data.__get__": lambda r: r.data,
    "torch.add": scaled,
    "lesson.triple": lambda r: triple(r),
}
for name, safe in harmless.items():
    assert watched(safe) == "", say(
        pl=f"{name}: fałszywy alarm „{watched(safe)}”",
        en=f"{name}: false alarm “{watched(safe)}”",
    )
for name, leaky in harmful.items():
    assert name in watched(leaky), say(
        pl=f"{name}: styczna zginęła, a alarm brzmi „{watched(leaky)}”",
        en=f"{name}: the tangent was lost, and the alarm says “{watched(leaky)}”",
    )


def watched_loop(r: Tensor) -> Tensor:
    with TangentWatch():
        return final_loss(r)


try:
    jvp(watched_loop, (rate,), (one,))
    culprit = ""
except RuntimeError as error:
    culprit = str(error)
assert "torch.Tensor.item" in culprit, say(
    pl="pętla z początku lekcji przeszła bez alarmu",
    en="the loop from the beginning of the lesson raised no alarm",
)
with TangentWatch():
    assert torch.equal(constant + 1, 2 * constant), say(
        pl="wynik funkcji się zmienił", en="the result of the function has changed"
    )

# %% [markdown] lang="pl" exercise="find-the-leak" role="hint"
# Styczną tensora podaje `forward_ad.unpack_dual`, a argumenty i wyniki z zagnieżdżonych list
# wyjmuje `tree_leaves`.

# %% [markdown] lang="en" exercise="find-the-leak" role="hint"
# `forward_ad.unpack_dual` gives the tangent of a tensor; `tree_leaves` takes arguments and results
# out of nested lists.

# %% [markdown] lang="pl" exercise="find-the-leak" role="hint"
# Najpierw zapytaj, czy jakikolwiek argument ma styczną. Jeśli nie, żaden wynik nie jest podejrzany.

# %% [markdown] lang="en" exercise="find-the-leak" role="hint"
# First ask whether any argument has a tangent. If none has, no result is suspicious.


# %% exercise="find-the-leak" role="wrong" says="constant.detach(): false alarm"
class TangentWatch(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        # A list of forbidden names does not ask whether there was a tangent to lose.
        names = ("detach", "item", "__float__", "tolist", "data.__get__")
        if resolve_name(func) in {f"torch.Tensor.{name}" for name in names}:
            raise RuntimeError(resolve_name(func))
        result: object = func(*args, **(kwargs or {}))
        return result


# %% exercise="find-the-leak" role="wrong" says="torch.Tensor.item: the tangent was lost"
class TangentWatch(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result: object = func(*args, **(kwargs or {}))

        def has(leaf: object) -> bool:
            return isinstance(leaf, Tensor) and (
                forward_ad.unpack_dual(leaf).tangent is not None
            )

        # Looks only at tensors: a number comes out unseen.
        before, after = tree_leaves((args, kwargs)), tree_leaves(result)
        tensors = [t for t in after if isinstance(t, Tensor) and t.is_floating_point()]
        if any(map(has, before)) and not all(map(has, tensors)):
            raise RuntimeError(resolve_name(func))
        return result


# %% exercise="find-the-leak" role="wrong" says="r > 0: false alarm"
class TangentWatch(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result: object = func(*args, **(kwargs or {}))

        def has(leaf: object) -> bool:
            return isinstance(leaf, Tensor) and (
                forward_ad.unpack_dual(leaf).tangent is not None
            )

        # A comparison and a position have no derivative to lose.
        before, after = tree_leaves((args, kwargs)), tree_leaves(result)
        if any(map(has, before)) and not all(map(has, after)):
            raise RuntimeError(resolve_name(func))
        return result


# %% exercise="find-the-leak" role="solution"
class TangentWatch(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result: object = func(*args, **(kwargs or {}))

        def has(leaf: object) -> bool:
            return isinstance(leaf, Tensor) and (
                forward_ad.unpack_dual(leaf).tangent is not None
            )

        def should_have(leaf: object) -> bool:  # only real numbers have a derivative
            if isinstance(leaf, Tensor):
                return leaf.is_floating_point()
            return isinstance(leaf, float)

        lost = [
            leaf for leaf in tree_leaves(result) if should_have(leaf) and not has(leaf)
        ]
        if lost and any(map(has, tree_leaves((args, kwargs)))):
            raise RuntimeError(f"{resolve_name(func)} loses a tangent")
        return result
