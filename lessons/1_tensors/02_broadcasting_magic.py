# %% [markdown] lang="pl"
# # Rozgłaszanie: krok zero zamiast kopii
#
# Rozgłaszanie (*broadcasting*) pozwala działać na tensorach o różnych kształtach. Po tej
# lekcji z dwóch kształtów wyliczysz kształt wyniku i wymiary, po których sumuje się gradient
# każdego argumentu, a pomyłkę w kształcie zatrzymasz, zanim zepsuje trening.
#
# ## Strata spada, wyjątku nie ma
#
# Sieć ma dla każdej próbki przewidzieć jedną liczbę. Tensor `features` ma kształt
# (256, 5), wartości docelowe `target` mają kształt (256,), a ostatnia warstwa sieci to
# `nn.Linear(32, 1)`. Stratę (błąd średniokwadratowy) liczymy własnym kodem.

# %% [markdown] lang="en"
# # Broadcasting: stride zero instead of a copy
#
# Broadcasting lets you combine tensors of different shapes. By the end of this lesson
# you will work out from two shapes the shape of the result and the dimensions over
# which the gradient of each operand is summed, and stop a shape mistake before it ruins
# a training run.
#
# ## The loss falls and nothing raises
#
# A network should predict one number per sample. The tensor `features` has shape
# (256, 5), the target values `target` have shape (256,), and the last layer of the
# network is `nn.Linear(32, 1)`. We write the loss, the mean squared error, ourselves.

# %% fold=true
import itertools
import math
import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from torch import Tensor, nn

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.broadcast_pictures import show_alignment, show_sums
from snippets.figures import BLUE, GRAY, ORANGE, show_figure
from snippets.memory import CallCounter, MemoryMeter
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
with warnings.catch_warnings(action="error"):  # a warning would stop the training
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
# błędny. Pytanie tej lekcji: **dlaczego ani strata, ani gradient nie zdradziły błędu?**

# %% [markdown] lang="en"
# The loss fell from {{ first_loss:.2f }} to {{ last_loss:.2f }}, there was no exception
# and no warning, and the gradient of every parameter has the right shape. The program
# is wrong all the same. The question of this lesson: **why did neither the loss nor the
# gradient give the mistake away?**

# %% [markdown] lang="pl" predict="trained-model"
# Podajesz wytrenowanemu modelowi te same próbki. Co przewiduje?
#
# - [ ] Liczby bliskie wartościom docelowym; zawyżona jest tylko strata
#
#   Strata pomnożona przez stałą miałaby minimum w tym samym miejscu. Ta ma je gdzie
#   indziej i nie zejdzie poniżej wariancji wartości docelowych, czyli {{ variance:.2f }}. Model
#   uczony z poprawną stratą schodzi po tylu samo krokach do {{ fixed_loss:.2f }}.
#
# - [ ] Wartości docelowe innych próbek, bo każda prognoza trafiła do pary z cudzą wartością
#
#   Każda prognoza trafia do pary ze wszystkimi wartościami docelowymi naraz, więc żadna
#   cudza wartość nie wygrywa. Najmniejszy błąd średniokwadratowy daje ich średnia.
#
# - [x] Prawie tę samą liczbę dla każdej próbki
#
#   Odejmowanie tworzy tabelę różnic wszystkich par, a średnia ich kwadratów jest
#   najmniejsza, gdy każda prognoza równa się średniej wartości docelowych. Odchylenie
#   standardowe prognoz wynosi {{ broken_std:.2f }}, a wartości docelowych
#   {{ target_std:.2f }}.

# %% [markdown] lang="en" predict="trained-model"
# You feed the same samples to the trained model. What does it predict?
#
# - [ ] Numbers close to the target values, only the loss is inflated
#
#   A loss multiplied by a constant would have its minimum in the same place. This one
#   has it elsewhere and cannot fall below the variance of the target values,
#   {{ variance:.2f }}. A model trained with the correct loss gets to
#   {{ fixed_loss:.2f }} in as many steps.
#
# - [ ] The target values of other samples, because the pairs got mixed up
#
#   Every prediction is paired with all target values at once, so no other sample's
#   value wins. Their mean gives the smallest mean squared error.
#
# - [x] Almost the same number for every sample
#
#   The subtraction makes a table of the differences of all pairs, and the mean of their
#   squares is smallest when every prediction equals the mean of the target values. The
#   standard deviation of the predictions is {{ broken_std:.2f }}, that of the target
#   values {{ target_std:.2f }}.

# %% [markdown] lang="pl"
# ## Co przewiduje wytrenowany model
#
# Dla porównania trenujemy drugi model. Wagi początkowe ma te same, ale jego prognoza ma
# kształt (256,).

# %% [markdown] lang="en"
# ## What the trained model predicts
#
# For comparison we train a second model. It has the same initial weights, but its
# prediction has shape (256,).

# %%
fixed = make_model()
for _ in range(recipe.steps):
    descend(fixed, ((fixed(features).squeeze(1) - target) ** 2).mean())

with torch.no_grad():
    broken_output = model(features).squeeze(1)  # (256,)
    fixed_output = fixed(features).squeeze(1)  # (256,)
variance = float(target.var(correction=0))
broken_loss = float((broken_output - target).square().mean())
fixed_loss = float((fixed_output - target).square().mean())
broken_std = float(broken_output.std(correction=0))
target_std = float(target.std(correction=0))
print(f"{variance=:.2f} {broken_loss=:.2f} {fixed_loss=:.2f}")
print(f"{broken_std=:.2f} {target_std=:.2f}")
assert abs(broken_loss - variance) < 0.01 * variance
assert fixed_loss < 0.05 * variance
assert broken_std < 0.1 * target_std

