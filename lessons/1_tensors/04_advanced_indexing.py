# %% [markdown] lang="pl"
# # Indeksowanie zaawansowane: gather, scatter i zgubione zapisy
#
# Wyrażenie z indeksem mówi, które komórki tensora przeczytać albo zapisać. Kształt
# wyniku tego nie zdradza. Nauczysz się ustalać te komórki co do jednej i wykrywać
# zapisy, które zginęły.
#
# ## Strata spada, agent prawie niczego się nie uczy
#
# Gra ma 32 stany i 8 akcji, a każda para (stan, akcja) ma stałą nagrodę. Tabela
# wartości ma się nauczyć tych nagród z losowych prób. Potem agent wybiera w każdym
# stanie akcję o największej wartości. Funkcja `train` losuje partię (*batch*) stanów i
# akcji, wywołuje `pick(table[state], action)` i porównuje wynik z otrzymanymi nagrodami.
# Rolę `pick` gra tu `chosen`: ma wyjąć z każdego wiersza wartość wykonanej akcji.

# %% [markdown] lang="en"
# # Advanced indexing: gather, scatter and lost writes
#
# An indexing expression says which cells of a tensor to read or to write. The shape of
# the result does not give them away. You will learn to name those cells exactly, and to
# detect writes that got lost.
#
# ## The loss falls, the agent learns almost nothing
#
# A game has 32 states and 8 actions, and each pair (state, action) has a fixed reward.
# A table of values should learn those rewards from random trials. Afterwards, in every
# state, the agent takes the action with the largest value. The function `train` draws a
# batch of states and actions, calls `pick(table[state], action)` and compares the result
# with the rewards received. Here `chosen` plays the part of `pick`: from each row it
# should pick the value of the action that was taken.

# %% fold=true
import itertools
import linecache
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import getitem
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedFormatter, FixedLocator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GREEN, ORANGE, show_figure
from snippets.index_pictures import Read, flow_figure, reads_figure
from snippets.memory import CallCounter, MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)
reward = torch.rand(32, 8)  # (state, action)


def train(pick: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, list[float]]:
    """Fit a table to rewards of random trials; return the table and the losses."""
    torch.manual_seed(1)
    table = torch.zeros(32, 8, requires_grad=True)
    losses: list[float] = []
    for _ in range(1000):
        state, action = torch.randint(32, (32,)), torch.randint(8, (32,))
        loss = ((pick(table[state], action) - reward[state, action]) ** 2).mean()
        (slope,) = torch.autograd.grad(loss, table)
        with torch.no_grad():
            table -= 2 * slope
        losses.append(loss.item())
    return table.detach(), losses


def income(table: Tensor) -> float:
    """Average the rewards of an agent that trusts the table."""
    best = table.argmax(dim=1)
    return sum(float(reward[s, a]) for s, a in enumerate(best.tolist())) / len(best)


def operators(run: Callable[..., object], *args: object) -> list[str]:
    """List the operators that run(*args) calls."""
    with CallCounter() as counter:
        run(*args)
    return list(counter.names.elements())


def created(run: Callable[..., object], *args: object) -> int:
    """Measure the bytes of the storages that run(*args) creates."""
    with MemoryMeter() as meter:
        run(*args)
    return int(meter.peak)


def message(run: Callable[..., object], *args: object) -> str:
    """Return the message of the exception that run(*args) raises."""
    try:
        run(*args)
    except (IndexError, RuntimeError) as error:
        return str(error)
    return ""


