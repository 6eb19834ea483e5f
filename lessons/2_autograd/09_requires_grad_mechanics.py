# %% [markdown] lang="pl"
# # Kto śledzi gradient: detach, no_grad, inference_mode
#
# Autograd ma cztery wyłączniki: metody `detach` i `requires_grad_` oraz tryby `no_grad` i
# `inference_mode`. Po tej lekcji powiesz, co każdy z nich wyłącza, którym tensorom i na jak długo, a po
# pierwszym kroku treningu sprawdzisz, czy uczy się dokładnie to, co miało się uczyć.
#
# ## Dwa klasyfikatory o tych samych wagach
#
# Klasyfikator liniowy dostaje 16 cech i wybiera jedną z czterech klas. Wagi zaczynają od
# średnich cech w klasach. Do liczenia średnich gradient nie jest potrzebny, więc dla drugiego
# klasyfikatora ktoś policzył je w trybie wnioskowania (*inference mode*).

# %% [markdown] lang="en"
# # Who tracks the gradient: detach, no_grad, inference_mode
#
# Autograd has four switches: the methods `detach` and `requires_grad_`, and the modes `no_grad`
# and `inference_mode`. After this lesson you can say what each of them turns off, for which
# tensors and for how long, and check after the first training step that the right parameters
# learn, and no others.
#
# ## Two classifiers with the same weights
#
# A linear classifier gets 16 features and picks one of four classes. The weights start as the
# mean features of the classes. Computing means needs no gradient, so for the second classifier
# somebody computed them in inference mode.

# %% fold=true
import copy
import itertools
import random
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn import functional as F

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GREEN, ORANGE, RED, show_figure
from snippets.graph_nodes import graph_of
from snippets.graph_pictures import show_graph
from snippets.memory import CallCounter, MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)

labels = torch.arange(400) % 4
centres = torch.randn(4, 16) * torch.linspace(0.5, 2, 4)[:, None]
spread = torch.cat([torch.full((4,), 0.3), torch.full((12,), 2.0)])
features = centres[labels] + spread * torch.randn(400, 16)  # (sample, feature)


def class_means() -> Tensor:  # (class, feature)
    return torch.stack([features[labels == c].mean(0) for c in range(4)])


