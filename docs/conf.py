"""Sphinx's settings. `make docs` builds the site; nothing of it is fetched from elsewhere when a page is opened."""

project = "HDPO for verl"
copyright = "the authors of this repository, Apache-2.0"
html_title = "HDPO for verl"
html_copy_source = False
html_show_sphinx = False

extensions = ["myst_parser"]
# Links between pages name headings, as on a repository's web page: [cost](cost.md#memory-and-time-of-jsd_k).
myst_heading_anchors = 3
exclude_patterns = ["results/**/runs", "results/**/base_model"]

html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]
