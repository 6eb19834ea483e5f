"""How numbers and spaces are written. `_` stands for a no-break space, `'` for a narrow one."""

from collections.abc import Mapping

import pytest

from blackbelt.results import Value
from blackbelt.typography import fill, pieces, set_type, write_number, write_value


def plain(text: str) -> str:
    return text.replace("\u00a0", "_").replace("\u202f", "'").replace("\u2212", "−")


class TestOneLetterWords:
    @pytest.mark.parametrize(
        ("text", "polish"),
        [
            ("", ""),
            ("w pamięci", "w_pamięci"),
            ("W pamięci", "W_pamięci"),
            ("a w pamięci", "a_w_pamięci"),
            ("a i o u w z x", "a_i_o_u_w_z_x"),
            ("dom i kot", "dom i_kot"),
            ("dom i\nkot", "dom i_kot"),
            ("(w pamięci)", "(w_pamięci)"),
            ("„z magazynu”", "„z_magazynu”"),
            ("**w pamięci**", "**w_pamięci**"),
            ("w **pamięci**", "w_**pamięci**"),
            ("w *pamięci*", "w_*pamięci*"),
            ("w `view`", "w_`view`"),
            ("z $x$", "z_$x$"),
            ("w [lekcji](x.py)", "w_[lekcji](x.py)"),
            ("w [`view`](x.py)", "w_[`view`](x.py)"),
            ("w <https://pytorch.org>", "w_<https://pytorch.org>"),
            ("i {{ x }}", "i_{{ x }}"),
            ("o 3 kroki", "o_3 kroki"),
            # Letters that are part of something else.
            ("krowa kota", "krowa kota"),
            ("PyTorch'a kod", "PyTorch'a kod"),
            ("x y", "x y"),
            ("w", "w"),
            ("w ", "w "),
            ("w\n\nnowy akapit", "w\n\nnowy akapit"),
            ("w  dwie spacje", "w  dwie spacje"),
        ],
    )
    def test_polish(self, text: str, polish: str) -> None:
        assert plain(set_type(text, "pl")) == polish

    @pytest.mark.parametrize(
        "text",
        [
            "wariant A\n- lista",
            "- wariant A\n- wariant B",
            "- wariant A\n  1. raz",
            "1. wariant A\n2. wariant B",
            "1) wariant A\n2) wariant B",
            "> wariant A\n> dalej",
            "| a | w |\n| - | - |\n| o | z |",
            "## Wariant A\nTekst.",
            "Wariant A\n## Nagłówek",
            "Wariant A\n```python\nx\n```",
            "Wariant A\n$$\nx\n$$",
            "<details><summary>A</summary>\n\nx\n\n</details>",
        ],
    )
    def test_blocks_stay_apart(self, text: str) -> None:
        assert set_type(text, "pl").split("\n") == text.split("\n")

    @pytest.mark.parametrize("text", ["a house", "I see a cat", "A cat and\na dog", "x i y"])
    def test_english_is_left_alone(self, text: str) -> None:
        assert set_type(text, "en") == text


class TestUnits:
    @pytest.mark.parametrize("language", ["pl", "en"])
    @pytest.mark.parametrize(
        ("text", "typeset"),
        [
            ("5 B", "5_B"),
            ("5 kB", "5_kB"),
            ("5 MB", "5_MB"),
            ("5 GiB", "5_GiB"),
            ("1,5 GB", "1,5_GB"),
            ("3 s", "3_s"),
            ("3 ms", "3_ms"),
            ("3 µs", "3_µs"),
            ("3 ns", "3_ns"),
            ("40 %", "40_%"),
            ("7 px", "7_px"),
            ("2 GFLOP", "2_GFLOP"),
            # Not units.
            ("5 Bytes", "5 Bytes"),
            ("3 seconds", "3 seconds"),
            ("3 mseconds", "3 mseconds"),
            ("x B", "x B"),
            ("5  B", "5  B"),
            ("5B", "5B"),
        ],
    )
    def test_units(self, text: str, typeset: str, language: str) -> None:
        assert plain(set_type(text, language)) == typeset


