"""The peers: who they are, what they run on, and the settings among which each one's best is chosen.

Every peer is started by a script of ours in `peers/`, in its own environment, with one worker and one intra-op thread
of ONNX Runtime, its access log off. Where a peer has a choice that may matter (adaptive batching on or off, another
protocol), each is a variant; the full benchmark tries every variant on each model first, and goes on with the fastest.
"""

from dataclasses import dataclass, field

from benchmarks.serving.wire import Form

FASTAPI = "fastapi"
PYTRITON = "pytriton"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to run a peer: its name, the settings of its script, and the body that it takes at which path.

    `{model}` in the path stands for the workload's name.
    """

    name: str
    form: Form = Form.PLAIN
    path: str = "/predict"
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server to be measured against. `package` is what its version is told of."""

    name: str
    title: str
    package: str
    python: str
    platform: str = "linux"
    variants: tuple[Variant, ...]
    start_s: float = 60.0


_V2 = "/v2/models/{model}/infer"
_BATCHING = {"PEER_BATCH": "64"}

PEERS: tuple[Peer, ...] = (
    Peer(name=FASTAPI, title="FastAPI", package="fastapi", python="3.13", variants=(Variant(name="plain"),)),
    Peer(
        name="mlserver",
        title="MLServer",
        package="mlserver",
        python="3.12",
        variants=(
            Variant(name="one by one", form=Form.V2_JSON, path=_V2),
            Variant(name="batching, 1 ms", form=Form.V2_JSON, path=_V2, settings=_BATCHING | {"PEER_WAIT_S": "0.001"}),
            Variant(name="batching, 5 ms", form=Form.V2_JSON, path=_V2, settings=_BATCHING | {"PEER_WAIT_S": "0.005"}),
        ),
    ),
    Peer(
        name="kserve",
        title="KServe",
        package="kserve",
        python="3.12",
        variants=(
            Variant(name="V1", form=Form.V1_JSON, path="/v1/models/{model}:predict"),
            Variant(name="V2", form=Form.V2_JSON, path=_V2),
        ),
    ),
    Peer(
        name="bentoml",
        title="BentoML",
        package="bentoml",
        python="3.13",
        variants=(
            Variant(name="one by one"),
            Variant(name="adaptive batching", settings=_BATCHING),
        ),
    ),
    Peer(
        name="litserve",
        title="LitServe",
        package="litserve",
        python="3.13",
        variants=(
            Variant(name="one by one"),
            Variant(name="batching", settings=_BATCHING),
            Variant(name="batching, fast queue", settings=_BATCHING | {"PEER_FAST_QUEUE": "1"}),
        ),
    ),
    Peer(
        name=PYTRITON,
        title="Triton through PyTriton",
        package="nvidia-pytriton",
        python="3.12",
        platform="x86_64-manylinux_2_35",
        start_s=180.0,
        variants=(
            Variant(name="one by one", form=Form.V2_JSON, path=_V2),
            Variant(name="dynamic batching", form=Form.V2_JSON, path=_V2, settings=_BATCHING),
        ),
    ),
)


def peer(name: str) -> Peer:
    """The peer of that name. Raises KeyError."""
    return {one.name: one for one in PEERS}[name]
