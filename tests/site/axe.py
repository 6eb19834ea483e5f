"""What axe-core finds wrong with a page."""

from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]

# Half-way through a transition, colours are nobody's choice; some animations never end.
STILL = """() => Promise.allSettled(
  document.getAnimations()
    .filter(animation => Number.isFinite(animation.effect.getComputedTiming().endTime))
    .map(animation => animation.finished))"""


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong, with the first element of each kind."""
    page.evaluate(AXE)
    page.evaluate(STILL)
    found: dict[str, Any] = page.evaluate("rules => axe.run(document, { runOnly: rules })", RULES)
    # Without this, a page on which nothing was looked at would be one without mistakes.
    assert len(found["passes"]) > 15
    return [
        f"{rule['id']}: {rule['help']}: {len(rule['nodes'])} x {node['target']} "
        f"{node['html'][:200]} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"][:1]
    ]