class TestVerbatim:
    @pytest.mark.parametrize(
        "text",
        [
            "`w pamięci`",
            "``w ` pamięci``",
            "`a w\npamięci`",
            "```python\nx = a  # w pamięci 5 B\n```",
            "~~~\nw pamięci\n~~~",
            "````\n```\nw pamięci\n```\n````",
            "```python\nw pamięci",
            "- lista:\n\n  ```python\n  w pamięci\n  ```",
            "1. lista:\n\n    ```python\n    w pamięci\n    ```",
            "1. lista:\n\n    ~~~python\n    w pamięci\n    ~~~",
            "> ```python\n> w pamięci\n> ```",
            "Tekst.\n\n    w pamięci",
            "$w x$",
            "$$w x$$",
            "$$\nw x\n$$",
            "<a w b>",
            "[x](<a w b.py>)",
            '[x](a.py "w pamięci")',
            "<https://pytorch.org>",
        ],
    )
    def test_code_links_and_formulas_are_left_alone(self, text: str) -> None:
        assert set_type(text, "pl") == text

    def test_text_around_them_is_not(self) -> None:
        text = "w domu `w domu` w domu $w x$ w domu [w domu](w.py) 5 B"
        wanted = "w_domu `w domu` w_domu $w x$ w_domu [w_domu](w.py) 5_B"
        assert plain(set_type(text, "pl")) == wanted

    @pytest.mark.parametrize(
        "text", ["cena 5$ i 6$ w sumie", "5 $ i 6 $", "jeden ` i drugi", "a \\` w b"]
    )
    def test_single_marks_open_nothing(self, text: str) -> None:
        assert [verbatim for verbatim, _ in pieces(text)] == [False]

    @pytest.mark.parametrize(
        "text", ["", "x", "`a`b`c`", "$a$ b ```c```", "```\nx\n```\ny\n~~~\nz", "[a](b)[c](d)"]
    )
    def test_pieces_are_the_text(self, text: str) -> None:
        assert "".join(part for _, part in pieces(text)) == text


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "pl", "en"),
        [
            ("0", "0", "0"),
            ("7", "7", "7"),
            ("2048", "2048", "2048"),
            ("12345", "12'345", "12,345"),
            ("1234567", "1'234'567", "1,234,567"),
            ("1,234,567", "1'234'567", "1,234,567"),
            ("1_234_567", "1'234'567", "1,234,567"),
            ("-1", "−1", "−1"),
            ("-12345.5", "−12'345,5", "−12,345.5"),
            ("+3", "+3", "+3"),
            ("2.50", "2,50", "2.50"),
            ("0.001", "0,001", "0.001"),
            ("12345.678", "12'345,678", "12,345.678"),
            ("1.5e+06", "1,5_·_10⁶", "1.5_·_10⁶"),
            ("1e-19", "1_·_10⁻¹⁹", "1_·_10⁻¹⁹"),
            ("-1e+00", "−1_·_10⁰", "−1_·_10⁰"),
            ("25%", "25%", "25%"),
            ("25.6%", "25,6%", "25.6%"),
            # Not numbers.
            ("", "", ""),
            ("inf", "inf", "inf"),
            ("nan", "nan", "nan"),
            ("float32", "float32", "float32"),
            ("2.15.0", "2.15.0", "2.15.0"),
            ("0x1f", "0x1f", "0x1f"),
            ("1 2", "1 2", "1 2"),
        ],
    )
    def test_write_number(self, text: str, pl: str, en: str) -> None:
        assert plain(write_number(text, "pl")) == pl
        assert plain(write_number(text, "en")) == en

    @pytest.mark.parametrize(
        ("value", "spec", "pl", "en"),
        [
            (7, "", "7", "7"),
            (-7, "", "−7", "−7"),
            (10**15, "", "1'000'000'000'000'000", "1,000,000,000,000,000"),
            (2.0, "", "2", "2"),
            (3.14159, "", "3,142", "3.142"),
            (3.14159, ".2f", "3,14", "3.14"),
            (0.1 + 0.2, "", "0,3", "0.3"),
            (123456.0, "", "1,235_·_10⁵", "1.235_·_10⁵"),
            (123456.0, ".0f", "123'456", "123,456"),
            (123456, ",", "123'456", "123,456"),
            (123456, ".1e", "1,2_·_10⁵", "1.2_·_10⁵"),
            (0.256, ".0%", "26%", "26%"),
            (255, "x", "ff", "ff"),
            (5, "+d", "+5", "+5"),
            (7, "03d", "007", "007"),
            (float("inf"), "", "inf", "inf"),
            (True, "", "True", "True"),
            ("float32", "", "float32", "float32"),
            ("3.5", "", "3.5", "3.5"),
            ("a_b*c`[d]", "", r"a\_b\*c\`\[d\]", r"a\_b\*c\`\[d\]"),
            ("<b> | $x$ \\", "", r"\<b\> \| \$x\$ \\", r"\<b\> \| \$x\$ \\"),
            ("abc", ">5", "  abc", "  abc"),
        ],
    )
    def test_write_value(self, value: Value, spec: str, pl: str, en: str) -> None:
        assert plain(write_value(value, spec, "pl")) == pl
        assert plain(write_value(value, spec, "en")) == en


class TestFill:
    VALUES: Mapping[str, Value] = {"x": 12345, "y": 2.5, "name": "a_b", "flag": False}

    @pytest.mark.parametrize(
        ("text", "polish"),
        [
            ("{{ x }}", "12'345"),
            ("{{  x  }}", "12'345"),
            ("{{ x:.1f }}", "12'345,0"),
            ("{{ x }}{{ y }}", "12'3452,5"),
            ("**{{ y }}**", "**2,5**"),
            ("[{{ y }}](a.py)", "[2,5](a.py)"),
            ("{{ name }} {{ flag }}", r"a\_b False"),
            ("`{{ x }}`", "`12345`"),
            ("`{{ y:.3f }} {{ name }}`", "`2.500 a_b`"),
            ("``{{ y }}``", "``2.5``"),
            ("| {{ y }} |", "| 2,5 |"),
            ("```python\n{{ x }}\n```", "```python\n{{ x }}\n```"),
            ("~~~\n{{ x }}\n~~~", "~~~\n{{ x }}\n~~~"),
            ("{{x}} { x } {% x %}", "{{x}} { x } {% x %}"),
            ("nothing", "nothing"),
        ],
    )
    def test_fill(self, text: str, polish: str) -> None:
        assert plain(fill(text, dict(self.VALUES), "pl")) == polish

    def test_formula_is_filled_as_tex(self) -> None:
        """A space between thousands or a comma as a list's would be set by TeX as it stands."""
        assert fill("${{ y }} n$", dict(self.VALUES), "en") == "$2.5 n$"

    def test_unknown_name(self) -> None:
        with pytest.raises(KeyError, match="z"):
            fill("{{ z }}", dict(self.VALUES), "pl")

    def test_specification_that_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match="Unknown format code 'd'"):
            fill("{{ y:d }}", dict(self.VALUES), "pl")