def same_storage(a: Tensor, b: Tensor) -> bool:
    """Tell whether two non-empty tensors use one storage."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


# %%
def chosen(values: Tensor, action: Tensor) -> Tensor:
    """Pick from each row of values (batch, action) the action taken: (batch,)."""
    return values.gather(1, action[None]).squeeze()


table, losses = train(chosen)
loss_start, loss_end = sum(losses[:50]) / 50, sum(losses[-50:]) / 50
earned, best_possible = income(table), income(reward)
at_random = reward.mean().item()
print(f"{loss_start=:.2f} {loss_end=:.2f}")
print(f"{at_random=:.2f} {earned=:.2f} {best_possible=:.2f}")
assert loss_end < loss_start / 2
assert earned - at_random < 0.25 * (best_possible - at_random)

# %% [markdown] lang="pl"
# Strata spadła z {{ loss_start:.2f }} do {{ loss_end:.2f }}, nie było wyjątku ani
# ostrzeżenia. Agent zarabia jednak średnio {{ earned:.2f }}. Wybierając akcje losowo,
# zarabiałby {{ at_random:.2f }}, a wybierając najlepsze – {{ best_possible:.2f }}.
# Pytanie tej lekcji: **które komórki przeczyta albo zapisze wyrażenie z indeksem i co
# się stanie, gdy indeks wskaże jedną komórkę dwa razy?**
#
# ## Przewidź, co przeczyta `gather`
#
# Zmniejszmy przykład do czterech wierszy i sześciu kolumn. Cyfra dziesiątek to numer
# wiersza, a cyfra jedności to numer kolumny.

# %% [markdown] lang="en"
# The loss fell from {{ loss_start:.2f }} to {{ loss_end:.2f }}, with no exception and
# no warning. Yet the agent earns {{ earned:.2f }} on average. Random actions would earn
# {{ at_random:.2f }}, and the best ones {{ best_possible:.2f }}. The question of this
# lesson: **which cells does an indexing expression read or write, and what happens when
# an index names one cell twice?**
#
# ## Predict what `gather` reads
#
# Let's shrink the example to four rows and six columns. The tens digit is the number of
# the row, the units digit the number of the column.

# %% [markdown] lang="pl" predict="gather-row"
# ```python
# q = tensor([[ 0,  1,  2,  3,  4,  5],
#             [10, 11, 12, 13, 14, 15],
#             [20, 21, 22, 23, 24, 25],
#             [30, 31, 32, 33, 34, 35]])
# action = tensor([3, 0, 5, 2])
# ```
#
# Co zwróci `q.gather(1, action[None])`? Indeks `action[None]` ma kształt (1, 4).
#
# - [ ] `[[3, 10, 25, 32]]`
#
#   To po jednej wartości z każdego wiersza. Żeby odczyt trafił do wiersza 2, wpis indeksu
#   musi leżeć w wierszu 2, a ten indeks ma tylko wiersz 0. Te wartości daje
#   `action[:, None]` o kształcie (4, 1).
#
# - [x] `[[3, 0, 5, 2]]`
#
#   Wszystkie cztery wpisy indeksu leżą w wierszu 0, więc wszystkie cztery odczyty
#   trafiają do wiersza 0 macierzy `q`.
#
# - [ ] Cztery wiersze: `[[3, 0, 5, 2], [13, 10, 15, 12], …]`
#
#   Tak byłoby, gdyby indeks został rozgłoszony na wszystkie wiersze. Robi to
#   `take_along_dim`, a `gather` nie rozgłasza nigdy.

# %% [markdown] lang="en" predict="gather-row"
# ```python
# q = tensor([[ 0,  1,  2,  3,  4,  5],
#             [10, 11, 12, 13, 14, 15],
#             [20, 21, 22, 23, 24, 25],
#             [30, 31, 32, 33, 34, 35]])
# action = tensor([3, 0, 5, 2])
# ```
#
# What does `q.gather(1, action[None])` return? The index `action[None]` has shape
# (1, 4).
#
# - [ ] `[[3, 10, 25, 32]]`
#
#   That is one value from each row. For a read to go to row 2, an entry of the index has
#   to stand in row 2, and this index has only row 0. These values come from
#   `action[:, None]`, of shape (4, 1).
#
# - [x] `[[3, 0, 5, 2]]`
#
#   All four entries of the index stand in row 0, so all four reads go to row 0 of the
#   matrix `q`.
#
# - [ ] Four rows: `[[3, 0, 5, 2], [13, 10, 15, 12], …]`
#
#   That would be true if the index were broadcast over all rows. `take_along_dim` does
#   that; `gather` never broadcasts.

# %%
q = 10 * torch.arange(4)[:, None] + torch.arange(6)
action = torch.tensor([3, 0, 5, 2])
print(f"{q.gather(1, action[None]).tolist()=}")
print(f"{q.gather(1, action[:, None]).tolist()=}")
print(f"{tuple(q.take_along_dim(action[None], dim=1).shape)=}")
assert q.gather(1, action[None]).tolist() == [[3, 0, 5, 2]]
assert q.gather(1, action[:, None]).tolist() == [[3], [10], [25], [32]]
assert torch.equal(q.take_along_dim(action[None], dim=1), q[:, action])

repaired = train(lambda values, taken: values.gather(1, taken[:, None]).squeeze(1))[0]
earned_repaired = income(repaired)
print(f"{earned_repaired=:.2f}")
assert earned_repaired == best_possible

# %% fold=true
values = torch.zeros(4, 6, requires_grad=True)
(taught,) = torch.autograd.grad(chosen(values, action).sum(), values)
assert taught.any(dim=1).tolist() == [True, False, False, False]

average = reward.mean(dim=0)  # of an action, over the states
off_average = (table - average).abs().mean().item()
off_reward = (table - reward).abs().mean().item()
variance = ((reward - average) ** 2).mean().item()
print(f"{off_average=:.2f} {off_reward=:.2f} {variance=:.2f}")
assert off_average < off_reward / 3
assert abs(loss_end - variance) < 0.15 * variance
both = (q.gather(1, action[None]), q.gather(1, action[:, None]))
assert both[0].squeeze().shape == both[1].squeeze().shape == (4,)

# %% [markdown] lang="pl"
# Gdy zamienimy `[None]` na `[:, None]`, agent zarabia {{ earned_repaired:.2f }}, czyli
# tyle, ile się da. Wcześniej nagrody całej partii, choć należały do różnych stanów,
# uczyły tylko stan z jej pierwszego wiersza. Wartości w tabeli zbliżyły się więc do
# średniej nagrody swojej akcji ze wszystkich stanów: od niej dzieli je przeciętnie
# {{ off_average:.2f }}, a od prawdziwej nagrody {{ off_reward:.2f }}. Dlatego strata i tak
# spadła: mniej więcej do wariancji nagród jednej akcji, {{ variance:.2f }}. Błąd ukryło
# `squeeze()`: z kształtów (1, 4) i (4, 1) robi ten sam, (4,).
#
# ## Numery komórek zamiast wartości
#
# Jeśli sam indeks nie zależy od wartości tensora, wstaw w ich miejsce numery komórek:
# to samo wyrażenie powie wtedy, skąd czyta.

# %% [markdown] lang="en"
# Once we change `[None]` to `[:, None]`, the agent earns {{ earned_repaired:.2f }}, the
# most there is to earn. Before, the rewards of a whole batch, although they belonged to
# different states, taught only the state in its first row. So the values in the table
# drifted to the average reward of their action over all states: on average they are
# {{ off_average:.2f }} away from it, and {{ off_reward:.2f }} away from the true reward.
# That is why the loss fell all the same: to about the variance of the rewards of one
# action, {{ variance:.2f }}. What hid the bug was `squeeze()`: it makes the shapes (1, 4)
# and (4, 1) the same, (4,).
#
# ## Cell numbers instead of values
#
# If the index itself does not depend on the values of the tensor, put cell numbers in
# their place: the same expression then tells you where it reads.


# %%
def numbered(x: Tensor) -> Tensor:
    """Replace the values of a tensor with the numbers of its cells, row by row."""
    return torch.arange(x.numel()).reshape(x.shape)


cells = numbered(q)
rows_read = (cells.gather(1, action[None]) // 6).flatten().tolist()
rows_meant = (cells.gather(1, action[:, None]) // 6).flatten().tolist()
print(f"{rows_read=} {rows_meant=}")
assert (rows_read, rows_meant) == ([0, 0, 0, 0], [0, 1, 2, 3])

# %% fold=true
reads = [
    Read("q.gather(1, index)", action[None], cells.gather(1, action[None])),
    Read("q.gather(1, index)", action[:, None], cells.gather(1, action[:, None])),
    Read("q[:, index]", action, cells[:, action]),
]
results = (q.gather(1, action[None]), q.gather(1, action[:, None]), q[:, action])
for read, result in zip(reads, results, strict=True):
    assert torch.equal(q.flatten()[read.cells], result)
fig, code = reads_figure("q", q, reads)
show_figure(
    fig,
    alt_pl="Trzy razy macierz q o 4 wierszach i 6 kolumnach, obok indeks z czterema "
    "kolorowymi wpisami i wynik. Indeks (1, 4): kolorowe są tylko cztery komórki górnego "
    "wiersza. Indeks (4, 1): po jednej komórce w każdym wierszu. q[:, index]: cztery całe "
    "kolumny, każda w kolorze swojego wpisu, wynik 4 na 4.",
    alt_en="Three times the matrix q with 4 rows and 6 columns, next to it the index with "
    "four coloured entries and the result. Index (1, 4): only four cells of the top row "
    "are coloured. Index (4, 1): one cell in each row. q[:, index]: four whole columns, "
    "each in the colour of its entry, a result of 4 by 4.",
    same=code,
)
assert [read.cells.numel() for read in reads] == [4, 4, 16]

# %% [markdown] lang="pl"
# Każdy wpis indeksu ma swój kolor; mają go też komórki, które przeczytał, i ich wartości
# w wyniku. U góry wszystkie wpisy leżą w jednym wierszu i czytają z jednego wiersza. W
# środku tworzą kolumnę i każdy czyta ze swojego wiersza. Na dole
# `q[:, index]` czyta te same kolumny w każdym wierszu.
#
# ## Kopia, widok i skąd się bierze numer wiersza
#
# Wynik `gather` ma kształt indeksu. Dla macierzy i wymiaru 1
#
# $$\text{out}[i, j] = x[\,i, \text{index}[i, j]\,].$$
#
# Numeru wiersza $i$ nie ma w indeksie: to wiersz, w którym leży wpis. Funkcja
# `gather_shape_check` wymaga, żeby niepusty indeks miał tyle wymiarów co tensor i w
# żadnym, poza tym, z którego wybieramy, nie był od niego dłuższy. Może być krótszy,
# dlatego indeks z jednym wierszem przeszedł bez protestu.
#
# Nawiasy kwadratowe (dalej: nawiasy) działają inaczej, na dwa sposoby. **Indeksowanie
# podstawowe** (*basic indexing*) to liczby całkowite, wycinki, `None` i `...`. Daje widok
# (*view*): nowy opis tych samych komórek, jak w [lekcji 01](01_storage_vs_view.py).
# **Indeksowanie zaawansowane** (*advanced indexing*) to listy oraz tensory mające co
# najmniej jeden wymiar, w tym maski (tensory typu `bool`). Operator `index` kopiuje wtedy
# wartości do nowego magazynu danych (*storage*). Zapytajmy PyTorcha, które operatory
# uruchamia.

# %% [markdown] lang="en"
# Each entry of the index has its own colour, shared by the cells that it read and by their
# values in the result. At the top all entries stand in one row and read from one row. In
# the middle they form a column, and each reads from its own row. At the bottom
# `q[:, index]` reads the same columns in every row.
#
# ## A copy, a view, and where the row number comes from
#
# The result of `gather` has the shape of the index. For a matrix and dimension 1
#
# $$\text{out}[i, j] = x[\,i, \text{index}[i, j]\,].$$
#
# The row number $i$ is not in the index: it is the row in which the entry stands. The
# function `gather_shape_check` requires a non-empty index to have as many dimensions as
# the tensor, and to be no larger than it in any dimension except the one that we pick
# from. It may be smaller, which is why an index with one row passed in silence.
#
# Square brackets (below: brackets) work differently, in two ways. **Basic indexing**
# uses integers, slices, `None` and `...`. It gives a view: a new description of the same
# cells, as in [lesson 01](01_storage_vs_view.py). **Advanced indexing** uses lists, and
# tensors with at least one dimension, masks (tensors of type `bool`) among them. The
# operator `index` then copies values to a new storage. Let's ask PyTorch which operators
# it runs.

# %%
one, pair = torch.tensor(1), torch.tensor([1, 2])
mask = torch.tensor([False, True, True, False])
brackets: dict[str, Any] = {
    "q[1]": 1,
    "q[1:3]": slice(1, 3),
    "q[None]": None,
    "q[..., 0]": (..., 0),
    "q[one]": one,
    "q[pair]": pair,
    "q[mask]": mask,
}
for name, inside in brackets.items():
    ran = operators(getitem, q, inside)
    print(f"{name:10} view={same_storage(q, q[inside])!s:6} {ran}")
views = [same_storage(q, q[inside]) for inside in brackets.values()]
assert views == [True] * 5 + [False] * 2
assert all("index" in operators(getitem, q, inside) for inside in (pair, mask, [1, 2]))
assert operators(getitem, q, one) == ["_local_scalar_dense", "select"]

written = q.clone()
written[pair][:, 0] = 7  # writes to the copy that written[pair] made
assert torch.equal(written, q)
written[1:3][:, 0] = 7  # writes to the cells of written
assert written[:, 0].tolist() == [0, 7, 7, 30]

# %% [markdown] lang="pl"
# Tensor `one` bez wymiarów działa jak liczba: `_local_scalar_dense` odczytuje jego
# wartość i powstaje widok. Z kopii bierze się pierwszy zgubiony zapis:
# `written[pair][:, 0] = 7` zmienia kopię, która zaraz potem znika. Zapisuj jednym
# nawiasem: `written[pair, 0] = 8`.
#
# Kilka tensorów w jednym nawiasie PyTorch najpierw rozgłasza (*broadcasting*) do
# wspólnego kształtu ([lekcja 02](02_broadcasting_magic.py)), a potem bierze z nich po
# jednym numerze na każdą oś: `q[rows, action]` to pary (wiersz, kolumna). Maskę zamienia
# najpierw na numery pozycji z `True`, więc rozmiar wyniku zależy od danych.

# %% [markdown] lang="en"
# The tensor `one`, with no dimensions, acts as a number: `_local_scalar_dense` reads its
# value, and the result is a view. The copy explains the first lost write:
# `written[pair][:, 0] = 7` changes a copy that disappears at once. Write with a single
# pair of brackets: `written[pair, 0] = 8`.
#
# Several tensors in one pair of brackets are first broadcast to a common shape
# ([lesson 02](02_broadcasting_magic.py)), and then each gives one number for its axis:
# `q[rows, action]` means pairs (row, column). A mask is first turned into the numbers of
# the positions with `True`, so the size of the result depends on the data.

# %%
written[pair, 0] = 8
assert written[:, 0].tolist() == [0, 8, 8, 30]

rows = torch.arange(4)
print(q[rows, action].tolist(), tuple(q[rows[:, None], action].shape))
assert q[rows, action].tolist() == [3, 10, 25, 32]
assert torch.equal(q[rows[:, None], action], q[:, action])  # (4, 1) and (4,): a grid
assert torch.equal(q[mask], q[mask.nonzero().squeeze(1)])
assert [len(q[q[:, 0] > limit]) for limit in (0, 15)] == [3, 2]

# %% [markdown] lang="pl"
# ## Przewidź, co zostanie po zapisie
#
# W grafowej sieci neuronowej (GNN) węzeł sumuje wiadomości od sąsiadów. Trzy
# wiadomości, każda równa 1, idą do węzłów 0, 0 i 1.

# %% [markdown] lang="en"
# ## Predict what a write leaves behind
#
# In a graph neural network (GNN) a node sums up the messages of its neighbours. Three
# messages, each equal to 1, go to nodes 0, 0 and 1.

# %% [markdown] lang="pl" predict="repeated-index"
# ```python
# c = torch.zeros(3)
# index = torch.tensor([0, 0, 1])
# c[index] += 1
# ```
#
# Ile wynosi `c`?
#
# - [ ] `[2, 1, 0]`
#
#   Tak byłoby, gdyby każda wiadomość dodawała się do komórki osobno. Tu oba dodawania
#   dla węzła 0 zaczęły od tego samego odczytanego zera.
#
# - [x] `[1, 1, 0]`
#
#   PyTorch najpierw czyta trzy zera do kopii, potem dodaje w kopii 1, a na końcu zapisuje
#   kopię z powrotem. Do węzła 0 trafiają dwie jedynki i jedna nadpisuje drugą.
#
# - [ ] Zgłosi wyjątek, bo dwa zapisy idą do jednej komórki
#
#   PyTorch nie szuka powtórzeń w indeksie. Zapis przechodzi bez ostrzeżenia.

# %% [markdown] lang="en" predict="repeated-index"
# ```python
# c = torch.zeros(3)
# index = torch.tensor([0, 0, 1])
# c[index] += 1
# ```
#
# What is `c` now?
#
# - [ ] `[2, 1, 0]`
#
#   That would be true if each message were added to the cell on its own. Here
#   both additions for node 0 started from the same zero that had been read.
#
# - [x] `[1, 1, 0]`
#
#   First three zeros are read into a copy, then 1 is added in the copy, and at the end
#   the copy is written back. Two ones go to node 0, and one overwrites the other.
#
# - [ ] It raises, because two writes go to one cell
#
#   PyTorch does not look for repetitions in an index. The write goes through without a
#   warning.

# %%
index = torch.tensor([0, 0, 1])
ones = torch.ones(3)
c = torch.zeros(3)
c[index] += 1
added = torch.zeros(3).index_add_(0, index, ones)
print(f"{c.tolist()=} {added.tolist()=}")
assert c.tolist() == [1, 1, 0]
assert added.tolist() == [2, 1, 0]
assert torch.equal(added, torch.zeros(3).scatter_add_(0, index, ones))
assert torch.equal(added, torch.zeros(3).index_put_((index,), ones, accumulate=True))


def add_one(x: Tensor) -> None:
    x[index] += 1


steps_of_add = operators(add_one, torch.zeros(3))
print(steps_of_add)
assert steps_of_add == ["index", "add_", "index_put_"]

# %% fold=true
start = torch.zeros(3)
pairs = list(enumerate(index.tolist()))
straight = [(k, k) for k in range(3)]
fig, code = flow_figure(
    [
        (
            [
                ("c", start),
                ("c[index]", start[index]),
                ("c[index] + 1", start[index] + 1),
                ("index_put_", start.index_put((index,), start[index] + 1)),
            ],
            [[(cell, k) for k, cell in pairs], straight, pairs],
        ),
        ([("ones", ones), ("index_add_", added)], [pairs]),
    ]
)
show_figure(
    fig,
    alt_pl="Po lewej trzy kroki: z komórki 0 odczyt idzie do dwóch kopii, w każdej zero "
    "zmienia się w jedynkę, a obie jedynki wracają do tej samej komórki, w której zostaje "
    "1. Po prawej index_add_: dwie strzałki z jedynkami wchodzą do komórki 0, w której "
    "jest 2.",
    alt_en="On the left three steps: cell 0 is read into two copies, in each the zero "
    "becomes a one, and both ones return to the same cell, which is left with 1. On the "
    "right index_add_: two arrows from ones enter cell 0, which holds 2.",
    same=code,
)
assert (float(c[0]), float(added[0])) == (1, 2)

# %% [markdown] lang="pl"
# Strzałki jednego koloru to jedna wiadomość. Po lewej `+=` rozkłada się na trzy
# operatory: `index` czyta do kopii `c[index]`, `add_` dodaje w niej 1, `index_put_`
# zapisuje ją do `c`. Dwie pierwsze wiadomości wyruszają z jednej komórki jako osobne kopie
# i jedna z nich przepada. Po prawej `index_add_` dodaje każdą wiadomość do tego, co już
# jest w komórce.
#
# Tam, gdzie `gather` (zbieranie) czyta, `scatter` (rozrzucanie) pisze: dla macierzy i
# wymiaru 1 wartość $\text{src}[i, j]$ trafia do komórki
# $[\,i, \text{index}[i, j]\,]$. Odmiana
# `scatter_add` dodaje, zamiast nadpisywać, a `scatter_reduce` z `"amax"` zostawia
# największą wartość, licząc z tą, która już jest w komórce. `index_add` ma indeks
# jednowymiarowy i dodaje całe wiersze, a `scatter_add` – osobny wpis dla każdej liczby.
#
# Autograd zapisów nie gubi. Odczyt powtórzony w przejściu w przód (*forward pass*) staje
# się powtórzonym zapisem w przejściu wstecz (*backward pass*). Dlatego `index_put` z
# `accumulate=True` liczy gradient operatora `index`, a `scatter_add` – operatora `gather`.
# I odwrotnie: `gather` liczy gradient operatora `scatter_add`.

# %% [markdown] lang="en"
# Arrows of one colour are one message. On the left `+=` splits into three operators:
# `index` reads into a copy, `c[index]`, `add_` adds 1 to the copy, and `index_put_` writes
# it to `c`. The first two messages leave one cell as separate copies, and one of them is lost.
# On the right `index_add_` adds each message to what the cell already holds.
#
# Where `gather` reads, `scatter` writes: for a matrix and dimension 1 it puts
# $\text{src}[i, j]$ in the cell $[\,i, \text{index}[i, j]\,]$. The variant
# `scatter_add` adds instead of overwriting, and `scatter_reduce` with `"amax"` leaves the
# largest value, counting the one that the cell already holds. `index_add` has an index of
# one dimension and adds whole rows, while `scatter_add` has an entry for each number.
#
# Autograd does not lose writes. A read repeated in the forward pass becomes a repeated
# write in the backward pass. That is why `index_put` with `accumulate=True` computes the
# gradient of `index`, and `scatter_add` that of `gather`. Conversely, `gather` computes
# the gradient of `scatter_add`.

# %%
src, filled = torch.tensor([5.0, 6.0, 7.0]), torch.tensor([9.0, 0.0, 0.0])
plain = filled.scatter(0, index, src)
sums = filled.scatter_add(0, index, src)
largest = filled.scatter_reduce(0, index, src, "amax")
print(f"{sums.tolist()=} {largest.tolist()=}")
assert float(plain[0]) in (5, 6) and plain[1:].tolist() == [7, 0]
assert (sums.tolist(), largest.tolist()) == ([20, 7, 0], [9, 7, 0])
wide = index[:, None].expand(3, 2)  # an entry for each number of two columns
by_rows = torch.zeros(3, 2).index_add(0, index, torch.ones(3, 2))
assert torch.equal(by_rows, torch.zeros(3, 2).scatter_add(0, wide, torch.ones(3, 2)))

x = torch.zeros(3, requires_grad=True)
backward: dict[str, Tensor] = {
    "index_put": x[index],
    "scatter_add": x.gather(0, index),
    "index_add": x.index_select(0, index),
    "gather": torch.zeros(3).scatter_add(0, index, x),
}
for name, out in backward.items():
    node = out.grad_fn
    assert node is not None
    assert name in operators(torch.autograd.grad, out.sum(), x)
    print(f"{node.name():20} {name}")
(slope,) = torch.autograd.grad(x[index].sum(), x)
print(slope)
assert slope.tolist() == [2, 1, 0]  # cell 0 was read twice, cell 2 never

# %% [markdown] lang="pl"
# ## Zbuduj `gather` i `index` z pętli
#
# Funkcja `places` podaje dla każdego wpisu indeksu komórkę, którą on wskazuje. `gather` i
# `scatter_add` różnią się już tylko kierunkiem strzałki. `index_loop` odtwarza nawias z
# tensorami i dwukropkami. Gdy tensory sąsiadują ze sobą, ich wspólne wymiary zostają w
# wyniku na swoim miejscu. Gdy rozdziela je dwukropek, trafiają na początek.

# %% [markdown] lang="en"
# ## Build `gather` and `index` from loops
#
# For each entry of the index the function `places` gives the cell that it names. From
# there `gather` and `scatter_add` differ only in the direction of the arrow. `index_loop`
# rebuilds brackets with tensors and colons. When the tensors are neighbours, their common
# dimensions stay in place in the result. When a colon separates them, they go to the front.

# %%
y, seven = torch.zeros(2, 3, 4, 5), torch.zeros(7, dtype=torch.long)
print(f"{tuple(y[:, seven, seven].shape)=} {tuple(y[:, seven, :, seven].shape)=}")
assert y[:, seven, seven].shape == (2, 7, 5)
assert y[:, seven, :, seven].shape == (7, 2, 4)

# %%
Place = tuple[int, ...]


def every(sizes: Sequence[int]) -> Iterator[Place]:
    return itertools.product(*(range(size) for size in sizes))


def places(index: Tensor, dim: int) -> Iterator[tuple[Place, Place]]:
    """For each entry of the index, yield its place and the cell that it names."""
    for at in every(index.shape):
        yield at, (*at[:dim], int(index[at]), *at[dim + 1 :])


def gather_loop(x: Tensor, dim: int, index: Tensor) -> Tensor:
    out = torch.zeros(index.shape, dtype=x.dtype)
    for at, cell in places(index, dim):
        out[at] = x[cell]
    return out


def scatter_add_loop(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    out = x.clone()
    for at, cell in places(index, dim):
        out[cell] += src[at]
    return out


# %% fold=true
def index_loop(x: Tensor, inside: Sequence[Tensor | slice]) -> Tensor:
    """Read x[tuple(inside)]: for each dimension a tensor or a colon, slice(None)."""
    named = [d for d, entry in enumerate(inside) if isinstance(entry, Tensor)]
    whole = [d for d, entry in enumerate(inside) if isinstance(entry, slice)]
    grids = torch.broadcast_tensors(*(e for e in inside if isinstance(e, Tensor)))
    sizes = [x.shape[d] for d in whole]
    neighbours = named[-1] - named[0] == len(named) - 1
    before = named[0] if neighbours else 0
    out = torch.zeros(*sizes[:before], *grids[0].shape, *sizes[before:], dtype=x.dtype)
    for rest in every(sizes):
        for at in every(grids[0].shape):
            cell = dict(zip(whole, rest, strict=True))
            cell |= {d: int(grid[at]) for d, grid in zip(named, grids, strict=True)}
            value = x[tuple(cell[d] for d in range(x.dim()))]
            out[(*rest[:before], *at, *rest[before:])] = value
    return out


# %% [markdown] lang="pl"
# Porównajmy z PyTorchem wyniki pętli, a także gradienty, na losowych kształtach. Wartości
# to małe liczby całkowite, więc sumy mają się zgadzać dokładnie.

# %% [markdown] lang="en"
# Let's compare the loops, and the gradients too, with PyTorch on random shapes. The
# values are small integers, so sums must agree exactly.


# %% fold=true
def trial(rng: random.Random) -> tuple[bool, bool]:
    """Compare our loops with PyTorch once.

    Returns:
        Do they agree, and did a colon separate the tensors in the brackets?
    """
    shape = [rng.randint(1, 3) for _ in range(rng.randint(1, 4))]
    x = torch.randint(9, shape).double().requires_grad_()
    dim = rng.randrange(x.dim())
    part = [rng.randint(1, 5 if d == dim else n) for d, n in enumerate(shape)]
    index = torch.randint(shape[dim], part)
    src = torch.randint(9, part).double().requires_grad_()
    got, sums = x.gather(dim, index), x.detach().scatter_add(dim, index, src)
    (x_slope,) = torch.autograd.grad(got, x, src)
    (src_slope,) = torch.autograd.grad(sums, src, x)
    zeros = torch.zeros(shape, dtype=x.dtype)
    inside: list[Tensor | slice] = [
        torch.randint(n, (2,)) if rng.random() < 0.6 else slice(None) for n in shape
    ]
    inside[dim] = torch.randint(shape[dim], (rng.randint(1, 3), 1))
    named = [d for d, entry in enumerate(inside) if isinstance(entry, Tensor)]
    same = (
        torch.equal(got, gather_loop(x, dim, index))
        and torch.equal(sums, scatter_add_loop(x.detach(), dim, index, src))
        and torch.equal(x_slope, scatter_add_loop(zeros, dim, index, src))
        and torch.equal(src_slope, gather_loop(x, dim, index))
        and torch.equal(x[tuple(inside)], index_loop(x.detach(), inside))
    )
    return same, named[-1] - named[0] > len(named) - 1


tried = 300
rng = random.Random(0)
trials = [trial(rng) for _ in range(tried)]
agreed = sum(same for same, _ in trials)
separated = sum(apart for _, apart in trials)
print(f"{agreed=} of {tried}, {separated=}")
assert agreed == tried
assert 20 < separated < tried

# %% [markdown] lang="pl"
# Zgodność: {{ agreed }} na {{ tried }}. W {{ separated }} próbach dwukropek rozdzielał
# tensory w nawiasie.
#
# To odpowiedź na pytanie lekcji: **w `gather` komórkę wyznaczają miejsce wpisu w indeksie
# i jego wartość, w nawiasie – wspólnie rozgłoszone tensory. Gdy indeks wskaże jedną
# komórkę dwa razy, zwykły zapis, także `+=`, zachowa jedną wartość, a `index_add_` doda
# obie.**
#
# ## Ile wiadomości przetrwa
#
# Wyślijmy $E$ wiadomości do węzłów losowanych spośród $N = 1000$. Jedna wiadomość omija
# dany węzeł z prawdopodobieństwem $1 - 1/N$, a wszystkie – z prawdopodobieństwem
# $(1 - 1/N)^E$. Po `c[index] += 1` każdy węzeł, do którego coś przyszło, zachowa jedną
# wiadomość, więc przewidywany udział ocalałych wynosi
#
# $$\frac{N}{E}\Big(1 - \big(1 - \tfrac{1}{N}\big)^E\Big).$$

# %% [markdown] lang="en"
# Agreement: {{ agreed }} out of {{ tried }}. In {{ separated }} trials a colon separated
# the tensors in the brackets.
#
# That answers the question of this lesson: **in `gather` a cell is named by the place of
# an entry in the index and by its value, in brackets by the tensors broadcast together.
# When an index names one cell twice, a plain write, `+=` included, keeps one value, and
# `index_add_` adds both.**
#
# ## How many messages survive
#
# Let's send $E$ messages to nodes drawn from $N = 1000$. One message misses a given node
# with probability $1 - 1/N$, and all of them with probability $(1 - 1/N)^E$. After
# `c[index] += 1` each node that received anything keeps one message, so the predicted
# share of survivors is
#
# $$\frac{N}{E}\Big(1 - \big(1 - \tfrac{1}{N}\big)^E\Big).$$


# %%
def send(messages: int, nodes: int = 1000) -> tuple[Tensor, Tensor]:
    """Send messages equal to 1 to random nodes, by += and by index_add_."""
    to = torch.randint(nodes, (messages,))
    lossy = torch.zeros(nodes)
    lossy[to] += 1
    assert lossy.sum() == len(to.unique())  # one message for each node that got any
    return lossy, torch.zeros(nodes).index_add_(0, to, torch.ones(messages))


def survivors(messages: float, nodes: int = 1000) -> float:
    return nodes / messages * (1 - math.pow(1 - 1 / nodes, messages))


loads = (100, 300, 1000, 3000, 10_000, 30_000)
predicted = [survivors(e) for e in loads]
sent = [send(e) for e in loads]
measured = [float(lossy.sum()) / e for (lossy, _), e in zip(sent, loads, strict=True)]
complete = [float(full.sum()) / e for (_, full), e in zip(sent, loads, strict=True)]
busy = loads.index(10_000)
predicted_share, kept_share = 100 * predicted[busy], 100 * measured[busy]
right_nodes = int((sent[busy][0] == sent[busy][1]).sum())
print(f"{predicted_share=:.1f} {kept_share=:.1f} {right_nodes=}")
for m, p, e in zip(measured, predicted, loads, strict=True):
    assert abs(m - p) * e < 2 * (p * e) ** 0.5
assert measured == sorted(measured, reverse=True) and complete == [1.0] * len(loads)
assert all(lossy.max() == 1 for lossy, _ in sent)
assert right_nodes < 10

# %% fold=true
fig, axis = plt.subplots(figsize=(7.2, 2.8))
per_node = [e / 1000 for e in loads]
dense = torch.logspace(-1, math.log10(30), 100).tolist()
curve = [survivors(1000 * load) for load in dense]
for places_on_x, shares, colour, line, marker, name in (
    (per_node, complete, GREEN, "-", "", "index_add_"),
    (dense, curve, ORANGE, "--", "", "predicted: c[index] += 1"),
    (per_node, measured, BLUE, "", "o", "measured: c[index] += 1"),
):
    percent = [100 * share for share in shares]
    axis.plot(places_on_x, percent, color=colour, ls=line, marker=marker, label=name)
axis.set(xscale="log", ylim=(0, 106), xlabel="messages per node", ylabel="kept, %")
axis.xaxis.set_major_locator(FixedLocator(per_node))
axis.xaxis.set_major_formatter(FixedFormatter([f"{load:g}" for load in per_node]))
axis.minorticks_off()
axis.legend(loc="center left", bbox_to_anchor=(0, 0.4))
show_figure(
    fig,
    alt_pl="Wykres udziału ocalałych wiadomości. Dla index_add_ to stale 100%. Dla "
    "c[index] += 1 punkty pomiaru leżą na przewidywanej krzywej, która opada prawie do "
    "zera przy 30 wiadomościach na węzeł.",
    alt_en="A chart of the share of messages kept. For index_add_ it stays at 100%. For "
    "c[index] += 1 the measured points lie on the predicted curve, which falls almost to "
    "zero at 30 messages per node.",
    pl={
        "predicted: c[index] += 1": "przewidywanie: c[index] += 1",
        "measured: c[index] += 1": "pomiar: c[index] += 1",
        "messages per node": "wiadomości na węzeł",
        "kept, %": "ocalałe, %",
    },
    same=("index_add_",),
)

# %% [markdown] lang="pl"
# Pomiar leży przy krzywej. Przy dziesięciu wiadomościach na węzeł model przewiduje
# {{ predicted_share:.1f }}% ocalałych, a zostało {{ kept_share:.1f }}%. Poprawną sumę ma
# {{ right_nodes }} z 1000 węzłów. Im rzadszy graf w teście, tym trudniej to zauważyć.
#
# Odczyt też ma swoją cenę. Jedną wartość na wiersz można wziąć za pomocą `gather`, par
# `q[rows, action]` albo przekątnej `q[:, action]`. Dla partii o $B$ wierszach dwa pierwsze
# sposoby tworzą $B$ liczb (pary potrzebują jeszcze numerów wierszy, tu gotowych), a trzeci
# $B^2$, więc przewidujemy stosunek równy $B$.

# %% [markdown] lang="en"
# The measurements lie close to the curve. At ten messages per node the model predicts
# that {{ predicted_share:.1f }}% survive, and {{ kept_share:.1f }}% did. Of 1000 nodes,
# {{ right_nodes }} hold the right sum. The sparser your test graph, the harder this is to
# notice.
#
# Reading has a price too. One value from each row can be taken by `gather`, by the pairs
# `q[rows, action]`, or as the diagonal of `q[:, action]`. For a batch of $B$ rows the
# first two ways create $B$ numbers (the pairs also need row numbers, here made
# beforehand), and the third one $B^2$, so we predict a ratio of $B$.

# %% fold=true
batch = 1024
big, taken = torch.rand(batch, 8), torch.randint(8, (batch,))
numbers = torch.arange(batch)
gather_bytes = created(lambda: big.gather(1, taken[:, None]).squeeze(1))
pairs_bytes = created(lambda: big[numbers, taken])
diagonal_bytes = created(lambda: big[:, taken].diagonal())
bytes_ratio = diagonal_bytes / gather_bytes
print(f"{gather_bytes=} {pairs_bytes=} {diagonal_bytes=} {bytes_ratio=:.0f}")
assert torch.equal(big[:, taken].diagonal(), big.gather(1, taken[:, None]).squeeze(1))
assert gather_bytes == pairs_bytes == 4 * batch
assert bytes_ratio == batch

# %% [markdown] lang="pl"
# Zgadza się: {{ bytes_ratio:.0f }} razy więcej bajtów na ten sam wynik.
#
# ## Co się psuje i jak to zauważyć
#
# Zacznijmy od błędów, które PyTorch zgłasza. Uwaga na −1, które często oznacza brak
# etykiety: `gather` je odrzuca, a nawias po cichu czyta ostatnią kolumnę.

# %% [markdown] lang="en"
# The prediction holds: {{ bytes_ratio:.0f }} times as many bytes for the same result.
#
# ## What breaks and how to notice
#
# Let's start with the errors that PyTorch reports. Beware of −1, which often means that a
# label is missing: `gather` rejects it, while brackets silently read the last column.

# %%
unlabelled = torch.tensor([3, 0, -1, 2])
messages = [
    message(q.gather, 1, action),
    message(q.gather, 1, action.repeat(2)[:, None]),
    message(q.gather, 1, unlabelled[:, None]),
    message(getitem, q, action.to(torch.int8)),
]
print(*messages, sep="\n")
assert "must have the same number of dimensions" in messages[0]
assert "expected index [8, 1] to be no larger than self [4, 6]" in messages[1]
assert messages[2] == "index -1 is out of bounds for dimension 1 with size 6"
assert messages[3] == "tensors used as indices must be long, int, byte or bool tensors"
assert q[rows, unlabelled].tolist() == [3, 10, 25, 32]  # -1: column 5, no exception
assert q.gather(1, action[:0]).numel() == 0  # an empty index may lack dimensions

# %% [markdown] lang="pl"
# Zmylić może też typ. Etykiety klas często leżą na dysku jako `uint8`, a tensor tego
# typu w nawiasie to maska. Zakodujmy takie etykiety wierszami macierzy jednostkowej:

# %% [markdown] lang="en"
# The type can mislead too. Class labels often lie on disk as `uint8`, and in brackets a
# tensor of that type is a mask. Let's encode such labels by rows of the identity matrix:

# %% warns="UserWarning: indexing with dtype torch.uint8 is now deprecated"
labels = torch.tensor([2, 0, 1], dtype=torch.uint8)
encoded = torch.eye(3)[labels]
print(encoded)
assert encoded.tolist() == [[1, 0, 0], [0, 0, 1]]  # two rows, not three
assert torch.eye(3)[labels.long()].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]

# %% [markdown] lang="pl"
# Z trzech etykiet powstały dwa wiersze. Następna różnica nie daje nawet ostrzeżenia. Gdy w
# nawiasie dwukropek oddziela liczbę od listy, NumPy traktuje liczbę jak drugą listę, więc
# wymiar list trafia na początek. PyTorch najpierw stosuje liczbę (`select`) i zostaje mu
# jedna lista.

# %% [markdown] lang="en"
# Three labels gave two rows. The next difference does not even warn. When a colon separates
# a number from a list in brackets, NumPy treats the number as a second list, so the
# dimension of the lists goes to the front. PyTorch applies the number first (`select`),
# which leaves it one list.

# %%
block = torch.arange(16).reshape(2, 2, 4)
ours, numpys = block[0, :, [1, 3]], torch.from_numpy(block.numpy()[0, :, [1, 3]])
print(f"{ours.tolist()=} {numpys.tolist()=}")
assert ours.tolist() == [[1, 3], [5, 7]]
assert torch.equal(numpys, ours.T) and not torch.equal(numpys, ours)
assert "select" in operators(getitem, block, (0, slice(None), [1, 3]))
assert block[[0, 0], :, [1, 3]].tolist() == numpys.tolist()  # two lists: as in NumPy
assert block[0, :, [1, 3, 0]].shape == (2, 3)
assert block.numpy()[0, :, [1, 3, 0]].shape == (3, 2)

# %% [markdown] lang="pl"
# Tu obie osie wyniku mają długość 2, więc kształt jest ten sam, a wynik transponowany.
# Przy innych długościach różniłby się i kształt.
#
# Ostatnia pułapka leży w gradiencie. Dokumentacja metody `scatter_` nie obiecuje, która
# wartość zostanie przy powtórzonym indeksie, i ostrzega, że gradient będzie błędny. Liczy
# go zwykły `gather`, więc **nadpisana wartość też dostaje gradient**. Weźmy znów indeks
# `[0, 0, 1]`, zwiększajmy po jednej wartości o 1 i mierzmy, o ile naprawdę zmienia się
# suma.

# %% [markdown] lang="en"
# Here both axes of the result have length 2, so the shape is the same and the result is
# transposed. With other lengths the shape would differ too.
#
# The last trap is in the gradient. The documentation of the method `scatter_` does not
# promise which value is left when an index repeats, and warns that the gradient will be
# incorrect. It is computed by a plain `gather`, so **the overwritten value receives a
# gradient as well**. Let's take the index `[0, 0, 1]` again, raise the values by 1,
# one at a time, and measure how much the sum really changes.


# %%
def total(src: Tensor) -> Tensor:
    return torch.zeros(2).scatter(0, index, src).sum()


src.requires_grad_()
(claimed,) = torch.autograd.grad(total(src), src)
assert operators(torch.autograd.grad, total(src), src).count("gather") == 1
with torch.no_grad():
    actual = [float(total(src + nudge) - total(src)) for nudge in torch.eye(3)]
print(f"{claimed.tolist()=} {actual=}")
assert claimed.tolist() == [1, 1, 1]
assert sorted(actual) == [0, 1, 1]  # one of the two values for cell 0 changes nothing
documented = " ".join((Tensor.scatter_.__doc__ or "").split())
assert "picked arbitrarily) and the gradient will be incorrect" in documented

# %% [markdown] lang="pl"
# Na koniec dwie funkcje do wklejenia. `pick` przyjmuje tylko jeden indeks na wiersz, a
# resztę (typ, zakres, −1) sprawdza za nią `gather`. `distinct` pyta o numery komórek, więc
# nadaje się do każdego nawiasu: sprawdź nią indeks przed `+=`. Tworzy przy tym ponad 8 B na
# element tensora, więc wywołuj ją w testach albo w pierwszym kroku treningu. Gdy odpowie
# `False`, użyj `index_put_` z `accumulate=True`, a dla jednego nieujemnego indeksu wzdłuż
# wymiaru – `index_add_`.

# %% [markdown] lang="en"
# Finally, two functions to paste. `pick` accepts only one index per row, and leaves the
# rest (type, range, −1) to `gather`. `distinct` asks for cell numbers, so it suits any
# brackets: check an index with it before `+=`. It creates more than 8 B per element of the
# tensor, so call it in tests or in the first step of training. When it answers `False`,
# use `index_put_` with `accumulate=True` or, for one non-negative index along a dimension,
# `index_add_`.


# %%
from typing import Any

import torch
from torch import Tensor


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Read values[i, index[i]] for every row i of a matrix."""
    if index.shape != values.shape[:1]:
        raise IndexError(f"{tuple(index.shape)} indices for {len(values)} rows")
    return values.gather(1, index[:, None]).squeeze(1)


