#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# The words of an RTSP stream as JSON lines, as they are said. README.md beside this file says more.
set -eu

[ $# -eq 1 ] || [ $# -eq 2 ] || {
    echo "usage: $0 rtsp://HOST/PATH [OUTPUT.json]" >&2
    exit 2
}
# A publisher's name for its stream may be part of the file's.
case ${2-} in
*..*)
    echo "$0: $2: no '..', please" >&2
    exit 2
    ;;
esac
[ $# -eq 1 ] || exec >>"$2"

exec gst-launch-1.0 -e -q rtspsrc location="$1" name=in in. ! application/x-rtp,media=audio ! decodebin ! \
    audioconvert ! audioresample ! parakeettdt ! application/x-json ! fdsink sync=false
