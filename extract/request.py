"""What is asked of an extraction: every option of `epalm extract`, beside its field. Imports nothing heavy."""

from dataclasses import dataclass, fields

from epalm import PLAYGROUND
from epalm.dask_engine import Cluster, chosen_cluster
from epalm.extract.encoders.registry import (
    EncoderChoice,
    default_kind,
    default_weights,
    encoder_names,
    parse_spec_augment,
    require_fit,
)
from epalm.extract.media.limits import PANEL, Limits
from epalm.request_fields import option
from epalm.samples import Modality, with_links

_ENCODER, _VIEWS, _MACHINE = "Encoder", "Views", "Machine"


@dataclass(frozen=True)
class ExtractRequest:
    """Media to encode, the encoder, where the rows go, and how the machine is used.

    Fields without `option` are shared by several commands, which document them together.
    """

    modality: Modality
    data: str = PLAYGROUND  # samples, a folder of media, shards, NAME:/root of a benchmark, or the built-in world
    follow_links: bool = False  # links below the data's folder may lead out of it

    encoder: str | None = option(f"{', '.join(encoder_names())}. [default: by modality]", None, panel=_ENCODER)
    weights: str | None = option(
        'Hub name, folder or "playground". [default: the playground\'s there, if it has some; else the published ones]',
        None,
        panel=_ENCODER,
    )
    random_weights: bool = option("Draw the weights: tries the pipeline without a download.", False, panel=_ENCODER)
    seed: int = option("Seed of --random-weights.", 0, minimum=0, maximum=2**64 - 1, panel=_ENCODER)  # as torch takes
    frames: int | None = option(
        "Frames per clip. [default: the encoder's own]", None, minimum=1, maximum=512, panel=_ENCODER
    )
    tokens: str | None = option(
        "What to take of a block: cls, mean, pooled, all its tokens, or means over cells of their grid (pool:2x2; "
        "pool:4 of a sequence) or over a clip's frames (time-mean). [default: cls; mean where there is no [CLS] token]",
        None,
        panel=_ENCODER,
    )
    reduced_jpeg: bool = option(
        "Decode large JPEGs at 1/2, 1/4 or 1/8 of their size: faster, and slightly other pixels.", False, panel=_ENCODER
    )
    statistics: str = option(
        "Mean and deviation of pixels: the encoder's own, or clip, as published checkpoints had it.",
        "own",
        panel=_ENCODER,
    )
    resize: str | None = option(
        "How a picture comes to the encoder's size: own, as the model's own processor does it, or stretch, straight to "
        "it, proportions not kept. [default: own; stretch for TimeSformer and ViTs of timm with a [CLS] token]",
        None,
        panel=_ENCODER,
    )
    layers: str = option("Blocks to store: last:6, all, 6-11 or 7,9,11.", "last:6", panel=_ENCODER)
    dtype: str = option("How values are stored: float16 or float32.", "float16", panel=_ENCODER)
    precision: str = option(
        "Of the encoder's matrix products: float32, or bfloat16 or float16 (much faster on a GPU).",
        "float32",
        panel=_ENCODER,
    )

    views: int = option("Augmented views to store beside the plain one.", 0, minimum=0, maximum=255, panel=_VIEWS)
    view_seed: int = option("Seed of augmented views.", 0, minimum=0, panel=_VIEWS)
    views_split: str = option("Split whose media get augmented views.", "train", panel=_VIEWS)
    spec_augment: str = option(
        'Audio views: widest frequency mask (mel bins) and time mask (frames), or "off".', "24/96", panel=_VIEWS
    )

    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    batch_size: int = option("Media per pass of the encoder.", 32, minimum=1, panel=_MACHINE)
    block_rows: int = option("Media per block of the cache.", 512, minimum=1, panel=_MACHINE)
    workers: int | None = option(
        "Decoding processes; 0: none. [default: one per core, one less without a GPU, 16 at most]",
        None,
        minimum=0,
        maximum=256,
        panel=_MACHINE,
    )
    compiled: bool = option(
        "Compile the encoder with torch.compile: pays for long work.", False, name="compile", panel=_MACHINE
    )
    engine: str = "local"  # who encodes: local (this process) or dask (worker processes)
    scheduler: str | None = None  # of Dask workers; None: they are started on this machine
    dask_workers: int = 2  # to start on this machine

    timeout: float = option("Seconds that decoding may take.", 120.0, minimum=0.1, panel=PANEL)
    limits: Limits = Limits()
    retry_bad: bool = option("Try media again that the ledger lists as bad.", False)

    cache: str = ".epalm/cache"  # a folder, or a URL such as s3://bucket/cache

    @property
    def source(self) -> str:
        """The data set, as caches and runs record it."""
        return with_links(self.data, follow=self.follow_links)

    def choice(self) -> EncoderChoice:
        """The encoder. Raises UsageError: it does not read such media, or an option is of no known form."""
        masks = parse_spec_augment(self.spec_augment)
        kind = self.encoder or default_kind(self.modality)
        off = masks is None and self.modality is Modality.AUDIO
        own = {"augmented": not off, "spec_augment": masks or (0, 0)}
        if self.weights is None and not self.random_weights:
            own["weights"] = default_weights(kind, self.data)
        # The other options are called as the fields of a choice are.
        known = {field.name for field in fields(EncoderChoice)}
        named = {name: value for name, value in vars(self).items() if name in known}
        return require_fit(EncoderChoice(kind, **{**named, **own}), self.modality)

    def cluster(self) -> Cluster | None:
        """The Dask workers that encode; None: this process does. Raises UsageError."""
        return chosen_cluster(self.engine, self.scheduler, self.dask_workers)
