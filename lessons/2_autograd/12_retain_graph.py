# %% [markdown] lang="pl"
# # retain_graph: co naprawdę zwalnia przejście wstecz
#
# Komunikat „Trying to backward through the graph a second time” radzi dodać
# `retain_graph=True`. Rada ucisza wyjątek, ale nie pyta, po co ci drugie przejście. Po tej
# lekcji przewidzisz, kiedy wyjątek się pojawi, oszacujesz koszt drugiego przejścia i
# rozpoznasz, kiedy wystarczy jedno.
#
# ## Wpis do logu, który zmienił model
#
# Regresja grzbietowa (*ridge*) minimalizuje błąd z karą za duże wagi: `decay` razy suma
# kwadratów wag. Funkcja `fit` (zwinięta) w każdym kroku liczy błąd i karę, wywołuje `step`, żeby
# wypełnić `w.grad`, i poprawia wagi. Ktoś chciał przy tym zapisywać w logu normę gradientu
# samego błędu. Funkcja `solved_decay` odczytuje z gotowych wag, dla jakiego `decay` są dokładnym
# rozwiązaniem.

# %% [markdown] lang="en"
# # retain_graph: what the backward pass really frees
#
# The message "Trying to backward through the graph a second time" advises
# `retain_graph=True`. The advice silences the exception and does not ask what you need the
# second pass for. After this lesson you can predict when the exception comes, estimate
# what a second pass costs, and recognise when one pass is enough.
#
# ## The log entry that changed the model
#
# Ridge regression minimises the error plus a penalty for large weights: `decay` times the
# sum of squared weights. In each step the function `fit` (folded) computes the error and the
# penalty, calls `step` to fill `w.grad`, and updates the weights. Somebody also wanted to log
# the norm of the gradient of the error alone. The function `solved_decay` reads from finished
# weights for which `decay` they are the exact solution.

# %% fold=true
import math
import random
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, RED, show_figure
from snippets.graph_nodes import graph_of
from snippets.graph_pictures import show_graph
from snippets.memory import CallCounter, MemoryMeter

torch.manual_seed(0)
torch.set_num_threads(1)

x = torch.randn(200, 8)  # (samples, features)
y = x @ torch.randn(8, 1) + torch.randn(200, 1)
decay = 1.0
Step = Callable[[Tensor, Tensor, Tensor], None]


def grad_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def terms(w: Tensor) -> tuple[Tensor, Tensor]:
    error = (x @ w - y).square().mean()
    penalty = decay * w.square().sum()
    return error, penalty


def fit(step: Step) -> Tensor:
    """Fit by gradient descent; `step` has to put the gradient into `w.grad`."""
    w = torch.zeros(8, 1, requires_grad=True)
    for _ in range(300):
        w.grad = None
        step(w, *terms(w))
        with torch.no_grad():
            w -= 0.05 * grad_of(w)
    return w.detach()


def solved_decay(w: Tensor) -> float:
    """The decay for which these weights are the exact solution."""
    pull = x.T @ (y - x @ w) / len(x)
    assert torch.allclose(pull, (pull.T @ w) / (w.T @ w) * w, atol=1e-4)
    return ((pull.T @ w) / (w.T @ w)).item()


def complaint(program: Callable[[], object]) -> str:
    """The message of the exception that the program raises, or `silent`."""
    try:
        program()
    except RuntimeError as error:
        return str(error)
    return "silent"


# %%
def plain(w: Tensor, error: Tensor, penalty: Tensor) -> None:
    (error + penalty).backward()


def logged(w: Tensor, error: Tensor, penalty: Tensor) -> None:
    loss = error + penalty
    error.backward(retain_graph=True)
    norms.append(grad_of(w).norm().item())  # w.grad, which is not None
    loss.backward()


norms: list[float] = []
plain_decay, logged_decay = solved_decay(fit(plain)), solved_decay(fit(logged))
print(f"{plain_decay:.2f} {logged_decay:.2f}")
assert math.isclose(plain_decay, decay, abs_tol=1e-3)
assert math.isclose(logged_decay, decay / 2, abs_tol=1e-3)

# %% [markdown] lang="pl"
# Obie wersje miały `decay` równe {{ decay:.2f }}. Pierwsza znalazła rozwiązanie dla
# {{ plain_decay:.2f }}, a druga, z wpisem do logu, dla {{ logged_decay:.2f }}. Wyjątku nie było.
# Pytanie lekcji: **dlaczego jeszcze jedno przejście wstecz (*backward pass*) po cichu zmieniło
# model i kiedy takie przejście zgłasza wyjątek?**
#
# ## Drugie wywołanie
#
# Weźmy dwie proste straty, na razie bez `retain_graph`.

# %% [markdown] lang="en"
# Both versions had `decay` equal to {{ decay:.2f }}. The first found the solution for
# {{ plain_decay:.2f }}, the second, with the log entry, for {{ logged_decay:.2f }}. Nothing
# raised. The question of this lesson: **why did one more backward pass change the model
# silently, and when does such a pass raise?**
#
# ## The second call
#
# Let's take two simple losses, for now without `retain_graph`.

# %% [markdown] lang="pl" predict="second-call"
# ```python
# w = torch.ones(3, requires_grad=True)
# a = (w + 2).sum()
# b = (w * 2).sum()
# ```
#
# Na każdej stracie wywołujesz `backward()` dwa razy. Gdzie drugie wywołanie zgłosi wyjątek?
#
# - [ ] Dla `a` i dla `b`: pierwsze wywołanie usuwa cały graf
#
#   Graf zostaje: drugie przejście przez `a` się udało i dodało do `w.grad` drugą jedynkę,
#   razem {{ doubled:.0f }}.
#
# - [x] Tylko dla `b`: mnożenie musi pamiętać czynnik
#
#   Czynnik 2 czekał w grafie jako tensor i został zwolniony. Dodawanie nie
#   pamięta żadnego tensora, więc drugie przejście przez `a` po cichu podwoiło gradient:
#   {{ doubled:.0f }}.
#
# - [ ] Nigdzie: pochodne są stałe, więc niczego nie trzeba pamiętać
#
#   Stałą też trzeba skądś wziąć. Gradient straty `b` zależy od czynnika 2, który mnożenie
#   zapamiętało, a pierwsze przejście zwolniło.

# %% [markdown] lang="en" predict="second-call"
# ```python
# w = torch.ones(3, requires_grad=True)
# a = (w + 2).sum()
# b = (w * 2).sum()
# ```
#
# You call `backward()` twice on each loss. Where does the second call raise?
#
# - [ ] For `a` and for `b`: the first call deletes the whole graph
#
#   The graph stays: the second pass through `a` succeeded and added another one to `w.grad`,
#   {{ doubled:.0f }} together.
#
# - [x] For `b` only: the multiplication has to remember the factor
#
#   The factor 2 waited in the graph as a tensor, and was freed. The addition remembers
#   no tensor, so the second pass through `a` silently doubled the gradient: {{ doubled:.0f }}.
#
# - [ ] Nowhere: the derivatives are constant, so nothing needs to be remembered
#
#   A constant has to come from somewhere, too. The gradient of `b` depends on the factor 2,
#   which the multiplication saved and the first pass freed.

# %%
w = torch.ones(3, requires_grad=True)
a = (w + 2).sum()
b = (w * 2).sum()
a.backward()
a.backward()
doubled = grad_of(w)[0].item()
# The node of w * 2, one arrow below that of the sum.
product: Any = b.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
print(f"{doubled=}, the factor: {product._saved_other!r}")
assert isinstance(product._saved_other, Tensor)
assert grad_of(w).tolist() == [2.0, 2.0, 2.0]  # the gradient of a is 1

# %% raises="RuntimeError: Trying to backward through the graph a second time"
b.backward()
b.backward()

# %% [markdown] lang="pl"
# Operacja przechowuje w swoim węźle grafu **zapamiętane tensory** (*saved tensors*), czyli
# to, czego będzie potrzebować do gradientu. Czy tylko one decydują o wyjątku? Sprawdźmy
# więcej operacji.

# %% [markdown] lang="en"
# An operation keeps **saved tensors** in its node of the graph: what it will need for the
# gradient. Do they alone decide whether a second pass raises? Let's check more operations.


# %% fold=true
def holds_tensors(node: Any) -> bool:
    saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    parts = [p for s in saved for p in (s if isinstance(s, tuple) else (s,))]
    return any(isinstance(part, Tensor) for part in parts)


def second_call(result: Tensor) -> str:
    """Tell what a second pass does: raises, or doubles the gradient."""
    w.grad = None
    ones = torch.ones_like(result)
    result.backward(ones)
    first = grad_of(w).clone()
    try:
        result.backward(ones)
    except RuntimeError as error:
        assert "backward through the graph a second time" in str(error)
        return "raises"
    assert torch.equal(grad_of(w), 2 * first)
    return "doubles"


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "w + 2": lambda w: w + 2,
    "-w": lambda w: -w,
    "w.view(3, 1)": lambda w: w.view(3, 1),
    "w[:2]": lambda w: w[:2],
    "w.mean()": torch.mean,
    "w.cumsum(0)": lambda w: w.cumsum(0),
    "w.double()": lambda w: w.double(),
    "torch.cat([w, w])": lambda w: torch.cat([w, w]),
    "w * 2": lambda w: w * 2,
    "w ** 2": lambda w: w**2,
    "w.abs()": torch.abs,
    "w.exp()": torch.exp,
    "w.relu()": torch.relu,
    "w @ w": lambda w: w @ w,
    "w[[0, 1]]": lambda w: w[[0, 1]],
    "w.max()": torch.max,
}

