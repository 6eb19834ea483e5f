# %% [markdown] lang="pl"
# # einops: nazwane osie zamiast view i permute
#
# Metody `view` i `reshape` pytają o rozmiary, a błąd siedzi zwykle w kolejności osi. Po tej
# lekcji będziesz wiedzieć, które pomyłki wzorzec einops wyklucza, których nie widzi, i co
# naprawdę wykonuje PyTorch, gdy wywołasz `rearrange`.
#
# ## Model lepszy, niż wolno
#
# Tokeny są losowe i niezależne, {{ vocabulary }} rodzajów po równo. Następnego nikt nie
# przewidzi, więc średnia strata uczciwego modelu nie spadnie poniżej entropii, czyli $\ln 8$. Oto warstwa uwagi (*attention*) z maską przyczynową i jej trening na danych
# losowanych w każdym kroku.

# %% [markdown] lang="en"
# # einops: named axes instead of view and permute
#
# The methods `view` and `reshape` ask about sizes, while the bug usually sits in the order
# of axes. After this lesson you will know which mistakes an einops pattern rules out, which
# ones it does not see, and what PyTorch really runs when you call `rearrange`.
#
# ## A model better than allowed
#
# The tokens are random and independent, {{ vocabulary }} kinds, equally likely. Nobody can
# predict the next one, so the mean loss of an honest model does not fall below the entropy, $\ln 8$. Here is
# an attention layer with a causal mask and its training on data drawn anew in every step.

# %% fold=true
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from einops import EinopsError, rearrange, reduce, repeat
from einops import einops as einops_module
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, ORANGE, PURPLE, show_figure
from snippets.memory import CallCounter, MemoryMeter
from snippets.memory_pictures import show_memory

torch.set_num_threads(1)

Reshape = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Size:
    tokens: int = 8
    width: int = 16
    heads: int = 2


SIZE = Size()
vocabulary = 8
entropy = math.log(vocabulary)


# %%
def split_heads(
    x: Tensor,
) -> Tensor:  # (batch, token, width) -> (batch, head, token, p)
    return x.view(len(x), SIZE.tokens, SIZE.heads, -1).transpose(1, 2)


def merge_heads(
    x: Tensor,
) -> Tensor:  # (batch, head, token, p) -> (batch, token, width)
    return x.reshape(len(x), SIZE.tokens, SIZE.width)


class Attention(nn.Module):
    """One causal attention layer with a residual connection; predicts the next token."""

    def __init__(self, split: Reshape, merge: Reshape) -> None:
        super().__init__()
        self.split, self.merge = split, merge
        self.embedding = nn.Embedding(vocabulary, SIZE.width)
        self.position = nn.Parameter(0.1 * torch.randn(SIZE.tokens, SIZE.width))
        self.qkv = nn.Linear(SIZE.width, 3 * SIZE.width)
        self.out = nn.Linear(SIZE.width, SIZE.width)
        self.logits = nn.Linear(SIZE.width, vocabulary)

    def mix(self, x: Tensor) -> Tensor:  # (batch, token, width), the same shape back
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, dim=-1))
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + torch.as_tensor(self.out(self.merge(heads)))

    def forward(self, tokens: Tensor) -> Tensor:  # (batch, token) of int64
        mixed = self.mix(self.embedding(tokens) + self.position)
        return torch.as_tensor(self.logits(mixed))  # (batch, token, vocabulary)


# %% fold=true
@dataclass(frozen=True)
class Result:
    model: Attention
    losses: list[float]
    accuracy: float  # on the last batch


def train(split: Reshape, merge: Reshape, *, recall: bool = False) -> Result:
    """Predict each next token, or with `recall` the first token at the last place."""
    torch.manual_seed(0)
    model = Attention(split, merge)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses, accuracy = [], 0.0
    for _ in range(200):
        tokens = torch.randint(vocabulary, (64, SIZE.tokens + 1))
        logits = model(tokens[:, :-1])
        logits = logits[:, -1] if recall else logits.flatten(0, 1)
        target = tokens[:, 0] if recall else tokens[:, 1:].flatten()
        loss = F.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        accuracy = 100 * (logits.argmax(-1) == target).float().mean().item()
    return Result(model, losses, accuracy)


# %%
suspicious = train(split_heads, merge_heads)
final_loss = suspicious.losses[-1]
print(f"{final_loss=:.2f} {entropy=:.2f}")
assert final_loss < 0.8 * entropy

# %% [markdown] lang="pl"
# Strata {{ final_loss:.2f }} to połowa entropii ({{ entropy:.2f }}): model widzi przyszłość,
# mimo maski. Kształty się zgadzają, wyjątku nie ma. Pytanie lekcji: **które pomyłki w osiach
# wzorzec wyklucza, a które przepuszcza?**
#
# ## Ten sam kształt, inne dane
#
# Podejrzana jest funkcja `merge_heads`. Porównajmy ją ze wzorcem. Po lewej stronie wzorca
# stoją nazwy osi wejścia, po prawej wyjścia. Nawias łączy osie, a pierwsza w nawiasie zmienia
# się najwolniej. Bierzemy dwie głowy, dwa tokeny i dwie liczby na głowę; cyfra setek to
# głowa, dziesiątek – token.

# %% [markdown] lang="en"
# The loss {{ final_loss:.2f }} is half of the entropy ({{ entropy:.2f }}): the model sees the
# future, in spite of the mask. The shapes agree, and there is no exception. The question of
# this lesson: **which axis mistakes does a pattern rule out, and which does it let
# through?**
#
# ## Same shape, different data
#
# The function `merge_heads` is the suspect. Let's compare it with a pattern. On the left side
# of a pattern are the names of the input's axes, on the right those of the output.
# Parentheses merge axes, and the first one inside changes most slowly. We take two heads, two
# tokens and two numbers per head; the hundreds digit is the head, the tens digit the token.

# %%
digits = torch.arange(1, 3, dtype=torch.int32)
head, token, place = torch.meshgrid(digits, digits, digits, indexing="ij")
heads = 100 * head + 10 * token + place  # (head, token, place)
by_reshape = heads.reshape(2, 4)
by_pattern = rearrange(heads, "head token place -> token (head place)")
assert by_reshape.shape == by_pattern.shape
assert by_reshape[0].tolist() == [111, 112, 121, 122]  # one head, both tokens
assert by_pattern[0].tolist() == [111, 112, 211, 212]  # both heads, one token
assert torch.equal(by_pattern, heads.transpose(0, 1).reshape(2, 4))

