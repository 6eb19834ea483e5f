# %% [markdown] lang="pl"
# # Polska typografia
#
# Słowa jednoliterowe nie zostają na końcu wiersza: a w pamięci, i z powrotem, o krok.
# W drugim wierszu też, nawet gdy wiersz źródła kończy się na w
# samym środku.
#
# - Jednostki: 5 B, 16 KiB, 2 GB, 3 ms, 12 µs, 40 %, 7 px.
# - Wartość z jednostką: {{ size }} B, {{ seconds:.1f }} s.
# - Przed kodem i wyróżnieniem: w `view`, z **magazynem**, i [odnośnik](#polish-typography).
# - W kodzie nic: `a w b`, `5 B`.
# - We wzorze nic: $a w b$.
#
# 1. Wariant A
# 2. Wariant B
#
# ## Wariant I
# Tekst zaraz pod nagłówkiem.

# %% [markdown] lang="en"
# # Polish typography
#
# One-letter words may end a line: a thing I see.
# In the second line, too, even where a line of the source ends with a
# word.
#
# - Units: 5 B, 16 KiB, 2 GB, 3 ms, 12 µs, 40 %, 7 px.
# - A value with a unit: {{ size }} B, {{ seconds:.1f }} s.
# - Before code and emphasis: a `view`, a **storage**, a [link](#polish-typography).
# - Nothing in code: `a w b`, `5 B`.
# - Nothing in a formula: $a w b$.
#
# 1. Variant A
# 2. Variant B
#
# ## Variant I
# Text right below the heading.

# %%
size, seconds = 12_345, 0.25
