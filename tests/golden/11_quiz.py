# %% [markdown] lang="pl"
# # Sprawdzian
#
# Cztery pytania.

# %% [markdown] lang="en"
# # A quiz
#
# Four questions.

# %%
elements = 12_345

# %% [markdown] lang="pl" quiz="exam" question="which"
# Które jest parzyste?
#
# - [ ] Trzy
#
#   Dzieli się przez 3.
#
# - [x] Cztery
#
#   Dzieli się przez 2.

# %% [markdown] lang="en" quiz="exam" question="which"
# Which one is even?
#
# - [ ] Three
#
#   It divides by 3.
#
# - [x] Four
#
#   It divides by 2.

# %% [markdown] lang="pl" quiz="exam" question="which-ones" kind="many"
# Które są nieparzyste?
#
# - [x] Jeden
#
#   Zostaje 1.
#
# - [ ] Dwa
#
#   Nic nie zostaje.
#
# - [x] Trzy
#
#   Zostaje 1.

# %% [markdown] lang="en" quiz="exam" question="which-ones" kind="many"
# Which ones are odd?
#
# - [x] One
#
#   One is left.
#
# - [ ] Two
#
#   Nothing is left.
#
# - [x] Three
#
#   One is left.

# %% [markdown] lang="pl" quiz="exam" question="how-many" kind="type"
# Ile jest elementów?
#
# - [x] {{ elements }}
#
#   Tyle zwraca `numel`.
#
# - [ ] `12`
#
#   To liczba wierszy.

# %% [markdown] lang="en" quiz="exam" question="how-many" kind="type"
# How many elements are there?
#
# - [x] {{ elements }}
#
#   That is what `numel` returns.
#
# - [ ] `12`
#
#   That is the number of rows.

# %% [markdown] lang="pl" quiz="exam" question="steps" kind="order"
# Co po czym?
#
# 1. `forward`
#
#    Buduje graf.
#
# 2. `backward`
#
#    Idzie po grafie.
#
# 3. `step`
#
#    Zmienia wagi.

# %% [markdown] lang="en" quiz="exam" question="steps" kind="order"
# What follows what?
#
# 1. `forward`
#
#    Builds the graph.
#
# 2. `backward`
#
#    Walks the graph.
#
# 3. `step`
#
#    Changes the weights.
