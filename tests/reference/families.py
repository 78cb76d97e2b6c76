"""Small random models of today's families, each of its real architecture's classes.

`FAMILIES` maps a family's name to what makes it: given a folder and a seed, it exports a bundle
into `folder/bundle` and returns the reference library's own model, preprocessing and tokenizer.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import open_clip
import timm
import torch
import transformers
from timm.models import eva, fastvit, swin_transformer, vision_transformer
from tipserve_export.cli import main
from torch import nn
from torchvision.transforms import functional as TF

torch.set_num_threads(2)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass
class Reference:
    """What the family's own library makes of pictures and texts: raw features in float32."""

    prepare: Callable  # a Pillow picture to [3, height, width]
    image: Callable  # [n, 3, height, width] to [n, D]
    tokens: Callable | None = None  # texts to ids [n, context]
    text: Callable | None = None  # ids to [n, D]


def lively(model):
    """Gives every weight that initialisation leaves near 0 or at 1 a value that can be seen."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("logit_scale", "logit_bias"):
                continue
            flat = parameter.dim() == 1 or float(parameter.std()) < 1e-6
            if flat or "token" in name or "pos" in name or "register" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                # As long an output as input, so that pictures tell features apart.
                wanted = (parameter[0].numel()) ** -0.5
                parameter.mul_(max(1.0, wanted / float(parameter.std())))
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.copy_(torch.randn_like(part.running_mean) * 0.2)
                part.running_var.copy_(torch.rand_like(part.running_var) + 0.5)
    return model.eval()


def export(*arguments):
    assert main([*map(str, arguments), "--int8", "never"]) == 0


# ---- tokenizers -------------------------------------------------------------------------------

CORPUS = [
    "a photo of a cat", "a photo of two dogs in the snow", "the quick brown fox jumps over a lazy dog",
    "eine Aufnahme von einem Haus", "une tasse de café crème", "numbers 1234567890", "naïve façade",
    "low resolution picture of textile defects", "日本語のテキスト", "Ελληνικά οδυσσευς", "emoji 🙂",
] * 20  # fmt: skip


def gemma_folder(folder, **config):
    """A tokenizer of Gemma's kind (BPE with bytes to fall back to), as SigLIP 2 has it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    specials += [f"<0x{byte:02X}>" for byte in range(256)]
    draft = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    draft.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
    )
    draft.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    draft.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=specials, show_progress=False)
    )
    model = json.loads(draft.to_str())["model"]
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        **config,
    )
    tokenizer.save_pretrained(folder)
    return transformers.Siglip2Tokenizer.from_pretrained(folder)


def sentencepiece_folder(folder):
    """A SentencePiece unigram model, as SigLIP has it."""
    import sentencepiece

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(folder / "spiece"),
        model_type="unigram",
        vocab_size=200,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"))
    tokenizer.save_pretrained(folder)
    return transformers.SiglipTokenizer.from_pretrained(folder)


# ---- open_clip with timm's towers -------------------------------------------------------------

TEXT = {"width": 64, "heads": 2, "layers": 2}
SIGLIP_TEXT = TEXT | {
    "hf_tokenizer_name": "see --tokenizer",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}


@timm.models.register_model
def tiny_siglip(pretrained=False, **options):
    sizes = dict(img_size=64, patch_size=16, embed_dim=96, depth=2, num_heads=3)
    return vision_transformer._create_vision_transformer(
        "vit_base_patch16_siglip_224", class_token=False, **sizes | options
    )


@timm.models.register_model
def tiny_eva02(pretrained=False, **options):
    return eva._create_eva(
        "eva02_base_patch16_clip_224",
        **dict(img_size=64, patch_size=16, embed_dim=96, depth=2, num_heads=3, mlp_ratio=8 / 3)
        | dict(qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True)
        | dict(use_rot_pos_emb=True, ref_feat_shape=(16, 16))
        | options,
    )


@timm.models.register_model
def tiny_pe(pretrained=False, **options):
    return eva._create_eva(
        "vit_pe_core_tiny_patch16_384",
        **dict(img_size=64, patch_size=16, embed_dim=96, depth=2, num_heads=3, attn_type="rope")
        | dict(use_pre_transformer_norm=True, use_rot_pos_emb=True, ref_feat_shape=(24, 24))
        | dict(rope_grid_offset=1.0, rope_grid_indexing="xy")
        | dict(attn_pool_num_heads=8, attn_pool_mlp_ratio=4.0)
        | options,
    )


@timm.models.register_model
def tiny_mci(pretrained=False, **options):
    conditional = functools.partial(fastvit.RepConditionalPosEnc, spatial_shape=(7, 7))
    return fastvit._create_fastvit(
        "fastvit_mci0",
        **dict(layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32), mlp_ratios=(3, 3, 3, 3))
        | dict(se_downsamples=(False, False, True, True), lkc_use_act=True)
        | dict(pos_embs=(None, None, None, conditional))
        | dict(token_mixers=("repmixer", "repmixer", "repmixer", "attention"))
        | options,
    )


