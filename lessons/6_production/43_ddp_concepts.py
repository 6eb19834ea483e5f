# %% [markdown] lang="pl"
# # DDP na żywo: kubełki, all-reduce i rozjeżdżające się repliki
#
# Model w opakowaniu `DistributedDataParallel` (DDP) trenuje w dwóch procesach. Strata maleje w obu, nic nie zgłasza błędu. Czy to wystarczy, żeby dwie repliki były jednym modelem? Podsłuchamy, co DDP wysyła i kiedy, a potem sprawdzimy, czego nigdy nie naprawia.
#
# ## Dwa procesy, dwie malejące straty
#
# Funkcja `launch` rozwidla (fork) bieżący proces na dwa, łączy je w grupę z backendem gloo i zwraca to, co zwróciła każda ranga procesu (rank). Karta graficzna nie jest potrzebna. Proces o randze 0 dostaje parzyste wiersze danych, proces o randze 1 nieparzyste.

# %% [markdown] lang="en"
# # DDP live: buckets, all-reduce and drifting replicas
#
# A model wrapped in `DistributedDataParallel` (DDP) trains in two processes. The loss falls in both, nothing raises. Is that enough for the two replicas to be one model? We will listen to what DDP sends and when, and then check what it never repairs.
#
# ## Two processes, two falling losses
#
# The function `launch` forks the current process into two, joins them in a gloo process group and returns what each rank returned. No GPU is needed. Rank 0 gets the even rows of the data, rank 1 the odd ones.

# %%
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DistributedSampler, TensorDataset

from snippets.bilingual import say
from snippets.distributed import launch, torchrun
from snippets.figures import BLUE, GRAY, GREEN, PALETTE, RED, show_figure


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


assert dist.is_gloo_available()


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
# Każda ranga zaczęła od innego ziarna, widziała inną połowę danych i {{ steps }} razy wywołała `optimizer.step()`. Za chwilę porównamy wagi obu replik po treningu. Najpierw wybierz odpowiedź.
#
# <details>
# <summary>Czy po {{ steps }} krokach wagi obu rang są równe?</summary>
#
# - **A.** Tak. Hooki, które uśredniają gradienty, wiszą na parametrach, więc działają bez względu na to, jak policzono wynik.
# - **B.** Tak. DDP rozsyła wagi rangi 0 do pozostałych przed każdym przejściem w przód.
# - **C.** Nie. Każda ranga trenowała sama, na swojej połowie danych.
#
# </details>
#
# Następna komórka zapisuje wagi po każdym kroku w trzech programach: z poprawnym `ddp(x)`, z `ddp.module(x)` z pułapki oraz z `ddp(x)`, ale z jedną wagą rangi 1 przesuniętą o `0.01` przed treningiem.

# %% [markdown] lang="en"
# ## What will be in the weights
#
# Each rank started from its own seed, saw its own half of the data and called `optimizer.step()` {{ steps }} times. We are going to compare the weights of the two replicas after training. Choose an answer first.
#
# <details>
# <summary>After {{ steps }} steps, are the weights of the two ranks equal?</summary>
#
# - **A.** Yes. The hooks that average gradients hang on the parameters, so they work no matter how the output was computed.
# - **B.** Yes. DDP sends the weights of rank 0 to the others before each forward pass.
# - **C.** No. Each rank trained alone, on its own half of the data.
#
# </details>
#
# The next cell records the weights after every step in three programs: with the correct `ddp(x)`, with the trap's `ddp.module(x)`, and with `ddp(x)` again but one weight of rank 1 moved by `0.01` before training.

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

alone = make_model(seed=0)
whole_batch = sgd_path(alone, alone, inputs, targets)
moved = (whole_batch[-1] - whole_batch[0]).norm()
module_gap = (gaps["ddp.module(x)"][-1] / moved).item()

assert gaps["ddp(x)"].max() == 0
assert (programs["ddp(x)"][0] - whole_batch).norm(dim=1).max() < 1e-4 * moved
assert gaps["ddp.module(x)"][0] == 0
assert module_gap > 0.2
assert (gaps["ddp(x), +0.01"] - 0.01).abs().max() < 1e-5

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
    alt_pl="Odległość wag dwóch rang w kolejnych krokach. Dla ddp(x) stale zero, dla "
    "ddp.module(x) rośnie od zera, dla przesuniętej repliki stale 0,01.",
    alt_en="Distance between the weights of two ranks, step by step. For ddp(x) always "
    "zero, for ddp.module(x) it grows from zero, for the nudged replica always 0.01.",
    pl={
        "optimizer step": "krok optymalizatora",
        "distance between the weights of rank 0 and rank 1": "odległość wag rangi 0 "
        "i rangi 1",
    },
    same=tuple(gaps),
)

# %% [markdown] lang="pl"
# Zielona linia leży na zerze, a jej wagi zgadzają się z treningiem jednego procesu na całych danych. Czerwona rusza z zera i rośnie: na końcu odległość replik to {{ module_gap:.0%}} drogi, którą przeszły wagi w treningu na całych danych. Niebieska nie rośnie i nie maleje.
#
# - **A** jest prawdą w połowie: hooki wiszą na parametrach, ale śpią, dopóki nie uzbroi ich metoda `forward` samego opakowania. Wywołanie `ddp.module(x)` ją omija. Policzymy to w mechanizmie.
# - **B** obala linia niebieska: gdyby wagi były rozsyłane przed każdym krokiem, przesunięcie zniknęłoby po pierwszym. Rozsyła je tylko konstruktor, dlatego czerwona linia startuje z zera mimo różnych ziaren.
# - **C** jest odpowiedzią. Zapisany na końcu model rangi 0 zna połowę danych.
#
# DDP nie synchronizuje wag. Uśrednia gradienty i liczy na to, że równe wagi z równymi gradientami pozostaną równe.

# %% [markdown] lang="en"
# The green line lies on zero, and its weights agree with a single process trained on all the data. The red one leaves zero and grows: at the end the replicas are {{ module_gap:.0%}} as far apart as the weights travelled in training on the whole data. The blue one neither grows nor shrinks.
#
# - **A** is half true: the hooks do hang on the parameters, but they sleep until the wrapper's own `forward` arms them. A call of `ddp.module(x)` goes around it. The mechanism section counts this.
# - **B** is refuted by the blue line: if weights were sent before every step, the nudge would be gone after the first. Only the constructor sends them, which is why the red line starts at zero despite the different seeds.
# - **C** is the answer. The model that rank 0 saves at the end knows half of the data.
#
# DDP does not synchronise weights. It averages gradients, and relies on equal weights with equal gradients staying equal.