def train(model: nn.Module, steps: int) -> list[float]:
    """Run an ordinary loop with SGD and return the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(features), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %%
plain = nn.Linear(16, 4)
quick = copy.deepcopy(plain)
plain.weight = nn.Parameter(class_means())
with torch.inference_mode():  # the means need no gradient
    quick.weight = nn.Parameter(class_means())

steps = 200
plain_losses, quick_losses = train(plain, steps), train(quick, steps)
plain_loss, quick_loss = plain_losses[-1], quick_losses[-1]
print(f"plain: {plain_losses[0]:.2f} -> {plain_loss:.2f}")
print(f"quick: {quick_losses[0]:.2f} -> {quick_loss:.2f}")
flags = [p.requires_grad for p in (*plain.parameters(), *quick.parameters())]
print(f"requires_grad: {flags}")
assert plain_losses[0] == quick_losses[0] > quick_loss > 2 * plain_loss
assert flags == [True] * 4

# %% [markdown] lang="pl"
# Obie straty mają tę samą wartość początkową i obie spadły, wyjątku nie było, a wszystkie cztery
# parametry wymagają gradientu. Mimo to po {{ steps }} krokach `plain` ma stratę
# {{ plain_loss:.2f }}, a `quick` {{ quick_loss:.2f }}.

# %% [markdown] lang="en"
# Both losses started from the same number and both fell, nothing raised an exception, and all
# four parameters require a gradient. Yet after {{ steps }} steps `plain` has a loss of
# {{ plain_loss:.2f }}, and `quick` one of {{ quick_loss:.2f }}.

# %% [markdown] lang="pl" predict="what-is-in-grad"
# Co po ostatnim `backward` jest w `quick.weight.grad`?
#
# - [ ] Gradient różny od zera
#
#   Strata spadła dzięki samemu parametrowi `bias`. W tensorze `quick.weight` przez {{ steps }} kroków nie zmienił
#   się ani jeden bit.
#
# - [ ] Tensor zer
#
#   Żeby dostać zera, gradient trzeba policzyć. Silnik autogradu nie miał skąd wiedzieć, że
#   `weight` istnieje: w grafie nie prowadzi do niego żadna krawędź.
#
# - [x] `None`
#
#   Przejście wstecz dotarło tylko do parametru `bias`. Optymalizator pomija parametr, którego
#   atrybut `grad` ma wartość `None`, i nic o tym nie mówi.

# %% [markdown] lang="en" predict="what-is-in-grad"
# What is in `quick.weight.grad` after the last `backward`?
#
# - [ ] A gradient other than zero
#
#   The loss fell thanks to `bias` alone. In `quick.weight` not a single bit changed in
#   {{ steps }} steps.
#
# - [ ] A tensor of zeros
#
#   To get zeros, a gradient has to be computed. The autograd engine could not know that
#   `weight` exists: no edge of the graph leads to it.
#
# - [x] `None`
#
#   The backward pass reached only `bias`. The optimizer skips a parameter whose `grad` is
#   `None`, and says nothing about it.

# %%
for name, parameter in quick.named_parameters():
    shape = None if parameter.grad is None else tuple(parameter.grad.shape)
    print(f"quick.{name}.grad:", shape)
assert quick.weight.grad is None and quick.bias.grad is not None
assert torch.equal(quick.weight, class_means())  # as on the first day
assert plain.weight.grad is not None and not torch.equal(plain.weight, class_means())

# %% [markdown] lang="pl"
# Pytanie lekcji: **co każdy z wyłączników odbiera tensorowi i po czym poznasz parametr, do
# którego gradient nie dociera?**
#
# ## Dokąd prowadzi graf
#
# Przejście w przód zostawia graf obliczeniowy: węzeł na operację i krawędzie, którymi silnik
# prześle gradienty. Droga do parametru kończy się w węźle `AccumulateGrad`, który dodaje gradient do atrybutu
# `grad` tego liścia grafu (*leaf tensor*). Oto grafy obu klasyfikatorów, odczytane z
# żywych węzłów.

# %% [markdown] lang="en"
# The question of this lesson: **what does each switch take away from a tensor, and how do you
# recognise a parameter that the gradient does not reach?**
#
# ## Where the graph leads
#
# The forward pass leaves a computational graph: one node per operation, and edges along
# which the engine will send gradients. A path to a parameter ends in a node `AccumulateGrad`, which adds the
# gradient to the attribute `grad` of that leaf tensor. These are the graphs of
# both classifiers, read from the live nodes.

# %% fold=true
graphs = {
    name: graph_of(head(features), names=dict(head.named_parameters()))
    for name, head in (("plain", plain), ("quick", quick))
}
nodes = {name: [type(item.node).__name__ for item in graphs[name]] for name in graphs}
assert sorted(nodes["plain"]) == [
    "AccumulateGrad",
    "AccumulateGrad",
    "AddmmBackward0",
    "TBackward0",
]
assert nodes["quick"] == ["AddmmBackward0", "AccumulateGrad"]
show_graph(
    graphs,
    sizes=False,
    alt_pl="Dwa grafy, każdy zaczyna się od węzła Addmm. W plain jedna strzałka prowadzi do "
    "AccumulateGrad parametru bias, a druga przez węzeł T do AccumulateGrad parametru "
    "weight. W quick jest tylko strzałka do bias.",
    alt_en="Two graphs, each starting at the node Addmm. In plain one arrow leads to the "
    "AccumulateGrad of bias, and another one through the node T to the AccumulateGrad of "
    "weight. In quick there is only the arrow to bias.",
)

# %% [markdown] lang="pl"
# Warstwa `Linear` wykonuje dwie operacje: transpozycję `weight.t()` i `addmm`, czyli iloczyn
# macierzy z dodaniem wektora `bias`. Na rysunku po prawej brakuje węzła transpozycji, `T`, a z
# nim jedynej drogi do parametru `weight`. Dlaczego go nie ma, skoro `weight` wymaga gradientu?
#
# ## Cztery warunki
#
# Dyspozytor (*dispatcher*) wybiera kod operacji według kluczy (*dispatch keys*) jej argumentów.
# Klucz `AutogradCPU` prowadzi do kodu, który tworzy węzeł.

# %% [markdown] lang="en"
# The layer `Linear` runs two operations: the transpose `weight.t()`, and `addmm`, a matrix
# product plus `bias`. On the right the node of the transpose, `T`, is missing, and with it the
# only way to `weight`. Why is it missing, if `weight` requires a gradient?
#
# ## Four conditions
#
# The dispatcher picks the code of an operation by the dispatch keys of its arguments. The key
# `AutogradCPU` leads to the code that makes a node.

# %%
print("plain:", torch._C._dispatch_keys(plain.weight))
print("quick:", torch._C._dispatch_keys(quick.weight))
assert "AutogradCPU" in str(torch._C._dispatch_keys(plain.weight))
assert "Autograd" not in str(torch._C._dispatch_keys(quick.weight))
assert "ADInplaceOrView" in str(torch._C._dispatch_keys(plain.weight))
assert "ADInplaceOrView" not in str(torch._C._dispatch_keys(quick.weight))
assert quick.weight.is_inference() and not plain.weight.is_inference()

left_node = []
for flag, key, mode in itertools.product((False, True), repeat=3):
    with torch.inference_mode(not key):
        t = torch.ones(2, requires_grad=flag)
    with torch.set_grad_enabled(mode):
        if t.exp().grad_fn is not None:
            left_node.append({"flag": flag, "key": key, "grad mode": mode})
print(left_node)
assert left_node == [{"flag": True, "key": True, "grad mode": True}]
t = torch.ones(2, requires_grad=True)  # it has flag and key
with torch.inference_mode(), torch.enable_grad():
    print(f"{torch.is_grad_enabled()=}, {t.exp().grad_fn=}")
    assert torch.is_grad_enabled() and t.exp().grad_fn is None
copied = quick.weight.clone()
print("clone:", type(copied.grad_fn).__name__)
assert type(copied.grad_fn).__name__ == "CopyBackwards"
assert not copied.is_inference() and quick.weight.t().grad_fn is None
assert F.linear(features, quick.weight).grad_fn is None  # no bias

# %% [markdown] lang="pl"
# Z ośmiu kombinacji do grafu trafiła jedna. Operacja `exp` zostawia węzeł, jeśli jej argument ma
# klucz i flagę `requires_grad`, a w wątku jest włączony tryb zapisu gradientów (*grad mode*):
# `torch.is_grad_enabled()`. Czwarty warunek: wątek nie może być w trybie wnioskowania
# (*inference mode*), bo ten na czas bloku ukrywa klucze Autograd wszystkich argumentów i nawet
# `enable_grad` w środku nie sprawi, że operator coś zapisze (własna `autograd.Function` pyta tylko o
# flagę i tryb zapisu). Tensor utworzony w tym trybie (*inference tensor*), o ile nie jest widokiem
# starszego, nie ma klucza także po wyjściu z bloku `with`; tak jest z `quick.weight`. Dlatego transpozycja `weight.t()` nie zostawiła węzła. (Brakuje też klucza
# `ADInplaceOrView`, który prowadzi do obsługi widoków i licznika wersji.)
#
# Operatorowi różniczkowalnemu o kilku argumentach wystarczy, że jeden z nich ma klucz, a jeden, niekoniecznie ten sam,
# flagę. Dlatego węzeł zostawia metoda `clone`: w środku kopiuje do nowego tensora, który ma klucz,
# a flagę daje `quick.weight`; stąd `CopyBackwards`. Ale `F.linear`
# z `quick.weight` i bez `bias` to dwie operacje, z których pierwsza, `t()`, gubi flagę: w grafie nie
# zostaje nic. Zróbmy więc w trybie wnioskowania całą
# warstwę: w `addmm` klucz ma wtedy tylko `features`, a flagę tylko `bias`.

# %% [markdown] lang="en"
# One of the eight combinations got into the graph. The operation `exp` leaves a node if its
# argument has the key and the flag `requires_grad`, and grad mode is on in the thread:
# `torch.is_grad_enabled()`. The fourth condition: the thread must not be in inference mode, since
# for the length of its block that mode hides the Autograd keys of all arguments, and not even
# `enable_grad` inside it makes an operator record anything (a custom `autograd.Function` asks only
# for the flag and grad mode). A tensor made in this mode (*inference tensor*), other than a view of
# an older one, lacks the key even after the `with` block; `quick.weight` is one.
# This is why the transpose `weight.t()` left no node. (The key `ADInplaceOrView`, which leads to
# the handling of views and of the version counter, is missing, too.)
#
# For a differentiable operator with several arguments it is enough that one of them has the key, and one, not
# necessarily the same, the flag. This is why the method `clone` leaves a node: inside, it copies
# into a new tensor, which has the key, and the flag comes from `quick.weight`; hence
# `CopyBackwards`. But `F.linear` with `quick.weight` and without `bias` is two operations, and the
# first one, `t()`, drops the flag: nothing is recorded. So let's make a whole layer in inference mode: in `addmm` only `features` have
# the key then, and only `bias` has the flag.

# %% raises="RuntimeError: Inplace update to inference tensor outside InferenceMode is not allowed."
with torch.inference_mode():
    whole = nn.Linear(16, 4)
whole(features).sum().backward()
assert whole.weight.grad is None and whole.bias.grad is not None
assert whole.bias.is_inference() and not features.is_inference()
assert whole.bias.requires_grad and not whole.weight.t().requires_grad
addmm: Any = quick(features).grad_fn
assert addmm._saved_mat2 is None  # nobody saves quick.weight
old_bias = whole.bias.tolist()
torch.optim.SGD(whole.parameters(), lr=0.1, fused=True).step()  # does not notice
assert whole.bias.tolist() != old_bias
torch.optim.SGD(whole.parameters(), lr=0.1).step()

# %% raises="RuntimeError: Inference tensors cannot be saved for backward."
nn.Sequential(nn.Linear(16, 16), whole)(features)

# %% [markdown] lang="pl"
# Znowu gradient dostał tylko `bias`, ale teraz krok optymalizatora zgłasza wyjątek, bo `bias`
# jest tensorem z trybu wnioskowania (z `fused=True` tego nie zauważy). A gdy przed warstwą stoi inna, która się uczy, wyjątek
# zgłasza już przejście w przód: `addmm` musiałaby zapamiętać `weight`, żeby policzyć gradient
# swojego wejścia. Pułapka z początku lekcji jest cicha, bo omija oba wyjątki: wartości
# `weight` nikt nie zapamiętuje, a optymalizator nie ma czego do niej dodać.
#
# ## Co odbiera każdy wyłącznik
#
# Policzmy ten sam iloczyn pięć razy i zapytajmy każdy wynik o węzeł, klucz i licznik wersji
# (*version counter*), a potem o to, czy wolno go zapamiętać na przejście wstecz i zmienić w
# miejscu. Pytamy zawsze już poza blokiem.

# %% [markdown] lang="en"
# Again only `bias` got a gradient, but now the optimizer's step raises, because `bias` is an
# inference tensor (with `fused=True` it does not notice). And if a layer that learns stands before this one, the forward pass already
# raises: `addmm` would have to save `weight` to compute the gradient of its input. The trap from
# the beginning is silent because it avoids both exceptions: nobody saves the value of `weight`, and the
# optimizer has nothing to add to it.
#
# ## What each switch takes away
#
# Let's compute the same product five times and ask each result for a node, the key and a version
# counter, and then whether it may be saved for the backward pass and changed in place. We always
# ask outside the block.


# %%
def allowed(action: Callable[[], object]) -> bool:
    try:
        action()
    except RuntimeError:
        return False
    return True


def facts(t: Tensor) -> dict[str, bool]:
    w = torch.ones(2, requires_grad=True)
    return {
        "node": t.grad_fn is not None,
        "key": "Autograd" in str(torch._C._dispatch_keys(t)),
        "version": allowed(lambda: t._version),
        "may be saved": allowed(lambda: w * t),
        "may change": allowed(lambda: t.add_(0)),
    }


w = torch.ones(2, requires_grad=True)
doubled = w * 2
results = {"w * 2": doubled, "(w * 2).detach()": doubled.detach()}
assert doubled.detach().data_ptr() == doubled.data_ptr() and doubled.requires_grad
with torch.no_grad():
    results["no_grad: w * 2"] = w * 2
    assert not torch.is_grad_enabled()
with torch.inference_mode():
    results["inference_mode: w * 2"] = w * 2
    assert not torch.is_grad_enabled()
w.requires_grad_(False)
results["w.requires_grad_(False): w * 2"] = w * 2
w.requires_grad_(True)
assert (w * 2).grad_fn is not None  # all four are over, and yet:
assert results["inference_mode: w * 2"].is_inference()

table = {name: list(facts(t).values()) for name, t in results.items()}
off_graph = [False, True, True, True, True]
assert list(table.values()) == [
    [True] * 5,
    off_graph,
    off_graph,
    [False] * 5,
    off_graph,
]

# %% fold=true
fig, ax = plt.subplots(figsize=(7.2, 2.6))
for i, row in enumerate(table.values()):
    for j, fact in enumerate(row):
        colour, sign = (GREEN, "✓") if fact else (RED, "✗")
        at = (j + 0.04, len(table) - i - 0.94)
        ax.add_patch(
            Rectangle(at, 0.92, 0.88, fc=colour, alpha=0.25, ec=colour, lw=1.5)
        )
        ax.text(j + 0.5, len(table) - i - 0.5, sign, ha="center", va="center")
ax.set(xlim=(0, 5), ylim=(0, 5))
columns = [
    "node",
    "Autograd key",
    "version\ncounter",
    "may be\nsaved",
    "may change\nin place",
]
ax.set_xticks([j + 0.5 for j in range(5)], columns)
ax.set_yticks([4.5, 3.5, 2.5, 1.5, 0.5], list(table), family="monospace")
ax.xaxis.tick_top()
ax.tick_params(length=0, labelsize=9)
ax.spines[:].set_visible(False)
show_figure(
    fig,
    alt_pl="Tabela pięciu wyników i pięciu własności. Zwykły wynik ma wszystkie. Wynikom "
    "detach, no_grad i requires_grad_(False) brakuje tylko węzła. Wynik inference_mode nie ma "
    "żadnej.",
    alt_en="A table of five results and five properties. The ordinary result has all of them. "
    "The results of detach, no_grad and requires_grad_(False) lack only the node. The result "
    "of inference_mode has none.",
    pl={
        "node": "węzeł",
        "Autograd key": "klucz\nAutograd",
        "version\ncounter": "licznik\nwersji",
        "may be\nsaved": "wolno\nzapamiętać",
        "may change\nin place": "wolno zmienić\nw miejscu",
    },
    same=set(table),
)

# %% [markdown] lang="pl"
# Trzy wyłączniki dają taki sam wiersz: z pięciu własności brakuje tylko węzła. Różnią się
# **zasięgiem**. Metoda `detach` zwraca drugi tensor o tych samych danych, bez flagi i węzła;
# oryginał się nie zmienia. Metoda `requires_grad_(False)` gasi flagę jednego liścia, aż ją
# przywrócisz, a `no_grad` wyłącza tryb całemu wątkowi do wyjścia z bloku. Tylko `inference_mode`
# nie poprzestaje na trybie: tensory, które w nim powstają (oprócz widoków starszych), nie mają
# klucza ani licznika wersji, a wyjście z bloku im ich nie daje. Bez licznika autograd nie zauważyłby, że zapamiętana
# wartość się zmieniła, więc takiego tensora nie zapamięta ani nie pozwoli zmienić zwykłą operacją w
# miejscu.
#
# W źródłach PyTorcha klucze odbiera konstruktor klasy `TensorImpl` (plik
# `c10/core/TensorImpl.cpp`), flagi i tryb sprawdza `compute_requires_grad`
# (`torch/csrc/autograd/functions/utils.h`), a wyjątek o zapamiętaniu zgłasza konstruktor klasy
# `SavedVariable` (`torch/csrc/autograd/saved_variable.cpp`).
#
# ## Reguła od zera
#
# Zbudujmy tę regułę bez liczb: tensor to flaga, klucz i krawędzie. Operacji jest pięć: widok (*view*),
# `detach`, dodawanie, które niczego nie zapamiętuje, mnożenie, które zapamiętuje drugi
# czynnik, i `exp`. Widok i wynik metody `detach` dziedziczą klucz po swoim źródle, niezależnie
# od trybu, a widok bez węzła zachowuje flagę tensora,
# którego jest widokiem, jeśli ten ma klucz (zobaczymy to niżej).

# %% [markdown] lang="en"
# Three switches give the same row: of the five properties only the node is missing. They differ in
# **scope**. The method `detach` returns a second tensor over the same data, without flag and node;
# the original does not change. The method `requires_grad_(False)` clears the flag of one leaf
# until you restore it, and `no_grad` turns the mode off for the whole thread until the block ends.
# Only `inference_mode` goes beyond the mode: tensors made in it (other than views of older ones) have
# neither the key nor a version counter, and leaving the block does not give them any. Without a counter,
# autograd could not notice that a saved value has changed, so it refuses to save such a tensor, or
# to let an ordinary in-place operation change it.
#
# In PyTorch's source the constructor of the class `TensorImpl` takes the keys away (file
# `c10/core/TensorImpl.cpp`), `compute_requires_grad` checks flags and the mode
# (`torch/csrc/autograd/functions/utils.h`), and the exception about saving comes from the
# constructor of the class `SavedVariable` (`torch/csrc/autograd/saved_variable.cpp`).
#
# ## The rule from scratch
#
# Let's build this rule without numbers: a tensor is a flag, a key and edges. There are five
# operations: a view, `detach`, an addition, which saves nothing, a multiplication, which saves
# the other factor, and `exp`. A view and the result of `detach` inherit the key of their source,
# whatever the mode, and a view without a node keeps the flag of its base, if the base
# has the key (shown below).


# %%
class Modes(threading.local):  # every thread starts with these values
    grad = True
    inference = False


modes = Modes()


@contextmanager
def mini_mode(*, grad: bool, inference: bool | None = None) -> Iterator[None]:
    before = modes.grad, modes.inference
    modes.grad = grad
    modes.inference = modes.inference if inference is None else inference
    try:
        yield
    finally:
        modes.grad, modes.inference = before


@dataclass(frozen=True, eq=False)
class Mini:
    requires_grad: bool
    key: bool
    edges: tuple["Mini", ...] | None = None  # None: no node
    is_leaf: bool = False

    @property
    def receives(self) -> bool:
        """Whether a gradient can be sent here."""
        return self.edges is not None or (self.is_leaf and self.requires_grad)


def mini_leaf(requires_grad: bool) -> Mini:
    return Mini(requires_grad, key=not modes.inference, is_leaf=True)


def mini_op(name: str, *inputs: Mini) -> Mini:
    flag = any(t.key for t in inputs) and any(t.requires_grad for t in inputs)
    key = inputs[0].key if name in ("view", "detach") else not modes.inference
    if name == "detach":
        return Mini(False, key)
    if not (flag and modes.grad and not modes.inference):
        # No node. A view keeps the flag of its base, if that has the key.
        return Mini(flag and name == "view", key)
    if name == "mul":
        first, second = inputs
        saved = [second] * first.receives + [first] * second.receives
        if not all(t.key for t in saved):
            raise RuntimeError("Inference tensors cannot be saved for backward")
    return Mini(True, key, tuple(t for t in inputs if t.receives))


# %% [markdown] lang="pl"
# Wzorcem jest PyTorch. Losowy program tworzy trzy liście i wykonuje sześć operacji, każdą w
# dwóch losowych trybach naraz, czasem w wątku roboczym. Porównujemy flagę, węzeł i klucz
# każdego wyniku albo wyjątek, a na końcu listę liści, do których dotarł gradient.

# %% [markdown] lang="en"
# PyTorch is the oracle. A random program makes three leaves and runs six operations, each in
# two random modes at once, sometimes in a worker thread. We compare the flag, the node and
# the key of every result or the exception, and at the end the leaves that a gradient reached.


# %% fold=true
@dataclass(frozen=True)
class Kit:
    """What a random program needs of one implementation."""

    leaf: Callable[[bool], Any]
    run: Callable[..., Any]
    modes: Mapping[str, Callable[[], AbstractContextManager[object]]]
    look: Callable[[Any], tuple[bool, bool, bool]]  # flag, node, key
    reached: Callable[[Any, list[Any]], list[bool]]


INPUTS = {"view": 1, "detach": 1, "exp": 1, "add": 2, "mul": 2}


def run_torch(name: str, *inputs: Tensor) -> Tensor:
    first, *_, last = inputs * 2
    results: dict[str, Callable[[], Tensor]] = {
        "view": lambda: first.view(-1),
        "detach": first.detach,
        "exp": first.exp,
        "add": lambda: first + last,
        "mul": lambda: first * last,
    }
    return results[name]()


def reached_torch(result: Tensor, leaves: list[Tensor]) -> list[bool]:
    if result.grad_fn is not None:
        result.sum().backward()
    return [leaf.grad is not None for leaf in leaves]


def reached_mini(result: Mini, leaves: list[Mini]) -> list[bool]:
    found, to_visit = set(), list(result.edges or ())
    while to_visit:
        found.add(to_visit[-1])
        to_visit += to_visit.pop().edges or ()
    return [leaf in found for leaf in leaves]


TORCH = Kit(
    lambda flag: torch.ones(2, requires_grad=flag),
    run_torch,
    {
        "": nullcontext,
        "no_grad": torch.no_grad,
        "enable_grad": torch.enable_grad,
        "inference": torch.inference_mode,
        "normal": partial(torch.inference_mode, False),
    },
    lambda t: (t.requires_grad, t.grad_fn is not None, not t.is_inference()),
    reached_torch,
)
MINI = Kit(
    mini_leaf,
    mini_op,
    {
        "": nullcontext,
        "no_grad": partial(mini_mode, grad=False),
        "enable_grad": partial(mini_mode, grad=True),
        "inference": partial(mini_mode, grad=False, inference=True),
        "normal": partial(mini_mode, grad=True, inference=False),
    },
    lambda t: (t.requires_grad, t.edges is not None, t.key),
    reached_mini,
)


def trace(kit: Kit, seed: int, worker: ThreadPoolExecutor) -> list[Any]:
    """Run the random program number `seed` and return all that can be seen of it."""
    rng = random.Random(seed)

    def mode() -> AbstractContextManager[object]:
        return kit.modes[rng.choice(list(kit.modes))]()

    leaves: list[Any] = []
    seen: list[Any] = []
    for _ in range(3):
        with mode():
            leaves.append(kit.leaf(rng.random() < 0.6))
    values = list(leaves)
    for _ in range(6):
        name = rng.choice(list(INPUTS))
        inputs = [rng.choice(values) for _ in range(INPUTS[name])]
        run = partial(kit.run, name, *inputs)
        in_worker = rng.random() < 0.3
        try:
            with mode(), mode():
                values.append(worker.submit(run).result() if in_worker else run())
        except RuntimeError as error:
            return [*seen, str(error).split(".")[0]]
        seen.append(kit.look(values[-1]))
    return [*seen, kit.reached(values[-1], leaves)]


# %%
tried = 1000
with ThreadPoolExecutor(1) as worker:
    theirs = [trace(TORCH, seed, worker) for seed in range(tried)]
    ours = [trace(MINI, seed, worker) for seed in range(tried)]
agreed = sum(a == b for a, b in zip(ours, theirs, strict=True))
refused = sum(isinstance(seen[-1], str) for seen in theirs)
print(f"{agreed=} of {tried}, {refused=}")
assert agreed == tried
assert refused > 50
assert sum(isinstance(seen[-1], list) and any(seen[-1]) for seen in theirs) > 100

with mini_mode(grad=False, inference=True):
    mini_weight = mini_leaf(True)
mini_bias, mini_x = mini_leaf(True), mini_leaf(False)
product = mini_op("mul", mini_x, mini_op("view", mini_weight))
logits = mini_op("add", mini_bias, product)
assert reached_mini(logits, [mini_weight, mini_bias]) == [False, True]  # the trap

# %% [markdown] lang="pl"
# Reguła zgadza się z PyTorchem w {{ agreed }} programach na {{ tried }}, a {{ refused }} z nich
# skończyło się wyjątkiem. Ostatnie wiersze odtwarzają pułapkę: gradient dociera tylko do `bias`.
#
# ## Ile bajtów zostaje po przejściu w przód
#
# Brak węzła widać w pamięci, bo to węzły trzymają zapamiętane tensory (*saved tensors*).
# Sieć ma dziesięć par `Linear` i `Tanh` o szerokości 128, a partia (*batch*) 256 wierszy: jedna
# aktywacja zajmuje {{ unit }} B. `MemoryMeter` liczy bajty żywych tensorów. Gdy uczą się
# wszystkie warstwy, po przejściu w przód żyje dziesięć aktywacji.

# %% [markdown] lang="en"
# The rule agrees with PyTorch on {{ agreed }} of {{ tried }} programs, and {{ refused }} of them
# ended in an exception. The last lines rebuild the trap: the gradient reaches only `bias`.
#
# ## How many bytes stay after the forward pass
#
# A missing node shows in memory, because nodes hold the saved tensors. The network has
# ten pairs of `Linear` and `Tanh` of width 128, and the batch has 256 rows: one activation takes
# {{ unit }} B. `MemoryMeter` counts the bytes of live tensors. If all layers learn, ten
# activations are alive after the forward pass.

# %% [markdown] lang="pl" predict="first-layer-only"
# Zamrażasz dziewięć warstw metodą `requires_grad_(False)`. Uczy się tylko pierwsza. Ile
# aktywacji żyje po przejściu w przód?
#
# - [ ] Dwie: wynik sieci i to, czego potrzebuje jedyna ucząca się warstwa
#
#   Tyle zostaje, gdy uczy się tylko **ostatnia** warstwa: {{ last_only }} aktywacje. Gradient
#   pierwszej musi najpierw przejść przez dziewięć następnych.
#
# - [ ] Jedna: tyle, ile w bloku `no_grad`
#
#   Do tego trzeba zamrozić wszystkie warstwy. Wtedy zostaje sam wynik sieci.
#
# - [x] Dziesięć: tyle, ile bez zamrażania
#
#   Każde `Tanh` za pierwszą warstwą zapamiętuje swój wynik, bo przepuści przez siebie gradient.
#   Parametry zamrożonej warstwy nie dostają gradientu, ale warstwa przekazuje go swojemu
#   wejściu.

# %% [markdown] lang="en" predict="first-layer-only"
# You freeze nine layers with `requires_grad_(False)`. Only the first one learns. How
# many activations are alive after the forward pass?
#
# - [ ] Two: the network's result, and what the only learning layer needs
#
#   That is how many stay if only the **last** layer learns: {{ last_only }} activations. The gradient of
#   the first one has to pass through the nine that follow.
#
# - [ ] One: as many as in a `no_grad` block
#
#   For that you would have to freeze every layer. Then only the network's result stays.
#
# - [x] Ten: as many as without freezing
#
#   Each `Tanh` behind the first layer saves its result, because it will pass the gradient on.
#   The parameters of a frozen layer get no gradient, but the layer still passes one back to its
#   input.

# %%
layers = [layer for _ in range(10) for layer in (nn.Linear(128, 128), nn.Tanh())]
net = nn.Sequential(*layers)
batch = torch.randn(256, 128)
unit = batch.nbytes


def alive(forward: Callable[[], Tensor]) -> tuple[float, float]:
    """Live bytes after the forward pass, and their peak, in activations."""
    with MemoryMeter() as meter:
        output = forward()
        assert output.nbytes == unit
        return meter.live / unit, meter.peak / unit


held = {"all learn": alive(lambda: net(batch))}
held["detach"] = alive(lambda: net(batch).detach())
held["no_grad"] = alive(torch.no_grad()(lambda: net(batch)))
held["inference_mode"] = alive(torch.inference_mode()(lambda: net(batch)))
net.requires_grad_(False)
held["all frozen"] = alive(lambda: net(batch))
for name, (live, peak) in held.items():
    print(f"{name:16} {live:3.0f} live, {peak:3.0f} at the peak")
assert list(held.values()) == [(10, 11), (1, 11), (1, 2), (1, 2), (1, 2)]

# %%
only: dict[int, float] = {}  # what stays if only this layer learns
for number, layer in enumerate(layers[::2], start=1):
    layer.requires_grad_(True)
    only[number], _ = alive(lambda: net(batch))
    layer.requires_grad_(False)
last_only = only[10]
print(only)
assert only == {number: min(10, 12 - number) for number in range(1, 11)}

net[0].requires_grad_(True)
graph = graph_of(net(batch), names={"batch": batch, **net.state_dict()})
savers = [type(item.node).__name__ for item in graph if item.saved]
assert savers == ["TanhBackward0"] * 10
net[:10].requires_grad_(True)
last_five_frozen, _ = alive(lambda: net(batch))
net.requires_grad_(True)[:10].requires_grad_(False)
first_five_frozen, _ = alive(lambda: net(batch))
print(f"{first_five_frozen=}, {last_five_frozen=}")
assert (first_five_frozen, last_five_frozen) == (6, 10)

# %% fold=true
fig, ax = plt.subplots(figsize=(7.2, 2.5))
ax.bar(list(only), list(only.values()), color=BLUE, width=0.7)
for number, live in only.items():
    ax.text(number, live + 0.2, f"{live:.0f}", ha="center", fontsize=9)
ax.axhline(held["all frozen"][0], color=ORANGE, ls="--")
ax.text(10.5, held["all frozen"][0] + 0.35, "all frozen", color=ORANGE)
ax.set(xlabel="the only layer that learns", ylabel="live activations", xlim=(0.4, 12))
ax.set_xticks(list(only))
ax.set_ylim(0, 11.5)
show_figure(
    fig,
    alt_pl="Słupki: ile aktywacji żyje po przejściu w przód, gdy uczy się jedna warstwa. Dla "
    "pierwszej i drugiej dziesięć, potem o jedną mniej z każdą warstwą, dla dziesiątej dwie. "
    "Przerywana linia na wysokości jeden: zamrożone wszystkie.",
    alt_en="Bars: how many activations are alive after the forward pass if one layer learns. "
    "Ten for the first and the second, then one fewer with each layer, two for the tenth. A "
    "dashed line at one: all frozen.",
    pl={
        "all frozen": "zamrożone\nwszystkie",
        "the only layer that learns": "jedyna ucząca się warstwa",
        "live activations": "żywe aktywacje",
    },
)

# %% [markdown] lang="pl"
# Na wykresie słupki maleją dopiero od trzeciej warstwy. Gdy uczy się warstwa $k$, żyje $12 - k$
# aktywacji: wyniki `Tanh` od $k$ do 10 i wejście warstwy. Dla $k = 1$ wejściem jest partia, która
# istnieje i tak. Aktywacje oszczędza więc zamrożenie **początku** sieci: gdy zamrozisz pierwszych pięć
# warstw, żyje {{ first_five_frozen:.0f }} aktywacji, a gdy ostatnich pięć, {{ last_five_frozen:.0f }}.
#
# Tryby `no_grad` i `inference_mode` zostawiają tyle, ile zamrożenie wszystkiego: jedną aktywację,
# a w szczycie dwie. Po `detach` też zostaje jedna, ale szczyt to jedenaście, jak w treningu: ta
# metoda odcina graf, który już powstał.
#
# ## Co się psuje i jak to zauważyć
#
# Tryb należy do wątku, a nie do bloku kodu, który widzisz. Wątek roboczy zaczyna z włączonym
# trybem zapisu, choćby zadanie dostał w bloku `no_grad`. Z generatorem jest odwrotnie: dopóki
# stoi wstrzymany w bloku `no_grad`, tryb zapisu jest wyłączony także w kodzie, który go wywołał.
# Jedno z lekarstw: zamknij blok przed `yield`.

# %% [markdown] lang="en"
# In the chart the bars shrink only from the third layer on. If layer $k$ learns, $12 - k$
# activations are alive: the results of `Tanh` from $k$ to 10, and the input of the layer. For
# $k = 1$ the input is the batch, which exists anyway. So what saves activations is freezing the
# **beginning** of the network: if you freeze the first five layers, {{ first_five_frozen:.0f }}
# activations are alive, and if you freeze the last five, {{ last_five_frozen:.0f }}.
#
# The modes `no_grad` and `inference_mode` leave as much as freezing everything: one activation,
# with a peak of two. After `detach` one stays, too, but the peak is eleven, as in training: this
# method cuts off a graph that has already been made.
#
# ## What breaks and how to notice
#
# The mode belongs to the thread, not to the block of code that you see. A worker thread starts
# with grad mode on, even if it got its job inside a `no_grad` block. A generator does the reverse:
# as long as it is suspended inside a `no_grad` block, grad mode is off for its caller, too. A
# cure: close the block before `yield`.


# %%
def batches() -> Generator[tuple[Tensor, Tensor], None, None]:
    with torch.no_grad():  # scaling needs no gradient
        yield from zip((features / spread).split(100), labels.split(100), strict=True)


w = torch.ones(2, requires_grad=True)
for switch in (torch.no_grad, torch.inference_mode):
    with ThreadPoolExecutor(1) as worker, switch():
        in_worker: Tensor = worker.submit(lambda: w * 2).result()
    print(f"{switch.__name__}: {in_worker.requires_grad=}, {in_worker.is_inference()=}")
    assert in_worker.grad_fn is not None and not in_worker.is_inference()

stream = batches()
rows, answers = next(stream)
head = nn.Linear(16, 4)
loss = F.cross_entropy(head(rows), answers)
print(f"{torch.is_grad_enabled()=}, {loss.requires_grad=}")
assert not torch.is_grad_enabled() and not loss.requires_grad
stream.close()
assert torch.is_grad_enabled()


def cured_batches() -> Generator[tuple[Tensor, Tensor], None, None]:
    with torch.no_grad():
        scaled = features / spread
    yield from zip(scaled.split(100), labels.split(100), strict=True)


rows, answers = next(cured_batches())
assert F.cross_entropy(head(rows), answers).requires_grad

# %% raises="RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn"
loss.backward()

# %% [markdown] lang="pl"
# Strata nie ma węzła i nie jest też liściem, który wymaga gradientu. Najgorsze, co możesz zrobić z
# tym wyjątkiem, to potraktować go dosłownie.

# %% [markdown] lang="en"
# The loss has no node, nor is it a leaf that requires a gradient. The worst thing to do with this
# exception is to take it literally.

# %%
optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
silenced = []
for _ in range(20):
    for rows, answers in batches():
        loss = F.cross_entropy(head(rows), answers)
        assert loss.is_leaf and not loss.requires_grad
        loss.requires_grad_()  # the exception is gone
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    silenced.append(loss.item())
print(f"{silenced[0]:.4f} -> {silenced[-1]:.4f}, {loss.grad=}, {head.weight.grad=}")
assert silenced == [silenced[0]] * 20
assert loss.is_leaf and loss.grad == 1 and head.weight.grad is None

# %% [markdown] lang="pl"
# Bez węzła strata już była liściem; metoda `requires_grad_` dała jej tylko flagę. Przejście
# wstecz zapisało w `loss.grad` pochodną
# straty względem niej samej, czyli 1, i na tym się skończyło: po dwudziestu epokach strata jest
# ta sama co do bitu.
#
# Kolejną fałszywą flagę daje widok utworzony w bloku `no_grad`, np. waga transponowana raz, na zapas:

# %% [markdown] lang="en"
# Without a node the loss was a leaf already; the method `requires_grad_` only set its flag. The
# backward pass wrote the derivative
# of the loss with respect to itself, 1, into `loss.grad`, and that was all: after twenty epochs
# the loss is the same to the bit.
#
# Another false flag comes from a view made in a `no_grad` block, such as a weight transposed once,
# in advance:

# %%
with torch.no_grad():
    weight_t = head.weight.t()
(features @ weight_t + head.bias).sum().backward()
print(f"{weight_t.requires_grad=}, {weight_t.grad_fn=}, {head.weight.grad=}")
assert weight_t.requires_grad and weight_t.grad_fn is None and weight_t.grad is None
assert head.weight.grad is None and head.bias.grad is not None
head.weight.requires_grad_(False)
assert not weight_t.requires_grad  # the flag is that of head.weight

# %% [markdown] lang="pl"
# Widok nie ma węzła, a atrybut `requires_grad` ma wartość `True`, bo odpowiada za niego tensor,
# którego jest widokiem (`DifferentiableViewMeta::requires_grad` w pliku
# `torch/csrc/autograd/variable.h`). Gradient nie dotarł ani do `head.weight`, ani do `weight_t`,
# bo flaga jest pożyczona.
#
# Skoro flaga nie jest dowodem, strażnik (*guard*) sprawdza skutek. Obejmij nim pierwszy krok
# treningu: co miało się ruszyć, musi się ruszyć, a co zamrożone, ma stać.

# %% [markdown] lang="en"
# The view has no node, and its attribute `requires_grad` is `True`, because the view asks its base
# tensor (`DifferentiableViewMeta::requires_grad` in the file `torch/csrc/autograd/variable.h`). No
# gradient reached `head.weight`, nor `weight_t`, since the flag is borrowed.
#
# As the flag is no proof, the guard checks the effect. Put it around the first training step:
# whatever was meant to move has to move, and whatever is frozen has to stand still.

# %%
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def only_trainable_moves(model: nn.Module) -> Iterator[None]:
    """Raise unless one step moves all trainable parameters and no others."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    yield
    wrong = []
    for name, p in model.named_parameters():
        moved = not torch.equal(p.detach(), before[name])
        if p.requires_grad and p.numel() and not moved:
            wrong.append(
                f"{name} stood still ({'no' if p.grad is None else 'has'} grad)"
            )
        elif moved and not p.requires_grad:
            wrong.append(f"{name} is frozen and moved")
    if wrong:
        raise RuntimeError("; ".join(wrong))


