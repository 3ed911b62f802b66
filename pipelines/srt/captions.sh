#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# MPEG-TS that comes by SRT goes on by SRT with captions drawn on its picture. README.md beside this file says more.
set -eu

[ $# -eq 2 ] || {
    echo "usage: $0 INPUT-URI OUTPUT-URI" >&2
    exit 2
}
# What waits for its captions holds 10 s: the picture before it is decoded, the sound as it came.
wait='queue max-size-time=10000000000 max-size-bytes=0 max-size-buffers=0'
picture='video/x-h264;video/x-h265;video/mpeg'
sound='audio/mpeg;audio/x-ac3;audio/x-eac3;audio/x-opus'

# The muxer waits for the picture as long as that waits for its captions, and a second for recoding.
# shellcheck disable=SC2086 # words of a pipeline
exec gst-launch-1.0 -e -q srtsrc uri="$1" ! parsebin name=in \
    in. ! "$picture" ! $wait ! decodebin ! textoverlay name=captions font-desc="Sans 24" shaded-background=true ! \
    videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast key-int-max=50 ! h264parse ! mux. \
    in. ! "$sound" ! tee name=sound ! $wait ! mux. \
    sound. ! queue ! decodebin ! audioconvert ! audioresample ! parakeettdt latency=4000 text-unit=phrase ! captions.text_sink \
    mpegtsmux name=mux latency=5000000000 alignment=7 ! srtsink uri="$2" wait-for-connection=false
