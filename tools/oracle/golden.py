# SPDX-License-Identifier: MPL-2.0
"""Golden values of NeMo for the engine's tests: builds the checkpoints of models.py, runs them, writes what they say.

Chunks are cut from the offline encoder output and decoded with carried state: NeMo's own streaming loop drops the
last frames and the [70, 0] context's second frame is off, while the engine's streamed output equals offline output.
"""

import argparse
import itertools
import json
import logging
import os
import tempfile
import warnings
import wave
from pathlib import Path

os.environ["NEMO_LOG_LEVEL"] = "ERROR"
warnings.filterwarnings("ignore")

import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.parts.utils.streaming_utils import ContextSize, StreamingBatchedAudioBuffer
from nemo.utils import logging as nemo_logging
from omegaconf import open_dict
from safetensors.torch import save_file

import models

# Around a window, a hop, the first chunk and the encoder's 8-frame grid, then anywhere.
LENGTHS = [1, 100, 159, 160, 161, 320, 1279, 1280, 1281, 1479, 1480, 1599, 1600, 1601, 2560, 2759, 2760, 2761]
LENGTHS += [16000, 40000, 40040, 54321]
LENGTHS_CONTEXTS = [[70, 1], [70, 13]]
RAW_FRAMES = 200
# Left, chunk and right context of buffered streaming in encoder frames; the audio has 87.5. NeMo fails without a left
# context and lags a chunk behind without a right one. In the first 160 mel frames some bins hardly vary, so that
# normalising a shorter window than 25 encoder frames would make much of the last bit.
WINDOWS = [(40, 12, 13), (20, 7, 18), (30, 24, 1), (125, 25, 25)]
# With masks of their own inside the window, as the unified models have.
MASKED_WINDOWS = [(20, 10, 15)]
SAMPLES_PER_FRAME = 8 * 160
# NeMo's defaults otherwise: entropy, tsallis, alpha 0.33, norm exp; a word has the least of its tokens'.
CONFIDENCE = {"exclude_blank": True}
PRESERVED = ["preserve_frame_confidence", "preserve_token_confidence", "preserve_word_confidence"]
FORMAT = {"ensure_ascii": False, "separators": (",", ":")}


def name_of(context):
    """`70,13`, or `full` for unlimited attention."""
    return "full" if context[1] < 0 else f"{context[0]},{context[1]}"


