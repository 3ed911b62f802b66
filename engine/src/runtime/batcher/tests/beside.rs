// SPDX-License-Identifier: MPL-2.0
//! Devices that have another backend for whole signals.

use std::collections::VecDeque;

use super::*;
use crate::model::config::AttentionStyle;

/// A fake and what it says when it is asked for another.
struct Pair {
    main: Box<Fake>,
    beside: VecDeque<Result<Box<dyn Backend>>>,
}

impl Backend for Pair {
    fn name(&self) -> &'static str {
        self.main.name()
    }

    fn device(&self) -> String {
        self.main.device()
    }

    fn limits(&self) -> Limits {
        self.main.limits()
    }

    fn open(&mut self, mode: Mode, language: usize) -> Result<Slot> {
        self.main.open(mode, language)
    }

    fn close(&mut self, slot: Slot) {
        self.main.close(slot);
    }

    fn reset(&mut self, slot: Slot) {
        self.main.reset(slot);
    }

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        self.main.step(steps)
    }

    fn slot_bytes(&self, mode: Mode) -> usize {
        self.main.slot_bytes(mode)
    }

    fn beside(&mut self) -> Option<Result<Box<dyn Backend>>> {
        self.beside.pop_front()
    }
}

fn no_memory() -> Error {
    Error::Backend {
        backend: "fake",
        device: None,
        kind: Fault::OutOfMemory,
        reason: "no memory for another".into(),
    }
}

/// Such a device.
fn device(main: Box<Fake>, beside: impl IntoIterator<Item = Result<Box<Fake>>>) -> Box<dyn Backend> {
    let beside = beside.into_iter().map(|made| made.map(|fake| fake as Box<dyn Backend>)).collect();
    Box::new(Pair { main, beside })
}

/// An engine on such devices, with a model that hears everything: its streams are windows or whole signals.
fn engine_on(devices: Vec<Box<dyn Backend>>) -> Arc<Engine> {
    let mut model = Arc::into_inner(model()).expect("nobody else has it");
    model.config.encoder.attention = AttentionStyle::Regular;
    model.config.encoder.contexts = vec![[-1, -1]];
    Engine::with_backends(Arc::new(model), devices).expect("the lanes start")
}

fn pair(main: Box<Fake>, beside: impl IntoIterator<Item = Result<Box<Fake>>>) -> Arc<Engine> {
    engine_on(vec![device(main, beside)])
}

fn whole(engine: &Arc<Engine>) -> Stream {
    engine.stream(&StreamOptions { offline: true, ..Default::default() }).expect("a stream")
}

fn live(engine: &Arc<Engine>) -> Stream {
    engine.stream(&StreamOptions::default()).expect("a stream")
}

/// Of each lane, whether it is of whole signals and how many streams it has.
fn lanes(engine: &Engine) -> Vec<(bool, usize)> {
    engine.statistics().lanes.iter().map(|lane| (lane.whole, lane.open_streams)).collect()
}

#[test]
fn a_whole_signal_does_not_hold_up_a_live_chunk() {
    let ((main, main_hand), (beside, beside_hand)) = (Fake::new(4), Fake::new(4));
    let engine = pair(main, [Ok(beside)]);
    let (live, whole) = (live(&engine), whole(&engine));
    push(&whole);
    whole.finish();
    assert_eq!(beside_hand.step(), [0]);
    // The whole signal's step goes on.
    push(&live);
    live.finish();
    assert_eq!(main_hand.step(), [0]);
    main_hand.permit();
    assert!(survives(&live));
    drop(main_hand);
    assert_eq!(lanes(&engine), [(false, 1), (true, 1)], "who asks doesn't wait for it");
    assert!(whole.try_next().is_none(), "it is being stepped");
    beside_hand.permit();
    assert!(survives(&whole));
    drop(beside_hand);
    assert_eq!((lanes(&engine), engine.devices().len()), (vec![(false, 1), (true, 1)], 1));
    let total = engine.statistics().total();
    assert_eq!((total.device.as_str(), total.open_streams, total.chunks), ("a test's hand", 2, 2));
    engine.reset_statistics();
    assert_eq!(engine.statistics().total().chunks, 0);
    drop((live, whole));
    assert_eq!(lanes(&engine), [(false, 0), (true, 0)]);
}

#[test]
fn without_another_backend_whole_signals_are_stepped_with_the_others() {
    let engine = pair(Fake::free(4), []);
    let (live, whole) = (live(&engine), whole(&engine));
    assert_eq!(lanes(&engine), [(false, 2)]);
    whole.finish();
    live.finish();
    assert!(survives(&whole) && survives(&live));
}

#[test]
fn where_memory_does_not_allow_another_the_one_lane_does() {
    let mut small = Fake::free(4);
    small.room = 1;
    let engine = pair(Fake::free(4), [Err(no_memory()), Ok(small)]);
    let first = whole(&engine);
    assert_eq!(lanes(&engine), [(false, 1)]);
    // There is room for another now, and in that for one stream.
    let more = [whole(&engine), whole(&engine)];
    assert_eq!(lanes(&engine), [(false, 2), (true, 1)]);
    for stream in more.iter().chain([&first]) {
        stream.finish();
        assert!(survives(stream));
    }
}

#[test]
fn a_device_that_is_lost_in_one_lane_is_lost() {
    for lost_beside in [true, false] {
        let (mut main, mut beside) = (Fake::free(4), Fake::free(4));
        let fault = Some(Trouble::Lost);
        if lost_beside {
            beside.fault = fault
        } else {
            main.fault = fault
        }
        let engine = pair(main, [Ok(beside)]);
        let (live, whole) = (live(&engine), whole(&engine));
        assert!(engine.works());
        let stream = if lost_beside { &whole } else { &live };
        stream.finish();
        assert!(!survives(stream) && !engine.works());
        for offline in [true, false] {
            let refused = engine.stream(&StreamOptions { offline, ..Default::default() });
            assert_eq!(refused.err().and_then(|error| error.fault()), Some(Fault::DeviceLost));
        }
    }
}

#[test]
fn the_load_of_a_device_is_that_of_all_its_lanes() {
    let two = [(); 2].map(|()| device(Fake::free(8), [Ok(Fake::free(8))]));
    let engine = engine_on(two.into());
    let streams: Vec<_> = (0..4).map(|_| whole(&engine)).collect();
    assert_eq!(lanes(&engine), [(false, 0), (true, 2), (false, 0), (true, 2)]);
    drop(streams);
}
