# %% [markdown] lang="pl"
# # Rozgłaszanie: krok zero zamiast kopii
#
# Rozgłaszanie (*broadcasting*) pozwala działać na tensorach o różnych kształtach. Z
# dwóch kształtów przewidzisz kształt wyniku, liczbę bajtów i gradient każdego
# argumentu, a pomyłkę w kształcie zatrzymasz, zanim zepsuje trening.
#
# ## Strata spada, wyjątku nie ma
#
# Sieć ma dla każdej próbki przewidzieć jedną liczbę. Tensor `features` ma kształt
# (256, 5), wartości docelowe `target` mają kształt (256,), a ostatnia warstwa sieci to
# `nn.Linear(32, 1)`. Stratę, średni kwadrat różnicy, piszemy sami.

# %% [markdown] lang="en"
# # Broadcasting: stride zero instead of a copy
#
# Broadcasting lets you combine tensors of different shapes. From two shapes you can
# predict the shape of the result, the number of bytes and the gradient of each operand,
# and you can stop a shape mistake before it ruins a training run.
#
# ## The loss falls, nothing is raised
#
# A network is to predict one number for each sample. The tensor `features` has shape
# (256, 5), the target values `target` have shape (256,), and the last layer of the
# network is `nn.Linear(32, 1)`. We write the loss, the mean squared difference,
# ourselves.

# %% fold=true
import itertools
import math
import random
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.broadcast_pictures import show_alignment
from snippets.figures import BLUE, GRAY, ORANGE, show_figure
from snippets.memory import CallCounter, MemoryMeter, saved_bytes
from snippets.memory_pictures import show_memory

torch.manual_seed(0)
torch.set_num_threads(1)


@dataclass(frozen=True)
class Recipe:
    """How both models of this lesson are trained."""

    samples: int = 256
    hidden: int = 32
    steps: int = 400
    rate: float = 0.03
    seed: int = 1


recipe = Recipe()
samples = recipe.samples
features = torch.randn(samples, 5)
target = 5 + 4 * features[:, 0] - 3 * features[:, 1] + 2 * torch.sin(features[:, 2])
assert (features.shape, target.shape) == ((256, 5), (256,))


def make_model() -> nn.Sequential:
    """Make a small network, each time with the same initial weights."""
    torch.manual_seed(recipe.seed)
    hidden = nn.Linear(5, recipe.hidden)
    return nn.Sequential(hidden, nn.Tanh(), nn.Linear(recipe.hidden, 1))


def descend(model: nn.Module, loss: Tensor) -> None:
    """Take one step of gradient descent."""
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(recipe.rate * parameter.grad)


# %%
model = make_model()
losses: list[float] = []
for _ in range(recipe.steps):
    prediction = model(features)
    loss = ((prediction - target) ** 2).mean()
    descend(model, loss)
    losses.append(loss.item())
first_loss, last_loss = losses[0], losses[-1]
print(f"{first_loss=:.2f} {last_loss=:.2f}")
assert last_loss < 0.6 * first_loss
assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())

# %% [markdown] lang="pl"
# Strata spadła z {{ first_loss:.2f }} do {{ last_loss:.2f }}, nie było wyjątku ani
# ostrzeżenia, a gradient każdego parametru ma właściwy kształt. Mimo to program jest
# błędny. Pytanie tej lekcji: **gdy dwa kształty się różnią, kiedy PyTorch zgłosi
# wyjątek, kiedy policzy co innego, niż chcesz, i dlaczego gradient tego nie zdradzi?**

# %% [markdown] lang="en"
# The loss fell from {{ first_loss:.2f }} to {{ last_loss:.2f }}, there was no exception
# and no warning, and the gradient of every parameter has the right shape. The program
# is wrong all the same. The question of this lesson: **when two shapes differ, when
# does PyTorch raise, when does it compute something other than you meant, and why does
# the gradient not give it away?**

# %% [markdown] lang="pl" predict="trained-model"
# Podajesz wytrenowanemu modelowi te same próbki. Co odpowiada?
#
# - [ ] Liczby bliskie wartościom docelowym, zawyżona jest tylko strata
#
#   Strata pomnożona przez stałą miałaby minimum w tym samym miejscu. Ta ma je gdzie
#   indziej i nie zejdzie poniżej wariancji wartości docelowych, czyli {{ variance:.2f }}. Poprawnie
#   policzona po tylu samo krokach wynosi {{ fixed_loss:.2f }}.
#
# - [ ] Wartości docelowe innych próbek, bo pary się przestawiły
#
#   Każda prognoza trafia do pary ze wszystkimi wartościami docelowymi naraz, więc żadna
#   obca wartość nie wygrywa. Najmniejszy średni kwadrat różnicy daje ich średnia.
#
# - [x] Prawie tę samą liczbę dla każdej próbki
#
#   Odejmowanie tworzy tabelę różnic wszystkich par, a jej średni kwadrat jest
#   najmniejszy, gdy każda prognoza równa się średniej wartości docelowych. Odchylenie
#   standardowe prognoz wynosi {{ broken_std:.2f }}, a wartości docelowych
#   {{ target_std:.2f }}.

# %% [markdown] lang="en" predict="trained-model"
# You feed the same samples to the trained model. What does it answer?
#
# - [ ] Numbers close to the target values, only the loss is inflated
#
#   A loss multiplied by a constant would have its minimum in the same place. This one
#   has it elsewhere and cannot fall below the variance of the target values,
#   {{ variance:.2f }}. Computed correctly, it is {{ fixed_loss:.2f }} after as many
#   steps.
#
# - [ ] The target values of other samples, because the pairs got mixed up
#
#   Every prediction is paired with all target values at once, so no other sample's
#   value wins. Their mean gives the smallest mean squared difference.
#
# - [x] Almost the same number for every sample
#
#   The subtraction makes a table of the differences of all pairs, and its mean square
#   is smallest when every prediction equals the mean of the target values. The standard
#   deviation of the predictions is {{ broken_std:.2f }}, that of the target values
#   {{ target_std:.2f }}.

# %% [markdown] lang="pl"
# ## Co odpowiada wytrenowany model
#
# Dla porównania trenujemy drugi model. Wagi początkowe ma te same, ale jego prognoza ma
# kształt (256,).

# %% [markdown] lang="en"
# ## What the trained model answers
#
# For comparison we train a second model. It has the same initial weights, but its
# prediction has shape (256,).


# %%
def r_squared(prediction: Tensor) -> float:
    """Compare with the mean as the only answer: 0 is no better, 1 is perfect."""
    error = (prediction - target).square().mean()  # both (256,)
    return round(float(1 - error / target.var(correction=0)), 3) + 0.0  # never -0.0


fixed = make_model()
for _ in range(recipe.steps):
    descend(fixed, ((fixed(features).squeeze(1) - target) ** 2).mean())

with torch.no_grad():
    broken_answers = model(features).squeeze(1)  # (256,)
    fixed_answers = fixed(features).squeeze(1)  # (256,)
fixed_loss = float((fixed_answers - target).square().mean())
broken_r2 = r_squared(broken_answers)
fixed_r2 = r_squared(fixed_answers)
broken_std = float(broken_answers.std())
target_std = float(target.std())
print(f"{broken_r2=:.3f} {fixed_r2=:.3f} {broken_std=:.2f} {target_std=:.2f}")
assert abs(broken_r2) < 0.01
assert fixed_r2 > 0.95
assert broken_std < 0.1 * target_std

# %% fold=true
shown = 100
few = target[:shown]
fig, axis = plt.subplots(figsize=(7.2, 2.9))
axis.scatter(few, fixed_answers[:shown], s=9, color=BLUE, label="prediction (256,)")
axis.scatter(
    few, broken_answers[:shown], s=9, color=ORANGE, label="prediction (256, 1)"
)
ends = [float(few.min()), float(few.max())]
axis.plot(ends, ends, color=GRAY, lw=1, ls="--")
axis.set(xlabel="target value", ylabel="answer of the model")
axis.legend(loc="upper left")
show_figure(
    fig,
    alt_pl="Punkty: w poziomie wartość docelowa, w pionie odpowiedź modelu. Punkty "
    "modelu z prognozą (256,) leżą na przekątnej, punkty modelu z prognozą (256, 1) "
    "tworzą poziomą linię.",
    alt_en="Points: the target value across, the model's answer up. The points of the "
    "model with prediction (256,) lie on the diagonal, those of the model with "
    "prediction (256, 1) form a horizontal line.",
    pl={
        "prediction (256,)": "prognoza (256,)",
        "prediction (256, 1)": "prognoza (256, 1)",
        "target value": "wartość docelowa",
        "answer of the model": "odpowiedź modelu",
    },
)

