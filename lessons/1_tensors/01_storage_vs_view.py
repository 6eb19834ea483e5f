# %% [markdown] lang="pl"
# # Magazyn danych kontra widok: co naprawdę trzyma tensor
#
# Tensor to opis nałożony na blok bajtów, z którego mogą korzystać także inne tensory.
# Opis podaje kształt, kroki (co ile komórek leżą kolejne elementy) i przesunięcie (od
# której komórki zaczynać). Przewidzisz z niego, czy zmiana kształtu da ci widok,
# kopię czy wyjątek. Rozmiar bloku powie, ile bajtów tensor zatrzyma w pamięci i zajmie
# na dysku.
#
# ## Augmentacja, która niczego nie zaczernia
#
# Funkcja `erase_` od miesięcy zaczernia wylosowane piksele. Wczoraj ktoś dodał przed nią
# kadrowanie. Trening nadal przebiega bez błędu, ale żaden piksel nie robi się czarny.

# %% [markdown] lang="en"
# # Storage vs view: what a tensor really holds
#
# A tensor is a description laid over a block of bytes that other tensors may use too.
# The description gives a shape, strides (how many cells apart successive elements lie)
# and an offset (the cell to start from). From it you can predict whether changing
# the shape gives you a view, a copy or an exception. The size of the block tells you
# how many bytes the tensor keeps in memory and takes up on disk.
#
# ## The augmentation that erases nothing
#
# For months the function `erase_` has been blacking out randomly chosen pixels.
# Yesterday someone added a crop in front of it. Training still runs without an error,
# but not a single pixel turns black.

# %% fold=true
import io
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, ORANGE, show_figure
from snippets.memory_pictures import show_memory

torch.manual_seed(0)
torch.set_num_threads(1)


def make_photo(height: int = 96, width: int = 144) -> Tensor:
    """Draw a sun over a hill as bytes, (height, width, channel)."""
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width).expand(height, width)
    sky = torch.stack([0.35 + 0.4 * y, 0.55 + 0.2 * y, 0.95 - 0.2 * y], dim=-1)
    sun = ((1.5 * (x - 0.7)) ** 2 + (y - 0.35) ** 2 < 0.04)[..., None]
    hill = (y > 0.72 + 0.12 * torch.sin(6 * x))[..., None]
    image = torch.where(sun, torch.tensor([1.0, 0.8, 0.2]), sky)
    image = torch.where(hill, torch.tensor([0.2, 0.55, 0.25]), image)
    return (255 * image).to(torch.uint8)


# %%
def erase_(image: Tensor, pixels: Tensor) -> None:
    """Black out pixels of an image (height, width, channel), counted row by row."""
    image.reshape(-1, 3)[pixels] = 0


def black_pixels(image: Tensor) -> int:
    return int((image == 0).all(dim=-1).sum())


photo = make_photo()  # (96, 144, 3)
pixels = torch.randperm(64 * 96)[:500]
whole = photo.clone()
crop = photo.clone()[16:80, 24:120]  # (64, 96, 3)
erase_(whole, pixels)
erase_(crop, pixels)
erased_whole = black_pixels(whole)
erased_crop = black_pixels(crop)
print(f"{erased_whole=}, {erased_crop=}")
assert black_pixels(photo) == 0
assert (erased_whole, erased_crop) == (500, 0)

# %% [markdown] lang="pl"
# Na całym zdjęciu czarnych pikseli jest {{ erased_whole }}, na kadrze
# {{ erased_crop }}, bez wyjątku i bez ostrzeżenia. Pytanie tej lekcji: **znasz kształt
# i kroki tensora; czy zapis przez `reshape` trafi do jego pamięci, czy do kopii?**
#
# ## Przewidź, kiedy `view` zgłosi wyjątek
#
# Metoda `view` nigdy nie kopiuje: daje **widok** (*view*), czyli tensor korzystający z
# tej samej pamięci, albo zgłasza wyjątek. Zamieńmy w `erase_` wywołanie
# `reshape(-1, 3)` na
# `view(-1, 3)` i przekażmy jej część wierszy (`photo[16:80]`), część kolumn
# (`photo[:, 24:120]`) i co drugą kolumnę (`photo[:, ::2]`). Tensor jest **ciągły**
# (*contiguous*), gdy jego elementy, czytane wiersz po wierszu, leżą w pamięci jeden za
# drugim. Z tych trzech ciągły jest tylko pierwszy.

# %% [markdown] lang="en"
# The whole photo has {{ erased_whole }} black pixels, the crop {{ erased_crop }}, with
# no exception and no warning. The question of this lesson: **given a tensor's shape and
# strides, does a write through `reshape` reach its memory or end up in a copy?**
#
# ## Predict when `view` raises
#
# The method `view` never copies: it either returns a **view**, a tensor that uses the
# same memory, or raises an exception. Let's replace `reshape(-1, 3)` in `erase_` with
# `view(-1, 3)` and pass in some of the rows (`photo[16:80]`), some of the columns
# (`photo[:, 24:120]`) and every other column (`photo[:, ::2]`). A tensor is
# **contiguous** if its elements, read row by row, lie one after another in memory. Of
# these three, only the first is.

# %% [markdown] lang="pl" predict="view-raises"
# Które wywołania zgłoszą wyjątek?
#
# - [ ] Oba dla tensorów nieciągłych: `view` wymaga ciągłości.
#
#   Przeczy temu `photo[:, ::2]`: tensor nie jest ciągły, a wywołanie `view` się udało.
#
# - [x] Tylko to dla `photo[:, 24:120]`.
#
#   Z trzech wywołań tylko to zgłasza wyjątek. Nie decyduje o tym ani ciągłość, ani
#   liczba elementów. Co decyduje, odczytamy z kroków.
#
# - [ ] Żadne: liczba elementów się zgadza.
#
#   Przeczy temu `photo[:, 24:120]`: liczba elementów się zgadza, a wyjątek i tak się
#   pojawił.

# %% [markdown] lang="en" predict="view-raises"
# Which calls will raise?
#
# - [ ] Both calls on non-contiguous tensors: `view` requires contiguity.
#
#   `photo[:, ::2]` refutes this: the tensor is not contiguous, yet `view` succeeded.
#
# - [x] Only the one on `photo[:, 24:120]`.
#
#   Of the three calls, only this one raises. Neither contiguity nor the number of
#   elements decides. What does, we will read from the strides.
#
# - [ ] None of them: the number of elements matches.
#
#   `photo[:, 24:120]` refutes this: the number of elements matches, yet the call
#   raised.


# %%
def can_view(x: Tensor, *shape: int) -> bool:
    """Tell whether `x.view(shape)` succeeds."""
    try:
        x.view(shape)
    except RuntimeError:
        return False
    return True


parts = {
    "photo[16:80]": photo[16:80],
    "photo[:, 24:120]": photo[:, 24:120],
    "photo[:, ::2]": photo[:, ::2],
}
for name, part in parts.items():
    print(f"{name:17} {part.is_contiguous()=!s:5} view={can_view(part, -1, 3)}")
assert [part.is_contiguous() for part in parts.values()] == [True, False, False]
assert [can_view(part, -1, 3) for part in parts.values()] == [True, False, True]

# %% [markdown] lang="pl"
# ## Jeden magazyn, wiele opisów
#
# Bajty leżą w **magazynie danych** (*storage*), czyli w jednowymiarowym bloku bez
# wierszy i kolumn. Tensor dodaje do niego kształt, **przesunięcie** (*offset*), czyli
# numer komórki pierwszego elementu, i **krok** (*stride*) dla każdego wymiaru: o ile
# komórek dalej leży następny element.

# %% [markdown] lang="en"
# ## One storage, many descriptions
#
# The bytes live in a **storage**, a one-dimensional block with no rows or columns. A
# tensor adds a shape, an **offset** (the number of the cell that holds its first
# element) and a **stride** for each dimension: how many cells further on the next
# element lies.


