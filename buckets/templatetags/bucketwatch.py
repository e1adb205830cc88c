"""What the templates of the operator's pages need beyond Django's own tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django import template
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

from buckets import formatting
from buckets.pages import badges
from scanning.core.texts import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.contrib.admin.views.main import ChangeList

register = template.Library()

_COMMAND = re.compile("`([^`]+)`")

register.simple_tag(badges.symbol)
register.simple_tag(badges.badge)
register.simple_tag(badges.state, name="state")
register.simple_tag(formatting.pluralize, name="counted")
register.filter(badges.moment)
register.filter("duration", formatting.format_duration)
register.filter("exactly", formatting.format_timestamp)
register.filter("number", formatting.format_number)
register.filter("printable", printable)
register.filter("sentence", formatting.as_sentence)
register.filter("short", formatting.format_compact)
register.filter("size", formatting.format_size)


@register.filter
def marked(text: str) -> SafeString:
    """Render a sentence with `commands` in it as HTML."""
    return mark_safe(_COMMAND.sub(r"<code>\1</code>", escape(text)))  # noqa: S308 - escaped first


@register.simple_tag
def row_of(
    changelist: ChangeList,
    number: int,
    cells: Iterable[str],
    headers: Iterable[Mapping[str, Any]],
) -> SafeString:
    """Render a row of a Django list; each cell has its column's name, for narrow screens."""
    labelled = (
        cell.replace(" class=", f' data-label="{escape(_label(header))}" class=', 1)
        for cell, header in zip(cells, headers, strict=False)
    )
    row = changelist.result_list[number]
    # The cells are Django's, the labels escaped.
    inside = mark_safe("".join(labelled))  # noqa: S308
    return format_html('<tr id="row-{}" data-part>{}</tr>', row.pk, inside)


def _label(header: Mapping[str, Any]) -> str:
    text = str(header["text"])
    return "" if "<" in text else capfirst(text)
