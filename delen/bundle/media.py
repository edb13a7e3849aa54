"""The encoded files that delen reads: their media types, their formats and how they begin."""

from __future__ import annotations

from collections.abc import Mapping

IMAGES: Mapping[str, str] = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/tiff": "TIFF",
    "image/x-portable-anymap": "PPM",
}
"""Pillow's format by media type. They are named, since some of Pillow's others start programs."""

RECORDINGS: Mapping[str, str] = {
    "audio/wav": "WAV",
    "audio/x-wav": "WAV",
    "audio/flac": "FLAC",
    "audio/ogg": "OGG",
}

IMAGE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    )
)
RECORDING_ENDINGS = frozenset((".wav", ".wave", ".flac", ".ogg", ".oga", ".opus"))
"""In small letters."""

_BEGINNINGS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"RF64", "audio/wav"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    *((b"P%c" % kind, "image/x-portable-anymap") for kind in b"123456fF"),
)


def recognise(contents: bytes) -> str | None:
    """The media type of an encoded image or recording by its first bytes; None for others."""
    if contents.startswith(b"RIFF"):
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(contents[8:12])
    for beginning, media_type in _BEGINNINGS:
        if contents.startswith(beginning):
            return media_type
    return None