# %%
def same_storage(a: Tensor, b: Tensor) -> bool:
    """Tell whether two non-empty tensors use one storage."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


x = torch.arange(10.0, 70.0, 10.0).reshape(2, 3)
drawn = {
    "x": x,
    "x.t()": x.t(),
    "x[:, ::2]": x[:, ::2],
    "x[1:].expand(2, 3)": x[1:].expand(2, 3),
    "x.t().reshape(-1)": x.t().reshape(-1),
}
assert [same_storage(x, y) for y in drawn.values()] == [True] * 4 + [False]
assert [y.stride() for y in drawn.values()] == [(3, 1), (1, 3), (3, 2), (0, 1), (1,)]
assert [y.storage_offset() for y in drawn.values()] == [0, 0, 0, 3, 0]

# %% fold=true
named = {f"{name} [{'AB'[not same_storage(x, y)]}]": y for name, y in drawn.items()}
show_memory(
    dict(list(named.items())[:3]),
    alt_pl="Trzy tensory jako siatki, a obok ich magazyny jako paski komórek. Pasek A "
    "jest zawsze ten sam, od 10 do 60: transpozycja tylko inaczej go czyta, a wycinek "
    "omija dwie komórki.",
    alt_en="Three tensors as grids, next to their storages as strips of cells. Strip A "
    "is always the same, from 10 to 60: the transpose only reads it differently, "
    "and the slice skips two cells.",
)
show_memory(
    dict(list(named.items())[3:]),
    alt_pl="Dwa następne tensory. Wynik expand czyta trzy ostatnie komórki paska A po "
    "dwa razy. Wynik reshape ma własny pasek B, z inną kolejnością wartości.",
    alt_en="Two more tensors. The result of expand reads the last three cells of strip A "
    "twice each. The result of reshape has its own strip B, its values in another order.",
)

# %% [markdown] lang="pl"
# Siatka po lewej pokazuje, jak opis czyta pasek po prawej; ta sama wartość ma wszędzie
# ten sam kolor. Litera w nawiasie to nazwa magazynu, a adresy liczą się od początku
# każdego z nich. Pierwsze cztery tensory mają ten sam pasek A: `x.t()` niczego nie przenosi, `x[:, ::2]`
# omija komórki z przerywaną ramką, a krok 0 w `x[1:].expand(2, 3)` każe obu wierszom
# czytać te same komórki (stąd ×2). Dopiero `x.t().reshape(-1)` ma magazyn B z inną
# kolejnością wartości: to kopia.
#
# ## Adres to jedno mnożenie na każdy wymiar
#
# W C++ tensor to obiekt `TensorImpl`: trzyma kształt, kroki, przesunięcie, typ i
# wskaźnik na magazyn, `StorageImpl`. Widok to nowy `TensorImpl` ze wskaźnikiem na ten
# sam `StorageImpl`. Element o indeksach $i_0, i_1, \dots$ leży pod adresem
#
# $$\text{storage} + \text{itemsize} \cdot
# \Big(\text{offset} + \sum_k i_k \cdot \text{stride}_k\Big).$$
#
# Sprawdźmy to na widoku, w którym nic nie jest po kolei.

# %% [markdown] lang="en"
# The grid on the left shows how the description reads the strip on the right; each
# value keeps its colour. The letter in brackets names the storage, and addresses count
# from the start of each storage. The first four tensors have the same strip A: `x.t()` moves
# nothing, `x[:, ::2]` skips the cells with a dashed frame, and the stride of 0 in
# `x[1:].expand(2, 3)` makes both rows read the same cells (hence ×2). Only
# `x.t().reshape(-1)` has a storage of its own, B, with the values in a different order:
# it is a copy.
#
# ## An address is one multiplication per dimension
#
# In C++ a tensor is a `TensorImpl` object: it holds the shape, the strides, the offset,
# the data type and a pointer to the storage, a `StorageImpl`. A view is a new
# `TensorImpl` with a pointer to the same `StorageImpl`. The element with indices
# $i_0, i_1, \dots$ lies at the address
#
# $$\text{storage} + \text{itemsize} \cdot
# \Big(\text{offset} + \sum_k i_k \cdot \text{stride}_k\Big).$$
#
# Let's check this on a view in which nothing is in order.


# %%
def address(x: Tensor, index: Sequence[int]) -> int:
    """Compute where an element lies from the tensor's description."""
    jumps = sum(i * step for i, step in zip(index, x.stride(), strict=True))
    cell = int(x.storage_offset()) + jumps
    return x.untyped_storage().data_ptr() + x.element_size() * cell


block = torch.arange(24).reshape(2, 3, 4)
odd = block.permute(2, 0, 1)[1:, :, ::2]
print(f"{tuple(odd.shape)=} {odd.stride()=} {odd.storage_offset()=}")
assert odd._cdata != block._cdata  # private: the address of the TensorImpl
assert odd.untyped_storage()._cdata == block.untyped_storage()._cdata  # StorageImpl
indices = list(itertools.product(*(range(size) for size in odd.shape)))
assert all(address(odd, index) == odd[index].data_ptr() for index in indices)
assert (len(indices), odd.stride(), odd.storage_offset()) == (12, (1, 12, 8), 1)

# %% [markdown] lang="pl"
# Wzór zgadza się co do bajta i tłumaczy cichą awarię (*silent failure*) z początku
# lekcji. Gdyby `reshape(-1, 3)` miał dać widok kadru, z każdego piksela do następnego
# musiałby prowadzić ten sam krok. Policzmy ten krok wewnątrz wiersza i z końca wiersza na początek następnego.

# %% [markdown] lang="en"
# The formula is right to the byte, and it explains the silent failure we started with.
# For `reshape(-1, 3)` to give a view of the crop, the same stride would have to lead
# from each pixel to the next.
# Let's compute that stride within a row, and from the end of one row to the start of
# the next.

# %%
inside = address(crop, (0, 1, 0)) - address(crop, (0, 0, 0))  # uint8: 1 B per element
across = address(crop, (1, 0, 0)) - address(crop, (0, 95, 0))
print(f"{crop.stride()=} {inside=} {across=}")
assert (inside, across) == (3, 147)
assert not same_storage(crop, crop.reshape(-1, 3))
assert same_storage(whole, whole.reshape(-1, 3))

# %% [markdown] lang="pl"
# Jeden krok nie może wynosić zarazem {{ inside }} i {{ across }}. Nowego kształtu nie
# da się opisać w starym magazynie, więc `reshape` bez ostrzeżenia zwraca kopię i to w
# niej znika zapis.
#
# ## Reguła metody `view` zapisana w Pythonie
#
# Metoda `view` idzie po wymiarach od prawej i skleja je w **ciągi**, które da się przejść
# jednym krokiem. Wymiar dołącza do ciągu po swojej prawej stronie, gdy jego krok równa
# się liczbie elementów ciągu razy krok tego ciągu.
#
# Policzmy ręcznie `photo[:, 24:120]`: kształt (96, 96, 3), kroki (432, 3, 1). Kanały to
# ciąg 3 elementów z krokiem 1. Kolumny mają krok 3, a 3 · 1 = 3: sklejamy, ciąg ma już
# 288 elementów. Wiersze mają krok 432, a 288 · 1 ≠ 432: tu zaczyna się drugi ciąg.

# %% [markdown] lang="en"
# One stride cannot be both {{ inside }} and {{ across }}. The new shape cannot be
# described in the old storage, so `reshape` silently returns a copy, and that is where
# the write vanishes.
#
# ## The rule of `view` rebuilt in Python
#
# The method `view` goes through the dimensions from right to left and glues them into
# **runs** that can be walked with a single stride. A dimension joins the run to its
# right if its stride equals the number of elements in the run times the stride of the
# run.
#
# Let's work through `photo[:, 24:120]` by hand: shape (96, 96, 3), strides (432, 3, 1).
# The channels are a run of 3 elements with stride 1. The columns have stride 3, and 3 ·
# 1 = 3: we glue, and the run now has 288 elements. The rows have stride 432, and 288 ·
# 1 ≠ 432: this is where a second run begins.


