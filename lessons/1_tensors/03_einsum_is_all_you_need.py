# %% [markdown] lang="pl"
# # Einsum: język, a nie jądro obliczeniowe
#
# Równanie `einsum` mówi, co policzyć, a nie jak. Z jego liter odczytasz, jakie operacje
# wykona PyTorch, ile mnożeń będą kosztować i kiedy po drodze powstanie kopia.
#
# ## Adapter droższy od warstwy
#
# Adapter LoRA dodaje do wyniku zamrożonej warstwy $W x$ poprawkę $B A x$, w której
# macierze $B$ i $A$ są wąskie: wszystko przechodzi przez oś o rozmiarze 8. Przepiszmy
# wzór litera po literze i policzmy mnożenia. Litery oznaczają osie: `o` wyjście, `r`
# rząd (*rank*), `i` wejście, `t` token.

# %% [markdown] lang="en"
# # Einsum: a language, not a kernel
#
# An `einsum` equation says what to compute, not how. From its letters you can read
# which operations PyTorch will run, how many multiplications they will cost, and when a
# copy will be made on the way.
#
# ## An adapter that costs more than its layer
#
# A LoRA adapter adds a correction $B A x$ to the output of a frozen layer $W x$. The
# matrices $B$ and $A$ are narrow: everything passes through an axis of size 8. Let's
# copy the formula letter by letter and count multiplications. Letters stand for axes:
# `o` is the output, `r` the rank, `i` the input, `t` the token.

# %% fold=true
import functools
import inspect
import itertools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from typing import Any
from unittest import mock

import torch
from matplotlib import pyplot as plt
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.einsum_pictures import Product, show_orders
from snippets.figures import BLUE, ORANGE, show_figure
from snippets.memory import MemoryMeter, saved_bytes
from snippets.memory_pictures import show_memory

torch.manual_seed(0)
torch.set_num_threads(1)
torch.backends.opt_einsum.enabled = False  # the same run everywhere; explained below


@dataclass(frozen=True)
class Call:
    """One operator that PyTorch ran, with the shapes of its tensors."""

    name: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]

    @property
    def multiplications(self) -> int:
        """Numbers multiplied by `mm`, `bmm` and `mul`; other operators count as 0."""
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
assert work_share == 150

# %% [markdown] lang="pl"
# Wynik jest poprawny, nie ma wyjątku ani ostrzeżenia. Adapter ma
# {{ parameter_share:.1f }}% parametrów warstwy, a wykonuje {{ work_share:.0f }}% jej
# mnożeń. Pytanie tej lekcji: **co `einsum` wykona dla danego równania i o czym
# zdecyduje za ciebie?**
#
# ## Te same macierze od drugiej strony
#
# Zanim uruchomisz następną komórkę, odpowiedz na pytanie.

# %% [markdown] lang="en"
# The result is right, and there is no exception and no warning. The adapter has
# {{ parameter_share:.1f }}% of the layer's parameters, yet performs
# {{ work_share:.0f }}% of its multiplications. The question of this lesson: **what does
# `einsum` run for a given equation, and what does it decide for you?**
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
# - [ ] Tyle samo: litery opisują tę samą sumę
#
#   Suma jest ta sama, ale nikt nie liczy jej składnik po składniku. Po pomnożeniu
#   pierwszych dwóch operandów jedna oś jest już zsumowana, a która, to zależy od tego,
#   co stoi na początku.
#
# - [ ] Tyle samo: `einsum` sam wybiera najtańszą kolejność
#
#   Sam PyTorch niczego nie wybiera: mnoży operandy od lewej, tak jak je podasz.
#
# - [ ] Około 1,5 raza mniej: nie trzeba mnożyć `up` przez `down`
#
#   Tyle by było, gdyby znikł tylko pierwszy krok. Drugi też tanieje, bo nie mnoży już
#   macierzy 1024 × 1024.
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
# - [ ] Just as many: the letters describe the same sum
#
#   The sum is the same, but nobody computes it term by term. Once the first two
#   operands have been multiplied, one axis is already summed, and which one depends on
#   what stands at the front.
#
# - [ ] Just as many: `einsum` picks the cheapest order by itself
#
#   PyTorch alone picks nothing: it multiplies operands from the left, the way you pass
#   them.
#
# - [ ] About 1.5 times fewer: there is no need to multiply `up` by `down`
#
#   It would be so if only the first step went away. The second one gets cheaper too,
#   since it no longer multiplies a 1024 × 1024 matrix.
#
# - [x] About 100 times fewer
#
#   Exactly {{ saving:.0f }} times fewer: no intermediate result has two axes of size
#   1024.

# %%
calls = {
    'einsum("or,ri,ti->to", up, down, x)': record(adapter, up, down, x),
    'einsum("ti,ri,or->to", x, down, up)': record(
        torch.einsum, "ti,ri,or->to", x, down, up
    ),
}
products = {
    name: [call for call in made if call.name == "bmm"] for name, made in calls.items()
}
for name, made in products.items():
    print(name, *(f"{call.inputs} -> {call.output}" for call in made), sep="\n  ")
works = [sum(call.multiplications for call in made) for made in products.values()]
saving = works[0] / works[1]
print(f"{works=} {saving=}")
assert saving == 96

with FlopCounterMode(display=False) as counter:  # torch's own counter: × and + apart
    adapter(up, down, x)
assert counter.get_total_flops() == 2 * adapter_work == 2 * works[0]
turned = torch.einsum("ti,ri,or->to", x, down, up)
close(turned, adapter(up, down, x))

# %% [markdown] lang="pl"
# ## Co powstaje po drodze
#
# Sprowadzenie dwóch operandów do jednego to **kontrakcja** (*contraction*). Każde z
# tych wywołań wykonało dwie: najpierw pierwszy operand z drugim, potem wynik z trzecim.
# Obie kontrakcje to wywołania `bmm`, czyli mnożenia macierzy w partiach: tensora o
# kształcie (partia, m, k) przez tensor o kształcie (partia, k, n). Narysujmy je w
# skali.

# %% [markdown] lang="en"
# ## What is made on the way
#
# Reducing two operands to one is a **contraction**. Each of these calls made two: first
# the first operand with the second, then the result with the third. Both contractions
# are calls of `bmm`, multiplication of matrices in batches: a tensor of shape (batch,
# m, k) times a tensor of shape (batch, k, n). Let's draw them to scale.


