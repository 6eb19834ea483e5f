"""The MkDocs plugin: starts the pipeline and puts its pages into the theme.

It is mkdocs-jupyter's plugin with two answers replaced. There, a notebook is the file of a page,
is turned into HTML by nbconvert, and is copied beside the page for download. Here the notebook
still is the file and the download, but the body is the Markdown that the engine rendered, so
that Material styles it like any other page. mkdocs-static-i18n builds the site once for each
language, one build inside the other; `_nested` tells them apart.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jinja2
from mkdocs import utils
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.livereload import LiveReloadServer
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext
from mkdocs_jupyter.plugin import Plugin as JupyterPlugin

from blackbelt.config import Project, load_project
from blackbelt.glossary import Term, load_glossary
from blackbelt.prepare import Prepared, prepare
from blackbelt.problems import CourseError
from blackbelt.progress import Progress
from blackbelt.publish import FOLDER, publish
from blackbelt.site import context as page_context
from blackbelt.site import extras, head, nav, offline, pages
from blackbelt.site.bundle import Bundle, bundle
from blackbelt.site.html_cache import HtmlCache
from blackbelt.site.search import Indexer, index
from blackbelt.strings import for_language

# static-i18n makes new File objects of every file and keeps as pages only those whose ending is
# listed here; mkdocs-jupyter's own wrapper is lost there. One line makes notebooks pages for both.
if ".ipynb" not in utils.markdown_extensions:
    utils.markdown_extensions += (".ipynb",)  # type: ignore[assignment]

_THEME = Path(__file__).parent / "theme"
_log = logging.getLogger("mkdocs.plugins.blackbelt")
# mkdocs-jupyter reports every notebook that it copies.
logging.getLogger("mkdocs.plugins.mkdocs_jupyter").setLevel(logging.WARNING)


class BlackbeltPlugin(JupyterPlugin):
    """Options are those of mkdocs-jupyter; `mkdocs.yml` says which are set and why."""

    def __init__(self) -> None:
        super().__init__()
        self._serving = False
        self._project: Project
        self._glossary: tuple[Term, ...]
        self._prepared: Prepared
        self._published: frozenset[str]
        self._bundles: tuple[Bundle, ...] = ()
        self._given: Prepared | None = None
        self._html: HtmlCache | None = None
        self._theme_files: list[str] | None = None
        self._indexer = Indexer()

    def serve(self, prepared: Prepared, glossary: tuple[Term, ...], *, everything: bool) -> None:
        """Build this next, instead of preparing the course and waiting for its runs.

        Args:
            prepared: what there is to show.
            glossary: the glossary as it is now.
            everything: whether more than single pages has changed since the last time.
        """
        self._given, self._glossary = prepared, glossary
        self._html = self._html or HtmlCache()
        if everything:
            self._theme_files = None

    def on_startup(self, *, command: str, dirty: bool) -> None:
        self._serving = command == "serve"

    @event_priority(10)  # before static-i18n (-100), which needs site_url
    def on_config(self, config: MkDocsConfig) -> MkDocsConfig:
        if not self._nested(config):
            self._project = load_project(Path(config.config_file_path).parent)
            if self._given:
                self._prepared = self._given
            else:
                self._prepare()
            others = extras.extras(self._prepared, cards=not (self._serving or offline.asked()))
            self._published = publish(self._project, self._prepared, others)
            self._bundle(config)
        self._configure(config)
        if self._given:
            self._remember_theme_files(config)
        return config

    def _prepare(self) -> None:
        only = tuple(os.environ.get("BLACKBELT_ONLY", "").split())
        progress = Progress()
        try:
            self._prepared = prepare(self._project, only, progress)
            self._glossary = load_glossary(self._project.root)
        except CourseError as error:
            raise PluginError(str(error)) from None
        progress.summary()
        if self._prepared.problems:
            text = "\n".join(str(problem) for problem in self._prepared.problems)
            if not self._serving:
                raise PluginError(f"the course has problems:\n{text}")
            _log.error("lessons with problems show them on their pages:\n%s", text)

    def _configure(self, config: MkDocsConfig) -> None:
        language = self._language(config)
        strings = for_language(language)
        address = config.site_url or self._project.site_url
        config.site_url = "" if offline.asked() else address
        config.repo_url = self._project.repository
        config.repo_name = self._project.owner_and_name
        config.edit_uri = "edit/main/docs/"
        config.site_name = strings.site_name
        config.site_description = strings.site_description
        config.nav = nav.build(self._prepared, self._project, language)
        names = (strings.light_mode, strings.dark_mode, strings.system_mode)
        for palette, name in zip(config.theme["palette"], names, strict=True):
            palette["toggle"]["name"] = name
        if str(_THEME) not in config.theme.dirs:
            config.theme.dirs.insert(0, str(_THEME))
        config.mdx_configs["toc"] |= {"permalink_title": strings.permalink}
        config.mdx_configs["blackbelt.site.glossary_extension"] = {
            "terms": self._glossary,
            "language": language,
        }
        if os.environ.get("BLACKBELT_ONLY"):
            # Links to lessons that this preview leaves out would be reported one by one.
            config.validation.links.not_found = logging.DEBUG
        if self._given:
            # Stand-ins have no headings yet, and the engine checks links between lessons itself.
            config.validation.links.anchors = logging.DEBUG

    def _bundle(self, config: MkDocsConfig) -> None:
        try:
            self._bundles = bundle(config, hashed=not self._serving)
        except CourseError as error:
            raise PluginError(str(error)) from None

    def _remember_theme_files(self, config: MkDocsConfig) -> None:
        """List Material's 14 500 files once: MkDocs does for each language of each build."""
        make = config.theme.get_env

        def get_env() -> jinja2.Environment:
            env = make()
            list_templates = env.list_templates

            def listed(*arguments: Any, **options: Any) -> list[str]:
                if self._theme_files is None:
                    self._theme_files = list_templates(*arguments, **options)
                return self._theme_files

            env.list_templates = listed  # type: ignore[method-assign]
            return env

        config.theme.get_env = get_env  # type: ignore[method-assign]

    def on_files(self, files: Files, config: MkDocsConfig) -> Files:
        """mkdocs-jupyter wraps notebooks here; with the line above they are pages already.

        A build of other lessons may be at work on this checkout, too: its files are left out.
        """
        joined = {source for made in self._bundles for source in made.sources}
        for file in list(files):
            foreign = file.src_uri.startswith(f"{FOLDER}/") and file.src_uri not in self._published
            if foreign or file.src_uri in joined:
                files.remove(file)
        return files

    @event_priority(100)
    def on_env(
        self, env: jinja2.Environment, config: MkDocsConfig, files: Files
    ) -> jinja2.Environment:
        # MkDocs makes a new environment for each build and compiles 70 templates again.
        # What is kept depends on these, and its name does not.
        env.trim_blocks = env.lstrip_blocks = True  # 8 KB of indentation less on every page
        folder = self._project.cache / "jinja-trimmed"
        folder.mkdir(parents=True, exist_ok=True)
        env.bytecode_cache = jinja2.FileSystemBytecodeCache(str(folder))
        # The content security policy has to allow MkDocs' own script for reloading.
        env.globals["serving"] = self._serving
        env.globals["offline"] = offline.asked()
        env.globals["site_address"] = self._project.site_url
        if offline.asked():
            offline.name_files(env, files)
        return env

    def on_page_read_source(self, page: Page, config: MkDocsConfig) -> str | None:
        if not page.file.src_uri.endswith(".ipynb"):
            return None
        return pages.body(self._prepared, page.file.src_uri, self._language(config))

    def on_page_markdown(
        self, markdown: str, page: Page, config: MkDocsConfig, files: Files
    ) -> str:
        language = self._language(config)
        rendered = pages.find(self._prepared, page.file.src_uri)
        if rendered:
            page.meta["description"] = pages.description(rendered, language)
            return markdown
        return pages.expand(
            markdown, page.file.src_uri, self._prepared, self._glossary, self._project, language
        )

    def on_pre_page(self, page: Page, config: MkDocsConfig, files: Files) -> Page:
        """mkdocs-jupyter replaces `page.render` here; only its download is wanted."""
        if self.should_include(page.file):
            self._set_nb_url(page)
            if self._html:
                self._html.attach(page, (self._language(config), self._glossary))
        return page

    def on_page_context(
        self, context: TemplateContext, *, page: Page, config: MkDocsConfig, nav: Navigation
    ) -> TemplateContext:
        language = self._language(config)
        found = page_context.of_page(page, self._prepared, language, config.site_url or "")
        context.update(found)  # type: ignore[typeddict-item]
        return context

    def on_template_context(
        self, context: TemplateContext, *, template_name: str, config: MkDocsConfig
    ) -> TemplateContext:
        context["strings"] = for_language(self._language(config))  # type: ignore[typeddict-unknown-key]
        return context

    def on_post_page(self, output: str, page: Page, config: MkDocsConfig) -> str:
        super().on_post_page(output, page, config)  # copies the notebook beside its page
        if rendered := pages.find(self._prepared, page.file.src_uri):
            source = self._project.root / rendered.lesson.path
            shutil.copyfile(source, Path(page.file.abs_dest_path).parent / source.name)
        if offline.asked():
            return head.without_alternates(output)
        return head.absolute_alternates(output, page, config)

    def on_post_template(self, output: str, *, template_name: str, config: MkDocsConfig) -> str:
        if offline.asked():
            return ""  # A sitemap and a page of errors are for servers.
        if template_name != "404.html":
            return output
        # GitHub Pages has one 404 page; the second language must not overwrite it.
        return "" if self._nested(config) else head.without_alternates(output)

    @event_priority(-200)  # static-i18n (-100) builds the other languages in its own handler
    def on_post_build(self, config: MkDocsConfig) -> None:
        super().on_post_build(config)
        if self._nested(config):
            return
        site = Path(config.site_dir)
        for made in self._bundles:
            utils.write_file(made.content.encode(), str(site / made.address))
        if offline.asked():
            return
        if self._serving:
            self._indexer.want(site)
            return
        try:
            index(site)
        except RuntimeError as error:
            raise PluginError(str(error)) from None

    def on_shutdown(self) -> None:
        self._indexer.stop()

    def on_serve(
        self, server: LiveReloadServer, config: MkDocsConfig, builder: Any
    ) -> LiveReloadServer:
        """Watch what people write, not what the build writes: else each build starts another."""
        docs = Path(config.docs_dir)
        server.unwatch(str(docs))
        server.watch(str(docs), recursive=False)
        for path in docs.iterdir():
            if path.is_dir() and path.name != FOLDER:
                server.watch(str(path))
        for path in (self._project.lessons, self._project.snippets, _THEME):
            server.watch(str(path))
        server.watch(str(self._project.root / "pyproject.toml"))
        return server

    @staticmethod
    def _nested(config: MkDocsConfig) -> bool:
        return bool(config.plugins["i18n"].building)  # type: ignore[attr-defined]

    @staticmethod
    def _language(config: MkDocsConfig) -> str:
        i18n: Any = config.plugins["i18n"]
        return str(i18n.current_language or i18n.default_language)
