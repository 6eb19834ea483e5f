# %% [markdown] lang="pl"
# # Graf obliczeniowy pod lupą
#
# Przejście w przód (*forward pass*) zostawia w pamięci graf. Po tej lekcji powiesz, co w nim
# leży, ile zajmuje i kiedy zostanie zwolnione, a grafy, które narastają w pętli,
# wykryjesz strażnikiem (*guard*).
#
# ## Dobry wynik, rosnąca pamięć
#
# Funkcja `validate` liczy średnią stratę modelu. Klasa `MemoryMeter` mierzy bajty tensorów,
# które powstały w jej bloku: `live` to te, które żyją w tej chwili, a `peak` to największa
# dotąd wartość `live`. Partia (*batch*) ma 64 obrazki 8 × 8.

# %% [markdown] lang="en"
# # The computational graph under the microscope
#
# A forward pass leaves a graph in memory. After this lesson you can say what is in it, how
# much memory it takes and when it is released, and you catch graphs that pile up in a loop
# with a guard.
#
# ## A good result, growing memory
#
# The function `validate` computes the mean loss of a model. The class `MemoryMeter` counts
# the bytes of tensors that are made in its block: `live` is those alive right now, and
# `peak` is the highest value of `live` so far. A batch has 64 images of 8 × 8.

# %% fold=true
import gc
import math
import random
import weakref
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, ORANGE, show_figure
from snippets.graph_nodes import graph_of
from snippets.graph_pictures import show_graph
from snippets.memory import MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)
Batch = tuple[Tensor, Tensor]  # images (64, 1, 8, 8), classes (64,)
batches = [(torch.randn(64, 1, 8, 8), torch.randint(10, (64,))) for _ in range(40)]
model = nn.Sequential(
    OrderedDict(
        conv=nn.Conv2d(1, 8, 3, padding=1, bias=False),
        bn=nn.BatchNorm2d(8),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flat=nn.Flatten(),
        head=nn.Linear(128, 10),
    )
)


# %%
def validate(batches: Sequence[Batch]) -> float:
    model.eval()
    total = torch.zeros(())
    for x, target in batches:
        total += F.cross_entropy(model(x), target)
    return total.item() / len(batches)


peaks = {}
for count in (10, 20, 40):
    with MemoryMeter() as meter:
        mean_loss = validate(batches[:count])
    peaks[count] = meter.peak
    print(f"{count} batches: {mean_loss=:.3f} {meter.peak=} {meter.live=}")
    assert meter.live == 0
leak = (peaks[40] - peaks[20]) // 20
assert peaks[40] - peaks[20] == 20 * leak and peaks[20] - peaks[10] == 10 * leak

# %% [markdown] lang="pl"
# Wyjątku nie ma, po powrocie z funkcji pamięć jest wolna, a mimo to szczyt rośnie o
# {{ leak }} B z każdą partią. Przy dość dużym zbiorze zabraknie pamięci, choć wynikiem
# jest jedna liczba. Pytanie lekcji: **co graf trzyma w pamięci i co go zwalnia?**
#
# ## Węzły, krawędzie, liście
#
# Gdy choć jedno wejście operacji wymaga gradientu, a jej wynik jest nowy i da się go różniczkować,
# autograd (o ile nie jest wyłączony) zapisuje ją jako **węzeł**
# (*node*) grafu obliczeniowego (*computational graph*): obiekt, który z gradientu wyniku
# policzy gradienty wejść. Do węzła prowadzi atrybut `grad_fn` wyniku, a z węzła krawędzie
# `next_functions` do węzłów operacji, które dały wejścia. Krawędź to para: następny węzeł i numer
# tego wyniku jego operacji, którego gradient tam płynie; `None` zamiast węzła znaczy, że to wejście
# gradientu nie wymaga. **Liść grafu** (*leaf tensor*), taki jak
# `w` poniżej, nie powstał z zapisanej operacji, więc jego `grad_fn` to `None`.

# %% [markdown] lang="en"
# There is no exception, memory is free after the function returns, and still the peak grows
# by {{ leak }} bytes with every batch. On a large enough data set memory runs out, although
# the result is a single number. The question of this lesson: **what does the graph keep in
# memory, and what releases it?**
#
# ## Nodes, edges, leaves
#
# If at least one input of an operation requires a gradient, and its result is new and
# differentiable, autograd (unless switched off) records the operation as a
# **node** of the computational graph: an object that computes the gradients of the inputs
# from the gradient of the result. The attribute `grad_fn` of the result leads to the node, and
# the edges `next_functions` lead on to the nodes of the operations that made the inputs. An edge
# is a pair: the next node, and the number of that result of its operation whose gradient goes there;
# `None` instead of a node means that this input requires no gradient. A **leaf tensor**, such
# as `w` below, was not made by a recorded operation, so its `grad_fn` is `None`.

# %%
w = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
h = w.exp()
y = (h.sin() * h.cos()).sum()

root: Any = y.grad_fn
mul_node = root.next_functions[0][0]
sin_node, cos_node = (node for node, _ in mul_node.next_functions)
exp_node = sin_node.next_functions[0][0]
leaf_node = exp_node.next_functions[0][0]
print(*(n.name() for n in (root, mul_node, sin_node, cos_node, exp_node, leaf_node)))
assert cos_node.next_functions[0][0] is exp_node
assert h.grad_fn == exp_node
assert w.is_leaf and w.grad_fn is None and leaf_node.variable is w
leaf_node(torch.ones(3))  # the engine calls it like this
assert w.grad is not None and w.grad.sum() == 3
assert (w > 0).grad_fn is None and w.contiguous() is w  # not recorded
address = h.data_ptr()
del h
_, middle, _ = w.unbind()
times_two: Any = (middle * 2).grad_fn
assert times_two.next_functions == ((middle.grad_fn, 1), (None, 0))
assert exp_node._saved_result.data_ptr() == address  # the memory of h stays
assert sin_node._saved_self.data_ptr() == cos_node._saved_self.data_ptr() == address

# %% [markdown] lang="pl"
# Na miejscu liścia stoi w grafie węzeł `AccumulateGrad`: doda on gradient do `w.grad`.
# Usunięcie nazwy `h` nie zwolniło pamięci, bo węzły mają **zapamiętane tensory** (*saved tensors*), których
# wymagają wzory na pochodne. W operacjach wbudowanych widać je jako atrybuty `_saved_…`.

# %% [markdown] lang="en"
# In the graph the node `AccumulateGrad` stands for the leaf: it will add the gradient to
# `w.grad`. Deleting the name `h` has not released its memory, because the nodes have **saved
# tensors**, which the formulas of the derivatives need. In built-in operations they
# show up as attributes `_saved_…`.

# %% fold=true
picture = graph_of(y, names={"w": w})
sizes_of = {item.name: item.parts for item in picture}
assert sizes_of["Exp"] == (12, 0, 0) and sizes_of["Mul"] == (24, 0, 0)
assert sizes_of["Sin"] == sizes_of["Cos"] == (0, 12, 0)
show_graph(
    picture,
    alt_pl="Sześć węzłów. Od Sum strzałka do Mul, od Mul dwie: do Sin i do Cos, od obu po "
    "jednej do Exp, a od Exp do AccumulateGrad z liściem w. Mul trzyma 24 bajty, Exp 12 "
    "bajtów, a Sin i Cos po 12 bajtów w nawiasach.",
    alt_en="Six nodes. An arrow from Sum to Mul, two from Mul: to Sin and to Cos, one from "
    "each of these to Exp, and one from Exp to AccumulateGrad with the leaf w. Mul keeps 24 "
    "bytes, Exp 12 bytes, Sin and Cos 12 bytes each in parentheses.",
)

