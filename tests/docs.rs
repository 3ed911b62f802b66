// SPDX-License-Identifier: MPL-2.0
//! The page of the element names what the element has.

mod common;

use common::*;
use gst::prelude::*;
use std::{fs, path::Path};

/// Names of messages and their details in the element's sources.
fn messages() -> Vec<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/parakeettdt");
    let mut names = Vec::new();
    for file in fs::read_dir(sources).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        let quoted = source.split("\"parakeettdt/").skip(1);
        names.extend(quoted.map(|rest| format!("parakeettdt/{}", rest.split('"').next().unwrap())));
    }
    names.sort();
    names.dedup();
    names
}

#[test]
fn the_page_has_every_property_and_message() {
    let page = include_str!("../docs/element.md");
    let element = element();
    let own =
        element.list_properties().into_iter().filter(|property| property.owner_type() == element.type_());
    let names: Vec<String> = own.map(|property| property.name().to_owned()).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in &names {
        assert!(page.contains(&format!("`{name}`")), "property {name} is missing");
    }
    let messages = messages();
    assert!(messages.len() >= 8, "{messages:?}");
    for name in &messages {
        assert!(page.contains(&format!("`{name}`")), "message {name} is missing");
    }
    for name in ["ParakeetWordsMeta", gstparakeet::parakeettdt::ENGINE_CONTEXT] {
        assert!(page.contains(name), "{name}");
    }
}
