# %% [markdown] lang="pl"
# # DDP na żywo: kubełki, all-reduce i hooki
#
# Model w opakowaniu `DistributedDataParallel` (DDP) trenujemy w dwóch procesach. Strata maleje w obu, nic nie zgłasza błędu. Czy to nadal jeden model? Zapiszemy, co DDP wysyła i kiedy, a potem sprawdzimy, czego samo nie naprawi.
#
# ## Dwa procesy, dwie malejące straty
#
# Funkcja `launch` tworzy przez fork dwa procesy potomne (Linux i macOS, nie Windows), łączy je w grupę i zwraca listę ich wyników. Rangą (rank) nazywamy numer procesu, a w skrócie także sam proces. Wiadomości przesyła gloo, backend komunikacji dla CPU, więc karta graficzna nie jest potrzebna. Ranga 0 dostaje parzyste wiersze danych, ranga 1 nieparzyste.

# %% [markdown] lang="en"
# # DDP live: buckets, all-reduce and hooks
#
# A model wrapped in `DistributedDataParallel` (DDP) trains in two processes. The loss falls in both, nothing raises. Are they still the same model? We will record what DDP sends and when, and then check what it does not repair by itself.
#
# ## Two processes, two falling losses
#
# The function `launch` forks two children (Linux and macOS, not Windows), joins them in a group and returns the list of their results. The rank is the number of a process and, for short, the process itself. Messages are carried by gloo, a communication backend for CPUs, so no GPU is needed. Rank 0 gets the even rows of the data, rank 1 the odd ones.

# %% fold=true
import hashlib
import itertools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedFormatter
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket  # dist.GradBucket, typed
from torch.distributed.constants import default_pg_timeout
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DistributedSampler, TensorDataset

from snippets.bilingual import say
from snippets.distributed import launch, torchrun
from snippets.figures import BLUE, GRAY, GREEN, PALETTE, RED, show_figure

assert dist.is_gloo_available()


# %%
@dataclass(frozen=True)
class Config:
    ranks: int = 2
    samples: int = 64
    features: int = 8
    steps: int = 40
    lr: float = 0.05


config = Config()
steps = config.steps
noise = torch.Generator().manual_seed(43)
inputs = torch.randn(config.samples, config.features, generator=noise)
targets = inputs[:, :1] * inputs[:, 1:2]  # (samples, 1)
targets += torch.randn(targets.shape, generator=noise)


def make_model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(config.features, 16), nn.Tanh(), nn.Linear(16, 1))


# %% [markdown] lang="pl"
# Pętla ma jeden nietypowy wiersz: liczy wynik przez `ddp.module(x)`. Pole `module` to model pod opakowaniem. Sięgamy po nie, gdy trzeba wywołać metodę modelu, której opakowanie nie ma.

# %% [markdown] lang="en"
# The loop has one unusual line: it computes the output through `ddp.module(x)`. The field `module` is the model under the wrapper. We reach for it when we need a method of the model that the wrapper does not have.