# %% [markdown] lang="pl"
# Strzałki biegną tak jak gradienty, od korzenia `y.grad_fn`; końcówkę `Backward0` rysunek pomija. Do `Exp`
# prowadzą dwie, więc graf nie jest drzewem. Pełny pasek to pamięć, którą trzyma węzeł:
# `Exp` swój wynik, a `Mul` oba czynniki. Kropkowany to magazyn danych (*storage*), który
# trzyma już węzeł niżej: `Sin` i `Cos` zapamiętały wynik `Exp`. W nawiasach stoją bajty, które
# nie zajmują dodatkowej pamięci.
#
# ## Bajty w węzłach
#
# Teraz model z funkcji `validate`: splot, BatchNorm, ReLU, max pooling i warstwa liniowa. Z
# przejścia w przód zostawiamy sobie tylko stratę.

# %% [markdown] lang="en"
# The arrows run as gradients do, from the root `y.grad_fn`; the picture leaves out the ending
# `Backward0`. Two of them lead to `Exp`, so the graph is not a tree. A filled bar is memory
# that the node keeps: `Exp` its result, `Mul` both factors. A dotted one is a storage that a
# node below keeps already: `Sin` and `Cos` have saved the result of `Exp`. Parentheses hold the
# bytes that take no further memory.
#
# ## Bytes in the nodes
#
# Now the model of the function `validate`: convolution, BatchNorm, ReLU, max pooling and a
# linear layer. We keep only the loss from the forward pass.

# %% [markdown] lang="pl" predict="what-stays"
# ```python
# loss = F.cross_entropy(model(x), target)
# ```
#
# Które z trzech wyników są jeszcze w pamięci: splotu, BatchNorm, ReLU?
#
# - [ ] Żaden: nazwę ma tylko `loss`
#
#   Nazwa jest zbędna: `loss` ma `grad_fn`, a przez krawędzie prowadzi on do wszystkich węzłów
#   i tego, co zapamiętały. W pamięci zostało {{ live }} B, z czego strata to {{ loss_bytes }} B.
#
# - [x] Wyniki splotu i ReLU
#
#   Warstwa BatchNorm zapamiętała swoje wejście, czyli wynik splotu, a ReLU swój wynik. Wyniku
#   BatchNorm nie zapamiętał żaden węzeł. Żyje też wynik max poolingu: zapamiętała go warstwa
#   liniowa, a `flat` to jego widok.
#
# - [ ] Wszystkie trzy: każdy był wejściem kolejnej warstwy
#
#   Liczy się wzór na pochodną, nie kolejność. Warstwie ReLU wystarcza jej własny wynik, więc
#   magazyn wyniku BatchNorm został już zwolniony.

# %% [markdown] lang="en" predict="what-stays"
# ```python
# loss = F.cross_entropy(model(x), target)
# ```
#
# Which of these three results are still in memory: the convolution's, BatchNorm's, ReLU's?
#
# - [ ] None: only `loss` has a name
#
#   No name is needed: `loss` has a `grad_fn`, and the edges lead from it to all nodes and what
#   they saved. {{ live }} bytes have stayed in memory, and {{ loss_bytes }} of them are the loss.
#
# - [x] The convolution's and ReLU's
#
#   BatchNorm saved its input, which is the result of the convolution, and ReLU saved its own
#   result. No node saved the result of BatchNorm. The result of max pooling is alive, too: the
#   linear layer saved it, and `flat` is a view of it.
#
# - [ ] All three: each was the input of the next layer
#
#   What counts is the formula of the derivative, not the order. ReLU needs only its own result,
#   so the storage of BatchNorm's result has already been released.

# %%
x, target = batches[0]
storages = {}
with MemoryMeter() as meter:
    out = x
    for name, layer in model.named_children():
        out = layer(out)
        storages[name] = weakref.ref(out.untyped_storage())
    loss = F.cross_entropy(out, target)
    del out
alive = {name: storage() is not None for name, storage in storages.items()}
print(alive)
live, loss_bytes = meter.live, loss.nbytes
print(f"{live=} {loss_bytes=}")
assert alive["conv"] and alive["relu"] and not alive["bn"]
assert alive["pool"] and storages["flat"]() is storages["pool"]()  # a view

# %% [markdown] lang="pl"
# Ile bajtów powinien trzymać graf? Policzmy to z kształtów, a potem porównajmy z sumą po
# węzłach. Funkcja `graph_of` przechodzi po `next_functions` i liczy każdy magazyn raz, a to, co
# żyje także bez grafu (parametry, bufory i partię), liczy osobno.

# %% [markdown] lang="en"
# How many bytes should the graph keep? Let's compute that from shapes, then compare with the
# sum over the nodes. The function `graph_of` walks along `next_functions` and counts each
# storage once; it counts separately what lives without the graph, too (parameters, buffers and
# the batch).

# %%
names = {**dict(model.named_parameters()), **dict(model.named_buffers())}
names |= {"x": x, "target": target}
graph = graph_of(loss, names=names)
saved = sum(item.saved for item in graph)
activation = 64 * 8 * 8 * 8 * 4  # results of conv and of relu, float32
pooled, indices = 64 * 8 * 4 * 4 * 4, 64 * 8 * 4 * 4 * 8  # float32 and int64
log_probabilities, total_weight = 64 * 10 * 4, 4  # LogSoftmax, NllLoss
expected = 2 * activation + pooled + indices + log_probabilities + total_weight
print(f"{expected=} {saved=} {live=} {leak=}")
assert expected == saved == live - loss.nbytes == leak

node_of: dict[str, Any] = {item.name: item.node for item in graph}
assert node_of["NativeBatchNorm"]._saved_input.untyped_storage() is storages["conv"]()
assert node_of["Relu"]._saved_result.untyped_storage() is storages["relu"]()
assert node_of["Addmm"]._saved_mat1.untyped_storage() is storages["flat"]()

# %% fold=true
assert len(graph) == 14
parts_of = {item.name: item.parts for item in graph}
assert parts_of["Relu"] == (activation, 0, 0)
assert parts_of["MaxPool2DWithIndices"] == (indices, activation, 0)
show_graph(
    graph,
    alt_pl="Czternaście węzłów. Z lewej biegnie łańcuch od NllLoss do Convolution, od którego "
    "odchodzi pięć węzłów AccumulateGrad z parametrami. Najdłuższe pełne paski mają "
    "NativeBatchNorm i Relu, po 131072 bajty; przy MaxPool pełny pasek to 65536 bajtów, a kropkowany "
    "131072. Krótkie przerywane paski mają NllLoss, Addmm, NativeBatchNorm i Convolution.",
    alt_en="Fourteen nodes. On the left a chain from NllLoss to Convolution, off which five "
    "AccumulateGrad nodes with parameters branch. NativeBatchNorm and Relu have the longest "
    "filled bars, 131072 bytes each; at MaxPool the filled bar is 65536 bytes and the dotted one 131072. "
    "NllLoss, Addmm, NativeBatchNorm and Convolution have short dashed bars.",
)

# %% [markdown] lang="pl"
# Dwa najdłuższe pełne paski to wyniki splotu i ReLU. Wąskie pomarańczowe, przerywane, to bajty,
# które żyją i bez grafu: one też stoją w nawiasach. Zgadzają się cztery liczby: suma z kształtów, suma po węzłach, pomiar po odjęciu
# straty i przyrost szczytu na partię, {{ leak }} B. W `validate` tensor `total` trzymał więc graf **każdej** partii.
#
# ## Co robi z grafem `backward`
#
# W treningu wywołasz jeszcze `loss.backward()`; tu model jest nadal w trybie `eval`. **Silnik autogradu** (*autograd engine*) wykona
# wtedy przejście wstecz (*backward pass*): uruchomi węzły od korzenia do liści.

# %% [markdown] lang="en"
# The two longest filled bars are the results of the convolution and of ReLU. The narrow dashed
# orange ones are bytes that live without the graph, too: they also stand in parentheses. Four numbers agree: the sum from shapes, the sum over nodes,
# the measurement less the loss, and the growth of the peak per batch, {{ leak }} bytes. So in
# `validate` the tensor `total` kept the graph of **every** batch.
#
# ## What `backward` does to the graph
#
# In training you also call `loss.backward()`; here the model is still in `eval` mode. The **autograd engine** then makes the backward
# pass: it runs the nodes from the root to the leaves.

