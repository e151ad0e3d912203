"""The first screen in plain words: did it get better, at what cost, can it be trusted.

Every sentence follows from a verdict or an interval of summary.json; what did not improve is named like what did.
"""

from __future__ import annotations

from typing import Any

from heedful.report.numbers import bounds, duration, finite, listing, number, percent, plural, signed

# A change of the length by this share says: read the answers before you believe the reward.
TELLING_LENGTH_CHANGE = 0.25
MONITOR = "hacking monitor"  # as the reason why a run ended
TELLING_CURVE = 0.5  # share of gold's variance that a curve explains, before its peak is worth a sentence

Summary = dict[str, Any]


def headline(summary: Summary) -> str:
    """The answer in one line, over the quantities that have a better and a worse."""
    judged = [row for row in summary.get("compare", {}).values() if row.get("better")]
    if not judged:
        return "Did it get better?"
    if _kept_hacked(summary):
        return "Not to be believed: the hacking monitor stopped the run, and what it stopped was kept"
    hacked = _repeated(summary)
    if hacked:
        return f"Not to be believed: {number(100 * hacked[0]['after'], 0)}% of the answers say “{hacked[0]['phrase']}”"
    improved = [row["label"] for row in judged if row["verdict"] == "improved"]
    worse = [row["label"] for row in judged if row["verdict"] == "worse"]
    of = f"of {len(judged)} measures"
    if improved and worse:
        return f"Mixed: {len(improved)} {of} improved, {len(worse)} got worse"
    if worse:
        return f"No: {len(worse)} {of} got worse, none improved"
    if all(row["verdict"].startswith("one prompt") for row in judged):
        return "Not shown: one prompt gives no interval"
    if not improved:
        return f"Not shown: none {of} clearly changed"
    if improved == ["Reward"] and len(judged) > 1:
        return "In part: only the reward it was trained on improved"
    if len(improved) == len(judged):
        return f"Yes: all {len(judged)} measures improved"
    return f"In part: {len(improved)} {of} improved"


def stopped(summary: Summary) -> str:
    """What the first screen says of a run that the hacking monitor ended; nothing of others."""
    align = summary.get("align", {})
    if align.get("stopped") != MONITOR:
        return ""
    why = "; ".join(sign["said"] for sign in (align.get("hacking") or {}).get("signs", ()) if sign["level"] == "stop")
    said = f"The hacking monitor stopped the training after {plural(align['steps'], 'step')}{': ' + why if why else ''}. "
    if _kept_hacked(summary):
        return (
            said + "The policy as it was then was kept (monitor.roll_back is off): do not use it without reading its answers."
        )
    return said + (
        f"The policy of step {align['policy_step']}, the evaluation with the best gold, was kept; “after” means that one."
    )


def _kept_hacked(summary: Summary) -> bool:
    align = summary.get("align", {})
    return bool(align.get("stopped") == MONITOR and align.get("policy_step", align["steps"]) == align["steps"])


def better(summary: Summary) -> list[str]:
    """Gains first, then what got worse, then what cannot be told."""
    judged = [row for row in summary.get("compare", {}).values() if row.get("better")]
    said = []
    groups = {"improved": "improved", "worse": "got worse", "no clear change": "did not clearly change"}
    for verdict, words in groups.items():
        names = [row["label"].lower() for row in judged if row["verdict"] == verdict]
        if names:
            said.append(_sentence(f"{listing(names)} {words}."))
    unknown = [row["label"].lower() for row in judged if row["verdict"] not in groups]
    if unknown:
        said.append(_sentence(f"{listing(unknown)}: too few prompts to tell."))
    if unknown and all(row["num_prompts"] == 1 for row in judged):
        said.append("There was one held-out prompt only, so there are no intervals: the differences may be chance.")
    return said


def predicted(summary: Summary) -> str:
    """ " (2.6 predicted)", of the peak memory; nothing where none was predicted."""
    memory = summary.get("predicted_memory_mb")
    return f" ({number(memory / 1024, 1)} predicted)" if finite(memory) else ""


