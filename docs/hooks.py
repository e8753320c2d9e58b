"""What mkdocs does beside turning Markdown into pages: the page on the config, and formulas."""

import html
import io
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))  # this folder is no package
import config_reference


def on_config(config):
    """Blocks fenced as ```math, which GitHub shows as formulas, become pictures here."""
    fence = {"name": "math", "class": "math", "format": formula}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files, config):
    files.append(File.generated(config, "configuration.md", content=config_reference.page()))
    return files


def formula(source: str, *_, **__) -> str:
    """TeX as one <svg> a line, in the page's colour, with the TeX for those who cannot see it."""
    return "".join(_drawn(line) for line in source.splitlines() if line.strip())


def _drawn(tex: str) -> str:
    from matplotlib import font_manager, mathtext, rc_context

    stream = io.BytesIO()
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "formula", "mathtext.fontset": "stix"}):
        properties = font_manager.FontProperties(size=14)
        mathtext.math_to_image(f"${tex.strip()}$", stream, prop=properties, format="svg")
    svg = stream.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<rect[^>]*/>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="patch_1">.*?</g>', "", svg, flags=re.DOTALL)  # the white ground
    salt = re.sub(r"\W+", "", tex)
    svg = re.sub(r'(id="|href="#)', rf"\g<1>{salt}-", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg class="formula" role="img" aria-label="{html.escape(tex.strip())}" ', 1)
