"""A language model of some hundred thousand weights, made here: it has read nothing but transcripts (arithmetic.py)."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from heedful.environments.arithmetic import problems, transcript
from heedful.functional.logprobs import token_scores
from heedful.functional.losses.completion import completion_loss
from heedful.models.chat import Chat
from heedful.records import Prompt
from heedful.store import new_folder

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CONTEXT = 256
NUM_PROBLEMS = 6_000  # that the transcripts are about; those of the run come of another seed


def make_small_model(
    folder: Path,
    *,
    steps: int,
    tool_share: float,
    seed: int,
    progress: Callable[[int, int, str], None],
    without: Collection[str] = (),
) -> float:
    """Writes model and tokenizer; returns the loss of the last steps, nats a token.

    tool_share: of the transcripts that call the calculator; in the others the answer comes out of the head, which a model of
    this size does not learn. without: ids of problems that are not read. The policy's own tokens are imitated, the
    observations are not.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    chat = Chat(tokenizer, [tokenizer.eos_token_id])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = LlamaForCausalLM(config)
    chance = random.Random(seed)
    asked = [prompt for prompt in problems(NUM_PROBLEMS, seed=seed) if prompt.id not in without]
    with_tool = [chance.random() < tool_share for _ in asked]
    read = cache(lambda place: _read(chat, with_tool[place], asked[place]))
    rate = 5e-3
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / 50, 1.0, max(0.02, (steps - step) / (0.5 * steps)))
        rows = [read(chance.randrange(len(asked))) for _ in range(64)]
        ids_BS = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True)
        own_BS = pad_sequence([torch.tensor(own) for _, own in rows], batch_first=True)
        hidden_BSD = model.model(ids_BS)[0]
        mask_BT = own_BS[:, 1:]
        scores = token_scores(hidden_BSD[:, :-1][mask_BT], model.lm_head.weight, ids_BS[:, 1:][mask_BT])
        logprobs_BT = torch.zeros(mask_BT.shape).masked_scatter(mask_BT, scores.logprobs_N)
        loss = completion_loss(logprobs_BT, mask_BT, num_tokens=int(mask_BT.sum()))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        progress(step + 1, steps, f"loss {losses[-1]:.3f}")
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    last = losses[-20:]
    return sum(last) / max(1, len(last))


def _read(chat: Chat, with_tool: bool, prompt: Prompt) -> tuple[list[int], list[bool]]:
    """Tokens of a prompt with a transcript behind it, as an episode lays them down, and True on those to be imitated."""
    ids = chat.prompt_ids(prompt.messages)
    own = [False] * len(ids)
    for text, written in transcript(prompt, with_tool=with_tool):
        part = chat.observation_ids(text, max_tokens=CONTEXT, new_turn=False)
        ids, own = ids + part, own + [written] * len(part)
    return [*ids, chat.end_id], [*own, True]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["<|start|>user\n", "assistant\n", "system\n"]
    for prompt in problems(200, seed=0):
        texts.append(prompt.messages[-1].content)
        texts += [part.text for with_tool in (True, False) for part in transcript(prompt, with_tool=with_tool)]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast
