#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""The words of many sources in one process, a JSON line each with its source. README.md beside this file says more."""

import argparse
import json
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst


class Source:
    """A source with a pipeline of its own, so that what happens to it is no matter to the others."""

    def __init__(self, uri, ended):
        self.uri, self.ended = uri, ended
        self.pipeline = Gst.parse_launch(
            "uridecodebin name=source caps=audio/x-raw expose-all-streams=false ! audioconvert ! audioresample ! "
            "parakeettdt ! application/x-json ! appsink name=words sync=false emit-signals=true"
        )
        location = uri if Gst.uri_is_valid(uri) else Gst.filename_to_uri(uri)
        self.pipeline.get_by_name("source").set_property("uri", location)
        self.pipeline.get_by_name("words").connect("new-sample", self.write)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self.told)
        self.pipeline.set_state(Gst.State.PLAYING)

    def write(self, sink):
        """Writes the words of a buffer. Called on the source's own thread; each write is whole lines."""
        buffer = sink.emit("pull-sample").get_buffer()
        said = json.loads(buffer.extract_dup(0, buffer.get_size()))
        lines = (json.dumps({"source": self.uri, **word}, ensure_ascii=False) + "\n" for word in said["words"])
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
        return Gst.FlowReturn.OK

    def told(self, _, message):
        """Takes a message of the pipeline."""
        if message.type == Gst.MessageType.WARNING:
            print(f"{self.uri}: warning: {message.parse_warning().gerror.message}", file=sys.stderr)
        elif message.type == Gst.MessageType.ERROR:
            print(f"{self.uri}: error: {message.parse_error().gerror.message}", file=sys.stderr)
            self.end(True)
        elif message.type == Gst.MessageType.EOS:
            self.end(False)

    def end(self, failed):
        """Gives up what the pipeline has."""
        self.pipeline.get_bus().remove_signal_watch()
        self.pipeline.set_state(Gst.State.NULL)
        self.ended(self, failed)


def main():
    parser = argparse.ArgumentParser(description="Prints the words of every source of a list, a JSON line each.")
    parser.add_argument("list", help="a file with a URI or a path a line; # begins a comment")
    arguments = parser.parse_args()
    with open(arguments.list, encoding="utf-8") as lines:
        uris = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not uris:
        sys.exit(f"{arguments.list}: names no source")

    Gst.init(None)
    loop, running, failures = GLib.MainLoop(), set(), []

    def ended(source, failed):
        running.discard(source)
        if failed:
            failures.append(source.uri)
        if not running:
            loop.quit()

    def interrupted():
        for source in running:
            source.pipeline.send_event(Gst.Event.new_eos())

    running.update(Source(uri, ended) for uri in uris)
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, interrupted)
    loop.run()
    sys.exit(1 if failures else 0)


main()
