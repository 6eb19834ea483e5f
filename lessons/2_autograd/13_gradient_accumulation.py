# %% [markdown] lang="pl"
# # Akumulacja gradientów: kiedy 16 × 8 to nie 128
#
# Partia (*batch*) nie mieści się w pamięci, więc dzielisz ją na mikropartie (*micro-batches*) i
# zanim zrobisz krok, dodajesz ich gradienty. To akumulacja gradientów (*gradient
# accumulation*). Po tej lekcji powiesz, przez co dzielić straty, czego samo dzielenie nie
# naprawi i jak zmieni się szczyt pamięci.
#
# ## Osiem odpowiedzi, jeden krok
#
# Uczymy model, kiedy skończyć odpowiedź. Dane to osiem odpowiedzi: same tokeny „dalej”, a na
# końcu token „koniec”. Krótsze wiersze mają dopełnienie (*padding*) o numerze `PAD`, które
# `cross_entropy` pomija. Model to dwa logity, po jednym na rodzaj tokena, te same w każdym
# miejscu.

# %% [markdown] lang="en"
# # Gradient accumulation: when 16 × 8 is not 128
#
# A batch does not fit in memory, so you split it into micro-batches and add up their gradients
# before you take a step. That is gradient accumulation. After this lesson you can tell what to
# divide the losses by, what division alone does not repair, and how the memory peak changes.
#
# ## Eight answers, one step
#
# We teach a model when to end an answer. The data are eight answers: nothing but “go on”
# tokens, and an “end” token last. Shorter rows have padding, numbered `PAD`, which
# `cross_entropy` skips. The model is two logits, one for each kind of token, the same at every
# place.

# %% fold=true
import itertools
import math
import random
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import harmonic_mean, median
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, ORANGE, PALETTE, show_figure
from snippets.graph_nodes import graph_of
from snippets.graph_pictures import show_graph
from snippets.memory import MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)

GO, END, PAD = 0, 1, -100
LENGTHS = (60, 3, 5, 4, 50, 2, 3, 6)  # in tokens, with the last one
answers = torch.full((len(LENGTHS), max(LENGTHS)), PAD)  # (answers, tokens)
for row, length in enumerate(LENGTHS):
    answers[row, :length] = GO
    answers[row, length - 1] = END


