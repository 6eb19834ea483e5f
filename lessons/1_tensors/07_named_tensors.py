# %% [markdown] lang="pl"
# # Tensory o nazwanych osiach: usunięta funkcja i jej następcy
#
# PyTorch dopasowuje osie po pozycji i rozmiarze, a ty rozpoznajesz je po nazwach. Gdy dwa
# rozmiary przypadkiem się zgadzają, pomylona oś przechodzi bez wyjątku. Nazwane tensory miały temu
# zapobiec i zostały usunięte. Po tej lekcji złapiesz taką pomyłkę dzisiejszymi narzędziami i
# będziesz wiedzieć, której nie złapie żadne z nich.
#
# ## Maska, która zasłania nie to
#
# Zdania w partii (*batch*) mają różne długości, więc dopełnienie (*padding*) na ich końcach trzeba
# zasłonić przed uwagą (*attention*). Wyniki uwagi (*scores*) mają osie `batch head query key`, a
# maska `batch key`. W partii jest {{ batch }} zdań po {{ tokens }} tokenów.

# %% [markdown] lang="en"
# # Named tensors: a removed feature and its successors
#
# PyTorch matches axes by position and size, while you think of them by name. When two sizes
# happen to agree, the wrong axis passes without an exception. Named tensors were meant to
# prevent this and were removed. After this lesson you can catch such a mistake with today's
# tools, and you know which one none of them catches.
#
# ## A mask that hides the wrong thing
#
# The sentences in a batch have different lengths, so the padding at their ends has to be hidden
# from attention. The scores have the axes `batch head query key`, the mask `batch key`. The batch
# holds {{ batch }} sentences of {{ tokens }} tokens.

# %% fold=true
import functools
import importlib
import itertools
import math
import operator
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.export import Dim, export

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, ORANGE, RED, show_figure
from snippets.memory import CallCounter, MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)