# %%
outcomes: dict[str, list[str]] = {"doubles": [], "raises": []}
for name, operation in OPERATIONS.items():
    result = operation(w)
    expected = "raises" if holds_tensors(result.grad_fn) else "doubles"
    outcome = second_call(result)
    outcomes[outcome].append(name)
    assert outcome == expected, name
print(*(f"{name}: {', '.join(outcomes[name])}" for name in outcomes), sep="\n")
tried, silent = len(OPERATIONS), len(outcomes["doubles"])
assert (tried, silent) == (16, 8)

mean = w.mean()
assert second_call(mean) == "doubles"
assert mean.grad_fn._saved_self_sym_numel == 3  # type: ignore[union-attr]  # not freed
assert second_call((w.exp() + 2).mean()) == "raises"  # one node on the way is enough

partly = w.clone()
partly[0] = 5.0  # a write into a part: the node releases more than saved tensors
assert not any(holds_tensors(item.node) for item in graph_of(partly))
assert second_call(partly) == "raises"

# %% [markdown] lang="pl"
# We wszystkich {{ tried }} operacjach drugie przejście zgłasza wyjątek dokładnie wtedy, gdy
# węzeł zapamiętał **tensor**. Zapamiętana liczba elementów, jak przy `w.mean()`, nie jest
# zwalniana. Pozostałych {{ silent }} operacji po cichu podwaja gradient, bo `w.grad` się
# sumuje. W dłuższym grafie do wyjątku wystarczy jeden węzeł z tensorem na drodze do `w`.
# To nie cała reguła: po zapisie do fragmentu tensora, np. `z[0] = 5`, drugie przejście zgłasza
# wyjątek i bez zapamiętanych tensorów.
#
# ## Co znika, a co zostaje
#
# Narysujmy graf straty z początku lekcji i wykonajmy `backward` tylko dla błędu.

# %% [markdown] lang="en"
# For all {{ tried }} operations the second pass raises exactly when the node has saved a
# **tensor**. A saved number of elements, as in `w.mean()`, is not freed. The other
# {{ silent }} operations double the gradient silently, because `w.grad` adds up. In a longer
# graph one node with a tensor on the way to `w` is enough for the exception. This is not the
# whole rule: after a write into a part of a tensor, such as `z[0] = 5`, a second pass raises
# even without saved tensors.
#
# ## What goes and what stays
#
# Let's draw the graph of the loss from the beginning and call `backward` for the error only.

# %%
w = torch.ones(8, 1, requires_grad=True)
error, penalty = terms(w)
loss = error + penalty
before = graph_of(loss, names={"w": w, "x": x})
square: Any = error.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
deviation = square._saved_self.nbytes
storage = weakref.ref(square._saved_self.untyped_storage())
alive = [storage() is not None]
w.register_hook(lambda _: alive.append(storage() is not None))  # a gradient arrives
error.backward()
after = graph_of(loss, names={"w": w, "x": x})
print(f"{deviation=} {alive=}", [item.name for item in after if item.freed])
assert alive == [True, False]  # gone before the pass was over
assert [item.node for item in after] == [item.node for item in before]
assert [item.children for item in after] == [item.children for item in before]
assert {item.node for item in after if item.freed} == {
    square,
    square.next_functions[0][0].next_functions[0][0],  # the product x @ w
}
assert [item.name for item in before if item.leaf] == ["AccumulateGrad"]
message = complaint(loss.backward)
assert "directly access saved tensors after they have already been freed" in message

# %% fold=true
show_graph(
    {"before": before, "after error.backward()": after},
    alt_pl="Dwa razy ten sam graf: z węzła Add biegną strzałki do gałęzi błędu i do gałęzi "
    "kary, obie kończą się w liściu w. Po error.backward() w gałęzi błędu dwa węzły o "
    "czerwonych obrysach, Pow i Mm, mają napis „zwolnione”, a gałąź kary jest nietknięta.",
    alt_en="The same graph twice: from the node Add arrows lead to the branch of the error "
    "and to that of the penalty, and both end in the leaf w. After error.backward() two "
    "nodes of the error with red outlines, Pow and Mm, say “freed”, and the penalty's "
    "branch is untouched.",
    colours={item.node: RED for item in after if item.freed},
    pl={"before": "przed", "after error.backward()": "po error.backward()"},
)

# %% [markdown] lang="pl"
# Prostokąt to węzeł (w nazwach pominięto końcówkę `Backward0`), strzałka to droga gradientu,
# a zielona ramka `AccumulateGrad` to liść (*leaf*): dodaje gradient do `w.grad`. Niebieski
# pasek to bajty, które węzeł trzyma, a przerywany pomarańczowy, z liczbą w nawiasie: bajty
# tensorów, które żyją i bez niego. Po prawej są te same węzły i te same strzałki. Ubyły
# tylko zapamiętane tensory, i to wyłącznie na drodze wykonanego przejścia, w czerwonych
# obrysach: {{ deviation }} B w `Pow` i odwołanie do `x` w `Mm`. Te {{ deviation }} B silnik
# zwolnił, zanim gradient dotarł do `w`.
#
# W źródłach PyTorcha silnik po wykonaniu każdego węzła wywołuje jego `release_variables`,
# chyba że podano `retain_graph=True` (`Engine::evaluate_function` w pliku `engine.cpp`).
# Gdy węzeł sięga po tensor, którego już nie ma, wyjątek zgłasza zwykle
# `SavedVariable::unpack` (`saved_variable.cpp`), a przy liście tensorów, np. dla
# `w[[0, 1]]`, sam węzeł.
#
# Teraz widać, co zrobił wpis do logu. Gradient błędu trafił do `w.grad` dwa razy, raz z
# `error`, raz z `loss`, a gradient kary raz. Pętla minimalizowała więc 2 · błąd + karę.
# Połowa tej sumy, błąd + kara / 2, ma minimum w tym samym miejscu, a to zadanie z połową
# `decay`. Są dwie naprawy: przejść każdą gałąź raz albo zapytać o gradient funkcją
# `torch.autograd.grad`, która zwraca go i nie zmienia `w.grad`.

# %% [markdown] lang="en"
# A box is a node (names are shown without the ending `Backward0`), an arrow shows where a
# gradient flows, and the green box `AccumulateGrad` is a leaf: it adds the gradient to
# `w.grad`. A blue bar is the bytes that the node keeps, and a dashed orange one, with a number
# in parentheses, bytes of tensors that live without it anyway. On the right there are the same
# nodes and the same arrows. Only saved tensors are gone, and only along the pass that ran, in
# red outlines: {{ deviation }} B in `Pow`, and the reference to `x` in `Mm`. The engine freed
# these {{ deviation }} B before the gradient reached `w`.
#
# In PyTorch's source the engine calls `release_variables` of each node after running it,
# unless it was given `retain_graph=True` (`Engine::evaluate_function` in `engine.cpp`).
# When a node reaches for a tensor that is no longer there, the exception usually comes from
# `SavedVariable::unpack` (`saved_variable.cpp`), and for a list of tensors, as in
# `w[[0, 1]]`, from the node itself.
#
# Now we can see what the log entry did. The gradient of the error reached `w.grad` twice,
# once from `error` and once from `loss`, that of the penalty once. So the loop minimised 2 ·
# error + penalty. Half of this sum, error + penalty / 2, has its minimum at the same place,
# and that is the problem with half of `decay`. There are two repairs: go through each branch
# once, or ask for the gradient with the function `torch.autograd.grad`, which returns it and
# leaves `w.grad` alone.


# %%
def in_parts(w: Tensor, error: Tensor, penalty: Tensor) -> None:
    error.backward()  # frees what the nodes of the error saved
    norms.append(grad_of(w).norm().item())
    penalty.backward()  # goes through others


def asked(w: Tensor, error: Tensor, penalty: Tensor) -> None:
    (gradient,) = torch.autograd.grad(error, w, retain_graph=True)
    norms.append(gradient.norm().item())
    (error + penalty).backward()


for repaired in (in_parts, asked):
    norms = []
    assert torch.allclose(fit(repaired), fit(plain), atol=1e-5)
    print(repaired.__name__, f"{norms[0]:.3f} -> {norms[-1]:.3f}")
    assert len(norms) == 300

# %% fold=true
w = torch.ones(8, 1, requires_grad=True)
of_error, of_penalty = (torch.autograd.grad(term, w)[0] for term in terms(w))
logged(w, *terms(w))
assert torch.allclose(grad_of(w), 2 * of_error + of_penalty)

error, penalty = terms(w)
torch.autograd.grad(error, w)  # without the flag
assert "a second time" in complaint((error + penalty).backward)

# %% [markdown] lang="pl"
# Funkcja `in_parts` nie potrzebuje flagi: straty mają wspólny tylko liść `w`. Funkcja
# `asked` potrzebuje jej naprawdę i płaci za drugie przejście przez węzły błędu.
#
# ## Silnik od zera
#
# Zbudujmy silnik na liczbach: węzeł ma regułę, wejścia i to, co reguła każe zapamiętać.

# %% [markdown] lang="en"
# The function `in_parts` needs no flag: the losses share only the leaf `w`. The function
# `asked` does need it, and pays for a second pass through the nodes of the error.
#
# ## An engine from scratch
#
# Let's build the engine on numbers: a node has a rule, inputs, and what the rule saves.


# %%
@dataclass(frozen=True)
class Rule:
    forward: Callable[..., float]
    saves: Callable[..., tuple[float, ...]]  # of the inputs and the result
    backward: Callable[..., tuple[float, ...]]  # of the gradient and what was saved


