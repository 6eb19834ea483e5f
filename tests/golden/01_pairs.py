# %% [markdown] lang="pl"
# # Pary i wspólny kod
#
# Pierwszy akapit jest opisem strony. Może mieć
# dwa wiersze.
#
# Reszta to treść.

# %% [markdown] lang="en"
# # Pairs and shared code
#
# The first paragraph is the page's description. It may have
# two lines.
#
# The rest is content.

# %%
# A comment of the code, in English on both pages.
total = sum(range(5))

print(f"total {total}")
print("\ttwo lines in one output")

# %% [markdown] lang="pl"
# Wartość ostatniego wyrażenia komórki:

# %% [markdown] lang="en"
# The value of a cell's last expression:

# %%
print("printed first")
[total, str(total)]

# %%
quiet = True

# %% lang="pl"
print("tylko po polsku")

# %% lang="en"
print("only in English")

# %% [markdown] lang="pl"
# Koniec.

# %% [markdown] lang="en"
# The end.
