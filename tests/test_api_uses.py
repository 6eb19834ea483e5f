"""Names of PyTorch are found in lessons as they are written, and nothing else is."""

import pytest
from tiny import REPOSITORY, TinyCourse

from blackbelt.api_index import api_index
from blackbelt.api_uses import Use, api_uses
from blackbelt.config import load_project
from blackbelt.course import load_course
from blackbelt.torch_names import members, owner

PACKAGES = ("torch", "einops")
PATH = "lessons/1_first/01_names.py"


def prose(*lines: str) -> str:
    """A pair of the same text, which needs no words of its own here."""
    text = "\n".join(f"# {line}" if line else "#" for line in lines)
    return f'# %% [markdown] lang="pl"\n{text}\n\n# %% [markdown] lang="en"\n{text}\n\n'


def code(*lines: str) -> str:
    return "# %%\n" + "\n".join(lines) + "\n\n"


def uses(course: TinyCourse, *cells: str) -> dict[str, Use]:
    course.write(PATH, prose("# Title", "", "Description.") + "".join(cells))
    loaded = course.load()
    assert loaded.problems == ()
    return {use.name: use for use in api_uses(loaded.lessons[0], PACKAGES)}


def test_imports_are_resolved(course: TinyCourse) -> None:
    found = uses(
        course,
        code(
            "import torch",
            "import torch.nn.functional as F",
            "from torch import nn",
            "from torch.utils.data import DataLoader as Loader",
            "import einops",
            "import numpy as np",
            "layer = nn.Linear(2, 2)",
            "y = F.relu(layer(torch.zeros(1, 2)))",
            "z = einops.rearrange(y, 'a b -> b a')",
            "loader = Loader([np.zeros(1)])",
        ),
    )
    assert set(found) == {
        "torch.nn.Linear",
        "torch.nn.functional.relu",
        "torch.zeros",
        "torch.utils.data.DataLoader",
        "einops.rearrange",
    }
    assert not any(use.explains for use in found.values())


def test_name_that_is_assigned_is_not_what_was_imported(course: TinyCourse) -> None:
    found = uses(
        course,
        code("from torch.utils.checkpoint import checkpoint", "from torch import nn"),
        code("checkpoint = {'a': 1}", "print(checkpoint.keys())"),
        code("def f(nn: int) -> int:", "    return nn.bit_length()"),
    )
    assert found == {}


@pytest.mark.parametrize(
    "span", ["view", "x.view(6)", "Tensor.view", "torch.Tensor.view", ".view()"]
)
def test_prose_confirms_a_method_that_code_uses(course: TinyCourse, span: str) -> None:
    use = code("import torch", "x = torch.zeros(2, 3)", "x.view(6)")
    assert "torch.Tensor.view" not in uses(course, use)
    found = uses(course, use, prose("## Later", "", f"Here is `{span}`."))
    assert found["torch.Tensor.view"].explains


def test_word_in_prose_that_code_does_not_use_is_no_method(course: TinyCourse) -> None:
    found = uses(course, prose("The word `view`, and `split` of a text, twice `split`."))
    assert found == {}


def test_attribute_that_no_class_of_torch_has_is_left_out(course: TinyCourse) -> None:
    found = uses(course, code("text = 'a'", "text.casefold()"), prose("The method `casefold`."))
    assert found == {}


def test_storage_is_no_tensor(course: TinyCourse) -> None:
    found = uses(
        course,
        code("import torch", "torch.zeros(1).untyped_storage().nbytes()"),
        prose("The size `nbytes`, again `nbytes`."),
    )
    assert found["torch.UntypedStorage.nbytes"].explains
    assert "torch.Tensor.nbytes" not in found


def test_the_contract_of_a_function_is_the_library_s(course: TinyCourse) -> None:
    found = uses(
        course,
        code(
            "import torch",
            "class Square(torch.autograd.Function):",
            "    @staticmethod",
            "    def backward(ctx, grad):",
            "        return grad",
            "def gather(x):",
            "    return x.gather()",
        ),
        prose("What `backward` returns: `backward` returns one gradient, `gather` nothing."),
    )
    assert found["torch.autograd.Function.backward"].explains
    assert "torch.Tensor.backward" not in found
    # The lesson's own function is not the method of that name.
    assert "torch.Tensor.gather" not in found


