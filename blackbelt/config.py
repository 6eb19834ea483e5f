"""What the project says about itself, read from `pyproject.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """The project that a command works on.

    Attributes:
        root: folder of `pyproject.toml`.
        repository: address of the repository, the one place that the site derives addresses from.
        imports: packages that lessons may import beside the standard library.
        cell_seconds: longest run of one cell, in seconds.
        lesson_seconds: longest run of all cells of a lesson, in seconds.
        output_characters: longest text that one output may hold.
    """

    root: Path
    repository: str
    imports: tuple[str, ...]
    cell_seconds: int
    lesson_seconds: int
    output_characters: int

    @property
    def lessons(self) -> Path:
        return self.root / "lessons"

    @property
    def snippets(self) -> Path:
        return self.root / "snippets"

    @property
    def docs(self) -> Path:
        return self.root / "docs"

    @property
    def cache(self) -> Path:
        return self.root / ".cache"

    @cached_property
    def owner_and_name(self) -> str:
        """Such as `owner/name`."""
        return "/".join(self.repository.rstrip("/").split("/")[-2:])

    @cached_property
    def site_url(self) -> str:
        """Address of the published site: GitHub Pages of the repository."""
        owner, name = self.owner_and_name.split("/")
        return f"https://{owner}.github.io/{name}/"

    def source_url(self, path: str) -> str:
        """Address of a file of the repository, for a link to its lines."""
        return f"{self.repository.rstrip('/')}/blob/main/{path}"


def load_project(start: Path | None = None) -> Project:
    """Read the project that `start` (default: the working directory) belongs to.

    Raises:
        FileNotFoundError: no `pyproject.toml` with a `[tool.blackbelt]` table here or above.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            data = tomllib.loads(file.read_text(encoding="utf-8"))
            if settings := data.get("tool", {}).get("blackbelt"):
                return Project(
                    root=folder,
                    repository=data["project"]["urls"]["Repository"],
                    imports=tuple(settings["imports"]),
                    cell_seconds=settings["cell_seconds"],
                    lesson_seconds=settings["lesson_seconds"],
                    output_characters=settings["output_characters"],
                )
    raise FileNotFoundError(
        f"{start} is not inside the course: no pyproject.toml with [tool.blackbelt] here or above"
    )
