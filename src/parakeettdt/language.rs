// SPDX-License-Identifier: MPL-2.0
//! The language of the text: which the model is told, and the tag that says it.

use parakeet_engine::{StreamOptions, model::ModelConfig};

/// Value of `language-code` that leaves the language to the model.
const AUTO: &str = "auto";

/// What `language-code` means to a model.
#[derive(Debug, Default, PartialEq)]
pub struct Language {
    /// What the model is told.
    pub told: Option<String>,
    /// What the text is in, as an ISO 639 code, if that is known before anything is heard.
    pub text: Option<String>,
    /// Why the model can't do what is set, if it can't.
    pub lacking: Option<String>,
}

impl Language {
    /// `set` is the property's value, `default` what it is if nobody set it.
    pub fn new(set: Option<&str>, default: &str, model: &ModelConfig) -> Self {
        let code = Some(set.unwrap_or(default)).filter(|code| !code.is_empty());
        let Some(prompt) = &model.prompt else {
            let known = &model.languages;
            let wanted = code.filter(|code| !code.eq_ignore_ascii_case(AUTO));
            let is_lacking =
                |code: &str| !known.is_empty() && iso_639(code).is_none_or(|code| !known.contains(&code));
            let lacking = wanted.filter(|code| set.is_some() && is_lacking(code));
            let text = match known.as_slice() {
                [only] => Some(only.clone()),
                // The default says nothing of a model that may hear other languages.
                _ => set.filter(|code| !is_lacking(code)).and_then(iso_639),
            };
            return Self { told: None, text, lacking: lacking.map(|code| lacks(code, known.iter())) };
        };
        let has = |code: &str| {
            let options = StreamOptions { language: Some(code.to_owned()), ..StreamOptions::default() };
            options.language_place(model).is_ok()
        };
        let told = code.filter(|code| has(code));
        let lacking = code.filter(|_| told.is_none() && set.is_some());
        Self {
            told: told.map(str::to_owned),
            text: told.and_then(iso_639),
            lacking: lacking.map(|code| lacks(code, prompt.languages.keys())),
        }
    }
}

fn lacks<'a>(code: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<&str> = known.map(String::as_str).collect();
    format!(
        "property language-code: the model has no language {code:?} and goes on with its own; it has {}",
        known.join(", ")
    )
}

/// The ISO 639 code in a BCP 47 tag: `en` of `en-US`.
pub fn iso_639(code: &str) -> Option<String> {
    let language = code.split(['-', '_']).next()?;
    let is_code =
        (2..=3).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_code.then(|| language.to_ascii_lowercase())
}

/// The tags of the text.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    /// Those of the audio that are true of the text as well.
    audio: Option<gst::TagList>,
    /// The language, if it is known.
    language: Option<String>,
    /// The language has to be told once text may come.
    is_due: bool,
}

impl Tags {
    /// A new stream begins.
    pub fn begin(&mut self, language: Option<String>) {
        *self = Self { audio: None, is_due: language.is_some(), language };
    }

    /// The tags with the language, if it is still to be told.
    pub fn due(&mut self) -> Option<gst::TagList> {
        std::mem::take(&mut self.is_due).then(|| self.list())
    }

    /// All tags, with these of the audio.
    pub fn of_audio(&mut self, tags: gst::TagList) -> gst::TagList {
        if tags.scope() != gst::TagScope::Stream {
            return tags;
        }
        self.audio = Some(tags);
        self.is_due = false;
        self.list()
    }

    /// The language as an ISO 639 code, if it is known.
    pub fn language(&self) -> Option<String> {
        self.language.clone()
    }

    /// All tags, if the model hears another language than was known.
    pub fn hear(&mut self, code: &str) -> Option<gst::TagList> {
        let heard = iso_639(code)?;
        if self.language.as_ref() == Some(&heard) {
            return None;
        }
        self.language = Some(heard);
        Some(self.list())
    }