def cost(summary: Summary) -> list[str]:
    """Distance from the base, what became of the length, time and memory."""
    said = []
    kl, target = summary.get("kl"), summary.get("kl_target")
    if kl and finite(kl["estimate"]):
        leash = ""
        if finite(target) and target > 0:
            share = kl["estimate"] / target
            leash = f", {'above' if share > 1 else 'within'} the target of {target:g}"
        said.append(f"The model moved {number(kl['estimate'])} nats{bounds(kl)} a sequence away from its base{leash}.")
    length = summary.get("compare", {}).get("length")
    if length:
        sides = f"{number(length['before']['estimate'], 1)} to {number(length['after']['estimate'], 1)} tokens"
        words = {"grew": f"Answers grew longer: {sides}.", "shrank": f"Answers grew shorter: {sides}."}
        said.append(words.get(length["verdict"], f"No clear change in the length of answers: {sides}."))
    seconds = [value for value in summary.get("seconds", {}).values() if finite(value)]
    if seconds:
        memory = summary.get("peak_memory_mb")
        peak = f", {number(memory / 1024)} GiB of memory at the peak{predicted(summary)}" if finite(memory) else ""
        said.append(f"The run took {duration(sum(seconds))}{peak}.")
    if "align" in summary:
        done = summary["align"]
        steps = f"{done['steps']} step{'s' if done['steps'] != 1 else ''}"
        kept = done.get("policy_step", done["steps"])
        back = f"; the policy of step {kept} was kept" if kept != done["steps"] else ""
        said.append(f"{done['method'].upper()} took {steps} and ended at the {done['stopped']}{back}.")
    return said


def trust(summary: Summary) -> list[str]:
    """How far the reward model, the labelers and the sample carry."""
    return [
        *_feedback(summary),
        *_reward_model(summary),
        *repetition(summary),
        *_watched(summary),
        *_labelers(summary),
        *_sample(summary),
    ]


def _feedback(summary: Summary) -> list[str]:
    """How far the AI judge carries from whose preferences the run learned, and whether the gate had refused it."""
    found = summary.get("feedback")
    if not found:
        return []
    by = f"{found['num_preferences']} preferences come from an AI judge, {found['judge']}"
    accuracy = found.get("gate_accuracy")
    right = f", which is right on {percent(accuracy)} of pairs that people have judged" if accuracy else ""
    said = [f"{by}{right}."]
    if found["forced"]:
        said.append(
            f"That judge was not shown to be better than a coin and was used by force ({found['why_refused']}): what was "
            "learned from it may be noise."
        )
    return said


def repetition(summary: Summary) -> list[str]:
    """What the model says again and again, and did not before."""
    found = _repeated(summary)
    if not found:
        return []
    shares = [f"“{row['phrase']}” ({number(100 * row['before'], 0)}% → {number(100 * row['after'], 0)}%)" for row in found]
    return [f"Answers repeat themselves, a sign of reward hacking. Share of answers that hold the phrase: {listing(shares)}."]


def _watched(summary: Summary) -> list[str]:
    """What the hacking monitor saw at the end of training; repeated phrases have a sentence of their own."""
    found = summary.get("align", {}).get("hacking")
    if not found:
        return []
    signs = [sign["said"] for sign in found["signs"] if sign["name"] != "phrase"]
    if not signs:
        return ["The hacking monitor saw nothing in the last evaluation of the training."]
    did = "ended the training" if found["level"] == "stop" else "warns"
    said = [f"The hacking monitor {did}: {'; '.join(signs)}."]
    curve = found.get("curve") or {}
    peak = curve.get("peak")
    if finite(peak) and curve["explained"] >= TELLING_CURVE:
        said.append(f"Gold is greatest about {number(peak**2, 1)} nats from the base, by the curve that fits the evaluations.")
    return said


def _repeated(summary: Summary) -> list[dict[str, Any]]:
    return [row for row in summary.get("phrases", []) if finite(row["before"]) and finite(row["after"])]


def _reward_model(summary: Summary) -> list[str]:
    model = summary.get("reward_model")
    if not model or "accuracy" not in model:
        return []
    accuracy = model["accuracy"]
    if "num_texts" in model:  # of two classes
        majority = model["majority_class"]
        said = [
            f"The reward model sorts {percent(accuracy)} of {model['num_texts']} held-out texts as people did: "
            f"{_against(accuracy, majority, f'always the larger class ({number(100 * majority, 1)}%)')}."
        ]
    else:
        chance = _against(accuracy, 0.5, "a coin")
        longest = f"“the longer answer wins” ({number(100 * model['longest_answer'], 1)}%)"
        said = [
            f"The reward model orders {percent(accuracy)} of {model['num_pairs']} held-out pairs as the labelers did: "
            f"{chance}, {_against(model['above_longest_answer'], 0.0, longest)}."
        ]
    risen = summary.get("compare", {}).get("reward", {}).get("verdict") == "improved"
    if risen and not (finite(accuracy.get("low")) and accuracy["low"] > 0.5):
        said.append("So the higher reward alone proves little.")
    return said