# %%
def alarm(model: nn.Module, step: Callable[[], object] | None = None) -> str:
    try:
        with only_trainable_moves(model):
            step() if step else train(model, 1)
    except RuntimeError as error:
        return str(error)
    return "no alarm"


with torch.inference_mode():
    quick.weight = nn.Parameter(class_means())
print(alarm(quick))
assert alarm(quick) == "weight stood still (no grad)"
cured = copy.deepcopy(quick)  # a deep copy has its keys again
with torch.no_grad():
    plain.weight = nn.Parameter(class_means())  # or use this mode instead
assert alarm(cured) == alarm(plain) == "no alarm"
assert not cured.weight.is_inference() and not plain.weight.is_inference()


# %% fold=true
def pair() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))


def one_step(model: nn.Module, logits: Callable[[], Tensor], lr: float = 0.1) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    optimizer.zero_grad()
    F.cross_entropy(logits(), labels).backward()
    optimizer.step()


def after_cut(model: nn.Sequential) -> Tensor:
    hidden: Tensor = model[:2](features).detach()
    output: Tensor = model[2](hidden)
    return output


def silenced_step(model: nn.Module) -> None:
    with torch.no_grad():
        loss = F.cross_entropy(model(features), labels)
    loss.requires_grad_().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def half(model: nn.Linear) -> Tensor:
    weight = torch.cat([model.weight[:2], model.weight[2:].detach()])
    return F.linear(features, weight, model.bias)