# %% fold=true
shown = 100
few = target[:shown]
fig, axis = plt.subplots(figsize=(7.2, 2.9))
axis.scatter(few, fixed_output[:shown], s=9, color=BLUE, label="prediction (256,)")
axis.scatter(few, broken_output[:shown], s=9, color=ORANGE, label="prediction (256, 1)")
ends = [float(few.min()), float(few.max())]
axis.plot(ends, ends, color=GRAY, lw=1, ls="--")
axis.set(xlabel="target value", ylabel="prediction")
axis.legend(loc="upper left")
show_figure(
    fig,
    alt_pl="Punkty: w poziomie wartość docelowa, w pionie prognoza. Punkty modelu z "
    "prognozą (256,) leżą przy przekątnej, punkty modelu z prognozą (256, 1) tworzą "
    "poziomą linię.",
    alt_en="Points: the target value across, the prediction up. The points of the model "
    "with prediction (256,) lie near the diagonal, those of the model with prediction "
    "(256, 1) form a horizontal line.",
    pl={
        "prediction (256,)": "prognoza (256,)",
        "prediction (256, 1)": "prognoza (256, 1)",
        "target value": "wartość docelowa",
        "prediction": "prognoza",
    },
)

# %% [markdown] lang="pl"
# Na rysunku jest {{ shown }} próbek, a na linii przerywanej prognoza równa się wartości
# docelowej. Pozioma linia to model z prognozą (256, 1). Jego strata, tym razem policzona
# poprawnie, to {{ broken_loss:.2f }}: nie jest lepszy od stałej odpowiedzi równej
# średniej wartości docelowych. Zawiniło jedno odejmowanie.
#
# ## Dwa argumenty, jedna tabela
#
# Zmniejszmy przykład: trzy prognozy w kolumnie i trzy wartości docelowe w wierszu.
# Funkcja `broadcast_tensors` pokazuje, co czyta odejmowanie, a licznik `CallCounter`
# zapisuje operacje, które wykonał PyTorch.

# %% [markdown] lang="en"
# The figure shows {{ shown }} samples; on the dashed line the prediction equals the
# target value. The horizontal line is the model with prediction (256, 1). Its loss,
# this time computed correctly, is {{ broken_loss:.2f }}: it is no better than a
# constant answer equal to the mean of the target values. A single subtraction is to
# blame.
#
# ## Two operands, one table
#
# Let's make the example smaller: three predictions in a column and three target values
# in a row. The function `broadcast_tensors` shows what the subtraction reads, and
# `CallCounter` records the operations that PyTorch ran.

# %%
column = torch.tensor([[10.0], [20.0], [30.0]])  # three predictions, (3, 1)
row = torch.tensor([1.0, 2.0, 4.0])  # three target values, (3,)
wide_column, wide_row = torch.broadcast_tensors(column, row)
with CallCounter() as calls:
    difference = column - row
print(wide_column.stride(), wide_row.stride(), tuple(difference.shape))
assert (wide_column.stride(), wide_row.stride()) == ((1, 0), (0, 1))
assert wide_column.data_ptr() == column.data_ptr()
assert wide_row.data_ptr() == row.data_ptr()
assert calls.names == {"sub": 1}  # one operation, nothing is expanded or copied first
assert torch.equal(difference, wide_column - wide_row)
assert difference.unique().numel() == 9
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
# ich magazynów (*storage*) jest czytana trzy razy (stąd ×3). Żaden argument nie
# został skopiowany: rozciąga je **krok 0** (*stride*), czyli „następny element leży w tej samej
# komórce”. Wynik ma dziewięć komórek, a różnice, o które nam chodziło, leżą tylko na
# przekątnej.
#
# Stąd odpowiedź modelu. Średnia kwadratów z całej tabeli rozkłada się na dwa składniki:
#
# $$\frac{1}{N^2}\sum_{i,j}(p_i-y_j)^2 = \frac{1}{N}\sum_i(p_i-\bar y)^2 +
# \operatorname{Var}(y).$$
#
# Drugi składnik, wariancja (z dzieleniem przez $N$, a nie $N-1$), nie zależy od modelu, a pierwszy
# znika, gdy każda prognoza równa się średniej $\bar y$. Sprawdźmy to na wytrenowanym
# modelu, razem z gradientem względem prognoz.

# %% [markdown] lang="en"
# The grid `wide_column` repeats numbers across, `wide_row` repeats them down, and each
# cell of their storages is read three times (hence ×3). The operands were not copied:
# they are stretched by **stride 0**, which means “the next element lies in the same
# cell”. The result has nine cells, and the differences we meant lie only on its
# diagonal.
#
# That explains the model's answer. The mean of the squares over the whole table splits
# into two terms:
#
# $$\frac{1}{N^2}\sum_{i,j}(p_i-y_j)^2 = \frac{1}{N}\sum_i(p_i-\bar y)^2 +
# \operatorname{Var}(y).$$
#
# The second term, the variance (divided by $N$, not $N-1$), does not depend on the
# model, and the first vanishes when every prediction equals the mean $\bar y$. Let's check this on
# the trained model, together with the gradient with respect to the predictions.

# %%
output = model(features).detach().requires_grad_()  # (256, 1)
table = output - target  # (256, 256)
table_loss = table.square().mean()
table_loss.backward()
pairs = table.numel()
to_mean = output.detach() - target.mean()  # (256, 1)
print(f"{pairs=} {table_loss.item()=:.2f} {variance=:.2f}")
assert pairs == samples**2
torch.testing.assert_close(table_loss.detach(), to_mean.square().mean() + variance)
model_part = table_loss.item() - variance
assert 0 <= model_part < 0.01 * variance
assert first_loss - variance > 100 * model_part
torch.testing.assert_close(output.grad, 2 * to_mean / samples)

# %% [markdown] lang="pl"
# Strata porównała {{ pairs }} par zamiast {{ samples }}. Spadała, bo malał pierwszy
# składnik: po treningu wynosi {{ model_part:.2f }}. Zatrzymała się na drugim, czyli na
# wariancji wartości docelowych. Gradient prognozy $p_i$ to
# $2(p_i - \bar y)/N$, więc trening ciągnie ją do średniej, a tensor gradientów ma
# właściwy kształt, (256, 1).
#
# ## Reguła: od prawej do lewej
#
# Operacja elementowa (*elementwise*) łączy elementy o tych samych indeksach. O tym, czy
# przyjmie dwa kształty, decyduje jedna reguła:
#
# 1. Wyrównaj kształty do prawej. Brakujący wymiar ma rozmiar 1.
# 2. W każdym wymiarze rozmiary muszą być równe albo jeden z nich musi wynosić 1.
# 3. Rozmiar 1 ustępuje innemu, a tensor jest wtedy czytany w tym wymiarze z krokiem 0.

