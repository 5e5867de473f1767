# SPDX-License-Identifier: Apache-2.0
"""The site that ``make docs`` builds from the repository's Markdown and the package's docstrings."""

from pathlib import Path
from types import GenericAlias

from sphinx.util.nodes import make_refnode

from rowvit import __version__

#: the sidebar: what a reader wants, and the pages for it
CONTENTS = {
    "Use": (
        "docs/board",
        "docs/another-board",
        "docs/your-model",
        "docs/backbones",
        "docs/accuracy",
        "docs/measurement",
        "docs/commands",
        "docs/serve",
        "docs/python",
    ),
    "Hardware": (
        "docs/architecture",
        "docs/numerics",
        "docs/isa",
        "bitstreams/README",
        "hls/README",
    ),
    "Evidence": ("docs/results", "docs/energy", "docs/experiments", "docs/verification"),
    "Contribute": ("CONTRIBUTING", "rtl/STYLE", "docs/glossary", "CHANGELOG"),
}

project = author = "rowvit"
release = __version__
extensions = [
    "myst_parser",
    "numpydoc",
    *(f"sphinx.ext.{name}" for name in ("autodoc", "autosummary", "viewcode")),
]
root_doc = "README"
include_patterns = ["*.md", "docs/**", "bitstreams/README.md", "hls/README.md", "rtl/STYLE.md"]
exclude_patterns = [".*", "build", "docs/templates"]
templates_path = [str(Path(__file__).with_name("templates"))]
highlight_language = "none"
html_theme = "furo"
html_title = f"rowvit {release}"
myst_heading_anchors = 3
nitpicky = True
# constants, and what other packages define, have no entry here
nitpick_ignore_regex = [("py:.*", r"[A-Z_]+|.*\.[A-Z_]+|(collections|pynq|torch)\..*|DataRecorder")]
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_mock_imports = [
    "anyio",
    "distributed",
    "h11",
    "onnx",
    "onnxruntime",
    "prometheus_client",
    "pynq",
    "safetensors",
    "starlette",
    "timm",
    "torch",
    "torchvision",
    "uvicorn",
]
autodoc_typehints = "none"
numpydoc_show_class_members = False


def nearest(app, env, node, content):
    """Resolve `Name` to the object of that name that shares most packages with the module referring to it."""
    if node.get("refdomain") != "py":
        return None
    found = env.domains.python_domain.find_obj(env, None, None, node["reftarget"], None, 1)
    here = set((node.get("py:module") or "").split("."))
    name, entry = max(found, key=lambda other: len(here & set(other[0].split("."))), default=(None, None))
    return entry and make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


def add_contents(app, docname, source):
    """The README is the first page; on the site it also lists the others."""
    if docname == root_doc:
        for caption, pages in CONTENTS.items():
            source[0] += "\n".join(
                ["\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```\n"]
            )


def skip_alias(app, what, name, obj, skip, options):
    """Leave out names for tuple[...] and the like, which numpydoc takes for their class."""
    return isinstance(obj, GenericAlias) or None


def setup(app):
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("missing-reference", nearest)
    app.connect("source-read", add_contents)
