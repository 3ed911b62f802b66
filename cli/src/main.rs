// SPDX-License-Identifier: MPL-2.0
//! `parakeet`: speech to text and model conversion on the command line.

mod audio;
mod bench;
mod convert;
mod engine_args;
mod failure;
mod formats;
mod info;
mod manifest;
mod picture;
mod resample;
mod serve;
mod streaming;
mod synth;
mod terminal;
mod transcribe;
mod vocabulary;
mod wer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Speech to text with NVIDIA Parakeet and Nemotron models.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Transcribe(transcribe::Args),
    Serve(serve::Args),
    Convert(convert::Args),
    Info(info::Args),
    SynthModel(synth::Args),
    Bench(bench::Args),
    Wer(wer::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Transcribe(args) => transcribe::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Info(args) => info::run(&args),
        Command::SynthModel(args) => synth::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Wer(args) => wer::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
