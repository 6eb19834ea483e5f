# %% [markdown] lang="pl"
# # Einsum: język, a nie jądro obliczeniowe
#
# Równanie `einsum` mówi, co policzyć. Jak to policzyć, PyTorch ustala z kolejności
# operandów, z ich liter i z rozmiarów osi. Nauczysz się odczytywać z nich, jakie
# mnożenia wykona i ile ich będzie.
#
# ## Adapter droższy od warstwy
#
# Adapter LoRA dodaje do wyniku zamrożonej warstwy $W x$ poprawkę $B A x$. Wspólna oś
# macierzy $B$ i $A$ ma rozmiar zaledwie 8. Przepiszmy ten wzór macierz po macierzy na
# równanie `einsum`. Każda litera równania to oś: `o` – wyjście, `r` – rząd (*rank*),
# `i` – wejście, `t` – token.
# Funkcja `multiplications` zlicza mnożenia w operatorach, które PyTorch naprawdę
# wykonał. Opcjonalny pakiet `opt_einsum`, który może planować obliczenia za PyTorcha,
# jest w tej lekcji wyłączony.

# %% [markdown] lang="en"
# # Einsum: a language, not a kernel
#
# An `einsum` equation says what to compute. How to compute it, PyTorch decides from the
# order of the operands, their letters and the sizes of the axes. You will learn to read
# from them which multiplications it will run, and how many.
#
# ## An adapter that costs more than its layer
#
# A LoRA adapter adds a correction $B A x$ to the output of a frozen layer $W x$. The
# axis that the matrices $B$ and $A$ share has a size of only 8. Let's copy the formula
# matrix by matrix into an `einsum` equation. Each letter of the equation is an axis:
# `o` is the output, `r` the rank, `i` the input, `t` the token. The function `multiplications` counts the multiplications in the
# operators that PyTorch has really run. The optional package `opt_einsum`, which can
# plan the computation for PyTorch, is switched off in this lesson.

# %% fold=true
import functools
import itertools
import math
import random
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from matplotlib import pyplot as plt
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.einsum_pictures import Product, show_orders
from snippets.figures import BLUE, GREEN, ORANGE, show_figure
from snippets.memory import MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)


@dataclass(frozen=True)
class Call:
    """One operator that PyTorch ran, with the shapes of its tensors."""

    name: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]

    @property
    def multiplications(self) -> int:
        """Number of multiplications in `mm`, `bmm` and `mul`; 0 for other operators."""
        if self.name in ("mm", "bmm"):
            return math.prod(self.inputs[0]) * self.inputs[1][-1]
        return math.prod(self.output) if self.name == "mul" else 0


