# %% [markdown] lang="pl"
# # Tensory o nazwanych osiach: usunięta funkcja i jej następcy
#
# PyTorch dopasowuje osie po pozycji i rozmiarze, a ty rozpoznajesz je po nazwach. Gdy dwa
# rozmiary przypadkiem się zgadzają, pomylona oś przechodzi bez wyjątku. Nazwane tensory miały temu
# zapobiec i zostały usunięte. Po tej lekcji dobierzesz do każdej takiej pomyłki narzędzie,
# które dziś ją złapie.
#
# ## Maska, która zasłania nie to
#
# Zdania mają różne długości, więc dopełnienie (*padding*) na ich końcach trzeba zasłonić
# przed uwagą (*attention*). Wyniki mają kształt (zdanie, głowa, zapytanie, klucz), a maska
# (zdanie, klucz). W partii jest {{ batch }} zdań po {{ length }} tokenów.

# %% [markdown] lang="en"
# # Named tensors: a removed feature and its successors
#
# PyTorch matches axes by position and size, while you think of them by name. When two sizes
# happen to agree, the wrong axis becomes legal. Named tensors were meant to prevent this and
# were removed. After this lesson you can pick, for each such mistake, the tool that catches
# it today.
#
# ## A mask that hides the wrong thing
#
# Sentences have different lengths, so the padding at their ends has to be hidden from
# attention. The scores have the shape (sentence, head, query, key), the mask (sentence, key).
# A batch holds {{ batch }} sentences of {{ length }} tokens.

# %% fold=true
import functools
import inspect
import math
import operator
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

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