# %%
def runs(shape: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Glue dimensions into runs (elements, stride), starting from the last one."""
    found: list[tuple[int, int]] = []
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size == 1:
            continue  # its index is always 0, so its stride enters no address
        if found and step == math.prod(found[-1]):
            found[-1] = (found[-1][0] * size, found[-1][1])
        else:
            found.append((size, step))
    return found or [(1, 1)]


for name, part in parts.items():
    print(f"{name:17} {part.stride()=!s:12} {runs(part.shape, part.stride())}")
assert [runs(part.shape, part.stride()) for part in parts.values()] == [
    [(27648, 1)],
    [(288, 1), (96, 432)],
    [(3, 1), (6912, 6)],
]

# %% fold=true
t = torch.arange(10.0, 130.0, 10.0).reshape(3, 4)
columns = {"t[:, 1:3]": t[:, 1:3], "t[:, ::2]": t[:, ::2]}
show_memory(
    columns,
    runs={name: runs(y.shape, y.stride()) for name, y in columns.items()},
    alt_pl="Dwa wycinki tensora o 3 wierszach i 4 kolumnach. Elementy t[:, 1:3] leżą "
    "parami: trzy krótkie grzebienie (2, 1) i jeden długi (3, 4), dwa ciągi. Elementy "
    "t[:, ::2] leżą w równych odstępach: jeden grzebień (6, 2), jeden ciąg.",
    alt_en="Two slices of a tensor with 3 rows and 4 columns. The elements of t[:, 1:3] "
    "lie in pairs: three short combs (2, 1) and a long one (3, 4), two runs. The "
    "elements of t[:, ::2] are evenly spaced: one comb (6, 2), one run.",
)
assert can_view(columns["t[:, ::2]"], -1)
assert not can_view(columns["t[:, 1:3]"], -1)

# %% [markdown] lang="pl"
# Każdy grzebień to przejście jednym krokiem, opisane parą (elementy, krok). W `t[:, 1:3]`
# wewnątrz pary idziemy o 1 komórkę, a z końca pary na początek następnej o 3, więc ciągi
# są dwa: (2, 1), narysowany w każdym wierszu, i (3, 4), który prowadzi od wiersza do
# wiersza. W `t[:, ::2]` z końca wiersza na początek następnego idziemy o 2 komórki, tak
# samo jak wewnątrz wiersza, więc ciąg jest jeden.
#
# Druga połowa reguły: wymiary nowego kształtu muszą wypełnić każdy ciąg co do elementu,
# bo żaden wymiar nie może objąć dwóch ciągów.

# %% [markdown] lang="en"
# Each comb is a walk with a single stride, labelled (elements, stride). In `t[:, 1:3]`
# we move by 1 cell inside a pair and by 3 from the end of a pair to the next one, so
# there are two runs: (2, 1), drawn in every row, and (3, 4), which leads from row to
# row. In `t[:, ::2]` we move by 2 cells from the end of a row to the next one, just as
# inside a row, so there is one run.
#
# The second half of the rule: the dimensions of the new shape must fill every run
# exactly, because no dimension may span two runs.


# %%
def view_strides(
    shape: Sequence[int], stride: Sequence[int], new: Sequence[int]
) -> tuple[int, ...] | None:
    """Find the strides of `x.view(new)` for a non-empty tensor and `new` without -1.

    Returns:
        The strides; None where `view` raises.
    """
    left = list(new)
    strides: list[int] = []
    for elements, step in runs(shape, stride):
        covered = 1
        # A dimension of size 1 fits anywhere.
        while left and (covered < elements or left[-1] == 1):
            strides.append(covered * step)
            covered *= left.pop()
        if covered != elements:
            return None  # a new dimension would span two runs
    return None if left else tuple(reversed(strides))


for name, part in parts.items():
    new = (part.numel() // 3, 3)
    print(f"{name:17} {new} {view_strides(part.shape, part.stride(), new)}")
assert photo[:, 24:120].numel() // 3 == 96 * 96
assert view_strides((96, 72, 3), (432, 6, 1), (6912, 3)) == (6, 1)
assert view_strides((96, 72, 3), (432, 6, 1), (20736,)) is None
assert not can_view(photo[:, ::2], -1)

# %% [markdown] lang="pl"
# Wiadomo już, dlaczego poprawna jest **B**. W `photo[:, 24:120]` są ciągi (288, 1) i
# (96, 432), a wymiar 96 · 96 pikseli musiałby objąć oba. W `photo[:, ::2]` są ciągi
# (3, 1) i (6912, 6): kształt (6912, 3) wypełnia je dokładnie, a wywołanie `view(-1)`
# by się nie udało, bo jeden wymiar objąłby oba.
#
# Trzy przykłady niewiele dowodzą. Wygenerujmy pięć tysięcy tensorów i kształtów, także
# takich o złej liczbie elementów, i porównajmy naszą regułę z PyTorchem.

# %% [markdown] lang="en"
# Now we know why **B** is right. `photo[:, 24:120]` has the runs (288, 1) and (96,
# 432), and a dimension of 96 · 96 pixels would have to span both. `photo[:, ::2]` has
# the runs (3, 1) and (6912, 6): the shape (6912, 3) fills them exactly, whereas
# `view(-1)` would fail, because its one dimension would span both.
#
# Three examples prove little. Let's generate five thousand tensors and shapes,
# including some shapes with the wrong number of elements, and compare our rule with
# PyTorch.


# %% fold=true
def random_tensor(rng: random.Random) -> Tensor:
    """Permute, slice and expand a small tensor at random."""
    x = torch.zeros([rng.choice((1, 2, 3, 4, 6)) for _ in range(rng.randint(2, 4))])
    x = x.permute(rng.sample(range(x.dim()), x.dim()))
    for dim in range(x.dim()):
        if rng.random() < 0.3:
            x = x.narrow(dim, 0, rng.randint(1, x.shape[dim]))
        if x.shape[dim] == 1 and rng.random() < 0.5:
            x = x.expand([3 if d == dim else -1 for d in range(x.dim())])
    return x


def random_shape(numel: int, rng: random.Random) -> list[int]:
    """Split a number of elements into random factors; one time in ten spoil it."""
    shape: list[int] = []
    while numel > 1:
        factor = rng.choice([f for f in range(2, numel + 1) if numel % f == 0])
        shape.append(factor)
        numel //= factor
    shape.insert(rng.randint(0, len(shape)), 1)
    if rng.random() < 0.1:
        shape[rng.randrange(len(shape))] += 1
    return shape


def moving(x: Tensor, strides: Sequence[int]) -> list[int]:
    """Keep the strides that enter an address: those of dimensions longer than 1."""
    return [step for size, step in zip(x.shape, strides, strict=True) if size > 1]


def agree(x: Tensor, shape: Sequence[int]) -> bool:
    """Compare our prediction with what `view` does."""
    ours = view_strides(x.shape, x.stride(), shape)
    if not can_view(x, *shape):
        return ours is None
    theirs = x.view(shape)
    return (
        ours is not None
        and moving(theirs, ours) == moving(theirs, theirs.stride())
        and same_storage(x, theirs)
    )


# %%
tried = 5000
rng = random.Random(0)
tensors = [random_tensor(rng) for _ in range(tried)]
cases = [(y, random_shape(y.numel(), rng)) for y in tensors]
agreed = sum(agree(y, shape) for y, shape in cases)
fitting = [(y, shape) for y, shape in cases if math.prod(shape) == y.numel()]
strided_cases = [(y, shape) for y, shape in fitting if not y.is_contiguous()]
strided = len(strided_cases)
strided_views = sum(can_view(y, *shape) for y, shape in strided_cases)
print(f"{agreed=} of {tried}, {strided=}, {strided_views=}")
assert agreed == tried
assert len(fitting) < tried
assert 0 < strided_views < strided
assert all(can_view(y, *s) == same_storage(y, y.reshape(s)) for y, s in fitting)

# %% [markdown] lang="pl"
# Zgodność: {{ agreed }} na {{ tried }}, a sprawdzaliśmy wynik, kroki i magazyn. Wśród
# prób z tensorem nieciągłym i właściwą liczbą elementów wywołanie `view` raz się
# udawało, a raz nie. Metoda `reshape` zwróciła widok dokładnie wtedy, gdy udało się
# `view`: w C++ pyta tę samą funkcję o kroki, a gdy ich nie dostanie, kopiuje. To
# odpowiedź na pytanie lekcji: **zapis przez `reshape` trafia do pamięci tensora, gdy nowe wymiary
# wypełniają jego ciągi, a w przeciwnym razie do kopii**.
#
# ## Ile kosztują widoki i układy w pamięci
#
# Najpierw bajty. Model: widok zatrzymuje cały magazyn. Dziesięć liczb `float32` to
# {{ ten_bytes }} B, ale jako widok macierzy 1000 × 1000 powinny zatrzymać
# {{ storage_bytes }} B. Tyle samo powinno trafić do pliku, bo `torch.save` zapisuje
# magazyny, nie elementy.

# %% [markdown] lang="en"
# Agreement: {{ agreed }} out of {{ tried }}, in outcome, strides and storage. With a
# non-contiguous tensor and the right number of elements, `view` sometimes succeeded and
# sometimes did not. The method `reshape` returned a view exactly when `view` succeeded:
# in C++ it asks the same function for strides, and copies if there are none. That
# answers the question of this lesson: **a write through `reshape`
# reaches the tensor's memory if the new dimensions fill its runs, and ends up in a copy
# if they do not**.
#
# ## What views and layouts cost
#
# Bytes first. The model: a view keeps the whole storage alive. Ten `float32` numbers
# are {{ ten_bytes }} B, but as a view of a 1000 × 1000 matrix they should keep
# {{ storage_bytes }} B. The same number of bytes should go into a file, because
# `torch.save` writes storages, not elements.


# %%
def saved(value: object) -> io.BytesIO:
    """Save to a file in memory and rewind it."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


big = torch.zeros(1000, 1000)
ten = big[0, :10]
ten_bytes = ten.nbytes
storage_bytes = ten.untyped_storage().nbytes()
view_file = saved(ten).getbuffer().nbytes
clone_file = saved(ten.clone()).getbuffer().nbytes
print(f"{ten_bytes=}, {storage_bytes=}, {view_file=}, {clone_file=}")
assert (ten_bytes, storage_bytes) == (40, 4 * 1000 * 1000)
assert 0 < view_file - storage_bytes < 2_000
assert 0 < clone_file - ten_bytes < 2_000

kept = [torch.zeros(1000, 1000)[0, :10] for _ in range(20)]
shown_bytes = sum(row.nbytes for row in kept)
held_bytes = sum(row.untyped_storage().nbytes() for row in kept)
print(f"{shown_bytes=}, {held_bytes=}")
assert len({row.untyped_storage().data_ptr() for row in kept}) == 20
assert (shown_bytes, held_bytes) == (800, 80_000_000)
del kept

# %% [markdown] lang="pl"
# Plik z widokiem ma {{ view_file }} B, z kopią {{ clone_file }} B: przewidywanie się
# sprawdza, a około 1,5 kB w każdym to metadane. W pamięci rachunek jest ten sam: lista,
# która na potrzeby logów zachowuje po dziesięć liczb z 20 iteracji, pokazuje
# {{ shown_bytes }} B, a trzyma {{ held_bytes }} B.
#
# Zapisywanie całych magazynów ma swój powód: tensory o wspólnym magazynie, zapisane w
# jednym wywołaniu, mają wspólny magazyn także po wczytaniu.

# %% [markdown] lang="en"
# The file with the view takes {{ view_file }} B, the one with the copy {{ clone_file }}
# B: the prediction holds, and about 1.5 kB of each is metadata. The same arithmetic
# applies in memory: a list that keeps ten numbers from each of 20 iterations for
# logging shows {{ shown_bytes }} B but holds {{ held_bytes }} B.
#
# There is a reason for writing whole storages: tensors that share a storage and are
# saved in one call still share it after loading.

# %%
rows_file = saved([big[i] for i in range(10)]).getbuffer().nbytes
print(f"{rows_file=}")
assert rows_file - storage_bytes < 5_000  # ten rows, one storage

weight = torch.zeros(2, 3)
loaded = torch.load(saved({"embedding": weight, "output": weight.t()}))
loaded["embedding"][1, 2] = 5
assert loaded["output"][2, 1] == 5  # tied weights stay tied

# %% [markdown] lang="pl"
# Teraz czas. Procesor pobiera dane liniami pamięci podręcznej (*cache lines*), zwykle po
# 64 B, czyli po 16 liczb `float32`. Przy kroku $s$ ta sama liczba elementów zajmuje $s$
# razy więcej linii, ale najwyżej 16 razy więcej, bo od kroku 16 każdy element ma własną
# linię. Przewidywanie: $\min(s, 16)$.

# %% [markdown] lang="en"
# Now time. The CPU fetches data in *cache lines*, usually 64 B each, which is 16
# `float32` numbers. With stride $s$ the same number of elements takes up $s$ times as
# many lines, but at most 16 times as many, since from stride 16 on every element has a
# line of its own. The prediction: $\min(s, 16)$.


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


strides = (1, 2, 4, 8, 16, 32, 64)
line = torch.ones(64 << 18)
walks = [line[: step << 18 : step] for step in strides]
assert {walk.numel() for walk in walks} == {1 << 18}
assert walks[0].nbytes == 1 << 20  # 1 MiB of whole lines
assert 64 * walks[4].numel() == 16 << 20  # a 64 B line for each element: 16 MiB
seconds = fastest([walk.sum for walk in walks])
stride_costs = [s / seconds[0] for s in seconds]
stride_cost = stride_costs[strides.index(16)]
longest_cost = stride_costs[-1]
print([round(cost, 1) for cost in stride_costs])
assert stride_cost > 2 * stride_costs[1]

# %% fold=true measured=true
fig, axis = plt.subplots(figsize=(7.2, 2.8))
lines = [min(step, 16) for step in strides]
axis.plot(strides, lines, color=ORANGE, ls="--", label="predicted: cache lines")
axis.plot(strides, stride_costs, color=BLUE, marker="o", label="measured: time")
axis.set(xscale="log", yscale="log", xlabel="stride (elements)", ylabel="cost, ×")
axis.set_xticks(strides, [str(step) for step in strides])
axis.set_yticks(strides[:6], [str(step) for step in strides[:6]])
axis.minorticks_off()
axis.legend()
show_figure(
    fig,
    alt_pl="Wykres w skali logarytmicznej: koszt zsumowania tej samej liczby elementów "
    "rośnie z krokiem. Przewidywanie rośnie od 1 do 16 i dalej jest płaskie, pomiar się "
    "z nim nie pokrywa.",
    alt_en="Log-log chart: the cost of summing the same number of elements grows with "
    "the stride. The prediction grows from 1 to 16 and is flat from there on; the "
    "measurement does not coincide with it.",
    pl={
        "predicted: cache lines": "przewidywanie: linie pamięci podręcznej",
        "measured: time": "pomiar: czas",
        "stride (elements)": "krok (w elementach)",
        "cost, ×": "koszt, ×",
    },
)

# %% [markdown] lang="pl"
# Pomiar rośnie z krokiem, ale nie pokrywa się z modelem: krok 16 kosztował
# {{ stride_cost:.1f }}× tyle co krok 1, a krok 64 aż {{ longest_cost:.1f }}×, choć model
# dla obu przewiduje 16×. Model liczy linie, nie ich cenę ani samo dodawanie. Możliwych
# przyczyn różnicy (16 MiB linii zamiast 1 MiB, więcej stron pamięci) tu nie mierzymy.
# Asercja sprawdza tylko, że krok 16 kosztuje ponad dwa razy tyle co krok 2.
#
# Czy zatem tensor nieciągły jest powolny? Dodajmy wiersze do wierszy, kolumny do kolumn i
# wiersze do kolumn. Dodawanie ma trzy strumienie: dwa odczyty i zapis. Gdy jeden z
# odczytów idzie w poprzek wierszy, a każdy jego element wymaga nowej linii,
# przewidujemy koszt około (1 + 1 + 16) / 3 = 6 razy większy.

# %% [markdown] lang="en"
# The measured cost grows with the stride but does not match the model: stride 16 cost
# {{ stride_cost:.1f }}× as much as stride 1, and stride 64 cost
# {{ longest_cost:.1f }}×, although the model gives 16× for both. The model counts
# lines, neither their price nor the additions themselves. Possible reasons for the
# difference (16 MiB of lines instead of 1 MiB, more memory pages) are not measured
# here. The assertion checks only that stride 16 costs more than
# twice as much as stride 2.
#
# So is a non-contiguous tensor slow? Let's add rows to rows, columns to columns, and
# rows to columns. An addition has three streams: two reads and a write. If one of the
# reads goes across the rows, and each of its elements needs a new line, we predict
# about (1 + 1 + 16) / 3 = 6 times the cost.

# %% measured=true
a, b = torch.ones(2, 512, 512)
c = torch.empty(512, 512)
rows_s, columns_s, mixed_s = fastest(
    [
        lambda: torch.add(a, b, out=c),
        lambda: torch.add(a.t(), b.t(), out=c.t()),
        lambda: torch.add(a, b.t(), out=c),
    ],
    rounds=30,
)
columns_cost = columns_s / rows_s
mixed_cost = mixed_s / rows_s
print(f"{columns_cost=:.1f} {mixed_cost=:.1f}")
assert not a.t().is_contiguous()
assert mixed_cost > 2
assert columns_cost < 2  # not contiguous, and yet no mixture
assert torch.add(a.t(), b.t()).stride() == (1, 512)  # the result has their order, too

# %% [markdown] lang="pl"
# Kolumny z kolumnami kosztowały {{ columns_cost:.1f }}× tyle co wiersze z wierszami,
# choć żaden z tych tensorów nie jest ciągły: klasa `TensorIterator` przechodzi je w
# kolejności, w jakiej leżą w pamięci. Wiersze z kolumnami kosztowały
# {{ mixed_cost:.1f }}× tyle. Model dawał około 6×: pomija linie, które zostały w
# pamięci podręcznej, i instrukcje wektorowe. Asercje wymagają ponad 2× dla układów
# mieszanych i poniżej 2× dla kolumn z kolumnami. Kosztują luki w pamięci i mieszane
# układy; sama nieciągłość nie.
#
# ## Co się psuje i jak to zauważyć
#
# Zacznijmy od wyjątku. Kadr ma dwa ciągi i to o nich mówi komunikat.

# %% [markdown] lang="en"
# Columns with columns cost {{ columns_cost:.1f }}× as much as rows with rows, although
# none of those tensors is contiguous: the class `TensorIterator` walks them in the
# order they lie in memory. Rows with columns cost {{ mixed_cost:.1f }}× as much. The
# model gave about 6×: it ignores lines that stay in the cache, and vector instructions.
# The assertions require more than 2× for mixed layouts and less than 2× for columns
# with columns. Gaps in memory and mixed layouts are expensive; non-contiguity by itself
# is not.
#
# ## What breaks and how to notice
#
# Let's start with the exception. The crop has two runs, and that is what the message is
# about.

# %% raises="RuntimeError: view size is not compatible with input tensor's size and stride (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead"
assert len(runs(crop.shape, crop.stride())) == 2
crop.view(-1, 3)

# %% [markdown] lang="pl"
# Rada z końca komunikatu jest dobra w funkcji, która tylko czyta. W funkcji, która
# zmienia tensor, zamiana na `reshape` **jest** naszym błędem z początku lekcji. Tam
# właśnie `view` jest najtańszym zabezpieczeniem: zamiast zgubić zapis, zgłasza wyjątek.
#
# Druga pułapka: ten sam kształt, inne dane. Obraz wczytany przez OpenCV lub PIL (po
# zamianie na tablicę) ma układ (wysokość, szerokość, kanał), a warstwy splotowe
# PyTorcha oczekują układu (kanał, wysokość, szerokość). Metoda `permute` przestawia
# kroki razem z wymiarami. Metoda `reshape` zostawia elementy w kolejności czytania i
# tylko inaczej dzieli je na wymiary.

# %% [markdown] lang="en"
# A function that only reads may follow the advice at the end of the message. In a
# function that modifies a tensor, switching to `reshape` **is** the bug we started
# with. There `view` is the cheapest guard: it raises instead of losing the write.
#
# The second trap: same shape, different data. Images from OpenCV, or from PIL converted
# to an array, are (height, width, channel), while PyTorch's convolutions expect
# (channel, height, width). The method
# `permute` reorders the strides together with the dimensions. The method `reshape`
# keeps the elements in reading order and only divides them into dimensions differently.

# %%
permuted = photo.permute(2, 0, 1)
reshaped = photo.reshape(3, 96, 144)
equal_share = 100 * (permuted == reshaped).float().mean().item()
print(f"{permuted.stride()=} {reshaped.stride()=} {equal_share=:.1f}")
assert permuted.shape == reshaped.shape
assert same_storage(permuted, photo) and same_storage(reshaped, photo)
assert equal_share < 10

row, column = 40, 100  # the guard: follow one pixel through the change of shape
assert torch.equal(permuted[:, row, column], photo[row, column])
assert not torch.equal(reshaped[:, row, column], photo[row, column])

# %% fold=true
fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.4))
channels = {"permuted[0]": permuted[0], "reshaped[0]": reshaped[0]}
for picture, (name, channel) in zip(axes, channels.items(), strict=True):
    picture.imshow(channel.numpy(), cmap="gray", interpolation="nearest")
    picture.set_title(name, family="monospace", fontsize=9)
    picture.axis("off")