# %% [markdown] lang="pl"
# Na rysunku jest {{ shown }} próbek. Pozioma linia to model z pułapki: na każdą próbkę
# odpowiada prawie tak samo. Jego współczynnik determinacji $R^2$ wynosi
# {{ broken_r2:.3f }}, więc nie jest lepszy od samej średniej. Drugi model osiąga
# {{ fixed_r2:.3f }}. Zawiniło jedno odejmowanie.
#
# ## Dwa opisy, jedna siatka
#
# Zmniejszmy je: trzy prognozy w kolumnie i trzy wartości docelowe w wierszu. Funkcja
# `broadcast_tensors` pokazuje, co czyta odejmowanie.

# %% [markdown] lang="en"
# The figure shows {{ shown }} samples. The horizontal line is the model from the trap: it
# gives almost the same answer to every sample. Its coefficient of determination $R^2$ is
# {{ broken_r2:.3f }}, so it is no better than the mean alone. The second model reaches
# {{ fixed_r2:.3f }}. A single subtraction is to blame.
#
# ## Two descriptions, one grid
#
# Let's make it smaller: three predictions in a column and three target values in a row.
# The function `broadcast_tensors` shows what the subtraction reads.

# %%
column = torch.tensor([[10.0], [20.0], [30.0]])  # three predictions, (3, 1)
row = torch.tensor([1.0, 2.0, 4.0])  # three target values, (3,)
wide_column, wide_row = torch.broadcast_tensors(column, row)
difference = column - row
print(wide_column.stride(), wide_row.stride(), tuple(difference.shape))
assert (wide_column.stride(), wide_row.stride()) == ((1, 0), (0, 1))
assert wide_column.data_ptr() == column.data_ptr()
assert wide_row.data_ptr() == row.data_ptr()
assert torch.equal(difference, wide_column - wide_row)
assert difference.untyped_storage().nbytes() == 9 * 4
assert torch.equal(difference.diagonal(), column.squeeze(1) - row)

# %% fold=true
show_memory(
    {"wide_column": wide_column, "wide_row": wide_row, "column - row": difference},
    alt_pl="Trzy siatki 3 na 3. Dwie pierwsze czytają magazyny po trzy komórki, każdą "
    "komórkę trzy razy: wide_column powtarza liczby w poziomie, wide_row w pionie. Wynik "
    "ma dziewięć różnych liczb w dziewięciu komórkach.",
    alt_en="Three grids, 3 by 3. The first two read storages of three cells, each cell "
    "three times: wide_column repeats numbers across, wide_row repeats them down. The "
    "result has nine different numbers in nine cells.",
)

# %% [markdown] lang="pl"
# Siatka `wide_column` powtarza liczby w poziomie, `wide_row` w pionie, a każda komórka
# ich magazynów (*storage*) jest czytana trzy razy (stąd ×3). Argumentów nikt nie
# skopiował: powtarza je **krok 0** (*stride*), czyli „następny element leży w tej samej
# komórce”. Wynik ma dziewięć komórek, a tylko jego przekątna to różnice, o które nam
# chodziło.
#
# Stąd odpowiedź modelu. Średnia z całej tabeli rozkłada się na dwa składniki:
#
# $$\frac{1}{N^2}\sum_{i,j}(p_i-y_j)^2 = \frac{1}{N}\sum_i(p_i-\bar y)^2 +
# \operatorname{Var}(y).$$
#
# Drugi nie zależy od modelu, a pierwszy znika, gdy każda prognoza równa się średniej
# $\bar y$. Sprawdźmy to na wytrenowanym modelu, razem z gradientem względem prognoz.

# %% [markdown] lang="en"
# The grid `wide_column` repeats numbers across, `wide_row` repeats them down, and each
# cell of their storages is read three times (hence ×3). Nobody copied the operands:
# they are repeated by **stride 0**, which means “the next element lies in the same
# cell”. The result has nine cells, and only its diagonal holds the differences we
# meant.
#
# That explains the model's answer. The mean over the whole table splits into two terms:
#
# $$\frac{1}{N^2}\sum_{i,j}(p_i-y_j)^2 = \frac{1}{N}\sum_i(p_i-\bar y)^2 +
# \operatorname{Var}(y).$$
#
# The second does not depend on the model, and the first vanishes when every prediction
# equals the mean $\bar y$. Let's check this on the trained model, together with the
# gradient with respect to the predictions.

# %%
output = model(features).detach().requires_grad_()  # (256, 1)
table = output - target  # (256, 256)
table_loss = table.square().mean()
table_loss.backward()
pairs = table.numel()
mean = target.mean()
variance = float(target.var(correction=0))
to_mean = output.detach() - mean  # (256, 1)
print(f"{pairs=} {table_loss.item()=:.2f} {variance=:.2f}")
assert pairs == samples**2
torch.testing.assert_close(table_loss.detach(), to_mean.square().mean() + variance)
assert 0 <= table_loss.item() - variance < 0.01 * variance
torch.testing.assert_close(output.grad, 2 * to_mean / samples)

# %% [markdown] lang="pl"
# Strata porównała {{ pairs }} par zamiast {{ samples }}. Gradient prognozy $p_i$ to
# $2(p_i - \bar y)/N$, więc trening ciągnie ją do średniej, a tensor gradientów ma
# właściwy kształt, (256, 1).
#
# ## Reguła: od prawej do lewej
#
# O tym, czy dwa kształty do siebie pasują, decyduje jedna reguła:
#
# 1. Wyrównaj kształty do prawej. Brakujący wymiar ma rozmiar 1.
# 2. W każdym wymiarze rozmiary muszą być równe albo jeden z nich musi wynosić 1.
# 3. Rozmiar 1 ustępuje drugiemu, a tensor jest w tym wymiarze czytany z krokiem 0.

# %% [markdown] lang="en"
# The loss compared {{ pairs }} pairs instead of {{ samples }}. The gradient of a
# prediction $p_i$ is $2(p_i - \bar y)/N$, so training pulls it towards the mean, while
# the tensor of gradients has the right shape, (256, 1).
#
# ## The rule: from right to left
#
# One rule decides whether two shapes fit:
#
# 1. Align the shapes on the right. A missing dimension has size 1.
# 2. In each dimension the sizes must be equal, or one of them must be 1.
# 3. Size 1 gives way to the other, and the tensor is read with stride 0 there.

# %% fold=true
drawn = [
    (torch.zeros(4, 1), torch.zeros(3)),
    (torch.zeros(2, 4, 3), torch.zeros(4, 1)),
    (torch.zeros(4, 3), torch.zeros(4)),
]
show_alignment(
    drawn,
    alt_pl="Trzy pary kształtów wyrównane do prawej. (4, 1) i (3,) dają (4, 3). "
    "(2, 4, 3) i (4, 1) dają (2, 4, 3). (4, 3) i (4,) nie pasują: w ostatnim wymiarze "
    "stoją naprzeciw siebie 3 i 4.",
    alt_en="Three pairs of shapes aligned on the right. (4, 1) and (3,) give (4, 3). "
    "(2, 4, 3) and (4, 1) give (2, 4, 3). (4, 3) and (4,) do not fit: in the last "
    "dimension 3 and 4 face each other.",
)
assert [(a + b).shape for a, b in drawn[:2]] == [(4, 3), (2, 4, 3)]
assert torch.broadcast_tensors(*drawn[0])[0].stride() == (1, 0)
assert torch.broadcast_tensors(*drawn[1])[1].stride() == (0, 1, 0)

# %% [markdown] lang="pl"
# Kreskowanie oznacza krok 0, a przerywana ramka wymiar, którego tensor nie ma. Trzecia
# para nie pasuje, choć oba tensory mają wymiar o rozmiarze 4: reguła nie szuka
# równych wymiarów, tylko zestawia je od prawej.

# %% [markdown] lang="en"
# Hatching marks stride 0, and a dashed frame a dimension that the tensor does not have.
# The third pair does not fit although both tensors have a dimension of size 4: the rule
# does not look for equal dimensions, it only pairs them from the right.

# %% raises="RuntimeError: The size of tensor a (4) must match the size of tensor b (3) at non-singleton dimension 1"
torch.zeros(4) + torch.zeros(4, 3)

# %% [markdown] lang="pl"
# Tensor `a` ma tylko wymiar 0, a komunikat mówi o wymiarze 1: liczy go w kształcie
# wyniku.
#
# ## Kto sumuje gradient
#
# W przejściu wstecz (*backward*) trzeba rozgłaszanie cofnąć: liczba użyta trzy razy
# dostaje sumę trzech gradientów. Weźmy `column` o kształcie (4, 1) i `row` o kształcie
# (3,).

