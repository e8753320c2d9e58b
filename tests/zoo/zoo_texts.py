"""Two hundred texts of the kinds that tokenizers differ on."""

_NAMES = ("Ada", "Łukasz", "Zoë", "O'Neil", "d'Arcy")
_CONTROL = ("<s>", "</s>", "<|im_end|>", "<think>", "[INST]", "<unk>", "<mask>", "<|im_start|>")
_KINDS = {
    "numbers": lambda n: f"In {1900 + 7 * n}, {n * 12345:,} of {n}.{n:02} and {10**n} came; +{n}%/{n}e-{n}.",
    "emoji": lambda n: (
        "👍🏽" * (n % 3) + f" ok 👩\u200d👩\u200d👧 {chr(0x1F600 + n)}{chr(0x1F300 + n)}! {n}\ufe0f\u20e3"
    ),
    "Japanese": lambda n: f"{n}番目の質問です。東京都で{'とても' * (n % 4)}良い「天気」、カタカナ・漢字。",
    "right to left": lambda n: f"שלום {n} עולם, مرحبا بالعالم {n}٪ (نعم){'؟' * (n % 3)}\u200f",
    "control tokens": lambda n: f"a {_CONTROL[n % 8]}b{n} {_CONTROL[n % 3]}",
    "white space": lambda n: (
        " " * (n % 5) + "a" + " " * n + "b" + "\t" * (n % 3) + "c" + "\n" * (n % 4) + f" {n} \r\n\u00a0"
    ),
    "code": lambda n: (
        f"def f_{n}(x: int) -> str:\n    if x != {n}:\n\t\treturn '{{x}}'  # it's\n    x['k{n}'] += 0x{n:x};"
    ),
    "prose": lambda n: (
        f"{_NAMES[n % 5]} WON'T say {n} times: \u201cHello there,\u201d I'd think; cafe\u0301 or caf\u00e9\u2026"
    ),
}
TEXTS = [kind(n) for kind in _KINDS.values() for n in range(25)]
