# %% [markdown] lang="pl"
# # Tekst w obu językach
#
# Komórka mówi do czytelnika w języku strony.

# %% [markdown] lang="en"
# # Text in both languages
#
# A cell speaks to the reader in the language of the page.

# %%
from snippets.bilingual import say
from snippets.shapes import describe

same = True
print(say(pl="ten sam magazyn" if same else "inny", en="the same storage" if same else "another"))
print("2 +", say(pl="dwa", en="two"), "= 4;", say(pl="koniec", en="end"))

# %%
from snippets.shapes import area

print(describe(2, 3), area(2, 3))

# %%
from snippets.shapes import area

# %% raises="ValueError: too big"
raise ValueError(say(pl="za duże", en="too big"))

# %% warns="UserWarning: careful"
import warnings

warnings.warn(say(pl="ostrożnie", en="careful"), stacklevel=1)