# %% [markdown] lang="en"
# The loss compared {{ pairs }} pairs instead of {{ samples }}. It fell because the first
# term did: after training it is {{ model_part:.2f }}. It stopped at the second one, the
# variance of the target values. The gradient of a
# prediction $p_i$ is $2(p_i - \bar y)/N$, so training pulls it towards the mean, while
# the tensor of gradients has the right shape, (256, 1).
#
# ## The rule: from right to left
#
# An elementwise operation combines elements with the same indices. One rule decides
# whether it accepts two shapes:
#
# 1. Align the shapes on the right. A missing dimension has size 1.
# 2. In each dimension the sizes must be equal, or one of them must be 1.
# 3. Size 1 gives way to any other size, and the tensor is then read with stride 0 in
#    that dimension.

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
# Ramka to wymiar, a liczba w niej to jego rozmiar. Kreskowanie oznacza krok 0,
# przerywana ramka – wymiar, którego tensor nie ma. Trzecia para nie pasuje, choć oba
# tensory mają wymiar o rozmiarze 4: reguła nie szuka równych wymiarów, tylko zestawia
# je od prawej.

# %% [markdown] lang="en"
# A frame is a dimension, and the number in it is its size. Hatching marks stride 0, a
# dashed frame a dimension that the tensor does not have. The third pair does not fit
# although both tensors have a dimension of size 4: the rule does not look for equal
# dimensions, it only pairs them from the right.

# %% raises="RuntimeError: The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"
torch.zeros(4, 3) + torch.zeros(4)

# %% [markdown] lang="pl"
# Tensor `b` ma tylko wymiar 0, a komunikat mówi o wymiarze 1: numeruje wymiary
# kształtów wyrównanych do prawej.
#
# ## Kto sumuje gradient
#
# W przejściu wstecz (*backward*) trzeba rozgłaszanie cofnąć: liczba użyta trzy razy
# dostaje sumę trzech gradientów. Weźmy tensory `column` o kształcie (4, 1) i `row` o
# kształcie (3,).

# %% [markdown] lang="en"
# Tensor `b` has only a dimension 0, and the message speaks of dimension 1: it numbers
# the dimensions of the shapes aligned on the right.
#
# ## Who sums the gradient
#
# The backward pass has to undo broadcasting: a number that was used three times gets
# the sum of three gradients. Take a `column` of shape (4, 1) and a `row` of shape (3,).

# %% [markdown] lang="pl" predict="raw-gradients"
# Dodawanie daje `total = column + row`, tensor o kształcie (4, 3). Jego węzeł grafu
# obliczeniowego, `total.grad_fn`, można wywołać jak funkcję. Gradient wyniku,
# `upstream`, też ma kształt (4, 3). Jakie kształty będą miały dwa tensory, które zwróci
# `total.grad_fn(upstream)`?
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
# - [ ] Takich tensorów nie będzie, bo węzeł zgłosi wyjątek
#
#   Ten węzeł nie sprawdza żadnych kształtów: ani gradientu, ani argumentów. Przyjąłby
#   nawet gradient o kształcie (7, 2).

# %% [markdown] lang="en" predict="raw-gradients"
# The addition gives `total = column + row` of shape (4, 3). Its node in the
# computational graph, `total.grad_fn`, can be called like a function. The gradient of
# the result, `upstream`, has shape (4, 3) too. What are the shapes of the two tensors
# that `total.grad_fn(upstream)` returns?
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
# - [ ] There are no such tensors, because the node raises
#
#   This node checks no shapes, neither the gradient's nor the operands'. It would even
#   accept a gradient of shape (7, 2).

# %%
column = torch.zeros(4, 1, requires_grad=True)
row = torch.zeros(3, requires_grad=True)
total = column + row  # (4, 3)
upstream = torch.arange(1.0, 13.0).reshape(4, 3)  # d loss / d total
node: Any = total.grad_fn
returned = node(upstream)
seen_by_hook: list[tuple[int, ...]] = []


def look(grads: Sequence[Tensor], _: Sequence[Tensor]) -> None:
    """Note the shapes that leave a node when the engine runs it."""
    seen_by_hook.extend(tuple(grad.shape) for grad in grads)


node.register_hook(look)
total.backward(upstream)
behind = [after.name() for after, _ in node.next_functions]
print(f"{node.name()} {[tuple(grad.shape) for grad in returned]} {seen_by_hook=}")
assert all(torch.equal(grad, upstream) for grad in returned)
assert [tuple(grad.shape) for grad in node(torch.ones(7, 2))] == [(7, 2)] * 2
assert seen_by_hook == [column.shape, row.shape]
assert column.grad is not None and row.grad is not None
assert torch.equal(column.grad, upstream.sum(1, keepdim=True))
assert torch.equal(row.grad, upstream.sum(0))
assert node.name() == "AddBackward0"
assert [name.split("::")[-1] for name in behind] == ["AccumulateGrad"] * 2
by_hand: Any = (column + row.expand(4, 3)).grad_fn  # the same, written out
print([after.name().split("::")[-1] for after, _ in by_hand.next_functions])
assert by_hand.next_functions[1][0].name() == "ExpandBackward0"
assert by_hand.next_functions[1][0](upstream).shape == row.shape

# %% fold=true
show_sums(
    upstream,
    column.grad,
    row.grad,
    names=("upstream", "column.grad", "row.grad"),
    alt_pl="Tabela upstream, 4 na 3, z liczbami od 1 do 12. Na prawo od każdego wiersza "
    "stoi jego suma: 6, 15, 24 i 33, czyli column.grad. Pod każdą kolumną stoi jej suma: "
    "22, 26 i 30, czyli row.grad.",
    alt_en="The table upstream, 4 by 3, with the numbers 1 to 12. To the right of each "
    "row stands its sum: 6, 15, 24 and 33, which is column.grad. Under each column "
    "stands its sum: 22, 26 and 30, which is row.grad.",
)
assert column.grad.flatten().tolist() == [6, 15, 24, 33]
assert row.grad.tolist() == [22, 26, 30]