# %% [markdown] lang="en"
# Tensor `a` has only a dimension 0, and the message speaks of dimension 1: it counts in
# the shape of the result.
#
# ## Who sums the gradient
#
# The backward pass has to undo broadcasting: a number that was used three times gets
# the sum of three gradients. Take a `column` of shape (4, 1) and a `row` of shape (3,).

# %% [markdown] lang="pl" predict="raw-gradients"
# Dodawanie daje `total = column + row`, tensor o kształcie (4, 3). Jego węzeł grafu
# obliczeniowego, `total.grad_fn`, można wywołać jak funkcję. Jakie kształty będą miały
# dwa tensory, które zwróci `total.grad_fn(torch.ones(4, 3))`?
#
# - [ ] (4, 1) i (3,)
#
#   Tak wyglądają gradienty argumentów po całym przejściu wstecz. Węzeł dodawania
#   jeszcze ich nie sumuje: jego wzór tylko przepuszcza gradient dalej.
#
# - [x] (4, 3) i (4, 3)
#
#   Wzór na pochodną dodawania nic nie wie o rozgłaszaniu: dla obu argumentów zwraca to,
#   co dostał. Sumuje dopiero silnik autogradu.
#
# - [ ] Żadne, będzie wyjątek
#
#   Gradient ma kształt wyniku, więc węzeł go przyjmuje. Kształtów argumentów wzór na
#   pochodną w ogóle nie sprawdza.

# %% [markdown] lang="en" predict="raw-gradients"
# The addition gives `total = column + row` of shape (4, 3). Its node in the
# computational graph, `total.grad_fn`, can be called like a function. What are the
# shapes of the two tensors that `total.grad_fn(torch.ones(4, 3))` returns?
#
# - [ ] (4, 1) and (3,)
#
#   That is what the operands' gradients look like after the whole backward pass. The
#   addition node does not sum them yet: its formula only passes the gradient on.
#
# - [x] (4, 3) and (4, 3)
#
#   The derivative formula of addition knows nothing about broadcasting: for both
#   operands it returns what it got. It is the autograd engine that sums.
#
# - [ ] None, there is an exception
#
#   The gradient has the shape of the result, so the node accepts it. The derivative
#   formula does not check the operands' shapes at all.

# %%
column = torch.zeros(4, 1, requires_grad=True)
row = torch.zeros(3, requires_grad=True)
total = column + row  # (4, 3)
node: Any = total.grad_fn
from_node = [tuple(grad.shape) for grad in node(torch.ones(4, 3))]
from_engine: list[tuple[int, ...]] = []


def look(grads: Sequence[Tensor], _: Sequence[Tensor]) -> None:
    """Note the shapes that leave a node when the engine runs it."""
    from_engine.extend(tuple(grad.shape) for grad in grads)


node.register_hook(look)
total.sum().backward()
print(f"{node.name()} {from_node=} {from_engine=}")
assert from_node == [(4, 3), (4, 3)]
assert from_engine == [(4, 1), (3,)]
assert column.grad is not None and row.grad is not None
assert (column.grad == 3).all() and (row.grad == 4).all()

# %% [markdown] lang="pl"
# Ten sam węzeł, wywołany przez silnik, oddał gradienty już zsumowane. Silnik zna kształt
# każdego argumentu (klasa `InputMetadata`). Gdy gradient ma inny, ale taki, do którego
# argument da się rozgłosić, funkcja `validate_outputs` sumuje go funkcją `sum_to`. Robi
# tak po każdym węźle. Najczęstszy skutek masz w niemal każdej sieci: gradient
# wektora `bias` to suma po partii (*batch*).

# %% [markdown] lang="en"
# The same node, called by the engine, returned gradients that were already summed. The
# engine knows the shape of each operand (the class `InputMetadata`). If the gradient
# has another shape, but one that the operand can be broadcast to, the function
# `validate_outputs` sums it with `sum_to`. It does so after every node. The most common
# effect is in nearly every network: the gradient of a `bias` vector is a sum over the
# batch.

# %%
layer = nn.Linear(5, 2)
scores = layer(features)  # (256, 2)
upstream = torch.randn(samples, 2)  # d loss / d scores
affine: Any = scores.grad_fn
bias_from_node = affine(upstream)[0]
scores.backward(upstream)
print(affine.name(), tuple(bias_from_node.shape), tuple(layer.bias.shape))
assert torch.equal(bias_from_node, upstream)
torch.testing.assert_close(layer.bias.grad, upstream.sum(0))

leaves = [after.name() for after, _ in node.next_functions]
explicit: Any = column.expand(4, 3).grad_fn
print(leaves, explicit.name(), tuple(explicit(torch.ones(4, 3)).shape))
assert [name.split("::")[-1] for name in leaves] == ["AccumulateGrad"] * 2
assert explicit(torch.ones(4, 3)).shape == (4, 1)

# %% [markdown] lang="pl"
# Rozgłaszanie nie zostawia w grafie węzła: za dodawaniem stoją od razu liście. Dopiero
# jawne `expand` ma własny węzeł i ten sumuje sam. Dlatego gradient nie zdradził błędu z
# początku lekcji: silnik sprowadził gradient prognozy do kształtu (256, 1), nie wiedząc,
# że tabela powstała przez pomyłkę.
#
# ## Rozgłaszanie i jego odwrócenie w Pythonie
#
# Trzy małe funkcje: kształt wyniku, kroki argumentu i sumowanie gradientu. Trzecia jest
# odbiciem drugiej: gdzie krok wynosi 0, tam gradient się sumuje.

# %% [markdown] lang="en"
# Broadcasting leaves no node in the graph: right behind the addition are the leaves.
# Only an explicit `expand` has a node of its own, which does the sum itself. That is
# why the gradient did not give away the bug we started with: the engine brought the
# gradient of the prediction back to shape (256, 1) without knowing that the table was a
# mistake.
#
# ## Broadcasting and its reverse in Python
#
# Three small functions: the shape of the result, the strides of an operand, and the sum
# of the gradient. The third mirrors the second: where the stride is 0, the gradient is
# summed.