show_figure(
    fig,
    alt_pl="Dwa szare obrazy. permuted[0] to czerwony kanał zdjęcia: słońce nad "
    "wzgórzem. reshaped[0] to pionowe prążki z fragmentem słońca, powielonym i "
    "rozciągniętym.",
    alt_en="Two grey images. permuted[0] is the red channel of the photo: a sun over a "
    "hill. reshaped[0] is a pattern of vertical stripes with part of the sun, repeated "
    "and stretched.",
    same=tuple(channels),
)
assert torch.equal(reshaped[0].flatten(), photo[:32].flatten())

# %% [markdown] lang="pl"
# Po `permute` kanał 0 to całe zdjęcie, po `reshape` tylko jego 32 górne wiersze ze
# zmieszanymi kolorami. Kształt i magazyn się zgadzają, a równych jest tylko
# {{ equal_share:.1f }}% wartości. Chroni przed tym asercja, która śledzi jeden piksel:
# nie narożny i nie z jednolitego tła.
#
# Trzecia pułapka: komórek jest mniej niż elementów. Przed większością operacji w
# miejscu (*in-place*), ale nie przed `fill_` ani `zero_`, które mogą bez szkody zapisać
# tę samą wartość dwa razy, PyTorch pyta o to funkcję `has_internal_overlap`. Ta zna
# tylko trzy odpowiedzi: układ bez powtórzeń i bez luk (0), krok 0 (1, wyjątek) i „za
# trudne” (2). Po odpowiedzi „za trudne” zapis **przechodzi**. Dostaje ją między innymi
# wynik metody `unfold`, która tnie sygnał na zachodzące na siebie okna i zwraca widok.