@pytest.mark.parametrize(
    ("texts", "explains"),
    [
        (["One word: `torch.save`."], False),
        (["Two words: `torch.save` and `torch.save`."], True),
        (["## On `torch.save`", "", "Text."], True),
        (["[docs](https://docs.pytorch.org/docs/stable/generated/torch.save.html)"], True),
        (["[docs](https://docs.pytorch.org/docs/2.15/notes/serialization.html#torch.save)"], True),
        (["[code](https://example.org/generated/torch.save.html)"], None),
    ],
)
def test_what_explains(course: TinyCourse, texts: list[str], explains: bool | None) -> None:
    found = uses(course, prose(*texts))
    assert (found["torch.save"].explains if found else None) == explains


def test_a_passing_word_explains_together_with_a_use(course: TinyCourse) -> None:
    found = uses(course, prose("Then `torch.save`."), code("import torch", "torch.save"))
    assert found["torch.save"].explains


def test_place_is_the_section_that_says_most(course: TinyCourse) -> None:
    found = uses(
        course,
        prose("A word: `view`."),
        prose("## First", "", "Another `view`."),
        prose("## All about `view`", "", "It is `view` that fails."),
        code("import torch", "torch.zeros(1).view(1)"),
        prose("## Last", "", "And `view`.")
        + prose("[view](https://docs.pytorch.org/docs/stable/generated/torch.Tensor.view.html)"),
    )
    assert found["torch.Tensor.view"].section == "all-about-view"
    assert found["torch.zeros"].section == "all-about-view"


def test_what_stands_above_all_sections_belongs_to_the_title(course: TinyCourse) -> None:
    assert uses(course, code("import torch", "torch.ones"))["torch.ones"].section == "title"


def test_private_names_are_listed_only_if_they_are_explained(course: TinyCourse) -> None:
    use = code("import torch", "torch._dynamo.reset()")
    assert uses(course, use) == {}
    assert "torch._dynamo.reset" in uses(course, use, prose("Call `torch._dynamo.reset`."))


def test_lessons_that_explain_come_first(course: TinyCourse) -> None:
    use = code("import torch", "torch.zeros(1).view(1)")
    texts = {
        "01_a": use,
        "02_b": use + prose("A word on `view`."),
        "03_c": use + prose("## All of `view`"),
        "04_d": use + prose("Just `x`."),
    }
    for name, text in texts.items():
        title = prose(f"# Title {name[:2]}", "", "Description.")
        course.write(f"lessons/1_first/{name}.py", title + text)
    names = {name.name: name for name in api_index(course.project, course.load().lessons)}
    view = names["torch.Tensor.view"]
    assert [mention.lesson.number for mention in view.explained] == ["03", "02"]
    assert [mention.lesson.number for mention in view.used] == []
    zeros = names["torch.zeros"]
    assert [mention.lesson.number for mention in zeros.used] == ["01", "02", "03", "04"]
    assert [name.last for name in api_index(course.project, course.load().lessons)] == [
        "view",
        "zeros",
    ]


def test_damaged_cache_is_read_again(course: TinyCourse, monkeypatch: pytest.MonkeyPatch) -> None:
    course.write(PATH, prose("# Title", "", "Text.") + code("import torch", "torch.ones(1)"))
    lessons = course.load().lessons
    before = api_index(course.project, lessons)
    [file] = (course.root / ".cache" / "api").iterdir()
    for damage in ("", "[{}]", "{", '[{"name": "x"}]'):
        file.write_text(damage, encoding="utf-8")
        monkeypatch.setattr("blackbelt.api_index._read", {})
        assert api_index(course.project, lessons) == before
    assert before[0].name == "torch.ones"


def test_classes_of_the_installed_torch_are_found() -> None:
    """An upgrade of torch that moves a class would empty its part of the index."""
    assert [name for name, found in members().items() if not found] == []
    assert owner("view") == owner("is_leaf") == "torch.Tensor"
    assert owner("to") == "torch.Tensor"
    assert owner("to", "model") == owner("register_buffer") == "torch.nn.Module"
    assert owner("save_for_backward") == "torch.autograd.function.FunctionCtx"
    assert owner("no_such_method") == ""


def test_real_lesson_explains_what_it_is_about() -> None:
    course = load_course(load_project(REPOSITORY))
    [lesson] = course.select(("01",))
    explained = [use.name for use in api_uses(lesson, PACKAGES) if use.explains]
    assert {"torch.Tensor.view", "torch.Tensor.reshape", "torch.save"} <= set(explained)
