"""What the loop says of its stages."""

from types import SimpleNamespace

from sami_jax.config import defaults
from sami_jax.serving.engine import OwnEngine
from sami_jax.stages import loop


def test_queries_that_an_evaluation_cut_are_told(tmp_path, monkeypatch, capsys):
    found = {"responses": 8, "prompts_with_query_cut": 2, "training_prompts_with_query_cut": 0}
    monkeypatch.setattr(loop, "measure", lambda *_: found)
    sets = [SimpleNamespace(name="trained"), SimpleNamespace(name="held_out_principles")]
    inputs = SimpleNamespace(mesh=None, judge=None, evaluation_sets=sets)
    model, engine = SimpleNamespace(load=lambda *_: {}, adapter=None), OwnEngine(None, 1)  # pyright: ignore[reportArgumentType]
    for _ in range(2):  # what is there already is not told again
        told = loop.evaluate(defaults(), inputs, model, tmp_path, None, engine)  # pyright: ignore[reportArgumentType]
        assert told == {"trained": found, "held_out_principles": found}
    assert capsys.readouterr().err.splitlines() == [
        f"  the query was cut to fit config.prompt.max_tokens=1024 in 2 of 8 prompts of {one.name}" for one in sets
    ]