RULES = {
    "add": Rule(lambda a, b: a + b, lambda a, b, y: (), lambda g: (g, g)),
    "neg": Rule(lambda a: -a, lambda a, y: (), lambda g: (-g,)),
    "mul": Rule(
        lambda a, b: a * b, lambda a, b, y: (a, b), lambda g, a, b: (g * b, g * a)
    ),
    "double": Rule(lambda a: 2 * a, lambda a, y: (2.0,), lambda g, two: (g * two,)),
    "sin": Rule(math.sin, lambda a, y: (a,), lambda g, a: (g * math.cos(a),)),
    "tanh": Rule(math.tanh, lambda a, y: (y,), lambda g, y: (g * (1 - y * y),)),
}


@dataclass(eq=False)
class Value:
    data: float
    rule: Rule | None = None  # None: a leaf
    inputs: tuple["Value", ...] = ()
    saved: tuple[float, ...] | None = ()
    grad: float = 0.0

    @classmethod
    def of(cls, rule: Rule, *inputs: "Value") -> "Value":
        numbers = [value.data for value in inputs]
        result = rule.forward(*numbers)
        return cls(result, rule, inputs, rule.saves(*numbers, result))

    def inputs_first(self, done: "dict[Value, None]") -> "dict[Value, None]":
        for value in self.inputs:
            if value not in done:
                value.inputs_first(done)
        done[self] = None
        return done

    def backward(self, retain_graph: bool = False) -> None:
        gradients = {self: 1.0}
        for value in reversed(self.inputs_first({})):
            gradient = gradients[value]
            if value.rule is None:
                value.grad += gradient
                continue
            if value.saved is None:
                raise RuntimeError("backward through the graph a second time")
            parts = value.rule.backward(gradient, *value.saved)
            for into, part in zip(value.inputs, parts, strict=True):
                gradients[into] = gradients.get(into, 0.0) + part
            if value.saved and not retain_graph:
                value.saved = None  # the rule and the inputs stay


# %% [markdown] lang="pl"
# Wzorcem jest PyTorch. Losowy program wykonuje osiem losowych operacji na dwóch liściach i
# wcześniejszych wynikach, a potem od dwóch do czterech razy wywołuje `backward` na losowym
# wyniku, z flagą albo bez. Po każdym udanym wywołaniu porównujemy gradienty liści, a na końcu
# także wyjątki.

# %% [markdown] lang="en"
# PyTorch is the oracle. A random program does eight random operations on two leaves and
# earlier results, then calls `backward` two to four times on a random result, with the flag
# or without. After each call that succeeds we compare the gradients of the leaves, and at
# the end the exceptions, too.


# %% fold=true
TORCH: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "neg": torch.neg,
    "mul": torch.mul,
    "double": lambda a: a * 2,
    "sin": torch.sin,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Program:
    operations: tuple[tuple[str, int, int], ...]  # name and two earlier results
    passes: tuple[tuple[int, bool], ...]  # root and retain_graph


def random_program(rng: random.Random) -> Program:
    operations = tuple(
        (rng.choice(list(RULES)), rng.randrange(i), rng.randrange(i))
        for i in range(2, 10)
    )
    passes = tuple(
        (rng.randrange(2, 10), rng.random() < 0.5) for _ in range(rng.randint(2, 4))
    )
    return Program(operations, passes)


def ours(program: Program) -> list[list[float] | str]:
    values = [Value(0.5), Value(-1.25)]
    for name, i, j in program.operations:
        both = name in ("add", "mul")
        inputs = (values[i], values[j]) if both else (values[i],)
        values.append(Value.of(RULES[name], *inputs))
    history: list[list[float] | str] = []
    for root, retain in program.passes:
        try:
            values[root].backward(retain_graph=retain)
        except RuntimeError as error:
            return [*history, str(error)]
        history.append([leaf.grad for leaf in values[:2]])
    return history


def theirs(program: Program) -> list[list[float] | str]:
    leaves = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.5, -1.25)
    ]
    values = [*leaves]
    for name, i, j in program.operations:
        both = name in ("add", "mul")
        inputs = (values[i], values[j]) if both else (values[i],)
        values.append(TORCH[name](*inputs))
    history: list[list[float] | str] = []
    for root, retain in program.passes:
        try:
            values[root].backward(retain_graph=retain)
        except RuntimeError as error:
            return [*history, str(error)]
        history.append([0.0 if v.grad is None else v.grad.item() for v in leaves])
    return history


def agree(mine: list[float] | str, reference: list[float] | str) -> bool:
    if isinstance(mine, str) or isinstance(reference, str):
        return isinstance(mine, str) and mine in reference
    pairs = zip(mine, reference, strict=True)
    return all(math.isclose(m, r, rel_tol=1e-9, abs_tol=1e-12) for m, r in pairs)


# %%
rng = random.Random(0)
programs = agreed = raised = 0
for _ in range(500):
    program = random_program(rng)
    mine, reference = ours(program), theirs(program)
    programs += 1
    agreed += len(mine) == len(reference) and all(map(agree, mine, reference))
    raised += isinstance(mine[-1], str)
print(f"{agreed=} of {programs}, {raised=}")
assert agreed == programs == 500
assert 100 < raised < 400

# %% [markdown] lang="pl"
# Oba silniki zgadzają się w {{ agreed }} z {{ programs }} programów, a w {{ raised }}, które
# skończyły się wyjątkiem, aż do niego.
#
# ## Ile kosztuje drugie przejście
#
# Wspólny pień sieci (*trunk*) ma dwie głowy (*heads*), a każda głowa swoją stratę. Dwa
# wywołania `backward`, z których każde idzie przez pień, wymagają flagi. Oto trzy sposoby na
# ten sam gradient.

# %% [markdown] lang="en"
# The engines agree on {{ agreed }} of {{ programs }} programs, and on the {{ raised }} that
# ended in an exception up to that exception.
#
# ## What a second pass costs
#
# One trunk of a network has two heads, and each head has its own loss. Two calls of `backward`
# that both go through the trunk need the flag. Three ways to the same gradient:

# %% fold=true
WIDTH, LAYERS, BATCH = 128, 6, 1024


def make_trunk() -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    return nn.Sequential(*layers)


torch.manual_seed(0)
trunk, heads = make_trunk(), nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(2))
images, targets = torch.randn(BATCH, WIDTH), torch.randn(2, BATCH, 1)
parameters = [*trunk.parameters(), *heads.parameters()]
Loss = Callable[[Tensor], Tensor]  # of the output of the trunk


def losses(h: Tensor) -> tuple[Tensor, Tensor]:
    first, second = (
        (head(h) - target).square().mean()
        for head, target in zip(heads, targets, strict=True)
    )
    return first, second


def cleared(way: Callable[[], None]) -> None:
    for parameter in parameters:
        parameter.grad = None
    way()


first, second = losses(trunk(images))
first.backward()
assert "a second time" in complaint(second.backward)


# %%
def added() -> None:
    first, second = losses(trunk(images))
    (first + second).backward()


def twice() -> None:
    first, second = losses(trunk(images))
    first.backward(retain_graph=True)
    second.backward()


def cut() -> None:
    h, wishes = trunk(images), []
    leaf = h.detach().requires_grad_()  # the graphs of the heads end here
    for loss in losses(leaf):
        leaf.grad = None
        loss.backward()
        wishes.append(grad_of(leaf))
    h.backward(sum(wishes))


products, gradients = {}, {}
for way in (added, twice, cut):
    with CallCounter() as calls:
        cleared(way)
    assert calls.names["addmm"] == LAYERS + 2  # forward: the trunk and two heads
    products[way.__name__] = calls.names["mm"]  # backward
    gradients[way.__name__] = torch.cat([grad_of(p).flatten() for p in parameters])
print(products)
forward_products = LAYERS
backward_products = 2 * LAYERS - 1  # two a layer; the images need no gradient
head_products = 2 * len(heads)  # small: one column instead of WIDTH
assert [head.weight.shape for head in heads] == [(1, WIDTH)] * 2
assert products["added"] == products["cut"] == backward_products + head_products
assert products["twice"] == 2 * backward_products + head_products
for way in (twice, cut):
    got = gradients[way.__name__]
    assert torch.allclose(got, gradients["added"], atol=1e-6)
once_products, twice_products = products["added"], products["twice"]
predicted_ratio = (forward_products + 2 * backward_products) / (
    forward_products + backward_products
)
print(f"{predicted_ratio=:.2f}")

# %% [markdown] lang="pl"
# Licznik mnożeń macierzy w przejściu wstecz (`mm`) pokazuje {{ once_products }}, gdy straty
# dodano albo graf przecięto za pniem: {{ backward_products }} w pniu i {{ head_products }} w
# głowach. Po dwóch wywołaniach jest ich {{ twice_products }}, bo silnik dwa razy przeszedł
# wstecz przez pień. Gradienty są te same. W przód pień wykonuje {{ forward_products }} mnożeń, a
# mnożenia w głowach są małe: jedna kolumna zamiast {{ WIDTH }}. Model kosztu, który liczy tylko
# mnożenia w pniu, przewiduje więc, że krok z dwoma wywołaniami zajmie
# {{ predicted_ratio:.2f }}× tyle czasu co z dodanymi stratami, a krok z przecięciem tyle samo.

# %% [markdown] lang="en"
# The counter of matrix products in the backward pass (`mm`) shows {{ once_products }} when
# the losses were added or the graph was cut behind the trunk: {{ backward_products }} in the
# trunk and {{ head_products }} in the heads. After two calls there are {{ twice_products }},
# because the engine went back through the trunk twice. The gradients are the same. Forward the
# trunk takes {{ forward_products }} products, and those in the heads are small: one column
# instead of {{ WIDTH }}. So a cost model that counts only the products in the trunk predicts
# that a step with two calls takes {{ predicted_ratio:.2f }}× as long as with the losses added,
# and a step with the cut just as long.