class Ending(nn.Module):
    """The same scores of the two tokens at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(2))

    def forward(self, targets: Tensor) -> Tensor:
        return self.scores.expand(targets.numel(), 2)


# %%
def train(rows: int) -> tuple[float, float, float]:
    """Learn from `rows` answers at a time; return the first and last loss, and P(end)."""
    model = Ending()
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    parts = answers.split(rows)
    totals = []
    for _ in range(100):
        optimizer.zero_grad()
        total = 0.0
        for part in parts:
            loss = F.cross_entropy(model(part), part.flatten(), ignore_index=PAD)
            (loss / len(parts)).backward()
            total += loss.item() / len(parts)
        optimizer.step()
        totals.append(total)
    return totals[0], totals[-1], model.scores.softmax(0)[END].item()


whole_first, whole_last, p_end = train(rows=8)
whole_length = 1 / p_end
print(f"loss {whole_first:.2f} -> {whole_last:.2f}, mean length {whole_length:.1f}")
assert math.isclose(whole_length, sum(LENGTHS) / len(LENGTHS), rel_tol=1e-3)

# %% [markdown] lang="pl"
# Model, który kończy z prawdopodobieństwem $p$ po każdym tokenie, pisze średnio $1/p$ tokenów.
# Z całej partii naraz wyuczył się średniej {{ whole_length:.1f }}, czyli takiej jak w danych.

# %% [markdown] lang="en"
# A model that ends with probability $p$ at every token writes $1/p$ tokens on average. Trained on
# the whole batch at once, it has learned a mean of {{ whole_length:.1f }}, the same as in the data.

# %% [markdown] lang="pl" predict="one-at-a-time"
# Teraz `train(rows=1)`: osiem mikropartii po jednej odpowiedzi. Jakiej średniej długości
# wyuczy się model?
#
# - [ ] Tej samej, około 17
#
#   Byłoby tak, gdyby każda mikropartia miała tyle samo tokenów: funkcja `cross_entropy` dzieli
#   każdą stratę przez liczbę tokenów tej mikropartii.
#
# - [ ] Większej, około 47
#
#   Tyle wynosi średnia ważona długością, {{ weighted_length:.1f }}. Długa odpowiedź nie waży jednak
#   więcej: średnia rozkłada jej 1/8 wpływu na wszystkie tokeny.
#
# - [x] Mniejszej, około 4
#
#   Każda odpowiedź dostaje 1/8 wpływu. Token „koniec” waży w niej 1/długość, więc model uczy
#   się $p$ równego średniej odwrotności długości, a to daje {{ harmonic_length:.1f }} tokena.

# %% [markdown] lang="en" predict="one-at-a-time"
# Now `train(rows=1)`: eight micro-batches of one answer. What mean length will the model
# learn?
#
# - [ ] The same one, about 17
#
#   Only if every micro-batch had the same number of tokens: the function `cross_entropy` divides each loss
#   by the number of tokens in that micro-batch.
#
# - [ ] A larger one, about 47
#
#   That is the mean weighted by length, {{ weighted_length:.1f }}. But a long answer does not weigh
#   more: the mean spreads its 1/8 of the influence over all its tokens.
#
# - [x] A smaller one, about 4
#
#   Each answer gets 1/8 of the influence. Within it the “end” token weighs 1/length, so the
#   model learns a $p$ equal to the mean of the inverse lengths, which gives
#   {{ harmonic_length:.1f }} tokens.

# %%
learned = {}
for rows in (8, 4, 2, 1):
    first, last, p = train(rows)
    learned[rows] = 1 / p
    print(f"{rows=}: loss {first:.2f} -> {last:.2f}, mean length {learned[rows]:.1f}")
    assert last < 0.8 * first
single_length, fours_length = learned[1], learned[4]
first_four, second_four = sum(LENGTHS[:4]), sum(LENGTHS[4:])
print(f"{first_four=} {second_four=}")
harmonic_length = harmonic_mean(LENGTHS)
weighted_length = sum(n * n for n in LENGTHS) / sum(LENGTHS)
assert math.isclose(single_length, harmonic_length, rel_tol=1e-3)
assert whole_length > fours_length > learned[2] > single_length

# %% [markdown] lang="pl"
# To cicha awaria (*silent failure*): strata spada w każdym wierszu, a ten sam model z tych
# samych danych raz pisze średnio {{ whole_length:.1f }} tokena, a raz {{ single_length:.1f }}.
# Po cztery odpowiedzi wyszło {{ fours_length:.1f }}: obie czwórki mają podobną liczbę tokenów,
# {{ first_four }} i {{ second_four }}. Pytanie lekcji: **przez co podzielić stratę mikropartii, żeby suma gradientów była
# gradientem całej partii, i co nawet wtedy się nie zgodzi?**
#
# ## Gdzie powstaje suma
#
# Weźmy dwie mikropartie: odpowiedź z 60 tokenami i odpowiedź z trzema. Każda ma własny graf
# obliczeniowy.

# %% [markdown] lang="en"
# This is a silent failure: the loss falls in every row, and the same model from the same data
# writes {{ whole_length:.1f }} tokens on average one time and {{ single_length:.1f }} another.
# With four answers at a time it came to {{ fours_length:.1f }}: both fours have similar numbers
# of tokens, {{ first_four }} and {{ second_four }}. The question of this lesson: **what do you divide a micro-batch's
# loss by, so that the sum of gradients is the gradient of the whole batch, and what will not
# agree even then?**
#
# ## Where the sum is made
#
# Take two micro-batches: the answer of 60 tokens and one of three. Each has a computational
# graph of its own.

# %%
model = Ending()
targets = {"60 tokens": answers[0, :60], "3 tokens": answers[1, :3]}
losses = {name: F.cross_entropy(model(t), t) / 8 for name, t in targets.items()}

# %% fold=true
show_graph(
    graph_of(*losses.values(), names={"scores": model.scores}),
    alt_pl="Dwie kolumny węzłów: Div, NllLoss, LogSoftmax, Expand. Strzałki z obu schodzą się "
    "dopiero na dole, w jednym węźle AccumulateGrad parametru scores.",
    alt_en="Two columns of nodes: Div, NllLoss, LogSoftmax, Expand. Arrows from both meet only "
    "at the bottom, in one AccumulateGrad node of the parameter scores.",
    sizes=False,
    notes={loss.grad_fn: name for name, loss in losses.items() if loss.grad_fn},
    pl={"60 tokens": "60 tokenów", "3 tokens": "3 tokeny"},
)

# %% [markdown] lang="pl"
# Strzałki obu grafów schodzą się dopiero w węźle `AccumulateGrad` parametru. Zobaczmy, co do
# niego wpływa i co zostaje w `.grad`.

# %% [markdown] lang="en"
# The arrows of both graphs meet only in the `AccumulateGrad` node of the parameter. Let's see
# what flows into it and what stays in `.grad`.

# %%
arrived: list[tuple[int, Tensor]] = []
node: Any = get_gradient_edge(model.scores).node
node.register_prehook(
    lambda grads: arrived.append((grads[0].data_ptr(), grads[0].clone()))
)
kept = []
for name, loss in losses.items():
    loss.backward()
    grad = model.scores.grad
    assert grad is not None
    kept.append(grad)
    taken_over = grad.data_ptr() == arrived[-1][0]
    print(f"{name:9} {arrived[-1][1]} {grad} {taken_over=} version {grad._version}")
assert kept[0] is kept[1] and kept[1]._version == 1
assert kept[0].data_ptr() == arrived[0][0] != arrived[1][0]
assert torch.equal(kept[1], arrived[0][1] + arrived[1][1])

# %% [markdown] lang="pl"
# Pierwszy gradient węzeł przejął bez kopiowania. Drugi dodał w miejscu: `.grad` to ten sam
# tensor, tylko jego licznik wersji (`_version`), który rośnie przy zapisie w miejscu, wzrósł do 1.
# Węzeł **dodaje** i nie zna liczby tokenów, więc o tym, ile waży token, decydujesz ty. Zmierzmy to:
# niech każde miejsce ma własne logity. Gdy są zerami, wartości bezwzględne gradientu tokena sumują
# się dokładnie do jego wagi w stracie.

# %% [markdown] lang="en"
# The node took over the first gradient without copying it. It added the second one in place:
# `.grad` is the same tensor, only its version counter (`_version`), which rises when it is written to
# in place, rose to 1. The node **adds** and does not know the number of tokens, so how much a token
# weighs is up to you. Let's measure it: give each place logits of its own. If they are zeros, the
# absolute values of a token's gradient sum to exactly its weight in the loss.


# %%
def token_weights(rows: int) -> Tensor:
    """Return the weight of each token in the accumulated gradient: (answers, tokens)."""
    logits = torch.zeros(*answers.shape, 2, requires_grad=True)
    parts = zip(logits.split(rows), answers.split(rows), strict=True)
    for own, part in parts:
        loss = F.cross_entropy(own.flatten(0, 1), part.flatten(), ignore_index=PAD)
        (loss * rows / len(answers)).backward()
    assert logits.grad is not None
    return logits.grad.abs().sum(-1)


shares = {rows: token_weights(rows) for rows in (8, 2, 1)}
single = shares[1]
weight_ratio = (single[5, 0] / single[0, 0]).item()
print(f"{single[5, 0]:.5f} / {single[0, 0]:.5f} = {weight_ratio:.1f}")
assert math.isclose(weight_ratio, 60 / 2, rel_tol=1e-5)
assert torch.allclose(single.sum(1), torch.full((8,), 1 / 8))
tokens = int((answers != PAD).sum())
assert torch.allclose(shares[8][answers != PAD], torch.tensor(1 / tokens))

# %% fold=true
fig, axes = plt.subplots(3, 1, figsize=(7.2, 4.6), sharex=True, sharey=True)
titles = {8: "8 answers at a time", 2: "2 at a time", 1: "1 at a time"}
for ax, (rows, weights) in zip(axes, shares.items(), strict=True):
    left = 0
    for answer, length in enumerate(LENGTHS):
        height = weights[answer, 0].item() * tokens
        ax.bar(
            left,
            height,
            length,
            align="edge",
            color=PALETTE[answer],
            ec=GRAY,
            lw=0.5,
            alpha=0.75,
        )
        above = max(height, 1) + 0.2
        ax.text(left + length / 2, above, str(length), ha="center", fontsize=9)
        left += length
    ax.axhline(1, color=GRAY, lw=1, ls=":")
    ax.set_title(titles[rows])
    ax.set(ylim=(0, 9.6), ylabel="weight")
axes[-1].set_xlabel("tokens of the eight answers, side by side")
show_figure(
    fig,
    alt_pl="Trzy wykresy, osiem prostokątów w każdym: szerokość to długość odpowiedzi, wysokość "
    "to waga jej tokena, gdzie 1 to waga w całej partii. Po 8 odpowiedzi wszystkie mają "
    "wysokość 1. Po 1 prostokąt odpowiedzi z 2 tokenami ma ponad 8, a z 60 tokenami mniej niż "
    "0,3, więc pola są równe.",
    alt_en="Three charts with eight rectangles each: the width is the length of an answer, the "
    "height the weight of its token, 1 being the weight in the whole batch. With 8 answers at a "
    "time all have height 1. With 1 at a time the rectangle of the answer of 2 tokens is over 8 "
    "high and that of 60 tokens below 0.3, so the areas are equal.",
    pl={
        "8 answers at a time": "po 8 odpowiedzi",
        "2 at a time": "po 2",
        "1 at a time": "po 1",
        "weight": "waga",
        "tokens of the eight answers, side by side": "tokeny ośmiu odpowiedzi obok siebie",
    },
)

# %% [markdown] lang="pl"
# Liczby to długości odpowiedzi, a waga 1 (linia kropkowana) to waga tokena w całej partii, czyli
# 1/{{ tokens }}. Pole prostokąta to wpływ odpowiedzi na gradient. W całej partii każdy token waży
# tyle samo, a po jednej odpowiedzi równe są pola: token najkrótszej waży {{ weight_ratio:.0f }}×
# tyle co token najdłuższej.
#
# ## Jeden mianownik na okno
#
# Mikropartie między dwoma krokami optymalizatora nazwijmy **oknem** (*window*). Gradient całej
# partii daje każdemu tokenowi wagę 1/(liczba tokenów **okna**). Odpowiedź na pierwszą połowę
# pytania: **sumę strat każdej mikropartii podziel przez liczbę tokenów całego okna**. Sprawdźmy
# to na losowych oknach i sieci z warstwami; czasem mikropartia to samo dopełnienie.

# %% [markdown] lang="en"
# The numbers are lengths of answers, and the weight 1 (the dotted line) is a token's weight in the
# whole batch, 1/{{ tokens }}. The area of a rectangle is the answer's influence on the gradient. In
# the whole batch every token weighs the same, and with one answer at a time the areas are equal: a
# token of the shortest weighs {{ weight_ratio:.0f }}× as much as a token of the longest.
#
# ## One denominator for a window
#
# We call the micro-batches between two optimizer steps a **window**. The gradient of the whole
# batch gives each token the weight 1/(number of tokens in the **window**). The answer to the
# first half of the question: **divide the sum of each micro-batch's losses by the number of
# tokens in the whole window**. Let's check it on random windows and a network with layers; now
# and then a micro-batch is nothing but padding.

# %% fold=true
Part = tuple[Tensor, Tensor]  # inputs (rows, tokens, 8), targets (rows, tokens)
net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 5))


def random_part(lengths: Sequence[int], width: int) -> Part:
    """Make a row of `width` tokens for each length; the rest of it is padding."""
    x, y = torch.randn(len(lengths), width, 8), torch.randint(5, (len(lengths), width))
    y[torch.arange(width) >= torch.tensor(lengths)[:, None]] = PAD
    return x, y


def random_window(rng: random.Random) -> list[Part]:
    """Make 2 to 8 micro-batches of 1 to 4 rows; one in five is only padding."""
    parts = [random_part([rng.randint(1, 40)], 40)]
    for _ in range(rng.randint(1, 7)):
        empty = rng.random() < 0.2
        lengths = [0 if empty else rng.randint(1, 40) for _ in range(rng.randint(1, 4))]
        parts.append(random_part(lengths, 40))
    return parts


def flat_gradient(module: nn.Module) -> Tensor:
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.cat([grad.flatten() for grad in grads])


def relative_error(got: Tensor, true: Tensor) -> float:
    return float((got - true).norm() / true.norm())


# %%
def window_gradient(parts: list[Part], reduction: str) -> Tensor:
    """Accumulate, dividing means by the number of parts, or sums by that of tokens."""
    net.zero_grad()
    tokens = sum(int((y != PAD).sum()) for _, y in parts)
    denominator = tokens if reduction == "sum" else len(parts)
    for x, y in parts:
        scores = net(x).flatten(0, 1)
        loss = F.cross_entropy(
            scores, y.flatten(), ignore_index=PAD, reduction=reduction
        )
        (loss / denominator).backward()
    return flat_gradient(net)


rng = random.Random(0)
errors: dict[str, list[float]] = {"sum": [], "mean": []}
for _ in range(200):
    window = random_window(rng)
    x, y = (torch.cat(tensors) for tensors in zip(*window, strict=True))
    true = window_gradient([(x, y)], "mean")  # the whole batch at once
    for reduction, found in errors.items():
        found.append(relative_error(window_gradient(window, reduction), true))
worst_sum = float(torch.tensor(errors["sum"]).max())  # nan, if there is one
typical_mean = 100 * median(errors["mean"])
print(f"{worst_sum=:.0e} {typical_mean=:.0f}%")
assert worst_sum < 10 * torch.finfo(torch.float32).eps and typical_mean > 10
# %% fold=true
equal = [random_part([7, 7], 7) for _ in range(4)]
assert torch.allclose(
    window_gradient(equal, "mean"), window_gradient(equal, "sum"), atol=1e-6
)
scores = torch.ones(3, 5, requires_grad=True)
only_padding = torch.full((3,), PAD)
padded_loss = F.cross_entropy(scores, only_padding, ignore_index=PAD)
padded_loss.backward()
assert padded_loss.isnan() and scores.grad is not None and not scores.grad.any()
print(f"only padding: loss {padded_loss:.1f}, {scores.grad.unique()=}")
scores.grad, mask = None, only_padding != PAD
each = scores.square().sum(1)
((each * mask).sum() / mask.sum()).backward()
assert scores.grad is not None
print(f"squares by a mask: {scores.grad.isnan().all()=}")
assert scores.grad.isnan().all()
y, class_weights = torch.tensor([0, 1, 1]), torch.tensor([1.0, 2, 1, 1, 1])
each = F.cross_entropy(scores, y, class_weights, reduction="none")
weighted_mean = F.cross_entropy(scores, y, class_weights)
assert torch.isclose(weighted_mean, each.sum() / class_weights[y].sum())
assert not torch.isclose(weighted_mean, each.mean())

# %% [markdown] lang="pl"
# Suma podzielona przez liczbę tokenów okna różni się od wzorca najwyżej o `{{ worst_sum:.0e }}`, czyli o kilka
# jednostek zaokrąglenia `float32`. Średnia średnich chybia o {{ typical_mean:.0f }}% (mediana), a zgadza się
# przy równych liczbach tokenów. Z argumentem `weight` funkcja `cross_entropy` dzieli przez sumę wag klas, więc
# mianownikiem jest ich suma w oknie. Mikropartia z samym dopełnieniem ma średnią stratę `nan`, choć gradient
# zerowy; średnia kwadratów z maską ma `nan` także w gradiencie. Biblioteka transformers poprawiała swoją średnią
# średnich w 2024 roku krok po kroku (od [#34191](https://github.com/huggingface/transformers/pull/34191) do
# [#34283](https://github.com/huggingface/transformers/pull/34283)).
#
# ## `AccumulateGrad` od zera
#
# Silnik najpierw rzutuje gradient na typ `grad_dtype`, domyślnie równy typowi parametru (funkcja
# `validate_outputs`, plik `engine.cpp`). Potem węzeł podejmuje jedną decyzję: przejąć, skopiować czy
# dodać. Pierwszy gradient przejmuje, jeśli nie ma innej referencji do tego tensora i ma on właściwe kroki
# (*strides*): takie jak parametr, a gdy parametr ma w pamięci luki – takie jak tensor zapisany
# wierszami. W przeciwnym razie węzeł go kopiuje. Każdy następny gradient dodaje.

# %% [markdown] lang="en"
# The sum divided by the window's number of tokens is off by `{{ worst_sum:.0e }}` at most, a few rounding units of `float32`.
# The mean of means is off by {{ typical_mean:.0f }}% (median), and agrees when the numbers of tokens are equal.
# With the argument `weight` the function `cross_entropy` divides by the sum of class weights, so the
# denominator is their sum in the window. A micro-batch of padding alone has the mean loss `nan`, but a gradient of zeros;
# a mean of squares by a mask has `nan` in the gradient, too. The library transformers repaired its mean of
# means in 2024 step by step (from [#34191](https://github.com/huggingface/transformers/pull/34191) to
# [#34283](https://github.com/huggingface/transformers/pull/34283)).
#
# ## `AccumulateGrad` from scratch
#
# First the engine casts a gradient to the type `grad_dtype`, by default that of the parameter (the
# function `validate_outputs`, file `engine.cpp`). Then the node makes one decision: take over, copy
# or add. It takes over the first gradient if there is no other reference to that tensor and it has the right strides: those
# of the parameter, or, if the parameter has gaps in memory, those of a tensor stored row by row.
# Otherwise the node copies it. Every later gradient it adds.


# %%
def accumulate(param: Tensor, held: Tensor | None, new: Tensor, shared: bool) -> Tensor:
    """Return what is left in `param.grad`; `shared`: `new` has other references."""
    dtype = param.grad_dtype or new.dtype  # None: any type
    if new.dtype != dtype:
        new, shared = new.to(dtype), False  # the engine does this, before the node
    if held is not None:
        held += new  # in place
        return held
    dense = torch.ops.aten.is_non_overlapping_and_dense(param)
    strides = param.stride() if dense else torch.empty(param.shape).stride()
    if new.stride() == strides and not shared:
        return new.detach()  # taken over
    return torch.empty_strided(param.shape, strides, dtype=dtype).copy_(new)


# %% [markdown] lang="pl"
# Wzorcem jest PyTorch. Losujemy układ i typ parametru, `grad_dtype` oraz od jednego do trzech
# gradientów o losowym układzie i typie; część z nich ktoś jeszcze trzyma.

# %% [markdown] lang="en"
# PyTorch is the oracle. We draw the layout and the type of a parameter, `grad_dtype`, and one to
# three gradients of random layout and type; somebody else still holds some of them.

# %% fold=true
LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "rows": lambda: torch.empty(3, 4),
    "transposed": lambda: torch.empty(4, 3).t(),
    "every other": lambda: torch.empty(3, 8)[:, ::2],
    "expanded": lambda: torch.empty(1, 4).expand(3, 4),
}
DTYPES = (torch.float32, torch.bfloat16)


def laid_out(values: Tensor, layout: str) -> Tensor:
    """Copy values into a new tensor of this layout; `expanded` repeats the first row."""
    if layout == "expanded":
        return values[:1].clone().expand(3, 4)
    strides = LAYOUTS[layout]().stride()
    return torch.empty_strided((3, 4), strides, dtype=values.dtype).copy_(values)


@dataclass(frozen=True)
class Delivery:
    """A gradient for a parameter; `holders` are those who keep it, too."""

    values: Tensor
    layout: str
    holders: list[Tensor] | None
    addresses: list[int] = field(default_factory=list)

    def make(self) -> Tensor:
        new = laid_out(self.values, self.layout)
        self.addresses.append(new.data_ptr())
        if self.holders is not None:
            self.holders.append(new)
        return new


class Deliver(Function):
    """Give a delivery to the parameter as its gradient."""

    @staticmethod
    def forward(param: Tensor, delivery: Delivery) -> Tensor:
        return torch.zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.delivery = inputs[1]

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.delivery.make(), None


cast_before: list[bool] = []


def random_param(rng: random.Random) -> Tensor:
    layout = rng.choice(["rows", "transposed", "every other"])
    param = laid_out(torch.zeros(3, 4, dtype=rng.choice(DTYPES)), layout)
    assert param.requires_grad_().grad_dtype == param.dtype  # by default
    param.grad_dtype = rng.choice(DTYPES)
    # The hook sees what the engine hands to the node.
    wanted = param.grad_dtype
    param.register_hook(lambda grad: cast_before.append(grad.dtype == wanted))
    return param


def random_delivery(rng: random.Random, holders: list[Tensor]) -> Delivery:
    values = torch.randn(3, 4).to(rng.choice(DTYPES))
    shared = rng.random() < 0.3
    return Delivery(values, rng.choice(list(LAYOUTS)), holders if shared else None)


def decision(old: Tensor | None, now: Tensor, made: Delivery, which: int) -> str:
    if now is old:
        return "added"
    # A cast gradient is a new tensor, so it counts as copied.
    same = now.dtype == made.values.dtype and now.data_ptr() == made.addresses[which]
    return "taken over" if same else "copied"


# %%
tried, agreed = 1000, 0
decisions = {"taken over": 0, "copied": 0, "added": 0}
rng = random.Random(0)
for _ in range(tried):
    param, alike = random_param(rng), True
    ours: Tensor | None = None
    holders: list[Tensor] = []
    for _ in range(rng.randint(1, 3)):
        made = random_delivery(rng, holders)
        old_theirs, old_ours = param.grad, ours
        Deliver.apply(param, made).backward()
        ours = accumulate(param, ours, made.make(), shared=made.holders is not None)
        theirs = param.grad
        assert theirs is not None
        decided = decision(old_ours, ours, made, 1)
        alike &= decision(old_theirs, theirs, made, 0) == decided
        alike &= theirs.stride() == ours.stride() and theirs.dtype == ours.dtype
        alike &= torch.equal(theirs, ours)
        decisions[decided] += 1
    agreed += alike
print(f"{agreed=} of {tried}", decisions)
assert agreed == tried and min(decisions.values()) > 50
assert len(cast_before) == sum(decisions.values()) and all(cast_before)

# %% [markdown] lang="pl"
# Zgadza się {{ agreed }} prób na {{ tried }}: wartości, kroki, typ oraz to, czy tensor jest przejęty,
# skopiowany (także przez rzutowanie) czy ten sam co poprzednio. W źródłach decyduje funkcja
# `accumulateGrad` (plik `accumulate_grad.h`), a układ sprawdza `obeys_layout_contract` (plik
# `grad_layout_contract.h`). Pomijamy tensory rzadkie, wymiary
# o rozmiarze 1 i `create_graph=True`.
#
# Węzeł liczy referencje do tensora, ale nie do jego pamięci. Dodajmy dwa parametry przez widoki i dwa razy
# wyślijmy im gradient `x`.

# %% [markdown] lang="en"
# {{ agreed }} of {{ tried }} trials agree: values, strides, type, and whether the tensor is taken
# over, copied (by a cast, too) or the same as before. In the source the function `accumulateGrad` decides (file
# `accumulate_grad.h`), and `obeys_layout_contract` checks the layout (file
# `grad_layout_contract.h`). We leave out sparse tensors, dimensions of
# size 1 and `create_graph=True`.
#
# The node counts references to a tensor, but not to its memory. Let's add two parameters by way of views and
# send them the gradient `x` twice.

# %%
x = torch.tensor([1.0, 2, 3, 4])
for cloned in (False, True):
    a, b = (nn.Parameter(torch.zeros(4)) for _ in range(2))
    if cloned:
        a.register_hook(lambda grad: grad.clone())
    for _ in range(2):
        ((a.view(2, 2) + b.view(2, 2)) * x.view(2, 2)).sum().backward()
    assert a.grad is not None and b.grad is not None
    shared = a.grad.data_ptr() == b.grad.data_ptr()
    print(f"{cloned=} {a.grad} {b.grad} {shared=}")
    assert shared != cloned and torch.equal(a.grad, b.grad)
    assert torch.equal(a.grad, 2 * x if cloned else 3 * x)

# %% [markdown] lang="pl"
# Widoki jednego gradientu to dwa tensory i węzły przejęły oba. Druga suma trafiła do wspólnej pamięci dwa razy:
# wyszło 3 × `x` zamiast 2 × `x` (zgłoszenie [#34082](https://github.com/pytorch/pytorch/issues/34082)).
# Hook, który kopiuje gradient jednego z nich, to naprawia.
#
# ## Bajty jednego okna
#
# Akumulacja ma obniżać szczyt pamięci. Sieć to osiem warstw `Linear`, każda z `Tanh`. Niech $S$
# to bajty, które po przejściu w przód trzyma cała partia (osiem wyjść `Tanh`), a $G$ to bajty wszystkich gradientów.
# Weźmy dwie sieci: w wąskiej $S$ to {{ narrow_times:.0f }}× $G$, a w szerokiej połowa $G$. Klasa
# `MemoryMeter` liczy żywe bajty (`live`) i ich szczyt (`peak`), bez wag i danych.

# %% [markdown] lang="en"
# The views of one gradient are two tensors, and the nodes took over both. The second sum went into the shared
# memory twice: the result was 3 × `x` instead of 2 × `x`
# (issue [#34082](https://github.com/pytorch/pytorch/issues/34082)). A hook that copies the
# gradient of one of them repairs it.
#
# ## The bytes of a window
#
# Accumulation is meant to lower the memory peak. The network has eight `Linear` layers, each with
# `Tanh`. Let $S$ be the bytes that the whole batch holds after the forward pass (eight outputs of `Tanh`),
# and $G$ the bytes of all gradients. Take two networks: in the narrow one $S$ is {{ narrow_times:.0f }}× $G$, in
# the wide one half of $G$. The class `MemoryMeter` counts live bytes (`live`) and their peak
# (`peak`), without weights and data.

# %% [markdown] lang="pl" predict="memory-peak"
# Dzielimy partię szerokiej sieci na dwie mikropartie. Co stanie się ze szczytem pamięci?
#
# - [ ] Spadnie: w każdej chwili żyją aktywacje tylko jednej mikropartii
#
#   Aktywacji rzeczywiście jest o połowę mniej, ale to tylko ćwierć $G$. Więcej ważą gradienty,
#   które żyją razem z nimi.
#
# - [ ] Nie zmieni się: gradienty zajmują tyle samo, a to one przeważają
#
#   Zajmują tyle samo, ale nie w tej samej chwili. W całej partii rosną dopiero wtedy, gdy
#   przejście wstecz zwalnia aktywacje.
#
# - [x] Wzrośnie: w drugiej mikropartii gradienty żyją razem z aktywacjami
#
#   Szczyt wzrósł o {{ wide_rise:.0f }}%. Gradienty pierwszej mikropartii czekają w `.grad` przez
#   całe przejście w przód drugiej.

# %% [markdown] lang="en" predict="memory-peak"
# We split the wide network's batch into two micro-batches. What happens to the memory peak?
#
# - [ ] It falls: at any time the activations of only one micro-batch are alive
#
#   There are indeed half as many activations, but that is only a quarter of $G$. The gradients that
#   live together with them weigh more.
#
# - [ ] It stays: gradients take the same bytes, and they dominate
#
#   They take the same bytes, but not at the same moment. In the whole batch they grow only
#   while the backward pass frees activations.
#
# - [x] It rises: in the second micro-batch gradients live together with activations
#
#   The peak rose by {{ wide_rise:.0f }}%. The gradients of the first micro-batch wait in `.grad`
#   through the whole forward pass of the second.


# %%
def peak(
    width: int, rows: int, k: int, *, discard: bool = False
) -> tuple[int, int, int]:
    """Return the peak of a window of k parts, S of the whole batch, and G, in bytes."""
    layers = [f for _ in range(8) for f in (nn.Linear(width, width), nn.Tanh())]
    deep, batch = nn.Sequential(*layers), torch.randn(rows, width)
    with MemoryMeter() as forward:
        y = deep(batch)
        saved = forward.live
    del y
    with MemoryMeter() as meter:
        until: list[int] = []  # the peak until the last layer's gradients are added
        [*deep.parameters()][-1].register_hook(lambda _: until.append(meter.peak))
        for part in batch.split(rows // k):
            (deep(part).sum() / rows).backward()
            if discard:  # only to find the cause: this loses the sum
                deep.zero_grad()
    assert k == 1 or discard or until[-1] == meter.peak
    return meter.peak, saved, sum(p.nbytes for p in deep.parameters())


NETWORKS = {"narrow": (64, 4096), "wide": (256, 128)}  # width, rows of the batch
COUNTS = (1, 2, 4, 8, 16)
peaks: dict[str, list[int]] = {}
sizes: dict[str, tuple[int, int]] = {}
for name, (width, rows) in NETWORKS.items():
    runs = [peak(width, rows, k) for k in COUNTS]
    peaks[name] = [run[0] for run in runs]
    S, G = sizes[name] = runs[0][1:]
    print(f"{name:6} {S=} {G=} peaks {peaks[name]}")
    whole = peaks[name][0]
    assert whole == max((9 * S + G) // 8, G + S // 8) + 8  # start, end of backward
    for k, measured in zip(COUNTS[1:], peaks[name][1:], strict=True):
        assert measured == 9 * (G + S // k) // 8 + 8  # 8: the loss and its gradient
        assert (measured > whole) == (9 / 8 * S * (1 - 1 / k) < G)
between = [peak(256, 352, k)[0] for k in (1, 2, 4)]  # here S is 1.37 G
print(f"{between=}")
assert between[1] > between[0] > between[2]
discarded = peak(*NETWORKS["wide"], 2, discard=True)[0]
print(f"{discarded=}")
assert discarded < peaks["wide"][0]

# %% fold=true
narrow_times = sizes["narrow"][0] / sizes["narrow"][1]
narrow_fall = peaks["narrow"][0] / peaks["narrow"][-1]
wide_rise = 100 * peaks["wide"][1] / peaks["wide"][0] - 100
wide_last = 100 * peaks["wide"][-1] / peaks["wide"][0] - 100
assert narrow_times > 60 and round(sizes["wide"][0] / sizes["wide"][1], 2) == 0.5
assert narrow_fall > 12 and wide_rise > 30 and min(peaks["wide"]) == peaks["wide"][0]
fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.6))
for ax, (name, measured_peaks) in zip(axes, peaks.items(), strict=True):
    gradients = sizes[name][1] / 1e6
    bars = [value / 1e6 for value in measured_peaks]
    ax.bar(range(5), bars, color=[GRAY, *[BLUE] * 4], width=0.7)
    for place, bar in enumerate(bars):
        ax.text(place, bar + 0.02 * max(bars), f"{bar:.2f}", ha="center")
    ax.axhline(gradients, color=ORANGE, ls="--", label="gradients")
    ax.set_xticks(range(5), list(map(str, COUNTS)))
    ax.set(ylim=(0, 1.15 * max(bars)), xlabel="micro-batches in the window")
    ax.set_title(f"{name} network")
axes[0].set_ylabel("peak, MB")
axes[0].legend(loc="upper right")
show_figure(
    fig,
    alt_pl="Dwa wykresy słupkowe szczytu pamięci dla 1, 2, 4, 8 i 16 mikropartii, z przerywaną "
    "linią na wysokości gradientów. W wąskiej sieci słupki maleją prawie o połowę za każdym "
    "razem, od 9,45 do 0,74 MB. W szerokiej pierwszy słupek, 2,24 MB, jest najniższy, drugi, "
    "2,96 MB, najwyższy, a dalsze opadają w stronę linii gradientów.",
    alt_en="Two bar charts of the memory peak for 1, 2, 4, 8 and 16 micro-batches, with a dashed "
    "line at the height of the gradients. In the narrow network bars shrink by almost half each "
    "time, from 9.45 to 0.74 MB. In the wide one the first bar, 2.24 MB, is the lowest, the "
    "second, 2.96 MB, the highest, and the others descend towards the line of the gradients.",
    pl={
        "narrow network": "wąska sieć",
        "wide network": "szeroka sieć",
        "gradients": "gradienty",
        "peak, MB": "szczyt, MB",
        "micro-batches in the window": "mikropartie w oknie",
    },
)

# %% [markdown] lang="pl"
# Linia przerywana to $G$. W wąskiej sieci 16 mikropartii obniża szczyt {{ narrow_fall:.1f }}×. W
# szerokiej nawet 16 daje o {{ wide_last:.0f }}% więcej niż cała partia. Dla $k \ge 2$ mikropartii
# szczyt obu sieci wynosi dokładnie $\frac{9}{8}(G + S/k)$ plus 8 bajtów na stratę i jej gradient. Dodatkowa ósma
# część powstaje na początku przejścia wstecz, w ostatniej warstwie: to jeden tensor wielkości aktywacji
# i nowe gradienty wag, jeszcze niedodane. Cała partia ma w nich szczyt na początku przejścia wstecz,
# $\frac{9}{8}S + \frac{1}{8}G$, albo na końcu, $G + \frac{1}{8}S$. Stąd reguła dla sieci z równych warstw: $k$ mikropartii
# podnosi szczyt, gdy $G > \frac{9}{8}S(1 - 1/k)$. Zgadza się z nią trzecia sieć, `between`: dwie mikropartie
# szczyt podniosły, a cztery obniżyły. Próba `discard` potwierdza przyczynę: gdy gradienty znikają po
# każdej mikropartii, szczyt jest niższy niż dla całej partii.
#
# ## Co się psuje i jak to zauważyć
#
# **Zapomniane dzielenie.** Bez dzielenia przez liczbę mikropartii gradient jest tyle razy za
# duży. Uczymy klasyfikator na oknach po 8 równych mikropartii, z dzieleniem i bez.

# %% [markdown] lang="en"
# The dashed line is $G$. In the narrow network 16 micro-batches lower the peak {{ narrow_fall:.1f }}×.
# In the wide one even 16 take {{ wide_last:.0f }}% more than the whole batch. For $k \ge 2$
# micro-batches the peak of both networks is exactly $\frac{9}{8}(G + S/k)$ plus 8 bytes for the loss and its gradient. The
# extra eighth arises at the start of the backward pass, in the last layer: one tensor as large as an
# activation, and new gradients of the weights, not yet added. In them the whole batch has its peak at the start of
# the backward pass, $\frac{9}{8}S + \frac{1}{8}G$, or at the end, $G + \frac{1}{8}S$. Hence a rule for networks of equal layers: $k$
# micro-batches raise the peak if $G > \frac{9}{8}S(1 - 1/k)$. A third network, `between`, agrees: two
# micro-batches raised the peak, and four lowered it. The trial with `discard` confirms the cause: if
# gradients vanish after each micro-batch, the peak is below that of the whole batch.
#
# ## What breaks and how to notice
#
# **A forgotten division.** Without dividing by the number of micro-batches the gradient is that
# many times too large. We train a classifier on windows of 8 equal micro-batches, with and
# without the division.

# %% fold=true
torch.manual_seed(0)
centres = torch.randn(10, 32)
labels = torch.randint(10, (1024,))
points = centres[labels] + 1.2 * torch.randn(1024, 32)


def classifier(norm: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    norm = norm or nn.Identity()
    return nn.Sequential(nn.Linear(32, 64), norm, nn.ReLU(), nn.Linear(64, 10))


# %%
def fit(
    name: str, lr: float, divisor: int, **options: float
) -> tuple[float, float, Tensor]:
    """Return the first gradient's norm, the test accuracy in %, and the weights."""
    net, norms = classifier(), []
    optimizer = getattr(torch.optim, name)(net.parameters(), lr, **options)
    for step in range(100):
        first = 64 * step % 512
        optimizer.zero_grad()
        for i in range(first, first + 64, 8):
            loss = F.cross_entropy(net(points[i : i + 8]), labels[i : i + 8])
            (loss / divisor).backward()
        norms.append(flat_gradient(net).norm().item())
        optimizer.step()
    hits = net(points[512:]).argmax(1) == labels[512:]
    weights = parameters_to_vector(net.parameters()).detach()
    return norms[0], 100 * hits.float().mean().item(), weights