assert alarm(pair()) == "no alarm"
model = pair()
cut = alarm(model, lambda: one_step(model, lambda: after_cut(model)))
assert cut == "0.weight stood still (no grad); 0.bias stood still (no grad)"
assert alarm(pair_ := pair(), lambda: silenced_step(pair_)).count("stood still") == 4
forgetful = pair()
forgotten = alarm(
    forgetful, lambda: one_step(forgetful[2], lambda: forgetful(features))
)
assert forgotten == "0.weight stood still (has grad); 0.bias stood still (has grad)"
with torch.inference_mode():
    model[0].weight = nn.Parameter(torch.randn(8, 16))
assert alarm(model) == "0.weight stood still (no grad)"

frozen = pair()
frozen[0].requires_grad_(False)
assert alarm(frozen) == "no alarm"
late = pair()
momentum = torch.optim.SGD(late.parameters(), lr=0.1, momentum=0.9)


def momentum_step() -> None:
    momentum.zero_grad(set_to_none=False)  # zeros, and momentum does the rest
    F.cross_entropy(late(features), labels).backward()
    momentum.step()


momentum_step()
late[0].requires_grad_(False)
assert (
    alarm(late, momentum_step)
    == "0.weight is frozen and moved; 0.bias is frozen and moved"
)

# Blind: half of a parameter. Overzealous: any step of zero.
blind = nn.Linear(16, 4)
assert alarm(blind, lambda: one_step(blind, lambda: half(blind))) == "no alarm"
warming = alarm(blind, lambda: one_step(blind, lambda: blind(features), lr=0))
assert warming.count("stood still (has grad)") == 2
lora = nn.Sequential(nn.Linear(16, 2, bias=False), nn.Linear(2, 4, bias=False))
nn.init.zeros_(lora[1].weight)  # as LoRA starts: matrix A gets a gradient of zeros
assert alarm(lora) == "0.weight stood still (has grad)"