# %% measured=true
seconds = {"added": 0.0, "twice": 0.0, "cut": 0.0}  # of the processor
for _ in range(15):
    for way in (added, twice, cut):
        start = time.process_time()
        cleared(way)
        seconds[way.__name__] += time.process_time() - start
twice_ratio = seconds["twice"] / seconds["added"]
cut_ratio = seconds["cut"] / seconds["added"]
print(f"twice: {twice_ratio:.2f}, cut: {cut_ratio:.2f}")
assert 1.1 < twice_ratio < 2.2
assert cut_ratio < twice_ratio

# %% [markdown] lang="pl"
# Zmierzony iloraz to {{ twice_ratio:.2f }} dla dwóch wywołań (model:
# {{ predicted_ratio:.2f }}) i {{ cut_ratio:.2f }} dla przecięcia (model: 1). Model pomija
# m.in. `tanh`, głowy i same wywołania. Jeśli nie potrzebujesz osobnych gradientów, dodaj
# straty. Jeśli potrzebujesz ich na wyjściu pnia, przetnij graf: są w `wishes`, a przez pień
# przechodzisz raz. Wagi pnia dostają wtedy tylko sumę.
#
# Drugi koszt to pamięć. Flaga na ostatnim przejściu trzyma zapamiętane tensory, aż
# przejdziesz graf bez flagi albo nie będzie do niego prowadzić ani strata, ani inny wynik. A
# zmienna `loss` żyje w pętli do następnego przypisania.

# %% [markdown] lang="en"
# The measured ratio is {{ twice_ratio:.2f }} for two calls (the model:
# {{ predicted_ratio:.2f }}) and {{ cut_ratio:.2f }} for the cut (the model: 1). The model
# leaves out `tanh`, the heads and the calls themselves, among other things. If you do not
# need separate gradients, add the losses. If you need them at the output of the trunk, cut
# the graph: they are in `wishes`, and you go through the trunk once. The weights of the trunk
# then get only the sum.
#
# The second cost is memory. The flag on the last pass keeps saved tensors until a pass
# without the flag, or until neither the loss nor any other result leads to the graph. And in
# a loop the variable `loss` lives until its next assignment.


# %% fold=true
class Recorder(MemoryMeter):
    """A meter that notes the live bytes after each operation."""

    def __init__(self) -> None:
        MemoryMeter.__init__(self)
        self.history: list[int] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        outputs = MemoryMeter.__torch_dispatch__(self, func, types, args, kwargs)
        self.history.append(self.live)
        return outputs


# %%
def two_steps(*, retain: bool) -> Recorder:
    recorder = Recorder()
    with recorder:
        for _ in range(2):
            trunk.zero_grad()
            loss = trunk(images).square().mean()
            turns.append(len(recorder.history))
            loss.backward(retain_graph=retain)
            ends.append(recorder.live)
    return recorder


ends: list[int] = []
turns: list[int] = []  # operations before each backward
released, retained = two_steps(retain=False), two_steps(retain=True)
activation = images.nbytes
carried = ends[2] - ends[0]  # after the first step: with the flag, without
print(f"{activation=} {carried=} {released.peak=} {retained.peak=}")
assert carried == LAYERS * activation
gradient_bytes = sum(p.nbytes for p in trunk.parameters())
assert ends[0] == gradient_bytes + 4 < activation  # and the loss
assert retained.live == gradient_bytes
peak_rise = 100 * (retained.peak / released.peak - 1)
assert 20 < peak_rise < 100

# %% fold=true
fig, ax = plt.subplots(figsize=(7.2, 2.6))
for recorder, colour, name in (
    (retained, RED, "retain_graph=True"),
    (released, BLUE, "retain_graph=False"),
):
    ax.plot([live / activation for live in recorder.history], color=colour, label=name)
middle = len(released.history) // 2
ax.axvline(middle, color=GRAY, lw=1.2, ls=":")
ax.set(xlabel="operation", ylabel="live, in activations", ylim=(0, 17))
ax.set_yticks([0, 5, 10, 15])
ax.text(middle - 2, 15.5, "step 1", ha="right", color=GRAY)
ax.text(middle + 2, 15.5, "step 2", color=GRAY)
kept = retained.history
drop = min(range(1, len(kept)), key=lambda i: kept[i] - kept[i - 1])
assert drop == turns[3]  # the first step keeps what it saved until the new loss
ax.text(drop + 2, 12.2, "a new loss", color=RED)
ax.legend(loc="upper left", ncols=1)
show_figure(
    fig,
    alt_pl="Wykres żywej pamięci w dwóch krokach. Bez flagi linia w każdym kroku rośnie i "
    "opada prawie do zera. Z flagą zostaje wysoko, drugi krok zaczyna z sześcioma "
    "aktywacjami pierwszego i ma wyższy szczyt, po którym, przy podpisie „nowa strata”, "
    "linia gwałtownie spada.",
    alt_en="A plot of live memory over two steps. Without the flag the line rises in each "
    "step and falls almost to zero. With the flag it stays high, the second step "
    "begins with the six activations of the first one and has a higher peak, after which, "
    "at the words “a new loss”, the line drops sharply.",
    pl={
        "operation": "operacja",
        "live, in activations": "żywe, w aktywacjach",
        "step 1": "krok 1",
        "step 2": "krok 2",
        "a new loss": "nowa strata",
    },
    same={"retain_graph=True", "retain_graph=False"},
)

# %% [markdown] lang="pl"
# Jednostką jest aktywacja jednej warstwy, {{ activation }} B. Bez flagi linia opada w każdym
# kroku prawie do zera: zostają gradienty. Z flagą drugi krok zaczyna z {{ carried }} B
# więcej, czyli z sześcioma aktywacjami pierwszego. Linia spada dopiero wtedy, gdy `loss`
# dostaje nową wartość, a szczyt jest wyższy o {{ peak_rise:.0f }}%.
#
# Flaga `create_graph=True` to co innego: każe zapisać w grafie samo przejście wstecz, żeby
# gradient dało się różniczkować. Jeśli nie podasz `retain_graph`, ta flaga też jest wtedy
# włączona.

# %% [markdown] lang="en"
# The unit is the activation of one layer, {{ activation }} B. Without the flag the line falls
# almost to zero in each step: the gradients remain. With the flag the second step begins with
# {{ carried }} B more, the six activations of the first one. The line drops only when `loss`
# gets a new value, and the peak is {{ peak_rise:.0f }}% higher.
#
# The flag `create_graph=True` is something else: it records the backward pass itself in the
# graph, so that the gradient can be differentiated. Unless you set `retain_graph`, that flag
# is then on as well.


# %% fold=true
def bill(retain: bool | None, create: bool) -> tuple[int, bool, bool]:
    """Live bytes after the pass; has the gradient a graph; may a second pass run?"""
    w = torch.zeros(1000, requires_grad=True)
    with MemoryMeter() as meter:
        loss = w.exp().sum()
        (gradient,) = torch.autograd.grad(
            loss, w, retain_graph=retain, create_graph=create
        )
        live = meter.live
    try:
        torch.autograd.grad(loss, w)
    except RuntimeError:
        return live, gradient.requires_grad, False
    return live, gradient.requires_grad, True


# %%
bills = {
    "no flag": bill(retain=None, create=False),
    "retain_graph=True": bill(retain=True, create=False),
    "create_graph=True": bill(retain=None, create=True),
}
for flags, (live, has_graph, again) in bills.items():
    print(f"{flags:18} {live} B, gradient has a graph: {has_graph}, again: {again}")
assert bills["no flag"] == (4004, False, False)  # the gradient and the loss
assert bills["retain_graph=True"] == (8004, False, True)  # the saved result as well
assert bills["create_graph=True"] == (8008, True, True)
assert not bill(retain=False, create=True)[2]  # the flag given explicitly wins
kept_bytes = bills["retain_graph=True"][0] - bills["no flag"][0]
extra_bytes = bills["create_graph=True"][0] - bills["retain_graph=True"][0]

w = torch.zeros(1000, requires_grad=True)
(gradient,) = torch.autograd.grad(w.exp().sum(), w, create_graph=True)
times: Any = gradient.grad_fn  # gradient = what arrived * exp(w)
assert times._saved_self.untyped_storage().nbytes() == extra_bytes  # what arrived

# %% [markdown] lang="pl"
# Flaga `retain_graph=True` zatrzymała {{ kept_bytes }} B, zapamiętany wynik `exp`. Flaga
# `create_graph=True` zatrzymuje to samo i dodaje graf gradientu. Tu jego węzeł pamięta jeszcze
# tylko jedną liczbę, {{ extra_bytes }} B.
#
# ## Co się psuje: długa sekwencja
#
# Sieć rekurencyjna czyta sekwencję odcinkami, a stan `h` przechodzi z odcinka do odcinka. W
# uciętej propagacji wstecznej w czasie (*truncated backpropagation through time*) gradient
# cofa się tylko w obrębie odcinka. Tu o ucięciu zapomniano, a wyjątek „a second time”
# uciszono flagą.

# %% [markdown] lang="en"
# The flag `retain_graph=True` kept {{ kept_bytes }} B, the saved result of `exp`. The flag
# `create_graph=True` keeps the same and adds a graph of the gradient. Here its node saves just
# one more number, {{ extra_bytes }} B.
#
# ## What breaks: a long sequence
#
# A recurrent network reads a sequence in chunks, and the state `h` goes from chunk to chunk.
# In truncated backpropagation through time the gradient goes back within a chunk only. Here
# the cut was forgotten, and the exception "a second time" was silenced by the flag.

# %% fold=true
torch.manual_seed(0)
chunks = torch.randn(12, 4, 16, 3)  # (chunks, steps, batch, features)
u, w_start = torch.randn(3, 8) / 2, torch.randn(8, 8) / 8**0.5