fits = {
    (o, d): fit(o, lr, d) for o, lr in (("SGD", 0.5), ("Adam", 3e-3)) for d in (8, 1)
}
for (name, divisor), (first_norm, accuracy, _final) in fits.items():
    print(f"{name:4} {divisor=} {first_norm=:.2f}, accuracy {accuracy:.1f}%")
sgd_right, sgd_wrong = fits["SGD", 8][1], fits["SGD", 1][1]
adam_right, adam_wrong = fits["Adam", 8][1], fits["Adam", 1][1]
norm_ratio = fits["Adam", 1][0] / fits["Adam", 8][0]
assert sgd_right > 95 and sgd_wrong < 60 and adam_right == adam_wrong > 95
assert relative_error(fits["Adam", 1][2], fits["Adam", 8][2]) < 1e-3
assert math.isclose(norm_ratio, 8, rel_tol=1e-5)
for option in ({"eps": 0.1}, {"weight_decay": 0.01}):
    changed = [fit("Adam", 3e-3, divisor, **option)[2] for divisor in (8, 1)]
    assert relative_error(changed[1], changed[0]) > 0.01

# %% [markdown] lang="pl"
# Trafność z SGD spada z {{ sgd_right:.1f }}% do {{ sgd_wrong:.1f }}%. Adam ma w obu przebiegach
# {{ adam_right:.1f }}% i prawie te same wagi: dzieli średnią gradientów przez pierwiastek ze średniej ich
# kwadratów, więc stały czynnik się skraca, o ile `eps` w mianowniku jest małe i nie ma `weight_decay`, które
# Adam dodaje do gradientu. Błąd widać w normie
# gradientu, {{ norm_ratio:.0f }}× za dużej. Zapisuj ją i porównaj z normą dla całej partii.
#
# **Dobry mianownik, a gradient i tak inny.** Porównajmy kierunki: kosinus kąta między gradientem z 16
# mikropartii po 8 próbek a gradientem całej partii 128 próbek.

