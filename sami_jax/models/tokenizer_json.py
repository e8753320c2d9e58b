"""What a tokenizer.json loses when it is filed anew: what its post-processor puts behind a text, and tokens that the model has not."""

from collections.abc import Sequence


def open_end(state: dict) -> list[str]:
    """Takes out of the content of a tokenizer.json what is put behind a text; what stands before stays. Returns the tokens taken out."""
    state["post_processor"], closing = _opened(state["post_processor"])
    return list(dict.fromkeys(closing))


def without_tokens_from(state: dict, limit: int) -> dict:
    """The content of a tokenizer.json without the tokens whose ids are `limit` or more."""
    model = dict(state["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {token: id for token, id in model["vocab"].items() if id < limit}
    else:  # of a unigram model: pairs of token and score
        model["vocab"] = model["vocab"][:limit]
    return state | {"model": model, "added_tokens": [token for token in state["added_tokens"] if token["id"] < limit]}


def _opened(processor: dict | None) -> tuple[dict | None, list[str]]:
    """A post-processor without what it puts behind a text, and that."""
    kind = processor["type"] if processor else None
    if processor and kind == "Sequence":
        parts = [_opened(part) for part in processor["processors"]]
        return processor | {"processors": [part for part, _ in parts]}, [
            token for _, closing in parts for token in closing
        ]
    if processor and kind in ("BertProcessing", "RobertaProcessing"):
        return _beginning(*processor["cls"]), [processor["sep"][0]]
    if not processor or kind != "TemplateProcessing":
        return processor, []
    opened = {name: _until_text(processor[name]) for name in ("single", "pair")}
    closing = [part["SpecialToken"]["id"] for part in processor["single"][len(opened["single"]) :]]
    return processor | opened, closing


def _until_text(parts: Sequence[dict]) -> list[dict]:
    last = max(place for place, part in enumerate(parts) if "Sequence" in part)
    return list(parts[: last + 1])


def _beginning(token: str, id: int) -> dict:
    """The post-processor that puts one token before a text."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    one, other = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [special, one],
        "pair": [special, one, other],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }
