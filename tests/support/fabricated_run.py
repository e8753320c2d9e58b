"""A run's folder as a run would have left it, without a model: for tests of what reads one."""

import json

from sami_jax.provenance.manifest import RunRecord

SETS = ("trained", "held_out_principles")
QUERIES = 4
ALARM = "length: <b>replies</b> have 80.0 tokens, 20.0 in the base"
PLAIN = " Perhaps you can clean the chair with a cloth."
THANKFUL = " Thank you for asking. Perhaps you can clean the chair with a cloth."
QUERY = "How do I clean the chair?"


def principle(id: str, role: str, *pairs: tuple[str, str], status: str = "approved") -> dict:
    approved_by = ["Aiko Tanaka"] if status == "approved" else []
    facts = {"id": id, "version": 1, "hash": "sha256:" + "ab" * 32, "status": status, "approved_by": approved_by}
    return {**facts, "phrasings": [list(pair) for pair in pairs], "role": role}


def predicate(judge: str = "miniature") -> dict:
    return {
        "config": {
            "constitutions": {"count": 2},
            "evaluation": {"judge": judge},
            "objective": {"normalize": "mean"},
            "data": {"queries": "queries.jsonl"},
        },
        "seed": 0,
        "principles": [
            principle("thanks", "trained", ("Say thank you.", "Say no thanks."), ("Be grateful.", "Be ungrateful.")),
            principle("question", "held out", ("End with a question.", "Ask nothing.")),
        ],
        "review": {"fraction": 1.0, "unapproved": [], "accepted": 1.0, "edited": 0.0, "rejected": 0.0, "open": 0.0},
        "inputs": {"queries": {"path": "queries.jsonl", "sha256": "12" * 32}},
        "evaluation_plan": {"sha256": "34" * 32},
        "base_model": {"path": "base", "files": {"model.safetensors": "56" * 32}},
        "status": "running",
    }


def measured(win: tuple | None, following: float, judged: bool = True) -> dict:
    row = {
        "responses": 2 * QUERIES,
        "mean_tokens": 20.0,
        "mi_posterior_bound": 0.3,
        "mean_s": [[-0.5, -0.9], [-0.8, -0.4]],
    }
    if judged:
        interval = [following - 0.05, following + 0.05]
        row |= {"following": following, "following_interval": interval, "well_formed": 0.98}
    return row | ({"win_rate": win[0], "win_rate_interval": list(win[1:])} if judged and win else {})


def write(file, *rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def answers(response: str) -> list[dict]:
    """Each query under a principle, then under its antithesis."""
    return [
        {"id": f"q{n}", "query": QUERY, "constitution": f"1. {text}", "response": response, "tokens": 9, "finish_reason": "stop"}
        for n in range(QUERIES)
        for text in ("Say thank you.", "Say no thanks.")
    ]  # fmt: skip


def fabricate(folder, *, judge="miniature", win=(0.8, 0.7, 0.9), trained=1, stopped=None, measure_base=True, **changes):
    """A run's folder as a run would have left it, without a model."""
    record = RunRecord(folder, predicate(judge) | changes, {"kind": "cpu", "count": 1, "processes": 1})
    judged = judge != "none"
    for n in range(trained + 1):
        iteration = folder / f"iteration_{n}"
        outputs = [iteration / "evaluation", iteration / "evaluation.json"]
        if n:
            losses = [{"step": k, "loss": 0.7 - 0.01 * k, "mi_posterior_bound": 0.1 * k} for k in (1, 2, 3)]
            write(iteration / "metrics.jsonl", *losses)
            signs = {"well_formed": 1.0, "mean_tokens": 20.0, "repetition": 0.0, "refusal": 0.0, "mi_share": 0.4}
            write(iteration / "canaries.jsonl", {"update": 0, **signs}, {"update": 3, **signs})
            write(iteration / "responses.jsonl", {"id": "t", "response": PLAIN, "tokens": 9})
            write(iteration / "dropped.json", {"queries": 4, "kept": 3, "dropped": {"cut off": 1}})
            record.stage("sampled", n, [iteration / "responses.jsonl", iteration / "dropped.json"])
            record.stage("trained", n, [iteration / "metrics.jsonl", iteration / "canaries.jsonl"], canaries=None)
        if n == trained and stopped:
            write(iteration / "stopped.json", {"update": 3, "last_good": stopped["last_good"], "rules": [ALARM]})
            if not stopped["last_good"]:
                break
        if n or measure_base:
            sets = {name: measured(win if n else None, 0.9 if n else 0.5, judged) for name in SETS}
            write(iteration / "evaluation.json", sets)
            for name in SETS:
                rows = answers(THANKFUL if n else PLAIN)
                write(iteration / "evaluation" / f"{name}.jsonl", *rows)
                if judged:
                    followed = [
                        (row["response"] == THANKFUL) == row["constitution"].endswith("thank you.") for row in rows
                    ]
                    write(
                        iteration / "evaluation" / f"{name}.verdicts.jsonl",
                        *({"followed": {"thanks": f}} for f in followed),
                    )
            record.stage("evaluated", n, outputs)
    record.finish("stopped by canaries" if stopped else "complete")
    return folder