# %% fold=true
show_memory(
    {
        "heads": heads,
        "by_reshape": by_reshape,
        "by_pattern": by_pattern,
    },
    alt_pl="Trzy tensory nad swoją pamięcią. by_reshape ma w pierwszym wierszu liczby 111, "
    "112, 121, 122, czyli oba tokeny jednej głowy. by_pattern ma w nim 111, 112, 211, 212, "
    "czyli jeden token obu głów, i własną kolejność w pamięci.",
    alt_en="Three tensors over their memory. The first row of by_reshape holds 111, 112, "
    "121, 122: both tokens of one head. That of by_pattern holds 111, 112, 211, 212: one "
    "token of both heads, in another order in memory.",
)

# %% [markdown] lang="pl"
# Wiersz wyniku to jeden token. W `by_reshape` pierwszy wiersz zawiera oba tokeny jednej
# głowy, więc pierwszy token dostał liczby policzone dla drugiego. Metoda `reshape` zna same
# rozmiary: czyta liczby w kolejności indeksów, ostatni zmienia się najszybciej. Wzorzec mówi,
# **która** oś dokąd idzie.
#
# Ten sam błąd da się popełnić przy podziale na głowy: `x.reshape(batch, head, token, p)`
# zamiast `view` i `transpose`.

# %% [markdown] lang="en"
# A row of the result is one token. In `by_reshape` the first row holds both tokens of one
# head, so the first token was given numbers computed for the second. The method `reshape`
# knows only sizes: it reads the numbers in the order of indices, the last one changing
# fastest. A pattern says **which** axis goes where.
#
# The same mistake can be made when splitting into heads: `x.reshape(batch, head, token, p)`
# instead of `view` and `transpose`.

# %% [markdown] lang="pl" predict="both-wrong"
# Ktoś pomylił się dwa razy: i podzielił na głowy, i scalił je samym `reshape`. Pomyłki są
# wzajemnie odwrotne: scalenie zaraz po podziale odtwarza tensor wejściowy. Co pokaże
# trening?
#
# - [ ] Strata znowu spadnie poniżej entropii
#
#   Skończyła się na {{ both_wrong_loss:.2f }}. Każda głowa dostała połowę ciągu w dobrej
#   kolejności, więc maska nadal zasłania przyszłość.
#
# - [ ] Wszystko będzie w porządku, bo pomyłki się znoszą
#
#   Strata na losowych tokenach rzeczywiście wygląda dobrze, ale zadanie, w którym trzeba
#   zapamiętać pierwszy token, wyszło w {{ both_wrong_recall:.0f }}% zamiast w
#   {{ right_recall:.0f }}%. Każda głowa widzi tylko swoją połowę ciągu.
#
# - [x] Strata zostanie przy ln 8, ale druga połowa ciągu nie zobaczy pierwszej
#
#   Strata wyniosła {{ both_wrong_loss:.2f }}, a pierwszego tokenu na końcu ciągu model nie
#   odtworzył ({{ both_wrong_recall:.0f }}%, czyli tyle co zgadywanie).

# %% [markdown] lang="en" predict="both-wrong"
# Somebody made the mistake twice: both split into heads and merged them with `reshape` alone.
# The mistakes undo each other: merging right after splitting restores the input. What will
# training show?
#
# - [ ] The loss falls below the entropy again
#
#   It ended at {{ both_wrong_loss:.2f }}. Each head got half of the sequence in the right
#   order, so the mask still hides the future.
#
# - [ ] Everything is fine, because the mistakes cancel
#
#   The loss on random tokens does look fine, but a task in which the first token has to be
#   remembered came out at {{ both_wrong_recall:.0f }}% instead of {{ right_recall:.0f }}%.
#   Each head sees only its own half of the sequence.
#
# - [x] The loss stays at ln 8, but the second half of the sequence does not see the first
#
#   The loss came to {{ both_wrong_loss:.2f }}, and the model could not recall the first token
#   at the end of the sequence ({{ both_wrong_recall:.0f }}%, which is guessing).


# %%
def split_by_reshape(x: Tensor) -> Tensor:
    return x.reshape(len(x), SIZE.heads, SIZE.tokens, -1)


def merge_by_pattern(x: Tensor) -> Tensor:
    return rearrange(x, "batch head token p -> batch token (head p)")


VARIANTS: dict[str, tuple[Reshape, Reshape]] = {
    "both right": (split_heads, merge_by_pattern),
    "wrong merge": (split_heads, merge_heads),
    "wrong split": (split_by_reshape, merge_by_pattern),
    "both wrong": (split_by_reshape, merge_heads),
}
row = torch.randn(3, SIZE.tokens, SIZE.width)
for name in ("both right", "both wrong"):
    split, merge = VARIANTS[name]
    assert torch.equal(merge(split(row)), row)

trained = {name: train(*functions) for name, functions in VARIANTS.items()}
recalls = {
    name: train(*VARIANTS[name], recall=True).accuracy
    for name in ("both right", "both wrong")
}
last = {name: round(result.losses[-1], 2) for name, result in trained.items()}
both_wrong_loss = last["both wrong"]
right_recall, both_wrong_recall = recalls["both right"], recalls["both wrong"]
for name, loss in last.items():
    print(f"{name:12} {loss}")
print(f"{right_recall=:.0f} {both_wrong_recall=:.0f}")
assert max(last["wrong merge"], last["wrong split"]) < 0.8 * entropy
assert min(last["both right"], last["both wrong"]) > 0.98 * entropy
assert right_recall == 100 and both_wrong_recall < 30

# %% fold=true
fig, ax = plt.subplots(figsize=(7.2, 2.6))
colours = dict(zip(VARIANTS, (GREEN, ORANGE, PURPLE, BLUE), strict=True))
for name, result in trained.items():
    smooth = torch.tensor(result.losses).unfold(0, 10, 10).mean(-1)
    style = "--" if name == "both wrong" else "-"
    ax.plot(range(5, 200, 10), smooth, color=colours[name], ls=style, label=name)
ax.axhline(entropy, color=GRAY, lw=1)
ax.text(199, entropy + 0.03, "ln 8", color=GRAY, ha="right", va="bottom")
ax.set(xlabel="step", ylabel="loss", ylim=(0.9, 2.6))
ax.legend(ncols=2, loc="upper right", bbox_to_anchor=(1, 0.88))
show_figure(
    fig,
    alt_pl="Cztery krzywe straty. Krzywe wariantów „oba dobrze” i „oba źle” leżą na linii "
    "ln 8, a krzywe z samym tylko błędnym scaleniem albo podziałem schodzą daleko pod "
    "nią.",
    alt_en="Four loss curves. Those of “both right” and “both wrong” lie on the line ln 8; "
    "those with only a wrong merge or only a wrong split fall far below it.",
    pl={
        "both right": "oba dobrze",
        "wrong merge": "błędne scalenie",
        "wrong split": "błędny podział",
        "both wrong": "oba źle",
        "step": "krok",
        "loss": "strata",
    },
    same={"ln 8"},
)

