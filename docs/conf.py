"""How `make docs` makes this folder into a site, out/docs/index.html. Nothing is fetched: neither to build it nor to read it."""

from deepshap_ext import __version__

project = "deepshap_ext"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 3
maximum_signature_line_length = 80
nitpicky = True
# Other projects' pages would have to be fetched to link their names.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|shap|captum|collections|typing|zarr|pathlib|os|contextlib)\..*")
]

html_theme = "furo"
html_title = f"deepshap_ext {version}"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_dark_style = "a11y-dark"  # furo's own underlines names, as if they were links
