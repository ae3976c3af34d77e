"""Image files as strangers send them: damaged, disguised, enormous, or merely unusual."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # of EXIF


def picture(width=90, height=70, seed=0):
    """A picture that is not symmetric in any way."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned_jpeg(image, orientation=6):
    """Bytes whose pixels lie on their side and whose EXIF says so; upright they are `image`, and the upright PNG."""
    stored = image.transpose(Image.Transpose.ROTATE_90)  # shown after 90 degrees clockwise
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(stored, "PNG", exif=exif)
    return content


def archive():
    """A ZIP file with a script."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as found:
        found.writestr("../../evil.py", "raise SystemExit(1)")
    return file.getvalue()


def jpeg_and_zip(image):
    """A file that is a JPEG from its front and a ZIP from its end."""
    return encoded(image, "JPEG", quality=95) + archive()


def gif_and_script(image):
    """A GIF that a browser could run as a script: its comment holds the program."""
    return encoded(image.quantize(32), "GIF", comment=b"*/=1;alert(document.cookie);/*")


def animated(kind, first, others=3):
    """An animation whose first picture is `first`."""
    more = [picture(*first.size, seed=10 + i) for i in range(others)]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(first, kind, save_all=True, append_images=more, duration=50, loop=0, **options)


def sixteen_bits(image):
    """A 16-bit gray PNG whose upper 8 bits are `image` in gray."""
    gray = np.asarray(image.convert("L")).astype(np.uint16)
    return encoded(Image.fromarray(gray * 256 + 77))


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *, bits=8, color=0, data=b"", before=b""):
    """A PNG of these bytes, whatever they are worth."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    end = _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + before + _chunk(b"IDAT", data) + end


def huge_png(side=50_000):
    """A valid PNG of side x side black pixels in some kilobytes: decoded it would be gigabytes."""
    size = side * (side // 8 + 1)
    blocks, rest = divmod(size, 2**20)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = last.compress(bytes(rest)) + last.flush()
    checksum = struct.pack(">I", (size % 65521) << 16 | 1)  # Adler-32 of that many zeros
    return png(side, side, bits=1, data=b"\x78\xda" + block * blocks + end + checksum)


def bomb_in_text(megabytes=200):
    """A small PNG with a compressed comment that would fill the memory."""
    squeeze = zlib.compressobj(9)
    text = b"".join([squeeze.compress(bytes(2**20)) for _ in range(megabytes)]) + squeeze.flush()
    comment = _chunk(b"zTXt", b"Comment\0\0" + text)
    pixels = zlib.compress(bytes(8 * 9))
    return png(8, 8, data=pixels, before=comment)


def many_scans(scans, size=(64, 48)):
    """A progressive JPEG with its last scan so many times more: each is a pass over all pixels."""
    content = encoded(picture(*size), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * scans + content[-2:]


def enormous_tile(side=40_000):
    """A TIFF of 16 x 16 pixels in one compressed tile of side x side: its decoder would want memory for the tile."""
    data = zlib.compress(bytes(256))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 0, 325: len(data)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data