# %%
def broadcast_shape(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """Find the shape of an elementwise result."""
    dims = max(len(a), len(b))
    wide_a = (1,) * (dims - len(a)) + tuple(a)
    wide_b = (1,) * (dims - len(b)) + tuple(b)
    if any(m != n and 1 not in (m, n) for m, n in zip(wide_a, wide_b, strict=True)):
        raise ValueError(f"{tuple(a)} and {tuple(b)} do not fit")
    return tuple(n if m == 1 else m for m, n in zip(wide_a, wide_b, strict=True))


def stretched(
    shape: Sequence[int], stride: Sequence[int], result: Sequence[int]
) -> tuple[int, ...]:
    """Find the strides with which an operand is read at the shape of the result."""
    missing = len(result) - len(shape)
    own = (0 if n == 1 else step for n, step in zip(shape, stride, strict=True))
    return (0,) * missing + tuple(own)


def unbroadcast(grad: Tensor, shape: Sequence[int]) -> Tensor:
    """Sum a gradient over the dimensions that broadcasting has stretched."""
    while grad.dim() > len(shape):
        grad = grad.sum(0)
    for dim, size in enumerate(shape):
        if size == 1:
            grad = grad.sum(dim, keepdim=True)
    return grad


print(broadcast_shape((256, 1), (256,)), stretched((256,), (1,), (256, 256)))
assert broadcast_shape((256, 1), (256,)) == (256, 256)
assert stretched((256, 1), (1, 1), (256, 256)) == (1, 0)
assert unbroadcast(torch.ones(256, 256), (256, 1)).shape == (256, 1)

# %% [markdown] lang="pl"
# Sprawdźmy je na losowych parach kształtów, także z rozmiarem 0: argumenty mnożenia
# czytamy z naszymi krokami, a gradienty liczymy bez autogradu.

# %% [markdown] lang="en"
# Let's check them on random pairs of shapes, size 0 included: we read the operands of a
# multiplication with our strides and compute the gradients without autograd.


# %%
def random_operand(rng: random.Random) -> Tensor:
    """Make whole numbers in a random shape, so that sums are exact."""
    shape = [rng.choice((0, 1, 1, 2, 3, 4)) for _ in range(rng.randint(0, 3))]
    return torch.randint(-9, 10, shape).double().requires_grad_()


def agrees(a: Tensor, b: Tensor) -> bool:
    """Compare a broadcast multiplication and its gradients with PyTorch."""
    product = a * b
    shape = broadcast_shape(a.shape, b.shape)
    steps_a = stretched(a.shape, a.stride(), shape)
    steps_b = stretched(b.shape, b.stride(), shape)
    wide_a = a.detach().as_strided(shape, steps_a)
    wide_b = b.detach().as_strided(shape, steps_b)
    upstream = torch.randint(-9, 10, shape).double()
    grads = torch.autograd.grad(product, (a, b), upstream)
    return (
        torch.equal(product, wide_a * wide_b)
        and torch.equal(grads[0], unbroadcast(upstream * wide_b, a.shape))
        and torch.equal(grads[1], unbroadcast(upstream * wide_a, b.shape))
    )


def succeeds(action: Callable[[], object]) -> bool:
    """Tell whether an action ends without an exception about shapes."""
    try:
        action()
    except (RuntimeError, ValueError):
        return False
    return True


tried = 2000
rng = random.Random(0)
cases = [(random_operand(rng), random_operand(rng)) for _ in range(tried)]
legal = [(a, b) for a, b in cases if succeeds(partial(torch.mul, a, b))]
ours = [c for c in cases if succeeds(partial(broadcast_shape, c[0].shape, c[1].shape))]
agreed = sum(agrees(a, b) for a, b in legal)
fitting = len(legal)
print(f"{agreed=} of {fitting=}, {tried - fitting} pairs do not fit")
assert [id(a) for a, _ in ours] == [id(a) for a, _ in legal]
assert agreed == fitting
assert 0.2 * tried < fitting < 0.8 * tried

# %% [markdown] lang="pl"
# Spośród {{ tried }} par pasuje {{ fitting }}, te same u nas i w PyTorchu. W każdej z
# nich wynik i oba gradienty są dokładnie równe.
#
# ## Kto płaci za pamięć
#
# Model kosztu: argument nie płaci nigdy, bo krok 0 nie zajmuje pamięci, a wynik płaci
# zawsze, za pełny kształt. Dodanie wiersza do macierzy 1000 × 1000 liczb `float32`
# powinno więc zająć tyle, ile sam wynik, a powtórzenie wiersza metodą `repeat` – dwa
# razy tyle.

# %% [markdown] lang="en"
# Of {{ tried }} pairs {{ fitting }} fit, the same ones for us and for PyTorch. In each
# of them the result and both gradients are exactly equal.
#
# ## Who pays for the memory
#
# The cost model: an operand never pays, because stride 0 takes no memory, and the
# result always pays, for the full shape. Adding a row to a 1000 × 1000 matrix of
# `float32` numbers should therefore take as much as the result alone, and repeating the
# row with `repeat` twice as much.


# %%
def peak_bytes(action: Callable[[], object]) -> int:
    """Measure the most bytes of new tensors that an action keeps at one time."""
    with MemoryMeter() as meter:
        action()
    return int(meter.peak)


matrix, line = torch.zeros(1000, 1000), torch.zeros(1000)
stride_zero = peak_bytes(lambda: matrix + line)
copied = peak_bytes(lambda: matrix + line.repeat(1000, 1))
print(f"{stride_zero=} {copied=}")
assert stride_zero == matrix.nbytes
assert copied == 2 * stride_zero

# %% [markdown] lang="pl"
# Zgadza się. Drożej wychodzi tam, gdzie rosną oba argumenty. Odległości między
# wszystkimi wierszami dwóch macierzy o kształtach (N, 32) i (M, 32) pisze się zwykle
# tak, jak w funkcji `distances`. Żyją wtedy naraz dwie tabele N × M × 32, różnica i jej
# kwadrat, a funkcja `torch.cdist` zapisuje tylko wynik, N × M. Przewidywany iloraz
# szczytów: 2 · 32 = 64.

# %% [markdown] lang="en"
# It holds. It gets more expensive where both operands grow. The distances between all
# rows of two matrices of shapes (N, 32) and (M, 32) are usually written as in the
# function `distances`. Two tables of N × M × 32 are then alive at once, the difference
# and its square, while the function `torch.cdist` writes only the result, N × M. The
# predicted ratio of the peaks: 2 · 32 = 64.


# %%
def distances(a: Tensor, b: Tensor) -> Tensor:
    """Compute distances between all rows: (N, D), (M, D) -> (N, M)."""
    return ((a[:, None] - b) ** 2).sum(-1).sqrt()


a, b = torch.randn(400, 32), torch.randn(300, 32)
wide_peak = peak_bytes(lambda: distances(a, b))
cdist_peak = peak_bytes(lambda: torch.cdist(a, b))
peak_ratio = wide_peak // cdist_peak
with saved_bytes() as kept:
    distances(a.requires_grad_(), b)
wide_saved = kept.total
with saved_bytes() as kept:
    torch.cdist(a, b)
cdist_saved = kept.total
a.requires_grad_(False)
print(f"{wide_peak=} {cdist_peak=} {peak_ratio=} {wide_saved=} {cdist_saved=}")
assert wide_peak == 2 * 32 * cdist_peak == 2 * 400 * 300 * 32 * 4
assert wide_saved > 25 * cdist_saved
torch.testing.assert_close(distances(a, b), torch.cdist(a, b), atol=1e-3, rtol=1e-3)

itself = float(torch.cdist(a, a).diagonal().max())
print(f"{itself=:.4f}, exact: {float(distances(a, a).diagonal().max())}")
assert itself > 0
assert distances(a, a).diagonal().max() == 0
no_products = torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist")
assert no_products.diagonal().max() == 0

# %% fold=true
counts = [25, 50, 100, 200, 400]
points = torch.randn(max(counts), 32)
inputs = [(points[:n], points[:n]) for n in counts]
wide_line = [peak_bytes(partial(distances, *both)) for both in inputs]
cdist_line = [peak_bytes(partial(torch.cdist, *both)) for both in inputs]
fig, axis = plt.subplots(figsize=(7.2, 2.8))
model_wide = [2 * n * n * 32 * 4 for n in counts]
axis.plot(counts, model_wide, color=GRAY, ls="--", lw=1, label="predicted")
axis.plot(counts, [n * n * 4 for n in counts], color=GRAY, ls="--", lw=1)
axis.plot(counts, wide_line, "o", color=ORANGE, label="distances")
axis.plot(counts, cdist_line, "s", color=BLUE, label="torch.cdist")
axis.set(xscale="log", yscale="log", xlabel="rows in each matrix", ylabel="peak, bytes")
axis.set_xticks(counts, [str(n) for n in counts])
axis.set_yticks([1e4, 1e5, 1e6, 1e7], ["10⁴", "10⁵", "10⁶", "10⁷"])
axis.minorticks_off()
axis.legend()
show_figure(
    fig,
    alt_pl="Wykres w skali logarytmicznej: szczyt pamięci dla 25 do 400 wierszy. Punkty "
    "obu funkcji leżą na równoległych liniach przewidywania, punkty distances zawsze tak "
    "samo wysoko nad punktami torch.cdist.",
    alt_en="Log-log chart: peak memory for 25 to 400 rows. The points of both functions "
    "lie on the parallel predicted lines, those of distances always equally far above "
    "those of torch.cdist.",
    pl={
        "predicted": "przewidywanie",
        "rows in each matrix": "liczba wierszy w każdej macierzy",
        "peak, bytes": "szczyt, bajty",
    },
    same=("distances", "torch.cdist"),
)
assert wide_line == model_wide
assert [high // low for high, low in zip(wide_line, cdist_line, strict=True)] == [
    64
] * 5

# %% [markdown] lang="pl"
# Punkty pomiaru leżą dokładnie na liniach modelu, a iloraz wynosi {{ peak_ratio }} dla
# każdej liczby wierszy. Licznik widzi tylko tensory, bez buforów roboczych wewnątrz
# `torch.cdist`. W treningu różnica też jest duża: dla przejścia wstecz `distances`
# zapamiętuje {{ wide_saved }} B, a `torch.cdist` {{ cdist_saved }} B. Oszczędność ma
# cenę: `torch.cdist` mnoży tu macierze i traci dokładność. Największa odległość wiersza
# od niego samego wyszła {{ itself:.4f }} zamiast zera.
#
# ## Co się psuje i jak to zauważyć
#
# Wyjątek zobaczysz, gdy rozmiary nie pasują albo gdy operacja w miejscu (*in-place*)
# musiałaby powiększyć tensor, do którego pisze:

# %% [markdown] lang="en"
# The measured points lie exactly on the lines of the model, and the ratio is
# {{ peak_ratio }} for every number of rows. The meter sees only tensors, not the
# scratch buffers inside `torch.cdist`. In training the difference is large too: for the
# backward pass `distances` saves {{ wide_saved }} B and `torch.cdist`
# {{ cdist_saved }} B. The saving has a price: `torch.cdist` multiplies matrices here
# and loses accuracy. The largest distance of a row from itself came out as
# {{ itself:.4f }} instead of zero.
#
# ## What breaks and how to notice
#
# You get an exception when the sizes do not fit, or when an in-place operation would
# have to enlarge the tensor it writes to:

# %% raises="RuntimeError: output with shape [3] doesn't match the broadcast shape [2, 3]"
torch.zeros(3).add_(torch.zeros(2, 3))

# %% [markdown] lang="pl"
# Reszta psuje się ciszej. Sprawdźmy, które funkcje straty zauważą prognozę (6, 1) i
# wartości docelowe (6,).

# %% [markdown] lang="en"
# The rest breaks more quietly. Let's see which loss functions notice a prediction of
# shape (6, 1) and target values of shape (6,).

# %%
Loss = Callable[[Tensor, Tensor], Tensor]
suspects: dict[str, Loss] = {
    "mse_loss": F.mse_loss,
    "l1_loss": F.l1_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "huber_loss": F.huber_loss,
    "binary_cross_entropy": F.binary_cross_entropy,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    "gaussian_nll_loss": lambda p, y: F.gaussian_nll_loss(p, y, torch.ones_like(p)),
    "poisson_nll_loss": F.poisson_nll_loss,
    "kl_div": partial(F.kl_div, reduction="batchmean"),
    "hand-written": lambda p, y: ((p - y) ** 2).mean(),
}


def reaction(loss_of: Loss) -> str:
    """Call a loss three times on shapes that do not match, and say what it did."""
    p, y = torch.rand(6, 1), torch.rand(6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            for _ in range(3):
                loss_of(p, y)
        except ValueError:
            return "exception"
    assert len(caught) <= 1  # three calls on one line, one warning
    return "warning" if caught else "silence"


reactions = {name: reaction(loss_of) for name, loss_of in suspects.items()}
tally = Counter(reactions.values())
warned, refused, silent = tally["warning"], tally["exception"], tally["silence"]
for name, found in reactions.items():
    print(f"{name:33} {found}")
assert (warned, refused, silent) == (4, 2, 4)
assert reactions["gaussian_nll_loss"] == reactions["hand-written"] == "silence"

# %% [markdown] lang="pl"
# Ostrzegają {{ warned }} funkcje, wyjątek zgłaszają {{ refused }}, milczą {{ silent }}. Na
# ostrzeżeniu też trudno polegać: domyślnie Python pokazuje je raz dla danego wiersza
# programu, więc ginie na początku dziennika treningu.
#
# Drugi cichy przypadek to przypadkowa zgodność rozmiarów. Dzielenie przez sumy wierszy
# bez `keepdim=True` zgłasza wyjątek dla macierzy prostokątnej, a dla kwadratowej po
# cichu dzieli kolumny. Trzeci to zapis do tensora z krokiem 0: jedno przypisanie
# zmienia cały wiersz.

# %% [markdown] lang="en"
# Of these functions {{ warned }} warn, {{ refused }} raise, {{ silent }} stay silent. A
# warning is not much to rely on either: by default Python shows it once for a given
# line of a program, so it is lost at the top of the training log.
#
# The second silent case is sizes that match by coincidence. Dividing by the sums of
# rows without `keepdim=True` raises for a rectangular matrix, and silently divides
# columns if the matrix is square. The third is a write to a tensor with stride 0: a
# single assignment changes a whole row.

# %%
square = torch.tensor([[1.0, 3.0], [4.0, 4.0]])
wrong_sums = (square / square.sum(1)).sum(1).tolist()
right_sums = (square / square.sum(1, keepdim=True)).sum(1).tolist()
print(f"{wrong_sums=} {right_sums=}")
assert not succeeds(lambda: torch.ones(2, 3) / torch.ones(2, 3).sum(1))
assert wrong_sums == [0.625, 1.5]
assert right_sums == [1.0, 1.0]

wide = torch.zeros(3, 1).expand(3, 4)
wide[0, 0] = 5  # no exception, no warning
print(wide[0].tolist())
assert wide[0].tolist() == [5.0] * 4

# %% [markdown] lang="pl"
# Strażnik (*guard*) do wklejenia: wewnątrz bloku `NoBroadcast` każda operacja elementowa
# (*elementwise*), czyli taka, która łączy elementy o tych samych indeksach, wymaga
# równych kształtów. Liczby i tensory bez wymiarów są dozwolone. PyTorch sam oznacza
# takie operacje etykietą `torch.Tag.pointwise`. Strażnik odrzuca też `expand`, bo tą
# drogą rozgłasza argumenty `F.mse_loss`.

# %% [markdown] lang="en"
# A guard to paste: inside a `NoBroadcast` block every elementwise operation, that is,
# one that combines elements with the same indices, requires equal shapes. Numbers and
# tensors without dimensions are allowed. PyTorch itself marks such operations with the
# tag `torch.Tag.pointwise`. The guard refuses `expand` too, because that is how
# `F.mse_loss` broadcasts its arguments.


# %%
class NoBroadcast(TorchDispatchMode):
    """Refuse elementwise operations on tensors of different shapes."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Check the shapes, then run the operation."""
        kwargs = kwargs or {}
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        shapes = {tuple(x.shape) for x in tensors if x.dim()}
        expands = func is torch.ops.aten.expand.default
        if expands:
            shapes.add(tuple(args[1]))
        if len(shapes) > 1 and (expands or torch.Tag.pointwise in func.tags):
            raise ValueError(f"{func}: shapes {sorted(shapes)} differ")
        output: object = func(*args, **kwargs)
        return output


with NoBroadcast():
    same = (prediction.squeeze(1) - target).square().mean()
assert torch.equal(same, (prediction.squeeze(1) - target).square().mean())


# %%
def guarded(loss_of: Loss, p: Tensor, y: Tensor) -> Tensor:
    with NoBroadcast():
        return loss_of(p, y)


more: dict[str, Loss] = {
    "reversed": lambda p, y: (y - p).abs().sum(),
    "where": lambda p, y: torch.where(y > 0.5, p, 0.0).mean(),
    "maximum": lambda p, y: torch.maximum(p, y).mean(),
    "lerp": lambda p, y: torch.lerp(p, y, 0.5).mean(),
    "masked_fill": lambda p, y: p.masked_fill(y > 0.5, 0.0).mean(),
    "penalty": lambda p, y: ((p - y) ** 2).mean() + 0.1 * p.square().sum(),
}
quiet = {n: f for n, f in suspects.items() if reactions[n] != "exception"}
variants = quiet | more
p, y = torch.rand(6, 1), torch.rand(6)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    blind = [n for n, f in variants.items() if succeeds(partial(guarded, f, p, y))]
flat = p.squeeze(1)  # (6,)
fine = [n for n, f in variants.items() if succeeds(partial(guarded, f, flat, y))]
print(f"{len(variants)} variants, missed: {blind}, passed when equal: {len(fine)}")
assert not blind
assert len(fine) == len(variants)
assert all(torch.equal(guarded(f, flat, y), f(flat, y)) for f in variants.values())
assert not succeeds(partial(guarded, suspects["hand-written"], p.T, y))  # (1, 6)
assert (flat[:1].squeeze().dim(), flat[:1, None].squeeze(1).dim()) == (0, 1)
assert succeeds(partial(guarded, torch.dist, p, y))  # not pointwise

# %% [markdown] lang="pl"
# Strażnik zatrzymuje wszystkie warianty, a przy równych kształtach nie zmienia wyniku.
# Obejmij nim samą stratę, bo w sieci rozgłaszanie bywa celowe. Używaj go w testach, bo
# każda operacja w bloku przechodzi przez Pythona. Nie zatrzyma funkcji bez tej etykiety,
# np. `torch.dist`. Sam błąd popraw u źródła: napisz `squeeze(1)`, a nie `squeeze()`,
# które z partii o jednej próbce usuwa także jej wymiar.
#
# > [!NOTE]
# > Obliczenia w tej lekcji wykonuje procesor. Na GPU (tu niezmierzone) reguła i sumowanie gradientów są
# > te same, a tabela N × M × D to częsty powód wyczerpania pamięci.
#
# Gdzie to leży w źródłach PyTorcha:
#
# - kształt wyniku, funkcja `infer_size`:
#   [`aten/src/ATen/ExpandUtils.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ExpandUtils.cpp)
# - krok 0 w operacji elementowej, metoda `TensorIteratorBase::compute_strides`:
#   [`aten/src/ATen/TensorIterator.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorIterator.cpp)
# - sprawdzanie gradientów, funkcja `validate_outputs`:
#   [`torch/csrc/autograd/engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp)
# - `InputMetadata::maybe_reduce`:
#   [`torch/csrc/autograd/input_metadata.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/input_metadata.cpp)
# - `sum_to`:
#   [`aten/src/ATen/ExpandUtils.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ExpandUtils.h)
#
# ## Co już umiesz
#
# - Z dwóch kształtów wyliczasz kształt wyniku i kroki, z jakimi czytane są argumenty.
# - Wiesz, że gradient rozgłoszonego argumentu jest sumą i że liczy ją silnik.
# - Przewidujesz szczyt pamięci: argument nie płaci, wynik płaci za pełny kształt.
# - Zatrzymujesz pomyłkę (N, 1) i (N,), zanim model nauczy się średniej.
#
# Poprzednia lekcja: [01, o magazynie danych i widokach](01_storage_vs_view.py).
# Następna: [03, o funkcji `einsum`](03_einsum_is_all_you_need.py). W dokumentacji:
# [Broadcasting semantics](https://docs.pytorch.org/docs/stable/notes/broadcasting.html),
# [torch.Tensor.expand](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.expand.html).

# %% [markdown] lang="en"
# The guard stops every variant, and with equal shapes it does not change the result.
# Wrap only the loss in it, because inside a network broadcasting may be deliberate. Use
# it in tests, because each operation in the block goes through Python. It does not stop
# functions without this tag, such as `torch.dist`. Fix the bug itself at its source:
# write `squeeze(1)`, and not `squeeze()`, which also removes the dimension of a batch
# with one sample.
#
# > [!NOTE]
# > This lesson runs on the CPU. On a GPU (not measured here) the rule and the summing
# > of gradients are the same, and the N × M × D table is a common way to run out of
# > memory.
#
# Where this lives in PyTorch's source:
#
# - the shape of the result, the function `infer_size`:
#   [`aten/src/ATen/ExpandUtils.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ExpandUtils.cpp)
# - stride 0 in an elementwise operation, `TensorIteratorBase::compute_strides`:
#   [`aten/src/ATen/TensorIterator.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/TensorIterator.cpp)
# - checking gradients, the function `validate_outputs`:
#   [`torch/csrc/autograd/engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp)
# - `InputMetadata::maybe_reduce`:
#   [`torch/csrc/autograd/input_metadata.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/input_metadata.cpp)
# - `sum_to`:
#   [`aten/src/ATen/ExpandUtils.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/ExpandUtils.h)
#
# ## Now you can
#
# - Work out from two shapes the shape of the result and the strides of the operands.
# - Say that the gradient of a broadcast operand is a sum, and that the engine makes it.
# - Predict peak memory: an operand pays nothing, the result pays for the full shape.
# - Stop the (N, 1) and (N,) mistake before a model learns the mean.
#
# Previous lesson: [01, on storage and views](01_storage_vs_view.py). Next:
# [03, on the function `einsum`](03_einsum_is_all_you_need.py). In the documentation:
# [Broadcasting semantics](https://docs.pytorch.org/docs/stable/notes/broadcasting.html),
# [torch.Tensor.expand](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.expand.html).

# %% [markdown] lang="pl"
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# ## Belts: test yourself


# %% fold=true
@dataclass(frozen=True)
class Operand:
    """A tensor taken apart for the black exercise."""

    cells: tuple[float, ...]  # its storage
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


assert Operand((1.0, 2.0), (2, 1), (1, 1), 0).shape == (2, 1)

# %% [markdown] lang="pl" exercise="predict-shapes" role="prompt" belt="white" minutes=6
# ### Biały: przewidź kształt
#
# Dla każdej z dziesięciu par wpisz kształt wyniku albo `None`, jeśli będzie wyjątek. Nie
# uruchamiaj dodawania: policz.

# %% [markdown] lang="en" exercise="predict-shapes" role="prompt" belt="white" minutes=6
# ### White: predict the shape
#
# For each of the ten pairs, fill in the shape of the result, or `None` if there is an
# exception. Do not run the additions: work them out.

# %% exercise="predict-shapes" role="starter"
answers: dict[str, tuple[int, ...] | None] = {
    "(5, 1) + (4,)": (5, 1),
    "(8, 1, 6) + (7, 1)": (8, 1, 6),
    "(4, 3) + (4,)": (4, 3),
    "(4, 3) + (4, 1)": (4, 3),
    "(2, 3) + (3, 2)": (2, 3),
    "() + (2, 3)": (2, 3),
    "(1,) + (3, 1)": (3, 1),
    "(0,) + (1,)": (0,),
    "(2, 0) + (3,)": (2, 0),
    "(3, 1, 5) + (3, 5)": (3, 1, 5),
}

# %% exercise="predict-shapes" role="check"
questions: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "(5, 1) + (4,)": ((5, 1), (4,)),
    "(8, 1, 6) + (7, 1)": ((8, 1, 6), (7, 1)),
    "(4, 3) + (4,)": ((4, 3), (4,)),
    "(4, 3) + (4, 1)": ((4, 3), (4, 1)),
    "(2, 3) + (3, 2)": ((2, 3), (3, 2)),
    "() + (2, 3)": ((), (2, 3)),
    "(1,) + (3, 1)": ((1,), (3, 1)),
    "(0,) + (1,)": ((0,), (1,)),
    "(2, 0) + (3,)": ((2, 0), (3,)),
    "(3, 1, 5) + (3, 5)": ((3, 1, 5), (3, 5)),
}


def shape_or_none(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(left, right))
    except RuntimeError:
        return None


for question, (left, right) in questions.items():
    assert question in answers, say(
        pl=f"{question}: brakuje odpowiedzi", en=f"{question}: the answer is missing"
    )
    given, correct = answers[question], shape_or_none(left, right)
    padding = (1,) * abs(len(left) - len(right))
    from_left = shape_or_none(
        left + padding if len(left) < len(right) else left,
        right + padding if len(right) < len(left) else right,
    )
    assert given == correct or given is None or given != from_left, say(
        pl=f"{question}: wyrównujesz kształty do lewej, a reguła zestawia je od prawej",
        en=f"{question}: you aligned the shapes on the left, the rule aligns them on the "
        "right",
    )
    assert given is not None or correct is None, say(
        pl=f"{question}: to nie jest wyjątek; brakujący wymiar liczy się jako 1, a 1 "
        "ustępuje każdemu rozmiarowi",
        en=f"{question}: this does not raise; a missing dimension counts as 1, and 1 "
        "gives way to any size",
    )
    assert given is None or correct is not None, say(
        pl=f"{question}: w którymś wymiarze dwa różne rozmiary i żaden nie jest równy 1",
        en=f"{question}: some dimension has two different sizes, neither of which is 1",
    )
    assert given == correct, say(
        pl=f"{question}: {given} to nie to; w każdym wymiarze ustępuje rozmiar 1, nawet "
        "rozmiarowi 0",
        en=f"{question}: not {given}; in each dimension size 1 gives way, even to size 0",
    )

# %% [markdown] lang="pl" exercise="predict-shapes" role="hint"
# Napisz kształty jeden pod drugim, dosunięte do prawej, i dopisz jedynki z lewej.

# %% [markdown] lang="en" exercise="predict-shapes" role="hint"
# Write the shapes one under the other, pushed to the right, and add ones on the left.

# %% [markdown] lang="pl" exercise="predict-shapes" role="hint"
# Rozmiar 0 nie jest wyjątkiem od reguły: pasuje do 0 i do 1, do niczego więcej.

# %% [markdown] lang="en" exercise="predict-shapes" role="hint"
# Size 0 is no exception to the rule: it fits 0 and 1, nothing else.

# %% exercise="predict-shapes" role="wrong" says="(4, 3) + (4,): you aligned the shapes on the left"
answers = {  # looks for the dimension with the same size
    "(5, 1) + (4,)": (5, 4),
    "(8, 1, 6) + (7, 1)": (8, 7, 6),
    "(4, 3) + (4,)": (4, 3),
    "(4, 3) + (4, 1)": (4, 3),
    "(2, 3) + (3, 2)": None,
    "() + (2, 3)": (2, 3),
    "(1,) + (3, 1)": (3, 1),
    "(0,) + (1,)": (0,),
    "(2, 0) + (3,)": None,
    "(3, 1, 5) + (3, 5)": (3, 3, 5),
}

# %% exercise="predict-shapes" role="wrong" says="(0,) + (1,): not (1,)"
answers = {  # takes the larger size of the two
    "(5, 1) + (4,)": (5, 4),
    "(8, 1, 6) + (7, 1)": (8, 7, 6),
    "(4, 3) + (4,)": None,
    "(4, 3) + (4, 1)": (4, 3),
    "(2, 3) + (3, 2)": None,
    "() + (2, 3)": (2, 3),
    "(1,) + (3, 1)": (3, 1),
    "(0,) + (1,)": (1,),
    "(2, 0) + (3,)": None,
    "(3, 1, 5) + (3, 5)": (3, 3, 5),
}

# %% exercise="predict-shapes" role="wrong" says="(2, 3) + (3, 2): some dimension has two different sizes"
answers = {  # "both have six elements, so it will work out"
    "(5, 1) + (4,)": (5, 4),
    "(8, 1, 6) + (7, 1)": (8, 7, 6),
    "(4, 3) + (4,)": None,
    "(4, 3) + (4, 1)": (4, 3),
    "(2, 3) + (3, 2)": (3, 3),
    "() + (2, 3)": (2, 3),
    "(1,) + (3, 1)": (3, 1),
    "(0,) + (1,)": (0,),
    "(2, 0) + (3,)": None,
    "(3, 1, 5) + (3, 5)": (3, 3, 5),
}

# %% exercise="predict-shapes" role="solution"
answers = {
    "(5, 1) + (4,)": (5, 4),  # (5, 1) against (1, 4): both are stretched
    "(8, 1, 6) + (7, 1)": (8, 7, 6),  # (8, 1, 6) against (1, 7, 1)
    "(4, 3) + (4,)": None,  # the last dimensions are 3 and 4
    "(4, 3) + (4, 1)": (4, 3),
    "(2, 3) + (3, 2)": None,  # the number of elements does not matter
    "() + (2, 3)": (2, 3),  # no dimensions: all are missing, all are 1
    "(1,) + (3, 1)": (3, 1),
    "(0,) + (1,)": (0,),  # 1 gives way to 0
    "(2, 0) + (3,)": None,  # 0 against 3, and neither is 1
    "(3, 1, 5) + (3, 5)": (3, 3, 5),  # (3, 1, 5) against (1, 3, 5)
}

# %% [markdown] lang="pl" exercise="padding-mask" role="prompt" belt="brown" minutes=15
# ### Brązowy: maska, która działa nie tylko dla kwadratu
#
# Tensor `scores` ma wymiary (partia, głowa, zapytanie, klucz), a `keep` (partia, klucz):
# `False` oznacza dopełnienie (*padding*). Zwróć wagi uwagi: softmax po kluczach, w
# którym klucze z dopełnienia mają wagę 0. Bez pętli i bez zmieniania `scores`. Każda
# próbka ma co najmniej jeden prawdziwy klucz.

# %% [markdown] lang="en" exercise="padding-mask" role="prompt" belt="brown" minutes=15
# ### Brown: a mask that works beyond the square
#
# The tensor `scores` has the dimensions (batch, head, query, key), and `keep` has
# (batch, key): `False` marks padding. Return the attention weights: a softmax over the
# keys in which padded keys have weight 0. No loops, and do not change `scores`. Every
# sample has at least one real key.


# %% exercise="padding-mask" role="starter"
def attention_weights(scores: Tensor, keep: Tensor) -> Tensor:
    return scores.softmax(-1)  # your code


# %% exercise="padding-mask" role="check"
def check_mask(batch: int, heads: int, queries: int, keys: int) -> None:
    logits = torch.randn(batch, heads, queries, keys)
    keep = torch.arange(keys) < torch.randint(1, keys, (batch, 1))  # (batch, keys)
    before = logits.clone()
    sizes = f"batch={batch} heads={heads} queries={queries} keys={keys}"
    with CallCounter() as calls:
        try:
            weights = attention_weights(logits, keep)
        except RuntimeError as error:
            raise AssertionError(
                say(
                    pl=f"{sizes}: kształty nie pasują ({error}); maska zadziałała tylko "
                    "dlatego, że rozmiary były równe",
                    en=f"{sizes}: the shapes do not fit ({error}); the mask worked only "
                    "because sizes were equal",
                )
            ) from error
    assert torch.equal(logits, before), say(
        pl="zmieniasz scores, które należą do wywołującego",
        en="you changed scores, which belong to the caller",
    )
    assert weights.shape == logits.shape, say(
        pl=f"{sizes}: wynik ma kształt {tuple(weights.shape)}",
        en=f"{sizes}: the result has shape {tuple(weights.shape)}",
    )
    assert not weights.isnan().any(), say(
        pl=f"{sizes}: są wiersze pełne nan: zasłaniasz zapytania zamiast kluczy",
        en=f"{sizes}: there are rows full of nan: you masked queries instead of keys",
    )
    padded = ~keep[:, None, None, :].expand_as(weights)
    assert (weights[padded] == 0).all(), say(
        pl=f"{sizes}: dopełnienie dostało łącznie wagę {weights[padded].sum():.2f}; sprawdź, "
        "naprzeciw którego wymiaru stoi każdy wymiar maski",
        en=f"{sizes}: padding got a total weight of {weights[padded].sum():.2f}; check which "
        "dimension each dimension of the mask faces",
    )
    sums = weights.sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums)), say(
        pl=f"{sizes}: wagi jednego zapytania nie sumują się do 1",
        en=f"{sizes}: the weights of one query do not sum to 1",
    )
    for sample in range(batch):
        real = keep[sample]
        expected = logits[sample][..., real].softmax(-1)
        assert torch.allclose(weights[sample][..., real], expected, atol=1e-6), say(
            pl=f"{sizes}: wagi prawdziwych kluczy to nie softmax po tych kluczach",
            en=f"{sizes}: the weights of real keys are not a softmax over these keys",
        )
    assert sum(calls.names.values()) <= 12, say(
        pl=f"{sizes}: za dużo operacji; rozgłaszanie zastępuje pętlę",
        en=f"{sizes}: too many operations; broadcasting replaces the loop",
    )


