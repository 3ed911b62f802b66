#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Captions of anything that GStreamer decodes, as fast as the machine goes. README.md beside this file says more.
set -eu

[ $# -eq 2 ] || {
    echo "usage: $0 INPUT OUTPUT.srt|OUTPUT.vtt|OUTPUT.json" >&2
    exit 2
}
case $2 in
*.srt) format=srtenc ;;
*.vtt) format=webvttenc ;;
*.json) format=application/x-json ;;
*)
    echo "$0: $2: name it .srt, .vtt or .json" >&2
    exit 2
    ;;
esac

# -e: what was heard until an interruption is written too.
exec gst-launch-1.0 -e -q filesrc location="$1" ! decodebin caps=audio/x-raw expose-all-streams=false ! \
    audioconvert ! audioresample ! parakeettdt text-unit=phrase ! "$format" ! filesink location="$2"