# %% [markdown] lang="pl"
# Dwa przecieki widać po stracie, o ile zna się entropię. Podwójnej pomyłki strata nie
# zdradza. Zdradza ją gradient: policzmy, jak wyjście każdego tokenu zależy od każdego wejścia.

# %% [markdown] lang="en"
# Two leaks show in the loss, provided you know the entropy. The double mistake does not show
# there. The gradient gives it away: let's compute how the output at every token depends on
# every input.


# %%
def influence(model: Attention) -> Tensor:
    """Size of d out[t] / d in[s] for every pair of tokens, (token, token)."""
    x = torch.randn(1, SIZE.tokens, SIZE.width)
    jacobian = torch.autograd.functional.jacobian(model.mix, x)
    return torch.as_tensor(jacobian)[0, :, :, 0].abs().sum(dim=(1, 3))


influences = {name: influence(result.model) for name, result in trained.items()}
future = {
    name: (matrix.triu(1).sum() / matrix.sum()).item()
    for name, matrix in influences.items()
}
reached = {name: int((m > 0).tril().sum()) for name, m in influences.items()}
for name in influences:
    print(f"{name:12} future: {future[name]:.2f}, past: {reached[name]} of 36")
assert future["both right"] == future["both wrong"] == 0
assert min(future["wrong merge"], future["wrong split"]) > 0.1
assert reached["both right"] == 36  # all pairs with s <= t
both_wrong_pairs = reached["both wrong"]
assert both_wrong_pairs == 20
assert (influences["both wrong"][4:, :4] == 0).all()

# %% fold=true
fig, axes = plt.subplots(1, 4, figsize=(7.2, 2.3), sharey=True)
for ax, (name, matrix) in zip(axes, influences.items(), strict=True):
    shown = torch.where(matrix > 0, matrix.log(), torch.nan)
    ax.imshow(shown.numpy(), cmap="viridis", interpolation="nearest")
    ax.plot([-0.5, 7.5], [-0.5, 7.5], color=ORANGE, lw=1.5)
    ax.set_title(name, fontsize=10)
    ax.set_xticks([0, 7])
    ax.set_yticks([0, 7])
    ax.set_xlabel("in")
axes[0].set_ylabel("out")
show_figure(
    fig,
    alt_pl="Cztery macierze wpływu wejścia na wyjście. Oba dobrze: pełny trójkąt pod "
    "przekątną. Błędne scalenie i błędny podział: kolorowe pola także nad przekątną. Oba źle: nic "
    "nad przekątną, ale tylko dwa małe trójkąty zamiast jednego dużego.",
    alt_en="Four matrices of the influence of inputs on outputs. Both right: a full triangle "
    "below the diagonal. Wrong merge and wrong split: coloured cells above the diagonal too. "
    "Both wrong: nothing above it, but only two small triangles instead of a large one.",
    pl={
        "both right": "oba dobrze",
        "wrong merge": "błędne scalenie",
        "wrong split": "błędny podział",
        "both wrong": "oba źle",
        "in": "wejście",
        "out": "wyjście",
    },
)

# %% [markdown] lang="pl"
# Kolor to logarytm wpływu, puste pole – brak wpływu. Pola nad pomarańczową przekątną to
# przyszłość: mają je oba warianty z jedną pomyłką. Wariant „oba źle” ma na przekątnej i pod
# nią {{ both_wrong_pairs }} pól zamiast 36: z pierwszej połowy ciągu nic nie dociera do
# drugiej.
#
# Jak tego uniknąć bez wzorców? Metoda `view` w miejscu `reshape` zgłosiłaby tu wyjątek, bo nie
# kopiuje, a osi wyniku `chunk` nie da się scalić krokami. Ale to zależy od układu w pamięci,
# nie od znaczenia osi.

# %% [markdown] lang="en"
# The colour is the logarithm of the influence, an empty cell is none. Cells above the orange
# diagonal are the future: both variants with a single mistake have them. The variant “both
# wrong” has {{ both_wrong_pairs }} cells on and below the diagonal instead of 36: nothing from
# the first half of the sequence reaches the second.
#
# How to avoid this without patterns? The method `view` in the place of `reshape` would raise
# here, because it does not copy, and the strides of the result of `chunk` do not let its axes
# merge. But that depends on the layout in memory, not on the meaning of the axes.

# %% raises="RuntimeError: view size is not compatible with input tensor's size and stride"
q, k, v = torch.randn(1, SIZE.tokens, 3 * SIZE.width).chunk(3, dim=-1)
assert split_by_reshape(q).shape == (1, SIZE.heads, SIZE.tokens, 8)  # silent
q.view(1, SIZE.heads, SIZE.tokens, -1)

# %% [markdown] lang="pl"
# ## Co wykonuje `rearrange`
#
# Biblioteka nie ma własnych jąder obliczeniowych. Podejrzyjmy, które operacje PyTorcha
# wywołuje wzorzec i ile bajtów one przydzielają.

# %% [markdown] lang="en"
# ## What `rearrange` runs
#
# The library has no kernels of its own. Let's watch which PyTorch operations a pattern calls
# and how many bytes they allocate.


# %%
image = torch.randn(2, 3, 8, 8)  # (b, c, h, w)


def trace(job: Callable[[], Tensor]) -> tuple[list[str], int]:
    """Names of the operators that ran, and bytes that the result allocated."""
    with CallCounter() as calls, MemoryMeter() as meter:
        result = job()
    del result
    return list(calls.names), meter.peak


patchify = "b c (h p) (w q) -> b (h w) (p q c)"
traces = {
    "b c h w -> b h w c": trace(partial(rearrange, image, "b c h w -> b h w c")),
    "b c h w -> b (c h w)": trace(partial(rearrange, image, "b c h w -> b (c h w)")),
    "b c h w -> b (h w) c": trace(partial(rearrange, image, "b c h w -> b (h w) c")),
    patchify: trace(partial(rearrange, image, patchify, p=4, q=4)),
}
for pattern, (names, allocated) in traces.items():
    print(f"{pattern:39} {allocated:5} B  {', '.join(names)}")
patch_bytes = traces[patchify][1]
assert [names for names, _ in traces.values()] == [
    ["permute"],
    ["view"],
    ["permute", "view"],
    ["view", "permute", "clone", "_unsafe_view"],
]
assert [allocated for _, allocated in traces.values()] == [0, 0, 0, image.nbytes]

by_hand = trace(
    lambda: image.view(2, 3, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 48)
)
assert by_hand == traces[patchify]

