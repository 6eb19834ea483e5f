# %% [markdown] lang="pl"
# # Ćwiczenia
#
# Każde jest sprawdzone w obie strony.

# %% [markdown] lang="en"
# # Exercises
#
# Each is proven both ways.

# %%
from snippets.bilingual import say

goal = 6

# %% [markdown] lang="pl"
# ## Sprawdź się

# %% [markdown] lang="en"
# ## Test yourself

# %% [markdown] lang="pl" exercise="product" role="prompt" belt="white" minutes=5
# ### Iloczyn `a * b`
#
# Napisz funkcję, której wynikiem jest {{ goal }}.

# %% [markdown] lang="en" exercise="product" role="prompt" belt="white" minutes=5
# ### The product `a * b`
#
# Write a function whose result is {{ goal }}.

# %% exercise="product" role="starter"
def product(a: int, b: int) -> int:
    return 0  # your code


# %% exercise="product" role="check"
got = product(2, 3)
assert got == goal, say(pl=f"miało być {goal}, a jest {got}", en=f"wanted {goal}, got {got}")

# %% [markdown] lang="pl" exercise="product" role="hint"
# Zobacz [wyżej](#exercises): `a * b`.

# %% [markdown] lang="en" exercise="product" role="hint"
# See [above](#exercises): `a * b`.

# %% [markdown] lang="pl" exercise="product" role="hint"
# Jednym znakiem.

# %% [markdown] lang="en" exercise="product" role="hint"
# With one character.

# %% exercise="product" role="wrong" says="got 5"
def product(a: int, b: int) -> int:
    return a + b


# %% exercise="product" role="wrong" says="got 8"
def product(a: int, b: int) -> int:
    return a**b


# %% exercise="product" role="solution"
def product(a: int, b: int) -> int:
    return a * b


# %% [markdown] lang="pl" exercise="shortest" role="prompt" belt="black" minutes=30
# ### Najkrótsze ćwiczenie

# %% [markdown] lang="en" exercise="shortest" role="prompt" belt="black" minutes=30
# ### The shortest exercise

# %% exercise="shortest" role="starter"
answer = 0

# %% exercise="shortest" role="check"
assert answer, "something is wanted"
print("thank you")

# %% exercise="shortest" role="solution"
answer = 1
print("computed")
