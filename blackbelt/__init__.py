"""The engine of PyTorch Black Belt: one executable file becomes two pages and two notebooks.

The modules are the steps of the pipeline, in this order: `read`, `assemble`, `check`, `run`,
`render` and `notebook`, `publish`. Nothing outside `blackbelt.site` knows about MkDocs, and
only `run` executes the code of lessons.
"""