# %% [markdown] lang="pl" predict="after-backward"
# Po `loss.backward()` nadal trzymasz `loss`. Co zostało z grafu?
#
# - [ ] Wszystko: graf zniknie dopiero z `loss`
#
#   Z {{ saved }} B nie został ani bajt: żyją tylko gradienty parametrów i sama strata,
#   {{ live_after }} B.
#
# - [ ] Nic: `backward` usuwa węzły po kolei
#
#   Od `loss` nadal prowadzą krawędzie do {{ nodes_after }} węzłów, tylu samo co przed
#   przejściem wstecz.
#
# - [x] Węzły i krawędzie, ale bez zapamiętanych tensorów
#
#   Silnik opróżnia każdy węzeł zaraz po jego uruchomieniu (chyba że podasz `retain_graph=True`).
#   Samych węzłów nie usuwa, bo trzyma je `loss`.

# %% [markdown] lang="en" predict="after-backward"
# After `loss.backward()` you still hold `loss`. What is left of the graph?
#
# - [ ] Everything: the graph goes only with `loss`
#
#   Of {{ saved }} bytes not one is left: only the gradients of the parameters and the loss
#   itself are alive, {{ live_after }} bytes.
#
# - [ ] Nothing: `backward` deletes the nodes one by one
#
#   From `loss` the edges still lead to {{ nodes_after }} nodes, as many as before the backward
#   pass.
#
# - [x] Nodes and edges, but without saved tensors
#
#   The engine empties each node right after running it (unless you pass `retain_graph=True`). It
#   does not delete the nodes themselves, because `loss` holds them.

# %% [markdown] lang="pl"
# Zobaczmy to od środka. **Hook** to funkcja, którą wywoła sam PyTorch. Podpięta do węzła metodą
# `register_prehook` działa tuż przed jego uruchomieniem. Nasz hook notuje wtedy żywe bajty i
# bajty zapamiętane w węzłach, które jeszcze czekają.

# %% [markdown] lang="en"
# Let's watch it from the inside. A **hook** is a function that PyTorch calls by itself. Attached
# to a node by the method `register_prehook`, it is called right before the node runs. Our hook
# then notes the live bytes, and the bytes saved in nodes that are still waiting.


# %%
moments: list[tuple[str, int, int]] = []  # next node, live bytes, waiting bytes
emptied: list[set[str]] = []


def note(node: str) -> None:
    now = graph_of(loss, names=names)
    moments.append((node, meter.live, sum(item.saved for item in now)))
    emptied.append({item.name for item in now if item.freed})


model.zero_grad()
with MemoryMeter() as meter:
    loss = F.cross_entropy(model(x), target)
    graph = graph_of(loss, names=names)
    for item in graph:
        if not item.leaf:
            item.node.register_prehook(lambda grads, name=item.name: note(name))
    loss.backward()
    note("end")
live_after, peak = meter.live, meter.peak
nodes_after = len(graph_of(loss))
gradients = sum(p.nbytes for p in model.parameters())
print(f"{live_after=} {gradients=} {nodes_after=} {peak=}")
assert live_after == gradients + loss.nbytes and nodes_after == len(graph)
order = [node for node, _, _ in moments]
saving = {item.name for item in graph if any(item.parts)}
for step, empty in enumerate(emptied):  # those that have run, and no others
    assert empty == saving & set(order[:step])

# %% fold=true
waiting = [kept / 1000 for _, _, kept in moments]
lives = [bytes_alive / 1000 for _, bytes_alive, _ in moments]
assert waiting == sorted(waiting, reverse=True) and waiting[-1] == 0
relu = order.index("Relu")
assert max(lives) == lives[relu]
assert max(lives[:relu]) < 1.01 * min(lives[:relu])
assert lives[relu:] == sorted(lives[relu:], reverse=True)
head_gradients = sum(p.nbytes for p in model.get_submodule("head").parameters())
# While Relu runs: results of conv and relu, gradients of relu's result and of its input,
# and what is small: the loss, its gradient, the gradients of head.
assert peak == 4 * activation + 2 * loss.nbytes + head_gradients
assert peak == moments[relu][1] + activation  # before Relu, plus the new gradient
fig, ax = plt.subplots(figsize=(5.2, 3.4))
at = range(len(moments))
ax.bar(at, waiting, color=BLUE, alpha=0.6, width=0.8)
ax.plot(at, lives, color=ORANGE, marker="o")
ax.plot([relu], [peak / 1000], color=ORANGE, marker="X", markersize=9, ls="none")
ax.text(6.4, 515, "while Relu runs", color=ORANGE)
ax.text(6.3, 400, "all live tensors", color=ORANGE)
ax.text(-0.4, 415, "saved in nodes still waiting", color=BLUE)
labels = [node.removesuffix("WithIndices") for node in order]
ax.set_xticks(at, labels, rotation=40, ha="right", fontsize=9)
ax.set(ylabel="kB", xlim=(-0.6, 10.2), ylim=(0, 570))
show_figure(
    fig,
    alt_pl="Wykres po węzłach w kolejności uruchamiania, od NllLoss do Convolution. Słupki "
    "bajtów zapamiętanych w czekających węzłach nigdy nie rosną i kończą na zerze. Linia "
    "wszystkich żywych tensorów prawie stoi do MaxPool, ma maksimum przed Relu i spada. "
    "Krzyżyk nad Relu, przy 529 kB, to szczyt w trakcie tego węzła.",
    alt_en="A plot over the nodes in the order in which they run, from NllLoss to "
    "Convolution. Bars of bytes saved in waiting nodes never rise and end at zero. The line "
    "of all live tensors hardly moves up to MaxPool, has its maximum before Relu, then drops. "
    "A cross above Relu, at 529 kB, is the peak while that node runs.",
    pl={
        "all live tensors": "wszystkie żywe tensory",
        "while Relu runs": "w trakcie Relu",
        "saved in nodes still waiting": "zapamiętane w czekających węzłach",
        "end": "koniec",
    },
    same={"kB", *labels} - {"end"},
)

# %% [markdown] lang="pl"
# Słupki nigdy nie rosną: uruchomiony węzeł jest już pusty. Linia do `MaxPool2D` prawie stoi, bo w
# miejsce bajtów zwolnionych z węzłów przychodzą gradienty. Szczyt, {{ peak }} B, wypada w trakcie `Relu`
# (krzyżyk): żyją wtedy naraz wynik splotu, wynik ReLU oraz gradienty wyniku i wejścia ReLU, po
# {{ activation }} B.
#
# Sam węzeł żyje, dopóki prowadzi do niego jakaś droga: od straty albo choćby od wyniku modelu.
# Pokaże to funkcja `probe`, którą trzyma tylko węzeł:

# %% [markdown] lang="en"
# The bars never rise: a node that has run is empty. The line hardly moves up to `MaxPool2D`,
# because gradients replace the bytes that nodes release. The peak, {{ peak }} bytes, comes while
# `Relu` runs (the cross): the result of the convolution, the result of ReLU, and the gradients
# of ReLU's result and input live at the same time, {{ activation }} bytes each.
#
# A node itself lives as long as some path leads to it: from the loss, or just from the model's
# output. The function `probe`, which only a node holds, shows that:


# %%
def probe(*gradients: object) -> None:
    """Do nothing, and live as long as the node that holds this function."""


scores = model(x)
other_loss = F.cross_entropy(scores, target)
relu_node = next(i.node for i in graph_of(other_loss) if i.name == "Relu")
relu_node.register_hook(probe)
node_lives = weakref.ref(probe)
del probe, relu_node
other_loss.backward(retain_graph=True)
assert not any(item.freed for item in graph_of(other_loss))
other_loss.backward()
assert {item.name for item in graph_of(other_loss) if item.freed} == saving
del other_loss
assert node_lives() is not None  # scores still lead to the node
del scores
assert node_lives() is None

