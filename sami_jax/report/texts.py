# ruff: noqa: RUF001 (Japanese has marks of its own)
"""Every word of the report that is ours, in each language. Texts of models, principles and files are data, and stay as they are."""

from collections.abc import Mapping

LANGUAGES = ("en", "ja")

# Key -> the text in each of LANGUAGES. Fields are those of str.format.
TEXTS: dict[str, tuple[str, str]] = {
    "eyebrow": ("Alignment report · SAMI", "アラインメント報告書 · SAMI"),
    "title": ("Run {name}", "実行 {name}"),
    "as of": ("As of {time}", "{time} 時点"),
    "run status/complete": ("complete", "完了"),
    "run status/running": ("not finished", "未完了"),
    "run status/stopped by canaries": ("stopped by canaries", "カナリアにより停止"),
    "contents": ("Contents", "目次"),
    "base": ("base model", "ベースモデル"),
    "trained": ("aligned model", "学習後のモデル"),
    "iteration": ("iteration {number}", "反復 {number}"),
    "set/trained": ("trained principles", "学習した原則"),
    "set/held_out_principles": ("held-out principles", "学習していない原則"),
    "set/held_out_phrasings": ("trained principles, held-out wordings", "学習した原則（学習していない言い回し）"),
    "set/bare": ("trained principles, not stated in the prompt", "学習した原則（プロンプトに示さない）"),
    # The verdict.
    "verdict": ("The verdict", "結論"),
    "verdict/better": (
        "The aligned model is better: on held-out queries it wins {win} of comparisons with the base model (95 % interval {low} to {high}) and follows {after} of the stated principles, against {before} before.",
        "学習後のモデルの方が優れています。学習に使っていない質問での対ベースモデル勝率は {win}（95% 信頼区間 {low}〜{high}）、指示された原則の遵守率は学習前の {before} に対して {after} です。",
    ),
    "verdict/worse": (
        "The aligned model is worse: on held-out queries it wins only {win} of comparisons with the base model (95 % interval {low} to {high}) and follows {after} of the stated principles, against {before} before.",
        "学習後のモデルの方が劣っています。学習に使っていない質問での対ベースモデル勝率は {win}（95% 信頼区間 {low}〜{high}）にとどまり、指示された原則の遵守率は学習前の {before} に対して {after} です。",
    ),
    "verdict/same": (
        "No difference shown: on held-out queries the aligned model wins {win} of comparisons with the base model, and the 95 % interval, {low} to {high}, holds 50 %; it follows {after} of the stated principles, against {before} before.",
        "差は示されていません。学習に使っていない質問での対ベースモデル勝率は {win} で、95% 信頼区間（{low}〜{high}）が 50% を含みます。指示された原則の遵守率は学習前の {before} に対して {after} です。",
    ),
    "verdict/unjudged": (
        "Not judged: this run had no judge, so whether responses follow the principles was not measured. What a response reveals about its constitution went from {before} to {after} nats, of at most {cap}.",
        "評価器による判定は行われていません。この実行には評価器が設定されておらず、応答が原則に従っているかは測定されていません。応答が憲法について伝える情報量の下限は {before} から {after} natになりました（上限 {cap}）。",
    ),
    "verdict/nothing": (
        "Nothing to compare yet: no model of this run has been trained and measured.",
        "比較できる結果がまだありません。この実行では、学習と測定を終えたモデルがありません。",
    ),
    "measured on": (
        "Aligned model: iteration {iteration}. {responses} responses to held-out queries. Ties count as half a win; intervals allow for responses to the same query being alike.",
        "学習後のモデルは反復 {iteration} のものです。学習に使っていない質問への応答 {responses} 件で比較しました。引き分けは0.5 勝と数え、区間は同じ質問への応答どうしの相関を考慮しています。",
    ),
    "principles improved": (
        "By principle: {better} better, {same} without a shown difference, {worse} worse.",
        "原則別の内訳：改善 {better} 件、差が示されないもの {same} 件、悪化 {worse} 件。",
    ),
    "warning/stopped": (
        "Canaries stopped the training of iteration {iteration} after update {update}: {reason}. The model of update {kept}, the last good one, was kept and measured.",
        "反復 {iteration} の学習は、更新 {update} の後にカナリアが検知した異常により停止しました（{reason}）。正常だった最後のモデル（更新 {kept}）を保存し、測定しています。",
    ),
    "warning/stopped, none kept": (
        "Canaries stopped the training of iteration {iteration} after update {update}: {reason}. None of its models was good, so none was kept.",
        "反復 {iteration} の学習は、更新 {update} の後にカナリアが検知した異常により停止しました（{reason}）。この反復には正常なモデルがなく、保存していません。",
    ),
    "warning/rounded away": (
        "Of the updates of iteration {iteration}, only {share} reached the weights that the model is computed with; the rest was rounded away.",
        "反復 {iteration} の更新のうち、計算に使われる重みに反映されたのは {share} だけで、残りは丸めにより失われています。",
    ),
    "warning/unapproved": (
        "Principles that nobody had approved were used: {names}.",
        "承認されていない原則が使用されています：{names}。",
    ),
    "warning/running": (
        "The run has not finished; this report shows what is there so far.",
        "実行はまだ完了していません。本報告書は現時点の結果を示します。",
    ),
    "warning/differs": (
        "What this folder holds is not what the run recorded: {complaint}",
        "フォルダーの内容が実行時の記録と一致しません：{complaint}",
    ),
    "fact/win": ("Wins over the base", "対ベースモデル勝率"),
    "fact/interval": ("95 % interval {low} to {high}", "95% 信頼区間 {low}〜{high}"),
    "fact/following": ("Principles followed", "原則の遵守率"),
    "fact/information": ("Information, nats", "情報量（nat）"),
    "fact/whole": ("Well-formed responses", "整った応答の割合"),
    "fact/length": ("Length, tokens", "応答の長さ（トークン）"),
    "fact/before": ("base: {before}", "ベース：{before}"),
    "fact/cap": ("base: {before}; at most {cap}", "ベース：{before}、上限 {cap}"),
    # Curves.
    "curves": ("How it came about", "学習の経過"),
    "curves/about": (
        "Iteration 0 is the base model. Each iteration trains the base model anew, on responses of the model before; bars are 95 % intervals.",
        "反復 0 はベースモデルです。各反復では、前の反復のモデルの応答を用いてベースモデルを改めて学習します。縦棒は 95% 信頼区間です。",
    ),
    "axis/iteration": ("iteration", "反復"),
    "axis/update": ("update", "更新回数"),
    "figure/following": ("Stated principles that are followed", "指示された原則の遵守率"),
    "figure/win": ("Wins over the base model; dashed: 50 %, no difference", "対ベースモデル勝率（破線は差のない 50%）"),
    "figure/information": (
        "Lower bound on the information about the constitution, nats; dashed: the cap, log {count}",
        "憲法に関する相互情報量の下限（nat、破線は上限 log {count}）",
    ),
    "figure/loss": ("Training loss, nats", "学習損失（nat）"),
    "figure/training information": (
        "The same bound on training batches, nats; dashed: log {count}",
        "学習バッチにおける同じ下限（nat、破線は log {count}）",
    ),
    "figure/length": ("Mean length of a response, tokens", "応答の平均の長さ（トークン）"),
    "figure/signs": (
        "Canaries at checkpoints: what should rise or stay",
        "チェックポイントでのカナリア：上昇または維持が望ましい指標",
    ),
    "figure/alarms": (
        "Canaries at checkpoints: what should stay low",
        "チェックポイントでのカナリア：低いままが望ましい指標",
    ),
    "figure/stop": ("red, dashed: canaries fired", "赤の破線：カナリアの検知"),
    "sign/following": ("followed", "遵守率"),
    "sign/well_formed": ("well-formed", "整った応答"),
    "sign/mi_share": ("information, share of its cap", "情報量（上限比）"),
    "sign/repetition": ("repetition", "繰り返し"),
    "sign/refusal": ("refusals", "拒否"),
    "canaries/about": (
        "Canaries are a few fixed training queries, answered at every checkpoint under principles and under their opposites; they stop a training that collapses.",
        "カナリアは、固定した少数の学習用の質問に、原則とその反対の両方の下で毎回のチェックポイントで応答させるものです。学習の崩壊を検知すると停止させます。",
    ),
    # The matrix.
    "matrix": ("Do responses tell their constitutions apart?", "応答から憲法を見分けられるか"),
    "matrix/about": (
        "Each cell compares how likely a response (column) is under a constitution (row) with how likely it is under its own, in nats{per_token}, on average over held-out queries. A darker diagonal against paler cells beside it means that a response fits its own constitution and no other.",
        "各セルは、応答（列）が各憲法（行）の下で生成される対数尤度を、その応答自身の憲法の下での値との差（nat{per_token}）で示します。学習に使っていない質問での平均です。対角線が濃く、その他が薄いほど、応答は自身の憲法だけに合っています。",
    ),
    "matrix/per token": (" per token", "/トークン"),
    "matrix/row": ("constitution {number}", "憲法 {number}"),
    "matrix/column": ("response {number}", "応答 {number}"),
    # Slices.
    "slices": ("For whom is it better?", "どこで改善したか"),
    "slices/sets": ("By evaluation set", "評価セット別"),
    "slices/principles": ("By principle", "原則別"),
    "slices/principles about": (
        "One row a principle: responses whose constitution states it or its opposite, judged on this alone by the miniature's exact judge. An interval, over several principles or one, is for the principles named, not for others. With {count} intervals at 95 %, one in twenty is expected to mislead by chance.",
        "各行は、その原則または反対の原則を含む憲法の下での応答を、その原則のみについて、ミニチュア世界の厳密な評価器で判定したものです。区間は、複数の原則をまとめたものも含め、ここに挙げた原則についてのものであり、他の原則には当てはまりません。95% 信頼区間が {count} 個あるため、およそ 20 個に 1 個は偶然により外れると見込まれます。",
    ),
    "slices/slice": ("slice", "区分"),
    "slices/principle": ("principle", "原則"),
    "slices/role": ("role", "役割"),
    "slices/responses": ("responses", "応答数"),
    "slices/before": ("followed, base", "遵守率（ベース）"),
    "slices/after": ("followed, aligned", "遵守率（学習後）"),
    "slices/win": ("wins over base (95 %)", "勝率（95% 信頼区間）"),
    "slices/balanced": ("at balanced length", "長さ調整後"),
    "slices/balanced about": (
        "Balanced length: the mean of the win rates where the aligned model's response is longer and where it is not, so that length alone wins nothing.",
        "長さ調整後の勝率は、学習後のモデルの応答の方が長い場合とそうでない場合の勝率の平均です。応答が長いだけでは有利になりません。",
    ),
    "role/trained": ("trained", "学習用"),
    "role/held out": ("held out", "評価専用"),
    # What was kept.
    "kept": ("What was kept", "元の能力は保たれているか"),
    "kept/sentence": (
        "Of {count} figures whose difference can be judged, {better} are better, {same} show no difference, {worse} are worse.",
        "差を判定できる指標 {count} 件のうち、改善 {better} 件、差が示されないもの {same} 件、悪化 {worse} 件。",
    ),
    "kept/no interval": (
        "No difference can be judged: no figure has both an interval and a side that is better.",
        "差を判定できる指標がありません。区間があり、かつ良い方向の分かる指標が一つもないためです。",
    ),
    "kept/about": (
        "By lm-eval, on both models. Each number is that of its files, ± its standard error, in the metric's own unit. The 95 % interval of a difference takes the two errors as independent; both models answered the same questions, so it is as a rule wider than it need be. That no difference is shown does not mean that nothing was lost: the interval says how much may have been. There is none where a standard error is missing, or is 0. A group's row sums up rows of its tasks. Of {count} intervals at 95 %, one in twenty is expected to mislead by chance.",
        "両モデルを lm-eval で測定しました。値とその標準誤差（±）は結果ファイルのもので、単位は各指標のものです。差の 95% 信頼区間は二つの誤差を独立とみなしています。両モデルは同じ問題に答えているため、区間は通常、必要以上に広くなります。差が示されないことは、何も失われていないことを意味しません。どれだけ失われた可能性があるかは区間が示します。標準誤差がない場合や 0 の場合、区間はありません。グループの行は、その各タスクの行をまとめたものです。95% 信頼区間が {count} 個あり、およそ 20 個に 1 個は偶然により外れると見込まれます。",
    ),
    "kept/another model": (
        "The aligned model's file is of {model}. Seen from here, that is not the model of iteration {iteration}, which the verdict is on.",
        "学習後のモデルの結果ファイルは {model} のものです。ここから見る限り、結論の対象である反復 {iteration} のモデルではありません。",
    ),
    "kept/only": (
        "Not compared, since only the file of the {model} has it: {names}.",
        "{model}の結果ファイルにしかないため、比較していないもの：{names}。",
    ),
    "kept/told": (
        "The two runs of lm-eval differ in {place}: {base} for the base model, {aligned} for the aligned model.",
        "二回の lm-eval の実行では {place} が異なります。ベースモデルは {base}、学習後のモデルは {aligned} です。",
    ),
    "kept/task": ("task", "タスク"),
    "kept/group": ("{name} (group)", "{name}（グループ）"),
    "kept/metric": ("metric", "指標"),
    "kept/questions": ("questions", "問題数"),
    "kept/difference": ("difference (95 %)", "差（95% 信頼区間）"),
    "kept/interval": ("{difference} ({low} to {high})", "{difference}（{low}〜{high}）"),
    "kept/higher": ("higher is better", "高いほど良い"),
    "kept/lower": ("lower is better", "低いほど良い"),
    "kept/shown": ("shown", "判定"),
    "kept/better": ("better", "改善"),
    "kept/same": ("no difference shown", "差は示されず"),
    "kept/worse": ("worse", "悪化"),
    "kept/files": ("Results files of lm-eval", "lm-eval の結果ファイル"),
    # Examples.
    "examples": ("Before and after", "学習前後の応答例"),
    "examples/about": (
        "Same query, same constitution. Taken at even distances from the file of responses, not picked by hand.",
        "質問と憲法は同じです。応答ファイルから等間隔に抜き出したもので、人手で選んでいません。",
    ),
    "examples/losses": ("Where the base model did better", "ベースモデルの方が良かった例"),
    "examples/losses about": (
        "{losses} of {count} comparisons were lost; some of them.",
        "{count} 件の比較のうち {losses} 件で敗れました。その一部を示します。",
    ),
    "examples/none lost": ("None of {count} comparisons was lost.", "{count} 件の比較で敗れたものはありません。"),
    "examples/query": ("Query", "質問"),
    "examples/constitution": ("Constitution", "憲法"),
    "examples/followed": ("followed", "遵守"),
    "examples/not followed": ("not followed", "不遵守"),
    "examples/empty": ("(empty response)", "（空の応答）"),
    "cut": ("… {count} more characters", "… 以下 {count} 文字省略"),
    "explained": ("Why does it say what it says?", "なぜそう答えるのか"),
    "explained/about": (
        "A word is coloured by how much likelier its constitution makes it, compared with the average of the constitutions under which the query was answered. Bars: what the response loses in log-probability, in nats, when that line is taken out of its constitution.",
        "単語の色は、その質問に使われた各憲法の平均に比べて、当該の憲法がその単語をどれだけ生成されやすくしたかを表します。棒は、その行を憲法から除いたときに応答の対数確率が下がる量（nat）です。",
    ),
    "explained/less": ("less likely, {value} nats", "生成されにくい（{value} nat）"),
    "explained/more": ("likelier, {value} nats", "生成されやすい（{value} nat）"),
    # Principles.
    "principles": ("The principles", "原則"),
    "principles/about": (
        "Approvals are bound to the SHA-256 of the text that was read. Antitheses were trained on as well: a prompt that states one will be followed too.",
        "承認は、確認された文面のSHA-256に結び付いています。反対の原則も学習に使われているため、それを指示すれば同様に従います。",
    ),
    "principles/principle": ("Principle", "原則"),
    "principles/antithesis": ("Antithesis", "反対の原則"),
    "principles/approved by": ("approved by {names}", "承認者：{names}"),
    "principles/nobody": ("approved by nobody", "承認者なし"),
    "more": ("… and {count} more in run.json", "… ほか {count} 件（run.json に記載）"),
    "status/approved": ("approved", "承認済み"),
    "status/in review": ("in review", "レビュー中"),
    "status/draft": ("draft", "下書き"),
    "status/rejected": ("rejected", "却下"),
    "status/superseded": ("superseded", "旧版"),
    # Cost.
    "cost": ("What it cost", "所要時間と計算資源"),
    "cost/device": ("Device", "デバイス"),
    "cost/total": ("From the first to the last entry of the log", "ログの最初から最後までの時間"),
    "cost/continued": (
        "The run was interrupted and continued {count} times; work before an interruption is not in its stage's time.",
        "実行は {count} 回中断・再開されています。中断前の作業時間は各段階の時間に含まれません。",
    ),
    "cost/sampling": ("sampling", "応答生成"),
    "cost/training": ("training", "学習"),
    "cost/measuring": ("measuring", "測定"),
    "cost/kept": ("queries kept", "採用した質問"),
    "cost/sampled": ("tokens sampled", "生成トークン"),
    "cost/answered": ("tokens measured", "測定トークン"),
    "cost/updates": ("updates", "更新回数"),
    "cost/of": ("{kept} of {count}", "{kept} / {count}"),
    "cost/dropped": ("Dropped in iteration {number}: {reasons}.", "反復 {number} の除外：{reasons}。"),
    "cost/seconds": ("{value} s", "{value} 秒"),
    "cost/minutes": ("{value} min", "{value} 分"),
    "cost/hours": ("{value} h", "{value} 時間"),
    # The record.
    "record": ("The record, and how to check it", "記録と検証方法"),
    "record/verify": (
        "This command checks every recorded file, the manifest and the audit log, and names what differs:",
        "次のコマンドは、記録されたすべてのファイル、マニフェスト、監査ログを検証し、相違があればその箇所を示します。",
    ),
    "record/verified": (
        "When this report was written, all was as recorded: {files} files, {events} log entries, {principles} principles.",
        "本報告書の作成時点では、すべて記録どおりでした（ファイル {files} 件、ログ {events} 件、原則 {principles} 件）。",
    ),
    "record/head": (
        "The log is not signed. Keep its last hash elsewhere to notice a log written anew:",
        "ログに署名はありません。全体の書き換えを検知できるよう、最後のハッシュを別の場所に保管してください。",
    ),
    "record/base": ("Base model", "ベースモデル"),
    "record/code": ("Code", "コード"),
    "record/seed": ("Seed", "シード"),
    "record/input": ("Input: {name}", "入力：{name}"),
    "record/plan": ("Evaluation plan", "評価計画"),
    "record/review": ("Reviews", "レビュー"),
    "record/versions": ("Versions", "バージョン"),
    "record/effective": (
        "Share of updates that reached the weights computed with",
        "計算に使われる重みに反映された更新の割合",
    ),
    "record/outputs": ("Exported files", "出力ファイル"),
    "record/config": ("Configuration", "設定"),
    "review/share": ("{share} {outcome}", "{outcome} {share}"),
    "review/accepted": ("accepted", "採択"),
    "review/edited": ("edited", "修正"),
    "review/rejected": ("rejected", "却下"),
    "review/open": ("open", "未決"),
    "limits": (
        "Limits: measured on held-out queries of the training domain alone, and, where a judge is named, by that judge alone.",
        "留意点：測定は学習と同じ分野の評価用の質問に限られ、評価器がある場合はその評価器による判定に限られます。",
    ),
    "judge": ("Judge: {name}.", "評価器：{name}。"),
    "percent": ("{value:.1f} %", "{value:.1f}%"),
    "and": (", ", "、"),
}


class Words:
    """The texts of one language: of the report, or of other pages."""

    def __init__(self, language: str, texts: Mapping[str, tuple[str, str]] = TEXTS):
        self.language, self._texts = language, texts
        self._place = LANGUAGES.index(language)

    def __call__(self, key: str, **values) -> str:
        return self._texts[key][self._place].format(**values)

    def term(self, kind: str, name: str) -> str:
        """The word for a name out of the files; the name itself where there is none."""
        key = f"{kind}/{name}"
        return self(key) if key in self._texts else name

    def percent(self, share: float) -> str:
        return self("percent", value=100 * share)

    def duration(self, seconds: float) -> str:
        for unit, size in (("hours", 3600), ("minutes", 60)):
            if seconds >= 2 * size:
                return self(f"cost/{unit}", value=f"{seconds / size:.1f}")
        return self("cost/seconds", value=f"{seconds:.0f}")
