# SPDX-License-Identifier: MPL-2.0
"""Golden values of Hugging Face transformers: small random-weight Parakeet and Nemotron directories and what they say.

Weights are rounded to values that f16 holds exactly and saved as f16; the library runs them in single precision.
"""

import argparse
import dataclasses
import json
import random
import shutil
import tempfile
import warnings
import wave
from pathlib import Path

warnings.filterwarnings("ignore")

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Nemotron3_5AsrConfig,
    Nemotron3_5AsrForRNNT,
    Nemotron3_5AsrProcessor,
    NemotronAsrStreamingConfig,
    NemotronAsrStreamingEncoderConfig,
    NemotronAsrStreamingFeatureExtractor,
    NemotronAsrStreamingForRNNT,
    NemotronAsrStreamingProcessor,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForRNNT,
    ParakeetForTDT,
    ParakeetProcessor,
    ParakeetRNNTConfig,
    ParakeetTDTConfig,
    ParakeetTokenizer,
)

RATE = 16000
WIDTH = 40
FEATURES = 80
DURATIONS = [0, 1, 2, 3, 4]
RIGHTS = [6, 13, 0, 1]
LEFT = 28
PROMPTS = {"en-US": 0, "en": 0, "de-DE": 2, "auto": 5}
WORDS = (
    "the quick brown fox jumps over a lazy dog while seven wizards box with jolly penguins near frozen rivers and "
    "quiet valleys speech models turn sound into text streaming needs caches chunks frames tokens and durations"
).split()
FORMAT = {"ensure_ascii": False, "separators": (",", ":")}


@dataclasses.dataclass
class Kind:
    """One directory. `blank` and `duration_bias` tune the joint's output so that decoding is lively."""

    name: str
    mels: int
    bias: bool
    scale: bool
    layers: int
    unigram: bool
    shard: str
    seed: int
    blank: float
    duration_bias: tuple = ()


KINDS = [
    Kind("tdt", 80, False, False, 2, False, "5GB", 1, 3.5, (-0.5, 1, 1, 0.5, 0.5)),
    Kind("rnnt", 128, True, True, 1, True, "60KB", 2, 9.5),
    Kind("nemotron", 128, False, False, 1, False, "5GB", 3, 9.5),
    Kind("nemotron35", 80, True, True, 2, False, "5GB", 4, 11.0),
]


