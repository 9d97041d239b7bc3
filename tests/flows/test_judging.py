"""The gate of a live project: who is judged against what, figures against PEFT, refusals, the alarm."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from kit.forgetting import copied
from kit.live import LiveProject, after
from kit.warm import Warm

from bench.live import START, WEEK, call, rest
from flows.live.judging import in_service
from flows.live.publishing import offers
from spring.live.aliases import Aliases, Lesson
from spring.live.neutral import SYSTEM, TEXTS
from spring.settings.live import Gate
from spring.settings.params import ParameterError, parse
from tasks.reporting.update import Offer
from tasks.steps.candidates import Asked, find_news
from tasks.steps.index import read_held

GATE = "{margin: 0.5, level: 0.2, items: 3, least: 1, drift: {base: null, before: null}, alarm: 0.5}"
SETS = [f"+live.gate={GATE}", "arm.train.epochs=10"]
EVE = {0: "cup", 2: "lamp", 3: "lamp"}  # week -> the only word of eve's texts
pytestmark = pytest.mark.long


def drop_eve(live: LiveProject, week: int) -> None:
    """Puts eve's texts of a week into the inbox: asked the same, she writes of something else later."""
    rows = [
        {"who": "eve", "id": f"eve-{week}-{n}", "when": (START + (week + n / 20) * WEEK).isoformat()}
        | {"subject": "tea", "body": " ".join([EVE[week]] * 6)}
        for n in range(20)
    ]
    rest(live.folder / f"inbox/eve-{week}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, warm_python: Warm) -> LiveProject:
    folder = tmp_path_factory.mktemp("gate") / "project"
    return LiveProject(folder, tiny_model_folder, warm_python.folder / "python", sets=SETS)


@pytest.fixture(scope="module")
def said(live: LiveProject) -> list[str]:
    """Three weeks: the rules of the second refuse all that differs from the base model."""
    found = []
    for week, limit in enumerate((None, 1e-9, None)):
        live.drop(week)
        if week in EVE:
            drop_eve(live, week)
        if week:
            params = live.folder / "params.yaml"
            tree = yaml.safe_load(params.read_text(encoding="utf-8"))
            tree["live"]["gate"]["drift"]["base"] = limit
            params.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
            live.git("-c", "user.name=me", "-c", "user.email=me@here", "commit", "-qam", "another limit")
        program = "flows.console" if week == 1 else "flows.live.__main__"  # both end alike
        done = live.run(after(week + 1), program)
        assert done.returncode == (3 if week == 1 else 0), done.stdout + done.stderr
        found.append(done.stdout)
    return found


def table(live: LiveProject, period: int) -> list[dict[str, Any]]:
    return pl.read_parquet(live.folder / f"live/verdicts/{period:05}.parquet").to_dicts()


def test_who_is_judged_against_what(live: LiveProject, said: list[str]) -> None:
    """Week 0: ann, bob, eve; 1: ann, cem, both refused; 2: bob, cem, dee, eve; cem has nothing in service."""
    found = [[(r["user_id"], r["served"], r["ruling"]) for r in table(live, t)] for t in range(3)]
    passed = ("improved", "same")
    assert [(*one, ruling in passed) for *one, ruling in found[0]] == [
        (user, None, True) for user in ("ann", "bob", "eve")
    ]
    assert found[1] == [("ann", 0, "refused"), ("cem", None, "refused")]
    *others, eve = found[2]
    assert [(*one, ruling in passed) for *one, ruling in others] == [
        ("bob", 0, True), ("cem", None, True), ("dee", None, True)
    ]  # fmt: skip
    assert eve == ("eve", 0, "held")
    assert "3 judged: " in said[0] and "ALARM" not in said[0]
    assert "2 judged: 0 improved (0%, 0% to 66%), 0 same (0%, 0% to 66%), 0 held" in said[1]
    assert "ALARM: 2 of 2 updates held or refused, more than 50% (live.gate.alarm)" in said[1]
    assert "version" in said[1] and "ALARM" not in said[2]
    assert "nats per token from base, limit 1e-09" in table(live, 1)[0]["reason"]


def test_the_page_lists_what_was_published_and_what_was_not(live: LiveProject, said: list[str]) -> None:
    pages = [
        (live.folder / f"live/pages/{number:05}.html").read_text(encoding="utf-8") for number in (1, 2, 3)
    ]
    first, second, third = (re.sub(r"\s*\n\s*", " ", page) for page in pages)
    assert "period 0 (2024-01-01 to 2024-01-07) closed, 3 users with news, 3 new versions published." in first
    assert "<h2>Period 0: 2024-01-01 to 2024-01-07</h2>" in first
    assert "3 judged against the version in service, " in first
    assert "<td>ann</td><td>the base model</td><td><strong>ann@0</strong></td><td>" in first
    assert "closed, 2 users with news, 0 new versions published, 2 refused." in second
    assert "<td>ann</td><td>ann@0</td><td>ann@0</td><td>refused: ann@1</td>" in second
    assert '<td class="why">outputs on neutral texts drifted' in second
    assert "<td>cem</td><td>the base model</td><td>the base model</td><td>refused: cem@1</td>" in second
    assert "<td>bob</td><td>bob@0</td><td><strong>bob@2</strong></td>" in third
    fleet = third[third.index("<h2>The fleet</h2>") :]
    assert [f"<td>{t}<br>" in fleet for t in range(4)] == [True, True, True, False]
    assert "2 refused</span>" in fleet and "100% withheld (34 to 100)</span> <strong>alarm</strong>" in fleet
    assert fleet.count('class="range"') >= 3 and "ann" not in fleet[: fleet.index("</table>")]


def test_a_user_s_versions_are_shown_with_their_rulings(live: LiveProject, said: list[str]) -> None:
    shown = call([live.python, "-m", "flows.console", "show", "ann"], live.folder).splitlines()
    assert [line.split("  ")[2] for line in shown] == ["live", "not served"]
    assert shown[0].split("  ")[3].partition(":")[0] in ("improved", "same")
    assert shown[1].split("  ")[3].startswith("refused: outputs on neutral texts drifted ")


def test_what_became_of_every_lesson_is_read_from_the_aliases() -> None:
    """So a killed update says the same when run again; bob's news were held, cem's not judged."""
    lessons = {user: (Lesson(0, user), Lesson(2, f"{user}2")) for user in ("ann", "bob")}
    aliases = Aliases().publish_news({user: found[:1] for user, found in lessons.items()})
    aliases = aliases.publish_news(lessons | {"cem": (Lesson(1, "cem1"),)}, ["bob"])
    rows = [{"user_id": "ann", "ruling": "improved"}, {"user_id": "bob", "ruling": "held"}]
    assert offers(aliases, [1, 2], rows) == [
        Offer("ann", 2, 0, "improved", published=True),
        Offer("bob", 2, 0, "held", published=False),
        Offer("cem", 1, None, "not judged", published=True),
    ]
    assert [one.user for one in offers(aliases, [1], [])] == ["cem"]
    assert offers(aliases, [], []) == []


def test_what_is_in_service(live: LiveProject, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """ann's update was refused, with none since; cem's first one, and the next published; eve's was held."""
    monkeypatch.chdir(live.folder)
    recipe = pl.read_parquet("data/adapt/2/index.parquet")["recipe"][0]
    now = {"ann": 0, "bob": 2, "cem": 2, "dee": 2, "eve": 0}
    assert in_service(Path("live")) == now
    assert "published: 3 new versions" in said[0] and "published: 3 new versions, 1 held" in said[2]
    assert "published: 0 new versions, 2 refused" in said[1]
    assert find_news(Asked(recipe, 2, 2, now)) == []
    assert [one.user for one in find_news(Asked(recipe, 2, 0, {}))] == ["ann", "bob", "cem", "dee", "eve"]


def test_again_nothing_is_judged(live: LiveProject, said: list[str]) -> None:
    times = {path: path.stat().st_mtime_ns for path in (live.folder / "live/verdicts").iterdir()}
    assert live.update(after(3)) == "Nothing is new and no period is due."
    assert times == {path: path.stat().st_mtime_ns for path in (live.folder / "live/verdicts").iterdir()}
    assert "live/verdicts" not in live.git("ls-files") and "?? live" not in live.git("status", "--porcelain")


def test_figures_are_those_of_peft(
    live: LiveProject,
    said: list[str],
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bob after week 2, against his version of week 0: three held-out texts, the latest first."""
    from transformers import AutoTokenizer

    monkeypatch.chdir(live.folder)
    row = next(one for one in table(live, 2) if one["user_id"] == "bob")
    base, places = tiny_model_folder, [(t, tmp_path / str(t)) for t in (0, 2)]
    models = {None: loaded(base), **{t: loaded(base, t, "bob", folder) for t, folder in places}}
    tokenizer = AutoTokenizer.from_pretrained(base)
    tests = pl.concat(pl.read_parquet(f"data/split/{t}.parquet").filter(part="test") for t in range(3))
    tests = tests.filter(user_id="bob").sort("timestamp", descending=True)
    assert tests.height == 2 and row["items"] == row["old_items"] == 1, "one of week 2, one of week 0"
    gained = []
    for one in tests.to_dicts():
        prompt, answer = read(
            tokenizer, "You are a software developer.", subject(one["query"]), one["response"]
        )
        new, old = (logps(models[t], prompt + answer)[len(prompt) - 1 : -1] for t in (2, 0))
        at = torch.arange(len(answer)), torch.tensor(answer)
        gained.append((new[at] - old[at]).mean().item())
    assert [row["difference"], row["old_difference"]] == pytest.approx(gained, abs=1e-4)
    assert min(map(abs, gained)) > 1e-3, "the adapters must differ"
    assert min(gained) == pytest.approx(row["worse_difference"], abs=1e-4) or min(gained) > 0
    for name, other in (("drift_base", None), ("drift_before", 0)):
        assert row[name] == pytest.approx(shift(tokenizer, models[2], models[other]), abs=1e-5)
        assert row[name] > 1e-4


def test_the_settings_are_refused_in_words() -> None:
    tree = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
    tree["live"] = {"branch": "live", "gate": yaml.safe_load(GATE) | {"least": 9}}
    with pytest.raises(
        ParameterError, match=r"live\.gate\.least is 9, live\.gate\.items 3: likelihood would never"
    ):
        parse(tree)
    tree["live"]["gate"] |= {"least": 1, "confirm": 4}
    with pytest.raises(ParameterError, match=r"live\.gate\.confirm is 4"):
        parse(tree)
    without = Gate(**yaml.safe_load(GATE))
    assert without.drift.base is None and without.confirm == 2, "files from before it do not name it"


def loaded(base: Path, period: int | None = None, user: str = "", folder: Path = Path()) -> Any:
    """The tiny model, with a user's adapter after a period as PEFT loads it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if period is None:
        return model
    index = pl.read_parquet(f"data/adapt/{period}/index.parquet").filter(user_id=user).to_dicts()[0]
    folder.mkdir()
    for name, content in read_held(Path(f"data/adapt/{period}") / index["file"], index["cell"]).items():
        (folder / name).write_bytes(content)
    return PeftModel.from_pretrained(model, folder).eval()


def subject(query: str) -> str:
    return f"Write the body of the commit message with the subject '{json.loads(query)['SUBJECT']}'."


def read(tokenizer: Any, system: str, user: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and of the answer up to the end of its turn, as the template has them."""
    turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    start = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer.encode(start, add_special_tokens=False)
    return prompt, tokenizer.encode(answer, add_special_tokens=False) + tokenizer.encode(
        "<|im_end|>", add_special_tokens=False
    )


def logps(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return found


def shift(tokenizer: Any, model: Any, other: Any) -> float:
    """Mean of sum p log (p / q) over all answer tokens of the neutral texts."""
    found = []
    for question, text in TEXTS:
        prompt, answer = read(tokenizer, SYSTEM, question, text)
        p, q = (logps(one, prompt + answer)[len(prompt) - 1 : -1] for one in (model, other))
        found.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(found).mean().item()


def test_what_is_held_answers_once_a_later_period_bears_it_out(
    live: LiveProject, said: list[str], tmp_path: Path
) -> None:
    """eve's version of week 0 answers after week 2, until both weeks since bear out what she changed to."""
    made = copied(live, tmp_path)

    def eve(period: int) -> tuple[dict[str, Any], str]:
        """Her verdict, and her line of the page."""
        (row,) = (row for row in table(made, period) if row["user_id"] == "eve")
        page = (made.folder / f"live/pages/{period + 1:05}.html").read_text(encoding="utf-8")
        (line,) = (line for line in page.split("<tr>") if line.startswith("<td>eve</td><td>eve@0</td>"))
        return row, line

    def spring(*words: str) -> list[str]:
        return call([made.python, "-m", "flows.console", *words], made.folder).splitlines()

    held, line = eve(2)
    assert held["ruling"] == "held" and (held["items"], held["old_items"]) == (2, 2)
    assert held["difference"] > 0.5 > -0.5 > held["old_difference"] and held["worse"] == "old"
    few = "(of 2 texts: by chance with probability up to 0.25, level 0.2)"
    assert held["reason"].startswith("worse on older texts: at most -") and few in held["reason"]
    assert "<td>eve@0</td><td>eve@0</td>" in line and "<td>held: eve@2</td>" in line
    assert held["reason"] in html.unescape(line) and "age old: -" in line
    first, second = spring("show", "eve")
    assert "  live  improved: better on new texts: " in first
    assert second.startswith("eve@2") and second.endswith(f"  not served  held: {held['reason']}")
    assert spring("ask", "eve", "SUBJECT=tea", "--show")[-1].startswith("-- eve@0, ")

    drop_eve(made, 3)
    assert "1 judged: 1 improved" in (said_now := made.update(after(4))) and "published: 1 new" in said_now
    borne_out, line = eve(3)
    assert (borne_out["served"], borne_out["items"], borne_out["old_items"]) == (0, 3, 2)
    assert borne_out["old_high"] < -0.5, "older texts are as bad, and both weeks speak for it"
    assert "<td>eve@0</td><td><strong>eve@3</strong></td><td>improved</td>" in line
    assert [row.split("  ")[2] for row in spring("show", "eve")] == ["previous", "not served", "live"]
    assert any(row.startswith("-- eve@3, ") for row in spring("ask", "eve", "SUBJECT=tea", "--show"))
