"""What ``preprocessor_config.json`` says of pictures, for the processors that are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipserve_export.bundle import Preprocessing, check_preprocessing
from tipserve_export.errors import SourceError
from tipserve_export.sources.clip_bundle import OPENAI_MEAN, OPENAI_STD
from tipserve_export.sources.hf_folder import read_json

# Pillow's numbers for resampling filters.
RESAMPLING = {2: "bilinear", 3: "bicubic"}

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

BYTE_SCALE = 1 / 255


@dataclass(frozen=True)
class ProcessorDefaults:
    """What a processor's class assumes where its file is silent."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crops: bool
    """Whether the centre is cut out; where not, both sides are resized."""
    size: int | None = None
    """What is resized to; the model's own size where the class has none."""
    resample: int = 3


CLIP = ProcessorDefaults(OPENAI_MEAN, OPENAI_STD, crops=True)
SIGLIP = ProcessorDefaults(HALF, HALF, crops=False)
DINOV2 = ProcessorDefaults(IMAGENET_MEAN, IMAGENET_STD, crops=True, size=256)
DINOV3 = ProcessorDefaults(IMAGENET_MEAN, IMAGENET_STD, crops=False, resample=2)


def clip_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """That of a CLIPModel, whose size must be the weights'."""
    return preprocessing(folder, CLIP, image_size)


def preprocessing(
    folder: Path, defaults: ProcessorDefaults, image_size: int, *, any_size: bool = False
) -> Preprocessing:
    """What the folder's processor does.

    ``image_size`` is the model's; with ``any_size`` the processor may make pictures of another
    size, and its own is what counts.
    """
    config = read_json(folder / "preprocessor_config.json", required=False)
    if not config:  # transformers 5 may keep it inside the processor's file
        config = read_json(folder / "processor_config.json", required=False)
        config = config.get("image_processor", {})
    _refuse_unknown_steps(config)
    crops = config.get("do_center_crop")
    crops = defaults.crops if crops is None else crops
    size = config.get("size") or defaults.size or image_size
    resize, resize_to = _resizing(size, squashes=not crops)
    if crops:
        crop = _sides(config.get("crop_size") or (224 if any_size else image_size))
    elif resize == "squash":
        crop = resize_to
    else:
        raise SourceError(
            "the preprocessor resizes to a shortest edge and crops nothing: pictures of any shape "
            "reach the model, and the server batches those of one size only"
        )
    if not any_size and crop != (image_size, image_size):
        raise SourceError(
            f"the preprocessor makes pictures of {crop[0]}×{crop[1]} pixels, the weights are for "
            f"{image_size}"
        )
    resample = config.get("resample", defaults.resample)
    if resample not in RESAMPLING:
        raise SourceError(f"the resampling filter {resample} is not supported")
    found = Preprocessing(
        size=_plain(crop),
        resize_to=_plain(resize_to),
        mean=tuple(config.get("image_mean") or defaults.mean),
        std=tuple(config.get("image_std") or defaults.std),
        interpolation=RESAMPLING[resample],
        resize=resize,
    )
    try:
        check_preprocessing(found)
    except SourceError as error:
        raise SourceError(f"the preprocessor of {folder} cannot be served: {error}") from error
    return found


def _refuse_unknown_steps(config: dict[str, Any]) -> None:
    for step in ("do_resize", "do_normalize", "do_rescale"):
        if config.get(step) is False:
            raise SourceError(f"a preprocessor with {step} = false is not supported")
    if config.get("do_pad") or "max_num_patches" in config:
        raise SourceError(
            "the preprocessor makes pictures of any number of patches (naflex): the server "
            "batches pictures of one size only"
        )
    factor = config.get("rescale_factor", BYTE_SCALE)
    if abs(factor - BYTE_SCALE) > 1e-9:
        raise SourceError(f"a preprocessor with rescale_factor = {factor} is not supported")


def _resizing(size: int | dict[str, int], *, squashes: bool) -> tuple[str, tuple[int, int]]:
    """The rule and (height, width): a number means what the processor's class means by it."""
    if isinstance(size, int):
        return ("squash" if squashes else "shortest-side"), (size, size)
    if not isinstance(size, dict):
        raise SourceError(f"a preprocessor that resizes to {size!r} is not supported")
    if set(size) == {"shortest_edge"}:
        return "shortest-side", (size["shortest_edge"],) * 2
    if set(size) == {"height", "width"}:
        return "squash", (size["height"], size["width"])
    raise SourceError(f"a preprocessor that resizes to {size} is not supported")


def _sides(size: int | dict[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return (size, size)
    if not isinstance(size, dict) or set(size) != {"height", "width"}:
        raise SourceError(f"a preprocessor that crops to {size} is not supported")
    return (size["height"], size["width"])


def _plain(sides: tuple[int, int]) -> int | tuple[int, int]:
    return sides[0] if sides[0] == sides[1] else sides
