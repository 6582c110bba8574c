"""What an editor says about a study by its JSON Schema: the rules of draft 2020-12 that ours uses."""

from __future__ import annotations

import re
from typing import Any

ANNOTATIONS = {"$schema", "$defs", "title", "description", "default"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def accepts(schema: Any, value: Any, root: Any = None) -> bool:
    """Whether a value is valid; a rule that is not known here raises."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    return all(_holds(rule, limit, value, schema, root) for rule, limit in schema.items() if rule not in ANNOTATIONS)


def _holds(rule: str, limit: Any, value: Any, schema: Any, root: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    mapping = value if isinstance(value, dict) else {}
    items = value if isinstance(value, list) else []
    text = value if isinstance(value, str) else None
    match rule:
        case "$ref":
            return accepts(root["$defs"][limit.removeprefix("#/$defs/")], value, root)
        case "anyOf":
            return any(accepts(option, value, root) for option in limit)
        case "not":
            return not accepts(limit, value, root)
        case "const":
            return bool(value == limit)
        case "enum":
            return value in limit
        case "type":
            whole = limit == "integer" and number and value == int(value)
            return whole or (limit == "number" and number) or isinstance(value, TYPES.get(limit, ()))
        case "required":
            return not isinstance(value, dict) or mapping.keys() >= set(limit)
        case "properties":
            return all(accepts(limit[key], own, root) for key, own in mapping.items() if key in limit)
        case "additionalProperties":
            more = mapping.keys() - schema.get("properties", {}).keys()
            return all(accepts(limit, mapping[key], root) for key in more)
        case "maxProperties":
            return len(mapping) <= limit
        case "items":
            return all(accepts(limit, item, root) for item in items)
        case "minItems":
            return not isinstance(value, list) or len(items) >= limit
        case "uniqueItems":
            return all(item not in items[:i] for i, item in enumerate(items))
        case "minimum":
            return not number or value >= limit
        case "exclusiveMinimum":
            return not number or value > limit
        case "maximum":
            return not number or value <= limit
        case "exclusiveMaximum":
            return not number or value < limit
        case "minLength":
            return text is None or len(text) >= limit
        case "pattern":
            return text is None or re.search(limit, text) is not None
    raise NotImplementedError(rule)