for _ in range(5):
    check_mask(5, 2, 5, 5)  # the square
    check_mask(6, 2, 3, 4)
    check_mask(1, 1, 4, 4)
    check_mask(7, 1, 7, 2)
    check_mask(4, 4, 3, 5)

# %% [markdown] lang="pl" exercise="padding-mask" role="hint"
# Wypisz wymiary `keep` pod wymiarami `scores`, dosunięte do prawej. Co stoi pod
# zapytaniem?

# %% [markdown] lang="en" exercise="padding-mask" role="hint"
# Write the dimensions of `keep` under those of `scores`, pushed to the right. What
# stands under the query?

# %% [markdown] lang="pl" exercise="padding-mask" role="hint"
# Wstaw wymiary o rozmiarze 1 indeksem `None`. Zasłaniaj przed softmaxem, a nie po nim.

# %% [markdown] lang="en" exercise="padding-mask" role="hint"
# Insert dimensions of size 1 with the index `None`. Mask before the softmax, not after.


# %% exercise="padding-mask" role="wrong" says="padding got a total weight"
def attention_weights(scores: Tensor, keep: Tensor) -> Tensor:
    # With batch == queries the sample's number is taken for the query's.
    return scores.masked_fill(~keep, -torch.inf).softmax(-1)


# %% exercise="padding-mask" role="wrong" says="you masked queries instead of keys"
def attention_weights(scores: Tensor, keep: Tensor) -> Tensor:
    return scores.masked_fill(~keep[:, None, :, None], -torch.inf).softmax(-1)


