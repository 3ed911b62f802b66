// SPDX-License-Identifier: MPL-2.0
//! Prints each word of a sound file with its time and how sure the model is, and what the model hears meanwhile.
//!
//! ```sh
//! cargo run --release --example words -- tests/data/speech.wav
//! ```

use gst::{ClockTime, MessageView, glib, prelude::*};
use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("name a sound file")?;
    gst::init()?;
    // An application that has the plugin installed needs no crate of it: leave this out.
    gstparakeet::plugin_register_static()?;

    let pipeline = gst::parse::launch(
        "filesrc name=file ! decodebin ! audioconvert ! audioresample ! \
         parakeettdt text-unit=phrase partials=true ! appsink name=text sync=false",
    )?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "a line of elements is a pipeline")?;
    pipeline.by_name("file").ok_or("no source")?.set_property("location", file);
    let text = pipeline.by_name("text").ok_or("no sink")?;
    let text = text.downcast::<gst_app::AppSink>().map_err(|_| "no appsink")?;
    text.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(|sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                print_words(sample.buffer().ok_or(gst::FlowError::Error)?).map_err(|error| {
                    eprintln!("{error}");
                    gst::FlowError::Error
                })?;
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );

    // If that fails, the bus says why.
    let _ = pipeline.set_state(gst::State::Playing);
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let ended = loop {
        let Some(message) = bus.timed_pop(ClockTime::NONE) else { break Ok(()) };
        match message.view() {
            MessageView::Eos(_) => break Ok(()),
            MessageView::Error(error) => break Err(error.error()),
            MessageView::Element(_) => {
                let partial =
                    message.structure().filter(|structure| structure.has_name("parakeettdt/partial"));
                if let Some(partial) = partial {
                    println!("... {}", partial.get::<&str>("text")?);
                }
            }
            _ => {}
        }
    };
    pipeline.set_state(gst::State::Null)?;
    Ok(ended?)
}

/// Prints the words that a buffer of text is made of, from its meta.
fn print_words(buffer: &gst::BufferRef) -> Result<(), Box<dyn Error>> {
    let meta = gst::meta::CustomMeta::from_buffer(buffer, "ParakeetWordsMeta")?;
    for word in meta.structure().get::<gst::ArrayRef>("words")?.iter() {
        let word: gst::Structure = glib::Value::get(word)?;
        println!(
            "{} {} {:3.0} % {}",
            ClockTime::from_nseconds(word.get("start")?),
            ClockTime::from_nseconds(word.get("end")?),
            100.0 * word.get::<f64>("confidence")?,
            word.get::<&str>("text")?
        );
    }
    Ok(())
}
