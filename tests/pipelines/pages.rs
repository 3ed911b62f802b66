// SPDX-License-Identifier: MPL-2.0
//! The pages in `pipelines/`.

use super::{common::Scratch, tools::*};
use std::{fs, path::PathBuf};

/// Commands in the blocks of shell of a page, continuation lines joined, without comments.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let joined = blocks.map(|block| block.replace("\\\n", " ")).collect::<String>();
    joined.lines().map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("pipelines")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn each_pipeline_has_a_page_with_commands_that_are_there() {
    let table = fs::read_to_string(root().join("pipelines/README.md")).unwrap();
    assert!(folders().len() > 5);
    for folder in folders() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(table.contains(&format!("| [`{name}/`]({name}/) |")), "the table lacks {name}");
        let page = fs::read_to_string(folder.join("README.md")).expect(name);
        assert!(page.contains("What to change") && page.contains("What it costs: "), "{name}");
        let commands = commands(&page);
        assert!(!commands.is_empty(), "{name} shows no command");
        for command in commands {
            let script = command.split(' ').find(|word| word.starts_with("pipelines/")).expect(&command);
            assert!(root().join(script).is_file() && script.contains(name), "{command}");
        }
    }
}

#[test]
fn pipelines_of_the_page_run() {
    let page = fs::read_to_string(root().join("pipelines/README.md")).unwrap();
    let scratch = Scratch::new("page");
    let mut ran = 0;
    for command in commands(&page).iter().filter(|command| command.contains("tests/data/speech.wav")) {
        let _alone = alone();
        let out = scratch.0.join("speech.mkv");
        let command = command.replace("location=speech.mkv", &format!("location={}", out.display()));
        let printed = run(limited("sh").args(["-c", &command]).current_dir(root()));
        if command.contains("speech.mkv") {
            let line =
                format!("filesrc location={} ! matroskademux ! text/x-raw ! srtenc ! fdsink", out.display());
            check(&cues(&run(&mut launch(&line))), &said(), 0);
        } else {
            check(&cues(&printed), &said(), 0);
        }
        ran += 1;
    }
    assert_eq!(ran, 2);
}