def distinct(x: Tensor, inside: Any) -> bool:
    """Tell whether x[inside] names no cell twice, so that += loses nothing.

    Elements of x must not share cells, as those of x.expand() do.
    """
    cells = torch.arange(x.numel(), device=x.device).reshape(x.shape)[inside]
    return len(cells.unique()) == cells.numel()


# %% fold=true
print(f"pick: {message(pick, q, action[None])}")
print(f"{distinct(c, index)=} {distinct(q, (rows, action))=}")
assert pick(q, action).tolist() == [3, 10, 25, 32]
refused = (action[None], action[:, None], action[:3], unlabelled, labels, action + 3)
assert all(message(pick, q, bad) for bad in refused)
assert message(pick, q[:3], labels) == "gather(): Expected dtype int32/int64 for index"

good = (action[:2] % 4, slice(0, 2), mask, (rows, action), (rows, action * 0))
assert all(distinct(q, inside) for inside in good)
repeating = ([0, 0], [1, -3], (rows * 0, action % 3), ([[0], [0]], action))
assert not any(distinct(q, inside) for inside in repeating)
assert not distinct(c, index)
assert created(distinct, big, [0]) > 8 * big.numel()

below = torch.tensor([-1, 2])
assert message(c.index_add, 0, below, ones[:2])
assert c.index_put((below,), ones[:2], accumulate=True)[2] == c[2] + 2
guards = "".join(linecache.getlines(distinct.__code__.co_filename))
pasted: dict[str, Any] = {}  # the cell of the guards alone, in an empty namespace
exec(guards, pasted)
assert not pasted["distinct"](c, index) and "def chosen" not in guards