# %% [markdown] lang="en"
# After `permute`, channel 0 is the whole photo; after `reshape`, only its top 32 rows
# with the colours mixed together. Shape and storage match, yet only
# {{ equal_share:.1f }}% of the values are equal. The guard is an assertion that follows
# one pixel, neither in a corner nor in a flat background.
#
# The third trap: fewer cells than elements. Before most in-place operations, though not
# before `fill_` or `zero_`, which may well write the same value twice, PyTorch asks the
# function `has_internal_overlap` about this. It knows only three answers: a layout with
# no repetition and no gaps (0), a stride of 0 (1, an exception) and “too hard” (2).
# After “too hard” the write **goes through**. One layout that gets this answer is the
# result of `unfold`, which cuts a signal into overlapping windows and returns a view.

# %%
signal = torch.arange(10.0, 70.0, 10.0)
windows = signal.unfold(0, 3, 1)  # (window, sample), each window one sample further
overlap = torch._debug_has_internal_overlap  # private: to look inside, not to build on
wide = torch.zeros(4).expand(2, 4)
print([overlap(y) for y in (x, x.t(), wide, x[:, ::2], windows)])
assert [overlap(y) for y in (x, x.t(), wide)] == [0, 0, 1]
assert [overlap(y) for y in (x[:, ::2], windows)] == [2, 2]
wide.zero_()  # does not ask: no exception, although the stride is 0
wide.fill_(5)  # does not ask either
assert wide.sum() == 40

# %% fold=true
show_memory(
    {"signal.unfold(0, 3, 1)": windows},
    alt_pl="Cztery okna po trzy próbki, razem 12 elementów, czytają sześć komórek: "
    "skrajne po jednym razie, środkowe po dwa i trzy razy.",
    alt_en="Four windows of three samples, 12 elements in all, read six cells: the "
    "outermost once each, those further in two or three times.",
)

# %%
before = signal.clone()
windows.add_(1)  # meant: every sample of every window grows by 1
growth = signal - before
elements, cells = windows.numel(), signal.numel()
most = int(growth.max())
print(f"{elements=} {cells=} {growth=}")
assert (elements, cells) == (12, 6)
assert most > 1

safe = signal.unfold(0, 3, 1).clone()  # the guard: 12 cells for 12 elements
copied = safe.clone()
safe.add_(1)
assert torch.equal(safe, copied + 1)