class Recorder(TorchDispatchMode):
    """Write down every operator that runs inside the block."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        output = func(*args, **(kwargs or {}))
        shapes = tuple(tuple(x.shape) for x in args if isinstance(x, Tensor))
        # aten.bmm.default is the overload `default` of the operator `bmm`.
        self.calls.append(Call(str(func).split(".")[1], shapes, tuple(output.shape)))
        return output


def record(job: Callable[..., Tensor], *args: Any) -> list[Call]:
    recorder = Recorder()
    with recorder:
        job(*args)
    return recorder.calls


def multiplications(job: Callable[..., Tensor], *args: Any) -> int:
    return sum(call.multiplications for call in record(job, *args))


# Another order of float32 sums rounds in another way; the values here are around 100.
close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-2)


# %%
torch.backends.opt_einsum.enabled = False  # what it changes is shown below


def adapter(up: Tensor, down: Tensor, x: Tensor) -> Tensor:
    """Compute B A x, (token, output)."""
    return torch.einsum("or,ri,ti->to", up, down, x)


weight = torch.randn(1024, 1024)  # W: (output, input)
up, down = torch.randn(1024, 8), torch.randn(8, 1024)  # B: (o, r), A: (r, i)
x = torch.randn(16, 1024)  # 16 tokens

layer_work = multiplications(torch.matmul, x, weight.T)
adapter_work = multiplications(adapter, up, down, x)
parameter_share = 100 * (up.numel() + down.numel()) / weight.numel()
work_share = 100 * adapter_work / layer_work
print(f"{layer_work=:,} {adapter_work=:,} {parameter_share=:.1f} {work_share=:.0f}")
close(adapter(up, down, x), x @ (up @ down).T)
assert parameter_share < 2
assert work_share == 100 * (8 + 16) / 16 == 150

# %% [markdown] lang="pl"
# Wynik jest poprawny, nie ma wyjątku ani ostrzeżenia. Pytanie tej lekcji: **dlaczego
# adapter, który ma {{ parameter_share:.1f }}% parametrów warstwy, wykonuje
# {{ work_share:.0f }}% jej mnożeń?**
#
# ## Te same macierze od drugiej strony
#
# Zanim uruchomisz następną komórkę, odpowiedz na pytanie.

# %% [markdown] lang="en"
# The result is right, and there is no exception and no warning. The question of this
# lesson: **why does an adapter with {{ parameter_share:.1f }}% of the layer's
# parameters perform {{ work_share:.0f }}% of the layer's multiplications?**
#
# ## The same matrices from the other end
#
# Answer the question before you run the next cell.

# %% [markdown] lang="pl" predict="order"
# Podajemy te same trzy macierze w odwrotnej kolejności, każdą z jej literami. Ile
# mnożeń wykona to wywołanie w porównaniu z poprzednim?
#
# ```python
# torch.einsum("ti,ri,or->to", x, down, up)
# ```
#
# - [ ] Tyle samo
#
#   Litery opisują tę samą sumę, ale nikt nie liczy jej składnik po składniku. PyTorch
#   mnoży operandy po dwa, od lewej, tak jak je podasz.
#
# - [ ] Około 1,5 raza mniej
#
#   Tyle by wyszło, gdyby odpadło tylko mnożenie `up` przez `down`. Drugie mnożenie też
#   tanieje, bo nie bierze w nim już udziału macierz 1024 × 1024.
#
# - [x] Około 100 razy mniej
#
#   Dokładnie {{ saving:.0f }} razy mniej: żaden wynik pośredni nie ma dwóch osi o
#   rozmiarze 1024.

# %% [markdown] lang="en" predict="order"
# We pass the same three matrices in reverse order, each with its letters. How many
# multiplications will this call perform, compared with the previous one?
#
# ```python
# torch.einsum("ti,ri,or->to", x, down, up)
# ```
#
# - [ ] Just as many
#
#   The letters describe the same sum, but nobody computes it term by term. PyTorch
#   multiplies the operands two at a time, from the left, the way you pass them.
#
# - [ ] About 1.5 times fewer
#
#   It would be so if only the multiplication of `up` by `down` went away. The second
#   one gets cheaper too, since no 1024 × 1024 matrix takes part in it any more.
#
# - [x] About 100 times fewer
#
#   Exactly {{ saving:.0f }} times fewer: no intermediate result has two axes of size
#   1024.


# %%
def reversed_adapter(up: Tensor, down: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ti,ri,or->to", x, down, up)


products = {
    name: [call for call in record(job, up, down, x) if call.name == "bmm"]
    for name, job in (
        ('einsum("or,ri,ti->to", up, down, x)', adapter),
        ('einsum("ti,ri,or->to", x, down, up)', reversed_adapter),
    )
}
for name, made in products.items():
    print(name, *(f"{call.inputs} -> {call.output}" for call in made), sep="\n  ")
works = [sum(call.multiplications for call in made) for made in products.values()]
saving = works[0] / works[1]
print(f"{works=} {saving=}")
assert saving == 96

with FlopCounterMode(display=False) as counter:  # torch's own counter counts × and +
    adapter(up, down, x)
assert counter.get_total_flops() == 2 * adapter_work == 2 * works[0]
close(reversed_adapter(up, down, x), adapter(up, down, x))

# %% [markdown] lang="pl"
# ## Co powstaje po drodze
#
# Połączenie dwóch operandów w jeden to **kontrakcja** (*contraction*). Każde z tych
# wywołań wykonało dwie: najpierw pierwszy operand z drugim, potem wynik z trzecim.
# Wszystkie cztery to wywołania `bmm`, czyli mnożenia macierzy w partiach: tensora o
# kształcie (partia, m, k) przez tensor o kształcie (partia, k, n). Narysujmy je, każdą
# macierz tak, jak dostaje ją `bmm`, czyli czasem transponowaną. Długości boków są w
# skali, tylko najcieńsze paski są pogrubione, żeby było je widać.

# %% [markdown] lang="en"
# ## What gets built along the way
#
# Merging two operands into one is a **contraction**. Each of these calls made two:
# first the first operand with the second, then the result with the third. All four are
# calls to `bmm`, batched matrix multiplication: a tensor of shape (batch, m, k) times a
# tensor of shape (batch, k, n). Let's draw them, each matrix as `bmm` receives it, which
# may be transposed. Lengths are to scale; only the thinnest strips are thickened, so
# that they can be seen.


# %% fold=true
def drawn_product(call: Call, left: str, right: str) -> Product:
    (_, rows, inner), (_, _, columns) = call.inputs
    return Product(rows, inner, columns, left, right)


operand_names = [[("up", "down"), ("", "x")], [("x", "down"), ("", "up")]]
assert all(call.inputs[0][0] == 1 for made in products.values() for call in made)
show_orders(
    {
        name: [drawn_product(c, *n) for c, n in zip(made, names, strict=True)]
        for (name, made), names in zip(products.items(), operand_names, strict=True)
    },
    alt_pl="Dwa rzędy iloczynów macierzy. W górnym dwa wąskie paski, up 1024×8 i down "
    "8×1024, dają wielki kwadrat 1024×1024, który trzeba jeszcze pomnożyć przez x. W "
    "dolnym x razy down daje drobny prostokąt 16×8, i to on jest mnożony przez up. "
    "Długości są w skali, najcieńsze paski są pogrubione.",
    alt_en="Two rows of products of matrices. In the upper one two narrow strips, up "
    "1024×8 and down 8×1024, give a huge square, 1024×1024, which then has to be "
    "multiplied by x. In the lower one x times down gives a tiny rectangle, 16×8, and "
    "that is multiplied by up. Lengths are to scale, the thinnest strips are "
    "thickened.",
)
assert [made[0].output for made in products.values()] == [(1, 1024, 1024), (1, 16, 8)]

# %% [markdown] lang="pl"
# Spójrz na wynik pośredni: w górnym rzędzie to kwadrat wielkości całej macierzy wag
# $W$, w dolnym drobny prostokąt. Adapter miał tego kwadratu uniknąć, a wzór przepisany od
# lewej do prawej go odtworzył.
#
# ## Litery wybierają osie dla `bmm`
#
# Kontrakcja dzieli litery dwóch operandów na cztery grupy:
#
# | grupa | gdzie jest litera | oś w `bmm` |
# |---|---|---|
# | `batch` | w obu operandach i potrzebna dalej | partia |
# | `left` | tylko w lewym i potrzebna dalej | wiersze |
# | `right` | tylko w prawym i potrzebna dalej | kolumny |
# | `summed` | w obu i niepotrzebna dalej | wewnętrzna, sumowana |
#
# „Potrzebna dalej” znaczy: jest w wyniku albo w operandzie, który jeszcze czeka. Jeśli
# litera jest tylko w jednym operandzie i nie jest potrzebna dalej, po jej osi PyTorch
# sumuje przed mnożeniem. Oś o rozmiarze 1 traktuje tak, jakby jej w operandzie nie
# było.

# %% [markdown] lang="en"
# Look at the intermediate result: in the upper row it is a square as large as the whole
# weight matrix $W$, in the lower one a tiny rectangle. The adapter was meant to avoid that
# square, and the formula copied from left to right has brought it back.
#
# ## Letters choose the axes of `bmm`
#
# A contraction sorts the letters of two operands into four groups:
#
# | group | where the letter is | axis of `bmm` |
# |---|---|---|
# | `batch` | in both operands and needed later | batch |
# | `left` | only in the left one and needed later | rows |
# | `right` | only in the right one and needed later | columns |
# | `summed` | in both and not needed later | inner, summed |
#
# “Needed later” means: in the output, or in an operand that is still waiting. If a
# letter is in one operand only and is not needed later, PyTorch sums over its axis
# before the multiplication. It treats an axis of size 1 as absent from its operand.


# %%
@dataclass(frozen=True)
class Groups:
    batch: str
    left: str
    right: str
    summed: str


def groups(left: str, right: str, later: str) -> Groups:
    """Sort the letters of two operands; `later` are the letters needed afterwards."""
    both = [letter for letter in left if letter in right]
    return Groups(
        batch="".join(c for c in both if c in later),
        left="".join(c for c in left if c not in right and c in later),
        right="".join(c for c in right if c not in left and c in later),
        summed="".join(c for c in both if c not in later),
    )


q = torch.randn(2, 5, 3, 7)  # (batch, query, head, dim)
k = torch.randn(2, 6, 3, 7)  # (batch, key, head, dim)
scores = record(torch.einsum, "bqhd,bkhd->bhqk", q, k)
print(groups("bqhd", "bkhd", later="bhqk"))
print(next(call for call in scores if call.name == "bmm"))
assert groups("bqhd", "bkhd", later="bhqk") == Groups("bh", "q", "k", "d")
assert Call("bmm", ((2 * 3, 5, 7), (2 * 3, 7, 6)), (2 * 3, 5, 6)) in scores

# %% [markdown] lang="pl"
# Dalej jest już tylko `permute` (ustawia grupy obok siebie), `reshape` (skleja każdą w
# jedną oś), `bmm` i powrót do kolejności osi wyniku. Osobnego jądra obliczeniowego
# (*kernel*) dla równania nie ma. Zobaczmy, które operacje czytają lub zapisują dane;
# samych widoków nie wypisujemy.

# %% [markdown] lang="en"
# After that there is only `permute` (puts groups next to each other), `reshape` (glues
# each into one axis), `bmm`, and the way back to the axes of the output. No kernel is
# generated for the equation. Let's see which operations read or write data; mere views
# are left out.

# %%
VIEWS = {"diagonal", "permute", "view", "_unsafe_view", "unsqueeze"}


def work(equation: str, *operands: Tensor) -> list[str]:
    """Name the operations that read or write elements."""
    made = record(torch.einsum, equation, *operands)
    return [call.name for call in made if call.name not in VIEWS]


square = torch.randn(4, 4)
done = {
    "ij->ji": work("ij->ji", square),
    "ij->i": work("ij->i", square),
    "bii->b": work("bii->b", torch.randn(2, 4, 4)),  # the trace of each matrix
    "ai,bj->ab": work("ai,bj->ab", square, square),
    "bi,bi->b": work("bi,bi->b", square, square),
    "tr,or->to": work("tr,or->to", torch.randn(16, 8), up),
    "tr,or->to, rank 1": work("tr,or->to", torch.randn(16, 1), up[:, :1]),
    "bqhd,bkhd->bhqk": work("bqhd,bkhd->bhqk", q, k),
}
for equation, names in done.items():
    print(f"{equation:18} {names}")
assert done["ij->ji"] == []
assert done["ij->i"] == done["bii->b"] == ["sum"]
assert sorted(done["ai,bj->ab"]) == ["mul", "sum", "sum"]
assert done["bi,bi->b"] == done["tr,or->to"] == ["bmm"]
assert done["tr,or->to, rank 1"] == ["mul"]
assert done["bqhd,bkhd->bhqk"] == ["clone", "clone", "bmm"]

# %% [markdown] lang="pl"
# Gdy para nie ma wspólnej osi do zsumowania, mnoży ją `mul`; tak jest też wtedy, gdy
# rząd wynosi 1. Litera powtórzona w jednym operandzie (`bii`) to widok przekątnej.
# Operator `clone` w ostatnim wierszu to `reshape`, który [nie mógł zwrócić
# widoku](01_storage_vs_view.py) i skopiował operand.
#
# ## Einsum od nowa w Pythonie
#
# Mechanizm mieści się w trzech funkcjach, jeśli pominąć osie o rozmiarze 1 i litery
# powtórzone w jednym operandzie. Funkcja `sum_out` sumuje po osiach,
# których nikt już nie potrzebuje, `contract` wykonuje jedną kontrakcję, a `rebuilt`
# idzie od lewej do prawej.

# %% [markdown] lang="en"
# When a pair has no common axis to sum over, `mul` multiplies it; rank 1 is such a case
# too. A letter repeated in one operand (`bii`) is a view of the diagonal. The operator `clone` in the last row is a `reshape` that [could not return a
# view](01_storage_vs_view.py) and copied its operand.
#
# ## Einsum rebuilt in Python
#
# The mechanism fits into three functions if we leave out axes of size 1 and letters
# repeated in one operand. The function `sum_out` sums over axes
# that nobody needs any more, `contract` makes one contraction, and `rebuilt` goes from
# left to right.


# %%
Term = tuple[str, Tensor]  # an operand with its letters


def sum_out(letters: str, x: Tensor, later: str) -> Term:
    """Sum over the axes that are not needed."""
    gone = [i for i, letter in enumerate(letters) if letter not in later]
    kept = "".join(letter for letter in letters if letter in later)
    return kept, x.sum(gone) if gone else x


def contract(left: Term, right: Term, later: str) -> Term:
    """Merge two operands into one: permute, reshape, bmm, reshape."""
    l_letters, a = sum_out(*left, later + right[0])
    r_letters, b = sum_out(*right, later + left[0])
    size = dict(zip(l_letters + r_letters, a.shape + b.shape, strict=True))

    def total(letters: str) -> int:
        return math.prod(size[letter] for letter in letters)

    g = groups(l_letters, r_letters, later)
    a = a.permute([l_letters.index(c) for c in g.batch + g.left + g.summed])
    b = b.permute([r_letters.index(c) for c in g.batch + g.summed + g.right])
    a = a.reshape(total(g.batch), total(g.left), total(g.summed))
    b = b.reshape(total(g.batch), total(g.summed), total(g.right))
    product = torch.bmm(a, b) if g.summed else a * b  # no sum: (m, 1) times (1, n)
    letters = g.batch + g.left + g.right
    return letters, product.reshape([size[letter] for letter in letters])


def rebuilt(equation: str, *operands: Tensor) -> Tensor:
    """Multiply as `torch.einsum` does; no axis of size 1, no repeated letter."""
    inputs, output = equation.split("->")
    terms = list(zip(inputs.split(","), operands, strict=True))
    while len(terms) > 1:
        later = output + "".join(letters for letters, _ in terms[2:])
        terms[:2] = [contract(terms[0], terms[1], later)]
    letters, x = sum_out(*terms[0], output)
    return x.permute([letters.index(letter) for letter in output])


close(rebuilt("bqhd,bkhd->bhqk", q, k), torch.einsum("bqhd,bkhd->bhqk", q, k))
close(rebuilt("or,ri,ti->to", up, down, x), adapter(up, down, x))

# %% [markdown] lang="pl"
# Wylosujmy pięćset równań o jednym do czterech operandów i osiach o rozmiarach od 2 do
# 5. Porównajmy z PyTorchem wartości, liczbę mnożeń i kształty w każdym wywołaniu `bmm`.
# PyTorch czasem zamienia operandy miejscami, więc tego, który stoi po lewej, nie
# sprawdzamy; kopii też nie.

# %% [markdown] lang="en"
# Let's sample five hundred equations with one to four operands and axes of sizes 2 to
# 5. We compare with PyTorch the values, the number of multiplications, and the shapes in
# every call to `bmm`. PyTorch sometimes swaps the operands, so we do not check which one
# is on the left, nor do we compare copies.


# %% fold=true
def random_case(rng: random.Random, most: int = 4) -> tuple[str, list[Tensor]]:
    """Sample an equation with an arrow, and operands for it."""
    size = {letter: rng.randint(2, 5) for letter in "abcde"}
    terms = [
        "".join(rng.sample("abcde", k=rng.randint(1, 3)))
        for _ in range(rng.randint(1, most))
    ]
    known = sorted(set("".join(terms)))
    output = "".join(rng.sample(known, rng.randint(0, min(3, len(known)))))
    shapes = [[size[letter] for letter in term] for term in terms]
    operands = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    return f"{','.join(terms)}->{output}", operands


def products_of(made: Sequence[Call]) -> list[tuple[int, ...]]:
    """List (batch, inner, shorter, longer) of each bmm: which side is which is lost."""
    shapes = [
        call.inputs[0] + call.inputs[1][2:] for call in made if call.name == "bmm"
    ]
    return [(batch, inner, *sorted((m, n))) for batch, m, inner, n in shapes]


def agrees(equation: str, operands: Sequence[Tensor]) -> bool:
    """Run our einsum and torch's, and compare values, shapes and multiplications."""
    ours = record(rebuilt, equation, *operands)
    theirs = record(torch.einsum, equation, *operands)
    price, true_price = (
        sum(c.multiplications for c in made) for made in (ours, theirs)
    )
    wanted = torch.einsum(equation, *operands)
    return (
        torch.allclose(rebuilt(equation, *operands), wanted)
        and products_of(ours) == products_of(theirs)
        and price == true_price
    )