# %% [markdown] lang="pl"
# Pierwsze trzy wzorce dały widoki: 0 nowych bajtów. Podział na łatki (`patchify`) skopiował
# {{ patch_bytes }} B, dokładnie tak jak napisany ręcznie łańcuch `view`, `permute`,
# `reshape`: te same operacje, te same bajty. Gdy widok jest niemożliwy, `reshape` wywołuje
# `clone` i `_unsafe_view`. Wzorzec to sposób zapisu, nie algorytm.
#
# Robi to funkcja `_apply_recipe` w pliku
# [einops.py](https://github.com/arogozhnikov/einops/blob/v0.8.2/einops/einops.py): dzieli
# osie, przestawia je i scala.
#
# ## `rearrange` w trzech krokach
#
# Zbudujmy to samo: parser nawiasów, brakujące rozmiary i trzy operacje.

# %% [markdown] lang="en"
# The first three patterns gave views: 0 new bytes. Splitting into patches (`patchify`)
# copied {{ patch_bytes }} B, exactly like the chain `view`, `permute`, `reshape` written by
# hand: the same operations, the same bytes. Where a view is impossible, `reshape` calls `clone`
# and `_unsafe_view`. A pattern is a notation, not an algorithm.
#
# The function `_apply_recipe` does this, in
# [einops.py](https://github.com/arogozhnikov/einops/blob/v0.8.2/einops/einops.py): it splits
# axes, reorders them and merges them.
#
# ## `rearrange` in three steps
#
# Let's build the same: a parser of parentheses, the missing sizes, and three operations.


# %%
Groups = list[list[str]]


def parse(side: str) -> Groups:
    """Read "b (h p) w" as [["b"], ["h", "p"], ["w"]]."""
    return [item.strip("()").split() for item in re.findall(r"\([^)]*\)|\S+", side)]


def flat(groups: Groups) -> list[str]:
    return [name for group in groups for name in group]


