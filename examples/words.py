#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Prints each word of a sound file with its time and how sure the model is, and what the model hears meanwhile.

Needs Debian's python3-gi and gir1.2-gstreamer-1.0, and GStreamer has to find the plugin:

    GST_PLUGIN_PATH=target/release /usr/bin/python3 examples/words.py tests/data/speech.wav
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst


def print_text(sink):
    """Takes a buffer of JSON from the sink."""
    buffer = sink.emit("pull-sample").get_buffer()
    said = json.loads(buffer.extract_dup(0, buffer.get_size()))
    if not said["final"]:
        print("...", said["text"], flush=True)
        return Gst.FlowReturn.OK
    for word in said["words"]:
        print(f'{word["start"]:8.3f} {word["end"]:8.3f} {100 * word["confidence"]:3.0f} % {word["text"]}', flush=True)
    return Gst.FlowReturn.OK


def main():
    if len(sys.argv) != 2:
        sys.exit("name a sound file")
    Gst.init(None)
    pipeline = Gst.parse_launch(
        "filesrc name=file ! decodebin ! audioconvert ! audioresample ! parakeettdt text-unit=phrase partials=true ! "
        "application/x-json ! appsink name=text sync=false emit-signals=true"
    )
    pipeline.get_by_name("file").set_property("location", sys.argv[1])
    pipeline.get_by_name("text").connect("new-sample", print_text)
    pipeline.set_state(Gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        sys.exit(message.parse_error().gerror.message)


main()