# %% [markdown] lang="pl"
# Na rysunku {{ elements }} elementów czyta {{ cells }} komórek, a liczba pod adresem
# mówi, ile elementów przypada na komórkę. Wyjątku nie było, a niektóre komórki urosły
# nawet o {{ most }} zamiast o 1. PyTorch nie może zgłaszać wyjątku przy każdym „za
# trudne”, bo tę samą odpowiedź dostaje niewinny `x[:, ::2]`. Zanim więc zapiszesz coś
# do wyniku `unfold` lub `expand`, wywołaj `clone` i dalej używaj kopii; do oryginału
# zapis już wtedy nie dotrze. Krok 0 metoda `add_` rozpoznaje:

# %% [markdown] lang="en"
# In the picture, {{ elements }} elements read {{ cells }} cells, and the number below
# an address says how many elements use that cell. There was no exception, yet some
# cells grew by as much as {{ most }} instead of 1. PyTorch cannot raise on every “too
# hard”, because the innocent `x[:, ::2]` gets the same answer. So before you write to
# the result of `unfold` or `expand`, call `clone` and use the copy from then on; the
# write then no longer reaches the original. The method `add_` does recognise a stride
# of 0:

# %% raises="RuntimeError: unsupported operation: more than one element of the written-to"
wide.add_(1)

# %% [markdown] lang="pl"
# Na koniec dwie funkcje do wklejenia i jeden nawyk. Funkcja `erase_safely_` adresuje
# piksele indeksami, więc działa w każdym układzie, w którym elementy nie mają wspólnych
# komórek. Funkcja `heavy` znajduje wpisy, które trzymają zbyt duży magazyn. Przed
# zapisem do pliku wywołaj na nich `clone`, ale nie na wagach związanych (*tied
# weights*), czyli wpisach, które czytają te same komórki: każdy dostałby własną kopię i
# przestałyby być związane (brązowe ćwiczenie). Nawyk: test funkcji, która zmienia
# tensor, podaje jej także wycinek kolumn i sprawdza, czy wartości się zmieniły.

# %% [markdown] lang="en"
# Finally, two functions to paste and one habit. The function `erase_safely_` addresses pixels by
# index, so it works on any layout whose elements do not share cells. The function
# `heavy` finds entries that keep an oversized storage alive. Before you save to a file,
# call `clone` on them, but not on tied weights, that is, entries that read the same
# cells: each would get a copy of its own and they would no longer be tied (the brown
# exercise). The habit: a test of a function that modifies a tensor also passes it a
# slice of columns and checks that the values changed.


