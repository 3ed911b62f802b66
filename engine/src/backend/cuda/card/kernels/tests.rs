// SPDX-License-Identifier: MPL-2.0
//! Compiles the kernels for cards that needn't be there, and holds them against what the cards have.

use std::collections::{BTreeMap, HashSet};
use std::env;

use rayon::prelude::*;

use super::*;
use crate::backend::cuda::sizes::{CARDS, Card};
use crate::backend::{CachePrecision, EngineOptions, Precision};
use crate::convert::{Like, SynthOptions, synthetic_config};

/// Names the architectures to compile for, as `sm_80 sm_90`; `tools/kernels` sets it.
const VARIABLE: &str = "KERNEL_ARCHITECTURES";

/// Registers that the threads of a block have together, on every card since compute capability 5.0.
const REGISTERS: usize = 65_536;

/// Most bytes of its registers that a thread may write to memory: a few, outside of what it does most often.
const MOST_SPILLED: usize = 64;

/// A file to compile.
struct Unit {
    name: &'static str,
    source: String,
    options: Vec<String>,
    shape: Shape,
    /// Of what.
    title: String,
}

/// What a kernel takes, as the compiler tells.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    kernel: String,
    registers: usize,
    /// Bytes of registers that don't fit and are written to memory.
    spilled: usize,
    /// Bytes of shared memory that it declares.
    declared: usize,
}

/// Reads what `--ptxas-options=-v` tells.
fn usages(log: &str) -> Vec<Usage> {
    let number = |line: &str, what: &str| -> usize {
        let before = line.split(what).next().filter(|before| before.len() < line.len());
        before.and_then(|before| before.split_whitespace().last()?.parse().ok()).unwrap_or(0)
    };
    let mut usages = Vec::new();
    let (mut kernel, mut spilled) = (None, 0);
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Compiling entry function '") {
            kernel = name.split('\'').next().map(str::to_owned);
        } else if line.contains(" bytes spill stores") {
            spilled = number(line, " bytes spill stores");
        } else if line.contains(" registers")
            && let Some(kernel) = kernel.take()
        {
            let [registers, declared] = [" registers", " bytes smem"].map(|what| number(line, what));
            usages.push(Usage { kernel, registers, spilled, declared });
        }
    }
    usages
}

/// The files of every published shape and precision that this card runs. Those that differ in no macro are one.
fn units(card: Card) -> Vec<Unit> {
    let (mut units, mut seen) = (Vec::new(), HashSet::new());
    for like in Like::ALL {
        let model = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        let config = synthetic_config(&model).expect("a configuration");
        for precision in [Precision::F16, Precision::Bf16, Precision::F32, Precision::F8] {
            for cache in [CachePrecision::Full, CachePrecision::Int8] {
                let wanted = EngineOptions { precision, cache, ..Default::default() };
                let shape = Shape::new(&config, &wanted).and_then(|shape| shape.on(card));
                let title = format!("{like} {precision} {cache}");
                let shape = match shape {
                    Ok(shape) => shape,
                    // Tells what the card or the cache can't.
                    Err(e) => {
                        let told = e.to_string();
                        assert!(told.starts_with("precision: ") || told.starts_with("cache: "), "{told}");
                        continue;
                    }
                };
                for (name, source) in SOURCES {
                    let source = whole(name, source);
                    let all = source.contains("##");
                    let matters = |option: &String| {
                        let name = option.strip_prefix("-D").and_then(|option| option.split('=').next());
                        all || name.is_none_or(|name| source.contains(name))
                    };
                    let options: Vec<_> = options(&shape).into_iter().filter(matters).collect();
                    if seen.insert((name, options.clone())) {
                        units.push(Unit {
                            name,
                            source,
                            options,
                            shape: shape.clone(),
                            title: title.clone(),
                        });
                    }
                }
            }
        }
    }
    units
}

