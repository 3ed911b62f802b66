// SPDX-License-Identifier: MPL-2.0
//! An engine that the application hands in, by GStreamer's contexts.

use super::imp::{CAT, ParakeetTdt};
use gst::{glib, prelude::*, subclass::prelude::*};
use parakeet_engine::Engine;
use std::sync::Arc;

/// Type of the context that holds an [`Engine`].
pub const ENGINE_CONTEXT: &str = "gst.parakeet.engine";

/// The field of the context that holds it.
const FIELD: &str = "engine";

/// An engine as a value of GObject's type system.
#[derive(Clone, glib::Boxed)]
#[boxed_type(name = "GstParakeetEngine")]
struct Shared(Arc<Engine>);

/// A context that hands an engine to the elements of a pipeline or a bin, or to one element, by
/// [`set_context`](gst::prelude::ElementExt::set_context) before they leave NULL, or in answer to their message NEED_CONTEXT:
/// they recognise with it, whatever their properties say of model, backend, device, precisions and threads.
///
/// It is persistent: a bin keeps it for elements that are added later.
pub fn engine_context(engine: Arc<Engine>) -> gst::Context {
    let mut context = gst::Context::new(ENGINE_CONTEXT, true);
    let context_ref = context.get_mut().expect("nobody else has seen this context");
    context_ref.structure_mut().set(FIELD, Shared(engine));
    context
}

impl ParakeetTdt {
    /// The engine that was handed in.
    pub(super) fn handed(&self) -> Option<Arc<Engine>> {
        let context = self.obj().context(ENGINE_CONTEXT)?;
        context.structure().get::<Shared>(FIELD).ok().map(|shared| shared.0)
    }

    /// The engine that is handed in if the application is asked for one. Not for a thread that changes the state: the answer
    /// may need a lock that is held for that.
    pub(super) fn ask_for_engine(&self) -> Option<Arc<Engine>> {
        if self.handed().is_none() {
            self.post(gst::message::NeedContext::builder(ENGINE_CONTEXT).src(&*self.obj()).build());
        }
        let engine = self.handed()?;
        gst::info!(CAT, imp = self, "recognising with the engine of the application");
        Some(engine)
    }
}
