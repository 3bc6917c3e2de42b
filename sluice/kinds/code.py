"""Kind `code`: an objective in words, answered with a program by a language model."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sluice import kinds

TITLE = "Code"


class Inputs(kinds.Inputs):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"objective": "Create a function that sums up three numbers.", "language": "python"},
                {"objective": "Convert an integer to Roman numerals.", "language": "javascript"},
                {"objective": "Count how often each word occurs in a text.", "language": "go"},
            ]
        }
    )

    objective: kinds.Text = Field(
        title="Objective",
        description="What the code should do.",
        examples=["Create a function that sums up three numbers."],
    )
    language: kinds.Line = Field(
        default="python",
        title="Language",
        description="The programming language to write it in.",
        examples=[
            "python",
            "javascript",
            "typescript",
            "java",
            "go",
            "rust",
            "c",
            "cpp",
            "csharp",
            "ruby",
            "php",
            "bash",
        ],
        max_length=40,
    )


#: What every reader of JSON can count to.
Tokens = Annotated[int, Field(ge=0, lt=2**53)]


class Usage(BaseModel):
    """Tokens, as the model's provider counts them."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    total_tokens: Tokens


class Outputs(kinds.Outputs):
    code: str = Field(default="", title="Code", json_schema_extra={"x-language-field": "language"})
    model: str | None = Field(default=None, title="Model", description="The model that wrote the code.")
    usage: Usage | None = Field(default=None, title="Usage", description="The tokens that it took.")