def infer(
    shape: Sequence[int], groups: Groups, given: dict[str, int]
) -> dict[str, int]:
    """Find the size of every axis; each group may leave one open."""
    if len(shape) != len(groups):
        raise ValueError(f"expected {len(groups)} dims, got {len(shape)}")
    sizes = dict(given)
    for length, group in zip(shape, groups, strict=True):
        unknown = [name for name in group if name not in sizes]
        known = math.prod(sizes[name] for name in group if name in sizes)
        if len(unknown) > 1 or length % known or (not unknown and length != known):
            raise ValueError(f"cannot split {length} into {group} with {given}")
        sizes.update(dict.fromkeys(unknown, length // known))
    return sizes


def mini_rearrange(x: Tensor, pattern: str, **given: int) -> Tensor:
    left, right = (parse(side) for side in pattern.split("->"))
    before, after = flat(left), flat(right)
    if sorted(before) != sorted(after) or len(set(before)) != len(before):
        raise ValueError(f"axes differ or repeat: {pattern}")
    sizes = infer(x.shape, left, given)
    x = x.reshape([sizes[name] for name in before])  # split
    x = x.permute([before.index(name) for name in after])  # reorder
    return x.reshape([math.prod(sizes[n] for n in group) for group in right])  # merge


# %% fold=true
def random_groups(names: Sequence[str], rng: random.Random) -> Groups:
    groups: Groups = [[]]
    for name in names:
        if groups[-1] and rng.random() < 0.5:
            groups.append([])
        groups[-1].append(name)
    return groups


def written(groups: Groups) -> str:
    return " ".join(g[0] if len(g) == 1 else f"({' '.join(g)})" for g in groups)


@dataclass(frozen=True)
class Case:
    x: Tensor
    pattern: str
    sizes: dict[str, int]


def random_case(rng: random.Random) -> Case:
    """A tensor, sometimes transposed, with a pattern and just enough sizes for it."""
    names = list("abcde")[: rng.randint(1, 5)]
    sizes = {name: rng.randint(1, 4) for name in names}
    left = random_groups(names, rng)
    right = random_groups(rng.sample(names, len(names)), rng)
    shape = [math.prod(sizes[n] for n in group) for group in left]
    x = torch.arange(math.prod(shape)).reshape(shape)
    if len(shape) > 1 and rng.random() < 0.3:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    given = {n: sizes[n] for g in left for n in g if n != g[0]}
    return Case(x, f"{written(left)} -> {written(right)}", given)


# %%
tried = 2000
rng = random.Random(0)
cases = [random_case(rng) for _ in range(tried)]
agreed = views = 0
for case in cases:
    ours = mini_rearrange(case.x, case.pattern, **case.sizes)
    theirs = rearrange(case.x, case.pattern, **case.sizes)
    aliases = [y.untyped_storage().data_ptr() for y in (case.x, ours, theirs)]
    agreed += torch.equal(ours, theirs) and (aliases[0] == aliases[1]) == (
        aliases[0] == aliases[2]
    )
    views += aliases[0] == aliases[2]
view_share = 100 * views / tried
print(f"{agreed=} of {tried}, {view_share=:.0f}, e.g. {cases[0].pattern}")
assert agreed == tried
assert 20 < view_share < 95

# %% [markdown] lang="pl"
# We wszystkich {{ agreed }} z {{ tried }} przypadków obie funkcje dały te same wartości i
# zgodnie zwróciły widok (w {{ view_share:.0f }}% przypadków) albo kopię. O tym ostatnim
# decyduje `reshape` na końcu: sąsiednie osie scali bez kopii, gdy krok (*stride*) zewnętrznej
# równa się krokowi wewnętrznej razy jej rozmiar. To reguła z
# [pierwszej lekcji](01_storage_vs_view.py).
#
# ## Ile kosztuje wzorzec
#
# Operacje są te same, więc dochodzi tylko stały narzut (*overhead*), bo Python musi odczytać
# wzorzec. Im większy tensor, tym mniej powinien ważyć.

# %% [markdown] lang="en"
# In all {{ agreed }} of {{ tried }} cases both functions gave the same values and agreed on
# returning a view (in {{ view_share:.0f }}% of the cases) or a copy. The latter is decided by
# the `reshape` at the end: it merges neighbouring axes without a copy if the stride of the
# outer one equals the stride of the inner one times its size. That is the rule of the
# [first lesson](01_storage_vs_view.py).
#
# ## What a pattern costs
#
# The operations are the same, so only a constant overhead is added, because Python has to read
# the pattern. The larger the tensor, the less it should weigh.


# %% measured=true
def fastest(jobs: Sequence[Callable[[], object]], calls: int) -> list[float]:
    """The fastest of interleaved rounds, in seconds: noise only ever adds."""
    best = [math.inf] * len(jobs)
    for _ in range(12):
        for i, job in enumerate(jobs):
            start = time.perf_counter()
            for _ in range(calls):
                job()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def bare_merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


small, large = torch.randn(2, 2, 8, 8), torch.randn(8, 8, 256, 64)
merging = "batch head token p -> batch token (head p)"
ratios = []
for x, calls in ((small, 200), (large, 4)):
    pattern_s, bare_s = fastest(
        [
            partial(rearrange, x, merging),
            partial(bare_merge, x),
        ],
        calls,
    )
    ratios.append(pattern_s / bare_s)
small_ratio, large_ratio = ratios
print(f"{small_ratio=:.1f} {large_ratio=:.1f}")
assert large_ratio < small_ratio
small_numbers, large_numbers = small.numel(), large.numel()
hand_bytes = trace(partial(bare_merge, large))[1]
assert trace(partial(rearrange, large, merging))[1] == hand_bytes == large.nbytes

# %% [markdown] lang="pl"
# Dla tensora o {{ small_numbers }} elementach wzorzec kosztował {{ small_ratio:.1f }}× tyle co
# same operacje, dla tensora o {{ large_numbers }} elementach {{ large_ratio:.1f }}×. Asercja
# wymaga, żeby ten stosunek malał, a bajty były te same.

# %% [markdown] lang="en"
# For a tensor of {{ small_numbers }} elements the pattern cost {{ small_ratio:.1f }}× as much
# as the operations alone, for one of {{ large_numbers }} elements {{ large_ratio:.1f }}×. The
# assertion requires that this ratio falls, and that the bytes are the same.

# %% [markdown] lang="pl"
# ## Co się psuje i jak to zauważyć
#
# Wzorzec zamienia w wyjątek błędny podział, złą liczbę osi i pominiętą oś.

# %% [markdown] lang="en"
# ## What breaks and how to notice
#
# A pattern turns a bad split, a wrong number of axes, and an axis left out into
# exceptions.

# %%
refusals = {
    "b c (h p) w -> b c h p w": "can't divide axis of length 8 in chunks of 3",
    "b c h -> b h c": "expected 3 dims. Received 4-dim tensor",
    "b c h w -> b c h": "Identifiers only on one side of expression",
}
for pattern, part in refusals.items():
    sizes = {"p": 3} if "p" in pattern else {}
    try:
        rearrange(image, pattern, **sizes)
    except EinopsError as error:
        print(str(error).splitlines()[-1].strip())
        assert part in str(error)
    else:
        raise AssertionError(pattern)

# %% [markdown] lang="pl"
# Zostaje kolejność **wewnątrz** nawiasu. Wzorce `(h p) (w q)` i `(p h) (q w)` dzielą bok
# obrazu na te same rozmiary. Pierwszy wycina łatki, drugi zbiera co drugi piksel. Oba są
# poprawne, więc biblioteka nie zaprotestuje.

# %% [markdown] lang="en"
# The order **inside** the parentheses remains. The patterns `(h p) (w q)` and `(p h) (q w)`
# split the side of an image into the same sizes. The first one cuts out patches, the second
# one collects every second pixel. Both are valid, so the library will not object.

# %%
pixels = torch.arange(16).reshape(1, 1, 4, 4)
patches = rearrange(pixels, "b c (h p) (w q) -> b (h w) (p q c)", p=2, q=2)
strided = rearrange(pixels, "b c (p h) (q w) -> b (h w) (p q c)", p=2, q=2)
assert patches.shape == strided.shape
assert patches[0, 0].tolist() == [0, 1, 4, 5]
assert strided[0, 0].tolist() == [0, 2, 8, 10]

channels = torch.randn(2, 12, 3, 3)
good, bad = "b (c r s) h w -> b c (h r) (w s)", "b (r s c) h w -> b c (h r) (w s)"
shuffled = F.pixel_shuffle(channels, 2)
assert torch.equal(rearrange(channels, good, r=2, s=2), shuffled)
assert rearrange(channels, bad, r=2, s=2).shape == shuffled.shape
assert not torch.equal(rearrange(channels, bad, r=2, s=2), shuffled)

leaky = rearrange(heads, "head token place -> token (place head)")
assert leaky.shape == by_pattern.shape and not torch.equal(leaky, by_pattern)

filled = repeat(torch.zeros(3), "b -> b h w", h=4, w=5)
filled[0, 0, 0] = 7  # silent
assert filled.stride() == (1, 0, 0)
assert (filled[0] == 7).all()

# %% fold=true
show_memory(
    {
        "pixels[0, 0]": pixels[0, 0],
        "patches[0]": patches[0],
        "strided[0]": strided[0],
    },
    alt_pl="Obraz 4 na 4 i dwa podziały na cztery grupy po cztery piksele. W patches każda "
    "grupa to kwadrat 2 na 2: pierwsza ma piksele 0, 1, 4, 5. W strided pierwsza grupa ma "
    "piksele 0, 2, 8, 10, co drugi w każdym kierunku.",
    alt_en="A 4 by 4 image and two ways of splitting it into four groups of four pixels. In "
    "patches every group is a 2 by 2 square: the first has the pixels 0, 1, 4, 5. In strided "
    "the first group has the pixels 0, 2, 8, 10, every second one in each direction.",
)

# %% [markdown] lang="pl"
# W wierszu `patches` leżą sąsiednie piksele, w wierszu `strided` co drugi. Tak samo przejdą
# bez wyjątku zamienione `(place head)` i podział kanałów z `pixel_shuffle`. Osobna pułapka to
# `repeat`: zwraca widok z krokiem 0, więc jeden zapis zmienił dwadzieścia pól.
#
# Dwaj strażnicy (*guards*), których możesz wkleić do testów, sprawdzają wartości. Pierwszy
# wpisuje w każdy token jego numer i patrzy, czy podział go zachował. Drugi zaburza każdy token
# i wymaga, żeby wcześniejsze wyjścia się nie zmieniły; podaj mu osadzenia (`float`) i model w
# trybie `eval()`.

# %% [markdown] lang="en"
# A row of `patches` holds neighbouring pixels, a row of `strided` every second one. The
# swapped `(place head)` and the split of channels for `pixel_shuffle` get through without an
# exception just the same. A separate trap is `repeat`: it returns a view with stride 0, so a
# single write changed twenty cells.
#
# Two guards that you can paste into your tests check values. The first one writes its number
# into every token and looks whether the split has kept it. The second one disturbs every token
# and requires that earlier outputs do not change; give it embeddings (`float`) and a model in
# `eval()` mode.


# %%
def keeps_tokens(split: Reshape, merge: Reshape, tokens: int, width: int) -> bool:
    """Tell whether heads hold whole tokens after the split, and tokens after the merge."""
    numbers = torch.arange(tokens)
    x = numbers.view(1, tokens, 1).expand(1, tokens, width)
    heads = split(x)  # (1, head, token, p)
    merged = merge(numbers.view(1, 1, tokens, 1).expand_as(heads))
    split_right = bool((heads == numbers.view(1, 1, tokens, 1)).all())
    return split_right and torch.equal(merged, x)


@torch.no_grad()
def assert_causal(model: Reshape, x: Tensor) -> None:
    """Raise if an output depends on a later token; x has shape (batch, token, width)."""
    before = model(x)
    for t in range(1, x.shape[1]):
        disturbed = x.clone()
        disturbed[:, t] += torch.randn_like(disturbed[:, t])
        after = model(disturbed)
        changed = (after != before).flatten(2).any(-1).any(0)  # (token,)
        if changed[:t].any():
            first = int(changed.nonzero()[0])
            raise ValueError(f"output {first} depends on the later token {t}")


sample = torch.randn(4, SIZE.tokens, SIZE.width)
verdicts = {}
for name, result in trained.items():
    try:
        assert_causal(result.model.mix, sample)
        verdicts[name] = "causal"
    except ValueError as error:
        verdicts[name] = str(error)
whole = {n: keeps_tokens(*f, SIZE.tokens, SIZE.width) for n, f in VARIANTS.items()}
for name, verdict in verdicts.items():
    print(f"{name:12} keeps tokens: {whole[name]!s:5}  {verdict}")
assert [v == "causal" for v in verdicts.values()] == [True, False, False, True]
assert list(whole.values()) == [True, False, False, False]

# %% [markdown] lang="pl"
# Strażnik przyczynowości łapie oba przecieki, ale nie wariant „oba źle”, bo ten niczego z
# przyszłości nie czyta. Numery tokenów łapią wszystkie trzy.
#
# Tę lekcję uruchomiono na CPU; na GPU wzorce wywołują te same operacje PyTorcha (tu
# niemierzone).
#
# ## Co już umiesz
#
# - Powiesz, czy dwa kształty zgadzają się przez przypadek, i sprawdzisz to na wartościach.
# - Przeczytasz wzorzec jako `reshape`, `permute`, `reshape` i przewidzisz, czy skopiuje.
# - Wiesz, czego wzorzec nie sprawdzi: kolejności w nawiasie i tego, co modelowi wolno
#   widzieć.
#
# Wcześniej: [einsum](03_einsum_is_all_you_need.py). Dalej:
# [tensory o nazwanych osiach](07_named_tensors.py). Dokumentacja:
# [einops](https://einops.rocks/api/rearrange/).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# The guard of causality catches both leaks but not “both wrong”, because that one reads
# nothing from the future. The numbers of tokens catch all three.
#
# This lesson ran on a CPU; on a GPU patterns call the same PyTorch operations (not measured
# here).
#
# ## Now you can
#
# - Tell whether two shapes agree by coincidence, and check it on values.
# - Read a pattern as `reshape`, `permute`, `reshape`, and predict whether it copies.
# - You know what a pattern does not check: the order inside parentheses, and what a model
#   is allowed to see.
#
# Before this: [einsum](03_einsum_is_all_you_need.py). Next:
# [named tensors](07_named_tensors.py). Documentation:
# [einops](https://einops.rocks/api/rearrange/).
#
# ## Belts: test yourself

# %% [markdown] lang="pl" exercise="write-patterns" role="prompt" belt="white" minutes=8
# ### Biały: zapisz to wzorcem
#
# Dla każdej funkcji podaj wzorzec `rearrange`, który robi to samo. Nazwy i rozmiary nowych osi
# podaje komentarz.

# %% [markdown] lang="en" exercise="write-patterns" role="prompt" belt="white" minutes=8
# ### White: write it as a pattern
#
# For each function give a `rearrange` pattern that does the same. A comment gives the names
# and sizes of new axes.

# %% exercise="write-patterns" role="starter"
patterns = {
    "x.flatten(1)": "",  # x: (b, c, h, w)
    "x.permute(0, 2, 3, 1)": "",
    "x.transpose(1, 2).flatten(2)": "",
    "x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)": "",  # g=2
    "F.pixel_unshuffle(x, 2)": "",  # r=2, s=2
}  # your patterns

# %% exercise="write-patterns" role="check"
specifications: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, int]]] = {
    "x.flatten(1)": (lambda x: x.flatten(1), {}),
    "x.permute(0, 2, 3, 1)": (lambda x: x.permute(0, 2, 3, 1), {}),
    "x.transpose(1, 2).flatten(2)": (lambda x: x.transpose(1, 2).flatten(2), {}),
    "x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)": (
        lambda x: x.unflatten(1, (2, x.shape[1] // 2)).transpose(1, 2).reshape(x.shape),
        {"g": 2},
    ),
    "F.pixel_unshuffle(x, 2)": (lambda x: F.pixel_unshuffle(x, 2), {"r": 2, "s": 2}),
}
for shape in ((2, 4, 6, 6), (3, 8, 2, 4)):
    x = torch.arange(math.prod(shape)).reshape(shape)
    for name, (specification, axis_sizes) in specifications.items():
        assert "->" in patterns[name], say(
            pl=f"{name}: brakuje wzorca", en=f"{name}: the pattern is missing"
        )
        wanted = specification(x)
        used = {k: v for k, v in axis_sizes.items() if k in patterns[name]}
        try:
            got = rearrange(x, patterns[name], **used)
        except EinopsError as error:
            reason = str(error).splitlines()[-1].strip()
            raise AssertionError(
                say(
                    pl=f"{name}: wzorzec nie pasuje: {reason}",
                    en=f"{name}: the pattern does not fit: {reason}",
                )
            ) from None
        assert got.shape == wanted.shape, say(
            pl=f"{name}: kształt {tuple(got.shape)}, ma być {tuple(wanted.shape)}",
            en=f"{name}: shape {tuple(got.shape)}, should be {tuple(wanted.shape)}",
        )
        assert torch.equal(got, wanted), say(
            pl=f"{name}: dobry kształt, złe dane; sprawdź kolejność w nawiasach",
            en=f"{name}: right shape, wrong data; check the order inside parentheses",
        )

# %% [markdown] lang="pl" exercise="write-patterns" role="hint"
# Wypisz, co jest zewnętrzne, a co wewnętrzne: w `(g c)` oś `g` zmienia się wolniej.

# %% [markdown] lang="en" exercise="write-patterns" role="hint"
# Write down what is outer and what is inner: in `(g c)` the axis `g` changes more slowly.

# %% exercise="write-patterns" role="wrong" says="right shape, wrong data"
patterns = {
    "x.flatten(1)": "b c h w -> b (c h w)",
    "x.permute(0, 2, 3, 1)": "b c h w -> b h w c",
    "x.transpose(1, 2).flatten(2)": "b c h w -> b h (c w)",
    # Splits and merges the group in the same order: nothing moves.
    "x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)": (
        "b (g c) h w -> b (g c) h w"
    ),
    "F.pixel_unshuffle(x, 2)": "b c (h r) (w s) -> b (c r s) h w",
}

# %% exercise="write-patterns" role="wrong" says="F.pixel_unshuffle(x, 2): right shape, wrong data"
patterns = {
    "x.flatten(1)": "b c h w -> b (c h w)",
    "x.permute(0, 2, 3, 1)": "b c h w -> b h w c",
    "x.transpose(1, 2).flatten(2)": "b c h w -> b h (c w)",
    "x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)": (
        "b (g c) h w -> b (c g) h w"
    ),
    # Takes halves of the image instead of every second pixel.
    "F.pixel_unshuffle(x, 2)": "b c (r h) (s w) -> b (c r s) h w",
}

# %% exercise="write-patterns" role="wrong" says="x.flatten(1): right shape, wrong data"
patterns = {
    "x.flatten(1)": "b c h w -> b (h w c)",  # flattens another order of axes
    "x.permute(0, 2, 3, 1)": "b c h w -> b h w c",
    "x.transpose(1, 2).flatten(2)": "b c h w -> b h (c w)",
    "x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)": (
        "b (g c) h w -> b (c g) h w"
    ),
    "F.pixel_unshuffle(x, 2)": "b c (h r) (w s) -> b (c r s) h w",
}

# %% exercise="write-patterns" role="solution"
patterns = {
    "x.flatten(1)": "b c h w -> b (c h w)",
    "x.permute(0, 2, 3, 1)": "b c h w -> b h w c",
    "x.transpose(1, 2).flatten(2)": "b c h w -> b h (c w)",
    # Channel shuffle: the group becomes the inner axis.
    "x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)": (
        "b (g c) h w -> b (c g) h w"
    ),
    # Neighbouring pixels differ in r and s, so these are the inner axes.
    "F.pixel_unshuffle(x, 2)": "b c (h r) (w s) -> b (c r s) h w",
}

# %% [markdown] lang="pl" exercise="reach" role="prompt" belt="brown" minutes=15
# ### Brązowy: zmierz zasięg
#
# Napisz funkcję `sees(model, x)`, która zwraca macierz logiczną (token, token): pole
# `[t, s]` mówi, czy wyjście `t` zależy od wejścia `s`. Model jest czarną skrzynką i nie musi
# być różniczkowalny.

# %% [markdown] lang="en" exercise="reach" role="prompt" belt="brown" minutes=15
# ### Brown: measure the reach
#
# Write a function `sees(model, x)` that returns a boolean matrix (token, token): the entry
# `[t, s]` tells whether output `t` depends on input `s`. The model is a black box and need
# not be differentiable.


# %% exercise="reach" role="starter"
def sees(model: Reshape, x: Tensor) -> Tensor:
    return torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool)  # your code


# %% exercise="reach" role="check"
everything = torch.ones(8, 8, dtype=torch.bool)
blind: dict[str, tuple[Reshape, Tensor]] = {
    "identity": (lambda x: x.clone(), everything.triu().tril()),
    "cumsum": (lambda x: x.cumsum(1), everything.tril()),
    "roll": (lambda x: x.roll(1, dims=1), torch.eye(8, dtype=torch.bool).roll(1, 0)),
    "sum of signs": (lambda x: x + x.sign().sum(1, keepdim=True), everything),
    "constant": (lambda x: torch.zeros_like(x), everything.logical_not()),
}
blind |= {name: (r.model.mix, influences[name] > 0) for name, r in trained.items()}
given_x = torch.randn(2, 8, SIZE.width)
kept_x = given_x.clone()
for name, (black_box, pattern_seen) in blind.items():
    with torch.no_grad():
        seen = sees(black_box, given_x)
    assert torch.equal(given_x, kept_x), say(
        pl=f"{name}: zmieniasz wejście, które należy do wywołującego",
        en=f"{name}: you change the input that belongs to the caller",
    )
    missed = int((pattern_seen & ~seen).sum())
    invented = int((seen & ~pattern_seen).sum())
    assert not (missed or invented), say(
        pl=f"{name}: przeoczone zależności: {missed}, fałszywe: {invented}",
        en=f"{name}: {missed} dependencies missed, {invented} invented",
    )

# %% [markdown] lang="pl" exercise="reach" role="hint"
# Zaburz jeden token naraz: kolumna `s` to tokeny wyjścia, które się wtedy zmieniły.

# %% [markdown] lang="en" exercise="reach" role="hint"
# Disturb one token at a time: column `s` is the output tokens that changed.

# %% [markdown] lang="pl" exercise="reach" role="hint"
# Funkcja `sign` ma pochodną zero, a mała zmiana nie zmienia znaku. Zaburzaj tak, żeby zmienił
# się i znak.

# %% [markdown] lang="en" exercise="reach" role="hint"
# The function `sign` has derivative zero, and a small change does not change a sign. Disturb
# in such a way that the sign changes, too.


# %% exercise="reach" role="wrong" says="sum of signs: 56 dependencies missed"
def sees(model: Reshape, x: Tensor) -> Tensor:
    # A gradient: blind to steps.
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(model, x[:1].clone())
    return (torch.as_tensor(jacobian)[0, :, :, 0] != 0).any(dim=3).any(dim=1)


# %% exercise="reach" role="wrong" says="cumsum: 28 dependencies missed, 28 invented"
def sees(model: Reshape, x: Tensor) -> Tensor:
    # Fills rows instead of columns: the matrix is transposed.
    before = model(x)
    rows = []
    for s in range(x.shape[1]):
        disturbed = x.clone()
        disturbed[:, s] *= -2
        rows.append((model(disturbed) != before).any(-1).any(0))
    return torch.stack(rows)


# %% exercise="reach" role="wrong" says="you change the input"
def sees(model: Reshape, x: Tensor) -> Tensor:
    # x[:, s] is a view: the disturbances stay and add up.
    before = model(x)
    seen = torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool)
    for s in range(x.shape[1]):
        x[:, s] *= -2
        seen[:, s] = (model(x) != before).any(-1).any(0)
    return seen


