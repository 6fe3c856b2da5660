"""Paper: pages as Chromium prints them, and what a phone reads from them."""

import base64
from dataclasses import dataclass

import pypdfium2
import zxingcpp

from tests.support.chromium import Page

SIZES = {"A4": (8.27, 11.69), "Letter": (8.5, 11.0)}
"""Width and height in inches."""
DOTS = 300 / 72
"""Scale of a scan at 300 dots per inch; PDF has 72 points."""


@dataclass(frozen=True)
class Sheet:
    """What a printed document is: its number of pages, its text, and the QR codes on the first page."""

    pages: int
    text: str
    codes: list[str]


async def printed(tab: Page, paper: str) -> Sheet:
    """Print what the tab shows, and read the paper. The QR codes are read from its pixels."""
    width, height = SIZES[paper]
    made = await tab.call("Page.printToPDF", paperWidth=width, paperHeight=height, printBackground=True)
    document = pypdfium2.PdfDocument(base64.b64decode(made["data"]))
    try:
        text = document[0].get_textpage().get_text_range()
        return Sheet(len(document), text, _codes(document[0]))
    finally:
        document.close()


def _codes(page: pypdfium2.PdfPage) -> list[str]:
    bitmap = page.render(scale=DOTS, grayscale=True)
    pixels = memoryview(bytes(bitmap.buffer)).cast("B", (bitmap.height, bitmap.stride))
    return [found.text for found in zxingcpp.read_barcodes(pixels)]
