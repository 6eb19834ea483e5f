# %% [markdown] lang="pl"
# # Jakobian i hesjan (najlepiej bez macierzy)
#
# Macierz drugich pochodnych nawet małej sieci zajmuje gigabajty. Po tej lekcji pomnożysz przez
# nią wektor za cenę kilku gradientów, nie budując jej, i sprawdzisz, czy to na pewno była ta
# macierz.
#
# ## Współczynnik uczenia z krzywizny
#
# Hesjan (*Hessian*) to macierz drugich pochodnych straty względem wszystkich parametrów. Jego
# największa wartość własna $\lambda$ to **największa krzywizna** straty: dla wypukłej straty
# kwadratowej spadek gradientowy jest zbieżny, gdy współczynnik uczenia jest mniejszy niż
# $2/\lambda$.
#
# Do policzenia $\lambda$ wystarczą iloczyny z wektorem. Metoda potęgowa (*power iteration*) na
# przemian mnoży losowy wektor przez macierz i skaluje go do długości 1. Gdy długość iloczynu
# przestanie się zmieniać, jest równa największej co do modułu wartości własnej (tu wszystkie są
# dodatnie).
#
# Model to warstwa liniowa, która dostaje osiem cech obrazu i sześć cech tekstu. Funkcja
# `times_hessian` różniczkuje gradient jeszcze raz.

# %% [markdown] lang="en"
# # Jacobians and Hessians (preferably without the matrix)
#
# The matrix of second derivatives of even a small network takes gigabytes. After this lesson you
# can multiply it by a vector for the price of a few gradients, without building it, and check
# that it really was that matrix.
#
# ## A learning rate from curvature
#
# The Hessian is the matrix of second derivatives of the loss with respect to all parameters. Its
# largest eigenvalue $\lambda$ is the **highest curvature** of the loss: for a convex quadratic
# loss, gradient descent converges if the learning rate stays below $2/\lambda$.
#
# Products with a vector are enough to compute $\lambda$. Power iteration multiplies a random
# vector by the matrix and scales it to length 1, again and again. Once the length of the product
# settles, it is the eigenvalue of largest magnitude (all are positive here).
#
# The model is a linear layer on eight features of an image and six of a text. The function
# `times_hessian` differentiates the gradient once more.

# %% fold=true
import math
import random
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, ORANGE, RED, show_figure
from snippets.graph_nodes import graph_of
from snippets.graph_pictures import show_graph
from snippets.memory import CallCounter, MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)
# PyTorch's own first use of forward mode in a process warns about torch.jit.script.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

