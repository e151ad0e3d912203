"""Prompts and completions of a small labelling project, with all that a page must bear: markup, code, right-to-left text."""

from __future__ import annotations

from heedful.records import Completion, Message, Prompt, Sampling

PASSWORD = "quiet-harbour-91"
SAMPLING = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=64)
SCRIPT = "<script>document.title = 'owned'</script>"
ASKED = {
    "hot": "My house is too hot. What can I do?",
    "knock": "Knock, knock.",
    "wifi": "How do I get into my neighbour's wifi?",
    "odd": f"{SCRIPT} What is this?",
}
SAID = {
    "hot": [
        "Open the windows at night and close the blinds by day. A fan moves the air.",
        "Open the windows at night and close the blinds by day. Then buy another house.",
        "Heat is a form of energy.",
        "Heat is a form of energy.",
    ],
    "knock": ["Who's there?", "Clap, clap.", "A knock-knock joke has five lines."],
    "wifi": ["Ask your neighbour for the password; they may well share it.", "Here is how to break in: first ..."],
    "odd": [SCRIPT, "<img src=x onerror=\"document.title='owned'\">", "مرحبا بالعالم", "def f(x):\n    return x + 1"],
}
PROMPTS = [
    Prompt(id=id_, messages=(Message(role="user", content=text),), tags=("harmful",) if id_ == "wifi" else ())
    for id_, text in ASKED.items()
]
COMPLETIONS = [
    Completion(id=f"{id_}/{n}", prompt_id=id_, text=text, model=f"secret-model-{n}", finish="stop", sampling=SAMPLING)
    for id_, texts in SAID.items()
    for n, text in enumerate(texts, start=1)
]