# %% [markdown] lang="pl"
# ## To samo `+=` w treningu
#
# Skoro `backward` opróżnia węzły, instrukcja `total += loss` w pętli treningowej powinna
# zachować się inaczej niż w walidacji. Sprawdźmy trzy sposoby sumowania strat.

# %% [markdown] lang="en"
# ## The same `+=` in training
#
# As `backward` empties nodes, the statement `total += loss` should behave differently in a
# training loop than in validation. Let's try three ways to sum up losses.


# %%
def growth(keep: Callable[[Tensor], Tensor | float], *, train: bool) -> tuple[int, int]:
    """Return how many live bytes and reachable nodes each further batch adds."""
    model.train(train)
    total = torch.zeros(())
    seen = []
    with MemoryMeter() as meter:
        for x, target in batches[:8]:
            loss = F.cross_entropy(model(x), target)
            if train:
                loss.backward()
            total += keep(loss)
            nodes = len(graph_of(total)) if total.requires_grad else 0
            seen.append((meter.live, nodes))
    steps = {(b - a, m - n) for (a, n), (b, m) in pairwise(seen)}
    assert len(steps) == 1  # the same in every step
    return steps.pop()


for train in (False, True):
    print(f"{train=}")
    print("  total += loss         ", growth(lambda loss: loss, train=train))
    print("  total += loss.detach()", growth(lambda loss: loss.detach(), train=train))
    print("  total += loss.item()  ", growth(lambda loss: loss.item(), train=train))
bytes_step, nodes_step = growth(lambda loss: loss, train=True)
assert growth(lambda loss: loss, train=False) == (leak, nodes_step)
shared_nodes = sum(bool(item.leaf) for item in graph)  # AccumulateGrad
own_nodes = len(graph) - shared_nodes
assert (bytes_step, nodes_step) == (0, own_nodes + 1)
for train in (False, True):
    assert growth(lambda loss: loss.detach(), train=train) == (0, 0)
    assert growth(lambda loss: loss.item(), train=train) == (0, 0)

# %% [markdown] lang="pl"
# Pierwsza liczba to bajty, druga węzły. W treningu każdy krok dokłada {{ bytes_step }} B tensorów,
# ale {{ nodes_step }} węzłów (pamięci samych węzłów tu nie mierzymy): {{ own_nodes }} węzłów modelu
# i straty oraz jeden węzeł dodawania. Pozostałe {{ shared_nodes }} węzłów grafu, `AccumulateGrad`, jest
# wspólnych dla wszystkich kroków. W walidacji, bez `backward`, do węzłów dochodzi {{ leak }} B. Suma z
# `loss.detach()` albo `loss.item()` nie trzyma niczego. Walidację najlepiej jednak wykonać w trybie
# `torch.no_grad`, bo wtedy graf w ogóle nie powstaje:

# %% [markdown] lang="en"
# The first number is bytes, the second nodes. In training each step adds {{ bytes_step }} bytes of
# tensors, but {{ nodes_step }} nodes (the memory of nodes themselves is not measured here):
# {{ own_nodes }} nodes of the model and the loss, and one of the addition. The other
# {{ shared_nodes }} nodes of the graph, `AccumulateGrad`, are shared by all steps. In validation, without `backward`,
# {{ leak }} bytes come on top of the nodes. A sum of `loss.detach()` or `loss.item()` keeps nothing.
# Validation, though, is best run under `torch.no_grad`, where no graph is made in the first place:

# %%
with torch.no_grad():
    with MemoryMeter() as meter:
        without_graph = validate(batches[:10])
    with MemoryMeter() as longer:
        validate(batches)
    assert F.cross_entropy(model(x), target).grad_fn is None
with_graph = validate(batches[:10])  # anew: training has moved BatchNorm's averages
print(f"{without_graph=:.3f} {meter.peak=}")
print(f"{with_graph=:.3f} {peaks[10]=}")
assert longer.peak == meter.peak < leak
assert without_graph == with_graph

# %% [markdown] lang="pl"
# ## Silnik od zera
#
# Cały mechanizm mieści się w kilkudziesięciu wierszach: węzły z krawędziami i zapamiętanymi
# liczbami, wzory na pochodne oraz silnik. Silnik najpierw liczy, ile gradientów przyjdzie do
# każdego węzła, a potem uruchamia węzeł, gdy przyszły wszystkie. Dzięki temu każdy węzeł
# działa raz, choćby prowadziło do niego wiele dróg.

# %% [markdown] lang="en"
# ## An engine from scratch
#
# The whole mechanism fits into a few dozen lines: nodes with edges and saved numbers, formulas
# of derivatives, and an engine. The engine first counts how many gradients will come to each
# node, and then runs a node once all of them have come. So every node runs once, however many
# paths lead to it.


# %%
@dataclass(eq=False)
class MiniNode:
    name: str
    edges: tuple["MiniNode", ...] = ()
    saved: tuple[float, ...] = ()
    grad: float = 0.0  # used by AccumulateGrad


@dataclass(frozen=True, eq=False)
class Number:
    data: float
    node: MiniNode


@dataclass(frozen=True)
class Formula:
    forward: Callable[..., float]
    saves: Callable[..., tuple[float, ...]]  # of the inputs and the result
    backward: Callable[..., tuple[float, ...]]  # of the gradient and what was saved


FORMULAS = {
    "Add": Formula(lambda a, b: a + b, lambda a, b, y: (), lambda g: (g, g)),
    "Mul": Formula(
        lambda a, b: a * b, lambda a, b, y: (a, b), lambda g, a, b: (g * b, g * a)
    ),
    "Sin": Formula(math.sin, lambda a, y: (a,), lambda g, a: (g * math.cos(a),)),
    "Tanh": Formula(math.tanh, lambda a, y: (y,), lambda g, y: (g * (1 - y * y),)),
}


def record(name: str, *inputs: Number) -> Number:
    numbers = [number.data for number in inputs]
    result = FORMULAS[name].forward(*numbers)
    edges = tuple(number.node for number in inputs)
    return Number(result, MiniNode(name, edges, FORMULAS[name].saves(*numbers, result)))


def run_backward(root: MiniNode) -> None:
    missing: Counter[MiniNode] = Counter()  # gradients that have not come yet
    stack, seen = [root], {root}
    while stack:
        for child in stack.pop().edges:
            missing[child] += 1
            if child not in seen:
                seen.add(child)
                stack.append(child)
    gradient = defaultdict(float, {root: 1.0})
    ready = [root]
    while ready:
        node = ready.pop()
        if node.name == "AccumulateGrad":
            node.grad += gradient[node]
            continue
        parts = FORMULAS[node.name].backward(gradient[node], *node.saved)
        node.saved = ()  # emptied, but not deleted
        for child, part in zip(node.edges, parts, strict=True):
            gradient[child] += part
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)


# %% [markdown] lang="pl"
# Wzorcem jest PyTorch. Losowe wyrażenie ma trzy liście i dwanaście operacji na losowych
# wcześniejszych wynikach. Porównujemy gradienty liści i to, ile jest w grafie węzłów każdego
# rodzaju.

# %% [markdown] lang="en"
# PyTorch is the oracle. A random expression has three leaves and twelve operations on random
# earlier results. We compare the gradients of the leaves, and how many nodes of each kind
# are in the graph.

# %% fold=true
TORCH_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "Mul": torch.mul,
    "Sin": torch.sin,
    "Tanh": torch.tanh,
}


def reachable(root: MiniNode) -> set[MiniNode]:
    """Collect the nodes that can be reached."""
    stack, seen = [root], {root}
    while stack:
        fresh = set(stack.pop().edges) - seen
        seen |= fresh
        stack += fresh
    return seen


