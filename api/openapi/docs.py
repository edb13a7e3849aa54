"""The page at ``/docs``: what ``/openapi.json`` says, for people; it loads nothing else."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).with_name("docs.html")
DOCS_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline';"
    " style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