# %% [markdown] lang="pl" predict="retained-sequence"
# ```python
# w = w_start.clone().requires_grad_()  # chunks: (chunks, steps, batch, features)
# h = torch.zeros(16, 8)
# for chunk in chunks:
#     for step in chunk:
#         h = torch.tanh(step @ u + h @ w)
#     loss = (h[:, :3] - step).square().mean()
#     w.grad = None
#     loss.backward(retain_graph=True)
#     with torch.no_grad():
#         w -= 0.5 * w.grad
# ```
#
# Co zrobi ta pętla?
#
# - [ ] Działa jak ucięta: gradient zatrzyma się na odcinkach już policzonych
#
#   Nic go nie zatrzymuje: węzły poprzednich odcinków zostały w grafie i stan `h` do nich
#   prowadzi.
#
# - [ ] Działa, ale każde przejście wstecz cofa się aż do pierwszego odcinka
#
#   Do pierwszego odcinka prowadzi droga, ale węzeł sprawdza wersje zapamiętanych tensorów, a
#   wagi zmienił krok uczenia.
#
# - [x] Zgłosi wyjątek w drugim odcinku: wagi zmieniły się od pierwszego
#
#   Mnożenie `h @ w` zapamiętało `w` w wersji 0, a krok uczenia podniósł ją do 1. Flaga
#   uciszyła jeden wyjątek, za którym czekał drugi.

# %% [markdown] lang="en" predict="retained-sequence"
# ```python
# w = w_start.clone().requires_grad_()  # chunks: (chunks, steps, batch, features)
# h = torch.zeros(16, 8)
# for chunk in chunks:
#     for step in chunk:
#         h = torch.tanh(step @ u + h @ w)
#     loss = (h[:, :3] - step).square().mean()
#     w.grad = None
#     loss.backward(retain_graph=True)
#     with torch.no_grad():
#         w -= 0.5 * w.grad
# ```
#
# What does this loop do?
#
# - [ ] It works like a truncated one: the gradient stops at chunks computed already
#
#   Nothing stops it: the nodes of earlier chunks are still in the graph, and the state `h`
#   leads to them.
#
# - [ ] It works, but every backward pass goes back to the very first chunk
#
#   There is a way to the first chunk, but a node checks the versions of its saved tensors,
#   and the training step has changed the weights.
#
# - [x] It raises in the second chunk: the weights have changed since the first one
#
#   The product `h @ w` saved `w` at version 0, and the training step raised it to 1. The
#   flag silenced one exception, and another was waiting behind it.


# %% raises="RuntimeError: one of the variables needed for gradient computation has been modified by an inplace operation: [torch.FloatTensor [8, 8]] is at version 1; expected version 0 instead."
def train(
    *, detach: bool = False, retain: bool = True, data: bool = False
) -> tuple[list[int], list[Tensor]]:
    """Return the number of nodes of each pass, and its gradient."""
    w, h = w_start.clone().requires_grad_(), torch.zeros(16, 8)
    sizes, found = [], []
    ran: list[object] = []
    for chunk in chunks:
        if detach:
            h = h.detach()
        for step in chunk:
            h = torch.tanh(step @ u + h @ w)
        loss = (h[:, :3] - step).square().mean()
        w.grad = None
        hooks = [item.node.register_prehook(ran.append) for item in graph_of(loss)]
        loss.backward(retain_graph=retain)
        with torch.no_grad():
            weights = w.data if data else w
            weights -= 0.5 * grad_of(w)
        sizes.append(len(ran))
        ran.clear()
        for hook in hooks:
            hook.remove()
        found.append(grad_of(w))
    return sizes, found


train()

# %% [markdown] lang="pl"
# Tym razem zadziałał [licznik wersji](../1_tensors/05_in_place_operations.py). Wystarczy uciszyć
# i jego, zmieniając wagi przez `w.data`, czego licznik nie widzi, a wyjątków nie będzie.
# Porównajmy taką pętlę z uciętą: `h = h.detach()` na początku odcinka, bez flagi.

# %% [markdown] lang="en"
# This time it was the [version counter](../1_tensors/05_in_place_operations.py). Silence that,
# too, by changing the weights through `w.data`, which the counter does not see, and there are
# no exceptions. Let's compare such a loop with the truncated one: `h = h.detach()` at the
# start of a chunk, and no flag.

# %%
assert "backward through the graph a second time" in complaint(
    lambda: train(retain=False)
)
endless_sizes, endless = train(data=True)
short_sizes, short = train(detach=True, retain=False)
with torch.autograd.graph.saved_tensors_hooks(
    lambda t: t.detach().clone(), lambda t: t
):
    true = train(data=True)[1]  # nodes save copies, which w.data cannot change


def percent(got: Tensor, reference: Tensor) -> float:
    return 100 * float((got - reference).norm() / reference.norm())


print(endless_sizes, short_sizes, sep="\n")
first_pass, last_pass = endless_sizes[0], endless_sizes[-1]
assert short_sizes == [first_pass] * 12
growth = endless_sizes[1] - first_pass
assert endless_sizes == [first_pass + i * growth for i in range(12)]
assert torch.equal(endless[0], short[0])
assert torch.equal(endless[0], true[0])
gap, mistake = percent(endless[1], short[1]), percent(endless[1], true[1])
print(f"{gap=:.0f} {mistake=:.1f}")
assert gap > 5
assert 0.1 < mistake < gap / 2

# %% [markdown] lang="pl"
# Każde przejście cofa się aż do pierwszego odcinka: pierwsze miało {{ first_pass }} węzłów,
# dwunaste {{ last_pass }}, a ucięte ma ich stale tyle co pierwsze. Gradient już w drugim odcinku
# różni się od uciętego o {{ gap:.0f }}% (w normie), głównie dlatego, że sięga dalej. Ale i
# takiego dalszego gradientu nie liczy poprawnie: węzły pierwszego odcinka zapamiętały `w`, a
# przejście wstecz mnoży już przez wagi zmienione w miejscu. Gdy węzły zapamiętują kopie,
# widać, że pomylił się o {{ mistake:.1f }}%. Przed tym chronił licznik wersji.
#
# ### Strażnik do wklejenia
#
# Wszystkie te przypadki łączy jedno: `backward` drugi raz idzie przez ten sam węzeł. Strażnik
# (*guard*) zaznacza węzły w słowniku `metadata`, który węzeł ma na takie notatki. Pomija
# `AccumulateGrad`, bo do liścia gradient może trafić z wielu strat. Owiń nim kilka kroków
# treningu.

# %% [markdown] lang="en"
# Every pass goes back to the very first chunk: the first one had {{ first_pass }} nodes, the
# twelfth {{ last_pass }}, and the truncated one always has as many as the first. Already in the
# second chunk the gradient differs from the truncated one by {{ gap:.0f }}% (in norm), mainly
# because it reaches farther. But it is not right even as a farther-reaching gradient: nodes of
# the first chunk saved `w`, and the backward pass multiplies by weights that have been changed
# in place since. With nodes that save copies one can see that it was off by
# {{ mistake:.1f }}%. The version counter protected against that.
#
# ### A guard to paste
#
# All these cases have one thing in common: `backward` goes through the same node a second
# time. The guard marks nodes in the dictionary `metadata`, which a node has for such notes. It
# skips `AccumulateGrad`, because a leaf may get gradients from many losses. Wrap a few steps of
# your training loop in it.


# %%
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


@contextmanager
def each_node_once() -> Iterator[None]:
    """Raise before `backward` goes through nodes of an earlier `backward` again.

    Use: `with each_node_once(): train_a_few_steps()`.
    """
    run = torch.autograd.backward  # what the method backward calls
    mark = object()  # of this guard

    def checked(tensors: Any, *args: Any, **kwargs: Any) -> None:
        single = isinstance(tensors, (Tensor, GradientEdge))
        tensors = [tensors] if single else list(tensors)
        stack: list[Any] = []
        for root in tensors:
            edge = root if isinstance(root, GradientEdge) else get_gradient_edge(root)
            stack.append(edge.node)
        seen: set[Any] = set()
        again: set[str] = set()
        while stack:
            node = stack.pop()
            if node in seen or "AccumulateGrad" in node.name():
                continue
            seen.add(node)
            stack += [child for child, _ in node.next_functions if child is not None]
            if mark in node.metadata:
                again.add(node.name())
        if again:
            raise RuntimeError(f"backward a second time through {sorted(again)}")
        run(tensors, *args, **kwargs)
        for node in seen:
            node.metadata[mark] = True

    with patch.object(torch.autograd, "backward", checked):
        yield


# %% fold=true
def alarm(program: Callable[[], object]) -> str:
    with each_node_once():
        return complaint(program)


def unsaved() -> None:
    total = (w_start.clone().requires_grad_() + 2).sum()
    total.backward()
    total.backward()