# %% [markdown] lang="pl"
# ## Gradienty jadą, zanim powstaną wszystkie
#
# Zobaczmy jedno przejście wstecz przez dziesięć warstw `Linear(512, 512)`. Hook na każdej wadze notuje chwilę, w której jej gradient jest gotowy, a hook komunikacyjny (comm hook) notuje początek i koniec każdej redukcji zbiorczej, czyli all-reduce. Gradienty jadą w kubełkach (buckets): po jednym all-reduce na kubełek, nie na tensor.

# %% [markdown] lang="en"
# ## Gradients travel before all of them exist
#
# Let us watch one backward pass through ten layers of `Linear(512, 512)`. A hook on every weight notes the moment at which its gradient is ready, and a communication hook (comm hook) notes the start and the end of each all-reduce. Gradients travel in buckets: one all-reduce for a bucket, not for a tensor.


# %% measured=true
@dataclass
class Timeline:
    ready: list[float] = field(default_factory=list)  # gradient of a weight exists
    sent: list[float] = field(default_factory=list)  # all-reduce of a bucket starts
    done: list[float] = field(default_factory=list)  # and ends
    start: float = 0.0  # backward() is called
    end: float = 0.0  # and returns


def timed_mean(log: Timeline, bucket: GradBucket) -> Future[Tensor]:
    log.sent.append(time.perf_counter())
    mean = bucket.buffer().div_(dist.get_world_size())
    work = dist.all_reduce(mean, async_op=True)
    assert work is not None

    def finish(future: Future[list[Tensor]]) -> Tensor:
        log.done.append(time.perf_counter())
        return future.value()[0]

    return work.get_future().then(finish)


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
        pl=f"gotowych gradientów, gdy rusza kubełek 0: {ready_at_first_send}/{layers}",
        en=f"gradients ready when bucket 0 leaves: {ready_at_first_send}/{layers}",
    )
)

assert (layers, buckets, ready_at_first_send) == (10, 5, 2)
for log, other in (timelines, reversed(timelines)):
    for number, sent in enumerate(log.sent):
        assert log.ready[2 * number + 1] < sent
        assert other.sent[number] < log.done[number]
    assert log.sent[0] < log.ready[-1]
    assert max(log.done) < log.end

# %% fold=true measured=true
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
    "gradientów jeden po drugim, a pod nim pięć kubełków: każdy rusza, gdy gotowe są "
    "jego dwa gradienty, i jedzie, gdy liczone są następne.",
    alt_en="Timeline of one backward pass on both ranks. The top bar is ten gradients "
    "one after another, below it five buckets: each leaves when its two gradients are "
    "ready, and travels while the next ones are being computed.",
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
# Kolor łączy gradienty z kubełkiem, którym jadą. Kubełek 0 rusza, gdy istnieją {{ ready_at_first_send }} z {{ layers }} gradientów: te z końca sieci, bo przejście wstecz liczy je pierwsze. Linia kropkowana to ostatni gradient, ciągła to powrót z `backward`. Metoda wraca dopiero po ostatnim all-reduce, dlatego po `loss.backward()` gradienty są już średnią, a `optimizer.step()` nie musi na nic czekać. Żaden pasek nie kończy się, zanim w drugim procesie zacznie się pasek o tym samym numerze: tempo dyktuje wolniejsza ranga.

# %% [markdown] lang="en"
# Colour ties gradients to the bucket in which they travel. Bucket 0 leaves when {{ ready_at_first_send }} of {{ layers }} gradients exist: those of the end of the network, because the backward pass computes them first. The dotted line is the last gradient, the solid one the return from `backward`. It returns only after the last all-reduce, so after `loss.backward()` the gradients are the average already and `optimizer.step()` has nothing to wait for. No bar ends before the bar of the same number has begun in the other process: the slower rank sets the pace.

# %% [markdown] lang="pl"
# ## Konstruktor rozsyła, forward uzbraja, hooki wysyłają
#
# Najpierw prawdziwe uruchomienie, takie jak na klastrze. Program `torchrun` startuje dwa procesy i przekazuje im rolę przez zmienne środowiskowe. Każda ranga losuje inną wagę i dostaje inne dane: gradient rangi 0 to `2.0`, rangi 1 to `4.0`.

# %% [markdown] lang="en"
# ## The constructor sends, forward arms, hooks fire
#
# First the real thing, as on a cluster. The program `torchrun` starts two processes and tells them their roles through environment variables. Each rank draws another weight and gets other data: the gradient of rank 0 is `2.0`, that of rank 1 is `4.0`.

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
    role = " ".join(
        f"{name}={os.environ[name]}"
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    )
    print(role, f"drawn={drawn:+.3f} start={start:+.3f} grad={layer.weight.grad}")


