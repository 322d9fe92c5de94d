"""Makes the README's pictures of a real run: its screen, its report and its page, by Debian's chromium.

python tools/pictures.py STATE docs        # STATE: the state directory of a finished run, such as .riwoa
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

_ADDRESS = "127.0.0.1:8799"
_SCREEN = """<meta charset="utf-8">
<style>b {{ display: inline-block; width: 8.43px; font: 12px/1 'DejaVu Sans' }}</style>
<body style="margin:0;background:#10151c;color:#d8dee6">
<pre style="margin:18px;font:14px/1.25 'DejaVu Sans Mono',monospace">{text}</pre>"""


def shoot(address: str, file: Path, width_px: int, height_px: int) -> None:
    """A picture of a page."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000")
    size = f"--window-size={width_px},{height_px}"
    command = ("chromium", *options, size, f"--screenshot={file}", address)
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    print(f"{file}: {file.stat().st_size:,} bytes")


def main(state: str, out: Path) -> None:
    """All three."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    riwoactl = (str(Path(sys.executable).with_name("riwoactl")), "--state", state)
    with tempfile.TemporaryDirectory() as folder:
        wide = {**os.environ, "COLUMNS": "110"}
        shown = subprocess.run((*riwoactl, "watch", "--once"), capture_output=True, text=True, env=wide, check=True)
        screen = Path(folder, "screen.html")
        text = re.sub(r"^(files\s+).*", r"\1.riwoa", shown.stdout, flags=re.MULTILINE)  # nobody's own folders
        # No free fixed-width font of Debian's has Braille: each such character is put into a cell of its own.
        cells = re.sub("([\u2800-\u28ff])", r"<b>\1</b>", html.escape(text))
        screen.write_text(_SCREEN.format(text=cells), encoding="utf-8")
        shoot(screen.as_uri(), out / "watch.png", 1000, 440)
        report = Path(folder, "report.html")
        subprocess.run((*riwoactl, "report", "--out", str(report)), check=True, capture_output=True)
        shoot(report.as_uri(), out / "report.png", 1280, 1150)
    page = subprocess.Popen((*riwoactl, "web", "--listen", _ADDRESS), stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{_ADDRESS}/healthz", timeout=1).read()
                break
            except OSError:
                time.sleep(0.2)
        shoot(f"http://{_ADDRESS}/", out / "page.png", 1000, 1000)
    finally:
        page.terminate()
        page.wait()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
