"""Regenerate everything that is copied from npm packages: `python -m blackbelt.vendor`.

Readers load no third-party file, so fonts and KaTeX live in the repository. The packages are
pinned by version and by the hash of their archive: the command gives the same bytes every time.
"""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

COMMAND = "uv run python -m blackbelt.vendor"
ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "docs" / "assets"
# KaTeX's program runs at build time only, so it is part of the engine and not of the site.
ENGINE_DATA = ROOT / "blackbelt" / "vendor_data"

FONTTOOLS = ("fonttools[woff]==4.68.0", "brotli==1.2.1")

# The Polish letters that are not in Latin-1; `óÓ` are.
POLISH = "ąćęłńśźżĄĆĘŁŃŚŹŻ"
LATIN = (
    "U+0000-00FF,U+0131,U+0152-0153,U+02C6,U+02DA,U+02DC,"
    "U+2000-206F,U+20AC,U+2122,U+2190-2193,U+2212,U+2215"
)
# Material switches ligatures off in code; without them JetBrains Mono is smaller by a third.
MONO_FEATURES = "kern,mark,mkmk,ccmp,locl"


@dataclass(frozen=True)
class Package:
    """One npm package; `sha256` is that of its archive."""

    name: str
    version: str
    sha256: str
    licence: str


ROBOTO = Package(
    "@fontsource-variable/roboto",
    "5.3.0",
    "03510ae8a8159543ebef8d35280cf6821099ef3f61d31858458ac8bf1a8e983e",
    "OFL-1.1",
)
JETBRAINS_MONO = Package(
    "@fontsource-variable/jetbrains-mono",
    "5.3.0",
    "996fe6368a480c9ce15d4de22a2682b7c40b403718fee2b15e7272f244fd993f",
    "OFL-1.1",
)
KATEX = Package(
    "katex",
    "0.19.1",
    "24da5a599eb2fcede2e270b99a6ff48bca816beecc95feeb84e8cccbd1bb34fd",
    "MIT",
)


def main() -> None:
    takers = {ROBOTO: _roboto, JETBRAINS_MONO: _jetbrains_mono, KATEX: _katex}
    taken: dict[Package, list[Path]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for package, take in takers.items():
            taken[package] = list(take(_unpack(package, Path(temporary))))
            for path in taken[package]:
                print(f"{path.stat().st_size:>8,} B  {path.relative_to(ROOT)}")
    (ASSETS / "VENDORED.toml").write_text(_provenance(taken), encoding="utf-8")


def _unpack(package: Package, folder: Path) -> Path:
    packed = subprocess.run(
        ["npm", "pack", f"{package.name}@{package.version}", "--json", "--silent"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    name: str = json.loads(packed.stdout)[0]["filename"]
    archive = folder / name
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{name} has sha256 {found}, expected {package.sha256}")
    target = folder / archive.stem
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target / "package"


def _roboto(package: Path) -> Iterator[Path]:
    return _font(package, "roboto", features="*")


def _jetbrains_mono(package: Path) -> Iterator[Path]:
    return _font(package, "jetbrains-mono", features=MONO_FEATURES)


def _font(package: Path, name: str, features: str) -> Iterator[Path]:
    polish = ",".join(f"U+{ord(letter):04X}" for letter in POLISH)
    for source, letters, unicodes in (("latin", "latin", LATIN), ("latin-ext", "polish", polish)):
        target = ASSETS / "fonts" / f"{name}-{letters}.woff2"
        _subset(package / f"files/{name}-{source}-wght-normal.woff2", target, unicodes, features)
        yield target
    yield _copy(package / "LICENSE", ASSETS / f"fonts/{name}-LICENSE.txt")


def _katex(package: Path) -> Iterator[Path]:
    yield _copy(package / "dist/katex.min.js", ENGINE_DATA / "katex.min.js")
    yield _copy(package / "LICENSE", ENGINE_DATA / "katex-LICENSE.txt")
    yield _copy(package / "LICENSE", ASSETS / "katex/LICENSE.txt")
    style = (package / "dist/katex.min.css").read_text()
    # Every browser that can show the site reads woff2; the other formats would be dead weight.
    style, removed = re.subn(r',url\(fonts/[\w-]+\.(?:woff|ttf)\) format\("\w+"\)', "", style)
    fonts = sorted(set(re.findall(r"url\((fonts/[\w-]+\.woff2)\)", style)))
    if removed != 2 * len(fonts):
        raise SystemExit(f"katex.min.css: {len(fonts)} fonts, but {removed} other sources")
    target = ASSETS / "katex/katex.min.css"
    target.write_text(style)
    yield target
    for font in fonts:
        yield _copy(package / "dist" / font, ASSETS / "katex" / font)


def _subset(source: Path, target: Path, unicodes: str, features: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    tool, brotli = FONTTOOLS
    command = ["uvx", "--from", tool, "--with", brotli, "pyftsubset", str(source)]
    options = ["--flavor=woff2", f"--unicodes={unicodes}", f"--layout-features={features}"]
    subprocess.run([*command, *options, f"--output-file={target}"], check=True)


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def faults(root: Path) -> Iterator[str]:
    """What in the folders of vendored files is not what `VENDORED.toml` says."""
    text = (root / "docs/assets/VENDORED.toml").read_text(encoding="utf-8")
    listed = {
        file["path"]: file["sha256"]
        for package in tomllib.loads(text)["package"]
        for file in package["files"]
    }
    folders = ("docs/assets/fonts", "docs/assets/katex", "blackbelt/vendor_data")
    paths = [path for name in folders for path in (root / name).rglob("*") if path.is_file()]
    there = {path.relative_to(root).as_posix(): path for path in paths}
    for name in sorted(there.keys() | listed.keys()):
        if name not in there:
            yield f"{name}: listed, but not there; next: {COMMAND}"
        elif name not in listed:
            yield f"{name}: of no package that is listed; next: {COMMAND}"
        elif hashlib.sha256(there[name].read_bytes()).hexdigest() != listed[name]:
            yield f"{name}: not what the package holds; next: {COMMAND}"


def _provenance(taken: dict[Package, list[Path]]) -> str:
    lines = [
        f"# Written by `{COMMAND}`; change the versions there.",
        "# A `sha256` of a package is of its archive. Fonts have only the letters of the course.",
    ]
    for package, files in taken.items():
        lines += ["", "[[package]]"]
        lines += [f'{item.name} = "{getattr(package, item.name)}"' for item in fields(package)]
        lines += ["files = ["]
        for path in files:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lines += [f'  {{ path = "{path.relative_to(ROOT).as_posix()}", sha256 = "{digest}" }},']
        lines += ["]"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