# %% [markdown] lang="en"
# With SGD accuracy drops from {{ sgd_right:.1f }}% to {{ sgd_wrong:.1f }}%. Adam has
# {{ adam_right:.1f }}% in both runs and almost the same weights: it divides the mean of gradients by the root
# of the mean of their squares, so a constant factor cancels as long as `eps` in the denominator is small and there is no `weight_decay`,
# which Adam adds to the gradient.
# The bug shows in the norm of the gradient, {{ norm_ratio:.0f }}× too large. Log it, and compare it with
# the norm for the whole batch.
#
# **The right denominator, yet a different gradient.** Let's compare directions: the cosine of the angle
# between the gradient from 16 micro-batches of 8 samples and the gradient of the whole batch of 128.


# %%
def direction(net: nn.Module, k: int, clip_each: bool = False) -> Tensor:
    net.zero_grad()
    for x, y in zip(points[:128].chunk(k), labels[:128].chunk(k), strict=True):
        (F.cross_entropy(net(x), y) / k).backward()
        if clip_each:
            clip_grad_norm_(net.parameters(), 0.1)
    return flat_gradient(net)


batch_norm = nn.BatchNorm1d(64)
cosines = {}
for name, norm, clip_each in (
    ("plain", None, False),
    ("LayerNorm", nn.LayerNorm(64), False),
    ("BatchNorm1d", batch_norm, False),
    ("clipped each time", None, True),
):
    probe = classifier(norm)
    pair = [direction(probe, k, clip_each) for k in (1, 16)]
    cosines[name] = F.cosine_similarity(pair[0], pair[1], dim=0).item()
    print(f"{name:18}{cosines[name]:.4f}")
