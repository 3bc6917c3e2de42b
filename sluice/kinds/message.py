"""Kind `message`: stores a text. The smallest kind there is."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from sluice import kinds

TITLE = "Message"


class Inputs(kinds.Inputs):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Hello, Sluice."}]})

    text: kinds.Text = Field(title="Text", description="The text to store.", examples=["Hello, Sluice."])


class Outputs(kinds.Outputs):
    message: str = Field(default="", title="Message")
