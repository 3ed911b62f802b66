#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""HLS with captions: segments of WebVTT beside those of the film, and their playlists. README.md beside this file says more."""

import argparse
import html
import itertools
import math
import os
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

# mpegtsmux counts from an hour on, in units of 90 kHz and 33 bits.
CLOCK, FIRST, WRAP = 90_000, 3_600 * 90_000, 1 << 33

FILM = "film%05d.ts"

# What lies before the muxer waits as long as captions take, so that these are there when their segment is.
PIPELINE = """
urisourcebin name=source ! parsebin name=in
in. ! video/x-h264 ! queue name=picture ! hls.video
in. ! audio/mpeg ! tee name=parted ! queue name=sound ! hls.audio
parted. ! queue ! decodebin ! audioconvert ! audioresample ! parakeettdt text-unit=phrase name=transcriber !
    text/x-raw,format=utf8 ! appsink name=captions sync=false emit-signals=true
hlssink2 name=hls
"""


def stamp(nanoseconds):
    """A time as WebVTT has it."""
    seconds, milliseconds = divmod(nanoseconds // 1_000_000, 1_000)
    return f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"


def replace(path, text):
    """Writes a file that is never seen half written."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


class Captions:
    """Captions by segment. All methods run on the main thread. Times are running times, in ns."""

    def __init__(self, directory, keep):
        self.directory, self.keep = directory, keep
        self.language = "und"
        self.cues = []
        self.known = 0  # up to where all captions have come
        self.opened = None
        self.closed = []  # segments of the film whose captions have not all come: start, end
        self.listed = []  # those in the playlist: file name, seconds
        self.removed = 0
        self.segments = 0  # of the film
        self.peak = 0  # bits a second

    def heard(self, start, end, text):
        """Takes what comes from the element: text, or that there is none."""
        if text:
            self.cues.append((start, end, text))
        self.known = max(self.known, end)
        self.write()

    def fragment(self, structure):
        """Takes a message about a segment of the film."""
        _, time = structure.get_clock_time("running-time")
        if structure.get_name() == "splitmuxsink-fragment-opened":
            self.opened = time
            return
        size = os.path.getsize(os.path.join(self.directory, FILM % self.segments))
        self.segments += 1
        self.peak = max(self.peak, size * 8 * Gst.SECOND // max(time - self.opened, 1))
        self.closed.append((self.opened, time))
        self.write()

    def end(self):
        """Writes what is left, and that it is all."""
        self.known = math.inf
        self.write()
        self.playlists(True)

    def write(self):
        """Writes the segments whose captions have all come."""
        while self.closed and self.closed[0][1] <= self.known:
            start, end = self.closed.pop(0)
            name = f"captions{len(self.listed) + self.removed:05}.vtt"
            # Counted from the segment's start, the map holds after the clock of 33 bits has begun anew, too.
            first = (FIRST + start * CLOCK // Gst.SECOND) % WRAP
            lines = [f"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{first},LOCAL:{stamp(start)}\n"]
            # A caption that is seen in two segments is in both.
            for since, until, text in self.cues:
                if since < end and until > start:
                    lines.append(f"{stamp(since)} --> {stamp(until)}\n{html.escape(text, quote=False)}\n")
            replace(os.path.join(self.directory, name), "\n".join(lines))
            self.cues = [cue for cue in self.cues if cue[1] > end]
            self.listed.append((name, (end - start) / Gst.SECOND))
            if self.keep and len(self.listed) > self.keep:
                os.remove(os.path.join(self.directory, self.listed.pop(0)[0]))
                self.removed += 1
            self.playlists(False)

    def playlists(self, ended):
        """Writes the playlist of captions and the one that names it and the film's."""
        longest = max((math.ceil(seconds) for _, seconds in self.listed), default=0)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{longest}", f"#EXT-X-MEDIA-SEQUENCE:{self.removed}"]
        lines += itertools.chain.from_iterable((f"#EXTINF:{seconds:.3f},", name) for name, seconds in self.listed)
        lines += ["#EXT-X-ENDLIST"] if ended else []
        replace(os.path.join(self.directory, "captions.m3u8"), "\n".join(lines) + "\n")
        replace(
            os.path.join(self.directory, "main.m3u8"),
            f'#EXTM3U\n#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="captions",NAME="{self.language}",LANGUAGE="{self.language}",'
            f'DEFAULT=YES,AUTOSELECT=YES,FORCED=NO,URI="captions.m3u8"\n'
            f'#EXT-X-STREAM-INF:BANDWIDTH={max(self.peak, 1)},SUBTITLES="captions"\nfilm.m3u8\n',
        )


def listen(pipeline, captions):
    """Hands what the element gives to the captions."""

    def text(sink):
        buffer = sink.emit("pull-sample").get_buffer()
        said = buffer.extract_dup(0, buffer.get_size()).decode()
        GLib.idle_add(captions.heard, buffer.pts, buffer.pts + buffer.duration, said)
        return Gst.FlowReturn.OK

    def event(_, info):
        event = info.get_event()
        if event.type == Gst.EventType.GAP:
            start, duration = event.parse_gap()
            GLib.idle_add(captions.heard, start, start + duration, None)
        elif event.type == Gst.EventType.TAG:
            found, code = event.parse_tag().get_string(Gst.TAG_LANGUAGE_CODE)
            if found:
                captions.language = code
        return Gst.PadProbeReturn.OK

    pipeline.get_by_name("captions").connect("new-sample", text)
    source = pipeline.get_by_name("transcriber").get_static_pad("src")
    source.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, event)