def penalised() -> None:
    """The norm of a gradient as a penalty: a second derivative, one backward."""
    w = torch.ones(3, requires_grad=True)
    loss = w.exp().sum()
    (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
    (loss + gradient.square().sum()).backward()


# %%
Run = Callable[[], object]
faulty: list[Run] = [lambda: fit(logged), unsaved, lambda: train(data=True), twice]
sound: list[Run] = [lambda: fit(in_parts), lambda: fit(asked), penalised, added, cut]
sound.append(lambda: train(detach=True))
alarms = [alarm(program) for program in faulty]
print(*alarms, sep="\n")
assert all(a.startswith("backward a second time through ['") for a in alarms)
assert [alarm(program) for program in sound] == ["silent"] * len(sound)

# %% [markdown] lang="pl"
# Strażnik zgłasza wpis do logu, podwojenie bez zapamiętanych tensorów, rosnącą sekwencję i
# dwa wywołania w sieci z głowami, gdzie wynik był poprawny, ale za drogi. Milczy przy każdej
# naprawie i przy karze za gradient z `torch.autograd.grad`, bo wywołań tej funkcji nie liczy:
# nie zmieniają `w.grad`. Przy karze z `backward(create_graph=True)` zgłasza alarm.
#
# Ma ograniczenia. Nie widzi funkcji `backward` zaimportowanej po nazwie ani przejścia sprzed
# bloku. Nie widzi też grafu policzonego od nowa ani gradientu z `torch.autograd.grad`
# wpisanego do `w.grad`. Zaznacza cały graf, nawet gdy argument `inputs` ogranicza przejście, i
# zgłasza także wspólne węzły bez zapamiętanych tensorów, gdzie dwa przejścia są poprawne, np.
# dwie części z `w.chunk(2)` albo rzutowanie wag, które `torch.autocast` pamięta między
# minipartiami.

# %% [markdown] lang="en"
# The guard reports the log entry, the doubling without saved tensors, the growing sequence,
# and the two calls in the network with heads, whose result was right but too expensive. It is
# silent on every repair, and on a gradient penalty from `torch.autograd.grad`, because it does
# not count calls of this function: they do not change `w.grad`. On a penalty from
# `backward(create_graph=True)` it raises an alarm.
#
# It has limits. It does not see a function `backward` imported by name, or a pass from before
# the block. Nor does it see a graph computed anew, or a gradient from `torch.autograd.grad`
# put into `w.grad`. It marks the whole graph even if the argument `inputs` limits the pass, and
# it also reports shared nodes without saved tensors, where two passes are right, such as two
# parts from `w.chunk(2)`, or the cast of weights that `torch.autocast` keeps between
# mini-batches.


# %% fold=true
run_by_name = torch.autograd.backward  # what an import by name would give


def by_name() -> None:
    total = (w_start.clone().requires_grad_() + 2).sum()
    run_by_name(total)
    run_by_name(total)


def limited() -> None:
    v, w = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    total = (v + w).sum()
    total.backward(inputs=[v])
    total.backward(inputs=[w])
    assert torch.equal(grad_of(v), grad_of(w))  # right, nothing was counted twice


def several() -> None:
    """Roots in a list, and an edge instead of a tensor."""
    total = w_start.clone().requires_grad_() + 2
    torch.autograd.backward([total.sum(), total.mean()])
    torch.autograd.backward(get_gradient_edge(total.sum()), torch.ones(()))


def shared() -> None:
    v = torch.ones(4, requires_grad=True)
    for part in v.chunk(2):
        part.sum().backward()
    assert grad_of(v).tolist() == [1.0] * 4


def by_backward() -> None:
    v = torch.ones(3, requires_grad=True)
    loss = v.exp().sum()
    with warnings.catch_warnings(action="ignore"):  # of a leak, prevented below
        loss.backward(create_graph=True)
    penalty, v.grad = grad_of(v).square().sum(), None
    (loss + penalty).backward()


def put() -> None:
    v = torch.ones(3, requires_grad=True)
    total = v.exp().sum()
    (v.grad,) = torch.autograd.grad(total, v, retain_graph=True)
    total.backward()
    assert torch.equal(grad_of(v), 2 * v.exp())  # doubled


def sound_roots() -> None:
    """A generator of roots, and a second try after an exception."""
    v = torch.ones(3, requires_grad=True)
    roots: Any = (root for root in [v.sum(), v.mean()])
    torch.autograd.backward(roots)
    assert torch.allclose(grad_of(v), torch.tensor(4 / 3))
    result = v + 2
    assert "only for scalar outputs" in complaint(result.backward)
    result.backward(torch.ones(3))


with each_node_once():
    assert alarm(sound_roots) == "silent"  # guards may be nested
assert "SplitBackward0" in alarm(shared)
assert "ExpBackward0" in alarm(by_backward)
assert alarm(put) == "silent"
assert complaint(limited) == "silent"
assert "AddBackward0" in alarm(several)
assert alarm(by_name) == "silent"
assert alarm(limited) != "silent"

# %% [markdown] lang="pl"
# Wszystkie przebiegi pochodzą z CPU. Na GPU, czego tu nie zmierzono, zatrzymane aktywacje
# zajmują pamięć karty.
#
# ## Co już umiesz
#
# - Powiesz, czy drugie przejście zgłosi wyjątek, czy po cichu podwoi gradient: zwykle decydują
#   zapamiętane tensory.
# - Wybierzesz między sumą strat, przecięciem grafu, `torch.autograd.grad` i flagą i oszacujesz
#   koszt drugiego przejścia.
# - Utniesz sekwencję przez `h.detach()`, zamiast uciszać wyjątek, który miał rację.
#
# Wcześniej: [jakobian i hesjan](11_jacobian_and_hessian.py). Dalej:
# [akumulacja gradientów](13_gradient_accumulation.py). Dokumentacja:
# [Tensor.backward](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.backward.html),
# [torch.autograd.grad](https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html),
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html). Źródła:
# [`engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp),
# [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# All runs come from a CPU. On a GPU, not measured here, the activations that are kept take
# the memory of the card.
#
# ## Now you can
#
# - Tell whether a second pass raises or silently doubles the gradient: usually saved
#   tensors decide.
# - Choose between the sum of losses, a cut of the graph, `torch.autograd.grad` and the flag,
#   and estimate what a second pass costs.
# - Truncate a sequence with `h.detach()` instead of silencing an exception that was right.
#
# Before this: [Jacobians and Hessians](11_jacobian_and_hessian.py). Next:
# [gradient accumulation](13_gradient_accumulation.py). Documentation:
# [Tensor.backward](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.backward.html),
# [torch.autograd.grad](https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html),
# [autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html). Source:
# [`engine.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/engine.cpp),
# [`saved_variable.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/autograd/saved_variable.cpp).
#
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="two-calls" role="prompt" belt="white" minutes=6
# ### Biały: przewidź wynik dwóch wywołań
#
# Niech `w = torch.tensor(2.0, requires_grad=True)`. Na każdym z tych wyników wywołujemy dwa
# razy `backward()`, bez flagi. Wpisz `"error"`, jeśli drugie wywołanie zgłosi wyjątek, a w
# przeciwnym razie wartość `w.grad` po obu.

# %% [markdown] lang="en" exercise="two-calls" role="prompt" belt="white" minutes=6
# ### White: predict the result of two calls
#
# Let `w = torch.tensor(2.0, requires_grad=True)`. On each of these results we call
# `backward()` twice, without the flag. Enter `"error"` if the second call raises, and
# otherwise the value of `w.grad` after both.

# %% exercise="two-calls" role="starter"
answers: dict[str, float | str] = {
    "w - 5": 0.0,
    "w * 3": 0.0,
    "w + w": 0.0,
    "w * w": 0.0,
    "-w.view(1).sum()": 0.0,
    "torch.stack([w, w]).mean()": 0.0,
    "w.detach() * 3 + w": 0.0,
    "w.sqrt()": 0.0,
}  # your answers

# %% exercise="two-calls" role="check"
asked_about: dict[str, Callable[[Tensor], Tensor]] = {
    "w - 5": lambda w: w - 5,
    "w * 3": lambda w: w * 3,
    "w + w": lambda w: w + w,
    "w * w": lambda w: w * w,
    "-w.view(1).sum()": lambda w: -w.view(1).sum(),
    "torch.stack([w, w]).mean()": lambda w: torch.stack([w, w]).mean(),
    "w.detach() * 3 + w": lambda w: w.detach() * 3 + w,
    "w.sqrt()": torch.sqrt,
}
assert set(answers) == set(asked_about), say(
    pl="odpowiedz na osiem podanych pytań", en="answer the eight questions given"
)
for expression, function in asked_about.items():
    w_asked = torch.tensor(2.0, requires_grad=True)
    root = function(w_asked)
    root.backward()
    answer = answers[expression]
    try:
        root.backward()
    except RuntimeError:
        assert answer == "error", say(
            pl=f"{expression}: {answer!r} się nie zgadza: drugie wywołanie sięga po to, co "
            "pierwsze zwolniło",
            en=f"{expression}: {answer!r} is wrong: the second call reaches for what the "
            "first one freed",
        )
        continue
    assert answer != "error", say(
        pl=f"{expression}: wyjątku nie ma, bo na drodze do w nie zapamiętano tensora",
        en=f"{expression}: no exception, because no tensor was saved on the way to w",
    )
    assert answer == grad_of(w_asked).item(), say(
        pl=f"{expression}: {answer!r} się nie zgadza; policz gradient jednego wywołania i "
        "pamiętaj, że w.grad się sumuje",
        en=f"{expression}: {answer!r} is wrong; compute the gradient of one call, and "
        "remember that w.grad adds up",
    )

# %% [markdown] lang="pl" exercise="two-calls" role="hint"
# Napisz pochodną. Czy do jej policzenia potrzebny jest jakiś tensor: wejście, wynik albo
# czynnik?

# %% [markdown] lang="en" exercise="two-calls" role="hint"
# Write down the derivative. Does it take some tensor to compute it: the input, the result
# or a factor?

# %% [markdown] lang="pl" exercise="two-calls" role="hint"
# Liczy się tylko droga od wyniku do `w`. Czy z `w.detach()` prowadzi do `w` jakaś strzałka?

# %% [markdown] lang="en" exercise="two-calls" role="hint"
# Only the way from the result to `w` counts. Does an arrow lead from `w.detach()` to `w`?

# %% exercise="two-calls" role="wrong" says="w * 3: 6.0 is wrong: the second call reaches"
answers = {  # "a linear function has nothing to save"
    "w - 5": 2.0,
    "w * 3": 6.0,
    "w + w": 4.0,
    "w * w": "error",
    "-w.view(1).sum()": -2.0,
    "torch.stack([w, w]).mean()": 2.0,
    "w.detach() * 3 + w": 2.0,
    "w.sqrt()": "error",
}

