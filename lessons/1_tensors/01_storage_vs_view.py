# %% [markdown] lang="pl"
# # Storage kontra widok: co naprawdę trzyma tensor
#
# Tensor to opis: kształt, kroki i przesunięcie, nałożone na wspólny blok bajtów. Z tego
# opisu przewidzisz, czy zmiana kształtu da ci widok, kopię czy wyjątek, a także ile
# bajtów zatrzyma w pamięci i na dysku.
#
# ## Augmentacja, która przestała działać
#
# Funkcja `erase_` zaczernia wylosowane piksele i od miesięcy robi to dobrze. Wczoraj
# ktoś dodał przed nią wycinanie kadru. Odtąd trening nadal przebiega bez błędów, ale
# model coraz mocniej się przeucza.

# %% [markdown] lang="en"
# # Storage vs view: what a tensor really holds
#
# A tensor is a description: a shape, strides and an offset, laid over a shared block of
# bytes. From that description you can predict whether a change of shape gives you a
# view, a copy or an exception, and how many bytes it keeps in memory and on disk.
#
# ## The augmentation that stopped working
#
# The function `erase_` blacks out randomly chosen pixels, and has done so for months.
# Yesterday somebody added a crop in front of it. Since then training still runs without
# an error, but the model overfits more and more.

# %%
import copy
import io
import itertools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib import pyplot as plt
from torch import Tensor

from snippets.bilingual import say
from snippets.figures import BLUE, ORANGE, show_figure
from snippets.memory_pictures import show_memory

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cpu")


def make_photo(height: int = 96, width: int = 144) -> Tensor:
    """Draw a sun over a hill the way decoders return it: (height, width, channel)."""
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width).expand(height, width)
    sky = torch.stack([0.35 + 0.4 * y, 0.55 + 0.2 * y, 0.95 - 0.2 * y], dim=-1)
    sun = ((1.5 * (x - 0.7)) ** 2 + (y - 0.35) ** 2 < 0.04)[..., None]
    hill = (y > 0.72 + 0.12 * torch.sin(6 * x))[..., None]
    image = torch.where(sun, torch.tensor([1.0, 0.8, 0.2]), sky)
    image = torch.where(hill, torch.tensor([0.2, 0.55, 0.25]), image)
    return (255 * image).to(torch.uint8)


def erase_(image: Tensor, pixels: Tensor) -> None:
    """Black out pixels of an image (height, width, channel), counted row by row."""
    image.reshape(-1, 3)[pixels] = 0


def black_pixels(image: Tensor) -> int:
    return int((image == 0).all(dim=-1).sum())


photo = make_photo().to(device)
pixels = torch.randperm(64 * 96)[:500]
whole = photo.clone()
crop = photo.clone()[16:80, 24:120]
erase_(whole, pixels)
erase_(crop, pixels)
erased_whole = black_pixels(whole)
erased_crop = black_pixels(crop)
print(f"{erased_whole=}, {erased_crop=}")
assert black_pixels(photo) == 0
assert (erased_whole, erased_crop) == (500, 0)

# %% [markdown] lang="pl"
# Na całym zdjęciu czarnych pikseli jest {{ erased_whole }}, na kadrze
# {{ erased_crop }}. Ten sam kod, żadnego wyjątku, żadnego ostrzeżenia. Pytanie tej
# lekcji: **jak z samego opisu tensora przewidzieć, czy po zmianie kształtu piszesz do
# tej samej pamięci, czy do kopii?**
#
# ## Zgadnij, kiedy `view` zaprotestuje
#
# Metoda `view` nigdy nie kopiuje: albo da widok, albo zgłosi wyjątek. Zamieńmy więc w
# `erase_` wywołanie `reshape(-1, 3)` na `view(-1, 3)` i podajmy trzy obrazy:
# `photo[16:80]` (pas wierszy), `photo[:, 24:120]` (pas kolumn) i `photo[:, ::2]` (co
# druga kolumna). Pierwszy jest ciągły (*contiguous*), dwa pozostałe nie.
#
# <details><summary>Które wywołanie zakończy się wyjątkiem?</summary>
#
# - **A.** Oba nieciągłe: `view` wymaga ciągłości.
# - **B.** Tylko `photo[:, 24:120]`.
# - **C.** Żadne: liczba elementów zawsze się zgadza.
#
# Wybierz odpowiedź, zanim spojrzysz niżej.
#
# </details>

# %% [markdown] lang="en"
# The whole photo has {{ erased_whole }} black pixels, the crop {{ erased_crop }}. The
# same code, no exception, no warning. The question of this lesson: **how can you
# predict, from a tensor's description alone, whether after a change of shape you write
# to the same memory or to a copy?**
#
# ## Guess when `view` objects
#
# The method `view` never copies: it gives a view or raises. So let us replace
# `reshape(-1, 3)` in `erase_` with `view(-1, 3)` and pass three images: `photo[16:80]`
# (a band of rows), `photo[:, 24:120]` (a band of columns) and `photo[:, ::2]` (every
# other column). The first is *contiguous*, the other two are not.
#
# <details><summary>Which call ends with an exception?</summary>
#
# - **A.** Both non-contiguous ones: `view` requires contiguity.
# - **B.** Only `photo[:, 24:120]`.
# - **C.** None: the number of elements always matches.
#
# Choose before you look below.
#
# </details>


# %%
def can_view(x: Tensor, *shape: int) -> bool:
    """Tell whether `x.view(shape)` succeeds."""
    try:
        x.view(shape)
    except RuntimeError:
        return False
    return True


bands = {
    "photo[16:80]": photo[16:80],
    "photo[:, 24:120]": photo[:, 24:120],
    "photo[:, ::2]": photo[:, ::2],
}
for name, band in bands.items():
    print(f"{name:17} {band.is_contiguous()=!s:5} view={can_view(band, -1, 3)}")
assert [band.is_contiguous() for band in bands.values()] == [True, False, False]
assert [can_view(band, -1, 3) for band in bands.values()] == [True, False, True]

