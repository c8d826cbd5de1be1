"""Serve a bundle: `pip install fastapi uvicorn`, `BUNDLE=bundle/ uvicorn embed_fastapi:app`."""

import os
from typing import Annotated

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, FiniteFloat

from tlrec_edge import DataError, History, Recommender, UnknownIdError

Text = Annotated[str, Field(min_length=1, max_length=256)]


class Query(BaseModel, extra="forbid"):
    items: list[Text] = Field(default=[], max_length=1024)
    events: list[Text] | None = Field(default=None, max_length=1024)
    timestamps: list[FiniteFloat] | None = Field(default=None, max_length=1024)
    k: int = Field(default=10, ge=1, le=1000)

    def history(self) -> History:
        return History(self.items, self.events, self.timestamps)


class ScoreQuery(Query):
    candidates: list[Text] = Field(max_length=10_000)


def refuse(request: object, error: Exception) -> JSONResponse:
    """Answer 422 without the input, which FastAPI would repeat: JSON has no NaN."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    detail = [{name: fault[name] for name in ("type", "loc", "msg")} for fault in faults]
    return JSONResponse({"detail": detail or str(error)}, 422)


def create_app(bundle: str) -> FastAPI:
    """Return the service. FastAPI runs these handlers in threads; a Recommender is thread-safe."""
    refused = dict.fromkeys((RequestValidationError, DataError, UnknownIdError), refuse)
    app = FastAPI(title="recommendations", exception_handlers=refused)
    rec = Recommender.open(bundle)

    @app.get("/health")
    def health() -> dict[str, object]:
        return {"status": "ok", "candidates": len(rec), **rec.stats()}

    @app.post("/recommend")
    def recommend(query: Query) -> list[dict[str, object]]:
        found = rec.recommend(query.history(), query.k)
        rows = zip(found.items, found.scores.tolist(), found.names, strict=True)
        return [{"item": item, "score": score, "name": name} for item, score, name in rows]

    @app.post("/score")
    def score(query: ScoreQuery) -> list[float]:
        return rec.score(query.history(), query.candidates).tolist()

    return app


app = create_app(os.environ["BUNDLE"]) if "BUNDLE" in os.environ else None