# %% fold=true
def drawn_product(call: Call) -> Product:
    (_, rows, inner), (_, _, columns) = call.inputs
    return Product(rows, inner, columns)


assert all(call.inputs[0][0] == 1 for made in products.values() for call in made)
show_orders(
    {name: [drawn_product(call) for call in made] for name, made in products.items()},
    alt_pl="Dwa rzędy iloczynów macierzy narysowanych w skali. W górnym dwa wąskie paski "
    "1024×8 i 8×1024 dają wielki kwadrat 1024×1024, który trzeba jeszcze pomnożyć. W "
    "dolnym wynikiem pośrednim jest mały prostokąt 16×8.",
    alt_en="Two rows of products of matrices drawn to scale. In the upper one two narrow "
    "strips, 1024×8 and 8×1024, give a huge square, 1024×1024, which then has to be "
    "multiplied. In the lower one the intermediate result is a small rectangle, 16×8.",
)
assert [made[0].output for made in products.values()] == [(1, 1024, 1024), (1, 16, 8)]

# %% [markdown] lang="pl"
# Spójrz na wynik pośredni: w górnym rzędzie to kwadrat wielkości całej wagi $W$, w
# dolnym drobny prostokąt. Adapter miał tego kwadratu uniknąć, a wzór przepisany od
# lewej do prawej go odtworzył.
#
# ## Litery wybierają osie dla `bmm`
#
# Kontrakcję wykonuje w C++ funkcja `sumproduct_pair`. Dzieli litery dwóch operandów na
# cztery grupy:
#
# | grupa | gdzie jest litera | oś w `bmm` |
# |---|---|---|
# | `batch` | w obu operandach i potrzebna dalej | partia |
# | `left` | tylko w lewym i potrzebna dalej | wiersze |
# | `right` | tylko w prawym i potrzebna dalej | kolumny |
# | `summed` | w obu i niepotrzebna dalej | wspólna, znika |
#
# „Potrzebna dalej” znaczy: jest w wyniku albo w operandzie, który jeszcze czeka.
# Litera, która jest tylko w jednym operandzie i nie jest potrzebna dalej, sumuje się
# przed mnożeniem.

# %% [markdown] lang="en"
# Look at the intermediate result: in the upper row it is a square as large as the whole
# weight $W$, in the lower one a tiny rectangle. The adapter was meant to avoid that
# square, and the formula copied from left to right has brought it back.
#
# ## Letters choose the axes of `bmm`
#
# A contraction is the work of the C++ function `sumproduct_pair`. It sorts the letters
# of two operands into four groups:
#
# | group | where the letter is | axis of `bmm` |
# |---|---|---|
# | `batch` | in both operands and needed later | batch |
# | `left` | only in the left one and needed later | rows |
# | `right` | only in the right one and needed later | columns |
# | `summed` | in both and not needed later | common, vanishes |
#
# “Needed later” means: in the output, or in an operand that is still waiting. A letter
# that is in one operand only and is not needed later is summed before the
# multiplication.


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
        summed="".join(sorted(c for c in both if c not in later)),
    )


q = torch.randn(2, 5, 3, 7)  # (batch, query, head, dim)
k = torch.randn(2, 6, 3, 7)  # (batch, key, head, dim)
scores = record(torch.einsum, "bqhd,bkhd->bhqk", q, k)
print(groups("bqhd", "bkhd", later="bhqk"))
print(next(call for call in scores if call.name == "bmm"))
assert groups("bqhd", "bkhd", later="bhqk") == Groups("bh", "q", "k", "d")
assert Call("bmm", ((2 * 3, 5, 7), (2 * 3, 7, 6)), (2 * 3, 5, 6)) in scores

# %% [markdown] lang="pl"
# Potem są już tylko `permute` (grupy obok siebie), `reshape` (każda grupa to jedna oś),
# `bmm` i droga powrotna. Osobnego jądra obliczeniowego (*kernel*) dla równania nie ma.
# Zobaczmy, które operacje dotykają danych; samych widoków nie wypisujemy.

# %% [markdown] lang="en"
# After that there is only `permute` (groups next to each other), `reshape` (each group
# becomes one axis), `bmm` and the way back. There is no kernel made for the equation.
# Let's see which operations touch data; mere views are left out.

# %%
VIEWS = {"permute", "view", "_unsafe_view", "unsqueeze", "diagonal"}


def work(equation: str, *operands: Tensor) -> list[str]:
    """Name the operations that read or write elements."""
    made = record(torch.einsum, equation, *operands)
    return [call.name for call in made if call.name not in VIEWS]


square, row = torch.randn(4, 4), torch.randn(4)
q_heads = q.transpose(1, 2).contiguous()  # (batch, head, query, dim)
k_heads = k.transpose(1, 2).contiguous()
done = {
    "ii->i": work("ii->i", square),
    "ij->ji": work("ij->ji", square),
    "ij->i": work("ij->i", square),
    "i,j->ij": work("i,j->ij", row, row),
    "bi,bi->b": work("bi,bi->b", square, square),
    "bhqd,bhkd->bhqk": work("bhqd,bhkd->bhqk", q_heads, k_heads),
    "bqhd,bkhd->bhqk": work("bqhd,bkhd->bhqk", q, k),
}
for equation, names in done.items():
    print(f"{equation:16} {names}")
assert done["ii->i"] == done["ij->ji"] == []  # a view: nothing was copied
assert (done["ij->i"], done["i,j->ij"]) == (["sum"], ["mul"])
assert done["bi,bi->b"] == done["bhqd,bhkd->bhqk"] == ["bmm"]
assert done["bqhd,bkhd->bhqk"] == ["clone", "clone", "bmm"]
close(torch.einsum("bhqd,bhkd->bhqk", q_heads, k_heads), q_heads @ k_heads.mT)
close(torch.einsum("bqhd,bkhd->bhqk", q, k), q_heads @ k_heads.mT)

torch.einsum("ii->i", square).zero_()  # writes through the view
assert square.diagonal().eq(0).all() and square.count_nonzero() == 12

