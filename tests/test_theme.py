"""The theme's copies of Material's templates follow the installed Material."""

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path

UPSTREAM = Path(str(files("material"))) / "templates" / "partials"
THEME = Path(__file__).parent.parent / "blackbelt" / "site" / "theme" / "partials"
NOTE = re.compile(r"\A\{#-.*?-#\}\n", re.S)


def template(folder: Path, name: str) -> str:
    return NOTE.sub("", (folder / name).read_text(encoding="utf-8"))


def inline_script(source: str) -> str:
    found = re.search(r"<script[^>]*>(.*?)</script>", source, re.S)
    assert found
    return found[1]


def test_policy_allows_exactly_the_inline_scripts() -> None:
    scripts = [
        inline_script(template(THEME, "javascripts/base.html")),
        inline_script(template(UPSTREAM, "javascripts/palette.html")),
        # The first script of this file is for linked tabs, which the site does not have.
        inline_script(template(UPSTREAM, "javascripts/content.html").split("{% endif %}")[1]),
    ]
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}
    assert set(re.findall(r"'sha256-([^']+)'", template(THEME, "security.html"))) == hashes


def test_base_script_differs_only_in_where_the_base_is() -> None:
    upstream = inline_script(template(UPSTREAM, "javascripts/base.html"))
    ours = inline_script(template(THEME, "javascripts/base.html"))
    page_base = '"{{ config.extra.scope | d(base_url) }}"'
    assert ours == upstream.replace(page_base, "document.currentScript.dataset.base")


def test_header_differs_only_in_its_search_and_menu() -> None:
    upstream = template(UPSTREAM, "header.html")
    search = re.search(
        r'    \{% if "material/search" in.*?(?=    \{% if config.repo_url)', upstream, re.S
    )
    assert search
    place = '    {% include "partials/site-search.html" %}\n'
    menu = 'for="__drawer">'
    assert upstream.count(menu) == 1
    name = """<span class="bb-unseen">{{ lang.t('nav') }}</span>"""
    reachable = f'for="__drawer" tabindex="0">{name}'
    expected = upstream.replace(search[0], place).replace(menu, reachable)
    assert template(THEME, "header.html") == expected


def test_navigation_differs_only_in_names_and_the_keyboard() -> None:
    icon = '<span class="md-nav__icon md-icon"></span>'
    title = "{{ nav_item.title | striptags }}"
    index = f'id="{{{{ path }}}}_label" tabindex="{{{{ tabindex }}}}">\n{" " * 16}{icon}'
    changes = {
        'aria-labelledby="{{ path }}_label"': f'aria-label="{title}"',
        index: f'{index}<span class="bb-unseen">{title}</span>',
        '"md-nav__title" for="{{ path }}">': '"md-nav__title" for="{{ path }}" tabindex="0">',
    }
    expected = template(UPSTREAM, "nav-item.html")
    for upstream, ours in changes.items():
        assert expected.count(upstream) == 1
        expected = expected.replace(upstream, ours)
    assert template(THEME, "nav-item.html") == expected


def test_link_to_the_repository_asks_nobody() -> None:
    upstream = template(UPSTREAM, "source.html")
    assert template(THEME, "source.html") == upstream.replace(' data-md-component="source"', "")