# %% [markdown] lang="pl"
# Poprawna jest odpowiedź **B**. Odpowiedzi **A** przeczy `photo[:, ::2]`: ten tensor
# nie jest ciągły, a `view` się udało. Ciągłość wystarcza, ale nie jest konieczna.
# Odpowiedzi **C** przeczy `photo[:, 24:120]`: liczba elementów się zgadza, a wyjątek i
# tak się pojawił. Decyduje coś trzeciego. Żeby to zobaczyć, narysujmy pamięć.
#
# ## Jeden magazyn, cztery opisy
#
# Bajty leżą w **magazynie danych** (*storage*): jednowymiarowym bloku, który nie zna
# kształtów. Tensor dokłada do niego kształt, **krok** (*stride*) każdego wymiaru i
# **przesunięcie** (*offset*) pierwszego elementu. Kroki i przesunięcie liczymy w
# elementach. Tensor, który korzysta z magazynu innego tensora, to **widok** (*view*).

# %% [markdown] lang="en"
# The right answer is **B**. `photo[:, ::2]` refutes **A**: it is not contiguous and
# `view` succeeded. Contiguity is sufficient, not necessary. `photo[:, 24:120]` refutes
# **C**: the number of elements matches, and still there was an exception. Something
# else decides. To see what, let us draw the memory.
#
# ## One storage, four descriptions
#
# The bytes lie in a **storage**: a one-dimensional block that knows no shapes. A tensor
# adds a shape, a **stride** for each dimension and the **offset** of its first element.
# Strides and the offset are counted in elements. A tensor that uses another tensor's
# storage is a **view**.


