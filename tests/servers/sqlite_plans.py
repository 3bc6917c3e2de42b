"""What SQLite's planner makes of a query of MongoDB's, over the indexes that FerretDB has put into its file.

FerretDB 1.24 itself hands SQLite nothing but a lone `_id` and goes through the whole table for anything else. The
indexes are those of MongoDB all the same, B-trees with the same fields in the same order, and SQLite is a planner that
can be asked: `explain` gives a query to it as a database would that uses its indexes.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Document = dict[str, Any]

#: The column that holds the documents, as JSON.
COLUMN = "_ferretdb_sjson"

COMPARISONS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


class Plans:
    """A look into the file of one database of FerretDB's; read only."""

    def __init__(self, file: Path, collection: str) -> None:
        self._connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE ? || '!_%' ESCAPE '!'"
        ((self._table,),) = self._connection.execute(names, [collection]).fetchall()

    def close(self) -> None:
        self._connection.close()

    def explain(self, query: Document, order: Document, limit: int = 0) -> list[str]:
        """The steps of the plan: https://www.sqlite.org/eqp.html"""
        text, values = self._select(query, order, limit)
        return [row[-1] for row in self._connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]

    def find(self, query: Document, order: Document, limit: int = 0) -> list[Document]:
        text, values = self._select(query, order, limit)
        return [json.loads(row[0]) for row in self._connection.execute(text, values)]

    def _select(self, query: Document, order: Document, limit: int) -> tuple[str, list[str]]:
        condition, values = _condition(query)
        text = f'SELECT {COLUMN} FROM "{self._table}" WHERE {condition}'
        if order:
            text += " ORDER BY " + ", ".join(
                f"{_field(name)} {'DESC' if way < 0 else ''}" for name, way in order.items()
            )
        return text + (f" LIMIT {limit}" if limit else ""), values


def _condition(query: Document) -> tuple[str, list[str]]:
    parts, values = [], []
    for name, wanted in query.items():
        if name == "$or":
            either = [_condition(choice) for choice in wanted]
            parts.append("(" + " OR ".join(text for text, _ in either) + ")")
            values += [value for _, found in either for value in found]
        elif not isinstance(wanted, dict):
            parts.append(f"{_field(name)} = ?")
            values.append(_value(wanted))
        else:
            for operator, value in wanted.items():
                text, found = _operation(name, operator, value)
                parts.append(text)
                values += found
    return " AND ".join(parts) or "TRUE", values


def _operation(name: str, operator: str, value: Any) -> tuple[str, list[str]]:
    if operator == "$not":
        text, values = _condition({name: value})
        return f"({text}) IS NOT TRUE", values
    if operator == "$in":
        return f"{_field(name)} IN ({', '.join('?' * len(value))})", [_value(one) for one in value]
    # Texts are compared, in which any number comes before "null".
    return f"{_field(name)} {COMPARISONS[operator]} ? AND {_field(name)} <> 'null'", [_value(value)]


def _field(name: str) -> str:
    return f'{COLUMN}->"{name}"'  # as FerretDB writes it into its indexes


def _value(value: Any) -> str:
    """As FerretDB writes it: times are milliseconds, of as many digits for the next 250 years."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        value = round(aware.timestamp() * 1000)
    return json.dumps(value, ensure_ascii=False)
