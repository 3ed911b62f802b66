// SPDX-License-Identifier: MPL-2.0
//! What the element tells on the bus. Errors are posted from a thread of their own: whoever changes a state may hold a lock
//! that the bin's message handler takes too, as transcriberbin does.

use super::imp::ParakeetTdt;
use gst::{prelude::*, subclass::prelude::*};
use std::sync::PoisonError;

impl ParakeetTdt {
    pub(super) fn post(&self, message: gst::Message) {
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
