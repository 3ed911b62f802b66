# SPDX-License-Identifier: MPL-2.0
"""Small NeMo checkpoints with random weights that decode like trained ones: varied tokens, blanks and durations.

Weights are rounded to values that f16 holds exactly, so one set of golden values serves f16 and f32 weights, and
the archives shrink to half.
"""

import dataclasses
import gzip
import hashlib
import io
import random
import re
import tarfile
from pathlib import Path

import numpy as np
import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model
from omegaconf import OmegaConf

RATE = 16000
VOCABULARY = 128
WIDTH = 64
DURATIONS = [0, 1, 2, 3, 4]
WORDS = (
    "the quick brown fox jumps over a lazy dog while seven wizards box with jolly penguins near frozen rivers and "
    "quiet valleys speech models turn sound into text streaming needs caches chunks frames tokens and durations"
).split()


@dataclasses.dataclass
class Kind:
    """One checkpoint; the last three fields tune the joint's output so that decoding is lively."""

    name: str
    mels: int
    normalize: str
    causal: bool
    contexts: list
    bias: bool
    xscaling: bool
    tdt: bool
    predictor_layers: int
    max_symbols: int
    seed: int
    blank: float
    duration_bias: list
    duration_scale: float = 1.0


CONTEXTS = [[70, 13], [70, 6], [70, 1], [70, 0]]
KINDS = [
    Kind("causal", 80, "NA", True, CONTEXTS, True, True, True, 2, 10, 1, 10.0, [3, 2, 1, 2, 1.75], 0.15),
    Kind("fullatt", 128, "per_feature", False, [[-1, -1]], False, False, True, 1, 10, 3, 6.0, [1, 0, 1, 0.5, 2], 0.5),
    Kind("rnnt", 80, "NA", True, [[70, 13], [70, 1]], False, False, False, 1, 5, 3, 10.0, []),
]


def synth(seconds, seed=0):
    """Speech-like signal, int16: gliding harmonics with syllable envelopes, noise bursts, a silence."""
    rng = np.random.RandomState(seed)
    n = int(seconds * RATE)
    t = np.arange(n) / RATE
    f0 = 120 + 40 * np.sin(2 * np.pi * 0.7 * t) + 15 * np.sin(2 * np.pi * 3.1 * t)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    x = np.zeros(n)
    for k in range(1, 20):
        x += np.sin(k * phase) / k * (0.5 + 0.5 * np.sin(2 * np.pi * (0.9 + 0.37 * k) * t + k))
    x *= np.clip(np.sin(2 * np.pi * 2.3 * t) + 0.4 * np.sin(2 * np.pi * 0.31 * t), 0, None)
    for _ in range(int(seconds * 2)):
        start = rng.randint(0, n - 1600)
        x[start : start + 1600] += rng.randn(1600) * 0.5
    x[int(0.45 * n) : int(0.52 * n)] = 0
    return np.round(0.1 * x / np.abs(x).max() * 32768).astype(np.int16)


def train_tokenizer(folder):
    """SentencePiece BPE of VOCABULARY pieces over made-up sentences, as NeMo's own script trains it."""
    rng = random.Random(0)
    folder.mkdir()
    text = folder / "text.txt"
    with text.open("w") as out:
        for _ in range(2000):
            sentence = " ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 12)))
            out.write(sentence[0].upper() + sentence[1:] + rng.choice(".?!,") + "\n")
    settings = {"vocab_size": VOCABULARY, "sample_size": -1, "do_lower_case": False, "tokenizer_type": "bpe"}
    create_spt_model(str(text), output_dir=str(folder), **settings)
    text.unlink()


def config(kind, tokenizer):
    """The checkpoint's configuration, with the keys of the published ones."""
    tdt = {"durations": DURATIONS} if kind.tdt else {}
    prednet = {"pred_hidden": WIDTH, "pred_rnn_layers": kind.predictor_layers, "t_max": None, "dropout": 0.2}
    defaults = {"tdt_durations": DURATIONS, "num_tdt_durations": len(DURATIONS)} if kind.tdt else {}
    loss = {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0}}
    if kind.tdt:
        tdt_kwargs = {"fastemit_lambda": 0.0, "clamp": -1.0, "durations": DURATIONS, "sigma": 0.02, "omega": 0.1}
        loss = {"loss_name": "tdt", "tdt_kwargs": tdt_kwargs}
    modules = "nemo.collections.asr.modules."
    return OmegaConf.create(
        {
            "sample_rate": RATE,
            "compute_eval_loss": False,
            "log_prediction": True,
            "skip_nan_grad": False,
            "model_defaults": {"enc_hidden": WIDTH, "pred_hidden": WIDTH, "joint_hidden": WIDTH, **defaults},
            "tokenizer": {"dir": tokenizer, "type": "bpe"},
            "preprocessor": {
                "_target_": modules + "AudioToMelSpectrogramPreprocessor",
                "sample_rate": RATE,
                "normalize": kind.normalize,
                "window_size": 0.025,
                "window_stride": 0.01,
                "window": "hann",
                "features": kind.mels,
                "n_fft": 512,
                "frame_splicing": 1,
                "dither": 1e-5,
                "pad_to": 0,
            },
            "encoder": {
                "_target_": modules + "ConformerEncoder",
                "feat_in": kind.mels,
                "feat_out": -1,
                "n_layers": 3,
                "d_model": WIDTH,
                "use_bias": kind.bias,
                "subsampling": "dw_striding",
                "subsampling_factor": 8,
                "subsampling_conv_channels": 16,
                "causal_downsampling": kind.causal,
                "ff_expansion_factor": 4,
                "self_attention_model": "rel_pos",
                "n_heads": 4,
                "att_context_size": kind.contexts if len(kind.contexts) > 1 else kind.contexts[0],
                "att_context_style": "chunked_limited" if kind.causal else "regular",
                "xscaling": kind.xscaling,
                "untie_biases": True,
                "pos_emb_max_len": 5000,
                "conv_kernel_size": 9,
                "conv_norm_type": "layer_norm" if kind.causal else "batch_norm",
                "conv_context_size": "causal" if kind.causal else None,
                "dropout": 0.1,
                "dropout_pre_encoder": 0.1,
                "dropout_emb": 0.0,
                "dropout_att": 0.1,
            },
            "decoder": {
                "_target_": modules + "RNNTDecoder",
                "normalization_mode": None,
                "random_state_sampling": False,
                "blank_as_pad": True,
                "prednet": prednet,
            },
            "joint": {
                "_target_": modules + "RNNTJoint",
                "log_softmax": None,
                "preserve_memory": False,
                "fuse_loss_wer": False,
                "fused_batch_size": -1,
                "jointnet": {"joint_hidden": WIDTH, "activation": "relu", "dropout": 0.2},
                "num_extra_outputs": len(DURATIONS) if kind.tdt else 0,
            },
            "decoding": {
                "strategy": "greedy_batch",
                "model_type": "tdt" if kind.tdt else "rnnt",
                **tdt,
                "greedy": {"max_symbols": kind.max_symbols},
                "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
            },
            "loss": loss,
            "optim": {"name": "adamw", "lr": 1e-3},
        }
    )