# %% [markdown] lang="pl"
# W `column.grad` są sumy wierszy tabeli `upstream`, w `row.grad` sumy jej kolumn. Węzeł
# zwraca dwa tensory (4, 3), a nasz hook widzi je już zsumowane. Silnik zna kształt
# każdego argumentu (klasa `InputMetadata`) i po każdym węźle wywołuje funkcję
# `validate_outputs`, która sprowadza gradient do kształtu argumentu funkcją `sum_to`.
# Dopiero potem wywołuje hooki dodane do węzła metodą `register_hook`.
#
# W grafie rozgłaszanie nie zostawiło śladu: za węzłem `AddBackward0` stoją od razu węzły
# `AccumulateGrad`, które zapisują gradienty liści. Inaczej jest po jawnym wywołaniu
# metody `expand`: powstaje węzeł `ExpandBackward0`, który sumuje sam.
#
# Warstwa `nn.Linear` wywołuje tu operację `addmm`: iloczyn macierzy plus `bias`. Jej
# węzeł też zwraca dla parametru `bias` gradient w pełnym kształcie, a silnik sumuje go
# po próbkach partii (*batch*).

# %% [markdown] lang="en"
# `column.grad` holds the sums of the rows of the table `upstream`, `row.grad` the sums
# of its columns. The node returns two tensors of shape (4, 3), and our hook sees
# them already summed. The engine knows the shape of each operand (the class
# `InputMetadata`), and after every node it calls the function `validate_outputs`, which
# brings the gradient to the operand's shape with `sum_to`. Only then does it call the
# hooks that were added to the node with `register_hook`.
#
# Broadcasting left no trace in this graph: right behind the node `AddBackward0` are
# `AccumulateGrad` nodes, which store the gradients of leaves. It is different after an
# explicit call of the method `expand`: that makes a node `ExpandBackward0`, which does
# the summing itself.
#
# The layer `nn.Linear` calls the operation `addmm` here: a matrix product plus `bias`.
# Its node too returns a gradient of full shape for the parameter `bias`, and the engine
# sums it over the samples of the batch.

# %%
layer = nn.Linear(5, 2)
scores = layer(features)  # (256, 2)
from_loss = torch.randn(samples, 2)  # d loss / d scores
affine: Any = scores.grad_fn
bias_from_node = affine(from_loss)[0]  # the first operand of addmm is the bias
scores.backward(from_loss)
print(affine.name(), tuple(bias_from_node.shape), tuple(layer.bias.shape))
assert torch.equal(bias_from_node, from_loss)
torch.testing.assert_close(layer.bias.grad, from_loss.sum(0))

# %% [markdown] lang="pl"
# Dlatego gradient nie zdradził błędu z początku lekcji: silnik sprowadził gradient
# prognozy do kształtu (256, 1), nie wiedząc, że tabela powstała przez pomyłkę.
#
# ## Rozgłaszanie i jego odwrócenie w Pythonie
#
# Wystarczą trzy małe funkcje: pierwsza liczy kształt wyniku, druga kroki argumentu,
# trzecia sumuje gradient. Trzecia jest odbiciem drugiej: gdzie druga wstawia krok 0, tam
# trzecia sumuje.

# %% [markdown] lang="en"
# That is why the gradient did not give away the mistake we started with: the engine
# brought the gradient of the prediction back to shape (256, 1) without knowing that the
# table was an accident.
#
# ## Broadcasting and its reverse in Python
#
# Three small functions are enough: the first computes the shape of the result, the
# second the strides of an operand, the third sums the gradient. The third mirrors the
# second: where the second puts stride 0, the third sums.


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
    """Find strides that read an operand in the shape of the result."""
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
# Sprawdźmy je na losowych parach tensorów, transponowanych i wyciętych, także z
# rozmiarem 0: kroki porównujemy z tymi, które daje PyTorch, argumenty mnożenia czytamy
# z naszymi krokami, a gradienty liczymy bez autogradu.

# %% [markdown] lang="en"
# Let's check them on random pairs of tensors, transposed and sliced, size 0 included:
# we compare the strides with PyTorch's, read the operands of a multiplication with our
# strides and compute the gradients without autograd.


# %% fold=true
def random_operand(rng: random.Random) -> Tensor:
    """Make a transposed slice of whole numbers, so that sums are exact."""
    shape = [rng.choice((0, 1, 1, 2, 3, 4)) for _ in range(rng.randint(0, 3))]
    twice = torch.randint(-9, 10, [2 * n for n in shape]).double()
    half = twice[(slice(None, None, 2),) * len(shape)]
    return half.permute(list(range(len(shape)))[::-1]).requires_grad_()


def agrees(a: Tensor, b: Tensor) -> bool:
    """Compare a broadcast multiplication and its gradients with PyTorch."""
    product = a * b
    shape = broadcast_shape(a.shape, b.shape)
    steps_a = stretched(a.shape, a.stride(), shape)
    steps_b = stretched(b.shape, b.stride(), shape)
    torch_a, torch_b = torch.broadcast_tensors(a, b)
    theirs = torch_a.stride() + torch_b.stride()
    steps = zip(steps_a + steps_b, theirs, shape * 2, strict=True)
    wide_a = a.detach().as_strided(shape, steps_a)
    wide_b = b.detach().as_strided(shape, steps_b)
    upstream = torch.randint(-9, 10, shape).double()
    grads = torch.autograd.grad(product, (a, b), upstream)
    return (
        # The stride of a dimension of size 1 is never used.
        all(mine == right or size == 1 for mine, right, size in steps)
        and torch.equal(product, wide_a * wide_b)
        and torch.equal(grads[0], unbroadcast(upstream * wide_b, a.shape))
        and torch.equal(grads[1], unbroadcast(upstream * wide_a, b.shape))
    )


def complaint(action: Callable[[], object]) -> str:
    """Return the exception that an action raises as text, empty if there is none."""
    try:
        action()
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


tried = 2000
rng = random.Random(0)
cases = [(random_operand(rng), random_operand(rng)) for _ in range(tried)]
fits = [not complaint(partial(torch.mul, a, b)) for a, b in cases]
ours = [not complaint(partial(broadcast_shape, a.shape, b.shape)) for a, b in cases]
agreed = sum(agrees(*case) for case in itertools.compress(cases, fits))
fitting = sum(fits)
print(f"{agreed=} of {fitting=}, {tried - fitting} pairs do not fit")
assert ours == fits
assert agreed == fitting
assert 0.2 * tried < fitting < 0.8 * tried

