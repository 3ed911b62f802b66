#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# The words of an RTMP stream as JSON lines, as they are said. README.md beside this file says more.
set -eu

[ $# -eq 1 ] || [ $# -eq 2 ] || {
    echo "usage: $0 rtmp://HOST/APPLICATION/NAME [OUTPUT.json]" >&2
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

exec gst-launch-1.0 -e -q rtmp2src location="$1" ! flvdemux name=in in.audio ! decodebin ! \
    audioconvert ! audioresample ! parakeettdt ! application/x-json ! fdsink sync=false