@torch.no_grad()
def perturb(model, kind):
    """Makes every weight and statistic matter, so that leaving one out changes the output."""
    g = torch.Generator().manual_seed(kind.seed)

    def noise(t, scale=1.0):
        return torch.randn(t.shape, generator=g) * scale

    for name, p in model.named_parameters():
        fan_in = p[0].numel() if p.dim() >= 2 else 1
        if "pos_bias" in name:
            p.copy_(noise(p, 0.5))
        elif "norm" in name and p.dim() == 1:
            p.copy_(noise(p, 0.2) + (1.0 if name.endswith("weight") else 0.0))
        elif "joint.joint_net" in name and name.endswith("weight"):
            p.copy_(noise(p, 0.3))
            p[VOCABULARY + 1 :] *= kind.duration_scale
        elif "joint.joint_net" in name:
            p.copy_(noise(p, 0.1))
            p[VOCABULARY] += kind.blank
            if kind.tdt:
                p[VOCABULARY + 1 :] += torch.tensor(kind.duration_bias)
        elif name.startswith("joint.pred"):
            p.copy_(noise(p, 0.4))
        elif name == "encoder.pre_encode.conv.0.weight":
            p.copy_(noise(p, 0.5))
            p.sub_(p.mean(dim=(2, 3), keepdim=True))
        elif name.startswith("encoder.pre_encode"):
            p.copy_(noise(p, 1.6 / fan_in**0.5 if p.dim() >= 2 else 0.1))
        elif name.startswith("decoder.") and "embed" not in name:
            p.copy_(noise(p, 0.25))
        else:
            p.copy_(noise(p, 1.3 / fan_in**0.5 if p.dim() >= 2 else 0.05))
    embed = model.decoder.prediction["embed"]
    embed.weight.copy_(noise(embed.weight))
    embed.weight[embed.padding_idx].zero_()
    for name, b in model.named_buffers():
        if name.endswith("running_mean"):
            b.copy_(noise(b, 0.3))
        elif name.endswith("running_var"):
            b.copy_(0.5 + torch.rand(b.shape, generator=g))


@torch.no_grad()
def calibrate(model, pcm, kind):
    """Whitens the joint's view of the encoder on `pcm`, so that greedy decoding varies from frame to frame."""
    g = torch.Generator().manual_seed(kind.seed + 100)
    features, lengths = model.preprocessor(input_signal=pcm[None], length=torch.tensor([len(pcm)]))
    encoded, _ = model.encoder(audio_signal=features, length=lengths)
    mean, deviation = encoded[0].mean(-1), encoded[0].std(-1)
    enc = model.joint.enc
    enc.weight.copy_(torch.randn(enc.weight.shape, generator=g) * (2.5 / WIDTH**0.5) / deviation)
    enc.bias.copy_(-enc.weight @ mean + 0.1 * torch.randn(enc.bias.shape, generator=g))


@torch.no_grad()
def round_to_half(model):
    """Rounds every weight to the nearest f16, kept as f32; the front end's window and mel matrix stay as they are."""
    for name, t in model.state_dict().items():
        if t.is_floating_point() and not name.startswith("preprocessor."):
            t.copy_(t.half().float())


def pack(nemo, out):
    """Repacks NeMo's archive as gzip, which NeMo reads too, without times, owners and random names."""
    with tarfile.open(nemo) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}
    renamed = {}
    for name, data in members.items():
        prefix = re.match(r"\./([0-9a-f]{32})_", name)
        if prefix:
            renamed[prefix[1]] = hashlib.md5(data).hexdigest()
    for old, new in renamed.items():
        members = {n.replace(old, new): d for n, d in members.items()}
        members["./model_config.yaml"] = members["./model_config.yaml"].replace(old.encode(), new.encode())
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    Path(out).write_bytes(gzip.compress(raw.getvalue(), 9, mtime=0))


def build(kind, tokenizer, pcm, out):
    """Builds one checkpoint and writes it to `out`."""
    torch.manual_seed(kind.seed)
    model = EncDecRNNTBPEModel(cfg=config(kind, tokenizer), trainer=None)
    model.eval()
    perturb(model, kind)
    calibrate(model, pcm, kind)
    round_to_half(model)
    model.save_to("unpacked.nemo")
    pack("unpacked.nemo", out)