def t5_folder(folder):
    """SigLIP's SentencePiece model alone, read as the tokenizer that open_clip has for it."""
    sentencepiece_folder(folder)
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return transformers.AutoTokenizer.from_pretrained(folder)


TOKENIZERS = {"siglip2": gemma_folder, "siglip": t5_folder}

# By open_clip's own names, so that its tags say the preprocessing.
OPEN_CLIP = {
    "siglip2": ("ViT-B-16-SigLIP2", "tiny_siglip", "map", "none", 64, SIGLIP_TEXT | {"context_length": 64}),
    "siglip": ("ViT-B-16-SigLIP", "tiny_siglip", "map", "none", 64, SIGLIP_TEXT | {"context_length": 64}),
    "eva02": ("EVA02-B-16", "tiny_eva02", "token", None, 64, TEXT | {"context_length": 77}),
    "pe": ("PE-Core-T-16-384", "tiny_pe", "map", None, 64, TEXT | {"context_length": 32}),
    "mobileclip2": (
        "MobileCLIP2-S0", "tiny_mci", "avg", None, 64, TEXT | {"context_length": 77, "no_causal_mask": True}
    ),
}  # fmt: skip


def open_clip_family(family, folder, seed):
    name, trunk, pool, projection, side, text = OPEN_CLIP[family]
    tokenizer = []
    if "hf_tokenizer_name" in text:
        own = TOKENIZERS[family](folder / "tokenizer")
        text = text | {"vocab_size": len(own), "hf_tokenizer_name": str(folder / "tokenizer")}
        tokenizer = ["--tokenizer", folder / "tokenizer"]
    else:
        text = text | {"vocab_size": 49408}
    config = {
        "embed_dim": 96 if projection == "none" else 48,
        "vision_cfg": {"image_size": side, "timm_model_name": trunk, "timm_model_pretrained": False}
        | {"timm_pool": pool, "timm_proj": projection},
        "text_cfg": text,
        "custom_text": True,
    }
    if family in TOKENIZERS:
        config["init_logit_bias"] = -10
    configs = folder / "configs"
    configs.mkdir()
    (configs / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(configs)
    torch.manual_seed(seed)
    model = lively(open_clip.create_model(name, pretrained=None))
    weights = folder / "weights.pt"
    torch.save(model.state_dict(), weights)
    export("open-clip", name, "--pretrained", weights, "--out", folder / "bundle", *tokenizer)
    tag = open_clip.get_pretrained_cfg(name, open_clip.list_pretrained_tags_by_model(name)[0])
    prepare = open_clip.image_transform(
        side, is_train=False, **{k: tag.get(k) for k in ("mean", "std", "interpolation", "resize_mode")}
    )  # fmt: skip
    return Reference(prepare, model.encode_image, open_clip.get_tokenizer(name), model.encode_text)


# ---- timm -------------------------------------------------------------------------------------


@timm.models.register_model
def tiny_swin(pretrained=False, **options):
    return swin_transformer._create_swin_transformer(
        "swin_tiny_patch4_window7_224",
        **dict(embed_dim=24, depths=(2, 2), num_heads=(2, 4)) | options,
    )


# Some of timm's own are of a size for tests.
TIMM = {"timm": "test_vit", "coatnet": "test_coatnet", "swin": "tiny_swin"}


def timm_family(family, folder, seed):
    name = TIMM[family]
    torch.manual_seed(seed)
    model = lively(timm.create_model(name, num_classes=0))
    weights = folder / "weights.pt"
    torch.save(model.state_dict(), weights)
    export("timm", name, "--pretrained", weights, "--out", folder / "bundle")
    config = timm.data.resolve_data_config({}, model=model)
    return Reference(timm.data.create_transform(**config), model)


# ---- transformers -----------------------------------------------------------------------------

TOWER = {
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "hidden_size": 96,
    "intermediate_size": 200,
}
PROCESSORS = {
    "siglip": {"size": {"height": 64, "width": 64}, "resample": 2, "do_resize": True}
    | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    "dinov2": {"size": {"shortest_edge": 66}, "crop_size": {"height": 56, "width": 56}, "resample": 3}
    | {"do_center_crop": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    "dinov3": {"size": {"height": 64, "width": 64}, "resample": 2}
    | {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
}  # fmt: skip


def save(model, folder, processor):
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[processor]))


def pillow_processor(processor):
    """As transformers' processors on Pillow compute it: resize, crop, scale, normalise."""
    given = PROCESSORS[processor]
    mode = {2: TF.InterpolationMode.BILINEAR, 3: TF.InterpolationMode.BICUBIC}[given["resample"]]

    def prepare(picture):
        size = given["size"]
        to = size.get("shortest_edge") or [size["height"], size["width"]]
        picture = TF.resize(picture, to, interpolation=mode)
        if given.get("do_center_crop"):
            picture = TF.center_crop(picture, [given["crop_size"]["height"]] * 2)
        return TF.normalize(TF.to_tensor(picture), given["image_mean"], given["image_std"])

    return prepare


def siglip_family(folder, seed, make_tokenizer):
    source = folder / "source"
    tokenizer = make_tokenizer(source)
    torch.manual_seed(seed)
    model = lively(
        transformers.SiglipModel(
            transformers.SiglipConfig(
                vision_config=TOWER | {"image_size": 64, "patch_size": 16},
                text_config=TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": 32},
            )
        )
    )
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
        model.logit_bias.fill_(-9.5)
    save(model, source, "siglip")
    export("huggingface", source, "--out", folder / "bundle")

    def tokens(texts):
        options = dict(padding="max_length", truncation=True, max_length=32, return_tensors="pt")
        return tokenizer(texts, **options).input_ids

    return Reference(
        pillow_processor("siglip"),
        lambda pixels: model.vision_model(pixel_values=pixels).pooler_output,
        tokens,
        lambda ids: model.text_model(input_ids=ids).pooler_output,
    )


def dino_family(kind, folder, seed):
    torch.manual_seed(seed)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 96}
    second = sizes | {"image_size": 70, "patch_size": 14}
    make = {
        "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**second)),
        "dinov2-giant": lambda: transformers.Dinov2Model(
            transformers.Dinov2Config(**second, use_swiglu_ffn=True)
        ),
        "dinov2-registers": lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**second)
        ),
        "dinov3": lambda: transformers.DINOv3ViTModel(
            transformers.DINOv3ViTConfig(
                **TOWER, image_size=64, patch_size=16, num_register_tokens=4
            )
        ),
        "dinov3-gated": lambda: transformers.DINOv3ViTModel(
            transformers.DINOv3ViTConfig(
                **TOWER, image_size=64, patch_size=16, use_gated_mlp=True, hidden_act="silu",
            )
        ),
    }  # fmt: skip
    model = lively(make[kind]())
    processor = kind.partition("-")[0]
    save(model, folder / "source", processor)
    export("huggingface", folder / "source", "--out", folder / "bundle")
    return Reference(
        pillow_processor(processor), lambda pixels: model(pixel_values=pixels).pooler_output
    )


