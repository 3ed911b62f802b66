// SPDX-License-Identifier: MPL-2.0
//! Phrases that streams rather hear: as on the CPU, and what the card holds of them.

use super::*;
use crate::backend::conformance::phrases::{hear, open, phrases_lead_the_text as lead_the_text, places};
use crate::model::Boosts;

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn phrases_lead_the_text() {
    lead_the_text(&|fixture| Box::new(backend(&fixture.model, &options(Precision::F32))));
}

/// Phrases of real words: some that the speech has, some that it doesn't, and a thousand.
fn vocabularies(model: &Model) -> Vec<Option<Arc<Boosts>>> {
    let of = |phrases: &[&str], boost: f32| {
        let phrases = phrases.iter().map(|phrase| (*phrase, boost));
        Some(Arc::new(Boosts::new(&model.vocabulary, phrases).expect("the model writes them")))
    };
    // Two or three syllables each.
    let syllables = ["ba", "con", "der", "est", "fi", "gra", "hel", "in", "ment", "ous"];
    let words =
        (0..1_000).map(|i| [i / 100, i / 10 % 10, i % 10].map(|digit: usize| syllables[digit]).concat());
    let words: Vec<String> = words.collect();
    let thousand: Vec<&str> = words.iter().map(String::as_str).collect();
    vec![
        None,
        of(&["amiable woman", "respectable", "Mary"], 2.0),
        of(&["hat", "he carried", "a moral", "romantic", "maiden", "spectacle"], 8.0),
        of(&thousand, 2.0),
    ]
}

/// In single precision what the CPU says, whoever else is in the step; in half precision nearly.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn real_speech_with_phrases_is_what_the_cpu_hears() {
    let (model, pcm) = (mini(), speech());
    let vocabularies = vocabularies(&model);
    let mut cpu = CpuBackend::new(model.clone(), 0).expect("the model is complete");
    for precision in [Precision::F32, Precision::F16] {
        let mut cuda = backend(&model, &options(precision));
        let (mut same, mut all, mut changed) = (0, 0, 0);
        for context in 0..model.config.encoder.contexts.len() {
            for mode in [Mode::Cached { context }, Mode::Offline { context }] {
                let expected = hear(&mut cpu, &model, mode, &vocabularies, &pcm);
                let got = hear(&mut cuda, &model, mode, &vocabularies, &pcm);
                changed += expected[1..].iter().filter(|said| **said != expected[0]).count();
                for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    if precision == Precision::F32 {
                        let what = format!("{mode:?}, vocabulary {index}");
                        assert_eq!(places(got), places(expected), "{what}");
                        for (got, expected) in got.iter().zip(expected) {
                            let numbers = |t: &crate::Token| [t.log_prob, t.confidence, t.margin];
                            let pairs = numbers(got).into_iter().zip(numbers(expected));
                            let worst =
                                pairs.map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
                            assert!(worst < 1e-2, "{what}: {got:?} {expected:?}");
                        }
                    }
                    let (equal, of) = agreement(&places(got), &places(expected));
                    (same, all) = (same + equal, all + of);
                }
            }
        }
        println!(
            "{precision}: {same} of {all} tokens as by the CPU, {changed} streams changed by their phrases"
        );
        assert!(same * 100 >= all * 90 && changed > 0);
    }
}

/// Streams with equal phrases share what the card holds of them, whole signals among them, and the last gives it back.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn phrases_lie_on_the_card_once_while_a_stream_has_them() {
    let model = mini();
    let mut cuda = backend(&model, &options(Precision::F16));
    let mut second = cuda.second().expect("there is memory");
    let mode = Mode::Cached { context: 0 };
    let [many, other] = [3, 1].map(|index| vocabularies(&model).swap_remove(index));
    // Equal, but made anew.
    let twin = vocabularies(&model).swap_remove(3);
    let slots = open(&mut cuda, mode, &[many.clone(), many, twin.clone(), other]);
    let whole = open(&mut second, Mode::Offline { context: 0 }, &[twin]);
    let address = |cuda: &CudaBackend, slot: Slot| {
        let state = cuda.slots[slot.0 as usize].as_ref().expect("it is open");
        state.phrases.as_ref().expect("it has phrases").address()
    };
    let addresses: Vec<u64> = slots.iter().map(|&slot| address(&cuda, slot)).collect();
    assert!(addresses[..3].iter().all(|&one| one == addresses[0] && one != addresses[3]), "{addresses:?}");
    assert_eq!(address(&second, whole[0]), addresses[0]);
    assert_eq!(cuda.phrases.held(), 2);
    cuda.reset(slots[0]);
    assert_eq!(address(&cuda, slots[0]), addresses[0], "a reset keeps them");
    slots.into_iter().for_each(|slot| cuda.close(slot));
    assert_eq!(cuda.phrases.held(), 1, "the whole signal still has them");
    whole.into_iter().for_each(|slot| second.close(slot));
    assert_eq!(cuda.phrases.held(), 0);
    // What there is no room for is refused, and nothing of it stays.
    let slot = cuda.open(mode, 0).expect("a slot");
    cuda.others_reserve.store(usize::MAX / 2, Ordering::Relaxed);
    let boosts = vocabularies(&model).swap_remove(3).expect("phrases");
    let refused = cuda.boost(slot, &boosts).expect_err("no room");
    assert_eq!(refused.fault(), Some(crate::Fault::OutOfMemory));
    assert_eq!(cuda.phrases.held(), 0);
}