# %% [markdown] lang="pl"
# Pusta lista to same widoki: zapis do wyniku `ii->i` trafił w przekątną macierzy. Bez
# liter sumowanych wystarcza `mul`. Ostatnie dwa wiersze to te same wyniki uwagi
# (*attention scores*) dla dwóch układów w pamięci, a drugi układ kosztuje dwie kopie
# (`clone`). Skąd kopia? Złóżmy dwie głowy i pomnóżmy przez macierz wyjściową:
# `htk,hke->te`.

# %% [markdown] lang="en"
# An empty list means views only: the write to the result of `ii->i` landed on the
# diagonal of the matrix. With no summed letter, `mul` is enough. The last two rows are
# the same attention scores for two memory layouts, and the second layout costs two
# copies (`clone`). Why a copy? Let's merge two heads and multiply by the output matrix:
# `htk,hke->te`.

# %%
heads = torch.arange(1.0, 9.0).reshape(2, 2, 2)  # (head, token, k)
mixing = torch.randn(2, 2, 3)  # (head, k, output)
letters = groups("htk", "hke", later="te")
permuted = heads.permute(1, 0, 2)  # left, then summed: (token, head, k)
matrix = permuted.reshape(1, 2, 4)  # (batch, rows, common)
merged = work("htk,hke->te", heads, mixing)
tokens_first = work("thk,hke->te", permuted.contiguous(), mixing)
renamed = work("thd,hde->te", permuted.contiguous(), mixing)
print(letters, f"{merged=} {tokens_first=} {renamed=}", sep="\n")
assert letters == Groups("", "t", "e", "hk")
assert merged == ["clone", "bmm"]
assert tokens_first == ["bmm"]
assert renamed == ["clone", "clone", "bmm"]  # d stands before h in the alphabet
assert permuted.data_ptr() == heads.data_ptr() != matrix.data_ptr()

# %% fold=true
show_memory(
    {"heads": heads, "permuted": permuted, "matrix": matrix},
    alt_pl="Trzy tensory jako siatki, a obok ich magazyny jako paski. Tensory heads i "
    "permuted mają ten sam pasek, od 1 do 8. Pasek tensora matrix ma inną kolejność: 1, "
    "2, 5, 6, 3, 4, 7, 8.",
    alt_en="Three tensors as grids, next to their storages as strips. The tensors heads "
    "and permuted have the same strip, from 1 to 8. The strip of the tensor matrix has "
    "another order: 1, 2, 5, 6, 3, 4, 7, 8.",
)
assert matrix.flatten().tolist() == [1, 2, 5, 6, 3, 4, 7, 8]

# %% [markdown] lang="pl"
# Tensor `permuted` czyta ten sam pasek co `heads`, tylko w innej kolejności. W `matrix`
# litery `h` i `k` mają być jedną osią o jednym kroku, a w wierszu stoją obok siebie 2 i
# 5, między którymi pasek ma jeszcze 3 i 4. Dlatego `reshape` kopiuje. Kiedy nie musi,
# mówi [reguła ciągów](01_storage_vs_view.py). Z tokenem jako pierwszą osią kopii nie
# ma. Litery sumowane ustawiają się jednak alfabetycznie, więc po zmianie `k` na `d` to
# samo mnożenie kopiuje oba operandy.
#
# ## Einsum od nowa w Pythonie
#
# Cały mechanizm mieści się w trzech funkcjach. Funkcja `sum_out` bierze przekątne i
# sumuje litery, których nikt już nie potrzebuje, `contract` wykonuje jedną kontrakcję,
# a `rebuilt` idzie od lewej do prawej.

# %% [markdown] lang="en"
# The tensor `permuted` reads the same strip as `heads`, only in another order. In
# `matrix` the letters `h` and `k` are to be one axis with one stride, but a row holds 2
# next to 5, and between them the strip also has 3 and 4. Hence `reshape` copies. [The
# rule of runs](01_storage_vs_view.py) says when it does not have to. With the token as
# the first axis there is no copy. Summed letters, however, are put in alphabetical
# order, so once `k` is renamed to `d`, the same multiplication copies both operands.
#
# ## Einsum rebuilt in Python
#
# The whole mechanism fits into three functions. The function `sum_out` takes diagonals
# and sums letters that nobody needs any more, `contract` makes one contraction, and
# `rebuilt` goes from left to right.


# %%
Term = tuple[str, Tensor]  # an operand with its letters


def sum_out(letters: str, x: Tensor, later: str) -> Term:
    """Take diagonals of repeated letters and sum letters that are not needed."""
    for letter in sorted(set(letters)):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            x = x.diagonal(0, first, second)  # the common axis goes to the end
            letters = (
                letters[:first]
                + letters[first + 1 : second]
                + letters[second + 1 :]
                + letter
            )
    gone = [i for i, letter in enumerate(letters) if letter not in later]
    kept = "".join(letter for letter in letters if letter in later)
    return kept, x.sum(gone) if gone else x


def contract(left: Term, right: Term, later: str) -> Term:
    """Reduce two operands to one: permute, reshape, bmm, reshape."""
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
    """Do what `torch.einsum` does, for equations with an arrow and no ellipsis."""
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
# Dwa równania to za mało. Wylosujmy pięćset równań o jednym do czterech operandów,
# także z literą powtórzoną w jednym operandzie, i porównajmy z PyTorchem trzy rzeczy:
# wartości, kształty każdego wywołania `bmm` i liczbę mnożeń. Kształty porównujemy z
# dokładnością do zamiany stron, bo PyTorch zamienia czasem lewy operand z prawym.

# %% [markdown] lang="en"
# Two equations are not enough. Let's draw five hundred equations with one to four
# operands, also with a letter repeated within an operand, and compare three things with
# PyTorch: the values, the shapes of every call of `bmm`, and the number of
# multiplications. Shapes are compared up to a swap of sides, since PyTorch sometimes
# swaps the left operand with the right one.


# %% fold=true
def random_case(
    rng: random.Random, most: int = 4, *, repeats: bool = True
) -> tuple[str, list[Tensor]]:
    """Draw an equation and operands; `repeats` allows a diagonal such as `aab`."""
    size = {letter: rng.randint(2, 5) for letter in "abcde"}
    draw = rng.choices if repeats else rng.sample
    terms = [
        "".join(draw("abcde", k=rng.randint(1, 3))) for _ in range(rng.randint(1, most))
    ]
    known = sorted(set("".join(terms)))
    output = "".join(rng.sample(known, rng.randint(0, min(3, len(known)))))
    shapes = [[size[letter] for letter in term] for term in terms]
    operands = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    return f"{','.join(terms)}->{output}", operands


