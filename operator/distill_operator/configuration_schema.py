"""The part of the chart's values.schema.json that is the operator's configuration, written from the types.

`python -m distill_operator.configuration_schema FILE` writes it into the `$defs` of that file; the rest is written by
hand and refers to it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from distill_operator.configuration import OperatorConfiguration

NAME = OperatorConfiguration.__name__
"""Name of the definition."""


def configuration_schema() -> dict[str, Any]:
    """JSON Schema of the configuration, with references that hold where it is one definition of a larger schema."""
    return OperatorConfiguration.model_json_schema(by_alias=True, ref_template=f"#/$defs/{NAME}/$defs/{{model}}")


def with_configuration_schema(text: str) -> str:
    """The text of a values.schema.json, with the definition renewed."""
    schema: dict[str, Any] = json.loads(text)
    schema.setdefault("$defs", {})[NAME] = configuration_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_configuration_schema(file.read_text(encoding="utf-8")), encoding="utf-8")