# %% exercise="padding-mask" role="wrong" says="do not sum to 1"
def attention_weights(scores: Tensor, keep: Tensor) -> Tensor:
    # The softmax has already given a part of the weight to padding.
    return scores.softmax(-1) * keep[:, None, None, :]


# %% exercise="padding-mask" role="solution"
def attention_weights(scores: Tensor, keep: Tensor) -> Tensor:
    mask = keep[:, None, None, :]  # (batch, 1, 1, key): stride 0 over heads and queries
    return scores.masked_fill(~mask, -torch.inf).softmax(-1)  # exp(-inf) is 0


# %% [markdown] lang="pl" exercise="walk-backward" role="prompt" belt="black" minutes=25
# ### Czarny: gradient komórka po komórce
#
# Napisz przejście wstecz przez rozgłoszone mnożenie `a * b` na samych listach, bez
# wywołań PyTorcha. Argument to magazyn (`cells`) i opis. Lista `upstream` to gradient
# wyniku, wiersz po wierszu. Zwróć gradienty obu **magazynów**, po jednej liczbie na
# komórkę. Argumenty bywają transponowane, wycięte i rozciągnięte. Możesz użyć funkcji
# `broadcast_shape` i `stretched`.

# %% [markdown] lang="en" exercise="walk-backward" role="prompt" belt="black" minutes=25
# ### Black: the gradient cell by cell
#
# Write the backward pass of a broadcast multiplication `a * b` on plain lists, without
# calling PyTorch. An operand is a storage (`cells`) and a description. The list
# `upstream` is the gradient of the result, row by row. Return the gradients of both
# **storages**, one number per cell. Operands may be transposed, sliced and expanded.
# You may use the functions `broadcast_shape` and `stretched`.


