// SPDX-License-Identifier: MPL-2.0
//! A report of `parakeet bench` for people.

use super::beside::Beside;
use super::costs::Costs;
use super::files::Files;
use super::live::{Live, Seen, Streams};
use super::{Measured, Percentiles, Report, steps};

/// Prints it.
pub fn print(report: &Report) {
    let Report { model, threads, load_seconds, weights_bytes, measured } = report;
    println!(
        "{model}, {:.1} MB of weights, threads: {threads}, loaded in {:.0} ms",
        *weights_bytes as f64 / 1e6,
        load_seconds * 1e3
    );
    match measured {
        Measured::Costs(costs) => self::costs(costs),
        Measured::Steps(seen) => steps::print(seen),
        Measured::Streams(streams) => self::streams(streams),
        Measured::Live(live) => self::live(live),
        Measured::Files(files) => self::files(files),
    }
}

fn costs(costs: &Costs) {
    println!("reading the weights from memory takes {:.2} ms", costs.read_seconds * 1e3);
    println!("way                 chunk ms  real-time factor (least to most)  reads a chunk  MB a stream");
    for cost in &costs.contexts {
        println!(
            "{:18}  {:8}  {:.4} ({:.4} to {:.4})         {:13.2}  {:11.2}",
            cost.way,
            cost.chunk_ms,
            cost.real_time_factor,
            cost.least,
            cost.most,
            cost.reads_a_chunk,
            cost.stream_bytes as f64 / 1e6,
        );
    }
}

fn streams(streams: &Streams) {
    println!(
        "{}, chunks of {} ms, pieces of {} ms; starting over {} s, settling for {} s, measured for {} s",
        streams.way,
        streams.chunk_ms,
        streams.piece_ms,
        streams.spread_seconds,
        streams.settle_seconds,
        streams.seconds
    );
    println!("{}", streams.trial.line());
    if let Some(seen) = &streams.trial.seen {
        self::seen(seen);
    }
}

fn seen(seen: &Seen) {
    println!("{} steps of {} chunks on {}", seen.steps, seen.chunks, seen.device);
    let line = |what: &str, values: &Percentiles, unit: f64| {
        let [p50, p95, p99, most] =
            [values.p50, values.p95, values.p99, values.most].map(|value| value * unit);
        println!("{what}: p50 {p50:.1}, p95 {p95:.1}, p99 {p99:.1}, most {most:.1}");
    };
    line("a step in ms", &seen.step_seconds, 1e3);
    line("streams in a step", &seen.batch, 1.0);
    line("from a complete chunk to its words in ms", &seen.latency_seconds, 1e3);
    println!(
        "{} late chunks ({:.3} %), {:.1} s of audio dropped, {} words, {:.1} % of them as of one stream alone, {} streams with another text",
        seen.late_chunks,
        seen.late_share * 100.0,
        seen.dropped_seconds,
        seen.words,
        seen.agreement * 100.0,
        seen.different
    );
    let memory = match (seen.memory_used, seen.memory_total) {
        (Some(used), Some(total)) => {
            format!("{:.1} of {:.1} GB of the device in use, ", used as f64 / 1e9, total as f64 / 1e9)
        }
        _ => String::new(),
    };
    println!("{memory}{:.2} MB a stream", seen.stream_bytes as f64 / 1e6);
    if let Some(Beside { audio_seconds, files }) = seen.beside {
        println!("beside them a file of {audio_seconds} s in one pass, {files} times to its end");
    }
    println!(
        "the sources handed over {:.2} % of their pieces late, the latest by {:.1} ms",
        seen.source_late_share * 100.0,
        seen.source_most_late_seconds * 1e3
    );
}

fn live(live: &Live) {
    for limit in &live.ways {
        match limit.trials.iter().find(|trial| trial.passed && trial.streams == limit.most) {
            Some(trial) => {
                println!("{}, chunks of {} ms: {} live streams", limit.way, limit.chunk_ms, limit.most);
                trial.seen.iter().for_each(seen);
            }
            None => println!("{}: not one live stream keeps up", limit.way),
        }
    }
}

fn files(files: &Files) {
    println!("{} files of {:.1} s at once", files.files, files.audio_seconds);
    println!(
        "way                 seconds (least to most)   seconds of audio a second  files in a step  step ms  busy"
    );
    for way in &files.ways {
        println!(
            "{:18}  {:24}  {:25.0}  {:15.1}  {:7.2}  {:3.0} %",
            way.way,
            format!("{:.3} ({:.3} to {:.3})", way.seconds, way.least, way.most),
            way.throughput,
            way.batch,
            way.step_seconds * 1e3,
            way.busy * 100.0
        );
    }
}
