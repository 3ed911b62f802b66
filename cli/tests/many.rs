// SPDX-License-Identifier: MPL-2.0
//! Many files, their results in files, as people and batch systems run the tool.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rand_pcg::rand_core::Rng;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The tool on the CPU, which says the same everywhere, in a directory.
fn transcribe(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("parakeet"));
    let model = repository().join("models/parakeet-tdt-mini").canonicalize().unwrap();
    command
        .current_dir(dir)
        .arg("transcribe")
        .args(arguments)
        .args(["--backend", "cpu", "--model"])
        .arg(model);
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    transcribe(dir, arguments).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails unless the run ended like this, with nothing on standard output.
fn assert_ended(output: &Output, status: i32, told: &str) {
    let errors = errors(output);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{errors}");
    assert!(errors.contains(told), "{errors}");
}

/// The first `samples` of the speech, as a file.
fn speech(path: &Path, samples: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut reader = hound::WavReader::open(repository().join("tests/data/speech.wav")).unwrap();
    let mut writer = hound::WavWriter::create(path, reader.spec()).unwrap();
    reader.samples::<i16>().take(samples).for_each(|sample| writer.write_sample(sample.unwrap()).unwrap());
    writer.finalize().unwrap();
}

/// All files below a directory that aren't sound, by name; what isn't whole yet is hidden.
fn results(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if !["wav", "flac", "part"].iter().any(|kind| name.ends_with(&format!(".{kind}"))) {
                all.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn results_lie_beside_their_files_and_are_made_once() {
    let dir = tempfile::tempdir().unwrap();
    for (name, samples) in [("a.wav", 40_000), ("more/b.wav", 60_000), ("more/.hidden.wav", 1_000)] {
        speech(&dir.path().join(name), samples);
    }
    fs::write(dir.path().join("more/notes.md"), "no sound").unwrap();
    let both = ["a.wav", "more", "--format", "srt,txt"];
    assert_ended(&run(dir.path(), &both), 0, "2 transcribed, 0 there already, 0 failed");
    let made = results(dir.path());
    let names: Vec<&str> = made.keys().map(String::as_str).collect();
    assert_eq!(names, ["a.srt", "a.txt", "more/b.srt", "more/b.txt", "more/notes.md"]);
    let printed = run(dir.path(), &["more/b.wav"]);
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), made["more/b.txt"]);
    assert!(
        made["more/b.txt"].starts_with("Had he married") && made["more/b.srt"].starts_with("1\n00:00:00,")
    );

    fs::write(dir.path().join("a.txt"), "mine").unwrap();
    fs::remove_file(dir.path().join("more/b.srt")).unwrap();
    assert_ended(&run(dir.path(), &both), 0, "1 transcribed, 1 there already, 0 failed");
    let mut expected = made.clone();
    expected.insert("a.txt".into(), "mine".into());
    assert_eq!(results(dir.path()), expected, "what is there stays");
    assert_ended(
        &run(dir.path(), &["a.wav", "more", "--format", "srt,txt", "--force"]),
        0,
        "2 transcribed, 0 there",
    );
    assert_eq!(results(dir.path()), made);
}

#[test]
fn bad_files_are_told_and_stop_no_other() {
    let dir = tempfile::tempdir().unwrap();
    speech(&dir.path().join("good.wav"), 40_000);
    speech(&dir.path().join("cut.wav"), 40_000);
    let whole = fs::read(dir.path().join("cut.wav")).unwrap();
    fs::write(dir.path().join("cut.wav"), &whole[..50_000]).unwrap();
    fs::write(dir.path().join("bad.mp3"), "no sound").unwrap();
    fs::write(dir.path().join("empty.wav"), "").unwrap();
    fs::create_dir(dir.path().join("full")).unwrap();
    speech(&dir.path().join("full/x.wav"), 20_000);
    fs::create_dir_all(dir.path().join("out/full/x.txt/in the way")).unwrap();
    let list = "good.wav\tgood\nbad.mp3\nno-such.wav\ncut.wav\nempty.wav\nfull/x.wav\n";
    fs::write(dir.path().join("list.tsv"), list).unwrap();
    let output = run(dir.path(), &["list.tsv", "--out", "out", "--force"]);
    assert_ended(&output, 1, "1 transcribed, 0 there already, 5 failed");
    let told = errors(&output);
    for line in [
        "error: bad.mp3: ",
        "error: no-such.wav: ",
        "error: cut.wav: the file is cut off",
        "error: empty.wav: is empty",
        "error: out/full/x.txt: ",
        "error: 5 of 6 files have no result",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(results(&dir.path().join("out")).keys().collect::<Vec<_>>(), ["good.txt"]);
}

#[test]
fn what_cannot_be_meant_is_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    speech(&dir.path().join("a.wav"), 20_000);
    speech(&dir.path().join("b/a.wav"), 20_000);
    fs::copy(dir.path().join("a.wav"), dir.path().join("a.flac")).unwrap();
    for (arguments, told) in [
        (&["a.wav", "a.flac"][..], "would take the place of"),
        (&["a.wav", "b/a.wav", "--out", "o"], "o/a.txt"),
        (&["-", "a.wav"], "standard input"),
        (&["-", "--out", "o"], "standard input"),
        (&["a.wav", "--shard", "2/2"], "expected I/N"),
        (&["a.wav", "--format", "doc"], "invalid value"),
        (&[], "required"),
    ] {
        assert_ended(&run(dir.path(), arguments), 2, told);
    }
    assert!(results(dir.path()).is_empty());
    assert_ended(&run(dir.path(), &["a.wav", "b", "--out", "o", "--keep-extension"]), 2, "o/a.wav.txt");
    assert_ended(&run(dir.path(), &[".", "--out", "o", "--keep-extension"]), 0, "3 transcribed");
    let made = results(&dir.path().join("o"));
    assert_eq!(made.keys().collect::<Vec<_>>(), ["a.flac.txt", "a.wav.txt", "b/a.wav.txt"]);
}

