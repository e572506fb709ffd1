"""Further fields of images and objects in XML files, for `AnnotatedImage.add_properties`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from xml.etree import ElementTree as ET  # only for the types: parse.py parses


def xml_fields(node: ET.Element, *, known: Collection[str] = ()) -> dict[str, list[Any]]:
    """Return the texts below an element by their tags, nested as the elements are.

    Attributes of CVAT are returned by their names: <attribute name="patient">7</attribute> in its own format,
    <attribute><name>patient</name><value>7</value></attribute> in its VOC export.

    Args:
        node: element of an image or an object.
        known: tags of child elements that belong to the format and are left out.
    """
    fields: dict[str, list[Any]] = {}
    for child in node:
        if child.tag in known:
            continue
        name, value = child.tag, xml_fields(child) if len(child) else child.text
        if child.tag == "attribute":
            name = child.get("name") or child.findtext("name") or name
            value = child.findtext("value") if len(child) else child.text
        fields.setdefault(name, []).append(value)
    return fields