def products_of(made: Sequence[Call]) -> list[tuple[int, ...]]:
    """List (batch, common, shorter, longer) of each bmm: which side is which is lost."""
    shapes = [
        call.inputs[0] + call.inputs[1][2:] for call in made if call.name == "bmm"
    ]
    return [(batch, common, *sorted((m, n))) for batch, m, common, n in shapes]


@dataclass(frozen=True)
class Comparison:
    agrees: bool
    uses_bmm: bool
    swapped: bool


def compare(equation: str, operands: Sequence[Tensor]) -> Comparison:
    """Run our einsum and torch's, and compare values, shapes and multiplications."""
    ours = record(rebuilt, equation, *operands)
    theirs = record(torch.einsum, equation, *operands)
    price, true_price = (
        sum(c.multiplications for c in made) for made in (ours, theirs)
    )
    same = torch.allclose(
        rebuilt(equation, *operands), torch.einsum(equation, *operands)
    )
    our_bmm, their_bmm = (
        [c for c in made if c.name == "bmm"] for made in (ours, theirs)
    )
    return Comparison(
        agrees=same
        and products_of(ours) == products_of(theirs)
        and price == true_price,
        uses_bmm=bool(their_bmm),
        swapped=our_bmm != their_bmm,
    )


# %%
tried = 500
rng = random.Random(0)
cases = [random_case(rng) for _ in range(tried)]
compared = [compare(equation, operands) for equation, operands in cases]
agreed = sum(comparison.agrees for comparison in compared)
with_bmm = sum(comparison.uses_bmm for comparison in compared)
swapped = sum(comparison.swapped for comparison in compared)
print(f"{agreed=} of {tried}, {with_bmm=}, {swapped=}")
assert agreed == tried
assert with_bmm > 150
assert 0 < swapped < with_bmm / 2

# %% [markdown] lang="pl"
# Zgodność: {{ agreed }} na {{ tried }}; `bmm` wywołało {{ with_bmm }} równań, a strony
# były zamienione w {{ swapped }}. To odpowiedź na pierwszą połowę pytania: **`einsum`
# to `permute`, `reshape` i `bmm`, po dwa operandy, od lewej do prawej**.
#
# ## Ile kosztuje kolejność
#
# Model kosztu: kontrakcja wykonuje tyle mnożeń, ile wynosi iloczyn rozmiarów liter ze
# wszystkich czterech grup. Funkcja `left_to_right` dodaje te koszty w kolejności
# PyTorcha. Funkcja `cheapest` sprawdza wszystkie pary, a jej wynik podajemy PyTorchowi
# wprost. Służy do tego parametr `path` prywatnej funkcji `torch._VF.einsum`: to
# rentgen, nie narzędzie na co dzień.

# %% [markdown] lang="en"
# Agreement: {{ agreed }} out of {{ tried }}; {{ with_bmm }} of the equations called
# `bmm`, and in {{ swapped }} the sides were swapped. That answers the first half of the
# question: **`einsum` is `permute`, `reshape` and `bmm`, two operands at a time, from
# left to right**.
#
# ## What an order costs
#
# The cost model: a contraction performs as many multiplications as the product of the
# sizes of the letters in all four groups. The function `left_to_right` adds these costs
# up in PyTorch's order. The function `cheapest` tries all pairs, and we pass its result
# straight to PyTorch. That is what the parameter `path` of the private function
# `torch._VF.einsum` is for: an X-ray, not a tool for every day.


# %%
Path = list[tuple[int, int]]  # pairs to contract; each result joins the end of the list


def step(left: str, right: str, later: str, size: Mapping[str, int]) -> tuple[int, str]:
    """Price one contraction in multiplications, and name the letters of its result."""
    g = groups("".join(dict.fromkeys(left)), "".join(dict.fromkeys(right)), later)
    result = g.batch + g.left + g.right
    return math.prod(size[letter] for letter in result + g.summed), result


def left_to_right(terms: Sequence[str], output: str, size: Mapping[str, int]) -> int:
    total, first = 0, terms[0]
    for i, term in enumerate(terms[1:], start=2):
        cost, first = step(first, term, output + "".join(terms[i:]), size)
        total += cost
    return total


def cheapest(
    terms: Sequence[str], output: str, size: Mapping[str, int]
) -> tuple[int, Path]:
    """Try all pairs, and all continuations of each."""
    if len(terms) < 2:
        return 0, []
    found: list[tuple[int, Path]] = []
    for i, j in itertools.combinations(range(len(terms)), 2):
        rest = [term for n, term in enumerate(terms) if n not in (i, j)]
        cost, result = step(terms[i], terms[j], output + "".join(rest), size)
        more, path = cheapest([*rest, result], output, size)
        found.append((cost + more, [(i, j), *path]))
    return min(found)


def sizes(terms: Sequence[str], operands: Sequence[Tensor]) -> dict[str, int]:
    pairs = zip(terms, operands, strict=True)
    return {c: n for term, x in pairs for c, n in zip(term, x.shape, strict=True)}


inner: Any = torch._VF  # the module with the function that `torch.einsum` calls


def along(path: Path, equation: str, operands: Sequence[Tensor]) -> Tensor:
    flat = list(itertools.chain.from_iterable(path)) or None
    result: Tensor = inner.einsum(equation, operands, path=flat)
    return result


savings: list[float] = []
for equation, operands in cases:
    inputs_part, output = equation.split("->")
    terms = inputs_part.split(",")
    size = sizes(terms, operands)
    expected = left_to_right(terms, output, size)
    least, path = cheapest(terms, output, size)
    assert expected == multiplications(torch.einsum, equation, *operands)
    assert least == multiplications(along, path, equation, operands)
    close(along(path, equation, operands), torch.einsum(equation, *operands))
    if len(terms) > 2:
        savings.append(expected / least)
costlier_share = 100 * sum(ratio > 1 for ratio in savings) / len(savings)
print(f"{len(savings)=} {costlier_share=:.0f} {max(savings)=:.0f}")
assert min(savings) == 1
assert 20 < costlier_share < 80

# %% [markdown] lang="pl"
# Model zgadza się co do mnożenia, dla kolejności od lewej i dla najtańszej. W naszej
# losowej próbie równań o co najmniej trzech operandach zapis od lewej kosztował więcej,
# niż trzeba, w {{ costlier_share:.0f }}% przypadków.
#
# A bajty? W kolejności ze wzoru adapter tworzy po drodze macierz 1024 × 1024 liczb
# `float32`, w odwrotnej 16 × 8. Do tego dochodzi wynik, 16 × 1024. W treningu wynik
# pośredni zostaje zapamiętany aż do przejścia wstecz (*backward pass*).

# %% [markdown] lang="en"
# The model is right to a single multiplication, for the order from the left and for the
# cheapest one. In our random sample of equations with at least three operands, going
# from the left cost more than necessary in {{ costlier_share:.0f }}% of cases.
#
# And bytes? In the formula's order the adapter makes a matrix of 1024 × 1024 `float32`
# numbers on the way, in the reverse order one of 16 × 8. The output, 16 × 1024, comes
# on top. In training the intermediate result stays saved until the backward pass.


# %%
def peak(job: Callable[..., Tensor], *args: Any) -> int:
    """Count the most bytes that new tensors of a job take up at a time."""
    meter = MemoryMeter()
    with meter:
        job(*args)
    return meter.peak


def saved(job: Callable[..., Tensor], *args: Any) -> int:
    """Count the bytes that a job leaves for the backward pass, inputs included."""
    with saved_bytes() as kept:
        job(*args)
    return kept.total


def reversed_adapter(up: Tensor, down: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ti,ri,or->to", x, down, up)


peak_left = peak(adapter, up, down, x)
peak_right = peak(reversed_adapter, up, down, x)
trained = [y.clone().requires_grad_() for y in (up, down, x)]  # inside a network
inputs = sum(y.nbytes for y in trained)
saved_left = saved(adapter, *trained) - inputs
saved_right = saved(reversed_adapter, *trained) - inputs
print(f"{peak_left=:,} {peak_right=:,} {saved_left=:,} {saved_right=:,}")
assert peak_left == 4 * (1024 * 1024 + 16 * 1024)
assert peak_right == 4 * (16 * 8 + 16 * 1024)
assert (saved_left, saved_right) == (4 * 1024 * 1024, 4 * 16 * 8)

u, v = torch.randn(2, 2000, 1000)  # `bi,bi->b`: bmm makes no tensor of products
peak_einsum = peak(torch.einsum, "bi,bi->b", u, v)
peak_mul = peak(lambda: (u * v).sum(1))
print(f"{peak_einsum=:,} {peak_mul=:,}")
assert (peak_einsum, peak_mul) == (4 * 2000, 4 * (2000 * 1000 + 2000))

# %% [markdown] lang="pl"
# Szczyt to {{ peak_left }} B wobec {{ peak_right }} B, a do przejścia wstecz zostaje
# {{ saved_left }} B wobec {{ saved_right }} B, w każdej warstwie z adapterem. Z kolei
# `bmm` potrafi oszczędzać: `bi,bi->b` tworzy {{ peak_einsum }} B, a `(u * v).sum(1)`
# {{ peak_mul }} B, bo zapisuje wszystkie iloczyny.
#
# Na koniec czas. Dla $t$ tokenów, rzędu $r$ i szerokości $d$ stosunek liczby mnożeń to
#
# $$\frac{d^2 (r + t)}{2 \, d \, r \, t}.$$

# %% [markdown] lang="en"
# The peak is {{ peak_left }} B against {{ peak_right }} B, and {{ saved_left }} B
# against {{ saved_right }} B stay for the backward pass, in every layer with an
# adapter. On the other hand, `bmm` can save memory: `bi,bi->b` makes {{ peak_einsum }}
# B, whereas `(u * v).sum(1)` makes {{ peak_mul }} B, because it writes down all the
# products.
#
# Finally time. For $t$ tokens, rank $r$ and width $d$ the ratio of the numbers of
# multiplications is
#
# $$\frac{d^2 (r + t)}{2 \, d \, r \, t}.$$


# %% measured=true
def fastest(jobs: Sequence[Callable[[], object]], rounds: int = 12) -> list[float]:
    """Take the fastest of interleaved runs, in seconds: noise only ever adds."""
    best = [math.inf] * len(jobs)
    for _ in range(rounds):
        for i, job in enumerate(jobs):
            start = time.perf_counter()
            job()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


token_counts = (1, 4, 16, 64, 256)
counted: list[float] = []
timed: list[float] = []
for tokens in token_counts:
    y = torch.randn(tokens, 1024)
    orders = [functools.partial(f, up, down, y) for f in (adapter, reversed_adapter)]
    counts = [multiplications(order) for order in orders]
    seconds = fastest(orders)
    counted.append(counts[0] / counts[1])
    timed.append(seconds[0] / seconds[1])
time_ratio = timed[token_counts.index(16)]
print([round(ratio, 1) for ratio in counted], [round(ratio, 1) for ratio in timed])
assert counted == [1024 * (8 + t) / (2 * 8 * t) for t in token_counts]
assert min(timed) > 3

# %% fold=true measured=true
fig, axis = plt.subplots(figsize=(7.2, 2.8))
axis.plot(token_counts, counted, color=ORANGE, ls="--", label="multiplications")
axis.plot(token_counts, timed, color=BLUE, marker="o", label="measured: time")
axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel="ratio, ×", ylim=(1, 1000))
axis.set_xticks(token_counts, [str(tokens) for tokens in token_counts])
axis.set_yticks((1, 10, 100, 1000), ["1", "10", "100", "1000"])
axis.minorticks_off()
axis.legend()
show_figure(
    fig,
    alt_pl="Wykres w skali logarytmicznej: ile razy droższa jest kolejność ze "
    "wzoru. "
    "Stosunek liczby mnożeń maleje z liczbą tokenów od 576 do 66. Zmierzony stosunek "
    "czasów leży wyraźnie niżej, ale powyżej 3.",
    alt_en="Log-log chart: how many times more the formula's order costs. The ratio "
    "of multiplications falls with the number of tokens from 576 to 66. The measured "
    "ratio of times lies clearly lower, but above 3.",
    pl={
        "multiplications": "mnożenia",
        "measured: time": "pomiar: czas",
        "tokens": "tokeny",
        "ratio, ×": "stosunek, ×",
    },
)
assert counted[0] == 576 and counted[-1] == 66