# %%
tried = 500
rng = random.Random(0)
cases = [random_case(rng) for _ in range(tried)]
agreed = sum(agrees(equation, operands) for equation, operands in cases)
print(f"{agreed=} of {tried}")
assert agreed == tried
assert sum("bmm" in work(equation, *operands) for equation, operands in cases) > 100

# %% [markdown] lang="pl"
# Zgodność: {{ agreed }} na {{ tried }}. Oto, co wykonuje `einsum`: **operandy łączy po
# dwa, od lewej do prawej, a każdą parę mnoży jednym `bmm` (albo `mul`, gdy para nie ma
# wspólnej osi do zsumowania); reszta to widoki, kopie i sumy**.
#
# ## Ile kosztuje kolejność
#
# Liczba mnożeń w kontrakcji to iloczyn rozmiarów wszystkich liter z czterech grup. Dla $t$ tokenów, rzędu $r$ i szerokości $d$ kolejność ze wzoru kosztuje
# $d^2 r$ (iloczyn $B A$) i jeszcze $d^2 t$ (mnożenie go przez tokeny). Sam ten drugi
# składnik to tyle, ile wykonuje cała warstwa. Odwrotna kolejność kosztuje $2 d r t$.
# Sprawdźmy to dla różnej liczby tokenów.

# %% [markdown] lang="en"
# Agreement: {{ agreed }} out of {{ tried }}. This is what `einsum` runs: **it merges
# operands two at a time, from left to right, and multiplies each pair by one `bmm` (or
# `mul` when the pair has no common axis to sum over); the rest is views, copies and
# sums**.
#
# ## What an order costs
#
# A contraction performs as many multiplications as the product of the sizes of the
# letters in all four groups. For $t$ tokens, rank $r$ and width $d$ the formula's order
# costs $d^2 r$ (the product $B A$), and another $d^2 t$ (multiplying it by the tokens).
# That second term alone is as much as the whole layer performs. The reverse order costs
# $2 d r t$. Let's check this for various numbers of tokens.