dist.init_process_group("gloo")
main()  # a function: the model is gone before the process group
dist.destroy_process_group()
"""
printed = torchrun(SCRIPT, processes=2)
print(printed, end="")

local = [torch.full((2, 1), rank + 1.0).sum().item() for rank in range(2)]
assert local == [2.0, 4.0]
words = [line.split() for line in printed.splitlines()]
assert [line[0] for line in words] == ["RANK=0", "RANK=1"]
drawn, start = ([line[i].split("=")[1] for line in words] for i in (4, 5))
assert drawn[0] != drawn[1]
assert start == [drawn[0], drawn[0]]
assert printed.count("grad=tensor([[3.]])") == 2

# %% [markdown] lang="pl"
# Obie rangi zaczynają od wagi, którą wylosowała ranga 0, i obie kończą z gradientem `3.0`: średnią, nie sumą. Skoro średnia powstaje, to kto ją zamawia? W konstruktorze klasa `Reducer` zawiesza hook na węźle `AccumulateGrad` każdego parametru. Hook działa jednak tylko wtedy, gdy uzbroiła go metoda `forward` opakowania, wołając `prepare_for_backward`. Policzmy redukcje w czterech mikropartiach, na modelu z dwoma kubełkami.

# %% [markdown] lang="en"
# Both ranks start from the weight that rank 0 drew, and both end with the gradient `3.0`: a mean, not a sum. An average is made, so who orders it? In the constructor the class `Reducer` hangs a hook on the `AccumulateGrad` node of every parameter. But the hook works only if the wrapper's `forward` has armed it by calling `prepare_for_backward`. Let us count reductions over four micro-batches, in a model with two buckets.


# %%
def counted_mean(sizes: list[int], bucket: GradBucket) -> Future[Tensor]:
    sizes.append(bucket.buffer().nbytes)
    mean = bucket.buffer().div_(dist.get_world_size())
    work = dist.all_reduce(mean, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


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


def without_accumulation(ddp: DDP, batches: list[Tensor]) -> None:
    for x in batches:
        torch.autograd.grad(ddp(x).sum(), list(ddp.parameters()))


def reductions(rank: int) -> dict[str, tuple[int, Tensor]]:
    """Return how often each program reduces, and the gradient that it leaves."""
    found = {}
    for program in (
        plain,
        quiet,
        quiet_backward_only,
        around_the_wrapper,
        without_accumulation,
    ):
        torch.manual_seed(0)
        ddp = DDP(nn.Sequential(*(nn.Linear(512, 512) for _ in range(3))))
        sizes: list[int] = []
        ddp.register_comm_hook(sizes, counted_mean)
        plain(ddp, [torch.ones(1, 512)])  # buckets take their final shape
        ddp.zero_grad()
        sizes.clear()
        program(ddp, [torch.full((1, 512), rank + 0.1 * step) for step in range(4)])
        grads = [torch.zeros(1) if p.grad is None else p.grad for p in ddp.parameters()]
        found[program.__name__] = len(sizes), torch.cat([g.flatten() for g in grads])
    return found


results = launch(reductions)[0]
for name, outcome in results.items():
    print(f"{name:21} all-reduce: {outcome[0]}")

assert [count for count, _ in results.values()] == [8, 2, 8, 0, 0]
torch.testing.assert_close(
    results["quiet"][1], results["plain"][1], rtol=1e-4, atol=1e-2
)
assert not torch.allclose(results["around_the_wrapper"][1], results["plain"][1])

# %% [markdown] lang="pl"
# Pięć wierszy mówi, co uruchamia redukcję.
#
# - `plain` wysyła dwa kubełki przy każdej mikropartii.
# - `quiet` daje ten sam gradient, a wysyła tylko przy ostatniej: menedżer `no_sync` wyłącza uzbrajanie w `forward`.
# - `quiet_backward_only` otacza nim samo `backward` i nic nie oszczędza, bo hooki są już uzbrojone.
# - `around_the_wrapper` to nasza pułapka: zero redukcji, bo nikt nie uzbroił hooków.
# - `without_accumulation` uzbraja, ale `torch.autograd.grad` omija węzły `AccumulateGrad`, na których hooki wiszą.
#
# Zostaje pytanie, które gradienty trafiają do jednego kubełka.

# %% [markdown] lang="en"
# The five rows say what starts a reduction.
#
# - `plain` sends two buckets for every micro-batch.
# - `quiet` gives the same gradient and sends only for the last one: the context manager `no_sync` switches off the arming in `forward`.
# - `quiet_backward_only` puts it around `backward` alone and saves nothing, because the hooks are armed already.
# - `around_the_wrapper` is our trap: no reduction, because nobody armed the hooks.
# - `without_accumulation` arms them, but `torch.autograd.grad` goes around the `AccumulateGrad` nodes on which the hooks hang.
#
# What remains is which gradients share a bucket.


# %%
def bucket_sizes(rank: int) -> dict[int | None, list[list[int]]]:
    """Return bytes of each bucket in two iterations, for ten layers of 512 x 512."""
    by_cap = {}
    for cap_mb in (None, 1, 4, 25):
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
assert sizes_by_cap[25][1] == [all_bytes]
assert [len(sizes) for _, sizes in sizes_by_cap.values()] == [2, 10, 3, 1]


class LastFirst(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        for layer in reversed(self):
            x = layer(x)
        return x


def first_buckets(rank: int) -> tuple[int, int]:
    """Return the limit of a bucket, and bytes of the first one in iteration 1."""
    ddp = DDP(LastFirst([nn.Linear(513, 512), nn.Linear(512, 513)]))
    sizes: list[int] = []
    ddp.register_comm_hook(sizes, counted_mean)
    for _ in range(2):
        sizes.clear()
        ddp(torch.ones(1, 512)).sum().backward()
    return ddp.bucket_bytes_cap, sizes[0]


# The first gradients to arrive are those of the layer that was registered first.
first_to_arrive = (513 * 512 + 512) * 4
assert launch(first_buckets)[0] == (25 * 2**20, first_to_arrive)

# %% [markdown] lang="pl"
# W pierwszej iteracji jest jeden kubełek na całe {{ all_bytes }} B. DDP notuje w niej kolejność, w której gradienty naprawdę nadchodzą, i według niej układa kubełki na nowo. Domyślny podział to mały pierwszy kubełek (próg 1 MB, by wysyłka ruszyła wcześnie) i reszta po 25 MB. Jawne `bucket_cap_mb=25` nie jest więc wartością domyślną: nie ma małego kubełka i w tym modelu nic nie wyjedzie przed ostatnim gradientem.
#
# Kod: [`Reducer::prepare_for_backward`, `Reducer::autograd_hook` i `Reducer::rebuild_buckets`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/distributed/c10d/reducer.cpp) oraz [`DistributedDataParallel._pre_forward` i `_BucketCapacityConfig`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/parallel/distributed.py).
#
# Została jeszcze jedna część stanu: bufory, np. średnie w `BatchNorm1d`. Niech ranga 0 widzi same dziesiątki, a ranga 1 same dwudziestki.

# %% [markdown] lang="en"
# In the first iteration there is one bucket for all {{ all_bytes }} bytes. DDP notes in it the order in which gradients really arrive, and lays out the buckets again by that order. The default is a small first bucket (a limit of 1 MB, so that sending starts early), and 25 MB for the rest. An explicit `bucket_cap_mb=25` is therefore not the default: there is no small bucket, and in this model nothing leaves before the last gradient.
#
# Source: [`Reducer::prepare_for_backward`, `Reducer::autograd_hook` and `Reducer::rebuild_buckets`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/csrc/distributed/c10d/reducer.cpp), and [`DistributedDataParallel._pre_forward` and `_BucketCapacityConfig`](https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/parallel/distributed.py).
#
# One kind of state is left: buffers, such as the means in `BatchNorm1d`. Let rank 0 see nothing but tens, and rank 1 nothing but twenties.


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
print(f"rank 0: {mean_0:.2f}, rank 1: {mean_1:.2f}")

only_tens = nn.BatchNorm1d(1)
for _ in range(3):
    only_tens(torch.full((4, 1), 10.0))
assert only_tens.running_mean is not None
twenties_mean = 20 * (1 - 0.9**3)
before_third = 10 * (1 - 0.9**2)
assert abs(mean_0 - only_tens.running_mean.item()) < 1e-5
assert abs(mean_1 - (0.9 * before_third + 0.1 * 20)) < 1e-5
assert mean_1 < twenties_mean - 1

# %% [markdown] lang="pl"
# Bufory rangi 0 są rozsyłane przed każdym przejściem w przód, a potem każda ranga aktualizuje je swoimi danymi. Dlatego ranga 1 ma {{ mean_1:.2f}}, a nie {{ twenties_mean:.2f}}, jak po samych dwudziestkach. W drugą stronę nie płynie nic: {{ mean_0:.2f}} to dokładnie tyle, ile dałyby same dziesiątki. Punkt kontrolny zapisany z rangi 0 normalizuje tak, jakby dane rangi 1 nie istniały.

# %% [markdown] lang="en"
# The buffers of rank 0 are sent out before every forward pass, and then each rank updates them with its own data. That is why rank 1 has {{ mean_1:.2f}} and not {{ twenties_mean:.2f}}, as after nothing but twenties. Nothing flows the other way: {{ mean_0:.2f}} is exactly what the tens alone would give. A checkpoint saved from rank 0 normalises as if the data of rank 1 did not exist.

# %% [markdown] lang="pl"
# ## Mini-DDP
#
# Zbudujmy to sami: rozesłanie stanu w konstruktorze, hooki na parametrach, kubełki w odwrotnej kolejności parametrów i asynchroniczny all-reduce. Kubełki wyjeżdżają zawsze w tej samej kolejności, bo gloo łączy w pary kolejne wywołania, a nie nazwy.

# %% [markdown] lang="en"
# ## A mini-DDP
#
# Let us build it ourselves: state sent in the constructor, hooks on parameters, buckets in the reverse order of the parameters, and an asynchronous all-reduce. Buckets always leave in the same order, because gloo pairs up successive calls, not names.


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
        mean = torch.cat([_gradient(p).flatten() for p in bucket])
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
                _gradient(p).copy_(part.view_as(p))


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


# %% [markdown] lang="pl"
# Wzorcem jest DDP: dwadzieścia losowych sieci o losowej głębokości i szerokości, dwie iteracje, ten sam próg kubełka. Porównujemy gradienty bit po bicie i rozmiary kubełków.

# %% [markdown] lang="en"
# The oracle is DDP: twenty random networks of random depth and width, two iterations, the same bucket limit. We compare gradients bit for bit, and the sizes of the buckets.


# %%
def random_model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    widths = [int(w) for w in torch.randint(8, 500, (int(torch.randint(3, 7, ())),))]
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain.from_iterable((m, nn.Tanh()) for m in layers))


def agree_with_ddp(rank: int) -> list[tuple[bool, bool, int]]:
    verdicts = []
    for seed in range(20):
        theirs, ours = random_model(seed), random_model(seed)
        with torch.no_grad():
            next(ours.parameters()).add_(rank)  # the constructor has to repair this
        sizes: list[int] = []
        ddp, mini = DDP(theirs, bucket_cap_mb=1), MiniDDP(ours, cap_bytes=2**20)
        ddp.register_comm_hook(sizes, counted_mean)
        for step in range(2):
            x = torch.randn(5, width_of(theirs), generator=seeded(rank + 2 * step))
            sizes.clear()
            for model in (ddp, mini):
                model.zero_grad()
                model(x).square().mean().backward()
        pairs = zip(theirs.parameters(), ours.parameters(), strict=True)
        equal = all(torch.equal(_gradient(a), _gradient(b)) for a, b in pairs)
        own_sizes = [sum(p.nbytes for p in bucket) for bucket in mini.buckets]
        verdicts.append((equal, sizes == own_sizes, len(sizes)))
    return verdicts


def width_of(model: nn.Sequential) -> int:
    return next(model.parameters()).shape[1]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


verdicts = [verdict for of_rank in launch(agree_with_ddp) for verdict in of_rank]
same_gradients = sum(equal for equal, _, _ in verdicts)
same_buckets = sum(equal for _, equal, _ in verdicts)
most_buckets = max(count for _, _, count in verdicts)
compared = len(verdicts)
print(
    say(
        pl=f"równe gradienty: {same_gradients}/{compared}, "
        f"równe kubełki: {same_buckets}/{compared}",
        en=f"equal gradients: {same_gradients}/{compared}, "
        f"equal buckets: {same_buckets}/{compared}",
    )
)
assert same_gradients == same_buckets == compared == 2 * 20
assert most_buckets > 1


def around_mini(rank: int) -> Tensor:
    mini = MiniDDP(make_model(seed=0), cap_bytes=2**20)
    mini.module(inputs[rank::2]).sum().backward()
    return torch.cat([_gradient(p).flatten() for p in mini.parameters()])


def crossed(rank: int) -> list[float]:
    pair = [torch.tensor([1.0]), torch.tensor([10.0])]
    for tensor in pair if rank == 0 else reversed(pair):
        dist.all_reduce(tensor)
    return [tensor.item() for tensor in pair]


mini_0, mini_1 = launch(around_mini)
assert not torch.allclose(mini_0, mini_1)
sums = launch(crossed)
print(sums)
assert sums == [[11.0, 11.0], [11.0, 11.0]]

# %% [markdown] lang="pl"
# Gradienty są równe w {{ same_gradients }} z {{ compared }} porównań, podziały na kubełki w {{ same_buckets }}. Nasza wersja powtarza też pułapkę: po `mini.module(x)` każda ranga ma własny gradient. Ostatni wiersz pokazuje, po co stała kolejność: gdy rangi redukują te same dwa tensory na krzyż, dostają `11` zamiast `2` i `20`, bez błędu.

# %% [markdown] lang="en"
# Gradients are equal in {{ same_gradients }} of {{ compared }} comparisons, layouts of buckets in {{ same_buckets }}. Our version repeats the trap as well: after `mini.module(x)` each rank has a gradient of its own. The last line shows what the fixed order is for: when ranks reduce the same two tensors crosswise, they get `11` instead of `2` and `20`, without an error.

# %% [markdown] lang="pl"
# ## Ile kosztuje wiadomość, a ile bajt
#
# Po co w ogóle kubełki? Prosty model kosztu: all-reduce o rozmiarze $n$ bajtów trwa $\alpha + \beta n$. Składnik $\alpha$ płacimy za każdą wiadomość, $\beta$ za każdy bajt. Zmierzmy oba na skrajnych rozmiarach i przewidźmy, ile razy dłużej jedzie 400 kB w stu wiadomościach niż w jednej.

# %% [markdown] lang="en"
# ## What a message costs, and what a byte
#
# Why have buckets at all? A simple cost model: an all-reduce of $n$ bytes takes $\alpha + \beta n$. We pay $\alpha$ for every message and $\beta$ for every byte. Let us measure both at extreme sizes, and predict how much longer 400 kB travel in a hundred messages than in one.


# %% measured=true
def seconds(numel: int, messages: int, repeats: int = 5) -> Callable[[int], float]:
    def body(rank: int) -> float:
        tensors = [torch.ones(numel) for _ in range(messages)]
        best = float("inf")
        for _ in range(repeats):
            dist.barrier()
            start = time.perf_counter()
            for tensor in tensors:
                dist.all_reduce(tensor)
            best = min(best, time.perf_counter() - start)
        return best

    return body


def measure(numel: int, messages: int) -> float:
    return max(launch(seconds(numel, messages)))


alpha = measure(1, 100) / 100
beta = (measure(4_000_000, 1) - alpha) / 16e6
predicted = 100 * (alpha + beta * 4e3) / (alpha + beta * 4e5)
measured = measure(1_000, 100) / measure(100_000, 1)
worth_kb = alpha / beta / 1e3
print(
    say(
        pl=f"100 wiadomości / 1 wiadomość: przewidziane {predicted:.0f}, "
        f"zmierzone {measured:.0f}; wiadomość kosztuje tyle, co {worth_kb:.0f} kB",
        en=f"100 messages / 1 message: predicted {predicted:.0f}, "
        f"measured {measured:.0f}; a message costs as much as {worth_kb:.0f} kB",
    )
)

assert measured > 5
assert 1 / 20 < measured / predicted < 20

# %% [markdown] lang="pl"
# Model przewiduje {{ predicted:.0f}}×, pomiar daje {{ measured:.0f}}×. Jedna wiadomość kosztuje tu tyle, co przesłanie {{ worth_kb:.0f}} kB, więc osobny all-reduce na każdy z małych tensorów zmarnowałby prawie cały czas na $\alpha$. Zbyt duży kubełek też szkodzi, bo rusza dopiero po ostatnim swoim gradiencie. Wartości zależą od łącza; sam kompromis nie.

# %% [markdown] lang="en"
# The model predicts {{ predicted:.0f}}×, the measurement gives {{ measured:.0f}}×. One message costs as much here as sending {{ worth_kb:.0f}} kB, so a separate all-reduce for each small tensor would waste almost all its time on $\alpha$. Too large a bucket does harm as well, because it leaves only after the last of its gradients. The values depend on the link; the compromise does not.

# %% [markdown] lang="pl"
# ## Co jeszcze psuje się po cichu
#
# **Nierówne partie.** DDP dzieli sumę gradientów przez liczbę procesów, a nie przez liczbę próbek. Gdy ranga 0 ma $n_0$ z $N$ próbek i liczy średnią stratę, powstaje $(g_0+g_1)/2$ zamiast $(n_0 g_0 + n_1 g_1)/N$. Błąd wynosi dokładnie $|1/2 - n_0/N| \cdot \|g_0 - g_1\|$. Porównajmy ten wzór z DDP dla każdego podziału 12 próbek.

# %% [markdown] lang="en"
# ## What else breaks in silence
#
# **Unequal batches.** DDP divides the sum of gradients by the number of processes, not of samples. When rank 0 has $n_0$ of $N$ samples and takes the mean loss, what comes out is $(g_0+g_1)/2$ instead of $(n_0 g_0 + n_1 g_1)/N$. The error is exactly $|1/2 - n_0/N| \cdot \|g_0 - g_1\|$. Let us compare this formula with DDP for every split of 12 samples.

# %%
total = 12
splits = range(1, total)


def gradient_of(model: nn.Module, loss: Tensor) -> Tensor:
    """Run backward and return all gradients of the model as one vector."""
    model.zero_grad()
    loss.backward()
    return torch.cat([_gradient(p).flatten() for p in model.parameters()])


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


def mean_gradient(first: int, last: int) -> Tensor:
    model = make_model(seed=0)
    return gradient_of(
        model, F.mse_loss(model(inputs[first:last]), targets[first:last])
    )


full = mean_gradient(0, total)
got = launch(by_split)[0]
naive_error = [((naive - full).norm() / full.norm()).item() for naive, _ in got]
fixed_error = [((fixed - full).norm() / full.norm()).item() for _, fixed in got]
formula = [
    abs(0.5 - n / total) * float((mean_gradient(0, n) - mean_gradient(n, total)).norm())
    for n in splits
]
worst_error = naive_error[9]
even_error = naive_error[5]
print(
    say(
        pl=f"10 + 2: {worst_error:.3f}, 6 + 6: {even_error:.1e}, "
        f"po naprawie najwyżej {max(fixed_error):.1e}",
        en=f"10 + 2: {worst_error:.3f}, 6 + 6: {even_error:.1e}, "
        f"repaired at most {max(fixed_error):.1e}",
    )
)

assert worst_error > 0.2 and even_error < 1e-5 and max(fixed_error) < 1e-5
torch.testing.assert_close(
    torch.tensor(naive_error),
    torch.tensor(formula) / full.norm(),
    rtol=1e-3,
    atol=1e-5,
)

# %% fold=true
fig, ax = plt.subplots(figsize=(7.2, 2.8))
share = [n / total for n in splits]
ax.plot(
    share, [e / float(full.norm()) for e in formula], color=GRAY, linewidth=5, alpha=0.5
)
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
    "lokalnej średniej równy zeru tylko w połowie i rosnący ku krańcom, zgodny "
    "ze wzorem; dla sumy dzielonej przez liczbę wszystkich próbek wszędzie zero.",
    alt_en="Relative error of the gradient by share of samples on rank 0. For the local "
    "mean it is zero only at one half and grows towards the ends, on the formula; for "
    "the sum divided by the count of all samples it is zero everywhere.",
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
# Czerwone punkty leżą na szarym wzorze i dotykają zera tylko przy równym podziale; przy 10 i 2 próbkach błąd to {{ worst_error:.0%}}. Zielona linia to naprawa: suma strat razy liczba procesów, podzielona przez liczbę próbek wszystkich rang. W modelach językowych liczy się tokeny, a nie zdania.
#
# **Sampler.** Klasa `DistributedSampler` dopełnia dane tak, by każda ranga miała ich tyle samo, a kolejność tasuje według numeru epoki, który trzeba jej podać.

# %% [markdown] lang="en"
# The red points lie on the grey formula and touch zero only at an equal split; with 10 and 2 samples the error is {{ worst_error:.0%}}. The green line is the repair: the sum of losses times the number of processes, divided by the count of samples on all ranks. In language models the count is of tokens, not of sentences.
#
# **The sampler.** The class `DistributedSampler` pads the data so that every rank has the same amount, and shuffles by the number of the epoch, which it has to be told.

# %%
data = TensorDataset(torch.arange(10))
padded: list[list[Any]] = [
    list(DistributedSampler(data, num_replicas=4, rank=rank, shuffle=False))
    for rank in range(4)
]
seen = sorted(itertools.chain.from_iterable(padded))
print(padded)
padded_mean = sum(seen) / len(seen)
true_mean = sum(range(10)) / 10
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
# Przy czterech rangach próbki 0 i 1 liczą się podwójnie, więc średnia metryki z walidacji jest fałszywa: tu {{ padded_mean:.2f}} zamiast {{ true_mean:.2f}}. Bez `set_epoch` wszystkie epoki mają jedną kolejność.
#
# **To, co głośne.** Parametr, który nie wziął udziału w stracie, nigdy nie zapełni swojego kubełka: skarży się dopiero następna iteracja. Ranga, która ma o jedną partię więcej, czeka na all-reduce, do którego nikt nie dołączy.

# %% [markdown] lang="en"
# With four ranks samples 0 and 1 count twice, so the mean of a validation metric is false: here {{ padded_mean:.2f}} instead of {{ true_mean:.2f}}. Without `set_epoch` all epochs have one order.
#
# **What is loud.** A parameter that took no part in the loss never fills its bucket: only the next iteration complains. A rank that has one batch more waits for an all-reduce that nobody joins.


# %%
class Forgetful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.used(x)
        return output


def first_complaint(find_unused_parameters: bool) -> tuple[int, str]:
    def body(rank: int) -> tuple[int, str]:
        ddp = DDP(Forgetful(), find_unused_parameters=find_unused_parameters)
        for iteration in range(3):
            try:
                ddp(torch.ones(1, 2)).sum().backward()
            except RuntimeError as error:
                return iteration, str(error)
        return 3, ""

    return launch(body)[0]


iteration, complaint = first_complaint(find_unused_parameters=False)
print(iteration, complaint.split(".")[0])
assert iteration == 1 and complaint.startswith(
    "Expected to have finished reduction in the prior iteration before starting a new one."
)
assert "Parameter indices which did not receive grad for rank 0: 2 3" in complaint
assert first_complaint(find_unused_parameters=True) == (3, "")


def uneven_epoch(rank: int) -> int:
    ddp = DDP(nn.Linear(2, 2))
    batches = 3 - rank
    with ddp.join():
        for _ in range(batches):
            ddp(torch.ones(1, 2)).sum().backward()
    return batches


assert launch(uneven_epoch) == [3, 2]
limit_minutes = default_pg_timeout.total_seconds() / 60
assert limit_minutes == 30


# %% raises="TimeoutError: still running after 1.5 s: rank 0, 1"
def uneven_epoch_hangs(rank: int) -> None:
    ddp = DDP(nn.Linear(2, 2))
    for _ in range(3 - rank):
        ddp(torch.ones(1, 2)).sum().backward()
    dist.barrier()  # rank 1 is here already, rank 0 never will be


launch(uneven_epoch_hangs, timeout=1.5)

# %% [markdown] lang="pl"
# Zawieszenie przerwał limit czasu funkcji `launch`. W prawdziwym treningu z gloo zrobi to dopiero limit grupy procesów, domyślnie po {{ limit_minutes:.0f}} minutach. Menedżer `ddp.join` dołącza za rangę, która skończyła wcześniej, a `find_unused_parameters=True` oznacza nieużyte parametry jako gotowe.
#
# Ciche awarie mają wspólny objaw: różne wagi albo różne liczby próbek. Tę kontrolę wklej do pętli i wywołuj na każdej randze, np. co tysiąc kroków.

# %% [markdown] lang="en"
# The hang was cut short by the time limit of `launch`. In real training with gloo only the limit of the process group does that, by default after {{ limit_minutes:.0f}} minutes. The context manager `ddp.join` joins in for a rank that has finished early, and `find_unused_parameters=True` marks unused parameters as ready.
#
# The silent failures share a symptom: different weights, or different counts of samples. Paste this guard into the loop and call it on every rank, say once in a thousand steps.


# %%
def check_replicas(module: nn.Module, samples: int) -> None:
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


def verdict_of_guard(forward: Forward, nudge: float = 0.0, fewer: int = 0) -> list[str]:
    def body(rank: int) -> str:
        ddp = DDP(make_model(seed=0))
        with torch.no_grad():
            ddp.module[2].bias += nudge * rank
        x, y = (t[rank :: config.ranks][fewer * rank :] for t in (inputs, targets))
        sgd_path(ddp, lambda x: forward(ddp, x), x, y)
        try:
            check_replicas(ddp.module, samples=len(x))
        except RuntimeError as error:
            return str(error)
        return "ok"

    return launch(body)


guarded = {
    "ddp(x)": verdict_of_guard(lambda ddp, x: ddp(x)),
    "ddp.module(x)": verdict_of_guard(lambda ddp, x: ddp.module(x)),
    "bias + 1e-6": verdict_of_guard(lambda ddp, x: ddp(x), nudge=1e-6),
    "len(x) - 1": verdict_of_guard(lambda ddp, x: ddp(x), fewer=1),
}
for name, (verdict_0, verdict_1) in guarded.items():
    print(f"{name:14} {verdict_0}")
    assert verdict_0 == verdict_1

assert guarded["ddp(x)"][0] == "ok"
assert guarded["ddp.module(x)"][0] == "rank 1 differs from rank 0 in 0.weight"
assert guarded["bias + 1e-6"][0] == "rank 1 differs from rank 0 in 2.bias"
assert guarded["len(x) - 1"][0] == "rank 1 differs from rank 0 in samples"

# %% [markdown] lang="pl"
# Kontrola wykrywa wszystkie trzy awarie i mówi, co się różni. Porównuje skróty bajtów, więc wystarcza jej różnica `1e-6`. Buforów nie porównuje, bo te różnią się między rangami także w zdrowym treningu.
#
# > [!NOTE]
# > Na GPU (tu niezmierzone): backend `nccl` pod `torchrun`, jeden proces na kartę, `device_ids=[local_rank]`. All-reduce jedzie osobnym strumieniem, więc nakłada się na jądra przejścia wstecz, a nie na pracę procesora. Wspólne statystyki liczy `nn.SyncBatchNorm`, tylko na GPU. Kubełki, uzbrajanie i wszystkie ciche awarie są te same.
#
# ## Pasy
#
# Umiesz teraz:
#
# - powiedzieć, kiedy gradient DDP jest gradientem pełnej partii, i poprawić stratę, gdy nim nie jest,
# - policzyć redukcje w swojej pętli i wskazać, co je uzbraja,
# - odczytać z osi czasu, który kubełek rusza i na co czeka,
# - wykryć repliki, które się rozjechały.
#
# Poprzednia lekcja to 42 (składanie BatchNorm i kwantyzacja), następna to 44 (FSDP2). Jak gradient powstaje, zanim DDP go wyśle, pokazuje [lekcja o własnej funkcji autogradu](../2_autograd/10_custom_autograd_function.py). Dokumentacja: [DDP](https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html), [opis budowy DDP](https://docs.pytorch.org/docs/stable/notes/ddp.html), [`torchrun`](https://docs.pytorch.org/docs/stable/elastic/run.html). Pułapka z życia: [trening RL bez redukcji](https://github.com/jingyaogong/minimind/issues/853).

# %% [markdown] lang="en"
# The guard catches all three failures and says what differs. It compares digests of bytes, so a difference of `1e-6` is enough for it. It does not compare buffers, because those differ between ranks in healthy training too.
#
# > [!NOTE]
# > On a GPU (not measured here): the backend `nccl` under `torchrun`, one process per card, `device_ids=[local_rank]`. All-reduce runs on a stream of its own, so it overlaps with the kernels of the backward pass and not with work of the processor. Common statistics come from `nn.SyncBatchNorm`, on GPUs only. Buckets, arming and all the silent failures are the same.
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
# The previous lesson is 42 (folding BatchNorm, quantisation), the next is 44 (FSDP2). How a gradient comes about before DDP sends it is shown in [the lesson on a custom autograd function](../2_autograd/10_custom_autograd_function.py). Documentation: [DDP](https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html), [the note on DDP's design](https://docs.pytorch.org/docs/stable/notes/ddp.html), [`torchrun`](https://docs.pytorch.org/docs/stable/elastic/run.html). The trap in the wild: [RL training without reduction](https://github.com/jingyaogong/minimind/issues/853).

# %% [markdown] lang="pl" exercise="loss-factor" role="prompt" belt="white" minutes=5
# ### Mnożnik straty
#
# Każda ranga liczy stratę na równej części partii, z redukcją `"mean"` albo `"sum"`. Zwróć liczbę, przez którą trzeba pomnożyć lokalną stratę, żeby DDP dał gradient pełnej partii z tą samą redukcją. Zanim uruchomisz, zapisz swoją odpowiedź dla dwóch i trzech procesów.

# %% [markdown] lang="en" exercise="loss-factor" role="prompt" belt="white" minutes=5
# ### The factor of the loss
#
# Every rank takes the loss of an equal part of the batch, with the reduction `"mean"` or `"sum"`. Return the number by which to multiply the local loss, so that DDP gives the gradient of the full batch with the same reduction. Before you run it, write down your answer for two and for three processes.


# %% exercise="loss-factor" role="starter"
def loss_factor(reduction: str, world_size: int) -> float:
    return 0.0  # your code


# %% exercise="loss-factor" role="check"
def gradient_ratio(reduction: str, world_size: int) -> float:
    """Return DDP's gradient along the full batch's, as a multiple of it."""
    x, y = inputs[:48], targets[:48]

    def body(rank: int) -> Tensor:
        ddp = DDP(make_model(seed=0))
        output, wanted = ddp(x[rank::world_size]), y[rank::world_size]
        loss = F.mse_loss(output, wanted, reduction=reduction)
        return gradient_of(ddp, loss_factor(reduction, world_size) * loss)

    model = make_model(seed=0)
    reference = gradient_of(model, F.mse_loss(model(x), y, reduction=reduction))
    averaged = launch(body, world_size)[0]
    return float(averaged @ reference / (reference @ reference))


for reduction, world_size in itertools.product(("mean", "sum"), (2, 3)):
    ratio = gradient_ratio(reduction, world_size)
    assert abs(ratio - 1) < 1e-3, say(
        pl=f"{reduction}, liczba procesów {world_size}: gradient DDP to {ratio:.3f} "
        "gradientu pełnej partii",
        en=f"{reduction}, {world_size} processes: DDP's gradient is {ratio:.3f} "
        "of the full batch's",
    )

# %% [markdown] lang="pl" exercise="loss-factor" role="hint"
# DDP zawsze uśrednia po rangach. Co dzieje się ze średnią równych części, a co z sumą?

# %% [markdown] lang="en" exercise="loss-factor" role="hint"
# DDP always averages over ranks. What happens to a mean of equal parts, and what to a sum?


# %% exercise="loss-factor" role="wrong" says="sum, 2 processes: DDP's gradient is 0.500"
def loss_factor(reduction: str, world_size: int) -> float:
    return 1.0  # believes that DDP adds gradients up


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
# Napisz `accumulate`. Każda ranga dostaje tyle samo mikropartii, ale o różnej liczbie próbek. Po powrocie pole `grad` każdego parametru ma zawierać gradient błędu średniokwadratowego po wszystkich próbkach wszystkich rang, a DDP ma wykonać dokładnie jeden all-reduce gradientów. Własne `dist.all_reduce` na licznikach jest dozwolone.

# %% [markdown] lang="en" exercise="accumulate-unequal" role="prompt" belt="brown" minutes=20
# ### Accumulation over unequal micro-batches
#
# Write `accumulate`. Every rank gets the same number of micro-batches, but of different sizes. On return the field `grad` of every parameter must hold the gradient of the mean squared error over all samples of all ranks, and DDP must have run exactly one all-reduce of gradients. Your own `dist.all_reduce` of counters is allowed.

# %% exercise="accumulate-unequal" role="starter"
Batch = tuple[Tensor, Tensor]


def accumulate(ddp: DDP, batches: Sequence[Batch]) -> None:
    for x, y in batches:  # your code
        F.mse_loss(ddp(x), y).backward()


# %% exercise="accumulate-unequal" role="check"
def accumulated(sizes: Sequence[Sequence[int]]) -> tuple[int, float]:
    """Return the number of reductions and the relative error of the gradient."""
    rows = torch.arange(config.samples).split([n for own in sizes for n in own])
    batches = [(inputs[row], targets[row]) for row in rows]

    def body(rank: int) -> tuple[int, Tensor]:
        ddp = DDP(make_model(seed=0))
        reduced: list[int] = []
        ddp.register_comm_hook(reduced, counted_mean)
        each = len(sizes[0])
        accumulate(ddp, batches[rank * each : (rank + 1) * each])
        gradient = torch.cat([_gradient(p).flatten() for p in ddp.parameters()])
        return len(reduced), gradient

    reference = mean_gradient(0, config.samples)
    counts, gradients = zip(*launch(body), strict=True)
    worst = max(float((g - reference).norm() / reference.norm()) for g in gradients)
    return max(counts), worst


for sizes in (((30, 2, 9), (1, 20, 2)), ((16, 16), (16, 16)), ((1, 50), (3, 10))):
    count, error = accumulated(sizes)
    assert count == 1, say(
        pl=f"{sizes}: liczba all-reduce: {count}, wystarczy 1",
        en=f"{sizes}: {count} all-reduces, 1 is enough",
    )
    assert error < 1e-4, say(
        pl=f"{sizes}: gradient różni się od wzorca o {error:.0%}",
        en=f"{sizes}: the gradient differs from the reference by {error:.0%}",
    )

# %% [markdown] lang="pl" exercise="accumulate-unequal" role="hint"
# Co uzbraja hooki: `forward` czy `backward`? Wszystkie mikropartie poza ostatnią mają minąć je bez śladu.

# %% [markdown] lang="en" exercise="accumulate-unequal" role="hint"
# What arms the hooks: `forward` or `backward`? All micro-batches but the last have to pass them unnoticed.

# %% [markdown] lang="pl" exercise="accumulate-unequal" role="hint"
# Wagą każdej próbki jest $1/N$, gdzie $N$ liczy wszystkie próbki na wszystkich rangach. Nikt go nie zna, dopóki rangi nie dodadzą swoich liczników. Nie zapomnij, przez co dzieli DDP.

# %% [markdown] lang="en" exercise="accumulate-unequal" role="hint"
# The weight of each sample is $1/N$, where $N$ counts all samples on all ranks. Nobody knows it until the ranks add up their counters. Do not forget by what DDP divides.


# %% exercise="accumulate-unequal" role="wrong" says="3 all-reduces, 1 is enough"
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
# Cudzej pętli nie wolno Ci zmienić: na każdej randze liczy zwykłą średnią straty, a partie są nierówne i co krok inne. Napisz hook komunikacyjny, który dostaje liczbę próbek w `state.samples` i zwraca przyszły wynik (`Future`) z dokładnym gradientem pełnej partii. Nie czekaj w nim na sieć: all-reduce ma być asynchroniczny.

# %% [markdown] lang="en" exercise="weighted-hook" role="prompt" belt="black" minutes=30
# ### A communication hook that weighs samples
#
# You may not change someone else's loop: on every rank it takes the plain mean of the loss, and the batches are unequal and different in each step. Write a communication hook that gets the count of samples in `state.samples` and returns a `Future` with the exact gradient of the full batch. Do not wait for the network inside: the all-reduce is to be asynchronous.


# %% exercise="weighted-hook" role="starter"
@dataclass
class LocalBatch:
    samples: int


def weighted_hook(state: LocalBatch, bucket: GradBucket) -> Future[Tensor]:
    work = dist.all_reduce(bucket.buffer(), async_op=True)  # your code
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


# %% exercise="weighted-hook" role="check"
def hook_errors(splits_of_steps: Sequence[Sequence[int]]) -> list[float]:
    """Return the relative error of the gradient in each step, 16 samples a step."""

    def wide() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 600), nn.Tanh(), nn.Linear(600, 600))

    def body(rank: int) -> list[float]:
        ddp, alone = DDP(wide()), wide()
        state = LocalBatch(samples=0)
        ddp.register_comm_hook(state, weighted_hook)
        found = []
        for step, counts in enumerate(splits_of_steps):
            x = inputs[16 * step : 16 * step + 16]
            mine = x.split(list(counts))[rank]
            state.samples = len(mine)
            got = gradient_of(ddp, ddp(mine).square().mean())
            want = gradient_of(alone, alone(x).square().mean())
            found.append(float((got - want).norm() / want.norm()))
        return found

    return [max(pair) for pair in zip(*launch(body), strict=True)]


for step, error in enumerate(hook_errors([(8, 8), (15, 1), (5, 11), (1, 15)])):
    assert error < 1e-4, say(
        pl=f"krok {step}: gradient różni się od wzorca o {error:.0%}",
        en=f"step {step}: the gradient differs from the reference by {error:.0%}",
    )

# %% [markdown] lang="pl" exercise="weighted-hook" role="hint"
# Szukasz $\sum_r n_r g_r / \sum_r n_r$. Licznik i mianownik to dwie sumy po rangach. Czy mogą jechać jedną wiadomością?

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
