#!/usr/bin/python3
# SPDX-License-Identifier: MPL-2.0
"""An RTSP server with a picture and speech at rtsp://127.0.0.1:PORT/live. Arguments: PORT SPEECH.wav"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
port, speech = sys.argv[1:]
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc ! video/x-raw,format=I420,width=64,height=64,framerate=5/1 ! x264enc tune=zerolatency ! "
    f"rtph264pay name=pay0 filesrc location={speech} ! wavparse ! audioconvert ! rtpL16pay name=pay1 )"
)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
GLib.MainLoop().run()
