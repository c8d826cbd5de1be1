"""Serve a bundle with FastAPI and uvicorn: `BUNDLE=bundle/ uvicorn embed_fastapi:app`."""

import os
from typing import Annotated

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from tlrec_edge import DataError, History, Recommender, UnknownIdError

Id = Annotated[str, Field(min_length=1, max_length=256)]


class Behaviour(BaseModel):
    items: list[Id] = Field(default=[], max_length=1024)
    events: list[str] | None = None
    timestamps: list[float] | None = None

    def history(self) -> History:
        return History(self.items, self.events, self.timestamps)


class RecommendRequest(Behaviour):
    k: int = Field(default=10, ge=1, le=1000)


class ScoreRequest(Behaviour):
    candidates: list[Id] = Field(max_length=10_000)


def create_app(bundle: str) -> FastAPI:
    """Return the service. FastAPI runs these handlers in threads; a Recommender is thread-safe."""
    app = FastAPI(title="recommendations")
    rec = Recommender.open(bundle)

    @app.get("/health")
    def health() -> dict[str, object]:
        return {"status": "ok", "candidates": len(rec), **rec.stats()}

    @app.post("/recommend")
    def recommend(request: RecommendRequest) -> list[dict[str, object]]:
        try:
            found = rec.recommend(request.history(), request.k)
        except (DataError, UnknownIdError) as error:
            raise HTTPException(422, str(error)) from error
        rows = zip(found.items, found.scores.tolist(), found.names, strict=True)
        return [{"item": item, "score": score, "name": name} for item, score, name in rows]

    @app.post("/score")
    def score(request: ScoreRequest) -> list[float]:
        try:
            return rec.score(request.history(), request.candidates).tolist()
        except (DataError, UnknownIdError) as error:
            raise HTTPException(422, str(error)) from error

    return app


if "BUNDLE" in os.environ:
    app = create_app(os.environ["BUNDLE"])
