"""The settings of a run by sections: every key with its meaning and default, and which keys go together.

Only builders read them; modules take plain numbers. Knows no recipes. Figures without another source are the paper's
(eP-ALM, ICCV 2023, section 4 and supplementary material).
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from epalm import PLAYGROUND
from epalm.errors import UsageError
from epalm.samples import Task

Variant = Literal["epalm", "epalm-pt", "epalm-lin", "epalm-ada", "epalm-pt-l"]
ConnectorForm = Literal["shared", "separate"]
PromptForm = Literal["mlp", "plain", "none"]
AdapterForm = Literal["bottleneck", "lora", "none"]
FrontAttention = Literal["causal", "full"]
FORMS: dict[str, tuple[ConnectorForm, PromptForm, AdapterForm]] = {  # connector, prompt, adapters
    "epalm-lin": ("shared", "none", "none"),
    "epalm-pt": ("shared", "plain", "none"),
    "epalm": ("separate", "mlp", "none"),
    "epalm-ada": ("separate", "none", "bottleneck"),
    "epalm-pt-l": ("shared", "plain", "none"),  # its encoder, language model and rates are larger: recipes/overlays
}
# Blocks of the published OPTs: where tokens enter is known before the weights are there.
OPT_BLOCKS = {
    PLAYGROUND: 8,
    "facebook/opt-125m": 12,
    "facebook/opt-350m": 24,
    "facebook/opt-1.3b": 24,
    "facebook/opt-2.7b": 32,
    "facebook/opt-6.7b": 32,
    "facebook/opt-13b": 40,
    "facebook/opt-30b": 48,
}
QUESTION = "{question}"  # its place in a template
CHAT = "chat"  # in place of a template: the tokenizer's chat template
_INJECTED_BLOCKS = 12  # of OPT-2.7B: 19 to 31, of OPT-350M: 11 to 23; the last block gets no token of its own
Rate = Annotated[float, Field(ge=0, le=10)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]  # what torch takes
TokenRule = Annotated[str, Field(pattern="^(cls|mean|pooled|all|time-mean|pool:[1-9][0-9x]*)$")]


def later(default: Any) -> Any:
    """A setting that runs did not always have: left out of what names them while it is the default."""
    return Field(default, exclude_if=lambda value: bool(value == default))


class Section(BaseModel):
    """Settings that no other names are accepted among."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    def conflicts(self) -> dict[str, bool]:
        """What cannot go together, in words, and whether it is asked for."""
        return {}

    def faults(self) -> str:
        """All of `conflicts` that are asked for."""
        return "; ".join(fault for fault, asked in self.conflicts().items() if asked)

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Self:
        if faults := self.faults():
            raise ValueError(faults)
        return self


class LmSettings(Section):
    """The language model."""

    name: str = "facebook/opt-2.7b"  # Hub id, folder, or "playground"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantized: Literal["8bit", "4bit", "none"] = "none"  # frozen weights, through bitsandbytes
    train: bool = False  # unfrozen: every weight is trained, at optim.lm_lr

    def conflicts(self) -> dict[str, bool]:
        """See `Section`."""
        precise = f"lm.train needs lm.dtype float32: steps of 1e-7 are lost in {self.dtype}"
        whole = f"lm.train cannot change {self.quantized} weights: model.adapters lora trains beside them"
        return {precise: self.train and self.dtype != "float32", whole: self.train and self.quantized != "none"}


class TextSettings(Section):
    """How samples become text. None: as the language model's family has it."""

    template: str | None = None  # what stands before an answer, with {question} in it; "chat": the chat template
    caption: str | None = None  # what stands before a caption; with "chat" the instruction
    add_bos: bool | None = None  # BOS in front of all [as the tokenizer does]
    eos: str | None = None  # the token that ends an answer [the tokenizer's EOS]

    def conflicts(self) -> dict[str, bool]:
        """See `Section`."""
        place = f"text.template {self.template!r} has no place for the question: put {QUESTION} in it"
        return {place: self.template not in (None, CHAT) and QUESTION not in str(self.template)}


class EncoderSettings(Section):
    """The perceptual encoder. None: its own default. Cached features that differ are pointed out."""

    kind: str | None = None  # [by modality]
    weights: str | None = None  # Hub name or folder
    frames: PositiveInt | None = None  # of a clip
    tokens: TokenRule | None = later(None)  # of each block [cls; mean where there is no [CLS] token]
    resize: Literal["own", "stretch"] | None = later(None)  # how view 0 comes to its size
    size: PositiveInt | None = None  # pixels a side; the weights decide, this is what the recipe counts on
    spec_augment: tuple[NonNegativeInt, NonNegativeInt] = (24, 96)  # mel bins, frames
    train: bool = False  # unfrozen, at optim.encoder_lr: no cached features


