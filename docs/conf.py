"""How Sphinx builds these pages: `python -m sphinx -W -n --keep-going -b html docs build/docs`."""

import pathlib

import nexus_channels

ROOT = pathlib.Path(__file__).parent.parent

project = "nexus_channels"
author = project_copyright = "nexus_channels contributors"
version = release = nexus_channels.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton", "sphinx_design"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "code"  # in docstrings: `value` is code there

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures of C methods have none

html_theme = "furo"
html_title = f"nexus_channels {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_copy_source = False

# The library makes these; who reads of them need not know what of.
NOT_CALLED = {
    "nexus_channels.Selected",
    "nexus_channels.queue.AsyncQueue",
    "nexus_channels.queue.BaseQueue",
    "nexus_channels.queue.SyncQueue",
}


def public_signature(_app, _what, name, _thing, _options, signature, returns):
    """The signature without what is for the library alone."""
    if name in NOT_CALLED:
        return "", returns
    return signature and signature.replace(", *, _passed=False", ""), returns


def setup(app):
    app.connect("autodoc-process-signature", public_signature)