# %%
token_counts = (1, 4, 16, 64, 256)
counted: dict[str, list[int]] = {"layer": [], "formula's order": [], "reverse": []}
for tokens in token_counts:
    y = torch.randn(tokens, 1024)
    counted["layer"].append(multiplications(torch.matmul, y, weight.T))
    counted["formula's order"].append(multiplications(adapter, up, down, y))
    counted["reverse"].append(multiplications(reversed_adapter, up, down, y))

d, r = 1024, 8
assert counted["layer"] == [d * d * t for t in token_counts]
assert counted["formula's order"] == [d * d * r + d * d * t for t in token_counts]
assert counted["reverse"] == [2 * d * r * t for t in token_counts]
cheaper = d / (2 * r)
print(f"{cheaper=}")
assert all(
    layer == cheaper * reverse
    for layer, reverse in zip(counted["layer"], counted["reverse"], strict=True)
)

# %% fold=true
fig, axis = plt.subplots(figsize=(7.2, 3.2))
looks = zip(counted.items(), ((BLUE, "s"), (ORANGE, "o"), (GREEN, "^")), strict=True)
for (label, numbers), (colour, marker) in looks:
    axis.plot(token_counts, numbers, color=colour, marker=marker, label=label)
axis.set(xscale="log", yscale="log", xlabel="number of tokens")
axis.set(ylabel="multiplications", ylim=(1e4, 1e9))
axis.set_xticks(token_counts, [str(tokens) for tokens in token_counts])
axis.set_yticks((1e4, 1e6, 1e8), ["10⁴", "10⁶", "10⁸"])
axis.minorticks_off()
axis.legend()
show_figure(
    fig,
    alt_pl="Wykres w skali logarytmicznej: liczba mnożeń zależnie od liczby tokenów. "
    "Kolejność ze wzoru leży nad warstwą, dla jednego tokenu wyraźnie, dla 256 prawie na "
    "niej. Kolejność odwrotna biegnie równolegle do warstwy, dużo niżej.",
    alt_en="Log-log chart: the number of multiplications by the number of tokens. The "
    "formula's order lies above the layer, clearly so for one token, almost on it for "
    "256. The reverse order runs parallel to the layer, far below.",
    pl={
        "layer": "warstwa",
        "formula's order": "kolejność ze wzoru",
        "reverse": "odwrotna",
        "number of tokens": "liczba tokenów",
        "multiplications": "mnożenia",
    },
)
for layer, ours in zip(counted["layer"], counted["formula's order"], strict=True):
    assert ours == layer + d * d * r

# %% [markdown] lang="pl"
# Pomarańczowa linia leży nad niebieską, choć przy 256 tokenach różnicy już prawie nie
# widać: w kolejności ze wzoru
# adapter zawsze kosztuje o $d^2 r$ więcej niż jego warstwa. Dla 16 tokenów razem to
# $(r + t) / t$ kosztu warstwy, czyli {{ work_share:.0f }}%. W odwrotnej kolejności
# adapter jest od warstwy {{ cheaper:.0f }} razy tańszy.
#
# Zostają bajty i czas. Do wyniku dochodzi w pamięci wynik pośredni: $d^2$ liczb albo
# $r t$ liczb. Licznik `MemoryMeter` liczy to, co przydziela samo wywołanie, bez
# operandów.

# %% [markdown] lang="en"
# The orange line lies above the blue one, although with 256 tokens the difference is
# hard to see: in the formula's order the adapter always costs $d^2 r$ more than its
# layer. It then costs $(r + t) / t$ of the layer, {{ work_share:.0f }}% for 16 tokens. In the reverse order the
# adapter is {{ cheaper:.0f }} times cheaper than the layer.
#
# What remains is bytes and time. On top of the output, memory holds the intermediate
# result: $d^2$ numbers or $r t$ numbers. `MemoryMeter` counts what the call itself
# allocates, without the operands.

# %% measured=true
peaks: list[int] = []
seconds: list[float] = []
for job in (adapter, reversed_adapter):
    run = functools.partial(job, up, down, x)
    with MemoryMeter() as meter:
        run()
    peaks.append(meter.peak)
    seconds.append(min(timeit.repeat(run, number=10, repeat=7)))
peak_formula, peak_reverse = peaks
time_ratio = seconds[0] / seconds[1]
print(f"{peak_formula=:,} {peak_reverse=:,} {time_ratio=:.0f}")
assert peak_formula == 4 * (1024 * 1024 + 16 * 1024)  # float32: 4 bytes
assert peak_reverse == 4 * (16 * 8 + 16 * 1024)
assert time_ratio > 3

# %% [markdown] lang="pl"
# Szczytowe zużycie pamięci to {{ peak_formula }} B wobec {{ peak_reverse }} B. Obliczenie w
# kolejności ze wzoru trwało {{ time_ratio:.0f }} razy dłużej, choć mnożeń ma {{ saving:.0f }} razy
# więcej. Model nie liczy odczytu pamięci ani narzutu wywołań, więc nie przewiduje
# sekund: asercja wymaga tylko, żeby stosunek czasów był większy niż 3.
#
# ## Co się psuje i jak to zauważyć
#
# Za drogie równanie nie zgłasza wyjątku, więc zgłośmy go sami. Naszym strażnikiem
# (*guard*) będzie funkcja `strict_einsum`: porównuje kolejność od lewej z najtańszą,
# którą znajduje funkcja `cheapest`, bo sprawdza wszystkie. Jeśli pierwsza kosztuje ponad
# dwa razy więcej, równanie nie przejdzie; ten próg dobierz do siebie. Całą komórkę
# wkleisz bez zmian do osobnego modułu.

# %% [markdown] lang="en"
# Peak memory is {{ peak_formula }} B against {{ peak_reverse }} B. The formula's order took
# {{ time_ratio:.0f }} times as long, although it has {{ saving:.0f }} times as many
# multiplications. The model counts neither reading memory nor the overhead of calls, so
# it does not predict seconds: the assertion requires only that the ratio of times is
# over 3.
#
# ## What breaks and how to notice
#
# An equation that costs too much raises no exception, so let's raise one. Our guard is
# the function `strict_einsum`: it compares the order from the left with the cheapest
# one, which the function `cheapest` finds, since it tries them all. If the former costs
# more than twice as much, the equation is refused; choose that threshold to suit you.
# The whole cell can be pasted as it stands into a module of its own.


# %%
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MergeOrder = list[tuple[int, int]]  # positions to merge; each result joins the end
MOST = 2  # times the multiplications of the cheapest order


def price(
    left: str, right: str, later: str, size: Mapping[str, int]
) -> tuple[int, str]:
    """Count multiplications of one contraction, and name the letters of its result."""
    both = set(left) & set(right)
    used = [c for c in dict.fromkeys(left + right) if c in both or c in later]
    return math.prod(size[c] for c in used), "".join(c for c in used if c in later)


def left_to_right(terms: Sequence[str], output: str, size: Mapping[str, int]) -> int:
    total, first = 0, terms[0]
    for i, term in enumerate(terms[1:], start=2):
        cost, first = price(first, term, output + "".join(terms[i:]), size)
        total += cost
    return total


def cheapest(
    terms: Sequence[str], output: str, size: Mapping[str, int]
) -> tuple[int, MergeOrder]:
    """Try all pairs, and all continuations of each."""
    if len(terms) < 2:
        return 0, []
    found: list[tuple[int, MergeOrder]] = []
    for i, j in itertools.combinations(range(len(terms)), 2):
        rest = [term for n, term in enumerate(terms) if n not in (i, j)]
        cost, result = price(terms[i], terms[j], output + "".join(rest), size)
        more, path = cheapest([*rest, result], output, size)
        found.append((cost + more, [(i, j), *path]))
    return min(found)