class ModelSettings(Section):
    """What is put around the language model."""

    variant: Variant = "epalm"
    bridge: str = later("epalm")  # from the encoder's width to the LM's, by its name: epalm bridges
    tokens: PositiveInt = 6  # encoder layers L that the bridge reads, the last ones that the cache holds
    start: NonNegativeInt | None = None  # first block that sees a perceptual token [12 before `end`; else the bridge's]
    end: PositiveInt | None = None  # first block that gets no new one [the LM's last block; else the bridge's]
    exit: PositiveInt | None = later(None)  # first block that sees none any more [none; else the bridge's]
    attention: Literal["causal", "reference"] = "causal"
    front_attention: FrontAttention | None = later(None)  # of perceptual tokens among themselves [the bridge's]
    connector: ConnectorForm | None = None  # eP-ALM's: one for all layers, one for each [by variant]
    connector_norm: Literal["none", "rms"] | None = later(None)  # behind it [rms if blocks norm outputs, OPT's not]
    prompt: PromptForm | None = None  # [by variant]
    prompt_length: PositiveInt = 10
    deep_prompt: bool = False  # every block has prompt vectors of its own
    adapters: AdapterForm | None = None  # [by variant]
    adapter_factor: PositiveInt = 8  # a bottleneck's width is the hidden size divided by this
    lora_rank: PositiveInt = 8  # peft's default, as the next
    lora_alpha: PositiveInt = 8
    dropout: Probability = later(0.0)  # of what the bridge makes, in training
    blind: bool = False  # withhold the perceptual token: what the text alone gives away

    @property
    def forms(self) -> tuple[ConnectorForm, PromptForm, AdapterForm]:
        """The forms of connector, prompt and adapters: as set, else the variant's."""
        connector, prompt, adapters = FORMS[self.variant]
        return self.connector or connector, self.prompt or prompt, self.adapters or adapters

    def conflicts(self) -> dict[str, bool]:
        """See `Section`."""
        order = f"model.start ({self.start}) must be below model.end ({self.end})"
        prompt = "model.deep_prompt needs a prompt: model.prompt plain or mlp"
        leaves = f"model.exit ({self.exit}) must not be below model.end ({self.end})"
        return {
            order: self.start is not None and self.end is not None and self.start >= self.end,
            leaves: self.exit is not None and self.end is not None and self.exit < self.end,
            prompt: self.deep_prompt and self.forms[1] == "none",
        }


class OptimSettings(Section):
    """AdamW, its learning rates, the loss. The connector's rate warms up per step, then falls (cosine)."""

    epochs: PositiveInt = 8
    min_steps: PositiveInt | None = None  # as many more epochs as these take
    max_steps: PositiveInt | None = None  # end earlier
    batch_size: PositiveInt = 64  # samples a step, of all processes together
    micro_batches: PositiveInt = 1  # parts that a process does its share of a step in: less memory, the same gradients
    warmup_steps: NonNegativeInt = 400
    warmup_share: Annotated[float, Field(ge=0, lt=1)] | None = None  # of all steps, in place of warmup_steps
    warmup_lr: Rate = 1e-5
    peak_lr: Rate = 2e-5
    min_lr: Rate = 1e-6
    cosine: Literal["epoch", "step"] = later("epoch")  # by what it falls: where there is one epoch, not by epochs
    fixed_lr: Rate = 1e-5  # of prompt and adapters
    lm_lr: Rate = 1e-7  # of an unfrozen language model
    encoder_lr: Rate = 1e-7  # of an unfrozen encoder
    weight_decay: NonNegativeFloat = 0.02
    adam_eps: PositiveFloat = later(1e-8)  # AdamW's epsilon
    clip_norm: PositiveFloat | None = later(None)  # longest gradient, of all tensors together
    label_smoothing: Probability = later(0.0)  # share of a target that is spread over all tokens, in training
    loss_weight: PositiveFloat = 0.1
    loss_on: Literal["all", "answer"] = "all"  # every real token, question included, or the answer's alone
    gradient_checkpointing: bool = False  # blocks with autograd run again for the gradient: less memory, more time
    compiled: bool = False  # torch.compile makes kernels for the blocks: minutes once, then faster
    seed: Seed = 0

    def fitted(self, items: int) -> "OptimSettings":
        """With epochs and warm-up for so many training items in place of `min_steps` and `warmup_share`."""
        each = math.ceil(items / self.batch_size)
        epochs = max(self.epochs, math.ceil((self.min_steps or 0) / each))
        steps = min(epochs * each, self.max_steps or epochs * each)
        warmup = self.warmup_steps if self.warmup_share is None else round(self.warmup_share * steps)
        fitted = {"epochs": epochs, "min_steps": None, "warmup_steps": warmup, "warmup_share": None}
        return self.model_copy(update=fitted)


