# %% [markdown] lang="pl"
# # Zapowiedziane skutki
#
# Wyjątek i ostrzeżenie, pomiar i zwinięty kod.

# %% [markdown] lang="en"
# # Declared outcomes
#
# An exception and a warning, a measurement and folded code.

# %% raises="ValueError: seven"
print("before")
raise ValueError("not seven\nbut eight: <b>8</b>")

# %% warns="UserWarning: careful"
import warnings

warnings.warn("careful, <i>please</i>", stacklevel=1)
print("after")

# %% warns=["UserWarning: one", "RuntimeWarning: two"] raises="KeyError"
warnings.warn("one", stacklevel=1)
warnings.warn("two", RuntimeWarning, stacklevel=1)
{}["three"]

# %% measured=true
print("1.25 s")

# %% fold=true
print("long drawing code")

# %% fold=true measured=true
print("0.5 s")

# %% fold=true
nothing_to_see = True