def train_tokenizer(unigram):
    """A tokenizer of 64 pieces, `<unk>` and `<pad>` among them, as ParakeetConverter lays one out; blank follows."""
    rng = random.Random(0)
    text = [" ".join(rng.choice(WORDS) for _ in range(8)).capitalize() + rng.choice(".?!,") for _ in range(500)]
    special = ["<unk>", "<pad>"]
    if unigram:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=64, special_tokens=special, unk_token="<unk>", show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        trainer = trainers.BpeTrainer(vocab_size=64, special_tokens=special, show_progress=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(text, trainer)
    fast = ParakeetTokenizer(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    fast.add_tokens([AddedToken("<blank>", normalized=False, special=True)])
    fast.add_special_tokens({"pad_token": "<pad>", "unk_token": "<unk>"})
    return fast


def build(kind):
    """The model, perturbed, and its processor."""
    tokenizer = train_tokenizer(kind.unigram)
    blank = tokenizer.convert_tokens_to_ids("<blank>")
    encoder = {
        "hidden_size": WIDTH,
        "num_hidden_layers": kind.layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * WIDTH,
        "attention_bias": kind.bias,
        "convolution_bias": kind.bias,
        "conv_kernel_size": 9,
        "subsampling_conv_channels": 8,
        "num_mel_bins": kind.mels,
        "scale_input": kind.scale,
    }
    common = {
        "vocab_size": blank + 1,
        "blank_token_id": blank,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_hidden_size": 32,
        "num_decoder_layers": 2 if kind.name == "tdt" else 1,
        "max_symbols_per_step": 10 if kind.name == "tdt" else 4,
    }
    if kind.name in ("tdt", "rnnt"):
        extractor = ParakeetFeatureExtractor(feature_size=kind.mels)
        processor = ParakeetProcessor(extractor, tokenizer, decoder_type=kind.name)
        encoder = ParakeetEncoderConfig(**encoder)
        if kind.name == "tdt":
            model = ParakeetForTDT(ParakeetTDTConfig(encoder_config=encoder, durations=DURATIONS, **common))
        else:
            model = ParakeetForRNNT(ParakeetRNNTConfig(encoder_config=encoder, **common))
    else:
        extractor = NemotronAsrStreamingFeatureExtractor(feature_size=kind.mels)
        encoder = NemotronAsrStreamingEncoderConfig(
            sliding_window=LEFT + 1, default_num_lookahead_tokens=RIGHTS[0], **encoder
        )
        lookahead = {"supported_num_lookahead_tokens": RIGHTS}
        if kind.name == "nemotron":
            processor = NemotronAsrStreamingProcessor(extractor, tokenizer, **lookahead)
            model = NemotronAsrStreamingForRNNT(NemotronAsrStreamingConfig(encoder_config=encoder, **common))
        else:
            processor = Nemotron3_5AsrProcessor(
                extractor, tokenizer, prompt_dictionary=PROMPTS, num_prompts=6, **lookahead
            )
            prompt = {"num_prompts": 6, "prompt_intermediate_size": 48, "default_prompt_id": PROMPTS["auto"]}
            model = Nemotron3_5AsrForRNNT(Nemotron3_5AsrConfig(encoder_config=encoder, **common, **prompt))
    generation = model.generation_config
    generation.decoder_start_token_id, generation.eos_token_id = blank, None
    if kind.name == "tdt":
        generation.suppress_tokens = list(range(blank + 1, blank + 1 + len(DURATIONS)))
    perturb(model.eval(), kind, blank)
    return model, processor


@torch.no_grad()
def perturb(model, kind, blank):
    """Makes every weight and statistic matter, so that leaving one out changes the output."""
    g = torch.Generator().manual_seed(kind.seed)

    def noise(t, scale=1.0):
        return torch.randn(t.shape, generator=g) * scale

    for name, p in model.named_parameters():
        fan_in = p[0].numel() if p.dim() >= 2 else 1
        if "bias_u" in name or "bias_v" in name:
            p.copy_(noise(p, 0.5))
        elif "norm" in name and p.dim() == 1:
            p.copy_(noise(p, 0.2) + (1.0 if name.endswith("weight") else 0.0))
        elif name == "joint.head.weight":
            p.copy_(noise(p, 0.4))
            p[blank + 1 :] *= 0.4
        elif name == "joint.head.bias":
            p.copy_(noise(p, 0.1))
            p[blank] += kind.blank
            p[blank + 1 :] += torch.tensor(kind.duration_bias)
        elif name.startswith("decoder.decoder_projector"):
            p.copy_(noise(p, 0.5))
        elif name == "decoder.embedding.weight":
            p.copy_(noise(p))
            p[blank].zero_()
        elif name.startswith("decoder."):
            p.copy_(noise(p, 0.3))
        elif name in ("encoder.subsampling.layers.0.weight", "encoder.subsampling.conv_in.weight"):
            p.copy_(noise(p, 0.5))
            p.sub_(p.mean(dim=(2, 3), keepdim=True))
        elif name.startswith("encoder.subsampling"):
            p.copy_(noise(p, 1.6 / fan_in**0.5 if p.dim() >= 2 else 0.1))
        else:
            p.copy_(noise(p, 1.3 / fan_in**0.5 if p.dim() >= 2 else 0.05))
    for name, b in model.named_buffers():
        if name.endswith("running_mean"):
            b.copy_(noise(b, 0.3))
        elif name.endswith("running_var"):
            b.copy_(0.5 + torch.rand(b.shape, generator=g))


@torch.no_grad()
def calibrate(model, processor, pcm, kind):
    """Whitens the joint's view of the encoder on `pcm`, so that greedy decoding varies from frame to frame."""
    g = torch.Generator().manual_seed(kind.seed + 100)
    seen = []
    hook = model.encoder_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    model.get_audio_features(**inputs_of(processor, pcm))
    hook.remove()
    mean, deviation = seen[0][:-1].mean(0), seen[0][:-1].std(0)
    projector = model.encoder_projector
    projector.weight.copy_(torch.randn(projector.weight.shape, generator=g) * (2.5 / WIDTH**0.5) / deviation)
    projector.bias.copy_(-projector.weight @ mean + 0.1 * torch.randn(projector.bias.shape, generator=g))


@torch.no_grad()
def round_to_half(model):
    for t in model.state_dict().values():
        if t.is_floating_point():
            t.copy_(t.half().float())


def inputs_of(processor, pcm, right=None, language=None):
    extra = {} if language is None else {"language": language}
    inputs = dict(processor(pcm, sampling_rate=RATE, **extra))
    if right is not None:
        inputs["num_lookahead_tokens"] = right
    return inputs


def margins(logits, vocabulary):
    """By how much each arg-max was won."""
    heads = [head for head in (logits[:vocabulary], logits[vocabulary:]) if len(head)]
    return [float(best[0] - best[1]) for best in (head.topk(2).values for head in heads)]


def run(model, processor, inputs, what):
    """Encoder output [width, frames] and what greedy decoding emits: tokens, their frames and durations."""
    encoded = model.encoder(**{k: v for k, v in inputs.items() if k != "prompt_ids"})
    frames = int(encoded.attention_mask.sum())
    closest = []
    watch = lambda _, __, logits: closest.extend(margins(logits.flatten(), model.config.vocab_size))
    hook = model.joint.register_forward_hook(watch)
    generated = model.generate(**inputs)
    hook.remove()
    steps = generated.sequences[0][1:].tolist()
    spans = generated.durations[0][1:].tolist()
    blank, at, emitted, longest = model.config.blank_token_id, 0, [], 0
    row, last = 0, -1
    for token, span in zip(steps, spans, strict=True):
        if token != blank:
            emitted.append((token, at, span))
            row, last = (row + 1 if at == last else 1), at
            longest = max(longest, row)
        at += span
    tdt = model.config.model_type == "parakeet_tdt"
    assert at >= frames and (not tdt or longest < 10), "the engine would force an advance that the library doesn't"
    decoded = {"tokens": [e[0] for e in emitted], "frames": [e[1] for e in emitted]}
    if tdt:
        decoded["durations"] = [e[2] for e in emitted]
    tokens = decoded["tokens"]
    print(what, f"{frames} frames, {len(tokens)} tokens, {len(set(tokens))} distinct,", end=" ")
    print(f"longest row {longest}, closest {min(closest):.4f}, durations {[spans.count(d) for d in DURATIONS]}:", processor.decode(tokens)[:50])
    return encoded.last_hidden_state[0, :frames].T.contiguous(), decoded


def golden(model, processor, pcm, kind):
    inputs = inputs_of(processor, pcm)
    count = int(inputs["attention_mask"].sum())
    features = inputs["input_features"][0, :count].T
    tensors, contexts = {"features": features[:, :FEATURES].contiguous()}, {}
    if kind.name in ("tdt", "rnnt"):
        tensors["enc.full"], contexts["full"] = run(model, processor, inputs, kind.name)
        return tensors, {"contexts": contexts}
    for right in RIGHTS:
        name = f"{LEFT},{right}"
        languages = [None] if kind.name == "nemotron" else ["auto", "en-US", "de-DE"]
        for language in languages:
            inputs = inputs_of(processor, pcm, right, language)
            encoded, decoded = run(model, processor, inputs, f"{kind.name} {name} {language or ''}")
            tensors["enc." + name.replace(",", "_")] = encoded
            contexts[name if language is None else f"{name} {language}"] = decoded
    return tensors, {"contexts": contexts}


def main():
    default = Path(__file__).resolve().parents[2] / "engine/tests/data"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default, help="folder that holds oracle/audio.wav (hf/ goes there)")
    data = parser.parse_args().data
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with wave.open(str(data / "oracle/audio.wav")) as wav:
        pcm = np.frombuffer(wav.readframes(wav.getnframes()), "<i2").astype(np.float32) / 32768
    for kind in KINDS:
        torch.manual_seed(kind.seed)
        model, processor = build(kind)
        with torch.inference_mode():
            calibrate(model, processor, pcm, kind)
            round_to_half(model)
            tensors, expected = golden(model, processor, pcm, kind)
        out = data / "hf" / kind.name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as work:
            model.half().save_pretrained(work, max_shard_size=kind.shard)
            processor.save_pretrained(work)
            for file in sorted(Path(work).iterdir()):
                if file.name not in ("generation_config.json", "tokenizer_config.json"):
                    shutil.copyfile(file, out / file.name)
        save_file(tensors, out / "golden.safetensors")
        (out / "golden.json").write_text(json.dumps(expected, **FORMAT) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