# %%
def attention(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (batch, head, query, key), mask (batch, key) of 0 and -1e9."""
    return (scores + mask).softmax(dim=-1)


def padded(batch: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Random scores, and a mask: sentence b has its last 1 + b % 3 tokens padded."""
    mask = torch.zeros(batch, tokens)
    for b in range(batch):
        mask[b, tokens - 1 - b % 3 :] = -1e9
    return torch.randn(batch, 2, tokens, tokens), mask


def share_on_padding(weights: Tensor, mask: Tensor) -> float:
    """Per cent of attention (batch, head, query, key) that falls on padded keys."""
    hidden = (mask < 0)[:, None, None, :]
    return 100 * (weights * hidden).sum(-1).mean().item()


batch = tokens = 5
scores, mask = padded(batch, tokens)
leak = share_on_padding(attention(scores, mask), mask)
print(f"{leak=:.0f}")
assert leak > 10

# %% [markdown] lang="pl"
# Na dopełnienie trafia {{ leak:.0f }}% uwagi, a powinno 0%. Wyjątku nie było. Pytanie lekcji:
# **jak sprawić, żeby pomylona oś kończyła się wyjątkiem?**
#
# ## Kto by to zauważył

# %% [markdown] lang="en"
# {{ leak:.0f }}% of the attention falls on padding, where it should be 0%. There was no
# exception. The question of this lesson: **how do you make an axis mistake raise?**
#
# ## Who would have noticed

# %% [markdown] lang="pl" predict="which-test"
# Funkcja `attention` ma dwa testy: jeden z partią jednego zdania, drugi z partią trzech,
# oba ze zdaniami po pięć tokenów. Każdy sprawdza, czy na dopełnienie trafia 0% uwagi. Jak się
# skończą?
#
# - [ ] Oba przejdą
#
#   Przy trzech zdaniach funkcja zgłasza wyjątek: rozmiar 3 nie pasuje do osi zapytań o
#   rozmiarze 5.
#
# - [x] Przejdzie tylko test z jednym zdaniem
#
#   Maska (1, 5) rozgłasza się po zapytaniach, a innych zdań nie ma, więc wynik jest
#   przypadkiem dobry: na dopełnienie trafia {{ leak_of_one:.0f }}%. Przy trzech zdaniach
#   funkcja zgłasza wyjątek.
#
# - [ ] Oba wykryją błąd
#
#   Test z jednym zdaniem go nie wykryje: jego wynik jest taki sam jak poprawnej funkcji.

# %% [markdown] lang="en" predict="which-test"
# The function `attention` has two tests: one with a batch of one sentence, one with a batch
# of three, both with sentences of five tokens. Each checks that 0% of the attention falls on
# padding. How will they end?
#
# - [ ] Both pass
#
#   The batch of three sentences raises: size 3 does not fit the axis of queries, of size 5.
#
# - [x] Only the test with one sentence passes
#
#   The mask (1, 5) is broadcast over the queries, and there are no other sentences, so the
#   result happens to be right: {{ leak_of_one:.0f }}% falls on padding. With three sentences
#   the function raises.
#
# - [ ] Both detect the bug
#
#   The test with one sentence does not: its result is the same as that of a correct function.


# %% raises="RuntimeError: The size of tensor a (5) must match the size of tensor b (3) at non-singleton dimension 2"
def attention_fixed(scores: Tensor, mask: Tensor) -> Tensor:
    aligned = rearrange(mask, "batch key -> batch 1 1 key")
    return (scores + aligned).softmax(dim=-1)


assert share_on_padding(attention_fixed(scores, mask), mask) == 0
attention(*padded(3, 5))


# %%
scores_of_one, mask_of_one = padded(1, 5)
of_one = attention(scores_of_one, mask_of_one)
leak_of_one = share_on_padding(of_one, mask_of_one)
assert torch.equal(of_one, attention_fixed(scores_of_one, mask_of_one))
print(f"{leak_of_one=:.0f}")


def raises(job: Callable[[], object]) -> str:
    """The traceback of what `job` raises, causes included, or nothing."""
    try:
        job()
    except Exception:  # every tool has its own type
        return traceback.format_exc().strip()
    return ""


triples = [*itertools.product(range(1, 6), range(1, 6), range(2, 6))]
silent = []
for b, h, t in triples:
    inputs = torch.zeros(b, h, t, t), torch.zeros(b, t)
    if not raises(functools.partial(attention, *inputs)):
        silent.append((b, h, t))
how_many, how_silent = len(triples), len(silent)
print(f"{how_silent} of {how_many}")
assert silent == [(b, h, t) for b, h, t in triples if b in (1, t)]

# %% [markdown] lang="pl"
# Spośród {{ how_many }} trójek rozmiarów (zdania, głowy, tokeny) błąd milczy w
# {{ how_silent }}: tam, gdzie zdanie jest jedno albo zdań jest tyle, ile tokenów. Narysujmy,
# które osie PyTorch ze sobą zestawił.

# %% [markdown] lang="en"
# Of {{ how_many }} triples of sizes (sentences, heads, tokens), the bug is silent in
# {{ how_silent }}: where there is one sentence, or there are as many sentences as tokens. Let's
# draw which axes PyTorch paired up.

# %% fold=true
Axes = Sequence[tuple[str, int]]
COLOURS = {"batch": BLUE, "head": GRAY, "query": ORANGE, "key": GREEN}


def draw_alignment(rows: dict[str, Axes]) -> None:
    """Draw shapes one over the other, aligned on the right as broadcasting does."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    first = next(iter(rows.values()))
    for at, (code, axes) in enumerate(rows.items()):
        y = len(rows) - 1 - at
        ax.text(0, y, code, family="monospace", va="center", fontsize=9.5)
        for column, (name, size) in enumerate(reversed(axes)):
            x = 9 - 1.75 * column
            colour = COLOURS.get(name, GRAY)
            inside = Rectangle((x, y - 0.36), 1.65, 0.72, fc=colour, alpha=0.3)
            border = Rectangle((x, y - 0.36), 1.65, 0.72, fc="none", ec=GRAY, ls="--")
            ax.add_patch(inside if name else border)
            text = f"{name} {size}".strip()
            ax.text(x + 0.82, y, text, ha="center", va="center", fontsize=9.5)
            above = [*reversed(first)][column][0]
            if name and name != above:  # the wrong pair
                frame = (x - 0.05, y - 0.42), 1.75, at + 0.84
                ax.add_patch(Rectangle(*frame, fc="none", ec=RED, lw=2.5))
    ax.set(xlim=(0, 10.8), ylim=(-0.6, len(rows) - 0.4))
    ax.axis("off")
    show_figure(
        fig,
        alt_pl="Trzy kształty wyrównane do prawej. Maska (batch, key) staje pod osiami "
        "query i key wyników; czerwona ramka obejmuje błędną parę: query i leżące pod nim "
        "batch. Maska po rearrange ma cztery osie: batch leży pod batch, a pod head i query "
        "stoją jedynki w przerywanych ramkach.",
        alt_en="Three shapes aligned on the right. The mask (batch, key) stands under the "
        "axes query and key of the scores; a red frame holds the wrong pair: query and, "
        "under it, batch. The mask after rearrange has four axes: batch lies under batch, "
        "with ones in dashed frames under head and query.",
        same={text.get_text() for text in ax.texts},
    )


in_place_of = rearrange(mask, "batch key -> batch 1 1 key")
draw_alignment(
    {
        "scores": [*zip(("batch", "head", "query", "key"), scores.shape, strict=True)],
        "mask": [*zip(("batch", "key"), mask.shape, strict=True)],
        "rearrange(mask, ...)": [
            *zip(("batch", "", "", "key"), in_place_of.shape, strict=True)
        ],
    }
)

# %% [markdown] lang="pl"
# Rozgłaszanie (*broadcasting*) wyrównuje osie do prawej, więc oś `batch` maski stanęła pod osią
# `query` (czerwona ramka). Nazwy zna tylko autor kodu; PyTorch widzi dwie piątki. Maska
# zależy więc od zapytania zamiast od zdania. Regułę i komunikat „The size of tensor a…” ma funkcja
# `infer_size` w pliku
# `aten/src/ATen/ExpandUtils.cpp`.
#
# ## Nazwy, których już nie ma
#
# Prototyp nazwanych tensorów pozwalał nadać osiom nazwy. Według
# archiwalnej dokumentacji działania nadal
# wyrównywały osie do prawej, ale niezgodne nazwy kończyły się wyjątkiem. Wydanie 2.13
# usunęło prototyp, żeby pozbyć się narzutu (*overhead*) i nadmiaru kodu
# ([#173895](https://github.com/pytorch/pytorch/pull/173895)). W starszym PyTorchu następna
# komórka skończy się inaczej.

# %% [markdown] lang="en"
# Broadcasting aligns axes on the right, so the axis `batch` of the mask landed under the axis
# `query` (red frame). The names are known only to the author of the code; PyTorch sees two fives.
# So the mask depends on the query instead of on the sentence. The rule and the message "The size
# of tensor a…" live in the function `infer_size` in
# `aten/src/ATen/ExpandUtils.cpp`.
#
# ## Names that are gone
#
# The prototype of named tensors let you name axes. According to the
# archived documentation, operations still
# aligned axes on the right, but names that did not match raised. Release 2.13 removed the prototype,
# to get rid of overhead and of bloated code
# ([#173895](https://github.com/pytorch/pytorch/pull/173895)). On an older PyTorch the next cell
# ends differently.

# %% raises="TypeError: zeros() got an unexpected keyword argument 'names'"
prototype = ("names", "rename", "refine_names", "align_to", "align_as")
gone = [name for name in prototype if not hasattr(Tensor, name)]
print(f"{gone=}")
assert len(gone) == len(prototype)
zeros: Any = torch.zeros  # the type checker knows it, too
zeros(2, 3, names=("batch", "key"))

# %% [markdown] lang="pl"
# Podobny jest moduł `functorch.dim`: nazwą osi jest w nim obiekt Pythona. PyTorch
# {{ torch_version }} nadal go zawiera, ale
# plik `functorch/dim/README.md` nazywa go wersją
# zapoznawczą (*preview*), a w 2025 r. proponowano go usunąć, bo jego utrzymanie kosztuje
# ([#158784](https://github.com/pytorch/pytorch/pull/158784)). Maskę dopasowuje dobrze.

# %% [markdown] lang="en"
# The module `functorch.dim` is similar: there the name of an axis is a Python object. PyTorch
# {{ torch_version }} still ships it, but the
# file `functorch/dim/README.md` calls it a
# preview release, and in 2025 it was proposed for removal, because of what it costs to maintain
# ([#158784](https://github.com/pytorch/pytorch/pull/158784)). It does match the mask correctly.

# %%
torch_version = torch.__version__.partition("+")[0]
dims: Any = importlib.import_module("functorch.dim").dims
b, h, q, k = dims(4)
by_dims: Any = scores[b, h, q, k] + mask[b, k]
print(by_dims.dims)
assert torch.equal(by_dims.order(b, h, q, k), scores + mask[:, None, None, :])

# %% [markdown] lang="pl"
# ## Nazwy w czterdziestu wierszach
#
# Zbudujmy nazwy sami. Opakowanie trzyma tensor i nazwy. Przed działaniem sprowadza osie obu
# argumentów do jednej kolejności, a w miejsce brakujących wstawia osie o rozmiarze 1. Wspólne osie
# muszą mieć równe rozmiary.

# %% [markdown] lang="en"
# ## Names in forty lines
#
# Let's build names ourselves. The wrapper holds a tensor and names. Before an operation it brings
# the axes of both arguments into one order and puts axes of size 1 in the place of missing ones.
# Shared axes must have equal sizes.


# %%
@dataclass(frozen=True)
class Named:
    tensor: Tensor
    names: tuple[str, ...]

    def align(self, names: Sequence[str]) -> Tensor:
        """A view with the axes `names`, of size 1 where this tensor has none."""
        if missing := set(self.names) - set(names):
            raise ValueError(f"axes {sorted(missing)} would get lost")
        view = self.tensor.permute(
            [self.names.index(name) for name in names if name in self.names]
        )
        for at, name in enumerate(names):
            view = view if name in self.names else view.unsqueeze(at)
        return view

    def combine(
        self, other: "Named", apply: Callable[[Tensor, Tensor], Tensor]
    ) -> "Named":
        for name in set(self.names) & set(other.names):
            ours, theirs = self.size(name), other.size(name)
            if ours != theirs:
                raise ValueError(f"axis {name}: {ours} and {theirs}")
        names = (*self.names, *(n for n in other.names if n not in self.names))
        return Named(apply(self.align(names), other.align(names)), names)

    def size(self, name: str) -> int:
        return self.tensor.shape[self.names.index(name)]

    def sum(self, name: str) -> "Named":
        kept = tuple(n for n in self.names if n != name)
        return Named(self.tensor.sum(self.names.index(name)), kept)

    def __add__(self, other: "Named") -> "Named":
        return self.combine(other, operator.add)

    def __sub__(self, other: "Named") -> "Named":
        return self.combine(other, operator.sub)

    def __truediv__(self, other: "Named") -> "Named":
        return self.combine(other, operator.truediv)


named_scores = Named(scores, ("batch", "head", "query", "key"))
named_mask = Named(mask, ("batch", "key"))
named = (named_scores + named_mask).tensor.softmax(dim=-1)
assert torch.equal(named, attention_fixed(scores, mask))  # though batch == tokens
mismatch = raises(lambda: named_scores + Named(mask[:3], ("batch", "key")))
print(mismatch.splitlines()[-1])
assert mismatch.endswith("ValueError: axis batch: 5 and 3")

# %% [markdown] lang="pl"
# Wyrocznią będzie `torch.einsum`, która też zna osie z nazwy: rozszerza oba tensory do
# wszystkich osi, mnożąc je przez jedynki.

# %% [markdown] lang="en"
# The oracle is `torch.einsum`, which also knows axes by name: it expands both tensors to all
# axes by multiplying them with ones.

# %%
SIZES = {"a": 2, "b": 3, "c": 3, "d": 4}  # b and c have the same size on purpose
APPLY = (operator.add, operator.sub, operator.mul, operator.truediv)


def random_named(rng: random.Random) -> Named:
    names = tuple(rng.sample(list(SIZES), rng.randint(1, 4)))
    return Named(1 + torch.rand([SIZES[n] for n in names]), names)


def expanded(x: Named, names: Sequence[str]) -> Tensor:
    ones = torch.ones([SIZES[n] for n in names])
    spec = f"{''.join(x.names)},{''.join(names)}->{''.join(names)}"
    return torch.as_tensor(torch.einsum(spec, x.tensor, ones))


tried = 1000
rng = random.Random(0)
agreed = coincidences = 0
for _ in range(tried):
    x, y, apply = random_named(rng), random_named(rng), rng.choice(APPLY)
    ours = x.combine(y, apply)
    theirs = apply(expanded(x, ours.names), expanded(y, ours.names))
    dropped = rng.choice(ours.names)
    agreed += torch.allclose(ours.tensor, theirs) and torch.allclose(
        ours.sum(dropped).tensor, theirs.sum(ours.names.index(dropped))
    )
    try:  # what plain tensors would have done
        plain = apply(x.tensor, y.tensor)
    except RuntimeError:
        continue
    suffix = x.names[-len(y.names) :] == y.names or y.names[-len(x.names) :] == x.names
    same = plain.shape == theirs.shape and torch.allclose(plain, theirs)
    coincidences += not (same or suffix)  # a suffix is right, in another order of axes
print(f"{agreed=} of {tried}, {coincidences=}")
assert agreed == tried
assert 20 < coincidences < tried

# %% [markdown] lang="pl"
# Zgodność: {{ agreed }} na {{ tried }}. W {{ coincidences }} z tych przypadków zwykłe tensory
# policzyłyby bez wyjątku coś innego, bo rozmiary przypadkiem pasowały.
#
# ## Trzy narzędzia zamiast nazw
#
# Czy te same pomyłki da się złapać bez nazw w tensorach? Sprawdźmy to na trzech błędach. Pierwszy to
# maska z początku lekcji. Drugi to dzielenie przez sumy wierszy bez `keepdim=True`, więc sumy stają
# pod kolumnami. Trzeci to odjęcie `(N,)` od `(N, 1)`.

# %% [markdown] lang="en"
# Agreement: {{ agreed }} out of {{ tried }}. In {{ coincidences }} of these cases plain
# tensors would have computed something else without an exception, because the sizes happened
# to fit.
#
# ## Three tools instead of names
#
# Can the same mistakes be caught without names in tensors? Let's try it on three bugs. The first is
# the mask from the beginning. The second is a division by the sums of rows without `keepdim=True`, so
# that the sums land under the columns. The third is subtracting `(N,)` from `(N, 1)`.


# %%
def normalised(x: Tensor) -> Tensor:
    """Each row of a confusion matrix (row, column) divided by its sum, or so it says."""
    return x / x.sum(dim=1)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target) ** 2).mean()


square = torch.rand(4, 4)
row_sums = normalised(square).sum(dim=1)
print(row_sums)
assert not torch.allclose(row_sums, torch.ones(4))
assert torch.equal(normalised(square)[:, 1], square[:, 1] / square[1].sum())
pairs = (torch.randn(4, 1) - torch.randn(4)).shape
assert pairs == (4, 4)  # every prediction against every target

# %% [markdown] lang="pl"
# **Liczby pierwsze na urządzeniu `meta`.** Skoro błąd milczy przez równe rozmiary, nadaj w
# teście każdej osi inny rozmiar, najlepiej nieparzystą liczbę pierwszą: ani suma, ani iloczyn dwóch
# takich rozmiarów nie trafi w trzeci, jak 2 + 3 trafia w 5, a 2 · 3 w 6. Na urządzeniu `meta` tensor ma
# kształt, ale nie ma danych, więc mieści się tam nawet wynik o rozmiarze {{ terabytes:.1f }} TB.

# %% [markdown] lang="en"
# **Primes on the `meta` device.** If equal sizes make the bug silent, give each axis a
# different size in the test, preferably an odd prime: neither the sum nor the product of two such
# sizes meets a third, as 2 + 3 meets 5 and 2 · 3 meets 6. On the `meta` device a tensor has a
# shape but no data, so even a result of {{ terabytes:.1f }} TB fits.


# %%
def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


on_primes = {
    "mask": raises(lambda: attention(meta(3, 5, 7, 7), meta(3, 7))),
    "division": raises(lambda: normalised(meta(3, 5))),
    "difference": raises(lambda: squared_error(meta(3, 1), meta(3))),
}
message = on_primes["mask"].splitlines()[-1]
print(message)
assert message.startswith(
    "RuntimeError: Attempting to broadcast a dimension of length 3"
)
assert on_primes["division"] and not on_primes["difference"]
assert not raises(lambda: attention_fixed(meta(3, 5, 7, 7), meta(3, 7)))
on_cpu = raises(lambda: attention(*padded(3, 7)))
assert "_refs" in on_primes["mask"]  # a folder in the traceback
assert on_cpu and "_refs" not in on_cpu

assert not raises(lambda: torch.cat([meta(2), meta(3)]) + meta(5))  # 2 is not odd
assert not raises(lambda: meta(2, 3).flatten() + meta(6))  # 6 is not a prime
odd_primes = [n for n in range(3, 200) if all(n % d for d in range(2, n))]
two = [*itertools.combinations_with_replacement(odd_primes, 2)]
assert not {a + b for a, b in two} & {*odd_primes}
assert not {a * b for a, b in two} & {*odd_primes}

full_scale = attention_fixed(meta(512, 64, 8192, 8192), meta(512, 8192))
terabytes = full_scale.nbytes / 1e12

# %% [markdown] lang="pl"
# Treść wyjątku jest inna niż na CPU, bo kształt na `meta` liczy tu kod Pythona:
# `torch/_refs/__init__.py`.
#
# **Adnotacje sprawdzane w czasie wywołania.** Wpisz nazwy osi do adnotacji typu. Dekorator
# `checked` porówna je z kształtami argumentów i wyniku: w jednym wywołaniu ta sama nazwa musi znaczyć
# ten sam rozmiar. Funkcja `run_on_primes` odczyta te same adnotacje i wywoła twoją funkcję na `meta`
# z liczbami pierwszymi. Następną komórkę możesz wkleić do swojego kodu. Gotowe adnotacje, także z
# `dtype`, ma biblioteka [jaxtyping](https://docs.kidger.site/jaxtyping).

# %% [markdown] lang="en"
# The message is not the one of the CPU, because on `meta` the shape is worked out by Python code:
# `torch/_refs/__init__.py`.
#
# **Annotations checked at call time.** Write the names of the axes into the type annotation. The
# decorator `checked` compares them with the shapes of the arguments and of the result: within one
# call the same name must mean the same size. The function `run_on_primes` reads the same annotations
# and calls your function on `meta` with primes. You can paste the next cell into your code. Ready-made
# annotations, with the `dtype` too, come with the library
# [jaxtyping](https://docs.kidger.site/jaxtyping).

# %%
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, ParamSpec, TypeVar, get_type_hints

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def axes_of(hint: object) -> list[str] | None:
    """The names in an annotation such as Annotated[Tensor, "batch key"]."""
    spec = next(iter(getattr(hint, "__metadata__", ())), None)
    return spec.split() if isinstance(spec, str) else None


def match(what: str, value: object, hint: object, sizes: dict[str, int]) -> None:
    """Compare a tensor with its annotation and with the sizes known so far."""
    names = axes_of(hint)
    if names is None or not isinstance(value, Tensor):
        return
    shape = tuple(value.shape)
    if len(names) != len(shape):
        raise ValueError(f"{what} has shape {shape}, expected {names}")
    for name, size in zip(names, shape, strict=True):
        if sizes.setdefault(name, size) != size:
            raise ValueError(f"{what}: {name} is {size}, but was {sizes[name]} before")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the annotated tensors of each call, and the result."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        sizes: dict[str, int] = {}
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            match(name, value, hints.get(name), sizes)
        result = function(*args, **kwargs)
        match("result", result, hints.get("return"), sizes)
        return result

    return wrapper


def run_on_primes(function: Callable[..., object], **other: object) -> None:
    """Call on `meta` tensors, every axis name a different odd prime."""
    primes = (n for n in range(3, 10_000) if all(n % d for d in range(2, n)))
    sizes: dict[str, int] = {}
    inputs = dict(other)  # arguments that are not annotated tensors
    for argument, hint in get_type_hints(function, include_extras=True).items():
        names = axes_of(hint)
        if names is not None and argument != "return":
            shape = [sizes.setdefault(name, next(primes)) for name in names]
            inputs[argument] = torch.empty(shape, device="meta")
    checked(function)(**inputs)


# %%
Scores = Annotated[Tensor, "batch head query key"]
Mask = Annotated[Tensor, "batch key"]
Matrix = Annotated[Tensor, "row column"]
Sample = Annotated[Tensor, "sample"]


@checked
def checked_attention(scores: Scores, mask: Mask) -> Scores:
    return attention(scores, mask)


@checked
def checked_fixed(scores: Scores, mask: Mask) -> Scores:
    return attention_fixed(scores, mask)


@checked
def checked_normalised(x: Matrix) -> Matrix:
    return normalised(x)


@checked
def checked_error(prediction: Sample, target: Sample) -> Annotated[Tensor, ""]:
    return squared_error(prediction, target)


when_called = {
    "mask": raises(lambda: checked_attention(scores, mask)),
    "division": raises(lambda: checked_normalised(square)),
    "difference": raises(lambda: checked_error(torch.randn(4, 1), torch.randn(4))),
}
in_a_test = {
    "mask": raises(lambda: run_on_primes(checked_attention)),
    "division": raises(lambda: run_on_primes(checked_normalised)),
    "difference": raises(lambda: run_on_primes(checked_error)),
}
swapped = raises(lambda: checked_attention(scores[:3], mask[:3].t()))
for trace in (when_called["difference"], swapped, in_a_test["mask"]):
    print(trace.splitlines()[-1])
assert "prediction has shape (4, 1), expected ['sample']" in when_called["difference"]
assert "mask: batch is 5, but was 3 before" in swapped
assert "Attempting to broadcast" in in_a_test["mask"] and in_a_test["division"]
assert not when_called["mask"] and not when_called["division"]
assert not in_a_test["difference"]
checked_fixed(scores, mask)
run_on_primes(checked_fixed)

# %% [markdown] lang="pl"
# Dekorator pilnuje granicy funkcji: złapał `(N, 1)` i zamienione osie o różnych rozmiarach.
# Pomyłki **wewnątrz** funkcji przy równych rozmiarach nie widzi. Tę łapie w teście `run_on_primes`,
# a przy naprawionej uwadze milczy.
#
# **Eksport z symbolami.** Funkcja `torch.export.export` śledzi program na przykładzie, ale rozmiary
# zadeklarowane jako `Dim` zastępuje symbolami. Gdy rozgłaszanie zestawi dwa różne symbole, śledzenie
# zapisuje warunek ich równości, a eksport zgłasza wyjątek, bo zadeklarowaliśmy je jako niezależne
# (`torch/fx/experimental/symbolic_shapes.py`).
# Przykład może więc mieć równe rozmiary.

# %% [markdown] lang="en"
# The decorator guards the boundary of a function: it caught `(N, 1)` and swapped axes of different
# sizes. It does not see a mistake **inside** the function at equal sizes. That one is caught in a
# test by `run_on_primes`, which is silent for the repaired attention.
#
# **Export with symbols.** The function `torch.export.export` traces a program on an example, but
# puts symbols in the place of sizes declared as `Dim`. When broadcasting pairs up two different
# symbols, tracing records the condition that they are equal, and export raises, because we declared
# them independent
# (`torch/fx/experimental/symbolic_shapes.py`).
# So the example may have equal sizes.


# %%
class Program(nn.Module):
    """`export` takes modules."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        return self.function(first) if second is None else self.function(first, second)


B, T, N, C = Dim("B"), Dim("T"), Dim("N"), Dim("C")


def export_error(
    function: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    dims: tuple[dict[int, Dim], ...],
) -> str:
    return raises(lambda: export(Program(function), inputs, dynamic_shapes=dims))


of_attention = ((scores, mask), ({0: B, 2: T, 3: T}, {0: B, 1: T}))
in_export = {
    "mask": export_error(attention, *of_attention),
    "division": export_error(normalised, (square,), ({0: N, 1: C},)),
    "difference": export_error(
        squared_error, (torch.randn(4, 1), torch.randn(4)), ({0: N}, {0: N})
    ),
}
lines = in_export["mask"].splitlines()
print(next(line for line in lines if "must always be equal" in line))
print(lines[lines.index("Suggested fixes:") + 1])
assert "must always be equal" in in_export["division"]
assert "symbolic_shapes.py" in in_export["mask"]
assert not in_export["difference"]
assert not export_error(attention_fixed, *of_attention)

# %% [markdown] lang="pl"
# Eksport przyjął naprawioną uwagę. W dwóch błędnych programach wykrył, że zapisany graf wymaga równych
# rozmiarów, a dla maski podał nawet, których: `T = B`. Odjęcie `(N,)` od `(N, 1)` przepuścił: jest
# legalne dla każdego `N`.
#
# Na koniec sprawdźmy nazwy z opakowania, na tych samych równych rozmiarach.

# %% [markdown] lang="en"
# Export accepted the repaired attention. In two of the wrong programs it found that the recorded
# graph needs equal sizes, and for the mask it even said which: `T = B`. It let the subtraction of
# `(N,)` from `(N, 1)` through: that one is legal for every `N`.
#
# Finally, let's check the names from the wrapper, at the same equal sizes.

# %%
x = Named(square, ("row", "column"))
by_name = x / x.sum("column")
prediction = Named(torch.randn(4, 1), ("sample", "output"))
difference = prediction - Named(torch.randn(4), ("sample",))
by_names = [
    torch.equal(named, attention_fixed(scores, mask)),
    torch.allclose(by_name.sum("column").tensor, torch.ones(4)),
    difference.tensor.shape == (4, 1),  # 4 differences, not 16
]
wrong_now = [leak > 0, not torch.allclose(row_sums, torch.ones(4)), pairs == (4, 4)]
both = [bool(when_called[bug] or in_a_test[bug]) for bug in on_primes]

table = {
    "equal sizes": ["silent" if wrong else "right" for wrong in wrong_now],
    "primes on meta": ["caught" if text else "silent" for text in on_primes.values()],
    "annotations": ["caught" if text else "silent" for text in when_called.values()],
    "both together": ["caught" if found else "silent" for found in both],
    "export": ["caught" if text else "silent" for text in in_export.values()],
    "names": ["right" if right else "silent" for right in by_names],
}
assert table["primes on meta"] == table["export"] == ["caught", "caught", "silent"]
assert table["annotations"] == ["silent", "silent", "caught"]
assert table["both together"] == ["caught"] * 3
assert table["equal sizes"] == ["silent"] * 3 and table["names"] == ["right"] * 3

# %% fold=true
looks = {"silent": (RED, "✗"), "caught": (BLUE, "!"), "right": (GREEN, "✓")}
fig, ax = plt.subplots(figsize=(7.2, 3.1))
for i, outcomes in enumerate(table.values()):
    for j, cell in enumerate(outcomes):
        colour, sign = looks[cell]
        at = (j + 0.04, len(table) - 1 - i + 0.06)
        box = Rectangle(at, 0.92, 0.88, fc=colour, alpha=0.25, ec=colour, lw=1.5)
        ax.add_patch(box)
        middle = (j + 0.5, len(table) - i - 0.5)
        ax.text(*middle, f"{sign} {cell}", ha="center", va="center", fontsize=10)
ax.set(xlim=(0, 3), ylim=(0, len(table)))
ax.set_xticks([0.5, 1.5, 2.5], ["mask", "division", "difference (N, 1) − (N,)"])
ax.set_yticks([len(table) - i - 0.5 for i in range(len(table))], list(table))
ax.tick_params(length=0, labelsize=10)
ax.spines[:].set_visible(False)
show_figure(
    fig,
    alt_pl="Tabela: sześć sposobów, trzy błędy. Przy równych rozmiarach milczą wszystkie. "
    "Liczby pierwsze na meta i eksport łapią maskę i dzielenie, adnotacje łapią różnicę. "
    "Liczby pierwsze razem z adnotacjami łapią wszystkie trzy, a nazwy dają w każdej "
    "kolumnie dobry wynik.",
    alt_en="A table of six ways and three bugs. At equal sizes all are silent. Primes on "
    "meta and export catch the mask and the division, annotations catch the difference. "
    "Primes together with annotations catch all three, and names give the right result in "
    "every column.",
    pl={
        "✗ silent": "✗ milczy",
        "! caught": "! wyjątek",
        "✓ right": "✓ dobrze",
        "mask": "maska",
        "division": "dzielenie",
        "difference (N, 1) − (N,)": "różnica (N, 1) − (N,)",
        "equal sizes": "równe rozmiary",
        "primes on meta": "liczby pierwsze na meta",
        "annotations": "adnotacje",
        "both together": "oba razem",
        "export": "eksport",
        "names": "nazwy",
    },
)

# %% [markdown] lang="pl"
# Żadne z trzech narzędzi nie łapie samo wszystkich błędów, ale liczby pierwsze w teście i adnotacje
# na granicy funkcji łapią razem wszystkie trzy. Oba są w komórce do wklejenia.
#
# ## Ile to kosztuje
#
# Nazwy i adnotacje są w Pythonie, więc poza widokami (*view*) nie powinny dodawać operacji ani
# bajtów. Czas zmierzymy tylko dla adnotacji: im większe tensory, tym mniej powinny ważyć.

# %% [markdown] lang="en"
# None of the three tools catches all the bugs alone, but primes in a test and annotations at the
# boundary of a function catch all three together. Both are in the cell to paste.
#
# ## What it costs
#
# Names and annotations live in Python, so apart from views they should add neither operations nor
# bytes. We will time only annotations: the larger the tensors, the less they should weigh.


# %%
def kernels(job: Callable[[], object]) -> tuple[dict[str, int], int]:
    """Calls of operators that are not views, and the peak of bytes."""
    views = {"permute", "unsqueeze", "view", "_unsafe_view"}
    with CallCounter() as calls, MemoryMeter() as meter:
        job()
    return {n: k for n, k in calls.names.items() if n not in views}, meter.peak


def fixed_sum(scores: Tensor, mask: Tensor) -> Tensor:
    return scores + mask[:, None, None, :]


@checked
def checked_sum(scores: Scores, mask: Mask) -> Scores:
    return fixed_sum(scores, mask)


by_hand = kernels(lambda: fixed_sum(scores, mask))
print(by_hand)
assert by_hand == ({"add": 1}, 4 * scores.numel())  # 4 bytes for each number
assert kernels(lambda: named_scores + named_mask) == by_hand
assert kernels(lambda: checked_sum(scores, mask)) == by_hand


# %% measured=true
def overhead(batch: int, tokens: int, calls: int) -> float:
    """Time of a checked call in multiples of a bare one, the fastest of 40 rounds."""
    inputs = padded(batch, tokens)
    best = [math.inf, math.inf]
    for _ in range(40):
        for i, job in enumerate((fixed_sum, checked_sum)):
            start = time.perf_counter()
            for _ in range(calls):
                job(*inputs)
            best[i] = min(best[i], time.perf_counter() - start)
    return best[1] / best[0]


small_overhead = overhead(2, 4, 100)
large_overhead = overhead(16, 256, 2)
print(f"{small_overhead=:.1f} {large_overhead=:.2f}")
assert large_overhead - 1 < (small_overhead - 1) / 2

# %% [markdown] lang="pl"
# Operacje poza widokami i bajty są te same. Wywołanie z adnotacjami trwało
# {{ small_overhead:.1f }}× tyle co bez nich na małych tensorach i {{ large_overhead:.2f }}× na
# większych.
#
# ## Co się psuje i jak to zauważyć
#
# - **Źle wskazana oś.** Dzielenie `x / x.sum(0)` jest legalne dla każdych rozmiarów, więc
#   nie wykryje go żadne z narzędzi ani nazwy. Sprawdź wartości: czy wiersze sumują się do 1?
# - **Równe rozmiary w teście.** Błąd maski ukryło {{ batch }} zdań po {{ tokens }} tokenów, bo te osie
#   stanęły jedna pod drugą. Wśród {{ how_many }} trójek równość zdań i głów niczego nie ukryła. Oś
#   o rozmiarze 1 pasuje do każdej.
# - **Argumenty poza adnotacją.** Dekorator po cichu pomija listy i adnotacje z `None`.

# %% [markdown] lang="en"
# The operations apart from views and the bytes are the same. A call with annotations took
# {{ small_overhead:.1f }}× as long as one without on small tensors and
# {{ large_overhead:.2f }}× on larger ones.
#
# ## What breaks and how to notice
#
# - **The wrong axis, named by you.** The division `x / x.sum(0)` is legal for all sizes, so
#   none of the tools detects it, nor do names. Check the values: do the rows add up to 1?
# - **Equal sizes in a test.** The mask bug was hidden by {{ batch }} sentences of {{ tokens }} tokens,
#   because these axes landed one under the other. Among the {{ how_many }} triples, as many
#   sentences as heads hid nothing. An axis of size 1 fits every other.
# - **Arguments outside the annotation.** The decorator silently skips lists and annotations with
#   `None`.


# %%
@checked
def wrong_axis(x: Matrix) -> Matrix:
    return x / x.sum(0)


assert not raises(lambda: run_on_primes(wrong_axis))
assert not export_error(wrong_axis, (square,), ({0: N, 1: C},))
by_wrong_name = x / x.sum("row")  # no exception
for wrong in (wrong_axis(square).sum(1), by_wrong_name.sum("column").tensor):
    assert not torch.allclose(wrong, torch.ones(4))

heads_like_batch = {(b, h, t) for b, h, t in triples if b == h and b not in (1, t)}
assert heads_like_batch and not heads_like_batch & {*silent}


@checked
def skipped(xs: list[Sample], x: Sample | None) -> None:
    assert x is not None and xs[0].dim() == x.dim() == 2  # two axes, the name says one


skipped([square], square)

# %% [markdown] lang="pl"
# Odwrotnie też bywa: wyjątek na `meta` nie zawsze znaczy pomyłkę. Tensor nie ma tam wartości, więc kod,
# który je odczytuje, zgłasza wyjątek mimo dobrych kształtów. Przeczytaj komunikat.

# %% [markdown] lang="en"
# The reverse happens too: an exception on `meta` is not always a mistake. A tensor has no values there,
# so code that reads them raises although its shapes are right. Read the message.

# %% raises="RuntimeError: Tensor.item() cannot be called on meta tensors"
share_on_padding(meta(3, 5, 7, 7), meta(3, 7))

# %% [markdown] lang="pl"
# > [!NOTE]
# > Wszystko tu liczył procesor. Kształty sprawdza się bez danych, więc narzędzia nie zależą od
# > urządzenia, ale na GPU ich tu nie uruchomiono.
#
# Gdzie to leży w źródłach PyTorcha:
#
# - wyrównywanie kształtów na CPU, funkcja `infer_size`:
#   [`aten/src/ATen/ExpandUtils.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ExpandUtils.cpp)
# - to samo na `meta`:
#   [`torch/_refs/__init__.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/_refs/__init__.py)
# - symbole i warunki eksportu:
#   [`torch/fx/experimental/symbolic_shapes.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/fx/experimental/symbolic_shapes.py)
# - `functorch.dim`:
#   [`functorch/dim/README.md`](https://github.com/pytorch/pytorch/blob/v2.15.0/functorch/dim/README.md)
#
# ## Co już umiesz
#
# - Powiesz, dla jakich rozmiarów pomylona oś przechodzi po cichu, a dla jakich kończy się wyjątkiem.
# - Opiszesz granicę funkcji adnotacjami, a jej wnętrze sprawdzisz liczbami pierwszymi.
# - Eksportem wykryjesz kod, który zakłada równość rozmiarów.
#
# Wcześniej: [rozgłaszanie](02_broadcasting_magic.py) i [einops](06_einops.py). Następna lekcja:
# [08, o grafie obliczeniowym](../2_autograd/08_computational_graph.py). Dokumentacja:
# [torch.export](https://docs.pytorch.org/docs/stable/export.html),
# [Named Tensors](https://docs.pytorch.org/docs/2.9/named_tensor.html) (archiwalna, 2.9).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# > [!NOTE]
# > Everything here ran on the CPU. Shapes are checked without data, so the tools do not depend on the
# > device, but they were not run on a GPU here.
#
# Where this lives in PyTorch's source:
#
# - aligning shapes on the CPU, the function `infer_size`:
#   [`aten/src/ATen/ExpandUtils.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ExpandUtils.cpp)
# - the same on `meta`:
#   [`torch/_refs/__init__.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/_refs/__init__.py)
# - symbols and conditions of export:
#   [`torch/fx/experimental/symbolic_shapes.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/fx/experimental/symbolic_shapes.py)
# - `functorch.dim`:
#   [`functorch/dim/README.md`](https://github.com/pytorch/pytorch/blob/v2.15.0/functorch/dim/README.md)
#
# ## Now you can
#
# - Tell for which sizes a wrong axis passes silently and for which it raises.
# - Describe the boundary of a function with annotations, and check its inside with primes.
# - Detect by export the code that assumes equal sizes.
#
# Before this: [broadcasting](02_broadcasting_magic.py) and [einops](06_einops.py). Next lesson:
# [08, on the computational graph](../2_autograd/08_computational_graph.py). Documentation:
# [torch.export](https://docs.pytorch.org/docs/stable/export.html),
# [Named Tensors](https://docs.pytorch.org/docs/2.9/named_tensor.html) (archived, 2.9).
#
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="align-names" role="prompt" belt="white" minutes=8
# ### Biały: wyrównaj po nazwach
#
# Dla każdej pary podaj wzorzec `rearrange`, po którym drugi tensor wyrówna się do pierwszego
# zgodnie z nazwami osi. Brakującym osiom daj rozmiar 1.

# %% [markdown] lang="en" exercise="align-names" role="prompt" belt="white" minutes=8
# ### White: align by names
#
# For each pair give a `rearrange` pattern after which the second tensor lines up with the
# first one by the names of the axes. Give missing axes size 1.

# %% exercise="align-names" role="starter"
patterns = {
    ("batch channel height width", "channel"): "",
    ("batch token width", "batch"): "",
    ("batch head query key", "query key"): "",
    ("row column", "row"): "",
    ("batch head query key", "key batch"): "",
}  # your patterns

# %% exercise="align-names" role="check"
torch.manual_seed(0)
pairs_asked = [
    ("batch channel height width", "channel"),
    ("batch token width", "batch"),
    ("batch head query key", "query key"),
    ("row column", "row"),
    ("batch head query key", "key batch"),
]
assert list(patterns) == pairs_asked, say(
    pl="odpowiedz na pięć podanych par", en="answer the five pairs given"
)
for equal in (False, True):
    for (outer, inner), pattern in patterns.items():
        assert "->" in pattern, say(
            pl=f"({inner}) do ({outer}): brakuje wzorca",
            en=f"({inner}) to ({outer}): the pattern is missing",
        )
        lengths = {n: 4 if equal else 2 + i for i, n in enumerate(outer.split())}
        large = Named(
            torch.randn([lengths[n] for n in outer.split()]), (*outer.split(),)
        )
        small = Named(
            torch.randn([lengths[n] for n in inner.split()]), (*inner.split(),)
        )
        moved = rearrange(small.tensor, pattern)
        wanted = (large + small).tensor
        assert moved.dim() == large.tensor.dim(), say(
            pl=f"({inner}) do ({outer}): wynik ma mieć {large.tensor.dim()} osi",
            en=f"({inner}) to ({outer}): the result must have {large.tensor.dim()} axes",
        )
        line = raises(functools.partial(torch.add, large.tensor, moved))
        assert not line, say(
            pl=f"({inner}) do ({outer}): przy różnych rozmiarach jest wyjątek: "
            f"{line.splitlines()[-1]}",
            en=f"({inner}) to ({outer}): with different sizes it raises: "
            f"{line.splitlines()[-1]}",
        )
        summed = large.tensor + moved
        assert summed.shape == wanted.shape and torch.allclose(summed, wanted), say(
            pl=f"({inner}) do ({outer}): bez wyjątku, ale osie są pomylone",
            en=f"({inner}) to ({outer}): no exception, but the axes are mixed up",
        )

# %% [markdown] lang="pl" exercise="align-names" role="hint"
# Napisz po prawej osie pierwszego tensora, a te, których drugi nie ma, zastąp jedynką.

# %% [markdown] lang="en" exercise="align-names" role="hint"
# On the right write the axes of the first tensor, and put a 1 for those that the second one
# does not have.

# %% [markdown] lang="pl" exercise="align-names" role="hint"
# Po lewej wypisz osie drugiego tensora w jego kolejności; kolejność po prawej wyznacza pierwszy.

# %% [markdown] lang="en" exercise="align-names" role="hint"
# On the left list the axes of the second tensor in its own order; the order on the right is set by
# the first one.

# %% exercise="align-names" role="wrong" says="(channel) to (batch channel height width): the result must have 4 axes"
patterns = {  # leaves it to broadcasting, which aligns on the right
    ("batch channel height width", "channel"): "channel -> channel",
    ("batch token width", "batch"): "batch -> batch",
    ("batch head query key", "query key"): "query key -> query key",
    ("row column", "row"): "row -> row",
    ("batch head query key", "key batch"): "key batch -> key batch",
}

# %% exercise="align-names" role="wrong" says="(batch) to (batch token width): with different sizes it raises"
patterns = {
    ("batch channel height width", "channel"): "channel -> 1 channel 1 1",
    ("batch token width", "batch"): "batch -> 1 1 batch",  # under width
    ("batch head query key", "query key"): "query key -> 1 1 query key",
    ("row column", "row"): "row -> row 1",
    ("batch head query key", "key batch"): "key batch -> batch 1 1 key",
}

# %% exercise="align-names" role="wrong" says="(key batch) to (batch head query key): with different sizes"
patterns = {
    ("batch channel height width", "channel"): "channel -> 1 channel 1 1",
    ("batch token width", "batch"): "batch -> batch 1 1",
    ("batch head query key", "query key"): "query key -> 1 1 query key",
    ("row column", "row"): "row -> row 1",
    # Keeps the order in which the axes came.
    ("batch head query key", "key batch"): "key batch -> key 1 1 batch",
}

# %% exercise="align-names" role="solution"
patterns = {
    ("batch channel height width", "channel"): "channel -> 1 channel 1 1",
    ("batch token width", "batch"): "batch -> batch 1 1",
    ("batch head query key", "query key"): "query key -> 1 1 query key",
    ("row column", "row"): "row -> row 1",
    ("batch head query key", "key batch"): "key batch -> batch 1 1 key",
}

# %% [markdown] lang="pl" exercise="better-match" role="prompt" belt="brown" minutes=15
# ### Brązowy: bogatsze adnotacje
#
# Napisz `match_spec(shape, spec, sizes)`, która zwraca `True` albo `False` i rozumie: nazwę
# (`batch`), stałą (`3`), dowolny rozmiar (`_`) i na początku `...`, czyli dowolnie wiele osi.
# Nazwy zapisuj w `sizes`, ale tylko wtedy, gdy cały kształt pasuje.

# %% [markdown] lang="en" exercise="better-match" role="prompt" belt="brown" minutes=15
# ### Brown: richer annotations
#
# Write `match_spec(shape, spec, sizes)`, which returns `True` or `False` and understands: a
# name (`batch`), a constant (`3`), any size (`_`), and at the start `...`, that is any number
# of axes. Store names in `sizes`, but only if the whole shape fits.


# %% exercise="better-match" role="starter"
def match_spec(shape: Sequence[int], spec: str, sizes: dict[str, int]) -> bool:
    names = spec.split()  # your code
    return len(names) == len(shape)


# %% exercise="better-match" role="check"
cases: list[tuple[tuple[int, ...], str, dict[str, int], bool]] = [
    ((2, 3), "batch key", {}, True),
    ((2, 3), "batch key", {"key": 4}, False),
    ((2, 3), "batch batch", {}, False),
    ((2, 2), "batch batch", {}, True),
    ((2, 3), "batch 3", {}, True),
    ((2, 4), "batch 3", {}, False),
    ((2, 12), "batch 12", {}, True),
    ((2, 3), "batch 12", {}, False),
    ((2, 9), "batch _", {"_": 1}, True),
    ((5, 6, 2, 3), "... batch key", {}, True),
    ((2, 3), "... batch key", {}, True),
    ((3,), "... batch key", {}, False),
    ((), "...", {}, True),
    ((), "", {}, True),
    ((7, 2, 4), "... batch 3", {}, False),
]
for shape, spec, known, expected in cases:
    sizes = dict(known)
    answer = match_spec(shape, spec, sizes)
    assert answer == expected, say(
        pl=f"kształt {shape}, adnotacja „{spec}”, znane {known}: ma być {expected}",
        en=f"shape {shape}, annotation “{spec}”, known {known}: should be {expected}",
    )
    ends = zip(spec.split()[::-1], [*shape][::-1], strict=False)
    learnt = {name: size for name, size in ends if name.isalpha()}
    if expected:
        assert sizes == known | learnt, say(
            pl=f"kształt {shape}, adnotacja „{spec}”: sizes to {sizes}, ma być "
            f"{known | learnt}",
            en=f"shape {shape}, annotation “{spec}”: sizes is {sizes}, should be "
            f"{known | learnt}",
        )
    else:
        assert sizes == known, say(
            pl=f"kształt {shape}, adnotacja „{spec}”: sizes to {sizes}; zapisuj nazwy tylko "
            "wtedy, gdy wszystko pasuje",
            en=f"shape {shape}, annotation “{spec}”: sizes is {sizes}; store names only if "
            "everything fits",
        )

# %% [markdown] lang="pl" exercise="better-match" role="hint"
# Gdy adnotacja zaczyna się od `...`, porównaj końce. Nowe nazwy zbieraj w osobnym słowniku.

# %% [markdown] lang="en" exercise="better-match" role="hint"
# If the annotation starts with `...`, compare the ends. Collect new names in a dictionary of
# their own.

# %% [markdown] lang="pl" exercise="better-match" role="hint"
# Metoda `setdefault` z kopii `dict(sizes)` obsłuży i nazwę znaną wcześniej, i powtórzoną.

# %% [markdown] lang="en" exercise="better-match" role="hint"
# The method `setdefault` of a copy `dict(sizes)` deals both with a name known before and with a
# repeated one.


# %% exercise="better-match" role="wrong" says="batch batch"
def match_spec(shape: Sequence[int], spec: str, sizes: dict[str, int]) -> bool:
    # Looks only at names known before: a name repeated in one annotation slips through.
    names = spec.split()
    if names[:1] == ["..."]:
        names = names[1:]
        shape = (
            shape[len(shape) - len(names) :] if len(shape) >= len(names) else (0,) * 99
        )
    if len(names) != len(shape):
        return False
    fits = all(
        name == "_" or (int(name) if name.isdigit() else sizes.get(name, size)) == size
        for name, size in zip(names, shape, strict=True)
    )
    if fits:
        sizes.update({n: s for n, s in zip(names, shape, strict=True) if n.isalpha()})
    return fits


# %% exercise="better-match" role="wrong" says="store names only if everything fits"
def match_spec(shape: Sequence[int], spec: str, sizes: dict[str, int]) -> bool:
    # Writes as it goes: a failed match leaves names behind.
    names = spec.split()
    if names[:1] == ["..."]:
        names = names[1:]
        if len(shape) < len(names):
            return False
        shape = shape[len(shape) - len(names) :]
    if len(names) != len(shape):
        return False
    for name, size in zip(names, shape, strict=True):
        if name == "_":
            continue
        known = int(name) if name.isdigit() else sizes.setdefault(name, size)
        if known != size:
            return False
    return True


# %% exercise="better-match" role="wrong" says="shape (5, 6, 2, 3)"
def match_spec(shape: Sequence[int], spec: str, sizes: dict[str, int]) -> bool:
    # Takes "..." for one axis of any size.
    names = spec.split()
    if len(names) != len(shape):
        return False
    new = dict(sizes)
    for name, size in zip(names, shape, strict=True):
        if name in ("_", "..."):
            continue
        known = int(name) if name.isdigit() else new.setdefault(name, size)
        if known != size:
            return False
    sizes.update(new)
    return True


# %% exercise="better-match" role="solution"
def match_spec(shape: Sequence[int], spec: str, sizes: dict[str, int]) -> bool:
    names, tail = spec.split(), list(shape)
    if names[:1] == ["..."]:
        names = names[1:]
        tail = tail[max(len(tail) - len(names), 0) :]  # too short fails below
    if len(names) != len(tail):
        return False
    new = dict(sizes)
    for name, size in zip(names, tail, strict=True):
        if name == "_":
            continue
        known = int(name) if name.isdigit() else new.setdefault(name, size)
        if known != size:
            return False
    sizes.update(new)  # only now, when everything fits
    return True


# %% [markdown] lang="pl" exercise="confused-axes" role="prompt" belt="black" minutes=25
# ### Czarny: które osie się spotkały
#
# Liczby pierwsze mówią, że oś jest pomylona, ale nie która. Napisz `confused(function, **specs)`. Gdy
# `function` działa na tensorach `meta`, na których każda nazwa osi ma inny rozmiar, wynikiem jest
# pusty zbiór. Gdy zgłasza wyjątek, zwróć wszystkie pary nazw, którym wystarczy nadać ten sam rozmiar,
# żeby wyjątek zniknął; nazwy w parze ustaw alfabetycznie. Gdy takiej pary nie ma, zgłoś `ValueError`.
# Argumenty przekazuj po nazwie.

# %% [markdown] lang="en" exercise="confused-axes" role="prompt" belt="black" minutes=25
# ### Black: which axes have met
#
# Primes tell that an axis is wrong, but not which one. Write `confused(function, **specs)`. If
# `function` works on `meta` tensors where each axis name has a different size, the result is an
# empty set. If it raises, return all pairs of names for which one common size is enough to make
# the exception go away; put the names of a pair in alphabetical order. If there is no such pair,
# raise `ValueError`. Pass the arguments by name.


# %% exercise="confused-axes" role="starter"
def confused(function: Callable[..., Tensor], **specs: str) -> set[tuple[str, str]]:
    return set()  # your code


# %% exercise="confused-axes" role="check"
@dataclass(frozen=True)
class Case:
    function: Callable[..., Tensor]
    specs: dict[str, str]
    expected: set[tuple[str, str]] | str


def sum_of_two(x: Tensor, y: Tensor) -> Tensor:
    return x + y


def flat_sum(x: Tensor, y: Tensor) -> Tensor:
    return x.flatten() + y.sum((0, 1))


cases_to_try = [
    Case(
        attention,
        {"scores": "batch head query key", "mask": "batch key"},
        {("batch", "query")},
    ),
    Case(
        attention_fixed, {"scores": "batch head query key", "mask": "batch key"}, set()
    ),
    Case(normalised, {"x": "row column"}, {("column", "row")}),
    Case(torch.matmul, {"input": "a b", "other": "c d"}, {("b", "c")}),
    Case(flat_sum, {"x": "a b", "y": "c d e"}, "ValueError"),
]
rng = random.Random(7)
for _ in range(20):  # the third name of x gives way to one that stands further left
    names = rng.sample("abcdefgh", 4)
    left = rng.choice(names[:2])
    met = {(min(left, names[2]), max(left, names[2]))}
    specs = {"x": " ".join(names), "y": f"{left} {names[3]}"}
    cases_to_try.append(Case(sum_of_two, specs, met))

for case in cases_to_try:
    devices: set[str] = set()

    def spied(
        _case: Case = case, _devices: set[str] = devices, **inputs: Tensor
    ) -> Tensor:
        _devices |= {given.device.type for given in inputs.values()}
        return _case.function(**inputs)

    try:
        found: set[tuple[str, str]] | str = confused(spied, **case.specs)
    except ValueError:
        found = "ValueError"
    assert found == case.expected, say(
        pl=f"{case.specs}: ma być {case.expected or '{}'}, jest {found or '{}'}",
        en=f"{case.specs}: should be {case.expected or '{}'}, got {found or '{}'}",
    )
    assert devices == {"meta"}, say(
        pl=f"{case.specs}: tensory mają być na meta, są na {devices}",
        en=f"{case.specs}: the tensors must be on meta, they are on {devices}",
    )

# %% [markdown] lang="pl" exercise="confused-axes" role="hint"
# Napisz najpierw funkcję, która dla słownika rozmiarów mówi, czy wywołanie się udało.

# %% [markdown] lang="en" exercise="confused-axes" role="hint"
# First write a function that tells for a dictionary of sizes whether the call has succeeded.

# %% [markdown] lang="pl" exercise="confused-axes" role="hint"
# Dla pary zmień tylko jeden rozmiar: wyrażenie `sizes | {one: sizes[other]}` zostawia resztę osi
# różnymi.

# %% [markdown] lang="en" exercise="confused-axes" role="hint"
# For a pair change one size only: the expression `sizes | {one: sizes[other]}` leaves the other axes
# different.


# %% exercise="confused-axes" role="wrong" says="'mask': 'batch key'}: should be {}, got"
def confused(function: Callable[..., Tensor], **specs: str) -> set[tuple[str, str]]:
    # Does not ask first whether there is an exception to explain.
    names = sorted({name for spec in specs.values() for name in spec.split()})
    sizes = dict(zip(names, odd_primes, strict=False))
    pairs = set()
    for one, other in itertools.combinations(names, 2):
        tried = sizes | {one: sizes[other]}
        inputs = {a: meta(*(tried[n] for n in s.split())) for a, s in specs.items()}
        if not raises(functools.partial(function, **inputs)):
            pairs.add((one, other))
    if not pairs:
        raise ValueError("no pair explains the exception")
    return pairs


# %% exercise="confused-axes" role="wrong" says="should be {('batch', 'query')}, got"
def confused(function: Callable[..., Tensor], **specs: str) -> set[tuple[str, str]]:
    # Gives all axes outside of the pair one size: those are equal, too.
    names = sorted({name for spec in specs.values() for name in spec.split()})

    def works(sizes: dict[str, int]) -> bool:
        inputs = {a: meta(*(sizes[n] for n in s.split())) for a, s in specs.items()}
        return not raises(functools.partial(function, **inputs))

    if works(dict(zip(names, odd_primes, strict=False))):
        return set()
    pairs = set()
    for one, other in itertools.combinations(names, 2):
        if works({name: 3 if name in (one, other) else 5 for name in names}):
            pairs.add((one, other))
    if not pairs:
        raise ValueError("no pair explains the exception")
    return pairs


# %% exercise="confused-axes" role="wrong" says="should be ValueError, got {}"
def confused(function: Callable[..., Tensor], **specs: str) -> set[tuple[str, str]]:
    # Different sizes, but not primes: 2 · 3 meets 6.
    names = sorted({name for spec in specs.values() for name in spec.split()})
    sizes = {name: 2 + at for at, name in enumerate(names)}

    def works(sizes: dict[str, int]) -> bool:
        inputs = {a: meta(*(sizes[n] for n in s.split())) for a, s in specs.items()}
        return not raises(functools.partial(function, **inputs))

    if works(sizes):
        return set()
    pairs = set()
    for one, other in itertools.combinations(names, 2):
        if works(sizes | {one: sizes[other]}):
            pairs.add((one, other))
    if not pairs:
        raise ValueError("no pair explains the exception")
    return pairs


# %% exercise="confused-axes" role="solution"
def confused(function: Callable[..., Tensor], **specs: str) -> set[tuple[str, str]]:
    names = sorted({name for spec in specs.values() for name in spec.split()})
    sizes = dict(zip(names, odd_primes, strict=False))

    def works(sizes: dict[str, int]) -> bool:
        inputs = {a: meta(*(sizes[n] for n in s.split())) for a, s in specs.items()}
        return not raises(functools.partial(function, **inputs))

    if works(sizes):  # nothing to explain
        return set()
    pairs = {
        (one, other)
        for one, other in itertools.combinations(names, 2)
        if works(sizes | {one: sizes[other]})  # only these two are equal now
    }
    if not pairs:
        raise ValueError("no pair explains the exception")
    return pairs