def sizes(terms: Sequence[str], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    size: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for letter, n in zip(term, shape, strict=True):
            if size.setdefault(letter, n) != n:
                raise ValueError(f"{letter!r} has sizes {size[letter]} and {n}")
    return size


@functools.lru_cache(maxsize=1024)
def check_order(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or "." in equation:
        raise ValueError(f"{equation!r}: name every axis, and write '->'")
    if len(terms) > 6:  # the search takes seconds
        raise ValueError(f"{equation!r}: more than 6 operands, split the equation")
    size = sizes(terms, shapes)
    total, (least, path) = (
        left_to_right(terms, output, size),
        cheapest(terms, output, size),
    )
    if total > MOST * least:
        problem = f"{total:,} multiplications; merging {path} takes {least:,}"
        raise ValueError(f"{equation!r}: {problem}")


def strict_einsum(equation: str, *operands: Tensor) -> Tensor:
    """Run `torch.einsum`, but refuse a wasteful order of operands."""
    check_order(equation, tuple(tuple(x.shape) for x in operands))
    return torch.einsum(equation, *operands)


# %% raises="ValueError: 'or,ri,ti->to': 25,165,824 multiplications; merging [(1, 2), (0, 1)] takes 262,144"
strict_einsum("or,ri,ti->to", up, down, x)

# %% [markdown] lang="pl"
# Lista w komunikacie to kolejność: `(1, 2)` łączy `down` z `x`, wynik trafia na koniec
# listy, a `(0, 1)` łączy z nim `up`.
#
# Najtańszą kolejność PyTorch może też dostać z zewnątrz. Gdy pakiet `opt_einsum` jest
# zainstalowany i włączony, `torch.einsum` pyta go o kolejność, jeśli operandów jest
# więcej niż dwa. Podstawmy w jego miejsce atrapę, która odpowiada wynikiem funkcji
# `cheapest`.

# %% [markdown] lang="en"
# The list in the message is an order: `(1, 2)` merges `down` with `x`, the result joins
# the end of the list, and `(0, 1)` merges `up` with it.
#
# PyTorch can also be told the cheapest order from outside. When the package
# `opt_einsum` is installed and enabled, `torch.einsum` asks it for an order if there are
# more than two operands. Let's put a stand-in in its place, one that answers with the result of
# `cheapest`.


# %%
def plan(equation: str, *operands: Tensor, optimize: object) -> tuple[MergeOrder, None]:
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    return cheapest(terms, output, sizes(terms, [y.shape for y in operands]))[1], None


stand_in = SimpleNamespace(
    enabled=True,
    strategy="auto",
    is_available=lambda: True,
    get_opt_einsum=lambda: SimpleNamespace(contract_path=plan),
)


def planned(equation: str, *operands: Tensor) -> Tensor:
    with mock.patch.object(torch.backends, "opt_einsum", stand_in):
        return torch.einsum(equation, *operands)


equation = "or,ri,ti->to"
unplanned_work = multiplications(torch.einsum, equation, up, down, x)
planned_work = multiplications(planned, equation, up, down, x)
print(f"{unplanned_work=:,} {planned_work=:,}")
assert (unplanned_work, planned_work) == (works[0], works[1])
extras = [line for line in requires("torch") or [] if line.startswith("opt-einsum")]
assert extras and all("extra ==" in line for line in extras)  # not in a plain install


# %% [markdown] lang="pl"
# Ten sam wiersz kodu wykonał {{ unplanned_work }} mnożeń bez planu, a {{ planned_work }}
# z planem z naszej atrapy (samego pakietu `opt_einsum` nie uruchamialiśmy). Polecenie
# `pip install torch` tego pakietu nie instaluje. Najpewniejszy sposób to zapisać
# kolejność w kodzie, po dwa operandy naraz:

# %% [markdown] lang="en"
# The same line of code performed {{ unplanned_work }} multiplications without a plan and
# {{ planned_work }} with the plan of our stand-in (we have not run the package
# `opt_einsum` itself). The command `pip install torch` does not install that package.
# The safest way is to write the order in the code, two operands at a time:


# %%
def cheap_adapter(up: Tensor, down: Tensor, x: Tensor) -> Tensor:
    narrow = torch.einsum("ti,ri->tr", x, down)
    return torch.einsum("tr,or->to", narrow, up)


assert multiplications(cheap_adapter, up, down, x) == planned_work
close(cheap_adapter(up, down, x), adapter(up, down, x))

# %% [markdown] lang="pl"
# Sprawdźmy teraz strażnika na wylosowanych równaniach. Ma odmówić dokładnie tam, gdzie
# PyTorch bez planu wykonuje ponad dwa razy więcej mnożeń niż z planem.

# %% [markdown] lang="en"
# Now let's check the guard on the sampled equations. It should refuse exactly where
# PyTorch performs more than twice as many multiplications without a plan as with one.


# %% fold=true
def refusal(equation: str, *operands: Tensor) -> str:
    """Return the complaint of `strict_einsum`, or nothing."""
    try:
        result = strict_einsum(equation, *operands)
    except ValueError as error:
        return str(error)
    close(result, torch.einsum(equation, *operands))
    return ""


refused = 0
for equation, operands in cases:
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    size = sizes(terms, [y.shape for y in operands])
    spent = multiplications(torch.einsum, equation, *operands)
    enough = multiplications(planned, equation, *operands)
    assert spent == left_to_right(terms, output, size)
    assert enough == cheapest(terms, output, size)[0]
    assert bool(refusal(equation, *operands)) == (spent > 2 * enough)
    refused += spent > 2 * enough
print(f"{refused=} of {tried}")
assert refused > 20

assert refusal("or, ri, ti -> to", up, down, x)
assert not refusal("ti,ri,or->to", x, down, up) and not refusal("ij->ji", square)
assert "write '->'" in refusal("or,ri,ti", up, down, x)
assert "write '->'" in refusal("or,ri,...i->...o", up, down, x)
assert "'j' has sizes 1 and 4" in refusal("ij,jk->ik", square[:, :1], square)
assert "more than 6" in refusal("a,b,c,d,e,f,g->", *torch.ones(7, 2))
assert refusal("or,ri->oi", up, down) == ""  # half of the bad order, on its own
hits = check_order.cache_info().hits
strict_einsum("ti,ri,or->to", x, down, up)
assert check_order.cache_info().hits == hits + 1

# %% [markdown] lang="pl"
# Strażnik odmówił {{ refused }} razy na {{ tried }}, dokładnie tam, gdzie miał.
# Sprawdzenie, które się powiodło, zapamiętuje osobno dla każdego równania i zestawu
# kształtów.
#
# Czego nie zrobi: widzi jedno wywołanie naraz, więc złej kolejności rozpisanej na dwa
# wywołania nie wykryje. Liczy mnożenia, a nie bajty ani sekundy, więc odmówi też przy
# drobnych równaniach. Liczy je od lewej, więc odmówi także tam, gdzie `opt_einsum`
# znalazłby tańszą kolejność. Nie przyjmie wielokropka, równania bez strzałki, litery o
# dwóch rozmiarach ani więcej niż sześciu operandów.
#
# > [!NOTE]
# > Obliczenia w tej lekcji wykonuje procesor. Na GPU (tu niezmierzone) podział liter i
# > kolejność są te same, a `bmm` trafia do cuBLAS.
#
# Gdzie to leży w źródłach PyTorcha:
#
# - funkcje `einsum` i `sumproduct_pair`, która wykonuje kontrakcję:
#   [`aten/src/ATen/native/Linear.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/Linear.cpp)
# - pytanie do `opt_einsum` o kolejność:
#   [`torch/functional.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
#
# ## Co już umiesz
#
# - Dzielisz litery równania na cztery grupy i odczytujesz z nich kształty dla `bmm`.
# - Liczysz mnożenia każdej kolejności, zanim cokolwiek uruchomisz.
# - Wykrywasz równania, których kolejność jest za droga, i zapisujesz tańszą.
#
# Poprzednia lekcja: [02, rozgłaszanie](02_broadcasting_magic.py). Następna: [04,
# indeksowanie zaawansowane](04_advanced_indexing.py). Osie nazwane słowami zamiast
# liter są w lekcji [06](06_einops.py). W dokumentacji:
# [torch.einsum](https://docs.pytorch.org/docs/stable/generated/torch.einsum.html),
# [torch.backends.opt_einsum](https://docs.pytorch.org/docs/stable/backends.html#torch-backends-opt-einsum).

# %% [markdown] lang="en"
# The guard refused {{ refused }} of {{ tried }}, exactly where it should. A check that
# passes is cached separately for each equation and combination of shapes.
#
# What it does not do: it sees one call at a time, so a bad order spelled out in two
# calls escapes it. It counts multiplications, neither bytes nor seconds, so it refuses
# tiny equations too. It counts them from the left, so it refuses even where
# `opt_einsum` would find a cheaper order. It accepts no ellipsis, no equation without an
# arrow, no letter with two sizes, and no more than six operands.
#
# > [!NOTE]
# > Everything in this lesson runs on the CPU. On a GPU (not measured here) the groups of
# > letters and the order are the same, and `bmm` goes to cuBLAS.
#
# Where this lives in PyTorch's source:
#
# - the functions `einsum` and `sumproduct_pair`, which makes a contraction:
#   [`aten/src/ATen/native/Linear.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/Linear.cpp)
# - where `opt_einsum` is asked for an order:
#   [`torch/functional.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
#
# ## Now you can
#
# - Sort the letters of an equation into four groups, and read off the shapes for `bmm`.
# - Count the multiplications of any order before you run anything.
# - Find equations whose order costs too much, and write a cheaper one.
#
# Previous lesson: [02, broadcasting](02_broadcasting_magic.py). Next: [04, advanced
# indexing](04_advanced_indexing.py). Axes named by words instead of letters are in
# lesson [06](06_einops.py). In the documentation:
# [torch.einsum](https://docs.pytorch.org/docs/stable/generated/torch.einsum.html),
# [torch.backends.opt_einsum](https://docs.pytorch.org/docs/stable/backends.html#torch-backends-opt-einsum).

# %% [markdown] lang="pl"
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="eight-equations" role="prompt" belt="white" minutes=10
# ### Biały: osiem równań
#
# Zapisz każdą z ośmiu operacji jednym równaniem. Litery dobierz dowolnie, strzałka jest
# obowiązkowa. Kształty operandów i wyniku stoją w komentarzach.

# %% [markdown] lang="en" exercise="eight-equations" role="prompt" belt="white" minutes=10
# ### White: eight equations
#
# Write each of the eight operations as one equation. The letters are yours to choose,
# the arrow is required. The shapes of operands and result stand in the comments.

# %% exercise="eight-equations" role="starter"
equations: dict[str, str] = {
    "traces": "",  # (batch, n, n) -> (batch): the trace of each matrix
    "outer": "",  # (m), (n) -> (m, n): every product
    "row sums": "",  # (m, n) -> (m)
    "transposes": "",  # (batch, m, n) -> (batch, n, m)
    "row products": "",  # (batch, n), (batch, n) -> (batch): dot products of rows
    "scores": "",  # (batch, query, head, dim), (batch, key, head, dim)
    #   -> (batch, head, query, key)
    "projection": "",  # (batch, token, dim), (dim, head, k) -> (batch, head, token, k)
    "bilinear": "",  # (batch, m), (out, m, n), (batch, n) -> (batch, out)
}

# %% exercise="eight-equations" role="check"
shapes_of: dict[str, list[tuple[int, ...]]] = {
    "traces": [(2, 3, 3)],
    "outer": [(3,), (4,)],
    "row sums": [(3, 4)],
    "transposes": [(2, 3, 4)],
    "row products": [(2, 3), (2, 3)],
    "scores": [(2, 3, 4, 5), (2, 6, 4, 5)],
    "projection": [(2, 3, 4), (4, 5, 6)],
    "bilinear": [(2, 3), (4, 3, 5), (2, 5)],
}
specified: dict[str, Callable[..., Tensor]] = {
    "traces": lambda a: torch.stack([matrix.trace() for matrix in a]),
    "outer": lambda a, b: a[:, None] * b,
    "row sums": lambda a: a.sum(1),
    "transposes": lambda a: a.transpose(1, 2),
    "row products": lambda a, b: (a * b).sum(1),
    "scores": lambda a, b: a.transpose(1, 2) @ b.permute(0, 2, 3, 1),
    "projection": lambda a, b: (a @ b.flatten(1)).unflatten(-1, (5, 6)).transpose(1, 2),
    "bilinear": lambda a, b, c: torch.stack([((a @ m) * c).sum(1) for m in b], dim=1),
}
for name, shapes in shapes_of.items():
    given = equations.get(name, "")
    assert given, say(pl=f"{name}: równanie jest puste", en=f"{name}: it is empty")
    assert "->" in given, say(
        pl=f"{name}: brakuje strzałki, więc osie wyniku wybrałby za ciebie `einsum`",
        en=f"{name}: there is no arrow, so `einsum` would choose the output's axes",
    )
    drawn = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    wanted = specified[name](*drawn)
    try:
        got = torch.einsum(given, *drawn)
    except RuntimeError as error:
        raise AssertionError(f"{name}: {given!r}: {error}") from None
    assert got.dim() == wanted.dim(), say(
        pl=f"{name}: liczba osi wyniku to {got.dim()} zamiast {wanted.dim()}; litera, której "
        "nie ma po strzałce, jest sumowana",
        en=f"{name}: the result has {got.dim()} axes instead of {wanted.dim()}; a letter "
        "that is missing after the arrow is summed",
    )
    assert got.shape == wanted.shape, say(
        pl=f"{name}: kształt wyniku to {tuple(got.shape)} zamiast {tuple(wanted.shape)}",
        en=f"{name}: the result has shape {tuple(got.shape)}, not {tuple(wanted.shape)}",
    )
    assert torch.allclose(got, wanted), say(
        pl=f"{name}: kształt się zgadza, wartości nie; ta sama litera w dwóch operandach "
        "łączy ich osie",
        en=f"{name}: the shape is right, the values are not; one letter in two operands "
        "ties their axes together",
    )

# %% [markdown] lang="pl" exercise="eight-equations" role="hint"
# Daj literę każdej osi z komentarza. Osie, które mają iść razem, dostają tę samą
# literę, także w obrębie jednego operandu. Po strzałce przepisz osie wyniku.

# %% [markdown] lang="en" exercise="eight-equations" role="hint"
# Give a letter to every axis in the comment. Axes that go together get the same letter,
# also within one operand. After the arrow, copy the axes of the result.

# %% [markdown] lang="pl" exercise="eight-equations" role="hint"
# Ślad macierzy to dwie takie same litery w jednym operandzie, których nie ma po
# strzałce.

# %% [markdown] lang="en" exercise="eight-equations" role="hint"
# The trace of a matrix is two equal letters in one operand that are missing after the
# arrow.

# %% exercise="eight-equations" role="wrong" says="row products: there is no arrow"
equations = {  # trusts the output that einsum makes up: a repeated letter is summed
    "traces": "bii->b",
    "outer": "i,j->ij",
    "row sums": "ij->i",
    "transposes": "bij->bji",
    "row products": "bi,bi",
    "scores": "bqhd,bkhd->bhqk",
    "projection": "btd,dhk->bhtk",
    "bilinear": "bi,oij,bj->bo",
}

# %% exercise="eight-equations" role="wrong" says="scores: the result has 3 axes instead of 4"
equations = {  # a letter in both operands looks as if it had to be summed
    "traces": "bii->b",
    "outer": "i,j->ij",
    "row sums": "ij->i",
    "transposes": "bij->bji",
    "row products": "bi,bi->b",
    "scores": "bqhd,bkhd->bqk",
    "projection": "btd,dhk->bhtk",
    "bilinear": "bi,oij,bj->bo",
}

# %% exercise="eight-equations" role="wrong" says="row products: the shape is right, the values are not"
equations = {  # two letters for one axis: each operand is summed on its own
    "traces": "bii->b",
    "outer": "i,j->ij",
    "row sums": "ij->i",
    "transposes": "bij->bji",
    "row products": "bi,bj->b",
    "scores": "bqhd,bkhd->bhqk",
    "projection": "btd,dhk->bhtk",
    "bilinear": "bi,oij,bj->bo",
}

# %% exercise="eight-equations" role="solution"
equations = {
    "traces": "bii->b",  # i twice in one operand: the diagonal; then it is summed
    "outer": "i,j->ij",  # nothing is summed: mul
    "row sums": "ij->i",
    "transposes": "bij->bji",  # a view
    "row products": "bi,bi->b",  # b is in both and stays: a batch axis
    "scores": "bqhd,bkhd->bhqk",  # batch b and h, summed d
    "projection": "btd,dhk->bhtk",
    "bilinear": "bi,oij,bj->bo",
}

# %% [markdown] lang="pl" exercise="run-cheapest" role="prompt" belt="brown" minutes=15
# ### Brązowy: policz najtaniej
#
# Napisz funkcję `run_cheapest`, która liczy równanie w kolejności wybranej przez
# `cheapest`. Wolno wywołać `torch.einsum` dla jednego albo dwóch operandów naraz. Każda
# para w kolejności to pozycje dwóch operandów: oba znikają, a wynik dochodzi na końcu.
# Równanie ma strzałkę, nie ma wielokropka, a w jednym operandzie litery się nie
# powtarzają.

# %% [markdown] lang="en" exercise="run-cheapest" role="prompt" belt="brown" minutes=15
# ### Brown: compute it the cheapest way
#
# Write a function `run_cheapest` that computes an equation in the order chosen by
# `cheapest`. You may call `torch.einsum` on one or two operands at a time. The pairs of
# an order are positions in the list of operands: both disappear, and the result joins
# the end. The equation has an arrow and no ellipsis, and no letter is repeated within
# an operand.


# %% exercise="run-cheapest" role="starter"
def run_cheapest(equation: str, *operands: Tensor) -> Tensor:
    return torch.zeros(())  # your code


# %% exercise="run-cheapest" role="check"
class EinsumWatch(TorchFunctionMode):
    """Count calls of any `einsum`, and the most operands that one of them got."""

    def __init__(self) -> None:
        self.calls, self.most = 0, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if "einsum" in getattr(func, "__name__", ""):
            self.calls += 1
            self.most = max(self.most, sum(isinstance(y, Tensor) for y in flat(args)))
        return func(*args, **(kwargs or {}))


def flat(args: Sequence[Any]) -> list[Any]:
    """Lay lists and tuples of arguments out."""
    nested = [flat(y) if isinstance(y, list | tuple) else [y] for y in args]
    return list(itertools.chain.from_iterable(nested))


rng = random.Random(1)
examples = [random_case(rng, most=5) for _ in range(150)]
examples.append(("or,ri,ti->to", [up.double(), down.double(), x.double()]))
for equation, drawn in examples:
    inputs_part, output = equation.split("->")
    terms = inputs_part.split(",")
    size = sizes(terms, [y.shape for y in drawn])
    fewest = cheapest(terms, output, size)[0]
    with Recorder() as recorder, EinsumWatch() as watch:
        got = run_cheapest(equation, *drawn)
    assert watch.most <= 2, say(
        pl=f"{equation}: więcej niż dwa operandy naraz, więc kolejność wybiera PyTorch",
        en=f"{equation}: more than two operands at a time, so PyTorch picks the order",
    )
    spent = sum(call.multiplications for call in recorder.calls)
    wanted = torch.einsum(equation, *drawn)
    assert got.shape == wanted.shape, say(
        pl=f"{equation}: kształt wyniku to {tuple(got.shape)}, a nie {tuple(wanted.shape)}",
        en=f"{equation}: the result has shape {tuple(got.shape)}, not "
        f"{tuple(wanted.shape)}",
    )
    assert torch.allclose(got, wanted), say(
        pl=f"{equation}: złe wartości; czy literę potrzebną dalej sumujesz za wcześnie?",
        en=f"{equation}: wrong values; do you sum a letter that is needed later?",
    )
    assert spent == fewest, say(
        pl=f"{equation}: mnożeń jest {spent}, a wystarczy {fewest}",
        en=f"{equation}: {spent} multiplications, and {fewest} are enough",
    )

# %% [markdown] lang="pl" exercise="run-cheapest" role="hint"
# Trzymaj dwie listy, litery i tensory. Z pary wyjmij najpierw dalszą pozycję, żeby
# bliższa się nie przesunęła.

# %% [markdown] lang="en" exercise="run-cheapest" role="hint"
# Keep two lists, letters and tensors. Of a pair, take out the later position first, so
# that the earlier one does not move.

# %% [markdown] lang="pl" exercise="run-cheapest" role="hint"
# Zostają litery, które są w wyniku całego równania albo w operandach, które jeszcze
# czekają. Podaje je też `price`.

# %% [markdown] lang="en" exercise="run-cheapest" role="hint"
# The letters that stay are those in the output of the whole equation or in operands
# that are still waiting. The function `price` returns them too.


# %% exercise="run-cheapest" role="wrong" says="more than two operands at a time"
def run_cheapest(equation: str, *operands: Tensor) -> Tensor:
    # Finds the order and does not use it.
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    cheapest(terms, output, sizes(terms, [y.shape for y in operands]))
    return torch.einsum(equation, *operands)


# %% exercise="run-cheapest" role="wrong" says="do you sum a letter that is needed later"
def run_cheapest(equation: str, *operands: Tensor) -> Tensor:
    inputs, output = equation.split("->")
    terms, tensors = inputs.split(","), list(operands)
    size = sizes(terms, [y.shape for y in tensors])
    for i, j in cheapest(terms, output, size)[1]:
        right, b = terms.pop(j), tensors.pop(j)
        left, a = terms.pop(i), tensors.pop(i)
        # Looks only at the output, and forgets the operands that are still waiting.
        kept = "".join(c for c in dict.fromkeys(left + right) if c in output)
        terms.append(kept)
        tensors.append(torch.einsum(f"{left},{right}->{kept}", a, b))
    return torch.einsum(f"{terms[0]}->{output}", tensors[0])


# %% exercise="run-cheapest" role="wrong" says="are enough"
def run_cheapest(equation: str, *operands: Tensor) -> Tensor:
    inputs, output = equation.split("->")
    terms, tensors = inputs.split(","), list(operands)
    size = sizes(terms, [y.shape for y in tensors])
    for i, j in cheapest(terms, output, size)[1]:
        right, b = terms.pop(j), tensors.pop(j)
        left, a = terms.pop(i), tensors.pop(i)
        later = output + "".join(terms)
        kept = "".join(c for c in dict.fromkeys(left + right) if c in later)
        # The next pair counts positions with the result at the end, not at the front.
        terms.insert(0, kept)
        tensors.insert(0, torch.einsum(f"{left},{right}->{kept}", a, b))
    return torch.einsum(f"{terms[0]}->{output}", tensors[0])


# %% exercise="run-cheapest" role="solution"
def run_cheapest(equation: str, *operands: Tensor) -> Tensor:
    inputs, output = equation.split("->")
    terms, tensors = inputs.split(","), list(operands)
    size = sizes(terms, [y.shape for y in tensors])
    for i, j in cheapest(terms, output, size)[1]:
        right, b = terms.pop(j), tensors.pop(j)  # i < j: the later one first
        left, a = terms.pop(i), tensors.pop(i)
        later = output + "".join(terms)  # what still waits needs its letters
        kept = "".join(c for c in dict.fromkeys(left + right) if c in later)
        terms.append(kept)
        tensors.append(torch.einsum(f"{left},{right}->{kept}", a, b))
    return torch.einsum(f"{terms[0]}->{output}", tensors[0])  # sums, orders the axes


# %% [markdown] lang="pl" exercise="einsum-backward" role="prompt" belt="black" minutes=30
# ### Czarny: gradient to też równanie
#
# Napisz funkcję `einsum_backward`, która z gradientu wyniku liczy gradient każdego
# operandu, bez autogradu, jednym wywołaniem `einsum` na operand. Operandów jest od
# jednego do czterech, a w jednym operandzie litery się nie powtarzają.

# %% [markdown] lang="en" exercise="einsum-backward" role="prompt" belt="black" minutes=30
# ### Black: a gradient is an equation too
#
# Write a function `einsum_backward` that computes the gradient of every operand from
# the gradient of the result, without autograd, with one call to `einsum` per operand.
# There are one to four operands, and no letter is repeated within an operand.


# %% exercise="einsum-backward" role="starter"
def einsum_backward(
    equation: str, operands: Sequence[Tensor], grad: Tensor
) -> list[Tensor]:
    return list(operands)  # your code


# %% exercise="einsum-backward" role="check"
def no_autograd(*args: object, **kwargs: object) -> None:
    raise AssertionError(
        say(
            pl="gradient ma policzyć `einsum`, a nie autograd",
            en="compute the gradient with `einsum`, not with autograd",
        )
    )


rng = random.Random(2)
examples = [random_case(rng) for _ in range(200)]
examples.insert(
    0, ("ij,jk->ik", [torch.randn(2, 3).double(), torch.randn(3, 4).double()])
)
for equation, drawn in examples:
    leaves = [y.clone().requires_grad_() for y in drawn]
    result = torch.einsum(equation, *leaves)
    grad = torch.randn_like(result)
    true_grads = torch.autograd.grad(result, leaves, grad)
    with (  # every way into autograd ends in this function
        mock.patch("torch.autograd._engine_run_backward", no_autograd),
        torch.no_grad(),
        EinsumWatch() as watch,
    ):
        try:
            got_grads = einsum_backward(equation, [y.clone() for y in drawn], grad)
        except RuntimeError as error:
            raise AssertionError(f"{equation}: {error}") from None
    assert watch.calls <= len(drawn), say(
        pl=f"{equation}: wystarczy jedno wywołanie `einsum` na operand, a było "
        f"ich {watch.calls}",
        en=f"{equation}: one call to `einsum` per operand is enough, you made "
        f"{watch.calls}",
    )
    assert len(got_grads) == len(drawn), say(
        pl=f"{equation}: każdy operand ma mieć gradient",
        en=f"{equation}: every operand needs a gradient",
    )
    for i, (got, wanted) in enumerate(zip(got_grads, true_grads, strict=True)):
        assert got.shape == wanted.shape, say(
            pl=f"{equation}, operand {i}: gradient ma kształt {tuple(got.shape)}, a operand "
            f"{tuple(wanted.shape)}",
            en=f"{equation}, operand {i}: the gradient has shape {tuple(got.shape)}, the "
            f"operand {tuple(wanted.shape)}",
        )
        assert torch.allclose(got, wanted), say(
            pl=f"{equation}, operand {i}: kształt się zgadza, wartości nie",
            en=f"{equation}, operand {i}: the shape is right, the values are not",
        )

# %% [markdown] lang="pl" exercise="einsum-backward" role="hint"
# Gradient operandu to `einsum` gradientu wyniku i pozostałych operandów, z literami tego
# operandu po strzałce. Dla `ij,jk->ik` to `ik,jk->ij` i `ij,ik->jk`.

# %% [markdown] lang="en" exercise="einsum-backward" role="hint"
# The gradient of an operand is an `einsum` of the gradient of the result and the other
# operands, with the letters of this operand after the arrow. For `ij,jk->ik` these are
# `ik,jk->ij` and `ij,ik->jk`.

# %% [markdown] lang="pl" exercise="einsum-backward" role="hint"
# Litery, która jest tylko w tym jednym operandzie, a w wyniku jej nie ma, `einsum` nie
# może zwrócić. Wzdłuż tej osi
# gradient jest stały: policz go bez niej, a potem użyj `unsqueeze` i `expand`.

# %% [markdown] lang="en" exercise="einsum-backward" role="hint"
# A letter that is in this operand only, and not in the output, cannot be returned by
# `einsum`. Along that axis the gradient is constant: compute it without the axis, then
# use `unsqueeze` and `expand`.


# %% exercise="einsum-backward" role="wrong" says="does not appear in the equation for any input operand"
def einsum_backward(
    equation: str, operands: Sequence[Tensor], grad: Tensor
) -> list[Tensor]:
    # Right for products of matrices; a letter of one operand alone has no source.
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    grads: list[Tensor] = []
    for i, term in enumerate(terms):
        others = [*terms[:i], output, *terms[i + 1 :]]
        tensors = [*operands[:i], grad, *operands[i + 1 :]]
        grads.append(torch.einsum(f"{','.join(others)}->{term}", *tensors))
    return grads


# %% exercise="einsum-backward" role="wrong" says="the gradient has shape"
def einsum_backward(
    equation: str, operands: Sequence[Tensor], grad: Tensor
) -> list[Tensor]:
    # Leaves out the arrow: `einsum` orders the axes of the gradient.
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    grads: list[Tensor] = []
    for i in range(len(terms)):
        others = [output, *terms[:i], *terms[i + 1 :]]
        tensors = [grad, *operands[:i], *operands[i + 1 :]]
        grads.append(torch.einsum(",".join(others), *tensors))
    return grads


# %% exercise="einsum-backward" role="wrong" says="the shape is right, the values are not"
def einsum_backward(
    equation: str, operands: Sequence[Tensor], grad: Tensor
) -> list[Tensor]:
    # Averages: an axis that was summed passes the whole gradient to every element.
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    grads: list[Tensor] = []
    for i, term in enumerate(terms):
        others = [output, *terms[:i], *terms[i + 1 :]]
        tensors = [grad, *operands[:i], *operands[i + 1 :]]
        known = "".join(letter for letter in term if letter in "".join(others))
        result = torch.einsum(f"{','.join(others)}->{known}", *tensors)
        for axis, letter in enumerate(term):
            if letter not in known:
                result = result.unsqueeze(axis) / operands[i].shape[axis]
        grads.append(result.expand(operands[i].shape))
    return grads


# %% exercise="einsum-backward" role="solution"
def einsum_backward(
    equation: str, operands: Sequence[Tensor], grad: Tensor
) -> list[Tensor]:
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    grads: list[Tensor] = []
    for i, term in enumerate(terms):
        others = [output, *terms[:i], *terms[i + 1 :]]
        tensors = [grad, *operands[:i], *operands[i + 1 :]]
        known = "".join(letter for letter in term if letter in "".join(others))
        result = torch.einsum(f"{','.join(others)}->{known}", *tensors)
        for axis, letter in enumerate(term):
            if letter not in known:  # summed here alone: the gradient is constant
                result = result.unsqueeze(axis)
        grads.append(result.expand(operands[i].shape))
    return grads