# %%
def train(rank: int) -> list[float]:
    ddp = DDP(make_model(seed=rank))
    optimizer = torch.optim.SGD(ddp.parameters(), lr=config.lr)
    x, y = inputs[rank :: config.ranks], targets[rank :: config.ranks]
    losses = []
    for _ in range(config.steps):
        loss = F.mse_loss(ddp.module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


for rank, losses in enumerate(launch(train)):
    print(f"rank {rank}: {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < 0.9 * losses[0]

# %% [markdown] lang="pl"
# ## Co zostanie w wagach
#
# Każda ranga zaczęła od innego ziarna, widziała inną połowę danych i {{ steps }} razy wywołała `optimizer.step()`.
#
# Następna komórka zapisuje wagi po każdym kroku w trzech programach: `ddp(x)`, `ddp.module(x)` oraz `ddp(x)` z jedną wagą rangi 1 przesuniętą o `0.01` przed treningiem.

# %% [markdown] lang="en"
# ## What will be in the weights
#
# Each rank started from its own seed, saw its own half of the data and called `optimizer.step()` {{ steps }} times.
#
# The next cell records the weights after every step in three programs: `ddp(x)`, `ddp.module(x)`, and `ddp(x)` with one weight of rank 1 moved by `0.01` before training.

# %% [markdown] lang="pl" predict="replica-weights"
# Czy po {{ steps }} krokach z `ddp.module(x)` wagi obu rang są równe?
#
# - [ ] Tak. Hooki, które uśredniają gradienty, są przypięte do parametrów, więc działają bez względu na to, jak policzono wynik.
#
#   To prawda tylko w połowie: hooki są przypięte do parametrów, ale nic nie robią, dopóki nie uzbroi ich metoda `forward` samego opakowania. Wywołanie `ddp.module(x)` ją omija. Sprawdzimy to niżej, licząc redukcje.
#
# - [ ] Tak. DDP rozsyła wagi rangi 0 przed każdym przejściem w przód.
#
#   Przeczy temu niebieska linia na rysunku poniżej: gdyby DDP rozsyłało wagi przed każdym krokiem, przesunięcie by znikło. W treningu DDP ich nie rozsyła, robi to tylko konstruktor. Dlatego linia `ddp.module(x)` zaczyna się w zerze mimo różnych ziaren.
#
# - [x] Nie. Każda ranga trenowała sama, na swojej połowie danych.
#
#   Model rangi 0 jest co do bitu taki, jak po treningu na samych parzystych wierszach, a jego strata na wszystkich danych to {{ half_loss:.3f}} zamiast {{ whole_loss:.3f}}.

# %% [markdown] lang="en" predict="replica-weights"
# After {{ steps }} steps with `ddp.module(x)`, are the weights of the two ranks equal?
#
# - [ ] Yes. The hooks that average gradients are attached to the parameters, so they work no matter how the output was computed.
#
#   Only half true: the hooks are attached to the parameters, but they do nothing until the wrapper's own `forward` arms them. A call of `ddp.module(x)` bypasses it. We will check this below by counting reductions.
#
# - [ ] Yes. DDP broadcasts the weights of rank 0 before each forward pass.
#
#   The blue line in the figure below refutes this: if DDP broadcast the weights before every step, the nudge would be gone. During training DDP does not broadcast them; only the constructor does. That is why the line `ddp.module(x)` starts at zero despite the different seeds.
#
# - [x] No. Each rank trained alone, on its own half of the data.
#
#   The model of rank 0 is bit for bit that of training on the even rows alone, and its loss on all the data is {{ half_loss:.3f}} instead of {{ whole_loss:.3f}}.

# %%
Forward = Callable[[DDP, Tensor], Tensor]


def sgd_path(
    model: nn.Module, predict: Callable[[Tensor], Tensor], x: Tensor, y: Tensor
) -> Tensor:
    """Return the weights before training and after each step: (steps + 1, weights)."""
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    path = [parameters_to_vector(model.parameters()).detach()]
    for _ in range(config.steps):
        optimizer.zero_grad()
        F.mse_loss(predict(x), y).backward()
        optimizer.step()
        path.append(parameters_to_vector(model.parameters()).detach())
    return torch.stack(path)


def replicas(forward: Forward, nudge: float = 0.0) -> tuple[Tensor, Tensor]:
    def body(rank: int) -> Tensor:
        ddp = DDP(make_model(seed=rank))
        with torch.no_grad():
            next(ddp.parameters())[0, 0] += nudge * rank
        mine = slice(rank, None, config.ranks)
        return sgd_path(ddp, lambda x: forward(ddp, x), inputs[mine], targets[mine])

    first, second = launch(body)
    return first, second


programs = {
    "ddp(x)": replicas(lambda ddp, x: ddp(x)),
    "ddp.module(x)": replicas(lambda ddp, x: ddp.module(x)),
    "ddp(x), +0.01": replicas(lambda ddp, x: ddp(x), nudge=0.01),
}
gaps = {name: (b - a).norm(dim=1) for name, (a, b) in programs.items()}
for name, gap in gaps.items():
    print(f"{name:15} {gap[0]:.4f} -> {gap[-1]:.4f}")

assert gaps["ddp(x)"].max() == 0
assert gaps["ddp.module(x)"][0] == 0 and gaps["ddp.module(x)"][-1] > 0.1
assert (gaps["ddp(x), +0.01"] - 0.01).abs().max() < 1e-5


# %% [markdown] lang="pl"
# Porównajmy to z treningiem w jednym procesie: na wszystkich danych i na samych parzystych wierszach. Wypisujemy też `moved`, odległość między wagami przed treningiem na wszystkich danych i po nim.

# %% [markdown] lang="en"
# Let us compare this with training in a single process: on all the data, and on the even rows only. We also print `moved`, the distance between the weights before and after training on all the data.


# %% fold=true
def train_alone(rows: slice) -> Tensor:
    model = make_model(seed=0)
    return sgd_path(model, model, inputs[rows], targets[rows])


def loss_on_all(weights: Tensor) -> float:
    model = make_model(seed=0)
    vector_to_parameters(weights, model.parameters())
    with torch.no_grad():
        return F.mse_loss(model(inputs), targets).item()


# In a child too: on a machine with a GPU, no fork may follow backward() in the parent.
whole_batch = launch(lambda _: train_alone(slice(None)), world_size=1)[0]
even_rows = launch(lambda _: train_alone(slice(0, None, 2)), world_size=1)[0]

moved = (whole_batch[-1] - whole_batch[0]).norm().item()
module_gap = gaps["ddp.module(x)"][-1].item() / moved
whole_loss = loss_on_all(programs["ddp(x)"][0][-1])
half_loss = loss_on_all(programs["ddp.module(x)"][0][-1])
print(f"moved {moved:.4f}, gap / moved {module_gap:.2f}")
print(f"loss on all data: ddp(x) {whole_loss:.3f}, ddp.module(x) {half_loss:.3f}")

assert (programs["ddp(x)"][0] - whole_batch).norm(dim=1).max() < 1e-4 * moved
assert torch.equal(programs["ddp.module(x)"][0], even_rows)
assert module_gap > 0.2 and half_loss > whole_loss

# %% fold=true
fig, ax = plt.subplots(figsize=(7.2, 3.0))
for (name, gap), color in zip(gaps.items(), (GREEN, RED, BLUE), strict=True):
    ax.plot(gap, color=color)
    ax.text(config.steps + 0.6, gap[-1], name, color=color, va="center")
ax.set(xlabel="optimizer step", xlim=(0, config.steps))
ax.set_yscale("symlog", linthresh=0.01)
ax.set_ylim(-0.003, 2)
ax.set_yticks([0, 0.01, 0.1, 1])
ax.yaxis.set_major_formatter(FixedFormatter(["0", "0.01", "0.1", "1"]))
ax.set_title("distance between the weights of rank 0 and rank 1")
show_figure(
    fig,
    alt_pl="Odległość wag dwóch rang w kolejnych krokach, oś logarytmiczna powyżej "
    "0,01. Dla ddp(x) stale zero, dla ddp.module(x) rośnie od zera, dla przesuniętej "
    "repliki stale 0,01.",
    alt_en="Distance between the weights of two ranks, step by step, on an axis that "
    "is logarithmic above 0.01. For ddp(x) always zero, for ddp.module(x) it grows "
    "from zero, for the nudged replica always 0.01.",
    pl={
        "optimizer step": "krok optymalizatora",
        "distance between the weights of rank 0 and rank 1": "odległość wag rangi 0 "
        "i rangi 1",
    },
    same=tuple(gaps),
)

# %% [markdown] lang="pl"
# Oś pionowa jest liniowa do `0.01`, wyżej logarytmiczna. Linia `ddp(x)` leży na zerze, a wagi są takie, jak po treningu jednego procesu na wszystkich danych. Linia `ddp.module(x)` rusza z zera i rośnie. Na końcu odległość replik to {{ module_gap:.0%}} wartości `moved`. Niebieska linia stoi w miejscu.
#
# W treningu DDP uśrednia gradienty, a nie wagi. Liczy na to, że równe wagi po równych zmianach pozostaną równe.

# %% [markdown] lang="en"
# The vertical axis is linear up to `0.01` and logarithmic above. The line `ddp(x)` lies on zero, and the weights are those of a single process trained on all the data. The line `ddp.module(x)` leaves zero and grows. At the end the gap is {{ module_gap:.0%}} of `moved`. The blue line stays where it is.
#
# During training DDP averages gradients, not weights. It relies on equal weights staying equal under equal updates.

# %% [markdown] lang="pl"
# ## Gradienty jadą, zanim powstaną wszystkie
#
# Gradienty jadą w kubełkach (buckets): na każdy kubełek, a nie na każdy tensor, przypada jedna redukcja zbiorcza, czyli all-reduce. DDP pozwala ją podmienić hookiem komunikacyjnym (comm hook). Taki hook dostaje kubełek i od razu zwraca `Future`, czyli obietnicę wyniku, który dopiero nadejdzie. Nasz liczy to samo co DDP, a przy okazji notuje początek i koniec. Inny hook notuje chwilę, w której gotowy jest gradient wagi. Patrzymy na jedno przejście wstecz przez dziesięć warstw `Linear(512, 512)`.

# %% [markdown] lang="en"
# ## Gradients travel before all of them exist
#
# Gradients travel in buckets: there is one all-reduce for each bucket, not for each tensor. DDP lets us replace it by a communication hook (comm hook). Such a hook gets the bucket and at once returns a `Future`, the promise of a result that is still to come. Ours computes what DDP does, and notes the start and the end as well. Another hook notes the moment at which the gradient of a weight is ready. We watch one backward pass through ten layers of `Linear(512, 512)`.


# %%
def mean_later(tensor: Tensor) -> Future[Tensor]:
    """Start averaging a tensor over ranks, and do not wait for the result."""
    work = dist.all_reduce(tensor.div_(dist.get_world_size()), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


# %% fold=true
@dataclass
class Timeline:
    ready: list[float] = field(default_factory=list)  # gradient of a weight exists
    sent: list[float] = field(default_factory=list)  # all-reduce of a bucket starts
    done: list[float] = field(default_factory=list)  # and ends
    start: float = 0.0  # backward() is called
    end: float = 0.0  # and returns


def timed_mean(log: Timeline, bucket: GradBucket) -> Future[Tensor]:
    log.sent.append(time.perf_counter())

    def finish(future: Future[Tensor]) -> Tensor:
        log.done.append(time.perf_counter())
        return future.value()

    return mean_later(bucket.buffer()).then(finish)


def watch_backward(rank: int) -> Timeline:
    layers = [nn.Linear(512, 512) for _ in range(10)]
    log = Timeline()
    for layer in layers:
        layer.weight.register_post_accumulate_grad_hook(
            lambda _: log.ready.append(time.perf_counter())
        )
    ddp = DDP(nn.Sequential(*layers), bucket_cap_mb=2)
    ddp.register_comm_hook(log, timed_mean)
    for _ in range(3):  # the first iteration is special: see below
        loss = ddp(torch.randn(256, 512)).square().mean()
        for moments in (log.ready, log.sent, log.done):
            moments.clear()
        dist.barrier()
        log.start = time.perf_counter()
        loss.backward()
        log.end = time.perf_counter()
    return log


timelines = launch(watch_backward)
log = timelines[0]
layers = len(log.ready)
buckets = len(log.sent)
ready_at_first_send = sum(moment < log.sent[0] for moment in log.ready)
print(
    say(
        pl=f"gotowe gradienty wag, gdy rusza kubełek 0: {ready_at_first_send}/{layers}",
        en=f"weight gradients ready when bucket 0 leaves: {ready_at_first_send}/{layers}",
    )
)

assert (layers, buckets, ready_at_first_send) == (10, 5, 2)
for log, other in (timelines, reversed(timelines)):
    for number, sent in enumerate(log.sent):
        assert log.ready[2 * number + 1] < sent  # its two gradients exist
        assert sent < (*log.ready, log.end)[2 * number + 2]  # the next does not
        assert other.sent[number] < log.done[number]
    assert max(log.done) < log.end

# %% fold=true measured=true
slower = 0 if timelines[0].ready[-1] > timelines[1].ready[-1] else 1
origin = min(log.start for log in timelines)


def after(moment: float) -> float:
    """Return milliseconds since the first of the ranks began; they share one clock."""
    return 1e3 * (moment - origin)


fig, panels = plt.subplots(2, 1, figsize=(7.2, 4.6), sharex=True)
for rank, (log, ax) in enumerate(zip(timelines, panels, strict=True)):
    edges = [after(moment) for moment in (log.start, *log.ready)]
    for layer, (begin, end) in enumerate(itertools.pairwise(edges)):
        color = PALETTE[layer // 2]
        ax.barh(0, end - begin, left=begin, color=color, edgecolor=GRAY, height=0.7)
    for number, color in enumerate(PALETTE[:buckets]):
        begin, end = after(log.sent[number]), after(log.done[number])
        ax.barh(number + 1, end - begin, left=begin, color=color, height=0.5)
    ax.axvline(after(log.ready[-1]), color=GRAY, linewidth=1, linestyle=":")
    ax.axvline(after(log.end), color=GRAY, linewidth=1)
    rows = ["gradients", *(f"all-reduce {number}" for number in range(buckets))]
    ax.set_yticks(range(buckets + 1), labels=rows)
    ax.invert_yaxis()
    ax.set_title(f"rank {rank}")
panels[1].set_xlabel("milliseconds since the first backward() began")
show_figure(
    fig,
    alt_pl="Oś czasu jednego przejścia wstecz na obu rangach. Górny pasek to dziesięć "
    "gradientów, jeden po drugim, a pod nim pięć kubełków: każdy rusza, gdy gotowe są "
    "jego dwa gradienty, i każdy oprócz ostatniego, zanim powstaną następne.",
    alt_en="Timeline of one backward pass on both ranks. The top bar is ten gradients "
    "one after another, below it five buckets: each leaves when its two gradients are "
    "ready, and each but the last before the next ones are computed.",
    pl={
        "gradients": "gradienty",
        "rank 0": "ranga 0",
        "rank 1": "ranga 1",
        "milliseconds since the first backward() began": "milisekundy od początku "
        "pierwszego backward()",
    },
    same=[f"all-reduce {number}" for number in range(buckets)],
)

# %% [markdown] lang="pl"
# Kolor łączy gradienty z ich kubełkiem. Wysyłka rusza, zanim powstanie ostatni gradient: kubełek 0 wyjeżdża, gdy gotowe są {{ ready_at_first_send }} z {{ layers }} gradientów wag. Należą one do ostatnich warstw, bo przejście wstecz liczy je pierwsze. Linia kropkowana to ostatni gradient, ciągła to powrót z `backward`. Metoda wraca tu dopiero po ostatnim all-reduce, więc po `loss.backward()` gradienty są już uśrednione.
#
# Pasek obejmuje przesłanie i czekanie na drugą rangę: żaden all-reduce nie kończy się, zanim druga ranga go zacznie. W tym uruchomieniu wolniejsza była ranga {{ slower }}: to ona później policzyła ostatni gradient.

# %% [markdown] lang="en"
# Colour ties gradients to their bucket. Sending starts before the last gradient exists: bucket 0 leaves when {{ ready_at_first_send }} of {{ layers }} weight gradients are ready. They are those of the last layers, because the backward pass computes them first. The dotted line is the last gradient, the solid one the return from `backward`. Here it returns only after the last all-reduce, so after `loss.backward()` the gradients are already averaged.
#
# A bar includes the transfer and the waiting for the other rank: no all-reduce finishes before the other rank has started it. In this run rank {{ slower }} was slower: it computed its last gradient later.

# %% [markdown] lang="pl"
# ## Konstruktor rozsyła, forward uzbraja, hooki wysyłają
#
# Na klastrze nie ma `launch`: skrypt uruchamia polecenie `torchrun --nproc-per-node=2 train.py`. Tworzy ono dwa procesy, a role przekazuje im w zmiennych środowiskowych. Funkcja pomocnicza `torchrun` wykonuje to polecenie z ustawieniami dla jednego komputera. Każda ranga losuje inną wagę i ma inne dane: gradient rangi 0 to `2.0`, a rangi 1 to `4.0`.

# %% [markdown] lang="en"
# ## The constructor broadcasts, forward arms, hooks send
#
# On a cluster there is no `launch`: the command `torchrun --nproc-per-node=2 train.py` starts the script. It creates two processes and gives them their roles in environment variables. The helper `torchrun` runs this command with settings for a single machine. Each rank draws a different weight and has different data: the gradient of rank 0 is `2.0`, that of rank 1 is `4.0`.

# %%
SCRIPT = """
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP


def main() -> None:
    rank = dist.get_rank()
    torch.manual_seed(rank)
    layer = torch.nn.Linear(1, 1, bias=False)
    drawn = layer.weight.item()
    ddp = DDP(layer)
    start = layer.weight.item()
    ddp(torch.full((2, 1), rank + 1.0)).sum().backward()
    role = " ".join(f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE"))
    print(role, f"drawn={drawn:+.3f} start={start:+.3f} grad={layer.weight.grad}")


dist.init_process_group("gloo")
main()  # a function: the model is gone before the process group
dist.destroy_process_group()
"""
printed = torchrun(SCRIPT, processes=2)
print(printed, end="")

# %% fold=true
local = [torch.full((2, 1), rank + 1.0).sum().item() for rank in range(2)]
words = [line.split() for line in printed.splitlines()]
drawn, start = ([line[i].split("=")[1] for line in words] for i in (2, 3))

assert local == [2.0, 4.0]
assert [line[:2] for line in words] == [[f"RANK={r}", "WORLD_SIZE=2"] for r in (0, 1)]
assert drawn[0] != drawn[1] and start == [drawn[0], drawn[0]]
assert printed.count("grad=tensor([[3.]])") == 2

# %% [markdown] lang="pl"
# Obie rangi zaczynają od wagi, którą wylosowała ranga 0, i obie kończą z gradientem `3.0`: średnią, nie sumą. Kto zleca uśrednianie? W konstruktorze klasa `Reducer` rejestruje hook na węźle `AccumulateGrad` każdego parametru. Hook działa jednak dopiero wtedy, gdy uzbroi go metoda `forward` opakowania, wywołując `prepare_for_backward`. Policzmy redukcje dla czterech mikropartii (micro-batch), czyli części jednej partii, których gradienty sumują się przed krokiem. Model ma dwa kubełki.

# %% [markdown] lang="en"
# Both ranks start from the weight that rank 0 drew, and both end with the gradient `3.0`: a mean, not a sum. What triggers the averaging? In the constructor the class `Reducer` registers a hook on the `AccumulateGrad` node of every parameter. But the hook works only once the wrapper's `forward` has armed it by calling `prepare_for_backward`. Let us count reductions for four micro-batches, parts of one batch whose gradients add up before the step. The model has two buckets.

# %%
Program = Callable[[DDP, list[Tensor]], None]


def plain(ddp: DDP, batches: list[Tensor]) -> None:
    for x in batches:
        ddp(x).sum().backward()


def quiet(ddp: DDP, batches: list[Tensor]) -> None:
    with ddp.no_sync():
        for x in batches[:-1]:
            ddp(x).sum().backward()
    ddp(batches[-1]).sum().backward()


def quiet_backward_only(ddp: DDP, batches: list[Tensor]) -> None:
    for x in batches[:-1]:
        total = ddp(x).sum()
        with ddp.no_sync():
            total.backward()
    ddp(batches[-1]).sum().backward()


def around_the_wrapper(ddp: DDP, batches: list[Tensor]) -> None:
    for x in batches:
        ddp.module(x).sum().backward()


PROGRAMS: list[Program] = [plain, quiet, quiet_backward_only, around_the_wrapper]


# %% fold=true
def counted_mean(sizes: list[int], bucket: GradBucket) -> Future[Tensor]:
    sizes.append(bucket.buffer().nbytes)
    return mean_later(bucket.buffer())


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def reductions(rank: int) -> dict[str, tuple[int, Tensor]]:
    """Return how often each program reduces, and the gradient that it leaves."""
    found = {}
    for program in PROGRAMS:
        torch.manual_seed(0)
        ddp = DDP(nn.Sequential(*(nn.Linear(512, 512) for _ in range(3))))
        sizes: list[int] = []
        ddp.register_comm_hook(sizes, counted_mean)
        plain(ddp, [torch.ones(1, 512)])  # buckets take their final shape
        ddp.zero_grad()
        sizes.clear()
        program(ddp, [torch.full((1, 512), rank + 0.1 * step) for step in range(4)])
        grads = torch.cat([gradient(p).flatten() for p in ddp.parameters()])
        found[program.__name__] = len(sizes), grads
    return found


results = launch(reductions)[0]
for name, outcome in results.items():
    print(f"{name:20} all-reduce: {outcome[0]}")

assert [count for count, _ in results.values()] == [8, 2, 8, 0]
for name in ("quiet", "quiet_backward_only"):
    torch.testing.assert_close(
        results[name][1], results["plain"][1], rtol=1e-4, atol=1e-2
    )
assert not torch.allclose(results["around_the_wrapper"][1], results["plain"][1])

# %% [markdown] lang="pl"
# - `plain` wysyła dwa kubełki przy każdej mikropartii.
# - `quiet` wysyła tylko przy ostatniej: menedżer kontekstu `no_sync` wyłącza uzbrajanie w `forward`. Gradient jest ten sam, bo średnia sum to suma średnich.
# - `quiet_backward_only` obejmuje nim samo `backward` i nic nie oszczędza, bo hooki są już uzbrojone.
# - `around_the_wrapper` to nasza pułapka: zero redukcji, bo nic nie uzbroiło hooków.
#
# Jak duży jest kubełek i co w nim leży? Zapytajmy o to hook komunikacyjny. Wypisujemy liczbę kubełków w iteracjach 0 i 1, a na końcu ich rozmiary w bajtach przy ustawieniach domyślnych.

# %% [markdown] lang="en"
# - `plain` sends two buckets for every micro-batch.
# - `quiet` sends only for the last one: the context manager `no_sync` switches off the arming in `forward`. The gradient is the same, because the mean of sums is the sum of means.
# - `quiet_backward_only` puts it around `backward` alone and saves nothing, because the hooks are already armed.
# - `around_the_wrapper` is our trap: no reduction, because nothing armed the hooks.
#
# How large is a bucket, and what lies in it? Let us ask the communication hook. The cell prints the number of buckets in iterations 0 and 1, then their bytes at the default thresholds.


# %% fold=true
def bucket_sizes(rank: int) -> dict[int | None, list[list[int]]]:
    """Return bytes of each bucket in two iterations, for ten layers of 512 x 512."""
    by_cap = {}
    for cap_mb in (None, 1, 25):
        layers = [nn.Linear(512, 512) for _ in range(10)]
        ddp = DDP(nn.Sequential(*layers), bucket_cap_mb=cap_mb)
        sizes: list[int] = []
        ddp.register_comm_hook(sizes, counted_mean)
        iterations = []
        for _ in range(2):
            sizes.clear()
            ddp(torch.ones(1, 512)).sum().backward()
            iterations.append(list(sizes))
        by_cap[cap_mb] = iterations
    return by_cap


sizes_by_cap = launch(bucket_sizes)[0]
for cap_mb, (first, second) in sizes_by_cap.items():
    print(f"bucket_cap_mb={cap_mb}: {len(first)} -> {len(second)}")
print(sizes_by_cap[None])

layer_bytes = (512 * 512 + 512) * 4
all_bytes = 10 * layer_bytes
assert all(first == [all_bytes] for first, _ in sizes_by_cap.values())
assert sizes_by_cap[None][1] == [layer_bytes, 9 * layer_bytes]
assert sizes_by_cap[1][1] == 10 * [layer_bytes] and layer_bytes > 2**20
assert sizes_by_cap[25][1] == [all_bytes]


# %% fold=true
class LastFirst(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        for layer in reversed(self):
            x = layer(x)
        return x


def first_bucket(rank: int) -> tuple[int, int, int]:
    """Return the two limits, and bytes of the first bucket in iteration 1."""
    ddp = DDP(LastFirst([nn.Linear(513, 512), nn.Linear(512, 513)]))
    sizes: list[int] = []
    ddp.register_comm_hook(sizes, counted_mean)
    for _ in range(2):
        sizes.clear()
        ddp(torch.ones(1, 512)).sum().backward()
    return ddp._bucket_config.first_bucket_bytes_cap, ddp.bucket_bytes_cap, sizes[0]


# The layer that was registered first is used last: its gradients arrive first.
assert launch(first_bucket)[0] == (2**20, 25 * 2**20, (513 * 512 + 512) * 4)

Strip = list[tuple[str, int, int]]  # name, offset and bytes of each gradient


def layouts(rank: int) -> list[Strip]:
    """Return the layout of the only bucket of `make_model` in two iterations."""
    ddp = DDP(make_model(seed=0))
    names = {p: name for name, p in ddp.module.named_parameters()}
    strips: list[Strip] = []

    def noted(state: None, bucket: GradBucket) -> Future[Tensor]:
        pairs = zip(bucket.parameters(), bucket.gradients(), strict=True)
        strips.append(
            [(names[p], 4 * int(g.storage_offset()), g.nbytes) for p, g in pairs]
        )
        return mean_later(bucket.buffer())

    ddp.register_comm_hook(None, noted)
    for _ in range(2):
        ddp(inputs).sum().backward()
    return strips


strips = launch(layouts)[0]
assert [name for name, _, _ in strips[0]] == [
    "0.weight",
    "0.bias",
    "2.weight",
    "2.bias",
]
assert strips[1][0] == ("2.bias", 0, 4) and strips[1][3] == ("0.weight", 132, 512)

colors = dict(zip([name for name, _, _ in strips[0]], PALETTE, strict=False))
fig, ax = plt.subplots(figsize=(7.2, 2.0))
for row, strip in enumerate(strips):
    for name, offset, size in strip:
        ax.barh(row, size, left=offset, color=colors[name], height=0.5)
        if size > 4:  # the labels of a four-byte bias and its neighbour would overlap
            ax.text(offset, row - 0.3, f"{offset}", fontsize=9, color=GRAY)
for name, color in colors.items():
    ax.barh(0, 0, color=color, label=name)
ax.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35))
ax.set_yticks((0, 1), labels=("iteration 0", "iteration 1"))
ax.set(xlabel="byte of the bucket", ylim=(1.4, -0.7), xlim=(0, 644))
show_figure(
    fig,
    alt_pl="Jeden kubełek o 644 bajtach w dwóch iteracjach. W iteracji 0 gradienty "
    "leżą w kolejności rejestracji, od 0.weight, w iteracji 1 w kolejności nadejścia, "
    "od 2.bias.",
    alt_en="One bucket of 644 bytes in two iterations. In iteration 0 gradients lie in "
    "order of registration, from 0.weight; in iteration 1 in order of arrival, from "
    "2.bias.",
    pl={
        "iteration 0": "iteracja 0",
        "iteration 1": "iteracja 1",
        "byte of the bucket": "bajt kubełka",
    },
    same=tuple(colors),
)

# %% [markdown] lang="pl"
# Kubełek to jeden ciągły bufor; rysunek pokazuje model z początku lekcji, a liczby nad paskiem to przesunięcia gradientów (`2.bias`, bez etykiety, przechodzi z 640 na 0). Przy każdym z trzech ustawień w iteracji 0 jest jeden kubełek na wszystko. DDP zapisuje w niej rzeczywistą kolejność nadejścia gradientów i według niej układa kubełki na nowo.
#
# Domyślne progi to 1 MiB dla pierwszego kubełka, by wysyłka ruszyła wcześnie, i 25 MiB dla pozostałych. Kubełek zamyka się, gdy osiągnie próg, więc może go przekroczyć: nasz pierwszy ma {{ layer_bytes }} B. Jawne `bucket_cap_mb` ustala także próg pierwszego kubełka. Dlatego `bucket_cap_mb=25` nie odtwarza ustawień domyślnych: małego pierwszego kubełka nie ma i cały nasz model czeka na ostatni gradient.
#
# Kod: `Reducer::prepare_for_backward`, `Reducer::autograd_hook` i `Reducer::rebuild_buckets` w pliku `reducer.cpp` oraz `_pre_forward`, `_post_forward` i `_BucketCapacityConfig` w pliku `distributed.py`. Uzbraja metoda `_post_forward`, kubełki przebudowuje `_pre_forward`.
#
# Zostały bufory, np. średnie w warstwie `BatchNorm1d`. Niech ranga 0 widzi same dziesiątki, a ranga 1 same dwudziestki.

# %% [markdown] lang="en"
# A bucket is one contiguous buffer; the figure shows the model from the start of the lesson, and the numbers above the strip are the offsets of the gradients (without the 4-byte `2.bias`, at 640 and then 0). With each of the three settings iteration 0 has one bucket for everything. In it DDP records the actual arrival order of gradients, and rebuilds the buckets by that order.
#
# The default thresholds are 1 MiB for the first bucket, so that sending starts early, and 25 MiB for the others. A bucket closes once it reaches its threshold, so it may exceed it: our first one has {{ layer_bytes }} B. An explicit `bucket_cap_mb` sets the threshold of the first bucket too. So `bucket_cap_mb=25` does not restore the defaults: there is no small first bucket, and our whole model waits for the last gradient.
#
# Source: `Reducer::prepare_for_backward`, `Reducer::autograd_hook` and `Reducer::rebuild_buckets` in the file `reducer.cpp`, and `_pre_forward`, `_post_forward` and `_BucketCapacityConfig` in the file `distributed.py`. The method `_post_forward` arms, `_pre_forward` rebuilds the buckets.
#
# One kind of state remains: buffers, such as the means in the layer `BatchNorm1d`. Let rank 0 see nothing but tens, and rank 1 nothing but twenties.


# %%
def running_mean(rank: int) -> float:
    norm = nn.BatchNorm1d(1)
    ddp = DDP(norm)
    for _ in range(3):
        ddp(torch.full((4, 1), 10.0 * (rank + 1))).sum().backward()
    assert norm.running_mean is not None
    return norm.running_mean.item()


means = launch(running_mean)
mean_0 = means[0]
mean_1 = means[1]
tens_mean = 10 * (1 - 0.9**3)  # three updates with momentum 0.1, from zero
twenties_mean = 20 * (1 - 0.9**3)
print(f"rank 0: {mean_0:.2f}, rank 1: {mean_1:.2f}; only 20s: {twenties_mean:.2f}")

before_third = 10 * (1 - 0.9**2)  # of rank 0
assert abs(mean_0 - tens_mean) < 1e-5
assert abs(mean_1 - (0.9 * before_third + 0.1 * 20)) < 1e-5

# %% [markdown] lang="pl"
# Domyślnie DDP rozsyła bufory rangi 0 przed przejściem w przód, chyba że poprzednie przebiegło pod `no_sync` lub `no_grad`. Potem każda ranga aktualizuje je swoimi danymi. Dlatego ranga 1 ma {{ mean_1:.2f}}, a nie {{ twenties_mean:.2f}}, jak po samych dwudziestkach. W drugą stronę nie płynie nic: {{ mean_0:.2f}} to tyle, ile dałyby same dziesiątki. Model wczytany z punktu kontrolnego rangi 0 normalizuje tak, jakby danych rangi 1 nie było.

# %% [markdown] lang="en"
# By default, DDP broadcasts the buffers of rank 0 before a forward pass, unless the previous one ran under `no_sync` or `no_grad`. Then each rank updates them with its own data. That is why rank 1 has {{ mean_1:.2f}} and not {{ twenties_mean:.2f}}, as after nothing but twenties. Nothing flows the other way: {{ mean_0:.2f}} is what the tens alone would give. A model loaded from rank 0's checkpoint normalises as if the data of rank 1 did not exist.

# %% [markdown] lang="pl"
# ## Mini-DDP
#
# Zbudujmy to sami: konstruktor rozsyła stan, hooki na parametrach zbierają gradienty do kubełków w odwrotnej kolejności parametrów, a all-reduce jest asynchroniczny. Kubełki muszą mieć na wszystkich rangach tę samą kolejność, bo gloo łączy w pary kolejne wywołania. Dlatego kubełek gotowy przed czasem czeka na swoją kolej, a pętla `while` wysyła wszystkie, na które kolej już przyszła. Po ostatnim metoda `_finish` rozbraja hooki, czeka na wyniki i wpisuje średnie do `grad`.

# %% [markdown] lang="en"
# ## A mini-DDP
#
# Let us build it ourselves: the constructor broadcasts the state, hooks on parameters collect gradients into buckets in the reverse order of the parameters, and the all-reduce is asynchronous. Buckets must have the same order on all ranks, because gloo pairs up successive calls. A bucket that is ready too early therefore waits its turn, and the `while` loop sends all whose turn has come. After the last one, the method `_finish` disarms the hooks, waits for the results and writes the means into `grad`.


# %%
class MiniDDP(nn.Module):
    """Average gradients over ranks, in buckets, while backward is still running."""

    def __init__(self, module: nn.Module, cap_bytes: int) -> None:
        super().__init__()
        self.module = module
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)
        self.buckets: list[list[nn.Parameter]] = [[]]
        for parameter in reversed(list(module.parameters())):
            if sum(p.nbytes for p in self.buckets[-1]) >= cap_bytes:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
            parameter.register_post_accumulate_grad_hook(self._gradient_ready)
        self.number: dict[Tensor, int] = {
            p: number for number, bucket in enumerate(self.buckets) for p in bucket
        }
        self.armed = False

    def forward(self, x: Tensor) -> Tensor:
        for buffer in self.module.buffers():
            dist.broadcast(buffer, src=0)
        self.armed = torch.is_grad_enabled()
        self.missing = [len(bucket) for bucket in self.buckets]
        self.sent: list[tuple[Tensor, dist.Work]] = []
        output: Tensor = self.module(x)
        return output

    def _gradient_ready(self, parameter: Tensor) -> None:
        if not self.armed:
            return
        self.missing[self.number[parameter]] -= 1
        while self.armed and self.missing[len(self.sent)] == 0:
            self._send(self.buckets[len(self.sent)])

    def _send(self, bucket: list[nn.Parameter]) -> None:
        mean = torch.cat([gradient(p).flatten() for p in bucket])
        mean /= dist.get_world_size()
        work = dist.all_reduce(mean, async_op=True)
        assert work is not None
        self.sent.append((mean, work))
        if len(self.sent) == len(self.buckets):
            self._finish()

    def _finish(self) -> None:
        self.armed = False
        for bucket, (mean, work) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            parts = mean.split([p.numel() for p in bucket])
            for p, part in zip(bucket, parts, strict=True):
                gradient(p).copy_(part.view_as(p))


# %% [markdown] lang="pl"
# Wzorcem jest DDP. Sprawdzamy dwadzieścia losowych sieci z warstwami `BatchNorm1d`. Przed opakowaniem ranga 1 psuje stan każdej z nich. Po dwóch iteracjach porównujemy na obu rangach gradienty i bufory, co do bitu, z DDP bez hooka i z hookiem. Porównujemy też rozmiary kubełków.

# %% [markdown] lang="en"
# The oracle is DDP. We check twenty random networks with `BatchNorm1d` layers. Before wrapping, rank 1 spoils the state of each. After two iterations we compare gradients and buffers on both ranks, bit for bit, with DDP without a hook and with one. We also compare the sizes of buckets.


# %% fold=true
def random_model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    widths = [int(w) for w in torch.randint(8, 500, (int(torch.randint(3, 7, ())),))]
    blocks = [
        (nn.Linear(a, b), nn.BatchNorm1d(b), nn.Tanh())
        for a, b in itertools.pairwise(widths)
    ]
    return nn.Sequential(*itertools.chain.from_iterable(blocks))


def agree_with_ddp(rank: int) -> list[tuple[bool, int]]:
    verdicts = []
    for seed in range(20):
        models = [random_model(seed) for _ in range(3)]
        for tensor in [*models[2].parameters(), *models[2].buffers()]:
            tensor.detach().add_(rank)  # the constructor has to repair this
        bare, hooked = DDP(models[0], bucket_cap_mb=1), DDP(models[1], bucket_cap_mb=1)
        mini = MiniDDP(models[2], cap_bytes=2**20)
        sizes: list[int] = []
        hooked.register_comm_hook(sizes, counted_mean)
        width = next(mini.parameters()).shape[1]
        for step in range(2):
            generator = torch.Generator().manual_seed(rank + 2 * step)
            x = torch.randn(5, width, generator=generator)
            sizes.clear()
            for model in (bare, hooked, mini):
                model.zero_grad()
                model(x).square().mean().backward()
        states = [
            [*map(gradient, model.parameters()), *model.buffers()] for model in models
        ]
        same = all(
            torch.equal(mine, other)
            for theirs in states[:2]
            for mine, other in zip(states[2], theirs, strict=True)
        )
        own_sizes = [sum(p.nbytes for p in bucket) for bucket in mini.buckets]
        verdicts.append((same and sizes == own_sizes, len(sizes)))
    return verdicts


by_rank = launch(agree_with_ddp)
compared = len(by_rank[0])
agreed = sum(all(same for same, _ in pair) for pair in zip(*by_rank, strict=True))
most_buckets = max(count for _, count in by_rank[0])
print(
    say(
        pl=f"zgodne sieci: {agreed}/{compared}, kubełków: od 1 do {most_buckets}",
        en=f"networks that agree: {agreed}/{compared}, buckets: 1 to {most_buckets}",
    )
)
assert agreed == compared == 20
assert min(count for _, count in by_rank[0]) == 1 and most_buckets > 1

# %% [markdown] lang="pl"
# Jeszcze cztery próby. W pierwszej ranga 1 zaczyna przejście wstecz dopiero wtedy, gdy ranga 0 policzy ostatni gradient. W drugiej warstwy działają w odwrotnej kolejności, więc ostatni kubełek jest gotowy pierwszy. W trzeciej omijamy opakowanie. W czwartej każda ranga redukuje dwa tensory, `1` i `10`, ale ranga 1 w odwrotnej kolejności.

# %% [markdown] lang="en"
# Four more trials. In the first, rank 1 starts its backward pass only when rank 0 has computed its last gradient. In the second the layers run in reverse order, so the last bucket is ready first. In the third we bypass the wrapper. In the fourth each rank reduces two tensors, `1` and `10`, but rank 1 in the opposite order.

# %% fold=true
computed = multiprocessing.get_context("fork").Event()


def sent_before_last_gradient(rank: int) -> tuple[int, int]:
    layers = nn.Sequential(*(nn.Linear(512, 512) for _ in range(3)))
    sent: list[int] = []

    def last_gradient(_: Tensor) -> None:
        sent.append(len(mini.sent))
        computed.set()

    next(layers.parameters()).register_post_accumulate_grad_hook(last_gradient)
    mini = MiniDDP(layers, cap_bytes=2**20)
    loss = mini(torch.ones(1, 512)).sum()
    if rank == 1:
        assert computed.wait(10), "rank 0 waits for the network"
    loss.backward()
    return sent[0], len(mini.buckets)


def sent_in_turn(rank: int) -> tuple[list[int], bool]:
    """Return buckets sent after each gradient, and if the result is that of DDP."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(LastFirst(nn.Linear(512, 512) for _ in range(3)))
    ddp, mini = DDP(models[0]), MiniDDP(models[1], cap_bytes=2**20)
    sent: list[int] = []
    for parameter in mini.parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda _: sent.append(len(mini.sent))
        )
    x = torch.full((1, 512), rank + 1.0)
    for model in (ddp, mini):
        model(x).sum().backward()
    pairs = zip(ddp.parameters(), mini.parameters(), strict=True)
    return sent, all(torch.equal(gradient(p), gradient(q)) for p, q in pairs)


def around_mini(rank: int) -> Tensor:
    mini = MiniDDP(make_model(seed=0), cap_bytes=2**20)
    mini.module(inputs[rank::2]).sum().backward()
    return torch.cat([gradient(p).flatten() for p in mini.parameters()])


def crossed(rank: int) -> list[float]:
    pair = [torch.tensor([1.0]), torch.tensor([10.0])]
    for tensor in pair if rank == 0 else reversed(pair):
        dist.all_reduce(tensor)
    return [tensor.item() for tensor in pair]


early = launch(sent_before_last_gradient)
turns = launch(sent_in_turn)
mini_0, mini_1 = launch(around_mini)
sums = launch(crossed)
print(early[0], turns[0][0], sums)
assert early == [(2, 3), (2, 3)]
assert turns == 2 * [([0, 0, 0, 0, 0, 3], True)]
assert not torch.allclose(mini_0, mini_1)
assert sums == [[11.0, 11.0], [11.0, 11.0]]

# %% [markdown] lang="pl"
# Ranga 0 wysłała 2 z 3 kubełków, nie czekając na nikogo. W drugiej próbie kubełki czekały na swoją kolej: wszystkie trzy wyjechały po ostatnim gradiencie, a wynik jest ten sam co w DDP. Po `mini.module(x)` każda ranga ma własny gradient: odtworzyliśmy także pułapkę. W czwartej próbie obie rangi dostają `11` zamiast `2` i `20`, bez błędu. Nasza wersja nie obsługuje `no_sync`, nieużytych parametrów ani przebudowy kubełków według kolejności nadejścia.

# %% [markdown] lang="en"
# Rank 0 sent 2 of 3 buckets without waiting for anybody. In the second trial the buckets waited their turn: all three left after the last gradient, and the result is that of DDP. After `mini.module(x)` each rank has a gradient of its own: we have reproduced the trap as well. In the fourth trial both ranks get `11` instead of `2` and `20`, without an error. Our version leaves out `no_sync`, unused parameters and the rebuilding of buckets by order of arrival.

# %% [markdown] lang="pl"
# ## Ile kosztuje wiadomość, a ile bajt
#
# Po co w ogóle kubełki? Prosty model kosztu: all-reduce o rozmiarze $n$ bajtów trwa $\alpha + \beta n$. Składnik $\alpha$ płacimy za każdą wiadomość, a $\beta$ za każdy bajt. Zmierzmy oba na skrajnych rozmiarach i przewidźmy, ile razy dłużej trwa przesłanie 400 kB w stu wiadomościach niż w jednej.

# %% [markdown] lang="en"
# ## The cost of a message and of a byte
#
# Why have buckets at all? A simple cost model: an all-reduce of $n$ bytes takes $\alpha + \beta n$. We pay $\alpha$ for every message and $\beta$ for every byte. Let us measure both at extreme sizes, and predict how many times longer 400 kB takes as 100 messages than as one.


# %% fold=true measured=true
SERIES = [(1, 100), (4_000_000, 5), (1_000, 100), (100_000, 100)]  # floats, messages


def shortest_times(rank: int) -> list[float]:
    """Return seconds per message in the best of ten runs of each series, in turns."""
    best = [float("inf")] * len(SERIES)
    for _ in range(10):
        for kind, (numel, messages) in enumerate(SERIES):
            tensors = [torch.ones(numel) for _ in range(messages)]
            dist.barrier()
            start = time.perf_counter()
            for tensor in tensors:
                dist.all_reduce(tensor)
            elapsed = time.perf_counter() - start
            best[kind] = min(best[kind], elapsed / messages)
    return best


alpha, huge, small, large = map(max, zip(*launch(shortest_times), strict=True))
beta = (huge - alpha) / 16e6
predicted = 100 * (alpha + beta * 4e3) / (alpha + beta * 4e5)
measured = 100 * small / large
print(f"α = {1e6 * alpha:.0f} µs, β = {1e9 * beta:.2f} ns/B")
print(
    say(
        pl=f"100 wiadomości / 1 wiadomość: przewidziane {predicted:.0f}, "
        f"zmierzone {measured:.0f}",
        en=f"100 messages / 1 message: predicted {predicted:.0f}, "
        f"measured {measured:.0f}",
    )
)
assert measured > 5

# %% [markdown] lang="pl"
# Model przewiduje {{ predicted:.0f}}×, pomiar daje {{ measured:.0f}}×: kierunek się zgadza, skala niekoniecznie. Czas jednej wiadomości waha się tu z przyczyn, których nie rozdzielamy, więc asercja sprawdza tylko iloraz ponad 5. Osobny all-reduce dla każdego małego tensora płaciłby głównie $\alpha$. Duży kubełek rusza za to później: przy `bucket_cap_mb=25` nasz model nie wysłał nic przed ostatnim gradientem. Liczby zależą od łącza, ale sam kompromis pozostaje.

# %% [markdown] lang="en"
# The model predicts {{ predicted:.0f}}×, the measurement gives {{ measured:.0f}}×: the direction agrees, the size need not. The time of one message varies here for reasons that we do not separate, so the assertion checks only a factor above 5. A separate all-reduce for each small tensor would mostly pay $\alpha$. A large bucket, in turn, leaves later: with `bucket_cap_mb=25` our model sent nothing before the last gradient. The numbers depend on the link; the trade-off remains.

# %% [markdown] lang="pl"
# ## Co jeszcze psuje się po cichu
#
# **Nierówne partie.** DDP dzieli sumę gradientów przez liczbę procesów, a nie przez liczbę próbek. Gdy ranga 0 ma $n_0$ z $N$ próbek, a każda ranga liczy średnią stratę, powstaje $(g_0+g_1)/2$ zamiast $(n_0 g_0 + n_1 g_1)/N$. Błąd ma długość $|1/2 - n_0/N| \cdot \|g_0 - g_1\|$. Porównajmy ten wzór, podzielony przez długość gradientu pełnej partii, z DDP dla każdego podziału 12 próbek.

# %% [markdown] lang="en"
# ## What else breaks in silence
#
# **Unequal batches.** DDP divides the sum of gradients by the number of processes, not of samples. When rank 0 has $n_0$ of $N$ samples and each rank takes the mean loss, what comes out is $(g_0+g_1)/2$ instead of $(n_0 g_0 + n_1 g_1)/N$. The length of the error is $|1/2 - n_0/N| \cdot \|g_0 - g_1\|$. Let us compare this formula, divided by the length of the full batch's gradient, with DDP for every split of 12 samples.

# %%
total = 12
splits = range(1, total)


def gradient_of(model: nn.Module, loss: Tensor) -> Tensor:
    """Run backward and return all gradients of the model as one vector."""
    model.zero_grad()
    loss.backward()
    return torch.cat([gradient(p).flatten() for p in model.parameters()])


def by_split(rank: int) -> list[tuple[Tensor, Tensor]]:
    ddp = DDP(make_model(seed=0))
    gradients = []
    for first in splits:
        mine = slice(0, first) if rank == 0 else slice(first, total)
        x, y = inputs[mine], targets[mine]
        naive = gradient_of(ddp, F.mse_loss(ddp(x), y))
        squares = F.mse_loss(ddp(x), y, reduction="sum")
        fixed = gradient_of(ddp, squares * dist.get_world_size() / total)
        gradients.append((naive, fixed))
    return gradients


# %% fold=true
def mean_gradient(first: int, last: int) -> Tensor:
    model = make_model(seed=0)
    output = model(inputs[first:last])
    return gradient_of(model, F.mse_loss(output, targets[first:last]))


def apart(rank: int) -> list[float]:
    """Return the distance between the gradients of the two parts, for each split."""
    return [
        float((mean_gradient(0, n) - mean_gradient(n, total)).norm()) for n in splits
    ]


full = launch(lambda _: mean_gradient(0, total), world_size=1)[0]
distances = launch(apart, world_size=1)[0]
formula = [
    abs(0.5 - n / total) * distance / float(full.norm())
    for n, distance in zip(splits, distances, strict=True)
]
pairs = launch(by_split)[0]
naive_error = [((naive - full).norm() / full.norm()).item() for naive, _ in pairs]
fixed_error = [((fixed - full).norm() / full.norm()).item() for _, fixed in pairs]
ten_two_error = naive_error[9]
even_error = naive_error[5]
print(
    say(
        pl=f"10 + 2: {ten_two_error:.3f}, 6 + 6: {even_error:.1e}, "
        f"po naprawie najwyżej {max(fixed_error):.1e}",
        en=f"10 + 2: {ten_two_error:.3f}, 6 + 6: {even_error:.1e}, "
        f"after the fix, at most {max(fixed_error):.1e}",
    )
)
assert ten_two_error > 0.2 and even_error < 1e-5 and max(fixed_error) < 1e-5
assert min(error for n, error in zip(splits, naive_error, strict=True) if n != 6) > 0.01
torch.testing.assert_close(
    torch.tensor(naive_error), torch.tensor(formula), rtol=1e-3, atol=1e-5
)

fig, ax = plt.subplots(figsize=(7.2, 2.8))
share = [n / total for n in splits]
ax.plot(share, formula, color=GRAY, linewidth=5, alpha=0.5)
ax.plot(share, naive_error, "o", color=RED)
ax.plot(share, fixed_error, "s-", color=GREEN)
ax.text(share[9], naive_error[9], "local mean loss  ", color=RED, ha="right")
ax.text(share[1], naive_error[1] + 0.15, "formula", color=GRAY, ha="center")
ax.text(share[-1], 0.15, "sum · world / N", color=GREEN, ha="right", va="bottom")
ax.set(xlabel="share of samples on rank 0", ylim=(-0.02, None))
ax.set_title("relative error of the gradient against the full batch")
show_figure(
    fig,
    alt_pl="Błąd względny gradientu w zależności od udziału próbek na randze 0. Dla "
    "lokalnej średniej jest zerem tylko przy równym podziale i leży na wzorze; dla "
    "sumy dzielonej przez liczbę wszystkich próbek jest zerem wszędzie.",
    alt_en="Relative error of the gradient by share of samples on rank 0. For the local "
    "mean it is zero only at an equal split and lies on the formula; for the sum "
    "divided by the count of all samples it is zero everywhere.",
    pl={
        "local mean loss  ": "lokalna średnia straty  ",
        "formula": "wzór",
        "share of samples on rank 0": "udział próbek na randze 0",
        "relative error of the gradient against the full batch": "błąd względny "
        "gradientu wobec pełnej partii",
    },
    same=("sum · world / N",),
)

# %% [markdown] lang="pl"
# Punkty lokalnej średniej leżą na szarym wzorze i dotykają zera tylko przy równym podziale; przy 10 i 2 próbkach błąd to {{ ten_two_error:.0%}}. Zielona linia to naprawa: suma strat razy liczba procesów (`world`), podzielona przez liczbę $N$ próbek na wszystkich rangach.
#
# **Sampler.** Klasa `DistributedSampler` dopełnia dane tak, by każda ranga miała ich tyle samo. Ziarno tasowania zależy od numeru epoki, który trzeba przekazać metodzie `set_epoch`. Niech metryką próbki będzie jej numer.

# %% [markdown] lang="en"
# The points of the local mean lie on the grey formula and touch zero only at an equal split; with 10 and 2 samples the error is {{ ten_two_error:.0%}}. The green line is the fix: the sum of losses times the number of processes (`world`), divided by the count $N$ of samples on all ranks.
#
# **The sampler.** The class `DistributedSampler` pads the data so that every rank has the same amount. It seeds its shuffle with the epoch number, which you must pass to `set_epoch`. Let the metric of a sample be its number.

# %%
data = TensorDataset(torch.arange(10))
padded: list[list[Any]] = [
    list(DistributedSampler(data, num_replicas=4, rank=rank, shuffle=False))
    for rank in range(4)
]
seen = sorted(itertools.chain.from_iterable(padded))
padded_mean = sum(seen) / len(seen)
true_mean = sum(range(10)) / 10
print(padded, f"{padded_mean:.2f}")
assert seen == sorted([*range(10), 0, 1])
assert abs(padded_mean - true_mean) > 0.5

sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=2, rank=0)
forgotten = [list(sampler) for epoch in range(3)]
reminded = []
for epoch in range(3):
    sampler.set_epoch(epoch)
    reminded.append(list(sampler))
print(forgotten, reminded, sep="\n")
assert forgotten[0] == forgotten[1] == forgotten[2]
assert len({tuple(order) for order in reminded}) == 3

# %% [markdown] lang="pl"
# Przy czterech rangach próbki 0 i 1 liczą się podwójnie, więc średnia metryki jest obciążona: tu {{ padded_mean:.2f}} zamiast {{ true_mean:.2f}}. Bez wywołań `set_epoch` wszystkie epoki mają tę samą kolejność.
#
# ## Co psuje się głośno, ale późno
#
# **Nieużyty parametr.** Nie wpływa na stratę, więc jego kubełek nigdy się nie zapełni, ale wyjątek zgłasza dopiero następna iteracja. W pierwszej zostają gradienty lokalne i takich użyłby `optimizer.step()`.
#
# **Jedna partia więcej.** Ranga 0 zleca all-reduce, do którego nikt nie dołączy. Gdy proces rangi 1 już się zakończył, ranga 0 od razu dostaje wyjątek.

# %% [markdown] lang="en"
# With four ranks samples 0 and 1 count twice, so the mean of the metric is biased: here {{ padded_mean:.2f}} instead of {{ true_mean:.2f}}. Without calls of `set_epoch` all epochs use the same order.
#
# ## What breaks loudly, but late
#
# **An unused parameter.** It does not affect the loss, so its bucket never fills, but only the next iteration raises. The first iteration leaves local gradients, and `optimizer.step()` would use them.
#
# **One extra batch.** Rank 0 starts an all-reduce that nobody joins. If the process of rank 1 has ended already, rank 0 gets an exception at once.


# %% fold=true
class Forgetful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.used(x)
        return output


def complaints(find_unused_parameters: bool) -> list[tuple[float, str]]:
    def body(rank: int) -> tuple[float, str]:
        ddp = DDP(Forgetful(), find_unused_parameters=find_unused_parameters)
        x = torch.full((1, 2), rank + 1.0)  # the gradient of each weight, locally
        ddp(x).sum().backward()
        first = gradient(ddp.module.used.weight)[0, 0].item()
        try:
            ddp(x).sum().backward()
        except RuntimeError as error:
            return first, str(error)
        return first, ""

    return launch(body)


unused = complaints(find_unused_parameters=False)
print([first for first, _ in unused], unused[0][1].split(".")[0])
assert [first for first, _ in unused] == [1.0, 2.0]
assert "Expected to have finished reduction in the prior iteration" in unused[0][1]
assert complaints(find_unused_parameters=True) == [(1.5, ""), (1.5, "")]


def uneven_epoch(ddp: DDP, rank: int) -> list[float]:
    found = []
    for _ in range(3 - rank):
        ddp.zero_grad()
        ddp(torch.ones(1, 2)).sum().backward()
        found.append(gradient(ddp.module.weight)[0, 0].item())
    return found


def joined(rank: int) -> list[float]:
    ddp = DDP(nn.Linear(2, 2))
    with ddp.join():
        return uneven_epoch(ddp, rank)


try:
    launch(lambda rank: uneven_epoch(DDP(nn.Linear(2, 2)), rank))
except RuntimeError as broken:
    failed = str(broken)
told = next(s for s in failed.split(". ") if "remote worker" in s)
# It goes on with "crashing" or "hanging", depending on what rank 0 notices first.
print(told.partition("remote worker")[0] + "remote worker ...")
assert "rank 0 failed" in failed and "remote worker" in failed

extra = launch(joined)
print(extra)
assert extra == [[1.0, 1.0, 0.5], [1.0, 1.0]]
limit_minutes = default_pg_timeout.total_seconds() / 60
assert limit_minutes == 30

# %% [markdown] lang="pl"
# Zwykle jednak proces rangi 1 żyje dalej: liczy walidację albo zapisuje model. Tu zastępuje to `barrier`, czyli czekanie na pozostałe rangi.

# %% [markdown] lang="en"
# Usually, though, the process of rank 1 lives on: it validates, or saves the model. Here `barrier`, waiting for the other ranks, stands for that.


# %% raises="TimeoutError: still running after 1.5 s: rank 0, 1"
def hang(rank: int) -> None:
    uneven_epoch(DDP(nn.Linear(2, 2)), rank)
    dist.barrier()  # rank 1 is here already, rank 0 never will be


launch(hang, timeout=1.5)

# %% [markdown] lang="pl"
# Czekanie przerwał limit funkcji `launch`. W treningu z gloo, póki druga ranga żyje, zrobi to dopiero limit grupy procesów, domyślnie po {{ limit_minutes:.0f}} minutach.
#
# Ustawienie `find_unused_parameters=True` od razu uznaje nieużyte parametry za gotowe. Menedżer kontekstu `ddp.join` wykonuje brakujące redukcje za rangę, która skończyła. Domyślnie dzieli jednak dalej przez początkową liczbę procesów, więc gradient dodatkowej partii jest o połowę mniejszy: `0.5`.
#
# ## Kontrola do wklejenia
#
# Wywołuj ją na każdej randze. Wagi wystarczy sprawdzać np. co tysiąc kroków, bo różnica sama nie znika. Liczbę próbek podawaj, jeśli strata jest lokalną średnią, i to także w ostatnim kroku epoki: tam partia bywa krótsza.

# %% [markdown] lang="en"
# The waiting was cut short by the limit of `launch`. In training with gloo, as long as the other rank stays alive, only the limit of the process group does that, by default after {{ limit_minutes:.0f}} minutes.
#
# The setting `find_unused_parameters=True` marks unused parameters as ready at once. The context manager `ddp.join` runs the missing reductions for a rank that has finished. By default, though, it goes on dividing by the initial number of processes, so the gradient of the extra batch is half as large: `0.5`.
#
# ## A guard to paste
#
# Call it on every rank. For weights, once in, say, a thousand steps is enough, because a difference does not go away. Pass the count of samples if the loss is a local mean, and do so in the last step of an epoch too: the batch there may be shorter.


# %%
def check_replicas(module: nn.Module, samples: int | None = None) -> None:
    """Raise on every rank if ranks differ in parameters or in samples per batch."""
    mine = {"samples": str(samples)}
    for name, parameter in module.named_parameters():
        raw = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
        mine[name] = hashlib.sha256(raw.numpy().tobytes()).hexdigest()
    everyone = [mine] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    for rank, theirs in enumerate(everyone):
        wrong = [name for name in mine if theirs[name] != everyone[0][name]]
        if wrong:
            raise RuntimeError(f"rank {rank} differs from rank 0 in {wrong[0]}")


# %% fold=true
def verdict_of_guard(
    forward: Forward, nudge: float = 0.0, fewer: int = 0, count: bool = True
) -> str:
    def body(rank: int) -> str:
        ddp = DDP(make_model(seed=0))
        with torch.no_grad():
            ddp.module[2].bias += nudge * rank
        x, y = (t[rank :: config.ranks][fewer * rank :] for t in (inputs, targets))
        sgd_path(ddp, lambda x: forward(ddp, x), x, y)
        try:
            check_replicas(ddp.module, samples=len(x) if count else None)
        except RuntimeError as error:
            return str(error)
        return "ok"

    verdict_0, verdict_1 = launch(body)
    assert verdict_0 == verdict_1
    return verdict_0


guarded = {
    "ddp(x)": verdict_of_guard(lambda ddp, x: ddp(x)),
    "ddp.module(x)": verdict_of_guard(lambda ddp, x: ddp.module(x)),
    "bias + 1e-6": verdict_of_guard(lambda ddp, x: ddp(x), nudge=1e-6),
    "len(x) - 1": verdict_of_guard(lambda ddp, x: ddp(x), fewer=1),
    "samples=None": verdict_of_guard(lambda ddp, x: ddp(x), fewer=1, count=False),
}
for name, verdict in guarded.items():
    print(f"{name:14} {verdict}")
assert list(guarded.values()) == [
    "ok",
    "rank 1 differs from rank 0 in 0.weight",
    "rank 1 differs from rank 0 in 2.bias",
    "rank 1 differs from rank 0 in samples",
    "ok",
]

# %% [markdown] lang="pl"
# Kontrola wykrywa rozjechane wagi, choćby o `1e-6`, i nierówne partie. Nie zobaczy buforów, dopełnienia ani zapomnianego `set_epoch`.
#
# > [!NOTE]
# > Na GPU (tu niezmierzone): backend `nccl` pod `torchrun`, jeden proces na kartę, `device_ids=[local_rank]`. Metoda `backward` wraca, gdy praca jest w kolejce; all-reduce działa w osobnym strumieniu i nakłada się na jądra przejścia wstecz. Statystyki wspólne dla rang liczy `nn.SyncBatchNorm`. Kubełki, uzbrajanie i ciche awarie są te same.
#
# ## Pasy
#
# Teraz umiesz:
#
# - powiedzieć, kiedy gradient DDP jest gradientem pełnej partii, i poprawić stratę, gdy nim nie jest,
# - policzyć redukcje w swojej pętli i wskazać, co je uzbraja,
# - odczytać z osi czasu, który kubełek rusza i na co czeka,
# - wykryć repliki, które się rozjechały.
#
# Poprzednia lekcja to 42 (składanie BatchNorm i kwantyzacja), następna to 44 (FSDP2). Jak powstaje gradient, który DDP wysyła, pokazuje [lekcja o własnej funkcji autogradu](../2_autograd/10_custom_autograd_function.py). Dokumentacja: [DDP](https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html), [opis budowy DDP](https://docs.pytorch.org/docs/stable/notes/ddp.html), [`torchrun`](https://docs.pytorch.org/docs/stable/elastic/run.html). Źródła: [`reducer.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/distributed/c10d/reducer.cpp), [`distributed.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/parallel/distributed.py). Pułapka z życia: [trening RL bez redukcji](https://github.com/jingyaogong/minimind/issues/853).

# %% [markdown] lang="en"
# The guard catches weights that have drifted apart, by as little as `1e-6`, and unequal batches. Buffers, padding and a forgotten `set_epoch` it cannot see.
#
# > [!NOTE]
# > On a GPU (not measured here): the backend `nccl` under `torchrun`, one process per card, `device_ids=[local_rank]`. The method `backward` returns once the work is queued; all-reduce runs on a stream of its own and overlaps with the kernels of the backward pass. Statistics shared across ranks are computed by `nn.SyncBatchNorm`. Buckets, arming and the silent failures are the same.
#
# ## Belts
#
# Now you can:
#
# - say when DDP's gradient is that of the full batch, and correct the loss when it is not,
# - count the reductions in your loop and point at what arms them,
# - read off a timeline which bucket leaves and what it waits for,
# - find replicas that have drifted apart.
#
# The previous lesson is 42 (folding BatchNorm, quantisation), the next is 44 (FSDP2). For how the gradient that DDP sends is computed, see [the lesson on a custom autograd function](../2_autograd/10_custom_autograd_function.py). Documentation: [DDP](https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html), [the note on DDP's design](https://docs.pytorch.org/docs/stable/notes/ddp.html), [`torchrun`](https://docs.pytorch.org/docs/stable/elastic/run.html). Source: [`reducer.cpp`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/distributed/c10d/reducer.cpp), [`distributed.py`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/parallel/distributed.py). The trap in the wild: [RL training without reduction](https://github.com/jingyaogong/minimind/issues/853).

# %% [markdown] lang="pl" exercise="loss-factor" role="prompt" belt="white" minutes=5
# ### Mnożnik straty
#
# Każda ranga liczy stratę na równej części partii, z redukcją `"mean"` albo `"sum"`. Zwróć liczbę, przez którą trzeba pomnożyć lokalną stratę, żeby DDP dało gradient pełnej partii z tą samą redukcją. Zanim uruchomisz, zapisz swoją odpowiedź dla dwóch i trzech procesów.

# %% [markdown] lang="en" exercise="loss-factor" role="prompt" belt="white" minutes=5
# ### The factor of the loss
#
# Every rank computes the loss on an equal share of the batch, with the reduction `"mean"` or `"sum"`. Return the number by which to multiply the local loss, so that DDP gives the gradient of the full batch with the same reduction. Before you run it, write down your answer for two and for three processes.


# %% exercise="loss-factor" role="starter"
def loss_factor(reduction: str, world_size: int) -> float:
    return 0.0  # your code


# %% exercise="loss-factor" role="check"
def gradient_ratio(reduction: str, world_size: int) -> float:
    """Return DDP's gradient along the full batch's, as a multiple of it."""
    x, y = inputs[:60], targets[:60]

    def body(rank: int) -> tuple[Tensor, Tensor]:
        model, ddp = make_model(seed=0), DDP(make_model(seed=0))
        reference = gradient_of(model, F.mse_loss(model(x), y, reduction=reduction))
        output, wanted = ddp(x[rank::world_size]), y[rank::world_size]
        loss = F.mse_loss(output, wanted, reduction=reduction)
        factor = loss_factor(reduction, world_size)
        return gradient_of(ddp, factor * loss), reference

    averaged, reference = launch(body, world_size)[0]
    return float(averaged @ reference / (reference @ reference))


for reduction, world_size in itertools.product(("mean", "sum"), (2, 3, 4)):
    ratio = gradient_ratio(reduction, world_size)
    assert abs(ratio - 1) < 1e-3, say(
        pl=f"{reduction}, liczba procesów {world_size}: gradient DDP to {ratio:.3f} "
        "gradientu pełnej partii. Przez co dzieli DDP?",
        en=f"{reduction}, {world_size} processes: DDP's gradient is {ratio:.3f} "
        "of the full batch's. What does DDP divide by?",
    )

# %% [markdown] lang="pl" exercise="loss-factor" role="hint"
# Pamiętaj, przez co dzieli DDP. Co dzieje się ze średnią równych części, a co z sumą?

# %% [markdown] lang="en" exercise="loss-factor" role="hint"
# Remember what DDP divides by. What happens to a mean of equal parts, and what to a sum?


# %% exercise="loss-factor" role="wrong" says="sum, 2 processes: DDP's gradient is 0.500"
def loss_factor(reduction: str, world_size: int) -> float:
    return 1.0  # forgets that DDP's mean divides a sum by world_size


# %% exercise="loss-factor" role="wrong" says="mean, 2 processes: DDP's gradient is 2.000"
def loss_factor(reduction: str, world_size: int) -> float:
    return float(world_size)  # undoes an average that was wanted


# %% exercise="loss-factor" role="wrong" says="sum, 2 processes: DDP's gradient is 0.250"
def loss_factor(reduction: str, world_size: int) -> float:
    return 1.0 if reduction == "mean" else 1 / world_size  # divides a second time


# %% exercise="loss-factor" role="solution"
def loss_factor(reduction: str, world_size: int) -> float:
    # The mean over ranks of means over equal parts is the mean of the whole.
    # The mean over ranks of sums is the sum of the whole, divided by world_size.
    return float(world_size) if reduction == "sum" else 1.0


# %% [markdown] lang="pl" exercise="accumulate-unequal" role="prompt" belt="brown" minutes=20
# ### Akumulacja na nierównych mikropartiach
#
# Napisz `accumulate`. Każda ranga dostaje tyle samo mikropartii, ale o różnej liczbie próbek, a każda mikropartia ma przejść przez model osobno. Po powrocie pole `grad` każdego parametru ma zawierać gradient błędu średniokwadratowego po wszystkich próbkach wszystkich rang, a DDP ma wykonać dokładnie jeden all-reduce gradientów. Własne `dist.all_reduce` na liczniku próbek jest dozwolone.

# %% [markdown] lang="en" exercise="accumulate-unequal" role="prompt" belt="brown" minutes=20
# ### Accumulation over unequal micro-batches
#
# Write `accumulate`. Every rank gets the same number of micro-batches, but of different sizes, and each micro-batch has to pass through the model on its own. On return the field `grad` of every parameter must hold the gradient of the mean squared error over all samples of all ranks, and DDP must have run exactly one all-reduce of gradients. Your own `dist.all_reduce` of the count of samples is allowed.

# %% exercise="accumulate-unequal" role="starter"
Batch = tuple[Tensor, Tensor]


def accumulate(ddp: DDP, batches: Sequence[Batch]) -> None:
    for x, y in batches:  # your code
        F.mse_loss(ddp(x), y).backward()


# %% exercise="accumulate-unequal" role="check"
def accumulated(sizes: Sequence[Sequence[int]]) -> tuple[int, int, float]:
    """Return reductions by DDP and by others, and the relative error."""
    used = sum(itertools.chain.from_iterable(sizes))
    rows = torch.arange(used).split([n for own in sizes for n in own])
    batches = [(inputs[row], targets[row]) for row in rows]
    each = len(sizes[0])

    def body(rank: int) -> tuple[list[int], int, int, float]:
        model = make_model(seed=0)
        reference = gradient_of(model, F.mse_loss(model(inputs[:used]), targets[:used]))
        ddp = DDP(make_model(seed=0))
        by_ddp: list[int] = []
        messages: list[int] = []
        seen: list[int] = []
        ddp.register_comm_hook(by_ddp, counted_mean)
        ddp.module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
        all_reduce = dist.all_reduce

        def recorded(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            messages.append(tensor.numel())
            return all_reduce(tensor, *args, **kwargs)

        with patch.object(dist, "all_reduce", recorded):
            accumulate(ddp, batches[rank * each : (rank + 1) * each])
        got = torch.cat([gradient(p).flatten() for p in ddp.parameters()])
        error = float((got - reference).norm() / reference.norm())
        other = sum(numel > 2 for numel in messages) - len(by_ddp)
        return seen, len(by_ddp), other, error

    outcomes = launch(body)
    for own, outcome in zip(sizes, outcomes, strict=True):
        assert outcome[0] == list(own), say(
            pl=f"{own}: przez model przeszły partie {outcome[0]}",
            en=f"{own}: batches {outcome[0]} have passed through the model",
        )
    return max((outcome[1:] for outcome in outcomes), key=lambda outcome: outcome[2])


for sizes in (((30, 2, 9), (1, 20, 2)), ((16, 4), (16, 4)), ((1, 30), (3, 10))):
    count, elsewhere, error = accumulated(sizes)
    assert (count, elsewhere) == (1, 0), say(
        pl=f"{sizes}: all-reduce gradientów w DDP: {count}, poza nim: {elsewhere}; "
        "ma być 1 i 0",
        en=f"{sizes}: all-reduces of gradients by DDP: {count}, by others: {elsewhere}; "
        "should be 1 and 0",
    )
    assert error < 1e-4, say(
        pl=f"{sizes}: gradient różni się od wzorca o {error:.0%}. "
        "Przez co dzielisz, a przez co dzieli jeszcze DDP?",
        en=f"{sizes}: the gradient differs from the reference by {error:.0%}. "
        "By what do you divide, and by what does DDP divide again?",
    )

# %% [markdown] lang="pl" exercise="accumulate-unequal" role="hint"
# Co uzbraja hooki: `forward` czy `backward`? Żadna mikropartia poza ostatnią nie powinna ich uzbroić.

# %% [markdown] lang="en" exercise="accumulate-unequal" role="hint"
# What arms the hooks: `forward` or `backward`? No micro-batch but the last should arm them.

# %% [markdown] lang="pl" exercise="accumulate-unequal" role="hint"
# Wagą każdej próbki jest $1/N$, gdzie $N$ to liczba próbek na wszystkich rangach razem. Żadna ranga nie zna $N$, dopóki rangi nie zsumują swoich liczników. Pamiętaj, przez co dzieli DDP.

# %% [markdown] lang="en" exercise="accumulate-unequal" role="hint"
# The weight of each sample is $1/N$, where $N$ counts all samples on all ranks. No rank knows $N$ until the ranks add up their counts. Remember what DDP divides by.


# %% exercise="accumulate-unequal" role="wrong" says="all-reduces of gradients by DDP: 3"
def accumulate(ddp: DDP, batches: Sequence[Batch]) -> None:
    # no_sync around backward alone: forward has armed the hooks already.
    count = torch.tensor(float(sum(len(x) for x, _ in batches)))
    dist.all_reduce(count)
    for x, y in batches[:-1]:
        loss = F.mse_loss(ddp(x), y, reduction="sum")
        with ddp.no_sync():
            (loss * dist.get_world_size() / count).backward()
    x, y = batches[-1]
    loss = F.mse_loss(ddp(x), y, reduction="sum")
    (loss * dist.get_world_size() / count).backward()


# %% exercise="accumulate-unequal" role="wrong" says="the gradient differs from the reference by"
def accumulate(ddp: DDP, batches: Sequence[Batch]) -> None:
    # The mean of means: a sample in a small batch weighs more.
    with ddp.no_sync():
        for x, y in batches[:-1]:
            (F.mse_loss(ddp(x), y) / len(batches)).backward()
    x, y = batches[-1]
    (F.mse_loss(ddp(x), y) / len(batches)).backward()


# %% exercise="accumulate-unequal" role="wrong" says="the gradient differs from the reference by 50%"
def accumulate(ddp: DDP, batches: Sequence[Batch]) -> None:
    # The right count, but DDP divides by the number of processes once more.
    count = torch.tensor(float(sum(len(x) for x, _ in batches)))
    dist.all_reduce(count)
    with ddp.no_sync():
        for x, y in batches[:-1]:
            (F.mse_loss(ddp(x), y, reduction="sum") / count).backward()
    x, y = batches[-1]
    (F.mse_loss(ddp(x), y, reduction="sum") / count).backward()


# %% exercise="accumulate-unequal" role="solution"
Batch = tuple[Tensor, Tensor]


def accumulate(ddp: DDP, batches: Sequence[Batch]) -> None:
    count = torch.tensor(float(sum(len(x) for x, _ in batches)))
    dist.all_reduce(count)  # samples on all ranks
    factor = dist.get_world_size() / count  # DDP will divide by the world size

    def step(x: Tensor, y: Tensor) -> None:
        (factor * F.mse_loss(ddp(x), y, reduction="sum")).backward()

    with ddp.no_sync():  # around forward, which arms the hooks
        for x, y in batches[:-1]:
            step(x, y)
    step(*batches[-1])  # sends everything that has been accumulated


# %% [markdown] lang="pl" exercise="weighted-hook" role="prompt" belt="black" minutes=30
# ### Hook komunikacyjny, który waży próbki
#
# Cudzej pętli nie wolno ci zmienić: na każdej randze liczy zwykłą średnią straty, a partie są nierówne i co krok inne. Napisz hook komunikacyjny, który dostaje liczbę próbek w `state.samples` i zwraca `Future` z dokładnym gradientem pełnej partii. Nie czekaj w nim na sieć. Sprawdzamy to: ranga 1 rusza dopiero wtedy, gdy ranga 0 policzy ostatni gradient.

# %% [markdown] lang="en" exercise="weighted-hook" role="prompt" belt="black" minutes=30
# ### A communication hook that weighs samples
#
# You cannot change someone else's loop: on every rank it takes the plain mean of the loss, and the batches are unequal and different in each step. Write a communication hook that gets the count of samples in `state.samples` and returns a `Future` with the exact gradient of the full batch. Do not wait for the network inside. We check this: rank 1 starts only when rank 0 has computed its last gradient.


# %% exercise="weighted-hook" role="starter"
@dataclass
class LocalBatch:
    samples: int


def weighted_hook(state: LocalBatch, bucket: GradBucket) -> Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)  # your code
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


# %% exercise="weighted-hook" role="check"
def hook_errors(splits_of_steps: Sequence[Sequence[int]]) -> list[tuple[float, bool]]:
    """Return the relative error of the gradient, and if rank 0 waited, in each step."""
    fork = multiprocessing.get_context("fork")
    last_gradient = [fork.Event() for _ in splits_of_steps]  # of rank 0 exists

    def wide() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 600), nn.Tanh(), nn.Linear(600, 600))

    def body(rank: int) -> list[tuple[float, bool]]:
        model, alone = wide(), wide()
        current = [last_gradient[0]]
        first = next(model.parameters())
        first.register_post_accumulate_grad_hook(lambda _: current[0].set())
        ddp, state = DDP(model), LocalBatch(samples=0)
        ddp.register_comm_hook(state, weighted_hook)
        found, waited = [], False
        for step, counts in enumerate(splits_of_steps):
            x = inputs[8 * step : 8 * step + sum(counts)]
            mine = x.split(list(counts))[rank]
            state.samples = len(mine)
            current[0] = last_gradient[step]
            loss = ddp(mine).square().mean()
            if rank == 1 and not waited:
                waited = not last_gradient[step].wait(5)
            got = gradient_of(ddp, loss)
            want = gradient_of(alone, alone(x).square().mean())
            found.append((float((got - want).norm() / want.norm()), waited))
        return found

    return [(max(a[0], b[0]), a[1] or b[1]) for a, b in zip(*launch(body), strict=True)]


outcomes = hook_errors([(8, 8), (15, 1), (5, 15), (1, 11)])
for step, (error, _) in enumerate(outcomes):
    assert error < 1e-4, say(
        pl=f"krok {step}: gradient różni się od wzorca o {error:.0%}. "
        "Porównaj swój dzielnik z Σ n_r",
        en=f"step {step}: the gradient differs from the reference by {error:.0%}. "
        "Compare your divisor with Σ n_r",
    )
assert not any(waited for _, waited in outcomes), say(
    pl="hook czeka na sieć: ranga 0 nie policzyła gradientów, póki nie ruszyła ranga 1",
    en="the hook waits for the network: rank 0 did not compute its gradients until "
    "rank 1 had started",
)

# %% [markdown] lang="pl" exercise="weighted-hook" role="hint"
# Szukasz $\sum_r n_r g_r / \sum_r n_r$. Licznik i mianownik to dwie sumy po rangach. Czy zmieszczą się w jednej wiadomości?

# %% [markdown] lang="en" exercise="weighted-hook" role="hint"
# You want $\sum_r n_r g_r / \sum_r n_r$. Numerator and denominator are two sums over ranks. Can they travel in one message?

# %% [markdown] lang="pl" exercise="weighted-hook" role="hint"
# Doklej liczbę próbek na koniec kubełka funkcją `torch.cat`, a w `then` podziel wszystko poza ostatnim elementem przez ostatni.

# %% [markdown] lang="en" exercise="weighted-hook" role="hint"
# Append the count of samples to the bucket with `torch.cat`, and in `then` divide all but the last element by the last.


# %% exercise="weighted-hook" role="wrong" says="step 1: the gradient differs"
def weighted_hook(state: LocalBatch, bucket: GradBucket) -> Future[Tensor]:
    # The mean over ranks, as DDP itself does: right for equal batches only.
    mean = bucket.buffer() / dist.get_world_size()
    work = dist.all_reduce(mean, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


# %% exercise="weighted-hook" role="wrong" says="step 0: the gradient differs from the reference by 700%"
def weighted_hook(state: LocalBatch, bucket: GradBucket) -> Future[Tensor]:
    # Weighs the ranks, but divides by their number instead of by the samples.
    mean = bucket.buffer() * state.samples / dist.get_world_size()
    work = dist.all_reduce(mean, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


# %% exercise="weighted-hook" role="wrong" says="step 1: the gradient differs"
def weighted_hook(state: LocalBatch, bucket: GradBucket) -> Future[Tensor]:
    # Divides by the local count, which is another number on each rank.
    total_gradient = bucket.buffer() * state.samples
    work = dist.all_reduce(total_gradient, async_op=True)
    assert work is not None
    own = state.samples * dist.get_world_size()
    return work.get_future().then(lambda future: future.value()[0] / own)


# %% exercise="weighted-hook" role="wrong" says="the hook waits for the network"
def weighted_hook(state: LocalBatch, bucket: GradBucket) -> Future[Tensor]:
    # The right gradient, but backward stands still during each transfer.
    weight = bucket.buffer().new_tensor([1.0])
    packed = torch.cat([bucket.buffer(), weight]) * state.samples
    dist.all_reduce(packed)
    ready: Future[Tensor] = Future()
    ready.set_result(packed[:-1] / packed[-1])
    return ready


# %% exercise="weighted-hook" role="solution"
@dataclass
class LocalBatch:
    samples: int


def weighted_hook(state: LocalBatch, bucket: GradBucket) -> Future[Tensor]:
    # One message carries the weighted gradients and, as its last element, the weight.
    gradients = bucket.buffer()
    weight = gradients.new_tensor([1.0])
    packed = torch.cat([gradients, weight]) * state.samples
    work = dist.all_reduce(packed, async_op=True)
    assert work is not None

    def divide(future: Future[list[Tensor]]) -> Tensor:
        total_packed = future.value()[0]
        return total_packed[:-1] / total_packed[-1]

    return work.get_future().then(divide)