batch_norm_cosine, clip_cosine = cosines["BatchNorm1d"], cosines["clipped each time"]
assert cosines["plain"] > 0.99999 and cosines["LayerNorm"] > 0.99999
assert batch_norm_cosine < 0.98 and clip_cosine < 0.8
updates = int(batch_norm.num_batches_tracked or 0)
print(f"{updates=}")
assert updates == 1 + 16  # of the running statistics: whole batch, then 16 parts
frozen = classifier(batch_norm).eval()
frozen_pair = [direction(frozen, k) for k in (1, 16)]
assert F.cosine_similarity(frozen_pair[0], frozen_pair[1], dim=0) > 0.99999

# %% [markdown] lang="pl"
# `LayerNorm` normalizuje każdą próbkę osobno i nic nie psuje. `BatchNorm1d` normalizuje każdą
# mikropartię jej własną średnią i wariancją, a statystyki bieżące zmienia w oknie 16 razy zamiast raz
# (`updates` to {{ updates }}: raz w całej partii i 16 razy w oknie); w trybie `eval`, ze
# statystykami bieżącymi, kierunek znów się zgadza. Przycinanie gradientów
# (*gradient clipping*) po każdej mikropartii obróciło gradient jeszcze bardziej: kosinus to
# {{ clip_cosine:.2f }}. Przycinaj raz, po ostatniej.
#
# **Gradient, który przestał rosnąć.** Typ `bfloat16` ma 8 bitów znaczących. Dodajmy gradient
# 1,0 z każdej z 1024 mikropartii.

# %% [markdown] lang="en"
# `LayerNorm` normalises each sample on its own and does no harm. `BatchNorm1d` normalises every
# micro-batch by its own mean and variance, and changes its running statistics 16 times in a window
# instead of once (`updates` is {{ updates }}: once in the whole batch and 16 times in the window); in
# `eval` mode, with running statistics, the direction agrees again. Gradient
# clipping after each micro-batch turned the gradient even more: the cosine is {{ clip_cosine:.2f }}. Clip
# once, after the last one.
#
# **A gradient that stopped growing.** The type `bfloat16` has 8 significant bits. Let's add a
# gradient of 1.0 from each of 1024 micro-batches.


# %%
def summed(grad_dtype: torch.dtype, size: float = 1.0) -> tuple[float, nn.Parameter]:
    p = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    p.grad_dtype = grad_dtype
    for _ in range(1024):
        (p * size).sum().backward()
    assert p.grad is not None
    return p.grad.item(), p


fp32_sum, mixed = summed(torch.float32)
bf16_sum, divided_sum = (summed(torch.bfloat16, size)[0] for size in (1, 1 / 1024))
torch_version = torch.__version__.split("+")[0]
print(f"{bf16_sum=} {fp32_sum=} {divided_sum=}")
assert (bf16_sum, fp32_sum, divided_sum) == (256, 1024, 0.25)
assert torch.tensor(256, dtype=torch.bfloat16) + 1 == 256
assert torch.finfo(torch.bfloat16).eps == 2**-7  # 8 significant bits

# %% raises="RuntimeError: expected dtype c10::BFloat16 for `end` but got dtype float"
torch.optim.SGD([mixed]).step()  # works
torch.optim.AdamW([mixed]).step()

# %% [markdown] lang="pl"
# Suma stanęła na {{ bf16_sum:.0f }}, bo w `bfloat16` 256 + 1 zaokrągla się do 256. Wcześniejsze
# dzielenie nie pomaga: zamiast 1 wyszło {{ divided_sum:.2f }}. Z `grad_dtype` równym
# `torch.float32` (zmierzone w PyTorch {{ torch_version }}) suma jest dokładna, ale `AdamW` takiego gradientu
# nie przyjmuje; wyjście pokaże czarne ćwiczenie. Odpowiedź na drugą połowę pytania: **mimo dobrego mianownika
# gradient zmieniły `BatchNorm1d`, przycinanie po każdej mikropartii, suma w `bfloat16` i wspólna
# pamięć dwóch `.grad`**.
#
# **Strażnik** (*guard*) obejmuje całe okno blokiem `with`: przyjmuje straty **po jednej na element** i maskę,
# sam sumuje i na końcu dzieli. Między mikropartiami sprawdza liczniki wersji, bo nikt poza strażnikiem nie
# powinien wtedy pisać do wag ani do `.grad`.

# %% [markdown] lang="en"
# The sum stopped at {{ bf16_sum:.0f }}, because in `bfloat16` 256 + 1 rounds to 256. Dividing earlier does
# not help: the result was {{ divided_sum:.2f }} instead of 1. With `grad_dtype` equal to
# `torch.float32` (measured in PyTorch {{ torch_version }}) the sum is exact, but `AdamW` does not accept such
# a gradient; the black exercise shows the way out. The answer to the second half of the question: **even with
# the right denominator the gradient was changed by `BatchNorm1d`, by clipping after each micro-batch, by the
# sum in `bfloat16`, and by memory shared by two `.grad`**.
#
# **The guard** puts a whole window into a `with` block: it takes **one loss per element** and a mask, does the
# summing itself, and divides at the end. Between micro-batches it checks the version counters, because nobody
# but the guard should then write to the weights or to `.grad`.

# %%
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def one_gradient(model: nn.Module) -> Iterator[Callable[[Tensor, Tensor], None]]:
    """Leave the gradient of the mean over all elements that the window counts."""
    weights = [p for p in model.parameters() if p.requires_grad]
    count = parts = 0

    def state() -> list[tuple[Tensor | None, int | None, int]]:
        grads = [p.grad for p in weights]
        versions = [None if g is None else g._version for g in grads]
        return list(zip(grads, versions, [p._version for p in weights], strict=True))

    if any(p.grad is not None and p.grad.any() for p in weights):
        raise RuntimeError("a gradient is left over from before the window")
    before = state()

    def check() -> None:
        for old, new in zip(before, state(), strict=True):
            if old[0] is not new[0] or old[1:] != new[1:]:
                raise RuntimeError("a weight or its .grad was changed in the window")

    def add(losses: Tensor, counted: Tensor) -> None:
        nonlocal count, parts, before
        if losses.dim() == 0 or losses.shape != counted.shape:
            raise ValueError("one loss for each element is needed, and their mask")
        check()
        parts += 1
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        if parts > 1 and any(m.training or m.running_mean is None for m in norms):
            raise RuntimeError("BatchNorm sees micro-batches, not the batch")
        losses[counted.bool()].sum().backward()
        count += int(counted.bool().sum())
        before = state()
        grads = [g for g, _, _ in before if g is not None and g.numel()]
        if len({g.data_ptr() for g in grads}) < len(grads):
            raise RuntimeError("two .grad share memory; clone one in a tensor hook")
        if parts > 1 and any(g.dtype.itemsize < 4 for g in grads):
            raise TypeError("16-bit gradients stop growing")

    yield add
    check()
    if count == 0:
        raise RuntimeError("the window has counted nothing")
    for p in weights:
        if p.grad is not None:
            p.grad /= count