class DataSettings(Section):
    """Which samples are trained on."""

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = (Task.QA,)
    train_split: str = "train"
    val_split: str = "val"
    # So many training samples (16), or such a share of them (0.01); drawn by the seed.
    few_shot: Annotated[PositiveInt, Field(strict=True)] | Annotated[Share, Field(strict=True)] | None = None
    balanced: bool = False  # few_shot draws from each type of question in turn
    augment: bool = True  # train on augmented views, another one each epoch, where the features have them
    # Of an epoch: all samples, or block by block of the features [blocks where these do not fit in memory].
    shuffle: Literal["full", "blocks"] | None = later(None)


class EvalSettings(Section):
    """Validation while training."""

    every_steps: PositiveInt = 1000
    val_samples: PositiveInt = 1000


class CheckpointSettings(Section):
    """When a training is saved beside each validation. Changes no result, and so is no part of what names a run."""

    every_minutes: PositiveFloat = 5.0  # what a kill can cost
    every_steps: PositiveInt | None = None


class DecodeSettings(Section):
    """Decoding."""

    num_beams: PositiveInt = 3
    max_length: Annotated[int, Field(ge=2)] = 30  # tokens in all, the question included
    sampling: bool = False  # draw tokens; there are no beams then
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0  # below 1 likely tokens are drawn more often
    top_p: Share = 1.0  # draw from the likeliest that have this share together
    seed: Seed = 0  # of what is drawn


class Config(Section):
    """All settings of a run."""

    description: str = ""
    lm: LmSettings = LmSettings()
    text: TextSettings = later(TextSettings())
    encoder: EncoderSettings = EncoderSettings()
    bridge: dict[str, bool | int | float | str] = later({})  # the bridge's own: epalm bridges NAME
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    data: DataSettings = DataSettings()
    eval: EvalSettings = EvalSettings()
    decode: DecodeSettings = DecodeSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()

    def conflicts(self) -> dict[str, bool]:
        """See `Section`."""
        lora = "model.adapters lora is what is trained in place of the language model: leave out lm.train"
        blind = "encoder.train changes nothing where model.blind withholds the perceptual token"
        return {
            lora: self.lm.train and self.model.forms[2] == "lora",
            blind: self.encoder.train and self.model.blind,
        }

    def with_lm(self, name: str) -> "Config":
        """With another name for the language model."""
        return self.model_copy(update={"lm": self.lm.model_copy(update={"name": name})})

    def from_anywhere(self) -> "Config":
        """The same for other working folders: a language model in a folder has its whole path as name."""
        folder = Path(self.lm.name)
        return self.with_lm(str(folder.resolve())) if self.lm.name != PLAYGROUND and folder.is_dir() else self

    def resolved(self, blocks: int, norm: Literal["none", "rms"] = "none") -> "Config":
        """With `start` and `end` for a language model of that many blocks, and the variant's forms, filled in.

        `norm` is the language model's default behind the connector; the usual one, none, is left out.

        Raises UsageError: the blocks are not there, or nobody would see what enters at some of them.
        """
        end = self.model.end or max(1, blocks - 1)
        start = max(0, end - _INJECTED_BLOCKS) if self.model.start is None else self.model.start
        if not start < end <= blocks:
            fault = f"model.start {start} and model.end {end} do not fit a language model of {blocks} blocks"
            raise UsageError(fault, hint=f"--set model.end={blocks} is the last that fits")
        forms = dict(zip(("connector", "prompt", "adapters"), self.model.forms, strict=True))
        own = self.model.connector_norm or norm
        placed = {"start": start, "end": end, "connector_norm": None if own == norm == "none" else own}
        model = self.model.model_copy(update=placed | forms)
        if faults := model.faults():
            raise UsageError(faults, hint=f"--set model.exit={end}, or leave it out")
        return self.model_copy(update={"model": model})

    def to_toml(self) -> str:
        """As TOML that `read_config` takes; what is None is left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