# %% [markdown] lang="pl"
# > [!NOTE]
# > Obliczenia w tej lekcji wykonuje procesor. Na GPU (tu niezmierzone) indeks spoza
# > zakresu kończy się asercją w jądrze obliczeniowym (*kernel*), zgłoszoną dopiero
# > później, po której proces nie może już używać karty. Odczyt z maską i odczyt tensorem
# > bez wymiarów, który leży na GPU, wymuszają czekanie na wynik. Kolejność dodawania w
# > `index_add_` i `scatter_add_` nie jest ustalona, więc ostatnie bity mogą się różnić.
#
# Gdzie to leży w źródłach PyTorcha:
#
# - wybór między widokiem a `index`, funkcja `THPVariable_getitem`:
#   [`torch/csrc/autograd/python_variable_indexing.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/python_variable_indexing.cpp)
# - `index`, `index_put_`, `gather`, `scatter`:
#   [`aten/src/ATen/native/TensorAdvancedIndexing.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorAdvancedIndexing.cpp)
# - maski (`expandTensors`) i rozdzielone tensory (`transposeToFront`):
#   [`aten/src/ATen/native/IndexingUtils.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/IndexingUtils.h)
# - `gather_shape_check`:
#   [`aten/src/ATen/native/ScatterGatherChecks.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/ScatterGatherChecks.h)
# - gradienty:
#   [`tools/autograd/derivatives.yaml`](https://github.com/pytorch/pytorch/blob/v2.15.0/tools/autograd/derivatives.yaml)
#
# ## Co już umiesz
#
# - Sprawdzasz numerami komórek, co czyta wyrażenie z indeksem.
# - Odróżniasz nawias, który daje widok, od nawiasu, który kopiuje.
# - Wiesz, kiedy `+=` gubi zapisy, ile ich gubi i czym go zastąpić.
# - Znasz gradienty `gather` i `scatter`, także ten, który trafia do nadpisanych wartości.
#
# Poprzednia lekcja: [03, `einsum`](03_einsum_is_all_you_need.py). Następna:
# [05, operacje w miejscu](05_in_place_operations.py). W dokumentacji:
# [torch.gather](https://docs.pytorch.org/docs/stable/generated/torch.gather.html),
# [Tensor.scatter_](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.scatter_.html).

# %% [markdown] lang="en"
# > [!NOTE]
# > Everything in this lesson runs on the CPU. On a GPU (not measured here) an index out
# > of range ends in an assertion inside the kernel, reported late, after which the
# > process cannot use the card any more. Reading with a mask, or with a tensor that has
# > no dimensions and lies on the GPU, forces a wait for the result. The order of
# > additions in `index_add_` and `scatter_add_` is not fixed, so the last bits may
# > differ.
#
# Where this lives in PyTorch's source:
#
# - the choice between a view and `index`, the function `THPVariable_getitem`:
#   [`torch/csrc/autograd/python_variable_indexing.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/python_variable_indexing.cpp)
# - `index`, `index_put_`, `gather`, `scatter`:
#   [`aten/src/ATen/native/TensorAdvancedIndexing.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorAdvancedIndexing.cpp)
# - masks (`expandTensors`) and separated tensors (`transposeToFront`):
#   [`aten/src/ATen/native/IndexingUtils.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/IndexingUtils.h)
# - `gather_shape_check`:
#   [`aten/src/ATen/native/ScatterGatherChecks.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/ScatterGatherChecks.h)
# - gradients:
#   [`tools/autograd/derivatives.yaml`](https://github.com/pytorch/pytorch/blob/v2.15.0/tools/autograd/derivatives.yaml)
#
# ## Now you can
#
# - Check with cell numbers what an indexing expression reads.
# - Tell brackets that give a view from brackets that copy.
# - Tell when `+=` loses writes, how many, and what to put in its place.
# - Name the gradients of `gather` and `scatter`, including the one that goes to
#   overwritten values.
#
# Previous lesson: [03, `einsum`](03_einsum_is_all_you_need.py). Next:
# [05, in-place operations](05_in_place_operations.py). In the documentation:
# [torch.gather](https://docs.pytorch.org/docs/stable/generated/torch.gather.html),
# [Tensor.scatter_](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.scatter_.html).

# %% [markdown] lang="pl"
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# ## Belts: test yourself


# %% fold=true
class Unpacking(TorchFunctionMode):
    """Note the calls that hand the values of a tensor to Python, where loops run."""

    def __init__(self) -> None:
        self.seen = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        name = getattr(func, "__name__", "")
        self.seen |= name in {"tolist", "numpy", "__array__", "unbind"}  # unbind: for
        return func(*args, **(kwargs or {}))


def loops(
    run: Callable[..., object], small: Sequence[Any], large: Sequence[Any]
) -> bool:
    """Tell whether run loops: calls more operators for more data, or unpacks tensors."""
    with Unpacking() as unpacking:
        work = [operators(run, *args) for args in (small, large)]
    return unpacking.seen or work[0] != work[1]


class WriteWatch(TorchDispatchMode):
    """Note plain writes to a vector by an index that names a cell twice."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.repeated = False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        position = {"index_put": 1, "put": 1, "scatter": 2, "index_copy": 2}
        at = position.get(str(func).split(".")[1].rstrip("_"))
        if at is not None:
            index = tuple(args[at]) if isinstance(args[at], list | tuple) else args[at]
            self.repeated |= not distinct(args[0], index)
        return func(*args, **(kwargs or {}))


# %% [markdown] lang="pl" exercise="token-log-probs" role="prompt" belt="white" minutes=8
# ### Biały: prawdopodobieństwa tokenów
#
# Model językowy daje `log_probs` o kształcie (sekwencja, krok, token). Napisz funkcję
# `token_log_probs`, która dla każdego kroku zwraca logarytm prawdopodobieństwa tokenu z
# `target` o kształcie (sekwencja, krok). Bez pętli; nowe tensory mogą zająć najwyżej 32
# B na krok.

# %% [markdown] lang="en" exercise="token-log-probs" role="prompt" belt="white" minutes=8
# ### White: log-probabilities of tokens
#
# A language model gives `log_probs` of shape (sequence, step, token). Write a function
# `token_log_probs` that returns, for every step, the log-probability of the token in
# `target`, of shape (sequence, step). No loops; new tensors may take at most 32 B per
# step.


# %% exercise="token-log-probs" role="starter"
def token_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    return log_probs[..., 0]  # your code


# %% exercise="token-log-probs" role="check"
torch.manual_seed(2)
for sequences, steps, tokens in ((3, 9, 5), (2, 6, 6), (3, 4, 50)):
    target = torch.randint(tokens, (sequences, steps))
    source = torch.arange(sequences * steps * tokens).reshape(sequences, steps, tokens)
    scores = torch.randn(source.shape, requires_grad=True)
    found, got = (token_log_probs(x, target) for x in (source.float(), scores))
    assert found.shape == target.shape, say(
        pl=f"kształt {tuple(found.shape)}, a ma być {tuple(target.shape)}: po jednej "
        "wartości na krok",
        en=f"shape {tuple(found.shape)} instead of {tuple(target.shape)}: one value for "
        "each step",
    )
    for s, t in every(target.shape):
        origin = int(found[s, t])
        step_read, token_read = origin // tokens % steps, origin % tokens
        assert (origin // tokens // steps, step_read) == (s, t), say(
            pl=f"wartość dla sekwencji {s} i kroku {t} pochodzi z kroku {step_read} "
            f"sekwencji {origin // tokens // steps}",
            en=f"the value for sequence {s}, step {t} comes from step {step_read} of "
            f"sequence {origin // tokens // steps}",
        )
        assert token_read == target[s, t], say(
            pl=f"krok {t}: wzięto token {token_read}, a miał być {int(target[s, t])}",
            en=f"step {t}: took token {token_read} instead of {int(target[s, t])}",
        )
        assert got[s, t] == scores[s, t, target[s, t]], say(
            pl="wartości nie pochodzą z `log_probs`",
            en="the values do not come from `log_probs`",
        )
    assert got.requires_grad, say(
        pl="gradient nie dociera do `log_probs`", en="no gradient reaches `log_probs`"
    )
    spent = created(token_log_probs, scores.detach(), target)
    spent //= target.numel()
    assert spent <= 32, say(
        pl=f"wynik poprawny, ale powstaje {spent} B na krok: nie twórz tensora z osią "
        "tokenów",
        en=f"the result is right, but it creates {spent} bytes per step: do not make a "
        "tensor with an axis of tokens",
    )
short, long = ((torch.rand(n, n, n), torch.zeros(n, n).long()) for n in (2, 40))
assert not loops(token_log_probs, short, long), say(
    pl="operacji przybywa z rozmiarem danych albo wartości trafiają do Pythona: usuń pętlę",
    en="operations grow with the size of data, or values go to Python: remove the loop",
)

# %% [markdown] lang="pl" exercise="token-log-probs" role="hint"
# W `gather` sekwencja i krok biorą się z miejsca wpisu w indeksie. Jaki kształt musi
# mieć indeks, żeby jego dwa pierwsze wymiary były takie jak w `log_probs`?

# %% [markdown] lang="en" exercise="token-log-probs" role="hint"
# In `gather` the sequence and the step come from the place of an entry in the index.
# What shape must the index have for its first two dimensions to be those of `log_probs`?


# %% exercise="token-log-probs" role="wrong" says="comes from step 0"
def token_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    # The index has shape (sequence, 1, step): every read goes to step 0.
    return log_probs.gather(2, target[:, None]).squeeze(1)


# %% exercise="token-log-probs" role="wrong" says="one value for each step"
def token_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    # Every target for every step of every sequence.
    return log_probs[:, :, target]


# %% exercise="token-log-probs" role="wrong" says="bytes per step"
def token_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    # Multiplies by zeros to read one number.
    one_hot = torch.nn.functional.one_hot(target, log_probs.shape[-1])
    return (log_probs * one_hot).sum(dim=-1)


# %% exercise="token-log-probs" role="solution"
def token_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    # (sequence, step, 1): each index lies in its own sequence and step.
    return log_probs.gather(2, target[..., None]).squeeze(2)


# %% [markdown] lang="pl" exercise="segment-softmax" role="prompt" belt="brown" minutes=15
# ### Brązowy: softmax w segmentach
#
# Krawędzie grafu mają oceny `score`, a `segment` mówi, do którego węzła prowadzi każda
# krawędź. Napisz `segment_softmax`: softmax liczony osobno w każdym segmencie, bez
# pętli. Ma być odporny na oceny rzędu ±1000 i na segmenty bez krawędzi oraz mieć poprawny
# gradient.

# %% [markdown] lang="en" exercise="segment-softmax" role="prompt" belt="brown" minutes=15
# ### Brown: softmax in segments
#
# The edges of a graph have scores, `score`, and `segment` says which node each edge
# leads to. Write `segment_softmax`: a softmax computed separately in each segment, with
# no loop. It must withstand scores around ±1000 and segments without edges, and have a
# correct gradient.


# %% exercise="segment-softmax" role="starter"
def segment_softmax(score: Tensor, segment: Tensor, segments: int) -> Tensor:
    return score  # your code


# %% exercise="segment-softmax" role="check"
torch.manual_seed(3)
for edges, segments in ((12, 3), (1, 1), (40, 9), (30, 100)):
    segment = torch.randint(segments, (edges,))
    score = torch.randn(edges, dtype=torch.float64)
    weights = segment_softmax(score.clone(), segment, segments)
    assert weights.shape == score.shape, say(
        pl=f"kształt {tuple(weights.shape)}, a krawędzi jest {edges}",
        en=f"shape {tuple(weights.shape)}, but there are {edges} edges",
    )
    for k in segment.unique().tolist():
        summed = float(weights[segment == k].sum())
        expected = torch.softmax(score[segment == k], dim=0)
        assert torch.allclose(weights[segment == k], summed * expected), say(
            pl=f"segment {k}: wagi nie są proporcjonalne do exp(score)",
            en=f"segment {k}: the weights are not proportional to exp(score)",
        )
        assert summed < 1 + 1e-9, say(
            pl=f"segment {k}: wagi sumują się do {summed:.2f}, więc w mianowniku brakuje "
            "krawędzi. Czy powtórzone indeksy nie zgubiły zapisów?",
            en=f"segment {k}: the weights sum to {summed:.2f}, so edges are missing from "
            "the denominator. Did repeated indices lose writes?",
        )
        assert summed > 1 - 1e-9, say(
            pl=f"segment {k}: wagi sumują się do {summed:.2f}, więc mianownik obejmuje "
            "też cudze krawędzie",
            en=f"segment {k}: the weights sum to {summed:.2f}, so the denominator counts "
            "edges of other segments",
        )
    high = segment_softmax(score + 1000, segment, segments)
    assert torch.allclose(high, weights), say(
        pl="oceny większe o 1000 mają dać te same wagi: exp wychodzi poza zakres",
        en="scores raised by 1000 must give the same weights: exp overflows",
    )
    apart = segment_softmax(score - 1000 * segment, segment, segments)
    assert torch.allclose(apart, weights), say(
        pl="oceny segmentów odległe o 1000: exp zeruje cały segment. Odejmij maksimum "
        "tego segmentu, nie całości",
        en="segments with scores 1000 apart: exp zeroes a whole segment. Subtract the "
        "maximum of the segment, not of everything",
    )
    wide = 1000 * score
    sharp = segment_softmax(wide, segment, segments)
    for k in segment.unique().tolist():
        expected = torch.softmax(wide[segment == k], dim=0)
        assert torch.allclose(sharp[segment == k], expected), say(
            pl=f"segment {k}: jego oceny są odległe o 1000. Odejmij największą z nich",
            en=f"segment {k}: its scores are 1000 apart. Subtract the largest of them",
        )
segment = torch.tensor([0, 2, 0, 2, 2])
probe = torch.randn(5, dtype=torch.float64, requires_grad=True)
assert torch.autograd.gradcheck(
    lambda s: segment_softmax(s, segment, 3), probe, raise_exception=False
), say(pl="gradient jest błędny", en="the gradient is wrong")
few, many = ((torch.rand(2 * n), torch.arange(2 * n) % n, n) for n in (3, 300))
assert not loops(segment_softmax, few, many), say(
    pl="operacji przybywa z rozmiarem danych albo wartości trafiają do Pythona: usuń pętlę",
    en="operations grow with the size of data, or values go to Python: remove the loop",
)

# %% [markdown] lang="pl" exercise="segment-softmax" role="hint"
# Suma w segmencie to `index_add`. Maksimum w segmencie to `scatter_reduce` z `"amax"`
# na tensorze wypełnionym `-inf`.

# %% [markdown] lang="en" exercise="segment-softmax" role="hint"
# A sum within segments is `index_add`. A maximum within segments is `scatter_reduce`
# with `"amax"` on a tensor filled with `-inf`.

# %% [markdown] lang="pl" exercise="segment-softmax" role="hint"
# Wartość segmentu wraca do jego krawędzi przez odczyt: `total[segment]`.

# %% [markdown] lang="en" exercise="segment-softmax" role="hint"
# The value of a segment returns to its edges by a read: `total[segment]`.


# %% exercise="segment-softmax" role="wrong" says="Did repeated indices lose writes?"
def segment_softmax(score: Tensor, segment: Tensor, segments: int) -> Tensor:
    top = score.new_full((segments,), -torch.inf)
    e = torch.exp(score - top.scatter_reduce(0, segment, score, "amax")[segment])
    total = score.new_zeros(segments)
    total[segment] += e  # one edge per segment is left
    return e / total[segment]


# %% exercise="segment-softmax" role="wrong" says="counts edges of other segments"
def segment_softmax(score: Tensor, segment: Tensor, segments: int) -> Tensor:
    return torch.softmax(score, dim=0)


# %% exercise="segment-softmax" role="wrong" says="exp overflows"
def segment_softmax(score: Tensor, segment: Tensor, segments: int) -> Tensor:
    e = torch.exp(score)  # inf / inf for large scores
    return e / e.new_zeros(segments).index_add(0, segment, e)[segment]


# %% exercise="segment-softmax" role="wrong" says="not of everything"
def segment_softmax(score: Tensor, segment: Tensor, segments: int) -> Tensor:
    e = torch.exp(score - score.max())  # 0 / 0 in a segment far below the highest
    return e / e.new_zeros(segments).index_add(0, segment, e)[segment]


# %% exercise="segment-softmax" role="solution"
def segment_softmax(score: Tensor, segment: Tensor, segments: int) -> Tensor:
    top = score.new_full((segments,), -torch.inf)  # stays for segments without edges
    top = top.scatter_reduce(0, segment, score, "amax")
    e = torch.exp(score - top[segment])  # the largest in each segment is exp(0)
    total = e.new_zeros(segments).index_add(0, segment, e)
    return e / total[segment]


# %% [markdown] lang="pl" exercise="scatter-last" role="prompt" belt="black" minutes=25
# ### Czarny: ostatni zapis wygrywa
#
# Napisz `scatter_last`: wynik to kopia `base`, w której komórka `index[k]` dostała
# `src[k]`, a przy powtórzeniach wygrywa największe `k`. Gradient ma trafić tylko do
# zwycięzców i do tych komórek `base`, których nikt nie zapisał. Bez pętli i bez zwykłego
# zapisu z powtórzonym indeksem: nikt nie obiecuje, kto w nim wygra.

# %% [markdown] lang="en" exercise="scatter-last" role="prompt" belt="black" minutes=25
# ### Black: the last write wins
#
# Write `scatter_last`: the result is a copy of `base` in which cell `index[k]` received
# `src[k]`, and among repetitions the largest `k` wins. The gradient must go only to the
# winners, and to those cells of `base` that nobody wrote. No loops, and no plain write
# with a repeated index: nobody promises who wins there.


# %% exercise="scatter-last" role="starter"
def scatter_last(base: Tensor, index: Tensor, src: Tensor) -> Tensor:
    return base.clone()  # your code


# %% exercise="scatter-last" role="check"
torch.manual_seed(4)
for size, writes in ((2, 3), (6, 4), (5, 40), (50, 60), (9, 1)):
    to = torch.randint(size, (writes,))
    base = torch.randn(size, dtype=torch.float64, requires_grad=True)
    src = torch.randn(writes, dtype=torch.float64, requires_grad=True)
    kept_base = base.detach().clone()
    with WriteWatch() as watch:
        out = scatter_last(base, to, src)
    last = {cell: k for k, cell in enumerate(to.tolist())}
    for cell in set(range(size)) - set(last):
        assert out[cell] == base[cell], say(
            pl=f"komórki {cell} nikt nie zapisał, a jej wartość się zmieniła",
            en=f"nobody wrote cell {cell}, but its value changed",
        )
    assert torch.equal(base, kept_base), say(
        pl="zmieniasz `base`, zamiast zwrócić kopię",
        en="you changed `base` instead of returning a copy",
    )
    slope_out = torch.arange(1.0, size + 1, dtype=torch.float64)
    slopes: tuple[Tensor | None, ...] = (None, None)
    if out.requires_grad:
        slopes = torch.autograd.grad(out, (src, base), slope_out, allow_unused=True)
    src_slope, base_slope = (torch.zeros(1) if s is None else s for s in slopes)
    assert src_slope.shape == src.shape and src_slope.any(), say(
        pl="gradient nie dociera do `src`", en="no gradient reaches `src`"
    )
    for k, cell in enumerate(to.tolist()):
        assert k == last[cell] or not src_slope[k] or not src_slope[last[cell]], say(
            pl=f"src[{k}] dostaje gradient, choć nadpisał go src[{last[cell]}]",
            en=f"src[{k}] receives a gradient although src[{last[cell]}] overwrote it",
        )
    for cell, k in last.items():
        assert out[cell] == src[k], say(
            pl=f"w komórce {cell} ma wygrać src[{k}]: to ostatni zapis",
            en=f"in cell {cell} src[{k}] must win: it is the last write",
        )
        assert src_slope[k] == slope_out[cell], say(
            pl=f"zwycięzca src[{k}] ma dostać gradient komórki {cell}",
            en=f"the winner src[{k}] must receive the gradient of cell {cell}",
        )
    expected = slope_out.clone()
    expected[list(last)] = 0
    assert torch.equal(base_slope.expand(size), expected), say(
        pl="gradient ma trafić do `base` tylko w niezapisanych komórkach",
        en="the gradient must reach `base` only in cells that nobody wrote",
    )
    assert not watch.repeated, say(
        pl="zwykły zapis z powtórzonym indeksem: nikt nie obiecuje, kto wygra",
        en="a plain write with a repeated index: nobody promises who wins",
    )
small, large = (
    (torch.zeros(n), torch.arange(2 * n) % n, torch.rand(2 * n)) for n in (5, 50)
)
assert not loops(scatter_last, small, large), say(
    pl="operacji przybywa z rozmiarem danych albo wartości trafiają do Pythona: usuń pętlę",
    en="operations grow with the size of data, or values go to Python: remove the loop",
)

# %% [markdown] lang="pl" exercise="scatter-last" role="hint"
# Maksimum nie zależy od kolejności zapisów. Czego maksimum wskaże ostatni zapis do
# komórki?

# %% [markdown] lang="en" exercise="scatter-last" role="hint"
# A maximum does not depend on the order of writes. A maximum of what tells the last
# write to a cell?

# %% [markdown] lang="pl" exercise="scatter-last" role="hint"
# Zamień zapis na odczyt: każda komórka czyta ze swojego zwycięzcy. Gradient odczytu
# trafia tylko do tego, co przeczytano.

# %% [markdown] lang="en" exercise="scatter-last" role="hint"
# Turn the write into a read: each cell reads from its winner. The gradient of a read
# goes only to what was read.


# %% exercise="scatter-last" role="wrong" says="receives a gradient although"
def scatter_last(base: Tensor, index: Tensor, src: Tensor) -> Tensor:
    # The winner is not promised, and the gradient goes to everybody.
    return base.scatter(0, index, src)


# %% exercise="scatter-last" role="wrong" says="nobody wrote cell"
def scatter_last(base: Tensor, index: Tensor, src: Tensor) -> Tensor:
    # Cells that nobody wrote read src[0].
    order = torch.arange(len(index))
    winner = torch.zeros(len(base), dtype=torch.long)
    return src[winner.scatter_reduce(0, index, order, "amax")]


# %% exercise="scatter-last" role="wrong" says="it is the last write"
def scatter_last(base: Tensor, index: Tensor, src: Tensor) -> Tensor:
    # The first write wins.
    order = torch.arange(len(index))
    winner = torch.full(base.shape, len(index))
    winner = winner.scatter_reduce(0, index, order, "amin")
    nobody = winner == len(index)
    return torch.where(nobody, base, src[winner.masked_fill(nobody, 0)])


# %% exercise="scatter-last" role="wrong" says="nobody promises who wins"
def scatter_last(base: Tensor, index: Tensor, src: Tensor) -> Tensor:
    # Right today, on one thread of a CPU: the last write happens to win.
    winner = torch.full(base.shape, -1).scatter(0, index, torch.arange(len(index)))
    return torch.where(winner < 0, base, src[winner.clamp(min=0)])


# %% exercise="scatter-last" role="wrong" says="remove the loop"
def scatter_last(base: Tensor, index: Tensor, src: Tensor) -> Tensor:
    last = {cell: k for k, cell in enumerate(index.tolist())}
    out = base
    for k, cell in enumerate(index.tolist()):
        if last[cell] == k:
            out = out.index_put((torch.tensor(cell),), src[k])
    return out


# %% exercise="scatter-last" role="solution"
def scatter_last(base: Tensor, index: Tensor, src: Tensor) -> Tensor:
    order = torch.arange(len(index), device=index.device)
    winner = torch.full(base.shape, -1, device=index.device)
    winner = winner.scatter_reduce(0, index, order, "amax")  # the same in any order
    nobody = winner < 0
    # where() sends no gradient to the side that it did not take.
    return torch.where(nobody, base, src[winner.clamp(min=0)])