# %% [markdown] lang="pl"
# Wróćmy do pułapki: po jednej odpowiedzi, ale ze strażnikiem.

# %% [markdown] lang="en"
# Back to the trap: one answer at a time, but with the guard.


# %%
model = Ending()
optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
for _ in range(100):
    optimizer.zero_grad()
    with one_gradient(model) as add:
        for part in answers.split(1):
            one_each = F.cross_entropy(model(part), part.flatten(), reduction="none")
            add(one_each, part.flatten() != PAD)
    optimizer.step()
guarded_length = 1 / model.scores.softmax(0)[END].item()
print(f"{guarded_length=:.1f}")
assert math.isclose(guarded_length, whole_length, rel_tol=1e-4)


# %% fold=true
def guarded(net: nn.Module, parts: Iterable[Part], reduction: str = "none") -> None:
    with one_gradient(net) as add:
        for x, y in parts:
            scores, labels = net(x).flatten(0, 1), y.flatten()
            add(F.cross_entropy(scores, labels, reduction=reduction), labels != PAD)


for _ in range(50):
    window = random_window(rng)
    net.zero_grad(set_to_none=rng.random() < 0.5)
    guarded(net, window)
    mine = flat_gradient(net)
    assert relative_error(mine, window_gradient(window, "sum")) < 1e-5
net.zero_grad()
sgd = torch.optim.SGD(net.parameters(), lr=0.1)


def interrupted(parts: list[Part], write: Callable[[], object]) -> Iterator[Part]:
    """Write something after the first micro-batch."""
    yield parts[0]
    write()
    yield from parts[1:]


def halve() -> None:
    for p in net.parameters():
        assert p.grad is not None
        p.grad = p.grad / 2


def alarm(guard: Callable[[], None]) -> str:
    try:
        guard()
    except (RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for module in (net, normed, small, twins):
            module.zero_grad()
    return "no alarm"


def left_over() -> None:
    net(window[0][0]).sum().backward()
    guarded(net, window)


normed = nn.Sequential(nn.Linear(8, 5), nn.Flatten(0, 1), nn.BatchNorm1d(5))
normed.append(nn.Unflatten(0, (-1, 40)))
small = nn.Linear(8, 5, dtype=torch.bfloat16)


class Twins(nn.Module):
    """Add views of two parameters, which then get views of one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.zeros(5)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        added = self.a.unsqueeze(0) + self.b.unsqueeze(0)
        return added.expand(*x.shape[:2], 5)


twins = Twins()
window = [random_part([40, 3], 40) for _ in range(4)]
half = [(x.bfloat16(), y) for x, y in window]
nothing = [random_part([0, 0], 40) for _ in range(2)]

# %% [markdown] lang="pl"
# Średnia długość to znów {{ guarded_length:.1f }}. A oto dziesięć pomyłek. Funkcja `guarded` przepuszcza
# okno przez strażnika, a `interrupted` wtrąca po pierwszej mikropartii zapis do wag lub gradientów.

# %% [markdown] lang="en"
# The mean length is {{ guarded_length:.1f }} again. And here are ten mistakes. The function `guarded`
# passes a window through the guard, and `interrupted` slips in a write to weights or gradients after the
# first micro-batch.

# %%
MISTAKES: dict[str, Callable[[], None]] = {
    "a mean": lambda: guarded(net, window, "mean"),
    "clipping": lambda: guarded(
        net, interrupted(window, lambda: clip_grad_norm_(net.parameters(), 1.0))
    ),
    "zero_grad": lambda: guarded(net, interrupted(window, sgd.zero_grad)),
    "an early step": lambda: guarded(net, interrupted(window, sgd.step)),
    "scaling by hand": lambda: guarded(net, interrupted(window, halve)),
    "no zero_grad before": left_over,
    "BatchNorm": lambda: guarded(normed, window),
    "bfloat16": lambda: guarded(small, half),
    "shared memory": lambda: guarded(twins, window),
    "only padding": lambda: guarded(net, nothing),
}
alarms = {name: alarm(mistake) for name, mistake in MISTAKES.items()}
for name, text in alarms.items():
    print(f"{name:20}{text}")
assert "no alarm" not in alarms.values()
assert len(set(alarms.values())) == 7
assert alarm(lambda: guarded(normed, window[:1])) == "no alarm"  # the whole batch
assert alarm(lambda: guarded(small, half[:1])) == "no alarm"
twins.a.register_hook(lambda grad: grad.clone())
assert alarm(lambda: guarded(twins, window)) == "no alarm"
assert alarm(lambda: guarded(normed.eval(), window)) == "no alarm"
assert alarm(lambda: guarded(net, window)) == "no alarm"

# %% fold=true
true = window_gradient(window, "sum")
fused = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)


def unseen_by_guard(per_row: bool) -> float:
    net.zero_grad()
    with one_gradient(net) as add:
        for x, y in window:
            each = F.cross_entropy(net(x).transpose(1, 2), y, reduction="none")
            if per_row:
                add(each.sum(1) / (y != PAD).sum(1), torch.ones(len(y)) > 0)
            else:
                add(each / len(window), y != PAD)
    return relative_error(flat_gradient(net), true)


assert unseen_by_guard(per_row=True) > 0.1
assert math.isclose(unseen_by_guard(per_row=False), 0.75, rel_tol=1e-4)
net.zero_grad()
assert alarm(lambda: guarded(net, interrupted(window, fused.step))) == "no alarm"


def write_data() -> None:
    for p in net.parameters():
        p.data *= 0.5


assert alarm(lambda: guarded(net, interrupted(window, write_data))) == "no alarm"
hook = net[0].weight.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))
assert alarm(lambda: guarded(net, window)) == "no alarm"
hook.remove()
no_statistics = nn.Sequential(*normed[:2], nn.BatchNorm1d(5, track_running_stats=False))
no_statistics.append(normed[3])
assert "BatchNorm" in alarm(lambda: guarded(no_statistics.eval(), window))


def late_clipping() -> None:
    with one_gradient(net) as add:
        x, y = window[0]
        add(F.cross_entropy(net(x).transpose(1, 2), y, reduction="none"), y != PAD)
        clip_grad_norm_(net.parameters(), 1.0)


assert "was changed in the window" in alarm(late_clipping)

# %% [markdown] lang="pl"
# Strażnik nie zobaczy między innymi strat podzielonych przed `add`, średnich policzonych osobno w każdym
# wierszu, hooków działających w `backward` ani zapisu, który nie zwiększa licznika wersji: przez `p.data` lub
# krokiem `SGD(fused=True)`.
#
# Na GPU nie mierzyliśmy niczego. O tym, jak i kiedy gradienty mikropartii uśrednia DDP, jest
# [lekcja 43](../6_production/43_ddp_concepts.py).
#
# ## Co już umiesz
#
# - Dzielisz sumę strat przez liczbę elementów całego okna, także przy dopełnieniu.
# - Oszacujesz z $G$, $S$ i $k$, czy akumulacja podniesie szczyt pamięci.
# - Rozpoznasz błędy, których mianownik nie naprawi: `BatchNorm1d`, przycinanie po każdej mikropartii,
#   sumy w `bfloat16`.
#
# Wcześniej: [co naprawdę zwalnia przejście wstecz](12_retain_graph.py). Dalej:
# [różniczkowanie w trybie postępowym](14_forward_mode_ad.py). Dokumentacja:
# [torch.Tensor.grad](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.grad.html),
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html). Źródła:
# [`accumulate_grad.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/functions/accumulate_grad.h),
# [`grad_layout_contract.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/utils/grad_layout_contract.h),
# [`engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# Among the things that the guard does not see are losses divided before `add`, means taken in each row on
# its own, hooks that run inside `backward`, and a write that does not increment the version counter: through `p.data` or by a step of
# `SGD(fused=True)`.
#
# Nothing was measured on a GPU. How and when DDP averages the gradients of micro-batches is in
# [lesson 43](../6_production/43_ddp_concepts.py).
#
# ## Now you can
#
# - Divide the sum of losses by the number of elements in the whole window, with padding, too.
# - Estimate from $G$, $S$ and $k$ whether accumulation raises the memory peak.
# - Recognise mistakes that no denominator repairs: `BatchNorm1d`, clipping after each micro-batch, sums
#   in `bfloat16`.
#
# Before this: [what the backward pass really frees](12_retain_graph.py). Next:
# [forward-mode differentiation](14_forward_mode_ad.py). Documentation:
# [torch.Tensor.grad](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.grad.html),
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html). Source:
# [`accumulate_grad.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/functions/accumulate_grad.h),
# [`grad_layout_contract.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/utils/grad_layout_contract.h),
# [`engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp).
#
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="mean-weights" role="prompt" belt="white" minutes=5
# ### Biały: wagi dla średnich
#
# Twoja funkcja straty umie policzyć tylko średnią, a mikropartie mają różne liczby
# tokenów, podane w `counts` (każda co najmniej 1). Zwróć listę wag: suma strat pomnożonych przez te wagi ma mieć gradient
# średniej po wszystkich tokenach okna.

# %% [markdown] lang="en" exercise="mean-weights" role="prompt" belt="white" minutes=5
# ### White: weights for means
#
# Your loss function can only do means, and micro-batches have different numbers of tokens,
# given in `counts` (each at least 1). Return a list of weights: the sum of losses times these weights
# must have the gradient of the mean over all tokens in the window.


# %% exercise="mean-weights" role="starter"
def shares_of(counts: list[int]) -> list[float]:
    return [1.0 for _ in counts]  # your code


# %% exercise="mean-weights" role="check"
rng = random.Random(13)
torch.manual_seed(13)
for _ in range(20):
    counts = [rng.randint(1, 30) for _ in range(rng.randint(2, 6))]
    got = [float(weight) for weight in shares_of(list(counts))]
    assert len(got) == len(counts), say(
        pl=f"wag jest {len(got)}, a mikropartii {len(counts)}",
        en=f"{len(got)} weights for {len(counts)} micro-batches",
    )
    assert math.isclose(sum(got), 1, rel_tol=1e-4), say(
        pl=f"dla {counts} suma wag to {sum(got):.3f}, a nie 1: gradient ma złą skalę",
        en=f"for {counts} the weights sum to {sum(got):.3f}, not to 1: the gradient has "
        "the wrong scale",
    )
    linear = nn.Linear(8, 5)
    xs = [torch.randn(n, 8) for n in counts]
    ys = [torch.randint(5, (n,)) for n in counts]
    for weight, x, y in zip(got, xs, ys, strict=True):
        (weight * F.cross_entropy(linear(x), y)).backward()
    mine = flat_gradient(linear)
    linear.zero_grad()
    F.cross_entropy(linear(torch.cat(xs)), torch.cat(ys)).backward()
    off = relative_error(mine, flat_gradient(linear))
    assert off < 1e-4, say(
        pl=f"wagi sumują się do 1, ale dla {counts} gradient różni się o {off:.1%}: token z "
        f"pierwszej mikropartii waży {got[0] / counts[0]:.4f}, a z ostatniej "
        f"{got[-1] / counts[-1]:.4f}",
        en=f"the weights sum to 1, but for {counts} the gradient is off by {off:.1%}: a token of "
        f"the first micro-batch weighs {got[0] / counts[0]:.4f}, one of the last "
        f"{got[-1] / counts[-1]:.4f}",
    )

# %% [markdown] lang="pl" exercise="mean-weights" role="hint"
# Średnia daje tokenowi wagę 1/(liczba tokenów mikropartii). Jaką wagę ma mieć w całym oknie?

# %% [markdown] lang="en" exercise="mean-weights" role="hint"
# The mean gives a token the weight 1/(number of tokens in the micro-batch). Which weight should
# it have in the whole window?

# %% [markdown] lang="pl" exercise="mean-weights" role="hint"
# Pomnóż średnią przez liczbę tokenów mikropartii, a dostaniesz sumę. Sumę umiesz już podzielić.

# %% [markdown] lang="en" exercise="mean-weights" role="hint"
# Multiply the mean by the number of tokens in the micro-batch and you get the sum. You know what
# to divide a sum by.


# %% exercise="mean-weights" role="wrong" says="the weights sum to 1, but for"
def shares_of(counts: list[int]) -> list[float]:
    return [1 / len(counts) for _ in counts]  # the mean of means


# %% exercise="mean-weights" role="wrong" says="not to 1: the gradient has the wrong scale"
def shares_of(counts: list[int]) -> list[float]:
    return [n / max(counts) for n in counts]  # right proportions, wrong scale


# %% exercise="mean-weights" role="wrong" says="a token of the first micro-batch weighs"
def shares_of(counts: list[int]) -> list[float]:
    inverse = [1 / n for n in counts]  # the share the wrong way round
    return [share / sum(inverse) for share in inverse]


# %% exercise="mean-weights" role="solution"
def shares_of(counts: list[int]) -> list[float]:
    # n * mean is the sum of a micro-batch; sum(counts) is the window's denominator.
    return [n / sum(counts) for n in counts]


# %% [markdown] lang="pl" exercise="last-window" role="prompt" belt="brown" minutes=15
# ### Brązowy: epoka, która się nie dzieli
#
# Napisz epokę: krok po każdych `k` mikropartiach **i** po reszcie, która została na końcu.
# Gradient ma być średnią po tokenach okna (tokeny `PAD` się nie liczą; bywają mikropartie z
# samym dopełnieniem, ale nie całe okna), a jego norma przycięta do `limit` raz na krok. Każda mikropartia
# przechodzi przez model osobno i w całości, a przejście wstecz wykonaj, zanim do modelu wejdzie następna.
# Strumień `parts` nie zna swojej długości; trzymaj z niego najwyżej jedno okno.

# %% [markdown] lang="en" exercise="last-window" role="prompt" belt="brown" minutes=15
# ### Brown: an epoch that does not divide evenly
#
# Write an epoch: a step after every `k` micro-batches **and** after the remainder at the end. The
# gradient must be the mean over the window's tokens (`PAD` tokens do not count; some
# micro-batches, but no whole windows, are only padding), with its norm clipped to `limit` once a step. Each
# micro-batch goes through the model on its own and whole, and its backward pass comes before the next one.
# The stream `parts` does not know its length; hold one window of it at most.


# %% exercise="last-window" role="starter"
def epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],  # x: (rows, tokens, 8), y: (rows, tokens)
    k: int,
    limit: float,
) -> None:
    for _part in parts:
        pass  # your code


# %% exercise="last-window" role="check"
def check_epoch(pl: str, en: str, stream: list[Part], k: int, limit: float) -> None:
    ours, theirs = nn.Linear(8, 5), nn.Linear(8, 5)
    theirs.load_state_dict(ours.state_dict())
    real = [bool((y != PAD).any()) for _, y in stream]
    seen: list[int] = []
    done: list[int] = []
    late: list[int] = []
    steps: list[int] = []
    eager: list[int] = []
    outputs: list[weakref.ref[Tensor]] = []

    def flow() -> Iterator[Part]:
        before = len(seen)
        for i, part in enumerate(stream):
            if i > len(seen) - before + k:
                eager.append(1)
            yield part

    def enter(_: nn.Module, args: tuple[Tensor]) -> None:
        alive = sum(output() is not None for output in outputs)
        if len(done) < sum((2 * real)[: len(seen)]) or alive > 1:
            late.append(1)
        seen.append(args[0].numel())

    def leave(_: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if (2 * real)[: len(seen)][-1]:
            output.register_hook(lambda grad: done.append(1))
        outputs.append(weakref.ref(output))

    ours.register_forward_pre_hook(enter)
    ours.register_forward_hook(leave)
    mine = torch.optim.SGD(ours.parameters(), lr=0.5)
    mine.register_step_post_hook(lambda *_: steps.append(1))
    true = torch.optim.SGD(theirs.parameters(), lr=0.5)
    for _ in range(2):  # epochs: nothing may leak from the first one into the second
        epoch(ours, mine, flow(), k, limit)
        for first in range(0, len(stream), k):
            x, y = map(torch.cat, zip(*stream[first : first + k], strict=True))
            loss = F.cross_entropy(theirs(x).flatten(0, 1), y.flatten())
            true.zero_grad()
            loss.backward()
            clip_grad_norm_(theirs.parameters(), limit)
            true.step()
    expected = 2 * math.ceil(len(stream) / k)
    assert len(steps) == expected, say(
        pl=f"{pl}: liczba kroków w dwóch epokach to {len(steps)}, a okien {expected} "
        f"(mikropartii: {len(stream)}, k={k})",
        en=f"{en}: two epochs of {len(stream)} micro-batches with k={k} made {len(steps)} "
        f"steps, but there were {expected} windows",
    )
    assert seen == 2 * [x.numel() for x, _ in stream], say(
        pl=f"{pl}: model nie dostał każdej mikropartii osobno, w całości i dokładnie raz",
        en=f"{en}: the model did not get every micro-batch on its own, whole and exactly once",
    )
    assert not eager, say(
        pl=f"{pl}: ze strumienia pobrano naraz więcej niż jedno okno",
        en=f"{en}: more than one window was taken from the stream at a time",
    )
    assert not late, say(
        pl=f"{pl}: mikropartia weszła do modelu przed przejściem wstecz poprzedniej, "
        "więc grafy całego okna żyją naraz",
        en=f"{en}: a micro-batch entered the model before the backward pass of the last one, "
        "so the graphs of the whole window are alive at once",
    )
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    gap = torch.stack([(a - b).abs().max() for a, b in pairs]).max().item()
    assert gap < 1e-4, say(
        pl=f"{pl}: wagi różnią się o {gap:.4f} od kroków na całych oknach",
        en=f"{en}: the weights differ by {gap:.4f} from steps on whole windows",
    )


rng = random.Random(13)
torch.manual_seed(13)
even = [random_part([9, 9], 9) for _ in range(8)]
check_epoch("równe mikropartie", "equal micro-batches", even, k=4, limit=1e9)
check_epoch("reszta na końcu", "a remainder", even[:7], k=3, limit=1e9)
uneven = [random_part([rng.randint(1, 40), 3], 40) for _ in range(8)]
check_epoch(
    "różne liczby tokenów", "different numbers of tokens", uneven, k=3, limit=1e9
)
check_epoch("przycinanie", "clipping", uneven, k=3, limit=0.1)
uneven[4] = random_part([0, 0], 40)
check_epoch(
    "mikropartia z samym dopełnieniem",
    "a micro-batch of padding",
    uneven,
    k=3,
    limit=0.1,
)

# %% [markdown] lang="pl" exercise="last-window" role="hint"
# Mianownika nie musisz znać z góry: `backward` na sumie strat, a przed krokiem podziel `.grad`
# przez liczbę tokenów policzonych po drodze.

# %% [markdown] lang="en" exercise="last-window" role="hint"
# You need not know the denominator beforehand: call `backward` on the sum of losses, and before
# the step divide `.grad` by the number of tokens counted on the way.

# %% [markdown] lang="pl" exercise="last-window" role="hint"
# Funkcja `itertools.batched` jest dopiero w Pythonie 3.12, ale
# `list(itertools.islice(stream, k))` na iteratorze też daje kolejne okna, a na końcu pustą listę.

# %% [markdown] lang="en" exercise="last-window" role="hint"
# The function `itertools.batched` came only with Python 3.12, but
# `list(itertools.islice(stream, k))` on an iterator gives one window after another, too, and an
# empty list at the end.


# %% exercise="last-window" role="wrong" says="a remainder: two epochs of 7 micro-batches"
def epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    k: int,
    limit: float,
) -> None:
    count = 0
    for i, (x, y) in enumerate(parts, start=1):
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")
        loss.backward()
        count += int((y != PAD).sum())
        if i % k == 0:  # the remainder never gets here
            for p in model.parameters():
                assert p.grad is not None
                p.grad /= count
            clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            optimizer.zero_grad()
            count = 0


# %% exercise="last-window" role="wrong" says="different numbers of tokens: the weights differ"
def epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    k: int,
    limit: float,
) -> None:
    stream = iter(parts)
    while window := list(itertools.islice(stream, k)):
        for x, y in window:
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            (loss / len(window)).backward()  # the mean of means
        clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        optimizer.zero_grad()


# %% exercise="last-window" role="wrong" says="clipping: the weights differ"
def epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    k: int,
    limit: float,
) -> None:
    stream = iter(parts)
    while window := list(itertools.islice(stream, k)):
        count = sum(int((y != PAD).sum()) for _, y in window)
        for x, y in window:
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")
            (loss / count).backward()
            clip_grad_norm_(model.parameters(), limit)  # k times in a window
        optimizer.step()
        optimizer.zero_grad()


# %% exercise="last-window" role="wrong" says="the graphs of the whole window are alive at once"
def epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    k: int,
    limit: float,
) -> None:
    stream = iter(parts)
    while window := list(itertools.islice(stream, k)):
        optimizer.zero_grad()
        scores = torch.cat([model(x).flatten(0, 1) for x, _ in window])
        F.cross_entropy(scores, torch.cat([y.flatten() for _, y in window])).backward()
        clip_grad_norm_(model.parameters(), limit)
        optimizer.step()


# %% exercise="last-window" role="solution"
def epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Part],
    k: int,
    limit: float,
) -> None:
    stream = iter(parts)
    while window := list(itertools.islice(stream, k)):  # the last one may be shorter
        optimizer.zero_grad()
        with one_gradient(model) as add:
            for x, y in window:
                scores, labels = model(x).flatten(0, 1), y.flatten()
                add(F.cross_entropy(scores, labels, reduction="none"), labels != PAD)
        clip_grad_norm_(model.parameters(), limit)  # once, on the finished mean
        optimizer.step()


# %% [markdown] lang="pl" exercise="master-weights" role="prompt" belt="black" minutes=25
# ### Czarny: wagi w bfloat16, suma w float32
#
# Model ma zostać w `bfloat16`. Napisz klasę `Master`: metoda `add` robi przejście wstecz jednej
# mikropartii (dostaje **sumę** strat), a `step(count)` jeden krok `AdamW` z gradientem podzielonym
# przez `count`, po którym nic nie zostaje na następne okno. Gradienty sumuj w `float32`. Sam krok też
# może zginąć: w `bfloat16` 1 − 0,001 zaokrągla się do 1.

# %% [markdown] lang="en" exercise="master-weights" role="prompt" belt="black" minutes=25
# ### Black: weights in bfloat16, the sum in float32
#
# The model must stay in `bfloat16`. Write a class `Master`: the method `add` runs the backward pass
# of one micro-batch (it gets the **sum** of losses), and `step(count)` makes one step of `AdamW` with
# the gradient divided by `count`, after which nothing is left for the next window. Sum gradients in
# `float32`. The step itself may get lost, too: in `bfloat16` 1 − 0.001 rounds to 1.


# %% exercise="master-weights" role="starter"
class Master:
    def __init__(self, model: nn.Module, lr: float) -> None:
        self.weights = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=lr)

    def add(self, loss: Tensor) -> None:
        loss.backward()  # your code

    def step(self, count: int) -> None:
        for p in self.weights:
            assert p.grad is not None
            p.grad /= count
        self.optimizer.step()
        self.optimizer.zero_grad()


# %% exercise="master-weights" role="check"
class Dot(nn.Module):
    """The product of a row with a weight of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.weight.dtype) @ self.weight