# %%
def erase_safely_(image: Tensor, pixels: Tensor) -> None:
    """Black out pixels of an image whose elements do not share cells."""
    width = image.shape[1]
    image[pixels // width, pixels % width] = 0  # assignment follows the strides


def heavy(state: Mapping[str, Tensor], slack: float = 2.0) -> dict[str, int]:
    """Find entries of a flat state_dict with a storage over `slack` times their bytes.

    Entries with a common storage are counted together, so q, k and v cut from one
    tensor are not heavy.
    """
    shown: Counter[int] = Counter()
    for x in state.values():
        shown[x.untyped_storage().data_ptr()] += x.nbytes
    storages = {name: x.untyped_storage() for name, x in state.items()}
    return {
        name: storage.nbytes()
        for name, storage in storages.items()
        if storage.nbytes() > slack * shown[storage.data_ptr()]
    }


slices = photo.clone()[:, 24:120]
erase_(slices, pixels)
assert black_pixels(slices) == 0  # what the habit catches
erase_safely_(slices, pixels)
assert black_pixels(slices) == 500

q, k, v = torch.zeros(3000, 10).chunk(3)
state = {"q": q, "k": k, "v": v, "row": big[0], "embedding": weight, "pad": weight[1]}
print(heavy(state))
assert heavy(state) == {"row": storage_bytes}
assert heavy(state | {"row": big[0].clone()}) == {}
tied = {"embedding": big[:10], "output": big[:10].t()}
assert set(heavy(tied)) == set(tied)  # clones of these would no longer be tied

# %% [markdown] lang="pl"
# > [!NOTE]
# > Obliczenia w tej lekcji wykonuje procesor. Na GPU (tu niezmierzone) opis tensora i
# > reguła `view` są te same. Przy mieszanych układach odczyty sąsiednich wątków nie
# > łączą się w jeden. Zatrzymany magazyn zobaczysz w `torch.cuda.memory_allocated()`.
#
# Gdzie to leży w źródłach PyTorcha:
#
# - `TensorImpl` i `StorageImpl`:
#   [`c10/core/TensorImpl.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/TensorImpl.h),
#   [`c10/core/StorageImpl.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/StorageImpl.h)
# - reguła metody `view`, funkcja `computeStride_impl`:
#   [`aten/src/ATen/TensorUtils.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorUtils.cpp)
# - `reshape`:
#   [`aten/src/ATen/native/TensorShape.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorShape.cpp)
# - `TensorIterator`:
#   [`aten/src/ATen/TensorIterator.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorIterator.cpp)
# - `has_internal_overlap`:
#   [`aten/src/ATen/MemoryOverlap.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/MemoryOverlap.cpp)
#
# ## Co już umiesz
#
# - Z kształtu, kroków i przesunięcia wyliczasz adres każdego elementu.
# - Przewidujesz, kiedy `view` się uda, a kiedy `reshape` skopiuje dane i zgubi zapis.
# - Wiesz, ile bajtów zatrzymuje widok, i znajdujesz takie widoki przed zapisem do pliku.
# - Nie piszesz do tensora, którego elementy mają wspólne komórki.
#
# Następna lekcja: [02, o rozgłaszaniu](02_broadcasting_magic.py) (*broadcasting*), czyli o
# kroku 0 w praktyce. W dokumentacji:
# [Tensor Views](https://docs.pytorch.org/docs/stable/tensor_view.html),
# [Serialization semantics](https://docs.pytorch.org/docs/stable/notes/serialization.html).

# %% [markdown] lang="en"
# > [!NOTE]
# > Everything in this lesson runs on the CPU. On a GPU (not measured here) the
# > description of a tensor and the rule of `view` are the same. With mixed layouts, the
# > reads of neighbouring threads are not coalesced into one memory transaction. A
# > storage kept alive shows up in `torch.cuda.memory_allocated()`.
#
# Where this lives in PyTorch's source:
#
# - `TensorImpl` and `StorageImpl`:
#   [`c10/core/TensorImpl.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/TensorImpl.h),
#   [`c10/core/StorageImpl.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/StorageImpl.h)
# - the rule of `view`, the function `computeStride_impl`:
#   [`aten/src/ATen/TensorUtils.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorUtils.cpp)
# - `reshape`:
#   [`aten/src/ATen/native/TensorShape.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorShape.cpp)
# - `TensorIterator`:
#   [`aten/src/ATen/TensorIterator.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorIterator.cpp)
# - `has_internal_overlap`:
#   [`aten/src/ATen/MemoryOverlap.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/MemoryOverlap.cpp)
#
# ## Now you can
#
# - Compute the address of any element from the shape, strides and offset.
# - Predict when `view` succeeds, and when `reshape` copies the data and loses a write.
# - Tell how many bytes a view keeps alive, and find such views before you save to a
#   file.
# - Avoid writing to a tensor whose elements share cells.
#
# Next lesson: [02, on broadcasting](02_broadcasting_magic.py), which is stride 0 in
# practice. In the documentation:
# [Tensor Views](https://docs.pytorch.org/docs/stable/tensor_view.html),
# [Serialization semantics](https://docs.pytorch.org/docs/stable/notes/serialization.html).

# %% [markdown] lang="pl"
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="predict-layout" role="prompt" belt="white" minutes=8
# ### Biały: przewidź opis
#
# Tensor `cube` ma kształt (2, 3, 4) i kroki (12, 4, 1). Dla każdego z ośmiu wyrażeń
# wpisz kroki, przesunięcie i to, czy wynik korzysta z magazynu `cube`. Nie uruchamiaj
# wyrażeń: policz.

# %% [markdown] lang="en" exercise="predict-layout" role="prompt" belt="white" minutes=8
# ### White: predict the description
#
# The tensor `cube` has shape (2, 3, 4) and strides (12, 4, 1). For each of the eight
# expressions, fill in the strides, the offset, and whether the result uses the storage
# of `cube`. Do not run the expressions: work them out.

# %% exercise="predict-layout" role="starter"
answers: dict[str, tuple[tuple[int, ...], int, bool]] = {
    # expression: (strides, offset, does the result use cube's storage?)
    "cube[1]": ((12, 4), 0, True),
    "cube[:, 1:, ::2]": ((12, 4, 1), 0, True),
    "cube.permute(2, 0, 1)": ((12, 4, 1), 0, True),
    "cube.reshape(6, 4).t()": ((4, 1), 0, True),
    "cube[0, 0].expand(5, 4)": ((4, 1), 0, True),
    "cube[:, :, 0]": ((4, 1), 0, True),
    "cube[:, :, 0].reshape(6)": ((1,), 0, True),
    "cube.permute(2, 0, 1).reshape(-1)": ((1,), 0, True),
}

# %% exercise="predict-layout" role="check"
cube = torch.arange(24).reshape(2, 3, 4)
results = {
    "cube[1]": cube[1],
    "cube[:, 1:, ::2]": cube[:, 1:, ::2],
    "cube.permute(2, 0, 1)": cube.permute(2, 0, 1),
    "cube.reshape(6, 4).t()": cube.reshape(6, 4).t(),
    "cube[0, 0].expand(5, 4)": cube[0, 0].expand(5, 4),
    "cube[:, :, 0]": cube[:, :, 0],
    "cube[:, :, 0].reshape(6)": cube[:, :, 0].reshape(6),
    "cube.permute(2, 0, 1).reshape(-1)": cube.permute(2, 0, 1).reshape(-1),
}
for name, result in results.items():
    assert name in answers, say(
        pl=f"{name}: brakuje odpowiedzi", en=f"{name}: the answer is missing"
    )
    strides_given, offset, shares = answers[name]
    yours = tuple(strides_given)
    assert len(yours) == result.dim(), say(
        pl=f"{name}: liczba kroków ma być równa liczbie wymiarów wyniku",
        en=f"{name}: there must be one stride for each dimension of the result",
    )
    in_bytes = tuple(8 * step for step in result.stride())
    assert yours == result.stride() or yours != in_bytes, say(
        pl=f"{name}: podajesz kroki w bajtach, a PyTorch liczy je w elementach",
        en=f"{name}: you gave the strides in bytes, PyTorch counts them in elements",
    )
    assert shares == same_storage(result, cube), say(
        pl=f"{name}: sprawdź, czy ten kształt da się opisać w starym magazynie",
        en=f"{name}: check whether this shape can be described in the old storage",
    )
    for index in itertools.product(*(range(size) for size in result.shape)):
        cell = offset + sum(i * step for i, step in zip(index, yours, strict=True))
        lies_at = address(result, index) - result.untyped_storage().data_ptr()
        assert 8 * cell == lies_at, say(
            pl=f"{name}: z twojego opisu wynika, że element {index} leży w komórce {cell}, "
            "a leży w innej",
            en=f"{name}: your description puts element {index} in cell {cell}, but it lies "
            "in another",
        )

# %% [markdown] lang="pl" exercise="predict-layout" role="hint"
# Wybór indeksu usuwa wymiar i dodaje indeks × krok do przesunięcia. Wycinek `a:b:c`
# mnoży krok przez `c` i dodaje `a` × krok do przesunięcia.

# %% [markdown] lang="en" exercise="predict-layout" role="hint"
# Selecting an index removes a dimension and adds index × stride to the offset. A slice
# `a:b:c` multiplies the stride by `c` and adds `a` × stride to the offset.

# %% [markdown] lang="pl" exercise="predict-layout" role="hint"
# Gdy `reshape` spłaszcza tensor nieciągły do jednego wymiaru, wypisz ręcznie ciągi:
# jeden ciąg oznacza widok.

# %% [markdown] lang="en" exercise="predict-layout" role="hint"
# When `reshape` flattens a non-contiguous tensor to one dimension, list the runs by
# hand: a single run means a view.

# %% exercise="predict-layout" role="wrong" says="strides in bytes"
answers = {  # NumPy's habit: strides in bytes
    "cube[1]": ((32, 8), 96, True),
    "cube[:, 1:, ::2]": ((96, 32, 16), 32, True),
    "cube.permute(2, 0, 1)": ((8, 96, 32), 0, True),
    "cube.reshape(6, 4).t()": ((8, 32), 0, True),
    "cube[0, 0].expand(5, 4)": ((0, 8), 0, True),
    "cube[:, :, 0]": ((96, 32), 0, True),
    "cube[:, :, 0].reshape(6)": ((32,), 0, True),
    "cube.permute(2, 0, 1).reshape(-1)": ((8,), 0, False),
}

# %% exercise="predict-layout" role="wrong" says="cube[:, :, 0].reshape(6): check whether"
answers = {  # "reshape of a non-contiguous tensor always copies"
    "cube[1]": ((4, 1), 12, True),
    "cube[:, 1:, ::2]": ((12, 4, 2), 4, True),
    "cube.permute(2, 0, 1)": ((1, 12, 4), 0, True),
    "cube.reshape(6, 4).t()": ((1, 4), 0, True),
    "cube[0, 0].expand(5, 4)": ((0, 1), 0, True),
    "cube[:, :, 0]": ((12, 4), 0, True),
    "cube[:, :, 0].reshape(6)": ((1,), 0, False),
    "cube.permute(2, 0, 1).reshape(-1)": ((1,), 0, False),
}

# %% exercise="predict-layout" role="wrong" says="cube.permute(2, 0, 1).reshape(-1): check whether"
answers = {  # "reshape never copies"
    "cube[1]": ((4, 1), 12, True),
    "cube[:, 1:, ::2]": ((12, 4, 2), 4, True),
    "cube.permute(2, 0, 1)": ((1, 12, 4), 0, True),
    "cube.reshape(6, 4).t()": ((1, 4), 0, True),
    "cube[0, 0].expand(5, 4)": ((0, 1), 0, True),
    "cube[:, :, 0]": ((12, 4), 0, True),
    "cube[:, :, 0].reshape(6)": ((4,), 0, True),
    "cube.permute(2, 0, 1).reshape(-1)": ((1,), 0, True),
}

# %% exercise="predict-layout" role="solution"
answers = {
    "cube[1]": ((4, 1), 12, True),  # index 1 times stride 12
    "cube[:, 1:, ::2]": ((12, 4, 2), 4, True),  # starts one row further
    "cube.permute(2, 0, 1)": ((1, 12, 4), 0, True),  # strides move with dimensions
    "cube.reshape(6, 4).t()": ((1, 4), 0, True),
    "cube[0, 0].expand(5, 4)": ((0, 1), 0, True),  # five rows, the same cells
    "cube[:, :, 0]": ((12, 4), 0, True),
    "cube[:, :, 0].reshape(6)": ((4,), 0, True),  # 12 == 3 * 4: one run, so a view
    "cube.permute(2, 0, 1).reshape(-1)": ((1,), 0, False),  # two runs, so a copy
}

# %% [markdown] lang="pl" exercise="compact-state" role="prompt" belt="brown" minutes=15
# ### Brązowy: odchudź plik z modelem
#
# Napisz funkcję `compact`, która zwraca nowy słownik. Tensor sklonuj wtedy i tylko wtedy, gdy
# jego magazyn jest większy od niego **i** żaden inny wpis z tego magazynu nie korzysta.
# Wszystkie pozostałe wpisy mają być tymi samymi obiektami co w `state`, więc wagi
# związane pozostaną związane.

# %% [markdown] lang="en" exercise="compact-state" role="prompt" belt="brown" minutes=15
# ### Brown: slim down a checkpoint
#
# Write a function `compact` that returns a new dictionary. Clone a tensor if and only
# if its storage is larger than the tensor **and** no other entry uses that storage. All other
# entries must be the same objects as in `state`, so tied weights stay tied.


# %% exercise="compact-state" role="starter"
def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)  # your code


# %% exercise="compact-state" role="check"
shared = torch.randn(50, 20)
checkpoint = {
    "row": torch.randn(1000, 1000)[0],
    "column": torch.randn(500, 500)[:, 0],
    "tail": torch.randn(10)[1:],  # its storage is only a little larger
    "free": torch.randn(3),
    "embedding": shared,
    "output": shared.t(),
    "padding": shared[1],  # lies inside the embedding
}
originals = dict(checkpoint)
slim = compact(checkpoint)
assert list(slim) == list(originals), say(
    pl="nowy słownik ma mieć te same klucze w tej samej kolejności",
    en="the new dictionary must have the same keys in the same order",
)
for name, original in originals.items():
    assert torch.equal(slim[name], original), say(
        pl=f"{name}: wartości się zmieniły", en=f"{name}: the values changed"
    )
    assert checkpoint[name] is original, say(
        pl=f"{name}: zmieniasz słownik, który należy do wywołującego",
        en=f"{name}: you changed the dictionary that belongs to the caller",
    )
