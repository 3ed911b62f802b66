// SPDX-License-Identifier: MPL-2.0
//! GStreamer plugin `parakeet`: registers the speech-to-text element `parakeettdt`.

pub mod parakeettdt;

pub use plugin::plugin_register_static;

#[expect(missing_docs, reason = "the macro's items cannot be given any")]
mod plugin {
    use gst::glib;

    fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
        crate::parakeettdt::register(plugin)
    }

    gst::plugin_define!(
        parakeet,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        "MPL",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("PACKAGE_ORIGIN"),
        env!("BUILD_REL_DATE")
    );
}
