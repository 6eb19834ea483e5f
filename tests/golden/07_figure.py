# %% [markdown] lang="pl"
# # Rysunek
#
# Jeden rysunek, dwa języki.

# %% [markdown] lang="en"
# # A figure
#
# One figure, two languages.

# %% fold=true
from matplotlib import pyplot as plt

from snippets.figures import BLUE, show_figure

fig, ax = plt.subplots(figsize=(3.0, 2.0))
ax.plot([0, 1], [0.5, 1.5], color=BLUE)
ax.set_title("Bytes")
print("beside the figure")
show_figure(
    fig,
    alt_pl="Prosta [0, 1] rośnie.",
    alt_en="A line [0, 1] rises.",
    pl={"Bytes": "Bajty"},
)