# %% exercise="two-calls" role="wrong" says="w - 5: 1.0 is wrong; compute the gradient of one call"
answers = {  # "the second call computes the same gradient again"
    "w - 5": 1.0,
    "w * 3": "error",
    "w + w": 2.0,
    "w * w": "error",
    "-w.view(1).sum()": -1.0,
    "torch.stack([w, w]).mean()": 1.0,
    "w.detach() * 3 + w": 1.0,
    "w.sqrt()": "error",
}

# %% exercise="two-calls" role="wrong" says="w.detach() * 3 + w: no exception"
answers = {  # "there is a multiplication, so something is saved"
    "w - 5": 2.0,
    "w * 3": "error",
    "w + w": 4.0,
    "w * w": "error",
    "-w.view(1).sum()": -2.0,
    "torch.stack([w, w]).mean()": 2.0,
    "w.detach() * 3 + w": "error",
    "w.sqrt()": "error",
}

# %% exercise="two-calls" role="solution"
answers = {
    "w - 5": 2.0,  # 1 + 1
    "w * 3": "error",  # the factor 3 was saved and freed
    "w + w": 4.0,  # each pass adds 2
    "w * w": "error",
    "-w.view(1).sum()": -2.0,  # a sign, a shape and a sum need no tensors
    "torch.stack([w, w]).mean()": 2.0,  # sizes are not tensors
    "w.detach() * 3 + w": 2.0,  # the product is not on the way to w
    "w.sqrt()": "error",  # 1 / (2 * result): the result was saved
}

# %% [markdown] lang="pl" exercise="two-chunks" role="prompt" belt="brown" minutes=20
# ### Brązowy: gradient przez dwa odcinki
#
# Ucięcie po jednym odcinku bywa za krótkie. Napisz `two_chunks`: zwróć sumę po odcinkach
# gradientów straty względem `w`, w której gradient każdej straty cofa się przez swój odcinek
# i **jeden poprzedni**. Wagi się tu nie zmieniają. Każdy krok sekwencji policz w przód tylko
# raz, a pamięć nie może rosnąć z liczbą odcinków.

# %% [markdown] lang="en" exercise="two-chunks" role="prompt" belt="brown" minutes=20
# ### Brown: a gradient through two chunks
#
# Truncation after one chunk may be too short. Write `two_chunks`: return the sum over chunks
# of gradients of the loss with respect to `w`, where the gradient of each loss goes back
# through its own chunk and **one previous chunk**. The weights do not change here. Compute each
# step of the sequence forward only once, and do not let memory grow with the number of chunks.


# %% exercise="two-chunks" role="starter"
def two_chunks(chunks: Tensor, w: Tensor, u: Tensor) -> Tensor:
    w = w.detach().clone().requires_grad_()
    h = torch.zeros(16, 8)
    for chunk in chunks:
        h = h.detach()
        for step in chunk:
            h = torch.tanh(step @ u + h @ w)
        loss = (h[:, :3] - step).square().mean()
        loss.backward()
    return grad_of(w)  # your code


# %% exercise="two-chunks" role="check"
def reaching(chunks: Tensor, w: Tensor, u: Tensor, reach: int) -> Tensor:
    """The slow reference: every loss computes the chunks that it reaches anew."""
    starts, h = [], torch.zeros(16, 8)
    for chunk in chunks:
        starts.append(h)
        for step in chunk:
            h = torch.tanh(step @ u + h @ w)
    total = torch.zeros_like(w)
    for last in range(len(chunks)):
        first = max(0, last - reach + 1)
        leaf, h = w.clone().requires_grad_(), starts[first]
        for step in chunks[first : last + 1].flatten(0, 1):
            h = torch.tanh(step @ u + h @ leaf)
        loss = (h[:, :3] - step).square().mean()
        total += torch.autograd.grad(loss, leaf)[0]
    return total


torch.manual_seed(3)
peaks = []
for amount in (5, 6, 12):
    read = torch.randn(amount, 4, 16, 3)
    given_u, given_w = torch.randn(3, 8) / 2, torch.randn(8, 8) / 2
    kept_w = given_w.clone()
    with MemoryMeter() as meter, CallCounter() as calls:
        got = two_chunks(read, given_w, given_u)
    peaks.append(meter.peak)
    assert torch.equal(given_w, kept_w), say(
        pl="funkcja zmieniła wagi, które dostała",
        en="the function changed the weights that it was given",
    )
    for reach, pl, en in (
        (
            1,
            "gradient zatrzymuje się w swoim odcinku",
            "the gradient stops in its chunk",
        ),
        (
            amount,
            "gradient cofa się do początku",
            "the gradient goes to the very start",
        ),
    ):
        other = reaching(read, given_w, given_u, reach)
        assert not torch.allclose(got, other, rtol=1e-3, atol=1e-6), say(pl=pl, en=en)
    wanted = reaching(read, given_w, given_u, 2)
    assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-6), say(
        pl="największa różnica między gradientem a wzorcem: "
        f"{(got - wanted).abs().max():.1e}",
        en=f"the gradient differs from the reference by up to "
        f"{(got - wanted).abs().max():.1e}",
    )
    forward = sum(calls.names[name] for name in ("tanh", "tanh_", "sigmoid"))
    assert forward == 4 * amount, say(
        pl=f"kroków jest {4 * amount}, a tanh policzono {forward} razy",
        en=f"there are {4 * amount} steps, but tanh was computed {forward} times",
    )
assert peaks[1] == peaks[2], say(
    pl=f"szczyt pamięci rośnie z liczbą odcinków: {peaks[1]} B dla 6, {peaks[2]} B dla 12",
    en=f"the memory peak grows with the chunks: {peaks[1]} B for 6, {peaks[2]} B for 12",
)

# %% [markdown] lang="pl" exercise="two-chunks" role="hint"
# Przetnij graf na początku odcinka tak, jak funkcja `cut` przecięła go za pniem: stan
# początkowy niech będzie liściem, który zbiera gradient.

# %% [markdown] lang="en" exercise="two-chunks" role="hint"
# Cut the graph at the start of a chunk the way the function `cut` did it behind the trunk:
# let the starting state be a leaf that collects a gradient.

# %% [markdown] lang="pl" exercise="two-chunks" role="hint"
# Przez odcinek gradient idzie dwa razy: od własnej straty i od straty następnego odcinka.
# Które z tych przejść potrzebuje flagi?

# %% [markdown] lang="en" exercise="two-chunks" role="hint"
# Gradients go through a chunk twice: from its own loss, and from the loss of the next chunk.
# Which of these passes needs the flag?


# %% exercise="two-chunks" role="wrong" says="the gradient goes to the very start"
def two_chunks(chunks: Tensor, w: Tensor, u: Tensor) -> Tensor:
    w = w.detach().clone().requires_grad_()
    h = torch.zeros(16, 8)
    for chunk in chunks:  # retain_graph alone cuts nothing
        for step in chunk:
            h = torch.tanh(step @ u + h @ w)
        loss = (h[:, :3] - step).square().mean()
        loss.backward(retain_graph=True)
    return grad_of(w)


# %% exercise="two-chunks" role="wrong" says="the gradient differs from the reference"
def two_chunks(chunks: Tensor, w: Tensor, u: Tensor) -> Tensor:
    w = w.detach().clone().requires_grad_()
    h = torch.zeros(16, 8)
    for number, chunk in enumerate(chunks):
        if number % 2 == 0:  # every other loss reaches back
            h = h.detach()
        for step in chunk:
            h = torch.tanh(step @ u + h @ w)
        loss = (h[:, :3] - step).square().mean()
        loss.backward(retain_graph=True)
    return grad_of(w)


# %% exercise="two-chunks" role="wrong" says="but tanh was computed 36 times"
def two_chunks(chunks: Tensor, w: Tensor, u: Tensor) -> Tensor:
    w = w.detach().clone().requires_grad_()
    h = before = torch.zeros(16, 8)
    earlier = chunks[:0]
    for chunk in chunks:  # right, but every chunk is computed twice
        start, h = h, before
        for step in (*earlier.flatten(0, 1), *chunk):
            h = torch.tanh(step @ u + h @ w)
        (h[:, :3] - step).square().mean().backward()
        before, earlier, h = start.detach(), chunk[None], h.detach()
    return grad_of(w)


# %% exercise="two-chunks" role="wrong" says="the memory peak grows with the chunks"
def two_chunks(chunks: Tensor, w: Tensor, u: Tensor) -> Tensor:
    w = w.detach().clone().requires_grad_()
    ends = [torch.zeros(16, 8)]
    for chunk in chunks:
        start = ends[-1].detach().requires_grad_()
        h = start
        for step in chunk:
            h = torch.tanh(step @ u + h @ w)
        loss = (h[:, :3] - step).square().mean()
        loss.backward(retain_graph=True)
        if ends[-1].grad_fn is not None:  # the flag on the last pass, and a list
            ends[-1].backward(start.grad, retain_graph=True)
        ends.append(h)
    return grad_of(w)


# %% exercise="two-chunks" role="solution"
def two_chunks(chunks: Tensor, w: Tensor, u: Tensor) -> Tensor:
    w = w.detach().clone().requires_grad_()
    end = torch.zeros(16, 8)  # of the previous chunk
    for chunk in chunks:
        start = end.detach().requires_grad_()  # the graph of this chunk begins here
        h = start
        for step in chunk:
            h = torch.tanh(step @ u + h @ w)
        loss = (h[:, :3] - step).square().mean()
        loss.backward(retain_graph=True)  # the next loss will come through here, too
        if end.grad_fn is not None:
            end.backward(
                start.grad
            )  # the last pass through the previous chunk: no flag
        end = h
    return grad_of(w)