# %% exercise="reach" role="solution"
def sees(model: Reshape, x: Tensor) -> Tensor:
    before = model(x)
    columns = []
    for s in range(x.shape[1]):
        disturbed = x.clone()
        disturbed[:, s] *= -2  # changes the sign as well as the size
        columns.append((model(disturbed) != before).any(-1).any(0))
    return torch.stack(columns, dim=1)


# %% [markdown] lang="pl" exercise="mini-reduce" role="prompt" belt="black" minutes=25
# ### Czarny: `reduce` na nazwanych osiach
#
# Napisz `mini_reduce(x, pattern, operation, **given)`: osie, których nie ma po prawej
# stronie, znikają przez `"sum"`, `"mean"` albo `"max"`. Skorzystaj z `parse`, `infer` i
# `mini_rearrange`, ale nie z einops.

# %% [markdown] lang="en" exercise="mini-reduce" role="prompt" belt="black" minutes=25
# ### Black: `reduce` over named axes
#
# Write `mini_reduce(x, pattern, operation, **given)`: axes that are missing on the right
# side disappear through `"sum"`, `"mean"` or `"max"`. Use `parse`, `infer` and
# `mini_rearrange`, but not einops.


# %% exercise="mini-reduce" role="starter"
def mini_reduce(x: Tensor, pattern: str, operation: str, **given: int) -> Tensor:
    return x  # your code