# %% exercise="walk-backward" role="starter"
def multiply_backward(
    upstream: Sequence[float], a: Operand, b: Operand
) -> tuple[list[float], list[float]]:
    return [0.0] * len(a.cells), [0.0] * len(b.cells)  # your code


# %% exercise="walk-backward" role="check"
def describe(x: Tensor) -> tuple[Operand, Tensor]:
    """Take a tensor apart; also return its storage as a leaf of the graph."""
    count = x.untyped_storage().nbytes() // x.element_size()
    cells = x.as_strided((count,), (1,), 0).clone()
    layout = (tuple(x.shape), x.stride(), int(x.storage_offset()))
    return Operand(tuple(cells.tolist()), *layout), cells.requires_grad_()


def walk_check(x: Tensor, y: Tensor) -> None:
    (a, cells_a), (b, cells_b) = describe(x), describe(y)
    uses = [torch.zeros(len(o.cells), requires_grad=True) for o in (a, b)]
    views = [
        cells.as_strided(o.shape, o.stride, o.offset)
        for cells, o in ((cells_a, a), (cells_b, b), (uses[0], a), (uses[1], b))
    ]
    product = views[0] * views[1]
    upstream = torch.randint(-9, 10, product.shape).float()
    flat_upstream = upstream.flatten().tolist()
    product.backward(upstream)
    (views[2] + views[3]).sum().backward()  # how many elements use each cell
    names = f"{a.shape} {a.stride} * {b.shape} {b.stride}"
    with CallCounter() as calls:
        try:
            given = multiply_backward(flat_upstream, a, b)
        except IndexError as error:
            raise AssertionError(
                say(
                    pl=f"{names}: wychodzisz poza magazyn; rozciągnięty wymiar czyta się "
                    "z krokiem 0",
                    en=f"{names}: you left the storage; a stretched dimension is read "
                    "with stride 0",
                )
            ) from error
    assert not calls.names, say(
        pl="wywołujesz PyTorcha, a chodzi o to, żeby przejść po komórkach samemu",
        en="you called PyTorch; the point is to walk over the cells yourself",
    )
    for got, cells, use in zip(given, (cells_a, cells_b), uses, strict=True):
        assert cells.grad is not None and use.grad is not None
        expected, times = cells.grad.tolist(), use.grad.tolist()
        assert len(got) == len(expected), say(
            pl=f"{names}: gradient ma mieć jedną liczbę na komórkę magazynu",
            en=f"{names}: the gradient must have one number per cell of the storage",
        )
        for cell, (mine, right, n) in enumerate(zip(got, expected, times, strict=True)):
            assert mine == right or n != 1, say(
                pl=f"{names}: komórka {cell} powinna dostać {right:g}, a ma {mine:g}; "
                "licz adresy z przesunięcia i kroków argumentu",
                en=f"{names}: cell {cell} should get {right:g}, not {mine:g}; compute "
                "addresses from the operand's offset and strides",
            )
            assert mine == right, say(
                pl=f"{names}: komórki {cell} używa {n:g} elementów, więc jej gradient to "
                f"suma ich wkładów, {right:g}, a nie {mine:g}",
                en=f"{names}: {n:g} elements use cell {cell}, so its gradient is the sum "
                f"of their contributions, {right:g}, not {mine:g}",
            )