# %% [markdown] lang="pl" exercise="surgery" role="prompt" belt="black" minutes=25
# ### Czarny: spór dwóch głów o pień
#
# Gradienty dwóch strat względem wyjścia pnia to `g1` i `g2`. Jeśli ich iloczyn skalarny jest
# ujemny, głowy się spierają. Wtedy (to pomysł metody PCGrad) od każdego odejmij jego rzut na
# drugi: od `g1` odejmij `(g1 · g2) / (g2 · g2) * g2`, a od `g2` tak samo rzut na `g1`. Oba
# rzuty policz z pierwotnych `g1` i `g2`. Bez sporu zostaw je bez zmian. Napisz `surgery`:
# argumenty `first` i `second` to funkcje, które z wyjścia pnia liczą stratę. Pień ma dostać
# gradient z sumy, każda głowa z własnej straty, a przez pień wolno przejść wstecz **tylko
# raz**.

# %% [markdown] lang="en" exercise="surgery" role="prompt" belt="black" minutes=25
# ### Black: two heads in conflict over a trunk
#
# The gradients of two losses with respect to the output of the trunk are `g1` and `g2`. If
# their dot product is negative, the heads are in conflict. Then (the idea of PCGrad) subtract
# from each its projection onto the other: from `g1` subtract `(g1 · g2) / (g2 · g2) * g2`,
# and from `g2` likewise the projection onto `g1`. Compute both projections from the original
# `g1` and `g2`. Without a conflict leave them as they are. Write `surgery`: the arguments
# `first` and `second` are functions that compute a loss from the output of the trunk. The
# trunk gets the gradient from their sum, each head that of its own loss, and only **one**
# backward pass may go through the trunk.


# %% exercise="surgery" role="starter"
def surgery(trunk: nn.Module, first: Loss, second: Loss, x: Tensor) -> None:
    h = trunk(x)
    (first(h) + second(h)).backward()  # your code


# %% exercise="surgery" role="check"
from functools import partial


class Watched(nn.Module):
    """A trunk that counts the backward passes through each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())
        self.calls, self.passes = 0, [0] * len(self.net)

    def count(self, number: int, _: object) -> None:
        self.passes[number] += 1

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        for number, layer in enumerate(self.net):
            x = layer(x)
            node: Any = x.grad_fn
            node.register_prehook(partial(self.count, number))
        return x


def spoken(gradient: Tensor | None) -> Tensor:
    return torch.zeros(0) if gradient is None else gradient


conflicts = set()
for seed in range(12):
    torch.manual_seed(seed)
    watched = Watched()
    first_head, second_head = nn.Linear(4, 1), nn.Linear(4, 1)
    if seed == 11:
        nn.init.zeros_(second_head.weight)  # a gradient of zero is no conflict
    given, goals = torch.randn(32, 6), torch.randn(2, 32, 1)

    def first_loss(
        h: Tensor, head: nn.Module = first_head, goal: Tensor = goals[0]
    ) -> Tensor:
        loss: Tensor = (head(h) - goal).square().mean()
        return loss

    def second_loss(
        h: Tensor, head: nn.Module = second_head, goal: Tensor = goals[1]
    ) -> Tensor:
        loss: Tensor = (head(h) - goal).square().mean()
        return loss

    h = watched(given)
    both = [first_loss(h), second_loss(h)]
    own = list(watched.parameters())
    g1, g2 = (torch.autograd.grad(part, h, retain_graph=True)[0] for part in both)
    p1, p2 = (torch.autograd.grad(part, own, retain_graph=True) for part in both)
    dot = (g1 * g2).sum()
    conflict = bool(dot < 0)
    conflicts.add(conflict)
    share1, share2 = (
        1 - dot / g.square().sum() if conflict else torch.ones(()) for g in (g1, g2)
    )
    wanted_trunk = [share1 * a + share2 * b for a, b in zip(p1, p2, strict=True)]
    of_heads = [*first_head.parameters(), *second_head.parameters()]
    wanted_heads = torch.autograd.grad(both[0] + both[1], of_heads)
    watched.calls, watched.passes = 0, [0] * len(watched.net)
    surgery(watched, first_loss, second_loss, given)
    passes = max(watched.passes)
    for of_head, wanted_head in zip(of_heads, wanted_heads, strict=True):
        assert of_head.grad is not None, say(
            pl="głowa nie dostała gradientu", en="a head has got no gradient"
        )
        assert torch.allclose(of_head.grad, wanted_head, atol=1e-6), say(
            pl="głowa nie ma gradientu swojej straty, policzonego raz",
            en="a head does not have the gradient of its own loss, counted once",
        )
    assert (watched.calls, passes) == (1, 1), say(
        pl=f"przez pień: w przód {watched.calls}, wstecz {passes}, a ma być po 1",
        en=f"through the trunk: forward {watched.calls}, backward {passes}, "
        "expected 1 each",
    )
    right = all(
        torch.allclose(spoken(p.grad), want, atol=1e-6, rtol=1e-3)
        for p, want in zip(own, wanted_trunk, strict=True)
    )
    assert right or conflict, say(
        pl="sporu nie było, a gradient pnia to nie suma obu",
        en="there was no conflict, but the gradient of the trunk is not the plain sum",
    )
    assert right, say(
        pl="był spór, a gradient pnia nie wynika z obu rzutów policzonych z pierwotnych gradientów",
        en="there was a conflict, but the gradient of the trunk is not that of both "
        "projections onto the original gradients",
    )
assert conflicts == {True, False}

# %% [markdown] lang="pl" exercise="surgery" role="hint"
# Funkcja `cut` z lekcji pokazuje, jak dostać `g1` i `g2`, nie wchodząc do pnia.

# %% [markdown] lang="en" exercise="surgery" role="hint"
# The function `cut` of this lesson shows how to get `g1` and `g2` without entering the trunk.

# %% [markdown] lang="pl" exercise="surgery" role="hint"
# Po pierwszym `backward` zapisz `leaf.grad` i ustaw go na `None`, bo drugie wywołanie doda swój.
# Oba rzuty policz, zanim cokolwiek odejmiesz.

# %% [markdown] lang="en" exercise="surgery" role="hint"
# After the first `backward` keep `leaf.grad` and set it to `None`, because the second call
# adds its own. Compute both projections before you subtract anything.


# %% exercise="surgery" role="wrong" says="forward 1, backward 2"
def surgery(trunk: nn.Module, first: Loss, second: Loss, x: Tensor) -> None:
    h = trunk(x)
    wanted = []
    for loss in (first(h), second(h)):
        (gradient,) = torch.autograd.grad(loss, h, retain_graph=True)
        wanted.append(gradient)
    g1, g2 = wanted
    dot = (g1 * g2).sum().clamp(max=0)
    scale1 = 1 - dot / g1.square().sum()  # the projections as weights of the losses,
    scale2 = 1 - dot / g2.square().sum()  # but a pass for each loss
    kept = {}
    for scale, loss in ((scale1, first(h)), (scale2, second(h))):
        loss.backward(retain_graph=True)
        for parameter in trunk.parameters():
            old = kept.get(parameter, torch.zeros_like(parameter))
            kept[parameter] = old + scale * parameter.grad
            parameter.grad = None
    for parameter, gradient in kept.items():
        parameter.grad = gradient


# %% exercise="surgery" role="wrong" says="projections onto the original gradients"
def surgery(trunk: nn.Module, first: Loss, second: Loss, x: Tensor) -> None:
    h = trunk(x)
    leaf = h.detach().requires_grad_()
    first(leaf).backward()
    g1, leaf.grad = leaf.grad, None
    second(leaf).backward()
    g2 = leaf.grad
    dot = (g1 * g2).sum()
    if dot < 0:
        g1 = g1 - dot / g2.square().sum() * g2
        g2 = g2 - (g1 * g2).sum() / g1.square().sum() * g1  # g1 has changed already
    h.backward(g1 + g2)


# %% exercise="surgery" role="wrong" says="the gradient of the trunk is not the plain sum"
def surgery(trunk: nn.Module, first: Loss, second: Loss, x: Tensor) -> None:
    h = trunk(x)
    leaf = h.detach().requires_grad_()
    first(leaf).backward()
    g1 = leaf.grad.clone()
    leaf.grad = None
    second(leaf).backward()
    g2 = leaf.grad
    dot = (g1 * g2).sum()  # subtracts even where the heads agree
    h.backward(g1 - dot / g2.square().sum() * g2 + g2 - dot / g1.square().sum() * g1)


# %% exercise="surgery" role="wrong" says="a head has got no gradient"
def surgery(trunk: nn.Module, first: Loss, second: Loss, x: Tensor) -> None:
    h = trunk(x)
    (g1,) = torch.autograd.grad(first(h), h)  # asks for h only
    (g2,) = torch.autograd.grad(second(h), h)
    dot = (g1 * g2).sum().clamp(max=0)
    h.backward(g1 - dot / g2.square().sum() * g2 + g2 - dot / g1.square().sum() * g1)


# %% exercise="surgery" role="solution"
def surgery(trunk: nn.Module, first: Loss, second: Loss, x: Tensor) -> None:
    h = trunk(x)
    leaf = h.detach().requires_grad_()  # the graphs of the heads end here
    first(leaf).backward()
    g1, leaf.grad = grad_of(leaf), None
    second(leaf).backward()
    g2 = grad_of(leaf)
    dot, joined = (g1 * g2).sum(), g1 + g2
    if dot < 0:  # both projections are of the gradients as they were
        joined = joined - dot / g2.square().sum() * g2 - dot / g1.square().sum() * g1
    h.backward(joined)  # the only pass through the trunk, so no flag