def main():
    parser = argparse.ArgumentParser(description="Writes main.m3u8, the film's segments in H.264 and AAC, and captions'.")
    parser.add_argument("input", help="a file or a URI, with H.264 and AAC")
    parser.add_argument("directory", help="where they are written, made if it isn't there")
    parser.add_argument("--seconds", type=int, default=6, help="length of a segment, at least (6)")
    parser.add_argument("--keep", type=int, default=0, help="segments that stay, for a live source (all)")
    arguments = parser.parse_args()
    os.makedirs(arguments.directory, exist_ok=True)

    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE)
    uri = arguments.input if Gst.uri_is_valid(arguments.input) else Gst.filename_to_uri(arguments.input)
    pipeline.get_by_name("source").set_property("uri", uri)
    for name in ("picture", "sound"):
        queue = pipeline.get_by_name(name)
        queue.set_property("min-threshold-time", 10 * Gst.SECOND)
        queue.set_property("max-size-time", 20 * Gst.SECOND)
        queue.set_property("max-size-bytes", 0)
        queue.set_property("max-size-buffers", 0)
    hls = pipeline.get_by_name("hls")
    hls.set_property("location", os.path.join(arguments.directory, FILM))
    hls.set_property("playlist-location", os.path.join(arguments.directory, "film.m3u8"))
    hls.set_property("target-duration", arguments.seconds)
    hls.set_property("playlist-length", arguments.keep)
    hls.set_property("max-files", arguments.keep)
    captions = Captions(arguments.directory, arguments.keep)
    listen(pipeline, captions)

    loop, failed = GLib.MainLoop(), []

    def told(_, message):
        structure = message.get_structure()
        if message.type == Gst.MessageType.ERROR:
            failed.append(True)
            print("error:", message.parse_error().gerror.message, file=sys.stderr)
        elif message.type == Gst.MessageType.WARNING:
            print("warning:", message.parse_warning().gerror.message, file=sys.stderr)
        elif message.type == Gst.MessageType.ELEMENT and structure.get_name().startswith("splitmuxsink-fragment-"):
            captions.fragment(structure)
        if message.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
            loop.quit()

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", told)
    # The last segment is written at an interruption too.
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, pipeline.send_event, Gst.Event.new_eos())
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    while GLib.MainContext.default().iteration(False):
        pass
    captions.end()
    sys.exit(1 if failed else 0)


main()
