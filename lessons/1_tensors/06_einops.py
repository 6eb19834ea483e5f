# %% [markdown] lang="pl"
# # einops: nazwane osie zamiast view i permute
#
# Metody `view` i `reshape` znają tylko rozmiary, a błąd siedzi zwykle w kolejności osi.
# Biblioteka einops przestawia osie według wzorca (*pattern*), np. `"b h w c -> b c h w"`. Po
# tej lekcji będziesz wiedzieć, które pomyłki wzorzec wyklucza, których nie widzi i co naprawdę
# wykonuje PyTorch, gdy wywołasz `rearrange`.
#
# ## Model zbyt dobry, żeby był uczciwy
#
# Tokeny są losowe i niezależne, {{ vocabulary }} rodzajów po równo. Kto nie widzi przyszłości,
# nie przewidzi następnego, więc oczekiwana strata uczciwego modelu nie może być niższa niż
# entropia, czyli $\ln 8$. Oto warstwa uwagi (*attention*) z maską przyczynową. Uczy się na
# ciągach losowanych w każdym kroku.

# %% [markdown] lang="en"
# # einops: named axes instead of view and permute
#
# The methods `view` and `reshape` know only sizes, while the bug usually sits in the order of
# axes. The library einops rearranges axes by a pattern, such as `"b h w c -> b c h w"`. After
# this lesson you will know which mistakes a pattern rules out, which ones it does not see, and
# what PyTorch really runs when you call `rearrange`.
#
# ## A model too good to be honest
#
# The tokens are random and independent, {{ vocabulary }} kinds, equally likely. Without seeing
# the future nobody can predict the next one, so the expected loss of an honest model cannot be
# lower than the entropy, $\ln 8$. Here is an attention layer with a causal mask. It learns from
# sequences drawn anew in every step.

# %% fold=true
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import torch
from einops import EinopsError, rearrange, reduce, repeat
from einops import einops as einops_module
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F

# Helpers; a downloaded notebook contains them.
from snippets.bilingual import say
from snippets.figures import BLUE, GRAY, GREEN, INK, ORANGE, PURPLE, RAMP, show_figure
from snippets.memory import CallCounter, MemoryMeter
from snippets.memory_pictures import show_memory

torch.manual_seed(0)
torch.set_num_threads(1)
einops_version = version("einops")

Function = Callable[[Tensor], Tensor]


# %%
@dataclass(frozen=True)
class Size:
    tokens: int = 8
    width: int = 16
    heads: int = 2  # d = 8 numbers each


SIZE = Size()
vocabulary = 8
entropy = math.log(vocabulary)