# %% exercise="mini-reduce" role="check"
def patterns_read() -> int:
    """How many times einops has looked up a pattern so far."""
    cached = einops_module._prepare_transformation_recipe.cache_info()
    return cached.hits + cached.misses


draw = random.Random(1)
fixed = [
    (Case(torch.randn(2, 6, 4), "b (h p) w -> b h", {"p": 2}), "mean"),
    (Case(torch.randn(2, 6, 4), "b (h p) w -> w b", {"p": 2}), "max"),
    (Case(torch.randn(2, 6, 4), "b (h p) w -> (w h)", {"h": 2}), "sum"),
    (Case(torch.randn(2, 6, 4), "b h w ->", {}), "sum"),
]
for _ in range(300):
    case = random_case(draw)
    left_side, right_side = case.pattern.split(" -> ")
    right_groups = [
        [n for n in group if draw.random() < 0.6] for group in parse(right_side)
    ]
    pattern = f"{left_side} -> {written([g for g in right_groups if g])}"
    renewed = Case(torch.randn(case.x.shape), pattern, case.sizes)
    fixed.append((renewed, draw.choice(("sum", "mean", "max"))))
for case, operation in fixed:
    read_before = patterns_read()
    try:
        reduced = mini_reduce(case.x, case.pattern, operation, **case.sizes)
    except (ValueError, IndexError, RuntimeError, TypeError) as error:
        raise AssertionError(
            say(
                pl=f"{case.pattern} ({operation}): twoja funkcja zgłosiła: {error}",
                en=f"{case.pattern} ({operation}): your function raised: {error}",
            )
        ) from None
    assert patterns_read() == read_before, say(
        pl="to ma działać bez einops", en="this has to work without einops"
    )
    reference = reduce(case.x, case.pattern, operation, **case.sizes)
    assert reduced.shape == reference.shape, say(
        pl=f"{case.pattern} ({operation}): kształt {tuple(reduced.shape)}, ma być "
        f"{tuple(reference.shape)}",
        en=f"{case.pattern} ({operation}): shape {tuple(reduced.shape)}, should be "
        f"{tuple(reference.shape)}",
    )
    assert torch.allclose(reduced, reference, atol=1e-5), say(
        pl=f"{case.pattern} ({operation}): dobry kształt, złe liczby",
        en=f"{case.pattern} ({operation}): right shape, wrong numbers",
    )

