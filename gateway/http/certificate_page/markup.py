"""HTML elements. Text is always escaped; only an element that was made here is taken as markup."""

from __future__ import annotations

from html import escape
from typing import Final

from gateway.core.visible_text import escaped

_VOID: Final = frozenset({"meta"})


class Markup(str):
    """HTML that :func:`element` or :func:`raw` made."""

    __slots__ = ()


def raw(html: str) -> Markup:
    """Return our own text as markup. Nothing that came from outside may be passed."""
    return Markup(html)


def element(tag: str, /, *children: str, **attributes: str) -> Markup:
    """Return an element with these children. An attribute ``class_`` is written ``class``, ``a_b`` is written ``a-b``.

    Invisible characters and those that turn the text around are written out, so that no name changes a sentence.
    """
    given = "".join(f' {_attribute(key)}="{escape(escaped(value))}"' for key, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{''.join(map(_child, children))}</{tag}>")


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _child(child: str) -> str:
    return child if isinstance(child, Markup) else escape(escaped(child))


def foreign(text: str) -> Markup:
    """Return text of people and devices, with a direction that changes nothing around it."""
    return element("bdi", text)