def padded(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Random scores, and a mask: sentence b has its last 1 + b % 3 tokens padded."""
    mask = torch.zeros(batch, length)
    for b in range(batch):
        mask[b, length - 1 - b % 3 :] = -1e9
    return torch.randn(batch, 2, length, length), mask


def share_on_padding(weights: Tensor, mask: Tensor) -> float:
    """Per cent of attention (batch, head, query, key) that falls on padded keys."""
    hidden = (mask < 0)[:, None, None, :]
    return 100 * (weights * hidden).sum(-1).mean().item()


batch = length = 5
scores, mask = padded(batch, length)
leak = share_on_padding(attention(scores, mask), mask)
print(f"{leak=:.0f}")
assert leak > 10

# %% [markdown] lang="pl"
# {{ leak:.0f }}% uwagi trafia w dopełnienie, choć powinno 0%. Wyjątku nie było. Pytanie
# lekcji: **jak sprawić, żeby pomyłka osi kończyła się głośno?**
#
# ## Kto by to zauważył

# %% [markdown] lang="en"
# {{ leak:.0f }}% of the attention falls on padding, where it should be 0%. There was no
# exception. The question of this lesson: **how do you make an axis mistake fail loudly?**
#
# ## Who would have noticed

# %% [markdown] lang="pl" predict="which-test"
# Funkcja `attention` ma dwa testy: jeden z partią jednego zdania, drugi z partią trzech,
# oba ze zdaniami po pięć tokenów. Co powiedzą?
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
# of three, both with sentences of five tokens. What will they say?
#
# - [ ] Both pass
#
#   The batch of three sentences raises: size 3 does not fit the axis of queries, of size 5.
#
# - [x] Only the test with one sentence passes
#
#   The mask (1, 5) is broadcast over the queries, and there are no other sentences, so the
#   result happens to be right: {{ leak_of_one:.0f }}% falls on padding. With three sentences
#   there is an exception.
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
print(f"{leak_of_one=:.0f}")
assert torch.equal(of_one, attention_fixed(scores_of_one, mask_of_one))

# %% [markdown] lang="pl"
# Przy rozmiarach większych od 1 błąd milczy tylko wtedy, gdy liczba zdań równa się ich
# długości. Narysujmy, co z czym dopasował PyTorch.

# %% [markdown] lang="en"
# With sizes above 1 the bug is silent only if the number of sentences equals their length.
# Let's draw what PyTorch matched with what.

# %% fold=true
Axes = Sequence[tuple[str, int]]
COLOURS = {"batch": BLUE, "head": GRAY, "query": ORANGE, "key": GREEN, "": GRAY}


def draw_alignment(rows: dict[str, tuple[str, Axes]]) -> None:
    """Draw shapes one over the other, aligned on the right as broadcasting does."""
    fig, ax = plt.subplots(figsize=(7.2, 2.6))
    for at, (code, axes) in enumerate(rows.values()):
        y = len(rows) - 1 - at
        ax.text(0, y, code, family="monospace", va="center", fontsize=9.5)
        for column, (name, size) in enumerate(reversed(axes)):
            x = 9 - 1.75 * column
            box = Rectangle((x, y - 0.38), 1.65, 0.76, fc=COLOURS[name], alpha=0.3)
            ax.add_patch(box)
            text = f"{name} {size}".strip()
            ax.text(x + 0.82, y, text, ha="center", va="center", fontsize=9.5)
    ax.set(xlim=(0, 10.8), ylim=(-0.6, len(rows) - 0.4))
    ax.axis("off")
    show_figure(
        fig,
        alt_pl="Trzy kształty wyrównane do prawej. Maska (batch, key) staje pod osiami "
        "query i key wyników, więc batch leży pod query. Maska po rearrange ma cztery osie: "
        "batch leży pod batch, a pod head i query stoją jedynki.",
        alt_en="Three shapes aligned on the right. The mask (batch, key) stands under the "
        "axes query and key of the scores, so batch lies under query. The mask after "
        "rearrange has four axes: batch lies under batch, with ones under head and query.",
        same={text.get_text() for text in ax.texts},
    )


in_place_of = rearrange(mask, "batch key -> batch 1 1 key")
draw_alignment(
    {
        "scores": (
            "scores",
            [*zip(("batch", "head", "query", "key"), scores.shape, strict=True)],
        ),
        "mask": ("mask", [*zip(("batch", "key"), mask.shape, strict=True)]),
        "fixed": (
            "rearrange(mask, ...)",
            [*zip(("batch", "", "", "key"), in_place_of.shape, strict=True)],
        ),
    }
)

# %% [markdown] lang="pl"
# Rozgłaszanie wyrównuje osie do prawej, więc oś `batch` maski stanęła pod osią `query`.
# Kolory to nazwy, które zna tylko autor kodu; PyTorch widzi dwie piątki. Maska
# zależy więc od zapytania, a nie od zdania.
#
# ## Nazwy, których już nie ma
#
# Prototyp nazwanych tensorów pozwalał nadać osiom nazwy. Działania nadal wyrównywały osie od
# prawej, ale niezgodne nazwy kończyły się wyjątkiem, a przestawiało się je jawnie, na przykład
# metodą `align_as`. Dziś próba użycia nazw sama kończy się wyjątkiem.

# %% [markdown] lang="en"
# Broadcasting aligns axes on the right, so the axis `batch` of the mask came to stand under
# the axis `query`. The colours are names that only the author of the code knows; PyTorch
# sees two fives. So the mask depends on the query instead of on the sentence.
#
# ## Names that are gone
#
# The prototype of named tensors let you name axes. Operations still aligned axes on the
# right, but names that did not match raised, and you reordered axes explicitly, for example
# with the method `align_as`. Today the attempt to use names is itself an exception.

# %%
gone = [
    name
    for name in ("names", "rename", "refine_names", "align_to", "align_as")
    if not hasattr(Tensor, name)
]
print(f"{gone=}")
assert len(gone) == 5
try:
    by_name_only: Any = "key"
    torch.zeros(2, 3).sum(by_name_only)
except TypeError as error:
    first_line = str(error).splitlines()[0]
    print(first_line)
assert first_line.startswith("sum() received an invalid combination of arguments")

# %% raises="TypeError: zeros() got an unexpected keyword argument 'names'"
zeros: Any = torch.zeros  # the type checker knows it, too
zeros(2, 3, names=("batch", "key"))

# %% [markdown] lang="pl"
# Usunięto je w zmianie [#173895](https://github.com/pytorch/pytorch/pull/173895). Zbudujmy
# nazwy od nowa, od razu w wygodniejszej postaci: opakowanie samo wyrówna osie.
#
# ## Nazwy w czterdziestu wierszach
#
# Opakowanie trzyma tensor i nazwy. Przed działaniem sprowadza osie obu argumentów do jednej
# kolejności, a w miejsce brakujących wstawia osie o rozmiarze 1. Wspólne osie muszą mieć równe
# rozmiary.

# %% [markdown] lang="en"
# They were removed in [#173895](https://github.com/pytorch/pytorch/pull/173895). Let's build
# names anew, right away in a more convenient form: our wrapper aligns the axes itself.
#
# ## Names in forty lines
#
# The wrapper holds a tensor and names. Before an operation it brings the axes of both
# arguments into one order and puts axes of size 1 in the place of missing ones. Shared axes
# must have equal sizes.


# %%
@dataclass(frozen=True)
class Named:
    tensor: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.tensor.dim() != len(self.names):
            raise ValueError(f"{tuple(self.tensor.shape)} cannot be named {self.names}")

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

    def __mul__(self, other: "Named") -> "Named":
        return self.combine(other, operator.mul)

    def __truediv__(self, other: "Named") -> "Named":
        return self.combine(other, operator.truediv)


# %%
named_scores = Named(scores, ("batch", "head", "query", "key"))
named_mask = Named(mask, ("batch", "key"))
try:
    named_scores + Named(mask[:3], ("batch", "key"))
except ValueError as mismatch:
    print(mismatch)
else:
    raise AssertionError
named = (named_scores + named_mask).tensor.softmax(dim=-1)
assert torch.equal(named, attention_fixed(scores, mask))  # right although B == T

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
# ## Trzy zastępcze narzędzia
#
# Bez nazw w tensorach też da się złapać te same pomyłki. Sprawdźmy to na trzech błędach: maska z
# początku lekcji, dzielenie przez sumę po niewłaściwej osi i różnica `(N, 1)` i `(N,)`.

# %% [markdown] lang="en"
# Agreement: {{ agreed }} out of {{ tried }}. In {{ coincidences }} of these cases plain
# tensors would have computed something else without an exception, because the sizes happened
# to fit.
#
# ## Three tools instead
#
# The same mistakes can be caught without names in tensors. Let's try it on three bugs: the mask from the beginning, a division by the sum over the wrong axis,
# and the difference of `(N, 1)` and `(N,)`.


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
pairs = (torch.randn(4, 1) - torch.randn(4)).shape
assert pairs == (4, 4)  # every prediction against every target

# %% [markdown] lang="pl"
# **Liczby pierwsze na urządzeniu `meta`.** Skoro błąd milczy przez równe rozmiary, daj w
# teście każdej osi inny, najlepiej pierwszy: iloczyn dwóch osi nie trafi wtedy w trzecią, jak
# 2 · 3 w oś o rozmiarze 6. Na urządzeniu `meta` tensor ma kształt, ale nie ma danych, więc test
# nic nie liczy, nawet dla modelu w pełnej skali.

# %% [markdown] lang="en"
# **Primes on the `meta` device.** If equal sizes make the bug silent, give each axis a
# different one in the test, best a prime: the product of two axes then never meets a third,
# as 2 · 3 meets an axis of size 6. On the `meta` device a tensor has a shape but no data, so the
# test computes nothing, even for a model at full scale.


# %%
def raises(job: Callable[[], object]) -> str:
    """The first line of the error, or nothing."""
    try:
        job()
    except Exception as error:  # every tool has its own type
        return str(error).splitlines()[0]
    return ""


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


batch_size, heads, tokens, classes = 3, 2, 5, 7
on_primes = {
    "mask": raises(
        lambda: attention(
            meta(batch_size, heads, tokens, tokens), meta(batch_size, tokens)
        )
    ),
    "division": raises(lambda: normalised(meta(classes, tokens))),
    "difference": raises(lambda: squared_error(meta(classes, 1), meta(classes))),
}
for name, line in on_primes.items():
    print(f"{name:10} {line[:78]}")
assert on_primes["mask"].startswith("Attempting to broadcast a dimension of length 3")
assert on_primes["division"] and not on_primes["difference"]
assert not raises(lambda: meta(2, 3).flatten() + meta(6))  # silent, not primes
assert raises(lambda: meta(2, 3).flatten() + meta(5))

# %% [markdown] lang="pl"
# **Adnotacje sprawdzane w czasie wywołania.** Wpisz kształt do adnotacji typu, a dekorator
# porówna go z kształtem argumentu. Ta sama nazwa musi w jednym wywołaniu znaczyć ten sam
# rozmiar. Ten strażnik możesz wkleić do swojego kodu.

# %% [markdown] lang="en"
# **Annotations checked at call time.** Write the shape into the type, and a decorator
# compares it with what has come. Within one call the same name must mean the same size. This
# is the guard that you can paste.

# %%
P = ParamSpec("P")
R = TypeVar("R")


def match(what: str, value: object, hint: object, sizes: dict[str, int]) -> None:
    """Compare a tensor with an annotation such as Annotated[Tensor, "batch key"]."""
    spec = next(iter(getattr(hint, "__metadata__", ())), None)
    if not isinstance(value, Tensor) or not isinstance(spec, str):
        return
    names, shape = spec.split(), tuple(value.shape)
    if len(names) != len(shape):
        raise ValueError(f"{what} has shape {shape}, expected '{spec}'")
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


@checked
def checked_attention(
    scores: Annotated[Tensor, "batch head query key"],
    mask: Annotated[Tensor, "batch key"],
) -> Annotated[Tensor, "batch head query key"]:
    return attention(scores, mask)


@checked
def checked_normalised(
    x: Annotated[Tensor, "row column"],
) -> Annotated[Tensor, "row column"]:
    return normalised(x)


@checked
def checked_error(
    prediction: Annotated[Tensor, "sample"], target: Annotated[Tensor, "sample"]
) -> Annotated[Tensor, ""]:
    return squared_error(prediction, target)


when_called = {
    "mask": raises(lambda: checked_attention(scores, mask)),
    "division": raises(lambda: checked_normalised(square)),
    "difference": raises(lambda: checked_error(torch.randn(4, 1), torch.randn(4))),
}
print(when_called)
assert when_called["difference"] == "prediction has shape (4, 1), expected 'sample'"
assert not when_called["mask"] and not when_called["division"]
swapped = raises(lambda: checked_attention(scores[:3], mask[:3].t()))
assert swapped == "mask: batch is 5, but was 3 before"

# %% [markdown] lang="pl"
# Dekorator pilnuje granicy funkcji: złapał `(N, 1)` i zamienione osie o różnych rozmiarach, ale
# pomyłki **wewnątrz** funkcji przy równych rozmiarach nie widzi.
#
# **Dowód przez eksport.** Funkcja `torch.export.export` śledzi program z rozmiarami jako
# symbolami. Jeśli kod działa tylko dla `T = B`, symbole to ujawnią, nawet gdy przykład ma
# równe rozmiary.

# %% [markdown] lang="en"
# The decorator guards the border of a function: it caught `(N, 1)` and swapped axes of
# different sizes, but it does not see a mistake **inside** the function at equal sizes.
#
# **Proof by export.** The function `torch.export.export` traces a program with sizes as
# symbols. If the code works only for `T = B`, the symbols reveal it, even if the example has
# equal sizes.


# %%
class Program(nn.Module):
    """`export` takes modules."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        return self.function(first) if second is None else self.function(first, second)


B, T, N, C = Dim("B"), Dim("T"), Dim("N"), Dim("C")
scores_dims, mask_dims = {0: B, 2: T, 3: T}, {0: B, 1: T}


def export_error(
    function: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    dims: tuple[dict[int, Dim], ...],
) -> str:
    """The message of a failed export, or nothing."""
    try:
        export(Program(function), inputs, dynamic_shapes=dims)
    except Exception as error:
        return str(error)
    return ""


in_proof = {
    "mask": export_error(attention, (scores, mask), (scores_dims, mask_dims)),
    "division": export_error(normalised, (square,), ({0: N, 1: C},)),
    "difference": export_error(
        squared_error, (torch.randn(4, 1), torch.randn(4)), ({0: N}, {0: N})
    ),
}
print("\n".join(in_proof["mask"].splitlines()[:2]))
assert "must always be equal" in in_proof["mask"]
assert "must always be equal" in in_proof["division"]
assert not in_proof["difference"]
assert not export_error(attention_fixed, (scores, mask), (scores_dims, mask_dims))

# %% [markdown] lang="pl"
# Eksport dowiódł, że przy rozmiarach większych od 1 dwa programy wymagają równych, a naprawiony
# przepuścił. Różnicę `(N, 1)` i `(N,)` też przepuścił: jest legalna dla każdego `N`.
#
# **Nazwy z opakowania** porównajmy na tych samych równych rozmiarach.

# %% [markdown] lang="en"
# Export proved that with sizes above 1 two programs need equal ones, and let the repaired one
# through. It also let the difference of `(N, 1)` and `(N,)` through: that one is legal for
# every `N`.
#
# **Names from the wrapper**, compared at the same equal sizes.

# %%
x = Named(square, ("row", "column"))
by_name = x / x.sum("column")
assert torch.allclose(by_name.sum("column").tensor, torch.ones(4))
prediction = Named(torch.randn(4, 1), ("sample", "output"))
target = Named(torch.randn(4), ("sample",))
difference = prediction - target
assert difference.names == ("sample", "output")  # 4 differences, not 16
wrong_now = [leak > 0, not torch.allclose(row_sums, torch.ones(4)), pairs == (4, 4)]
by_names = [
    torch.equal(named, attention_fixed(scores, mask)),
    torch.allclose(by_name.sum("column").tensor, torch.ones(4)),
    difference.tensor.shape == (4, 1),
]

table = {
    "equal sizes": ["silent" if wrong else "right" for wrong in wrong_now],
    "primes on meta": ["caught" if line else "silent" for line in on_primes.values()],
    "annotations": ["caught" if line else "silent" for line in when_called.values()],
    "export": ["caught" if text else "silent" for text in in_proof.values()],
    "names": ["right" if right else "silent" for right in by_names],
}
for technique, outcomes in table.items():
    print(f"{technique:15}", *outcomes)
assert table["primes on meta"] == table["export"] == ["caught", "caught", "silent"]
assert table["annotations"] == ["silent", "silent", "caught"]
assert table["equal sizes"] == ["silent"] * 3 and table["names"] == ["right"] * 3

# %% fold=true
looks = {"silent": (RED, "✗"), "caught": (BLUE, "!"), "right": (GREEN, "✓")}
fig, ax = plt.subplots(figsize=(7.2, 2.7))
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
    alt_pl="Tabela: pięć sposobów, trzy błędy. Przy równych rozmiarach milczą wszystkie. "
    "Liczby pierwsze na meta i eksport łapią maskę i dzielenie, adnotacje łapią różnicę, a "
    "nazwy dają dobry wynik w każdej kolumnie.",
    alt_en="A table of five ways and three bugs. At equal sizes all are silent. Primes on "
    "meta and export catch the mask and the division, annotations catch the difference, and "
    "names give the right result in every column.",
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
        "export": "eksport",
        "names": "nazwy",
    },
)