def both_agree(rng: random.Random) -> bool:
    """Build one expression twice; compare its graphs and its gradients."""
    start = [rng.uniform(-1, 1) for _ in range(3)]
    ours = [Number(number, MiniNode("AccumulateGrad")) for number in start]
    leaves = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in start]
    theirs = list(leaves)
    for _ in range(12):
        name = rng.choice(list(FORMULAS))
        arity = 2 if name in ("Add", "Mul") else 1
        picks = [rng.randrange(len(ours)) for _ in range(arity)]
        ours.append(record(name, *(ours[i] for i in picks)))
        theirs.append(TORCH_OPERATIONS[name](*(theirs[i] for i in picks)))
    kinds = Counter(item.name for item in graph_of(theirs[-1]))
    nodes = reachable(ours[-1].node)
    same_graph = Counter(node.name for node in nodes) == kinds
    run_backward(ours[-1].node)
    assert not any(node.saved for node in nodes)
    theirs[-1].backward()
    return same_graph and all(
        math.isclose(mine.node.grad, 0.0 if leaf.grad is None else leaf.grad.item())
        for mine, leaf in zip(ours, leaves, strict=False)
    )


# %%
tried = 300
rng = random.Random(0)
agreed = sum(both_agree(rng) for _ in range(tried))
one = Number(1.0, MiniNode("AccumulateGrad"))
doubled = one
for _ in range(16):
    doubled = record("Add", doubled, doubled)
run_backward(doubled.node)
ways, mini_nodes = int(one.node.grad), len(reachable(doubled.node))
print(f"{agreed=} of {tried}; {ways=} {mini_nodes=}")
assert agreed == tried
assert ways == 2**16 and mini_nodes == 17

z = torch.ones((), requires_grad=True)
top = z
for _ in range(16):
    top = top + top
runs: Counter[int] = Counter()
for item in graph_of(top):
    item.node.register_prehook(lambda grads, depth=item.depth: runs.update([depth]))
top.backward()
assert z.grad == ways and runs == Counter(range(mini_nodes))  # each ran once

# %% [markdown] lang="pl"
# Zgadza się {{ agreed }} wyrażeń na {{ tried }}. Szesnaście podwojeń `z + z` daje tylko
# {{ mini_nodes }} węzłów, ale {{ ways }} dróg do liścia, a każda dokłada do gradientu 1. W
# PyTorchu jest tak samo i też każdy węzeł uruchomił się raz.
#
# ## Strażnik
#
# Graf między krokami może trzymać suma, lista albo średnia krocząca. Wszystkie wykryjesz tak samo:
# policz węzły osiągalne ze wszystkich tensorów i węzłów, które śledzi moduł `gc`. Po każdym kroku powinno ich
# być mniej więcej tyle samo.

# %% [markdown] lang="en"
# {{ agreed }} of {{ tried }} expressions agree. Sixteen doublings `z + z` make only
# {{ mini_nodes }} nodes, but {{ ways }} paths to the leaf, and each path adds 1 to the gradient.
# In PyTorch it is the same, and there, too, each node ran once.
#
# ## The guard
#
# A sum, a list or a moving average may hold graphs between steps. All of them are detected alike:
# count the nodes that can be reached from all tensors and nodes that the module `gc` tracks. After each step there should
# be about as many of them as before.

# %%
import gc
from contextlib import suppress

from torch import Tensor
from torch.autograd.graph import Node


def alive_nodes() -> int:
    """Count the nodes that can be reached from any tensor or node that `gc` tracks."""
    gc.collect()  # a graph in a reference cycle is no leak
    stack: list[Node | None] = []
    for o in gc.get_objects():
        if issubclass(type(o), Node):
            stack.append(o)
        elif issubclass(type(o), Tensor):
            with suppress(RuntimeError):  # a view that is stale after an in-place step
                stack.append(o.grad_fn)
    seen = set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [child for child, _ in node.next_functions]
    return len(seen)


class GraphGuard:
    """Raise if graphs pile up: make it before a loop, call `check` in every step."""

    def __init__(self, slack: float = 3.0) -> None:
        self.slack = slack  # how many times the first step's graph may grow
        self.before = alive_nodes()
        self.first = 0

    def check(self) -> None:
        now = alive_nodes() - self.before
        self.first = self.first or max(now, 10)  # ten: not to be too sensitive
        if now > self.slack * self.first:
            raise RuntimeError(
                f"{now} graph nodes are alive, the limit is {self.slack * self.first:.0f}: "
                "something that outlives a step holds a graph"
            )


# %% raises="RuntimeError: 40 graph nodes are alive, the limit is 30: something that outlives a step holds a graph"
total = torch.zeros(())
guard = GraphGuard()
for x, target in batches:
    total += F.cross_entropy(model(x), target)
    guard.check()

# %% [markdown] lang="pl"
# Wyjątek przychodzi przy czwartej partii: pamięci musi starczyć na nieco ponad cztery grafy, a jeśli
# jest jej mniej, obniż `slack`. Wypróbujmy strażnika na innych
# postaciach tego błędu w treningu i na pętlach, które dawnych grafów nie trzymają. Wynik to numer kroku, w którym
# strażnik zgłosił wyjątek; `None` znaczy, że milczał.

# %% [markdown] lang="en"
# The exception comes at the fourth batch: there has to be memory for a little over
# four graphs, and if there is less, lower `slack`. Let's try the guard on other
# forms of the mistake, in training, and on loops that hold no old graphs. The result is the step in which the
# guard raised; `None` means that it was silent.

# %%
Keep = Callable[[dict[str, Any], Tensor, Tensor, int], object]
LEAKS: dict[str, Keep] = {
    "list": lambda kept, out, loss, step: kept.setdefault("all", []).append(loss),
    "nodes": lambda kept, out, loss, step: kept.setdefault("all", []).append(
        loss.grad_fn
    ),
    "moving average": lambda kept, out, loss, step: kept.update(
        mean=0.9 * kept.get("mean", 0) + 0.1 * loss
    ),
    "one row": lambda kept, out, loss, step: kept.update({str(step): out[:1]}),
    "every second": lambda kept, out, loss, step: (
        step % 2 or kept.update({str(step): loss})
    ),
}
SOUND: dict[str, Keep] = {
    "detach": lambda kept, out, loss, step: kept.update({str(step): out.detach()}),
    "last loss": lambda kept, out, loss, step: kept.update(last=loss),
}


def alarm_at(keep: Keep) -> int | None:
    """Train for eight steps; return the step in which the guard raised."""
    kept: dict[str, Any] = {}
    guard = GraphGuard()
    for step, (x, target) in enumerate(batches[:8], start=1):
        out = model(x)
        loss = F.cross_entropy(out, target)
        loss.backward()
        keep(kept, out, loss, step)
        try:
            guard.check()
        except RuntimeError:
            return step
    return None


model.train()
alarms = {name: alarm_at(keep) for name, keep in (LEAKS | SOUND).items()}
print(alarms)
assert all(alarms[name] for name in LEAKS)
assert all(alarms[name] is None for name in SOUND)

# %% [markdown] lang="pl"
# Pięć wycieków zgłoszonych, dwie pozostałe pętle przepuszczone. Łatwo przeoczyć `one row`: strata już
# nie istnieje, ale jeden zachowany wiersz wyniku trzyma węzły całego modelu.
#
# Strażnik ma granice. Mówi, że coś trzyma graf, a nie co. Liczy węzły, nie bajty: rosnącą listę
# odłączonych tensorów przepuści. Utwórz go, gdy dawnych grafów już nie ma, i wołaj wewnątrz pętli: gdy
# `validate` już wróci, grafu nie ma. Gdy sumujesz straty kilku partii, wołaj go po ich `backward`. Jeśli
# celowo trzymasz kilka ostatnich strat albo graf kolejnego kroku może urosnąć więcej niż trzykrotnie, na
# przykład na dłuższej sekwencji, podnieś `slack`. Każde wywołanie uruchamia odśmiecanie pamięci i
# przegląda wszystkie obiekty, które śledzi `gc`, więc w długim treningu wołaj go rzadziej. Wołany co setny krok też wykrył wyciek, ale
# dopiero przy czwartym wywołaniu, po {{ steps_until_alarm }} krokach.