# %% [markdown] lang="pl"
# Strażnik wskazał `weight`. Milczy, gdy średnie policzysz w bloku `no_grad` albo gdy model
# skopiujesz przez `copy.deepcopy`: kopia powstaje poza trybem wnioskowania i ma klucz. Zwinięta
# komórka sprawdza go też na `detach` w środku sieci, stracie uciszonej metodą `requires_grad_`, optymalizatorze, który
# nie dostał pierwszej warstwy, i zamrożonej warstwie, którą rusza pęd (*momentum*). Martwe pola: parametr, w którym
# uczy się tylko połowa elementów, bufory, warstwy na zwykłej liście i odcięty parametr, który rusza
# zanikanie wag (*weight decay*) albo kara L2. Fałszywy alarm podniesie każdy zerowy krok: rozgrzewka
# od współczynnika uczenia 0, macierz A w pierwszym kroku LoRA, nieużyty ekspert, a także nauczyciel,
# który jest średnią wag (EMA). Parametr z NaN zawsze uchodzi za ruszony. Dopisek w nawiasie
# mówi o `grad` po kroku, więc także po `zero_grad` w środku.
#
# Na GPU klucz nazywa się `AutogradCUDA` (tu niezmierzone).
#
# ## Co już umiesz
#
# - Wymienisz cztery warunki zapisu i powiesz, który z nich znosi każdy wyłącznik.
# - Rozpoznasz flagi, które mogą kłamać: parametr z trybu wnioskowania, widok z bloku `no_grad`, strata
#   po `requires_grad_`.
# - Przewidzisz, które warstwy opłaca się zamrozić, i sprawdzisz pierwszy krok treningu.
#
# Wcześniej: [graf obliczeniowy pod lupą](08_computational_graph.py). Dalej:
# [własna funkcja autogradu](10_custom_autograd_function.py). Dokumentacja:
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html#locally-disabling-gradient-computation),
# [inference_mode](https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad_mode.inference_mode.html). Źródła:
# [`TensorImpl.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/TensorImpl.cpp),
# [`utils.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/functions/utils.h),
# [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp),
# [`variable.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/variable.h).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# The guard named `weight`. It is silent if you compute the means in a `no_grad` block, or copy
# the model by `copy.deepcopy`: the copy is made outside inference mode and has the key. The
# folded cell also tests it on a `detach` in the middle of a network, a loss silenced by `requires_grad_`,
# an optimizer that was not given the first layer, and a frozen layer that momentum moves. Blind
# spots: a parameter of which only half learns, buffers, layers in a plain list, and a cut parameter
# moved by weight decay or an L2 penalty. Any step of zero raises a false alarm: a warm-up from a
# learning rate of 0, matrix A in the first step of LoRA, an unused expert; and so does a teacher that
# is an average of weights (EMA). A parameter with NaN always counts as moved. The note in parentheses
# describes `grad` after the step, so also after a `zero_grad` inside.
#
# On a GPU the key is called `AutogradCUDA` (not measured here).
#
# ## Now you can
#
# - Name the four conditions for recording, and say which of them each switch removes.
# - Recognise the flags that may lie: a parameter from inference mode, a view from a `no_grad` block,
#   a loss after `requires_grad_`.
# - Predict which layers are worth freezing, and check the first training step.
#
# Before this: [the computational graph](08_computational_graph.py). Next:
# [custom autograd functions](10_custom_autograd_function.py). Documentation:
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html#locally-disabling-gradient-computation),
# [inference_mode](https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad_mode.inference_mode.html). Source:
# [`TensorImpl.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/c10/core/TensorImpl.cpp),
# [`utils.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/functions/utils.h),
# [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp),
# [`variable.h`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/variable.h).
#
# ## Belts: test yourself


