"""Addresses of pages below the root of the site."""


def url(path: str, language: str) -> str:
    """Address as templates give it to MkDocs' `url` filter: Polish at the root, English below."""
    return path if language == "pl" else f"{language}/{path}"