# %% [markdown] lang="pl"
# Linia czasu leży wyraźnie niżej niż linia mnożeń: dla 16 tokenów kolejność ze wzoru
# trwała {{ time_ratio:.0f }} razy dłużej, choć mnożeń ma {{ saving:.0f }} razy więcej.
# Model liczy same mnożenia, a czas to także odczyt pamięci i narzut wywołań; tych
# przyczyn tu nie rozdzielamy. Asercja wymaga tylko ponad 3 razy.
#
# ## Co się psuje i jak to zauważyć
#
# Zacznijmy od równania, w którym brakuje strzałki.

# %% [markdown] lang="en"
# The line of times lies clearly below that of multiplications: for 16 tokens the
# formula's order took {{ time_ratio:.0f }} times as long, although it has
# {{ saving:.0f }} times as many multiplications. The model counts multiplications
# alone, while time is also reading memory and the overhead of calls; we do not separate
# these causes here. The assertion requires only more than 3 times.
#
# ## What breaks and how to notice
#
# Let's start with an equation that has no arrow.

# %% [markdown] lang="pl" predict="no-arrow"
# Czym jest `out`?
#
# ```python
# hidden = torch.randn(64, 32)  # (token, dim)
# table = torch.randn(32, 64)  # (dim, entry)
# out = torch.einsum("td,de", hidden, table)
# ```
#
# - [ ] `hidden @ table`: litery `t` i `e` w tej kolejności, w jakiej stoją w równaniu
#
#   Kolejność w równaniu nie ma znaczenia. Bez strzałki osie wyniku ustawia alfabet.
#
# - [x] `(hidden @ table).T`
#
#   Bez strzałki wynik ma litery, które wystąpiły raz, w porządku alfabetycznym: `e`
#   przed `t`. Oba rozmiary to 64, więc kształt niczego nie zdradza.
#
# - [ ] Niczym: bez strzałki wywołanie zgłosi wyjątek
#
#   Strzałka jest nieobowiązkowa: zastępuje ją reguła z poprzedniej odpowiedzi.

# %% [markdown] lang="en" predict="no-arrow"
# What is `out`?
#
# ```python
# hidden = torch.randn(64, 32)  # (token, dim)
# table = torch.randn(32, 64)  # (dim, entry)
# out = torch.einsum("td,de", hidden, table)
# ```
#
# - [ ] `hidden @ table`: the letters `t` and `e` in the order they have in the equation
#
#   The order in the equation does not matter. Without an arrow, the alphabet orders the
#   axes of the output.
#
# - [x] `(hidden @ table).T`
#
#   Without an arrow the output has the letters that occurred once, in alphabetical
#   order: `e` before `t`. Both sizes are 64, so the shape gives nothing away.
#
# - [ ] Nothing: without an arrow the call raises
#
#   The arrow is optional: the rule from the previous answer replaces it.

# %%
hidden = torch.randn(64, 32)  # (token, dim)
table = torch.randn(32, 64)  # (dim, entry)
out = torch.einsum("td,de", hidden, table)
other = torch.einsum("td,dv", hidden, table)  # e renamed to v, and nothing else
print(
    tuple(out.shape), f"{torch.allclose(out, other)=} {torch.allclose(out, other.T)=}"
)
close(out, (hidden @ table).T)
close(other, hidden @ table)
assert out.shape == other.shape and not torch.allclose(out, other)

# %% [markdown] lang="pl"
# Zmiana nazwy litery z `e` na `v` transponowała wynik. Równanie milczy też o osiach o
# rozmiarze 1: jak przy [rozgłaszaniu](02_broadcasting_magic.py) pasują one do każdego
# rozmiaru. Mnożenie macierzy zgłasza w tym miejscu wyjątek, a `einsum` dopiero wtedy,
# gdy oba rozmiary są różne od 1.

# %% [markdown] lang="en"
# Renaming a letter from `e` to `v` transposed the result. An equation is silent about
# axes of size 1 too: as in [broadcasting](02_broadcasting_magic.py), they fit any size.
# Matrix multiplication raises an exception here, `einsum` only when both sizes differ
# from 1.

# %%
column, block = torch.ones(2, 1), torch.ones(3, 4)
stretched = torch.einsum("ij,jk->ik", column, block)
close(stretched, column.expand(2, 3) @ block)  # the axis of size 1 counted three times
assert stretched.eq(3).all()

# %% raises="RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x1 and 3x4)"
column @ block

# %% raises="RuntimeError: einsum(): subscript j has size 3 for operand 1 which does not broadcast with previously seen size 2"
torch.einsum("ij,jk->ik", torch.ones(2, 2), block)

# %% [markdown] lang="pl"
# A kolejność mnożenia? Funkcja `torch.einsum` pyta o nią pakiet `opt_einsum`, jeśli
# jest zainstalowany. To dodatek, którego samo `pip install torch` nie dodaje. Ten sam
# wiersz kodu bywa więc szybki na jednej maszynie, a wolny na drugiej. Dlatego na
# początku lekcji pakiet wyłączyliśmy. Nie licz na niego: kolejność zapisz w kodzie, po
# dwa operandy naraz.

# %% [markdown] lang="en"
# And the order of multiplication? The function `torch.einsum` asks the package
# `opt_einsum` for it, if that is installed. It is an extra, which a plain
# `pip install torch` does not add. So the same line of code may be fast on one machine
# and slow on another. That is why we switched the package off at the start. Do not rely
# on it: write the order in the code, two operands at a time.

# %%
print(f"{torch.backends.opt_einsum.is_available()=}")
extras = [line for line in requires("torch") or [] if line.startswith("opt-einsum")]
assert extras and all("extra ==" in line for line in extras)
assert "opt_einsum.is_available()" in inspect.getsource(torch.functional.einsum)


def cheap_adapter(up: Tensor, down: Tensor, x: Tensor) -> Tensor:
    narrow = torch.einsum("ti,ri->tr", x, down)
    return torch.einsum("tr,or->to", narrow, up)