    fn list(&self) -> gst::TagList {
        let mut list = self.audio.clone().unwrap_or_default();
        if let Some(language) = &self.language {
            let list = list.make_mut();
            list.add::<gst::tags::LanguageCode>(&language.as_str(), gst::TagMergeMode::Replace);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parakeet_engine::convert::{Like, SynthOptions, synthetic_config};

    fn model(like: Like, languages: &[&str]) -> ModelConfig {
        let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        let mut model = synthetic_config(&options).expect("a configuration");
        model.languages = languages.iter().map(|code| (*code).to_owned()).collect();
        model
    }

    /// What the model is told, what the text is in, and whether something is lacking.
    fn means(set: Option<&str>, model: &ModelConfig) -> (Option<String>, Option<String>, bool) {
        let Language { told, text, lacking } = Language::new(set, "en-US", model);
        (told, text, lacking.is_some())
    }

    fn some(code: &str) -> Option<String> {
        Some(code.to_owned())
    }

    #[test]
    fn a_model_of_one_language_has_that_whatever_is_set() {
        let english = model(Like::TdtMini, &["en"]);
        for fine in [None, Some("en-US"), Some("en-GB"), Some("EN"), Some("auto"), Some("")] {
            assert_eq!(means(fine, &english), (None, some("en"), false), "{fine:?}");
        }
        for lacking in ["de-DE", "fr", "English"] {
            assert_eq!(means(Some(lacking), &english), (None, some("en"), true), "{lacking}");
        }
        let told = Language::new(Some("de-DE"), "en-US", &english).lacking.expect("it has no German");
        assert!(told.contains("no language \"de-DE\"") && told.ends_with("it has en"), "{told}");
        let german = model(Like::TdtMini, &["de"]);
        assert_eq!(means(None, &german), (None, some("de"), false), "nobody asked for English");
    }

    #[test]
    fn a_model_that_tells_languages_apart_is_believed_what_is_set() {
        for languages in [&[][..], &["de", "en"]] {
            let model = model(Like::Tdt06bV3, languages);
            assert_eq!(means(None, &model), (None, None, false));
            assert_eq!(means(Some("de-AT"), &model), (None, some("de"), false));
            assert_eq!(means(Some("auto"), &model), (None, None, false));
            let lacks = !languages.is_empty();
            let text = if lacks { None } else { some("ja") };
            assert_eq!(means(Some("ja"), &model), (None, text, lacks));
        }
    }

    #[test]
    fn a_model_that_is_told_hears_that_or_finds_out() {
        let model = model(Like::Nemotron35Streaming06b, &[]);
        assert_eq!(means(None, &model), (some("en-US"), some("en"), false));
        assert_eq!(means(Some("es-ES"), &model), (some("es-ES"), some("es"), false));
        assert_eq!(means(Some("auto"), &model), (some("auto"), None, false));
        assert_eq!(means(Some(""), &model), (None, None, false));
        assert_eq!(means(Some("ja-JP"), &model), (None, None, true));
        let mut german = model;
        german.prompt.as_mut().expect("it is told").languages = [("de-DE".to_owned(), 9)].into();
        assert_eq!(means(None, &german), (None, None, false), "nobody asked for English");
    }

    #[test]
    fn what_the_model_hears_is_told_when_it_changes() {
        gst::init().expect("GStreamer starts");
        let code = |list: Option<gst::TagList>| {
            list.and_then(|list| list.get::<gst::tags::LanguageCode>().map(|code| code.get().to_owned()))
        };
        let mut tags = Tags::default();
        tags.begin(None);
        assert!(tags.due().is_none(), "nothing is known");
        assert_eq!(code(tags.hear("de-DE")), some("de"));
        assert_eq!(code(tags.hear("de")), None);
        let mut title = gst::TagList::new();
        title.make_mut().add::<gst::tags::Title>(&"title", gst::TagMergeMode::Append);
        assert_eq!(code(Some(tags.of_audio(title))), some("de"));
        let list = tags.hear("fr").expect("it is another");
        assert_eq!(list.get::<gst::tags::Title>().map(|title| title.get().to_owned()), some("title"));
        assert_eq!(code(Some(list)), some("fr"));
        tags.begin(some("en"));
        assert_eq!(code(tags.due()), some("en"));
        assert!(tags.due().is_none(), "once");
    }
}