def split_heads(x: Tensor) -> Tensor:  # (b, token, width) -> (b, head, token, d)
    return x.view(len(x), SIZE.tokens, SIZE.heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:  # (b, head, token, d) -> (b, token, width)
    return x.reshape(len(x), SIZE.tokens, SIZE.width)


class Attention(nn.Module):
    """One causal attention layer with a residual connection."""

    def __init__(self, split: Function, merge: Function) -> None:
        super().__init__()
        self.split, self.merge = split, merge
        self.embedding = nn.Embedding(vocabulary, SIZE.width)
        self.position = nn.Parameter(0.1 * torch.randn(SIZE.tokens, SIZE.width))
        self.qkv = nn.Linear(SIZE.width, 3 * SIZE.width)
        self.out = nn.Linear(SIZE.width, SIZE.width)
        self.logits = nn.Linear(SIZE.width, vocabulary)

    def mix(self, x: Tensor) -> Tensor:  # (b, token, width), the same shape back
        q, k, v = (self.split(part) for part in self.qkv(x).chunk(3, dim=-1))
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + torch.as_tensor(self.out(self.merge(heads)))

    def forward(self, tokens: Tensor) -> Tensor:  # (b, token) of int64
        mixed = self.mix(self.embedding(tokens) + self.position)
        return torch.as_tensor(self.logits(mixed))  # (b, token, vocabulary)


# %% fold=true
fresh = 4096


@dataclass(frozen=True)
class Result:
    model: Attention
    losses: list[float]  # of every step
    loss: float  # on `fresh` new sequences
    accuracy: float  # on the same


def train(split: Function, merge: Function, *, recall: bool = False) -> Result:
    """Predict each next token, or with `recall` repeat the first token at the end."""
    torch.manual_seed(0)
    model = Attention(split, merge)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def judge(sequences: int) -> tuple[Tensor, float]:
        tokens = torch.randint(vocabulary, (sequences, SIZE.tokens + 1))
        logits = model(tokens[:, :-1])
        logits = logits[:, -1] if recall else logits.flatten(0, 1)
        target = tokens[:, 0] if recall else tokens[:, 1:].flatten()
        hits = (logits.argmax(-1) == target).float().mean().item()
        return F.cross_entropy(logits, target), 100 * hits

    losses = []
    for _ in range(200):
        loss, _ = judge(64)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        loss, accuracy = judge(fresh)
    return Result(model, losses, loss.item(), accuracy)


# %%
suspicious = train(split_heads, merge_heads)
final_loss = suspicious.loss  # on new sequences
print(f"{final_loss=:.2f} {entropy=:.2f}")
assert 0.4 * entropy < final_loss < 0.6 * entropy

# %% [markdown] lang="pl"
# Na {{ fresh }} nowych ciągach strata wynosi {{ final_loss:.2f }}, około połowy entropii
# ({{ entropy:.2f }}): model widzi przyszłość mimo maski. Kształty się zgadzają, wyjątku nie ma.
# Pytanie lekcji: **które pomyłki w osiach wzorzec wyklucza, a które przepuszcza?**
#
# ## Ten sam kształt, inne dane
#
# Podejrzana jest funkcja `merge_heads`. Porównajmy ją ze wzorcem. Po lewej stronie wzorca
# stoją nazwy osi wejścia, po prawej – wyjścia. Nawias łączy osie, a pierwsza w nawiasie zmienia
# się najwolniej. Weźmy dwie głowy, dwa tokeny i dwie liczby na głowę (oś `d`). Cyfra setek to
# głowa, dziesiątek – token, jedności – miejsce na osi `d`.

# %% [markdown] lang="en"
# On {{ fresh }} new sequences the loss is {{ final_loss:.2f }}, about half of the entropy
# ({{ entropy:.2f }}): the model sees the future in spite of the mask. The shapes agree, and
# there is no exception. The question of this lesson: **which axis mistakes does a pattern rule
# out, and which does it let through?**
#
# ## Same shape, different data
#
# The function `merge_heads` is the suspect. Let's compare it with a pattern. On the left side
# of a pattern are the names of the input's axes, on the right those of the output. Parentheses
# merge axes, and the first one inside changes most slowly. We take two heads, two tokens and
# two numbers per head (the axis `d`). The hundreds digit is the head, the tens digit the token,
# the ones digit the place on the axis `d`.

# %%
digits = torch.arange(1, 3, dtype=torch.int32)
head, token, d = torch.meshgrid(digits, digits, digits, indexing="ij")
heads = 100 * head + 10 * token + d  # (head, token, d)
by_reshape = heads.reshape(2, 4)
by_pattern = rearrange(heads, "head token d -> token (head d)")
assert by_reshape.shape == by_pattern.shape
assert by_reshape[0].tolist() == [111, 112, 121, 122]  # one head, both tokens
assert by_pattern[0].tolist() == [111, 112, 211, 212]  # both heads, one token
assert by_reshape.data_ptr() == heads.data_ptr() != by_pattern.data_ptr()

# %% fold=true
show_memory(
    {
        "heads": heads,
        "by_reshape": by_reshape,
        "by_pattern": by_pattern,
    },
    alt_pl="Trzy tensory nad swoją pamięcią. by_reshape ma w pierwszym wierszu liczby 111, "
    "112, 121, 122, czyli oba tokeny jednej głowy. by_pattern ma w nim 111, 112, 211, 212, "
    "czyli jeden token obu głów, i inną kolejność w pamięci.",
    alt_en="Three tensors over their memory. The first row of by_reshape holds 111, 112, "
    "121, 122: both tokens of one head. That of by_pattern holds 111, 112, 211, 212: one "
    "token of both heads, in another order in memory.",
)

# %% [markdown] lang="pl"
# Wiersz wyniku ma opisywać jeden token. W `by_reshape` pierwszy wiersz zawiera oba tokeny
# jednej głowy, więc pierwszy token dostał liczby policzone dla drugiego. Metoda `reshape` czyta
# liczby w kolejności indeksów, ostatni zmienia się najszybciej; tu wystarczył jej widok tej
# samej pamięci. Wzorzec mówi, **która** oś dokąd idzie, i tu musiał skopiować.
#
# Ten sam błąd da się popełnić przy podziale na głowy: `x.reshape(batch, head, token, d)`
# zamiast `view` i `transpose`.

# %% [markdown] lang="en"
# A row of the result should describe one token. In `by_reshape` the first row holds both
# tokens of one head, so the first token was given numbers computed for the second. The method
# `reshape` reads numbers in the order of indices, the last one changing fastest; here a view of
# the same memory was enough for it. A pattern says **which** axis goes where, and here it had
# to copy.
#
# The same mistake can be made when splitting into heads: `x.reshape(batch, head, token, d)`
# instead of `view` and `transpose`.

# %% [markdown] lang="pl" predict="both-wrong"
# Ktoś pomylił się dwa razy: i podzielił na głowy, i scalił je samą metodą `reshape`. Pomyłki są
# wzajemnie odwrotne: scalenie zaraz po podziale odtwarza wejście. Trenujemy taki model w dwóch
# zadaniach: przewidzieć następny token albo na końcu ciągu powtórzyć pierwszy. Co się stanie?
#
# - [ ] Strata pierwszego zadania spadnie poniżej entropii, bo maska zasłania nie te tokeny
#
#   Wyniosła {{ both_wrong_loss:.2f }}. Każda głowa dostała połowę ciągu w dobrej kolejności,
#   więc maska nadal zasłania przyszłość.
#
# - [ ] Oba zadania wyjdą jak w poprawnym modelu, bo pomyłki się znoszą
#
#   Znoszą się tylko wtedy, gdy między podziałem a scaleniem nic nie łączy tokenów. Uwaga łączy
#   je wewnątrz głowy, a każda głowa widzi tylko swoją połowę ciągu.
#
# - [x] Strata pierwszego zadania zostanie przy entropii, ale drugie się nie uda
#
#   Strata wyniosła {{ both_wrong_loss:.2f }}, tyle co w poprawnym modelu. Pierwszy token model
#   powtórzył w {{ both_wrong_recall:.1f }}% ciągów. Zgadywanie daje średnio
#   {{ guessing:.1f }}%, poprawny model {{ right_recall:.0f }}%.

# %% [markdown] lang="en" predict="both-wrong"
# Somebody made the mistake twice: both split into heads and merged them with `reshape` alone.
# The mistakes undo each other: merging right after splitting restores the input. We train such
# a model in two tasks: predict the next token, or repeat the first one at the end of the
# sequence. What will happen?
#
# - [ ] The loss of the first task falls below the entropy, because the mask hides the wrong tokens
#
#   It came to {{ both_wrong_loss:.2f }}. Each head got half of the sequence in the right order,
#   so the mask still hides the future.
#
# - [ ] Both tasks turn out as with a correct model, because the mistakes cancel
#
#   They cancel only if nothing combines tokens between the split and the merge. Attention
#   combines them inside a head, and each head sees only its own half of the sequence.
#
# - [x] The loss of the first task stays at the entropy, but the second task fails
#
#   The loss came to {{ both_wrong_loss:.2f }}, as in a correct model. The first token was
#   repeated in {{ both_wrong_recall:.1f }}% of the sequences. Guessing gives
#   {{ guessing:.1f }}% on average, a correct model {{ right_recall:.0f }}%.


# %%
def split_by_reshape(x: Tensor) -> Tensor:
    return x.reshape(len(x), SIZE.heads, SIZE.tokens, -1)


def merge_by_pattern(x: Tensor) -> Tensor:
    return rearrange(x, "batch head token d -> batch token (head d)")


VARIANTS: dict[str, tuple[Function, Function]] = {
    "both right": (split_heads, merge_by_pattern),
    "wrong merge": (split_heads, merge_heads),
    "wrong split": (split_by_reshape, merge_by_pattern),
    "both wrong": (split_by_reshape, merge_heads),
}
numbered = repeat(torch.arange(SIZE.tokens), "token -> 1 token width", width=SIZE.width)
assert torch.equal(merge_heads(split_by_reshape(numbered)), numbered)
first_head = split_by_reshape(numbered)[0, 0]  # whose numbers it got, (8, d)
assert first_head[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]

trained = {
    name: suspicious if name == "wrong merge" else train(*functions)
    for name, functions in VARIANTS.items()
}
both_wrong_loss = trained["both wrong"].loss
right_recall = train(*VARIANTS["both right"], recall=True).accuracy
both_wrong_recall = train(*VARIANTS["both wrong"], recall=True).accuracy
guessing = 100 / vocabulary
for name, result in trained.items():
    print(f"{name:12} {result.loss:.2f}")
    honest = name in {"both right", "both wrong"}
    assert result.loss > 0.98 * entropy if honest else result.loss < 0.8 * entropy
print(f"{right_recall=:.1f} {both_wrong_recall=:.1f} {guessing=:.1f}")
assert abs(both_wrong_loss - trained["both right"].loss) < 0.01
assert right_recall > 95
assert abs(both_wrong_recall - guessing) < 3

# %% fold=true
fig, ax = plt.subplots(figsize=(7.2, 2.8))
colours = dict(zip(VARIANTS, (GREEN, ORANGE, PURPLE, BLUE), strict=True))
for name, result in trained.items():
    smooth = torch.tensor(result.losses).unfold(0, 10, 10).mean(-1)
    style = "--" if name == "both wrong" else "-"
    ax.plot(range(5, 200, 10), smooth, color=colours[name], ls=style, label=name)
ax.axhline(entropy, color=GRAY, lw=1)
ax.text(202, entropy, "ln 8", color=GRAY, va="center")
ax.set(xlabel="step", ylabel="loss", xlim=(0, 200), ylim=(0.9, 2.7))
ax.legend(ncols=4, loc="upper center", columnspacing=1.5)
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
# Dwa przecieki widać po stracie, o ile zna się entropię. Podwójnej pomyłki strata w tym zadaniu
# nie zdradza, gradient tak: policzmy, jak wyjście każdego tokenu zależy od każdego wejścia.

# %% [markdown] lang="en"
# Two leaks show in the loss, provided you know the entropy. The double mistake does not show in
# the loss of this task, but the gradient gives it away: let's compute how the output at every
# token depends on every input.


# %%
def influence(model: Attention) -> Tensor:
    """Size of d out[t] / d in[s] for every pair of tokens, (token, token)."""
    x = torch.randn(1, SIZE.tokens, SIZE.width)
    jacobian = torch.autograd.functional.jacobian(model.mix, x)
    return torch.as_tensor(jacobian)[0, :, :, 0].abs().sum(dim=(1, 3))


influences = {name: influence(result.model) for name, result in trained.items()}
future = {n: int((m > 0).triu(1).sum()) for n, m in influences.items()}
past = {n: int((m > 0).tril().sum()) for n, m in influences.items()}
for name in influences:
    print(f"{name:12} future: {future[name]:2} pairs, past and present: {past[name]}")
all_pairs, both_wrong_pairs = past["both right"], past["both wrong"]
assert future["both right"] == future["both wrong"] == 0
assert min(future["wrong merge"], future["wrong split"]) > 0
assert all_pairs == 36  # all pairs with s <= t
assert both_wrong_pairs == 20  # two triangles of 10
assert (influences["both wrong"][4:, :4] == 0).all()

# %% fold=true
fig, axes = plt.subplots(1, 4, figsize=(7.2, 2.3), sharey=True)
sizes = torch.stack([*influences.values()])
sizes = sizes[sizes > 0].log()  # one scale of colours for all
for ax, (name, matrix) in zip(axes, influences.items(), strict=True):
    shown = torch.where(matrix > 0, matrix.log(), torch.nan)
    ax.imshow(shown.numpy(), vmin=sizes.min().item(), vmax=sizes.max().item())
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
# Im jaśniejsze pole, tym większy wpływ (skala logarytmiczna); puste pole to brak wpływu. Pola
# nad pomarańczową przekątną to przyszłość: mają je oba warianty z jedną pomyłką. Wariant „oba
# źle” ma na przekątnej i pod nią {{ both_wrong_pairs }} pól zamiast {{ all_pairs }}: z pierwszej
# połowy ciągu nic nie dociera do drugiej.
#
# Czy metoda `view` ostrzegłaby nas przed błędnym podziałem? Tutaj tak. Nie kopiuje, a w wyniku
# metody `chunk` kolejne tokeny leżą co {{ token_stride }} liczb, choć każdy ma ich
# {{ token_width }}, więc osi tokenu i szerokości nie da się połączyć. Na ciągłej kopii `view`
# przechodzi po cichu.

# %% [markdown] lang="en"
# The brighter the cell, the larger the influence (a logarithmic scale); an empty cell means no
# influence. Cells above the orange diagonal are the future: both variants with a single mistake
# have them. The variant “both wrong” has {{ both_wrong_pairs }} cells on and below the diagonal
# instead of {{ all_pairs }}: nothing from the first half of the sequence reaches the second.
#
# Would the method `view` have warned us of the wrong split? Here, yes. It does not copy, and in
# the result of the method `chunk` successive tokens are {{ token_stride }} numbers apart, though
# each has only {{ token_width }}, so the axes of token and width cannot be joined. On a
# contiguous copy `view` passes silently.

# %%
q, k, v = torch.randn(1, SIZE.tokens, 3 * SIZE.width).chunk(3, dim=-1)
token_stride, token_width = q.stride(1), q.shape[2]
print(f"{token_stride=} {token_width=}")
assert torch.equal(q.contiguous().view(1, 2, 8, 8), split_by_reshape(q))  # both silent

# %% raises="RuntimeError: view size is not compatible with input tensor's size and stride"
q.view(1, 2, 8, 8)

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

# %% [markdown] lang="pl" predict="which-copies"
# Tensor `image` ma osie `b c h w` i jest ciągły w pamięci. Który wzorzec przydzieli nową pamięć?
#
# - [ ] `b c h w -> b h w c`
#
#   To samo `permute`: zmienia się tylko kolejność kroków.
#
# - [ ] `b c h w -> b (h w) c`
#
#   Osie `h` i `w` sąsiadują w pamięci także po przestawieniu, więc łączy je `view`.
#
# - [x] `b c (h p) (w q) -> b (h w) (p q c)`
#
#   Po przestawieniu osie, które mają się połączyć, nie leżą w pamięci obok siebie. Widok jest
#   niemożliwy, więc `reshape` wywołuje `clone` i `_unsafe_view`: {{ patch_bytes }} B.
#
# - [ ] Żaden: wzorzec zmienia tylko kształt i kroki
#
#   Tak działają `permute` i `view`, ale nie każdy wzorzec da się nimi zapisać.

# %% [markdown] lang="en" predict="which-copies"
# The tensor `image` has the axes `b c h w` and is contiguous in memory. Which pattern allocates
# new memory?
#
# - [ ] `b c h w -> b h w c`
#
#   Just `permute`: only the order of strides changes.
#
# - [ ] `b c h w -> b (h w) c`
#
#   The axes `h` and `w` are still neighbours in memory after reordering, so `view` joins them.
#
# - [x] `b c (h p) (w q) -> b (h w) (p q c)`
#
#   After reordering, the axes to be joined are not neighbours in memory. A view is impossible, so `reshape` calls `clone` and `_unsafe_view`: {{ patch_bytes }} bytes.
#
# - [ ] None: a pattern changes only shape and strides
#
#   That is what `permute` and `view` do, but they cannot express every pattern.

# %%
image = torch.randn(2, 3, 8, 8)  # (b, c, h, w)


def trace(job: Callable[[], Tensor]) -> tuple[list[str], int]:
    """Operators that ran, and bytes that the result allocated."""
    with CallCounter() as calls, MemoryMeter() as meter:
        result = job()
    del result
    return list(calls.names.elements()), meter.peak


patchify = "b c (h p) (w q) -> b (h w) (p q c)"
traces = {
    "b c h w -> b h w c": trace(partial(rearrange, image, "b c h w -> b h w c")),
    "b c h w -> b (h w) c": trace(partial(rearrange, image, "b c h w -> b (h w) c")),
    patchify: trace(partial(rearrange, image, patchify, p=4, q=4)),
}
for pattern, (names, allocated) in traces.items():
    print(f"{pattern:39} {allocated:5} B  {', '.join(names)}")
patch_bytes = traces[patchify][1]
assert list(traces.values()) == [
    (["permute"], 0),
    (["permute", "view"], 0),
    (["view", "permute", "clone", "_unsafe_view"], image.nbytes),
]
by_hand = trace(
    lambda: image.view(2, 3, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 48)
)
assert by_hand == traces[patchify]

# %% [markdown] lang="pl"
# Łańcuch `view`, `permute`, `reshape` napisany ręcznie wywołał te same operacje i przydzielił
# tyle samo bajtów. W einops (tu {{ einops_version }}) wywołuje je funkcja `_apply_recipe` w pliku
# [einops.py](https://github.com/arogozhnikov/einops/blob/v0.8.2/einops/einops.py): dzieli osie,
# przestawia je i scala. O tym, czy `reshape` zwróci widok, czy kopię, decyduje PyTorch, w pliku
# [TensorShape.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorShape.cpp).
#
# ## `rearrange` w trzech krokach
#
# Zbudujmy to samo: parser nawiasów, brakujące rozmiary i trzy operacje.

# %% [markdown] lang="en"
# The chain `view`, `permute`, `reshape` written by hand called the same operations and
# allocated as many bytes. In einops (here {{ einops_version }}) the function `_apply_recipe`
# calls them, in
# [einops.py](https://github.com/arogozhnikov/einops/blob/v0.8.2/einops/einops.py): it splits
# axes, reorders them and merges them. Whether `reshape` returns a view or a copy is decided by
# PyTorch, in
# [TensorShape.cpp](https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/TensorShape.cpp).
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
# W {{ agreed }} z {{ tried }} losowych przypadków obie funkcje dały te same wartości i zgodnie
# zwróciły widok (w {{ view_share:.0f }}% przypadków) albo kopię. O tym, czy `reshape` na końcu
# skopiuje, decyduje
# [reguła kroków z pierwszej lekcji](01_storage_vs_view.py).
#
# ## Ile kosztuje wzorzec
#
# Operacje i bajty są te same, więc dochodzi tylko narzut (*overhead*) Pythona. Wzorzec jest
# czytany raz: gotowy przepis trafia do pamięci podręcznej (*cache*) i kolejne wywołania tylko go
# odszukują. Im większy tensor, tym mniej powinno to ważyć.

# %% [markdown] lang="en"
# In {{ agreed }} of {{ tried }} random cases both functions gave the same values and agreed on
# returning a view (in {{ view_share:.0f }}% of the cases) or a copy. Whether the `reshape` at the
# end copies follows from
# [the rule of strides from the first lesson](01_storage_vs_view.py).
#
# ## What a pattern costs
#
# The operations and the bytes are the same, so only overhead in Python is added. The pattern is
# read once: its recipe goes to a cache, and later calls only look it up. The larger the tensor,
# the less this should weigh.


# %%
def bare_merge(x: Tensor) -> Tensor:
    return x.permute(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


small, large = torch.randn(2, 2, 8, 8), torch.randn(8, 8, 256, 64)
merging = "batch head token d -> batch token (head d)"
cache = einops_module._prepare_transformation_recipe
cache.cache_clear()
for x in (small, large):
    by_einops = trace(partial(rearrange, x, merging))
    assert by_einops == trace(partial(bare_merge, x))
    assert by_einops[1] == x.nbytes
for _ in range(100):
    rearrange(small, merging)
print(cache.cache_info())
assert cache.cache_info()[:2] == (101, 1)  # hits, misses


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


ratios = []
for x, calls in ((small, 200), (large, 4)):
    jobs = [partial(rearrange, x, merging), partial(bare_merge, x)]
    pattern_s, bare_s = fastest(jobs, calls)
    ratios.append(pattern_s / bare_s)
small_ratio, large_ratio = ratios
small_numbers, large_numbers = small.numel(), large.numel()
print(f"{small_ratio=:.1f} {large_ratio=:.1f}")
assert large_ratio - 1 < (small_ratio - 1) / 2

# %% [markdown] lang="pl"
# Dla tensora o {{ small_numbers }} elementach wzorzec kosztował {{ small_ratio:.1f }}× tyle co
# same operacje, dla tensora o {{ large_numbers }} elementach {{ large_ratio:.1f }}×. Asercja
# wymaga, żeby względny narzut spadł co najmniej o połowę.
#
# ## Co się psuje i jak to zauważyć
#
# Funkcja `rearrange` zgłasza wyjątek, gdy rozmiar się nie dzieli, liczba osi się nie zgadza albo jakiejś osi
# brakuje po jednej stronie. A pomyłka z początku lekcji?

# %% [markdown] lang="en"
# For a tensor of {{ small_numbers }} elements the pattern cost {{ small_ratio:.1f }}× as much
# as the operations alone, for one of {{ large_numbers }} elements {{ large_ratio:.1f }}×. The
# assertion requires that the relative overhead falls at least by half.
#
# ## What breaks and how to notice
#
# The function `rearrange` raises an exception if a size does not divide, the number of axes differs, or an axis
# is missing on one side. And the mistake from the start of the lesson?

# %%
refusals = {
    "b c (h p) w -> b c h p w": "can't divide axis of length 8 in chunks of 3",
    "b c h -> b h c": "expected 3 dims. Received 4-dim tensor",
    "b c h w -> b c h": "Identifiers only on one side of expression",
}
for pattern, part in refusals.items():
    try:
        rearrange(image, pattern, **({"p": 3} if "p" in pattern else {}))
    except EinopsError as error:
        print(str(error).splitlines()[-1].strip())
        assert part in str(error)
    else:
        raise AssertionError(pattern)

x = torch.randn(3, SIZE.heads, SIZE.tokens, 8)
mistake = "batch head (pair two) d -> batch (head pair) (two d)"
assert torch.equal(rearrange(x, mistake, two=2), merge_heads(x))
owners = split_heads(numbered)  # each number is its token's
assert not torch.equal(merge_heads(owners), numbered)
for inner in ("head d", "d head"):
    merged = rearrange(owners, f"batch head token d -> batch token ({inner})")
    assert torch.equal(merged, numbered)

# %% [markdown] lang="pl"
# Da się ją zapisać wzorcem, ale trzeba w nim rozciąć oś tokenów:
# `batch head (pair two) d -> batch (head pair) (two d)`. Oś, która po obu stronach stoi osobno,
# nie zmiesza się z inną.
#
# Trzech rzeczy wzorzec nie sprawdza: rozmiaru, który przypadkiem się dzieli (`p=4, q=1` zamiast
# `p=2, q=2`), nazw po lewej stronie, bo tensor ich nie ma, i kolejności **wewnątrz** nawiasu.
# Podzielmy obraz na łatki trzema takimi pomyłkami:

# %% [markdown] lang="en"
# It can be written as a pattern, but the axis of tokens has to be cut in it:
# `batch head (pair two) d -> batch (head pair) (two d)`. An axis that stands alone on both sides
# does not mix with another.
#
# Three things a pattern does not check: a size that happens to divide (`p=4, q=1` instead of
# `p=2, q=2`), the names on the left side, because the tensor has none, and the order **inside**
# parentheses. Let's split an image into patches with these three mistakes:

# %%
pixels = torch.arange(16).reshape(1, 1, 4, 4)  # (b, c, h, w)
swapped_names = "b c (w q) (h p) -> b (h w) (p q c)"
swapped_order = "b c (p h) (q w) -> b (h w) (p q c)"
cuts = {
    "right": rearrange(pixels, patchify, p=2, q=2),
    "wrong size": rearrange(pixels, patchify, p=4, q=1),
    "wrong names": rearrange(pixels, swapped_names, p=2, q=2),
    "wrong order": rearrange(pixels, swapped_order, p=2, q=2),
}
for name, cut in cuts.items():
    print(f"{name:12} {tuple(cut.shape)}  first patch: {cut[0, 0].tolist()}")
assert {cut.shape for cut in cuts.values()} == {(1, 4, 4)}
firsts = [cut[0, 0].tolist() for cut in cuts.values()]
assert firsts == [[0, 1, 4, 5], [0, 4, 8, 12], [0, 4, 1, 5], [0, 2, 8, 10]]

# %% fold=true
fig, axes = plt.subplots(1, 4, figsize=(7.2, 2.1))
for ax, (name, cut) in zip(axes, cuts.items(), strict=True):
    order = cut.flatten().argsort().view(4, 4)  # where each pixel went
    patch, place = order // 4, order % 4
    ax.imshow(patch.numpy(), cmap=RAMP)
    for y in range(4):
        for x_at in range(4):
            label = ax.text(x_at, y, str(int(place[y, x_at])), ha="center", va="center")
            label.set(color=INK, gid=f"cell-{name.replace(' ', '-')}-{y}-{x_at}")
    ax.set_title(name, fontsize=10)
    ax.set_axis_off()
show_figure(
    fig,
    alt_pl="Obraz 4 na 4 pocięty czterema wzorcami. Dobrze: cztery kwadraty 2 na 2 z miejscami "
    "0, 1 w górnym wierszu i 2, 3 w dolnym. Zły rozmiar: łatka to kolumna. Złe nazwy: te same "
    "kwadraty, ale miejsca biegną w dół, a lewa dolna łatka zamieniła się z prawą górną. Zła "
    "kolejność: każda łatka bierze co drugi piksel.",
    alt_en="A 4 by 4 image cut by four patterns. Right: four squares of 2 by 2 with the places "
    "0, 1 in the upper row and 2, 3 in the lower. Wrong size: a patch is a column. Wrong "
    "names: the same squares, but places run downwards, and the lower left patch has changed "
    "places with the upper right one. Wrong order: each patch takes every second pixel.",
    pl={
        "right": "dobrze",
        "wrong size": "zły rozmiar",
        "wrong names": "złe nazwy",
        "wrong order": "zła kolejność",
    },
)

# %% [markdown] lang="pl"
# Kolor to łatka, liczba – miejsce w niej. Kształt wyniku jest za każdym razem ten sam, a wyjątku
# nie ma. Przy złym rozmiarze łatka to kolumna, przy złych nazwach piksele i łatki biegną w dół
# zamiast w prawo, przy złej kolejności łatka zbiera co drugi piksel.
#
# Skoro kształt nie wystarcza, dwaj strażnicy (*guards*), których możesz wkleić do testów, patrzą
# na wartości. Strażnik `assert_splits_heads` wypełnia wejście kolejnymi liczbami: każda głowa ma
# dostać te same miejsca każdego tokenu, a scalenie odtworzyć wejście. Strażnik `assert_causal`
# zaburza kolejno każdy token i wymaga, żeby wcześniejsze wyjścia się nie zmieniły. Podaj mu
# wektory tokenów (`float`, nie numery) i model w trybie `eval()`.

# %% [markdown] lang="en"
# The colour is the patch, the number the place in it. The shape of the result is the same every
# time, and there is no exception. With the wrong size a patch is a column, with the wrong names
# pixels and patches run downwards instead of to the right, with the wrong order a patch collects
# every second pixel.
#
# Since a shape is not enough, two guards that you can paste into your tests look at values. The
# guard `assert_splits_heads` fills the input with consecutive numbers: each head has to get the
# same places of every token, and the merge has to restore the input. The guard `assert_causal`
# disturbs one token after another and requires that earlier outputs do not change. Give it
# vectors of tokens (`float`, not their numbers) and a model in `eval()` mode.

# %%
from collections.abc import Callable

import torch
from torch import Tensor


def assert_splits_heads(
    split: Callable[[Tensor], Tensor],  # (b, token, width) -> (b, head, token, d)
    merge: Callable[[Tensor], Tensor],  # and back
    tokens: int,
    width: int,
) -> None:
    """Raise unless a head holds whole tokens, and the merge undoes the split."""
    x = torch.arange(2 * tokens * width).view(2, tokens, width)
    heads = split(x)
    token = torch.arange(2 * tokens).view(2, 1, tokens, 1)
    place = heads[:1, :, :1] % width  # the same for every token
    if not torch.equal(heads, token * width + place):
        raise ValueError("the split mixes tokens")
    if not torch.equal(merge(heads), x):
        raise ValueError("the merge does not undo the split")


@torch.no_grad()
def assert_causal(model: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Raise if an output depends on a later token; x has shape (b, token, width)."""
    before = model(x)
    if not (before.isfinite().all() and torch.equal(before, model(x))):
        raise ValueError("the output is not finite, or differs between two calls")
    for t in range(1, x.shape[1]):
        disturbed = x.clone()
        disturbed[:, t] = torch.randn_like(x[:, t]) - 2 * x[:, t]
        changed = (model(disturbed) != before).flatten(2).any(-1).any(0)  # (token,)
        if changed[:t].any():
            first = int(changed.nonzero()[0])
            raise ValueError(f"output {first} depends on the later token {t}")


# %%
def merge_swapped(x: Tensor) -> Tensor:
    return rearrange(x, "batch head token d -> batch token (d head)")


def merge_first(x: Tensor) -> Tensor:
    return merge_by_pattern(x[:, [0, 0]])  # drops the second head


def verdict(guard: Callable[[], None]) -> str:
    try:
        guard()
    except ValueError as error:
        return str(error)
    return "silent"


suspects = VARIANTS | {
    "swapped merge": (split_heads, merge_swapped),
    "dropped head": (split_heads, merge_first),
}
by_heads = {
    name: verdict(partial(assert_splits_heads, *pair, SIZE.tokens, SIZE.width))
    for name, pair in suspects.items()
}
models: dict[str, Function] = {name: r.model.mix for name, r in trained.items()}
models |= {"NaN": lambda x: x * math.nan, "dropout": nn.Dropout(0.5)}
vectors = torch.randn(4, SIZE.tokens, SIZE.width)
by_cause = {n: verdict(partial(assert_causal, m, vectors)) for n, m in models.items()}
for title, verdicts in (("heads", by_heads), ("causal", by_cause)):
    for name, text in verdicts.items():
        print(f"{title:6} {name:13} {text}")
assert [n for n, text in by_heads.items() if text == "silent"] == ["both right"]
assert [n for n, t in by_cause.items() if t == "silent"] == ["both right", "both wrong"]

# %% [markdown] lang="pl"
# Strażnik przyczynowości łapie oba przecieki, a NaN i losowość odrzuca. Nie łapie wariantu „oba
# źle”, bo ten niczego z przyszłości nie czyta. Strażnik głów łapie wszystkie pięć pomyłek, także
# scalenie `(d head)` i zgubioną głowę.
#
# Odpowiedź na pytanie lekcji: **wzorzec nie pomiesza osi, które stoją osobno, odrzuca złą liczbę
# osi i rozmiary, które się nie dzielą; przepuszcza zły rozmiar, który się dzieli, nieprawdziwe nazwy i złą
# kolejność w nawiasie.** Lekcję uruchomiono na CPU; na GPU wzorce wywołują te same operacje
# PyTorcha (tu niesprawdzone).
#
# ## Co już umiesz
#
# - Powiesz, czy dwa kształty zgadzają się przez przypadek, i sprawdzisz to na wartościach.
# - Przeczytasz wzorzec jako `reshape`, `permute`, `reshape` i przewidzisz, czy skopiuje.
# - Wymienisz, czego wzorzec nie sprawdzi: rozmiaru, który się dzieli, nazw i kolejności w
#   nawiasie.
#
# Wcześniej: [einsum](03_einsum_is_all_you_need.py). Dalej:
# [tensory o nazwanych osiach](07_named_tensors.py). Dokumentacja:
# [einops](https://einops.rocks/api/rearrange/).
#
# ## Pasy: sprawdź się

# %% [markdown] lang="en"
# The causality guard catches both leaks, and refuses NaN and randomness. It does not catch “both
# wrong”, because that one reads nothing from the future. The guard of heads catches all five
# mistakes, the merge `(d head)` and the dropped head among them.
#
# The answer to the question of this lesson: **a pattern does not mix axes that stand alone, and
# refuses a wrong number of axes and sizes that do not divide; it lets through a wrong size that divides, false names, and
# the wrong order inside parentheses.** The lesson ran on a CPU; on a GPU patterns call the same
# PyTorch operations (not checked here).
#
# ## Now you can
#
# - Tell whether two shapes agree by coincidence, and check it on values.
# - Read a pattern as `reshape`, `permute`, `reshape`, and predict whether it copies.
# - Say what a pattern does not check: a size that divides, the names, and the order inside
#   parentheses.
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
specifications: dict[str, tuple[Function, dict[str, int]]] = {
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
        assert "->" in patterns.get(name, ""), say(
            pl=f"{name}: brakuje wzorca", en=f"{name}: the pattern is missing"
        )
        wanted = specification(x)
        axis_names = re.findall(r"\w+", patterns[name])
        used = {axis: axis_sizes[axis] for axis in axis_sizes if axis in axis_names}
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

# %% [markdown] lang="pl" exercise="write-patterns" role="hint"
# W `pixel_unshuffle` piksele sąsiednie w obrazie trafiają do różnych kanałów: osie `r` i `s` są w
# obrazie wewnętrzne. Kolejność kanałów sprawdź na `torch.arange(8).reshape(1, 2, 2, 2)`.

# %% [markdown] lang="en" exercise="write-patterns" role="hint"
# In `pixel_unshuffle` pixels that are neighbours in the image go to different channels: the axes
# `r` and `s` are inner in the image. Check the order of channels on
# `torch.arange(8).reshape(1, 2, 2, 2)`.

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
# Napisz funkcję `sees(model, x)`, która zwraca macierz logiczną (token, token): pole `[t, s]`
# mówi, czy choć w jednej próbce partii wyjście `t` zależy od wejścia `s`. Model jest czarną
# skrzynką i nie musi być różniczkowalny.

# %% [markdown] lang="en" exercise="reach" role="prompt" belt="brown" minutes=15
# ### Brown: measure the reach
#
# Write a function `sees(model, x)` that returns a boolean matrix (token, token): the entry
# `[t, s]` tells whether in at least one sample of the batch output `t` depends on input `s`. The
# model is a black box and need not be differentiable.


# %% exercise="reach" role="starter"
def sees(model: Function, x: Tensor) -> Tensor:
    return torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool)  # your code


# %% exercise="reach" role="check"
def causal_sum(split: Function, merge: Function, x: Tensor) -> Tensor:
    return x + merge(split(x).cumsum(2))  # as causal attention, but exact


def gated_sum(x: Tensor) -> Tensor:  # mixes only samples whose first number is positive
    return torch.where(x[:, :1, :1] > 0, x.cumsum(1), x)


def mixer(mask: Tensor) -> Function:
    return lambda x: mask.float() @ x


def check_reach() -> None:
    """Compare with right answers, which are local: `sees` has to find its own."""
    torch.manual_seed(2)
    every = torch.ones(8, 8, dtype=torch.bool)
    x = torch.randint(1, 9, (3, 8, SIZE.width)).float()  # whole numbers: exact sums
    x = torch.where(torch.rand(x.shape) < 0.5, -x, x)
    boxes: list[tuple[str, Function, Tensor, Tensor]] = [
        ("identity", torch.clone, x, every.triu().tril()),
        ("cumsum", partial(torch.cumsum, dim=1), x, every.tril()),
        ("sum of signs", lambda x: x + x.sign().sum(1, keepdim=True), x, every),
        ("constant", torch.zeros_like, x, ~every),
    ]
    for name, pair in VARIANTS.items():
        boxes.append((name, partial(causal_sum, *pair), x, influences[name] > 0))
    for sample in range(3):
        gated = x.clone()
        gated[:, 0, 0] = -gated[:, 0, 0].abs()
        gated[sample, 0, 0] *= -1
        boxes.append((f"sample {sample}", gated_sum, gated, every.tril()))
    for trial in range(5):
        mask = torch.rand(8, 8) < 0.5
        boxes.append((f"random {trial}", mixer(mask), x, mask))

    for name, black_box, given, wanted in boxes:
        kept = given.clone()
        with torch.no_grad():
            seen = sees(black_box, given)
        assert torch.equal(given, kept), say(
            pl=f"{name}: zmieniasz wejście, które należy do wywołującego",
            en=f"{name}: you change the input that belongs to the caller",
        )
        assert seen.dtype == torch.bool and seen.shape == (8, 8), say(
            pl=f"{name}: ma być macierz logiczna (8, 8), jest {seen.dtype}, {seen.shape}",
            en=f"{name}: should be a boolean matrix (8, 8), got {seen.dtype}, {seen.shape}",
        )
        missed, invented = int((wanted & ~seen).sum()), int((seen & ~wanted).sum())
        assert not (missed or invented), say(
            pl=f"{name}: przeoczone zależności: {missed}, fałszywe: {invented}",
            en=f"{name}: {missed} dependencies missed, {invented} invented",
        )


check_reach()

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
def sees(model: Function, x: Tensor) -> Tensor:
    # A gradient: blind to steps.
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(model, x.clone())
    return torch.as_tensor(jacobian).abs().sum(dim=(0, 2, 3, 5)) > 0


# %% exercise="reach" role="wrong" says="sample 1: 21 dependencies missed"
def sees(model: Function, x: Tensor) -> Tensor:
    # Looks at the first sample only.
    before = model(x)
    columns = []
    for s in range(x.shape[1]):
        disturbed = x.clone()
        disturbed[:, s] *= -2
        columns.append((model(disturbed) != before)[0].any(-1))
    return torch.stack(columns, dim=1)


# %% exercise="reach" role="wrong" says="cumsum: 28 dependencies missed, 28 invented"
def sees(model: Function, x: Tensor) -> Tensor:
    # Fills rows instead of columns: the matrix is transposed.
    before = model(x)
    rows = []
    for s in range(x.shape[1]):
        disturbed = x.clone()
        disturbed[:, s] *= -2
        rows.append((model(disturbed) != before).any(-1).any(0))
    return torch.stack(rows)


# %% exercise="reach" role="wrong" says="you change the input"
def sees(model: Function, x: Tensor) -> Tensor:
    # x[:, s] is a view: the disturbances stay and add up.
    before = model(x)
    seen = torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool)
    for s in range(x.shape[1]):
        x[:, s] *= -2
        seen[:, s] = (model(x) != before).any(-1).any(0)
    return seen


# %% exercise="reach" role="solution"
def sees(model: Function, x: Tensor) -> Tensor:
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


torch.manual_seed(1)
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