written_order = ("or,ri,ti->to", [up, down, x])
planned = multiplications(along, [(1, 2), (0, 1)], *written_order)
assert multiplications(cheap_adapter, up, down, x) == planned == works[1]
close(cheap_adapter(up, down, x), adapter(up, down, x))

# %% [markdown] lang="pl"
# To druga połowa odpowiedzi: **gdy milczysz, o mnożeniu rozstrzyga kolejność operandów,
# o osiach wyniku alfabet, a o osiach o rozmiarze 1 rozgłaszanie**.
#
# Funkcja do wklejenia: `strict_einsum` przyjmuje tylko równanie, w którym nic nie
# zostało niedopowiedziane. Wymaga strzałki, jednego rozmiaru na literę i kolejności,
# która kosztuje najwyżej dwa razy tyle mnożeń co najtańsza. Widzi jedno wywołanie
# naraz, więc złej kolejności rozpisanej na dwa wywołania nie wykryje. Wklej ją razem z
# `Groups`, `groups`, `step`, `left_to_right` i `cheapest`. Poprawne równanie sprawdza
# tylko raz.

# %% [markdown] lang="en"
# That is the second half of the answer: **where you stay silent, the order of the
# operands decides about multiplication, the alphabet about the axes of the output, and
# broadcasting about axes of size 1**.
#
# A function to paste: `strict_einsum` accepts only an equation that leaves nothing
# unsaid. It requires an arrow, one size for each letter, and an order that costs at
# most twice as many multiplications as the cheapest one. It sees one call at a time, so
# a bad order spelled out in two calls escapes it. Paste it together with `Groups`,
# `groups`, `step`, `left_to_right` and `cheapest`. An equation that passes is checked
# only once.