class Oracle:
    """A checkpoint in NeMo, decoding greedily with label looping (`greedy_batch`)."""

    def __init__(self, path, kind):
        self.kind = kind
        self.model = ASRModel.restore_from(str(path), map_location="cpu").eval()
        self.decode_with()

    def decode_with(self, timestamps=False, confidence=False):
        config = self.model.cfg.decoding.copy()
        with open_dict(config):
            config.tdt_include_token_duration = self.kind.tdt
            config.compute_timestamps = timestamps
            config.confidence_cfg = {**CONFIDENCE, **dict.fromkeys(PRESERVED, confidence)}
        self.model.change_decoding_strategy(config, verbose=False)

    def features(self, pcm, normalize=True):
        """Log-mel [1, mels, frames] with NeMo's extra zero frame, and the number of valid frames."""
        featurizer = self.model.preprocessor.featurizer
        featurizer.normalize = self.kind.normalize if normalize else None
        features, lengths = self.model.preprocessor(input_signal=pcm[None], length=torch.tensor([len(pcm)]))
        return features, lengths

    def encode(self, features, lengths, context):
        """Offline encoder output [width, valid frames]."""
        if self.kind.causal:
            self.model.encoder.set_default_att_context_size(context)
        encoded, lengths = self.model.encoder(audio_signal=features, length=lengths)
        return encoded[0, :, : int(lengths)].contiguous()

    def hypothesis(self, encoded):
        decoding = self.model.decoding
        length = torch.tensor([encoded.shape[1]])
        return decoding.rnnt_decoder_predictions_tensor(encoded[None], length, return_hypotheses=True)[0]

    def decode(self, encoded):
        """Offline pass: tokens, their frames and durations, text, timestamps, confidences."""
        hypothesis = self.hypothesis(encoded)
        decoded = self.emissions(hypothesis.y_sequence, hypothesis.timestamp, hypothesis.token_duration)
        self.decode_with(timestamps=True, confidence=True)
        detailed = self.hypothesis(encoded)
        self.decode_with()
        assert as_list(detailed.y_sequence) == decoded["tokens"], "what is told of the tokens changes them"
        words, chars = detailed.timestamp["word"], detailed.timestamp["char"]
        decoded["text"] = hypothesis.text
        decoded["words"] = [{k: w[k] for k in ("word", "start_offset", "end_offset")} for w in words]
        # NeMo has a list of one text for each token.
        chars = [{**char, "char": "".join(char["char"])} for char in chars]
        decoded["chars"] = [{k: c[k] for k in ("char", "start_offset", "end_offset")} for c in chars]
        decoded["confidence"] = {
            "token": [round(float(c), 7) for c in detailed.token_confidence],
            "word": [round(float(c), 7) for c in detailed.word_confidence],
        }
        return decoded

    def decode_chunks(self, encoded, frames):
        """The same pass in chunks of `frames` with carried state."""
        computer, state, chunks = self.model.decoding.decoding.decoding_computer, None, []
        for chunk in encoded.T.split(frames):
            batch, state = computer(x=chunk[None], out_len=torch.tensor([len(chunk)]), prev_batched_state=state)
            n = int(batch.current_lengths[0])
            durations = batch.token_durations[0, :n] if self.kind.tdt else None
            decoded = self.emissions(batch.transcript[0, :n], batch.timestamps[0, :n], durations)
            if self.kind.tdt:
                decoded["time_jump"] = int(state.time_jumps[0])
            chunks.append({**decoded, "encoder_frames": len(chunk)})
        return chunks

    def decode_windows(self, pcm, window):
        """Left-chunk-right windows over the audio with carried state, as NeMo's buffered script does it; also what the
        encoder gave for the decoded frames, [width, frames]."""
        computer, state, steps, kept = self.model.decoding.decoding.decoding_computer, None, [], []
        context = ContextSize(*(frames * SAMPLES_PER_FRAME for frames in window))
        pcm, rest = pcm[None], torch.tensor([len(pcm)])
        buffer = StreamingBatchedAudioBuffer(1, context, pcm.dtype, pcm.device)
        start, end, total = 0, context.chunk + context.right, pcm.shape[1]
        while start < total:
            end = min(end, total)
            new, last = torch.tensor([end - start]), end == total
            buffer.add_audio_batch_(
                pcm[:, start:end], audio_lengths=torch.where(new >= rest, rest, new), is_last_chunk=last,
                is_last_chunk_batch=torch.tensor([last]),
            )
            sizes = buffer.context_size_batch.subsample(factor=SAMPLES_PER_FRAME)
            features, lengths = self.features(buffer.samples[0, : int(buffer.context_size_batch.total())])
            encoded, lengths = self.model.encoder(audio_signal=features, length=lengths)
            left = buffer.context_size.subsample(factor=SAMPLES_PER_FRAME).left
            count = lengths - sizes.left if last else sizes.chunk
            chunk = encoded[:, :, left : left + int(count)]
            batch, state = computer(x=chunk.transpose(1, 2), out_len=count, prev_batched_state=state)
            n = int(batch.current_lengths[0])
            decoded = self.emissions(batch.transcript[0, :n], batch.timestamps[0, :n], batch.token_durations[0, :n])
            steps.append({**decoded, "time_jump": int(state.time_jumps[0]), "encoder_frames": int(count)})
            kept.append(chunk[0])
            rest, start, end = rest - new, end, end + context.chunk
        return steps, torch.cat(kept, dim=1).contiguous()

    def emissions(self, tokens, frames, durations):
        decoded = {"tokens": as_list(tokens), "frames": as_list(frames)}
        if self.kind.tdt:
            decoded["durations"] = as_list(durations)
        return decoded

    def replay(self, encoded):
        """Label looping written out: the emissions again, what happened on the way, and how close the calls were."""
        model, t, in_row, last = self.model, 0, 0, -1
        tokens, frames, durations = [], [], []
        seen = {"blanks": 0, "forced": 0, "margin": float("inf"), "duration_margin": float("inf")}
        out, state = model.decoder.predict(torch.tensor([[models.VOCABULARY]]), None, add_sos=False)
        projected = model.joint.enc(encoded.T)
        while t < len(projected):
            logits = model.joint.joint_net(projected[t] + model.joint.pred(out))[0, 0]
            labels, token = logits[: models.VOCABULARY + 1], int(logits[: models.VOCABULARY + 1].argmax())
            seen["margin"] = min(seen["margin"], margin(labels))
            blank, duration = token == models.VOCABULARY, 0
            if self.kind.tdt:
                lengths = logits[models.VOCABULARY + 1 :]
                duration = models.DURATIONS[int(lengths.argmax())]
                seen["duration_margin"] = min(seen["duration_margin"], margin(lengths))
            if blank:
                seen["blanks"] += 1
                t += max(duration, 1)
                continue
            tokens.append(token), frames.append(t), durations.append(duration)
            in_row, last = (in_row + 1 if t == last else 1), t
            out, state = model.decoder.predict(torch.tensor([[token]]), state, add_sos=False)
            t += duration
            if t == last and in_row >= self.kind.max_symbols:
                seen["forced"] += 1
                t += 1
        return self.emissions(tokens, frames, durations), seen


def as_list(values):
    return values.tolist() if hasattr(values, "tolist") else list(values)


def margin(logits):
    best = logits.topk(2).values
    return float(best[0] - best[1])