# %% [markdown] lang="en"
# Five leaks reported, the other two loops passed. `one row` is easy to miss: the loss is gone, but one
# row of the output that was kept holds the nodes of the whole model.
#
# The guard has limits. It says that something holds a graph, not what. It counts nodes, not bytes: a
# growing list of detached tensors passes. Make it when no old graph is left, and call it inside the
# loop: once `validate` has returned, there is no graph. If you sum the losses of several batches, call
# it after their `backward`. If you keep a few last losses on purpose, or the graph of a later step may be
# more than three times larger, for example on a longer sequence, raise `slack`. Each call runs a
# garbage collection and looks at all objects that `gc` tracks, so in a long run call it less often. Called every hundredth step it found a
# leak, too, but only at the fourth call, after {{ steps_until_alarm }} steps.


# %% fold=true
def calls_until_alarm(graphs: Iterator[Tensor], slack: float = 3.0) -> int | None:
    """Return which call of the guard raised, in a loop over results."""
    guard = GraphGuard(slack)
    for call, _ in enumerate(graphs, start=1):
        try:
            guard.check()
        except RuntimeError:
            return call
    return None


def sines(*lengths: int) -> Iterator[Tensor]:
    for length in lengths:
        state = w
        for _ in range(length):
            state = state.sin()
        yield state


def summed(steps: int, every: int) -> Iterator[Tensor]:
    result = w.sum()
    for step in range(steps):
        result = result + next(sines(20)).sum()
        if step % every == every - 1:
            yield result


def in_cycles(steps: int) -> Iterator[Tensor]:
    for _ in range(steps):
        ring: list[Any] = [next(sines(20))]
        ring.append(ring)
        yield ring[0]


stale = w * 1
pieces = stale.split(2)
stale.mul_(2)  # from now on pieces[0].grad_fn raises
nodes_before = alive_nodes()
validate(batches[:5])
assert alive_nodes() == nodes_before
assert calls_until_alarm(in_cycles(8)) is None
assert calls_until_alarm(sines(10, 100)) == 2
assert calls_until_alarm(sines(10, 100), slack=20.0) is None
late_call = calls_until_alarm(summed(500, every=100))
assert late_call == 4
steps_until_alarm = 100 * late_call
one_row: Any = model(x)[:1]  # its loss was never there
assert "Convolution" in {item.name for item in graph_of(one_row)}
start = torch.ones(3, requires_grad=True)
leaf_lives = weakref.ref(start.untyped_storage())
middle = start.exp()
head, other_head = middle.sum(), middle.tanh()
del start, middle
head.backward()
assert {item.name for item in graph_of(other_head) if item.freed} == {"Exp"}
assert leaf_lives() is not None
del head, other_head
assert leaf_lives() is None

# %% [markdown] lang="pl"
# Odpowiedź: **graf trzyma swoje liście i tensory zapamiętane w swoich węzłach. Domyślnie `backward`
# zwalnia tensory zapamiętane w tych węzłach, które uruchomił. Sam węzeł, razem z tym, co jeszcze pamięta, znika, gdy nie prowadzi już do niego żadna
# referencja, ani wprost, ani przez krawędzie.** Na GPU (tego tu nie zmierzono) zapamiętane tensory
# zajmują pamięć karty, a `loss.item()` czeka na jej wynik, więc w pętli sumuj raczej
# `loss.detach()`.
#
# ## Co już umiesz
#
# - Odczytasz z `grad_fn`, jakie węzły ma graf twojego modelu i ile bajtów trzyma każdy z nich.
# - Powiesz, co zwalnia `backward`, a co znika dopiero z ostatnią referencją.
# - Wykryjesz, że suma, lista lub średnia w pętli trzyma grafy wszystkich kroków.
#
# Wcześniej: [operacje w miejscu](../1_tensors/05_in_place_operations.py), czyli co i w jakiej
# wersji zapamiętują węzły. Dalej:
# [kto śledzi gradient](09_requires_grad_mechanics.py). O tym, kiedy grafu nie opróżniać, jest
# [lekcja o `retain_graph`](12_retain_graph.py).
#
# Dokumentacja: [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html),
# [FAQ](https://docs.pytorch.org/docs/stable/notes/faq.html) o rosnącej pamięci. Źródła: klasa `Node`
# ([function.h](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/function.h)),
# liść ([accumulate_grad.h](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/functions/accumulate_grad.h)),
# silnik: `compute_dependencies` liczy oczekiwane gradienty, a `evaluate_function` opróżnia węzły
# ([engine.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp)).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# The answer: **the graph keeps its leaves and the tensors saved in its nodes. By default `backward`
# releases the tensors saved in those nodes that it ran. A node itself, with what it still remembers, goes when no reference leads to it any more,
# neither directly nor through edges.** On a GPU (not measured here) saved tensors take the card's
# memory, and `loss.item()` waits for its result, so inside a loop prefer to sum `loss.detach()`.
#
# ## Now you can
#
# - Read from `grad_fn` which nodes the graph of your model has and how many bytes each keeps.
# - Tell what `backward` releases, and what goes only with the last reference.
# - Notice that a sum, a list or an average in a loop holds the graphs of all steps.
#
# Before this: [in-place operations](../1_tensors/05_in_place_operations.py), on what nodes
# save and in which version. Next:
# [who tracks the gradient](09_requires_grad_mechanics.py). The
# [lesson on `retain_graph`](12_retain_graph.py) says when not to empty the graph.
#
# Documentation: [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html),
# the [FAQ](https://docs.pytorch.org/docs/stable/notes/faq.html) on growing memory. Source: the class `Node`
# ([function.h](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/function.h)),
# a leaf ([accumulate_grad.h](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/functions/accumulate_grad.h)),
# the engine: `compute_dependencies` counts the gradients to expect, `evaluate_function` empties nodes
# ([engine.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp)).
#
# ## Belts: test yourself

# %% fold=true
READY_MADE: tuple[tuple[dict[str, Any], str], ...] = (
    (globals(), "graph_of"),
    (globals(), "alive_nodes"),
    (graph_of.__globals__, "_parents_first"),  # graph_of under any name
    (vars(torch.autograd), "backward"),
    (vars(torch.autograd), "grad"),
    (vars(torch.autograd), "_engine_run_backward"),
    (vars(torch.autograd.graph), "_engine_run_backward"),
)


