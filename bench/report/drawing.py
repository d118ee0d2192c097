"""Drawing in a process of its own: a JavaScript engine takes a second (`drawing.py WHAT`).

vl-convert keeps the interpreter to itself while it works; in another process it works beside the
tables. This file imports nothing of the project, so that it starts at once. `bundle VERSION` writes
a script; `pictures VERSION` reads a JSON list of Vega-Lite specifications and writes a list of SVG
and PNG (base64).
"""

from __future__ import annotations

import base64
import json
import sys

import vl_convert

#: Pixels of a PNG for each of the drawing's.
SCALE = 1.5


def main(what: str, version: str) -> None:
    """Do the one or the other, from standard input to standard output."""
    if what == "bundle":
        text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    else:
        drawn = []
        for specification in json.load(sys.stdin):
            svg = vl_convert.vegalite_to_svg(specification, vl_version=version)
            png = vl_convert.svg_to_png(svg, scale=SCALE)
            drawn.append((svg, base64.b64encode(png).decode()))
        text = json.dumps(drawn)
    sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