# %% [markdown] lang="pl" exercise="mini-reduce" role="hint"
# Najpierw rozdziel wszystkie osie, potem zredukuj te, których nie ma po prawej, na końcu
# ułóż resztę.

# %% [markdown] lang="en" exercise="mini-reduce" role="hint"
# First split all axes, then reduce those that are missing on the right, finally arrange the
# rest.

# %% [markdown] lang="pl" exercise="mini-reduce" role="hint"
# Metody `sum`, `mean` i `amax` przyjmują krotkę osi, ale pusta krotka znaczy u nich
# „wszystkie”.

# %% [markdown] lang="en" exercise="mini-reduce" role="hint"
# The methods `sum`, `mean` and `amax` accept a tuple of axes, but an empty tuple means “all”
# to them.


# %% exercise="mini-reduce" role="wrong" says="got 0"
def mini_reduce(x: Tensor, pattern: str, operation: str, **given: int) -> Tensor:
    left, right = (parse(side) for side in pattern.split("->"))
    before, after = flat(left), flat(right)
    sizes = infer(x.shape, left, given)
    x = x.reshape([sizes[name] for name in before])
    dropped = tuple(i for i, name in enumerate(before) if name not in after)
    # An empty tuple of axes reduces everything.
    x = getattr(x, {"max": "amax"}.get(operation, operation))(dim=dropped)
    kept = " ".join(name for name in before if name in after)
    known = {name: size for name, size in sizes.items() if name in after}
    return mini_rearrange(x, f"{kept} -> {pattern.split('->')[1]}", **known)


# %% exercise="mini-reduce" role="wrong" says="right shape, wrong numbers"
def mini_reduce(x: Tensor, pattern: str, operation: str, **given: int) -> Tensor:
    left, right = (parse(side) for side in pattern.split("->"))
    before, after = flat(left), flat(right)
    sizes = infer(x.shape, left, given)
    x = x.reshape([sizes[name] for name in before])
    dropped = tuple(i for i, name in enumerate(before) if name not in after)
    if dropped:
        x = getattr(x, {"max": "amax"}.get(operation, operation))(dim=dropped)
    # Keeps the order of the left side.
    return x.reshape([math.prod(sizes[n] for n in group) for group in right])


# %% exercise="mini-reduce" role="wrong" says="without einops"
def mini_reduce(x: Tensor, pattern: str, operation: str, **given: int) -> Tensor:
    return reduce(x, pattern, operation, **given)


# %% exercise="mini-reduce" role="solution"
def mini_reduce(x: Tensor, pattern: str, operation: str, **given: int) -> Tensor:
    left_side, right_side = pattern.split("->")
    left, right = parse(left_side), parse(right_side)
    before, after = flat(left), flat(right)
    sizes = infer(x.shape, left, given)
    x = x.reshape([sizes[name] for name in before])
    dropped = tuple(i for i, name in enumerate(before) if name not in after)
    if dropped:  # an empty tuple would mean all axes
        name = {"max": "amax"}.get(operation, operation)
        x = torch.as_tensor(getattr(x, name)(dim=dropped))
    kept = [name for name in before if name in after]
    if not kept:
        return x
    return mini_rearrange(
        x, f"{' '.join(kept)} -> {right_side}", **{name: sizes[name] for name in kept}
    )
