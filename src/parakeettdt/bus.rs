// SPDX-License-Identifier: MPL-2.0
//! What the element tells on the bus. Errors are posted from a thread of their own: whoever changes a state may hold a lock
//! that the bin's message handler takes too, as transcriberbin does.

use super::{imp::ParakeetTdt, state::State};
use gst::{prelude::*, subclass::prelude::*};
use std::{sync::PoisonError, thread, time::Duration};

/// How long the state has been the same before an error of starting is posted. A bin that an error passes through has each state
/// change fail that it is in (`gst_bin_handle_message_func`), also one that does nothing, and transcriberbin panics then.
const SETTLED: Duration = Duration::from_millis(100);

impl ParakeetTdt {
    /// Posts a message from any thread. A bin that handles it may be let go meanwhile, as a state change to NULL doesn't wait for
    /// those that post: it is held, as all are that it hands the message on to, since GStreamer doesn't.
    pub(super) fn post(&self, message: gst::Message) {
        let element = self.obj().clone().upcast::<gst::Object>();
        let _bins: Vec<_> = std::iter::successors(element.parent(), |bin| bin.parent()).collect();
        // It is refused without a bus: then nobody wants to know.
        let _ = self.obj().post_message(message);
    }

    pub(super) fn post_latency(&self) {
        self.post(gst::message::Latency::builder().src(&*self.obj()).build());
    }

    pub(super) fn post_element(&self, structure: gst::Structure) {
        self.post(gst::message::Element::builder(structure).src(&*self.obj()).build());
    }

    pub(super) fn progress(&self, kind: gst::ProgressType, text: &str) {
        self.post(gst::message::Progress::builder(kind, "model", text).src(&*self.obj()).build());
    }

    /// Posts an error, once starting has come to rest, if it is still `wanted` then. Not for a thread that anybody waits for.
    pub(super) fn post_settled(&self, message: gst::Message, wanted: impl Fn(&State) -> bool) {
        loop {
            let state = self.state();
            if !wanted(&state) {
                return;
            }
            let since = state.changed.map_or(SETTLED, |changed| changed.elapsed());
            drop(state);
            match SETTLED.checked_sub(since) {
                Some(rest) if !rest.is_zero() => thread::sleep(rest),
                _ => break,
            }
        }
        self.post(message);
    }

    /// Posts a warning from any thread.
    pub(super) fn warn(&self, code: impl gst::MessageErrorDomain, text: &str) {
        gst::warning!(super::imp::CAT, imp = self, "{text}");
        self.post(gst::message::Warning::builder(code, text).src(&*self.obj()).build());
    }

    /// An error of this element.
    pub(super) fn error(&self, code: impl gst::MessageErrorDomain, text: &str) -> gst::Message {
        gst::message::Error::builder(code, text).src(&*self.obj()).build()
    }

    /// Posts an error from another thread.
    pub(super) fn raise(&self, code: impl gst::MessageErrorDomain, text: &str) {
        let message = self.error(code, text);
        gst::error!(super::imp::CAT, imp = self, "{text}");
        self.state().run.raising += 1;
        self.obj().call_async(move |element| {
            let imp = element.imp();
            imp.post(message);
            let mut state = imp.state();
            state.run.raising = state.run.raising.saturating_sub(1);
            drop(state);
            imp.changed.notify_all();
        });
    }

    /// Posts an error from another thread and waits until it is out or everything has to stop, so that it comes before
    /// what a source makes of the returned error.
    pub(super) fn raise_first(&self, code: impl gst::MessageErrorDomain, text: &str) -> gst::FlowError {
        self.raise(code, text);
        let mut state = self.state();
        while state.run.raising > 0 && !state.run.stopping {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        gst::FlowError::Error
    }
}