# %% [markdown] lang="pl" exercise="one-rule" role="prompt" belt="white" minutes=8
# ### Biały: cała reguła w jednej funkcji
#
# Napisz funkcję `recorded`: czy `torch.stack` o takich argumentach, wywołana w tej chwili i w tym
# wątku, zostawi węzeł? Odpowiedz bez wykonywania jakiejkolwiek operacji na tensorach.

# %% [markdown] lang="en" exercise="one-rule" role="prompt" belt="white" minutes=8
# ### White: the whole rule in one function
#
# Write a function `recorded`: would `torch.stack` of these arguments, called right now in this
# thread, leave a node? Answer without running any operation on tensors.


# %% exercise="one-rule" role="starter"
def recorded(*inputs: Tensor) -> bool:
    return False  # your code


# %% exercise="one-rule" role="check"
rng = random.Random(9)
for _ in range(300):
    inputs = []
    for _ in range(rng.randint(1, 3)):
        with torch.inference_mode(rng.random() < 0.5):
            inputs.append(torch.ones(2, requires_grad=rng.random() < 0.5))
    grad, inference = rng.random() < 0.7, rng.random() < 0.25
    with torch.inference_mode(inference), torch.set_grad_enabled(grad):
        with CallCounter() as counter:
            answer = recorded(*inputs)
        expected = torch.stack(inputs).grad_fn is not None
    described = (
        f"requires_grad={[t.requires_grad for t in inputs]}, "
        f"is_inference={[t.is_inference() for t in inputs]}, "
        f"grad mode {grad}, inference mode {inference}"
    )
    assert not counter.names, say(
        pl=f"funkcja wykonała operacje: {dict(counter.names)}",
        en=f"the function ran operations: {dict(counter.names)}",
    )
    assert answer == expected, say(
        pl=f"{described}: ma być {expected}, a jest {answer}",
        en=f"{described}: expected {expected}, got {answer}",
    )