# %% [markdown] lang="pl"
# Spośród {{ tried }} par pasuje {{ fitting }}, te same u nas i w PyTorchu. W każdej z
# nich wynik i oba gradienty są identyczne jak w PyTorchu. Kroki też, poza wymiarami
# wyniku o rozmiarze 1, w których krok nie ma znaczenia.
#
# ## Kto płaci za pamięć
#
# Policzmy koszt operacji elementowej, która w przejściu w przód tworzy nowy tensor tego
# samego typu. Rozciągnięcie argumentu nie zajmuje pamięci, bo zmienia tylko
# krok, a wynik zajmuje miejsce na wszystkie swoje elementy. Dodanie wiersza do macierzy
# 1000 × 1000 powinno więc zająć tyle, ile sam wynik, a z wierszem powielonym metodą
# `repeat` dwa razy tyle. W przejściu wstecz przez
# mnożenie gradient wiersza powstaje najpierw w pełnym kształcie i dopiero potem jest
# sumowany, więc przewidujemy 1001 wierszy. Licznik `MemoryMeter` liczy bajty nowych
# tensorów, bez buforów roboczych wewnątrz operacji.

# %% [markdown] lang="en"
# Of {{ tried }} pairs, {{ fitting }} fit, the same ones for us and for PyTorch. In each
# of them the result and both gradients are identical to PyTorch's. So are the strides,
# except in dimensions of the result of size 1, where a stride does not matter.
#
# ## Who pays for the memory
#
# The cost model of an elementwise operation that makes a new tensor of the same type in
# the forward pass: stretching an operand takes no memory, because only its stride
# changes, and the result takes room for all its elements. Adding a row to a 1000 × 1000 matrix should therefore
# take as much as the result alone, and twice as much if `repeat` copies the row first.
# In the backward pass of a multiplication the gradient of the row first has the full
# shape and only then is summed, so we predict 1001 rows. The meter `MemoryMeter` counts
# the bytes of new tensors, without the scratch buffers inside an operation.


# %%
def peak_bytes(action: Callable[[], object]) -> int:
    """Measure the most bytes of new tensors that an action keeps at one time."""
    with MemoryMeter() as meter:
        action()
    return int(meter.peak)


matrix, line = torch.ones(1000, 1000), torch.ones(1000)
stride_zero = peak_bytes(lambda: matrix + line)
copied = peak_bytes(lambda: matrix + line.repeat(1000, 1))
product = matrix * line.requires_grad_()
backward_peak = peak_bytes(partial(product.backward, matrix))
print(f"{stride_zero=} {copied=} {backward_peak=}")
assert stride_zero == matrix.nbytes
assert copied == 2 * stride_zero
assert backward_peak == 1001 * line.nbytes

# %% [markdown] lang="pl"
# Wszystkie trzy przewidywania się sprawdziły. Drogo robi się tam, gdzie rozciągają się
# oba argumenty, jak w naszej stracie. W przejściu w przód, liczonym tu bez autogradu, są
# wtedy naraz w pamięci dwie tabele N × N, różnica i jej kwadrat, zamiast dwóch tensorów
# po N liczb. Szczytowe zużycie pamięci powinno więc wzrosnąć N razy.

# %% [markdown] lang="en"
# All three numbers are as predicted. It gets expensive where both operands are
# stretched, as in our loss. In the forward pass, computed here without autograd, two
# N × N tables are then in memory at once, the difference and its square, instead of two
# tensors of N numbers. The peak should therefore be N times as high.

# %% fold=true
counts = [16, 64, 256, 1024]
outputs = [torch.zeros(n, 1) for n in counts]
targets = [torch.zeros(n) for n in counts]


def own_loss(p: Tensor, y: Tensor) -> Tensor:
    """Compute the mean squared error as the first cells of this lesson do."""
    return ((p - y) ** 2).mean()


pairs_of = list(zip(outputs, targets, strict=True))
wrong_peaks = [peak_bytes(partial(own_loss, p, y)) for p, y in pairs_of]
right_peaks = [peak_bytes(partial(own_loss, p.squeeze(1), y)) for p, y in pairs_of]
fig, axis = plt.subplots(figsize=(7.2, 2.8))
wrong_model, right_model = [8 * n * n for n in counts], [8 * n for n in counts]
axis.plot(counts, wrong_model, color=GRAY, ls="--", lw=1, label="predicted")
axis.plot(counts, right_model, color=GRAY, ls="--", lw=1)
axis.plot(counts, wrong_peaks, "o", color=ORANGE, label="prediction (N, 1)")
axis.plot(counts, right_peaks, "s", color=BLUE, label="prediction (N,)")
axis.set(xscale="log", yscale="log", xlabel="N, samples", ylabel="peak memory, B")
axis.set_xticks(counts, [str(n) for n in counts])
axis.set_yticks([1e2, 1e4, 1e6], ["10²", "10⁴", "10⁶"])
axis.minorticks_off()
axis.legend()
show_figure(
    fig,
    alt_pl="Wykres w skali logarytmicznej: szczytowe zużycie pamięci dla 16 do 1024 "
    "próbek. Punkty obu prognoz leżą na liniach przewidywania. Linia prognozy (N, 1) "
    "jest dwa razy bardziej stroma niż linia prognozy (N,).",
    alt_en="Log-log chart: peak memory for 16 to 1024 samples. The points of both "
    "predictions lie on the predicted lines. The line of prediction (N, 1) is twice as "
    "steep as that of prediction (N,).",
    pl={
        "predicted": "przewidywanie",
        "prediction (N, 1)": "prognoza (N, 1)",
        "prediction (N,)": "prognoza (N,)",
        "N, samples": "N, liczba próbek",
        "peak memory, B": "szczytowe zużycie pamięci, B",
    },
)
large = 65_536
large_gb = 4 * large**2 / 1e9
print(f"{large} samples: a table of {large_gb:.1f} GB")
assert (wrong_peaks, right_peaks) == (wrong_model, right_model)
trap_peak = wrong_peaks[counts.index(samples)]
assert trap_peak == 2 * samples**2 * 4
assert [w // r for w, r in zip(wrong_peaks, right_peaks, strict=True)] == counts

# %% [markdown] lang="pl"
# Punkty leżą dokładnie na liniach przewidywania: policzenie straty zajmuje N razy więcej
# pamięci. Przy {{ samples }} próbkach to zaledwie {{ trap_peak }} B, więc pamięć też
# milczy. Przy {{ large }} próbkach sama tabela różnic zajęłaby {{ large_gb:.1f }} GB.
#
# ## Co się psuje i jak to zauważyć
#
# Sprawdźmy, które funkcje straty zauważą, że prognoza ma kształt (N, 1), a wartości
# docelowe (N,).

# %% [markdown] lang="en"
# The points lie exactly on the predicted lines: computing the loss takes N times as much
# memory. With {{ samples }} samples that is only {{ trap_peak }} B, so memory is silent
# too. With {{ large }} samples the table of differences alone would take
# {{ large_gb:.1f }} GB.
#
# ## What breaks and how to notice
#
# Let's see which loss functions notice that the prediction has shape (N, 1) and the
# target values (N,).

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
    "own_loss": own_loss,
}