FAMILIES = {name: functools.partial(open_clip_family, name) for name in OPEN_CLIP}
FAMILIES |= {name: functools.partial(timm_family, name) for name in TIMM}
FAMILIES |= {
    "siglip2-transformers": functools.partial(siglip_family, make_tokenizer=gemma_folder),
    "siglip-transformers": functools.partial(siglip_family, make_tokenizer=sentencepiece_folder),
}


# ---- two encoders in one bundle ---------------------------------------------------------------


def join_family(folder, seed):
    """SigLIP 2 and DINOv2, the first with three quarters of the weight."""
    weights, parts = [0.75, 0.25], []
    for name in ("siglip2-transformers", "dinov2"):
        (folder / name).mkdir()
        parts.append(FAMILIES[name](folder / name, seed))
    bundles = [folder / name / "bundle" for name in ("siglip2-transformers", "dinov2")]
    export("join", *bundles, "--weight", 3, "--weight", 1, "--out", folder / "bundle")
    levels = [PROCESSORS["siglip"], PROCESSORS["dinov2"]]
    mean, std = (
        [torch.tensor(given[key]).reshape(3, 1, 1) for given in levels]
        for key in ("image_mean", "image_std")
    )

    def prepare(picture):
        seen = [part.prepare(picture) * std[i] + mean[i] for i, part in enumerate(parts)]
        wide = max(one.shape[2] for one in seen)
        return torch.cat([nn.functional.pad(one, (0, wide - one.shape[2])) for one in seen], 1)

    def image(canvas):
        first, second = canvas[:, :, :64, :64], canvas[:, :, 64:, :56]
        rows = []
        for i, own in enumerate((first, second)):
            row = parts[i].image((own - mean[i]) / std[i])
            rows.append(nn.functional.normalize(row, dim=1) * weights[i] ** 0.5)
        return torch.cat(rows, dim=1)

    def text(ids):
        return nn.functional.pad(parts[0].text(ids), (0, 96))

    return Reference(prepare, image, parts[0].tokens, text)


FAMILIES |= {
    kind: functools.partial(dino_family, kind)
    for kind in ("dinov2", "dinov2-giant", "dinov2-registers", "dinov3", "dinov3-gated")
}
FAMILIES["join"] = join_family
