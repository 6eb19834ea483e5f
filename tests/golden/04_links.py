# %% [markdown] lang="pl"
# # Odnośniki i adresy nagłówków
#
# Na obu stronach adres nagłówka pochodzi z angielskiego tekstu.
#
# ## Kiedy `view` się nie uda?
#
# - Do tej lekcji: [wyżej](#when-view-fails) i [niżej](#the-end).
# - Do innej: [pary](01_pairs.py), [lista komunikatów](03_markdown.py#alerts).
# - Do innego modułu: [dalej](../2_second/90_good.py#title).
# - Do sieci: [dokumentacja](https://pytorch.org/docs/stable/index.html#torch).
# - Z kodem: [`view`](01_pairs.py) i [z **wyróżnieniem**](03_markdown.py#code).
# - Tylko tekst: `[pary](01_pairs.py)`.
#
# ### Nagłówek głębiej
#
# ## Zażółć gęślą jaźń

# %% [markdown] lang="en"
# # Links and addresses of headings
#
# On both pages the address of a heading comes from its English text.
#
# ## When `view` fails?
#
# - To this lesson: [above](#when-view-fails) and [below](#the-end).
# - To another one: [pairs](01_pairs.py), [the list of alerts](03_markdown.py#alerts).
# - To another module: [further](../2_second/90_good.py#title).
# - To the web: [the documentation](https://pytorch.org/docs/stable/index.html#torch).
# - With code: [`view`](01_pairs.py) and [with **emphasis**](03_markdown.py#code).
# - Only text: `[pary](01_pairs.py)`.
#
# ### A deeper heading
#
# ## The end
