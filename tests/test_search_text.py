"""What the search reads of a built page."""

import pytest

from blackbelt.site.search_text import CODE, OUTPUT, PROSE, Text, document, read

PAGE = """\
<html lang="pl"><head><meta name="search-boost" content="{boost}"><title>T</title></head>
<body><nav>Menu</nav><article class="md-content__inner"><h1 id="t">Tytuł<a class="headerlink">¶</a>
</h1><div class="bb-bar">Lekcja 1</div>{body}</article><footer>Stopka</footer></body></html>
"""


def page(body: str, boost: float = 1) -> Text:
    return read(PAGE.format(body=body, boost=boost))


def test_headings_and_terms_begin_sections() -> None:
    found = page(
        "<p>Wstęp.</p><h2 id='one'>Jeden <code>view</code></h2><p>A</p>"
        "<div><h3 id='two'>Dwa</h3><p>B</p></div>"
        "<dl><dt><strong id='term'>krok</strong> · <em>stride</em></dt><dd>C</dd></dl>"
    )
    assert [(s.anchor, s.title, [text for _, text in s.parts()]) for s in found.sections] == [
        ("", "Tytuł", ["Wstęp."]),
        ("one", "Jeden view", ["A"]),
        ("two", "Dwa", ["B"]),
        ("term", "krok · stride", ["C"]),
    ]
    assert found.language == "pl"


def test_code_weighs_less_than_prose_and_outputs_least() -> None:
    found = page(
        "<p>Proza</p><div class='nb-input highlight'><pre><span></span><code>"
        "<span class='n'>x</span><span class='o'>.</span><span class='n'>view</span>\n"
        "<span class='n'>y</span></code></pre></div>"
        "<div class='nb-output'><p class='nb-label'>Pomiar</p>"
        "<pre class='nb-text'>12 ms</pre></div>"
        "<p>i <code>kod</code> w zdaniu.</p>"
    )
    assert list(found.sections[0].parts()) == [
        (PROSE, "Proza"),
        (CODE, "x.view y"),
        (OUTPUT, "12 ms"),
        (PROSE, "i kod w zdaniu."),
    ]


@pytest.mark.parametrize(
    "hidden",
    [
        "<nav>x</nav>",
        "<svg><title>x</title></svg>",
        "<span class='katex-mathml'><math><mi>x</mi></math></span>",
        "<p class='exercise__meta'><span>x</span></p>",
        "<form>x<input><button>x</button></form>",
        "<script>x</script>",
        "<details><summary>x</summary></details>",
        "<section data-pagefind-ignore><p>x</p></section>",
        "<p class='bb-provenance'>x <a href='#'>x</a></p>",
    ],
)
def test_what_the_page_is_not_about_is_left_out(hidden: str) -> None:
    assert list(page(f"<p>a</p>{hidden}<p>b</p>").sections[0].parts()) == [(PROSE, "a b")]


def test_heading_without_an_address_belongs_to_its_section() -> None:
    found = page("<p>a</p><h4>Uwaga</h4><p>b</p>")
    assert list(found.sections[0].parts()) == [(PROSE, "a Uwaga b")]


def test_boost_comes_from_the_page() -> None:
    assert page("", boost=0.25).boost == 0.25


def test_markup_in_a_text_stays_text() -> None:
    (section,) = page("<pre>&lt;/pre&gt; &lt;script&gt;</pre>").sections
    assert "&lt;/pre&gt; &lt;script&gt;</pre>" in document(section, "pl")


def test_names_are_words_and_letters_fold() -> None:
    (section,) = page("<p>Słowo x.requires_grad=True, a-b.</p>").sections
    written = document(section, "pl")
    assert "Sl\u0335owo x.\u2060 requires_grad=\u2060 True, a-\u2060 b." in written
    assert written.startswith('<html lang="pl">')
