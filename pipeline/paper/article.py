"""The factual statements of the tutorial article, each with the word it earns and what is right instead."""

from functools import cache
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from pipeline.paper.article_checks import CHECKS, Finding
from pipeline.params import Name, Strict, read_yaml

Word = Literal["right", "imprecise", "wrong", "outdated"]
WORDS: tuple[Word, ...] = get_args(Word)


class Statement(Strict):
    id: Name
    says: str = Field(min_length=1)
    verdict: Word
    because: str = Field(min_length=1)
    source: str = Field(min_length=1)
    unverified: bool = False  # the explanation, or a part of it, is from memory
    figures: list[float] = Field(default_factory=list)  # the article's, for the check
    check: str | None = None  # what this project computes about the statement
    claims: list[Name] = Field(default_factory=list)  # of the paper, whose measured result bears on the statement

    @model_validator(mode="after")
    def _known_check(self) -> Self:
        if self.check is not None and self.check not in CHECKS:
            raise ValueError(f"{self.id}: check = {self.check!r}: accepted is one of {', '.join(CHECKS)}")
        return self

    @property
    def finding(self) -> Finding | None:
        """What the check computes; None where the statement has none."""
        return None if self.check is None else CHECKS[self.check](*self.figures)


class Article(Strict):
    statements: list[Statement]


@cache
def article() -> Article:
    return Article.model_validate(read_yaml(Path(__file__).with_name("article.yaml")))
