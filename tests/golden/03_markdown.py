# %% [markdown] lang="pl"
# # Przenośny Markdown
#
# Lista zaraz po akapicie jest listą:
# - raz,
# - dwa
#   w dwóch wierszach,
#   1. zagnieżdżona,
#   2. numerowana.
#
# ## Komunikaty
#
# > [!NOTE]
# > Uwaga z **wyróżnieniem** oraz `kodem`.
#
# > [!TIP]
# > Wskazówka.
# >
# > Drugi akapit.
#
# > [!IMPORTANT]
# > Ważne.
#
# > [!WARNING]
# > Ostrzeżenie.
#
# > [!CAUTION]
# > Pułapka.
#
# > Zwykły cytat.
#
# ## Sekcje zwijane
#
# <details><summary>Odpowiedź</summary>
#
# Treść i lista:
#
# - **A.** Tak.
# - **B.** Nie.
#
# ```python
# view(6)
# ```
#
# </details>
#
# ## Tabela
#
# | operacja | koszt | uwagi |
# | :--- | ---: | :-: |
# | `view` | 0 | ~~kopia~~ widok |
# | `a \| b` | $n^2$ | *kursywa* |
#
# ## Matematyka
#
# W zdaniu $a_i = \sum_j b_{ij}$, a ceny (5$ i 6$) zostają.
#
# $$
# \operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}
# $$
#
# ## Kod
#
# ```python
# x = a * b  # w zdaniu i w kodzie
#
# y = x[::2]
# ```
#
# ````text
# ```
# ogrodzenie w ogrodzeniu
# ```
# ````
#
# Gwiazdka 2 \* 3, podkreślenie snake_case, `__init__` oraz <https://pytorch.org>.
# Wiersz złamany  
# tutaj.

# %% [markdown] lang="en"
# # Portable Markdown
#
# A list right after a paragraph is a list:
# - one,
# - two
#   on two lines,
#   1. nested,
#   2. numbered.
#
# ## Alerts
#
# > [!NOTE]
# > A note with **emphasis** and `kodem`.
#
# > [!TIP]
# > A tip.
# >
# > A second paragraph.
#
# > [!IMPORTANT]
# > Important.
#
# > [!WARNING]
# > A warning.
#
# > [!CAUTION]
# > A pitfall.
#
# > A plain quotation.
#
# ## Folds
#
# <details><summary>The answer</summary>
#
# Content and a list:
#
# - **A.** Yes.
# - **B.** No.
#
# ```python
# view(6)
# ```
#
# </details>
#
# ## A table
#
# | operation | cost | remarks |
# | :--- | ---: | :-: |
# | `view` | 0 | ~~copy~~ view |
# | `a \| b` | $n^2$ | *italics* |
#
# ## Mathematics
#
# In a sentence $a_i = \sum_j b_{ij}$, and prices (5$ and 6$) stay.
#
# $$
# \operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}
# $$
#
# ## Code
#
# ```python
# x = a * b  # in a sentence and in code
#
# y = x[::2]
# ```
#
# ````text
# ```
# a fence in a fence
# ```
# ````
#
# A star 2 \* 3, an underscore snake_case, `__init__` and <https://pytorch.org>.
# A line broken  
# here.
