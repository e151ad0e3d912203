"""Generation against Hugging Face's, token for token, and against the model's own distribution."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import tiny_model
import torch
from scipy import stats

from heedful.engine.generation import Decoding, Response, sample
from heedful.engine.sampling import sample_completions
from heedful.engine.scoring import score_responses
from heedful.models.policy import POLICY, LanguageModel, ValueHead, load_language_model
from heedful.records import Completion, Message, Prompt, Sampling

CPU = torch.device("cpu")
DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
# Left padding against right padding sums attention in another order; float32 keeps six digits.
SAME = 2e-5
# Over thirty tokens, each reading the states of those before it, one row alone and many at once round apart: 4.2e-5 was seen
# where AVX2 is the widest a processor has. A wrong place or a wrong state is off by a hundred times that.
CARRIED = 1e-4

TEXTS = ["Knock, knock.", "My house is too hot.", "How can I hack into my neighbor's wifi?", "Hi."]


@pytest.fixture(scope="module", params=DEVICES, ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")
    loaded = load_language_model(str(folder), dtype=torch.float32, device=request.param)
    loaded.add_adapter(POLICY, rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj"), layers=2, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.adapter_parameters(POLICY).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return loaded


def prompts(model: LanguageModel) -> list[list[int]]:
    return [model.chat.prompt_ids((Message(role="user", content=text),)) for text in TEXTS]


def test_greedy_equals_hugging_face(model: LanguageModel) -> None:
    greedy = Decoding(temperature=0, top_p=1, max_new_tokens=24)
    for adapter in (None, POLICY):
        ours = sample(model, prompts(model), greedy, adapter=adapter, samples_per_prompt=1, generator=torch.Generator())
        for ids, answers in zip(prompts(model), ours, strict=True):
            with model.using(adapter):
                row = torch.tensor([ids], device=model.device)
                theirs = model.causal.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=24, do_sample=False)
            assert answers[0].ids == theirs[0, len(ids) :].tolist()


def test_logprobs_while_decoding_are_those_of_a_second_pass(model: LanguageModel) -> None:
    decoding = Decoding(temperature=0.8, top_p=1, max_new_tokens=30)
    found = sample(
        model, prompts(model), decoding, adapter=POLICY, samples_per_prompt=5, generator=torch.Generator().manual_seed(3)
    )
    flat = [(ids, answer) for ids, answers in zip(prompts(model), found, strict=True) for answer in answers]
    assert len({len(answer.ids) for _, answer in flat}) > 3, "rows of unequal length are what this test is about"
    scored = score_responses(model, [ids for ids, _ in flat], [answer.ids for _, answer in flat], temperature=0.8)
    for (_, answer), score in zip(flat, scored, strict=True):
        torch.testing.assert_close(score.logprobs_T, torch.tensor(answer.logprobs), atol=SAME, rtol=SAME)
        assert float(score.kl_T.min()) > -1e-6


def test_an_answer_ends_with_its_end_of_text_and_only_there(model: LanguageModel) -> None:
    decoding = Decoding(temperature=1.5, top_p=1, max_new_tokens=60)
    found = sample(
        model, prompts(model), decoding, adapter=None, samples_per_prompt=16, generator=torch.Generator().manual_seed(0)
    )
    answers = [answer.ids for group in found for answer in group]
    ended = [ids for ids in answers if ids[-1] in model.chat.eos_ids]
    assert ended
    assert all(not set(ids[:-1]) & set(model.chat.eos_ids) for ids in answers)
    assert all(len(ids) == 60 for ids in answers if ids[-1] not in model.chat.eos_ids)


def test_first_token_follows_the_models_distribution(model: LanguageModel) -> None:
    ids = prompts(model)[0]
    decoding = Decoding(temperature=1.0, top_p=1, max_new_tokens=1)
    draws = sample(model, [ids], decoding, adapter=POLICY, samples_per_prompt=4000, generator=torch.Generator().manual_seed(5))
    counts = Counter(answer.ids[0] for answer in draws[0])
    with torch.no_grad():
        row = torch.tensor([ids], device=model.device)
        hidden = model.hidden(row, torch.ones_like(row, dtype=torch.bool), adapter=POLICY)[0, -1]
        expected = torch.softmax(torch.nn.functional.linear(hidden, model.head_VD), -1).double().cpu()
    # Tokens expected fewer than five times are one cell, as the test's theory asks.
    common = [i for i in range(len(expected)) if expected[i] * 4000 >= 5]
    observed = [counts[i] for i in common] + [4000 - sum(counts[i] for i in common)]
    wanted = [float(expected[i]) * 4000 for i in common]
    assert stats.chisquare(observed, [*wanted, 4000 - sum(wanted)]).pvalue > 0.001


def test_seed_decides_and_prompts_may_share_a_batch(model: LanguageModel) -> None:
    decoding = Decoding(temperature=1.0, top_p=0.9, max_new_tokens=10)

    def draw(seed: int) -> list[list[int]]:
        found = sample(
            model, prompts(model), decoding, adapter=None, samples_per_prompt=2, generator=torch.Generator().manual_seed(seed)
        )
        return [answer.ids for group in found for answer in group]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("max_rows", [1, 3, 7])
def test_prompts_that_wait_for_a_free_row_get_the_same_answers(model: LanguageModel, max_rows: int) -> None:
    """Rows end at different steps, others move into their places, and the samples of one prompt enter in parts."""
    decoding = Decoding(temperature=0.8, top_p=1, max_new_tokens=30)

    def answers(rows: int) -> list[list[Response]]:
        generator = torch.Generator().manual_seed(11)
        return sample(
            model, prompts(model) * 2, decoding, adapter=POLICY, samples_per_prompt=3, generator=generator, max_rows=rows
        )

    together, waiting = answers(128), answers(max_rows)
    assert len({len(answer.ids) for group in together for answer in group}) > 3
    assert [[answer.ids for answer in group] for group in waiting] == [[answer.ids for answer in group] for group in together]
    for one, other in zip(together, waiting, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=CARRIED, rtol=CARRIED)


def test_a_model_without_the_packed_trunk_answers_as_hugging_face_does(model: LanguageModel) -> None:
    """The other decoder over the same weights: the same answers, with and without waiting."""
    generators = [torch.Generator().manual_seed(4) for _ in range(3)]
    decoding = Decoding(temperature=1.2, top_p=0.95, max_new_tokens=20)

    def answers(generator: torch.Generator, **options: int) -> list[list[int]]:
        found = sample(model, prompts(model), decoding, adapter=POLICY, samples_per_prompt=4, generator=generator, **options)
        return [answer.ids for group in found for answer in group]

    expected = answers(generators[0])
    trunk, model.trunk = model.trunk, lambda adapter: None  # type: ignore[method-assign]
    try:
        assert answers(generators[1]) == expected
        assert answers(generators[2], max_rows=5) == expected
    finally:
        model.trunk = trunk  # type: ignore[method-assign]


def test_states_kept_while_decoding_score_as_a_second_pass_does(model: LanguageModel) -> None:
    decoding = Decoding(temperature=0.8, top_p=1, max_new_tokens=16)
    drawn = sample(
        model,
        prompts(model),
        decoding,
        adapter=POLICY,
        samples_per_prompt=3,
        generator=torch.Generator().manual_seed(3),
        keep_hidden=True,
    )
    flat = [(ids, answer) for ids, answers in zip(prompts(model), drawn, strict=True) for answer in answers]
    head = ValueHead(model.hidden_size).to(model.device)
    with torch.no_grad():
        head.linear.weight.copy_(torch.randn(1, model.hidden_size, generator=torch.Generator().manual_seed(0)))
    columns = [ids for ids, _ in flat], [answer.ids for _, answer in flat]
    again = score_responses(model, *columns, temperature=0.8, value_head=head)
    read: list[str | None] = []
    original = model.read
    model.read = lambda packed, *, adapter: (read.append(adapter), original(packed, adapter=adapter))[1]  # type: ignore
    try:
        hidden = [answer.hidden_TD for _, answer in flat]
        found = score_responses(model, *columns, temperature=0.8, value_head=head, hidden=hidden)
    finally:
        model.read = original  # type: ignore[method-assign]
    assert set(read) == {None}, "the reference alone reads the answers"
    for one, other in zip(found, again, strict=True):
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True):
            torch.testing.assert_close(a, b, atol=10 * SAME, rtol=10 * SAME)


def complete(model: LanguageModel, records: list[Prompt], target: Path, stop_after: int = 0) -> list[Completion]:
    def progress(done: int, total: int, note: str) -> None:
        if stop_after and done == stop_after:
            raise KeyboardInterrupt

    return sample_completions(
        model,
        records,
        target,
        Decoding(1.0, 1.0, 6),
        adapter=None,
        name="tiny",
        policy_version="base",
        num_completions=2,
        batch_rows=4,
        max_prompt_tokens=250,
        seed=9,
        progress=progress,
    )


def test_prompts_edited_under_the_same_ids_are_answered_anew(model: LanguageModel, tmp_path: Path) -> None:
    def records(first: str) -> list[Prompt]:
        return [Prompt(id=f"p{i}", messages=(Message(role="user", content=text),)) for i, text in enumerate([first, *TEXTS])]

    same_length = ["My house is too hot.", "My house is too hot!"]
    tokens = [model.chat.prompt_ids((Message(role="user", content=text),)) for text in same_length]
    assert len(tokens[0]) == len(tokens[1]), "else the batches differ and nothing is reused anyway"
    before = complete(model, records(same_length[0]), tmp_path / "before.jsonl")
    after = complete(model, records(same_length[1]), tmp_path / "after.jsonl")
    with pytest.raises(KeyboardInterrupt):
        complete(model, records(same_length[0]), tmp_path / "edited.jsonl", stop_after=2)
    assert complete(model, records(same_length[1]), tmp_path / "edited.jsonl") == after
    assert [c.text for c in after[:2]] != [c.text for c in before[:2]]
    assert [c.sampling.seed for c in after] == [c.sampling.seed for c in before], "seeds come from the ids"


def test_sampling_resumes_to_the_same_file(model: LanguageModel, tmp_path: Path) -> None:
    records = [Prompt(id=f"p{i}", messages=(Message(role="user", content=text * (i + 1)),)) for i, text in enumerate(TEXTS * 2)]

    def run(target: Path, stop_after: int = 0) -> list[Completion]:
        return complete(model, records, target, stop_after)

    whole = run(tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part.jsonl", stop_after=2)
    assert not (tmp_path / "part.jsonl").exists()
    # A crash may also cut the last line in two.
    partial = tmp_path / "part.jsonl.partial"
    partial.write_bytes(partial.read_bytes() + b'{"id": "p7/1", "prom')
    assert run(tmp_path / "part.jsonl") == whole
    assert (tmp_path / "part.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert whole[0].sampling == Sampling(temperature=1.0, top_p=1.0, seed=whole[0].sampling.seed, max_new_tokens=6)
    assert [completion.prompt_id for completion in whole[::2]] == [record.id for record in records]