Loss = Callable[[Sequence[Tensor]], Tensor]
Product = Callable[[Loss, Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]

image = torch.randn(512, 8, dtype=torch.float64).relu()  # features after a ReLU
text = torch.randn(512, 6, dtype=torch.float64).relu()
target = image[:, 0] + text[:, 0] + 0.1 * torch.randn(512, dtype=torch.float64)
NAMES = ("w_image", "w_text", "bias")
head = [torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (8, 6, 1)]


def loss_of(params: Sequence[Tensor]) -> Tensor:
    w_image, w_text, bias = params
    return (image @ w_image + text @ w_text + bias - target).square().mean()


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors into one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector into tensors of the given shapes."""
    pieces = vector.split([tensor.numel() for tensor in like])
    return [p.view_as(tensor) for p, tensor in zip(pieces, like, strict=True)]


def power_iteration(times: Product, rounds: int = 100) -> float:
    """The largest magnitude of an eigenvalue of what `times` multiplies by."""
    torch.manual_seed(0)
    v = split(torch.randn(sum(p.numel() for p in head)).double(), head)
    for _ in range(rounds):
        product = flat(times(loss_of, head, v))
        v = split(product / product.norm(), head)
    return float(product.norm())


def descend(lr: float, steps: int) -> list[float]:
    """The losses of gradient descent from `head`."""
    params, losses = head, [loss_of(head).item()]
    for _ in range(steps):
        grads = torch.autograd.grad(loss_of(params), params)
        moved = [p - lr * g for p, g in zip(params, grads, strict=True)]
        params = [p.detach().requires_grad_() for p in moved]
        losses.append(loss_of(params).item())
    return losses


# %%
def times_hessian(
    loss_of: Loss, params: Sequence[Tensor], v: Sequence[Tensor]
) -> list[Tensor]:
    grads = torch.autograd.grad(loss_of(params), params, create_graph=True)
    triples = zip(grads, params, v, strict=True)
    return [torch.autograd.grad(g, p, u, retain_graph=True)[0] for g, p, u in triples]


found = power_iteration(times_hessian)
steps = 40
losses = descend(0.9 * 2 / found, steps)  # 10% below the limit
loss_before, loss_after = losses[0], losses[-1]
print(f"{found=:.4f} {loss_before=:.2f} {loss_after=:.0e}")
assert loss_after > 1e6 * loss_before

# %% [markdown] lang="pl"
# Wyjątku nie było, a krzywizna `found` wyniosła {{ found:.4f }}. Współczynnik uczenia był o 10%
# niższy od granicy obliczonej z tej liczby, a mimo to strata w {{ steps }} krokach wzrosła z
# {{ loss_before:.2f }} do {{ loss_after:.0e }}. To cicha awaria (*silent failure*). Pytanie
# lekcji: **którą pochodną naprawdę liczysz i ile gradientów kosztuje ta, której potrzebujesz?**
#
# ## Gdzie jest błąd?
#
# Zanim to sprawdzimy, wybierz odpowiedź.

# %% [markdown] lang="en"
# Nothing raised, and the curvature `found` came out as {{ found:.4f }}. The learning rate was 10%
# below the limit computed from this number, yet in {{ steps }} steps the loss grew from
# {{ loss_before:.2f }} to {{ loss_after:.0e }}. That is a silent failure. The question of this
# lesson: **which derivative do you really compute, and how many gradients does the one you need
# cost?**
#
# ## Where is the mistake?
#
# Choose an answer before we check.

# %% [markdown] lang="pl" predict="which-matrix"
# Dlaczego współczynnik uczenia równy `0.9 * 2 / found` okazał się za duży?
#
# - [ ] Funkcja `times_hessian` mnoży przez hesjan, ale sto powtórzeń metody potęgowej to za mało.
#
#   Po {{ early_rounds }} powtórzeniach wynik był już taki sam do {{ digits }} cyfr po przecinku:
#   metoda jest zbieżna, tylko nie do tej liczby.
#
# - [ ] Krzywizna `found` jest policzona dobrze, tylko granica $2/\lambda$ nie pasuje do tej
#   straty.
#
#   Granica pasuje: z prawdziwą krzywizną, {{ curvature:.4f }}, ten sam wzór daje współczynnik,
#   przy którym strata spada do {{ sound_loss:.2f }}.
#
# - [x] Funkcja `times_hessian` pomija część drugich pochodnych, więc krzywizna wyszła za mała.
#
#   Gradient każdego tensora różniczkuje tylko względem tego samego tensora. Pochodne mieszane,
#   np. względem wagi obrazu i wagi tekstu, przepadły, a z nimi ponad połowa krzywizny: zostało
#   {{ found:.4f }} z {{ curvature:.4f }}.

# %% [markdown] lang="en" predict="which-matrix"
# Why did the learning rate `0.9 * 2 / found` turn out too large?
#
# - [ ] The function `times_hessian` multiplies by the Hessian, but a hundred rounds of power
#   iteration are too few.
#
#   After {{ early_rounds }} rounds the result was already the same to {{ digits }} decimal
#   places: the method has converged, just not to that number.
#
# - [ ] The curvature `found` is right, but the limit $2/\lambda$ does not suit this loss.
#
#   The limit suits it: with the true curvature, {{ curvature:.4f }}, the same formula gives a
#   rate at which the loss falls to {{ sound_loss:.2f }}.
#
# - [x] The function `times_hessian` leaves out part of the second derivatives, so the curvature
#   came out too small.
#
#   It differentiates the gradient of each tensor with respect to that same tensor only. Mixed
#   derivatives, for example by a weight of the image and a weight of the text, are lost, and with
#   them more than half of the curvature: {{ found:.4f }} is left of {{ curvature:.4f }}.


# %%
def hvp(
    loss_of: Loss, params: Sequence[Tensor], v: Sequence[Tensor]
) -> Sequence[Tensor]:
    """The Hessian of the loss times v, without the Hessian."""
    grads = torch.autograd.grad(loss_of(params), params, create_graph=True)
    return torch.autograd.grad(grads, params, v)


def matrix_of(times: Product) -> Tensor:
    """The matrix that `times` multiplies by: its products with unit vectors."""
    units = torch.eye(15, dtype=torch.float64)
    return torch.stack([flat(times(loss_of, head, split(e, head))) for e in units])


H = hessian(lambda vector: loss_of(split(vector, head)))(flat(head).detach())
eigenvalues = torch.linalg.eigvalsh(H)
curvature, lambda_max = power_iteration(hvp), eigenvalues.max().item()
sound_loss = descend(0.9 * 2 / curvature, steps)[-1]
print(f"{curvature=:.6f} {lambda_max=:.6f} {sound_loss=:.2f}")
assert torch.allclose(matrix_of(hvp), H)
assert math.isclose(curvature, lambda_max, rel_tol=1e-9)
assert sound_loss < loss_before and 2 * found < curvature
assert eigenvalues.min() > 0

# %% fold=true
early_rounds, digits = 50, 6
assert abs(power_iteration(times_hessian, early_rounds) - found) < 10**-digits / 2
seen = matrix_of(times_hessian)
assert math.isclose(found, torch.linalg.eigvalsh(seen)[-1].item(), rel_tol=1e-9)
blocks = torch.block_diag(H[:8, :8], H[8:14, 8:14], H[14:, 14:])
assert torch.allclose(seen, blocks) and bool((H != 0).all())
assert torch.allclose(H, H.T) and torch.allclose(seen, seen.T)
middles, borders = [3.5, 10.5, 14.0], [7.5, 13.5]
fig, panels = plt.subplots(1, 2, figsize=(7.2, 3.5))
for ax, matrix, title in zip(
    panels, (H, seen), ("hessian", "times_hessian"), strict=True
):
    filled = matrix.where(matrix != 0, math.nan).numpy()
    shown = ax.imshow(filled, vmin=0, vmax=H.max().item())
    for border in borders:
        ax.axhline(border, color=GRAY, lw=1)
        ax.axvline(border, color=GRAY, lw=1)
    ax.set_xticks(middles, NAMES)
    ax.set_yticks(middles, NAMES if ax is panels[0] else ["", "", ""])
    ax.tick_params(length=0, labelsize=9)
    ax.set_title(title)
    ax.spines[:].set(visible=True, color=GRAY)
fig.colorbar(shown, ax=panels, shrink=0.75)
show_figure(
    fig,
    alt_pl="Dwie mapy macierzy 15 na 15. Pierwsza, hesjan, jest wypełniona w całości. W drugiej "
    "wypełnione są tylko trzy kwadraty na przekątnej, po jednym na tensor, a prostokąty poza nią "
    "są puste.",
    alt_en="Two maps of matrices, 15 by 15. The first, the Hessian, is filled completely. In the "
    "second only three squares on the diagonal are filled, one for each tensor, and the "
    "rectangles off the diagonal are empty.",
    same=("hessian", "times_hessian", *NAMES),
)

# %% [markdown] lang="pl"
# Funkcja `torch.func.hessian` buduje całą macierz (tu 15 × 15), więc jest naszym wzorcem. Po
# prawej zostały z niej tylko bloki na przekątnej, po jednym na tensor; puste pola to zera.
# Poprawna funkcja `hvp` (od *Hessian-vector product*, iloczyn hesjanu i wektora) różni się
# jednym: `torch.autograd.grad` dostaje wszystkie gradienty i wszystkie parametry w **jednym**
# wywołaniu. Do wyniku każdego parametru dodaje więc wkład wszystkich trzech gradientów, razem z
# pochodnymi mieszanymi.
#
# ## Jedno przejście wstecz, jeden iloczyn
#
# Jakobian (*Jacobian*) $J$ to macierz pierwszych pochodnych: każdemu wyjściu odpowiada wiersz, a
# każdemu wejściu kolumna. Przejście wstecz (*backward pass*) jej nie buduje. Dostaje wektor $v$,
# po jednej liczbie na wyjście, i zwraca $v^\top J$, **iloczyn wektora i jakobianu**
# (*vector-Jacobian product*, VJP).

# %% [markdown] lang="en"
# The function `torch.func.hessian` builds the whole matrix (15 × 15 here), so it is our
# reference. On the right only the blocks on its diagonal are left, one per tensor; empty cells
# are zeros. The correct `hvp` (Hessian-vector product) differs in one thing:
# `torch.autograd.grad` gets all gradients and all parameters in **one** call. So the result of
# each parameter sums the contributions of all three gradients, mixed derivatives included.
#
# ## One backward pass, one product
#
# A Jacobian $J$ is a matrix of first derivatives: a row for each output, a column for each input.
# The backward pass does not build it. It is given a vector $v$, one number for each output, and
# returns $v^\top J$, the **vector-Jacobian product** (VJP).

# %%
A = torch.randn(3, 4, dtype=torch.float64)
x = torch.randn(4, dtype=torch.float64, requires_grad=True)
y = (A @ x).tanh()
J = ((1 - y**2)[:, None] * A).detach()  # (3, 4), by hand

v = torch.randn(3, dtype=torch.float64)
(product,) = torch.autograd.grad(y, x, v, retain_graph=True)
assert torch.allclose(product, v @ J)

unit = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
(row,) = torch.autograd.grad(y, x, unit)
assert torch.allclose(row, J[1])
print(row, J[1], sep="\n")

# %% [markdown] lang="pl"
# Wektor jednostkowy wybiera z macierzy jeden wiersz, więc wektor po wektorze cały jakobian
# kosztuje tyle przejść, ile jest wyjść. Strata ma jedno wyjście: jej jakobian to jeden wiersz,
# gradient. Gradient ma tyle wyjść, ile jest parametrów, a jego jakobian to hesjan $H$. Hesjan
# jest symetryczny, więc jedno przejście wstecz przez gradient daje $v^\top H$, czyli $Hv$.
# Potrzebuje do tego grafu: `create_graph=True` zapisuje w nim także obliczenie gradientu.

# %% [markdown] lang="en"
# A unit vector picks one row of the matrix, so one vector at a time a whole Jacobian costs as
# many passes as there are outputs. A loss has one output: its Jacobian is one row, the gradient.
# The gradient has as many outputs as there are parameters, and its Jacobian is the Hessian $H$.
# The Hessian is symmetric, so one backward pass through the gradient gives $v^\top H$, that is
# $Hv$. It needs a graph to pass through: `create_graph=True` records the computation of the
# gradient, too.

# %% fold=true
w = torch.randn(4, requires_grad=True)
scale = torch.randn(4)
toy_loss = (w * scale).tanh().sum()
(toy_gradient,) = torch.autograd.grad(toy_loss, w, create_graph=True)
first, second = (graph_of(t, names={"w": w}) for t in (toy_loss, toy_gradient))
old, new = ({item.node for item in graph} for graph in (first, second))
assert len(old & new) == 3 and len(new - old) == 2  # the same live nodes
show_graph(
    {"loss": first, "gradient": second},
    alt_pl="Dwa grafy. Graf straty: suma, tanh, mnożenie, liść w. Graf gradientu ma na górze dwa "
    "nowe węzły, mnożenie i pochodną funkcji tanh, a pod nimi te same węzły tanh, mnożenie i w, "
    "które są w grafie straty.",
    alt_en="Two graphs. The graph of the loss: sum, tanh, multiplication, leaf w. The graph of the "
    "gradient has two new nodes on top, a multiplication and the derivative of tanh, and below "
    "them the same nodes tanh, multiplication and w as the graph of the loss.",
    colours=dict.fromkeys(new - old, ORANGE),
    sizes=False,
    pl={"loss": "strata", "gradient": "gradient"},
)

# %% [markdown] lang="pl"
# To graf straty `(w * scale).tanh().sum()` i graf jej gradientu. Wyróżnione węzły powstały w
# przejściu wstecz, a pod nimi są te same obiekty co w grafie straty. Druga pochodna wymaga więc
# przejścia przez oba obliczenia.
#
# ## Gdy macierz jest potrzebna
#
# Weźmy sieć o 64 wejściach i 256 wyjściach. Jej jakobian zajmuje {{ matrix_bytes }} B. Można go
# zbudować na trzy sposoby:
#
# - `torch.autograd.functional.jacobian` wywołuje przejście wstecz w pętli, wiersz po wierszu;
# - `torch.func.jacrev` przepuszcza wszystkie wektory jednostkowe naraz: `vmap` zamienia funkcję
#   jednego wektora w funkcję całej ich partii (*batch*), więc każda operacja działa raz na
#   macierzy (a operacja bez reguły dla `vmap` w pętli). Z `chunk_size=32` oblicza porcje po 32
#   wiersze;
# - `torch.func.jacfwd` składa macierz z kolumn, trybem postępowym (*forward mode*), który liczy
#   $Jv$ już w przejściu w przód (*forward pass*).
#
# Przejścia liczymy wywołaniami `tanh_backward`, pochodnej funkcji tanh. Tryb postępowy też ją
# wywołuje, raz na przejście w przód.

# %% [markdown] lang="en"
# These are the graphs of the loss `(w * scale).tanh().sum()` and of its gradient. The backward
# pass made the highlighted nodes; below them are the same objects as in the graph of the loss. So
# a second derivative passes through both computations.
#
# ## When you do need the matrix
#
# Take a network with 64 inputs and 256 outputs. Its Jacobian takes {{ matrix_bytes }} bytes.
# There are three ways to build it:
#
# - `torch.autograd.functional.jacobian` calls the backward pass in a loop, row by row;
# - `torch.func.jacrev` sends all unit vectors through one backward pass: `vmap` turns a function
#   of one vector into a function of a batch of them, so each operation runs once on a matrix (and
#   one without a rule for `vmap`, in a loop). With `chunk_size=32` it computes chunks of 32 rows;
# - `torch.func.jacfwd` builds the matrix from columns, in forward mode, which computes $Jv$
#   during the forward pass.
#
# We count passes by calls of `tanh_backward`, the derivative of tanh. Forward mode calls it, too,
# once per forward pass.


# %%
def wide(x: Tensor) -> Tensor:  # (1, 64) -> (256,)
    return ((x @ enter).tanh() @ leave)[0]


enter, leave = torch.randn(64, 256) / 8, torch.randn(256, 256) / 16
x64 = torch.randn(1, 64)
WHOLE: dict[str, Callable[[], Tensor]] = {
    "jacobian": lambda: jacobian(wide, x64),
    "jacrev": lambda: jacrev(wide)(x64),
    "jacrev, chunk_size=32": lambda: jacrev(wide, chunk_size=32)(x64),
    "jacfwd": lambda: jacfwd(wide)(x64),
}
truth = WHOLE["jacobian"]()
matrix_bytes = truth.nbytes
passes, peaks, flops = {}, {}, {}
print(
    say(
        pl=f"{'':22} przejścia   szczyt B  mnożenia liczb",
        en=f"{'':22}    passes     peak B multiplications",
    )
)
for name, way in WHOLE.items():
    with CallCounter() as calls, MemoryMeter() as meter:
        assert torch.allclose(way(), truth, atol=1e-5)
    with FlopCounterMode(display=False) as counter:
        way()
    passes[name], peaks[name] = calls.names["tanh_backward"], meter.peak
    flops[name] = counter.get_total_flops() // 2
    print(f"{name:22} {passes[name]:9} {peaks[name]:10} {flops[name]:15}")
assert [*passes.values()] == [256, 1, 8, 1]
assert flops["jacobian"] == flops["jacrev"] > 3 * flops["jacfwd"]
assert peaks["jacrev"] > 4 * peaks["jacrev, chunk_size=32"]
assert peaks["jacrev"] > 1.5 * peaks["jacfwd"]

for weight in (enter, leave):
    weight.requires_grad_()  # as in training
with CallCounter() as calls, MemoryMeter() as meter:
    tracked = WHOLE["jacrev, chunk_size=32"]()
tracked_peak, columns_gain = meter.peak, flops["jacrev"] / flops["jacfwd"]
print(
    f"{'chunk_size=32, tracked':22} {calls.names['tanh_backward']:9} {tracked_peak:10}"
)
assert tracked.requires_grad and meter.live > 5 * matrix_bytes
assert tracked_peak > peaks["jacrev"]
for weight in (enter, leave):
    weight.requires_grad_(False)


# %% measured=true fold=true
# CPU time of this thread, so that other programs do not count; too coarse on Windows.
clock = time.perf_counter if sys.platform == "win32" else time.thread_time


def ratios(ways: dict[str, Callable[[], object]], unit: str) -> dict[str, float]:
    """The shortest time of each way in fifteen interleaved rounds, over that of `unit`."""
    best = dict.fromkeys(ways, math.inf)
    for _ in range(15):
        for name, way in ways.items():
            start_time = clock()
            way()
            best[name] = min(best[name], clock() - start_time)
    return {name: seconds / best[unit] for name, seconds in best.items()}


loop_ratio = ratios({n: WHOLE[n] for n in ("jacobian", "jacrev")}, "jacrev")["jacobian"]
print(f"{loop_ratio=:.0f}")
assert loop_ratio > 2

# %% [markdown] lang="pl"
# Pętla i `jacrev` wykonują tyle samo mnożeń, ale w 256 i w 1 przejściu: w tym pomiarze pętla
# trwała {{ loop_ratio:.0f }}× dłużej. Ceną jest pamięć na partię wektorów, a `chunk_size` ją
# ogranicza. Funkcja `jacfwd` ma do policzenia 64 kolumny zamiast 256 wierszy i wykonuje
# {{ columns_gain:.1f }}× mniej mnożeń.
#
# Ostatni wiersz tabeli to pułapka: gdy wagi wymagają gradientu, wynik też go wymaga i trzyma
# grafy wszystkich porcji. Mimo `chunk_size` szczyt to {{ tracked_peak }} B, więcej niż bez
# podziału, ale z zamrożonymi wagami. Zamroź je więc najpierw.
#
# ## Zbuduj pięć pochodnych
#
# Do $Jv$, $v^\top J$, $J$, $Hv$ i $H$ wystarczą macierze warstw i trzy wzory na każdą funkcję
# między nimi: wartość, pochodna i druga pochodna. Tryb postępowy idzie przez warstwy od początku,
# tryb wsteczny (*reverse mode*) od końca, a $Hv$ to różniczkowanie trybu wstecznego w kierunku
# $v$; $H$ jest tu hesjanem sumy wyjść. Macierz jednostkowa zamiast wektora daje od razu całą
# macierz: w trybie wstecznym wiersze $J$, w postępowym kolumny.
#
# Wzorcem jest `torch.func` na losowych łańcuchach warstw.

# %% [markdown] lang="en"
# The loop and `jacrev` do the same number of multiplications, but in 256 passes and in 1: in this
# measurement the loop took {{ loop_ratio:.0f }}× as long. The price is memory for a batch of
# vectors, and `chunk_size` limits it. The function `jacfwd` has 64 columns to compute instead of
# 256 rows, and does {{ columns_gain:.1f }}× fewer multiplications.
#
# The last row of the table is a trap: if the weights require a gradient, so does the result,
# which holds the graphs of all chunks. Despite `chunk_size` the peak is {{ tracked_peak }} bytes,
# more than without chunks but with frozen weights. So freeze them first.
#
# ## Build the five derivatives
#
# For $Jv$, $v^\top J$, $J$, $Hv$ and $H$ the matrices of the layers and three formulas for each
# function between them are enough: value, derivative and second derivative. Forward mode walks
# the layers from the front, reverse mode from the end, and $Hv$ is reverse mode differentiated in
# the direction $v$; here $H$ is the Hessian of the sum of the outputs. An identity matrix in
# place of the vector gives the whole matrix at once: rows of $J$ in reverse mode, columns in
# forward mode.
#
# The reference is `torch.func` on random chains of layers.


# %%
@dataclass(frozen=True)
class Pointwise:
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bend: Callable[[Tensor], Tensor]


SIN = Pointwise(torch.sin, torch.cos, lambda h: -h.sin())
EXP = Pointwise(torch.exp, torch.exp, torch.exp)
TANH = Pointwise(
    torch.tanh,
    lambda h: 1 - h.tanh() ** 2,
    lambda h: -2 * h.tanh() * (1 - h.tanh() ** 2),
)
Layer = Tensor | Pointwise  # a matrix (outputs, inputs), or a function


def values(layers: Sequence[Layer], x: Tensor) -> list[Tensor]:
    """The input of each layer, and the result."""
    found = [x]
    for f in layers:
        found.append(f @ found[-1] if isinstance(f, Tensor) else f.value(found[-1]))
    return found


def last_value(layers: Sequence[Layer], x: Tensor) -> Tensor:
    return values(layers, x)[-1]


def tangents(layers: Sequence[Layer], x: Tensor, v: Tensor) -> list[Tensor]:
    """Forward mode: the change of each of them along v, which may be rows."""
    found = [v]
    for f, h in zip(layers, values(layers, x), strict=False):
        found.append(
            found[-1] @ f.T if isinstance(f, Tensor) else f.slope(h) * found[-1]
        )
    return found


def pull(layers: Sequence[Layer], x: Tensor, v: Tensor) -> Tensor:
    """Reverse mode: v times the Jacobian."""
    for f, h in zip(reversed(layers), values(layers, x)[-2::-1], strict=True):
        v = v @ f if isinstance(f, Tensor) else v * f.slope(h)
    return v


def hvp_of_sum(layers: Sequence[Layer], x: Tensor, v: Tensor) -> Tensor:
    """The Hessian of the sum of the outputs, times v."""
    hs, dhs = values(layers, x), tangents(layers, x, v)
    g, dg = torch.ones_like(hs[-1]), torch.zeros_like(dhs[-1])
    for f, h, dh in zip(reversed(layers), hs[-2::-1], dhs[-2::-1], strict=True):
        if isinstance(f, Tensor):
            g, dg = g @ f, dg @ f
        else:
            # the product rule; the slope changes by bend times the change of its input
            g, dg = g * f.slope(h), dg * f.slope(h) + g * f.bend(h) * dh
    return dg


# %%
chains = 100
rng = random.Random(0)
for seed in range(chains):
    torch.manual_seed(seed)
    sizes = [rng.randint(1, 6) for _ in range(rng.randint(2, 5))]
    layers: list[Layer] = []
    for inputs, outputs in pairwise(sizes):
        layers += [torch.randn(outputs, inputs).double() / 2]
        layers += [rng.choice((SIN, EXP, TANH))]
    start, along = torch.randn(2, sizes[0]).double()
    weigh = torch.randn(sizes[-1]).double()
    network = partial(last_value, layers)
    truth_j = jacrev(network)(start)
    truth_h = jacrev(jacrev(lambda x: network(x).sum()))(start)  # noqa: B023
    eye_in, eye_out = torch.eye(sizes[0]).double(), torch.eye(sizes[-1]).double()
    assert torch.allclose(tangents(layers, start, along)[-1], truth_j @ along)  # Jv
    assert torch.allclose(pull(layers, start, weigh), weigh @ truth_j)  # v'J
    assert torch.allclose(pull(layers, start, eye_out), truth_j)  # rows of J
    assert torch.allclose(tangents(layers, start, eye_in)[-1], truth_j.T)  # its columns
    assert torch.allclose(hvp_of_sum(layers, start, along), truth_h @ along)  # Hv
    assert torch.allclose(hvp_of_sum(layers, start, eye_in), truth_h)
print(say(pl=f"zgodne łańcuchy: {chains}", en=f"agreeing chains: {chains}"))

# %% [markdown] lang="pl"
# ## Ile gradientów kosztuje jeden iloczyn
#
# Koszt policzmy w mnożeniach macierzy. Na każde mnożenie zapisane w grafie przypadają w przejściu
# wstecz najwyżej dwa, po jednym na argument, o ile to przejście niczego nie oblicza ponownie.
# Gradient kosztuje więc najwyżej trzy przejścia w
# przód, a iloczyn $Hv$, czyli jeszcze jedno różniczkowanie, najwyżej trzy gradienty, bez względu
# na liczbę parametrów. Tryb postępowy też dodaje do każdego mnożenia najwyżej dwa.
#
# Sieć testowa ma sześć macierzy 128 × 128, partia też 128 wierszy, więc wszystkie mnożenia są tej
# samej wielkości. Funkcja `torch.func.jvp` liczy $Jv$ trybem postępowym, a `torch.func.grad`
# zamienia funkcję w jej gradient. W pytaniu i w tabeli są to `jvp` i `grad`.

# %% [markdown] lang="en"
# ## How many gradients one product costs
#
# Let us count the cost in matrix multiplications. For each recorded multiplication a backward
# pass does at most two, one for each argument, unless it recomputes something. So a gradient
# costs at most three forward passes, and the product $Hv$, one more differentiation, at most
# three gradients, whatever the number of parameters. Forward mode also adds at most two to each
# multiplication.
#
# The test network has six 128 × 128 matrices, and the batch has 128 rows, so all multiplications
# are of one size. The function `torch.func.jvp` computes $Jv$ in forward mode, and
# `torch.func.grad` turns a function into its gradient. In the question and in the table they are
# `jvp` and `grad`.

# %% [markdown] lang="pl" predict="cheapest-hvp"
# Złóżmy iloczyn $Hv$ na trzy sposoby. Który z nich ma w tej sieci z tą partią najniższy
# szczyt pamięci?
#
# - [ ] `jvp(grad(f))`: pochodna kierunkowa gradientu
#
#   Samouczek PyTorcha (odsyłacz jest na końcu lekcji) pisze, że zwykle oszczędza to pamięć w
#   porównaniu z `vjp(grad(f))`, bo tryb postępowy nie potrzebuje grafu. Ale `torch.func.grad` i
#   tak go zapisuje: szczyt samego gradientu to {{ peak_func_gradient }} B zamiast
#   {{ peak_gradient }} B, dokładnie tyle co z `create_graph=True`. Tryb postępowy dokłada też do
#   tensorów ich pochodne kierunkowe i szczyt rośnie ponad dwukrotnie, do
#   {{ peak_forward_reverse }} B.
#
# - [ ] `grad(jvp(f))`: gradient pochodnej kierunkowej
#
#   Mnożeń jest najmniej, {{ products_reverse_forward }}, ale `torch.func.grad` zapisuje graf
#   przejścia wstecz, którego nikt nie użyje. Szczyt jest najwyższy: {{ peak_reverse_forward }} B.
#   Bez tego grafu, gdy gradient liczy `torch.autograd.grad`, szczyt to {{ peak_no_graph }} B.
#
# - [x] Dwa razy `torch.autograd.grad`: gradient gradientu
#
#   Szczyt to {{ peak_reverse_reverse }} B. Pierwsze przejście wstecz też zapisuje graf, ale
#   drugie zwalnia go po drodze, więc podnosi szczyt tylko o {{ second_pass_adds }} B.
#
# - [ ] Wszystkie mają podobny, bo wykonują prawie tyle samo mnożeń
#
#   Liczby mnożeń są podobne, od {{ products_reverse_forward }} do {{ products_forward_reverse }},
#   ale szczyty różnią się ponad dwukrotnie.

# %% [markdown] lang="en" predict="cheapest-hvp"
# Let us compose the product $Hv$ in three ways. Which of them has the lowest memory peak in this
# network with this batch?
#
# - [ ] `jvp(grad(f))`: a directional derivative of the gradient
#
#   PyTorch's tutorial (linked at the end of the lesson) calls it generally more memory-efficient
#   than `vjp(grad(f))`, because forward mode needs no graph. But `torch.func.grad` records one
#   anyway: the peak of the gradient alone is {{ peak_func_gradient }} bytes instead of
#   {{ peak_gradient }}, exactly as with `create_graph=True`. Forward mode also adds a directional
#   derivative to the tensors, and the peak more than doubles, to {{ peak_forward_reverse }}
#   bytes.
#
# - [ ] `grad(jvp(f))`: the gradient of a directional derivative
#
#   It multiplies least, {{ products_reverse_forward }} times, but `torch.func.grad` records a
#   graph of the backward pass that nobody uses. The peak is the highest:
#   {{ peak_reverse_forward }} bytes. Without this graph, with `torch.autograd.grad` for the
#   gradient, it is {{ peak_no_graph }}.
#
# - [x] Twice `torch.autograd.grad`: the gradient of the gradient
#
#   The peak is {{ peak_reverse_reverse }} bytes. The first backward pass records a graph, too,
#   but the second frees it on the way, so it raises the peak by only {{ second_pass_adds }}
#   bytes.
#
# - [ ] All peak about equally, because they do nearly as many multiplications
#
#   The numbers of multiplications are close, from {{ products_reverse_forward }} to
#   {{ products_forward_reverse }}, but the peaks differ more than twofold.

# %% fold=true
torch.manual_seed(0)
weights = tuple(torch.randn(128, 128) / 128**0.5 for _ in range(6))
leaves = tuple(weight.clone().requires_grad_() for weight in weights)
direction = tuple(torch.randn_like(weight) for weight in weights)
batch, wanted = torch.randn(128, 128), torch.randn(128, 128)


def net_loss(weights: Sequence[Tensor]) -> Tensor:
    h = batch
    for weight in weights[:-1]:
        h = (h @ weight).tanh()
    return (h @ weights[-1] - wanted).square().mean()


# %%
def directional(weights: Sequence[Tensor]) -> Tensor:
    along_v: Tensor = jvp(net_loss, (weights,), (direction,))[1]
    return along_v


# The graph of this gradient lives outside of the meter.
recorded = torch.autograd.grad(net_loss(leaves), leaves, create_graph=True)
WAYS: dict[str, Callable[[], Sequence[Tensor]]] = {
    "f": lambda: [net_loss(leaves)],
    "autograd.grad(f)": lambda: torch.autograd.grad(net_loss(leaves), leaves),
    "grad(f)": lambda: grad(net_loss)(weights),
    "autograd.grad twice": lambda: hvp(net_loss, leaves, direction),
    "jvp(grad(f))": lambda: jvp(grad(net_loss), (weights,), (direction,))[1],
    "grad(jvp(f))": lambda: grad(directional)(weights),
    "autograd.grad(jvp(f))": lambda: torch.autograd.grad(directional(leaves), leaves),
    "second pass only": lambda: torch.autograd.grad(
        recorded, leaves, direction, retain_graph=True
    ),
}
reference = WAYS["autograd.grad twice"]()
products, tops = {}, {}
print(
    say(
        pl=f"{'':21}      mnożenia macierzy szczyt B",
        en=f"{'':21} matrix multiplications   peak B",
    )
)
for name, compose in WAYS.items():
    with CallCounter() as calls, MemoryMeter() as meter:
        result = compose()
    if name in [*WAYS][3:]:
        assert torch.allclose(flat(result), flat(reference), rtol=1e-3, atol=1e-6)
    products[name], tops[name] = calls.names["mm"], meter.peak
    print(f"{name:21} {products[name]:22} {tops[name]:8}")

# %% fold=true
parameters = sum(weight.numel() for weight in weights)
hessian_gigabytes = parameters**2 * 4 / 1e9
peak_gradient, peak_func_gradient = [*tops.values()][1:3]
peak_reverse_reverse = tops["autograd.grad twice"]
peak_forward_reverse = tops["jvp(grad(f))"]
peak_reverse_forward = tops["grad(jvp(f))"]
peak_no_graph = tops["autograd.grad(jvp(f))"]
second_pass_adds = peak_reverse_reverse - peak_func_gradient
products_gradient = products["autograd.grad(f)"]
products_reverse_reverse = products["autograd.grad twice"]
products_forward_reverse = products["jvp(grad(f))"]
products_reverse_forward = products["grad(jvp(f))"]
products_recorded = products["second pass only"]
products_ratio = products_reverse_reverse / products_gradient
with MemoryMeter() as meter:
    torch.autograd.grad(net_loss(leaves), leaves, create_graph=True)
assert meter.peak == peak_func_gradient > 2 * peak_gradient
with CallCounter() as calls:
    directional(weights)
assert products["f"] == 6 and calls.names["mm"] <= 3 * products["f"]  # forward mode
assert products_gradient <= 3 * products["f"]
composed = [*WAYS][3:]
assert all(2 * products_gradient < products[n] for n in composed[:3])
assert all(products[n] <= 3 * products_gradient for n in composed)
assert products_recorded == products_reverse_reverse - products_gradient
assert peak_forward_reverse > 2 * peak_func_gradient
assert peak_reverse_forward == max(tops.values()) > 2 * peak_reverse_reverse
assert min(products[n] for n in composed[:3]) == products_reverse_forward
assert products["autograd.grad(jvp(f))"] == products_reverse_forward
assert peak_no_graph < peak_reverse_reverse < peak_forward_reverse
# A second pass that keeps the graph adds much more.
assert 0 < 3 * second_pass_adds < tops["second pass only"]

# %% measured=true
timed: dict[str, Callable[[], object]] = {
    name: WAYS[name] for name in ("autograd.grad(f)", *composed)
}
seconds = ratios(timed, "autograd.grad(f)")
for name, ratio in seconds.items():
    print(f"{name:21} {ratio:.1f}")
time_reverse_reverse = seconds["autograd.grad twice"]
assert products_ratio / 2 < time_reverse_reverse < 2 * products_ratio
assert all(time_reverse_reverse < 2 * seconds[name] for name in composed[1:3])

# %% [markdown] lang="pl"
# Granica trzech gradientów się potwierdza: gradient to {{ products_gradient }} mnożeń, a $Hv$
# {{ products_reverse_reverse }}, czyli {{ products_ratio:.1f }}× więcej. W tym pomiarze iloczyn
# trwał {{ time_reverse_reverse:.1f }}× dłużej niż gradient.
# Ze wszystkich złożeń w tabeli najniższy szczyt ma `autograd.grad(jvp(f))`, ale to złożenie
# wymaga wzorów trybu postępowego.
#
# Ostatni wiersz tabeli, samo drugie przejście, przyda się w metodzie potęgowej: dopóki parametry
# się nie zmieniają, gradient wystarczy zapisać raz, a każdy iloczyn kosztuje
# {{ products_recorded }} mnożenia. Cała macierz wymaga tylu takich iloczynów, ile jest parametrów
# ({{ parameters }}), i {{ hessian_gigabytes:.1f }} GB.
#
# W źródłach pętlę po wierszach ma funkcja `jacobian` (`torch/autograd/functional.py`), a
# `jacrev`, `jacfwd` i `hessian`, czyli `jacfwd(jacrev(f))`, są w
# `torch/_functorch/eager_transforms.py`. Tam też `_autograd_grad` ustawia `create_graph=True`.
#
# ## Czy krzywizna przewiduje granicę?
#
# W kierunku wektora własnego o wartości własnej $\lambda$ spadek gradientowy mnoży odległość od
# minimum przez $1 - \eta\lambda$, gdzie $\eta$ to współczynnik uczenia. Gdy $\eta > 2/\lambda$ i
# ten kierunek już przeważa, nadwyżka straty ponad minimum rośnie w każdym kroku
# $(1 - \eta\lambda)^2$ razy. Sprawdźmy na naszym modelu, startując z tych samych wag.

# %% [markdown] lang="en"
# The limit of three gradients holds: a gradient takes {{ products_gradient }} multiplications and
# $Hv$ {{ products_reverse_reverse }}, that is {{ products_ratio:.1f }}× as many. In this
# measurement the product took {{ time_reverse_reverse:.1f }}× as long as the gradient. Of all
# compositions in the table, `autograd.grad(jvp(f))` has the lowest peak, but it needs
# forward-mode formulas.
#
# The last row of the table, the second pass alone, is for power iteration: while the parameters
# stay, record the gradient once, and each product costs {{ products_recorded }} multiplications.
# The whole matrix takes as many such products as there are parameters ({{ parameters }}), and
# {{ hessian_gigabytes:.1f }} GB.
#
# In the source, the loop over rows is in the function `jacobian`
# (`torch/autograd/functional.py`), and `jacrev`, `jacfwd` and `hessian`, which is
# `jacfwd(jacrev(f))`, are in `torch/_functorch/eager_transforms.py`. There, `_autograd_grad` sets
# `create_graph=True`.
#
# ## Does curvature predict the limit?
#
# Along the eigenvector of $\lambda$, gradient descent multiplies the distance from the minimum by
# $1 - \eta\lambda$, where $\eta$ is the learning rate. If $\eta > 2/\lambda$, then, once this
# direction dominates, the excess of the loss over its minimum grows by a factor of
# $(1 - \eta\lambda)^2$ per step. Let us check on our model,
# starting from the same weights.

# %%
to_minimum = torch.linalg.solve(H, flat(torch.autograd.grad(loss_of(head), head)))
lowest = loss_of(split(flat(head) - to_minimum, head)).item()
# the distance to the minimum along the top eigenvector
share = (torch.linalg.eigh(H).eigenvectors[:, -1] @ to_minimum).item()

multiples = (0.25, 0.5, 0.75, 0.9, 0.99, 1.01, 1.1, 1.25, 1.5, 1.75, 2.0)
measured, predicted = [], []
for multiple in multiples:  # of 2 / curvature
    excess = [loss - lowest for loss in descend(multiple * 2 / curvature, 100)]
    measured.append(excess[-1])
    # 100 steps, squared
    predicted.append(curvature / 2 * share**2 * (1 - 2 * multiple) ** 200)
    if multiple > 1:
        growth = excess[-1] / excess[-2]
        assert math.isclose(growth, (1 - 2 * multiple) ** 2, rel_tol=0.01)
        assert math.isclose(measured[-1], predicted[-1], rel_tol=0.05)
    assert (excess[-1] < excess[0]) == (multiple < 1)
start_excess = loss_before - lowest
elsewhere = hessian(lambda vector: loss_of(split(vector, head)))(torch.randn_like(H[0]))
assert torch.allclose(elsewhere, H)  # the loss is quadratic
doubled = [(2 * weight).requires_grad_() for weight in weights]  # of the deep network
there = flat(hvp(net_loss, doubled, direction))
assert (there - flat(reference)).norm() > 0.1 * there.norm()
choice = 0.9 * curvature / found
print(f"{start_excess=:.2f} {choice=:.2f}")
assert 1.75 < choice < 2


# %% fold=true
torch_version = torch.__version__.split("+")[0]


def decades(excess: Tensor) -> Tensor:
    return (excess / start_excess).clamp(min=1e-15).log10()


fig, ax = plt.subplots(figsize=(7.2, 3.2))
finer = torch.linspace(1.0, 2.05, 200).double()
line = curvature / 2 * share**2 * (1 - 2 * finer) ** 200
ax.plot(finer, decades(line), color=GRAY, label="predicted from the curvature")
points = decades(torch.tensor(measured, dtype=torch.float64))
ax.plot(multiples, points, "o", color=BLUE, label="measured")
ax.axhline(0, color=GRAY, lw=1, ls=":")
ax.axvline(1, color=GREEN, lw=1.5, ls="--")
ax.axvline(choice, color=RED, lw=1.5, ls="--")
ax.set(xlabel="learning rate, in multiples of the limit")
ax.set(ylabel="log₁₀(excess / excess at the start)", ylim=(-20, 110))
ax.text(0.98, 60, "limit", color=GREEN, ha="right")
ax.text(choice - 0.02, 20, "times_hessian", color=RED, ha="right")
ax.text(0.25, 3, "start", color=GRAY)
ax.legend(loc="upper left")
show_figure(
    fig,
    alt_pl="Wykres nadwyżki straty po stu krokach w zależności od współczynnika uczenia. Poniżej "
    "granicy punkty leżą pod poziomem startu, tuż za granicą wystrzeliwują w górę wzdłuż "
    "przewidzianej krzywej. Współczynnik z funkcji times_hessian leży daleko za granicą.",
    alt_en="A plot of the excess loss after a hundred steps against the learning rate. Below the "
    "limit the points lie under the level of the start, just beyond it they shoot up along the "
    "predicted curve. The rate from times_hessian lies far beyond the limit.",
    pl={
        "predicted from the curvature": "przewidziana z krzywizny",
        "measured": "zmierzona",
        "learning rate, in multiples of the limit": "współczynnik uczenia, w wielokrotnościach granicy",
        "log₁₀(excess / excess at the start)": "log₁₀(nadwyżka / nadwyżka na starcie)",
        "limit": "granica",
        "start": "start",
    },
    same=("times_hessian",),
)

# %% [markdown] lang="pl"
# Za granicą punkty leżą na krzywej przewidzianej z krzywizny i z punktu startu, a przed nią pod
# kropkowaną linią, poziomem startu: przy 0,99 granicy strata spada, przy 1,01 rośnie. Pierwszy
# program wybrał {{ choice:.2f }} granicy. Ta strata jest kwadratowa, więc jej hesjan jest
# wszędzie taki sam. W sieci z poprzedniej części zależy od wag.
#
# ## Co się psuje i jak to zauważyć
#
# Złożenie `jvp(grad(f))` wymaga, żeby każda operacja przejścia w przód i wstecz miała wzór w
# trybie postępowym. W PyTorchu {{ torch_version }} operacja `huber_loss_backward` takiego wzoru
# nie ma, a wzór dla `mse_loss_backward` ze średnią ma błąd (zgłoszenie na końcu lekcji). Cel nie
# ma pochodnej kierunkowej, więc PyTorch wstawia `ZeroTensor`, zero, którego nie wolno zmieniać, a
# wzór dla średniej dzieli je w miejscu. Z sumą albo z pochodną kierunkową celu wyjątku nie ma:

# %% [markdown] lang="en"
# Beyond the limit the points lie on the curve predicted from the curvature and the start; below
# it they lie under the dotted line, the level of the start: at 0.99 of the limit the loss falls,
# at 1.01 it grows. The first program chose {{ choice:.2f }} of the limit. This loss is quadratic,
# so its Hessian is the same everywhere. In the network of the previous section it depends on the
# weights.
#
# ## What breaks and how to notice
#
# The composition `jvp(grad(f))` needs a forward-mode formula for each operation of the forward
# and the backward pass. In PyTorch {{ torch_version }} the operation `huber_loss_backward` has
# none, and the formula for `mse_loss_backward` with a mean has a bug (the issue is linked at the
# end of the lesson). The target has no directional derivative, so PyTorch puts in a `ZeroTensor`,
# a zero that must not be changed, and the formula for the mean divides it in place. With a sum,
# or with a directional derivative of the target, there is no exception:

# %% raises="RuntimeError: ZeroTensors are immutable. Please use the materialized zero tensor obtained using .clone() if you want a mutable tensor."
x3, t3, w3, v3 = torch.randn(4, 3, 3)


def mse(w: Tensor, t: Tensor = t3) -> Tensor:
    return F.mse_loss(x3 @ w, t)


def summed(w: Tensor) -> Tensor:
    return F.mse_loss(x3 @ w, t3, reduction="sum")


def huber(w: Tensor, t: Tensor = t3) -> Tensor:
    return F.huber_loss(x3 @ w, t)


try:
    jvp(grad(huber), (w3,), (v3,))
except NotImplementedError as error:
    assert "huber_loss_backward" in str(error)
    print(str(error).split(" that does")[0])
else:
    raise AssertionError("huber_loss_backward has a forward-mode formula now")

leaf = w3.clone().requires_grad_()
for smooth in (mse, huber):
    (twice,) = hvp(lambda params: smooth(params[0]), [leaf], [v3])  # noqa: B023
    assert torch.allclose(twice, grad(lambda w: jvp(smooth, (w,), (v3,))[1])(w3))  # noqa: B023
jvp(grad(summed), (w3,), (v3,))
jvp(grad(mse), (w3, t3), (v3, v3))
jvp(grad(mse), (w3,), (v3,))

# %% [markdown] lang="pl"
# Gradient gradientu i gradient pochodnej kierunkowej działają w obu przypadkach. Gradient
# gradientu zgłasza wyjątek gdzie indziej: gdy operacja przejścia wstecz sama nie ma pochodnej (na
# CPU np. połączone jądro funkcji `scaled_dot_product_attention`) albo gdy gradient któregoś
# parametru jest stały (ostatni bias przy sumie wyjść sieci). Dwie następne pułapki niczego nie
# zgłaszają:

# %% [markdown] lang="en"
# The gradient of the gradient and the gradient of the directional derivative work in both cases.
# The gradient of the gradient raises elsewhere: if an operation of the backward pass has no
# derivative itself (on a CPU, for example, the fused kernel of `scaled_dot_product_attention`),
# or if the gradient of some parameter is constant (the last bias under a sum of the network's
# outputs). The next two traps report nothing:


# %%
def make_net(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), activation, nn.Linear(16, 3)).double()


samples = torch.randn(8, 6, dtype=torch.float64)
one, v6 = samples[:1].clone().requires_grad_(), torch.randn(1, 6).double()
for activation in (nn.Tanh(), nn.ReLU()):
    net = make_net(activation)
    (by_input,) = hvp(lambda inputs: net(inputs[0]).sum(), [one], [v6])  # noqa: B023
    print(activation, [round(number, 3) for number in by_input[0].tolist()])
    assert bool(by_input.any()) == isinstance(activation, nn.Tanh)
assert not hessian(lambda x: net(x).sum())(samples[0]).any()  # the one with ReLU

of_batch = jacobian(make_net(nn.Tanh()), samples)
zeros = 100 * (of_batch == 0).double().mean().item()
print(of_batch.shape, f"{zeros=:.1f}%")
assert of_batch.shape == (8, 3, 8, 6) and zeros == 87.5

# %% [markdown] lang="pl"
# Sieć z warstw liniowych i `ReLU` jest liniowa kawałkami, więc hesjan jej wyjścia względem
# wejścia to same zera: szukanie kierunku o największej krzywiźnie nic nie da. Kształt jakobianu
# całej partii to kształt wyjścia i kształt wejścia, jeden po drugim, a {{ zeros:.1f }}% jego
# liczb to zera: pochodne wyjścia jednej próbki względem innych próbek. Unikniesz ich w pierwszym
# ćwiczeniu.
#
# Iloczyn $Hv$ mówi, jak zmieni się gradient po małym kroku w kierunku $v$, więc można go
# sprawdzić ilorazem różnicowym dwóch gradientów. Oto strażnik (*guard*) do wklejenia. Wymaga
# `float64` oraz straty gładkiej i bez losowości.

# %% [markdown] lang="en"
# A network of linear layers and `ReLU` is piecewise linear, so the Hessian of its output with
# respect to the input is all zeros: a search for the direction of highest curvature finds
# nothing. And the shape of the Jacobian of a whole batch is that of the output followed by that
# of the input, and {{ zeros:.1f }}% of its numbers are zeros: derivatives of one sample's output
# by other samples. You will avoid them in the first exercise.
#
# The product $Hv$ says how the gradient changes along $v$, so a finite difference of two
# gradients checks it. Here is a guard to paste. It needs `float64` and a smooth loss without
# randomness.

# %%
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def check_hvp(
    loss_of: Callable[[Sequence[Tensor]], Tensor],
    params: Sequence[Tensor],
    product: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    step: float = 1e-5,
    tolerance: float = 1e-4,
) -> None:
    """Refuse a product that is not the Hessian of the loss times a vector."""
    assert all(p.dtype == torch.float64 for p in params), "check in float64"

    def gradient(way: float, v: Sequence[Tensor]) -> Sequence[Tensor]:
        moved = [p.detach() + way * u for p, u in zip(params, v, strict=True)]
        moved = [p.requires_grad_() for p in moved]
        loss = loss_of(moved)
        grads: tuple[Tensor, ...] = torch.autograd.grad(
            loss, moved, materialize_grads=True
        )
        return grads

    def norm(tensors: Sequence[Tensor]) -> Tensor:
        length: Tensor = torch.cat([t.flatten() for t in tensors]).norm()
        return length

    for _ in range(3):
        v = [torch.randn_like(p) for p in params]
        ahead, behind = gradient(step, v), gradient(-step, v)
        expected = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
        size, slope = norm(expected), norm(ahead)
        assert size > 1e-9 * slope, "Hv is zero (no curvature) or NaN"
        floor = 1e-6 * torch.maximum(size, slope)  # below it there is rounding
        for part, e in zip(product(v), expected, strict=True):  # each tensor alone
            error = ((part - e).norm() / torch.maximum(e.norm(), floor)).item()
            assert error < tolerance, f"not Hv: off by {error:.1%}"


# %% [markdown] lang="pl"
# Przy modelu z `nn.Module` strata musi być funkcją parametrów: podstawia je
# `torch.func.functional_call`.

# %% [markdown] lang="en"
# For a model made with `nn.Module` the loss must be a function of the parameters:
# `torch.func.functional_call` puts them in.

# %%
model = make_net(nn.Tanh())
keys, model_params = zip(*model.named_parameters(), strict=True)


def model_loss(params: Sequence[Tensor]) -> Tensor:
    outputs = functional_call(model, dict(zip(keys, params, strict=True)), samples)
    loss: Tensor = outputs.square().mean()
    return loss


check_hvp(loss_of, head, lambda v: hvp(loss_of, head, v))
check_hvp(model_loss, model_params, lambda v: hvp(model_loss, model_params, v))


# %% fold=true
def refusal(loss: Loss, params: Sequence[Tensor], times: Product) -> str:
    torch.manual_seed(0)
    try:
        check_hvp(loss, params, lambda v: times(loss, params, v))
    except AssertionError as error:
        return str(error)
    return "OK"


def func_hvp(
    loss: Loss, params: Sequence[Tensor], v: Sequence[Tensor]
) -> Sequence[Tensor]:
    product: list[Tensor] = jvp(grad(loss), ([*params],), ([*v],))[1]
    return product


def detached(params: Sequence[Tensor]) -> Tensor:  # large errors weigh more
    error = image @ params[0] + text @ params[1] + params[2] - target
    return (error.detach().abs() * error**2).mean()


def noisy(params: Sequence[Tensor]) -> Tensor:
    error = F.dropout(image) @ params[0] + text @ params[1] + params[2] - target
    return error.square().mean()


def other_batch(
    _: Loss, params: Sequence[Tensor], v: Sequence[Tensor]
) -> Sequence[Tensor]:
    def half(params: Sequence[Tensor]) -> Tensor:
        error = image[:256] @ params[0] + text[:256] @ params[1] + params[2]
        return (error - target[:256]).square().mean()

    return hvp(half, params, v)


relu_net, tanh_net = make_net(nn.ReLU()), make_net(nn.Tanh())
at_input = [samples.clone().requires_grad_()]
SUSPECTS = {
    "hvp": refusal(loss_of, head, hvp),
    "jvp(grad(f))": refusal(loss_of, head, func_hvp),
    "hvp, Tanh": refusal(lambda x: tanh_net(x[0]).sum(), at_input, hvp),
    "times_hessian": refusal(loss_of, head, times_hessian),
    "hvp, detach": refusal(detached, head, hvp),
    "other_batch": refusal(loss_of, head, other_batch),
    "hvp, dropout": refusal(noisy, head, hvp),
    "hvp, ReLU": refusal(lambda x: relu_net(x[0]).sum(), at_input, hvp),
}
for name, verdict in SUSPECTS.items():
    print(f"{name:14} {verdict}")
verdicts = [*SUSPECTS.values()]
assert verdicts[:3] == ["OK"] * 3
assert all(verdict.startswith("not Hv") for verdict in verdicts[3:7])
assert verdicts[7].startswith("Hv is zero")


def scaled(params: Sequence[Tensor]) -> Tensor:  # tensors of different scales
    return loss_of([1e5 * params[0], *params[1:]])


assert refusal(scaled, head, hvp) == "OK"
assert refusal(scaled, head, times_hessian).startswith("not Hv")


def outputs_sum(params: Sequence[Tensor]) -> Tensor:
    named = dict(zip(keys, params, strict=True))
    total: Tensor = functional_call(model, named, samples).sum()
    return total


def attention(params: Sequence[Tensor]) -> Tensor:
    query, key, value = params
    return F.scaled_dot_product_attention(query, key, value).square().sum()


query_key_value = [torch.randn(1, 2, 4, 8, requires_grad=True) for _ in range(3)]
for f, point, words in (
    (outputs_sum, model_params, "does not require grad"),
    (attention, query_key_value, "is not implemented"),
):
    try:
        hvp(f, point, point)
    except RuntimeError as error:
        assert words in str(error)
    else:
        raise AssertionError("the gradient of the gradient works now")
single = [weights[0].clone().requires_grad_()]
assert refusal(lambda p: p[0].tanh().sum(), single, hvp) == "check in float64"

# %% [markdown] lang="pl"
# Poprawne iloczyny przeszły. Strażnik zatrzymał pierwszy program, stratę z czynnikiem odłączonym
# metodą `detach`, iloczyn z innej partii i sieć z `ReLU`. Wyłącz dropout: z nim strażnik
# odrzucił także poprawny iloczyn. Sprawdza trzy losowe kierunki w jednym punkcie. Porównuje z
# różnicami gradientu, więc ufa gradientowi: własne przejście wstecz sprawdź najpierw funkcją
# `gradcheck`. Argument `step` musi być mały wobec parametrów, bo inaczej odrzuci też poprawny
# iloczyn.
# Symetria by nie wystarczyła: macierz funkcji `times_hessian` też jest symetryczna. Wszystkie
# przebiegi pochodzą z CPU; kosztów na GPU nie mierzyliśmy.
#
# ## Co już umiesz
#
# - Powiesz, którego z $J$, $Jv$, $v^\top J$, $H$, $Hv$ potrzebujesz i ile przejść kosztuje.
# - Złożysz całą macierz z wierszy albo kolumn i ograniczysz jej szczyt pamięci argumentem
#   `chunk_size`.
# - Policzysz $Hv$ kosztem najwyżej trzech gradientów (licząc mnożenia), sprawdzisz go strażnikiem
#   i wyznaczysz z niego granicę współczynnika uczenia.
#
# - Poprzednia: [własna funkcja autogradu](10_custom_autograd_function.py), w której druga
#   pochodna też bywa po cichu błędna. Następna: [co naprawdę zwalnia przejście
#   wstecz](12_retain_graph.py). Tryb postępowy od środka: [liczby dualne w
#   PyTorchu](14_forward_mode_ad.py).
# - Dokumentacja: [torch.func](https://docs.pytorch.org/docs/stable/func.api.html),
#   [torch.autograd.grad](https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html),
#   [samouczek o jakobianach i
#   hesjanach](https://docs.pytorch.org/tutorials/intermediate/jacobians_hessians.html).
# - Źródła:
#   [functional.py](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/autograd/functional.py),
#   [eager_transforms.py](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/_functorch/eager_transforms.py),
#   [zgłoszenie o `mse_loss`](https://github.com/pytorch/pytorch/issues/123996).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# The correct products passed. The guard stopped the first program, a loss with a factor cut off
# by the method `detach`, a product from another batch, and a network with `ReLU`. Turn dropout
# off: with it the guard refused a correct product, too. It tests three random directions at one
# point. It compares with differences of the gradient, so it trusts the gradient: check a custom
# backward with `gradcheck` first. The argument `step` must be small against the parameters, or a
# correct product is refused, too. Symmetry would not be enough: the matrix of the function
# `times_hessian` is symmetric, too. All runs here come from a CPU; costs on a GPU are not
# measured.
#
# ## Now you can
#
# - Say which of $J$, $Jv$, $v^\top J$, $H$, $Hv$ you need and how many passes it costs.
# - Put a whole matrix together from rows or columns, and limit its memory peak with the argument
#   `chunk_size`.
# - Compute $Hv$ at the cost of at most three gradients (in multiplications), check it with a
#   guard, and derive the limit of the learning rate from it.
#
# - Previous: [custom autograd functions](10_custom_autograd_function.py), where a second
#   derivative can also be silently wrong. Next: [what the backward pass really
#   frees](12_retain_graph.py). Forward mode from the inside: [dual numbers in
#   PyTorch](14_forward_mode_ad.py).
# - Documentation: [torch.func](https://docs.pytorch.org/docs/stable/func.api.html),
#   [torch.autograd.grad](https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html),
#   [tutorial on Jacobians and
#   Hessians](https://docs.pytorch.org/tutorials/intermediate/jacobians_hessians.html).
# - Source:
#   [functional.py](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/autograd/functional.py),
#   [eager_transforms.py](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/_functorch/eager_transforms.py),
#   [issue about `mse_loss`](https://github.com/pytorch/pytorch/issues/123996).
#
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="per-sample" role="prompt" belt="white" minutes=8
# ### Biały: jakobian na próbkę
#
# Napisz funkcję, która dla partii o kształcie (próbki, wejścia) zwraca jakobiany o kształcie
# (próbki, wyjścia, wejścia), nie budując zer między próbkami. Wolno wykonać najwyżej tyle przejść
# wstecz, ile sieć ma wyjść, albo tyle przejść w trybie postępowym, ile ma wejść. Sieć liczy każdą
# próbkę osobno.

# %% [markdown] lang="en" exercise="per-sample" role="prompt" belt="white" minutes=8
# ### White: a Jacobian per sample
#
# Write a function that for a batch of shape (samples, inputs) returns Jacobians of shape
# (samples, outputs, inputs), without building the zeros between samples. You may use at most as
# many backward passes as the network has outputs, or as many passes in forward mode as it has
# inputs. The network computes each sample on its own.


# %% exercise="per-sample" role="starter"
def per_sample(net: nn.Module, samples: Tensor) -> Tensor:
    return jacobian(net, samples)  # your code


# %% exercise="per-sample" role="check"
for seed, (n_samples, n_in, n_out) in enumerate([(40, 5, 3), (64, 7, 4), (160, 4, 1)]):
    torch.manual_seed(seed)
    asked = nn.Sequential(nn.Linear(n_in, 9), nn.Tanh(), nn.Linear(9, n_out)).double()
    asked.requires_grad_(False)
    given = torch.randn(n_samples, n_in).double()
    right = torch.stack([jacobian(asked, row) for row in given])
    with CallCounter() as calls, MemoryMeter() as meter:
        got = per_sample(asked, given)
    shape = tuple(got.shape)
    assert shape == right.shape, say(
        pl=f"kształt {shape}, a ma być {tuple(right.shape)}",
        en=f"shape {shape}, expected {tuple(right.shape)}",
    )
    assert torch.allclose(got, right, rtol=1e-9, atol=1e-12), say(
        pl="kształt się zgadza, ale liczby nie: porównaj z pętlą po próbkach",
        en="the shape is right, the numbers are not: compare with a loop over samples",
    )
    whole = n_samples * right.nbytes
    assert meter.peak < whole / 2, say(
        pl=f"szczyt {meter.peak} B: jakobian całej partii to {whole} B, większość to zera",
        en=f"a peak of {meter.peak} bytes: the Jacobian of the batch has {whole}, mostly zeros",
    )
    passed = calls.names["tanh_backward"]
    assert passed <= max(n_in, n_out), say(
        pl=f"przejść: {passed}, a wyjść: {n_out} i wejść: {n_in}",
        en=f"{passed} passes for {n_out} outputs and {n_in} inputs",
    )

# %% [markdown] lang="pl" exercise="per-sample" role="hint"
# Jakobian **jednej** próbki umiesz policzyć. Które przekształcenie z tej lekcji robi z funkcji
# jednego wektora funkcję partii?

# %% [markdown] lang="en" exercise="per-sample" role="hint"
# You can compute the Jacobian of **one** sample. Which transform of this lesson turns a function
# of one vector into a function of a batch?

# %% [markdown] lang="pl" exercise="per-sample" role="hint"
# Wyrażenie `jacrev(net)` to funkcja: przyjmuje próbkę i zwraca jej jakobian.

# %% [markdown] lang="en" exercise="per-sample" role="hint"
# The expression `jacrev(net)` is a function: it takes a sample and returns its Jacobian.


# %% exercise="per-sample" role="wrong" says="the Jacobian of the batch has"
def per_sample(net: nn.Module, samples: Tensor) -> Tensor:
    return jacrev(net)(samples).sum(2)  # right numbers, but the zeros were built


# %% exercise="per-sample" role="wrong" says="40 passes for 3 outputs"
def per_sample(net: nn.Module, samples: Tensor) -> Tensor:
    return torch.stack([jacrev(net)(sample) for sample in samples])


# %% exercise="per-sample" role="wrong" says="shape (3, 40, 5), expected (40, 3, 5)"
def per_sample(net: nn.Module, samples: Tensor) -> Tensor:
    return jacrev(lambda batch: net(batch).sum(0))(samples)  # dimensions in this order


# %% exercise="per-sample" role="solution"
def per_sample(net: nn.Module, samples: Tensor) -> Tensor:
    # jacrev makes a function of one sample, vmap runs it on the whole batch.
    result: Tensor = vmap(jacrev(net))(samples)
    return result


# %% [markdown] lang="pl" exercise="highest-curvature" role="prompt" belt="brown" minutes=20
# ### Brązowy: największa krzywizna poza minimum
#
# Poza minimum hesjan może mieć też ujemne wartości własne, a metoda potęgowa znajduje największą
# co do modułu. Napisz funkcję, która zwraca **największą** wartość własną ze znakiem, z
# dokładnością 0,01%. Masz 600 parametrów w trzech tensorach i mniej niż 500 000 B pamięci: około
# 100 wektorów, nie macierz.

# %% [markdown] lang="en" exercise="highest-curvature" role="prompt" belt="brown" minutes=20
# ### Brown: the highest curvature outside a minimum
#
# Outside a minimum the Hessian may have negative eigenvalues, too, and power iteration finds the
# one of largest magnitude. Write a function that returns the **highest** eigenvalue with its
# sign, to 0.01%. You have 600 parameters in three tensors, and less than 500,000 bytes of memory:
# about 100 vectors, not a matrix.


# %% exercise="highest-curvature" role="starter"
def highest_curvature(loss: Loss, params: Sequence[Tensor]) -> float:
    return 0.0  # your code


# %% exercise="highest-curvature" role="check"
def bowl(spectrum: Tensor, mirror: Tensor) -> Loss:
    """A loss whose Hessian has the given eigenvalues, along reflected axes."""

    def loss(params: Sequence[Tensor]) -> Tensor:
        x = flat(params)
        x = x - 2 * mirror * (mirror @ x)
        return (spectrum * x**2).sum() / 2

    return loss


for seed, (low, high) in enumerate([(-3.0, 2.0), (-1.0, 4.0), (-4.0, 1.0)]):
    torch.manual_seed(seed)
    factor = (0.5 + torch.rand(1).item()) * 100**seed  # no constant shift suits all
    low, high = low * factor, high * factor
    spectrum = low / 2 + (high - low) / 2 * torch.rand(600).double()
    spectrum[0], spectrum[1] = low, high
    mirror = torch.randn(600).double()
    mirror[:2] = 10.0  # so that the extreme axes cross all three tensors
    wells = bowl(spectrum, mirror / mirror.norm())
    where = [torch.randn(n).double().requires_grad_() for n in (250, 349, 1)]
    tracemalloc.start()  # sees a matrix in NumPy, too
    with MemoryMeter() as meter:
        answer = highest_curvature(wells, where)
    elsewhere_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    top_bytes = max(meter.peak, elsewhere_peak)
    assert meter.peak < 500_000 and elsewhere_peak < 1_500_000, say(
        pl=f"szczyt {top_bytes} B: macierz zajmuje 2880000 B, a wektor 4800 B",
        en=f"a peak of {top_bytes} bytes: the matrix takes 2880000, a vector 4800",
    )
    largest = max(low, high, key=abs)
    assert not (low == largest and math.isclose(abs(answer), -low, rel_tol=1e-3)), say(
        pl=f"{answer:.4f}: to największy moduł, a największa wartość własna to {high:.4f}",
        en=f"{answer:.4f} is the largest magnitude, but the highest eigenvalue is {high:.4f}",
    )
    assert math.isclose(answer, high, rel_tol=1e-4), say(
        pl=f"jest {answer:.4f}, a największa wartość własna to {high:.4f}: czy iloczyn ma "
        "pochodne mieszane, a metoda dość powtórzeń?",
        en=f"got {answer:.4f}, the highest eigenvalue is {high:.4f}: does the product have the "
        "mixed derivatives, and the method enough rounds?",
    )

# %% [markdown] lang="pl" exercise="highest-curvature" role="hint"
# Znak wartości własnej daje iloraz Rayleigha: $v^\top Hv$ dla wektora $v$ o długości 1.

# %% [markdown] lang="en" exercise="highest-curvature" role="hint"
# The sign of an eigenvalue comes from the Rayleigh quotient: $v^\top Hv$ for a vector $v$ of
# length 1.

# %% [markdown] lang="pl" exercise="highest-curvature" role="hint"
# Jeśli znaleziona wartość $\mu$ jest ujemna, wszystkie wartości własne macierzy $H - \mu I$ są
# nieujemne. Mnożenie przez nią to $Hv - \mu v$.

# %% [markdown] lang="en" exercise="highest-curvature" role="hint"
# If the value $\mu$ that you found is negative, no eigenvalue of the matrix $H - \mu I$ is.
# Multiplying by it is $Hv - \mu v$.


# %% exercise="highest-curvature" role="wrong" says="is the largest magnitude"
def highest_curvature(loss: Loss, params: Sequence[Tensor]) -> float:
    v = torch.randn(600).double()
    for _ in range(150):
        v = flat(hvp(loss, params, split(v / v.norm(), params)))
    return float(v.norm())  # a length has no sign


# %% exercise="highest-curvature" role="wrong" says="the matrix takes 2880000"
def highest_curvature(loss: Loss, params: Sequence[Tensor]) -> float:
    point = flat(params).detach()
    matrix = hessian(lambda vector: loss(split(vector, params)))(point)
    return float(torch.linalg.eigvalsh(matrix)[-1])


# %% exercise="highest-curvature" role="wrong" says="got 1.5"
def highest_curvature(loss: Loss, params: Sequence[Tensor]) -> float:
    def top(shift: float) -> float:
        v = torch.randn(600).double()
        for _ in range(150):
            v = v / v.norm()
            # One tensor at a time: the blocks on the diagonal.
            product = flat(times_hessian(loss, params, split(v, params))) - shift * v
            value, v = float(v @ product), product
        return value + shift

    first = top(0.0)
    return first if first > 0 else top(first)


# %% exercise="highest-curvature" role="solution"
def highest_curvature(loss: Loss, params: Sequence[Tensor]) -> float:
    # The parameters stay the same, so the gradient is recorded once.
    grads = torch.autograd.grad(loss(params), params, create_graph=True)

    def top(shift: float) -> float:
        """The eigenvalue farthest from the shift."""
        v = torch.randn(600).double()
        for _ in range(150):
            v = v / v.norm()
            parts = torch.autograd.grad(
                grads, params, split(v, params), retain_graph=True
            )
            product = flat(parts) - shift * v
            value, v = float(v @ product), product  # Rayleigh: it keeps the sign
        return value + shift

    first = top(0.0)
    return first if first > 0 else top(first)


# %% [markdown] lang="pl" exercise="meta-gradient" role="prompt" belt="black" minutes=25
# ### Czarny: gradient przez trening
#
# Trening zaczyna w punkcie `start` i robi `steps` kroków: $w \leftarrow w - \eta \nabla f(w)$,
# gdzie $f$ to `inner`. Na końcu liczymy `outer(w)`. Zwróć gradient wyniku `outer` względem
# **punktu startu**, bez grafu całej pętli: pamiętać wolno tylko po jednym $w$ na krok. Jakobian
# jednego kroku to $I - \eta H$.

# %% [markdown] lang="en" exercise="meta-gradient" role="prompt" belt="black" minutes=25
# ### Black: the gradient through training
#
# Training begins at the point `start` and takes `steps` steps:
# $w \leftarrow w - \eta \nabla f(w)$, where $f$ is `inner`. At the end we compute `outer(w)`.
# Return the gradient of the result of `outer` with respect to the **starting point**, without the
# graph of the whole loop: you may keep only one $w$ per step. The Jacobian of one step is
# $I - \eta H$.


# %% exercise="meta-gradient" role="starter"
Scalar = Callable[[Tensor], Tensor]


def meta_gradient(
    start: Tensor, inner: Scalar, outer: Scalar, rate: float, steps: int
) -> Tensor:
    return torch.zeros_like(start)  # your code


# %% exercise="meta-gradient" role="check"
def gradient_at(f: Scalar, w: Tensor, *, record: bool = False) -> Tensor:
    w = w if record else w.detach().requires_grad_()
    return torch.autograd.grad(f(w), w, create_graph=record)[0]


for seed, (n_weights, n_steps) in enumerate([(4, 60), (6, 80), (5, 70)]):
    torch.manual_seed(seed)
    data, probe = torch.randn(2, 200, n_weights).double()
    labels, goals = torch.randn(2, 200).double()
    rate = 0.05 + 0.1 * torch.rand(1).item()
    task: Scalar = lambda w: ((data @ w).sin() - labels).square().mean()  # noqa: B023, E731
    test: Scalar = lambda w: ((probe @ w).tanh() - goals).square().mean()  # noqa: B023, E731
    origin = torch.randn(n_weights).double()

    with MemoryMeter() as meter:
        w_loop = origin.clone().requires_grad_()
        w_end = w_loop
        for _ in range(n_steps):
            w_end = w_end - rate * gradient_at(task, w_end, record=True)
        (unrolled,) = torch.autograd.grad(test(w_end), w_loop)
    last, loop_bytes = gradient_at(test, w_end), meter.peak
    del w_end
    allowed = loop_bytes // 5
    with MemoryMeter() as meter:
        got = meta_gradient(origin.clone(), task, test, rate, n_steps)
    assert got.shape == origin.shape, say(
        pl=f"kształt {tuple(got.shape)} zamiast {tuple(origin.shape)}",
        en=f"shape {tuple(got.shape)} instead of {tuple(origin.shape)}",
    )
    assert got.any(), say(pl="wynik to same zera", en="the result is all zeros")
    assert not torch.allclose(got, last), say(
        pl="to gradient w ostatnim punkcie: pomija jakobiany wszystkich kroków",
        en="this is the gradient at the last point: it leaves out the Jacobians of the steps",
    )
    off = ((got - unrolled).norm() / unrolled.norm()).item()
    assert off < 1e-11, say(
        pl=f"błąd względny {off:.1e} przy {n_steps} krokach: czy każdy hesjan jest z "
        "właściwego punktu i we właściwej kolejności?",
        en=f"relative error {off:.1e} with {n_steps} steps: is each Hessian from the right "
        "point, in the right order?",
    )
    assert meter.peak < allowed, say(
        pl=f"szczyt {meter.peak} B przy {n_steps} krokach; graf całej pętli ma {loop_bytes} B, "
        f"wolno {allowed} B",
        en=f"a peak of {meter.peak} bytes with {n_steps} steps; the graph of the whole loop has "
        f"{loop_bytes}, allowed {allowed}",
    )

# %% [markdown] lang="pl" exercise="meta-gradient" role="hint"
# Zacznij od końca: gradient w ostatnim punkcie pomnóż przez jakobian ostatniego kroku, potem
# przedostatniego. Każde takie mnożenie to $u - \eta Hu$.

# %% [markdown] lang="en" exercise="meta-gradient" role="hint"
# Begin at the end: multiply the gradient at the last point by the Jacobian of the last step, then
# of the one before it. Each of these multiplications is $u - \eta Hu$.

# %% [markdown] lang="pl" exercise="meta-gradient" role="hint"
# Hesjan kroku jest z punktu **przed** krokiem. Punkty zapamiętaj w przejściu w przód, odłączone
# od grafu.

# %% [markdown] lang="en" exercise="meta-gradient" role="hint"
# The Hessian of a step is from the point **before** the step. Keep the points in the forward
# pass, detached from the graph.


# %% exercise="meta-gradient" role="wrong" says="it leaves out the Jacobians of the steps"
Scalar = Callable[[Tensor], Tensor]


def meta_gradient(
    start: Tensor, inner: Scalar, outer: Scalar, rate: float, steps: int
) -> Tensor:
    first = start.requires_grad_()
    w = first
    for _ in range(steps):
        (g,) = torch.autograd.grad(inner(w), w)  # create_graph=True is missing
        w = w - rate * g
    return torch.autograd.grad(outer(w), first)[0]


# %% exercise="meta-gradient" role="wrong" says="relative error"
Scalar = Callable[[Tensor], Tensor]


def meta_gradient(
    start: Tensor, inner: Scalar, outer: Scalar, rate: float, steps: int
) -> Tensor:
    w = start
    for _ in range(steps):
        w = w - rate * grad(inner)(w)
    u: Tensor = grad(outer)(w)
    for _ in range(steps):
        u = u - rate * hvp(lambda p: inner(p[0]), [start.requires_grad_()], [u])[0]
    return u  # every Hessian is from the starting point


# %% exercise="meta-gradient" role="wrong" says="the graph of the whole loop has"
Scalar = Callable[[Tensor], Tensor]


def meta_gradient(
    start: Tensor, inner: Scalar, outer: Scalar, rate: float, steps: int
) -> Tensor:
    first = start.requires_grad_()
    w = first
    for _ in range(steps):
        (g,) = torch.autograd.grad(inner(w), w, create_graph=True)
        w = w - rate * g
    return torch.autograd.grad(outer(w), first)[0]


# %% exercise="meta-gradient" role="solution"
Scalar = Callable[[Tensor], Tensor]


def meta_gradient(
    start: Tensor, inner: Scalar, outer: Scalar, rate: float, steps: int
) -> Tensor:
    points = [start.detach()]
    for _ in range(steps):
        w = points[-1].clone().requires_grad_()
        (g,) = torch.autograd.grad(inner(w), w)
        points.append(points[-1] - rate * g)
    w = points.pop().requires_grad_()
    (u,) = torch.autograd.grad(outer(w), w)
    for point in reversed(points):  # one step back: (I - rate * H) u
        w = point.clone().requires_grad_()
        u = u - rate * hvp(lambda p: inner(p[0]), [w], [u])[0]
    return u