# %% [markdown] lang="pl" exercise="one-rule" role="hint"
# Potrzebujesz `torch.is_grad_enabled()`, `torch.is_inference_mode_enabled()`, `requires_grad` i
# `is_inference()`.

# %% [markdown] lang="en" exercise="one-rule" role="hint"
# You need `torch.is_grad_enabled()`, `torch.is_inference_mode_enabled()`, `requires_grad` and
# `is_inference()`.

# %% [markdown] lang="pl" exercise="one-rule" role="hint"
# Klucz i flaga nie muszą pochodzić od tego samego argumentu. Przypomnij sobie `addmm`.

# %% [markdown] lang="en" exercise="one-rule" role="hint"
# The key and the flag need not come from the same argument. Remember `addmm`.


# %% exercise="one-rule" role="wrong" says="inference mode False: expected False, got True"
def recorded(*inputs: Tensor) -> bool:
    # Forgets the keys.
    return torch.is_grad_enabled() and any(t.requires_grad for t in inputs)


# %% exercise="one-rule" role="wrong" says="expected True, got False"
def recorded(*inputs: Tensor) -> bool:
    # Wants the key and the flag on one and the same argument.
    mode = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    return mode and any(t.requires_grad and not t.is_inference() for t in inputs)


# %% exercise="one-rule" role="wrong" says="the function ran operations: {'stack': 1}"
def recorded(*inputs: Tensor) -> bool:
    # Asks PyTorch instead of answering.
    return torch.stack(inputs).grad_fn is not None


# %% exercise="one-rule" role="solution"
def recorded(*inputs: Tensor) -> bool:
    # enable_grad inside inference mode turns grad mode on, but records nothing.
    mode = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    flag = any(t.requires_grad for t in inputs)
    key = any(not t.is_inference() for t in inputs)
    return mode and flag and key


# %% [markdown] lang="pl" exercise="carry-modes" role="prompt" belt="brown" minutes=15
# ### Brązowy: tryb, który idzie z zadaniem
#
# Wątek roboczy nie zna trybów tego, kto zlecił zadanie. Napisz `carry(function)`: funkcję, która
# robi to samo co `function`, ale w dowolnym wątku działa w trybach z chwili wywołania `carry`.
# Po sobie ma zostawić wątek w takich trybach, w jakich go zastała, także po wyjątku.
# Funkcja jest zwykła: ani generator, ani korutyna.

# %% [markdown] lang="en" exercise="carry-modes" role="prompt" belt="brown" minutes=15
# ### Brown: modes that travel with the job
#
# A worker thread does not know the modes of whoever submitted the job. Write `carry(function)`:
# a function that does the same as `function`, but in any thread runs in the modes of the moment
# when `carry` was called. It has to leave the thread in the modes in which it found it, after an
# exception, too. The function is an ordinary one: neither a generator nor a coroutine.


# %% exercise="carry-modes" role="starter"
def carry(function: Callable[..., Any]) -> Callable[..., Any]:
    return function  # your code


# %% exercise="carry-modes" role="check"
def seen_modes() -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


calls: list[int] = []
raised: list[Exception] = []


def job(number: int, *, fail: bool = False) -> tuple[int, tuple[bool, bool], bool]:
    calls.append(number)
    if fail:
        raised.append((KeyError, ValueError, OSError)[number % 3](number))
        raise raised[-1]
    t = torch.ones(1, requires_grad=True) * number
    return number, seen_modes(), t.requires_grad


def run_there(
    function: Callable[..., Any], number: int, fail: bool, grad: bool, inference: bool
) -> tuple[Any, tuple[bool, bool]]:
    """Run it in these modes; return its result or exception, and the modes it leaves."""
    with torch.inference_mode(inference), torch.set_grad_enabled(grad):
        try:
            result = function(number, fail=fail)
        except Exception as error:
            result = error
        return result, seen_modes()


rng = random.Random(9)
with ThreadPoolExecutor(1) as worker:
    for number in range(80):
        grad, inference = rng.random() < 0.5, rng.random() < 0.5
        fail, grad_there = rng.random() < 0.3, rng.random() < 0.5
        inference_there = number >= 40 and rng.random() < 0.5
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            carried = carry(job)
        modes_there = grad_there, inference_there
        got, there = worker.submit(
            run_there, carried, number, fail, *modes_there
        ).result()
        assert calls == list(range(number + 1)), say(
            pl="`function` ma być wywołana raz na zadanie",
            en="`function` has to be called once per job",
        )
        if fail:
            assert got is raised[-1], say(
                pl=f"funkcja zgłosiła {raised[-1]!r}, a na zewnątrz wyszło {got!r}",
                en=f"the function raised {raised[-1]!r}, and what came out was {got!r}",
            )
        else:
            wanted = (number, (grad, inference), grad and not inference)
            assert got == wanted, say(
                pl=f"(wynik, (tryb zapisu, tryb wnioskowania), requires_grad): ma być {wanted}, "
                f"a jest {got}",
                en=f"(result, (grad mode, inference mode), requires_grad): expected {wanted}, "
                f"got {got}",
            )
        assert there == modes_there, say(
            pl=f"wątek miał tryby {modes_there}, a po zadaniu ma {there}",
            en=f"the thread had modes {modes_there}, and after the job it has {there}",
        )

# %% [markdown] lang="pl" exercise="carry-modes" role="hint"
# Odczytaj oba tryby w `carry`, a nie w funkcji, którą zwracasz. W niej użyj menedżerów kontekstu:
# one przywrócą tryby wątku.

# %% [markdown] lang="en" exercise="carry-modes" role="hint"
# Read both modes in `carry`, not in the function that you return. In that one use context
# managers: they restore the thread's modes.

# %% [markdown] lang="pl" exercise="carry-modes" role="hint"
# Kolejność ma znaczenie: `inference_mode(False)` włącza zapis gradientów.