for name in ("output", "padding"):
    assert same_storage(slim[name], slim["embedding"]), say(
        pl=f"{name}: zmiana w embedding już tu nie dotrze, wagi przestały być związane",
        en=f"{name}: a write to embedding no longer gets here, the weights are untied",
    )
for name in ("row", "column", "tail"):
    kept_now = slim[name].untyped_storage().nbytes()
    assert kept_now == slim[name].nbytes, say(
        pl=f"{name}: pokazuje {slim[name].nbytes} B, a nadal trzyma {kept_now} B",
        en=f"{name}: shows {slim[name].nbytes} B but still keeps {kept_now} B",
    )
others = {"w": shared, "v": shared[0], "whole": originals["free"]}
for entries, result_of in ((originals, slim), (others, compact(others))):
    for name in set(entries) - {"row", "column", "tail"}:
        assert result_of[name] is entries[name], say(
            pl=f"{name}: nie było powodu klonować, ma zostać ten sam obiekt",
            en=f"{name}: there was no reason to clone this, keep the same object",
        )

# %% [markdown] lang="pl" exercise="compact-state" role="hint"
# Przejdź po słowniku dwa razy. Za pierwszym razem tylko licz, za drugim decyduj.

# %% [markdown] lang="en" exercise="compact-state" role="hint"
# Go through the dictionary twice. The first time only count, the second time decide.

# %% [markdown] lang="pl" exercise="compact-state" role="hint"
# Policz, ile wpisów korzysta z każdego magazynu. Tensor i jego magazyn mogą się
# zaczynać pod różnymi adresami.

# %% [markdown] lang="en" exercise="compact-state" role="hint"
# Count how many entries use each storage. A tensor and its storage may start at
# different addresses.


# %% exercise="compact-state" role="wrong" says="the weights are untied"
def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in state.items()}


# %% exercise="compact-state" role="wrong" says="row: shows 4000 B but still keeps"
def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # A row is contiguous, so contiguous() returns the same tensor.
    tied = {"embedding", "output", "padding"}
    return {k: x if k in tied else x.contiguous() for k, x in state.items()}


# %% exercise="compact-state" role="wrong" says="padding: a write to embedding"
def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # data_ptr() of the tensor includes its offset: row 1 looks like another storage.
    starts = [x.data_ptr() for x in state.values()]
    return {
        name: x.clone() if starts.count(x.data_ptr()) == 1 else x
        for name, x in state.items()
    }


# %% exercise="compact-state" role="solution"
def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    storages = [x.untyped_storage() for x in state.values()]
    users = Counter(storage.data_ptr() for storage in storages)
    slim: dict[str, Tensor] = {}
    for (name, x), storage in zip(state.items(), storages, strict=True):
        alone = users[storage.data_ptr()] == 1
        # clone() allocates exactly the elements, so the parent can be freed.
        slim[name] = x.clone() if alone and storage.nbytes() > x.nbytes else x
    return slim


# %% [markdown] lang="pl" exercise="may-overlap" role="prompt" belt="black" minutes=25
# ### Czarny: rzadziej „za trudne”
#
# Napisz funkcję `may_overlap`, która z kształtu i nieujemnych kroków mówi, czy dwa
# elementy mogą leżeć w tej samej komórce. Nie wyliczaj komórek: funkcja ma odpowiadać
# od razu także dla biliona elementów. Fałszywy alarm jest dozwolony, przeoczenie nie.
# Zwróć jednak `False` dla wszystkiego, co powstaje z tensora ciągłego przez `permute` i
# wycinki.

# %% [markdown] lang="en" exercise="may-overlap" role="prompt" belt="black" minutes=25
# ### Black: fewer “too hard” answers
#
# Write a function `may_overlap` that tells from a shape and non-negative strides
# whether two elements may lie in the same cell. Do not list the cells: the function has
# to answer at once even for a trillion elements. A false alarm is allowed, a miss is
# not. Still, return `False` for everything that `permute` and slicing can make from a
# contiguous tensor.


# %% exercise="may-overlap" role="starter"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    return False  # your code


# %% exercise="may-overlap" role="check"
class Huge(float):
    """A size for arithmetic and comparisons that refuses to be counted through."""

    def __index__(self) -> int:
        raise AssertionError(
            say(
                pl="wyliczasz komórki, a przy bilionie elementów to nigdy się nie skończy",
                en="you list the cells, and with a trillion elements that will never end",
            )
        )


def missed(shape: object, stride: object) -> str:
    return say(
        pl=f"kształt {shape}, kroki {stride}: dwa elementy leżą w jednej komórce, a "
        "zwracasz False",
        en=f"shape {shape}, strides {stride}: two elements share a cell, but you "
        "return False",
    )


def false_alarm(shape: object, stride: object) -> str:
    return say(
        pl=f"kształt {shape}, kroki {stride}: fałszywy alarm, każdy element ma tu "
        "własną komórkę",
        en=f"shape {shape}, strides {stride}: a false alarm, every element has its own "
        "cell here",
    )


def shares_cells(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """List all cells: slow, and the specification."""
    listed = [
        sum(i * step for i, step in zip(index, stride, strict=True))
        for index in itertools.product(*(range(size) for size in shape))
    ]
    return len(set(listed)) < len(listed)


huge: Any = (Huge(10**6), Huge(10**6))
assert may_overlap(huge, (1, 1)), missed("(10**6, 10**6)", (1, 1))
draw = random.Random(1)
for _ in range(3000):
    dims = draw.randint(1, 4)
    sizes = [draw.randint(1, 4) for _ in range(dims)]
    jumps = [draw.randint(0, 12) for _ in range(dims)]
    may = may_overlap(sizes, jumps)
    assert may or not shares_cells(sizes, jumps), missed(sizes, jumps)
for _ in range(500):
    sliced = torch.empty([draw.randint(1, 6) for _ in range(draw.randint(1, 4))])
    for axis_index in range(sliced.dim()):
        sliced = sliced.transpose(0, axis_index)[:: draw.randint(1, 3)]
    shape, stride = tuple(sliced.shape), sliced.stride()
    assert not may_overlap(shape, stride), false_alarm(shape, stride)
assert not may_overlap(huge, (10**6, 1)), false_alarm("(10**6, 10**6)", (10**6, 1))

# %% [markdown] lang="pl" exercise="may-overlap" role="hint"
# Kolejność wymiarów nie zmienia zbioru komórek. Ustaw je od najmniejszego kroku.

# %% [markdown] lang="en" exercise="may-overlap" role="hint"
# The order of the dimensions does not change the set of cells. Sort them by stride,
# smallest first.

# %% [markdown] lang="pl" exercise="may-overlap" role="hint"
# Jak daleko sięgają wymiary o mniejszych krokach? Jeśli następny krok przeskakuje cały
# ten zasięg, nic się nie nałoży. Wymiar o rozmiarze 1 niczego nie przesuwa.

# %% [markdown] lang="en" exercise="may-overlap" role="hint"
# How far do the dimensions with smaller strides reach? If the next stride jumps past
# that whole reach, nothing overlaps. A dimension of size 1 moves nothing.


# %% exercise="may-overlap" role="wrong" says="two elements share a cell"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    # Only what PyTorch itself detects: unfold slips through.
    return any(step == 0 and size > 1 for size, step in zip(shape, stride, strict=True))


# %% exercise="may-overlap" role="wrong" says="a false alarm"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    # Takes the last dimension for the smallest stride: a transpose looks like overlap.
    reach = 0
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step <= reach:
            return True
        reach += step * (size - 1)
    return False


# %% exercise="may-overlap" role="wrong" says="you list the cells"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    # True to the specification, and useless on a tensor of real size.
    seen: set[int] = set()
    for index in itertools.product(*(range(size) for size in shape)):
        cell = sum(i * step for i, step in zip(index, stride, strict=True))
        if cell in seen:
            return True
        seen.add(cell)
    return False


# %% exercise="may-overlap" role="solution"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    pairs = zip(stride, shape, strict=True)
    reach = 0  # the farthest cell that dimensions with smaller strides can move to
    for step, size in sorted((step, size) for step, size in pairs if size > 1):
        if step <= reach:
            return True  # this step may land on a cell that is already taken
        reach += step * (size - 1)
    return False