# %% [markdown] lang="pl"
# Żaden wiersz poza nazwami nie jest pełny, ale dwa się uzupełniają: adnotacje na granicy
# funkcji i liczby pierwsze w jej teście łapią razem wszystkie trzy błędy.
#
# ## Ile to kosztuje
#
# Przewidywanie: nazwy i adnotacje są w Pythonie, więc poza widokami nie dodają operacji ani
# bajtów, tylko stały narzut na wywołanie. Dla dużych tensorów powinien zniknąć.

# %% [markdown] lang="en"
# No row except the names is complete, but two complement each other: annotations at the
# border of a function and primes in its test catch all three bugs together.
#
# ## What it costs
#
# The prediction: names and annotations live in Python, so apart from views they add neither
# operations nor bytes, only a constant overhead for each call. For large tensors it should
# vanish.


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
def checked_sum(
    scores: Annotated[Tensor, "batch head query key"],
    mask: Annotated[Tensor, "batch key"],
) -> Annotated[Tensor, "batch head query key"]:
    return fixed_sum(scores, mask)


by_hand = kernels(lambda: fixed_sum(scores, mask))
assert kernels(lambda: named_scores + named_mask) == by_hand
assert kernels(lambda: checked_sum(scores, mask)) == by_hand
print(by_hand)