def run(kind, path, pcm):
    """Golden tensors and JSON of one checkpoint; prints how lively it is and fails where NeMo contradicts itself."""
    oracle = Oracle(path, kind)
    features, lengths = oracle.features(pcm)
    tensors = {"features": features[0, :, : int(lengths)].contiguous()}
    if kind.normalize == "per_feature":
        tensors["features_raw"] = oracle.features(pcm, normalize=False)[0][0, :, :RAW_FRAMES].contiguous()
    golden = {"contexts": {}}
    for context in kind.contexts:
        encoded = oracle.encode(features, lengths, context)
        name = name_of(context)
        tensors["enc." + name.replace(",", "_")] = encoded
        decoded = oracle.decode(encoded)
        replayed, seen = oracle.replay(encoded)
        assert all(decoded[key] == value for key, value in replayed.items()), f"{kind.name} {name}: replay differs"
        if kind.causal:
            decoded["chunks"] = oracle.decode_chunks(encoded, context[1] + 1)
            for key in replayed:
                chunked = sum((chunk[key] for chunk in decoded["chunks"]), [])
                assert decoded[key] == chunked, f"{kind.name} {name}: chunks differ in {key}"
        golden["contexts"][name] = decoded
        report(kind, name, encoded, decoded, seen)
    if kind.normalize == "per_feature":
        deviation = tensors["features_raw"].std(dim=1).min()
        print(kind.name, f"least deviation of a mel bin {float(deviation):.2g}")
        golden["windows"] = {}
        for window, masked in [(w, False) for w in WINDOWS] + [(w, True) for w in MASKED_WINDOWS]:
            name = "-".join(map(str, window)) + ("-masked" if masked else "")
            oracle.model.encoder.att_context_style = "chunked_limited_with_rc" if masked else "regular"
            oracle.model.encoder.set_default_att_context_size(list(window) if masked else [-1, -1])
            steps, tensors["buf." + name] = oracle.decode_windows(pcm, window)
            golden["windows"][name] = steps
            tokens = sum((step["tokens"] for step in steps), [])
            print(kind.name, name, len(steps), "windows,", len(tokens), "tokens", tokens[:20])
    if kind.tdt and kind.causal:
        golden["lengths"], closest = [], float("inf")
        for context, samples in itertools.product(LENGTHS_CONTEXTS, LENGTHS):
            name = name_of(context)
            encoded = oracle.encode(*oracle.features(pcm[:samples]), context)
            hypothesis = oracle.hypothesis(encoded)
            decoded = oracle.emissions(hypothesis.y_sequence, hypothesis.timestamp, hypothesis.token_duration)
            replayed, seen = oracle.replay(encoded)
            assert decoded == replayed, f"{kind.name} {name}, {samples} samples: replay differs"
            closest = min(closest, seen["margin"], seen["duration_margin"])
            golden["lengths"].append(
                {"context": name, "samples": samples, "encoder_frames": encoded.shape[1], **decoded}
            )
        print(kind.name, "lengths: closest", closest)
    return tensors, golden


def report(kind, name, encoded, decoded, seen):
    tokens = decoded["tokens"]
    counts = {"frames": encoded.shape[1], "tokens": len(tokens), "distinct": len(set(tokens)), **seen}
    if kind.tdt:
        counts["durations"] = [decoded["durations"].count(d) for d in models.DURATIONS]
    if kind.tdt and "chunks" in decoded:
        jumps = [chunk["time_jump"] for chunk in decoded["chunks"]]
        counts["jumps"] = {jump: jumps.count(jump) for jump in sorted(set(jumps))}
    print(kind.name, name, counts, f"max |enc| {float(encoded.abs().max()):.2f}", decoded["text"][:60])


def main():
    default = Path(__file__).resolve().parents[2] / "engine/tests/data/oracle"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=default, help="folder to write (default: the engine's test data)")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    nemo_logging.setLevel(logging.ERROR)
    torch.set_num_threads(2)
    samples = models.synth(7.0)
    with wave.open(str(out / "audio.wav"), "wb") as wav:
        wav.setparams((1, 2, models.RATE, 0, "NONE", ""))
        wav.writeframes(samples.astype("<i2").tobytes())
    pcm = torch.from_numpy(samples).float() / 32768
    # Relative paths, so that the checkpoints' configurations name no folder of the machine that built them.
    with tempfile.TemporaryDirectory() as work, torch.inference_mode():
        os.chdir(work)
        models.train_tokenizer(Path("tokenizer"))
        for kind in models.KINDS:
            folder = out / kind.name
            folder.mkdir(exist_ok=True)
            with torch.inference_mode(False):
                models.build(kind, "tokenizer", pcm, folder / "model.nemo")
            tensors, golden = run(kind, folder / "model.nemo", pcm)
            save_file(tensors, folder / "golden.safetensors")
            (folder / "golden.json").write_text(json.dumps(golden, **FORMAT) + "\n", encoding="utf-8")
        os.chdir(out)


if __name__ == "__main__":
    main()
