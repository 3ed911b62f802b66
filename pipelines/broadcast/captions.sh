#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# MPEG-TS with captions of CEA-708 and CEA-608 in its H.264. README.md beside this file says more.
set -eu

[ $# -eq 2 ] || {
    echo "usage: $0 INPUT-URI OUTPUT.ts" >&2
    exit 2
}
# The sound waits for the picture, which waits for its captions.
wait='queue max-size-time=10000000000 max-size-bytes=0 max-size-buffers=0'

# shellcheck disable=SC2086 # words of a pipeline
exec gst-launch-1.0 -e -q urisourcebin uri="$1" ! parsebin name=in \
    in. ! 'video/x-h264;video/x-h265;video/mpeg' ! $wait ! decodebin ! videoconvert ! captions.sink_video \
    in. ! tee name=sound ! $wait ! mux. \
    sound. ! queue ! decodebin ! audioconvert ! audioresample ! captions.sink_audio \
    transcriberbin name=captions latency=4000 mux-method=cea708 cc-caps='closedcaption/x-cea-708,format=(string)cc_data' \
    transcriber=parakeettdt \
    captions.src_audio ! fakesink sync=false async=false \
    captions.src_video ! video/x-raw,format=I420 ! x264enc tune=zerolatency key-int-max=50 ! h264parse ! mux. \
    mpegtsmux name=mux ! filesink location="$2"
