"""One frozen base with adapters: policy, reference, value and reward model share its weights.

The policy is the base with the adapter "policy", the reference the same base with no adapter, the value a head on
the policy's trunk. `hidden` chooses among them; nothing is copied.
"""

# B batch, S prompt + response tokens, D hidden size, V vocabulary

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heedful.errors import ConfigError, ModelError, SourceError
from heedful.models import encoder_decoder
from heedful.models.chat import Chat
from heedful.models.shards import Shards, require_shardable, shard_layers
from heedful.models.sources import loading, read_object, resolve
from heedful.models.trunk.attention import Plan
from heedful.models.trunk.below import Below
from heedful.models.trunk.llama import PackedTrunk, unsupported
from heedful.models.trunk.packed import Packed, padded
from heedful.team import team

POLICY = "policy"
REWARD = "reward"
PADDED_TOKENS = 1024  # computed side by side where a model is read a row a response


class LanguageModel(nn.Module):
    """A causal or an encoder-decoder language model, its adapters, and its chat. source: what the user named.

    compiled: layers are compiled when they are first used. recompute: a layer's activations are computed again in the
    backward instead of kept.
    """

    def __init__(self, causal: Any, tokenizer: Any, source: str, *, compiled: bool = False, recompute: bool = False) -> None:
        super().__init__()
        causal.requires_grad_(False)
        causal.eval()
        self.causal = causal
        self.source = source
        self.compiled, self.recompute = compiled, recompute
        self.shards: Shards | None = None  # how it is read where this process holds a part of each layer only
        self._trunk: PackedTrunk | None = None
        self._below: Below | None = None
        self._packs: bool | None = None  # whether the trunk knows this kind of model, once that was looked at
        eos = causal.generation_config.eos_token_id if causal.generation_config is not None else None
        listed = eos if isinstance(eos, list) else [eos, tokenizer.eos_token_id]
        self.encodes = bool(getattr(causal.config, "is_encoder_decoder", False))  # prompts are read by an encoder
        if self.encodes:
            encoder_decoder.require_known(causal, source)
        ends = sorted({int(token) for token in listed if token is not None})
        self.chat = Chat(tokenizer, ends, apart=self.encodes)
        self.adapters: dict[str, Any] = {}
        self._peft: Any = None
        self._active: str | None = None

    @property
    def device(self) -> torch.device:
        return self.head_VD.device

    @property
    def dtype(self) -> torch.dtype:
        return self.head_VD.dtype

    @property
    def hidden_size(self) -> int:
        return int(self.head_VD.shape[1])

    @property
    def max_tokens(self) -> int:
        """The context's length in tokens."""
        return int(getattr(self.causal.config, "max_position_embeddings", 1 << 30))

    @property
    def head_VD(self) -> Tensor:
        """The language-model head; its rows are the vocabulary."""
        return self.causal.get_output_embeddings().weight  # type: ignore[no-any-return]

    def add_adapter(self, name: str, *, rank: int, alpha: float, targets: tuple[str, ...], layers: int, seed: int) -> None:
        """A fresh adapter that leaves the model's output unchanged (B is zero). layers: uppermost ones, 0 for all."""
        from peft import LoraConfig, TaskType

        if self.encodes:
            chosen = encoder_decoder.layers_to_adapt(self.causal, layers, self.source)
        else:
            total = int(self.causal.config.num_hidden_layers)
            chosen = {"layers_to_transform": list(range(total - min(layers, total), total)) if layers else None}
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(targets),
            **chosen,
            lora_dropout=0.0,
            task_type=TaskType.SEQ_2_SEQ_LM if self.encodes else TaskType.CAUSAL_LM,
            base_model_name_or_path=self.source,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._insert(name, config)

    def _insert(self, name: str, config: Any) -> None:
        from peft import PeftModel

        try:
            if self._peft is None:
                self._peft = PeftModel(self.causal, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        except ValueError as error:
            raise ModelError(
                f"{self.source}: the adapter cannot be inserted ({error}); name this model's linear layers in lora.targets"
                + (', as in targets = ["q", "v"]' if self.encodes else "")
            ) from None
        self.adapters[name] = config
        self._peft.eval()
        self._active = None
        self._trunk = None

    def adapter_parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The trainable tensors of an adapter by name, float32 whatever the base is, in a stable order."""
        marked = {key: tensor for key, tensor in self.causal.named_parameters() if f".{name}." in key}
        return dict(sorted(marked.items()))

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Within the block the trunk computes with this adapter, or with none."""
        if self._peft is None:
            if adapter is not None:
                raise KeyError(adapter)
            yield
        elif adapter is None:
            with self._peft.disable_adapter():
                yield
        else:
            if self._active != adapter:
                self._peft.set_adapter(adapter)
                self._active = adapter
            yield

    def hidden(self, ids_BS: Tensor, mask_BS: Tensor, *, adapter: str | None, **extra: Any) -> Tensor:
        """Last hidden states (B, S, D) by the model's own forward pass. mask_BS: True on real ones. extra: cache, positions.

        Not of an encoder-decoder model, for which prompt and response are no single row.
        """
        assert not self.encodes, "prompt and response are read apart"

        def own() -> Tensor:
            with self.using(adapter):
                output = self.causal.base_model(input_ids=ids_BS, attention_mask=mask_BS.long(), **extra)
            return output[0]  # type: ignore[no-any-return]

        return own() if self.shards is None else self.shards.read(own, self._kind(adapter), self._learning(adapter))

    def share_layers(self, dtype: torch.dtype, device: torch.device) -> None:
        """From now on this model, in these, is held in parts by the team, and read by all of it at once."""
        shard_layers(self.causal, self.source, dtype=dtype, device=device)
        self._packs = False
        self.shards = Shards(team(), self)

    def whole(self, weight: Tensor) -> Any:
        """A weight of this model, put together from its parts by all members of the team at once where it is held in parts."""
        return weight if self.shards is None else self.shards.whole(weight)

    def read_nothing(self, kind: int) -> None:
        """A pass for the sake of others: see `team.InParts`."""
        assert self.shards is not None
        adapter = [None, *self.adapters][kind // 2]
        token = torch.tensor([[self.chat.end_id]], device=self.device)

        def own() -> Tensor:
            with self.using(adapter):
                return self.causal.base_model(input_ids=token)[0]  # type: ignore[no-any-return]

        self.shards.read_nothing(own, self._learning(adapter), backward=bool(kind % 2))

    def _kind(self, adapter: str | None) -> int:
        """The number of a forward pass with this adapter; one more is that of a forward pass and its backward."""
        return 2 * [None, *self.adapters].index(adapter)

    def _learning(self, adapter: str | None) -> list[nn.Parameter]:
        return [] if adapter is None else list(self.adapter_parameters(adapter).values())

    def trunk(self, adapter: str | None) -> PackedTrunk | None:
        """The packed way through this model with this adapter; None where it does not know the model's or the adapter's kind.

        Raises KeyError for an adapter that the model does not have.
        """
        if adapter is not None and adapter not in self.adapters:
            raise KeyError(adapter)
        if self._trunk is None and self._packs is not False:
            self._packs = unsupported(self.causal) is None
            if self._packs:
                self._trunk = PackedTrunk(self.causal, compiled=self.compiled, recompute=self.recompute)
        return self._trunk if self._trunk is not None and self._trunk.knows(adapter) else None

    def read(self, packed: Packed, *, adapter: str | None) -> Tensor:
        """Last hidden states (N, D) of a packed batch, what the heads read."""
        trunk = self.trunk(adapter)
        if trunk is None:
            return self._read_padded(packed, adapter)
        tables = trunk.plan(packed.layout)
        x_ND, start = self._until_adapted(trunk, packed, tables)
        return trunk.normal(trunk.walk(x_ND, packed.positions_N, tables, adapter, start=start))

    def read_beside_reference(self, packed: Packed, *, adapter: str | None) -> tuple[Tensor, Tensor]:
        """`read` with the adapter and without any; the layers below all adapters are computed once for both."""
        trunk = self.trunk(adapter)
        if trunk is None:
            return self._read_padded(packed, adapter), self._read_padded(packed, None)
        tables = trunk.plan(packed.layout)
        x_ND, start = self._until_adapted(trunk, packed, tables)
        both = [trunk.walk(x_ND, packed.positions_N, tables, name, start=start) for name in (adapter, None)]
        return trunk.normal(both[0]), trunk.normal(both[1])

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within the block what the layers below all adapters make of tokens that were read without gradient is kept, as far
        as there is room (below.KEPT_BYTES), for whoever reads the same tokens again. Other models than the trunk's keep none.
        """
        self._below = Below()
        try:
            yield
        finally:
            self._below = None

    def _until_adapted(self, trunk: PackedTrunk, packed: Packed, tables: Plan) -> tuple[Tensor, int]:
        """States (N, D) before the lowest layer that an adapter changes, and that layer's number."""
        layer = min((trunk.lowest(name) for name in self.adapters if trunk.knows(name)), default=0)
        x_ND = self._below.find(packed, layer) if self._below is not None and layer else None
        if x_ND is None:
            with torch.no_grad():
                x_ND = trunk.walk(trunk.embed(packed.ids_N), packed.positions_N, tables, None, stop=layer)
            # Readers with gradients may be several at a time: which of them came first would show.
            if self._below is not None and layer and not torch.is_grad_enabled():
                self._below.keep(packed, layer, x_ND)
        return x_ND, layer

    def _read_padded(self, packed: Packed, adapter: str | None) -> Tensor:
        """A row a response, some rows at a time; behind an encoder, as encoder_decoder.py reads them. With gradients all but
        a single lot are computed again in the backward: a prompt stands before each of its responses, so a batch that is
        small when packed may be large here.
        """
        if self.encodes:
            return encoder_decoder.read_packed(self, packed, adapter)
        ids_BS, mask_BS, place_N = padded(packed, pad_id=self.chat.pad_id)

        def some(rows: slice) -> Tensor:
            return self.hidden(ids_BS[rows], mask_BS[rows], adapter=adapter)

        size = max(1, PADDED_TOKENS // ids_BS.shape[1])
        lots = [slice(start, start + size) for start in range(0, len(ids_BS), size)]
        if len(lots) == 1 or not torch.is_grad_enabled() or self.shards is not None:  # which keeps no activations either
            found = [some(rows) for rows in lots]
        else:
            found = [checkpoint(some, rows, use_reentrant=False, preserve_rng_state=False) for rows in lots]
        return torch.cat(found).flatten(0, 1).index_select(0, place_N)

    def save_adapter(self, name: str, folder: Path) -> None:
        """adapter_config.json and adapter_model.safetensors as PEFT reads them."""
        from peft import get_peft_model_state_dict

        self.adapters[name].save_pretrained(str(folder))
        tensors = get_peft_model_state_dict(self._peft, adapter_name=name)
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "adapter_model.safetensors")

    def load_adapter(self, name: str, folder: Path) -> None:
        """Inserts an adapter from a folder in PEFT's format; one of that name that is there already gets the folder's weights.

        Of the same rank and layers, that is: others do not fit.
        """
        from peft import PeftConfig, set_peft_model_state_dict

        if name not in self.adapters:
            self._insert(name, PeftConfig.from_pretrained(str(folder)))
        set_peft_model_state_dict(self._peft, load_file(folder / "adapter_model.safetensors"), adapter_name=name)

    def merged(self, name: str) -> Any:
        """The plain Hugging Face model with the adapter added into its weights; this object is used up by it."""
        with self.using(name):
            return self._peft.merge_and_unload(adapter_names=[name])


class ValueHead(nn.Module):
    """The future reward seen from each token: a linear map of the policy's hidden state, zero to begin with."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Values (N,) in reward units, float32."""
        return self.linear(hidden_ND.float()).squeeze(-1)  # type: ignore[no-any-return]


def load_language_model(
    source: str, *, dtype: torch.dtype, device: torch.device, compiled: bool = False, recompute: bool = False
) -> LanguageModel:
    """The model a source names; a folder with a PEFT adapter becomes its base with the adapter "policy" in place."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    folder = resolve(source)
    adapter = folder if (folder / "adapter_config.json").exists() else None
    base_source = source
    if adapter is not None:
        base_source = base_of(adapter)
        folder = resolve(base_source)
    in_parts = team().fsdp
    with loading(base_source, "a language model"):
        told = read_object(folder / "config.json")
        encodes = bool(told.get("is_encoder_decoder", False))
        if in_parts:
            require_shardable(told, base_source)
        # In parts: mapped from the file, whatever type it has there, until each layer is cut.
        wanted = "auto" if in_parts else dtype
        causal = (AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM).from_pretrained(folder, dtype=wanted)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LanguageModel(causal, tokenizer, base_source, compiled=compiled, recompute=recompute)
    if in_parts:
        model.share_layers(dtype, device)
    else:
        causal.to(device)
        _take_from_file(causal)
    if adapter is not None:
        with loading(source, "an adapter"):
            model.load_adapter(POLICY, adapter)
    return model


def _take_from_file(causal: Any) -> None:
    """Copies the weights, for where their type is that of their file they are mapped from it, and one mapped weight holds the
    whole file: what is joined later (PackedTrunk) would be there twice.
    """
    copies: dict[int, Tensor] = {}  # one for weights that are tied
    for weight in causal.parameters():
        if weight.device.type == "cpu" and weight.numel():
            place = weight.data_ptr()
            if place not in copies:
                copies[place] = weight.data.clone()
            weight.data = copies[place]


def load_base(
    source: str, *, dtype: torch.dtype, device: torch.device, compiled: bool = False, recompute: bool = False
) -> LanguageModel:
    """The model to align. An adapter is refused: the reference, which is the base without one, would not be the start."""
    model = load_language_model(source, dtype=dtype, device=device, compiled=compiled, recompute=recompute)
    if model.adapters:
        raise ConfigError(
            f"model.source = {source!r} is an adapter; make a plain model of it first with 'heedful export', so that the "
            "reference is the model you start from"
        )
    return model


def base_of(adapter: Path) -> str:
    """The source of the base that an adapter folder names."""
    with loading(adapter, "an adapter"):
        base = read_object(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise SourceError(f"{adapter}: adapter_config.json names no base_model_name_or_path; write the base's source there")
    return str(base)


def export_merged(source: str, folder: Path, device: torch.device) -> None:
    """Writes an adapter folder's policy as a plain Hugging Face model.

    The sum is made in float32 and saved so: rounded to bfloat16, small updates would fall off the weights.
    """
    if not (Path(source) / "adapter_config.json").exists():
        raise SourceError(f"{source}: holds no adapter to merge; name a run directory or an adapter folder")
    model = load_language_model(source, dtype=torch.float32, device=device)
    tokenizer = model.chat.tokenizer
    merged = model.merged(POLICY)
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