@contextmanager
def by_hand() -> Iterator[None]:
    """Refuse the ready-made walks and backward passes while an answer is checked."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(
            say(
                pl="przejdź po grafie samodzielnie, bez gotowych funkcji i bez backward",
                en="walk the graph yourself, without ready-made functions or backward",
            )
        )

    originals = [scope[name] for scope, name in READY_MADE]
    for scope, name in READY_MADE:
        scope[name] = refuse
    try:
        yield
    finally:
        for (scope, name), original in zip(READY_MADE, originals, strict=True):
            scope[name] = original


def random_result(rng: random.Random, operations: int) -> Tensor:
    """Combine three leaves and a constant at random into one number."""
    values = [torch.tensor(rng.uniform(-1, 1), requires_grad=True) for _ in range(3)]
    values.append(torch.tensor(0.5))
    for _ in range(operations):
        name = rng.choice(list(TORCH_OPERATIONS))
        picks = rng.choices(values, k=2 if name in ("Add", "Mul") else 1)
        values.append(TORCH_OPERATIONS[name](*picks))
    return values[-1] + values[0]


# %% [markdown] lang="pl" exercise="count-nodes" role="prompt" belt="white" minutes=8
# ### Biały: policz węzły
#
# Napisz `count_nodes`: ile różnych węzłów, razem z `AccumulateGrad`, da się osiągnąć z
# tensora przez `grad_fn` i `next_functions`. Grafy bywają głębokie na tysiące węzłów, a do
# jednego węzła prowadzi czasem milion dróg.

# %% [markdown] lang="en" exercise="count-nodes" role="prompt" belt="white" minutes=8
# ### White: count the nodes
#
# Write `count_nodes`: how many different nodes, `AccumulateGrad` included, can be reached from a
# tensor through `grad_fn` and `next_functions`. Graphs may be thousands of nodes deep, and a
# million paths may lead to one node.


# %% exercise="count-nodes" role="starter"
def count_nodes(root: Tensor) -> int:
    return 0  # your code


# %% exercise="count-nodes" role="check"
def counted(root: Tensor) -> object:
    """The answer, or the name of the exception that it ended in."""
    try:
        with by_hand():
            return count_nodes(root)
    except (RecursionError, AttributeError) as error:
        return type(error).__name__


rng = random.Random(3)
twice = torch.ones(3, requires_grad=True)
ladder, long = twice * 1, twice * 1
for _ in range(rng.randint(13, 15)):
    ladder = ladder + ladder
for _ in range(rng.randint(5000, 6000)):
    long = long.sin()
for tested, told_pl, told_en in (
    (twice * torch.rand(3), "z * stała", "z * constant"),
    (twice * twice, "z * z", "z * z"),
    (random_result(rng, 15), "losowe wyrażenie", "a random expression"),
    (ladder, "wiele podwojeń z + z", "many doublings z + z"),
    (long, "łańcuch tysięcy operacji", "a chain of thousands of operations"),
):
    nodes_given, nodes_true = counted(tested), len(graph_of(tested))
    assert not isinstance(nodes_given, str), say(
        pl=f"{told_pl}: twoja funkcja zgłasza {nodes_given}",
        en=f"{told_en}: your function raises {nodes_given}",
    )
    assert nodes_given == nodes_true, say(
        pl=f"{told_pl}: wynik {nodes_given}, a węzłów jest {nodes_true}",
        en=f"{told_en}: you return {nodes_given}, and there are {nodes_true} nodes",
    )

# %% [markdown] lang="pl" exercise="count-nodes" role="hint"
# Trzymaj dwa zbiory: węzły już widziane i węzły, od których trzeba jeszcze ruszyć dalej.

# %% [markdown] lang="en" exercise="count-nodes" role="hint"
# Keep two collections: nodes already seen, and nodes to walk on from.

# %% [markdown] lang="pl" exercise="count-nodes" role="hint"
# Węzłem w krawędzi jest `None`, gdy wejście nie wymaga gradientu. Rekurencja domyślnie nie
# zejdzie na głębokość tysięcy węzłów, a lista używana jako stos tak.

# %% [markdown] lang="en" exercise="count-nodes" role="hint"
# The node of an edge is `None` if the input requires no gradient.
# By default, recursion does not go thousands of nodes deep, but a list used as a stack does.


# %% exercise="count-nodes" role="wrong" says="z * z: you return 3, and there are 2"
def count_nodes(root: Tensor) -> int:
    def ways(node: Node | None) -> int:  # one for each way that leads here
        if node is None:
            return 0
        return 1 + sum(ways(child) for child, _ in node.next_functions)

    return ways(root.grad_fn)


# %% exercise="count-nodes" role="wrong" says="z * constant: you return 3"
def count_nodes(root: Tensor) -> int:
    seen, stack = set(), [root.grad_fn]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)  # None is not a node
            stack += [child for child, _ in node.next_functions] if node else []
    return len(seen)


# %% exercise="count-nodes" role="wrong" says="operations: your function raises RecursionError"
def count_nodes(root: Tensor) -> int:
    seen = set()

    def visit(node: Node | None) -> None:
        if node is not None and node not in seen:
            seen.add(node)
            for child, _ in node.next_functions:
                visit(child)

    visit(root.grad_fn)
    return len(seen)


# %% exercise="count-nodes" role="solution"
def count_nodes(root: Tensor) -> int:
    seen: set[Node] = set()
    stack = [root.grad_fn]
    while stack:
        node = stack.pop()
        # A set remembers nodes, so a second way to one of them ends here.
        if node is not None and node not in seen:
            seen.add(node)
            stack += [child for child, _ in node.next_functions]
    return len(seen)


# %% [markdown] lang="pl" exercise="graph-bytes" role="prompt" belt="brown" minutes=15
# ### Brązowy: ile bajtów trzyma graf?
#
# Napisz `graph_bytes`: bajty różnych magazynów zapamiętanych w węzłach grafu, bez magazynów
# jego liści. Partię i bufory, jeśli węzły je zapamiętały, wlicz. Zapamiętane tensory to te atrybuty `_saved_…` węzła, które są tensorami albo
# krotkami tensorów.

# %% [markdown] lang="en" exercise="graph-bytes" role="prompt" belt="brown" minutes=15
# ### Brown: how many bytes does a graph keep?
#
# Write `graph_bytes`: the bytes of different storages that are saved in the nodes of a graph,
# without the storages of its leaves. Count the batch and buffers if nodes saved them. Saved tensors are those attributes `_saved_…` of a node
# that are tensors or tuples of tensors.


# %% exercise="graph-bytes" role="starter"
def graph_bytes(root: Tensor) -> int:
    return 0  # your code


# %% exercise="graph-bytes" role="check"
rng = random.Random(8)
width = rng.randint(20, 40)
first, second = (torch.rand(width, requires_grad=True) for _ in "ab")
some = torch.tensor([rng.randrange(width) for _ in range(5)])
part = torch.rand(width)[5:9].requires_grad_()
images, classes = batches[rng.randrange(40)]
for tested, told_pl, told_en in (
    (first.sin(), "liść zapamiętany przez sin", "a leaf that sin has saved"),
    (first.exp().sin(), "wynik exp zapamiętany dwa razy", "exp's result, saved twice"),
    (first.exp()[1:4].sin(), "wycinek większego magazynu", "a slice of a storage"),
    (first[5:9].sin(), "wycinek liścia", "a slice of a leaf"),
    (part.sin(), "liść, który jest wycinkiem", "a leaf that is a slice"),
    ((first * second)[some], "krotka indeksów", "a tuple of indices"),
    (F.cross_entropy(model(images), classes), "strata modelu", "the model's loss"),
    (random_result(rng, 15), "losowe wyrażenie", "a random expression"),
):
    with by_hand():
        bytes_given = graph_bytes(tested)
    bytes_true = sum(item.saved for item in graph_of(tested))
    assert bytes_given == bytes_true, say(
        pl=f"{told_pl}: wynik {bytes_given}, a graf trzyma {bytes_true} B",
        en=f"{told_en}: you return {bytes_given}, and the graph keeps {bytes_true} bytes",
    )

# %% [markdown] lang="pl" exercise="graph-bytes" role="hint"
# Nazwy atrybutów daje `dir(node)`, a wartość `getattr(node, name)`. Liść to
# `node.variable` węzła `AccumulateGrad`.

# %% [markdown] lang="en" exercise="graph-bytes" role="hint"
# The names of attributes come from `dir(node)`, a value from `getattr(node, name)`. A leaf is
# the `node.variable` of an `AccumulateGrad`.

# %% [markdown] lang="pl" exercise="graph-bytes" role="hint"
# Magazyn to `tensor.untyped_storage()`; jego adres `data_ptr()` odróżnia go od innych, a
# rozmiar podaje `nbytes()`. Zbierz słownik: adres i rozmiar.

# %% [markdown] lang="en" exercise="graph-bytes" role="hint"
# The storage is `tensor.untyped_storage()`; its address `data_ptr()` tells it from others, and
# `nbytes()` gives its size. Collect a dictionary: address and size.


# %% exercise="graph-bytes" role="wrong" says="exp's result, saved twice: you return"
def graph_bytes(root: Tensor) -> int:
    total, leaves, seen, stack = 0, set(), set(), [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [child for child, _ in node.next_functions]
        if hasattr(node, "variable"):
            leaves.add(node.variable.data_ptr())
    for node in seen:
        values = [getattr(node, name) for name in dir(node) if name[:7] == "_saved_"]
        for value in values:
            for t in value if isinstance(value, tuple) else (value,):
                if isinstance(t, Tensor) and t.data_ptr() not in leaves:
                    total += t.untyped_storage().nbytes()  # once for every node
    return total


# %% exercise="graph-bytes" role="wrong" says="a leaf that sin has saved: you return"
def graph_bytes(root: Tensor) -> int:
    sizes, seen, stack = {}, set(), [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [child for child, _ in node.next_functions]
        values = [getattr(node, name) for name in dir(node) if name[:7] == "_saved_"]
        for value in values:
            for t in value if isinstance(value, tuple) else (value,):
                if isinstance(t, Tensor):  # a parameter lives without the graph, too
                    storage = t.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


# %% exercise="graph-bytes" role="wrong" says="a slice of a storage: you return"
def graph_bytes(root: Tensor) -> int:
    sizes, leaves, seen, stack = {}, set(), set(), [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [child for child, _ in node.next_functions]
        if hasattr(node, "variable"):
            leaves.add(node.variable.data_ptr())
        values = [getattr(node, name) for name in dir(node) if name[:7] == "_saved_"]
        for value in values:
            for t in value if isinstance(value, tuple) else (value,):
                if isinstance(t, Tensor):
                    sizes[t.data_ptr()] = t.nbytes  # the view, not what it keeps alive
    return sum(size for address, size in sizes.items() if address not in leaves)


# %% exercise="graph-bytes" role="solution"
def graph_bytes(root: Tensor) -> int:
    nodes: set[Any] = set()
    stack: list[Any] = [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            stack += [child for child, _ in node.next_functions]
    leaves = {
        node.variable.untyped_storage().data_ptr()
        for node in nodes
        if hasattr(node, "variable")
    }
    sizes: dict[int, int] = {}  # a storage has one address, however often it is saved
    for node in nodes:
        for name in dir(node):
            if name.startswith("_saved_"):
                value = getattr(node, name)
                for saved in value if isinstance(value, tuple) else (value,):
                    if isinstance(saved, Tensor):
                        storage = saved.untyped_storage()
                        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(size for address, size in sizes.items() if address not in leaves)


# %% [markdown] lang="pl" exercise="running-order" role="prompt" belt="black" minutes=25
# ### Czarny: przewidź kolejność silnika
#
# Napisz `running_order`: listę węzłów w kolejności, w jakiej uruchomi je silnik, ułożoną bez
# przejścia wstecz. Węzeł jest gotowy, gdy przyszły do niego wszystkie gradienty. Spośród
# gotowych silnik bierze węzeł o największym numerze `_sequence_nr()`; w jednym wątku numery rosną w przejściu w przód, a
# `AccumulateGrad` ma numer większy od wszystkich.

# %% [markdown] lang="en" exercise="running-order" role="prompt" belt="black" minutes=25
# ### Black: predict the engine's order
#
# Write `running_order`: the list of nodes in the order in which the engine will run them, made
# without a backward pass. A node is ready once all of its gradients have come. Among those
# ready the engine takes the node with the largest number `_sequence_nr()`; within one thread the numbers grow in the forward
# pass, and that of `AccumulateGrad` is larger than all.


# %% exercise="running-order" role="starter"
def running_order(root: Tensor) -> list[Node]:
    return []  # your code


# %% exercise="running-order" role="check"
def number_of(node: Node) -> int:
    number: int = node._sequence_nr()
    return number


def objection(order: Sequence[Node], root: Tensor) -> str:
    """Say where an order breaks the engine's rules; nothing if it does not."""
    nodes = [item.node for item in graph_of(root)]
    if Counter(order) != Counter(nodes):
        return say(
            pl=f"węzły grafu ({len(nodes)}) mają wystąpić po razie; lista ma {len(order)}",
            en=f"each of {len(nodes)} nodes has to stand once; the list has {len(order)}",
        )
    owed = Counter(c for node in nodes for c, _ in node.next_functions if c is not None)
    ready = {root.grad_fn}
    for node in order:
        largest = max((n for n in ready if n is not None), key=number_of)
        if owed[node]:
            return say(
                pl=f"{node.name()} rusza, choć nie przyszły do niego wszystkie gradienty",
                en=f"{node.name()} runs, although not all of its gradients have come",
            )
        if number_of(node) < number_of(largest):
            return say(
                pl=f"{node.name()} rusza, choć większy numer ma gotowy {largest.name()}",
                en=f"{node.name()} runs, but {largest.name()}, also ready, has a larger "
                "number",
            )
        ready.remove(node)
        for child in (c for c, _ in node.next_functions if c is not None):
            owed[child] -= 1
            if not owed[child]:
                ready.add(child)
    return ""


def engine_order(root: Tensor) -> list[Node]:
    """Run the backward pass and note the order of the nodes."""
    order: list[Node] = []
    for item in graph_of(root):
        item.node.register_prehook(lambda grads, node=item.node: order.append(node))
    root.backward()
    return order


rng = random.Random(13)
for _ in range(40):
    tested = random_result(rng, rng.randint(5, 20))
    with by_hand():
        order_given = running_order(tested)
    problem = objection(order_given, tested)
    assert not problem, problem
    order_true = engine_order(tested)
    assert not objection(order_true, tested)
    # Leaves that are ready at the same time have the same number.
    same = [n for n in order_given if not hasattr(n, "variable")] == [
        n for n in order_true if not hasattr(n, "variable")
    ]
    assert same, say(
        pl="silnik uruchamia węzły w innej kolejności",
        en="the engine runs the nodes in another order",
    )

# %% [markdown] lang="pl" exercise="running-order" role="hint"
# Najpierw policz krawędzie, które wchodzą do każdego węzła, jak w `run_backward`.

# %% [markdown] lang="en" exercise="running-order" role="hint"
# First count the edges that come into each node, as in `run_backward`.

# %% [markdown] lang="pl" exercise="running-order" role="hint"
# Potem trzymaj zbiór gotowych węzłów i za każdym razem wybieraj z niego największy numer.
# Uruchomiony węzeł zmniejsza liczniki swoich następników.

# %% [markdown] lang="en" exercise="running-order" role="hint"
# Then keep a collection of ready nodes and take the largest number from it each time. A node
# that has run lowers the counts of those it leads to.


# %% exercise="running-order" role="wrong" says="not all of its gradients have come"
def running_order(root: Tensor) -> list[Node]:
    seen, stack = set(), [root.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [child for child, _ in node.next_functions]
    # The number alone puts AccumulateGrad first.
    return sorted(seen, key=lambda node: node._sequence_nr(), reverse=True)


# %% exercise="running-order" role="wrong" says=", also ready, has a larger number"
def running_order(root: Tensor) -> list[Node]:
    owed, seen, stack = Counter(), {root.grad_fn}, [root.grad_fn]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None:
                owed[child] += 1
                if child not in seen:
                    seen.add(child)
                    stack.append(child)
    order, ready = [], [root.grad_fn]
    while ready:
        order.append(ready.pop(0))  # whichever was ready first
        for child, _ in order[-1].next_functions:
            owed[child] -= 1
            if child is not None and not owed[child]:
                ready.append(child)
    return order


# %% exercise="running-order" role="solution"
def running_order(root: Tensor) -> list[Node]:
    assert root.grad_fn is not None
    owed: Counter[Node] = Counter()  # gradients that have not come yet
    seen, stack = {root.grad_fn}, [root.grad_fn]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None:
                owed[child] += 1  # one for each edge, also for two from one node
                if child not in seen:
                    seen.add(child)
                    stack.append(child)
    order: list[Node] = []
    ready = [root.grad_fn]
    while ready:
        # A heap would be faster; the engine uses a priority queue.
        node = max(ready, key=lambda n: n._sequence_nr())
        ready.remove(node)
        order.append(node)
        for child, _ in node.next_functions:
            if child is not None:
                owed[child] -= 1
                if not owed[child]:
                    ready.append(child)
    return order
