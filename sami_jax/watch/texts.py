# ruff: noqa: RUF001 (Japanese has marks of its own)
"""Every word of the watch's page that is ours, in each language, and of its lines, which are in English."""

from sami_jax.report.texts import TEXTS as REPORT
from sami_jax.report.texts import Words
from sami_jax.watch.tally import Cell

# As in `report.texts`, whose terms for what both pages show are used here too.
TEXTS: dict[str, tuple[str, str]] = {
    key: REPORT[key] for key in ("percent", "cut", "and", "examples/query", "principles/principle")
} | {
    "eyebrow": ("After the launch · SAMI", "公開後の監視 · SAMI"),
    "title": ("Watch: {name}", "監視：{name}"),
    "as of": ("Last window from {time}", "最後の区間の開始：{time}"),
    "contents": ("Contents", "目次"),
    "badge/quiet": ("within limits", "管理限界内"),
    "badge/alarm": ("alarm", "警報"),
    "badge/learning": ("reference not complete", "基準期間の途中"),
    # The verdict.
    "verdict": ("The verdict", "結論"),
    "verdict/quiet": (
        "Nothing has changed that chance does not explain: {windows} windows after the first {first}, {answers} answers in all.",
        "偶然で説明できない変化はありません。最初の {first} 区間の後、{windows} 区間を確認しました（応答は全部で {answers} 件）。",
    ),
    "verdict/alarm": (
        "{alarms} alarms in {windows} windows after the first {first}; the clearest: {clearest}.",
        "最初の {first} 区間の後の {windows} 区間で警報が {alarms} 件ありました。最も明確な警報：{clearest}。",
    ),
    "verdict/learning": (
        "Too early to tell: {windows} of the {first} first windows, which all later ones are compared with, are there.",
        "まだ判定できません。以後の比較の基準となる最初の {first} 区間のうち、{windows} 区間がそろっています。",
    ),
    "method": (
        "Limits are such that chance brings an alarm in at most one of 1,000 windows, whatever is measured and by however many slices (Holm's method over {tests} tests a window). Answers of the last 1, 2, 4, 8, 16 and 32 windows are compared with those of the first windows.",
        "管理限界は、測定項目や区分の数によらず、偶然による警報が 1,000 区間に 1 回以下となるように定めています（区間ごとに {tests} 個の検定、Holm 法）。直近 1・2・4・8・16・32 区間の応答を、最初の区間の応答と比較します。",
    ),
    "numbers only": ("Numbers only: no text of an answer was kept.", "数値のみ：応答の文面は保存していません。"),
    "passed over": ("Lines passed over: {told}.", "読み飛ばした行：{told}。"),
    "noted": ("Answers with a remark: {told}.", "注記のある応答：{told}。"),
    # Curves.
    "curves": ("The windows", "区間ごとの推移"),
    "curves/about": (
        "A point is a window; dashed lines are its limits, taken by itself; the vertical line is the end of the first windows, a red one the last alarm. Horizontal, dashed: what the run's own evaluation measured.",
        "各点は 1 区間、破線はその区間単独での管理限界です。縦線は最初の区間の終わり、赤い縦線は最後の警報を表します。横の破線は実行時の評価で測定した値です。",
    ),
    "axis/window": ("window", "区間"),
    "legend/value": ("measured", "測定値"),
    "legend/limits": ("limits", "管理限界"),
    # Measures: of a curve and of a row.
    "measure/following": ("principles followed", "原則の遵守率"),
    "measure/refusal": ("refusals", "拒否"),
    "measure/length": ("length (geometric mean, characters)", "応答の長さ（幾何平均、文字）"),
    "measure/repetition": ("repetition", "繰り返し"),
    "measure/echo": ("echoes of the constitution", "憲法の復唱"),
    "measure/language": ("answered in the query's language", "質問と同じ言語での応答"),
    "measure/well_formed": ("well-formed answers", "整った応答"),
    "measure/principle": ("principle {id} followed", "原則 {id} の遵守率"),
    "characters": ("{value:.0f} characters", "{value:.0f} 文字"),
    # Alarms.
    "alarms": ("Alarms", "警報"),
    "alarms/none": ("None.", "ありません。"),
    "alarms/fell": (
        "{measure}, {slice}: fell from {before} to {value}",
        "{measure}（{slice}）：{before} から {value} に低下",
    ),
    "alarms/rose": (
        "{measure}, {slice}: rose from {before} to {value}",
        "{measure}（{slice}）：{before} から {value} に上昇",
    ),
    "alarms/measured": (
        "{measure}, {slice}: {value} from the first window on, but {before} in the run's own evaluation",
        "{measure}（{slice}）：最初の区間から {value}（実行時の評価では {before}）",
    ),
    "alarms/since": ("Noticed in window {window}, since window {since}", "区間 {window} で検知、区間 {since} から"),
    "alarms/place": ("Answer at {place}", "応答の場所：{place}"),
    # Slices.
    "slices": ("By slice", "区分別"),
    "slices/about": (
        "The last 32 windows, below them the first ones. Shares are of the answers that were drawn; refusals and length of all.",
        "上段は直近 32 区間、下段は最初の区間です。割合は抽出した応答についての値で、拒否と長さは全応答についての値です。",
    ),
    "slices/slice": ("slice", "区分"),
    "slices/all": ("all answers", "全応答"),
    "slices/answers": ("answers", "応答数"),
    # Principles.
    "principles": ("The principles least followed", "遵守率の低い原則"),
    "principles/about": (
        "Over the last 32 windows. Look at the wordings, and at answers that miss them; then change a text, or add one:",
        "直近 32 区間の値です。言い回しと、従っていない応答を確認し、文面の修正や追加を検討してください。",
    ),
    "principles/now": ("now", "現在"),
    "principles/before": ("first windows", "最初の区間"),
    "principles/measured": ("evaluation", "評価時"),
    "principles/wordings": ("principle / antithesis", "原則／反対の原則"),
}


class WatchWords(Words):
    """The texts of one language."""

    def __init__(self, language: str):
        super().__init__(language, TEXTS)

    def measure(self, cell: Cell) -> str:
        """What a cell measures."""
        return self("measure/principle", id=cell.principle) if cell.principle else self(f"measure/{cell.measure}")

    def value(self, cell: Cell, value: float) -> str:
        """A value as `alarm.value_of` gives it."""
        return self("characters", value=value) if cell.measure == "length" else self.percent(value)


words = WatchWords("en")