def numbers(*shape: int) -> Tensor:
    """Non-zero whole numbers, so that sums are exact and no term is lost."""
    return torch.randint(1, 10, shape).float()


def odd_view(rng: random.Random) -> Tensor:
    """Make a transposed, sliced or expanded tensor with sizes 1 and 3 only."""
    x = numbers(*(rng.choice((1, 5)) for _ in range(rng.randint(0, 3))))
    for dim in range(x.dim()):
        x = x.transpose(0, dim)
        if x.shape[0] == 5:
            x = x[rng.choice((0, 1, 2)) :][:3] if rng.random() < 0.5 else x[::2]
        elif rng.random() < 0.3:
            x = x.expand(3, *x.shape[1:])
    return x


walk_check(numbers(2, 3), numbers(3, 2).t())
walk_check(numbers(2, 1), numbers(3))
draw = random.Random(2)
for _ in range(300):
    walk_check(odd_view(draw), odd_view(draw))

# %% [markdown] lang="pl" exercise="walk-backward" role="hint"
# Przejdź po indeksach wyniku (`itertools.product`) i dla każdego policz dwa adresy.

# %% [markdown] lang="en" exercise="walk-backward" role="hint"
# Walk over the indices of the result (`itertools.product`) and compute two addresses for
# each.

# %% [markdown] lang="pl" exercise="walk-backward" role="hint"
# Gradient komórki `a` rośnie przy każdym użyciu o gradient wyniku razy liczbę z `b`.
# Sumowania po wymiarach nie trzeba: krok 0 sam trafia w tę samą komórkę.

# %% [markdown] lang="en" exercise="walk-backward" role="hint"
# At each use, the gradient of a cell of `a` grows by the gradient of the result times
# the number from `b`. No sum over dimensions is needed: stride 0 hits the same cell.


# %% exercise="walk-backward" role="wrong" says="so its gradient is the sum of their contributions"
def multiply_backward(
    upstream: Sequence[float], a: Operand, b: Operand
) -> tuple[list[float], list[float]]:
    shape = broadcast_shape(a.shape, b.shape)
    steps_a = stretched(a.shape, a.stride, shape)
    steps_b = stretched(b.shape, b.stride, shape)
    grad_a, grad_b = [0.0] * len(a.cells), [0.0] * len(b.cells)
    indices = itertools.product(*(range(size) for size in shape))
    for index, g in zip(indices, upstream, strict=True):
        at_a = a.offset + sum(i * s for i, s in zip(index, steps_a, strict=True))
        at_b = b.offset + sum(i * s for i, s in zip(index, steps_b, strict=True))
        grad_a[at_a] = g * b.cells[at_b]  # the last use overwrites the others
        grad_b[at_b] = g * a.cells[at_a]
    return grad_a, grad_b


# %% exercise="walk-backward" role="wrong" says="compute addresses from the operand's offset and strides"
def multiply_backward(
    upstream: Sequence[float], a: Operand, b: Operand
) -> tuple[list[float], list[float]]:
    # Takes every operand for contiguous.
    shape = broadcast_shape(a.shape, b.shape)
    dense_a = [math.prod(a.shape[dim + 1 :]) for dim in range(len(a.shape))]
    dense_b = [math.prod(b.shape[dim + 1 :]) for dim in range(len(b.shape))]
    steps_a = stretched(a.shape, dense_a, shape)
    steps_b = stretched(b.shape, dense_b, shape)
    grad_a, grad_b = [0.0] * len(a.cells), [0.0] * len(b.cells)
    indices = itertools.product(*(range(size) for size in shape))
    for index, g in zip(indices, upstream, strict=True):
        at_a = sum(i * s for i, s in zip(index, steps_a, strict=True))
        at_b = sum(i * s for i, s in zip(index, steps_b, strict=True))
        grad_a[at_a] += g * b.cells[at_b]
        grad_b[at_b] += g * a.cells[at_a]
    return grad_a, grad_b


# %% exercise="walk-backward" role="wrong" says="a stretched dimension is read with stride 0"
def multiply_backward(
    upstream: Sequence[float], a: Operand, b: Operand
) -> tuple[list[float], list[float]]:
    shape = broadcast_shape(a.shape, b.shape)
    # The missing dimensions are read with stride 0, those of size 1 are not.
    steps_a = (0,) * (len(shape) - len(a.shape)) + a.stride
    steps_b = (0,) * (len(shape) - len(b.shape)) + b.stride
    grad_a, grad_b = [0.0] * len(a.cells), [0.0] * len(b.cells)
    indices = itertools.product(*(range(size) for size in shape))
    for index, g in zip(indices, upstream, strict=True):
        at_a = a.offset + sum(i * s for i, s in zip(index, steps_a, strict=True))
        at_b = b.offset + sum(i * s for i, s in zip(index, steps_b, strict=True))
        grad_a[at_a] += g * b.cells[at_b]
        grad_b[at_b] += g * a.cells[at_a]
    return grad_a, grad_b


# %% exercise="walk-backward" role="solution"
def multiply_backward(
    upstream: Sequence[float], a: Operand, b: Operand
) -> tuple[list[float], list[float]]:
    shape = broadcast_shape(a.shape, b.shape)
    steps_a = stretched(a.shape, a.stride, shape)
    steps_b = stretched(b.shape, b.stride, shape)
    grad_a, grad_b = [0.0] * len(a.cells), [0.0] * len(b.cells)
    indices = itertools.product(*(range(size) for size in shape))
    for index, g in zip(indices, upstream, strict=True):
        at_a = a.offset + sum(i * s for i, s in zip(index, steps_a, strict=True))
        at_b = b.offset + sum(i * s for i, s in zip(index, steps_b, strict=True))
        # Stride 0 brings many indices to one cell, and += sums over them: this is
        # unbroadcast without a single sum over a dimension.
        grad_a[at_a] += g * b.cells[at_b]
        grad_b[at_b] += g * a.cells[at_a]
    return grad_a, grad_b