# %% measured=true
def overhead(batch: int, length: int, calls: int) -> float:
    """Time of a checked call in multiples of a bare one, the fastest of 15 rounds."""
    inputs = padded(batch, length)
    best = [math.inf, math.inf]
    for _ in range(15):
        for i, job in enumerate((fixed_sum, checked_sum)):
            start = time.perf_counter()
            for _ in range(calls):
                job(*inputs)
            best[i] = min(best[i], time.perf_counter() - start)
    return best[1] / best[0]


small_overhead = overhead(2, 4, 200)
large_overhead = overhead(16, 256, 4)
print(f"{small_overhead=:.1f} {large_overhead=:.2f}")
assert small_overhead > large_overhead
assert large_overhead < 1.5

# %% [markdown] lang="pl"
# Operacje poza widokami i bajty są te same. Wywołanie z adnotacjami zajęło
# {{ small_overhead:.1f }}× tyle czasu co bez nich na małych tensorach i
# {{ large_overhead:.1f }}× na większych, czyli tyle, że różnica ginie w szumie.
#
# ## Co się psuje i jak to zauważyć
#
# Test na liczbach pierwszych działa tylko wtedy, gdy rozmiary są naprawdę różne. Rozmiar 1
# unieważnia go tak samo jak równe rozmiary, bo oś o rozmiarze 1 pasuje do wszystkiego.

