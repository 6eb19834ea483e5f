# %% [markdown] lang="pl"
# # Pytania
#
# Zanim uruchomisz.

# %% [markdown] lang="en"
# # Questions
#
# Before you run.

# %% [markdown] lang="pl" predict="file-of-a-view"
# Zapisujesz na dysk `view` o 10 B. Ile zajmie plik?
#
# ```python
# save(view)
# ```
#
# - [ ] Około {{ size }} B
#
#   Tyle ma `view`, ale plik ma {{ whole }} B.
#
#   - pierwszy powód
#   - drugi
#
# - [x] Około 4 MB, czyli
#   cały magazyn
#
#   ```python
#   assert whole == 4_000_000
#   ```
#
#   Zobacz [wyżej](#questions).
#
# - [ ] Zależy od $s$
#
#   > [!NOTE]
#   > Krok nie zmienia niczego.

# %% [markdown] lang="en" predict="file-of-a-view"
# You save `view`, which has 10 B, to disk. How long is the file?
#
# ```python
# save(view)
# ```
#
# - [ ] About {{ size }} B
#
#   That is what `view` has, but the file has {{ whole }} B.
#
#   - a first reason
#   - a second
#
# - [x] About 4 MB, that is
#   the whole storage
#
#   ```python
#   assert whole == 4_000_000
#   ```
#
#   See [above](#questions).
#
# - [ ] That depends on $s$
#
#   > [!NOTE]
#   > The stride changes nothing.

# %%
size, whole = 10, 4_000_000
