"""Pictures, prompts and shots in; logits out: the server against open_clip, Pillow and float64."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import e2e_formula as formula
import numpy as np
import pytest
import wire
from conftest import Server
from pictures import photo, png, saved
from PIL import Image
from wire import cache

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
transforms = pytest.importorskip("torchvision.transforms")

NAMES = ["red kite", "Ångström", "tabby cat", "tabby cat"]
TEMPLATES = ["a photo of a {}.", "a blurry drawing of the {}", "{}"]
TOLERANCE = 1e-3


class Reference:
    """open_clip's own model with the bundle's weights, and torchvision's preprocessing."""

    def __init__(self, bundle: Path) -> None:
        source = re.search(
            r'source = "open_clip (\S+), .*seed (\d+)"', (bundle / "bundle.toml").read_text()
        )
        name, seed = source.groups()
        torch.manual_seed(int(seed))
        self.model = open_clip.create_model(name, pretrained=None).eval()
        self.tokenizer = open_clip.get_tokenizer(name)
        self.known = {}
        self.scale = float(self.model.logit_scale.detach().double().exp())
        size = self.model.visual.image_size
        side = size[0] if isinstance(size, tuple) else size
        self.prepare = transforms.Compose(
            [
                transforms.Resize(side, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(side),
                transforms.ToTensor(),
                transforms.Normalize(
                    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
                ),
            ]
        )

    def pictures(self, files) -> np.ndarray:
        """Unit features [B,D] of picture files."""
        new = [file for file in dict.fromkeys(files) if file not in self.known]
        if new:
            pixels = [self.prepare(Image.open(io.BytesIO(file)).convert("RGB")) for file in new]
            with torch.inference_mode():
                features = self.model.encode_image(torch.stack(pixels)).double().numpy()
            self.known.update(zip(new, features, strict=True))
        return formula.unit([self.known[file] for file in files])

    def texts(self, prompts) -> np.ndarray:
        """Raw features of prompts."""
        with torch.inference_mode():
            return self.model.encode_text(self.tokenizer(prompts)).double().numpy()


def real_pictures() -> list[bytes]:
    """A few pictures of conformal-clip-data, where it is installed; as PNG."""
    found = importlib.util.find_spec("conformal_clip_data")
    if found is None:
        return []
    files = sorted(Path(found.origin).parent.glob("data/**/*.jpg"))[::300][:4]
    return [png(Image.open(file).convert("RGB")) for file in files]


class Rig:
    """A server and its reference."""

    def __init__(self, bundle: Path, store: Path) -> None:
        self.reference = Reference(bundle)
        self.server = Server(bundle, store, "--dtype", "float32", "--max-batch", "4")
        self.api = self.server.api


MODELS = {"vit-b-32-random": ("ViT-B-32-quickgelu", "7"), "rn50-random": ("RN50-quickgelu", "7")}


@pytest.fixture(scope="module", params=MODELS)
def rig(request, bundles, tmp_path_factory):
    model, seed = MODELS[request.param]
    plain = ("--random-init", seed, "--int8", "never")
    bundle = bundles(request.param, "open-clip", model, *plain)
    rig = Rig(bundle, tmp_path_factory.mktemp("whole") / "store")
    yield rig
    rig.server.close()


@pytest.fixture
def shots(chance):
    """Examples of unequal number a class, in mixed order: files and labels."""
    labels = np.repeat(np.arange(len(NAMES)), [1, 3, 2, 4])
    chance.shuffle(labels)
    return [png(photo(chance, int(label))) for label in labels], labels


@pytest.fixture
def queries(chance):
    return [png(photo(chance, kind)) for kind in range(4)] + real_pictures()


def spec_of(name, classes, **fields):
    given = {"method": cache.METHOD_TIP_ADAPTER, "alpha": 3.25, "beta": 4.5} | fields
    return cache.CacheSpec(cache_id=name, classes=classes, **given)


def examples_of(files, labels):
    return [
        wire.example(label, wire.encoded(file)) for file, label in zip(files, labels, strict=True)
    ]


def held(rig, name, created, queries, shots, text, **options):
    """Asserts the logits of a version over queries; returns them and the formula's."""
    files, labels = shots
    assert created.rejected == {}
    assert created.version.head.logit_scale == pytest.approx(rig.reference.scale, rel=1e-6)
    f, keys = rig.reference.pictures(queries), rig.reference.pictures(files)
    expected = formula.tip_adapter(
        f,
        keys,
        labels,
        len(NAMES),
        alpha=3.25,
        beta=4.5,
        text=text,
        scale=rig.reference.scale,
        **options,
    )
    got = rig.api.logits(name, map(wire.encoded, queries))
    print("largest difference", np.abs(got - expected).max(), "spread", np.ptp(expected, 1).min())
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    return got, expected


def test_templates_and_explicit_prompts(rig, shots, queries, name):
    prompts = ["a big red bird", "MILVUS  milvus &amp; co", "a kite; not the toy"]
    classes = wire.classes(NAMES)
    classes[0].prompts.extend(prompts)
    created = rig.api.create(
        spec_of(name, classes, prompt_templates=TEMPLATES), examples_of(*shots), batch=3
    )
    text = formula.text_classifier(
        [
            rig.reference.texts(prompts if i == 0 else [t.replace("{}", n) for t in TEMPLATES])
            for i, n in enumerate(NAMES)
        ]
    )
    held(rig, name, created, queries, shots, text)
    assert [c.example_count for c in created.version.classes] == [1, 3, 2, 4]
    assert [c.display_name for c in created.version.classes] == NAMES
    # The bundle's own template is what CLIP's users write.
    rig.api.create(spec_of(name, wire.classes(NAMES), views=1), examples_of(*shots))
    own = formula.text_classifier([rig.reference.texts([f"a photo of a {n}."]) for n in NAMES])
    held(rig, name, created, queries[:2], shots, own)


def test_text_weights_mean_balance_and_other_inputs(rig, shots, queries, name, chance):
    weights = chance.normal(size=(len(NAMES), created_width(rig)))
    spec = spec_of(name, wire.classes(NAMES, weights), class_balance=cache.CLASS_BALANCE_MEAN)
    created = rig.api.create(spec, examples_of(*shots))
    text = formula.unit(weights.astype(np.float32))
    got, _ = held(rig, name, created, queries, shots, text, mean=True)
    # The same pictures as raw pixels, and as embeddings that the server gave.
    pixels = [Image.open(io.BytesIO(query)).convert("RGB") for query in queries[:3]]
    raw = [
        wire.inputs.Input(
            raw_rgb=wire.inputs.RawRgb(width=p.width, height=p.height, data=p.tobytes())
        )
        for p in pixels
    ]
    np.testing.assert_allclose(rig.api.logits(name, raw), got[:3], rtol=0, atol=1e-4)
    embedded = rig.api.classifying.Embed(
        wire.classify.EmbedRequest(
            inputs=map(wire.encoded, queries[:3]), texts=["a photo of a cat."]
        )
    )
    vectors = [result.embedding.values for result in embedded.inputs]
    again = rig.api.logits(name, map(wire.embedding, vectors))
    np.testing.assert_allclose(again, got[:3], rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        embedded.texts[0].embedding.values,
        formula.unit(rig.reference.texts(["a photo of a cat."])[0]),
        rtol=0,
        atol=1e-5,
    )
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        jpeg = [saved(p, "JPEG", quality=92, subsampling=sampling) for p in pixels]
        request = wire.classify.EmbedRequest(inputs=map(wire.encoded, jpeg))
        got = [r.embedding.values for r in rig.api.classifying.Embed(request).inputs]
        np.testing.assert_allclose(
            formula.unit(got), rig.reference.pictures(jpeg), rtol=0, atol=1e-4
        )


def created_width(rig) -> int:
    return rig.api.classifying.GetServerInfo(wire.classify.GetServerInfoRequest()).bundle.width