# %% [markdown] lang="en" exercise="carry-modes" role="hint"
# The order matters: `inference_mode(False)` turns grad mode on.


# %% exercise="carry-modes" role="wrong" says="(True, False), True)"
def carry(function: Callable[..., Any]) -> Callable[..., Any]:
    # Reads the modes where the function runs: too late.
    def carried(*args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            return function(*args, **kwargs)

    return carried


# %% exercise="carry-modes" role="wrong" says="and after the job it has"
def carry(function: Callable[..., Any]) -> Callable[..., Any]:
    # Sets the mode for the next job as well.
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def carried(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode() if inference else nullcontext():
            torch.set_grad_enabled(grad)
            return function(*args, **kwargs)

    return carried


# %% exercise="carry-modes" role="wrong" says="(False, True), False)"
def carry(function: Callable[..., Any]) -> Callable[..., Any]:
    # inference_mode comes last and sets grad mode, too.
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def carried(*args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(grad), torch.inference_mode(inference):
            return function(*args, **kwargs)

    return carried


# %% exercise="carry-modes" role="solution"
def carry(function: Callable[..., Any]) -> Callable[..., Any]:
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def carried(*args: Any, **kwargs: Any) -> Any:
        # Inference mode first: entering it sets grad mode, too.
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(*args, **kwargs)

    return carried


# %% [markdown] lang="pl" exercise="unreached" role="prompt" belt="black" minutes=20
# ### Czarny: kto się nie nauczy, zanim policzysz gradient
#
# Strażnik potrzebuje kroku treningu i kopii parametrów. Napisz `unreached(model, loss)`, która
# z samego grafu odczyta nazwy uczących się parametrów, do których `loss` nie prowadzi. Nie wolno
# liczyć gradientów ani niczego zmieniać. Graf może być długi (tysiące węzłów) i rozgałęziony
# (tysiące dróg), ale nie ma w nim checkpointingu z `use_reentrant=True` ani własnych funkcji, których
# `backward` zwraca `None`.

# %% [markdown] lang="en" exercise="unreached" role="prompt" belt="black" minutes=20
# ### Black: who will not learn, before any gradient
#
# The guard needs a training step and a copy of the parameters. Write `unreached(model, loss)`,
# which reads off the graph alone the names of trainable parameters that the graph of `loss` does not reach.
# You may not compute gradients or change anything. The graph may be long (thousands of nodes)
# and branched (thousands of paths), but has no checkpointing with `use_reentrant=True` and no custom
# functions whose `backward` returns `None`.


# %% exercise="unreached" role="starter"
def unreached(model: nn.Module, loss: Tensor) -> list[str]:
    return []  # your code


# %% exercise="unreached" role="check"
def random_model(rng: random.Random) -> tuple[nn.ModuleList, Tensor, str]:
    """Return layers, the loss of a network with random faults, and what they are."""
    model = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
    if rng.random() < 0.5:
        with torch.inference_mode():
            model[0].weight = nn.Parameter(torch.randn(4, 4))
    if rng.random() < 0.5:
        model[rng.randrange(5)].requires_grad_(False)
    h, story = torch.randn(3, 4), []
    for layer in model:
        fault = rng.choice(("", "", "", "detach", "skip", "no_grad"))
        with torch.set_grad_enabled(fault != "no_grad"):
            result = layer(h.detach() if fault == "detach" else h)
        h = h if fault == "skip" else h + result if rng.random() < 0.5 else result
        story.append(fault or "ok")
    loss = h.square().mean()
    if not loss.requires_grad:
        loss.requires_grad_()
    return model, loss, ", ".join(story)


class Deep(nn.Module):
    """Thousands of nodes and thousands of paths."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Parameter(torch.ones(1))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self) -> Tensor:
        h = self.used * 1
        for step in range(2800):
            h = h + h if step % 200 == 0 else h.neg()
        return h.sum()


deep = Deep()
deep_loss = deep()
rng = random.Random(9)
torch.manual_seed(9)
cases = [random_model(rng) for _ in range(60)]
cases.append((nn.ModuleList([deep]), deep_loss, "deep"))
for model_, loss_, story in cases:
    passes: list[object] = []
    if loss_.grad_fn is not None:
        loss_.grad_fn.register_prehook(passes.append)
    flags = [p.requires_grad for p in model_.parameters()]
    with CallCounter() as counter:
        names_found = unreached(model_, loss_)
    assert not passes, say(
        pl="to liczy gradienty, a ma tylko odczytać graf",
        en="you computed gradients instead of reading the graph",
    )
    assert not counter.names, say(
        pl=f"funkcja wykonała operacje: {dict(counter.names)}",
        en=f"the function ran operations: {dict(counter.names)}",
    )
    kept = flags == [p.requires_grad for p in model_.parameters()]
    assert kept and all(p.grad is None for p in model_.parameters()), say(
        pl="parametry się zmieniły (flagi albo grad)",
        en="the parameters have changed (flags or grad)",
    )
    learning = {name: p for name, p in model_.named_parameters() if p.requires_grad}
    grads = (
        torch.autograd.grad(loss_, list(learning.values()), allow_unused=True)
        if loss_.grad_fn is not None and learning
        else [None] * len(learning)
    )
    missing = [name for name, g in zip(learning, grads, strict=True) if g is None]
    assert sorted(names_found) == sorted(missing), say(
        pl=f"warstwy: {story}; gradient nie dociera do {missing}, a podajesz {names_found}",
        en=f"layers: {story}; no gradient reaches {missing}, and you name {names_found}",
    )

# %% [markdown] lang="pl" exercise="unreached" role="hint"
# Zacznij od `loss.grad_fn`. Z węzła prowadzi dalej `next_functions`, a węzeł `AccumulateGrad` ma
# atrybut `variable`: swój liść.

# %% [markdown] lang="en" exercise="unreached" role="hint"
# Start at `loss.grad_fn`. From a node `next_functions` leads on, and a node `AccumulateGrad` has
# the attribute `variable`: its leaf.

# %% [markdown] lang="pl" exercise="unreached" role="hint"
# Zamiast rekurencji użyj listy węzłów do odwiedzenia i zbioru odwiedzonych. Trzymaj w nim same
# węzły.

# %% [markdown] lang="en" exercise="unreached" role="hint"
# Instead of recursion use a list of nodes to visit and a set of visited ones. Keep the nodes
# themselves in it.


# %% exercise="unreached" role="wrong" says="and you name ['0.weight']"
def unreached(model: nn.Module, loss: Tensor) -> list[str]:
    # Trusts flags: a detach or a skipped layer does not show in them.
    parameters = model.named_parameters()
    return [name for name, p in parameters if p.requires_grad and p.is_inference()]


# %% exercise="unreached" role="wrong" says="you computed gradients"
def unreached(model: nn.Module, loss: Tensor) -> list[str]:
    # Finds the right names, at the price of a backward pass.
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if loss.grad_fn is None or not learning:
        return list(learning)
    grads = torch.autograd.grad(
        loss, list(learning.values()), retain_graph=True, allow_unused=True
    )
    return [name for name, g in zip(learning, grads, strict=True) if g is None]


# %% exercise="unreached" role="wrong" says="'0.bias', '2.weight', '3.weight'"
def unreached(model: nn.Module, loss: Tensor) -> list[str]:
    # Follows only the first edge of each node.
    node, found = loss.grad_fn, []
    while node is not None:
        found.append(getattr(node, "variable", None))
        node = node.next_functions[0][0] if node.next_functions else None
    parameters = model.named_parameters()
    return [
        n for n, p in parameters if p.requires_grad and not any(p is f for f in found)
    ]


# %% exercise="unreached" role="solution"
def unreached(model: nn.Module, loss: Tensor) -> list[str]:
    visited: set[torch.autograd.graph.Node] = set()
    to_visit = [] if loss.grad_fn is None else [loss.grad_fn]
    leaves: set[Tensor] = set()  # a tensor's hash is its identity
    while to_visit:
        node = to_visit.pop()
        if node in visited:
            continue
        visited.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(leaf)
        to_visit += [child for child, _ in node.next_functions if child is not None]
    # A frozen parameter is not a problem: it was meant to stand still.
    return [
        n for n, p in model.named_parameters() if p.requires_grad and p not in leaves
    ]