# %%
def same_memory(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors use one storage."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


x = torch.arange(8.0, device=device).reshape(2, 4)
drawn = {
    "x": x,
    "x.t()": x.t(),
    "x[:, ::2]": x[:, ::2],
    "x[1:].expand(2, 4)": x[1:].expand(2, 4),
    "x.t().reshape(-1)": x.t().reshape(-1),
}
show_memory(
    drawn,
    alt_pl="Pięć tensorów, a obok ich magazyny. Pierwsze cztery mają wspólny magazyn "
    "A: transpozycja miesza w nim kolejność kolorów, wycinek pomija co drugą komórkę, "
    "a expand wpisuje po dwa indeksy do jednej komórki. Piąty ma własny magazyn B.",
    alt_en="Five tensors beside their storages. The first four have the same storage "
    "A: the transpose shuffles the colours in it, the slice skips every other cell, "
    "and expand puts two indices into one cell. The fifth has a storage B of its own.",
)
assert [same_memory(x, y) for y in drawn.values()] == [True] * 4 + [False]
assert [y.stride() for y in drawn.values()] == [(4, 1), (1, 4), (4, 2), (0, 1), (1,)]
assert [y.storage_offset() for y in drawn.values()] == [0, 0, 0, 4, 0]

# %% [markdown] lang="pl"
# Liczba i kolor komórki mówią, którym z kolei elementem tensora ona jest; litera przy
# wyrażeniu oznacza magazyn. Zwróć uwagę na `x.t()`: żadna wartość nie zmieniła miejsca,
# zmieniły się tylko kształt i kroki. W `x[1:].expand(2, 4)` krok 0 sprawia, że dwa
# elementy mieszkają w jednej komórce. Dopiero `x.t().reshape(-1)` ma nowy magazyn: to
# kopia.
#
# ## Adres elementu to jedno mnożenie na wymiar
#
# W C++ za tensorem stoi obiekt `TensorImpl`: trzyma wskaźnik na `StorageImpl`, kształt,
# kroki, przesunięcie i typ. Widok to nowy `TensorImpl` nad tym samym `StorageImpl`.
# Adres elementu o indeksach $i_0, i_1, \dots$ wynosi
#
# $$\text{storage} + \text{itemsize} \cdot
# \Big(\text{offset} + \sum_k i_k \cdot \text{stride}_k\Big).$$
#
# Sprawdźmy ten wzór na widoku, w którym nic nie jest po kolei.

# %% [markdown] lang="en"
# The number in a cell and its colour say which element of the tensor the cell is; the
# letter after the expression names the storage. Look at `x.t()`: no value moved, only
# the shape and the strides changed. In `x[1:].expand(2, 4)` a stride of 0 makes two
# elements live in one cell. Only `x.t().reshape(-1)` has a new storage: it is a copy.
#
# ## An address is one multiplication per dimension
#
# In C++ a tensor is a `TensorImpl`: it holds a pointer to a `StorageImpl`, the shape,
# the strides, the offset and the type. A view is a new `TensorImpl` over the same
# `StorageImpl`. The address of the element with indices $i_0, i_1, \dots$ is
#
# $$\text{storage} + \text{itemsize} \cdot
# \Big(\text{offset} + \sum_k i_k \cdot \text{stride}_k\Big).$$
#
# Let us check the formula on a view in which nothing is in order.


# %%
def address(x: Tensor, index: Sequence[int]) -> int:
    """Compute where an element lies from the tensor's description."""
    steps = sum(i * step for i, step in zip(index, x.stride(), strict=True))
    cell = int(x.storage_offset()) + steps
    return x.untyped_storage().data_ptr() + x.element_size() * cell


block = torch.arange(24, device=device).reshape(2, 3, 4)
odd = block.permute(2, 0, 1)[1:, :, ::2]
print(f"{tuple(odd.shape)=} {odd.stride()=} {odd.storage_offset()=}")
indices = list(itertools.product(*(range(size) for size in odd.shape)))
assert all(address(odd, index) == odd[index].data_ptr() for index in indices)
assert (len(indices), odd.stride(), odd.storage_offset()) == (12, (1, 12, 8), 1)
assert odd.data_ptr() - block.data_ptr() == 8  # data_ptr() already includes the offset

# %% [markdown] lang="pl"
# Wzór zgadza się co do bajta. Teraz wiadomo, skąd wzięła się cicha awaria: `reshape`
# szuka kroków, które pasują do nowego kształtu. Gdy je znajdzie, zwraca widok, a gdy
# nie znajdzie, bez słowa zwraca kopię. Metoda `contiguous` zachowuje się podobnie:
# zwraca ten sam obiekt albo kopię.

# %% [markdown] lang="en"
# The formula is right to the byte. Now it is clear where the silent failure came from:
# `reshape` looks for strides that fit the new shape. If it finds them it returns a
# view, and if not, it returns a copy without a word. The method `contiguous` is alike:
# it returns the same object or a copy.

# %%
table = torch.zeros(2, 3, device=device)
table.t().reshape(-1)[0] = 7  # lands in a copy that nobody holds
assert table.sum() == 0
table.reshape(-1)[0] = 7  # lands in the table
assert table[0, 0] == 7
assert table.contiguous() is table
assert not same_memory(table.t().contiguous(), table)
print(table)

# %% [markdown] lang="pl"
# Kroki odróżniają też dwie operacje, które łatwo pomylić, bo dają ten sam kształt.
# Dekoder obrazów zwraca (wysokość, szerokość, kanał), a sieć chce (kanał, wysokość,
# szerokość). Metoda `permute` przestawia kroki razem z wymiarami. Metoda `reshape`
# zostawia elementy w kolejności czytania i tylko inaczej ją dzieli.

# %% [markdown] lang="en"
# Strides also tell apart two operations that are easy to confuse, because they give the
# same shape. An image decoder returns (height, width, channel), a network wants
# (channel, height, width). The method `permute` reorders the strides together with the
# dimensions. The method `reshape` keeps the elements in reading order and only cuts it
# differently.

# %%
permuted = photo.permute(2, 0, 1)  # (channel, height, width)
reshaped = photo.reshape(3, 96, 144)  # the same shape, other strides
equal_share = 100 * (permuted == reshaped).float().mean().item()
means = {
    name: image.float().mean(dim=(1, 2)).round().int().tolist()
    for name, image in {"permute": permuted, "reshape": reshaped}.items()
}
print(permuted.stride(), reshaped.stride(), means)
assert permuted.shape == reshaped.shape
assert (permuted.stride(), reshaped.stride()) == ((1, 432, 3), (13824, 144, 1))
assert same_memory(permuted, photo) and same_memory(reshaped, photo)
assert equal_share < 10
assert means["permute"] != means["reshape"]

# %% fold=true
fig, axes = plt.subplots(2, 4, figsize=(7.2, 2.7))
rows = {"permute(2, 0, 1)": permuted, "reshape(3, 96, 144)": reshaped}
for row, (name, image) in zip(axes, rows.items(), strict=True):
    row[0].imshow(image.permute(1, 2, 0).numpy())
    row[0].set_title(name, family="monospace", fontsize=9)
    for channel in range(3):
        picture = row[channel + 1]
        picture.imshow(image[channel].numpy(), cmap="gray", vmin=0, vmax=255)
        picture.set_title(f"[{channel}]", family="monospace", fontsize=9)
    for picture in row:
        picture.axis("off")
show_figure(
    fig,
    alt_pl="Górny rząd, permute: słońce nad wzgórzem i trzy jego kanały. Dolny rząd, "
    "reshape: szum w paski, a każdy „kanał” to inna trzecia część zdjęcia.",
    alt_en="Top row, permute: a sun over a hill and its three channels. Bottom row, "
    "reshape: striped noise, and each “channel” is a different third of the photo.",
    same=tuple(rows),
)
thirds = photo.reshape(3, 32, 144, 3)  # (band, row, column, channel)
assert torch.equal(reshaped.flatten(start_dim=1), thirds.flatten(start_dim=1))

# %% [markdown] lang="pl"
# U góry trzy kanały zdjęcia, u dołu trzy jego poziome pasy: „kanał” 0 po `reshape` to
# górne 32 wiersze ze zmieszanymi kolorami. Oba tensory są widokami `photo` i mają ten
# sam kształt, więc żadna kontrola kształtów ich nie odróżni, a równych jest tylko
# {{ equal_share:.1f }}% wartości. W tym przypadku widok nie chroni przed błędem.
#
# ## Reguła metody `view` w 30 wierszach
#
# Skąd `view` bierze nowe kroki? Idzie po wymiarach od prawej i skleja sąsiednie wymiary
# w **ciąg** dopóty, dopóki cały ciąg da się przejść jednym krokiem: krok następnego
# wymiaru musi być równy liczbie elementów ciągu razy jego krok. Potem wymiary nowego
# kształtu muszą wypełnić każdy ciąg co do elementu. Oto ta reguła przepisana z funkcji
# `computeStride_impl`.

# %% [markdown] lang="en"
# At the top are the three channels of the photo, at the bottom three horizontal bands
# of it: “channel” 0 after `reshape` is the top 32 rows with the colours mixed. Both
# tensors are views of `photo` and have the same shape, so no check of shapes tells them
# apart, and only {{ equal_share:.1f }}% of the values are equal. Here a view does not
# protect you.
#
# ## The rule of `view` in 30 lines
#
# Where does `view` get the new strides from? It walks the dimensions from the right and
# glues neighbouring dimensions into a **run** as long as the whole run can be walked
# with one step: the stride of the next dimension must equal the number of elements in
# the run times the step of the run. Then the dimensions of the new shape must fill
# every run to the element. Here is that rule, rewritten from the function
# `computeStride_impl`.


# %%
def runs(shape: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Glue dimensions into runs (elements, step), starting from the last dimension."""
    found: list[tuple[int, int]] = []
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size == 1:
            continue  # its index is always 0, so its stride enters no address
        if found and step == math.prod(found[-1]):
            found[-1] = (found[-1][0] * size, found[-1][1])
        else:
            found.append((size, step))
    return found or [(1, 1)]


def view_strides(
    shape: Sequence[int], stride: Sequence[int], new: Sequence[int]
) -> tuple[int, ...] | None:
    """Find the strides of `x.view(new)`; None where `view` raises."""
    left = list(new)
    strides: list[int] = []
    for elements, step in runs(shape, stride):
        covered = 1
        while left and (covered < elements or left[-1] == 1):
            strides.append(covered * step)
            covered *= left.pop()
        if covered != elements:
            return None  # a new dimension would span two runs
    return tuple(reversed(strides))


for name, band in bands.items():
    found = view_strides(band.shape, band.stride(), (band.numel() // 3, 3))
    print(f"{name:17} {runs(band.shape, band.stride())!s:22} {found}")
assert runs(photo[:, 24:120].shape, photo[:, 24:120].stride()) == [(288, 1), (96, 432)]
assert runs(photo[:, ::2].shape, photo[:, ::2].stride()) == [(3, 1), (6912, 6)]
assert photo[:, 24:120].numel() // 3 == 9216
assert not can_view(photo[:, ::2], -1)

# %% [markdown] lang="pl"
# Teraz odpowiedź B ma dowód. Co druga kolumna to jeden ciąg 6912 pikseli z krokiem 6,
# bo następny wiersz zaczyna się dokładnie o jeden krok dalej. Pas kolumn rozpada się na
# ciągi po 288 elementów, więc wymiar 9216 pikseli musiałby objąć dwa. A `view(-1)` nie
# uda się nawet na `photo[:, ::2]`.
#
# Rysunek i trzy przykłady to mało. Wylosujmy pięć tysięcy tensorów i kształtów i
# porównajmy naszą regułę z tą, której używa PyTorch.

# %% [markdown] lang="en"
# Now answer B has a proof. Every other column is one run of 6912 pixels with step 6,
# because the next row begins exactly one step further. The band of columns falls apart
# into runs of 288 elements, so the dimension of 9216 pixels would have to span two. And
# `view(-1)` fails even on `photo[:, ::2]`.
#
# A picture and three examples are not much. Let us draw five thousand tensors and
# shapes at random and compare our rule with the one PyTorch uses.


# %%
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
    """Split a number of elements into random factors."""
    shape: list[int] = []
    while numel > 1:
        factor = rng.choice([f for f in range(2, numel + 1) if numel % f == 0])
        shape.append(factor)
        numel //= factor
    shape.insert(rng.randint(0, len(shape)), 1)
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
        and same_memory(x, theirs)
    )


tried = 5000
rng = random.Random(0)
tensors = [random_tensor(rng) for _ in range(tried)]
cases = [(y, random_shape(y.numel(), rng)) for y in tensors]
agreed = sum(agree(y, shape) for y, shape in cases)
strided_cases = [(y, shape) for y, shape in cases if not y.is_contiguous()]
strided = len(strided_cases)
strided_views = sum(can_view(y, *shape) for y, shape in strided_cases)
view_share = 100 * strided_views / strided
print(f"{agreed=} of {tried}, {strided=}, {strided_views=}")
assert agreed == tried
assert 0 < strided_views < strided
assert all(can_view(y, *s) == same_memory(y, y.reshape(s)) for y, s in cases)

# %% [markdown] lang="pl"
# Zgodność w {{ agreed }} przypadkach na {{ tried }}. Tensor nieciągły trafił się
# {{ strided }} razy i w {{ view_share:.0f }}% tych prób `view` się udało. A `reshape`
# zwróciło widok zawsze wtedy i tylko wtedy, gdy `view` było możliwe.
#
# ## Ile kosztują widoki i układy w pamięci
#
# Najpierw bajty. Model jest prosty: widok zatrzymuje cały magazyn. Dziesięć liczb
# `float32` to {{ ten_bytes }} B, ale jeśli pochodzą z macierzy 1000 × 1000, powinny
# trzymać {{ storage_bytes }} B. Tyle też powinien ważyć plik, bo `torch.save` zapisuje
# magazyny, nie elementy.

# %% [markdown] lang="en"
# They agree in {{ agreed }} cases of {{ tried }}. A non-contiguous tensor came up
# {{ strided }} times, and in {{ view_share:.0f }}% of these attempts `view` succeeded.
# And `reshape` returned a view exactly when `view` was possible.
#
# ## What views and layouts cost
#
# Bytes first. The model is simple: a view keeps the whole storage. Ten `float32`
# numbers are {{ ten_bytes }} B, but if they come from a 1000 × 1000 matrix they should
# keep {{ storage_bytes }} B. The file should weigh as much, because `torch.save` writes
# storages, not elements.


# %%
def saved(value: object) -> io.BytesIO:
    """Save to a file in memory and rewind it."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


big = torch.zeros(1000, 1000, device=device)
ten = big[0, :10]
view_file = saved(ten).getbuffer().nbytes
clone_file = saved(ten.clone()).getbuffer().nbytes
rows_file = saved([big[i] for i in range(10)]).getbuffer().nbytes
file_ratio = view_file / clone_file
ten_bytes = ten.nbytes
storage_bytes = ten.untyped_storage().nbytes()
print(f"{ten_bytes=}, {storage_bytes=}")
print(f"{view_file=}, {clone_file=}, {rows_file=}")
assert (ten_bytes, storage_bytes) == (40, 4 * 1000 * 1000)
assert 4_000_000 < view_file < 4_010_000
assert rows_file < 4_010_000  # ten rows, one storage
assert file_ratio > 500
assert torch.load(saved(ten)).untyped_storage().nbytes() == 4_000_000
assert copy.deepcopy(ten).untyped_storage().nbytes() == 4_000_000

# %% [markdown] lang="pl"
# Plik z widokiem ma {{ view_file }} B, plik z kopią {{ clone_file }} B: model się
# sprawdza, a stosunek wynosi {{ file_ratio:.0f }}. Po wczytaniu widok nadal trzyma cały
# magazyn i tak samo działa `copy.deepcopy`. To nie przeoczenie: tensory, które przed
# zapisem miały wspólną pamięć, mają ją i po wczytaniu, dlatego dziesięć wierszy
# kosztuje tyle, co jeden.
#
# W pamięci obowiązuje ten sam rachunek. Pętla, która „na pamiątkę” zachowuje po
# dziesięć liczb z każdego kroku, trzyma wszystkie macierze.

# %% [markdown] lang="en"
# The file with the view has {{ view_file }} B, the one with the copy {{ clone_file }}
# B: the model holds, and the ratio is {{ file_ratio:.0f }}. After loading, the view
# still keeps the whole storage, and `copy.deepcopy` does the same. This is no
# oversight: tensors that had common memory before saving have it after loading, which
# is why ten rows cost as much as one.
#
# The same arithmetic holds in memory. A loop that keeps ten numbers of each step “as a
# souvenir” keeps all the matrices.

# %%
kept = [torch.zeros(1000, 1000, device=device)[0, :10] for _ in range(20)]
shown_bytes = sum(x.nbytes for x in kept)
held_bytes = sum(x.untyped_storage().nbytes() for x in kept)
print(f"{shown_bytes=}, {held_bytes=}")
assert (shown_bytes, held_bytes) == (800, 80_000_000)
del kept

# Sharing survives a save: after loading, a write to one is seen by the other.
loaded = torch.load(saved({"weight": table, "tied": table.t()}))
loaded["weight"][1, 2] = 5
assert loaded["tied"][2, 1] == 5

# %% [markdown] lang="pl"
# Widać {{ shown_bytes }} B, zajęte jest {{ held_bytes }} B.
#
# Teraz czas. Procesor pobiera pamięć liniami (*cache lines*), zwykle po 64 B, czyli po
# 16 liczb `float32`. Przy kroku $s$ wykorzystuje z linii co $s$-tą liczbę, więc tyle
# samo elementów wymaga $s$ razy więcej linii, aż do 16 razy. Narysujmy to przewidywanie
# obok pomiaru.

# %% [markdown] lang="en"
# You see {{ shown_bytes }} B, and {{ held_bytes }} B are taken.
#
# Now time. The processor fetches memory in *cache lines*, usually of 64 B, that is 16
# `float32` numbers. A walk with stride $s$ uses every $s$-th number of a line, so the
# same number of elements takes $s$ times as many lines, up to 16 times. Let us draw
# this prediction beside the measurement.


# %% measured=true
def fastest(jobs: Mapping[str, Callable[[], object]], rounds: int = 12) -> list[float]:
    """Take the fastest of interleaved runs, in seconds: noise only ever adds."""
    best = [math.inf] * len(jobs)
    for _ in range(rounds):
        for i, job in enumerate(jobs.values()):
            start = time.perf_counter()
            job()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


line = torch.ones(1 << 22, device=device)
steps = (1, 2, 4, 8, 16)
walks = [line[: step << 18 : step] for step in steps]  # 262,144 elements each
assert {walk.numel() for walk in walks} == {1 << 18}
seconds = fastest({str(w.stride()): w.sum for w in walks})
stride_costs = [s / seconds[0] for s in seconds]
stride_cost = stride_costs[-1]

fig, axis = plt.subplots(figsize=(7.2, 2.8))
axis.plot(steps, steps, color=ORANGE, ls="--", label="predicted: cache lines fetched")
axis.plot(steps, stride_costs, color=BLUE, marker="o", label="measured: time")
axis.set(xscale="log", yscale="log", xlabel="stride (elements)", ylabel="cost, ×")
axis.set_xticks(steps, [str(step) for step in steps])
axis.set_yticks(steps, [str(step) for step in steps])
axis.minorticks_off()
axis.legend()
show_figure(
    fig,
    alt_pl="Wykres w skali logarytmicznej: koszt zsumowania tej samej liczby elementów "
    "rośnie z krokiem. Przewidywanie to prosta od 1 do 16, pomiar jej towarzyszy.",
    alt_en="Log-log chart: the cost of summing the same number of elements grows "
    "with the stride. The prediction is a line from 1 to 16, the measurement follows.",
    pl={
        "predicted: cache lines fetched": "przewidywanie: pobrane linie pamięci",
        "measured: time": "pomiar: czas",
        "stride (elements)": "krok (w elementach)",
        "cost, ×": "koszt, ×",
    },
)
assert stride_cost > 3
assert stride_costs[1] < stride_cost

# %% [markdown] lang="pl"
# Obie linie rosną razem: przy kroku 16 ta sama liczba elementów kosztowała w tym
# uruchomieniu {{ stride_cost:.1f }}×. Model pomija pobieranie z wyprzedzeniem i dalsze
# poziomy pamięci, więc asercja sprawdza kierunek, nie wartość. Czy zatem tensor
# nieciągły jest wolny? Sprawdźmy dodawanie, w którym wiersze spotykają się
# z wierszami, kolumny z kolumnami i wiersze z kolumnami.

# %% [markdown] lang="en"
# The two lines rise together: at stride 16 the same number of elements cost
# {{ stride_cost:.1f }}× in this run. The model leaves out prefetching and further
# levels of memory, so the assertion checks the direction, not the value. So is a
# non-contiguous tensor slow? Let us try additions in which rows meet rows, columns meet
# columns, and rows meet columns.

# %% measured=true
a, b = torch.ones(2, 512, 512, device=device)
rows_s, columns_s, mixed_s = fastest(
    {
        "rows + rows": lambda: a + b,
        "columns + columns": lambda: a.t() + b.t(),
        "rows + columns": lambda: a + b.t(),
    },
    rounds=30,
)
columns_cost = columns_s / rows_s
mixed_cost = mixed_s / rows_s
print(f"{columns_cost=:.1f} {mixed_cost=:.1f}")
assert not a.t().is_contiguous()
assert (a.t() + b.t()).stride() == (1, 512)  # the result keeps the layout
assert mixed_cost > 2
assert columns_cost < mixed_cost / 1.5

# %% [markdown] lang="pl"
# Dwa tensory nieciągłe o tym samym układzie: {{ columns_cost:.1f }}×, bo
# `TensorIterator` ustawia wymiary według kroków, przechodzi pamięć po kolei i tak samo
# układa wynik. Dwa różne układy: {{ mixed_cost:.1f }}×. Drogie jest **mieszanie**
# układów, nie nieciągłość.
#
# ## Co się psuje i jak to zauważyć
#
# Teraz komunikat metody `view` da się zrozumieć: *two contiguous subspaces* to nasze
# dwa ciągi.

# %% [markdown] lang="en"
# Two non-contiguous tensors with the same layout: {{ columns_cost:.1f }}×, because
# `TensorIterator` sorts the dimensions by stride, walks the memory in order and lays
# out the result alike. Two different layouts: {{ mixed_cost:.1f }}×. What is expensive
# is **mixing** layouts, not being non-contiguous.
#
# ## What breaks and how to notice
#
# Now the message of `view` can be understood: *two contiguous subspaces* are our two
# runs.

# %% raises="RuntimeError: view size is not compatible with input tensor's size and stride"
crop.view(-1, 3)

# %% [markdown] lang="pl"
# Ten wyjątek to dobra wiadomość. Gorzej, gdy komórek jest mniej niż elementów. Przed
# zapisem PyTorch pyta o to funkcję `has_internal_overlap`, ale ta zna tylko trzy
# odpowiedzi: gęsty układ bez powtórzeń (0), krok 0 (1, wyjątek) i „za trudne” (2). Przy
# „za trudne” zapis **przechodzi**.

# %% [markdown] lang="en"
# That exception is good news. It is worse when there are fewer cells than elements.
# Before a write PyTorch asks the function `has_internal_overlap`, but that knows three
# answers only: a dense layout without repetition (0), a stride of 0 (1, an exception)
# and “too hard” (2). On “too hard” the write **goes through**.

# %%
signal = torch.zeros(6, device=device)
windows = signal.unfold(0, 3, 1)  # (window, sample), each window one sample further
show_memory(
    {"signal.unfold(0, 3, 1)": windows},
    alt_pl="Cztery okna po trzy próbki, razem 12 elementów, leżą w sześciu komórkach; "
    "środkowe komórki należą do trzech elementów naraz.",
    alt_en="Four windows of three samples, 12 elements in all, lie in six cells; the "
    "middle cells belong to three elements at once.",
)
overlap = torch._debug_has_internal_overlap  # private: to look inside, not to build on
assert [overlap(y) for y in (x, x.t(), x[1:].expand(2, 4))] == [0, 0, 1]
assert [overlap(y) for y in (x[:, ::2], windows)] == [2, 2]
cells = signal.numel()
elements = windows.numel()
windows.add_(1)  # meant: every sample of every window grows by 1
print(signal)
assert (cells, elements) == (6, 12)
assert not torch.equal(windows, torch.ones(4, 3))

# %% [markdown] lang="pl"
# Na rysunku {{ elements }} elementów dzieli {{ cells }} komórek, więc `add_(1)` trafiło
# w niektóre więcej niż raz. Nie było wyjątku, a wynik zależy od kolejności zapisów,
# której nic nie gwarantuje. Odpowiedź 2 dostał też niewinny `x[:, ::2]`, dlatego
# PyTorch nie może zgłaszać wyjątku przy każdym „za trudne”. Krok 0 rozpoznaje:

# %% [markdown] lang="en"
# In the picture {{ elements }} elements share {{ cells }} cells, so `add_(1)` hit some
# of them more than once. There was no exception, and the result depends on the order of
# the writes, which nothing guarantees. The innocent `x[:, ::2]` got the answer 2 as
# well, which is why PyTorch cannot raise on every “too hard”. A stride of 0 it does
# recognise:

# %% raises="RuntimeError: unsupported operation: more than one element of the written-to"
x[1:].expand(2, 4).add_(1)

# %% [markdown] lang="pl"
# Zostają trzy nawyki, gotowe do wklejenia. Funkcja, która **pisze**, adresuje elementy
# indeksami albo używa `view`, nigdy `reshape`. Test pyta, czy pamięć jest wspólna.
# Przed zapisem na dysk sprawdzasz, które tensory ciągną za sobą za duży magazyn.

# %% [markdown] lang="en"
# Three habits remain, ready to paste. A function that **writes** addresses elements by
# index or uses `view`, never `reshape`. A test asks whether the memory is shared.
# Before you save, you look for tensors that drag along too large a storage.


# %%
def erase_safely_(image: Tensor, pixels: Tensor) -> None:
    """Black out pixels of an image (height, width, channel) of any layout."""
    width = image.shape[1]
    image[pixels // width, pixels % width] = 0  # assignment follows the strides


def heavy(state: Mapping[str, Tensor], slack: float = 2.0) -> dict[str, int]:
    """Find tensors that keep over `slack` times the bytes they show."""
    kept = {name: x.untyped_storage().nbytes() for name, x in state.items()}
    return {
        name: kept[name] for name, x in state.items() if kept[name] > slack * x.nbytes
    }


assert same_memory(photo, photo.view(-1, 3))
assert not same_memory(crop, crop.reshape(-1, 3))  # the bug, as a test sees it
erase_safely_(crop, pixels)
assert black_pixels(crop) == 500
print(heavy({"weights": big, "row": big[0]}))
assert heavy({"weights": big, "row": big[0]}) == {"row": 4_000_000}

# %% [markdown] lang="pl"
# > [!NOTE]
# > Na GPU (tu niezmierzone) opis tensora i reguła `view` są te same. Przy mieszanych
# > układach sąsiednie wątki nie mieszczą się w jednym wspólnym odczycie i robią wiele
# > osobnych. Zatrzymany magazyn zobaczysz w `torch.cuda.memory_allocated()`.
#
# W źródłach PyTorcha:
# [`TensorImpl`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/TensorImpl.h)
# i [`StorageImpl`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/StorageImpl.h),
# [`computeStride_impl`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorUtils.cpp),
# [`reshape`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorShape.cpp),
# [`has_internal_overlap`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/MemoryOverlap.cpp).
#
# ## Co już umiesz
#
# - Z kształtu, kroków i przesunięcia wyliczasz adres każdego elementu.
# - Przewidujesz, kiedy `view` się uda, a kiedy `reshape` skopiuje dane i zgubi zapis.
# - Wiesz, ile bajtów zatrzymuje widok, i wykrywasz to przed zapisem na dysk.
# - Nie piszesz do tensora, którego elementy dzielą komórki.
#
# To pierwsza lekcja kursu. Następna: 02, o rozgłaszaniu, czyli o kroku 0 w praktyce.
# Widoki jednego dużego magazynu wrócą w lekcji
# [o DDP](../6_production/43_ddp_concepts.py). W dokumentacji:
# [Tensor Views](https://docs.pytorch.org/docs/stable/tensor_view.html),
# [Serialization semantics](https://docs.pytorch.org/docs/stable/notes/serialization.html).

# %% [markdown] lang="en"
# > [!NOTE]
# > On a GPU (not measured here) the description of a tensor and the rule of `view` are
# > the same. With mixed layouts neighbouring threads do not fit into one common read
# > and make many separate ones. You see a kept storage in
# > `torch.cuda.memory_allocated()`.
#
# In PyTorch's source:
# [`TensorImpl`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/TensorImpl.h)
# and [`StorageImpl`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/StorageImpl.h),
# [`computeStride_impl`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorUtils.cpp),
# [`reshape`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorShape.cpp),
# [`has_internal_overlap`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/MemoryOverlap.cpp).
#
# ## Now you can
#
# - You compute the address of any element from shape, strides and offset.
# - You predict when `view` succeeds, and when `reshape` copies and loses a write.
# - You know how many bytes a view keeps, and detect it before you save.
# - You do not write to a tensor whose elements share cells.
#
# This is the first lesson of the course. Next: 02, on broadcasting, which is stride 0
# at work. Views of one large storage come back in the lesson
# [on DDP](../6_production/43_ddp_concepts.py). In the documentation:
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
# wpisz kroki, przesunięcie i to, czy zapis do wyniku zmieni `cube`. Nie uruchamiaj
# wyrażeń: policz.

# %% [markdown] lang="en" exercise="predict-layout" role="prompt" belt="white" minutes=8
# ### White: predict the description
#
# The tensor `cube` has shape (2, 3, 4) and strides (12, 4, 1). For each of the eight
# expressions write the strides, the offset, and whether a write into the result changes
# `cube`. Do not run the expressions: compute.

# %% exercise="predict-layout" role="starter"
answers: dict[str, tuple[tuple[int, ...], int, bool]] = {
    # expression: (strides, offset, does a write change cube?)
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
    strides, offset, writes = answers[name]
    assert len(strides) == result.dim(), say(
        pl=f"{name}: wymiarów jest {result.dim()}, a kroków podajesz {len(strides)}",
        en=f"{name}: {result.dim()} dimensions, but you give {len(strides)} strides",
    )
    in_bytes = tuple(8 * step for step in result.stride())
    assert strides == result.stride() or strides != in_bytes, say(
        pl=f"{name}: podajesz kroki w bajtach, a PyTorch liczy je w elementach",
        en=f"{name}: you give strides in bytes, PyTorch counts them in elements",
    )
    last = [size - 1 for size in result.shape]
    yours = offset + sum(i * step for i, step in zip(last, strides, strict=True))
    true = (address(result, last) - result.untyped_storage().data_ptr()) // 8
    assert (strides, offset) == (result.stride(), result.storage_offset()), say(
        pl=f"{name}: u ciebie element {last} leży w komórce {yours} (naprawdę: {true})"
        f", a element zerowy w komórce {offset} (naprawdę: {result.storage_offset()})",
        en=f"{name}: you put element {last} into cell {yours} (in truth: {true}) and "
        f"element zero into cell {offset} (in truth: {result.storage_offset()})",
    )
    assert writes == same_memory(result, cube), say(
        pl=f"{name}: czy istnieją kroki, które dają ten kształt na starym magazynie? "
        f"Zapis {'' if same_memory(result, cube) else 'nie '}zmienia cube",
        en=f"{name}: are there strides that give this shape over the old storage? A "
        f"write {'changes' if same_memory(result, cube) else 'does not change'} cube",
    )

# %% [markdown] lang="pl" exercise="predict-layout" role="hint"
# Wybór indeksu usuwa wymiar i dodaje indeks × krok do przesunięcia. Wycinek `a:b:c`
# mnoży krok przez `c` i dodaje `a` × krok do przesunięcia.

# %% [markdown] lang="en" exercise="predict-layout" role="hint"
# Choosing an index removes a dimension and adds index × stride to the offset. A slice
# `a:b:c` multiplies the stride by `c` and adds `a` × stride to the offset.

# %% [markdown] lang="pl" exercise="predict-layout" role="hint"
# Gdy `reshape` spłaszcza tensor nieciągły do jednego wymiaru, wypisz ciągi funkcją
# `runs`: jeden ciąg oznacza widok.

# %% [markdown] lang="en" exercise="predict-layout" role="hint"
# Where `reshape` flattens a non-contiguous tensor to one dimension, list the runs with
# the function `runs`: a single run means a view.

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

# %% exercise="predict-layout" role="wrong" says="cube[:, :, 0].reshape(6): you put"
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

# %% exercise="predict-layout" role="wrong" says="does not change cube"
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
# ### Brązowy: odchudź zapis modelu
#
# Napisz funkcję `compact`, która zwraca nowy słownik. Tensor sklonuj tylko wtedy, gdy
# jego magazyn jest większy od niego **i** żaden inny wpis z tego magazynu nie korzysta.
# Wpisy ze wspólnym magazynem (wagi związane, *tied weights*) zostają wspólne.

# %% [markdown] lang="en" exercise="compact-state" role="prompt" belt="brown" minutes=15
# ### Brown: slim down a checkpoint
#
# Write the function `compact` that returns a new dictionary. Clone a tensor only if its
# storage is larger than the tensor **and** no other entry uses that storage. Entries
# with a common storage (*tied weights*) stay tied.


# %% exercise="compact-state" role="starter"
def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)  # your code


# %% exercise="compact-state" role="check"
weight = torch.randn(50, 20)
checkpoint = {
    "row": torch.randn(1000, 1000)[0],
    "column": torch.randn(500, 500)[:, 0],
    "embedding": weight,
    "output": weight.t(),
    "padding": weight[1],  # lies inside the embedding
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
        en=f"{name}: you change the dictionary of the caller",
    )
for name in ("output", "padding"):
    assert same_memory(slim[name], slim["embedding"]), say(
        pl=f"{name}: zapis do embedding już tu nie dotrze, wagi przestały być związane",
        en=f"{name}: a write to embedding does not arrive here, they came untied",
    )
for name in ("row", "column"):
    kept_now = slim[name].untyped_storage().nbytes()
    assert kept_now == slim[name].nbytes, say(
        pl=f"{name}: pokazuje {slim[name].nbytes} B, a nadal trzyma {kept_now} B",
        en=f"{name}: shows {slim[name].nbytes} B and still keeps {kept_now} B",
    )
assert saved(slim).getbuffer().nbytes * 100 < saved(checkpoint).getbuffer().nbytes, say(
    pl="plik po odchudzeniu jest nadal za duży", en="the file is still too large"
)

# %% [markdown] lang="pl" exercise="compact-state" role="hint"
# Policz użytkowników każdego magazynu: `Counter` po adresach
# `x.untyped_storage().data_ptr()`.

# %% [markdown] lang="en" exercise="compact-state" role="hint"
# Count the users of each storage: a `Counter` over the addresses
# `x.untyped_storage().data_ptr()`.


# %% exercise="compact-state" role="wrong" says="they came untied"
def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in state.items()}


# %% exercise="compact-state" role="wrong" says="row: shows 4000 B and still keeps"
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
    users = [storage.data_ptr() for storage in storages]  # one entry for each user
    slim: dict[str, Tensor] = {}
    for (name, x), storage in zip(state.items(), storages, strict=True):
        alone = users.count(storage.data_ptr()) == 1
        # clone() allocates exactly the elements, so the parent can be freed.
        slim[name] = x.clone() if alone and storage.nbytes() > x.nbytes else x
    return slim


# %% [markdown] lang="pl" exercise="may-overlap" role="prompt" belt="black" minutes=25
# ### Czarny: rozstrzygnij „za trudne”
#
# Napisz funkcję `may_overlap`, która z kształtu i nieujemnych kroków mówi, czy dwa
# elementy mogą dzielić komórkę. Nie wolno wyliczać komórek: funkcja ma odpowiadać od
# razu także dla biliona elementów. Nigdy nie mów `False`, gdy elementy się nakładają.
# Powiedz `False` o wszystkim, co powstaje z tensora ciągłego przez `permute` i wycinki.

# %% [markdown] lang="en" exercise="may-overlap" role="prompt" belt="black" minutes=25
# ### Black: decide the “too hard”
#
# Write the function `may_overlap` that tells from a shape and non-negative strides
# whether two elements can share a cell. You must not list the cells: the function has
# to answer at once for a trillion elements too. Never say `False` when elements
# overlap. Say `False` about everything that `permute` and slices make of a contiguous
# tensor.


# %% exercise="may-overlap" role="starter"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    return False  # your code


# %% exercise="may-overlap" role="check"
def shares_cells(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Decide by listing all cells: slow, and the specification."""
    cells = [
        sum(i * step for i, step in zip(index, stride, strict=True))
        for index in itertools.product(*(range(size) for size in shape))
    ]
    return len(set(cells)) < len(cells)


draw = random.Random(1)
for _ in range(3000):
    dims = draw.randint(1, 3)
    sizes = [draw.randint(1, 4) for _ in range(dims)]
    jumps = [draw.randint(0, 12) for _ in range(dims)]
    assert may_overlap(sizes, jumps) or not shares_cells(sizes, jumps), say(
        pl=f"kształt {sizes}, kroki {jumps}: dwa elementy dzielą komórkę, a mówisz nie",
        en=f"shape {sizes}, strides {jumps}: two elements share a cell, and you say no",
    )
for _ in range(500):
    sliced = torch.empty([draw.randint(1, 6) for _ in range(3)])
    for axis_index in range(3):
        sliced = sliced.transpose(0, axis_index)[:: draw.randint(1, 3)]
    assert not may_overlap(sliced.shape, sliced.stride()), say(
        pl=f"kształt {tuple(sliced.shape)}, kroki {sliced.stride()}: fałszywy alarm, "
        "każdy element ma tu własną komórkę",
        en=f"shape {tuple(sliced.shape)}, strides {sliced.stride()}: a false alarm, "
        "every element has its own cell here",
    )

# %% [markdown] lang="pl" exercise="may-overlap" role="hint"
# Kolejność wymiarów nie zmienia zbioru komórek. Ustaw je od najmniejszego kroku.

# %% [markdown] lang="en" exercise="may-overlap" role="hint"
# The order of dimensions does not change the set of cells. Sort them from the smallest
# stride.

# %% [markdown] lang="pl" exercise="may-overlap" role="hint"
# Jak daleko sięgają wymiary o mniejszych krokach? Jeśli następny krok przeskakuje cały
# ten zasięg, nic się nie nałoży. Wymiar o rozmiarze 1 niczego nie przesuwa.

# %% [markdown] lang="en" exercise="may-overlap" role="hint"
# How far do the dimensions with smaller strides reach? If the next stride jumps over
# all of that reach, nothing overlaps. A dimension of size 1 moves nothing.


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


# %% exercise="may-overlap" role="wrong" says="two elements share a cell"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    # Enough room for all elements does not mean that they are spread out.
    span = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    return math.prod(shape) > span


# %% exercise="may-overlap" role="solution"
def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    pairs = zip(stride, shape, strict=True)
    reach = 0  # the farthest cell that dimensions with smaller strides can move to
    for step, size in sorted((step, size) for step, size in pairs if size > 1):
        if step <= reach:
            return True  # this step may land on a cell that is already taken
        reach += step * (size - 1)
    return False