def reaction(loss_of: Loss) -> str:
    """Call a loss on shapes that do not match; return its warning or exception."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for n in (6, 6, 5):  # the text names the sizes, so the third call has a new one
            refusal = complaint(partial(loss_of, torch.rand(n, 1), torch.rand(n)))
    assert len(caught) in (0, 2)
    told = [f"{w.category.__name__}: {w.message}" for w in caught]
    return refusal or (told[0] if told else "–")


reactions = {name: reaction(loss_of) for name, loss_of in suspects.items()}
for name, text in reactions.items():
    print(f"{name:33}{text:.50}")
print(reactions["mse_loss"])
tally = Counter(text.split(":")[0] for text in reactions.values())
warned, refused, silent = tally["UserWarning"], tally["ValueError"], tally["–"]
torch_version = torch.__version__.split("+")[0]
assert (warned, refused, silent) == (4, 2, 4)
assert reactions["gaussian_nll_loss"] == reactions["own_loss"] == "–"

# %% [markdown] lang="pl"
# W PyTorchu {{ torch_version }} ostrzegają {{ warned }} funkcje, wyjątek zgłaszają
# {{ refused }}, a {{ silent }} milczą, w tym strata napisana ręcznie. Na ostrzeżeniu też
# trudno polegać: Python domyślnie pokazuje je raz dla danego wiersza programu i danej
# treści, więc ginie na początku dziennika treningu.
#
# Są jeszcze dwie ciche awarie. Pierwszą powoduje przypadkowa zgodność rozmiarów.
# Dzielenie przez sumy wierszy bez argumentu `keepdim=True` zgłasza wyjątek dla macierzy 2 × 3, ale
# w macierzy kwadratowej kolumna *j* zostaje podzielona przez sumę wiersza *j*. Druga to
# zapis do jednego elementu tensora z krokiem 0: tu zmienia on cały wiersz. Metoda `add_`
# wywołana na całym tensorze zgłasza wyjątek, ale na jednym elemencie milczy, podobnie
# jak przypisanie. Dlatego przed zapisem sprawdź, czy wynik `wide.stride()` zawiera zero.

# %% [markdown] lang="en"
# In PyTorch {{ torch_version }}, {{ warned }} of these functions warn, {{ refused }}
# raise, and {{ silent }} are silent, the hand-written loss among them. A warning is not
# much to rely on either: by default Python shows it once for a given line of a program
# and a given text, so it is lost at the top of the training log.
#
# Two more things break silently. The first is sizes that match by coincidence: dividing
# by the sums of rows without the argument `keepdim=True` raises for a 2 × 3 matrix, but in a square
# one it divides column *j* by the sum of row *j*. The second is a write to one element
# of a tensor with stride 0: here it changes a whole row. The method `add_` raises when
# it is called on the whole tensor, but on one element it is silent, and so is an
# assignment. So check whether `wide.stride()` contains a zero before you write.

# %%
square = torch.tensor([[1.0, 3.0], [4.0, 4.0]])
by_rows = square / square.sum(1)
print(f"{by_rows.tolist()}, sums of rows: {by_rows.sum(1).tolist()}")
assert torch.equal(by_rows[:, 1], square[:, 1] / square[1].sum())
assert (square / square.sum(1, keepdim=True)).sum(1).tolist() == [1.0, 1.0]
assert complaint(lambda: torch.ones(2, 3) / torch.ones(2, 3).sum(1))

wide = torch.zeros(3, 1).expand(3, 4)
wide[0, 0] = 5  # no exception, no warning
print(wide[0].tolist(), wide.stride())
assert wide[0].tolist() == [5.0] * 4
assert 0 in wide.stride()
wide[0, 0].add_(1)  # silent, too: one element does not overlap itself
assert wide[0].tolist() == [6.0] * 4
assert "refers to a single memory location" in complaint(lambda: wide.add_(1))
assert prediction.shape != target.shape  # one line before the loss would stop the trap

# %% [markdown] lang="pl"
# Najprostszy strażnik (*guard*) to jeden wiersz przed stratą:
# `assert prediction.shape == target.shape`. Gdy stratę liczy cudzy kod i kształtów nie
# widać, wklej do testu klasę `NoBroadcast`. PyTorch przekazuje obiektowi
# `TorchDispatchMode` każdą operację z bloku, zanim ją wykona, i sam oznacza większość
# operacji elementowych etykietą `torch.Tag.pointwise`. Strażnik wymaga, by argumenty tak
# oznaczonych operacji miały równe kształty; liczby i tensory bez wymiarów są dozwolone.
# Odrzuca też operację `expand`, jeśli zmienia ona kształt, bo tak rozgłasza swoje
# argumenty funkcja `F.mse_loss`. Moduły `torch.utils._python_dispatch` i
# `torch.utils._pytree` są prywatne; działają tak w wersji {{ torch_version }}.

# %% [markdown] lang="en"
# The simplest guard is one line before the loss:
# `assert prediction.shape == target.shape`. When someone else's code computes the loss
# and you cannot see the shapes, paste the class `NoBroadcast` into a test. PyTorch
# hands a `TorchDispatchMode` each operation of the block before running it, and itself
# marks most elementwise operations with the tag `torch.Tag.pointwise`. For operations
# with this tag the guard requires tensors of equal shapes; numbers and tensors without
# dimensions are allowed. It refuses the operation `expand` too if that changes a shape,
# because this is how the function `F.mse_loss` broadcasts its arguments. The modules
# `torch.utils._python_dispatch` and `torch.utils._pytree` are private; they work like
# this in version {{ torch_version }}.

# %%
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class NoBroadcast(TorchDispatchMode):
    """Refuse elementwise operations on tensors of different shapes."""

    def __init__(self) -> None:  # only for type checkers: PyTorch's has no types
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
        expands = func is torch.ops.aten.expand.default
        if expands:
            tensors.append(func(*args, **kwargs))  # a view, takes no memory
        shapes = {tuple(x.shape) for x in tensors if x.dim()}
        if len(shapes) > 1 and (expands or torch.Tag.pointwise in func.tags):
            raise ValueError(f"{func}: shapes {sorted(shapes)} differ")
        output: object = func(*args, **kwargs)
        return output


# %% raises="ValueError: aten.sub.Tensor: shapes [(256,), (256, 1)] differ"
with NoBroadcast():
    loss = ((prediction - target) ** 2).mean()


# %% fold=true
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
quiet = {n: f for n, f in suspects.items() if "ValueError" not in reactions[n]}
variants = quiet | more
p, y = torch.rand(6, 1), torch.rand(6)
with warnings.catch_warnings(action="ignore"):
    refusals = {n: complaint(partial(guarded, f, p, y)) for n, f in variants.items()}
blind = [name for name, text in refusals.items() if not text.endswith("differ")]
flat = p.squeeze(1)  # (6,)
tested = len(variants)
print(f"{tested} variants, missed: {blind}")
assert not blind
assert "aten.expand" in refusals["mse_loss"]
assert complaint(partial(guarded, own_loss, p.T, y)).endswith("differ")  # (1, 6)
assert all(torch.equal(guarded(f, flat, y), f(flat, y)) for f in variants.values())
assert guarded(lambda p, y: p.expand(-1, -1), p, p).shape == p.shape  # no broadcast
# Deliberate broadcasting is refused too, and so is the backward pass of a sum.
by_sum = partial(guarded, torch.div, p, p.sum(0, keepdim=True))
assert complaint(by_sum).endswith("differ")
weights = torch.rand(6, 4, requires_grad=True)
with NoBroadcast():
    assert complaint((weights * weights).sum(1).mean().backward).endswith("differ")
# Not pointwise, or not marked as such.
assert not complaint(partial(guarded, torch.dist, p, y))
assert guarded(torch.complex, p, y).shape == (6, 6)
one = p[:1]  # a batch of one sample, (1, 1)
assert (one.squeeze().shape, one.squeeze(1).shape) == ((), (1,))

# %% [markdown] lang="pl"
# - Co łapie: odejmowanie z początku lekcji i wszystkie {{ tested }} sprawdzonych odmian
#   tej pomyłki; przy równych kształtach nie zmienia wyniku.
# - Czego nie łapie: operacji bez tej etykiety, np. `torch.dist` i `torch.complex`.
# - Gdzie go użyć: w teście, wokół samej straty, bez wywołania metody `backward`. Odrzuca
#   także rozgłaszanie celowe, a w przejściu wstecz jest ono zwyczajne.
# - Jak poprawić sam błąd: u źródła, przez `squeeze(1)`. Metoda `squeeze()` bez argumentu
#   usuwa z partii o jednej próbce także wymiar partii.
#
# > [!NOTE]
# > Obliczenia w tej lekcji wykonuje procesor. Reguła i sumowanie gradientów nie zależą od
# > urządzenia, ale na GPU ich tu nie sprawdzono; tabela N × N może wyczerpać pamięć karty.
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
# - Wyjaśniasz, dlaczego rozgłoszony argument operacji elementowej dostaje sumę gradientów
#   i że sumuje silnik, a nie węzeł.
# - Przewidujesz, ile pamięci zajmie operacja elementowa w przejściu w przód.
# - Wychwytujesz parę kształtów (N, 1) i (N,), zanim model nauczy się średniej.
#
# Poprzednia lekcja: [01, o magazynie danych i widokach](01_storage_vs_view.py).
# Następna: [03, o funkcji `einsum`](03_einsum_is_all_you_need.py). W dokumentacji:
# [Broadcasting semantics](https://docs.pytorch.org/docs/stable/notes/broadcasting.html),
# [torch.Tensor.expand](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.expand.html).

# %% [markdown] lang="en"
# - What it catches: the subtraction we started with and all {{ tested }} variants of the
#   mistake that we tried; with equal shapes it does not change the result.
# - What it misses: operations without this tag, such as `torch.dist` and
#   `torch.complex`.
# - Where to use it: in a test, around the loss alone, without a call of the method
#   `backward`. It refuses deliberate broadcasting too, and the backward pass broadcasts
#   routinely.
# - How to fix the mistake itself: at its source, with `squeeze(1)`. The method
#   `squeeze()` without an argument also removes the batch dimension from a batch with
#   one sample.
#
# > [!NOTE]
# > This lesson runs on the CPU. The rule and the summing of gradients do not depend on the
# > device, but were not checked on a GPU here; the N × N table can use up a card's memory.
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
# - Work out the result's shape and the operands' strides from two shapes.
# - Explain why a broadcast operand of an elementwise operation gets a sum of gradients,
#   and that the engine, not the node, does the summing.
# - Predict how much memory an elementwise operation takes in the forward pass.
# - Catch the shapes (N, 1) and (N,) before a model learns the mean.
#
# Previous lesson: [01, on storage and views](01_storage_vs_view.py). Next:
# [03, on the function `einsum`](03_einsum_is_all_you_need.py). In the documentation:
# [Broadcasting semantics](https://docs.pytorch.org/docs/stable/notes/broadcasting.html),
# [torch.Tensor.expand](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.expand.html).

# %% [markdown] lang="pl"
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# ## Belts: test yourself


# %%
@dataclass(frozen=True)
class Operand:
    """A tensor taken apart; only the black exercise uses it."""

    cells: tuple[float, ...]  # its storage
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


# %% [markdown] lang="pl" exercise="predict-shapes" role="prompt" belt="white" minutes=6
# ### Biały: przewidź kształt
#
# Dla każdej z ośmiu par wpisz kształt wyniku albo `None`, jeśli będzie wyjątek. Nie
# uruchamiaj dodawania: policz.

# %% [markdown] lang="en" exercise="predict-shapes" role="prompt" belt="white" minutes=6
# ### White: predict the shape
#
# For each of the eight pairs, fill in the shape of the result, or `None` if there is an
# exception. Do not run the additions: work them out.

# %% exercise="predict-shapes" role="starter"
answers: dict[str, tuple[int, ...] | None] = {  # your answers
    "(5, 1) + (4,)": (),
    "(8, 1, 6) + (7, 1)": (),
    "(4, 3) + (4,)": (),
    "(2, 3) + (3, 2)": (),
    "() + (2, 3)": (),
    "(0,) + (1,)": (),
    "(2, 0) + (3,)": (),
    "(3, 1, 5) + (3, 5)": (),
}

# %% exercise="predict-shapes" role="check"
questions: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "(5, 1) + (4,)": ((5, 1), (4,)),
    "(8, 1, 6) + (7, 1)": ((8, 1, 6), (7, 1)),
    "(4, 3) + (4,)": ((4, 3), (4,)),
    "(2, 3) + (3, 2)": ((2, 3), (3, 2)),
    "() + (2, 3)": ((), (2, 3)),
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
        pl=f"{question}: {given} to nie to; w każdym wymiarze rozmiar 1 ustępuje innemu"
        + (", nawet rozmiarowi 0" if 0 in left + right else ""),
        en=f"{question}: not {given}; in each dimension size 1 gives way to any other"
        + (", even to size 0" if 0 in left + right else ""),
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
    "(2, 3) + (3, 2)": None,
    "() + (2, 3)": (2, 3),
    "(0,) + (1,)": (0,),
    "(2, 0) + (3,)": None,
    "(3, 1, 5) + (3, 5)": (3, 3, 5),
}

# %% exercise="predict-shapes" role="wrong" says="(0,) + (1,): not (1,)"
answers = {  # takes the larger size of the two
    "(5, 1) + (4,)": (5, 4),
    "(8, 1, 6) + (7, 1)": (8, 7, 6),
    "(4, 3) + (4,)": None,
    "(2, 3) + (3, 2)": None,
    "() + (2, 3)": (2, 3),
    "(0,) + (1,)": (1,),
    "(2, 0) + (3,)": None,
    "(3, 1, 5) + (3, 5)": (3, 3, 5),
}

# %% exercise="predict-shapes" role="solution"
answers = {
    "(5, 1) + (4,)": (5, 4),  # (5, 1) against (1, 4): both are stretched
    "(8, 1, 6) + (7, 1)": (8, 7, 6),  # (8, 1, 6) against (1, 7, 1)
    "(4, 3) + (4,)": None,  # the last dimensions are 3 and 4
    "(2, 3) + (3, 2)": None,  # the number of elements does not matter
    "() + (2, 3)": (2, 3),  # no dimensions: all are missing, all are 1
    "(0,) + (1,)": (0,),  # 1 gives way to 0
    "(2, 0) + (3,)": None,  # 0 against 3, and neither is 1
    "(3, 1, 5) + (3, 5)": (3, 3, 5),  # (3, 1, 5) against (1, 3, 5)
}

# %% [markdown] lang="pl" exercise="padding-mask" role="prompt" belt="brown" minutes=15
# ### Brązowy: maska, która nie zależy od przypadkowej zgodności rozmiarów
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
    keep = torch.rand(batch, keys) < 0.5
    keep[torch.arange(batch), torch.randint(keys, (batch,))] = True  # one real key
    keep[-1] = True  # a sample without padding
    before = logits.clone()
    sizes = f"batch={batch} heads={heads} queries={queries} keys={keys}"
    with CallCounter() as calls:
        try:
            weights = attention_weights(logits, keep)
        except RuntimeError as error:
            raise AssertionError(
                say(
                    pl=f"{sizes}: kształty nie pasują ({error}); wypisz wymiary maski pod "
                    "wymiarami scores, od prawej",
                    en=f"{sizes}: the shapes do not fit ({error}); write the dimensions "
                    "of the mask under those of scores, from the right",
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


torch.manual_seed(3)
for _ in range(5):
    check_mask(5, 2, 5, 5)  # the square
    check_mask(6, 2, 3, 4)
    check_mask(2, 1, 4, 4)
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
    # With batch == queries the sample index is taken for the query index.
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
# Napisz przejście wstecz przez mnożenie z rozgłaszaniem `a * b` na samych listach, bez
# wywołań PyTorcha. Argument to obiekt klasy `Operand`: magazyn (`cells`), kształt, kroki
# i przesunięcie. Lista `upstream` to gradient wyniku w kolejności,
# w której ostatni indeks zmienia się najszybciej. Zwróć gradienty
# obu **magazynów**, po jednej liczbie na komórkę. Argumenty bywają transponowane, wycięte
# i rozciągnięte. Możesz użyć funkcji `broadcast_shape` i `stretched`.

# %% [markdown] lang="en" exercise="walk-backward" role="prompt" belt="black" minutes=25
# ### Black: the gradient cell by cell
#
# Write the backward pass of a broadcast multiplication `a * b` on plain lists, without
# calling PyTorch. An operand is an `Operand` object: a storage (`cells`), a shape, strides
# and an offset. The list `upstream` is the gradient of the result, the last index
# changing fastest. Return the gradients of both **storages**, one number per cell. Operands may be transposed, sliced
# and expanded. You may use the functions `broadcast_shape` and `stretched`.


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
                pl=f"{names}: komórka {cell} jest używana {n:g}×, więc jej gradient to "
                f"suma wkładów, {right:g}, a nie {mine:g}",
                en=f"{names}: cell {cell} is used {n:g} times, so its gradient is the "
                f"sum of the contributions, {right:g}, not {mine:g}",
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


torch.manual_seed(2)
walk_check(numbers(2, 3), numbers(3, 2).t())
walk_check(numbers(2, 1), numbers(3))
walk_check(numbers(0, 3), numbers(1, 3))
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


# %% exercise="walk-backward" role="wrong" says="so its gradient is the sum of the contributions"
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