# %% [markdown] lang="en"
# The operations apart from views and the bytes are the same. A call with annotations took
# {{ small_overhead:.1f }}× as long as one without on small tensors and
# {{ large_overhead:.1f }}× on larger ones, where the difference is lost in the noise.
#
# ## What breaks and how to notice
#
# The test on primes works only if the sizes are really different. A size of 1 spoils it just
# as equal sizes do, because an axis of size 1 fits everything.

# %%
sizes_tried = {
    (3, 2, 5): "different",
    (5, 2, 5): "batch == tokens",
    (1, 2, 5): "batch == 1",
    (3, 3, 5): "batch == heads",
}
caught = {
    note: bool(raises(functools.partial(attention, meta(b, h, t, t), meta(b, t))))
    for (b, h, t), note in sizes_tried.items()
}
print(caught)
assert caught == {
    "different": True,
    "batch == tokens": False,
    "batch == 1": False,
    "batch == heads": True,
}

# %% [markdown] lang="pl"
# Kształty sprawdza się bez danych, więc te narzędzia nie zależą od urządzenia (na GPU tu
# niemierzone).
#
# ## Co już umiesz
#
# - Powiesz, dla jakich rozmiarów pomyłka osi milczy, a dla jakich zgłosi wyjątek.
# - Opiszesz granicę funkcji adnotacjami, a jej wnętrze sprawdzisz liczbami pierwszymi.
# - Eksportem dowiedziesz, że kod nie zakłada równości rozmiarów.
#
# Wcześniej: [rozgłaszanie](02_broadcasting_magic.py) i [einops](06_einops.py). Dokumentacja:
# [torch.export](https://docs.pytorch.org/docs/stable/export.html).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# Shapes are checked without data, so these tools do not depend on the device (not measured on
# a GPU here).
#
# ## Now you can
#
# - Tell for which sizes an axis mistake is silent and for which it raises.
# - Describe the border of a function with annotations, and check its inside with primes.
# - Prove by export that code does not assume equal sizes.
#
# Before this: [broadcasting](02_broadcasting_magic.py) and [einops](06_einops.py).
# Documentation: [torch.export](https://docs.pytorch.org/docs/stable/export.html).
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
            pl=f"({inner}) do ({outer}): przy różnych rozmiarach jest wyjątek: {line}",
            en=f"({inner}) to ({outer}): with different sizes it raises: {line}",
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
    named_axes = [n for n in spec.split() if n.isalpha()]
    learnt = dict(zip(named_axes[::-1], [*shape][::-1], strict=False))
    if not any(c.isdigit() or c == "_" for c in spec):
        assert sizes == (known | learnt if expected else known), say(
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


# %% [markdown] lang="pl" exercise="prime-check" role="prompt" belt="black" minutes=25
# ### Czarny: test, który pisze się sam
#
# Napisz `prime_check(function, result, **specs)`. Funkcja nadaje każdej nazwie osi inną
# liczbę pierwszą, wywołuje `function` na tensorach `meta` i zgłasza `ValueError`, gdy
# wywołanie się nie uda albo kształt wyniku nie jest taki, jak mówi `result`. Argumenty
# przekazuj po nazwie.

# %% [markdown] lang="en" exercise="prime-check" role="prompt" belt="black" minutes=25
# ### Black: a test that writes itself
#
# Write `prime_check(function, result, **specs)`. It gives every axis name a different prime,
# calls `function` on `meta` tensors and raises `ValueError` if the call fails or if the shape
# of the result is not what `result` says. Pass the arguments by name.


# %% exercise="prime-check" role="starter"
def prime_check(function: Callable[..., Tensor], result: str, **specs: str) -> None:
    pass  # your code


# %% exercise="prime-check" role="check"
def outer_sum(x: Tensor, y: Tensor) -> Tensor:
    return x[:, None] + y


def transposed(x: Tensor) -> Tensor:
    return x.t()


@dataclass(frozen=True)
class Checked:
    function: Callable[..., Tensor]
    result: str
    specs: dict[str, str]
    good: bool


masks = {"scores": "batch head token token", "mask": "batch token"}
vectors = {"x": "row", "y": "column"}
tasks = [
    Checked(attention_fixed, "batch head token token", masks, True),
    Checked(attention, "batch head token token", masks, False),
    Checked(normalised, "row column", {"x": "row column"}, False),
    Checked(
        lambda x: x / x.sum(1, keepdim=True), "row column", {"x": "row column"}, True
    ),
    Checked(outer_sum, "row column", vectors, True),
    Checked(outer_sum, "column row", vectors, False),
    Checked(transposed, "column row", {"x": "row column"}, True),
    Checked(transposed, "row column", {"x": "row column"}, False),
    Checked(
        lambda prediction, target: prediction - target,
        "sample",
        {"prediction": "sample one", "target": "sample"},
        False,
    ),
    Checked(lambda x: x.sum(), "", {"x": " ".join("abcdefghij")}, True),
]
for task in tasks:
    seen: list[Tensor] = []

    def spied(
        _task: Checked = task, _seen: list[Tensor] = seen, **inputs: Tensor
    ) -> Tensor:
        _seen.extend(inputs.values())
        return _task.function(**inputs)

    try:
        prime_check(spied, task.result, **task.specs)
        passed = True
    except ValueError:
        passed = False
    shown = f"{task.specs} -> '{task.result}'"
    assert len(seen) == len(task.specs), say(
        pl=f"{shown}: funkcja ma dostać każdy argument raz",
        en=f"{shown}: the function must get each argument once",
    )
    assert all(given.device.type == "meta" for given in seen), say(
        pl=f"{shown}: tensory mają być na meta", en=f"{shown}: tensors must be on meta"
    )
    drawn: dict[str, int] = {}
    for spec, given in zip(task.specs.values(), seen, strict=True):
        drawn |= dict(zip(spec.split(), given.shape, strict=True))
    assert (
        len(set(drawn.values())) == len(drawn) and min(drawn.values(), default=2) > 1
    ), say(
        pl=f"{shown}: rozmiary {drawn} się powtarzają albo są równe 1",
        en=f"{shown}: the sizes {drawn} repeat or are 1",
    )
    assert all(n % d for n in drawn.values() for d in range(2, n)), say(
        pl=f"{shown}: rozmiary {drawn} nie są liczbami pierwszymi",
        en=f"{shown}: the sizes {drawn} are not primes",
    )
    assert passed == task.good, say(
        pl=f"{shown}: wynik testu to {passed}, ma być {task.good}",
        en=f"{shown}: the test says {passed}, should be {task.good}",
    )

# %% [markdown] lang="pl" exercise="prime-check" role="hint"
# Nazwy ze wszystkich adnotacji zbierz w kolejności, każdej daj następną liczbę pierwszą.

# %% [markdown] lang="en" exercise="prime-check" role="hint"
# Collect the names of all annotations in order and give each the next prime.

# %% [markdown] lang="pl" exercise="prime-check" role="hint"
# Samo wywołanie nie wystarczy: `outer_sum` działa dla każdych rozmiarów, ale kształt wyniku
# może być odwrotny, niż mówi `result`.

# %% [markdown] lang="en" exercise="prime-check" role="hint"
# The call alone is not enough: `outer_sum` works for all sizes, but the shape of the result
# may be the reverse of what `result` says.


# %% exercise="prime-check" role="wrong" says="the test says True, should be False"
def prime_check(function: Callable[..., Tensor], result: str, **specs: str) -> None:
    # Only calls: a result with swapped axes gets through.
    primes = iter((2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31))
    sizes: dict[str, int] = {}
    inputs = {}
    for argument, spec in specs.items():
        for name in spec.split():
            if name not in sizes:
                sizes[name] = next(primes)
        inputs[argument] = meta(*(sizes[name] for name in spec.split()))
    try:
        function(**inputs)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


# %% exercise="prime-check" role="wrong" says="repeat or are 1"
def prime_check(function: Callable[..., Tensor], result: str, **specs: str) -> None:
    # Sizes by position: the second axis of one argument equals that of another.
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
    sizes = {
        n: primes[i] for spec in specs.values() for i, n in enumerate(spec.split())
    }
    inputs = {a: meta(*(sizes[n] for n in spec.split())) for a, spec in specs.items()}
    try:
        shape = tuple(function(**inputs).shape)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if shape != tuple(sizes[name] for name in result.split()):
        raise ValueError(f"result {shape}")


# %% exercise="prime-check" role="wrong" says="tensors must be on meta"
def prime_check(function: Callable[..., Tensor], result: str, **specs: str) -> None:
    # Real tensors: with primes, ten axes would take 26 GB.
    sizes = {
        n: 2 + i
        for i, n in enumerate({n: 0 for s in specs.values() for n in s.split()})
    }
    shapes = {a: [sizes[n] for n in spec.split()] for a, spec in specs.items()}
    inputs = {argument: torch.empty(shape) for argument, shape in shapes.items()}
    try:
        found = tuple(function(**inputs).shape)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if found != tuple(sizes[name] for name in result.split()):
        raise ValueError(f"result {found}")


# %% exercise="prime-check" role="solution"
def prime_check(function: Callable[..., Tensor], result: str, **specs: str) -> None:
    names = dict.fromkeys(name for spec in specs.values() for name in spec.split())
    primes = (n for n in range(2, 10_000) if all(n % d for d in range(2, n)))
    sizes = dict(zip(names, primes, strict=False))
    inputs = {a: meta(*(sizes[n] for n in spec.split())) for a, spec in specs.items()}
    try:
        found = tuple(function(**inputs).shape)
    except RuntimeError as error:  # an axis met one that it does not fit
        raise ValueError(str(error)) from error
    expected = tuple(sizes[name] for name in result.split())
    if found != expected:
        raise ValueError(f"the result is {found}, expected '{result}' = {expected}")