# %%
@functools.cache
def check_equation(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Raise if an equation leaves something to `torch.einsum`."""
    if "." in equation:
        raise ValueError(f"{equation!r}: name every axis instead of writing '...'")
    if "->" not in equation:
        raise ValueError(f"{equation!r}: write the axes of the output after '->'")
    inputs, output = equation.replace(" ", "").split("->")
    terms = inputs.split(",")
    if [len(term) for term in terms] != [len(shape) for shape in shapes]:
        raise ValueError(f"{equation!r}: there must be one letter for each axis")
    if len(terms) > 7:
        raise ValueError(f"{equation!r}: more than 7 operands, split the equation")
    size: dict[str, int] = {}
    for letter, n in zip("".join(terms), itertools.chain(*shapes), strict=True):
        if size.setdefault(letter, n) != n:
            problem = f"letter {letter!r} has sizes {size[letter]} and {n}"
            raise ValueError(f"{equation!r}: {problem}")
    total = left_to_right(terms, output, size)
    least, path = cheapest(terms, output, size)
    if total > 2 * least:
        problem = f"{total:,} multiplications; contracting {path} takes {least:,}"
        raise ValueError(f"{equation!r}: {problem}")


def strict_einsum(equation: str, *operands: Tensor) -> Tensor:
    """Run `torch.einsum` on an equation that leaves nothing unsaid."""
    check_equation(equation, tuple(tuple(x.shape) for x in operands))
    return torch.einsum(equation, *operands)


# %% raises="ValueError: 'or,ri,ti->to': 25,165,824 multiplications; contracting [(1, 2), (0, 1)] takes 262,144"
strict_einsum("or,ri,ti->to", up, down, x)


# %%
def refusal(equation: str, *operands: Tensor) -> str:
    """Return the complaint of `strict_einsum`, or nothing."""
    try:
        strict_einsum(equation, *operands)
    except ValueError as error:
        return str(error).removeprefix(f"{equation!r}: ")
    return ""


assert refusal("or, ri, ti -> to", up, down, x).startswith("25,165,824")
assert refusal("td,de", hidden, table) == "write the axes of the output after '->'"
assert refusal("...d,de->...e", hidden, table).startswith("name every axis")
assert refusal("ij,jk->ik", column, block) == "letter 'j' has sizes 1 and 3"
assert refusal("ij,jk->ik", block, block) == "letter 'j' has sizes 4 and 3"
assert refusal("ti,ri,or->to", x, down, up) == refusal("ij->ji", block) == ""

assert refusal("or,ri->oi", up, down) == ""  # half of the bad order, on its own
hits = check_equation.cache_info().hits
strict_einsum("ti,ri,or->to", x, down, up)
assert check_equation.cache_info().hits == hits + 1

refused = [equation for equation, operands in cases if refusal(equation, *operands)]
twice = sum(ratio > 2 for ratio in savings)
print(f"{len(refused)=} of {tried}")
assert len(refused) == twice > 0
for equation, operands in cases:
    if equation not in refused:
        close(strict_einsum(equation, *operands), torch.einsum(equation, *operands))

# %% [markdown] lang="pl"
# > [!NOTE]
# > Obliczenia w tej lekcji wykonuje procesor. Na GPU (tu niezmierzone) podział liter i
# > kolejność są te same, a `bmm` trafia do cuBLAS. Wpływają więc na nie ustawienia TF32,
# > które nie zmieniają `(u * v).sum(1)`.
#
# Gdzie to leży w źródłach PyTorcha:
#
# - `einsum` i `sumproduct_pair`:
#   [`aten/src/ATen/native/Linear.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/Linear.cpp)
# - pytanie o kolejność, funkcja `einsum`:
#   [`torch/functional.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
# - `is_available`:
#   [`torch/backends/opt_einsum/__init__.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/backends/opt_einsum/__init__.py)
#
# ## Co już umiesz
#
# - Dzielisz litery równania na cztery grupy i odczytujesz z nich kształty dla `bmm`.
# - Liczysz mnożenia każdej kolejności, zanim cokolwiek uruchomisz.
# - Przewidujesz, kiedy `einsum` zwróci widok, a kiedy skopiuje operand.
# - Piszesz równania, które niczego nie zostawiają alfabetowi ani rozgłaszaniu.
#
# Poprzednia lekcja: [02, rozgłaszanie](02_broadcasting_magic.py). Następna: [04,
# indeksowanie zaawansowane](04_advanced_indexing.py). Osie nazwane słowami zamiast
# liter są w lekcji [06](06_einops.py). W dokumentacji:
# [torch.einsum](https://docs.pytorch.org/docs/stable/generated/torch.einsum.html),
# [torch.backends.opt_einsum](https://docs.pytorch.org/docs/stable/backends.html#torch-backends-opt-einsum).

# %% [markdown] lang="en"
# > [!NOTE]
# > Everything in this lesson runs on the CPU. On a GPU (not measured here) the groups of
# > letters and the order are the same, and `bmm` goes to cuBLAS. So it is subject to the
# > TF32 settings, which do not change `(u * v).sum(1)`.
#
# Where this lives in PyTorch's source:
#
# - `einsum` and `sumproduct_pair`:
#   [`aten/src/ATen/native/Linear.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/Linear.cpp)
# - the question about the order, the function `einsum`:
#   [`torch/functional.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/functional.py)
# - `is_available`:
#   [`torch/backends/opt_einsum/__init__.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/backends/opt_einsum/__init__.py)
#
# ## Now you can
#
# - Sort the letters of an equation into four groups, and read off the shapes for `bmm`.
# - Count the multiplications of any order before you run anything.
# - Predict when `einsum` returns a view and when it copies an operand.
# - Write equations that leave nothing to the alphabet or to broadcasting.
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
    assert "->" in given, say(
        pl=f"{name}: brakuje strzałki, więc osie wyniku ustawiłby alfabet",
        en=f"{name}: there is no arrow, so the alphabet would order the output's axes",
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
# `cheapest`. Wolno wywołać `torch.einsum` dla jednego albo dwóch operandów naraz. Pary
# w kolejności to pozycje na liście operandów: oba znikają, a wynik dochodzi na końcu.
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
inner_einsum = inner.einsum


def at_most_two(equation: str, operands: Sequence[Tensor], **options: Any) -> Any:
    assert len(operands) <= 2, say(
        pl=f"{equation}: więcej niż dwa operandy naraz, więc kolejność wybiera PyTorch",
        en=f"{equation}: more than two operands at a time, so PyTorch picks the order",
    )
    return inner_einsum(equation, operands, **options)


rng = random.Random(1)
examples = [random_case(rng, most=5, repeats=False) for _ in range(150)]
examples.append(("or,ri,ti->to", [up.double(), down.double(), x.double()]))
for equation, drawn in examples:
    inputs_part, output = equation.split("->")
    terms = inputs_part.split(",")
    fewest = cheapest(terms, output, sizes(terms, drawn))[0]
    with Recorder() as recorder, mock.patch.object(inner, "einsum", at_most_two):
        got = run_cheapest(equation, *drawn)
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
# czekają. Podaje je też `step`.

# %% [markdown] lang="en" exercise="run-cheapest" role="hint"
# The letters that stay are those in the output of the whole equation or in operands
# that are still waiting. The function `step` returns them too.


# %% exercise="run-cheapest" role="wrong" says="more than two operands at a time"
def run_cheapest(equation: str, *operands: Tensor) -> Tensor:
    # Finds the order and does not use it.
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    cheapest(terms, output, sizes(terms, operands))
    return torch.einsum(equation, *operands)


# %% exercise="run-cheapest" role="wrong" says="do you sum a letter that is needed later"
def run_cheapest(equation: str, *operands: Tensor) -> Tensor:
    inputs, output = equation.split("->")
    terms, tensors = inputs.split(","), list(operands)
    for i, j in cheapest(terms, output, sizes(terms, tensors))[1]:
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
    for i, j in cheapest(terms, output, sizes(terms, tensors))[1]:
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
    for i, j in cheapest(terms, output, sizes(terms, tensors))[1]:
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
# operandu, bez autogradu. Gradient jednego operandu to `einsum` wszystkich pozostałych
# i gradientu wyniku, z literami tego operandu po strzałce. Operandów jest od jednego do
# czterech, litery w operandzie się nie powtarzają. Uwaga na literę, która jest tylko w
# jednym operandzie i nie ma jej w wyniku.

# %% [markdown] lang="en" exercise="einsum-backward" role="prompt" belt="black" minutes=30
# ### Black: a gradient is an equation too
#
# Write a function `einsum_backward` that computes the gradient of every operand from
# the gradient of the result, without autograd. The gradient of one operand is an
# `einsum` of all the others and of the gradient of the result, with the letters of this
# operand after the arrow. There are one to four operands, and no letter is repeated
# within an operand. Mind a letter that is in one operand only and not in the output.


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
            en="`einsum` is to compute the gradient, not autograd",
        )
    )


rng = random.Random(2)
examples = [random_case(rng, repeats=False) for _ in range(200)]
examples.insert(
    0, ("ij,jk->ik", [torch.randn(2, 3).double(), torch.randn(3, 4).double()])
)
for equation, drawn in examples:
    leaves = [y.clone().requires_grad_() for y in drawn]
    result = torch.einsum(equation, *leaves)
    grad = torch.randn_like(result)
    true_grads = torch.autograd.grad(result, leaves, grad)
    with (
        mock.patch("torch.autograd.grad", no_autograd),
        mock.patch.object(Tensor, "backward", no_autograd),
        mock.patch("torch.autograd.backward", no_autograd),
        mock.patch("torch.func.vjp", no_autograd),
        torch.no_grad(),
    ):
        try:
            got_grads = einsum_backward(equation, [y.clone() for y in drawn], grad)
        except RuntimeError as error:
            raise AssertionError(f"{equation}: {error}") from None
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
# Dla `ij,jk->ik` gradienty to `ik,jk->ij` i `ij,ik->jk`: litery zamieniają się
# miejscami.

# %% [markdown] lang="en" exercise="einsum-backward" role="hint"
# For `ij,jk->ik` the gradients are `ik,jk->ij` and `ij,ik->jk`: the letters trade
# places.

# %% [markdown] lang="pl" exercise="einsum-backward" role="hint"
# Litery, której nie ma nigdzie indziej, `einsum` nie może zwrócić. Wzdłuż tej osi
# gradient jest stały: policz go bez niej, a potem użyj `unsqueeze` i `expand`.

# %% [markdown] lang="en" exercise="einsum-backward" role="hint"
# A letter that is nowhere else cannot be returned by `einsum`. Along that axis the
# gradient is constant: compute it without the axis, then use `unsqueeze` and `expand`.


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
    # Leaves out the arrow: the alphabet orders the axes of the gradient.
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
