// SPDX-License-Identifier: MPL-2.0
//! `docs/gst_plugins_cache.json`, what GStreamer's documentation is made of, in the form that its own scanner of plugins
//! writes: `cargo test --test plugins_cache -- --ignored` writes it anew.

mod common;

use common::init;
use gst::{glib, prelude::*};
use serde_json::{Map, Value, json};
use std::{fs, path::PathBuf};

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gst_plugins_cache.json"))
}

/// The plugin as its file and the registry describe it.
fn cache() -> Value {
    init();
    let registry = gst::Registry::get();
    let plugin = registry.find_plugin("parakeet").expect("it is registered");
    let factories = registry.features_by_plugin("parakeet").into_iter();
    let factories: Vec<gst::ElementFactory> =
        factories.filter_map(|feature| feature.downcast().ok()).collect();
    let mut types = Map::new();
    let elements = factories.iter().map(|factory| (factory.name().to_string(), element(factory, &mut types)));
    let elements: Map<String, Value> = elements.collect();

    json!({
        "parakeet": {
            "description": plugin.description().as_str(),
            "elements": elements,
            "filename": "gstparakeet",
            "license": plugin.license().as_str(),
            "other-types": types,
            "package": plugin.package().as_str(),
            "source": plugin.source().as_str(),
            "tracers": {},
            "url": plugin.origin().as_str(),
        }
    })
}

fn element(factory: &gst::ElementFactory, types: &mut Map<String, Value>) -> Value {
    let element = factory.create().build().expect("it can be made");
    let own = element.list_properties().into_iter();
    let own: Vec<glib::ParamSpec> = own.filter(|spec| spec.owner_type() == element.type_()).collect();
    for spec in &own {
        if let Some(class) = glib::EnumClass::with_type(spec.value_type()) {
            types.insert(spec.value_type().name().to_owned(), enumeration(&class));
        }
    }
    let properties: Map<String, Value> =
        own.iter().map(|spec| (spec.name().to_owned(), property(&element, spec))).collect();
    let parents = std::iter::successors(Some(element.type_()), |type_| type_.parent());
    let hierarchy: Vec<&str> = parents.map(|type_| type_.name()).collect();
    let interfaces: Vec<&str> = element.type_().interfaces().iter().map(|type_| type_.name()).collect();
    let templates = factory.static_pad_templates().into_iter();
    let templates: Map<String, Value> =
        templates.map(|pad| (pad.name_template().to_owned(), template(&pad))).collect();
    json!({
        "author": factory.metadata("author"),
        "description": factory.metadata("description"),
        "hierarchy": hierarchy,
        "interfaces": interfaces,
        "klass": factory.metadata("klass"),
        "long-name": factory.metadata("long-name"),
        "pad-templates": templates,
        "properties": properties,
        "rank": rank(factory.rank()),
    })
}

fn rank(rank: gst::Rank) -> &'static str {
    match rank {
        gst::Rank::NONE => "none",
        gst::Rank::MARGINAL => "marginal",
        gst::Rank::SECONDARY => "secondary",
        gst::Rank::PRIMARY => "primary",
        rank => panic!("no name for {rank:?}"),
    }
}

/// Caps with a field a line, the names right-aligned in 15 columns.
fn caps(caps: &gst::Caps) -> String {
    let structure = |structure: &gst::StructureRef| {
        let field = |(name, value): (&glib::GStr, &glib::SendValue)| {
            format!("{:>15}: {}\n", name.as_str(), value.serialize().expect("caps have a form as text"))
        };
        format!("{}:\n{}", structure.name(), structure.iter().map(field).collect::<String>())
    };
    caps.iter().map(structure).collect::<Vec<_>>().join("\n")
}

fn template(pad: &gst::StaticPadTemplate) -> Value {
    let direction = match pad.direction() {
        gst::PadDirection::Sink => "sink",
        gst::PadDirection::Src => "src",
        direction => panic!("no pad has the direction {direction:?}"),
    };
    let presence = match pad.presence() {
        gst::PadPresence::Always => "always",
        gst::PadPresence::Sometimes => "sometimes",
        gst::PadPresence::Request => "request",
    };
    json!({ "caps": caps(&pad.caps()), "direction": direction, "presence": presence })
}

/// The states in which a property can be set.
fn mutable(flags: glib::ParamFlags) -> &'static str {
    let states = [
        (gst::PARAM_FLAG_MUTABLE_PLAYING, "playing"),
        (gst::PARAM_FLAG_MUTABLE_PAUSED, "paused"),
        (gst::PARAM_FLAG_MUTABLE_READY, "ready"),
    ];
    states.iter().find(|(flag, _)| flags.contains(*flag)).map_or("null", |(_, state)| state)
}

fn property(element: &gst::Element, spec: &glib::ParamSpec) -> Value {
    let flags = spec.flags();
    let has = |flag| flags.contains(flag);
    let value = element.property_value(spec.name());
    let default = if let Some((_, value)) = glib::EnumValue::from_value(&value) {
        format!("{} ({})", value.nick(), value.value())
    } else if let Ok(structure) = value.get::<gst::Structure>() {
        structure.to_string()
    } else {
        value.serialize().map_or_else(|_| "NULL".to_owned(), String::from)
    };
    let mut property = json!({
        "blurb": spec.blurb(),
        "conditionally-available": has(gst::PARAM_FLAG_CONDITIONALLY_AVAILABLE),
        "construct": has(glib::ParamFlags::CONSTRUCT),
        "construct-only": has(glib::ParamFlags::CONSTRUCT_ONLY),
        "controllable": has(gst::PARAM_FLAG_CONTROLLABLE),
        "default": default,
        "mutable": mutable(flags),
        "readable": has(glib::ParamFlags::READABLE),
        "type": spec.value_type().name(),
        "writable": has(glib::ParamFlags::WRITABLE),
    });
    if let Some((min, max)) = range(spec) {
        property["min"] = min.into();
        property["max"] = max.into();
    }
    property
}

/// The least and the greatest number that a property takes.
fn range(spec: &glib::ParamSpec) -> Option<(String, String)> {
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        return Some((spec.minimum().to_string(), spec.maximum().to_string()));
    }
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt64>() {
        return Some((spec.minimum().to_string(), spec.maximum().to_string()));
    }
    let spec = spec.downcast_ref::<glib::ParamSpecFloat>()?;
    Some((spec.minimum().to_string(), spec.maximum().to_string()))
}

fn enumeration(class: &glib::EnumClass) -> Value {
    let values = class.values().iter();
    let values: Vec<Value> = values
        .map(
            |value| json!({ "desc": value.name(), "name": value.nick(), "value": value.value().to_string() }),
        )
        .collect();
    json!({ "kind": "enum", "values": values })
}

#[test]
fn the_cache_says_what_the_plugin_is() {
    let written = fs::read_to_string(path()).unwrap_or_default();
    let written: Value = serde_json::from_str(&written).unwrap_or_default();
    assert!(
        written == cache(),
        "docs/gst_plugins_cache.json is out of date: run cargo test --test plugins_cache -- --ignored"
    );
}

#[test]
#[ignore = "writes the file"]
fn write_it_anew() {
    let cache = serde_json::to_string_pretty(&cache()).unwrap();
    fs::write(path(), cache + "\n").unwrap();
}