def reward_model(summary: Summary) -> str:
    """How well it does on what was held out; nothing where none was trained, or nothing measured."""
    model = summary.get("reward_model") or {}
    if "accuracy" not in model:
        return ""
    if "num_texts" in model:
        return (
            f"Of {model['num_texts']} held-out texts it sorts {percent(model['accuracy'])} as people did; the larger class is "
            f"{number(100 * model['majority_class'], 1)}%. F1 {percent(model['f1'])}, AUC {percent(model['auc'])}."
        )
    above, longest = model["above_longest_answer"], number(100 * model["longest_answer"], 1)
    return (
        f"On {model['num_pairs']} held-out pairs from {model['num_prompts']} prompts it agrees with the labelers in "
        f"{percent(model['accuracy'])}. Taking the longer answer instead agrees in {longest}%: "
        f"a difference of {signed(100 * above['estimate'], 1)}{bounds(above, 1, scale=100, sign=True)} points."
    )


def _against(interval: dict[str, Any], level: float, name: str) -> str:
    low, high = interval.get("low"), interval.get("high")
    if not (finite(low) and finite(high)):
        return f"too few prompts to set against {name}"
    if low > level:
        return f"better than {name}"
    return f"worse than {name}" if high < level else f"not clearly better than {name}"


def limits(summary: Summary) -> list[str]:
    """What speaks against the model, drawn from what was measured; for its card."""
    judged = [row for row in summary.get("compare", {}).values() if row.get("better")]
    worse = [row["label"].lower() for row in judged if row["verdict"] == "worse"]
    unclear = [row["label"].lower() for row in judged if row["verdict"] not in ("worse", "improved")]
    said = [_sentence(f"{listing(worse)} got worse.")] if worse else []
    if unclear:
        said.append(f"No clear change was measured in {listing(unclear)}.")
    if not judged:
        said.append("It was not measured on held-out prompts.")
    if summary.get("simulated_labelers"):
        said.append("It learned from simulated labelers who go by a written rubric; what people would prefer was not asked.")
    return [*said, *([stopped(summary)] if _kept_hacked(summary) else []), *trust(summary)]


def _labelers(summary: Summary) -> list[str]:
    labelers = summary.get("labelers", [])
    suspects = [row["labeler"] for row in labelers if row["suspect"]]
    said = []
    if suspects:
        verb = "is" if len(suspects) == 1 else "are"
        said.append(f"{len(suspects)} of {len(labelers)} labelers {verb} suspect: {listing(suspects)}.")
    elif labelers:
        said.append("No labeler stands out as careless.")
    alpha = alpha_of(summary)
    if finite(alpha["estimate"]):
        said.append(
            f"Agreement among labelers, where 0 is chance and 1 is perfect: {number(alpha['estimate'])}{bounds(alpha)} "
            "(Krippendorff's alpha)."
        )
    return said


def alpha_of(summary: Summary) -> dict[str, Any]:
    """Krippendorff's alpha as an interval; None where it was not measured."""
    found = summary.get("agreement", {})
    places = {"estimate": "", "low": "_low", "high": "_high"}
    return {name: found.get(f"krippendorff_alpha{ending}") for name, ending in places.items()}


def _sample(summary: Summary) -> list[str]:
    compared = summary.get("compare", {})
    if not compared:
        return []
    said = []
    verdicts = {name: row["verdict"] for name, row in compared.items()}
    if verdicts.get("reward") == "improved":
        if verdicts.get("rubric", "improved") != "improved":
            said.append("The reward rose but the rubric score did not: read the answers below for reward hacking.")
        said += _length(compared.get("length"))
    prompts = max(row["num_prompts"] for row in compared.values())
    said.append(f"Measured on {prompts} held-out prompt{'s' if prompts != 1 else ''} with one seed; another may differ.")
    return said


def _length(row: dict[str, Any] | None) -> list[str]:
    if row is None or row["verdict"] not in ("grew", "shrank"):
        return []
    before, after = row["before"]["estimate"], row["after"]["estimate"]
    if not (finite(before) and finite(after) and before > 0) or abs(after / before - 1) < TELLING_LENGTH_CHANGE:
        return []
    change = f"{number(100 * abs(after / before - 1), 0)}% {'longer' if after > before else 'shorter'}"
    return [f"Answers are {change}: a model can win reward by length alone, so read some below."]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