def check_master(windows: list[list[Tensor]], lr: float) -> tuple[Tensor, Tensor]:
    """Return the weights of a model and of float32 copies with exact sums."""
    dot = Dot()
    master = Master(dot, lr)
    exact = dot.weight.detach().float().requires_grad_()
    adam = torch.optim.AdamW([exact], lr=lr)
    for parts in windows:
        for x in parts:
            master.add(dot(x).sum())
        master.step(len(parts))
        assert all(p.dtype == torch.bfloat16 for p in dot.parameters()), say(
            pl="model nie jest już w bfloat16", en="the model is no longer in bfloat16"
        )
        exact.grad = torch.stack([x.float().sum(0) for x in parts]).sum(0) / len(parts)
        adam.step()
    return dot.weight.detach().float(), exact.detach()


assert torch.tensor(1, dtype=torch.bfloat16) - 0.001 == 1  # as the task says
rng = random.Random(13)
torch.manual_seed(13)
late = [torch.ones(1, 4)] * 256 + [torch.full((1, 4), -0.375)] * 1024
late = [x.bfloat16() for x in late]
early = [torch.full((1, 4), 2**-10).bfloat16()]
now, due = check_master([early, late], lr=0.25)
assert (now - due).abs().max() < 2**-6, say(
    pl=f"po 256 gradientach +1 i 1024 gradientach -0.375 suma jest ujemna, więc waga ma "
    f"wzrosnąć z 0.75 do {due[0]:.2f}, a wynosi {now[0]:.2f}",
    en=f"after 256 gradients of +1 and 1024 of -0.375 the sum is negative, so a weight must "
    f"rise from 0.75 to {due[0]:.2f}, but it is {now[0]:.2f}",
)
steady = [[torch.full((1, 4), rng.uniform(0.5, 2)).bfloat16()] for _ in range(60)]
now, due = check_master(steady, lr=1e-3)
assert (now - due).abs().max() < 2**-7, say(
    pl=f"60 kroków po 0.001 ma zmienić wagę z 1 na {due[0]:.3f}, a wynosi {now[0]:.3f}",
    en=f"60 steps of 0.001 must change a weight from 1 to {due[0]:.3f}, but it is {now[0]:.3f}",
)
mixed_windows = [
    [torch.randn(3, 4).bfloat16() for _ in range(rng.randint(1, 5))] for _ in range(20)
]
now, due = check_master(mixed_windows, lr=0.03)
assert (now - due).abs().max() < 2**-5, say(
    pl=f"losowe okna: wagi {now.tolist()} zamiast {due.tolist()}; czy gradient jednego okna "
    "nie trafia do następnego i czy dzielisz go przez count?",
    en=f"random windows: weights {now.tolist()} instead of {due.tolist()}; does the gradient "
    "of a window get into the next one, and do you divide it by count?",
)

# %% [markdown] lang="pl" exercise="master-weights" role="hint"
# `AdamW` nie przyjmie parametru `bfloat16` z gradientem `float32`. Daj mu kopie parametrów w
# `float32` i to im ustaw `.grad`.

# %% [markdown] lang="en" exercise="master-weights" role="hint"
# `AdamW` does not accept a `bfloat16` parameter with a `float32` gradient. Give it copies of the
# parameters in `float32`, and set `.grad` on those.

# %% [markdown] lang="pl" exercise="master-weights" role="hint"
# Ustaw `grad_dtype` parametrów modelu. Po kroku przepisz kopie do modelu metodą `copy_`, ale nigdy
# w drugą stronę.

# %% [markdown] lang="en" exercise="master-weights" role="hint"
# Set `grad_dtype` of the model's parameters. After the step write the copies into the model by the
# method `copy_`, but never the other way round.


# %% exercise="master-weights" role="wrong" says="after 256 gradients of +1 and 1024"
class Master:
    def __init__(self, model: nn.Module, lr: float) -> None:
        self.weights = list(model.parameters())
        self.copies = [p.detach().float() for p in self.weights]
        self.optimizer = torch.optim.AdamW(self.copies, lr=lr)

    def add(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, count: int) -> None:
        for p, copy in zip(self.weights, self.copies, strict=True):
            assert p.grad is not None
            copy.grad = p.grad.float() / count  # too late: the sum was in bfloat16
            p.grad = None
        self.optimizer.step()
        for p, copy in zip(self.weights, self.copies, strict=True):
            p.detach().copy_(copy)


# %% exercise="master-weights" role="wrong" says="60 steps of 0.001 must change a weight"
class Master:
    def __init__(self, model: nn.Module, lr: float) -> None:
        self.weights = list(model.parameters())
        self.sums = [torch.zeros(p.shape) for p in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, lr=lr)

    def add(self, loss: Tensor) -> None:
        grads = torch.autograd.grad(loss, self.weights)
        for total, grad in zip(self.sums, grads, strict=True):
            total += grad

    def step(self, count: int) -> None:
        for p, total in zip(self.weights, self.sums, strict=True):
            p.grad = (total / count).bfloat16()  # exact, but the step rounds to nothing
            total.zero_()
        self.optimizer.step()


# %% exercise="master-weights" role="wrong" says="the model is no longer in bfloat16"
class Master:
    def __init__(self, model: nn.Module, lr: float) -> None:
        model.float()  # twice the memory
        self.weights = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=lr)

    def add(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, count: int) -> None:
        for p in self.weights:
            assert p.grad is not None
            p.grad /= count
        self.optimizer.step()
        self.optimizer.zero_grad()


# %% exercise="master-weights" role="solution"
class Master:
    def __init__(self, model: nn.Module, lr: float) -> None:
        self.weights = list(model.parameters())
        for p in self.weights:
            p.grad_dtype = torch.float32  # AccumulateGrad sums in this type
        self.copies = [p.detach().float() for p in self.weights]
        self.optimizer = torch.optim.AdamW(self.copies, lr=lr)

    def add(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, count: int) -> None:
        for p, copy in zip(self.weights, self.copies, strict=True):
            assert p.grad is not None
            copy.grad = p.grad / count
            p.grad = None
        self.optimizer.step()
        for p, copy in zip(self.weights, self.copies, strict=True):
            p.detach().copy_(copy)  # rounds only here; the copies keep small steps
