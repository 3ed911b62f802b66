#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""Captions of every sound track of an input in one process. README.md beside this file says more."""

import argparse
import itertools
import os
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst


def language(pad):
    """The language that a track says it is in, as its tags have it, or None."""
    index = 0
    while event := pad.get_sticky_event(Gst.EventType.TAG, index):
        found, code = event.parse_tag().get_string(Gst.TAG_LANGUAGE_CODE)
        if found and code != "und":
            return code
        index += 1
    return None


def add_track(pad, pipeline, arguments, number):
    """Has a track captioned."""
    code = language(pad)
    branch = Gst.parse_bin_from_description(
        "audioconvert ! audioresample ! parakeettdt name=transcriber text-unit=phrase ! srtenc ! filesink name=file", True
    )
    transcriber = branch.get_by_name("transcriber")
    model = arguments.model.get(code, arguments.model.get(None))
    if model:
        transcriber.set_property("model", model)
    if code:
        transcriber.set_property("language-code", code)
    name = f'{number}.{code or "und"}.srt'
    branch.get_by_name("file").set_property("location", os.path.join(arguments.directory, name))
    pipeline.add(branch)
    branch.sync_state_with_parent()
    pad.link(branch.get_static_pad("sink"))


def models(values):
    """Directories of models by language, None for all others."""
    pairs = (value.rpartition("=") for value in values)
    return {language or None: directory for language, _, directory in pairs}


def main():
    parser = argparse.ArgumentParser(description="Writes captions of every sound track, N.LANGUAGE.srt each.")
    parser.add_argument("input", help="a file or a URI")
    parser.add_argument("directory", help="where captions are written, made if it isn't there")
    parser.add_argument("--model", action="append", default=[], metavar="[LANGUAGE=]DIRECTORY", help="model of a language")
    arguments = parser.parse_args()
    arguments.model = models(arguments.model)
    os.makedirs(arguments.directory, exist_ok=True)

    Gst.init(None)
    uri = arguments.input if Gst.uri_is_valid(arguments.input) else Gst.filename_to_uri(arguments.input)
    pipeline = Gst.Pipeline()
    source = Gst.parse_launch("uridecodebin caps=audio/x-raw expose-all-streams=false")
    source.set_property("uri", uri)
    pipeline.add(source)
    numbers = itertools.count(1)

    def first(pad, info, number):
        # Which language it is in is known before the first buffer.
        if info.type & Gst.PadProbeType.EVENT_DOWNSTREAM and info.get_event().type != Gst.EventType.EOS:
            return Gst.PadProbeReturn.PASS
        add_track(pad, pipeline, arguments, number)
        return Gst.PadProbeReturn.REMOVE

    kinds = Gst.PadProbeType.BLOCK | Gst.PadProbeType.BUFFER | Gst.PadProbeType.EVENT_DOWNSTREAM
    source.connect("pad-added", lambda _, pad: pad.add_probe(kinds, first, next(numbers)))

    loop, failed = GLib.MainLoop(), []

    def told(_, message):
        if message.type == Gst.MessageType.ERROR:
            failed.append(True)
            print("error:", message.parse_error().gerror.message, file=sys.stderr)
        elif message.type == Gst.MessageType.WARNING:
            print("warning:", message.parse_warning().gerror.message, file=sys.stderr)
        if message.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
            loop.quit()

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", told)
    # What was heard until an interruption is written too.
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, pipeline.send_event, Gst.Event.new_eos())
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    sys.exit(1 if failed else 0)


main()