#[test]
fn captions_have_the_lines_that_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    speech(&dir.path().join("a.wav"), 100_000);
    let captions = |more: &[&str]| {
        let output = run(dir.path(), &[&["a.wav", "--format", "vtt"], more].concat());
        assert!(output.status.success(), "{}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let longest = |text: &str| text.lines().filter(|line| !line.contains("-->")).map(str::len).max().unwrap();
    let (usual, narrow) = (captions(&[]), captions(&["--max-line", "20", "--max-lines", "1"]));
    assert!(longest(&usual) > 20 && longest(&usual) <= 42, "{usual}");
    assert!(longest(&narrow) <= 20, "{narrow}");
    assert!(narrow.split("\n\n").skip(1).all(|cue| cue.trim().lines().count() <= 2), "{narrow}");
}

/// A film with AAC in MP4, through GStreamer; without it, a message that says how to get it.
#[test]
fn films_are_read_where_gstreamer_is() {
    let dir = tempfile::tempdir().unwrap();
    speech(&dir.path().join("a.wav"), 60_000);
    let film = dir.path().join("it's a \"film\".mp4");
    let elements = "filesrc location=a.wav ! wavparse ! audioconvert ! audioresample ! audio/x-raw,rate=48000 ! \
                    voaacenc ! aacparse ! queue ! mp4mux name=m ! filesink location=film.mp4 videotestsrc num-buffers=50 ! \
                    video/x-raw,width=320,height=240,framerate=25/1 ! openh264enc ! h264parse ! queue ! m.";
    let made = Command::new("gst-launch-1.0")
        .arg("-q")
        .args(elements.split_whitespace())
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", errors(&made));
    fs::rename(dir.path().join("film.mp4"), &film).unwrap();
    let name = film.file_name().unwrap().to_str().unwrap();
    let heard = run(dir.path(), &[name]);
    let said = String::from_utf8_lossy(&heard.stdout).into_owned();
    assert!(heard.status.success() && said.contains(" married "), "{said}{}", errors(&heard));
    let mut piped = transcribe(dir.path(), &["-"]);
    let piped = piped.stdin(fs::File::open(&film).unwrap()).output().unwrap();
    assert_eq!((&piped.stdout, errors(&piped)), (&heard.stdout, String::new()));
    let without = transcribe(dir.path(), &[name]).env("PATH", dir.path()).output().unwrap();
    assert_ended(
        &without,
        1,
        "an MP4 or QuickTime file, which GStreamer reads, but there is no gst-launch-1.0: install it",
    );
}

/// Runs of shards that are killed at any moment, until all end by themselves, leave what one undisturbed run makes.
#[cfg(unix)]
#[test]
fn shards_that_are_killed_and_started_again_make_every_result_once() {
    const SHARDS: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let mut list = String::new();
    for number in 0..18 {
        let name = format!("{}/{number}.wav", number % 4);
        speech(&dir.path().join(&name), 24_000 + 3_000 * number);
        list += &format!("{name}\n");
    }
    fs::write(dir.path().join("list.txt"), list).unwrap();
    let common = ["list.txt", "--format", "json,srt", "--jobs", "2"];
    assert_ended(&run(dir.path(), &[&common[..], &["--out", "whole"]].concat()), 0, "18 transcribed");
    let whole = results(&dir.path().join("whole"));
    assert_eq!(whole.len(), 36);

    fs::create_dir(dir.path().join("parts")).unwrap();
    let mut random = rand_pcg::Pcg32::new(7, 11);
    let mut kills = 0;
    let mut shards: Vec<(u64, Option<Child>)> = (0..SHARDS).map(|shard| (shard, None)).collect();
    while !shards.is_empty() {
        for (shard, child) in &mut shards {
            let shard = format!("{shard}/{SHARDS}");
            let mut command =
                transcribe(dir.path(), &[&common[..], &["--out", "parts", "--shard", &shard]].concat());
            child.get_or_insert_with(|| command.stderr(Stdio::null()).spawn().unwrap());
        }
        let pause = random.next_u32() % 300;
        thread::sleep(Duration::from_millis(20 + u64::from(pause)));
        // What is there meanwhile is whole.
        for (name, text) in results(&dir.path().join("parts")) {
            assert_eq!(whole[&name], text, "{name}");
        }
        let victim = random.next_u32() as usize % shards.len();
        shards.retain_mut(|(_, child)| {
            let ended = child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none_or(|status| status.success()));
            ended.is_none()
        });
        if let Some((_, child)) = shards.get_mut(victim).filter(|_| kills < 12) {
            let id = child.as_ref().unwrap().id().to_string();
            let signal = ["-KILL", "-TERM", "-INT"][kills % 3];
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
            let status = child.take().unwrap().wait().unwrap();
            assert!(!status.success() || signal != "-KILL", "{status}");
            kills += 1;
        }
    }
    println!("{kills} kills");
    assert!(kills >= 3, "{kills}");
    assert_eq!(results(&dir.path().join("parts")), whole);
    let again = run(dir.path(), &[&common[..], &["--out", "parts"]].concat());
    assert_ended(&again, 0, "0 transcribed, 18 there already, 0 failed");
}
