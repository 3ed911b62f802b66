#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Captions drawn on the picture of a film, on the screen or into a Matroska file. README.md beside this file says more.
set -eu

[ $# -eq 1 ] || [ $# -eq 2 ] || {
    echo "usage: $0 FILM [OUTPUT.mkv]" >&2
    exit 2
}
film=$1
# What waits for its captions holds 10 s, the picture before it is decoded, where that is small.
wait='queue max-size-time=10000000000 max-size-bytes=0 max-size-buffers=0'
coded='video/x-h264;video/x-h265;video/x-vp8;video/x-vp9;video/x-av1;video/mpeg;image/jpeg;video/x-theora'

if [ $# -eq 1 ]; then
    set -- autovideosink sound. ! $wait ! decodebin ! audioconvert ! audioresample ! autoaudiosink
else
    set -- video/x-raw,format=I420 ! x264enc ! h264parse ! matroskamux name=mux ! filesink location="$2" \
        sound. ! $wait ! decodebin ! audioconvert ! vorbisenc ! mux.
fi
# Sound is parted before it is decoded: a decoder that asks a second time how much memory to take would wait for a player that
# waits for the picture.
# shellcheck disable=SC2086 # words of a pipeline
exec gst-launch-1.0 -e -q filesrc location="$film" ! parsebin name=film \
    film. ! "$coded" ! $wait ! decodebin ! \
    textoverlay name=captions font-desc="Sans 24" shaded-background=true ! videoconvert ! "$@" \
    film. ! tee name=sound \
    sound. ! queue ! decodebin ! audioconvert ! audioresample ! parakeettdt text-unit=phrase ! captions.text_sink
