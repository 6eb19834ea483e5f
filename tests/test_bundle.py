"""The style sheets and scripts of `mkdocs.yml` become one file each, and mean the same."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from py_mini_racer import MiniRacer

from blackbelt.problems import CourseError
from blackbelt.site.bundle import bundle, join_scripts, join_styles

CONFIGURATION = """\
site_name: x
theme: mkdocs
plugins: []
extra_css: [css/b.css, css/a.css, more/c.css, "https://example.com/d.css"]
extra_javascript:
  - { path: js/b.js, defer: true }
  - js/now.js
  - { path: js/a.js, defer: true }
  - { path: js/module.js, type: module }
  - { path: "https://example.com/d.js", defer: true }
"""
FILES = {
    "css/a.css": "a { color: red } /* why */\n",
    "css/b.css": "b { background: url(../img/x.svg) }\n",
    "more/c.css": "c { background: url('c.svg') }\n",
    "js/a.js": "const name = 'a'; // why\nlog.push(name);\n",
    "js/b.js": "const name = 'b';\nlog.push(name)",
    "js/now.js": "",
    "js/module.js": "",
}


@pytest.fixture
def config(tmp_path: Path) -> MkDocsConfig:
    for name, text in FILES.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "mkdocs.yml").write_text(CONFIGURATION)
    return load_config(str(tmp_path / "mkdocs.yml"))


def test_pages_load_one_file_of_each_kind(config: MkDocsConfig) -> None:
    styles, scripts = bundle(config, hashed=True)
    assert re.fullmatch(r"css/bundle\.[0-9a-f]{8}\.css", styles.address)
    assert re.fullmatch(r"js/bundle\.[0-9a-f]{8}\.js", scripts.address)
    assert config.extra_css == [styles.address, "https://example.com/d.css"]
    assert styles.sources == ("css/b.css", "css/a.css", "more/c.css")
    assert scripts.sources == ("js/b.js", "js/a.js")
    first, *others = config.extra_javascript
    assert str(first) == scripts.address
    assert getattr(first, "defer", False)
    # They run at once, later or not from here; joining them would change that.
    assert [str(x) for x in others] == ["js/now.js", "js/module.js", "https://example.com/d.js"]


def test_names_follow_the_content_and_nothing_else(config: MkDocsConfig) -> None:
    file = config.config_file_path
    again = bundle(load_config(file), hashed=True)
    assert bundle(config, hashed=True) == again
    path = Path(config.docs_dir) / "css/a.css"
    path.write_text("a { color: red } /* another reason */\n")
    assert bundle(load_config(file), hashed=True) == again
    path.write_text("a { color: blue }\n")
    changed = bundle(load_config(file), hashed=True)
    assert changed[0].address != again[0].address
    assert changed[1] == again[1]
    served = bundle(load_config(file), hashed=False)
    assert [made.address for made in served] == ["css/bundle.css", "js/bundle.js"]


def test_styles_keep_their_order_and_addresses() -> None:
    sources = [
        ("css/b.css", "b { background: url(../img/x.svg) }"),
        (
            "css/a.css",
            "a { background: url( 'near.svg#part' ), url(\"data:image/svg+xml,<svg/>\") }",
        ),
        ("deep/er/c.css", "c { background: URL(../../img/x.svg); mask: url(#m) }"),
        ("katex/d.css", "d::before { content: 'url(left/alone)' ; mask: url(/root.svg) }"),
    ]
    text = join_styles(sources, "css")
    found = re.findall(r"url\(([^)]*)\)", text, re.I)
    assert [unquote(address.strip("'\"")) for address in found] == [
        "../img/x.svg",
        "near.svg#part",
        "data:image/svg+xml,<svg/>",
        "../img/x.svg",
        "#m",
        "left/alone",
        "/root.svg",
    ]
    assert [text.index(f"{letter}{{") for letter in "bac"] == sorted(
        text.index(f"{letter}{{") for letter in "bac"
    )


def test_values_of_styles_are_kept() -> None:
    text = (
        ":root { --empty: ; --icon: url(\"data:image/svg+xml;charset=utf-8,<svg x='1 + 2'/>\") }\n"
        "a:not( .b ) > c:is(:hover, :focus) { width: calc(1.2em - .05rem); margin: 0 .5em }\n"
        "@media screen and (min-width: 60em) { a { translate: 0 -1px } }\n"
    )
    made = join_styles([("css/a.css", text)], "css")
    for part in (
        "<svg x='1 + 2'/>",
        "calc(1.2em - .05rem)",
        "0 .5em",
        "0 -1px",
        "screen and (min-width:",
    ):
        assert part in made


def run(*sources: str) -> list[str]:
    engine = MiniRacer()
    script = join_scripts([(f"js/{n}.js", text) for n, text in enumerate(sources)], "js")
    start = "const log = []; const reportError = (e) => log.push(`reported ${e.message}`);"
    engine.eval(start + script)
    return [str(x) for x in json.loads(str(engine.eval("JSON.stringify(log)")))]


def test_scripts_run_in_order_and_keep_their_names() -> None:
    one = "const name = 'one'; function f() { return name } log.push(f())"
    two = "const name = 'two'; function f() { return name }\nlog.push(f()) // the end"
    assert run(one, two) == ["one", "two"]


def test_script_that_fails_is_reported_and_does_not_stop_the_others() -> None:
    assert run("log.push('a')", "nothing.at.all()", "log.push('b')") == [
        "a",
        "reported nothing is not defined",
        "b",
    ]


def test_values_of_scripts_are_kept() -> None:
    source = r"""
    const n = 3;
    log.push(`two  spaces // and ${n + `in  ${ "}" } /* side */`} end`);
    log.push("a // b" + '/* c */' + /[/"'`]\/\/ /g.source);
    const half = n / 2 / 1; // a comment
    log.push(String(half));
    const twice = (x) => x
      * 2
    ;[1, 2].forEach((x) => log.push(String(twice(x))))
    """
    assert run(source) == [
        "two  spaces // and 3in  } /* side */ end",
        "a // b/* c */[/\"'`]\\/\\/ ",
        "1.5",
        "2",
        "4",
    ]


def test_script_that_is_not_valid_is_reported(config: MkDocsConfig) -> None:
    (Path(config.docs_dir) / "js/a.js").write_text("const = 1;\n")
    with pytest.raises(CourseError) as caught:
        bundle(config, hashed=True)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("mkdocs.yml", 8)
    assert "docs/js/a.js is not valid" in problem.what


@pytest.mark.parametrize(
    ("name", "line", "what"),
    [("css/a.css", 4, "docs/css/a.css is missing"), ("js/a.js", 8, "docs/js/a.js is missing")],
)
def test_missing_file_is_reported(config: MkDocsConfig, name: str, line: int, what: str) -> None:
    (Path(config.docs_dir) / name).unlink()
    with pytest.raises(CourseError) as caught:
        bundle(config, hashed=True)
    assert [(p.path, p.line, p.what) for p in caught.value.problems] == [("mkdocs.yml", line, what)]


def test_rule_that_stands_alone_is_reported(config: MkDocsConfig) -> None:
    (Path(config.docs_dir) / "more/c.css").write_text('@import "a.css";\n')
    with pytest.raises(CourseError) as caught:
        bundle(config, hashed=True)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("mkdocs.yml", 4)
    assert "docs/more/c.css has @import" in problem.what


def test_every_script_and_style_sheet_of_the_site_is_joined() -> None:
    """A file that `mkdocs.yml` does not list would be published and never loaded."""
    root = Path(__file__).parent.parent
    config = load_config(str(root / "mkdocs.yml"))
    made = bundle(config, hashed=True)
    joined = {source for one in made for source in one.sources}
    assets = root / "docs" / "assets"
    written = {path.relative_to(root / "docs").as_posix() for path in assets.glob("css/*.css")}
    written |= {path.relative_to(root / "docs").as_posix() for path in assets.glob("js/*.js")}
    # The page of errors loads one before it is shown, the search another when it is opened.
    assert written - joined == {"assets/js/not-found.js", "assets/js/search-engine.js"}