/// Compiles a file and says what its kernels take, of which nothing may be more than the card has.
fn compile(unit: Unit, target: Target) -> Vec<Usage> {
    let Unit { name, source, mut options, shape, title } = unit;
    options.push("--ptxas-options=-v".into());
    let compiler = Nvrtc::get().expect("NVRTC");
    if compiler.version() >= (13, 0) {
        // What it has compiled before comes from a cache where there is a driver, without a log.
        options.push("--no-cache".into());
    }
    let compiled = compiler.compile_with_log(&source, name, target, &options);
    let (_, log) = compiled.unwrap_or_else(|e| panic!("{title}, {target:?}: {e}"));
    let usages = usages(&log);
    for usage in &usages {
        let what = format!("{title}, {target:?}: {usage:?}");
        let block = shape.block(&usage.kernel).unwrap_or_else(|| panic!("{what} has no block"));
        assert!(usage.registers.next_multiple_of(8) * block.threads <= REGISTERS, "{what}, {block:?}");
        assert!(usage.declared + block.shared <= shape.card.shared_memory, "{what}, {block:?}");
        assert!(usage.spilled <= MOST_SPILLED, "{what}");
    }
    usages
}

#[test]
#[ignore = "needs NVRTC: run tools/kernels"]
fn every_published_shape_compiles_for_cards() {
    let wanted = env::var(VARIABLE).unwrap_or_else(|_| "sm_90".into());
    for architecture in wanted.split_whitespace() {
        let named = |card: &&Card| {
            let (major, minor) = card.capability;
            architecture == format!("sm_{major}{minor}")
        };
        let card = *CARDS.iter().find(named).unwrap_or_else(|| panic!("there is no card {architecture:?}"));
        let target = Target::of(card.capability).expect("it is known");
        assert!(matches!(target, Target::Code(_)), "this NVRTC is older than {architecture}");
        let units = units(card);
        let count = units.len();
        let usages: Vec<_> = units.into_par_iter().flat_map(|unit| compile(unit, target)).collect();
        let most = usages.iter().max_by_key(|usage| usage.registers).expect("there are kernels");
        let mut spilled = BTreeMap::<&str, usize>::new();
        for usage in usages.iter().filter(|usage| usage.spilled > 0) {
            let bytes = spilled.entry(&usage.kernel).or_default();
            *bytes = usage.spilled.max(*bytes);
        }
        println!(
            "{architecture}: {count} files, {} kernels; {} registers at most ({}), bytes spilled: {spilled:?}",
            usages.len(),
            most.registers,
            most.kernel
        );
    }
}

#[test]
#[ignore = "needs NVRTC: run tools/kernels"]
fn a_card_newer_than_the_compiler_gets_ptx() {
    let compiler = Nvrtc::get().expect("NVRTC");
    let target = Target::of((99, 0)).expect("it is newer than all");
    let Target::Ptx(architecture) = target else { panic!("{target:?}") };
    let card = Card { capability: (architecture / 10, architecture % 10), ..Card::ANY };
    for Unit { name, source, options, title, .. } in units(card).into_iter().take(SOURCES.len()) {
        let code = compiler.compile(&source, name, target, &options);
        let code = String::from_utf8(code.unwrap_or_else(|e| panic!("{title}: {e}"))).expect("PTX is text");
        assert!(code.contains(&format!(".target sm_{architecture}")) && code.ends_with('\0'), "{name}");
    }
}

#[test]
fn what_the_compiler_tells_is_understood() {
    let log = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'rank' for 'sm_75'\n\
        ptxas info    : Function properties for rank\n\
        ptxas         .     48 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n\
        ptxas info    : Used 24 registers, used 1 barriers, 48 bytes cumulative stack size, 512 bytes smem, 360 bytes cmem[0]\n\
        ptxas info    : Compile time = 19.717 ms\n\
        ptxas info    : Compiling entry function 'look' for 'sm_75'\n\
        ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 8 registers, used 0 barriers, 360 bytes cmem[0]\n";
    let usage = |kernel: &str, registers, spilled, declared| Usage {
        kernel: kernel.into(),
        registers,
        spilled,
        declared,
    };
    assert_eq!(usages(log), [usage("rank", 24, 16, 512), usage("look", 8, 0, 0)]);
}
