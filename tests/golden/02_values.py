# %% [markdown] lang="pl"
# # Wartości w zdaniach
#
# Liczba pochodzi z wykonania: {{ small }} i {{ big }}.

# %% [markdown] lang="en"
# # Values in sentences
#
# A number comes from the run: {{ small }} and {{ big }}.

# %%
import numpy as np

small, big = 7, 1_234_567
four_digits = 2048
negative = -42
ratio = 2.5
precise = 3.14159265
huge = 6.02e23
tiny = 1.6e-19
share = 0.256
none_left = 0
name = "float32"
sharp = "a*b_c [d] <e>"
is_view = True
one_element = np.array([[2.5]])

# %% [markdown] lang="pl"
# - Duże liczby: {{ big }}, {{ four_digits }}, {{ big:,d }}.
# - Ujemne: {{ negative }}, {{ negative:+d }}.
# - Zmiennoprzecinkowe: {{ ratio }}, {{ precise }}, {{ precise:.2f }}, {{ big:.1f }}.
# - Wykładnicze: {{ huge }}, {{ tiny }}, {{ big:.1e }}.
# - Procenty: {{ share:.0% }}, {{ share:.1% }}.
# - Napisy: {{ name }}, {{ sharp }}, {{ is_view }}.
# - Tensor z jednym elementem: {{ one_element }}, {{ one_element:.3f }}.
# - W kodzie: `{{ big }}`, `{{ precise:.2f }}`, `{{ negative }}`, `{{ huge }}`, `{{ sharp }}`.
# - **Razem {{ big }}**, [odnośnik z {{ small }}](https://pytorch.org), {{ none_left }}.
#
# | co | ile |
# | --- | --: |
# | bajty | {{ big }} |
#
# Tu nic się nie dzieje:
#
# ```python
# f"{{ big }}"
# ```
#
# ## Nagłówek z liczbą {{ small }}

# %% [markdown] lang="en"
# - Big numbers: {{ big }}, {{ four_digits }}, {{ big:,d }}.
# - Negative: {{ negative }}, {{ negative:+d }}.
# - Floating point: {{ ratio }}, {{ precise }}, {{ precise:.2f }}, {{ big:.1f }}.
# - Exponents: {{ huge }}, {{ tiny }}, {{ big:.1e }}.
# - Percent: {{ share:.0% }}, {{ share:.1% }}.
# - Texts: {{ name }}, {{ sharp }}, {{ is_view }}.
# - A tensor with one element: {{ one_element }}, {{ one_element:.3f }}.
# - In code: `{{ big }}`, `{{ precise:.2f }}`, `{{ negative }}`, `{{ huge }}`, `{{ sharp }}`.
# - **Together {{ big }}**, [link with {{ small }}](https://pytorch.org), {{ none_left }}.
#
# | what | how many |
# | --- | --: |
# | bytes | {{ big }} |
#
# Nothing happens here:
#
# ```python
# f"{{ big }}"
# ```
#
# ## A heading with the number {{ small }}
